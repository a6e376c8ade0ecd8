"""Splits of *distinct* rows: validation sets and calibration folds that respect sample weights exactly.

Two equal rows of one class never fall on different sides of a split, and a row of weight 2 is treated as the same row
given twice. Rows are put in a random order by a seeded hash of their content (values and target), so that a split
depends on what the rows are and not on their order, dtype or sparsity; it is cut by cumulative weight within each
class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

_CHUNK_VALUES = 1 << 22  # values hashed at a time: bounds the memory


def _mix(bits: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words in which every input bit reaches every output bit; 0 stays 0 (splitmix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _bits(values: np.ndarray) -> np.ndarray:
    """The values' float64 bit patterns, the same for 0.0 and -0.0."""
    return (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)


def hash_rows(X, target: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A seeded 64-bit hash of each row's content, values and target together.

    A sum over the columns of mixed bits times odd random factors, so that zeros do not count and a sparse row hashes
    like the same row written out.

    Parameters
    ----------
    X : ndarray or scipy.sparse CSR of shape (n, d)
    target : ndarray of shape (n,) or (n, C)
    generator : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n,), uint64
    """
    target = target.reshape(len(target), -1)
    factors = generator.integers(0, 1 << 64, X.shape[1] + target.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = _mix(_bits(target)) @ factors[X.shape[1] :]
    if sparse.issparse(X):
        terms = _mix(_bits(X.data)) * factors[X.indices]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
        hashes += sums[X.indptr[1:]] - sums[X.indptr[:-1]]
        return _mix(hashes)
    step = max(1, _CHUNK_VALUES // max(1, X.shape[1]))
    for start in range(0, len(X), step):
        hashes[start : start + step] += _mix(_bits(X[start : start + step])) @ factors[: X.shape[1]]
    return _mix(hashes)


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


def distinct_rows(X, target, sample_weight, generator, stratify=True) -> DistinctRows:
    """Find the distinct rows; ``sample_weight`` None counts every row once."""
    hashes = hash_rows(X, target, generator)
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    weight = np.bincount(group, weights=sample_weight, minlength=len(first)).astype(np.float64)
    stratum = target[first].astype(np.int64) if stratify else np.zeros(len(first), np.int64)
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
    fold = np.minimum((position * n_folds).astype(np.int64), n_folds - 1)
    return fold[rows.group]
