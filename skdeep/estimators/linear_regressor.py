"""Linear models of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import issparse

from skdeep.data.problem import Problem
from skdeep.data.values import TargetScale, warn_of_small_targets
from skdeep.engine.losses import Loss
from skdeep.engine.penalties import PENALTIES, ElasticNet
from skdeep.engine.values import HuberValues, InsensitiveValues, SquaredValues
from skdeep.estimators.docs import document_regressor
from skdeep.estimators.linear import (
    COPIED_VALUES,
    EXACT,
    FEW_STEPS,
    PASSES,
    STEPS,
    LinearModel,
    products_of_columns,
)
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.exact.kinked_sparse import MANY_COLUMNS
from skdeep.exact.rows import FILLED, SMALL_VALUES
from skdeep.fitting.choices import BATCH_ROWS
from skdeep.fitting.exactly import fits_memory
from skdeep.fitting.losses import RegressionLoss
from skdeep.fitting.recipe import Member, values

#: Floating-point operations of the closed form that are done sooner than an iteration of anything else begins; and how
#: many times those of mini-batches it may take, being exact.
_FREE, _WORTH = 2e9, 10.0
#: Steps of interior points; and operations for each value of sparse rows with kinks, if all of these are passed over
#: again and again.
_INTERIOR_STEPS, _KINKED_PASSES = 15, 40_000
#: Columns of systems that are solved at once.
_MAX_COLUMNS = 1024


@document_regressor()
@dataclass(eq=False, repr=False, kw_only=True)
class LinearRegressor(BaseTorchRegressor, LinearModel):
    r"""Linear regression with any of many losses and penalties, to the exact optimum or by mini-batches.

    Minimises, over weights W (n_targets, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \sum_c \ell(s_{ic}, y_{ic}) + \alpha R(W), \qquad s_i = W x_i + b

    with w the sample weight and :math:`\ell` the ``loss``, such as :math:`\tfrac12 (s - y)^2`.

    Parameters
    ----------
    {loss}
    {linear}
    {output}
    {solvers}
    {training}

    Attributes
    ----------
    {learned}

    See Also
    --------
    MLPRegressorTorch : A network in its place.
    sklearn.linear_model.Ridge : Squared errors; its alpha is ``n_samples * alpha``.

    References
    ----------
    .. [1] T. Hastie, R. Tibshirani & J. Friedman, *The Elements of Statistical Learning*, 2nd edition, 2009, chapter 3.
    .. [2] R. Koenker, *Quantile Regression*, 2005.
    .. [3] P. McCullagh & J. A. Nelder, *Generalized Linear Models*, 2nd edition, 1989.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Lasso
    >>> from skdeep import LinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = LinearRegressor(penalty="l1", alpha=0.5).fit(X, y)
    >>> lasso = Lasso(alpha=0.5, tol=1e-10).fit(X, y)
    >>> bool(abs(reg.coef_ - lasso.coef_).max() < 1e-2), int((reg.coef_ != 0).sum())
    (True, 4)
    """

    loss: str | RegressionLoss = field(default="squared_error", kw_only=False)
    output: str = "auto"

    def _penalty(self, members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        scale, degree = self._target_scale, self._loss_of_targets.degree
        # the objective in targets of that unit, divided by the loss's: of scores that are logarithms, weights have none
        of_squares, of_norm = (2 - degree, 1 - degree) if scale.is_of_scores else (-degree, -degree)
        alpha = values(members, "alpha")
        auto = np.isnan(alpha)
        strength = np.where(auto, self._loss(1).slope * self._auto_alpha / total_weight, alpha) if auto.any() else alpha
        unit: Any = scale.unit
        if len(unit) == 1 or self._is_alike(of_norm if self.penalty == "l1" else of_squares):
            unit = unit[0]  # all targets have the same
        else:
            strength, auto = strength[:, None] * np.ones_like(unit), auto[:, None]

        def in_units(power: float) -> Any:
            if not power:
                return 1.0
            with np.errstate(over="ignore"):  # of tiny targets, any penalty is infinite
                return np.where(auto, 1.0, unit**power) if auto.any() else unit**power

        if self.penalty != "elasticnet":
            strength = strength * in_units(of_norm if self.penalty == "l1" else of_squares)
            return PENALTIES[self.penalty](strength, np.zeros(strength.shape))
        l1_ratio = values(members, "l1_ratio").reshape(auto.shape)
        lasso, ridge = strength * l1_ratio * in_units(of_norm), strength * (1 - l1_ratio) * in_units(of_squares)
        total = lasso + ridge
        share = l1_ratio * np.ones_like(total)
        return PENALTIES[self.penalty](total, np.divide(lasso, total, out=share, where=total > 0))

    def _measure_targets(self, table: np.ndarray, weight: np.ndarray | None, all_rows: bool) -> TargetScale:
        scale = super()._measure_targets(table, weight, all_rows)
        # beside squares, a norm of one strength leaves nothing of small targets
        is_norm = self.alpha == "auto" and not self._has_smooth_penalty
        if is_norm and not (self._loss_of_targets.robust or self._scales_columns):
            warn_of_small_targets(scale, table, self.loss)
        return scale

    def _is_alike(self, power: float) -> bool:
        """Tell whether a power of the targets' units is the same for all, so that a strength of one norm is."""
        unit = self._target_scale.unit
        return self.penalty is None or (self.penalty != "elasticnet" and power == 0) or bool((unit == unit[0]).all())

    def _solves_at_once(self, loss: Loss, n_rows: int) -> bool:
        """Tell whether one system, of columns or of rows, has the solution, and the only one."""
        is_system = self._n_inputs < _MAX_COLUMNS or n_rows < self._n_inputs
        return type(loss) is SquaredValues and self.penalty == "l2" and is_system

    def _cheapest_solver(self, problem: Problem, loss: Loss, penalty: ElasticNet, newton_params: int | None) -> str:
        if type(loss) is SquaredValues and self._has_smooth_penalty and not (self.callbacks or self.early_stopping):
            n, d = problem.n_rows, problem.source.shape[1]
            few, steps = min(n, d), STEPS * BATCH_ROWS * 4 * self.n_outputs_ * d * problem.density
            if self._solves_at_once(loss, n) and fits_memory(problem):
                work = 2 * products_of_columns(problem, d) * few / d + few**3
                if work <= max(EXACT, _WORTH * steps):
                    return "lbfgs"
            elif 4 * n * d * few <= max(_FREE, _WORTH * steps):
                return "lbfgs" if self._solves_at_once(loss, n) else "exact"
        is_system = not loss.smooth and not self._goes_by_multipliers(problem, loss)
        if is_system and self._n_coordinates(problem, loss) >= _MAX_COLUMNS:
            return "sgd"
        return super()._cheapest_solver(problem, loss, penalty, newton_params)

    def _goes_by_multipliers(self, problem: Problem, loss: Loss) -> bool:
        """Tell whether kinks of sparse rows are such that products with these are all that an optimum asks for."""
        d = problem.source.shape[1]
        if loss.smooth or self.penalty != "l2" or self.alpha == 0:
            return False
        if not issparse(problem.source) or problem.density >= FILLED:
            return False
        return MANY_COLUMNS <= d == self._n_coordinates(problem, loss) and problem.n_rows * d > SMALL_VALUES

    def _is_certificate_cheap(self, problem: Problem, loss: Loss) -> bool:
        if self._goes_by_multipliers(problem, loss):
            values = problem.n_rows * problem.source.shape[1] * problem.density
            return _KINKED_PASSES * values * self.n_outputs_ <= EXACT
        if super()._is_certificate_cheap(problem, loss):
            return True
        # some dozen products of all columns; few of smooth losses, of squared errors one
        d = self._n_coordinates(problem, loss) + 1
        steps = 1 if type(loss) is SquaredValues else FEW_STEPS if loss.smooth else _INTERIOR_STEPS
        values = problem.n_rows * d * problem.density
        work = 2 * steps * products_of_columns(problem, d)
        if loss.smooth and problem.density < FILLED:  # of many columns, no products are formed
            work = min(work, PASSES * values)
        return values <= COPIED_VALUES and work * self.n_outputs_ <= EXACT

    def _is_exact_cheap(self, problem: Problem, loss: Loss, newton_params: int | None) -> bool:
        d = self._n_coordinates(problem, loss)
        # Newton's steps of squares in pieces are few, and a matrix of second derivatives is half a product
        in_pieces = isinstance(loss, HuberValues | InsensitiveValues) and d < _MAX_COLUMNS
        steps_are_few = in_pieces and FEW_STEPS * products_of_columns(problem, d) * self.n_outputs_ <= EXACT
        return steps_are_few or super()._is_exact_cheap(problem, loss, newton_params)

    def _max_newton_params(self, problem: Problem, loss: Loss) -> int | None:
        return None if self._solves_at_once(loss, problem.n_rows) else super()._max_newton_params(problem, loss)
