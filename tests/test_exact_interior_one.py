"""One system of a loss with kinks: the optimum of many at a time, its own certificate, and rows that change sides."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import set_constant
from scipy import optimize
from sklearn.datasets import load_diabetes

from skdeep import EpsilonInsensitive, LinearRegressor
from skdeep.exact import interior_one, kinked_rows, piecewise
from skdeep.exact.rows import Rows

X, Y = load_diabetes(return_X_y=True)
X, Y = 20 * X[:120, :5], (Y[:120] - 150) / 80
Z = np.column_stack([X, np.ones(120)])
EVEN = np.full(120, 1 / 120)


def solve(rows, lo, hi, up, down, weight, *ridge_and_limits):
    """Solve for the parameters (D,) and all else of one model; None where it is left to others."""
    found = interior_one.Alike(rows, lo, hi, up, down, weight).solve(*ridge_and_limits)
    if found is None:
        return None
    return SimpleNamespace(params=found.params[0, 0], value=found.value[0], gap=found.gap[0])


def objective(Z, lo, hi, costs, weight, rho, v):
    scores = Z @ v
    each = costs[0] * np.maximum(lo - scores, 0) + costs[1] * np.maximum(scores - hi, 0)
    return weight @ each + 0.5 * rho @ np.square(v)


def ridge(strength, D=6, intercept=True):
    return np.append(np.full(D - 1, strength), 0.0 if intercept else strength)


@pytest.mark.parametrize("costs", [(1.0, 1.0), (0.9, 0.1)])
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("strength", [1e-4, 0.05, 10.0])
def test_optima_are_those_of_many_at_a_time(strength, epsilon, costs):
    """To the gap that is said, whatever the weights; and no step from there leads down."""
    generator = np.random.default_rng(0)
    for weight in (EVEN, generator.uniform(0.01, 1, 120) ** 3):
        weight, rho = weight / weight.sum(), ridge(strength, intercept=False)
        lo, hi = Y - epsilon, Y + epsilon
        found = solve(Rows(Z), lo, hi, *costs, weight, rho, 1e-8, 100)
        assert found is not None and found.gap <= 1e-8
        problem = Z, lo, hi, costs, weight, rho
        assert found.value == pytest.approx(objective(*problem, found.params), rel=1e-12)
        two = np.stack([weight, weight]), np.stack([rho, rho]), np.zeros((2, 6))
        others = piecewise.solve(Rows(Z), lo[None], hi[None], *(np.array([c]) for c in costs), *two, 1e-10)
        assert found.value == pytest.approx(others.value[0], rel=2e-8)
        for step in 1e-3 * generator.normal(size=(20, 6)):
            assert objective(*problem, found.params + step) >= found.value * (1 - 1e-8)


def test_the_end_is_an_equation(monkeypatch):
    """What is left of a gap is rounding then, for absolute errors, and tubes on both sides and on one."""
    for epsilon in (0.0, 0.02, 0.3):
        problem = Rows(Z), Y - epsilon, Y + epsilon, 1.0, 1.0, EVEN, ridge(0.01), 1e-5, 100
        with monkeypatch.context() as context:
            set_constant(context, "_CLOSE", 0.0)
            plain = solve(*problem)
        found = solve(*problem)
        assert found.gap < 1e-13 < plain.gap
        residual = np.abs(np.abs(Z @ found.params - Y) - epsilon)
        assert (residual < 1e-12).sum() == (residual < 1e-6).sum() > 0


@pytest.mark.parametrize("costs", [(1.0, 1.0), (0.9, 0.1)])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("wrong", ["none", "left out", "one too many", "two", "all left out"])
@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_kinks_are_exchanged_until_none_is_wrong(wrong, epsilon, costs, strength, monkeypatch):
    """From the optimum's, of which some are left out, and to which others come."""
    weight, rho = np.random.default_rng(0).uniform(0.5, 2, 120), ridge(strength, intercept=False)
    weight /= weight.sum()
    hi = Y + epsilon
    problem = kinked_rows.KinkedRows(Rows(Z), (hi if epsilon == 0 else Y - epsilon, hi), costs, weight, rho)
    found = solve(Rows(Z), Y - epsilon, hi, *costs, weight, rho, 1e-9, 100)
    error = Z @ found.params - Y
    slope = np.where(error > epsilon, costs[1], np.where(error < -epsilon, -costs[0], 0.0))
    away = np.abs(np.abs(error) - epsilon)
    order, kink = np.argsort(away), away < 1e-9
    m = np.count_nonzero(kink)
    assert 2 <= m <= 6
    if wrong == "all left out":
        kink[:] = False
    if wrong in ("left out", "two"):
        kink[order[0]] = False
    if wrong in ("one too many", "two"):
        kink[order[m]] = True
    set_constant(monkeypatch, "FEW", 120)  # where more are wrong, steps take less time
    set_constant(monkeypatch, "_MAX_EXCHANGES", 100)
    params, slopes = problem.settle(kink, (error > 0) | (epsilon == 0), slope)
    np.testing.assert_allclose(params, found.params, atol=1e-9)
    value, above, _ = problem.certify(params, slopes)
    assert value == pytest.approx(found.value, rel=1e-12) and above < 1e-12
    again, _ = problem.resume(slopes)
    np.testing.assert_allclose(again, found.params, atol=1e-9)


