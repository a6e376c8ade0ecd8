"""What a linear classifier looks for, as images."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skdeep.data.inputs import Data, dense, to_numpy
from skdeep.display._axes import get_axes
from skdeep.fitting.fitted import names_of_rows
from skdeep.images import as_images, largest, signed_colors
from skdeep.model_selection.evaluation import final_step, steps_before

#: Inches from one picture to the next, at least and at most; of a character of a title, and of its lines.
_SIDE, _CHARACTER, _LINE = (0.85, 1.6), 0.085, 0.17
#: Points of a title; characters in a line of it; pictures in a row.
_FONT_SIZE, _WRAP, _MAX_COLUMNS = 10, 12, 10


@dataclass(eq=False, repr=False, kw_only=True)
class TemplatesDisplay:
    r"""The rows of ``coef_`` as images, each above the mean image of its class.

    The score of class c is :math:`w_c^\top x + b_c`: it is high where x is bright at the positive (blue) pixels of the
    template :math:`w_c` and dark at the negative (red) ones. White is zero, and all templates have one scale. Weights
    for red, green and blue are shown as these colours, around grey for zero.

    Two classes have one template, for ``classes_[1]`` (its negative is the other's), and two mean images.

    Parameters
    ----------
    templates : ndarray of shape (n_templates, h, w) or (n_templates, h, w, 3)
        Weights.
    names : list of str
        Of the templates.
    means : ndarray of shape (n_means, h, w) or (n_means, h, w, 3), default=None
        Mean images; drawn from the smallest value (black) to the largest (white).
    mean_names : list of str, default=None
        Of the mean images; None for the templates' names.
    scaled : str, default=None
        What the classifier's columns are, where they are not the pixels: a note for the colour bar.

    Attributes
    ----------
    ax_, figure_
        Where it was drawn.
    images_, mean_images_ : list of AxesImage
        The templates, the mean images.
    titles_ : list of Text
        Above the images.
    colorbar_ : Colorbar or None
        None for templates in colour.

    See Also
    --------
    skdeep.logs.TensorBoardLogger : Templates of each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.display import TemplatesDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> softmax = SoftmaxClassifier(random_state=0).fit(X, y)
    >>> display = TemplatesDisplay.from_estimator(softmax, X, y, image_shape=(8, 8))
    >>> len(display.images_), len(display.mean_images_)
    (10, 10)
    """

    templates: np.ndarray
    names: list[str]
    means: np.ndarray | None = None
    mean_names: list[str] | None = None
    scaled: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Data = None,
        y: Data = None,
        *,
        image_shape: tuple[int, ...],
        class_names: list[str] | None = None,
        ax: Any = None,
        n_cols: int | None = None,
    ) -> Self:
        """Draw the templates of a fitted linear classifier.

        Parameters
        ----------
        estimator : estimator with ``coef_``, or a Pipeline that ends in one
            Earlier steps may change the values of the columns, but each must stay the same pixel. The templates are
            ``coef_``, weights of what these steps return: after a StandardScaler, a weight is the effect of one
            standard deviation. (Weights of the pixels themselves, ``coef_ / scale_``, are largest where a pixel hardly
            ever changes, and show little else.)
        X : array-like of shape (n_samples, n_features), default=None
            Images as passed to the estimator, for the mean images; None draws only templates.
        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Their classes. A class without a sample has an empty mean image.
        image_shape : tuple of int
            ``(h, w)``, ``(h, w, 3)`` or ``(3, h, w)``: how the columns make an image.
        class_names : list of str, default=None
            In the order of ``classes_``; None shows these.
        ax, n_cols
            See `plot`.

        Raises
        ------
        TypeError
            If the classifier has no ``coef_``.
        ValueError
            If the columns are not the pixels of such an image, or only one of X and y is given.
        """
        check_is_fitted(estimator)
        final = final_step(estimator)
        if not hasattr(final, "coef_"):
            raise TypeError(f"TemplatesDisplay shows coef_ of a linear classifier; {type(final).__name__} has none.")
        if (X is None) != (y is None):
            raise ValueError("X and y belong together; pass both for the mean images, or neither.")
        coef = np.atleast_2d(dense(final.coef_))
        classes = getattr(final, "classes_", np.arange(len(coef)))
        names = names_of_rows(final, len(coef)) if class_names is None else [str(name) for name in class_names]
        if len(names) != len(classes):
            raise ValueError(f"class_names has {len(names)} names for {len(classes)} classes.")
        scaled = _changes_of_columns(estimator)
        templates, means = as_images(coef, image_shape), None
        if X is not None and hasattr(final, "classes_"):
            means = as_images(_means(X, y, classes), image_shape)
        of_pair = len(coef) == 1 and len(classes) == 2
        template_names = [f"{names[1]} (+)\n{names[0]} (\N{MINUS SIGN})"] if of_pair else names
        display = cls(templates=templates, names=template_names, means=means, mean_names=names, scaled=scaled)
        return display.plot(ax=ax, n_cols=n_cols)

    def plot(self, ax: Any = None, *, n_cols: int | None = None, cmap: Any = "RdBu") -> Self:
        """Draw the images.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure of a suitable size.
        n_cols : int, default=None
            Images beside each other; None is up to 10, in rows of equal length.
        cmap : str or Colormap, default="RdBu"
            Diverging colours of the templates.
        """
        groups = [self.templates] if self.means is None else [self.templates, self.means]
        own_titles = self.mean_names not in (None, self.names)
        titles = [self.names, list(self.mean_names or []) if own_titles else [""] * len(groups[-1])][: len(groups)]
        titles = [[_wrapped(name) for name in names] for names in titles]
        lines = [name.split("\n") for names in titles for name in names]
        longest, n_lines = max(1, *(len(line) for name in lines for line in name)), max(map(len, lines))
        n, (height, width) = max(map(len, groups)), self.templates.shape[1:3]
        n_cols = n_cols or math.ceil(n / math.ceil(n / _MAX_COLUMNS))
        n_bands, colored = math.ceil(n / n_cols), self.templates.ndim == 4
        side = float(np.clip(_CHARACTER * longest, *_SIDE))
        # lengths in pixels of the images; downwards: a title, a template, a title or a gap, a mean image, a gap
        gap = 0.12 * max(height, width)
        column = width + gap
        title = (0.05 + _LINE * n_lines) * column / side
        tops = [title, title + height + (title if own_titles else gap)][: len(groups)]
        band = tops[-1] + height + gap
        margin = (0.2 if self.means is None else 0.9) + (0.1 if colored else 0.9)  # for labels and the colour bar
        figsize = (n_cols * side + margin, max(1.8, n_bands * band * side / column + 0.2))

        (self.ax_,) = get_axes(self, ax, 1, figsize)
        self.figure_ = self.ax_.figure
        room = self.ax_.get_window_extent().width / self.figure_.dpi / n_cols  # inches for a title
        font_size = min(_FONT_SIZE, _FONT_SIZE * room / (_CHARACTER * longest))
        self.titles_: list[Any] = []
        drawn = []
        for images, names, top, style in zip(self._pictures(), titles, tops, self._styles(cmap), strict=False):
            places = [((i % n_cols) * column, (i // n_cols) * band + top) for i in range(len(images))]
            drawn.append(self._draw(images, names, places, font_size, style))
        self.images_, self.mean_images_ = drawn[0], drawn[1] if len(drawn) == 2 else []
        self.ax_.set(xlim=(-gap, n_cols * column), ylim=(n_bands * band, 0), aspect="equal", xticks=[], yticks=[])
        if self.means is not None:
            centers = [b * band + top + height / 2 for b in range(n_bands) for top in tops]
            self.ax_.set_yticks(centers, ["template", "mean image"] * n_bands)
        self.ax_.tick_params(length=0)
        self.ax_.spines[:].set_visible(False)
        self.colorbar_ = None
        if not colored:
            label = "weight" if self.scaled is None else f"weight after\n{self.scaled}"
            self.colorbar_ = self.figure_.colorbar(self.images_[0], ax=self.ax_, label=label, shrink=0.9)
        self.ax_.set_anchor("W")  # else the labels on the left may be cut off where the figure is wider than needed
        return self

    def _pictures(self) -> list[np.ndarray]:
        """Prepare templates and mean images as Matplotlib takes them."""
        colored = self.templates.ndim == 4
        pictures = [signed_colors(self.templates) if colored else self.templates]
        if self.means is not None:
            low, high = np.nanmin(self.means), np.nanmax(self.means)
            means = (self.means - low) / ((high - low) or 1.0)
            pictures.append(np.nan_to_num(means, nan=1.0) if colored else means)
        return pictures

    def _styles(self, cmap: Any) -> list[dict[str, Any]]:
        """Choose how templates and mean images are coloured, unless they are colours."""
        if self.templates.ndim == 4:
            return [{}, {}]
        limit = largest(self.templates)
        return [{"cmap": cmap, "vmin": -limit, "vmax": limit}, {"cmap": "gray", "vmin": 0, "vmax": 1}]

    def _draw(
        self,
        images: np.ndarray,
        titles: list[str],
        places: list[tuple[float, float]],
        font_size: float,
        style: dict[str, Any],
    ) -> list[Any]:
        """Draw images with their titles, each from its top left corner on."""
        height, width = images.shape[1:3]
        drawn = []
        for image, title, (left, top) in zip(images, titles, places, strict=True):
            drawn.append(self.ax_.imshow(image, extent=(left, left + width, top + height, top), **style))
            if title:
                middle, above = left + width / 2, top - 0.04 * height
                self.titles_.append(self.ax_.text(middle, above, title, ha="center", va="bottom", fontsize=font_size))
        return drawn


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.fill(line, _WRAP) for line in title.split("\n"))


def _changes_of_columns(estimator: BaseEstimator) -> str | None:
    """Name the steps before the classifier, None if there are none; raise if they make other columns."""
    if not (steps := steps_before(estimator)):
        return None
    n_before, n_after = steps[0].n_features_in_, final_step(estimator).n_features_in_
    given = list(getattr(steps[0], "feature_names_in_", [f"x{i}" for i in range(n_before)]))
    try:  # as many columns as before need not be the same (PCA)
        same = list(estimator[:-1].get_feature_names_out(given)) == given
    except AttributeError:  # a step does not say
        same = n_before == n_after
    if not same:
        raise ValueError(
            f"The {n_after} columns that the classifier sees are not the {n_before} of X: "
            f"{', '.join(type(step).__name__ for step in steps)} makes others, so coef_ is no image. Use steps that "
            "keep the columns, such as StandardScaler."
        )
    return ",\n".join(type(step).__name__ for step in steps)


def _means(X: Data, y: Data, classes: np.ndarray) -> np.ndarray:
    """Average the rows of each class (or label), (n_classes, n_features); NaN without samples."""
    X, y = to_numpy(X), np.asarray(to_numpy(y))
    X = X.tocsr() if issparse(X) else np.asarray(X)
    means = np.full((len(classes), X.shape[1]), np.nan)
    for c, label in enumerate(classes):
        rows = np.flatnonzero(y[:, c] == 1 if y.ndim == 2 else y == label)
        if len(rows):
            means[c] = np.asarray(X[rows].mean(axis=0)).ravel()
    if np.isnan(means).all():
        raise ValueError(f"y has no sample of the classes {list(classes)}. Pass labels like those the estimator saw.")
    return means
