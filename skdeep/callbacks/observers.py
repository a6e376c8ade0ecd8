"""Observers of a run of one model: a printed table, scikit-learn's callbacks, and skorch's.

skorch's callbacks get a *host*: a net that trains nothing. The loop writes what they read into its ``history`` and lets
it ``notify`` them. On ``net`` they find

- ``module_``: the parameters ``weight_0``, ``bias_0``, ... in the memory of those in training, so that a state dict
  loaded into it takes effect; called, it gives the scores. (With ``standardize``, training is in centred and scaled
  columns: these are the weights there, while the module takes columns as they are. A module of the user's is there
  itself.) ``optimizer_`` likewise stands for the loop's optimizer; its ``rate`` is the learning rate of the last step,
  the estimator's schedule included.
- ``predict``, ``score``, ...: those of a fitted copy of the estimator, in the original labels. Pickled, it is the copy.
- ``history``: each epoch's ``train_loss`` (with the penalty), ``valid_loss``, ``valid_acc`` (``valid_score`` if another
  ``scoring`` is watched), their ``_best`` flags, ``dur``, ``train_batch_count``. Batches are told one by one (and their
  ``train_loss``, without the penalty) only if a callback listens to them, since each costs a device synchronisation;
  else the training data is one batch, as the validation data always is.
"""

from __future__ import annotations

import copy
import dis
import functools
import inspect
import math
import time
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from skdeep.data.inputs import rows_of, to_numpy
from skdeep.engine.networks import Network
from skdeep.engine.optimizers import OPTIMIZERS, Adam, Optimizer
from skdeep.engine.training import Observer, Progress


class EpochTable(Observer):
    """Print a line per epoch: iteration, loss, validation score if there is one, "+" for the best so far, seconds."""

    def epoch_begin(self, epoch):
        self.start = time.perf_counter()

    def epoch_end(self, epoch, progress, network, is_best):
        loss, scores, seconds = progress.loss_curve[-1], progress.validation_scores, time.perf_counter() - self.start
        if epoch == 0:
            print(f"Iteration          loss{'  validation score' if scores else ''}  best   seconds")
        number, score = f"{loss:12.6{'f' if loss < 1e5 else 'g'}}", f"  {scores[-1]:16.6f}" if scores else ""
        print(f"{epoch + 1:9d}  {number}{score}  {'+' if is_best else '':>4}  {seconds:8.3f}", flush=True)
        return False


class TaskObserver(Observer):
    """Speak scikit-learn's callback protocol: each epoch is a subtask of the fit. Parameters: see `make_observer`.

    The fitted copies of the estimator that callbacks get also have ``learning_rate_``, the rate of the last step (None
    if the solver makes none).
    """

    def __init__(self, estimator, context, X, y, metadata, snapshot):
        self.context, self.snapshot, self.task = context, snapshot, None
        self.data = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        # a scorer would be warned that validated data has no names
        unnamed = hasattr(estimator, "feature_names_in_") and not hasattr(X, "columns")
        self.without_names = {"feature_names_in_": None} if unnamed else {}

    def train_begin(self, network, optimizer):
        self.optimizer = optimizer
        self.data["reconstruction_attributes"] = lambda: {**self.snapshot(network), **self.without_names}

    def epoch_begin(self, epoch):
        self.task = self.context.subcontext(task_name="epoch")
        self.task.call_on_fit_task_begin(**self.data)

    def epoch_end(self, epoch, progress, network, is_best):
        task, self.task = self.task, None
        rate = None if self.optimizer is None else float(self.optimizer.rate[0])

        def fitted_now():
            return {**self.snapshot(network, progress), **self.without_names, "learning_rate_": rate}

        return task.call_on_fit_task_end(**{**self.data, "reconstruction_attributes": fitted_now})

    def train_end(self, network):
        if self.task is not None:  # the epoch was interrupted; every beginning has its end
            self.task.call_on_fit_task_end(estimator=self.data["estimator"])


