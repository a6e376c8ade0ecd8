"""Exact fits of linear models on the CPU: from a stack of members to the solvers of `skdeep.exact`, and back.

Which solver it is follows from the objective: smooth ones descend until the gradient is within ``tol`` ("lbfgs");
hinges, and penalties with an L1 norm, are solved to a relative duality gap of ``tol / 100`` ("exact").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from skdeep.data.problem import Problem
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Linear, Network
from skdeep.engine.per_model import groups
from skdeep.engine.progress import BY_CALLBACK, Halt
from skdeep.engine.training import judge_start
from skdeep.exact import (
    descent,
    elastic_net,
    finite_newton,
    hinge_norms,
    huber,
    kinked_sparse,
    moments,
    newton_cg,
    newton_rivals,
    normal,
    piecewise,
    wide,
)
from skdeep.exact.descent import Solution
from skdeep.exact.lbfgs import LBFGS, near
from skdeep.exact.losses import OfColumns, RowLoss, SquaredHinges, SquaredLoss
from skdeep.exact.newton import Newton
from skdeep.exact.newton_cg import WEAK, NewtonCG
from skdeep.exact.newton_rivals import NewtonOfRivals
from skdeep.exact.path import eased, follow, in_batches
from skdeep.exact.row_space import has_free_column
from skdeep.exact.rows import Rows, SparseRows
from skdeep.exact.value_losses import HuberLoss
from skdeep.fitting.at_once import begin, book
from skdeep.fitting.coordinates import Arrays, solve_by_rows
from skdeep.fitting.exact_losses import hinges, is_known, kinked, n_unknowns, row_loss
from skdeep.fitting.recipe import Member, Recipe, Stack, rows_and_weights
from skdeep.fitting.variables import Centring, Variables, rows_of, weights_of

#: Values of rows up to which these are kept in float64 while a solver runs.
_MAX_VALUES = 2**25
#: Unknowns of the largest system that is solved for a direction.
MAX_SYSTEM = 1024
#: Most unknowns of losses with kinks, where they are one system.
_MAX_SYSTEM_OF_KINKS = 4096
#: Iterations, or evaluations, that are enough to come to an optimum from anywhere: with fewer, a model may end before.
_ENOUGH = 50
#: Gradients of least squares in closed form, in the unit of `small_enough`.
_ROUNDING = 1e-9
#: How much farther one of two is, where rounding may decide.
_TIE = 1e-6
#: The relative duality gap that a tolerance of one asks for.
GAP = 0.01


def has_exact_solver(recipe: Recipe, problem: Problem, network: Network) -> bool:
    """Tell whether a stack of smooth objectives can be trained here: linear models on the CPU, in float64."""
    return isinstance(network, Linear) and solves(recipe, problem)


def solves(recipe: Recipe, problem: Problem) -> bool:
    """Tell whether linear models with a smooth objective are trained here."""
    if recipe.device.type != "cpu" or recipe.dtype is not torch.float64:
        return False
    return fits_memory(problem) and is_known(recipe.loss)


def fits_memory(problem: Problem) -> bool:
    """Tell whether the rows may be kept in float64."""
    return not problem.is_stored and problem.source.shape[1] * problem.density * len(problem.codes) <= _MAX_VALUES


def solve_exactly(stack: Stack) -> None:
    """Train a stack of linear models. For who watches, it is one epoch."""
    begin(stack)
    parts = _parts(stack)
    for part in parts:
        own = stack
        if len(parts) > 1:
            models, members = np.array(part), [stack.members[m] for m in part]
            of_models = stack.network.select(models), members, stack.penalty.select(models)
            own = Stack(stack.recipe, stack.problem, *of_models, stack.epochs)
        found = _found(own)
        assert found is not None
        book(own, *found)


def solve_by_products(stack: Stack) -> tuple[Solution, list[torch.Tensor]] | None:
    """Solve least squares with squared norms by products of columns or rows; None where these tell too little."""
    recipe, problem, network = stack.recipe, stack.problem, stack.network
    here = problem.shard is None and network.frame is None and has_exact_solver(recipe, problem, network)
    return _found(stack) if here and len(_parts(stack)) == 1 else None


def _parts(stack: Stack) -> list[list[int]]:
    """Find which models are to be apart, since what their columns are like differs."""
    parts = groups(*rows_and_weights(stack.members))
    if len(parts) == 1:
        return parts
    variables = Variables.of(stack.network)
    same = len(variables.own_scale) == len(variables.own_center) == 1
    # without a penalty, which of many optima it is depends on the columns
    together = variables.suit(parts) and (same or (stack.penalty.alpha > 0).all())
    return [list(range(len(stack.members)))] if together else parts


def _found(stack: Stack) -> tuple[Solution, list[torch.Tensor]] | None:
    """Find the optima of models, and the parameters of their network; None where a closed form tells too little."""
    recipe, network, members = stack.recipe, stack.network, stack.members
    max_iter = _most_iterations(stack)
    arrays, variables, back = _posed(stack)

    def some(models: np.ndarray, arrays: Arrays, max_iter: int) -> Solution:
        return _solved(recipe, [members[m] for m in models], arrays, max_iter)

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if recipe.closed_form:
            unit = variables.scale if network.columns.unit is None else variables.scale * network.columns.unit
            solution = _closed_form(recipe, arrays, np.atleast_2d(unit))
        else:
            solution = solve_by_rows(some, arrays, recipe.loss, max_iter, recipe.solver == "lbfgs")
            solution = _solved(recipe, members, arrays, max_iter) if solution is None else solution
    return None if solution is None else (solution, back(solution.params))


def _most_iterations(stack: Stack) -> int:
    return int(max(min(stack.epochs, member.progress.max_iter) for member in stack.members))


def _posed(stack: Stack) -> tuple[Arrays, Variables, Callable[[np.ndarray], list[torch.Tensor]]]:
    """Put a stack in arrays; return them, their columns, and what makes a network's parameters of those found there."""
    recipe, problem, network, members = stack.recipe, stack.problem, stack.network, stack.members
    (index, weight), variables = weights_of(problem, members), Variables.of(network)
    rows = rows_of(problem, network, index, variables, recipe.loss.target == "values")
    target = problem.target if index is None else problem.target[index]
    rho, kappa = variables.strengths(stack.penalty, network.columns.unit)
    tol = np.array([member.progress.tol for member in members])
    start = np.zeros((len(members), recipe.n_outputs, rows.shape[1]))
    if members[0].progress.warm and not recipe.closed_form:
        start = variables.forth(network)
    moved = rows.centred() if isinstance(rows, SparseRows) else None
    if moved is not None:
        rows, centring = moved[0], Centring(*moved[1:])
        centring.forth_(start, rho, kappa)
    elif isinstance(rows, SparseRows):
        rows = rows.cheapest()

    def back(params: np.ndarray) -> list[torch.Tensor]:
        if moved is not None:
            centring.back_(params)
        # of all shifts that change nothing, the same in every stack: calibrations and scores by class look at them
        shifts = recipe.solver == "exact" and recipe.loss.shift_invariant
        if shifts and rho.ndim == 2:
            _settle_shifts(params, (kappa > 0) & (rho == 0))
        found = variables.back(params)
        if shifts and len(found) > 1:
            found[1] -= found[1].mean(1, keepdims=True)
        return [torch.from_numpy(part).to(network.params[0].dtype) for part in found]

    arrays = Arrays(rows, target, weight, rho, kappa, start, tol, network.columns.scale is not None)
    return arrays, variables, back


