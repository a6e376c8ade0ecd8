"""The contestants that a comparison has by default: baselines that take a table as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.utils.multiclass import type_of_target

from skdeep.data.conversion import column_names
from skdeep.data.inputs import Data
from skdeep.estimators.ensemble import MLPEnsembleClassifier
from skdeep.estimators.hinge import HingeClassifier
from skdeep.estimators.mlp import MLPClassifierTorch
from skdeep.estimators.softmax import SoftmaxClassifier

#: Rarer categories of a column are one, from so many categories on.
_MAX_CATEGORIES = 100
#: As many as HistGradientBoostingClassifier takes.
_MAX_CODES = 254

#: The names of the contestants; the first is who the others are compared with.
DEFAULTS = ("logreg", "hgb", "softmax", "hinge", "mlp", "ensemble", "dummy")


def default_contestants(X: Data, y: Data, names: Iterable[str] = DEFAULTS) -> dict[str, BaseEstimator]:
    """Make baselines for a table: each gets the steps in front that it needs, and no others.

    Categories (text, objects, categorical columns; booleans if some are missing) become indicators, or codes that
    histograms take as categories. Missing numbers become means, with indicators, for what cannot take them. Logistic
    regression is behind a StandardScaler.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
    names : iterable of str
        Which of them: "logreg", "hgb" (HistGradientBoostingClassifier), "softmax", "hinge", "mlp"
        (MLPClassifierTorch), "ensemble" (MLPEnsembleClassifier), "dummy" (the classes' frequencies).

    Returns
    -------
    dict of str to estimator

    Raises
    ------
    ValueError
        If the target is none of classes, a name is unknown, or a column holds dates.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    names = list(names)
    if unknown := [name for name in names if name not in DEFAULTS]:
        raise ValueError(f"There is no default contestant {unknown[0]!r}. There are {', '.join(DEFAULTS)}.")
    if (kind := type_of_target(y, input_name="y")) not in ("binary", "multiclass"):
        raise ValueError(
            f"The default contestants are classifiers, and y is {kind}, not classes. Pass contestants of your own: a "
            "dictionary of names and estimators."
        )
    categories, missing, is_sparse = _look_at(X)
    # columns far from zero matter less to a sparse matrix than its zeros
    scaler = MaxAbsScaler() if is_sparse else StandardScaler()
    ensemble = MLPEnsembleClassifier(random_state=0)  # type: ignore[call-arg]  # an attribute is no parameter
    made: dict[str, Any] = {
        "logreg": [*_front(categories, missing), scaler, LogisticRegression(max_iter=1000)],
        "hgb": _histograms(HistGradientBoostingClassifier(random_state=0), categories),
        "softmax": [*_front(categories, missing), SoftmaxClassifier(random_state=0)],
        "hinge": [*_front(categories, missing), HingeClassifier(random_state=0)],
        "mlp": [*_front(categories, False), MLPClassifierTorch(random_state=0)],
        "ensemble": [*_front(categories, False), ensemble],
        "dummy": [DummyClassifier(strategy="prior")],
    }
    return {name: made[name][0] if len(made[name]) == 1 else make_pipeline(*made[name]) for name in names}


def _look_at(X: Data) -> tuple[list, bool, bool]:
    """Find the columns of categories; say whether numbers are missing, and whether X is sparse."""
    from scipy import sparse

    if sparse.issparse(X):
        return [], bool(np.isnan(X.data).any()), True
    names = column_names(X)
    if names is None:
        values = np.asarray(X)
        if values.dtype.kind in "fc":
            return [], bool(np.isnan(values).any()), False
        if values.dtype.kind in "iub":
            return [], False, False
        raise ValueError(
            f"X is an array of {values.dtype}, which does not say which columns hold categories. Pass a data frame, "
            "numbers, or contestants of your own."
        )
    categories, missing = [], False
    for name in names:
        column = X[name]
        kind = str(column.dtype).lower()
        if kind.startswith(("date", "time", "period", "duration")):
            raise ValueError(
                f"Column {name!r} holds dates or durations ({column.dtype}). Take what matters as numbers: the year, "
                "or days since a date."
            )
        has_gaps = _has_gaps(column)
        if kind.startswith(("int", "uint", "float", "double", "decimal")) or (kind.startswith("bool") and not has_gaps):
            missing |= has_gaps
        else:
            categories.append(name)
    return categories, missing, False


def _has_gaps(column: Any) -> bool:
    """Say whether a column of a data frame lacks values."""
    if hasattr(column, "isna"):
        return bool(column.isna().any())
    gaps = column.is_null().any()
    return bool(gaps or (column.dtype.is_float() and column.is_nan().any()))


def _front(categories: list, missing: bool) -> list:
    """List the steps in front of a model of numbers."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    steps: list = []
    if categories:
        encoder = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=_MAX_CATEGORIES, sparse_output=False
        )
        steps.append(make_column_transformer((encoder, categories), remainder="passthrough"))
    if missing:
        steps.append(SimpleImputer(add_indicator=True))
    return steps


def _histograms(model: Any, categories: list) -> list:
    """Put codes in front of gradient boosting, which are its first columns."""
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OrdinalEncoder

    if not categories:
        return [model]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        encoded_missing_value=np.nan,
        max_categories=_MAX_CODES,
    )
    model.set_params(categorical_features=list(range(len(categories))))
    return [make_column_transformer((encoder, categories), remainder="passthrough"), model]
