"""The bootstrap of coefficients: a linear classifier on many resamples of its rows, trained as one stack.

A resample is a weight of each row, the number of times that it was drawn, so that all models see the same rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from skdeep.data.columns import Columns
from skdeep.data.encoding import class_weight_of_rows, encode
from skdeep.data.inputs import Data
from skdeep.data.problem import Problem
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.group import current
from skdeep.engine.networks import Linear
from skdeep.engine.per_model import to_numpy64
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.threads import at_most
from skdeep.estimators.linear import LinearClassifier
from skdeep.fitting.outcome import divergence
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import penalty_of, solve
from skdeep.fitting.starts import new_progress
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.intervals import BootstrapCoefficients, accelerations

#: Values of all models' second derivatives of the loss that are computed at a time.
_MAX_VALUES = 4 * MAX_VALUES
#: Times that resamples which lack a class are drawn again.
_MAX_DRAWS = 1000


def bootstrap_coefficients(
    estimator: BaseEstimator,
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None = None,
    *,
    n_resamples: int = 200,
    n_left_out: int = 50,
    stratify: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> BootstrapCoefficients:
    r"""Fit a linear classifier to resamples of the rows, all as one stack, for intervals of its coefficients.

    Of n rows, a resample is n draws with replacement: row i was drawn :math:`m_i` times, and the classifier is trained
    with the weights :math:`m_i w_i`. Each ends where ``fit`` with these weights would end. The classifier is solved
    to its optimum, so that nothing but the rows makes coefficients vary.

    The intervals are about what the classifier estimates, penalty included: with a strong one, coefficients are near
    zero and vary little. Those of an L1 norm are often exactly zero, about which a bootstrap says little. For the
    coefficients of a plain logistic regression, use ``penalty=None``.

    Parameters
    ----------
    estimator : SoftmaxClassifier, SigmoidClassifier, HingeClassifier or LeastSquaresClassifier
        A clone is fitted. With ``solver="auto"`` the solver is an exact one, whatever the number of rows. A temperature
        (``calibration``) is not fitted: no coefficient depends on it.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, which rows take with them; rows of weight zero are none.
    n_resamples : int, default=200
        Enough for standard errors; for 95 % intervals, 1000 or more are usual.
    n_left_out : int, default=50
        Parts of the rows that are left out in turn (each is a row, if there are no more rows than that), for the
        acceleration of the BCa interval; that many more models are trained. 0 leaves the acceleration at zero, and the
        interval corrected for bias alone.
    stratify : bool, default=False
        Whether each class keeps its number of rows. Otherwise, resamples without a row of some class (or, of a label,
        with no row that has it or none that lacks it) are drawn again. Not for label indicators.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    BootstrapCoefficients

    Raises
    ------
    TypeError
        If `estimator` is not one of these, such as a network or a Pipeline.
    ValueError
        If the estimator stops early, is calibrated by "sigmoid" (which changes its coefficients) or has a solver of
        mini-batches; if `n_resamples` is less than 2, or `n_left_out` than 0; if a class has too few rows; or if a
        model diverges.

    Warns
    -----
    ConvergenceWarning
        If some of the models have not reached their optimum.

    References
    ----------
    B. Efron & R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 6, 9 and 14. A. C. Davison & D. V.
    Hinkley, *Bootstrap Methods and their Application*, 1997, chapter 7.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.model_selection import bootstrap_coefficients
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> found = bootstrap_coefficients(SoftmaxClassifier(), X[["mean radius", "mean texture"]], y, random_state=0)
    >>> low, high = found.interval(0.95)
    >>> bool((high < 0).all()), found.coefs.shape  # the larger, the less often benign
    (True, (200, 1, 2))
    """
    if not isinstance(n_resamples, Integral) or n_resamples < 2:
        raise ValueError(f"n_resamples must be an integer of at least 2, got {n_resamples!r}.")
    if not isinstance(n_left_out, Integral) or n_left_out < 0:
        raise ValueError(f"n_left_out must be an integer of at least 0, got {n_left_out!r}.")
    model = _exact_clone(estimator)
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    generator = np.random.default_rng(current().first(seed))  # one for all processes that share the rows
    with own_settings(), torch.no_grad(), at_most(1):
        trainer = _Trainer.of(model, X, y, sample_weight)
        problem, size = trainer.problem, trainer.capacity
        start = trainer.train(np.ones((1, len(problem.codes))))
        draws = (draw_resamples(problem, n, generator, stratify) for n in _portions(n_resamples, size))
        coefs, intercepts = _learned([trainer.train(counts, start) for counts in draws])
        rests = _without_parts(problem, n_left_out, size, generator)
        left_out = _learned([start, *(trainer.train(counts, start) for counts in rests)])
    coef, intercept = (values[0] for values in left_out)
    accelerated = (accelerations(values[1:]) for values in left_out)
    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(coef.shape[1])])
    names = getattr(model, "encoded_features_", names)
    trainer.warn()
    return BootstrapCoefficients(
        coef, intercept, coefs, intercepts, *accelerated, model.classes_, [str(name) for name in names]
    )


def _exact_clone(estimator: BaseEstimator) -> LinearClassifier:
    """Clone an estimator whose coefficients follow from the rows alone; raise for any other."""
    if not isinstance(estimator, LinearClassifier):
        advice = " Pass its last step, with X as that sees it." if hasattr(estimator, "steps") else ""
        raise TypeError(
            "bootstrap_coefficients takes SoftmaxClassifier, SigmoidClassifier, HingeClassifier or "
            f"LeastSquaresClassifier, got {type(estimator).__name__}.{advice}"
        )
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping=True ends before the optimum, by rows that are held out: coefficients would vary with "
            "these. Use early_stopping=False."
        )
    if estimator.calibration == "sigmoid":
        raise ValueError(
            "calibration='sigmoid' is a part of coef_, and is not resampled. Use calibration=None, or 'temperature'."
        )
    model = clone(estimator).set_params(calibration=None, warm_start=False, callbacks=None, verbose=False)
    model._validate_params()
    return model


def _portions(n: int, size: int) -> list[int]:
    """Divide n models among stacks of at most so many, about evenly."""
    return [len(part) for part in np.array_split(np.arange(n), -(-n // size))] if n else []


def _rows_of(problem: Problem) -> np.ndarray:
    """Number the rows of non-zero weight."""
    return np.arange(len(problem.codes)) if problem.subset is None else problem.subset


def _may_be_fitted(problem: Problem, counts: np.ndarray) -> np.ndarray:
    """Tell which resamples (B, n) have rows of each class, or, of each label, some with and some without it."""
    rows = _rows_of(problem)
    answers = problem.codes[rows].reshape(len(rows), -1).T
    kinds = [answer == kind for answer in answers for kind in np.unique(answer)]
    return np.all(counts[:, rows] @ np.stack(kinds, axis=1).astype(np.float64) > 0, axis=1)


def draw_resamples(
    problem: Problem, n_resamples: int, generator: np.random.Generator, stratify: bool = False
) -> np.ndarray:
    """Draw how often each row occurs in each resample, (n_resamples, n); rows of weight zero never do."""
    codes, rows = problem.codes, _rows_of(problem)
    if stratify and codes.ndim == 2:
        raise ValueError("stratify=True keeps the rows of each class, and label indicators have none. Use False.")
    groups = [rows[codes[rows] == c] for c in np.unique(codes[rows])] if stratify else [rows]
    counts = np.zeros((n_resamples, len(codes)))
    todo = np.arange(n_resamples)
    for _ in range(_MAX_DRAWS):
        for group in groups:
            n = len(group)
            drawn = generator.integers(n, size=(len(todo), n)) + n * np.arange(len(todo))[:, None]
            counts[np.ix_(todo, group)] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        todo = todo[~_may_be_fitted(problem, counts[todo])]
        if not len(todo):
            return counts
    raise ValueError(
        f"In {_MAX_DRAWS} draws, {len(todo)} of {n_resamples} resamples had no row of some class (or label): there "
        "are too few rows of it. Use stratify=True, or leave out the class."
    )


def _without_parts(problem: Problem, n_parts: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Make weights (at most `size`, n) that leave out a part of the rows each, unless a class would be gone with it."""
    rows = generator.permutation(_rows_of(problem))
    n_parts = min(n_parts, len(rows))
    parts = np.array_split(rows, max(1, n_parts))
    for n in _portions(n_parts, size):
        own, parts = parts[:n], parts[n:]
        counts = np.ones((n, len(problem.codes)))
        for weight, part in zip(counts, own, strict=True):
            weight[part] = 0
        counts = counts[_may_be_fitted(problem, counts)]
        if len(counts):
            yield counts


