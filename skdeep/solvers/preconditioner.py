r"""What L-BFGS starts its directions from, for linear models: the curvature along the parameters of each score.

With P the projection that takes the mean over the scores off, the Hessian's diagonal blocks :math:`B_c` (D, D), one per
score c, and :math:`\rho = \alpha s^2` the curvature of the penalty along each column,

.. math:: H_0 = P\, \mathrm{diag}(B_1, \ldots, B_C)^{-1} P + (I - P)\, \mathrm{diag}(\rho)^{-1}

for a loss that a common shift of all scores leaves as it is: along such a shift, the curvature is the penalty's alone,
and :math:`B^{-1}` would overstate it. For other losses, :math:`P = I`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.losses import Loss
from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.solvers.curvature import curvature, ridge, to_blocks, to_flat, width


@dataclass
class Preconditioner:
    """Inverse Hessians of a stack of linear models, as the blocks above: the identity before they are computed."""

    #: Most entries of the blocks of one model.
    max_entries: ClassVar[int] = 2**20

    objective: Objective
    inverse: Tensor  # of the blocks, (K, C, D, D)
    of_shift: Tensor  # inverse curvature along a common shift of the scores, (K, 1, D)
    size: Tensor  # of columns, but for a factor, (K, 1, D)

    @classmethod
    def of(cls, objective: Objective) -> Preconditioner | None:
        """Begin with the identity; None for networks, where it is too large, and where curvature comes and goes."""
        if not isinstance(objective.network, Linear):
            return None
        n_models, n_scores, _ = objective.network.params[0].shape
        if not cls.fits(objective.loss, n_scores, width(objective)):
            return None
        like, size = objective.network.params[0], width(objective)
        inverse = torch.eye(size).to(like).repeat(n_models, n_scores, 1, 1)
        ones = like.new_ones(n_models, 1, size)
        return cls(objective, inverse, of_shift=ones, size=ones.clone())

    @classmethod
    def fits(cls, loss: Loss, n_scores: int, n_inputs: int) -> bool:
        """Tell whether linear models of this loss and of so many scores and inputs have a preconditioner."""
        return loss.twice_smooth and n_scores * n_inputs**2 <= cls.max_entries

    def select(self, models: np.ndarray, objective: Objective) -> Preconditioner:
        """Select the inverses of some of the models, whose objectives these are."""
        return Preconditioner(objective, self.inverse[models], self.of_shift[models], self.size[models])

    def compute(self, models: np.ndarray, point: Tensor, average: bool = False) -> None:
        """Compute the inverses of some of the models anew, at their points (k, P); `average`: see `curvature`."""
        for part, objective, blocks in curvature(self.objective, models, point, average=average):
            of_penalty, diagonal, limits = ridge(objective), blocks.diagonal(dim1=2, dim2=3), torch.finfo(blocks.dtype)
            if average:
                self.size[models[part]] = torch.where(diagonal > 0, diagonal, 1.0)
                blocks = blocks.expand(-1, of_penalty.shape[1], -1, -1).contiguous()  # scores may be held differently
                diagonal = blocks.diagonal(dim1=2, dim2=3)
            size = self.size[models[part]]
            # columns that others determine, and scores that have no curvature left: a share of the largest of columns
            # that are brought to one size, or of the penalty of the one that it holds least, if losses have as much
            held = torch.where(of_penalty > 0, (of_penalty / size).clamp(max=1.0), torch.inf).amin((1, 2), keepdim=True)
            most = torch.maximum((diagonal / size).amax((1, 2), keepdim=True), torch.where(held < torch.inf, held, 0.0))
            diagonal += of_penalty + limits.eps**0.4 * size * most.clamp(min=limits.tiny)
            largest = diagonal.amax((1, 2))
            factor, failed = torch.linalg.cholesky_ex(blocks)
            # no inverse where a loss overflows, bends the other way, or is flat up to rounding
            flat = largest <= limits.eps
            sound = np.flatnonzero(~(failed.any(1) | flat).cpu().numpy())
            if not len(sound):
                continue
            which = models[part][sound]
            self.inverse[which] = torch.cholesky_inverse(factor[sound])
            # nothing moves where there is no curvature, for there is no gradient
            self.of_shift[which] = torch.where(of_penalty > 0, 1 / of_penalty, 0.0)[sound, :1]

    def __call__(self, models: np.ndarray, vectors: Tensor) -> Tensor:
        """Multiply vectors (k, m, P) of some of the models by their inverses."""
        everyone = len(models) == len(self.inverse)
        inverse, of_shift = (t if everyone else t[models] for t in (self.inverse, self.of_shift))
        count = vectors.shape[1]
        blocks = to_blocks(self.objective, vectors.flatten(0, 1)).unflatten(0, (-1, count))
        shift = blocks.mean(2, keepdim=True) if self.objective.loss.shift_invariant else None
        # from the left, which is several times faster than from the right: the inverse is symmetric
        rows = blocks if shift is None else blocks - shift
        products = (rows.transpose(1, 2) @ inverse).transpose(1, 2)
        if shift is not None:
            products = products - products.mean(2, keepdim=True)
            products = products.addcmul_(shift, of_shift.unsqueeze(1))
        return to_flat(self.objective, products.flatten(0, 1)).unflatten(0, (-1, count))
