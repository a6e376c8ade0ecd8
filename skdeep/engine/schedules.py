r"""Learning-rate schedules: the factor on the initial learning rate, as a function of progress.

``schedule(progress, samples, power_t)`` takes, for each model, the share of its training that is done (0 to 1),
(..., K), the number of samples it had seen when the epoch began, (K,), and the exponent of ``"invscaling"``; it
returns factors that broadcast with these. ``"adaptive"`` is constant here: the training loop divides the learning rate
of a model that stopped improving.

To add one, write a function and name it in `SCHEDULES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def constant(progress: np.ndarray, samples: np.ndarray, power_t: float) -> float:
    """Leave the learning rate as it is given."""
    return 1.0


def invscaling(progress: np.ndarray, samples: np.ndarray, power_t: float) -> np.ndarray:
    r"""Compute :math:`(t + 1)^{-p}` after t samples (MLPClassifier's rule, updated once an epoch)."""
    return (samples + 1.0) ** -power_t


def cosine(progress: np.ndarray, samples: np.ndarray, power_t: float) -> np.ndarray:
    r"""Compute :math:`\tfrac12 (1 + \cos \pi u)` at progress u.

    Loshchilov & Hutter, *SGDR*, ICLR 2017, without restarts.
    """
    return 0.5 * (1 + np.cos(np.pi * np.minimum(progress, 1.0)))


SCHEDULES: dict[str, Callable[[np.ndarray, np.ndarray, float], float | np.ndarray]] = {
    "constant": constant,
    "invscaling": invscaling,
    "adaptive": constant,
    "cosine": cosine,
}


def warm_up(epochs_done: np.ndarray, warmup_epochs: float) -> float | np.ndarray:
    """Compute a linear ramp over the first `warmup_epochs` epochs."""
    return np.minimum(epochs_done / warmup_epochs, 1.0) if warmup_epochs else 1.0
