r"""Losses: a value and a gradient with respect to the scores, in closed form.

**Shape.** Scores are ``(..., C)``, one row per sample; values come back as ``(...)`` and gradients as ``(..., C)``.
A loss with ``target = "codes"`` takes class codes ``(...)`` (integers, 0 to C - 1); one with
``target = "indicators"`` takes ``(..., C)`` of 0 and 1, one independent yes-or-no question per column (two classes are
one column). Leading axes broadcast, so that the K models of a stack can share their targets.

A loss knows nothing of features, weights or penalties. To add one, write a subclass with `value` (and
`value_and_gradient` if it has a closed form: without it, autograd is used) and name it in `LOSSES`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skdeep.engine.classes import log_softmax, softmax, winners


class Loss:
    """Base of all losses; see the module's docstring for the shapes."""

    target = "codes"  # what `value` expects: "codes" or "indicators"
    smooth = True  # whether the gradient is continuous, so that a quasi-Newton method applies
    twice_smooth = True  # whether the second derivative is continuous, so that it tells of the curvature nearby
    convex = True  # whether it is, in the scores, so that an optimum is the only one
    shift_invariant = False  # whether a common shift of all scores of a sample changes nothing
    #: How steep it is far from its minimum, beside others in their unit: gradients, and what is small of them, are as
    #: many times smaller.
    slope = 1.0
    #: Share of each target that is spread over the possible answers, of cross-entropies (`smoothed`).
    smoothing = 0.0

    @property
    def asks_autograd(self) -> bool:
        """Whether the gradient is autograd's."""
        return type(self).value_and_gradient is Loss.value_and_gradient

    def curvature(self, n_columns: int) -> float:
        r"""Return a bound c of the second derivative, for so many columns of scores.

        :math:`\ell(s + h) \le \ell(s) + \nabla\ell^T h + \tfrac{c}{2}\|h\|^2`. It sets the step size of
        ``learning_rate_init="auto"``; a loss with kinks gives the bound of a smooth stand-in.
        """
        return 1.0

    def caution(self, target: np.ndarray) -> float:
        """Return how many times shorter steps of mini-batches have to be than the bound says, for these targets."""
        return 1.0

    def starting_scores(self, mean: np.ndarray, least: float) -> np.ndarray:
        """Compute the scores (..., C) to begin with, the same for all samples, by their mean target (..., C).

        Zero, unless the best ones may be so far away that small steps would not get there: of a probability, which
        counts as `least` at least.
        """
        return np.zeros_like(mean)

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each sample."""
        raise NotImplementedError

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of each sample and its gradient with respect to the scores (autograd, unless overridden)."""
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            value = self.value(leaf, target)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        """Compute second derivatives in each score, ``(..., C)``, of a loss that is `twice_smooth` (autograd)."""
        with torch.enable_grad():
            leaf = scores.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.value(leaf, target).sum(), leaf, create_graph=True)
            columns = gradient.flatten(0, -2).sum(0)  # samples do not meet: each column's sum has their derivatives
            rows = [torch.autograd.grad(column, leaf, retain_graph=True)[0] for column in columns]
        return torch.stack([row[..., c] for c, row in enumerate(rows)], dim=-1)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Compute class probabilities: softmax, or for one column the pair ``(1 - sigmoid(s), sigmoid(s))``."""
        if scores.shape[-1] == 1:
            return torch.sigmoid(torch.cat([-scores, scores], dim=-1))
        return softmax(scores)

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """Compute log-probabilities in one step: exact where a probability is too small for any number."""
        if scores.shape[-1] == 1:
            return F.logsigmoid(torch.cat([-scores, scores], dim=-1))
        return log_softmax(scores)


def _column_of(target: Tensor, scores: Tensor) -> Tensor:
    """Make the target codes an index for gather and scatter along the last axis of the scores."""
    shape = scores.shape[:-1]
    return (target if target.shape == shape else target.expand(shape)).unsqueeze(-1)


class Softmax(Loss):
    r"""Multinomial cross-entropy, :math:`\ell(s, y) = \log\sum_j e^{s_j} - s_y`, gradient :math:`p - e_y`.

    Computed from the scores (logits) in one step, so that it is finite for any finite scores. Where targets are
    probabilities q (..., C), it is :math:`\log\sum_j e^{s_j} - \langle q, s \rangle`, with gradient :math:`p - q`.

    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.4.
    """

    shift_invariant = True

    def curvature(self, n_columns: int) -> float:
        return 0.5

    def starting_scores(self, mean: np.ndarray, least: float) -> np.ndarray:
        log_p = np.log(np.maximum(mean, least))
        return log_p - log_p.mean(-1, keepdims=True)

    def _softened(self, scores: Tensor, target: Tensor) -> Tensor:
        """Make targets of the loss: codes, or probabilities."""
        amount, even = self.smoothing, self.smoothing / scores.shape[-1]
        if not amount:
            return target
        if target.is_floating_point():
            return (1 - amount) * target + even
        return torch.full_like(scores, even).scatter_(-1, _column_of(target, scores), 1 - amount + even)

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        target = self._softened(scores, target)
        if target.is_floating_point():
            return -(target * log_softmax(scores)).sum(-1)
        return -log_softmax(scores).gather(-1, _column_of(target, scores)).squeeze(-1)

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        target = self._softened(scores, target)  # first: what follows may use the memory of the scores
        log_p = log_softmax(scores)
        if target.is_floating_point():
            return -(target * log_p).sum(-1), log_p.exp_().sub_(target)
        column = _column_of(target, scores)
        if log_p.ndim == 3 and not log_p.is_cpu:  # one kernel, as for relu (docs/decisions/step.rst)
            value = F.nll_loss(log_p.mT, target.expand(scores.shape[:-1]), reduction="none")
        else:
            value = log_p.gather(-1, column).squeeze(-1).neg_()
        return value, log_p.exp_().scatter_(-1, column, -1.0, reduce="add")

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        p = softmax(scores)
        return torch.addcmul(p, p, p, value=-1)


class Logistic(Loss):
    r"""Binary cross-entropy on logits, summed over the columns: :math:`\sum_c \log(1 + e^{s_c}) - t_c s_c`.

    One column for two classes, or one per label of a multilabel target; gradient :math:`\sigma(s) - t`.

    Bishop, *Pattern Recognition and Machine Learning*, section 4.3.2.
    """

    target = "indicators"

    def curvature(self, n_columns: int) -> float:
        return 0.25

    def starting_scores(self, mean: np.ndarray, least: float) -> np.ndarray:
        return np.log(np.maximum(mean, least) / np.maximum(1 - mean, least))

    def _softened(self, scores: Tensor, target: Tensor) -> Tensor:
        if not self.smoothing:
            return target
        return (1 - self.smoothing) * target.to(scores.dtype) + self.smoothing / 2

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        target = self._softened(scores, target).expand(scores.shape)
        return F.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(-1)

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(scores, target), torch.sigmoid(scores).sub_(self._softened(scores, target))

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(scores)
        return p * (1 - p)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Compute sigmoids, divided by their sum if there are several classes."""
        if scores.shape[-1] == 1:
            return super().probabilities(scores)
        return softmax(F.logsigmoid(scores))

    def log_probabilities(self, scores: Tensor) -> Tensor:
        if scores.shape[-1] == 1:
            return super().log_probabilities(scores)
        return log_softmax(F.logsigmoid(scores))


