r"""Second derivatives of the objectives of a stack of linear models, score by score.

The block of score c in the Hessian of model k, in the columns z that its parameters multiply (centred, scaled, a one
for the intercept), is the sum over rows of the loss's second derivative in that score, h_i, times the outer product of
the row with itself, plus the penalty's curvature on the diagonal:

.. math:: \nabla^2_c L = \frac{1}{\sum_i w_i} \sum_i w_i\, h_{ic}\, z_i z_i^T + \alpha\, \mathrm{diag}(s^2)

It takes :math:`D^2` multiply-adds per row. Where all rows have the same :math:`h_i`, as where all scores are zero, each
block is the product of the columns times a factor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective

#: Bounds the memory of the blocks that one pass over the rows adds up.
_HESSIAN_ENTRIES = 2**24
#: Bounds the memory of what is made of the rows of one step, to about what the cache holds.
_STEP_ENTRIES = 2**20


def width(objective: Objective) -> int:
    """Count D: the columns, and one for the intercept."""
    network = objective.network
    return network.params[0].shape[2] + len(network.params) - 1


def to_blocks(objective: Objective, flat: Tensor) -> Tensor:
    """Arrange parameters ``(k, P)`` as ``(k, C, D)``, one row per score: coefficients, then the intercept if any."""
    n_scores, n_features = objective.network.params[0].shape[1:]
    coef, intercept = flat.tensor_split([n_scores * n_features], dim=1)
    coef = coef.view(len(flat), n_scores, n_features)
    return torch.cat([coef, intercept.unsqueeze(2)], dim=2) if intercept.shape[1] else coef


def to_flat(objective: Objective, blocks: Tensor) -> Tensor:
    """Compute the inverse of `to_blocks`."""
    coef, intercept = blocks.tensor_split([objective.network.params[0].shape[2]], dim=2)
    return torch.cat([coef.flatten(1), intercept.flatten(1)], dim=1)


def ridge(objective: Objective) -> Tensor:
    """Compute the curvature of the penalty along each column, ``(K, 1 or C, D)``; zero for the intercept."""
    coef, scale = objective.network.params[0], objective.network.coef_scale()
    strength = torch.as_tensor(objective.penalty.curvature()).to(coef)
    strength = strength.view(len(strength), -1, 1)
    columns = coef.new_ones(1, 1, coef.shape[2]) if scale is None else scale.square()
    return F.pad(strength * columns, (0, width(objective) - coef.shape[2]))


def curvature(
    objective: Objective, models: np.ndarray, point: Tensor, average: bool = False
) -> Iterator[tuple[slice, Objective, Tensor]]:
    """Compute blocks ``(m, C, D, D)`` of scores, at points ``(k, P)`` of models; without the penalty.

    `average` gives the one block (m, 1, D, D) that all of these would have if all rows and scores had the average
    second derivative. Bounded in memory: a slice of the models at a time, with the objectives of these.
    """
    # rows that all share are read once for as many models as fit; else each model has its own anyway
    entries = objective.network.params[0].shape[1] * width(objective) ** 2
    size = max(1, _HESSIAN_ENTRIES // entries) if objective.batches.shared else 1
    for start in range(0, len(models), size):
        part = slice(start, start + size)
        everyone = len(models[part]) == objective.network.n_models
        own = objective if everyone else objective.select(models[part])
        assert isinstance(own.network, Linear)
        own.move(point[part])
        total = _average_blocks(own) if average else _blocks(own)
        scale = own.network.scale
        if scale is not None:
            scale = F.pad(scale, (0, total.shape[-1] - scale.shape[-1]), value=1.0).unsqueeze(1)
            total.mul_(scale).mul_(scale.mT)
        yield part, own, total.div_(_total_weight(own, total))


def _total_weight(objective: Objective, like: Tensor) -> Tensor:
    """Compute the sum of the rows' weights, (K, 1, 1, 1)."""
    return torch.as_tensor(objective.batches.n_rows * objective.mean_weight).to(like).view(-1, 1, 1, 1)


def _of(values: Tensor, model: int) -> Tensor:
    """Select a model's own from values that all share, or of which each has its own."""
    return values[model if len(values) > 1 else 0]


