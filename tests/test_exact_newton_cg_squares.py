"""Least squares of sparse rows by conjugate gradients, against dense systems."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV as TheirSearch

from skdeep import LeastSquaresClassifier
from skdeep.exact import newton_cg
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import SparseRows
from skdeep.model_selection import GridSearchCV


def problem(n, d, intercept=True, seed=0):
    rng = np.random.default_rng(seed)
    X = sparse.random_array((n, d), density=0.2, format="csr", rng=rng)
    return rng, SparseRows(sparse.csr_array(X), intercept), np.column_stack([X.toarray(), np.ones((n, int(intercept)))])


@pytest.mark.parametrize(("n", "d"), [(60, 20), (30, 80)])
@pytest.mark.parametrize("intercept", [True, False])
def test_dense_systems(n, d, intercept):
    rng, rows, Z = problem(n, d, intercept)
    target = rng.standard_normal((3, n))
    weight = rng.random((2, n)) * (rng.random((2, n)) < 0.8)
    weight /= weight.sum(1, keepdims=True)
    rho = np.array([1e-2, 1e-4])[:, None] * rng.uniform(0.5, 2, Z.shape[1])
    rho[:, d:] = 0
    found = newton_cg.ridge(rows, SquaredLoss(target), weight, rho, np.full(2, 1e-9))
    for k in range(2):
        system = (Z.T * weight[k]) @ Z + np.diag(rho[k])
        expected = np.linalg.solve(system, (Z.T * weight[k]) @ target.T).T
        assert_allclose(found.params[k], expected, rtol=0, atol=1e-7 * np.abs(expected).max())
        errors = expected @ Z.T - target
        value = 0.5 * ((errors**2 @ weight[k]).sum() + (rho[k] * expected**2).sum())
        assert_allclose(found.curve[k][-1], value, rtol=1e-10)


def test_models_of_a_stack_end_as_alone():
    rng, rows, Z = problem(50, 30)
    target, weight = rng.standard_normal((2, 50)), rng.random((3, 50))
    weight /= weight.sum(1, keepdims=True)
    rho = np.repeat(10.0 ** -np.arange(1, 4)[:, None], Z.shape[1], axis=1)
    loss, tol = SquaredLoss(target), np.full(3, 1e-9)
    stack = newton_cg.ridge(rows, loss, weight, rho, tol)
    for k in range(3):
        alone = newton_cg.ridge(rows, loss, weight[k : k + 1], rho[k : k + 1], tol[:1])
        assert_allclose(stack.params[k], alone.params[0], rtol=0, atol=1e-12)


def test_targets_of_zeros_and_columns_of_zeros():
    _, rows, _ = problem(20, 5)
    rows = SparseRows(sparse.csr_array(rows.X * (np.arange(5) != 2)), True)
    target = np.zeros((2, 20))
    target[1] = 3.0
    found = newton_cg.ridge(
        rows, SquaredLoss(target), np.full((1, 20), 0.05), np.r_[np.ones(5), 0][None], np.full(1, 1e-6)
    )
    assert_allclose(found.params[0], [[0] * 6, [0] * 5 + [3]], atol=1e-9)


@pytest.mark.parametrize("strength", [1e-2, 1e-8])
def test_columns_of_many_sizes(strength):
    rng, rows, Z = problem(300, 150)
    size = np.append(10.0 ** rng.uniform(-3, 3, 150), 1.0)
    rows, Z = SparseRows(sparse.csr_array(rows.X * size[:-1]), True), Z * size
    target, weight = rng.standard_normal((1, 300)), np.full((1, 300), 1 / 300)
    rho = np.append(np.full(150, strength), 0.0)[None]
    found = newton_cg.ridge(rows, SquaredLoss(target), weight, rho, np.full(1, 1e-4))
    root = np.diag(np.sqrt(rho[0] * 300))
    expected = np.linalg.lstsq(np.vstack([Z, root]) / size, np.append(target[0], np.zeros(151)))[0] / size
    assert_allclose(found.params[0, 0] @ Z.T, expected @ Z.T, rtol=0, atol=1e-6)
    # beside one that is solved for in other units, a model ends as alone
    strong = np.append(np.full(150, 1e6), 0.0)[None]
    both = newton_cg.ridge(rows, SquaredLoss(target), weight, np.concatenate([strong, rho]), np.full(2, 1e-4))
    alone = newton_cg.ridge(rows, SquaredLoss(target), weight, strong, np.full(1, 1e-4))
    assert_allclose(both.params[0], alone.params[0], rtol=1e-12)


@pytest.mark.parametrize(("n", "d", "copies"), [(60, 150, 1), (100, 150, 1), (100, 40, 2)])
def test_weak_penalties_choose_the_smallest_of_all_solutions(n, d, copies):
    rng, rows, Z = problem(n, d, intercept=False)
    Z = np.hstack([Z] * copies)
    rows, target = SparseRows(sparse.csr_array(Z), False), rng.standard_normal((1, n))
    weight, rho = np.full((1, n), 1 / n), np.full((1, d * copies), 1e-13)
    found = newton_cg.ridge(rows, SquaredLoss(target), weight, rho, np.full(1, 1e-9))
    assert_allclose(found.params[0, 0], np.linalg.pinv(Z) @ target[0], rtol=0, atol=1e-8)


def test_what_does_not_converge_is_told():
    rng, rows, _ = problem(40, 20)
    target = rng.standard_normal((1, 40))
    assert (
        newton_cg.ridge(rows, SquaredLoss(target), np.full((1, 40), 0.025), np.full((1, 21), 1e-3), np.array([1e-30]))
        is None
    )


@pytest.fixture(scope="module")
def text():
    """Rows like those of text, of more values than products of columns or of rows pay for."""
    rng = np.random.default_rng(0)
    X, y = make_classification(1500, 20, n_informative=10, n_classes=3, random_state=0)
    hidden = (X @ rng.standard_normal((20, 2500))) > 22
    return sparse.csr_array(hidden * rng.random(hidden.shape)), y


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_ridge_classifier(text, fit_intercept, monkeypatch):
    X, y = text
    asked = []
    ridge = newton_cg.ridge
    monkeypatch.setattr(newton_cg, "ridge", lambda *args: asked.append(args) or ridge(*args))
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    ours = LeastSquaresClassifier(alpha=1e-3, fit_intercept=fit_intercept).fit(X, y, sample_weight=weight)
    assert asked
    theirs = RidgeClassifier(alpha=1e-3 * weight.sum(), fit_intercept=fit_intercept)
    theirs.fit(X.toarray(), y, sample_weight=weight)
    assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-7 * np.abs(theirs.coef_).max())
    assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=1e-7)


def test_search(text):
    X, y = text
    alphas = [1e-1, 1e-3]
    ours = GridSearchCV(LeastSquaresClassifier(), {"alpha": alphas}, cv=3).fit(X, y)
    theirs = TheirSearch(LeastSquaresClassifier(), {"alpha": alphas}, cv=3).fit(X, y)
    assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-6])
def test_what_is_certain_of_objectives_ends_the_search(strength, intercept, monkeypatch):
    """At the default tolerance; once 1e-15 of the objective is left, further passes would tell nobody anything."""
    rng, rows, Z = problem(300, 200, intercept)
    target, rho = rng.standard_normal((1, 300)), np.full((1, Z.shape[1]), strength)
    rho[:, 200:] = 0
    passes, ends = [], []
    monkeypatch.setattr(rows, "back", lambda gradient: passes.append(len(ends)) or SparseRows.back(rows, gradient))
    for tol in (1e-4, 1e-9):
        ends.append(newton_cg.ridge(rows, SquaredLoss(target), np.full((1, 300), 1 / 300), rho, np.full(1, tol)))
    expected = np.linalg.solve(Z.T @ Z / 300 + np.diag(rho[0]), Z.T @ target[0] / 300)
    errors = Z @ expected - target[0]
    value = 0.5 * (errors @ errors / 300 + (rho[0] * expected) @ expected)
    for end, digits in zip(ends, (1e-6, 1e-9), strict=True):
        assert value * (1 - 1e-14) <= end.curve[0][-1] <= value * (1 + 1e-13)
        assert_allclose(end.params[0, 0], expected, rtol=0, atol=digits * np.abs(expected).max())
    assert 0 < passes.count(0) < passes.count(1)
