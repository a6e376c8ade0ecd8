"""What is decided of a fit once its data is known, and the models that it is for: values, from here on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse

from skdeep.data.columns import Columns
from skdeep.data.inputs import Classifier
from skdeep.data.problem import Problem
from skdeep.data.splits import Folds
from skdeep.data.state import TrainingState
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import numbered
from skdeep.engine.training import Monitor, Observer, Progress
from skdeep.fitting.settings import FULL_BATCH, Solver, settings_of


@dataclass
class Member:
    """A model of a stack: whose hyper-parameters it has, what it is trained on, and how far it has come."""

    #: Members of a stack differ in its `stackable` parameters only. Several may have the same one, as folds do.
    estimator: Classifier
    state: TrainingState
    progress: Progress = field(default_factory=Progress)
    #: Indices (m,) of the rows that it is trained on, one object where members share them; None for all.
    rows: np.ndarray | None = None
    #: Weight (n,) of each row of the problem in training, one object where members share it; None for ones.
    weight: np.ndarray | None = None
    #: How many times larger its setting of the loss is than the recipe's, where that follows from targets (Huber's).
    stretch: float = 1.0
    #: By how many bins the edges of its bins are higher than those of a model alone; one object where it is the same.
    shift: float = 0.0
    #: What its calibration needs, where models of the folds train beside it.
    beside: FoldModels | None = None

    @cached_property
    def settings(self) -> Any:
        """The settings of its solver."""
        return settings_of(self.estimator)

    def n_rows(self, problem: Problem) -> int:
        """Count the rows that it is trained on."""
        return len(problem.codes) if self.rows is None else len(self.rows)

    def own(self, values: np.ndarray) -> np.ndarray:
        """Take these rows of values of all rows."""
        return values if self.rows is None else values[self.rows]

    @property
    def own_weight(self) -> np.ndarray | None:
        """Weights of these rows; None for ones."""
        return None if self.weight is None else self.own(self.weight)

    @property
    def unit(self) -> float:
        """The weight that counts as one row: one, or their mean weight, if that is less, as where they sum to one."""
        weight = self.own_weight
        return 1.0 if weight is None else min(1.0, float(weight[weight > 0].mean()))

    @property
    def mean_weight(self) -> float:
        """Mean weight of these rows."""
        weight = self.own_weight
        return 1.0 if weight is None else float(weight.mean())

    def mean_target(self, problem: Problem, n_classes: int = 0) -> np.ndarray:
        """Compute the mean target of these rows, (C,): of classes, at least so many, their shares."""
        target = self.own(problem.target)
        if target.ndim > 1:
            return np.average(target, axis=0, weights=self.own_weight)
        counts = np.bincount(target, self.own_weight, n_classes)
        return counts / counts.sum()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the models of a stack are trained."""

    loss: Loss  # that is minimised
    judged_by: Loss  # what validation data is judged by
    n_outputs: int  # columns of scores
    solver: str
    batch_rows: int  # rows per step
    device: torch.device
    dtype: torch.dtype
    products: torch.dtype | None  # of the matrix products; None for `dtype`
    max_iter: int  # epochs that were asked for
    schedule: str  # laid out over `horizon` epochs
    horizon: int
    #: Epochs after which training ends before that, but for models that find their data clean (`courses.clean_loss`).
    due: float = math.inf
    #: Whether training goes through the whole schedule, however still the loss stands on its way.
    to_end: bool = False
    #: Whether the model is the average of what the steps went through, towards the end.
    averages: bool = False
    #: Whether a penalty whose strength is left to us follows the training loss.
    follows: bool = False
    auto_rate: float = math.nan  # learning rate of perceptrons whose own is "auto"
    proximal: bool  # whether the penalty acts through its proximal map (else through its gradient)
    #: Parameters up to which the exact solver takes Newton steps; None for what suits a tight tolerance.
    newton_params: int | None = None
    #: Whether a linear model begins at scores that suit the shares of the classes, where steps would take long to them.
    begins_at_shares: bool = False
    closed_form: bool = False  # whether "exact" is least squares, in closed form
    n_bins: int = 0  # of each column that a perceptron embeds
    #: ``penalty(members, total_weight, batch_weight)``, of each model, given the weight of its training rows and of a
    #: batch on average.
    penalty: Callable[[list[Member], np.ndarray, np.ndarray], ElasticNet]
    #: ``rates(recipe, problem, network, members)``, the learning rates to begin with.
    rates: Callable[[Recipe, Problem, Network, list[Member]], np.ndarray]
    #: ``network(recipe, problem, members, penalty, warm)``, before training: initial, or, `warm`, of one's attributes.
    network: Callable[[Recipe, Problem, list[Member], ElasticNet, bool], Network]
    settings: Solver  # of all members but for what is stackable
    check: Callable[[Any], None] = lambda X: None  # raises where rows X cannot be computed with

    @property
    def epochs(self) -> int:
        """Epochs of a run at most: some learning rates come to their end before ``max_iter``."""
        return self.max_iter if self.solver in FULL_BATCH else min(self.max_iter, self.horizon)


