"""Column statistics, for training in centred and scaled columns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.frame import Frame
from skdeep.engine.per_model import index_of, numbered, to_device, to_numpy64
from skdeep.engine.rows import MAX_VALUES, DenseRows, SparseRows
from skdeep.engine.scratch import Scratch
from skdeep.engine.shards import AnyRows, SharedRows

_CHUNK_ROWS = 1024  # small enough for a chunk to stay in the cache between its two passes
_CHUNK_VALUES = 1 << 24  # on an accelerator, for which the host waits after each
_FEW_VALUES = 2**18  # up to which all rows are one chunk, for all models at once
#: Least variance, as a share of the squared distance from where it is measured, that keeps its digits.
_NEAR = 0.01
#: Resolution and smallest normal number of the dtypes that columns are measured in.
_LIMITS = {np.dtype(t): (float(np.finfo(t).eps), float(np.finfo(t).tiny)) for t in (np.float32, np.float64)}


@dataclass
class Columns:
    """Weighted mean and deviation of each column, to which further data can be added (Chan et al. 1983).

    They describe the user's columns, to the digits of the user's dtype, whatever is computed with later. All arrays are
    (d,).
    """

    weight: np.ndarray  # total, of the rows seen, where they are not missing (NaN)
    missing: np.ndarray  # total weight of the rows where they are
    mean: np.ndarray  # of dense columns; zero for sparse ones
    deviation: np.ndarray  # the like: no variance, for a square may overflow
    largest: np.ndarray  # magnitude in sparse columns; zero for dense ones
    #: By how much, relative to its size, a column may vary and still be taken for constant: a unit of the last place
    #: of X's dtype, and ten of float64's, in which numbers are computed more often than stored.
    rounding: float
    square: float = 0.0  # mean squared length of sparse rows; zero for dense ones

    @classmethod
    def measure(cls, rows: DenseRows | SparseRows, subset: np.ndarray | None, weight: np.ndarray | None) -> Columns:
        """Measure the rows in `subset` (None: all), a chunk at a time."""
        rows, rounding = _in_own_dtype(rows)
        if isinstance(rows, SparseRows):
            zero, (mass, square) = np.zeros(rows.n_features), _squares_of(rows, subset, weight)
            return cls(zero + mass, zero, zero, zero, _largest_of(rows, subset), rounding, square)
        total = shift = room = None
        step = _CHUNK_ROWS if rows.home.type == "cpu" else max(_CHUNK_ROWS, _CHUNK_VALUES // rows.n_features)
        for X, index in _parts_of(rows, subset, step):
            w = np.ones(len(X)) if weight is None else weight[index]
            if not w.any():
                continue
            share = w / w.sum()
            if shift is None or room is None:
                shift = _near_mean(X, share, step)
                room = torch.empty_like(X)
            chunk = cls._of_chunk(X, w.sum(), share, shift, room[: len(X)], rounding)
            total = chunk if total is None else total.merged(chunk)
        assert total is not None  # there is at least one row
        return total

    @classmethod
    def _of_chunk(
        cls, X: Tensor, mass: float, of_rows: np.ndarray, shift: Any, room: Tensor, rounding: float
    ) -> Columns:
        """Measure some rows (n, d), whose shares `of_rows` (n,) of the weight add up to one; near a `shift` (d,)."""
        zero, limits = np.zeros(X.shape[1]), torch.finfo(X.dtype)
        # nothing may be known of a column; a square may overflow or vanish, or be that of a rounding
        with np.errstate(all="ignore"):
            at, mean, square, *counts = _moments(*_as_arrays(X, of_rows), shift, room.numpy() if X.is_cpu else room)
            known, gone = counts or (zero + 1, zero)
            if counts:
                mean, square = mean / known, square / known
            variance = square - mean**2
            mean, deviation = mean + at, np.sqrt(np.maximum(variance, 0.0))
            rounded = np.maximum(limits.tiny / limits.eps, (limits.eps * at) ** 2)
            unsure = np.flatnonzero(~((variance > rounded) & (variance < np.inf)))
        if len(unsure):  # of those, most are constant
            values = to_numpy64(X.index_select(1, index_of(unsure, X)))
            varies = (values != values[0]).any(0)
            mean[unsure], deviation[unsure] = values[0], 0.0
            unsure, values = unsure[varies], values[:, varies]
        if len(unsure):
            mean[unsure], deviation[unsure] = _scaled_moments(
                torch.from_numpy(values), torch.from_numpy(at[unsure]), torch.from_numpy(of_rows)
            )
        if counts:
            mean, deviation = (np.where(known > 0, moment, 0.0) for moment in (mean, deviation))
        return cls(mass * known, mass * gone, mean, deviation, zero, rounding)

    @classmethod
    def of_models(
        cls,
        rows: AnyRows,
        subsets: list[np.ndarray | None],
        weights: list[np.ndarray | None],
        known: Columns | None = None,
    ) -> list[Columns]:
        """Measure the rows of each model of a stack, and add what is `known`; models with the same rows share it."""
        first, number = numbered(subsets, weights)
        parts = [subsets[m] for m in first], [weights[m] for m in first]
        if isinstance(rows, SharedRows):
            each = cls._of_shares(rows, *parts)
        else:
            several = zip(_together(rows, *parts), *parts, strict=True)
            each = [found or cls.measure(rows, subset, weight) for found, subset, weight in several]
        each = each if known is None else [known.merged(columns) for columns in each]
        return [each[n] for n in number]

    @classmethod
    def _of_shares(
        cls, rows: SharedRows, subsets: list[np.ndarray | None], weights: list[np.ndarray | None]
    ) -> list[Columns]:
        """Measure rows that processes share: each its own."""
        shard, found = rows.shard, []
        for subset, weight in zip(subsets, weights, strict=True):
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
            self.square + float(share[0]) * (other.square - self.square) if len(share) else 0.0,
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
        far = limits.eps**0.5 * np.abs(mean) > sizes
        largest = limits.max**0.25
        if not (far | (sizes >= largest) | (sizes <= 1 / largest)).any():
            return None
        exponent = np.round(np.log2(sizes))
        needs = far | (np.abs(exponent) > np.log2(limits.max) / 4)
        if not needs.any():
            return None
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


def _in_own_dtype(rows: DenseRows | SparseRows) -> tuple[DenseRows | SparseRows, float]:
    """Cast rows to a dtype that holds all of their values; with `Columns.rounding`."""
    kind = rows.kind
    narrow = kind.is_floating_point and kind is not torch.float64
    rounding = torch.finfo(kind).eps if narrow else 10 * torch.finfo(torch.float64).eps
    single = narrow or kind.itemsize == 1  # sums of a chunk of bytes are exact
    single = (single and rows.dtype is torch.float32) or rows.home.type == "mps"
    rows = rows.at_home(torch.float32 if single else torch.float64)
    rows.scratch = Scratch()
    return rows, rounding


def _parts_of(
    rows: DenseRows | SparseRows, subset: np.ndarray | None, step: int
) -> Iterator[tuple[Tensor, slice | np.ndarray]]:
    """Take rows, so many at a time, and say which these are."""
    for start in range(0, len(rows) if subset is None else len(subset), step):
        part = slice(start, start + step)
        index = part if subset is None else subset[part]
        yield rows.take(index if isinstance(index, slice) else torch.from_numpy(index)), index


def _largest_of(rows: SparseRows, subset: np.ndarray | None) -> np.ndarray:
    """Find the largest magnitude in each column of sparse rows."""
    largest = torch.zeros(rows.n_features, dtype=rows.dtype, device=rows.device)
    for X, _ in _parts_of(rows, subset, max(1, MAX_VALUES // rows.row_values)):
        if X.layout is torch.sparse_csr:
            largest.scatter_reduce_(0, X.col_indices().long(), X.values().abs(), "amax")
        else:
            torch.maximum(largest, X.abs().amax(0), out=largest)
    return to_numpy64(largest)


def _squares_of(rows: SparseRows, subset: np.ndarray | None, weight: np.ndarray | None) -> tuple[float, float]:
    """Compute the weight of sparse rows, and their mean squared length."""
    mass = total = 0.0
    for X, index in _parts_of(rows, subset, max(1, MAX_VALUES // rows.row_values)):
        w = np.ones(len(X)) if weight is None else weight[index]
        if X.layout is torch.sparse_csr:
            w_of_values = np.repeat(w, np.diff(X.crow_indices().cpu().numpy()))
            values = to_numpy64(X.values())
        else:
            w_of_values, values = np.repeat(w, X.shape[1]), to_numpy64(X).ravel()
        with np.errstate(over="ignore", invalid="ignore"):  # what has no number is not short
            mass, total = mass + float(w.sum()), total + float(w_of_values @ np.square(values))
    return mass, total / mass


def _as_arrays(X: Tensor, of_rows: np.ndarray) -> tuple[Any, Any, Any]:
    """Choose who computes: NumPy on the CPU, whose functions cost a third as much to call; and its rows and shares."""
    if X.is_cpu:
        Z = X.numpy()
        return np, Z, of_rows.astype(Z.dtype, copy=False)
    return torch, X, to_device(torch.from_numpy(of_rows), X.device, X.dtype)


def _near_mean(X: Tensor, of_rows: np.ndarray, most_rows: int) -> Any:
    """Find where the variance is no small difference of large sums: near the mean of each column (d,)."""
    with np.errstate(all="ignore"):
        _, Z, share = _as_arrays(X, of_rows)
        shift = share @ Z
    if math.isfinite(shift.sum()):
        return shift
    known = X.nanmean(0)
    if not known.isfinite().all():  # no value is known, or their sum overflows
        known = X.div(most_rows).nanmean(0).mul_(most_rows).nan_to_num_(nan=0.0)
    return known.numpy() if X.is_cpu else known


def _moments(xp: Any, Z: Any, share: Any, shift: Any, room: Any) -> list[np.ndarray]:
    """Compute sums over rows (n, d), by their `share` (n,), in float64.

    Returned are, each (d,), the `shift`, the moved values' mean and their mean square; where some are missing, the
    shares known and missing.
    """
    centred = xp.subtract(Z, shift, out=room)
    # products with a vector: ten times faster than reductions along the columns
    moved, counts = share @ centred, []
    if math.isnan(moved.sum()):  # two counts: a column without missing values has exactly none
        missing, one = xp.isnan(Z), xp.ones_like(share[:1])
        counts = [share @ xp.where(missing, 0 * one, one), share @ xp.where(missing, one, 0 * one)]
        centred = xp.nan_to_num(centred, nan=0.0)
        moved = share @ centred
    found = [shift, moved, share @ xp.square(centred, out=centred), *counts]
    # in float64 only here: a sum in X's dtype would round the mean to a multiple of X's last place
    return [part.astype(np.float64) for part in found] if xp is np else list(to_numpy64(torch.stack(found)))


def weights_of_rows(n: int, subset: np.ndarray | None, weight: np.ndarray | None) -> np.ndarray:
    """Compute the weight (n,) of each row for a model that is trained on a subset, in which a row may be repeated."""
    if subset is None:
        return np.ones(n) if weight is None else weight
    return np.bincount(subset, None if weight is None else weight[subset], n).astype(np.float64)


def _together(
    rows: DenseRows | SparseRows, subsets: list[np.ndarray | None], weights: list[np.ndarray | None]
) -> list[Columns | None]:
    """Measure a few dense rows for all models at once; None for models that have to be looked at one by one.

    A call costs more than what it does, and these are as few for several models as for one.
    """
    n = len(rows)
    if isinstance(rows, SparseRows) or n * rows.n_features > _FEW_VALUES or rows.home.type != "cpu":
        return [None] * len(subsets)
    share = np.array([weights_of_rows(n, *own) for own in zip(subsets, weights, strict=True)])
    mass = share.sum(1)
    if rows.kind is torch.float64:  # nothing is to be cast
        Z, rounding = rows.as_they_are(slice(None)).numpy(), 10 * _LIMITS[np.dtype(np.float64)][0]
    else:
        rows, rounding = _in_own_dtype(rows)
        Z = rows.take(slice(None)).numpy()
    eps, tiny = _LIMITS[Z.dtype]
    with np.errstate(all="ignore"):
        share = (share / mass[:, None]).astype(Z.dtype, copy=False)
        at = share[0] @ Z  # near which the others are, too
        centred = Z - at
        moved = share @ centred
        square = share @ np.square(centred, out=centred)
        at, moved, square = (values.astype(np.float64, copy=False) for values in (at, moved, square))
        near = np.square(moved)
        variance = square - near
        rounded = np.maximum(np.square(eps * at) + tiny / eps, _NEAR * near)
        sure = (variance > rounded) & (variance < np.inf)
        mean, deviation = at + moved, np.sqrt(variance)
    sound = sure.all(1).tolist()
    if not all(sound):  # most are constant, whatever the rows
        some = np.flatnonzero(~sure.all(0))
        same = (Z[:, some] == Z[0, some]).all(0)
        some = some[same]
        mean[:, some], deviation[:, some], sure[:, some] = Z[0, some], 0.0, True
        for model, column in zip(*np.nonzero(~sure), strict=True):  # or in the rows of one model
            values = Z[share[model] > 0, column]
            if (values == values[0]).all():
                mean[model, column], deviation[model, column], sure[model, column] = values[0], 0.0, True
        sound = sure.all(1).tolist()
    zero = np.zeros(Z.shape[1])
    return [
        Columns(zero + total, zero, own_mean, own_deviation, zero, rounding) if is_sound else None
        for total, is_sound, own_mean, own_deviation in zip(mass, sound, mean, deviation, strict=True)
    ]


def _scaled_moments(X: Tensor, shift: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Compute means and deviations of columns (n, d), where no square may overflow or vanish; NaN for unknown ones."""
    known = ~X.isnan()
    unit = _power_of_two(torch.maximum(X.abs().nan_to_num(nan=0.0).amax(0), shift.abs()))
    Z = torch.where(known, X / unit - shift / unit, 0.0)
    spread = _power_of_two(Z.abs().amax(0))
    Z = Z / spread
    weight = share @ known.double()
    mean = share @ Z / weight
    deviation = (share @ torch.where(known, Z - mean, 0.0).square() / weight).sqrt()
    return mean * spread * unit + shift, deviation * spread * unit


def _power_of_two(values: Tensor) -> Tensor:
    """Find the power of two next to each value from below, where numbers have all digits; one for zero."""
    exponent = np.frexp(values.numpy())[1] - 1
    return torch.where(values > 0, torch.from_numpy(np.ldexp(1.0, np.clip(exponent, -1022, 1022))), 1.0)
