"""What the processes of a group tell each other of their data before a fit: all labels and weights, but not X."""

from __future__ import annotations

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


def of_all(
    group: Group, estimator: Classifier, X: Matrix, y: Data, sample_weight: Any, n_least: int
) -> tuple[Data, Any, Matrix, Shard | None]:
    """Gather the labels and weights of all rows, of which X has this process's.

    Returned are labels, weights, a matrix of as many rows as there are, and which of them X has: for one process, what
    was given, and None. Raise where processes have parts that do not belong together, or fewer than `n_least` rows.
    """
    if group.size == 1:
        return y, sample_weight, X, None
    with group.agreeing():
        if y is not None:
            check_consistent_length(X, y)
        names = None if y is None else label_names(y)
        labels = None if y is None else np.asarray(dense(y))
        weight = None if sample_weight is None else np.asarray(dense(sample_weight))
        if weight is not None:
            weight = np.broadcast_to(weight, X.shape[:1]) if weight.ndim == 0 else weight
            check_consistent_length(X, weight)
    _check_alike(group, _form(estimator, X) | {"labels": names, "y is given": y is not None})
    _check_alike(group, {"sample weights are given": weight is not None})
    shard = Shard.of(group, X.shape[0])
    if shard.n_rows < n_least:
        raise ValueError(f"Found {shard.n_rows} sample(s) in all processes while a minimum of {n_least} is required.")
    all_rows = np.broadcast_to(0.0, (shard.n_rows, 1))
    weights = None if weight is None else np.concatenate(group.gather(weight))
    return None if labels is None else _labels(group, labels), weights, all_rows, shard


def _form(estimator: Classifier, X: Matrix) -> dict[str, Any]:
    """Describe what has to be the same in all processes."""
    simple = str | int | float | bool | None | tuple
    params = {name: v for name, v in estimator.get_params().items() if isinstance(v, simple)}
    params.pop("random_state", None)  # of which all take the first one's numbers
    return {
        "estimators": (type(estimator).__name__, *sorted(params.items())),
        "numbers of columns": X.shape[1],
        "names of columns": tuple(getattr(estimator, "feature_names_in_", ())),
        "dtypes": dtype_name(X.dtype),
        "kinds of X": "sparse" if sparse.issparse(X) else "not in memory" if isinstance(X, StoredArray) else "dense",
    }


def _check_alike(group: Group, form: dict[str, Any]) -> None:
    """Raise where a process has something that the first one has otherwise."""
    forms = group.gather(form)
    for rank, other in enumerate(forms):
        for what, value in other.items():
            if repr(value) != repr(forms[0][what]):
                first, own = forms[0][what], value
                if isinstance(first, tuple) and isinstance(own, tuple) and len(first) == len(own):
                    pairs = zip(first, own, strict=True)
                    first, own = next(pair for pair in pairs if repr(pair[0]) != repr(pair[1]))
                raise ValueError(
                    f"The processes have different {what}: {first} in rank 0, {own} in rank {rank}. Each has to be "
                    "given its rows of one table, and the same estimator."
                )


def _labels(group: Group, own: np.ndarray) -> np.ndarray:
    """Join the labels of all processes."""
    parts = [part for part in group.gather(own) if len(part)]
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) > 1 and not all(kind in _NUMBERS for kind in kinds):
        found = sorted({str(part.dtype) for part in parts})
        raise ValueError(f"The processes have labels of different kinds: {found}. Convert them to one dtype.")
    return np.concatenate(parts) if parts else own