def rows_and_weights(members: Sequence[Member]) -> tuple[list[np.ndarray | None], list[np.ndarray | None]]:
    """List what each model is trained on: the same objects for models that share it."""
    return [member.rows for member in members], [member.weight for member in members]


def values(members: Sequence[Member], name: str) -> np.ndarray:
    """List a hyper-parameter of each model of a stack: float64, NaN where it is "auto"."""
    return as_numbers(getattr(member.estimator, name) for member in members)


def in_standardised_units(members: Sequence[Member]) -> np.ndarray:
    """Tell whose penalty (K,) is on columns that are standardised: the default one, unless `standardize` is off."""
    return np.isnan(values(members, "alpha")) & members[0].estimator.standardize


def as_numbers(given: Iterable) -> np.ndarray:
    """Make an array of values of a hyper-parameter: float64, NaN for "auto"."""
    # by type first: NumPy's numbers take long to tell that they are no string
    return np.array([np.nan if isinstance(value, str) else value for value in given], dtype=np.float64)


def weights_by_model(weight: np.ndarray | None, n_models: int) -> list[np.ndarray | None]:
    """List the weights (n,) of each model's rows; one object where all share them."""
    return [weight] * n_models if weight is None or weight.ndim == 1 else list(weight)


def trained_on(folds: Folds, n_models: int) -> dict[int, tuple[np.ndarray, list[np.ndarray | None]]]:
    """Find what to train on without each fold: the rows, and the weights (n,) of all rows for each of some models."""
    alike = (folds.share == folds.share[:, :1]).all()
    shared = folds.training_weight(folds.numbers[0]) if alike else None  # one object
    weights = [shared if alike else folds.training_weight(f) for f in folds.numbers]
    found = zip(folds.numbers, weights, strict=True)
    return {f: (folds.training(f), weights_by_model(weight, n_models)) for f, weight in found}


@dataclass
class Stack:
    """Models that are trained together."""

    recipe: Recipe
    problem: Problem
    network: Any  # of one model for each member; consumed
    members: list[Member]  # their `progress` receives the result, their `state` what training can go on with
    penalty: ElasticNet  # of each member
    epochs: int  # at most; beyond the end of a schedule, it begins anew
    monitor: Monitor | None = None  # see `skdeep.engine.training.train`
    observer: Observer | None = None

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks at epochs."""
        return self.monitor is not None or self.observer is not None


@dataclass
class FoldModels:
    """Rows in folds, and models that are each trained without one."""

    folds: Folds
    n_folds: np.ndarray  # of each model, the first of those
    rest: dict[int, tuple[np.ndarray, list[np.ndarray | None]]]  # see `trained_on`
    models: list[Member] = field(default_factory=list)  # that train beside a model of all rows, if any do
    network: Network | None = None  # of the model of all rows, and those beside it


def common(items: list) -> Any:
    """Return the one object that all items are, else the list of them."""
    return items[0] if all(item is items[0] for item in items) else items


def mean_weights(members: Sequence[Member]) -> np.ndarray:
    """Compute the mean weight of each model's rows."""
    first, number = numbered(*rows_and_weights(members))
    return np.array([members[m].mean_weight for m in first])[number]


def penalty_of(recipe: Recipe, problem: Problem, members: list[Member]) -> ElasticNet:
    """Make the penalty of each model of a stack, by the weight of all rows that it has seen, also in earlier calls."""
    mean, n_rows = mean_weights(members), np.array([member.n_rows(problem) for member in members])
    total = mean * n_rows + [member.state.seen for member in members]
    return recipe.penalty(members, total, mean * np.minimum(recipe.batch_rows, n_rows))


def starting_scores(problem: Problem, members: Sequence[Member], loss: Loss, n_outputs: int) -> np.ndarray:
    """Compute the scores (K, C) with which models begin, by the mean targets of their rows."""
    first, number = numbered(*rows_and_weights(members))
    each = [members[m] for m in first]
    found = [loss.starting_scores(own.mean_target(problem, n_outputs), 1 / own.n_rows(problem)) for own in each]
    return np.array(found)[number]


def column_statistics(problem: Problem, members: Sequence[Member]) -> list[Columns]:
    """Measure the columns of each model's rows, with what its state has measured before, and keep it there."""
    # as they come where that is as exact: those who solve for all rows at once ask for no others
    plain = isinstance(problem.source, np.ndarray | sparse.csr_array) and problem.shard is None
    plain = plain and problem.device.type == "cpu" and problem.dtype is torch.float64
    rows = problem.source if plain else problem.rows()
    columns = Columns.of_models(rows, *rows_and_weights(members), members[0].state.columns)
    for member, own in zip(members, columns, strict=True):
        member.state.columns = own
    return columns
