"""Torch's settings of the caller: training and prediction do the same under all of them, and change none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_settings() -> Iterator[None]:
    """Run the block with gradients, on the CPU by default, without autocast; what is set here is this thread's alone.

    The default dtype is the process's, and is left as it is: tensors of ours name their own.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # which puts gradients on, too
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for device in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
