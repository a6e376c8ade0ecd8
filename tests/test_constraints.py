"""What classes say once: which values parameters may have, and sections of docstrings."""

import inspect
import re

import pytest
from sklearn.utils._param_validation import InvalidParameterError

import skdeep
from skdeep.fitting.constraints import Constrained, ObjectOf
from skdeep.fitting.document import document
from skdeep.fitting.settings import SGD, Solver

PUBLIC = [value for name in skdeep.__all__ if inspect.isclass(value := getattr(skdeep, name))]


class Base(Constrained):
    _parameter_constraints = {"a": [int], "b": [int]}


class Left(Base):
    _parameter_constraints = {"a": [str]}


class Right(Base):
    _parameter_constraints = {"c": [float]}


class Plain:  # of somebody who knows nothing of it
    _parameter_constraints = {"b": [None]}


def test_constraints_are_those_of_the_nearest_base():
    class Both(Right, Left):
        pass

    class Mixed(Plain, Left):
        _parameter_constraints = {"d": [bool]}

    class Without(Both):
        _dropped = ("b",)

    assert Both._parameter_constraints == {"a": [str], "b": [int], "c": [float]}
    assert Mixed._parameter_constraints == {"a": [str], "b": [None], "d": [bool]}
    assert Without._parameter_constraints == {"a": [str], "c": [float]}
    assert Base._parameter_constraints == {"a": [int], "b": [int]}


def test_a_class_is_no_object_with_settings():
    constraint = ObjectOf(Solver, "options", "SGD()")
    assert constraint.is_satisfied_by(SGD()) and not constraint.is_satisfied_by(SGD)
    assert str(constraint) == "an object such as SGD()"


def test_a_user_adds_a_parameter_of_their_own():
    class Mine(skdeep.SoftmaxClassifier):
        _parameter_constraints = {"mine": [str]}

        def __init__(self, mine="yes", alpha="auto"):
            super().__init__(alpha=alpha)
            self.mine = mine

    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]
    with pytest.raises(InvalidParameterError, match="'mine' parameter of Mine"):
        Mine(mine=1).fit(X, y)
    with pytest.raises(InvalidParameterError, match="'alpha' parameter of Mine"):
        Mine(alpha=-1.0).fit(X, y)


@pytest.mark.parametrize("name", ["LinearRegressor", "MLPRegressorTorch", "MLPEnsembleRegressor"])
def test_regressors_have_no_calibrated_loss(name):
    with pytest.raises(InvalidParameterError, match="'scoring'"):
        getattr(skdeep, name)(scoring="calibrated_loss").fit([[0.0], [1.0]], [0.0, 1.0])


def test_sections_take_the_place_of_their_names():
    @document(some="a : int\n    One.", more="unused")
    class Documented:
        """Do it.

        Parameters
        ----------
        {some}
        b : set
            Of {some}.
        """

    text = inspect.cleandoc(Documented.__doc__)
    assert text.endswith("----------\na : int\n    One.\nb : set\n    Of {some}.")
    with pytest.raises(KeyError, match="some"):
        document()(type("Other", (), {"__doc__": "Do it.\n\n{some}"}))


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_no_section_is_left_out(cls):
    for doc in (cls.__doc__, getattr(cls, "fit", cls).__doc__):
        assert doc and not re.search(r"^\s*\{\w+\}$", doc, re.MULTILINE)
