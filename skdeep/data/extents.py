"""How far columns reach in their widest direction, which limits the step size of gradient descent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.networks import transposed_product
from skdeep.engine.per_model import groups, to_numpy64
from skdeep.engine.shards import AnyRows

#: Rows that the step size is judged by, and steps of the power iteration.
_SAMPLE_ROWS, _POWER_STEPS = 2048, 20


def gram_extents(
    rows: AnyRows, subsets: list[np.ndarray | None], center: Tensor | None, scale: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Estimate the largest eigenvalue, and the trace, (K,) of :math:`\frac1n \tilde X^T \tilde X` for each model.

    These are the columns :math:`(x - \mu) s` and one of ones; from an evenly spaced sample of the rows of each model,
    by power iteration. The center :math:`\mu` and the scale s are (K, 1, d), or (1, 1, d) of all models; None is zeros,
    or ones.
    """
    largest, trace = np.empty(len(subsets)), np.empty(len(subsets))
    for models in groups(subsets):
        of_models = (None if c is None else (c if len(c) == 1 else c[models]).squeeze(1).T for c in (center, scale))
        largest[models], trace[models] = _gram_extent(rows, subsets[models[0]], *of_models)
    return largest, trace


def _gram_extent(
    rows: AnyRows, subset: np.ndarray | None, center: Tensor | None, scale: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `gram_extents` of models that share their rows; center and scale are (d, K)."""
    X = rows.spread(subset, _SAMPLE_ROWS)
    m, d = X.shape
    like = X.values() if X.layout is torch.sparse_csr else X
    mu = like.new_zeros(d, 1) if center is None else center
    s = like.new_ones(d, 1) if scale is None else scale
    if X.layout is torch.sparse_csr:
        squares = like.new_zeros(d).index_add_(0, X.col_indices(), like.square()).unsqueeze(1)  # sparse: no center
        total = transposed_product(X, like.new_ones(m, 1))
    else:
        X, mu = X - mu[:, 0], mu - mu[:, :1]  # from here on, as the first model has them
        total = X.sum(0).unsqueeze(1)
        squares = X.square().sum(0).unsqueeze(1) - 2 * mu * total + m * mu.square()
    square = (squares * s.square()).sum(0)
    return to_numpy64(_largest_eigenvalues(X, total, mu, s)), to_numpy64(square) / m + 1.0


def _largest_eigenvalues(X: Tensor, total: Tensor, mu: Tensor, s: Tensor) -> Tensor:
    """Find the largest eigenvalues (K,) by power iteration, each step of which passes over the rows."""
    (m, d), n_models = X.shape, max(mu.shape[1], s.shape[1])
    v = s.new_full((d, n_models), d**-0.5)
    c = v.new_ones(n_models)
    norm = c
    for _ in range(_POWER_STEPS):
        w = s * v
        offset = c - (mu * w).sum(0)
        of_one = (total * w).sum(0) + m * offset
        of_rows = X @ w
        product = transposed_product(X, of_rows) if X.layout is torch.sparse_csr else X.t() @ of_rows
        v, c = s * (product + total * offset - mu * of_one) / m, of_one / m
        norm = torch.sqrt(v.square().sum(0) + c * c)
        v, c = v / norm, c / norm
    return norm
