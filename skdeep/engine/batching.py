"""Which rows, in which order, on which device: dense, sparse or memory-mapped data as mini-batches.

Data goes to the device once if it fits (else a batch at a time), in the dtype it came in; batches are cast to the
compute dtype. Rows are gathered by index: nothing is copied or shuffled as a whole. A batch too large to be gathered
at once is passed over in parts.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.compat.scipy import csr_row_index
from skdeep.engine.frame import Frame
from skdeep.engine.per_model import csr_tensor, index_of, numbered, to_device
from skdeep.engine.scratch import Scratch

# Share of a device's free memory that resident training data may take.
_RESIDENT_SHARE = 0.5

#: Values (of a batch or of hidden units) computed with at once: bounds the memory of all that passes over rows.
MAX_VALUES = 1 << 22

#: Values of the batches that are taken at once: few enough to be still in a core's own memory when they are needed.
_AT_ONCE = 1 << 15


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


def _home(values: Tensor, device: torch.device, n_bytes: int) -> torch.device:
    """Choose where data stays in training: on the device if it fits and can be there as it is, else with the host."""
    if device.type == "mps" and values.dtype is torch.float64:  # rounded to float32, it could not be centred any more
        return torch.device("cpu")
    fits = device.type != "cuda" or n_bytes <= _RESIDENT_SHARE * free_memory(device)
    return device if fits else torch.device("cpu")


class _Rows:
    """What both kinds of rows share.

    Attributes
    ----------
    frame : Frame or None
        Change of variables before the cast to the compute dtype, where that would lose something of the columns.
    scratch : Scratch or None
        What dense rows are taken into, if any.
    """

    frame: Frame | None = None
    scratch: Scratch | None = None
    device: torch.device
    dtype: torch.dtype

    @property
    def home(self) -> torch.device:
        """Device on which the data lies: if not where batches are wanted, it is streamed."""
        raise NotImplementedError

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
    """Rows of a dense matrix.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Any real dtype, on any device; rows are gathered faster if it is contiguous.
    device, dtype : torch.device, torch.dtype
        Where and in which precision batches are wanted.
    """

    def __init__(self, X: Tensor, device: torch.device, dtype: torch.dtype):
        self.X = X.to(_home(X, device, X.numel() * X.element_size()))
        self.device, self.dtype = device, dtype

    def __len__(self) -> int:
        return len(self.X)

    @property
    def home(self) -> torch.device:
        return self.X.device

    @property
    def _streamed(self) -> bool:
        return self.X.device.type != self.device.type

    @property
    def n_features(self) -> int:
        return self.X.shape[1]

    @property
    def row_values(self) -> int:
        """Values of a row."""
        return self.n_features

    index_device = home

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

    Parameters
    ----------
    X : scipy.sparse CSR array or matrix of shape (n, d)
    device, dtype : torch.device, torch.dtype
        Where and in which precision batches are wanted.
    """

    def __init__(self, X: sparse.csr_array, device: torch.device, dtype: torch.dtype):
        values = as_tensor(X.data)
        home = _home(values, device, X.indices.nbytes + X.data.nbytes)
        #: With the host, which has to know how many values a batch has.
        self.start = as_tensor(X.indptr.astype(X.indices.dtype, copy=False))
        self.columns = as_tensor(X.indices).to(home)  # SciPy's 32 bits where they do: half the memory to read
        self.values = values.to(home)
        self.n_features = X.shape[1]
        self.device, self.dtype = device, dtype

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def home(self) -> torch.device:
        return self.values.device

    @property
    def _dense(self) -> bool:
        return self.device.type == "mps"

    @property
    def row_values(self) -> int:
        """Values of a row, on average."""
        return self.n_features if self._dense else 1 + len(self.values) // max(1, len(self))

    @property
    def index_device(self) -> torch.device:
        """Device on which indices of rows are best, though `take` has them from anywhere."""
        return self.start.device

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


