"""Newton directions of stacks of small models.

References
----------
Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.3 and 3.4.
Mangasarian, *A finite Newton method for classification*, Optimization Methods and Software 17, 2002: the generalised
Hessian of the squared hinge.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.descent import Stack

_EPS = float(np.finfo(np.float64).eps)
#: Pivots below so many units of the last place may be all that rounding leaves of a direction without curvature.
_SINGULAR = 1000
#: Entries of a system from which LAPACK's work outweighs a call for each.
_BATCHED = 30**2


class Newton:
    """Newton directions.

    Parameters
    ----------
    alike : bool
        Whether columns were brought to the same size: curvature that is small beside the largest is then none.
    """

    # along a piecewise quadratic, steps end on the kink that cuts them short
    slope_left = 0.1

    def __init__(self, alike: bool = True):
        self.alike = alike

    def keep(self, models: np.ndarray) -> None:
        """Nothing is remembered."""

    def __call__(self, stack: Stack) -> np.ndarray:
        """Compute the directions (K, C, D)."""
        loss, rho = stack.loss, stack.rho
        K, C, D = stack.params.shape
        second = loss.second(stack.scores, stack.at) * stack.weight[:, None]
        blocks = stack.rows.gram(second.reshape(-1, second.shape[-1])).reshape(K, -1, D, D)
        if loss.separable:
            hessians = blocks.reshape(K * C, D, D)
            ridge = np.repeat(rho, C, axis=0)
        else:
            i, j = np.tril_indices(C)
            whole = np.empty((K, C, D, C, D))
            whole[:, i, :, j, :] = whole[:, j, :, i, :] = blocks.swapaxes(0, 1)
            if loss.shift_invariant:
                _pin_shift(whole, rho == 0)
            hessians = whole.reshape(K, C * D, C * D)
            ridge = np.broadcast_to(rho[:, None], (K, C, D)).reshape(K, C * D)
        each = np.arange(hessians.shape[1])
        curvature = hessians[:, each, each]
        unit = curvature.max(1, keepdims=True)
        unit[unit <= 0] = 1.0
        if not self.alike:
            unit = np.where(curvature > 0, curvature, unit)
        hessians[:, each, each] += ridge
        return _solve(hessians, -stack.gradient.reshape(len(hessians), -1), unit).reshape(K, C, D)


def _pin_shift(hessians: np.ndarray, free: np.ndarray) -> None:
    """Add curvature along the shift that all scores have in common, which has none: it stays put.

    The columns that shift are the ones that no penalty holds, `free` (K, D): the intercept, or all.
    """
    diagonal = np.einsum("kcicj->kij", hessians) / hessians.shape[1]
    diagonal *= free[:, :, None] & free[:, None]
    hessians += diagonal[:, None, :, None]


def _solve(hessians: np.ndarray, right: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Solve with each Hessian, in units; along directions without curvature, as if it were one unit.

    What there is of a gradient along these is rounding, which any smaller curvature would blow up.
    """
    scale = 1 / np.sqrt(unit)
    hessians *= scale[:, :, None]
    hessians *= scale[:, None]
    right = right * scale
    if len(hessians) > 2 and hessians[0].size <= _BATCHED:
        found, sound = _solve_together(hessians, right)
    else:
        found, sound = np.empty_like(right), np.zeros(len(right), dtype=bool)
        for k, (hessian, b) in enumerate(zip(hessians, right, strict=True)):
            factor, info = dpotrf(hessian, lower=1)
            sound[k] = info == 0 and (np.einsum("ii->i", factor) ** 2).min() >= _SINGULAR * _EPS
            if sound[k]:
                found[k] = dpotrs(factor, b, lower=1)[0]
    for k in np.flatnonzero(~sound):
        found[k] = _solve_singular(hessians[k], right[k])
    return found * scale


def _solve_together(hessians: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve small systems with one call of each kind; and tell which are regular."""
    try:
        pivots = np.einsum("kii->ki", np.linalg.cholesky(hessians))
        sound = (pivots**2).min(1) >= _SINGULAR * _EPS
    except np.linalg.LinAlgError:
        return np.empty_like(right), np.zeros(len(right), dtype=bool)
    found = np.empty_like(right)
    found[sound] = np.linalg.solve(hessians[sound], right[sound][:, :, None])[:, :, 0]
    return found, sound


def _solve_singular(hessian: np.ndarray, right: np.ndarray) -> np.ndarray:
    if not np.isfinite(hessian).all():
        return np.full_like(right, np.nan)
    values, vectors = np.linalg.eigh(hessian)
    values = np.where(values > len(values) * _EPS * values[-1], values, 1.0)
    return vectors @ ((vectors.T @ right) / values)
