"""How much to regularise: coefficients and scores over alpha."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from skdeep.compat.sklearn import check_matplotlib_support
from skdeep.data.inputs import Data
from skdeep.display._axes import COLORS, draw_means, get_axes, set_scale
from skdeep.fitting.fitted import names_of_rows
from skdeep.model_selection.evaluation import final_step
from skdeep.model_selection.path import RegularizationPath, regularization_path


@dataclass(eq=False, repr=False, kw_only=True)
class RegularizationPathDisplay:
    """Coefficients and cross-validated score against alpha; the best alpha, and the one by one standard error, marked.

    Error bars are one standard error of the mean over the splits. With several rows of ``coef_``, each class has its
    colour; with one row, each column of X (if there are few).

    Parameters
    ----------
    path : RegularizationPath
        What `regularization_path` returned. Where ``coefs`` is None, no coefficients are drawn.
    names : list of str, default=None
        Of the classes; for a single row of coefficients, of the columns. None takes them from the estimators.
    score_name : str, default="score"

    Attributes
    ----------
    axes_, figure_
        Where it was drawn; ``ax_`` is the panel of scores, always the last.
    coef_lines_ : list of Line2D
        One per coefficient, row by row; empty without coefficients.
    errorbar_ : ErrorbarContainer
        The scores.
    best_lines_, one_standard_error_lines_ : list of Line2D
        The marks, one per panel.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.display import RegularizationPathDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> softmax = SoftmaxClassifier("l1", random_state=0)
    >>> display = RegularizationPathDisplay.from_estimator(softmax, X, y, np.logspace(-4, 0, 5))
    >>> len(display.coef_lines_), display.ax_.get_xscale()
    (12, 'log')
    """

    path: RegularizationPath
    names: list[str] | None = None
    score_name: str = "score"

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Data,
        y: Data,
        alphas: ArrayLike,
        *,
        names: list[str] | None = None,
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Compute a path and draw it.

        Parameters
        ----------
        estimator, X, y, alphas
            As in `regularization_path`.
        names, ax
            As in `from_path`.
        **options
            Passed to `regularization_path`: ``cv``, ``scoring`` or ``n_jobs``, for example.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        path = regularization_path(estimator, X, y, alphas, **options)
        scoring = options.get("scoring")
        score_name = "accuracy" if scoring is None else scoring if isinstance(scoring, str) else "score"
        return cls.from_path(path, names=names, score_name=score_name, ax=ax)

    @classmethod
    def from_path(
        cls, path: RegularizationPath, *, names: list[str] | None = None, score_name: str = "score", ax: Any = None
    ) -> Self:
        """Draw a path.

        Parameters
        ----------
        path, names, score_name
            See above.
        ax
            See `plot`.
        """
        return cls(path=path, names=names, score_name=score_name).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw coefficients and scores.

        Parameters
        ----------
        ax : Axes or pair of Axes, default=None
            A pair takes coefficients and scores, a single one the scores. None makes a figure.
        """
        path = self.path
        n = 1 if path.coefs is None else 2
        self.axes_ = get_axes(self, ax, n, (5.5 * n, 4))
        self.ax_, self.figure_ = self.axes_[-1], self.axes_[-1].figure
        order = np.argsort(path.alphas)
        self.coef_lines_ = self._draw_coefs(self.axes_[0], order) if len(self.axes_) == 2 else []
        self.errorbar_ = draw_means(self.ax_, path.alphas[order], path.mean_score[order], path.standard_error[order])
        best, simplest = path.alphas[path.best_index], path.alphas[path.one_standard_error_index]
        marks: dict[str, list] = {"best": [], "simplest": []}
        for axes in self.axes_:
            marks["best"].append(axes.axvline(best, color="black", linestyle="--", label=f"best, {best:.3g}"))
            label = f"one standard error, {simplest:.3g}"
            marks["simplest"].append(axes.axvline(simplest, color=COLORS[3], linestyle=":", linewidth=2.5, label=label))
            set_scale(axes, "x", path.alphas)
            axes.set_xlabel("alpha")
            axes.grid(alpha=0.3)
        self.best_lines_, self.one_standard_error_lines_ = marks["best"], marks["simplest"]
        self.ax_.set_ylabel(self.score_name)
        self.ax_.legend(fontsize="small")
        return self

    def _draw_coefs(self, axes: Any, order: np.ndarray) -> list[Any]:
        import matplotlib.pyplot as plt

        coefs = self.path.coefs
        assert coefs is not None
        _, n_rows, n_features = coefs.shape
        n_groups = n_features if n_rows == 1 else n_rows
        colors = COLORS if n_groups <= len(COLORS) else plt.get_cmap("viridis")(np.linspace(0, 1, n_groups))
        style = {"linewidth": 1.5 if n_features * n_rows <= 40 else 0.7, "alpha": 1 if n_rows == 1 else 0.7}
        lines = []
        for row in range(n_rows):
            for column in range(n_features):
                group = column if n_rows == 1 else row
                (line,) = axes.plot(self.path.alphas[order], coefs[order, row, column], color=colors[group], **style)
                lines.append(line)
        if n_groups <= 12:
            first = lines if n_rows == 1 else lines[::n_features]
            names = _names(self.path, n_rows, n_features) if self.names is None else self.names
            # where the coefficients have gone to zero, there is room
            axes.legend(first, [str(name) for name in names], fontsize="small", loc="upper right")
        axes.set_ylabel("coefficient")
        return lines


def _names(path: RegularizationPath, n_rows: int, n_features: int) -> list[str]:
    """Name the classes, or the columns where there is one row of coefficients."""
    final = final_step(path.estimators[0])
    if n_rows > 1:
        return names_of_rows(final, n_rows)
    return list(getattr(final, "feature_names_in_", [f"column {i}" for i in range(n_features)]))
