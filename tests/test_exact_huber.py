"""Huber's loss with a small delta: the absolute error's linear programs, its own gradient, and searches."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import QuantileRegressor
from sklearn.model_selection import KFold

from skdeep import Huber, LinearRegressor, MLPRegressorTorch
from skdeep.exact import huber
from skdeep.exact.kinked_terms import terms_of
from skdeep.exact.piecewise import _Problem
from skdeep.exact.rows import Rows
from skdeep.exact.value_losses import HuberLoss
from skdeep.model_selection import GridSearchCV, grid

X, Y = load_diabetes(return_X_y=True)
X, Y = 20 * X[:150], (Y[:150] - 150) / 80
Z = np.column_stack([X, np.ones(150)])
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, (1, 150)) * (np.arange(150) % 7 > 0)
WEIGHT /= WEIGHT.sum()


def values(residual, delta):
    size = np.abs(residual)
    return np.where(size < delta, size**2 / 2, delta * size - delta**2 / 2)


@pytest.mark.parametrize("delta", [1.0, 0.1, 1e-3, 1e-6])
@pytest.mark.parametrize("strength", [1e-6, 1e-2, 1.0])
def test_gradients_are_zero_with_a_ridge(delta, strength):
    rho = np.full((1, 11), strength)
    rho[0, -1] = 0
    found = huber.solve(Rows(Z), HuberLoss(Y[None], delta), WEIGHT, 0 * rho, rho, 1e-10)
    v = found.params[0, 0]
    residual = Z @ v - Y
    assert found.converged[0]
    expected = WEIGHT[0] @ values(residual, delta) + rho[0] @ v**2 / 2
    assert found.value[0] == pytest.approx(expected, rel=1e-10)
    gradient = (WEIGHT[0] * np.clip(residual, -delta, delta)) @ Z + rho[0] * v
    assert np.abs(gradient).max() < 1e-4 * delta
    start = huber.starts(Rows(Z), HuberLoss(Y[None], delta), WEIGHT, np.repeat(rho, 2, 0), np.zeros((2, 1, 11)))
    if delta < 1e-2:  # least squares tell too little
        np.testing.assert_allclose(start[1, 0], v, atol=1e-6)


def test_newtons_method_begins_at_least_squares_where_these_tell_enough(monkeypatch):
    """However many targets are within delta: an interior point of all rows took twice as long, or seven times."""
    columns, target = make_regression(600, 8, noise=5.0, random_state=0)
    target /= target.std()
    monkeypatch.setattr(huber, "_optima", None)
    for delta in (1.0, 0.02):
        assert np.mean(np.abs(target) < 0.02) < 0.1
        model = LinearRegressor(Huber(delta), alpha=1e-3, tol=1e-8).fit(columns, target)
        residual = model.predict(columns) - target
        gradient = np.clip(residual, -delta, delta) @ columns / 600 + 1e-3 * model.coef_.ravel()
        assert np.abs(gradient).max() < 1e-8


@pytest.mark.parametrize("intercept", [False, True])
def test_no_target_within_delta(intercept):
    """Newton's method would know no curvature where it begins; columns far from zero need it most."""
    columns = 1000 + np.random.default_rng(0).normal(size=(20, 30))
    target = 50 + 0.1 * np.random.default_rng(1).normal(size=20)
    model = LinearRegressor(Huber(1.35), alpha=0.01, fit_intercept=intercept, tol=1e-8).fit(columns, target)
    residual = model.predict(columns) - target
    gradient = np.clip(residual, -1.35, 1.35) @ columns / 20 + 0.01 * model.coef_.ravel()
    assert np.abs(residual).max() < 1.35 and np.abs(gradient).max() < 1e-7


@pytest.mark.parametrize("strength", [1e-3, 0.03, 0.3, 10.0])
def test_least_absolute_errors_are_the_limit_with_an_l1_norm(strength):
    """Of delta: divided by it, the loss is at most half of it below the absolute error."""
    delta, weight = 1e-7, np.full((1, 150), 1 / 150)
    kappa = np.full((1, 11), strength * delta)
    kappa[0, -1] = 0
    found = huber.solve(Rows(Z), HuberLoss(Y[None], delta), weight, kappa, 0 * kappa, 1e-8)
    model = QuantileRegressor(alpha=strength / 2).fit(X, Y)
    least = np.abs(model.predict(X) - Y).mean() + strength * np.abs(model.coef_).sum()
    assert found.converged[0]
    assert least - delta / 2 - 1e-8 < found.value[0] / delta < least + 1e-8
    assert np.array_equal(found.params[0, 0, :10] != 0, model.coef_ != 0)


