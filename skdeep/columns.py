"""Column statistics, for training in centred and scaled columns, and for the step size that they allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep._stack import to_numpy64
from skdeep.batching import MAX_VALUES, DenseRows, SparseRows
from skdeep.networks import transposed_product

_CHUNK_ROWS = 1024  # small enough for a chunk to stay in the cache between its two passes
_SAMPLE_ROWS = 2048  # rows that the step size is judged by
_POWER_STEPS = 20
_GRAM_COLUMNS = 512  # up to which the products of all columns cost less than so many passes over the rows


@dataclass
class Columns:
    """Weighted mean and variance of each column, to which further data can be added (Chan et al. 1983).

    Attributes
    ----------
    weight : ndarray of shape (d,)
        Total weight of the rows seen, where they are not missing (NaN).
    missing : ndarray of shape (d,)
        Total weight of the rows where they are.
    mean, variance : ndarray of shape (d,)
        Of dense columns; zero for sparse ones.
    largest : ndarray of shape (d,)
        Largest magnitude in sparse columns; zero for dense ones.
    rounding : float
        Relative rounding error of the values.
    """

    weight: np.ndarray
    missing: np.ndarray
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
                if X.layout is torch.sparse_csr:
                    largest.scatter_reduce_(0, X.col_indices().long(), X.values().abs(), "amax")
                else:
                    torch.maximum(largest, X.abs().amax(0), out=largest)
            return cls(zero + n, zero, zero, zero, to_numpy64(largest), rounding)
        total = None
        shift = squares = None
        for start in range(0, n, _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            X = rows.take(part if subset is None else torch.from_numpy(subset[part]))
            if weight is None:
                w = np.ones(len(X))
            else:
                w = weight[part] if subset is None else weight[subset[part]]
                if not w.any():
                    continue
            if shift is None or squares is None:
                # near the mean, so that the variance is no small difference of large sums
                shift, squares = X.nanmean(0).nan_to_num_(), torch.empty_like(X)
            # products with a vector: ten times faster than reductions along the columns
            share = torch.from_numpy(w / w.sum()).to(X)
            centred = torch.sub(X, shift, out=squares[: len(X)])
            mean, known, gone = share @ centred, torch.ones_like(shift), torch.zeros_like(shift)
            if mean.isnan().any():  # two sums: a column without missing values has exactly none
                known, gone = share @ (~X.isnan()).to(X), share @ X.isnan().to(X)
                mean = share @ centred.nan_to_num_(nan=0.0) / known
            variance = share @ centred.square_() / known - mean.square()
            moments = torch.where(known > 0, torch.stack([mean + shift, variance.clamp_(min=0)]), 0.0)
            means, variances = to_numpy64(moments)
            weights, missing = w.sum() * to_numpy64(torch.stack([known, gone]))
            chunk = cls(weights, missing, means, variances, zero, rounding)
            total = chunk if total is None else total.merged(chunk)
        assert total is not None  # there is at least one row
        return total

    @classmethod
    def of_models(
        cls,
        rows: DenseRows | SparseRows,
        subsets: list[np.ndarray | None],
        weights: list[np.ndarray | None],
        known: Columns | None = None,
    ) -> list[Columns]:
        """Statistics of the rows of each model of a stack, and of those `known`; models with the same share them."""
        measured: dict[tuple[int, int], Columns] = {}
        pairs = list(zip(subsets, weights, strict=True))
        for subset, weight in pairs:
            if (id(subset), id(weight)) not in measured:
                columns = cls.measure(rows, subset, weight)
                measured[id(subset), id(weight)] = columns if known is None else known.merged(columns)
        return [measured[id(subset), id(weight)] for subset, weight in pairs]

    def merged(self, other: Columns) -> Columns:
        """Statistics of both sets of rows together."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        shift = other.mean - self.mean
        return Columns(
            weight,
            self.missing + other.missing,
            self.mean + share * shift,
            (1 - share) * self.variance + share * other.variance + share * (1 - share) * shift**2,
            np.maximum(self.largest, other.largest),
            max(self.rounding, other.rounding),
        )

    def indicators(self, index: np.ndarray) -> Columns:
        """Statistics of the columns that are 1 where those of `index` are missing, and else 0."""
        weight, missing = self.weight[index], self.missing[index]
        share = missing / (weight + missing)
        zero = np.zeros_like(share)
        return Columns(weight + missing, zero, share, share * (1 - share), zero, self.rounding)

    def sizes(self, centered: bool, rounding: float = 0.0) -> np.ndarray:
        """How large each column is, (d,).

        The standard deviation where columns are centred, the root mean square where there is no intercept to centre by,
        the maximum for sparse data (where few non-zeros would make for a tiny deviation, and a huge factor). A column
        that is constant up to rounding (that of the values, or a larger one) is taken for one of the order of one.
        """
        magnitude = np.maximum(np.sqrt(self.variance + self.mean**2), self.largest)
        size = np.sqrt(self.variance) if centered else magnitude
        constant = size <= 10 * max(self.rounding, rounding) * magnitude
        return np.where(constant, np.maximum(magnitude, 1.0), size)


