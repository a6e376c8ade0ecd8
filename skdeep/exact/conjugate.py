r"""Least squares with squared norms by conjugate gradients: of sparse rows, whose products would be dense.

The errors move along with the parameters, and gradients follow from them (CGLS): the condition of the rows is not
squared. Each column is divided by its own curvature.

References
----------
Hestenes & Stiefel, *Methods of conjugate gradients for solving linear systems*, 1952. Björck, *Numerical Methods for
Least Squares Problems*, 1996, section 7.4.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.descent import Solution, small_enough
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import Rows

#: What is left of the gradient at the end, as a part of the first one; and most passes over the rows.
_LEFT, _MOST = 1e-12, 2000
#: Most values of all systems that are solved together, by rows and by columns.
_MAX_VALUES = 2**20


def ridge(rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, tol: np.ndarray) -> Solution | None:
    """Minimise squares of errors with squared norms.

    Parameters
    ----------
    rows : Rows of shape (n, D)
    loss : SquaredLoss
    weight : ndarray of shape (K, n) or (1, n)
        The sum of each model's is one.
    rho : ndarray of shape (K, D)
        Curvatures of the penalty; zero where there is none.
    tol : ndarray of shape (K,)
        Largest gradients of solutions.

    Returns
    -------
    Solution or None
        None where gradients stay larger.
    """
    (n, D), K, C = rows.shape, len(rho), len(loss.target)
    curvature = rows.diagonal(weight) + rho
    curvature[curvature <= 0] = 1
    weight = np.broadcast_to(weight, (K, n))
    flat = np.empty((K * C, D))
    size = max(1, _MAX_VALUES // (n + D))
    for systems in np.split(np.arange(K * C), range(size, K * C, size)):
        model, c = np.divmod(systems, C)
        flat[systems] = _solve(rows, loss.target[c], weight[model], rho[model], curvature[model])
    params = flat.reshape(K, C, D)
    slope = rho[:, None] * params
    value = 0.5 * np.vecdot(slope, params).sum(1)
    for k in range(K):
        errors = rows.scores(params[k]) - loss.target
        pull = errors * weight[k]
        value[k] += 0.5 * np.vdot(pull, errors)
        slope[k] += rows.back(pull)
    bound = np.abs(slope).max((1, 2))
    if not (bound <= small_enough(tol, value, params)).all():
        return None
    return Solution(params, bound, [[own] for own in value.tolist()], [None] * K)


def _solve(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Find the parameters (M, D) of systems, each by steps of its own, until little is left of its gradient.

    Targets and weights are (M, n), of the penalty and of the columns (M, D).
    """
    found, left = np.zeros_like(rho), np.arange(len(rho))
    params, errors = found.copy(), target.copy()
    slope = rows.back(errors * weight)
    direction = slope / curvature
    size = np.vecdot(slope, direction)
    enough = _LEFT**2 * size
    for _ in range(_MOST):
        is_left = size > enough
        if not is_left.all():
            found[left] = params
            if not is_left.any():
                break
            left, size, enough, params, errors, direction, weight, rho, curvature = (
                part[is_left] for part in (left, size, enough, params, errors, direction, weight, rho, curvature)
            )
        along = rows.scores(direction)
        bend = np.vecdot(along * along, weight) + np.vecdot(direction * direction, rho)
        length = (size / bend)[:, None]
        params += length * direction
        errors -= length * along
        slope = rows.back(errors * weight)
        slope -= rho * params
        scaled = slope / curvature
        size, before = np.vecdot(slope, scaled), size
        direction *= (size / before)[:, None]
        direction += scaled
    found[left] = params
    return found
