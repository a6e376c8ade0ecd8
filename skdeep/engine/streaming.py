"""Batches from the host, sent to a CUDA device while it works on those before them.

A batch is taken, and sent from pinned memory, on a stream of its own, before the step of the last one is launched; the
stream that computes waits for it alone. torch's allocator hands pinned memory out again when it has been read.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from skdeep.engine.batching import Batch


def sent_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches, each when the device has been told to wait for it; the next one is on its way by then."""
    main, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(main)  # for what the batches are made of
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    while True:
        with torch.cuda.stream(side):
            batch = next(batches, None)
            parts = [] if batch is None else _parts_of(batch)
            arrived = side.record_event()
        if waiting is not None:
            main.wait_event(waiting[1])
            yield waiting[0]
        if batch is None:
            return
        for part in parts:
            if part.device.type == "cuda":
                part.record_stream(main)  # whose kernels read it when it is gone from here
        waiting = batch, arrived


def _parts_of(batch: Batch) -> list[Tensor]:
    """List the tensors of a batch that have memory: of sparse rows, three."""
    tensors = [value for value in batch if isinstance(value, Tensor)]
    rows = [value for value in tensors if value.layout is torch.sparse_csr]
    inside = [part for value in rows for part in (value.crow_indices(), value.col_indices(), value.values())]
    return [value for value in tensors if value.layout is torch.strided] + inside
