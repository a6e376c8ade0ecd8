"""Objectives with an L1 norm that differ in the weights of the rows, from the optimum of one of them on.

Newton's method, as for smooth ones, with steps to the minimum of a quadratic function with an L1 norm. Gradients and
Hessians are of all models at once.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.losses import OfColumns, RowLoss
from skdeep.exact.quadratic import FIRST, Matrix, Quadratic, minimise
from skdeep.exact.reweighted import (
    _ERROR,
    _LONG,
    _MAX_STEPS,
    _MAX_VALUES,
    _OLD,
    _ROUNDING,
    _SLOW,
    FEW_UNKNOWNS,
    Hessians,
    some,
)
from skdeep.exact.rows import Rows

#: Share of the curvature that is added where a common shift of all scores has none.
_SHIFT = 1e-5
#: Standard errors that a subgradient may be from zero.
_FAILED = 1e-6
#: Exchanges of signs of all models at once, after which the few that want more are looked at one by one.
_TOGETHER = 6


def refit_lasso(
    rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise objectives with L1 norms of strengths `kappa` (K, D) for K weights of the same rows.

    All else is as in `skdeep.exact.reweighted.refit`, of the smooth parts.
    """
    n_models, (n_scores, n_columns) = len(weight), start.shape
    if isinstance(loss, OfColumns) and n_scores > 1:
        each = [refit_lasso(rows, loss.one(c), weight, rho, kappa, start[c : c + 1]) for c in range(n_scores)]
        return np.concatenate([params for params, _ in each], axis=1), np.all([arrived for _, arrived in each], axis=0)
    if n_scores * n_columns > FEW_UNKNOWNS:
        return np.repeat(start[None], n_models, axis=0), np.zeros(n_models, dtype=bool)
    hessians = Hessians(rows, loss, np.eye(n_scores))
    parts = np.array_split(np.arange(n_models), -(-n_models * n_scores * rows.shape[0] // _MAX_VALUES))
    each = [_by_supports(hessians, weight[part], rho[part], kappa[part], start) for part in parts]
    params, arrived = (np.concatenate(values) for values in zip(*each, strict=True))
    return params, arrived


def _by_supports(
    hessians: Hessians, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton's steps of parameters (K, C, D)."""
    (n_models, n_rows), rows, loss, shape = weight.shape, hessians.rows, hessians.loss, (-1, *start.shape)
    params, (n_scores, n_columns) = np.repeat(start.reshape(1, -1), n_models, axis=0), start.shape
    free, family = np.flatnonzero(np.tile(kappa[0] + rho[0] == 0, n_scores)), None
    if loss.shift_invariant:  # one of a column's coefficients is zero, if nothing else penalises them
        family = np.tile(np.where((kappa[0] > 0) & (rho[0] == 0), np.arange(n_columns), -1), n_scores)
    kappa = np.tile(kappa, n_scores)
    curvature = np.ones_like(params)  # along each parameter alone
    left, arrived, alive = np.full(n_models, np.inf), np.zeros(n_models, dtype=bool), np.arange(n_models)
    for count in range(_MAX_STEPS):
        here, own, ridge, lasso = (some(values, alive) for values in (params, weight, rho, kappa))
        scores = rows.scores((here if count else here[:1]).reshape(shape))  # all begin at one place
        gradient = loss.gradient(scores)
        slope = (rows.back(own[:, None] * gradient) + ridge[:, None] * here.reshape(shape)).reshape(here.shape)
        hessian = hessians(scores, gradient, own, ridge).astype(np.float64)
        if loss.shift_invariant:
            hessian[:, free, free] *= 1 + _SHIFT
        curvature[alive] = np.einsum("kii->ki", hessian)
        tol = _ERROR * np.abs(slope).max(1)
        minima = _minima(hessian, slope, here, lasso, tol, family)
        for k in np.flatnonzero(np.isnan(minima[:, 0])):
            of_model = slope[k], here[k], lasso[k], float(tol[k]), family, n_scores
            minima[k] = minimise(Matrix(hessian[k]), Quadratic(*of_model))
        step = minima - here
        distance = np.sqrt(n_rows * np.einsum("ki,kij,kj->k", step, hessian, step, optimize=True))
        rate = distance / left[alive] if count else np.ones(n_models)
        left[alive] = distance
        params[alive] += step
        arrived[alive] = (distance * rate / np.maximum(1 - rate, _OLD) <= _ERROR) & (rate < _SLOW)
        arrived[alive] |= distance <= _ROUNDING  # where it has begun at its optimum, as where all is zero
        is_lost = ~np.isfinite(distance) | ((rate >= _SLOW) & (count >= _LONG))
        alive = alive[~(arrived[alive] | is_lost)]
        if not len(alive):
            break
    # a step may have failed: what is left of the subgradient, in standard errors of each parameter alone
    found = params.reshape(shape)
    slope = rows.back(weight[:, None] * loss.gradient(rows.scores(found))) + rho[:, None] * found
    beyond = np.abs(slope.reshape(params.shape) + kappa * np.sign(params)) - np.where(params == 0, kappa, 0)
    arrived &= (np.sqrt(n_rows / curvature) * beyond <= _FAILED).all(1)
    return found, arrived


def _minima(
    hessian: np.ndarray,
    gradient: np.ndarray,
    x: np.ndarray,
    kappa: np.ndarray,
    tol: np.ndarray,
    family: np.ndarray | None,
) -> np.ndarray:
    """Find the minima (K, m) of quadratic functions with L1 norms, with few exchanges of signs of all models at once.

    As `skdeep.exact.quadratic.exchange` does for one; NaN for models that want more.
    """
    found, alive, sign = np.full_like(x, np.nan), np.arange(len(x)), np.sign(x)
    offset = _times(hessian, x) - gradient
    known = np.unique(family[family >= 0]) if family is not None else np.empty(0)
    families = np.array([np.flatnonzero(family == number) for number in known], dtype=np.intp)
    for _ in range(_TOGETHER):
        kept = sign != 0
        slopes = kappa * sign
        # of each model what is not zero comes first, and nothing else matters
        order = np.argsort(~kept, axis=1, kind="stable")[:, : kept.sum(1).max()]
        models, counts = np.arange(len(kept))[:, None], np.take_along_axis(kept, order, axis=1)
        system = hessian[models[:, :, None], order[:, :, None], order[:, None]]
        system *= counts[:, :, None] & counts[:, None]
        np.einsum("kii->ki", system)[...] += ~counts
        try:
            part = np.linalg.solve(system, (counts * (offset - slopes)[models, order])[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        there = np.zeros_like(slopes)
        there[models, order] = part
        slope = _times(hessian, there) - offset
        wrong = (there * slopes <= 0) & (slopes != 0)
        beyond = np.where(kept, 0.0, np.abs(slope) - kappa)
        entering = beyond > np.maximum(FIRST * beyond.max(1), tol)[:, None]
        is_done = ~(wrong | entering).any(1)
        if len(families):
            _without_whole(entering, np.where(wrong, 0.0, sign), beyond, families)
        found[alive[is_done]] = there[is_done]
        sign = np.where(wrong, 0.0, np.where(entering, -np.sign(slope), sign))
        goes_on = (wrong | entering).any(1)
        if not goes_on.any():
            break
        alive, sign, hessian, offset, kappa, tol = (
            values[goes_on] for values in (alive, sign, hessian, offset, kappa, tol)
        )
    return found


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply matrices (K, m, m) by vectors (K, m)."""
    return np.matmul(matrices, vectors[:, :, None])[:, :, 0]


def _without_whole(entering: np.ndarray, sign: np.ndarray, beyond: np.ndarray, families: np.ndarray) -> None:
    """Let none of a family (F, C) leave zero, in place, that would be the last of it to be zero: the least steep."""
    of_families = entering[:, families]
    models, numbers = np.nonzero((of_families | (sign != 0)[:, families]).all(2) & of_families.any(2))
    own = families[numbers]
    least = np.where(entering[models[:, None], own], beyond[models[:, None], own], np.inf).argmin(1)
    entering[models, own[np.arange(len(own)), least]] = False
