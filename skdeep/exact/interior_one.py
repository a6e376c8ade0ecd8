r"""The interior point of `skdeep.exact.interior` for one small system: the same steps, in a third of the calls.

Of a fit on some hundred rows, what NumPy's calls cost is most of its time. So this is for what a plain fit asks: losses
of values with kinks, a ridge on all parameters but free ones, no L1 norm, every row of some weight. Near the end, it is
mostly clear which rows are at their kinks, and equations say the rest: what is left of the gap is rounding. What it
finds is proven as there; where it is not found, the other is asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dgesv, dpotrf, dpotrs

from skdeep.exact.rows import Rows

#: See `skdeep.exact.interior`.
_CENTRE, _NEARLY, _SLOW, _FIRM, _POWER, _MAX_STEPS = 0.2, 0.995, 0.5, 0.1, 4, 30
#: Objectives below this part of what no parameters have count as zero.
_SMALLEST, _EPS, _TINY = 1e-7, float(np.finfo(float).eps), float(np.finfo(float).tiny)
#: Half the distance of bounds, as a part of errors of least squares, from which few rows change sides.
_APART = 0.25
#: Gradients to begin with, as a part of complementarity, that are too far to seek.
_MUCH = 5.0
#: Gap from which it may be clear which hinges are at their kinks, and what margins and duals may be beyond bounds by.
_CLOSE, _ROUNDING = 1e-3, 1e-10
#: Rows near kinks that are looked at first, in units of two thirds' power, and at most, as a part of all; and how often
#: others come in.
_BAND, _SHARE, _MAX_BANDS = 0.65, 0.6, 4
#: Which way the duals of both bounds change.
_SIGNS = np.array([[1.0], [-1.0]])


class Found(NamedTuple):
    """Parameters (D,), the objective, the relative duality gap, and objectives by step."""

    params: np.ndarray
    value: float
    gap: float
    curve: list[float]


class _System:
    """Hinges of all rows, and what falls with their margins: of one side each, or of both.

    Where bounds meet, that is a hinge and a slope. Where they are far apart, rows are taken to be on the side that
    `above` says; else both of their hinges are here, one after the other. Everything is in units of scores that make
    the objective about one.
    """

    def __init__(
        self,
        rows: Rows,
        bounds: tuple[np.ndarray, np.ndarray],
        costs: tuple[float, float],
        weight: np.ndarray,
        rho: np.ndarray,
        above: np.ndarray | None,
    ):
        (lo, hi), (up, down) = bounds, costs
        self.rows, self.n, self.rho = rows, len(weight), rho
        self.both, self.lean = lo is not hi and above is None, None
        if self.both:
            self.at_zero = np.concatenate([-hi, lo])
            self.weight = np.concatenate([weight * down, weight * up])
        elif above is not None:
            self.rows = Rows(rows.Z * np.where(above, 1.0, -1.0)[:, None])  # whose scores are the margins
            self.at_zero, self.weight = np.where(above, -hi, lo), weight * np.where(above, down, up)
        else:
            self.at_zero, self.weight, self.lean = -hi, weight * (up + down), weight * up
        self.Z = self.rows.Z
        self.pull = np.zeros(len(rho)) if self.lean is None else -(self.lean @ self.Z)
        self.slope: np.ndarray | None = None  # and value at zero, of what is linear beside these
        self.level = 0.0
        self.share = 1.0 if (weight == weight[0]).all() else weight.mean() / weight
        if self.both and type(self.share) is not float:
            self.share = np.concatenate([self.share, self.share])
        self.free = np.flatnonzero(rho == 0)
        #: Whether what is more than this is left out, and the scores of all rows at the end of it.
        self.is_part, self.scores = above is not None, np.zeros(0)

    def changes(self, params: np.ndarray) -> np.ndarray:
        """Compute how margins (T,) change with parameters (D,)."""
        scores = self.Z @ params
        return np.concatenate([scores, -scores]) if self.both else scores

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the parameters (D,) from the hinges' in the margins (T,)."""
        if self.both:
            slope = slope[: self.n] - slope[self.n :]
        found = slope @ self.Z
        found += self.pull
        return found

    def factor(self, second: np.ndarray) -> np.ndarray | None:
        """Factorise second derivatives in the parameters, of those in the margins (T,)."""
        second = second[: self.n] + second[self.n :] if self.both else second
        hessian = self.rows.gram(second[None])[0]
        hessian.reshape(-1)[:: len(hessian) + 1] += self.rho
        found, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
        return None if fault else found

    def loss(self, margin: np.ndarray, params: np.ndarray) -> float:
        """Compute the objective without the ridge."""
        found = float(np.maximum(margin, 0.0) @ self.weight)
        if self.lean is not None:
            found -= float(margin @ self.lean)
        return found if self.slope is None else found + self.level + float(self.slope @ params)

    def add(self, slope: np.ndarray, level: float) -> None:
        """Add a linear function of the parameters."""
        self.pull, self.slope, self.level = self.pull + slope, slope, level

    def certify(self, params: np.ndarray, dual: np.ndarray) -> tuple[float, float]:
        """Compute the objective, and how far it is above the dual's."""
        margin = self.changes(params)
        margin += self.at_zero
        held = self.rho * params
        value = self.loss(margin, params) + 0.5 * float(held @ params)
        positive = np.maximum(margin, 0.0)
        positive -= dual * margin
        above = float(positive @ self.weight)
        gradient = self.back(self.weight * dual)
        gradient += held
        if len(self.free):
            reach = max(2 * float(np.abs(params).max()), 1.0)
            above += reach * float(np.abs(gradient[self.free]).sum())
            gradient[self.free] = 0
        above += 0.5 * float(gradient @ (gradient / np.where(self.rho > 0, self.rho, 1.0)))
        return value, above


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
) -> Found | None:
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
    bounds = scaled if lo is hi else lo / unit, scaled
    problem = rows, bounds, (up, down), weight, rho * unit
    smallest = max(_SMALLEST * _value(*problem[1:], np.zeros(1), np.zeros(len(rho))), _TINY)
    # where bounds are apart, few rows pass from one side to the other
    is_apart = apart > _APART * size
    systems = (_System(*problem, above) for above in ((errors > 0, None) if is_apart else (None,)))
    for system in itertools.chain(_bands(problem, errors / unit, is_apart), systems):
        found = _run(system, 0.5 * gap, smallest, min(max_iter, _MAX_STEPS))
        if found is None:
            continue
        params, dual, curve = found
        value, above_least = system.certify(params, dual)
        if system.is_part:
            least, scores = value - above_least, rows.Z @ params
            value = _value(*problem[1:], scores, params)
            above_least = value - least
            system.scores = scores
        above_least = max(above_least - 4 * _EPS * float(np.abs(system.at_zero) @ system.weight), 0.0)
        reached = above_least / max(value, smallest)
        if reached <= gap:
            return Found(unit * params, unit * value, reached, [unit * own for own in [*curve, value]])
    return None


