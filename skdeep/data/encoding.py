"""From what users pass to a training problem: validation, class codes and weights."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import unique_labels

from skdeep.data.columns import Columns, sizes_of
from skdeep.data.inputs import Classifier, Data, Matrix, check_features, check_weight, rows_of
from skdeep.data.labels import (
    Probabilities,
    check_label_names,
    check_probabilities,
    check_target,
    weights_of_classes,
    weights_of_labels,
)
from skdeep.data.problem import Problem
from skdeep.data.shares import of_all
from skdeep.engine.frame import named
from skdeep.engine.group import current
from skdeep.engine.losses import Loss

#: Between which sizes columns can be trained on as they are; judged by about so many rows.
_RAW_SIZES, _SAMPLE_ROWS = (1e-2, 1e4), 500
#: The least weight of rows on average, and of all, that are not light for how many they are.
_LIGHT, _FEW_ROWS = 0.1, 10


def draw_seeds(random_state: int | np.random.RandomState | None) -> tuple[int, int]:
    """Draw two seeds by a ``random_state``: one for initial weights and the order of rows, and one for splits."""
    if isinstance(random_state, Integral):
        own = _drawn_once(int(random_state))
    else:
        own = _drawn(random_state)
    return current().first(own)  # every time: other processes may not have met this number before


def _drawn(random_state: int | np.random.RandomState | None) -> tuple[int, int]:
    generator = check_random_state(random_state)
    return int(generator.randint(2**31 - 1)), int(generator.randint(2**31 - 1))  # each sooner than two at once


#: Of a number: such a generator takes as long to make as an epoch of a small fit.
_drawn_once = lru_cache(maxsize=256)(_drawn)


def encode(
    estimators: list[Classifier],
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None,
    *,
    going_on: bool,
    incremental: bool,
    suffix: str = "",
) -> Problem:
    """Make the training problem of the arguments of ``fit``; the first estimator gets ``classes_``, ``n_outputs_``.

    `suffix` is what their names end in.
    """
    leader, n_least = estimators[0], 1 if incremental else estimators[0]._fewest_rows
    group, new, name = current(), not going_on, f"y{suffix}"
    table, classes = y if isinstance(y, Probabilities) else (y, None)
    with group.agreeing():
        X = check_features(leader, X, reset=new, min_samples=n_least if group.size == 1 else 0)
        check_label_names(leader, None if classes is not None else table, name, new=new)
    table, sample_weight, all_rows, shard = of_all(group, leader, X, table, sample_weight, n_least)
    same = not new and not incremental
    y, codes, soft = leader._coded((table, classes), all_rows, name, new=new and not incremental, same=same)
    weight = check_weight(sample_weight, all_rows, f"sample_weight{suffix}")
    if soft is not None:
        target = leader._scaled(soft, weight, not incremental)
    else:
        target = _target(leader._loss(leader.n_outputs_), leader.n_outputs_, codes)
    class_weight = _class_weights(estimators, y, codes, weight)
    indicators = leader._categories.indicators if hasattr(leader, "_categories") else slice(0, 0)
    problem = Problem(X, target, codes, weight, class_weight, shard=shard, indicators=indicators)
    for own in _of_models(problem, "validation" if suffix else "training"):
        if soft is None and not incremental and leader._needs_two_classes and codes.ndim == 1:
            _check_classes(leader, codes, own)
    return problem


def coded_classes(
    estimator: Classifier, target: tuple[Data, Any], X: Matrix, name: str, *, new: bool, same: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Validate a target, with the classes of its columns if it holds probabilities; return labels, codes and these."""
    table, classes = target
    if classes is None:
        soft, y = None, check_target(estimator, table, X, multilabel=estimator._multilabel, name=name)
        codes = _encode(estimator, y, name, new=new, same=same)
    else:
        soft, labels = check_probabilities(estimator, table, classes, X, name)
        _encode(estimator, labels, "classes", new=new, same=same)
        codes = soft.argmax(1)
        y = labels[codes]
    many = codes.shape[1] if codes.ndim == 2 else len(estimator.classes_)
    estimator.n_outputs_ = many if codes.ndim == 2 or many > 2 else 1
    return y, codes, soft