def smoothed(loss: Loss, amount: float) -> Loss:
    r"""Make a cross-entropy against softened targets: a share of each is spread evenly over the possible answers.

    Of C classes, the true one has :math:`1 - \epsilon + \epsilon / C` and the others :math:`\epsilon / C`; an
    indicator t becomes :math:`(1 - \epsilon) t + \epsilon / 2`, with :math:`\epsilon` the amount, from 0 to 1.

    Szegedy et al., *Rethinking the Inception architecture for computer vision*, CVPR 2016, section 7.
    """
    if not amount:
        return loss
    if not isinstance(loss, Softmax | Logistic):
        raise ValueError(f"label_smoothing is of cross-entropies, and {type(loss).__name__} is none. Use 0.")
    loss = copy.copy(loss)
    loss.smoothing = amount
    return loss


class SquaredError(Loss):
    r"""Half the squared distance from ±1 in each column: :math:`\ell(s, t) = \tfrac12 \sum_c (s_c - (2 t_c - 1))^2`.

    One column for two classes, one per class for more.

    Bishop, *Pattern Recognition and Machine Learning*, section 4.1.3.
    """

    target = "indicators"

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        return (scores - (2 * target - 1)).square().sum(-1) / 2

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - (2 * target - 1)
        return residual.square().sum(-1) / 2, residual

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        return torch.ones_like(scores)


