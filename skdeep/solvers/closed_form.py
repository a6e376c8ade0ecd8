r"""Linear least squares with a ridge, in closed form: one factorisation for all strengths of the penalty.

With rows centred and weighted by the roots of their shares in the total weight, :math:`A = U S V^T`, and targets B
alike, the minimum of :math:`\tfrac12 \|A W - B\|^2 + \tfrac\alpha2 \|W\|^2` is

.. math:: W = V \frac{S}{S^2 + \alpha} U^T B

over the singular values that are not zero up to the rounding of A and X; for :math:`\alpha = 0` this is the solution
of the smallest norm. Rows are passed over in chunks, each folded into a triangular factor that has the same singular
values, so that :math:`A^T A`, whose condition is the square of A's, is never formed. Only sparse data with more columns
than rows goes by :math:`A A^T`, since A would be dense. It is the way where products of columns or rows tell too little
(`skdeep.fitting.exactly`), or do not fit memory.

Golub & Van Loan, *Matrix Computations*, 4th edition, sections 5.5 and 6.1. Demmel et al., *Communication-optimal
parallel and sequential QR and LU factorizations*, SIAM J. Sci. Comput. 34(1), 2012.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.frame import Frame
from skdeep.engine.group import Group
from skdeep.engine.networks import scaled, transposed_product
from skdeep.engine.rows import MAX_VALUES, SparseRows
from skdeep.engine.shards import AnyRows, Shard, SharedRows


def rounding(n_rows: int, n_features: int, sparse: bool) -> float:
    """Compute the share of the largest singular value below which one is taken for zero."""
    limit = max(n_rows, n_features) * torch.finfo(torch.float64).eps
    return limit**0.5 if sparse and n_rows <= n_features else limit


class Ridge:
    r"""Least squares on some rows, to be solved for any alpha.

    Of shared rows, each process has its own factor, and all are folded into one. `subset` (m,) are the rows to learn
    from, None for all. Targets (n, C) are values, or indicators of 0 and 1, which stand for -1 and 1; weights are (n,),
    None for ones. `center` (d,) are the means of the columns where they are known: of constant columns, without any
    rounding. `unit` (d,) is what the penalty counts each column in: zero for a column that is constant, None for one.
    """

    def __init__(
        self,
        rows: AnyRows,
        subset: np.ndarray | None,
        target: Tensor,
        weight: np.ndarray | None,
        fit_intercept: bool,
        center: np.ndarray | None = None,
        unit: np.ndarray | None = None,
    ):
        self.rows, self.subset, self.device, self.group = rows.in_scratch(), subset, rows.device, Group()
        self.n_rows, self.shape = len(rows) if subset is None else len(subset), (rows.n_features, target.shape[1])
        self.target = target if subset is None else target[torch.from_numpy(subset).to(target.device)]
        share = np.ones(len(rows)) if weight is None else weight
        share = share if subset is None else share[subset]
        self.root = torch.from_numpy(np.sqrt(share / share.sum())).to(self.device)
        self.center, self.level = (self._exact(torch.zeros(size)) for size in self.shape)
        self.scale = None
        if unit is not None:
            self.scale = self._exact(torch.from_numpy(np.divide(1.0, unit, out=np.zeros_like(unit), where=unit > 0)))
        is_sparse = isinstance(rows.local, SparseRows)
        limit = rounding(self.n_rows, rows.n_features, is_sparse)
        self._by_rows = is_sparse and self.n_rows <= rows.n_features
        if not self._by_rows:
            first = self.center
            if fit_intercept and center is None:
                row = self._values(slice(0, 1))
                first = (row.to_dense() if row.layout is torch.sparse_csr else row)[0].clone()
            if isinstance(rows, SharedRows):
                self._keep_own(rows.shard)
        if fit_intercept:
            shift = self.center if self._by_rows else first
            self.center = self._means(shift) if center is None else self._exact(torch.from_numpy(center))
            self.level = self._level()
        left, singular, right, B = (self._factors_by_rows if self._by_rows else self._factors)()
        kept = singular > self._rounding(singular, right, limit, rows.frame)
        self.singular, self.right, self.along = singular[kept], right[:, kept], left[:, kept].T @ B
        #: Squared norm of what no weights can explain.
        self.rest = max(0.0, (B.square().sum() - self.along.square().sum()).item())

    def _exact(self, values: Tensor) -> Tensor:
        return values.to(self.device, torch.float64)

    def _parts(self, n_rows: int) -> Iterator[slice]:
        return (slice(start, min(start + n_rows, self.n_rows)) for start in range(0, self.n_rows, n_rows))

    def _values(self, part: slice) -> Tensor:
        return self._exact(self.rows.take(part if self.subset is None else torch.from_numpy(self.subset[part])))

    def _keep_own(self, shard: Shard) -> None:
        """Go on with the rows of this process."""
        index = np.arange(self.n_rows) if self.subset is None else self.subset
        own = shard.own(index)
        of_own = torch.from_numpy(own).to(self.device)
        self.target, self.root = self.target[of_own.to(self.target.device)], self.root[of_own]
        self.rows, self.subset, self.n_rows = self.rows.local, index[own] - shard.start, len(own)
        self.group = shard.group

    def _targets(self, part: slice) -> Tensor:
        """Make targets of ±1 of indicators; values are what they are."""
        target = self._exact(self.target[part])
        return target if self.target.is_floating_point() else 2 * target - 1

    def _level(self) -> Tensor:
        """Compute the weighted means of the targets."""
        level = self.level
        for part in self._parts(max(1, MAX_VALUES // self.shape[1])):
            level = level + self.root[part].square() @ self._targets(part)
        self.group.sum_([level])
        return level

    def _means(self, shift: Tensor) -> Tensor:
        """Compute the weighted means of the columns; a constant one differs from the `shift` by nothing at all."""
        mean = torch.zeros_like(self.center)
        for part in self._parts(max(1, MAX_VALUES // self.rows.n_features)):
            X, share = self._values(part), self.root[part].square()
            if self._by_rows:
                mean = mean + transposed_product(X, share.unsqueeze(1)).squeeze(1)
                continue
            X = X.to_dense() if X.layout is torch.sparse_csr else X
            mean = mean + share @ (X - shift)
        self.group.sum_([mean])
        return mean + shift

    def _factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Reduce the problem to U, S, V and targets with the same solutions, of at most d + C rows."""
        n_features, n_targets = self.shape
        most = n_features + n_targets
        reduced = self.root.new_empty(0, most)
        for part in self._parts(max(MAX_VALUES // n_features, 2 * most)):
            X = self._values(part)
            X = X.to_dense() if X.layout is torch.sparse_csr else X
            X = X - self.center
            chunk = torch.cat([X if self.scale is None else X * self.scale, self._targets(part) - self.level], dim=1)
            chunk.mul_(self.root[part].unsqueeze(1))
            reduced = torch.cat([reduced, chunk])
            if len(reduced) > most:
                reduced = torch.linalg.qr(reduced, mode="r").R
        if self.group.size > 1:
            of_all = torch.cat([torch.from_numpy(part) for part in self.group.gather(reduced.cpu().numpy())])
            reduced = torch.linalg.qr(of_all.to(self.device), mode="r").R
        A, B = reduced.tensor_split([n_features], dim=1)
        U, S, Vh = torch.linalg.svd(A, full_matrices=False)
        return U, S, Vh.T, B

    def _in_units(self) -> tuple[Tensor, Tensor]:
        """Take all rows, and the means of their columns, in units of the columns."""
        X = self._values(slice(0, self.n_rows))
        if self.scale is None:
            return X, self.center
        in_columns = scaled(X, self.scale[None, None], 1)
        assert in_columns is not None  # as rows of one model are
        return in_columns, self.center * self.scale

    def _factors_by_rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute U, S, the weights of the rows that make up V, and the targets, from the products of the rows."""
        root, Y = self.root, self._targets(slice(0, self.n_rows))
        X, center = self._in_units()
        products = root.new_empty(self.n_rows, self.n_rows)
        for part in self._parts(max(1, MAX_VALUES // self.rows.n_features)):
            own = self._values(part).to_dense()
            products[:, part] = X @ (own if self.scale is None else own * self.scale).T
        if center.any():
            with_center = X @ center
            products += center @ center - with_center.unsqueeze(0) - with_center.unsqueeze(1)
        values, U = torch.linalg.eigh(products.mul_(root).mul_(root.unsqueeze(1)))
        S = values.clamp(min=0).sqrt()
        return U, S, U * root.unsqueeze(1) / S, (Y - self.level) * root.unsqueeze(1)

    def _rounding(self, singular: Tensor, right: Tensor, limit: float, frame: Frame | None) -> Tensor:
        """Compute up to which size each singular value may be rounding, as some share of the largest surely is."""
        least = limit * singular.max() if len(singular) else singular
        if self._by_rows:
            return least
        # of columns far from zero, the last digits are what X itself has lost
        size = self.center if frame is None else self.center + self._exact(torch.as_tensor(frame.origin))
        size = size if self.scale is None else size * self.scale
        noise = 2 * torch.finfo(torch.float64).eps * torch.linalg.vector_norm(right * size[:, None], dim=0)
        return noise.clamp(min=least)

    def solve(self, alphas: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """Compute solutions for K values of alpha: coefficients (K, C, d), intercepts (K, C) and objectives (K,)."""
        alpha = self._exact(torch.as_tensor(alphas)).view(-1, 1, 1)
        S = self.singular.unsqueeze(1)
        shrunk = S + alpha / S  # written so that no square overflows
        coordinates, left_over = self.along / shrunk, alpha / S / shrunk * self.along
        flat = self.right @ coordinates.transpose(0, 1).flatten(1)
        if self._by_rows:
            X, center = self._in_units()
            flat = transposed_product(X, flat) - torch.outer(center, flat.sum(0))
        coef = flat.view(-1, len(alphas), self.shape[1]).permute(1, 2, 0)
        coef = coef if self.scale is None else coef * self.scale
        value = left_over.square().sum((1, 2)) + self.rest + (alpha.sqrt() * coordinates).square().sum((1, 2))
        return coef, self.level - coef @ self.center, value.cpu().numpy() / 2
