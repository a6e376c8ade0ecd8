r"""Method of multipliers for hinges: an augmented Lagrangian, whose problems Newton's method solves.

The method of multipliers (a proximal point method on the dual) replaces a loss :math:`\max_a \langle a, m\rangle -
c(a)` by a smooth one, :math:`\max_n \langle n, m\rangle - c(n) - \tfrac\delta2\|n - a\|^2`, around duals a, which are
then replaced by the n of its optimum. Few terms have a second derivative: the free ones, whose n is at no bound. Each
iterate has a duality gap: with slopes n, the gradient G of :math:`\sum_i w_i \langle n_i, m_i\rangle` in the parameters
V, and the penalty's factors :math:`\rho`,

.. math:: \text{primal} - \text{dual} = \sum_i w_i (\ell_i + c(n_i) - \langle n_i, m_i\rangle)
          + \tfrac12 \sum (G + \rho V)^2 / \rho,

where both sums are at least zero, if G is zero in the intercepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skdeep.exact.descent import dot
from skdeep.exact.hinge_newton import Bends, directions
from skdeep.exact.hinge_terms import Terms
from skdeep.exact.rows import Rows

#: Width of smoothing: at first; at least, where it is the gap of a start near the optimum; what it is multiplied by
#: whenever what is left of complementarity has not fallen to a share of what it was; at least.
WIDTH, _WARM, _SHRINK, _SLOW, _NARROWEST = 3.0, 0.03, 0.5, 0.3, 1e-10
#: What bounds of the intercepts' steps are multiplied by, where a step was too short, and too long.
_BOLD, _SHY = 0.2, 2.0
#: Duals are replaced when what is left of the gradient counts no more than so much of what is left of complementarity.
_SHARE = 1.0
#: Most of the rows that are left when others stay out of steps.
_MOST = 0.7
#: Gaps that are rounding, of objectives that are about one where all parameters are zero.
_ROUNDING = 1e-16
#: Line searches end at so much of the first slope.
_FLAT, _MAX_TRIALS = 0.1, 40


@dataclass
class Solution:
    """What is known of a stack's optimum."""

    params: np.ndarray  # (K, C, D)
    duals: np.ndarray  # (K, C, n)
    value: np.ndarray  # (K,)
    gap: np.ndarray  # how far the value is above a lower bound of all, as a share of itself, (K,)
    converged: np.ndarray  # (K,)
    curve: list[list[float]]  # values by iteration, for each model

    @classmethod
    def blank(cls, K: int, C: int, D: int, n: int) -> Solution:
        """Make room for one."""
        params, duals = np.zeros((K, C, D)), np.zeros((K, C, n))
        return cls(params, duals, np.zeros(K), np.zeros(K), np.zeros(K, dtype=bool), [[] for _ in range(K)])

    @classmethod
    def interleaved(cls, columns: list[Solution]) -> Solution:
        """Join what was found of some columns: of each model, one after the other."""

        def joined(name: str) -> np.ndarray:
            found = np.stack([getattr(column, name) for column in columns], 1)
            return found.reshape(-1, *found.shape[2:])

        curve = [own for of_model in zip(*(column.curve for column in columns), strict=True) for own in of_model]
        return cls(joined("params"), joined("duals"), joined("value"), joined("gap"), joined("converged"), curve)


