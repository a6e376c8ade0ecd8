r"""Rows of one model of a loss with kinks: those that matter, the equations of the optimum, and its proof.

Of most rows, the loss is linear near the optimum. Few are near kinks, and of those, as many as there are parameters are
at them: which these are is all that is to be found (`KinkedRows.settle`).

S. Portnoy, R. Koenker, *The Gaussian hare and the Laplacian tortoise*, Statistical Science 12, 1997.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg.lapack import dgesv, dpotrf, dpotrs

from skdeep.exact.kinked_terms import above_by_parameters
from skdeep.exact.rows import Rows

_EPS, _TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)
#: How often rows go to their kinks or leave them, how many there may be to do so, what rounding may be, and how much
#: kinks give way that are too many.
_MAX_EXCHANGES, FEW, _ROUNDING, _SOFT = 12, 10, 1e-10, 1e-12
#: Rows near kinks that are looked at first, in units of two thirds' power, and at most, as a part of all; and how often
#: others come in.
_BAND, _SHARE, _MAX_BANDS = 0.72, 0.6, 4
#: Steps towards the optimum before these rows are chosen: how many, how many times fewer rows the next one knows of, at
#: least so many for each parameter; and rows that say how far so many others are.
_MAX_APPROACHES, _FEWER, _FEWEST, _SAMPLE = 4, 4, 8, 2048


class KinkedRows:
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

    def part(self, index: np.ndarray, slope: np.ndarray) -> KinkedRows:
        """Take some rows; others have a slope."""
        hi = self.hi.take(index)
        bounds, linear = (hi if self.meet else self.lo.take(index), hi), slope * self.weight
        level = -float(linear @ np.where(slope > 0, self.hi, self.lo))
        costs, weight = (self.up, self.down), self.weight.take(index)
        return KinkedRows(self.rows.select(index), bounds, costs, weight, self.rho, linear @ self.rows.Z, level)

    def certify(self, params: np.ndarray, slope: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Compute the objective, how far it is above the dual's of some slopes of rows, and the scores."""
        scores = self.rows.Z @ params
        beyond, below = scores - self.hi, self.lo - scores
        positive = np.maximum(slope, 0)
        each = positive * beyond + (positive - slope) * below
        loss = self.down * np.maximum(beyond, 0) + self.up * np.maximum(below, 0)
        value = float(loss @ self.weight) + 0.5 * float((self.rho * params) @ params)
        above = float((loss - each) @ self.weight)
        above += float(above_by_parameters((self.weight * slope) @ self.rows.Z, params, self.rho))
        above -= 4 * _EPS * (self.up + self.down) * float(np.abs(self.hi) @ self.weight)
        return value, max(above, 0.0), scores

    def settle(self, kink: np.ndarray, is_upper: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Solve for parameters and slopes, as if it were clear which rows are at their kinks; None where it is not.

        Of rows at a `kink` (n,), scores are known and slopes are not; `is_upper` says whether it is the upper bound.
        The `slope` (n,) is of all other rows.
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
                elif len(left) > FEW:
                    return None
                slope[at[left]] = within[left]
                kink[at[left]] = False
                continue
            slope[at], is_dual = within, True
            scores = Z @ params
            above, below = scores - hi, lo - scores
            outside = np.maximum(above, below) if self.up else above  # where no slope is
            wrong = np.where(slope > 0, -above, np.where(slope < 0, -below, outside))
            wrong[at] = 0.0
            worst = wrong.argmax()
            if wrong[worst] <= _ROUNDING:
                return params, slope
            if not 0 < np.count_nonzero(wrong > _ROUNDING) <= FEW:
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


def near_kinks(n: int, D: int) -> int:
    """Estimate how many rows are to be looked at first; zero where all are, since these would be most."""
    many = int(_BAND * (n * D) ** (2 / 3))
    return many if many <= _SHARE * n else 0


def parts_of(problem: KinkedRows, params: np.ndarray, errors: np.ndarray, is_apart: bool) -> Iterator[tuple]:
    """Choose rows that are near kinks, from where least squares are; and all rows in the end.

    The loss of others is linear, which is no more than it is; those that turn out to be on another side come in, where
    `errors` are of what was found. Rows near kinks suffice by far, as their number grows by the power of two thirds
    (Portnoy & Koenker 1997), and fewer do after some steps (`_approach`). Where bounds are apart, each row is on one
    side, and changes it between parts.

    Yielded are the part; the sides of its rows (`above`), where they have one; which rows these are, if not all; the
    slopes (n,) of the losses of all others; and how far from their kinks rows are.
    """
    n, D = problem.rows.shape
    many, sides = near_kinks(n, D), errors > 0
    if many:
        half = 0.5 * (problem.hi - problem.lo)
        many = _approach(problem, params, errors, half, many)
        above, away = errors > 0, np.abs(errors) - half
        near = np.abs(away)
        radius = _nearest(near, many)
        near, has_sides = near <= radius, is_apart or radius < float(half.min())
        for _ in range(_MAX_BANDS):
            slope = np.where(above, problem.down, -problem.up)
            slope[near | (away < 0)] = 0.0
            before, index = errors.copy(), near.nonzero()[0]
            yield problem.part(index, slope), above[index] if has_sides else None, index, slope, radius
            if np.array_equal(errors, before):  # of this part, nothing was found: more rows tell more
                many *= _FEWER
                if many > _SHARE * n:
                    break
                radius = _nearest(np.abs(away), many)
                near = np.abs(away) <= radius
                continue
            outside = np.abs(errors) > half
            passed = outside & (errors * before < 0)
            wrong = ~near & ((outside != (away > 0)) | passed)
            if not (wrong.any() or (has_sides and passed.any())):
                break
            near |= wrong
            np.copyto(errors, before, where=~passed)
            above = errors > 0
    if is_apart:
        yield problem, sides, None, None, 1.0
    yield problem, None, None, None, 1.0


def _approach(problem: KinkedRows, params: np.ndarray, errors: np.ndarray, half: np.ndarray, many: int) -> int:
    """Step towards the optimum; return how many rows there are to look at then, of `many`.

    Slopes of many rows add up nearly to an integral, whose derivative rows near kinks tell: these are Newton's steps.
    Where one ends among the rows that it knows of, the next knows of fewer.
    """
    Z, weight, fewest = problem.rows.Z, problem.weight, _FEWEST * len(params)
    for _ in range(_MAX_APPROACHES):
        if many <= 2 * fewest:
            break
        away = np.abs(errors) - half
        size = np.abs(away)
        radius = max(_nearest(size, many), _TINY)
        near = (size <= radius).nonzero()[0]
        slope = np.where(errors > 0, problem.down, -problem.up)
        bend = np.abs(slope.take(near))
        bend += (problem.up + problem.down - bend) * ((away + 2 * half).take(near) <= radius)  # of the other kink
        hessian = problem.rows.select(near).gram((bend * weight.take(near) / (2 * radius))[None])[0]
        hessian.reshape(-1)[:: len(params) + 1] += problem.rho
        slope *= weight
        slope *= away > 0
        factor, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
        if fault:
            break
        gradient = slope @ Z + problem.rho * params
        step = dpotrs(factor, gradient, lower=1)[0]
        change = Z @ step
        farthest = float(np.abs(change).max())
        if not farthest < np.inf:
            break
        if farthest <= radius:
            many = max(many // _FEWER, fewest)
        else:  # where the objective rises, as far as its slopes say that it falls
            left, value = errors - change, np.abs(slope) @ away + 0.5 * (problem.rho * params) @ params
            slope = np.where(left > half, problem.down, np.where(left < -half, -problem.up, 0.0)) * problem.weight
            pull = problem.rho * (params - step)
            if np.abs(slope) @ (np.abs(left) - half) + 0.5 * pull @ (params - step) > value:
                share = 1 / (1 - (slope @ change + pull @ step) / (gradient @ step))
                step *= share
                change *= share
        params -= step
        errors -= change
    return many


def _nearest(size: np.ndarray, many: int) -> float:
    """Find how large so many of the smallest are: nearly, by some of very many."""
    stride = max(1, len(size) // _SAMPLE)
    return float(np.partition(size[::stride], many // stride)[many // stride])
