"""Classifiers around a torch module of the user's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn

from skdeep._docs import CALIBRATION_ATTRIBUTES, TRAINING_ATTRIBUTES, TRAINING_PARAMETERS, document
from skdeep.networks import Network, pulled_back
from skdeep.neural_net import NeuralNetClassifier

#: Modules that make another function of each batch.
_RANDOM = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)

#: What a module costs is not known before it is there: enough for it to deserve all threads.
_UNKNOWN_WORK = 2**21


@contextmanager
def seeded(generator: np.random.Generator, device: torch.device) -> Iterator[None]:
    """Let torch's own generators start from a number that `generator` draws; they are put back in the end."""
    others = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(others):
        torch.manual_seed(int(generator.integers(2**63)))
        yield


class ModuleNetwork(Network):
    """A module as a stack of one: its parameters and buffers, where the module has them, with an axis of length one.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (B, *shape) to scores (B, C).
    shape : tuple of int
        Of a row; batches come as (B, d) with d the product of these.
    n_values : int
        Values computed of a row.
    generator : numpy.random.Generator, optional
        Seeds torch's generators for each training step.
    """

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        n_values: int,
        generator: np.random.Generator | None = None,
    ):
        self.module = module
        self.shape, self.n_values, self.generator = shape, n_values, generator
        trained = [p for p in module.parameters() if p.requires_grad]
        self._train(sorted(trained, key=lambda p: p.ndim < 2))
        self.n_coefs = sum(p.ndim >= 2 for p in self.leaves)

    def _train(self, leaves: list[nn.Parameter]) -> None:
        self.leaves, self.params = leaves, [p.detach().unsqueeze(0) for p in leaves]

    @property
    def buffers(self):  # type: ignore[override]
        return [buffer.detach().unsqueeze(0) for buffer in self.module.buffers()]

    @property
    def row_size(self):
        return self.n_values

    @property
    def whole_batches(self):
        return True

    def scores(self, X):
        self.module.eval()
        with torch.no_grad():
            return self._scores(X)

    def training_scores(self, X, weight=None):
        assert self.generator is not None  # it is prediction that has none
        self.module.train()
        with torch.enable_grad(), seeded(self.generator, self.params[0].device):
            return self._scores(X)

    def _scores(self, X: Tensor) -> Tensor:
        X = X.to_dense() if X.layout is torch.sparse_csr else X
        return self.module(X.reshape(-1, *self.shape)).unsqueeze(0)

    def gradient(self, scores, X, score_gradient):
        moving = [p for p in self.leaves if p.requires_grad]  # a callback may have frozen some
        found = pulled_back([scores], [score_gradient], moving)
        gradients = dict(zip(map(id, moving), found, strict=True))
        return [gradients.get(id(p), torch.zeros_like(p)).unsqueeze(0) for p in self.leaves]

    def with_params(self, params):
        part, copies = copy.copy(self), {}
        part.module = copy.deepcopy(self.module, copies)
        part._train([copies[id(p)] for p in self.leaves])
        for mine, new in zip(part.tensors, params, strict=True):
            mine.copy_(new)
        return part


def _n_values(output) -> int:
    """Values in what a module returns."""
    if isinstance(output, tuple | list):
        return sum(map(_n_values, output))
    return output.numel() if isinstance(output, Tensor) else 0


