"""Categorical columns of a table: their levels, and the columns of indicators that they become."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy import sparse

from skdeep.data.conversion import check_names, column_names, is_missing
from skdeep.engine.group import current
from skdeep.engine.stored import StoredArray

#: Levels of a column at most: where there are more, the rarest ones share an indicator.
MOST_LEVELS = 255
#: The name of these, and of values that are missing.
_RARE, _MISSING = "infrequent", "missing"
#: Values up to which a table is dense.
_DENSE_VALUES = 1 << 27


class Categories:
    """The categorical columns of the table that an estimator is fitted to."""

    def __init__(self, columns: list[int], counts: list[Counter], names: list[str]):
        self.columns = columns
        #: The other columns, which come first.
        self.rest = [j for j in range(len(names)) if j not in set(columns)]
        #: The levels of each that are known, sorted; None, at the end, stands for a missing value.
        self.levels: list[list] = []
        #: Whether its rare levels share an indicator, which comes last; levels that are new do then, too.
        self.pools: list[bool] = []
        for own in counts:
            levels = _sorted([level for level in own if level is not None])
            pools = len(levels) > MOST_LEVELS
            if pools:
                levels = _sorted(sorted(levels, key=lambda level: -own[level])[: MOST_LEVELS - 1])
            self.levels.append(levels + [None] * (None in own))
            self.pools.append(pools)
        #: Of the columns that the table becomes; where others would have one as well, it says more.
        self.names = np.array(_encoded_names(self, names), dtype=object)

    @property
    def indicators(self) -> slice:
        """Where the indicators are."""
        return slice(len(self.rest), len(self.names))

    def codes(self, X: Any, at: int) -> tuple[np.ndarray, int]:
        """Number the levels of a categorical column, -1 for those that have no indicator; and count the indicators."""
        levels, pools = self.levels[at], self.pools[at]
        number: dict[Hashable, int] = {level: i for i, level in enumerate(levels)}
        unknown = len(levels) if pools else -1
        values, code = _levels(X, self.columns[at])
        _warn_of_other_kinds(values, number, X, self.columns[at])
        of_values = np.array([number.get(v, -1 if v is None else unknown) for v in values] or [-1], dtype=np.int64)
        return of_values[code], len(levels) + pools

    def joined(self, numbers: np.ndarray, X: Any) -> Any:
        """Make the matrix of the other columns, as `numbers`, and the indicators; sparse where it would be large."""
        n = len(numbers)
        parts = [self.codes(X, at) for at in range(len(self.columns))]
        width = len(self.names)
        dtype = numbers.dtype if numbers.dtype.kind == "f" and numbers.shape[1] else np.dtype(np.float64)
        if n * width > _DENSE_VALUES:
            of_codes = [
                sparse.csr_array(
                    (np.ones((code >= 0).sum(), dtype), (np.flatnonzero(code >= 0), code[code >= 0])), shape=(n, size)
                )
                for code, size in parts
            ]
            return sparse.csr_array(sparse.hstack([sparse.csr_array(numbers.astype(dtype)), *of_codes], format="csr"))
        table, start = np.zeros((n, width), dtype), numbers.shape[1]
        table[:, :start] = numbers
        for code, size in parts:
            known = np.flatnonzero(code >= 0)
            table[known, start + code[known]] = 1
            start += size
        return table


def _encoded_names(categories: Categories, names: list[str]) -> list[str]:
    """Name the columns that a table becomes, given the names of its own."""
    found, longer = [names[j] for j in categories.rest], [""] * len(categories.rest)
    for j, levels, pools in zip(categories.columns, categories.levels, categories.pools, strict=True):
        texts = [(str(level), repr(level)) if level is not None else (_MISSING, _MISSING) for level in levels]
        texts += [(_RARE, _RARE)] * pools
        found += [f"{names[j]}_{text}" for text, _ in texts]
        longer += [f"{names[j]}_{text} (column {j})" for _, text in texts]
    count = Counter(found)
    return [more if more and count[name] > 1 else name for name, more in zip(found, longer, strict=True)]


def categories_of(X: Any, categorical_features: Any) -> Categories | None:
    """Find the categorical columns of a table, and their levels; None where there are none.

    Of `categorical_features`, "from_dtype" takes the columns of a data frame whose dtype says so; a list has names or
    positions, or is a mask; None takes none. Raise where it names columns that are not there, or a column holds what
    cannot be a level.
    """
    names = column_names(X)
    if categorical_features is None or (isinstance(categorical_features, str) and names is None):
        return None
    X = as_table(X)
    if len(X.shape) != 2:
        return None
    if isinstance(categorical_features, str):
        columns = [j for j, dtype in enumerate(X.dtypes) if is_categorical(dtype)]
    else:
        columns = _chosen(categorical_features, names, X.shape[1])
        if columns and isinstance(X, StoredArray):
            raise ValueError(
                "categorical_features names columns of an X that is not in memory, whose levels would take a pass over "
                "it. Make indicators of them in the chunks, or where X is stored."
            )
    if not columns:
        return None
    check_names(names or [])
    group = current()
    with group.agreeing():
        counts = [_counted(X, j) for j in columns]
    of_all: list[Counter] = [sum(parts, Counter()) for parts in zip(*group.gather(counts), strict=True)]
    return Categories(columns, of_all, [f"x{j}" for j in range(X.shape[1])] if names is None else list(map(str, names)))


def as_table(X: Any) -> Any:
    """Make lists, and sparse matrices, something whose columns can be taken."""
    if sparse.issparse(X):
        return X.toarray()
    return X if hasattr(X, "shape") else np.asarray(X, dtype=object)


def is_categorical(dtype: Any) -> bool:
    """Say whether a dtype is one of categories: pandas', Polars' Categorical and Enum, Arrow's dictionaries."""
    return hasattr(dtype, "categories") or str(dtype).startswith(("Categorical", "Enum", "dictionary<"))


