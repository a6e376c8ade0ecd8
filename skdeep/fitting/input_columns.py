"""What a perceptron is trained in: centred and scaled columns, indicators of missing values, and bins of numbers."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin

from skdeep.data.bins import bin_edges, bins_between_values
from skdeep.data.columns import Columns, sizes_of
from skdeep.data.inputs import Classifier, OutputSpace, to_numpy
from skdeep.data.problem import Problem
from skdeep.engine.frame import Frame
from skdeep.engine.input_layer import Standardization
from skdeep.engine.per_model import fetched, run_length, to_device
from skdeep.fitting.recipe import Member, column_statistics, rows_and_weights

#: Under ``n_bins="auto"``: bins of all columns together at most, and rows of a bin at least; but where half of the
#: columns have few values, with so many bins between them at most, and so many rows of each: bins between all of these.
_ALL_BINS, _BIN_ROWS, _FEW_BINS = 256, 128, 8
#: How large bins are at the start (see `Bins`): the less, the faster a column learns how much its own matter.
_START, _FAST = 4.0, 15.0
#: How large a column of zeros and ones is at least: as large as where both are as frequent. By how much, relative to
#: its variance, its moments may be off.
_INDICATOR, _ROUNDING = 0.5, 1e-5


class _Bounds(NamedTuple):
    """Bins of a column at most, if left to us; columns at most, and rows at least, that are embedded by themselves."""

    bins: int
    columns: int
    rows: int


#: Members are stopped in time, and averaged: bins do no harm there on few rows.
_IN_ENSEMBLES, _ALONE = _Bounds(32, 128, 0), _Bounds(16, 63, 512)


class InputColumns(NamedTuple):
    """The columns of a perceptron's first layer."""

    n_features: int  # columns of X
    indicated: np.ndarray  # those (i,) that have an indicator of missing values
    n_embedded: int  # the first so many have bins; after them come the indicators of categories
    n_bins: int  # of each
    are_centred: bool  # if they are dense

    @property
    def n_inputs(self) -> int:
        """Inputs of the first layer."""
        return self.n_features + len(self.indicated) + self.n_embedded * self.n_bins


def columns_for(estimator: Classifier, problem: Problem, n_bins: int) -> InputColumns:
    """Choose the columns to train in."""
    none = np.empty(0, dtype=np.int64)
    known = hasattr(estimator, estimator._coef_attribute)  # also where folds, or a start that may be better, begin anew
    indicated = to_numpy(getattr(estimator, "missing_features_", none)) if known else problem.missing
    n_features = problem.source.shape[1]
    centres = estimator.standardize or len(indicated) > 0 or problem.has_missing
    return InputColumns(n_features, indicated, n_numbers(problem) if n_bins else 0, n_bins, centres)


def n_numbers(problem: Problem) -> int:
    """Count the columns before the indicators of categories."""
    n_features = problem.source.shape[1]
    return n_features - len(range(*problem.indicators.indices(n_features)))


