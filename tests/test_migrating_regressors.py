"""The guide's table of what to write for other regressors: the optimum there is the optimum here."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVR

from skdeep import SGD, EpsilonInsensitive, Huber, LinearRegressor, MLPRegressorTorch, Quantile, TorchRegressor, Tweedie

X, y = (a[:120] for a in load_diabetes(return_X_y=True))
X = StandardScaler().fit_transform(X)[:, :6]
N = len(y)
CENTRED = y - y.mean()
EXACT = {"tol": 1e-7, "max_iter": 5000}


def huber(r, delta):
    return np.where(np.abs(r) <= delta, r**2 / 2, delta * np.abs(r) - delta**2 / 2)


def pinball(r, level):
    return np.maximum((1 - level) * r, -level * r)


def insensitive(r, epsilon):
    return np.maximum(0, np.abs(r) - epsilon)


def half_deviance(power):
    """Half the deviance on the log link, but for what depends on y alone."""
    if power == 1:
        return lambda s, y: np.exp(s) - y * s
    if power == 2:
        return lambda s, y: s + y * np.exp(-s)
    return lambda s, y: np.exp((2 - power) * s) / (2 - power) - y * np.exp((1 - power) * s) / (1 - power)


def half_square(s, y):
    return (s - y) ** 2 / 2


def objective(model, loss, X, y, alpha, l1_ratio):
    coef, intercept = np.ravel(model.coef_), np.ravel(model.intercept_)
    penalty = (1 - l1_ratio) / 2 * coef @ coef + l1_ratio * np.abs(coef).sum()
    return loss(X @ coef + intercept, y).mean() + alpha * penalty


HUBER = HuberRegressor(epsilon=1.35, alpha=3.0, tol=1e-9, max_iter=5000).fit(X, y)
DELTA = 1.35 * HUBER.scale_
WIDE = {"fit_intercept": False, "tol": 1e-9, "max_iter": 1_000_000, "random_state": 0}
STEPS = {"learning_rate": "invscaling", "power_t": 0.5, "max_iter": 3000, "tol": None, "random_state": 0}
#: Name: theirs, ours, the loss as a function of scores and targets, share of L1, relative tolerance of the objective.
CASES = {
    "LinearRegression": (LinearRegression(), LinearRegressor(penalty=None), half_square, 0, 1e-12),
    "Ridge": (Ridge(30.0), LinearRegressor(alpha=30.0 / N), half_square, 0, 1e-12),
    "Lasso": (Lasso(2.0, tol=1e-10), LinearRegressor(penalty="l1", alpha=2.0, **EXACT), half_square, 1, 1e-8),
    "ElasticNet": (
        ElasticNet(2.0, l1_ratio=0.3, tol=1e-10),
        LinearRegressor(penalty="elasticnet", alpha=2.0, l1_ratio=0.3, **EXACT),
        half_square,
        0.3,
        1e-8,
    ),
    "HuberRegressor": (
        HUBER,
        LinearRegressor(Huber(DELTA), alpha=3.0 * HUBER.scale_ / N, **EXACT),
        lambda s, y: huber(s - y, DELTA),
        0,
        1e-8,
    ),
    "QuantileRegressor": (
        QuantileRegressor(quantile=0.8, alpha=0.05),
        LinearRegressor(Quantile(0.8), penalty="l1", alpha=0.05, **EXACT),
        lambda s, y: pinball(s - y, 0.8),
        1,
        1e-8,
    ),
    "PoissonRegressor": (
        PoissonRegressor(alpha=3.0, tol=1e-8, max_iter=5000),
        LinearRegressor("poisson", alpha=3.0, **EXACT),
        half_deviance(1),
        0,
        1e-8,
    ),
    "GammaRegressor": (
        GammaRegressor(alpha=0.3, tol=1e-8, max_iter=5000),
        LinearRegressor("gamma", alpha=0.3, **EXACT),
        half_deviance(2),
        0,
        1e-8,
    ),
    "TweedieRegressor": (
        TweedieRegressor(power=1.5, alpha=0.3, tol=1e-8, max_iter=5000),
        LinearRegressor(Tweedie(1.5), alpha=0.3, **EXACT),
        half_deviance(1.5),
        0,
        1e-8,
    ),
    "TweedieRegressor, power 0": (
        TweedieRegressor(power=0, alpha=0.3, tol=1e-8, max_iter=5000),
        LinearRegressor(alpha=0.3),
        half_square,
        0,
        1e-8,
    ),
    "TweedieRegressor, power 0, log": (
        TweedieRegressor(power=0, link="log", alpha=100.0, tol=1e-8, max_iter=5000),
        LinearRegressor(output="exp", alpha=100.0, **EXACT),
        lambda s, y: half_square(np.exp(s), y),
        0,
        1e-8,
    ),
    "LinearSVR": (
        LinearSVR(epsilon=20.0, C=0.05, **WIDE),
        LinearRegressor(EpsilonInsensitive(20.0), alpha=1 / (0.05 * N), fit_intercept=False, **EXACT),
        lambda s, y: insensitive(s - y, 20.0),
        0,
        1e-6,
    ),
    "LinearSVR, squared": (
        LinearSVR(epsilon=20.0, C=0.05, loss="squared_epsilon_insensitive", dual=False, **WIDE),
        LinearRegressor(EpsilonInsensitive(20.0, squared=True), alpha=1 / (0.05 * N), fit_intercept=False, **EXACT),
        lambda s, y: insensitive(s - y, 20.0) ** 2,
        0,
        1e-6,
    ),
    "SGDRegressor": (
        SGDRegressor(alpha=0.5, eta0=0.1, average=True, **STEPS),
        LinearRegressor(alpha=0.5),
        half_square,
        0,
        1e-4,
    ),
    "SGDRegressor, elastic net": (
        SGDRegressor(penalty="elasticnet", l1_ratio=0.4, alpha=2.0, eta0=0.03, **STEPS),
        LinearRegressor(penalty="elasticnet", l1_ratio=0.4, alpha=2.0),
        half_square,
        0.4,
        1e-4,
    ),
    "SGDRegressor, huber": (
        SGDRegressor(loss="huber", epsilon=20.0, alpha=0.5, eta0=0.1, average=True, **STEPS),
        LinearRegressor(Huber(20.0), alpha=0.5),
        lambda s, y: huber(s - y, 20.0),
        0,
        1e-4,
    ),
    "SGDRegressor, squared insensitive": (
        SGDRegressor(loss="squared_epsilon_insensitive", epsilon=20.0, alpha=0.5, eta0=0.1, average=True, **STEPS),
        LinearRegressor(EpsilonInsensitive(20.0, squared=True), alpha=0.5),
        lambda s, y: insensitive(s - y, 20.0) ** 2,
        0,
        1e-4,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_optimum_there_is_the_optimum_here(name):
    theirs, ours, loss, l1_ratio, tolerance = CASES[name]
    target = CENTRED if not ours.fit_intercept else y
    alpha = 0.0 if ours.penalty is None else ours.alpha
    there, here = (objective(m.fit(X, target), loss, X, target, alpha, l1_ratio) for m in (theirs, ours))
    assert here == pytest.approx(there, rel=tolerance)
    if alpha:  # a wrong translation is seen
        other = clone(ours).set_params(alpha=2 * alpha).fit(X, target)
        assert objective(other, loss, X, target, alpha, l1_ratio) > here * (1 + 10 * tolerance)


def test_alpha_of_mlp_regressor():
    settings = {
        "hidden_layer_sizes": (),
        "solver": "lbfgs",
        "alpha": 50.0,
        "tol": 1e-9,
        "max_iter": 5000,
        "random_state": 0,
    }
    theirs = MLPRegressor(**settings).fit(X, y)
    ours = MLPRegressorTorch(standardize=False, column_learning_rate=0, **settings).fit(X, y)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), abs=1e-3)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-8)


def test_rate_and_weight_decay_of_skorch():
    """skorch hands the mean of squares over rows and targets to torch.optim.SGD."""
    targets, rate, decay, rows = np.column_stack([y, X[:, 0]]) / 100, 0.02, 0.3, 30

    def zeros(n_features, n_outputs):
        module = torch.nn.Linear(n_features, n_outputs, bias=False, dtype=torch.float64)
        torch.nn.init.zeros_(module.weight)
        return module

    net = zeros(X.shape[1], 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, weight_decay=decay)
    for _ in range(5):
        for start in range(0, N, rows):
            optimizer.zero_grad()
            part = slice(start, start + rows)
            torch.nn.functional.mse_loss(net(torch.tensor(X[part])), torch.tensor(targets[part])).backward()
            optimizer.step()
    solver = SGD(2 * rate / 2, momentum=0, batch_size=rows, shuffle=False, learning_rate="constant")
    regressor = TorchRegressor(
        zeros, solver=solver, alpha=decay * rows * 2 / 2, max_iter=5, standardize_targets=False, random_state=0
    )
    assert regressor.fit(X, targets).predict(X) == pytest.approx(net(torch.tensor(X)).detach().numpy(), abs=1e-12)
