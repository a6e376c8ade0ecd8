r"""How scores become probabilities, fitted on scores and classes.

Temperature: :math:`p = \mathrm{softmax}(s / T)` (the sigmoid of s / T for two classes), with one T > 0. Sigmoid
(Platt scaling): :math:`\sigma(a_c s_c + b_c)` per class, normalised, with :math:`a_c > 0`. Both minimise a convex
log-loss, with a prior against certainty on scores that happen to be separable: half an observation more, whose label
may be any (for the sigmoid: with the class frequencies), and Platt's targets.

Guo et al., *On calibration of modern neural networks*, ICML 2017. Platt, *Probabilistic outputs for support vector
machines*, 1999.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

_MAX_STEPS, _SAME = 100, 1e-13
_CHUNK_ROWS = 1 << 15  # rows computed with at once: there may be millions
_FEW_SCORES = 1 << 20  # of which copies are kept
_INVERSE_RANGE = (1e-4, 1e4)  # of the inverse temperature, relative to the scores' mean magnitude
#: Of Platt's sigmoid, relative to the scores' largest magnitude: such scores still decide between equal probabilities.
_LEAST_SLOPE = 1e-6
_UNINFORMED = (
    "The scores of rows that a model was not trained on do not rise with the right answers, so that calibrated "
    "probabilities cannot follow them. The columns may have nothing to do with the classes, or the rows may be too few."
)
_FREQUENCIES = (
    "A class whose scores do not rise has nearly the probability of its frequency. With more than two classes, "
    "calibration='temperature' may suit them better."
)


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK_ROWS, n)) for start in range(0, n, _CHUNK_ROWS)]


#: Weight of the observation of any label that is added to the rows.
DOUBT = 0.5
#: To which power a temperature above one counts (`for_average`).
_POWER = 0.7


def doubt(scores: np.ndarray, weight: np.ndarray, amount: float = DOUBT) -> tuple[np.ndarray, np.ndarray]:
    """Make the further observation, of so much weight: the average of some rows."""
    return scores, weight / weight.sum() * amount


def _newton(
    value_gradient_hessian: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], x: np.ndarray
) -> np.ndarray:
    """Minimise a convex function by Newton's method with step halving."""
    value, gradient, hessian = value_gradient_hessian(x)
    for _ in range(_MAX_STEPS):
        damping = 1e-12 * (np.trace(hessian) + 1e-12)
        step = np.linalg.solve(hessian + damping * np.eye(len(x)), gradient)
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


