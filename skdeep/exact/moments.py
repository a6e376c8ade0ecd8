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

from skdeep.exact import normal
from skdeep.exact.descent import AT_REST, Solution, small_enough
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.path import chained
from skdeep.exact.quadratic import Matrix, Quadratic, exchange, minimise
from skdeep.exact.rows import Rows

#: Curvature that is added to each coordinate's own, as a part of it: where columns repeat, no other is left. And where
#: there is none.
_DAMPING, _TINY = 1e-12, float(np.finfo(float).tiny)
#: What moments are off by, as a part of what is added up.
_ROUNDING = 10 * float(np.finfo(float).eps)
#: Share of a value that may be rounding, where it is not a duality gap that is asked for.
_EXACT = 1e-9
#: Slopes of norms that are less than this part of the steepest at zero leave most coordinates other than zero.
_WEAK = 0.02
#: Exchanges of signs after which a penalty is too far from the last one.
_MAX_EXCHANGES = 8
#: How often errors themselves are looked at, at most.
_MAX_REFINEMENTS = 4
#: Products that are always formed, and passes over the rows that moments are worth.
_FEW_PRODUCTS, _WORTH = 2**28, 2048
#: Subgradients that are rounding, as a part of the largest at zero.
_TOL = 1e-13


class Found(NamedTuple):
    """What K models have in the end."""

    params: np.ndarray  # (K, D)
    value: np.ndarray  # of the objectives, (K,)
    above: np.ndarray  # how far they are above the minimum at most, (K,)
    steepest: np.ndarray  # largest entry of the gradient of all but the L1 norm, (K,)
    at_zero: np.ndarray  # objectives where all parameters are zero, (K,)
    rounding: np.ndarray  # of values, (K,)


def suits(rows: Rows) -> bool:
    """Tell whether moments of all columns are not far more work than to pass over the rows again and again."""
    n, D = rows.shape
    work = D * D * (n + D)
    return work <= max(_FEW_PRODUCTS, 4 * _WORTH * rows.n_values)


def ridge(rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, tol: np.ndarray) -> Solution | None:
    """Minimise squares of errors with squared norms, to gradients of `tol` (K,); see `skdeep.exact.descent`.

    Weights are (K, n) or (1, n), curvatures `rho` (K, D) or (K, C, D). None where more than the last column has no
    penalty, or moments have lost too many digits.
    """
    if len(rho) == 1 and rho.ndim == 2:
        alone = normal.solve(rows, loss.target, weight[0], rho[0])
        if alone is not None and alone[2] <= small_enough(tol, np.array(alone[1]), alone[0][None])[0]:
            return Solution(alone[0][None], np.array([alone[2]]), [[alone[1]]], [AT_REST.format(float(tol[0]))])
    K, moments, parts = len(rho), Moments(rows, weight), []
    moments.number = moments.number if len(weight) == K else moments.number * K
    for c, target in enumerate(loss.target):
        own = rho if rho.ndim == 2 else rho[:, c]
        found = moments.solve(target, None, own)
        if found is None or (found.rounding > _EXACT * found.value).any():
            return None
        if (found.steepest > small_enough(tol, found.value, found.params)).any():
            return None
        parts.append(found)
    value = np.sum([found.value for found in parts], axis=0)
    params, bound = np.stack([found.params for found in parts], 1), np.max([found.steepest for found in parts], axis=0)
    return Solution(params, bound, [[own] for own in value.tolist()], [AT_REST.format(own) for own in tol.tolist()])


