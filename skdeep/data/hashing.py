"""Hashes of rows: equal rows have equal ones, whatever their order, dtype, sparsity or device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from skdeep.engine.hashing import FACTORS, mix_
from skdeep.engine.per_model import index_of, to_device
from skdeep.engine.shards import Shard

#: Values hashed at a time: they stay in the cache, and the memory is bounded; and on an accelerator.
CHUNK_VALUES, _DEVICE_VALUES = 1 << 18, 1 << 24


def _mix(bits: np.ndarray) -> np.ndarray:
    """Mix 64-bit words in place, as `mix_` does: an eighth of its time for few, and half for many."""
    for shift, factor in zip((30, 27, 31), (*FACTORS, 1), strict=True):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor % 2**64)
    return bits


def _bits(values: np.ndarray) -> np.ndarray:
    """Take the float64 bit patterns of values, the same for 0.0 and -0.0, and for every NaN."""
    values = np.asarray(values, dtype=np.float64) + 0.0
    np.copyto(values, np.nan, where=np.isnan(values))
    return values.view(np.uint64)


def hash_rows(
    X: Any, target: np.ndarray, generator: np.random.Generator, subset: np.ndarray | None, shard: Shard | None
) -> tuple[np.ndarray, np.ndarray]:
    """Hash each row's content to 64 bits, its values alone and with its target: two arrays (m,) of uint64.

    A sum over the columns of mixed bits times odd random factors, so that zeros do not count and a sparse row hashes
    like the same row written out. X is dense, CSR or a Tensor, targets are (n,) or (n, C); `subset` (m,) are the rows
    to hash (None: all), `shard` says which of them X has, where processes share them.
    """
    target = target.reshape(len(target), -1)
    factors = generator.integers(0, 1 << 64, X.shape[1] + target.shape[1], dtype=np.uint64) | np.uint64(1)
    of_columns, of_target = factors[: X.shape[1]], factors[X.shape[1] :]
    if shard is None:
        of_values = _hash_values(X, of_columns, subset)
    else:
        index = np.arange(shard.n_rows) if subset is None else subset
        of_values = shard.assembled(index, _hash_values(X, of_columns, index[shard.own(index)] - shard.start))
    of_rows, step = np.empty_like(of_values), max(1, CHUNK_VALUES // target.shape[1])
    for start in range(0, len(of_values), step):
        chunk = slice(start, start + step)
        part = chunk if subset is None else subset[chunk]
        of_rows[chunk] = _mix(of_values[chunk] + _mix(_bits(target[part])) @ of_target)
    return of_values, of_rows


def _hash_values(X: Any, factors: np.ndarray, subset: np.ndarray | None) -> np.ndarray:
    if isinstance(X, torch.Tensor) and X.device.type == "cuda":  # MPS has no float64
        return _hash_on_device(X, factors, subset)
    of_values = np.empty(X.shape[0] if subset is None else len(subset), np.uint64)
    width = X.nnz // max(1, X.shape[0]) if sparse.issparse(X) else X.shape[1]
    step = max(1, CHUNK_VALUES // max(1, width))
    for start in range(0, len(of_values), step):
        chunk = slice(start, start + step)
        of_values[chunk] = _hash_of_values(X[chunk if subset is None else subset[chunk]], factors)
    return of_values


def _hash_on_device(X: torch.Tensor, factors: np.ndarray, subset: np.ndarray | None) -> np.ndarray:
    """Compute the hashes where the values are: the host waits for them once."""
    own = to_device(torch.from_numpy(factors.view(np.int64)), X.device)
    rows = None if subset is None else index_of(subset, X)
    n, step, found = len(X) if rows is None else len(rows), max(1, _DEVICE_VALUES // X.shape[1]), []
    for start in range(0, n, step):
        part = slice(start, start + step)
        values = (X[part] if rows is None else X.index_select(0, rows[part])).double() + 0.0
        values = torch.where(values.isnan(), np.nan, values)
        found.append((mix_(values.view(torch.int64).clone()) * own).sum(1))
    return torch.cat(found).cpu().numpy().view(np.uint64)


def _hash_of_values(X: Any, factors: np.ndarray) -> np.ndarray:
    if not sparse.issparse(X):
        values = X.cpu().double().numpy() if isinstance(X, torch.Tensor) else X
        return _mix(_bits(values)) @ factors
    terms = _mix(_bits(X.data)) * factors[X.indices]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return sums[X.indptr[1:]] - sums[X.indptr[:-1]]
