"""Categorical tables: what is held out inside a fit must not cost what it is there for."""

import functools
import warnings

import numpy as np
import pytest
from helpers import covering
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer, zero_one_loss
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

from skdeep import (
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The scores of rows:UserWarning"),  # of middle classes, by Platt's sigmoid
]

SMALL = {"max_iter": 60, "learning_rate_init": 0.03, "random_state": 0}
ESTIMATORS = {
    "hinge, temperature": HingeClassifier(random_state=0),
    "hinge, sigmoid": HingeClassifier(calibration="sigmoid", random_state=0),
    "squared hinge": HingeClassifier("squared_hinge", random_state=0),
    "hinge, early stopping": HingeClassifier(early_stopping=True, random_state=0),
    "least squares, temperature": LeastSquaresClassifier(calibration="temperature", random_state=0),
    "least squares, sigmoid": LeastSquaresClassifier(calibration="sigmoid", random_state=0),
    "softmax, temperature": SoftmaxClassifier(calibration="temperature", random_state=0),
    "softmax, early stopping": SoftmaxClassifier(early_stopping=True, random_state=0),
    "sigmoid, early stopping": SigmoidClassifier(early_stopping=True, scoring="loss", solver="sgd", random_state=0),
    "network, temperature": MLPClassifierTorch((8,), calibration="temperature", **SMALL),
    "network, early stopping": MLPClassifierTorch((8,), early_stopping=True, **SMALL),
    "ensemble": MLPEnsembleClassifier(random_state=0),
}


def two_cells():
    return np.array([[0.0], [0], [1], [1]]), np.array([0, 1, 0, 1]), np.array([45, 5, 5, 45])


def questions():
    """Three questions of yes or no: eight cells."""
    cells = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(-1, 3)
    p = 1 / (1 + np.exp(-(cells - 0.5) @ [2.0, -1.0, 1.5]))
    counts = np.round(np.outer([40, 25, 30, 20, 35, 15, 45, 50], 1) * np.c_[1 - p, p])
    return cells.repeat(2, 0), np.tile([0, 1], 8), counts.ravel()


def colours():
    """A category of four values, and three classes."""
    counts = np.array([[40, 8, 2], [5, 60, 5], [10, 10, 30], [20, 18, 22]])
    X = OneHotEncoder(sparse_output=False).fit_transform(np.arange(4)[:, None])
    return X.repeat(3, 0), np.tile([0, 1, 2], 4), counts.ravel()


TABLES = {"two cells": two_cells, "questions": questions, "colours": colours}


@functools.cache
def reference(table, name):
    """What linear models reach; a hinge, which has other scores, is compared with itself calibrated by scikit-learn."""
    X, y, counts = TABLES[table]()
    X, y, model = X.repeat(counts.astype(int), 0), y.repeat(counts.astype(int)), ESTIMATORS[name]
    models = [LogisticRegression(), CalibratedClassifierCV(LinearSVC())]
    best = min(log_loss(y, model.fit(X, y).predict_proba(X)) for model in models)
    if not isinstance(model, HingeClassifier):
        return best
    plain = clone(model).set_params(calibration=None, early_stopping=False)
    theirs = CalibratedClassifierCV(plain, method=model.calibration)
    return max(best, log_loss(y, theirs.fit(X, y).predict_proba(X)))


@pytest.mark.parametrize(
    ("name", "table", "form"), covering(ESTIMATORS.keys(), TABLES.keys(), ["rows", "weighted rows"])
)
def test_as_good_as_without_holding_out(name, table, form):
    X, y, counts = TABLES[table]()
    counts = counts.astype(int)
    rows = X.repeat(counts, 0), y.repeat(counts)
    model = clone(ESTIMATORS[name])
    model.fit(*rows) if form == "rows" else model.fit(X, y, sample_weight=counts)
    p = model.predict_proba(rows[0])
    assert log_loss(rows[1], p) < 1.05 * reference(table, name)
    majority = np.array([np.bincount(y[(X == x).all(1)], counts[(X == x).all(1)]).argmax() for x in X])
    assert (model.predict(X) == majority).mean() > 0.8


@pytest.mark.parametrize("name", ESTIMATORS)
def test_weights_that_sum_to_one(name):
    """They say less, in a linear model with a penalty and by Platt's targets, but not the opposite."""
    X, y, counts = two_cells()
    p = clone(ESTIMATORS[name]).fit(X, y, sample_weight=counts / counts.sum()).predict_proba([[0.0], [1.0]])[:, 1]
    assert p[0] < 0.45
    assert p[1] > 0.55


def few_rows(seed, n=50):
    """Two questions with three answers each, and what the answer to a third depends on."""
    generator = np.random.default_rng(seed)
    answers, effects = generator.integers(0, 3, (n, 2)), generator.normal(0, 0.8, (2, 3))
    p = 1 / (1 + np.exp(-effects[0][answers[:, 0]] - effects[1][answers[:, 1]]))
    return np.eye(3)[answers].reshape(n, -1), (generator.random(n) < p).astype(int), p


