"""Torch's settings of the caller: training and prediction do the same under all of them, and change none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_settings() -> Iterator[None]:
    """Run the block with gradients, on the CPU by default, without autocast; what is set here is this thread's alone.

    The default dtype is the process's, and is left as it is: tensors of ours name their own.
    """
    others: list[AbstractContextManager] = [
        torch.autocast(device, enabled=False) for device in _AUTOCAST_DEVICES if torch.is_autocast_enabled(device)
    ]
    if torch.get_default_device().type != "cpu":
        others.append(torch.device("cpu"))
    with torch.inference_mode(False):  # which puts gradients on, too
        if not others:
            yield
            return
        with ExitStack() as stack:
            for setting in others:
                stack.enter_context(setting)
            yield