class Batch(NamedTuple):
    """A mini-batch for all models of a stack, or for some of them.

    ``target`` is (1 or K, B, ...), ``weight`` (1 or K, B) or None, ``size`` the number of rows: B, or one number per
    model where they differ (rows beyond it have no weight), ``models`` the indices of the models it is for (None: all).
    """

    X: Tensor | LargeRows
    target: Tensor
    weight: Tensor | None
    size: int | np.ndarray
    models: np.ndarray | None

    def parts(self, row_size: int, whole: bool = False) -> Iterable[Batch]:
        """Cut the batch into parts of bounded size, where a row stands for `row_size` values; into one part if `whole`.

        Each part has the `size` of the whole batch, so that their data terms add up to the batch's.
        """
        most = max(1, MAX_VALUES // row_size)
        if isinstance(self.X, LargeRows):
            return [self._replace(X=self.X.gather())] if whole else self.cut(min(most, self.X.max_rows), self.size)
        if whole or self.target.shape[1] <= most or self.X.layout is torch.sparse_csr:
            return [self]
        return self.cut(most, self.size)

    def cut(self, max_rows: int, of_size: int | np.ndarray | None = None) -> Iterator[Batch]:
        """Cut the batch into batches of so many rows, or into its parts, if their size is given."""
        n_rows = self.target.shape[1]
        for start in range(0, n_rows, max_rows):
            n = min(max_rows, n_rows - start)
            rows = (
                self.X.take(slice(start, start + n)) if isinstance(self.X, LargeRows) else self.X.narrow(-2, start, n)
            )
            weight = None if self.weight is None else self.weight.narrow(1, start, n)
            yield Batch(rows, self.target.narrow(1, start, n), weight, n if of_size is None else of_size, self.models)


class Batches:
    """The mini-batches of each epoch, for a stack of K models.

    Models that see the same rows in the same order (one shared generator) share their batches. Where each has its own
    rows, every model still sees exactly the batches it would see alone: shorter ones are filled up with rows of no
    weight, and a model whose epoch is over takes no part in the last batches.

    Parameters
    ----------
    rows : DenseRows or SparseRows
        The data.
    target : Tensor of shape (n,) or (n, C)
        Class codes (int64) or indicators (uint8), on the device.
    weight : Tensor of shape (n,) or (K, n), or None
        Sample weights, the same for all models or one row per model.
    subset : ndarray, list of ndarray, or None
        Indices of the rows to train on: shared by all models, each model's own, or None for all rows.
    generators : list of numpy.random.Generator
        One per model, for the order; the same object where models share rows and order.
    batch_size : int
    shuffle : bool
    """

    def __init__(
        self,
        rows: DenseRows | SparseRows,
        target: Tensor,
        weight: Tensor | None,
        subset: np.ndarray | list[np.ndarray] | None,
        generators: list[np.random.Generator],
        batch_size: int,
        shuffle: bool = True,
    ):
        self.rows = rows if rows.scratch is not None else rows.in_scratch()
        self.target, self.weight, self.subset = target, weight, subset
        self.generators, self.batch_size, self.shuffle = generators, batch_size, shuffle
        self.shared = not isinstance(subset, list) and all(g is generators[0] for g in generators)
        subsets = subset if isinstance(subset, list) else [subset] * len(generators)
        self.n_rows = np.array([len(rows) if s is None else len(s) for s in subsets])
        #: Batches per epoch of each model.
        self.n_batches = -(-self.n_rows // batch_size)
        self._full: Batch | None = None
        # several small batches: their steps take as long as their calls
        n_at_once = _AT_ONCE // (batch_size * rows.row_values) if isinstance(rows, DenseRows) else 1
        self._rows_at_once = batch_size * max(1, n_at_once)

    def select(self, models: np.ndarray) -> Batches:
        """Select the batches of some of the models."""
        subset = [self.subset[m] for m in models] if isinstance(self.subset, list) else self.subset
        generators = [self.generators[m] for m in models]
        weight = self._weight_of(models)
        return Batches(self.rows, self.target, weight, subset, generators, self.batch_size, self.shuffle)

    def epoch(self) -> Iterator[Batch]:
        """Yield the batches of one epoch; the rows of each are overwritten by the next one's."""
        return self._shared_epoch() if self.shared else self._own_epoch()

    def _shared_epoch(self) -> Iterator[Batch]:
        n = int(self.n_rows[0])
        if self._full is not None:
            return (yield self._full)
        rows = everything = cast("Tensor | slice", slice(0, n))
        if self.subset is not None or (self.shuffle and n > self.batch_size):
            rows, everything = self._placed(self._order(0))
        target = self.target[everything] if isinstance(everything, slice) else self.target.index_select(0, everything)
        target = target.unsqueeze(0)
        weight = None if self.weight is None else torch.atleast_2d(self.weight[..., everything])
        if n <= self.batch_size:  # a batch of all rows has no order to draw, and stays as it is
            X = self._values(rows)
            X = X.clone() if isinstance(X, Tensor) else X  # out of the scratch memory
            self._full = Batch(X, self._as_numbers(target), weight, n, None)
            yield self._full
            return
        for start in range(0, n, self._rows_at_once):
            size = min(self._rows_at_once, n - start)
            X = self._values(rows.narrow(0, start, size) if isinstance(rows, Tensor) else slice(start, start + size))
            of_rows = None if weight is None else weight.narrow(1, start, size)
            some = Batch(X, self._as_numbers(target.narrow(1, start, size)), of_rows, size, None)
            yield from [some] if size <= self.batch_size else some.cut(self.batch_size)

    def _own_epoch(self) -> Iterator[Batch]:
        subsets = self.subset if isinstance(self.subset, list) else [self.subset] * len(self.generators)
        first, number = numbered(self.generators, subsets)  # models that share both share the order
        drawn = [self._order(model) for model in first]
        orders = [drawn[n] for n in number]
        for start in range(0, int(self.n_rows.max()), self.batch_size):
            sizes = np.clip(self.n_rows - start, 0, self.batch_size)
            yield self._own_batch(orders, start, sizes)

    def _order(self, model: int) -> np.ndarray:
        """Draw the order of a model's rows in the coming epoch."""
        n = int(self.n_rows[model])
        draws = self.shuffle and n > self.batch_size
        order = self.generators[model].permutation(n) if draws else np.arange(n)
        subset = self.subset[model] if isinstance(self.subset, list) else self.subset
        return order if subset is None else subset[order]

    def _weight_of(self, models: np.ndarray) -> Tensor | None:
        if self.weight is None or self.weight.ndim == 1 or len(models) == len(self.weight):
            return self.weight
        return self.weight[index_of(models, self.weight)]

    def _placed(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Put indices of rows where the rows want them, and where the targets are."""
        index = torch.from_numpy(rows)
        of_targets = to_device(index, self.target.device)
        return index if self.rows.index_device.type == "cpu" else of_targets, of_targets

    def _as_numbers(self, target: Tensor) -> Tensor:
        """Cast indicators to the dtype of the scores; codes are returned as they are."""
        return target if target.dtype is torch.int64 else target.to(self.rows.dtype)

    def _values(self, rows: Tensor | slice) -> Tensor | LargeRows:
        n = rows.numel() if isinstance(rows, Tensor) else len(range(*rows.indices(len(self.rows))))
        return self.rows.take(rows) if n * self.rows.row_values <= MAX_VALUES else LargeRows(self.rows, rows)

    def _own_batch(self, orders: list[np.ndarray], start: int, sizes: np.ndarray) -> Batch:
        models = np.flatnonzero(sizes)
        sizes = sizes[models]
        index = np.empty((len(models), int(sizes.max())), dtype=np.int64)
        for i, m in enumerate(models):
            index[i] = orders[m][0]  # fill up with a row of its own: no other row may touch a model
            index[i, : sizes[i]] = orders[m][start : start + sizes[i]]
        rows, of_targets = self._placed(index)
        weight = self._weight_of(models)
        if weight is not None:
            weight = weight[of_targets] if weight.ndim == 1 else weight.gather(1, of_targets)
        if sizes.min() < sizes.max():
            of_model = torch.from_numpy(np.arange(index.shape[1]) < sizes[:, None])
            mask = to_device(of_model, self.target.device, self.rows.dtype)
            weight = mask if weight is None else weight * mask
        everyone = len(models) == len(self.generators)
        target = self._as_numbers(self.target[of_targets])
        return Batch(self._values(rows), target, weight, sizes, None if everyone else models)