class _Watched(descent.Watch):
    """Who watches a stack of linear models."""

    def __init__(self, stack: Stack, start: np.ndarray, back: Callable[[np.ndarray], list[torch.Tensor]]):
        self.stack, self.params, self._back = stack, start.copy(), back
        self.models = np.arange(len(start))  # that are solved at a time

    def begins(self) -> None:
        if self.stack.observer is not None:
            self.stack.observer.epoch_begin(self.stack.members[0].progress.n_iter)

    def ended(self, models: np.ndarray, params: np.ndarray, value: np.ndarray) -> np.ndarray:
        network, monitor, observer = self.stack.network, self.stack.monitor, self.stack.observer
        models = self.models[models]
        self.params[models] = params
        self.put()
        watched: Iterable[tuple[Any, Any]] = [(None, None)] * len(models)
        if monitor is not None:
            own = network if len(models) == network.n_models else network.select(models)
            watched = zip(*(found.tolist() for found in monitor(own, models)), strict=True)
        end = np.ones(len(models), dtype=bool)
        for k, (m, own_value, (score, validation_loss)) in enumerate(zip(models, value.tolist(), watched, strict=True)):
            p = self.stack.members[m].progress
            if p.has_diverged(own_value, validation_loss, "iteration"):
                continue
            best = p.record(own_value, score, validation_loss)
            if p.watch_score and best:
                p.params = network.copy_of(m)
            if observer is not None and observer.epoch_end(p.n_iter - 1, p, network, best):
                p.stopped = BY_CALLBACK
            elif p.watch_score and p.stalled:
                p.stopped = "Validation score did not improve."
            end[k] = p.stopped is not None or p.n_iter >= p.max_iter
        return end

    def put(self) -> None:
        """Put the network where the models are."""
        for mine, new in zip(self.stack.network.params, self._back(self.params.copy()), strict=True):
            mine.copy_(new)


