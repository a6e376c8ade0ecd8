r"""Scalers in front of linear models, as a change of variables: no row is written down that they transform.

A scaler makes :math:`(x - c) f` of a row, and a linear model takes that in: what it has to be told is that its penalty
is one of coefficients W / f. Where it is one of standardised columns, the scaler makes no difference at all. So the
models of all splits see the same rows, and are one stack, as without a scaler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skdeep.data.columns import sizes_of
from skdeep.data.inputs import Data
from skdeep.data.problem import Problem
from skdeep.engine.networks import Linear
from skdeep.estimators.linear import LinearModel
from skdeep.fitting.recipe import Member, Recipe, values
from skdeep.fitting.settings import FULL_BATCH
from skdeep.model_selection.evaluation import steps_before
from skdeep.model_selection.plain import without_checks
from skdeep.model_selection.stacks import CannotStack

#: Sizes of scaled columns below which a penalty might take them for nothing.
_SMALL = 1e-3


@dataclass
class Scaling:
    """What a pipeline does to its rows before a linear model, if it is no more than to move and scale columns."""

    steps: list[Any]  # unfitted: at most one scaler, and imputers, which do nothing to rows that are complete

    @classmethod
    def of(cls, estimator: Any) -> Scaling | None:
        """Read it off a pipeline; None if its steps do more, or it is none of a linear model's."""
        if type(estimator) is not Pipeline or not isinstance(estimator.steps[-1][1], LinearModel):
            return None
        if estimator.memory is not None or estimator.verbose or getattr(estimator, "transform_input", None):
            return None
        steps = steps_before(estimator)
        scalers = [step for step in steps if not _is_imputer(step)]
        return cls(steps) if len(scalers) < 2 and all(map(_is_scaler, scalers)) else None

    @property
    def scaler(self) -> Any:
        """The scaler, if there is one."""
        return next((step for step in self.steps if not _is_imputer(step)), None)

    def suits(self, X: Data, problem: Problem, model: LinearModel, recipe: Recipe) -> bool:
        """Tell whether steps and a linear model can be one, on these rows."""
        if sparse.issparse(problem.source) or not _are_numbers(X) or problem.has_missing:
            return False
        if not (model.fit_intercept and model.standardize) or getattr(model, "_categories", None):
            return False
        return recipe.solver in FULL_BATCH

    def seen_through(
        self, recipe: Recipe, problem: Problem, network: Linear, members: list[Member], ridge: np.ndarray, splits: list
    ) -> Linear:
        """Put the steps, fitted to the training rows of each split, in front of a network of models on the rows as are.

        The penalty's curvature is `ridge`, (K,) or (K, C).

        Raise `CannotStack` where what the penalty says of columns is lost.
        """
        if network.frame is not None or network.columns.center is None or network.columns.scale is None:
            raise CannotStack("Columns are not centred and scaled, or lose digits.")
        fixed = ~np.isnan(values(members, "alpha"))
        if not fixed.any() or self.scaler is None:
            return network
        factors = np.stack([self.factors(np.asarray(problem.source[train], dtype=np.float64)) for train in splits])
        factors = np.repeat(factors, len(members) // len(splits), axis=0)
        sizes, constant = sizes_of([member.state.columns for member in members], True)
        if (np.where(constant, 1.0, sizes * factors) < _SMALL).any():
            raise CannotStack("The penalty might take a scaled column for nothing.")
        root = np.sqrt((ridge if ridge.ndim == 1 else ridge.max(1)) / recipe.judged_by.curvature(recipe.n_outputs))
        unit = np.where(fixed[:, None], 1 / factors, sizes)
        scale = 1 / np.hypot(sizes, unit * root[:, None])
        coef, intercept = network.params
        return Linear(coef, intercept, network.columns.center, scale, unit)

    def factors(self, X: np.ndarray) -> np.ndarray:
        """Fit the scaler to some rows; return the factors of the columns."""
        with without_checks():
            fitted = clone(self.scaler).fit(X)
        scale = fitted.scale_
        if scale is None:
            return np.ones(X.shape[1])
        return scale if type(fitted) is MinMaxScaler else 1 / scale


def _is_imputer(step: Any) -> bool:
    """Say whether a step does no more than to fill in what is not a number."""
    if type(step) is not SimpleImputer:
        return False
    return isinstance(step.missing_values, float) and bool(np.isnan(step.missing_values))


def _is_scaler(step: BaseEstimator) -> bool:
    """Say whether a step moves and scales columns, and does no more, such as to write to them."""
    known = type(step) in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
    return known and step.copy and not getattr(step, "clip", False)


def _are_numbers(X: Data) -> bool:
    """Say whether rows are numbers of one kind or another, in an array or a data frame of pandas."""
    if type(X) is np.ndarray:
        return X.dtype.kind in "fiu"
    return hasattr(X, "iloc") and all(isinstance(kind, np.dtype) and kind.kind in "fiub" for kind in X.dtypes)
