r"""Losses of values with kinks, of sparse rows with many columns: the method of multipliers, by conjugate gradients.

A loss is :math:`\max_a a s - c(a)` over slopes a between -u and d, with :math:`c(a) = h a_+ - l a_-`, in the terms of
`skdeep.exact.piecewise`. Less :math:`\tfrac\delta2 (a - b)^2`, it is smooth, and a parabola where slopes are free;
its minimum, which Newton's method finds roughly, has slopes that are the next b. Each iterate has a duality gap:

.. math:: \sum_i w_i (\ell_i + c(a_i) - a_i s_i) + \tfrac12 \sum_j (G_j + \rho_j V_j)^2 / \rho_j,
          \qquad G = \sum_i w_i a_i z_i.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dposv

from skdeep.exact.descent import Stack
from skdeep.exact.elastic_net import SMALLEST, Solution, joined
from skdeep.exact.losses import At, OfColumns
from skdeep.exact.newton_cg import NewtonCG
from skdeep.exact.normal import distinct
from skdeep.exact.path import chained
from skdeep.exact.rows import Rows, SparseRows

#: Columns from which systems of all of them take longer, where these differ in size, too.
MANY_COLUMNS = 1024
#: Width of smoothing at first, after another penalty's end, and at least; what it is multiplied by wherever what is
#: left of complementarity is more than so much of what it was.
_WIDTH, _WARM, _NARROWEST, _SHRINK, _SLOW = 3.0, 0.1, 1e-10, 0.5, 0.6
#: Steps from one set of slopes after which systems of so many free ones, or columns, are solved without iterations.
_PATIENCE, _MAX_SYSTEM = 5, 3000
#: What is left of the gradient, as a part of what is left of complementarity, for slopes to be replaced; and as a part
#: of the gap that is asked for, what either is not brought below, as it may be rounding.
_SHARE, _ROUNDING = 0.5, 0.05


def suits(rows: Rows, rho: np.ndarray, kappa: np.ndarray) -> bool:
    """Tell whether rows are sparse, of many columns, all of which a ridge holds, and no L1 norm."""
    if not isinstance(rows, SparseRows) or rows.shape[1] < MANY_COLUMNS or kappa.any():
        return False
    return bool((rho[..., : rows.X.shape[1]] > 0).all())


def solve(
    rows: Rows,
    bounds: tuple[np.ndarray, np.ndarray],
    costs: tuple[np.ndarray, np.ndarray],
    weight: np.ndarray,
    rho: np.ndarray,
    gap: np.ndarray,
    max_iter: int,
) -> Solution:
    """Minimise losses of K models of C columns; see `skdeep.exact.piecewise.solve`. Gaps are (K,)."""
    columns = []
    first, number = distinct(weight)
    for lo, hi, up, down in zip(*bounds, *costs, strict=True):
        found: list = [None] * len(weight)
        for w, models in chained(number, rho.max(1)).items():
            used = np.flatnonzero(own := weight[first[w]])
            part = rows if len(used) == len(own) else rows.select(used)
            problem, warm = _Problem(part, (lo[used], hi[used]), (float(up), float(down)), own[used]), None
            for k in models.tolist():
                found[k], warm = problem.solve(rho[k], float(gap[k]), max_iter, warm)
        params, value, reached = (np.array(part) for part in list(zip(*found, strict=True))[:3])
        columns.append(Solution(params[:, None], value, reached, [of[3] for of in found], reached <= gap))
    return columns[0] if len(columns) == 1 else joined(columns)


class _Loss(OfColumns):
    """Losses of bounds (1, n), less squares of how far slopes are from some (1, 1, n)."""

    piecewise = True

    def __init__(self, problem: _Problem, near: np.ndarray, width: float):
        super().__init__(problem.lo[None])
        self.problem, self.near, self.width = problem, near, width

    def at(self, scores: np.ndarray) -> At:
        problem, point = self.problem, scores + self.width * self.near
        slope = np.maximum(point - problem.hi, 0)
        slope += np.minimum(point - problem.lo, 0)
        slope /= self.width
        np.clip(slope, -problem.up, problem.down, out=slope)
        value = slope * scores - problem.conjugate(slope) - 0.5 * self.width * np.square(slope - self.near)
        return At(value[:, 0], slope)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        slope, problem = at.gradient, self.problem
        free = (slope > -problem.up) & (slope < problem.down)
        free &= (slope != 0) | problem.meet
        return free / self.width


class _End(NamedTuple):
    """Where a model has ended: parameters and slopes of another penalty's begin there."""

    params: np.ndarray  # (1, 1, D)
    slope: np.ndarray  # (1, 1, n)


