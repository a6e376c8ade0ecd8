"""Splits of a data set by its distinct rows: validation sets, and the folds of calibrations and ensembles.

All copies of a row, whatever their labels, form a *cell*. A cell falls on one side of a split as a whole, so that what
is held out is new to the model; only a cell that stands for many rows, of which any random split would leave some on
either side, is divided by weight (`_Cells.divided`). A row of weight 2 is the same row given twice.

Cells are put in a random order by a seeded hash of their content, so that a split depends on what the rows are and not
on their order, dtype or sparsity; it is cut by cumulative weight within each class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from skdeep.data.hashing import CHUNK_VALUES, hash_rows
from skdeep.engine.shards import Shard

#: In the place of a fold: cells of which each fold holds out a part, and cells that none does.
DIVIDED, KEPT = -1, -2

#: A cell is heavy, beside the weight of the smaller side of a split, from this share of it on; and it stands for so
#: many rows that some would be on either side of a random split.
_HEAVY, _SEVERAL = 0.25, 3

#: Observations that are dealt one by one at most: of more, in the few cells that are heavy, a random split too would
#: hold out nearly equal parts.
_MOST_DEALT = 10**5


def index_dtype(n: int) -> type:
    """Choose the dtype of the indices of n rows: half the memory wherever they fit."""
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def surely_differ(X: Any) -> bool:
    """Tell, in a tenth of the time of their hashes, whether no two rows have the same values; False if in doubt.

    Along one direction, they then lie further apart than rounding could bring equal ones.
    """
    if isinstance(X, torch.Tensor):
        return False
    (direction, length), n = _direction(X.shape[1]), X.shape[0]
    step = n if X.dtype == np.float64 else max(1, CHUNK_VALUES // X.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [X[start : start + step] @ direction for start in range(0, n, step)]
        along = np.concatenate(parts) if len(parts) > 1 else parts[0]
        along.sort()
        gap, largest = (along[1:] - along[:-1]).min(initial=np.inf), max(float(X.max()), -float(X.min()))
        rounding = 2 * len(direction) * np.finfo(np.float64).eps * largest * length
        return bool(math.isfinite(rounding) and gap > rounding)


@lru_cache(maxsize=16)
def _direction(n_columns: int) -> tuple[np.ndarray, float]:
    """Choose a direction in so many columns; with its L1 norm."""
    direction = np.sin(np.arange(1, n_columns + 1))
    return direction, float(np.abs(direction).sum())


def unit_of(weight: np.ndarray) -> float:
    """Find the weight that counts as one row: one, or the smallest weight if that is less, as where they sum to one.

    A weight that is as good as none beside the others does not make these count as many.
    """
    weight = weight[weight > 0]
    return min(1.0, max(float(weight.min()), 1e-6 * float(weight.mean())))


@dataclass
class DistinctRows:
    """The distinct rows of a data set (values and target), in the order of their hashes."""

    first: np.ndarray  # index of one representative of each, (m,)
    group: np.ndarray  # for each row, the number of its distinct row, (n,)
    weight: np.ndarray  # total weight of each, (m,)
    stratum: np.ndarray  # class code of each, (m,); 0 where classes play no role
    values: np.ndarray  # hash of the values of each, (m,), uint64

    @cached_property
    def cell(self) -> np.ndarray:
        """Number of the cell of each distinct row, (m,); cells are numbered in the order of their first rows."""
        values = np.sort(self.values)
        if (values[1:] != values[:-1]).all():  # no two rows differ in their labels alone
            return np.arange(len(values), dtype=self.first.dtype)
        _, first, cell = np.unique(self.values, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first)).astype(self.first.dtype)[cell]

    @property
    def unit(self) -> float:
        """The weight that counts as one row."""
        return unit_of(self.weight)


def distinct_rows(
    X: Any,
    target: np.ndarray,
    sample_weight: np.ndarray | None,
    generator: np.random.Generator,
    strata: np.ndarray | None,
    subset: np.ndarray | None = None,
    shard: Shard | None = None,
) -> DistinctRows:
    """Find the distinct rows of `subset` (None: all rows); ``sample_weight`` None counts every row once.

    `strata` (n,) are classes that splits keep in proportion; None where they play no role.
    """
    of_values, hashes = hash_rows(X, target, generator, subset, shard)
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
    stratum = np.zeros(len(first), index) if strata is None else strata[representatives].astype(index)
    return DistinctRows(first, group, weight, stratum, of_values[first])


@dataclass
class _Cells:
    """The cells of a data set; all arrays are (k,)."""

    weight: np.ndarray
    stratum: np.ndarray  # the class of most weight
    is_heavy: np.ndarray  # beside the smaller side of the split
    n_rows: np.ndarray  # that a cell stands for, by its weight
    divided: np.ndarray  # of several rows, and heavy or with all rows of a class

    @classmethod
    def of(cls, rows: DistinctRows, share: float) -> _Cells:
        """Make the cells, where a part of `share` of all weight is held out at a time."""
        share = min(share, 1 - share)  # of the smaller side, whichever that is
        weight = np.bincount(rows.cell, rows.weight)
        order = np.lexsort((rows.stratum, -rows.weight, rows.cell))
        leading = order[np.diff(rows.cell[order], prepend=-1) > 0]
        n_rows = weight / rows.unit
        is_heavy = weight > _HEAVY * share * weight.sum()
        # all of a class of several rows: held out in part, for models to be judged by that class too
        alone = np.bincount(rows.stratum)[rows.stratum] == 1
        needed = np.zeros(len(weight), dtype=bool)
        needed[rows.cell[alone & (rows.weight >= _SEVERAL * rows.unit)]] = True
        return cls(weight, rows.stratum[leading], is_heavy, n_rows, needed | (is_heavy & (n_rows >= _SEVERAL)))

    def positions(self) -> np.ndarray:
        """Place each whole cell within its class: the share of the class's weight up to its middle, in (0, 1)."""
        position = np.zeros(len(self.weight))
        whole = np.flatnonzero(~self.divided)
        order = whole[np.argsort(self.stratum[whole], kind="stable")]
        starts = np.flatnonzero(np.diff(self.stratum[order], prepend=-1))
        for part in np.split(order, starts[1:]):
            # each class is summed on its own, so that other classes leave no rounding behind
            weight = self.weight[part]
            total = np.cumsum(weight)
            position[part] = (total - weight / 2) / total[-1:]
        return position


