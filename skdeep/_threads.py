"""How many threads a piece of work deserves."""

from __future__ import annotations

from contextlib import contextmanager

import torch

#: Multiply-adds per step below which a second thread saves next to nothing; where the other core is busy, waiting for
#: it at every small product makes a fit up to a hundred times slower.
_SINGLE_THREAD_WORK = 2**20


@contextmanager
def threads_for(work: int):
    """Run the block on one thread if its steps are so many multiply-adds or fewer; the setting is put back."""
    threads = torch.get_num_threads()
    if work > _SINGLE_THREAD_WORK or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
