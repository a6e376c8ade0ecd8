"""A fitted estimator as a torch module, from raw columns to probabilities or values."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import erfcx
from torch import Tensor, nn
from torch.nn import functional

from skdeep.data.answers import Link, codes, decisions, probabilities
from skdeep.data.inputs import Classifier, to_numpy
from skdeep.data.problem import CHUNK_ROWS
from skdeep.data.values import Prediction
from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.module_network import ModuleNetwork, first_tensor
from skdeep.engine.networks import Network, affine
from skdeep.engine.normalization import EPSILON, layer_norm
from skdeep.engine.perceptron import MLP
from skdeep.engine.threads import torch_threads_for
from skdeep.fitting.fitted import needs_float64
from skdeep.fitting.links import Average, average_of, link_of

_CPU = torch.device("cpu")


#: Of the self-normalising elu (Klambauer et al. 2017): the factor on all, and the one below zero.
_SELU = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _like(z: Tensor, value: float) -> Tensor:
    """Make a number of the dtype of others: an exporter to ONNX rounds one without a dtype to float32."""
    return torch.tensor(value, dtype=z.dtype, device=z.device)


def _elu(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, z.clamp(max=0).expm1())


def _leaky_relu(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, z * _like(z, 0.01))


def _selu(z: Tensor) -> Tensor:
    factor, below = (_like(z, value) for value in _SELU)
    return factor * torch.where(z > 0, z, below * _elu(z))


def _scaled_tail(t: np.ndarray) -> np.ndarray:
    """Compute (1 + 2a) exp(a²) erfc(a), a = c (1 + 2t) / (1 - 2t): smooth in t (Shepherd & Laframboise 1981)."""
    with np.errstate(divide="ignore"):
        a = _TAIL * (1 + 2 * t) / (1 - 2 * t)
    return (1 + 2 * a) * erfcx(a)


_TAIL = 3.75
#: A polynomial that is this function to the last digits, the highest power first. For t up to a half, since an exporter
#: takes constants below 1e-8 for zero.
_POLYNOMIAL = Chebyshev.interpolate(_scaled_tail, 22, (-0.5, 0.5)).convert(kind=Polynomial).coef[::-1].tolist()


def _gelu(z: Tensor) -> Tensor:
    if z.dtype != torch.float64 or not torch.compiler.is_compiling():
        return functional.gelu(z)
    size, found = z.abs(), torch.zeros_like(z)
    a, c = size * _like(z, math.sqrt(0.5)), _like(z, _TAIL)
    t = (a - c) / (a + c) * _like(z, 0.5)
    for coefficient in _POLYNOMIAL:
        found = found * t + _like(z, coefficient)
    return z.clamp(min=0) - size * (_like(z, 0.5) * found * (-a * a).exp() / (_like(z, 1) + a + a))


#: Activations in operators that ONNX Runtime has in float64, too: of those by their names it has float32 only.
_PORTABLE = {"leaky_relu": _leaky_relu, "elu": _elu, "selu": _selu, "gelu": _gelu}


def _parameters(tensors: Sequence[Tensor], dtype: torch.dtype) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(tensor.detach().to(dtype, copy=True)) for tensor in tensors)


class Layers(nn.Module):
    """Compute the scores of a stack of linear models or perceptrons, as they are in prediction: (n, d) to (K, n, C).

    The network is one of fitted attributes, in float64: what its columns are changed by is a mean, if anything. The
    module keeps its parameters in `dtype`.
    """

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        groups = network.groups if isinstance(network, MLP) else {}
        self.weights = _parameters(groups.get("weight", network.params[:1]), dtype)
        self.biases = _parameters(groups.get("bias", network.params[1:]), dtype)
        self.slopes, self.gammas, self.betas = (
            _parameters(groups.get(name, ()), dtype) for name in ("slope", "gamma", "beta")
        )
        self.n_averaged = len(groups.get("running_mean", ()))
        for name in ("running_mean", "running_var") if self.n_averaged else ():
            for i, tensor in enumerate(groups[name]):
                self.register_buffer(f"{name}_{i}", tensor.detach().to(dtype, copy=True))
        self.activation = getattr(network, "activation", "identity")
        self.blocks = list(getattr(network, "blocks", ()))
        columns = getattr(network, "standardization", None)
        self.means: Tensor | None
        self.indicated: Tensor
        center = None if columns is None else columns.center
        self.register_buffer("means", None if center is None else center.detach().clone())
        self.register_buffer("indicated", torch.empty(0).long() if columns is None else columns.indicated.clone())
        bins = None if columns is None else columns.bins
        self.bin_slopes: Tensor | None
        self.bin_offsets: Tensor
        for name in ("slope", "offset"):  # in float64, where bins are narrow
            self.register_buffer(f"bin_{name}s", None if bins is None else torch.from_numpy(getattr(bins, name)))
        for name, own in zip(("least", "greatest"), (None, None) if bins is None else bins.ends, strict=True):
            self.register_buffer(name, None if own is None else torch.from_numpy(own).unsqueeze(1))
        n_bins = 0 if bins is None else bins.n_columns
        self.n_features = self.weights[0].shape[2] - len(self.indicated) - n_bins
        if columns is not None:  # the means are in it: of more digits than a dtype, where X has these
            self.biases[0] = nn.Parameter(groups["bias"][0].detach().clone())

    def forward(self, X: Tensor) -> Tensor:
        """Compute scores of rows."""
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X must have shape (n, {self.n_features}), got {tuple(X.shape)}.")
        dtype = torch.promote_types(X.dtype, self.weights[0].dtype)
        if torch.compiler.is_compiling():
            # another runtime adds up in an order of its own: of scores of 50, float32 keeps no six digits then
            return self._scores(X, dtype, torch.float64)
        # on as many threads as in prediction, since on more, too, the order is another
        with torch_threads_for(min(len(X), CHUNK_ROWS) * sum(p.numel() for p in self.parameters())):
            return self._scores(X, dtype, dtype)

    def _scores(self, X: Tensor, dtype: torch.dtype, last_dtype: torch.dtype) -> Tensor:
        """Compute scores in a precision, with another one for the last map."""
        rows = self._filled(X.to(dtype))
        *hidden, last = zip(self.weights, self.biases, strict=True)
        for i, (weight, bias) in enumerate(hidden):
            units = self._units(i, affine(rows, weight.to(dtype), bias.to(dtype)))
            rows = rows + units if i in self.blocks else units
        weight, bias = last
        return affine(rows.to(last_dtype), weight.to(last_dtype), bias.to(last_dtype))

    def _filled(self, X: Tensor) -> Tensor:
        """Center columns (K, n, d), with the mean for what is missing, and add the indicators and bins."""
        if self.means is None and self.bin_slopes is None:
            return X
        if len(self.indicated):
            X = torch.cat([X, X.index_select(1, self.indicated).isnan().to(X.dtype)], dim=1)
        # a product first would round a mean far above the deviation
        X = X.unsqueeze(0) if self.means is None else (X - self.means.to(X.dtype)).nan_to_num(nan=0.0)
        if self.bin_slopes is None:
            return X
        own, rest = X.split([e := self.bin_slopes.shape[1], X.shape[-1] - e], dim=-1)
        own = own.clamp(self.least.to(X.dtype), self.greatest.to(X.dtype))
        X, values = torch.cat([own, rest.expand(len(own), -1, -1)], dim=-1), own.unsqueeze(-1)
        bins = values * self.bin_slopes.unsqueeze(1).to(X.dtype) + self.bin_offsets.unsqueeze(1).to(X.dtype)
        bins = bins.clamp(-1, 1).flatten(2)
        return torch.cat([X.expand(len(bins), -1, -1), bins], dim=-1)

    def _units(self, i: int, z: Tensor) -> Tensor:
        """Compute the units (K, n, h) of a hidden layer."""
        if self.n_averaged:
            mean, var = (getattr(self, f"{name}_{i}").to(z.dtype) for name in ("running_mean", "running_var"))
            factor = self.gammas[i].to(z.dtype) * (var + _like(var, EPSILON)).rsqrt()
            z = (z - mean.unsqueeze(1)) * factor.unsqueeze(1) + self.betas[i].to(z.dtype).unsqueeze(1)
        elif len(self.gammas):
            z = layer_norm(z, self.gammas[i].to(z.dtype), self.betas[i].to(z.dtype))
        slopes = [self.slopes[i].to(z.dtype)] if len(self.slopes) else []
        return _PORTABLE.get(self.activation, ACTIVATIONS[self.activation].function)(z, *slopes)


class Wrapped(nn.Module):
    """Compute the scores (1, n, C) of rows of any shape by a copy of a user's module."""

    def __init__(self, network: ModuleNetwork) -> None:
        super().__init__()
        try:
            self.module = copy.deepcopy(network.module)
        except Exception as error:  # whatever a part of it raises
            raise ValueError(
                f"The module {type(network.module).__name__} cannot be copied: {error}. Take out what cannot (a lock, "
                "an open file), or give it a __deepcopy__."
            ) from error
        self.shape, self.indices = network.shape, network.indices

    def forward(self, X: Tensor) -> Tensor:
        """Compute scores of rows, in the dtype of the module."""
        if math.prod(X.shape[1:]) != math.prod(self.shape):
            raise ValueError(f"X must have rows of shape {self.shape}, got {tuple(X.shape[1:])}.")
        tensor = first_tensor(self.module)
        dtype = torch.int64 if self.indices else torch.float32 if tensor is None else tensor.dtype
        return self.module(X.to(dtype).reshape(-1, *self.shape)).unsqueeze(0)


