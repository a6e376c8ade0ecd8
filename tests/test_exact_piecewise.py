"""Losses of values with kinks, against scikit-learn, SciPy's linear programs, their own certificate and hard data."""

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import QuantileRegressor
from sklearn.svm import LinearSVR

from skdeep import EpsilonInsensitive, LinearRegressor, Quantile
from skdeep.exact.piecewise import solve
from skdeep.exact.rows import Rows, SparseRows
from skdeep.model_selection.stacks import fit_stack

X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES = X_DIABETES * 20
DIABETES = np.hstack([X_DIABETES, np.ones((len(X_DIABETES), 1))])


def objective(Z, lo, hi, up, down, weight, rho, kappa, V):
    """Compute the sum over the columns."""
    scores = V @ Z.T
    loss = up[:, None] * np.maximum(lo - scores, 0) + down[:, None] * np.maximum(scores - hi, 0)
    return (loss @ weight).sum() + (kappa * np.abs(V) + rho * V**2 / 2).sum()


def by_linear_program(Z, lo, hi, up, down, weight, kappa):
    """Compute the least value of one column without a ridge, whose targets are counted in a unit of their size."""
    n, unit = len(Z), max(np.abs(lo).max(), 1e-300)
    costs = np.r_[kappa, kappa, up * weight, down * weight]
    below = np.hstack([-Z, Z, -np.eye(n), np.zeros((n, n))])
    above = np.hstack([Z, -Z, np.zeros((n, n)), -np.eye(n)])
    return optimize.linprog(costs, np.vstack([below, above]), np.r_[-lo, hi] / unit, bounds=(0, None)).fun * unit


def one_column(rows, target, epsilon=0.0, tau=0.5, weight=None, kappa=0.0, rho=0.0, gap=1e-8, max_iter=100):
    """Solve one model of one column; return it with the arguments of `objective`."""
    n, D = rows.shape
    weight = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    kappa, rho = np.broadcast_to(kappa, D), np.broadcast_to(rho, D)
    lo, hi, up, down = (target - epsilon)[None], (target + epsilon)[None], np.array([tau]), np.array([1 - tau])
    found = solve(rows, lo, hi, up, down, weight[None], rho[None], kappa[None], gap, max_iter)
    Z = rows.take(np.arange(n))
    problem = (Z, lo, hi, up, down, weight, rho, kappa)
    assert found.value[0] == pytest.approx(objective(*problem, found.params[0]), rel=1e-10, abs=1e-12)
    return found, problem


def without_intercept(D, value):
    return np.r_[np.full(D - 1, value), 0.0]


