"""Who of some processes is still there, and what went wrong elsewhere: told through a store beside the group."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

#: Seconds between two signs of life, and without one until a process is taken for lost.
_BEAT, _SILENCE = 0.5, 4.0
#: Seconds that a store may take to answer; it may be lost with the first process, which keeps it.
_ANSWER = timedelta(seconds=5)


def _store(host: str, port: int, keeps: bool) -> dist.TCPStore:
    return dist.TCPStore(host, port, is_master=keeps, timeout=_ANSWER, wait_for_workers=False)


class Heartbeats:
    """Signs of life of several processes; before they `start`, nothing is known of others."""

    def __init__(self, rank: int, size: int):
        self.rank, self.size, self._work = rank, size, 0
        self._store: Any = None

    def start(self, gather: Callable[[Any], list[Any]]) -> None:
        """Begin to give signs; ``gather(value)`` lists the value of each process."""
        host = os.environ.get("MASTER_ADDR") or socket.gethostname()
        master = _store(host, 0, keeps=True) if self.rank == 0 else None
        (address, *_) = gather(None if master is None else (host, master.port))
        # a client for each thread: what one waits for holds up the other
        self._master = master
        host, port = address
        store, self._own = (_store(host, port, keeps=False) for _ in range(2))
        self._ended = threading.Event()
        self._beat(0)
        gather(None)  # from here on, all have given one
        self._store = store
        self._thread = threading.Thread(target=self._go_on, name="skdeep heartbeat", daemon=True)
        self._thread.start()

    def _beat(self, count: int) -> None:
        self._own.set(f"beat/{self.rank}", str(count))

    def _go_on(self) -> None:
        count = 0
        while not self._ended.wait(_BEAT):
            count += 1
            try:
                self._beat(count)
            except Exception:
                return  # the store is gone: who keeps it has ended, or is lost

    def end(self) -> None:
        """Stop giving signs."""
        self._ended.set()
        self._thread.join()

    def begin(self) -> None:
        """Begin a piece of work, which all do."""
        self._work += 1

    def tell(self, error: str, lost: Sequence[int] = ()) -> None:
        """Tell the others what has gone wrong, and wait until all but the lost ones know of it."""
        with contextlib.suppress(Exception):
            self._store.set(f"error/{self._work}", error)
            self.hear()
            heard = [f"heard/{self._work}/{rank}" for rank in range(self.size) if rank not in lost]
            end = time.monotonic() + _SILENCE
            while not self._store.check(heard) and time.monotonic() < end:
                time.sleep(0.05)

    def hear(self) -> None:
        """Tell the others that this process knows of an error."""
        with contextlib.suppress(Exception):
            self._store.set(f"heard/{self._work}/{self.rank}", "")

    def error(self) -> str | None:
        """Ask what has gone wrong elsewhere; None if nothing has, or nobody can tell."""
        key = f"error/{self._work}"
        with contextlib.suppress(Exception):
            return self._store.get(key).decode() if self._store.check([key]) else None
        return None

    def lost(self) -> list[int]:
        """Find the processes that give no signs of life, which takes some seconds."""
        if self._store is None:
            return []
        before = self._counts()
        if before is not None:
            time.sleep(_SILENCE)
        now = self._counts()
        if before is None or now is None:
            return [0]
        return [rank for rank in range(self.size) if before[rank] == now[rank] and rank != self.rank]

    def _counts(self) -> list[bytes] | None:
        try:
            return [self._store.get(f"beat/{rank}") for rank in range(self.size)]
        except Exception:
            return None
