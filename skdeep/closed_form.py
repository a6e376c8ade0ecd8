r"""Linear least squares with a ridge, in closed form: one factorisation for all strengths of the penalty.

With rows centred and weighted by the roots of their shares in the total weight, :math:`A = U S V^T`, and targets B
alike, the minimum of :math:`\tfrac12 \|A W - B\|^2 + \tfrac\alpha2 \|W\|^2` is

.. math:: W = V \frac{S}{S^2 + \alpha} U^T B

over the singular values that are not zero up to the rounding of A and X; for :math:`\alpha = 0` this is the solution
of the smallest norm. Rows are passed over in chunks, each folded into a triangular factor that has the same singular
values, so that :math:`A^T A`, whose condition is the square of A's, is never formed. Only sparse data with more columns
than rows goes by :math:`A A^T`, since A would be dense.

References
----------
Golub & Van Loan, *Matrix Computations*, 4th edition, sections 5.5 and 6.1. Demmel et al., *Communication-optimal
parallel and sequential QR and LU factorizations*, SIAM J. Sci. Comput. 34(1), 2012.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skdeep.batching import MAX_VALUES, DenseRows, SparseRows
from skdeep.networks import transposed_product


def rounding(n_rows: int, n_features: int, sparse: bool) -> float:
    """Share of the largest singular value below which one is taken for zero."""
    limit = max(n_rows, n_features) * torch.finfo(torch.float64).eps
    return limit**0.5 if sparse and n_rows <= n_features else limit


class Ridge:
    r"""Least squares on some rows, to be solved for any alpha.

    Parameters
    ----------
    rows : DenseRows or SparseRows
    subset : ndarray of shape (m,), or None
        Indices of the rows to learn from; None for all.
    target : Tensor of shape (n, C)
        Indicators of 0 and 1, which stand for -1 and 1.
    weight : ndarray of shape (n,), or None
        Weight of each row; None for ones.
    fit_intercept : bool
    """

    def __init__(
        self,
        rows: DenseRows | SparseRows,
        subset: np.ndarray | None,
        target: Tensor,
        weight: np.ndarray | None,
        fit_intercept: bool,
    ):
        self.rows, self.subset, self.target = rows, subset, target
        self.n_rows = len(rows) if subset is None else len(subset)
        self.device = rows.device  # with float64
        share = np.ones(len(rows)) if weight is None else weight
        share = share if subset is None else share[subset]
        self.root = torch.from_numpy(np.sqrt(share / share.sum())).to(self.device)
        self.shape = rows.n_features, target.shape[1]
        self.center, self.level = (self._exact(torch.zeros(size)) for size in self.shape)
        self._by_rows = isinstance(rows, SparseRows) and self.n_rows <= rows.n_features
        if fit_intercept:
            self.center, self.level = self._means()
        left, self.singular, self.right, B = (self._factors_by_rows if self._by_rows else self._factors)()
        limit = rounding(self.n_rows, rows.n_features, isinstance(rows, SparseRows))
        least = limit * self.singular.max() if len(self.singular) else 0.0
        if not self._by_rows:  # of columns far from zero, the last digits are what X itself has lost
            size = self.center if rows.frame is None else self.center + self._exact(torch.as_tensor(rows.frame.origin))
            noise = 2 * torch.finfo(torch.float64).eps * torch.linalg.vector_norm(self.right * size[:, None], dim=0)
            least = noise.clamp(min=least)
        kept = self.singular > least
        self.singular, self.right, self.along = self.singular[kept], self.right[:, kept], left[:, kept].T @ B
        #: Squared norm of what no weights can explain.
        self.rest = max(0.0, (B.square().sum() - self.along.square().sum()).item())

    def _exact(self, values: Tensor) -> Tensor:
        return values.to(self.device, torch.float64)

    def _chunks(self, n_rows: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, targets of ±1 and root shares, so many at a time."""
        for start in range(0, self.n_rows, n_rows):
            part = slice(start, min(start + n_rows, self.n_rows))
            index = part if self.subset is None else torch.from_numpy(self.subset[part])
            of_targets = index if isinstance(index, slice) else index.to(self.target.device)
            target = 2 * self._exact(self.target[of_targets]) - 1
            yield self._exact(self.rows.take(index)), target, self.root[part]

    def _means(self) -> tuple[Tensor, Tensor]:
        """Weighted means of the columns and of the targets."""
        shift, mean = None, self.center
        level = self.level
        for X, Y, root in self._chunks(max(1, MAX_VALUES // self.rows.n_features)):
            share = root.square()
            level = level + share @ Y
            if self._by_rows:
                mean = mean + transposed_product(X, share.unsqueeze(1)).squeeze(1)
                continue
            X = X.to_dense() if X.layout is torch.sparse_csr else X
            if shift is None:
                shift = X[0].clone()  # a constant column differs from it, and so from its mean, by nothing at all
            mean = mean + share @ (X - shift)
        return mean if shift is None else mean + shift, level

    def _factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U, S, V and targets of a problem with the same solutions, of at most d + C rows where there were more."""
        n_features, n_targets = self.shape
        most = n_features + n_targets
        reduced = self.root.new_empty(0, most)
        for X, Y, root in self._chunks(max(MAX_VALUES // n_features, 2 * most)):
            X = X.to_dense() if X.layout is torch.sparse_csr else X
            chunk = torch.cat([X - self.center, Y - self.level], dim=1).mul_(root.unsqueeze(1))
            reduced = torch.cat([reduced, chunk])
            if len(reduced) > most:
                reduced = torch.linalg.qr(reduced, mode="r").R
        A, B = reduced.tensor_split([n_features], dim=1)
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U, S, Vh.T, B

    def _factors_by_rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U, S, the weights of the rows that make up V, and the targets, from the products of the rows."""
        ((X, Y, root),) = self._chunks(self.n_rows)
        products = self.root.new_empty(self.n_rows, self.n_rows)
        step = max(1, MAX_VALUES // self.rows.n_features)
        for start in range(0, self.n_rows, step):
            index = torch.arange(start, min(start + step, self.n_rows), device="cpu")
            chunk = index if self.subset is None else torch.from_numpy(self.subset[start : start + step])
            products[:, start : start + step] = X @ self._exact(self.rows.take(chunk)).to_dense().T
        if self.center.any():
            with_center = X @ self.center
            products += self.center @ self.center - with_center.unsqueeze(0) - with_center.unsqueeze(1)
        values, U = torch.linalg.eigh(products.mul_(root).mul_(root.unsqueeze(1)))
        S = values.clamp(min=0).sqrt()
        return U, S, U * root.unsqueeze(1) / S, (Y - self.level) * root.unsqueeze(1)

    def solve(self, alphas: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """Solutions for K values of alpha.

        Returns
        -------
        coef : Tensor of shape (K, C, d)
        intercept : Tensor of shape (K, C)
        value : ndarray of shape (K,)
            The objective there.
        """
        alpha = self._exact(torch.as_tensor(alphas)).view(-1, 1, 1)
        S = self.singular.unsqueeze(1)
        shrunk = S + alpha / S  # written so that no square overflows
        coordinates, left_over = self.along / shrunk, alpha / S / shrunk * self.along
        flat = self.right @ coordinates.transpose(0, 1).flatten(1)
        if self._by_rows:
            ((X, _, _),) = self._chunks(self.n_rows)
            flat = transposed_product(X, flat) - torch.outer(self.center, flat.sum(0))
        coef = flat.view(-1, len(alphas), self.shape[1]).permute(1, 2, 0)
        value = left_over.square().sum((1, 2)) + self.rest + alpha.flatten() * coordinates.square().sum((1, 2))
        return coef, self.level - coef @ self.center, value.cpu().numpy() / 2