@torch.no_grad()
def solve_watched(stack: Stack) -> bool:
    """Train a stack of linear models of a smooth objective, and tell who watches of each iteration.

    Return False where nothing is done, since models have different columns or norms.
    """
    recipe, network, members = stack.recipe, stack.network, stack.members
    if len(_parts(stack)) > 1 or stack.penalty.alpha.ndim > 1 or any(member.stretch != 1 for member in members):
        return False
    arrays, _, back = _posed(stack)
    progress = [member.progress for member in members]
    judge_start(network, progress, stack.monitor)
    watch = _Watched(stack, arrays.start, back)
    if stack.observer is not None:
        stack.observer.train_begin(network, None)
    loss = row_loss(recipe.loss, arrays.target, recipe.n_outputs)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        own = replace(arrays, tol=arrays.tol * recipe.loss.slope)
        found = _descend(recipe, own, loss, _most_iterations(stack), watch)
    watch.params = found.params
    if still := [m for m, p in enumerate(progress) if p.n_iter == 0 and p.error is None]:  # they begin at rest
        if found.interrupted:
            raise KeyboardInterrupt
        watch.begins()
        watch.models = np.array(still)
        watch.ended(np.arange(len(still)), found.params[still], np.array([found.curve[m][-1] for m in still]))
    watch.put()
    if stack.observer is not None:
        stack.observer.train_end(network)
    for m, p in enumerate(progress):
        p.stopped = p.stopped or found.stopped[m] or (BY_CALLBACK if isinstance(found.interrupted, Halt) else None)
        p.interrupted = bool(found.interrupted) and p.stopped is None
        p.size = float(np.abs(found.params[m]).max())
        if not p.watch_score and stack.observer is None:  # else the model may be an earlier one, or a callback's
            p.certificate = found.bound[m] / recipe.loss.slope
        p.params = p.params if p.watch_score and p.params is not None else network.copy_of(m)
    return True


