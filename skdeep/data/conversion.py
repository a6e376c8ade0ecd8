"""Conversion of data frames and arrays of objects to numbers; where they hold none, which column is at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

_ENCODE = (
    "Declare those that are categories: X.astype({'column': 'category'}), or categorical_features=['column']. Or "
    "encode them in front of the classifier: OneHotEncoder or OrdinalEncoder in a ColumnTransformer, or "
    "skrub.TableVectorizer for a whole table. Convert those whose values are numbers with astype(float)."
)
_DATES = "Of dates and durations, take what matters as numbers: the year, or days since a date; skrub's encoders do so."
#: Beginnings of the names of Arrow's types of numbers.
_ARROW_NUMBERS = ("int", "uint", "float", "double", "halffloat", "bool", "decimal", "null")
#: Columns at fault that a message lists.
_AT_MOST = 10


class NotNumbersError(ValueError, TypeError):
    """Values that cannot become numbers: scikit-learn raises the one or the other, by their type."""


def is_missing(value: Any) -> bool:
    """Say whether an object stands for no value: None, NaN, NaT or pandas.NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas need not be installed
        return True
    return isinstance(value, float | np.floating | np.datetime64 | np.timedelta64) and bool(value != value)


def column_names(X: Any) -> list | None:
    """List the names of the columns of a data frame; None for anything else."""
    # the shape first: of a lazy frame, to ask for the rest is expensive
    is_table = len(getattr(X, "shape", ())) == 2 and hasattr(X, "dtypes") and hasattr(X, "columns")
    return list(X.columns) if is_table else None


def framed(X: Any, categorical_features: Any) -> Any:
    """Make a frame of pandas of a table of Arrow's that may have categories; anything else is returned as it is."""
    if type(X).__module__ != "pyarrow.lib" or not hasattr(X, "schema"):
        return X
    named = categorical_features is not None and not isinstance(categorical_features, str)
    return X.to_pandas() if named or not all(str(kind).startswith(_ARROW_NUMBERS) for kind in X.schema.types) else X


def place(at: tuple, names: list | None = None) -> str:
    """Say where a value is, for a message."""
    if not at:
        return "as a whole"
    row, *column = map(int, at)
    if not column:
        return f"in row {row}"
    where = column[0] if len(column) == 1 else tuple(column)
    return f"in row {row}, column {where if names is None or len(column) > 1 else repr(names[column[0]])}"


def floats(objects: np.ndarray) -> np.ndarray:
    """Convert an array of objects to float64, with NaN where a value is missing.

    Raise where one is no number, and say which.
    """
    try:
        return objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    result = np.empty(objects.shape)
    for at in np.ndindex(objects.shape):
        try:
            result[at] = np.nan if is_missing(objects[at]) else float(objects[at])
        except (TypeError, ValueError, OverflowError) as error:
            raise NotNumbersError(f"{error}, {place(at)}") from error
    return result


def are_numbers(column: Any) -> bool:
    """Say whether all objects of a column are numbers or missing; digits that are text are names."""
    objects = np.asarray(column, dtype=object)
    if any(isinstance(value, str) for value in objects):
        return False
    try:
        floats(objects)
    except NotNumbersError:
        return False
    return True


def as_plain(y: Any) -> Any:
    """Make NumPy's booleans, integers or floats of the numbers in a target, and of no other."""
    plain, may_be_other = np.asarray(y), hasattr(getattr(y, "dtype", None), "numpy_dtype")  # of pandas
    if plain.ndim != 1 or not (plain.dtype.kind == "O" or (may_be_other and plain.dtype.kind in "biuf")):
        return y
    if plain.dtype.kind == "O":
        objects = plain
        if any(map(is_missing, objects)) or not are_numbers(objects):
            return y
        plain = np.array(objects.tolist())
        plain = plain if plain.dtype.kind in "biuf" else floats(objects)
    return type(y)(plain, index=y.index, name=y.name) if hasattr(y, "iloc") else plain