@dataclass
class Problem:
    """State what a batch of models minimise."""

    rows: Rows
    terms: Terms
    weight: np.ndarray
    rho: np.ndarray
    intercept: bool

    def __post_init__(self) -> None:
        self.penalised, self.trained = self.rho > 0, (self.weight > 0)[:, None]
        self.all_trained = bool(self.trained.all())
        self.half_inverse = np.divide(0.5, self.rho, out=np.zeros_like(self.rho), where=self.penalised)
        self.all_penalised = bool(self.penalised.all())
        self.all_but_last = bool(self.penalised[:, : self.rho.shape[1] - self.intercept].all())

    def select(self, models: np.ndarray | list[int]) -> Problem:
        """Take some of the models."""
        terms, weight, rho = self.terms.select(models), self.weight[models], self.rho[models]
        return Problem(self.rows, terms, weight, rho, self.intercept)

    def of_rows(self, index: np.ndarray) -> Problem:
        """Take some of the rows."""
        weight = self.weight[:, index]
        return Problem(self.rows.select(index), self.terms.of_rows(index), weight, self.rho, self.intercept)

    def at(self, params: np.ndarray, slope: np.ndarray, margin: np.ndarray) -> _At:
        """Compute the objective at parameters, and what is left of a gap at slopes."""
        pull, penalty = slope * self.weight[:, None], self.rho[:, None] * params
        gradient = self.rows.back(self.terms.to_scores(pull))
        gradient += penalty
        loss = self.terms.loss(margin)
        data = np.vecdot(loss, self.weight)
        conjugate = self.terms.conjugate(slope)
        against = data if conjugate is None else np.vecdot(loss + conjugate, self.weight)
        stationary = np.vecdot((gradient * gradient).sum(1), self.half_inverse)
        if not self.all_penalised:  # as far as parameters may be from the optimum's
            reach = np.maximum(np.abs(params).max((1, 2), initial=1.0), 1.0)
            stationary += reach * np.vecdot(np.abs(gradient).sum(1), ~self.penalised)
        return _At(data + 0.5 * dot(penalty, params), against - dot(pull, margin), stationary, gradient, penalty)

    def certify(self, params: np.ndarray, dual: np.ndarray, goal: np.ndarray, curve: list[list[float]]) -> Solution:
        """Compute the gaps of parameters, for duals that make a lower bound."""
        if self.intercept:
            dual = self.terms.balanced(dual, self.weight)
        at = self.at(params, dual, self.terms.margins(self.rows.scores(params)))
        above = np.maximum(at.complementary + at.stationary, 0)
        gap = np.divide(above, at.primal, out=np.zeros_like(above), where=at.primal > 0)
        return Solution(params, dual, at.primal, gap, above <= goal * at.primal + _ROUNDING, curve)

    def factors(self, gradient: np.ndarray, delta: np.ndarray, caution: np.ndarray) -> np.ndarray:
        """Compute the penalty's second derivative (K, C, D), and steps' bounds where there is no penalty.

        Without free terms, a step is as long as margins are smoothed; it is Newton's as the gradient comes to zero.
        """
        found = np.repeat(self.rho[:, None], gradient.shape[1], 1)
        if not self.all_but_last:
            steepest = np.abs(gradient).max((1, 2), keepdims=True)
            found += ~self.penalised[:, None] * ((steepest + 1e-10) * (caution / delta)[:, None, None])
        if self.intercept:
            found[:, :, -1] = (np.abs(gradient[:, :, -1]) + 1e-12) * (caution / delta)[:, None]
        return found


@dataclass
class _At:
    """Hold what is known at an iterate: the objective, both parts of the gap, gradients."""

    primal: np.ndarray
    complementary: np.ndarray
    stationary: np.ndarray
    gradient: np.ndarray
    penalty: np.ndarray


class _Root:
    """Find where a derivative that rises becomes zero: regula falsi, in the Illinois form."""

    __slots__ = ("derivative_high", "derivative_low", "high", "low", "side")

    def __init__(self, derivative: float):
        self.low, self.high = 0.0, np.inf
        self.derivative_low, self.derivative_high, self.side = derivative, np.inf, 0

    def next(self, t: float, derivative: float) -> float:
        """Take a derivative into account, and say where to try next."""
        if derivative < 0:
            if self.side > 0:
                self.derivative_high /= 2
            self.low, self.derivative_low, self.side = t, derivative, 1
        else:
            if self.side < 0:
                self.derivative_low /= 2
            self.high, self.derivative_high, self.side = t, derivative, -1
        if self.high == np.inf:
            return 3 * t
        rise = self.derivative_high - self.derivative_low
        return self.low - self.derivative_low * (self.high - self.low) / rise if rise > 0 else self.low


