"""Smooth losses of values: their formulas, derivatives and conjugates, and optima against scikit-learn's."""

from functools import partial
from inspect import signature

import numpy as np
import pytest
import sklearn._loss.loss as theirs
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    PoissonRegressor,
    TweedieRegressor,
)
from sklearn.svm import LinearSVR

from skdeep.exact import elastic_net
from skdeep.exact.descent import Stack, descend
from skdeep.exact.lbfgs import LBFGS
from skdeep.exact.losses import SquaredLoss
from skdeep.exact.newton import Newton
from skdeep.exact.rows import Rows
from skdeep.exact.value_losses import HuberLoss, SquaredInsensitive, TweedieLoss

RNG = np.random.default_rng(0)
N, D = 60, 5
COLUMNS = RNG.normal(size=(N, D - 1))
Z = np.hstack([COLUMNS, np.ones((N, 1))])
VALUES = COLUMNS @ RNG.normal(size=(D - 1, 2)) + RNG.standard_t(2, size=(N, 2)) + 1
COUNTS = RNG.poisson(np.exp(0.5 * COLUMNS @ RNG.normal(size=(D - 1, 2)))).astype(float)
POSITIVE = np.exp(0.5 * VALUES)

LOSSES = {
    "squared": (SquaredLoss, VALUES),
    "huber": (lambda target, unit=1.0: HuberLoss(target, 0.7 * unit), VALUES),
    "squared insensitive": (lambda target, unit=1.0: SquaredInsensitive(target, 0.4 * unit), VALUES),
    "poisson": (partial(TweedieLoss, power=1.0), COUNTS),
    "poisson, no zeros": (partial(TweedieLoss, power=1.0), POSITIVE),
    "gamma": (partial(TweedieLoss, power=2.0), POSITIVE),
    "tweedie 1.2": (partial(TweedieLoss, power=1.2), COUNTS),
    "tweedie 1.5": (partial(TweedieLoss, power=1.5), COUNTS),
    "tweedie 1.9": (partial(TweedieLoss, power=1.9), POSITIVE),
}


def make(name):
    loss, target = LOSSES[name]
    return loss(np.ascontiguousarray(target.T))


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_central_differences(name):
    loss, h = make(name), 1e-5
    scores = 1.5 * RNG.normal(size=(3, 2, N))
    at = loss.at(scores)
    second = loss.second(scores, at)
    for c in range(2):
        move = np.zeros((2, 1))
        move[c] = h
        right, left = loss.at(scores + move), loss.at(scores - move)
        assert (right.value - left.value) / (2 * h) == pytest.approx(at.gradient[:, c], rel=1e-6, abs=1e-7)
        bend = (right.gradient - left.gradient)[:, c] / (2 * h)
        at_kink = loss.second(scores + move, right) != loss.second(scores - move, left)
        smooth = ~at_kink[:, c] if loss.piecewise else np.ones_like(at_kink[:, c])
        assert bend[smooth] == pytest.approx(second[:, c][smooth], rel=1e-5, abs=1e-6)
        assert smooth.mean() > 0.99


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("poisson", theirs.HalfPoissonLoss()),
        ("gamma", theirs.HalfGammaLoss()),
        ("tweedie 1.2", theirs.HalfTweedieLoss(power=1.2)),
        ("tweedie 1.9", theirs.HalfTweedieLoss(power=1.9)),
    ],
)
def test_half_deviances_are_scikit_learns(name, other):
    loss, scores = make(name), RNG.normal(size=(1, 2, N))
    at, target = loss.at(scores), loss.target.ravel()
    expected = other.loss(target, scores.ravel()) + other.constant_to_optimal_zero(target)
    assert at.value[0] == pytest.approx(expected.reshape(2, N).sum(0), rel=1e-12, abs=1e-12)
    assert at.gradient.ravel() == pytest.approx(other.gradient(target, scores.ravel()), rel=1e-12, abs=1e-12)


