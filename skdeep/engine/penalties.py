r"""Penalties :math:`\alpha R(W)` on the coefficients of a stack of K models.

A penalty has a `value` and a proximal map, :math:`\mathrm{prox}_{\epsilon\alpha R}(V) = \arg\min_W \tfrac12
\|W - V\|^2 + \epsilon\alpha R(W)`, which the training loop applies after each gradient step: exact zeros for L1, and
no step is too large for any alpha. A smooth one also has a gradient (`add_gradient_`), which quasi-Newton solvers, deep
networks and Adam use. ``alpha`` and ``l1_ratio`` hold one number per model, and stay as they are.

A solver may work with rescaled coefficients, :math:`V = W / s`; the penalty stays that of W, so `prox` and `gradient`
take the scale ``s = dW/dV`` (a tensor that broadcasts against V).

To add a penalty, write a class with these methods and name it in `PENALTIES`.

References
----------
Parikh & Boyd, *Proximal algorithms*, Foundations and Trends in Optimization 1(3), 2014, section 6.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep.engine.per_model import number, per_model, to_numpy64


class ElasticNet:
    r"""A mix of both norms: :math:`R(W) = \tfrac{1 - r}{2} \|W\|_2^2 + r \|W\|_1` with r = ``l1_ratio``.

    Parameters
    ----------
    alpha : ndarray of shape (K,)
        Strength of the penalty, per model.
    l1_ratio : ndarray of shape (K,)
        Share of L1, from 0 (L2 only) to 1 (L1 only), per model.

    References
    ----------
    Zou & Hastie, *Regularization and variable selection via the elastic net*, JRSS B 67(2), 2005.
    """

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self._is_penalty, self._has_l1 = bool(alpha.any()), bool(l1_ratio.any())
        self._step: float | Tensor | None = None
        self._map: tuple[float | Tensor, float | Tensor, float | Tensor] = (0.0, 0.0, 1.0)
        self._projection: Tensor | None = None
        self._shrinkage: Tensor | None = None
        self._ridge: tuple[Tensor, Tensor] | None = None
        self._known: dict[tuple, tuple[float | Tensor, float | Tensor]] = {}

    @property
    def smooth(self) -> bool:
        """Whether the gradient exists everywhere: no L1 part in any model."""
        return not (self.alpha * self.l1_ratio).any()

    def select(self, models: np.ndarray) -> ElasticNet:
        """The penalty of some of the models."""
        return type(self)(self.alpha[models], self.l1_ratio[models])

    def value(self, coefs: list[Tensor]) -> np.ndarray:
        """``alpha * R(W)`` of each model, over all coefficient tensors (K, ...)."""
        norms = self.norms(coefs)
        return self.of_norms(to_numpy64(torch.stack(norms)) if norms else np.empty((0, len(self.alpha))))

    def norms(self, coefs: list[Tensor]) -> list[Tensor]:
        """What the value needs to know of the coefficients, each (K,).

        Of each tensor the L2 norm, then, if there is an L1 part, the L1 norm. The training loop hands it to `of_norms`
        at the end of the epoch: nobody waits for it before.
        """
        if not self._is_penalty:
            return []
        flat = [coef.detach().flatten(1) for coef in coefs]
        norms = [torch.linalg.vector_norm(part, dim=1) for part in flat]
        return [*norms, *(part.abs().sum(1) for part in flat)] if self._has_l1 else norms

    def of_norms(self, norms: np.ndarray) -> np.ndarray:
        """The value of each model, from its `norms` (m, K)."""
        with np.errstate(over="ignore", invalid="ignore"):  # a value that is not finite is said to be
            if not self._has_l1:
                return 0.5 * self.alpha * np.square(norms).sum(0)
            l2, l1 = np.split(norms, 2)
            return self.alpha * (0.5 * (1 - self.l1_ratio) * np.square(l2).sum(0) + self.l1_ratio * l1.sum(0))

    def curvature(self) -> np.ndarray:
        """Second derivative of the smooth part, per model."""
        return self.alpha * (1 - self.l1_ratio)

    def _strengths(self, coef: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Those of the L1 part and of the smooth part, as factors for coefficients (K, ...)."""
        kind = coef.ndim, coef.dtype, coef.device
        if kind not in self._known:
            self._known[kind] = per_model(self.alpha * self.l1_ratio, coef), per_model(self.curvature(), coef)
        return self._known[kind]

    def add_gradient_(self, coef: Tensor, gradient: Tensor) -> None:
        """In place, ``gradient += alpha * (1 - l1_ratio) * coef``: the smooth part."""
        _, strength = self._strengths(coef)
        if isinstance(strength, Tensor):
            gradient.addcmul_(coef, strength)
        elif strength:
            gradient.add_(coef, alpha=strength)

    def prox_(self, coef: Tensor, step: float | Tensor, scale: Tensor | None = None) -> None:
        """In place, the proximal map of ``step * alpha * R(scale * coef)``; `step` may differ per coordinate.

        What follows from the step is kept for the next call: a tensor that is passed again must not have changed.
        """
        known = self._step is step or (isinstance(step, float) and isinstance(self._step, float) and self._step == step)
        if not known:
            self._step, self._map = step, self._prepare(coef, step, scale)
        low, high, shrinkage = self._map
        if isinstance(high, Tensor) or high:
            # sign(v) max(|v| - t, 0) as v minus its projection on [-t, t]; fresh memory at each step would cost most
            if self._projection is None or self._projection.shape != coef.shape:
                self._projection = torch.empty_like(coef)
            coef.sub_(torch.clamp(coef, low, high, out=self._projection))  # type: ignore[arg-type]
        if isinstance(shrinkage, Tensor) or shrinkage != 1:
            coef.mul_(shrinkage)

    def _prepare(self, coef: Tensor, step: float | Tensor, scale: Tensor | None):
        """Interval whose projection the proximal map takes off, and factor on the rest: for all steps of one size."""
        l1, l2 = self._strengths(coef)
        threshold = l1 * step if isinstance(l1, Tensor) or l1 else 0.0
        if scale is not None and (isinstance(threshold, Tensor) or threshold):
            threshold = threshold * scale
        if not isinstance(l2, Tensor) and (not l2 or (scale is None and not isinstance(step, Tensor))):
            return -threshold, threshold, 1 / (1 + l2 * step) if l2 else 1.0
        ridge, one = l2 if isinstance(l2, Tensor) else number(l2, coef), number(1.0, coef)
        if scale is not None:
            if self._ridge is None or self._ridge[0] is not scale:
                self._ridge = scale, scale.square() * ridge
            ridge = self._ridge[1]
        if not isinstance(step, Tensor):
            return -threshold, threshold, torch.add(one, ridge, alpha=step).reciprocal_()
        large = step.shape == coef.shape
        if large and (self._shrinkage is None or self._shrinkage.shape != coef.shape):
            self._shrinkage = torch.empty_like(coef)
        return (
            -threshold,
            threshold,
            torch.addcmul(one, step, ridge, out=self._shrinkage if large else None).reciprocal_(),
        )


class L2(ElasticNet):
    r"""Ridge, :math:`R(W) = \tfrac12 \|W\|_2^2`."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(alpha, np.zeros_like(l1_ratio))


class L1(ElasticNet):
    r"""Lasso, :math:`R(W) = \|W\|_1`: unneeded coefficients become exactly zero."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(alpha, np.ones_like(l1_ratio))


class NoPenalty(L2):
    """No penalty: ``alpha`` is ignored."""

    def __init__(self, alpha: np.ndarray, l1_ratio: np.ndarray):
        super().__init__(np.zeros_like(alpha), l1_ratio)


PENALTIES = {"l2": L2, "l1": L1, "elasticnet": ElasticNet, None: NoPenalty}
