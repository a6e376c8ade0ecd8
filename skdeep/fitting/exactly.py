"""Exact fits of linear models on the CPU: from a stack of members to the solvers of `skdeep.exact`, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from skdeep.data.problem import Problem
from skdeep.engine import losses
from skdeep.engine.losses import LabelSmoothing, Loss
from skdeep.engine.networks import Linear, Network
from skdeep.engine.per_model import numbered
from skdeep.exact.descent import Solution, Stack, descend
from skdeep.exact.lbfgs import LBFGS
from skdeep.exact.losses import (
    LogisticLoss,
    OfColumns,
    RowLoss,
    SoftmaxLoss,
    SquaredHinges,
    SquaredLoss,
    SquaredWestonWatkins,
)
from skdeep.exact.newton import Newton
from skdeep.exact.rows import Rows, SparseRows
from skdeep.fitting.recipe import Member, Recipe, mean_weights, total_weights

#: Values of rows up to which these are kept in float64 while a solver runs.
_MAX_VALUES = 2**25
#: Unknowns of the largest system that is solved for a direction.
_MAX_SYSTEM = 1024


@dataclass
class Variables:
    """The columns in which all models of a stack are trained.

    Attributes
    ----------
    center, scale : ndarray of shape (d,)
    own_center, own_scale : ndarray of shape (K or 1, d)
        Of the columns that each model's network has.
    intercept : bool
    """

    center: np.ndarray
    scale: np.ndarray
    own_center: np.ndarray
    own_scale: np.ndarray
    intercept: bool

    @classmethod
    def of(cls, network: Linear) -> Variables:
        """Take the first model's for all."""
        n_features = network.params[0].shape[2]
        center, scale = (
            np.full((1, n_features), default) if values is None else values[:, 0].double().numpy()
            for values, default in ((network.center, 0.0), (network.scale, 1.0))
        )
        return cls(center[0], scale[0], center, scale, len(network.params) > 1)

    def forth(self, network: Linear) -> np.ndarray:
        """Compute parameters (K, C, D) in these columns."""
        coef, *intercept = (p.detach().double().numpy() for p in network.params)
        coef = coef * (self.own_scale / self.scale)[:, None]
        if not self.intercept:
            return np.ascontiguousarray(coef)
        level = intercept[0] - (coef @ (self.scale * (self.own_center - self.center))[:, :, None])[:, :, 0]
        return np.concatenate([coef, level[:, :, None]], axis=2)

    def back(self, params: np.ndarray, network: Linear) -> None:
        """Put the network at parameters (K, C, D) in these columns."""
        coef = params[:, :, : len(self.scale)]
        if self.intercept:
            shift = (coef @ (self.scale * (self.own_center - self.center))[:, :, None])[:, :, 0]
            network.params[1].copy_(torch.from_numpy(params[:, :, -1] + shift))
        network.params[0].copy_(torch.from_numpy(coef * (self.scale / self.own_scale)[:, None]))


def has_exact_solver(recipe: Recipe, problem: Problem, network: Network) -> bool:
    """Tell whether a stack can be trained here: linear models of smooth objectives, on the CPU, in float64."""
    if not isinstance(network, Linear) or recipe.device.type != "cpu" or recipe.dtype is not torch.float64:
        return False
    size = problem.rows().row_values * len(problem.codes)
    return size <= _MAX_VALUES and row_loss(recipe.loss, problem.target[:1], recipe.n_outputs) is not None


def row_loss(loss: Loss, target: np.ndarray, n_outputs: int) -> RowLoss | None:
    """Make the loss of rows with these targets; None for one that is not known here."""
    amount, base = (loss.amount, loss.loss) if type(loss) is LabelSmoothing else (0.0, loss)
    codes = target.astype(np.intp) if base.target == "codes" else None
    indicators = np.ascontiguousarray(target.reshape(len(target), -1).T, dtype=np.float64)
    if type(base) is losses.Softmax:
        assert codes is not None
        return SoftmaxLoss(codes, n_outputs, amount)
    if type(base) is losses.Logistic:
        return LogisticLoss(indicators, amount)
    if type(base) is losses.SquaredError:
        return SquaredLoss(indicators)
    if type(base) is losses.BinaryHinge and base.squared:
        return SquaredHinges(indicators)
    if type(base) is losses.WestonWatkinsHinge and base.squared:
        assert codes is not None
        return SquaredWestonWatkins(codes, n_outputs)
    return None


