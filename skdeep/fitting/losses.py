"""Losses of values, as users pass them: by name, or as an object with settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from skdeep.compat.sklearn import Interval, StrOptions, validate_parameter_constraints
from skdeep.data.values import middle
from skdeep.engine.values import (
    AbsoluteValues,
    HuberValues,
    InsensitiveValues,
    Positive,
    QuantileValues,
    SquaredValues,
    TweedieValues,
    ValueLoss,
)
from skdeep.fitting.constraints import ObjectOf


@dataclass(eq=False, repr=False)
class RegressionLoss(BaseEstimator):
    """Base of the losses with settings: parameters as scikit-learn has them, so that searches can set each."""

    _parameter_constraints: ClassVar[dict] = {}

    @classmethod
    def _get_param_names(cls) -> list[str]:
        # the signature, which scikit-learn reads, takes longer than a fit of few rows
        return sorted(field.name for field in fields(cls))

    def __deepcopy__(self, memo: dict) -> Self:
        made = object.__new__(type(self))  # of what copies ask for, a fit would wait
        made.__dict__.update((name, copy.deepcopy(value, memo)) for name, value in vars(self).items())
        return made

    def make(self) -> ValueLoss:
        """Make the loss of the engine."""
        raise NotImplementedError

    def _validate_params(self) -> None:
        validate_parameter_constraints(self._parameter_constraints, self.get_params(deep=False), type(self).__name__)


@dataclass(eq=False, repr=False)
class Huber(RegressionLoss):
    r"""Huber's loss: half the square of residuals r up to :math:`\delta`, and :math:`\delta |r| - \delta^2 / 2` beyond.

    Parameters
    ----------
    delta : float or "auto", default="auto"
        :math:`\delta`, in units of y: HuberRegressor's ``epsilon * scale_``. "auto" is the median absolute deviation of
        y from its median (where most of y is the same, of the rest), which is kept as ``delta_``; of several targets,
        each has one, the same in units of its deviation.

    References
    ----------
    .. [1] P. J. Huber, *Robust estimation of a location parameter*, Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import Huber, LinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = LinearRegressor(Huber(delta=50.0)).fit(X, y)
    >>> reg.score(X, y) > 0.5
    True
    """

    delta: float | str = "auto"
    _parameter_constraints: ClassVar[dict] = {
        "delta": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")]
    }

    def make(self) -> ValueLoss:
        return HuberValues(1.0 if self.delta == "auto" else float(self.delta))


@dataclass(eq=False, repr=False)
class EpsilonInsensitive(RegressionLoss):
    r"""What a residual r is beyond :math:`\epsilon`: :math:`\max(0, |r| - \epsilon)`, or its square.

    Parameters
    ----------
    epsilon : float, default=0.1
        :math:`\epsilon`, in units of y.
    squared : bool, default=False
        Whether to take squares.

    References
    ----------
    .. [1] V. Vapnik, *The Nature of Statistical Learning Theory*, 1995, chapter 6.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import EpsilonInsensitive, LinearRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = LinearRegressor(EpsilonInsensitive(epsilon=20.0)).fit(X, y)
    >>> reg.score(X, y) > 0.5
    True
    """

    epsilon: float = 0.1
    squared: bool = False
    _parameter_constraints: ClassVar[dict] = {
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "squared": ["boolean"],
    }

    def make(self) -> ValueLoss:
        return InsensitiveValues(float(self.epsilon), self.squared)


@dataclass(eq=False, repr=False)
class Quantile(RegressionLoss):
    r"""The pinball loss, :math:`\max(\tau r, (\tau - 1) r)` of residuals r, of one level or several.

    Parameters
    ----------
    quantile : float or list of float, default=0.5
        :math:`\tau`, between 0 and 1. With a list, a model predicts a column for each.
    non_crossing : bool, default=False
        Whether predictions are sorted, so that a higher level never has a lower one: rearrangement, which brings them
        nearer to the true quantiles, if anything [2]_.

    References
    ----------
    .. [1] R. Koenker & G. Bassett, *Regression quantiles*, Econometrica 46, 1978.
    .. [2] V. Chernozhukov, I. Fernández-Val & A. Galichon, *Quantile and probability curves without crossing*,
       Econometrica 78, 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import LinearRegressor, Quantile
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = LinearRegressor(Quantile([0.05, 0.5, 0.95])).fit(X, y)
    >>> low, median, high = reg.predict(X).T
    >>> bool(0.85 < ((low <= y) & (y <= high)).mean() < 0.95)
    True
    """

    quantile: Any = 0.5
    non_crossing: bool = False
    _parameter_constraints: ClassVar[dict] = {
        "quantile": [Interval(Real, 0, 1, closed="neither"), "array-like"],
        "non_crossing": ["boolean"],
    }

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels, one or several."""
        return tuple(map(float, np.atleast_1d(self.quantile)))

    def _validate_params(self) -> None:
        super()._validate_params()
        levels = np.atleast_1d(np.asarray(self.quantile, dtype=float))
        if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantile must be a level between 0 and 1, or a list of such; got {self.quantile!r}.")
        if self.non_crossing and (np.diff(levels) <= 0).any():
            raise ValueError(f"non_crossing=True takes levels in rising order, got quantile={self.quantile!r}.")

    def make(self) -> ValueLoss:
        return QuantileValues(self.levels)


