"""Column statistics, for training in centred and scaled columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.compat.scipy import csc_matvec, csc_matvecs
from skdeep.engine.frame import Frame
from skdeep.engine.per_model import index_of, numbered, to_device, to_numpy64
from skdeep.engine.rows import MAX_VALUES, DenseRows, SparseRows
from skdeep.engine.scratch import Scratch
from skdeep.engine.shards import AnyRows, SharedRows

#: Rows that are here; also as arrays of NumPy and SciPy, whose numbers are taken in float64.
SomeRows: TypeAlias = DenseRows | SparseRows | np.ndarray | sparse.csr_array

#: Rows of a chunk at least, and values: few enough to stay in the cache between its two passes; and more on an
#: accelerator, for which the host waits after each.
_CHUNK_ROWS, _CACHED_VALUES, _CHUNK_VALUES = 1024, 2**17, 2**24
#: Values up to which single precision saves no time; and of weights, models of which are measured at once.
_FEW_VALUES = 2**18
#: Least variance, as a share of the squared distance from where it is measured, that keeps its digits.
_NEAR = 0.01
#: The like of a square of columns without a zero, or nearly so, of sparse rows.
_FEW_DIGITS = 1e-4


@dataclass
class Columns:
    """Weighted mean and deviation of each column, to which further data can be added (Chan et al. 1983).

    They describe the user's columns, to the digits of the user's dtype, whatever is computed with later. All arrays are
    (d,).
    """

    weight: np.ndarray  # total, of the rows seen, where they are not missing (NaN); of sparse ones, where not zero
    missing: np.ndarray  # total weight of the other rows
    mean: np.ndarray  # of the values in these rows
    deviation: np.ndarray  # the like: no variance, for a square may overflow
    largest: np.ndarray  # magnitude in sparse columns; zero for dense ones
    #: By how much, relative to its size, a column may vary and still be taken for constant: a unit of the last place
    #: of X's dtype, and ten of float64's, in which numbers are computed more often than stored.
    rounding: float

    @classmethod
    def measure(cls, rows: SomeRows, subset: np.ndarray | None, weight: np.ndarray | None) -> Columns:
        """Measure the rows in `subset` (None: all), a chunk at a time."""
        return cls._measure(rows, subset, None if weight is None else weight[None])[0]

    @classmethod
    def _measure(cls, rows: SomeRows, subset: np.ndarray | None, weights: np.ndarray | None) -> list[Columns]:
        """Measure them for models that weigh the rows by `weights` (K, n), or for one."""
        rows, rounding = _in_own_dtype(rows)
        total: dict[int, Columns] = {}
        if isinstance(rows, _SPARSE):
            values = 1 + rows.nnz // max(1, rows.shape[0]) if isinstance(rows, sparse.csr_array) else rows.row_values
            step, of_part = max(1, MAX_VALUES // values), cls._of_sparse
        else:
            here = isinstance(rows, np.ndarray) or rows.home.type == "cpu"
            step, of_part = (_CACHED_VALUES if here else _CHUNK_VALUES) // _shape(rows)[1], cls._of_chunk
            step = max(_CHUNK_ROWS, step)
        for X, index in _parts_of(rows, subset, step):
            w = np.ones((1, X.shape[0])) if weights is None else weights[:, index]
            has_any = [0] if weights is None else np.flatnonzero(w.any(1)).tolist()
            chunks = of_part(X, w if len(has_any) == len(w) else w[has_any], rounding) if has_any else []
            for model, chunk in zip(has_any, chunks, strict=True):
                total[model] = total[model].merged(chunk) if model in total else chunk
        return [total[model] for model in range(len(total))]  # there is at least one row for each

    @classmethod
    def _of_chunk(cls, X: Any, weights: np.ndarray, rounding: float) -> list[Columns]:
        """Measure some rows (n, d), an array or a tensor, for models that weigh them by `weights` (K, n)."""
        here = isinstance(X, np.ndarray)
        mass, zero, limits = weights.sum(1, keepdims=True), np.zeros(X.shape[1]), (np if here else torch).finfo(X.dtype)
        share = weights / mass
        # nothing may be known of a column; a square may overflow or vanish, or be that of a rounding
        with np.errstate(all="ignore"):
            at, moved, square, *counts = _moments(X, share)
            known, missing = counts or (1 + zero, zero)
            if counts:
                moved, square = moved / known, square / known
            near = moved * moved
            variance = square - near
            mean, deviation = at + moved, np.sqrt(variance)
            rounded = np.maximum(np.square(limits.eps * at) + limits.tiny / limits.eps, _NEAR * near)
            sure = (variance > rounded) & (variance < np.inf)
        if not sure.all():  # most of these columns are constant, whatever the rows
            unsure = np.flatnonzero(~sure.all(0))
            values = X[:, unsure] if here else to_numpy64(X.index_select(1, index_of(unsure, X)))
            values = values.astype(np.float64, copy=False)
            same = (values == values[0]).all(0)
            mean[:, unsure[same]], deviation[:, unsure[same]] = values[0, same], 0.0
            unsure, values = unsure[~same], values[:, ~same]
            for model in np.flatnonzero(~sure[:, unsure].all(1)):
                own, counted = ~sure[model, unsure], share[model] > 0
                moments = _scaled_moments(values[counted][:, own], share[model, counted])
                mean[model, unsure[own]], deviation[model, unsure[own]] = moments
        if counts:
            mean, deviation = (np.where(known > 0, moment, 0.0) for moment in (mean, deviation))
        each = zip(mass * known, mass * missing, mean, deviation, strict=True)
        return [cls(*own, zero, rounding) for own in each]

    @classmethod
    def _of_sparse(cls, X: sparse.csr_array | Tensor, weights: np.ndarray, rounding: float) -> list[Columns]:
        """Measure the values other than zero of some rows (n, d), for models that weigh them by `weights` (K, n)."""
        if isinstance(X, Tensor):
            X = X if X.layout is torch.sparse_csr else X.to_sparse_csr()
            parts = to_numpy64(X.values()), X.col_indices().cpu().numpy(), X.crow_indices().cpu().numpy()
        else:
            parts = X.data.astype(np.float64, copy=False), X.indices, X.indptr
        d, (values, columns, starts), by_row = X.shape[1], parts, np.ascontiguousarray(weights.T, dtype=np.float64)
        filled = values != 0

        def summed(data: np.ndarray) -> np.ndarray:
            found = np.zeros((d, len(weights)))
            of_all = starts, columns, data, by_row.ravel(), found.ravel()
            if len(weights) == 1:
                csc_matvec(d, len(starts) - 1, *of_all)
            else:
                csc_matvecs(d, len(starts) - 1, len(weights), *of_all)
            return np.ascontiguousarray(found.T)

        largest = np.zeros(d)
        np.maximum.at(largest, columns, np.abs(values))
        unit = np.where(largest > 0, largest, 1.0)
        known, values = summed(filled.astype(np.float64)), values / unit[columns]
        mass, missing = np.where(known > 0, known, 1.0), np.maximum(weights.sum(1, keepdims=True) - known, 0.0)
        at = summed(values)[0] / mass[0]
        away = values - at[columns]
        away[~filled] = 0.0
        moved, square = summed(away) / mass, summed(np.square(away, out=away)) / mass
        near, mean = np.square(moved), np.where(known > 0, at + moved, 0.0)
        variance, total = square - near, weights.sum(1, keepdims=True)
        # where the difference has few digits, and little else is the size of a column
        unsure = variance + missing / total * np.square(mean) < _FEW_DIGITS * near
        for model in np.flatnonzero(unsure.any(1)):
            w = np.repeat(weights[model], np.diff(starts)) * filled
            mean[model] = np.bincount(columns, w * values, d) / mass[model]
            variance[model] = np.bincount(columns, w * np.square(values - mean[model, columns]), d) / mass[model]
        each = zip(known, missing, unit * mean, unit * np.sqrt(np.maximum(variance, 0.0)), strict=True)
        return [cls(*own, largest, rounding) for own in each]

    @classmethod
    def of_models(
        cls,
        rows: AnyRows | np.ndarray | sparse.csr_array,
        subsets: list[np.ndarray | None],
        weights: list[np.ndarray | None],
        known: Columns | None = None,
    ) -> list[Columns]:
        """Measure the rows of each model of a stack, and add what is `known`; models with the same rows share it."""
        first, number = numbered(subsets, weights)
        own = [(subsets[m], weights[m]) for m in first]
        if isinstance(rows, SharedRows):
            each = cls._of_shares(rows, own)
        else:
            # the largest values of sparse columns are of a subset, whatever the weights of its rows
            apart = isinstance(rows, _SPARSE) and any(subset is not None for subset, _ in own)
            each, n = [], _shape(rows)[0]
            some = 1 if apart else max(1, _FEW_VALUES // max(_shape(rows)))
            for part in (own[start : start + some] for start in range(0, len(own), some)):
                if len(part) == 1:
                    each.append(cls.measure(rows, *part[0]))
                else:  # in one pass over all rows
                    each += cls._measure(rows, None, np.array([weights_of_rows(n, *one) for one in part]))
        each = each if known is None else [known.merged(columns) for columns in each]
        return [each[n] for n in number]

    @classmethod
    def _of_shares(cls, rows: SharedRows, models: list[tuple[np.ndarray | None, np.ndarray | None]]) -> list[Columns]:
        """Measure rows that processes share, by the subset and weights of each model: each process its own."""
        shard, found = rows.shard, []
        for subset, weight in models:
            own = np.arange(shard.part.start, shard.part.stop) if subset is None else subset[shard.own(subset)]
            here, of_rows = own - shard.start, None if weight is None else weight[shard.part]
            counts = len(here) > 0 and (of_rows is None or of_rows[here].any())
            found.append(cls.of_models(rows.local, [here], [of_rows])[0] if counts else None)
        of_ranks = zip(*shard.group.gather(found), strict=True)
        return [reduce(cls.merged, [part for part in parts if part is not None]) for parts in of_ranks]

    def merged(self, other: Columns) -> Columns:
        """Combine the statistics of two sets of rows."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        shift = other.mean - self.mean
        return Columns(
            weight,
            self.missing + other.missing,
            self.mean + share * shift,
            np.hypot(
                np.hypot(np.sqrt(1 - share) * self.deviation, np.sqrt(share) * other.deviation),
                np.sqrt(share * (1 - share)) * shift,
            ),
            np.maximum(self.largest, other.largest),
            max(self.rounding, other.rounding),
        )

    def indicators(self, index: np.ndarray) -> Columns:
        """Compute statistics of indicators: columns that are 1 where the columns `index` are missing, and else 0."""
        weight, missing = self.weight[index], self.missing[index]
        share = missing / (weight + missing)
        zero = np.zeros_like(share)
        return Columns(weight + missing, zero, share, np.sqrt(share * (1 - share)), zero, self.rounding)

    def frame(self, dtype: torch.dtype, sizes: np.ndarray, centered: bool, same_factor: bool = False) -> Frame | None:
        """Choose the frame to see columns of these sizes in; None where `dtype` loses nothing of them as they are.

        Columns are moved whose means would leave half of the digits to their deviations, and scaled where their squares
        would be near the end of the numbers; with `same_factor`, all alike.
        """
        limits = torch.finfo(dtype)
        mean = self.mean if centered else np.zeros_like(self.mean)
        most = limits.max**0.25
        needs = (limits.eps**0.5 * np.abs(mean) > sizes) | (sizes > most) | (sizes < 1 / most)
        if not needs.any():
            return None
        exponent = np.round(np.log2(sizes))
        exponent = np.full_like(exponent, exponent.max()) if same_factor else np.where(needs, exponent, 0.0)
        factor = np.ldexp(1.0, np.clip(-exponent, -1022, 1022).astype(int))
        return Frame(factor, np.where(needs, mean * factor, 0.0))


