r"""The full-batch solver for smooth objectives: a stack of K models, each with its own line search and stopping rule.

Each pass over the rows, in chunks, evaluates every model at its own trial point; a model whose trial is good enough
moves there, which ends an iteration for it, and looks for its next direction, which is L-BFGS's. Linear models are
here where NumPy's solvers (`skdeep.exact`) are not for them: of rows that are not in memory, or in single precision.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, algorithm 7.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.objective import Objective
from skdeep.engine.per_model import index_of, to_device, to_numpy64
from skdeep.engine.progress import BY_CALLBACK, Progress, end_early
from skdeep.engine.training import Monitor, Observer, judge_start
from skdeep.solvers.lbfgs import LBFGS
from skdeep.solvers.line_search import LineSearch


@dataclass
class _Stack:
    """The models still on their way: where each is, where it is going, and how far along it has tried to go."""

    objective: Objective
    progress: list[Progress]
    number: np.ndarray  # of each model among all that there were
    directions: LBFGS
    search: LineSearch
    point: Tensor
    value: np.ndarray
    gradient: Tensor
    direction: Tensor

    @classmethod
    def begin(cls, objective: Objective, progress: list[Progress]) -> _Stack:
        """Begin where the network is."""
        point = objective.start()
        value, gradient = objective(point)
        directions = LBFGS.begin(objective, point)
        number, search = np.arange(len(progress)), LineSearch.begin(value, np.zeros(len(value)))
        return cls(objective, progress, number, directions, search, point, value, gradient, torch.zeros_like(point))

    def select(self, models: np.ndarray) -> _Stack:
        """Select some of the models."""
        objective, progress = self.objective.select(models), [self.progress[m] for m in models]
        number, directions = self.number[models], self.directions.select(models, objective)
        search, value, index = self.search.select(models), self.value[models], index_of(models, self.point)
        point, gradient, direction = (values[index] for values in (self.point, self.gradient, self.direction))
        return _Stack(objective, progress, number, directions, search, point, value, gradient, direction)

    @property
    def rounding(self) -> float:
        """Unit of the last place of one."""
        return torch.finfo(self.point.dtype).eps

    @property
    def at_rest(self) -> np.ndarray:
        """Which models have a gradient within their tolerance."""
        return to_numpy64(self.gradient.abs().amax(1)) <= [p.tol for p in self.progress]

    def aim(self, models: np.ndarray) -> None:
        """Begin a line search in a new direction."""
        index = index_of(models, self.point)
        gradient = self.gradient[index]
        direction = self.directions(models, self.point[index], gradient)
        self.direction[index] = direction
        slope = to_numpy64(torch.linalg.vecdot(direction, gradient))
        self.search.put(models, LineSearch.begin(self.value[models], slope))

    def step(self) -> np.ndarray:
        """Pass over the rows: try each model's step; return the models that took theirs."""
        trial = self._ahead(self.search.step)
        value, gradient = self.objective(trial)
        slope = to_numpy64(torch.linalg.vecdot(gradient, self.direction))
        taken = np.flatnonzero(self.search.judge(value, slope, self.rounding))
        index = index_of(taken, trial)
        self.point[index], self.gradient[index], self.value[taken] = trial[index], gradient[index], value[taken]
        return taken

    def settle(self, models: np.ndarray) -> None:
        """End searches before their time, at the best point they have found."""
        index = index_of(models, self.point)
        self.point[index] = self._ahead(self.search.low)[index]
        self.value[models] = self.search.low_value[models]
        self.objective.move(self.point)

    def leave(self, models: np.ndarray) -> None:
        """Hand the final parameters of some models to their `Progress`."""
        for m in models:
            p = self.progress[m]
            p.params = p.params if p.watch_score and p.params is not None else self.objective.network.copy_of(m)

    def _ahead(self, step: np.ndarray) -> Tensor:
        length = to_device(torch.as_tensor(step, device="cpu"), self.point.device, self.point.dtype)
        return torch.addcmul(self.point, self.direction, length.unsqueeze(1))


