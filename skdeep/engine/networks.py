r"""Networks: the scores of a stack of K models, and the way back from a score gradient to the parameters.

**Shape.** A batch ``X`` is either shared by all models, ``(B, d)``, or has rows of its own for each of G groups,
``(G, B, d)``, of K / G models in turn; scores are ``(K, B, C)``. Weights follow torch.nn.Linear, ``(K, out, in)``, so
that on shared rows a whole stack is one matrix product ``(K * out, in) @ (in, B)``. A sparse batch is a CSR tensor:
``(B, d)`` when shared, else block-diagonal, ``(K * B, K * d)``.

**Memory.** Scores and hidden layers of dense rows lie in memory as ``(K, out, B)``, which is what that product gives:
every model has a block of its own, what runs over classes runs over whole vectors of rows, and with few outputs the
product is twice as fast as ``(B, in) @ (in, out)`` on a CPU. Products with sparse rows take and give weights as
``(in, K, out)`` where these are shared, else as ``(K, in, out)``: in that memory (`sparse_weight`), nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.scipy import csc_matvecs
from skdeep.engine.dropout import Noise
from skdeep.engine.frame import Change, Frame, kept
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import csr_tensor, index_of, select, to_device, to_numpy64
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.engine.scratch import Scratch


def transposed_product(X: Tensor, G: Tensor) -> Tensor:
    """Compute ``X.T @ G`` for a CSR tensor (torch's own is 50 times slower than SciPy's on the CPU)."""
    G = G.to(X.dtype)
    if X.device.type != "cpu":
        with torch.autocast(X.device.type, enabled=False):
            return X.t() @ G
    result = X.values().new_zeros(X.shape[1], G.shape[1] if G.ndim == 2 else 1)
    parts = (X.crow_indices(), X.col_indices(), X.values(), G.reshape(-1), result.view(-1))
    csc_matvecs(X.shape[1], X.shape[0], result.shape[1], *(part.numpy() for part in parts))
    return result.view(-1, *G.shape[1:])


class _SparseProduct(torch.autograd.Function):
    """``X @ W`` for a CSR tensor X and a dense W; differentiable in W, for callbacks that call a network's module."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, W: Tensor) -> Tensor:
        ctx.X = X
        with torch.autocast(X.device.type, enabled=False):  # there are no sparse products in bfloat16
            return X @ W

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, transposed_product(ctx.X, gradient.contiguous())


def sparse_weight(n_models: int, n_out: int, n_in: int, shared: bool, **tensor: Any) -> Tensor:
    """Make zeros (K, out, in), in the memory that suits sparse rows, which models share or not."""
    if shared:
        return torch.zeros(n_in, n_models, n_out, **tensor).permute(1, 2, 0)
    return torch.zeros(n_models, n_in, n_out, **tensor).transpose(1, 2)


