"""Common scores without the checks that scikit-learn's repeat for each: a model of few rows is fitted in less time.

They are for the plain case: labels of one kind, or one target of values, and finite answers. Whatever is not plain is
left to scikit-learn's own, with its warnings and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.base import is_regressor
from sklearn.metrics import get_scorer

from skdeep.compat.sklearn import _MultimetricScorer

#: Kinds of plain labels: numbers, booleans, text.
_KINDS = "iufbU"


class QuickScorers(_MultimetricScorer):
    """Several scorers, which ask for each answer once, and need not ask scikit-learn for most of the scores.

    One of them may ask for a method that an estimator lacks: that is its failure alone. Of those that scikit-learn has
    a name for, `names` says which.
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


def quickly(scorer: Callable) -> Callable:
    """Make a scorer of scikit-learn's, or several, take the short ways that there are; others stay as they are."""
    each = scorer._scorers if isinstance(scorer, _MultimetricScorer) else {"score": scorer}
    names = {key: name for key, one in each.items() if (name := name_of(one)) in _WAYS}
    if isinstance(scorer, QuickScorers) or not names:
        return scorer
    quick = QuickScorers(each, names)
    return (
        quick if isinstance(scorer, _MultimetricScorer) else lambda *args, **options: quick(*args, **options)["score"]
    )


def name_of(scorer: Callable) -> str | None:
    """Find what scikit-learn calls a scorer, of those that there is a short way for."""
    return next((name for name in _WAYS if vars(get_scorer(name)) == getattr(scorer, "__dict__", None)), None)


class _Careful(_MultimetricScorer):
    """Scorers of scikit-learn's, one of which may ask for a method that an estimator lacks."""

    def _use_cache(self, estimator: Any) -> bool:
        try:
            return super()._use_cache(estimator)
        except AttributeError:  # of that method; the scorer says so
            return False


class _NotPlainError(Exception):
    """Something that is for scikit-learn to look at."""


class _Rows(NamedTuple):
    """Rows that a classifier is asked about, each answer once."""

    classifier: Any
    X: Any
    codes: np.ndarray  # the number of each row's class, (n,)
    known: dict[str, Any]  # answers, by method

    @property
    def n_classes(self) -> int:
        return len(self.classifier.classes_)

    def answer(self, method: str) -> Any:
        if method not in self.known:
            self.known[method] = getattr(self.classifier, method)(self.X)
        return self.known[method]

    def predicted(self) -> np.ndarray:
        """Number the classes that are predicted."""
        if "codes" not in self.known:
            self.known["codes"] = _coded(self.answer("predict"), self.classifier.classes_)
        return self.known["codes"]

    def probabilities(self) -> np.ndarray:
        """Return probabilities (n, C) that are some."""
        p = self.answer("predict_proba")
        _demand(type(p) is np.ndarray and p.dtype == np.float64 and p.shape == (len(self.codes), self.n_classes))
        # what is no number is not either
        _demand((np.abs(p.sum(1) - 1) < 1e-8).all() and p.min() >= 0 and p.max() <= 1)
        return p

    def check_classes(self) -> None:
        """Raise where a class has no row."""
        _demand((np.bincount(self.codes, minlength=self.n_classes) > 0).all())


def _demand(is_plain: Any) -> None:
    """Raise where something is not plain."""
    if not is_plain:
        raise _NotPlainError


