"""What is relied on in skorch and promised nowhere: which of its callbacks have nothing to do at a batch, and names.

To tell callbacks of every batch costs a device synchronisation for each. All other names that are used of skorch are in
its documentation. It is imported where callbacks of skorch are given, and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import skorch

from skdeep.compat.checks import demand, private_names

#: The versions that are known to work.
KNOWN = "1.2 to 1.4"

with private_names("skorch", KNOWN):
    from skorch.callbacks import (
        Callback,
        EpochScoring,
        LRScheduler,
        MlflowLogger,
        NeptuneLogger,
        SacredLogger,
        TensorBoard,
    )


def _logs_epochs_only(callback: Any) -> bool:
    return not callback.log_on_batch_end


#: Callbacks whose own ``on_batch_end`` does nothing, and when.
IDLE_AT_BATCHES: dict[Any, Callable[[Any], bool]] = {
    EpochScoring: lambda callback: True,  # it would fill a cache, which a net with use_caching=False does not have
    LRScheduler: lambda callback: callback.step_every != "batch",
    TensorBoard: lambda callback: True,  # it notes that the first batch is over, for methods of subclasses
    MlflowLogger: _logs_epochs_only,
    NeptuneLogger: _logs_epochs_only,
    SacredLogger: _logs_epochs_only,
}


def overridden(callback: Any, event: str) -> Any:
    """Find the function behind a callback's method; None if it is skorch's base class's, which does nothing."""
    method = getattr(callback, event)
    function = getattr(method, "__func__", method)
    return None if function is getattr(Callback, event) else function


def acts_at_batches(callback: Any) -> bool:
    """Tell whether a callback has anything to do when a batch begins or ends, or at its gradient."""
    end = overridden(callback, "on_batch_end")
    if any(end is cls.on_batch_end and idle(callback) for cls, idle in IDLE_AT_BATCHES.items()):
        end = None
    return any((end, overridden(callback, "on_batch_begin"), overridden(callback, "on_grad_computed")))


def takes_scores(callback: Any) -> bool:
    """Tell whether a callback may look at the scores of a batch: by their name, or among all that comes.

    skorch's own callbacks name them where they do.
    """
    end = overridden(callback, "on_batch_end")
    parameters = inspect.signature(end).parameters.values() if end else ()
    of_users = getattr(end, "__module__", "").partition(".")[0] != "skorch"
    return any(p.name == "y_pred" or (of_users and p.kind is p.VAR_KEYWORD) for p in parameters)


def score_of_validation(callback: Any) -> str | None:
    """Name what a callback records of validation data; None if it records nothing of it."""
    return callback.name_ if isinstance(callback, EpochScoring) and not callback.on_train else None


def check() -> None:
    """Raise an ImportError if something that is relied on here is not so."""
    parameters = {skorch.NeuralNet: "use_caching", EpochScoring: "use_caching", LRScheduler: "step_every"}
    parameters |= dict.fromkeys((MlflowLogger, NeptuneLogger, SacredLogger), "log_on_batch_end")
    for cls, name in parameters.items():
        has = name in inspect.signature(cls).parameters
        demand(has, f"the parameter {name} of {cls.__name__}", "skorch", KNOWN)
    for cls in IDLE_AT_BATCHES:
        demand("on_batch_end" in vars(cls), f"{cls.__name__} has an on_batch_end of its own", "skorch", KNOWN)
    for event in ("on_batch_begin", "on_grad_computed", "on_batch_end"):
        demand(hasattr(Callback, event), f"Callback.{event}", "skorch", KNOWN)
    scoring = EpochScoring("accuracy").initialize()
    demand(getattr(scoring, "name_", None) == "accuracy", "the name of a score in EpochScoring.name_", "skorch", KNOWN)


check()
