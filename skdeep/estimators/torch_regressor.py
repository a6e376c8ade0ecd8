"""A torch module of the user's own as a regressor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from torch import Tensor

from skdeep.data.values import Prediction, TargetScale, ValueAnswers, warn_of_small_targets
from skdeep.estimators.docs import deep_parameters, document_deep_regressor
from skdeep.estimators.mlp_regressor import NeuralNetRegressor
from skdeep.estimators.torch_module import UserModule


@document_deep_regressor(training=deep_parameters(batch_rows="min(200, n_samples)"))
@dataclass(eq=False, repr=False, kw_only=True)
class TorchRegressor(UserModule, NeuralNetRegressor):
    r"""A torch module of your own as a regressor, trained like :class:`MLPRegressorTorch`.

    .. math:: s = f_\theta(x)

    trained on the ``loss`` of the scores s plus :math:`\frac{\alpha}{2 B \bar w} \sum \|W\|^2` over the parameters W
    with two axes or more. What is said of modules in :class:`TorchClassifier` holds here as well.

    Parameters
    ----------
    module : type or callable
        A subclass of :class:`torch.nn.Module`, or a function that returns a module. It is called with
        ``module_params`` and, where its signature names them, ``n_outputs`` (columns of targets, or quantiles) and
        ``n_features``. The module maps a batch (n, ...) to scores (n, n_outputs).
    module_params : dict, default=None
        Arguments of the module. A search sets each as ``module__name``, as in skorch.
    {loss}
    {output}
    standardize_targets : bool, default=True
        Whether the module learns targets that are centred and scaled by their means and standard deviations, each
        column's (of outputs that are never negative: divided by their mean, or root mean square), which predictions
        are then brought back from.
    solver : {"adam", "sgd", "adamw", "lbfgs"}, `Adam`, `SGD`, `AdamW` or `LBFGS`, default="adam"
        See :class:`TorchClassifier`.
    alpha : float, default=1e-4
        Strength of the L2 penalty; it is divided by the total weight of a batch.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine"}, default="constant"
        Schedule; see :class:`TorchClassifier`.
    learning_rate_init : float, default=0.001
        Learning rate at the start.
    {training}

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained module, on the CPU, in ``eval()`` mode; of scores in training.
    input_shape_ : tuple of int
        Shape of a row of X.
    {learned}

    See Also
    --------
    MLPRegressorTorch : Multilayer perceptrons.
    TorchClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from torch import nn
    >>> from skdeep import TorchRegressor
    >>> def net(n_features, n_outputs, width=32):
    ...     return nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = TorchRegressor(net, {"width": 16}, learning_rate_init=0.03, max_iter=40, tol=1e-2, random_state=0)
    >>> reg.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4
    True
    """

    standardize_targets: bool = True

    _parameter_constraints: ClassVar[dict] = {"standardize_targets": ["boolean"]}

    @property
    def _why_unbounded(self) -> str:  # type: ignore[override]
        return (
            "Targets are centred and scaled (standardize_targets=True): it cannot reach all of them. Leave out that "
            "last part (`output` keeps predictions from being negative), or use standardize_targets=False."
            if self.standardize_targets
            else ""
        )

    def _measure_targets(self, table: np.ndarray, weight: np.ndarray | None, all_rows: bool) -> TargetScale:
        if not self.standardize_targets:
            return TargetScale.none(table.shape[1])
        scale = super()._measure_targets(table, weight, all_rows)
        warn_of_small_targets(scale, table, self.loss)
        return scale

    @property
    def _prediction(self) -> Prediction:
        return replace(super()._prediction, scale=self._target_scale)

    def _answers(self, scores: Tensor) -> ValueAnswers:
        return ValueAnswers(self, scores)
