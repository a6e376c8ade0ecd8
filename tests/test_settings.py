"""Solvers that are objects: what they mean, and what is said where a setting has no place."""

import re
from dataclasses import fields

import numpy as np
import pytest
from helpers import covering, in_one_test, linear_module
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris

from skdeep import (
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.fitting.settings import SOLVERS, setting_names, settings_of
from skdeep.model_selection import GridSearchCV, StackingWarning

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
LINEAR = [
    SoftmaxClassifier(),
    SigmoidClassifier(),
    LeastSquaresClassifier(),
    HingeClassifier("squared_hinge", calibration=None),
]
DEEP = [MLPClassifierTorch((5,)), TorchClassifier(linear_module), MLPEnsembleClassifier(2, (5,))]


NAMES = [type(model).__name__ for model in [*LINEAR, *DEEP]]


@pytest.mark.parametrize("model", [*LINEAR, *DEEP], ids=NAMES)
@pytest.mark.parametrize("name", SOLVERS)
def test_an_object_without_settings_is_the_solver_of_its_name(model, name):
    solvers = name, SOLVERS[name]()
    named, as_object = (clone(model).set_params(solver=s, max_iter=3, random_state=0).fit(X, Y) for s in solvers)
    np.testing.assert_array_equal(named.decision_function(X), as_object.decision_function(X))
    assert named.loss_curve_ == as_object.loss_curve_


@pytest.mark.parametrize("model", [*LINEAR, *DEEP], ids=NAMES)
def test_a_name_has_no_settings_to_set(model):
    with pytest.raises(ValueError, match=rf"solver__momentum .* such as solver=SGD\(\).* of {type(model).__name__} is"):
        clone(model).set_params(solver__momentum=0.5)
    assert clone(model).set_params(solver=SGD(), solver__momentum=0.5).solver.momentum == 0.5


def test_a_search_says_that_a_name_has_no_settings():
    with pytest.warns(StackingWarning), pytest.raises(ValueError, match="Pass an object"):
        GridSearchCV(SoftmaxClassifier(), {"solver__momentum": [0.5, 0.9]}).fit(X, Y)


@pytest.mark.parametrize("model", DEEP, ids=NAMES[4:])
def test_no_setting_is_said_twice(model):
    with pytest.raises(ValueError, match=r"momentum=0.5 of .* has no effect beside solver=SGD\(\)"):
        clone(model).set_params(solver=SGD(), momentum=0.5).fit(X, Y)


@pytest.mark.parametrize("model", DEEP, ids=NAMES[4:])
def test_what_an_object_leaves_open_is_the_estimators(model):
    flat = {"learning_rate_init": 0.02, "batch_size": 50, "n_iter_no_change": 4}
    pair = [{"solver": "sgd", "momentum": 0.5}, {"solver": SGD(momentum=0.5)}]
    one, other = (clone(model).set_params(**flat, **own, max_iter=3, random_state=0).fit(X, Y) for own in pair)
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    with pytest.raises(ValueError, match=r"batch_size=50 of .* has no effect"):
        clone(model).set_params(solver=SGD(batch_size=20), batch_size=50).fit(X, Y)


OBJECTS = [cls() for cls in SOLVERS.values()]
#: Of each setting, a value that is nobody's default.
OTHER = {
    "learning_rate_init": 0.02, "learning_rate": "invscaling", "power_t": 0.3, "warmup_epochs": 1, "max_grad_norm": 2.0,
    "batch_size": 50, "shuffle": False, "n_iter_no_change": 3, "precision": "float32", "momentum": 0.4,
    "nesterovs_momentum": False, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6, "max_fun": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "name", "solver"),
    covering(dict(zip(NAMES[4:], DEEP, strict=True)), OTHER.keys(), {solver.name: solver for solver in OBJECTS}),
)
def test_an_own_setting_counts_where_the_object_leaves_it_open_and_is_refused_elsewhere(model, name, solver):
    assert set(OTHER) == setting_names()
    asked = clone(model).set_params(solver=solver, **{name: OTHER[name]})
    if getattr(solver, name, None) == "auto":
        asked._validate_params()
        assert getattr(settings_of(asked), name) == OTHER[name]
        solver = asked.set_params(solver=clone(solver).set_params(**{name: OTHER[name]})).solver
    has = f"{name}={re.escape(repr(getattr(solver, name)))}; set it" if hasattr(solver, name) else "no such setting"
    told = rf"^{name}=.* of {type(model).__name__} has no effect beside solver={type(solver).__name__}\(.*\), which has"
    with pytest.raises(ValueError, match=f"{told} {has}"):
        asked._validate_params()


