"""How far one model has come, by what rule it stops, and what an interrupt does to training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from skdeep.engine.group import Group

#: Share of a loss by which it may differ between a model in a stack and alone, or between devices.
_ROUNDING = 1e-6

#: Why training ended, if a callback has ended it.
BY_CALLBACK = "A callback ended training."


@dataclass
class Progress:
    """What one model has been through so far, and when it stops."""

    tol: float = 1e-4  # how much a loss or score has to improve, to count
    n_iter_no_change: float = 10  # epochs in a row without, at most
    #: Whether "improve" means the validation score (early stopping) or the training loss.
    watch_score: bool = False
    scores_are_losses: bool = False  # whether validation scores are negative losses, in the unit of these
    #: By how little scores may differ and be the same: among these, the lower validation loss is the better one.
    grain: float = 0.0
    max_iter: float = math.inf  # epochs at most, where that is less than the run's
    #: Training ends after `due_iter` epochs, but where the training loss is below `due_loss` by then; and below it, to
    #: stand still is no reason to end.
    due_iter: float = math.inf
    due_loss: float = 0.0
    #: Whether the start is a model already: with `watch_score`, it is judged too, and kept if no epoch is better.
    warm: bool = False
    n_iter: int = 0  # epochs of this run
    kept_iter: int = 0  # the epoch of this run that `params` are of, if a score is watched; 0 is the start
    samples: int = 0  # rows seen, over all runs on this problem
    earlier: int = 0  # the like, on others before
    start_score: float = -math.inf  # the validation score of a warm start, if it is watched
    no_improvement: int = 0
    best_loss: float = math.inf  # in training
    loss_to_beat: float = math.inf  # the lowest since "adaptive" last divided the learning rate
    went_back_to: float = math.inf  # the lowest when "adaptive" last went back to it
    best_score: float = -math.inf  # of the model that is kept: the best epoch, or the start
    best_validation_loss: float = math.inf
    top_score: float = -math.inf  # the highest of an epoch
    run_score: float = -math.inf  # of the best epoch
    run_validation_loss: float = math.inf
    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    #: How far the parameters may be from the optimum, where a solver knows: the largest entry of the gradient, or the
    #: relative duality gap.
    certificate: float = math.nan
    stopped: str | None = None  # why training ended before ``max_iter``; None if it did not
    interrupted: bool = False
    error: str | None = None  # why the model cannot be used
    astray: str | None = None  # why it should not
    #: The parameters (and the network's buffers) at the end, the best ones if a score was watched; each (1, ...).
    params: list[Tensor] | None = None
    size: float = 0.0  # of the largest parameter, where a solver knows
    optimizer_state: dict = field(default_factory=dict)
    generator: np.random.Generator | None = None  # of the order of rows, as the model left it

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

    def has_diverged(self, loss: float, validation_loss: float | None = None, step: str = "epoch") -> bool:
        """Tell whether the coming epoch, or other step, has made a loss no number; note it as an error."""
        for what, value in (("training", loss), ("validation", validation_loss)):
            if value is not None and not math.isfinite(value):
                self.error = f"the {what} loss became {value} in {step} {self.n_iter + 1}"
                return True
        return False

    def has_led_past(self, loss: float) -> bool:
        """Tell whether training has led past a loss that was clearly lower, as momentum does."""
        return loss > 1.05 * self.best_loss + self.tol

    @property
    def stalled(self) -> bool:
        """Whether the model has gone too long without improvement."""
        return self.no_improvement > self.n_iter_no_change and (self.watch_score or not self._asks_for_more)

    @property
    def is_due(self) -> bool:
        """Whether training ends here, as what it has learnt so far does not ask for more."""
        return self.n_iter == self.due_iter and not self._asks_for_more

    @property
    def _asks_for_more(self) -> bool:
        return self.loss_curve[-1] < self.due_loss

    def recent_gain(self) -> tuple[float, int]:
        """Compute how much the training loss fell over the last epochs, and over how many."""
        span = int(min(self.n_iter_no_change, 10, len(self.loss_curve) - 1))
        return (self.loss_curve[-1 - span] - self.loss_curve[-1] if span else math.nan), span


class Halt(KeyboardInterrupt):
    """Raised by an observer, ends training where it is and without a word; any other interrupt is the user's."""


def end_early(interrupt: KeyboardInterrupt, progress: list[Progress], left: list[Progress], group: Group) -> None:
    """End training of the models that are left where they are; raise where one has not finished an epoch.

    So where other processes would go on.
    """
    alone = group.size == 1 or isinstance(interrupt, Halt)  # of what all processes hear alike
    if not alone or any(p.n_iter == 0 and p.error is None for p in progress):
        raise interrupt
    for p in left:
        if isinstance(interrupt, Halt):
            p.stopped = BY_CALLBACK
        else:
            p.interrupted = True