def quick_scores(names: dict[str, str], estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Compute scores that there is a short way for, of what scikit-learn calls by these names; leave out the others."""
    if not hasattr(estimator, "classes_"):
        return _of_values(names, estimator, X, y)
    try:
        rows = _Rows(estimator, X, _coded(y, estimator.classes_), {})
    except _NotPlainError:
        return {}
    found: dict[str, float] = {}
    for metric, name in names.items():
        with suppress(Exception):  # of a method that fails, or is not there, scikit-learn's scorer says so
            found[metric] = float(_WAYS[name](rows))
    return found


def _coded(labels: Any, classes: Any) -> np.ndarray:
    """Number labels by a classifier's classes; raise if either is not plain, or a label is none of them."""
    labels, classes = _plain(labels), _plain(classes)
    _demand(labels.dtype.kind == classes.dtype.kind and len(labels))
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    _demand((classes[codes] == labels).all())
    return codes


def _plain(values: Any, kinds: str = _KINDS) -> np.ndarray:
    """Make a plain vector of an array or a column of a frame: of labels, or of other kinds."""
    if type(values).__name__ == "Series" and hasattr(values, "to_numpy"):
        values = values.to_numpy()
    _demand(type(values) is np.ndarray and values.ndim == 1)
    if values.dtype.kind == "O" and all(type(value) is str for value in values):
        values = values.astype(np.str_)
    _demand(values.dtype.kind in kinds)
    return values


# ---- the scores ------------------------------------------------------------------------------------------------------


def _confusions(rows: _Rows) -> np.ndarray:
    """Count rows by true and predicted class, (C, C)."""
    n = rows.n_classes
    return np.bincount(rows.codes * n + rows.predicted(), minlength=n * n).reshape(n, n)


def _balanced_accuracy(rows: _Rows) -> float:
    table = _confusions(rows)
    true, found = table.sum(1), table.sum(0)
    _demand((found[true == 0] == 0).all())  # a class that no row has is warned of
    return np.mean(table.diagonal()[true > 0] / true[true > 0])


def _f1s(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Compute the F1 score of each class that is there or predicted, with its number of rows."""
    table = _confusions(rows)
    true, both = table.sum(1), table.sum(1) + table.sum(0)
    return 2 * table.diagonal()[both > 0] / both[both > 0], true[both > 0]


def _f1_weighted(rows: _Rows) -> float:
    scores, counts = _f1s(rows)
    return np.average(scores, weights=counts)


def _area(positive: np.ndarray, values: np.ndarray) -> float:
    """Compute the area under the ROC curve, where both kinds of rows are there: a tie is half a success."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # ties share the mean of theirs
    n = int(positive.sum())
    return (rank[positive].sum() - n * (n + 1) / 2) / (n * (len(values) - n))


def _roc_auc(rows: _Rows) -> float:
    _demand(rows.n_classes == 2)
    rows.check_classes()
    has_scores = hasattr(rows.classifier, "decision_function")
    values = rows.answer("decision_function") if has_scores else rows.probabilities()[:, 1]
    _demand(type(values) is np.ndarray and values.shape == rows.codes.shape and values.dtype.kind == "f")
    _demand(np.isfinite(values.sum()))
    return _area(rows.codes == 1, values)


def _roc_auc_ovr(rows: _Rows) -> float:
    rows.check_classes()
    p = rows.probabilities()
    each: Iterable[int] = [1] if rows.n_classes == 2 else range(rows.n_classes)
    return float(np.mean([_area(rows.codes == c, p[:, c]) for c in each]))


def _neg_log_loss(rows: _Rows) -> float:
    rows.check_classes()
    return _mean_log(rows)


def neg_log_loss_of_known(classifier: Any, X: Any, y: Any) -> float:
    """Compute minus the log-loss of rows that need not have all classes of a classifier, as scikit-learn demands."""
    return float(_mean_log(_Rows(classifier, X, _coded(y, classifier.classes_), {})))


def _mean_log(rows: _Rows) -> float:
    p = rows.probabilities()
    if rows.n_classes == 2:  # scikit-learn looks at the second one's alone
        own = np.where(rows.codes == 1, p[:, 1], 1 - p[:, 1])
    else:
        own = p[np.arange(len(p)), rows.codes]
    least = np.finfo(np.float64).eps
    return np.log(np.clip(own, least, 1 - least)).mean()


_WAYS: dict[str, Callable[[_Rows], float]] = {
    "accuracy": lambda rows: (rows.predicted() == rows.codes).mean(),
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": lambda rows: _f1s(rows)[0].mean(),
    "f1_weighted": _f1_weighted,
    "roc_auc": _roc_auc,
    "roc_auc_ovr": _roc_auc_ovr,
    "neg_log_loss": _neg_log_loss,
}


# ---- of values -------------------------------------------------------------------------------------------------------


def _of_values(names: dict[str, str], regressor: Any, X: Any, y: Any) -> dict[str, float]:
    """Compute scores of a regressor with one target, of those that there is a short way for."""
    known = {metric: _WAYS_OF_VALUES[name] for metric, name in names.items() if name in _WAYS_OF_VALUES}
    if not known or not is_regressor(regressor):
        return {}
    try:
        given = _plain(y, "iuf"), _plain(regressor.predict(X), "iuf")
        values, predicted = (part.astype(np.float64, copy=False) for part in given)
        _demand(len(values) == len(predicted) > 1)
    except Exception:  # which scikit-learn's scorers say in their own way
        return {}
    found = {metric: way(values, predicted) for metric, way in known.items()}
    return {metric: float(score) for metric, score in found.items() if np.isfinite(score)}


def _r2(values: np.ndarray, predicted: np.ndarray) -> float:
    total = np.square(values - values.mean()).sum()
    return 1 - np.square(values - predicted).sum() / total if total > 0 else np.nan  # constant ones are warned of


def _neg_mean_squared_error(values: np.ndarray, predicted: np.ndarray) -> float:
    return -np.square(values - predicted).mean()


_WAYS_OF_VALUES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "r2": _r2,
    "neg_mean_squared_error": _neg_mean_squared_error,
    "neg_root_mean_squared_error": lambda values, predicted: -np.sqrt(-_neg_mean_squared_error(values, predicted)),
    "neg_mean_absolute_error": lambda values, predicted: -np.abs(values - predicted).mean(),
}