class _Hinge(Loss):
    """Common part of the hinge losses: a violation ``v = max(0, margin)`` counts as v, or as v² when squared."""

    twice_smooth = False

    def __init__(self, squared: bool = False):
        self.squared = squared
        self.smooth = squared

    def curvature(self, n_columns: int) -> float:
        return 2.0

    def _violation(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the penalty of each margin and its derivative (0 at the kink)."""
        violation = margin.clamp(min=0)
        if self.squared:
            return violation.square(), 2 * violation
        return violation, (margin > 0).to(margin.dtype)

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        return self.value_and_gradient(scores, target)[0]


class WestonWatkinsHinge(_Hinge):
    r"""Sum of the margin violations: :math:`\ell(s, y) = \sum_{j \ne y} \max(0, s_j - s_y + 1)` (or its squares).

    Weston & Watkins, *Support vector machines for multi-class pattern recognition*, ESANN 1999.
    """

    shift_invariant = True

    def curvature(self, n_columns: int) -> float:
        # the true class's score is in every term: twice the largest eigenvalue of a star's Laplacian
        return 2.0 * n_columns if self.squared else 2.0

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        column = _column_of(target, scores)
        margin = scores - scores.gather(-1, column) + 1
        margin.scatter_(-1, column, 0.0)
        value, slope = self._violation(margin)
        slope.scatter_add_(-1, column, -slope.sum(-1, keepdim=True))
        return value.sum(-1), slope


class CrammerSingerHinge(_Hinge):
    r"""The worst margin violation: :math:`\ell(s, y) = \max(0, \max_{j \ne y} s_j - s_y + 1)` (or its square).

    Crammer & Singer, *On the algorithmic implementation of multiclass kernel-based vector machines*, JMLR 2, 2001.
    """

    shift_invariant = True

    def __init__(self, squared: bool = False):
        super().__init__(squared)
        self.smooth = False  # squared or not, it has a kink where two rivals tie

    def curvature(self, n_columns: int) -> float:
        return 4.0 if self.squared else 2.0  # two scores in the one term

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        column = _column_of(target, scores)
        others = scores.scatter(-1, column, -torch.inf)
        rival = winners(others).unsqueeze(-1)
        rival_score = others.gather(-1, rival)
        value, slope = self._violation(rival_score - scores.gather(-1, column) + 1)
        gradient = torch.zeros_like(scores).scatter_(-1, rival, slope).scatter_add_(-1, column, -slope)
        return value.squeeze(-1), gradient


class BinaryHinge(_Hinge):
    r"""One independent hinge per column, :math:`\ell(s, t) = \sum_c \max(0, 1 - (2 t_c - 1) s_c)` (or its squares).

    One column for two classes; one per class in the one-vs-rest scheme of LinearSVC.

    Cortes & Vapnik, *Support-vector networks*, Machine Learning 20, 1995.
    """

    target = "indicators"

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        sign = 2 * target - 1
        value, slope = self._violation(1 - sign * scores)
        return value.sum(-1), -sign * slope


LOSSES: dict[str, Callable[..., Loss]] = {
    "log_loss": Softmax,
    "binary_log_loss": Logistic,
    "squared_error": SquaredError,
    "weston_watkins": WestonWatkinsHinge,
    "crammer_singer": CrammerSingerHinge,
    "ovr": BinaryHinge,
}
