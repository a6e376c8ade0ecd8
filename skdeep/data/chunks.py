"""Data that comes in chunks, pass after pass: loaders, tables in files, functions that return an iterator.

The first pass gives targets, weights and the number of rows, which are kept; the rows are read anew in every pass. A
pass that has other targets than the first is refused: its rows would be taken for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from skdeep.data.conversion import NotNumbersError, as_numbers

#: Items of a Dataset that are put together to a chunk.
_ITEMS = 256

_AGAIN = (
    "Every pass must give the same rows in the same order: use shuffle=False (fit shuffles what it has read), and pass "
    "a function that returns a new iterator each time."
)
_EXPECTED = "Each chunk must be a pair (X, y) or (X, y, sample_weight)"

Chunk = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


def are_chunks(X: Any) -> bool:
    """Tell whether something gives chunks, pass after pass.

    Raises
    ------
    ValueError
        If it is an iterator, of which there is but one pass.
    """
    if isinstance(X, np.ndarray | Tensor | list | tuple) or sparse.issparse(X):
        return False
    if hasattr(X, "__next__"):
        raise ValueError(
            f"X is an iterator ({type(X).__name__}), which can be passed over once, and training takes several passes. "
            "Pass a function that returns a new iterator (fit(function), not fit(function())), or any object whose "
            "__iter__ begins a new pass."
        )
    if isinstance(X, Chunks | Dataset) or _batches_of(X) is not None:
        return True
    if any(hasattr(X, name) for name in ("__array__", "__getitem__", "shape", "collect_schema")):
        return False
    return hasattr(X, "__iter__") or callable(X)


def _batches_of(X: Any) -> Callable[[], Iterator] | None:
    """Find how a data set, scanner or file of pyarrow gives its batches; None of anything else."""
    if not type(X).__module__.startswith("pyarrow.") and not type(X).__module__.startswith("pyarrow._dataset"):
        return None
    if hasattr(X, "shape"):  # a table, in memory
        return None
    return getattr(X, "to_batches", getattr(X, "iter_batches", None))


class Chunks:
    """Chunks of rows as an array that is read in order.

    Parameters
    ----------
    begin : callable
        ``begin(row)`` begins a pass at that row (at 0, where `can_begin_anywhere` is False): an iterator of chunks.
    can_begin_anywhere : bool

    Attributes
    ----------
    shape : tuple
    dtype : numpy.dtype
    labels, weights : ndarray of shape (n,) or None
    """

    def __init__(self, begin: Callable[[int], Iterator[Chunk]], can_begin_anywhere: bool):
        self._begin, self.can_begin_anywhere = begin, can_begin_anywhere
        self.labels: np.ndarray | None = None
        self.weights: np.ndarray | None = None
        shapes, dtypes, parts, n = set(), set(), [], 0
        for rows, *others in begin(0):
            shapes.add(rows.shape[1:])
            dtypes.add(rows.dtype)
            parts.append(others)
            n += len(rows)
        if not n:
            raise ValueError(f"X gives no rows. {_AGAIN}")
        if len(shapes) > 1:
            raise ValueError(f"Chunks of X have rows of several shapes: {sorted(shapes)}; expected one.")
        self.shape = (n, *shapes.pop())
        self.dtype = np.result_type(*dtypes)
        self.labels, self.weights = (_joined([part[i] for part in parts], _EXPECTED) for i in range(2))
        self._chunks: Iterator[Chunk] = iter(())
        #: What has been read of the pass, and is not passed by: rows from this number on.
        self._at, self._rest = n, np.empty((0, *self.shape[1:]), self.dtype)

    @classmethod
    def of(cls, X: Any, y: Any, sample_weight: Any, labelled: bool = False) -> Self:
        """Make chunks of what users pass; y and sample_weight may name columns of it.

        Raises
        ------
        ValueError
            If targets are missing where rows are to be `labelled`, or are given beside the chunks.
        """
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"`{name}` was passed beside an X that gives chunks. {_EXPECTED}, and {name} None; of tables, "
                    f"{name} may be the name of a column."
                )
        if isinstance(getattr(X, "sampler", None), RandomSampler) and isinstance(X, DataLoader):
            raise ValueError(f"X is a DataLoader that shuffles. {_AGAIN}")
        anywhere = isinstance(X, Dataset) and hasattr(X, "__len__")
        passes = _items(X) if anywhere else _passes(X)

        def begin(row: int) -> Iterator[Chunk]:
            return (_chunk(part, y, sample_weight) for part in passes(row))

        chunks = cls(begin, anywhere)
        if labelled and chunks.labels is None:
            raise ValueError(
                f"X gives chunks without targets. {_EXPECTED}; of tables (pyarrow), pass the name of the target's "
                "column as y."
            )
        return chunks

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows, by the pass that is under way where they are still to come, else by a new one."""
        start, stop, _ = rows.indices(self.shape[0])
        end = self._at + len(self._rest)
        if start < self._at or (self.can_begin_anywhere and start > end):
            self._at = start if self.can_begin_anywhere else 0
            self._chunks, self._rest = self._begin(self._at), self._rest[:0]
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        done = start
        while done < stop:
            end = self._at + len(self._rest)
            if done < end:
                part = self._rest[done - self._at : stop - self._at]
                found[done - start : done - start + len(part)] = part
                done += len(part)
            else:
                self._at, self._rest = end, self._next(end)
        return found

    def _next(self, at: int) -> np.ndarray:
        """Read the chunk whose first row is number `at`, and compare its targets with what the first pass had."""
        rows, *others = next(self._chunks, (None,))
        if rows is None:
            raise ValueError(f"A pass over X ended after {at} rows, where the first had {self.shape[0]}. {_AGAIN}")
        for known, now in zip((self.labels, self.weights), others, strict=True):
            if known is not None and not _same(known[at : at + len(rows)], now):
                raise ValueError(f"A pass over X has other targets or weights than the first, from row {at}. {_AGAIN}")
        return rows


