r"""Exact solver of the hinges: an augmented Lagrangian, whose problems Newton's method solves.

The method of multipliers (proximal point method on the dual) replaces a loss :math:`\max_a \langle a, m\rangle - c(a)`
by a smooth one, :math:`\max_n \langle n, m\rangle - c(n) - \tfrac\delta2\|n - a\|^2`, around duals a that it replaces by
the n of the optimum. Its second derivative is that of the few free terms, whose n is at no bound. Each iterate has a
duality gap: with slopes u, the gradient G of :math:`\langle u, m\rangle`, and the penalty's factors :math:`\rho`,

.. math:: \text{primal} - \text{dual} = \sum_i w_i (\ell_i + c(u_i) - \langle u_i, m_i\rangle)
          + \tfrac12 \sum (G + \rho V)^2 / \rho,

where both sums are at least zero, if G is zero in the intercepts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.hinge_terms import CrammerSinger, Hinges, OneScore, Smoothed, WestonWatkins
from skdeep.exact.rows import Rows

Terms = OneScore | WestonWatkins | CrammerSinger

#: Newton's steps go on until what is left of the gradient counts so much of what is left of complementarity.
_SHARE = 0.3
#: The width of smoothing is divided by 5 whenever complementarity has not fallen to so much of what it was.
_SLOW, _SHRINK, _NARROWEST = 0.3, 0.2, 1e-4
#: Most terms of a batch of models: as many as stay in the cache.
_BATCH = 2**16


@dataclass
class Solution:
    """What is known of a stack's optimum.

    Attributes
    ----------
    params : ndarray of shape (K, C, D)
    duals : ndarray of shape (K, C, n)
    value, gap : ndarray of shape (K,)
        The objective, and how far it is above a lower bound of all, as a share of itself.
    converged : ndarray of shape (K,) of bool
    curve : list of ndarray
        Objectives by iteration.
    """

    params: np.ndarray
    duals: np.ndarray
    value: np.ndarray
    gap: np.ndarray
    converged: np.ndarray
    curve: list[list[float]]


@dataclass
class _State:
    """Hold what differs between models that are not done yet."""

    model: np.ndarray
    params: np.ndarray
    margin: np.ndarray
    dual: np.ndarray
    weight: np.ndarray
    rho: np.ndarray
    delta: np.ndarray
    last: np.ndarray
    goal: np.ndarray
    target: np.ndarray

    def select(self, models: np.ndarray) -> _State:
        return replace(self, **{field.name: getattr(self, field.name)[models] for field in fields(self)})


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute a product for each model."""
    return np.vecdot(a.reshape(len(a), -1), b.reshape(len(b), -1))


