"""Linear models of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from skdeep.data.problem import Problem
from skdeep.engine.losses import Loss
from skdeep.engine.penalties import PENALTIES, ElasticNet
from skdeep.engine.values import SquaredValues
from skdeep.estimators.docs import LINEAR_SOLVERS, OUTPUT, REGRESSION_LOSS, document_regressor
from skdeep.estimators.linear import LinearModel
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.losses import RegressionLoss
from skdeep.fitting.recipe import Member, values

#: Floating-point operations of the closed form that are done sooner than an iteration of anything else begins; and
#: how many times those of mini-batches it may take, being exact.
_FREE, _WORTH = 2e9, 10.0


@document_regressor(loss=REGRESSION_LOSS, output=OUTPUT, solvers=LINEAR_SOLVERS)
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

    _scales_columns = False
    _parameter_constraints: ClassVar[dict] = {
        **LinearModel._parameter_constraints,
        **BaseTorchRegressor._parameter_constraints,
        **{name: LinearModel._parameter_constraints[name] for name in ("alpha", "solver")},
    }

    @property
    def _loss_unit(self) -> float:  # type: ignore[override]
        """The loss of targets in their unit, in units of the targets as they are."""
        return float(self._target_scale.unit[0] ** self._loss(1).degree)

    def _penalty(self, members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        alpha, l1_ratio = values(members, "alpha"), values(members, "l1_ratio")
        auto = np.isnan(alpha)
        unit, loss = float(self._target_scale.unit[0]), self._loss(1)
        # the objective of weights and targets in that unit, divided by the loss's: of logarithms, weights have none
        of_norms = {"l1": 1.0, "l2": 2.0} if (self._target_scale.factor == self._target_scale.unit).all() else {}
        squares, norm = (unit ** (of_norms.get(name, 0.0) - loss.degree) for name in ("l2", "l1"))
        if unit == 1 or self.penalty == "l2":
            return PENALTIES[self.penalty](np.where(auto, self._auto_alpha / total_weight, alpha * squares), l1_ratio)
        if self.penalty != "elasticnet":
            return PENALTIES[self.penalty](np.where(auto, self._auto_alpha / total_weight, alpha * norm), l1_ratio)
        strengths = np.where(auto, self._auto_alpha / total_weight, alpha)
        of_l1, of_l2 = (np.where(auto, 1.0, factor) for factor in (norm, squares))
        of_l1, of_l2 = strengths * l1_ratio * of_l1, strengths * (1 - l1_ratio) * of_l2
        total = of_l1 + of_l2
        return PENALTIES["elasticnet"](total, np.divide(of_l1, total, out=l1_ratio.copy(), where=total > 0))

    def _cheapest_solver(self, problem: Problem, loss: Loss, penalty: ElasticNet, newton_params: int | None) -> str:
        if type(loss) is SquaredValues and self._has_smooth_penalty and not (self.callbacks or self.early_stopping):
            n, d = problem.n_rows, problem.source.shape[1]
            rows = 200 * 4 * self.n_outputs_ * d * 1500 * problem.density
            if 4 * n * d * min(n, d) <= max(_FREE, _WORTH * rows):
                return "exact"
        return super()._cheapest_solver(problem, loss, penalty, newton_params)