def _in_whole_cells(rows: DistinctRows, cells: _Cells) -> np.ndarray:
    """List the distinct rows, in their order, of the classes that are in no divided cell."""
    divided = cells.divided[rows.cell]
    on_both_sides = np.zeros(rows.stratum.max() + 1, dtype=bool)
    on_both_sides[rows.stratum[divided]] = True
    return np.flatnonzero(~on_both_sides[rows.stratum])


def _of_classes(rows: DistinctRows, some: np.ndarray) -> list[np.ndarray]:
    """List the cells of some distinct rows, for each class."""
    some = some[np.argsort(rows.stratum[some], kind="stable")]
    return np.split(rows.cell[some], np.flatnonzero(np.diff(rows.stratum[some])) + 1)


def fold_of_rows(rows: DistinctRows, n_folds: int) -> np.ndarray:
    """Deal the distinct rows (m,) into folds of about equal weight, classes in proportion.

    Folds are numbered from 0 (some may be empty on tiny data); DIVIDED are rows of which each fold holds out a part,
    KEPT is a cell that all models need, such as the only one of a class.
    """
    cells = _Cells.of(rows, 1 / n_folds)
    fold = np.minimum(cells.positions() * n_folds, n_folds - 1).astype(np.int64)
    # a class of which one fold would hold out all has a cell that none does
    for own in _of_classes(rows, _in_whole_cells(rows, cells)):
        if len(own) and (fold[own] == fold[own[0]]).all():
            fold[own[-1]] = KEPT
    fold[cells.divided] = DIVIDED
    if not cells.divided.any() and len(np.unique(fold[fold >= 0])) < 2:
        fold[cells.n_rows >= 2] = DIVIDED
    return fold[rows.cell]


