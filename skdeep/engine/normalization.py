r"""Normalisation of the pre-activations of a stack: :math:`\gamma \frac{z - \mu}{\sqrt{v + 10^{-5}}} + \beta`.

:math:`\mu` and v are the mean and variance of a column over the rows of a batch (in prediction: running averages of
them), or of a row over its columns. Pre-activations are ``(K, B, h)``; :math:`\gamma`, :math:`\beta` and the running
averages are ``(K, h)``.

Ioffe & Szegedy, *Batch normalization*, ICML 2015. Ba, Kiros & Hinton, *Layer normalization*, 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

EPSILON = 1e-5
#: Share of a batch in the running averages, as in torch.nn.BatchNorm1d.
MOMENTUM = 0.1


def layer_norm(z: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalise each row by its own mean and variance over the columns."""
    normalised = F.layer_norm(z.to(gamma.dtype), z.shape[-1:], eps=EPSILON)
    return torch.addcmul(beta.unsqueeze(1), normalised, gamma.unsqueeze(1))


def batch_norm(
    z: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None = None,
    *,
    training: bool = False,
) -> Tensor:
    """Normalise each column by its mean and variance over the rows, where each row counts by its weight, (1 or K, B).

    In training these are the batch's, and `mean` and `var` move towards them (the variance with n - 1 for n rows); in
    evaluation they are `mean` and `var`. One row has no variance: a batch of one is treated as in evaluation. Rows of
    no weight are normalised, and have no influence; None counts each row once.
    """
    z, n_rows = z.to(gamma.dtype), z.shape[1]
    if training and weight is not None:
        return _weighted(z, gamma, beta, mean, var, weight)
    columns = z.mT.reshape(1, -1, n_rows)  # the memory of a stack: a vector of rows for each column of each model
    normalised = F.batch_norm(
        columns, mean.view(-1), var.view(-1), gamma.view(-1), beta.view(-1), training and n_rows > 1, MOMENTUM, EPSILON
    )
    return normalised.view(z.mT.shape).mT


def _weighted(z: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, weight: Tensor) -> Tensor:
    share = (weight / weight.sum(1, keepdim=True)).unsqueeze(2)
    n_rows = (weight > 0).sum(1, keepdim=True, dtype=weight.dtype)
    batch_mean = (share * z).sum(1)
    batch_var = (share * (z - batch_mean.unsqueeze(1)).square()).sum(1)
    single = n_rows < 2
    used_mean, used_var = torch.where(single, mean, batch_mean), torch.where(single, var, batch_var)
    with torch.no_grad():
        mean.lerp_(used_mean, MOMENTUM)
        var.lerp_(torch.where(single, var, batch_var * (n_rows / (n_rows - 1).clamp(min=1))), MOMENTUM)
    factor = gamma * (used_var + EPSILON).rsqrt()
    return torch.addcmul(beta.unsqueeze(1), z - used_mean.unsqueeze(1), factor.unsqueeze(1))


class WeightedBatchNorm(TorchFunctionMode):
    """Batch normalisation by the means and variances of rows that count by their weight; the least stands for one row.

    It is the function that is another one, whichever modules and hooks are around it.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = weight
        self.met = False  # whether there was any

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, self.met = kwargs or {}, self.met or func is F.batch_norm
        # averages that are kept as they are need no weights, and what has another length is no rows
        if func is not F.batch_norm or not kwargs["training"] or len(args[0]) != len(self.weight):
            return func(*args, **kwargs)
        (inputs, *running), factor, shift = args, kwargs["weight"], kwargs["bias"]
        z = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        axes, form = [0, *range(2, z.ndim)], (1, -1, *[1] * (z.ndim - 2))
        n_places, total = z[0, 0].numel(), self.weight.sum()
        share = (self.weight / (n_places * total)).to(z.dtype).view(-1, *[1] * (z.ndim - 1))
        mean = (share * z).sum(axes)
        centred = z - mean.view(form)
        var = (share * centred.square()).sum(axes)
        n_values = n_places * total / self.weight.masked_fill(self.weight <= 0, torch.inf).min()
        news = mean.detach(), var.detach() * (n_values / (n_values - 1).clamp(min=1))
        for average, new in zip(running, news, strict=True):
            if average is not None:
                average.lerp_(new.to(average.dtype), kwargs["momentum"])
        scale = (var + kwargs["eps"]).rsqrt()
        normalised = centred * (scale if factor is None else scale * factor).view(form)
        return (normalised if shift is None else normalised + shift.view(form)).to(inputs.dtype)
