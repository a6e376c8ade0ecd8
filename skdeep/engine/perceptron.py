"""The multilayer perceptron: a network of linear layers, with what may lie between them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.torch import _foreach_copy_
from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.affine import Affine
from skdeep.engine.dropout import Noise
from skdeep.engine.embeddings import BinnedAffine
from skdeep.engine.frame import Frame
from skdeep.engine.input_layer import Standardization
from skdeep.engine.networks import Network, OutputMap, pulled_back
from skdeep.engine.normalization import batch_norm, layer_norm
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import fetched, numbered, per_model, to_device, vector
from skdeep.engine.rows import DenseRows, SparseRows

#: From the gradient in the units of a layer: the gradients in its pre-activations, and in what is learnt between.
Pullback = Callable[[Tensor], Sequence[Tensor]]


class _Layer(NamedTuple):
    """A layer's pass forward, as far as the way back needs it."""

    affine: Affine
    rows: Tensor  # of which the map was taken, (..., B, in)
    pullback: Pullback | None = None  # None for the last layer, which has no units
    factors: Sequence[Tensor | float] = ()  # of dropout and stochastic depth
    is_block: bool = False  # whether the rows were added to the units


class MLP(Network):
    r"""A multilayer perceptron: linear layers, between them normalisation, activation and dropout.

    .. math:: h_l = d_l \odot \phi(N(W_l h_{l-1} + b_l)), \quad h_l = h_{l-1} + g_l\, d_l \odot \phi(\ldots)

    Residual blocks have the second form: hidden layers whose input has the same width, unless `stochastic_depth` is
    None. The random factors :math:`d_l` (dropout, per row and unit) and :math:`g_l` (stochastic depth, per batch and
    block) have expectation one, and are one in evaluation. Their probabilities are (K,); block l of L has l / L of its.

    In the first layer, :math:`W_1 = V\, \mathrm{diag}(1 + r u)` where factors on the columns are learnt: u, the
    `scales` (K, f), starts at zero, and an optimizer that moves all parameters alike moves the factors r, the
    `scaling`, times as fast as the weights V. The bins of a column share one (`Bins.sharing`). With a
    `standardization`, weights and biases are those on standardised columns.

    There is a tensor for each layer: weights (K, out, in) and biases (K, out); of hidden layers, slopes (K, 1), what
    the `activation` learns, if anything; and gammas, betas, running means and variances (K, out), factor and summand of
    a normalisation, if any, and its averages over batches.
    """

    is_static = True

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
        self.standardization = standardization
        shared = standardization.sharing if standardization is not None and scales else None
        place = weights[0].device, weights[0].dtype
        self._sharing = None if shared is None else to_device(torch.from_numpy(shared), *place)
        self._tape: list[_Layer] = []
        self._kept: list[Affine] = []
        self._cast: list[Affine] = []
        self._is_prepared = False
        self._sizes = {name: len(group) for name, group in (learnt | averaged).items()}
        self._between = [name for name in ("slope", "gamma", "beta") if self._sizes[name]]
        self.groups = self._grouped()
        pairs = enumerate(pairwise(weights[:-1]), start=1)
        width = [weight.shape[1] // ACTIVATIONS[activation].n_pieces for weight in weights]
        #: Hidden layers that are residual blocks.
        self.blocks = [] if stochastic_depth is None else [i for i, _ in pairs if width[i] == width[i - 1]]
        self._settle()

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
        activation), for weights and biases; bins do not count in :math:`n_{in}`. Normalisation starts as the identity
        on standardised columns; biases that batch normalisation makes superfluous stay zero.
        """
        form = ACTIVATIONS[activation]
        factor = 2.0 if activation == "logistic" else 6.0
        n_own = layer_units[0] if standardization is None else standardization.scale.shape[-1]
        sharing = None if standardization is None else standardization.sharing
        n_factors = layer_units[0] if sharing is None else len(sharing)
        first, shared = numbered(generators)  # models that share a generator share its draw
        drawn = []
        for generator in (generators[model] for model in first):
            weights, biases = [], []
            for i, (fan_in, fan_out) in enumerate(pairwise(layer_units), start=2):
                bound = np.sqrt(factor / ((n_own if i == 2 else fan_in) + fan_out))
                width = fan_out * (form.n_pieces if i < len(layer_units) else 1)
                weights.append(generator.uniform(-bound, bound, (width, fan_in)))
                biases.append(generator.uniform(-bound, bound, width))
            drawn.append(weights + biases)
        place = torch.empty(0, **tensor)
        stacks = [np.stack(arrays) for arrays in zip(*(drawn[n] for n in shared), strict=True)]
        if standardization is not None:
            stacks[0] = standardization.real(stacks[0])
        params = [to_device(torch.from_numpy(stack), place.device, place.dtype) for stack in stacks]
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
            scales=[torch.zeros(len(generators), n_factors, **tensor)] if scaling else [],
            dropout=dropout,
            stochastic_depth=stochastic_depth,
            standardization=standardization,
        )

    @classmethod
    def stacked(cls, parts: Sequence[MLP]) -> MLP:
        """Join networks of one model each and of the same form as one, for evaluation."""
        tensors = zip(*(part.tensors for part in parts), strict=True)
        stack = parts[0].with_params([torch.cat(own).detach() for own in tensors])
        standardizations = [part.standardization for part in parts if part.standardization is not None]
        stack.standardization = Standardization.stacked(standardizations) if standardizations else None
        stack._settle()
        return stack

    def _grouped(self) -> dict[str, tuple[Tensor, ...]]:
        """Group the `tensors` by their kind, with an entry per layer, for `groups`."""
        tensors = iter(self.tensors)
        return {name: tuple(islice(tensors, size)) for name, size in self._sizes.items()}

    def _settle(self) -> None:
        """Note what every step asks for."""
        self.draws = bool(self.dropout.any() or (self.blocks and self.stochastic_depth.any()))
        self.couples_rows = bool(self.buffers)
        self.whole_batches = self.draws or self.couples_rows
        self._row_size = super().row_size
        if self.standardization is not None and not self._is_prepared:
            self._row_size += self.standardization.row_size

    @property
    def names(self) -> list[str]:
        return [f"{name}_{i}" for name, size in self._sizes.items() for i in range(size)]

    @property
    def row_size(self) -> int:
        return self._row_size

    def prepare(self, rows: DenseRows | SparseRows) -> DenseRows | SparseRows:
        standardised = None if self.standardization is None else self.standardization.all_at_once(rows)
        self._is_prepared = standardised is not None
        self._settle()
        return rows if standardised is None else standardised

    def prepare_each(self, rows: DenseRows, index: list[np.ndarray], n_alike: int) -> DenseRows | None:
        found = None if self.standardization is None else self.standardization.of_each(rows, index, n_alike)
        self._is_prepared = found is not None
        self._settle()
        return found

    def asks_autograd(self, rows: DenseRows | SparseRows) -> bool:
        changed = self.standardization is not None and isinstance(rows, SparseRows)
        return changed or ACTIVATIONS[self.activation].pullback is None or bool(self._sizes["gamma"])

    def scores(self, X: Tensor) -> Tensor:
        return self.evaluator()(X)

    def evaluator(self) -> Callable[[Tensor], Tensor]:
        layers = [Affine(*pair) for pair in zip(self.penalised(), self.groups["bias"], strict=True)]
        columns, first = self.standardization, layers[0]
        bins = None if columns is None or not BinnedAffine.suits(first.weight) else columns.bins
        table: list[BinnedAffine] = []

        def scores(X: Tensor) -> Tensor:
            if columns is None:
                return self._scores(X, first.of_batch(X.to(first.weight.dtype)), layers)
            if bins is not None and X.layout is torch.strided and X.shape[-2] >= BinnedAffine.fewest:
                X = columns.columns(X)
                if not table:
                    table.append(BinnedAffine(bins, first, 1 if X.ndim == 2 else len(X)))
                return self._scores(X, table[0].of_batch(X), layers)
            X, *changed = columns.factors(X, first.weight, first.bias)
            return self._scores(X, Affine(*changed).of_batch(X), layers)

        return scores

    def training_scores(self, X: Tensor, weight: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        layers, self._change = self._layers(), None
        if X.layout is torch.sparse_csr:  # of which there are no products in half precision
            layers = [self._kept[0], *layers[1:]]
        if self.standardization is not None and not self._is_prepared:
            first = layers[0]
            if X.layout is torch.sparse_csr:  # the change of variables is one of the weights
                leaves = [first.weight.detach().requires_grad_(), first.bias.detach().requires_grad_()]
                with torch.enable_grad():
                    X, *changed = self.standardization.factors(X, *leaves)
                layers = [Affine(*(tensor.detach() for tensor in changed)), *layers[1:]]
                self._change = changed, leaves
            else:
                X, _, _ = self.standardization.factors(X, first.weight, first.bias)
        self._tape = []
        if len(self._first) == 1 and X.ndim == 2 and X.layout is not torch.sparse_csr:
            X = X.unsqueeze(0)  # rows of its own: the products of all layers are of one kind
        return self._scores(X, layers[0].of_batch(X), layers, self._tape, weight, noise)

    def _scores(
        self,
        rows: Tensor,
        z: Tensor,
        layers: list[Affine],
        tape: list[_Layer] | None = None,
        weight: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        """Compute scores of rows, whose map by the first layer is z.

        In training, each layer leaves on the `tape` what `gradient` needs of it.
        """
        gates = self._gates(noise) if noise is not None and self.blocks else None
        for i, layer in enumerate(layers[:-1]):
            hidden, pullback = self._units(i, z, weight, tape is not None)
            factors: list[Tensor | float] = []
            if noise is not None and self.dropout.any():
                factors.append(noise.units(i, self.dropout, hidden.mT).mT)
            if gates is not None and i in self.blocks:
                factors.append(per_model(gates[:, self.blocks.index(i)], hidden))
            for factor in factors:
                hidden = hidden * factor
            if i in self.blocks:
                hidden = rows.mT + hidden
            if tape is not None:
                tape.append(_Layer(layer, rows, pullback, factors, i in self.blocks))
            rows, z = hidden.mT, layers[i + 1].of_hidden(hidden)
        if tape is not None:
            tape.append(_Layer(layers[-1], rows))
        return z.mT

    def _with_factors(self, weight: Tensor, scale: Tensor, out: Tensor | None = None) -> Tensor:
        """Multiply numbers (K, h, d) by the factors on the columns, of `scale` (K, 1, f)."""
        scale = scale if self._sharing is None else scale @ self._sharing
        return torch.addcmul(weight, weight, scale, value=self.scaling, out=out)

    def _layers(self) -> list[Affine]:
        """Return the affine maps of this step: views of the parameters, which are seen once for all steps.

        The first layer's weights with the factors on the columns have memory of their own, which is kept: fresh memory
        at each step would cost more than the product.
        """
        if not self._kept:
            weights, biases = ([tensor.detach() for tensor in self.groups[name]] for name in ("weight", "bias"))
            self._first = weights[0]
            self._scale = [scale.detach().unsqueeze(1) for scale in self.groups["scale"]]
            if self._scale:
                weights[0] = torch.empty_like(weights[0])
                self._speeds = torch.full_like(weights[0][:, :, 0], self.scaling).unsqueeze(1)
            #: In the place of gradients that `complete_` finds.
            self._missing = [torch.zeros_like(scale).detach() for scale in self.groups["scale"]]
            self._kept = [Affine(*pair) for pair in zip(weights, biases, strict=True)]
        for scale in self._scale:
            self._with_factors(self._first, scale, out=self._kept[0].weight)
        if self.products is None:
            return self._kept
        if not self._cast:  # once for all products of a step: autocast would cast them for each
            rounded = [torch.empty_like(layer.weight, dtype=self.products) for layer in self._kept]
            self._cast = [Affine(*pair) for pair in zip(rounded, (layer.bias for layer in self._kept), strict=True)]
        _foreach_copy_([layer.weight for layer in self._cast], [layer.weight for layer in self._kept])
        return self._cast

    def _units(self, i: int, z: Tensor, weight: Tensor | None, training: bool) -> tuple[Tensor, Pullback]:
        """Compute units of a hidden layer, and the pullback to their pre-activations and to what is learnt between.

        Both are (K, h, B). The pullback of a bare activation is known; else it is autograd's.
        """
        form = ACTIVATIONS[self.activation]
        if form.pullback is not None and not self._sizes["gamma"]:
            units, known = (form.in_place or form.function)(z), form.pullback
            return units, lambda gradient: (known(gradient, z, units),)
        _, _, slopes, gammas, betas, _, means, variances = self.groups.values()
        leaves = [z.requires_grad_() if training else z, *(group[i] for group in (slopes, gammas, betas) if group)]
        with torch.set_grad_enabled(training or torch.is_grad_enabled()):
            rows = z.mT
            if self.buffers:
                rows = batch_norm(rows, gammas[i], betas[i], means[i], variances[i], weight, training=training)
            elif gammas:
                rows = layer_norm(rows, gammas[i], betas[i])
            units = form.function(rows, *slopes[i : i + 1]).mT
        return units.detach() if training else units, lambda gradient: pulled_back([units], [gradient], leaves)

    def gradient(self, scores: Tensor, X: Tensor, score_gradient: Tensor) -> list[Tensor]:
        found: dict[str, list[Tensor]] = {"weight": [], "bias": [], **{name: [] for name in self._between}}
        dtype, tape = score_gradient.dtype, self._tape
        # of one output, strides that choose the same kernel for one model as for several
        gradient = score_gradient.mT if score_gradient.shape[2] > 1 else score_gradient.squeeze(2).unsqueeze(1)
        while tape:
            layer, above = tape.pop(), gradient  # the memory of a layer that is done is free
            if layer.pullback is not None:
                for factor in layer.factors:
                    gradient = gradient * factor
                gradient, *others = layer.pullback(gradient)
                for name, other in zip(self._between, others, strict=True):
                    found[name].append(other)
            of_weight, of_bias = layer.affine.weight_gradient(layer.rows, gradient), gradient.sum(2, dtype=dtype)
            if not tape and self._change is not None:
                changed, leaves = self._change
                of_weight, of_bias = pulled_back(changed, [of_weight.to(dtype), of_bias], leaves)
            if layer.pullback is not None and self.buffers:
                # the mean of a batch takes off any constant, whose gradient is zero; Adam would blow up its rounding
                of_bias.zero_()
            found["weight"].append(of_weight)
            found["bias"].append(of_bias)
            if tape:
                gradient = layer.affine.input_gradient(gradient)
                if layer.is_block:
                    gradient = gradient + above
        if found["weight"][0].dtype is not dtype:
            rounded = found["weight"]
            found["weight"] = [torch.empty_like(gradient, dtype=dtype) for gradient in rounded]
            _foreach_copy_(found["weight"], rounded)
        return [gradient for group in found.values() for gradient in reversed(group)] + self._missing

    def penalised(self) -> list[Tensor]:
        first = self.params[0]
        for scale in self.groups["scale"]:
            first = self._with_factors(first, scale.unsqueeze(1))
        return [first, *self.params[1 : self.n_coefs]]

    def complete_(self, gradients: list[Tensor], penalty: ElasticNet | None) -> None:
        # so far, the first gradient is in the weights with their factors
        if penalty is not None:
            penalty.add_gradients_([layer.weight for layer in self._kept], gradients[: self.n_coefs])
        for scale in self._scale:
            # those weights are no longer needed, only their memory
            products = torch.mul(gradients[0], self._first, out=self._kept[0].weight)
            of_columns = torch.bmm(self._speeds, products)
            if self._sharing is not None:  # one model's by the kernel of several
                of_columns = torch.bmm(of_columns, self._sharing.mT.expand(len(products), -1, -1))
            gradients[-1] = of_columns.squeeze(1)
            self._with_factors(gradients[0], scale, out=gradients[0])

    def _gates(self, noise: Noise) -> Tensor:
        """Draw factors on the residual blocks, (K, L)."""
        growth = np.arange(1, len(self.blocks) + 1) / len(self.blocks)
        return noise.blocks(self.stochastic_depth[:, None] * growth, self.params[0])

    @property
    def frame(self) -> Frame | None:  # type: ignore[override]
        return None if self.standardization is None else self.standardization.frame

    def learned(self, model: int, dtype: np.dtype, output: OutputMap = None) -> dict[str, list[np.ndarray]]:
        """Compute the `groups` of one model, to be kept in `dtype`; first and last layer are for the user's units.

        In the place of u are the factors on the columns.
        """
        found = iter(fetched([tensor[model] for tensor in self.tensors]))
        groups: dict[str, list[np.ndarray]] = {n: list(islice(found, size)) for n, size in self._sizes.items()}
        if output is not None:
            weight, bias = (groups[name][-1].astype(np.float64) for name in ("weight", "bias"))
            groups["weight"][-1], groups["bias"][-1] = weight * output[0][:, None], bias * output[0] + output[1]
        weight, bias = (groups[name][0].astype(np.float64) for name in ("weight", "bias"))
        if groups["scale"]:
            shared = None if self.standardization is None else self.standardization.sharing
            scale = self.scaling * groups["scale"][0]
            weight = weight * (1 + (scale if shared is None else scale @ shared))
            groups["scale"] = [1 + (scale if shared is None else scale * shared.max(1))]
        groups = {name: [array.astype(dtype) for array in group] for name, group in groups.items()}
        if self.standardization is None:
            weight, bias = weight.astype(dtype), bias.astype(dtype)
        else:
            weight, bias = self.standardization.folded(model, weight, bias, dtype)
        groups["weight"][0], groups["bias"][0] = weight, bias
        return groups

    def with_params(self, params: list[Tensor]) -> MLP:
        part = copy.copy(self)
        part._tape, part._kept, part._cast = [], [], []
        n = len(self.params)
        part.params, part.buffers = [p.requires_grad_() for p in params[:n]], list(params[n:])
        part.groups = part._grouped()
        part._settle()
        return part

    def select(self, models: np.ndarray) -> MLP:
        part = super().select(models)
        assert isinstance(part, MLP)
        part.dropout, part.stochastic_depth = self.dropout[models], self.stochastic_depth[models]
        if self.standardization is not None:
            part.standardization = self.standardization.select(models)
        part._settle()
        return part
