"""Rows that are not in memory: read by blocks, of which some are kept.

An epoch passes over the blocks in *windows*, a few blocks from all over the data at a time, whose rows are shuffled
together: each block is read in one piece, once. Data of one window is shuffled as a whole, as in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.per_model import to_device
from skdeep.engine.rows import DenseRows, as_tensor, has_room

#: Bytes of a block, about, and of a window at most: what is kept of the data.
BLOCK_BYTES, WINDOW_BYTES = 1 << 20, 1 << 26
#: Blocks that a window has at least, however many rows the source reads at once.
_FEWEST_BLOCKS = 4
#: Rows that are kept of those that are evenly spaced.
_SAMPLE_ROWS = 2048


class StoredArray:
    """An array of which only some blocks of rows are in memory, with as much of NumPy's interface as is needed here.

    The source has a ``shape``, and ``source[start:stop]`` is something that NumPy can convert to the dtype. It reads
    `unit` rows at once, whoever asks for fewer; where rows are best read in the order they have (`in_order`), windows
    are, too.
    """

    def __init__(self, source: Any, dtype: np.dtype, unit: int = 1, in_order: bool = False):
        self.source, self.dtype, self.in_order = source, np.dtype(dtype), in_order
        self.shape = tuple(int(size) for size in source.shape)
        self.ndim = len(self.shape)
        self.names: list[str] | None = getattr(source, "names", None)  # of the columns, if it has some
        n, row_bytes = len(self), max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        units = max(1, round(BLOCK_BYTES / (unit * row_bytes)))
        most = max(1, WINDOW_BYTES // (_FEWEST_BLOCKS * row_bytes))
        self.block_rows = max(1, min(unit * units, most, n))
        self.n_blocks = -(-n // self.block_rows)
        self._n_kept = max(1, min(self.n_blocks, WINDOW_BYTES // (self.block_rows * row_bytes)))
        self.window_rows, self.is_kept_whole = self._n_kept * self.block_rows, self._n_kept == self.n_blocks
        #: Where each block is kept, which one is kept in each place (-1: none), and the place that is next to be taken.
        self._place, self._held, self._next = np.full(self.n_blocks, -1), np.full(self._n_kept, -1), 0
        self._kept = np.empty((0, *self.shape[1:]), self.dtype)
        few = min(n, _SAMPLE_ROWS, max(_FEWEST_BLOCKS, BLOCK_BYTES * 8 // row_bytes))
        self._spaced = np.linspace(0, n - 1, few).astype(np.int64)
        self._sample = np.empty((len(self._spaced), *self.shape[1:]), self.dtype)
        self._is_read = np.zeros(len(self._spaced), dtype=bool)
        #: Whether all values are known to be finite.
        self.finite = self.dtype.kind != "f"

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, n: int, *row: int) -> StoredArray:
        """Make the same array with rows of another shape."""
        width = math.prod(self.shape[1:])
        shaped = _Reshaped(self, (width,) if row == (-1,) else row)
        array = StoredArray(shaped, self.dtype, self.block_rows, self.in_order)
        array.finite = self.finite
        return array

    def at(self, index: np.ndarray) -> StoredArray:
        """Make the array of some rows, which are read when they are asked for."""
        array = StoredArray(_Part(self, index), self.dtype, in_order=self.in_order)
        array.finite = self.finite
        return array

    def parts(self) -> Iterator[np.ndarray]:
        """Read all rows, a block at a time."""
        return (self[start : start + self.block_rows] for start in range(0, len(self), self.block_rows))

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Read rows, through the blocks they are in: at most a window at a time, in the order of the data."""
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        block, within = np.divmod(index, self.block_rows)
        place = self._place[block]
        here = place >= 0
        if len(index) and here.all():
            return self._kept[place * self.block_rows + within]
        found = np.empty((len(index), *self.shape[1:]), self.dtype)
        found[here] = self._kept[place[here] * self.block_rows + within[here]]
        missing = np.unique(block[~here])
        for start in range(0, len(missing), self._n_kept):
            some = missing[start : start + self._n_kept]
            self._load(some)
            now = ~here & (block >= some[0]) & (block <= some[-1])
            found[now] = self._kept[self._place[block[now]] * self.block_rows + within[now]]
        return found

    def _load(self, blocks: np.ndarray) -> None:
        """Read blocks, in the places of those that have been kept longest."""
        size = self.block_rows
        if not len(self._kept):
            self._kept = np.empty((self._n_kept * size, *self.shape[1:]), self.dtype)
        places = (self._next + np.arange(len(blocks))) % self._n_kept
        gone = self._held[places]
        self._place[gone[gone >= 0]] = self._held[places] = -1
        self._next = int(places[-1] + 1) % self._n_kept
        for block, place in zip(blocks.tolist(), places.tolist(), strict=True):
            start, stop = block * size, min((block + 1) * size, len(self))
            part = _plain(self.source[start:stop])
            if part.shape != (stop - start, *self.shape[1:]):
                raise ValueError(
                    f"Rows {start} to {stop} of X have the shape {part.shape}, where its own, {self.shape}, makes one "
                    f"expect {(stop - start, *self.shape[1:])}."
                )
            with np.errstate(over="ignore"):
                self._kept[place * size : place * size + stop - start] = part
            self._place[block], self._held[place] = place, block
            first, last = np.searchsorted(self._spaced, [start, stop])
            self._sample[first:last] = self._kept[place * size + self._spaced[first:last] - start]
            self._is_read[first:last] = True

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Take evenly spaced rows, with their numbers: they have been kept when they were first read."""
        unread = np.flatnonzero(~self._is_read)
        if len(unread):
            self._sample[unread] = self[self._spaced[unread]]
        return self._spaced, self._sample

    def shuffled(self, subset: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
        """Draw an order of the rows in `subset` (None: all) that goes from window to window.

        A window has one block from each of as many parts of the data, so that it is like all of them where these are
        sorted.
        """
        rows = np.arange(len(self)) if subset is None else np.sort(subset)
        n_windows = -(-self.n_blocks // self._n_kept)
        if n_windows == 1:
            return rows[generator.permutation(len(rows))]
        window = np.arange(self.n_blocks) // self._n_kept
        if not self.in_order:
            parts = np.tile(np.arange(n_windows), (-(-self.n_blocks // n_windows), 1))
            window = generator.permuted(parts, axis=1).ravel()[: self.n_blocks]
        start = np.searchsorted(rows, np.arange(self.n_blocks + 1) * self.block_rows)
        order, done = np.empty_like(rows), 0
        for blocks in np.split(np.argsort(window, kind="stable"), np.cumsum(np.bincount(window))[:-1]):
            own = np.concatenate([rows[start[block] : start[block + 1]] for block in blocks.tolist()])
            order[done : done + len(own)] = own[generator.permutation(len(own))]
            done += len(own)
        return order


def _plain(part: Any) -> np.ndarray:
    """Make a plain array of what was read, with NaN where a value is masked."""
    if not isinstance(part, np.ma.MaskedArray):
        return np.asarray(part)
    if part.dtype.kind != "f" and np.ma.getmaskarray(part).any():
        raise ValueError(f"X has masked values of dtype {part.dtype}, which has no NaN for them; store floats.")
    return np.ma.filled(part, np.nan) if part.dtype.kind == "f" else part.data


class _Part:
    """Some rows of an array."""

    def __init__(self, whole: StoredArray, index: np.ndarray):
        self.whole, self.index, self.shape, self.names = whole, index, (len(index), *whole.shape[1:]), whole.names

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.whole[self.index[rows]]


class _Reshaped:
    """The rows of an array in another shape; they are read past the blocks that it keeps."""

    def __init__(self, whole: StoredArray, row: tuple[int, ...]):
        self.source, self.shape, self.names = whole.source, (len(whole), *row), whole.names

    def __getitem__(self, rows: slice) -> np.ndarray:
        part = _plain(self.source[rows])
        return part.reshape(len(part), *self.shape[1:])


class _OfArray(DenseRows):
    """What rows of an array that is not in memory are, wherever they are put: the same, in the same order."""

    def __init__(self, array: StoredArray, device: torch.device, dtype: torch.dtype):
        self.array, self.device, self.dtype, self.row_values = array, device, dtype, array.shape[1]
        self.n_features = self.row_values
        self.kind = as_tensor(np.empty(0, array.dtype)).dtype
        self.home = self.index_device = torch.device("cpu")

    def shuffled(self, subset: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
        return self.array.shuffled(subset, generator)

    def spread(self, subset: np.ndarray | None, n_rows: int) -> Tensor:
        if self.array.is_kept_whole:
            return super().spread(subset, n_rows)
        spaced, found = self.array.sample()
        here = np.ones(len(spaced), dtype=bool) if subset is None else np.isin(spaced, subset)
        if not here.any():
            return super().spread(subset, n_rows)
        return self._convert(as_tensor(found[here]).to(self.home))


class LoadedRows(_OfArray):
    """Rows of an array on a GPU that has room for all of them; parameters are as in `StoredRows`."""

    def __init__(self, array: StoredArray, device: torch.device, dtype: torch.dtype):
        super().__init__(array, device, dtype)
        self.X, done = torch.empty(array.shape, dtype=self.kind, device=device), 0
        self.home = self.index_device = self.X.device
        for part in array.parts():
            self.X[done : done + len(part)] = to_device(as_tensor(part), device)
            done += len(part)


class StoredRows(_OfArray):
    """Rows of an array that is not in memory; batches are wanted on a device, in a dtype."""

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: Tensor | slice) -> Tensor:
        if isinstance(rows, slice):
            return self._convert(as_tensor(self.array[rows]))
        values = self._convert(as_tensor(self.array[rows.flatten().cpu().numpy()]))
        return values if rows.ndim == 1 else values.view(*rows.shape, -1)


def rows_of_stored(array: StoredArray, device: torch.device, dtype: torch.dtype) -> DenseRows:
    """Make a source of batches: on a GPU that has room for all, the rows are read once."""
    if device.type == "cuda" and has_room(device, math.prod(array.shape) * array.dtype.itemsize):
        return LoadedRows(array, device, dtype)
    return StoredRows(array, device, dtype)