@dataclass(eq=False, repr=False)
class Tweedie(RegressionLoss):
    r"""Half the Tweedie deviance of a power p, on the log link: the prediction is :math:`e^s` of the score s.

    Parameters
    ----------
    power : float, default=1.5
        p, from 1 on: 1 is Poisson's, 2 gamma's, and in between are sums of a Poisson number of gamma variables, such as
        claims of a year. Targets are at least zero, and positive from 2 on.

    References
    ----------
    .. [1] B. Jørgensen, *The Theory of Dispersion Models*, 1997, chapter 4.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import LinearRegressor, Tweedie
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = LinearRegressor(Tweedie(power=1.9)).fit(X, y)
    >>> bool((reg.predict(X) > 0).all())
    True
    """

    power: float = 1.5
    _parameter_constraints: ClassVar[dict] = {"power": [Interval(Real, 1, None, closed="left")]}

    def make(self) -> ValueLoss:
        return TweedieValues(float(self.power))


def is_to_be_suited(loss: Any) -> bool:
    """Tell whether a setting of a loss follows from the targets."""
    return loss == "huber" or (isinstance(loss, Huber) and loss.delta == "auto")


def suited_delta(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Compute the median absolute deviation of targets (n, C) that vary, their root mean square, with weights (n,)."""
    _, spread = middle(values, weight)
    largest = float(spread.max()) or 1.0  # squares of what is huge or tiny have no number
    varies = spread > 0
    return largest * float(np.sqrt(np.square(spread[varies] / largest).mean())) if varies.any() else 1.0


#: The losses by name, with their default settings.
REGRESSION_LOSSES: dict[str, Callable[[], ValueLoss]] = {
    "squared_error": SquaredValues,
    "absolute_error": AbsoluteValues,
    "huber": lambda: Huber().make(),
    "epsilon_insensitive": lambda: EpsilonInsensitive().make(),
    "squared_epsilon_insensitive": lambda: EpsilonInsensitive(squared=True).make(),
    "quantile": lambda: Quantile().make(),
    "poisson": lambda: TweedieValues(1.0),
    "gamma": lambda: TweedieValues(2.0),
    "tweedie": lambda: Tweedie().make(),
}


#: The constraint of a parameter that it is a loss with settings.
LOSS_OBJECT = ObjectOf(RegressionLoss, "make", "skdeep.Huber()")


def value_loss(loss: str | RegressionLoss, output: str) -> ValueLoss:
    """Make the loss of the engine of what users say; "identity" and "auto" leave predictions to it."""
    made = REGRESSION_LOSSES[loss]() if isinstance(loss, str) else loss.make()
    if output in ("auto", "identity") or (output == "exp" and made.log_link):
        return made
    return Positive(made, output)


def output_name(loss: str | RegressionLoss, output: str) -> str:
    """Name what makes predictions of scores."""
    made = value_loss(loss, output)
    return "exp" if made.log_link else getattr(made, "output", "identity")


def predicts_positive(loss: Any, output: Any) -> bool:
    """Tell whether predictions are never negative; not of what is no loss, which is said elsewhere."""
    known = loss in REGRESSION_LOSSES if isinstance(loss, str) else isinstance(loss, RegressionLoss)
    return output not in ("auto", "identity") or (known and value_loss(loss, "auto").log_link)


def check_output(loss: str | RegressionLoss, output: str) -> None:
    """Raise where a loss has a link of its own, and another one is asked for."""
    if not isinstance(loss, str):
        loss._validate_params()
    if output not in ("auto", "exp") and value_loss(loss, "auto").log_link:
        raise ValueError(
            f"The loss {loss!r} is of predictions exp(s), and output={output!r} asks for others. Use "
            "output='auto', or a loss such as 'squared_error'."
        )


def levels_of(loss: Any) -> tuple[float, ...]:
    """List the levels of a loss of several quantiles; none of others."""
    return loss.levels if isinstance(loss, Quantile) and np.ndim(loss.quantile) == 1 else ()
