"""A validated training problem, its split into training and validation rows, and the watch over the latter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.batching import MAX_VALUES, DenseRows, SparseRows, as_tensor
from skdeep.inputs import Matrix, rows_of
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.splits import DistinctRows, distinct_rows, index_dtype, validation_mask
from skdeep.training import Monitor

#: Rows per chunk where the data is passed over outside mini-batch training.
CHUNK_ROWS = 8192


def chunk_rows(network: Network, rows: DenseRows | SparseRows) -> int:
    """Rows to compute scores of at once, so that neither they nor the hidden units take much memory."""
    return min(CHUNK_ROWS, max(1, MAX_VALUES // max(network.row_size, rows.row_values)))


@dataclass
class Problem:
    """Rows, what to learn of them, and where to compute.

    Attributes
    ----------
    source : matrix
        The rows are all of it, or those of `index`.
    target : ndarray of shape (n,) or (n, C)
        What the loss takes.
    codes : ndarray of shape (n,), or (n, C) for multilabel targets
        Class codes, or label indicators.
    sample_weight : ndarray of shape (n,), or None
        The caller's weights; None for ones.
    class_weight : ndarray of shape (n,) or (K, n), or None
        Each row's factor by its class, the same for all models of a stack or each model's own; None for ones.
    device, dtype
        Where, and in which precision, to compute.
    index : ndarray of shape (n,), or None
        Which rows of `source` these are; None for all.
    """

    source: Matrix
    target: np.ndarray
    codes: np.ndarray
    sample_weight: np.ndarray | None
    class_weight: np.ndarray | None
    device: torch.device
    dtype: torch.dtype
    index: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._rows: DenseRows | SparseRows | None = None
        #: Rows of non-zero weight; None for all.
        self.subset: np.ndarray | None = None
        if self.sample_weight is not None and not self.sample_weight.all():
            self.subset = np.flatnonzero(self.sample_weight).astype(index_dtype(len(self.codes)))

    @cached_property
    def X(self) -> Matrix:
        """The rows as one matrix (n, d), copied if they are a part of `source`: for those who cannot do without."""
        if self.index is None:
            return self.source
        on_device = isinstance(self.source, Tensor)
        return self.source[torch.from_numpy(self.index).to(self.source.device) if on_device else self.index]

    @cached_property
    def missing(self) -> np.ndarray:
        """Columns in which a row of non-zero weight has no value (NaN)."""
        missing = np.zeros(self.source.shape[1], dtype=bool)
        rows = self.rows()
        if isinstance(rows, DenseRows) and rows.X.is_floating_point():
            step = max(1, MAX_VALUES // rows.row_values)
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                if not rows.X[part].sum().isnan():  # 20 times faster than to look at each
                    continue
                found = rows.X[part].isnan()
                if self.sample_weight is not None:
                    found &= torch.from_numpy(self.sample_weight[part] > 0).to(found.device).unsqueeze(1)
                missing |= found.any(0).cpu().numpy()
        return np.flatnonzero(missing)

    @property
    def n_rows(self) -> int:
        """Number of rows of non-zero weight."""
        return len(self.codes) if self.subset is None else len(self.subset)

    @property
    def density(self) -> float:
        """Share of the values that a product has to touch."""
        return self.X.nnz / max(1, math.prod(self.X.shape)) if sparse.issparse(self.X) else 1.0

    @property
    def weight(self) -> np.ndarray | None:
        """Sample weight times class weight."""
        if self.class_weight is None or self.sample_weight is None:
            return self.sample_weight if self.class_weight is None else self.class_weight
        return self.class_weight * self.sample_weight

    def rows(self) -> DenseRows | SparseRows:
        """The source as a source of batches."""
        if self._rows is None:
            self._rows = rows_of(self.source, self.device, self.dtype)
        return self._rows

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the device; floating-point ones in the compute dtype."""
        return as_tensor(array).to(self.device, self.dtype if array.dtype.kind == "f" else None)

    def take(self, rows: np.ndarray) -> Problem:
        """The problem of some of the rows, which are not copied."""
        sample_weight, class_weight = (
            None if w is None else w[..., rows] for w in (self.sample_weight, self.class_weight)
        )
        index = rows if self.index is None else self.index[rows]
        target, codes = self.target[rows], self.codes[rows]
        part = Problem(self.source, target, codes, sample_weight, class_weight, self.device, self.dtype, index)
        part._rows = self.rows()
        return part

    def distinct(self, seed: int) -> tuple[DistinctRows, np.ndarray]:
        """The distinct rows of non-zero weight, and the indices in X that they speak of."""
        n = len(self.codes)
        rows = np.arange(n, dtype=index_dtype(n)) if self.subset is None else self.subset
        generator, stratify = np.random.default_rng(seed), self.codes.ndim == 1
        return distinct_rows(self.X, self.codes, self.sample_weight, generator, stratify, self.subset), rows

    def merged(self, distinct: DistinctRows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One representative of each distinct row, and weights by which these stand for all rows."""
        representatives = rows[distinct.first]
        weight = np.zeros(len(self.codes))
        weight[representatives] = distinct.weight
        return representatives, weight if self.class_weight is None else weight * self.class_weight

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
            Train on the distinct rows, in the order of their hashes, with their total weights: where one batch holds
            all rows, neither their order nor their repetition can then make a difference.
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
        distinct, rows = self.distinct(seed)
        in_validation, held_out = np.zeros(len(rows), dtype=bool), None
        if fraction is not None:
            _check_two_classes(distinct, self.codes, classes)
            in_validation = validation_mask(distinct, fraction)
            if not in_validation.any():
                raise ValueError(
                    "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
                )
            held_out = self.take(rows[in_validation])
        if not merge:
            return rows[~in_validation], self.weight, held_out
        representatives, weight = self.merged(distinct, rows)
        return representatives[~in_validation[distinct.first]], weight, held_out


def _check_two_classes(distinct: DistinctRows, codes: np.ndarray, classes: np.ndarray) -> None:
    """Two classes: each must be able to be in both parts (with more, a class of one row is trained on)."""
    if codes.ndim == 2 or len(classes) != 2:
        return
    counts = np.bincount(distinct.stratum, minlength=2)
    if counts.min() == 1:
        rare = int(counts.argmin())
        raise ValueError(
            f"The least populated classes in y have only 1 member (class {classes[rare]!r}), and a split for early "
            "stopping needs one for training and one for validation. Pass X_val and y_val, or use "
            f"early_stopping=False. Classes with too few members are: ['{bool(rare)}'] as answers to 'is it "
            f"{classes[1]!r}?'"
        )


@dataclass
class TrainingState:
    """What partial_fit and warm_start need to go on exactly where training stopped; NumPy only.

    ``epochs`` have been done of the present schedule, ``reduction`` is what "adaptive" has multiplied the learning rate
    by, ``learning_rate`` is the rate of the next step, ``seen`` the weight of the rows of earlier calls of partial_fit.
    """

    generator: np.random.Generator
    solver: str = ""
    optimizer: dict | None = None
    columns: Any = None
    epochs: int = 0
    reduction: float = 1.0
    learning_rate: float = 0.0
    seen: float = 0.0


def make_monitor(
    held_out: Problem,
    loss: Loss,
    scoring: str | Callable | None,
    labels: np.ndarray,
    fitted: Callable[[Network, int], Any],
) -> Monitor:
    """Make the function that the training loop calls after each epoch.

    Parameters
    ----------
    held_out : Problem
        Validation data.
    loss : Loss
    scoring : str, callable or None
        A scorer; None is accuracy, "loss" the negative loss (both computed on the device).
    labels : ndarray
        The held-out labels as the user knows them, for a scorer.
    fitted : callable
        ``fitted(network, model)`` is an estimator with the parameters of one model, for a scorer.
    """
    index = None if held_out.index is None else torch.from_numpy(held_out.index)
    rows, codes, target = held_out.rows(), held_out.tensor(held_out.codes), held_out.tensor(held_out.target)
    weight = np.ones(len(codes)) if held_out.sample_weight is None else held_out.sample_weight
    of_class = 1.0 if held_out.class_weight is None else held_out.class_weight
    # accuracy counts samples as they are; the loss weighs them as in training (one row for all models, or one for each)
    share, loss_share = (held_out.tensor(np.atleast_2d(w)) for w in (weight, weight * of_class))
    share, loss_share = share / share.sum(), loss_share / loss_share.sum(1, keepdim=True)
    scorer = None if scoring in (None, "loss") else get_scorer(scoring)
    weight_argument = {} if held_out.sample_weight is None else {"sample_weight": held_out.sample_weight}

    def monitor(network: Network, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accuracy = torch.zeros(network.n_models, dtype=held_out.dtype, device=held_out.device)
        objective = torch.zeros_like(accuracy)
        of_models = loss_share[models] if len(loss_share) > 1 else loss_share
        step = chunk_rows(network, rows)
        for start in range(0, len(codes), step):
            part = slice(start, min(start + step, len(codes)))
            scores = network.scores(rows.take(part if index is None else index[part])).detach()
            if codes.ndim == 2:
                right = ((scores > 0) == codes[part].bool()).all(-1)
            elif scores.shape[-1] == 1:
                right = (scores[..., 0] > 0) == codes[part].bool()
            else:
                right = scores.argmax(-1) == codes[part]
            accuracy += (right * share[:, part]).sum(1)
            wanted = target[part] if target.dtype is torch.int64 else target[part].to(held_out.dtype)
            objective += (loss.value(scores, wanted.unsqueeze(0)) * of_models[:, part]).sum(1)
        losses = objective.double().cpu().numpy()
        if scorer is None:
            return (-losses if scoring == "loss" else accuracy.double().cpu().numpy()), losses
        estimators = [fitted(network, m) for m in range(network.n_models)]
        return np.array([scorer(e, held_out.X, labels, **weight_argument) for e in estimators]), losses

    return monitor
