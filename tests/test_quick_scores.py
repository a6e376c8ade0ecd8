"""Scores without checks: scikit-learn's values, or its own function."""

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y
from sklearn.dummy import DummyClassifier
from sklearn.metrics import get_scorer

from skdeep import LeastSquaresClassifier, SoftmaxClassifier
from skdeep.model_selection.quick_scores import _WAYS, quick_scorer

NAMES = np.array(["a", "b", "c"])
THREE, TWO = SoftmaxClassifier(max_iter=2), SoftmaxClassifier(max_iter=2)
#: Classifier, rows to train on and to judge, and what makes a difference there.
CASES = {
    "three": (THREE, IRIS, IRIS_Y, slice(None, None, 2)),
    "two": (TWO, CANCER, CANCER_Y, slice(None, None, 3)),
    "names": (THREE, IRIS, NAMES[IRIS_Y], slice(None, None, 2)),
    "objects": (THREE, IRIS, NAMES[IRIS_Y].astype(object), slice(None, None, 2)),
    "booleans": (TWO, CANCER, CANCER_Y > 0, slice(None, 50)),
    "a class without a row": (THREE, IRIS, IRIS_Y, slice(0, 70)),
    "one class": (TWO, CANCER, CANCER_Y, np.flatnonzero(CANCER_Y)[:9]),
    "ties": (DummyClassifier(), CANCER, CANCER_Y, slice(0, 60)),
    "single precision": (TWO, CANCER.astype(np.float32), CANCER_Y, slice(0, 60)),
}


@pytest.mark.filterwarnings("ignore")  # of a model that is not at its optimum, and of what scikit-learn warns of
@pytest.mark.parametrize("case", CASES)
def test_scores_are_scikit_learns(case):
    model, X, y, test = CASES[case]
    model = model.fit(X, y)
    for name in _WAYS:
        outcomes = []
        for scorer in (get_scorer(name), quick_scorer(name)):
            try:
                outcomes.append(scorer(model, X[test], y[test]))
            except ValueError as error:
                outcomes.append(str(error))
        expected, found = outcomes
        if isinstance(expected, str) or np.isnan(expected):
            assert str(found) == str(expected), name
        else:
            assert found == pytest.approx(expected, rel=1e-13, abs=1e-13), name


def test_scores_of_many_ties_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    y, values = rng.integers(2, size=80), rng.integers(5, size=80) / 4.0
    above = np.sign(values[y == 1][:, None] - values[y == 0]) / 2 + 0.5
    assert _WAYS["roc_auc"][1](y, values) == pytest.approx(above.mean())


def test_what_there_is_no_short_way_for_is_left_to_scikit_learn():
    assert quick_scorer("f1_weighted") is None
    model = LeastSquaresClassifier().fit(IRIS, IRIS_Y)
    scorer = quick_scorer("accuracy")
    assert scorer(model, IRIS, IRIS_Y.tolist()) == get_scorer("accuracy")(model, IRIS, IRIS_Y)
    nothing = np.where(np.arange(150) == 7, np.nan, model.decision_function(IRIS)[:, 0])
    assert _WAYS["roc_auc"][1](IRIS_Y > 0, nothing) is None
    assert _WAYS["neg_log_loss"][1](IRIS_Y, np.full((150, 3), 0.5)) is None
