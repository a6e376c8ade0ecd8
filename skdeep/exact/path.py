"""Smooth objectives of many penalties, from the strongest to the weakest: each begins where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skdeep.exact.descent import Directions, Solution, Stack, descend
from skdeep.exact.losses import RowLoss
from skdeep.exact.rows import Rows

#: Share of the tolerance that models of a path are solved to: where they begin makes no difference then.
_CLOSER = 0.3


def chained(keys: Sequence[Any], strength: np.ndarray) -> dict[Any, np.ndarray]:
    """List the models of each key, from the strongest penalty to the weakest."""
    chains: dict[Any, list[int]] = {}
    for model in np.argsort(-strength, kind="stable").tolist():
        chains.setdefault(keys[model], []).append(model)
    return {key: np.array(chain) for key, chain in chains.items()}


def levels(weight: np.ndarray, strength: np.ndarray, kind: np.ndarray) -> list[np.ndarray]:
    """Put models in an order to be solved in: chains of one kind and the same rows by falling strength, in parallel.

    Weights are (K, n) or (1, n), strengths of the penalty and kinds (K,). Listed are the models of each level, each of
    its own chain; -1 where a chain has ended.
    """
    known: dict[bytes, int] = {}
    number = [known.setdefault(one.tobytes(), len(known)) for one in weight]
    number = number if len(weight) > 1 else number * len(kind)
    by_key = chained(list(zip(number, kind.tolist(), strict=True)), strength)
    chains = [by_key[key] for key in sorted(by_key)]
    table = np.full((max(map(len, chains)), len(chains)), -1)
    for column, chain in zip(table.T, chains, strict=True):
        column[: len(chain)] = chain
    return list(table)


def follow(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    rho: np.ndarray,
    kind: np.ndarray,
    directions: Callable[[np.ndarray], Directions],
    tol: np.ndarray,
    max_iter: int,
) -> Solution:
    """Minimise objectives that differ in weights and penalties; see `skdeep.exact.descent`.

    Models of one `kind` (K,) differ in these alone. ``directions(kind)`` makes the directions of models of some kinds,
    whose penalties are about the same.
    """
    K, C, D = len(rho), loss.n_scores, rows.shape[1]
    params, bound = np.zeros((K, C, D)), np.zeros(K)
    curve: list[list[float]] = [[] for _ in range(K)]
    stopped: list[str | None] = [None] * K
    before = last = way = None
    for level in levels(weight, rho.max(1), kind):
        there = np.flatnonzero(level >= 0)
        models = level[there]
        own, own_loss = weight if len(weight) == 1 else weight[models], loss.keep(models)
        starts = [np.zeros((len(models), C, D))] if last is None else [last[there]]
        if last is not None and before is not None:
            starts.append(2 * last[there] - before[there])
        stacks = [Stack(rows, own_loss, own, rho[models], start) for start in starts]
        stack = stacks[-1] if all((stacks[-1].value <= other.value).all() for other in stacks) else stacks[0]
        way = directions(kind[models]) if way is None else way.again(kind[models])
        solution = descend(stack, way, _CLOSER * tol[models], max_iter)
        if solution.interrupted:
            raise KeyboardInterrupt
        params[models], bound[models] = solution.params, solution.bound
        for k, model in enumerate(models):
            curve[model], stopped[model] = solution.curve[k], solution.stopped[k]
        found = np.zeros((len(level), C, D))
        found[there] = solution.params
        before, last = last, found
    return Solution(params, bound, curve, stopped)
