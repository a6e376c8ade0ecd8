"""Least squares by the moments of rows, against scikit-learn, their own conditions, and targets that are met nearly."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Ridge

from skdeep import LinearRegressor, SoftmaxClassifier
from skdeep.exact import elastic_net, moments, normal
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.rows import Rows

X, Y = load_diabetes(return_X_y=True)
X, Y = 20 * X[:200], (Y[:200] - 150) / 80
Z = np.column_stack([X, np.ones(200)])
STRENGTHS = np.array([1e-3, 0.3, 0.03, 2.0])


def folds(n=200, n_folds=3, n_each=4):
    """Weights of a search: each fold's rows are left out, for every strength."""
    weight = np.stack([np.arange(n) % n_folds != fold for fold in range(n_folds)]).astype(float)
    return np.repeat(weight / weight.sum(1, keepdims=True), n_each, 0)


def penalties(strength, D=11, intercept=True):
    found = np.repeat(np.asarray(strength)[:, None], D, 1)
    found[:, -1] *= not intercept
    return found


def objective(Z, target, weight, kappa, rho, v):
    return weight @ np.square(Z @ v - target) / 2 + kappa @ np.abs(v) + rho @ np.square(v) / 2


def test_weights_are_told_apart_by_all_their_values():
    weight = folds()
    weight[5] = np.sort(weight[4])
    weight[6, [0, 1]] += 1e-15, -1e-15
    first, number = normal.distinct(weight)
    assert first == [0, 4, 5, 6, 8] and number == [0] * 4 + [1, 2, 3, 1] + [4] * 4


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 1e-3])
@pytest.mark.parametrize("intercept", [True, False])
def test_models_of_a_search_are_scikit_learns(l1_ratio, intercept):
    """The objective, and which coefficients are zero, of each model on its own rows; two targets at a time."""
    weight, strength = folds(), np.tile(STRENGTHS, 3)
    rows, targets = (Z if intercept else X), np.stack([Y, Y**2])
    each = penalties(strength, rows.shape[1], intercept)
    kappa, rho = l1_ratio * each, (1 - l1_ratio) * each
    found = elastic_net.solve(Rows(rows), SquaredLoss(targets), weight, kappa, rho, 1e-10)
    assert found.converged.all()
    for k, alpha in enumerate(strength):
        for c, target in enumerate(targets):
            used, own = weight[k] > 0, found.params[k, c]
            model = ElasticNet(alpha, l1_ratio=l1_ratio, fit_intercept=intercept, tol=1e-12, max_iter=10**5)
            model.fit(X[used], target[used])
            theirs = np.append(model.coef_, model.intercept_) if intercept else model.coef_
            values = [objective(rows, target, weight[k], kappa[k], rho[k], v) for v in (own, theirs)]
            assert values[0] == pytest.approx(values[1], rel=1e-9)
            assert np.array_equal(own[:10] != 0, model.coef_ != 0)
    parts = [
        [objective(rows, t, weight[k], kappa[k], rho[k], v) for t, v in zip(targets, found.params[k], strict=True)]
        for k in range(len(weight))
    ]
    np.testing.assert_allclose(found.value, np.sum(parts, 1), rtol=1e-12)


@pytest.mark.parametrize("error", [1e-2, 1e-5, 1e-8, 0.0])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_errors_far_below_targets_lose_no_digits(error, l1_ratio):
    """What moments alone say of the gap is rounding there."""
    rng = np.random.default_rng(0)
    target = 1e3 + X @ rng.normal(size=10) + error * rng.normal(size=200)
    alpha = 1e-3 * max(error, 1e-9)
    kappa, rho = l1_ratio * penalties([alpha]), (1 - l1_ratio) * penalties([alpha])
    weight = np.full((1, 200), 1 / 200)
    found = elastic_net.solve(Rows(Z), SquaredLoss(target[None]), weight, kappa, rho, 1e-8)
    assert found.converged[0]
    v = found.params[0, 0]
    assert found.value[0] == pytest.approx(objective(Z, target, weight[0], kappa[0], rho[0], v), rel=1e-6)
    slope = (weight[0] * (Z @ v - target)) @ Z + rho[0] * v + kappa[0] * np.sign(v)
    assert np.abs(slope).max() < 1e-12 * 1e3


