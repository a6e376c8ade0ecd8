"""The losses that the solvers of `skdeep.exact` know, and as what."""

from __future__ import annotations

import numpy as np

from skdeep.engine import losses
from skdeep.engine import values as of_values
from skdeep.engine.losses import Loss
from skdeep.engine.penalties import L1, L2, ElasticNet, NoPenalty
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.losses import LogisticLoss, RowLoss, SoftmaxLoss, SquaredHinges, SquaredLoss, SquaredWestonWatkins
from skdeep.exact.value_losses import HuberLoss, SquaredInsensitive, TweedieLoss

#: Losses known here; the hinges among them are smooth where they are squared (but for Crammer and Singer's).
_HINGES = (losses.CrammerSingerHinge, losses.WestonWatkinsHinge, losses.BinaryHinge)
_OF_VALUES = (of_values.SquaredValues, of_values.HuberValues, of_values.InsensitiveValues, of_values.TweedieValues)
_KNOWN = (losses.Softmax, losses.Logistic, losses.SquaredError, *_HINGES, *_OF_VALUES)
#: Losses of values that have kinks, or may have.
_KINKED = (of_values.AbsoluteValues, of_values.QuantileValues, of_values.InsensitiveValues)


def is_known(loss: Loss) -> bool:
    """Tell whether a loss is smooth, and known here."""
    return loss.smooth and loss.convex and type(loss) in _KNOWN


def is_certified(loss: Loss, penalty: ElasticNet) -> bool:
    """Tell whether there is a solver with a duality gap for a loss and a penalty, of which one may have kinks."""
    if type(penalty) not in (L1, L2, ElasticNet, NoPenalty):
        return False
    return is_known(loss) or type(loss) in (*_KINKED, *_HINGES)


def n_unknowns(loss: Loss, n_outputs: int, n_rows: int, n_columns: int) -> int:
    """Count the unknowns of a system of plain hinges beside an L1 norm: the worst violation of a row has a bound."""
    if loss.target != "codes":  # scores that nothing couples are systems of their own
        return n_columns
    return n_outputs * n_columns + n_rows * isinstance(loss, losses.CrammerSingerHinge)


def row_loss(loss: Loss, target: np.ndarray, n_outputs: int) -> RowLoss:
    """Make the smooth loss of rows with these targets."""
    amount = loss.smoothing
    if type(loss) is losses.Softmax:
        return SoftmaxLoss(target if target.ndim == 2 else target.astype(np.intp), n_outputs, amount)
    if type(loss) is losses.WestonWatkinsHinge:
        return SquaredWestonWatkins(target.astype(np.intp), n_outputs)
    columns = _columns(target)
    if type(loss) is losses.Logistic:
        return LogisticLoss(columns * (1 - amount) + amount / 2)
    if type(loss) is losses.SquaredError:
        return SquaredLoss(2 * columns - 1)
    if isinstance(loss, of_values.HuberValues):
        return HuberLoss(columns, loss.delta)
    if isinstance(loss, of_values.InsensitiveValues):
        return SquaredInsensitive(columns, loss.epsilon)
    if isinstance(loss, of_values.TweedieValues):
        return TweedieLoss(columns, loss.power)
    if isinstance(loss, of_values.ValueLoss):
        return SquaredLoss(columns)
    return SquaredHinges(2 * columns - 1)


def kinked(loss: Loss, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """Say between which bounds (C, n) a loss is zero, and its slopes (C,) below and above."""
    values = _columns(target)
    ones = np.ones(len(values))
    if isinstance(loss, of_values.QuantileValues):
        level = np.array(loss.levels) * ones
        return values, values, level, 1 - level
    room = loss.epsilon if isinstance(loss, of_values.InsensitiveValues) else 0.0
    return values - room, values + room, ones, ones


def hinges(loss: Loss, target: np.ndarray, n_outputs: int) -> Hinges | WestonWatkins:
    """Make the hinges of rows with these targets, of a loss that has kinks."""
    if type(loss) is losses.CrammerSingerHinge:
        return CrammerSinger(target.astype(np.intp), n_outputs, loss.squared)
    if type(loss) is losses.WestonWatkinsHinge:
        return WestonWatkins(target.astype(np.intp), n_outputs)
    return Hinges(_columns(target))


def _columns(target: np.ndarray) -> np.ndarray:
    """Put targets, of one score or of several, in columns (C, n)."""
    return np.ascontiguousarray(target.reshape(len(target), -1).T, dtype=np.float64)
