"""What the processes of `test_distributed.py` do: fits whose rows are divided, and what can go wrong in one of them."""

from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits
from skorch.callbacks import EpochScoring

from skdeep import (
    LBFGS,
    SGD,
    Adam,
    AdamW,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressorTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.distributed import LostProcessError, shards
from skdeep.engine.stored import StoredArray
from skdeep.model_selection import bootstrap_coefficients

#: Where the rows of three processes begin, as shares of all: they are ragged, and the first one has none.
CUTS = (0.0, 0.0, 0.36, 1.0)


class Net(torch.nn.Sequential):
    """A module of a user's."""

    def __init__(self, n_features: int, n_outputs: int):
        super().__init__(torch.nn.Linear(n_features, 8), torch.nn.Tanh(), torch.nn.Linear(8, n_outputs))


class Normalised(torch.nn.Sequential):
    """A module that averages over batches."""

    def __init__(self, n_features: int, n_outputs: int):
        super().__init__(torch.nn.BatchNorm1d(n_features), torch.nn.Linear(n_features, n_outputs))


def data(kind: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Make rows, labels and weights, some of which are zero."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    if kind == "narrow":
        X = X[:, 18:30]
    elif kind == "sparse":
        X = sparse.csr_array(X)
    elif kind == "missing":
        X[::7, 3] = X[3::11, 20] = np.nan
    elif kind == "two":
        X, y = (array[:300] for array in load_breast_cancer(return_X_y=True))
    elif kind == "cells":  # few distinct rows
        random = np.random.default_rng(0)
        X = random.integers(0, 2, (300, 3)).astype(float)
        y = (X.sum(1) + random.normal(size=300) > 1.5).astype(int)
    elif kind == "multilabel":
        y = np.stack([y % 2, y > 4], axis=1).astype(int)
    elif kind == "categories":  # some of which only one process has
        X = pd.DataFrame(
            {"pixel": X[:, 20], "row": pd.Categorical(X[:, 10]), "part": pd.Categorical(np.arange(300) // 60)}
        )
    elif kind == "stored":
        X = StoredArray(X, X.dtype)
    elif kind == "values":
        y = np.exp(X[:, 20] / 10) + y
    elif kind == "names":
        y = np.array(["even", "odd"])[y % 2]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    weight[::13] = 0
    return X, y, weight


def cases() -> dict[str, tuple[Any, str, bool]]:
    """List estimators, the data they are fitted to, and whether its rows have weights."""
    one: dict[str, Any] = {"random_state": 0, "device": "cpu"}
    sgd = SGD(batch_size=64, precision="float64")
    adam = Adam(batch_size=64, precision="float64")
    short, few = one | {"max_iter": 4}, one | {"max_iter": 4, "hidden_layer_sizes": (8,)}
    clipped = AdamW(batch_size=64, max_grad_norm=1.0, precision="float64")
    deep = {"stochastic_depth": 0.3, "normalization": "layer", "hidden_layer_sizes": (8, 8, 8)}
    return {
        "softmax": (SoftmaxClassifier(solver=sgd, **short), "digits", True),
        "softmax, exact": (SoftmaxClassifier(**one), "narrow", True),
        "softmax, sparse": (SoftmaxClassifier(solver=sgd, **short), "sparse", True),
        "softmax, sparse, exact": (SoftmaxClassifier(**short), "sparse", False),
        "softmax, L1": (SoftmaxClassifier("l1", alpha=1e-3, solver=adam, **short), "digits", True),
        "softmax, stopped": (SoftmaxClassifier(solver=sgd, early_stopping=True, **short), "digits", True),
        "softmax, scorer": (
            SoftmaxClassifier(solver=sgd, early_stopping=True, scoring="f1_macro", **short),
            "digits",
            True,
        ),
        "softmax, few cells": (SoftmaxClassifier(solver=sgd, early_stopping=True, **short), "cells", True),
        "softmax, full batches": (SoftmaxClassifier(solver=LBFGS(), early_stopping=True, **one), "narrow", True),
        "softmax, balanced": (SoftmaxClassifier(class_weight="balanced", solver=sgd, **short), "digits", False),
        "softmax, names": (SoftmaxClassifier(solver=sgd, **short), "names", False),
        "softmax, callback": (
            SoftmaxClassifier(solver=sgd, callbacks=[EpochScoring("accuracy", on_train=True)], verbose=1, **short),
            "digits",
            False,
        ),
        "softmax, categories": (SoftmaxClassifier(solver=sgd, **short), "categories", True),
        "softmax, stored": (SoftmaxClassifier(solver=LBFGS(), **short), "stored", True),
        "hinge": (HingeClassifier(**one), "two", True),
        "hinge, sigmoid": (HingeClassifier(calibration="sigmoid", **one), "cells", True),
        "hinge, steps": (HingeClassifier(solver=sgd, **short), "digits", True),
        "least squares": (LeastSquaresClassifier(**one), "narrow", True),
        "least squares, sparse": (LeastSquaresClassifier(**one), "sparse", True),
        "sigmoid": (SigmoidClassifier(solver=sgd, **short), "multilabel", True),
        "mlp": (MLPClassifierTorch(solver=adam, **few), "digits", True),
        "mlp, single precision": (MLPClassifierTorch(solver=Adam(precision="float32"), **few), "missing", False),
        "mlp, missing": (MLPClassifierTorch(solver=adam, **few), "missing", True),
        "mlp, dropout": (MLPClassifierTorch(dropout=0.3, solver=clipped, **few), "digits", True),
        "mlp, depth": (MLPClassifierTorch(solver=adam, **short | deep), "digits", True),
        "mlp, stopped": (MLPClassifierTorch(early_stopping=True, solver=adam, **few), "digits", True),
        "mlp, full batches": (MLPClassifierTorch(solver="lbfgs", **few), "narrow", True),
        "mlp, sparse": (MLPClassifierTorch(solver=adam, **few), "sparse", True),
        "mlp, calibrated": (MLPClassifierTorch(calibration="temperature", solver=adam, **few), "digits", True),
        "mlp, bins": (MLPClassifierTorch(numeric_embedding="piecewise", solver=adam, **few), "missing", True),
        "mlp, bins, stored": (MLPClassifierTorch(numeric_embedding="piecewise", solver=adam, **few), "stored", True),
        "ensemble": (MLPEnsembleClassifier(n_estimators=4, solver=adam, **few), "cells", True),
        "ensemble, sparse": (MLPEnsembleClassifier(n_estimators=3, dropout=0.2, solver=adam, **few), "sparse", False),
        "module": (TorchClassifier(Net, solver=adam, **short), "digits", True),
        "values": (LinearRegressor(solver=sgd, early_stopping=True, **short), "values", True),
        "values, exact": (LinearRegressor(**one), "values", True),
        "values, L1": (LinearRegressor("huber", penalty="l1", alpha=0.01, **one), "values", False),
        "values, mlp": (MLPRegressorTorch("poisson", solver=adam, **few), "values", True),
        "values, ensemble": (MLPEnsembleRegressor(n_estimators=3, solver=adam, **few), "values", True),
    }


def learned(model: Any, X: Any) -> dict[str, np.ndarray]:
    """List what a model has learnt, and what it says of rows."""
    arrays = {}
    for name, value in vars(model).items():
        if name.endswith("_") and not name.startswith("_") and not isinstance(value, torch.nn.Module):
            parts = value if isinstance(value, list) and name != "loss_curve_" else [value]
            if all(isinstance(part, np.ndarray | int | float | list) for part in parts):
                arrays |= {f"{name}{i}": np.asarray(part) for i, part in enumerate(parts)}
    for i, member in enumerate(getattr(model, "estimators_", ())):
        arrays |= {f"{i} {name}": array for name, array in learned(member, X).items()}
    names = ("predict_proba", "decision_function", "predict")
    answer = next(getattr(model, name) for name in names if hasattr(model, name))
    return arrays | {"answers": answer(X)}


def own_part(rank: int, n_rows: int) -> slice:
    """Say which rows a process has."""
    return slice(int(CUTS[rank] * n_rows), int(CUTS[rank + 1] * n_rows))


@contextmanager
def in_group(rank: int, size: int, folder: Path) -> Iterator[None]:
    """Begin and end the process group."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    yield
    dist.destroy_process_group()


def fit_all(rank: int, folder: Path) -> None:
    """Fit all cases, and continue some of them."""
    found: dict[str, Any] = {}
    with in_group(rank, 3, folder), shards(timeout=60) as group:
        for name, (model, kind, is_weighted) in cases().items():
            X, y, weight = data(kind)
            own = own_part(rank, X.shape[0])
            part = X.at(np.arange(own.start, own.stop)) if kind == "stored" else X[own]
            found[name] = learned(model.fit(part, y[own], weight[own] if is_weighted else None), X)
        found["volume"] = [volume(group, rank, n_epochs) for n_epochs in (2, 5)]
        found |= continued(lambda X: own_part(rank, X.shape[0]))
        found |= refused(rank)
    (folder / f"found{rank}").write_bytes(pickle.dumps(found))


def volume(group: Any, rank: int, n_epochs: int) -> tuple[int, int]:
    """Count the messages and bytes of a fit of so many epochs."""
    X, y, _ = data("digits")
    own, before = own_part(rank, len(X)), (group.n_messages, group.n_bytes)
    sgd = SGD(batch_size=64, precision="float64", learning_rate_init=0.01)
    SoftmaxClassifier(solver=sgd, max_iter=n_epochs, random_state=0, device="cpu").fit(X[own], y[own])
    return group.n_messages - before[0], group.n_bytes - before[1]


def continued(part: Any) -> dict[str, Any]:
    """Fit further: by ``partial_fit``, from a warm start, with validation data of the caller's."""
    X, y, weight = data("digits")
    own = part(X)
    one: dict[str, Any] = {"random_state": 0, "device": "cpu", "max_iter": 4}
    partly = SoftmaxClassifier(solver=SGD(batch_size=32, precision="float64"), **one)
    for _ in range(2):
        partly.partial_fit(X[own], y[own], classes=np.arange(10))
    warm = MLPClassifierTorch((8,), solver=Adam(precision="float64"), warm_start=True, **one)
    for labels in (y, y, 9 - y):
        warm.fit(X[own], labels[own])
    watched = SoftmaxClassifier(solver=SGD(precision="float64"), early_stopping=True, **one)
    V, v = X[::3], y[::3]
    of_v = part(V)
    watched.fit(X[own], y[own], X_val=V[of_v], y_val=v[of_v], sample_weight_val=weight[::3][of_v])
    resampled = bootstrap_coefficients(
        SoftmaxClassifier(alpha=0.01), X[own, 20:24], y[own] % 2, n_resamples=5, random_state=0
    )
    found = {"partial_fit": learned(partly, X), "warm": learned(warm, X), "X_val": learned(watched, X)}
    return found | {"bootstrap": {"coefs": resampled.coefs}}


def refused(rank: int) -> dict[str, str]:
    """Collect the messages of errors that all processes raise."""
    X, y, weight = data("digits")
    own = own_part(rank, len(X))
    bad, short = X.copy(), SoftmaxClassifier(solver="sgd", max_iter=1, random_state=0)
    bad[-1, 0] = np.inf  # of the last process alone
    last = rank == 2
    layers = MLPClassifierTorch((8,), normalization="batch", max_iter=1)
    tries = {
        "infinite": lambda: short.fit(bad[own], y[own]),
        "columns": lambda: short.fit(X[own, : 60 if last else 64], y[own]),
        "dtypes": lambda: short.fit(X[own].astype(np.float32 if last else np.float64), y[own]),
        "weights": lambda: short.fit(X[own], y[own], weight[own] if last else None),
        "parameters": lambda: SoftmaxClassifier(solver="sgd", max_iter=1 + last).fit(X[own], y[own]),
        "one class": lambda: short.fit(X[own], 0 * y[own]),
        "batch normalisation": lambda: layers.fit(X[own], y[own]),
        "normalised module": lambda: TorchClassifier(Normalised, max_iter=1).fit(X[own], y[own]),
        "nested": lambda: shards().__enter__(),
    }
    messages = {}
    for name, attempt in tries.items():
        try:
            attempt()
            messages[name] = "no error"
        except (ValueError, RuntimeError) as error:
            messages[name] = f"{type(error).__name__}: {error}"
    return messages


def fail(rank: int, folder: Path, way: str) -> None:
    """Fit, and then again, while the last process raises an error, or is killed."""
    X, y, _ = data("digits")
    own = own_part(rank, len(X))

    def disturb(net: Any, **kwargs: Any) -> None:
        if rank == 2 and way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 2:
            raise ZeroDivisionError("a fault of the callback's")

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=3)
    model = SoftmaxClassifier(solver="sgd", max_iter=3, random_state=0, device="cpu")
    with shards(timeout=300):
        model.fit(X[own], y[own])
        before, start, message = learned(model, X), time.monotonic(), ""
        model.set_params(callbacks=[Disturbing(disturb)])
        try:
            model.fit(X[own], y[own])
        except LostProcessError as error:
            message = str(error)
        except ZeroDivisionError:
            message = "its own"
    found = {"before": before, "after": learned(model, X), "message": message, "seconds": time.monotonic() - start}
    (folder / f"found{rank}").write_bytes(pickle.dumps(found))
    os._exit(0)  # what is left of the group would wait for the process that is gone


class Disturbing(EpochScoring):
    """A callback that does something after the second epoch."""

    def __init__(self, disturb: Any):
        super().__init__("accuracy")
        self.disturb = disturb

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Do it."""
        if len(net.history) == 2:
            self.disturb(net)
