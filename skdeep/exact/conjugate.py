r"""Least squares with squared norms by conjugate gradients: of sparse rows, whose products would be dense.

The errors move along with the parameters, and gradients follow from them (CGLS): the condition of the rows is not
squared. Steps are taken where the penalty counts all parameters alike, so that what no row tells of is one eigenvalue,
and stays zero; where that takes too many, since columns differ in size, where they have the same curvature.

Hestenes & Stiefel, *Methods of conjugate gradients for solving linear systems*, 1952. Björck, *Numerical Methods for
Least Squares Problems*, 1996, section 7.4.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.descent import AT_REST, Solution, small_enough
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import Rows, SparseRows

#: What is left of the gradient at the end, as a part of the first one; or by how much an objective may be above its
#: minimum, as a part of it, for a tolerance of one; and most passes over the rows in either units.
_LEFT, _ABOVE, _MOST = 1e-12, 1e-7, 2000
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
    weight = np.broadcast_to(weight, (K, n))
    params, left, size = np.empty((K, C, D)), np.arange(K), max(1, _MAX_VALUES // (n + D))
    for of_all in (False, True):
        systems = (left[:, None] * C + np.arange(C)).ravel()
        for some in np.split(systems, range(size, len(systems), size)):
            k, c = np.divmod(some, C)
            own = rho[k, c]
            unit = own + rows.diagonal(weight[k]) if of_all else own
            unit = np.where(unit > 0, unit, 1.0)  # an intercept's, of weights of sum one
            # of strong convexity, of what the penalty counts alike
            above = np.zeros(len(k)) if of_all else _ABOVE * np.square(tol[k])
            params[k, c] = _solve(rows, loss.target[c], weight[k], own, unit, above)
        value, bound = _judged(rows, loss, weight, rho, params)
        left = np.flatnonzero(~(bound <= small_enough(tol, value, params)))
        if not len(left):
            stopped: list[str | None] = [AT_REST.format(own) for own in tol.tolist()]
            return Solution(params, bound, [[own] for own in value.tolist()], stopped)
    return None


def _judged(
    rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, params: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the objectives of models (K,), and the largest entries of their gradients."""
    slope = rho * params
    value = 0.5 * np.vecdot(slope, params).sum(1)
    for model, own in enumerate(weight):
        errors = rows.scores(params[model]) - loss.target
        pull = errors * own
        value[model] += 0.5 * np.vdot(pull, errors)
        slope[model] += rows.back(pull)
    return value, np.abs(slope).max((1, 2))


def _solve(
    rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, curvature: np.ndarray, above: np.ndarray
) -> np.ndarray:
    """Find the parameters (M, D) of systems, each by steps of its own, until little is left of its gradient.

    Targets and weights are (M, n); the curvatures of the penalty, and positive ones that say in which units, (M, D).
    Where squares of the gradient in these units are less than so much (M,) of the objective, it is enough, too.
    """
    found, left = np.zeros_like(rho), np.arange(len(rho))
    params, errors = found.copy(), target.copy()
    slope = rows.back(errors * weight)
    direction = slope / curvature
    size = np.vecdot(slope, direction)
    enough, value = _LEFT**2 * size, np.zeros(len(rho))
    for _ in range(_MOST):
        is_left = size > np.maximum(enough, above * value)
        if not is_left.all():
            found[left] = params
            if not is_left.any():
                break
            left, size, enough, above, params, errors, direction, weight, rho, curvature = (
                part[is_left] for part in (left, size, enough, above, params, errors, direction, weight, rho, curvature)
            )
        along = rows.scores(direction)
        bend = np.vecdot(along * along, weight) + np.vecdot(direction * direction, rho)
        length = (size / bend)[:, None]
        params += length * direction
        errors -= length * along
        pull, held = errors * weight, rho * params
        value = np.vecdot(pull, errors) + np.vecdot(held, params)
        slope = rows.back(pull)
        slope -= held
        scaled = slope / curvature
        size, before = np.vecdot(slope, scaled), size
        direction *= (size / before)[:, None]
        direction += scaled
    found[left] = params
    return found
