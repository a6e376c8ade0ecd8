"""Newton directions of squared hinges of rivals, of dense rows: the terms within their margins make all the curvature.

They are few near the optimum, and systems are made of them as `skdeep.exact.hinge_newton` does for plain hinges.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.descent import Directions, Stack
from skdeep.exact.hinge import begin
from skdeep.exact.hinge_newton import Bends, directions
from skdeep.exact.hinge_terms import WestonWatkins
from skdeep.exact.losses import RowLoss, SquaredWestonWatkins
from skdeep.exact.newton import SMALL_SYSTEM, Newton
from skdeep.exact.rows import Rows

#: Columns of which products are kept at little cost.
_FEW_COLUMNS = 16
#: What stands for the penalty of intercepts that have none: scores of a class may have no curvature, nor a gradient;
#: and the weakest penalty of columns, of mean squares of about one, that systems of terms or parameters bear.
_TINY = 1e-10


def suits(rows: Rows, loss: RowLoss, rho: np.ndarray) -> bool:
    """Tell whether these are the cheapest directions: `Newton`'s are where products of all columns are kept.

    A penalty is to hold all columns but the last, or this one too: systems of free terms divide by it.
    """
    if type(rows) is not Rows or not isinstance(loss, SquaredWestonWatkins):
        return False
    (C, D), is_free = (loss.n_scores, rows.shape[1]), rho[:, -1] == 0
    few = C * D <= SMALL_SYSTEM and D <= _FEW_COLUMNS and rows.keeps_products(C * (C + 1) // 2)
    return not few and bool((rho[:, :-1] >= _TINY).all()) and is_free.any() == is_free.all()


def start(way: Directions, rows: Rows, weight: np.ndarray, rho: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Compute parameters (K, C, D) to begin with, by least squares of the first rows, under the strongest penalty."""
    if not isinstance(way, NewtonOfRivals):
        return params
    strongest = rho[rho.max(1).argmax()][None]
    return np.tile(begin(rows, way.terms, weight[:1], strongest), (len(params), 1, 1))


class NewtonOfRivals(Newton):
    """Newton directions of models whose columns all have a penalty, but for the last."""

    def __init__(self, n_columns: int, loss: RowLoss):
        assert isinstance(loss, SquaredWestonWatkins)
        super().__init__(n_columns)
        self.terms = WestonWatkins(loss.codes, loss.n_scores)

    def __call__(self, stack: Stack) -> np.ndarray:
        """Compute the directions (K, C, D)."""
        K, C, _ = stack.params.shape
        assert isinstance(stack.loss, SquaredWestonWatkins)
        scale = np.broadcast_to(2 * stack.weight, (K, stack.weight.shape[1]))
        free = stack.loss.is_within(stack.scores) & (scale > 0)[:, None]
        factor = np.repeat(np.where(stack.rho > 0, stack.rho, _TINY)[:, None], C, 1)
        bends = Bends(free, None, scale, factor)
        found = directions(stack.rows, self.terms, bends, stack.gradient, not stack.rho[:, -1].all())
        return self.lengthened(found, stack)
