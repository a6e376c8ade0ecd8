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

from skdeep.compat import torch as private


@dataclass(frozen=True)
class Activation:
    """A function of the pre-activations."""

    function: Callable[..., Tensor]
    #: Gradient with respect to the pre-activations, given the one with respect to the activations, the pre-activations
    #: and the activations; None leaves it to autograd.
    pullback: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    n_pieces: int = 1  # linear pieces to a unit
    slope: float | None = None  # initial value of the parameter that is learnt, if there is one
    #: The function in the memory of the pre-activations, if the pullback does not ask for these.
    in_place: Callable[[Tensor], Tensor] | None = None
    #: What a penalty, and Adam's learning rate, that are right for relu are to be multiplied by: to be anything but
    #: lines, units that saturate have larger weights.
    penalty: float = 1.0
    rate: float = 1.0


def _relu_pullback(gradient: Tensor, z: Tensor, units: Tensor) -> Tensor:
    # one kernel; the host is faster with calls that a step makes in any case (docs/decisions/step.rst)
    return units.sign().mul_(gradient) if units.is_cpu else private.threshold_backward(gradient, units, 0)


def _prelu(z: Tensor, slope: Tensor) -> Tensor:
    return torch.where(z > 0, z, slope.unsqueeze(-1) * z)


def _maxout(z: Tensor) -> Tensor:
    return z.unflatten(-1, (-1, 2)).amax(-1)


#: Formulas: relu max(0, z); leaky_relu max(z, 0.01 z); prelu max(z, a z), a learnt from 0.25 (He et al. 2015); elu z or
#: e^z - 1 (Clevert et al. 2016); selu the self-normalising scaled elu (Klambauer et al. 2017); gelu z Phi(z)
#: (Hendrycks & Gimpel 2016); silu z sigma(z); logistic sigma(z); maxout the larger of two linear pieces
#: (Goodfellow et al. 2013).
ACTIVATIONS = {
    "identity": Activation(lambda z: z, lambda g, z, h: g),
    "relu": Activation(torch.relu, _relu_pullback, in_place=torch.relu_),
    "leaky_relu": Activation(F.leaky_relu, lambda g, z, h: private.leaky_relu_backward(g, z, 0.01, False)),
    "prelu": Activation(_prelu, slope=0.25),
    "elu": Activation(F.elu, lambda g, z, h: private.elu_backward(g, 1, 1, 1, True, h)),
    "selu": Activation(F.selu),
    "gelu": Activation(F.gelu, lambda g, z, h: private.gelu_backward(g, z)),
    "silu": Activation(F.silu, lambda g, z, h: private.silu_backward(g, z)),
    "tanh": Activation(torch.tanh, lambda g, z, h: private.tanh_backward(g, h), in_place=torch.tanh_, penalty=1 / 2),
    # (1 + tanh(z / 2)) / 2: for the same function, weights on both sides are twice as large as tanh's
    "logistic": Activation(
        torch.sigmoid, lambda g, z, h: private.sigmoid_backward(g, h), in_place=torch.sigmoid_, penalty=1 / 8, rate=2
    ),
    "maxout": Activation(_maxout, n_pieces=2),
}
