r"""Least squares with penalties by the moments of rows: what they have in common with one another and with targets.

Of rows Z with weights w, targets t and parameters v, the loss is :math:`\tfrac12 c - b^T v + \tfrac12 v^T G v` with
:math:`G = Z^T W Z`, :math:`b = Z^T W t` and :math:`c = t^T W t`: once these are known, no model passes over the rows
again, however many penalties there are. A column without a penalty, the intercept, is eliminated. With an L1 norm the
signs of coefficients are exchanged until none is wrong (`skdeep.exact.quadratic`), along falling penalties, each from
where the one before it ended.

What is found is proven by the duality gap of the lasso's dual, whose point is the residuals, made shorter where the
norm asks for it; and it is said how far rounding of the moments may be in the way of the proof.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skdeep.exact.path import chained
from skdeep.exact.quadratic import Matrix, Quadratic, minimise
from skdeep.exact.rows import Rows

#: Curvature that is added to each coordinate's own, as a part of it: where columns repeat, no other is left.
_DAMPING = 1e-12
#: What moments are off by, as a part of what is added up.
_ROUNDING = 10 * float(np.finfo(float).eps)
#: Subgradients that are rounding, as a part of the largest at zero.
_TOL = 1e-13


class Found(NamedTuple):
    """What K models were found: parameters (K, D), values, how far above the minimum at most, and rounding (K,)."""

    params: np.ndarray
    value: np.ndarray
    above: np.ndarray
    rounding: np.ndarray


class Moments:
    """Moments of rows under the weights of K models.

    Parameters
    ----------
    rows : Rows of shape (n, D)
    weight : ndarray of shape (K, n)
        The sum of each model's is one.
    """

    def __init__(self, rows: Rows, weight: np.ndarray):
        first, self.number = distinct(weight)
        self.rows, self.weight = rows, weight[first]
        self.gram = rows.gram(self.weight)

    def solve(self, target: np.ndarray, kappa: np.ndarray, rho: np.ndarray) -> Found | None:
        """Minimise half the mean squares of distances from targets (n,), with penalties of slopes and curvatures (K, D).

        None where more than the last column has no penalty.
        """
        weighted = self.weight * target
        b, c = self.rows.back(weighted), weighted @ target
        G, squares, (K, D) = self.gram, np.sqrt(self.gram.diagonal(0, 1, 2)), kappa.shape
        is_free = (kappa == 0) & (rho == 0)
        has_free, free = bool(is_free[:, -1].all()), None
        if is_free.sum() != K * has_free or (has_free and not squares[:, -1].all()):
            return None
        total = c
        if has_free:  # that column, with no penalty, follows from the others
            of_free, unit = G[:, -1, :], G[:, -1, -1]
            free = of_free / unit[:, None], b[:, -1] / unit
            c = c - b[:, -1] * free[1]
            G = G[:, :-1, :-1] - of_free[:, :-1, None] * free[0][:, None, :-1]
            b = b[:, :-1] - of_free[:, :-1] * free[1][:, None]
            kappa, rho = kappa[:, :-1], rho[:, :-1]
        x = np.zeros_like(kappa)
        pulled = np.empty_like(kappa)
        for w, models in chained(self.number, (kappa + rho).sum(1)).items():
            self._follow(G[w], b[w], kappa, rho, models, x)
            pulled[models] = x[models] @ G[w]
        pull = b[self.number]
        slope = pulled - pull
        loss = 0.5 * np.maximum(c[self.number] + np.vecdot(slope - pull, x), 0)
        value = loss + np.vecdot(kappa, np.abs(x)) + 0.5 * np.vecdot(rho * x, x)
        above = _above(loss, slope, x, kappa, rho)
        params = x
        if free is not None:
            last = free[1][self.number] - np.vecdot(free[0][self.number, :-1], x)
            params = np.concatenate([x, last[:, None]], axis=1)
        size = np.vecdot(squares[self.number], np.abs(params))
        return Found(params, value, above, _ROUNDING * (total[self.number] + size * size))

    @staticmethod
    def _follow(
        G: np.ndarray, b: np.ndarray, kappa: np.ndarray, rho: np.ndarray, models: np.ndarray, x: np.ndarray
    ) -> None:
        """Find the coordinates `x` of models of one weight, by falling penalties."""
        tol, size = _TOL * float(np.abs(b).max(initial=0.0)), len(b)
        damping = G.diagonal()
        damping = _DAMPING * (damping + 1e-2 * damping.mean()) + np.finfo(float).tiny
        now, hessian, before = np.zeros(size), G, None
        for k in models.tolist():
            if before is None or (rho[k] != rho[before]).any():
                hessian = G.copy()
                hessian.reshape(-1)[:: size + 1] += rho[k] + damping
            curvature, before = Matrix(hessian), k
            x[k] = now = minimise(Quadratic(curvature, hessian @ now - b, now, kappa[k], tol))


def distinct(weight: np.ndarray) -> tuple[list[int], list[int]]:
    """Find where each of some different weights (K, n) is first, and for every model the number of its own."""
    first: list[int] = []
    number: list[int] = []
    mark = weight @ np.linspace(1, 2, weight.shape[1])  # which sorts most out
    for k, own in enumerate(mark.tolist()):
        for j, other in enumerate(first):
            if abs(mark[other] - own) <= 1e-12 and np.array_equal(weight[other], weight[k]):
                number.append(j)
                break
        else:
            number.append(len(first))
            first.append(k)
    return first, number


def _above(loss: np.ndarray, slope: np.ndarray, x: np.ndarray, kappa: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute how far values are above what no parameters are below (K,)."""
    size, ridged = np.abs(slope), rho > 0
    over = size > kappa
    ratio = np.divide(kappa, size, out=np.ones_like(size), where=over)
    longest = np.where(ridged, 1.0, ratio).min(1, initial=1.0)
    norm = np.vecdot(kappa, np.abs(x)) + 0.5 * np.vecdot(rho * x, x)
    inverse = np.divide(0.5, rho, out=np.zeros_like(rho), where=ridged)
    found = []
    for length in (longest, np.minimum(longest, ratio.min(1, initial=1.0))):
        excess = np.maximum(length[:, None] * size - kappa, 0)
        of_dual = (1 - length) ** 2 * loss + length * np.vecdot(slope, x)
        found.append(norm + of_dual + np.vecdot(excess * excess, inverse))
    return np.maximum(np.minimum(*found), 0)
