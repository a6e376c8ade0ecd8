"""Column statistics, for training in centred and scaled columns, and for the step size that they allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep.batching import DenseRows, SparseRows

_CHUNK_ROWS = 1024  # small enough for a chunk to stay in the cache between its two passes
_SAMPLE_ROWS = 2048  # rows that the step size is judged by


@dataclass
class Columns:
    """Weighted mean, variance and largest magnitude of each column; data can be added to it (Chan et al. 1983).

    Attributes
    ----------
    weight : float
        Total weight of the rows seen.
    mean, variance, largest : ndarray of shape (d,)
    sparse : bool
        Whether the columns must not be centred.
    """

    weight: float
    mean: np.ndarray
    variance: np.ndarray
    largest: np.ndarray
    sparse: bool

    @classmethod
    def measure(cls, rows: DenseRows | SparseRows, subset: np.ndarray | None, weight: np.ndarray | None) -> Columns:
        """Statistics of the rows in `subset` (None: all), streamed."""
        n = len(rows) if subset is None else len(subset)
        total = cls(0.0, *(np.zeros(rows.n_features) for _ in range(3)), sparse=isinstance(rows, SparseRows))
        if total.sparse:
            return total.merged(cls._of_sparse(rows, subset, weight))
        for start in range(0, n, _CHUNK_ROWS):
            end = min(start + _CHUNK_ROWS, n)
            index = slice(start, end) if subset is None else torch.from_numpy(subset[start:end])
            X = rows.take(index)
            w = None if weight is None else weight[start:end] if subset is None else weight[subset[start:end]]
            if w is None:
                variance, mean = torch.var_mean(X, dim=0, correction=0)
                size = float(end - start)
            else:
                size = float(w.sum())
                share = torch.from_numpy(w / size).to(X)
                mean = share @ X
                variance = share @ (X - mean).square_()
            largest = X.abs().amax(0)
            part = cls(size, *(t.double().cpu().numpy() for t in (mean, variance, largest)), sparse=False)
            total = total.merged(part)
        return total

    @classmethod
    def _of_sparse(cls, rows: SparseRows, subset, weight) -> Columns:
        X = rows.take(slice(None) if subset is None else torch.from_numpy(subset))
        largest = X.values().new_zeros(rows.n_features)
        largest.scatter_reduce_(0, X.col_indices(), X.values().abs(), "amax")
        size = float(X.shape[0]) if weight is None else float((weight if subset is None else weight[subset]).sum())
        zero = np.zeros(rows.n_features)
        return cls(size, zero, zero.copy(), largest.double().cpu().numpy(), sparse=True)

    def merged(self, other: Columns) -> Columns:
        """Statistics of both sets of rows together."""
        weight = self.weight + other.weight
        share = other.weight / weight
        shift = other.mean - self.mean
        return Columns(
            weight,
            self.mean + share * shift,
            (1 - share) * self.variance + share * other.variance + share * (1 - share) * shift**2,
            np.maximum(self.largest, other.largest),
            self.sparse or other.sparse,
        )

    def change_of_variables(self, center: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """Center (d,) or None, and scale (d,): the factor that brings a column to unit size.

        Unit standard deviation where columns may be centred, unit root mean square where there is no intercept to
        centre by, unit maximum for sparse data (where few non-zeros would make for a tiny deviation, and a huge
        factor). A column that is constant up to rounding is only brought to the order of one.
        """
        if self.sparse:
            size = self.largest
        else:
            size = np.sqrt(self.variance if center else self.variance + self.mean**2)
        constant = size <= 1e-7 * self.largest
        size = np.where(constant, np.maximum(self.largest, 1.0), size)
        return (self.mean if center and not self.sparse else None), 1 / size


def gram_extent(
    rows: DenseRows | SparseRows, subset: np.ndarray | None, center: Tensor | None, scale: Tensor | None
) -> tuple[float, float]:
    r"""Largest eigenvalue and trace of :math:`\frac1n \tilde X^T \tilde X`, the columns as trained on plus a one.

    From an evenly spaced sample of rows, by power iteration.
    """
    n = len(rows) if subset is None else len(subset)
    picked = np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(np.int64)
    X = rows.take(torch.from_numpy(picked if subset is None else subset[picked]))
    mu = X.values().new_zeros(X.shape[1]) if isinstance(rows, SparseRows) else X.new_zeros(X.shape[1])
    s = torch.ones_like(mu)
    mu = mu if center is None else center.flatten()
    s = s if scale is None else scale.flatten()
    m = len(picked)
    if X.layout is torch.sparse_csr:
        square = X.values().square() @ s.square()[X.col_indices()]
    else:
        square = ((X - mu).mul_(s)).square_().sum()
    v = torch.full_like(mu, len(mu) ** -0.5)
    c = v.new_ones(())
    value = 0.0
    for _ in range(20):
        u = X @ (s * v) - (mu @ (s * v)) + c
        Xu = X.t() @ u
        v, c = s * (Xu - mu * u.sum()) / m, u.sum() / m
        norm = torch.sqrt(v @ v + c * c)
        v, c = v / norm, c / norm
        value = float(norm)
    return value, float(square) / m + 1.0
