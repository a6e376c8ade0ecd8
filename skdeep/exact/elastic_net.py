r"""Exact fits of linear models with an L1 norm, alone or beside a squared one: Newton's method on the support.

Model k minimises ``sum_i w_ki loss_i(s_i) + sum_cj kappa_kj |V_cj| + rho_kj V_cj^2 / 2`` over V, with scores
``s = V Z'``. Each iteration replaces the loss by its quadratic model in the coordinates that are not zero or might not
stay so, and goes to the minimum of that with the norm as it is (`skdeep.exact.quadratic`): zeros are exact, and near
the end one iteration squares the distance. The first iterations have a stronger norm, which weakens from one to the
next, and models of a stack follow one another along the penalty, each from where its neighbour ended: so few
coordinates ever enter that are not in the end's support.

What ends a fit is proof: no value is less than the dual problem's at a point, the loss's gradient after it is
brought into the dual's domain (Fenchel's inequality).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from skdeep.exact import projected
from skdeep.exact.descent import summed
from skdeep.exact.losses import At, RowLoss, SquaredLoss
from skdeep.exact.moments import Moments
from skdeep.exact.path import chained
from skdeep.exact.quadratic import Matrix, Quadratic, minimise
from skdeep.exact.row_space import has_free_column
from skdeep.exact.rows import Rows, SparseRows, of_both

#: Coordinates at zero whose gradient is this part of what would move them are followed too.
_NEAR = 0.8
#: Curvature that is added to each coordinate's own, as a part of it: where columns repeat, no other is left.
_DAMPING = 1e-12
#: Values below this part of what no parameters have count as zero, as rounding hides how far from it they are.
SMALLEST = 1e-7
#: The norm of the first iteration, as a part of what leaves all zero, and of each next one, as a part of the last.
_FALL = 0.2
#: Scores move by this much at most in an iteration, in the loss's unit, and twice what they are.
_FARTHEST = 30.0
#: Iterations, at most, for the support to come to rest when the gap is closed.
_MAX_SETTLING = 3
#: Subgradients that are short enough, as a part of the norm, for a gap of one.
_AT_REST = 0.1
#: Coordinates that a step follows at least, if there are so many that may leave zero; else as many as are not zero.
_MIN_FOLLOWED = 128
#: Columns up to which least squares are solved by their moments, and most columns where rows are more than these.
_FEW_COLUMNS, _MAX_COLUMNS = 128, 512
#: Share of coordinates that leave zero up to which products of some sparse columns are less work than of all.
_FEW = 0.35
#: Rounding of moments that leaves a duality gap as it is, as a part of it.
_HIDDEN = 0.1
#: Most coordinates of a curvature that is computed as a matrix, and of losses in pieces, many of which are flat, which
#: slows conjugate gradients; and most second derivatives of the loss.
_MAX_MATRIX, _MAX_PIECEWISE, _MAX_SECOND = 400, 700, 2**24
#: Share of the longest subgradient that a step leaves: where conjugate gradients take it, and else.
_ROUGHLY, _NEARLY = 1e-2, 1e-3
#: Most values of all columns' products with one another with which all second derivatives are computed at once.
_MAX_GRAM = 2**16
#: Values of columns that are taken at a time.
_CHUNK_VALUES = 2**21
#: By how much values rise in rounding, as a part of them.
_ROUNDING = 1e-14
#: Steps from which on more than a whole one is tried.
_WORTH = 1.2
#: What leaves no curvature zero.
_TINY = 1e-200


class Solution(NamedTuple):
    """What models were found."""

    params: np.ndarray  # (K, C, D)
    value: np.ndarray  # loss and penalty, (K,)
    gap: np.ndarray  # most that the value can be above its minimum, as a part of it, (K,)
    curve: list[list[float]]  # values at the start and after each iteration, of each
    converged: np.ndarray  # whether the gap is as small as it was to be, (K,)


def solve(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    kappa: np.ndarray,
    rho: np.ndarray,
    gap: float = 1e-6,
    max_iter: int = 100,
    start: np.ndarray | None = None,
) -> Solution:
    """Fit K models with L1 or elastic-net penalties, to a relative duality `gap`.

    Weights (K, n) are of sum one for each; the slopes `kappa` and curvatures `rho` of the penalties (K, D) are both
    zero for the intercept, and nowhere else. The `start` is (K, C, D).
    """
    K, C, D = len(weight), loss.n_scores, rows.shape[1]
    if isinstance(loss, SquaredLoss) and D <= max(_FEW_COLUMNS, min(_MAX_COLUMNS, rows.shape[0])):
        is_one = K == 1 and isinstance(rows, SparseRows) and _are_few(rows, loss, weight, kappa, rho)
        found = None if is_one else _of_squares(rows, loss, weight, kappa, rho, gap, max_iter)
        if found is not None:
            return found
    if loss.separable and C > 1:
        # Scores that nothing couples are models of their own.
        starts = [None if start is None else start[:, c : c + 1] for c in range(C)]
        found = joined([solve(rows, loss.one(c), weight, kappa, rho, gap, max_iter, starts[c]) for c in range(C)])
        return found._replace(converged=found.converged | (found.gap <= gap))
    params, value, reached = np.zeros((K, C, D)), np.zeros(K), np.zeros(K)
    curve: list[list[float]] = [[] for _ in range(K)]
    for k, neighbour in _along(weight, kappa + rho):
        problem = _Problem(rows, loss, weight[k], kappa[k], rho[k], gap)
        begin = params[neighbour] if start is None else start[k]
        params[k], reached[k], curve[k] = problem.solve(begin.ravel(), max_iter)
        if reached[k] > gap and begin.any() and start is None:  # no model's end is to depend on others: as it is alone
            params[k], reached[k], curve[k] = problem.solve(np.zeros(C * D), max_iter)
        value[k] = curve[k][-1]
    return Solution(params, value, reached, curve, reached <= gap)


def _are_few(rows: Rows, loss: SquaredLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray) -> bool:
    """Tell whether few coordinates would leave zero, alone, so that products of few columns are asked for."""
    level = loss.target @ weight.T if has_free_column(rows, kappa + rho) else 0.0
    slope = np.abs(rows.back((loss.target - level) * weight))
    return np.count_nonzero(slope > kappa) <= _FEW * slope.size


def _of_squares(
    rows: Rows, loss: SquaredLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float, max_iter: int
) -> Solution | None:
    """Fit squares by the moments of rows, and by errors themselves where rounding hides how near the minimum is."""
    moments, parts = Moments(rows, weight), []
    for target in loss.target:
        found = moments.solve(target, kappa, rho)
        if found is None:
            return None
        unit = np.maximum(found.value, SMALLEST * found.at_zero)
        reached = found.above / np.where(unit > 0, unit, 1)
        curve = [list(pair) for pair in zip(found.at_zero.tolist(), found.value.tolist(), strict=True)]
        part = Solution(found.params[:, None], found.value, reached, curve, reached <= gap)
        for k in np.flatnonzero(~part.converged | (found.rounding > _HIDDEN * gap * unit)).tolist():
            part.params[k, 0], part.value[k], above = moments.refine(target, k, found.params[k], kappa[k], rho[k], gap)
            reached[k] = above / max(part.value[k], SMALLEST * found.at_zero[k]) if above else 0.0
            if reached[k] > gap:
                problem = _Problem(rows, loss.of(target[None]), weight[k], kappa[k], rho[k], gap)
                params, own, values = problem.solve(part.params[k, 0], max_iter)
                if own < reached[k]:
                    part.params[k], reached[k], part.value[k] = params, own, values[-1]
            part.converged[k], curve[k][-1] = reached[k] <= gap, float(part.value[k])
        parts.append(part)
    return parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: list[Solution]) -> Solution:
    """Join what was found for each score."""
    value = np.sum([part.value for part in parts], axis=0)
    missing = np.sum([part.gap * part.value for part in parts], axis=0)
    curve = [summed(list(curves)) for curves in zip(*(part.curve for part in parts), strict=True)]
    return Solution(
        np.concatenate([part.params for part in parts], axis=1),
        value,
        missing / np.where(value > 0, value, 1),
        curve,
        np.all([part.converged for part in parts], axis=0),
    )


def _along(weight: np.ndarray, penalty: np.ndarray) -> Iterator[tuple[int, int]]:
    """Order models of the same rows by falling penalty; with each goes the one to start from, or itself if first."""
    first: int | None = None
    for chain in chained([one.tobytes() for one in weight], penalty.sum(1)).values():
        models = chain.tolist()
        before = models[0] if first is None else first
        for k in models:
            yield k, before
            before = k
        first = models[0]


class _Products:
    """Products of columns under weights (n,), which are all second derivatives of squares: each is computed once."""

    def __init__(self, rows: Rows, weight: np.ndarray):
        self.rows, self.weight = rows, weight
        self._known, self._gram = np.zeros(0, dtype=np.intp), np.zeros((0, 0))
        self._place = np.full(rows.shape[1], -1)

    def of(self, index: np.ndarray) -> np.ndarray:
        """Take the products of some columns with one another."""
        new = index[self._place[index] < 0]
        if len(new):
            k = len(self._known)
            self._known = np.concatenate([self._known, new])
            self._place[new] = np.arange(k, len(self._known))
            between = self.rows.between(new, self._known, self.weight)
            gram = np.empty((len(self._known), len(self._known)))
            gram[:k, :k], gram[k:], gram[:k, k:] = self._gram, between, between[:, :k].T
            self._gram = gram
        place = self._place[index]
        return self._gram.take(place, 0).take(place, 1)


class _State(NamedTuple):
    """Where a fit is."""

    x: np.ndarray
    scores: np.ndarray
    at: At
    value: float
    gradient: np.ndarray  # of all but the L1 norm


class _Problem:
    """One model's problem, of coordinates x = V.ravel()."""

    def __init__(self, rows: Rows, loss: RowLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float):
        self.rows, self.loss, self.weight, self.gap = rows, loss, weight, gap
        self.shape = loss.n_scores, len(kappa)
        self.kappa, self.rho = np.tile(kappa, loss.n_scores), np.tile(rho, loss.n_scores)
        self.is_free = (self.kappa == 0) & (self.rho == 0)
        self._is_free_column = self.is_free[: len(kappa)]
        self._has_intercept = has_free_column(rows, kappa + rho)
        self.is_ridged = self.rho > 0
        C, D = self.shape
        # A common shift of a column's coefficients changes only the norm, which is least where their median is zero.
        self._has_shift = (kappa > 0) & (rho == 0) & (loss.shift_invariant and C > 1)
        family = np.where(self._has_shift, np.arange(D), -1)
        self._family = np.tile(family, C) if self._has_shift.any() else None
        self.unit = loss.unit
        self._products = _Products(rows, weight) if C == 1 and isinstance(loss, SquaredLoss) else None
        if C > 1:
            self._of_pair = of_both(C).reshape(C, C)

    def solve(self, x: np.ndarray, max_iter: int) -> tuple[np.ndarray, float, list[float]]:
        """Find coordinates, the gap they have and the values on the way."""
        state = self._at(np.zeros_like(x))
        self.smallest = SMALLEST * state.value
        if x.any():
            begin = self._at(projected.shifted(x.reshape(self.shape), self._has_shift).ravel())
            state = begin if begin.value < state.value else state
        curve, bound, settling, is_settled = [state.value], -np.inf, 0, False
        ease, damping = 1.0, _DAMPING
        if not state.x.any():
            over = np.abs(state.gradient)[self.kappa > 0] / self.kappa[self.kappa > 0]
            is_settled = not over.max(initial=0) > 1 and not state.gradient[self.is_free].any()
            ease = max(1.0, _FALL * float(over.max(initial=0)))
        kappa, is_certified = self.kappa, False
        while True:
            enough = self._relative(state.value, bound) <= self.gap
            if len(curve) > max_iter or (enough and (is_settled or settling > _MAX_SETTLING)):
                break
            settling += enough
            self.kappa = ease * kappa
            here = state._replace(value=state.value + (ease - 1) * float(kappa @ np.abs(state.x)))
            step, slope = self._step(here, damping)
            found, length = self._search(here, step, slope) if slope < 0 else (None, 0.0)
            self.kappa = kappa
            if found is None and ease == 1:
                if damping > 1e-3 or is_settled:
                    break
                damping *= 1e3
                continue
            damping = max(_DAMPING, damping / 30) if length > 0.25 else min(max(30 * damping, 1e-6), 1e-1)
            is_near = -slope <= 100 * self.gap * (state.value + self.smallest)
            if found is not None:
                before, is_certified = state.x, False
                state = found._replace(value=found.value - (ease - 1) * float(kappa @ np.abs(found.x)))
                curve.append(state.value)
                is_settled = is_near and (
                    (length >= 1 and np.array_equal(np.sign(state.x), np.sign(before)))
                    or self._steepest(state) <= _AT_REST * self.gap * float(kappa.max())
                )
            if ease == 1 and is_near:
                bound, is_certified = max(bound, self._bound(state)), True
            ease = max(1.0, _FALL * ease)
        if not is_certified:
            bound = max(bound, self._bound(state))
        params = state.x.reshape(self.shape)
        if self.loss.shift_invariant:
            # Of all intercepts with the same loss, those of least norm.
            params[:, self._is_free_column] -= params[:, self._is_free_column].mean(0)
        return params, self._relative(state.value, bound), curve

    def _relative(self, value: float, bound: float) -> float:
        if value == 0:  # nothing is below it
            return 0.0
        return max(value - bound, 0.0) / max(value, self.smallest)

    def _penalty(self, x: np.ndarray) -> float:
        return self.kappa @ np.abs(x) + self.rho @ (x * x) / 2

    def _at(self, x: np.ndarray) -> _State:
        return self._with(x, self.rows.scores(x.reshape(1, *self.shape)))

    def _with(self, x: np.ndarray, scores: np.ndarray) -> _State:
        at = self.loss.at(scores)
        gradient = self.rows.back(at.gradient * self.weight).ravel() + self.rho * x
        return _State(x, scores, at, float(at.value[0] @ self.weight + self._penalty(x)), gradient)

    def _bound(self, state: _State) -> float:
        """Compute a value that no parameters have less than."""
        dual, slope = state.at.gradient, state.gradient - self.rho * state.x
        if self._has_intercept:
            dual = self.loss.balanced(dual, self.weight[None])
            slope = self.rows.back(dual * self.weight).ravel()
        slope = np.abs(slope)
        # What is left where nothing is held is rounding, or else only zero is known to be feasible.
        rounding = max(1e-12 * float((np.abs(dual) @ self.weight).sum()), 1e-14)
        strict = ~self.is_ridged & ~self.is_free
        longest = 1.0
        if (slope[self.is_free] > rounding).any():
            longest = 0.0
        over = slope > self.kappa
        over_strict = over & strict
        if over_strict.any():
            longest = min(longest, float((self.kappa[over_strict] / slope[over_strict]).min()))
        found = -np.inf
        ridged = over & self.is_ridged
        ratio = float((self.kappa[ridged] / slope[ridged]).min()) if ridged.any() else 1.0
        for length in {longest, min(longest, ratio)}:
            excess = np.maximum(length * slope[ridged] - self.kappa[ridged], 0)
            conjugate = self.loss.conjugate(length * dual)[0] @ self.weight
            found = max(found, float(-conjugate - (excess * excess / self.rho[ridged]).sum() / 2))
        return found

    def _step(self, state: _State, damping: float) -> tuple[np.ndarray, float]:
        """Find the step to the minimum of the quadratic model, and the slope towards it."""
        followed = self._followed(state)
        if not len(followed):
            return np.zeros_like(state.x), 0.0
        is_large = self._is_large(len(followed))
        if is_large:
            followed = np.arange(len(state.x))
        x, kappa, slope = state.x[followed], self.kappa[followed], state.gradient[followed]
        sign = np.sign(x)
        longest = float((np.abs(slope + kappa * sign) - kappa * (sign == 0)).max(initial=0))
        tol = (_ROUGHLY if is_large else _NEARLY) * max(longest, 0)
        family = self._family[followed] if self._family is not None else None
        problem = Quadratic(slope, x, kappa, tol, family, self.shape[0])
        if is_large:
            end = projected.minimise(self._at_large(state, damping), problem)
        else:
            end = minimise(self._curvature(state, followed, damping), problem)
        step = np.zeros_like(state.x)
        step[followed] = end - x
        return step, float(slope @ (end - x) + kappa @ (np.abs(end) - np.abs(x)))

    def _steepest(self, state: _State) -> float:
        """Find the longest entry of the subgradient."""
        sign = np.sign(state.x)
        return float((np.abs(state.gradient + self.kappa * sign) - self.kappa * (sign == 0)).max(initial=0))

    def _followed(self, state: _State) -> np.ndarray:
        """Choose the coordinates of a step: all that are not zero, and of the others, some that may leave it."""
        x, size = state.x, np.abs(state.gradient)
        is_followed = (x != 0) | (size > _NEAR * self.kappa)
        many = max(_MIN_FOLLOWED, 2 * int(np.count_nonzero(x)))
        # of sparse squares, products are cheap, and neither steps of many coordinates fail
        is_cheap = self._products is not None and isinstance(self.rows, SparseRows)
        if is_cheap or np.count_nonzero(is_followed) <= many:
            return np.flatnonzero(is_followed)
        beyond = np.where((x != 0) | self.is_free, np.inf, size - self.kappa)
        return np.sort(np.argpartition(-beyond, many)[:many])

    def _is_large(self, n_followed: int) -> bool:
        """Tell whether second derivatives of some coordinates are too many for a matrix."""
        C = self.shape[0]
        most = _MAX_PIECEWISE if self.loss.piecewise else _MAX_MATRIX
        return n_followed > most or C * (C + 1) // 2 * len(self.weight) > _MAX_SECOND

    def _at_large(self, state: _State, damping: float) -> projected.Curvature:
        """State what products with the second derivatives of all coordinates are."""
        loss, weight = self.loss, self.weight
        diagonal = self.rows.diagonal(loss.diagonal(state.scores, state.at)[0] * weight)
        ridge = self.rho.reshape(self.shape) + damping * diagonal + _TINY
        if loss.separable:
            second = loss.second(state.scores, state.at)[0] * weight
            return projected.Curvature(self.rows, lambda moved: second * moved, ridge, diagonal + ridge)

        def times(moved: np.ndarray) -> np.ndarray:
            return loss.times_second(state.scores, state.at, moved[None])[0] * weight

        return projected.Curvature(self.rows, times, ridge, diagonal + ridge)

    def _curvature(self, state: _State, index: np.ndarray, damping: float) -> Matrix:
        C, n = self.shape[0], len(self.weight)
        if self._products is not None:
            return self._matrix(self._products.of(index), index, damping)
        of_class, column = np.divmod(index, self.shape[1])
        second = self.loss.second(state.scores, state.at)[0] * self.weight
        if C > 1 and n * self.shape[1] ** 2 <= _MAX_GRAM:
            gram = self.rows.gram(second)
            of_pair = self._of_pair[of_class[:, None], of_class]
            return self._matrix(gram[of_pair, column[:, None], column], index, damping)
        if C == 1 and isinstance(self.rows, SparseRows):
            return self._matrix(self.rows.narrow(column).gram(second)[0], index, damping)
        found = np.zeros((len(index), len(index)))
        bounds = of_class.searchsorted(np.arange(C + 1)).tolist()
        step = max(1, _CHUNK_VALUES // len(index))
        for start in range(0, n, step):
            part = slice(start, start + step)
            Z, factor = self.rows.columns(column, part), second[:, part]
            for c, (begin, end) in enumerate(itertools.pairwise(bounds)):
                pairs = self._of_pair[c, of_class[:end]] if C > 1 else np.zeros(1, dtype=int)
                found[begin:end, :end] += Z[begin:end] @ (factor[pairs] * Z[:end]).T
        for begin, end in itertools.pairwise(bounds):
            found[:begin, begin:end] = found[begin:end, :begin].T
        return self._matrix(found, index, damping)

    def _matrix(self, found: np.ndarray, index: np.ndarray, damping: float) -> Matrix:
        diagonal = found.reshape(-1)[:: len(index) + 1]
        diagonal += self.rho[index]
        diagonal += damping * (diagonal + 1e-2 * diagonal.mean()) + _TINY
        return Matrix(found)

    def _search(self, state: _State, step: np.ndarray, slope: float) -> tuple[_State | None, float]:
        """Take the step, or as much of it as lowers the value enough, or more, if it is steep at its end still."""
        towards = self.rows.scores(step.reshape(1, *self.shape))
        # Where a loss has no curvature left, what it says of far away is nothing.
        farthest = _FARTHEST * self.unit + 2 * float(np.abs(state.scores).max())
        longest = farthest / max(float(np.abs(towards).max()), _TINY)
        length = min(1.0, longest)
        for _ in range(30):
            found = self._with(state.x + length * step, state.scores + length * towards)
            if found.value <= state.value + 1e-4 * length * slope + _ROUNDING * state.value:
                further = min(_further(found.gradient @ step + self.kappa @ (np.sign(found.x) * step), slope), longest)
                if length == 1 and further > _WORTH:
                    beyond = self._with(state.x + further * step, state.scores + further * towards)
                    if beyond.value < found.value:
                        return beyond, further
                return found, length
            length /= 2
        return None, length


def _further(end: float, start: float) -> float:
    """Guess where a way is lowest, from its slopes at a step's end and start, in steps, up to four.

    Losses of margins bend less and less: between parabolas and none, slopes fall like ``(1 + p t) / (1 + q t)``.
    """
    left = end / start
    return float((1 - left) / (1 - 2 * left)) if 7 * left < 3 else 4.0