def _check_classes(estimator: Classifier, codes: np.ndarray, weight: np.ndarray | None) -> None:
    """Raise if there is but one class; a label that is always there, or never, is a question with one answer."""
    counted = np.ones(len(codes), dtype=bool) if weight is None else weight > 0
    present = np.flatnonzero(np.bincount(codes[counted]))
    if len(present) < 2:  # as in a resample of few rows, which BaggingClassifier draws as weights
        left_out = "" if counted.all() else " without its rows of weight zero"
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes in the data, but the data{left_out} "
            f"contains only one class: {estimator.classes_[present[0]]!r}"
        )


def _encode(estimator: Classifier, y: np.ndarray, name: str, *, new: bool, same: bool = False) -> np.ndarray:
    """Encode a validated target, which the caller calls `name`, as class codes (n,), or indicators (n, C).

    It sets ``classes_`` if it is `new`; else it must not go beyond them, or must have all of them if it is the `same`.
    """
    find = unique_labels if y.dtype.kind == "O" else np.unique  # objects become an array of their own dtype
    labels = np.arange(y.shape[1]) if y.ndim == 2 else find(y)
    if not new and labels.dtype.kind in "iu" and estimator.classes_.dtype.kind in "iu":
        own = labels.astype(estimator.classes_.dtype)
        if (own == labels).all():  # of two dtypes, NumPy would compare floats, in which large numbers are one
            labels, y = own, y if y.ndim == 2 else y.astype(own.dtype)
    if new:
        estimator.classes_, estimator._target_is_multilabel = labels, y.ndim == 2
    elif estimator._target_is_multilabel != (y.ndim == 2):
        kinds = ("class labels", "label indicators")
        raise ValueError(
            f"`{name}` holds {kinds[y.ndim == 2]}, but the classifier was trained on "
            f"{kinds[estimator._target_is_multilabel]}."
        )
    elif same and set(labels) != set(estimator.classes_):
        raise ValueError(
            f"warm_start can only be used where `{name}` has the same classes as in the previous call to fit. "
            f"Previously got {estimator.classes_}, `{name}` has {labels}"
        )
    elif len(unknown := np.setdiff1d(labels, estimator.classes_)) or (
        y.ndim == 2 and len(labels) < len(estimator.classes_)
    ):
        advice = " Name all classes in the first call of partial_fit." if name == "y" else ""
        raise ValueError(
            f"`{name}` has classes not in `self.classes_`. `self.classes_` has {estimator.classes_}, `{name}` also has "
            f"{unknown}.{advice}"
            if len(unknown)
            else f"`{name}` has {len(labels)} labels, expected {len(estimator.classes_)}."
        )
    return (y != 0).astype(np.uint8) if y.ndim == 2 else np.searchsorted(estimator.classes_, y)


