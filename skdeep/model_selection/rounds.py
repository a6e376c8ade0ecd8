"""The rounds of a comparison: all contestants on some splits, with what they have in common done once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.utils.parallel import Parallel, delayed

from skdeep.compat.sklearn import _fit_and_score
from skdeep.data.inputs import Data
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.estimators.linear import LinearModel
from skdeep.model_selection.backend import stacked
from skdeep.model_selection.evaluation import StackingWarning, are_alike, final_step, prefix_of
from skdeep.model_selection.fronts import (
    Passed,
    beginnings,
    front_of,
    in_one_array,
    is_network,
    pass_fronts,
    shared_fronts,
)
from skdeep.model_selection.grid import asks_for_labels
from skdeep.model_selection.grid_rows import Split
from skdeep.model_selection.plain import (
    as_numbers,
    fit_and_score_plain,
    is_finite,
    is_plain,
    knows_no_names,
    without_checks,
)
from skdeep.model_selection.scaled import Scaling
from skdeep.model_selection.stacks import stackable_now, why_alone

#: Splits of a round, where the rows that come out of shared steps are kept for a round; and values of these, about.
_SPLITS_OF_ROUND, _MAX_KEPT = 10, 1 << 27
#: No arguments of ``fit``, as one object: tasks with the same ones may share a stack.
_NOTHING: dict[str, Any] = {}
#: Rows and columns of what contestants are warmed up with.
_WARM_UP_SHAPE = 40, 5
#: Kinds of estimators that this process has warmed up, for so many classes at least.
_WARM: dict[type, int] = {}


@dataclass
class Entry:
    """One contestant in one split."""

    name: str
    split: int
    result: dict[str, Any] = field(default_factory=dict)  # what ``_fit_and_score`` returned
    fit_extra: float = 0.0  # seconds of shared steps, which it would have taken as well
    score_extra: float = 0.0


def run(
    contestants: dict[str, BaseEstimator],
    X: Data,
    y: Data,
    splits: list[Split],
    scorer: Callable,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Iterator[Entry]:
    """Fit and judge all contestants on all splits; those that can train together do.

    A failure is in the entry's result, as text; it is nobody else's.
    """
    n_workers = joblib.effective_n_jobs(n_jobs)
    with _as_it_would_be_later(contestants, y, n_jobs, n_workers):
        # a scaler in front of a linear model is none of its steps: all splits are one stack with it
        several = {name: contestant for name, contestant in contestants.items() if Scaling.of(contestant) is None}
        fronts = shared_fronts(several, scorer, X)
        # many rows are not kept for more splits than there are workers
        n_values = X.nnz if sparse.issparse(X) else math.prod(getattr(X, "shape", ()))
        few = min(_SPLITS_OF_ROUND, _MAX_KEPT // max(1, n_values))
        size = max(few, n_workers) if fronts else len(splits)
        for start in range(0, len(splits), size):
            numbers = range(start, min(start + size, len(splits)))
            some = {number: splits[number] for number in numbers}
            yield from _round(contestants, fronts, X, y, some, scorer, {"n_jobs": n_jobs, "verbose": verbose})


def _call(estimator: Any, parameters: dict | None, data: tuple, split: Split, scorer: Any, is_clean: bool) -> tuple:
    """Make the call that fits and judges an estimator on a split, of which it may be known that no value is to fear."""
    options = {"scorer": scorer, "fit_params": _NOTHING, "score_params": _NOTHING, "verbose": 0, "error_score": np.nan}
    train, test = split
    return delayed(fit_and_score_plain if is_clean else _fit_and_score)(
        clone(estimator), *data, train=train, test=test, parameters=parameters, return_times=True, **options
    )


def _round(
    contestants: dict[str, BaseEstimator],
    fronts: list[list[str]],
    X: Data,
    y: Data,
    splits: dict[int, Split],
    scorer: Callable,
    workers: dict[str, Any],
) -> list[Entry]:
    """Evaluate all contestants on some splits."""
    # of one worker, without joblib, a call of which takes half as long as some fits
    is_here = joblib.effective_n_jobs(workers["n_jobs"]) == 1 and not workers["verbose"]
    through = _behind_fronts(contestants, fronts, X, y, splits, {} if is_here else workers)
    whole = _with_parameters(contestants, scorer)
    finals = _with_parameters({name: final_step(contestants[name]) for group in fronts for name in group}, scorer)
    are_plain = {id(estimator): is_plain(estimator) for estimator, _ in [*whole.values(), *finals.values()]}
    numbers = as_numbers(X, y, scorer)
    numbers_are_finite = is_finite(numbers[0])
    entries: list[Entry] = []
    here: list[tuple[Entry, tuple]] = []
    calls: list[tuple[Entry, tuple]] = []
    for number, split in splits.items():
        for name in contestants:
            entry, passed = Entry(name, number), through.get((name, number))
            estimator, parameters = whole[name] if passed is None else finals[name]
            is_clean = are_plain[id(estimator)]
            if passed is None:
                is_ours = isinstance(estimator, BaseTorchEstimator) and numbers_are_finite and knows_no_names(estimator)
                data, own = (numbers if is_clean or is_ours else (X, y)), split
                is_clean &= numbers_are_finite
            else:
                data, own = (passed.X, passed.y), (passed.train, passed.test)
                is_clean &= passed.is_finite
                entry.fit_extra, entry.score_extra = passed.fit_seconds, passed.transform_seconds
            call = _call(estimator, parameters, data, own, scorer, is_clean)
            (here if is_here and is_clean else calls).append((entry, call))
            entries.append(entry)
    with stacked():
        results = Parallel(**workers)([call for _, call in calls])  # made here, it trains stacks
    for (entry, _), result in zip(calls, results, strict=True):
        entry.result = result
    with without_checks():
        for entry, (_, args, options) in here:
            entry.result = fit_and_score_plain(*args, **options)
    return entries


def _behind_fronts(
    contestants: dict[str, BaseEstimator],
    fronts: list[list[str]],
    X: Data,
    y: Data,
    splits: dict[int, Split],
    workers: dict[str, Any],
) -> dict[tuple[str, int], Passed | None]:
    """Pass the rows of some splits through the steps that contestants share, by workers if there are any."""
    steps = [front_of(contestants[group[0]]) for group in fronts]
    ways = [(steps, beginnings(steps), X, y, *split) for split in (splits.values() if fronts else ())]
    if workers:
        passed = Parallel(**workers)(delayed(pass_fronts)(*way) for way in ways)
    else:
        passed = [pass_fronts(*way) for way in ways]
    through = {
        (name, number): outcome
        for number, of_split in zip(splits if fronts else (), passed, strict=True)
        for group, outcome in zip(fronts, of_split, strict=True)
        for name in group
    }
    for group in fronts if joblib.effective_n_jobs(workers.get("n_jobs", 1)) == 1 else []:
        if networks := [name for name in group if is_network(final_step(contestants[name]))]:
            together = in_one_array([through[group[0], number] for number in splits])
            for name in networks:
                through |= {(name, number): rows for number, rows in zip(splits, together, strict=True)}
    return through


# ---- who trains together ---------------------------------------------------------------------------------------------


def _with_parameters(contestants: dict[str, Any], scorer: Callable) -> dict[str, tuple[Any, dict | None]]:
    """Express contestants that may share a stack as one estimator and the parameters in which they differ from it.

    Of several penalties, each of a linear model begins where a stronger one ended, and ends elsewhere within its
    tolerance than alone: labels hardly show it, other scores do.
    """
    found: dict[str, tuple[Any, dict | None]] = {}
    kinds: list[Any] = []
    for name, contestant in contestants.items():
        final = final_step(contestant)
        shows = isinstance(final, LinearModel) and not asks_for_labels(scorer, final)
        for kind in [] if shows else kinds:
            parameters = _parameters_from(kind, contestant)
            if parameters is not None:
                found[name] = kind, parameters
                break
        else:
            kinds.append(contestant)
            found[name] = contestant, None
    return found


def _parameters_from(kind: BaseEstimator, contestant: BaseEstimator) -> dict[str, Any] | None:
    """Find the stackable parameters that turn one estimator into another; None if it takes more."""
    if type(kind) is not type(contestant) or type(final := final_step(kind)) is not type(final_step(contestant)):
        return None
    if why_alone(final) is not None or why_alone(final_step(contestant)) is not None:
        return None
    prefix = prefix_of(contestant)
    own, other = contestant.get_params(), kind.get_params()
    free = [name for part in stackable_now(final) if (name := prefix + part) in own and name in other]
    parameters = {name: own[name] for name in sorted(free) if not are_alike(own[name], other[name])}
    same = are_alike(clone(kind).set_params(**clone(parameters, safe=False)), clone(contestant))
    return parameters if same else None


# ---- what only the first call costs ----------------------------------------------------------------------------------


@contextmanager
def _as_it_would_be_later(
    contestants: dict[str, BaseEstimator], y: Data, n_jobs: int | None, n_workers: int
) -> Iterator[None]:
    """Keep imports and what libraries set up on their first call off the clock, and silence what is said of stacks."""
    kinds: dict[type, Any] = {}
    for contestant in contestants.values():
        final = final_step(contestant)
        while isinstance(getattr(final, "estimator", None), BaseEstimator):
            final = final_step(final.estimator)
        if type(final).__module__.split(".")[0] in ("sklearn", "skdeep") and not getattr(final, "verbose", False):
            kinds.setdefault(type(final), final)
    plain = [clone(final) for final in kinds.values() if why_alone(final) is None or not hasattr(final, "callbacks")]
    n_classes = min(len(np.unique(np.asarray(y))), _WARM_UP_SHAPE[0] // 4) if np.asarray(y).dtype.kind != "f" else 2
    if n_workers == 1:
        _warm_up(plain, n_classes)
    else:  # twice as many tasks as workers: each is likely to get one
        Parallel(n_jobs=n_jobs)(delayed(_warm_up)(plain, n_classes) for _ in range(2 * n_workers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StackingWarning)  # what trains alone is no mistake here
        yield


def _warm_up(estimators: list, n_classes: int) -> None:
    """Fit estimators to a few random rows, for what that sets up; what they make of these does not matter."""
    estimators = [one for one in estimators if _WARM.get(type(one), 0) < n_classes]
    _WARM.update({type(one): n_classes for one in estimators})
    X, y = np.random.default_rng(0).normal(size=_WARM_UP_SHAPE), np.arange(_WARM_UP_SHAPE[0]) % max(2, n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator in estimators:
            one = clone(estimator)
            if "max_iter" in one.get_params(deep=False):
                one.set_params(max_iter=1)  # a step sets up as much as many
            try:
                one.fit(X, y).predict(X)
            except Exception:  # it may be made for other data
                continue
