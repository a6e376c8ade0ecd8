"""What all estimators share: scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.metrics import get_scorer_names
from sklearn.utils import Tags
from torch import Tensor

from skdeep.compat.sklearn import HasMethods, Interval, StrOptions, _check_partial_fit_first_call, _fit_context
from skdeep.data.answers import Answers
from skdeep.data.encoding import coded_classes
from skdeep.data.inputs import Data, Matrix, OutputSpace, to_numpy
from skdeep.data.labels import Probabilities, accuracy, check_classes, check_label_names, n_columns, unboxed
from skdeep.data.problem import Problem
from skdeep.data.scoring import faultless_scores
from skdeep.data.stored import opened_with_targets
from skdeep.engine.networks import Network, OutputMap
from skdeep.engine.penalties import ElasticNet
from skdeep.estimators.docs import FIT_ARGUMENTS
from skdeep.estimators.prediction import PredictionMixin, Predictor
from skdeep.fitting.calibration import calibrate_each
from skdeep.fitting.constraints import Constrained
from skdeep.fitting.document import document
from skdeep.fitting.fit import Procedure, conclude, fit_alone, train_each
from skdeep.fitting.links import average_of, link_of, uncalibrated_link
from skdeep.fitting.losses import RegressionLoss
from skdeep.fitting.methods import available_unless, rollback
from skdeep.fitting.recipe import Member, Recipe, as_numbers
from skdeep.fitting.saved import packed, unpacked
from skdeep.fitting.settings import FULL_BATCH, SOLVER_OBJECT, SOLVERS, Solver, check_settings, solver_name
from skdeep.fitting.torch_settings import own_settings


def no_partial_fit(estimator: BaseTorchEstimator) -> str | None:
    """Say why partial_fit is absent; None if it is there."""
    if estimator.early_stopping:
        return "early_stopping=True: a single pass has no validation history. Use fit, or early_stopping=False."
    if solver_name(estimator) in FULL_BATCH:
        return f"solver={estimator.solver!r}, which needs all data at once. Use solver='sgd' or 'adam'."
    if isinstance(estimator.class_weight, str) and estimator.class_weight == "balanced":
        return (
            "class_weight='balanced', since the class frequencies of the whole data are not known. Compute them with "
            "sklearn.utils.compute_class_weight and pass the dictionary."
        )
    if estimator.calibration is not None:
        return "calibration, which needs all data at once. Use calibration=None."
    return None


@cache
def _param_names(cls: Any, init: Callable) -> tuple[str, ...]:
    """Read the parameters off the signature of a class once per ``__init__``: it is most of the time of a clone."""
    return tuple(super(BaseTorchEstimator, cls)._get_param_names())


#: Types of values that cannot change; parameters of such that have been found valid, and how many of these are kept.
_PLAIN = frozenset({type(None), bool, int, float, str, np.float64, np.int64})
_VALID: dict[tuple, None] = {}
_MANY = 256


class BaseTorchEstimator(CallbackSupportMixin, Predictor, Constrained, BaseEstimator):
    """Base of the estimators. A subclass says what its loss, its network and its fitted attributes are."""

    #: Parameters in which the members of a stack may differ.
    stackable = frozenset(
        "alpha l1_ratio class_weight random_state tol".split()
        + [f"solver__{name}" for name in ("learning_rate_init", "momentum", "n_iter_no_change")]
    )
    #: Fitted attributes that a model consists of.
    _parameters: frozenset[str] = frozenset()
    #: Whether a row may have more than one axis, as an image has.
    _allow_nd = False
    #: What to do about missing values where there may be none.
    _nan_advice = ""
    #: Whether one class is too few.
    _needs_two_classes = False
    #: Solvers that are used for the exact optimum, and compute in float64 however large the work.
    _exact_solvers: frozenset[str] = frozenset()
    #: What only classifiers have.
    class_weight: Any = None
    calibration: str | None = None
    label_smoothing = 0.0
    solver: str | Solver

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions(set(SOLVERS)), SOLVER_OBJECT],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "scoring": [None, StrOptions({"loss", "calibrated_loss", *get_scorer_names()}), callable],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "callbacks": [None, "array-like", HasMethods("on_epoch_end")],
        "verbose": ["verbose"],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
    }

    @property
    def _allow_nan(self) -> bool:
        """Whether values of dense rows may be missing (NaN)."""
        return False

    def _validate_params(self) -> None:
        key: list[Any] = [type(self)]
        plain = True
        for value in self.get_params(deep=False).values():
            key.append(kind := type(value))
            if kind in _PLAIN:
                key.append(value)
            elif isinstance(value, Solver | RegressionLoss):
                parts = [*vars(value).values()]
                key += [*map(type, parts), *parts]
                plain = plain and all(type(part) in _PLAIN for part in parts)
            else:
                plain = False
        if plain and tuple(key) in _VALID:  # as in the folds of a search, or the next fit
            return
        super()._validate_params()
        check_settings(self)
        self._check_together()
        if plain:
            _VALID[tuple(key)] = None
            if len(_VALID) > _MANY:
                del _VALID[next(iter(_VALID))]

    def _check_together(self) -> None:
        """Raise where parameters, which are valid, do not go together."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, and settings of a solver that is an object, as ``solver__name``."""
        solver = params.get("solver", self.solver)
        nested = [name for name in params if name.startswith("solver__")]
        if nested and not isinstance(solver, Solver):
            raise ValueError(
                f"{nested[0]} is a setting of a solver that is an object, such as solver=SGD(), "
                f"which solver={solver!r} of {type(self).__name__} is not. Pass an object."
            )
        return super().set_params(**params)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(_param_names(cls, cls.__init__))  # type: ignore[arg-type]  # a class has a hash

    #: Rows that a fit needs.
    _fewest_rows = 2
    #: What is watched where ``scoring`` is None; None is accuracy.
    _default_scoring: str | None = None

    @property
    def _watched_scoring(self) -> str | Callable | None:
        return self._default_scoring if self.scoring is None else self.scoring

    def _scoring_for(self, judged: Problem) -> str | Callable | None:
        """Choose what is watched on the rows to judge by."""
        return self._watched_scoring

    # ---- targets: of classes, or of values --------------------------------------------------------------------------

    def _coded(
        self, target: tuple[Data, Any], X: Matrix, name: str, *, new: bool, same: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Validate a target; return it, class codes or indicators, and a table of numbers where it is one.

        `new` says whether it sets what targets are (``n_outputs_``), or must not go beyond that; `same`, whether it
        must have all of it.
        """
        raise NotImplementedError

    def _count_outputs(self, y: Data) -> int:
        """Count the columns of scores that a target has about, before it is validated."""
        raise NotImplementedError

    def _scaled(self, table: np.ndarray, weight: np.ndarray | None, new: bool) -> np.ndarray:
        """Make the targets to train on of a table of numbers (n, C); a `new` one may set their scale."""
        raise NotImplementedError

    def _labels_of_targets(self, target: np.ndarray) -> np.ndarray:
        """Look up the targets as the user knows them of what a loss takes."""
        raise NotImplementedError

    def _labels_of(self, problem: Problem) -> np.ndarray:
        """Look up the targets of a problem's rows as the user knows them."""
        raise NotImplementedError

    def _answers(self, scores: Tensor) -> Any:
        """Make what answers in the place of a fitted copy about rows with these scores (n, C)."""
        raise NotImplementedError

    def _answers_of_fitted(self, scores: Tensor, space: OutputSpace | None = None) -> Any:
        """Make what answers in its place about rows with these scores (n, C), as predictions are made of."""
        raise NotImplementedError

    def _faultless(self, problem: Problem) -> Any:
        """Make what answers without fault about a problem's rows."""
        raise NotImplementedError

    @property
    def _output_map(self) -> OutputMap:
        """Factors and summands, by which scores in training are scores of the targets as they are."""
        return None

    def _unmapped(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take this out of coefficients (C, d) and intercepts (C,)."""
        if self._output_map is None:
            return coef, intercept
        factor, offset = self._output_map
        return coef / factor[:, None], (intercept - offset) / factor

    #: What losses are counted in, as users are told of them.
    _loss_unit = 1.0

    def _combined(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        """Combine scores (K, n, C) of the models that it consists of; `say` (K, n) is the weight of each."""
        raise NotImplementedError

    # ---- what a subclass defines ----------------------------------------------------------------------------------

    def _recipe(self, problem: Problem, going_on: bool, incremental: bool) -> Recipe:
        """Decide how to train on a problem, which is not placed yet."""
        raise NotImplementedError

    def _penalty(self, members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        """Make the penalty of each model of a stack, given the weights of its training rows and of a mean batch."""
        raise NotImplementedError

    def _rates(self, recipe: Recipe, problem: Problem, network: Network, members: list[Member]) -> np.ndarray:
        """Compute the learning rate each model of a stack starts with."""
        return as_numbers(member.settings.learning_rate_init for member in members)

    def _network(
        self, recipe: Recipe, problem: Problem, members: list[Member], penalty: ElasticNet, warm: bool
    ) -> Network:
        """Make the network before training: initial, or (`warm`, one model) from the fitted attributes."""
        raise NotImplementedError

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict:
        """Make the fitted attributes that hold one model's parameters."""
        raise NotImplementedError

    def _map_scores(self, matrix: np.ndarray, offsets: np.ndarray | float) -> None:
        """Change the fitted attributes so that the scores s become ``s @ matrix + offsets``."""
        raise NotImplementedError

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        """Count the weights, to judge how much work an epoch is."""
        raise NotImplementedError

    def _n_units(self, n_outputs: int) -> int:
        """Count the units beyond the input, to judge how much memory a row takes."""
        raise NotImplementedError

    #: How it is trained: an ensemble has its own ways.
    _procedure = Procedure(train_each, conclude, calibrate_each)

    def __getstate__(self) -> dict[str, Any]:
        return packed(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(unpacked(type(self).__name__, state))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._allow_nan
        tags.array_api_support = True
        return tags


class BaseTorchClassifier(PredictionMixin, ClassifierMixin, BaseTorchEstimator):
    """Base of the classifiers."""

    #: Whether indicator matrices are accepted as targets, and probabilities of all classes.
    _multilabel = _takes_probabilities = False
    _parameter_constraints: ClassVar[dict] = {
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
        "calibration": [StrOptions({"temperature", "sigmoid"}), None],
    }

    def _coded(
        self, target: tuple[Data, Any], X: Matrix, name: str, *, new: bool, same: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return coded_classes(self, target, X, name, new=new, same=same)

    def _count_outputs(self, y: Data) -> int:
        return n_columns(y) if n_columns(y) > 1 else len(np.unique(to_numpy(y)))

    def _scaled(self, table: np.ndarray, weight: np.ndarray | None, new: bool) -> np.ndarray:
        return table if self.n_outputs_ > 1 else table[:, 1:]

    def _labels_of(self, problem: Problem) -> np.ndarray:
        return problem.codes if problem.codes.ndim == 2 else self.classes_[problem.codes]

    def _labels_of_targets(self, target: np.ndarray) -> np.ndarray:
        if self._target_is_multilabel:
            return target.astype(int)
        if target.ndim == 2:  # indicators, or probabilities, of one label
            target = target[:, 0].round().astype(int) if target.shape[1] == 1 else target.argmax(1)
        return self.classes_[target]

    def _answers(self, scores: Tensor) -> Answers:
        return Answers(self, scores, uncalibrated_link(self))

    def _answers_of_fitted(self, scores: Tensor, space: OutputSpace | None = None) -> Answers:
        return Answers(self, scores, link_of(self), space)

    def _faultless(self, problem: Problem) -> Answers:
        return self._answers(faultless_scores(problem.codes, self.n_outputs_))

    def _combined(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        average = average_of(self)
        return scores[0] if average is None else average.of(scores, say)

    @with_callbacks
    @document(**FIT_ARGUMENTS)
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Data,
        y: Data = None,
        sample_weight: ArrayLike | str | None = None,
        *,
        X_val: Data = None,
        y_val: Data = None,
        sample_weight_val: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Train the classifier.

        Parameters
        ----------
        {rows}
        y : array-like of shape (n_samples,), or str
            None where X gives chunks that have it; the name of a column where these are tables. Class labels: strings,
            integers, booleans or dates, none of them missing. `SigmoidClassifier`, the MLPs and `TorchClassifier` also
            take (n_samples, n_labels) label indicators, zeros and ones.
        {weight}
        {validation}
        classes : array-like of shape (n_classes,), default=None
            The labels of the columns of y, where y (and ``y_val``) holds probabilities (n_samples, n_classes), such as
            a slow model gives, which is to be distilled into this one. Of `SoftmaxClassifier` and the networks, with
            ``class_weight=None`` and ``calibration=None``; scores and splits go by the most probable classes.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If the data is malformed, comes in passes that differ or cannot be repeated, or must be in memory for the
            solver; if the device is not there, ``scoring`` is not defined on the validation data, or the
            loss becomes non-finite. What was learned before is kept.
        """
        if classes is not None and y is None:
            raise ValueError("With `classes`, y is a table of probabilities beside X; it is None: chunks have labels.")
        y, y_val = (Probabilities.of(target, classes) for target in (y, y_val))
        with rollback(self), own_settings():
            return fit_alone(self, X, y, sample_weight, (X_val, y_val, sample_weight_val))

    @available_unless(no_partial_fit)
    def partial_fit(
        self, X: Data, y: Data = None, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on this data, going on from where the last call stopped.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,)
            Class labels.
        classes : array-like of shape (n_classes,), default=None
            All classes that may ever come; required on the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        self : object
            The classifier.
        """
        return self._fit_part(X, y, classes, sample_weight)

    # of a method that is called "partial_fit", the first call alone would validate parameters
    @_fit_context(prefer_skip_nested_validation=True)
    def _fit_part(self, X: Data, y: Data, classes: ArrayLike | None, sample_weight: ArrayLike | None) -> Self:
        with rollback(self), own_settings():
            table = self._multilabel and n_columns(y) > 1
            if _check_partial_fit_first_call(self, check_classes(classes)) and table:
                self.classes_ = np.arange(n_columns(y))
            self._target_is_multilabel = getattr(self, "_target_is_multilabel", table)
            return fit_alone(self, X, y, sample_weight, (None, None, None), incremental=True)

    def score(self, X: Data, y: Data = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute the accuracy on this data: the share of rows of which every label is right.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels, of any kind that ``fit`` takes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        float
            From zero to one.
        """
        X, y, sample_weight = opened_with_targets(X, y, sample_weight, getattr(self, "feature_names_in_", None))
        check_label_names(self, y, "y")
        if OutputSpace(X).is_numpy:  # as predictions are, wherever X and y lie
            y, sample_weight = unboxed(to_numpy(y)), to_numpy(sample_weight)
        return accuracy(y, self.predict(X), sample_weight)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = self._multilabel
        return tags
