"""The objectives of a stack: what its models minimise, with value and gradient over all rows for full batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.batching import Batches
from skdeep.engine.gradients import loss_and_gradient
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import add_scaled_, index_of, per_model, to_numpy64


@dataclass
class Objective:
    """The penalised objectives of a stack; a point is ``(K, P)``, all parameters of a model in one row."""

    network: Network  # the models, with their parameters
    loss: Loss
    penalty: ElasticNet  # on the network's coefficients
    batches: Batches  # the data, in mini-batches or in chunks of a full batch
    mean_weight: np.ndarray  # sample weight of each model's training rows, (K,)

    def select(self, models: np.ndarray) -> Objective:
        """Select the objectives of some of the models."""
        parts = self.network.select(models), self.loss, self.penalty.select(models), self.batches.select(models)
        return Objective(*parts, self.mean_weight[models])

    def start(self) -> Tensor:
        """Copy the point where the network is."""
        return _flat([p.detach() for p in self.network.params])

    def move(self, point: Tensor) -> None:
        """Put the network at a point."""
        sizes = [p[0].numel() for p in self.network.params]
        for param, part in zip(self.network.params, point.split(sizes, dim=1), strict=True):
            param.copy_(part.view(param.shape))

    def __call__(self, point: Tensor) -> tuple[np.ndarray, Tensor]:
        """Compute values (K,) and gradients (K, P), summed over the chunks of the data."""
        self.move(point)
        total = point.new_zeros(len(point))
        gradients = [torch.zeros_like(p) for p in self.network.params]
        for batch in self.batches.epoch():
            models = np.arange(len(point)) if batch.models is None else batch.models
            network = self.network if batch.models is None else self.network.select(models)
            losses, parts = loss_and_gradient(network, self.loss, batch, self.mean_weight[models])
            shares = [1 / self.batches.n_rows[models]] + len(parts) * [batch.size / self.batches.n_rows[models]]
            for whole, part, share in zip((total, *gradients), (losses.sum(1), *parts), shares, strict=True):
                if batch.models is None:
                    add_scaled_(whole, part, per_model(share, part))
                else:
                    whole.index_add_(0, index_of(models, point), part * per_model(share, part))
        self.batches.group.sum_([total, *gradients])
        self.network.complete_(gradients, self.penalty)
        values = to_numpy64(torch.stack([total, *self.penalty.norms(self.network.penalised())]))
        return values[0] + self.penalty.of_norms(values[1:]), _flat(gradients)


def _flat(tensors: list[Tensor]) -> Tensor:
    """Join tensors (K, ...) to one (K, P)."""
    return torch.cat([t.reshape(len(t), -1) for t in tensors], dim=1)
