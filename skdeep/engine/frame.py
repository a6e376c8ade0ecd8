r"""A frame of columns: how a computation sees them where its precision could not hold them as they are.

.. math:: x' = x \cdot 2^{-k} - o

with a power of two and an origin per column, computed in float64 before the cast to the dtype of the computation: what
a cast rounds off or a square overflows is gone by then. A fit in whose columns nothing would be lost has no frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Error of a score, as a share of what scores vary by, that the rounding of kept coefficients may make.
_TOLERANCE = 2.0**-12
#: How many times larger than scores their parts may be, for which float64 has room in any case.
_SURELY = 2.0**40


class Frame:
    """Move and scale columns by the change of variables above; a fit has one for all its rows, or none.

    Factors (d,) are powers of two, so that a product with them is exact. The origin (d,) is in units of the columns as
    they become; zero for sparse ones.
    """

    def __init__(self, factor: np.ndarray, origin: np.ndarray):
        self.factor, self.origin = factor, origin
        self._known: dict[torch.device, list[Tensor]] = {}

    def _tensors(self, device: torch.device) -> list[Tensor]:
        """Make tensors of the factor, and of the origin as a sum: on MPS, its float32 value and the rest."""
        if device not in self._known:
            parts = [self.factor, self.origin]
            if device.type == "mps":
                near = self.origin.astype(np.float32)
                parts = [part.astype(np.float32) for part in (self.factor, near, self.origin - near)]
            self._known[device] = [torch.as_tensor(part).to(device) for part in parts]
        return self._known[device]

    def rows(self, X: Tensor) -> Tensor:
        """Move and scale dense rows (..., d) of the user's columns, in float64 where the device has that."""
        factor, *origin = self._tensors(X.device)
        moved = torch.mul(X, factor)
        for part in origin:
            moved.sub_(part)
        return moved

    def values(self, values: Tensor, columns: Tensor) -> Tensor:
        """Scale the values of sparse rows, which lie in these columns."""
        return values * self._tensors(values.device)[0].index_select(0, columns)

    def undone(self, X: Tensor) -> Tensor:
        """Recover the user's columns from dense rows in this frame."""
        factor, *origin = self._tensors(X.device)
        return sum(origin, X) / factor


def kept(
    coef: np.ndarray,
    bias: np.ndarray,
    size: np.ndarray,
    center: np.ndarray,
    frame: Frame | None,
    dtype: np.dtype,
    unit: np.ndarray | float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Cast coefficients (C, d) and biases (C,) on the user's columns to the dtype to keep them in.

    That is `dtype`, unless it would change scores by more than a rounding, as where columns are far from zero; then it
    is float64. The biases follow from the coefficients as these are kept, so that only their own rounding counts. Raise
    where float64 has no room for them either.

    Given are both on the columns of the frame, in float64, with the score at the center for a bias; and the size and
    center (d,) of these columns. A difference of one `unit`, of each score (C,) or of all, is of weight, however large
    their parts may be: these may have taken each other back, as do collinear columns.
    """
    if frame is None and dtype == np.float64 and coef.dtype == np.float64:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            shift, largest = coef * center, max(np.abs(bias).max(initial=0.0), np.abs(coef * size).max(initial=0.0))
            if np.abs(shift).max(initial=0.0) <= _SURELY * largest < np.inf:  # as it most often is
                return coef, bias - shift.sum(1)
    factor, origin = (1.0, 0.0) if frame is None else (frame.factor, frame.origin)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # what is not finite is above any limit
        effect = np.sqrt(np.square(coef * size).sum(1).max(initial=0.0))
        limit = float(min(_TOLERANCE * max(effect, np.abs(bias).max(initial=0.0)), np.finfo(np.float64).max))
        for kind in dict.fromkeys((np.dtype(dtype), np.dtype(np.float64))):
            # float64 is all there is: it is not asked for more than digits of the parts
            limits = np.broadcast_to(limit if kind == np.float64 else np.minimum(limit, _TOLERANCE * unit), len(coef))
            raw = (coef * factor).astype(kind, copy=False)
            rounded = raw.astype(np.float64, copy=False) / factor
            lost = np.abs(rounded - coef) * size
            shift = rounded * (center + origin)
            exact = bias - shift.sum(1)
            constant = exact.astype(kind, copy=False)
            is_kept = np.abs(constant - exact) <= limits
            # a sum of shifts may be small by chance, but the products of a score are each rounded
            products = np.maximum(np.abs(shift), np.abs(rounded) * size)
            fine = (lost <= limits[:, None]) & (products <= _largest(limits, kind)[:, None])
            if fine.all() and is_kept.all():
                return raw, constant
    at_fault = ~(lost <= limit).all(0)
    if not at_fault.any():
        at_fault = ~fine.all(0)
    raise ValueError(
        f"Coefficients on the columns of X as they are have no room in float64: see {named(at_fault)}, whose values "
        "are too large or too small, or too far from zero for how little they vary. Subtract their means and scale "
        "them (StandardScaler) before fit."
    )


def exceeds_float32(coef: np.ndarray, bias: np.ndarray) -> bool:
    """Tell whether scores of the order of one need more than float32, by coefficients and biases on raw columns."""
    limits, sizes = np.finfo(np.float32), np.abs(coef[coef != 0])
    in_range = (sizes >= limits.tiny) & (sizes <= limits.max)
    return not in_range.all() or bool(np.abs(bias).max(initial=0.0) > _largest(_TOLERANCE, np.dtype(np.float32)))


def _largest(error: Any, dtype: np.dtype) -> Any:
    """Return the largest number whose rounding is within an error."""
    return 2 * error / float(np.finfo(dtype).eps)


def named(columns: np.ndarray) -> str:
    """Name the columns of a mask, the first few by their index, for a message."""
    index = np.flatnonzero(columns)
    some = ", ".join(map(str, index[:5])) + (", ..." if len(index) > 5 else "")
    return f"column{'s' if len(index) != 1 else ''} {some} (counted from 0)"


class Change(NamedTuple):
    """Numbers of a change of variables for each column, (K or 1, d); None leaves columns as they are."""

    center: np.ndarray | None
    scale: np.ndarray | None
    unit: np.ndarray | None
