"""The adapter to scikit-learn's callback protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skdeep.callbacks.run import Run
from skdeep.engine.networks import Network
from skdeep.engine.optimizers import Optimizer
from skdeep.engine.progress import Progress
from skdeep.engine.training import Observer


class ScikitLearnObserver(Observer):
    """Make each epoch a subtask of the fit, whose context this is, and whose task has begun.

    The fitted copies of the estimator that callbacks get also have ``learning_rate_``, the rate of the last step (None
    if the solver makes none).
    """

    def __init__(self, run: Run, context: Any):
        self.snapshot, self.context = run.snapshot, context
        self.task: Any = None
        metadata = None if run.sample_weight is None else {"sample_weight": run.sample_weight}
        self.data = {"estimator": run.estimator, "X": run.X, "y": run.y, "metadata": metadata}
        # a scorer would be warned that validated data has no names
        unnamed = hasattr(run.estimator, "feature_names_in_") and not hasattr(run.X, "columns")
        self.without_names = {"feature_names_in_": None} if unnamed else {}

    def train_begin(self, network: Network, optimizer: Optimizer | None) -> None:
        self.network, self.optimizer = network, optimizer

    def _fitted(self, *now: Any, **more: Any) -> Callable[[], dict[str, Any]]:
        """Make what makes the attributes of a fitted copy, for callbacks that ask for one."""
        return lambda: {**self.snapshot(*now), **self.without_names, **more}

    def epoch_begin(self, epoch: int) -> None:
        self.task = self.context.subcontext(task_name="epoch")
        self.task.call_on_fit_task_begin(**self.data, reconstruction_attributes=self._fitted(self.network))

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        task, self.task = self.task, None
        rate = None if self.optimizer is None else float(self.optimizer.rate[0])
        fitted = self._fitted(network, progress, learning_rate_=rate)
        return task.call_on_fit_task_end(**self.data, reconstruction_attributes=fitted)

    def train_end(self, network: Network) -> None:
        if self.task is not None:  # the epoch was interrupted; every beginning has its end
            self.task.call_on_fit_task_end(estimator=self.data["estimator"])