def test_huber_and_insensitive_formulas():
    scores = RNG.normal(size=(1, 2, N))
    r = np.abs(scores[0] - VALUES.T)
    expected = np.where(r <= 0.7, r**2 / 2, 0.7 * r - 0.7**2 / 2).sum(0)
    assert make("huber").at(scores).value[0] == pytest.approx(expected, rel=1e-13)
    expected = (np.maximum(r - 0.4, 0) ** 2).sum(0)
    assert make("squared insensitive").at(scores).value[0] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_conjugates(name):
    """Fenchel's inequality is an equality at gradients, and holds anywhere else in the domain."""
    loss = make(name)
    scores, others = 2 * RNG.normal(size=(2, 2, 2, N))
    at, other = loss.at(scores), loss.at(others)
    conjugate = loss.conjugate(at.gradient)
    assert conjugate + at.value == pytest.approx((at.gradient * scores).sum(1), rel=1e-10, abs=1e-10)
    assert (loss.conjugate(0.7 * at.gradient) + other.value >= (0.7 * at.gradient * others).sum(1) - 1e-10).all()
    assert loss.conjugate(np.zeros_like(scores)) == pytest.approx(0, abs=1e-14)
    weight = RNG.random((2, N))
    balanced = loss.balanced(at.gradient, weight)
    assert np.einsum("kcn,kn->kc", balanced, weight) == pytest.approx(0, abs=1e-12)
    assert (loss.conjugate(balanced) + other.value >= (balanced * others).sum(1) - 1e-10).all()


@pytest.mark.parametrize("name", LOSSES)
def test_parts_and_stacks(name):
    """One column, models of one column each, and some of these, are the same loss."""
    loss, scores = make(name), RNG.normal(size=(3, 2, N))
    at, apart = loss.at(scores), loss.apart(3)
    own = apart.at(scores.reshape(6, 1, N))
    assert own.value.reshape(3, 2, N).sum(1) == pytest.approx(at.value, rel=1e-14)
    some = apart.keep(np.array([1, 4]))
    assert some.at(scores.reshape(6, 1, N)[[1, 4]]).gradient == pytest.approx(own.gradient[[1, 4]], rel=1e-14)
    assert loss.one(1).at(scores[:, 1:]).gradient == pytest.approx(at.gradient[:, 1:], rel=1e-14)


def minimise(loss, rho, way=Newton, rows=Z, weight=None, tol=1e-10, max_iter=300):
    n, columns = rows.shape
    weight = np.full((1, n), 1 / n) if weight is None else weight
    stack = Stack(Rows(rows), loss, weight, rho, np.zeros((len(rho), 1, columns)))
    directions = Newton(columns) if way is Newton else LBFGS(np.arange(len(rho)))
    return descend(stack, directions, np.full(len(rho), tol), max_iter)


def worth(loss, rows, rho, params):
    n = len(rows)
    return loss.at((params @ rows.T).reshape(1, 1, n)).value.sum() / n + rho @ params**2 / 2


X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES = X_DIABETES * 20
DIABETES = np.hstack([X_DIABETES, np.ones((len(X_DIABETES), 1))])
RIDGE = np.r_[np.full(X_DIABETES.shape[1], 0.3), 0.0]


@pytest.mark.parametrize("way", [Newton, LBFGS])
@pytest.mark.parametrize("unit", [1.0, 1e6])
@pytest.mark.parametrize(
    ("make_loss", "model"),
    [
        (partial(TweedieLoss, power=1.0), PoissonRegressor(alpha=0.3)),
        (partial(TweedieLoss, power=2.0), GammaRegressor(alpha=0.3)),
        (partial(TweedieLoss, power=1.5), TweedieRegressor(alpha=0.3, power=1.5, link="log")),
    ],
)
def test_optima_on_the_log_link(make_loss, model, unit, way):
    """From zero, however large the targets."""
    y, loss = Y_DIABETES * unit, make_loss(Y_DIABETES[None] * unit)
    worth_of_one = unit ** (2 - loss.power)
    found = minimise(loss, RIDGE[None] * worth_of_one, way, DIABETES, tol=1e-11 * worth_of_one)
    model.set_params(alpha=0.3 * worth_of_one, solver="newton-cholesky", tol=1e-10 * worth_of_one, max_iter=1000)
    model.fit(X_DIABETES, y)
    expected = worth(loss, DIABETES, RIDGE * worth_of_one, np.r_[model.coef_, model.intercept_])
    assert worth(loss, DIABETES, RIDGE * worth_of_one, found.params[0, 0]) == pytest.approx(expected, rel=1e-10)
    assert found.stopped[0].startswith("The gradient is below") and len(found.curve[0]) < 50


def test_a_step_that_is_much_too_long():
    """The first Newton step of counts of a million goes to scores of a million, whose exponentials are none."""
    y, n = 1e6 * np.exp(0.1 * RNG.normal(size=N)), 1
    loss, ones = TweedieLoss(y[None], 1.0), np.ones((N, n))
    assert np.abs(loss.at(np.full((1, 1, N), 1e6)).value).max() < np.inf
    found = minimise(loss, np.zeros((1, 1)), rows=ones, tol=1e-6)
    assert found.params[0, 0, 0] == pytest.approx(np.log(y.mean()), rel=1e-12)


