r"""Centred and scaled columns as a change of variables of a network's first layer.

.. math:: V \frac{x - \mu}{\sigma} + c = W x + b, \qquad W = V / \sigma, \quad b = c - W \mu

V and c are trained; W and b refer to the user's columns, and are what remains. Unlike in a linear model, it is the
batch that is changed in training, not the weights: less work where a layer has more units than a batch has rows, and
columns whose mean is far above their deviation are centred before a product rounds them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.frame import Frame, kept
from skdeep.engine.networks import as_shared
from skdeep.engine.per_model import csr_tensor, fetched, index_of
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.engine.scratch import Scratch


class Standardization:
    r"""The change of variables of each model of a stack.

    A missing value (NaN) is its column's mean, which is zero in standardised columns. That it was missing is told by an
    *indicator*, a further column that is 1 there and else 0.

    Parameters
    ----------
    center : Tensor of shape (K, 1, d + i) or (1, 1, d + i), or None
        :math:`\mu`, of the indicators as well; None leaves columns where they are, as sparse ones must be.
    scale : Tensor of shape (K, 1, d + i) or (1, 1, d + i)
        :math:`1 / \sigma`.
        Zero for columns that are to have no influence.
    indicated : Tensor of shape (i,)
        Columns that have an indicator.
    frame : Frame or None
        In which the first d columns are; None for the user's.
    n_alike : int
        How many models in turn have the same center and scale.
    """

    def __init__(
        self,
        center: Tensor | None,
        scale: Tensor,
        indicated: Tensor,
        frame: Frame | None = None,
        n_alike: int = 1,
    ):
        self.frame, self.n_alike = frame, n_alike
        self.center, self.scale, self.indicated = as_shared(center), as_shared(scale), indicated
        self._scratch = Scratch()

    def factors(self, X: Tensor, coef: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute rows, coefficients (K, h, d) and biases (K, h) that are the first layer on standardised rows."""
        if X.layout is not torch.sparse_csr:
            return self._rows(X), coef, bias
        n_models, _, d = coef.shape
        if self.center is not None or len(self.indicated):  # of rows that are never missing, where others were
            coef = coef * self.scale
            if self.center is not None:
                bias = bias - (coef * self.center).sum(-1)
            return X, coef[..., : d - len(self.indicated)], bias
        if X.shape[1] == d and len(self.scale) > 1:  # rows that models share, each in a scale of its own
            return X, coef * self.scale, bias
        scale = self.scale if X.shape[1] == d else self.scale.expand(n_models, -1, -1)
        values = X.values() * scale.flatten().index_select(0, X.col_indices())
        return csr_tensor(X.crow_indices(), X.col_indices(), values, X.shape), coef, bias

    def all_at_once(self, rows: DenseRows | SparseRows) -> DenseRows | None:
        """Standardise rows that stay where they are computed with; None where that is better done batch by batch."""
        own = any(len(columns) > 1 for columns in (self.center, self.scale) if columns is not None)
        if own or not isinstance(rows, DenseRows) or not rows.has_room_for_all(self.scale.shape[-1]):
            return None
        return rows.changed(lambda X: self._rows(X).clone())

    def _rows(self, X: Tensor) -> Tensor:
        if len(self.indicated):
            X = torch.cat([X, X.index_select(-1, self.indicated).isnan().to(X.dtype)], dim=-1)
        n_own = max(len(c) for c in (self.center, self.scale) if c is not None)
        if X.ndim == 3 and n_own > len(X) > 1 and self.n_alike % (n_own // len(X)):  # groups of models that differ
            X = X.unsqueeze(1).expand(-1, n_own // len(X), -1, -1).flatten(0, 1)
        alike = 1 if n_own == 1 else n_own // len(X) if X.ndim == 3 and len(X) > 1 else self.n_alike
        scale = _of_rows(self.scale, alike)
        center = None if self.center is None else _of_rows(self.center, alike)
        n_own //= alike
        shape = X.shape if n_own == 1 else (n_own, *X.shape[-2:])  # torch.broadcast_shapes takes 30 us
        room = self._scratch.empty("rows", shape, X)
        if center is None:
            torch.mul(X, scale, out=room)
        else:  # a product first would round a mean far above the deviation
            torch.sub(X.expand(shape), center, out=room).mul_(scale)
        return room.nan_to_num_(nan=0.0)

    def folded(self, model: int, coef: np.ndarray, bias: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Compute W (h, d) and b (h,) of a model on the user's columns, from V and c in float64; see `frame.kept`."""
        scale, center = self._of(model)
        size = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        return kept(coef * scale, bias, size, center, self._whole_frame(len(scale)), dtype)

    def unfolded(self, coef: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute V and c from the W and b of one model; in float64."""
        scale, center = self._of(0)
        if (frame := self._whole_frame(len(scale))) is not None:
            coef, center = coef / frame.factor, center + frame.origin
        V = np.divide(coef, scale, out=np.zeros_like(coef), where=scale > 0)
        return V, bias + coef @ center

    def means(self, model: int) -> np.ndarray:
        """Compute the centers of a model's columns, as the user knows them, without the indicators; in float64."""
        scale, center = self._of(model)
        center = center[: len(scale) - len(self.indicated)]
        return center if self.frame is None else (center + self.frame.origin) / self.frame.factor

    def _of(self, model: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and center of a model, in float64."""
        columns = (self.scale,) if self.center is None else (self.scale, self.center)
        own = fetched([c[model if len(c) > 1 else 0, 0] for c in columns])
        scale, *center = (values.astype(np.float64) for values in own)
        return scale, center[0] if center else np.zeros_like(scale)

    def _whole_frame(self, n_columns: int) -> Frame | None:
        """Extend the frame to all columns; it leaves the indicators as they are."""
        if self.frame is None or n_columns == len(self.frame.factor):
            return self.frame
        more = n_columns - len(self.frame.factor)
        return Frame(np.append(self.frame.factor, np.ones(more)), np.append(self.frame.origin, np.zeros(more)))

    @property
    def row_size(self) -> int:
        """Values of a row as it comes and as it becomes, which are in memory together."""
        columns = (self.scale,) if self.center is None else (self.center, self.scale)
        return 2 * max(c.numel() for c in columns) // self.n_alike

    def select(self, models: np.ndarray) -> Standardization:
        """Select the change of variables of some of the models."""
        index = index_of(models, self.scale)
        center = self.center if self.center is None or len(self.center) == 1 else self.center[index]
        scale = self.scale if len(self.scale) == 1 else self.scale[index]
        return Standardization(center, scale, self.indicated, self.frame)

    @classmethod
    def stacked(cls, parts: Sequence[Standardization]) -> Standardization:
        """Join changes of variables of one model each into one of a stack; they have the same indicators."""
        centers = [part.center for part in parts if part.center is not None]
        scale = torch.cat([part.scale for part in parts])
        return cls(torch.cat(centers) if centers else None, scale, parts[0].indicated, parts[0].frame)


def _of_rows(columns: Tensor, n_alike: int) -> Tensor:
    """Shape numbers per column as they go with rows (B, d) or (G, B, d), for models of which some in turn are alike."""
    return columns[0] if len(columns) == 1 else columns[::n_alike]
