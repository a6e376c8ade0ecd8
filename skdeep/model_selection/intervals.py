r"""How much coefficients vary: standard errors and intervals of bootstrap replicates.

References
----------
B. Efron & R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 13 and 14. B. Efron, *Better bootstrap
confidence intervals*, JASA 82, 1987.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

_METHODS = ("bca", "percentile")


@dataclass
class BootstrapCoefficients:
    r"""Coefficients of a linear classifier, and of the same classifier on resamples of its rows.

    Attributes
    ----------
    coef, intercept : ndarray of shape (n_rows, n_features) and (n_rows,)
        The classifier's own, on all rows; one row for two classes, else one for each class or label.
    coefs, intercepts : ndarray of shape (n_resamples, n_rows, n_features) and (n_resamples, n_rows)
        Of each resample.
    coef_acceleration, intercept_acceleration : ndarray of shape (n_rows, n_features) and (n_rows,)
        How fast the standard error changes with the coefficient, for the BCa interval: a sixth of the skewness of what
        leaving out parts of the rows does to it.
    classes : ndarray of shape (n_classes,)
    feature_names : list of str
        The names of the columns of X; ``x0``, ``x1`` and so on where they have none.

    See Also
    --------
    bootstrap_coefficients : What makes it.
    skdeep.display.CoefficientsDisplay : Its picture.
    """

    coef: np.ndarray
    intercept: np.ndarray
    coefs: np.ndarray
    intercepts: np.ndarray
    coef_acceleration: np.ndarray
    intercept_acceleration: np.ndarray
    classes: np.ndarray
    feature_names: list[str]

    @property
    def standard_error(self) -> np.ndarray:
        """Standard deviation of each coefficient over the resamples, (n_rows, n_features)."""
        return self.coefs.std(axis=0, ddof=1)

    @property
    def intercept_standard_error(self) -> np.ndarray:
        """Standard deviation of each intercept over the resamples, (n_rows,)."""
        return self.intercepts.std(axis=0, ddof=1)

    def interval(self, confidence: float = 0.95, method: str = "bca") -> tuple[np.ndarray, np.ndarray]:
        r"""Compute an interval for each coefficient.

        Parameters
        ----------
        confidence : float, default=0.95
            Share of repeated samples whose interval is to hold the coefficient: from 0 to 1, both excluded. Far ends
            need many resamples: of 200, five are below a 95 % interval.
        method : {"bca", "percentile"}, default="bca"
            "percentile" takes the quantiles :math:`\frac{1-c}{2}` and :math:`\frac{1+c}{2}` of the replicates. "bca"
            takes others, which correct for bias (the share of replicates below the estimate is not a half) and for a
            standard error that changes with the coefficient:
            :math:`\Phi\big(z_0 + \frac{z_0 + z}{1 - a (z_0 + z)}\big)` with :math:`\Phi(z) = \frac{1 \mp c}{2}`.

        Returns
        -------
        low, high : ndarray of shape (n_rows, n_features)

        Raises
        ------
        ValueError
            If `confidence` is not between 0 and 1, or `method` is unknown.
        """
        return _interval(self.coef, self.coefs, self.coef_acceleration, confidence, method)

    def intercept_interval(self, confidence: float = 0.95, method: str = "bca") -> tuple[np.ndarray, np.ndarray]:
        """Compute an interval for each intercept; see `interval`.

        Parameters
        ----------
        confidence : float, default=0.95
        method : {"bca", "percentile"}, default="bca"

        Returns
        -------
        low, high : ndarray of shape (n_rows,)
        """
        return _interval(self.intercept, self.intercepts, self.intercept_acceleration, confidence, method)


def check_confidence(confidence: float) -> None:
    """Raise where this is no probability of an interval."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, both excluded, got {confidence!r}.")


def _interval(
    estimate: np.ndarray, replicates: np.ndarray, acceleration: np.ndarray, confidence: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the ends of intervals (...) by replicates (B, ...)."""
    check_confidence(confidence)
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}, got {method!r}.")
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    if method == "percentile":
        low, high = (np.quantile(replicates, end, axis=0) for end in ends)
        return low, high
    n = len(replicates)
    # replicates that are equal to the estimate, as zeros of an L1 norm are, count half; and no share is certain
    below = ((replicates < estimate).sum(0) + (replicates == estimate).sum(0) / 2) / n
    bias = ndtri(np.clip(below, 0.5 / n, 1 - 0.5 / n))
    low, high = (_quantiles(replicates, _corrected(ndtri(end), bias, acceleration)) for end in ends)
    return low, high


def _corrected(z: float, bias: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Compute which quantile of the replicates stands for the end z of a normal distribution."""
    shifted = bias + z
    room = 1 - acceleration * shifted
    # beyond a pole, the formula turns round: there it means the outermost replicate
    return np.where(room > 0, ndtr(bias + shifted / np.where(room > 0, room, 1.0)), ndtr(np.inf * np.sign(shifted)))


def _quantiles(replicates: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Find a quantile of its own for each of the columns (...) of replicates (B, ...)."""
    ordered, at = np.sort(replicates, axis=0), shares * (len(replicates) - 1)
    first = np.floor(at).astype(int)
    second = np.minimum(first + 1, len(replicates) - 1)
    low, high = (np.take_along_axis(ordered, index[None], axis=0)[0] for index in (first, second))
    return low + (at - first) * (high - low)


def accelerations(left_out: np.ndarray) -> np.ndarray:
    r"""Compute a sixth of the skewness of influences, :math:`\sum u_i^3 / 6 (\sum u_i^2)^{3/2}`.

    They are of estimates (m, ...) without each of m parts of the rows; what a part has moved is u. Zero where nothing
    has moved, or there are fewer than two parts.
    """
    if len(left_out) < 2:
        return np.zeros(left_out.shape[1:])
    influence = left_out.mean(0) - left_out
    # in units of the largest, so that no power overflows
    unit = np.abs(influence).max(0)
    influence = influence / np.where(unit > 0, unit, 1.0)
    square = (influence**2).sum(0)
    return (influence**3).sum(0) / (6 * np.where(square > 0, square, 1.0) ** 1.5)
