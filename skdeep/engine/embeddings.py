r"""Numeric columns as piecewise linear functions of themselves, beside what they are.

.. math:: e_t(x) = \min\Big(\max\Big(\frac{2 x - b_{t-1} - b_t}{b_t - b_{t-1}}, -1\Big), 1\Big), \quad t = 1, \dots, T

Each bin between two edges has a column of its own: -1 below it, 1 above it, linear in it. So the first layer of a
network can bend any column at any edge, which a unit alone has to learn to. A column with a single bin has none: it
would be a line, as the column is. Columns with edges stand still a quarter of their range beyond the outermost ones:
what a line would say of a value far beyond all others may be anything.

A sum of the bins of a column is a piecewise linear function of it: between two edges, a mean of its values there, by
which `BinnedAffine` predicts.

A network is trained in :math:`h e_t`, with :math:`h = \min(1/2, s / e)` where e columns have bins: the more there are,
the less each says at first. For columns whose values are all edges, s is infinite: they may well be codes of
categories, whose order says nothing. Where factors on the columns are learnt, all bins of a column share one: how much
its bends matter, beside how much the column does. It has further to go, and is learnt twice as fast.

Y. Gorishniy, I. Rubachev & A. Babenko, *On embeddings for numerical features in tabular deep learning*, NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skdeep.engine.affine import Affine
from skdeep.engine.per_model import to_device

#: Width of a bin, as a share of its larger edge, below which the rounding of single precision would be seen in it.
_NARROWEST = 2.0**-12
#: h at most.
_LARGEST = 0.5
#: How far beyond its edges a column goes on, as a share of the range between them.
_BEYOND = 0.25
#: How fast the factors on bins are learnt, as a multiple of those on columns.
_SPEED = 2.0


class Bins:
    """The bins of each model of a stack, for columns that are moved and scaled before.

    Edges are (K, e, T + 1) or (1, e, T + 1), ascending: `known` in the user's columns, and in the columns as they come
    to `encode`, of which the first e have bins. Two that are equal, or nearly so, have no bin between them. Nor has a
    column with a single one. `start` (K or 1, e) is s of each column; None where h is 1, as in prediction.

    What is trained are bins that some model of the stack has, `place` (E,) among all e T; those that others lack there
    are columns of zeros. In prediction, all e T are columns.
    """

    def __init__(
        self,
        known: np.ndarray,
        edges: np.ndarray,
        start: np.ndarray | None = None,
        place: np.ndarray | None = None,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        parts = [known, edges] if start is None else [known, edges, start]
        if len(known) > 1 and all((part[1:] == part[:-1]).all() for part in parts):
            known, edges, start = known[:1], edges[:1], None if start is None else start[:1]
        self.known, self.edges, self.start = known, edges, start
        self._tensor: dict[str, Any] = {"device": device, "dtype": dtype}
        low, high = edges[..., :-1], edges[..., 1:]
        exists = high - low > _NARROWEST * np.maximum(np.abs(low), np.abs(high))
        exists &= exists.sum(-1, keepdims=True) > 1
        #: h, (K, e, 1) or (1, e, 1).
        self.limit = np.ones((*low.shape[:-1], 1))
        if start is not None:
            n_bent = exists.any(-1, keepdims=True).sum(-2, keepdims=True)
            self.limit = np.minimum(_LARGEST, start[..., None] / np.maximum(n_bent, 1))
        #: Of the line that each bin is between its edges, (K, e, T) or (1, e, T) in float64.
        self.slope = np.divide(2, high - low, out=np.zeros_like(low), where=exists)
        self.offset = -0.5 * (low + high) * self.slope
        extent = edges[..., -1] - edges[..., 0]
        margin = np.where(extent > 0, _BEYOND * extent, np.inf)
        #: Least and greatest values of the columns, (K, e) or (1, e) in float64; none where all values are the same.
        self.ends = edges[..., 0] - margin, edges[..., -1] + margin
        self.n_whole = exists[0].size
        if place is None:
            place = np.flatnonzero(exists.any(0)) if start is not None else np.arange(self.n_whole)
        self.place, self._column = place, place // low.shape[-1]
        #: How many columns the bins are, of a model; and the h of each, (K, E) or (1, E).
        self.n_columns, self.limits = len(place), self.limit[:, self._column, 0]
        self._exists = exists.reshape(-1, self.n_whole)[:, place]
        lines = [part.reshape(-1, self.n_whole)[:, place] for part in (self.slope, self.offset)]
        columns = (torch.from_numpy(part).unsqueeze(1) for part in (*lines, self.limits))
        self._slope, self._offset, self._limit = (to_device(part, device, dtype) for part in columns)
        self._ends = [to_device(torch.from_numpy(part).unsqueeze(1), device, dtype) for part in self.ends]
        self._index = to_device(torch.from_numpy(self._column), device)

    def __len__(self) -> int:
        """Count the models that have bins of their own; 1 where all have the same."""
        return len(self.known)

    def sharing(self, n_own: int) -> np.ndarray:
        """Make the matrix (f, d) that leads from factors on so many columns, then on all bins of each, to a layer's d.

        Its entries are how fast they are learnt.
        """
        e = self.slope.shape[-2]
        shared = np.eye(n_own + e, n_own + self.n_columns)
        shared[n_own:, n_own:] = _SPEED * (self._column == np.arange(e)[:, None])
        return shared

    def real(self, weight: np.ndarray) -> np.ndarray:
        """Select the weights (K, h, E) to train of all (K, h, e T), which are zero where a model has no bin."""
        return np.where(self._exists[:, None], weight[..., self.place], 0)

    def whole(self, trained: np.ndarray) -> np.ndarray:
        """Put weights (h, E) that are trained in their places among all e T, of which the others are zero."""
        weight = np.zeros((len(trained), self.n_whole), dtype=trained.dtype)
        weight[:, self.place] = trained
        return weight

    def encode(self, rows: Tensor, room: Tensor, n_alike: int) -> None:
        """Put the bins of rows (B, d) or (G, B, d), without missing values, in a `room` (..., B, E).

        Models of which so many in turn are alike share their rows.
        """
        parts = (part if len(part) == 1 else part[::n_alike] for part in (self._slope, self._offset, self._limit))
        slope, offset, limit = (part[0] for part in parts) if rows.ndim == 2 else parts
        torch.addcmul(offset, rows.index_select(-1, self._index), slope, out=room).clamp_(-1, 1)
        if self.start is not None:
            room.mul_(limit)  # in a quarter of the time of bounds that differ

    def bound(self, rows: Tensor, n_alike: int) -> None:
        """Keep rows, as they come to `encode`, within the ends of their columns."""
        own = rows[..., : self.edges.shape[1]]
        low, high = (part[0] if rows.ndim == 2 else part if len(part) == 1 else part[::n_alike] for part in self._ends)
        own.clamp_(low, high)

    def select(self, models: np.ndarray) -> Bins:
        """Select the bins of some of the models."""
        if len(self) == 1:
            return self
        start = self.start if self.start is None else self.start[models]
        return Bins(self.known[models], self.edges[models], start, self.place, **self._tensor)

    @classmethod
    def stacked(cls, parts: Sequence[Bins]) -> Bins:
        """Join the bins of one model each as one stack's; they have the same columns."""
        known, edges = (np.concatenate([getattr(part, name) for part in parts]) for name in ("known", "edges"))
        return cls(known, edges, **parts[0]._tensor)


