"""Weighted quantiles of columns, and the edges of the bins that numeric columns are embedded by."""

from __future__ import annotations

import numpy as np
import torch

from skdeep.engine.per_model import numbered, to_numpy64
from skdeep.engine.shards import AnyRows
from skdeep.engine.stored import StoredRows

#: Rows that quantiles are taken of at most, evenly spaced.
_SAMPLE_ROWS = 1 << 14
#: By how much, relative to all weights, a sum of weights may be off and still reach a quantile.
_ROUNDING = 1e-12


def bin_edges(
    rows: AnyRows,
    subsets: list[np.ndarray | None],
    weights: list[np.ndarray | None],
    shifts: list[float],
    n_columns: int,
    n_bins: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the edges of the bins of the first e columns: all values, if there is room, or alike in weight.

    Subsets are the rows of each model, weights of all rows in its training; None for all, and for ones. By its shift,
    in bins, inner edges are higher. Returned are edges (K, e, n_bins + 1), and whether all values of a column are edges
    (K, e).
    """
    first, number = numbered(subsets, weights, shifts)
    rows = rows.at_home(torch.float64 if rows.home.type != "mps" else torch.float32)
    found = []
    for subset, weight, shift in ((subsets[m], weights[m], shifts[m]) for m in first):
        index, X = _sample(rows, subset)
        found.append(_edges(X[:, :n_columns], np.ones(len(X)) if weight is None else weight[index], n_bins, shift))
    edges, are_values = zip(*(found[n] for n in number), strict=True)
    return np.stack(edges), np.stack(are_values)


def bins_between_values(rows: AnyRows, subset: np.ndarray | None, n_columns: int, most: int) -> int:
    """Count the bins that have all values of a column as edges, where at least half of the first columns have few.

    Few are so many bins at most. It is the largest number of any of these columns; 0 where these are less than half, or
    none has more than one bin. The rows are those in `subset`, None for all.
    """
    bins = np.array([len(values) - 1 for values in _values(_sample(rows, subset)[1][:, :n_columns])])
    few = bins[bins <= most]
    return int(few.max()) if 2 * len(few) >= len(bins) and (few > 1).any() else 0


def _edges(X: np.ndarray, weight: np.ndarray, n_bins: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the edges of the columns of rows (n, e), and whether these are all their values."""
    edges, are_values = np.zeros((X.shape[1], n_bins + 1)), np.zeros(X.shape[1], dtype=bool)
    for column, values in enumerate(_values(X[weight > 0])):
        are_values[column] = 0 < len(values) <= n_bins + 1
        if are_values[column]:
            edges[column, : len(values)], edges[column, len(values) :] = values, values[-1]
    if not are_values.all():
        edges[~are_values] = quantiles(X[:, ~are_values], weight, n_bins, shift)
    return edges, are_values


def _values(X: np.ndarray) -> list[np.ndarray]:
    """List the values of each column, without gaps and in order."""
    return [np.unique(column[~np.isnan(column)]) for column in np.ascontiguousarray(X.T)]


def _sample(rows: AnyRows, subset: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Take evenly spaced rows in `subset` (None: all), with their numbers; all of them if there are few."""
    if isinstance(rows, StoredRows) and not rows.array.is_kept_whole:  # some of which are in memory
        index, found = rows.array.sample()
        here = np.ones(len(index), dtype=bool) if subset is None else np.isin(index, subset)
        if here.any():
            return index[here], found[here].astype(np.float64)
    n = len(rows) if subset is None else len(subset)
    index = np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(np.int64)
    index = index if subset is None else subset[index]
    return index, to_numpy64(rows.take(torch.from_numpy(index)))


def quantiles(X: np.ndarray, weight: np.ndarray, n_bins: int, shift: float = 0.0) -> np.ndarray:
    """Compute the weighted quantiles (e, n_bins + 1) of columns (n, e): values that are there, from least to greatest.

    A weight of 2 is a row given twice. A column without any value has zeros. A shift, in bins, moves all but the ends.
    """
    order = np.argsort(X, axis=0, kind="stable")  # missing values last
    values = np.take_along_axis(X, order, axis=0)
    known = np.where(np.isnan(values), 0.0, weight[order])
    total = known.cumsum(axis=0)
    wanted = np.linspace(0, 1, n_bins + 1)
    wanted[1:-1] += shift / n_bins
    edges = np.zeros((X.shape[1], n_bins + 1))
    for column, (own, sums) in enumerate(zip(values.T, total.T, strict=True)):
        if sums[-1] > 0:
            reached = np.maximum(wanted - _ROUNDING, _ROUNDING) * sums[-1]
            edges[column] = own[np.searchsorted(sums, reached)]
    return edges
