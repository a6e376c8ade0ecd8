"""The network around a user's module, which is trained where it is: nothing of it is ever copied but its numbers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from skdeep.compat.torch import _BatchNorm
from skdeep.engine.dropout import Noise
from skdeep.engine.networks import Network, pulled_back
from skdeep.engine.normalization import WeightedBatchNorm
from skdeep.engine.random_numbers import OwnNumbers

#: What a module costs is not known before it is there: enough for it to deserve all threads.
UNKNOWN_WORK = 2**21

#: Fewer rows than this take other algorithms of the matrix product, and so have other last digits than among many. They
#: are filled up, in prediction, as far as that makes no more than so many values (and a single row to two).
_ALIKE_ROWS, _FREE_VALUES = 16, 2**16

#: Operations that cannot have any value, by autograd's names; one that ends a module bounds its scores.
_BOUNDED = {
    "SigmoidBackward0": "a sigmoid",
    "SoftmaxBackward0": "a softmax",
    "TanhBackward0": "tanh",
    "ReluBackward0": "ReLU",
    "HardtanhBackward0": "hardtanh",
    "HardsigmoidBackward0": "a hard sigmoid",
    "SoftplusBackward0": "softplus",
}
#: Operations that only give values another shape or dtype.
_SHAPING = ("Squeeze", "Unsqueeze", "View", "UnsafeView", "Reshape", "ToCopy")

#: What to do about programs, which cannot be hooked, pickled, or switched between training and prediction.
ORDINARY = (
    "It must be an ordinary module, returned before it goes through torch.jit.script, torch.jit.trace or torch.export "
    "(torch.compile is fine)."
)

#: Held while a module is on another device than its own, which prediction on an accelerator takes it to.
_AWAY = threading.RLock()


class ModuleNetwork(Network):
    """A module as a stack of one: its parameters and buffers, where the module has them, with an axis of length one.

    It has no copies: `select` is the network itself, and `with_params` writes into the module. That maps (B, *shape) to
    scores (B, n_outputs), and batches come as (B, d) with d the product of `shape`, as int64 if it wants `indices`;
    `n_values` are computed of a row. A generator seeds the module's random numbers for each training step, if there
    may be any (`may_draw`).
    """

    module: nn.Module
    whole_batches = True

    def __init__(
        self,
        module: nn.Module,
        shape: tuple[int, ...],
        n_outputs: int,
        n_values: int,
        indices: bool = False,
        generator: np.random.Generator | None = None,
        may_draw: bool = True,
    ):
        self.module, self.shape, self.n_outputs, self.n_values = module, shape, n_outputs, n_values
        self.indices, self.generator, self.may_draw = indices, generator, may_draw
        self.leaves = sorted([p for p in module.parameters() if p.requires_grad], key=lambda p: p.ndim < 2)
        self.params = [p.detach().unsqueeze(0) for p in self.leaves]
        self.n_coefs = sum(p.ndim >= 2 for p in self.leaves)
        norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
        self.couples_rows = any(not isinstance(part, nn.SyncBatchNorm) for part in norms)
        self._numbers = OwnNumbers()
        self._may_be_infinite = [not bool(b.isfinite().all()) for b in module.buffers()]  # as masks of attention are
        # until a step has shown what the module does; such a step is watched
        self._draws = self._writes = self._normalises = self._unknown = self._watched = True

    @property
    def buffers(self) -> list[Tensor]:  # type: ignore[override]
        return [buffer.detach().unsqueeze(0) for buffer in self.module.buffers()]

    @property
    def n_models(self) -> int:
        return 1

    @property
    def row_size(self) -> int:
        return self.n_values

    def _rows(self, X: Tensor, copy: bool) -> Tensor:
        """Shape a batch as the module wants it; copied if it may write to it, which may be the user's memory."""
        X = X.to_dense() if X.layout is torch.sparse_csr else X.long() if self.indices else X.clone() if copy else X
        return X.reshape(-1, *self.shape)

    def scores(self, X: Tensor) -> Tensor:
        own = self.generator is not None and self._draws  # prediction leaves it to the user what a module draws there
        with _brought_to(self.module, X.device):
            self.module.eval()
            with torch.no_grad(), self._numbers if own else nullcontext():
                rows = self._rows(X, copy=True)
                n_rows, n_alike = len(rows), min(_ALIKE_ROWS, max(2, _FREE_VALUES // self.n_values))
                if n_rows < n_alike:  # each as often as the others, for parts that take averages over the batch
                    rows = rows.repeat(-(-n_alike // n_rows), *[1] * (rows.ndim - 1))
                return self._scored(rows)[:, :n_rows]

    def training_scores(self, X: Tensor, weight: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        assert self.generator is not None  # it is prediction that has none
        self._numbers.reseed(int(self.generator.integers(2**63)))
        self.module.train()
        self._watched, self._unknown = self._unknown, False
        self._norms = self._counting(weight)
        rows, before = self._rows(X, self._writes), torch.get_rng_state()
        version = rows._version
        with torch.enable_grad():
            if len(rows) == 1:
                scores = self._scores_of_one_row(rows)
            else:
                with self._numbers if self._draws else nullcontext(), self._norms:
                    scores = self._scored(rows)
        if isinstance(self._norms, WeightedBatchNorm):
            self._normalises = self._norms.met or any(isinstance(part, _BatchNorm) for part in self.module.modules())
        if not scores.requires_grad:
            raise ValueError(
                "module returns scores that do not depend on any of its trainable parameters (requires_grad=True), so "
                "that there is nothing to train. Does its forward detach them, or run under torch.no_grad()?"
            )
        if self._watched:
            self._writes, self._draws = rows._version != version, self._numbers.drawn
        elif not self._draws and not torch.equal(before, torch.get_rng_state()):
            self._draws = self._unknown = True  # it has begun to draw (or another thread has, which does no harm)
        if self._draws and not self.may_draw:
            raise ValueError(
                "solver='lbfgs' needs the same objective at every step, and the module draws random numbers in "
                "training. Use solver='sgd', 'adam' or 'adamw'."
            )
        return scores

    def _counting(self, weight: Tensor | None) -> AbstractContextManager:
        """Have batch normalisation count each row by its weight, (1, B), of which torch's knows nothing."""
        # where all weigh the same, torch's own is quicker; whether they do, a device would have to be waited for
        if weight is None or not self._normalises or (weight.is_cpu and bool((weight == weight[:, :1]).all())):
            return nullcontext()
        return WeightedBatchNorm(weight[0])

    def _scores_of_one_row(self, rows: Tensor) -> Tensor:
        """Compute scores of one row; it has no variance, so that batch normalisation is by the running averages."""
        parts = [part for part in self.module.modules() if isinstance(part, _BatchNorm)]
        hooks = [part.register_forward_pre_hook(_by_running_averages, with_kwargs=True) for part in parts]
        try:
            with self._numbers if self._draws else nullcontext():
                return self._scored(rows)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"module cannot train on a batch of one row: {error}. Choose a batch_size that leaves no single row "
                "at the end of an epoch, or a normalisation with running averages."
            ) from error
        finally:
            for hook in hooks:
                hook.remove()

    def _scored(self, rows: Tensor) -> Tensor:
        try:
            # what the module makes of its own accord lies where it computes
            with nullcontext() if rows.device.type == "cpu" else rows.device:
                scores = self.module(rows)
        except IndexError as error:
            if not self.indices and "out of range in self" not in str(error):  # as embeddings say it
                raise
            least, most = (float(end) for end in rows.aminmax())
            raise ValueError(
                f"module: {error}. X has numbers from {least:.9g} to {most:.9g} here; an nn.Embedding takes those from "
                "0 to num_embeddings - 1. Keep one for what was not there in training (OrdinalEncoder with "
                "handle_unknown='use_encoded_value')."
            ) from error
        check_scores(scores, rows, self.n_outputs)
        return scores.unsqueeze(0)

    def gradient(self, scores: Tensor, X: Tensor, score_gradient: Tensor) -> list[Tensor]:
        moving = [p for p in self.leaves if p.requires_grad]  # a callback may have frozen some
        back = partial(pulled_back, [scores], [score_gradient], moving)
        try:
            found = self._went_back(back) if self._watched else back()
        except CheckpointError as error:
            if isinstance(self._norms, nullcontext):
                raise
            raise ValueError(
                "module has batch normalisation in a torch.utils.checkpoint, which goes the way forth once more and "
                "knows of no weights then. Do without checkpoints there, or without weights and equal rows."
            ) from error
        gradients = dict(zip(map(id, moving), found, strict=True))
        return [gradients.get(id(p), torch.zeros_like(p)).unsqueeze(0) for p in self.leaves]

    def _went_back(self, back: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Compute the gradients; raise if random numbers are drawn for them."""
        before = self._numbers.states()
        with self._numbers:
            found = back()
        if self._numbers.states() != before:
            raise ValueError(
                "module draws random numbers on the way back, as torch.utils.checkpoint does around dropout: they "
                "would be others than on the way forth. Do without checkpoints there, or without random numbers."
            )
        return found

    def snapshot(self) -> ModuleNetwork:
        release(self.module)
        network = copy.copy(self)
        with suppress(Exception):  # what cannot be copied (a lock, an open file) is the module in training itself
            network.module = copy.deepcopy(self.module).cpu()
        return network

    def settle(self) -> None:
        self.module.cpu()

    def select(self, models: np.ndarray) -> ModuleNetwork:
        return self

    def with_params(self, params: list[Tensor]) -> ModuleNetwork:
        for mine, new in zip((*self.leaves, *self.module.buffers()), params, strict=True):
            if mine.shape == new.shape[1:]:
                mine.data.copy_(new[0])
            else:  # a buffer that has grown since
                mine.data = new[0].clone()
        return self

    def put_back(self, model: int, copy: list[Tensor]) -> None:
        self.with_params(copy)

    def _counted(self) -> list[Tensor]:
        free = [False] * len(self.leaves) + self._may_be_infinite
        return [t for t, any_number in zip(self.tensors, free, strict=True) if not any_number]


def _by_running_averages(part: nn.Module, args: tuple, kwargs: dict) -> None:
    (inputs,) = (*args, *kwargs.values())
    if inputs.numel() == inputs.shape[1]:  # one value per channel
        part.training = False


def check_ordinary(module: nn.Module) -> None:
    """Raise a ValueError if a module, or a part of it, is a program compiled from one."""
    script = next((part for part in module.modules() if isinstance(part, torch.jit.ScriptModule)), None)
    if script is not None:
        raise ValueError(f"module has a part in TorchScript, {script.original_name!r}. {ORDINARY}")
    try:
        module.train()
        module.eval()
    except NotImplementedError as error:
        raise ValueError(f"module cannot go from train() to eval(): {error} {ORDINARY}") from error


def first_tensor(module: nn.Module) -> Tensor | None:
    """Find a parameter or buffer of a module, a floating-point one if it has any."""
    tensors = list(chain(module.parameters(), module.buffers()))
    return next((t for t in tensors if t.is_floating_point()), tensors[0] if tensors else None)


@contextmanager
def _brought_to(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a module on the device; if it comes from another one it goes back there."""
    tensor = first_tensor(module)
    if tensor is None or tensor.device == device:
        yield
        return
    home = tensor.device
    with _AWAY:
        module.to(device)
        try:
            yield
        finally:
            module.to(home)


def check_scores(scores: Any, rows: Tensor, n_outputs: int) -> None:
    """Raise a ValueError if these are no scores of the rows."""
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if shape != (len(rows), n_outputs):
        vector = n_outputs == 1 and shape == (len(rows),)
        raise ValueError(
            f"module must return raw scores of shape (n, {n_outputs}), one column per class, label or target (a "
            "single one for two classes), without softmax or sigmoid, which are parts of the loss; for "
            f"{len(rows)} rows of shape {tuple(rows.shape[1:])} it returned {shape}. "
            + ("scores.unsqueeze(1) has that shape." if vector else "A module that takes n_outputs is told the number.")
        )
    if not scores.is_floating_point():
        raise ValueError(f"module must return raw scores as real floating-point numbers, it returned {scores.dtype}.")


def _n_values(output: Any) -> int:
    """Count the values in what a module returns."""
    if isinstance(output, tuple | list):
        return sum(map(_n_values, output))
    return output.numel() if isinstance(output, Tensor) else 0


class Trial(NamedTuple):
    """What two rows have shown of a module."""

    #: How many values it computes of a row.
    n_values: int
    #: Whether it wants int64.
    indices: bool
    #: The name of a part that normalises a column by the rows of a batch, if there is one.
    normalised: str | None
    #: What it ends in, if that cannot have any value.
    bounded: str | None


def tried(module: nn.Module, rows: Tensor, n_outputs: int) -> Trial:
    """Try a module on two rows, in the user's dtype; lazy parts of it get their parameters.

    Whole numbers are tried as floating-point ones first: that is what pixels and counts are; a module that does not
    take them, such as an embedding, gets them as int64. Raise where it does not give `n_outputs` finite scores for each
    row.
    """
    tensor = first_tensor(module)
    dtype = tensor.dtype if tensor is not None and tensor.is_floating_point() else torch.get_default_dtype()
    whole = not rows.is_floating_point() or bool((rows % 1 == 0).all())
    kinds = [dtype, torch.int64] if whole else [dtype]
    calls: list[tuple[nn.Module, Any]] = []

    def note(part: nn.Module, inputs: Any, output: Any) -> None:
        calls.append((part, output))

    hooks = [part.register_forward_hook(note) for part in module.modules()]
    failures: list[Exception] = []
    kind = dtype
    try:
        for kind in kinds:
            module.eval()
            calls.clear()
            try:
                with torch.enable_grad():
                    scores = module(rows.to(kind, copy=True))
                break
            except Exception as error:  # whatever a forward of the user's raises
                failures.append(error)
    finally:
        for hook in hooks:
            hook.remove()
    if len(failures) == len(kinds):
        found = "; ".join(f"as {kind}, {error}" for kind, error in zip(kinds, failures, strict=True))
        raise ValueError(
            f"module cannot compute scores of rows of shape {tuple(rows.shape[1:])}: {found}. Reshape X so that "
            "a row has the shape that the module takes, (channels, height, width) of an image for example. X comes in "
            "the dtype of the module's parameters, or the one that `precision` names; as int64 where it takes no other "
            "and X is whole numbers."
        ) from failures[0]
    check_scores(scores, rows, n_outputs)
    if not bool(scores.isfinite().all()):
        raise ValueError(
            "module returns scores that are not finite before any training. Look at its forward and at its initial "
            "parameters (torch.empty leaves whatever was in the memory), and at the scale of X."
        )
    norms = [part for part, output in calls if isinstance(part, _BatchNorm) and output.numel() == 2 * output.shape[1]]
    end = scores.grad_fn
    while end is not None and end.name().startswith(_SHAPING):
        end = end.next_functions[0][0]
    release(module)
    return Trial(
        -(-sum(_n_values(output) for _, output in calls) // 2),
        kind is torch.int64,
        type(norms[-1]).__name__ if norms else None,
        None if end is None else _BOUNDED.get(end.name()),
    )


def release(module: nn.Module) -> None:
    """Cut what the parts of a module keep of a forward pass (activations, computed weights) off its graph.

    Such tensors cannot be copied or sent to another process, and the memory of all that they come from stays taken.
    """
    for part in module.modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                vars(part)[name] = _detached(value)


def _detached(value: Any) -> Any:
    """Cut off a graph; containers that hold a tensor with one are made anew, all else stays what it is."""
    if isinstance(value, Tensor):
        return value if value.is_leaf else value.detach()
    if type(value) in (list, tuple):
        parts = type(value)(map(_detached, value))
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if type(value) is dict:
        changed = {key: _detached(part) for key, part in value.items()}
        return changed if any(changed[key] is not value[key] for key in value) else value
    return value


def remembered(module: nn.Module) -> Callable[[], None]:
    """Remember the numbers of a module; the function that is returned puts them back."""
    parts = [(part, dict(part._parameters), dict(part._buffers), part.training) for part in module.modules()]
    tensors = [*module.parameters(), *module.buffers()]
    known = [(t, t.data, t.detach().clone(), t.requires_grad) for t in tensors]

    def put_back() -> None:
        for part, parameters, buffers, training in parts:
            part._parameters, part._buffers, part.training = parameters, buffers, training
        for tensor, place, numbers, trained in known:
            tensor.data = place  # it may have been cast or moved
            tensor.data.copy_(numbers)
            tensor.requires_grad_(trained)

    return put_back
