r"""Exact fits of losses of values with kinks: absolute errors, quantiles, errors beyond a distance; with any penalty.

Model k minimises, for each column c of scores :math:`s = V_c z`, between bounds :math:`l \le h`,

.. math:: \sum_i w_{ki} \left(u \max(0, l_i - s_i) + d \max(0, s_i - h_i)\right)
          + \sum_j \kappa_{kj} |V_{cj}| + \tfrac12 \rho_{kj} V_{cj}^2.

An L1 norm is the same kind of loss, of one more row for each coefficient, and a loss with one kink is a hinge and a
slope, whose kink may be as wide as Huber's loss has it: all of it goes to the interior point of
`skdeep.exact.interior`. Where that ends, it is known which residuals and coefficients are zero, so that equations say
what the others are (`_settled`): zeros are exact. What ends a fit is proof: the duality gap of slopes of the losses, of
which none pulls an intercept.

S. Portnoy, R. Koenker, *The Gaussian hare and the Laplacian tortoise*, Statistical Science 12, 1997.
R. Koenker, *Quantile Regression*, 2005, chapter 6.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import lstsq, qr

from skdeep.exact import interior_one, kinked_sparse
from skdeep.exact.descent import summed
from skdeep.exact.elastic_net import SMALLEST, Solution
from skdeep.exact.interior import Batch
from skdeep.exact.kinked_terms import Bounded, Terms, above_by_parameters, terms_of
from skdeep.exact.normal import distinct
from skdeep.exact.rows import Rows

#: Rows from which models one by one take less time than together.
_MANY_ROWS = 1000
#: Terms of a batch of models: as many as stay in the cache.
_BATCH = 2**15
#: Curvature that is added where there may be none, as a share of the largest.
_HOLD = 1e-9
#: Units are at least so much of the value that zero has: what is rounding beside it has none.
_LEAST_UNIT = 1e-6
#: Gap from which it is clear which coefficients of an L1 norm are zero.
_CLOSE = 1e-9
#: How often a problem whose gap is left begins anew, in units by how much larger.
_MAX_RESTARTS, _LARGER = 2, 30.0
#: Unknowns of equations that are solved for what is not zero, and how often signs that turn out wrong are exchanged.
_MAX_SYSTEM, _MAX_EXCHANGES = 1000, 30
#: Most values of rows at their kinks, whose duals are solved for.
_MAX_VALUES = 2**22
#: What duals may be beyond their bounds by rounding; and, as a part of the norm, what pulls coefficients that it holds.
_ROUNDING, _HELD = 1e-9, 1e-7
#: What is left of values that lower bounds come of, beside the least one, where digits of these bounds are left.
_ROUNDED = 1e-6


def solve(
    rows: Rows,
    lo: np.ndarray,
    hi: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    weight: np.ndarray,
    rho: np.ndarray,
    kappa: np.ndarray,
    gap: float | np.ndarray = 1e-6,
    max_iter: int = 100,
    width: float = 0.0,
) -> Solution:
    r"""Minimise losses with kinks, for K models of C columns, to a relative duality gap; raise where ``lo > hi``.

    Scores between the bounds (C, n) cost nothing; `up` and `down` (C,) are what each unit below and above costs.
    Weights (K, n) of a model add up to one, and are zero where it is not trained on a row; `rho` and `kappa` (K, D) are
    curvatures and slopes of the penalties. Where bounds meet, kinks may have a `width`: the loss is the least of what
    is left of errors, and of squares of what is taken from them that have the same slopes at the ends. With costs of
    :math:`\delta` for either side and a width of :math:`2 \delta` it is Huber's.
    """
    weight, rho, kappa = (np.asarray(given, dtype=float) for given in (weight, rho, kappa))
    (K, n), C, D = weight.shape, len(lo), rows.shape[1]
    if not (lo <= hi).all():
        raise ValueError("A lower bound is above its upper one, or is no number: lo <= hi is what is asked for.")
    used = np.flatnonzero(weight.any(0))
    if len(used) < n:
        rows, lo, hi, weight, n = rows.select(used), lo[:, used], hi[:, used], weight[:, used], len(used)
    if not width and kinked_sparse.suits(rows, rho, kappa):
        each = np.broadcast_to(np.asarray(gap, dtype=float), K)
        return kinked_sparse.solve(rows, (lo, hi), (up, down), weight, rho, each, max_iter)
    if C == 1 and not width and interior_one.suits(rows, weight, rho, kappa):
        alike = interior_one.Alike(rows, lo[0], lo[0] if hi is lo else hi[0], float(up[0]), float(down[0]), weight[0])
        one = alike.solve(rho[0], float(np.min(gap)), max_iter)
        if one is not None:
            return one
    if K > 1 and C == 1 and n >= _MANY_ROWS and not width and interior_one.suits(rows, None, rho, kappa):
        return _one_by_one(rows, (lo, hi), (up, down), weight, rho, np.broadcast_to(gap, K), max_iter)
    goal = np.repeat(np.broadcast_to(np.asarray(gap, dtype=float), K), C)
    starts = _starts(rows, (lo + hi) / 2, weight, rho, kappa)
    params, value, reached = np.zeros((K * C, D)), np.zeros(K * C), np.zeros(K * C)
    curves: list[list[float]] = []
    size = max(1, _BATCH // n)
    pending = np.split(np.arange(K * C), range(size, K * C, size))
    while pending:
        systems = pending.pop(0)
        k, c = np.divmod(systems, C)
        problem = _Problem(terms_of(rows, lo[c], hi[c], up[c, None], down[c, None], weight[k], kappa[k], width), rho[k])
        # in units of the least value that is known
        known = np.stack([problem.value(start[k, c]) for start in starts])
        least = known.argmin(0)
        lowest = np.take_along_axis(known, least[None], 0)[0]
        unit = np.maximum(lowest, _LEAST_UNIT * known[-1]) / (up + down)[c] + 0.5 * np.vecdot(hi[c] - lo[c], weight[k])
        unit[~(unit > 0)] = 1.0
        start = starts[least, k, c]
        is_apart = problem.is_apart(lowest)
        if 2 * len(systems) > size > 1 and not is_apart and len(problem.terms.signs) > 1:  # twice as many terms
            pending[:0] = np.array_split(systems, 2)
            continue
        way = problem.solve_beside if is_apart else problem.solve
        found = way(unit, start, lowest, goal[systems], max_iter)
        for _ in range(_MAX_RESTARTS):
            left = np.flatnonzero(
                (found.gap > goal[systems]) & (np.array([len(own) for own in found.curve]) <= max_iter)
            )
            if not len(left):
                break
            unit[left] *= _LARGER
            part, rest = problem.select(left), max_iter - min(len(found.curve[s]) for s in left) + 1
            again = part.solve(unit[left], start[left], lowest[left], goal[systems[left]], rest)
            found.improve(left, again, part.smallest)
        params[systems], value[systems], reached[systems] = found.params, found.value, found.gap
        curves += found.curve
    value, reached = value.reshape(K, C), reached.reshape(K, C)
    total, above = value.sum(1), (reached * value).sum(1)
    relative = reached[:, 0] if C == 1 else np.divide(above, total, out=np.zeros(K), where=total > 0)
    converged = (reached <= goal.reshape(K, C)).all(1)
    curves = [summed(curves[k * C : (k + 1) * C]) for k in range(K)]
    return Solution(params.reshape(K, C, D), total, relative, curves, np.asarray(converged))


def _one_by_one(
    rows: Rows,
    bounds: tuple[np.ndarray, np.ndarray],
    costs: tuple[np.ndarray, np.ndarray],
    weight: np.ndarray,
    rho: np.ndarray,
    gap: np.ndarray,
    max_iter: int,
) -> Solution:
    """Solve models of one column each on their own rows, of which few are looked at: see `interior_one`."""
    first, number = distinct(weight)
    found: list[Any] = [None] * len(weight)
    for which, model in enumerate(first):
        used = np.flatnonzero(weight[model])
        part, own, ends = rows.select(used), weight[model, used], (bounds[0][:, used], bounds[1][:, used])
        alike = interior_one.Alike(part, ends[0][0], ends[1][0], float(costs[0][0]), float(costs[1][0]), own)
        for k in [k for k, same in enumerate(number) if same == which]:
            found[k] = alike.solve(rho[k], float(gap[k]), max_iter)
            if found[k] is None:
                alone = own[None], rho[k : k + 1], np.zeros((1, rows.shape[1]))
                found[k] = solve(part, *ends, *costs, *alone, gap[k], max_iter)
    params, value, reached = (np.concatenate([of[i] for of in found]) for i in range(3))
    return Solution(params, value, reached, [of.curve[0] for of in found], reached <= gap)


def _starts(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """Compute parameters (3, K, C, D) that may be near: least squares of all rows, without what is held, and zero."""
    mean, D = weight.mean(0), rows.shape[1]
    hessian, right = rows.gram(mean[None])[0], rows.back(target * mean)
    diagonal = hessian.reshape(-1)[:: D + 1]
    diagonal += _HOLD * diagonal.max(initial=0.0) + np.finfo(float).tiny
    found = np.zeros((3, len(rho), *right.shape))
    if rows.shape[0] <= D:  # they may all be met
        found[0] = lstsq(rows.take(np.arange(rows.shape[0])), target.T, lapack_driver="gelsy")[0].T
    else:
        each = np.repeat(hessian[None], len(rho), 0)
        each.reshape(len(rho), -1)[:, :: D + 1] += rho
        found[0] = np.linalg.solve(each, right.T[None]).swapaxes(1, 2)
    free = np.flatnonzero(~(rho + kappa).any(0))
    found[1][..., free] = np.linalg.solve(hessian[np.ix_(free, free)], right[:, free].T).T
    return found


def centre_(
    params: np.ndarray, rows: Rows, bounds: tuple[np.ndarray, ...], costs: tuple[float, float], weight: np.ndarray
) -> None:
    """Put the intercepts of models (K, 1, D) of one column, in place, in the middle of those that are optimal.

    Medians of an even number of rows are any number between two of them, for example.
    """
    (up, down), K = costs, len(params)
    scores = rows.scores(params)[:, 0]
    kinks = np.concatenate([bound - scores for bound in bounds], axis=1)
    order = np.argsort(kinks, axis=1)
    kinks = np.take_along_axis(kinks, order, 1)
    rise = np.take_along_axis(np.concatenate([up * weight, down * weight], axis=1), order, 1)
    slope = np.cumsum(rise, axis=1) - up * weight.sum(1, keepdims=True)
    first, last = (slope >= -_ROUNDING).argmax(1), (slope > _ROUNDING).argmax(1)
    params[:, 0, -1] += (kinks[np.arange(K), first] + kinks[np.arange(K), last]) / 2


class _Found(NamedTuple):
    """What systems have in the end: parameters (S, D), values and relative gaps (S,), and values by step."""

    params: np.ndarray
    value: np.ndarray
    gap: np.ndarray
    curve: list[list[float]]

    def improve(self, systems: np.ndarray, other: _Found, smallest: np.ndarray) -> None:
        """Take what was found for some systems: the lower value, and the higher of what none is below."""
        for own, s in enumerate(systems):
            self.curve[s].extend(other.curve[own])
            each = [(self.value[s], self.gap[s]), (other.value[own], other.gap[own])]
            bounds = [(value, value - gap * max(value, smallest[own])) for value, gap in each]
            if other.value[own] < self.value[s]:
                self.params[s], self.value[s] = other.params[own], other.value[own]
            self.curve[s][-1] = float(self.value[s])
            self.gap[s] = _left(bounds, self.value[s], smallest[own])


class _Problem:
    """What S systems minimise: terms, and a ridge of curvatures (S, D)."""

    def __init__(self, terms: Terms, rho: np.ndarray):
        self.terms, self.rho = terms, rho
        self.norm = terms.weight[:, terms.n_of_rows :] / 2 if terms.has_norm else np.zeros_like(rho)
        self.smallest = np.maximum(SMALLEST * terms.loss(terms.at_zero), np.finfo(float).tiny)
        self.rounding = 4 * np.finfo(float).eps * np.vecdot(np.abs(terms.at_zero), terms.weight)

    def select(self, systems: np.ndarray) -> _Problem:
        """Take some of the systems."""
        return _Problem(self.terms.keep(systems), self.rho[systems])

    def value(self, params: np.ndarray) -> np.ndarray:
        """Compute values (S,) of parameters (S, D)."""
        margin = self.terms.changes(params) + self.terms.at_zero
        return self.terms.loss(margin) + 0.5 * np.vecdot(self.rho * params, params)

    def solve(self, unit: np.ndarray, start: np.ndarray, first: np.ndarray, goal: np.ndarray, max_iter: int) -> _Found:
        """Find the optima, to relative gaps (S,), counting in units (S,) of scores, parameters and values.

        The `start` (S, D), of values `first`, is one where it costs nothing.
        """
        own, first = unit[:, None], first / unit
        scaled = _Problem(self.terms.in_unit(own), self.rho * own)
        is_optimal = first <= scaled.rounding
        enough = np.where(is_optimal, np.inf, scaled.smallest)
        nearer = np.minimum(0.5 * goal, np.where(self.norm.any(1), _CLOSE, np.inf))
        near = Batch(scaled.terms, scaled.terms.weight, scaled.rho, nearer, enough).run(max_iter)
        params = np.where(is_optimal[:, None], start / own, near.params)
        value, gap = scaled.certify(params, near.duals)
        bounds = [[one] for one in zip(value, value - gap * np.maximum(value, scaled.smallest), strict=True)]
        # zeros of an L1 norm are to be exact; else what is near enough is left as it is
        for s in np.flatnonzero(~is_optimal & (self.norm.any(1) | (gap > goal))):
            one = np.array([s])
            alone, smallest = scaled.select(one), scaled.smallest[s]
            first_of, lowest = value[s], np.inf
            for candidate, dual in _settled(alone, params[one], near.duals[one]):
                of_candidate, its_gap = (float(of[0]) for of in alone.certify(candidate, dual))
                bounds[s].append((of_candidate, of_candidate - its_gap * max(of_candidate, smallest)))
                # what has no zeros gives way to what has them, unless that is worse
                if of_candidate < min(lowest, first_of + goal[s] * max(first_of, smallest)):
                    params[one], value[s], lowest = candidate, of_candidate, of_candidate
                if lowest < np.inf and _left(bounds[s], lowest, smallest) <= min(goal[s], _CLOSE):
                    break
        for s in np.flatnonzero(first < value):
            params[s], value[s] = start[s] / unit[s], first[s]
        gap = np.array([_left(*each) for each in zip(bounds, value, scaled.smallest, strict=True)])
        gap[value <= scaled.rounding] = 0  # nothing is less
        curve = [[*of_one, last] for of_one, last in zip(near.curve, value.tolist(), strict=True)]
        curve = [[scale * one for one in of_one] for scale, of_one in zip(unit.tolist(), curve, strict=True)]
        return _Found(own * params, unit * value, gap, curve)

    def is_apart(self, value: np.ndarray) -> bool:
        """Tell whether bounds are so far apart, beside values (S,), that few rows pass from one side to the other."""
        terms, n = self.terms, self.terms.rows.shape[0]
        if len(terms.signs) == 1:
            return False
        apart = np.vecdot(-terms.at_zero[:, :n] - terms.at_zero[:, n : 2 * n], terms.weight[:, :n])
        return bool((0.5 * apart >= interior_one.APART * value).all())

    def solve_beside(
        self, unit: np.ndarray, start: np.ndarray, first: np.ndarray, goal: np.ndarray, max_iter: int
    ) -> _Found:
        """Find the optima as if no row passed from one side to the other.

        What is left out is never below zero: no optimum is below what is found. Where it is above zero at the end, all
        is solved for.
        """
        found = _Problem(self.terms.beside(start), self.rho).solve(unit, start, first, goal, max_iter)
        least = found.value * (1 - found.gap)
        value = self.value(found.params)
        gap = np.maximum(value - least, 0) / np.maximum(value, self.smallest)
        found = found._replace(value=value, gap=np.where(value > found.value, gap, found.gap))
        left = np.flatnonzero(found.gap > goal)
        if len(left):
            part = self.select(left)
            whole = part.solve(unit[left], start[left], first[left], goal[left], max_iter)
            found.improve(left, whole, part.smallest)
        return found

    def _far(self, params: np.ndarray) -> np.ndarray:
        """Compute how far intercepts may be, (S, 1), beside coefficients as large as in parameters (S, D)."""
        nearest = np.abs(self.terms.at_zero[:, : self.terms.n_of_rows]).max(1, initial=0.0)
        longest = np.abs(np.where((self.norm > 0) | (self.rho > 0), params, 0)).sum(1)
        return np.maximum(2 * (nearest + self.terms.rows.magnitude * longest), 1.0)[:, None]

    def certify(self, params: np.ndarray, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute values, and how far they are above what no parameters are below: relatively, (S,).

        Bounds of rows, among the parameters, become the best ones in place.
        """
        terms, n = self.terms, self.terms.n_of_rows
        if isinstance(terms.rows, Bounded):
            terms.rows.settle_(params, dual, terms.at_zero)
        margin = terms.changes(params) + terms.at_zero
        value = terms.loss(margin) + 0.5 * np.vecdot(self.rho * params, params)
        dual = np.clip(dual[:, :n], 0, 1)
        above = np.zeros(len(dual))
        if terms.give is not None:
            given, margin = terms.given(margin)
            above = 0.5 * np.vecdot((terms.weight * terms.give)[:, :n], np.square(given[:, :n] - (dual - 0.5)))
        above += np.vecdot(np.maximum(margin[:, :n], 0) - dual * margin[:, :n], terms.weight[:, :n])
        slope = terms.weight[:, :n] * dual
        if terms.lean is not None:
            slope -= terms.lean[:, :n]
        slope = terms.rows.back(terms.of_scores(slope))
        above += above_by_parameters(slope, params, self.rho, self.norm, value[:, None], self._far(params))
        return value, np.maximum(above - self.rounding, 0) / np.maximum(value, self.smallest)


