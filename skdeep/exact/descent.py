r"""Descent to the minimum of smooth convex objectives, of a stack of K models: one loop, whatever the direction.

.. math:: \sum_i w_i\, \ell_i(s_i) + \tfrac12 \sum_{cj} \rho_j V_{cj}^2, \qquad s_i = V z_i

Along a direction, the scores are a line: a trial step costs no product with the rows, so that the line search looks for
the minimum itself.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

import numpy as np

from skdeep.exact.losses import At, RowLoss
from skdeep.exact.rows import Rows

EPS = float(np.finfo(np.float64).eps)
#: Trials of a step, and the share of those left that is tried where a step was much too large.
MAX_TRIALS, MUCH_LESS = 40, 0.1
#: Objective, as a share of one, below which the gradient is to be smaller by the same factor; and the least of these.
PER_LOSS, LEAST = 30.0, 0.01
#: By how much the next step may lower an objective at rest, as a share of it and of `tol`.
AHEAD = 3.0
#: Objectives below which a fall is told by its size alone.
LEAST_VALUE = 1e-3
#: Why a model stops that has come to its end.
AT_REST = "The gradient is below tol={:g}."


@dataclass
class Solution:
    """What a solver has found, of each model."""

    params: np.ndarray  # (K, C, D)
    bound: np.ndarray  # what the tolerance bounds: the largest entry of the gradient, or the relative gap, (K,)
    curve: list[list[float]]  # the objective after each iteration
    stopped: list[str | None]  # why the solver ended; None where a limit came first
    interrupted: KeyboardInterrupt | bool = False  # what has ended it, for all that had not stopped
    n_evaluations: int = 0  # of the objectives, where these are limited

    def together(self, n_scores: int) -> Solution:
        """Join models of one column each, `n_scores` after the other, to models of so many."""
        _, _, D = self.params.shape
        parts = [slice(start, start + n_scores) for start in range(0, len(self.params), n_scores)]
        curve = [summed(self.curve[part]) for part in parts]
        # the first reason that is not the plain one speaks for all
        stopped = [min(self.stopped[part], key=lambda reason: (reason is not None, reason or "")) for part in parts]
        params, bound = self.params.reshape(-1, n_scores, D), self.bound.reshape(-1, n_scores).max(1)
        return Solution(params, bound, curve, stopped, self.interrupted, self.n_evaluations)

    @classmethod
    def begun(cls, params: np.ndarray) -> Solution:
        """Make the solution of models that are at parameters (K, C, D), of which no more is known."""
        return cls(params, np.zeros(len(params)), [[] for _ in params], [None] * len(params))

    def put(self, models: np.ndarray, part: Solution) -> None:
        """Put what has been found for some of the models."""
        self.params[models], self.bound[models] = part.params, part.bound
        for k, model in enumerate(models):
            self.curve[model], self.stopped[model] = part.curve[k], part.stopped[k]

    @classmethod
    def joined(cls, parts: list[Solution]) -> Solution:
        """Join the solutions of some models, and of others after them."""
        params, bound = (np.concatenate([getattr(part, name) for part in parts]) for name in ("params", "bound"))
        curve, stopped = ([one for part in parts for one in getattr(part, name)] for name in ("curve", "stopped"))
        interrupted = next((part.interrupted for part in parts if part.interrupted), False)
        n_evaluations = max(part.n_evaluations for part in parts)
        return cls(params, bound, curve, stopped, interrupted, n_evaluations)


def summed(curves: list[list[float]]) -> list[float]:
    """Add up curves, which go on with their last values where they are shorter than others."""
    longest = max(map(len, curves))
    return [sum(values) for values in zip(*(c + c[-1:] * (longest - len(c)) for c in curves), strict=True)]


@dataclass
class Stack:
    """The models still on their way."""

    rows: Rows
    loss: RowLoss
    weight: np.ndarray  # (K, n) or (1, n)
    rho: np.ndarray  # curvature of the penalty along each column, (K, D)
    params: np.ndarray  # (K, C, D)
    known: InitVar[np.ndarray | None] = None  # the scores to begin with, where they are known
    scores: np.ndarray = field(init=False)  # (K, C, n)
    at: At = field(init=False)  # the loss there
    value: np.ndarray = field(init=False)  # of the objectives, (K,)
    left: np.ndarray = field(init=False)  # share of the slope at the start of the last step that was there at its end
    rounding: np.ndarray = field(init=False)  # by how much values are not told apart, (K,)
    n_evaluations: int = 0  # of the objectives, so far
    _pull: np.ndarray = field(init=False)
    _slope: np.ndarray = field(init=False)
    _gradient: np.ndarray | None = field(init=False)

    def __post_init__(self, known: np.ndarray | None) -> None:
        #: Whether a penalty holds all columns but the last, of all models.
        self.all_but_last = bool(self.rho[:, :-1].all())
        self.left = np.zeros(len(self.params))
        self._put(self.params, self.rows.scores(self.params) if known is None else known)

    def _put(self, params: np.ndarray, scores: np.ndarray) -> None:
        """Put the models at parameters, which have these scores."""
        self.n_evaluations += 1
        self.params, self.scores, self._gradient = params, scores, None
        self.at, self._pull, self._slope, self.value = _judged(self.loss, self.weight, self.rho, params, scores)
        self.rounding = _rounding(self.value)

    def _put_some(self, models: np.ndarray, params: np.ndarray, scores: np.ndarray) -> None:
        if len(models) == len(self.params):
            self._put(params, scores)
            return
        self.n_evaluations += 1
        at, *found = _judged(self.loss.keep(models), self._weight_of(models), self.rho[models], params, scores)
        for mine, new in zip(
            (self.params, self.scores, *self.at, self._pull, self._slope, self.value),
            (params, scores, *at, *found),
            strict=True,
        ):
            mine[models] = new
        self.rounding = _rounding(self.value)

    def _weight_of(self, models: np.ndarray) -> np.ndarray:
        return self.weight if len(self.weight) == 1 else self.weight[models]

    @property
    def gradient(self) -> np.ndarray:
        """Of the objectives, (K, C, D)."""
        if self._gradient is None:
            self._gradient = self.rows.back(self._pull)
            self._gradient += self._slope
        return self._gradient

    def above(self) -> np.ndarray:
        """Compute by how much objectives may be above their minimum, (K,), by what the penalty holds."""
        squares = np.square(self.gradient).sum(1)
        return np.divide(0.5 * squares, self.rho, out=np.zeros_like(squares), where=self.rho > 0).sum(1)

    def keep(self, models: np.ndarray) -> None:
        """Go on with some of the models only."""
        self._gradient = self.gradient[models]
        for name in ("rho", "params", "scores", "value", "rounding", "_pull", "_slope", "left"):
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
        params, scores, level = self.params, self.scores, self.value + self.rounding
        self._put(params + direction, scores + along)
        rise = dot(along, self._pull) + dot(direction, self._slope)
        enough = (np.abs(rise) <= left * -slope) & (self.value <= level)
        self.left = rise / slope
        if all(enough.tolist()):  # the first step is the right one nearly always
            return enough
        # for others, Newton's in one variable
        todo = np.flatnonzero(~enough)
        rise, step, low, high = rise[todo], np.ones_like(slope), np.zeros_like(slope), np.full_like(slope, np.inf)
        for trial in range(1, MAX_TRIALS + 1):
            short = (rise < 0) & (self.value[todo] <= level[todo])
            low[todo[short]], high[todo[~short]] = step[todo[short]], step[todo[~short]]
            if trial < MAX_TRIALS:
                wanted = step[todo] - rise / self._bend(direction, along, todo)
                step[todo] = _next(low[todo], high[todo], wanted, self.value[todo] > level[todo])
            else:  # no step is low enough: stay, or nearly so
                step[todo] = low[todo]
            far = step[todo, None, None]
            self._put_some(todo, params[todo] + far * direction[todo], scores[todo] + far * along[todo])
            rise = dot(along[todo], self._pull[todo]) + dot(direction[todo], self._slope[todo])
            self.left[todo] = rise / slope[todo]
            failed = ~((np.abs(rise) <= left * -slope[todo]) & (self.value[todo] <= level[todo]))
            if not failed.any():
                break
            todo, rise = todo[failed], rise[failed]
        return step > 0

    def _bend(self, direction: np.ndarray, along: np.ndarray, models: np.ndarray) -> np.ndarray:
        """Compute the second derivatives along directions (K, C, D) with scores (K, C, n), of some of the models."""
        at, along, direction = At(self.at.value[models], self.at.gradient[models]), along[models], direction[models]
        second = self.loss.keep(models).times_second(self.scores[models], at, along)
        second *= self._weight_of(models)[:, None]
        return dot(second, along) + dot(self.rho[models][:, None] * direction, direction)


def _judged(
    loss: RowLoss, weight: np.ndarray, rho: np.ndarray, params: np.ndarray, scores: np.ndarray
) -> tuple[At, np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate objectives: the loss, its weighted gradient in scores, the penalty's gradient, and the value."""
    at, slope = loss.at(scores), rho[:, None] * params
    return at, at.gradient * weight[:, None], slope, _mean(at.value, weight) + 0.5 * dot(params, slope)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the product of two arrays (K, ...) of each model."""
    return np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1))


def _rounding(value: np.ndarray) -> np.ndarray:
    """Compute by how much objectives (K,) are not told apart."""
    found = np.maximum(value, LEAST_VALUE)
    found *= 4 * np.finfo(value.dtype).eps
    return found


def _largest(a: np.ndarray) -> np.ndarray:
    """Find the largest magnitude in an array (K, ...) of each model."""
    return np.maximum.reduce(np.abs(a).reshape(len(a), -1), 1)


def small_enough(tol: np.ndarray, value: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Compute which gradients are within `tol` (K,), of objectives (K,) and parameters (K, ...).

    Of weights that a strong penalty keeps small, predictions depend on the last digits; and gradients are as small as
    the loss where rows are told apart, however far it still has to fall.
    """
    # the lower bound counts less than the upper one
    return tol * np.minimum(np.maximum(PER_LOSS * value, LEAST), np.minimum(1.0, _largest(params)))


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the weighted means of the rows, (K,)."""
    return values @ weight[0] if len(weight) == 1 else np.vecdot(values, weight)


def _next(low: np.ndarray, high: np.ndarray, wanted: np.ndarray, is_worse: np.ndarray) -> np.ndarray:
    """Choose the next steps to try: those wanted, if they are between the largest too small and the least too large.

    From where it is worse than at the start, exponentials want steps that fall by the same little amount each time, and
    losses that are lines there tell nothing of a step that is many orders of magnitude too long.
    """
    between = np.where(np.isfinite(high), 0.5 * (low + high), np.maximum(4 * low, 1.0))
    found = np.where((wanted > low) & (wanted < high), wanted, between)
    return np.where(is_worse & ~((wanted > low) & (wanted <= between)), low + MUCH_LESS * (high - low), found)


class Directions:
    """Directions downhill, of all models of a stack: base of those that remember nothing of earlier steps."""

    slope_left: float  # see `Stack.move`
    most_scores: float  # of models that are best moved at a time
    nearer: float  # share of the tolerance that models of a path are solved to: no matter then where they begin

    def __call__(self, stack: Stack) -> np.ndarray:
        """Compute directions (K, C, D)."""
        raise NotImplementedError

    def keep(self, models: np.ndarray) -> None:
        """Go on with some of the models only."""

    def again(self, group: np.ndarray) -> Directions:
        """Make directions for objectives much like these; models of one number have about the same curvature."""
        return self


class Watch:
    """Base of who hears of each iteration."""

    def begins(self) -> None:
        """Hear that an iteration begins."""

    def ended(self, models: np.ndarray, params: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Hear where models (k,) are, (k, C, D), and of their objectives (k,); return which are to end (k,)."""
        raise NotImplementedError


