"""What a search has found: score over one or two parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.validation import check_is_fitted

from skdeep.display._axes import COLORS, draw_means, get_axes, set_scale, spread_over_decades
from skdeep.model_selection.choice import metrics_of, split_scores, standard_error

#: Labels of an axis at most; cells of a heat map at most for each to carry its number.
_MAX_LABELS, _MAX_NUMBERS = 12, 64
#: Characters side by side under an axis at most; more are slanted.
_MAX_CHARACTERS = 40


@dataclass(eq=False, repr=False, kw_only=True)
class SearchDisplay:
    """Cross-validated score over the values of one parameter (curve) or of two (heat map) of a search.

    The curve has error bars of one standard error of the mean over the splits. Two parameters of which not all pairs
    were tried, as in a randomised search, are points in the plane instead of cells. Where candidates differ in other
    parameters as well, each place shows the best of them; of a halving search, the best of its last iteration. The
    chosen candidate is marked.

    Parameters
    ----------
    params : dict of {str: list}
        Name and values (one per place) of one or two parameters.
    mean_score, standard_error : ndarray of shape (n_places,)
    best_index : int
        The place that is marked.
    score_name : str, default="score"

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.
    errorbar_ : ErrorbarContainer
        The curve (one parameter).
    image_ : AxesImage or PathCollection
        The heat map or points (two parameters).
    text_ : list of Text
        The numbers in the cells, if there are few enough.
    colorbar_ : Colorbar
        Of the heat map or points.
    best_ : Line2D
        The mark.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SGD, SoftmaxClassifier
    >>> from skdeep.display import SearchDisplay
    >>> from skdeep.model_selection import GridSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"alpha": [1e-4, 1e-3, 1e-2], "solver__momentum": [0.5, 0.9]}
    >>> softmax = SoftmaxClassifier(solver=SGD(), tol=1e-2, random_state=0)
    >>> search = GridSearchCV(softmax, grid, cv=3).fit(X, y)
    >>> display = SearchDisplay.from_estimator(search)
    >>> display.image_.get_array().shape, display.ax_.get_xlabel()
    ((2, 3), 'alpha')
    """

    params: dict[str, list]
    mean_score: np.ndarray
    standard_error: np.ndarray
    best_index: int
    score_name: str = "score"

    @classmethod
    def from_estimator(
        cls, search: BaseEstimator, *, params: str | list[str] | None = None, metric: str | None = None, ax: Any = None
    ) -> Self:
        """Draw a fitted search: any that has ``cv_results_``, scikit-learn's or skdeep's.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV, ...
        params : str or list of str, default=None
            One or two parameters, named as in the grid (or by the last part of that name); None takes those that
            vary, of which there may be two.
        metric : str, default=None
            Which score, for a search with several; None takes the one that ``refit`` names.
        ax
            See `plot`.
        """
        check_is_fitted(search, "cv_results_")
        several = getattr(search, "multimetric_", False)
        if metric is None and several and isinstance(search.refit, str):
            metric = search.refit
        default = "accuracy" if search.scoring is None and is_classifier(search) else "score"
        score_name = metric if several else search.scoring if isinstance(search.scoring, str) else default
        return cls.from_cv_results(
            search.cv_results_,
            params=params,
            metric=metric or "score",
            best_index=getattr(search, "best_index_", None) if not several or metric == search.refit else None,
            score_name=score_name,
            ax=ax,
        )

    @classmethod
    def from_cv_results(
        cls,
        cv_results: dict[str, Any],
        *,
        params: str | list[str] | None = None,
        metric: str = "score",
        best_index: int | None = None,
        score_name: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the results of a search.

        Parameters
        ----------
        cv_results : dict
            ``cv_results_``.
        params, ax
            As in `from_estimator`.
        metric : str, default="score"
            The score in ``mean_test_<metric>``.
        best_index : int, default=None
            The candidate to mark; None marks the best.
        score_name : str, default=None
            Label; None is `metric`.

        Raises
        ------
        ValueError
            If there is no such score or parameter, or not one or two parameters vary.
        """
        if metric not in (known := metrics_of(cv_results)):
            raise ValueError(f"The search has no score {metric!r}, only {known}. Choose one: metric={known[0]!r}.")
        names = _varying(cv_results) if params is None else _named(cv_results, params)
        mean = np.asarray(cv_results[f"mean_test_{metric}"], dtype=float)
        error = standard_error(split_scores(cv_results, metric))
        if best_index is None:
            best_index = int(np.nanargmax(mean)) if not np.isnan(mean).all() else 0
        iteration = np.asarray(cv_results.get("iter", np.zeros(len(mean))))
        columns = [list(cv_results[f"param_{name}"]) for name in names]
        places: dict[tuple, int] = {}
        # the last to claim a place has it: later iterations, then higher scores, then the chosen candidate
        for i in np.lexsort((np.arange(len(mean)) == best_index, np.nan_to_num(mean, nan=-np.inf), iteration)):
            places[tuple(_key(column[i]) for column in columns)] = i
        places[tuple(_key(column[best_index]) for column in columns)] = best_index
        rows = sorted(places.values())
        display = cls(
            params={name: [column[i] for i in rows] for name, column in zip(names, columns, strict=True)},
            mean_score=mean[rows],
            standard_error=error[rows],
            best_index=rows.index(best_index),
            score_name=score_name or metric,
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None, *, cmap: Any = "viridis") -> Self:
        """Draw the curve, heat map or points.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.
        cmap : str or Colormap, default="viridis"
            Colours of the scores.
        """
        axes = [_Axis(values) for values in self.params.values()]
        size = (5.5, 4) if len(axes) == 1 else (6.2, 4.6)
        (self.ax_,) = get_axes(self, ax, 1, size)
        self.figure_ = self.ax_.figure
        if len(axes) == 1:
            self._draw_curve(*axes)
        elif len(self.mean_score) == len(axes[0].distinct) * len(axes[1].distinct):
            self._draw_cells(axes[0], axes[1], cmap)
        else:
            self._draw_points(axes[0], axes[1], cmap)
        labels = [name.rpartition("__")[2] for name in self.params]
        if len(set(labels)) < len(labels):  # of two steps of a pipeline
            labels = list(self.params)
        self.ax_.set(xlabel=labels[0], ylabel=labels[1] if len(axes) == 2 else self.score_name)
        return self

    def _draw_curve(self, axis: _Axis) -> None:
        order = np.argsort(axis.place, kind="stable")
        curve = axis.place[order], self.mean_score[order], self.standard_error[order]
        self.errorbar_ = draw_means(self.ax_, *curve, "-" if axis.numeric else "none")
        axis.label(self.ax_, "x")
        b = self.best_index
        (self.best_,) = self.ax_.plot(
            axis.place[b], self.mean_score[b], "*", color=COLORS[3], markersize=14, zorder=3, label="chosen"
        )
        self.ax_.grid(alpha=0.3)
        self.ax_.legend(fontsize="small")

    def _draw_cells(self, x: _Axis, y: _Axis, cmap: Any) -> None:
        grid = np.full((len(y.distinct), len(x.distinct)), np.nan)
        grid[y.rank, x.rank] = self.mean_score
        self.image_ = self.ax_.imshow(grid, cmap=cmap, origin="lower", aspect="auto")
        self.text_ = []
        if grid.size <= _MAX_NUMBERS:
            middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
            for (row, column), score in np.ndenumerate(grid):
                color = "black" if score > middle else "white"
                self.text_.append(self.ax_.text(column, row, f"{score:.3g}", ha="center", va="center", color=color))
        x.label_ranks(self.ax_, "x")
        y.label_ranks(self.ax_, "y")
        column, row = x.rank[self.best_index], y.rank[self.best_index]
        frame = np.array([-0.5, 0.5, 0.5, -0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5, -0.5])
        (self.best_,) = self.ax_.plot(
            column + frame[0], row + frame[1], color=COLORS[3], linewidth=3, clip_on=False, label="chosen"
        )
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=self.ax_, label=self.score_name)

    def _draw_points(self, x: _Axis, y: _Axis, cmap: Any) -> None:
        self.image_ = self.ax_.scatter(x.place, y.place, c=self.mean_score, cmap=cmap, s=60, edgecolor="black", lw=0.5)
        x.label(self.ax_, "x")
        y.label(self.ax_, "y")
        b = self.best_index
        (self.best_,) = self.ax_.plot(
            x.place[b], y.place[b], "o", color=COLORS[3], fillstyle="none", markersize=14, mew=2.5, label="chosen"
        )
        self.ax_.grid(alpha=0.3)
        self.ax_.set_axisbelow(True)
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=self.ax_, label=self.score_name)