class _Stack:
    """Solve a stack of problems."""

    def __init__(self, rows: Rows, terms: Terms, intercept: bool):
        self.rows, self.terms, self.intercept = rows, terms, intercept

    def run(self, weight, rho, params, duals, delta, gap, max_iter, found, models):
        terms = self.terms
        K = len(weight)
        state = _State(
            models, params, terms.margins(self.rows.scores(params)), duals, weight, rho,
            delta, np.full(K, np.inf), gap, gap.copy()
        )
        for iteration in range(max_iter + 1):
            d = state.delta[:, None, None]
            at = self.terms.smoothed(state.dual + state.margin / d, state.delta)
            slope = at.slope
            pull = slope * state.weight[:, None]
            gradient = self.rows.back(self.terms.to_scores(pull))
            penalty = state.rho[:, None] * state.params
            gradient += penalty
            loss = self.terms.loss(state.margin)
            if (conjugate := self.terms.conjugate(slope)) is not None:
                data, against = np.vecdot(loss, state.weight), np.vecdot(loss + conjugate, state.weight)
            else:
                data = against = np.vecdot(loss, state.weight)
            primal = data + _dot(penalty, state.params) / 2
            complementary = against - _dot(pull, state.margin)
            stationary = _squares(gradient, state)
            for model, value in zip(state.model.tolist(), primal.tolist(), strict=True):
                found.curve[model].append(value)
            done = stationary + complementary <= state.target * primal
            if iteration == max_iter:
                done[:] = True
            if done.any():
                finished = np.flatnonzero(done)
                certified = self.certify(state, slope, finished, found)
                done[finished] = certified | (iteration == max_iter)
                state.target[finished] *= 0.3
                if done.any():
                    if done.all():
                        return
                    kept = np.flatnonzero(~done)
                    state, self.terms = state.select(kept), self.terms.select(kept)
                    at = Smoothed(at.slope[kept], at.free[kept], None if at.coupling is None else at.coupling[kept])
                    slope, gradient, penalty = at.slope, gradient[kept], penalty[kept]
                    stationary, complementary, primal = stationary[kept], complementary[kept], primal[kept]
            update = stationary <= _SHARE * complementary
            if update.any():
                state.dual = np.where(update[:, None, None], slope, state.dual)
                slow = update & ~(complementary <= _SLOW * state.last)
                slow |= update & np.isinf(state.last)
                state.last = np.where(update, complementary, state.last)
                state.delta = np.where(slow, np.maximum(state.delta * _SHRINK, _NARROWEST), state.delta)
                state.margin = self.terms.margins(self.rows.scores(state.params))  # without the rounding of all steps
                if update.all():
                    continue
            step = self.directions(state, at, gradient)
            step[update] = 0
            change = self.terms.changes(self.rows.scores(step))
            length = self.search(state, step, change, penalty, _dot(step, gradient), 1e-16 * primal)[:, None, None]
            state.params = state.params + length * step
            state.margin += length * change

    def certify(self, state, slope, models, found):
        s, terms = state.select(models), self.terms.select(models)
        margin = terms.margins(self.rows.scores(s.params))
        dual = terms.balanced(slope[models], s.weight) if self.intercept else slope[models]
        pull = dual * s.weight[:, None]
        penalty = s.rho[:, None] * s.params
        gradient = self.rows.back(terms.to_scores(pull)) + penalty
        loss = terms.loss(margin)
        primal = np.vecdot(loss, s.weight) + _dot(penalty, s.params) / 2
        if (conjugate := terms.conjugate(dual)) is not None:
            loss = loss + conjugate
        above = np.vecdot(loss, s.weight) - _dot(pull, margin) + _squares(gradient, s)
        relative = np.divide(above, primal, out=np.zeros_like(above), where=primal > 0)
        found.params[s.model], found.duals[s.model] = s.params, dual
        found.value[s.model], found.gap[s.model] = primal, relative
        found.converged[s.model] = relative <= s.goal
        return found.converged[s.model]

    def directions(self, s, at, gradient):
        """Newton's directions."""
        (K, C, D) = gradient.shape
        free = at.free & (s.weight > 0)[:, None]
        index = np.nonzero(free)
        E = self.terms.directions(free, index, at.coupling)
        E *= np.sqrt(s.weight[index[0], index[2]] / s.delta[index[0]])[:, None]
        Z = self.rows.take(index[2])
        ends = np.searchsorted(index[0], np.arange(K + 1))
        steepest = np.abs(gradient).max((1, 2), keepdims=True)
        factor = np.where(s.rho[:, None] > 0, s.rho[:, None], (steepest + 1e-10) / s.delta[:, None, None])
        factor = np.repeat(factor, C, 1)
        if self.intercept:
            factor[:, :, -1] = (np.abs(gradient[:, :, -1]) + 1e-12) / s.delta[:, None]
        step = np.empty_like(gradient)
        for k in range(K):
            part = slice(ends[k], ends[k + 1])
            one = self.primal if ends[k + 1] - ends[k] > C * D or C * D <= 64 else self.dual
            step[k] = one(E[part], Z[part], factor[k], gradient[k])
        return step

    def primal(self, E, Z, factor, gradient):
        C, D = gradient.shape
        F = (E[:, :, None] * Z[:, None, :]).reshape(len(E), C * D)
        H = F.T @ F
        i = np.arange(C * D)
        if self.intercept and C > 1:
            last = i[D - 1 :: D]
            H[last[:, None], last] += (H[last, last].max() + 1e-12) / C
        H[i, i] += factor.ravel()
        L, info = dpotrf(H, lower=1, overwrite_a=1)
        if info:
            return -gradient / (factor + 1)
        return -dpotrs(L, gradient.ravel(), lower=1)[0].reshape(C, D)

    def dual(self, E, Z, factor, gradient):
        C, D = gradient.shape
        columns = slice(0, D - 1) if self.intercept else slice(0, D)
        rho, g, Z = factor[0, columns], gradient[:, columns], Z[:, columns]
        scaled = Z / rho
        T = scaled @ Z.T
        T *= E @ E.T
        i = np.arange(len(T))
        T[i, i] += 1
        right = ((scaled @ g.T) * E).sum(1)
        if len(T):
            L, info = dpotrf(T, lower=1, overwrite_a=1)
        step = np.empty_like(gradient)
        if self.intercept:
            sol = dpotrs(L, np.column_stack([E, right]), lower=1)[0] if len(T) else np.zeros((0, C + 1))
            S = E.T @ sol[:, :C]
            c = np.arange(C)
            S += (S[c, c].max() + 1e-12) / C
            S[c, c] += factor[:, -1]
            step[:, -1] = np.linalg.solve(S, E.T @ sol[:, C] - gradient[:, -1])
            y = sol[:, :C] @ step[:, -1] - sol[:, C]
        else:
            y = -dpotrs(L, right, lower=1)[0] if len(T) else right
        step[:, columns] = -(g + (E * y[:, None]).T @ Z) / rho
        return step

    def search(self, s, step, change, penalty, first, noise):
        linear, square = _dot(step, penalty), _dot(step, s.rho[:, None] * step)
        d = s.delta[:, None, None]
        base, change_ = s.dual + s.margin / d, change / d
        K = len(first)
        t, low, high = np.ones(K), np.zeros(K), np.full(K, np.inf)
        of_low, of_high, side = first.copy(), np.full(K, np.nan), np.zeros(K)
        weighted = change * s.weight[:, None]
        for _ in range(40):
            slope = self.terms.project(base + t[:, None, None] * change_, s.delta)
            derivative = linear + t * square + _dot(slope, weighted)
            close = np.abs(derivative) <= 0.1 * np.abs(first) + noise
            if close.all():
                return t
            short, far = (derivative < 0) & ~close, (derivative > 0) & ~close
            of_high[short & (side > 0)] /= 2
            of_low[far & (side < 0)] /= 2
            low, of_low = np.where(short, t, low), np.where(short, derivative, of_low)
            high, of_high = np.where(far, t, high), np.where(far, derivative, of_high)
            side = np.where(short, 1, np.where(far, -1, side))
            with np.errstate(all="ignore"):
                next_ = np.where(np.isfinite(high), low - of_low * (high - low) / (of_high - of_low), 3 * t)
            t = np.where(close, t, next_)
        return np.where(close, t, low)


