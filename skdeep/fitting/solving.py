"""The solvers: how a stack of models is trained by its recipe. No estimator is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skdeep.data.inputs import power_of_two
from skdeep.data.problem import Problem, chunk_rows
from skdeep.data.state import RandomSource
from skdeep.engine.batching import Batches
from skdeep.engine.networks import Network
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import OPTIMIZERS, Optimizer
from skdeep.engine.per_model import groups, to_device, to_numpy64
from skdeep.engine.rows import DenseRows, as_tensor
from skdeep.engine.training import Plan, train
from skdeep.exact.descent import Solution
from skdeep.fitting.at_once import EXACT, begin, book
from skdeep.fitting.courses import clean_loss, following
from skdeep.fitting.exactly import has_exact_solver, solve_by_products, solve_exactly, solve_watched
from skdeep.fitting.recipe import Member, Recipe, Stack, common, in_standardised_units, mean_weights, rows_and_weights
from skdeep.solvers.closed_form import Ridge
from skdeep.solvers.full_batch import minimise


def solve(stack: Stack) -> None:
    """Train the models of a stack."""
    if stack.problem.shard is not None and stack.network.couples_rows:
        raise ValueError(
            "Batch normalisation takes the averages of whole batches, and inside shards() each process has a part of "
            "them. Use normalization='layer' (in a module: LayerNorm, GroupNorm or SyncBatchNorm)."
        )
    recipe = stack.recipe
    (_in_closed_form if recipe.closed_form else _SOLVERS.get(recipe.solver, _by_steps))(stack)


def _batches(
    problem: Problem, members: list[Member], generators: list, size: int, shuffle: bool = False, draws: bool = False
) -> tuple[Batches, np.ndarray]:
    """Make the batches, and the mean weight of each model's rows, in one unit."""
    rows, weight = map(common, rows_and_weights(members))
    weight = np.stack(weight) if isinstance(weight, list) else weight
    unit = 1.0 if weight is None else power_of_two(weight)
    data = problem.rows(), problem.tensor(problem.target), None if weight is None else problem.tensor(weight / unit)
    return Batches(*data, rows, generators, size, shuffle, draws), mean_weights(members) / unit


