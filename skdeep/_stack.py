"""The K axis: values that differ between the models of a stack.

Every parameter of a stack of K models is a tensor whose first axis has length K. A hyper-parameter is a NumPy vector
of length K on the host; `per_model` turns it into what the arithmetic of one tensor needs: a plain number when all
models agree (K = 1 always does), which costs no kernel, else a tensor that broadcasts along the first axis.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def vector(value, n_models: int) -> np.ndarray:
    """One float64 per model from a number or a sequence of `n_models` numbers."""
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (n_models,)).copy()


def per_model(values: np.ndarray, like: Tensor) -> float | Tensor:
    """Return `values` (K,) as a factor for `like` (K, ...): a number if all are equal, else a (K, 1, ...) tensor."""
    if len(values) == 1 or (values == values[0]).all():
        return float(values[0])
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))


def add_scaled_(target: Tensor, other: Tensor, factor: float | Tensor) -> None:
    """In place, ``target += factor * other`` in one pass."""
    if isinstance(factor, Tensor):
        target.addcmul_(other, factor)
    else:
        target.add_(other, alpha=factor)
