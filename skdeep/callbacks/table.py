"""The table that ``verbose`` prints."""

from __future__ import annotations

import time

from skdeep.callbacks.run import Run
from skdeep.engine.networks import Network
from skdeep.engine.progress import Progress
from skdeep.engine.training import Observer


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
