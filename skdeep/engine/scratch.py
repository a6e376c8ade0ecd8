"""Memory that is kept from one step to the next, or is there again when it has been freed.

A fresh block at each step may be paged in each time, or leave holes behind, and can cost more than the computation that
fills it (measured: ``docs/decisions/step.rst``).
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import torch
from torch import Tensor

#: Numbers of a block, 8 MiB, whose coming and going lets glibc's malloc keep twice as much.
_BLOCK = 2**20


class Scratch:
    """Blocks of memory by name; to ask for a name again is to overwrite what is there."""

    def __init__(self) -> None:
        self._blocks: dict[Hashable, Tensor] = {}
        self._given: dict[Hashable, Tensor] = {}

    def empty(self, name: Hashable, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Take contiguous memory of a shape on the device of `like`, and of its dtype unless another one is named."""
        given, dtype = self._given.get(name), dtype or like.dtype
        if given is not None and given.shape == shape and given.dtype is dtype and given.device == like.device:
            return given
        size, block = math.prod(shape), self._blocks.get(name)
        if block is None or len(block) < size or block.dtype is not dtype or block.device != like.device:
            with torch.inference_mode(False):  # others may write to it as well
                self._blocks[name] = block = like.new_empty(size, dtype=dtype)
        self._given[name] = given = block[:size].view(shape)
        return given

    def like(self, name: Hashable, tensor: Tensor) -> Tensor:
        """Take memory for as many values as in `tensor`, in the same order."""
        given = self._given.get(name)
        if given is None or given.shape != tensor.shape or given.dtype is not tensor.dtype:
            with torch.inference_mode(False):
                self._given[name] = given = torch.empty_like(tensor, requires_grad=False)
        return given


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, up to 16 MiB, for the arrays of the next step.

    It gives pages back, and has them filled with zeros again, until it has seen a block come and go that is as large:
    up to a third of the time of a stack of small models, whose steps free a dozen arrays. The block is not written to,
    so that it takes no memory; other allocators, and programs that have freed such a block before, see no difference.
    """
    np.empty(_BLOCK)
