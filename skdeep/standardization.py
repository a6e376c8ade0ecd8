r"""Centred and scaled columns as a change of variables of a network's first layer.

.. math:: V \frac{x - \mu}{\sigma} + c = W x + b, \qquad W = V / \sigma, \quad b = c - W \mu

V and c are trained; W and b refer to the user's columns, and are what remains. Unlike in a linear model, it is the batch
that is changed in training, not the weights: less work where a layer has more units than a batch has rows, and columns
whose mean is far above their deviation are centred before a product rounds them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep._stack import csr_tensor
from skdeep.networks import shared


class Standardization:
    r"""The change of variables of each model of a stack.

    Parameters
    ----------
    center : Tensor of shape (K, 1, d) or (1, 1, d), or None
        :math:`\mu`; None leaves columns where they are, as sparse ones must be.
    scale : Tensor of shape (K, 1, d) or (1, 1, d)
        :math:`1 / \sigma`.
    """

    def __init__(self, center: Tensor | None, scale: Tensor):
        self.center, self.scale = shared(center), shared(scale)

    def factors(self, X: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and weights (K, h, d) of the first layer that multiply to what the standardised rows do."""
        if X.layout is not torch.sparse_csr:
            return self._rows(X), weight
        n_models, _, d = weight.shape
        if X.shape[1] == d and len(self.scale) > 1:  # rows that models share, each in a scale of its own
            return X, weight * self.scale
        scale = self.scale if X.shape[1] == d else self.scale.expand(n_models, -1, -1)
        values = X.values() * scale.flatten().index_select(0, X.col_indices())
        return csr_tensor(X.crow_indices(), X.col_indices(), values, X.shape), weight

    def _rows(self, X: Tensor) -> Tensor:
        scale = _of_rows(self.scale)
        if self.center is None:
            return X * scale
        centred = X - _of_rows(self.center)
        return centred.mul_(scale) if centred.ndim >= scale.ndim else centred * scale

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """W (K, h, d) and b (K, h) on the user's columns, of V and c; in float64 on the CPU."""
        weight = weight.cpu().double() * self.scale.cpu().double()
        return weight, bias.cpu().double() - self._at_center(weight)

    def unfolded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """V and c of W and b; in float64 on the CPU."""
        weight = weight.cpu().double()
        return weight / self.scale.cpu().double(), bias.cpu().double() + self._at_center(weight)

    def _at_center(self, weight: Tensor) -> Tensor:
        if self.center is None:
            return weight.new_zeros(weight.shape[:2])
        return (weight * self.center.cpu().double()).sum(-1)

    @property
    def row_size(self) -> int:
        """Values that a row becomes."""
        columns = (self.scale,) if self.center is None else (self.center, self.scale)
        return max(c.numel() for c in columns)

    def select(self, models: np.ndarray) -> Standardization:
        """The change of variables of some of the models."""
        index = torch.as_tensor(models, device=self.scale.device)
        center, scale = (c if c is None or len(c) == 1 else c[index] for c in (self.center, self.scale))
        return Standardization(center, scale)


def _of_rows(columns: Tensor) -> Tensor:
    """Numbers per column as they go with rows (B, d) or (K, B, d)."""
    return columns[0] if len(columns) == 1 else columns
