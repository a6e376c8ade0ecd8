"""Targets that are values: validated, in units to train on, and back; what answers about them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from skdeep.compat.sklearn import _check_y
from skdeep.data.answers import KnownScores
from skdeep.data.bins import quantiles
from skdeep.data.conversion import NotNumbersError, floats
from skdeep.data.inputs import Classifier, Data, Matrix, dense
from skdeep.data.labels import check_given
from skdeep.engine.frame import named
from skdeep.engine.per_model import to_device
from skdeep.engine.rows import as_tensor
from skdeep.engine.values import Positive, ValueLoss

#: What targets there may be, in words, and a condition of each.
_DOMAINS = {"non-negative": ("at least zero", np.less), "positive": ("positive", np.less_equal)}
#: Digits of levels and units, in powers of two. With more, the order in which rows are added up would decide on the
#: last digits of all targets, and so on which rows are held out.
_DIGITS = 36
#: The least number beside zero.
_LEAST_STEP = math.ulp(0.0)
#: The size, in the unit of all targets, below which a network learns next to nothing of some.
_SMALL = 1e-2
#: The least difference of targets, in units of the last digit of what predicts them, of which something is left.
_FEW_DIGITS = 64
#: Median absolute deviations from the median beyond which the size of a target is no matter to robust losses.
_FAR = 10.0
#: How far from their mean targets may be, as a part of it, that are all the same but for rounding; and how much smaller
#: their unit is: what a network says beside zero is next to nothing then.
_SAME, _CLOSER = 2.0**-50, 2.0**-26


def check_values(estimator: Classifier, y: Data, X: Matrix, name: str = "y") -> np.ndarray:
    """Validate targets that are finite numbers, (n,) or (n, T); return them in float64, as they are shaped.

    Raise where they are missing, no numbers or not finite, or the rows of X are not as many.
    """
    check_given(estimator, y, name)
    values = dense(y)
    if isinstance(values, np.ma.MaskedArray):  # what is masked is missing
        values = np.ma.filled(values.astype(np.float64), np.nan)
    values = np.asarray(values)
    if values.ndim == 1 and values.dtype.kind == "f" and len(values) == X.shape[0] and np.isfinite(values.sum()):
        return values.astype(np.float64)  # nothing is left to ask, which takes longer than a small fit
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] == 0):
        raise ValueError(
            f"{name} should hold a number for each row, or a table of them (n_samples, n_outputs); got an array of "
            f"shape {values.shape}."
        )
    if values.dtype.kind in "SUMm":
        raise ValueError(
            f"{name} holds values of dtype {values.dtype}, and {type(estimator).__name__} predicts numbers. Convert "
            "them, with astype(float) for example; for labels there are the classifiers."
        )
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{name} holds complex numbers.")
    if values.dtype.kind == "O":
        try:
            values = floats(values)
        except NotNumbersError as error:
            raise NotNumbersError(f"{error} of {name}. {type(estimator).__name__} predicts numbers.") from error
    if values.dtype.kind == "f":
        for wrong, what, they in ((np.isnan, "NaN", "missing"), (np.isinf, "infinity", "infinite")):
            if (found := wrong(values)).any():
                n, row = int(found.sum()), int(np.argwhere(found)[0, 0])
                raise ValueError(
                    f"Input {name} contains {what}: {n} of {values.size} targets are {they}, the first in row {row}. "
                    "Drop those rows."
                )
    values = _check_y(values, multi_output=True, y_numeric=True, estimator=estimator)
    check_consistent_length(X, values)
    return values.astype(np.float64)


def check_domain(values: np.ndarray, loss: ValueLoss, what: Any, name: str = "y") -> None:
    """Raise where targets are none that a loss, which the user knows as `what`, is made for."""
    if loss.domain not in _DOMAINS:
        return
    words, is_wrong = _DOMAINS[loss.domain]
    wrong = is_wrong(values, 0)
    if wrong.any():
        row = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(
            f"Some value(s) of {name} are out of the valid range of the loss {what!r}: targets are {words}, and "
            f"{int(wrong.sum())} of {wrong.size} are not, the first ({values[row]:g}) in row {row[0]}. "
            "'squared_error', 'absolute_error', 'huber' and 'quantile' take all numbers."
        )


def middle(values: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Compute the medians of columns (n, C), and the median absolute deviations from them, with weights (n,).

    Where most values are the same, it is the median of the deviations of all others; zero where there are none.
    """
    median = _lower_median(values, weight)
    deviation = np.abs(values - median)
    deviation[deviation <= _SAME * np.abs(median)] = 0.0  # which rounding alone tells apart
    spread = _lower_median(deviation, weight)
    if not spread.all():
        of_rows = np.ones(len(values)) if weight is None else weight
        of_others = quantiles(np.where(deviation > 0, deviation, np.nan), of_rows, 2)[:, 1]
        spread = np.where(spread > 0, spread, of_others)
    return median, spread