def affine(X: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``X @ weight.T + bias`` for each model: ``(K, B, out)``; see the module's docstring for the shapes."""
    n_models, n_out, n_in = weight.shape
    if X.layout is torch.sparse_csr:
        if X.shape[1] == n_in:
            flat = weight.permute(2, 0, 1).reshape(n_in, n_models * n_out)
            scores = _SparseProduct.apply(X, flat).view(-1, n_models, n_out).transpose(0, 1)
        else:
            blocks = weight.transpose(1, 2).reshape(n_models * n_in, n_out)
            scores = _SparseProduct.apply(X, blocks).view(n_models, -1, n_out)
        return scores + bias.unsqueeze(1)
    if X.ndim == 2 or n_models == 1:
        rows = X if X.ndim == 2 else X[0]
        scores = torch.addmm(bias.view(-1, 1), weight.flatten(0, 1), rows.t())
        return scores.view(n_models, n_out, -1).mT
    of_groups = bias.reshape(len(X), -1, 1), weight.reshape(len(X), -1, n_in)
    return torch.baddbmm(*of_groups, X.mT).view(n_models, n_out, -1).mT


def weight_gradient(X: Tensor, G: Tensor) -> Tensor:
    """Compute the gradient of `affine` in its weight, ``(K, out, in)``, from G ``(K, B, out)`` in its value."""
    n_models, _, n_out = G.shape
    if X.layout is torch.sparse_csr:
        n_rows = X.shape[0]
        if n_rows == G.shape[1]:
            flat = G.transpose(0, 1).reshape(n_rows, n_models * n_out)
            return transposed_product(X, flat).view(-1, n_models, n_out).permute(1, 2, 0)
        blocks = transposed_product(X, G.reshape(n_rows, n_out))
        return blocks.view(n_models, -1, n_out).transpose(1, 2)
    if X.ndim == 2 or n_models == 1:
        rows = X if X.ndim == 2 else X[0]
        return torch.mm(G.mT.reshape(n_models * n_out, -1), rows).view(n_models, n_out, -1)
    return torch.bmm(G.mT.reshape(len(X), -1, X.shape[1]), X).view(n_models, n_out, -1)


def scaled(X: Tensor, scale: Tensor, n_models: int) -> Tensor | None:
    """Scale the columns of a sparse batch by (K or 1, 1, d); None where models share it, each in a scale of its own."""
    if (same_rows := X.shape[1] == scale.shape[-1]) and len(scale) > 1:
        return None
    scale = scale if same_rows else scale.expand(n_models, -1, -1)
    values = X.values() * scale.flatten().index_select(0, X.col_indices())
    return csr_tensor(X.crow_indices(), X.col_indices(), values, X.shape)


def pulled_back(values: list[Tensor], gradients: list[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Compute gradients in the `leaves`, from gradients in `values` that autograd has seen come about."""
    # as a scalar: given gradients to start from, torch imports its symbolic shapes first, for half a second
    with torch.enable_grad():
        parts = [(value * gradient).sum() for value, gradient in zip(values, gradients, strict=True)]
        start = torch.stack(parts).sum() if len(parts) > 1 else parts[0]
    found = torch.autograd.grad(start, leaves, allow_unused=True, materialize_grads=True)
    return [g.to_dense() if g.is_sparse else g for g in found]  # nn.Embedding(sparse=True) makes sparse ones


def as_shared(columns: Any) -> Any:
    """Shorten numbers per column, (K, ...), to (1, ...) if all models have the same."""
    stays = columns is None or len(columns) == 1 or bool((columns[1:] != columns[:1]).any())
    return columns if stays else columns[:1]


def _shifted(intercept: Tensor, coef: Tensor, center: Tensor, sign: float) -> Tensor:
    """Compute intercepts (K, C) plus `sign` times the product of coefficients (K, C, d) with the columns' center."""
    if torch.is_autocast_enabled(coef.device.type):  # which would round the product
        return intercept + sign * (coef * center).sum(-1)
    if len(center) == 1:  # one product with a vector, an order of magnitude faster than a stack of them
        flat = torch.addmv(intercept.flatten(), coef.flatten(0, 1), center.flatten(), alpha=sign)
        return flat.view(intercept.shape)
    return intercept + sign * (coef @ center.mT).squeeze(-1)


#: Factors and summands (C,) that make scores those of targets in the user's units; None where they are.
OutputMap: TypeAlias = tuple[np.ndarray, np.ndarray] | None


class Network:
    """Base of the networks: a list of parameters, each ``(K, ...)``, of which the first `n_coefs` are penalised.

    What a model learns in another way than by its gradient (averages over batches) is in `buffers`, each ``(K, ...)``.
    """

    params: list[Tensor]
    buffers: list[Tensor] = []
    #: In which the columns of a batch are; None for the user's.
    frame: Frame | None = None
    n_coefs: int
    #: Whether a step takes seeds, of which all that is drawn in it follows.
    draws = False
    #: Whether the scores of a row in training depend on the other rows of its batch; and whether it cannot be cut.
    couples_rows = whole_batches = False
    #: In which dtype the products of a step are taken, if not in that of the parameters.
    products: torch.dtype | None = None
    #: Whether steps on dense rows make the same calls, whatever the values: such a step may be recorded, and replayed.
    is_static = False
    #: The user's module behind the network, if there is one, and its own parameters in the order of `params`.
    module: torch.nn.Module | None = None
    leaves: list[torch.nn.Parameter] = []

    @property
    def tensors(self) -> list[Tensor]:
        """All that makes a model: parameters and buffers."""
        return [*self.params, *self.buffers]

    @property
    def names(self) -> list[str]:
        """Names of the `tensors`, for those who show or save them."""
        return ["weight_0", "bias_0"][: len(self.params)]

    @property
    def n_models(self) -> int:
        """Length of the K axis."""
        return self.params[0].shape[0]

    @property
    def row_size(self) -> int:
        """Values that are computed of a row: the outputs of all layers and models."""
        return sum(p.shape[0] * p.shape[1] for p in self.params[: self.n_coefs])

    def prepare(self, rows: DenseRows | SparseRows) -> DenseRows | SparseRows:
        """Do once, for all rows, what `training_scores` would do to each batch; it gets batches of the result then."""
        return rows

    def prepare_each(self, rows: DenseRows, index: list[np.ndarray], n_alike: int) -> DenseRows | None:
        """Do what `prepare` does, for the rows of each group of `n_alike` models; None where that does not pay."""

    def asks_autograd(self, rows: DenseRows | SparseRows) -> bool:
        """Tell whether a step with batches of such rows may need autograd."""
        return True

    def scores(self, X: Tensor) -> Tensor:
        """Compute scores ``(K, B, C)`` of a batch."""
        raise NotImplementedError

    def evaluator(self) -> Callable[[Tensor], Tensor]:
        """Make what computes `scores` of one batch after the other, of parameters that stay as they are."""
        return self.scores

    def training_scores(self, X: Tensor, weight: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """Compute the scores in training; `weight` (1 or K, B) of the rows, `noise` what is drawn."""
        raise NotImplementedError

    def gradient(self, scores: Tensor, X: Tensor, score_gradient: Tensor) -> list[Tensor]:
        """Compute the gradient in `params`, from the gradient in the last `training_scores`, of the batch X.

        Up to what `complete_` adds to it.
        """
        raise NotImplementedError

    def penalised(self) -> list[Tensor]:
        """Return the coefficients that the penalty is about."""
        return self.params[: self.n_coefs]

    def complete_(self, gradients: list[Tensor], penalty: ElasticNet | None) -> None:
        """Do, in place, what is left of a step once the gradients of all parts of its batch are added up.

        Above all, add the gradient of the penalty's smooth part, unless `penalty` is None.
        """
        if penalty is not None:
            coefs = [coef.detach() for coef in self.params[: self.n_coefs]]
            penalty.add_gradients_(coefs, gradients[: self.n_coefs])

    def coef_scale(self) -> Tensor | None:
        """Compute the derivative of the penalised coefficients in the parameters; None if they are the same."""
        return None

    def copy_of(self, model: int) -> list[Tensor]:
        """Copy the tensors of one model, each ``(1, ...)``, for its `Progress`."""
        return [tensor.detach()[model : model + 1].clone() for tensor in self.tensors]

    def put_back(self, model: int, copy: list[Tensor]) -> None:
        """Set one model back to a `copy_of` it."""
        for mine, known in zip(self.tensors, copy, strict=True):
            mine.detach()[model : model + 1] = known

    def are_finite(self) -> np.ndarray:
        """Tell which models can be used, (K,): the host waits once for all."""
        tensors = [tensor.detach().reshape(self.n_models, tensor[0].numel()) for tensor in self._counted()]
        return torch.stack([tensor.isfinite().all(1) for tensor in tensors]).all(0).cpu().numpy()

    def _counted(self) -> list[Tensor]:
        """List the tensors that have to be finite."""
        return self.tensors

    def with_params(self, params: list[Tensor]) -> Network:
        """Make the same network around other `tensors`."""
        raise NotImplementedError

    def snapshot(self) -> Network:
        """Return the network as it is now, to be kept while training goes on; arrays are copied when they are read."""
        return self

    def settle(self) -> None:
        """Put a module that training has taken to a device where it is kept: on the CPU."""

    def select(self, models: np.ndarray) -> Network:
        """Make a network of some of the models, with a copy of their `tensors`."""
        return self.with_params([select(p.detach(), models) for p in self.tensors])

    def put(self, models: np.ndarray, part: Network) -> None:
        """Take back the `tensors` of some of the models."""
        index = index_of(models, self.params[0])
        for mine, new in zip(self.tensors, part.tensors, strict=True):
            mine.detach()[index] = new.detach()


class Linear(Network):
    r"""Linear scores, trained in centred and scaled columns: :math:`s = V \frac{x - \mu}{\sigma} + c`.

    The change of variables costs nothing on the data: :math:`W = V / \sigma` is applied to the raw columns, with the
    intercept :math:`b = c - W\mu`. W and b are what the penalty, the user and `unscaled` speak of.

    Coefficients are (K, C, d), and intercepts (K, C), or fixed at zero, in columns that are not centred. The center
    :math:`\mu`, the scale :math:`1 / \sigma` and the unit, the factor on the coefficients W in the penalty, are (K, d),
    or (1, d) where all models have the same; None leaves the columns as they are, and is a factor of one. They are of
    columns in the frame. Exact solvers take them as numbers; tensors (K or 1, 1, d) are made where steps ask for them.
    """

    n_coefs = 1
    is_static = True

    def __init__(
        self,
        coef: Tensor,
        intercept: Tensor | None,
        center: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        unit: np.ndarray | None = None,
        frame: Frame | None = None,
    ):
        self.frame = frame
        self.params = [coef] if intercept is None else [coef, intercept]
        dtype = np.float64 if coef.dtype is torch.float64 else np.float32
        given = None if intercept is None else center, scale, unit
        #: Center, scale and unit, in the precision of steps.
        self.columns = Change(*(c if c is None else as_shared(c.astype(dtype, copy=False)) for c in given))
        #: Whether batches come in scaled columns.
        self._is_prepared = False
        #: The batch of the last `training_scores` in scaled columns, if it has been: `gradient` takes it from there.
        self._scaled: Tensor | None = None
        self._scratch = Scratch()

    def _tensor(self, columns: np.ndarray | None) -> Tensor | None:
        coef = self.params[0]
        return None if columns is None else to_device(torch.from_numpy(columns[:, None]), coef.device, coef.dtype)

    _no_intercept = cached_property(lambda self: self.params[0].new_zeros(self.params[0].shape[:2]))
    center = cached_property(lambda self: self._tensor(self.columns.center))
    scale = cached_property(lambda self: self._tensor(self.columns.scale))

    @cached_property
    def _coef_scale(self) -> Tensor | None:
        unit = self._tensor(self.columns.unit)
        return self.scale if self.scale is None or unit is None else self.scale * unit

    def center_and_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return center and scale (K or 1, d), in float64, also of columns as they are."""
        shape, (center, scale, _) = (1, self.params[0].shape[2]), self.columns
        center, scale = (np.zeros(shape) if center is None else center), (np.ones(shape) if scale is None else scale)
        return center.astype(np.float64, copy=False), scale.astype(np.float64, copy=False)

    @classmethod
    def stacked(cls, parts: Sequence[Linear]) -> Linear:
        """Join models on raw columns as one stack, for evaluation."""
        coefs, intercepts = zip(*(part.unscaled() for part in parts), strict=True)
        return cls(torch.cat(coefs), torch.cat(intercepts))

    def unscaled(self, room: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute coefficients (K, C, d), in `room` if that is given, and intercepts (K, C) on the raw columns."""
        coef = self.params[0] if self.scale is None else torch.mul(self.params[0], self.scale, out=room)
        if len(self.params) == 1:
            return coef, self._no_intercept
        if self.center is None:
            return coef, self.params[1]
        return coef, _shifted(self.params[1], coef, self.center, -1)

    def learned(self, model: int, dtype: np.dtype, output: OutputMap = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute coefficients (C, d) and intercepts (C,) of one model on the user's columns; see `frame.kept`."""
        # on the host all at once, which costs nothing there
        coef, *intercept = (to_numpy64(p)[model] if p.is_cpu else to_numpy64(p[model]) for p in self.params)
        center, scale = (part[model if len(part) > 1 else 0] for part in self.center_and_scale())
        level = intercept[0] if intercept else np.zeros(len(coef))
        unit: np.ndarray | float = 1.0
        if output is not None:
            coef, level = coef * output[0][:, None], level * output[0] + output[1]
            unit = np.maximum(np.abs(output[0]), 2.0**-11 * np.abs(output[1]))  # float32 has no more digits of values
        return kept(coef * scale, level, 1 / scale, center, self.frame, dtype, unit)

    def restore(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Start, with one model, from coefficients (C, d) and intercepts (C,) on the user's columns."""
        if self.frame is not None:
            coef = coef / self.frame.factor
            intercept = intercept + coef @ self.frame.origin
        # copies: a model that was loaded as a memory map is read-only
        self.set_unscaled(*(torch.tensor(part).to(self.params[0]).unsqueeze(0) for part in (coef, intercept)))

    def set_unscaled(self, coef: Tensor, intercept: Tensor) -> None:
        """Start from coefficients and intercepts on the raw columns."""
        if len(self.params) > 1:
            if self.center is not None:
                intercept = _shifted(intercept, coef, self.center.to(coef), 1)
            self.params[1].copy_(intercept)
        self.params[0].copy_(coef if self.scale is None else coef / self.scale)

    def asks_autograd(self, rows: DenseRows | SparseRows) -> bool:
        return False

    def prepare(self, rows: DenseRows | SparseRows) -> DenseRows | SparseRows:
        # an accelerator has the memory; there, what the change of variables costs in each step is its kernels
        columns = [c for c in (self.center, self.scale) if c is not None]
        own = not columns or any(len(c) > 1 for c in columns) or rows.device.type == "cpu"
        if own or not isinstance(rows, DenseRows) or not rows.has_room_for_all(rows.n_features):
            return rows
        center, scale = (None if c is None else c[0] for c in (self.center, self.scale))
        self._is_prepared = True

        def in_columns(X: Tensor) -> Tensor:
            X = X if center is None else X - center
            return X if scale is None else X * scale

        return rows.changed(in_columns)

    def _with_scale(self, X: Tensor) -> Tensor | None:
        """Scale the columns of a sparse batch: its values are few beside the coefficients. None if that cannot be."""
        if X.layout is not torch.sparse_csr or self.scale is None or self.center is not None:
            return None
        return scaled(X, self.scale, self.n_models)

    def _of_scaled(self, X: Tensor) -> Tensor:
        return affine(X, self.params[0], self.params[1] if len(self.params) > 1 else self._no_intercept)

    def scores(self, X: Tensor) -> Tensor:
        scaled = self._with_scale(X)
        return affine(X, *self.unscaled()) if scaled is None else self._of_scaled(scaled)

    def training_scores(self, X: Tensor, weight: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        self._scaled = X if self._is_prepared else self._with_scale(X)
        if self._scaled is not None:
            return self._of_scaled(self._scaled)
        dense = self.scale is not None and X.layout is not torch.sparse_csr
        return affine(X, *self.unscaled(self._scratch.like("coef", self.params[0]) if dense else None))

    def gradient(self, scores: Tensor, X: Tensor, score_gradient: Tensor) -> list[Tensor]:
        intercept = score_gradient.sum(1)
        if self._scaled is not None:
            coef = weight_gradient(self._scaled, score_gradient).to(score_gradient.dtype)
            return [coef, intercept][: len(self.params)]
        coef = weight_gradient(X, score_gradient).to(score_gradient.dtype)
        if self.center is not None:
            coef.addcmul_(intercept.unsqueeze(-1), self.center, value=-1)
        if self.scale is not None:
            coef.mul_(self.scale)
        return [coef, intercept][: len(self.params)]

    def penalised(self) -> list[Tensor]:
        return [self.params[0] if self._coef_scale is None else self.params[0] * self._coef_scale]

    def complete_(self, gradients: list[Tensor], penalty: ElasticNet | None) -> None:
        if self._coef_scale is None or penalty is None:
            super().complete_(gradients, penalty)
            return
        addition = torch.zeros_like(self.params[0])
        penalty.add_gradients_(self.penalised(), [addition])
        gradients[0].addcmul_(addition, self._coef_scale)

    def coef_scale(self) -> Tensor | None:
        return self._coef_scale

    def with_params(self, params: list[Tensor]) -> Linear:
        other = object.__new__(type(self))  # which a copy takes longer to come to
        vars(other).update(vars(self), params=list(params), _scaled=None, _scratch=Scratch())
        new, old = params[0], self.params[0]
        stays = new.dtype is old.dtype and new.device == old.device
        for name in ("_no_intercept", *(() if stays else ("center", "scale", "_coef_scale"))):
            vars(other).pop(name, None)  # made anew where they are asked for
        return other

    def select(self, models: np.ndarray) -> Network:
        part = self.with_params([select(p.detach(), models) for p in self.params])
        part.columns = Change(*(c if c is None or len(c) == 1 else c[models] for c in self.columns))
        for name in ("center", "scale", "_coef_scale"):  # where they are known, the host need not send them
            if (known := vars(self).get(name)) is not None and len(known) > 1:
                vars(part)[name] = known[index_of(models, known)]
        return part