def gram_extents(
    rows: DenseRows | SparseRows,
    subsets: list[np.ndarray | None],
    center: Tensor | None,
    scale: Tensor | None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Largest eigenvalue and trace of :math:`\frac1n \tilde X^T \tilde X`, for the columns as each model sees them.

    These are the columns :math:`(x - \mu) s` and one of ones; from an evenly spaced sample of rows, by power iteration.

    Parameters
    ----------
    rows : DenseRows or SparseRows
    subsets : list of (ndarray or None)
        Rows of each model.
    center, scale : Tensor of shape (K, 1, d) or (1, 1, d), or None
        :math:`\mu` and s of each model, or of all; None for zeros, or ones.

    Returns
    -------
    largest, trace : ndarray of shape (K,)
    """
    largest, trace = np.empty(len(subsets)), np.empty(len(subsets))
    by_rows: dict[int, list[int]] = {}
    for m, subset in enumerate(subsets):
        by_rows.setdefault(id(subset), []).append(m)
    for models in by_rows.values():
        of_models = (None if c is None else (c if len(c) == 1 else c[models]).squeeze(1).T for c in (center, scale))
        largest[models], trace[models] = _gram_extent(rows, subsets[models[0]], *of_models)
    return largest, trace


def _gram_extent(rows, subset, center: Tensor | None, scale: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """`gram_extents` of models that share their rows; center and scale are (d, K)."""
    n = len(rows) if subset is None else len(subset)
    picked = np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(np.int64)
    X = rows.take(torch.from_numpy(picked if subset is None else subset[picked]))
    m, d = X.shape
    like = X.values() if X.layout is torch.sparse_csr else X
    mu = like.new_zeros(d, 1) if center is None else center
    s = like.new_ones(d, 1) if scale is None else scale
    n_models = max(mu.shape[1], s.shape[1])
    if X.layout is torch.sparse_csr:
        squares = like.new_zeros(d).index_add_(0, X.col_indices(), like.square()).unsqueeze(1)  # sparse: no center
        total = transposed_product(X, like.new_ones(m, 1))
    else:
        X, mu = X - mu[:, 0], mu - mu[:, :1]  # from here on, as the first model has them
        total = X.sum(0).unsqueeze(1)
        squares = X.square().sum(0).unsqueeze(1) - 2 * mu * total + m * mu.square()
    square = (squares * s.square()).sum(0)
    gram = X.t() @ X if X.layout is torch.strided and d <= _GRAM_COLUMNS else None

    def product(w):
        """X.T @ X @ w."""
        if X.layout is torch.sparse_csr:
            return transposed_product(X, X @ w)
        return X.t() @ (X @ w) if gram is None else gram @ w

    v = s.new_full((d, n_models), d**-0.5)
    c = v.new_ones(n_models)
    norm = c
    for _ in range(_POWER_STEPS):
        w = s * v
        offset = c - (mu * w).sum(0)
        of_one = (total * w).sum(0) + m * offset
        v, c = s * (product(w) + total * offset - mu * of_one) / m, of_one / m
        norm = torch.sqrt(v.square().sum(0) + c * c)
        v, c = v / norm, c / norm
    return to_numpy64(norm), to_numpy64(square) / m + 1.0