def collected(X: Any) -> Any:
    """Return data as it is, unless it is a lazy frame; raise for that."""
    if hasattr(X, "collect") and hasattr(X, "collect_schema"):
        raise ValueError(
            "X is a lazy frame; pass X.collect(). If that does not fit into memory, write it to Parquet "
            "(X.sink_parquet) and pass a data set of pyarrow, or a function that returns an iterator of chunks (X, y)."
        )
    return X


def as_numbers(X: Any) -> Any:
    """Make numbers of the objects in X; plain numbers are returned as they are.

    Raise where columns of a data frame, or a value of an array, are no numbers, and say which.
    """
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan) if X.mask.any() else X.data
    names = column_names(collected(X))
    if names is not None:
        return _frame(X, names)
    X = one_array(X)
    kind = X.dtype.kind if isinstance(X, np.ndarray) else ""
    if kind == "V" and X.dtype.names:
        raise NotNumbersError(f"X is a structured array, with the fields {X.dtype.names}; pass pandas.DataFrame(X).")
    if kind in ("M", "m"):
        raise NotNumbersError(f"X has dtype {X.dtype}, which are no numbers. {_DATES}")
    if kind not in ("O", "U", "S"):
        return X
    try:
        numbers = floats(X.astype(object, copy=False))
    except NotNumbersError as error:
        raise NotNumbersError(f"{error} of X. {_ENCODE}") from error
    return numbers if kind == "O" else X  # words for numbers are refused, as scikit-learn does it


def one_array(X: Any) -> Any:
    """Make an array of a list; raise where X is several arrays, or the name of a file."""
    if isinstance(X, str | PathLike):
        raise ValueError(f"X is a name, {str(X)!r}. Pass what it names: pandas.read_csv(X), for example.")
    is_dictionary = isinstance(X, Mapping) and not hasattr(X, "shape")  # which one of SciPy's sparse formats has
    fault = f"a dictionary, with the keys {list(X)[:_AT_MOST]}" if is_dictionary else ""
    try:
        X = np.asarray(X) if isinstance(X, list | tuple) else X
    except ValueError:
        fault = "a list of rows, or of arrays, of several shapes"
    if fault:
        raise ValueError(
            f"X is {fault}; expected one array, or a data frame of columns, with rows of one length. Put inputs of "
            "several kinds side by side (np.column_stack); a module of your own takes them apart: x[:, :2], x[:, 2:]."
        )
    return X


def check_names(names: list) -> None:
    """Raise where columns have one name."""
    if several := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"X has several columns of the same name: {several}. Rename or drop them.")


def _frame(X: Any, names: list) -> Any:
    """Make a data frame whose columns are all numbers."""
    check_names(names)
    faults, dates = [], False
    converted: dict[Any, np.ndarray] = {}
    for j, (name, dtype) in enumerate(zip(names, X.dtypes, strict=True)):
        kind = _kind(dtype)
        if kind == "objects":
            column = X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]
            try:
                converted[name] = floats(np.asarray(column, dtype=object))
            except NotNumbersError as error:
                faults.append(f"{name!r} ({dtype}: {error})")
        elif kind != "numbers":
            faults.append(f"{name!r} ({dtype})")
            dates |= kind == "dates"
    if faults:
        more = f" and {len(faults) - _AT_MOST} more" if len(faults) > _AT_MOST else ""
        raise NotNumbersError(
            f"Columns of X that are no numbers: {', '.join(faults[:_AT_MOST])}{more}. {_ENCODE}"
            f"{' ' + _DATES if dates else ''}"
        )
    if converted and hasattr(X, "iloc"):
        X = X.copy(deep=False)
        for name, column in converted.items():
            X[name] = column
    return X


def _kind(dtype: Any) -> str:
    """Say what a column of this dtype holds: "numbers", "objects" that may be numbers, "dates", or something "else"."""
    if hasattr(dtype, "is_numeric"):  # of Polars
        if dtype.is_numeric() or str(dtype) in ("Boolean", "Null"):
            return "numbers"
        return "objects" if str(dtype) in ("String", "Object") else "dates" if dtype.is_temporal() else "else"
    kind = getattr(dtype, "kind", "O")
    if hasattr(dtype, "categories"):
        return "else"
    return "dates" if kind in ("M", "m") else "numbers" if kind in ("b", "i", "u", "f", "c") else "objects"