def _squares(gradient, s):
    """Compute how far from stationary."""
    penalised = s.rho > 0
    inverse = np.divide(0.5, s.rho, out=np.zeros_like(s.rho), where=penalised)
    found = np.vecdot((gradient * gradient).sum(1), inverse)
    if not penalised.all():
        rest = np.abs(gradient) * np.maximum(np.abs(s.params).max((1, 2), keepdims=True), 1)
        found += np.vecdot(rest.sum(1), ~penalised)
    return found


class _Plan:
    """Decide which models are solved together, and after which others.

    Models of the same rows and weights, which differ in their penalties, follow each other from the strongest to the
    weakest, so that each begins where the one before it ended.
    """

    def __init__(self, keys: list[object], strength: np.ndarray):
        chains: dict[object, list[int]] = {}
        for model in np.argsort(-strength, kind="stable").tolist():
            chains.setdefault(keys[model], []).append(model)
        self.levels = [
            np.array([chain[level] for chain in chains.values() if len(chain) > level])
            for level in range(max(map(len, chains.values())))
        ]
        self.before = np.full(len(keys), -1)
        for chain in chains.values():
            self.before[chain[1:]] = chain[:-1]


def solve(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
    gap: float | np.ndarray = 1e-6,
    max_iter: int = 1000,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Solution:
    """Minimise hinges with a ridge penalty, for K models.

    Parameters
    ----------
    rows : Rows
    loss : Hinges, WestonWatkins or CrammerSinger
    weight : ndarray of shape (K, n)
        The sum of each model's is one; zero where it is not trained on a row.
    rho : ndarray of shape (K, D)
        Factors of the penalty, ``rho * params ** 2 / 2``; zero for an intercept, which is the last column.
    gap : float or ndarray of shape (K,)
        Relative duality gap to reach.
    max_iter : int
        Most steps of a model.
    start : tuple of ndarray of shape (K, C, D) and (K, C, n), optional
        Parameters and duals to begin with: of a similar problem's solution.

    Returns
    -------
    Solution
    """
    (K, n), C, D = weight.shape, loss.n_scores, rows.shape[1]
    used = np.flatnonzero(weight.any(0))
    if len(used) < n:
        few = solve(
            rows.select(used), loss.select_rows(used), weight[:, used], rho, gap, max_iter,
            None if start is None else (start[0], start[1][:, :, used]),
        )  # fmt: skip
        duals = np.zeros((K, C, n))
        duals[:, :, used] = few.duals
        return replace(few, duals=duals)
    goal = np.broadcast_to(np.asarray(gap, dtype=float), K)
    if isinstance(loss, Hinges):  # columns are models of their own
        terms = loss.columns(K)
        own, column = np.repeat(np.arange(K), C), np.tile(np.arange(C), K)
        start = None if start is None else (start[0].reshape(K * C, 1, D), start[1].reshape(K * C, 1, n))
        solved = _solve(rows, terms, weight[own], rho[own], goal[own], max_iter, start, column)
        return _joined(solved, K, C, goal)
    return _solve(rows, loss, weight, rho, goal, max_iter, start, np.zeros(K, int))


def _solve(rows, terms, weight, rho, gap, max_iter, start, column):
    (K, n), C, D = weight.shape, terms.n_scores, rows.shape[1]
    intercept = bool((rho[:, -1] == 0).all())
    found = Solution(
        np.zeros((K, C, D)), np.zeros((K, C, n)), np.zeros(K), np.full(K, np.inf), np.zeros(K, bool), [[] for _ in gap]
    )
    keys = [(one.tobytes(), c) for one, c in zip(weight, column.tolist(), strict=True)]
    plan = _Plan(keys if start is None else list(range(K)), rho.max(1))
    size = max(1, _BATCH // (C * n))
    for level in plan.levels:
        for first in range(0, len(level), size):
            models = level[first : first + size]
            stack = _Stack(rows, terms.select(models), intercept)
            if start is not None:
                params, duals, width = start[0][models], start[1][models], 0.1
            elif plan.before[models[0]] >= 0:
                before = plan.before[models]
                params, duals = found.params[before], found.duals[before]
                width = 0.1
            else:
                params, duals, width = np.zeros((len(models), C, D)), np.zeros((len(models), C, n)), 2.0
            stack.run(weight[models], rho[models], params, duals, np.full(len(models), width), gap[models], max_iter, found, models)
    return found


def _joined(columns, K, C, goal):
    """Make one model of its columns."""
    value = columns.value.reshape(K, C)
    total = value.sum(1)
    above = (columns.gap.reshape(K, C) * value).sum(1)
    gap = np.divide(above, total, out=np.zeros(K), where=total > 0)
    curve = []
    for k in range(K):
        parts = columns.curve[k * C : (k + 1) * C]
        length = max(map(len, parts))
        curve.append([sum(part[min(i, len(part) - 1)] for part in parts) for i in range(length)])
    return Solution(
        columns.params.reshape(K, C, -1), columns.duals.reshape(K, C, -1), total, gap, gap <= goal, curve
    )