def validation_rows(rows: DistinctRows, fraction: float) -> np.ndarray:
    """Pick distinct rows (m,) for validation: a share `fraction` of the total weight, classes in proportion.

    A class of at least two cells is on both sides; one of a single cell is only trained on. Rows held out are 0, others
    KEPT, or DIVIDED where a part is held out.
    """
    cells = _Cells.of(rows, fraction)
    whole = _in_whole_cells(rows, cells)
    order = _in_proportion(rows, cells, whole)
    is_held_out = np.zeros(len(cells.weight), dtype=bool)
    # one cell of each class in any case: the first of those that are not needed in training
    rank = np.full(len(is_held_out), len(is_held_out))
    rank[order] = np.arange(len(order))
    whole = whole[np.argsort(rank[rows.cell[whole]], kind="stable")]
    whole = whole[rank[rows.cell[whole]] < len(order)]
    _, first = np.unique(rows.stratum[whole], return_index=True)
    is_held_out[rows.cell[whole[first]]] = True
    wanted = fraction * cells.weight[~cells.divided].sum() * (1 - 1e-12) - cells.weight[is_held_out].sum()
    rest = order[~is_held_out[order]]
    is_held_out[rest[_up_to(wanted, cells.weight[rest], cells.is_heavy[rest], rows.unit)]] = True
    fold = np.where(cells.divided, DIVIDED, np.where(is_held_out, 0, KEPT))
    if (fold == KEPT).all():
        fold[cells.n_rows >= 2] = DIVIDED
    return fold[rows.cell]


def _in_proportion(rows: DistinctRows, cells: _Cells, whole: np.ndarray) -> np.ndarray:
    """List the whole cells that may be held out, so that any start of the list has the classes in proportion.

    A cell of each class stays in training: the last of those that most classes share.
    """
    n_labels, free = np.bincount(rows.cell), ~cells.divided
    for own in _of_classes(rows, whole):
        if free[own].all() and len(own):
            free[own[::-1][n_labels[own[::-1]].argmax()]] = False
    candidates = np.flatnonzero(free)
    return candidates[np.argsort(cells.positions()[candidates], kind="stable")]


def _up_to(wanted: float, weight: np.ndarray, is_heavy: np.ndarray, unit: float) -> np.ndarray:
    """Choose cells (k,) from the first one on, until their weight is about what is wanted.

    A heavy one that would be too much is passed over: perhaps the next one is not.
    """
    left, chosen = np.arange(len(weight)), np.zeros(len(weight), dtype=bool)
    while len(left):
        own = weight[left]
        too_many = np.cumsum(own) - own + (own - unit) / 2 >= wanted
        n = int(too_many.argmax()) if too_many.any() else len(left)
        chosen[left[:n]] = True
        wanted -= own[:n].sum()
        if wanted <= 0 or n == len(left) or not is_heavy[left[n]]:
            break
        left = left[n + 1 :]
    return np.flatnonzero(chosen)


