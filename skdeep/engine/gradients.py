"""The data term of a batch and its gradient, for a stack of models."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.batching import Batch
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.per_model import per_model


def clip_(gradients: list[Tensor], max_norm: float) -> None:
    """Scale each model's gradient down to a norm of `max_norm`, over all parameters."""
    norms = torch.stack([torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for g in gradients])
    factor = (max_norm / torch.linalg.vector_norm(norms, dim=0)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))


def least(dtype: torch.dtype) -> float:
    """Return what is nothing beside other rows' gradients, though far from the least number of a dtype.

    A row that a model is sure of has a gradient of e^-80, say, and products of it are numbers below the least normal
    one, with which a processor takes a hundred times as long.
    """
    return torch.finfo(dtype).tiny / torch.finfo(dtype).eps


def loss_and_gradient(
    network: Network, loss: Loss, batch: Batch, mean_weight: np.ndarray, products: torch.dtype | None = None
) -> tuple[Tensor, list[Tensor]]:
    r"""Compute the losses (K, B) of a batch's rows, :math:`w_i L_i / \bar w`, and the gradients of their mean.

    :math:`\bar w` is the mean weight of the whole training set: the batch's own mean would be biased. Losses are to be
    added up with other batches', all at once.
    """
    if products is not None:
        with torch.autocast(network.params[0].device.type, products):
            return loss_and_gradient(network, loss, batch, mean_weight)
    parts = iter(batch.parts(network.row_size, whole=network.whole_batches))
    losses, gradients = _of_part(network, loss, next(parts), mean_weight)
    for part in parts:
        more_losses, more_gradients = _of_part(network, loss, part, mean_weight)
        losses = torch.cat([losses, more_losses], dim=1)
        for gradient, more in zip(gradients, more_gradients, strict=True):
            gradient += more
    return losses, gradients


def _of_part(network: Network, loss: Loss, batch: Batch, mean_weight: np.ndarray) -> tuple[Tensor, list[Tensor]]:
    assert isinstance(batch.X, Tensor)
    scores, dtype = network.training_scores(batch.X, batch.weight, batch.noise), network.params[0].dtype
    known = scores.detach() if scores.requires_grad else scores
    value, gradient = loss.value_and_gradient(known if known.dtype is dtype else known.to(dtype), batch.target)
    if batch.weight is None and isinstance(batch.size, int):  # nothing differs between rows or models
        gradient.mul_(1 / batch.size)
    else:
        weight = value.new_ones(value.shape) if batch.weight is None else batch.weight
        factor = weight / per_model(mean_weight, value)
        value = value * factor
        gradient.mul_((factor / per_model(np.broadcast_to(batch.size, mean_weight.shape), value)).unsqueeze(-1))
    if gradient.device.type == "cpu":
        gradient = torch.hardshrink(gradient, least(dtype))
    return value, network.gradient(scores, batch.X, gradient)