class _Module(torch.nn.Module):
    """A network of one model as a torch module: the same memory, without the axis of models."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        n = len(network.params)
        for name, param in zip(network.names, network.params, strict=False):
            self.register_parameter(name, torch.nn.Parameter(param.detach()[0]))
        for name, buffer in zip(network.names[n:], network.buffers, strict=True):
            self.register_buffer(name, buffer[0])

    def forward(self, X: Tensor) -> Tensor:
        # its own parameters, not the network's: a deep copy of the module has left that memory
        params = [tensor.unsqueeze(0) for tensor in (*self.parameters(), *self.buffers())]
        X = X if self.network.frame is None else self.network.frame.rows(X)
        return self.network.with_params(params).scores(X.to(params[0].dtype))[0]


class _LoopOptimizer(torch.optim.Optimizer):
    """The optimizer of the loop as torch's schedulers and checkpoints see it; updates and memory are the loop's."""

    def __init__(self, loop: Optimizer | None, leaves: list, params, lr: float):
        defaults: dict[str, Any] = {"lr": lr}
        if loop is not None:  # None makes no steps; the name tells a scheduler that cycles momentum what there is
            defaults |= {"betas": loop.betas} if isinstance(loop, Adam) else {"momentum": float(loop.momentum[0])}
        super().__init__(leaves, defaults)  # the loop's, in its order: a module may have others, which are not trained
        self.loop = loop
        if loop is not None:
            for i, param in enumerate(self.param_groups[0]["params"]):
                self.state[param] = {slot: getattr(loop, slot)[i][0] for slot in loop.slots}
                self.state[param]["step"] = torch.from_numpy(loop.n_steps)[0]

    @property
    def rate(self) -> float | None:
        """Learning rate of the last step; None if the solver makes none."""
        return None if self.loop is None else float(self.loop.rate[0])

    def step(self, closure=None):
        """Take note that the loop has made a step; schedulers ask for it."""

    def pull(self) -> None:
        """Hand over to the loop what callbacks have changed."""
        if self.loop is not None:
            group = self.param_groups[0]
            self.loop.learning_rate[:] = float(group["lr"])
            self.loop.momentum[:] = group.get("momentum", self.loop.momentum)
            self.loop.betas = tuple(group.get("betas", self.loop.betas))

    def load_state_dict(self, state_dict):
        shared = dict(self.state)
        super().load_state_dict(state_dict)
        for param, state in shared.items():
            for name in state.keys() & self.state[param].keys():
                state[name].copy_(self.state[param][name])
            self.state[param] = state

    def __getstate__(self):  # a scheduler in a pickled estimator does not need the tensors, least of all on a GPU
        return {**super().__getstate__(), "state": {}, "param_groups": []}


def _of_estimator(name: str):
    """A method of the host that asks a fitted copy of the estimator, if the estimator has it."""

    def method(self, X, *args, **kwargs):
        X = X.X if isinstance(X, torch.utils.data.Dataset) else X  # skorch's
        return getattr(self._fitted(X), name)(X, *args, **kwargs)

    method.__name__ = name  # scorers look at it
    return available_if(lambda self: hasattr(self.estimator_, name))(method)


@functools.cache
def _host_class() -> type:
    """The class of the host, made when first needed, for skorch is imported only where its callbacks are used."""
    from skorch import NeuralNetClassifier

    class _Host(NeuralNetClassifier):
        """A skorch net that does not train; what it predicts is what `estimator_` would."""

        _default_callbacks: list = []
        predict, predict_proba = _of_estimator("predict"), _of_estimator("predict_proba")
        decision_function, score = _of_estimator("decision_function"), _of_estimator("score")

        def _fitted(self, X=None):
            fitted = copy.copy(self.estimator_)
            vars(fitted).update(self.snapshot_())
            foreign = {name for name in vars(fitted) if "_callback" in name}  # scikit-learn's, of the running fit
            for name in foreign if hasattr(X, "columns") else foreign | {"feature_names_in_"}:
                vars(fitted).pop(name, None)
            return fitted

        def __reduce__(self):
            return copy.copy, (self._fitted(),)

    return _Host


def _method(callback, name: str):
    """The function behind a callback's method; None if it is the base class's, which does nothing."""
    function = getattr(getattr(callback, name), "__func__", getattr(callback, name))
    return None if getattr(function, "__module__", "") == "skorch.callbacks.base" else function


def _listens(callback) -> bool:
    """Whether a callback has anything to do at batches."""
    from skorch.callbacks import EpochScoring, LRScheduler, TensorBoard

    end = _method(callback, "on_batch_end")
    # some of skorch's have nothing to do there: no cache to fill, no rate to change, nothing to log
    idle = end in (None, EpochScoring.on_batch_end, TensorBoard.on_batch_end)
    idle |= end is LRScheduler.on_batch_end and callback.step_every != "batch"
    logs = getattr(callback, "log_on_batch_end", True)
    idle |= getattr(end, "__module__", "") == "skorch.callbacks.logging" and not logs
    return not idle or any(_method(callback, name) for name in ("on_batch_begin", "on_grad_computed"))


def _is_request(interrupt: BaseException) -> bool:
    """Whether a KeyboardInterrupt comes from a ``raise`` statement of a callback, and not from Ctrl-C."""
    trace: Any = interrupt.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code  # none in compiled callbacks
    return not 0 <= trace.tb_lasti < len(code) or dis.opname[code[trace.tb_lasti]] == "RAISE_VARARGS"


class SkorchObserver(Observer):
    """Speak skorch's callback protocol.

    Parameters are those of `make_observer`; `train` is the pair ``(X, y)``, `valid` such a pair or None. `train_begin`
    raises a ValueError if a callback cannot do with this solver or without validation data.
    """

    progress: Progress | None = None
    host: Any = None
    history = property(lambda self: self.host.history)
    frozen = property(lambda self: [param for param in self.leaves if not param.requires_grad])
    watches_batches = property(lambda self: bool(self.listeners or self.frozen))

    def __init__(self, callbacks, estimator, snapshot, train, valid, max_iter, batch_size, verbose=False):
        from skorch.callbacks import PrintLog
        from skorch.dataset import Dataset

        callbacks = list(callbacks) if hasattr(callbacks, "__len__") else [callbacks]
        bare = [item[1] if isinstance(item, tuple | list) else item for item in callbacks]
        if foreign := [callback for callback in bare if callback and not hasattr(callback, "on_train_begin")]:
            raise TypeError(f"callbacks takes skorch's, got {foreign[0]!r}. Set scikit-learn's with set_callbacks.")
        self.prints = any(callback is PrintLog or isinstance(callback, PrintLog) for callback in bare)
        self.estimator, self.snapshot, self.train, self.valid = estimator, snapshot, train, valid
        self.y = np.asarray(to_numpy(train[1]))
        self.datasets = {"dataset_train": Dataset(train[0], self.y), "dataset_valid": valid and Dataset(*valid)}
        log = int(verbose or self.prints)  # who asks for a log wants to see it
        self.settings = dict(callbacks=callbacks, max_epochs=max_iter, batch_size=batch_size, verbose=log)
        self.settings |= {"classes": estimator.classes_, "criterion": torch.nn.CrossEntropyLoss, "use_caching": False}
        self.settings["iterator_valid__batch_size"] = len(valid[1]) if valid else 1  # the progress bar counts on it
        self.score_name = "valid_acc" if getattr(estimator, "scoring", None) in (None, "accuracy") else "valid_score"
        self.best = dict.fromkeys(("train_loss", "valid_loss", self.score_name), math.inf)

    def _notify(self, event: str, **kwargs) -> None:
        self.host.notify(event, **kwargs)
        self.host.optimizer_.pull()

    def train_begin(self, network, optimizer):
        self.network, module = network, network.module or _Module(network)
        self.leaves = network.leaves or list(module.parameters())
        steps = functools.partial(_LoopOptimizer, optimizer, self.leaves)
        rate, device = 1.0 if optimizer is None else float(optimizer.learning_rate[0]), str(network.params[0].device)
        self.host = host = _host_class()(lambda: module, optimizer=steps, lr=rate, device=device, **self.settings)
        host.estimator_, host.snapshot_ = self.estimator, lambda: self.snapshot(network, self.progress)
        callbacks = [callback for _, callback in host.initialize().callbacks_]
        self._check(callbacks)
        self.listeners = [callback for callback in callbacks if _listens(callback)]
        ends = [inspect.signature(callback.on_batch_end) for callback in self.listeners]
        self.wants_scores = any("y_pred" in end.parameters for end in ends)
        self._notify("on_train_begin", X=self.train[0], y=self.y)

    def _check(self, callbacks: list) -> None:
        """Refuse callbacks that wait for what does not come."""
        from skorch.callbacks import EpochScoring, LRScheduler, ParamMapper

        absent = {c.name_ for c in callbacks if isinstance(c, EpochScoring) and not c.on_train}
        absent |= {"valid_loss", self.score_name}
        for callback in callbacks:
            name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
            steps = isinstance(callback, LRScheduler | ParamMapper) or _method(callback, "on_grad_computed")
            if steps and self.host.optimizer_.loop is None:
                raise ValueError(f"{name} acts on steps; this solver makes none. Use one of {', '.join(OPTIMIZERS)}.")
            if self.valid is None and isinstance(monitor, str) and monitor.removesuffix("_best") in absent:
                instead = f"train_loss{'_best' if monitor.endswith('_best') else ''}"
                raise ValueError(
                    f"{name} monitors {monitor!r}, and there is no validation data. Pass X_val and y_val to fit, "
                    f"or set early_stopping=True, or use monitor={instead!r}."
                )

    def epoch_begin(self, epoch):
        self.start = time.perf_counter()
        if (loop := self.host.optimizer_.loop) is not None:  # its schedule may have changed the rate
            self.host.optimizer_.param_groups[0]["lr"] = float(loop.learning_rate[0])
        self._notify("on_epoch_begin", **self.datasets)

    def batch_begin(self, batch):
        X = batch.X if isinstance(batch.X, Tensor) else batch.X.gather()
        frame = self.network.frame
        y = batch.target[0].cpu().numpy()
        if X.layout is torch.sparse_csr:
            parts = tuple(part.cpu().numpy() for part in (X.values(), X.col_indices(), X.crow_indices()))
            X = sparse.csr_array(parts, shape=tuple(X.shape))
            X = X if frame is None else X @ sparse.diags_array(1 / frame.factor)
        elif frame is not None:
            X = frame.undone(X)
        if y.ndim == 2 and self.y.ndim == 1:  # indicators of one label
            y = y[:, 0].astype(int) if y.shape[1] == 1 else y.argmax(1)
        self.batch = X, y.astype(int) if self.y.ndim == 2 else self.estimator.classes_[y]
        self.kept = [(param, param.detach().clone()) for param in self.frozen]
        self.host.notify("on_batch_begin", batch=self.batch, training=True)

    def gradients(self, batch, gradients):
        for param, gradient in zip(self.leaves, gradients, strict=True):
            param.grad = gradient[0]
        named = list(self.host.get_all_learnable_params())
        self.host.notify("on_grad_computed", named_parameters=named, batch=self.batch, training=True)
        for param, gradient in zip(self.leaves, gradients, strict=True):  # it may have been replaced
            gradient[0] = 0 if param.grad is None else param.grad

    def batch_end(self, batch, loss):
        for param, value in self.kept:  # moved neither by momentum nor by the penalty
            param.detach().copy_(value)
        self.host.optimizer_.step()
        self._end_batch("train", self.batch, batch.size, loss[0])

    def _end_batch(self, part: str, batch: tuple, size: int, loss: Tensor) -> None:
        self.history.record_batch(f"{part}_loss", float(loss))
        self.history.record_batch(f"{part}_batch_size", size)
        scores = None
        if self.wants_scores:
            rows = rows_of(batch[0], loss.device, loss.dtype)
            rows.frame = self.network.frame
            scores = self.network.scores(rows.take(slice(0, size)))[0]
        self._notify("on_batch_end", batch=batch, training=part == "train", loss=loss, y_pred=scores)

    def _whole(self, part: str, data: tuple, loss: float, like: Tensor) -> None:
        """Training or validation data as one batch."""
        self.host.notify("on_batch_begin", batch=data, training=part == "train")
        self._end_batch(part, data, len(self.datasets[f"dataset_{part}"]), like.new_tensor(loss))

    def epoch_end(self, epoch, progress, network, is_best):
        self.progress, param = progress, network.params[0]
        self.host.optimizer_.step()
        n_batches = len(self.history[-1]["batches"])
        if n_batches == 0:
            self._whole("train", (self.train[0], self.y), progress.loss_curve[-1], param)
            n_batches = math.ceil(len(self.datasets["dataset_train"]) / self.settings["batch_size"])
        self.history.record("train_batch_count", n_batches)
        self._record("train_loss", progress.loss_curve[-1], lower_is_better=True)
        if self.valid is not None:
            self._whole("valid", self.valid, progress.validation_losses[-1], param)
            self.history.record("valid_batch_count", 1)
            self._record("valid_loss", progress.validation_losses[-1], lower_is_better=True)
            self._record(self.score_name, progress.validation_scores[-1], lower_is_better=False)
        self.history.record("dur", time.perf_counter() - self.start)
        try:
            self._notify("on_epoch_end", **self.datasets)
        except KeyboardInterrupt as interrupt:  # how EarlyStopping stops
            if not _is_request(interrupt):
                raise
            return True
        return False

    def _record(self, name: str, value: float, lower_is_better: bool) -> None:
        cost = float(value) if lower_is_better else -float(value)
        is_best = cost < self.best[name]
        self.best[name] = min(cost, self.best[name])
        self.history.record(name, float(value))
        self.history.record(f"{name}_best", is_best)

    def train_end(self, network):
        progress = self.progress
        if progress is None or progress.error is not None:  # the estimator is about to raise
            return
        restores = progress.watch_score and progress.params is not None
        if restores:  # callbacks meet, save and change the model that is kept
            for param, best in zip(network.tensors, progress.params, strict=True):
                param.detach().copy_(best)
        self._notify("on_train_end", X=self.train[0], y=self.y)
        if restores:
            progress.params = [param.detach().clone() for param in network.tensors]
        for param in self.leaves:  # a callback has frozen them for this fit
            param.requires_grad_()


def _of_each(name: str) -> Any:
    """A method that calls that of all observers, in order; true if any is."""
    return lambda self, *args: any([getattr(observer, name)(*args) for observer in self.observers])


class _Group(Observer):
    """Several observers as one; any of them can end training."""

    train_begin, train_end = _of_each("train_begin"), _of_each("train_end")
    epoch_begin, epoch_end = _of_each("epoch_begin"), _of_each("epoch_end")
    batch_begin, gradients, batch_end = _of_each("batch_begin"), _of_each("gradients"), _of_each("batch_end")
    watches_batches = property(lambda self: any(observer.watches_batches for observer in self.observers))

    def __init__(self, observers: list[Observer]):
        self.observers = observers

    def __getattr__(self, name: str):  # the history, if an observer has one
        return getattr(max(self.observers, key=lambda observer: hasattr(observer, name)), name)


def make_observer(
    estimator, *, callbacks, verbose, context, X, y, metadata, snapshot, validation, max_iter, batch_size
) -> Observer | None:
    """Make the observer of a run of one model; None if nobody listens.

    Parameters
    ----------
    estimator, snapshot
        The classifier being fitted, whose ``classes_`` are known; ``snapshot(network, progress=None)`` returns its
        fitted attributes for the current parameters, and those that tell how training went (called only where a
        callback asks for it).
    callbacks : None, skorch callback, or list of callbacks
        Instances, classes or ``(name, callback)`` pairs. Anything else raises a TypeError.
    verbose : bool or int
        Whether to print a table (unless a PrintLog is among the callbacks), and whether callbacks may print.
    context : sklearn.callback.CallbackContext or None
        Context of the whole fit, whose task has begun; None without callbacks of scikit-learn.
    X, y, metadata, validation, max_iter, batch_size
        The rows trained on, their original labels, a dict of their sample weights or None; ``(X_val, y_val)`` or None;
        epochs of this run, rows per batch.
    """
    observers: list[Observer] = []
    if callbacks is not None and (not hasattr(callbacks, "__len__") or len(callbacks)):
        observers += [SkorchObserver(callbacks, estimator, snapshot, (X, y), validation, max_iter, batch_size, verbose)]
    if verbose and not any(getattr(observer, "prints", False) for observer in observers):
        observers.insert(0, EpochTable())
    if context is not None:
        observers.append(TaskObserver(estimator, context, X, y, metadata, snapshot))
    return _Group(observers) if len(observers) > 1 else observers[0] if observers else None
