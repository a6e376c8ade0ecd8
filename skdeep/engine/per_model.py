"""The K axis: values that differ between the models of a stack.

Every parameter of a stack of K models is a tensor whose first axis has length K. A hyper-parameter is a NumPy vector
of length K on the host; `per_model` turns it into what the arithmetic of one tensor needs: a plain number when all
models agree (K = 1 always does), which costs no kernel, else a tensor that broadcasts along the first axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def vector(value: ArrayLike, n_models: int) -> np.ndarray:
    """Make one float64 per model from a number or a sequence of `n_models` numbers."""
    found = np.empty(n_models)  # which takes half the time of a broadcast
    found[:] = value
    return found


def uniform(values: np.ndarray) -> bool:
    """Tell whether all models have the same value."""
    return len(values) == 1 or len(set(values.tolist())) == 1  # a fifth of the time of NumPy's comparison


def per_model(values: np.ndarray | Tensor, like: Tensor) -> float | Tensor:
    """Return `values` (K,) as a factor for `like` (K, ...): a number if all are equal, else a (K, 1, ...) tensor.

    Values that lie on a device already are a tensor in any case: to look at them, the host would have to wait.
    """
    if isinstance(values, Tensor):
        return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
    if uniform(values):
        return float(values[0])
    return _column(np.asarray(values, dtype=np.float64).tobytes(), like.ndim, like.dtype, like.device)


@lru_cache(maxsize=256)  # the same few vectors at every step; who gets one must not write to it
@torch.inference_mode(False)  # autograd may meet them elsewhere
def _column(values: bytes, ndim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(np.frombuffer(values), dtype=dtype, device=device).view(-1, *[1] * (ndim - 1))


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def numbered(*lists: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Number the distinct objects of a list, or of several the distinct rows.

    Objects are the same if they are one object, as a generator that models share is. Returned are where each is first,
    and for every place the number of the one that is there: of ``[one, other, one]``, ``[0, 1]`` and ``[0, 1, 0]``.
    """
    if len(lists[0]) == 1:
        return [0], [0]
    known: dict[tuple[int, ...], int] = {}
    first: list[int] = []
    number: list[int] = []
    for place, row in enumerate(zip(*lists, strict=True)):
        key = tuple(map(id, row))  # the lists keep their objects, so that none can take the place of another
        if key not in known:
            known[key] = len(first)
            first.append(place)
        number.append(known[key])
    return first, number


def run_length(numbers: Sequence[int]) -> int:
    """Count how many in turn have the same number, if these are 0, 1, 2, ... and all have as many; else return one."""
    length = len(numbers) // (max(numbers) + 1)
    return length if list(numbers) == [place // length for place in range(len(numbers))] else 1


def groups(*lists: Sequence[Any]) -> list[list[int]]:
    """List the places of each of the distinct objects, as `numbered` tells them apart."""
    first, number = numbered(*lists)
    places: list[list[int]] = [[] for _ in first]
    for place, n in enumerate(number):
        places[n].append(place)
    return places


def to_device(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy values of the host (an index, a mask, a batch) to a device, for which the host does not wait.

    They are cast first, for not every device has float64. A GPU reads them from pinned memory while the host goes on:
    a block of their own, which torch's allocator does not hand out again before they have been read.
    """
    if dtype is not None and values.dtype is not dtype:
        values = values.to(dtype)
    kind = values.device.type
    if kind == device.type and (kind == "cpu" or values.device == device):
        return values
    if kind == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def to_numpy64(values: Tensor) -> np.ndarray:
    """Copy values of a device to the host, and cast them there to float64, which not every device has."""
    values = values.detach() if values.requires_grad else values
    if not values.is_cpu:  # calls that do nothing take time as well
        values = values.cpu()
    return (values if values.dtype is torch.float64 else values.double()).numpy()


def fetched(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Copy tensors of a device to the host, all at once: the host waits once for each dtype."""
    if not tensors or tensors[0].device.type == "cpu":
        return [tensor.detach().numpy().copy() for tensor in tensors]
    found: list[np.ndarray] = [np.empty(0)] * len(tensors)
    for dtype in {tensor.dtype for tensor in tensors}:
        places = [place for place, tensor in enumerate(tensors) if tensor.dtype is dtype]
        parts = [tensors[place].detach() for place in places]
        whole = torch.cat([part.reshape(-1) for part in parts]).cpu()
        for place, part, flat in zip(places, parts, whole.split([part.numel() for part in parts]), strict=True):
            found[place] = flat.view(part.shape).numpy().copy()
    return found


def index_of(models: np.ndarray, like: Tensor) -> Tensor:
    """Put the indices of some models where `like` is."""
    return to_device(torch.as_tensor(models, device="cpu"), like.device)


def number(value: float, like: Tensor) -> Tensor:
    """Make a tensor without axes of a number, once: torch makes one of each Python number, at every step."""
    return _number(value, like.dtype, like.device)


def select(tensor: Tensor, models: np.ndarray) -> Tensor:
    """Copy some of the models, with the same order of axes in memory."""
    return torch.empty_like(tensor[: len(models)]).copy_(tensor[index_of(models, tensor)])


def csr_tensor(start: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Make a sparse batch."""
    with warnings.catch_warnings():  # once per process, torch says that its CSR support is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(start.to(columns.dtype), columns, values, size=shape, check_invariants=False)


def add_scaled_(target: Tensor, other: Tensor, factor: float | Tensor) -> None:
    """Add, in place, ``target += factor * other`` in one pass."""
    if isinstance(factor, Tensor):
        target.addcmul_(other, factor)
    else:
        target.add_(other, alpha=factor)
