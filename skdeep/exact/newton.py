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
from skdeep.exact.rows import of_all, of_both

_EPS = float(np.finfo(np.float64).eps)
#: Pivots below so many units of the last place may be all that rounding leaves of a direction without curvature.
_SINGULAR = 1000
#: Entries of a system from which LAPACK's work outweighs a call for each.
_BATCHED = 30**2


#: Unknowns of a system whose entries are looked up in one go.
_SMALL_SYSTEM = 200
#: Columns up to which a Hessian costs no more than some trials of a step.
_FEW_COLUMNS = 32


class Newton:
    """Newton directions.

    Parameters
    ----------
    n_columns : int
        D.
    alike : bool
        Whether columns were brought to the same size: curvature that is small beside the largest is then none.
    """

    def __init__(self, n_columns: int, alike: bool = True):
        self.slope_left = 0.5 if n_columns <= _FEW_COLUMNS else 0.1
        self.alike = alike

    def keep(self, models: np.ndarray) -> None:
        """Nothing is remembered."""

    def __call__(self, stack: Stack) -> np.ndarray:
        """Compute the directions (K, C, D)."""
        loss, rho = stack.loss, stack.rho
        K, C, D = stack.params.shape
        second = loss.second(stack.scores, stack.at)
        second *= stack.weight[:, None]
        factor = second.reshape(-1, second.shape[-1])
        if loss.separable:
            hessians = stack.rows.gram(factor)
            ridge = rho if C == 1 else np.repeat(rho, C, axis=0)
        else:
            if stack.rows.keeps_products(len(factor)) and C * D <= _SMALL_SYSTEM:
                whole = stack.rows.half_gram(factor).reshape(K, -1).take(of_all(C, D), axis=1)
            else:
                blocks = stack.rows.gram(factor).reshape(K, -1, D, D)
                whole = blocks.take(of_both(C), axis=1).reshape(K, C, C, D, D).transpose(0, 1, 3, 2, 4)
            whole = whole.reshape(K, C, D, C, D)
            if loss.shift_invariant:
                _pin_shift(whole, rho == 0)
            hessians = whole.reshape(K, C * D, C * D)
            ridge = np.tile(rho, C)
        diagonal = np.einsum("kii->ki", hessians)  # a view
        unit = diagonal.max(1)
        unit[unit <= 0] = 1.0
        right = -stack.gradient.reshape(len(hessians), -1)
        if self.alike:
            diagonal += ridge
            return _solve(hessians, right, unit).reshape(K, C, D)
        scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, unit[:, None]))
        diagonal += ridge
        hessians *= scale[:, :, None]
        hessians *= scale[:, None]
        return (_solve(hessians, right * scale, np.ones(len(right))) * scale).reshape(K, C, D)


def _pin_shift(hessians: np.ndarray, free: np.ndarray) -> None:
    """Add curvature along the shift that all scores have in common, which has none: it stays put.

    The columns that shift are the ones that no penalty holds, `free` (K, D): the intercept, or all.
    """
    if free[:, :-1].any():
        diagonal = np.einsum("kcicj->kij", hessians) / hessians.shape[1]
        diagonal *= free[:, :, None] & free[:, None]
        hessians += diagonal[:, None, :, None]
    else:  # the last column, if any
        of_last = np.einsum("kcc->k", hessians[:, :, -1, :, -1]) / hessians.shape[1]
        hessians[:, :, -1, :, -1] += (of_last * free[:, -1])[:, None, None]


def _solve(hessians: np.ndarray, right: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Solve with each Hessian; along directions without curvature, as if it were one `unit` (m,).

    What there is of a gradient along these is rounding, which any smaller curvature would blow up.
    """
    if hessians[0].size <= _BATCHED:  # also alone: in a stack, rounding is to be the same
        found, sound = _solve_together(hessians, right, unit)
    else:
        found, sound = np.empty_like(right), np.zeros(len(right), dtype=bool)
        for k, (hessian, b) in enumerate(zip(hessians, right, strict=True)):
            factor, info = dpotrf(hessian, lower=1)
            sound[k] = info == 0 and factor.diagonal().min() ** 2 >= _SINGULAR * _EPS * unit[k]
            if sound[k]:
                found[k] = dpotrs(factor, b, lower=1)[0]
    for k in np.flatnonzero(~sound).tolist():
        found[k] = _solve_singular(hessians[k], right[k], unit[k])
    return found


def _solve_together(hessians: np.ndarray, right: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve small systems with one call of each kind; and tell which are regular."""
    try:
        pivots = np.einsum("kii->ki", np.linalg.cholesky(hessians))
    except np.linalg.LinAlgError:
        return np.empty_like(right), np.zeros(len(right), dtype=bool)
    sound = pivots.min(1) ** 2 >= _SINGULAR * _EPS * unit
    if sound.all():
        return np.linalg.solve(hessians, right[:, :, None])[:, :, 0], sound
    found = np.empty_like(right)
    found[sound] = np.linalg.solve(hessians[sound], right[sound][:, :, None])[:, :, 0]
    return found, sound


def _solve_singular(hessian: np.ndarray, right: np.ndarray, unit: float) -> np.ndarray:
    if not np.isfinite(hessian).all():
        return np.full_like(right, np.nan)
    values, vectors = np.linalg.eigh(hessian)
    values = np.where(values > len(values) * _EPS * values[-1], values, unit)
    return vectors @ ((vectors.T @ right) / values)
