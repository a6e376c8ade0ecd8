"""How long networks train, and how fast, where both are left to us."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skdeep.data.problem import Problem

#: Epochs of classifiers: so many times the square root of classes times rows per column, within bounds; and their
#: least steps.
_EPOCHS_PER_ROOT, _EPOCHS, _STEPS = 0.4, (10, 60), 80
#: Their learning rate, of one hidden layer, times the root of epochs and columns, which count as so many at least.
_RATE, _FEW_COLUMNS = 0.8, 100

#: The one cosine of regressors: epochs, least steps, and the learning rate at its start, of one hidden layer.
_COSINE, _COSINE_RATE = (30, 300), 0.02

#: Learning rate of schedules that a user has chosen, and of ``partial_fit``.
PATIENT_RATE = 0.003


class Course(NamedTuple):
    """A length, in epochs, and in steps at least; and what of a `Recipe` goes with it."""

    epochs: int
    steps: int
    decisions: dict[str, Any]


#: From a learning rate of a user's, which may be smaller than ours.
PATIENT = Course(60, 500, {"schedule": "cosine", "to_end": True})


def epochs_by_size(n_rows: int, n_columns: int, n_classes: int) -> int:
    r"""Choose the epochs of a classifier, :math:`0.4 \sqrt{n C / d}`, from 10 to 60.

    Many rows for each column, and many borders between classes, are learnt for longer before noise is.
    """
    return round(float(np.clip(_EPOCHS_PER_ROOT * np.sqrt(n_rows * max(2, n_classes) / max(1, n_columns)), *_EPOCHS)))


def of_values(n_hidden: int) -> Course:
    """Choose one cosine, for regressors."""
    return Course(*_COSINE, {"schedule": "cosine", "to_end": True, "auto_rate": _COSINE_RATE / max(1, n_hidden)})


def of_classes(problem: Problem, n_classes: int, n_hidden: int) -> Course:
    """Choose averages over steps at a constant rate, which is lower the longer training takes, and for many columns."""
    n_columns = problem.source.shape[1]
    epochs = epochs_by_size(problem.n_rows, n_columns, n_classes)
    rate = _RATE / ((epochs * max(n_columns, _FEW_COLUMNS)) ** 0.5 * max(1, n_hidden))
    return Course(epochs, _STEPS, {"schedule": "constant", "to_end": True, "averages": True, "auto_rate": rate})
