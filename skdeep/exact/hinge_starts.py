"""Where an exact solver of hinges begins: least squares."""

from __future__ import annotations

import numpy as np

from skdeep.exact.hinge_terms import Hinges, WestonWatkins
from skdeep.exact.rows import Rows

#: Most columns for which least squares are computed; what their penalty is multiplied by, and their scores.
_MAX_COLUMNS, _FIRM, _LENGTHS = 300, 5, (0.5, 1.0, 2.0, 4.0)


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


def begin(rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute parameters (K, C, D) to begin with, of a problem that is like no other."""
    return of_best_length(least_squares(rows, loss, weight, rho), rows, loss, weight, rho)


def crowd(rows: Rows, loss: Hinges | WestonWatkins, params: np.ndarray) -> float:
    """Compute the share of rows within the margins at parameters (K, C, D)."""
    margins = loss.terms(len(params)).margins(rows.scores(params))
    return float((margins > 0).any(1).mean())
