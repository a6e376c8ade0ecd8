"""Estimators around a torch module of the user's own."""

from __future__ import annotations

import inspect
import math
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from scipy import sparse
from torch import nn

from skdeep.compat.sklearn import StrOptions
from skdeep.compat.torch import _BatchNorm, _DropoutNd
from skdeep.data.encoding import draw_seeds
from skdeep.data.inputs import Matrix, OutputSpace, rows_of
from skdeep.data.problem import Problem
from skdeep.engine.module_network import (
    ORDINARY,
    UNKNOWN_WORK,
    ModuleNetwork,
    check_ordinary,
    first_tensor,
    release,
    tried,
)
from skdeep.engine.networks import Network
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.random_numbers import OwnNumbers
from skdeep.engine.rows import DenseRows, SparseRows, as_tensor
from skdeep.engine.stored import StoredArray
from skdeep.estimators.deep import NeuralNetClassifier, SingleNet
from skdeep.estimators.docs import CALIBRATION_ATTRIBUTES, TRAINING_ATTRIBUTES, deep_parameters, document_deep, without
from skdeep.fitting.choices import batch_rows, choose
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH, settings_of, solver_name

#: Modules that make another function of each batch.
_RANDOM = (_DropoutNd, _BatchNorm)


def check_numbers(X: Matrix, dtype: torch.dtype, indices: bool) -> None:
    """Raise if whole numbers, such as ids, would merge in `dtype`, or if what stands for `indices` is none.

    Only a column of nothing but whole numbers is one of those: measurements are rounded, as always.
    """
    if isinstance(X, StoredArray):
        for part in X.parts():
            check_numbers(part, dtype, indices)
        return
    values = X.data if sparse.issparse(X) else X
    values = as_tensor(values) if isinstance(values, np.ndarray) else values
    limit = int(2 / torch.finfo(dtype).eps)
    if values.numel() == 0 or values.dtype in (torch.bool, torch.uint8, torch.int8, torch.int16):
        return
    if indices and values.is_floating_point() and bool((values % 1 != 0).any()):
        raise ValueError("X must have whole numbers: the module takes indices, not fractions.")
    least, most = torch.aminmax(values)  # of all values, ten times as fast as of each column
    if bool((least >= -limit) & (most <= limit)):
        return
    columns = values.reshape(-1, 1) if sparse.issparse(X) else values
    low, high = torch.aminmax(columns, dim=0)
    for column in ((low < -limit) | (high > limit)).nonzero().flatten().cpu().tolist():
        own = columns[:, column]
        whole = not own.is_floating_point() or bool((own % 1 == 0).all())
        if whole and bool((own.to(dtype).to(own.dtype) != own).any()):
            raise ValueError(
                f"column {column} of X has whole numbers beyond {limit}, which {dtype} cannot tell apart. If they are "
                "ids, number them from 0 (OrdinalEncoder); if they are quantities, scale them (StandardScaler)"
                + ("." if dtype is torch.float64 else ", or compute with precision='float64'.")
            )