def solve_exactly(recipe: Recipe, problem: Problem, network: Linear, members: list[Member], epochs: int) -> None:
    """Train a stack; see `skdeep.fitting.solving.solve`."""
    index, weight = _weights(problem, members)
    variables = Variables.of(network)
    rows = _rows(problem, network, index, variables)
    target = problem.target if index is None else problem.target[index]
    loss = row_loss(recipe.loss, target, recipe.n_outputs)
    assert loss is not None
    totals, mean = total_weights(problem, members), mean_weights(members)
    penalty = recipe.penalty(members, totals, mean * len(problem.codes))
    unit = 1.0 if network.unit is None else network.unit[:, 0].double().numpy()
    rho = np.zeros((len(members), rows.shape[1]))
    rho[:, : len(variables.scale)] = penalty.curvature()[:, None] * np.square(variables.scale * unit)
    limits = np.array([min(epochs, member.progress.max_iter) for member in members])
    tol, start = np.array([member.progress.tol for member in members]), variables.forth(network)
    n_scores = loss.n_scores
    if isinstance(loss, OfColumns) and n_scores > 1:
        loss, start = loss.apart(len(members)), start.reshape(-1, 1, start.shape[2])
        weight = weight if len(weight) == 1 else np.repeat(weight, n_scores, axis=0)
        rho, tol = np.repeat(rho, n_scores, axis=0), np.repeat(tol, n_scores)
    directions: Any = LBFGS(np.arange(len(start)))
    if _takes_newton(recipe, loss, rows.shape[1]):
        directions = Newton(rows.shape[1], alike=network.scale is not None)
    with np.errstate(over="ignore", invalid="ignore"):
        solution = descend(Stack(rows, loss, weight, rho, start), directions, tol, int(limits.max()))
    if len(solution.params) > len(members):
        solution = solution.together(n_scores)
    _book(solution, variables, network, members, problem)


def _takes_newton(recipe: Recipe, loss: RowLoss, n_columns: int) -> bool:
    """Tell whether directions are Newton's: where these are cheap, or wanted, or all that knows of the curvature."""
    size = n_columns * (1 if loss.separable else loss.n_scores)
    return size <= _MAX_SYSTEM and (loss.piecewise or recipe.newton_params is None)


def _weights(problem: Problem, members: list[Member]) -> tuple[np.ndarray | None, np.ndarray]:
    """Find the rows that any member is trained on, and their weights (K or 1, m), which add up to one."""
    first, number = numbered([m.weight for m in members], [m.rows for m in members])
    n, own = len(problem.codes), [members[m] for m in first]
    if len(own) == 1:
        index, weight = own[0].rows, own[0].weight
        m = n if index is None else len(index)
        table = np.ones((1, m)) if weight is None else weight[None] if index is None else weight[index][None]
    else:
        index, table = None, np.zeros((len(own), n))
        for row, member in zip(table, own, strict=True):
            part = slice(None) if member.rows is None else member.rows
            row[part] = 1.0 if member.weight is None else member.weight[part]
        table = table[number]
    return index, table / table.sum(1, keepdims=True)


def _rows(problem: Problem, network: Linear, index: np.ndarray | None, variables: Variables) -> Rows:
    """Make the rows in the columns of a stack."""
    scale, source = variables.scale, problem.source
    if problem.index is not None:
        index = problem.index if index is None else problem.index[index]
    if sparse.issparse(source):
        X = sparse.csr_array(source if index is None else source[index], dtype=np.float64)
        factor = scale if network.frame is None else scale * network.frame.factor
        X = sparse.csr_array((X.data * factor[X.indices], X.indices, X.indptr), shape=X.shape)
        return SparseRows(X, variables.intercept)
    of_columns = problem.rows().exactly(torch.float64, network.frame)
    part = slice(0, len(of_columns)) if index is None else torch.from_numpy(index)
    X = of_columns.take(part).numpy()
    Z = np.ones((len(X), X.shape[1] + variables.intercept))
    within = Z[:, : X.shape[1]]
    np.subtract(X, variables.center, out=within)
    within *= scale
    return Rows(Z)


def _book(solution: Solution, variables: Variables, network: Linear, members: list[Member], problem: Problem) -> None:
    """Hand what was found to the network, and to the `Progress` of its models."""
    variables.back(solution.params, network)
    finite = np.isfinite(solution.params).all((1, 2))
    for m, member in enumerate(members):
        p = member.progress
        for value in solution.curve[m]:
            if not np.isfinite(value):
                break
            p.record(value, None, None)
        if not (finite[m] and np.isfinite(solution.curve[m][-1])):
            p.error = f"the training loss became {solution.curve[m][-1]} in iteration {p.n_iter + 1}"
        p.stopped = solution.stopped[m]
        p.params = network.copy_of(m)
