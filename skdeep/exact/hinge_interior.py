r"""Interior point of small hinge problems: where `skdeep.exact.hinge` begins when few unknowns make each step cheap.

With slacks :math:`\xi \ge \max(m, 0)` above the margins m of a row's terms, and duals a in between 0 and 1, the optimum
has :math:`a (\xi - m) = (1 - a) \xi = 0`. Mehrotra's method replaces these zeros by one :math:`\mu`, which falls from
step to step, as far as a trial step says it can. It takes about a dozen steps whatever the problem, which suits stacks:
models that differ in weights and penalties are done at about the same time.

References
----------
S. Mehrotra, *On the implementation of a primal-dual interior point method*, SIAM Journal on Optimization 2, 1992.
Nocedal & Wright, *Numerical Optimization*, 2nd edition, section 16.6.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.descent import summed
from skdeep.exact.hinge_starts import least_squares
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.rows import Rows, SparseRows, of_all, of_both, pairs

#: Unknowns of a system, and rows, up to which it is cheaper than the method of multipliers.
_MAX_SYSTEM, _MAX_ROWS = 256, 8192
#: Products of slacks and duals to begin with.
_CENTRE = 0.5
#: Share of complementarity that a step has left where the next one goes for no less than another share.
_SLOW, _FIRM = 0.5, 0.1
#: Share of the way to the nearest bound that a step goes.
_NEARLY = 0.995
#: Most steps, and terms of a batch of models.
_MAX_STEPS, _BATCH = 50, 2**17
#: Steps that may not halve the gap, one after the other: else they go round in a circle, or rounding is in the way.
_PATIENCE = 6
#: What holds parameters that no penalty holds, as a share of the largest curvature, and at least.
_HOLD, _LEAST = 1e-12, 1e-12


class Found(NamedTuple):
    """Near an optimum: parameters (K, C, D), duals (K, J, n) as in `skdeep.exact.hinge`, and objectives by step."""

    params: np.ndarray
    duals: np.ndarray
    curve: list[list[float]]


class _Terms(Protocol):
    """The terms of all rows, T of each system, in one line.

    Attributes
    ----------
    n_scores : int
        Of a system.
    n_terms : int
        T.
    rows : Rows
        In the order of the terms.
    """

    n_scores: int
    n_terms: int
    rows: Rows

    def keep(self, systems: np.ndarray) -> _Terms:
        """Take the terms of some of the systems."""

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        """Repeat values of rows (K, n) for each term, (K, T)."""

    def changes(self, scores: np.ndarray) -> np.ndarray:
        """Compute how margins (K, T) change with scores (K, C, n)."""

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the scores (K, C, n) from one in the margins (K, T)."""

    def hessians(self, second: np.ndarray) -> np.ndarray:
        """Compute second derivatives (K, C D, C D) in the parameters from those in the margins (K, T)."""

    def duals(self, values: np.ndarray) -> np.ndarray:
        """Put duals (K, T) in the shape, and rows in the order, that they are known by elsewhere."""


class _Columns:
    """Terms of columns of scores, which are systems of their own: one for each row."""

    n_scores = 1

    def __init__(self, rows: Rows, against: np.ndarray):
        self.rows, self.n_terms, self._against = rows, rows.shape[0], against

    def keep(self, systems: np.ndarray) -> _Columns:
        return _Columns(self.rows, self._against[systems])

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        return values

    def changes(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, 0] * self._against

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        return (slope * self._against)[:, None]

    def hessians(self, second: np.ndarray) -> np.ndarray:
        return self.rows.gram(second)

    def duals(self, values: np.ndarray) -> np.ndarray:
        return values[:, None]


