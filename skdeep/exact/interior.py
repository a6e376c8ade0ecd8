r"""Interior point of losses that are hinges of margins, many systems at a time, with or without a ridge.

With slacks :math:`\xi \ge \max(m, 0)` above the margins m of the terms, and duals a in between 0 and 1, the optimum
has :math:`a (\xi - m) = (1 - a) \xi = 0`. Mehrotra's method replaces these zeros by one :math:`\mu`, which falls from
step to step, as far as a trial step says it can. It takes one to three dozen steps, which depend little on weights and
penalties: models of a stack are done at about the same time.

S. Mehrotra, *On the implementation of a primal-dual interior point method*, SIAM Journal on Optimization 2, 1992.
Nocedal & Wright, *Numerical Optimization*, 2nd edition, section 16.6.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

#: How many times more than products of slacks and duals the gradient may count to begin with, or else they are made
#: larger; and by what.
MUCH, _MORE = 5.0, 3.0
#: Share of complementarity that a step has left where the next one goes for no less than another share; else it goes
#: for this power of the share that a trial leaves.
SLOW, _FIRM, _POWER = 0.5, 0.1, 4
#: Bounds of what a float is divided by, and of what is raised to a power, which raises where an array has infinities.
_TINY, _MOST = float(np.finfo(float).tiny), 1e9
#: Which way the duals of both bounds change.
_SIGNS = np.array([[1.0], [-1.0]])
#: Share of the way to the nearest bound that a step goes.
_NEARLY = 0.995
#: Most steps, and steps that may not halve the gap, one after the other: else they go round in a circle, or rounding is
#: in the way; and those where they are short.
_STEPS, _SHORT_STEPS = (100, 6), (500, 60)
#: Most steps to the margins to begin with.
_MAX_GIVEN = 20
#: Pivots below so much of the curvature are rounding. What holds parameters then that no penalty holds, as a share of
#: the largest curvature, and at least.
_SINGULAR, _HOLD, _LEAST = 1e-14, 1e-12, 1e-12


class Found(NamedTuple):
    """Near an optimum: parameters (K, C D), duals (K, T) of the terms, and objectives by step."""

    params: np.ndarray
    duals: np.ndarray
    curve: list[list[float]]


class Terms(Protocol):
    """The terms of all rows, T of each system, in one line."""

    n_scores: int  # of a system
    at_zero: np.ndarray  # margins where all parameters are zero, (K or 1, T)
    share: np.ndarray  # products of slacks and duals, beside each other, on the way to zero, (K or 1, T)
    lean: np.ndarray | None  # what falls with the margins, beside the hinges, at so much per margin, (K, T)
    #: How far margins give way, for each unit of the dual beyond a half: what bends within half of it, as Huber's loss.
    give: np.ndarray | None
    creeps: bool  # whether steps are known to be short

    def keep(self, systems: np.ndarray) -> Terms:
        """Take the terms of some of the systems."""

    def changes(self, params: np.ndarray) -> np.ndarray:
        """Compute how margins (K, T) change with parameters (K, C D)."""

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the parameters (K, C D) from a weighted one in the margins (K, T)."""

    def hessians(self, second: np.ndarray) -> np.ndarray:
        """Compute second derivatives (K, C D, C D) in the parameters from those in the margins (K, T)."""


