r"""How scores become probabilities, fitted on scores and classes.

Temperature: :math:`p = \mathrm{softmax}(s / T)` (the sigmoid of s / T for two classes), with one T > 0. Sigmoid
(Platt scaling): :math:`\sigma(a_c s_c + b_c)` per class, normalised. Both minimise a convex
log-loss.

References
----------
Guo et al., *On calibration of modern neural networks*, ICML 2017. Platt, *Probabilistic outputs for support vector
machines*, 1999.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, log_expit, softmax

_MAX_STEPS = 100
_CHUNK_ROWS = 1 << 15  # rows computed with at once: there may be millions
_INVERSE_RANGE = (1e-4, 1e4)  # of the inverse temperature, relative to the scores' mean magnitude


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK_ROWS, n)) for start in range(0, n, _CHUNK_ROWS)]


def _newton(value_gradient_hessian, x: np.ndarray) -> np.ndarray:
    """Minimise a convex function by Newton's method with step halving."""
    value, gradient, hessian = value_gradient_hessian(x)
    for _ in range(_MAX_STEPS):
        ridge = 1e-12 * (np.trace(hessian) + 1e-12)
        step = np.linalg.solve(hessian + ridge * np.eye(len(x)), gradient)
        if gradient @ step <= 1e-13 * abs(value):  # from here on, values are too coarse to compare
            return x - step
        size = 1.0
        while size > 1e-10:
            candidate = value_gradient_hessian(x - size * step)
            if candidate[0] <= value - 1e-4 * size * (gradient @ step):
                break
            size /= 2
        else:
            return x
        x = x - size * step
        value, gradient, hessian = candidate
        if np.abs(size * step).max() <= 1e-12 * (1 + np.abs(x).max()):
            break
    return x


def fit_temperature(scores: np.ndarray, codes: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Temperature that minimises the log-loss of scores / T.

    Parameters
    ----------
    scores : ndarray of shape (n, C)
        One column for two classes.
    codes : ndarray of shape (n,)
    weight : ndarray of shape (n,), default=None

    Returns
    -------
    float
        T, kept within a factor of 10⁴ of one over the mean magnitude of the scores (separable scores would
        otherwise have it go to zero).
    """
    weight = np.ones(len(codes)) if weight is None else weight
    n, n_columns = len(codes), max(2, scores.shape[1])
    unit = sum(float(np.abs(scores[part]).sum(dtype=np.float64)) for part in _chunks(n)) / (n * n_columns) or 1.0

    def scaled(part: slice) -> np.ndarray:
        """Scores such that the inverse temperature is of the order of one."""
        S = scores[part].astype(np.float64) / unit
        return np.hstack([np.zeros_like(S), S]) if S.shape[1] == 1 else S

    total = sum(float(weight[p] @ scaled(p)[np.arange(p.stop - p.start), codes[p]]) for p in _chunks(n))

    def slope(log_b: float) -> float:
        """Derivative of the log-loss with respect to the inverse temperature: it only grows."""
        b, rise = np.exp(log_b), -total
        for part in _chunks(n):
            S = scaled(part)
            rise += weight[part] @ (softmax(b * S, axis=1) * S).sum(1)
        return rise

    low, high = np.log(_INVERSE_RANGE)
    if slope(high) <= 0:
        best = high
    elif slope(low) >= 0:
        best = low
    else:
        best = brentq(slope, low, high, xtol=1e-13, rtol=1e-14)
    return unit / float(np.exp(best))


def fit_sigmoid(scores: np.ndarray, codes: np.ndarray, weight: np.ndarray | None = None):
    """Platt's slope and offset for each column of scores, against "is it this class".

    With Platt's smoothed targets, (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2).

    Parameters
    ----------
    scores : ndarray of shape (n, C)
        One column for two classes.
    codes : ndarray of shape (n,) or (n, C)
        Class codes, or label indicators.
    weight : ndarray of shape (n,), default=None

    Returns
    -------
    slopes, offsets : ndarray of shape (C,)
        Probability of class c before normalisation: ``expit(slopes[c] * scores[:, c] + offsets[c])``.
    """
    weight = np.ones(len(codes)) if weight is None else weight
    n_columns = scores.shape[1]
    slopes, offsets = np.ones(n_columns), np.zeros(n_columns)
    for c in range(n_columns):
        positive = codes == (1 if n_columns == 1 else c) if codes.ndim == 1 else codes[:, c] == 1
        n_plus, n_minus = weight[positive].sum(), weight[~positive].sum()
        target = np.where(positive, (n_plus + 1) / (n_plus + 2), 1 / (n_minus + 2))
        unit = float(np.abs(scores[:, c]).max()) or 1.0

        def objective(x, c=c, target=target, unit=unit):
            value, gradient, hessian = 0.0, np.zeros(2), np.zeros((2, 2))
            for part in _chunks(len(codes)):
                w, t, s = weight[part], target[part], scores[part, c].astype(np.float64) / unit
                A = np.column_stack([s, np.ones(len(s))])
                z = A @ x
                p = expit(z)
                value -= w @ (t * log_expit(z) + (1 - t) * log_expit(-z))
                gradient += A.T @ (w * (p - t))
                hessian += (A * (w * p * (1 - p))[:, None]).T @ A
            return value, gradient, hessian

        slope, offsets[c] = _newton(objective, np.array([0.0, np.log((n_plus + 1) / (n_minus + 1))]))
        slopes[c] = slope / unit
    return slopes, offsets
