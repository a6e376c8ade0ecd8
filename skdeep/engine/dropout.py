r"""Which units and blocks take part in a training step: dropout and stochastic depth.

All that is drawn for a step follows from one integer, which each generator of the stack gives; models that share a
generator share the draw. Each layer has a stream of its own, in the order of the rows. So what a model meets depends
neither on the other models of its stack, nor on rows that fill up a batch, nor on the device.

References
----------
Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, JMLR 15, 2014. Huang et al.,
*Deep networks with stochastic depth*, ECCV 2016.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.per_model import numbered, per_model, to_device

#: Random bits per unit: a probability is rounded to a multiple of 2 ** -16.
_LEVELS = 2**16


class Noise:
    """The random numbers of one step.

    Parameters
    ----------
    generators : list of numpy.random.Generator
        One per model; the same object where models share their random numbers.
    """

    def __init__(self, generators: list[np.random.Generator]):
        first, number = numbered(generators)
        drawn = [int(generators[model].integers(2**63)) for model in first]
        #: One for all models, if they share it, else one for each.
        self.seeds = drawn if len(drawn) == 1 else [drawn[n] for n in number]

    def units(self, layer: int, rate: np.ndarray, like: Tensor) -> Tensor:
        """Draw factors on units `like` (K, B, h): zero with probability `rate` (K,), of expectation one."""
        _, n_rows, n_units = like.shape
        n_words = -(-n_rows * n_units // 4)
        words = np.stack([np.random.SFC64([seed, layer]).random_raw(n_words) for seed in self.seeds])
        bits = words.view(np.int16)[:, : n_rows * n_units].reshape(-1, n_rows, n_units)
        levels = np.clip(np.round((1 - rate) * _LEVELS), 1, _LEVELS - 1)
        limit = per_model(levels - _LEVELS // 2, torch.empty(0, 0, 0, dtype=torch.int16, device=like.device))
        kept = to_device(torch.from_numpy(bits), like.device) < (limit if isinstance(limit, Tensor) else int(limit))
        factors = kept.to(torch.promote_types(like.dtype, torch.float32))
        return factors.mul_(per_model(_LEVELS / levels, factors))

    def blocks(self, rate: np.ndarray) -> np.ndarray:
        """Draw factors (K, L) on blocks: zero with probability `rate` (K, L), else what keeps the expectation."""
        uniform = np.stack([np.random.Generator(np.random.SFC64(seed)).random(rate.shape[1]) for seed in self.seeds])
        return (uniform >= rate) / (1 - rate)
