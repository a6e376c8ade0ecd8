"""The penalty of linear classifiers on sparse rows that are short, as tf-idf's are: ``alpha="auto"``."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV as AnySearch

from skdeep import HingeClassifier, LinearRegressor, SigmoidClassifier, SoftmaxClassifier
from skdeep.data.columns import Columns
from skdeep.engine.rows import SparseRows
from skdeep.model_selection import GridSearchCV

RNG = np.random.default_rng(0)
N, D = 60, 25
X = sparse.random(N, D, 0.2, format="csr", random_state=0)
Y = np.argmax(X @ RNG.normal(size=(D, 3)) + 0.2 * RNG.normal(size=(N, 3)), axis=1)
WEIGHT = RNG.integers(0, 4, N).astype(float)
#: With the strength of the penalty, times the rows, and the squared length of full rows.
MODELS = {
    "softmax": (SoftmaxClassifier(tol=1e-10), 1.0, 10.0),
    "l1": (SoftmaxClassifier("l1", tol=1e-6), 1.0, 10.0),
    "sigmoid": (SigmoidClassifier(tol=1e-10), 1.0, 10.0),
    "hinge": (HingeClassifier(calibration=None, tol=1e-6), 5.0, 5.0),
}


def square(X, weight):
    """The mean squared length of rows."""
    return np.average(np.asarray(X.multiply(X).sum(1)).ravel(), weights=weight)


def same(a, b, atol=1e-5):
    np.testing.assert_allclose(a.coef_, b.coef_, atol=atol)
    np.testing.assert_allclose(a.intercept_, b.intercept_, atol=atol)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("name", MODELS)
def test_the_penalty_follows_the_length_of_rows(name, scale, weight):
    model, times, full = MODELS[name]
    rows = X * scale
    total = N if weight is None else weight.sum()
    part = min(1.0, square(rows, weight) / full)
    alpha = times / total * (np.sqrt(part) if name == "l1" else part)
    assert (part == 1) == (scale == 30)
    found, given = clone(model).fit(rows, Y, weight), clone(model).set_params(alpha=alpha).fit(rows, Y, weight)
    same(found, given, 1e-3 * np.abs(given.coef_).max() if name in ("l1", "hinge") else 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_repetitions(name):
    model = MODELS[name][0]
    repeated = np.repeat(np.arange(N), WEIGHT.astype(int))
    weighted, again = clone(model).fit(X, Y, WEIGHT), clone(model).fit(X[repeated], Y[repeated])
    same(weighted, again, 1e-3 * np.abs(again.coef_).max())


def test_others_count_as_they_are():
    """Squared hinges, as LinearSVC's; regressors; dense columns, and a strength that is given."""
    squared = HingeClassifier("squared_hinge", calibration=None, tol=1e-8)
    same(clone(squared).fit(X, Y), clone(squared).set_params(alpha=1 / N).fit(X, Y))
    regressor = LinearRegressor(tol=1e-10)
    target = X @ RNG.normal(size=D)
    same(clone(regressor).fit(X, target), clone(regressor).set_params(alpha=1 / N).fit(X, target))
    as_they_are = SoftmaxClassifier(tol=1e-10, standardize=False)
    same(clone(as_they_are).fit(X, Y), clone(as_they_are).set_params(alpha=1 / N).fit(X, Y))


def test_a_search_has_what_models_alone_have():
    grid = {"alpha": ["auto", 0.01], "tol": [1e-9]}
    ours, theirs = (search(SoftmaxClassifier(), grid, cv=3).fit(X, Y) for search in (GridSearchCV, AnySearch))
    for split in range(3):
        key = f"split{split}_test_score"
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-9)


def test_parts_add_up():
    """Of rows that come in calls of `partial_fit`, or lie in several processes."""
    rows = SparseRows(sparse.csr_array(X), torch.device("cpu"), torch.float64)
    index = RNG.permutation(N)
    parts = [Columns.measure(rows, part, WEIGHT) for part in np.split(index, [7, 30])]
    together = parts[0].merged(parts[1]).merged(parts[2])
    assert together.square == pytest.approx(square(X, WEIGHT), rel=1e-13)
    assert together.weight == pytest.approx(WEIGHT.sum())
    assert Columns.measure(rows, None, None).square == pytest.approx(square(X, None), rel=1e-13)


def test_texts_are_told_apart():
    """At ``C=1``, tf-idf rows are so short that the more frequent class is nearly all that is predicted."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(300)])
    labels = (np.arange(480) % 5 == 0).astype(int)
    texts = [" ".join(rng.choice(words[120 * label : 120 * label + 180], 8)) for label in labels]
    rows = TfidfVectorizer().fit_transform(texts)
    train, test = np.arange(80), np.arange(80, 480)
    for model, times in ((SoftmaxClassifier(), 1), (HingeClassifier(), 5)):
        given = clone(model).set_params(alpha=times / 80)
        auto, given = (m.fit(rows[train], labels[train]) for m in (clone(model), given))
        of_auto, of_given = (log_loss(labels[test], m.predict_proba(rows[test])) for m in (auto, given))
        assert of_auto < of_given - 0.02 and auto.score(rows[test], labels[test]) > given.score(
            rows[test], labels[test]
        )
    counts = CountVectorizer(binary=True).fit_transform(texts + [" ".join(words)] * 30)  # long rows
    labels = np.r_[labels, np.ones(30, dtype=int)]
    same(
        SoftmaxClassifier(tol=1e-10).fit(counts, labels),
        SoftmaxClassifier(alpha=1 / len(labels), tol=1e-10).fit(counts, labels),
    )
