"""Column statistics, for training in centred and scaled columns, and for the step size that they allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep.batching import MAX_VALUES, DenseRows, SparseRows

_CHUNK_ROWS = 1024  # small enough for a chunk to stay in the cache between its two passes
_SAMPLE_ROWS = 2048  # rows that the step size is judged by


@dataclass
class Columns:
    """Weighted mean and variance of each column, to which further data can be added (Chan et al. 1983).

    Attributes
    ----------
    weight : float
        Total weight of the rows seen.
    mean, variance : ndarray of shape (d,)
        Of dense columns; zero for sparse ones.
    largest : ndarray of shape (d,)
        Largest magnitude in sparse columns; zero for dense ones.
    rounding : float
        Relative rounding error of the values.
    """

    weight: float
    mean: np.ndarray
    variance: np.ndarray
    largest: np.ndarray
    rounding: float

    @classmethod
    def measure(cls, rows: DenseRows | SparseRows, subset: np.ndarray | None, weight: np.ndarray | None) -> Columns:
        """Statistics of the rows in `subset` (None: all), streamed."""
        n = len(rows) if subset is None else len(subset)
        rounding = torch.finfo(rows.dtype).eps
        zero = np.zeros(rows.n_features)
        if isinstance(rows, SparseRows):
            largest = torch.zeros(rows.n_features, dtype=rows.dtype, device=rows.device)
            step = max(1, MAX_VALUES // rows.row_values)
            for start in range(0, n, step):
                part = slice(start, start + step)
                X = rows.take(part if subset is None else torch.from_numpy(subset[part]))
                largest.scatter_reduce_(0, X.col_indices(), X.values().abs(), "amax")
            return cls(float(n), zero, zero.copy(), largest.double().cpu().numpy(), rounding)
        total = None
        shift = squares = None
        for start in range(0, n, _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            X = rows.take(part if subset is None else torch.from_numpy(subset[part]))
            if weight is None:
                w = np.ones(len(X))
            else:
                w = weight[part] if subset is None else weight[subset[part]]
            if shift is None or squares is None:
                # near the mean, so that the variance is no small difference of large sums
                shift, squares = X.mean(0), torch.empty_like(X)
            # two products with a vector: ten times faster than reductions along the columns
            share = torch.from_numpy(w / w.sum()).to(X)
            centred = torch.sub(X, shift, out=squares[: len(X)])
            mean = share @ centred
            variance = share @ centred.square_() - mean.square()
            moments = ((mean + shift).double().cpu().numpy(), variance.clamp_(min=0).double().cpu().numpy())
            chunk = cls(float(w.sum()), *moments, zero, rounding)
            total = chunk if total is None else total.merged(chunk)
        assert total is not None  # there is at least one row
        return total

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
            max(self.rounding, other.rounding),
        )

    def change_of_variables(self, center: bool, sparse: bool, ridge: float) -> tuple[np.ndarray | None, np.ndarray]:
        """Center (d,) or None, and scale (d,): the factor that brings a column to unit curvature.

        Unit standard deviation where columns may be centred, unit root mean square where there is no intercept to
        centre by, unit maximum for sparse data (where few non-zeros would make for a tiny deviation, and a huge
        factor); plus `ridge`, the curvature of the penalty relative to the loss's, without which it would be the
        penalty that is badly scaled. A column that is constant up to rounding is only brought to the order of one.
        """
        magnitude = np.maximum(np.sqrt(self.variance + self.mean**2), self.largest)
        size = np.sqrt(self.variance) if center and not sparse else magnitude
        constant = size <= 10 * self.rounding * magnitude
        size = np.where(constant, np.maximum(magnitude, 1.0), size)
        return (self.mean if center and not sparse else None), 1 / np.sqrt(size**2 + ridge)


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
