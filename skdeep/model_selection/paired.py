r"""Statistics of paired scores: two models, judged on the same splits.

The scores of overlapping training sets are correlated, so that the variance of their mean is larger than
:math:`s^2 / J`. Both answers here, an interval and probabilities, take it as

.. math:: \left(\frac{1}{J} + \frac{n_\text{test}}{n_\text{train}}\right) s^2

with the sample variance s² of the J differences. They are exact where the differences are normal, any two of them with
the correlation :math:`\rho = n_\text{test} / (n_\text{test} + n_\text{train})`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

#: Differences of this many roundings of the scores are none.
_ROUNDINGS = 8


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two models' scores, as far as the splits tell it; NaN stands for what they do not tell.

    Attributes
    ----------
    mean : float
        Of the differences over the splits.
    low, high : float
        The interval of the true difference.
    p_better, p_equal, p_worse : float
        Probabilities that it is above, within and below the region of practical equivalence.
    p_value : float
        Of the hypothesis that it is zero, from both sides.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    p_better: float = math.nan
    p_equal: float = math.nan
    p_worse: float = math.nan
    p_value: float = math.nan


def paired_difference(
    scores: ArrayLike, reference: ArrayLike, test_ratio: float, *, rope: float = 0.0, confidence: float = 0.95
) -> PairedDifference:
    r"""Estimate how much better one model is than another from their scores on the same J splits.

    With the mean :math:`\bar d` of the differences and :math:`v = (1/J + n_\text{test}/n_\text{train}) s^2`, the
    interval is :math:`\bar d \pm t_{J-1} \sqrt v`, and what is known of the true difference after the fact is Student's
    distribution with J - 1 degrees of freedom, centre :math:`\bar d` and scale :math:`\sqrt v`.

    Parameters
    ----------
    scores, reference : array-like of shape (n_splits,)
        Scores of the model and of the one that it is compared with; more is better.
    test_ratio : float
        Test rows per training row; 1 / (k - 1) for k folds.
    rope : float, default=0.0
        Differences of this size or less make no practical difference.
    confidence : float, default=0.95
        Of the interval.

    Returns
    -------
    PairedDifference
        Of one split it has only the mean. Differences that are all the same have no variance: where they are zero the
        models are equal on all splits, otherwise nothing but the mean is told.

    Raises
    ------
    ValueError
        If the scores are no two lists of finite numbers of one length, or a number is out of its range.

    References
    ----------
    Nadeau & Bengio, *Inference for the generalization error*, Machine Learning 2003; Benavoli, Corani, Demšar &
    Zaffalon, *Time for a change: a tutorial for comparing multiple classifiers through Bayesian analysis*, JMLR 2017.

    Examples
    --------
    >>> from skdeep.model_selection import paired_difference
    >>> found = paired_difference([0.91, 0.93, 0.92, 0.95, 0.90], [0.88, 0.91, 0.92, 0.91, 0.89], 1 / 4, rope=0.01)
    >>> print(f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}], P(better) {found.p_better:.2f}")
    0.020 [-0.009, 0.049], P(better) 0.80
    """
    scores, reference = np.asarray(scores, dtype=float), np.asarray(reference, dtype=float)
    if scores.ndim != 1 or scores.shape != reference.shape or not len(scores):
        raise ValueError(
            f"scores and reference must be lists of the same length, one score per split; got arrays of shape "
            f"{scores.shape} and {reference.shape}. Judge both models on the same splits."
        )
    if not (np.isfinite(scores).all() and np.isfinite(reference).all()):
        raise ValueError("scores and reference must be finite; leave out models that failed on a split.")
    if not (test_ratio > 0 and math.isfinite(test_ratio)):
        raise ValueError(f"test_ratio is the number of test rows per training row, above zero; got {test_ratio!r}.")
    check_rope_and_confidence(rope, confidence)
    differences, n = scores - reference, len(scores)
    smallest = _ROUNDINGS * np.finfo(float).eps * max(np.abs(scores).max(), np.abs(reference).max())
    if np.abs(differences).max() <= smallest:
        return PairedDifference(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0) if n > 1 else PairedDifference(0.0)
    mean = float(differences.mean())
    if n == 1 or np.ptp(differences) <= smallest:
        return PairedDifference(mean)
    scale = math.sqrt((1 / n + test_ratio) * differences.var(ddof=1))
    half = scale * float(stdtrit(n - 1, (1 + confidence) / 2))
    # tails, since one minus a tail would lose the digits of a small one
    p_better, p_worse = (float(stdtr(n - 1, (sign * mean - rope) / scale)) for sign in (1, -1))
    p_equal = max(0.0, 1 - p_better - p_worse)
    p_value = 2 * float(stdtr(n - 1, -abs(mean) / scale))
    return PairedDifference(mean, mean - half, mean + half, p_better, p_equal, p_worse, p_value)


def check_rope_and_confidence(rope: float, confidence: float) -> None:
    """Raise an error where these numbers are out of their range."""
    if not (rope >= 0 and math.isfinite(rope)):
        raise ValueError(f"rope is the largest difference that makes no difference, zero or more; got {rope!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95; got {confidence!r}.")


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""Adjust p-values of several hypotheses so that any of them is rejected wrongly as rarely as one alone.

    Of m p-values in ascending order, the i-th becomes :math:`\max_{j \le i} \min(1, (m - j + 1) p_j)`. NaN stands for a
    hypothesis that is not tested, and stays.

    References
    ----------
    Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> from skdeep.model_selection.paired import holm
    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = p_values.copy()
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted
