"""Hinges of one model at a time: losses with kinks, and few rows are near theirs (`skdeep.exact.interior_one`).

Of one score, a row has one hinge. Of several, where rows are few, all their terms are such rows.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.hinge_interior import Rivals, has_few_terms
from skdeep.exact.hinge_multipliers import Solution
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.interior_one import End, Violations
from skdeep.exact.kinked_rows import near_kinks
from skdeep.exact.normal import distinct
from skdeep.exact.rows import Rows

#: How many times as strong a penalty is to be as one whose model was not found, for its model to be looked for.
_STRONGER = 2.0
#: How far from zero and one slopes of rows at their kinks are.
_CLEAR = 0.01
#: Rows up to which a stack of models, or of columns, is solved together: there, calls cost more than what they compute;
#: and values of rows from which others are cheaper where most rows would be looked at, or columns are so many.
_FEW_ROWS, _MANY_VALUES, _MANY_COLUMNS = 1500, 2**15, 64


def solve(
    rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray, goal: np.ndarray, max_iter: int
) -> tuple[Solution, np.ndarray]:
    """Minimise hinges of K models, and say which ones are left (K,), if any; see `skdeep.exact.hinge.solve`."""
    (K, n), C, D = weight.shape, loss.n_scores, rows.shape[1]
    found = Solution.blank(K, C, D, n)
    if not suits(rows, loss, K):
        return found, np.arange(K)
    done: dict[int, End] = {}
    given_up = 0.0
    first, number = distinct(weight)
    for which, model in enumerate(first):
        used = np.flatnonzero(weight[model])
        if len(used) == n:
            system = _System(rows, loss, weight[model])
        else:
            system = _System(rows.select(used), loss.select_rows(used), weight[model, used])
        models, before = np.flatnonzero(np.equal(number, which)), None
        for k in models[np.argsort(-rho[models].max(1), kind="stable")]:
            if rho[k].max() <= given_up:  # which leaves models without a penalty, too
                continue
            if before is None and done:
                before = done[min(done, key=lambda other: abs(np.log(rho[k].max() / rho[other].max())))]
            own_rho = system.tiled(rho[k])
            end = system.violations.find(own_rho, float(goal[k]), max_iter, before and before.params)
            if end is None or end.above > goal[k] * end.value:
                given_up = _STRONGER * rho[k].max()
                continue
            before = done[k] = end
            if not _is_settled(system.violations, own_rho, end.slope):
                continue  # an interval of intercepts is optimal, whose middle others find, by all rows
            found.params[k], found.duals[k][:, used] = system.params(end.params), system.duals(end.slope)
            found.value[k], found.gap[k] = end.value, end.above / end.value if end.above else 0.0
            found.converged[k], found.curve[k] = True, end.curve
    return found, np.flatnonzero(~found.converged)


def suits(rows: Rows, loss: Hinges | WestonWatkins, K: int) -> bool:
    """Tell whether one model at a time is cheaper than a stack of K."""
    if type(rows) is not Rows or isinstance(loss, CrammerSinger):
        return False
    if isinstance(loss, WestonWatkins):
        return K == 1 and has_few_terms(rows, loss)
    if loss.n_scores > 1 or (K > 1 and rows.shape[0] <= _FEW_ROWS):
        return False
    return rows.n_values <= _MANY_VALUES or _has_few_near(rows)


def are_apart(rows: Rows, loss: Hinges) -> bool:
    """Tell whether columns of scores are solved one after the other."""
    return type(rows) is Rows and loss.n_scores > 1 and rows.shape[0] > _FEW_ROWS and _has_few_near(rows)


def _has_few_near(rows: Rows) -> bool:
    return rows.shape[1] <= _MANY_COLUMNS and near_kinks(*rows.shape) > 0


def _is_settled(problem: Violations, rho: np.ndarray, slope: np.ndarray) -> bool:
    """Tell whether rows at their kinks hold all parameters without a penalty; their slopes are clearly in between."""
    at, free = np.abs(slope - 0.5) < 0.5 - _CLEAR, np.flatnonzero(rho == 0)
    held = problem.rows.Z[at][:, free]
    return problem.is_whole or (np.linalg.matrix_rank(held) if held.size else 0) == len(free)


class _System:
    """Rows whose margins are linear in the parameters: by their one score, or of all terms."""

    def __init__(self, rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray):
        self._rivals = None
        if isinstance(loss, WestonWatkins):
            self._rivals = Rivals(rows, loss)
            assert self._rivals.of_terms is not None
            self.violations = Violations(Rows(self._rivals.of_terms), self._rivals.of_rows(weight[None])[0])
        else:
            self.violations = Violations(Rows(rows.Z * -loss.sign.T), weight)

    def tiled(self, rho: np.ndarray) -> np.ndarray:
        """Repeat factors of the penalty (D,) for all parameters."""
        return rho if self._rivals is None else np.tile(rho, self._rivals.n_scores)

    def params(self, params: np.ndarray) -> np.ndarray:
        """Compute the parameters of scores, (C, D)."""
        return params if self._rivals is None else self._rivals.params(params[None])[0]

    def duals(self, slope: np.ndarray) -> np.ndarray:
        """Put slopes where the terms of scores (C, n) are."""
        return slope if self._rivals is None else self._rivals.duals(slope[None])[0]
