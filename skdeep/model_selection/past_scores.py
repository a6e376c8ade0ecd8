"""The comparison of scores that are there: results of ``cross_validate`` and of searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from sklearn import model_selection as splitters
from sklearn.model_selection import check_cv

from skdeep.model_selection.choice import metrics_of, split_scores
from skdeep.model_selection.comparison import Comparison

#: Splitters whose test sets are all rows.
_FOLDS = splitters.KFold, splitters.StratifiedKFold, splitters.GroupKFold, splitters.StratifiedGroupKFold
_HOW = (
    "Pass cv, the splitter that the scores come from (and X and y, if its splits depend on them), or compute them with "
    "cross_validate(..., return_indices=True)."
)


def is_past(contestant: Any) -> bool:
    """Say whether a contestant is scores that are there, not an estimator to be trained."""
    return isinstance(contestant, Mapping) or hasattr(contestant, "cv_results_")


def compare_past(
    contestants: Mapping[str, Any], reference: str, scoring: Any, cv: Any, data: tuple | None
) -> Comparison:
    """Compare scores of splits that are there; `data` are X, y and groups, if known."""
    if strangers := [name for name, one in contestants.items() if not is_past(one)]:
        raise TypeError(
            f"Contestant {strangers[0]!r} is to be trained, and others are scores that are there. Pass scores of all: "
            f"cross_validate(estimator, X, y, cv=...) for {strangers[0]!r}."
        )
    contestants = {str(name): one for name, one in contestants.items()}
    found = {name: _scores_of(name, one) for name, one in contestants.items()}
    metrics = [metric for metric in found[reference] if all(metric in scores for scores in found.values())]
    if scoring is not None:
        asked = [scoring] if isinstance(scoring, str) else list(scoring)
        if lost := [metric for metric in asked if metric not in metrics]:
            raise ValueError(f"Not all contestants have scores {lost[0]!r}; they have {metrics} in common.")
        metrics = asked
    if not metrics:
        has = "; ".join(f"{name}: {', '.join(scores)}" for name, scores in found.items())
        raise ValueError(f"The contestants have no score in common ({has}). Compute the same scoring for all.")
    lengths = {name: len(scores[metrics[0]]) for name, scores in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The contestants have scores of different numbers of splits: {lengths}. Use the same splits.")
    n_splits = lengths[reference]
    fit_time, score_time = (
        {name: _seconds(one, key, n_splits) for name, one in contestants.items()} for key in ("fit_time", "score_time")
    )
    ratio = _test_ratio(contestants, cv, data, n_splits)
    scores = {metric: {name: found[name][metric] for name in found} for metric in metrics}
    notes = [
        f"The scores of {name} are of the best of {len(one.cv_results_['params'])} candidates, which was chosen by "
        "them: they are too high. Cross-validate the search for scores that are not."
        for name, one in contestants.items()
        if hasattr(one, "cv_results_") and len(one.cv_results_["params"]) > 1
    ]
    if not all("indices" in one for one in contestants.values() if isinstance(one, Mapping)) or notes:
        notes.append("That all scores come from the same splits could not be checked; pairs depend on it.")
    return Comparison(list(found), reference, scores, fit_time, score_time, ratio, {}, notes=notes)


def _scores_of(name: str, past: Any) -> dict[str, np.ndarray]:
    if isinstance(past, Mapping):
        scores = {key.removeprefix("test_"): past[key] for key in past if str(key).startswith("test_")}
        if not scores:
            raise ValueError(
                f"Contestant {name!r} is a dictionary without scores: it needs 'test_score' or the like, as "
                f"cross_validate returns it, and has {sorted(map(str, past))}."
            )
    else:
        if not hasattr(past, "best_index_"):
            raise ValueError(f"The search {name!r} has no best candidate; fit it with refit, the name of a metric.")
        results = past.cv_results_
        scores = {metric: split_scores(results, metric)[:, past.best_index_] for metric in metrics_of(results)}
    return {metric: np.atleast_1d(np.asarray(values, dtype=float)) for metric, values in scores.items()}


def _seconds(past: Any, key: str, n_splits: int) -> np.ndarray:
    """Take the seconds of all splits; of a search, which keeps no more of them, their mean."""
    if isinstance(past, Mapping):
        return np.asarray(past.get(key, np.full(n_splits, np.nan)), dtype=float)
    return np.asarray(past.cv_results_[f"mean_{key}"][past.best_index_], dtype=float).reshape(1)


# ---- how large the test sets are -------------------------------------------------------------------------------------


def _test_ratio(contestants: Mapping[str, Any], cv: Any, data: tuple | None, n_splits: int) -> float:
    """Find how many test rows there are per training row; raise an error if nothing tells."""
    splits = _common_indices(contestants)
    if splits is not None:
        return ratio_of(splits)
    if cv is not None and data is not None and data[1] is not None:
        X, y, groups = data
        splits = list(check_cv(cv, y, classifier=np.asarray(y).dtype.kind != "f").split(X, y, groups))
        _check_number(len(splits), n_splits)
        return ratio_of(splits)
    known = [cv] if cv is not None else [one.cv for one in contestants.values() if hasattr(one, "cv_results_")]
    ratios = [_ratio_of_splitter(splitter, n_splits) for splitter in known]
    if not ratios or any(math.isnan(ratio) for ratio in ratios) or max(ratios) - min(ratios) > 1e-9:
        raise ValueError(
            "How wide the intervals are depends on the test rows per training row, which these scores do not tell. "
            + _HOW
        )
    return ratios[0]


def ratio_of(splits: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Count test rows per training row, of splits that are indices or masks."""
    n_train, n_test = (
        sum(int(rows.sum()) if rows.dtype.kind == "b" else len(rows) for rows in map(np.asarray, part))
        for part in zip(*splits, strict=True)
    )
    return n_test / n_train


