"""What training leaves behind for more of it, and what it draws random numbers from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from skdeep.engine.batching import copy_of


@dataclass
class RandomSource:
    """A generator that is seeded when it is asked for: that takes as long as a step of a small fit, and may never be.

    Models that share their draws have one source.
    """

    seed: int | np.random.Generator

    @cached_property
    def generator(self) -> np.random.Generator:
        """The generator, from the first call on the same."""
        return np.random.default_rng(self.seed)

    def __deepcopy__(self, memo: dict) -> RandomSource:
        known = vars(self).get("generator", self.seed)  # it may not be there yet
        return RandomSource(copy_of(known) if isinstance(known, np.random.Generator) else known)


@dataclass
class TrainingState:
    """What partial_fit and warm_start need to go on exactly where training stopped; NumPy only."""

    source: RandomSource
    split_seed: int = 0  # chooses the rows held out
    solver: str = ""
    optimizer: dict | None = None
    trained: int = 0  # epochs of one solver and problem that are behind the parameters; 0 if that is not known
    problem: bytes = b""  # tells problems apart
    seen_before: int = 0  # rows seen on others
    columns: Any = None
    epochs: int = 0  # done of the present schedule
    #: What "adaptive" has multiplied the learning rate by (never less than the root of the rows seen would).
    reduction: float = 1.0
    learning_rate: float = 0.0  # of the next step
    seen: float = 0.0  # weight of the rows of earlier calls of partial_fit
    loss_to_beat: float = math.inf  # what an epoch must improve on

    @property
    def generator(self) -> np.random.Generator:
        """What all that is random in training is drawn from."""
        return self.source.generator

    def renewed(self) -> TrainingState:
        """Keep what a warm fit takes over: the schedule, and what was measured of the data, begin anew."""
        return TrainingState(
            self.source, self.split_seed, self.solver, self.optimizer, self.trained, self.problem, self.seen_before
        )
