"""The table that ``verbose`` prints."""

from __future__ import annotations

import time

from skdeep.engine.networks import Network
from skdeep.engine.progress import Progress
from skdeep.engine.training import Observer


class EpochTable(Observer):
    """Print a line per epoch: iteration, loss, validation score if there is one, "+" for the best so far, seconds."""

    def epoch_begin(self, epoch: int) -> None:
        self.start = time.perf_counter()

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        loss, scores, seconds = progress.loss_curve[-1], progress.validation_scores, time.perf_counter() - self.start
        if epoch == 0:
            print(f"Iteration          loss{'  validation score' if scores else ''}  best   seconds")
        number, score = f"{loss:12.6{'f' if loss < 1e5 else 'g'}}", f"  {scores[-1]:16.6f}" if scores else ""
        print(f"{epoch + 1:9d}  {number}{score}  {'+' if is_best else '':>4}  {seconds:8.3f}", flush=True)
        return False
