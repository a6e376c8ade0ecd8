"""What users pass in, and what they get back: arrays, data frames, sparse matrices, tensors, devices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn import get_config
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.validation import validate_data
from torch import Tensor

from skdeep.compat.sklearn import _check_feature_names, _check_n_features, get_namespace_and_device, move_to
from skdeep.data.categories import Categories, as_table, categories_of, others
from skdeep.data.conversion import NotNumbersError, as_numbers, column_names, floats, framed, one_array, place
from skdeep.data.stored import TORCH_KINDS, is_mapped, opened
from skdeep.engine.rows import MAX_VALUES, DenseRows, SparseRows, as_tensor
from skdeep.engine.stored import StoredArray, rows_of_stored

#: A matrix as the rest of the package sees it: an ndarray, a CSR array, or a Tensor (SciPy has no types to say so).
Matrix: TypeAlias = Any

#: What users pass as a table or a target: an array of any namespace, a sparse matrix, a Tensor, a frame, or lists.
Data: TypeAlias = Any

#: An estimator of this package. Its class, whose room is above those that ask it for its parameters, cannot be named.
Classifier: TypeAlias = Any

#: Multiply-adds of a step below which a GPU, some 40 launches of 5 µs away, is no faster than a core.
_ACCELERATOR_WORK = 1e7

#: Up to this size, even column-major data in a file is copied.
_SMALL_BYTES = 1 << 26
#: Weights of all rows that penalties, up to a hundred, can be divided by.
_LEAST_WEIGHT = 1e-306


def to_numpy(array: Any) -> Any:
    """Move an array of any namespace, on any device, to NumPy; other objects are returned as they are."""
    if isinstance(array, Tensor):
        array = array.float() if array.dtype is torch.bfloat16 else array
        return array.detach().cpu().numpy()
    if isinstance(array, np.ndarray):  # scikit-learn 1.9.0 would make a copy that cannot be written
        return array
    if get_config()["array_api_dispatch"] and hasattr(array, "__array_namespace__"):
        return move_to(array, xp=np, device="cpu")
    return array


def dense(array: Any) -> np.ndarray:
    """Make a dense NumPy array of an array of any kind."""
    return array.toarray() if sparse.issparse(array) else to_numpy(array)


def check_features(estimator: Classifier, X: Data, *, reset: bool, min_samples: int = 1) -> Matrix:
    """Validate X and record, or compare, its number of columns and their names (for images: the shape of a row).

    Returned is an ndarray, a CSR array or a Tensor, in the user's dtype where torch can work with it (integers stay
    integers), else float64; a tensor that is not on the CPU stays where it lies. Raise where X is no finite, real
    matrix with the expected columns.
    """
    X = opened(X, None if reset else getattr(estimator, "feature_names_in_", None))
    X = framed(X, estimator.categorical_features)
    known = getattr(estimator, "_categories", None)
    categories = categories_of(X, estimator.categorical_features) if reset else known
    if categories is not None:
        return _check_table(estimator, X, categories, reset, min_samples)
    if not estimator._allow_nd:
        return _check_matrix(estimator, X, reset, min_samples)
    shape = None if reset else estimator.input_shape_
    if shape is not None and isinstance(X, np.ndarray | Tensor | StoredArray) and X.shape[1:] == (math.prod(shape),):
        X = X.reshape(-1, *shape)  # as vectors, which is what callbacks and scorers are given
    of_vectors = shape is None or len(shape) == 1  # else the number of columns alone would say little
    X = _check_matrix(estimator, X, reset, min_samples) if of_vectors else one_array(X)
    if shape is not None and tuple(np.shape(X)[1:]) != shape:
        raise ValueError(
            f"X has rows of shape {tuple(np.shape(X)[1:])}, but {type(estimator).__name__} is expecting rows of shape "
            f"{shape} as input. One row alone is X[None]."
        )
    X = X if of_vectors else _check_matrix(estimator, X, reset, min_samples)
    estimator.input_shape_ = tuple(X.shape[1:])
    return X if X.ndim == 2 else X.reshape(len(X), -1)


def _check_table(estimator: Classifier, X: Data, categories: Categories, reset: bool, min_samples: int) -> Matrix:
    """Validate a table with categorical columns, and make it numbers."""
    _check_feature_names(estimator, X, reset=reset)
    X = as_table(X)
    _check_n_features(estimator, X, reset=reset)
    if reset:
        estimator._categories, estimator.encoded_features_ = categories, categories.names
    numbers = np.empty((X.shape[0], 0))
    if categories.rest:
        form = {"dtype": "numeric", "ensure_all_finite": False, "ensure_min_samples": min_samples}
        numbers = check_array(as_numbers(others(X, categories)), **form)
    if numbers.dtype.newbyteorder("=") not in TORCH_KINDS:
        numbers = numbers.astype(np.float64)
    table = categories.joined(numbers, X)
    _check_finite(estimator, table, categories.names.tolist())
    if estimator._allow_nd:
        estimator.input_shape_ = table.shape[1:]
    return table


def _check_matrix(estimator: Classifier, X: Data, reset: bool, min_samples: int) -> Matrix:
    """Validate X and convert it to a matrix, whatever the shape of a row."""
    if isinstance(X, Tensor):
        if X.layout is not torch.strided:
            raise TypeError("X is a sparse tensor; pass X.to_dense(), or a sparse array of SciPy, which stays sparse.")
        X = X.detach()
        if X.device.type == "cpu":
            X = (X.float() if X.dtype is torch.bfloat16 else X).numpy()
    if isinstance(X, Tensor | StoredArray):  # which NumPy cannot see
        _check_form(estimator, X, reset, min_samples)
        _check_finite(estimator, X, X.names if isinstance(X, StoredArray) else None)
        return X
    known = type(X) is np.ndarray or (sparse.issparse(X) and X.format == "csr")
    if known and X.ndim == 2 and X.dtype in TORCH_KINDS and X.shape[0] >= min_samples and X.shape[1]:
        # nothing is left to ask but this, and scikit-learn asks for longer than an epoch of a small fit takes
        names = None
        _check_columns(estimator, X, reset)
    else:
        names = column_names(X)
        X = validate_data(
            estimator,
            as_numbers(X),
            reset=reset,
            accept_sparse=("csr", "csc", "coo"),
            dtype="numeric",
            ensure_min_samples=min_samples,
            ensure_all_finite=False,
            allow_nd=estimator._allow_nd,
        )
        X = to_numpy(X)
        if X.dtype.newbyteorder("=") not in TORCH_KINDS:
            with np.errstate(over="ignore"):
                X = X.astype(np.float64)
    _check_finite(estimator, X, names)
    if not sparse.issparse(X):
        return X
    X = sparse.csr_array(X)
    if not X.dtype.isnative:
        X = sparse.csr_array((X.data.astype(X.dtype.newbyteorder("=")), X.indices, X.indptr), shape=X.shape)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X


def suspicious_parts(values: np.ndarray | Tensor | StoredArray) -> Iterator[tuple[int, Any]]:
    """Find the parts of some rows whose sum is not finite, and where each begins: it may still be the sum alone."""
    if isinstance(values, StoredArray) and values.finite:
        return
    step, all_finite = max(1, MAX_VALUES // math.prod(values.shape[1:])), True
    wide: dict[str, Any] = {}
    if isinstance(values, Tensor):  # of which few sums may overflow: a part that is looked at is moved to the host
        floating, wide["dtype"] = values.is_floating_point(), torch.promote_types(values.dtype, torch.float32)
    else:
        floating = values.dtype.kind == "f"
    for start in range(0, len(values), step) if floating else ():
        part = values[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            if not math.isfinite(part.sum(**wide)):  # which is soon said
                all_finite = False
                yield start, part
    if isinstance(values, StoredArray):
        values.finite = all_finite  # which is not asked again: it takes a pass


def has_missing(X: Matrix) -> bool:
    """Tell whether a value is missing (NaN)."""
    values = X.data if sparse.issparse(X) else X
    # which alone is not itself
    return any(bool((part != part).any()) for _, part in suspicious_parts(values))


def _check_finite(estimator: Classifier, X: Matrix, names: list | None) -> None:
    """Refuse infinities and NaN, in parts of X: where a sum overflows, each of their values is looked at."""
    values = X.data if sparse.issparse(X) else X
    allow_nan = estimator._allow_nan and not sparse.issparse(X)
    for start, part in suspicious_parts(values):
        part = to_numpy(part)
        try:
            assert_all_finite(part, allow_nan=allow_nan, estimator_name=type(estimator).__name__, input_name="X")
        except ValueError as error:
            bad = np.isnan(part) if "NaN" in str(error) else np.isinf(part)
            at = np.argwhere(bad)[0]
            at[0] += start
            if sparse.issparse(X):
                entries = X.tocoo()  # in the order of the values
                at = np.array([axis[at[0]] for axis in entries.coords])
            advice = f"\n{estimator._nan_advice}" if estimator._nan_advice and "NaN" in str(error) else ""
            raise ValueError(f"{error}\nThe first is {place(tuple(at), names)}.{advice}") from error


def _check_form(estimator: Classifier, X: Tensor | StoredArray, reset: bool, min_samples: int) -> None:
    """Raise where an array is no matrix of real numbers, or has not as many columns as are known."""
    if X.ndim != 2 and not (estimator._allow_nd and X.ndim > 2):
        raise ValueError(f"Expected 2D array, got {X.ndim}D array instead. Reshape your data.")
    if len(X) < min_samples or X.shape[1] < 1:
        raise ValueError(
            f"Found array with {len(X)} sample(s) and {X.shape[1]} feature(s) (shape={tuple(X.shape)}) while a minimum "
            f"of {min_samples} and 1 is required by {type(estimator).__name__}."
        )
    if isinstance(X, Tensor) and X.is_complex():
        raise ValueError("Complex data not supported")
    _check_columns(estimator, X, reset)


def _check_columns(estimator: Classifier, X: np.ndarray | Tensor | StoredArray, reset: bool) -> None:
    """Record, or compare, the number of columns of an array, and their names where chunks of it have some."""
    names = X.names if isinstance(X, StoredArray) else None
    if hasattr(estimator, "feature_names_in_") and (reset or names is None):  # else they were taken by their names
        _check_feature_names(estimator, X, reset=reset)
    if reset and names is not None:
        estimator.feature_names_in_ = np.array(names, dtype=object)
    if reset:
        estimator.n_features_in_ = X.shape[1]
    else:
        _check_n_features(estimator, X, reset=False)


def check_weight(weight: ArrayLike | None, X: Matrix, name: str = "sample_weight") -> np.ndarray | None:
    """Validate sample weights: finite, not negative, not all zero; a float64 vector, or None for None."""
    if weight is None:
        return None
    n_samples = X.shape[0]
    given = to_numpy(weight)
    weight = np.ma.filled(given.astype(float), np.nan) if isinstance(given, np.ma.MaskedArray) else np.asarray(given)
    if weight.dtype.kind not in "biuf":
        if weight.dtype.kind not in "OUS":
            raise ValueError(f"{name} must hold numbers, got an array of dtype {weight.dtype}.")
        try:
            weight = floats(weight.astype(object))
        except NotNumbersError as error:
            raise ValueError(f"{name} must hold numbers: {error}.") from error
    weight = weight.astype(np.float64, copy=False)
    if weight.ndim == 0:
        weight = np.full(n_samples, weight)
    if weight.shape != (n_samples,):
        raise ValueError(f"{name}.shape == {weight.shape}, expected {(n_samples,)}!")
    for bad, what in ((np.isnan(weight), "NaN"), (np.isinf(weight), "infinity")):
        if bad.any():
            raise ValueError(f"Input {name} contains {what}, first {place((bad.argmax(),))}. Weights must be finite.")
    if weight.min() < 0:
        first = int((weight < 0).argmax())
        raise ValueError(
            f"Negative values in data passed to `{name}`, first {weight[first]:g} in row {first}; weights must be zero "
            "or positive."
        )
    if not weight.any():
        raise ValueError(f"Sample weights must contain at least one non-zero number; `{name}` has none.")
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not np.isfinite(total):
        raise ValueError(f"The sum of `{name}` overflows; divide the weights by their maximum.")
    if total < _LEAST_WEIGHT:  # penalties are divided by it
        raise ValueError(f"The sum of `{name}`, {total:.3g}, is too small; divide the weights by their maximum.")
    return weight


def power_of_two(weight: np.ndarray) -> float:
    """Find the power of two below the largest weight: divided by it, weights fit any dtype, and keep their digits."""
    return math.ldexp(1.0, math.frexp(float(weight.max()))[1] - 1)


def rows_of(X: Matrix, device: torch.device, dtype: torch.dtype) -> DenseRows | SparseRows:
    """Make a source of batches of a matrix.

    Rows of column-major data cost a cache miss for each value, so that a copy pays; but what is mapped into memory may
    not fit there.
    """
    if sparse.issparse(X):
        return SparseRows(X, device, dtype)
    if isinstance(X, StoredArray):
        return rows_of_stored(X, device, dtype)
    mapped = isinstance(X, np.ndarray) and X.nbytes > _SMALL_BYTES and is_mapped(X)
    X = X if isinstance(X, Tensor) else as_tensor(X)
    return DenseRows(X if mapped else X.contiguous(), device, dtype)


@cache  # NumPy takes longer to spell it than the scores of a row take
def dtype_name(dtype: Any) -> str:
    """Spell a dtype of any namespace: "float32", or "f4" where its byte order is not the machine's."""
    return str(dtype).rpartition(".")[2].lstrip("<>=|")