def _joined(parts: list, expected: str) -> np.ndarray | None:
    """Join what each chunk has, or none has."""
    missing = [part is None for part in parts]
    if all(missing):
        return None
    if any(missing):
        raise ValueError(f"Chunk {missing.index(True)} of X has not as many parts as others. {expected}.")
    return np.concatenate(parts)


def _same(known: np.ndarray, now: np.ndarray | None) -> bool:
    """Compare targets; what is missing is the same as what is missing."""
    if now is None or known.shape != now.shape:
        return False
    different = known != now
    return not bool((different & ~((known != known) & (now != now))).any())


def _passes(X: Any) -> Callable[[int], Iterator]:
    """Find what begins a pass."""
    begin = _batches_of(X) or (X if callable(X) and not hasattr(X, "__iter__") else X.__iter__)
    return lambda row: iter(begin())


def _items(X: Any) -> Callable[[int], Iterator]:
    """Make chunks of the items of a Dataset."""

    def begin(row: int) -> Iterator:
        items = (X[i] for i in range(row, len(X)))
        while some := list(islice(items, _ITEMS)):
            if not isinstance(some[0], tuple | list):
                yield np.stack([_plain(item) for item in some])
            else:
                yield tuple(np.stack([_plain(part) for part in parts]) for parts in zip(*some, strict=True))

    return begin


def _chunk(given: Any, y: str | None, sample_weight: str | None) -> Chunk:
    """Take a chunk apart: rows, targets and weights, of which a table has those in columns that are named."""
    if y is not None or sample_weight is not None or hasattr(given, "schema"):
        return _table(given, y, sample_weight)
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"A chunk of X has {len(parts)} parts. {_EXPECTED}.")
    rows = _rows(parts[0])
    targets, weights = ([None if part is None else _plain(part) for part in (*parts[1:], None, None)])[:2]
    for part in (targets, weights):
        if part is not None and part.shape[:1] != rows.shape[:1]:
            raise ValueError(f"A chunk of X has {len(rows)} rows, and targets or weights of shape {part.shape}.")
    return rows, targets, weights


def _table(given: Any, y: str | None, sample_weight: str | None) -> Chunk:
    """Take a chunk apart that is a table, of pyarrow or a data frame."""
    names = list(given.schema.names if hasattr(given, "schema") else getattr(given, "columns", ()))
    if lacking := [name for name in (y, sample_weight) if name is not None and name not in names]:
        raise ValueError(f"Chunks of X have no column {lacking[0]!r}; they have {names or 'no columns with names'}.")
    columns = {name: _column(given[name]) for name in names}
    wanted = [name for name in names if name not in (y, sample_weight)]
    if at_fault := [name for name in wanted if columns[name].dtype.kind not in "biuf"]:
        raise NotNumbersError(
            f"Columns of X that are no numbers: {at_fault[:10]}. Leave them out (of a pyarrow data set: "
            "X.scanner(columns=[...])), or encode them where they are stored."
        )
    rows = np.column_stack([columns[name] for name in wanted])
    return rows, columns.get(y), columns.get(sample_weight)


def _column(given: Any) -> np.ndarray:
    """Make an array of a column: of pyarrow's integers of which some are missing, floats."""
    return given.to_numpy(zero_copy_only=False) if type(given).__module__ == "pyarrow.lib" else np.asarray(given)


def _rows(given: Any) -> np.ndarray:
    """Make rows of numbers of the first part of a chunk."""
    if sparse.issparse(given):
        raise ValueError("A chunk of X is sparse; pass chunks that are dense (chunk.toarray()), or one sparse matrix.")
    rows = np.asarray(as_numbers(_plain(given)))
    if rows.ndim < 2 or rows.dtype.kind not in "biuf":
        raise ValueError(
            f"A chunk of X begins with an array of shape {rows.shape} and dtype {rows.dtype}, where rows of numbers "
            f"were expected. {_EXPECTED}."
        )
    return rows


def _plain(given: Any) -> Any:
    """Move a tensor to NumPy; a frame is returned as it is, anything else as an array."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        return (given.float() if given.dtype is torch.bfloat16 else given).numpy()
    return given if hasattr(given, "columns") else np.asarray(given)
