"""Objectives with an L1 norm that differ in the weights of the rows, from the optimum of one of them on.

Newton's method, as for smooth ones, with steps to the minimum of a quadratic function with an L1 norm. Gradients and
Hessians are of all models at once.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.losses import OfColumns, RowLoss
from skdeep.exact.quadratic import Matrix, Quadratic, minimise
from skdeep.exact.reweighted import _ERROR, _FEW_UNKNOWNS, _LONG, _MAX_STEPS, _MAX_VALUES, _OLD, _SLOW, Hessians, some
from skdeep.exact.rows import Rows

#: Share of the curvature that is added where a common shift of all scores has none.
_SHIFT = 1e-5
#: Standard errors that a subgradient may be from zero.
_FAILED = 1e-6


def refit_lasso(
    rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise objectives with an L1 norm for K weights of the same rows; see `skdeep.exact.reweighted.refit`.

    Parameters
    ----------
    rows, loss, weight, rho, start
        Of smooth parts.
    kappa : ndarray of shape (K, D)
        Strengths of the L1 norm.

    Returns
    -------
    params : ndarray of shape (K, C, D)
    arrived : ndarray of bool, of shape (K,)
    """
    n_models, (n_scores, n_columns) = len(weight), start.shape
    if isinstance(loss, OfColumns) and n_scores > 1:
        each = [refit_lasso(rows, loss.one(c), weight, rho, kappa, start[c : c + 1]) for c in range(n_scores)]
        return np.concatenate([params for params, _ in each], axis=1), np.all([arrived for _, arrived in each], axis=0)
    if n_scores * n_columns > _FEW_UNKNOWNS:
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
        step = np.empty_like(here)
        for k, matrix in enumerate(hessian):
            tol = _ERROR * float(np.abs(slope[k]).max())
            of_model = slope[k], here[k], lasso[k], tol, family, n_scores
            step[k] = minimise(Quadratic(Matrix(matrix), *of_model)) - here[k]
        distance = np.sqrt(n_rows * np.einsum("ki,kij,kj->k", step, hessian, step, optimize=True))
        rate = distance / left[alive] if count else np.ones(n_models)
        left[alive] = distance
        params[alive] += step
        arrived[alive] = (distance * rate / np.maximum(1 - rate, _OLD) <= _ERROR) & (rate < _SLOW)
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
