"""Newton directions of stacks of small models.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.3 and 3.4.
Mangasarian, *A finite Newton method for classification*, Optimization Methods and Software 17, 2002: the generalised
Hessian of the squared hinge.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dposv

from skdeep.exact.descent import EPS, Directions, Stack
from skdeep.exact.rows import of_all, of_both

#: Pivots below so many units of the last place may be all that rounding leaves of a direction without curvature.
SINGULAR = 1000
#: Unknowns of a system whose entries are looked up in one go.
SMALL_SYSTEM = 200
#: Systems, and unknowns below, for which two calls for all together take less time than two for each.
_MANY_SYSTEMS, _FEW_UNKNOWNS = 8, 32
#: Most scores of models that take steps at a time: they stay in the cache.
_MOST_SCORES = 2**17
#: Share of the tolerance that models of a path are solved to, which takes a step or two more.
_NEARER = 0.01
#: Columns up to which a Hessian costs no more than some trials of a step.
_FEW_COLUMNS = 32


def slope_left(n_columns: int) -> float:
    """Choose how much of its slope a step may leave; see `Stack.move`."""
    return 0.5 if n_columns <= _FEW_COLUMNS else 0.1


class Newton(Directions):
    """Newton directions of D columns.

    Where columns were brought to the same size (`alike`), curvature that is small beside the largest is none.
    """

    most_scores = _MOST_SCORES
    nearer = _NEARER

    def __init__(self, n_columns: int, alike: bool = True):
        self.slope_left = slope_left(n_columns)
        self.alike = alike

    def __call__(self, stack: Stack) -> np.ndarray:
        loss, rho = stack.loss, stack.rho
        K, C, D = stack.params.shape
        second = loss.second(stack.scores, stack.at)
        second *= stack.weight[:, None]
        factor = second.reshape(-1, second.shape[-1])
        if loss.separable:
            hessians = stack.rows.gram(factor)
        else:
            if stack.rows.keeps_products(len(factor)) and C * D <= SMALL_SYSTEM:
                whole = (factor @ stack.rows.products).reshape(K, -1).take(of_all(C, D), axis=1)
            else:
                blocks = stack.rows.gram(factor).reshape(K, -1, D, D)
                whole = blocks.take(of_both(C), axis=1).reshape(K, C, C, D, D).transpose(0, 1, 3, 2, 4)
            if loss.shift_invariant:
                _pin_shift(whole.reshape(K, C, D, C, D), stack)
            hessians = whole.reshape(K, C * D, C * D)
        size = hessians.shape[1]
        diagonal = hessians.reshape(len(hessians), -1)[:, :: size + 1]  # a view
        unit = np.maximum.reduce(diagonal, 1)
        right = stack.gradient.reshape(len(hessians), -1)
        if not self.alike:
            largest = np.where(unit > 0, unit, 1.0)[:, None]
            scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, largest))
        if loss.separable:
            diagonal += rho if C == 1 else np.repeat(rho, C, axis=0)
        else:
            diagonal.reshape(K, C, D)[...] += rho[:, None]
        if self.alike:
            found = _solve(hessians, right, unit)
        else:
            hessians *= scale[:, :, None]
            hessians *= scale[:, None]
            found = _solve(hessians, right * scale, np.ones(len(right))) * scale
        return self.lengthened(-found.reshape(K, C, D), stack)

    def lengthened(self, direction: np.ndarray, stack: Stack) -> np.ndarray:
        """Make directions longer: far from the optimum, where the curvature falls along the way, they are too short."""
        direction *= (1 + np.fmax(stack.left, 0.0))[:, None, None]
        return direction


def _pin_shift(hessians: np.ndarray, stack: Stack) -> None:
    """Add curvature along the shift that all scores have in common, which has none: it stays put.

    The columns that shift are the ones that no penalty holds: the intercept, or all.
    """
    if stack.all_but_last:
        of_last = hessians[:, :, -1, :, -1]  # not there if that is penalised too
        of_last += (of_last.trace(0, 1, 2) * (stack.rho[:, -1] == 0) / of_last.shape[1])[:, None, None]
        return
    free = stack.rho == 0
    diagonal = np.einsum("kcicj->kij", hessians) / hessians.shape[1]
    diagonal *= free[:, :, None] & free[:, None]
    hessians += diagonal[:, None, :, None]


def _solve(hessians: np.ndarray, right: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Solve with each Hessian; along directions without curvature, as if it were one `unit` (m,).

    What there is of a gradient along these is rounding, which any smaller curvature would blow up.
    """
    if len(hessians) >= _MANY_SYSTEMS and hessians.shape[1] < _FEW_UNKNOWNS:
        try:
            pivots = np.linalg.cholesky(hessians).diagonal(0, 1, 2).min(1)
            if (pivots**2 >= SINGULAR * EPS * unit).all() and (unit > 0).all():
                return np.linalg.solve(hessians, right[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            pass  # one by one
    found = np.empty_like(right)
    for k, largest in enumerate(unit.tolist()):
        largest = largest if largest > 0 else 1.0
        # the transpose, which is the same, is in the order of LAPACK
        factor, found[k], info = dposv(hessians[k].T, right[k], lower=1)
        if info or not np.minimum.reduce(factor.diagonal()) ** 2 >= SINGULAR * EPS * largest:
            found[k] = _solve_singular(hessians[k], right[k], largest)
    return found


def _solve_singular(hessian: np.ndarray, right: np.ndarray, unit: float) -> np.ndarray:
    if not np.isfinite(hessian).all():
        return np.full_like(right, np.nan)
    values, vectors = np.linalg.eigh(hessian)
    values = np.where(values > len(values) * EPS * values[-1], values, unit)
    return vectors @ ((vectors.T @ right) / values)
