"""Smooth objectives of many penalties, from the strongest to the weakest: each begins where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skdeep.exact.descent import Directions, Solution, Stack, descend
from skdeep.exact.losses import RowLoss, SquaredHinges, SquaredWestonWatkins
from skdeep.exact.normal import distinct
from skdeep.exact.rows import Rows

#: How many times as large as a penalty's curvature the rows' is where it is weak, for each of the rows (0.2 at "auto");
#: steps of ten there, and iterations of each, at most.
_WEAK, _MAX_STEPS, _ENOUGH = 0.07, 6, 30


def chained(keys: Sequence[Any], strength: np.ndarray) -> dict[Any, np.ndarray]:
    """List the models of each key, from the strongest penalty to the weakest."""
    chains: dict[Any, list[int]] = {}
    for model in np.argsort(-strength, kind="stable").tolist():
        chains.setdefault(keys[model], []).append(model)
    return {key: np.array(chain) for key, chain in chains.items()}


def levels(
    keys: Sequence[Any], strength: np.ndarray, kind: np.ndarray | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Decide which models are solved together, and after which others (-1: after none).

    Models of equal keys, which differ in their penalties only, follow each other from the strongest to the weakest, so
    that each begins where the one before it ended. Chains are in the order of their first models, however strong: the
    curvature of the first model of a level is what all steps there are scaled by. Where models are of a `kind` (K,),
    the first chain of a kind leads the others, which begin where its first model ends.
    """
    chains, before = sorted(chained(keys, strength).values(), key=min), np.full(len(keys), -1)
    leaders: dict[int, int] = {}
    later = []
    for chain in chains:
        before[chain[1:]] = chain[:-1]
        leader = chain[0] if kind is None else leaders.setdefault(kind[chain[0]], chain[0])
        later.append(int(leader != chain[0]))
        if later[-1]:
            before[chain[0]] = leader
    each = list(zip(chains, later, strict=True))
    deepest = max(len(chain) + late for chain, late in each)
    return [np.array([c[i - late] for c, late in each if 0 <= i - late < len(c)]) for i in range(deepest)], before


def in_batches(models: np.ndarray, rows: Rows, loss: RowLoss, way: Directions) -> list[np.ndarray]:
    """Divide models into as many as are best moved at a time."""
    size = int(min(max(1, way.most_scores / (loss.n_scores * rows.shape[0])), len(models)))
    return np.split(models, range(size, len(models), size))


def eased(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    rho: np.ndarray,
    start: np.ndarray,
    way: Directions,
    tol: np.ndarray,
) -> np.ndarray:
    """Go from a `start` (K, C, D) through optima of stronger penalties, where penalties of squared hinges are weak.

    From afar, Newton's steps go from pieces to pieces, and there are the more the weaker a penalty is.
    """
    if not isinstance(loss, SquaredHinges | SquaredWestonWatkins):
        return start
    ratio = np.divide(rows.diagonal(weight), rho, out=np.zeros_like(rho), where=rho > 0)
    n_steps = min(int(np.log10(max(ratio.max() / (_WEAK * rows.shape[0]), 1.0))), _MAX_STEPS)
    for factor in 10.0 ** np.arange(n_steps, 0, -1):
        found = descend(Stack(rows, loss, weight, factor * rho, start.copy()), way, tol, _ENOUGH)
        if found.interrupted:
            raise KeyboardInterrupt
        start = found.params
    return start


def follow(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    rho: np.ndarray,
    start: np.ndarray,
    kind: np.ndarray,
    directions: Callable[[np.ndarray], Directions],
    limits: tuple[np.ndarray, int, float],
) -> Solution:
    """Minimise objectives that differ in weights and penalties, from a `start` (K, C, D); see `skdeep.exact.descent`.

    Models of one `kind` (K,) differ in these alone. ``directions(kind)`` makes the directions of models of some kinds,
    whose penalties are about the same. The `limits` are tolerances (K,), and the most iterations and evaluations.
    """
    tol, max_iter, max_fun = limits
    params, strength = start.copy(), rho.max(1)
    found = Solution.begun(params)
    rows_of = distinct(weight)[1] * (1 if len(weight) > 1 else len(rho))
    # which terms are within margins depends little on a few rows
    each, before = levels(list(zip(rows_of, kind.tolist(), strict=True)), strength, kind if loss.piecewise else None)
    way = directions(kind[each[0]])
    for models in (batch for level in each for batch in in_batches(level, rows, loss, way)):
        own, own_loss = weight if len(weight) == 1 else weight[models], loss.keep(models)
        last = before[models]
        start = params[np.where(last >= 0, last, models)]
        stack = None
        if last[0] < 0:
            way = way.again(kind[models])
            start = eased(rows, own_loss, own, rho[models], start, way, tol[models])
        else:
            earlier = np.where((before[last] >= 0) & (strength[before[last]] != strength[last]), before[last], last)
            if (earlier != last).any():  # as far again, if no objective is higher there than where the last one ended
                ends = np.array([found.curve[k][-1] for k in last])
                ends += 0.5 * np.vecdot((start * start).sum(1), rho[models] - rho[last])
                ahead = Stack(rows, own_loss, own, rho[models], 2 * start - params[earlier])
                stack = ahead if (ahead.value <= ends).all() else None
        stack = stack or Stack(rows, own_loss, own, rho[models], start)
        way = way.again(kind[models])
        solution = descend(stack, way, (way.nearer if len(each) > 1 else 1.0) * tol[models], max_iter, max_fun)
        if solution.interrupted:
            raise KeyboardInterrupt
        found.put(models, solution)
    return found