class Descent:
    """Train a batch of models, each until its gap is closed.

    Models that are done leave the batch; ``model`` numbers those that are left. When duals are replaced, rows that are
    outside of all margins, and have no dual, leave until then again: ``problem`` is of the rows ``near``.
    """

    def __init__(
        self, problem: Problem, starts: list[tuple[np.ndarray, np.ndarray]], width: float | None, goal: np.ndarray
    ):
        K, self.given = len(goal), len(starts) == 1 and width is None
        margins = [problem.terms.margins(problem.rows.scores(params)) for params, _ in starts]
        if width is not None or self.given:  # what is given is certified first
            best = np.zeros(K, dtype=int), np.arange(K)
            self.delta = np.full(K, float(width or _WARM))
        else:
            each = [problem.at(*start, margin) for start, margin in zip(starts, margins, strict=True)]
            gaps = np.array([(at.complementary + at.stationary) / np.maximum(at.primal, _ROUNDING) for at in each])
            best = gaps.argmin(0), np.arange(K)
            self.delta = np.clip(gaps[best], _WARM, 1)
        self.whole, self.problem, self.margin = problem, problem, np.stack(margins)[best]
        n = self.margin.shape[2]
        self.near, self.has_returned = np.arange(n), np.zeros(n, dtype=bool)
        self.params, self.dual = np.stack([V for V, _ in starts])[best], np.stack([a for _, a in starts])[best]
        self.last, self.caution = np.full(K, np.inf), np.ones(K)
        self.goal, self.target, self.model = goal, goal.copy(), np.arange(K)
        self.found = Solution.blank(K, problem.terms.n_scores, self.params.shape[2], n)

    def run(self, max_iter: int) -> Solution:
        """Iterate until all are done, or for so many steps."""
        if self.given:
            left = self.certify(list(range(len(self.model))), self.dual)
            self.delta = np.clip(self.found.gap, _WARM, 1)
            for k in np.flatnonzero(self.found.converged).tolist():
                self.found.curve[k].append(float(self.found.value[k]))
            if left is not None:
                if not len(left):
                    return self.found
                self.keep(left)
        slope = self.project(0.0)
        for iteration in range(max_iter + 1):
            at = self.problem.at(self.params, slope, self.margin)
            done, replaced = self.judge(at)
            if iteration == max_iter:
                self.certify(list(range(len(self.model))), slope)
                break
            self.target[done] *= 0.3  # should the gap of balanced duals be larger
            if done and (left := self.certify(done, slope)) is not None:
                if not len(left):
                    break
                self.keep(left)
                slope = slope[left]
                at = _At(*(getattr(at, part)[left] for part in at.__dataclass_fields__))
                replaced = [i for i, k in enumerate(left.tolist()) if k in replaced]
            if replaced:
                has_other_rows = self.replace(replaced, slope, at)
                if len(replaced) == len(self.model):
                    slope = self.project(0.0)
                    continue
                if has_other_rows:
                    slope = self.project(0.0)
                    at = self.problem.at(self.params, slope, self.margin)
            step = self.direction(at, slope)
            step[replaced] = 0
            slope = self.go(step, at)
        return self.found

    def project(self, ahead: np.ndarray | float) -> np.ndarray:
        """Compute slopes of the smoothed losses, where margins have changed by so much."""
        point = self.margin + ahead
        point /= self.delta[:, None, None]
        point += self.dual
        return self.problem.terms.project(point, self.delta)

    def judge(self, at: _At) -> tuple[list[int], list[int]]:
        """Find the models that seem to be done, and those whose duals are to be replaced."""
        done, replaced = [], []
        of_model = zip(at.primal.tolist(), at.complementary.tolist(), at.stationary.tolist(), strict=True)
        for k, (primal, complementary, stationary) in enumerate(of_model):
            self.found.curve[self.model[k]].append(primal)
            seems_done = complementary + stationary <= self.target[k] * primal + _ROUNDING
            if seems_done:
                done.append(k)
            # what is no optimum of all rows may be one of those near the margins, which are chosen anew then
            if seems_done or stationary <= _SHARE * complementary:
                replaced.append(k)
        return done, replaced

    def certify(self, models: list[int], slope: np.ndarray) -> np.ndarray | None:
        """Compute gaps of duals that make a lower bound; say which models are left, if any has reached its goal."""
        some = np.array(models)
        dual = self.of_all(slope[models])
        part = self.whole.select(models).certify(self.params[some], dual, self.goal[some], [])
        found, model = self.found, self.model[some]
        for name in ("params", "duals", "value", "gap", "converged"):
            getattr(found, name)[model] = getattr(part, name)
        reached = part.converged
        return np.delete(np.arange(len(self.model)), some[reached]) if reached.any() else None

    def keep(self, models: np.ndarray) -> None:
        """Forget all models but some."""
        self.whole, self.problem = self.whole.select(models), self.problem.select(models)
        for name in ("params", "dual", "margin", "delta", "last", "caution", "goal", "target", "model"):
            setattr(self, name, getattr(self, name)[models])

    def of_all(self, values: np.ndarray) -> np.ndarray:
        """Add zeros for the rows that stay out."""
        n = len(self.has_returned)
        if len(self.near) == n:
            return values
        found = np.zeros((*values.shape[:2], n))
        found[:, :, self.near] = values
        return found

    def measure(self) -> bool:
        """Compute margins anew, as rounding of steps adds up; choose the rows near them, and tell if those changed."""
        margin = self.whole.terms.margins(self.whole.rows.scores(self.params))
        dual, n = self.of_all(self.dual), margin.shape[2]
        is_near = np.asarray(((margin > 0) | (dual > 0)).any((0, 1)))
        if len(self.near) < n:  # what comes back stays, so that no row comes and goes for ever
            returns = is_near.copy()
            returns[self.near] = False
            self.has_returned |= returns
        near = (is_near | self.has_returned).nonzero()[0]
        near = near if 0 < len(near) <= _MOST * n else np.arange(n)
        changes = not np.array_equal(near, self.near)
        if changes:
            self.near, self.problem = near, self.whole.of_rows(near) if len(near) < n else self.whole
        self.margin, self.dual = (margin, dual) if len(near) == n else (margin[:, :, near], dual[:, :, near])
        return changes

    def replace(self, models: list[int], slope: np.ndarray, at: _At) -> bool:
        """Replace duals by slopes; smooth less where that closes the gap slowly; tell if other rows are near."""
        self.dual[models] = slope[models]
        has_other_rows = self.measure()
        complementary = at.complementary[models]
        slow = ~(complementary <= _SLOW * self.last[models]) | np.isinf(self.last[models])
        self.delta[models] = np.where(slow, np.maximum(self.delta[models] * _SHRINK, _NARROWEST), self.delta[models])
        self.last[models] = complementary
        return has_other_rows

    def direction(self, at: _At, slope: np.ndarray) -> np.ndarray:
        """Compute Newton's directions."""
        problem = self.problem
        free, coupling = problem.terms.free(slope, self.delta)
        if not problem.all_trained:
            free &= problem.trained
        bends = Bends(
            free, coupling, problem.weight / self.delta[:, None], problem.factors(at.gradient, self.delta, self.caution)
        )
        return directions(problem.rows, problem.terms, bends, at.gradient, problem.intercept)

    def go(self, step: np.ndarray, at: _At) -> np.ndarray:
        """Move along a direction to the least value; return the slopes there."""
        problem = self.problem
        change = problem.terms.changes(problem.rows.scores(step))
        weighted = change * problem.weight[:, None]
        first = dot(step, at.gradient).tolist()
        linear, square = dot(step, at.penalty), dot(step, problem.rho[:, None] * step)
        close = [_FLAT * abs(slope) + 1e-16 * primal for slope, primal in zip(first, at.primal.tolist(), strict=True)]
        roots, t = [_Root(slope) for slope in first], np.ones(len(first))
        for _ in range(_MAX_TRIALS):
            slope = self.project(t[:, None, None] * change)
            derivative = (linear + t * square + dot(slope, weighted)).tolist()
            open_ = [k for k, value in enumerate(derivative) if not abs(value) <= close[k]]
            if not open_:
                break
            for k in open_:
                t[k] = roots[k].next(t[k], derivative[k])
        self.caution = np.minimum(np.where(t > 1, _BOLD, np.where(t < 0.3, _SHY, 1.0)) * self.caution, 1)
        self.params += t[:, None, None] * step
        self.margin += t[:, None, None] * change
        return slope if not open_ else self.project(0.0)
