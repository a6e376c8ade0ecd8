"""Common scores without the checks that scikit-learn's repeat for each: a model of few rows is fitted in less time.

They are for the plain case: a classifier, labels of one kind, finite answers. Whatever is not plain is left to
scikit-learn's own, with its warnings and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config

from skdeep.compat.sklearn import _MultimetricScorer

#: Kinds of plain labels: whole numbers, booleans, text.
_KINDS = "iubU"


class QuickScorers(_MultimetricScorer):
    """Several scorers, which ask for each answer once, and need not ask scikit-learn for most of the scores.

    One of them may ask for a method that an estimator lacks: that is its failure alone.

    Parameters
    ----------
    scorers : dict of str to scorer
    names : dict of str to str
        What scikit-learn calls these scores, of those that it has a name for.
    """

    def __init__(self, scorers: dict[str, Callable], names: dict[str, str]) -> None:
        super().__init__(scorers=scorers, raise_exc=False)
        self.names = names

    @property
    def is_accuracy(self) -> bool:
        """Whether there is one score, the accuracy."""
        return list(self.names.values()) == ["accuracy"] and len(self._scorers) == 1

    def __call__(self, estimator: Any, X: Any, *y: Any, **options: Any) -> dict[str, Any]:
        asked = bool(options) or len(y) != 1 or get_config()["enable_metadata_routing"]
        found = {} if asked else quick_scores(self.names, estimator, X, y[0])
        rest = {name: scorer for name, scorer in self._scorers.items() if name not in found}
        if rest:
            found |= _Careful(scorers=rest, raise_exc=False)(estimator, X, *y, **options)
        return {name: found[name] for name in self._scorers}


class _Careful(_MultimetricScorer):
    """Scorers of scikit-learn's, one of which may ask for a method that an estimator lacks."""

    def _use_cache(self, estimator: Any) -> bool:
        try:
            return super()._use_cache(estimator)
        except AttributeError:  # of that method; the scorer says so
            return False


class _Rows(NamedTuple):
    """Rows that a classifier is asked about, each answer once.

    Attributes
    ----------
    classifier : estimator
    X : array-like
    codes : ndarray of shape (n,)
        The number of each row's class.
    known : dict of str to ndarray
    """

    classifier: Any
    X: Any
    codes: np.ndarray
    known: dict[str, Any]

    @property
    def n_classes(self) -> int:
        return len(self.classifier.classes_)

    def answer(self, method: str) -> Any:
        if method not in self.known:
            self.known[method] = getattr(self.classifier, method)(self.X)
        return self.known[method]

    def predicted(self) -> np.ndarray | None:
        """Number the classes that are predicted."""
        if "codes" not in self.known:
            self.known["codes"] = _coded(self.answer("predict"), self.classifier.classes_)
        return self.known["codes"]

    def probabilities(self) -> np.ndarray | None:
        """Return probabilities (n, C) that are some."""
        p = self.answer("predict_proba")
        if type(p) is not np.ndarray or p.dtype != np.float64 or p.shape != (len(self.codes), self.n_classes):
            return None
        whole = (np.abs(p.sum(1) - 1) < 1e-8).all()  # what is no number is not either
        return p if whole and p.min() >= 0 and p.max() <= 1 else None

    def each_class_has_rows(self) -> bool:
        return bool((np.bincount(self.codes, minlength=self.n_classes) > 0).all())


