"""Where observers are made: which ones a run has, several of them as one, and the table that ``verbose`` prints."""

from __future__ import annotations

import time
from typing import Any

from skdeep.callbacks.run import Run
from skdeep.callbacks.scikit_learn_observer import ScikitLearnObserver
from skdeep.engine.networks import Network
from skdeep.engine.progress import Progress
from skdeep.engine.training import Observer


def make_observer(run: Run, callbacks: Any, verbose: bool | int, context: Any) -> Observer | None:
    """Make the observer of a run; None if nobody listens.

    Callbacks are None, one of skorch or a list: instances, classes or ``(name, callback)`` pairs. Anything else raises
    a TypeError. If `verbose`, a table is printed (unless a PrintLog is among them), and callbacks may print. The
    context is of scikit-learn's callbacks, for the whole fit, whose task has begun; None without these.
    """
    observers: list[Observer] = []
    given = [] if callbacks is None else list(callbacks) if hasattr(callbacks, "__len__") else [callbacks]
    prints = bool(verbose)
    if given:
        from skdeep.callbacks.skorch_observer import SkorchObserver  # skorch is imported only for its callbacks

        observers = [of_skorch := SkorchObserver(run, given, verbose)]
        prints = prints and not of_skorch.prints
    if prints:
        observers.insert(0, EpochTable(run))
    if context is not None:
        observers.append(ScikitLearnObserver(run, context))
    return Group(observers) if len(observers) > 1 else observers[0] if observers else None


def _passed_on(name: str) -> Any:
    """Make a method that calls the one of each observer."""

    def tell(group: Group, *told: Any) -> None:
        for observer in group.observers:
            getattr(observer, name)(*told)

    return tell


class Group(Observer):
    """Pass everything on to several observers, in order; any of them can end training."""

    train_begin, epoch_begin, train_end = map(_passed_on, ("train_begin", "epoch_begin", "train_end"))
    batch_begin, gradients, batch_end = map(_passed_on, ("batch_begin", "gradients", "batch_end"))

    def __init__(self, observers: list[Observer]):
        self.observers = observers

    @property
    def watches_batches(self) -> bool:
        return any(observer.watches_batches for observer in self.observers)

    @property
    def history(self) -> Any:
        return next((observer.history for observer in self.observers if observer.history is not None), None)

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        return any([observer.epoch_end(epoch, progress, network, is_best) for observer in self.observers])


class EpochTable(Observer):
    """Print a line per epoch: iteration, loss, validation score if there is one, "+" for the best so far, seconds."""

    def __init__(self, run: Run):
        self.loss_unit = run.estimator._loss_unit

    def epoch_begin(self, epoch: int) -> None:
        self.start = time.perf_counter()

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        scores, seconds = progress.validation_scores, time.perf_counter() - self.start
        if epoch == 0:
            print(f"Iteration          loss{'  validation score' if scores else ''}  best   seconds")
        loss = _decimals(self.loss_unit * progress.loss_curve[-1])
        score_unit = self.loss_unit if progress.scores_are_losses else 1.0
        score = f"  {_decimals(score_unit * scores[-1]):>16}" if scores else ""
        print(f"{epoch + 1:9d}  {loss:>12}{score}  {'+' if is_best else '':>4}  {seconds:8.3f}", flush=True)
        return False


def _decimals(value: float) -> str:
    """Write a number so that the columns of a table hold it."""
    return f"{value:.6{'f' if abs(value) < 1e5 else 'g'}}"