def check_some_left(X: Matrix, dtype: torch.dtype) -> None:
    """Raise if nothing of X is left in `dtype` but zeros."""
    values = X.data if sparse.issparse(X) else X
    values = as_tensor(values) if isinstance(values, np.ndarray) else values
    of_double = values.dtype in (torch.float64, np.float64) and math.prod(values.shape) > 0
    if of_double and dtype is not torch.float64:
        parts = map(as_tensor, values.parts()) if isinstance(values, StoredArray) else [values]
        largest = max(abs(float(value)) for part in parts for value in torch.aminmax(part))
        if 0 < largest < torch.finfo(dtype).tiny:
            raise ValueError(
                f"X has no value that {dtype} can tell from zero; the largest is {largest:.3g}. Scale its columns "
                "(StandardScaler), or compute with precision='float64'."
            )


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the floating-point numbers of a module in place (``module.to`` would cast complex ones too)."""
    if any(t.is_floating_point() and t.dtype is not dtype for t in (*module.parameters(), *module.buffers())):
        module.double() if dtype is torch.float64 else module.float()


@dataclass(eq=False, repr=False, kw_only=True)
class UserModule(SingleNet):
    """Common part of the estimators around a module of the user's."""

    _coef_attribute = "module_"
    _parameters = frozenset({"module_", "_any_coef", "_n_values", "_takes_indices", "_trained_names", "_made_by"})
    _any_coef = None
    _allow_nd = True
    stackable = frozenset()
    #: Why scores must be free to have any value; empty if they need not.
    _why_unbounded = ""
    module: Callable = field(kw_only=False)
    module_params: dict | None = field(default=None, kw_only=False)

    _parameter_constraints: ClassVar[dict] = {"module": [callable], "module_params": [dict, None]}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return parameters of the estimator; with `deep`, the module's parameters too, as ``module__name``."""
        params = super().get_params(deep)
        if deep and isinstance(self.module_params, dict):
            params |= {f"module__{name}": value for name, value in self.module_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, and the module's parameters as ``module__name``."""
        own = {name: params.pop(name) for name in list(params) if name.startswith("module__")}
        super().set_params(**params)
        if own:
            own = {name.removeprefix("module__"): value for name, value in own.items()}
            self.module_params = {**(self.module_params or {}), **own}
        return self

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        return UNKNOWN_WORK

    def _recipe(self, problem: Problem, going_on: bool, incremental: bool) -> Recipe:
        rows = batch_rows(self, problem, solver_name(self))
        dtype = torch.float32 if settings_of(self).precision == "auto" else None
        recipe = choose(self, problem, solver_name(self), rows, self._loss(self.n_outputs_), dtype=dtype)
        waiting = []
        if not going_on:
            generator = np.random.default_rng([1, draw_seeds(self.random_state)[0]])
            new, bounded = self._new_module(recipe, problem, generator)
            waiting.append(new)
            if bounded is not None and self._why_unbounded:
                warnings.warn(
                    f"module ends in {bounded}, so that its scores have bounds. {self._why_unbounded}", stacklevel=7
                )
        # the module says in which dtype all else is
        module = waiting[0] if waiting else self.module_
        dtype = self._own_dtype(recipe, module)
        check_some_left(problem.source, dtype)
        check = partial(check_numbers, dtype=dtype, indices=self._takes_indices)
        network = partial(self._network, waiting=waiting)
        return replace(recipe, dtype=dtype, check=check, network=network)

    def _own_dtype(self, recipe: Recipe, module: nn.Module) -> torch.dtype:
        """Choose what to train a module in: its own dtype, unless the user has decided; float32 for shorter ones."""
        tensor = first_tensor(module)
        own = torch.get_default_dtype() if tensor is None else tensor.dtype
        doubled = settings_of(self).precision == "auto" and own is torch.float64 and recipe.device.type != "mps"
        return torch.float64 if doubled else recipe.dtype

    def _new_module(
        self, recipe: Recipe, problem: Problem, generator: np.random.Generator
    ) -> tuple[nn.Module, str | None]:
        """Make a module of the user's, with initial parameters; the same on all devices. Say what bounds its scores."""
        if isinstance(self.module, nn.Module):
            raise TypeError(
                f"module must be a class or function that makes a module, got the module {type(self.module).__name__}. "
                "Pass its class, with its arguments as module_params, or a function that makes and returns it: each "
                "fit starts with a new one."
            )
        shape = {"n_outputs": self.n_outputs_, "n_features": self._n_inputs}
        self._made_by = self.module, self.module_params
        signature = inspect.signature(self.module)
        arguments = {name: shape[name] for name in shape.keys() & signature.parameters} | (self.module_params or {})
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise TypeError(
                f"module does not take these arguments: {error}. It is called with module_params (a search sets each "
                f"as module__name), and with n_features and n_outputs where its signature names them: {signature}."
            ) from error
        X = problem.take(np.arange(min(2, len(problem.codes)))).X[:2]
        X = as_tensor(X.toarray() if sparse.issparse(X) else X) if not isinstance(X, torch.Tensor) else X.cpu()
        X = X if len(X) > 1 else X.expand(2, -1)
        with OwnNumbers(int(generator.integers(2**63))):
            try:
                module = self.module(**arguments)
            except RuntimeError as error:  # as of torch.jit.trace, too, which sees the operations that watch it
                raise ValueError(
                    f"module cannot be made: {error}. Look at its arguments, {reprlib.repr(arguments)}. {ORDINARY}"
                ) from error
            if not isinstance(module, nn.Module):
                raise TypeError(f"module must make a torch.nn.Module, got {type(module).__name__}.")
            check_ordinary(module)
            if any(tensor.device.type != "cpu" for tensor in (*module.parameters(), *module.buffers())):
                module.cpu()
            _cast(module, self._own_dtype(recipe, module))
            found = tried(module, X.reshape(-1, *self.input_shape_), self.n_outputs_)
        self._n_values, self._takes_indices, normalised, bounded = found
        self._check_parameters(module)
        earlier = {id(p) for p in self.module_.parameters()} if hasattr(self, "module_") else set()
        if any(p.requires_grad and id(p) in earlier for p in module.parameters()):
            raise ValueError(
                "module gives parameters that this estimator has trained already. Make new ones in each call (a "
                "copy.deepcopy of a pre-trained part, for instance), or freeze them with requires_grad_(False)."
            )
        if normalised and recipe.batch_rows == 1 < problem.n_rows:
            raise ValueError(
                f"batch_size=1 is not enough for a module with {normalised}, which normalises by the rows of a batch. "
                "Use larger batches, or a normalisation of each row (LayerNorm, GroupNorm)."
            )
        return module, bounded

    def _check_module(self) -> None:
        """Raise if the fitted module is not what these parameters make."""
        asked = self.module, self.module_params
        try:
            same = getattr(self, "_made_by", asked) == asked
        except (ValueError, RuntimeError):  # arrays, which have no one answer
            same = True
        if not same:
            raise ValueError(
                "warm_start and partial_fit go on with the module of the previous fit, and module or module_params has "
                "changed. Put them back, or fit with warm_start=False."
            )

    def _check_parameters(self, module: nn.Module) -> None:
        """Raise if there is nothing to train, or what cannot be trained."""
        trained = [p for p in module.parameters() if p.requires_grad]
        if not trained:
            raise ValueError("module has no trainable parameters (with requires_grad=True).")
        if any(not p.is_floating_point() for p in trained):
            raise ValueError("module has complex parameters; real ones can be trained (their two parts, for instance).")

    def _network(
        self,
        recipe: Recipe,
        problem: Problem,
        members: list[Member],
        penalty: ElasticNet,
        warm: bool,
        waiting: list[nn.Module] | None = None,
    ) -> ModuleNetwork:
        state = members[0].state
        if warm:
            self._check_module()
            module = self.module_
            self._check_parameters(module)
            if self._trained_names != [name for name, p in module.named_parameters() if p.requires_grad]:
                state.optimizer = None  # the user has frozen some, or others: its averages are of those before
        else:
            module = waiting.pop() if waiting else self._new_module(recipe, problem, state.generator)[0]
        if unstable := [part for part in module.modules() if isinstance(part, _RANDOM)]:
            self._check_same_objective(type(unstable[0]).__name__)
        _cast(module, problem.dtype)
        return self._around(module.to(problem.device), state.generator, may_draw=recipe.solver not in FULL_BATCH)

    def _around(
        self, module: nn.Module, generator: np.random.Generator | None = None, may_draw: bool = True
    ) -> ModuleNetwork:
        form = self.input_shape_, self.n_outputs_, self._n_values, self._takes_indices
        return ModuleNetwork(module, *form, generator, may_draw)

    def _rows(self, X: Matrix, device: torch.device, precise: bool) -> DenseRows | SparseRows:
        tensor = first_tensor(self.module_)
        dtype = torch.float32 if tensor is None else tensor.dtype
        check_numbers(X, dtype, self._takes_indices)
        return rows_of(X, device, dtype)

    def _trained_network(self, device: torch.device, dtype: torch.dtype) -> ModuleNetwork:
        return self._around(self.module_)

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict[str, Any]:
        assert isinstance(network, ModuleNetwork)
        release(network.module)
        network.module.eval()
        names = [name for name, p in network.module.named_parameters() if p.requires_grad]
        # beside the module an array from where X was: predictions are for X of the same kind
        return {"module_": network.module, "_trained_names": names, "_any_coef": space.array(np.zeros(1))}


@document_deep(
    training=deep_parameters(batch_rows="min(200, n_samples)"),
    learned=without(CALIBRATION_ATTRIBUTES, "calibration_slopes_, calibration_offsets_") + TRAINING_ATTRIBUTES,
)
@dataclass(eq=False, repr=False, kw_only=True)
class TorchClassifier(UserModule, NeuralNetClassifier):
    r"""A torch module of your own as a classifier, trained like :class:`MLPClassifierTorch`.

    .. math:: s = f_\theta(x)

    trained on the cross-entropy of the scores s (softmax for more than two classes, one logistic column for two, one
    per label for multilabel targets) plus :math:`\frac{\alpha}{2 B \bar w} \sum \|W\|^2` over the parameters W with
    two axes or more. A row may be of any shape, such as an image.

    The module is in ``train()`` mode in training steps, in ``eval()`` mode in prediction and validation. It is trained
    and run in one dtype, its own. Torch's random numbers in it (initial parameters, dropout) follow from
    ``random_state``, and torch's own generator is left alone. Searches train such classifiers one at a time.

    Parameters
    ----------
    module : type or callable
        A subclass of :class:`torch.nn.Module`, or a function that returns a module. It is called with
        ``module_params`` and, where its signature names them, ``n_outputs`` (score columns) and ``n_features``
        (``X.shape[1]``: columns, or channels of images). The module maps a batch (n, ...) to raw scores (n, n_outputs),
        without softmax or sigmoid, in the dtype of its parameters. Lazy modules are allowed, and so are parameters
        with ``requires_grad=False``: they are left alone. Each call must make new parameters to train. A module may be
        returned through :func:`torch.compile`; TorchScript and exported programs cannot be trained here.
    module_params : dict, default=None
        Arguments of the module. A search sets each as ``module__name``, as in skorch.
    solver : {"adam", "sgd", "adamw", "lbfgs"}, `Adam`, `SGD`, `AdamW` or `LBFGS`, default="adam"
        Adam, mini-batch gradient descent with momentum, Adam with decoupled weight decay, or full-batch L-BFGS (for
        modules without dropout and batch normalisation). An object, such as ``SGD(0.01, momentum=0.8)``, has settings
        of its own. ``learning_rate`` to ``precision`` below belong to a solver that is named: beside an object,
        each counts where the object leaves it "auto", and any other must stay at its default.
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
        modules, each on rows it has not seen, and one more observation that may be of any class: no answer is ever
        certain. With None probabilities are as they were trained.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained module, on the CPU, in ``eval()`` mode. ``partial_fit`` and ``warm_start`` go on with it, in place;
        if they fail, its parameters and buffers are as they were. Activations that it keeps have lost their graph.
    input_shape_ : tuple of int
        Shape of a row of X. Prediction also takes such rows as vectors.
    {learned}

    Raises
    ------
    TypeError
        If `module` does not give a module, or is one.
    ValueError
        If the module's scores have another shape, or there is nothing to train, or whole numbers of X would merge.

    See Also
    --------
    MLPClassifierTorch : Multilayer perceptrons.

    Notes
    -----
    ``precision="auto"`` is the dtype of the module's parameters: float32, unless it is made in float64 (``.double()``,
    or by ``torch.set_default_dtype``). Another precision casts the parameters; tensors that the module makes by itself
    keep their dtype. Prediction is in the module's dtype too. Its results have X's, and may differ in the last digits
    of float32 from the results of the same row among others.

    Integers reach the module in that dtype as well; where it does not take floating-point numbers (``nn.Embedding``,
    ``one_hot``), whole numbers of any dtype, such as OrdinalEncoder's, reach it as int64. Columns of whole numbers that
    the dtype cannot tell apart (beyond 2 ** 24 in float32) raise a ValueError: no ids are ever merged. Columns whose
    dtype says that they are categories are zeros and ones by then (``encoded_features_``): for an embedding, number
    them first.

    A module takes one array. Inputs of several kinds are columns side by side, which its ``forward`` takes apart.

    Early stopping restores the parameters and buffers of the best epoch (running averages included); other tensors that
    a module keeps are not restored. Where a batch holds all rows, equal ones are one row with their weight. Batch
    normalisation counts each row by its weight, and normalises a batch of one row by its running averages, as in
    :class:`MLPClassifierTorch`. Random numbers that a module draws in prediction are torch's own.

    A parameter that a batch makes no use of, as an expert that got none of its rows, has a gradient of zero there, and
    the penalty's: like the rows of an ``nn.Embedding`` that do not occur, it goes on by momentum and penalty. Torch's
    optimizers pass over a parameter whose ``grad`` is None. What no batch ever uses is best frozen.

    A batch is never cut into parts, so that its size bounds the memory. Sparse rows are made dense a batch at a time.
    Pickling needs a module whose class can be imported, and
    that torch pickles: not one with ``torch.nn.utils.parametrizations``, whose state is its ``state_dict()``.

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

    _why_unbounded = (
        "Softmax and sigmoid are parts of the loss, which takes raw scores: of such ones, no probabilities come near 0 "
        "and 1. Leave out that last part."
    )

    _parameter_constraints: ClassVar[dict] = {"calibration": [StrOptions({"temperature"}), None]}