class _Problem:
    """What models of the same rows have in common: bounds (n,), in a unit of errors, and costs."""

    def __init__(
        self, rows: Rows, bounds: tuple[np.ndarray, np.ndarray], costs: tuple[float, float], weight: np.ndarray
    ):
        assert isinstance(rows, SparseRows)
        self.rows, self.weight, (self.up, self.down), (lo, hi) = rows, weight, costs, bounds
        middle = (lo + hi) / 2
        self.level = float(middle @ weight) if rows.intercept else 0.0
        unit = float(np.abs(middle - self.level) @ weight)
        self.unit = unit if unit > 0 else 1.0
        self.lo, self.hi = (lo - self.level) / self.unit, (hi - self.level) / self.unit
        self.meet = self.lo == self.hi
        self.at_zero = self.loss(np.zeros(len(weight)))

    def loss(self, scores: np.ndarray) -> float:
        """Compute the mean loss of scores (n,)."""
        above, below = np.maximum(scores - self.hi, 0), np.maximum(self.lo - scores, 0)
        return float(self.down * (above @ self.weight) + self.up * (below @ self.weight))

    def conjugate(self, slope: np.ndarray) -> np.ndarray:
        """Compute c of slopes (..., n)."""
        return np.maximum(slope, 0) * self.hi + np.minimum(slope, 0) * self.lo

    def solve(
        self, rho: np.ndarray, gap: float, max_iter: int, start: _End | None
    ) -> tuple[tuple[np.ndarray, float, float, list[float]], _End]:
        """Minimise the loss beside a ridge of curvatures (D,); return parameters, value, gap and curve, and the end."""
        rows, weight, rho = self.rows, self.weight, rho * self.unit
        curve, smallest = [self.at_zero], SMALLEST * self.at_zero
        if start is None:
            start, width = _End(np.zeros((1, 1, len(rho))), np.zeros((1, 1, len(weight)))), _WIDTH
        else:
            width = _WARM
        (params, slope), scores, last, done = start, None, np.inf, self.at_zero == 0
        value, reached = self.at_zero, 0.0
        while not done:
            stack = Stack(rows, _Loss(self, slope, width), weight[None], rho[None], params, scores)
            for step in itertools.count():
                value, complementary, stationary = self._left(stack)
                curve.append(value)
                done = len(curve) > max_iter
                goal = gap * max(value, smallest)
                if done or complementary + stationary <= goal:
                    reached = self._certified(stack, value) / max(value, smallest)
                    done |= reached <= gap
                if done or stationary <= _SHARE * max(complementary, _ROUNDING * goal):
                    break
                if not stack.move(self._direction(stack, step > _PATIENCE), NewtonCG.slope_left).all():
                    break
            params, scores, slope = stack.params, stack.scores, stack.at.gradient
            if complementary > max(_SLOW * last, _ROUNDING * goal):
                width = max(width * _SHRINK, _NARROWEST)
            last = complementary
        found = self.unit * params[0, 0]
        if rows.intercept:
            found[-1] += self.level
        return (found, self.unit * value, reached, [self.unit * one for one in curve]), _End(params, slope)

    def _direction(self, stack: Stack, directly: bool) -> np.ndarray:
        """Compute Newton's direction, roughly; or directly, by free slopes or columns, if either are few."""
        second = stack.loss.second(stack.scores, stack.at)[0, 0] * self.weight
        free, found = second.nonzero()[0], None
        if not len(free):  # of an intercept that nothing holds, the curvature is as if all were
            assert isinstance(stack.loss, _Loss)
            return -stack.gradient / np.where(stack.rho > 0, stack.rho, 1 / stack.loss.width)[:, None]
        if directly and len(free) <= min(_MAX_SYSTEM, self.rows.shape[1]):
            found = self._by_rows(self.rows.select(free), second[free], stack.rho[0], stack.gradient[0, 0])
        elif directly and 0 < self.rows.shape[1] <= _MAX_SYSTEM:
            hessian = self.rows.gram(second[None])[0]
            hessian.reshape(-1)[:: len(hessian) + 1] += stack.rho[0]
            _, found, fault = dposv(hessian.T, -stack.gradient[0, 0], lower=1)
            found = None if fault else found
        return NewtonCG(None, False)(stack) if found is None else found[None, None]

    def _by_rows(self, rows: Rows, second: np.ndarray, rho: np.ndarray, gradient: np.ndarray) -> np.ndarray | None:
        """Solve for the changes of free slopes, of which these are the rows, and second derivatives."""
        inverse = np.divide(1.0, rho, out=np.zeros_like(rho), where=rho > 0)
        system = rows.products_of_rows(inverse)
        system.reshape(-1)[:: len(second) + 1] += 1 / second
        right = np.stack([-rows.scores(gradient * inverse), np.ones(len(second))], 1)
        _, found, fault = dposv(system.T, right, lower=1)
        if fault:
            return None
        change, of_level = found.T
        level = 0.0
        if self.rows.intercept:
            level = -(gradient[-1] + change.sum()) / of_level.sum()
            change = change + level * of_level
        step = -(gradient + rows.back(change)) * inverse
        step[-1] += level
        return step

    def _left(self, stack: Stack) -> tuple[float, float, float]:
        """Compute the objective, and what is left of both parts of the gap."""
        scores, slope, gradient = stack.scores[0, 0], stack.at.gradient[0, 0], stack.gradient[0, 0]
        params, rho, loss = stack.params[0, 0], stack.rho[0], self.loss(scores)
        complementary = loss + float(self.weight @ (self.conjugate(slope) - slope * scores))
        value = loss + 0.5 * float((rho * params) @ params)
        return value, max(complementary, 0.0), _stationary(gradient, params, rho)

    def _certified(self, stack: Stack, value: float) -> float:
        """Compute how far an objective is above a lower bound, for which slopes pull no intercept."""
        slope, params, rho = stack.at.gradient[0], stack.params[0, 0], stack.rho[0]
        if self.rows.intercept:
            slope = stack.loss.balanced(slope[None], self.weight[None])[0]
        pull = self.rows.back(slope * self.weight)[0]
        below = float(self.weight @ self.conjugate(slope[0])) + _stationary(pull, params, rho)
        return max(value + below, 0.0)


def _stationary(gradient: np.ndarray, params: np.ndarray, rho: np.ndarray) -> float:
    """Compute what a gradient adds to a gap: of an intercept, as far as it may be from the optimum's."""
    is_held = rho > 0
    found = 0.5 * float((np.square(gradient[is_held]) / rho[is_held]).sum())
    return found + float(np.abs(gradient[~is_held]).sum()) * max(1.0, float(np.abs(params).max(initial=0.0)))
