"""What coefficients are, and how well they are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from skdeep.compat.sklearn import check_matplotlib_support
from skdeep.data.inputs import Data
from skdeep.display._axes import COLORS, get_axes
from skdeep.model_selection.bootstrap import bootstrap_coefficients
from skdeep.model_selection.intervals import BootstrapCoefficients

#: Columns that are drawn if nobody says how many.
_MOST = 20


@dataclass(eq=False, repr=False, kw_only=True)
class CoefficientsDisplay:
    """Coefficients with their intervals, a line for each column of X, the largest at the top.

    Several rows of ``coef_`` have a colour each. An interval that holds zero is pale: the sign of the coefficient
    is not known.

    Parameters
    ----------
    coef, low, high : ndarray of shape (n_rows, n_features)
        Coefficients, and the ends of their intervals.
    feature_names : list of str
        Of the columns.
    row_names : list of str, default=None
        Of the rows: the classes. None has no legend.
    confidence : float, default=0.95
        Of the intervals.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.
    intervals_, points_ : list of ErrorbarContainer, list of Line2D
        For each row, its coefficients whose sign is known, and then the others.
    columns_ : ndarray of int
        The columns of X, from the top down.

    See Also
    --------
    skdeep.model_selection.bootstrap_coefficients : Where intervals come from.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.display import CoefficientsDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> display = CoefficientsDisplay.from_estimator(SoftmaxClassifier(), X, y, n_resamples=20, random_state=0)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()][-1]
    'sepal length (cm)'
    """

    coef: np.ndarray
    low: np.ndarray
    high: np.ndarray
    feature_names: list[str]
    row_names: list[str] | None = None
    confidence: float = 0.95

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Data,
        y: Data,
        *,
        confidence: float = 0.95,
        method: str = "bca",
        ax: Any = None,
        max_columns: int = _MOST,
        **options: Any,
    ) -> Self:
        """Fit an estimator to resamples of the rows, and draw its coefficients.

        Parameters
        ----------
        estimator, X, y
            As in `bootstrap_coefficients`.
        confidence, method, ax, max_columns
            As in `from_bootstrap`.
        **options
            Passed to `bootstrap_coefficients`: ``n_resamples`` or ``random_state``, for example.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        found = bootstrap_coefficients(estimator, X, y, **options)
        return cls.from_bootstrap(found, confidence=confidence, method=method, ax=ax, max_columns=max_columns)

    @classmethod
    def from_bootstrap(
        cls,
        found: BootstrapCoefficients,
        *,
        confidence: float = 0.95,
        method: str = "bca",
        ax: Any = None,
        max_columns: int = _MOST,
    ) -> Self:
        """Draw coefficients that have been resampled.

        Parameters
        ----------
        found : BootstrapCoefficients
            What `bootstrap_coefficients` returned.
        confidence : float, default=0.95
        method : {"bca", "percentile"}, default="bca"
            See `BootstrapCoefficients.interval`.
        ax, max_columns
            See `plot`.
        """
        low, high = found.interval(confidence, method)
        rows = [str(label) for label in found.classes] if len(found.coef) > 1 else None
        names: dict[str, Any] = {"feature_names": found.feature_names, "row_names": rows}
        display = cls(coef=found.coef, low=low, high=high, confidence=confidence, **names)
        return display.plot(ax=ax, max_columns=max_columns)

    def plot(self, ax: Any = None, *, max_columns: int = _MOST) -> Self:
        """Draw the coefficients.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.
        max_columns : int, default=20
            Columns with the largest coefficients that are drawn.
        """
        coef, low, high = (np.atleast_2d(part) for part in (self.coef, self.low, self.high))
        n_rows = len(coef)
        self.columns_ = np.argsort(-np.abs(coef).max(0), kind="stable")[:max_columns]
        n = len(self.columns_)
        (self.ax_,) = get_axes(self, ax, 1, (6.4, 1.2 + 0.3 * n * max(1.0, n_rows / 2)))
        self.figure_ = self.ax_.figure
        self.intervals_: list[Any] = []
        self.points_: list[Any] = []
        for row in range(n_rows):
            # side by side within the line of a column
            at = np.arange(n) + (row - (n_rows - 1) / 2) * 0.7 / n_rows
            ends = low[row, self.columns_], high[row, self.columns_]
            known = (ends[0] > 0) | (ends[1] < 0)
            label = None if self.row_names is None else self.row_names[row]
            for part, alpha in ((known, 1.0), (~known, 0.35)):
                style = {"color": COLORS[row % len(COLORS)], "alpha": alpha}
                # the middle of an interval that is corrected for bias is not the coefficient
                middle, half = (ends[0] + ends[1])[part] / 2, (ends[1] - ends[0])[part] / 2
                self.intervals_.append(self.ax_.errorbar(middle, at[part], xerr=half, fmt="none", capsize=2, **style))
                values = coef[row, self.columns_][part]
                name = label if part is known else None
                (points,) = self.ax_.plot(values, at[part], "o", markersize=4, label=name, **style)
                self.points_.append(points)
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.set_yticks(range(n), [self.feature_names[c] for c in self.columns_])
        self.ax_.set(xlabel=f"coefficient, {self.confidence:.4g} interval", ylim=(n - 0.5, -0.5))
        self.ax_.grid(axis="x", alpha=0.3)
        if self.row_names is not None:
            self.ax_.legend(fontsize="small")
        return self
