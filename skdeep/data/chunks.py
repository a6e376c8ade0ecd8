"""Data that comes in chunks, pass after pass: loaders, tables in files, functions that return an iterator.

The first pass gives targets, weights and the number of rows, which are kept; the rows are read anew in every pass. A
pass that has other targets than the first is refused: its rows would be taken for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from skdeep.data.tables import as_array, rows_of_part, taken_apart

#: Items of a Dataset that are put together to a chunk.
_ITEMS = 256
#: Rows that are asked for at once of tables in files.
_ROWS = 4096

_AGAIN = (
    "Every pass must give the same rows in the same order: use shuffle=False (fit shuffles what it has read), and pass "
    "a function that returns a new iterator each time."
)
_EXPECTED = "Each chunk must be a pair (X, y) or (X, y, sample_weight)"


class Chunk(NamedTuple):
    """Some rows, with their targets and weights, and the names of the columns, as far as there are any."""

    rows: np.ndarray
    labels: np.ndarray | None
    weights: np.ndarray | None
    names: tuple[str, ...] | None


def are_chunks(X: Any) -> bool:
    """Tell whether something gives chunks, pass after pass; raise for an iterator, of which there is but one pass."""
    if isinstance(X, np.ndarray | Tensor | list | tuple) or sparse.issparse(X):
        return False
    if hasattr(X, "__next__"):
        raise ValueError(
            f"X is an iterator ({type(X).__name__}), which can be passed over once, and training takes several passes. "
            "Pass a function that returns a new iterator (fit(function), not fit(function())), or any object whose "
            "__iter__ begins a new pass."
        )
    if isinstance(X, Dataset) or _batches_of(X) is not None:
        return True
    if any(hasattr(X, name) for name in ("__array__", "__getitem__", "shape", "collect_schema")):
        return False
    return hasattr(X, "__iter__") or callable(X)


def _batches_of(X: Any) -> Callable[[], Iterator] | None:
    """Find how a data set, scanner or file of pyarrow gives its batches; None of anything else."""
    if type(X).__module__.partition(".")[0] != "pyarrow" or hasattr(X, "shape"):  # a table, in memory
        return None
    if hasattr(X, "iter_batches"):
        groups = range(X.num_row_groups)  # one by one: it reads all that it is asked for
        return lambda: (b for g in groups for b in X.iter_batches(_ROWS, row_groups=[g], use_threads=False))
    if not hasattr(X, "get_fragments"):
        return getattr(X, "to_batches", None)
    # a data set: as it comes, it would read far ahead
    modest: dict[str, Any] = {"batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
    if type(getattr(X, "format", None)).__name__ == "ParquetFileFormat":
        options = import_module("pyarrow.dataset").ParquetFragmentScanOptions
        modest["fragment_scan_options"] = options(pre_buffer=False)
    return partial(X.to_batches, batch_size=_ROWS, **modest)


class Chunks:
    """Chunks of rows as an array that is read in order.

    ``begin(row)`` begins a pass at that row (at 0, where `can_begin_anywhere` is False): an iterator of `Chunk`. A
    first pass finds `shape`, `dtype`, whether all values are `finite`, the `names` of the columns, `labels` and
    `weights`.
    """

    def __init__(self, begin: Callable[[int], Iterator[Chunk]], can_begin_anywhere: bool):
        self._begin, self.can_begin_anywhere = begin, can_begin_anywhere
        shapes, dtypes, labels, weights, n = set(), set(), [], [], 0
        self.finite, self.names = True, None
        for chunk in begin(0):
            self.names = chunk.names if not n else self.names
            _check_names(self.names, chunk.names)
            shapes.add(chunk.rows.shape[1:])
            dtypes.add(chunk.rows.dtype)
            labels.append(chunk.labels)
            weights.append(chunk.weights)
            n += len(chunk.rows)
            with np.errstate(over="ignore", invalid="ignore"):
                self.finite &= bool(np.isfinite(chunk.rows.sum()))
        if not n:
            raise ValueError(f"X gives no rows. {_AGAIN}")
        if len(shapes) > 1:
            raise ValueError(f"Chunks of X have rows of several shapes: {sorted(shapes)}; expected one.")
        self.shape = (n, *shapes.pop())
        self.dtype = np.result_type(*dtypes)
        self.labels, self.weights = _joined(labels), _joined(weights)
        self._chunks: Iterator[Chunk] = iter(())
        #: What has been read of the pass, and is not passed by: rows from this number on.
        self._at, self._rest = n, np.empty((0, *self.shape[1:]), self.dtype)

    @classmethod
    def of(cls, X: Any, y: Any, sample_weight: Any, names: np.ndarray | None = None, labelled: bool = False) -> Self:
        """Make chunks of what users pass; y and sample_weight may name columns of it.

        Of tables, `names` are the columns to take; None takes all others. Raise where targets are given beside the
        chunks, or are missing and must be there (`labelled`).
        """
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"`{name}` was passed beside an X that gives chunks. {_EXPECTED}, and {name} None; of tables, "
                    f"{name} may be the name of a column."
                )
        if isinstance(X, DataLoader) and isinstance(X.sampler, RandomSampler):
            raise ValueError(f"X is a DataLoader that shuffles. {_AGAIN}")
        if labelled and y is None and _batches_of(X) is not None:
            raise ValueError(f"X is a {type(X).__name__} of pyarrow; pass the name of the target's column as y.")
        if isinstance(X, Dataset) and not (hasattr(X, "__len__") or hasattr(X, "__iter__")):
            raise ValueError(f"X is a Dataset ({type(X).__name__}) without __len__, which says how many rows it has.")
        anywhere = isinstance(X, Dataset) and hasattr(X, "__len__")
        whole = _batches_of(X) or (X.__iter__ if hasattr(X, "__iter__") else X)
        passes = _items(X) if anywhere else lambda row: iter(whole())

        def begin(row: int) -> Iterator[Chunk]:
            return (_chunk(part, y, sample_weight, names) for part in passes(row))

        chunks = cls(begin, anywhere)
        if labelled and chunks.labels is None:
            raise ValueError(f"X gives chunks without targets. {_EXPECTED}.")
        return chunks

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows, by the pass that is under way where they are still to come, else by a new one."""
        start, stop, _ = rows.indices(self.shape[0])
        if start < self._at or (self.can_begin_anywhere and start > self._at + len(self._rest)):
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
        chunk = next(self._chunks, None)
        if chunk is None:
            raise ValueError(f"A pass over X ended after {at} rows, where the first had {self.shape[0]}. {_AGAIN}")
        _check_names(self.names, chunk.names)
        for known, now in ((self.labels, chunk.labels), (self.weights, chunk.weights)):
            if known is not None and not _same(known[at : at + len(chunk.rows)], now):
                raise ValueError(f"A pass over X has other targets or weights than the first, from row {at}. {_AGAIN}")
        return chunk.rows