class Narrow(SGD):
    """A user's solver with fewer settings to choose."""

    def __init__(self, momentum=0.8):
        super().__init__(momentum=momentum, batch_size=50)


class Renamed(SGD):
    """A user's solver with a setting of another name."""

    def __init__(self, eta0=0.05):
        self.eta0 = eta0
        super().__init__(learning_rate_init=eta0)


class Fixed(Adam):
    """A user's solver without settings, whose ``__init__`` is all its own."""

    def __init__(self):
        self.beta_1 = 0.8


USERS = {
    "narrow": (Narrow(), SGD(momentum=0.8, batch_size=50)),
    "renamed": (Renamed(), SGD(0.05)),
    "fixed": (Fixed(), Adam(beta_1=0.8)),
}


@pytest.mark.parametrize(
    ("model", "solvers", "early_stopping"),
    covering(dict(zip(NAMES, [*LINEAR, *DEEP], strict=True)), USERS, [False, True]),
)
def test_a_solver_of_a_users_has_the_settings_of_its_base(model, solvers, early_stopping):
    own, plain = solvers
    params = {"max_iter": 3, "early_stopping": early_stopping, "random_state": 0}
    one, other = (clone(model).set_params(solver=solver, **params).fit(X, Y) for solver in (own, plain))
    np.testing.assert_array_equal(one.decision_function(X), other.decision_function(X))
    for fitted, known in zip(*(getattr(m, "estimators_", [m]) for m in (one, other)), strict=True):
        assert type(fitted.solver) is type(own)
        copied, expected = settings_of(clone(fitted)), settings_of(known)
        assert all(getattr(copied, field.name) == getattr(expected, field.name) for field in fields(plain))


def test_what_a_solver_of_a_users_makes_of_its_settings_is_looked_at():
    with pytest.raises(ValueError, match=r"'learning_rate_init' parameter of Renamed must be .* Got -1.0"):
        SoftmaxClassifier(solver=Renamed(-1.0)).fit(X, Y)


@in_one_test("solver", [SGD, None, 5, "sdg", SGD.options])
@pytest.mark.parametrize("model", [*LINEAR, *DEEP], ids=NAMES)
def test_what_is_no_solver_is_refused_in_public_words(model, solver):
    told = rf"'solver' parameter of {type(model).__name__} must be a str .* or an object such as skdeep.SGD\(\)\. Got"
    with pytest.raises(ValueError, match=told):
        clone(model).set_params(solver=solver).fit(X, Y)


def test_a_parameter_that_is_not_there_is_missed_on_the_class_that_was_called():
    for model in LINEAR:
        with pytest.raises(TypeError, match=rf"{type(model).__name__}.__init__\(\) got an unexpected .*'momentum'"):
            type(model)(momentum=0.5)


@pytest.mark.parametrize(
    "estimator, density, rate",
    [
        (SoftmaxClassifier(), 1.0, 0.005),
        (HingeClassifier(calibration=None), 1.0, 0.005),
        (SoftmaxClassifier(), 0.1, 0.01),
        (SigmoidClassifier(), 1.0, 0.01),
    ],
)
def test_adam_moves_scores_of_rivals_less_where_rows_have_many_values(estimator, density, rate):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 400)), np.arange(60) % 3
    X = X if density == 1 else sparse.csr_array(X * (rng.random(X.shape) < density))
    ours, given = (
        clone(estimator).set_params(solver=solver, max_iter=2, random_state=0).fit(X, y)
        for solver in (Adam(), Adam(rate))
    )
    np.testing.assert_allclose(ours.loss_curve_, given.loss_curve_, rtol=1e-9)