class BinnedAffine:
    """The map of a first layer on columns and their bins, which are not made: what they add is looked up.

    Each column that has bins adds a mean of two rows of a table, for the edges that its value is between. So any number
    of bins costs as much as two, in single precision on a CPU: elsewhere a product with all of them is as fast.
    """

    #: Rows that pay for the table.
    fewest = 256

    def __init__(self, bins: Bins, affine: Affine, n_groups: int):
        e, n_bins = bins.slope.shape[-2:]
        own, trained = affine.weight.split([affine.weight.shape[2] - bins.n_columns, bins.n_columns], dim=2)
        of_bins = trained.new_zeros(*trained.shape[:2], bins.n_whole)
        of_bins[..., bins.place] = trained
        self._n_units = n_units = own.shape[1]
        self._own = own.reshape(n_groups, -1, own.shape[2]).mT
        # from 0 to 1 each, and those that are none after all others, where no value comes to
        order = np.argsort(bins.slope == 0, axis=-1, kind="stable")
        slope, offset = (np.take_along_axis(part, order, axis=-1) for part in (bins.slope, bins.offset))
        line = slope / 2, np.where(slope > 0, (offset + 1) / 2, 0)
        of_groups = slice(None, None, max(1, len(slope) // n_groups))
        self._slope, self._offset = (torch.from_numpy(part[of_groups]).unsqueeze(1).to(own) for part in line)
        size, place = (torch.from_numpy(part).unsqueeze(1) for part in ((slope > 0) * bins.limit, order))
        sorted_bins = of_bins.unflatten(2, (e, n_bins)).take_along_dim(place, dim=-1) * size.to(own)
        signs = 1 - 2 * own.new_ones(n_bins, n_bins + 1).tril_()  # bin t is at its end from edge t + 1 on
        at_edges = (sorted_bins @ signs).view(n_groups, -1, n_units, e, n_bins + 1)
        self._table = own.new_zeros(n_groups * e * (n_bins + 1) + 1, at_edges.shape[1] * n_units)  # one, to weigh zero
        table = self._table[:-1].view(n_groups, e, n_bins + 1, -1, n_units)
        table.copy_(at_edges.permute(0, 3, 4, 1, 2))
        table[:, 0] += affine.bias.view(n_groups, 1, -1, n_units)
        self._first = torch.arange(0, n_groups * e * (n_bins + 1), n_bins + 1, dtype=torch.int32).view(-1, 1, e)
        self._ones = own.new_ones(n_bins)

    @staticmethod
    def suits(weight: Tensor) -> bool:
        """Tell whether looking up is quicker than a product where such weights are."""
        return weight.device.type == "cpu" and weight.dtype is torch.float32

    def of_batch(self, rows: Tensor) -> Tensor:
        """Compute the map of rows (B, d) or (G, B, d) without missing values, (K, h, B)."""
        rows = rows if rows.ndim == 3 else rows.unsqueeze(0)
        columns = rows[..., : self._slope.shape[-2]].unsqueeze(-1)
        place = torch.addcmul(self._offset, columns, self._slope).clamp_(0, 1) @ self._ones
        edge = place.int()
        place -= edge
        edge += self._first
        index, share = torch.cat([edge, edge + 1], dim=-1), torch.cat([1 - place, place], dim=-1)
        found = F.embedding_bag(index.flatten(0, 1), self._table, per_sample_weights=share.flatten(0, 1), mode="sum")
        found = torch.baddbmm(found.view(*rows.shape[:2], -1), rows, self._own)
        return found.unflatten(-1, (-1, self._n_units)).permute(0, 2, 3, 1).flatten(0, 1)
