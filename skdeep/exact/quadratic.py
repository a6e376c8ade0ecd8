r"""Quadratic functions with an L1 norm: the step of a Newton method where coefficients may be zero.

Minimise over u ``g'(u - x) + (u - x)' H (u - x) / 2 + sum_j kappa_j |u_j|``, with exact zeros.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv

#: Of coordinates that should leave zero, those go first whose slope is at least this part of the steepest's.
FIRST = 0.3
#: Exchanges that need not make less wrong than before, and exchanges in all.
_PATIENCE, _MAX_EXCHANGES = 3, 40
#: Sweeps and steps of the methods that cannot fail, of which any number leads down.
_MAX_SWEEPS = _MAX_DESCENTS = 10


class Matrix:
    """A curvature, a positive definite matrix H."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self._taken: tuple[np.ndarray | None, np.ndarray] = None, matrix

    def _rows(self, index: np.ndarray) -> np.ndarray:
        """Take some rows, once for an index."""
        if self._taken[0] is not index:
            self._taken = index, self.matrix.take(index, 0)
        return self._taken[1]

    def solve(self, index: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Solve the equations of some coordinates."""
        if not len(index):
            return right
        part = self._rows(index).take(index, 1)
        # A symmetric matrix's transpose is what LAPACK, which counts along columns, need not copy.
        _, found, fault = dposv(part.T, right)
        return np.linalg.lstsq(part, right, rcond=1e-14)[0] if fault else found

    def times(self, index: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply all rows of some columns by a direction."""
        return direction @ self._rows(index)


class Quadratic(NamedTuple):
    """What is minimised, in m coordinates."""

    gradient: np.ndarray
    x: np.ndarray
    kappa: np.ndarray
    tol: float  # how long subgradients may be at the end
    family: np.ndarray | None = None  # coordinates of the same one need not all be other than zero (negative: none)
    size: int = 0  # coordinates of a family


def minimise(curvature: Matrix, problem: Quadratic) -> np.ndarray:
    """Find the minimum, or, of problems that are hard, a point that is lower than x, if there is one."""
    found = exchange(curvature, problem)
    return _descend(curvature, _swept(curvature, problem)) if found is None else found


def exchange(curvature: Matrix, problem: Quadratic, most: int = _MAX_EXCHANGES) -> np.ndarray | None:
    """Find the minimum by exchanging at a time all signs that turn out wrong, until none is: a few times, most often.

    Block principal pivoting (Portugal, Júdice & Vicente 1994), where nothing descends, so that it may fail: None, after
    so many exchanges at most.
    """
    gradient, x, kappa, tol, _, _ = problem
    sign = np.sign(x)
    index = sign.nonzero()[0]
    if len(index):
        offset = curvature.times(index, x[index]) - gradient
    else:
        offset = -gradient
        sign = -np.sign(gradient) * _entering(problem, sign, np.abs(gradient) - kappa)
        index = sign.nonzero()[0]
    fewest, patience = len(x) + 1, _PATIENCE
    for _ in range(most):
        slopes = (kappa * sign)[index]
        there = curvature.solve(index, offset[index] - slopes)
        slope = curvature.times(index, there) - offset
        # Where there is no L1 norm, no sign is wrong.
        wrong = index[(there * slopes <= 0) & (slopes != 0)]
        beyond = np.abs(slope) - kappa
        beyond[index] = 0
        leaves = beyond > tol
        n_wrong = len(wrong) + int(np.count_nonzero(leaves))
        if not n_wrong:
            u = np.zeros(len(x))
            u[index] = there
            return u
        if n_wrong < fewest:
            fewest, patience = n_wrong, _PATIENCE
        else:
            patience -= 1
        if patience < 0:
            # One at a time, always the last: what cannot go round for ever.
            enter = leaves.nonzero()[0]
            if len(wrong) and (not len(enter) or wrong[-1] > enter[-1]):
                wrong, enter = wrong[-1:], enter[:0]
            else:
                wrong, enter = wrong[:0], enter[-1:]
            sign[wrong] = 0
        else:
            sign[wrong] = 0
            if len(wrong) < n_wrong:
                chosen = _entering(problem, sign, beyond)
                leaves = chosen if len(wrong) or chosen.any() else leaves
            enter = leaves.nonzero()[0]
        sign[enter] = -np.sign(slope[enter])
        index = sign.nonzero()[0]
    return None


def _entering(problem: Quadratic, sign: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Choose which coordinates leave zero, of those whose slope is beyond kappa: the steepest, and no whole family."""
    entering = beyond > max(FIRST * beyond.max(initial=0.0), problem.tol)
    if problem.family is None:
        return entering
    family, size = problem.family, problem.size
    inside = (entering | (sign != 0)) & (family >= 0)
    for whole in np.flatnonzero(np.bincount(family[inside], minlength=1) >= size):
        members = np.flatnonzero((family == whole) & entering)
        entering[members[np.argmin(beyond[members])] if len(members) else members] = False
    return entering


def _swept(curvature: Matrix, problem: Quadratic) -> Quadratic:
    """Go down along one coordinate after the other, and state the problem from there.

    Where more of them leave zero than rows have curvature for, all together are cut short by the first that is back.
    """
    matrix, gradient, x = curvature.matrix, problem.gradient.copy(), problem.x.tolist()
    own, kappa = matrix.diagonal().tolist(), problem.kappa.tolist()
    for _ in range(_MAX_SWEEPS):
        farthest = 0.0
        for j, here in enumerate(x):
            wanted = here * own[j] - float(gradient[j])
            x[j] = math.copysign(max(abs(wanted) - kappa[j], 0.0), wanted) / own[j]
            if x[j] != here:
                gradient += (x[j] - here) * matrix[j]
                farthest = max(farthest, abs(x[j] - here) * own[j])
        if farthest <= problem.tol:
            break
    return problem._replace(gradient=gradient, x=np.array(x))


def _descend(curvature: Matrix, problem: Quadratic) -> np.ndarray:
    """Go down towards the minimum: all that is not zero, or should not be, moves as if its sign were known.

    The way is cut where the function, which bends wherever one of them passes zero, is least.
    """
    gradient, x, kappa, tol, _, _ = problem
    u = x.copy()
    for _ in range(_MAX_DESCENTS):
        sign = np.sign(u)
        is_zero = sign == 0
        entering = is_zero & (np.abs(gradient) > kappa + tol)
        sign[entering] = -np.sign(gradient[entering])
        slope = gradient + kappa * sign
        if not entering.any() and not (np.abs(slope) > tol)[~is_zero].any():
            break
        index, step = _direction(curvature, slope, is_zero, entering, tol)
        now, drop = u[index], -(step @ slope[index])
        if not drop > 0:
            break
        step = cut(now, step, drop, kappa[index])
        u[index] = now + step
        gradient = gradient + curvature.times(index, step)
    return u


def _direction(
    curvature: Matrix, slope: np.ndarray, is_zero: np.ndarray, entering: np.ndarray, tol: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find the coordinates that move, and how: those that leave zero only to the side that their slope says."""
    index = np.flatnonzero(~is_zero | entering)
    for _ in range(3):
        step = curvature.solve(index, -slope[index])
        wrong = is_zero[index] & (step * slope[index] >= 0)
        if not wrong.any():
            return index, step
        index = index[~wrong]
        if not is_zero[index].any():
            break
    # One that enters alone goes to its side if the others are at their minimum, which they are brought to before.
    index = np.flatnonzero(~is_zero)
    if not (np.abs(slope[index]) > tol).any():
        index = np.sort(np.append(index, np.argmax(np.abs(slope) * entering)))
    return index, curvature.solve(index, -slope[index])


def cut(now: np.ndarray, step: np.ndarray, drop: float, kappa: np.ndarray) -> np.ndarray:
    """Find the part of a step that leads lowest, where the slope at its start is -drop, and each zero passed a bend."""
    with np.errstate(all="ignore"):
        passes = -now / step
    crossing = np.flatnonzero((passes > 0) & (passes <= 1))
    if not len(crossing):
        return step
    crossing = crossing[np.argsort(passes[crossing], kind="stable")]
    at = passes[crossing]
    bend = 2 * np.cumsum(kappa[crossing] * np.abs(step[crossing]))
    rising = np.flatnonzero(bend >= drop * (1 - at))
    last = rising[0] if len(rising) else len(at)
    length = 1 - (bend[last - 1] if last else 0.0) / drop
    if last < len(at) and at[last] <= length:
        part = at[last] * step
        stopped = crossing[at == at[last]]
        part[stopped] = -now[stopped]
        return part
    return length * step