def _in_precision(X: Tensor, scores: Callable[[Tensor], Tensor], stack: nn.Module) -> Tensor:
    """Compute scores of rows, and cast them to the precision of these."""
    short = X.dtype in (torch.float32, torch.float16, torch.bfloat16)
    X = X if X.is_floating_point() or isinstance(stack, Wrapped) else X.to(torch.float64)
    return scores(X).to(torch.float32 if short else torch.float64)


class ClassifierModule(nn.Module):
    """A fitted classifier as a module: raw columns in, what ``predict_proba`` gives out.

    Beyond the shape of X nothing of it is checked: rows that an estimator refuses, such as those with values missing
    that it takes none of, have probabilities that are NaN. It is made by ``to_torch`` of an estimator.

    **Shape.** (n, n_features) to (n, n_classes); without probabilities, to what ``decision_function`` gives, (n,) or
    (n, n_classes).

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, in the order of the columns.
    """

    def __init__(
        self, stack: nn.Module, average: Average | None, link: Link, classes: np.ndarray, has_probabilities: bool
    ) -> None:
        super().__init__()
        self.stack, self.average, self.link = stack, average, link
        self.classes_, self.has_probabilities = classes, has_probabilities

    def scores(self, X: Tensor) -> Tensor:
        """Compute scores (n, C), one column for two classes: what a loss is taken of, to train on.

        They are in X's precision, whatever the module's own: float32, or else float64.
        """

        def of_rows(rows: Tensor) -> Tensor:
            of_models = self.stack(rows)
            return of_models[0] if self.average is None else self.average.of(of_models)

        return _in_precision(X, of_rows, self.stack)

    def forward(self, X: Tensor) -> Tensor:
        """Compute probabilities (n, n_classes), or scores where there are none."""
        return self.answers(X)[1]

    def answers(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the numbers of the classes (n,) in ``classes_``, or indicators (n, n_labels); and `forward`'s."""
        scores, multilabel = self.scores(X), self.link.multilabel
        found = codes(scores, multilabel) if len(self.classes_) > 1 or multilabel else codes(scores, False) * 0
        if self.has_probabilities:
            return found, probabilities(scores, self.classes_, self.link)
        return found, decisions(scores, multilabel)


class RegressorModule(nn.Module):
    """A fitted regressor as a module: raw columns in, what ``predict`` gives out.

    Beyond the shape of X nothing of it is checked. It is made by ``to_torch`` of a regressor.

    **Shape.** (n, n_features) to (n,) or (n, n_targets), as y was; of several quantiles, (n, n_quantiles).
    """

    def __init__(self, stack: nn.Module, prediction: Prediction) -> None:
        super().__init__()
        self.stack, self.prediction = stack, prediction

    def scores(self, X: Tensor) -> Tensor:
        """Compute scores (n, C), in X's precision, whatever the module's own: float32, or else float64."""
        return _in_precision(X, lambda rows: self.prediction.combined(self.stack(rows)), self.stack)

    def forward(self, X: Tensor) -> Tensor:
        """Compute predictions."""
        return self.prediction.of(self.scores(X))


def as_module(estimator: Classifier) -> nn.Module:
    """Make the module of a fitted estimator, on the CPU, in ``eval()`` mode."""
    dtype = torch.float64 if needs_float64(estimator) else torch.float32
    network = estimator._trained_network(_CPU, dtype)
    if isinstance(network, ModuleNetwork):
        stack: nn.Module = Wrapped(network)
    else:
        stack = Layers(estimator._trained_network(_CPU, torch.float64), dtype)
    if hasattr(estimator, "_prediction"):
        return RegressorModule(stack, estimator._prediction).eval()
    parts = average_of(estimator), link_of(estimator), to_numpy(estimator.classes_)
    return ClassifierModule(stack, *parts, hasattr(estimator, "predict_proba")).eval()
