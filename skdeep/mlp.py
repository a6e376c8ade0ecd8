"""Multilayer perceptrons."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from skdeep._stack import vector
from skdeep.activations import ACTIVATIONS
from skdeep.base import BaseTorchClassifier, make_penalty
from skdeep.inputs import to_numpy
from skdeep.losses import LOSSES, Loss
from skdeep.networks import MLP


class MLPClassifierTorch(BaseTorchClassifier):
    _coef_attribute = "coefs_"
    _proximal = False
    _multilabel = True
    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        warmup_epochs=0,
        max_grad_norm=None,
        scoring=None,
        class_weight=None,
        device="auto",
        callbacks=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.warmup_epochs = warmup_epochs
        self.max_grad_norm = max_grad_norm
        self.scoring = scoring
        self.class_weight = class_weight
        self.device = device
        self.callbacks = callbacks

    def _loss(self, n_outputs) -> Loss:
        # one class at all is a column that is never the other one
        multiclass = n_outputs > 1 and not self._fitted_multilabel
        return LOSSES["log_loss" if multiclass else "binary_log_loss"]()

    def _penalty(self, mean_weight, batch_rows):
        # MLPClassifier's alpha is per batch
        alpha = vector(self.alpha, len(mean_weight)) / (batch_rows * mean_weight)
        return make_penalty("l2", alpha, 0.0)

    def _layer_units(self, n_features: int, n_outputs: int) -> list[int]:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if np.iterable(hidden) else [hidden]
        if any(not isinstance(h, Integral) or h <= 0 for h in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0 and integers, got {hidden}.")
        return [n_features, *map(int, hidden), n_outputs]

    def _n_params(self, n_features, n_outputs):
        units = np.array(self._layer_units(n_features, n_outputs))
        return int((units[1:] * units[:-1]).sum())

    def _new_network(self, problem, generators, subsets, weight, state, warm) -> MLP:
        units = self._layer_units(problem.X.shape[1], self.n_outputs_)
        self.n_layers_ = len(units)
        self.out_activation_ = "softmax" if self._loss(self.n_outputs_).target == "codes" else "logistic"
        if warm:
            return self._trained_network(problem.device, problem.dtype)
        return MLP.initial(generators, units, self.activation, device=problem.device, dtype=problem.dtype)

    def _trained_network(self, device, dtype) -> MLP:
        def stack(arrays, transpose=False):
            tensors = [torch.as_tensor(to_numpy(a), device=device, dtype=dtype) for a in arrays]
            return [(t.T if transpose else t).contiguous().clone().unsqueeze(0) for t in tensors]

        slopes = [np.array([slope]) for slope in getattr(self, "slopes_", [])]
        return MLP(stack(self.coefs_, True), stack(self.intercepts_), stack(slopes), self.activation)

    def _learned(self, network, model, dtype, space):
        arrays = [p.detach()[model].cpu().numpy().astype(dtype) for p in network.params]
        n = network.n_coefs
        learned = {
            "coefs_": [space.array(np.ascontiguousarray(a.T)) for a in arrays[:n]],
            "intercepts_": [space.array(a) for a in arrays[n : 2 * n]],
        }
        if ACTIVATIONS[self.activation].slope is not None:
            learned["slopes_"] = [float(a[0]) for a in arrays[2 * n :]]
        return learned
