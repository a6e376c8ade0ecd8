r"""Directions of L-BFGS for a stack of models, :math:`-H \nabla f`, from what the last steps told of the curvature.

With the steps S, the changes Y of the gradient (a row each), the inverse Hessian :math:`H_0` to start from, and T the
part of :math:`S Y^T` that pairs steps with their own and later changes, D its diagonal,

.. math:: H = H_0 + S^T T^{-T} (D + Y H_0 Y^T) T^{-1} S - S^T T^{-T} Y H_0 - H_0 Y^T T^{-1} S

which is what the two-loop recursion computes, as a few products for all models at once.

Byrd, Nocedal & Schnabel, *Representations of quasi-Newton matrices and their use in limited memory methods*,
Mathematical Programming 63, 1994, theorem 2.2.
Nocedal & Wright, *Numerical Optimization*, 2nd edition, formula 7.20: the size of :math:`H_0`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.objective import Objective
from skdeep.engine.per_model import index_of, to_device
from skdeep.solvers.preconditioner import Preconditioner

#: Pairs of steps and gradient changes that are remembered.
HISTORY = 10
#: Iterations before which the curvature is looked at, beyond the start: often enough that it fits, and rarely
#: enough to cost little.
_LOOKS = frozenset(8 * 4**i for i in range(16))
#: What each model has of its own.
_OWN = ("point", "start", "bases", "changes", "filled", "size", "n_calls")


@dataclass
class LBFGS:
    """The directions of models that have come differently far."""

    objective: Objective
    preconditioner: Preconditioner | None  # what H_0 is but for its size; None for the identity
    point: Tensor  # where each model was last, (K, P)
    start: Tensor  # H_0 times the gradient there, but for the size of H_0, (K, P)
    bases: Tensor  # S, and H_0 Y but for that size, (K, 2 * HISTORY, P); what is zero adds nothing
    changes: Tensor  # Y, and the last gradient, (K, HISTORY + 1, P)
    filled: np.ndarray  # in which iteration a slot was filled, (K, HISTORY)
    #: The size (K,) of H_0: before there is a pair, half a step to where the curvature of the start leads.
    size: Tensor
    n_calls: np.ndarray  # directions so far, (K,)

    @classmethod
    def begin(cls, objective: Objective, point: Tensor) -> LBFGS:
        """Begin at points (K, P), of which nothing is known."""
        n_models, n_params = point.shape
        return cls(
            objective,
            preconditioner=Preconditioner.of(objective),
            point=point.clone(),
            start=torch.zeros_like(point),
            bases=point.new_zeros(n_models, 2 * HISTORY, n_params),
            changes=point.new_zeros(n_models, HISTORY + 1, n_params),
            filled=np.zeros((n_models, HISTORY), dtype=int),
            size=torch.full((n_models,), 0.5, dtype=torch.float64, device="cpu"),
            n_calls=np.zeros(n_models, dtype=int),
        )

    def select(self, models: np.ndarray, objective: Objective) -> LBFGS:
        """Select the directions of some of the models, whose objectives these are."""
        preconditioner = None if self.preconditioner is None else self.preconditioner.select(models, objective)
        return LBFGS(objective, preconditioner, *(getattr(self, name)[models] for name in _OWN))

    def __call__(self, models: np.ndarray, point: Tensor, gradient: Tensor) -> Tensor:
        """Compute the directions (k, P) of some of the models, at their points (k, P) with these gradients (k, P)."""
        self._look(models, point)
        if len(models) == len(self.point):
            return self._directions(point, gradient)
        part = self.select(models, self.objective)
        directions = part._directions(point, gradient)
        for name in _OWN:
            getattr(self, name)[models] = getattr(part, name)
        return directions

    def _look(self, models: np.ndarray, point: Tensor) -> None:
        """Compute the curvature of the models whose turn it is, and what follows from it.

        At the start, it is the average row's: all there is where all scores are equal, as most begin.
        """
        if self.preconditioner is None:
            return
        n_calls = self.n_calls[models]
        for due, average in ((n_calls == 0, True), (np.array([int(n) in _LOOKS for n in n_calls]), False)):
            if due.any():
                which = models[due]
                self.preconditioner.compute(which, point[due], average)
                if not average:  # at the start, nothing is remembered
                    starts = self.preconditioner(which, self.changes[which])
                    self.bases[which, HISTORY:], self.start[which] = starts[:, :-1], starts[:, -1]

    def _directions(self, point: Tensor, gradient: Tensor) -> Tensor:
        start = self._remember(point, gradient)
        # a few numbers: in float64, which not every device has, and in many small steps, for which a GPU is no place
        products = (self.bases @ self.changes.mT).cpu().double()
        (steps, along_steps), (starts, along_starts) = (
            half.tensor_split([HISTORY], dim=2) for half in products.split(HISTORY, dim=1)
        )
        later = torch.from_numpy(self.filled[:, :, None] <= self.filled[:, None, :])
        triangle = torch.where(later, steps, 0.0)
        diagonal = triangle.diagonal(dim1=1, dim2=2)
        own = diagonal.clone().unsqueeze(2)
        diagonal += diagonal == 0  # slots not in use
        size = self.size.view(-1, 1, 1)
        c = torch.linalg.solve(triangle, along_steps)
        e = torch.linalg.solve(triangle.mT, own * c + size * (starts @ c - along_starts))
        back = to_device(torch.cat([e, -size * c], dim=1).mT, point.device, point.dtype) @ self.bases
        return torch.addcmul(back.squeeze(1), start, to_device(size.squeeze(2), point.device, point.dtype)).neg_()

    def _remember(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Put a pair in the place of the oldest, unless it is all rounding; H_0 times gradient, but for its size."""
        start = gradient
        if self.preconditioner is not None:
            start = self.preconditioner(np.arange(len(point)), gradient.unsqueeze(1)).squeeze(1)
        step, start_of_change, change = point - self.point, start - self.start, gradient - self.changes[:, -1]
        self.point, self.start = point.clone(), start.clone()
        self.changes[:, -1] = gradient
        products = [torch.linalg.vecdot(change, other) for other in (step, change, start_of_change)]
        along, square, of_start = torch.stack(products).cpu().double()
        begun = torch.from_numpy(self.n_calls > 0)
        sound = (along > torch.finfo(step.dtype).eps * square) & begun
        self.size = torch.where(sound, along / of_start, self.size)
        if self.preconditioner is None and not self.n_calls.all():  # begin with a step of at most unit length
            unit = 1 / gradient.abs().sum(1).cpu().double().clamp(min=1.0)
            self.size = torch.where(begun, self.size, unit)
        self.n_calls += 1
        models, slots = np.arange(len(point)), self.n_calls % HISTORY
        self.filled[models, slots] = self.n_calls
        index, slot, sound = index_of(models, point), index_of(slots, point), to_device(sound, point.device).view(-1, 1)
        self.bases[index, slot], self.bases[index, slot + HISTORY] = step * sound, start_of_change * sound
        self.changes[index, slot] = change * sound
        return start