def _bands(problem: tuple, errors: np.ndarray, is_apart: bool) -> Iterator[_System]:
    """Make smaller systems of many rows: of those whose errors of least squares are near kinks.

    The loss of others is linear, which is no more than it is; those that turn out to be on another side come in. Rows
    near kinks suffice by far, as their number grows by the power of two thirds (Portnoy & Koenker 1997). Where bounds
    are apart, each row is on one side, and changes it between systems.
    """
    rows, (lo, hi), (up, down), weight, rho = problem
    n, D = rows.shape
    many = int(_BAND * (n * D) ** (2 / 3))
    if up != down or many > _SHARE * n:
        return
    half = 0.5 * (hi - lo)
    away = np.abs(errors) - half
    near = np.abs(away)
    near = near <= np.partition(near, many)[many]
    for _ in range(_MAX_BANDS):
        above = errors > 0
        slope = weight * np.where(above, down, -up)
        slope[near | (away < 0)] = 0.0
        index = near.nonzero()[0]
        within = hi[index]
        bounds = within if lo is hi else lo[index], within
        on_side = above[index] if is_apart else None
        system = _System(rows.select(index), bounds, (up, down), weight[index], rho, on_side)
        system.is_part = True
        system.add(slope @ rows.Z, -float(slope @ np.where(above, hi, lo)))
        yield system
        if not len(system.scores):
            return
        now = system.scores - 0.5 * (lo + hi)
        outside = np.abs(now) > half
        passed = outside & (now * errors < 0)
        wrong = ~near & ((outside != (away > 0)) | passed)
        if not (wrong.any() or (is_apart and passed.any())):
            return
        near |= wrong
        errors = np.where(passed, now, errors)


def _value(
    bounds: tuple[np.ndarray, np.ndarray],
    costs: tuple[float, float],
    weight: np.ndarray,
    rho: np.ndarray,
    scores: np.ndarray,
    params: np.ndarray,
) -> float:
    """Compute the objective."""
    (lo, hi), (up, down) = bounds, costs
    each = up * np.maximum(lo - scores, 0.0) + down * np.maximum(scores - hi, 0.0)
    return float(each @ weight) + 0.5 * float((rho * params) @ params)


