"""Rows of several splits, with targets in the unit that each split's training rows give them.

A regressor trains on targets in a unit of their own, so that no two splits agree on what the target of a row is. In one
array, which has the rows of each split, they can be trained as one stack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skdeep.data.inputs import Data
from skdeep.data.problem import Problem
from skdeep.data.values import TargetScale
from skdeep.engine.values import AbsoluteValues, QuantileValues, SquaredValues
from skdeep.model_selection.stacks import Apart

Split = tuple[np.ndarray, np.ndarray]

#: Values of the rows of all splits, at most, that are put into one array.
MAX_IN_ONE_ARRAY = 1 << 24


@dataclass
class OwnUnits:
    """Rows of all splits, one split after the other.

    Attributes
    ----------
    problem : Problem
    splits : list of (ndarray, ndarray)
        Training and test rows of the problem.
    scales : list of TargetScale
    """

    problem: Problem
    splits: list[Split]
    scales: list[TargetScale]

    @classmethod
    def of(cls, problem: Problem, leader: Any, y: Data, splits: list[Split]) -> OwnUnits:
        """Put the rows of splits one after the other; raise `Apart` if units matter to more than the targets."""
        if type(problem.source) is not np.ndarray or problem.sample_weight is not None or problem.index is not None:
            raise Apart("Rows are no array, or have weights.")
        if type(leader._loss(1)) not in (SquaredValues, AbsoluteValues, QuantileValues) or hasattr(leader, "delta_"):
            raise Apart("A loss that knows of a unit, or of an output, is another one for each split.")
        index = np.concatenate([rows for split in splits for rows in split])
        if index.size * problem.source.shape[1] > MAX_IN_ONE_ARRAY:
            raise Apart("The rows of all splits are too many.")
        values = leader._coded((y, None), problem.source, "y", new=False)[2]
        scales = [leader._measure_targets(values[train], None) for train, _ in splits]
        target = [scale.forth(values[np.concatenate(split)]) for scale, split in zip(scales, splits, strict=True)]
        ends = np.cumsum([len(rows) for split in splits for rows in split])
        parts = np.split(np.arange(ends[-1]), ends[:-1])
        together = replace(
            problem, source=problem.source[index], target=np.concatenate(target), codes=problem.codes[index]
        )
        return cls(together, list(zip(parts[::2], parts[1::2], strict=True)), scales)

    def take_on(self, leader: Any, number: int) -> None:
        """Let a regressor speak of the targets of a split."""
        scale = self.scales[number]
        leader._target_scale = scale
        vars(leader).pop("output_scale_", None)
        if (scale.predicted != 1).any():
            leader.output_scale_ = scale.predicted