@pytest.mark.parametrize("alpha", [0.0, 0.02, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("tau", [0.5, 0.1, 0.9])
def test_quantile_regressor(tau, alpha):
    """The objective, and which coefficients are zero; of no L1 norm, and of one that leaves the intercept only."""
    model = QuantileRegressor(quantile=tau, alpha=alpha, solver="highs").fit(X_DIABETES, Y_DIABETES)
    found, problem = one_column(Rows(DIABETES), Y_DIABETES, tau=tau, kappa=without_intercept(11, alpha))
    expected = objective(*problem, np.r_[model.coef_, model.intercept_][None])
    assert found.converged[0] and found.value[0] == pytest.approx(expected, rel=1e-9)
    assert np.array_equal(found.params[0, 0, :10] != 0, model.coef_ != 0)


@pytest.mark.parametrize("epsilon", [0.0, 10.0, 100.0])
@pytest.mark.parametrize("rho", [1e-4, 0.01, 1.0])
def test_linear_svr(epsilon, rho):
    """Its penalty holds the intercept too; it is never lower."""
    C = 1 / (len(Y_DIABETES) * rho)
    model = LinearSVR(epsilon=epsilon, C=C, tol=1e-10, max_iter=10**6).fit(X_DIABETES, Y_DIABETES)
    # 1 for each unit beyond epsilon is twice what a quantile of one half counts
    found, problem = one_column(Rows(DIABETES), Y_DIABETES, epsilon, rho=rho / 2, gap=1e-10)
    expected = objective(*problem, np.r_[model.coef_, model.intercept_][None])
    assert found.converged[0] and found.value[0] <= expected * (1 + 1e-9)
    assert found.value[0] == pytest.approx(expected, rel=1e-7)


def hard_cases():
    rng = np.random.default_rng(0)
    n, d = 60, 5
    X = rng.normal(size=(n, d))
    Z, y = np.hstack([X, np.ones((n, 1))]), X @ rng.normal(size=d) + rng.standard_t(2, size=n)
    few, heavy = np.full(n, 1e-3), np.ones(n)
    few[:4], heavy[::3] = 1, 0
    yield "plain", Z, y, None
    yield "columns repeat", np.hstack([Z, X[:, :2], np.zeros((n, 1))]), y, None
    yield "rows repeat", np.repeat(Z[:20], 3, 0), np.repeat(y[:20], 3), None
    yield "rows without weight", Z, y, heavy
    yield "weight of few rows", Z, y, few
    yield "targets repeat", Z, np.round(y), None
    yield "constant", Z, np.full(n, 3.0), None
    yield "zero", Z, np.zeros(n), None
    yield "exact", Z, Z @ np.arange(6.0), None
    yield "large", Z, 1e6 * y, None
    yield "far", Z, 1e4 + y, None
    yield "small", Z, 1e-6 * y, None
    yield "more columns than rows", rng.normal(size=(20, 30)), rng.normal(size=20), None


@pytest.mark.parametrize("l1", [0.0, 0.03])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize(("Z", "y", "weight"), [pytest.param(*case, id=name) for name, *case in hard_cases()])
def test_linear_programs(Z, y, weight, epsilon, l1):
    """Without a ridge, of rows and targets of all kinds."""
    epsilon = epsilon * np.abs(y).mean()
    found, (_, lo, hi, up, down, weight, _, kappa) = one_column(Rows(Z), y, epsilon, 0.7, weight, kappa=l1)
    expected = by_linear_program(Z, lo[0], hi[0], up[0], down[0], weight, kappa)
    assert found.converged[0]
    assert found.value[0] == pytest.approx(expected, rel=1e-7, abs=1e-9 * np.abs(y).mean())


def test_quadratic_programs():
    """Both penalties at once and bounds of any distance, against an interior point of others."""
    clarabel = pytest.importorskip("clarabel")
    rng = np.random.default_rng(1)
    n, D = 50, 8
    Z, y = rng.normal(size=(n, D)), rng.normal(size=n)
    lo, hi = y - rng.random(n), y + 2 * rng.random(n) * (rng.random(n) < 0.7)
    up, down, weight = np.array([2.0]), np.array([0.5]), rng.random(n)
    weight /= weight.sum()
    kappa, rho = 0.05 * rng.random(D), np.r_[0.0, 0.1 * rng.random(D - 1)]
    found = solve(Rows(Z), lo[None], hi[None], up, down, weight[None], rho[None], kappa[None], 1e-10)
    eye, bound = np.eye(D), np.eye(n)
    none = [np.zeros((n, n)), np.zeros((n, D)), np.zeros((D, n))]
    constraints = np.block([
        [-Z, -bound, none[0], none[1]], [Z, none[0], -bound, none[1]], [0 * Z, -bound, none[0], none[1]],
        [0 * Z, none[0], -bound, none[1]], [eye, none[2], none[2], -eye], [-eye, none[2], none[2], -eye],
    ])  # fmt: skip
    limits = np.r_[-lo, hi, np.zeros(2 * n + 2 * D)]
    costs = np.r_[np.zeros(D), up * weight, down * weight, kappa]
    ridge = sparse.diags_array(np.r_[rho, np.zeros(2 * n + D)]).tocsc()
    options = clarabel.DefaultSettings()
    options.verbose, options.tol_gap_rel, options.tol_gap_abs, options.tol_feas = False, 1e-12, 1e-13, 1e-12
    cones = [clarabel.NonnegativeConeT(len(limits))]
    solver = clarabel.DefaultSolver(ridge, costs, sparse.csc_array(constraints), limits, cones, options)
    assert found.converged[0] and found.value[0] == pytest.approx(solver.solve().obj_val, rel=1e-9)


def test_a_stack_is_its_models():
    """Models of other weights and penalties, of two columns with losses of their own."""
    rng = np.random.default_rng(2)
    n, D, K = 80, 5, 6
    Z = np.hstack([rng.normal(size=(n, D - 1)), np.ones((n, 1))])
    target = rng.normal(size=(2, n))
    width = np.array([[0.0], [0.2]])
    lo, hi = target - width, target + width
    up, down = np.array([0.2, 1.0]), np.array([0.8, 1.0])
    weight = (np.arange(n) % 3 != np.arange(K)[:, None] % 3).astype(float)
    weight /= weight.sum(1, keepdims=True)
    rho, kappa = (np.outer(scale, without_intercept(D, 1.0)) for scale in (0.1 * rng.random(K), 0.1 * rng.random(K)))
    kappa[:2], rho[1:3] = 0, 0
    found = solve(Rows(Z), lo, hi, up, down, weight, rho, kappa, 1e-10)
    assert found.converged.all() and found.params.shape == (K, 2, D)
    for k in range(K):
        value = objective(Z, lo, hi, up, down, weight[k], rho[k], kappa[k], found.params[k])
        assert value == pytest.approx(found.value[k], rel=1e-12)
        assert found.curve[k][-1] == pytest.approx(value, rel=1e-12)
        for c in range(2):
            one = slice(c, c + 1)
            own = (weight[k][None], rho[k][None], kappa[k][None])
            alone = solve(Rows(Z), lo[one], hi[one], up[one], down[one], *own, 1e-10)
            assert alone.params[0, 0] == pytest.approx(found.params[k, c], abs=1e-6)
            assert np.array_equal(alone.params[0, 0] == 0, found.params[k, c] == 0)


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.002, 0.0), (0.0, 0.01), (0.002, 0.01)])
def test_sparse_rows(l1, l2):
    rng = np.random.default_rng(3)
    X = sparse.random_array((300, 20), density=0.1, rng=rng, format="csr")
    y, kappa, rho = X @ rng.normal(size=20) + rng.normal(size=300), without_intercept(21, l1), without_intercept(21, l2)
    found, _ = one_column(SparseRows(X, True), y, 0.1, kappa=kappa, rho=rho)
    dense, _ = one_column(Rows(np.hstack([X.toarray(), np.ones((300, 1))])), y, 0.1, kappa=kappa, rho=rho)
    assert found.converged[0] and found.value[0] == pytest.approx(dense.value[0], rel=1e-9)
    assert np.array_equal(found.params == 0, dense.params == 0)


