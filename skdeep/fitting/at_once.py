"""Solutions that are found at once: for who watches, they are one epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skdeep.exact.descent import Solution
from skdeep.fitting.recipe import Stack

#: Why a model stops that is solved in closed form.
EXACT = "The solution is exact."


def begin(stack: Stack) -> None:
    """Tell of the beginning."""
    if stack.observer is not None:
        stack.observer.train_begin(stack.network, None)
        stack.observer.epoch_begin(0)


def book(stack: Stack, solution: Solution, params: list[torch.Tensor]) -> None:
    """Hand solutions to the `Progress` of each model, and to who watches.

    `params` are the parameters of the network, and `solution` says how they were found.
    """
    network, members, monitor, observer = stack.network, stack.members, stack.monitor, stack.observer
    watched: list[tuple[Any, Any]] = [(None, None)] * len(members)
    if stack.is_watched:
        for mine, found in zip(network.params, params, strict=True):
            mine.copy_(found)
    if monitor is not None:
        watched = list(zip(*(found.tolist() for found in monitor(network, np.arange(len(members)))), strict=True))
    sizes = np.maximum.reduce(np.abs(solution.params.reshape(len(members), -1)), 1).tolist()
    for m, (member, at_end) in enumerate(zip(members, watched, strict=True)):
        # validation scores are of the end: it is the one epoch that there is
        p, curve = member.progress, solution.curve[m][-1 if monitor is not None else 0 :]
        for value in curve[:-1]:
            p.record(value, None, None)
        best = p.record(curve[-1], *at_end)
        p.size = sizes[m]
        if not (math.isfinite(p.size) and math.isfinite(curve[-1])):
            p.error = f"the training loss became {curve[-1]} in iteration {p.n_iter}"
        p.interrupted = bool(solution.interrupted) and solution.stopped[m] is None
        p.stopped, p.certificate = solution.stopped[m], float(solution.bound[m])
        p.params = params if len(members) == 1 else [part[m : m + 1] for part in params]
        if observer is not None:
            observer.epoch_end(0, p, network, best)
    if observer is not None:
        observer.train_end(network)
