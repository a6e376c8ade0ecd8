"""Squared hinges of rivals: optima by scipy, whatever the weights; and models of a stack as they are alone."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from skdeep import LBFGS, HingeClassifier
from skdeep.exact import hinge_newton, newton_rivals
from skdeep.exact.descent import Stack, descend
from skdeep.exact.losses import SquaredWestonWatkins
from skdeep.exact.newton import Newton
from skdeep.exact.rows import Rows
from skdeep.fitting import fit

N, D, C = 120, 21, 10


def drawn(seed: int, intercept: bool = True):
    """Rows, codes of an unequal number of classes' rows, and weights that leave some rows out."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(N, D))
    if intercept:
        Z[:, -1] = 1
    codes = rng.choice(C, size=N, p=np.r_[0.4, np.full(C - 1, 0.6 / (C - 1))])
    codes[:C] = np.arange(C)
    Z[:, 0] += codes
    weight = rng.uniform(0.2, 2, size=(3, N)) * (rng.random((3, N)) < 0.8)
    return Z, codes, weight / weight.sum(1, keepdims=True)


def best(Z, codes, weight, rho):
    """Minimise by scipy."""

    def objective(params):
        V = params.reshape(C, D)
        scores = Z @ V.T
        violation = np.maximum(scores - scores[np.arange(N), codes][:, None] + 1, 0)
        violation[np.arange(N), codes] = 0
        slope = 2 * violation * weight[:, None]
        slope[np.arange(N), codes] = -slope.sum(1)
        value = weight @ (violation**2).sum(1) + 0.5 * (rho * V * V).sum()
        return value, (slope.T @ Z + rho * V).ravel()

    return minimize(objective, np.zeros(C * D), jac=True, method="L-BFGS-B", options={"maxiter": 20_000, "ftol": 1e-16})


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_optima_are_those_of_scipy_in_stacks_and_alone(intercept, strength):
    Z, codes, weight = drawn(0, intercept)
    rho = np.full((3, D), strength)
    if intercept:
        rho[:, -1] = 0
    rows, loss = Rows(Z), SquaredWestonWatkins(codes, C)
    assert newton_rivals.suits(rows, loss, rho)
    way = newton_rivals.NewtonOfRivals(D, loss)
    begun = newton_rivals.start(way, rows, weight, rho, np.zeros((3, C, D)))
    found = descend(Stack(rows, loss, weight, rho, begun), way, np.full(3, 1e-9), 200)
    for k in range(3):
        value = best(Z, codes, weight[k], rho[k]).fun
        assert found.curve[k][-1] <= value + 1e-9
        alone = descend(Stack(rows, loss, weight[k : k + 1], rho[k : k + 1], begun[:1]), way, np.full(1, 1e-9), 200)
        np.testing.assert_allclose(alone.params[0], found.params[k], atol=1e-7)


@pytest.mark.parametrize("many, near", [(10_000, 1e-6), (0, 1e-3)])  # in double precision, and in single
def test_directions_are_newtons(monkeypatch, many, near):
    monkeypatch.setattr(hinge_newton, "_MANY", many)
    Z, codes, weight = drawn(1)
    rho = np.r_[np.full(D - 1, 0.01), 0][None].repeat(3, 0)
    rows, loss = Rows(Z), SquaredWestonWatkins(codes, C)
    params = np.random.default_rng(2).normal(size=(3, C, D))
    of_rivals, known = (
        way(Stack(rows, loss, weight, rho, params.copy())) for way in (newton_rivals.NewtonOfRivals(D, loss), Newton(D))
    )
    # a shift of all intercepts changes nothing
    for direction in (of_rivals, known):
        direction[:, :, -1] -= direction[:, :, -1].mean(1, keepdims=True)
    np.testing.assert_allclose(of_rivals, known, atol=near * np.abs(known).max())


def test_few_columns_and_columns_without_a_penalty_have_the_plain_ones():
    Z, codes, _ = drawn(0)
    loss, rho = SquaredWestonWatkins(codes, C), np.ones((1, D))
    assert newton_rivals.suits(Rows(Z), loss, rho)
    assert not newton_rivals.suits(Rows(Z[:, :4]), loss, rho[:, :4])
    rho[:, 1] = 0
    assert not newton_rivals.suits(Rows(Z), loss, rho)


