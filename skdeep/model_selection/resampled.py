"""A linear classifier with many weights of the same rows: near the model of all rows, or as a stack like any other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from skdeep.data.columns import Columns, sizes_of
from skdeep.data.encoding import class_weight_of_rows, encode
from skdeep.data.inputs import Data
from skdeep.data.problem import Problem
from skdeep.data.scaling import UnitsOfWeights, units_of_sparse
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.losses import SquaredError
from skdeep.engine.networks import Linear
from skdeep.engine.penalties import L1, L2, ElasticNet, NoPenalty
from skdeep.engine.per_model import to_numpy64
from skdeep.engine.rows import MAX_VALUES, DenseRows
from skdeep.estimators.linear import LinearClassifier
from skdeep.exact.losses import RowLoss
from skdeep.exact.reweighted import refit
from skdeep.exact.reweighted_large import Neighbourhood, is_large
from skdeep.exact.reweighted_lasso import refit_lasso
from skdeep.exact.rows import Rows, SparseRows
from skdeep.fitting.exact_losses import row_loss
from skdeep.fitting.exactly import has_exact_solver
from skdeep.fitting.outcome import divergence
from skdeep.fitting.recipe import Member, Recipe, Stack, penalty_of
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import new_progress
from skdeep.fitting.variables import Variables, rows_of
from skdeep.model_selection.separation import lack_optimum

#: Values of all models' second derivatives of the loss that are computed at a time.
_MAX_VALUES = 4 * MAX_VALUES
#: Share of a column's mean square below which its variance may be rounding.
_CONSTANT = 1e-6

#: Coefficients (K, C, d) and intercepts (K, C) on the columns of X, in float64.
Found = tuple[np.ndarray, np.ndarray]


@dataclass
class Trainer:
    """Trains an estimator with different weights of the same rows, all as stacks in one frame."""

    model: LinearClassifier
    problem: Problem
    recipe: Recipe
    n_models: int = 0  # trained so far
    n_unfinished: int = 0  # that have not reached their optimum
    n_endless: int = 0  # that have none
    has_optimum: bool = True  # whether the first one has
    first: Linear | None = None  # the model that was trained first, where the others begin
    near: Near | None = None  # what solves for models that are near it, if anything does

    @classmethod
    def of(cls, model: LinearClassifier, X: Data, y: Data, sample_weight: ArrayLike | None) -> Trainer:
        """Look at the data, and decide how to train; raise if that would not lead to the optimum."""
        problem = encode([model], X, y, sample_weight, going_on=False, incremental=False)
        recipe: Recipe = model._recipe(problem, False, False)
        if recipe.solver not in FULL_BATCH and model.solver == "auto":
            penalty = recipe.penalty([_member(model)], np.ones(1), np.ones(1))
            model.solver = "lbfgs" if recipe.loss.smooth and penalty.smooth else "exact"
            recipe = model._recipe(problem, False, False)
        if recipe.solver not in FULL_BATCH:
            raise ValueError(
                f"solver={model.solver!r} trains by mini-batches, whose order would make coefficients vary as well. "
                "Use solver='auto', 'lbfgs' or 'exact'."
            )
        return cls(model, problem.placed(recipe.device, recipe.dtype), recipe)

    @property
    def capacity(self) -> int:
        """How many models may train at a time."""
        if self.near is not None and self.near.around is not None:  # by itself, it takes some at a time
            return max(1, MAX_VALUES // len(self.problem.codes))
        n_outputs = self.recipe.n_outputs
        values = len(self.problem.codes) * n_outputs * (n_outputs + 1) // 2  # of second derivatives, for a model
        return max(1, _MAX_VALUES // values)

    def train(self, counts: np.ndarray, only_a_step: bool = False) -> Found:
        """Train a model for each row of counts (K, n); all later ones begin with the first of all.

        Newton's first step from there may be enough, where there is one.
        """
        weights = self.weights_of(counts)
        if self.first is None:
            self.first = self._trained(weights[:1])
            self.near = None if self.n_unfinished else Near.of(self.recipe, self.problem, self.model, self.first)
            found = learned(self.first)
            if self.near is not None:  # it is solved again, to as many digits as the others, which begin there
                found, arrived = self.near.come_to_optimum(weights[0])
                self.n_endless = self.near.count_endless(found, weights, arrived)
            if self.n_endless:  # as has each part of the rows
                self.near, self.has_optimum = None, False
            return found
        if self.near is None:
            return learned(self._trained(weights))
        (coef, intercept), arrived = self.near.refit(weights, only_a_step)
        self.n_models += int(arrived.sum())
        if not arrived.all():
            rest = np.flatnonzero(~arrived)
            coef[rest], intercept[rest] = learned(self._trained(weights[rest]))
        coef *= self.near.present(weights)
        self.n_endless += self.near.count_endless((coef, intercept), weights, arrived)
        return coef, intercept

    def _trained(self, weights: np.ndarray) -> Linear:
        """Train models with these weights (K, n) as a stack like any other."""
        recipe, problem, start = self.recipe, self.problem, self.first
        members = [_member(self.model, weight) for weight in weights]
        penalty = penalty_of(recipe, problem, members)
        network = recipe.network(recipe, problem, members, penalty, False)
        assert isinstance(network, Linear)
        if start is not None and penalty.alpha[:1].any():
            coef, constant = start.unscaled()
            network.set_unscaled(coef.expand(len(members), -1, -1), constant.expand(len(members), -1))
        elif start is not None and self._vary_as_all(network, members):
            # without a penalty, a stack has one set of columns; models of several are solved one after the other
            network = _in_columns_of(start, network.params)
        solve(Stack(recipe, problem, network, members, penalty, recipe.epochs))
        for member in members:
            if member.progress.interrupted:
                raise KeyboardInterrupt
            if member.progress.error is not None:
                raise divergence(member.progress.error)
        self.n_models += len(members)
        self.n_unfinished += sum(member.progress.stopped is None for member in members)
        if self.near is None and not penalty_of(recipe, problem, members).alpha.any():
            self.n_endless += sum(map(_are_told_apart, members)) if type(recipe.loss) is not SquaredError else 0
        found = zip(*(member.progress.params or [] for member in members), strict=True)
        params = [torch.cat(tensors) for tensors in found]
        if recipe.loss.shift_invariant and len(params) > 1:  # of all shifts, a fit's: by the means of its own rows
            params[1] = params[1] - params[1].mean(1, keepdim=True)
        return network.with_params(params)

    def _vary_as_all(self, network: Linear, members: list[Member]) -> bool:
        """Tell whether the columns that vary in the rows of a model are those that vary in all rows, for each."""
        columns = [member.state.columns for member in members]
        if any(own is None for own in columns):
            return True  # the user's, as they are, for all
        everywhere = Columns.of_models(self.problem.rows(), [self.problem.subset], [None])
        _, constant = sizes_of([*everywhere, *columns], network.columns.center is not None)
        return bool((constant[1:] == constant[0]).all())

    def weights_of(self, counts: np.ndarray) -> np.ndarray:
        """Compute the weights of the rows in training, (K, n)."""
        problem, model = self.problem, self.model
        weights = counts if problem.sample_weight is None else counts * problem.sample_weight
        if model.class_weight is None:
            return weights
        of_classes = model.class_weight, model.classes_, model._labels_of(problem), problem.codes
        return np.stack([own * class_weight_of_rows(*of_classes, own) for own in weights])

    def warn(self) -> None:
        """Warn of models that are on their way still, or that have nowhere to arrive at."""
        if self.n_endless:
            which = f"the rows of {self.n_endless} of {self.n_models} models" if self.has_optimum else "all rows"
            warnings.warn(
                f"In {which}, columns tell some classes apart without an error, so that there is no one optimum "
                "without a penalty: coefficients are where training has ended, and intervals of them mean nothing. Use "
                "a penalty, or leave out such columns.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if self.n_unfinished:
            warnings.warn(
                f"{self.n_unfinished} of {self.n_models} models have not reached their optimum within "
                f"max_iter={self.model.max_iter} iterations, and their coefficients vary with where they have stopped. "
                "Increase max_iter.",
                ConvergenceWarning,
                stacklevel=3,
            )


def _are_told_apart(member: Member) -> bool:
    """Tell whether the loss is less than any single row on the wrong side would cost."""
    assert member.weight is not None
    least = member.weight[member.weight > 0].min() / member.weight.sum()
    return member.progress.loss_curve[-1] < np.log(2) * least


def _member(model: LinearClassifier, weight: np.ndarray | None = None) -> Member:
    member = Member(model, TrainingState(RandomSource(0)), weight=weight)  # nothing is drawn
    member.progress = new_progress(member, False, False)
    return member


def _in_columns_of(network: Linear, params: list[torch.Tensor]) -> Linear:
    """Make a network of parameters in the columns of another."""
    coef, *intercept = params
    center, scale, unit = network.columns
    return Linear(coef, intercept[0] if intercept else None, center, scale, unit, network.frame)


def learned(network: Linear) -> Found:
    """Compute coefficients and intercepts of the models of a network."""
    coef, intercept = map(to_numpy64, network.unscaled())
    frame = network.frame
    return (coef, intercept) if frame is None else (coef * frame.factor, intercept - coef @ frame.origin)


@dataclass
class Near:
    """Solves for other weights of the rows, in the columns of a model that is at its optimum."""

    recipe: Recipe
    problem: Problem
    member: Member  # what the penalty asks for its hyper-parameters
    first: Linear
    variables: Variables  # its columns
    loss: RowLoss
    start: np.ndarray  # where models begin, (C, D)
    smooth: bool  # whether the penalty is smooth as well
    first_of: np.ndarray  # a column of each kind (m,), which has an unknown
    kind: np.ndarray  # the kind of each column (d,)
    #: What the optimum's surroundings are like, if models have too many unknowns for Hessians of their own.
    around: Neighbourhood | None = None

    @classmethod
    def of(cls, recipe: Recipe, problem: Problem, model: LinearClassifier, first: Linear) -> Near | None:
        """Look whether losses are smooth, with a penalty that has a way here; return None if they are not."""
        member = _member(model)
        known = has_exact_solver(recipe, problem, first) and first.frame is None
        penalty = recipe.penalty([member], np.ones(1), np.ones(1))
        if not known or type(penalty) not in (L1, L2, ElasticNet, NoPenalty):
            return None
        loss = row_loss(recipe.loss, problem.target, recipe.n_outputs)
        if loss.piecewise:
            return None
        variables = Variables.of(first)
        start, each = variables.forth(first)[0], np.arange(len(variables.scale))
        return cls(recipe, problem, member, first, variables, loss, start, penalty.smooth, each, each)

    def refit(self, weights: np.ndarray, only_a_step: bool = False) -> tuple[Found, np.ndarray]:
        """Solve for weights (K, n); tell as well which models (K,) have come to their optimum."""
        params, arrived = self.solved(weights, only_a_step)
        return self.coefficients(params), arrived

    def solved(self, weights: np.ndarray, only_a_step: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Compute the parameters (K, C, D) in the columns of the first model; tell which have come to their optimum."""
        shares, rho, kappa = self.objectives(weights)
        if not self.smooth:  # for which a step is not defined
            params, arrived = refit_lasso(self.rows, self.loss, shares, rho, kappa, self.start)
            if self.loss.shift_invariant and self.variables.intercept:  # of all shifts, a fit's; see `Trainer._trained`
                mean = self.rows.back(shares) if self.first.columns.center is not None else np.eye(params.shape[2])[-1:]
                params[:, :, -1] -= np.einsum("kcd,kd->kc", params, mean).mean(1, keepdims=True)
            return params, arrived
        if self.around is not None:
            return self.around.refit(shares, rho, finer=only_a_step)
        return refit(self.rows, self.loss, shares, rho, self.start, only_a_step)

    def come_to_optimum(self, weight: np.ndarray) -> tuple[Found, np.ndarray]:
        """Let models begin at the optimum for a weight (n,), if it is found; return where they do, and whether."""
        if self.smooth and is_large(self.rows, self.loss, self._is_penalised):
            if isinstance(self.rows, SparseRows) and self.problem.shard is None:
                self._join(self.rows)
            (share,), (rho,), _ = self.objectives(weight[None])
            tol = self.member.progress.tol * self.recipe.loss.slope
            self.around = Neighbourhood(self.rows, self.loss, share, rho, self.start, tol)
        params, arrived = self.solved(weight[None])
        if arrived[0]:
            self.start = params[0]
        return self.coefficients(self.start[None]), arrived

    def present(self, weights: np.ndarray) -> np.ndarray | bool:
        """Tell which sparse columns have a row of a weight (K, n); without any, a penalty may be next to nothing."""
        if not isinstance(self.rows, SparseRows):
            return True
        X, counts = self.rows.X, (weights > 0).T.astype(np.float32)
        ones = sparse.csr_array(((X.data != 0).astype(np.float32), X.indices, X.indptr), shape=X.shape)
        return (ones.T @ counts).T[:, None, self.kind] > 0

    def _join(self, rows: SparseRows) -> None:
        """Let columns that are equal, such as words of the same row, have one unknown, which is what each has."""
        self.first_of, self.kind = rows.distinct()
        self.rows = SparseRows((rows.X[:, self.first_of] * np.bincount(self.kind)).tocsr(), rows.intercept)
        self.start = self._with_intercept(self.start, self.first_of)

    def _with_intercept(self, params: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Take some columns of parameters (..., D), and the intercept."""
        return params.take(np.append(columns, [-1] * self.variables.intercept).astype(np.intp), -1, mode="wrap")

    def count_endless(self, found: Found, weights: np.ndarray, arrived: np.ndarray) -> int:
        """Count the models of weights (K, n) that have no optimum, of those that may not have arrived at one."""
        unsure = np.flatnonzero(~arrived | (self.around is not None))
        if not len(unsure) or self._is_penalised:
            return 0
        shares = weights[unsure] / weights[unsure].sum(1, keepdims=True)
        (coef, intercept), variables = (values[unsure] for values in found), self.variables
        params = [(coef / variables.scale)[:, :, self.first_of]]
        if variables.intercept:
            params.append((intercept + coef @ variables.center)[:, :, None])
        return int(lack_optimum(self.rows, self.loss, shares, np.concatenate(params, axis=2)).sum())

    @cached_property
    def _is_penalised(self) -> bool:
        return bool(self.recipe.penalty([self.member], np.ones(1), np.ones(1)).alpha.any())

    def objectives(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute what objectives differ in: shares (K, n) of the rows, and penalties (K, D), squares and L1 norms."""
        total = weights.sum(1)
        shares = weights / total[:, None]
        units = self._units(weights, shares)
        # least squares in closed form have a penalty that knows of no weights
        mass = np.ones_like(total) if self.recipe.closed_form else total
        penalty = self.recipe.penalty([self.member] * len(total), mass, mass)
        rho, count, scale = np.zeros((len(total), self.rows.shape[1])), np.bincount(self.kind), self.variables.scale
        of_columns = rho[:, : len(count)]
        np.multiply(units, units, out=of_columns)
        of_columns *= np.square(scale[self.first_of]) * count
        of_columns *= penalty.curvature()[:, None]
        kappa = np.zeros_like(rho) if not self.smooth else rho
        if not self.smooth:
            kappa[:, : len(count)] = (penalty.alpha * penalty.l1_ratio)[:, None] * (units * scale)
        return shares, rho, kappa

    def coefficients(self, params: np.ndarray) -> Found:
        """Compute coefficients and intercepts of parameters (K, C, D)."""
        of_columns = self.variables.back(self._with_intercept(params, self.kind))
        tensors = [torch.from_numpy(part) for part in of_columns]
        return learned(_in_columns_of(self.first, tensors))

    @cached_property
    def rows(self) -> Rows:
        """The rows in the columns of the first model."""
        return rows_of(self.problem, self.first, None, self.variables)

    @cached_property
    def _from_medians(self) -> tuple[np.ndarray, np.ndarray]:
        """Medians (d,) of columns, or zero where these are not centred; and the differences from them (n, d)."""
        columns = self.rows.take(np.arange(self.rows.shape[0]))[:, : len(self.variables.scale)]
        median = np.median(columns, 0) if self.first.columns.center is not None else np.zeros(columns.shape[1])
        return median, columns - median

    def _units(self, weights: np.ndarray, shares: np.ndarray) -> np.ndarray | float:
        """Find the units of the penalty in each model's columns: their sizes, if it is one of standardised columns."""
        source, indicators = self.problem.source, self.problem.indicators
        if sparse.issparse(source):
            estimator = self.member.estimator
            are_as_they_are = not (isinstance(estimator.alpha, str) and estimator.standardize)
            if are_as_they_are:
                return 1.0
            return self._units_of_sparse(weights)
        if self.first.columns.unit is None:
            return 1.0
        median, moved = self._from_medians
        scale, center = self.variables.scale, self.variables.center
        square, mean = shares @ np.square(moved), shares @ moved if self.first.columns.center is not None else 0.0
        variance = square - np.square(mean)
        # rows that all have the median are told apart from others without rounding
        constant = np.maximum(np.abs(center + median / scale), 1.0)
        sizes = np.where(square > 0, np.sqrt(np.maximum(variance, 0)) / scale, constant)
        unsure = ((square > 0) & (variance <= _CONSTANT * square)).any(0)
        if unsure.any():
            sizes[:, unsure] = self._measured(weights, unsure)
        sizes[:, indicators] = 1.0
        return sizes

    @cached_property
    def _units_of_sparse(self) -> Callable[[np.ndarray], np.ndarray]:
        """Make the function of weights (K, n) that computes the units of sparse columns (K, d)."""
        power, centered = self.member.estimator._length_power, len(self.first.params) > 1
        levels = np.arange(len(self.kind))[self.problem.indicators]
        if self.problem.shard is None and not len(levels):
            X = sparse.csr_array(self.problem.source)
            return UnitsOfWeights(X[:, self.first_of], centered, power, np.bincount(self.kind))

        def units(weights: np.ndarray) -> np.ndarray:
            columns = Columns.of_models(self.problem.rows(), [None] * len(weights), list(weights))
            sizes = units_of_sparse(columns, centered, np.full(len(weights), power), len(levels) > 0)
            sizes[:, levels] = 1.0
            return sizes[:, self.first_of]

        return units

    def _measured(self, weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Measure some columns (d,) as a fit does, for each model (K, m)."""
        rows = self.problem.rows()
        if isinstance(rows, DenseRows):
            rows = DenseRows(rows.X[:, torch.from_numpy(columns)], rows.device, rows.dtype)
            columns = np.ones(rows.n_features, dtype=bool)
        sizes, _ = sizes_of(
            Columns.of_models(rows, [None] * len(weights), list(weights)), self.first.columns.center is not None
        )
        return sizes[:, columns]