class Batch:
    """Systems that are solved together, until each is near its optimum.

    Duals of both bounds, and what these are to be multiplied with, are `dual` and `slack` (2, K, T): a and 1 - a; and
    xi - m and xi. Terms of no weight stay where they are, so that a system steps as it would alone. Objectives below
    `least_value` are rounding. One system may do without the axis of systems: whatever is (K,) is a number then.
    """

    #: Products of slacks and duals to begin with, and how often larger ones are tried.
    centre: float = 0.5
    max_starts = 12
    terms: Any
    before: Any
    ended: Any

    def __init__(
        self,
        terms: Terms,
        weight: np.ndarray,
        rho: np.ndarray,
        goal: Any,
        least_value: Any = None,
    ):
        self.terms, self.weight, self.goal = terms, weight, goal
        systems = weight.shape[:-1]
        self.least_value = np.zeros(systems) if least_value is None else least_value
        self.rho = rho if terms.n_scores == 1 else np.tile(rho, terms.n_scores)
        self.trained = None if weight.all() else (weight > 0).astype(float)
        free = self.rho == 0
        self.free, self.linear = free if free.any() else None, free.all(-1) & (terms.give is None)
        self.any_linear = bool(self.linear.any())
        self.count = 2 * (weight * terms.share).sum(-1)  # of the products that are to be zero, beside a centre
        self.signs = _SIGNS if weight.ndim == 1 else _SIGNS[:, None]
        self.ended = np.zeros(systems, dtype=bool)
        self.most, self.patience = _SHORT_STEPS if terms.creeps else _STEPS
        self.begin(systems)

    def reduced(self, ufunc: np.ufunc, values: np.ndarray) -> Any:
        """Reduce values (2, K, T) to one for each system: first along the terms, which are next to each other."""
        return ufunc.reduce(ufunc.reduce(values, -1))

    def begin(self, systems: tuple[int, ...]) -> None:
        """Begin where all products are about `centre`, or where the gradient is too large, more."""
        terms, free = self.terms, self.free
        centre = np.full(systems, 2 * self.centre if terms.creeps else self.centre)[()]
        held = 0.5 / self.rho if free is None else np.where(free, 0, 0.5 / np.where(free, 1, self.rho))
        for _ in range(self.max_starts):
            # there, duals are about 1/2 + m / (8 centre): with these, parameters follow
            share = centre[..., None] * terms.share
            if terms.creeps:  # from far away, it would come back as slowly
                self.params = np.zeros((*systems, self.rho.shape[-1]))
            else:
                second = self.weight / (8 * share if terms.give is None else 8 * share + terms.give)
                right = terms.back(self.pull(0.5 * self.weight + second * terms.at_zero))
                self.params = -self.solved(self.factors(second), right)
            margin = terms.changes(self.params)
            margin += terms.at_zero
            half = margin / (2 * share) if terms.give is None else _given(margin, share, terms.give)
            root = np.sqrt(half * half + 1)
            self.dual = np.empty((2, *half.shape))
            root += 1
            np.subtract(root, half, out=self.dual[0])
            np.add(root, half, out=self.dual[1])
            np.divide(1, self.dual, out=self.dual)
            self.slack = share / self.dual
            gradient = terms.back(self.pull(self.dual[0] * self.weight))
            gradient += self.rho * self.params
            # what is left of a gap by the gradient: of parameters with a penalty, and without, which may be far to seek
            self.stationary, self.loose = np.vecdot(gradient * gradient, held), np.zeros(systems)[()]
            if free is None:
                break
            self.loose = np.vecdot(np.abs(gradient), free) * np.maximum(np.abs(self.params).max(-1), 1)
            much = self.loose > MUCH * centre * self.count
            if terms.creeps or not much.any():
                break
            centre = np.where(much, _MORE * centre, centre)[()]

    def run(self, max_iter: int) -> Found:
        """Step until all systems are done, or so many times."""
        K = len(self.goal)
        self.system = np.arange(K)
        self.before, self.slow = [np.inf] * K, [0] * K  # steps that were slow, one after the other
        self.least, self.since = [np.inf] * K, [0] * K  # steps since the gap was halved
        params, duals = self.params.copy(), self.dual[0].copy()
        curve: list[list[float]] = [[] for _ in range(K)]
        steps, max_iter = 0, min(max_iter, self.most)
        while True:
            margin = self.slack[1] - self.slack[0]
            pulled = self.rho * self.params
            primal = np.vecdot(np.maximum(margin, 0.0), self.weight)
            primal += 0.5 * np.vecdot(pulled, self.params)
            if self.terms.lean is not None:
                primal -= np.vecdot(margin, self.terms.lean)
            if self.terms.give is not None:
                primal += 0.5 * np.vecdot(self.weight * self.terms.give, np.square(self.dual[0] - 0.5))
            products = self.dual * self.slack
            products *= self.weight
            left = self.reduced(np.add, products)
            goal = self.goal * np.maximum(primal, self.least_value)
            done = self.judge((left + self.stationary + self.loose).tolist(), goal.tolist(), steps >= max_iter)
            if done:
                index = self.system[done]
                params[index], duals[index] = self.params[done], self.dual[0, done]
                if len(done) == len(self.system):
                    break
                self.keep(np.delete(np.arange(len(self.system)), done))
                continue
            for system, value in zip(self.system.tolist(), primal.tolist(), strict=True):
                curve[system].append(value)
            steps += 1
            self.step(margin, pulled, products, left)
        return Found(params, duals, curve)

    def judge(self, gap: list[float], goal: list[float], is_last: bool) -> list[int]:
        """Find the systems that are done."""
        done = []
        for k, (own, enough) in enumerate(zip(gap, goal, strict=True)):
            if own < 0.5 * self.least[k]:
                self.least[k], self.since[k] = own, 0
            else:
                self.since[k] += 1
            if is_last or self.ended[k] or self.since[k] >= self.patience or not own > enough:
                done.append(k)
        return done

    def keep(self, systems: np.ndarray) -> None:
        """Forget all systems but some."""
        for name in (
            *("weight", "rho", "goal", "system", "ended", "params"),
            *("stationary", "loose", "count", "linear", "least_value"),
        ):
            setattr(self, name, getattr(self, name)[systems])
        self.dual, self.slack = (part.take(systems, axis=1) for part in (self.dual, self.slack))
        for name in ("before", "slow", "least", "since"):
            setattr(self, name, [getattr(self, name)[k] for k in systems.tolist()])
        self.terms = self.terms.keep(systems)
        self.free = None if self.free is None else self.free[systems]
        self.trained = None if self.trained is None else self.trained[systems]

    def step(self, margin: np.ndarray, pulled: np.ndarray, products: np.ndarray, left: np.ndarray) -> None:
        """Take a step of Mehrotra's method, by the weighted products of duals and slacks, and what they add up to.

        What one bound's dual gains, the other's loses: by signed inverses, both changes come of one.
        """
        dual, slack = self.dual, self.slack
        inverse = self.signs / dual
        ratio = slack * inverse
        bend = ratio[0] - ratio[1]
        if self.terms.give is not None:
            bend += self.terms.give
        np.divide(1.0, bend, out=bend)
        weighted, held = bend * self.weight, self.pull(dual[0] * self.weight)
        system = self.factors(weighted), weighted, held, pulled, bend
        # a trial, to no complementarity at all: duals change by up, relatively, and slacks by -1 - up
        _, change = self.direction(*system, margin)
        up = change * inverse
        if self.is_clear(up, left):
            return
        of_primal, of_dual = self.lengths(self.reduced(np.maximum, up) + 1, -self.reduced(np.minimum, up), 1.0)
        neglected = up + 1
        neglected *= up
        both = of_primal * of_dual
        after = (1 - of_primal) * left - both * np.add.reduce(np.vecdot(products, neglected))
        if self.any_linear:
            after -= (of_dual - of_primal) * np.vecdot(margin * change, self.weight)
        centre = self.centres(left, after)
        # a trial that led not far says little of what it has neglected; but by less of it, hinges take more steps
        if self.any_linear and max(self.slow) > 1:
            neglected *= np.where(self.linear & (np.array(self.slow) > 1), both, 1)[:, None]
        # the step: to products of `centre`, with what the trial has neglected
        neglected -= 1
        neglected *= slack
        aim = centre * self.signs * inverse
        if self.terms.share.size > 1:
            aim *= self.terms.share
        neglected += aim
        move, change = self.direction(*system, neglected[0] - neglected[1])
        ratio *= change
        of_slack = np.subtract(neglected, ratio, out=neglected)
        if self.trained is not None:
            of_slack *= self.trained
        np.divide(of_slack, slack, out=ratio)
        inverse *= change
        of_primal, of_dual = self.lengths(-self.reduced(np.minimum, ratio), -self.reduced(np.minimum, inverse), _NEARLY)
        of_primal, of_dual = self.halted(of_primal, of_dual, (move, change, of_slack))
        remains = 1 - of_dual
        self.stationary *= remains * remains
        self.loose *= remains
        of_primal, of_dual = of_primal[..., None], of_dual[..., None]
        move *= of_primal
        change *= of_dual
        of_slack *= of_primal
        self.params -= move
        dual[0] += change
        dual[1] -= change
        slack += of_slack

    def is_clear(self, up: np.ndarray, left: Any) -> bool:
        """Tell whether a trial's relative changes of duals say where the end is."""
        return False

    def centres(self, left: Any, after: Any) -> Any:
        """Choose which products to aim at, by how much is left of them now, and after a trial."""
        found = []
        for k, each in enumerate(zip(left.tolist(), after.tolist(), self.count.tolist(), strict=True)):
            self.slow[k] = self.slow[k] + 1 if each[0] > SLOW * self.before[k] else 0
            self.before[k] = each[0]
            found.append([centre(*each, self.slow[k] > 0)])
        return np.array(found)

    def lengths(self, of_primal: Any, of_dual: Any, share: float) -> tuple[Any, Any]:
        """Compute how long steps are, at most 1, that go a share of the way to the nearest bounds.

        These are ``1 / of_primal`` and ``1 / of_dual`` away. Only linear objectives let both go their own ways.
        """
        both = np.maximum(of_primal, of_dual)
        if not self.any_linear:
            both = share / np.maximum(both, share)
            return both, both
        ways = (np.where(self.linear, own, both) for own in (of_primal, of_dual))
        of_primal, of_dual = (share / np.maximum(way, share) for way in ways)
        return of_primal, of_dual

    def halted(self, of_primal: Any, of_dual: Any, parts: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
        """End systems whose step has no length, and where these are."""
        go = (of_primal > 0) & (of_dual > 0)
        if not go.all():
            self.ended |= ~go
            of_primal, of_dual = (np.where(go, way, 0) for way in (of_primal, of_dual))
            for part in parts:
                part[..., ~go, :] = 0
        return of_primal, of_dual

    def pull(self, slope: np.ndarray) -> np.ndarray:
        """Add the slopes of what falls with the margins to the hinges' (K, T)."""
        return slope if self.terms.lean is None else slope - self.terms.lean

    def factors(self, second: np.ndarray) -> Any:
        """Factorise the second derivatives in the parameters; None where rounding leaves no such factors."""
        hessians = self.terms.hessians(second)
        K, size, _ = hessians.shape
        diagonal = hessians.reshape(K, -1)[:, :: size + 1]
        largest = np.maximum.reduce(diagonal, 1)
        diagonal += self.rho
        found: list[np.ndarray | None] = []
        for system, (hessian, most) in enumerate(zip(hessians, np.maximum.reduce(diagonal, 1).tolist(), strict=True)):
            factor, info = dpotrf(hessian.T, lower=1)
            pivots = factor.diagonal()
            clear = not info and min(pivots.tolist()) ** 2 >= _SINGULAR * most  # which is soon said
            if self.free is not None and not clear and (info or (pivots**2 < _SINGULAR * diagonal[system]).any()):
                diagonal[system] += self.free[system] * (_HOLD * largest[system] + _LEAST)
                factor, info = dpotrf(hessian.T, lower=1)
            found.append(None if info else factor)
            if info:
                self.ended[system] = True
        return found

    def solved(self, factors: Any, right: np.ndarray) -> np.ndarray:
        """Solve systems, each by its factors; zero where there are none."""
        each = zip(factors, right, strict=True)
        return np.array(
            [np.zeros_like(own) if factor is None else dpotrs(factor, own, lower=1)[0] for factor, own in each]
        )

    def direction(
        self,
        factors: Any,
        weighted: np.ndarray,
        held: np.ndarray,
        pulled: np.ndarray,
        bend: np.ndarray,
        toward: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the step of the parameters, negative, and of the duals of the first bound."""
        slope = weighted * toward
        slope += held
        right = self.terms.back(slope)
        right += pulled
        move = self.solved(factors, right)
        change = self.terms.changes(move)
        np.subtract(toward, change, out=change)
        change *= bend
        if self.trained is not None:
            change *= self.trained
        return move, change


def centre(left: float, after: float, count: float, is_slow: bool) -> float:
    """Choose which products to aim at, by what is left of `count` of them now, and after a trial."""
    share = min(max(after / max(left, _TINY), 0.0), _MOST) ** _POWER
    return max(share, _FIRM if is_slow else 0.0) * left / count


def _given(margin: np.ndarray, each: np.ndarray, give: np.ndarray) -> np.ndarray:
    """Find how many times two products, `each`, margins are that have given way: by Newton's method, from below."""
    half, far, way = np.zeros_like(margin), np.abs(margin) / (2 * each), give / (4 * each)
    for _ in range(_MAX_GIVEN):
        root = np.sqrt(half * half + 1)
        # the dual is one half and half of this
        beyond = half / (1 + root)
        step = (far - half - way * beyond) / (1 + way / (root * (1 + root)))
        half += step
        if not (step > 1e-14 * far).any():
            break
    return np.copysign(half, margin)
