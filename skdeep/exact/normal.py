r"""Least squares of one model by its normal equations, and by the errors that they leave: few calls, for small fits.

.. math:: (Z^T W Z + R)\, v = Z^T W t

Cholesky's factor solves them twice: for the targets, and for the gradient of the errors there, which takes out what
products of columns have rounded off. Where no pivot is small, that is as exact as a triangular factor of the rows
[1]_. Where columns repeat, or there are more of them than rows, it is said that others are to be asked.

.. [1] Å. Björck, *Stability analysis of the method of seminormal equations for linear least squares problems*, Linear
   Algebra and its Applications 88, 1987.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from skdeep.exact.descent import Solution
from skdeep.exact.rows import Rows

#: What others leave of a column's square, as a part of it, below which the products of columns do not tell enough.
_SOUND = 1e-7
#: How far the second solution may move the first, as a part of it.
_FARTHEST = 1e-6


def stacked(rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> Solution | None:
    """Do as `solve` does for K models, of weights (K or 1, n) and curvatures (K, D); None where one is not found."""
    first, number = distinct(weight)
    grams, found = rows.gram(weight[first]), []
    for k, own in enumerate(rho):
        w = number[k % len(number)]
        found.append(solve(rows, target, weight[first[w]], own, grams[w] if len(rho) == 1 else grams[w].copy()))
        if found[-1] is None:
            return None
    params, value, bound = zip(*found, strict=True)
    return Solution(np.stack(params), np.array(bound), [[own] for own in value], [None] * len(rho))


def distinct(weight: np.ndarray) -> tuple[list[int], list[int]]:
    """Find where each of some different weights (K, n) is first, and for every model the number of its own."""
    if len(weight) == 1:
        return [0], [0]
    first: list[int] = []
    number: list[int] = []
    mark = (weight @ np.linspace(1, 2, weight.shape[1])).tolist()  # sorts most out
    for k, own in enumerate(mark):
        same = [j for j, i in enumerate(first) if abs(mark[i] - own) <= 1e-12 and np.array_equal(weight[i], weight[k])]
        number.append(same[0] if same else len(first))
        if not same:
            first.append(k)
    return first, number


def solve(
    rows: Rows, target: np.ndarray, weight: np.ndarray, rho: np.ndarray, gram: np.ndarray | None = None
) -> tuple[np.ndarray, float, float] | None:
    """Minimise half the mean squares of errors of targets (C, n) with squared norms.

    Weights (n,) are of sum one, `rho` (D,) are the curvatures of the penalty; `gram` (D, D), the products of the
    columns where they are known, is overwritten. Returned are the parameters (C, D), the objective, and the largest
    entry of its gradient or more than that; None where there is another solution that is nearly as good, or rounding
    would tell which it is.
    """
    hessian = rows.gram(weight[None])[0] if gram is None else gram
    hessian.reshape(-1)[:: len(rho) + 1] += rho
    diagonal = hessian.diagonal().copy()
    factor, fault = dpotrf(hessian.T, lower=1, clean=0, overwrite_a=1)
    if fault or (np.square(factor.diagonal()) < _SOUND * diagonal).any():
        return None
    params = dpotrs(factor, rows.back(target * weight).T, lower=1)[0].T
    errors = rows.scores(params)
    errors -= target
    weighted = errors * weight
    gradient = rows.back(weighted)
    value = float(np.vdot(weighted, errors))
    if rho.any():
        held = rho * params
        gradient += held
        value += float(np.vdot(held, params))
    step = dpotrs(factor, gradient.T, lower=1)[0].T
    found = params - step
    if not np.abs(step).max() <= _FARTHEST * np.abs(found).max():  # also where a number is none
        return None
    return found, 0.5 * value, float(np.abs(gradient).max())