@pytest.mark.parametrize("width", [0.0, 1e-3])
def test_zero_is_not_certified_because_it_is_zero(width):
    """Of an intercept without a penalty that should be one, but is zero as all else."""
    target, one, kappa = np.ones((1, 150)), np.ones((1, 1)), np.append(np.ones(10), 0)[None]
    problem = _Problem(terms_of(Rows(Z), target, target, one, one, WEIGHT, kappa, width), 0 * kappa)
    value, gap = problem.certify(np.zeros((1, 11)), np.zeros((1, 161)))
    assert value[0] == pytest.approx(1, abs=width) and gap[0] > 0.9


@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_fits_and_searches_end_at_the_optimum(delta, penalty):
    """For any alpha, without a warning; of an odd number of rows, so that there is one median."""
    alphas = delta * np.array([1e-6, 1e-3, 1.0, 100.0])
    regressor = LinearRegressor(Huber(80 * delta), penalty=penalty, alpha=alphas[1], tol=1e-7)
    targets, train = np.column_stack([80 * Y, 80 * Y[::-1]]), np.arange(150) >= 75
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = GridSearchCV(regressor, {"alpha": alphas}, cv=2, refit=False).fit(X, 80 * Y)
        both = clone(regressor).fit(X[train], targets[train])
        for k, alpha in enumerate(alphas):
            alone = clone(regressor).set_params(alpha=alpha).fit(X[train], 80 * Y[train])
            score = alone.score(X[:75], 80 * Y[:75])
            assert search.cv_results_["split0_test_score"][k] == pytest.approx(score, abs=1e-4)
        for c in range(2):
            alone = clone(regressor).fit(X[train], targets[train, c])
            np.testing.assert_allclose(both.coef_[c], alone.coef_[0], atol=1e-3)


def test_least_squares_that_a_penalty_forbids_are_no_unit():
    """Rows that columns of almost nothing meet, with coefficients whose squares are beyond all else."""
    rng = np.random.default_rng(0)
    size = np.where(np.arange(30) < 15, 1.0, 1e-9)
    rows, target = size * rng.normal(size=(27, 30)), rng.normal(size=27)
    rho, weight = np.where(size < 1, 1.0, 1e-14)[None], np.full((1, 27), 1 / 27)
    found = huber.solve(Rows(rows), HuberLoss(target[None], 1e-3), weight, 0 * rho, rho, 1e-8)
    v = found.params[0, 0]
    gradient = np.clip(rows @ v - target, -1e-3, 1e-3) @ rows / 27 + rho[0] * v
    assert found.converged[0] and np.abs(gradient).max() < 1e-7


@pytest.mark.parametrize("penalty", ["l2", None])
@pytest.mark.parametrize("targets", ["plain", "mostly the same"])
def test_deltas_that_follow_from_each_splits_targets_are_one_stack(penalty, targets, monkeypatch):
    """The scores are those of fits alone, which have a delta of their own."""
    sizes, train = [], grid._Grid.train
    monkeypatch.setattr(
        grid._Grid, "train", lambda *args: [found := train(*args), sizes.append(found and len(found[1]))][0]
    )
    values = Y if targets == "plain" else np.where(np.arange(150) % 3, 2.0, 5 * Y)
    regressor, alphas = LinearRegressor("huber", penalty=penalty, tol=1e-10), [1e-3, 0.1, 3.0]
    search = GridSearchCV(regressor, {"alpha": alphas}, cv=KFold(3), refit=False).fit(X, values)
    assert sizes == [9]
    for s, (rows, test) in enumerate(KFold(3).split(X)):
        for k, alpha in enumerate(alphas):
            alone = clone(regressor).set_params(alpha=alpha).fit(X[rows], values[rows])
            score = alone.score(X[test], values[test])
            assert search.cv_results_[f"split{s}_test_score"][k] == pytest.approx(score, abs=1e-8)
    assert alone.delta_ != clone(regressor).fit(X, values).delta_


def test_deltas_of_several_targets_or_behind_an_l1_norm_are_each_splits():
    for regressor, values in (
        (LinearRegressor("huber", tol=1e-8), np.column_stack([Y, Y**2])),
        (LinearRegressor("huber", penalty="l1", tol=1e-8), Y),
    ):
        search = GridSearchCV(regressor, {"alpha": [0.01, 0.1]}, cv=KFold(2), refit=False).fit(X, values)
        alone = clone(regressor).set_params(alpha=0.1).fit(X[75:], values[75:])
        expected = alone.score(X[:75], values[:75])
        assert search.cv_results_["split0_test_score"][1] == pytest.approx(expected, abs=1e-6)


def test_deltas_of_networks_are_each_splits():
    network = MLPRegressorTorch("huber", hidden_layer_sizes=(3,), max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of a fault
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(network, {"alpha": [0.01, 0.1]}, cv=KFold(2), refit=False).fit(X, Y)
        alone = clone(network).set_params(alpha=0.1).fit(X[75:], Y[75:])
    assert search.cv_results_["split0_test_score"][1] == pytest.approx(alone.score(X[:75], Y[:75]), abs=1e-8)
