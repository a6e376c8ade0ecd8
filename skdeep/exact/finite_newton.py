r"""Squared hinges of few rows, one score each, in as few calls as they take: it is these that small fits consist of.

It is the descent of `skdeep.exact.descent` by Newton's directions, of a stack of models of the same rows, in other
variables: with weights w, signs t and scores s of the rows, :math:`M = \sqrt w (1 - t s)`, an objective is the squared
length of M's positive part, and the penalty.

Mangasarian, *A finite Newton method for classification*, Optimization Methods and Software 17, 2002.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg.lapack import dposv

from skdeep.exact.descent import AHEAD, AT_REST, EPS, LEAST, LEAST_VALUE, MAX_TRIALS, MUCH_LESS, PER_LOSS, Solution
from skdeep.exact.losses import KINK
from skdeep.exact.newton import SINGULAR, slope_left
from skdeep.exact.rows import Rows, SparseRows

#: Values of rows, and unknowns of a model, up to which it is the calls that take time.
_FEW_VALUES, _MAX_SYSTEM = 2**17, 256


def suits(rows: Rows) -> bool:
    """Tell whether rows are as few as that."""
    n, D = rows.shape
    return not isinstance(rows, SparseRows) and D <= _MAX_SYSTEM and n * D <= _FEW_VALUES


def solve(
    rows: Rows,
    sign: np.ndarray,
    weight: np.ndarray,
    rho: np.ndarray,
    params: np.ndarray,
    tol: np.ndarray,
    max_evaluations: float,
) -> Solution | None:
    """Minimise squared hinges of K scores, each until no entry of its gradient is larger than its `tol` (K,).

    Signs are (K, n), weights (n,), curvatures `rho` of the penalty (K, D), and parameters to begin with (K, D). None
    where a step is no plain one, or `max_evaluations` are not enough: `skdeep.exact.descent` knows what to do.
    """
    K, models = len(sign), _Models(rows, sign, weight, rho, params)
    found = Solution(np.empty((K, 1, rows.shape[1])), np.empty(K), [[] for _ in range(K)], [None] * K)
    alive, highest, before, left, limit = list(range(K)), [0.0] * K, [math.inf] * K, [0.0] * K, tol.tolist()
    while True:
        largest, value = models.largest.tolist(), models.value.tolist()
        for k in alive[:]:
            if largest[k] <= limit[k] and models.is_at_rest(k, limit[k]):
                alive.remove(k)
                found.params[k], found.bound[k], found.stopped[k] = models.params[k], largest[k], AT_REST.format(tol[k])
                found.curve[k] = found.curve[k] or [value[k]]
                continue
            rounding = 4 * EPS * max(value[k], LEAST_VALUE)
            if not before[k] - value[k] > rounding or not math.isfinite(left[k]):
                return None
            highest[k] = value[k] + rounding
        if not alive:
            return found
        if models.n_evaluations >= max_evaluations or (direction := models.directions(alive, left)) is None:
            return None
        before, left = value, models.move(direction, alive, highest)
        value = models.value.tolist()
        for k in alive:
            found.curve[k].append(value[k])


class _Models:
    """Models, and where they are."""

    def __init__(self, rows: Rows, sign: np.ndarray, weight: np.ndarray, rho: np.ndarray, params: np.ndarray):
        root = np.sqrt(weight)
        self.rows, self.rho, self.n_evaluations = rows, rho, 0
        self._turn, self._twice, self._edge = -root * sign, 2 * weight, -KINK * root
        self._pull, self._share = 2 * self._turn, slope_left(rho.shape[1])
        self._put(params, (params @ rows.Z.T) * self._turn + root)

    def _put(self, params: np.ndarray, margin: np.ndarray) -> None:
        """Go to parameters (K, D), where M is known."""
        self.n_evaluations += 1
        self.params, self._margin = params, margin
        violation, slope = np.maximum(margin, 0.0), self.rho * params
        self.value = np.vecdot(violation, violation)
        self.value += 0.5 * np.vecdot(params, slope)
        violation *= self._pull
        slope += violation @ self.rows.Z
        self.gradient, self.largest = slope, np.maximum.reduce(np.abs(slope), 1)

    def is_at_rest(self, k: int, tol: float) -> bool:
        """Tell whether a model is to stop, by the rule of `skdeep.exact.descent.descend`."""
        value, squares, held = float(self.value[k]), np.square(self.gradient[k]), self.rho[k] > 0
        unit = min(max(PER_LOSS * value, LEAST), 1.0, float(np.abs(self.params[k]).max()))
        above = 0.5 * float((squares[held] / self.rho[k, held]).sum())
        return float(self.largest[k]) <= tol * unit and above <= AHEAD * tol * max(value, LEAST)

    def directions(self, models: list[int], left: list[float]) -> np.ndarray | None:
        """Compute Newton's directions of some of the models; None where rounding hides a curvature.

        Far from the optimum, where the curvature falls along the way, one step after the other is too short: by about
        the share of its slope that the last one has `left`.
        """
        second = (self._margin > self._edge) * self._twice
        hessians = self.rows.gram(second if len(models) == len(second) else second[models])
        diagonal = hessians.reshape(len(hessians), -1)[:, :: hessians.shape[1] + 1]  # a view
        limit = np.maximum.reduce(diagonal, 1)
        limit *= SINGULAR * EPS
        diagonal += self.rho if len(models) == len(second) else self.rho[models]
        found = np.zeros_like(self.gradient)
        for k, hessian, least in zip(models, hessians, limit.tolist(), strict=True):
            factor, found[k], info = dposv(hessian.T, self.gradient[k], lower=1)
            if info or not min(factor.diagonal().tolist()) ** 2 >= least > 0:
                return None
            found[k] *= -1 - max(left[k], 0.0)
        return found

    def move(self, direction: np.ndarray, models: list[int], highest: list[float]) -> list[float]:
        """Step to about the minimum along directions; return which share of each slope is left, NaN if that fails."""
        params, margin, slope = self.params, self._margin, np.vecdot(direction, self.gradient)
        along = direction @ self.rows.Z.T
        along *= self._turn
        self._put(params + direction, margin + along)
        rises, value = np.vecdot(direction, self.gradient).tolist(), self.value.tolist()
        left = [rise / start if start else math.nan for rise, start in zip(rises, slope.tolist(), strict=True)]
        failed = [k for k in models if not (abs(left[k]) <= self._share and value[k] <= highest[k])]
        if failed:  # the first step is the right one nearly always
            step, bends = np.ones(len(left)), self.rho * direction
            for k in failed:
                of_penalty = 0.5 * float(self.rho[k] @ params[k] ** 2), float(params[k] @ bends[k])
                line = _Line(margin[k], along[k], self._edge, (*of_penalty, float(direction[k] @ bends[k])))
                step[k], left[k] = line.search(float(slope[k]), self._share, highest[k])
            self._put(params + step[:, None] * direction, margin + step[:, None] * along)
        return left


class _Line:
    """A model's objective along a direction: M (n,), what a step of one changes it by, and beyond what it is curved.

    The `penalty` is its value at the start, its slope there, and its second derivative.
    """

    def __init__(self, margin: np.ndarray, along: np.ndarray, edge: np.ndarray, penalty: tuple[float, float, float]):
        self.margin, self.along, self.edge, self.penalty = margin, along, edge, penalty

    def search(self, slope: float, share: float, highest: float) -> tuple[float, float]:
        """Find a step that leaves a `share` of the slope at most, no higher than that; and which one it does leave."""
        level, rise, bend = self.penalty
        low, high, step = 0.0, math.inf, 1.0
        for _ in range(MAX_TRIALS):
            margin = self.margin + step * self.along
            violation = np.maximum(margin, 0.0)
            here = 2 * float(violation @ self.along) + rise + step * bend
            is_low = float(violation @ violation) + level + step * (rise + 0.5 * step * bend) <= highest
            if abs(here) <= share * -slope and is_low:
                return step, here / slope
            low, high = (step, high) if here < 0 and is_low else (low, step)
            second = 2 * float((self.along * (margin > self.edge)) @ self.along) + bend
            wanted = step - here / second if second > 0 else math.inf
            between = 0.5 * (low + high) if high < math.inf else max(4 * low, 1.0)
            worse = not is_low and wanted > between
            step = low + MUCH_LESS * (high - low) if worse else wanted if low < wanted < high else between
        return step, math.nan
