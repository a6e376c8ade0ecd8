"""Torch's and NumPy's settings of the caller: training and prediction do the same under all, and change none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_settings() -> Iterator[None]:
    """Run the block with gradients, on the CPU by default, without autocast, and with NumPy's own errors of numbers.

    What is set here is this thread's alone.

    The default dtype is the process's, and is left as it is: tensors of ours name their own.
    """
    others: list[AbstractContextManager] = [
        torch.autocast(device, enabled=False) for device in _AUTOCAST_DEVICES if torch.is_autocast_enabled(device)
    ]
    if torch.empty(0).device.type != "cpu":  # the default one, sooner said than torch.get_default_device says it
        others.append(torch.device("cpu"))
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        others.append(torch.inference_mode(False))  # which puts gradients on, too
    # as NumPy does if it is told nothing: a caller may have it raise where a number is lost that is next to nothing
    with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        if not others:
            yield
            return
        with ExitStack() as stack:
            for setting in others:
                stack.enter_context(setting)
            yield
