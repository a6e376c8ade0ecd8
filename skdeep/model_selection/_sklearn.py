"""What is private in scikit-learn and joblib, and used here: the names, why, and checks of what is relied on."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.utils.parallel import delayed

_ADVICE = (
    f"scikit-learn {sklearn.__version__} with joblib {joblib.__version__} does not have it. This release is made for "
    "scikit-learn 1.9 and joblib 1.5 or 1.6: install those, or a newer skdeep."
)

try:
    # a back end that hands each call of Parallel to another one
    from joblib.parallel import FallbackToBackend

    # how a scorer is to be asked, and which scorers do nothing to an estimator but ask it
    from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer

    # the task that searches, cross_validate, validation_curve and learning_curve are made of
    from sklearn.model_selection._validation import _fit_and_score

    # rows of data, and what arguments of a method become where only some rows are fitted
    from sklearn.utils import _safe_indexing
    from sklearn.utils.validation import _check_method_params, _num_samples
except ImportError as _error:
    raise ImportError(f"skdeep.model_selection needs a private name ({_error}): {_ADVICE}") from _error

__all__ = [
    "FallbackToBackend",
    "Taken",
    "Whole",
    "_BaseScorer",
    "_MultimetricScorer",
    "_PassthroughScorer",
    "_check_method_params",
    "_fit_and_score",
    "_num_samples",
    "copied",
    "demand",
    "task_arguments",
]

#: Arguments of ``_fit_and_score`` that are read or replaced here; others are handed on.
_ARGUMENTS = set(
    "estimator X y scorer train test parameters fit_params score_params return_train_score return_times "
    "return_estimator caller callback_ctx".split()
)


def demand(holds: bool, what: str) -> None:
    """Raise an error of import where something that is relied on is not so."""
    if not holds:
        raise ImportError(f"skdeep.model_selection relies on this: {what}; {_ADVICE}")


def task_arguments(function: Any, args: tuple, options: dict) -> dict[str, Any] | None:
    """All arguments of a call that is one of ``_fit_and_score``, by name; None of another one."""
    if getattr(function, "__wrapped__", function) is not _fit_and_score:
        return None
    try:
        bound = _SIGNATURE.bind(*args, **options)
    except TypeError:  # the call raises it as well
        return None
    bound.apply_defaults()
    return bound.arguments


class _Rows:
    """Something with rows, which scikit-learn takes as it takes those of a data frame: by ``take`` or ``loc``."""

    def __init__(self, values: Any, n_rows: int):
        self.values = values
        self.n_rows = n_rows

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, rows):
        return self.take(rows)

    @property
    def iloc(self):
        return self

    loc = iloc

    def take(self, rows, axis=0):
        """The values of some rows."""
        raise NotImplementedError


class Whole(_Rows):
    """Values of which any rows are all: what passes through `_check_method_params` as it is."""

    def take(self, rows, axis=0):
        return self.values


class Taken(_Rows):
    """Values of which the same rows are taken only once; of some, which may be written to, copies are given."""

    def __init__(self, values: Any, own: Iterable = ()):
        super().__init__(values, _num_samples(values))
        self._own = {_contents(np.asarray(rows)) for rows in own}
        self._taken: dict[tuple, Any] = {}

    def take(self, rows, axis=0):
        key = _contents(rows)
        if key not in self._taken:
            self._taken[key] = _safe_indexing(self.values, rows)
        return copied(self._taken[key]) if key in self._own else self._taken[key]


def copied(values):
    """A copy of the rows of some data."""
    if isinstance(values, np.ndarray):
        return values.copy()
    return _safe_indexing(values, np.arange(_num_samples(values)))


def _contents(rows: np.ndarray) -> tuple:
    return rows.dtype.str, rows.tobytes()


def _takes_rows_of_frames(rows) -> bool:
    """Whether rows are taken by the methods of `_Rows`, in both places."""
    value, data = [1, 2], Taken(np.arange(2))
    params = _check_method_params(np.empty((2, 1)), params={"a": Whole(value, 2)}, indices=rows)
    return params["a"] is value and _safe_indexing(data, rows) is _safe_indexing(data, rows.copy())


_SIGNATURE = inspect.signature(_fit_and_score)
demand(_ARGUMENTS <= set(_SIGNATURE.parameters), f"_fit_and_score has arguments {sorted(_ARGUMENTS)}")
demand(delayed(_fit_and_score)()[0].__wrapped__ is _fit_and_score, "delayed shows the function that it wraps")
for _rows in (np.array([1]), np.array([True, False])):
    demand(_takes_rows_of_frames(_rows), "rows are taken as those of data frames where there is an iloc")
demand(_MultimetricScorer(scorers={"a": len})._scorers == {"a": len}, "_MultimetricScorer has _scorers")
demand(make_scorer(accuracy_score)._response_method == "predict", "scorers have a _response_method")
demand(hasattr(GridSearchCV, "_get_routed_params_for_fit"), "searches have _get_routed_params_for_fit")
