"""Chunks that are tables, of pyarrow or of a data frame library: rows of numbers, and columns that are taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skdeep.data.conversion import NotNumbersError, as_numbers, floats

#: Columns at fault that a message lists.
_AT_MOST = 10


def as_array(given: Any) -> np.ndarray:
    """Make an array of anything that is one: a tensor, on any device, a column of pyarrow or of a frame, a list."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        return (given.float() if given.dtype is torch.bfloat16 else given).numpy()
    if type(given).__module__ == "pyarrow.lib":
        return given.to_numpy(zero_copy_only=False)  # of integers of which some are missing, floats
    return np.asarray(given)


def rows_of_part(given: Any, names: np.ndarray | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Make rows of an array or a table, with the names of a table's columns.

    Raise where it is sparse, or a column is missing or holds no numbers.
    """
    if sparse.issparse(given):
        raise ValueError("A chunk of X is sparse; pass chunks that are dense (chunk.toarray()), or one sparse matrix.")
    if _names_of(given):
        rows, own, _ = taken_apart(given, names)
        return rows, own
    return np.asarray(as_numbers(as_array(given))), None


def _names_of(given: Any) -> list:
    """List the names of a table's columns; none of anything else."""
    return list(given.schema.names if hasattr(given, "schema") else getattr(given, "columns", ()))


def taken_apart(
    given: Any, names: np.ndarray | None, *others: str | None
) -> tuple[np.ndarray, tuple[str, ...] | None, list[np.ndarray | None]]:
    """Take a table apart into rows (n, d) of the columns of some names, and `others`, each (n,) or None.

    No names take all columns but the others. Returned between rows and others are the names, None where they are no
    words.
    """
    known = _names_of(given)
    wanted = [name for name in known if name not in others] if names is None else list(names)
    if lacking := [name for name in (*wanted, *others) if name is not None and name not in known]:
        raise ValueError(
            f"Chunks of X have no column {lacking[0]!r}; they have {known[:_AT_MOST] or 'no columns with names'}."
        )
    columns = [_numbers(as_array(given[name])) for name in wanted]
    at_fault = [name for name, column in zip(wanted, columns, strict=True) if column.dtype.kind not in "biuf"]
    if at_fault or not columns:
        raise NotNumbersError(
            f"Columns of X that are no numbers: {at_fault[:_AT_MOST]}. Leave them out (of a pyarrow data set: "
            "X.scanner(columns=[...])), or encode them where they are stored."
        )
    words = all(isinstance(name, str) for name in wanted)
    taken = [None if name is None else as_array(given[name]) for name in others]
    return np.column_stack(columns), tuple(wanted) if words else None, taken


def _numbers(column: np.ndarray) -> np.ndarray:
    """Make numbers of objects that are some, or of none, such as decimals; anything else is returned as it is."""
    if column.dtype.kind != "O":
        return column
    try:
        return floats(column)
    except NotNumbersError:
        return column
