"""The adapter to skorch's callback protocol.

An interrupt ends training as it does in skorch: a KeyboardInterrupt while callbacks run, raised by one of them or by
Ctrl-C, without a word (that is how EarlyStopping stops), and the callbacks hear of the end of training. Ctrl-C during
our own work ends training as it does without callbacks, with a warning, and they hear of it too. Unlike skorch, where
there is no finished epoch yet, ``fit`` raises the KeyboardInterrupt.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import numpy as np
import torch
from scipy import sparse
from skorch.callbacks import LRScheduler, ParamMapper, PrintLog
from skorch.dataset import Dataset
from torch import Tensor

from skdeep.callbacks.run import Run
from skdeep.callbacks.skorch_host import ClassifierHost, RegressorHost
from skdeep.callbacks.stand_ins import ModuleStandIn, OptimizerStandIn
from skdeep.compat.skorch import acts_at_batches, overridden, score_of_validation, takes_scores
from skdeep.data.inputs import rows_of, to_numpy
from skdeep.engine.batching import Batch
from skdeep.engine.networks import Network
from skdeep.engine.optimizers import OPTIMIZERS, Optimizer
from skdeep.engine.progress import Halt, Progress
from skdeep.engine.training import Observer


class SkorchObserver(Observer):
    """Let a host notify skorch's callbacks, and take over what they change; see `make_observer` for the arguments."""

    def __init__(self, run: Run, callbacks: list[Any], verbose: bool | int):
        bare = [item[1] if isinstance(item, tuple | list) else item for item in callbacks]
        if foreign := [callback for callback in bare if callback and not hasattr(callback, "on_train_begin")]:
            raise TypeError(f"callbacks takes skorch's, got {foreign[0]!r}. Set scikit-learn's with set_callbacks.")
        self.prints = any(callback is PrintLog or isinstance(callback, PrintLog) for callback in bare)
        self.run = run
        self.progress: Progress | None = None
        self.host: Any = None
        self.y = np.asarray(to_numpy(run.y))
        valid = run.validation
        self.datasets = {"dataset_train": Dataset(run.X, self.y), "dataset_valid": valid and Dataset(*valid)}
        self.settings = {
            "callbacks": callbacks,
            "max_epochs": run.max_iter,
            "batch_size": run.batch_size,
            "iterator_valid__batch_size": len(valid[1]) if valid else 1,  # the progress bar counts on it
            "use_caching": False,
            "verbose": int(verbose or self.prints),  # who asks for a log wants to see it
        }
        self.form: Any = RegressorHost
        if hasattr(run.estimator, "classes_"):
            self.form = ClassifierHost
            self.settings |= {"classes": run.estimator.classes_, "criterion": torch.nn.CrossEntropyLoss}
        self.loss_unit = run.estimator._loss_unit
        self.score_name = "valid_acc" if run.estimator._watched_scoring in (None, "accuracy") else "valid_score"
        self.best = dict.fromkeys(("train_loss", "valid_loss", self.score_name), math.inf)

    @property
    def history(self) -> Any:
        return None if self.host is None else self.host.history  # a callback may have put another in its place

    @property
    def frozen(self) -> list[torch.nn.Parameter]:
        """Parameters that a callback keeps from being trained."""
        return [param for param in self.leaves if not param.requires_grad]

    @property
    def watches_batches(self) -> bool:
        return bool(self.listeners or self.frozen)

    def _notify(self, event: str, **kwargs: Any) -> None:
        """Tell the callbacks, and the loop what they have changed."""
        self.host.notify(event, **kwargs)
        self.host.optimizer_.pull()

    def _notify_in_training(self, event: str, **kwargs: Any) -> None:
        """Tell the callbacks of an event between the beginning and the end of training, which they can end."""
        try:
            self._notify(event, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise Halt from interrupt

    def train_begin(self, network: Network, optimizer: Optimizer | None) -> None:
        """Make the host; raise a ValueError if a callback cannot do with this solver or without validation data."""
        self.network, module = network, network.module or ModuleStandIn(network)
        self.leaves = network.leaves or list(module.parameters())
        stand_in = functools.partial(OptimizerStandIn, optimizer, self.leaves)
        rate, device = 1.0 if optimizer is None else float(optimizer.learning_rate[0]), str(network.params[0].device)
        self.host = host = self.form(lambda: module, optimizer=stand_in, lr=rate, device=device, **self.settings)
        host.estimator_, host.snapshot_ = self.run.estimator, lambda: self.run.snapshot(network, self.progress)
        callbacks = [callback for _, callback in host.initialize().callbacks_]
        self._refuse_idle(callbacks)
        self.listeners = [callback for callback in callbacks if acts_at_batches(callback)]
        self.wants_scores = any(map(takes_scores, self.listeners))
        self._notify("on_train_begin", X=self.run.X, y=self.y)

    def _refuse_idle(self, callbacks: list[Any]) -> None:
        """Refuse callbacks that wait for what does not come."""
        absent = {"valid_loss", self.score_name, *map(score_of_validation, callbacks)}
        for callback in callbacks:
            name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
            steps = isinstance(callback, LRScheduler | ParamMapper) or overridden(callback, "on_grad_computed")
            if steps and self.host.optimizer_.loop is None:
                raise ValueError(f"{name} acts on steps; this solver makes none. Use one of {', '.join(OPTIMIZERS)}.")
            if self.run.validation is None and isinstance(monitor, str) and monitor.removesuffix("_best") in absent:
                instead = f"train_loss{'_best' if monitor.endswith('_best') else ''}"
                raise ValueError(
                    f"{name} monitors {monitor!r}, and there is no validation data. Pass X_val and y_val to fit, "
                    f"or set early_stopping=True, or use monitor={instead!r}."
                )

    def epoch_begin(self, epoch: int) -> None:
        self.start = time.perf_counter()
        self.host.optimizer_.push()
        self._notify_in_training("on_epoch_begin", **self.datasets)

    def batch_begin(self, batch: Batch) -> None:
        self.batch = self._for_users(batch)
        self.kept = [(param, param.detach().clone()) for param in self.frozen]
        self._notify_in_training("on_batch_begin", batch=self.batch, training=True)

    def _for_users(self, batch: Batch) -> tuple[Any, np.ndarray]:
        """Turn a batch back into rows in the user's columns, and the user's labels."""
        X: Any = batch.X if isinstance(batch.X, Tensor) else batch.X.gather()
        frame = self.network.frame
        y = batch.target[0].cpu().numpy()
        if X.layout is torch.sparse_csr:
            parts = tuple(part.cpu().numpy() for part in (X.values(), X.col_indices(), X.crow_indices()))
            X = sparse.csr_array(parts, shape=tuple(X.shape))
            X = X if frame is None else X @ sparse.diags_array(1 / frame.factor)
        elif frame is not None:
            X = frame.undone(X)
        return X, self.run.estimator._labels_of_targets(y)

    def gradients(self, batch: Batch, gradients: list[Tensor]) -> None:
        for param, gradient in zip(self.leaves, gradients, strict=True):
            param.grad = gradient[0]
        named = list(self.host.get_all_learnable_params())
        self._notify_in_training("on_grad_computed", named_parameters=named, batch=self.batch, training=True)
        for param, gradient in zip(self.leaves, gradients, strict=True):  # it may have been replaced
            gradient[0] = 0 if param.grad is None else param.grad

    def batch_end(self, batch: Batch, loss: Tensor) -> None:
        for param, value in self.kept:  # moved neither by momentum nor by the penalty
            param.detach().copy_(value)
        self.host.optimizer_.step()
        assert isinstance(batch.size, int)  # of one model
        self._end_batch("train", self.batch, batch.size, self.loss_unit * loss[0])

    def _end_batch(self, part: str, batch: tuple[Any, Any], size: int, loss: Tensor) -> None:
        self.history.record_batch(f"{part}_loss", float(loss))
        self.history.record_batch(f"{part}_batch_size", size)
        scores = None
        if self.wants_scores:
            rows = rows_of(batch[0], loss.device, loss.dtype)
            rows.frame = self.network.frame
            scores = self.network.scores(rows.take(slice(0, size)))[0]
        self._notify_in_training("on_batch_end", batch=batch, training=part == "train", loss=loss, y_pred=scores)

    def _as_one_batch(self, part: str, data: tuple[Any, Any], loss: float, like: Tensor) -> None:
        """Tell of all training or validation data as one batch."""
        self._notify_in_training("on_batch_begin", batch=data, training=part == "train")
        self._end_batch(part, data, len(self.datasets[f"dataset_{part}"]), like.new_tensor(loss))

    def epoch_end(self, epoch: int, progress: Progress, network: Network, is_best: bool) -> bool:
        self.progress = progress
        self.host.optimizer_.step()
        try:
            self._end_epoch(progress, network.params[0])
        except Halt:
            return True  # other observers are still to hear of the epoch
        return False

    def _end_epoch(self, progress: Progress, like: Tensor) -> None:
        n_batches, loss = len(self.history[-1]["batches"]), self.loss_unit * progress.loss_curve[-1]
        if n_batches == 0:
            self._as_one_batch("train", (self.run.X, self.y), loss, like)
            n_batches = math.ceil(len(self.y) / self.run.batch_size)
        self.history.record("train_batch_count", n_batches)
        self._record("train_loss", loss, lower_is_better=True)
        if self.run.validation is not None:
            loss = self.loss_unit * progress.validation_losses[-1]
            self._as_one_batch("valid", self.run.validation, loss, like)
            self.history.record("valid_batch_count", 1)
            self._record("valid_loss", loss, lower_is_better=True)
            score_unit = self.loss_unit if progress.scores_are_losses else 1.0
            self._record(self.score_name, score_unit * progress.validation_scores[-1], lower_is_better=False)
        self.history.record("dur", time.perf_counter() - self.start)
        self._notify_in_training("on_epoch_end", **self.datasets)

    def _record(self, name: str, value: float, lower_is_better: bool) -> None:
        """Note a value of an epoch, and whether it is the best so far."""
        cost = float(value) if lower_is_better else -float(value)
        is_best = cost < self.best[name]
        self.best[name] = min(cost, self.best[name])
        self.history.record(name, float(value))
        self.history.record(f"{name}_best", is_best)

    def train_end(self, network: Network) -> None:
        progress = self.progress
        if progress is None or progress.error is not None:  # the estimator is about to raise
            return
        best = progress.params if progress.watch_score else None
        if best is not None:  # callbacks meet, save and change the model that is kept
            for param, value in zip(network.tensors, best, strict=True):
                param.detach().copy_(value)
        self._notify("on_train_end", X=self.run.X, y=self.y)
        if best is not None:
            progress.params = [param.detach().clone() for param in network.tensors]
        for param in self.leaves:  # a callback has frozen them for this fit
            param.requires_grad_()
