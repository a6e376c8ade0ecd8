r"""A line search for each model of a stack, one trial step of each at a time.

A step t along a direction p is taken when it satisfies the Wolfe conditions, on :math:`\phi(t) = f(x + t p)`:

.. math:: \phi(t) \le \phi(0) + c_1 t \phi'(0), \qquad \phi'(t) \ge c_2 \phi'(0)

Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.1 and 3.5.
Lewis & Overton, *Nonsmooth optimization via quasi-Newton methods*, Mathematical Programming 141, 2013: the bracket.
Hager & Zhang, *A new conjugate gradient method with guaranteed descent and an efficient line search*, SIAM Journal on
Optimization 16, 2005: the slope in place of the value, where the decrease is lost in rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

_SUFFICIENT_DECREASE = 1e-4
_CURVATURE = 0.9
_MAX_TRIALS = 40
#: How much longer a step becomes that is too short, as long as none was too long.
_GROWTH = 4.0
#: Shares of a bracket within which its next trial is. A Newton step that a kink has cut short has (1 - t) of its slope
#: at t: at a tenth, whether that is too short (`_CURVATURE`) would be a matter of rounding.
_INSIDE = (0.12, 0.88)


@dataclass
class LineSearch:
    """State of the searches: one entry per model in each array, (K,)."""

    value: np.ndarray  # at the start
    slope: np.ndarray
    step: np.ndarray  # the next trial
    low: np.ndarray  # the longest step known to be too short, which lowers the value (0: the start)
    low_value: np.ndarray
    low_slope: np.ndarray
    high: np.ndarray  # the shortest step known to be too long (infinite: none)
    high_value: np.ndarray
    high_slope: np.ndarray
    n_trials: np.ndarray

    @classmethod
    def begin(cls, value: np.ndarray, slope: np.ndarray) -> LineSearch:
        """Begin searches that try the full step first."""
        zero, unknown = np.zeros(len(value)), np.full(len(value), np.inf)
        low = (zero.copy(), value.copy(), slope.copy())
        high = (unknown, unknown.copy(), unknown.copy())
        return cls(value.copy(), slope.copy(), zero + 1, *low, *high, zero.copy())

    def select(self, models: np.ndarray) -> LineSearch:
        """Select the searches of some of the models."""
        return LineSearch(*(getattr(self, field.name)[models] for field in fields(self)))

    def put(self, models: np.ndarray, part: LineSearch) -> None:
        """Replace the searches of some of the models."""
        for field in fields(self):
            getattr(self, field.name)[models] = getattr(part, field.name)

    @property
    def hopeless(self) -> np.ndarray:
        """Which models have no direction downhill, or have tried in vain."""
        return ~(self.slope < 0) | (self.n_trials >= _MAX_TRIALS)

    def judge(self, value: np.ndarray, slope: np.ndarray, rounding: float) -> np.ndarray:
        """Tell which models take their trial step, given its value and slope; the others get another one to try."""
        self.n_trials += 1
        lower = value <= self.value + _SUFFICIENT_DECREASE * self.step * self.slope
        level = value <= self.value + rounding * np.abs(self.value)
        lower |= level & (slope <= (2 * _SUFFICIENT_DECREASE - 1) * self.slope)
        short = lower & (slope < _CURVATURE * self.slope)
        for side, mine in (("low", short), ("high", ~lower)):
            for name, new in ((side, self.step), (f"{side}_value", value), (f"{side}_slope", slope)):
                np.copyto(getattr(self, name), new, where=mine)
        self.step = np.where(lower & ~short, self.step, self._next_step())
        return lower & ~short

    def _next_step(self) -> np.ndarray:
        """Find the minimiser of the cubic through both ends of the bracket (formula 3.59), kept away from them."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            width = self.high - self.low
            d1 = self.low_slope + self.high_slope - 3 * (self.high_value - self.low_value) / width
            d2 = np.sqrt(d1**2 - self.low_slope * self.high_slope)
            share = (self.high_slope + d2 - d1) / (self.high_slope - self.low_slope + 2 * d2)
            inside = self.high - width * np.clip(np.where(np.isfinite(share), share, 0.5), *_INSIDE)
            return np.where(np.isfinite(self.high), inside, _GROWTH * self.step)
