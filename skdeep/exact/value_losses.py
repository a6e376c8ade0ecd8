r"""Smooth losses of values, of targets (C, n): what regressions minimise; `skdeep.engine.values` has them for torch.

On the log link, what is predicted is :math:`e^s`, and the losses are half the deviances of Tweedie's family, whose
variance is a power p of the mean. With a target t, u = s - log t, a = 2 - p and b = p - 1,

.. math:: \ell = t^a \left(\frac{e^{au} - 1}{a} + \frac{e^{-bu} - 1}{b}\right), \qquad
          \ell = \frac{e^{as}}{a} \text{ where } t = 0,

where a quotient whose denominator is zero is its limit, plus or minus u. It is convex for p from 1 (Poisson) to 2
(gamma). In u, no digits are lost near the target, however large that is.
"""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from skdeep.exact.losses import At, OfColumns, OfResiduals, summed

#: Residuals are zero, or at a kink, up to rounding only, which must not decide on which side the next one is.
_ROUNDING = 1.5e-8
#: Powers of e that are counted, the least factor of an exponent that they are divided by, and what has a logarithm.
_FARTHEST, _LEAST_RATE, _TINY = 500.0, 1e-3, 1e-300
#: Steps to the score of a slope: all its digits take a dozen.
_MAX_STEPS = 100


class HuberLoss(OfResiduals):
    r"""Huber's loss: :math:`r^2 / 2` of residuals r up to :math:`\delta`, beyond :math:`\delta |r| - \delta^2 / 2`."""

    piecewise = True

    def __init__(self, target: np.ndarray, delta: float):
        super().__init__(target, delta)
        self.delta = delta

    def at(self, scores: np.ndarray) -> At:
        residual = scores - self.target
        gradient = np.clip(residual, -self.delta, self.delta)
        residual -= 0.5 * gradient
        residual *= gradient
        return At(summed(residual), gradient)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        return (np.abs(scores - self.target) <= self.delta * (1 + _ROUNDING)).astype(float)

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        return (dual * (dual / 2 + self.target)).sum(1)


class SquaredInsensitive(OfResiduals):
    r"""The square of what a residual r is beyond :math:`\epsilon`, :math:`\max(0, |r| - \epsilon)^2`."""

    piecewise = True

    def __init__(self, target: np.ndarray, epsilon: float):
        super().__init__(target, epsilon)
        self.epsilon = epsilon

    def at(self, scores: np.ndarray) -> At:
        residual = scores - self.target
        residual -= np.clip(residual, -self.epsilon, self.epsilon)
        return At(np.einsum("kcn,kcn->kn", residual, residual), 2 * residual)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        return 2.0 * (np.abs(scores - self.target) >= self.epsilon * (1 - _ROUNDING))

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        return (dual * (dual / 4 + self.target) + self.epsilon * np.abs(dual)).sum(1)


class TweedieLoss(OfColumns):
    """Half the deviance of Tweedie's family on the log link, whose variance is a power of the mean, from 1 to 2.

    Targets are at least zero; more than zero if the power is 2.
    """

    def __init__(self, target: np.ndarray, power: float):
        super().__init__(target, power)
        self.power, self._a, self._b = power, 2 - power, power - 1
        is_zero = target == 0
        positive = np.where(is_zero, 1.0, target)
        self._log, self._unit = np.log(positive), positive**self._a
        self._zero = is_zero / self._a if is_zero.any() else None
        self._falling = self._unit * ~is_zero  # what falls with the scores is of targets above zero only

    def at(self, scores: np.ndarray) -> At:
        u = self._from_target(scores)
        up, down = (_grown(rate, u) for rate in (self._a, -self._b))  # of which one may be u, not both
        up *= self._unit
        if self._zero is not None:
            up += self._zero
        down *= self._falling
        value = summed(up - down)
        if self._a == 0:
            return At(value, down)
        if self._b:
            up *= self._a
            down *= self._b
            up += down
        return At(value, up)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        if self._b == 0:
            return at.gradient + self.target
        falling = np.exp(-self._b * self._from_target(scores))
        falling *= self._falling
        return self._a * at.gradient + falling

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        slope = dual / self._unit
        if self._b == 0:
            slope = np.maximum(slope, -1)
        elif self._a == 0:
            slope = np.minimum(slope, 1)
        u = self._place(slope)
        found = self._unit * (slope * (u + self._log) - _grown(self._a, u) + _grown(-self._b, u))
        if self._zero is not None:
            of_zero = (xlogy(dual, np.maximum(dual, 0)) - dual) / self._a
            found = np.where(self._zero > 0, of_zero, found)
        return found.sum(1)

    def _from_target(self, scores: np.ndarray) -> np.ndarray:
        """Compute u, no farther than powers are finite: a row without weight may have any score."""
        u = scores - self._log
        return np.clip(u, -_FARTHEST / max(self._b, _LEAST_RATE), _FARTHEST / max(self._a, _LEAST_RATE), out=u)

    def _place(self, slope: np.ndarray) -> np.ndarray:
        """Find u where the loss of a positive target, in its unit, has a slope: ``exp(a u) - exp(-b u)``.

        Logarithms of the larger power's equation are convex: Newton's steps from zero pass over no root.
        """
        if self._b == 0:
            return np.log(np.maximum(1 + slope, _TINY))
        if self._a == 0:
            return -np.log(np.maximum(1 - slope, _TINY))
        size, u = np.log(np.maximum(np.abs(slope), _TINY)), np.zeros_like(slope)
        rise = np.where(slope > 0, self._a, self._b)
        for _ in range(_MAX_STEPS):
            fall = (rise - 1) * u
            both = np.logaddexp(size, fall)
            step = (both - rise * u) / (rise + (1 - rise) * np.exp(fall - both))
            u += step
            if not (np.abs(step) > 1e-15 * (1 + u)).any():
                break
        return np.copysign(u, slope)


def _grown(rate: float, u: np.ndarray) -> np.ndarray:
    """Compute ``(exp(rate * u) - 1) / rate``, which is u at a rate of zero."""
    if rate in (0, 1):
        return np.expm1(u) if rate else u
    return np.expm1(rate * u) / rate