def bins_of(estimator: Classifier, n_columns: int, n_rows: float = np.inf, n_few: int = 0) -> int:
    """Choose how many bins each of so many dense columns has, `n_few` at least; none where they are not embedded."""
    if estimator.numeric_embedding is None or not n_columns:
        return 0
    bounds = _IN_ENSEMBLES if estimator._averages_probabilities else _ALONE
    if estimator.numeric_embedding == "auto":
        # without a hidden layer it would be another model, and without scales the columns are to stay as they are
        is_plain = bounds is _ALONE and not (estimator.standardize and np.size(estimator.hidden_layer_sizes))
        if is_plain or n_columns > bounds.columns or (n_rows < bounds.rows and not n_few):
            return 0
    if isinstance(estimator.n_bins, Integral):
        return int(estimator.n_bins)
    return int(max(2, n_few, min(bounds.bins, _ALL_BINS // n_columns, n_rows // _BIN_ROWS)))


def bins_for(estimator: Classifier, problem: Problem, going_on: bool, incremental: bool) -> int:
    """Choose how many bins each column has that has any: as before, where training goes on.

    The first part of the rows does not choose for the rest: an `incremental` fit has them only where it is asked to.
    Raise where columns are to be embedded that cannot be.
    """
    if issparse(problem.source):
        if estimator.numeric_embedding == "piecewise":
            raise ValueError(
                "numeric_embedding='piecewise' needs a dense X, and X is sparse: the bins of a zero are not zero. Use "
                "X.toarray() where there is room for it, or numeric_embedding='auto', which leaves sparse columns as "
                "they are."
            )
        if going_on and estimator.numeric_embedding and hasattr(estimator, "bin_edges_"):
            raise ValueError(
                "Training goes on with bins of dense columns, and X is sparse: the bins of a zero are not zero. Use "
                "X.toarray() where there is room for it, or fit with warm_start=False."
            )
        return 0
    by_itself, is_open = estimator.numeric_embedding == "auto", estimator.n_bins == "auto"
    if going_on and (by_itself or (is_open and estimator.numeric_embedding)):
        edges = getattr(estimator, "bin_edges_", None)
        # a number that has changed since is found where layers are compared
        return 0 if edges is None else edges.shape[1] - 1 if is_open else int(estimator.n_bins)
    if by_itself and incremental:
        return 0
    n_columns, n_rows, n_few = n_numbers(problem), problem.n_observations, 0
    if estimator.numeric_embedding and n_rows < _FEW_BINS * _BIN_ROWS:
        rows = problem.placed(torch.device("cpu"), torch.float64).rows()
        most = int(min(_FEW_BINS, n_rows // _FEW_BINS))
        n_few = bins_between_values(rows, problem.counted().index, n_columns, most)
    return bins_of(estimator, n_columns, n_rows, n_few)


def standardization_for(
    estimator: Classifier, problem: Problem, columns: InputColumns, members: list[Member], warm: bool
) -> Standardization | None:
    """Measure the columns of each model's rows, and make the change of variables to train in; None for none."""
    if not columns.are_centred and not columns.n_bins:
        return None
    indicated, statistics = columns.indicated, column_statistics(problem, members)
    centers = columns.are_centred and not issparse(problem.source)
    bins: dict[str, Any] = {}
    if columns.n_bins:
        bins = _bins(estimator, problem, columns, members, warm)
    frame, n_alike = None, 1
    if estimator.standardize:
        trained = np.zeros(columns.n_features, dtype=bool)
        if warm:
            trained = to_numpy(estimator.coefs_[0])[: columns.n_features].any(1)
        mean, scale, frame = _means_and_scales(estimator, problem, statistics, indicated, centers, trained)
        n_alike = _n_alike(mean, scale, *(part.reshape(len(mean), -1) for part in bins.values()))
    else:  # centred, so that a missing value is its mean; their scale is left as it is
        mean = np.stack([np.append(c.mean, np.zeros(len(indicated))) for c in statistics])
        scale = np.ones((1, mean.shape[1]))
    index = to_device(torch.from_numpy(np.array(indicated)), problem.device)  # a loaded one may be read-only
    of_mean, of_scale = (
        to_device(torch.from_numpy(array).unsqueeze(1), problem.device, problem.dtype) for array in (mean, scale)
    )
    return Standardization(of_mean if centers else None, of_scale, index, frame, n_alike, **bins)


def _bins(
    estimator: Classifier, problem: Problem, columns: InputColumns, members: list[Member], warm: bool
) -> dict[str, np.ndarray]:
    """Choose the edges of the bins of each model's columns, (K, e, n_bins + 1), and how large they start, (K, e)."""
    start = min(_START, _FAST / max(estimator.column_learning_rate, 1))
    if warm:
        edges = to_numpy(estimator.bin_edges_)
        starts = to_numpy(getattr(estimator, "bin_starts_", np.full(len(edges), start)))  # a saved one may lack them
        return {"edges": edges[None], "start": starts[None].astype(np.float64)}
    (subsets, weights), shifts = rows_and_weights(members), [member.shift for member in members]
    edges, are_values = bin_edges(problem.rows(), subsets, weights, shifts, columns.n_embedded, columns.n_bins)
    return {"edges": edges, "start": np.where(are_values, np.inf, start)}


def _means_and_scales(
    estimator: Classifier,
    problem: Problem,
    statistics: list[Columns],
    indicated: np.ndarray,
    centers: bool,
    trained: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Frame | None]:
    """Compute means and factors (K, d + i) of columns and of indicators, and the frame that they are seen in.

    `trained` says which columns have weights that an earlier fit has trained.
    """
    indicators = [c.indicators(indicated) for c in statistics]
    sizes, constant = _sizes_of(estimator, statistics, centers)
    frame = problem.see(statistics[0], sizes[0], centers)
    factor, origin = (1.0, 0.0) if frame is None else (frame.factor, frame.origin)
    sizes = np.hstack([sizes * factor, _sizes_of(estimator, indicators, centers)[0]])
    sizes[:, problem.indicators] = 1.0
    mean = np.stack([np.append(c.mean * factor - origin, i.mean) for c, i in zip(statistics, indicators, strict=True)])
    # of what has never been seen to vary, nothing is known: weights that no row has trained must not act
    silent = np.hstack([constant & ~trained, np.array([i.deviation == 0 for i in indicators])])
    return mean, np.where(silent, 0.0, 1 / sizes), frame


def _sizes_of(estimator: Classifier, columns: list[Columns], centers: bool) -> tuple[np.ndarray, np.ndarray]:
    """Measure how large columns are, (K, d), and find those that say nothing.

    Of classifiers, zeros and ones count as if both were frequent: a rare one, divided by its deviation, would be a
    large number in a few rows, whose classes are then learnt by heart.
    """
    sizes, constant = sizes_of(columns, centers)
    if not isinstance(estimator, ClassifierMixin):  # docs/decisions/categories.rst
        return sizes, constant
    mean, deviation = (np.array([getattr(c, name) for c in columns]) for name in ("mean", "deviation"))
    with np.errstate(over="ignore"):
        variance = mean * (1 - mean)  # of zeros and ones, and by chance alone of others
        are_indicators = np.abs(np.square(deviation) - variance) <= _ROUNDING * variance
    return np.where(are_indicators, np.maximum(sizes, _INDICATOR), sizes), constant


def _n_alike(*of_models: np.ndarray) -> int:
    """Count how many models in turn have the same numbers (K, ...) in all of some tables."""
    changes = [(table[1:] != table[:-1]).any(1) for table in of_models]
    return run_length([0, *np.cumsum(np.any(changes, axis=0)).tolist()])


def learned_columns(
    standardization: Standardization, model: int, dtype: np.dtype, space: OutputSpace, are_raw: bool
) -> dict[str, Any]:
    """Make the fitted attributes of a model's change of variables; of columns that `are_raw`, they have no means."""
    learned: dict[str, Any] = {}
    if not are_raw:
        means, indicated = standardization.means(model).astype(dtype), standardization.indicated
        index = fetched([indicated])[0] if len(indicated) else np.empty(0, dtype=np.int64)
        learned = {"means_": space.array(means), "missing_features_": space.array(index)}
    if (bins := standardization.bins) is not None:
        own = model if len(bins) > 1 else 0
        learned["bin_edges_"] = space.array(bins.known[own])
        if bins.start is not None:
            learned["bin_starts_"] = space.array(bins.start[own])
    return learned