def test_optimum_of_linear_programs_with_hardly_any_ridge():
    costs, rho = (0.7, 0.3), ridge(1e-9)
    found = solve(Rows(Z), Y, Y, *costs, EVEN, rho, 1e-7, 100)
    n, D = Z.shape
    equations = np.hstack([Z, -Z, np.eye(n), -np.eye(n)])
    slopes = np.r_[np.zeros(2 * D), np.full(n, 0.7 / n), np.full(n, 0.3 / n)]
    assert found.value == pytest.approx(optimize.linprog(slopes, A_eq=equations, b_eq=Y).fun, rel=1e-6)


@pytest.mark.parametrize("n_models", [1, 3])
def test_rows_that_change_sides_are_found(monkeypatch, n_models):
    """One row draws least squares to where most others are on the other side than in the end."""
    rows = np.column_stack([np.linspace(-1, 1, 41), np.ones(41)])
    target = 2 * np.sin(7 * np.arange(41.0))
    target[-1] = 60.0
    lo, hi, weight, rho = target - 1, target + 1, np.full(41, 1 / 41), np.array([1e-6, 0])
    end = solve(Rows(rows), lo, hi, 1.0, 1.0, weight, rho, 1e-8, 100)
    _, errors = interior_one.Alike(Rows(rows), lo, hi, 1.0, 1.0, weight).least_squares(rho)
    at_end = rows @ end.params - target
    assert ((errors * at_end < 0) & (np.abs(at_end) > 1)).any()
    set_constant(monkeypatch, "APART", 0.0)
    weights, rhos = np.tile(weight, (n_models, 1)), np.tile(rho, (n_models, 1))
    ones = np.ones(1)
    found = piecewise.solve(Rows(rows), lo[None], hi[None], ones, ones, weights, rhos, 0 * rhos, 1e-8)
    assert found.converged.all()
    np.testing.assert_allclose(found.value, end.value, rtol=2e-8)


@pytest.mark.parametrize("seed", [0, 2])
def test_a_step_too_far_is_taken_in_part(seed, monkeypatch):
    """Of columns with heavy tails, full steps to where few rows matter lead away: up to all of them did in the end."""
    generator = np.random.default_rng(seed)
    rows = generator.standard_t(1.5, size=(400, 8))
    target = rows @ generator.normal(size=8) + 0.5 * generator.standard_t(2.5, size=400)
    rows, target = (rows - rows.mean(0)) / rows.std(0), target / target.std()
    rows = Rows(np.column_stack([rows, np.ones(400)]))
    seen, find = [], interior_one._One.find
    monkeypatch.setattr(interior_one._One, "find", lambda self, most: seen.append(self.terms.n) or find(self, most))
    found = solve(rows, target - 0.02, target + 0.02, 1.0, 1.0, np.full(400, 1 / 400), ridge(0.1, 9), 1e-9, 100)
    assert max(seen) < 200 and found.gap <= 1e-9


def many_rows():
    generator = np.random.default_rng(0)
    rows = np.column_stack([generator.normal(size=(700, 3)), np.ones(700)])
    target = rows @ [1.0, -1, 0.5, 2] + generator.standard_t(2, size=700)
    return rows, target + 5 * (rows[:, 0] > 1.5), generator.uniform(0.1, 1, 700)


@pytest.mark.parametrize("costs", [(1.0, 1.0), (0.95, 0.05)])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.8])
@pytest.mark.parametrize("by_columns", [False, True])
def test_of_many_rows_those_near_kinks_suffice(epsilon, by_columns, costs, monkeypatch):
    rows, target, weight = many_rows()
    rho, weight = np.array([0.1, 0.1, 0.1, 0]), weight / weight.sum()
    seen, find = [], interior_one._One.find
    monkeypatch.setattr(interior_one._One, "find", lambda self, most: seen.append(self.terms.n) or find(self, most))
    problem = Rows(np.asfortranarray(rows) if by_columns else rows), target - epsilon, target + epsilon
    found = solve(*problem, *costs, weight, rho, 1e-9, 100)
    assert max(seen) < 120 and found.gap <= 1e-9
    set_constant(monkeypatch, "_MAX_APPROACHES", 0)
    set_constant(monkeypatch, "_MAX_BANDS", 0)
    of_all = solve(*problem, *costs, weight, rho, 1e-9, 100)
    assert seen[-1] == 700 and found.value == pytest.approx(of_all.value, rel=2e-9)
    assert found.value == pytest.approx(objective(rows, *problem[1:], costs, weight, rho, found.params), rel=1e-12)


