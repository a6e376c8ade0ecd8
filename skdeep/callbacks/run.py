"""What observers know of the run that they observe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skdeep.data.inputs import Classifier


@dataclass(frozen=True, eq=False)
class Run:
    """A run of one model: the rows trained on, with their original labels, and how."""

    estimator: Classifier  # whose ``classes_`` are known
    #: ``snapshot(network, progress=None)`` makes the fitted attributes for a network's present parameters; with
    #: `progress`, the curves of training too. Called only where a callback asks for it.
    snapshot: Callable[..., dict[str, Any]]
    X: Any
    y: Any
    sample_weight: Any
    validation: tuple[Any, Any] | None  # ``X_val, y_val``
    max_iter: int
    batch_size: int