@torch.no_grad()
def minimise(
    objective: Objective,
    max_iter: int,
    max_fun: int,
    progress: list[Progress],
    monitor: Monitor | None = None,
    observer: Observer | None = None,
) -> list[Progress]:
    """Minimise the objective of each model of a stack until its gradient's largest entry is at most its ``tol``.

    The objective's ``batches`` are chunks of the data, summed into one gradient; `max_fun` bounds its evaluations. With
    ``watch_score``, the validation score can stop a model as well; `monitor` and `observer` are as in
    `skdeep.engine.training.train`. Returned is `progress`, with the final parameters in it. A keyboard interrupt ends
    training as `skdeep.engine.progress.end_early` says.
    """
    network = objective.network
    judge_start(network, progress, monitor)
    if observer is not None:
        observer.train_begin(network, None)
    try:
        stack = _Stack.begin(objective, progress)
        n_left, ended = max_fun - 1, stack.number  # evaluations, and models whose iteration has ended
        while True:
            if len(ended):
                if observer is not None:
                    observer.epoch_begin(progress[0].n_iter)
                stack.aim(ended)
            spent, stuck = n_left <= 0, stack.search.hopeless | stack.at_rest
            if spent or stuck.any():
                ended = np.flatnonzero(stuck | spent)
                stack.settle(ended)
            else:
                ended = stack.step()
                n_left -= 1
            _end_of_iteration(stack, ended, stuck, spent, monitor, observer)
            is_end = [n_left <= 0 or p.n_iter >= min(max_iter, p.max_iter) for p in stack.progress]
            done = np.array([p.stopped is not None or p.error is not None for p in stack.progress])
            done[ended] |= np.array(is_end)[ended]
            if done.all():
                break
            if done.any():
                stack.leave(np.flatnonzero(done))
                rest = np.flatnonzero(~done)
                ended, stack = np.flatnonzero(np.isin(rest, ended)), stack.select(rest)
    except KeyboardInterrupt as interrupt:
        end_early(interrupt, progress, stack.progress, objective.batches.group)
    stack.objective.move(stack.point)
    if observer is not None:
        observer.train_end(network)
    stack.leave(np.arange(len(stack.progress)))
    return progress


def _end_of_iteration(
    stack: _Stack, ended: np.ndarray, stuck: np.ndarray, spent: bool, monitor: Monitor | None, observer: Observer | None
) -> None:
    """Book an iteration of the models that have ended one, and decide which of them stop."""
    alright = [m for m in ended if not stack.progress[m].has_diverged(float(stack.value[m]), step="iteration")]
    ended = np.array(alright, dtype=int)
    if not len(ended):
        return
    watched: Iterable[tuple[float | None, float | None]] = [(None, None)] * len(ended)
    if monitor is not None:
        network = stack.objective.network
        scores, losses = monitor(
            network if len(ended) == len(stack.number) else network.select(ended), stack.number[ended]
        )
        watched = zip(scores.tolist(), losses.tolist(), strict=True)
    at_rest = stack.at_rest
    for m, (score, validation_loss) in zip(ended, watched, strict=True):
        p, before, value = stack.progress[m], float(stack.search.value[m]), float(stack.value[m])
        if p.has_diverged(value, validation_loss, "iteration"):
            continue
        best = p.record(value, score, validation_loss)
        if p.watch_score and best:
            p.params = stack.objective.network.copy_of(m)
        halt = observer is not None and observer.epoch_end(p.n_iter - 1, p, stack.objective.network, best)
        if halt:
            p.stopped = BY_CALLBACK
        elif at_rest[m]:
            p.stopped = f"The gradient is below tol={p.tol:g}."
        elif not spent and (stuck[m] or before - value <= stack.rounding * max(abs(before), abs(value), 1e-3)):
            p.stopped = "The objective cannot be lowered any further in this precision."
        elif p.watch_score and p.stalled:
            p.stopped = "Validation score did not improve."