@pytest.mark.parametrize("target", ["integers", "mostly one", "two"])
def test_steps_towards_the_optimum_of_many_rows_that_are_alike(target):
    """Where many errors are the same, rows near kinks say little of the second derivative."""
    generator = np.random.default_rng(0)
    rows = np.column_stack([generator.integers(3, size=(900, 2)), np.ones(900)]).astype(float)
    values = {"integers": generator.poisson(2, 900), "mostly one": generator.random(900) < 0.02, "two": rows[:, 0] > 0}
    y, weight, rho = values[target].astype(float), np.full(900, 1 / 900), np.array([0.01, 0.01, 0])
    for lo, hi in ((y, y), (y - 0.5, y + 0.5)):
        ones, one = np.ones(1), (weight[None], rho[None], 0 * rho[None])
        found = piecewise.solve(Rows(rows), lo[None], hi[None], ones, ones, *one, 1e-8)
        two = (np.repeat(part, 2, 0) for part in one)
        others = piecewise.solve(Rows(rows), lo[None], hi[None], ones, ones, *two, 1e-8)
        assert found.converged.all()
        np.testing.assert_allclose(found.value[0], others.value[0], rtol=2e-8, atol=1e-12)


def test_rows_that_come_near_kinks_come_in(monkeypatch):
    """So few are looked at first that others turn out to be on another side."""
    rows, target, weight = many_rows()
    rho, weight = np.array([1.0, 1, 1, 0]), weight / weight.sum()
    set_constant(monkeypatch, "_BAND", 0.05)
    seen, find = [], interior_one._One.find
    monkeypatch.setattr(interior_one._One, "find", lambda self, most: seen.append(self.terms.n) or find(self, most))
    found = solve(Rows(rows), target, target, 1.0, 1.0, weight, rho, 1e-9, 100)
    assert seen[0] < seen[1] and found.gap <= 1e-9
    set_constant(monkeypatch, "_MAX_BANDS", 0)
    of_all = solve(Rows(rows), target, target, 1.0, 1.0, weight, rho, 1e-9, 100)
    assert found.value == pytest.approx(of_all.value, rel=2e-9)


def test_models_of_many_rows_are_solved_one_by_one(monkeypatch):
    rows, target, weight = many_rows()
    weights = np.stack([weight * (np.arange(700) % 3 != fold) for fold in (0, 1, 0)])
    weights /= weights.sum(1, keepdims=True)
    rho = np.outer([0.1, 0.1, 1.0], [1.0, 1, 1, 0])
    problem = (
        Rows(rows),
        (target - 0.5)[None],
        (target + 0.5)[None],
        np.ones(1),
        np.ones(1),
        weights,
        rho,
        0 * rho,
        1e-9,
    )
    together = piecewise.solve(*problem)
    set_constant(monkeypatch, "_MANY_ROWS", 500)
    found = piecewise.solve(*problem)
    assert found.converged.all() and together.converged.all()
    np.testing.assert_allclose(found.value, together.value, rtol=2e-9)
    np.testing.assert_allclose(found.params, together.params, atol=1e-4)


@pytest.mark.parametrize("fault", ["few rows", "L1", "no ridge", "rows without weight", "several models"])
def test_what_is_left_to_others(fault):
    rows, weight, rho, kappa = Z, EVEN[None], ridge(0.1)[None], np.zeros((1, 6))
    if fault == "few rows":
        rows, weight = Z[:5], np.full((1, 5), 0.2)
    elif fault == "L1":
        kappa = kappa + 0.1
    elif fault == "no ridge":
        rho = 0 * rho
    elif fault == "rows without weight":
        weight = weight * (np.arange(120) > 0)
    else:
        weight, rho, kappa = (np.repeat(part, 2, 0) for part in (weight, rho, kappa))
    assert not interior_one.suits(Rows(rows), weight, rho, kappa)


def test_targets_that_are_met_are_left_to_others():
    """Errors are what scores are counted in."""
    assert solve(Rows(Z), 0 * Y, 0 * Y, 1.0, 1.0, EVEN, ridge(0.1), 1e-6, 100) is None
    met = LinearRegressor("absolute_error", alpha=1e-9).fit(X, X @ np.arange(5.0))
    np.testing.assert_allclose(met.predict(X), X @ np.arange(5.0), atol=1e-4)


@pytest.mark.parametrize("columns", ["twice", "constant", "far"])
def test_hard_columns(columns):
    rows = X.copy()
    if columns == "twice":
        rows[:, 0] = rows[:, 1]
    elif columns == "constant":
        rows[:, 2] = 7.0
    else:
        rows = rows + np.array([1e6, 0, 0, 0, -1e4])
    model = LinearRegressor(EpsilonInsensitive(0.2), alpha=0.01, tol=1e-6).fit(rows, Y)
    assert model.certificate_ <= 1e-8
    centred = np.column_stack([rows - rows.mean(0), np.ones(len(rows))])
    lo, hi, rho = Y - 0.2, Y + 0.2, ridge(0.01)
    two = (np.repeat(part[None], 2, 0) for part in (EVEN, rho, 0 * rho))
    best = piecewise.solve(Rows(centred), lo[None], hi[None], np.ones(1), np.ones(1), *two, 1e-10)
    v = np.append(model.coef_[0], model.intercept_[0] + model.coef_[0] @ rows.mean(0))
    assert objective(centred, lo, hi, (1, 1), EVEN, rho, v) <= best.value[0] * (1 + 1e-7)
