"""Exact solver of the hinges: each stack by the method that is cheapest for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skdeep.exact import hinge_interior, hinge_rows
from skdeep.exact.descent import summed
from skdeep.exact.hinge_multipliers import WIDTH, Descent, Problem, Solution
from skdeep.exact.hinge_terms import Hinges, WestonWatkins
from skdeep.exact.path import chained, levels
from skdeep.exact.row_space import has_free_column
from skdeep.exact.rows import Rows

#: Steps of multipliers after which a model that a stack has brought near its optimum begins anew.
_PATIENCE = 150
#: Most terms of a batch of models: as many as stay in the cache; and of the models of a fold, for which those of others
#: are solved beside them: beyond, each fold is, without the rows that have no weight in it.
_BATCH, _FOLD = 2**16, 2**15
#: Most columns for which least squares are computed; what their penalty is multiplied by, and their scores.
_MAX_COLUMNS, _FIRM, _LENGTHS = 300, 5, (0.5, 1.0, 2.0, 4.0)


def solve(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
    gap: float | np.ndarray = 1e-6,
    max_iter: int = 1000,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Solution:
    """Minimise hinges with a ridge penalty, for K models, to a relative duality `gap`, one or (K,).

    Weights (K, n) are of sum one for each; zero where it is not trained on a row. Factors `rho` (K, D) are of the
    penalty ``rho * params ** 2 / 2``; zero for an intercept, which is the last column. The `start` is parameters (K, C,
    D) and duals (K, C, n) of a similar problem's solution; `max_iter` are a model's steps.
    """
    weight, rho = np.asarray(weight, dtype=float), np.asarray(rho, dtype=float)
    (K, n), C, D = weight.shape, loss.n_scores, rows.shape[1]
    goal = np.broadcast_to(np.asarray(gap, dtype=float), K)
    if start is not None:
        return _together(rows, loss, weight, rho, goal, max_iter, start)
    if isinstance(loss, Hinges) and hinge_rows.are_apart(rows, loss):
        found = Solution.blank(K, C, D, n)
        _put(_by_columns(rows, loss, weight, rho, goal, max_iter), np.arange(K), found)
        return found
    found, left = hinge_rows.solve(rows, loss, weight, rho, goal, max_iter)
    if len(left):
        _put(_together(rows, loss, weight[left], rho[left], goal[left], max_iter, None), left, found)
    if isinstance(loss, Hinges) and C > 1:  # alone, few rows say where the end is
        for k in np.flatnonzero(~found.converged):
            model = slice(k, k + 1)
            alone = _by_columns(rows, loss, weight[model], rho[model], goal[model], max_iter)
            if alone.value.sum() < found.value[k]:
                _put(alone, np.array([k]), found)
    return found


def _by_columns(
    rows: Rows, loss: Hinges, weight: np.ndarray, rho: np.ndarray, goal: np.ndarray, max_iter: int
) -> Solution:
    """Minimise hinges one column of scores after the other; of each model, what is found of its columns follows."""
    columns = [solve(rows, Hinges(own[None]), weight, rho, goal, max_iter) for own in (loss.sign + 1) / 2]
    return Solution.interleaved(columns)


def _together(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
    goal: np.ndarray,
    max_iter: int,
    start: tuple[np.ndarray, np.ndarray] | None,
) -> Solution:
    """Minimise hinges for K models, many at a time where these share rows."""
    (K, n), C, D = weight.shape, loss.n_scores, rows.shape[1]
    used = np.flatnonzero(weight.any(0))
    if len(used) < n:
        few = None if start is None else (start[0], start[1][:, :, used])
        own_rows = rows.select(used), loss.select_rows(used), weight[:, used]
        solution = _together(*own_rows, rho, goal, max_iter, few)
        duals = np.zeros((K, C, n))
        duals[:, :, used] = solution.duals
        return replace(solution, duals=duals)
    found = Solution.blank(K, C, D, n)
    if start is None and K > 1:
        folds = chained([own.tobytes() for own in weight > 0], rho.max(1)).values()
        if len(folds) > 1 and C * n * max(map(len, folds)) > _FOLD:
            for fold in folds:
                _put(_together(rows, loss, weight[fold], rho[fold], goal[fold], max_iter, None), fold, found)
            return found
    intercept = has_free_column(rows, rho)
    begun = None
    if start is None and hinge_interior.may_suit(rows, loss):
        begun = begin(rows, loss, weight, rho)
    if start is None and hinge_interior.suits(rows, loss, 0.0 if begun is None else crowd(rows, loss, begun)):
        near = hinge_interior.approach(rows, loss, weight, rho, goal / 2, max_iter)
        problem, own = _problem(rows, loss, weight, rho, intercept)
        params, duals = (of_all.reshape(len(own), problem.terms.n_scores, -1) for of_all in (near.params, near.duals))
        part = problem.certify(params, duals, goal[own], [[] for _ in own])
        _put(part, np.arange(K), found)
        found.curve = [[*one, value] for one, value in zip(near.curve, found.value.tolist(), strict=True)]
        for k in np.flatnonzero(~found.converged):
            model = slice(k, k + 1)
            start, rest = (near.params[model], near.duals[model]), max(0, max_iter - len(near.curve[k]))
            rest = rest if K == 1 else min(rest, _PATIENCE)
            end = _together(rows, loss, weight[model], rho[model], goal[model], rest, start)
            end.curve[0] = near.curve[k] + end.curve[0]
            if K > 1 and not end.converged[0]:  # others have led it to where it creeps: it begins anew, alone
                end = _together(rows, loss, weight[model], rho[model], goal[model], max_iter, None)
            found.curve[k] = end.curve[0]
            for name in ("params", "duals", "value", "gap", "converged"):
                getattr(found, name)[model] = getattr(end, name)
        return found
    each, before = levels([one.tobytes() for one in weight] if start is None else list(range(K)), rho.max(1))
    size = max(1, _BATCH // (C * n))
    for level in each:
        for models in np.split(level, range(size, len(level), size)):
            width = None
            if start is not None:
                starts = [(start[0][models], start[1][models])]
            elif before[models[0]] >= 0:
                params, duals = found.params[before[models]], found.duals[before[models]]
                # of a weak penalty, parameters stay and duals go with it; of a strong one, duals stay
                ratio = np.maximum(rho[models].max(1) / np.maximum(rho[before[models]].max(1), 1e-300), 1e-12)
                ratio = ratio[:, None, None]
                starts = [(params, duals), (params, ratio * duals), (params / ratio, duals)]
            else:
                own_of = rows, loss, weight[models], rho[models]
                params, width = begin(*own_of) if begun is None else begun[models], WIDTH
                starts = [(params, np.zeros((len(models), C, n)))]
            problem, own = _problem(rows, loss, weight[models], rho[models], intercept)
            shape = len(own), problem.terms.n_scores, -1
            starts = [(V.reshape(shape), a.reshape(shape)) for V, a in starts]
            descent = Descent(problem, starts, width, goal[models][own])
            _put(descent.run(max_iter), models, found)
    return found


def _problem(
    rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray, intercept: bool
) -> tuple[Problem, np.ndarray]:
    """State what models minimise, and say which of them each problem is of: columns of one score are problems apart."""
    terms = loss.terms(len(weight))
    own = np.repeat(np.arange(len(weight)), loss.n_scores // terms.n_scores)
    return Problem(rows, terms, weight[own], rho[own], intercept), own


def _put(part: Solution, models: np.ndarray, found: Solution) -> None:
    """Put together the columns of some models."""
    k, columns = len(models), len(part.value) // len(models)
    found.params[models] = part.params.reshape(k, -1, part.params.shape[2])
    found.duals[models] = part.duals.reshape(k, -1, part.duals.shape[2])
    value = part.value.reshape(k, columns)
    above, found.value[models] = (part.gap.reshape(k, columns) * value).sum(1), value.sum(1)
    found.gap[models] = np.divide(above, found.value[models], out=np.zeros(k), where=found.value[models] > 0)
    found.converged[models] = part.converged.reshape(k, columns).all(1)
    for i, model in enumerate(models.tolist()):
        found.curve[model] = summed(part.curve[i * columns : (i + 1) * columns])


# ---- where it begins -------------------------------------------------------------------------------------------------


def least_squares(rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute the parameters of least squares, of firmer penalties."""
    K, C, D = len(weight), loss.n_scores, rows.shape[1]
    if D > _MAX_COLUMNS:
        return np.zeros((K, C, D))
    H = rows.gram(weight)
    H.reshape(K, -1)[:, :: D + 1] += _FIRM * rho + 1e-10
    return np.linalg.solve(H, rows.back(loss.target() * weight[:, None]).mT).mT


def of_best_length(
    params: np.ndarray, rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray
) -> np.ndarray:
    """Multiply parameters (K, C, D) by what makes the hinges least."""
    terms, (K, n) = loss.terms(len(weight)), weight.shape
    scores = rows.scores(params).reshape(-1, terms.n_scores, n)
    columns = len(scores) // K
    loss_of = [terms.loss(terms.margins(length * scores)) for length in _LENGTHS]
    data = [np.vecdot(values, np.repeat(weight, columns, 0)) for values in loss_of]
    penalty = 0.5 * (rho[:, None] * params * params).reshape(K * columns, -1).sum(1)
    values = np.array(data) + np.square(_LENGTHS)[:, None] * penalty
    return params * np.take(_LENGTHS, values.argmin(0)).reshape(K, -1, 1)


def begin(rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Compute parameters (K, C, D) to begin with, of a problem that is like no other."""
    return of_best_length(least_squares(rows, loss, weight, rho), rows, loss, weight, rho)


def crowd(rows: Rows, loss: Hinges | WestonWatkins, params: np.ndarray) -> float:
    """Compute the share of rows within the margins at parameters (K, C, D)."""
    margins = loss.terms(len(params)).margins(rows.scores(params))
    return float((margins > 0).any(1).mean())
