"""From a case to arrays: features in some container, labels of some kind, weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from fuzzing.cases import Case, get

#: Rows beyond the training rows: for prediction, and as validation data.
N_NEW = 8

SPARSE = {"csr", "csc", "float32 csr"}
#: Containers that hold the values as they are.
FAITHFUL = ["frame", "column-major", "list", "read-only", "strided", "tensor", "big-endian"]


@dataclass
class Data:
    """What is passed to fit, and what is known of it.

    Attributes
    ----------
    values : ndarray of shape (n, d), float64
        The features, as the container holds them.
    X : container
    codes : ndarray of shape (n,), or (n, C) for indicators
    y : labels
    sample_weight : ndarray or list or None
    new : ndarray of shape (8, d), float64
    X_new : container
    new_codes : ndarray
    container : str
    """

    values: np.ndarray
    X: Any
    codes: np.ndarray
    y: Any
    sample_weight: Any
    new: np.ndarray
    X_new: Any
    new_codes: np.ndarray
    container: str
    label_names: Any

    @property
    def weight(self) -> np.ndarray:
        """The weights (n,) as float64."""
        if self.sample_weight is None:
            return np.ones(len(self.values))
        return np.asarray(self.sample_weight, dtype=np.float64)

    def with_rows(self, rows: np.ndarray, sample_weight: np.ndarray | None) -> Data:
        """Some of the rows, or some of them more than once."""
        values, codes = self.values[rows], self.codes[rows]
        return replace(
            self,
            values=values,
            X=contained(values, self.container),
            codes=codes,
            y=labelled(codes, self.label_names),
            sample_weight=sample_weight,
        )

    def with_columns(self, change) -> Data:
        """The data with its columns changed."""
        values, new = change(self.values), change(self.new)
        return replace(
            self, values=values, new=new, X=contained(values, self.container), X_new=contained(new, self.container)
        )

    def with_labels(self, names: str) -> Data:
        return replace(self, label_names=names, y=labelled(self.codes, names))

    def in_container(self, container: str) -> Data:
        """The same values in another container."""
        return replace(
            self, container=container, X=contained(self.values, container), X_new=contained(self.new, container)
        )


def make(case: Case) -> Data:
    """The data of a case."""
    rng = np.random.default_rng(get(case, "data_seed"))
    n, d, n_classes = get(case, "rows"), get(case, "columns"), get(case, "classes")
    base = _base(rng, n + N_NEW, d, get(case, "values"))
    if get(case, "repeated_rows"):
        base[:n] = base[rng.integers(max(1, n // 3), size=n)]
    codes = _codes(rng, base, n_classes, get(case, "signal"))
    if get(case, "labels") == "indicators":
        codes = (
            (np.column_stack([codes, codes]) + np.arange(2)) % 2
            if n_classes < 3
            else np.eye(n_classes, dtype=int)[codes]
        )
        codes[rng.random(len(codes)) < 0.3] = 1
    elif n >= n_classes:
        codes[:n_classes] = np.arange(n_classes)
    if codes.ndim == 1:  # consecutive ones; a class that only the new rows have comes last
        there = np.unique(codes[:n])
        codes = np.where(np.isin(codes, there), np.searchsorted(there, codes), len(there))
    with np.errstate(over="ignore", invalid="ignore"):
        values = _scaled(rng, base, get(case, "scale"), get(case, "mean"))
        where = {"some": rng.random(values.shape) < 0.15, "a column": np.arange(d) == d - 1}.get(get(case, "missing"))
        if where is not None:
            values = np.where(where, np.nan, values)
        elif get(case, "missing") == "a row":
            values[1] = np.nan
        container = get(case, "container")
        X, X_new = contained(values[:n], container), contained(values[n:], container)
    exact = {"float32": np.float32, "float32 csr": np.float32, "float16": np.float16}.get(container)
    if exact or container in ("integers", "bytes"):
        values = np.asarray(_plain(X), dtype=np.float64), np.asarray(_plain(X_new), dtype=np.float64)
        values = np.concatenate(values)
    names = get(case, "labels")
    return Data(
        values[:n],
        X,
        codes[:n],
        labelled(codes[:n], names),
        _weights(rng, codes[:n], get(case, "weights")),
        values[n:],
        X_new,
        codes[n:],
        container,
        names,
    )


def _plain(X):
    return X.toarray() if sparse.issparse(X) else np.asarray(X)


def _base(rng, n: int, d: int, kind: str) -> np.ndarray:
    Z = rng.normal(size=(n, d))
    if kind == "ties":
        Z = rng.integers(3, size=(n, d)).astype(float)
    elif kind == "binary":
        Z = rng.integers(2, size=(n, d)).astype(float)
    elif kind == "one-hot":
        Z = np.eye(d)[rng.integers(d, size=n)]
    elif kind == "constant":
        Z[:, 0] = 1.0
    elif kind == "zeros":
        Z[:] = 0.0
    elif kind == "copies":
        Z[:] = Z[:, :1]
    elif kind == "collinear":
        Z[:, -1] = Z[:, :-1].sum(1)
    elif kind == "outlier":
        Z[rng.integers(n), rng.integers(d)] = 1e4
    return Z


def _codes(rng, Z: np.ndarray, n_classes: int, signal: str) -> np.ndarray:
    n, d = Z.shape
    scores = Z @ rng.normal(size=(d, n_classes)) + rng.normal(size=n_classes) / 2
    noise = rng.gumbel(size=(n, n_classes))
    if signal == "none":
        return rng.integers(n_classes, size=n)
    if signal == "separable":
        return scores.argmax(1)
    if signal == "xor":
        return (Z[:, :2] > 0).sum(1) % n_classes
    if signal == "rare":
        return np.where(rng.random(n) < 0.9, 0, rng.integers(n_classes, size=n))
    return (2 * scores + noise).argmax(1)


def _scaled(rng, Z: np.ndarray, scale, mean: float) -> np.ndarray:
    if scale == "mixed":
        scale = 10.0 ** rng.uniform(-4, 4, Z.shape[1])
    elif scale == "very mixed":
        scale = 10.0 ** rng.uniform(-100, 100, Z.shape[1])
    return (Z + mean) * scale


def contained(values: np.ndarray, container: str):
    """The values in a container."""
    n, d = values.shape
    if container == "float32":
        return values.astype(np.float32)
    if container in SPARSE:
        matrix = sparse.csr_array(values.astype(np.float32 if container == "float32 csr" else np.float64))
        return matrix.tocsc() if container == "csc" else matrix
    if container == "frame":
        return pd.DataFrame(values, columns=[f"column {i}" for i in range(d)])
    if container == "column-major":
        return np.asfortranarray(values)
    if container == "integers":
        return np.clip(np.nan_to_num(np.rint(values)), -(2.0**62), 2.0**62).astype(np.int64)
    if container == "bytes":
        return np.clip(np.nan_to_num(np.rint(values)), 0, 255).astype(np.uint8)
    if container == "list":
        return values.tolist()
    if container == "read-only":
        copy = values.copy()
        copy.setflags(write=False)
        return copy
    if container == "strided":
        return np.repeat(np.repeat(values[::-1], 2, axis=0), 2, axis=1)[::-2, ::2]
    if container == "tensor":
        return torch.tensor(values.copy())
    if container == "float16":
        return values.astype(np.float16)
    if container == "big-endian":
        return values.astype(">f8")
    return values.copy()


def labelled(codes: np.ndarray, names: str):
    """Labels for class codes; their order is that of the codes."""
    if codes.ndim == 2:
        return codes.copy()
    if names == "strings":
        return np.array([f"class {code}" for code in codes])
    if names == "objects":
        return np.array([f"class {code}" for code in codes], dtype=object)
    if names == "booleans" and codes.max(initial=0) < 2:
        return codes.astype(bool)
    if names == "floats":
        return codes.astype(float)
    if names == "negative":
        return 2 * codes - 3
    if names == "list":
        return [str(code) for code in codes]
    return codes.copy()


def _weights(rng, codes: np.ndarray, kind: str | None):
    n = len(codes)
    uniform = rng.uniform(0.1, 2.0, n)
    if kind is None:
        return None
    if kind == "ones":
        return np.ones(n)
    if kind == "zeros":
        return np.where(rng.random(n) < 0.4, 0.0, uniform)
    if kind == "counts":
        return rng.integers(0, 4, n).astype(float)
    if kind == "a class of zeros":
        last = codes if codes.ndim == 1 else codes[:, 0]
        return np.where(last == last.max(), 0.0, 1.0)
    if kind == "one row":
        return np.eye(n)[n // 2]
    if kind == "sum to one":
        return uniform / uniform.sum()
    if kind == "tiny":
        return uniform * 1e-12
    if kind == "huge":
        return uniform * 1e12
    if kind == "spread":
        return 10.0 ** rng.uniform(-3, 3, n)
    if kind == "wild":
        return 10.0 ** rng.uniform(-200, 200, n)
    if kind == "float32":
        return uniform.astype(np.float32)
    if kind == "list":
        return uniform.tolist()
    return uniform