def dealt_shares(rows: DistinctRows, fold: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Deal the observations that divided rows stand for into folds, at random, classes in proportion.

    Folds that all held out the same part of each would hold out nothing that the others do not know: how far a model
    follows the few observations of a cell would not show. (A hypergeometric draw: what a random split of the rows
    leaves on either side.)

    Given the `fold` of each distinct row, return the part of each divided one that a fold holds out, (d, n_folds), with
    rows that sum to one. A class that has a single observation there is held out in equal parts, as no fold can do
    without; so is everything where there are very many.
    """
    divided = np.flatnonzero(fold == DIVIDED)
    n_observations = rows.weight[divided] / rows.unit
    shares = np.full((len(divided), n_folds), 1 / n_folds)
    if not len(divided) or n_observations.sum() > _MOST_DEALT:
        return shares
    generator = np.random.default_rng([seed, n_folds])
    left = np.maximum(np.round(n_observations), 1).astype(np.int64)
    before = 0  # where a class does not fill all folds alike, the next one begins with those that have less
    for stratum in np.unique(rows.stratum[divided]):
        own = np.flatnonzero(rows.stratum[divided] == stratum)
        of_class, total = left[own], int(left[own].sum())
        if total < 2:
            continue
        rest = of_class.copy()
        for i in range(n_folds):
            size = total // n_folds + (i < total % n_folds)
            taken = generator.multivariate_hypergeometric(rest, size, method="marginals")
            shares[own, (before + i) % n_folds] = taken / of_class
            rest -= taken
        before += total
    return shares


@dataclass
class Folds:
    """Which of some rows each fold holds out, and with which weight."""

    rows: np.ndarray  # indices, (m,)
    fold: np.ndarray  # of each, (m,); DIVIDED or KEPT
    share: np.ndarray  # part of each divided row's weight that each fold holds out, (d, k)
    weight: np.ndarray | None  # of all rows of the data set, whole, (n,) or (K, n); None for ones
    unit: float  # the weight that counts as one row

    @cached_property
    def divides(self) -> bool:
        """Whether any row is divided."""
        return bool((self.fold == DIVIDED).any())

    @cached_property
    def numbers(self) -> np.ndarray:
        """The folds that hold out something."""
        if not self.divides:
            return np.unique(self.fold[self.fold >= 0])
        return np.array([f for f in range(self.share.shape[1]) if self._part(f).any()])

    def _part(self, number: int) -> np.ndarray:
        """Compute the part of each row that a fold holds out, (m,)."""
        part = (self.fold == number).astype(np.float64)
        part[self.fold == DIVIDED] = self.share[:, number]
        return part

    def enough(self, n_rows: float) -> np.ndarray:
        """Count the first folds, two or more, that hold out as much as so many rows of equal weight, or all: (K,).

        Of each model, whichever others there are. Rows of unequal weight count as ``sum(w)² / sum(w²)`` (Kish 1965).
        """
        weight = np.ones((1, len(self.rows))) if self.weight is None else np.atleast_2d(self.weight)[:, self.rows]
        weight = weight / weight.max(1, keepdims=True)  # squares of others may overflow, or vanish
        of_folds = [(part @ weight.T, part**2 @ np.square(weight).T) for part in map(self._part, self.numbers)]
        total, squares = np.cumsum(of_folds, axis=0).swapaxes(0, 1)
        are_enough = total**2 >= n_rows * squares
        are_enough[0], are_enough[-1] = False, True
        return are_enough.argmax(0) + 1

    def training(self, number: int) -> np.ndarray:
        """List the rows that a model is trained on."""
        return self.rows[self._part(number) < 1]

    def held_out(self, number: int) -> np.ndarray:
        """List the rows that a model is not trained on, or not with all their weight."""
        return self.rows[self._part(number) > 0]

    def held_out_factor(self, number: int) -> np.ndarray | None:
        """Compute the factors on the weights of the rows held out; None for ones."""
        part = self._part(number)
        return part[part > 0] if self.divides else None

    def all_held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """List the rows that the folds hold out, one fold after the other, and the factors on their weights."""
        parts = [self._part(f) for f in self.numbers]
        rows = np.concatenate([self.rows[part > 0] for part in parts])
        return rows, np.concatenate([part[part > 0] for part in parts])

    @property
    def kept(self) -> np.ndarray:
        """The rows that no fold holds out: the only ones of their class."""
        return self.rows[self.fold == KEPT]

    def training_weight(self, number: int) -> np.ndarray | None:
        """Compute the weights of all rows of the data set in training; None for ones, where no row is divided."""
        if self.weight is None or not self.divides:
            return self.weight
        weight, divided = self.weight.copy(), self.fold == DIVIDED
        weight[..., self.rows[divided]] *= 1 - self._part(number)[divided]
        return weight

    @property
    def parts_of_divided(self) -> np.ndarray:
        """The part of each divided row that each fold of `numbers` holds out, (k, d)."""
        return np.stack([self._part(f)[self.fold == DIVIDED] for f in self.numbers])
