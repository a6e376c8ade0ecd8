r"""Averages of the parameters of a stack over the steps of a run.

After step t, :math:`\bar\theta \leftarrow \bar\theta + \frac{\eta + 1}{t + \eta} (\theta - \bar\theta)` with
:math:`\eta = 3`: what the last quarter or so of the steps went through, whenever training ends. Their noise averages
out while the learning rate stays where it is, so that half as many steps lead as far as under a rate that falls.

Shamir & Zhang, *Stochastic gradient descent for non-smooth optimization: convergence results and optimal averaging
schemes*, ICML 2013, section 4.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.per_model import index_of, per_model, select

#: How fast the first steps are forgotten.
_ETA = 3


class Averages:
    """Keep the averages of tensors (K, ...) that training moves.

    They are of a network, which holds either what training moves, or (while `shown`) the averages.
    """

    def __init__(self, tensors: list[Tensor]):
        self.tensors = [tensor.detach() for tensor in tensors]
        self.shown = False
        self._others = [tensor.clone() for tensor in self.tensors]
        first, n_models = self.tensors[0], len(self.tensors[0])
        # a step that is recorded has to count on the device
        self._n_steps: np.ndarray | Tensor = (
            np.zeros(n_models) if first.device.type == "cpu" else first.new_zeros(n_models, dtype=torch.float32)
        )

    def take_in(self) -> None:
        """Take in what a step has led to."""
        self._n_steps += 1
        weight = (_ETA + 1) / (self._n_steps + _ETA)
        for average, tensor in zip(self._others, self.tensors, strict=True):
            average.lerp_(tensor, per_model(weight, tensor))

    def show(self, wanted: bool = True) -> None:
        """Have the network hold the averages, or else what training moves."""
        if wanted != self.shown:
            for tensor, other in zip(self.tensors, self._others, strict=True):
                held = tensor.clone()
                tensor.copy_(other)
                other.copy_(held)
            self.shown = wanted

    def select(self, models: np.ndarray, tensors: list[Tensor]) -> Averages:
        """Select some of the models, with a copy of what is kept of them, for their (already selected) `tensors`."""
        part = Averages(tensors)
        part.shown, part._others = self.shown, [select(other, models) for other in self._others]
        index = models if isinstance(self._n_steps, np.ndarray) else index_of(models, self._n_steps)
        part._n_steps = self._n_steps[index]
        return part

    def put(self, models: np.ndarray, part: Averages) -> None:
        """Take back what is kept of some of the models."""
        index = index_of(models, self.tensors[0])
        for other, new in zip(self._others, part._others, strict=True):
            other[index] = new
        if isinstance(self._n_steps, Tensor):
            assert isinstance(part._n_steps, Tensor)
            self._n_steps[index] = part._n_steps
        else:
            self._n_steps[models] = part._n_steps
