"""Multilayer perceptrons."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from skdeep._docs import (
    CALIBRATION_ATTRIBUTES,
    CALIBRATION_PARAMETERS,
    LABEL_SMOOTHING,
    TRAINING_ATTRIBUTES,
    TRAINING_PARAMETERS,
    document,
)
from skdeep.activations import ACTIVATIONS
from skdeep.base import BaseTorchClassifier
from skdeep.fitting import values
from skdeep.inputs import OutputSpace, to_numpy
from skdeep.losses import LOSSES, Loss, smoothed
from skdeep.networks import MLP
from skdeep.penalties import L2


@document(
    training=TRAINING_PARAMETERS.format(max_iter=200, n_iter_no_change=10).replace("from 0 to below 1", "from 0 to 1"),
    label_smoothing=LABEL_SMOOTHING,
    calibration=CALIBRATION_PARAMETERS,
    learned=CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class MLPClassifierTorch(BaseTorchClassifier):
    r"""Multilayer perceptron: linear layers with an activation after each but the last.

    .. math:: h_0 = x, \quad h_l = \phi(W_l h_{l-1} + b_l), \quad s = W_L h_{L-1} + b_L

    trained on the cross-entropy of the scores s (softmax for more than two classes, one logistic column for two, one
    per label for multilabel targets) plus :math:`\frac{\alpha}{2 B \bar w} \sum_l \|W_l\|^2`, the L2 penalty as
    MLPClassifier has it. Parameters, attributes and their meaning are those of
    :class:`sklearn.neural_network.MLPClassifier`, so that a swap is one word.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer; ``()`` is softmax regression.
    activation : str, default="relu"
        "identity", "relu", "leaky_relu", "prelu" (slopes are learnt), "elu", "selu", "gelu", "silu", "tanh",
        "logistic", or "maxout" (each unit the larger of two linear pieces).
    solver : {"adam", "sgd", "adamw", "lbfgs"}, default="adam"
        Adam, mini-batch gradient descent with momentum, Adam with decoupled weight decay, or full-batch L-BFGS.
    alpha : float, default=1e-4
        Strength of the L2 penalty; it is divided by the total weight of a batch.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine"}, default="constant"
        Schedule: constant; divided by ``(t + 1) ** power_t`` after t samples; divided by 5 whenever improvement stops,
        until it is below 1e-6; or half a cosine down to zero at ``max_iter``.
    learning_rate_init : float, default=0.001
        Learning rate at the start.
    {training}
    {label_smoothing}
    {calibration}

    Attributes
    ----------
    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer; with "maxout", two columns side by side for each hidden unit.
    intercepts_ : list of ndarray of shape (fan_out,)
        Constant terms of each layer.
    slopes_ : list of float
        Learnt slope of each hidden layer; only with "prelu".
    n_layers_ : int
        Layers, with the input.
    out_activation_ : {"softmax", "logistic"}
        What turns scores into probabilities.
    {learned}

    See Also
    --------
    SoftmaxClassifier : Softmax regression.
    sklearn.neural_network.MLPClassifier : The same model in NumPy.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio & A. Courville, *Deep Learning*, 2016, chapter 6.
    .. [2] X. Glorot & Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
       AISTATS 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeep import MLPClassifierTorch
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = MLPClassifierTorch((32,), learning_rate_init=0.01, tol=1e-3, random_state=0).fit(X / 16, y)
    >>> clf.score(X / 16, y) > 0.9
    True
    >>> [W.shape for W in clf.coefs_]
    [(64, 32), (32, 10)]
    """

    _coef_attribute = "coefs_"
    _proximal = False
    _multilabel = True
    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
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
        label_smoothing=0.0,
        calibration=None,
        device="auto",
        precision="auto",
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
        self.label_smoothing = label_smoothing
        self.calibration = calibration
        self.device = device
        self.precision = precision
        self.callbacks = callbacks

    def _loss(self, n_outputs) -> Loss:
        # one class at all is a column that is never the other one
        multiclass = n_outputs > 1 and not self._fitted_multilabel
        return LOSSES["log_loss" if multiclass else "binary_log_loss"]()

    def _training_loss(self, n_outputs):
        return smoothed(self._loss(n_outputs), self.label_smoothing)

    def _calibrate(self, scores, codes, weight):
        if self.calibration == "sigmoid" and self.out_activation_ == "softmax":
            # where a softmax leaves a common shift of the scores free, every fold's model has its own
            scores = scores - scores.mean(1, keepdims=True)
            self._map_scores(np.eye(self.n_outputs_) - 1 / self.n_outputs_)
        super()._calibrate(scores, codes, weight)

    def _rescale_scores(self, slopes, offsets):
        self._map_scores(np.diag(slopes), offsets)

    def _map_scores(self, matrix, offsets=0.0):
        """Change the last layer so that the scores s become ``s @ matrix + offsets``."""
        space, coef, intercept = OutputSpace(self.coefs_[-1]), to_numpy(self.coefs_[-1]), to_numpy(self.intercepts_[-1])
        self.coefs_[-1] = space.array((coef @ matrix).astype(coef.dtype))
        self.intercepts_[-1] = space.array((intercept @ matrix + offsets).astype(coef.dtype))

    def _penalty(self, members, mean_weight, batch_rows):
        # MLPClassifier's alpha is per batch
        return L2(values(members, "alpha") / (batch_rows * mean_weight), np.zeros(len(members)))

    def _layer_units(self, n_features: int, n_outputs: int) -> list[int]:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if np.iterable(hidden) else [hidden]
        if any(not isinstance(h, Integral) or h <= 0 for h in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0 and integers, got {hidden}.")
        return [n_features, *map(int, hidden), n_outputs]

    def _n_params(self, n_features, n_outputs):
        units = np.array(self._layer_units(n_features, n_outputs))
        return int((units[1:] * units[:-1]).sum())

    def _n_units(self, n_outputs):
        return sum(self._layer_units(1, n_outputs)[1:])

    def _new_network(self, members, problem, generators, subsets, weight, state, warm) -> MLP:
        units = self._layer_units(problem.X.shape[1], self.n_outputs_)
        self.n_layers_ = len(units)
        self.out_activation_ = "softmax" if self._loss(self.n_outputs_).target == "codes" else "logistic"
        if not warm:
            return MLP.initial(generators, units, self.activation, device=problem.device, dtype=problem.dtype)
        form = ACTIVATIONS[self.activation]
        widths = [units[0], *(form.n_pieces * unit for unit in units[1:-1]), units[-1]]
        known = [tuple(np.shape(coef)) for coef in self.coefs_]
        n_slopes = 0 if form.slope is None else len(units) - 2
        if known != list(zip(units[:-1], widths[1:], strict=True)) or len(getattr(self, "slopes_", [])) != n_slopes:
            raise ValueError(
                "warm_start and partial_fit go on with the network of the previous fit, and hidden_layer_sizes or "
                f"activation has changed: hidden_layer_sizes={self.hidden_layer_sizes!r}, activation="
                f"{self.activation!r} do not fit weights of shape {known}. Put them back, or fit with warm_start=False."
            )
        return self._trained_network(problem.device, problem.dtype)

    def _trained_network(self, device, dtype) -> MLP:
        def stack(arrays, transpose=False):
            tensors = [torch.tensor(to_numpy(a), device=device, dtype=dtype) for a in arrays]
            return [(t.T if transpose else t).contiguous().unsqueeze(0) for t in tensors]

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
