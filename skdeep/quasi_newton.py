"""L-BFGS: the full-batch solver for smooth objectives, one model at a time.

torch's own two-loop recursion and strong-Wolfe line search, driven one iteration at a time so that stopping rules,
monitors and callbacks see the same epochs as in mini-batch training.

References
----------
Nocedal & Wright, *Numerical Optimization*, 2nd edition, algorithms 7.5 and 3.5.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.batching import Batches
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.penalties import ElasticNet
from skdeep.training import Monitor, Observer, Progress, loss_and_gradient


class _Objective:
    """The penalised objective of one model and its gradient, each point evaluated once."""

    def __init__(self, network: Network, loss: Loss, penalty: ElasticNet, batches: Batches, mean_weight: np.ndarray):
        self.network, self.loss, self.penalty = network, loss, penalty
        self.batches, self.mean_weight = batches, mean_weight
        self.n_evaluations = 0
        self.seen: list[tuple[Tensor, Tensor, list[Tensor]]] = []

    def __call__(self) -> Tensor:
        params = [p.detach() for p in self.network.params]
        point = torch.cat([p.flatten() for p in params])
        entry = next((entry for entry in self.seen if torch.equal(entry[0], point)), None)
        if entry is None:
            entry = (point, *self._evaluate(params))
            self.seen.append(entry)
        _, value, gradients = entry
        for param, gradient in zip(self.network.params, gradients, strict=True):
            param.grad = gradient.clone(memory_format=torch.contiguous_format)  # LBFGS takes views of it
        return value

    def _evaluate(self, params: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.n_evaluations += 1
        n = int(self.batches.n_rows[0])
        value = params[0].new_zeros(())
        gradients = [torch.zeros_like(p) for p in params]
        for batch in self.batches.epoch():
            part, part_gradients = loss_and_gradient(self.network, self.loss, batch, self.mean_weight)
            share = len(batch.target[0]) / n
            value += part[0] * share
            for total, gradient in zip(gradients, part_gradients, strict=True):
                total.add_(gradient, alpha=share)
        scale = self.network.coef_scale()
        for i, coef in enumerate(self.network.penalised()):
            addition = torch.zeros_like(params[i])
            self.penalty.add_gradient_(coef.detach(), addition)
            gradients[i].add_(addition if scale is None else addition * scale)
        return value + float(self.penalty.value(self.network.penalised())[0]), gradients

    def forget(self) -> None:
        """Keep only the current point."""
        point = torch.cat([p.detach().flatten() for p in self.network.params])
        self.seen = [entry for entry in self.seen if torch.equal(entry[0], point)]


@torch.no_grad()
def minimise(
    network: Network,
    loss: Loss,
    penalty: ElasticNet,
    batches: Batches,
    mean_weight: np.ndarray,
    max_iter: int,
    max_evaluations: int,
    progress: Progress,
    monitor: Monitor | None = None,
    observer: Observer | None = None,
) -> Progress:
    """Minimise the objective of one model until its gradient's largest entry is at most ``progress.tol``.

    Parameters
    ----------
    network, loss, penalty, batches, mean_weight, monitor, observer
        As in `skdeep.training.train`; ``batches`` are chunks of the data, summed into one gradient.
    max_iter, max_evaluations : int
        Bounds on the iterations and on the evaluations of the objective.
    progress : Progress
        ``tol`` bounds the gradient; with ``watch_score``, the validation score can stop the run as well.

    Returns
    -------
    Progress
        `progress`, with the final parameters in it.
    """
    objective = _Objective(network, loss, penalty, batches, mean_weight)
    solver = torch.optim.LBFGS(
        network.params,
        max_iter=1,
        history_size=20,
        tolerance_grad=progress.tol,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    rounding = torch.finfo(network.params[0].dtype).eps
    progress.params = None
    if observer is not None:
        observer.train_begin(network, None)
    try:
        value = float(objective())
        for iteration in range(max_iter):
            if observer is not None:
                observer.epoch_begin(iteration)
            before = value
            solver.param_groups[0]["max_eval"] = max(1, max_evaluations - objective.n_evaluations)
            with torch.enable_grad():
                solver.step(objective)
            value = float(objective())
            objective.forget()
            if not np.isfinite(value):
                progress.error = f"the training loss became {value} in iteration {iteration + 1}"
                break
            watched: tuple[float | None, float | None] = (None, None)
            if monitor is not None:
                scores, losses = monitor(network, np.zeros(1, int))
                watched = float(scores[0]), float(losses[0])
            best = progress.record(value, *watched)
            if progress.watch_score and best:
                progress.params = [p.detach().clone() for p in network.params]
            halt = observer is not None and observer.epoch_end(iteration, progress, network, best)
            steepest = max(float(p.grad.abs().max()) for p in network.params if p.grad is not None)
            if halt:
                progress.stopped = "A callback ended training."
            elif steepest <= progress.tol:
                progress.stopped = f"The gradient is below tol={progress.tol:g}."
            elif objective.n_evaluations < max_evaluations and before - value <= rounding * max(
                abs(before), abs(value), 1e-3
            ):
                progress.stopped = "The objective cannot be lowered any further in this precision."
            elif progress.watch_score and progress.stalled:
                progress.stopped = "Validation score did not improve."
            if progress.stopped or objective.n_evaluations >= max_evaluations:
                break
    except KeyboardInterrupt:
        if progress.n_iter == 0:
            raise
        progress.interrupted = True
    if observer is not None:
        observer.train_end(network)
    if progress.params is None:
        progress.params = [p.detach().clone() for p in network.params]
    return progress
