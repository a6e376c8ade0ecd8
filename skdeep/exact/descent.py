r"""Descent to the minimum of smooth convex objectives, of a stack of K models: one loop, whatever the direction.

.. math:: \sum_i w_i\, \ell_i(s_i) + \tfrac12 \sum_{cj} \rho_j V_{cj}^2, \qquad s_i = V z_i

Along a direction, the scores are a line: a trial step costs no product with the rows, so that the line search looks for
the minimum itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from skdeep.exact.losses import At, RowLoss
from skdeep.exact.rows import Rows

_EPS = float(np.finfo(np.float64).eps)
_MAX_TRIALS = 40


@dataclass
class Solution:
    """What a solver has found, of each model.

    Attributes
    ----------
    params : ndarray of shape (K, C, D)
    bound : ndarray of shape (K,)
        What the solver bounds by its tolerance: the largest entry of the gradient, or the relative duality gap.
    curve : list of list of float
        The objective after each iteration.
    stopped : list of str or None
        Why the solver ended; None where the limit of iterations came first.
    """

    params: np.ndarray
    bound: np.ndarray
    curve: list[list[float]]
    stopped: list[str | None]


@dataclass
class Stack:
    """The models still on their way.

    Attributes
    ----------
    rows : Rows
    loss : RowLoss
    weight : ndarray of shape (K, n) or (1, n)
    rho : ndarray of shape (K, D)
        Curvature of the penalty along each column.
    params, gradient : ndarray of shape (K, C, D)
    scores : ndarray of shape (K, C, n)
    at : At
        The loss at the scores.
    value : ndarray of shape (K,)
    """

    rows: Rows
    loss: RowLoss
    weight: np.ndarray
    rho: np.ndarray
    params: np.ndarray
    scores: np.ndarray = field(init=False)
    at: At = field(init=False)
    value: np.ndarray = field(init=False)
    gradient: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.scores = self.rows.scores(self.params)
        self.at = self.loss.at(self.scores)
        self.value = _mean(self.at.value, self.weight) + 0.5 * _dot(self.params, self.params * self.rho[:, None])
        self._differentiate()

    def _differentiate(self) -> None:
        self.gradient = self.rows.back(self.at.gradient * self.weight[:, None])
        self.gradient += self.rho[:, None] * self.params

    def keep(self, models: np.ndarray) -> None:
        """Go on with some of the models only."""
        for name in ("rho", "params", "scores", "value", "gradient"):
            setattr(self, name, getattr(self, name)[models])
        self.at = At(self.at.value[models], self.at.gradient[models])
        if len(self.weight) > 1:
            self.weight = self.weight[models]

    def move(self, direction: np.ndarray, left: float) -> np.ndarray:
        """Step along directions (K, C, D), to about the minimum along each; return which models have moved.

        A step ends where no more than a share, `left`, of the slope at its start is there. Models that cannot get lower
        stay where they are.
        """
        slope = _dot(direction, self.gradient)
        along = self.rows.scores(direction)
        of_penalty = self.rho[:, None] * direction
        linear, quadratic = _dot(of_penalty, self.params), _dot(of_penalty, direction)
        ridge = 0.5 * _dot(self.params, self.params * self.rho[:, None])
        level = self.value + 4 * _EPS * np.abs(self.value)
        step, low, high = np.ones(len(slope)), np.zeros(len(slope)), np.full(len(slope), np.inf)
        low_slope, high_slope = slope.copy(), np.full(len(slope), np.nan)
        todo = np.flatnonzero(slope < 0)
        step[slope >= 0] = 0.0
        best = At(self.at.value.copy(), self.at.gradient.copy()) if len(todo) < len(slope) else None
        value = self.value.copy()
        for _ in range(_MAX_TRIALS):
            if not len(todo):
                break
            everyone = len(todo) == len(slope)
            part: Any = slice(None) if everyone else todo
            weight = self.weight if everyone or len(self.weight) == 1 else self.weight[todo]
            t, ahead = step[part], along[part]
            at = self.loss.at(self.scores[part] + t[:, None, None] * ahead)
            reached = _mean(at.value, weight) + ridge[part] + t * (linear[part] + 0.5 * t * quadratic[part])
            inner = np.einsum("kcn,kcn->kn", at.gradient, ahead)
            rise = _mean(inner, weight) + linear[part] + t * quadratic[part]
            enough = (np.abs(rise) <= left * -slope[part]) & (reached <= level[part])
            if everyone and best is None:
                best = at
            else:
                assert best is not None
                best.value[part], best.gradient[part] = at.value, at.gradient
            value[part] = reached
            if enough.all():
                todo = todo[:0]
                break
            failed = ~enough
            todo, rise, reached = todo[failed], rise[failed], reached[failed]
            short = (rise < 0) & (reached <= level[todo])
            a, b = todo[short], todo[~short]
            low[a], low_slope[a] = step[a], rise[short]
            high[b], high_slope[b] = step[b], np.where(rise[~short] > 0, rise[~short], np.nan)
            step[todo] = _next(low[todo], low_slope[todo], high[todo], high_slope[todo])
        if len(todo):  # no step is low enough: stay
            step[todo], value[todo] = low[todo], self.value[todo]
        if best is None:
            return np.zeros(len(slope), dtype=bool)
        self.params = self.params + step[:, None, None] * direction
        self.scores = self.scores + step[:, None, None] * along
        if len(todo):
            at = self.loss.at(self.scores[todo])
            best.value[todo], best.gradient[todo] = at.value, at.gradient
            weight = self.weight if len(self.weight) == 1 else self.weight[todo]
            own = self.params[todo]
            value[todo] = _mean(at.value, weight) + 0.5 * _dot(own, own * self.rho[todo][:, None])
        self.at, self.value = best, value
        self._differentiate()
        return step > 0


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("kcd,kcd->k", a, b)


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the weighted means of the rows, (K,)."""
    return values @ weight[0] if len(weight) == 1 else np.einsum("kn,kn->k", values, weight)


