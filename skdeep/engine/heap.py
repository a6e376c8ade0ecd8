"""What happens to memory that is freed: it is to be there for the next step."""

from __future__ import annotations

import numpy as np

#: Numbers of a block, 8 MiB, whose coming and going lets glibc's malloc keep twice as much.
_BLOCK = 2**20


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, up to 16 MiB, for the arrays of the next step.

    It gives pages back, and has them filled with zeros again, until it has seen a block come and go that is as large:
    up to a third of the time of a stack of small models, whose steps free a dozen arrays. The block is not written to,
    so that it takes no memory; other allocators, and programs that have freed such a block before, see no difference.
    """
    np.empty(_BLOCK)
