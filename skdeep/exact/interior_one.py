r"""The interior point of `skdeep.exact.interior` for one small system, with an end that is exact.

This is for what a plain fit asks: losses of values with kinks (`Alike`) or hinges (`Violations`), a ridge on all
parameters but free ones, no L1 norm, every row of some weight. Few rows are near kinks, and their hinges step to the
optimum; losses of others are linear. Long before the gap is small, a step tries to go all the way, and says which rows
are at their kinks: duals of others lose most of what they have (El-Bakry, Tapia & Zhang 1994). Equations of all rows
say the rest (`KinkedRows.settle`). What is found is proven by a duality gap of all rows; where it is not, others are
asked.

A. El-Bakry, R. Tapia, Y. Zhang, *A study of indicators for identifying zero variables in interior-point methods*,
SIAM Review 36, 1994.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.elastic_net import SMALLEST, Solution
from skdeep.exact.interior import SLOW, Batch, centre
from skdeep.exact.kinked_rows import FEW, KinkedRows, parts_of
from skdeep.exact.rows import Rows

#: Most steps, and values of rows whose products are formed at once.
_MAX_STEPS, _FEW_VALUES = 30, 2**13
#: Half the distance of bounds, as a part of errors of least squares, from which few rows change sides.
APART = 0.25
#: Gap from which it may be clear which rows are at their kinks, and how near to a half what duals lose is vague.
_CLOSE, _VAGUE = 0.03, 0.2
#: How many times as long as least squares hinges may be.
_LENGTHS = 1.0, 2.0, 4.0, 8.0, 16.0
#: Values of rows, with so many more for each, from which on others are cheaper than many steps that lead nowhere. These
#: have a budget, of so many times the rows; a part is begun where its rows have enough left for so many steps.
_MANY_VALUES, _OF_ROW, _MAX_LOST, _STEPS = 2**15, 3, 3, 5
_TINY = float(np.finfo(float).tiny)


class _System:
    """Hinges of rows: of one side each, or of both; and what is linear in the parameters.

    Where bounds meet, rows have a hinge and a slope. Where they are far apart, rows are taken to be on the side that
    `above` says; else both of their hinges are here, one after the other.
    """

    n_scores, lean, give, creeps = 1, None, None, False

    def __init__(self, problem: KinkedRows, above: np.ndarray | None):
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

    def may_hold(self, free: np.ndarray | None) -> bool:
        """Tell whether duals may be such that nothing pulls parameters without a penalty."""
        if free is None:
            return True
        weight = self.weight[: self.n] + self.weight[self.n :] if self.both else self.weight
        room = 0.5 * weight.dot(np.abs(self.Z[:, free]))
        return bool((np.abs(self.back(0.5 * self.weight)[free]) <= room).all())

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
        if many > FEW or 2 * np.count_nonzero(np.abs(least + 0.5) < _VAGUE) > D:
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

    max_starts = 4

    def __init__(self, system: Any, rho: np.ndarray, goal: float, least_value: float, centre: float):
        self.centre = centre
        self.end: tuple[np.ndarray, np.ndarray] | None = None
        super().__init__(system, system.weight, rho, np.float64(goal), np.float64(least_value))

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

    def reduced(self, ufunc: np.ufunc, values: np.ndarray) -> Any:
        """Reduce values (2, T) to one."""
        return ufunc.reduce(values, None)

    def halted(self, of_primal: Any, of_dual: Any, parts: tuple[np.ndarray, ...]) -> tuple[Any, Any]:
        """End where a step has no length; what it leads to is not looked at."""
        self.ended = not (of_primal > 0 and of_dual > 0)
        return of_primal, of_dual

    def is_clear(self, up: np.ndarray, left: Any) -> bool:
        """Tell whether a trial's relative changes of duals say where the end is."""
        if left + self.stationary + self.loose < _CLOSE * self.size:
            self.end = self.terms.settle(up)
        return self.end is not None

    def centres(self, left: Any, after: Any) -> Any:
        """Choose which products to aim at, by how much is left of them now, and after a trial."""
        is_slow, self.before = left > SLOW * self.before, left
        return centre(left, after, self.count, is_slow)

    def find(self, max_iter: int) -> list[float]:
        """Step to the `end`, which is left out where it is not found; return objectives by step."""
        curve: list[float] = []
        self.before = np.inf
        self.ended = not self.terms.may_hold(self.free)
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


class End(NamedTuple):
    """What was found of a model."""

    params: np.ndarray  # (D,)
    slope: np.ndarray  # of the losses of rows, (n,)
    value: float
    above: float  # most that the value can be above its minimum
    curve: list[float]


