"""Processes that each hold some of the rows, and what they tell each other. One process alone has nothing to tell.

All processes of a group run the same program: on every row's label and weight, which each of them knows, and on rows of
X, of which each has its own. What needs all rows adds up what the processes have found for theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from torch import Tensor


class Group:
    """One process."""

    rank, size = 0, 1  # the number of this process, and how many there are

    def sum_(self, tensors: list[Tensor]) -> None:
        """Add up tensors over the processes, in place: afterwards, all have the same bits."""

    def gather(self, value: Any) -> list[Any]:
        """List the value of each process, in the order of their ranks."""
        return [value]

    def first(self, value: Any) -> Any:
        """Return the value of the first process."""
        return value

    def agreeing(self) -> AbstractContextManager[None]:
        """Open a context at whose end all processes raise an error, if one has raised it."""
        return nullcontext()

    def watching(self) -> AbstractContextManager[None]:
        """Open a context in which an error ends the other processes too, wherever they are."""
        return nullcontext()


_ALONE = Group()
_current: ContextVar[Group] = ContextVar("group", default=_ALONE)


def current() -> Group:
    """Return the group that fits are divided among: this process alone, unless `joined` says else."""
    return _current.get()


@contextmanager
def joined(group: Group) -> Iterator[Group]:
    """Divide the fits of the context among the processes of a group."""
    token = _current.set(group)
    try:
        yield group
    finally:
        _current.reset(token)
