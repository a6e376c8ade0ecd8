"""Hinges of one model at a time: losses with kinks, and few rows are near theirs (`skdeep.exact.interior_one`).

Of one score, a row has one hinge. Of several, where rows are few, all their terms are such rows.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.descent import summed
from skdeep.exact.hinge_interior import Rivals, has_few_terms
from skdeep.exact.hinge_multipliers import Solution
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.interior_one import End, Violations
from skdeep.exact.normal import distinct
from skdeep.exact.rows import Rows

#: Rows up to which a stack of models is solved together: there, calls cost more than what they compute.
_FEW_ROWS = 1500


def solve(
    rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray, goal: np.ndarray, max_iter: int
) -> tuple[Solution, np.ndarray]:
    """Minimise hinges of K models, and say which ones are left (K,), if any; see `skdeep.exact.hinge.solve`."""
    (K, n), C, D = weight.shape, loss.n_scores, rows.shape[1]
    found = Solution.blank(K, C, D, n)
    if not suits(rows, loss, K):
        return found, np.arange(K)
    first, number = distinct(weight)
    for which, model in enumerate(first):
        used = np.flatnonzero(weight[model])
        if len(used) == n:
            systems = _Systems(rows, loss, weight[model])
        else:
            systems = _Systems(rows.select(used), loss.select_rows(used), weight[model, used])
        models, ends = np.flatnonzero(np.equal(number, which)), None
        for k in models[np.argsort(-rho[models].max(1), kind="stable")]:  # each from where the last one ended
            ends = systems.solve(rho[k], float(goal[k]), max_iter, ends) if rho[k].any() else None
            if ends is None:
                continue
            found.params[k], duals = systems.joined(ends)
            found.duals[k][:, used] = duals
            found.value[k], above = sum(end.value for end in ends), sum(end.above for end in ends)
            found.gap[k], found.converged[k] = above / found.value[k] if above else 0.0, True
            found.curve[k] = summed([end.curve for end in ends])
    return found, np.flatnonzero(~found.converged)


def suits(rows: Rows, loss: Hinges | WestonWatkins, K: int) -> bool:
    """Tell whether one model at a time is cheaper than a stack of K."""
    if type(rows) is not Rows or isinstance(loss, CrammerSinger):
        return False
    if isinstance(loss, WestonWatkins):
        return K == 1 and has_few_terms(rows, loss)
    return K == 1 or rows.shape[0] > _FEW_ROWS


class _Systems:
    """What is solved apart: columns of scores, or all terms of rows together."""

    def __init__(self, rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray):
        self.rivals = None
        if isinstance(loss, WestonWatkins):
            self.rivals = Rivals(rows, loss)
            self.each = [Violations(Rows(self.rivals.of_terms), self.rivals.of_rows(weight[None])[0])]
        else:
            self.each = [Violations(Rows(rows.Z * -sign[:, None]), weight) for sign in loss.sign]

    def solve(self, rho: np.ndarray, goal: float, max_iter: int, before: list[End] | None) -> list[End] | None:
        """Minimise each, from ends for another penalty, if any; None where one is not done."""
        rho = rho if self.rivals is None else np.tile(rho, self.rivals.n_scores)
        ends: list[End] = []
        for c, one in enumerate(self.each):
            end = one.find(rho, goal, max_iter, None if before is None else before[c].params)
            if end is None:
                return None
            ends.append(end)
        return ends

    def joined(self, ends: list[End]) -> tuple[np.ndarray, np.ndarray]:
        """Put together parameters (C, D) and duals (C, n)."""
        params, duals = np.array([end.params for end in ends]), np.array([end.slope for end in ends])
        return (params, duals) if self.rivals is None else (self.rivals.params(params)[0], self.rivals.duals(duals)[0])