def risk(model, X, y, p):
    """The expected log-loss of new answers to the same questions."""
    q = model.fit(X, y).predict_proba(X)[:, 1]
    return -(p * np.log(q) + (1 - p) * np.log1p(-q)).mean()


@functools.cache
def risks_of_logistic_regression():
    return [risk(CalibratedClassifierCV(LogisticRegression()), *few_rows(seed)) for seed in range(6)]


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if "early" not in name])
def test_cells_of_few_rows(name):
    """A model follows the five rows of a cell; a calibration sees that only in rows that the model was not given."""
    own = [risk(clone(ESTIMATORS[name]), *few_rows(seed)) for seed in range(6)]
    assert np.mean(own) < 1.05 * np.mean(risks_of_logistic_regression())


def test_out_of_fold_probabilities_of_divided_rows():
    """Each observation is judged by the members that have not seen it, and copies of a row are judged alike."""
    X, y, counts = two_cells()
    X, y = X.repeat(counts, 0), y.repeat(counts)
    model = clone(ESTIMATORS["ensemble"]).fit(X, y)
    assert model.oof_score_ == pytest.approx(0.9)
    np.testing.assert_allclose(model.oof_proba_, model.predict_proba(X), atol=0.1)
    assert len(np.unique(model.oof_proba_.round(12), axis=0)) == 4


@pytest.mark.parametrize("weighted", [False, True])
def test_scorers_get_the_weights_of_divided_rows_if_they_take_any(weighted):
    X, y, counts = two_cells()
    X, y = np.r_[X.repeat(counts, 0), 2.0 + np.arange(20)[:, None] / 20], np.r_[y.repeat(counts), np.arange(20) % 2]
    seen = []

    def plain(estimator, X, y):
        seen.append((X, None))
        return float((estimator.predict(X) == y).mean())

    def with_weights(estimator, X, y, sample_weight=None):
        seen.append((X, sample_weight))
        return float(np.average(estimator.predict(X) == y, weights=sample_weight))

    model = SoftmaxClassifier(early_stopping=True, solver="sgd", max_iter=2, random_state=0)
    model.set_params(scoring=with_weights if weighted else plain).fit(X, y)
    held_out, weight = seen[0]
    if weighted:
        assert weight.sum() == pytest.approx(12, abs=1)
        np.testing.assert_array_equal(weight, np.where(held_out[:, 0] < 2, 0.1, 1.0))
    model.set_params(scoring=make_scorer(lambda y, p: -zero_one_loss(y, p))).fit(X, y)


@pytest.mark.parametrize("counts", [[98, 14, 10, 87, 11, 68, 98, 14], [110, 15, 4, 17, 22, 120, 102, 10]])
def test_the_accuracy_of_few_cells_is_no_reason_to_stop(counts):
    """By chance, a cell counts as right before anything is learnt of it: training ended there, at .63 for .43."""
    X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    rows, y, p = X.repeat(2, 0), np.tile([0, 1], 4), np.where(X[:, 0] == X[:, 1], 0.15, 0.85)
    losses = []
    for early_stopping in (True, False):
        model = MLPClassifierTorch(early_stopping=early_stopping, random_state=0)
        q = model.fit(rows, y, sample_weight=np.array(counts, dtype=float)).predict_proba(X)[:, 1]
        losses.append(-np.mean(p * np.log(q) + (1 - p) * np.log(1 - q)))
    assert losses[0] < 1.05 * losses[1]


@pytest.mark.filterwarnings("ignore:All coefficients are zero at the optimum")
@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
@pytest.mark.parametrize("cls", [HingeClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("count", [3, 1000])
def test_a_rare_class_of_one_cell(cls, calibration, count):
    """Sixty kinds of rows, each of them often: the one with the rare class is among the rows that are held out."""
    X, y = np.random.default_rng(0).normal(size=(60, 2)), (np.arange(60) == 0).astype(int)
    model = cls(calibration=calibration, random_state=0).fit(X, y, sample_weight=np.full(60, float(count)))
    of_frequencies = log_loss(y, np.tile([59 / 60, 1 / 60], (60, 1)))
    repeated = clone(model).set_params(calibration=None), np.repeat(X, min(count, 50), 0), np.repeat(y, min(count, 50))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y has only 3 members")
        theirs = CalibratedClassifierCV(repeated[0], method=calibration).fit(*repeated[1:])
    # no class frequency is promised of scores that seem to rise with three answers, but what others make of them
    assert log_loss(y, model.predict_proba(X)) < 1.05 * max(of_frequencies, log_loss(y, theirs.predict_proba(X)))
