r"""Learning-rate schedules: the factor on the initial learning rate, as a function of progress.

``schedule(progress, samples, power_t)`` takes the share of the training that is done (0 to 1), the number of samples
each model has seen when the epoch began, (K,), and the exponent of ``"invscaling"``; it returns a number or one per
model. ``"adaptive"`` is constant here: the training loop divides the learning rate of a model that stopped improving.

To add one, write a function and name it in `SCHEDULES`.
"""

from __future__ import annotations

import math

import numpy as np


def constant(progress: float, samples: np.ndarray, power_t: float) -> float:
    """The learning rate as given."""
    return 1.0


def invscaling(progress: float, samples: np.ndarray, power_t: float) -> np.ndarray:
    r""":math:`(t + 1)^{-p}` after t samples (MLPClassifier's rule, updated once an epoch)."""
    return (samples + 1.0) ** -power_t


def cosine(progress: float, samples: np.ndarray, power_t: float) -> float:
    r""":math:`\tfrac12 (1 + \cos \pi u)` at progress u (Loshchilov & Hutter, *SGDR*, ICLR 2017, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


SCHEDULES = {"constant": constant, "invscaling": invscaling, "adaptive": constant, "cosine": cosine}


def warm_up(epochs_done: float, warmup_epochs: float) -> float:
    """Linear ramp over the first `warmup_epochs` epochs."""
    return 1.0 if epochs_done >= warmup_epochs else epochs_done / warmup_epochs
