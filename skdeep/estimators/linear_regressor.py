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

    _parameter_constraints: ClassVar[dict] = {
        **LinearModel._parameter_constraints,
        **BaseTorchRegressor._parameter_constraints,
        **{name: LinearModel._parameter_constraints[name] for name in ("alpha", "solver")},
    }

    @property
    def _loss_unit(self) -> float:  # type: ignore[override]
        """The loss of targets in their unit, in units of the targets as they are; one where there are several."""
        unit = self._target_scale.unit
        return float(unit[0] ** self._loss(1).degree) if (unit == unit[0]).all() else 1.0

    def _penalty(self, members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        alpha, l1_ratio = values(members, "alpha")[:, None], values(members, "l1_ratio")[:, None]
        if self.penalty != "elasticnet":
            l1_ratio = np.full_like(l1_ratio, float(self.penalty == "l1"))
        unit, degree = self._target_scale.unit, self._loss(1).degree
        # the objective in targets of that unit, divided by the loss's: of scores that are logarithms, weights have none
        has_unit = float((self._target_scale.factor == unit).all())
        auto = np.isnan(alpha)
        strength = np.where(auto, self._auto_alpha / total_weight[:, None], alpha)
        squares, norm = (np.where(auto, 1.0, unit ** (power * has_unit - degree)) for power in (2, 1))
        lasso, ridge = strength * l1_ratio * norm, strength * (1 - l1_ratio) * squares
        total = lasso + ridge
        l1_ratio = np.divide(lasso, total, out=np.broadcast_to(l1_ratio, total.shape).copy(), where=total > 0)
        if (total == total[:, :1]).all() and (l1_ratio == l1_ratio[:, :1]).all():  # all targets have the same
            total, l1_ratio = total[:, 0], l1_ratio[:, 0]
        return PENALTIES[self.penalty](total, l1_ratio)

    def _cheapest_solver(self, problem: Problem, loss: Loss, penalty: ElasticNet, newton_params: int | None) -> str:
        if type(loss) is SquaredValues and self._has_smooth_penalty and not (self.callbacks or self.early_stopping):
            n, d = problem.n_rows, problem.source.shape[1]
            rows = 200 * 4 * self.n_outputs_ * d * 1500 * problem.density
            if 4 * n * d * min(n, d) <= max(_FREE, _WORTH * rows):
                return "exact"
        return super()._cheapest_solver(problem, loss, penalty, newton_params)