def quick_scores(names: dict[str, str], estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Compute scores that there is a short way for, of what scikit-learn calls by these names; leave out the others."""
    classes = getattr(estimator, "classes_", None)
    codes = _coded(y, classes)
    if codes is None:
        return {}
    rows, found = _Rows(estimator, X, codes, {}), {}
    for metric, name in names.items():
        try:
            score = _WAYS[name](rows) if name in _WAYS else None
        except Exception:  # of a method that fails, or is not there: scikit-learn's scorer says so
            continue
        if score is not None:
            found[metric] = float(score)
    return found


def _coded(labels: Any, classes: Any) -> np.ndarray | None:
    """Number labels by a classifier's classes; None if either is not plain, or a label is none of them."""
    labels, classes = _plain(labels), _plain(classes)
    if labels is None or classes is None or labels.dtype.kind != classes.dtype.kind or not len(labels):
        return None
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return codes if (classes[codes] == labels).all() else None


def _plain(labels: Any) -> np.ndarray | None:
    """Make a plain vector of labels, of an array or a column of a frame."""
    if type(labels) is not np.ndarray:
        labels = labels.to_numpy() if type(labels).__name__ == "Series" and hasattr(labels, "to_numpy") else None
    if labels is None or labels.ndim != 1:
        return None
    if labels.dtype.kind == "O" and all(type(label) is str for label in labels):
        labels = labels.astype(np.str_)
    return labels if labels.dtype.kind in _KINDS else None


# ---- the scores ------------------------------------------------------------------------------------------------------


def _confusions(rows: _Rows) -> np.ndarray | None:
    """Count rows by true and predicted class, (C, C)."""
    found, n = rows.predicted(), rows.n_classes
    return None if found is None else np.bincount(rows.codes * n + found, minlength=n * n).reshape(n, n)


def _accuracy(rows: _Rows) -> float | None:
    found = rows.predicted()
    return None if found is None else (found == rows.codes).mean()


def _balanced_accuracy(rows: _Rows) -> float | None:
    table = _confusions(rows)
    if table is None:
        return None
    true, found = table.sum(1), table.sum(0)
    if (found[true == 0] > 0).any():  # a class that no row has is warned of
        return None
    return np.mean(table.diagonal()[true > 0] / true[true > 0])


def _f1s(rows: _Rows) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute the F1 score of each class that is there or predicted, with its number of rows."""
    table = _confusions(rows)
    if table is None:
        return None
    true, both = table.sum(1), table.sum(1) + table.sum(0)
    return 2 * table.diagonal()[both > 0] / both[both > 0], true[both > 0]


def _f1_macro(rows: _Rows) -> float | None:
    found = _f1s(rows)
    return None if found is None else found[0].mean()


def _f1_weighted(rows: _Rows) -> float | None:
    found = _f1s(rows)
    return None if found is None else np.average(found[0], weights=found[1])


def _area(positive: np.ndarray, values: np.ndarray) -> float:
    """Compute the area under the ROC curve, where both kinds of rows are there: a tie is half a success."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share the mean of theirs
    n = int(positive.sum())
    return (rank[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n))


def _roc_auc(rows: _Rows) -> float | None:
    if rows.n_classes != 2 or not rows.each_class_has_rows():
        return None
    if hasattr(rows.classifier, "decision_function"):
        values = rows.answer("decision_function")
    elif (p := rows.probabilities()) is not None:
        values = p[:, 1]
    else:
        return None
    if type(values) is not np.ndarray or values.shape != rows.codes.shape or values.dtype.kind != "f":
        return None
    return _area(rows.codes == 1, values) if np.isfinite(values.sum()) else None


def _roc_auc_ovr(rows: _Rows) -> float | None:
    p = rows.probabilities() if rows.each_class_has_rows() else None
    if p is None:
        return None
    each: Iterable[int] = [1] if rows.n_classes == 2 else range(rows.n_classes)
    return float(np.mean([_area(rows.codes == c, p[:, c]) for c in each]))


def _neg_log_loss(rows: _Rows) -> float | None:
    p = rows.probabilities() if rows.each_class_has_rows() else None
    if p is None:
        return None
    if rows.n_classes == 2:  # scikit-learn looks at the second one's alone
        own = np.where(rows.codes == 1, p[:, 1], 1 - p[:, 1])
    else:
        own = p[np.arange(len(p)), rows.codes]
    least = np.finfo(np.float64).eps
    return np.log(np.clip(own, least, 1 - least)).mean()


_WAYS: dict[str, Callable[[_Rows], float | None]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "f1_weighted": _f1_weighted,
    "roc_auc": _roc_auc,
    "roc_auc_ovr": _roc_auc_ovr,
    "neg_log_loss": _neg_log_loss,
}
