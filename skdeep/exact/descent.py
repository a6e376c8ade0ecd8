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
#: Objective, as a share of one, below which the gradient is to be smaller by the same factor; and the least of these.
_PER_LOSS, _LEAST = 30.0, 0.01


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
        Why the solver ended; None where a limit came first.
    interrupted : bool
        Whether Ctrl-C has ended it, for all that had not stopped.
    """

    params: np.ndarray
    bound: np.ndarray
    curve: list[list[float]]
    stopped: list[str | None]
    interrupted: bool = False

    def together(self, n_scores: int) -> Solution:
        """Join models of one column each, `n_scores` after the other, to models of so many."""
        _, _, D = self.params.shape
        parts = [slice(start, start + n_scores) for start in range(0, len(self.params), n_scores)]
        curve = [summed(self.curve[part]) for part in parts]
        # the first reason that is not the plain one speaks for all
        stopped = [min(self.stopped[part], key=lambda reason: (reason is not None, reason or "")) for part in parts]
        params, bound = self.params.reshape(-1, n_scores, D), self.bound.reshape(-1, n_scores).max(1)
        return Solution(params, bound, curve, stopped, self.interrupted)


def summed(curves: list[list[float]]) -> list[float]:
    """Add up curves, which go on with their last values where they are shorter than others."""
    longest = max(map(len, curves))
    return [sum(values) for values in zip(*(c + c[-1:] * (longest - len(c)) for c in curves), strict=True)]


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
    n_evaluations : int
        Of the objectives, so far.
    all_but_last : bool
        Whether a penalty holds all columns but the last, of all models.
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
    n_evaluations: int = 1

    def __post_init__(self) -> None:
        self.all_but_last = bool(self.rho[:, :-1].all())
        self.scores = self.rows.scores(self.params)
        self.at = self.loss.at(self.scores)
        self._ridge = 0.5 * dot(self.params, self.params * self.rho[:, None])
        self.value = _mean(self.at.value, self.weight) + self._ridge
        self._differentiate(self.at.gradient * self.weight[:, None])

    def _differentiate(self, pull: np.ndarray) -> None:
        """Compute the gradient from the weighted one in the scores."""
        self.gradient = self.rows.back(pull)
        self.gradient += self.rho[:, None] * self.params

    def keep(self, models: np.ndarray) -> None:
        """Go on with some of the models only."""
        for name in ("rho", "params", "scores", "value", "gradient", "_ridge"):
            setattr(self, name, getattr(self, name)[models])
        self.at = At(self.at.value[models], self.at.gradient[models])
        if len(self.weight) > 1:
            self.weight = self.weight[models]
        self.loss = self.loss.keep(models)

    def move(self, direction: np.ndarray, left: float) -> np.ndarray:
        """Step along directions (K, C, D), to about the minimum along each; return which models have moved.

        A step ends where no more than a share, `left`, of the slope at its start is there. Models that cannot get lower
        stay where they are.
        """
        slope, along = dot(direction, self.gradient), self.rows.scores(direction)
        of_penalty = self.rho[:, None] * direction
        line = _Line(self, along, slope, dot(of_penalty, self.params), dot(of_penalty, direction), left)
        step = line.search()
        self.params = self.params + step[:, None, None] * direction
        self._ridge = self._ridge + step * (line.linear + 0.5 * step * line.quadratic)
        self.scores, self.at, self.value = line.scores, line.at, line.value
        self._differentiate(line.pull)
        return step > 0


class _Line:
    """The objectives along the directions of a stack.

    Attributes
    ----------
    along : ndarray of shape (K, C, n)
        Change of the scores.
    slope, linear, quadratic : ndarray of shape (K,)
        Of the objectives at the start, and of the penalties.
    left : float
        Share of the slope that may be left at the end.
    scores, at, value, pull
        At the end: as in a `Stack`, and the weighted gradient in the scores.
    """

    def __init__(
        self,
        stack: Stack,
        along: np.ndarray,
        slope: np.ndarray,
        linear: np.ndarray,
        quadratic: np.ndarray,
        left: float,
    ):
        self.stack, self.along, self.slope = stack, along, slope
        self.linear, self.quadratic, self.left = linear, quadratic, left
        self._level = stack.value + 4 * _EPS * np.abs(stack.value)

    def search(self) -> np.ndarray:
        """Find the steps (K,)."""
        step = np.ones(len(self.slope))
        self.scores = self.stack.scores + self.along
        self.at, self.pull, self.value, rise = self._try(self.scores, step, slice(None))
        failed = ~self._is_enough(self.value, rise, slice(None))
        failed |= ~(self.slope < 0)
        if failed.any():
            self._search(step, rise, np.flatnonzero(failed))
        return step

    def _try(self, scores: np.ndarray, step: np.ndarray, part: Any) -> tuple[At, np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate trials of some of the models: the loss, the weighted gradient, the objective and its slope."""
        weight = self.stack.weight if len(self.stack.weight) == 1 else self.stack.weight[part]
        loss = self.stack.loss if isinstance(part, slice) else self.stack.loss.keep(part)
        self.stack.n_evaluations += 1
        at = loss.at(scores)
        pull = at.gradient * weight[:, None]
        value = _mean(at.value, weight) + self.stack._ridge[part]
        value += step * (self.linear[part] + 0.5 * step * self.quadratic[part])
        rise = dot(pull, self.along[part]) + self.linear[part] + step * self.quadratic[part]
        return at, pull, value, rise

    def _is_enough(self, value: np.ndarray, rise: np.ndarray, part: Any) -> np.ndarray:
        return (np.abs(rise) <= self.left * -self.slope[part]) & (value <= self._level[part])

    def _search(self, step: np.ndarray, rise: np.ndarray, todo: np.ndarray) -> None:
        """Go on with the models whose first step was not good enough."""
        low, high = np.zeros(len(step)), np.full(len(step), np.inf)
        low_slope, high_slope = self.slope.copy(), np.full(len(step), np.nan)
        trial = step[todo]
        reached, rise = self.value[todo], rise[todo]
        for _ in range(_MAX_TRIALS):
            short = (rise < 0) & (reached <= self._level[todo])
            a, b = todo[short], todo[~short]
            low[a], low_slope[a] = trial[short], rise[short]
            high[b], high_slope[b] = trial[~short], np.where(rise[~short] > 0, rise[~short], np.nan)
            trial = _next(low[todo], low_slope[todo], high[todo], high_slope[todo])
            at, pull, reached, rise = self._put(todo, trial)
            step[todo] = trial
            failed = ~self._is_enough(reached, rise, todo)
            todo, trial, reached, rise = todo[failed], trial[failed], reached[failed], rise[failed]
            if not len(todo):
                return
        step[todo] = low[todo]  # no step is low enough: stay, or nearly so
        self._put(todo, low[todo])

    def _put(self, models: np.ndarray, step: np.ndarray) -> tuple[At, np.ndarray, np.ndarray, np.ndarray]:
        """Put some of the models at steps along their directions."""
        scores = self.stack.scores[models] + step[:, None, None] * self.along[models]
        at, pull, value, rise = self._try(scores, step, models)
        self.scores[models], self.pull[models], self.value[models] = scores, pull, value
        self.at.value[models], self.at.gradient[models] = at
        return at, pull, value, rise


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the product of two arrays (K, ...) of each model."""
    return np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1))


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the weighted means of the rows, (K,)."""
    return values @ weight[0] if len(weight) == 1 else np.vecdot(values, weight)


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

    def again(self, group: np.ndarray) -> Directions:
        """Make directions for objectives much like these; models of one number have about the same curvature."""


