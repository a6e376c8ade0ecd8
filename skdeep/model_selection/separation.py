"""Whether an objective without a penalty has an optimum: there is none where columns tell classes apart without error.

Along some way of the parameters no row's loss rises then, and some fall as exponentials do. Each of Newton's steps adds
one to their margins, without end, whereas near an optimum steps vanish.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact.losses import LogisticLoss, RowLoss, SoftmaxLoss
from skdeep.exact.rows import Rows, of_both

#: Unknowns up to which Hessians are looked at.
_FEW_UNKNOWNS = 256
#: Steps after which nothing can have vanished that does not; and what margins change by if it does not.
_N_STEPS, _LONG = 5, 0.5
#: Share of the largest eigenvalue of a Hessian, of columns of one size, below which rows say nothing of parameters.
_NOTHING = 1e-12


def lack_optimum(rows: Rows, loss: RowLoss, weight: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Tell which objectives of weights (K, n) fall without end, by where training has ended, (K, C, D).

    Of many unknowns, it is known only where all classes are told apart.
    """
    if not isinstance(loss, SoftmaxLoss | LogisticLoss) or np.any((loss.target > 0) & (loss.target < 1)):
        return np.zeros(len(params), dtype=bool)
    value = loss.at(rows.scores(params)).value
    # a loss of less than that of a tie, in each row: twice the parameters are better
    apart = np.where(weight > 0, value, 0).max(1) < np.log(2)
    if params[0].size <= _FEW_UNKNOWNS:
        for k in np.flatnonzero(~apart):
            apart[k] = _goes_on(rows, loss, weight[k], params[k])
    return apart


def _goes_on(rows: Rows, loss: RowLoss, weight: np.ndarray, params: np.ndarray) -> bool:
    """Tell whether Newton's steps go on changing a row's margins."""
    present = weight > 0
    for _ in range(_N_STEPS):
        scores = rows.scores(params[None])
        at = loss.at(scores)
        gradient = rows.back(at.gradient[0] * weight)
        hessian = flat_hessian(rows, loss, loss.second(scores, at)[0] * weight)
        unit = np.sqrt(hessian.diagonal())
        unit[unit == 0] = np.inf  # of columns that are zero
        values, vectors = np.linalg.eigh(hessian / unit / unit[:, None])
        known = values > _NOTHING * values[-1]
        along = vectors[:, known]
        step = (along @ (along.T @ (gradient.ravel() / unit) / values[known]) / unit).reshape(params.shape)
        change = rows.scores(step)[:, present]
        size = np.ptp(change, axis=0).max() if loss.shift_invariant else np.abs(change).max()
        if not size > _LONG:
            return False
        params = params - step
    return True


def flat_hessian(rows: Rows, loss: RowLoss, second: np.ndarray) -> np.ndarray:
    """Compute the matrix (C D, C D) of rows' second derivatives, (C, n) or by pairs of scores (P, n)."""
    C, D = loss.n_scores, rows.shape[1]
    blocks = np.zeros((C, C, D, D))
    if loss.separable:
        blocks[np.arange(C), np.arange(C)] = rows.gram(second)
    else:
        blocks[...] = rows.gram(second)[of_both(C)].reshape(C, C, D, D)
    return flat(blocks)


def flat(blocks: np.ndarray) -> np.ndarray:
    """Make a matrix (C D, C D) of blocks (C, C, D, D)."""
    C, _, D, _ = blocks.shape
    return blocks.transpose(0, 2, 1, 3).reshape(C * D, C * D)
