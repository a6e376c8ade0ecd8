r"""Which units and blocks take part in a training step: dropout and stochastic depth.

All that is drawn for a step follows from one integer of each model; models that share a generator share it. The bits of
a unit are SplitMix64's at its place (`hashing.py`): a hash of seed, layer, row and unit, which takes nothing from the
host. So what a model meets depends neither on the other models of its stack, nor on rows that fill up a batch, nor on
the device.

Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, JMLR 15, 2014. Huang et al.,
*Deep networks with stochastic depth*, ECCV 2016.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.hashing import STEP, mix_
from skdeep.engine.per_model import per_model

#: Random bits per unit: a probability is rounded to a multiple of 2 ** -16.
_LEVELS = 2**16


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # autograd may meet them elsewhere
def _places(layer: int, n_words: int, device: torch.device) -> Tensor:
    """Count words of a layer, as the generator does."""
    return torch.arange(n_words, device=device).add_(1 + (layer << 40)).mul_(STEP)


def _words(seeds: Tensor, layer: int, n_words: int) -> Tensor:
    """Compute 64 random bits for each seed (S,) and place, (S, n_words)."""
    return mix_(_places(layer, n_words, seeds.device) + seeds.unsqueeze(1))


class Noise:
    """The random numbers of one step.

    Seeds are (S,), int64, on the device of the numbers: one for all models, if they share it, else one for each. Places
    (G, B) say where in the batch the rows are, of which S / G models in turn have the same; None for one after the
    other.
    """

    def __init__(self, seeds: Tensor, places: Tensor | None = None):
        self.seeds, self.places = seeds, places

    def units(self, layer: int, rate: np.ndarray, like: Tensor) -> Tensor:
        """Draw factors on units `like` (K, B, h): zero with probability `rate` (K,), of expectation one."""
        n_units, places = like.shape[2], self.places
        n_rows = like.shape[1] if places is None else int(places.max()) + 1
        bits = _words(self.seeds, layer, -(-n_rows * n_units // 4)).view(torch.int16)
        bits = bits[:, : n_rows * n_units].view(-1, n_rows, n_units)
        if places is not None:
            of_models = places.to(bits.device).repeat_interleave(len(bits) // len(places), dim=0)
            bits = bits.gather(1, of_models.unsqueeze(2).expand(-1, -1, n_units))
        return _factors(bits, rate, like)

    def blocks(self, rate: np.ndarray, like: Tensor) -> Tensor:
        """Draw factors (K, L) on blocks, in the dtype of `like`: zero with probability `rate` (K, L); see `units`."""
        bits = _words(self.seeds, 1 << 20, rate.shape[1]).view(torch.int16)[:, ::4]
        return torch.cat([_factors(bits[:, i : i + 1], rate[:, i], like) for i in range(rate.shape[1])], dim=1)


def _factors(bits: Tensor, rate: np.ndarray, like: Tensor) -> Tensor:
    """Compute factors of expectation one from random bits (S, ...), zero with probability `rate` (K,)."""
    dropped = np.minimum(np.round(rate * _LEVELS), _LEVELS - 1)
    limit = per_model(dropped - _LEVELS // 2, bits)
    is_kept = bits >= (limit if isinstance(limit, Tensor) else int(limit))
    kept = is_kept.to(torch.promote_types(like.dtype, torch.float32))
    return kept.mul_(per_model(_LEVELS / (_LEVELS - dropped), kept))