@dataclass
class _Trainer:
    """Trains an estimator with different weights of the same rows, all as stacks in one frame.

    Attributes
    ----------
    model : LinearClassifier
    problem : Problem
    recipe : Recipe
    n_models, n_unfinished : int
        Models trained so far, and those that have not reached their optimum.
    """

    model: LinearClassifier
    problem: Problem
    recipe: Recipe
    n_models: int = 0
    n_unfinished: int = 0

    @classmethod
    def of(cls, model: LinearClassifier, X: Data, y: Data, sample_weight: ArrayLike | None) -> _Trainer:
        """Look at the data, and decide how to train; raise if that would not lead to the optimum."""
        problem = encode([model], X, y, sample_weight, going_on=False, incremental=False)
        recipe: Recipe = model._recipe(problem, False, False)
        if recipe.solver not in FULL_BATCH and model.solver == "auto":
            penalty = recipe.penalty([_member(model)], np.ones(1), np.ones(1))
            model.solver = "lbfgs" if recipe.loss.smooth and penalty.smooth else "exact"
            recipe = model._recipe(problem, False, False)
        if recipe.solver not in FULL_BATCH:
            raise ValueError(
                f"solver={model.solver!r} trains by mini-batches, whose order would make coefficients vary as well. "
                "Use solver='auto', 'lbfgs' or 'exact'."
            )
        return cls(model, problem.placed(recipe.device, recipe.dtype), recipe)

    @property
    def capacity(self) -> int:
        """How many models may train at a time."""
        n_outputs = self.recipe.n_outputs
        values = len(self.problem.codes) * n_outputs * (n_outputs + 1) // 2  # of second derivatives, for a model
        return max(1, _MAX_VALUES // values)

    def train(self, counts: np.ndarray, start: Linear | None = None) -> Linear:
        """Train a model for each row of counts (K, n), from one that is near, if there is any."""
        recipe, problem = self.recipe, self.problem
        members = [_member(self.model, self._weight(own)) for own in counts]
        network = recipe.network(recipe, problem, members, False)
        assert isinstance(network, Linear)
        if start is not None and penalty_of(recipe, problem, members[:1]).alpha.any():
            coef, constant = start.unscaled()
            network.set_unscaled(coef.expand(len(members), -1, -1), constant.expand(len(members), -1))
        elif start is not None and self._vary_as_all(network, members):
            # without a penalty, a stack has one set of columns; models of several are solved one after the other
            variables = start.center, start.scale, start.unit, start.frame
            network = Linear(network.params[0], network.params[1] if len(network.params) > 1 else None, *variables)
        solve(recipe, problem, network, members, recipe.epochs)
        for member in members:
            if member.progress.interrupted:
                raise KeyboardInterrupt
            if member.progress.error is not None:
                raise divergence(member.progress.error)
        self.n_models += len(members)
        self.n_unfinished += sum(member.progress.stopped is None for member in members)
        found = zip(*(member.progress.params or [] for member in members), strict=True)
        params = [torch.cat(tensors) for tensors in found]
        if recipe.loss.shift_invariant and len(params) > 1:  # of all shifts, a fit's: by the means of its own rows
            params[1] = params[1] - params[1].mean(1, keepdim=True)
        return network.with_params(params)

    def _vary_as_all(self, network: Linear, members: list[Member]) -> bool:
        """Tell whether the columns that vary in the rows of a model are those that vary in all rows, for each."""
        columns = [member.state.columns for member in members]
        if any(own is None for own in columns):
            return True  # the user's, as they are, for all
        (everywhere,) = Columns.of_models(self.problem.rows(), [self.problem.subset], [None])
        centered = network.center is not None
        return all((own.constant(centered) == everywhere.constant(centered)).all() for own in columns)

    def _weight(self, counts: np.ndarray) -> np.ndarray:
        """Compute the weights of the rows in training, (n,)."""
        problem, model = self.problem, self.model
        weight = counts if problem.sample_weight is None else counts * problem.sample_weight
        of_classes = model.class_weight, model.classes_, model._labels_of(problem), problem.codes
        factor = class_weight_of_rows(*of_classes, weight)
        return weight if factor is None else weight * factor

    def warn(self) -> None:
        """Warn of models that are on their way still."""
        if self.n_unfinished:
            warnings.warn(
                f"{self.n_unfinished} of {self.n_models} models have not reached their optimum within "
                f"max_iter={self.model.max_iter} iterations, and their coefficients vary with where they have stopped. "
                "Increase max_iter.",
                ConvergenceWarning,
                stacklevel=3,
            )


def _member(model: LinearClassifier, weight: np.ndarray | None = None) -> Member:
    state = TrainingState(RandomSource(0))  # nothing is drawn
    return Member(model, state, new_progress(model, False, False, state), weight=weight)


def _learned(networks: list[Linear]) -> tuple[np.ndarray, np.ndarray]:
    """Compute coefficients (K, C, d) and intercepts (K, C) on the columns of X, in float64."""
    coef, intercept = (
        np.concatenate(parts)
        for parts in zip(*(map(to_numpy64, network.unscaled()) for network in networks), strict=True)
    )
    frame = networks[0].frame
    return (coef, intercept) if frame is None else (coef * frame.factor, intercept - coef @ frame.origin)
