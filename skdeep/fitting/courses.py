"""How long networks train, and how fast, where both are left to us."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import entr

from skdeep.data.problem import Problem
from skdeep.engine.following import FollowingL2
from skdeep.engine.losses import Loss
from skdeep.engine.penalties import ElasticNet
from skdeep.fitting.recipe import Member, values

#: Epochs of classifiers: so many times the square root of classes times rows per column, within bounds; and their
#: least steps. Rows that a class has to have to count.
_EPOCHS_PER_ROOT, _EPOCHS, _STEPS, _ROWS_PER_CLASS = 0.4, (10, 45), 80, 200
#: Data is clean where the training loss is then below this share of the entropy of the classes.
_CLEAN = 0.15
#: Their penalty follows the loss: it is so many times as strong while nothing is explained.
_FOLLOWS = 4.0
#: Bins of each column that make it no stronger; more do so in proportion, for they learn more by heart.
_FEW_BINS = 8
#: Their learning rate, of one hidden layer, times the root of epochs and columns, which count as so many at least. An
#: epoch has so many steps at least.
_RATE, _FEW_COLUMNS, _FEW_STEPS = 0.8, 100, 25

#: The one cosine of regressors: epochs, least steps, epochs at most; and the learning rate at its start, of one hidden
#: layer.
_COSINE, _COSINE_RATE = (30, 300, 30), 0.02

#: Learning rate of schedules that a user has chosen, and of ``partial_fit``.
PATIENT_RATE = 0.003


class Course(NamedTuple):
    """A length, in epochs, and in steps at least; epochs of clean data; and what of a `Recipe` goes with it."""

    epochs: int
    steps: int
    longest: int
    decisions: dict[str, Any]


#: From a learning rate of a user's, which may be smaller than ours.
PATIENT = Course(60, 500, 60, {"schedule": "cosine", "to_end": True})


def epochs_by_size(n_rows: int, n_columns: int, n_classes: int) -> int:
    r"""Choose the epochs of a classifier, :math:`0.4 \sqrt{n \min(C, n / 200) / d}`, from 10 to 45.

    Many rows for each column, and many borders between classes, are learnt for longer before noise is; unless a class
    has few rows, which are learnt by heart.
    """
    n_told = max(2, min(n_classes, n_rows / _ROWS_PER_CLASS))
    return round(float(np.clip(_EPOCHS_PER_ROOT * np.sqrt(n_rows * n_told / max(1, n_columns)), *_EPOCHS)))


def clean_epochs(epochs: int, n_classes: int) -> int:
    r"""Choose the epochs of a classifier of clean data, :math:`\sqrt C` times as many, 45 at most.

    Borders between classes that are free of noise are learnt more closely in more time, and many more so.
    """
    return round(min(epochs * max(2, n_classes) ** 0.5, _EPOCHS[1]))


def of_values(n_hidden: int) -> Course:
    """Choose one cosine, for regressors."""
    return Course(*_COSINE, {"schedule": "cosine", "to_end": True, "auto_rate": _COSINE_RATE / max(1, n_hidden)})


def of_classes(problem: Problem, n_classes: int, units: list[int], rows: int) -> Course:
    """Choose averages over steps of so many rows at a constant rate.

    It is lower the longer training takes, be it in epochs or, where few rows are few steps, in these, and for many
    columns.

    It is lower, too, where a layer has more units than there are rows: all units move in a step, and what few rows have
    in common by chance is learnt by heart in a few.
    """
    n_columns = problem.source.shape[1]
    epochs = epochs_by_size(problem.n_rows, n_columns, n_classes)
    n_steps = max(_STEPS, epochs * -(-problem.n_rows // rows))
    length = min(epochs, n_steps / _FEW_STEPS)
    rate = _RATE / ((length * max(n_columns, _FEW_COLUMNS)) ** 0.5 * max(1, len(units)))
    rate *= min(1.0, problem.n_observations / max([1, *units]))
    decisions = {"schedule": "constant", "averages": True, "follows": True, "auto_rate": rate}
    return Course(epochs, _STEPS, clean_epochs(epochs, n_classes), decisions)


def clean_loss(loss: Loss, problem: Problem, member: Member) -> float:
    """Compute the training loss of a classifier below which its data counts as clean."""
    return _CLEAN * unexplained(loss, problem, member)


def following(penalty: ElasticNet, loss: Loss, problem: Problem, members: list[Member], n_bins: int) -> ElasticNet:
    """Have the penalty of each classifier whose strength is left to us follow its training loss.

    With so many bins of each column, it is the stronger in any case.

    Not where targets are probabilities: their entropy is in the loss, and is no noise.
    """
    open_, target = np.isnan(values(members, "alpha")), problem.target
    if not open_.any() or (target.ndim > 1 and ((target > 0) & (target < 1)).any()):
        return penalty
    entropies = np.array([unexplained(loss, problem, member) for member in members])
    slope = np.where(open_, _FOLLOWS, 0.0)
    is_new = np.array([not member.progress.warm for member in members], dtype=float)  # a model has explained something
    base = penalty.alpha * np.where(open_, max(1, n_bins / _FEW_BINS), 1)
    return FollowingL2(base, slope, entropies, is_new)


def unexplained(loss: Loss, problem: Problem, member: Member) -> float:
    """Compute the training loss of who knows the shares of the classes only: their entropy."""
    shares = np.clip(member.mean_target(problem), 0, 1)
    return float(entr(shares).sum() + (entr(1 - shares).sum() if loss.target == "indicators" else 0))
