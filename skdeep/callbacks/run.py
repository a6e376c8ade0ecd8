"""What observers know of the run that they observe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from skdeep.data.inputs import Classifier
from skdeep.engine.networks import Network
from skdeep.engine.progress import Progress


class Snapshot(Protocol):
    """Return the fitted attributes for a network's present parameters; with `progress`, the curves of training too."""

    def __call__(self, network: Network, progress: Progress | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Run:
    """A run of one model.

    Attributes
    ----------
    estimator : object
        The classifier being fitted, whose ``classes_`` are known.
    snapshot : Snapshot
        Called only where a callback asks for it.
    X, y, sample_weight
        The rows trained on, their original labels, their weights or None.
    validation : tuple or None
        ``(X_val, y_val)``.
    max_iter, batch_size : int
        Epochs at most, rows of a batch.
    """

    estimator: Classifier
    snapshot: Snapshot
    X: Any
    y: Any
    sample_weight: Any
    validation: tuple[Any, Any] | None
    max_iter: int
    batch_size: int
