"""The contestants that a comparison has by default: baselines that take a table as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target

from skdeep.data.conversion import are_numbers, as_numbers, column_names
from skdeep.data.inputs import Data
from skdeep.estimators.ensemble import MLPEnsembleClassifier
from skdeep.estimators.ensemble_regressor import MLPEnsembleRegressor
from skdeep.estimators.hinge import HingeClassifier
from skdeep.estimators.linear_regressor import LinearRegressor
from skdeep.estimators.mlp import MLPClassifierTorch
from skdeep.estimators.mlp_regressor import MLPRegressorTorch
from skdeep.estimators.softmax import SoftmaxClassifier

#: Rarer categories of a column are one, from so many categories on.
_MAX_CATEGORIES = 100
#: As many as HistGradientBoostingClassifier takes.
_MAX_CODES = 254

#: Beginnings of the names of types of columns that hold numbers.
_NUMBERS = ("int", "uint", "float", "double", "decimal", "bool")

#: Whole numbers are values, unless told otherwise, if more differ than so many, a tenth with fewer rows than these.
_MANY_CLASSES, _FEW_ROWS = 30, 5

#: The names of the contestants; the first is who the others are compared with.
DEFAULTS = ("logreg", "hgb", "softmax", "hinge", "mlp", "ensemble", "dummy")
#: The same for targets that are values.
DEFAULTS_OF_VALUES = ("ridge", "hgb", "linear", "mlp", "ensemble", "dummy")


def are_values(y: Data) -> bool:
    """Tell whether a target is numbers that are no classes: some are no whole ones, or there are too many."""
    return type_of_target(y, input_name="y").startswith("continuous") or are_like_values(y)


def are_like_values(y: Data) -> bool:
    """Tell whether a target is whole numbers of which so many differ that they are hardly classes."""
    values = np.asarray(y)
    if values.ndim != 1 or values.dtype.kind not in "iuf" or type_of_target(y, input_name="y") != "multiclass":
        return False
    counts = np.unique(values, return_counts=True)[1]
    return len(counts) > _MANY_CLASSES and int(np.count_nonzero(counts < _FEW_ROWS)) > len(counts) / 10


def default_contestants(
    X: Data, y: Data, names: Iterable[str] | None = None, of_values: bool | None = None
) -> dict[str, BaseEstimator]:
    """Make baselines for a table: each gets the steps in front that it needs, and no others.

    Categories (text and categorical columns) become indicators, which skdeep's classifiers make themselves, or codes
    that histograms take as categories. Missing numbers become means, with indicators, for what cannot take them.
    Columns without any value are left out. Logistic regression is behind a StandardScaler.

    `names` are some of DEFAULTS, or of DEFAULTS_OF_VALUES; None takes all. Whether y is values, `are_values` tells,
    unless `of_values` does. Raise where the target is none of classes, a name is unknown, or a column holds dates.
    """
    # which take a while to import
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = type_of_target(y, input_name="y")
    of_values = are_values(y) if of_values is None else of_values
    known = DEFAULTS_OF_VALUES if of_values else DEFAULTS
    names = list(known if names is None else names)
    if unknown := [name for name in names if name not in known]:
        what = "values" if of_values else "classes"
        raise ValueError(f"There is no default contestant {unknown[0]!r} for {what}. There are {', '.join(known)}.")
    if kind not in ("binary", "multiclass", "continuous"):
        raise ValueError(
            f"The default contestants learn classes or values, one for each row, and y is {kind}. Pass contestants of "
            "your own: a dictionary of names and estimators."
        )
    table = _look_at(X)
    # sparse columns keep their zeros: nothing is subtracted from them
    scaler = MaxAbsScaler() if table.is_sparse else StandardScaler()
    own: dict[str, Any] = {"random_state": 0, "categorical_features": table.categories or "from_dtype"}
    front = [*_front(table), *_imputer(table), scaler]
    made: dict[str, Any] = (
        {
            "ridge": [*front, Ridge()],
            "hgb": _histograms(HistGradientBoostingRegressor(random_state=0), table),
            "linear": _completed(LinearRegressor(**own), table),
            "mlp": [MLPRegressorTorch(**own)],
            "ensemble": [MLPEnsembleRegressor(**own)],
            "dummy": [DummyRegressor()],
        }
        if of_values
        else {
            "logreg": [*front, LogisticRegression(max_iter=1000)],
            "hgb": _histograms(HistGradientBoostingClassifier(random_state=0), table),
            "softmax": _completed(SoftmaxClassifier(**own), table),
            "hinge": _completed(HingeClassifier(**own), table),
            "mlp": [MLPClassifierTorch(**own)],
            "ensemble": [MLPEnsembleClassifier(**own)],
            "dummy": [DummyClassifier(strategy="prior")],
        }
    )
    return {name: made[name][0] if len(made[name]) == 1 else make_pipeline(*made[name]) for name in names}


@dataclass
class _Table:
    """What columns hold: which have categories, which nothing, what is missing, whether it is sparse, or objects."""

    categories: list
    empty: list = field(default_factory=list)
    is_missing: bool = False
    is_missing_name: bool = False  # by pandas' own sign
    is_sparse: bool = False
    has_objects: bool = False


def _look_at(X: Data) -> _Table:
    """Find out what the columns of X hold."""
    if sparse.issparse(X):
        return _Table([], is_missing=bool(np.isnan(X.data).any()), is_sparse=True)
    names = column_names(X)
    if names is None:
        values = np.asarray(X)
        if values.dtype.kind not in "iubfc":
            raise ValueError(
                f"X is an array of {values.dtype}, which does not say which columns hold categories. Pass a data "
                "frame, numbers, or contestants of your own."
            )
        gaps = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(np.shape(values), dtype=bool)
        empty = np.flatnonzero(gaps.all(axis=0)).tolist()
        return _Table([], empty, bool(np.delete(gaps, empty, axis=1).any()))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"X has several columns named {twice!r}: a column is known by its name. Rename them.")
    table = _Table([])
    for name in names:
        column = X[name]
        kind = str(column.dtype)
        if kind.lower().startswith(("date", "time", "period", "duration")):
            raise ValueError(
                f"Column {name!r} holds dates or durations ({column.dtype}). Take what matters as numbers: the year, "
                "or days since a date."
            )
        n_gaps = _count_gaps(column)
        if n_gaps == len(column):
            table.empty.append(name)
        elif kind.lower().startswith(_NUMBERS) or (kind == "object" and are_numbers(column)):
            table.is_missing |= n_gaps > 0
            # pandas' own types begin with a capital, and have missing values of their own
            table.has_objects |= kind == "object" or (hasattr(column, "iloc") and kind[0].isupper())
            table.has_objects |= kind == "boolean"
        else:
            table.categories.append(name)
            table.is_missing_name |= n_gaps > 0 and hasattr(column, "iloc")
    return table


def _count_gaps(column: Any) -> int:
    """Count the values that a column of a data frame lacks."""
    if hasattr(column, "isna"):
        return int(column.isna().sum())
    return column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)


def _plain(X: Data) -> np.ndarray:
    """Make an array of numbers, with NaN for whatever stands for no value."""
    return check_array(as_numbers(X), ensure_all_finite=False, ensure_min_features=0)


def _names(X: Any) -> Any:
    """Make objects of the names in a data frame, with None where one is missing, which encoders know."""
    return X.astype(object).where(X.notna(), None)


def _front(table: _Table) -> list:
    """List the steps that make numbers of a table."""
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MAX_CATEGORIES, sparse_output=False)
    return _encoded(encoder, table)


def _completed(model: Any, table: _Table) -> list:
    """Put in front of a classifier that takes categories what it needs to have no gaps."""
    if table.is_missing or table.empty:
        return [*_front(table), *_imputer(table), model.set_params(categorical_features=None)]
    return [model]


def _imputer(table: _Table) -> list:
    """List the step that what takes no missing values needs."""
    return [SimpleImputer(add_indicator=True, keep_empty_features=True)] if table.is_missing else []


def _histograms(model: Any, table: _Table) -> list:
    """Put codes in front of gradient boosting, which are its first columns."""
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=_MAX_CODES,
    )
    if table.categories:
        model.set_params(categorical_features=list(range(len(table.categories))))
    return [*_encoded(encoder, table), model]


def _encoded(encoder: Any, table: _Table) -> list:
    """List the step that encodes categories, which come first, and makes plain numbers of all other columns."""
    numbers = FunctionTransformer(_plain)
    named = make_pipeline(FunctionTransformer(_names), encoder) if table.is_missing_name else encoder
    parts = [(what, columns) for what, columns in ((named, table.categories), ("drop", table.empty)) if columns]
    if parts:
        return [make_column_transformer(*parts, remainder=numbers)]
    return [numbers] if table.has_objects else []