@pytest.mark.parametrize("columns", ["twice", "constant", "more than rows"])
def test_columns_without_curvature_of_their_own(columns):
    rows, target, D = Z.copy(), Y, 11
    if columns == "twice":
        rows[:, :5] = rows[:, 5:10]
    elif columns == "constant":
        rows[:, 3] = 1
    else:
        rows, target = np.column_stack([np.random.default_rng(0).normal(size=(20, 40)), np.ones(20)]), Y[:20]
        D = 41
    weight = np.full((len(STRENGTHS), len(target)), 1 / len(target))
    kappa = penalties(STRENGTHS, D)
    found = elastic_net.solve(Rows(rows), SquaredLoss(target[None]), weight, kappa, 0 * kappa, 1e-9)
    assert found.converged.all()
    slope = (weight * (found.params[:, 0] @ rows.T - target)) @ rows
    assert (np.abs(slope) <= kappa + 1e-9).all()
    assert (np.abs(slope + kappa * np.sign(found.params[:, 0]))[found.params[:, 0] != 0] < 1e-9).all()


def test_ridges_of_a_search():
    weight, strength = folds(), np.tile(STRENGTHS, 3)
    rho = np.stack([penalties(strength), penalties(0.1 * strength)], 1)
    found = moments.ridge(Rows(Z), SquaredLoss(np.stack([Y, -Y])), weight, rho, np.full(12, 1e-4))
    assert all("tol" in reason for reason in found.stopped) and (found.bound < 1e-12).all()
    for k in range(12):
        for c, (target, part) in enumerate([(Y, 1.0), (-Y, 0.1)]):
            used = weight[k] > 0
            model = Ridge(part * strength[k] * used.sum()).fit(X[used], target[used])
            np.testing.assert_allclose(found.params[k, c], np.append(model.coef_, model.intercept_), rtol=1e-9)
        values = [
            objective(Z, t, weight[k], 0 * rho[k, c], rho[k, c], found.params[k, c]) for c, t in enumerate([Y, -Y])
        ]
        assert found.curve[k] == [pytest.approx(sum(values), rel=1e-12)]


def test_ridges_that_are_left_to_others():
    weight, tol = np.full((1, 200), 1 / 200), np.array([1e-4, 1e-4])
    rho = penalties([0.1, 0.1])
    rho[0, 3] = 0
    assert moments.ridge(Rows(Z), SquaredLoss(Y[None]), weight, rho, tol) is None
    target = X @ np.ones(10)  # met but for what the penalty takes, which one model's errors tell
    weak = penalties([1e-12, 1e-12])
    assert moments.ridge(Rows(Z), SquaredLoss(target[None]), weight, weak, tol) is None
    found = moments.ridge(Rows(Z), SquaredLoss(target[None]), weight, weak[:1], tol[:1])
    assert found.curve[0][0] == pytest.approx(0.5e-12 * 10, rel=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        LinearRegressor(alpha=1e-3),
        LinearRegressor(penalty="l1", alpha=0.02),
        LinearRegressor("absolute_error", penalty="elasticnet", alpha=0.02),
        LinearRegressor("huber", alpha=1e-3, warm_start=True),
        SoftmaxClassifier(alpha=1e-3),
    ],
    ids=str,
)
def test_sparse_columns_far_from_zero_are_those_of_dense_rows(model):
    """Their products have no digits left of how they vary; zeros, one constant column, and twice the same."""
    far = np.column_stack([1e6 + X[:, :4], X[:, 4:], np.full(200, 1e6), np.where(X[:, 0] > 0, X[:, 1], 0)])
    target = Y if isinstance(model, LinearRegressor) else Y > 0
    both = [clone(model).set_params(tol=1e-7).fit(kind(far), target) for kind in (sparse.csr_array, np.asarray)]
    np.testing.assert_allclose(both[0].coef_, both[1].coef_, atol=1e-4 * np.abs(both[1].coef_).max())
    np.testing.assert_allclose(both[0].predict(far[:20]), both[1].predict(far[:20]), atol=1e-4)
    if both[0].warm_start:  # begins at its end
        coef = both[0].coef_.copy()
        np.testing.assert_allclose(both[0].fit(sparse.csr_array(far), target).coef_, coef, atol=1e-6)
        assert both[0].n_iter_ <= 1


@pytest.mark.parametrize("alphas", [[0.0], [0.0, 0.0]])
def test_one_column_without_a_penalty(alphas):
    """It is the last one, which follows from the others: none."""
    rng = np.random.default_rng(0)
    Z, target, weight = rng.normal(size=(20, 1)), rng.normal(size=20), np.full((1, 20), 0.05)
    none = np.array(alphas)[:, None]
    found = moments.Moments(Rows(Z), np.repeat(weight, len(none), axis=0)).solve(target, none, none)
    np.testing.assert_allclose(found.params, Z[:, 0] @ target / (Z[:, 0] @ Z[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(found.above, 0, atol=1e-12)