def sizes_of(columns: list[Columns], centered: bool) -> tuple[np.ndarray, np.ndarray]:
    """Measure how large the columns of K models are, (K, d); and find those that say nothing.

    The size is the standard deviation where columns are centred, the root mean square where there is no intercept to
    centre by, the maximum for sparse data (where few non-zeros would make for a tiny deviation, and a huge factor). A
    column that says nothing is constant up to rounding, or zero where it is not centred; it is taken for one of the
    order of one.
    """
    mean, deviation, largest = (
        np.array([getattr(c, name) for c in columns]) for name in ("mean", "deviation", "largest")
    )
    magnitude = np.maximum(np.hypot(deviation, mean), largest)
    size = deviation if centered else magnitude
    constant = size <= np.array([[c.rounding] for c in columns]) * magnitude
    return np.where(constant, np.maximum(magnitude, 1.0), size), constant


#: Of which values are few.
_SPARSE = SparseRows, sparse.csr_array


def _shape(rows: Any) -> tuple[int, int]:
    return rows.shape if isinstance(rows, np.ndarray | sparse.csr_array) else (len(rows), rows.n_features)


def _in_own_dtype(rows: SomeRows) -> tuple[SomeRows, float]:
    """Cast rows to a dtype that holds all of their values; with `Columns.rounding`."""
    if isinstance(rows, np.ndarray | sparse.csr_array):
        narrow = rows.dtype.kind == "f" and rows.dtype.itemsize < 8
        return rows, float(np.finfo(rows.dtype).eps) if narrow else 10 * float(np.finfo(np.float64).eps)
    kind = rows.kind
    narrow = kind.is_floating_point and kind is not torch.float64
    # where there are many; sums of a chunk of bytes are exact
    single = (narrow or kind.itemsize == 1) and len(rows) * rows.n_features > _FEW_VALUES
    single = (single and rows.dtype is torch.float32) or rows.home.type == "mps"
    rows = rows.at_home(torch.float32 if single else torch.float64)
    rows.scratch = Scratch()
    return rows, torch.finfo(kind).eps if narrow else 10 * torch.finfo(torch.float64).eps


