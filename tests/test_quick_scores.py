"""Scores without checks: scikit-learn's values, or its own function."""

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import LeastSquaresClassifier, SoftmaxClassifier
from skdeep.model_selection.quick_scores import _WAYS, _WAYS_OF_VALUES, QuickScorers, quick_scores

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
    "drawn": (DummyClassifier(strategy="uniform", random_state=0), IRIS, IRIS_Y, slice(0, 60)),
    "single precision": (TWO, CANCER.astype(np.float32), CANCER_Y, slice(0, 60)),
    "numbers": (TWO, CANCER, CANCER_Y * 1.0, slice(0, 60)),
    "pipeline": (make_pipeline(StandardScaler(), TWO), CANCER, CANCER_Y, slice(0, 60)),
    "regressor": (LinearRegression(), IRIS, IRIS_Y, slice(0, 60)),
    "no probabilities": (LeastSquaresClassifier(), IRIS, IRIS_Y, slice(None, None, 3)),
}


def scorers_of(*names):
    return QuickScorers({name: get_scorer(name) for name in names}, {name: name for name in names})


@pytest.mark.filterwarnings("ignore")  # of a model that is not at its optimum, and of what scikit-learn warns of
@pytest.mark.parametrize("case", CASES)
def test_scores_are_scikit_learns(case):
    model, X, y, test = CASES[case]
    model = model.fit(X, y)
    together = scorers_of(*_WAYS, "f1_micro")(model, X[test], y[test])
    assert list(together) == [*_WAYS, "f1_micro"]
    for name, score in together.items():
        try:
            expected = get_scorer(name)(model, X[test], y[test])
        except (ValueError, AttributeError) as error:
            expected = str(error)
        for found in (score, scorers_of(name)(model, X[test], y[test])[name]):
            if isinstance(expected, str):
                assert expected in found, name  # which is the error's traceback
            else:
                assert found == pytest.approx(expected, rel=1e-13, abs=1e-13, nan_ok=True), name


@pytest.mark.parametrize("case", ["three", "two", "names", "objects", "booleans", "pipeline"])
def test_plain_scores_take_the_short_way(case):
    pd = pytest.importorskip("pandas")
    model, X, y, _ = CASES[case]
    model = model.fit(X, y)
    names = {name: name for name in _WAYS if name != "roc_auc" or case not in ("three", "names", "objects")}
    for labels in (y, pd.Series(y)):
        assert quick_scores(names, model, X, labels).keys() == names.keys()


def test_scores_of_many_ties_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    y, values = rng.integers(2, size=80), rng.integers(5, size=80) / 4.0

    class Given:
        classes_ = np.arange(2)

        def decision_function(self, X):
            return X[:, 0]

    above = np.sign(values[y == 1][:, None] - values[y == 0]) / 2 + 0.5
    found = quick_scores({"area": "roc_auc", "share": "accuracy"}, Given(), values[:, None], y)
    assert found == {"area": pytest.approx(above.mean())}  # and there are no predictions
    values[3] = np.nan
    assert quick_scores({"area": "roc_auc"}, Given(), values[:, None], y) == {}


def test_each_answer_is_asked_for_once():
    class Counting(SoftmaxClassifier):
        asked = ()

        def predict(self, X):
            Counting.asked += ("predict",)
            return super().predict(X)

        def predict_proba(self, X):
            Counting.asked += ("predict_proba",)
            return super().predict_proba(X)

    model = Counting().fit(IRIS, IRIS_Y)
    scorers_of("accuracy", "f1_macro", "roc_auc_ovr", "neg_log_loss", "balanced_accuracy")(model, IRIS, IRIS_Y)
    assert sorted(Counting.asked) == ["predict", "predict_proba"]


def test_weights_and_what_there_is_no_short_way_for_are_left_to_scikit_learn():
    model = SoftmaxClassifier().fit(IRIS, IRIS_Y)
    weight = np.arange(150.0)
    found = scorers_of("accuracy", "jaccard_macro")(model, IRIS, IRIS_Y, sample_weight=weight)
    for name, score in found.items():
        assert score == get_scorer(name)(model, IRIS, IRIS_Y, sample_weight=weight)
    assert quick_scores({"any": "accuracy"}, model, IRIS, IRIS_Y.tolist()) == {}
    assert quick_scores({"any": "accuracy"}, model, IRIS, IRIS_Y + 1) == {}  # 3 is none of its classes


NAMES_OF_VALUES = [*_WAYS_OF_VALUES, "neg_median_absolute_error"]


@pytest.mark.parametrize(
    "target",
    [
        CANCER[:, 0],
        CANCER[:, 0].astype(np.float32) + 1e4,
        np.arange(569),
        np.ones(569),
        np.stack([CANCER[:, 0], CANCER[:, 2]], 1),
    ],
)
def test_scores_of_values_are_scikit_learns(target):
    pd = pytest.importorskip("pandas")
    model = LinearRegression().fit(CANCER[:, 3:9], target)
    frame = pd.Series(target) if target.ndim == 1 else target
    for y in (target[:90], frame[:90]):
        for name, score in scorers_of(*NAMES_OF_VALUES)(model, CANCER[:90, 3:9], y).items():
            assert score == pytest.approx(get_scorer(name)(model, CANCER[:90, 3:9], y), rel=1e-13)
        names = {name: name for name in _WAYS_OF_VALUES}
        quick = quick_scores(names, model, CANCER[:90, 3:9], y)
        plain = [name for name in names if target.ndim == 1 and (name != "r2" or np.ptp(target))]
        assert list(quick) == plain, "what has no plain answer is left to scikit-learn"


def test_a_regressor_is_asked_once_for_all_scores():
    asked = []

    class Counting(LinearRegression):
        def predict(self, X):
            asked.append(len(X))
            return super().predict(X)

    model = Counting().fit(CANCER[:, 1:], CANCER[:, 0])
    scorers_of(*_WAYS_OF_VALUES)(model, CANCER[:50, 1:], CANCER[:50, 0])
    assert asked == [50]
