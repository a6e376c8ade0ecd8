"""Training steps that are recorded once on a CUDA device, and replayed: no host is in their loop.

Launched one by one, the kernels of a small step wait for the host that launches them. A CUDA graph launches them at
once, with the arguments that they had when it was recorded; so all that differs from step to step is a row of a table
on the device: indices of the batch, seeds, and what the optimizer has laid out. A counter beside it says which.

The step is the one of the training loop. Steps for which some model has no full batch, and all steps of what cannot be
recorded (rows that are sparse or streamed, modules of users, observers of batches), are left to that loop.

https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.torch import DispatchMode
from skdeep.engine.batching import Batch, Batches, Draw
from skdeep.engine.networks import Network
from skdeep.engine.per_model import to_device
from skdeep.engine.rows import DenseRows

#: From a batch, and what the optimizer has laid out for it, to the losses of its rows, (K, B).
Step = Callable[[Batch, Tensor], Tensor]


class _Kept(DispatchMode):
    """Keeps what operations read that none of them has made: a graph reads it for as long as it is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._made: dict[int, weakref.ref[Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        for value in _tensors((*args, *(kwargs or {}).values())):
            made = self._made.get(id(value))
            if made is None or made() is not value:
                self.tensors.append(value)
        result = func(*args, **(kwargs or {}))
        self._made |= {id(value): weakref.ref(value) for value in _tensors((result,))}
        return result


def _tensors(values: Iterable) -> list[Tensor]:
    """List the tensors among values, and in lists among them."""
    parts = [part for value in values for part in (value if isinstance(value, list | tuple) else (value,))]
    return [part for part in parts if isinstance(part, Tensor)]


class Captured:
    """The steps ``step(batch, numbers)`` of each epoch in which all models of a stack have a full batch."""

    def __init__(self, batches: Batches, step: Step):
        self.batches, self._step = batches, step
        #: Steps of an epoch in which all models have a full batch.
        self.n_steps = int(batches.n_rows.min()) // batches.batch_size
        self._n_orders = 1 if batches.shared else len(batches.generators) // batches.n_alike
        self._n_seeds = (1 if batches.shared else len(batches.generators)) if batches.draws else 0
        self._form: Hashable = None
        self._is_warm, self._can_record, self._graph = False, True, None
        self._kept: list[Tensor] = []
        self._table = self._at = self._losses = torch.empty(0)

    @classmethod
    def of(cls, batches: Batches, network: Network, step: Step) -> Captured | None:
        """Return what can be replayed; None if nothing can."""
        rows, device = batches.rows, network.params[0].device
        resident = isinstance(rows, DenseRows) and rows.home == device
        if device.type != "cuda" or not resident or not network.is_static:
            return None
        captured = cls(batches, step)
        return captured if captured.n_steps else None

    def epoch(self, drawn: Draw, numbers: np.ndarray, form: Hashable) -> Tensor:
        """Do the steps of an epoch; return the losses of their rows, (T, K, B), in memory that is kept.

        Numbers (T, m, K) are what the optimizer has laid out, in the dtype of the parameters. The `form` is what the
        host decides by, beside the shapes: for another one, a step is recorded anew.
        """
        if form != self._form:
            self._form, self._is_warm, self._graph = form, False, None
        self._load(drawn, numbers[: self.n_steps])
        for _ in range(self.n_steps):
            if self._graph is None and self._is_warm and self._can_record:
                self._graph = self._record(numbers)
                self._can_record = self._graph is not None
            if self._graph is None:
                self._train(numbers)  # which makes, for the first time, what is made once
                self._is_warm = True
            else:
                self._graph.replay()
        return self._losses

    def _load(self, drawn: Draw, numbers: np.ndarray) -> None:
        """Send the table of an epoch: a row for each step, of 64-bit integers, which numbers are packed into."""
        n, size = self.n_steps, self.batches.batch_size
        orders = [order[: n * size].reshape(n, size) for order in drawn.orders[:: self.batches.n_alike]]
        seeds = [] if drawn.seeds is None else [drawn.seeds[:, :n].T]
        flat = numbers.reshape(n, -1)
        packed = np.zeros((n, -(-flat.shape[1] * flat.itemsize // 8)), dtype=np.int64)
        packed.view(flat.dtype)[:, : flat.shape[1]] = flat
        device = self.batches.target.device
        table = to_device(torch.from_numpy(np.concatenate([*orders, *seeds, packed], axis=1)), device)
        if self._table.shape == table.shape:
            self._table.copy_(table)
            self._at.zero_()
        else:
            self._table, self._at = table, torch.zeros(1, dtype=torch.int64, device=device)

    def _train(self, numbers: np.ndarray) -> None:
        """Train by the step that the counter is at, and count it; of the `numbers`, the form is known."""
        form, dtype = numbers.shape[1:], torch.from_numpy(numbers).dtype
        row = self._table.index_select(0, self._at)[0]
        n_indices = self._n_orders * self.batches.batch_size
        index, seeds, packed = row.split([n_indices, self._n_seeds, len(row) - n_indices - self._n_seeds])
        own = packed.view(dtype)[: form[0] * form[1]].view(form)
        index = index.view(self._n_orders, -1)
        batch = self.batches.of_index(index, index)
        losses = self._step(batch._replace(seeds=seeds if self._n_seeds else None), own)
        if self._losses.shape[1:] != losses.shape:
            self._losses = losses.new_empty(self.n_steps, *losses.shape)
        self._losses.index_copy_(0, self._at, losses.unsqueeze(0))
        self._at.add_(1)

    def _record(self, numbers: np.ndarray) -> Any:
        """Record a step, which is not done; return None where that is not possible."""
        try:
            graph = torch.cuda.CUDAGraph()
        except RuntimeError:  # a build of torch without them
            return None
        try:
            with torch.cuda.graph(graph), _Kept() as kept:
                self._train(numbers)
        except RuntimeError as error:
            warnings.warn(f"The training steps run one by one, for CUDA could not record one: {error}", stacklevel=2)
            return None
        self._kept = kept.tensors
        return graph
