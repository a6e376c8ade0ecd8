"""What came of training, and what users should know of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skdeep.inputs import float_dtype
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.problem import Problem, make_monitor
from skdeep.training import Progress

#: Share of the loss of scores of zero that a training loss may be above it: a plateau at it is no accident.
_SLACK = 0.05


class OutcomeMixin:
    """Looks at what came of training, and warns."""

    solver_: str
    max_iter: int
    n_outputs_: int
    tol: float
    n_iter_no_change: float
    _training_loss: Callable[[int], Loss]
    _labels: Callable[[np.ndarray], np.ndarray]
    _fitted_copy: Callable[..., Any]

    def _look_at_end(self, problem: Problem, network: Network, progress: list[Progress]) -> None:
        """Note which models their steps have led away from the optimum.

        That is said of a model that knows less about its training data than scores of zero do, or whose objective has
        risen above that and above the first epoch's. The loss of an epoch is that of the models before its last step,
        which may have been one too many, so that models in doubt are asked again. A model whose validation score is
        watched has been judged by that.
        """
        loss = self._training_loss(self.n_outputs_)
        zero = torch.zeros(1, self.n_outputs_, dtype=torch.float64, device="cpu")
        target = zero if loss.target == "indicators" else torch.zeros(1, dtype=torch.int64, device="cpu")
        of_zero = loss.value(zero, target).item()
        limit = (1 + _SLACK) * of_zero
        for m, p in enumerate(progress):
            if p.error is not None or p.params is None or p.watch_score or p.loss_curve[-1] <= limit:
                continue
            first, last = p.loss_curve[0], p.loss_curve[-1]
            if p.stopped is None and last < 100 * limit and self._distance_from_convergence(p):
                continue  # still on its way: the user is told that
            whole = problem if problem.subset is None else problem.take(problem.subset)
            monitor = make_monitor(
                [whole], loss, "loss", self._labels, partial(self._fitted_copy, [self] * len(progress))
            )
            own = np.array([m])
            (reached,) = monitor(network.select(own).with_params(p.params), own)[1].tolist()
            if not reached <= float(np.finfo(float_dtype(problem.X)).max):  # predictions would overflow
                p.error = f"the training loss became {reached:.3g} after epoch {p.n_iter}"
            elif reached > limit:
                p.astray = f"the training loss is {reached:.3g}, where scores of zero have {of_zero:.3g}"
            elif last > max(first, limit):
                p.astray = f"the objective has risen from {first:.3g} to {last:.3g}"

    def _warn(self, progress: Progress) -> None:
        """Say what the user should know of the run; attributed to the line that called ``fit``."""
        if progress.interrupted:
            message = f"after {progress.n_iter} epochs; the model keeps the best weights so far."
            warnings.warn(f"Training interrupted by user {message}", stacklevel=7)
        elif progress.stopped is None and (finding := self._distance_from_convergence(progress)):
            if self.solver_ == "lbfgs":
                advice = "Increase max_iter or max_fun, or scale the columns of X."
            else:
                advice = "Increase max_iter, raise learning_rate_init, or accept it with a larger tol."
            message = f"Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged yet"
            warnings.warn(f"{message}: {finding} (tol={self.tol:g}). {advice}", ConvergenceWarning, stacklevel=7)
        elif progress.astray is not None:
            advice = "Scale the columns of X (StandardScaler)"
            if self.solver_ != "lbfgs":
                risen = progress.loss_curve[-1] > progress.loss_curve[0]
                steps = "lower learning_rate_init" if risen else "change learning_rate_init, increase max_iter"
                advice = f"{advice}, or {steps}"
            warnings.warn(f"Training came to nothing: {progress.astray}. {advice}.", ConvergenceWarning, stacklevel=7)

    def _distance_from_convergence(self, progress: Progress) -> str | None:
        """What was still moving at the end; None if nothing was."""
        gain, span = progress.recent_gain()
        if progress.watch_score:
            span = int(min(self.n_iter_no_change, progress.n_iter - 1))
            scores = [progress.start_score, *progress.validation_scores]
            before = scores[: progress.n_iter + 1 - span] if span else scores[:1]
            if max(progress.validation_scores[-span:]) <= max(before) + self.tol:
                return None  # only the validation loss was still falling
            return f"the validation score still rose within the last {max(span, 1)} epochs"
        if span == 0:
            return "there is only one epoch to judge by"
        if gain <= self.tol and np.isfinite(self.n_iter_no_change) and self.solver_ != "lbfgs":
            return None  # max_iter came before the stopping rule, but nothing was moving any more
        share = gain / max(abs(progress.loss_curve[-1]), 1e-9 * abs(gain), np.finfo(float).tiny)
        return f"the training loss still fell by {gain:.3g} ({share:.2%}) over the last {span} epochs"