def _common_indices(contestants: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Take the splits' indices from results that have them; raise an error if these are not the same."""
    known = {
        name: list(zip(one["indices"]["train"], one["indices"]["test"], strict=True))
        for name, one in contestants.items()
        if isinstance(one, Mapping) and "indices" in one
    }
    if not known:
        return None
    first, splits = next(iter(known.items()))
    for name, own in known.items():
        if len(own) != len(splits) or not all(map(np.array_equal, chain(*own), chain(*splits))):
            raise ValueError(
                f"The scores of {first!r} and {name!r} come from different splits, so that they are no pairs. Pass the "
                "same splitter with an integer random_state to both."
            )
    return splits


def _check_number(known: int, n_splits: int) -> None:
    if known != n_splits:
        raise ValueError(f"cv has {known} splits, and the scores are of {n_splits}. " + _HOW)


def _ratio_of_splitter(cv: Any, n_splits: int) -> float:
    """Find the ratio of a splitter of which no rows need be known; NaN if it takes these."""
    if isinstance(cv, splitters.ShuffleSplit | splitters.StratifiedShuffleSplit):
        test = 0.1 if cv.test_size is None and cv.train_size is None else cv.test_size
        if not (isinstance(test, float) and isinstance(cv.train_size, float | None)):
            return math.nan  # numbers of rows
        _check_number(cv.get_n_splits(), n_splits)
        return test / (1 - test if cv.train_size is None else cv.train_size)
    if cv is None or isinstance(cv, int | np.integer):
        n_folds = n_of_cv = 5 if cv is None else int(cv)
    elif isinstance(cv, splitters.RepeatedKFold | splitters.RepeatedStratifiedKFold):
        n_of_cv = cv.get_n_splits()
        n_folds = n_of_cv // cv.n_repeats
    elif isinstance(cv, _FOLDS):
        n_folds = n_of_cv = cv.get_n_splits()
    elif isinstance(cv, Iterable):
        splits = list(cv)
        _check_number(len(splits), n_splits)
        return ratio_of(splits)
    else:
        return math.nan
    _check_number(n_of_cv, n_splits)
    return 1 / (n_folds - 1)
