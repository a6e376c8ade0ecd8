"""Common scores without the checks that scikit-learn's repeat for each: a model of few rows is fitted in less time.

They are for the plain case, whole arrays of labels and answers; whatever is not plain is left to scikit-learn's own,
with its warnings and errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.metrics import make_scorer


def quick_scorer(name: str) -> Any:
    """Make the scorer of a name; None for one that there is no short way for."""
    if name not in _WAYS:
        return None
    function, own, options = _WAYS[name]

    def score(y_true: Any, y_pred: Any, **others: Any) -> Any:
        found = None if others else own(y_true, y_pred)
        return function(y_true, y_pred, **others) if found is None else found

    score.__name__ = function.__name__
    return make_scorer(score, **options)


def _coded(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Number the labels of two plain vectors alike, with how many there are; None for others."""
    if type(y_true) is not np.ndarray or type(y_pred) is not np.ndarray or y_true.shape != y_pred.shape:
        return None
    if y_true.ndim != 1 or y_true.dtype != y_pred.dtype or y_true.dtype.kind not in "iubU" or not len(y_true):
        return None
    classes, codes = np.unique(np.concatenate([y_true, y_pred]), return_inverse=True)
    return codes[: len(y_true)], codes[len(y_true) :], len(classes)


def _confusions(y_true: Any, y_pred: Any) -> np.ndarray | None:
    """Count rows by true and predicted label."""
    coded = _coded(y_true, y_pred)
    if coded is None:
        return None
    true, found, n = coded
    return np.bincount(true * n + found, minlength=n * n).reshape(n, n)


def _accuracy(y_true: Any, y_pred: Any) -> float | None:
    table = _confusions(y_true, y_pred)
    return None if table is None else float(table.trace() / table.sum())


def _balanced_accuracy(y_true: Any, y_pred: Any) -> float | None:
    table = _confusions(y_true, y_pred)
    if table is None or not table.sum(1).all():  # a label that no row has is warned of
        return None
    return float(np.mean(table.diagonal() / table.sum(1)))


def _of_two(y_true: Any, values: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Say which rows have the second of two labels, beside one finite number for each; None for anything else."""
    if type(y_true) is not np.ndarray or type(values) is not np.ndarray or y_true.dtype.kind not in "iubU":
        return None
    if y_true.ndim != 1 or values.shape != y_true.shape or values.dtype.kind != "f" or not np.isfinite(values.sum()):
        return None
    classes = np.unique(y_true)
    return (y_true == classes[1], values) if len(classes) == 2 else None


def _roc_auc(y_true: Any, y_score: Any) -> float | None:
    plain = _of_two(y_true, y_score)
    if plain is None:
        return None
    positive, values = plain
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share the mean of theirs
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))


def _log_loss(y_true: Any, y_prob: Any) -> float | None:
    plain = _of_two(y_true, y_prob)
    if plain is not None:
        positive, p = plain
        own = np.where(positive, p, 1 - p)
    else:
        if type(y_true) is not np.ndarray or type(y_prob) is not np.ndarray or y_true.dtype.kind not in "iubU":
            return None
        if y_true.ndim != 1 or y_prob.ndim != 2 or len(y_prob) != len(y_true) or y_prob.dtype.kind != "f":
            return None
        classes, codes = np.unique(y_true, return_inverse=True)
        eps = np.finfo(y_prob.dtype).eps
        if len(classes) != y_prob.shape[1] or not (np.abs(y_prob.sum(1) - 1) < np.sqrt(eps)).all():
            return None
        own = y_prob[np.arange(len(codes)), codes]
    if own.dtype != np.float64 or not (own.min() >= 0 and own.max() <= 1):
        return None
    least = np.finfo(np.float64).eps
    return float(-np.log(np.clip(own, least, 1 - least)).mean())


_SCORES = {"response_method": ("decision_function", "predict_proba")}
_PROBABILITIES = {"response_method": "predict_proba", "greater_is_better": False}
#: scikit-learn's function, the short way, and what its scorer asks for.
_WAYS: dict[str, tuple[Callable, Callable, dict[str, Any]]] = {
    "accuracy": (metrics.accuracy_score, _accuracy, {}),
    "balanced_accuracy": (metrics.balanced_accuracy_score, _balanced_accuracy, {}),
    "roc_auc": (metrics.roc_auc_score, _roc_auc, _SCORES),
    "neg_log_loss": (metrics.log_loss, _log_loss, _PROBABILITIES),
}
