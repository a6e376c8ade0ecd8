"""Fits whose rows are divided among the processes of torch.distributed."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skdeep.distributed.heartbeats import Heartbeats
from skdeep.engine.group import Group, current, joined

#: Seconds between two looks at what has become of the others, while this process waits for them.
_LOOK = timedelta(seconds=1)


class LostProcessError(RuntimeError):
    """Says which processes have gone, or what has gone wrong in another one."""


class Processes(Group):
    """All processes of torch.distributed, of which one waits for others some seconds at most, `timeout`.

    It counts in how many sums and gathered values it has taken part, `n_messages`, and the bytes given, `n_bytes`.
    """

    def __init__(self, timeout: float):
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._on_device = dist.get_backend() == "nccl"
        # by which the host has to tell things, too
        self._host_group = dist.new_group(backend="gloo") if self._on_device else None
        self._timeout, self._is_broken = timeout, False
        self.n_messages = self.n_bytes = 0
        self._beats = Heartbeats(self.rank, self.size)
        self._beats.start(self.gather)

    def end(self) -> None:
        """Stop giving signs of life."""
        self._beats.end()

    def sum_(self, tensors: list[Tensor]) -> None:
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        there = self._on_device and flat.device.type == "cuda"
        given = flat if there else flat.cpu()
        self._count(given)
        work = dist.all_reduce(given, group=None if there else self._host_group, async_op=True)
        if there:
            work.wait()  # the device does; NCCL's own watch ends what takes too long
        else:
            self._wait(work)
        for tensor, part in zip(tensors, given.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def gather(self, value: Any) -> list[Any]:
        given = torch.frombuffer(bytearray(pickle.dumps(value, protocol=5)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._wait(dist.all_gather(sizes, torch.tensor([len(given)]), group=self._host_group, async_op=True))
        self._count(given)
        most = max(int(size) for size in sizes)
        parts = [torch.empty(most, dtype=torch.uint8) for _ in range(self.size)]
        padded = torch.cat([given, given.new_zeros(most - len(given))])
        self._wait(dist.all_gather(parts, padded, group=self._host_group, async_op=True))
        return [pickle.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def first(self, value: Any) -> Any:
        return self.gather(value if self.rank == 0 else None)[0]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        errors = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, other in enumerate(errors):
            if other is not None:
                raise ValueError(f"In the process of rank {rank}: {other}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._beats.begin()
        try:
            yield
        except LostProcessError:
            self._beats.hear()
            raise
        except BaseException as error:  # where all raise the same, nobody waits; else who waits looks for it
            self._beats.tell(f"in the process of rank {self.rank}, {type(error).__name__}: {error}")
            raise

    def _count(self, given: Tensor) -> None:
        self.n_messages += 1
        self.n_bytes += given.numel() * given.element_size()

    def _wait(self, work: Any) -> None:
        """Wait for others, and look now and then whether they are still there."""
        if self._is_broken:
            raise LostProcessError("A process of this group is lost. Start the processes anew.")
        start = time.monotonic()
        while True:
            try:
                work.wait(_LOOK)
                return
            except RuntimeError as error:
                ended = work.is_completed()  # by an error, that is
                found = self._beats.error()
                late = time.monotonic() - start > self._timeout
                if found is None and not ended and not late:
                    continue
                self._is_broken = True
                raise LostProcessError(self._story(found)) from error

    def _story(self, error: str | None) -> str:
        """Say what has become of the others, and tell those that are still there."""
        ending = "The estimator is as it was before. Start the processes anew, and fit again."
        lost = [] if error is not None else self._beats.lost()
        error = error or self._beats.error()  # another one may know by now
        if error is None and not lost:
            error = f"the other processes have not answered within {self._timeout:g} s, though they are there"
        if error is None:
            who = f"rank {lost[0]} is" if len(lost) == 1 else f"ranks {', '.join(map(str, lost))} are"
            error = f"the process of {who} lost, and gives no signs of life"
        self._beats.tell(error, lost)
        return f"The fit has ended: {error}.\n{ending}"


@contextmanager
def shards(*, timeout: float = 600.0) -> Iterator[Group]:
    r"""Divide the rows of fits among processes: each calls ``fit`` with rows of its own, all get the model of all rows.

    They are the processes of ``torch.distributed``, which has to be initialised, with gloo or NCCL, as under
    ``torchrun``, ``mpirun`` or in Ray Train.

    With r processes that hold rows :math:`X_0, \ldots, X_{r-1}`, the model is the one of a process with all rows in
    this order, up to rounding: gradients, losses and column statistics are sums over rows, which processes add up;
    labels and weights are known to all, so that classes, splits and the order of rows are what they would be there.

    Parameters
    ----------
    timeout : float, default=600
        Seconds that a process waits for others at most. A process that is killed is noticed within some seconds.

    Yields
    ------
    Group
        With ``n_messages`` and ``n_bytes``, what this process has sent to the others.

    Raises
    ------
    RuntimeError
        If torch.distributed is not initialised.
    LostProcessError
        From ``fit``, if a process is lost, or raises an error; it names the rank. Estimators are as they were before.

    Notes
    -----
    All processes call the same methods in the same order: a fit in only one of them waits for the others. Prediction is
    of the rows at hand, as ever. Searches are refused, since their splits would be of one process's rows; so is batch
    normalisation, whose averages are of one batch. Rows may be divided as they come, but for the order; a process may
    have none. Exact solvers of small data fetch the rows of all. Steps in front of a classifier in a Pipeline know
    nothing of other processes: a StandardScaler there would scale the rows of each in its own way. These classifiers
    need none.

    Every process should have one kind of CPU and as many threads: what they compute alike, they have to compute to the
    same bits.

    References
    ----------
    Li et al., *PyTorch Distributed: experiences on accelerating data parallel training*, VLDB 2020.

    Examples
    --------
    In a script that ``torchrun --nproc-per-node 2`` starts; here, as one process:

    >>> import torch.distributed as dist
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.distributed import shards
    >>> X, y = load_iris(return_X_y=True)
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> own = slice(dist.get_rank(), None, dist.get_world_size())
    >>> with shards():
    ...     model = SoftmaxClassifier(random_state=0).fit(X[own], y[own])
    >>> model.n_iter_ == SoftmaxClassifier(random_state=0).fit(X, y).n_iter_
    True
    >>> dist.destroy_process_group()
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "shards() divides fits among the processes of torch.distributed, which is not initialised here. Start the "
            "script by torchrun, and call torch.distributed.init_process_group('gloo') first."
        )
    if current().size > 1:
        raise RuntimeError("shards() cannot be opened inside another shards().")
    group: Group = Group()
    if dist.get_world_size() > 1:
        group = Processes(timeout)
    try:
        with joined(group):
            yield group
    finally:
        if isinstance(group, Processes):
            group.end()
