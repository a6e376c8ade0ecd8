r"""Newton directions for linear models with few parameters: the optimum in some ten iterations, however it is scaled.

The Hessian of model k, in the columns z of `Linear.inputs`, is the sum over rows of the loss's second derivative in the
scores, H_i (C, C), times the outer product of the row with itself, plus the penalty's curvature on the diagonal:

.. math:: \nabla^2 L = \frac{1}{\sum_i w_i} \sum_i w_i\, H_i \otimes z_i z_i^T + \alpha\, \mathrm{diag}(s^2)

It takes :math:`C (C + 1) d^2` multiply-adds per row, against :math:`2 C d` of a gradient.

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

from skdeep.networks import Linear
from skdeep.objective import Objective

#: Bounds the memory of the Hessians that one pass over the rows adds up.
_HESSIAN_ENTRIES = 2**24
#: Bounds the memory of what is made of the rows of one step, to about what the cache holds.
_STEP_ENTRIES = 2**20
#: Relative ridge that keeps the factorisation from failing on directions without curvature.
_RIDGE = 1e-12


class Newton:
    """Newton directions of a stack of linear models."""

    #: Most parameters of a model. On raw columns, L-BFGS is up to eight times slower already at 650 (digits).
    max_params = 1024
    #: The same where the penalty acts in the columns trained in: few iterations of L-BFGS do, up to six times faster.
    max_params_scaled = 500

    @classmethod
    def suits(cls, n_params: int, scaled: bool) -> bool:
        """Whether its directions are worth their price, for so many parameters of a model."""
        return n_params <= min(cls.max_params, cls.max_params_scaled if scaled else cls.max_params)

    def __init__(self, objective: Objective):
        self.objective = objective

    def select(self, models: np.ndarray, objective: Objective) -> Newton:
        """The directions of some of the models, whose objectives these are."""
        return Newton(objective)

    def __call__(self, models: np.ndarray, point: Tensor, gradient: Tensor) -> Tensor:
        """Directions (k, P) of some of the models, at their points (k, P) with these gradients (k, P)."""
        # rows that all share are read once for as many models as fit; else each model has its own anyway
        size = max(1, _HESSIAN_ENTRIES // gradient.shape[1] ** 2) if self.objective.batches.shared else 1
        directions = torch.empty_like(gradient)
        for start in range(0, len(models), size):
            part = slice(start, start + size)
            everyone = len(models[part]) == self.objective.network.n_models
            group = self if everyone else Newton(self.objective.select(models[part]))
            hessians = group._hessians(group._blocks(point[part]))
            downhill = -group._blocks(gradient[part]).flatten(1).unsqueeze(-1)
            directions[part] = group._flat(_solve(hessians, downhill))
        return directions

    def _blocks(self, flat: Tensor) -> Tensor:
        """Parameters of each model as ``(k, C, D)``, one row per score: coefficients, then the intercept if any."""
        n_scores, n_features = self.objective.network.params[0].shape[1:]
        coef, intercept = flat.tensor_split([n_scores * n_features], dim=1)
        coef = coef.view(len(flat), n_scores, n_features)
        return torch.cat([coef, intercept.unsqueeze(2)], dim=2) if intercept.shape[1] else coef

    def _flat(self, blocks: Tensor) -> Tensor:
        """The inverse of `_blocks`."""
        n_scores, n_features = self.objective.network.params[0].shape[1:]
        coef, intercept = blocks.view(len(blocks), n_scores, -1).tensor_split([n_features], dim=2)
        return torch.cat([coef.flatten(1), intercept.flatten(1)], dim=1)

    def _hessians(self, point: Tensor) -> Tensor:
        """Hessians ``(k, C * D, C * D)`` at a point ``(k, C, D)``; of the blocks, those on and below the diagonal."""
        objective, network, batches = self.objective, self.objective.network, self.objective.batches
        assert isinstance(network, Linear)
        n_models, n_scores, n_inputs = point.shape
        left, right = torch.tril_indices(n_scores, n_scores, device=point.device)
        # models in the same columns of the same rows share the products of these columns
        columns = (network.center, network.scale)
        together = batches.shared and all(c is None or bool((c == c[:1]).all()) for c in columns)
        groups = [slice(0, n_models)] if together else [slice(m, m + 1) for m in range(n_models)]
        many = len(left) * n_models >= n_inputs * len(groups)
        add_, width = (_add_products_, n_inputs**2) if many else (_add_weighted_products_, n_inputs)
        step = max(1, _STEP_ENTRIES // (width + n_scores**2 * n_models // len(groups)))
        total = point.new_zeros(n_models, len(left), n_inputs, n_inputs)
        for batch in batches.epoch():
            assert isinstance(batch.X, Tensor)  # chunks are small
            X = batch.X.to_dense() if batch.X.layout is torch.sparse_csr else batch.X
            X = X.view(-1, X.shape[-1])
            for start in range(0, len(X), step):
                rows = slice(start, start + step)
                for group in groups:
                    target = batch.target if len(batch.target) == 1 else batch.target[group]
                    Z = network.inputs(X[rows], group.start)
                    curvature = objective.loss.hessian(Z @ point[group].transpose(1, 2), target[:, rows])
                    if batch.weight is not None:
                        weight = batch.weight if len(batch.weight) == 1 else batch.weight[group]
                        curvature = curvature * weight[:, rows, None, None]
                    add_(total[group], curvature[..., left, right], Z)
        total /= torch.as_tensor(batches.n_rows * objective.mean_weight).to(total).view(-1, 1, 1, 1)
        hessians = total.new_zeros(n_models, n_scores, n_inputs, n_scores, n_inputs)
        hessians.transpose(2, 3)[:, left, right] = total
        n_features, scale = network.params[0].shape[2], network.coef_scale()
        if n_inputs > n_features:
            _pin_shift_(hessians[:, :, -1, :, -1])
        ridge = torch.as_tensor(objective.penalty.curvature()).to(total).view(-1, 1, 1)
        hessians = hessians.view(n_models, n_scores * n_inputs, -1)
        diagonal = hessians.diagonal(dim1=1, dim2=2).unflatten(1, (n_scores, n_inputs))
        diagonal[:, :, :n_features] += ridge if scale is None else ridge * scale.square()
        return hessians


def _add_products_(total: Tensor, curvature: Tensor, Z: Tensor) -> None:
    """In place, ``total[k, p] += sum_b curvature[k, b, p] Z[b] Z[b]^T``, from the products of all pairs of columns.

    One matrix product for all models and pairs of scores: the way where these are more than the columns.
    """
    factors = curvature.transpose(1, 2).flatten(0, 1)
    total.view(len(factors), -1).addmm_(factors, (Z.unsqueeze(2) * Z.unsqueeze(1)).flatten(1))


def _add_weighted_products_(total: Tensor, curvature: Tensor, Z: Tensor) -> None:
    """The same, one matrix product per model and pair of scores."""
    for model, factors in zip(total, curvature, strict=True):
        for pair, factor in zip(model, factors.T, strict=True):
            pair.addmm_((Z * factor.unsqueeze(1)).T, Z)


def _pin_shift_(blocks: Tensor) -> None:
    """In place, give curvature to a common shift of all intercepts where it has none (softmax), so that it stays put.

    The Hessian is singular there, which would blow up rounding to any size. `blocks` (k, C, C) are lower triangles.
    """
    whole = blocks.tril() + blocks.tril(-1).mT
    size = whole.diagonal(dim1=1, dim2=2)
    free = whole.sum(2).abs().amax(1) <= 1e-10 * size.amax(1)
    blocks += (free * size.mean(1)).view(-1, 1, 1)


def _solve(hessians: Tensor, right: Tensor) -> Tensor:
    """Solve with each Hessian plus the smallest ridge that makes it positive definite."""
    diagonal = hessians.diagonal(dim1=1, dim2=2)
    largest = diagonal.amax(1, keepdim=True)
    ridge = torch.full_like(largest, _RIDGE)
    for _ in range(8):
        diagonal += ridge * largest
        factor, info = torch.linalg.cholesky_ex(hessians)
        if not info.any():
            break
        ridge = torch.where(info.unsqueeze(1) > 0, 100 * ridge, 0.0)
    return torch.cholesky_solve(right, factor).squeeze(-1)
