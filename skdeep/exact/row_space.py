r"""Coordinates of rows that are fewer than their columns, for objectives with squared norms.

An optimum is a combination of the rows Z (Kimeldorf and Wahba's theorem): with curvatures of the penalty in the same
proportions R for all models, and the triangular factor L (n, r) of the rows' products,

.. math:: Z R^{-1} Z^T = L L^T, \qquad v = R^{-1} Z^T L^{-T} u, \qquad Z v = L u, \qquad v^T R v = \|u\|^2

so that a model of Z's columns is one of L's. The factor is pivoted, by squares as parts of each row's own: of rows that
others determine, it has no column. Products of rows have half the digits of the rows: where optima are not looked at
once more in the columns, that is to be enough (`RowSpace.suffices`).

Kimeldorf & Wahba, *Some results on Tchebycheffian spline functions*, Journal of Mathematical Analysis and Applications
33, 1971. Hastie & Tibshirani, *Efficient quadratic regularization for expression arrays*, Biostatistics 5, 2004.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpstrf

from skdeep.exact.rows import Rows

#: Curvatures that are in the same proportions.
_ALIKE = 1e-12
#: What others leave of a row's square, as a part of it: what rounding may have left, for each row; and below which
#: products of rows do not tell enough.
_ROUNDING, _SOUND = float(np.finfo(float).eps), 1e-7
#: How far scores may be off in coordinates, of parameters whose penalty is one: for a start, and for an optimum.
_ROUGHLY, _CLOSELY = 1.0, 1e-6


class RowSpace:
    """Coordinates of rows.

    Curvatures `rho` (..., D) of penalties are in the same proportions; `free` says whether the last column is of ones,
    without a penalty. The `coordinates` are rows (n, r + free) with the curvatures `rho` (..., r + free), and r is the
    `rank`.
    """

    def __init__(self, rows: Rows, rho: np.ndarray, free: bool):
        n, r = rows.shape[0], 0
        size = rho.max(-1, keepdims=True)
        self._proportions = (rho / size).reshape(-1, rho.shape[-1])[0]
        self._rows, self._free = rows, free
        self._inverse = np.divide(1.0, self._proportions, out=np.zeros(rho.shape[-1]), where=self._proportions > 0)
        products = rows.products_of_rows(self._inverse)
        length = np.sqrt(products.diagonal())
        length[length == 0] = 1
        products /= length
        products /= length[:, None]
        factor, pivots, r, _ = dpstrf(products, lower=1, tol=n * _ROUNDING, overwrite_a=1)
        pivots, self._least = pivots - 1, np.square(factor.diagonal()[:r]).min(initial=1.0)
        factor = np.tril(factor[:, :r]) * length[pivots, None]
        self._pivots, self._factor, self.rank = pivots[:r], factor[:r], r
        Z = np.ones((n, r + free))
        Z[pivots, :r] = factor
        self._others, self._longest = np.zeros((1, 1, n)), length.max()
        self._others[..., pivots[r:]] = np.linspace(1, 2, n - r) / length[pivots[r:]]
        self.coordinates = Rows(Z)
        self.rho = np.where(np.arange(r + free) < r, size, 0.0)

    def suffices(self, for_start: bool) -> bool:
        """Tell whether rows that have no column are combinations of the others, and products have told these apart."""
        of_others = self._rows.back(self._others) * self._inverse
        left = of_others - self.back(self.forth(of_others))
        lost = self._longest * np.sqrt(self._proportions @ np.square(left).ravel() / self.rho.max(-1).min())
        return bool(lost <= _ROUGHLY if for_start else lost <= _CLOSELY and self._least >= _SOUND)

    def forth(self, params: np.ndarray) -> np.ndarray:
        """Compute the coordinates (K, C, r + free) of parameters (K, C, D): of what is a combination of the rows."""
        inside = params.copy()
        if self._free:
            inside[..., -1] = 0
        scores = self._rows.scores(inside)[..., self._pivots]
        found = np.zeros((*params.shape[:-1], self.coordinates.shape[1]))
        flat = solve_triangular(self._factor, scores.reshape(-1, len(self._factor)).T, lower=True)
        found[..., : len(self._factor)] = flat.T.reshape(scores.shape)
        if self._free:
            found[..., -1] = params[..., -1]
        return found

    def back(self, found: np.ndarray) -> np.ndarray:
        """Compute parameters (K, C, D) from coordinates (K, C, r + free)."""
        params = self._back(found)
        return params + self._back(found - self.forth(params))  # what products of rows have rounded off

    def _back(self, found: np.ndarray) -> np.ndarray:
        (*shape, _), r = found.shape, len(self._factor)
        pull = np.zeros((*shape, self._rows.shape[0]))
        flat = solve_triangular(self._factor, found[..., :r].reshape(-1, r).T, lower=True, trans=1)
        pull[..., self._pivots] = flat.T.reshape(*shape, r)
        params = self._rows.back(pull) * self._inverse
        if self._free:
            params[..., -1] = found[..., -1]
        return params


def has_free_column(rows: Rows, rho: np.ndarray) -> bool:
    """Tell whether the last column is of ones, without a penalty (..., D)."""
    last = np.array([rho.shape[-1] - 1])
    return bool((rho[..., -1] == 0).all() and (rows.columns(last, slice(None)) == 1).all())


def proportions(rho: np.ndarray) -> list[np.ndarray]:
    """Group models whose penalties (K, ..., D) are in the same proportions."""
    relative = rho.reshape(len(rho), -1)
    relative = relative / np.maximum(relative.max(1, keepdims=True), np.finfo(float).tiny)
    left, groups = np.arange(len(rho)), []
    while len(left):
        alike = np.isclose(relative[left], relative[left[0]], rtol=_ALIKE, atol=0).all(1)
        groups.append(left[alike])
        left = left[~alike]
    return groups


def row_space(rows: Rows, rho: np.ndarray) -> RowSpace | None:
    """Make coordinates of rows, if penalties (..., D) suit them."""
    flat, free = rho.reshape(-1, rho.shape[-1]), has_free_column(rows, rho)
    if not flat.any(1).all() or len(proportions(flat)) > 1:
        return None
    without = flat[0] == 0
    without[-1] &= not free
    # columns of zeros need no penalty
    if without.any() and rows.diagonal(np.ones((1, rows.shape[0])))[0, without].any():
        return None
    space = RowSpace(rows, rho, free)
    return space if space.rank else None
