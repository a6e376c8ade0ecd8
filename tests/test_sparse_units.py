"""The units of the penalty on sparse columns: ``alpha="auto"``."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV as AnySearch

from skdeep import HingeClassifier, LinearRegressor, SigmoidClassifier, SoftmaxClassifier
from skdeep.data import categories, scaling
from skdeep.data.columns import Columns
from skdeep.data.scaling import UnitsOfWeights, units_of_sparse
from skdeep.engine.rows import SparseRows
from skdeep.model_selection import GridSearchCV

RNG = np.random.default_rng(0)
N, D = 60, 25
#: Values of several sizes; the last columns are zero in few rows or none.
X = sparse.random(N, D, 0.2, format="csr", random_state=0)
X = X.multiply(RNG.lognormal(size=D)).tolil()
X[:, -3:] = np.where(RNG.random((N, 3)) < [0.9, 1, 1], RNG.normal(3, 1, (N, 3)), 0) * [1e-3, 1, 100]
X = X.tocsr()
MEAN = np.asarray(X @ RNG.normal(size=(D, 3)) / 3)
MEAN -= MEAN.mean(0)
Y, VALUES = np.argmax(MEAN, axis=1), MEAN[:, 0] + 0.2 * RNG.normal(size=N)
WEIGHT = RNG.integers(0, 4, N).astype(float)
#: With the strength of the penalty, times the rows, and the power of the length of rows in the units.
MODELS = {
    "softmax": (SoftmaxClassifier(tol=1e-10), 1, 0),
    "l1": (SoftmaxClassifier("l1", tol=1e-6), 1, 0),
    "sigmoid": (SigmoidClassifier(tol=1e-10), 1, 0),
    "hinge": (HingeClassifier("hinge", calibration=None, tol=1e-6), 5, 0),
    "squared hinge": (HingeClassifier("squared_hinge", calibration=None, tol=1e-8), 5, 0),
    "squares": (LinearRegressor(tol=1e-10), 1, 1),
    "squares, L1": (LinearRegressor(penalty="l1", tol=1e-6), 1, 1),
    "without an intercept": (LinearRegressor(fit_intercept=False, tol=1e-10), 1, 1),
    "poisson": (LinearRegressor("poisson", tol=1e-10), 1, 1),
    "absolute": (LinearRegressor("absolute_error", tol=1e-6), 1, 1),
}


def target_of(model):
    """Labels, or values in the unit that they are trained in, in which a given strength is what "auto" is."""
    if not isinstance(model, LinearRegressor):
        return Y
    if model.loss == "poisson":
        counts = np.floor(np.exp(VALUES / 2) * 3)
        return counts / counts.mean()
    return (VALUES - VALUES.mean()) / (VALUES.std() if model.loss == "squared_error" else 1.0)


def units(X, weight, centered, power):
    """The formula."""
    weight = np.ones(X.shape[0]) if weight is None else weight
    Z, share = X.toarray(), weight / weight.sum()
    filled = share @ (Z != 0)
    square = share @ Z**2 - (share @ Z) ** 2 if centered else share @ Z**2
    size = np.sqrt(square / filled)
    partly = filled * (1 - filled)
    typical = np.exp(partly @ np.log(size) / partly.sum())
    kind = 3 ** (1 - filled)
    return np.clip(typical, size / kind, size * kind) * (1 + partly.sum()) ** (power / 2)


def same(a, b, atol=1e-5):
    np.testing.assert_allclose(a.coef_, b.coef_, atol=atol)
    np.testing.assert_allclose(a.intercept_, b.intercept_, atol=atol)


#: All but where targets have another unit: of absolute errors, and with weights.
CASES = [(name, None) for name in MODELS if name != "absolute"]
CASES += [(name, WEIGHT) for name, (model, *_) in MODELS.items() if not isinstance(model, LinearRegressor)]


@pytest.mark.parametrize("name, weight", CASES, ids=[f"{name}{', weighted' * (w is not None)}" for name, w in CASES])
def test_units_are_those_of_the_formula(name, weight):
    model, times, power = MODELS[name]
    sizes = units(X, weight, model.fit_intercept, power)
    alpha = times / (N if weight is None else weight.sum())
    found = clone(model).fit(X, target_of(model), weight)
    given = clone(model).set_params(alpha=alpha).fit(X / sizes, target_of(model), weight)
    coef = given.coef_ / sizes
    unit = 1e-3 if model.penalty == "l1" or name == "hinge" else 1e-5
    np.testing.assert_allclose(found.coef_ * sizes, coef * sizes, atol=unit * np.abs(given.coef_).max())


@pytest.mark.parametrize("name", MODELS)
def test_filled_columns_have_the_units_of_dense_ones(name):
    """A regression of Poisson's loss had an R² of .17 for .99."""
    model = MODELS[name][0]
    Z = RNG.normal(0.5, 1, (N, 4)) * [1e-3, 0.1, 1, 100]
    of_rows, of_dense = (clone(model).fit(rows, target_of(model)) for rows in (sparse.csr_array(Z), Z))
    sizes = Z.std(0)
    np.testing.assert_allclose(of_rows.coef_ * sizes, of_dense.coef_ * sizes, atol=2e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_unit_of_all_columns_is_no_matter(name):
    model = MODELS[name][0]
    one, other = (clone(model).fit(X * scale, target_of(model)) for scale in (1.0, 2.0**-10))
    unit = 1e-3 * np.abs(one.coef_).max() if MODELS[name][0].penalty == "l1" or "hinge" in name else 1e-6
    np.testing.assert_allclose(other.coef_ / 2**10, one.coef_, atol=unit)


@pytest.mark.parametrize("centered, power", [(True, 0.0), (False, 1.0)])
def test_units_of_many_weights_are_those_of_each(centered, power, monkeypatch):
    far = X[:, [-1]].toarray() + 1e6
    rows = sparse.csr_array(sparse.hstack([X, 0 * X[:, [0]], 0 * far + 7, far]))  # void, constant
    rows.data[0] = 0.0  # stored all the same
    weights, count = RNG.integers(0, 3, (5, N)) * RNG.random(N), RNG.integers(1, 4, rows.shape[1])
    columns = Columns.of_models(rows, [None] * 5, list(weights))
    each = units_of_sparse(columns, centered, np.full(5, power), False, count)
    monkeypatch.setattr(scaling, "_FEW_VALUES", 2 * N)  # two at a time
    np.testing.assert_allclose(UnitsOfWeights(rows, centered, power, count)(weights), each, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_repetitions(name):
    model = MODELS[name][0]
    repeated = np.repeat(np.arange(N), WEIGHT.astype(int))
    target = target_of(model)
    weighted, again = clone(model).fit(X, target, WEIGHT), clone(model).fit(X[repeated], target[repeated])
    same(weighted, again, 1e-3 * np.abs(again.coef_).max())


def test_columns_as_they_are():
    as_they_are = SoftmaxClassifier(tol=1e-10, standardize=False)
    same(clone(as_they_are).fit(X, Y), clone(as_they_are).set_params(alpha=1 / N).fit(X, Y))


def test_levels_in_sparse_rows_are_what_they_are_in_dense_ones(monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.choice(list("uvwxyz"), 80), "b": rng.normal(2, 0.01, 80) * (rng.random(80) < 0.5)})
    table["a"] = table["a"].astype("category")
    y = (table["a"].cat.codes % 2 + 100 * table["b"] / 2 + rng.normal(size=80) > 50).to_numpy().astype(int)
    of_dense = SoftmaxClassifier(tol=1e-10).fit(table, y)
    monkeypatch.setattr(categories, "_DENSE_VALUES", 0)
    of_sparse = SoftmaxClassifier(tol=1e-10).fit(table, y)
    np.testing.assert_allclose(of_sparse.decision_function(table), of_dense.decision_function(table), atol=1e-6)


@pytest.mark.parametrize("model", [SoftmaxClassifier(), LinearRegressor()], ids=["classes", "values"])
def test_a_search_has_what_models_alone_have(model):
    grid = {"alpha": ["auto", 0.01], "tol": [1e-9]}
    ours, theirs = (search(model, grid, cv=3).fit(X, target_of(model)) for search in (GridSearchCV, AnySearch))
    for split in range(3):
        key = f"split{split}_test_score"
        np.testing.assert_allclose(ours.cv_results_[key], theirs.cv_results_[key], atol=1e-9)


def test_parts_add_up():
    """Of rows that come in calls of `partial_fit`, or lie in several processes."""
    rows = SparseRows(sparse.csr_array(X), torch.device("cpu"), torch.float64)
    index = RNG.permutation(N)
    parts = [Columns.measure(rows, part, WEIGHT) for part in np.split(index, [7, 30])]
    together, whole = parts[0].merged(parts[1]).merged(parts[2]), Columns.measure(rows, None, WEIGHT)
    values = np.where(X.toarray() == 0, np.nan, X.toarray())
    for d in range(D):
        known = ~np.isnan(values[:, d])
        w, v = WEIGHT[known], values[known, d]
        mean = np.average(v, weights=w)
        expected = w.sum(), WEIGHT.sum() - w.sum(), mean, np.sqrt(np.average((v - mean) ** 2, weights=w))
        for found in (together, whole):
            measured = found.weight[d], found.missing[d], found.mean[d], found.deviation[d]
            np.testing.assert_allclose(measured, expected, rtol=1e-9, atol=1e-12)


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