class _Axis:
    """The values of a parameter: numbers where they are, others side by side in the order they came."""

    def __init__(self, values: list) -> None:
        keys = [_key(value) for value in values]
        self.numeric = all(isinstance(key, float) for key in keys)
        self.distinct: list[Any] = sorted(set(keys)) if self.numeric else list(dict.fromkeys(keys))
        self.rank = np.array([self.distinct.index(key) for key in keys])
        self.place = np.array(keys) if self.numeric else self.rank

    def label(self, ax: Any, direction: str) -> None:
        """Label the "x" or "y" axis of a curve or of points."""
        if not self.numeric:
            self.label_ranks(ax, direction)
        elif spread_over_decades(self.place):
            set_scale(ax, direction, self.place)

    def label_ranks(self, ax: Any, direction: str) -> None:
        """Name the places 0, 1, ...; of many, some."""
        shown = np.arange(0, len(self.distinct), math.ceil(len(self.distinct) / _MAX_LABELS))
        keys = [self.distinct[i] for i in shown]
        names = [f"{key:.3g}" if isinstance(key, float) else key.strip("'") for key in keys]
        slanted = direction == "x" and max(map(len, names)) * len(names) > _MAX_CHARACTERS
        style = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        getattr(ax, f"set_{direction}ticks")(shown, names, **style)


def _key(value: Any) -> float | str:
    """Make a number or text of a parameter's value, which can be compared."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool | np.bool_) else repr(value)


def _varying(cv_results: dict[str, Any]) -> list[str]:
    """Name the one or two parameters in which the candidates differ."""
    names = sorted(key.removeprefix("param_") for key in cv_results if key.startswith("param_"))
    varying = [name for name in names if len({_key(value) for value in cv_results[f"param_{name}"]}) > 1]
    varying = varying or names[:1]
    if not 1 <= len(varying) <= 2:
        raise ValueError(
            f"The candidates differ in {len(varying)} parameters, {varying}, and a picture shows one or two. Choose "
            f"them: params={varying[:2]}."
        )
    return varying


def _named(cv_results: dict[str, Any], params: str | list[str]) -> list[str]:
    """Complete the names of the parameters that the user asks for."""
    wanted = [params] if isinstance(params, str) else list(params)
    known = [key.removeprefix("param_") for key in cv_results if key.startswith("param_")]
    names = []
    for want in wanted:
        found = [name for name in known if name == want] or [n for n in known if n.rpartition("__")[2] == want]
        if len(found) != 1:
            raise ValueError(f"params has {want!r}, and the search has {known}. Name one or two of these.")
        names += found
    if len(set(names)) != len(wanted) or len(names) not in (1, 2):
        raise ValueError(f"params={params!r} must name one or two different parameters of {known}.")
    return names