class _Rivals:
    """Terms of Weston and Watkins' loss: of each row, one for each class that is not its own.

    Rows are sorted by class. With D the products of rows of one class, weighted by one rival's second derivatives, the
    Hessian has D + D' of both in the two diagonal blocks, and what is off it is the same with the sign changed.
    """

    def __init__(self, rows: Rows, loss: WestonWatkins):
        C, n = loss.n_scores, rows.shape[0]
        self.n_scores, self.n_terms, self._order = C, (C - 1) * n, loss.codes.argsort(kind="stable")
        self.rows, codes, each = rows.select(self._order), loss.codes[self._order], np.arange(n)
        slots = np.arange(C - 1)[:, None]
        self._rival, self._own = ((slots + (slots >= codes)) * n + each).ravel(), codes * n + each
        self._place = np.empty(C * n, dtype=np.intp)
        self._place[self._rival], self._place[self._own] = np.arange(self.n_terms), self.n_terms + each
        ends = codes.searchsorted(np.arange(C + 1))
        self._classes = [slice(*pair) for pair in pairwise(ends)]
        self._parts = [self.rows.select(part) for part in self._classes]
        of_pair = of_both(C).reshape(C, C)
        own, rival = (part.ravel() for part in np.broadcast_arrays(np.arange(C)[:, None], slots.T))
        rival = rival + (rival >= own)
        self._to_pairs, there = np.zeros((len(pairs(C)[0]), len(own))), np.arange(len(own))
        for a, b, sign in ((own, own, 1), (rival, rival, 1), (own, rival, -1)):
            self._to_pairs[of_pair[a, b], there] = sign

    def keep(self, systems: np.ndarray) -> _Rivals:
        return self

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        return np.tile(values[:, self._order], self.n_scores - 1)

    def changes(self, scores: np.ndarray) -> np.ndarray:
        flat = scores.reshape(len(scores), -1)
        found = flat.take(self._rival, axis=1)
        by_slot = found.reshape(len(scores), -1, len(self._own))
        by_slot -= flat.take(self._own, axis=1)[:, None]
        return found

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        both = np.empty((len(slope), self.n_scores, len(self._own)))
        both[:, :-1] = slope.reshape(len(slope), -1, len(self._own))
        np.negative(both[:, :-1].sum(1), out=both[:, -1])
        return both.reshape(len(slope), -1).take(self._place, axis=1).reshape(both.shape)

    def hessians(self, second: np.ndarray) -> np.ndarray:
        K, C, D = len(second), self.n_scores, self.rows.shape[1]
        by_slot = second.reshape(K, C - 1, -1)
        found = np.empty((K, C, C - 1, len(pairs(D)[0])))
        for c, (part, rows) in enumerate(zip(self._classes, self._parts, strict=True)):
            found[:, c] = rows.half_gram(by_slot[:, :, part].reshape(K * (C - 1), -1)).reshape(K, C - 1, -1)
        of_pairs = self._to_pairs @ found.reshape(K, C * (C - 1), -1)
        return of_pairs.reshape(K, -1).take(of_all(C, D), axis=1).reshape(K, C * D, C * D)

    def duals(self, values: np.ndarray) -> np.ndarray:
        found = np.zeros((len(values), self.n_scores * len(self._own)))
        found[:, self._rival] = values
        sorted_ = found.reshape(len(values), self.n_scores, -1)
        found = np.empty_like(sorted_)
        found[:, :, self._order] = sorted_
        return found


def suits(rows: Rows, loss: Hinges | WestonWatkins) -> bool:
    """Tell whether steps are cheap for a problem."""
    if isinstance(rows, SparseRows) or isinstance(loss, CrammerSinger):
        return False
    n, D = rows.shape
    if isinstance(loss, Hinges):
        return n <= _MAX_ROWS and D <= _MAX_SYSTEM
    return n <= _MAX_ROWS and D * loss.n_scores <= _MAX_SYSTEM


def approach(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
    intercept: bool,
    goal: np.ndarray,
    max_iter: int,
) -> Found:
    """Bring K models near their optima, so that gaps are about `goal` (K,) or what rounding leaves of them.

    See `skdeep.exact.hinge.solve`.
    """
    K, n = weight.shape
    size = max(1, _BATCH // (loss.n_scores * n))
    terms: _Terms
    if isinstance(loss, WestonWatkins):
        columns, terms = 1, _Rivals(rows, loss)
    else:  # as many systems as columns
        columns, terms = loss.n_scores, _Columns(rows, np.tile(-loss.sign, (K, 1)))
    start = least_squares(rows, loss, weight, rho).reshape(K * columns, -1, rows.shape[1])
    found = []
    for models in np.split(np.arange(K), range(size, K, size)):
        own = (models[:, None] * columns + np.arange(columns)).ravel()
        model = own // columns
        part = terms.keep(own)
        batch = _Batch(part, part.of_rows(weight[model]), rho[model], intercept, goal[model], start[own])
        end = batch.run(max_iter)
        found.append(end._replace(duals=part.duals(end.duals)))
    params, duals = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:2])
    curve = [one for part in found for one in part.curve]
    curve = [summed(curve[k : k + columns]) for k in range(0, len(curve), columns)]
    return Found(params.reshape(K, -1, rows.shape[1]), duals.reshape(K, -1, n), curve)


