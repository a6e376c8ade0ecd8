"""Rows of dense, sparse or memory-mapped data, and where they lie.

Data goes to the device once if it fits (else a batch at a time), in the dtype it came in; batches are cast to the
compute dtype. Rows are gathered by index: nothing is copied or shuffled as a whole.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.compat.scipy import csr_row_index
from skdeep.engine.frame import Frame
from skdeep.engine.per_model import csr_tensor, to_device
from skdeep.engine.scratch import Scratch

# Share of a device's free memory that resident training data may take.
_RESIDENT_SHARE = 0.5

#: Values (of a batch or of hidden units) computed with at once: bounds the memory of all that passes over rows.
MAX_VALUES = 1 << 22


def as_tensor(array: np.ndarray) -> Tensor:
    """Make a tensor that shares the array's memory where torch can (native byte order, positive strides)."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = array.copy(order="C")  # also of an axis of length one, which counts as contiguous
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():  # torch warns that writing would be undefined; training data is only read
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def free_memory(device: torch.device) -> int:
    """Count the free bytes of a GPU, including what torch keeps for the tensors to come."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def has_room(device: torch.device, n_bytes: int) -> bool:
    """Tell whether a GPU can keep so much of data, beside what it computes."""
    return n_bytes <= _RESIDENT_SHARE * free_memory(device)


def _home(values: Tensor, device: torch.device, n_bytes: int) -> torch.device:
    """Choose where data stays in training: on the device if it fits and can be there as it is, else with the host."""
    if device.type == "mps" and values.dtype is torch.float64:  # rounded to float32, it could not be centred any more
        return torch.device("cpu")
    fits = device.type != "cuda" or has_room(device, n_bytes)
    return device if fits else torch.device("cpu")


class _Rows:
    """What both kinds of rows share."""

    #: Change of variables before the cast to the compute dtype, where that would lose something of the columns.
    frame: Frame | None = None
    scratch: Scratch | None = None  # what dense rows are taken into, if any
    device: torch.device  # where batches are wanted, and in which dtype
    dtype: torch.dtype
    home: torch.device  # where the data lies: if elsewhere, it is streamed
    kind: torch.dtype  # of the data
    index_device: torch.device  # where indices of rows are best, though `take` has them from anywhere
    n_features: int

    def __len__(self) -> int:
        raise NotImplementedError

    def take(self, rows: Tensor | slice) -> Tensor:
        """Take rows by index (B,) or (K, B), or a slice; see the kinds of rows."""
        raise NotImplementedError

    @property
    def local(self) -> Any:
        """The rows that are here: all, unless they are divided among processes (`shards.py`)."""
        return self

    def through(self, change: Callable[[Any], Any]) -> Any:
        """Change the rows that are here."""
        return change(self)

    def shuffled(self, subset: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
        """Draw an order of the rows in `subset` (None: all)."""
        order = generator.permutation(len(self) if subset is None else len(subset))
        return order if subset is None else subset[order]

    def spread(self, subset: np.ndarray | None, n_rows: int) -> Tensor:
        """Take so many of the rows in `subset` (None: all) at most, evenly spaced."""
        n = len(self) if subset is None else len(subset)
        picked = np.linspace(0, n - 1, min(n, n_rows)).astype(np.int64)
        return self.take(torch.from_numpy(picked if subset is None else subset[picked]))

    def exactly(self, dtype: torch.dtype, frame: Frame | None = None) -> Self:
        """Make the same rows in another dtype and frame."""
        rows = copy.copy(self)
        rows.dtype, rows.frame, rows.scratch = dtype, frame, None
        return rows

    def in_scratch(self) -> Self:
        """Make the same rows, taken into memory that is kept: what `take` returns is overwritten by its next call.

        For who is done with each batch before the next one.
        """
        rows = self.exactly(self.dtype, self.frame)
        rows.scratch = Scratch()
        return rows

    def at_home(self, dtype: torch.dtype) -> Self:
        """Make the same rows as they are, in another dtype, where the data lies."""
        rows = self.exactly(dtype)
        rows.device = self.home
        return rows


class DenseRows(_Rows):
    """Rows of a dense matrix (n, d), of any real dtype, on any device; batches are wanted on another one, in a dtype.

    Rows are gathered faster if it is contiguous.
    """

    def __init__(self, X: Tensor, device: torch.device, dtype: torch.dtype):
        self.X = X.to(_home(X, device, X.numel() * X.element_size()))
        self.device, self.dtype, self.kind, self.home = device, dtype, X.dtype, self.X.device
        self.n_features = self.row_values = X.shape[1]
        self.index_device = self.home

    def __len__(self) -> int:
        return self.X.shape[0]  # a torch tensor takes ten times as long to tell its length

    @property
    def _streamed(self) -> bool:
        return self.home.type != self.device.type

    def has_room_for_all(self, n_columns: int) -> bool:
        """Tell whether all rows can be kept a second time, as so many columns of the dtype that is wanted.

        On the CPU if they are few, on an accelerator if there is memory; not where they come from another device.
        """
        n_values = len(self) * n_columns
        if self._streamed or self.device.type != "cuda":
            return not self._streamed and n_values <= MAX_VALUES
        return has_room(self.device, 2 * n_values * self.dtype.itemsize)

    def changed(self, change: Callable[[Tensor], Tensor]) -> DenseRows:
        """Make rows of all of these, changed, in the dtype that is wanted."""
        X = self.exactly(self.dtype, self.frame).take(slice(0, len(self)))
        return DenseRows(change(X), self.device, self.dtype)

    def take(self, rows: Tensor | slice) -> Tensor:
        """Take rows by index (B,) or (K, B), or a slice: ``(B, d)`` or ``(K, B, d)``; see `in_scratch`."""
        if isinstance(rows, slice):
            if self.X.stride(0) == 1 and self.frame is None:  # column-major: converted in the order of its memory
                return self._convert(self.X[rows].t()).t()
            return self._convert(self.X[rows])
        values = self._convert(self._gather(to_device(rows if rows.ndim == 1 else rows.flatten(), self.X.device)))
        return values if rows.ndim == 1 else values.view(*rows.shape, -1)

    def _gather(self, rows: Tensor) -> Tensor:
        if self.scratch is None or self._streamed:  # where the last batch may still be on its way
            return torch.index_select(self.X, 0, rows)
        room = self.scratch.empty("gathered", (len(rows), self.n_features), self.X)
        return torch.index_select(self.X, 0, rows, out=room)

    def _convert(self, values: Tensor) -> Tensor:
        if self.frame is not None:
            values = self.frame.rows(values)
        if self._streamed:  # as whichever is smaller, bytes of an image or rounded floats
            smaller = min(values.dtype, self.dtype, key=lambda dtype: dtype.itemsize)
            return to_device(values, self.device, smaller).to(self.dtype)
        if values.dtype is self.dtype:
            return values
        if self.scratch is None or self.device.type != "cpu":
            return values.to(self.dtype)
        return self.scratch.empty("converted", values.shape, values, self.dtype).copy_(values)


class SparseRows(_Rows):
    """Rows of a CSR matrix; batches are CSR tensors, block-diagonal where each model has its own rows.

    On MPS, which has no sparse products, batches are dense.
    """

    def __init__(self, X: sparse.csr_array, device: torch.device, dtype: torch.dtype):
        values = as_tensor(X.data)
        home = _home(values, device, X.indices.nbytes + X.data.nbytes)
        #: With the host, which has to know how many values a batch has.
        self.start = as_tensor(X.indptr.astype(X.indices.dtype, copy=False))
        self.columns = as_tensor(X.indices).to(home)  # SciPy's 32 bits where they do: half the memory to read
        self.values = values.to(home)
        self.device, self.dtype, self.kind, self.n_features = device, dtype, values.dtype, X.shape[1]
        self.home, self.index_device = home, self.start.device

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def _dense(self) -> bool:
        return self.device.type == "mps"

    @property
    def row_values(self) -> int:
        """Values of a row, on average."""
        return self.n_features if self._dense else 1 + len(self.values) // max(1, len(self))

    def take(self, rows: Tensor | slice) -> Tensor:
        """Take rows by index (B,) or (K, B), or a slice, as one CSR tensor; shapes: `skdeep.engine.networks`."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)), device="cpu")
        n_blocks = len(rows) if rows.ndim == 2 else 1
        flat = rows.reshape(-1).cpu()
        first = self.start.index_select(0, flat)
        length = self.start.index_select(0, flat + 1) - first
        end = length.cumsum(0, dtype=length.dtype)
        start = torch.cat([end.new_zeros(1), end])
        size = int(end[-1])
        if self.values.device.type == "cpu":
            columns, values = self.columns.new_empty(size), self.values.new_empty(size)
            parts = (flat.to(self.start.dtype), self.start, self.columns, self.values, columns, values)
            csr_row_index(len(flat), *(part.numpy() for part in parts))
            values = values if self.frame is None else self.frame.values(values, columns)
            values = values.to(self.dtype)  # before the move: not every device has float64
            columns, values, start = (to_device(part, self.device) for part in (columns, values, start))
        else:
            moved = to_device(torch.cat([start, first - start[:-1]]), self.device)  # in one piece
            start, ahead = moved.split([len(flat) + 1, len(flat)])
            position = ahead.index_select(0, self._row_of_values(start, size))
            position += torch.arange(size, device=self.device)
            columns, values = self.columns.index_select(0, position), self.values.index_select(0, position)
            values = values if self.frame is None else self.frame.values(values, columns)
        values = values.to(self.dtype)
        if self._dense:
            place = self._row_of_values(start, size).long() * self.n_features + columns
            matrix = values.new_zeros(len(flat) * self.n_features).scatter_(0, place, values)
            return matrix.view(*rows.shape, self.n_features)
        if n_blocks > 1:
            block = self._row_of_values(start, size) // rows.shape[1]
            columns = columns + block.long() * self.n_features
        return csr_tensor(start, columns, values, (len(flat), n_blocks * self.n_features))

    def _row_of_values(self, start: Tensor, size: int) -> Tensor:
        """Tell in which row of a batch each of its `size` values is; the size spares the host a wait for the sum."""
        return torch.repeat_interleave(start.diff(), output_size=size)


@dataclass(frozen=True)
class LargeRows:
    """Rows of a batch that is too large to be gathered at once."""

    rows: DenseRows | SparseRows
    index: Tensor | slice

    @property
    def max_rows(self) -> int:
        """Number of rows (of each model) to gather at once."""
        n_blocks = len(self.index) if isinstance(self.index, Tensor) and self.index.ndim == 2 else 1
        return max(1, MAX_VALUES // (n_blocks * self.rows.row_values))

    def take(self, part: slice) -> Tensor:
        """Take some of the rows."""
        if isinstance(self.index, Tensor):
            return self.rows.take(self.index[..., part])
        start, stop, _ = self.index.indices(len(self.rows))
        return self.rows.take(slice(start + part.start, min(start + part.stop, stop)))

    def gather(self) -> Tensor:
        """Take all of the rows at once, where nothing less will do."""
        return self.rows.take(self.index)