def _parts_of(rows: SomeRows, subset: np.ndarray | None, step: int) -> Iterator[tuple[Any, slice | np.ndarray]]:
    """Take rows, so many at a time, and say which these are: dense ones on the CPU as arrays of NumPy."""
    n = _shape(rows)[0]
    for start in range(0, n if subset is None else len(subset), step):
        part = slice(start, start + step)
        index = part if subset is None else subset[part]
        if isinstance(rows, np.ndarray):
            yield np.ascontiguousarray(rows[index], dtype=np.float64), index
            continue
        if isinstance(rows, sparse.csr_array):
            yield rows if subset is None and step >= n else rows[index], index
            continue
        taken = rows.take(index if isinstance(index, slice) else torch.from_numpy(index))
        yield taken.numpy() if taken.is_cpu and taken.layout is torch.strided else taken, index


def _moments(X: Any, share: np.ndarray) -> list[np.ndarray]:
    """Compute sums over rows (n, d), by their shares (K, n) for each model, in float64.

    Returned are where the columns are measured from (d,), and of values from there, each (K, d), the mean and the mean
    square; where some are missing, the shares known and missing.
    """
    xp: Any
    part: Any
    if isinstance(X, np.ndarray):  # whose functions cost a third as much to call as torch's
        xp, part = np, share.astype(X.dtype, copy=False)
    else:
        xp, part = torch, to_device(torch.from_numpy(share), X.device, X.dtype)
    # near the mean, where the variance is no small difference of large sums
    at = part[0] @ X  # ten times faster than a reduction along the columns
    centred = X - at
    moved, counts = part @ centred, []
    if math.isnan(moved.sum()):
        missing, one = xp.isnan(X), xp.ones_like(part[:1, :1])
        # two counts: a column without missing values has exactly none
        counts = [part @ xp.where(missing, 0 * one, one), part @ xp.where(missing, one, 0 * one)]
        at = xp.nan_to_num(part[0] @ xp.where(missing, 0 * one, X) / counts[0][0], nan=0.0)
        centred = xp.where(missing, 0 * one, X - at)
        moved = part @ centred
    found = [moved, part @ xp.square(centred, out=centred), *counts]
    # in float64 only here: a sum in X's dtype would round the mean to a multiple of X's last place
    if isinstance(X, np.ndarray):
        found = [at, *found]
        return found if X.dtype == np.float64 else [values.astype(np.float64) for values in found]
    return list(to_numpy64(torch.stack([at.expand_as(moved), *found])))  # for which the host waits once


