"""What the processes of a group tell each other of their data before a fit: all labels and weights, but not X."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_consistent_length

from skdeep.data.inputs import Classifier, Data, Matrix, dense, dtype_name
from skdeep.data.labels import label_names
from skdeep.engine.group import Group
from skdeep.engine.shards import Shard
from skdeep.engine.stored import StoredArray

#: Kinds of labels that are numbers, of which some may be written in another dtype than others.
_NUMBERS = "biuf"


class Shares:
    """The parts of a data set that the processes of a group hold.

    Parameters
    ----------
    group : Group
    estimator : classifier
        The one that is fitted, which has to be the same in all processes.
    """

    def __init__(self, group: Group, estimator: Classifier):
        self.group, self.estimator = group, estimator

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.group.size == 1

    def checked(self) -> AbstractContextManager[None]:
        """Open a context for checks of the own part, whose errors are raised everywhere."""
        return self.group.agreeing()

    def of_all(self, X: Matrix, y: Data, sample_weight: Any, n_least: int) -> tuple[Data, Any, Matrix, Shard | None]:
        """Gather the labels and weights of all rows.

        Parameters
        ----------
        X : matrix of shape (n, d)
            The own rows, which have been checked.
        y, sample_weight
            As the caller passes them, of these rows.
        n_least : int
            How many rows the processes have to have together.

        Returns
        -------
        y, sample_weight : ndarray
            Of the rows of all processes.
        all_rows : matrix
            Of as many rows as there are.
        shard : Shard, or None
            None for one process, for which all this is what it was.

        Raises
        ------
        ValueError
            If the processes have parts that do not belong together.
        """
        if self.alone:
            return y, sample_weight, X, None
        with self.checked():
            if y is not None:
                check_consistent_length(X, y)
            names = None if y is None else label_names(y)
            labels = None if y is None else np.asarray(dense(y))
            weight = None if sample_weight is None else np.asarray(dense(sample_weight))
            if weight is not None:
                weight = np.broadcast_to(weight, X.shape[:1]) if weight.ndim == 0 else weight
                check_consistent_length(X, weight)
        self._check_alike(self._form(X) | {"labels": names, "y is given": y is not None})
        self._check_alike({"sample weights are given": weight is not None})
        shard = Shard.of(self.group, X.shape[0])
        if shard.n_rows < n_least:
            raise ValueError(
                f"Found {shard.n_rows} sample(s) in all processes while a minimum of {n_least} is required."
            )
        all_rows = np.broadcast_to(0.0, (shard.n_rows, 1))
        weights = None if weight is None else np.concatenate(self.group.gather(weight))
        return None if labels is None else self._labels(labels), weights, all_rows, shard

    def _form(self, X: Matrix) -> dict[str, Any]:
        """Describe what has to be the same in all processes."""
        simple = str | int | float | bool | None | tuple
        params = {name: v for name, v in self.estimator.get_params().items() if isinstance(v, simple)}
        params.pop("random_state", None)  # of which all take the first one's numbers
        return {
            "estimators": (type(self.estimator).__name__, *sorted(params.items())),
            "numbers of columns": X.shape[1],
            "names of columns": tuple(getattr(self.estimator, "feature_names_in_", ())),
            "dtypes": dtype_name(X.dtype),
            "kinds of X": _kind(X),
        }

    def _check_alike(self, form: dict[str, Any]) -> None:
        """Raise where a process has something that the first one has otherwise."""
        forms = self.group.gather(form)
        for rank, other in enumerate(forms):
            for what, value in other.items():
                if repr(value) != repr(forms[0][what]):
                    first, own = _differing(forms[0][what], value)
                    raise ValueError(
                        f"The processes have different {what}: {first} in rank 0, {own} in rank {rank}. Each has to be "
                        "given its rows of one table, and the same estimator."
                    )

    def _labels(self, own: np.ndarray) -> np.ndarray:
        """Join the labels of all processes."""
        parts = [part for part in self.group.gather(own) if len(part)]
        kinds = {part.dtype.kind for part in parts}
        if len(kinds) > 1 and not all(kind in _NUMBERS for kind in kinds):
            found = sorted({str(part.dtype) for part in parts})
            raise ValueError(f"The processes have labels of different kinds: {found}. Convert them to one dtype.")
        return np.concatenate(parts) if parts else own


def _kind(X: Matrix) -> str:
    """Say how X is there."""
    return "sparse" if sparse.issparse(X) else "not in memory" if isinstance(X, StoredArray) else "dense"


def _differing(first: Any, other: Any) -> tuple[Any, Any]:
    """Pick what is different in two tuples of one length; else the two."""
    if isinstance(first, tuple) and isinstance(other, tuple) and len(first) == len(other):
        pairs = [pair for pair in zip(first, other, strict=True) if repr(pair[0]) != repr(pair[1])]
        return pairs[0]
    return first, other
