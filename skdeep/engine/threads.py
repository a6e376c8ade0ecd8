"""How many threads a piece of work deserves, of PyTorch and of NumPy's and SciPy's linear algebra alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

#: Multiply-adds per step below which a second thread saves a fifth at most; where the other core is busy, waiting for
#: it at every small product makes a fit up to a hundred times slower.
_SINGLE_THREAD_WORK = 2**23


@cache
def _algebra() -> ThreadpoolController:
    """Find the libraries of linear algebra that this process has loaded, once: it takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def torch_at_most(n_threads: int) -> Iterator[None]:
    """Run PyTorch on no more than so many threads; the setting is put back."""
    threads = torch.get_num_threads()
    if threads <= n_threads:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def at_most(n_threads: int) -> Iterator[None]:
    """Run the block on no more than so many threads; settings are put back."""
    used = [library.num_threads for library in _algebra().lib_controllers]
    if max(used, default=0) <= n_threads:
        with torch_at_most(n_threads):
            yield
        return
    # of the process: where several of its threads ask for limits at a time, the first one's holds
    with torch_at_most(n_threads), _algebra().limit(limits=min([n_threads, *used])):
        yield


def _deserved(work: int) -> int:
    return torch.get_num_threads() if work > _SINGLE_THREAD_WORK else 1


def threads_for(work: int) -> AbstractContextManager[None]:
    """Run the block on one thread if its steps are so many multiply-adds or fewer."""
    return at_most(_deserved(work))


def torch_threads_for(work: int) -> AbstractContextManager[None]:
    """Run what only PyTorch computes on one thread if its steps are so many multiply-adds or fewer."""
    return torch_at_most(_deserved(work))
