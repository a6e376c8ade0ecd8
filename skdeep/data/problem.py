"""A validated training problem, its split into training and validation rows, and scores of its rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.data import splits
from skdeep.data.columns import Columns
from skdeep.data.inputs import Matrix, has_missing, rows_of, suspicious_parts
from skdeep.data.splits import DIVIDED, KEPT, DistinctRows, Folds, index_dtype
from skdeep.engine.frame import Frame
from skdeep.engine.networks import Network
from skdeep.engine.per_model import to_device
from skdeep.engine.rows import MAX_VALUES, DenseRows, SparseRows, as_tensor
from skdeep.engine.shards import AnyRows, Shard, SharedRows
from skdeep.engine.stored import StoredArray

_NOWHERE = torch.device("meta")
_TOO_FEW = "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."

#: Rows per chunk where the data is passed over outside mini-batch training, and how many times as many an accelerator
#: takes, which the host has to launch each for.
CHUNK_ROWS, _MORE_THERE = 8192, 8


def chunk_rows(network: Network, rows: AnyRows) -> int:
    """Choose how many rows to compute scores of at once, so that neither they nor the hidden units take much memory."""
    row_bytes = max(network.row_size, rows.row_values) * rows.dtype.itemsize
    more = 1 if rows.device.type == "cpu" else _MORE_THERE
    return min(more * CHUNK_ROWS, max(1, more * MAX_VALUES * torch.float32.itemsize // row_bytes))


@dataclass
class Problem:
    """Rows, what to learn of them, and where to compute."""

    source: Matrix  # the rows are all of it, or the ones in `index`
    target: np.ndarray  # what the loss takes, (n,) or (n, C)
    codes: np.ndarray  # class codes (n,), or label indicators (n, C); False where targets are values
    sample_weight: np.ndarray | None  # the caller's (n,); None for ones
    #: Each row's factor by its class, (n,) for all models of a stack or (K, n) for each; None for ones.
    class_weight: np.ndarray | None
    device: torch.device = _NOWHERE  # where to compute, once that is chosen, and in which precision
    dtype: torch.dtype = torch.float64
    index: np.ndarray | None = None  # which rows of `source` these are, (n,); None for all
    #: Which rows `source` has, where processes share them: labels and weights are of all rows, numbered across them.
    shard: Shard | None = None
    #: Columns that are indicators of categories: as they are, whatever else is scaled.
    indicators: slice = field(default_factory=lambda: slice(0, 0))

    def __post_init__(self) -> None:
        self._rows: AnyRows | None = None
        #: Whether some rows are here with a part of their weight only.
        self.divided = False
        self._seen = False
        #: Share of the heaviest set of equal rows, beyond one row: how little an accuracy tells. Zero if unknown.
        self.grain = 0.0
        #: Rows of non-zero weight; None for all.
        self.subset: np.ndarray | None = None
        if self.sample_weight is not None and not self.sample_weight.all():
            self.subset = np.flatnonzero(self.sample_weight).astype(index_dtype(len(self.codes)))

    def placed(self, device: torch.device, dtype: torch.dtype) -> Problem:
        """Place the problem on a device, in a precision."""
        problem = object.__new__(type(self))  # which a copy takes longer to come to
        vars(problem).update(vars(self), device=device, dtype=dtype, _rows=None, _seen=False)
        return problem

    @cached_property
    def X(self) -> Matrix:
        """The rows as one matrix (n, d), copied if they are a part of `source`: for those who cannot do without."""
        if self.shard is not None:
            return self.shard.matrix(self.source, np.arange(self.shard.n_rows) if self.index is None else self.index)
        if self.index is None:
            return self.source
        if isinstance(self.source, StoredArray):
            return self.source.at(self.index)
        on_device = isinstance(self.source, Tensor)
        return self.source[torch.from_numpy(self.index).to(self.source.device) if on_device else self.index]

    @cached_property
    def missing(self) -> np.ndarray:
        """Columns in which a row of non-zero weight has no value (NaN)."""
        missing, weight = np.zeros(self.source.shape[1], dtype=bool), self.sample_weight
        if weight is not None and self.shard is not None:
            weight = weight[self.shard.part]
        for start, part in () if sparse.issparse(self.source) else suspicious_parts(self.source):
            found = (part if isinstance(part, Tensor) else as_tensor(part)).isnan()
            if weight is not None:
                counts = torch.from_numpy(weight[start : start + len(part)] > 0)
                found &= counts.to(found.device).unsqueeze(1)
            missing |= found.any(0).cpu().numpy()
        return np.flatnonzero(missing if self.shard is None else np.any(self.shard.group.gather(missing), axis=0))

    @cached_property
    def has_missing(self) -> bool:
        """Whether any value is missing (NaN), also in rows of weight zero."""
        found = has_missing(self.source)
        return found if self.shard is None else any(self.shard.group.gather(found))

    @property
    def is_soft(self) -> bool:
        """Whether targets are tables of numbers: probabilities, or values."""
        return self.target.dtype.kind == "f"

    @property
    def is_stored(self) -> bool:
        """Whether the rows are not in memory, so that they are best read in their order."""
        return isinstance(self.source, StoredArray)

    @property
    def n_rows(self) -> int:
        """Number of rows of non-zero weight."""
        return len(self.codes) if self.subset is None else len(self.subset)

    @property
    def n_observations(self) -> float:
        """Number of rows, where one of weight 2 is two, unless weights are below one on average."""
        return self.n_rows if self.sample_weight is None else max(self.n_rows, float(self.sample_weight.sum()))

    @cached_property
    def density(self) -> float:
        """Share of the values, in rows of non-zero weight, that a product has to touch."""
        if not sparse.issparse(self.source):
            return 1.0
        lengths = np.diff(self.source.indptr)
        lengths = lengths if self.shard is None else np.concatenate(self.shard.group.gather(lengths))
        lengths = lengths if self.index is None else lengths[self.index]
        n_values = lengths.sum() if self.subset is None else lengths[self.subset].sum()
        return float(n_values / max(1, self.n_rows * self.source.shape[1]))

    @property
    def weight(self) -> np.ndarray | None:
        """Sample weight times class weight."""
        if self.class_weight is None or self.sample_weight is None:
            return self.sample_weight if self.class_weight is None else self.class_weight
        return self.class_weight * self.sample_weight

    def rows(self) -> AnyRows:
        """Make the source of batches, once."""
        if self._rows is None:
            self._rows = self.shared(rows_of(self.some_rows, self.device, self.dtype))
        return self._rows

    @property
    def some_rows(self) -> Matrix:
        """The rows that are here; where there are none, one that counts for nothing."""
        if self.source.shape[0] or self.shard is None:
            return self.source
        if sparse.issparse(self.source):
            return sparse.csr_array((1, self.source.shape[1]), dtype=self.source.dtype)
        shape = 1, self.source.shape[1]
        if isinstance(self.source, Tensor):
            return self.source.new_zeros(shape)
        return np.zeros(shape, self.source.dtype)

    def shared(self, rows: DenseRows | SparseRows) -> Any:
        """Make the rows of all processes of those that are here."""
        return rows if self.shard is None else SharedRows(rows, self.source, self.shard)

    def see(
        self,
        columns: Columns,
        sizes: np.ndarray,
        centered: bool,
        products: torch.dtype | None = None,
        same_factor: bool = False,
    ) -> Frame | None:
        """Decide once, by the statistics of the columns and their sizes, in which frame all rows are seen.

        `products` is the dtype of what they are multiplied in, if it is not the problem's.
        """
        if not self._seen:
            frame, self._seen = columns.frame(products or self.dtype, sizes, centered, same_factor), True
            if frame is not None or self._rows is not None:
                self.rows().frame = frame
        return None if self._rows is None else self._rows.frame

    def tensor(self, array: np.ndarray) -> Tensor:
        """Put an array on the device; floating-point numbers in the compute dtype."""
        tensor = as_tensor(array)
        return to_device(tensor, self.device, self.dtype if array.dtype.kind == "f" else None)

    def take(self, rows: np.ndarray, factor: np.ndarray | None = None) -> Problem:
        """Make the problem of some of the rows, which are not copied, with a `factor` on their weights."""
        sample_weight, class_weight = (
            None if w is None else w[..., rows] for w in (self.sample_weight, self.class_weight)
        )
        if factor is not None:
            sample_weight = factor if sample_weight is None else factor * sample_weight
        index = rows if self.index is None else self.index[rows]
        target, codes = self.target[rows], self.codes[rows]
        weights = sample_weight, class_weight
        part = Problem(
            self.source, target, codes, *weights, self.device, self.dtype, index, self.shard, self.indicators
        )
        part._rows, part.divided = self.rows(), factor is not None
        return part

    def here(self) -> Problem:
        """Make the problem of the rows that are here: all, unless processes share them."""
        if self.shard is None:
            return self
        index = np.arange(self.shard.n_rows) if self.index is None else self.index
        part = self.take(own := self.shard.own(index))
        part.index, part.shard, part._rows = index[own] - self.shard.start, None, self.rows().local
        return part

    def assembled(self, part: np.ndarray) -> np.ndarray:
        """Put together what processes have for the rows of this problem that are theirs."""
        assert self.shard is not None
        return self.shard.assembled(np.arange(self.shard.n_rows) if self.index is None else self.index, part)

    def counted(self) -> Problem:
        """Make the problem of the rows of non-zero weight."""
        return self if self.subset is None else self.take(self.subset)

    def distinct(self, seed: int) -> DistinctRows:
        """Find the distinct rows of non-zero weight."""
        generator = np.random.default_rng(seed)
        content = self.target if self.is_soft else self.codes
        strata = self.codes if self.codes.ndim == 1 else None
        shared = self.shard is not None and self.index is None
        X, shard = (self.source, self.shard) if shared else (self.X, None)
        return splits.distinct_rows(X, content, self.sample_weight, generator, strata, self.subset, shard)

    def dealt(self, distinct: DistinctRows, n_folds: int, seed: int, merges: set[bool]) -> dict[bool, Folds]:
        """Deal the rows of non-zero weight into folds, with equal rows merged, or not, or both; see `merged`."""
        fold = splits.fold_of_rows(distinct, n_folds)
        share = splits.dealt_shares(distinct, fold, n_folds, seed)
        return {merge: self.folds(distinct, fold, share, merge) for merge in merges}

    def folds(self, distinct: DistinctRows, fold: np.ndarray, share: np.ndarray, merge: bool) -> Folds:
        """Put the rows of non-zero weight in folds, by the fold of each distinct row and the shares of divided ones."""
        if merge:
            representatives, total = self.merged(distinct)
            if self.is_stored:  # by their hashes, they would be anywhere
                order = np.argsort(representatives)
                share = share[np.argsort(representatives[fold == DIVIDED])]
                representatives, fold = representatives[order], fold[order]
            return Folds(representatives, fold, share, total, distinct.unit)
        n, weight = len(self.codes), self.weight
        rows = np.arange(n, dtype=index_dtype(n)) if self.subset is None else self.subset
        divided, of_rows = fold == DIVIDED, fold[distinct.group]
        weight = np.ones(n) if weight is None and divided.any() else weight
        share = share[(np.cumsum(divided) - 1)[distinct.group[of_rows == DIVIDED]]]
        return Folds(rows, of_rows, share, weight, distinct.unit)

    def merged(self, distinct: DistinctRows) -> tuple[np.ndarray, np.ndarray]:
        """Keep one row for all that are equal to it, with their total weight, in the order of their hashes.

        Where one batch holds all rows, neither their order nor their repetition can then make a difference. Returned
        are indices (m,), and weights of all rows, (n,) or (K, n).
        """
        rows = distinct.first if self.subset is None else self.subset[distinct.first]
        weight = np.zeros(len(self.codes))
        weight[rows] = distinct.weight
        return rows, weight if self.class_weight is None else weight * self.class_weight

    def split(
        self, seed: int, fraction: float | None, merge: bool, classes: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None, Problem | None]:
        """Choose the rows to train on, and those to watch: a `fraction` of the weight, if any, in an order by a `seed`.

        Equal rows are merged in training if asked for (see `merged`), never where they are held out; `classes` are for
        an error message. Returned are the indices of the rows to train on (None: all), the weight of each row in
        training, (n,) or (K, n), and the problem that is held out.
        """
        if fraction is None and not merge:
            return self.subset, self.weight, None
        distinct = self.distinct(seed)
        if fraction is None:
            return *self.merged(distinct), None
        if not fraction:
            raise ValueError(_TOO_FEW)
        fold = splits.validation_rows(distinct, fraction)
        _check_parts(distinct, fold, self.codes, classes)
        share = np.full(((fold == DIVIDED).sum(), 1), fraction)
        folds = self.folds(distinct, fold, share, merge=False)
        held_out = self.take(folds.held_out(0), folds.held_out_factor(0))
        part = np.where(fold == DIVIDED, fraction, fold == 0)
        cells = np.bincount(distinct.cell, weights=distinct.weight * part)
        held_out.grain = max(0.0, float((cells.max() - distinct.unit) / cells.sum())) * (1 + 1e-6)
        if merge:
            folds = self.folds(distinct, fold, share, merge)
        return folds.training(0), folds.training_weight(0), held_out


def _check_parts(distinct: DistinctRows, fold: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> None:
    """Raise if one of two classes is not in both parts (with more classes, a class of one row is trained on)."""
    watched = fold != KEPT
    if codes.ndim == 1 and len(classes) == 2:
        for code in range(2):
            own = watched[distinct.stratum == code]  # none where the class has no weight
            if len(own) and not own.any():
                names = classes.tolist()
                raise ValueError(
                    f"The least populated classes in y have only 1 member (class {names[code]!r}), and a split for "
                    "early stopping needs one for training and one for validation. Pass X_val and y_val, or use "
                    f"early_stopping=False. Classes with too few members are: ['{bool(code)}'] as answers to 'is it "
                    f"{names[1]!r}?'"
                )
    if not watched.any():
        raise ValueError(_TOO_FEW)


def scores_of(network: Network, rows: AnyRows, index: np.ndarray) -> Tensor:
    """Compute scores (K, m, C) of the rows of `index` (m,), in bounded batches."""
    if isinstance(rows, SharedRows):
        own = index[rows.shard.own(index)] - rows.shard.start
        found = scores_of(network, rows.local, own if len(own) else np.zeros(1, dtype=int))[:, : len(own)]
        of_all = rows.shard.assembled(index, found.transpose(0, 1).cpu().numpy())
        return torch.from_numpy(of_all).to(found.device).transpose(0, 1)
    rows = rows if rows.scratch is not None else rows.in_scratch()
    step, evaluated = chunk_rows(network, rows), network.evaluator()
    scores = evaluated(rows.take(torch.from_numpy(index[:step]))).detach()
    if len(index) > step:
        # in one piece from the start: parts that are kept between batches would scatter over the memory
        first, scores = scores, scores.new_empty((scores.shape[0], len(index), *scores.shape[2:]))
        scores[:, :step] = first
        for start in range(step, len(index), step):
            part = index[start : start + step]
            scores[:, start : start + step] = evaluated(rows.take(torch.from_numpy(part))).detach()
    return scores
