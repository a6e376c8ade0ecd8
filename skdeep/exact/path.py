"""Smooth objectives of many penalties, from the strongest to the weakest: each begins where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skdeep.exact.descent import Directions, Solution, Stack, descend
from skdeep.exact.losses import RowLoss
from skdeep.exact.rows import Rows


def chained(keys: Sequence[Any], strength: np.ndarray) -> dict[Any, np.ndarray]:
    """List the models of each key, from the strongest penalty to the weakest."""
    chains: dict[Any, list[int]] = {}
    for model in np.argsort(-strength, kind="stable").tolist():
        chains.setdefault(keys[model], []).append(model)
    return {key: np.array(chain) for key, chain in chains.items()}


def levels(keys: Sequence[Any], strength: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Decide which models are solved together, and after which others (-1: after none).

    Models of equal keys, which differ in their penalties only, follow each other from the strongest to the weakest, so
    that each begins where the one before it ended. Chains are in the order of their first models, however strong: the
    curvature of the first model of a level is what all steps there are scaled by.
    """
    chains, before = sorted(chained(keys, strength).values(), key=min), np.full(len(keys), -1)
    for chain in chains:
        before[chain[1:]] = chain[:-1]
    return [np.array([c[i] for c in chains if len(c) > i]) for i in range(max(map(len, chains)))], before


def in_batches(models: np.ndarray, rows: Rows, loss: RowLoss, way: Directions) -> list[np.ndarray]:
    """Divide models into as many as are best moved at a time."""
    size = int(min(max(1, way.most_scores / (loss.n_scores * rows.shape[0])), len(models)))
    return np.split(models, range(size, len(models), size))


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
    params = np.zeros((K, C, D))
    found = Solution.begun(params)
    rows_of = [one.tobytes() for one in weight] * (1 if len(weight) > 1 else K)
    each, before = levels(list(zip(rows_of, kind.tolist(), strict=True)), rho.max(1))
    way = directions(kind[each[0]])
    for models in (batch for level in each for batch in in_batches(level, rows, loss, way)):
        own, own_loss = weight if len(weight) == 1 else weight[models], loss.keep(models)
        last = before[models]
        starts = [params[last] if last[0] >= 0 else np.zeros((len(models), C, D))]
        if last[0] >= 0 and before[last[0]] >= 0:
            starts.append(2 * starts[0] - params[before[last]])
        stacks = [Stack(rows, own_loss, own, rho[models], start) for start in starts]
        stack = stacks[-1] if all((stacks[-1].value <= other.value).all() for other in stacks) else stacks[0]
        way = way.again(kind[models])
        solution = descend(stack, way, (way.nearer if len(each) > 1 else 1.0) * tol[models], max_iter)
        if solution.interrupted:
            raise KeyboardInterrupt
        found.put(models, solution)
    return found
