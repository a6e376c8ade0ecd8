"""Huber's loss: where Newton's method begins. Of a delta far below errors it is nearly the absolute error, and creeps.

Which few rows are within delta is a puzzle then, as in linear programs. The interior point of `skdeep.exact.piecewise`
takes a dozen steps, whatever delta is.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact import elastic_net, normal, piecewise
from skdeep.exact.rows import Rows
from skdeep.exact.value_losses import HuberLoss

#: Most unknowns of a system.
_MAX_SYSTEM = 1024
#: Relative gap at which the rows within delta are known.
_NEAR = 1e-10


def least_squares(
    rows: Rows, loss: HuberLoss, weight: np.ndarray, rho: np.ndarray, params: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find where Newton's method may begin, (K, 1, D), and for which models (K,) it would know too little there.

    Where the given `params` are zero, it is least squares with the same squared norms. Too little is known where fewer
    rows are within delta than there are unknowns: there the interior point takes less time.
    """
    (K, D), few = rho.shape, np.zeros(len(rho), dtype=bool)
    if D > _MAX_SYSTEM:
        return params, few
    known, params, targets = params.any(), params.copy(), np.broadcast_to(loss.target, (K, 1, rows.shape[0]))
    first, number = normal.distinct(weight)
    grams = None if known else rows.gram(weight[first])
    for k, own in enumerate(rho):
        w = number[k % len(number)]
        squares = None if grams is None else normal.solve(rows, targets[k], weight[first[w]], own, grams[w].copy())
        if squares is not None:
            params[k] = squares[0]
        near = np.abs(rows.scores(params[k]) - targets[k]) <= loss.delta
        few[k] = np.count_nonzero(near & (weight[first[w]] > 0)) < D
    return params, few


def starts(rows: Rows, loss: HuberLoss, weight: np.ndarray, rho: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Find parameters (K, 1, D) from which Newton's method takes a few steps, of models of one column each."""
    params, few = least_squares(rows, loss, weight, rho, params)
    # of targets that they share, as a stack
    for models in [np.flatnonzero(few)] if loss.target.ndim == 2 else np.flatnonzero(few)[:, None]:
        if len(models):
            target = loss.target if loss.target.ndim == 2 else loss.target[models[0]]
            own = np.broadcast_to(weight, (len(rho), weight.shape[1]))[models]
            params[models] = _optima(rows, loss.of(target), own, rho[models])
    return params


def _optima(rows: Rows, loss: HuberLoss, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Find the parameters (K, 1, D) of models by the interior point; zeros where numbers are beyond floats."""
    try:
        found = solve(rows, loss, weight, 0 * rho, rho, _NEAR).params
    except (ValueError, np.linalg.LinAlgError):  # of which Newton's method says more
        return np.zeros_like(rho)[:, None]
    return np.where(np.isfinite(found), found, 0)


def solve(
    rows: Rows, loss: HuberLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float | np.ndarray
) -> elastic_net.Solution:
    """Minimise the loss of one column with penalties (K, D) to relative duality gaps."""
    target, slope = loss.target, np.array([loss.delta])
    return piecewise.solve(rows, target, target, slope, slope, weight, rho, kappa, gap, width=2 * loss.delta)
