r"""Newton directions for linear models with few parameters: the optimum in some ten iterations, however it is scaled.

A Hessian takes :math:`C (C + 1) d^2` multiply-adds per row, against :math:`2 C d` of a gradient.

References
----------
Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.3 and 3.4.
Mangasarian, *A finite Newton method for classification*, Optimization Methods and Software 17, 2002: the generalised
Hessian of the squared hinge.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.curvature import curvature, ridge, to_blocks, to_flat, width
from skdeep.objective import Objective

#: Ridge, in units of the diagonal, that keeps the factorisation from failing on directions without curvature.
_RIDGE = 1e-12


class Newton:
    """Newton directions of a stack of linear models."""

    #: Most parameters of a model: on raw columns, L-BFGS is up to eight times slower already at 650 (digits).
    max_params = 1024

    def __init__(self, objective: Objective):
        self.objective = objective

    def select(self, models: np.ndarray, objective: Objective) -> Newton:
        """The directions of some of the models, whose objectives these are."""
        return Newton(objective)

    def __call__(self, models: np.ndarray, point: Tensor, gradient: Tensor) -> Tensor:
        """Directions (k, P) of some of the models, at their points (k, P) with these gradients (k, P)."""
        n_scores, n_inputs = self.objective.network.params[0].shape[1], width(self.objective)
        pairs = torch.tril_indices(n_scores, n_scores, device=point.device)
        directions = torch.empty_like(gradient)
        for part, objective, total in curvature(self.objective, models, point, pairs):
            hessians = total.new_zeros(len(total), n_scores, n_inputs, n_scores, n_inputs)
            hessians.transpose(2, 3)[:, pairs[0], pairs[1]] = total
            if n_inputs > objective.network.params[0].shape[2] and objective.loss.shift_invariant:
                _pin_shift_(hessians[:, :, -1, :, -1])
            hessians = hessians.view(len(total), n_scores * n_inputs, -1)
            unit = _units(hessians.diagonal(dim1=1, dim2=2))
            diagonal = hessians.diagonal(dim1=1, dim2=2).unflatten(1, (n_scores, n_inputs))
            diagonal += ridge(objective)
            downhill = -to_blocks(objective, gradient[part]).flatten(1).unsqueeze(-1)
            directions[part] = to_flat(objective, _solve(hessians, downhill, unit).view(-1, n_scores, n_inputs))
        return directions


def _pin_shift_(blocks: Tensor) -> None:
    """In place, give curvature to a common shift of all intercepts, which has none, so that it stays put.

    The Hessian is singular there, which would blow up rounding to any size. `blocks` (k, C, C) are lower triangles.
    """
    blocks += blocks.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)


def _units(curvature: Tensor) -> Tensor:
    """Unit (k, P) of each diagonal entry of some Hessians: its own size, so that an intercept counts beside 1e40.

    Without the penalty: where the rows have no curvature, their gradient is rounding, which a tiny penalty would make a
    step of any size. The unit there is that of the largest entry, or one.
    """
    largest = curvature.amax(1, keepdim=True)
    return torch.where(curvature > 0, curvature, torch.where(largest > 0, largest, 1.0))


def _solve(hessians: Tensor, right: Tensor, unit: Tensor) -> Tensor:
    """Solve with each Hessian plus the smallest ridge, in units (k, P), that makes it positive definite.

    Overwrites the Hessians.
    """
    scale = unit.rsqrt().unsqueeze(2)
    hessians.mul_(scale).mul_(scale.mT)
    diagonal, addition = hessians.diagonal(dim1=1, dim2=2), torch.full_like(scale[:, :1, 0], _RIDGE)
    for _ in range(8):
        diagonal += addition
        factor, info = torch.linalg.cholesky_ex(hessians)
        if not info.any():
            break
        addition = torch.where(info.unsqueeze(1) > 0, 100 * addition, 0.0)
    return (torch.cholesky_solve(scale * right, factor) * scale).squeeze(-1)
