"""Multilayer perceptrons of values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skdeep.data.problem import Problem
from skdeep.data.values import TargetScale, warn_of_small_targets
from skdeep.estimators.deep import NeuralNet, SingleNet
from skdeep.estimators.docs import deep_parameters, document_deep_regressor
from skdeep.estimators.mlp import Perceptron
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting import courses
from skdeep.fitting.losses import RegressionLoss, output_name


@dataclass(eq=False, repr=False, kw_only=True)
class NeuralNetRegressor(BaseTorchRegressor, NeuralNet):
    """Common part of the deep regressors."""

    loss: str | RegressionLoss = "squared_error"
    output: str = "auto"


@dataclass(eq=False, repr=False, kw_only=True)
class PerceptronRegressor(Perceptron, NeuralNetRegressor):
    """Common part of the perceptrons that learn values."""

    def _course(self, problem: Problem, rows: int) -> courses.Course:
        return courses.of_values(np.size(self.hidden_layer_sizes))

    def _output_name(self) -> str:
        return output_name(self.loss, self.output)

    def _auto_alpha(self, n_rows: np.ndarray, n_columns: float) -> np.ndarray:
        # values are learnt more closely than classes: what is free of noise wants less, what is not wants more
        crowding = np.minimum(n_columns / n_rows, 1.0)
        return np.minimum(crowding * np.maximum(80 * np.sqrt(crowding), 2 * np.sqrt(n_columns)), 2.0)

    def _measure_targets(self, table: np.ndarray, weight: np.ndarray | None, all_rows: bool) -> TargetScale:
        if not self.standardize:
            return TargetScale.none(table.shape[1])
        scale = super()._measure_targets(table, weight, all_rows)
        warn_of_small_targets(scale, table, self.loss)
        return scale


@document_deep_regressor(training=deep_parameters())
@dataclass(eq=False, repr=False, kw_only=True)
class MLPRegressorTorch(PerceptronRegressor, SingleNet):
    r"""Multilayer perceptron for values: linear layers with an activation after each but the last.

    .. math:: h_0 = x, \quad h_l = \phi(W_l h_{l-1} + b_l), \quad s = W_L h_{L-1} + b_L

    trained on the ``loss`` of the scores s plus :math:`\frac{\alpha}{2 B \bar w} \sum_l \|W_l\|^2`, the L2 penalty as
    MLPRegressor has it. Parameters, attributes and their meaning are as in
    :class:`sklearn.neural_network.MLPRegressor`, so that a swap is one word; by default (``standardize=True``) of one
    behind a StandardScaler, for targets that are standardised as well: what is learnt is folded back, so that
    ``coefs_`` and ``intercepts_`` are for columns and targets as they are.

    Parameters
    ----------
    {loss}
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer; ``()`` is linear regression.
    activation : str, default="relu"
        See :class:`MLPClassifierTorch`, and there also for ``normalization``, ``dropout``, ``stochastic_depth`` and
        ``column_learning_rate``.
    {output}
    {layers}
    standardize : bool, default=True
        Whether to train in columns that are centred and scaled, and for targets that are (of losses on the log link:
        divided by their mean), with weights of the rows. Then dense X may have missing values (NaN), which count as
        the mean of their column, with an indicator. With False, all is as in MLPRegressor.
    column_learning_rate : float, default=3.0
        How fast a factor on each column is learnt.
    numeric_embedding : {"auto", "piecewise"} or None, default=None
        Bins of the columns beside these; see :class:`MLPClassifierTorch`.
    n_bins : int or "auto", default="auto"
        Bins of each column.
    solver : {"adam", "sgd", "adamw", "lbfgs"}, `Adam`, `SGD`, `AdamW` or `LBFGS`, default="adam"
        Adam, mini-batch gradient descent with momentum, Adam with decoupled weight decay, or full-batch L-BFGS. An
        object, such as ``SGD(0.01, momentum=0.8)``, has settings of its own.
    alpha : float or "auto", default="auto"
        Strength of the L2 penalty; it is divided by the total weight of a batch. "auto" is
        :math:`2 \min(\max(40 / \sqrt n, 1)\, d^{3/2} / n, 1)\, B / B_n` of d columns, n rows and B in a batch
        (:math:`B_n`: a hundredth of n, from 64 to 256); of sparse rows and of categories, d is at most four times the
        values other than zero that a row has on average.
    learning_rate : {"auto", "constant", "invscaling", "adaptive", "cosine"}, default="auto"
        Schedule; see :class:`MLPClassifierTorch`. "auto" is one cosine over 30 epochs, or as many as 300 steps take if
        these are more; over 60, or 500 steps, from a ``learning_rate_init`` of your own.
    learning_rate_init : float or "auto", default="auto"
        Learning rate at the start. "auto" is 0.02, divided by the number of hidden layers, for the one cosine of
        ``learning_rate="auto"``, else 0.003.
    {training}

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (fan_in, fan_out) and constant terms (fan_out,) of each layer; see :class:`MLPClassifierTorch`, and
        there for what normalisation, "prelu", missing values and column factors add.
    n_layers_ : int
        Layers, with the input.
    out_activation_ : {"identity", "relu", "softplus", "exp"}
        What turns scores into predictions.
    {learned}

    See Also
    --------
    LinearRegressor : Linear regression.
    MLPEnsembleRegressor : Several such networks, with prediction intervals.
    sklearn.neural_network.MLPRegressor : The same model in NumPy.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio & A. Courville, *Deep Learning*, 2016, chapter 6.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import MLPRegressorTorch
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MLPRegressorTorch(hidden_layer_sizes=(32,), random_state=0).fit(X[:300], y[:300])
    >>> reg.score(X[300:], y[300:]) > 0.4
    True
    """

    _fills_batches = True

    loss: str | RegressionLoss = field(default="squared_error", kw_only=False)
    hidden_layer_sizes: Any = field(default=(100,), kw_only=False)
    activation: str = field(default="relu", kw_only=False)