class Alike:
    """Models of one loss with kinks, of the same rows and targets, which differ in their ridges.

    The arguments are as in `skdeep.exact.piecewise.solve`, for one model.
    """

    #: Most values of rows that are solved for at once, and most rows of steps that may lead nowhere.
    most_values = most_rows = float("inf")
    #: Products of slacks and duals to begin with, in units of how far from their kinks rows are.
    centre = 0.2

    def __init__(self, rows: Rows, lo: np.ndarray, hi: np.ndarray, up: float, down: float, weight: np.ndarray):
        lo = hi if np.array_equal(lo, hi) else lo
        self.rows, self.bounds, self.costs, self.weight = rows, (lo, hi), (up, down), weight
        self.middle = hi if lo is hi else 0.5 * (lo + hi)
        self.apart = 0.5 * float((hi - lo) @ weight)
        self.at_zero = float(weight.dot(up * np.maximum(lo, 0.0) + down * np.maximum(-hi, 0.0)))

    @cached_property
    def size(self) -> float:
        """How far targets are from their mean."""
        return float(self.weight.dot(np.abs(self.middle - self.weight.dot(self.middle))))

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute products of columns, with one another and with targets."""
        return self.rows.gram(self.weight[None])[0], (self.weight * self.middle).dot(self.rows.Z)

    def least_squares(self, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Compute parameters and errors of least squares with a ridge that is to squares as `rho` to their roots."""
        gram, right = self._moments
        hessian = gram.copy()
        hessian.reshape(-1)[:: len(rho) + 1] += self.size * rho
        factor, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
        if fault:
            return None
        params = dpotrs(factor, right, lower=1)[0]
        errors = self.rows.Z @ params
        errors -= self.middle
        return params, errors

    def parts(
        self, rho: np.ndarray, start: np.ndarray | None
    ) -> tuple[float, KinkedRows, Iterable[tuple], np.ndarray] | None:
        """Choose a unit of scores, and in it the problem, rows to look at (see `parts_of`), and errors."""
        begun = self.least_squares(rho)
        if begun is None:
            return None
        params, errors = begun
        size = float(np.abs(errors) @ self.weight)
        unit = size / sum(self.costs) + self.apart
        if not 0 < unit < np.inf:
            return None
        lo, hi = self.bounds
        scaled = hi / unit
        bounds = scaled if lo is hi else lo / unit, scaled
        problem = KinkedRows(self.rows, bounds, self.costs, self.weight, rho * unit)
        params /= unit
        errors /= unit
        # where bounds are apart, few rows pass from one side to the other
        return unit, problem, parts_of(problem, params, errors, self.apart > APART * size), errors

    def find(self, rho: np.ndarray, gap: float, max_iter: int, start: np.ndarray | None = None) -> End | None:
        """Minimise the loss with a ridge (D,); None where the gap is not reached.

        Parameters to begin with (D,) may be another ridge's.
        """
        begun = self.parts(rho, start)
        if begun is None:
            return None
        unit, problem, parts, errors = begun
        smallest, left = max(SMALLEST * self.at_zero / unit, _TINY), self.most_rows
        for part, above, index, slope, radius in parts:
            if part.rows.n_values > self.most_values or left < _STEPS * len(part.weight):
                break
            try:
                one = _One(_System(part, above), problem.rho, 0.5 * gap, smallest, self.centre * radius)
                curve = one.find(min(max_iter, _MAX_STEPS))
            except np.linalg.LinAlgError:
                continue
            end = one.end
            if end is None:
                left -= len(curve) * len(part.weight)
            if end is not None and index is not None:
                slope[index] = end[1]
                end = end[0], slope
            for _ in range(2):
                if end is None:
                    break
                value, above_least, scores = problem.certify(*end)
                if above_least <= gap * max(value, smallest):
                    curve = [unit * own for own in [*curve, value]]
                    return End(unit * end[0], end[1], unit * value, unit * above_least, curve)
                np.subtract(scores, 0.5 * (problem.lo + problem.hi), out=errors)
                end = problem.resume(slope) if index is not None else None
        return None

    def solve(self, rho: np.ndarray, gap: float, max_iter: int) -> Solution | None:
        """Minimise the loss with a ridge (D,), as one of the models of `skdeep.exact.piecewise`."""
        end = self.find(rho, gap, max_iter)
        if end is None:
            return None
        reached = end.above / max(end.value, SMALLEST * self.at_zero, _TINY)
        return Solution(
            end.params[None, None], np.array([end.value]), np.array([reached]), [end.curve], np.array([True])
        )


class Violations(Alike):
    """Models of hinges: what margins (n,), one at zero and linear in the parameters, are above zero."""

    most_values, centre, size = 2**18, 0.5, 1.0

    def __init__(self, rows: Rows, weight: np.ndarray):
        at = np.full(rows.shape[0], -1.0)
        super().__init__(rows, at, at, 0.0, 1.0, weight)
        self.is_whole = rows.n_values <= _FEW_VALUES  # of which all rows are looked at
        if rows.n_values + _OF_ROW * len(at) > _MANY_VALUES:
            self.most_rows = _MAX_LOST * len(at)

    def parts(
        self, rho: np.ndarray, start: np.ndarray | None
    ) -> tuple[float, KinkedRows, Iterable[tuple], np.ndarray] | None:
        """Choose rows to look at, from least squares or a start, so many times as long that hinges are least."""
        problem = KinkedRows(self.rows, self.bounds, self.costs, self.weight, rho)
        if self.is_whole:
            return 1.0, problem, [(problem, None, None, None, 1.0)], np.ones(self.rows.shape[0])
        begun = self.least_squares(rho) if start is None else (start.copy(), self.rows.Z @ start + 1)
        if begun is None:
            return None
        params, errors = begun
        change, ridge = errors - 1, 0.5 * (rho * params).dot(params)
        values = [np.maximum(1 + own * change, 0).dot(self.weight) + own * own * ridge for own in _LENGTHS]
        length = _LENGTHS[int(np.argmin(values))]
        params *= length
        errors = 1 + length * change
        return 1.0, problem, parts_of(problem, params, errors, False), errors
