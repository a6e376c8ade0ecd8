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

from skdeep.engine.embeddings import Bins
from skdeep.engine.frame import Frame, kept
from skdeep.engine.networks import as_shared, scaled
from skdeep.engine.per_model import fetched, index_of
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.engine.scratch import Scratch


class Standardization:
    r"""The change of variables of each model of a stack.

    A missing value (NaN) is its column's mean, which is zero in standardised columns. That it was missing is told by an
    *indicator*, a further column that is 1 there and else 0; ``indicated`` (i,) are the columns that have one.

    The center :math:`\mu`, of the indicators as well, and the scale :math:`1 / \sigma`, which is zero for columns that
    are to have no influence, are (K or 1, 1, d + i), in a frame. Without a center, columns stay where they are, as
    sparse ones must. ``n_alike`` models in turn have the same ones, and the same bins: of ``edges`` (K or 1, e, T + 1)
    in the user's columns, for the first e of them. These `Bins` come after the d + i; ``start`` (K or 1, e) is how
    large they are, where the W of the user are of bins from -1 to 1 in any case, and of all e T, also those that are
    none and not trained.
    """

    def __init__(
        self,
        center: Tensor | None,
        scale: Tensor,
        indicated: Tensor,
        frame: Frame | None = None,
        n_alike: int = 1,
        edges: np.ndarray | None = None,
        start: np.ndarray | None = None,
    ):
        self.frame, self.n_alike = frame, n_alike
        self.center, self.scale, self.indicated = as_shared(center), as_shared(scale), indicated
        self._scratch = Scratch()
        self.bins = None if edges is None else self._bins(edges, start)

    def _bins(self, edges: np.ndarray, start: np.ndarray | None) -> Bins:
        """Make bins of centred and scaled columns, of edges in the user's."""
        moved, e = edges, edges.shape[1]
        scale, *center = fetched([part for part in (self.scale, self.center) if part is not None])
        if self.frame is not None:
            moved = moved * self.frame.factor[:e, None] - self.frame.origin[:e, None]
        for part in center:
            moved = moved - part.astype(np.float64)[:, 0, :e, None]
        moved = moved * scale.astype(np.float64)[:, 0, :e, None]
        edges = np.broadcast_to(edges, moved.shape)
        return Bins(edges, moved, start, device=self.scale.device, dtype=self.scale.dtype)

    def factors(self, X: Tensor, coef: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute rows, coefficients (K, h, d) and biases (K, h) that are the first layer on standardised rows."""
        if X.layout is not torch.sparse_csr:
            return self._rows(X), coef, bias
        if self.bins is not None:  # as they are after training on dense rows: the bins of a zero are not zero
            return self._rows(X.to_dense()), coef, bias
        n_models, _, d = coef.shape
        if self.center is not None or len(self.indicated):  # of rows that are never missing, where others were
            coef = coef * self.scale
            if self.center is not None:
                bias = bias - (coef * self.center).sum(-1)
            return X, coef[..., : d - len(self.indicated)], bias
        in_columns = scaled(X, self.scale, n_models)
        return (X, coef * self.scale, bias) if in_columns is None else (in_columns, coef, bias)

    def all_at_once(self, rows: DenseRows | SparseRows) -> DenseRows | None:
        """Standardise rows that stay where they are computed with; None where that is better done batch by batch."""
        n_columns = self.scale.shape[-1] + self.n_bins
        if self._n_own > 1 or not isinstance(rows, DenseRows) or not rows.has_room_for_all(n_columns):
            return None
        return rows.changed(lambda X: self._rows(X).clone())

    def of_each(self, rows: DenseRows, index: list[np.ndarray], n_alike: int) -> DenseRows | None:
        """Standardise the rows of each group of `n_alike` models, one after the other; None as in `all_at_once`."""
        n_columns, n_rows = self.scale.shape[-1] + self.n_bins, sum(map(len, index))
        has_room = rows.has_room_for_all(-(-n_rows * n_columns // len(rows)))
        if self._n_own == 1 or self.n_alike % n_alike or not has_room:
            return None
        X = torch.empty((n_rows, n_columns), dtype=rows.dtype, device=rows.device)
        for model, (own, room) in enumerate(zip(index, X.split([len(part) for part in index]), strict=True)):
            room.copy_(self.select(np.array([model * n_alike]))._rows(rows.take(torch.from_numpy(own))))
        return DenseRows(X, rows.device, rows.dtype)

    @property
    def sharing(self) -> np.ndarray | None:
        """Which factors on columns the inputs of a layer have (`Bins.sharing`); None where each has its own."""
        return None if self.bins is None else self.bins.sharing(self.scale.shape[-1])

    @property
    def n_bins(self) -> int:
        """How many columns bins are."""
        return 0 if self.bins is None else self.bins.n_columns

    @property
    def _n_own(self) -> int:
        """How many models have a change of variables of their own; 1 where all have the same."""
        return max(len(part) for part in (self.center, self.scale, self.bins) if part is not None)

    def columns(self, X: Tensor) -> Tensor:
        """Centre and scale the columns of dense rows, which may be more precise; without their bins."""
        return self._standardised(X, 0)[0]

    def _rows(self, X: Tensor) -> Tensor:
        room, rows, alike = self._standardised(X, self.n_bins)
        if self.bins is not None:
            self.bins.encode(rows, room[..., rows.shape[-1] :], alike)
        return room

    def _standardised(self, X: Tensor, n_more: int) -> tuple[Tensor, Tensor, int]:
        """Standardise rows, in memory with so many more columns; and tell how many models in turn have the same."""
        if len(self.indicated):
            X = torch.cat([X, X.index_select(-1, self.indicated).isnan().to(X.dtype)], dim=-1)
        n_own = self._n_own
        if X.ndim == 3 and n_own > len(X) > 1 and self.n_alike % (n_own // len(X)):  # groups of models that differ
            X = X.unsqueeze(1).expand(-1, n_own // len(X), -1, -1).flatten(0, 1)
        alike = 1 if n_own == 1 else n_own // len(X) if X.ndim == 3 and len(X) > 1 else self.n_alike
        scale = _of_rows(self.scale, alike)
        center = None if self.center is None else _of_rows(self.center, alike)
        n_own //= alike
        shape = X.shape if n_own == 1 else (n_own, *X.shape[-2:])  # torch.broadcast_shapes takes 30 us
        d = shape[-1]
        room = self._scratch.empty("rows", (*shape[:-1], d + n_more), X, self.scale.dtype)
        rows = room[..., :d] if n_more else room
        if center is None:
            torch.mul(X.expand(shape), scale, out=rows)
        else:  # a product first would round a mean far above the deviation
            torch.sub(X.expand(shape), center, out=rows).mul_(scale)
        rows.nan_to_num_(nan=0.0)
        if self.bins is not None:
            self.bins.bound(rows, alike)
        return room, rows, alike

    def folded(self, model: int, coef: np.ndarray, bias: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Compute W (h, d) and b (h,) of a model on the user's columns, from V and c in float64; see `frame.kept`."""
        scale, center = self._of(model)
        size = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        coef, bias = kept(coef * scale, bias, size, center, self._whole_frame(len(scale)), dtype)
        if self.bins is None:
            return coef, bias
        own, of_bins = np.split(coef, [self.scale.shape[-1]], axis=-1)
        return np.concatenate([own, self.bins.whole(of_bins)], axis=-1), bias

    def unfolded(self, coef: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute V and c from the W and b of one model; in float64."""
        scale, center = self._of(0)
        coef = self.real(coef[None])[0]
        if (frame := self._whole_frame(len(scale))) is not None:
            coef, center = coef / frame.factor, center + frame.origin
        V = np.divide(coef, scale, out=np.zeros_like(coef), where=scale > 0)
        return V, bias + coef @ center

    def means(self, model: int) -> np.ndarray:
        """Compute the centers of a model's columns, as the user knows them, without the indicators; in float64."""
        scale, center = self._of(model)
        center = center[: len(scale) - len(self.indicated) - self.n_bins]
        return center if self.frame is None else (center + self.frame.origin) / self.frame.factor

    def _of(self, model: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and center of a model, in float64; bins are scaled, too, and stay where they are."""
        columns = (self.scale,) if self.center is None else (self.scale, self.center)
        own = fetched([c[model if len(c) > 1 else 0, 0] for c in columns])
        scale, *center = (values.astype(np.float64) for values in own)
        origin = center[0] if center else np.zeros_like(scale)
        if self.bins is None:
            return scale, origin
        of_bins = self.bins.limits[model if len(self.bins) > 1 else 0]
        return np.append(scale, of_bins), np.append(origin, np.zeros(self.n_bins))

    def real(self, weight: np.ndarray) -> np.ndarray:
        """Select the weights (K, h, d) of a layer that are trained; see `Bins.real`."""
        if self.bins is None:
            return weight
        own, of_bins = np.split(weight, [self.scale.shape[-1]], axis=-1)
        return np.concatenate([own, self.bins.real(of_bins)], axis=-1)

    def _whole_frame(self, n_columns: int) -> Frame | None:
        """Extend the frame to all columns; it leaves the indicators and the bins as they are."""
        if self.frame is None or n_columns == len(self.frame.factor):
            return self.frame
        more = n_columns - len(self.frame.factor)
        return Frame(np.append(self.frame.factor, np.ones(more)), np.append(self.frame.origin, np.zeros(more)))

    @property
    def row_size(self) -> int:
        """Values of a row as it comes and as it becomes, which are in memory together."""
        return 2 * self._n_own * (self.scale.shape[-1] + self.n_bins) // self.n_alike

    def select(self, models: np.ndarray) -> Standardization:
        """Select the change of variables of some of the models."""
        index = index_of(models, self.scale)
        center = self.center if self.center is None or len(self.center) == 1 else self.center[index]
        scale = self.scale if len(self.scale) == 1 else self.scale[index]
        part = Standardization(center, scale, self.indicated, self.frame)
        part.bins = None if self.bins is None else self.bins.select(models)
        return part

    @classmethod
    def stacked(cls, parts: Sequence[Standardization]) -> Standardization:
        """Join changes of variables of one model each into one of a stack; they have the same indicators."""
        centers = [part.center for part in parts if part.center is not None]
        scale = torch.cat([part.scale for part in parts])
        stack = cls(torch.cat(centers) if centers else None, scale, parts[0].indicated, parts[0].frame)
        bins = [part.bins for part in parts if part.bins is not None]
        stack.bins = Bins.stacked(bins) if bins else None
        return stack


def _of_rows(columns: Tensor, n_alike: int) -> Tensor:
    """Shape numbers per column as they go with rows (B, d) or (G, B, d), for models of which some in turn are alike."""
    return columns[0] if len(columns) == 1 else columns[::n_alike]


def unshared(factors: Tensor, standardization: Standardization | None) -> tuple[Tensor, Tensor]:
    """Return what has been learnt of factors (1, f) on columns, and the factors (1, d) on a layer's inputs."""
    sharing = None if standardization is None else standardization.sharing
    if sharing is None:
        return factors - 1, factors
    shared = torch.from_numpy(sharing).to(factors)
    scale = (factors - 1) / shared.amax(1).clamp_min(1)  # of a column without bins, nothing is learnt
    return scale, 1 + scale @ shared
