r"""Activation functions of hidden layers.

An `Activation` maps pre-activations ``(K, B, n_pieces * h)`` to activations ``(K, B, h)``. Those with a parameter
that is learnt (PReLU's slope) get it as a second argument, ``(K, 1)``: one per model and layer.

To add one, add a line to `ACTIVATIONS`; the estimators, tests and docs read that table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """A function, how many linear pieces each unit takes, and the initial value of its learnt parameter, if any."""

    function: Callable[..., Tensor]
    n_pieces: int = 1
    slope: float | None = None


def _prelu(z: Tensor, slope: Tensor) -> Tensor:
    return torch.where(z > 0, z, slope.unsqueeze(-1) * z)


def _maxout(z: Tensor) -> Tensor:
    return z.unflatten(-1, (-1, 2)).amax(-1)


#: Formulas: relu max(0, z); leaky_relu max(z, 0.01 z); prelu max(z, a z), a learnt from 0.25 (He et al. 2015); elu z or
#: e^z - 1 (Clevert et al. 2016); selu the self-normalising scaled elu (Klambauer et al. 2017); gelu z Phi(z)
#: (Hendrycks & Gimpel 2016); silu z sigma(z); logistic sigma(z); maxout the larger of two linear pieces
#: (Goodfellow et al. 2013).
ACTIVATIONS = {
    "identity": Activation(lambda z: z),
    "relu": Activation(torch.relu),
    "leaky_relu": Activation(F.leaky_relu),
    "prelu": Activation(_prelu, slope=0.25),
    "elu": Activation(F.elu),
    "selu": Activation(F.selu),
    "gelu": Activation(F.gelu),
    "silu": Activation(F.silu),
    "tanh": Activation(torch.tanh),
    "logistic": Activation(torch.sigmoid),
    "maxout": Activation(_maxout, n_pieces=2),
}
