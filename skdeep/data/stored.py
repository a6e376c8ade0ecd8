"""Which data is not in memory, and how it is read: arrays in files by slices; chunks that come in passes, in order."""

from __future__ import annotations

from mmap import mmap
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from skdeep.data.chunks import Chunks, are_chunks
from skdeep.engine.stored import StoredArray

# dtypes that torch can gather and cast; anything else is converted to float64
TORCH_KINDS = {np.dtype(t) for t in "f8 f4 f2 u1 i1 i2 i4 i8 ?".split()}

#: Bytes of a memory map from which on its rows are read in blocks, and not one by one wherever they lie.
MAPPED_BYTES = 1 << 32


def opened(X: Any) -> Any:
    """Make a `StoredArray` of data that is not in memory; anything else is returned as it is.

    That is an array in a file (Zarr, h5py, TileDB, Dask, xarray: anything with ``shape`` and ``dtype`` that is read by
    slices and is no array of NumPy's, torch's or the array API's), a large memory map, and chunks that can be passed
    over again and again (see `skdeep.data.chunks`).

    Raises
    ------
    ValueError
        If it has no numbers, an unknown length, or can be passed over but once.
    """
    if are_chunks(X):
        chunks = X if isinstance(X, Chunks) else Chunks.of(X, None, None)
        return StoredArray(chunks, chunks.dtype, in_order=not chunks.can_begin_anywhere)
    if hasattr(X, "to_dask_array"):
        raise ValueError("X is a data frame of Dask; pass X.to_dask_array(lengths=True), which is read by blocks.")
    return StoredArray(X, _dtype_of(X), _rows_at_once(X)) if _is_array(X) else X


def opened_with_targets(X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Open data to learn of; chunks have the targets, and may have the weights, in them."""
    if not are_chunks(X):
        return opened(X), y, sample_weight
    chunks = Chunks.of(X, y, sample_weight, labelled=True)
    return opened(chunks), chunks.labels, chunks.weights


def _is_array(X: Any) -> bool:
    """Tell whether something is an array that is not in memory."""
    if isinstance(X, np.ndarray):
        return X.nbytes > MAPPED_BYTES and X.ndim > 1 and is_mapped(X)
    if isinstance(X, Tensor | StoredArray) or sparse.issparse(X) or type(X).__module__.startswith("sparse."):
        return False
    if any(hasattr(X, name) for name in ("iloc", "columns", "__array_namespace__")):  # in memory, whatever it is
        return False
    return all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__")) and len(X.shape) > 1


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
