"""Which data is not in memory, and how it is read: arrays in files by slices; chunks that come in passes, in order."""

from __future__ import annotations

import warnings
from mmap import mmap
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from skdeep.data.chunks import Chunks, are_chunks
from skdeep.data.conversion import collected
from skdeep.engine.stored import StoredArray

# dtypes that torch can gather and cast; anything else is converted to float64
TORCH_KINDS = {np.dtype(t) for t in "f8 f4 f2 u1 i1 i2 i4 i8 ?".split()}

#: Bytes of a memory map from which on its rows are read in blocks, and not one by one wherever they lie.
MAPPED_BYTES = 1 << 32
#: Share of the rows of a window that may be of other classes than those of all rows would be.
_MOST_APART = 0.25


def is_stored(X: Any) -> bool:
    """Tell whether data is not in memory.

    That is an array in a file (Zarr, h5py, TileDB, Dask, xarray: anything with ``shape`` and ``dtype`` that is read by
    slices and is no array of NumPy's, torch's or the array API's), and chunks that can be passed over again and again
    (see `skdeep.data.chunks`).
    """
    return isinstance(X, StoredArray) or are_chunks(X) or _is_array(X)


def opened(X: Any, names: np.ndarray | None = None) -> Any:
    """Make a `StoredArray` of data that is not in memory; anything else is returned as it is.

    Of tables, `names` are the columns to take. Raise where it has no numbers or an unknown length, or can be passed
    over but once.
    """
    if are_chunks(X):
        return _of_chunks(Chunks.of(X, None, None, names))
    if hasattr(X, "to_dask_array"):
        raise ValueError("X is a data frame of Dask; pass X.to_dask_array(lengths=True), which is read by blocks.")
    return StoredArray(X, _dtype_of(X), _rows_at_once(X)) if _is_array(X) else X


def opened_with_targets(X: Any, y: Any, sample_weight: Any, names: np.ndarray | None = None) -> tuple[Any, Any, Any]:
    """Open data to learn of; chunks have the targets, and may have the weights, in them.

    A large memory map is read by blocks as well, which is one piece of the file at a time.
    """
    if are_chunks(X):
        chunks = Chunks.of(X, y, sample_weight, names, labelled=True)
        return _of_chunks(chunks), chunks.labels, chunks.weights
    if isinstance(X, np.ndarray) and X.nbytes > MAPPED_BYTES and X.ndim > 1 and is_mapped(X):
        array = StoredArray(X, _dtype_of(X))
    else:
        array = opened(X)
    if not isinstance(array, StoredArray):
        return array, y, sample_weight
    return array, _in_memory(y), _in_memory(sample_weight)


def in_memory(X: Any) -> Any:
    """Read an array in a file, of which rows are to be taken by their numbers; anything else is returned as it is."""
    if are_chunks(X):
        raise ValueError(
            f"X comes in chunks ({type(X).__name__}), of which no rows can be held out by their numbers. Pass an array "
            "or a data frame."
        )
    array = opened(collected(X))
    return np.asarray(X[:]) if isinstance(array, StoredArray) else X


def _in_memory(values: Any) -> Any:
    """Read targets or weights that are an array in a file; anything else is returned as it is."""
    return np.asarray(values[:]) if _is_array(values, 1) else values


def _of_chunks(chunks: Chunks) -> StoredArray:
    array = StoredArray(chunks, chunks.dtype, in_order=not chunks.can_begin_anywhere)
    array.finite |= chunks.finite
    return array


def _is_array(X: Any, n_axes: int = 2) -> bool:
    """Tell whether something is an array that is not in memory, of so many axes at least."""
    if isinstance(X, np.ndarray | Tensor | StoredArray) or sparse.issparse(X):
        return False
    if not all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__")) or len(X.shape) < n_axes:
        return False
    # neither frames, nor arrays of other libraries, nor PyData's sparse ones
    return not any(hasattr(X, name) for name in ("iloc", "columns", "__array_namespace__", "todense"))


def warn_of_sorted_rows(X: StoredArray, codes: np.ndarray) -> None:
    """Warn of rows that come in their order, and in which classes are far from evenly spread over the windows."""
    n, window = len(codes), X.window_rows
    if not X.in_order or codes.ndim > 1 or n <= window:
        return
    counts = np.bincount(codes)
    parts = (codes[start : start + window] for start in range(0, n - window + 1, window))
    apart = max(np.abs(np.bincount(part, minlength=len(counts)) / window - counts / n).sum() / 2 for part in parts)
    if apart > _MOST_APART:
        warnings.warn(
            f"X gives chunks in which classes come one after another: of {window} rows in turn, which fit shuffles, up "
            f"to {apart:.0%} would have to be of other classes to be like all rows. The model may be much worse than "
            "one of shuffled rows. Shuffle the rows where they are stored, or pass an array that can be read anywhere "
            "(Zarr, HDF5).",
            stacklevel=7,
        )


def is_mapped(array: Any) -> bool:
    """Say whether an array lies in a file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap)


def _dtype_of(X: Any) -> np.dtype:
    """Choose the dtype to read an array in: its own where torch has it, else float64."""
    if any(not float(size).is_integer() for size in X.shape):
        raise ValueError(
            f"X has the shape {tuple(X.shape)}, of which not all is known. Compute it (of a Dask array: "
            "X.compute_chunk_sizes())."
        )
    try:
        dtype = np.dtype(X.dtype).newbyteorder("=")
    except TypeError:
        dtype = np.asarray(X[:1]).dtype
    if dtype.kind not in "biuf":
        raise ValueError(
            f"X is an array of dtype {dtype} that is not in memory; expected real numbers. Convert it where it is "
            "stored, or pass np.asarray(X) if it fits into memory."
        )
    return dtype if dtype in TORCH_KINDS else np.dtype(np.float64)


def _rows_at_once(X: Any) -> int:
    """Ask an array how many rows lie in one piece."""
    chunks = getattr(X, "chunks", None)
    if not isinstance(chunks, tuple | list) or not len(chunks):
        return 1
    rows = max(chunks[0], default=1) if isinstance(chunks[0], tuple | list) else chunks[0]
    return int(rows) if isinstance(rows, int | np.integer) and rows > 0 else 1
