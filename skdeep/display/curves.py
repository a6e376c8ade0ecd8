"""How training went: loss and score of each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skdeep.display._axes import COLORS, get_axes
from skdeep.model_selection.evaluation import final_step

#: What skorch users call the score on the training rows: ``EpochScoring("accuracy", name="train_acc", on_train=True)``.
_TRAIN_SCORES = ("train_acc", "train_score")


@dataclass(eq=False, repr=False, kw_only=True)
class LossCurveDisplay:
    """Training and validation loss, and scores, of each epoch; several estimators overlaid.

    Training is drawn solid, validation dashed, each estimator in a colour of its own. There is a panel of scores if any
    estimator has some.

    Parameters
    ----------
    names : list of str
        Of the estimators.
    losses : list of array-like
        Training loss of each epoch (the objective), one array per estimator.
    validation_losses, train_scores, validation_scores : list of (array-like or None), default=None
        The like, with None for an estimator that has none. Those shorter than `losses` are of the last epochs.
    score_name : str, default="score"
        Label of the axis of scores.

    Attributes
    ----------
    axes_, figure_
        Where it was drawn; ``ax_`` is the panel of losses.
    loss_lines_, validation_loss_lines_, train_score_lines_, validation_score_lines_ : list of (Line2D or None)
        One per estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import HingeClassifier, SoftmaxClassifier
    >>> from skdeep.display import LossCurveDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> models = [c(early_stopping=True, random_state=0).fit(X, y) for c in (SoftmaxClassifier, HingeClassifier)]
    >>> display = LossCurveDisplay.from_estimators(models)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'accuracy']
    """

    names: list[str]
    losses: list[Any]
    validation_losses: list[Any] | None = None
    train_scores: list[Any] | None = None
    validation_scores: list[Any] | None = None
    score_name: str = "score"

    @classmethod
    def from_estimator(cls, estimator: BaseEstimator, *, name: str | None = None, ax: Any = None) -> Self:
        """Draw the curves of one fitted estimator: `from_estimators` with a list of one."""
        return cls.from_estimators([estimator], names=None if name is None else [name], ax=ax)

    @classmethod
    def from_estimators(
        cls, estimators: list[BaseEstimator], *, names: list[str] | None = None, ax: Any = None
    ) -> Self:
        """Draw the curves of fitted estimators.

        Parameters
        ----------
        estimators : list of estimators with ``loss_curve_``, or of Pipelines that end in one
            ``validation_loss_curve_`` and ``validation_scores_`` are drawn where there are any. The score on the
            training rows is drawn where a callback recorded it:
            ``EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)`` of skorch.
        names : list of str, default=None
            None shows the classes' names.
        ax
            See `plot`.

        Raises
        ------
        TypeError
            If an estimator has no ``loss_curve_``.
        """
        finals = [final_step(estimator) for estimator in estimators]
        for final in finals:
            check_is_fitted(final)
            if not hasattr(final, "loss_curve_"):
                raise TypeError(f"LossCurveDisplay needs loss_curve_, and {type(final).__name__} has none.")
        if names is not None and len(names) != len(finals):
            raise ValueError(f"names has {len(names)} names for {len(finals)} estimators.")
        scorings = {_score_name(final) for final in finals}
        display = cls(
            names=names or [type(final).__name__ for final in finals],
            losses=[final.loss_curve_ for final in finals],
            validation_losses=[getattr(final, "validation_loss_curve_", None) for final in finals],
            train_scores=[_recorded(final) for final in finals],
            validation_scores=[getattr(final, "validation_scores_", None) for final in finals],
            score_name=scorings.pop() if len(scorings) == 1 else "score",
        )
        return display.plot(ax=ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes or pair of Axes, default=None
            A pair takes losses and scores, a single one the losses. None makes a figure.
        """
        curves: dict[str, list | None] = {
            "loss": self.losses,
            "validation_loss": self.validation_losses,
            "train_score": self.train_scores,
            "validation_score": self.validation_scores,
        }
        filled = {kind: values or [None] * len(self.names) for kind, values in curves.items()}
        scored = any(values is not None for kind in ("train_score", "validation_score") for values in filled[kind])
        self.axes_ = get_axes(self, ax, 1 + scored, (5.5 * (1 + scored), 4))
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        ends = [len(losses) for losses in self.losses]
        taken = len({line.get_color() for line in self.ax_.lines})  # by another display's estimators
        for kind, values in filled.items():
            panel = self.axes_[1:] if "score" in kind else self.axes_[:1]
            lines = [
                self._line(panel[0], i, kind, v, ends[i], taken) if len(panel) else None for i, v in enumerate(values)
            ]
            setattr(self, f"{kind}_lines_", lines)
        for axes, label in zip(self.axes_, ("loss", self.score_name), strict=False):
            axes.set(xlabel="epoch", ylabel=label)
            axes.locator_params(axis="x", integer=True, min_n_ticks=1)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        return self

    def _line(self, axes: Any, number: int, kind: str, values: Any, end: int, taken: int) -> Any:
        if values is None:
            return None
        validation = kind.startswith("validation")
        label = f"{self.names[number]}, {'validation' if validation else 'training'}"
        epochs = np.arange(end - len(values) + 1, end + 1)
        style = {"color": COLORS[(taken + number) % len(COLORS)], "linestyle": "--" if validation else "-"}
        # a single epoch is a point, which no line shows
        return axes.plot(epochs, values, label=label, marker="o" if len(values) == 1 else None, **style)[0]


def _score_name(final: BaseEstimator) -> str:
    scoring = getattr(final, "scoring", None)
    return {None: "accuracy", "loss": "negative loss"}.get(scoring, scoring if isinstance(scoring, str) else "score")


def _recorded(final: BaseEstimator) -> list[float] | None:
    """Find the training score of each epoch that a callback of skorch recorded, if one did."""
    history = getattr(final, "history_", None) or [{}]
    name = next((name for name in _TRAIN_SCORES if name in history[-1]), None)
    return None if name is None else [epoch[name] for epoch in history]