def test_columns_of_unlike_sizes_are_no_obstacle():
    Z, codes, weight = drawn(4)
    size = 10 ** np.random.default_rng(0).uniform(-4, 4, D)
    size[-1] = 1
    rho, loss = np.r_[np.full(D - 1, 0.01), 0][None] * size**2, SquaredWestonWatkins(codes, C)
    way = newton_rivals.NewtonOfRivals(D, loss)
    stack = Stack(Rows(Z * size), loss, weight[:1], rho, np.zeros((1, C, D)))
    found = descend(stack, way, np.full(1, 1e-9), 200)
    assert newton_rivals.suits(Rows(Z * size), loss, rho)
    assert found.curve[0][-1] <= best(Z, codes, weight[0], rho[0] / size**2).fun * (1 + 1e-7)


def test_more_classes_than_one_system_holds():
    """L-BFGS ended at 44 times the optimum after all its iterations; of 40 classes, systems are of free terms."""
    rng = np.random.default_rng(0)
    y = np.r_[np.arange(40), rng.integers(0, 40, 110)]
    X = rng.normal(size=(150, 30)) + 2 * rng.normal(size=(40, 30))[y]
    model = HingeClassifier(alpha=1e-3, calibration=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(X, y)
    assert model.solver_ == "lbfgs" and model.n_iter_ < 100


def test_a_class_whose_scores_have_no_curvature_is_no_obstacle():
    """No row is within the margin to a class far below all others, in whose intercept systems were singular."""
    Z, codes, _ = drawn(0)
    codes[codes == C - 1] = 0
    weight, rho, loss = np.full((1, N), 1 / N), np.r_[np.full(D - 1, 0.01), 0][None], SquaredWestonWatkins(codes, C)
    params = np.zeros((1, C, D))
    params[:, C - 1, -1] = -5
    way = newton_rivals.NewtonOfRivals(D, loss)
    found = descend(Stack(Rows(Z), loss, weight, rho, params), way, np.full(1, 1e-8), 99)
    assert found.stopped[0] is not None and found.curve[0][-1] <= best(Z, codes, weight[0], rho[0]).fun + 1e-9


def test_folds_of_a_calibration_are_the_models_alone(monkeypatch):
    """They begin where the model on all rows ends, which must be no trace in them."""
    Z, codes, _ = drawn(3)
    X = np.vstack([Z[:, :-1]] * 3) + np.random.default_rng(0).normal(size=(3 * N, D - 1))
    y = np.tile(codes, 3)
    together = HingeClassifier(random_state=0, tol=1e-8).fit(X, y)
    monkeypatch.setattr(fit, "deal_beside", lambda *args: None)
    alone = HingeClassifier(random_state=0, tol=1e-8).fit(X, y)
    assert together.solver_ == alone.solver_ == "lbfgs"
    np.testing.assert_allclose(together.coef_, alone.coef_, atol=1e-6)
    np.testing.assert_allclose(together.temperature_, alone.temperature_, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1e-4, 1e-6, 1e-8])
def test_a_penalty_next_to_none_in_large_columns_is_no_obstacle(alpha):
    """Training ended at its second step, at half the loss of the start, where the rows can be told apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 8, 100)
    X = rng.normal(size=(100, 25)) + 0.5 * np.eye(8)[y] @ rng.normal(size=(8, 25))
    for intercept in (True, False):
        clf = HingeClassifier(alpha=alpha, fit_intercept=intercept, calibration=None, solver="lbfgs", random_state=0)
        assert clf.fit(1e5 * X, y).loss_curve_[-1] < 1e-12


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_folds_in_the_stack_lift_no_limit_on_evaluations():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 8, 100)
    X = rng.normal(size=(100, 25)) + 0.5 * np.eye(8)[y] @ rng.normal(size=(8, 25))
    clf = HingeClassifier(alpha=1e-6, solver=LBFGS(max_fun=60), random_state=0).fit(X, y)
    assert clf.n_iter_ <= 60


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_weak_penalties_are_come_to_from_stronger_ones(kind):
    """From zero, 200 steps went from pieces to pieces, up to eight times above the optimum."""
    X, y = load_digits(return_X_y=True)
    X = X[:400] if kind == "dense" else sparse.csr_array(X[:400] * (X[:400] > 9))
    model = HingeClassifier(alpha=1e-6, calibration=None, solver="lbfgs")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        direct = clone(model).fit(X, y[:400])
    along = clone(model).set_params(warm_start=True, tol=1e-6)
    for alpha in 10.0 ** np.arange(-3, -7, -1.0):
        along.set_params(alpha=alpha).fit(X, y[:400])
    assert direct.loss_curve_[-1] <= 1.01 * along.loss_curve_[-1]
