r"""Quadratic functions with an L1 norm, of rows by which the curvature is known: conjugate gradients on kept signs.

Minimise over u, as `skdeep.exact.quadratic` does, where the curvature is ``Z' S Z`` and a ridge, and a product with it
two passes over the rows. Each round first takes a proximal step, in which each coordinate has its own curvature, as
far as leads lowest: what should leave zero does. Then conjugate gradients move what is not zero with its signs kept,
until more than a few coordinates pass zero, which stop there. Both lead down, so that rounds may end at any time.

Dostál, *Optimal Quadratic Programming Algorithms*, 2009, chapter 5: phases of this kind with bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from skdeep.exact.quadratic import FIRST, Quadratic, cut
from skdeep.exact.rows import Rows

#: Rounds, and steps of conjugate gradients in each, at most.
_MAX_ROUNDS, _MAX_STEPS = 40, 300
#: How far residuals fall in a round, and the share of coordinates that may pass zero in it.
_FALL, _CROSSING = 0.1, 0.02

#: Halvings of a step after which what passes zero stops the rest.
_MAX_HALVINGS = 6


class Curvature(NamedTuple):
    """Second derivatives along coordinates (C, D)."""

    rows: Rows
    second: Callable[[np.ndarray], np.ndarray]  # multiplies scores (C, n) by the loss's, with the weights of rows
    ridge: np.ndarray  # what is added to the diagonal, (C, D)
    diagonal: np.ndarray  # with that, (C, D)

    def narrow(self, columns: np.ndarray) -> Curvature:
        """Take some columns."""
        return Curvature(self.rows.narrow(columns), self.second, self.ridge[:, columns], self.diagonal[:, columns])

    def pull(self, moved: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Compute the product with a step (C, D) that moves scores by `moved` (C, n)."""
        return self.rows.back(self.second(moved)) + self.ridge * step

    def along(self, moved: np.ndarray, step: np.ndarray) -> float:
        """Compute the curvature along a step."""
        return float(np.vdot(moved, self.second(moved)) + np.vdot(step, self.ridge * step))


def minimise(curvature: Curvature, problem: Quadratic) -> np.ndarray:
    """Find coordinates (C D,) whose subgradients are as short as they are to be, or as much lower as rounds lead."""
    shape = curvature.diagonal.shape
    u, slope, kappa = (part.reshape(shape).copy() for part in (problem.x, problem.gradient, problem.kappa))
    has_shift = np.zeros(shape[1], dtype=bool) if problem.family is None else problem.family[: shape[1]] >= 0
    for _ in range(_MAX_ROUNDS):
        is_held = (u == 0) & (kappa > 0)
        beyond = np.abs(slope) - kappa
        steepest = float(beyond.max(initial=0.0, where=is_held))
        left = np.abs(slope + kappa * np.sign(u)).max(initial=0.0, where=~is_held)
        if max(steepest, left) <= problem.tol:
            break
        inside = ~is_held | (beyond > max(FIRST * steepest, problem.tol))
        columns = np.flatnonzero(inside.any(0))
        part = curvature.narrow(columns)
        here = _Part(part, slope[:, columns], u[:, columns], kappa[:, columns], inside[:, columns])
        moved, end = here.descend(has_shift[columns], steepest > problem.tol)
        step = end - u[:, columns]
        if not step.any():
            break
        u[:, columns] = end
        slope += curvature.rows.back(curvature.second(moved))
        slope[:, columns] += part.ridge * step
    return u.ravel()


def shifted(params: np.ndarray, has_shift: np.ndarray) -> np.ndarray:
    """Shift parameters (C, D) of some columns so that not all classes' are other than zero: their norm is less then."""
    median = np.sort(params, axis=0)[(len(params) - 1) // 2]
    return params - np.where(has_shift & (params != 0).all(0), median, 0)


class _Part(NamedTuple):
    """Some columns, of which some coordinates may move, and where they are."""

    curvature: Curvature
    slope: np.ndarray
    x: np.ndarray
    kappa: np.ndarray
    inside: np.ndarray

    def descend(self, has_shift: np.ndarray, leaves: bool) -> tuple[np.ndarray, np.ndarray]:
        """Take a round; return how it moves scores (C, n), and its end.

        In columns that `has_shift` (D,) names, a common shift of all classes' parameters changes only the norm;
        `leaves` says whether coordinates should leave zero.
        """
        moved = np.zeros((len(self.x), self.curvature.rows.shape[0]))
        here = self
        if leaves:
            moved, end = self._proximal()
            slope = self.slope + self.curvature.pull(moved, end - self.x)
            here = self._replace(x=shifted(end, has_shift), slope=slope)
        further, end = here._with_signs()
        return moved + further, end

    def _proximal(self) -> tuple[np.ndarray, np.ndarray]:
        """Step to where each coordinate would go alone, as far as leads lowest."""
        curvature, slope, x, kappa, inside = self
        goal = curvature.diagonal * x - slope
        step = inside * (np.sign(goal) * np.maximum(np.abs(goal) - kappa, 0) / curvature.diagonal - x)
        moved, fall = curvature.rows.scores(step), self._fall(step)
        bend = curvature.along(moved, step)
        length = -fall / bend if bend > -fall else 1.0
        return length * moved, x + length * step

    def _fall(self, step: np.ndarray) -> float:
        """Compute what the function without its curvature changes by."""
        return float(np.vdot(self.slope, step) + np.vdot(self.kappa, np.abs(self.x + step) - np.abs(self.x)))

    def _with_signs(self) -> tuple[np.ndarray, np.ndarray]:
        """Take steps of conjugate gradients in what is not zero, and stop what passes zero."""
        curvature, slope, x, kappa, inside = self
        sign = np.sign(x)
        moves = inside & ((x != 0) | (kappa == 0))
        residual = -(slope + kappa * sign) * moves
        found, moved = np.zeros_like(x), np.zeros((len(x), curvature.rows.shape[0]))
        scaled = residual / curvature.diagonal
        direction, size = scaled, np.vdot(scaled, residual)
        enough, crossing = _FALL**2 * size, int(_CROSSING * np.count_nonzero(moves))
        for _ in range(_MAX_STEPS):
            along = curvature.rows.scores(direction)
            product = curvature.pull(along, direction) * moves
            bend = np.vdot(direction, product)
            if not bend > 0:
                break
            found += size / bend * direction
            moved += size / bend * along
            residual -= size / bend * product
            scaled = residual / curvature.diagonal
            size, before = np.vdot(scaled, residual), size
            if size <= enough or np.count_nonzero((x + found) * sign < 0) > crossing:
                break
            direction = scaled + size / before * direction
        for halving in range(_MAX_HALVINGS):
            end = x + 0.5**halving * found
            crosses = end * sign < 0
            end[crosses] = 0
            step = end - x
            if halving or crosses.any():
                moved = curvature.rows.scores(step)
            if self._fall(step) + 0.5 * curvature.along(moved, step) <= 0:
                return moved, end
        drop = float(np.vdot(found, -(slope + kappa * sign)))
        if not (drop > 0 and crosses.any()):  # what is left is rounding
            return np.zeros_like(moved), x
        step = cut(x.ravel(), found.ravel(), drop, kappa.ravel()).reshape(x.shape)
        return curvature.rows.scores(step), x + step