def test_the_gap_is_honest():
    """After few steps, it is no less than what is missing, and nothing is said to have converged."""
    problem = Rows(DIABETES), Y_DIABETES
    best = one_column(*problem, tau=0.3, kappa=without_intercept(11, 0.1))[0].value[0]
    for steps in range(4):
        found = one_column(*problem, tau=0.3, kappa=without_intercept(11, 0.1), max_iter=steps)[0]
        assert found.value[0] - best <= found.gap[0] * found.value[0] + 1e-12
        assert found.converged[0] == (found.gap[0] <= 1e-8)


def test_bounds_the_wrong_way_round():
    with pytest.raises(ValueError, match="lower bound is above"):
        one_column(Rows(DIABETES), Y_DIABETES, -1.0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
def test_of_optimal_intercepts_it_is_the_one_in_the_middle(penalty, weighted):
    """Of a quantile that lies between two rows, as NumPy has it; and of all that a distance leaves equal."""
    rng = np.random.default_rng(0)
    X, y, levels = rng.normal(size=(40, 3)), rng.normal(size=40), [0.25, 0.5, 0.9]
    counts = np.repeat([1.0, 3.0], 20) if weighted else None
    repeated = y if counts is None else np.repeat(y, counts.astype(int))
    between = np.quantile(repeated, levels, method="averaged_inverted_cdf")
    strong, weak = (LinearRegressor(Quantile(levels), penalty=penalty, alpha=alpha) for alpha in (1e4, 1e-2))
    other = clone(strong)
    assert fit_stack([weak, other], X, y, counts) == [None, None]
    for reg in (strong.fit(X, y, counts), other):
        np.testing.assert_allclose(reg.predict(X), np.tile(between, (40, 1)), atol=1e-3)

    far = np.array([0.0, 1.0, 5.0, 5.5])  # within .5 of both ends of the middle: from 1.5 to 4.5
    reg = LinearRegressor(EpsilonInsensitive(0.5), penalty=penalty, alpha=1e4).fit(np.eye(4), far)
    np.testing.assert_allclose(reg.intercept_, 3.0, atol=1e-3)
