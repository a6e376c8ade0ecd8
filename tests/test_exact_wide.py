"""Least squares of more columns than rows, by systems of rows; and wide sparse tables, of which no matrix is formed."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, Ridge

from skdeep import LinearRegressor
from skdeep.exact import wide
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import Rows, SparseRows
from skdeep.fitting import solving
from skdeep.model_selection import GridSearchCV

RNG = np.random.default_rng(0)
N, D = 12, 30
X = RNG.normal(size=(N, D)) + 2.0
X[:, 4] = 0.0
Y = X[:, :3] @ RNG.normal(size=(3, 2)) + RNG.normal(size=(N, 2)) + 50.0
WEIGHT = np.array([RNG.integers(0, 3, N), np.ones(N)], dtype=float)
WEIGHT /= WEIGHT.sum(1, keepdims=True)
TOL = np.full(2, 1e-9)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("strength", [3.0, 1e-3, 1e-8])
def test_solutions_are_those_of_columns(strength, is_sparse, intercept):
    """Of two models with weights of their own, of which one is zero for some rows."""
    Z = np.hstack([X, np.ones((N, 1))]) if intercept else X
    rows = SparseRows(sparse.csr_array(X), intercept) if is_sparse else Rows(Z)
    rho = np.zeros((2, Z.shape[1]))
    rho[:, :D] = strength * np.array([[1.0], [0.1]]) * np.linspace(1, 2, D)
    found = wide.ridge(rows, SquaredLoss(Y.T), WEIGHT, rho, TOL)
    for k in range(2):
        root = np.sqrt(WEIGHT[k])[:, None]
        system, target = np.vstack([root * Z, np.diag(np.sqrt(rho[k]))]), np.vstack([root * Y, 0 * found.params[k].T])
        expected = np.linalg.lstsq(system, target)[0].T
        np.testing.assert_allclose(found.params[k], expected, rtol=1e-7, atol=1e-7)
        error = Z @ found.params[k].T - Y
        value = (WEIGHT[k] @ error**2).sum() / 2 + (rho[k] * found.params[k] ** 2).sum() / 2
        assert found.curve[k][-1] == pytest.approx(value, rel=1e-12)
        gradient = (WEIGHT[k][:, None] * error).T @ Z + rho[k] * found.params[k]
        assert np.abs(gradient).max() == pytest.approx(found.bound[k], abs=1e-13) and found.bound[k] < 1e-9


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_a_penalty_the_solution_is_the_smallest(fit_intercept):
    model = LinearRegressor(alpha=0.0, standardize=False, fit_intercept=fit_intercept).fit(X, Y)
    smallest = LinearRegression(fit_intercept=fit_intercept).fit(X, Y)
    np.testing.assert_allclose(model.coef_, smallest.coef_, atol=1e-8)
    np.testing.assert_allclose(model.predict(X), Y, atol=1e-7)


def test_a_column_without_a_penalty_is_left_to_others():
    rows, loss = Rows(np.hstack([X, np.ones((N, 1))])), SquaredLoss(Y.T)
    rho = np.ones((2, D + 1))
    rho[:, [0, -1]] = 0
    assert wide.ridge(rows, loss, WEIGHT, rho, TOL) is None
    rho[:, 0] = 1
    rho[0, -1] = 1  # an intercept of one model only
    assert wide.ridge(rows, loss, WEIGHT, rho, TOL) is None


@pytest.mark.parametrize("sample_weight", [None, WEIGHT[0] * 20])
def test_estimators_are_ridges(sample_weight):
    for alpha in (10.0, 1e-2, 1e-6):
        total = N if sample_weight is None else sample_weight.sum()
        ours = LinearRegressor(alpha=alpha, standardize=False).fit(X, Y, sample_weight)
        theirs = Ridge(alpha=alpha * total, solver="svd").fit(X, Y, sample_weight)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)


def test_a_search_scores_what_models_alone_have():
    search = GridSearchCV(LinearRegressor(), {"alpha": [1e-3, 0.1, 10.0]}, cv=3).fit(X, Y)
    train, test = np.r_[:4, 8:12], np.r_[4:8]
    for alpha, score in zip([1e-3, 0.1, 10.0], search.cv_results_["split1_test_score"], strict=True):
        alone = clone(search.estimator).set_params(alpha=alpha).fit(X[train], Y[train])
        assert alone.score(X[test], Y[test]) == pytest.approx(score, abs=1e-8)


def test_of_text_no_matrix_is_formed(monkeypatch):
    """Ten thousand words took minutes, and memory in proportion to their square."""
    words = sparse.random(3000, 10_000, 5e-4, format="csr", random_state=0)
    target = words @ RNG.normal(size=10_000) + 0.1 * RNG.normal(size=3000)
    for name in ("gram", "products_of_rows"):
        monkeypatch.setattr(SparseRows, name, lambda *of: pytest.fail("a matrix of all columns, or of all rows"))
    ours = LinearRegressor(alpha=0.01, standardize=False, tol=1e-9).fit(words, target)
    theirs = Ridge(alpha=30.0, tol=1e-12).fit(words, target)
    np.testing.assert_allclose(ours.coef_[0], theirs.coef_, atol=1e-6)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("in_units", [True, False])
@pytest.mark.parametrize("weight", [None, WEIGHT[0] * 20])
def test_all_targets_are_met_by_the_smallest_coefficients(weight, in_units, fit_intercept, monkeypatch):
    """By one system of rows: singular values took up to four times LinearRegression's time. Units are deviations."""
    monkeypatch.setattr(solving, "Ridge", lambda *of: pytest.fail("singular values"))
    model = LinearRegressor(penalty=None, fit_intercept=fit_intercept, standardize=in_units)
    model.alpha = "auto" if in_units else 1.0  # which is of no other effect
    table = X * np.exp(np.linspace(-2, 2, D))
    model.fit(table, Y, sample_weight=weight)
    own = np.ones(N) if weight is None else weight
    mean = np.average(table, axis=0, weights=own) if fit_intercept else np.zeros(D)
    unit = np.sqrt(np.average(np.square(table - mean), axis=0, weights=own)) if in_units else np.ones(D)
    unit[4] = 1  # zeros
    level, root = np.average(Y, axis=0, weights=own) if fit_intercept else 0.0, np.sqrt(own)[:, None]
    expected = np.linalg.pinv(root * (table - mean) / unit, rcond=1e-12) @ (root * (Y - level)) / unit[:, None]
    np.testing.assert_allclose(model.coef_, expected.T, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(model.predict(table)[own > 0], Y[own > 0], rtol=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1e-9])
def test_rows_that_depend_on_one_another_are_left_to_singular_values(gap):
    repeated = np.vstack([X, X[:1] + gap * X[1:2]])
    rows, rho = Rows(repeated), np.ones((1, D))
    assert wide.smallest(rows, np.vstack([Y, Y[:1]]).T, np.full((1, N + 1), 1 / (N + 1)), rho) is None
    model = LinearRegressor(penalty=None).fit(repeated, np.vstack([Y, Y[:1] + (gap > 0)]))
    assert np.isfinite(model.coef_).all()
