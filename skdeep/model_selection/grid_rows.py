"""The rows of all splits of a grid: what its models are trained on, and asked about.

A regressor trains on targets in a unit of their own, so that no two splits agree on what the target of a row is. In one
array, which has the rows of each split, they can be trained as one stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.data.encoding import class_weight_of_rows, encode
from skdeep.data.inputs import Data, float_dtype, to_numpy
from skdeep.data.problem import Problem, scores_of
from skdeep.data.values import TargetScale
from skdeep.engine.classes import winners
from skdeep.engine.networks import Linear, Network
from skdeep.engine.values import AbsoluteValues, QuantileValues, SquaredValues
from skdeep.estimators.linear import LinearModel
from skdeep.estimators.prediction import scores_of_members
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.links import fitted_copy
from skdeep.fitting.losses import suited_delta
from skdeep.model_selection.quick_scores import quickly
from skdeep.model_selection.stacks import MAX_IN_ONE_ARRAY, CannotStack

#: Rows to train on, and to test.
Split = tuple[np.ndarray, np.ndarray]
#: Losses of values that are the same in any unit.
WITHOUT_UNIT = (SquaredValues, AbsoluteValues, QuantileValues)


@dataclass(frozen=True)
class GridRows:
    """The rows of all splits."""

    problem: Problem
    splits: list[Split]  # of rows of the problem
    #: How many times as large each split's setting of the loss is as the leader's, where it follows from targets.
    stretch: list[float]
    weight: np.ndarray | None = None  # of each row, beside its class's, (n,)
    scales: list[TargetScale] | None = None  # of each split, where its targets are in a unit of their own

    @classmethod
    def of(cls, candidates: list, X: Data, target: tuple[Data, Any], splits: Sequence[Split]) -> GridRows:
        """Validate the rows once for all splits; raise `CannotStack` where a split would find others in them."""
        leader = candidates[0]
        problem = encode([leader], X, *target, going_on=False, incremental=False)
        weight = problem.sample_weight
        problem = replace(problem, sample_weight=None, class_weight=None)  # which follow from a split's rows
        if problem.codes.ndim != 1:
            raise CannotStack("Labels are several.")
        if any(getattr(getattr(leader, "_categories", None), "pools", ())):
            raise CannotStack("Which levels are rare, each split says for itself.")
        splits = [(np.asarray(train), np.asarray(test)) for train, test in splits]
        if any(part.dtype.kind not in "iu" for split in splits for part in split):
            raise CannotStack("Splits are masks.")
        if not isinstance(leader, LinearModel) and not _have_all_levels(leader, problem, splits):
            raise CannotStack("Networks draw weights for levels that there are; a linear model's of others are zero.")
        if isinstance(leader, BaseTorchRegressor):
            if _has_units(leader) and any(one.alpha == "auto" for one in candidates):
                raise CannotStack("The strength of the penalty follows from a split's targets.")
        elif any(len(np.unique(problem.codes[train])) < len(leader.classes_) for train, _ in splits):
            raise CannotStack("A split lacks a class.")
        if weight is not None and (hasattr(leader, "delta_") or not weight.all()):
            raise CannotStack("The loss follows from a split's weights, or some rows count for nothing.")
        return cls(problem, splits, _stretches(leader, problem, splits), weight)

    def in_own_units(self, leader: Any, y: Data) -> GridRows:
        """Put the rows of the splits one after the other, each split's targets in their own unit."""
        problem, splits = self.problem, self.splits
        if leader.early_stopping:
            raise CannotStack("The unit of targets matters to what is watched.")
        if type(problem.source) is not np.ndarray or self.weight is not None:
            raise CannotStack("Rows are no array, or have weights.")
        if type(leader._loss(1)) not in WITHOUT_UNIT or hasattr(leader, "delta_"):
            raise CannotStack("A loss that knows of a unit, or of an output, is another one for each split.")
        index = np.concatenate([rows for split in splits for rows in split])
        if index.size * problem.source.shape[1] > MAX_IN_ONE_ARRAY:
            raise CannotStack("The rows of all splits are too many.")
        values = leader._coded((y, None), problem.source, "y", new=False)[2]
        scales = [leader._measure_targets(values[train], None, True) for train, _ in splits]
        target = [scale.forth(values[np.concatenate(split)]) for scale, split in zip(scales, splits, strict=True)]
        parts = np.split(np.arange(len(index)), np.cumsum([len(rows) for split in splits for rows in split])[:-1])
        together = replace(
            problem, source=problem.source[index], target=np.concatenate(target), codes=problem.codes[index]
        )
        return replace(self, problem=together, splits=list(zip(parts[::2], parts[1::2], strict=True)), scales=scales)

    @property
    def parts(self) -> list[Problem]:
        """The problem of each split's training rows."""
        return [self.problem.take(train) for train, _ in self.splits]

    @property
    def have_all_gaps(self) -> bool:
        """Whether each split's training rows lack values in all columns of which any rows do."""
        gapped = self.problem.source[:, self.problem.missing]
        return all(np.isnan(gapped[train]).any(0).all() for train, _ in self.splits)

    def weights(self, candidates: list, train: np.ndarray) -> list[np.ndarray | None]:
        """Weigh the training rows of a split, for each candidate, by its classes too: (n,), or None for ones."""
        settings, leader = [one.class_weight for one in candidates], candidates[0]
        own = None if self.weight is None else self.weight[train]
        codes, found = self.problem.codes, dict[int, np.ndarray | None]()
        for j in {settings.index(setting) for setting in settings}:
            of_class = None
            if settings[j] is not None:
                labels = leader._labels_of(self.problem)[train]
                of_class = class_weight_of_rows(settings[j], leader.classes_, labels, codes[train], own)
            product = of_class if own is None else own if of_class is None else own * of_class
            if product is not None and not product.all():
                raise CannotStack("A class counts for nothing.")
            found[j] = product if product is None else _spread(product, train, len(codes))
        return [found[settings.index(setting)] for setting in settings]

    def _rows_of(self, part: str) -> list[np.ndarray]:
        """Take the rows of each split to "train" on, or to "test"."""
        return [train if part == "train" else test for train, test in self.splits]

    def _scores(self, network: Network, part: str) -> list[Tensor]:
        """Compute the scores of each split's models on a part of its rows, (candidates, n, C)."""
        rows, each = self.problem.rows(), np.arange(network.n_models).reshape(len(self.splits), -1)
        parts = self._rows_of(part)
        if isinstance(network, Linear):  # one product of all costs less than several calls
            scores = scores_of(network, rows, np.arange(len(self.problem.codes))).cpu()
            of_splits = scores.view(*each.shape, *scores.shape[1:])
            return [own[:, torch.from_numpy(index)] for own, index in zip(of_splits, parts, strict=True)]
        return [scores_of(network.select(own), rows, index).cpu() for own, index in zip(each, parts, strict=True)]

    def accuracies(self, network: Network, weighs: bool, part: str) -> list[list[float]]:
        """Compute the accuracies of models (splits, candidates), each on a part of its split."""
        marks = []
        for own, index in zip(self._scores(network, part), self._rows_of(part), strict=True):
            predicted = to_numpy(own[:, :, 0] > 0 if own.shape[2] == 1 else winners(own))
            weight = self.weight[index] if weighs and self.weight is not None else None
            marks.append(np.average(predicted == self.problem.codes[index], axis=1, weights=weight).tolist())
        return marks

    def asked(self, candidates: list, scorer: Callable, network: Network, weighs: bool, part: str) -> list:
        """Ask a scorer about the answers of models (splits, candidates) about a part of their splits."""
        marks, scorer, leader = [], quickly(scorer), candidates[0]
        # else predictions are more exact than scores in training, or rounded to X's dtype
        is_double = network.params[0].dtype is torch.float64 and float_dtype(self.problem.source) == np.float64
        known = self._scores(network, part) if is_double else None
        for number, index in enumerate(self._rows_of(part)):
            if self.scales is not None:  # the leader is to speak of the targets of this split
                leader._target_scale = self.scales[number]
            labels, rows = leader._labels_of(self.problem), np.empty((len(index), 0))
            if known is not None:
                answers = [leader._answers(own) for own in known[number]]
            else:
                answers = self._answers_of_fitted(candidates, network, number, index)
            weight = self.weight if weighs else None
            of_split = []
            for own in answers:  # each has labels and weights of its own, which any metric may write to
                options = {} if weight is None else {"sample_weight": weight[index]}
                of_split.append(_plain(scorer(own, rows, labels[index], **options)))
            marks.append(of_split)
        return marks

    def _answers_of_fitted(self, candidates: list, network: Network, number: int, index: np.ndarray) -> list:
        """Make what answers about some rows for each of a split's models, as a fitted estimator does."""
        n, source, dtype = len(candidates), self.problem.source, float_dtype(self.problem.source)
        fitted = [fitted_copy(candidates, network, number * n + model, model, dtype) for model in range(n)]
        scores = scores_of_members(fitted, source[index])
        return [one._answers_of_fitted(own) for one, own in zip(fitted, scores, strict=True)]


