"""The watch over validation data: what a stack's models score on it after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.data.problem import Problem, chunk_rows
from skdeep.data.scoring import BUILT_IN, as_score, takes_weight
from skdeep.engine.group import Group
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.per_model import index_of, to_numpy64
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.training import Monitor

#: Inverse temperatures at which "calibrated_loss" looks for the lowest loss: log-loss is flat enough between them.
_SHARPNESS = np.geomspace(0.05, 3.0, 22)


def make_monitor(
    held_out: list[Problem],
    loss: Loss,
    scoring: str | Callable | None,
    labels: Callable[[Problem], np.ndarray],
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
        ``labels(problem)`` are the labels of its rows as the user knows them, for a scorer.
    fitted : callable
        ``fitted(network, at, model)`` is an estimator with the parameters of model `at` of a network, for a scorer; in
        the original stack it was number `model`.
    answers : callable, optional
        ``answers(scores)`` answers in the place of that estimator, where a scorer does no more than ask: then no
        parameters and rows have to go from one device to another.
    """
    parts, group = [part.here() for part in held_out], Group() if (shard := held_out[0].shard) is None else shard.group
    first, own, n_rows = parts[0], len(parts) > 1, max(1, *(len(part.codes) for part in parts))
    rows = first.rows().in_scratch()
    index = None
    if first.index is not None:
        index = torch.from_numpy(_filled_up([part.index for part in parts], n_rows))
    codes = first.tensor(_filled_up([part.codes for part in parts], n_rows))
    target = first.tensor(_filled_up([part.target for part in parts], n_rows))
    weights = [np.ones(len(part.codes)) if part.sample_weight is None else part.sample_weight for part in parts]
    of_class = [1.0 if part.class_weight is None else part.class_weight for part in parts]
    # accuracy counts samples as they are; the loss weighs them as in training (one row for all models, or one for each)
    weight = first.tensor(_padded(weights, n_rows))
    loss_weight = first.tensor(_padded([w * c for w, c in zip(weights, of_class, strict=True)], n_rows))
    group.sum_(totals := [weight.sum(1), loss_weight.sum(1)])
    if not bool((totals[1] > 0).all()):
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
        group.sum_([accuracy, objective, calibrated])
        accuracy /= of_models(totals[0])
        objective, calibrated = (total / of_models(totals[1]) for total in (objective, calibrated))
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
                    found = of_rows[m, : len(parts[model if own else 0].codes)]
                    found = found if data.shard is None else torch.from_numpy(data.assembled(found.numpy()))
                    asked, X = answers(found), np.empty((len(data.codes), 0))
                mark = scorer(asked, X, labels(data), **argument)
                marks[m] = as_score(mark, scoring, data.codes)
        return without_rounding(marks), losses

    def without_rounding(marks: np.ndarray) -> np.ndarray:
        """Make scores equal that differ by the rounding of parts of weights: which epoch is best depends on it."""
        digits = 12 if first.dtype is torch.float64 else 6
        return np.round(marks, digits) if any(part.divided for part in held_out) else marks

    return monitor


def _filled_up(arrays: list, n_rows: int) -> np.ndarray:
    """Stack arrays of several lengths (len(arrays), n_rows, ...): the first entry of each fills it up, or a zero."""

    def filled(array: np.ndarray) -> np.ndarray:
        other = array[:1] if len(array) else np.zeros_like(array, shape=(1, *array.shape[1:]))
        return np.concatenate([array, np.repeat(other, n_rows - len(array), axis=0)])

    return np.stack([filled(array) for array in arrays])


def _padded(weights: list[np.ndarray], n_rows: int) -> np.ndarray:
    """Put the weights of several sets of rows into one table, with zeros where a set has fewer than `n_rows`."""
    tables = [np.atleast_2d(np.asarray(weight, dtype=np.float64)) for weight in weights]
    return np.concatenate([np.pad(table, ((0, 0), (0, n_rows - table.shape[1]))) for table in tables])