def fit_temperature(
    scores: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray | None = None,
    own: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    r"""Find the temperature that minimises the log-loss of scores / T, with half an observation more, of any label.

    Of separable scores, the log-loss alone would be lowest at T = 0, where a wrong answer costs without bound. T is
    kept within a factor of 10⁴ of one over the mean magnitude of the scores; where these speak against the classes, so
    that no temperature is high enough, a warning says so.

    Scores (n, C), with one column for two classes, are of models that have not seen the row, and weights (n,) numbers
    of observations. The further observation (`doubt`) has its `own` scores (m, C) and weights (m,), by the model that
    is to be calibrated: they keep T from being too low where the other models' scores happen to be much smaller.
    """
    weight = np.ones(len(codes)) if weight is None else weight
    own_scores, share = doubt(scores, weight) if own is None else own
    all_weight = weight.sum() + share.sum()  # which may be more than can be squared
    weight, share = weight / all_weight, share / all_weight
    n, n_columns = len(codes), max(2, scores.shape[1])
    unit = sum(float(np.abs(scores[part]).sum(dtype=np.float64)) for part in _chunks(n)) / (n * n_columns) or 1.0

    def below(scores: np.ndarray) -> np.ndarray:
        """Compute how far each score is below its row's largest (C, m), in units that make b of the order of one."""
        S = scores.T.astype(np.float64, order="C") / unit  # sums over classes are 5 times faster along the first axis
        S = np.vstack([np.zeros_like(S), S]) if len(S) == 1 else S
        return S - S.max(0)

    total = 0.0
    for part in _chunks(n):
        S = below(scores[part])
        total += float(weight[part] @ S[codes[part], np.arange(S.shape[1])])
    total += sum(float(share[part] @ below(own_scores[part]).mean(0)) for part in _chunks(len(share)))
    both = ((scores, weight), (own_scores, share))
    few = None
    if n_columns * (n + len(share)) <= _FEW_SCORES:
        few = [(np.hstack([below(given) for given, _ in both]), np.concatenate([weight, share]))]

    def slope(log_b: float) -> tuple[float, float]:
        """Compute the derivative of the log-loss in the inverse temperature, which only grows, and its own in log b."""
        b, rise, bend = np.exp(log_b), -total, 0.0
        for S, weights in few or ((below(s[part]), w[part]) for s, w in both for part in _chunks(len(w))):
            E = b * S
            np.exp(E, out=E)
            norm = E.sum(0)
            mean = np.multiply(E, S, out=E).sum(0) / norm
            rise += weights @ mean
            bend += weights @ (np.multiply(E, S, out=E).sum(0) / norm - mean * mean)
        return rise, b * bend

    low, high = np.log(_INVERSE_RANGE).tolist()
    best, rise = _zero(slope, low, high)
    if best == low and rise > 1e-9:  # it is zero, up to rounding, where all scores are equal
        warnings.warn(f"{_UNINFORMED} The probabilities are nearly the same for all classes.", stacklevel=2)
    return unit / float(np.exp(best))


def _zero(slope: Callable[[float], tuple[float, float]], low: float, high: float) -> tuple[float, float]:
    """Find where a function that only grows is zero, or the end that is nearest to it; and its value next to there.

    Steps are Newton's, or half of what is left.
    """
    ends, seen, x = (low, high), set(), 0.5 * (low + high)
    for _ in range(_MAX_STEPS):
        rise, bend = slope(x)
        seen.add(x)
        low, high, end = (x, high, ends[1]) if rise < 0 else (low, x, ends[0])
        if x == end:
            break
        wanted = x - rise / bend if bend > 0 else end
        if not low < wanted < high:
            wanted = 0.5 * (low + high) if end in seen else end
        if abs(wanted - x) <= _SAME * (1 + abs(x)):
            break
        x = wanted
    return x, rise


def for_average(temperature: Any) -> Any:
    """Lower a temperature of members that have each left rows out, for the mean of their probabilities.

    A mean is less sure than each of them: of how much a temperature is above one, the power 0.7 is left. One below it
    stays.
    """
    return np.minimum(temperature, temperature**_POWER)


def fit_sigmoid(
    scores: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray | None = None,
    own: tuple[np.ndarray, np.ndarray] | None = None,
    kept: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find Platt's slopes and offsets (C,), for each column of scores, against "is it this class".

    The probability of class c before normalisation is ``expit(slopes[c] * scores[:, c] + offsets[c])``. Targets are
    Platt's, smoothed: (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2). Where scores speak against a class, so that its slope would
    be negative, it is as good as zero, and a warning says so.

    Scores, codes (or label indicators), weights and the further observation are as for `fit_temperature`. Its answer is
    the class's frequency, which scores that say nothing should give wherever they lie. Those `kept` are codes (k,) or
    (k, C), and weights (k,), of the rows that every model has seen, as the only ones of their class: they count as
    answers to the scores of `own`, of which nothing is known.
    """
    weight = np.ones(len(codes)) if weight is None else weight
    own_scores, share = (scores[:0], weight[:0]) if own is None else own
    kept_codes, kept_weight = (codes[:0], weight[:0]) if kept is None else kept
    total, spread = weight.sum() + share.sum() + kept_weight.sum(), share / (share.sum() or 1.0)
    observed, share = weight / total, share / total
    n_columns = scores.shape[1]
    slopes, offsets = np.ones(n_columns), np.zeros(n_columns)
    for c in range(n_columns):
        positive, unseen = (
            of == (1 if n_columns == 1 else c) if of.ndim == 1 else of[:, c] == 1 for of in (codes, kept_codes)
        )
        n_plus = weight[positive].sum() + kept_weight[unseen].sum()
        n_minus = weight[~positive].sum() + kept_weight[~unseen].sum()
        targets = 1 / (n_minus + 2), (n_plus + 1) / (n_plus + 2)
        target = np.where(positive, *targets[::-1])
        frequency = np.log((n_plus + 1) / (n_minus + 1))
        unit = float(np.abs(scores[:, c]).max()) or 1.0
        parts = [(scores[part, c], target[part], observed[part]) for part in _chunks(len(codes))]
        parts += [(own_scores[part, c], expit(frequency), share[part]) for part in _chunks(len(share))]
        for answer, amount in zip(targets, (kept_weight[~unseen].sum(), kept_weight[unseen].sum()), strict=True):
            if amount:
                parts += [(own_scores[part, c], answer, spread[part] * amount / total) for part in _chunks(len(share))]

        def objective(x: np.ndarray, parts: list = parts, unit: float = unit) -> tuple[float, np.ndarray, np.ndarray]:
            value, gradient, hessian = 0.0, np.zeros(2), np.zeros((2, 2))
            for s, t, w in parts:
                s = s.astype(np.float64) / unit
                A = np.column_stack([s, np.ones(len(s))])
                z = A @ x
                p = expit(z)
                value -= np.sum(w * (t * log_expit(z) + (1 - t) * log_expit(-z)))
                gradient += A.T @ (w * (p - t))
                hessian += (A * (w * p * (1 - p))[:, None]).T @ A
            return value, gradient, hessian

        slope, offsets[c] = _newton(objective, np.array([0.0, frequency]))
        if slope < _LEAST_SLOPE:
            if slope < -_LEAST_SLOPE:
                warnings.warn(f"{_UNINFORMED} {_FREQUENCIES}", stacklevel=2)
            slope, offsets[c] = _LEAST_SLOPE, frequency
        slopes[c] = slope / unit
    return slopes, offsets
