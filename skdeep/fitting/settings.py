r"""Settings of the solvers, as users pass them, and which of them an estimator has."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator

from skdeep.compat.sklearn import Interval, Options, StrOptions, validate_parameter_constraints
from skdeep.data.inputs import Classifier
from skdeep.engine.schedules import SCHEDULES
from skdeep.fitting.constraints import Constrained, ObjectOf
from skdeep.fitting.document import document

#: Solvers that look at all rows at once, and are used for the exact optimum.
FULL_BATCH = frozenset({"lbfgs", "exact"})
#: What `precision` may be.
PRECISIONS = ("auto", "float64", "float32", "bfloat16")
#: Epochs without improvement that a linear model may have.
_PATIENCE = 5


@dataclass(eq=False, repr=False)
class Solver(Constrained, BaseEstimator):
    """Base of the settings of a solver: parameters as scikit-learn has them, so that searches can set each.

    The settings are the fields of the dataclass. A class of a user's may have an ``__init__`` that takes others, or
    fewer.
    """

    #: The name by which the solver goes without settings, as in ``solver="sgd"``.
    name: ClassVar[str]
    _parameter_constraints: ClassVar[dict] = {
        "n_iter_no_change": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "precision": [StrOptions(set(PRECISIONS))],
    }

    def options(self, each: list[Any]) -> dict[str, Any]:
        """Make arguments of the update rule, for models whose settings differ from these in what is stackable only."""
        raise NotImplementedError

    def __sklearn_clone__(self) -> Self:
        # nothing is ever learnt here, and ``__init__`` need not take all settings
        return copy.deepcopy(self)

    def _validate_params(self) -> None:
        given = {name: getattr(self, name) for name in self._parameter_constraints if hasattr(self, name)}
        validate_parameter_constraints(self._parameter_constraints, given, type(self).__name__)

    @property
    def patience(self) -> float:
        """Epochs in a row without improvement after which training stops."""
        given: Any = getattr(self, "n_iter_no_change", "auto")
        return _PATIENCE if given == "auto" else given


@dataclass(eq=False, repr=False)
class _Steps(Solver):
    """What the optimizers that make mini-batch steps have in common."""

    learning_rate_init: float | str = "auto"
    _: KW_ONLY
    learning_rate: str = "auto"
    power_t: float = 0.5
    warmup_epochs: float = 0
    max_grad_norm: float | None = None
    batch_size: int | str = "auto"
    shuffle: bool = True
    n_iter_no_change: float | str = "auto"
    precision: str = "auto"

    _parameter_constraints: ClassVar[dict] = {
        "learning_rate_init": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "learning_rate": [StrOptions({*SCHEDULES, "auto"})],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [None, Interval(Real, 0, None, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
    }


#: Settings of steps whose meaning is the same for all classifiers.
STEPS = """\
power_t : float, default=0.5
    Exponent of "invscaling".
warmup_epochs : float, default=0
    Length of a linear ramp of the learning rate at the start, in epochs; goes with every schedule.
max_grad_norm : float, default=None
    Scale the gradient down to this norm where it is larger.
"""

_STEPS = (
    """\
learning_rate_init : float or "auto", default="auto"
    Learning rate at the start. "auto" is the estimator's default. For the linear classifiers, this is, with
    Adam, 0.01, or :math:`0.1 / \\sqrt d` for softmax and multiclass hinges of more than 100 dense columns d,
    and, with SGD, a rate that is derived from the data,
    :math:`1 / \\big(c (\\lambda + (\\tfrac1B - \\tfrac1n) \\tfrac{t}{1 - \\rho})\\big)` with the loss's curvature
    c, the largest eigenvalue :math:`\\lambda` and the trace t of the second moments of the columns (as trained on),
    B of n rows per batch, and momentum :math:`\\rho`.
learning_rate : {"auto", "constant", "invscaling", "adaptive", "cosine"}, default="auto"
    Schedule: constant; divided by ``(t + 1) ** power_t`` after t samples; divided by 5 whenever improvement stops,
    until it is below 1e-6; or half a cosine down to zero at ``max_iter``. "auto" is the estimator's default. For
    the linear classifiers, this is a cosine over 1500 steps, at which training ends, if these are 100 epochs at
    most (15 batches per epoch or more), and else "adaptive".
"""
    + STEPS
    + """\
batch_size : int or "auto", default="auto"
    Rows per step. "auto" is the estimator's default. For the linear classifiers, this is min(200, n_samples), and
    with sparse rows as many as have one value for each column on average, where these are more, up to a sixteenth
    of all. A batch that holds all rows gives the exact, deterministic gradient.
shuffle : bool, default=True
    Whether to draw a new order of the rows in each epoch.
"""
)

_BETAS = """\
beta_1 : float, default=0.9
    Decay rate of the running mean of gradients.