class _Batch:
    """Systems that are solved together, until each is near its optimum.

    Parameters
    ----------
    terms : _Terms
    weight : ndarray of shape (K, T)
        Of each term.
    rho : ndarray of shape (K, D)
    intercept : bool
    goal : ndarray of shape (K,)
    params : ndarray of shape (K, C, D)
        To begin with.
    """

    def __init__(
        self,
        terms: _Terms,
        weight: np.ndarray,
        rho: np.ndarray,
        intercept: bool,
        goal: np.ndarray,
        params: np.ndarray,
    ):
        self.terms, self.weight, self.intercept, self.goal = terms, weight, intercept, goal
        self.rho = np.repeat(rho[:, None], terms.n_scores, 1)
        K, T = weight.shape
        self.trained = None if weight.all() else (weight > 0).astype(float)
        free = self.rho == 0
        self.free = free.reshape(K, -1) if free.any() else None
        self.half_inverse = np.where(free, 0, 0.5 / np.where(free, 1, self.rho)).reshape(K, -1)
        margin = terms.changes(terms.rows.scores(params))
        if self.trained is not None:
            margin *= self.trained
        margin += 1
        margin /= _CENTRE
        # where all products are _CENTRE
        root = np.sqrt(margin * margin + 4)
        self.dual, self.other = 2 / (2 - margin + root), 2 / (2 + margin + root)
        self.slack, self.above = _CENTRE / self.other, _CENTRE / self.dual
        self.params, self.system = params, np.arange(K)
        self.ended, self.before = np.zeros(K, dtype=bool), np.full(K, np.inf)
        self.least, self.since = np.full(K, np.inf), np.zeros(K, dtype=int)  # steps since the gap was halved
        self.count = 2.0 * T / terms.rows.shape[0]  # the weights of all products that are to be zero

    def run(self, max_iter: int) -> Found:
        """Step until all systems are done, or so many times."""
        K = len(self.goal)
        params, duals = self.params.copy(), self.dual.copy()
        curve: list[list[float]] = [[] for _ in range(K)]
        steps, max_iter = 0, min(max_iter, _MAX_STEPS)
        while len(self.system):
            margin = self.slack - self.above
            pulled = self.rho * self.params
            gradient = self.back(self.dual * self.weight)
            gradient += pulled.reshape(gradient.shape)
            primal = np.vecdot(np.maximum(margin, 0), self.weight)
            primal += 0.5 * np.vecdot(pulled, self.params).sum(1)
            left = np.vecdot(self.dual * self.above + self.other * self.slack, self.weight)
            gap = left + self.stationary(gradient)
            halved = gap < 0.5 * self.least
            self.least = np.where(halved, gap, self.least)
            self.since = np.where(halved, 0, self.since + 1)
            done = self.ended | (steps >= max_iter) | (self.since >= _PATIENCE) | ~(gap > self.goal * primal)
            if done.any():
                params[self.system[done]], duals[self.system[done]] = self.params[done], self.dual[done]
                self.keep(np.flatnonzero(~done))
                continue
            for system, value in zip(self.system.tolist(), primal.tolist(), strict=True):
                curve[system].append(value)
            steps += 1
            self.step(margin, gradient, left)
        return Found(params, duals, curve)

    def keep(self, systems: np.ndarray) -> None:
        """Forget all systems but some."""
        for name in ("weight", "rho", "half_inverse", "goal", "system", "ended", "before", "least", "since", "params"):
            setattr(self, name, getattr(self, name)[systems])
        for name in ("dual", "other", "slack", "above"):
            setattr(self, name, getattr(self, name)[systems])
        self.terms = self.terms.keep(systems)
        self.free = None if self.free is None else self.free[systems]
        self.trained = None if self.trained is None else self.trained[systems]

    def stationary(self, gradient: np.ndarray) -> np.ndarray:
        """Compute how much of a gap a gradient leaves."""
        found = np.vecdot(gradient * gradient, self.half_inverse)
        if self.free is not None:
            reach = np.maximum(np.abs(self.params).max((1, 2)), 1.0)
            found += reach * np.vecdot(np.abs(gradient), self.free)
        return found

    def step(self, margin: np.ndarray, gradient: np.ndarray, left: np.ndarray) -> None:
        """Take a step of Mehrotra's method."""
        dual, other, above, slack = self.dual, self.other, self.above, self.slack
        inverse, inverse_other = 1 / dual, 1 / other
        bend = 1 / (above * inverse + slack * inverse_other)
        factors = self.factors(bend * self.weight)
        # a trial, to no complementarity at all: relative changes of duals are up, of others -down, of above -1 - up
        _, change = self.direction(factors, gradient, bend, margin)
        up, down = change * inverse, change * inverse_other
        fastest = np.maximum(np.maximum(1 + up.max(1), -up.min(1)), np.maximum(down.max(1), 1 - down.min(1)))
        length = 1 / np.maximum(fastest, 1)
        up *= (up + 1) * above
        down *= (down - 1) * slack
        after = (1 - length) * left - length**2 * np.vecdot(dual * up + other * down, self.weight)
        share = np.maximum(np.maximum(after / left, 0) ** 3, np.where(left > _SLOW * self.before, _FIRM, 0))
        self.before, centre = left, (share * left / self.count)[:, None]
        # the step: to products of `centre`, with what the trial has neglected
        toward = margin + up
        toward -= down
        toward += centre * (inverse - inverse_other)
        move, change = self.direction(factors, gradient, bend, toward)
        of_margin = change / bend - toward
        relative = change * inverse_other
        of_slack = (relative - 1) * slack
        of_slack += down
        of_slack += centre * inverse_other
        of_above = of_slack - of_margin
        fastest = np.maximum(
            np.maximum(-(change * inverse).min(1), relative.max(1)),
            np.maximum(-(of_above / above).min(1), -(of_slack / slack).min(1)),
        )
        length = _NEARLY / np.maximum(fastest, _NEARLY)
        if not (sound := length > 0).all():
            self.ended |= ~sound
            for part in (move, change, of_slack, of_above):
                part[~sound] = 0
            length[~sound] = 0
        self.params += length[:, None, None] * move
        length = length[:, None]
        change *= length
        dual += change
        other -= change
        slack += length * of_slack
        above += length * of_above

    def factors(self, second: np.ndarray) -> list[np.ndarray | None]:
        """Factorise the second derivatives in the parameters; None where rounding leaves no such factors."""
        hessians = self.terms.hessians(second)
        K, size, _ = hessians.shape
        (_, C, D), diagonal = self.rho.shape, hessians.reshape(K, -1)[:, :: size + 1]
        largest = diagonal.max(1)
        if self.intercept and C > 1:  # a common shift of the intercepts changes nothing
            hessians.reshape(K, C, D, C, D)[:, :, -1, :, -1] += (largest / C)[:, None, None]
        diagonal += self.rho.reshape(K, -1)
        if self.free is not None:
            diagonal += self.free * (_HOLD * largest + _LEAST)[:, None]
        found = []
        for system, hessian in enumerate(hessians):
            factor, info = dpotrf(hessian.T, lower=1, overwrite_a=1)
            found.append(None if info else factor)
            self.ended[system] |= info != 0
        return found

    def direction(
        self, factors: list[np.ndarray | None], gradient: np.ndarray, bend: np.ndarray, toward: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the step of the parameters, and of the duals."""
        right = self.back(bend * toward * self.weight)
        right += gradient
        move = np.zeros_like(right)
        for own, factor, of_system in zip(move, factors, right, strict=True):
            if factor is not None:
                own[:] = dpotrs(factor, of_system, lower=1)[0]
        np.negative(move, out=move)
        move = move.reshape(self.params.shape)
        change = self.terms.changes(self.terms.rows.scores(move))
        if self.trained is not None:
            change *= self.trained
        change += toward
        change *= bend
        return move, change

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute gradients (K, C D) in the parameters from weighted ones in the margins."""
        return self.terms.rows.back(self.terms.to_scores(slope)).reshape(len(slope), -1)