def others(X: Any, categories: Categories) -> Any:
    """Take the columns of a table that are not categorical."""
    return X.iloc[:, categories.rest] if hasattr(X, "iloc") else X[:, categories.rest]


def _chosen(wanted: Any, names: list | None, n_columns: int) -> list[int]:
    """Find the positions of the columns that a list names."""
    wanted = [item.item() if isinstance(item, np.generic) else item for item in wanted]
    if wanted and all(isinstance(item, bool) for item in wanted):
        if len(wanted) != n_columns:
            raise ValueError(f"categorical_features is a mask of {len(wanted)} columns, and X has {n_columns}.")
        return [j for j, is_one in enumerate(wanted) if is_one]
    columns = []
    for item in wanted:
        if isinstance(item, Integral) and not isinstance(item, bool):
            found = int(item) if 0 <= int(item) < n_columns else None
        else:
            found = names.index(item) if names is not None and item in names else None
        if found is None:
            of_names = "" if names is None else f" Its columns are {names}."
            raise ValueError(f"categorical_features has {item!r}, which is no column of X.{of_names}")
        columns.append(found)
    return sorted(set(columns))


def _counted(X: Any, j: int) -> Counter:
    """Count the rows of each level of a column that occurs; None is a missing value."""
    levels, codes = _levels(X, j)
    counts = np.bincount(codes, minlength=len(levels))
    return Counter({level: int(n) for level, n in zip(levels, counts, strict=True) if n})


def _levels(X: Any, j: int) -> tuple[list, np.ndarray]:
    """List the values of a column, and the number of each row's; None, where a value is missing."""
    column = X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]
    if hasattr(column, "cat") and hasattr(getattr(column, "dtype", None), "categories") and hasattr(X, "iloc"):
        values = [_plain(value) for value in np.asarray(column.cat.categories, dtype=object)]
        codes = np.asarray(column.cat.codes, dtype=np.int64)
        return [*values, None], np.where(codes < 0, len(values), codes)
    if is_categorical(getattr(column, "dtype", None)) and hasattr(column, "cast"):
        column = column.cast(str).to_list()
    values = [_plain(value) for value in np.asarray(column, dtype=object).tolist()]
    number: dict[Hashable, int] = {}
    try:
        codes = np.array([number.setdefault(value, len(number)) for value in values], dtype=np.int64)
    except TypeError as error:
        name = (column_names(X) or range(X.shape[1]))[j]
        raise ValueError(f"Column {name!r} of X is to be categorical, and holds what is no level: {error}.") from error
    return list(number), codes


def _warn_of_other_kinds(values: list, known: dict[Hashable, int], X: Any, j: int) -> None:
    """Warn where none of the values of a column is known, nor of a type of those that are: such as 1 and "1"."""
    kinds, of_known = ({_kind(level) for level in levels if level is not None} for levels in (values, known))
    if kinds and of_known and kinds.isdisjoint(of_known):
        name = (column_names(X) or range(X.shape[1]))[j]
        given, example = (next(level for level in levels if level is not None) for levels in (values, known))
        warnings.warn(
            f"Column {name!r} of X holds values of another type ({given!r}) than the levels that were trained on "
            f"({example!r}), so that all of them count as unknown. Convert the column.",
            stacklevel=2,
        )


def _kind(level: Any) -> str:
    return "number" if isinstance(level, Real) else type(level).__name__


def _plain(value: Any) -> Any:
    """Make one value of all that are equal, or missing."""
    if is_missing(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _sorted(levels: list) -> list:
    try:
        return sorted(levels)
    except TypeError:  # of several types
        return sorted(levels, key=lambda level: (type(level).__name__, str(level)))