def float_dtype(X: Matrix) -> np.dtype:
    """Choose the dtype of learned coefficients: X's own if it is float32 or float64, float32 for half, else float64.

    Of what is on MPS, where there is no float64, always float32.
    """
    on_mps = isinstance(X, Tensor) and X.device.type == "mps"
    single = on_mps or dtype_name(X.dtype) in ("float32", "f4", "float16", "f2", "bfloat16")
    return np.dtype(np.float32 if single else np.float64)


def available_devices() -> list[str]:
    """List the names of the devices that torch can use here."""
    names = ["cpu"]
    names += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def resolve_device(
    device: str | torch.device, X: Matrix, work: float, dtype: torch.dtype, *, fallback: bool = False
) -> torch.device:
    """Choose the torch device to compute on: for so many multiply-adds of a step (`work`), in a dtype.

    "auto" takes the device X lies on if it is a tensor on an accelerator; else an accelerator where a step is work
    enough for it to gain, and where it can do that work: CUDA, or MPS in single precision and on dense X. Else it is
    the CPU. Where the device is not there, raise, or with `fallback` take the CPU: for prediction, by a model that may
    have been trained elsewhere.
    """
    if isinstance(device, str) and device == "auto":
        if isinstance(X, Tensor) and X.device.type != "cpu":
            return X.device
        if work < _ACCELERATOR_WORK:
            return torch.device("cpu")
        able = ["cuda"] if dtype is torch.float64 or sparse.issparse(X) else ["cuda", "mps"]
        kinds = {name.partition(":")[0] for name in available_devices()}
        return torch.device(next((kind for kind in able if kind in kinds), "cpu"))
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        here = ", ".join(available_devices())
        raise ValueError(f"device={device!r} is not a torch device; available here: {here}.") from error
    if not _is_there(wanted):
        if fallback:
            return torch.device("cpu")
        here = ", ".join(available_devices())
        raise ValueError(f"device={str(device)!r} is not available; available here: {here}.")
    return wanted


def _is_there(device: torch.device) -> bool:
    """Say whether torch has this device; one that has it and fails is not asked."""
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    try:
        torch.empty(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        return False
    return True


class OutputSpace:
    """Where results go: NumPy, or the namespace and device of X under array API dispatch."""

    def __init__(self, X: Data) -> None:
        self.xp = self.device = None
        if get_config()["array_api_dispatch"] and not (sparse.issparse(X) or isinstance(X, StoredArray)):
            xp, is_array_api, device = get_namespace_and_device(X)
            if is_array_api and not isinstance(X, np.ndarray):
                self.xp, self.device = xp, device

    @property
    def is_numpy(self) -> bool:
        """Whether results are NumPy arrays."""
        return self.xp is None

    def array(self, array: np.ndarray | Tensor) -> Any:
        """Move a result there."""
        array = to_numpy(array)
        if self.xp is None:
            return array
        if getattr(self.device, "type", None) == "mps" and array.dtype == np.float64:  # which it does not have
            array = array.astype(np.float32)
        return self.xp.asarray(array, device=self.device)
