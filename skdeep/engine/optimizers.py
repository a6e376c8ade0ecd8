r"""Update rules, with one learning rate (and momentum) per model of a stack.

An optimizer owns the parameters' side of a training step: `move` moves them against the gradients, and `prox_step`
says by how much it moved per unit of gradient once at rest: the step that a proximal map has to use so that the
optimum of the penalised objective is a fixed point of the iteration.

What differs from step to step (rates, corrections) is laid out for many of them at once, as numbers of the host. On an
accelerator they are sent there together, and a step reads its own: the host sends nothing in between, nor waits, and a
step that is recorded once can be replayed with other numbers.

To add one, write a subclass and name it in `OPTIMIZERS`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.torch import _fused_adam_, _fused_sgd_
from skdeep.engine.gradients import least
from skdeep.engine.per_model import add_scaled_, fetched, index_of, per_model, select, to_device, uniform
from skdeep.engine.scratch import Scratch

# torch's fused kernels do a whole update in one pass over memory on these devices
_FUSED_DEVICES = {"cpu", "cuda"}
#: Bytes that a processor computes with at a time, at most.
_REGISTER = 64

#: Steps between which what momentum leaves of a gradient does not come near the least normal number.
_STEPS_TO_NOTHING = 64

#: What a step takes of each model, (m, K): with the host, or where the parameters are.
Numbers = np.ndarray | Tensor


class Optimizer:
    """Base of the update rules, which change the parameters, each (K, ...), in place.

    The learning rate of each model, (K,), may be changed between steps. Momentum (K,), Nesterov's or not, is SGD's;
    betas, the decay rates of averages, and epsilon, the offset of the denominator, are Adam's.
    """

    #: Names of the attributes that hold one tensor per parameter, kept between calls of `fit`.
    slots: tuple[str, ...] = ()

    def __init__(
        self,
        params: list[Tensor],
        learning_rate: np.ndarray,
        momentum: np.ndarray,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ):
        self.params = params
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.betas = betas
        self.epsilon = epsilon
        self._n_steps, self._n_more = np.zeros(len(learning_rate)), 0
        #: Rates of the steps that are laid out, (T, K), how many of them are done, and what the last one has taken.
        self._rates, self._n_done = learning_rate[None].copy(), 0
        self._taken: Numbers = np.empty((0, len(learning_rate)))
        for slot in self.slots:
            setattr(self, slot, [torch.zeros_like(p) for p in params])
        # memory without gaps, for which zeros_like keeps the strides
        gapless = all(torch.empty_like(p).stride() == p.stride() for p in params)
        #: Whether torch's fused kernels can do the update of models that agree, and whether they do it.
        self._may_fuse, self._fuses = gapless and params[0].device.type in _FUSED_DEVICES, False
        self._contiguous = all(p.is_contiguous() for p in params)
        #: Which of the parameters a kernel gets model by model.
        self._divides = [self._shows_place(p) for p in params]
        #: Parameters and slots as the kernels get them, once they are known.
        self._memory: list[list[Tensor]] | None = None

    def lay_out(self, factors: np.ndarray) -> np.ndarray:
        """Compute what the coming steps take, (T, m, K), from the factors on their learning rates, (T, K)."""
        self.settle()
        self._rates, self._n_done = self.learning_rate * factors, 0
        numbers = self._numbers(factors)
        if self.params[0].device.type == "cpu":
            return numbers
        # from its memory, a GPU's fused kernels read numbers in single precision
        dtype = torch.float32 if self._fuses else self.params[0].dtype
        return numbers.astype(torch.empty(0, dtype=dtype).numpy().dtype, copy=False)

    def placed(self, numbers: np.ndarray) -> Numbers:
        """Put what is laid out where the parameters are, unless that is with the host."""
        device = self.params[0].device
        return numbers if device.type == "cpu" else to_device(torch.from_numpy(numbers), device)

    def step(self, gradients: list[Tensor], factor: float | np.ndarray = 1.0) -> None:
        """Do a single step, with the learning rates times `factor` (the schedule's)."""
        factors = np.broadcast_to(np.asarray(factor, dtype=np.float64), (1, len(self.learning_rate)))
        self.move(gradients, self.placed(self.lay_out(factors))[0])
        self.count()

    def move(self, gradients: list[Tensor], numbers: Numbers) -> None:
        """Move the parameters, by what is laid out for the step, (m, K); the caller counts it."""
        self._taken = numbers
        self._update(gradients, numbers)

    def count(self, n_steps: int = 1) -> None:
        """Count steps that have been done."""
        self._n_more += n_steps
        self._n_done += n_steps

    @property
    def form(self) -> Hashable:
        """What the host decides by: steps of one form make the same calls."""
        return self._fuses

    @property
    def n_steps(self) -> np.ndarray:
        """Steps of each model, (K,), always in the same memory."""
        self.settle()
        return self._n_steps

    @property
    def rate(self) -> np.ndarray:
        """Learning rate of each model's last step, the schedule's factor included, (K,)."""
        return self._rates[max(self._n_done - 1, 0)]

    def settle(self) -> None:
        """Bring the memory of `n_steps` up to date."""
        self._n_steps += self._n_more
        self._n_more = 0

    def _numbers(self, factors: np.ndarray) -> np.ndarray:
        """Compute what the steps take, beginning with their rates."""
        return self._rates[:, None]

    def _update(self, gradients: list[Tensor], numbers: Numbers) -> None:
        """Move the parameters, and the state in `slots`."""
        raise NotImplementedError

    def _vectors(self, gradients: list[Tensor]) -> list[list[Tensor]]:
        """Return parameters, gradients and slots in contiguous memory: as vectors, where theirs has another order.

        A fused kernel pairs values by their place in memory, and is slow where this is not simply contiguous.
        """
        if self._memory is None:
            self._memory = [self._laid(each) for each in (self.params, *(getattr(self, slot) for slot in self.slots))]
        params, *slots = self._memory
        pairs = zip(gradients, self.params, strict=True)  # an axis of one may have any stride, which kernels compare
        aligned = [g if g.stride() == p.stride() else torch.empty_like(p).copy_(g) for g, p in pairs]
        return [params, self._laid(aligned), *slots]

    def _laid(self, tensors: list[Tensor]) -> list[Tensor]:
        """View tensors as a kernel gets them."""
        if not self._contiguous:
            return [t.detach().as_strided((t.numel(),), (1,)) for t in tensors]
        pairs = zip(tensors, self._divides, strict=True)
        return [part for t, divides in pairs for part in (t.unbind() if divides else [t])]

    def _shows_place(self, param: Tensor) -> bool:
        """Tell whether a kernel's digits of a model's part of a parameter (K, ...) depend on its place in the stack."""
        return False

    def rest(self, model: int) -> None:
        """Begin the momentum of one model anew."""

    def prox_step(self, index: int) -> float | Tensor:
        """Compute the proximal map's step for parameter `index`, after `step`; valid until the next call for it."""
        raise NotImplementedError

    def select(self, models: np.ndarray, params: list[Tensor]) -> Optimizer:
        """Select some of the models, with a copy of their state, for their (already selected) `params`."""
        part = type(self)(
            params, self.learning_rate[models], self.momentum[models], self.nesterov, self.betas, self.epsilon
        )
        part.n_steps[:], part._rates = self.n_steps[models], self.rate[None, models]
        for slot in self.slots:
            setattr(part, slot, [select(state, models) for state in getattr(self, slot)])
        return part

    def put(self, models: np.ndarray, part: Optimizer) -> None:
        """Take back the state of some of the models."""
        self.n_steps[models], self.rate[models] = part.n_steps, part.rate
        index = index_of(models, self.params[0])
        for slot in self.slots:
            for state, new in zip(getattr(self, slot), getattr(part, slot), strict=True):
                state[index] = new

    def states(self, models: np.ndarray) -> list[dict]:
        """Copy what some models need to go on later, as NumPy arrays."""
        tensors = [tensor for slot in self.slots for tensor in getattr(self, slot)]
        if len(models) < len(self.learning_rate):
            index = index_of(models, self.params[0])
            tensors = [tensor[index] for tensor in tensors]
        found, n, states = fetched(tensors), len(self.params), []
        for place, m in enumerate(models):
            arrays = {slot: [a[place] for a in found[i * n : (i + 1) * n]] for i, slot in enumerate(self.slots)}
            states.append({"n_steps": self.n_steps[m], "learning_rate": self.learning_rate[m], **arrays})
        return states

    def fits(self, state: dict) -> bool:
        """Tell whether a saved `state` is of parameters of the same shapes."""
        shapes = [tuple(p.shape[1:]) for p in self.params]
        return all([array.shape for array in state[slot]] == shapes for slot in self.slots)

    def load(self, state: dict) -> None:
        """Go on from a saved `state` (a stack of one model)."""
        self.n_steps[:] = state["n_steps"]
        for slot in self.slots:
            for tensor, array in zip(getattr(self, slot), state[slot], strict=True):
                tensor[0] = torch.tensor(array).to(tensor)


def _of_kernel(numbers: Numbers) -> float | Tensor:
    """Return the rate that models share as a fused kernel takes it."""
    return numbers[0, 0] if isinstance(numbers, Tensor) else numbers.item(0)


class SGD(Optimizer):
    r"""Gradient descent with momentum: :math:`v \leftarrow \rho v + g,\ \theta \leftarrow \theta - \epsilon v`.

    Nesterov's variant moves by :math:`g + \rho v` instead of :math:`v`.

    Sutskever et al., *On the importance of initialization and momentum in deep learning*, ICML 2013.
    """

    slots = ("velocity",)
    velocity: list[Tensor]

    def __init__(self, params: list[Tensor], learning_rate: np.ndarray, *args: Any, **options: Any):
        super().__init__(params, learning_rate, *args, **options)
        self._has_momentum, self._resistance, self._n_moves = bool(self.momentum.any()), 1 - self.momentum, 0

    def rest(self, model: int) -> None:
        for velocity in self.velocity:
            velocity[model] = 0

    def _numbers(self, factors: np.ndarray) -> np.ndarray:
        alike = self._has_momentum and self._may_fuse and uniform(self.momentum)
        self._fuses = alike and bool((self._rates == self._rates[:, :1]).all())
        return np.stack([self._rates, self._rates / self._resistance], axis=1)

    def _forget(self) -> None:
        """Forget velocities that are next to nothing: a column's that no row had a value in for hundreds of steps.

        With numbers below the least normal one, a processor takes a hundred times as long.
        """
        self._n_moves += 1
        if self._n_moves % _STEPS_TO_NOTHING == 0 and self.params[0].device.type == "cpu":
            for velocity in self.velocity:
                torch.hardshrink(velocity, least(velocity.dtype), out=velocity)

    def _update(self, gradients: list[Tensor], numbers: Numbers) -> None:
        self._forget()
        if self._fuses:
            _fused_sgd_(
                *self._vectors(gradients),
                lr=_of_kernel(numbers),
                momentum=float(self.momentum[0]),
                nesterov=self.nesterov,
                weight_decay=0.0,
                dampening=0.0,
                maximize=False,
                is_first_step=False,
            )
            return
        for param, gradient, velocity in zip(self.params, gradients, self.velocity, strict=True):
            step = per_model(-numbers[0], param)
            momentum = per_model(self.momentum, param)
            if not isinstance(momentum, Tensor) and momentum == 0:
                add_scaled_(param, gradient, step)
                continue
            velocity.mul_(momentum).add_(gradient)
            if self.nesterov:
                add_scaled_(param, gradient, step)
                step = step * momentum
            add_scaled_(param, velocity, step)

    def prox_step(self, index: int) -> float | Tensor:
        return per_model(self._taken[1], self.params[index])


class Adam(Optimizer):
    r"""Adam: gradients divided by the root of their running mean square, both averages bias-corrected.

    .. math:: \theta \leftarrow \theta - \epsilon \hat m / (\sqrt{\hat v} + \epsilon_0)

    Kingma & Ba, *Adam: a method for stochastic optimization*, ICLR 2015.
    """

    slots = ("mean", "square")
    mean: list[Tensor]
    square: list[Tensor]

    def __init__(self, params: list[Tensor], learning_rate: np.ndarray, *args: Any, **options: Any):
        super().__init__(params, learning_rate, *args, **options)
        self._scratch = Scratch()
        #: The steps' numbers as a kernel of the host reads them.
        self._counts: tuple[Tensor, ...] = ()

    def _numbers(self, factors: np.ndarray) -> np.ndarray:
        number = self._n_steps + np.arange(1, len(factors) + 1)[:, None]
        corrections = [1 - beta**number for beta in self.betas]
        numbers = np.stack([self._rates, *corrections, number], axis=1)
        self._fuses = self._may_fuse and bool((numbers == numbers[:, :, :1]).all())
        if self._fuses and self.params[0].device.type == "cpu":
            self._counts = torch.from_numpy(number[:, 0].astype(np.float32)).unbind()
        return numbers

    def _update(self, gradients: list[Tensor], numbers: Numbers) -> None:
        if self._fuses:
            params, gradients, means, squares = self._vectors(gradients)
            count = numbers[3, 0] if isinstance(numbers, Tensor) else self._counts[self._n_done]
            _fused_adam_(
                params,
                gradients,
                means,
                squares,
                [],
                [count] * len(params),
                lr=_of_kernel(numbers),  # type: ignore[arg-type]  # a number as well
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=0.0,
                eps=self.epsilon,
                amsgrad=False,
                maximize=False,
            )
            return
        for i, (param, gradient) in enumerate(zip(self.params, gradients, strict=True)):
            self.mean[i].lerp_(gradient, 1 - self.betas[0])
            self.square[i].mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
            direction = (self.mean[i] / per_model(numbers[1], param)).div_(self._denominator(i))
            add_scaled_(param, direction, per_model(-numbers[0], param))

    def _shows_place(self, param: Tensor) -> bool:
        # what does not fill a register of the processor, at the end of memory, the kernel rounds in another way; in
        # single precision, networks are soon far apart by that
        fills = param.shape[0] == 1 or param.stride(0) * param.itemsize % _REGISTER == 0
        return param.dtype is torch.float32 and param.device.type == "cpu" and not fills

    def _denominator(self, index: int) -> Tensor:
        """Compute what a parameter's gradients are divided by; valid until the next call for it."""
        square = self.square[index]
        room = self._scratch.like(index, square)
        return torch.div(square, per_model(self._taken[2], square), out=room).sqrt_().add_(self.epsilon)

    def prox_step(self, index: int) -> float | Tensor:
        return self._denominator(index).reciprocal_().mul_(per_model(self._taken[0], self.params[index]))


class AdamW(Adam):
    r"""Adam with decoupled weight decay: the penalty acts with the bare learning rate, not Adam's scaled one.

    ``alpha`` is then the decay per unit of learning rate, :math:`\theta \leftarrow \theta / (1 + \epsilon\alpha)`, and
    no longer the weight of a penalty in an objective.

    Loshchilov & Hutter, *Decoupled weight decay regularization*, ICLR 2019.
    """

    def prox_step(self, index: int) -> float | Tensor:
        return per_model(self._taken[0], self.params[index])


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