def weights_of_rows(n: int, subset: np.ndarray | None, weight: np.ndarray | None) -> np.ndarray:
    """Compute the weight (n,) of each row for a model that is trained on a subset, in which a row may be repeated."""
    if subset is None:
        return np.ones(n) if weight is None else weight
    return np.bincount(subset, None if weight is None else weight[subset], n).astype(np.float64)


def _scaled_moments(X: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute means and deviations of columns (n, d), where no square may overflow or vanish; NaN for unknown ones."""
    known = ~np.isnan(X)
    at = np.nan_to_num(np.take_along_axis(X, known.argmax(0)[None], axis=0)[0])  # the first value that is known
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = _power_of_two(np.maximum(np.abs(np.where(known, X, 0.0)).max(0), np.abs(at)))
        Z = np.where(known, X / unit - at / unit, 0.0)
        spread = _power_of_two(np.abs(Z).max(0))
        Z = Z / spread
        weight = share @ known
        mean = share @ Z / weight
        deviation = np.sqrt(share @ np.square(np.where(known, Z - mean, 0.0)) / weight)
        return mean * spread * unit + at, deviation * spread * unit


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """Find the power of two next to each value from below, where numbers have all digits; one for zero."""
    exponent = np.frexp(values)[1] - 1
    return np.where(values > 0, np.ldexp(1.0, np.clip(exponent, -1022, 1022)), 1.0)
