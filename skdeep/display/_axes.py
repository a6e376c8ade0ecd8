"""What the displays share: where to draw, and in which colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdeep.compat.sklearn import check_matplotlib_support

#: Distinct for colour-blind readers as well (Okabe & Ito, *Color Universal Design*, 2008); yellow comes last.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")


def get_axes(display: Any, ax: Any, n: int, figsize: tuple[float, float]) -> np.ndarray:
    """Choose the Axes to draw in: the given ones, else `n` in a row of a new figure in which nothing is cut off."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(1, n, squeeze=False, figsize=figsize, layout="constrained")[1][0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) > n:
        raise ValueError(f"ax has {len(axes)} Axes, and there {'is' if n == 1 else 'are'} only {n} to draw in.")
    return axes


def draw_means(ax: Any, places: np.ndarray, mean: np.ndarray, error: np.ndarray, linestyle: str = "-") -> Any:
    """Draw means of scores with their standard errors."""
    style: dict[str, Any] = {"color": COLORS[0], "marker": "o", "markersize": 4, "linestyle": linestyle}
    return ax.errorbar(places, mean, yerr=error, capsize=3, label="mean ± standard error", **style)


def spread_over_decades(values: np.ndarray) -> bool:
    """Say whether a logarithmic axis shows these values better."""
    values = np.asarray(values, dtype=float)
    positive = values[values > 0]
    return bool((values >= 0).all() and len(positive) and positive.max() >= 50 * positive.min())


def set_scale(ax: Any, direction: str, values: np.ndarray) -> None:
    """Make the "x" or "y" axis logarithmic; around zero linear, if zero is a value."""
    positive = values[values > 0]
    set_scale, set_limit = getattr(ax, f"set_{direction}scale"), getattr(ax, f"set_{direction}lim")
    if len(positive) == len(values):
        set_scale("log")
    elif len(positive):
        set_scale("symlog", linthresh=positive.min())
        set_limit(-positive.min() / 2)  # and no decades of negative values
