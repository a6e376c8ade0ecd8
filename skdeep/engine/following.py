r"""Penalties that follow the loss: the strength of an epoch is as large as the epoch before has left to explain.

.. math:: \alpha \max\big(1, s \min(L / H, 1)\big)

L is the data term of a model's training loss and H the loss of who knows no more than the shares of the classes. What
noise there is cannot be learnt but by heart, and L says, while it falls, how much there is. So the objective is another
one in every epoch, and its minimum one in which both agree: as if the noise of Gaussian targets were estimated with
their mean, which makes :math:`\log L + \alpha \|W\|^2` of :math:`L + \alpha \|W\|^2`.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.penalties import L2, kind_of
from skdeep.engine.per_model import to_device


class FollowingL2(L2):
    """Ridge whose strength follows each model's loss; all arrays are (K,).

    `base` is the strength of a model that explains its data, `slope` is s (below one, the strength stays what it is),
    `unexplained` is H, and `share` L / H as it is now; by default 1: nothing is explained.
    """

    def __init__(self, base: np.ndarray, slope: np.ndarray, unexplained: np.ndarray, share: np.ndarray | None = None):
        share = np.ones(len(base)) if share is None else share
        super().__init__(base * np.maximum(1, slope * share), np.zeros(len(base)))
        self.base, self.slope, self.unexplained, self.share = base, slope, unexplained, share
        #: By `kind_of`: the strengths on a device, where steps that are recorded read them.
        self._on_device: dict[tuple, Tensor] = {}

    def select(self, models: np.ndarray) -> Self:
        """Select the penalty of some of the models."""
        return type(self)(*(part[models] for part in (self.base, self.slope, self.unexplained, self.share)))

    def after(self, losses: np.ndarray) -> Self:
        """Return the penalty of the next epoch, given the data terms (K,) of this one."""
        known = np.where(np.isfinite(losses), losses, np.inf)  # who has no number any more leaves training
        share = np.divide(known, self.unexplained, out=np.ones_like(known), where=self.unexplained > 0)
        penalty = type(self)(self.base, self.slope, self.unexplained, np.minimum(share, 1)).scaled(self.scale)
        penalty._on_device = self._on_device
        for strengths in self._on_device.values():
            strengths.copy_(penalty._column(strengths))
        return penalty

    def _column(self, like: Tensor) -> Tensor:
        """Lay the strengths out, one for each model of coefficients (K, ...)."""
        return to_device(torch.from_numpy(self.alpha), like.device, like.dtype).view(-1, *[1] * (like.ndim - 1))

    def _strengths(self, coef: Tensor) -> tuple[float | Tensor, float | Tensor]:
        if coef.is_cpu:
            return super()._strengths(coef)
        kind = kind_of(coef)
        if kind not in self._on_device:
            self._on_device[kind] = self._column(coef)
        return 0.0, self._on_device[kind]
