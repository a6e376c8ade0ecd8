r"""Least squares with squared norms of tables that have more columns than rows: by systems of rows.

With rows Z less their weighted means, targets t likewise, S the roots of weights and R the curvatures of the penalty,
the minimum of :math:`\tfrac12 \|S (Z v - t)\|^2 + \tfrac12 v^T R v` is

.. math:: v = R^{-1} Z^T S a, \qquad (I + S Z R^{-1} Z^T S)\, a = S t

Products of rows serve all penalties that hold columns in the same proportions. The errors that a solution leaves are
solved for once more, which takes out what products have rounded off. Without a penalty, rows that do not depend on one
another are all met, in many ways: R says then which is the smallest, and the system has no I.

Saunders, Gammerman & Vovk, *Ridge regression learning algorithm in dual variables*, ICML 1998.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.descent import AT_REST, Solution, small_enough
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.row_space import has_free_column
from skdeep.exact.rows import Rows

#: Passes over the rows that a triangular factor is worth.
_WORTH = 512
#: Curvatures that are in the same proportions; and one that is nearly none, as a part of the largest of the rows.
_ALIKE, _NONE = 1e-12, 1e-12
#: What others leave of a row's square, as a part of it, below which the products of rows do not tell enough.
_SOUND = 1e-7


def suits(rows: Rows) -> bool:
    """Tell whether systems of rows are the least work."""
    n, D = rows.shape
    return n < D and n**3 <= 12 * _WORTH * rows.n_values


def ridge(rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, tol: np.ndarray) -> Solution | None:
    """Minimise squares of errors with squared norms; see `skdeep.exact.moments.ridge`.

    Without any penalty, the smallest of all solutions is found. None where some columns have a penalty and others than
    the last, or one of zeros, have none; and where gradients are not within `tol` (K,).
    """
    D, K, C = rows.shape[1], len(rho), len(loss.target)
    rho = np.broadcast_to(rho if rho.ndim == 3 else rho[:, None], (K, C, D))
    size = rows.average_squares
    free = has_free_column(rows, rho)  # an intercept
    inside = np.arange(D) < D - free
    weak = ~np.any(rho[..., inside], axis=2, keepdims=True)
    curvature = np.where(weak, _NONE * size.max() * inside, rho)
    if np.any((curvature == 0) & inside & (size > 0)):
        return None
    systems = _Systems(rows, free)
    params, value, bound = np.zeros(rho.shape), np.zeros(K), np.zeros(K)
    for k in range(K):
        w, own = weight[k % len(weight)], curvature[k]
        # targets that are held alike have one system
        for part in [slice(None)] if (own == own[0]).all() else [slice(c, c + 1) for c in range(C)]:
            found = systems.solve(loss.target[part], w, own[part][0])
            if found is None:
                return None
            params[k, part] = found
        errors, slope = rows.scores(params[k]) - loss.target, rho[k] * params[k]
        value[k] = 0.5 * (np.vdot(errors * w, errors) + np.vdot(slope, params[k]))
        bound[k] = np.abs(rows.back(errors * w) + slope).max()
    if not (bound <= small_enough(tol, value, params)).all():
        return None
    return Solution(params, bound, [[own] for own in value.tolist()], [AT_REST.format(own) for own in tol.tolist()])


def smallest(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> Solution | None:
    """Meet all targets (C, n) by the smallest parameters of K models, counted by penalties of curvatures (K or 1, D).

    None where rows nearly depend on one another: rounding would tell what is met.
    """
    K, params, value = len(weight), [], []
    systems = _Systems(rows, has_free_column(rows, rho))
    for k in range(K):
        found = systems.solve(target, weight[k], rho[k % len(rho)], meets=True)
        if found is None:
            return None
        errors = rows.scores(found) - target
        params.append(found)
        value.append(0.5 * float(np.vdot(errors * weight[k], errors)))
    return Solution(np.stack(params), np.zeros(K), [[own] for own in value], [None] * K)


class _Systems:
    """Products of rows, and what is solved by them; the last column may be `free`: of ones, without a penalty."""

    def __init__(self, rows: Rows, free: bool):
        self.rows, self.free = rows, free
        self._known: list[tuple[np.ndarray, np.ndarray]] = []

    def solve(self, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, meets: bool = False) -> np.ndarray | None:
        """Find the parameters (C, D) for targets (C, n); None where rounding makes a system singular.

        They have a penalty, unless all targets are to be met.
        """
        inverse = np.divide(1.0, rho, out=np.zeros_like(rho), where=rho > 0)
        root, some = np.sqrt(weight), np.flatnonzero(weight)
        system = self._products(inverse)
        if self.free:
            mean = system @ weight
            system += weight @ mean - mean[:, None] - mean
        system = system[np.ix_(some, some)] * root[some] * root[some, None]
        diagonal = system.reshape(-1)[:: len(some) + 1]
        if not meets:
            diagonal += 1
        elif self.free:  # along what an intercept takes
            system += diagonal.mean() * root[some] * root[some, None]
        size = diagonal.copy()
        factor, fault = dpotrf(system, lower=1, overwrite_a=1)
        if fault or (meets and (np.square(factor.diagonal()) < _SOUND * size).any()):
            return None
        dual = np.zeros_like(target)
        for _ in range(2):
            _, errors = self._at(dual, target, weight, inverse)
            left = errors * root if meets else errors * root - dual
            dual[:, some] += dpotrs(factor, left[:, some].T, lower=1)[0].T
        return self._at(dual, target, weight, inverse)[0]

    def _at(
        self, dual: np.ndarray, target: np.ndarray, weight: np.ndarray, inverse: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the parameters (C, D) of solutions (C, n) of systems, and their errors (C, n)."""
        pull = dual * np.sqrt(weight)
        if self.free:
            pull -= pull.sum(1, keepdims=True) * weight
        params = self.rows.back(pull) * inverse
        errors = target - self.rows.scores(params)
        if self.free:
            params[:, -1] = errors @ weight
            errors -= params[:, -1:]
        return params, errors

    def _products(self, inverse: np.ndarray) -> np.ndarray:
        """Compute ``Z @ diag(inverse) @ Z.T`` (n, n)."""
        size = inverse.max()
        proportions = inverse / size
        for known, products in self._known:
            if np.allclose(known, proportions, rtol=_ALIKE, atol=0):
                return size * products
        products = self.rows.products_of_rows(proportions)
        self._known.append((proportions, products))
        return size * products
