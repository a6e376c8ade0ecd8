"""Rows that are divided among the processes of a group."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.engine.group import Group
from skdeep.engine.rows import DenseRows, SparseRows, _Rows, as_tensor
from skdeep.engine.stored import StoredRows


@dataclass(frozen=True)
class Shard:
    """The rows of this process among all rows, which are counted in the order of the ranks."""

    group: Group
    starts: np.ndarray  # where the rows of each process begin, and the number of all, (size + 1,)

    @classmethod
    def of(cls, group: Group, n_rows: int) -> Shard:
        """Make the shard of so many rows of this process."""
        return cls(group, np.cumsum([0, *group.gather(n_rows)]))

    @property
    def start(self) -> int:
        """The number of the first own row."""
        return int(self.starts[self.group.rank])

    @property
    def part(self) -> slice:
        """The own rows."""
        return slice(self.start, int(self.starts[self.group.rank + 1]))

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return int(self.starts[-1])

    def own(self, index: np.ndarray) -> np.ndarray:
        """Find the positions in an index at which there are own rows."""
        part = self.part
        return np.flatnonzero((index >= part.start) & (index < part.stop))

    def assembled(self, index: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Put together what the processes have for their rows of an index, each in its order: the same everywhere."""
        parts = self.group.gather(part)
        rank = np.searchsorted(self.starts, index, side="right")  # that has each row, counted from one
        place = np.argsort(np.argsort(rank, kind="stable"))
        if sparse.issparse(part):
            return sparse.csr_array(sparse.vstack(parts))[place]
        return np.concatenate(parts)[place]

    def matrix(self, source: Any, index: np.ndarray) -> Any:
        """Fetch rows from wherever they are, in their own dtype; `source` holds the own ones."""
        own = index[self.own(index)] - self.start
        if isinstance(source, Tensor):
            source = source.detach().cpu().numpy()
        return self.assembled(index, source[own])


class SharedRows(_Rows):
    """Rows of all processes, of which `local` are the ones here (where there are none, some that count for nothing).

    To take them is right, and slow: they are fetched from `source`, what they are made of. Who passes over all rows
    passes over `local` ones, and adds up.
    """

    def __init__(self, local: DenseRows | SparseRows, source: Any, shard: Shard):
        self._source, self.shard = source, shard
        self._put(local)
        #: Of the rows of all processes: what is decided by it is decided alike.
        self.row_values = max(shard.group.gather(local.row_values))

    def _put(self, local: DenseRows | SparseRows) -> None:
        self._local = local
        self.device, self.dtype, self.frame, self.scratch = local.device, local.dtype, local.frame, local.scratch
        self.home, self.index_device, self.n_features = local.home, local.index_device, local.n_features

    def __len__(self) -> int:
        return self.shard.n_rows

    @property
    def local(self) -> DenseRows | SparseRows:
        rows = copy.copy(self._local)
        rows.device, rows.dtype, rows.frame, rows.scratch = self.device, self.dtype, self.frame, self.scratch
        return rows

    def through(self, change: Callable[[Any], Any]) -> SharedRows:
        rows = copy.copy(self)
        rows._put(change(self.local))
        return rows

    def shuffled(self, subset: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
        if not isinstance(self._local, StoredRows):
            return super().shuffled(subset, generator)
        # each process goes through its own as they are best read, and a batch has of each in proportion
        seed, index = int(generator.integers(2**63)), np.arange(len(self)) if subset is None else subset
        own = index[self.shard.own(index)] - self.shard.start
        drawn = self._local.shuffled(own, np.random.default_rng([seed, self.shard.group.rank])) + self.shard.start
        orders = self.shard.group.gather(drawn)
        places = np.concatenate([(np.arange(len(order)) + 0.5) / max(1, len(order)) for order in orders])
        return np.concatenate(orders)[np.argsort(places, kind="stable")]

    def take(self, rows: Tensor | slice) -> Tensor:
        """Take rows, of whichever process; see `DenseRows.take` and `SparseRows.take`."""
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.cpu().numpy()
        found, tensor = self.shard.matrix(self._source, index.reshape(-1)), (self.device, self.dtype)
        fetched = SparseRows(found, *tensor) if sparse.issparse(found) else DenseRows(as_tensor(found), *tensor)
        fetched.frame = self.frame
        return fetched.take(torch.arange(index.size).view(index.shape))


#: Rows of any kind.
AnyRows: TypeAlias = DenseRows | SparseRows | SharedRows