@pytest.mark.parametrize("delta", [60.0, 5.0])
def test_optimum_of_huber(delta):
    """HuberRegressor's coefficients minimise it at delta = epsilon * scale_."""
    model = HuberRegressor(epsilon=1.1 + delta / 100, alpha=0.1, tol=1e-9, max_iter=10000).fit(X_DIABETES, Y_DIABETES)
    delta, n = model.epsilon * model.scale_, len(Y_DIABETES)
    rho = np.r_[np.full(10, 0.1 * model.scale_ / n), 0.0]
    loss = HuberLoss(Y_DIABETES[None], delta)
    expected = worth(loss, DIABETES, rho, np.r_[model.coef_, model.intercept_])
    value = worth(loss, DIABETES, rho, minimise(loss, rho[None], rows=DIABETES).params[0, 0])
    assert expected * (1 - 1e-6) < value <= expected * (1 + 1e-10)


@pytest.mark.parametrize("epsilon", [0.0, 20.0, 150.0])
def test_optimum_of_squared_insensitive(epsilon):
    rho, n = np.full(11, 0.02), len(Y_DIABETES)
    model = LinearSVR(
        loss="squared_epsilon_insensitive", epsilon=epsilon, C=1 / (0.02 * n), tol=1e-12, max_iter=10**5, dual=False
    ).fit(X_DIABETES, Y_DIABETES)
    loss = SquaredInsensitive(Y_DIABETES[None], epsilon)
    expected = worth(loss, DIABETES, rho, np.r_[model.coef_, model.intercept_])
    value = worth(loss, DIABETES, rho, minimise(loss, rho[None], rows=DIABETES).params[0, 0])
    assert value == pytest.approx(expected, rel=1e-8, abs=1e-8) and value <= expected * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize(("alpha", "l1_ratio"), [(2.0, 1.0), (15.0, 1.0), (2.0, 0.5), (0.1, 0.9)])
def test_lasso_and_elastic_net(alpha, l1_ratio):
    model = (
        Lasso(alpha, tol=1e-12, max_iter=10**5)
        if l1_ratio == 1
        else ElasticNet(alpha, l1_ratio=l1_ratio, tol=1e-12, max_iter=10**5)
    ).fit(X_DIABETES, Y_DIABETES)
    n, held = len(Y_DIABETES), RIDGE[None] > 0
    kappa, rho = alpha * l1_ratio * held, alpha * (1 - l1_ratio) * held
    loss = SquaredLoss(Y_DIABETES[None])
    found = elastic_net.solve(Rows(DIABETES), loss, np.full((1, n), 1 / n), kappa, rho, gap=1e-10)
    params = np.r_[model.coef_, model.intercept_]
    expected = worth(loss, DIABETES, rho[0], params) + kappa[0] @ np.abs(params)
    assert found.converged.all() and found.value[0] == pytest.approx(expected, rel=1e-8)
    assert np.array_equal(found.params[0, 0, :10] != 0, model.coef_ != 0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_l1_norms(name, l2, unit):
    """Two columns of targets, to a gap of 1e-9, that is, the conjugates' domains are met; and their own conditions."""
    make_loss, values = LOSSES[name]
    target = np.ascontiguousarray(values.T) * unit
    loss = make_loss(target, unit) if "unit" in signature(make_loss).parameters else make_loss(target)
    ones, weight = np.ones((1, 2, N)), np.full((1, N), 1 / N)
    steepest = np.abs((loss.at(0 * ones).gradient[0] / N) @ Z)[:, :-1].max()
    kappa, rho = np.r_[np.full(D - 1, 0.1 * steepest), 0.0], np.r_[np.full(D - 1, l2 * steepest), 0.0]
    found = elastic_net.solve(Rows(Z), loss, weight, kappa[None], rho[None], gap=1e-9, max_iter=200)
    V = found.params[0]
    assert found.converged.all() and (found.gap <= 1e-9).all()
    gradient = (loss.at((V @ Z.T)[None]).gradient[0] / N) @ Z + rho * V
    tol = 1e-5 * steepest
    assert (np.abs(gradient + kappa * np.sign(V))[V != 0] <= tol).all()
    assert (np.abs(gradient) <= kappa + tol)[V == 0].all()