def _by_full_batches(stack: Stack) -> None:
    """Train by steps over all rows: of linear models in NumPy, where these are in memory and double precision."""
    recipe, problem, network, members = stack.recipe, stack.problem, stack.network, stack.members
    if has_exact_solver(recipe, problem, network):
        if not stack.is_watched:
            solve_exactly(stack)
            return
        if solve_watched(stack):
            return
    alike = not isinstance(common(rows_and_weights(members)[0]), list)
    chunk = max(1, chunk_rows(network, problem.rows()) // (1 if alike else len(members)))
    # nothing is drawn: one generator for all, so that models of the same rows share their passes
    batches, mean_weight = _batches(problem, members, [members[0].state.generator] * len(members), chunk)
    objective = Objective(network, recipe.loss, stack.penalty, batches, mean_weight)
    progress, limits = [member.progress for member in members], (stack.epochs, recipe.settings.max_fun)
    minimise(objective, *limits, progress, stack.monitor, stack.observer)


def _by_steps(stack: Stack) -> None:
    """Train by mini-batch steps of an optimizer."""
    recipe, problem, network, members = stack.recipe, stack.problem, stack.network, stack.members
    states, progress = [member.state for member in members], [member.progress for member in members]
    n_rows = np.array([member.n_rows(problem) for member in members])
    rates = recipe.rates(recipe, problem, network, members)
    optimizer = _optimizer(recipe, network, members, rates)
    size = int(np.minimum(recipe.batch_rows, n_rows).max())
    generators = [state.generator for state in states]
    batches, mean_weight = _batches(problem, members, generators, size, recipe.settings.shuffle, network.draws)
    for p, member in zip(progress, members, strict=True):
        if recipe.to_end and not p.watch_score:  # it gains most at its end: to stand still before means nothing
            p.n_iter_no_change = np.inf
        if recipe.averages:  # what averages gain while the loss of steps stands still, they gain soon
            p.n_iter_no_change /= 1 if p.watch_score else 2
            p.due_iter, p.due_loss = recipe.due, clean_loss(recipe.loss, problem, member)
    penalty = stack.penalty
    if recipe.follows and recipe.solver == "adam":  # where a loss that stays high is noise, not a way that is long
        penalty = following(penalty, recipe.loss, problem, members, recipe.n_bins)
    objective = Objective(network, recipe.loss, penalty, batches, mean_weight)
    plan = _plan(recipe, stack.epochs, states[0].epochs)
    train(objective, optimizer, plan, progress, stack.monitor, stack.observer)
    for state, p, rate, total in zip(states, progress, rates, mean_weights(members) * n_rows, strict=True):
        if stack.epochs == recipe.horizon < min(recipe.max_iter, p.max_iter):
            p.stopped = p.stopped or f"The schedule came to its end after {stack.epochs} epochs."
        # the losses of parts differ by their rows: "adaptive" ends no sooner than a stream wants it (Robbins & Monro)
        state.reduction = max(p.optimizer_state["learning_rate"] / rate, (p.samples + 1.0) ** -0.5)
        state.loss_to_beat = p.loss_to_beat
        state.epochs += p.n_iter
        state.seen += total
        assert p.generator is not None
        state.source = RandomSource(p.generator)


def _optimizer(recipe: Recipe, network: Network, members: list[Member], rates: np.ndarray) -> Optimizer:
    """Make the optimizer of a stack, which goes on where an earlier one of the first model has stopped."""
    first = members[0].state
    optimizer = OPTIMIZERS[recipe.solver](
        network.params,
        rates * [member.state.reduction for member in members],
        **recipe.settings.options([member.settings for member in members]),
    )
    if first.optimizer is not None and first.solver == recipe.solver and optimizer.fits(first.optimizer):
        optimizer.load(first.optimizer)
    return optimizer


def _plan(recipe: Recipe, epochs: int, first_epoch: int) -> Plan:
    settings: Any = recipe.settings
    return Plan(
        max_iter=epochs,
        horizon=recipe.horizon,
        first_epoch=first_epoch,
        schedule=recipe.schedule,
        power_t=settings.power_t,
        warmup_epochs=settings.warmup_epochs,
        max_grad_norm=settings.max_grad_norm,
        proximal=recipe.proximal,
        products=recipe.products,
        averages=recipe.averages,
    )


def _in_closed_form(stack: Stack) -> None:
    begin(stack)
    found = solve_by_products(stack)
    if found is None:
        curves = [[value] for value in _ridge(stack).tolist()]
        params = [param.clone() for param in stack.network.params]
        found = Solution(to_numpy64(params[0]), np.empty(0), curves, []), params
    solution, params = found
    n_models = len(stack.members)
    solution.bound, solution.stopped = np.full(n_models, np.nan), [EXACT] * n_models
    for member in stack.members:
        member.progress.samples += stack.problem.n_rows
    book(stack, solution, params)


def _ridge(stack: Stack) -> np.ndarray:
    """Put the network at the solutions; return the objective of each model."""
    problem, network, members, alphas = stack.problem, stack.network, stack.members, stack.penalty.curvature()
    coef, intercept = (torch.empty_like(t, dtype=torch.float64) for t in network.unscaled())
    objective = np.empty(len(alphas))
    target = to_device(as_tensor(problem.target), problem.device)
    rows = problem.rows().exactly(torch.float64, network.frame)  # no digit is to be lost to the network's dtype
    auto = in_standardised_units(members)
    unit = None if network.columns.unit is None else network.columns.unit.astype(np.float64, copy=False)
    # in the frame's columns, all of which have one factor
    factor = 1.0 if network.frame is None else network.frame.factor[0]
    alphas = np.where(auto, alphas, alphas * factor * factor)
    for models in groups(*rows_and_weights(members), auto.tolist()):
        first = members[models[0]]
        # means of columns so far from zero that they have a frame are exact to more digits when taken in it
        known = isinstance(rows.local, DenseRows) and rows.frame is None
        center = first.state.columns.mean if known else None
        own = None
        # others have units of one, or what a scaler has made of their columns
        if unit is not None and (auto[models[0]] or network.frame is None):
            own = unit[models[0] if len(unit) > 1 else 0]
        ridge = Ridge(rows, first.rows, target, first.weight, len(network.params) > 1, center, own)
        index = torch.as_tensor(models, device=coef.device)
        found, constant, objective[models] = ridge.solve(alphas[models])
        coef[index], intercept[index] = found.to(coef), constant.to(coef)
    network.set_unscaled(coef, intercept)
    return objective


_SOLVERS: dict[str, Callable[[Stack], None]] = {"lbfgs": _by_full_batches, "exact": solve_exactly}
