"""Steps in front that pipelines of a comparison share: fitted once for each split."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, QuantileTransformer, RobustScaler, StandardScaler
from sklearn.utils import get_tags

from skdeep.compat.sklearn import _num_samples, _safe_indexing
from skdeep.data.inputs import Data
from skdeep.data.scoring import only_asks
from skdeep.estimators.linear import LinearModel
from skdeep.model_selection._sklearn import copied
from skdeep.model_selection.evaluation import are_alike, final_step, groups_of_alike
from skdeep.model_selection.plain import is_array, is_finite, is_plain, without_checks
from skdeep.model_selection.stacks import MAX_IN_ONE_ARRAY, why_alone

#: Steps that know columns by their place alone.
_OF_NUMBERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer, PCA, QuantileTransformer)


@dataclass
class Passed:
    """Rows of one split behind the steps that contestants share: training rows, then test rows."""

    X: Any
    y: Any
    train: np.ndarray
    test: np.ndarray
    fit_seconds: float
    transform_seconds: float
    is_finite: bool = False


def shared_fronts(contestants: dict[str, BaseEstimator], scorer: Callable, X: Data) -> list[list[str]]:
    """Group the pipelines whose steps before the last are alike, wherever scorers ask for nothing but predictions.

    One pipeline alone is such a group if it gains by that: a network, what takes rows as an array of numbers, which are
    looked at once, and what begins with the steps of others. Groups with fewer steps come first.
    """
    if not only_asks(scorer) or get_config()["enable_metadata_routing"] or get_config()["array_api_dispatch"]:
        return []
    names = [name for name, contestant in contestants.items() if _has_plain_front(contestant)]
    alike = groups_of_alike([front_of(contestants[name]).steps for name in names])
    groups = sorted(([names[i] for i in group] for group in alike), key=lambda group: len(contestants[group[0]].steps))
    found: list[list[str]] = []
    for group in groups:
        first, final = contestants[group[0]], final_step(contestants[group[0]])
        gains = len(group) > 1 or is_network(final) or _takes_array(front_of(first), X, final)
        if gains or beginnings([front_of(contestants[own[0]]) for own in (*found, group)])[-1] is not None:
            found.append(group)
    return found


def _takes_array(front: Pipeline, X: Data, final: Any = None) -> bool:
    """Say whether rows may come as an array of numbers, which steps take long to check, or to make of a frame."""
    if get_config()["transform_output"] != "default":
        return False
    if not is_array(X) and not (is_finite(X) and (final is None or is_plain(final))):
        return False
    # set_output() asks for frames
    return all(type(step) in _OF_NUMBERS and not hasattr(step, "_sklearn_output_config") for _, step in front.steps)


def is_network(final: Any) -> bool:
    """Say whether an estimator is a network, or several, whose models of all splits gain by being one stack."""
    return why_alone(final) is None and not isinstance(final, LinearModel)


def _has_plain_front(contestant: Any) -> bool:
    """Say whether an estimator is a pipeline that does no more than fit and transform, step by step."""
    if type(contestant) is not Pipeline or len(contestant.steps) < 2:
        return False
    if contestant.memory is not None or contestant.verbose:
        return False  # what `transform_input` names is passed by nobody here
    final = contestant.steps[-1][1]
    return isinstance(final, BaseEstimator) and not get_tags(final).input_tags.pairwise


def front_of(pipeline: Any) -> Pipeline:
    """Take the steps of a pipeline before the last, unfitted, with their random numbers."""
    return clone(Pipeline(pipeline.steps[:-1]))


def beginnings(fronts: list[Pipeline]) -> list[int | None]:
    """Say for each of some fronts, shorter ones first, with which other one it begins, if it does with any."""
    steps = [[step for _, step in front.steps] for front in fronts]
    begun = [[j for j in range(i) if are_alike(steps[j], own[: len(steps[j])])] for i, own in enumerate(steps)]
    return [each[-1] if each else None for each in begun]


@dataclass
class _End:
    """Training rows and test rows of a split, and the seconds to make each of them."""

    first: Any
    second: Any
    fit_seconds: float = 0.0
    transform_seconds: float = 0.0

    @classmethod
    def of(cls, X: Data, train: np.ndarray, test: np.ndarray, are_numbers: bool) -> _End:
        """Take the rows of a split, as arrays if they are numbers."""
        if not are_numbers:
            return cls(_safe_indexing(X, train), _safe_indexing(X, test))
        array = np.asarray(X)
        # as a frame does, in its own layout: in another one, sums over rows are rounded in another way, and splits
        # inside a fit go by hashes of what comes of that, to the last bit
        is_turned = array is not X and array.flags.f_contiguous
        first, second = (array.T.take(rows, axis=1).T if is_turned else array[rows] for rows in (train, test))
        return cls(first, second)

    def through(self, front: Pipeline, y: Any, are_numbers: bool) -> _End:
        """Fit steps to the training rows, and transform both."""
        steps: list[Any] = [front]
        if are_numbers:
            steps = [step for _, step in front.steps]  # what a Pipeline does beside takes as long as they do
            for step in steps:
                step._validate_params()  # here, once
        is_known = are_numbers and is_finite(self.first) and is_finite(self.second)
        with without_checks() if is_known else nullcontext():
            start = time.time()
            first = reduce(lambda rows, step: step.fit_transform(rows, y), steps, self.first)
            fitted = time.time()
            second = reduce(lambda rows, step: step.transform(rows), steps, self.second)
            transformed = time.time()
        seconds = self.fit_seconds + fitted - start, self.transform_seconds + transformed - fitted
        return _End(first, second, *seconds)

    def passed(self, y_train: Any, y_test: Any) -> Passed | None:
        """Put the rows together; None if they do not make one array."""
        rows = _joined(self.first, self.second)
        labels = np.concatenate([np.asarray(y_train), np.asarray(y_test)])
        if rows is None or len(labels) != (n_rows := _num_samples(rows)):
            return None
        n_train = _num_samples(self.first)
        parts, seconds = (np.arange(n_train), np.arange(n_train, n_rows)), (self.fit_seconds, self.transform_seconds)
        return Passed(rows, labels, *parts, *seconds, is_finite(rows))


def pass_fronts(
    fronts: list[Pipeline], begin: list[int | None], X: Data, y: Data, train: np.ndarray, test: np.ndarray
) -> list[Passed | None]:
    """Fit the steps of fronts, each from where the one ends that it begins with, and transform all rows of a split.

    None where that fails, since a pipeline says better why.
    """
    y_train, y_test = (_safe_indexing(y, rows) for rows in (train, test))
    ends: list[_End | None] = []
    passed: list[Passed | None] = []
    for front, number in zip(fronts, begin, strict=True):
        end, outcome, steps = None, None, front.steps
        try:
            if number is None:
                are_numbers = _takes_array(front, X)
                start: _End | None = _End.of(X, train, test, are_numbers)
            elif (start := ends[number]) is not None:
                steps = steps[len(fronts[number].steps) :]
                are_numbers = _takes_array(Pipeline(steps), start.first)
                # steps may write to them
                start = replace(start, first=copied(start.first), second=copied(start.second))
            if start is not None:
                end = start.through(clone(Pipeline(steps)), y_train, are_numbers)
                outcome = end.passed(y_train, y_test)
        except Exception:
            end = outcome = None
        ends.append(end)
        passed.append(outcome)
    return passed


def in_one_array(passed: list[Passed | None]) -> list[Passed | None]:
    """Put the rows of several splits into one array, if they are not too many; each split knows its own by number."""
    known = [one for one in passed if one is not None and type(one.X) is np.ndarray]
    if len(known) < len(passed) or len({(one.X.dtype, one.X.shape[1:]) for one in known}) > 1:
        return passed
    if sum(one.X.size for one in known) > MAX_IN_ONE_ARRAY:
        return passed
    X, y = (np.concatenate([getattr(one, name) for one in known]) for name in ("X", "y"))
    starts = np.cumsum([0] + [len(one.y) for one in known])
    return [
        replace(one, X=X, y=y, train=one.train + start, test=one.test + start)
        for one, start in zip(known, starts.tolist(), strict=False)
    ]


def _joined(first: Any, second: Any) -> Any:
    """Put training and test rows into one array; None for what is not certain to come out of it as it was."""
    if type(first) is not type(second) or getattr(first, "dtype", None) != getattr(second, "dtype", None):
        return None
    if type(first) is np.ndarray:
        return np.concatenate([first, second])
    if sparse.issparse(first) and first.format == second.format == "csr":
        return sparse.vstack([first, second], format="csr")
    return None
