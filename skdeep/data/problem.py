"""A validated training problem, its split into training and validation rows, and the watch over the latter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.data.columns import Columns
from skdeep.data.inputs import Matrix, rows_of
from skdeep.data.scoring import BUILT_IN, as_score, takes_weight
from skdeep.data.splits import DIVIDED, KEPT, DistinctRows, Folds, distinct_rows, index_dtype, validation_rows
from skdeep.engine.frame import Frame
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.per_model import index_of, to_device, to_numpy64
from skdeep.engine.rows import MAX_VALUES, DenseRows, SparseRows, as_tensor
from skdeep.engine.stored import StoredArray
from skdeep.engine.training import Monitor

#: Inverse temperatures at which "calibrated_loss" looks for the lowest loss: log-loss is flat enough between them.
_SHARPNESS = np.geomspace(0.05, 3.0, 22)

_NOWHERE = torch.device("meta")

#: Rows per chunk where the data is passed over outside mini-batch training, and how many times as many an accelerator
#: takes, which the host has to launch each for.
CHUNK_ROWS, _MORE_THERE = 8192, 8


def chunk_rows(network: Network, rows: DenseRows | SparseRows) -> int:
    """Choose how many rows to compute scores of at once, so that neither they nor the hidden units take much memory."""
    row_bytes = max(network.row_size, rows.row_values) * rows.dtype.itemsize
    more = 1 if rows.device.type == "cpu" else _MORE_THERE
    return min(more * CHUNK_ROWS, max(1, more * MAX_VALUES * torch.float32.itemsize // row_bytes))


@dataclass
class Problem:
    """Rows, what to learn of them, and where to compute.

    Attributes
    ----------
    source : matrix
        The rows are all of it, or the ones in `index`.
    target : ndarray of shape (n,) or (n, C)
        What the loss takes.
    codes : ndarray of shape (n,), or (n, C) for multilabel targets
        Class codes, or label indicators.
    sample_weight : ndarray of shape (n,), or None
        The caller's weights; None for ones.
    class_weight : ndarray of shape (n,) or (K, n), or None
        Each row's factor by its class, the same for all models of a stack or each model's own; None for ones.
    device, dtype
        Where, and in which precision, to compute: nowhere before that is chosen ("meta").
    index : ndarray of shape (n,), or None
        Which rows of `source` these are; None for all.
    """

    source: Matrix
    target: np.ndarray
    codes: np.ndarray
    sample_weight: np.ndarray | None
    class_weight: np.ndarray | None
    device: torch.device = _NOWHERE
    dtype: torch.dtype = torch.float64
    index: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._rows: DenseRows | SparseRows | None = None
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
        return replace(self, device=device, dtype=dtype)

    @cached_property
    def X(self) -> Matrix:
        """The rows as one matrix (n, d), copied if they are a part of `source`: for those who cannot do without."""
        if self.index is None:
            return self.source
        if isinstance(self.source, StoredArray):
            return self.source.at(self.index)
        on_device = isinstance(self.source, Tensor)
        return self.source[torch.from_numpy(self.index).to(self.source.device) if on_device else self.index]

    @cached_property
    def missing(self) -> np.ndarray:
        """Columns in which a row of non-zero weight has no value (NaN)."""
        missing = np.zeros(self.source.shape[1], dtype=bool)
        rows = self.rows()
        finite = self.is_stored and self.source.finite
        if isinstance(rows, DenseRows) and rows.kind.is_floating_point and not finite:
            step = max(1, MAX_VALUES // rows.row_values)
            parts = [slice(start, start + step) for start in range(0, len(rows), step)]
            sums = torch.stack([rows.as_they_are(part).sum() for part in parts])  # 20 times faster than to look at each
            for part in np.array(parts)[sums.isnan().cpu().numpy()].tolist():
                found = rows.as_they_are(part).isnan()
                if self.sample_weight is not None:
                    found &= torch.from_numpy(self.sample_weight[part] > 0).to(found.device).unsqueeze(1)
                missing |= found.any(0).cpu().numpy()
        return np.flatnonzero(missing)

    @property
    def is_stored(self) -> bool:
        """Whether the rows are not in memory, so that they are best read in their order."""
        return isinstance(self.source, StoredArray)

    @property
    def n_rows(self) -> int:
        """Number of rows of non-zero weight."""
        return len(self.codes) if self.subset is None else len(self.subset)

    @property
    def density(self) -> float:
        """Share of the values, in rows of non-zero weight, that a product has to touch."""
        if not sparse.issparse(self.X):
            return 1.0
        n_values = self.X.nnz if self.subset is None else np.diff(self.X.indptr)[self.subset].sum()
        return float(n_values / max(1, self.n_rows * self.X.shape[1]))

    @property
    def weight(self) -> np.ndarray | None:
        """Sample weight times class weight."""
        if self.class_weight is None or self.sample_weight is None:
            return self.sample_weight if self.class_weight is None else self.class_weight
        return self.class_weight * self.sample_weight

    def rows(self) -> DenseRows | SparseRows:
        """Make the source of batches, once."""
        if self._rows is None:
            self._rows = rows_of(self.source, self.device, self.dtype)
        return self._rows

    def see(
        self, columns: Columns, centered: bool, products: torch.dtype | None = None, same_factor: bool = False
    ) -> Frame | None:
        """Decide once, by the statistics of the columns, in which frame all rows of this problem are seen.

        `products` is the dtype of what they are multiplied in, if it is not the problem's.
        """
        if not self._seen:
            self.rows().frame, self._seen = columns.frame(products or self.dtype, centered, same_factor), True
        return self.rows().frame

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
        part = Problem(self.source, target, codes, sample_weight, class_weight, self.device, self.dtype, index)
        part._rows, part.divided = self.rows(), factor is not None
        return part

    def counted(self) -> Problem:
        """Make the problem of the rows of non-zero weight."""
        return self if self.subset is None else self.take(self.subset)

    def distinct(self, seed: int) -> DistinctRows:
        """Find the distinct rows of non-zero weight."""
        generator, stratify = np.random.default_rng(seed), self.codes.ndim == 1
        return distinct_rows(self.X, self.codes, self.sample_weight, generator, stratify, self.subset)

    def folds(self, distinct: DistinctRows, fold: np.ndarray, share: float | np.ndarray, merge: bool) -> Folds:
        """Put the rows of non-zero weight in folds.

        Parameters
        ----------
        distinct : DistinctRows
        fold : ndarray of shape (m,)
            Of each distinct row.
        share : float, or ndarray of shape (d, k)
            Part of each divided, distinct row's weight that is held out at a time; see `Folds`.
        merge : bool
            See `merged`.
        """
        if merge:
            representatives, total = self.merged(distinct)
            if self.is_stored:  # by their hashes, they would be anywhere
                order = np.argsort(representatives)
                if not isinstance(share, float):
                    share = share[np.argsort(representatives[fold == DIVIDED])]
                representatives, fold = representatives[order], fold[order]
            return Folds(representatives, fold, share, total, distinct.unit)
        n, weight = len(self.codes), self.weight
        rows = np.arange(n, dtype=index_dtype(n)) if self.subset is None else self.subset
        divided, of_rows = fold == DIVIDED, fold[distinct.group]
        weight = np.ones(n) if weight is None and divided.any() else weight
        if not isinstance(share, float):
            share = share[(np.cumsum(divided) - 1)[distinct.group[of_rows == DIVIDED]]]
        return Folds(rows, of_rows, share, weight, distinct.unit)

    def merged(self, distinct: DistinctRows) -> tuple[np.ndarray, np.ndarray]:
        """Keep one row for all that are equal to it, with their total weight, in the order of their hashes.

        Where one batch holds all rows, neither their order nor their repetition can then make a difference.

        Returns
        -------
        rows : ndarray of shape (m,)
        weight : ndarray of shape (n,) or (K, n)
            Of all rows.
        """
        rows = distinct.first if self.subset is None else self.subset[distinct.first]
        weight = np.zeros(len(self.codes))
        weight[rows] = distinct.weight
        return rows, weight if self.class_weight is None else weight * self.class_weight

    def split(
        self, seed: int, fraction: float | None, merge: bool, classes: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None, Problem | None]:
        """Choose the rows to train on, and those to watch.

        Parameters
        ----------
        seed : int
            For the order of the rows.
        fraction : float or None
            Share of the weight to hold out for validation; None holds out nothing.
        merge : bool
            See `merged`; what is held out is never merged.
        classes : ndarray
            Class labels, for the error message.

        Returns
        -------
        subset : ndarray or None
            Rows to train on; None for all.
        weight : ndarray of shape (n,) or (K, n), or None
            Weight of each row of X in training.
        held_out : Problem or None
        """
        if fraction is None and not merge:
            return self.subset, self.weight, None
        distinct = self.distinct(seed)
        if fraction is None:
            return *self.merged(distinct), None
        fold = validation_rows(distinct, fraction)
        _check_parts(distinct, fold, self.codes, classes)
        folds = self.folds(distinct, fold, fraction, merge=False)
        held_out = self.take(folds.held_out(0), folds.held_out_factor(0))
        part = np.where(fold == DIVIDED, fraction, fold == 0)
        cells = np.bincount(distinct.cell, weights=distinct.weight * part)
        held_out.grain = max(0.0, float((cells.max() - distinct.unit) / cells.sum())) * (1 + 1e-6)
        if merge:
            folds = self.folds(distinct, fold, fraction, merge)
        return folds.training(0), folds.training_weight(0), held_out


def _check_parts(distinct: DistinctRows, fold: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> None:
    """Raise if one of two classes is not in both parts (with more classes, a class of one row is trained on)."""
    watched = fold != KEPT
    if codes.ndim == 1 and len(classes) == 2:
        for code in range(2):
            own = watched[distinct.stratum == code]  # none where the class has no weight
            if len(own) and not own.any():
                raise ValueError(
                    f"The least populated classes in y have only 1 member (class {classes[code]!r}), and a split for "
                    "early stopping needs one for training and one for validation. Pass X_val and y_val, or use "
                    f"early_stopping=False. Classes with too few members are: ['{bool(code)}'] as answers to 'is it "
                    f"{classes[1]!r}?'"
                )
    if not watched.any():
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")


def scores_of(network: Network, rows: DenseRows | SparseRows, index: np.ndarray) -> Tensor:
    """Compute scores (K, m, C) of the rows of `index` (m,), in bounded batches."""
    rows = rows if rows.scratch is not None else rows.in_scratch()
    step = chunk_rows(network, rows)
    scores = network.scores(rows.take(torch.from_numpy(index[:step]))).detach()
    if len(index) > step:
        # in one piece from the start: parts that are kept between batches would scatter over the memory
        first, scores = scores, scores.new_empty((scores.shape[0], len(index), *scores.shape[2:]))
        scores[:, :step] = first
        for start in range(step, len(index), step):
            part = index[start : start + step]
            scores[:, start : start + step] = network.scores(rows.take(torch.from_numpy(part))).detach()
    return scores


def make_monitor(
    held_out: list[Problem],
    loss: Loss,
    scoring: str | Callable | None,
    labels: Callable[[np.ndarray], np.ndarray],
    fitted: Callable[[Network, int, int], Any],
    answers: Callable[[Tensor], Any] | None = None,
) -> Monitor:
    """Make the function that the training loop calls after each epoch.

    Parameters
    ----------
    held_out : list of Problem
        Validation data: the same for all models, or of each model its own rows of one source.
    loss : Loss
    scoring : str, callable or None
        A scorer; None is accuracy, "loss" the negative loss, "calibrated_loss" the negative loss at the temperature
        that makes it lowest (all three computed on the device).
    labels : callable
        ``labels(codes)`` are those labels as the user knows them, for a scorer.
    fitted : callable
        ``fitted(network, at, model)`` is an estimator with the parameters of model `at` of a network, for a scorer; in
        the original stack it was number `model`.
    answers : callable, optional
        ``answers(scores)`` answers in the place of that estimator, where a scorer does no more than ask: then no
        parameters and rows have to go from one device to another.
    """
    first, own, n_rows = held_out[0], len(held_out) > 1, max(len(part.codes) for part in held_out)
    rows = first.rows().in_scratch()
    index = None
    if first.index is not None:
        index = torch.from_numpy(_filled_up([part.index for part in held_out], n_rows))
    codes = first.tensor(_filled_up([part.codes for part in held_out], n_rows))
    target = first.tensor(_filled_up([part.target for part in held_out], n_rows))
    weights = [np.ones(len(part.codes)) if part.sample_weight is None else part.sample_weight for part in held_out]
    of_class = [1.0 if part.class_weight is None else part.class_weight for part in held_out]
    # accuracy counts samples as they are; the loss weighs them as in training (one row for all models, or one for each)
    weight = first.tensor(_padded(weights, n_rows))
    loss_weight = first.tensor(_padded([w * c for w, c in zip(weights, of_class, strict=True)], n_rows))
    if not bool((loss_weight.sum(1) > 0).all()):
        raise ValueError(
            "All rows of a validation set have weight zero by class_weight, so that no epoch can be judged. Pass X_val "
            "and y_val with other classes, use early_stopping=False, or give the classes a weight."
        )
    scorer = None if scoring in BUILT_IN else get_scorer(scoring)

    def monitor(network: Network, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accuracy = torch.zeros(network.n_models, dtype=first.dtype, device=first.device)
        objective, calibrated = torch.zeros_like(accuracy), accuracy.new_zeros(len(_SHARPNESS), network.n_models)
        known: list[Tensor] = []

        def of_models(values: Tensor) -> Tensor:
            return values[index_of(models, values)] if len(values) > len(models) else values

        rows.frame = network.frame  # the caller's own validation data is seen as the training data is
        step = chunk_rows(network, rows)
        if own:  # a batch has the rows of every model
            step = max(1, min(step, MAX_VALUES // (network.n_models * rows.row_values)))
        for start in range(0, n_rows, step):
            part = slice(start, min(start + step, n_rows))
            batch = rows.take(part if index is None else of_models(index)[:, part] if own else index[0, part])
            scores, right_code = network.scores(batch).detach(), of_models(codes)[:, part]
            if answers is not None:
                known.append(scores)
            if codes.ndim == 3:
                right = ((scores > 0) == right_code.bool()).all(-1)
            elif scores.shape[-1] == 1:
                right = (scores[..., 0] > 0) == right_code.bool()
            else:
                right = scores.argmax(-1) == right_code
            accuracy += (right * of_models(weight)[:, part]).sum(1)
            wanted = of_models(target)[:, part]
            wanted = wanted if wanted.dtype is torch.int64 else wanted.to(first.dtype)
            own_weight = of_models(loss_weight)[:, part]
            objective += (loss.value(scores, wanted) * own_weight).sum(1)
            if scoring == "calibrated_loss":
                for at, factor in zip(calibrated, _SHARPNESS, strict=True):
                    at += (loss.value(scores * factor, wanted) * own_weight).sum(1)
        accuracy /= of_models(weight).sum(1)
        objective, calibrated = (total / of_models(loss_weight).sum(1) for total in (objective, calibrated))
        watched = accuracy if scoring is None else -objective if scoring == "loss" else -calibrated.amin(0)
        marks, losses = to_numpy64(torch.stack([watched, objective]))
        if scorer is None:
            return without_rounding(marks), losses
        of_rows = torch.cat(known, dim=1).cpu() if known else None
        with config_context(array_api_dispatch=False):  # labels, predictions and scores are NumPy, wherever X is
            for m, model in enumerate(models):
                if not np.isfinite(losses[m]):  # a model that has diverged is no fault of the scorer
                    marks[m] = np.nan
                    continue
                data = held_out[model if own else 0]
                argument = {} if data.sample_weight is None else {"sample_weight": data.sample_weight}
                if data.divided and not takes_weight(scorer):  # of the user's own, who has not asked for weights
                    argument = {}
                if answers is None or of_rows is None:
                    asked, X = fitted(network, m, model), data.X
                else:
                    asked, X = answers(of_rows[m, : len(data.codes)]), np.empty((len(data.codes), 0))
                mark = scorer(asked, X, labels(data.codes), **argument)
                marks[m] = as_score(mark, scoring, data.codes)
        return without_rounding(marks), losses

    def without_rounding(marks: np.ndarray) -> np.ndarray:
        """Make scores equal that differ by the rounding of parts of weights: which epoch is best depends on it."""
        digits = 12 if first.dtype is torch.float64 else 6
        return np.round(marks, digits) if any(part.divided for part in held_out) else marks

    return monitor


def _filled_up(arrays: list, n_rows: int) -> np.ndarray:
    """Stack arrays of several lengths (len(arrays), n_rows, ...): the first entry of each fills it up."""
    return np.stack([np.concatenate([a, np.repeat(a[:1], n_rows - len(a), axis=0)]) for a in arrays])


def _padded(weights: list[np.ndarray], n_rows: int) -> np.ndarray:
    """Put the weights of several sets of rows into one table, with zeros where a set has fewer than `n_rows`."""
    tables = [np.atleast_2d(np.asarray(weight, dtype=np.float64)) for weight in weights]
    return np.concatenate([np.pad(table, ((0, 0), (0, n_rows - table.shape[1]))) for table in tables])