class Moments:
    """Moments of rows under the weights (K, n) of models, each of sum one."""

    def __init__(self, rows: Rows, weight: np.ndarray):
        first, self.number = normal.distinct(weight)
        self.rows, self.weight = rows, weight if len(first) == len(weight) else weight[first]
        self.gram = rows.gram(self.weight)

    def solve(self, target: np.ndarray, kappa: np.ndarray | None, rho: np.ndarray) -> Found | None:
        """Minimise half the mean squares of errors of targets (n,), with penalties of slopes and curvatures (K, D).

        None where more than the last column has no penalty.
        """
        weighted = self.weight * target
        G, b, c, number = self.gram, self.rows.back(weighted), weighted @ target, self.number
        squares, total, (K, D) = np.sqrt(G.diagonal(0, 1, 2)), c[number], rho.shape
        penalty = rho if kappa is None else kappa + rho
        n_free = K * D - np.count_nonzero(penalty)
        has_free = n_free > 0
        if has_free:  # the last column, which follows from the others
            if n_free != K or penalty[:, -1].any() or not squares[:, -1].all():
                return None
            of_free, unit = G[:, -1], G[:, -1, -1:]
            share, level = of_free[:, :-1] / unit, b[:, -1:] / unit
            c = c - (b[:, -1:] * level)[:, 0]
            G = G[:, :-1, :-1] - of_free[:, :-1, None] * share[:, None]
            b = b[:, :-1] - of_free[:, :-1] * level
            rho, kappa, penalty = rho[:, :-1], None if kappa is None else kappa[:, :-1], penalty[:, :-1]
        x, slope = np.zeros(rho.shape), np.empty(rho.shape)
        for w, models in chained(number, penalty.sum(1)).items():
            self._follow(G[w], b[w], kappa, rho, models, x)
            slope[models] = x[models] @ G[w]
        pull = b[number]
        slope -= pull
        loss = 0.5 * np.maximum(c[number] + np.vecdot(slope - pull, x), 0)
        held = rho * x
        value, above = loss + 0.5 * np.vecdot(held, x), np.zeros(K)
        if kappa is not None:
            value += np.vecdot(kappa, np.abs(x))
            above = _above(loss, slope, x, kappa, rho, value - loss)
        params = x
        if has_free:
            params = np.empty((K, D))
            params[:, :-1], params[:, -1] = x, level[number, 0] - np.vecdot(share[number], x)
        steepest = np.maximum.reduce(np.abs(slope + held), 1, initial=0.0)
        size = np.vecdot(squares[number], np.abs(params))
        return Found(params, value, above, steepest, 0.5 * total, _ROUNDING * (total + size * size))

    def refine(
        self, target: np.ndarray, k: int, params: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float
    ) -> tuple[np.ndarray, float, float]:
        """Improve parameters (D,) of model k by the errors themselves; return them, the value, and what is above.

        No digits are lost there, however much smaller errors are than targets.
        """
        G, weight, best = self.gram[self.number[k]], self.weight[self.number[k]], (params, np.inf, np.inf)
        hessian, free = G + np.diag(rho + _DAMPING * G.diagonal()), np.flatnonzero((kappa == 0) & (rho == 0))
        for _ in range(_MAX_REFINEMENTS):
            error = self.rows.scores(params) - target
            slope, loss = self.rows.back(weight * error), 0.5 * float(weight @ (error * error))
            for j in free:
                params[j] -= slope[j] / G[j, j]
                loss -= 0.5 * slope[j] ** 2 / G[j, j]
                slope -= slope[j] / G[j, j] * G[j]
                slope[j] = 0
            norm = float(kappa @ np.abs(params) + 0.5 * (rho * params) @ params)
            above = float(
                _above(np.array([loss]), slope[None], params[None], kappa[None], rho[None], np.array([norm]))[0]
            )
            if above < best[2]:
                best = params.copy(), loss + norm, above
            if above <= gap * best[1]:
                break
            tol = _TOL * float(np.abs(slope).max())
            params = minimise(Matrix(hessian), Quadratic(slope + rho * params, params, kappa, tol))
        return best

    @staticmethod
    def _follow(
        G: np.ndarray, b: np.ndarray, kappa: np.ndarray | None, rho: np.ndarray, models: np.ndarray, x: np.ndarray
    ) -> None:
        """Find the coordinates `x` of models of one weight, by falling penalties."""
        size, steepest = len(b), float(np.maximum.reduce(np.abs(b), initial=0.0))
        if not size:  # no column but the one that has no penalty
            return
        damping = G.diagonal()
        damping = _DAMPING * damping + (1e-2 * _DAMPING / size * float(np.add.reduce(damping)) + _TINY)
        damping = 0 * damping if kappa is None else damping  # a ridge has curvature
        everything, now, last, before = np.arange(size), np.zeros(size), np.full(size, steepest), None
        for k in models.tolist():
            if before is None or (len(models) > 1 and (rho[k] != rho[before]).any()):
                hessian = G.copy()
                hessian.reshape(-1)[:: size + 1] += rho[k] + damping
                curvature = Matrix(hessian)
            if kappa is None:
                x[k] = curvature.solve(everything, b)
                continue
            if before is None and np.maximum.reduce(kappa[k]) < _WEAK * steepest:
                now = curvature.solve(everything, b)
            x[k] = now = _along(curvature, b, (last, now), kappa[k], _TOL * steepest)
            before, last = k, kappa[k]


def _along(
    curvature: Matrix,
    b: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    kappa: np.ndarray,
    tol: float,
    halvings: int = 6,
) -> np.ndarray:
    """Find the coordinates at a penalty from those at another, by penalties in between where it is too far."""
    last, now = start
    problem = Quadratic(curvature.matrix @ now - b, now, kappa, tol)
    found = exchange(curvature, problem, _MAX_EXCHANGES)
    if found is None and halvings:
        half = np.sqrt(last * kappa)
        now = _along(curvature, b, start, half, tol, halvings - 1)
        return _along(curvature, b, (half, now), kappa, tol, halvings - 1)
    return minimise(curvature, problem) if found is None else found


def _above(
    loss: np.ndarray, slope: np.ndarray, x: np.ndarray, kappa: np.ndarray, rho: np.ndarray, norm: np.ndarray
) -> np.ndarray:
    """Compute how far values are above what no parameters are below (K,)."""
    size, along = np.abs(slope), np.vecdot(slope, x)
    ratio = np.divide(kappa, size, out=np.ones(size.shape), where=size > kappa)
    shortest, ridged = np.minimum.reduce(ratio, 1, initial=1.0), rho > 0
    found = norm + (1 - shortest) ** 2 * loss + shortest * along
    if ridged.any():  # the norm asks nothing of the dual there, but it costs something
        length = np.minimum.reduce(np.where(ridged, 1.0, ratio), 1, initial=1.0)
        excess = np.maximum(length[:, None] * size - kappa, 0)
        cost = np.vecdot(excess * excess, np.divide(0.5, rho, out=np.zeros_like(rho), where=ridged))
        found = np.minimum(found, norm + (1 - length) ** 2 * loss + length * along + cost)
    return np.maximum(found, 0)