def _class_weights(
    estimators: list[Classifier], y: np.ndarray, codes: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Weigh each row by its class: (n,) where all estimators have the same weights, else (K, n); None for ones."""
    settings = [member.class_weight for member in estimators]
    if all(w is None for w in settings):
        return None
    with np.errstate(over="ignore"):
        factors = [class_weight_of_rows(w, estimators[0].classes_, y, codes, sample_weight) for w in settings]
        totals = [np.sum(f if sample_weight is None else f * sample_weight) for f in factors if f is not None]
    if not np.isfinite(totals).all():
        raise ValueError(
            "class_weight times sample_weight overflows: some classes have next to no weight beside others. Leave "
            "out rows that count for nothing, or use class_weight=None."
        )
    if all(w is settings[0] or w == settings[0] for w in settings):
        return factors[0]
    return np.stack([np.ones(len(y)) if factor is None else factor for factor in factors])


def class_weight_of_rows(
    class_weight: dict | list | str | None,
    classes: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray | None,
) -> np.ndarray | None:
    """Weigh each row by its class (by all its labels, for a multilabel target); None for ones."""
    if class_weight is None:
        return None
    if codes.ndim == 2:
        return weights_of_labels(class_weight, codes, sample_weight)
    if isinstance(class_weight, list):
        raise ValueError(
            "class_weight is a list, which is for label indicators, a dictionary per label. Of classes, pass one "
            f"dictionary of weights by class, such as {{{classes.tolist()[0]!r}: 2.0}}."
        )
    if not isinstance(class_weight, str):
        return weights_of_classes(class_weight, classes)[codes]
    counted = slice(None) if sample_weight is None else sample_weight > 0
    weights = np.ones(len(classes))
    present = np.unique(codes[counted])
    given = None if sample_weight is None else sample_weight[counted]
    known = {"classes": classes[present], "y": y[counted], "sample_weight": given}
    weights[present] = compute_class_weight(class_weight, **known)
    return weights[codes]


def _target(loss: Loss, n_outputs: int, codes: np.ndarray) -> np.ndarray:
    """Make the target that the loss takes for these codes."""
    if loss.target == "codes" or codes.ndim == 2:
        return codes
    # two classes: one column that asks for the second
    columns = [1] if n_outputs == 1 else np.arange(n_outputs)
    return (codes[:, None] == columns).astype(np.uint8)


def _of_models(problem: Problem, what: str) -> list[np.ndarray | None]:
    """List the weights of the rows, for each model that has its own; none may be zero everywhere."""
    weights = [problem.weight] if problem.weight is None else list(np.atleast_2d(problem.weight))
    if any(weight is not None and not weight.any() for weight in weights):
        raise ValueError(
            f"All {what} rows have weight zero: class_weight must not be zero for every class of the rows, nor for "
            "all of those with a sample weight."
        )
    return weights


def warn_of_raw_columns(problem: Problem) -> None:
    """Warn of columns that are no columns to train on as they are, going by evenly spaced rows."""
    if sparse.issparse(problem.source) and problem.source.nnz and problem.shard is None:
        # columns are as large as their largest values
        values = problem.source.data
        if _RAW_SIZES[0] <= max(float(values.max()), -float(values.min())) <= 0.5 * _RAW_SIZES[1]:
            return
    rows = np.arange(len(problem.codes)) if problem.subset is None else problem.subset
    part = problem.take(rows[:: max(1, len(rows) // _SAMPLE_ROWS)]).X
    columns = Columns.measure(rows_of(part, problem.device, torch.float64), None, None)
    centered = not sparse.issparse(part)
    (sizes,), (constant,) = sizes_of([columns], centered)
    varies = ~constant
    fault, at_fault = f"vary by less than {_RAW_SIZES[0]:g}", varies & (sizes < _RAW_SIZES[0])
    if not varies.any() or (varies & ~at_fault).any():  # there are others to learn from
        fault = f"have values beyond {_RAW_SIZES[1]:g}"
        at_fault = np.abs(columns.mean) + np.where(varies, sizes, 0.0) > _RAW_SIZES[1]
    if at_fault.any():
        warnings.warn(
            f"standardize=False trains on the columns of X as they are, of which some {fault}: {named(at_fault)}. "
            "Steps and tolerances are made for columns of the order of one: next to nothing may be learnt of "
            "these, or of others beside them. Use standardize=True, or scale the columns (StandardScaler, or "
            "MaxAbsScaler for sparse X).",
            stacklevel=7,
        )


def warn_of_light_rows(problem: Problem, estimators: list[Classifier], seen: float) -> None:
    """Warn of weights that add up to a few rows, beside what was `seen`, for penalties left to us that count them."""
    if problem.weight is None or not hasattr(estimators[0], "alpha"):
        return
    totals = np.broadcast_to(problem.weight.sum(-1) + seen, len(estimators))
    counted = [own.alpha == "auto" and getattr(own, "penalty", "l2") is not None for own in estimators]
    total = totals[counted].min(initial=math.inf)
    if total < min(_FEW_ROWS, _LIGHT * problem.n_rows):
        warnings.warn(
            f"Weights (sample_weight, class_weight) make all {problem.n_rows} rows together weigh as much as "
            f"{total:.3g}, and alpha='auto' is as strong as so few rows ask for: predictions may be next to constant. "
            "If weights are shares, multiply them by the number of rows, or give alpha.",
            stacklevel=7,
        )