def _settle_shifts(params: np.ndarray, is_lasso: np.ndarray) -> None:
    """Shift the coefficients (K, C, D) of columns (K, D) with an L1 norm, in place, where that has several least ones.

    Of an even number of classes, the norm is the same wherever zero lies between the two in the middle: one of these is
    zero then, the one nearer to the mean, so that the sum of squares is small.
    """
    n_classes = params.shape[1]
    if n_classes % 2 or not is_lasso.any():
        return
    ordered = np.sort(params, axis=1)
    low, high = ordered[:, n_classes // 2 - 1], ordered[:, n_classes // 2]
    mean = params.mean(1)
    nearer = np.where(mean - low <= (1 + _TIE) * (high - mean), low, high)
    params -= np.where(is_lasso, nearer, 0.0)[:, None]


def _solved(recipe: Recipe, members: list[Member], arrays: Arrays, max_iter: int) -> Solution:
    """Solve a stack by iterations."""
    if recipe.solver != "lbfgs":
        return _certified(recipe, arrays, max_iter)
    loss, stretch = row_loss(recipe.loss, arrays.target, recipe.n_outputs), np.array([m.stretch for m in members])
    if isinstance(loss, HuberLoss) and (stretch != 1).any():
        return _stretched(recipe, arrays, loss, stretch, max_iter)
    solution = _descend(recipe, replace(arrays, tol=arrays.tol * recipe.loss.slope), loss, max_iter)
    solution.bound /= recipe.loss.slope
    return solution


def _closed_form(recipe: Recipe, arrays: Arrays, unit: np.ndarray) -> Solution | None:
    """Solve least squares with squared norms by products of columns or of rows; None where they tell too little.

    Norms count coefficients in a `unit` (K or 1, d).
    """
    rows, weight, rho, loss = arrays.rows, arrays.weight, arrays.rho, row_loss(recipe.loss, arrays.target, 0)
    if rho.ndim > 2:  # targets that are held differently
        return None
    assert isinstance(loss, SquaredLoss)
    if rows.shape[0] > rows.shape[1] and moments.suits(rows):
        return normal.stacked(rows, loss.target, weight, rho)
    if not rho.any(1).all():  # without a penalty, there may be many solutions
        if rho.any() or not (wide.suits(rows) and type(rows) is Rows):
            return None
        held = np.zeros((len(unit), rows.shape[1]))
        held[:, : unit.shape[1]] = np.square(unit)
        return wide.smallest(rows, loss.target, np.broadcast_to(weight, (len(rho), weight.shape[1])), held)
    tol = np.full(len(rho), _ROUNDING)
    if wide.suits(rows):
        return wide.ridge(rows, loss, weight, rho, tol)
    return newton_cg.ridge(rows, loss, weight, rho, tol) if newton_cg.suits(rows) else None


def _descend(recipe: Recipe, arrays: Arrays, loss: RowLoss, max_iter: int, watch: _Watched | None = None) -> Solution:
    """Minimise smooth objectives; separable losses column by column, unless all are watched together."""
    rows, weight, rho, params, tol = arrays.rows, arrays.weight, arrays.rho, arrays.start, arrays.tol
    n_models, n_scores, n_columns = params.shape
    max_fun = recipe.settings.max_fun - arrays.spent
    if type(loss) is SquaredLoss and watch is None:
        at_once = next((way for way in (wide, moments, newton_cg) if way.suits(rows)), None)
        solution = None if at_once is None else at_once.ridge(rows, loss, weight, rho, tol)
        if solution is not None:
            return solution
    if watch is None and arrays.alike and n_models == 1 and type(loss) is SquaredHinges and finite_newton.suits(rows):
        own_rho, own_tol = (np.repeat(part, n_scores, axis=0) for part in (rho, tol))
        found = finite_newton.solve(rows, loss.target, weight[0], own_rho, params[0], own_tol, min(max_iter, max_fun))
        if found is not None:
            return found.together(n_scores)
    if watch is None and isinstance(loss, OfColumns) and n_scores > 1:
        weight = weight if len(weight) == 1 else np.repeat(weight, n_scores, axis=0)
        rho = np.repeat(rho, n_scores, axis=0) if rho.ndim == 2 else rho.reshape(-1, n_columns)
        tol = np.repeat(tol, n_scores)
        loss, params = loss.apart(n_models), params.reshape(-1, 1, n_columns)
    if watch is None and isinstance(loss, HuberLoss):
        params = huber.starts(rows, loss, weight, rho, params)
    system = n_columns * (1 if loss.separable else n_scores)
    # Newton's where these are cheap, or wanted, or all that knows of the curvature
    has_rivals = newton_rivals.suits(rows, loss, rho)
    newton = has_rivals or (system <= MAX_SYSTEM and (loss.piecewise or recipe.newton_params is None))
    by_products = loss.piecewise and isinstance(rows, SparseRows) and (watch is None or not loss.separable)
    if by_products and newton:  # conjugate gradients end too soon, or never, where little holds parameters
        by_products = not ((rho > 0) & (rho < WEAK * rows.diagonal(weight))).any()
    by_pairs = not (newton or by_products)

    def directions(group: np.ndarray) -> descent.Directions:
        if by_products:
            return NewtonCG()
        if has_rivals:
            return NewtonOfRivals(n_columns, loss)
        return LBFGS(group) if by_pairs else Newton(n_columns, arrays.alike)

    way = directions(np.arange(len(params)))
    batches = in_batches(np.arange(len(params)), rows, loss, way)
    has_path = len(batches) > 1 and len(normal.distinct(weight)[0]) < n_models
    ends_there = not params.any() and min(max_iter, max_fun) >= _ENOUGH
    params = newton_rivals.start(way, rows, weight, rho, params) if ends_there else params
    if watch is None and n_models > 1 and ends_there and (has_path or loss.piecewise or by_pairs):
        kind = np.arange(len(params)) % (n_alike := len(params) // n_models)
        if by_pairs and len(weight) > 1:
            squares = rows.diagonal(weight)
            kind += n_alike * np.where(near(squares, squares[kind]), 0, normal.distinct(weight)[1])
        solution = follow(rows, loss, weight, rho, params, kind, directions, (tol, max_iter, max_fun))
    else:
        parts = []
        for models in batches:
            own = loss.keep(models), weight if len(weight) == 1 else weight[models], rho[models]
            way, begin = way.again(models), params[models]
            if watch is not None:
                watch.models = models
            elif ends_there:
                begin = eased(rows, *own, begin, way, tol[models])
            parts.append(descent.descend(descent.Stack(rows, *own, begin), way, tol[models], max_iter, max_fun, watch))
            if parts[-1].interrupted and len(parts[-1].params) < len(params):
                raise KeyboardInterrupt
        solution = Solution.joined(parts)
    return solution if len(solution.params) == n_models else solution.together(n_scores)


def _stretched(recipe: Recipe, arrays: Arrays, loss: HuberLoss, stretch: np.ndarray, max_iter: int) -> Solution:
    """Minimise Huber's losses whose deltas are some times (K,) as large: in targets so many times smaller.

    There they are all the same, and objectives with squared norms are those squares smaller.
    """
    factor, slope = stretch[:, None, None], np.minimum(1.0, stretch * loss.delta)
    shorter = replace(arrays, start=arrays.start / factor, tol=arrays.tol * slope / stretch)
    solution = _descend(recipe, shorter, loss.of(loss.target / factor), max_iter)
    solution.params *= factor
    solution.bound *= stretch / slope
    solution.curve = [
        [value * own * own for value in curve] for own, curve in zip(stretch.tolist(), solution.curve, strict=True)
    ]
    return solution


def _certified(recipe: Recipe, arrays: Arrays, max_iter: int) -> Solution:
    """Minimise objectives with kinks, to relative duality gaps."""
    weight = np.repeat(arrays.weight, len(arrays.tol) // len(arrays.weight), axis=0)
    rows, target, rho, kappa, start = arrays.rows, arrays.target, arrays.rho, arrays.kappa, arrays.start
    gap = GAP * arrays.tol
    if recipe.loss.target == "values":
        found = _by_columns(recipe.loss, replace(arrays, weight=weight), gap, max_iter)
    elif not is_known(recipe.loss):
        if kappa.any():
            size = n_unknowns(recipe.loss, recipe.n_outputs, *rows.shape)
            _check_size(size, "parameters, and rows of the worst violation")
        loss = hinges(recipe.loss, target, recipe.n_outputs)
        found = hinge_norms.solve(rows, loss, weight, kappa, rho, gap, max_iter)
    else:
        smooth, begin_at = row_loss(recipe.loss, target, recipe.n_outputs), start if start.any() else None
        found = elastic_net.solve(rows, smooth, weight, kappa, rho, gap.min(), max_iter, begin_at)
    if recipe.loss.shift_invariant:  # of all shifts of the intercepts, one
        free = (rho + kappa == 0).all(0)
        found.params[:, :, free] -= found.params[:, :, free].mean(1, keepdims=True)
    stopped = [
        f"The relative duality gap is {own:.2g}." if converged else None
        for own, converged in zip(found.gap.tolist(), found.converged.tolist(), strict=True)
    ]
    # without the start
    return Solution(found.params, found.gap, [curve[1:] or curve for curve in found.curve], stopped)


def _check_size(n_unknowns: int, of_what: str) -> None:
    """Raise where systems of losses with kinks are too large."""
    if n_unknowns > _MAX_SYSTEM_OF_KINKS:
        raise ValueError(
            f"solver='exact' solves systems of all {of_what} for losses with kinks, and {n_unknowns} are too many. "
            "Use solver='sgd', 'adam' or 'adamw', or a smooth loss."
        )


def _by_columns(loss: Loss, arrays: Arrays, gap: np.ndarray, max_iter: int) -> elastic_net.Solution:
    """Minimise losses of values to relative duality gaps, column by column."""
    rows, target, weight, start, parts = arrays.rows, arrays.target, arrays.weight, arrays.start, []
    smooth = row_loss(loss, target, 0) if is_known(loss) else None
    if smooth is None and not kinked_sparse.suits(rows, arrays.rho, arrays.kappa):
        _check_size(rows.shape[1], "columns")
    for c in range(target.shape[1]):
        rho, kappa = (
            part if part.ndim == 2 else np.ascontiguousarray(part[:, c]) for part in (arrays.rho, arrays.kappa)
        )
        if smooth is not None:
            one, begin = smooth.one(c), start[:, c : c + 1]
            if isinstance(one, HuberLoss):
                squares, few = huber.least_squares(rows, one, weight, rho, begin)
                if few.any():
                    parts.append(huber.solve(rows, one, weight, kappa, rho, gap))
                    continue
                begin = squares if len(squares) == 1 else begin
            own = begin if begin.any() else None
            parts.append(elastic_net.solve(rows, one, weight, kappa, rho, gap.min(), max_iter, own))
        else:
            lo, hi, up, down = (part[c : c + 1] for part in kinked(loss, target))
            parts.append(piecewise.solve(rows, lo, hi, up, down, weight, rho, kappa, gap, max_iter))
            if not (rho.all() or kappa.all()) and has_free_column(rows, rho + kappa):
                piecewise.centre_(parts[-1].params, rows, (lo, hi), (up[0], down[0]), weight)
    return parts[0] if len(parts) == 1 else elastic_net.joined(parts)
