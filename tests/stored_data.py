"""Data that is not in memory, for tests: an array that counts what is read, models, and small windows."""

import functools

import numpy as np
import pytest
import torch
from helpers import set_constant

from skdeep import (
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)

N, D, C = 1500, 6, 3


class InFile:
    """An array that is read by slices of a few rows at a time, and counts what is read."""

    def __init__(self, X, most=N, unit=None):
        self.X, self.shape, self.dtype, self.most, self.n_read = X, X.shape, X.dtype, most, 0
        if unit is not None:
            self.chunks = (unit, X.shape[1])

    def __getitem__(self, rows):
        assert isinstance(rows, slice) and rows.step is None
        assert rows.stop - rows.start <= self.most, "too much at once"
        self.n_read += rows.stop - rows.start
        return self.X[rows]

    def __array__(self, *_, **__):
        raise AssertionError("read as a whole")


@functools.cache
def data(by_label=False):
    rng = np.random.default_rng(0)
    y = rng.integers(C, size=N)
    X = rng.normal(size=(C, D))[y] + 1.5 * rng.normal(size=(N, D))
    order = np.argsort(y, kind="stable") if by_label else slice(None)
    return X[order], y[order]


def make_windows_small(monkeypatch):
    """Blocks of 16 rows, and 12 of them in a window."""
    set_constant(monkeypatch, "BLOCK_BYTES", 16 * D * 8)
    set_constant(monkeypatch, "WINDOW_BYTES", 12 * 16 * D * 8)


MAKE = {
    "softmax": lambda: SoftmaxClassifier(solver=SGD(batch_size=32), max_iter=4, random_state=0),
    "softmax, early stopping": lambda: SoftmaxClassifier(
        solver=Adam(batch_size=32), max_iter=4, early_stopping=True, random_state=0
    ),
    "L-BFGS": lambda: SoftmaxClassifier(solver="lbfgs", random_state=0, tol=1e-8),
    "hinge, calibrated": lambda: HingeClassifier(
        solver=SGD(batch_size=32), max_iter=3, calibration="temperature", random_state=0
    ),
    "sigmoid": lambda: SigmoidClassifier(solver=SGD(batch_size=32), max_iter=3, random_state=0),
    "least squares": lambda: LeastSquaresClassifier(),
    "MLP": lambda: MLPClassifierTorch((4,), max_iter=3, random_state=0),
    "MLP, validation": lambda: MLPClassifierTorch((4,), max_iter=3, early_stopping=True, random_state=0),
    "module": lambda: TorchClassifier(torch.nn.LazyLinear, {"out_features": C}, max_iter=2, random_state=0),
}
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def chunks_of(X, y, weight=None, size=130):
    parts = (X, y) if weight is None else (X, y, weight)
    return lambda: (tuple(part[s : s + size] for part in parts) for s in range(0, len(X), size))
