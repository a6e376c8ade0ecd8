"""Huber's loss whose delta is far below errors: nearly the absolute error, at which Newton's method creeps.

Which few rows are within delta is a puzzle then, as in linear programs. The interior point of `skdeep.exact.piecewise`
takes a dozen steps, whatever delta is.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact import elastic_net, normal, piecewise
from skdeep.exact.rows import Rows
from skdeep.exact.value_losses import HuberLoss

#: Deltas below this, of targets of about one, are solved here, and others that no more than a share of the targets are
#: within: where all errors are beyond delta, no curvature is known to begin with.
_SMALL, _WITHIN = 0.02, 0.1
#: Most unknowns of a system.
_MAX_SYSTEM = 1024
#: Relative gap at which the rows within delta are known.
_NEAR = 1e-10


def suits(rows: Rows, loss: HuberLoss) -> bool:
    """Tell whether the interior point takes less time than Newton's method, beside L1 norms."""
    if rows.shape[1] > _MAX_SYSTEM:
        return False
    return loss.delta < _SMALL or bool(np.mean(np.abs(loss.target) <= loss.delta) < _WITHIN)


def starts(rows: Rows, loss: HuberLoss, weight: np.ndarray, rho: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Find parameters (K, 1, D) from which Newton's method takes a few steps, of models of one column each.

    They are those given, or least squares with the same penalty if these are zero, unless fewer rows are within delta
    of them than there are unknowns, of which Newton's method would know too little.
    """
    K, D = rho.shape
    if D > _MAX_SYSTEM:
        return params
    known, params, targets = params.any(), params.copy(), np.broadcast_to(loss.target, (K, 1, rows.shape[0]))
    first, number = normal.distinct(weight)
    grams, few = rows.gram(weight[first]), np.zeros(K, dtype=bool)
    for k, own in enumerate(rho):
        w = number[k % len(number)]
        squares = None if known else normal.solve(rows, targets[k], weight[first[w]], own, grams[w].copy())
        if squares is not None:
            params[k] = squares[0]
        near = np.abs(rows.scores(params[k]) - targets[k]) <= loss.delta
        few[k] = np.count_nonzero(near & (weight[first[w]] > 0)) < D
    # of targets that they share, as a stack
    for models in [np.flatnonzero(few)] if loss.target.ndim == 2 else np.flatnonzero(few)[:, None]:
        if len(models):
            own = np.broadcast_to(weight, (K, weight.shape[1]))[models]
            params[models] = _optima(rows, loss.of(targets[models[0]]), own, rho[models])
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
