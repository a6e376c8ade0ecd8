r"""Quadratic functions with an L1 norm: the step of a Newton method where coefficients may be zero.

Minimise over u ``g'(u - x) + (u - x)' H (u - x) / 2 + sum_j kappa_j |u_j|`` by an active set that changes many coordinates at a
time: those that are not zero, or that the gradient would move, are solved for as if their signs were known, and the way there
is cut where the function, which bends wherever one of them passes zero, is least. Each step descends, so no cycle can arise.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg.lapack import dposv


class Curvature(Protocol):
    """A positive definite matrix H."""

    def solve(self, index: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Solve the equations of some coordinates."""

    def times(self, index: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply all rows of some columns by a direction."""


class Matrix:
    """A curvature as a matrix."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix

    def solve(self, index: np.ndarray, right: np.ndarray) -> np.ndarray:
        # A symmetric matrix's transpose is what LAPACK, which counts along columns, need not copy.
        part = self.matrix[index[:, None], index].T
        _, found, fault = dposv(part, right)
        if fault:
            part = self.matrix[index[:, None], index]
            found = np.linalg.lstsq(part, right, rcond=1e-14)[0]
        return found

    def times(self, index: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return direction @ self.matrix[index]


def minimise(
    curvature: Curvature, gradient: np.ndarray, x: np.ndarray, kappa: np.ndarray, tol: float, max_steps: int
) -> np.ndarray:
    """Minimise the function of this module from u = x, until no subgradient is longer than `tol`.

    Coordinates that are zero at the minimum are exactly zero.
    """
    u = x.copy()
    for _ in range(max_steps):
        sign = np.sign(u)
        bound = np.abs(gradient) > kappa + tol
        is_zero = sign == 0
        entering = is_zero & bound
        sign[entering] = -np.sign(gradient[entering])
        slope = gradient + kappa * sign
        if not entering.any() and not (np.abs(slope) > tol)[~is_zero].any():
            break
        index, step = _direction(curvature, slope, is_zero, entering, tol)
        drop = -(step @ slope[index])
        if not drop > 0:
            break
        now = u[index]
        # Where the function bends: each coordinate that passes zero makes the slope steeper.
        with np.errstate(divide="ignore", invalid="ignore"):
            passes = -now / step
        crossing = np.flatnonzero((passes > 0) & (passes <= 1))
        length, stopped = 1.0, None
        if len(crossing):
            crossing = crossing[np.argsort(passes[crossing], kind="stable")]
            at = passes[crossing]
            bend = 2 * np.cumsum(kappa[index[crossing]] * np.abs(step[crossing]))
            rising = np.flatnonzero(bend >= drop * (1 - at))
            last = rising[0] if len(rising) else len(at)
            before = bend[last - 1] if last else 0.0
            length = 1 - before / drop
            if last < len(at) and at[last] <= length:
                length, stopped = at[last], crossing[at == at[last]]
        now += length * step
        if stopped is not None:
            now[stopped] = 0
        u[index] = now
        gradient = gradient + curvature.times(index, length * step)
    return u


def _direction(
    curvature: Curvature, slope: np.ndarray, is_zero: np.ndarray, entering: np.ndarray, tol: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find the coordinates that move, and how: those that leave zero only to the side that their slope says."""
    index = np.flatnonzero(~is_zero | entering)
    for _ in range(3):
        step = curvature.solve(index, -slope[index])
        wrong = is_zero[index] & (step * slope[index] >= 0)
        if not wrong.any():
            return index, step
        index = index[~wrong]
        if is_zero[index].sum() == 0:
            break
    # One that enters alone goes to its side if the others are at their minimum, which they are brought to before.
    index = np.flatnonzero(~is_zero)
    if not (np.abs(slope[index]) > tol).any():
        index = np.sort(np.append(index, np.argmax(np.abs(slope) * entering)))
    return index, curvature.solve(index, -slope[index])