def _values_per_row(module: nn.Module, X: Tensor, n_outputs: int) -> int:
    """How many values a module computes of a row; lazy parts of it get their parameters.

    Raises
    ------
    ValueError
        If it does not give `n_outputs` scores for each row.
    """
    sizes: list[int] = []
    hooks = [part.register_forward_hook(lambda *call: sizes.append(_n_values(call[-1]))) for part in module.modules()]
    try:
        with torch.no_grad():
            scores = module.eval()(X)
    except RuntimeError as error:
        raise ValueError(f"module cannot compute scores of rows of shape {tuple(X.shape[1:])}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if shape != (len(X), n_outputs):
        raise ValueError(
            f"module must return raw scores of shape (n, {n_outputs}), one column per class or label (a single one for "
            f"two classes), without softmax or sigmoid, which are parts of the loss; for {len(X)} rows of shape "
            f"{tuple(X.shape[1:])} it returned {shape}. A module that takes n_outputs is told the number of columns."
        )
    return -(-sum(sizes) // len(X))


@document(
    training=TRAINING_PARAMETERS.format(max_iter=200, n_iter_no_change=10).replace("from 0 to below 1", "from 0 to 1"),
    learned=CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class TorchClassifier(NeuralNetClassifier):
    r"""A torch module of your own as a classifier, trained like :class:`MLPClassifierTorch`.

    .. math:: s = f_\theta(x)

    trained on the cross-entropy of the scores s (softmax for more than two classes, one logistic column for two, one
    per label for multilabel targets) plus :math:`\frac{\alpha}{2 B \bar w} \sum \|W\|^2` over the parameters W with
    two axes or more. A row may be of any shape, such as an image.

    The module is in ``train()`` mode in training steps, in ``eval()`` mode in prediction and validation. Its random
    numbers follow from ``random_state``. Searches train such classifiers one at a time.

    Parameters
    ----------
    module : type or callable
        A subclass of :class:`torch.nn.Module`, or a function that returns a module. It is called with
        ``module_params`` and, where its signature names them, ``n_outputs`` (score columns) and ``n_features``
        (``X.shape[1]``: columns, or channels of images). The module maps a batch (n, ...) to raw scores (n, n_outputs),
        without softmax or sigmoid, in the dtype of its parameters. Lazy modules are allowed, and so are parameters
        with ``requires_grad=False``: they are left alone.
    module_params : dict, default=None
        Arguments of the module. A search sets each as ``module__name``, as in skorch.
    solver : {"adam", "sgd", "adamw", "lbfgs"}, default="adam"
        Adam, mini-batch gradient descent with momentum, Adam with decoupled weight decay, or full-batch L-BFGS (for
        modules without dropout and batch normalisation).
    alpha : float, default=1e-4
        Strength of the L2 penalty; it is divided by the total weight of a batch.
    learning_rate : {"constant", "invscaling", "adaptive", "cosine"}, default="constant"
        Schedule: constant; divided by ``(t + 1) ** power_t`` after t samples; divided by 5 whenever improvement stops,
        until it is below 1e-6; or half a cosine down to zero at ``max_iter``.
    learning_rate_init : float, default=0.001
        Learning rate at the start.
    {training}
    calibration : "temperature" or None, default=None
        How scores become probabilities: "temperature" is :math:`\mathrm{softmax}(s / T)`, for two classes and for each
        label of a multilabel target (with a T of its own) :math:`\sigma(s / T)`, fitted on the scores of 5 further
        modules, each on rows it has not seen. With None probabilities are those that were trained.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained module, on the CPU, in ``eval()`` mode. ``partial_fit`` and ``warm_start`` go on with it.
    input_shape_ : tuple of int
        Shape of a row of X. Prediction also takes such rows as vectors.
    {learned}

    Raises
    ------
    TypeError
        If `module` does not give a module, or is one.
    ValueError
        If the module's scores have another shape.

    See Also
    --------
    MLPClassifierTorch : Multilayer perceptrons.

    Notes
    -----
    ``precision="auto"`` is float32, torch's own, in training. A batch is never cut into parts, so that its size bounds
    the memory. Sparse rows are made dense a batch at a time. Pickling needs a module whose class can be imported.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from torch import nn
    >>> from skdeep import TorchClassifier
    >>> def small_cnn(n_outputs, width=16):
    ...     return nn.Sequential(
    ...         nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(n_outputs)
    ...     )
    >>> X, y = load_digits(return_X_y=True)
    >>> images = X.reshape(-1, 1, 8, 8) / 16
    >>> clf = TorchClassifier(small_cnn, {"width": 8}, learning_rate_init=0.01, max_iter=20, tol=1e-2, random_state=0)
    >>> clf.fit(images[:1000], y[:1000]).score(images[1000:], y[1000:]) > 0.9
    True
    """

    _coef_attribute = "module_"
    _any_coef = None
    _allow_nd = True
    stackable: frozenset[str] = frozenset()
    _parameter_constraints: dict = {
        **NeuralNetClassifier._parameter_constraints,
        "module": [callable],
        "module_params": [dict, None],
        "calibration": [StrOptions({"temperature"}), None],
    }

    def __init__(
        self,
        module,
        module_params=None,
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
        calibration=None,
        device="auto",
        precision="auto",
        callbacks=None,
    ):
        self.module = module
        self.module_params = module_params
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
        self.calibration = calibration
        self.device = device
        self.precision = precision
        self.callbacks = callbacks

    def get_params(self, deep=True):
        """Parameters of the estimator; with `deep`, those of the module too, as ``module__name``."""
        params = super().get_params(deep)
        if deep and isinstance(self.module_params, dict):
            params |= {f"module__{name}": value for name, value in self.module_params.items()}
        return params

    def set_params(self, **params):
        """Set parameters of the estimator, and those of the module as ``module__name``."""
        own = {name: params.pop(name) for name in list(params) if name.startswith("module__")}
        super().set_params(**params)
        if own:
            own = {name.removeprefix("module__"): value for name, value in own.items()}
            self.module_params = {**(self.module_params or {}), **own}
        return self

    def _dtype(self, problem):
        return torch.float32 if self.precision == "auto" else super()._dtype(problem)

    def _n_params(self, n_features, n_outputs):
        return _UNKNOWN_WORK

    def _n_weights(self):
        return _UNKNOWN_WORK

    def _new_module(self, problem, generator) -> nn.Module:
        """A module of the user's, with initial parameters; the same on all devices."""
        if isinstance(self.module, nn.Module):
            raise TypeError(
                f"module must be a class or function that makes a module, got the module {type(self.module).__name__}. "
                "Pass its class, and its arguments as module_params: each fit starts with a new one."
            )
        shape = {"n_outputs": self.n_outputs_, "n_features": self.n_features_in_}
        named = shape.keys() & inspect.signature(self.module).parameters
        X = problem.rows().take(slice(0, 2)).cpu().to_dense().float()
        with seeded(generator, torch.device("cpu")):
            module = self.module(**{name: shape[name] for name in named} | (self.module_params or {}))
            if not isinstance(module, nn.Module):
                raise TypeError(f"module must make a torch.nn.Module, got {type(module).__name__}.")
            self._n_values = _values_per_row(module, X.reshape(-1, *self.input_shape_), self.n_outputs_)
        return module

    def _new_network(self, members, problem, generators, subsets, weight, states, warm) -> ModuleNetwork:
        module = copy.deepcopy(self.module_) if warm else self._new_module(problem, generators[0])
        if unstable := [part for part in module.modules() if isinstance(part, _RANDOM)]:
            self._check_same_objective(type(unstable[0]).__name__)
        return ModuleNetwork(module.to(problem.device, problem.dtype), self.input_shape_, self._n_values, generators[0])

    def _trained_network(self, device, dtype) -> ModuleNetwork:
        return ModuleNetwork(copy.deepcopy(self.module_).to(device, dtype), self.input_shape_, self._n_values)

    def _learned(self, network, model, dtype, space):
        # beside the module an array from where X was: predictions are for X of the same kind
        return {"module_": copy.deepcopy(network.module).cpu().eval(), "_any_coef": space.array(np.zeros(1))}
