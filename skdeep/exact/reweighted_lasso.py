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


def refit_lasso(
    rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise objectives with an L1 norm for K weights of the same rows; see `skdeep.exact.reweighted.refit`.

    Parameters
    ----------
    rows, loss, weight, rho, start
        Of smooth parts. Those of several scores that a common shift leaves as they are have no way here.
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
    if n_scores > 1 or n_columns > _FEW_UNKNOWNS:
        return np.repeat(start[None], n_models, axis=0), np.zeros(n_models, dtype=bool)
    hessians = Hessians(rows, loss)
    parts = np.array_split(np.arange(n_models), -(-n_models * rows.shape[0] // _MAX_VALUES))
    each = [_by_supports(hessians, weight[part], rho[part], kappa[part], start[0]) for part in parts]
    params, arrived = (np.concatenate(values) for values in zip(*each, strict=True))
    return params[:, None], arrived


def _by_supports(
    hessians: Hessians, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton's steps of one score's parameters (K, D)."""
    (n_models, n_rows), rows, loss = weight.shape, hessians.rows, hessians.loss
    params = np.repeat(start[None], n_models, axis=0)
    left, arrived, alive = np.full(n_models, np.inf), np.zeros(n_models, dtype=bool), np.arange(n_models)
    for count in range(_MAX_STEPS):
        here, own, ridge, lasso = (some(values, alive) for values in (params, weight, rho, kappa))
        scores = rows.scores(here[:, None] if count else here[:1, None])  # all begin at one place
        gradient = loss.gradient(scores)
        slope = rows.back(own[:, None] * gradient)[:, 0] + ridge * here
        hessian = hessians(scores, gradient, own, ridge).astype(np.float64)
        step = np.empty_like(here)
        for k, matrix in enumerate(hessian):
            tol = _ERROR * float(np.abs(slope[k]).max())
            step[k] = minimise(Quadratic(Matrix(matrix), slope[k], here[k], lasso[k], tol)) - here[k]
        distance = np.sqrt(n_rows * np.einsum("ki,kij,kj->k", step, hessian, step, optimize=True))
        rate = distance / left[alive] if count else np.ones(n_models)
        left[alive] = distance
        params[alive] += step
        arrived[alive] = (distance * rate / np.maximum(1 - rate, _OLD) <= _ERROR) & (rate < _SLOW)
        is_lost = ~np.isfinite(distance) | ((rate >= _SLOW) & (count >= _LONG))
        alive = alive[~(arrived[alive] | is_lost)]
        if not len(alive):
            break
    return params, arrived
