"""The training loop: a stack of K models, each with its own stopping rule.

A training step is: scores of a batch, the loss's gradient with respect to them, the network's pullback of it to the
parameters, the optimizer's update; before it the penalty's gradient, or after it its proximal map. Losses are summed
over models, so no model feels another; a model that has stopped leaves the stack. The loop does not know whether K is
1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.batching import Batch
from skdeep.engine.gradients import clip_, loss_and_gradient
from skdeep.engine.networks import Network
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import Optimizer
from skdeep.engine.per_model import add_scaled_, index_of, per_model, to_numpy64
from skdeep.engine.schedules import SCHEDULES, warm_up

#: Share of a loss by which it may differ between a model in a stack and alone, or between devices.
_ROUNDING = 1e-6

#: Below this learning rate the adaptive schedule gives up (MLPClassifier's constant).
_MIN_ADAPTIVE_RATE = 1e-6

#: ``monitor(network, models)`` computes the validation score and loss of each model left in training: two arrays, one
#: value per entry of `models` (indices into the original stack).
Monitor = Callable[[Network, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Progress:
    """What one model has been through so far, and when it stops.

    Attributes
    ----------
    tol, n_iter_no_change : float
        Stop after more than `n_iter_no_change` epochs in a row that did not improve by `tol`.
    max_iter : float
        Epochs at most, where that is less than the run's.
    warm : bool
        Whether the start is a model already: with `watch_score`, it is judged too, and kept if no epoch is better.
    watch_score : bool
        Whether "improve" means the validation score (early stopping) or the training loss.
    grain : float
        By how little scores may differ and be the same: among these, the lower validation loss is the better one.
    n_iter : int
        Epochs of this run.
    kept_iter : int
        The epoch of this run that `params` are of, if a score is watched; 0 is the start.
    samples, earlier : int
        Rows seen, over all runs on this problem, and on others before.
    best_loss, loss_to_beat : float
        The lowest training loss, and the lowest since "adaptive" last divided the learning rate.
    went_back_to : float
        The lowest training loss when "adaptive" last went back to it.
    best_score, best_validation_loss : float
        Of the model that is kept: the best epoch, or the start.
    run_score, run_validation_loss : float
        Of the best epoch.
    top_score : float
        The highest validation score of an epoch.
    start_score : float
        The validation score of a warm start, if it is watched.
    stopped : str or None
        Why training ended before ``max_iter``; None if it did not.
    error, astray : str or None
        Why the model cannot be used, or should not, if so.
    params : list of Tensor or None
        The parameters (and the network's buffers) at the end, the best ones if a score was watched; each (1, ...).
    generator : numpy.random.Generator
        The generator of the order of rows, as the model left it.
    """

    tol: float = 1e-4
    n_iter_no_change: float = 10
    watch_score: bool = False
    grain: float = 0.0
    max_iter: float = math.inf
    warm: bool = False
    n_iter: int = 0
    kept_iter: int = 0
    samples: int = 0
    earlier: int = 0
    start_score: float = -math.inf
    no_improvement: int = 0
    best_loss: float = math.inf
    loss_to_beat: float = math.inf
    went_back_to: float = math.inf
    best_score: float = -math.inf
    best_validation_loss: float = math.inf
    top_score: float = -math.inf
    run_score: float = -math.inf
    run_validation_loss: float = math.inf
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    stopped: str | None = None
    interrupted: bool = False
    error: str | None = None
    astray: str | None = None
    params: list[Tensor] | None = None
    optimizer_state: dict = field(default_factory=dict)
    generator: np.random.Generator | None = None

    def record(self, loss: float, score: float | None, validation_loss: float | None) -> bool:
        """Note an epoch; return whether it is the best so far by what is watched."""
        self.n_iter += 1
        self.loss_curve.append(loss)
        if score is not None and validation_loss is not None:
            self.validation_scores.append(score)
            self.validation_losses.append(validation_loss)
        if self.watch_score and score is not None and validation_loss is not None:
            # a score may be coarse (accuracy on a few rows): as long as it holds, a falling loss is improvement too
            before, self.top_score = self.top_score, max(self.top_score, score)
            least, lower = self.top_score - self.grain, validation_loss < self.run_validation_loss - self.tol
            improved = score > before + self.tol or (score >= least and lower)
            if score >= least and (validation_loss < self.run_validation_loss or self.run_score < least):
                self.run_score, self.run_validation_loss = score, validation_loss
            least = max(self.top_score, self.start_score) - self.grain
            best = score >= least and (validation_loss < self.best_validation_loss or self.best_score < least)
            if best:
                self.best_score, self.best_validation_loss, self.kept_iter = score, validation_loss, self.n_iter
        else:
            # on the way back, any fall but one of rounding is an improvement: it may be along a plateau
            step = min(self.tol, _ROUNDING * loss) if self.has_led_past(loss) else self.tol
            improved, best = loss < self.loss_to_beat - step, loss < self.best_loss
            self.best_loss, self.loss_to_beat = min(self.best_loss, loss), min(self.loss_to_beat, loss)
        self.no_improvement = 0 if improved else self.no_improvement + 1
        return best

    def has_led_past(self, loss: float) -> bool:
        """Tell whether training has led past a loss that was clearly lower, as momentum does."""
        return loss > 1.05 * self.best_loss + self.tol

    @property
    def stalled(self) -> bool:
        """Whether the model has gone too long without improvement."""
        return self.no_improvement > self.n_iter_no_change

    def recent_gain(self) -> tuple[float, int]:
        """Tell how much the training loss fell over the last epochs, and over how many."""
        span = int(min(self.n_iter_no_change, 10, len(self.loss_curve) - 1))
        return (self.loss_curve[-1 - span] - self.loss_curve[-1] if span else math.nan), span


@dataclass(frozen=True)
class Plan:
    """How to train: everything that all models of a stack have in common.

    ``max_iter`` is the number of epochs of this run; the schedule is laid out over ``horizon`` epochs (by default
    these), of which ``first_epoch`` have been done before. Beyond the horizon it starts anew. ``products`` is the dtype
    of the matrix products, None for the parameters' own.
    """

    max_iter: int
    horizon: int | None = None
    first_epoch: int = 0
    schedule: str = "constant"
    power_t: float = 0.5
    warmup_epochs: float = 0.0
    max_grad_norm: float | None = None
    proximal: bool = True
    products: torch.dtype | None = None


class Observer:
    """What callbacks need to know of a run of one model; see `skdeep.callbacks.observers`."""

    #: Whether the batch methods are to be called.
    watches_batches = False

    def train_begin(self, network: Network, optimizer: Optimizer | None) -> None:
        """Before the first epoch. Changing ``optimizer.learning_rate`` in place changes the steps that follow."""

    def epoch_begin(self, epoch: int) -> None:
        """Before an epoch."""

    def batch_begin(self, batch: Batch) -> None:
        """Before a step."""

    def gradients(self, batch: Batch, gradients: list[Tensor]) -> None:
        """Between the gradient and the update."""

    def batch_end(self, batch: Batch, loss: Tensor) -> None:
        """After a step, with the mean loss of the batch."""

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        """After an epoch; True ends training."""
        return False

    def train_end(self, network: Network) -> None:
        """After the last epoch; what is now written into ``network.params`` is what the model keeps."""


def _rows_per_model(size: int | np.ndarray, value: Tensor) -> float | Tensor:
    return size if isinstance(size, int) else per_model(size, value)


class _Stack:
    """The models still in training, with all that is theirs."""

    def __init__(self, objective: Objective, optimizer: Optimizer, progress: list[Progress]):
        self.network, self.loss, self.batches = objective.network, objective.loss, objective.batches
        self.penalty = objective.penalty.scaled(self.network.coef_scale())
        self.mean_weight, self.optimizer, self.progress = objective.mean_weight, optimizer, progress

    def select(self, models: np.ndarray) -> _Stack:
        """Select some of the models; their batches are still of all."""
        network, penalty = self.network.select(models), self.penalty.select(models)
        objective = Objective(network, self.loss, penalty, self.batches, self.mean_weight[models])
        optimizer = self.optimizer.select(models, network.params)
        return _Stack(objective, optimizer, [self.progress[m] for m in models])

    def put(self, models: np.ndarray, part: _Stack) -> None:
        """Take back some of the models."""
        self.network.put(models, part.network)
        self.optimizer.put(models, part.optimizer)

    def step(self, batch: Batch, plan: Plan, factor: np.ndarray, observer: Observer | None) -> Tensor:
        """Update the parameters by a batch; return its loss, (K,)."""
        value, gradients = loss_and_gradient(self.network, self.loss, batch, self.mean_weight, plan.products)
        self.network.complete_(gradients, None if plan.proximal else self.penalty)
        if observer is not None:
            observer.gradients(batch, gradients)
        if plan.max_grad_norm is not None:
            clip_(gradients, plan.max_grad_norm)
        self.optimizer.step(gradients, factor)
        if plan.proximal:
            for i in range(self.network.n_coefs):
                self.penalty.prox_(self.network.params[i], self.optimizer.prox_step(i), self.network.coef_scale())
        return value

    def reconsider(self, m: int) -> None:
        """Go on with a model that stands still: by shorter steps, unless it was momentum that led it astray.

        Then it begins anew where its loss was lowest, at rest. Where that has been of no use, or has been in an earlier
        run, whose weights are gone, its steps are shortened as well.
        """
        p = self.progress[m]
        led_past = p.has_led_past(p.loss_curve[-1])
        if not led_past or p.params is None or p.best_loss >= p.went_back_to - p.tol:
            self.optimizer.learning_rate[m] /= 5
        p.no_improvement, p.loss_to_beat = 0, p.loss_curve[-1]
        if led_past:
            self.optimizer.rest(m)
            p.went_back_to = p.best_loss
            if p.params is not None:
                self.network.put_back(m, p.params)
                p.loss_to_beat = math.inf  # what the next epoch begins with

    def schedule(self, plan: Plan, epoch: int) -> np.ndarray:
        """Compute the factors on the learning rates: one row per batch of the epoch, one column per model."""
        samples = np.array([p.samples for p in self.progress])
        n_batches = self.batches.n_batches
        start = plan.first_epoch + epoch + np.arange(n_batches.max())[:, None] / n_batches
        factors = SCHEDULES[plan.schedule](start / (plan.horizon or plan.max_iter) % 1.0, samples, plan.power_t)
        return np.ones(start.shape) * factors * warm_up(start + 1 / n_batches, plan.warmup_epochs)

    def epoch(self, plan: Plan, epoch: int, observer: Observer | None) -> np.ndarray:
        """Pass over the data once; return the objective of each model, its data term as met along the way."""
        factors = self.schedule(plan, epoch)
        total = self.network.params[0].new_zeros(self.network.n_models)
        norms = self.penalty.norms(self.network.penalised())
        watcher = observer if observer is not None and observer.watches_batches else None
        for index, batch in enumerate(self.batches.epoch()):
            factor = factors[index]
            if watcher:
                watcher.batch_begin(batch)
            if batch.models is None:
                value = self.step(batch, plan, factor, watcher)
                add_scaled_(total, value, _rows_per_model(batch.size, value))
            else:
                part = self.select(batch.models)
                value = part.step(batch, plan, factor[batch.models], watcher)
                self.put(batch.models, part)
                total.index_add_(0, index_of(batch.models, total), value * _rows_per_model(batch.size, value))
            if watcher:
                watcher.batch_end(batch, value)
        for progress, n in zip(self.progress, self.batches.n_rows, strict=True):
            progress.samples += int(n)
        values = to_numpy64(torch.stack([total, *norms]))  # the only time that the host waits
        return values[0] / self.batches.n_rows + self.penalty.of_norms(values[1:])


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

    Parameters
    ----------
    objective : Objective
        What the models minimise: network, loss, penalty and data; consumed by the call.
    optimizer : Optimizer
        Of the network's parameters; consumed as well.
    plan : Plan
    progress : list of Progress
        One per model: fresh, or from an earlier run to go on with.
    monitor : callable, optional
        ``monitor(network, models) -> (scores, losses)`` on validation data, called once an epoch.
    observer : Observer, optional
        Speaks to callbacks (one model only).

    Returns
    -------
    list of Progress
        `progress`, with the final parameters in it. After a keyboard interrupt that comes when all models have
        finished an epoch, training ends as if ``max_iter`` had been reached, marked ``interrupted``.
    """
    network, stack = objective.network, _Stack(objective, optimizer, progress)
    alive = np.arange(len(progress))
    judge_start(network, progress, monitor)
    if observer is not None:
        observer.train_begin(network, optimizer)
    try:
        for epoch in range(plan.max_iter):
            if observer is not None:
                observer.epoch_begin(epoch)
            values = stack.epoch(plan, epoch, observer)
            watched = None if monitor is None else monitor(stack.network, alive)
            halt = _end_of_epoch(stack, plan, epoch, values, watched, observer)
            done = np.array([p.stopped is not None or p.error is not None for p in stack.progress])
            if halt or done.all():
                break
            if done.any():
                _finish(stack, np.flatnonzero(done))
                rest = np.flatnonzero(~done)
                alive = alive[rest]
                stack = stack.select(rest)
                stack.batches = stack.batches.select(rest)
    except KeyboardInterrupt:
        if any(p.n_iter == 0 and p.error is None for p in progress):
            raise
        for p in stack.progress:
            p.interrupted = True
    if observer is not None:
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
    halt, (scores, losses) = False, watched or (None, None)
    for m, p in enumerate(stack.progress):
        if not math.isfinite(objective[m]):
            p.error = f"the training loss became {objective[m]} in epoch {p.n_iter + 1}"
            continue
        if losses is not None and not math.isfinite(losses[m]):
            p.error = f"the validation loss became {losses[m]} in epoch {p.n_iter + 1}"
            continue
        score = None if scores is None else float(scores[m])
        best = p.record(float(objective[m]), score, None if losses is None else float(losses[m]))
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
    if halt:
        for p in stack.progress:
            p.stopped = p.stopped or "A callback ended training."
    return halt


def _finish(stack: _Stack, models: np.ndarray) -> None:
    """Hand the final parameters and optimizer state of some models to their `Progress`."""
    for m in models:
        p = stack.progress[m]
        current = stack.network.copy_of(m)
        if not stack.network.is_finite(current) and p.error is None:
            p.error = f"parameters became non-finite in epoch {p.n_iter + 1}"
        p.params = p.params if p.watch_score and p.params is not None else current
        p.optimizer_state = stack.optimizer.state(m)
        averages = (array for slot in stack.optimizer.slots for array in p.optimizer_state[slot])
        if p.error is None and not all(np.isfinite(array).all() for array in averages):
            p.error = f"averages of gradients became non-finite in epoch {p.n_iter}"  # which stops any learning
        p.generator = copy.deepcopy(stack.batches.generators[m])  # others may go on drawing from it