def _lower_median(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Compute the medians of columns (n, C): of an even number of values, the lower of the two in the middle."""
    if weight is not None:
        return quantiles(values, weight, 2)[:, 1]
    middle = (len(values) - 1) // 2
    if values.shape[1] == 1:  # in a fraction of the time of an axis
        return np.partition(values[:, 0], middle)[middle : middle + 1]
    return np.partition(values, middle, axis=0)[middle]


@dataclass(frozen=True)
class TargetScale:
    r"""Ways from targets t to what is trained on, :math:`(t - level) / unit`, and from scores in training to others.

    Scores s in training are :math:`s \cdot factor + offset` of the targets as they are; all are (C,).
    """

    level: np.ndarray
    unit: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    predicted: np.ndarray  # the unit of predictions, where it is in no function of the scores (softplus)
    shift: np.ndarray  # what scores of zero stand for, of outputs that are never negative: it predicts the mean
    is_of_scores: bool = True  # whether scores have the unit of the targets: logarithms have none, for example
    is_of_constants: np.ndarray | bool = False  # which targets were all the same

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        weight: np.ndarray | None,
        loss: ValueLoss,
        free: bool,
        per_column: bool,
        all_rows: bool,
    ) -> TargetScale:
        """Measure targets (n, C) with weights (n,).

        `free` says whether an intercept takes what all scores have in common, `per_column` whether each column has a
        unit of its own. Of `all_rows`, and where scores have the unit of targets, the unit of columns that are all the
        same (or of all together, where it is one) is small beside them: in parts, what is the same now may not be
        later.
        """
        ones, zeros = np.ones(values.shape[1]), np.zeros(values.shape[1])
        if loss.log_link and not free:
            return cls.none(values.shape[1])
        if weight is not None and not weight.all():  # rows without weight may hold anything
            values, weight = values[weight > 0], weight[weight > 0]
        if loss.robust:  # in units of outliers, all others would be the same
            median, spread = middle(values, weight)
            reach = np.where(spread > 0, _FAR * spread, np.inf)
            values = np.minimum(np.maximum(values, median - reach), median + reach)
        is_centred = free and not (loss.log_link or isinstance(loss, Positive))
        each = [_measured(own, weight, is_centred, loss.log_link) for own in np.ascontiguousarray(values.T)]
        mean, unit = np.array(each).T
        constant = unit == 0
        if constant.any():
            unit[constant] = np.where(mean[constant] != 0, np.abs(mean[constant]), 1.0)
        if len(unit) > 1 and not per_column:
            counted = unit if constant.all() else unit[~constant]  # beside the level of others, these would be nothing
            unit = counted.max() * np.sqrt(np.square(counted / counted.max()).mean()) * ones
            constant[:] = constant.all()
        unit = np.array([_rounded(own, math.ldexp(1.0, math.frexp(own)[1] - 1)) for own in unit.tolist()])
        if loss.log_link:
            return cls(zeros, unit, ones, np.log(unit), ones, zeros, is_of_scores=False)
        if isinstance(loss, Positive):
            shift = loss.scores_of(torch.from_numpy(np.maximum(mean / unit, 1e-3))).numpy() if free else zeros
            if loss.output == "softplus":
                return cls(zeros, unit, ones, shift, unit, shift, is_of_scores=False)
            return cls(zeros, unit, unit, shift * unit, ones, shift)
        level = mean if is_centred else zeros
        if not (all_rows and constant.any()):
            return cls(level, unit, unit, level, ones, zeros)
        unit = np.where(constant, _CLOSER, 1.0) * unit
        return cls(level, unit, unit, level, ones, zeros, is_of_constants=constant)

    @classmethod
    def none(cls, n_columns: int) -> TargetScale:
        """Make the scale that leaves targets as they are."""
        ones, zeros = np.ones(n_columns), np.zeros(n_columns)
        return cls(level=zeros, unit=ones, factor=ones, offset=zeros, predicted=ones, shift=zeros)

    def suits(self, values: np.ndarray) -> bool:
        """Tell whether targets (n, C) may be trained on in these units: others than before, if some were the same."""
        differ = np.abs(values - self.level).max(axis=0) > _SAME * np.abs(self.level)
        return not (self.is_of_constants & differ).any()

    def forth(self, values: np.ndarray) -> np.ndarray:
        """Make the targets (n, C) that are trained on."""
        return (values - self.level) / self.unit

    def back(self, target: np.ndarray) -> np.ndarray:
        """Make targets as users know them."""
        return target * self.unit + self.level

    def scores(self, scores: Tensor) -> Tensor:
        """Make scores (..., C) of targets as they are of those in training."""
        factor, offset = (to_device(as_tensor(a), scores.device, scores.dtype) for a in (self.factor, self.offset))
        return scores * factor + offset


def warn_of_small_targets(scale: TargetScale, values: np.ndarray, loss: Any) -> None:
    """Warn of columns of targets (n, C) that are next to nothing in the unit of all, by a loss as the user knows it."""
    with np.errstate(over="ignore", under="ignore"):
        away = np.abs(values - scale.level).max(axis=0)
        small = (away > _SAME * np.abs(values).max(axis=0)) & (away < _SMALL * scale.unit)
    if small.any():
        warnings.warn(
            f"loss={loss!r} has the same unit for all targets, in which some vary by less than {_SMALL:g}: "
            f"{named(small)} of y. Beside the others they count for next to nothing, and predictions may be worse than "
            "their means. Scale y (TransformedTargetRegressor with a StandardScaler), or fit a regressor to each.",
            stacklevel=2,
        )


def warn_of_lost_digits(values: np.ndarray, kind: np.dtype) -> None:
    """Warn of columns of targets (n, C) that predictions of a dtype cannot tell apart, so far from zero they are."""
    if kind == np.float64:
        return
    low, high = values.min(axis=0), values.max(axis=0)
    largest, differ = np.maximum(np.abs(low), np.abs(high)), high / _FEW_DIGITS - low / _FEW_DIGITS
    lost = (differ > _SAME / _FEW_DIGITS * largest) & (differ < np.finfo(kind).eps * largest)
    if lost.any():
        warnings.warn(
            f"Predictions have X's dtype, {kind}, which has few digits or none for what makes targets differ, so far "
            f"from zero they are: {named(lost)} of y. Pass X in float64.",
            stacklevel=2,
        )


def _measured(values: np.ndarray, weight: np.ndarray | None, is_centred: bool, log_link: bool) -> tuple[float, float]:
    """Compute the mean of a column (n,), and its unit, which is the mean on a log link; zero of what does not vary."""
    low, high = float(values.min()), float(values.max())
    largest = max(high, -low) or 1.0  # squares of what is huge or tiny have no number
    low, high = low / largest, high / largest
    centre = low + (high - low) / 2
    mean = largest * (centre + _rounded(_mean(values / largest - centre, weight), high - low))
    away = ((values - mean) if is_centred else values) / largest
    unit = mean if log_link else largest * math.sqrt(_mean(away * away, weight))
    return mean, unit if max(away.max(), -away.min()) > _SAME else 0.0


def _mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Compute the mean of a column (n,), by the rows' weights."""
    return float(np.add.reduce(values) / len(values) if weight is None else weight @ values / weight.sum())


def _rounded(value: float, size: float) -> float:
    """Round to the digits that are counted, of which the first are of this size."""
    step = max((size if size > 0 else 1.0) * 2.0**-_DIGITS, _LEAST_STEP)
    return round(value / step) * step if math.isfinite(value) else value


@dataclass(frozen=True)
class Prediction:
    """How the scores of a regressor become predictions."""

    loss: ValueLoss  # whose predictions they are
    unit: np.ndarray | None  # what these are multiplied by, (C,)
    scale: TargetScale | None  # of scores that are as in training
    is_column: bool  # whether predictions are a vector
    is_sorted: bool  # whether columns are sorted

    def combined(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        """Combine scores (K, n, C) of models to one's (n, C): their mean prediction, by weights `say` (K, n)."""
        if len(scores) == 1:
            return scores[0]
        each = self.loss.prediction(scores)
        return self.loss.scores_of(each.mean(0) if say is None else (each * say.unsqueeze(-1)).sum(0))

    def of(self, scores: Tensor) -> Tensor:
        """Make predictions of scores (n, C)."""
        found = self.loss.prediction(scores if self.scale is None else self.scale.scores(scores))
        if self.unit is not None:
            found = found * to_device(as_tensor(self.unit), found.device, found.dtype)
        if self.is_sorted:
            found = found.sort(-1).values
        return found[:, 0] if self.is_column else found


class ValueAnswers(KnownScores, RegressorMixin):
    """The answers of a regressor about rows whose scores are known: whom a scorer asks in its place."""

    def predict(self, X: ArrayLike) -> Any:
        """See the regressor's."""
        return self.space.array(self.model._predicted(self._scores_of(X)).clone())

    def score(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """See the regressor's."""
        return self.model._score_of(y, self.predict(X), sample_weight)
