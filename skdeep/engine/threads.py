"""How many threads a piece of work deserves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

#: Multiply-adds per step below which a second thread saves a fifth at most; where the other core is busy, waiting for
#: it at every small product makes a fit up to a hundred times slower.
_SINGLE_THREAD_WORK = 2**23


@contextmanager
def at_most(n_threads: int) -> Iterator[None]:
    """Run the block on no more than so many threads; the setting is put back."""
    threads = torch.get_num_threads()
    if threads <= n_threads:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_for(work: int) -> AbstractContextManager[None]:
    """Run the block on one thread if its steps are so many multiply-adds or fewer."""
    return at_most(torch.get_num_threads() if work > _SINGLE_THREAD_WORK else 1)


def threads_of_worker(n_workers: int) -> int:
    """Compute a worker's share of the machine's cores."""
    return max(1, (os.cpu_count() or 1) // n_workers)
