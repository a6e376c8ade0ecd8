"""Rows of numbers as images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

#: Colours of the most negative and the most positive weight, with white between: the ends of Matplotlib's "RdBu".
_NEGATIVE, _POSITIVE = np.array([178, 24, 43]) / 255, np.array([33, 102, 172]) / 255


def as_images(rows: ArrayLike, image_shape: tuple[int, ...]) -> np.ndarray:
    """Lay out rows (n, n_features) as images (n, h, w) or (n, h, w, 3).

    Parameters
    ----------
    rows : array-like of shape (n, n_features)
        Of pixels, or of weights on them.
    image_shape : tuple of int
        How the pixels lie in a row: ``(h, w)``, ``(h, w, 3)``, or ``(3, h, w)`` with the colours apart.

    Raises
    ------
    ValueError
        If this is none of the three, or does not have ``n_features`` values.
    """
    values, shape = np.asarray(rows), tuple(image_shape)
    if len(shape) != 2 and not (len(shape) == 3 and 3 in (shape[0], shape[2])):
        raise ValueError(f"image_shape must be (h, w), (h, w, 3) or (3, h, w), got {image_shape}.")
    if values.shape[1] != np.prod(shape):
        raise ValueError(
            f"image_shape={shape} has {np.prod(shape)} values, and the data has {values.shape[1]} columns. Pass the "
            "shape of the images that the rows are made of."
        )
    images = values.reshape(-1, *shape)
    return np.moveaxis(images, 1, -1) if len(shape) == 3 and shape[2] != 3 else images


def largest(images: np.ndarray) -> float:
    """Find the largest magnitude, which the colours of signed images reach up to; 1 if all is zero."""
    return float(np.abs(images).max()) or 1.0


def signed_colors(images: np.ndarray) -> np.ndarray:
    """Colour images of weights (n, h, w[, 3]) in red, green and blue from 0 to 1, (n, h, w, 3); one scale for all.

    Of a weight for each pixel, the sign is the hue and the size the strength: red is negative, white zero, blue
    positive. Weights for red, green and blue are these colours, around a grey for zero.
    """
    share = images / largest(images)
    if images.ndim == 4:
        return (1 + share) / 2
    end = np.where(share[..., None] > 0, _POSITIVE, _NEGATIVE)
    return 1 + np.abs(share[..., None]) * (end - 1)
