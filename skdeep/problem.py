"""A validated training problem, its split into training and validation rows, and the watch over the latter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.batching import as_tensor
from skdeep.inputs import Matrix, rows_of, to_numpy
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.splits import DistinctRows, distinct_rows, validation_mask
from skdeep.training import Monitor

#: Rows per chunk where the data is passed over outside mini-batch training.
CHUNK_ROWS = 8192


@dataclass
class Problem:
    """Rows, what to learn of them, and where to compute.

    Attributes
    ----------
    X : matrix of shape (n, d)
    target : ndarray of shape (n,) or (n, C)
        What the loss takes.
    codes : ndarray of shape (n,), or (n, C) for multilabel targets
        Class codes, or label indicators.
    sample_weight, class_weight : ndarray of shape (n,), or None
        The caller's weights, and each row's factor by its class; None for ones.
    device, dtype
        Where, and in which precision, to compute.
    """

    X: Matrix
    target: np.ndarray
    codes: np.ndarray
    sample_weight: np.ndarray | None
    class_weight: np.ndarray | None
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self):
        #: Rows of non-zero weight; None for all.
        self.subset: np.ndarray | None = None
        if self.sample_weight is not None and not self.sample_weight.all():
            self.subset = np.flatnonzero(self.sample_weight)

    @property
    def n_rows(self) -> int:
        """Number of rows of non-zero weight."""
        return self.X.shape[0] if self.subset is None else len(self.subset)

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

    def rows(self):
        """The matrix as a source of batches."""
        return rows_of(self.X, self.device, self.dtype)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the device; floating-point ones in the compute dtype."""
        return as_tensor(array).to(self.device, self.dtype if array.dtype.kind == "f" else None)

    def take(self, rows: np.ndarray) -> Problem:
        """The problem of some of the rows."""
        X = self.X[torch.from_numpy(rows).to(self.X.device)] if isinstance(self.X, Tensor) else self.X[rows]
        sample_weight, class_weight = (None if w is None else w[rows] for w in (self.sample_weight, self.class_weight))
        return Problem(X, self.target[rows], self.codes[rows], sample_weight, class_weight, self.device, self.dtype)

    def distinct(self, seed: int) -> tuple[DistinctRows, np.ndarray]:
        """The distinct rows of non-zero weight, and the indices in X that they speak of."""
        part, rows = (self, np.arange(self.n_rows)) if self.subset is None else (self.take(self.subset), self.subset)
        generator = np.random.default_rng(seed)
        return distinct_rows(to_numpy(part.X), part.codes, part.sample_weight, generator, part.codes.ndim == 1), rows

    def merged(self, distinct: DistinctRows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One representative of each distinct row, and weights (n,) by which these stand for all rows."""
        representatives = rows[distinct.first]
        weight = np.zeros(self.X.shape[0])
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
        weight : ndarray of shape (n,) or None
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
    by, and ``learning_rate`` the rate of the next step.
    """

    generator: np.random.Generator
    solver: str = ""
    optimizer: dict | None = None
    columns: Any = None
    epochs: int = 0
    reduction: float = 1.0
    learning_rate: float = 0.0


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
    rows, codes, target = held_out.rows(), held_out.tensor(held_out.codes), held_out.tensor(held_out.target)
    if target.dtype is not torch.int64:
        target = target.to(held_out.dtype)
    weight = np.ones(len(rows)) if held_out.sample_weight is None else held_out.sample_weight
    of_class = 1.0 if held_out.class_weight is None else held_out.class_weight
    # accuracy counts samples as they are; the loss weighs them as in training
    shares = held_out.tensor(np.stack([weight, weight * of_class]))
    shares = shares / shares.sum(1, keepdim=True)
    scorer = None if scoring in (None, "loss") else get_scorer(scoring)
    weight_argument = {} if held_out.sample_weight is None else {"sample_weight": held_out.sample_weight}

    def monitor(network: Network, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accuracy = torch.zeros(network.n_models, dtype=held_out.dtype, device=held_out.device)
        objective = torch.zeros_like(accuracy)
        for i in range(0, len(rows), CHUNK_ROWS):
            part = slice(i, min(i + CHUNK_ROWS, len(rows)))
            scores = network.scores(rows.take(part)).detach()
            if codes.ndim == 2:
                right = ((scores > 0) == codes[part].bool()).all(-1)
            elif scores.shape[-1] == 1:
                right = (scores[..., 0] > 0) == codes[part].bool()
            else:
                right = scores.argmax(-1) == codes[part]
            accuracy += (right * shares[0, part]).sum(1)
            objective += (loss.value(scores, target[part].unsqueeze(0)) * shares[1, part]).sum(1)
        losses = objective.double().cpu().numpy()
        if scorer is None:
            return (-losses if scoring == "loss" else accuracy.double().cpu().numpy()), losses
        estimators = [fitted(network, m) for m in range(network.n_models)]
        return np.array([scorer(e, held_out.X, labels, **weight_argument) for e in estimators]), losses

    return monitor
