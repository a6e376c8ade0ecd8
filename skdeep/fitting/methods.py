"""Methods that are absent, or leave no trace, when they cannot do their work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from skdeep.data.inputs import Classifier
from skdeep.engine.module_network import remembered


class UnavailableError(AttributeError, ValueError):
    """A method that these parameters rule out; an AttributeError, so that ``hasattr`` is False."""


class available_unless:
    """Make a method absent while ``reason(estimator)`` returns why it cannot be there."""

    def __init__(self, reason: Callable[[Classifier], str | None]) -> None:
        self.reason = reason

    def __call__(self, method: Callable) -> Self:
        self.method = method
        functools.update_wrapper(self, method)
        return self

    def __get__(self, estimator: Classifier | None, owner: type | None = None) -> Callable:
        if estimator is None:
            return self.method
        reason = self.reason(estimator)
        if reason is not None:
            raise UnavailableError(f"{self.method.__name__} does not support {reason}")
        return self.method.__get__(estimator, owner)


@contextmanager
def rollback(estimator: Classifier) -> Iterator[None]:
    """Leave the estimator as it was if the block does not end well."""
    before, module = dict(vars(estimator)), getattr(estimator, "module_", None)
    put_back = None if module is None else remembered(module)  # it is trained in place
    try:
        yield
    except BaseException:
        if put_back is not None:
            put_back()
        # what scikit-learn keeps for the callbacks' teardown is not ours to take back
        kept = {key: value for key, value in vars(estimator).items() if key.startswith(("_skl_", "_callback_"))}
        estimator.__dict__.clear()
        estimator.__dict__.update({**before, **kept})
        raise
