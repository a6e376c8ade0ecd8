"""Solvers that are objects: what they mean, and what is said where a setting has no place."""

import numpy as np
import pytest
from helpers import linear_module
from sklearn.base import clone
from sklearn.datasets import load_iris

from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.fitting.settings import SOLVERS
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


def test_a_parameter_that_is_not_there_is_missed_on_the_class_that_was_called():
    for model in LINEAR:
        with pytest.raises(TypeError, match=rf"{type(model).__name__}.__init__\(\) got an unexpected .*'momentum'"):
            type(model)(momentum=0.5)
