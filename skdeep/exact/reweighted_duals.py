r"""Least squares that differ in the weights of the rows, of fewer rows than columns: in a multiplier for each row.

With the products :math:`K = Z \operatorname{diag}(\rho)^{-1} Z^T` of all rows, which weights leave as they are, the
multipliers a of the rows of weight w > 0, and the intercept b, follow from

.. math:: (K + \operatorname{diag}(w)^{-1})\, a + b = y, \qquad \textstyle\sum_i a_i = 0,

one system for all columns of targets. The coefficients are :math:`\operatorname{diag}(\rho)^{-1} Z^T a`.

References
----------
Saunders, Gammerman & Vovk, *Ridge regression learning algorithm in dual variables*, ICML 1998.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import SparseRows

#: Rows up to which a system of them is solved for each model.
_MAX_ROWS = 2048


def duals_pay(rows: SparseRows, loss: SquaredLoss, rho: np.ndarray) -> bool:
    """Tell whether least squares of sparse rows have a multiplier for each row, and what they need for it."""
    penalised = rho[:, : rows.X.shape[1]]
    if loss.target.ndim != 2 or rows.shape[0] > min(_MAX_ROWS, rows.shape[1]) or not (penalised > 0).all():
        return False
    # the penalties are of one shape, and of strengths of their own
    return np.allclose(penalised * penalised[0, 0], penalised[:, :1] * penalised[0], rtol=1e-12, atol=0)


def refit_by_duals(rows: SparseRows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Minimise the objectives of `skdeep.exact.descent` for K weights of the same rows: parameters (K, C, D)."""
    d = rows.X.shape[1]
    products = (rows.X.multiply(1 / rho[0, :d]) @ rows.X.T).toarray()
    dual = np.zeros((len(weight), *loss.target.shape))
    level = np.zeros(dual.shape[:2])
    for k, own in enumerate(weight):
        index = own.nonzero()[0]
        system = products[index[:, None], index] * (rho[0, 0] / rho[k, 0])
        system.reshape(-1)[:: len(index) + 1] += 1 / own[index]
        right = np.column_stack([loss.target[:, index].T, np.ones(len(index))])
        found = cho_solve(cho_factor(system, lower=True, overwrite_a=True, check_finite=False), right)
        of_target, of_ones = found[:, :-1], found[:, -1:]
        if rows.intercept:
            level[k] = of_target.sum(0) / of_ones.sum()
        dual[k][:, index] = (of_target - of_ones * level[k]).T
    params = rows.back(dual)
    params[:, :, :d] /= rho[:, None, :d]
    if rows.intercept:
        params[:, :, -1] = level
    return params
