"""The hash of SplitMix64 on tensors: integer arithmetic, the same on every device.

Steele, Lea & Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
"""

from __future__ import annotations

from torch import Tensor

#: The step of the generator's counter, and the factors of its hash, as signed words.
STEP, FACTORS = -0x61C8864680B583EB, (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)


def mix_(words: Tensor) -> Tensor:
    """Map 64-bit words one to one, in place, so that every bit of a word reaches every bit of its image; 0 stays 0."""
    _fold_(words, 30).mul_(FACTORS[0])
    _fold_(words, 27).mul_(FACTORS[1])
    return _fold_(words, 31)


def _fold_(words: Tensor, shift: int) -> Tensor:
    """Add the upper bits of words to their lower ones; the sign is a bit as others are."""
    return words.bitwise_xor_((words >> shift).bitwise_and_((1 << (64 - shift)) - 1))
