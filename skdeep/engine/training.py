"""The training loop: a stack of K models, each with its own stopping rule.

A training step is: scores of a batch, the loss's gradient with respect to them, the network's pullback of it to the
parameters, the optimizer's update; before it the penalty's gradient, or after it its proximal map. Losses are summed
over models, so no model feels another; a model that has stopped leaves the stack. The loop does not know whether K is
1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.averaging import Averages
from skdeep.engine.batching import Batch, copy_of, sent_ahead
from skdeep.engine.captured import Captured
from skdeep.engine.gradients import clip_, loss_and_gradient
from skdeep.engine.networks import Network
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import Numbers, Optimizer
from skdeep.engine.per_model import index_of, to_numpy64
from skdeep.engine.progress import BY_CALLBACK, Progress, end_early
from skdeep.engine.schedules import SCHEDULES, warm_up

#: Factors that are computed at once, and losses that are kept to be added up at once: small steps take as long as their
#: calls.
_MOST_FACTORS, _MOST_LOSSES = 1 << 10, 1 << 16

#: Below this learning rate the adaptive schedule gives up (MLPClassifier's constant).
_MIN_ADAPTIVE_RATE = 1e-6

#: ``monitor(network, models)`` computes the validation score and loss of each model left in training: two arrays, one
#: value per entry of `models` (indices into the original stack).
Monitor = Callable[[Network, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """How to train: everything that all models of a stack have in common."""

    max_iter: int  # epochs of this run
    horizon: int | None = None  # epochs that the schedule is laid out over, None for these; beyond, it starts anew
    first_epoch: int = 0  # how many of them have been done before
    schedule: str = "constant"
    power_t: float = 0.5
    warmup_epochs: float = 0.0
    max_grad_norm: float | None = None
    proximal: bool = True
    products: torch.dtype | None = None  # of the matrix products; None for the parameters' own
    #: Whether the model is the average of what the steps went through (see `averaging`), where anyone looks at it; the
    #: losses of epochs are of what they went through.
    averages: bool = False


class Observer:
    """Listen to a run of one model; what listens for callbacks is in `skdeep.callbacks`."""

    @property
    def watches_batches(self) -> bool:
        """Whether the batch methods are to be called."""
        return False

    @property
    def history(self) -> Any:
        """What the estimator is to keep as ``history_``, if anything."""
        return None

    def train_begin(self, network: Network, optimizer: Optimizer | None) -> None:
        """Hear of the beginning. Changing ``optimizer.learning_rate`` in place changes the steps that follow."""

    def epoch_begin(self, epoch: int) -> None:
        """Hear of an epoch before it."""

    def batch_begin(self, batch: Batch) -> None:
        """Hear of a step before it."""

    def gradients(self, batch: Batch, gradients: list[Tensor]) -> None:
        """Look at the gradient before the update, and change it in place."""

    def batch_end(self, batch: Batch, loss: Tensor) -> None:
        """Hear of a step after it, with the mean loss of the batch."""

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        """Hear of an epoch after it; return True to end training. (`Halt`, raised, ends it at any time.)"""
        return False

    def train_end(self, network: Network) -> None:
        """Hear of the end; what is now written into ``network.params`` is what the model keeps."""


class _Stack:
    """The models still in training, with all that is theirs."""

    def __init__(
        self, objective: Objective, optimizer: Optimizer, progress: list[Progress], averages: Averages | None = None
    ):
        self.averages = averages
        self.network, self.loss, self.batches = objective.network, objective.loss, objective.batches
        self.penalty = objective.penalty.scaled(self.network.coef_scale())
        self.mean_weight, self.optimizer, self.progress = objective.mean_weight, optimizer, progress
        #: By epoch, as far as they are known: the schedule's factors, and what the optimizer has laid out by them.
        self._laid_out: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._captured: Captured | None = None
        rows = self.batches.rows
        #: Whether batches come from the host, and can do so while the device works.
        self._streams = rows.home.type == "cpu" and rows.device.type == "cuda" and torch.backends.cuda.is_built()

    def capture(self, plan: Plan) -> None:
        """Have steps replayed where that is possible."""
        self._captured = Captured.of(
            self.batches, self.network, lambda batch, numbers: self.step(batch, plan, numbers=numbers)
        )

    def select(self, models: np.ndarray) -> _Stack:
        """Select some of the models; their batches are still of all."""
        network, penalty = self.network.select(models), self.penalty.select(models)
        objective = Objective(network, self.loss, penalty, self.batches, self.mean_weight[models])
        optimizer = self.optimizer.select(models, network.params)
        averages = None if self.averages is None else self.averages.select(models, network.tensors)
        return _Stack(objective, optimizer, [self.progress[m] for m in models], averages)

    def put(self, models: np.ndarray, part: _Stack) -> None:
        """Take back some of the models."""
        self.network.put(models, part.network)
        self.optimizer.put(models, part.optimizer)
        if self.averages is not None and part.averages is not None:
            self.averages.put(models, part.averages)

    def show(self, averages: bool) -> None:
        """Have the network hold what a model is to be, averages if they are kept, or else what training moves."""
        if self.averages is not None:
            self.averages.show(averages)

    def step(
        self,
        batch: Batch,
        plan: Plan,
        factor: float | np.ndarray = 1.0,
        observer: Observer | None = None,
        numbers: Numbers | None = None,
    ) -> Tensor:
        """Update the parameters by a batch; return the losses of its rows, (K, B), or of all processes in sum, (K, 1).

        By what is laid out for the step, which the caller counts; or with the learning rates of now, times a factor.
        """
        losses, gradients = loss_and_gradient(self.network, self.loss, batch, self.mean_weight, plan.products)
        if self.batches.shard is not None:
            losses = losses.sum(1, keepdim=True)
            self.batches.group.sum_([losses, *gradients])
        self.network.complete_(gradients, None if plan.proximal else self.penalty)
        if observer is not None:
            observer.gradients(batch, gradients)
        if plan.max_grad_norm is not None:
            clip_(gradients, plan.max_grad_norm)
        if numbers is None:
            self.optimizer.step(gradients, factor)
        else:
            self.optimizer.move(gradients, numbers)
        if plan.proximal:
            for i in range(self.network.n_coefs):
                self.penalty.prox_(self.network.params[i], self.optimizer.prox_step(i))
        if self.averages is not None:
            self.averages.take_in()
        return losses

    def reconsider(self, m: int) -> None:
        """Go on with a model that stands still: by shorter steps, unless it was momentum that led it astray.

        Then it begins anew where its loss was lowest, at rest. Where that has been of no use, or has been in an earlier
        run, whose weights are gone, its steps are shortened as well.
        """
        p = self.progress[m]
        led_past = p.has_led_past(p.loss_curve[-1])
        if not led_past or p.params is None or p.best_loss >= p.went_back_to - p.tol:
            self.optimizer.learning_rate[m] /= 5
        self._laid_out = {}
        p.no_improvement, p.loss_to_beat = 0, p.loss_curve[-1]
        if led_past:
            self.optimizer.rest(m)
            p.went_back_to = p.best_loss
            if p.params is not None:
                self.network.put_back(m, p.params)
                p.loss_to_beat = math.inf  # what the next epoch begins with

    def lay_out(self, plan: Plan, epoch: int, observer: Observer | None) -> tuple[np.ndarray, np.ndarray]:
        """Look up the factors on the rates, (T, K) for the batches of an epoch, and what the optimizer takes for them.

        They are computed for several epochs at once, but where an observer may change the rates, or some models have
        fewer steps than others.
        """
        if epoch not in self._laid_out:
            alike = observer is None and len(set(self.batches.n_batches.tolist())) == 1
            n = min(max(1, _MOST_FACTORS // int(self.batches.n_batches.sum())), plan.max_iter - epoch) if alike else 1
            factors = self._schedule(plan, epoch, n)
            numbers = self.optimizer.lay_out(factors.reshape(-1, len(self.progress)))
            numbers = numbers.reshape(*factors.shape[:2], *numbers.shape[1:])
            self._laid_out = dict(zip(range(epoch, epoch + n), zip(factors, numbers, strict=True), strict=True))
        return self._laid_out[epoch]

    def _schedule(self, plan: Plan, epoch: int, n_epochs: int) -> np.ndarray:
        ahead, n_batches = np.arange(n_epochs)[:, None, None], self.batches.n_batches
        samples = np.array([p.samples for p in self.progress]) + ahead * self.batches.n_rows
        start = plan.first_epoch + epoch + ahead + np.arange(n_batches.max())[:, None] / n_batches
        factors = SCHEDULES[plan.schedule](start / (plan.horizon or plan.max_iter) % 1.0, samples, plan.power_t)
        if plan.warmup_epochs:
            factors = factors * warm_up(start + 1 / n_batches, plan.warmup_epochs)
        return np.ones(start.shape) * factors

    def _mode(self, watcher: Observer | None) -> AbstractContextManager[Any]:
        """Choose the mode of the steps: on the CPU without autograd's books, where nobody can ask for them.

        A small step takes as long as its calls, and these four fifths of the time then.
        """
        asked = watcher is not None or self.loss.asks_autograd or self.network.asks_autograd(self.batches.rows.local)
        on_cpu = self.network.params[0].device.type == "cpu"
        return torch.inference_mode() if on_cpu and not asked else nullcontext()

    def epoch(self, plan: Plan, epoch: int, observer: Observer | None) -> np.ndarray:
        """Pass over the data once; return the objective of each model, its data term as met along the way."""
        factors, laid_out = self.lay_out(plan, epoch, observer)
        norms = self.penalty.norms(self.network.penalised())
        losses: list[Tensor] = []
        n_losses = n_done = 0
        drawn = self.batches.draw()
        watcher = observer if observer is not None and observer.watches_batches else None
        with self._mode(watcher):
            if self._captured is not None and watcher is None:
                found = self._captured.epoch(drawn, laid_out, self.optimizer.form)
                n_done = len(found)
                self.optimizer.count(n_done)
                losses.append(found.transpose(0, 1).flatten(1))
            numbers = None if watcher else self.optimizer.placed(laid_out[n_done:])
            batches = self.batches.epoch(drawn, n_done)
            if self._streams:
                batches = sent_ahead(batches, self.network.params[0].device)
            for index, batch in enumerate(batches):
                factor = factors[n_done + index]
                if watcher:
                    watcher.batch_begin(batch)
                if batch.models is not None:
                    part = self.select(batch.models)
                    own = part.step(batch, plan, factor[batch.models])
                    self.put(batch.models, part)
                    found = own.new_zeros(self.network.n_models, own.shape[1])
                    found.index_copy_(0, index_of(batch.models, own), own)
                elif numbers is None:
                    found = self.step(batch, plan, factor, watcher)
                else:
                    found = self.step(batch, plan, numbers=numbers[index])
                    self.optimizer.count()
                losses.append(found)
                n_losses += found.numel()
                if n_losses > _MOST_LOSSES:
                    losses, n_losses = [torch.cat(losses, dim=1).sum(1, keepdim=True)], 0
                if watcher:
                    watcher.batch_end(batch, found.sum(1) / int(np.max(batch.size)))
        self.optimizer.settle()
        for progress, n in zip(self.progress, self.batches.n_rows, strict=True):
            progress.samples += int(n)
        # the only time that the host waits
        values = to_numpy64(torch.cat([*losses, *(norm.unsqueeze(1) for norm in norms)], dim=1))
        n = values.shape[1] - len(norms)
        data, penalty = values[:, :n].sum(1) / self.batches.n_rows, self.penalty.of_norms(values[:, n:].T)
        self.penalty = self.penalty.after(data)
        return data + penalty


def judge_start(network: Network, progress: list[Progress], monitor: Monitor | None) -> None:
    """Begin the record of models that are warm and watch a score with the score of their start."""
    models = np.array([m for m, p in enumerate(progress) if p.warm and p.watch_score], dtype=int)
    if monitor is None or not len(models):
        return
    scores, losses = monitor(network if len(models) == len(progress) else network.select(models), models)
    for m, score, loss in zip(models, scores.tolist(), losses.tolist(), strict=True):
        if math.isfinite(score):
            p = progress[m]
            p.start_score, p.best_score, p.params = score, score, network.copy_of(m)
            p.best_validation_loss = loss if math.isfinite(loss) else math.inf


@torch.no_grad()
def train(
    objective: Objective,
    optimizer: Optimizer,
    plan: Plan,
    progress: list[Progress],
    monitor: Monitor | None = None,
    observer: Observer | None = None,
) -> list[Progress]:
    """Train a stack of K models until each has stopped or has done ``plan.max_iter`` epochs.

    The objective (network, loss, penalty and data) and the optimizer are consumed by the call. `progress` is one per
    model: fresh, or from an earlier run to go on with; it is returned, with the final parameters in it. A keyboard
    interrupt ends training as `progress.end_early` says. ``monitor(network, models) -> (scores, losses)`` is called
    once an epoch, on validation data; the observer speaks to callbacks (one model only).
    """
    network = objective.network
    stack = _Stack(objective, optimizer, progress, Averages(network.tensors) if plan.averages else None)
    network.products = plan.products
    alive = np.arange(len(progress))
    judge_start(network, progress, monitor)
    if observer is not None:
        observer.train_begin(network, optimizer)
    if observer is None or not observer.watches_batches:  # who is to be shown them as they are
        stack.batches = stack.batches.prepared(network)
        stack.capture(plan)
    try:
        for epoch in range(plan.max_iter):
            stack.show(False)
            if observer is not None:
                observer.epoch_begin(epoch)
            values = stack.epoch(plan, epoch, observer)
            if monitor is not None or observer is not None:
                stack.show(True)
            watched = None if monitor is None else monitor(stack.network, alive)
            halt = _end_of_epoch(stack, plan, epoch, values, watched, observer)
            done = [p.stopped is not None or p.error is not None for p in stack.progress]
            if halt or all(done):
                break
            if any(done):
                stack.show(True)
                _finish(stack, np.flatnonzero(done))
                rest = np.flatnonzero(np.logical_not(done))
                alive = alive[rest]
                stack._captured = None
                stack = stack.select(rest)
                stack.batches = stack.batches.select(rest)
                stack.capture(plan)
    except KeyboardInterrupt as interrupt:
        end_early(interrupt, progress, stack.progress, stack.batches.group)
    stack._captured = None
    stack.show(True)
    if observer is not None:
        stack.optimizer.settle()
        observer.train_end(network)
    _finish(stack, np.arange(len(stack.progress)))
    return progress


def _end_of_epoch(
    stack: _Stack,
    plan: Plan,
    epoch: int,
    objective: np.ndarray,
    watched: tuple[np.ndarray, np.ndarray] | None,
    observer: Observer | None,
) -> bool:
    """Book the epoch for each model, decide who stops; return whether a callback ends the whole run."""
    halt, known = False, [(None, None)] * len(stack.progress)
    if watched is not None:
        known = list(zip(*(found.tolist() for found in watched), strict=True))
    each = zip(stack.progress, objective.tolist(), known, strict=True)
    for m, (p, loss, (score, validation_loss)) in enumerate(each):
        if p.has_diverged(loss, validation_loss):
            continue
        best = p.record(loss, score, validation_loss)
        if best and (p.watch_score or plan.schedule == "adaptive"):
            p.params = stack.network.copy_of(m)
        if observer is not None:
            halt |= bool(observer.epoch_end(epoch, p, stack.network, best))
        if p.stalled:
            what = "Validation score" if p.watch_score else "Training loss"
            reason = f"{what} did not improve more than tol={p.tol:f} for {p.n_iter_no_change:.0f} consecutive epochs."
            if plan.schedule == "adaptive" and stack.optimizer.learning_rate[m] > _MIN_ADAPTIVE_RATE:
                stack.reconsider(m)
            elif plan.schedule == "cosine" and p.has_led_past(p.loss_curve[-1]):  # on its way back; the rate will end
                p.no_improvement, p.loss_to_beat = 0, p.loss_curve[-1]
            else:
                p.stopped = reason
        elif p.n_iter >= p.max_iter:
            p.stopped = f"It has done its {p.max_iter} epochs."
        elif p.is_due:
            p.stopped = f"The schedule came to its end after {p.n_iter} epochs."
    if halt:
        for p in stack.progress:
            p.stopped = p.stopped or BY_CALLBACK
    return halt


def _finish(stack: _Stack, models: np.ndarray) -> None:
    """Hand the final parameters and optimizer state of some models to their `Progress`."""
    finite, states = stack.network.are_finite(), stack.optimizer.states(models)
    for m, state in zip(models, states, strict=True):
        p = stack.progress[m]
        current = stack.network.copy_of(m)
        if not finite[m] and p.error is None:
            p.error = f"parameters became non-finite in epoch {p.n_iter + 1}"
        p.params = p.params if p.watch_score and p.params is not None else current
        p.optimizer_state = state
        averages = (array for slot in stack.optimizer.slots for array in p.optimizer_state[slot])
        if p.error is None and not all(np.isfinite(array).all() for array in averages):
            p.error = f"averages of gradients became non-finite in epoch {p.n_iter}"  # which stops any learning
        p.generator = copy_of(stack.batches.generators[m])  # others may go on drawing from it
