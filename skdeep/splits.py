"""Splits of *distinct* rows: validation sets and calibration folds that respect sample weights exactly.

Two equal rows of one class never fall on different sides of a split, and a row of weight 2 is treated as the same row
given twice. Rows are put in a random order by a seeded hash of their content (values and target), so that a split
depends on what the rows are and not on their order, dtype or sparsity; it is cut by cumulative weight within each
class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

_CHUNK_VALUES = 1 << 18  # values hashed at a time: they stay in the cache, and the memory is bounded


def index_dtype(n: int) -> type:
    """Of the indices of n rows: half the memory wherever they fit."""
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def _mix(bits: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words in which every input bit reaches every output bit; 0 stays 0 (splitmix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _bits(values: np.ndarray) -> np.ndarray:
    """The values' float64 bit patterns, the same for 0.0 and -0.0, and for every NaN."""
    values = np.asarray(values, dtype=np.float64) + 0.0
    np.copyto(values, np.nan, where=np.isnan(values))
    return values.view(np.uint64)


def hash_rows(X, target: np.ndarray, generator: np.random.Generator, subset: np.ndarray | None = None) -> np.ndarray:
    """A seeded 64-bit hash of each row's content, values and target together.

    A sum over the columns of mixed bits times odd random factors, so that zeros do not count and a sparse row hashes
    like the same row written out.

    Parameters
    ----------
    X : ndarray, Tensor or scipy.sparse CSR of shape (n, d)
    target : ndarray of shape (n,) or (n, C)
    generator : numpy.random.Generator
    subset : ndarray of shape (m,), default=None
        Indices of the rows to hash; None for all.

    Returns
    -------
    ndarray of shape (m,), uint64
    """
    target = target.reshape(len(target), -1)
    factors = generator.integers(0, 1 << 64, X.shape[1] + target.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.empty(len(target) if subset is None else len(subset), np.uint64)
    width = X.nnz // max(1, X.shape[0]) if sparse.issparse(X) else X.shape[1]
    step = max(1, _CHUNK_VALUES // max(1, width))
    for start in range(0, len(hashes), step):
        part = slice(start, start + step) if subset is None else subset[start : start + step]
        hashes[start : start + step] = _hash_of_values(X[part], factors[: X.shape[1]])
        hashes[start : start + step] += _mix(_bits(target[part])) @ factors[X.shape[1] :]
    return _mix(hashes)


def _hash_of_values(X, factors: np.ndarray) -> np.ndarray:
    if not sparse.issparse(X):
        values = X.cpu().double().numpy() if isinstance(X, torch.Tensor) else X
        return _mix(_bits(values)) @ factors
    terms = _mix(_bits(X.data)) * factors[X.indices]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return sums[X.indptr[1:]] - sums[X.indptr[:-1]]


@dataclass
class DistinctRows:
    """The distinct rows of a data set, in the order of their hashes.

    Attributes
    ----------
    first : ndarray of shape (m,)
        Index of one representative of each distinct row.
    group : ndarray of shape (n,)
        For each row, the number of its distinct row.
    weight : ndarray of shape (m,)
        Total weight of each distinct row.
    stratum : ndarray of shape (m,)
        Class code of each distinct row (0 where classes play no role).
    """

    first: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    stratum: np.ndarray

    def position(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each distinct row lies within its class: the share of the class's weight up to its middle.

        Returns
        -------
        position : ndarray of shape (m,), in (0, 1)
        is_last : ndarray of shape (m,), bool
            Whether the row is the last one of its class.
        """
        order = np.argsort(self.stratum, kind="stable")
        weight, stratum = self.weight[order], self.stratum[order]
        starts = np.flatnonzero(np.r_[True, stratum[1:] != stratum[:-1]])
        lengths = np.diff(np.r_[starts, len(order)])
        position, is_last = np.empty(len(order)), np.zeros(len(order), dtype=bool)
        for start, length in zip(starts, lengths, strict=True):
            # each class is summed on its own, so that other classes leave no rounding behind
            total = np.cumsum(weight[start : start + length])
            position[order[start : start + length]] = (total - weight[start : start + length] / 2) / total[-1]
        is_last[order[starts + lengths - 1]] = True
        return position, is_last


def distinct_rows(X, target, sample_weight, generator, stratify=True, subset=None) -> DistinctRows:
    """Find the distinct rows among those of `subset` (None: all); ``sample_weight`` None counts every row once."""
    hashes = hash_rows(X, target, generator, subset)
    index = index_dtype(len(hashes))
    order: np.ndarray = np.argsort(hashes, kind="stable").astype(index)
    hashes = hashes[order]
    is_new = np.r_[True, hashes[1:] != hashes[:-1]]
    del hashes  # of all rows: what is not needed any more makes room
    first = order[is_new]
    group: np.ndarray = np.empty(len(order), index)
    group[order] = np.cumsum(is_new, dtype=index) - 1
    del order
    if sample_weight is not None and subset is not None:
        sample_weight = sample_weight[subset]
    weight = np.bincount(group, weights=sample_weight).astype(np.float64)
    representatives = first if subset is None else subset[first]
    stratum = target[representatives].astype(index) if stratify else np.zeros(len(first), index)
    return DistinctRows(first, group, weight, stratum)


def validation_mask(rows: DistinctRows, fraction: float) -> np.ndarray:
    """Pick rows for validation: a share `fraction` of the total weight, classes in proportion.

    A class of at least two distinct rows is on both sides; one of a single row is only trained on.

    Returns
    -------
    ndarray of shape (n,), bool
        True for validation rows.
    """
    position, is_last = rows.position()
    candidates = np.flatnonzero(~is_last)
    # the classes' rows side by side, by their position: any start of this list is stratified
    candidates = candidates[np.argsort(position[candidates], kind="stable")]
    before = np.cumsum(rows.weight[candidates]) - rows.weight[candidates]
    picked = np.zeros(len(rows.first), dtype=bool)
    picked[candidates[before < fraction * rows.weight.sum() * (1 - 1e-12)]] = True
    _, first_of_class = np.unique(rows.stratum[candidates], return_index=True)
    picked[candidates[first_of_class]] = True
    return picked[rows.group]


def fold_of_rows(rows: DistinctRows, n_folds: int) -> np.ndarray:
    """Deal the rows into folds of about equal weight, classes in proportion; folds may be empty on tiny data.

    Returns
    -------
    ndarray of shape (n,), int
        Fold of each row, 0 to ``n_folds - 1``.
    """
    position, _ = rows.position()
    fold = np.minimum(position * n_folds, n_folds - 1).astype(np.min_scalar_type(n_folds))
    return fold[rows.group]