def _chunks(objective: Objective) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield chunks of the rows: their columns as a dense matrix, scores, targets and weights."""
    for batch in objective.batches.epoch():
        assert isinstance(batch.X, Tensor)  # chunks are small
        X = batch.X.to_dense() if batch.X.layout is torch.sparse_csr else batch.X
        X = X.view(-1, objective.network.params[0].shape[2])
        yield X, objective.network.scores(batch.X), batch.target, batch.weight


def _columns(network: Linear, X: Tensor, model: int) -> Tensor:
    """Compute the columns z of rows, but for their scale."""
    Z = X if network.center is None else X - _of(network.center, model)
    return F.pad(Z, (0, len(network.params) - 1), value=1.0)


def _average_blocks(objective: Objective) -> Tensor:
    """Compute the block (K, 1, D, D) that all scores share, from the second derivatives' mean over rows and scores."""
    network, batches, n_inputs = objective.network, objective.batches, width(objective)
    assert isinstance(network, Linear)
    (n_models, n_scores, _), center = network.params[0].shape, network.center
    # models with the same rows share the products of their columns, unless they differ in centres or weights
    own = any(values is not None and values.ndim > 1 and len(values) > 1 for values in (center, batches.weight))
    average = network.params[0].new_zeros(n_models, 1, 1, 1)
    products = average.new_zeros(n_models if own else 1, n_inputs, n_inputs)
    step = max(1, _STEP_ENTRIES // (n_models * n_scores**2))  # a loss may know its diagonal only from all of it
    for X, scores, target, weight in _chunks(objective):
        weight = None if weight is None else weight.unsqueeze(2)
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            second = objective.loss.second(scores[:, rows], target[:, rows])
            second = second if weight is None else second * weight[:, rows]
            average += second.mean(2).sum(1).view(-1, 1, 1, 1)
        for model, product in enumerate(products):
            Z = _columns(network, X, model)
            product.addmm_((Z if weight is None else Z * _of(weight, model)).T, Z)
    batches.group.sum_([average, products])
    return average.div_(_total_weight(objective, average)) * products.unsqueeze(1)


def _blocks(objective: Objective) -> Tensor:
    """Compute blocks (K, C, D, D) in columns that are centred, but not scaled, summed over the rows."""
    network, batches = objective.network, objective.batches
    assert isinstance(network, Linear)
    n_models, n_scores, _ = network.params[0].shape
    n_inputs, center = width(objective), network.center
    # models with the same rows share the products of their centred columns, which are scaled at the end
    together = batches.shared and (center is None or len(center) == 1)
    parts = [slice(0, n_models)] if together else [slice(m, m + 1) for m in range(n_models)]
    upper = torch.triu_indices(n_inputs, n_inputs, device=network.params[0].device)
    many = 2 * n_scores * n_models >= n_inputs * len(parts)
    add_, n_products = (_add_products_, upper.shape[1]) if many else (_add_weighted_products_, n_inputs)
    step = max(1, _STEP_ENTRIES // (n_products + n_scores * n_models // len(parts)))
    total = network.params[0].new_zeros(n_models, n_scores, n_products, *() if many else (n_inputs,))
    for X, scores, target, weight in _chunks(objective):
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            for part in parts:
                t = target if len(target) == 1 else target[part]
                second = objective.loss.second(scores[part, rows], t[:, rows])
                if weight is not None:
                    w = weight if len(weight) == 1 else weight[part]
                    second = second * w[:, rows, None]
                add_(total[part], second, _columns(network, X[rows], part.start), upper)
    batches.group.sum_([total])
    if many:
        half, total = total, total.new_empty(n_models, n_scores, n_inputs, n_inputs)
        total[..., upper[0], upper[1]] = total[..., upper[1], upper[0]] = half
    return total


def _add_products_(total: Tensor, second: Tensor, Z: Tensor, upper: Tensor) -> None:
    """Add, in place, ``total[k, c] += sum_b second[k, b, c] Z[b, i] Z[b, j]`` for pairs (i, j) in `upper`.

    One matrix product for all models and scores: the way where these are more than the columns.
    """
    factors, columns = second.transpose(1, 2).flatten(0, 1), Z.T.contiguous()
    products, start = Z.new_empty(upper.shape[1], len(Z)), 0
    for i, column in enumerate(columns):  # slices: to gather the columns of all pairs takes longer than the product
        stop = start + len(columns) - i
        torch.mul(columns[i:], column, out=products[start:stop])
        start = stop
    total.view(len(factors), -1).addmm_(factors, products.T)


def _add_weighted_products_(total: Tensor, second: Tensor, Z: Tensor, upper: Tensor) -> None:
    """Add, in place, ``total[k, c] += sum_b second[k, b, c] Z[b] Z[b]^T``: a product per model and score."""
    for model, factors in zip(total, second, strict=True):
        for block, factor in zip(model, factors.T, strict=True):
            block.addmm_((Z * factor.unsqueeze(1)).T, Z)