def _check_names(known: tuple[str, ...] | None, names: tuple[str, ...] | None) -> None:
    if known != names:
        raise ValueError(f"Chunks of X have several sets of columns, {known} and {names}; expected one.")


def _joined(parts: list) -> np.ndarray | None:
    """Join what each chunk has, or none has."""
    missing = [part is None for part in parts]
    if all(missing):
        return None
    if any(missing):
        raise ValueError(f"Chunk {missing.index(True)} of X has not as many parts as others. {_EXPECTED}.")
    return np.concatenate(parts)


def _same(known: np.ndarray, now: np.ndarray | None) -> bool:
    """Compare targets; what is missing is the same as what is missing."""
    if now is None or known.shape != now.shape:
        return False
    different = known != now
    return not bool((different & ~((known != known) & (now != now))).any())


def _items(X: Any) -> Callable[[int], Iterator]:
    """Make chunks of the items of a Dataset."""

    def begin(row: int) -> Iterator:
        items = (X[i] for i in range(row, len(X)))
        while some := list(islice(items, _ITEMS)):
            if isinstance(some[0], tuple | list):
                yield tuple(np.stack([as_array(part) for part in parts]) for parts in zip(*some, strict=True))
            elif isinstance(some[0], Mapping):
                yield some[0]  # which is refused
            else:
                yield np.stack([as_array(item) for item in some])

    return begin


def _chunk(given: Any, y: str | None, sample_weight: str | None, names: np.ndarray | None) -> Chunk:
    """Take a chunk apart: rows, targets and weights, of which a table has these in columns that are named."""
    if isinstance(given, Mapping) and not sparse.issparse(given):
        raise ValueError(f"X gives dictionaries, with the keys {list(given)}. {_EXPECTED}; of a Dataset, each item.")
    if y is not None or sample_weight is not None or hasattr(given, "schema"):
        rows, own, (labels, weights) = taken_apart(given, names, y, sample_weight)
        return Chunk(rows, labels, weights, own)
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"A chunk of X has {len(parts)} parts. {_EXPECTED}.")
    rows, own = rows_of_part(parts[0], names)
    if rows.ndim < 2 or rows.dtype.kind not in "biuf":
        raise ValueError(
            f"A chunk of X begins with an array of shape {rows.shape} and dtype {rows.dtype}, where rows of numbers "
            f"were expected. {_EXPECTED}."
        )
    labels, weights = [*(None if part is None else as_array(part) for part in parts[1:]), None, None][:2]
    for part in (labels, weights):
        if part is not None and part.shape[:1] != rows.shape[:1]:
            raise ValueError(f"A chunk of X has {len(rows)} rows, and targets or weights of shape {part.shape}.")
    return Chunk(rows, labels, weights, own)
