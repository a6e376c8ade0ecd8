"""The multilayer perceptron: a network of linear layers, with what may lie between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.dropout import Noise
from skdeep.engine.frame import Frame
from skdeep.engine.input_layer import Standardization
from skdeep.engine.networks import Network, affine, input_gradient, pulled_back, weight_gradient
from skdeep.engine.normalization import batch_norm, layer_norm
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import number, numbered, per_model, vector
from skdeep.engine.scratch import Scratch

#: From the gradient in the units of a layer: the gradients in its pre-activations, and in what is learnt between.
Pullback = Callable[[Tensor], list[Tensor]]


@dataclass
class _Layer:
    """A layer's pass forward, as far as the way back needs it.

    Attributes
    ----------
    rows, weight, bias : Tensor
        Of the affine map.
    pullback : callable or None
        None for the last layer, which has no units.
    factors : list of Tensor or float
        Of dropout and stochastic depth.
    is_block : bool
        Whether the rows were added to the units.
    """

    rows: Tensor
    weight: Tensor
    bias: Tensor
    pullback: Pullback | None = None
    factors: list[Tensor | float] = field(default_factory=list)
    is_block: bool = False


class MLP(Network):
    r"""A multilayer perceptron: linear layers, between them normalisation, activation and dropout.

    .. math:: h_l = d_l \odot \phi(N(W_l h_{l-1} + b_l)), \quad h_l = h_{l-1} + g_l\, d_l \odot \phi(\ldots)

    In the first layer, :math:`W_1 = V\, \mathrm{diag}(1 + r u)` where factors on the columns are learnt: u starts at
    zero, and an optimizer that moves all parameters alike moves the factors r times as fast as the weights V.

    Residual blocks have the second form. The random factors :math:`d_l` (dropout, per row and unit) and
    :math:`g_l` (stochastic depth, per batch and block) have expectation one, and are one in evaluation.

    Parameters
    ----------
    weights : list of Tensor, each (K, out, in)
    biases : list of Tensor, each (K, out)
    slopes : list of Tensor, each (K, 1)
        The activation's learnt parameter, one per hidden layer; empty for activations without one.
    activation : str
        A key of `skdeep.engine.activations.ACTIVATIONS`.
    gammas, betas : list of Tensor, each (K, out)
        Factor and summand of each hidden layer's normalisation; empty for none.
    running_means, running_vars : list of Tensor, each (K, out)
        Averages over batches; empty for layer normalisation, which has none.
    dropout : ndarray of shape (K,), or float
        Probability that a hidden unit is left out of a step.
    stochastic_depth : ndarray of shape (K,), float or None
        Probability that the last residual block is left out of a step; block l of L has l / L of it. Hidden
        layers whose input has the same width are residual blocks, unless this is None.
    generators : list of numpy.random.Generator
        Of each model's random factors.
    standardization : Standardization, optional
        Change of variables of the first layer, whose weights and biases then are those on standardised columns.
    scaling : float
        r, how fast factors on the columns are learnt; 0 for no factors.
    scales : list of Tensor (K, d)
        u; empty for no factors.
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        slopes: list[Tensor],
        activation: str,
        gammas: Sequence[Tensor] = (),
        betas: Sequence[Tensor] = (),
        running_means: Sequence[Tensor] = (),
        running_vars: Sequence[Tensor] = (),
        *,
        scaling: float = 0.0,
        scales: Sequence[Tensor] = (),
        dropout: np.ndarray | float = 0.0,
        stochastic_depth: np.ndarray | float | None = None,
        generators: Sequence[np.random.Generator] = (),
        standardization: Standardization | None = None,
    ):
        learnt = {"weight": weights, "bias": biases, "slope": slopes, "gamma": gammas, "beta": betas}
        learnt["scale"] = scales
        averaged = {"running_mean": running_means, "running_var": running_vars}
        self.params = [p.requires_grad_() for group in learnt.values() for p in group]
        self.buffers = [*running_means, *running_vars]
        self.n_coefs = len(weights)
        self.activation, self.scaling = activation, scaling
        self.dropout = vector(dropout, self.n_models)
        self.stochastic_depth = vector(0.0 if stochastic_depth is None else stochastic_depth, self.n_models)
        self.generators = list(generators)
        self.standardization = standardization
        self._tape: list[_Layer] = []
        self._scratch = Scratch()
        self._sizes = {name: len(group) for name, group in (learnt | averaged).items()}
        self.groups = self._grouped()
        pairs = enumerate(pairwise(weights[:-1]), start=1)
        width = [weight.shape[1] // ACTIVATIONS[activation].n_pieces for weight in weights]
        #: Hidden layers that are residual blocks.
        self.blocks = [] if stochastic_depth is None else [i for i, _ in pairs if width[i] == width[i - 1]]

    @classmethod
    def initial(
        cls,
        generators: list[np.random.Generator],
        layer_units: list[int],
        activation: str,
        *,
        normalization: str | None = None,
        scaling: float = 0.0,
        dropout: np.ndarray | float = 0.0,
        stochastic_depth: np.ndarray | float | None = None,
        standardization: Standardization | None = None,
        **tensor: Any,
    ) -> MLP:
        r"""Draw the initial weights of each model from its generator: Glorot & Bengio's uniform, AISTATS 2010.

        The bound is MLPClassifier's, :math:`\sqrt{6 / (n_{in} + n_{out})}` (2 instead of 6 for the logistic
        activation), for weights and biases. Normalisation starts as the identity on standardised columns; biases that
        batch normalisation makes superfluous stay zero.
        """
        form = ACTIVATIONS[activation]
        factor = 2.0 if activation == "logistic" else 6.0
        first, shared = numbered(generators)  # models that share a generator share its draw
        drawn = []
        for generator in (generators[model] for model in first):
            weights, biases = [], []
            for i, (fan_in, fan_out) in enumerate(pairwise(layer_units), start=2):
                bound = np.sqrt(factor / (fan_in + fan_out))
                width = fan_out * (form.n_pieces if i < len(layer_units) else 1)
                weights.append(generator.uniform(-bound, bound, (width, fan_in)))
                biases.append(generator.uniform(-bound, bound, width))
            drawn.append(weights + biases)
        models = [drawn[n] for n in shared]
        params = [torch.as_tensor(np.stack(p), **tensor) for p in zip(*models, strict=True)]
        n_layers = len(layer_units) - 1
        shape = (len(generators), 1)
        slopes = [] if form.slope is None else [torch.full(shape, form.slope, **tensor) for _ in range(n_layers - 1)]
        hidden = params[n_layers:-1]  # biases of hidden layers, whose shape the normalisation's parameters have
        if normalization == "batch":  # which takes off the mean
            for bias in hidden:
                bias.zero_()
        normalised, averaged = hidden if normalization else [], hidden if normalization == "batch" else []
        return cls(
            params[:n_layers],
            params[n_layers:],
            slopes,
            activation,
            gammas=[torch.ones_like(bias) for bias in normalised],
            betas=[torch.zeros_like(bias) for bias in normalised],
            running_means=[torch.zeros_like(bias) for bias in averaged],
            running_vars=[torch.ones_like(bias) for bias in averaged],
            scaling=scaling,
            scales=[torch.zeros(len(generators), layer_units[0], **tensor)] if scaling else [],
            dropout=dropout,
            stochastic_depth=stochastic_depth,
            generators=generators,
            standardization=standardization,
        )

    @classmethod
    def stacked(cls, parts: Sequence[MLP]) -> MLP:
        """Join networks of one model each and of the same form as one, for evaluation."""
        stack = parts[0].with_params(
            [torch.cat(tensors).detach() for tensors in zip(*(p.tensors for p in parts), strict=True)]
        )
        standardizations = [part.standardization for part in parts if part.standardization is not None]
        stack.standardization = Standardization.stacked(standardizations) if standardizations else None
        return stack

    def _grouped(self) -> dict[str, tuple[Tensor, ...]]:
        """Group the `tensors` by their kind, with an entry per layer, for `groups`."""
        tensors = iter(self.tensors)
        return {name: tuple(islice(tensors, size)) for name, size in self._sizes.items()}

    @property
    def names(self) -> list[str]:
        return [f"{name}_{i}" for name, size in self._sizes.items() for i in range(size)]

    @property
    def draws(self) -> bool:
        """Whether anything is drawn at a step."""
        return bool(self.dropout.any() or (self.blocks and self.stochastic_depth.any()))

    @property
    def whole_batches(self) -> bool:
        return self.draws or bool(self.buffers)

    @property
    def row_size(self) -> int:
        return super().row_size + (0 if self.standardization is None else self.standardization.row_size)

    def scores(self, X: Tensor) -> Tensor:
        return self._scores(X)

    def training_scores(self, X: Tensor, weight: Tensor | None = None) -> Tensor:
        noise, self._tape = Noise(self.generators) if self.draws else None, []
        with torch.no_grad():
            return self._scores(X, weight, noise, self._tape)

    def _scores(
        self, X: Tensor, weight: Tensor | None = None, noise: Noise | None = None, tape: list[_Layer] | None = None
    ) -> Tensor:
        """Compute scores; in training, each layer leaves on the `tape` what `gradient` needs of it."""
        weights, biases = list(self.groups["weight"]), list(self.groups["bias"])
        weights[0] = self._first_weight(keep=tape is None)
        if tape is not None:
            self._first = weights[0].requires_grad_()
        gates = None if noise is None or not self.blocks else self._gates(noise)
        hidden = X
        if self.standardization is not None:
            with torch.set_grad_enabled(tape is not None or torch.is_grad_enabled()):
                hidden, weights[0], biases[0] = self.standardization.factors(X, weights[0], biases[0])
        for i in range(self.n_coefs - 1):
            rows, z = hidden, affine(hidden, weights[i], biases[i])
            hidden, pullback = self._units(i, z, weight, tape is not None)
            factors: list[Tensor | float] = []
            if noise is not None and self.dropout.any():
                factors.append(noise.units(i, self.dropout, hidden))
            if gates is not None and i in self.blocks:
                factors.append(per_model(gates[:, self.blocks.index(i)], hidden))
            for factor in factors:
                hidden = hidden * factor
            if i in self.blocks:
                hidden = rows + hidden
            if tape is not None:
                tape.append(_Layer(rows, weights[i], biases[i], pullback, factors, i in self.blocks))
        if tape is not None:
            tape.append(_Layer(hidden, weights[-1], biases[-1]))
        return affine(hidden, weights[-1], biases[-1])

    def _factors(self) -> Tensor:
        """Compute the factors on the columns, (K, 1, d)."""
        (scale,) = self.groups["scale"]
        return torch.add(number(1.0, scale), scale, alpha=self.scaling).unsqueeze(1)

    def _first_weight(self, keep: bool) -> Tensor:
        """Scale the first layer's weights by the factors on the columns, (K, out, in); to `keep`, or for a step.

        Fresh memory at each step would cost more than the product.
        """
        if not self.groups["scale"]:
            return self.params[0]
        if keep:
            return self.params[0] * self._factors()
        with torch.no_grad():
            return torch.mul(self.params[0], self._factors(), out=self._weight_room().detach())

    def _weight_room(self) -> Tensor:
        """Take memory for the first layer's weights with their factors, and for what `complete_` computes from them."""
        return self._scratch.like("first weight", self.params[0])

    def _units(self, i: int, z: Tensor, weight: Tensor | None, training: bool) -> tuple[Tensor, Pullback]:
        """Compute units of a hidden layer, and the pullback to their pre-activations and to what is learnt between.

        The pullback of a bare activation is known; else it is autograd's.
        """
        form, (_, _, slopes, gammas, betas, _, means, variances) = ACTIVATIONS[self.activation], self.groups.values()
        if not gammas and form.pullback is not None:
            units, known = form.function(z), form.pullback
            return units, lambda gradient: [known(gradient, z, units)]
        leaves = [z.requires_grad_() if training else z, *(group[i] for group in (slopes, gammas, betas) if group)]
        with torch.set_grad_enabled(training or torch.is_grad_enabled()):
            if self.buffers:
                z = batch_norm(z, gammas[i], betas[i], means[i], variances[i], weight, training=training)
            elif gammas:
                z = layer_norm(z, gammas[i], betas[i])
            units = form.function(z, *slopes[i : i + 1])
        return units.detach() if training else units, lambda gradient: pulled_back([units], [gradient], leaves)

    @torch.no_grad()
    def gradient(self, scores: Tensor, X: Tensor, score_gradient: Tensor) -> list[Tensor]:
        found: dict[str, list[Tensor]] = {"weight": [], "bias": [], "slope": [], "gamma": [], "beta": []}
        found["scale"] = [torch.zeros_like(scale) for scale in self.groups["scale"]]
        between = [name for name in ("slope", "gamma", "beta") if self._sizes[name]]
        dtype, gradient, tape = score_gradient.dtype, score_gradient, self._tape
        while tape:
            layer, above = tape.pop(), gradient  # the memory of a layer that is done is free
            if layer.pullback is not None:
                for factor in layer.factors:
                    gradient = gradient * factor
                gradient, *others = layer.pullback(gradient)
                for name, other in zip(between, others, strict=True):
                    found[name].append(other)
            of_weight, of_bias = weight_gradient(layer.rows, gradient).to(dtype), gradient.sum(1).to(dtype)
            if layer.weight.grad_fn is not None:  # the change of variables is one of the weights
                leaves = [self._first, self.params[self.n_coefs]]
                of_weight, of_bias = pulled_back([layer.weight, layer.bias], [of_weight, of_bias], leaves)
            if layer.pullback is not None and self.buffers:
                # the mean of a batch takes off any constant, whose gradient is zero; Adam would blow up its rounding
                of_bias.zero_()
            found["weight"].append(of_weight)
            found["bias"].append(of_bias)
            if tape:
                gradient = input_gradient(layer.weight, gradient)
                if layer.is_block:
                    gradient = gradient + above
        return [gradient for group in found.values() for gradient in reversed(group)]

    def penalised(self) -> list[Tensor]:
        return [self._first_weight(keep=True), *self.params[1 : self.n_coefs]]

    @torch.no_grad()
    def complete_(self, gradients: list[Tensor], penalty: ElasticNet | None) -> None:
        if not self.groups["scale"]:
            super().complete_(gradients, penalty)
            return
        # so far, the first gradient is in the weights with their factors
        if penalty is not None:
            coefs = [self._first, *self.params[1 : self.n_coefs]]
            for coef, gradient in zip(coefs, gradients, strict=False):
                penalty.add_gradient_(coef.detach(), gradient)
        of_products = torch.mul(gradients[0], self.params[0], out=self._weight_room()).sum(1)
        torch.mul(of_products, self.scaling, out=gradients[-1])
        gradients[0].mul_(self._factors())

    def _gates(self, noise: Noise) -> np.ndarray:
        """Draw factors on the residual blocks, (K, L)."""
        growth = np.arange(1, len(self.blocks) + 1) / len(self.blocks)
        return noise.blocks(self.stochastic_depth[:, None] * growth)

    @property
    def frame(self) -> Frame | None:  # type: ignore[override]
        return None if self.standardization is None else self.standardization.frame

    def learned(self, model: int, dtype: np.dtype) -> dict[str, list[np.ndarray]]:
        """Compute the `groups` of one model, to be kept in `dtype`; the first layer is for the user's columns.

        In the place of u are the factors on the columns.
        """
        groups: dict[str, list[np.ndarray]]
        groups = {name: [t.detach()[model].cpu().numpy() for t in group] for name, group in self.groups.items()}
        weight, bias = (groups[name][0].astype(np.float64) for name in ("weight", "bias"))
        if groups["scale"]:
            groups["scale"] = [1 + self.scaling * groups["scale"][0]]
            weight = weight * groups["scale"][0]
        groups = {name: [array.astype(dtype) for array in group] for name, group in groups.items()}
        if self.standardization is None:
            weight, bias = weight.astype(dtype), bias.astype(dtype)
        else:
            weight, bias = self.standardization.folded(model, weight, bias, dtype)
        groups["weight"][0], groups["bias"][0] = weight, bias
        return groups

    def with_params(self, params: list[Tensor]) -> MLP:
        part = copy.copy(self)
        part._tape, part._scratch = [], Scratch()
        n = len(self.params)
        part.params, part.buffers = [p.requires_grad_() for p in params[:n]], list(params[n:])
        part.groups = part._grouped()
        return part

    def select(self, models: np.ndarray) -> MLP:
        part = super().select(models)
        assert isinstance(part, MLP)
        part.dropout = self.dropout[models]
        part.stochastic_depth = self.stochastic_depth[models]
        part.generators = [self.generators[m] for m in models] if self.generators else []
        if self.standardization is not None:
            part.standardization = self.standardization.select(models)
        return part
