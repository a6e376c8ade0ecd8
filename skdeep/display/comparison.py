"""Models compared on the same splits: a forest plot of their differences."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skdeep.display._axes import COLORS, get_axes
from skdeep.model_selection.comparison import Comparison

#: Colours of the verdicts, of which green and orange are told apart by colour-blind readers.
_VERDICTS = {"better": COLORS[2], "worse": COLORS[3], "equal": COLORS[0]}
_UNDECIDED = "0.35"
#: How far the dots of splits lie from the line of their contestant, in rows.
_OFFSET = 0.28
#: Letters of a contestant's name in a line, and lines.
_WIDTH, _LINES = 28, 3


@dataclass(eq=False, repr=False, kw_only=True)
class ComparisonDisplay:
    """Differences from the reference: the mean, its interval, the splits as dots, and what makes no difference shaded.

    Right of zero is better. An interval's colour is the verdict: green is better, vermilion worse, blue equal, grey
    undecided.

    Parameters
    ----------
    comparison : Comparison
        What `compare` has found.
    metric : str, default=None
        None is the first.

    Attributes
    ----------
    names : list of str
        The contestants beside the reference, from top to bottom.
    ax_, figure_
        Where it was drawn.
    dots_, means_ : list of (PathCollection or None), list of (Line2D or None)
        One per contestant.
    interval_lines_ : list of (Line2D or None)
    rope_ : Polygon, Rectangle or None
        What is shaded.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.dummy import DummyClassifier
    >>> from skdeep import HingeClassifier, SoftmaxClassifier, compare
    >>> from skdeep.display import ComparisonDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"softmax": SoftmaxClassifier(), "hinge": HingeClassifier(), "dummy": DummyClassifier()}
    >>> display = ComparisonDisplay.from_comparison(compare(models, X, y))
    >>> [text.get_text() for text in display.ax_.get_yticklabels()]
    ['hinge', 'dummy']
    """

    comparison: Comparison
    metric: str | None = None

    @classmethod
    def from_comparison(cls, comparison: Comparison, metric: str | None = None, *, ax: Any = None) -> Self:
        """Draw what `compare` has found.

        Parameters
        ----------
        comparison, metric
            See above.
        ax
            See `plot`.

        Raises
        ------
        ValueError
            If there is no such metric, or no contestant beside the reference.
        """
        return cls(comparison=comparison, metric=metric).plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the differences.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.
        """
        found, reference = self.comparison, self.comparison.reference
        metric = found.metrics[0] if self.metric is None else self.metric
        if metric not in found.metrics:
            raise ValueError(f"There is no metric {metric!r}; there are {', '.join(found.metrics)}.")
        rows = [row for row in found.rows() if row["metric"] == metric and row["contestant"] != reference]
        if not rows:
            raise ValueError(f"There is nothing to draw: {reference} is the only contestant.")
        self.names: list[str] = [row["contestant"] for row in rows]
        rope, scores = found.rope[metric], found.scores[metric]
        self.ax_ = get_axes(self, ax, 1, (6.5, 1.4 + 0.5 * len(rows)))[0]
        self.figure_ = self.ax_.figure
        self.rope_ = self.ax_.axvspan(-rope, rope, color="0.9", zorder=0) if rope else None
        self.ax_.axvline(0, color="black", linewidth=0.8, zorder=1)
        self.dots_: list[Any] = []
        self.means_: list[Any] = []
        self.interval_lines_: list[Any] = []
        for place, row in enumerate(rows):
            self._draw(place, row, scores[row["contestant"]] - scores[reference])
        wrapped = ["\n".join(textwrap.wrap(name, _WIDTH)[:_LINES]) for name in self.names]
        self.ax_.set_yticks(range(len(rows)), wrapped)
        self.ax_.set_ylim(len(rows) - 0.5, -0.5)  # the first is on top
        shaded = f"; shaded: equal within {rope:g}" if rope else ""
        label = textwrap.fill(f"{metric}, difference from {reference}", 2 * _WIDTH)
        self.ax_.set_xlabel(f"{label}\n(right is better{shaded})")
        self.ax_.grid(axis="x", alpha=0.3)
        return self

    def _draw(self, place: int, row: dict[str, Any], differences: np.ndarray) -> None:
        """Draw one contestant; one without scores is said to have failed."""
        if not np.isfinite(differences).all():
            where = {"transform": self.ax_.get_yaxis_transform(), "va": "center"}  # from the left, wherever zero is
            self.ax_.text(0.02, place, "no scores of all splits", fontsize="small", style="italic", **where)
            for artists in (self.dots_, self.means_, self.interval_lines_):
                artists.append(None)
            return
        color, ends = _VERDICTS.get(row["verdict"], _UNDECIDED), (row["low"], row["high"])
        # in the order of the splits, so that dots of one value lie beside each other
        spread = np.linspace(-1, 1, len(differences)) * 0.08 if len(differences) > 1 else np.zeros(1)
        style = {"s": 14, "color": color, "alpha": 0.45, "linewidths": 0, "zorder": 2}
        self.dots_.append(self.ax_.scatter(differences, place + _OFFSET + spread, **style))
        line = None
        if not math.isnan(ends[0]):
            (line,) = self.ax_.plot(ends, [place, place], color=color, linewidth=2.5, solid_capstyle="butt")
        self.interval_lines_.append(line)
        (mean,) = self.ax_.plot(differences.mean(), place, "o", color=color, markersize=7)
        self.means_.append(mean)


def as_svg(comparison: Comparison, metric: str) -> str:
    """Draw what `compare` has found of a metric as an element of HTML, on no screen."""
    from matplotlib.figure import Figure

    figure, text = Figure(figsize=(6.5, 1 + 0.5 * len(comparison.names)), layout="constrained"), io.StringIO()
    ComparisonDisplay.from_comparison(comparison, metric, ax=figure.subplots())
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]
