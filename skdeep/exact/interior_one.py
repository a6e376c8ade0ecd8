r"""The interior point of `skdeep.exact.interior` for one small system, with an end that is exact.

This is for what a plain fit asks: losses of values with kinks, a ridge on all parameters but free ones, no L1 norm,
every row of some weight. Few rows are near kinks, and their hinges step to the optimum; losses of others are linear.
Long before the gap is small, a step tries to go all the way, and says which rows are at their kinks: duals of others
lose most of what they have (El-Bakry, Tapia & Zhang 1994). Equations of all rows say the rest (`_Problem.settle`).
What is found is proven by a duality gap of all rows; where it is not, others are asked.

References
----------
S. Portnoy, R. Koenker, *The Gaussian hare and the Laplacian tortoise*, Statistical Science 12, 1997.
A. El-Bakry, R. Tapia, Y. Zhang, *A study of indicators for identifying zero variables in interior-point methods*,
SIAM Review 36, 1994.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg.lapack import dgesv, dpotrf, dpotrs

from skdeep.exact.elastic_net import Solution
from skdeep.exact.interior import MUCH, SLOW, Batch, centre
from skdeep.exact.rows import Rows

#: Most steps, and values of rows whose products are formed at once.
_MAX_STEPS, _FEW_VALUES = 30, 2**13
#: Objectives below this part of what no parameters have count as zero.
_SMALLEST, _EPS, _TINY = 1e-7, float(np.finfo(float).eps), float(np.finfo(float).tiny)
#: Half the distance of bounds, as a part of errors of least squares, from which few rows change sides.
_APART = 0.25
#: Gap from which it may be clear which rows are at their kinks, and how near to a half what duals lose is vague.
_CLOSE, _VAGUE = 3e-3, 0.2
#: How often rows go to their kinks or leave them, how many there may be to do so, what rounding may be, and how much
#: kinks give way that are too many.
_MAX_EXCHANGES, _FEW, _ROUNDING, _SOFT = 12, 6, 1e-10, 1e-12
#: Rows near kinks that are looked at first, in units of two thirds' power, and at most, as a part of all; and how often
#: others come in.
_BAND, _SHARE, _MAX_BANDS = 0.72, 0.6, 4


class _Problem:
    """What is minimised, in units of scores that make the objective about one: of all rows, or of a part of them.

    Losses of other rows are linear, where these are taken to be: of a gradient `tilt`, and a value `level` at zero.
    """

    def __init__(
        self,
        rows: Rows,
        bounds: tuple[np.ndarray, np.ndarray],
        costs: tuple[float, float],
        weight: np.ndarray,
        rho: np.ndarray,
        tilt: np.ndarray | float = 0.0,
        level: float = 0.0,
    ):
        self.rows, (self.lo, self.hi), (self.up, self.down), self.weight, self.rho = rows, bounds, costs, weight, rho
        self.meet, self.tilt, self.level = bounds[0] is bounds[1], tilt, level

    def part(self, index: np.ndarray, slope: np.ndarray) -> _Problem:
        """Take some rows; others have a slope."""
        hi = self.hi.take(index)
        bounds, linear = (hi if self.meet else self.lo.take(index), hi), slope * self.weight
        level = -float(linear @ np.where(slope > 0, self.hi, self.lo))
        costs, weight = (self.up, self.down), self.weight.take(index)
        return _Problem(self.rows.select(index), bounds, costs, weight, self.rho, linear @ self.rows.Z, level)

    def certify(self, params: np.ndarray, slope: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Compute the objective, how far it is above the dual's of some slopes of rows, and the scores."""
        scores = self.rows.Z @ params
        beyond, below = scores - self.hi, self.lo - scores
        positive = np.maximum(slope, 0)
        each = positive * beyond + (positive - slope) * below
        loss = self.down * np.maximum(beyond, 0) + self.up * np.maximum(below, 0)
        held, gradient = self.rho * params, (self.weight * slope) @ self.rows.Z
        value = float(loss @ self.weight) + 0.5 * float(held @ params)
        above = float((loss - each) @ self.weight)
        gradient += held
        free = self.rho == 0
        if free.any():
            reach = max(2 * float(np.abs(params).max()), 1.0)
            above += reach * float(np.abs(gradient[free]).sum())
            gradient[free] = 0
        above += 0.5 * float(gradient @ (gradient / np.where(free, 1.0, self.rho)))
        above -= 4 * _EPS * (self.up + self.down) * float(np.abs(self.hi) @ self.weight)
        return value, max(above, 0.0), scores

    def settle(self, kink: np.ndarray, is_upper: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Solve for parameters and slopes, as if it were clear which rows are at their kinks; None where it is not.

        Parameters
        ----------
        kink : ndarray of bool of shape (n,)
            Rows at their kinks: there, scores are known and slopes are not.
        is_upper : ndarray of bool of shape (n,)
            Whether these kinks are upper bounds.
        slope : ndarray of shape (n,)
            Of all other rows.
        """
        Z, D, lo, hi, is_dual = self.rows.Z, len(self.rho), self.lo, self.hi, False
        for _ in range(_MAX_EXCHANGES):
            at = kink.nonzero()[0]
            m = len(at)
            if m > D + 1:
                return None
            upper, rows, fixed = is_upper.take(at), Z.take(at, 0), slope * self.weight
            fixed[at] = 0.0
            matrix, right = np.zeros((D + m, D + m)), np.empty(D + m)
            diagonal = matrix.reshape(-1)[:: D + m + 1]
            diagonal[:D], diagonal[D:] = self.rho, 0.0 if m <= D else -_SOFT
            matrix[D:, :D], matrix[:D, D:] = rows, rows.T
            np.subtract(-self.tilt, fixed.dot(Z), out=right[:D])
            right[D:] = np.where(upper, hi.take(at), lo.take(at))
            _, _, found, fault = dgesv(matrix.T, right, overwrite_a=1, overwrite_b=1)
            if fault:
                return None
            params, new = found[:D], found[D:] / self.weight.take(at)
            least, most = np.where(upper, -self.up if self.meet else 0.0, -self.up), np.where(upper, self.down, 0.0)
            within = np.minimum(np.maximum(new, least), most)
            left = (np.abs(new - within) > _ROUNDING).nonzero()[0]
            if len(left):
                if is_dual:  # as far as the first goes
                    old = slope.take(at)
                    way = (within[left] - old[left]) / (new[left] - old[left])
                    first = way.argmin()
                    slope[at], left = old + way[first] * (new - old), left[first : first + 1]
                elif len(left) > _FEW:
                    return None
                slope[at[left]] = within[left]
                kink[at[left]] = False
                continue
            slope[at], is_dual = within, True
            scores = Z @ params
            above, below = scores - hi, lo - scores
            wrong = np.where(slope > 0, -above, np.where(slope < 0, -below, np.maximum(above, below)))
            wrong[at] = 0.0
            worst = wrong.argmax()
            if wrong[worst] <= _ROUNDING:
                return params, slope
            if not 0 < np.count_nonzero(wrong > _ROUNDING) <= _FEW:
                return None
            kink[worst] = True
            is_upper[worst] = self.meet or slope[worst] > 0 or (slope[worst] == 0 and above[worst] > 0)
        return None

    def resume(self, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Solve for parameters and slopes, from what a part has found: slopes of kinks are in between."""
        kink = (slope != self.down) & (slope != -self.up)
        if not self.meet:
            kink &= slope != 0
        return self.settle(kink, (slope > 0) | self.meet, slope)


class _System:
    """Hinges of rows: of one side each, or of both; and what is linear in the parameters.

    Where bounds meet, rows have a hinge and a slope. Where they are far apart, rows are taken to be on the side that
    `above` says; else both of their hinges are here, one after the other.
    """

    n_scores, lean, give = 1, None, None

    def __init__(self, problem: _Problem, above: np.ndarray | None):
        lo, hi, up, down, weight = problem.lo, problem.hi, problem.up, problem.down, problem.weight
        self.problem, self.above, self.rows, self.n = problem, above, problem.rows, len(weight)
        self.both, self.level = not problem.meet and above is None, problem.level
        self.tilt = np.zeros(len(problem.rho)) + problem.tilt
        self.share = np.float64(1.0) if (weight == weight[0]).all() else weight.mean() / weight
        if self.both:
            self.at_zero, self.weight = np.concatenate([-hi, lo]), np.concatenate([weight * down, weight * up])
            if self.share.ndim:
                self.share = np.concatenate([self.share, self.share])
        elif above is None:
            self.at_zero, self.weight = -hi, weight * (up + down)
            self.level += up * float(weight.dot(hi))
            self.tilt -= up * weight.dot(self.rows.Z)
        else:
            self.rows = Rows(self.rows.Z * np.where(above, 1.0, -1.0)[:, None])  # whose scores are the margins
            self.at_zero, self.weight = np.where(above, -hi, lo), weight * np.where(above, down, up)
        self.Z = self.rows.Z
        self.tried = np.zeros(0)

    def changes(self, params: np.ndarray) -> np.ndarray:
        """Compute how margins (T,) change with parameters (D,)."""
        scores = self.Z.dot(params)
        return np.concatenate([scores, -scores]) if self.both else scores

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the parameters (D,) from the hinges' in the margins (T,)."""
        if self.both:
            slope = slope[: self.n] - slope[self.n :]
        found = slope.dot(self.Z)
        found += self.tilt
        return found

    def hessians(self, second: np.ndarray) -> np.ndarray:
        """Compute second derivatives in the parameters (D, D), of those in the margins (T,)."""
        second = second[: self.n] + second[self.n :] if self.both else second
        if self.Z.size <= _FEW_VALUES:
            return (self.Z.T * second) @ self.Z
        return self.rows.gram(second[None])[0]

    def loss(self, margin: np.ndarray, params: np.ndarray) -> float:
        """Compute the objective without the ridge."""
        return np.maximum(margin, 0.0).dot(self.weight) + self.level + self.tilt.dot(params)

    def slopes(self, dual: np.ndarray) -> np.ndarray:
        """Compute the slopes of rows' losses from duals (T,)."""
        up, down = self.problem.up, self.problem.down
        if self.both:
            return down * dual[: self.n] - up * dual[self.n :]
        return (up + down) * dual - up if self.above is None else np.where(self.above, down, -up) * dual

    def settle(self, up: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Solve for the end that relative changes of duals (2, T) lead to; None where it is not clear."""
        least, D = np.minimum(up[0], up[1]), len(self.tilt)
        kink = least > -0.5
        many = np.count_nonzero(kink) - D
        if many > _FEW or 2 * np.count_nonzero(np.abs(least + 0.5) < _VAGUE) > D:
            return None
        if many > 0:  # equations have room for so many
            kink = least > np.partition(least, -D - 1)[-D - 1]
        slope = self.slopes((up[0] > up[1]).astype(float))
        is_upper = np.ones_like(kink) if self.above is None else self.above.copy()
        if self.both:
            is_upper, lower = kink[: self.n], kink[self.n :]
            kink = is_upper | lower
        slope[kink] = np.inf  # which is known later
        if np.array_equal(slope, self.tried):
            return None
        self.tried = slope.copy()
        return self.problem.settle(kink, is_upper, slope)


class _One(Batch):
    """Hinges of one system on their way to the optimum; `end` has parameters and slopes of rows."""

    centre, max_starts = 0.2, 1

    def __init__(self, system: Any, rho: np.ndarray, goal: float, least_value: float):
        self.end: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(system, system.weight, rho, np.float64(goal), np.float64(least_value))

    def reduced(self, ufunc: np.ufunc, values: np.ndarray) -> Any:
        """Reduce values (2, T) to one."""
        return ufunc.reduce(values, None)

    def each(self, values: Any) -> Any:
        """Lay out a number along the terms."""
        return values

    def factors(self, second: np.ndarray) -> Any:
        """Factorise the second derivatives in the parameters."""
        hessian = self.terms.hessians(second)
        hessian.reshape(-1)[:: len(hessian) + 1] += self.rho
        found, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
        if fault:
            raise np.linalg.LinAlgError("Rounding leaves no factors.")
        return found

    def solved(self, factors: Any, right: np.ndarray) -> np.ndarray:
        """Solve the system by its factor."""
        return dpotrs(factors, right, lower=1)[0]

    def is_clear(self, up: np.ndarray, left: Any) -> bool:
        """Tell whether a trial's relative changes of duals say where the end is."""
        if left + self.stationary + self.loose < _CLOSE * self.size:
            self.end = self.terms.settle(up)
        return self.end is not None

    def centres(self, left: Any, after: Any) -> Any:
        """Choose which products to aim at, by how much is left of them now, and after a trial."""
        is_slow, self.before = left > SLOW * self.before, left
        return centre(left, after, self.count, is_slow)

    def lengths(self, of_primal: Any, of_dual: Any, share: float) -> tuple[Any, Any]:
        """Compute how long a step is, at most 1, that goes a share of the way to the nearest bound."""
        way = share / max(of_primal, of_dual, share)
        return way, way

    def halted(self, of_primal: Any, of_dual: Any, parts: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
        """End where a step has no length."""
        self.ended = not of_primal > 0
        return of_primal, of_dual

    def total(self, products: np.ndarray, factors: np.ndarray) -> Any:
        """Add up products (2, T) times factors."""
        return np.vdot(products, factors)

    def find(self, max_iter: int) -> list[float]:
        """Step to the `end`, which is left out where it is not found; return objectives by step."""
        curve: list[float] = []
        self.before = np.inf
        self.ended = bool(self.loose > MUCH * self.centre * self.count)  # nothing holds these rows
        while self.end is None and not self.ended and len(curve) < max_iter:
            margin = self.slack[1] - self.slack[0]
            pulled = self.rho * self.params
            primal = self.terms.loss(margin, self.params) + 0.5 * pulled.dot(self.params)
            products = self.dual * self.slack
            products *= self.weight
            left = np.add.reduce(products, None)
            self.size = max(primal, self.least_value)
            if not left + self.stationary + self.loose > self.goal * self.size:
                self.end = self.params, self.terms.slopes(self.dual[0])
                break
            curve.append(primal)
            self.step(margin, pulled, products, left)
        return curve


def suits(rows: Rows, weight: np.ndarray | None, rho: np.ndarray, kappa: np.ndarray) -> bool:
    """Tell whether a problem is one system of those that are solved here; without a weight, whether each model is."""
    is_one = weight is None or (len(weight) == 1 and bool(weight.all()))
    return (
        is_one and type(rows) is Rows and rows.shape[0] > rows.shape[1] and not kappa.any() and bool(rho.any(1).all())
    )


def solve(
    rows: Rows,
    lo: np.ndarray,
    hi: np.ndarray,
    up: float,
    down: float,
    weight: np.ndarray,
    rho: np.ndarray,
    gap: float,
    max_iter: int,
) -> Solution | None:
    """Minimise a loss with kinks and a ridge; see `skdeep.exact.piecewise.solve`, of whose arguments these are one's.

    None where the gap is not reached.
    """
    if np.array_equal(lo, hi):
        lo = hi
    middle = hi if lo is hi else 0.5 * (lo + hi)
    errors = _least_squares(rows, middle, weight, rho)
    if errors is None:
        return None
    apart, size = 0.5 * float((hi - lo) @ weight), float(np.abs(errors) @ weight)
    unit = size / (up + down) + apart
    if not 0 < unit < np.inf:
        return None
    scaled = hi / unit
    problem = _Problem(rows, (scaled if lo is hi else lo / unit, scaled), (up, down), weight, rho * unit)
    at_zero = up * np.maximum(problem.lo, 0.0) + down * np.maximum(-scaled, 0.0)
    smallest = max(_SMALLEST * float(weight.dot(at_zero)), _TINY)
    errors /= unit
    # where bounds are apart, few rows pass from one side to the other
    parts = _parts(problem, errors, apart > _APART * size)
    for part, above, index, slope in parts:
        try:
            one = _One(_System(part, above), problem.rho, 0.5 * gap, smallest)
            curve = one.find(min(max_iter, _MAX_STEPS))
        except np.linalg.LinAlgError:
            continue
        end = one.end
        if end is not None and index is not None:
            slope[index] = end[1]
            end = end[0], slope
        for _ in range(2):
            if end is None:
                break
            value, above_least, scores = problem.certify(*end)
            reached = above_least / max(value, smallest)
            if reached <= gap:
                curves, done = [[unit * own for own in [*curve, value]]], np.array([True])
                return Solution(unit * end[0][None, None], np.array([unit * value]), np.array([reached]), curves, done)
            np.subtract(scores, 0.5 * (problem.lo + problem.hi), out=errors)
            end = problem.resume(slope) if index is not None else None
    return None


def _parts(problem: _Problem, errors: np.ndarray, is_apart: bool) -> Iterator[tuple]:
    """Choose rows whose errors, of least squares first, are near kinks; and all rows in the end.

    The loss of others is linear, which is no more than it is; those that turn out to be on another side come in, where
    `errors` are of what was found. Rows near kinks suffice by far, as their number grows by the power of two thirds
    (Portnoy & Koenker 1997). Where bounds are apart, each row is on one side, and changes it between parts.

    Yields
    ------
    part : _Problem
    above : ndarray of bool, or None
        Sides of its rows, where they have one.
    index : ndarray or None
        Which rows these are, if not all.
    slope : ndarray of shape (n,)
        Of the losses of all others.
    """
    (n, D), up, down = problem.rows.shape, problem.up, problem.down
    many, above = int(_BAND * (n * D) ** (2 / 3)), errors > 0
    sides = above
    if up == down and many <= _SHARE * n:
        half = 0.5 * (problem.hi - problem.lo)
        away = np.abs(errors) - half
        near = np.abs(away)
        near = near <= np.partition(near, many)[many]
        for _ in range(_MAX_BANDS):
            slope = np.where(above, down, -up)
            slope[near | (away < 0)] = 0.0
            before, index = errors.copy(), near.nonzero()[0]
            yield problem.part(index, slope), above[index] if is_apart else None, index, slope
            outside = np.abs(errors) > half
            passed = outside & (errors * before < 0)
            wrong = ~near & ((outside != (away > 0)) | passed)
            if not (wrong.any() or (is_apart and passed.any())):
                break
            near |= wrong
            np.copyto(errors, before, where=~passed)
            above = errors > 0
    if is_apart:
        yield problem, sides, None, None
    yield problem, None, None, None


def _least_squares(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> np.ndarray | None:
    """Compute the errors of least squares with a ridge that is to squares what `rho` is to their roots."""
    right = weight * target
    size = weight.dot(np.abs(target - right.sum()))
    hessian, right = rows.gram(weight[None])[0], right.dot(rows.Z)
    hessian.reshape(-1)[:: len(rho) + 1] += size * rho
    factor, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
    if fault:
        return None
    errors = rows.Z @ dpotrs(factor, right, lower=1)[0]
    errors -= target
    return errors