def _least_squares(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> np.ndarray | None:
    """Compute the errors of least squares with the ridge."""
    hessian, right = rows.gram(weight[None])[0], (weight * target) @ rows.Z
    hessian.reshape(-1)[:: len(rho) + 1] += rho
    factor, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
    if fault:
        return None
    errors = rows.Z @ dpotrs(factor, right, lower=1)[0]
    errors -= target
    return errors


def _settled(system: _System, margin: np.ndarray, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Solve for the optimum, as if it were clear which hinges are at their kinks; None where it was not.

    Their duals are farther from bounds than their margins from zero: of no more than there are parameters, the
    farthest. All other duals are at a bound.
    """
    D, away, near = system.Z.shape[1], np.minimum(dual, 1 - dual), np.abs(margin)
    kink = (near < away).nonzero()[0]
    if len(kink) > D:
        kink = np.sort(kink[np.argsort(near[kink] / away[kink])[:D]])
    m = len(kink)
    bound = (dual > 0.5).astype(float)
    bound[kink] = 0.0
    Z = system.Z.take(kink % system.n, 0)
    if system.both:
        Z = Z * np.where(kink < system.n, 1.0, -1.0)[:, None]
    matrix, right = np.zeros((D + m, D + m)), np.empty(D + m)
    matrix.reshape(-1)[: D * (D + m) : D + m + 1] = system.rho
    matrix[D:, :D], matrix[:D, D:] = Z, Z.T
    right[:D], right[D:] = -system.back(bound * system.weight), -system.at_zero.take(kink)
    _, _, found, fault = dgesv(matrix.T, right, overwrite_a=1, overwrite_b=1)
    if fault:
        return None
    params, of_kinks = found[:D], found[D:] / system.weight.take(kink)
    margin = system.changes(params)
    margin += system.at_zero
    margin *= bound - 0.5  # below zero: on the wrong side
    margin[kink] = 0.0
    if m and not (-_ROUNDING <= of_kinks.min() and of_kinks.max() <= 1 + _ROUNDING):
        return None
    if not margin.min() >= -_ROUNDING:
        return None
    bound[kink] = of_kinks
    return params, bound


def _run(
    system: _System, goal: float, smallest: float, max_iter: int
) -> tuple[np.ndarray, np.ndarray, list[float]] | None:
    """Step until the gap is within the goal; return parameters, duals of the hinges, and objectives by step."""
    weight, share, rho = system.weight, system.share, system.rho
    count = 2 * (float(weight.sum()) if type(share) is float else float(weight @ share))
    each = _CENTRE * share
    second = weight / (8 * each)
    factor = system.factor(second)
    if factor is None:
        return None
    second *= system.at_zero
    second += 0.5 * weight
    params = -dpotrs(factor, system.back(second), lower=1)[0]
    half = system.changes(params)
    half += system.at_zero
    half /= 2 * each
    root = np.sqrt(half * half + 1)
    dual = np.empty((2, len(half)))
    np.subtract(1 + root, half, out=dual[0])
    np.add(1 + root, half, out=dual[1])
    np.divide(1.0, dual, out=dual)
    slack = each / dual
    gradient = system.back(dual[0] * weight)
    gradient += rho * params
    far = np.abs(gradient[system.free]).sum() * max(float(np.abs(params).max()), 1.0)
    if far > _MUCH * _CENTRE * count:
        return None
    loose = float(far + 0.5 * (gradient * gradient) @ np.where(rho > 0, 1 / np.where(rho > 0, rho, 1.0), 0.0))
    curve: list[float] = []
    before, slow = np.inf, 0
    while True:
        margin = slack[1] - slack[0]
        pulled = rho * params
        primal = system.loss(margin, params) + 0.5 * float(pulled @ params)
        products = dual * slack
        products *= weight
        left = float(products.sum())
        size = max(primal, smallest)
        if not left + loose > goal * size:
            return params, dual[0], curve
        if left + loose < _CLOSE * size:
            end = _settled(system, margin, dual[0])
            if end is not None:
                return *end, curve
        if len(curve) >= max_iter:
            return None
        curve.append(primal)
        inverse = _SIGNS / dual
        ratio = slack * inverse
        bend = ratio[0] - ratio[1]
        np.divide(1.0, bend, out=bend)
        weighted, held = bend * weight, dual[0] * weight
        factor = system.factor(weighted)
        if factor is None:
            return None
        # a trial, to no complementarity at all
        slope = weighted * margin
        slope += held
        right = system.back(slope)
        right += pulled
        change = system.changes(dpotrs(factor, right, lower=1)[0])
        np.subtract(margin, change, out=change)
        change *= bend
        up = change * inverse
        way = 1 / max(float(up.max()) + 1, -float(up.min()), 1.0)
        neglected = up + 1
        neglected *= up
        after = (1 - way) * left - way * way * float(np.vdot(products, neglected))
        slow = slow + 1 if left > _SLOW * before else 0
        part = min(max(after / left, 0.0), 1.0) ** _POWER
        before, centre = left, max(part, _FIRM if slow else 0.0) * left / count
        # the step: to products of `centre`, with what the trial has neglected
        neglected -= 1
        neglected *= slack
        neglected += (centre * share * _SIGNS) * inverse
        toward = neglected[0] - neglected[1]
        slope = weighted * toward
        slope += held
        right = system.back(slope)
        right += pulled
        move = dpotrs(factor, right, lower=1)[0]
        change = system.changes(move)
        np.subtract(toward, change, out=change)
        change *= bend
        ratio *= change
        neglected -= ratio
        inverse *= change
        way = _NEARLY / max(-float((neglected / slack).min()), -float(inverse.min()), _NEARLY)
        if not 0 < way:
            return None
        loose *= 1 - way
        params = params - way * move
        change *= way
        dual[0] += change
        dual[1] -= change
        neglected *= way
        slack += neglected
