r"""Penalties :math:`\alpha R(W)` on the coefficients of a stack of K models.

A penalty has a `value` and a proximal map, :math:`\mathrm{prox}_{\epsilon\alpha R}(V) = \arg\min_W \tfrac12
\|W - V\|^2 + \epsilon\alpha R(W)`, which the training loop applies after each gradient step: exact zeros for L1, and
no step is too large for any alpha. A smooth one also has a gradient (`add_gradients_`), which quasi-Newton solvers,
deep networks and Adam use. ``alpha`` and ``l1_ratio`` hold one number per model, and stay as they are.

A solver may work with rescaled coefficients, :math:`V = W / s`; the penalty is still on W. The map of the penalty that
is `scaled` by ``s = dW/dV`` (a tensor that broadcasts against V) is then in V.

To add a penalty, write a class with these methods and name it in `PENALTIES`.

Parikh & Boyd, *Proximal algorithms*, Foundations and Trends in Optimization 1(3), 2014, section 6.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.torch import _foreach_add_
from skdeep.engine.per_model import add_scaled_, number, per_model, to_numpy64
from skdeep.engine.scratch import Scratch


class ElasticNet:
    r"""A mix of both norms: :math:`R(W) = \tfrac{1 - r}{2} \|W\|_2^2 + r \|W\|_1` with r = ``l1_ratio``.

    The strength alpha and r, from 0 (L2 only) to 1 (L1 only), are (K,), per model, or (K, C), per row of its
    coefficients (K, C, ...).

    Zou & Hastie, *Regularization and variable selection via the elastic net*, JRSS B 67(2), 2005.
    """

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.scale: Tensor | None = None
        self._known: dict[tuple, tuple[float | Tensor, float | Tensor]] = {}
        #: By `kind_of`: the strength of the smooth part in coefficients of the scale.
        self._ridges: dict[tuple, Tensor] = {}
        self._scratch = Scratch()

    @property
    def smooth(self) -> bool:
        """Whether the gradient exists everywhere: no L1 part in any model."""
        return not (self.alpha * self.l1_ratio).any()

    @cached_property
    def _is_penalty(self) -> bool:
        return bool(self.alpha.any())

    @cached_property
    def _has_l1(self) -> bool:
        return bool(self.l1_ratio.any())

    def select(self, models: np.ndarray) -> ElasticNet:
        """Select the penalty of some of the models."""
        return type(self)(self.alpha[models], self.l1_ratio[models])

    def after(self, losses: np.ndarray) -> ElasticNet:
        """Return the penalty of the next epoch, given the data terms (K,) of this one: the same, but of some."""
        return self

    def value(self, coefs: list[Tensor]) -> np.ndarray:
        """Compute ``alpha * R(W)`` of each model, over all coefficient tensors (K, ...)."""
        norms = self.norms(coefs)
        return self.of_norms(to_numpy64(torch.stack(norms)) if norms else np.empty((0, len(self.alpha))))

    def norms(self, coefs: list[Tensor]) -> list[Tensor]:
        """Compute what the value needs to know of the coefficients, each (K,).

        Of each tensor the L2 norm, then, if there is an L1 part, the L1 norm. The training loop hands it to `of_norms`
        at the end of the epoch: nobody waits for it before.
        """
        if not self._is_penalty:
            return []
        parts = [coef.detach() if coef.requires_grad else coef for coef in coefs]
        if self.alpha.ndim == 2:  # of each row: one after the other
            parts = [row for part in parts for row in part.unbind(1)]
        norms = [torch.linalg.vector_norm(part, dim=tuple(range(1, part.ndim))) for part in parts]
        return [*norms, *(part.abs().flatten(1).sum(1) for part in parts)] if self._has_l1 else norms

    def of_norms(self, norms: np.ndarray) -> np.ndarray:
        """Compute the value of each model, from its `norms` (m, K)."""
        if not self._is_penalty:
            return np.zeros(len(self.alpha))
        n_l2 = len(norms) // 2 if self._has_l1 else len(norms)
        with np.errstate(over="ignore", invalid="ignore"):  # nobody is to be warned here of numbers that are not finite
            value = (self.curvature().T / 2 * np.square(norms[:n_l2])).sum(0)
            return value + ((self.alpha * self.l1_ratio).T * norms[n_l2:]).sum(0) if self._has_l1 else value

    def curvature(self) -> np.ndarray:
        """Compute the second derivative of the smooth part, per model."""
        return self.alpha * (1 - self.l1_ratio)

    def _strengths(self, coef: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Compute the strengths of the L1 part and of the smooth part, as factors for coefficients (K, ...)."""
        kind = kind_of(coef)
        if kind not in self._known:
            most = torch.finfo(coef.dtype).max  # as good as infinite
            lasso, ridge = (np.minimum(part, most) for part in (self.alpha * self.l1_ratio, self.curvature()))
            if self.alpha.ndim == 2:
                of_rows = (torch.from_numpy(part).to(coef).unsqueeze(-1) for part in (lasso, ridge))
                self._known[kind] = tuple(of_rows)  # type: ignore[assignment]
            else:
                self._known[kind] = per_model(lasso, coef), per_model(ridge, coef)
        return self._known[kind]

    def add_gradients_(self, coefs: list[Tensor], gradients: list[Tensor]) -> None:
        """Add, in place, ``gradient += alpha * (1 - l1_ratio) * coef``: the smooth part."""
        strengths = [self._strengths(coef)[1] for coef in coefs]
        # one kernel; the host is faster with calls that a step makes in any case (docs/decisions/step.rst)
        on_device = bool(coefs) and not coefs[0].is_cpu
        if on_device and not isinstance(first := strengths[0], Tensor):  # then all are that number
            if first:
                _foreach_add_(gradients, coefs, alpha=first)
            return
        for coef, gradient, strength in zip(coefs, gradients, strengths, strict=True):
            if isinstance(strength, Tensor) or strength:
                add_scaled_(gradient, coef, strength)

    def scaled(self, scale: Tensor | None) -> Self:
        """Make the same penalty for a solver whose steps are in coefficients of this scale; None is the user's.

        It is in the map alone. What follows from it is computed once: like the strengths, it has to stay as it is.
        """
        penalty = copy.copy(self)
        penalty.scale, penalty._ridges, penalty._scratch = scale, {}, Scratch()
        return penalty

    def prox_(self, coef: Tensor, step: float | Tensor) -> None:
        """Apply, in place, the proximal map of ``step * alpha * R(scale * coef)``; `step` may differ per coordinate."""
        lasso, ridge = self._strengths(coef)
        if isinstance(lasso, Tensor) or lasso:
            high = lasso * step if self.scale is None else lasso * step * self.scale
            # sign(v) max(|v| - t, 0) as v minus its projection on [-t, t]
            projection = self._scratch.like("projection", coef)
            coef.sub_(torch.clamp(coef, -high, high, out=projection))  # type: ignore[arg-type]
        if isinstance(ridge, Tensor) or ridge:
            coef.div_(self._divisor(coef, ridge, step))

    def _divisor(self, coef: Tensor, ridge: float | Tensor, step: float | Tensor) -> float | Tensor:
        """Compute what the proximal map of the smooth part divides by; it may be in scratch memory."""
        if self.scale is None and not (isinstance(ridge, Tensor) or isinstance(step, Tensor)):
            return 1 + ridge * step
        kind, one = kind_of(coef), number(1.0, coef)
        if kind not in self._ridges:
            ridge = ridge if isinstance(ridge, Tensor) else number(ridge, coef)
            self._ridges[kind] = ridge if self.scale is None else self.scale.square() * ridge
        scaled = self._ridges[kind]
        if not isinstance(step, Tensor):
            return torch.add(one, scaled, alpha=step)
        room = self._scratch.like("divisor", coef) if step.shape == coef.shape else None
        return torch.addcmul(one, step, scaled, out=room)


def kind_of(coef: Tensor) -> tuple[int, torch.dtype, torch.device]:
    """Tell what the numbers that go with coefficients depend on, beside their values."""
    return coef.ndim, coef.dtype, coef.device


class L2(ElasticNet):
    r"""Ridge, :math:`R(W) = \tfrac12 \|W\|_2^2`."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(alpha, np.zeros(l1_ratio.shape))


class L1(ElasticNet):
    r"""Lasso, :math:`R(W) = \|W\|_1`: unneeded coefficients become exactly zero."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(alpha, np.ones(l1_ratio.shape))


class NoPenalty(L2):
    """No penalty: ``alpha`` is ignored."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(np.zeros(alpha.shape), l1_ratio)


PENALTIES = {"l2": L2, "l1": L1, "elasticnet": ElasticNet, None: NoPenalty}
