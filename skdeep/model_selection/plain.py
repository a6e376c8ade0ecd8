"""Fits of scikit-learn's own estimators to rows that are known to be sound: what is looked at once is not again."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.utils import get_tags

from skdeep.compat.sklearn import _fit_and_score, _safe_indexing, _score
from skdeep.data.inputs import Data
from skdeep.data.scoring import only_asks

#: Parameters by which an estimator knows columns.
_OF_COLUMNS = ("categorical_features", "monotonic_cst", "interaction_cst")


def is_finite(X: Data) -> bool:
    """Say whether X is an array of finite floating-point numbers."""
    return type(X) is np.ndarray and X.dtype.kind == "f" and bool(np.isfinite(X.sum()))


def is_array(X: Data) -> bool:
    """Say whether a data frame of pandas is an array of floating-point numbers with names."""
    if not hasattr(X, "iloc") or not all(isinstance(name, str) for name in X.columns):
        return False
    kinds = set(X.dtypes)
    return len(kinds) == 1 and isinstance(kind := kinds.pop(), np.dtype) and kind.kind == "f"


def is_plain(estimator: Any) -> bool:
    """Say whether an estimator is a sound one of scikit-learn's that hands its rows to no other, and knows no names."""
    if not type(estimator).__module__.startswith("sklearn.") or get_tags(estimator).input_tags.pairwise:
        return False
    if any("__" in name for name in estimator.get_params()) or not knows_no_names(estimator):
        return False
    try:
        estimator._validate_params()
    except Exception:  # a fit says so
        return False
    return True


def knows_no_names(estimator: Any) -> bool:
    """Say whether no parameter of an estimator tells columns apart."""
    params = estimator.get_params(deep=False)
    of_columns = [params.get(name) for name in _OF_COLUMNS]
    return all(value is None or (isinstance(value, str) and value == "from_dtype") for value in of_columns)


def as_numbers(X: Data, y: Data, scorer: Any) -> tuple[Any, Any]:
    """Make arrays of a data frame of numbers and its target, as each fit and each score would do again."""
    if not is_array(X) or not only_asks(scorer) or get_config()["enable_metadata_routing"]:
        return X, y
    is_column = hasattr(y, "iloc") and isinstance(getattr(y, "dtype", None), np.dtype) and y.dtype.kind in "iubf"
    return X.to_numpy(), y.to_numpy() if is_column else y


def without_checks() -> AbstractContextManager:
    """Make a context in which plain estimators look neither at finite rows nor at their parameters."""
    return config_context(assume_finite=True, skip_parameter_validation=True)


def fit_and_score_plain(estimator: Any, X: np.ndarray, y: Data, **options: Any) -> dict[str, Any]:
    """Do what ``_fit_and_score`` does with a plain estimator and finite rows, none of which is checked again."""
    train, test = options["train"], options["test"]
    if type(y) is np.ndarray:
        y_train, y_test = y[train], y[test]
    else:
        y_train, y_test = _safe_indexing(y, train), _safe_indexing(y, test)
    with nullcontext() if get_config()["assume_finite"] else without_checks():
        start = time.time()
        try:
            estimator.fit(X[train], y_train)
        except Exception:  # which it says in its own way
            return _fit_and_score(clone(estimator), X, y, **options)
        fitted = time.time()
        marks = _score(estimator, X[test], y_test, options["scorer"], {}, options["error_score"])
        times = {"fit_time": fitted - start, "score_time": time.time() - fitted}
    return {"fit_error": None, "test_scores": marks, **times}