def _left(bounds: list[tuple[float, float]], value: float, smallest: float) -> float:
    """Compute a relative gap, by lower bounds beside the values that they come of; no value is below zero.

    Bounds that come of far larger values are rounding, and those above what is known are wrong: how far the optimum's
    intercept is was underrated.
    """
    highest = (1 + _CLOSE) * value + _CLOSE * smallest
    least = max([0.0, *(bound for of_bound, bound in bounds if of_bound * _ROUNDED <= value and bound <= highest)])
    return max(value - least, 0.0) / max(value, smallest)


def _settled(problem: _Problem, params: np.ndarray, dual: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what one system's optimum may be, near parameters (1, D) with duals (1, T), each better if all goes well.

    Terms whose duals are farther from their bounds than their margins from zero are at their kinks. With these, the
    optimum solves linear equations. The last one is what is known without these.
    """
    terms, n = problem.terms, problem.terms.n_of_rows
    rows, D = terms.rows, len(params[0])
    weight, lean = terms.weight[0], 0.0 if terms.lean is None else terms.lean[0]
    sign = np.concatenate([np.broadcast_to(own, (1, rows.shape[0])) for own in terms.signs], axis=1)[0]
    give = np.zeros_like(weight) if terms.give is None else terms.give[0]

    def margins(v: np.ndarray, d: np.ndarray) -> np.ndarray:
        return (terms.changes(v[None]) + terms.at_zero)[0] - give * (d - 0.5)

    v, d = params[0].copy(), dual[0].copy()
    margin = margins(v, d)
    trained, price = weight > 0, np.ones_like(weight)  # residuals are about one; coefficients, the value by their price
    price[n:] = weight[n:] / max(float(problem.value(params)[0]), np.finfo(float).tiny)
    kink = trained & (price * np.abs(margin) < np.minimum(d, 1 - d))
    d = np.where(kink, d, np.where(trained, margin > 0, 0.5))
    near_zeros = np.where(kink[n:], 0, params) if terms.has_norm else params
    rounding = _ROUNDING + 1e-15 * weight.max() / np.where(trained, weight, 1)
    for _ in range(_MAX_EXCHANGES):
        zero = kink[n:] if terms.has_norm else np.zeros(D, dtype=bool)
        free, at = np.flatnonzero(~zero), np.flatnonzero(kink[:n])
        size_of, many = len(free), len(at) > len(free) and not give[at].any()
        if size_of + (size_of if many else len(at)) > _MAX_SYSTEM or size_of * len(at) > _MAX_VALUES:
            break
        v[zero] = 0
        near = terms.back((weight * d - lean)[None])[0] + problem.rho[0] * v
        Z = rows.take(at % rows.shape[0])[:, free]
        away = sign[at] * margins(v, d)[at]
        if many:  # the duals of least length are combinations of as few as there are columns
            turn, Z = qr(Z, mode="economic")
            away = away @ turn
        matrix = np.zeros((size_of + len(Z),) * 2)
        matrix[:size_of, :size_of] = np.diag(problem.rho[0, free])
        matrix[size_of:, :size_of], matrix[:size_of, size_of:] = Z, Z.T
        if not many:
            matrix[size_of:, size_of:] = np.diag(-give[at] / weight[at])
        step = lstsq(matrix, -np.r_[near[free], away], cond=1e-12, lapack_driver="gelsy")[0]
        v[free] += step[:size_of]
        d[at] += (turn @ step[size_of:] if many else step[size_of:]) * sign[at] / weight[at]
        if terms.has_norm:  # what holds zeros
            slope = rows.back(terms.of_scores((weight * d - lean)[None]))[0]
            j = np.flatnonzero(zero)
            d[n + j] = 0.5 - slope[j] / weight[n + j]
        yield v[None].copy(), d[None].copy()
        margin = margins(v, d)
        wrong = kink & ((d < -rounding) | (d > 1 + rounding))
        passed = trained & ~kink & (np.where(d > 0.5, margin, -margin) < 0)
        if not wrong.any() and not passed.any():
            moved = None if give.any() or problem.rho.any() else _moved(problem, zero, margin, v, d, kink)
            if moved is None:
                break
            passed, wrong = moved
        d[wrong] = np.where(d[wrong] > 0.5, 1.0, 0.0)
        kink = (kink & ~wrong) | passed
    yield near_zeros, dual


def _moved(
    problem: _Problem, zero: np.ndarray, margin: np.ndarray, v: np.ndarray, d: np.ndarray, kink: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Move one system of a linear program to where one more term is at its kink, or one less; None at its optimum.

    Where too few are at their kinks, all these stay there along the gradient, downhill until one more comes to its own.
    Where too many are to be, which cannot all be met, what is left of their margins leaves the gradient zero as a
    change of the duals, which leads uphill until one of these is at its bound.
    """
    terms, norm = problem.terms, problem.norm[0]
    n, weight = terms.n_of_rows, terms.weight[0]
    more, less = np.zeros_like(kink), np.zeros_like(kink)
    lean = 0.0 if terms.lean is None else terms.lean[0]
    pull = np.where(zero, 0, terms.back((weight * d - lean)[None])[0])
    if (np.abs(pull) > _HELD * np.where(norm > 0, norm, 1)).any():
        change = -terms.changes(pull[None])[0]
        ahead = np.flatnonzero((weight > 0) & ~kink & (margin * change < 0))
        lengths = -margin[ahead] / change[ahead]
        if len(ahead):
            v -= lengths.min() * pull
            more[ahead[lengths.argmin()]] = True
    elif (np.abs(margin[:n][kink[:n]]) > _CLOSE).any():
        rise = np.where(kink, margin, 0) / np.where(kink, weight, 1)
        slope = terms.rows.back(terms.of_scores((weight * rise)[None]))[0]
        if terms.has_norm:
            rise[n:] = np.where(zero, -slope / np.where(zero, weight[n:], 1), 0)
        ahead = np.flatnonzero(kink & (rise != 0))
        lengths = np.where(rise > 0, 1 - d, d)[ahead] / np.abs(rise[ahead])
        if len(ahead):
            d += lengths.min() * rise
            less[ahead[lengths.argmin()]] = True
    return (more, less) if more.any() or less.any() else None