def _next(low: np.ndarray, low_slope: np.ndarray, high: np.ndarray, high_slope: np.ndarray) -> np.ndarray:
    """Choose the next steps to try: where a line through the slopes at both ends is zero, kept inside of these."""
    with np.errstate(all="ignore"):
        share = low_slope / (low_slope - high_slope)
        share = np.clip(np.where(np.isfinite(share), share, 0.5), 0.1, 0.9)
        return np.where(np.isfinite(high), low + share * (high - low), np.maximum(4 * low, 1.0))


class Directions(Protocol):
    """Directions downhill, of all models of a stack.

    Attributes
    ----------
    slope_left : float
        See `Stack.move`.
    """

    slope_left: float

    def __call__(self, stack: Stack) -> np.ndarray:
        """Compute directions (K, C, D)."""

    def keep(self, models: np.ndarray) -> None:
        """Go on with some of the models only."""


def descend(stack: Stack, directions: Directions, tol: np.ndarray, max_iter: int) -> Solution:
    """Minimise the objectives of a stack until no entry of a gradient is larger than `tol` (K,).

    Each model stops on its own; the stack is consumed.
    """
    n_models = len(stack.params)
    params, bound = stack.params.copy(), np.zeros(n_models)
    curve: list[list[float]] = [[] for _ in range(n_models)]
    stopped: list[str | None] = [None] * n_models
    alive, moved, before = np.arange(n_models), np.ones(n_models, dtype=bool), np.full(n_models, np.inf)
    for iteration in range(max_iter + 1):
        largest = np.abs(stack.gradient).reshape(len(alive), -1).max(1)
        at_rest = largest <= tol[alive]
        stuck = ~moved | ~(before - stack.value > 4 * _EPS * np.maximum(np.abs(stack.value), 1e-3))
        done = at_rest | stuck | (iteration == max_iter)
        if done.any():
            for k in np.flatnonzero(done):
                model = alive[k]
                params[model], bound[model] = stack.params[k], largest[k]
                curve[model] = curve[model] or [float(stack.value[k])]
                if at_rest[k]:
                    stopped[model] = f"The gradient is below tol={tol[model]:g}."
                elif stuck[k]:
                    stopped[model] = "The objective cannot be lowered any further in this precision."
            rest = np.flatnonzero(~done)
            if not len(rest):
                break
            alive = alive[rest]
            stack.keep(rest)
            directions.keep(rest)
        before = stack.value
        moved = stack.move(directions(stack), directions.slope_left)
        for model, value in zip(alive, stack.value.tolist(), strict=True):
            curve[model].append(value)
    return Solution(params, bound, curve, stopped)
