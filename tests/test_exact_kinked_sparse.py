"""Losses of values with kinks, of sparse rows with many columns, beside the interior point of dense ones."""

import numpy as np
import pytest
from helpers import set_constant
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.model_selection import cross_val_score

from skdeep import EpsilonInsensitive, LinearRegressor, Quantile
from skdeep.exact import kinked_sparse, piecewise
from skdeep.exact.descent import Stack
from skdeep.exact.rows import Rows, SparseRows
from skdeep.model_selection import GridSearchCV


def words(n, d, seed=0, share=0.03):
    """Draw rows with few values each, and targets that some of them make, with heavy tails."""
    generator = np.random.default_rng(seed)
    X = sparse.csr_array(np.where(generator.random((n, d)) < share, generator.exponential(size=(n, d)), 0.0))
    return X, X @ generator.normal(size=d) + generator.standard_t(2, size=n)


@pytest.fixture
def few_columns(monkeypatch):
    """Take this way for few columns, too."""
    set_constant(monkeypatch, "MANY_COLUMNS", 5)


@pytest.mark.parametrize("patience", [0, 5])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("room", [0.0, 0.3])
@pytest.mark.parametrize("alpha", [1.0, 1e-2, 1e-4])
def test_the_optimum_of_dense_rows(alpha, room, intercept, patience, few_columns, monkeypatch):
    """Whichever way directions are found; for other slopes on either side, weights of zero, and targets far from it."""
    set_constant(monkeypatch, "_PATIENCE", patience)
    X, y = words(120, 60, share=0.1)
    y = (y + 1000 if intercept else y)[None]
    generator = np.random.default_rng(1)
    weight = generator.integers(0, 3, (3, 120)) / 1.0
    weight /= weight.sum(1, keepdims=True)
    rho = np.full((3, 60 + intercept), alpha) * np.array([[1.0], [3.0], [0.1]])
    rho[:, 60:] = 0
    given = y - room, y + room, np.array([0.7]), np.array([0.4]), weight, rho, np.zeros_like(rho), 1e-7
    ours = piecewise.solve(SparseRows(X, intercept), *given, 500)
    Z = np.hstack([X.toarray(), np.ones((120, int(intercept)))])
    theirs = piecewise.solve(Rows(Z), *given)
    assert ours.converged.all() and (ours.gap <= 1e-7).all()
    assert_allclose(ours.value, theirs.value, rtol=3e-7)
    scores = ours.params[:, 0] @ Z.T
    loss = 0.7 * np.maximum(given[0] - scores, 0) + 0.4 * np.maximum(scores - given[1], 0)
    value = np.vecdot(loss, weight) + 0.5 * np.vecdot(rho, ours.params[:, 0] ** 2)
    assert_allclose(ours.value, value, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_where_no_slope_is_free(seed):
    """Nothing bends along the intercept there: conjugate gradients went to infinity, and training had diverged."""
    X, y = words(40, 20, seed, share=0.1)
    weight, rho = np.full(40, 1 / 40), np.append(np.full(20, 0.01), 0)
    problem = kinked_sparse._Problem(SparseRows(X, True), (y, y), (0.9, 0.1), weight)
    start = np.append(np.random.default_rng(seed).normal(size=20), 0)[None, None]
    loss = kinked_sparse._Loss(problem, np.zeros((1, 1, 40)), 1e-9)
    stack = Stack(problem.rows, loss, weight[None], rho[None], start)
    assert not loss.second(stack.scores, stack.at).any()
    before = stack.value[0]
    assert stack.move(problem._direction(stack, False), 0.1).all()
    assert stack.value[0] < before


def test_what_is_met_at_zero(few_columns):
    """No row is outside of its bounds: nothing is lower, nor is looked for."""
    X, _ = words(30, 8, share=0.3)
    bounds = np.full((1, 30), 2.0), np.full((1, 30), 4.0)
    weight, rho = np.full((1, 30), 1 / 30), np.append(np.full(8, 0.1), 0)[None]
    found = kinked_sparse.solve(SparseRows(X, True), bounds, (np.ones(1), np.ones(1)), weight, rho, np.array([1e-6]), 9)
    assert found.value[0] == found.gap[0] == 0 and found.params[0, 0, -1] == pytest.approx(3)
    assert not found.params[0, 0, :-1].any()


@pytest.mark.parametrize("loss", [EpsilonInsensitive(0.5), "absolute_error", Quantile([0.2, 0.8])], ids=str)
def test_many_columns_have_an_optimum(loss):
    """Mini-batches ended far above it: by half of it under a weak penalty."""
    X, y = words(300, 1500)
    model = LinearRegressor(loss, alpha=1e-3, standardize=False, random_state=0).fit(X, y)
    assert model.solver_ == "exact" and 0 <= model.certificate_ <= 1e-6
    steps = LinearRegressor(loss, alpha=1e-3, standardize=False, solver="sgd", random_state=0).fit(X, y)
    assert model.loss_ < steps.loss_
    if loss == "absolute_error":
        in_float32 = LinearRegressor(loss, alpha=1e-3, standardize=False).fit(X.astype(np.float32), y)
        assert in_float32.loss_ == pytest.approx(model.loss_, rel=1e-4)


def test_a_search_is_fits_alone():
    """Each begins where a stronger penalty's ended, and is certain all the same."""
    X, y = words(200, 1200)
    model = LinearRegressor(EpsilonInsensitive(0.1), standardize=False, tol=1e-6)
    alphas = [1e-1, 1e-3, 1e-2]
    search = GridSearchCV(model, {"alpha": alphas}, cv=3, refit=False).fit(X, y)
    alone = [cross_val_score(model.set_params(alpha=alpha), X, y, cv=3).mean() for alpha in alphas]
    assert_allclose(search.cv_results_["mean_test_score"], alone, atol=1e-4)


def test_without_a_penalty_nothing_changes():
    """No bound is known there, so that rows of few values are left to mini-batches."""
    X, y = words(100, 1100)
    model = LinearRegressor("absolute_error", alpha=0.0, standardize=False, max_iter=3, random_state=0)
    with pytest.warns(UserWarning, match="3"):
        model.fit(X, y)
    assert model.solver_ == "sgd"