def descend(
    stack: Stack,
    directions: Directions,
    tol: np.ndarray,
    max_iter: int,
    max_evaluations: float = np.inf,
    watch: Watch | None = None,
) -> Solution:
    """Minimise the objectives of a stack until no entry of a gradient is larger than `tol` (K,).

    Each model stops on its own; the stack is consumed. Raises KeyboardInterrupt before the first iteration has ended.
    """
    n_models = len(stack.params)
    is_enough: np.ndarray | bool = False
    found = Solution.begun(stack.params.copy())
    alive, moved = np.arange(n_models), np.ones(n_models, dtype=bool)
    before, steepest = stack.value, np.full(n_models, np.inf)
    try:
        for iteration in range(max_iter + 1):
            largest = _largest(stack.gradient)
            fall = before - stack.value
            fallen = fall > stack.rounding
            limit = iteration == max_iter or stack.n_evaluations >= max_evaluations or is_enough
            if np.any(limit) or not all((fallen & moved & (largest > tol)).tolist()):
                at_rest = largest <= small_enough(tol, stack.value, stack.params)
                # where the last step has left a share of its slope, the next ones fall as far, however flat it is
                enough = AHEAD * tol * np.maximum(stack.value, LEAST)
                at_rest &= ~(stack.left * fall > enough)
                if stack.loss.piecewise:  # the step before says nothing of the next pieces
                    at_rest &= ~(stack.above() > enough)
                # where the fall is lost in rounding, the gradient may still tell
                stuck = ~moved | (~fallen & ~(largest < 0.5 * steepest))
                done = at_rest | stuck | limit
                for k in np.flatnonzero(done):
                    model = alive[k]
                    found.params[model], found.bound[model] = stack.params[k], largest[k]
                    found.curve[model] = found.curve[model] or [float(stack.value[k])]
                    if at_rest[k]:
                        found.stopped[model] = AT_REST.format(tol[k])
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
            if watch is not None:
                watch.begins()
            moved = stack.move(directions(stack), directions.slope_left)
            for model, value in zip(alive, stack.value.tolist(), strict=True):
                found.curve[model].append(value)
            if watch is not None:
                is_enough = watch.ended(alive, stack.params, stack.value)
    except KeyboardInterrupt as interrupt:
        if not all(found.curve):
            raise
        found.params[alive], found.bound[alive] = stack.params, _largest(stack.gradient)
        found.interrupted = interrupt
    found.n_evaluations = stack.n_evaluations
    return found
