r"""Losses of values: what a regression minimises, with gradients and curvatures in closed form.

**Shape.** Scores and targets are ``(..., C)``, one column per value; losses are summed over the columns, values come
back as ``(...)``. What is predicted is `prediction` of the scores: themselves, or, on the log link, ``exp``. See
`skdeep.engine.losses` for what a loss is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skdeep.engine.losses import Loss

#: How much shorter steps are on the log link, where all targets are alike.
_CAUTION = 8.0


class ValueLoss(Loss):
    r"""Base of the losses of values, :math:`\ell(s, t) = \sum_c \ell_c(s_c, t_c)`.

    A subclass defines `of_each`, the loss of each value with its derivative, and `second`, the second one, if it is
    `twice_smooth`.
    """

    target = "values"
    domain: ClassVar[str] = "real"  # which targets there may be: "real", "non-negative" or "positive"
    log_link = False  # whether the scores are logarithms of what is predicted
    #: The loss of predictions and targets in another unit, c times as large, is c ** degree times as large, if it has
    #: the unit itself (`in_unit`).
    degree = 1.0
    robust = False  # whether it grows like a line, so that it matters little how far an outlier is

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of each value and its derivative, ``(..., C)``."""
        raise NotImplementedError

    def prediction(self, scores: Tensor) -> Tensor:
        """Compute what is predicted."""
        return scores.exp() if self.log_link else scores

    def scores_of(self, prediction: Tensor) -> Tensor:
        """Compute the scores of what is predicted."""
        return prediction.log() if self.log_link else prediction

    def caution(self, target: np.ndarray) -> float:
        r"""Return how many times shorter steps have to be, see `Loss.caution`.

        On the log link, second derivatives have no bound: where predictions are the targets, they are about
        :math:`t^{degree}`, of which a batch may have some that are much larger than most. The constant was measured
        (``docs/decisions/regression.rst``).
        """
        if not self.log_link:
            return 1.0
        bend = np.abs(target) ** self.degree
        mean = float(bend.mean())
        return _CAUTION * math.sqrt(float(np.square(bend).mean())) / mean if mean > 0 else _CAUTION

    def in_unit(self, unit: float) -> ValueLoss:
        """Make the same loss of values that are counted in a unit."""
        return self

    def with_delta(self, delta: float | np.ndarray) -> ValueLoss:
        """Make the same loss with a setting that follows from the targets, if it has one."""
        return self

    def value(self, scores: Tensor, target: Tensor) -> Tensor:
        return self.of_each(scores, target)[0].sum(-1)

    def value_and_gradient(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.of_each(scores, target)
        return value.sum(-1), gradient


class SquaredValues(ValueLoss):
    r"""Half the squared error, :math:`\tfrac12 (s - t)^2`: its minimum is the mean.

    Bishop, *Pattern Recognition and Machine Learning*, section 3.1.1.
    """

    degree = 2.0

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - target
        return residual.square() / 2, residual

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        return torch.ones_like(scores)


class AbsoluteValues(ValueLoss):
    r"""The absolute error, :math:`|s - t|`: its minimum is the median.

    Koenker, *Quantile Regression*, 2005, section 1.3.
    """

    smooth = twice_smooth = False
    robust = True

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - target
        return residual.abs(), residual.sign()


class HuberValues(ValueLoss):
    r"""Huber's loss: :math:`\tfrac12 r^2` of residuals r up to :math:`\delta`, beyond :math:`\delta |r| - \delta^2/2`.

    Huber, *Robust estimation of a location parameter*, Annals of Mathematical Statistics 35, 1964.
    """

    twice_smooth = False
    robust = True
    degree = 2.0

    def __init__(self, delta: float | np.ndarray = 1.0):  # of all columns, or (C,)
        self.delta: Any = torch.from_numpy(delta) if isinstance(delta, np.ndarray) else delta
        self.slope = min(1.0, float(np.min(delta)))

    def with_delta(self, delta: float | np.ndarray) -> ValueLoss:
        return HuberValues(delta)

    def in_unit(self, unit: float) -> ValueLoss:
        return HuberValues(self.delta / unit)

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - target
        inner = residual.clamp(-self.delta, self.delta)
        return inner * (residual - inner / 2), inner


class InsensitiveValues(ValueLoss):
    r"""What a residual is beyond :math:`\epsilon`: :math:`\max(0, |s - t| - \epsilon)`, or its square.

    Vapnik, *The Nature of Statistical Learning Theory*, 1995, chapter 6.
    """

    twice_smooth = False

    def __init__(self, epsilon: float = 0.1, squared: bool = False):
        self.epsilon, self.squared = epsilon, squared
        self.smooth, self.robust = squared, not squared
        self.degree = 2.0 if squared else 1.0

    def curvature(self, n_columns: int) -> float:
        return 2.0 if self.squared else 1.0

    def in_unit(self, unit: float) -> ValueLoss:
        return InsensitiveValues(self.epsilon / unit, self.squared)

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - target
        beyond = (residual.abs() - self.epsilon).clamp(min=0)
        if self.squared:
            return beyond.square(), 2 * beyond * residual.sign()
        return beyond, residual.sign() * (beyond > 0)


class QuantileValues(ValueLoss):
    r"""The pinball loss, :math:`\tau \max(0, t - s) + (1 - \tau) \max(0, s - t)`: its minimum is the quantile τ.

    Levels are the τ of each column of scores.

    Koenker & Bassett, *Regression quantiles*, Econometrica 46, 1978.
    """

    smooth = twice_smooth = False
    robust = True

    def __init__(self, levels: tuple[float, ...] = (0.5,)):
        self.levels = levels
        self._tensors: dict[tuple, Tensor] = {}

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        residual = scores - target
        level = _sent(self._tensors, self.levels, scores)
        above, below = (residual > 0).to(scores.dtype), (residual < 0).to(scores.dtype)
        slope = above * (1 - level) - below * level
        return residual * slope, slope


class TweedieValues(ValueLoss):
    r"""Half the Tweedie deviance of a power p on the log link, of targets at least zero (from p = 2 on, positive).

    .. math:: \frac{t^{2-p}}{(1 - p)(2 - p)} - \frac{t\, e^{(1-p) s}}{1 - p} + \frac{e^{(2-p) s}}{2 - p}

    Its limits are Poisson's, :math:`e^s - t s + t \log t - t` of p = 1, and gamma's, :math:`s + t e^{-s} - \log t - 1`
    of p = 2. A power between these is of sums of a Poisson number of gamma variables: many zeros, and a long tail.

    McCullagh & Nelder, *Generalized Linear Models*, 2nd edition, 1989, chapters 6 and 8. Jørgensen, *The Theory of
    Dispersion Models*, 1997, chapter 4.
    """

    log_link = True

    def __init__(self, power: float = 1.5):
        self.power = power
        self.degree = 2 - power
        self.convex = self.twice_smooth = power <= 2

    @property
    def domain(self) -> str:  # type: ignore[override]
        return "non-negative" if self.power < 2 else "positive"

    def _of_both(self, scores: Tensor, target: Tensor) -> tuple[float | Tensor, Tensor]:
        """Compute what the derivative is made of: a power of the mean, and the target times another one."""
        return _grown(2 - self.power, scores), target * _grown(1 - self.power, scores)

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        p, (of_mean, of_target) = self.power, self._of_both(scores, target)
        if p == 1:
            value = of_mean - target * scores + torch.xlogy(target, target) - target
        elif p == 2:
            value = scores + of_target - target.log() - 1
        else:
            value = target.pow(2 - p) / ((1 - p) * (2 - p)) - of_target / (1 - p) + of_mean / (2 - p)
        return value, of_mean - of_target

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        of_mean, of_target = self._of_both(scores, target)
        return (2 - self.power) * of_mean - (1 - self.power) * of_target


def _grown(rate: float, scores: Tensor) -> float | Tensor:
    """Compute ``exp(rate * scores)``."""
    return (scores if rate == 1 else rate * scores).exp() if rate else 1.0


class Positive(ValueLoss):
    r"""A loss of predictions that are never negative, a function g of the scores: :math:`\ell(g(s), t)`.

    The output g is "relu", :math:`\max(0, s)`, "softplus", :math:`\log(1 + e^s)`, or "exp", :math:`e^s`.
    """

    smooth = twice_smooth = False
    convex = False

    def __init__(self, loss: ValueLoss, output: str, shift: tuple[float, ...] = ()):
        self.loss, self.output, self.shift = loss, output, shift
        self.degree, self.smooth = loss.degree, loss.smooth and output != "relu"
        self.twice_smooth = self.smooth and loss.twice_smooth
        self.log_link, self.robust = output == "exp", loss.robust
        self._tensors: dict[tuple, Tensor] = {}

    def in_unit(self, unit: float) -> ValueLoss:
        return Positive(self.loss.in_unit(unit), self.output, self.shift)

    def with_delta(self, delta: float | np.ndarray) -> ValueLoss:
        return Positive(self.loss.with_delta(delta), self.output, self.shift)

    def shifted(self, shift: tuple[float, ...]) -> Positive:
        """Make the loss whose scores of zero stand for `shift`, one number for each column."""
        return Positive(self.loss, self.output, shift)

    def _of_scores(self, scores: Tensor, which: int) -> Tensor:
        if self.shift:
            scores = scores + _sent(self._tensors, self.shift, scores)
        return OUTPUTS[self.output][which](scores)

    def curvature(self, n_columns: int) -> float:
        return self.loss.curvature(n_columns)

    def prediction(self, scores: Tensor) -> Tensor:
        return self._of_scores(scores, 0)

    def scores_of(self, prediction: Tensor) -> Tensor:
        return OUTPUTS[self.output][2](prediction)

    def of_each(self, scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.loss.of_each(self.prediction(scores), target)
        return value, slope * self._of_scores(scores, 1)

    def second(self, scores: Tensor, target: Tensor) -> Tensor:
        # of Gauss and Newton: never negative
        return self.loss.second(self.prediction(scores), target) * self._of_scores(scores, 1).square()


def _sent(known: dict[tuple, Tensor], values: tuple[float, ...], like: Tensor) -> Tensor:
    """Send numbers to where a tensor is: once, not at each step."""
    key = like.device, like.dtype
    if key not in known:
        known[key] = torch.tensor(values, device=like.device, dtype=like.dtype)
    return known[key]


def _softplus(scores: Tensor) -> Tensor:
    """Compute log(1 + exp(s)) to all digits; torch's own leaves some out, and ONNX Runtime has it in float32 only."""
    return scores.clamp(min=0) + (-scores.abs()).exp().log1p()


#: What makes predictions of scores that are never negative, with derivatives, and the way back.
OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "relu": (F.relu, lambda scores: (scores > 0).to(scores.dtype), lambda prediction: prediction),
    "softplus": (_softplus, torch.sigmoid, lambda prediction: prediction + (-(-prediction).expm1()).log()),
    "exp": (torch.exp, torch.exp, torch.log),
}
