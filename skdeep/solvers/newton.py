r"""Newton directions for linear models with few parameters: the optimum in some ten iterations, however it is scaled.

A Hessian takes :math:`C (C + 1) d^2` multiply-adds per row, against :math:`2 C d` of a gradient.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.3 and 3.4.
Mangasarian, *A finite Newton method for classification*, Optimization Methods and Software 17, 2002: the generalised
Hessian of the squared hinge.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.solvers.curvature import curvature, ridge, to_blocks, to_flat, width

#: Pivots below so many units of the last place may be all that rounding leaves of a direction without curvature.
_SINGULAR = 1000


class Newton:
    """Newton directions of a stack of linear models."""

    #: Most parameters of a model: on raw columns, L-BFGS is up to eight times slower already at 650 (digits).
    max_params = 1024

    def __init__(self, objective: Objective):
        self.objective = objective

    def select(self, models: np.ndarray, objective: Objective) -> Newton:
        """Select the directions of some of the models, whose objectives these are."""
        return Newton(objective)

    def __call__(self, models: np.ndarray, point: Tensor, gradient: Tensor) -> Tensor:
        """Compute directions (k, P) of some of the models, at their points (k, P) with these gradients (k, P)."""
        n_scores, n_inputs = self.objective.network.params[0].shape[1], width(self.objective)
        pairs = torch.tril_indices(n_scores, n_scores, device=point.device)
        directions = torch.empty_like(gradient)
        for part, objective, total in curvature(self.objective, models, point, pairs):
            hessians = total.new_zeros(len(total), n_scores, n_inputs, n_scores, n_inputs)
            hessians.transpose(2, 3)[:, pairs[0], pairs[1]] = total
            if objective.loss.shift_invariant:
                _pin_shift_(hessians, ridge(objective) == 0)
            hessians = hessians.view(len(total), n_scores * n_inputs, -1)
            assert isinstance(objective.network, Linear)
            unit = _units(hessians.diagonal(dim1=1, dim2=2), alike=objective.network.scale is not None)
            diagonal = hessians.diagonal(dim1=1, dim2=2).unflatten(1, (n_scores, n_inputs))
            diagonal += ridge(objective)
            downhill = -to_blocks(objective, gradient[part]).flatten(1).unsqueeze(-1)
            directions[part] = to_flat(objective, _solve(hessians, downhill, unit).view(-1, n_scores, n_inputs))
        return directions


def _pin_shift_(hessians: Tensor, free: Tensor) -> None:
    """Add, in place, curvature along the shift that all scores have in common, which has none: it stays put.

    The columns that shift are the ones that no penalty holds, `free` (k, 1, D): the intercept, or all. Of the Hessians
    (k, C, D, C, D), the blocks of each score with itself and with those before are there.
    """
    average = hessians.diagonal(dim1=1, dim2=3).mean(-1)
    hessians += average.mul_(free).mul_(free.mT)[:, None, :, None]


def _units(curvature: Tensor, alike: bool) -> Tensor:
    """Choose a unit (k, P) for each diagonal entry of some Hessians: the largest, where columns were made `alike`.

    There, small curvature is of rows that hardly count, and next to rounding it is none. Raw columns each have their
    own size, so that an intercept counts beside 1e40. All is without the penalty: where rows have no curvature, their
    gradient is rounding, which a tiny penalty would make a step of any size. The unit there is the largest, or one.
    """
    largest = curvature.amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0).expand_as(curvature)
    return largest if alike else torch.where(curvature > 0, curvature, largest)


def _solve(hessians: Tensor, right: Tensor, unit: Tensor) -> Tensor:
    """Solve with each Hessian, in units (k, P); along directions without curvature, as if it were one unit.

    What there is of a gradient along these is rounding, which any smaller curvature would blow up, to another size in a
    stack than alone. Overwrites the Hessians.
    """
    scale, eps = unit.rsqrt().unsqueeze(2), torch.finfo(unit.dtype).eps
    hessians.mul_(scale).mul_(scale.mT)
    right = scale * right
    factor, info = torch.linalg.cholesky_ex(hessians)
    found = torch.cholesky_solve(right, factor)
    singular = (info > 0) | (factor.diagonal(dim1=1, dim2=2).square().amin(1) < _SINGULAR * eps)
    singular &= hessians.flatten(1).isfinite().all(1)
    if singular.any():
        values, vectors = torch.linalg.eigh(hessians[singular])
        rounding = values.shape[1] * eps * values[:, -1:]
        values = torch.where(values > rounding, values, 1.0).unsqueeze(2)
        found[singular] = vectors @ (vectors.mT @ right[singular] / values)
    return (found * scale).squeeze(-1)
