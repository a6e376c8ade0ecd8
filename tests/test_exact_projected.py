"""Quadratic functions with an L1 norm by conjugate gradients on kept signs, and the fits that need them."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import ElasticNet, LogisticRegression

from skdeep.exact import projected, quadratic
from skdeep.exact.elastic_net import solve
from skdeep.exact.losses import LogisticLoss, SoftmaxLoss, SquaredLoss
from skdeep.exact.quadratic import Quadratic
from skdeep.exact.rows import Rows, SparseRows


def make_sparse(seed=0, n=600, d=1500, density=0.02):
    """Make sparse rows, and a target of which a few columns know something."""
    rng = np.random.default_rng(seed)
    X = sparse.random_array((n, d), density=density, format="csr", rng=rng, data_sampler=rng.standard_normal)
    y = X @ (rng.standard_normal(d) * (rng.random(d) < 0.05)) + 0.1 * rng.standard_normal(n)
    return X, y - y.mean()


def subgradient(H, problem, u):
    """Compute the shortest subgradient at u, of the definition."""
    slope = problem.gradient + H @ (u - problem.x)
    beyond = np.maximum(np.abs(slope) - problem.kappa, 0)
    return np.where(u == 0, beyond, np.abs(slope + problem.kappa * np.sign(u)))


@pytest.mark.parametrize("kind", [Rows, SparseRows])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("n", [12, 60])
def test_subgradients_are_as_short_as_they_are_to_be(kind, ridge, n):
    """Of fewer rows than coordinates, too, where the curvature has none along most directions."""
    rng = np.random.default_rng(n)
    Z, C, D = rng.standard_normal((n, 30)) * (rng.random((n, 30)) < 0.5), 2, 30
    rows = kind(Z) if kind is Rows else kind(sparse.csr_array(Z), False)
    weight = rng.random((C, n)) * (rng.random((C, n)) < 0.9)
    H = np.zeros((C * D, C * D))
    for c in range(C):
        H[c * D : (c + 1) * D, c * D : (c + 1) * D] = (Z.T * weight[c]) @ Z
    H += ridge * np.eye(C * D)
    diagonal = H.diagonal().reshape(C, D) + 1e-12
    x = rng.standard_normal(C * D) * (rng.random(C * D) < 0.3)
    gradient = H @ rng.standard_normal(C * D)
    kappa = np.where(np.arange(C * D) % D == D - 1, 0, 0.3 * np.abs(gradient).max())  # one of each score is free
    problem = Quadratic(gradient, x, kappa, 1e-8)
    curvature = projected.Curvature(rows, lambda moved: weight * moved, np.full((C, D), ridge), diagonal)
    u = projected.minimise(curvature, problem)
    assert subgradient(H, problem, u).max() <= 1.1e-8
    assert 0 < np.count_nonzero(u) < C * D

    exact = quadratic.minimise(quadratic.Matrix(H + 1e-13 * np.eye(C * D)), problem)

    def value(v):
        return gradient @ (v - x) + (v - x) @ H @ (v - x) / 2 + kappa @ np.abs(v)

    assert value(u) == pytest.approx(value(exact), rel=1e-8)
    assert value(u) < value(x)


def test_what_passes_zero_at_once_stops_no_round(monkeypatch):
    """Shorter steps of all coordinates did not lead down, however short, and nothing was found."""
    monkeypatch.setattr(projected, "_CROSSING", 1.0)
    H, x, kappa = np.array([[1, 0.9], [0.9, 1]]), np.array([1e-13, 1.0]), np.full(2, 0.1)
    rows = Rows(np.linalg.cholesky(H).T)
    curvature = projected.Curvature(rows, lambda moved: moved, np.zeros((1, 2)), np.ones((1, 2)))
    problem = Quadratic(np.array([0.9, 0.4]), x, kappa, 1e-9)
    u = projected.minimise(curvature, problem)
    assert subgradient(H, problem, u).max() <= 1e-9


def test_rounds_that_end_early_have_led_down(monkeypatch):
    monkeypatch.setattr(projected, "_MAX_ROUNDS", 1)
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((20, 40))
    H, x, kappa = Z.T @ Z, rng.standard_normal(40), np.full(40, 2.0)
    problem = Quadratic(H @ rng.standard_normal(40), x, kappa, 1e-9)
    curvature = projected.Curvature(Rows(Z), lambda moved: moved, np.zeros((1, 40)), H.diagonal()[None])
    u = projected.minimise(curvature, problem)
    drop = problem.gradient @ (u - x) + (u - x) @ H @ (u - x) / 2 + kappa @ (np.abs(u) - np.abs(x))
    assert drop < -1


def test_a_shift_of_all_classes_leaves_one_at_zero_and_the_differences_as_they_are():
    params = np.array([[1.0, 2.0, 0.0], [3.0, -1.0, 5.0], [2.0, 7.0, 1.0]])
    found = projected.shifted(params, np.array([True, False, True]))
    np.testing.assert_array_equal(found, [[-1, 2, 0], [1, -1, 5], [0, 7, 1]])


def test_weak_penalties_factorise_no_large_systems(monkeypatch):
    """As large as the support they took a tenth of a second each, many times on the way along a path."""
    X, y = make_sparse()
    n, d = X.shape
    largest = []

    def solved(matrix, right):
        largest.append(len(matrix))
        return dposv(matrix, right)

    dposv = quadratic.dposv
    monkeypatch.setattr(quadratic, "dposv", solved)
    alphas = np.abs(X.T @ y).max() / n * np.array([1e-3, 3e-3, 1e-2, 0.1])
    kappa = np.repeat(alphas[:, None], d, axis=1)
    found = solve(SparseRows(X, False), SquaredLoss(y[None]), np.full((4, n), 1 / n), kappa, 0 * kappa)
    support = np.count_nonzero(found.params, axis=(1, 2))
    assert found.converged.all() and support.max() > 500
    assert max(largest) <= 400
    for alpha, params, value in zip(alphas, found.params[:, 0], found.value, strict=True):
        lasso = ElasticNet(alpha, l1_ratio=1, fit_intercept=False, tol=1e-12, max_iter=10**6).fit(X, y)
        theirs = np.mean((y - X @ lasso.coef_) ** 2) / 2 + alpha * np.abs(lasso.coef_).sum()
        assert value == pytest.approx(theirs, rel=1e-6)
        assert np.array_equal(params != 0, lasso.coef_ != 0)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_weak_penalties_of_classes_end_at_the_optimum(n_classes, monkeypatch):
    """With more coordinates that are not zero than a matrix is made of."""
    monkeypatch.setattr("skdeep.exact.elastic_net._MAX_MATRIX", 30)
    X, y = make_sparse(n=200, d=300, density=0.1)
    codes = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    loss = LogisticLoss(codes[None].astype(float)) if n_classes == 2 else SoftmaxLoss(codes, n_classes)
    kappa = np.full((1, 300), 1e-3)
    found = solve(SparseRows(X, False), loss, np.full((1, 200), 1 / 200), kappa, 0 * kappa)
    assert found.converged.all() and np.count_nonzero(found.params) > 60
    saga = LogisticRegression(
        C=1 / (200 * 1e-3), l1_ratio=1, solver="saga", fit_intercept=False, tol=1e-5, max_iter=10**5, random_state=0
    ).fit(X, codes)
    value = loss.at((saga.coef_ @ X.T)[None]).value.mean() + 1e-3 * np.abs(saga.coef_).sum()
    assert found.value[0] == pytest.approx(value, rel=1e-4)
    assert found.value[0] <= value * (1 + 1e-9) + 1e-6 * found.value[0]