def descend(
    stack: Stack, directions: Directions, tol: np.ndarray, max_iter: int, max_evaluations: float = np.inf
) -> Solution:
    """Minimise the objectives of a stack until no entry of a gradient is larger than `tol` (K,).

    Each model stops on its own; the stack is consumed. Raises KeyboardInterrupt before the first iteration has ended.
    """
    n_models = len(stack.params)
    found = Solution(stack.params.copy(), np.zeros(n_models), [[] for _ in range(n_models)], [None] * n_models)
    alive, moved = np.arange(n_models), np.ones(n_models, dtype=bool)
    before, steepest = np.full(n_models, np.inf), np.full(n_models, np.inf)
    try:
        for iteration in range(max_iter + 1):
            largest = np.abs(stack.gradient).max((1, 2))
            fallen = before - stack.value > 4 * _EPS * np.maximum(np.abs(stack.value), 1e-3)
            limit = iteration == max_iter or stack.n_evaluations >= max_evaluations
            if limit or not (fallen & moved & (largest > tol)).all():
                # of weights that a strong penalty keeps small, predictions depend on the last digits; and gradients are
                # as small as the loss where rows are told apart, however far it still has to fall (but steps on pieces
                # of quadratics end at the optimum all at once)
                unit = np.minimum(1.0, np.abs(stack.params).max((1, 2)))
                if not stack.loss.piecewise:
                    unit = np.clip(_PER_LOSS * stack.value, _LEAST, unit)
                at_rest = largest <= tol * unit
                # where the fall is lost in rounding, the gradient may still tell
                stuck = ~moved | (~fallen & ~(largest < 0.5 * steepest))
                done = at_rest | stuck | limit
                for k in np.flatnonzero(done):
                    model = alive[k]
                    found.params[model], found.bound[model] = stack.params[k], largest[k]
                    found.curve[model] = found.curve[model] or [float(stack.value[k])]
                    if at_rest[k]:
                        found.stopped[model] = f"The gradient is below tol={tol[k]:g}."
                    elif stuck[k]:
                        found.stopped[model] = "The objective cannot be lowered any further in this precision."
                rest = np.flatnonzero(~done)
                if not len(rest):
                    break
                if len(rest) < len(alive):
                    alive, largest, tol = alive[rest], largest[rest], tol[rest]
                    stack.keep(rest)
                    directions.keep(rest)
            before, steepest = stack.value, largest
            moved = stack.move(directions(stack), directions.slope_left)
            for model, value in zip(alive, stack.value.tolist(), strict=True):
                found.curve[model].append(value)
    except KeyboardInterrupt:
        if not all(found.curve):
            raise
        found.params[alive], found.bound[alive] = stack.params, np.abs(stack.gradient).max((1, 2))
        found.interrupted = True
    return found
