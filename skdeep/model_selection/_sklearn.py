"""The tasks and rows of scikit-learn's searches, and checks of what is relied on."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from skdeep.compat.checks import demand
from skdeep.compat.sklearn import KNOWN, _check_method_params, _fit_and_score, _num_samples, _safe_indexing
from skdeep.data.inputs import Data

#: Arguments of ``_fit_and_score`` that are read or replaced here; others are handed on.
_ARGUMENTS = set(
    "estimator X y scorer train test parameters fit_params score_params return_train_score return_times "
    "return_estimator caller callback_ctx".split()
)


def task_arguments(function: Any, args: tuple, options: dict) -> dict[str, Any] | None:
    """Name all arguments of a call of ``_fit_and_score``; None if it is a call of another function."""
    if getattr(function, "__wrapped__", function) is not _fit_and_score:
        return None
    try:
        bound = _SIGNATURE.bind(*args, **options)
    except TypeError:  # the call raises it as well
        return None
    bound.apply_defaults()
    return bound.arguments


class _Rows:
    """Something with rows, which scikit-learn takes as if it were a data frame: by ``take`` or ``loc``."""

    def __init__(self, values: Any, n_rows: int):
        self.values = values
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows: np.ndarray) -> Any:
        return self.take(rows)

    @property
    def iloc(self) -> Self:
        return self

    loc = iloc

    def take(self, rows: np.ndarray, axis: int = 0) -> Any:
        """Take the values of some rows."""
        raise NotImplementedError


class Whole(_Rows):
    """Values of which any rows are all: what passes through `_check_method_params` as it is."""

    def take(self, rows: np.ndarray, axis: int = 0) -> Any:
        return self.values


class Taken(_Rows):
    """Values of which the same rows are taken only once; of some, which may be written to, copies are given."""

    def __init__(self, values: Any, own: Iterable = ()):
        super().__init__(values, _num_samples(values))
        self._own = {_contents(np.asarray(rows)) for rows in own}
        self._taken: dict[tuple, Any] = {}

    def take(self, rows: np.ndarray, axis: int = 0) -> Any:
        key = _contents(rows)
        if key not in self._taken:
            self._taken[key] = _safe_indexing(self.values, rows)
        return copied(self._taken[key]) if key in self._own else self._taken[key]


def copied(values: Data) -> Any:
    """Copy the rows of some data."""
    if isinstance(values, np.ndarray):
        return values.copy(order="K")
    return _safe_indexing(values, np.arange(_num_samples(values)))


def _contents(rows: np.ndarray) -> tuple:
    return rows.dtype.str, rows.tobytes()


def _takes_rows_of_frames(rows: np.ndarray) -> bool:
    """Tell whether rows are taken by the methods of `_Rows`, in both places."""
    value, data = [1, 2], Taken(np.arange(2))
    params = _check_method_params(np.empty((2, 1)), params={"a": Whole(value, 2)}, indices=rows)
    return params["a"] is value and _safe_indexing(data, rows) is _safe_indexing(data, rows.copy())


_SIGNATURE = inspect.signature(_fit_and_score)
demand(_ARGUMENTS <= set(_SIGNATURE.parameters), f"_fit_and_score has {sorted(_ARGUMENTS)}", "scikit-learn", KNOWN)
for _rows in (np.array([1]), np.array([True, False])):
    demand(_takes_rows_of_frames(_rows), "rows are taken as if of frames, by iloc", "scikit-learn", KNOWN)
