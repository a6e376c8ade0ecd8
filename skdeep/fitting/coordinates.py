"""Stacks of rows that are fewer than their columns: solved in coordinates of the rows (`skdeep.exact.row_space`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from skdeep.engine.losses import Loss, SquaredError
from skdeep.engine.values import SquaredValues
from skdeep.exact.descent import Solution
from skdeep.exact.row_space import proportions, row_space
from skdeep.exact.rows import Rows

#: How many times as many values rows have as their products, at least; columns that are few enough as they are.
_WIDE, _MANY_COLUMNS = 2.0, 100
#: Rows at most, since their factor takes the time of many passes; and for each score, of losses whose steps are few.
_MAX_ROWS, _FEW_ROWS = 4096, 300
#: Rows up to which hinges are solved so in any case, if there are so many times as many columns.
_HINGES = 400


@dataclass
class Arrays:
    """What a stack of K models is solved from."""

    rows: Rows
    target: np.ndarray  # (n, ...)
    weight: np.ndarray  # (K or 1, n)
    rho: np.ndarray  # strengths of the ridge, (K, D) or (K, C, D)
    kappa: np.ndarray  # of the L1 norm
    start: np.ndarray  # (K, C, D)
    tol: np.ndarray  # (K,)
    alike: bool  # whether columns were brought to the same size
    spent: int = 0  # evaluations of the objectives on the way to the start

    def of(self, models: np.ndarray) -> Arrays:
        """Take some of the models."""
        per_model = {name: getattr(self, name)[models] for name in ("rho", "kappa", "start", "tol")}
        return replace(self, weight=self.weight if len(self.weight) == 1 else self.weight[models], **per_model)


#: Solves some of the models (indices), from arrays, in so many iterations.
Solver = Callable[[np.ndarray, Arrays, int], Solution]


def by_rows(loss: Loss, shape: tuple[int, int], n_values: float, n_scores: int) -> bool:
    """Tell whether rows (n, D) of some values are few enough for an optimum to be found in their coordinates."""
    n, D = shape
    if not loss.smooth and loss.target != "values" and n <= _HINGES and D > _WIDE * n:
        return True
    if D < _MANY_COLUMNS or isinstance(loss, SquaredValues | SquaredError):  # which have systems of rows
        return False
    most = min(_MAX_ROWS, _FEW_ROWS * n_scores) if loss.twice_smooth else _MAX_ROWS
    return n <= most and n_values >= _WIDE * n * n


def solve_by_rows(solver: Solver, arrays: Arrays, loss: Loss, max_iter: int, by_gradient: bool) -> Solution | None:
    """Solve a stack in coordinates of its rows; None where its columns are the better ones.

    What ends `by_gradient` goes on from there in the columns, whose gradients are to be small.
    """
    rows, n_scores = arrays.rows, arrays.start.shape[1]
    if arrays.kappa.any() or not by_rows(loss, rows.shape, rows.n_values, len(arrays.rho) * n_scores):
        return None
    # folds may have units of their own
    groups, solution = proportions(arrays.rho), Solution.begun(np.empty_like(arrays.start))
    if not by_rows(loss, rows.shape, rows.n_values, min(map(len, groups)) * n_scores):
        return None
    for models in groups:
        own = arrays.of(models)
        space = row_space(rows, own.rho)
        if space is None or not space.suffices(by_gradient):
            return None
        start = space.forth(own.start)
        kappa = np.zeros_like(space.rho)
        inside = Arrays(space.coordinates, own.target, own.weight, space.rho, kappa, start, own.tol, alike=False)
        found = solver(models, inside, max_iter)
        found.params = space.back(found.params)
        if by_gradient and not found.interrupted:
            own = replace(own, start=found.params, spent=found.n_evaluations)
            at_end = solver(models, own, max(0, max_iter - max(map(len, found.curve))))
            at_end.curve = [before[:-1] + after for before, after in zip(found.curve, at_end.curve, strict=True)]
            found = at_end
        solution.put(models, found)
        if found.interrupted and models is not groups[-1]:
            raise KeyboardInterrupt
        solution.interrupted = found.interrupted
    return solution