beta_2 : float or "auto", default="auto"
    Decay rate of the running mean of squares. "auto" is the estimator's: 0.95 for `MLPEnsembleClassifier`, else
    0.999.
epsilon : float, default=1e-8
    Offset :math:`\\epsilon_0` of the denominator.
"""

_STOPPING = """\
n_iter_no_change : int, inf or "auto", default="auto"
    Stop after more than this many epochs in a row without improvement (the estimator's ``tol``). "auto" is the
    estimator's default: 5 for the linear classifiers.
precision : {"auto", "float64", "float32", "bfloat16"}, default="auto"
    Of the arithmetic in training. "auto" is float64 where the work is so small that it costs no time (up to 2²⁴
    multiply-adds per epoch) and for the linear classifiers' `LBFGS`, else float32. "bfloat16" computes the matrix
    products in 8 binary digits, all else in float32 (not for `LBFGS`), for hardware that has such products; it is
    slower elsewhere, and rounds X as well.
"""


@document(steps=_STEPS, stopping=_STOPPING)
@dataclass(eq=False, repr=False, kw_only=True)
class SGD(_Steps):
    r"""Settings of mini-batch gradient descent with momentum.

    .. math:: v \leftarrow \rho v + g, \quad \theta \leftarrow \theta - \epsilon v

    To be passed as ``solver`` of a classifier, in place of the name "sgd". In a search, each is a parameter of its own,
    such as ``solver__momentum``; candidates that differ in ``learning_rate_init``, ``momentum`` or ``n_iter_no_change``
    train as one stack.

    Parameters
    ----------
    {steps}
    {stopping}
    momentum : float, default=0.9
        Momentum :math:`\rho`, from 0 to below 1.
    nesterovs_momentum : bool, default=True
        Whether the momentum is Nesterov's: a step by :math:`g + \rho v` instead of v.

    See Also
    --------
    Adam : Steps that differ between coordinates.
    sklearn.linear_model.SGDClassifier : Gradient descent on single rows; its ``eta0`` is ``learning_rate_init``.

    References
    ----------
    .. [1] I. Sutskever et al., *On the importance of initialization and momentum in deep learning*, ICML 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SGD, SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SoftmaxClassifier(solver=SGD(momentum=0.8, batch_size=32), random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    >>> clf.set_params(solver__momentum=0.5).solver.momentum
    0.5
    """

    name = "sgd"
    momentum: float = 0.9
    nesterovs_momentum: bool = True

    _parameter_constraints: ClassVar[dict] = {
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
    }

    def options(self, each: list[Any]) -> dict[str, Any]:
        momentum = np.array([own.momentum for own in each], dtype=np.float64)
        return {"momentum": momentum, "nesterov": self.nesterovs_momentum}


@document(steps=_STEPS, stopping=_STOPPING, betas=_BETAS)
@dataclass(eq=False, repr=False, kw_only=True)
class Adam(_Steps):
    r"""Settings of Adam: gradients divided by the root of their running mean square.

    .. math:: \theta \leftarrow \theta - \epsilon \hat m / (\sqrt{\hat v} + \epsilon_0)

    with the bias-corrected running means :math:`\hat m` of the gradient and :math:`\hat v` of its square. To be passed
    as ``solver`` of a classifier, in place of the name "adam"; see `SGD`.

    Parameters
    ----------
    {steps}
    {stopping}
    {betas}

    See Also
    --------
    AdamW : Adam with decoupled weight decay.
    SGD : Gradient descent with momentum.

    References
    ----------
    .. [1] D. Kingma & J. Ba, *Adam: a method for stochastic optimization*, ICLR 2015.

    Examples
    --------
    >>> from skdeep import Adam, MLPClassifierTorch
    >>> MLPClassifierTorch(solver=Adam(0.01, beta_2=0.99))
    MLPClassifierTorch(solver=Adam(beta_2=0.99, learning_rate_init=0.01))
    """

    name = "adam"
    beta_1: float = 0.9
    beta_2: float | str = "auto"
    epsilon: float = 1e-8

    _parameter_constraints: ClassVar[dict] = {
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
    }

    def options(self, each: list[Any]) -> dict[str, Any]:
        betas = self.beta_1, 0.999 if self.beta_2 == "auto" else self.beta_2
        return {"momentum": np.zeros(len(each)), "betas": betas, "epsilon": self.epsilon}


@document(steps=_STEPS, stopping=_STOPPING, betas=_BETAS)
@dataclass(eq=False, repr=False, kw_only=True)
class AdamW(Adam):
    r"""Settings of Adam with decoupled weight decay: the penalty acts with the bare learning rate.

    ``alpha`` is then the decay per unit of learning rate, :math:`\theta \leftarrow \theta / (1 + \epsilon\alpha)` after
    each step, and no longer the weight of a penalty in an objective. To be passed as ``solver`` of a classifier, in
    place of the name "adamw"; see `SGD`.

    Parameters
    ----------
    {steps}
    {stopping}
    {betas}

    See Also
    --------
    Adam : The same with a penalty in the objective.

    References
    ----------
    .. [1] I. Loshchilov & F. Hutter, *Decoupled weight decay regularization*, ICLR 2019.

    Examples
    --------
    >>> from skdeep import AdamW, SoftmaxClassifier
    >>> SoftmaxClassifier(solver=AdamW(batch_size=64)).get_params()["solver__batch_size"]
    64
    """

    name = "adamw"


@document(stopping=_STOPPING)
@dataclass(eq=False, repr=False, kw_only=True)
class LBFGS(Solver):
    r"""Settings of full-batch steps: Newton's up to 1024 weights of a linear model, L-BFGS beyond and for networks.

    To be passed as ``solver`` of a classifier, in place of the name "lbfgs"; see `SGD`. Iterations count as epochs: up
    to the classifier's ``max_iter``, or until no entry of the gradient is larger than its ``tol``.

    Parameters
    ----------
    max_fun : int, default=15000
        Evaluations of the objective at most.
    {stopping}

    References
    ----------
    .. [1] J. Nocedal & S. Wright, *Numerical optimization*, 2nd edition, 2006, chapter 7.

    Examples
    --------
    >>> from skdeep import LBFGS, SoftmaxClassifier
    >>> SoftmaxClassifier(solver=LBFGS(max_fun=100), tol=1e-8)
    SoftmaxClassifier(solver=LBFGS(max_fun=100), tol=1e-08)
    """

    name = "lbfgs"
    max_fun: int = 15000
    n_iter_no_change: float | str = "auto"
    precision: str = "auto"

    _parameter_constraints: ClassVar[dict] = {"max_fun": [Interval(Integral, 1, None, closed="left")]}


class _Exact(Solver):
    """Settings of the closed form, which has none."""

    name = "exact"
    precision = "auto"


#: The constraint of a parameter that it is an object with settings.
SOLVER_OBJECT = ObjectOf(Solver, "options", "skdeep.SGD()")

#: The settings by the names of their solvers.
SOLVERS: dict[str, type[Solver]] = {cls.name: cls for cls in (SGD, Adam, AdamW, LBFGS)}


def solver_name(estimator: Classifier) -> str:
    """Name the solver that an estimator has been given; it may be "auto", or "" where that is no solver at all."""
    solver = estimator.solver
    if isinstance(solver, str):
        return solver
    return solver.name if isinstance(solver, Solver) else ""


def _names(cls: type[Solver]) -> tuple[str, ...]:
    """Name the settings of a solver: asked for some times in every fit."""
    return _names_once(cls)  # type: ignore[arg-type]  # a class has a hash


@cache
def _names_once(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _values(solver: Solver) -> dict[str, Any]:
    return {name: getattr(solver, name) for name in _names(type(solver))}


def changed(solver: Solver, settings: dict[str, Any]) -> Solver:
    """Copy an object, with some other settings."""
    other = copy.deepcopy(solver)
    for name, value in settings.items():
        setattr(other, name, value)
    return other


def setting_names() -> set[str]:
    """Name the settings of all solvers."""
    return {name for cls in SOLVERS.values() for name in _names(cls)}


def settings_of(estimator: Classifier, chosen: str = "sgd") -> Any:
    """Look up the settings of an estimator's solver.

    They are the solver itself, where it is an object; by name, its defaults, or the estimator's own parameters of these
    names (which deep classifiers have, as MLPClassifier does). What an object leaves "auto" is the estimator's own.
    With ``solver="auto"``, they are settings of the solver that is `chosen`.
    """
    solver = estimator.solver
    if isinstance(solver, str):
        name = chosen if solver == "auto" else solver
        cls = _Exact if name == "exact" else SOLVERS[name]
        return cls(**{name: getattr(estimator, name) for name in _names(cls) if hasattr(estimator, name)})
    free = [name for name, value in _values(solver).items() if value == "auto" and hasattr(estimator, name)]
    return changed(solver, {name: getattr(estimator, name) for name in free}) if free else solver


def check_settings(estimator: Classifier) -> None:
    """Raise if a setting is not allowed, or is said by the estimator where that has no effect.

    Beside an object, an estimator's own parameter counts if the object has that setting and leaves it "auto".
    """
    solver = estimator.solver
    if isinstance(solver, str):
        return
    solver._validate_params()
    known, defaults = _values(solver), {field.name: field.default for field in fields(type(estimator))}
    for name in filter(setting_names().__contains__, defaults):
        value = getattr(estimator, name)
        if value != defaults[name] and known.get(name) != "auto":
            which = f"{name}={known[name]!r}; set it there" if name in known else "no such setting; leave it out"
            raise ValueError(
                f"{name}={value!r} of {type(estimator).__name__} has no effect beside solver={solver!r}, which has "
                f"{which}. Only what an object leaves 'auto' is the estimator's."
            )
