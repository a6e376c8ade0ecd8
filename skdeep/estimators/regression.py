"""What the regressors share: scikit-learn's interface of estimators of values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.metrics import d2_pinball_score, get_scorer_names, r2_score
from torch import Tensor

from skdeep.compat.sklearn import StrOptions, _fit_context
from skdeep.data.answers import StandIn
from skdeep.data.inputs import Data, Matrix, OutputSpace, float_dtype, to_numpy
from skdeep.data.labels import n_columns, readable
from skdeep.data.problem import Problem
from skdeep.data.stored import opened_with_targets
from skdeep.data.values import Prediction, TargetScale, ValueAnswers, check_domain, check_values, warn_of_lost_digits
from skdeep.engine.networks import OutputMap
from skdeep.engine.values import Positive, ValueLoss
from skdeep.estimators.base import BaseTorchEstimator, no_partial_fit
from skdeep.estimators.docs import FIT_ARGUMENTS
from skdeep.fitting.document import document
from skdeep.fitting.fit import fit_alone
from skdeep.fitting.losses import (
    LOSS_OBJECT,
    REGRESSION_LOSSES,
    Quantile,
    RegressionLoss,
    check_output,
    is_to_be_suited,
    levels_of,
    output_name,
    predicts_positive,
    suited_delta,
    value_loss,
)
from skdeep.fitting.methods import available_unless, rollback
from skdeep.fitting.torch_settings import own_settings


class BaseTorchRegressor(RegressorMixin, BaseTorchEstimator):
    """Base of the regressors."""

    loss: str | RegressionLoss
    output: str
    early_stopping: bool
    scoring: str | Callable | None
    #: The loss of the last fit, and what made predictions of scores there.
    _trained_loss: str | RegressionLoss
    _trained_output: str
    _target_scale: TargetScale
    _parameter_constraints: ClassVar[dict] = {
        "loss": [StrOptions(set(REGRESSION_LOSSES)), LOSS_OBJECT],
        "output": [StrOptions({"auto", "identity", "relu", "softplus", "exp"})],
        "scoring": [None, StrOptions({"loss", *get_scorer_names()}), callable],
    }

    @property
    def _fewest_rows(self) -> int:  # type: ignore[override]
        return 2 if self.early_stopping else 1

    @property
    def _default_scoring(self) -> str:  # type: ignore[override]
        # R² is of means, and of squares: the epoch with the highest one is not where a quantile is best
        return "r2" if self.loss == "squared_error" else "loss"

    def _check_together(self) -> None:
        check_output(self.loss, self.output)

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
    ) -> Self:
        """Train the regressor.

        Parameters
        ----------
        {rows}
        y : array-like of shape (n_samples,) or (n_samples, n_targets), or str
            Values, finite numbers; None where X gives chunks that have them, the name of a column where these are
            tables.
        {weight}
        {validation}

        Returns
        -------
        self : object
            The fitted regressor.

        Raises
        ------
        ValueError
            If the data is malformed, targets are none that the loss is made for, the device is not there, or the loss
            becomes non-finite. What was learned before is kept.
        """
        with rollback(self), own_settings():
            return fit_alone(self, X, y, sample_weight, (X_val, y_val, sample_weight_val))

    @available_unless(no_partial_fit)
    def partial_fit(self, X: Data, y: Data = None, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on this data, going on from where the last call stopped.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Values. The unit in which they are trained on follows from the first call's.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        self : object
            The regressor.
        """
        return self._fit_part(X, y, sample_weight)

    # of a method that is called "partial_fit", the first call alone would validate parameters
    @_fit_context(prefer_skip_nested_validation=True)
    def _fit_part(self, X: Data, y: Data, sample_weight: ArrayLike | None) -> Self:
        with rollback(self), own_settings():
            return fit_alone(self, X, y, sample_weight, (None, None, None), incremental=True)

    def predict(self, X: Data) -> Any:
        """Predict values.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
            As y was; of several quantiles, (n_samples, n_quantiles).
        """
        found, space = self._computed(X, "predict", self._predicted)
        return space.array(found)

    def score(self, X: Data, y: Data = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute R², the share of the variance of y that is explained; of several quantiles, the mean of their D².

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            True values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        float
            At most one; zero is what the mean of y (for D²: its quantile) has.
        """
        X, y, sample_weight = opened_with_targets(X, y, sample_weight, getattr(self, "feature_names_in_", None))
        return self._score_of(y, self.predict(X), sample_weight)

    def _score_of(self, y: Data, predicted: Data, sample_weight: ArrayLike | None) -> float:
        y, levels = readable(y), levels_of(self._fitted_loss)
        if levels or isinstance(predicted, np.ndarray):
            y, sample_weight = to_numpy(y), to_numpy(sample_weight)
        if levels:
            each = zip(to_numpy(predicted).T, levels, strict=True)
            return float(np.mean([d2_pinball_score(y, p, sample_weight=sample_weight, alpha=q) for p, q in each]))
        plain = all(type(part) is np.ndarray and part.ndim == 1 and part.dtype.kind == "f" for part in (y, predicted))
        if plain and sample_weight is None and len(y) == len(predicted):
            # scikit-learn looks at both for longer than it takes to predict the rows of a fold
            y = y.astype(np.float64, copy=False)  # as it does: a mean far from zero has more digits than others
            with np.errstate(over="ignore"):
                total, left = (float(np.square(y - known).sum()) for known in (y.mean(), predicted))
            if 0 < total < np.inf:
                return 1 - left / total
        if all(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in (y, predicted)):
            # squares of huge values, and tiny ones, are no numbers; powers of two leave all digits as they are
            largest = np.maximum(*(np.abs(part).max(0, initial=np.finfo(np.float64).tiny) for part in (y, predicted)))
            unit = np.exp2(np.clip(np.frexp(largest)[1], -1000, 1000))
            y, predicted = y / unit, predicted / unit
        return r2_score(y, predicted, sample_weight=sample_weight)

    def _scoring_for(self, judged: Problem) -> str | Callable | None:
        scoring = self._watched_scoring
        if self.scoring is not None:
            return scoring
        # of one value there is no R², nor where squares are no numbers
        with np.errstate(over="ignore"):
            total = np.square(self._target_scale.back(judged.target)).sum()
        return "loss" if total == np.inf or len(np.unique(judged.target, axis=0)) < 2 else scoring

    # ---- targets ----------------------------------------------------------------------------------------------------

    @property
    def _predicts_column(self) -> bool:
        """Whether predictions are a vector."""
        return self._y_ndim == 1 and not levels_of(self._fitted_loss)

    @property
    def _fitted_loss(self) -> str | RegressionLoss:
        """The loss that predictions are of: another one that is set takes effect in the next fit."""
        return getattr(self, "_trained_loss", self.loss)

    def _loss(self, n_outputs: int) -> ValueLoss:
        made, scale = self._loss_of_targets, getattr(self, "_target_scale", None)
        if scale is None:
            return made
        if is_to_be_suited(self.loss) and hasattr(self, "delta_"):  # of all targets it is the same, each in its unit
            made = made.with_delta(float(np.ravel(self.delta_)[0]))
        made = made.in_unit(float(scale.unit[0]))
        return made.shifted(tuple(scale.shift.tolist())) if isinstance(made, Positive) and scale.shift.any() else made

    @property
    def _loss_of_targets(self) -> ValueLoss:
        """Make the loss of targets as they are."""
        made = value_loss(self.loss, self.output)
        return made.with_delta(self.delta_) if is_to_be_suited(self.loss) and hasattr(self, "delta_") else made

    @property
    def _loss_unit(self) -> float:  # type: ignore[override]
        """The loss of targets in their unit, in units of the targets as they are; one where there are several."""
        unit = self._target_scale.unit
        with np.errstate(over="ignore", under="ignore"):  # of huge targets, it is infinite
            return float(unit[0] ** self._loss_of_targets.degree) if (unit == unit[0]).all() else 1.0

    @property
    def _prediction(self) -> Prediction:
        """Say how its scores become predictions."""
        loss = self._fitted_loss
        made = value_loss(loss, getattr(self, "_trained_output", self.output))
        is_sorted = isinstance(loss, Quantile) and loss.non_crossing
        return Prediction(made, self._multiplier, None, self._predicts_column, is_sorted)

    @property
    def _multiplier(self) -> np.ndarray | None:
        scale = getattr(self, "_target_scale", None)
        return None if scale is None or (scale.predicted == 1).all() else scale.predicted

    @property
    def output_scale_(self) -> Any:
        """What predictions are multiplied by, (n_targets,); only with ``output="softplus"``."""
        if self._multiplier is None:
            raise AttributeError(f"Predictions of {self!r} are as they come: there is no output_scale_.")
        return OutputSpace(self._any_coef).array(self._multiplier)

    def _predicted(self, scores: Tensor) -> Tensor:
        """Make predictions of scores (n, C), of the targets as they are."""
        return self._prediction.of(scores)

    def _coded(
        self, target: tuple[Data, Any], X: Matrix, name: str, *, new: bool, same: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        y = check_values(self, target[0], X, name)
        table = y.reshape(len(y), -1)
        check_domain(table, value_loss(self.loss, self.output), self.loss, name)
        if new or same:  # in parts, or of rows to judge by, those that happen to be together may be close
            warn_of_lost_digits(table, float_dtype(X))
        levels = levels_of(self.loss)
        if levels and table.shape[1] > 1:
            raise ValueError(
                f"{self.loss!r} predicts a column for each level of one target, and {name} has {table.shape[1]} "
                "columns. Fit a regressor to each."
            )
        table = np.repeat(table, max(1, len(levels)), axis=1)
        if new or not hasattr(self, "n_outputs_"):
            self.n_outputs_ = table.shape[1]
        elif table.shape[1] != self.n_outputs_:
            asked = f"{self.loss!r} predicts" if levels else f"{name} has"
            raise ValueError(
                f"{asked} {table.shape[1]} column(s), and the regressor was trained for {self.n_outputs_}, "
                "a column for each target, or for each level of a list of quantiles. Training goes on with as many "
                "columns; for others, fit with warm_start=False."
            )
        if name == "y":
            self._y_ndim = y.ndim
        # no classes: all rows are of one kind
        return y, np.zeros(len(y), dtype=bool), table

    def _count_outputs(self, y: Data) -> int:
        return max(n_columns(y), len(levels_of(self.loss)))

    def _measure_targets(self, table: np.ndarray, weight: np.ndarray | None, all_rows: bool) -> TargetScale:
        """Choose the scale of targets in training, where these are `all_rows` that there are, or a part of them."""
        free = getattr(self, "fit_intercept", True)
        return TargetScale.of(table, weight, value_loss(self.loss, self.output), free, self._scales_columns, all_rows)

    @property
    def _scales_columns(self) -> bool:
        """Whether each of several targets has a unit of its own in training: the loss knows of none, or follows it."""
        loss = value_loss(self.loss, self.output)
        return loss.in_unit(2.0) is loss or is_to_be_suited(self.loss)

    def _scaled(self, table: np.ndarray, weight: np.ndarray | None, new: bool) -> np.ndarray:
        """Make the targets to train on."""
        output = output_name(self.loss, self.output)
        if not new and getattr(self, "_trained_output", output) != output:
            raise ValueError(
                f"partial_fit goes on with predictions that are {self._trained_output!r} of the scores, and "
                f"loss={self.loss!r}, output={self.output!r} make them {output!r}. Put them back, or use fit."
            )
        self._trained_loss = copy.deepcopy(self.loss)
        if new or not hasattr(self, "_target_scale") or not self._target_scale.suits(table):
            self._target_scale = self._measure_targets(table, weight, new)
            self._trained_output = output
            self.__dict__.pop("delta_", None)
        if is_to_be_suited(self.loss) and not hasattr(self, "delta_"):  # of the first call of partial_fit that has it
            self.delta_: Any = suited_delta(table, weight)
            if self._scales_columns and table.shape[1] > 1:
                self.delta_ = suited_delta(self._target_scale.forth(table), weight) * self._target_scale.unit
        return self._target_scale.forth(table)

    def _labels_of(self, problem: Problem) -> np.ndarray:
        return self._labels_of_targets(problem.target)

    def _labels_of_targets(self, target: np.ndarray) -> np.ndarray:
        values = self._target_scale.back(target)
        values = values[:, :1] if levels_of(self.loss) else values
        return values[:, 0] if self._y_ndim == 1 else values

    def _answers(self, scores: Tensor) -> ValueAnswers:
        """Make what answers in the place of a fitted copy about rows with these scores, as in training."""
        return ValueAnswers(self, self._target_scale.scores(scores))

    def _faultless(self, problem: Problem) -> Any:
        """Make what answers without fault about the rows of a problem."""
        return _Faultless(self, self._labels_of(problem))

    def _answers_of_fitted(self, scores: Tensor, space: OutputSpace | None = None) -> ValueAnswers:
        return ValueAnswers(self, scores, space)

    @property
    def _output_map(self) -> OutputMap:
        return self._target_scale.factor, self._target_scale.offset

    def _combined(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        return scores[0] if len(scores) == 1 else self._prediction.combined(scores, say)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = not levels_of(self.loss)
        tags.target_tags.single_output = True
        tags.target_tags.positive_only = predicts_positive(self.loss, self.output)
        return tags


class _Faultless(StandIn, RegressorMixin):
    """Whose predictions are the targets."""

    def __init__(self, regressor: Any, values: np.ndarray) -> None:
        super().__init__(regressor)
        self.values = values

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the targets, but for their last digits: whole numbers may be taken for classes."""
        levels, values = levels_of(self.model.loss), self.values * (1 + 1e-9)
        if predicts_positive(self.model.loss, self.model.output):  # deviances have no number where it is zero
            values = np.maximum(values, np.finfo(np.float64).eps)
        return np.repeat(values.reshape(len(values), 1), len(levels), axis=1) if levels else values
