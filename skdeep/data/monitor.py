"""The watch over validation data: what a stack's models score on it after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.data.inputs import power_of_two
from skdeep.data.problem import Problem, chunk_rows
from skdeep.data.scoring import BUILT_IN, as_score, takes_weight
from skdeep.engine.classes import winners
from skdeep.engine.group import Group
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.per_model import index_of, to_numpy64
from skdeep.engine.rows import MAX_VALUES

#: Inverse temperatures at which "calibrated_loss" looks for the lowest loss: log-loss is flat enough between them.
_SHARPNESS = np.geomspace(0.05, 3.0, 22)
#: Scores of which losses are computed at once: few enough to be still in a core's own memory.
_AT_ONCE = 1 << 16


class Watch:
    """The `Monitor` of some data, which the training loop calls after each epoch.

    Validation data is the same for all models, or of each model its own rows of one source. All but scorers (accuracy,
    "loss", "calibrated_loss" at the temperature that makes it lowest) is computed on the device. What a scorer asks
    for: ``labels(problem)`` are the labels of its rows as the user knows them; ``fitted(network, at, model)`` is an
    estimator with the parameters of model `at` of a network, which in the original stack was number `model`;
    ``answers(scores)``, if any, answers in its place, where a scorer does no more than ask: then no parameters and rows
    have to go from one device to another.
    """

    def __init__(
        self,
        held_out: list[Problem],
        loss: Loss,
        scoring: str | Callable | None,
        labels: Callable[[Problem], np.ndarray],
        fitted: Callable[[Network, int, int], Any],
        answers: Callable[[Tensor], Any] | None = None,
    ):
        self.held_out, self.loss, self.scoring = held_out, loss, scoring
        self.labels, self.fitted, self.answers = labels, fitted, answers
        self.scorer: Any = None if scoring in BUILT_IN else get_scorer(scoring)
        self.parts = parts = [part.here() for part in held_out]
        self.group = Group() if (shard := held_out[0].shard) is None else shard.group
        self.rows = parts[0].rows().in_scratch()
        self.n_rows = n_rows = max(1, *(len(part.codes) for part in parts))
        tensor = parts[0].tensor
        self.index = None
        if parts[0].index is not None:
            self.index = torch.from_numpy(_filled_up([part.index for part in parts], n_rows))
        self.codes = tensor(_filled_up([part.codes for part in parts], n_rows))
        self.target = tensor(_filled_up([part.target for part in parts], n_rows))
        # accuracy counts samples as they are; the loss weighs them as in training (one row for all models, or one each)
        self.weight, self.loss_weight = (tensor(self._weights(name)) for name in ("sample_weight", "weight"))
        self.totals = [self.weight.sum(1), self.loss_weight.sum(1)]
        self.group.sum_(self.totals)
        if not bool((self.totals[1] > 0).all()):
            raise ValueError(
                "All rows of a validation set have weight zero by class_weight, so that no epoch can be judged. Pass "
                "X_val and y_val with other classes, use early_stopping=False, or give the classes a weight."
            )

    def _weights(self, name: str) -> np.ndarray:
        """Put weights in one table, with zeros where a set has fewer rows: of a part, in a unit of the whole set's."""
        tables = []
        for part, whole in zip(self.parts, self.held_out, strict=True):
            weight = getattr(part, name)
            own = np.ones(len(part.codes)) if weight is None else weight / power_of_two(getattr(whole, name))
            tables.append(np.pad(np.atleast_2d(own), ((0, 0), (0, self.n_rows - own.shape[-1]))))
        return np.concatenate(tables)

    def __call__(self, network: Network, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        accuracy, objective, calibrated, known = self._means(network, models)
        watched = accuracy if self.scoring is None else -objective if self.scoring == "loss" else -calibrated.amin(0)
        marks, losses = to_numpy64(torch.stack([watched, objective]))
        if self.scorer is not None:
            with config_context(array_api_dispatch=False):  # labels, answers and scores are NumPy, wherever X is
                for m, model in enumerate(models):
                    # a model that has diverged is no fault of the scorer
                    marks[m] = self._mark(network, m, model, known) if np.isfinite(losses[m]) else np.nan
        if any(part.divided for part in self.held_out):
            # of parts of weights, scores that differ by rounding are equal: which epoch is best depends on it
            marks = np.round(marks, 12 if self.parts[0].dtype is torch.float64 else 6)
        return marks, losses

    def _means(self, network: Network, models: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Compute the accuracy (K,), the loss (K,), losses at several temperatures (T, K); and scores to answer by."""
        accuracy = torch.zeros(network.n_models, dtype=self.parts[0].dtype, device=self.parts[0].device)
        objective, calibrated = torch.zeros_like(accuracy), accuracy.new_zeros(len(_SHARPNESS), network.n_models)
        known: list[Tensor] = []

        def of_models(values: Tensor) -> Tensor:
            return values[index_of(models, values)] if len(values) > len(models) else values

        self.rows.frame = network.frame  # the caller's own validation data is seen as the training data is
        evaluated = network.evaluator()
        for part in self._chunks(network):
            index = None if self.index is None else of_models(self.index)[:, part]
            if index is not None and len(self.parts) == 1:
                index = index[0]
            scores = evaluated(self.rows.take(part if index is None else index)).detach()
            if self.answers is not None:
                known.append(scores)
            accuracy += (_are_right(scores, of_models(self.codes)[:, part]) * of_models(self.weight)[:, part]).sum(1)
            target, weight = of_models(self.target)[:, part], of_models(self.loss_weight)[:, part]
            target = target if target.dtype is torch.int64 else target.to(accuracy.dtype)
            objective += (self.loss.value(scores, target) * weight).sum(1)
            if self.scoring == "calibrated_loss":
                n_at_once = max(1, _AT_ONCE // scores.numel())
                factors = scores.new_tensor(_SHARPNESS).view(-1, 1, 1, 1).split(n_at_once)
                for at, some in zip(calibrated.split(n_at_once), factors, strict=True):
                    at += (self.loss.value(scores * some, target) * weight).sum(2)
        self.group.sum_([accuracy, objective, calibrated])
        of_rows, of_losses = map(of_models, self.totals)
        scores_of_all = torch.cat(known, dim=1).cpu() if known and self.scorer is not None else None
        return accuracy / of_rows, objective / of_losses, calibrated / of_losses, scores_of_all

    def _chunks(self, network: Network) -> list[slice]:
        """Divide the rows; a batch has rows of every model where each has its own."""
        step = chunk_rows(network, self.rows)
        if len(self.parts) > 1:
            step = max(1, min(step, MAX_VALUES // (network.n_models * self.rows.row_values)))
        return [slice(start, min(start + step, self.n_rows)) for start in range(0, self.n_rows, step)]

    def _mark(self, network: Network, at: int, model: int, known: Tensor | None) -> float:
        """Ask the scorer about a model; `known` are the scores to answer by."""
        number = model if len(self.parts) > 1 else 0
        data, part = self.held_out[number], self.parts[number]
        weight = {} if data.sample_weight is None else {"sample_weight": data.sample_weight}
        if data.divided and not takes_weight(self.scorer):  # of the user's own, who has not asked for weights
            weight = {}
        if self.answers is None or known is None:
            asked, X = self.fitted(network, at, model), data.X
        else:
            scores = known[at, : len(part.codes)]
            scores = scores if data.shard is None else torch.from_numpy(data.assembled(scores.numpy()))
            asked, X = self.answers(scores), np.empty((len(data.codes), 0))
        return as_score(self.scorer(asked, X, self.labels(data), **weight), self.scoring, data.codes)


def _are_right(scores: Tensor, codes: Tensor) -> Tensor:
    """Tell about which rows scores (K, n, C) are right."""
    if codes.ndim == 3:
        return ((scores > 0) == codes.bool()).all(-1)
    return (scores[..., 0] > 0) == codes.bool() if scores.shape[-1] == 1 else winners(scores) == codes


def _filled_up(arrays: list, n_rows: int) -> np.ndarray:
    """Stack arrays of several lengths (len(arrays), n_rows, ...): the first entry of each fills it up, or a zero."""

    def filled(array: np.ndarray) -> np.ndarray:
        other = array[:1] if len(array) else np.zeros_like(array, shape=(1, *array.shape[1:]))
        return np.concatenate([array, np.repeat(other, n_rows - len(array), axis=0)])

    return np.stack([filled(array) for array in arrays])