def _spread(values: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """Put values of some rows where they are among all n."""
    found = np.zeros(n)
    found[index] = values
    return found


def _have_all_levels(leader: Any, problem: Problem, splits: list[Split]) -> bool:
    """Say whether each split's training rows have all levels of categorical columns that there are in any rows."""
    if (categories := getattr(leader, "_categories", None)) is None:
        return True
    indicated = problem.source[:, categories.indicators]
    return all(np.asarray(indicated[train].sum(0)).all() for train, _ in splits)


def _has_units(leader: Any) -> bool:
    """Say whether "auto" is a strength of penalties in the unit of a regressor's targets: squares have it in both."""
    if not isinstance(leader, LinearModel):
        return False
    return type(leader._loss(1)) is not SquaredValues or leader.penalty not in ("l2", None)


def _stretches(leader: Any, problem: Problem, splits: list[Split]) -> list[float]:
    """Compute how many times as large the delta of Huber's loss is in each split as the leader's, if it is "auto"."""
    if not hasattr(leader, "delta_"):
        return [1.0] * len(splits)
    if not isinstance(leader, LinearModel) or leader.penalty not in ("l2", None) or problem.target.shape[1] > 1:
        raise CannotStack("The loss follows from a split's targets.")
    values = leader._target_scale.back(problem.target)
    return [suited_delta(values[train], None) / leader.delta_ for train, _ in splits]


def _plain(mark: Any) -> Any:
    """Make numbers of what a scorer gives, some of which know why they are none; what has failed otherwise raises."""
    if isinstance(mark, dict):
        return {name: _plain(value) for name, value in mark.items()}
    return mark if isinstance(mark, float) else float(mark)
