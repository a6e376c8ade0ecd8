r"""Where an exact solver of hinges begins: least squares, and rows with more columns than there are rows."""

from __future__ import annotations

import numpy as np

from skdeep.exact.hinge_terms import Hinges, WestonWatkins
from skdeep.exact.rows import Rows

#: Most columns for which least squares are computed; what their penalty is multiplied by, and their scores.
_MAX_COLUMNS, _FIRM, _LENGTHS = 300, 5, (0.5, 1.0, 2.0, 4.0)
#: Most rows that are expressed in fewer columns than they have, and values of rows that are dense meanwhile.
_MAX_ROWS, _MAX_VALUES = 1000, 2**22


def least_squares(rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute the parameters of least squares, of firmer penalties."""
    K, C, D = len(weight), loss.n_scores, rows.shape[1]
    if D > _MAX_COLUMNS:
        return np.zeros((K, C, D))
    H = rows.gram(weight)
    H.reshape(K, -1)[:, :: D + 1] += _FIRM * rho + 1e-10
    return np.linalg.solve(H, rows.back(loss.target() * weight[:, None]).mT).mT


def of_best_length(
    params: np.ndarray, rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray
) -> np.ndarray:
    """Multiply parameters (K, C, D) by what makes the hinges least."""
    terms, (K, n) = loss.terms(len(weight)), weight.shape
    scores = rows.scores(params).reshape(-1, terms.n_scores, n)
    columns = len(scores) // K
    loss_of = [terms.loss(terms.margins(length * scores)) for length in _LENGTHS]
    data = [np.vecdot(values, np.repeat(weight, columns, 0)) for values in loss_of]
    penalty = 0.5 * (rho[:, None] * params * params).reshape(K * columns, -1).sum(1)
    values = np.array(data) + np.square(_LENGTHS)[:, None] * penalty
    return params * np.take(_LENGTHS, values.argmin(0)).reshape(K, -1, 1)


def _common_factors(rho: np.ndarray, intercept: bool) -> np.ndarray | None:
    """Find factors of the columns (D,) that all models' penalties are multiples of; None if there are none."""
    penalised = rho[:, : rho.shape[1] - intercept]
    base = penalised[penalised.max(1).argmax()]
    base = base / base.max() if base.max() > 0 else np.ones_like(base)
    same = np.abs(penalised - penalised.max(1)[:, None] * base) <= 1e-12 * penalised.max(1)[:, None]
    return base if same.all() and base.min() > 0 else None


class Span:
    """Express rows in fewer columns than they have: the optimum's parameters are combinations of rows.

    Parameters
    ----------
    rows : Rows
    base : ndarray of shape (D,)
        Factors of the penalty, without the intercept's.
    intercept : bool
    """

    def __init__(self, rows: Rows, base: np.ndarray, intercept: bool):
        (n, D), self._all, self._inverse, self._intercept = rows.shape, rows, np.zeros(rows.shape[1]), intercept
        self._inverse[: len(base)] = 1 / base
        kernel, size = np.empty((n, n)), max(1, _MAX_VALUES // D)
        for first in range(0, n, size):
            some = np.eye(n)[first : first + size]
            kernel[first : first + size] = rows.scores(rows.back(some) * self._inverse)
        found, vectors = np.linalg.eigh(kernel)
        there = found > n * np.finfo(float).eps * found.max(initial=0)
        root = np.sqrt(found[there])
        self._to_rows = (vectors[:, there] / root).T
        self.rows = Rows(np.column_stack([vectors[:, there] * root, np.ones((n, int(intercept)))]))

    def penalty(self, rho: np.ndarray) -> np.ndarray:
        """Compute the penalty's factors (K, D) of these columns."""
        found = np.repeat(rho.max(1, keepdims=True), self.rows.shape[1], 1)
        if self._intercept:
            found[:, -1] = 0
        return found

    def params(self, params: np.ndarray) -> np.ndarray:
        """Compute parameters (K, C, D) of the columns that were."""
        found = self._all.back(params[..., : len(self._to_rows)] @ self._to_rows) * self._inverse
        if self._intercept:
            found[..., -1] = params[..., -1]
        return found


def span_of(rows: Rows, rho: np.ndarray, intercept: bool) -> Span | None:
    """Express rows in fewer columns, if that is fewer by far and all penalties allow it."""
    n, D = rows.shape
    if D <= 2 * n or n > _MAX_ROWS or (base := _common_factors(rho, intercept)) is None:
        return None
    return Span(rows, base, intercept)


def begin(rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute parameters (K, C, D) to begin with, of a problem that is like no other."""
    return of_best_length(least_squares(rows, loss, weight, rho), rows, loss, weight, rho)


def crowd(rows: Rows, loss: Hinges | WestonWatkins, params: np.ndarray) -> float:
    """Compute the share of rows within the margins at parameters (K, C, D)."""
    margins = loss.terms(len(params)).margins(rows.scores(params))
    return float((margins > 0).any(1).mean())
