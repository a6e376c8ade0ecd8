r"""Least squares with squared norms by conjugate gradients: of sparse rows, whose products would be dense.

The errors move along with the parameters, and gradients follow from them (CGLS): the condition of the rows is not
squared. Steps are taken where all columns have the same curvature, whatever their sizes; of many more columns than
rows, where the penalty counts all parameters alike, so that what no row tells of is one eigenvalue.

References
----------
Hestenes & Stiefel, *Methods of conjugate gradients for solving linear systems*, 1952. Björck, *Numerical Methods for
Least Squares Problems*, 1996, section 7.4.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.descent import AT_REST, Solution, small_enough
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import Rows, SparseRows

#: What is left of the gradient at the end, as a part of the first one; and most passes over the rows.
_LEFT, _MOST = 1e-12, 2000
#: Columns for each row from which the penalty says in which units steps are taken, instead of what rows add to it.
_MANY = 2
#: Most values of all systems that are solved together, by rows and by columns.
_MAX_VALUES = 2**20


def suits(rows: Rows) -> bool:
    """Tell whether products of rows or columns would take more memory than these."""
    return isinstance(rows, SparseRows)


def ridge(rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, tol: np.ndarray) -> Solution | None:
    """Minimise squares of errors with squared norms; see `skdeep.exact.moments.ridge`.

    None where a model has no penalty, and where gradients are not within `tol` (K,).
    """
    (n, D), K, C = rows.shape, len(rho), len(loss.target)
    rho = np.broadcast_to(rho if rho.ndim == 3 else rho[:, None], (K, C, D))
    if not rho.any(2).all():
        return None
    curvature = np.broadcast_to(rows.diagonal(weight), (K, D))
    weight = np.broadcast_to(weight, (K, n))
    params = np.empty((K, C, D))
    size = max(1, _MAX_VALUES // (n + D))
    for systems in np.split(np.arange(K * C), range(size, K * C, size)):
        k, c = np.divmod(systems, C)
        params[k, c] = _solve(rows, loss.target[c], weight[k], rho[k, c], curvature[k])
    slope = rho * params
    value = 0.5 * np.vecdot(slope, params).sum(1)
    for model, own in enumerate(weight):
        errors = rows.scores(params[model]) - loss.target
        pull = errors * own
        value[model] += 0.5 * np.vdot(pull, errors)
        slope[model] += rows.back(pull)
    bound = np.abs(slope).max((1, 2))
    if not (bound <= small_enough(tol, value, params)).all():
        return None
    return Solution(params, bound, [[own] for own in value.tolist()], [AT_REST.format(own) for own in tol.tolist()])


def _solve(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """Find the parameters (M, D) of systems, each by steps of its own, until little is left of its gradient.

    Targets and weights are (M, n); the curvatures of the penalty, and of the columns without it, (M, D).
    """
    # where columns are many more than rows, most of these are what no row tells of
    alone = rho * (len(target[0]) * _MANY < rho.shape[1])
    curvature = np.where(alone > 0, alone, rho + curvature)
    curvature[curvature == 0] = 1
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
