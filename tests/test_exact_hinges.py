"""The exact solver of the hinges: independent solvers, its own certificate, and what must not matter."""

import warnings

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, WINE, WINE_Y
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import LinearConstraint, minimize
from sklearn.svm import LinearSVC

from skdeep.exact import hinge, hinge_interior, hinge_multipliers, hinge_rows
from skdeep.exact.hinge import solve
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.rows import Rows, SparseRows

KINDS = ["ovr", "weston_watkins", "crammer_singer", "crammer_singer squared"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def standardised(X, intercept=True):
    sd = X.std(0)
    Z = (X - X.mean(0)) / np.where(sd > 1e-12, sd, 1)
    return np.ascontiguousarray(np.column_stack([Z, np.ones(len(Z))]) if intercept else Z)


def loss_of(kind, y, n_scores):
    if kind == "ovr":
        return Hinges(np.arange(n_scores)[:, None] == y)
    if kind == "weston_watkins":
        return WestonWatkins(y, n_scores)
    return CrammerSinger(y, n_scores, kind.endswith("squared"))


def penalty(alpha, D, intercept=True):
    rho = np.full((np.size(alpha), D), np.reshape(alpha, (-1, 1)), dtype=float)
    if intercept:
        rho[:, -1] = 0
    return rho


def objective(kind, Z, y, weight, rho, params):
    """The objective, row by row, from the definition of the losses."""
    total = 0.5 * (rho * params**2).sum()
    for z, code, w in zip(Z, y, weight, strict=True):
        s = params @ z
        rivals = [s[j] - s[code] + 1 for j in range(len(s)) if j != code]
        if kind == "ovr":
            loss = sum(max(0.0, 1 - (1 if c == code else -1) * s[c]) for c in range(len(s)))
        elif kind == "weston_watkins":
            loss = sum(max(0.0, v) for v in rivals)
        else:
            loss = max(0.0, *rivals) ** (2 if kind.endswith("squared") else 1)
        total += w * loss
    return total


def random_problem(seed, n=40, d=3, C=3, noise=1.0, intercept=True, weighted=True):
    random = np.random.default_rng(seed)
    y = np.r_[np.arange(C), random.integers(0, C, max(n - C, 0))][:n]
    X = random.normal(size=(n, d)) * noise + random.normal(size=(C, d))[y] * 2
    w = random.exponential(size=n) if weighted else np.ones(n)
    return standardised(X, intercept), y, w / w.sum()


def solved(kind, Z, y, w, rho, C, gap=1e-9, **options):
    found = solve(Rows(Z), loss_of(kind, y, C), np.atleast_2d(w), np.atleast_2d(rho), gap, **options)
    assert found.converged.all()
    return found


# ---- the optimum -----------------------------------------------------------------------------------------------------


def test_columns_that_a_stack_leads_astray_are_solved_alone():
    """Few rows have nearly all weight: it ended at 849, where 1e-6 is possible, and said that it had no certificate."""
    Z, y, _ = random_problem(2931, 15, 39, 2, 0.1, False)
    w = 10 ** -np.random.default_rng(2931).uniform(0, 12, 15)
    rho = penalty(10**-4.45703125, Z.shape[1], False)[0]
    found = solved("ovr", Z, y, w / w.sum(), rho, 2, gap=1e-6)
    assert found.value[0] == pytest.approx(1.1218e-6, rel=1e-3)


@each_kind
@pytest.mark.parametrize("intercept", [True, False])
def test_a_general_solver_finds_the_same(kind, intercept):
    """SLSQP, of the problem with a slack for each term (or row) and linear constraints."""
    C = 3
    Z, y, w = random_problem(3, n=14, d=2, intercept=intercept)
    n, D = Z.shape
    rho = penalty(0.05, D, intercept)[0]
    single, squared = kind.startswith("crammer"), kind.endswith("squared")
    pairs = [(i, j) for i in range(n) for j in range(C) if kind == "ovr" or j != y[i]]
    n_slack = n if single else len(pairs)
    A = np.zeros((len(pairs), C * D + n_slack))  # slack - margin + 1 >= 1
    for r, (i, j) in enumerate(pairs):
        if kind == "ovr":
            A[r, j * D : (j + 1) * D] = (1 if j == y[i] else -1) * Z[i]
        else:
            A[r, y[i] * D : (y[i] + 1) * D] = Z[i]
            A[r, j * D : (j + 1) * D] = -Z[i]
        A[r, C * D + (i if single else r)] = 1
    cost = w if single else w[[i for i, _ in pairs]]
    R = np.tile(rho, C)

    def value(x):
        slack = x[C * D :]
        return 0.5 * (R * x[: C * D] ** 2).sum() + cost @ (slack**2 if squared else slack)

    def gradient(x):
        return np.r_[R * x[: C * D], cost * (2 * x[C * D :] if squared else 1)]

    start = np.r_[np.zeros(C * D), np.ones(n_slack)]
    bounds = [(None, None)] * (C * D) + [(0, None)] * n_slack
    constraint = {"type": "ineq", "fun": lambda x: A @ x - 1, "jac": lambda x: A}
    other = minimize(value, start, jac=gradient, bounds=bounds, constraints=constraint, method="SLSQP",
                     options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    assert LinearConstraint(A, 1).residual(other.x)[0].min() > -1e-9
    found = solved(kind, Z, y, w, rho, C)
    assert found.value[0] == pytest.approx(objective(kind, Z, y, w, rho, found.params[0]), rel=1e-12)
    assert found.value[0] == pytest.approx(other.fun, rel=1e-6)
    assert found.value[0] <= other.fun * (1 + 1e-8)


@pytest.mark.parametrize("alpha", [1e-3, 1e-1])
def test_liblinear_finds_the_same(alpha):
    for X, y, C in ((CANCER, CANCER_Y, 2), (IRIS, IRIS_Y, 3)):
        Z = standardised(X, intercept=False)
        n, D = Z.shape
        w, rho = np.full(n, 1 / n), penalty(alpha, D, False)[0]
        forms = {"ovr": {"loss": "hinge"}, "crammer_singer": {"multi_class": "crammer_singer"}}
        for kind, options in forms.items():
            if kind == "crammer_singer" and C == 2:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                svc = LinearSVC(C=1 / (alpha * n), fit_intercept=False, tol=1e-9, max_iter=100_000, **options).fit(Z, y)
            coef = np.concatenate([-svc.coef_, svc.coef_]) if C == 2 else svc.coef_
            found = solved(kind, Z, y, w, rho, C)
            assert found.value[0] == pytest.approx(objective(kind, Z, y, w, rho, coef), rel=1e-6)
            assert found.value[0] <= objective(kind, Z, y, w, rho, coef) * (1 + 1e-9)
            np.testing.assert_allclose(found.params[0], coef, rtol=1e-3, atol=1e-3 * np.abs(coef).max())


@each_kind
def test_duals_are_slopes_that_balance_the_penalty(kind):
    """Karush, Kuhn and Tucker's conditions, of each term."""
    Z, y, w = random_problem(5, n=80)
    n, D = Z.shape
    rho = penalty(0.02, D)[0]
    found = solved(kind, Z, y, w, rho, 3, gap=1e-12)
    V, a = found.params[0], found.duals[0]
    scores, each = V @ Z.T, np.arange(n)
    if kind == "ovr":
        sign = np.where(np.arange(3)[:, None] == y, 1, -1)
        margin, slope = 1 - sign * scores, -sign * a
    else:
        margin, slope = scores - scores[y, each] + 1, a.copy()
        margin[y, each] = -np.inf
        slope[y, each] = -a.sum(0)
    assert (a >= 0).all()
    np.testing.assert_allclose((slope * w) @ Z, -rho * V, atol=1e-6)
    np.testing.assert_allclose(((slope * w) @ Z)[:, -1], 0, atol=1e-15)  # that the lower bound is one depends on it
    if not kind.startswith("crammer"):
        assert a.max() <= 1
        np.testing.assert_allclose(a[margin > 1e-4], 1, atol=1e-6)
        np.testing.assert_allclose(a[margin < -1e-4], 0, atol=1e-6)
        return
    worst = np.maximum(margin.max(0), 0)
    total = 2 * worst if kind.endswith("squared") else np.where(worst > 1e-4, 1, a.sum(0))
    np.testing.assert_allclose(a.sum(0), total, atol=1e-4)
    assert kind.endswith("squared") or a.sum(0).max() <= 1 + 1e-12
    np.testing.assert_allclose(a[margin < worst - 1e-4], 0, atol=1e-6)


@each_kind
@pytest.mark.parametrize("gap", [1e-2, 1e-6])
def test_the_gap_is_a_bound_and_no_point_nearby_is_better(kind, gap):
    random = np.random.default_rng(0)
    for seed in range(6):
        Z, y, w = random_problem(seed, noise=random.choice([0.1, 1, 4]), d=int(random.integers(1, 60)))
        rho = penalty(10 ** random.uniform(-5, 2), Z.shape[1])[0]
        best, found = solved(kind, Z, y, w, rho, 3, gap=1e-10), solved(kind, Z, y, w, rho, 3, gap=gap)
        assert found.gap[0] <= gap
        assert found.value[0] - best.value[0] <= found.gap[0] * found.value[0] * (1 + 1e-9) + 1e-15
        assert found.curve[0][-1] == pytest.approx(found.value[0], rel=1e-9)
        for scale in (1e-6, 1e-3, 1e-1):
            near = best.params[0] * (1 + scale * random.normal(size=best.params[0].shape))
            assert objective(kind, Z, y, w, rho, near) >= best.value[0] * (1 - 2e-10)


def test_an_end_before_the_optimum_says_so():
    Z, y, w = random_problem(0)
    rho = penalty(1e-3, Z.shape[1])
    best = solved("weston_watkins", Z, y, w, rho, 3)
    for max_iter in (0, 1, 5):
        found = solve(Rows(Z), WestonWatkins(y, 3), w[None], rho, 1e-9, max_iter=max_iter)
        assert not found.converged[0] and len(found.curve[0]) == max_iter + 1
        assert found.value[0] - best.value[0] <= found.gap[0] * found.value[0]


# ---- what must not matter --------------------------------------------------------------------------------------------


@each_kind
def test_a_weight_is_a_repetition_and_none_is_an_absence(kind):
    Z, y, _ = random_problem(1)
    times = np.random.default_rng(2).integers(0, 4, len(y))
    times[:3] = 1
    again = np.repeat(np.arange(len(y)), times)
    rho = penalty(0.01, Z.shape[1])
    one = solved(kind, Z, y, times / times.sum(), rho, 3, gap=1e-10)
    other = solved(kind, Z[again], y[again], np.full(len(again), 1 / len(again)), rho, 3, gap=1e-10)
    assert one.value[0] == pytest.approx(other.value[0], rel=1e-9)
    np.testing.assert_allclose(one.params, other.params, atol=1e-4)
    assert (one.duals[0][:, times == 0] == 0).all()


@pytest.mark.parametrize("fold", [hinge._FOLD, 0])
@each_kind
def test_a_stack_is_its_models_alone(kind, fold, monkeypatch):
    monkeypatch.setattr(hinge, "_FOLD", fold)
    n, C = len(WINE_Y), 3
    Z = standardised(WINE)
    weight = np.ones((3, n))
    for fold in range(3):
        weight[fold, fold::3] = 0
    weight /= weight.sum(1, keepdims=True)
    alphas = [1e-4, 1e-2, 1.0, 1e2]
    weight, rho = np.tile(weight, (len(alphas), 1)), np.repeat(penalty(alphas, Z.shape[1]), 3, 0)
    gaps = np.where(np.arange(len(rho)) % 2, 1e-6, 1e-8)
    together = solved(kind, Z, WINE_Y, weight, rho, C, gap=gaps)
    assert (together.gap <= gaps).all()
    for k in range(len(rho)):
        alone = solved(kind, Z, WINE_Y, weight[k], rho[k], C, gap=1e-8)
        assert together.value[k] == pytest.approx(alone.value[0], rel=gaps[k] + 1e-8)
        assert together.value[k] == pytest.approx(
            objective(kind, Z, WINE_Y, weight[k], rho[k], together.params[k]), rel=1e-10
        )


@each_kind
@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_rows_are_rows(kind, intercept):
    random = np.random.default_rng(0)
    X = sparse.random_array((60, 400), density=0.02, rng=random, format="csr")
    y = random.integers(0, 3, 60)
    w, rho = np.full((1, 60), 1 / 60), penalty(1e-3, 400 + intercept, intercept)
    rows = SparseRows(X, intercept)
    dense = solved(kind, rows.take(np.arange(60)), y, w, rho, 3)
    found = solve(rows, loss_of(kind, y, 3), w, rho, 1e-9)
    assert found.converged[0] and found.value[0] == pytest.approx(dense.value[0], rel=2e-9)


@each_kind
def test_a_start_saves_steps_and_changes_nothing_else(kind, monkeypatch):
    for other in (hinge_interior, hinge_rows):  # it begins without
        monkeypatch.setattr(other, "suits", lambda *_: False)
    Z = standardised(IRIS)
    w = np.full(len(IRIS_Y), 1 / len(IRIS_Y))
    cold = solved(kind, Z, IRIS_Y, w, penalty(0.02, 5), 3, gap=1e-6)
    near = solved(kind, Z, IRIS_Y, w, penalty(0.021, 5), 3, gap=1e-6)
    warm = solved(kind, Z, IRIS_Y, w, penalty(0.02, 5), 3, gap=1e-6, start=(near.params, near.duals))
    assert warm.value[0] == pytest.approx(cold.value[0], rel=2e-6)
    assert len(warm.curve[0]) < len(cold.curve[0])


@pytest.mark.parametrize("kind", ["ovr", "weston_watkins"])
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 60),
    C=st.integers(2, 4),
    alphas=st.lists(st.sampled_from([1e-6, 1e-3, 0.1, 1.0, 100.0]), min_size=1, max_size=3),
    intercept=st.booleans(),
    absent=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_an_interior_point_leads_to_the_optimum(kind, seed, n, C, alphas, intercept, absent):
    """Of each model of a stack, with rows of no weight too: the method of multipliers finds the same, from zero."""
    Z, y, w = random_problem(seed, n, C=C, intercept=intercept)
    weight = np.tile(w, (len(alphas), 1))
    if absent and n > 10:
        weight[-1, : n // 3] = 0
    weight /= weight.sum(1, keepdims=True)
    rho, rows, loss = penalty(alphas, Z.shape[1], intercept), Rows(Z), loss_of(kind, y, C)
    near = hinge_interior.approach(rows, loss, weight, rho, np.full(len(alphas), 1e-7), 100)
    assert (near.duals >= 0).all() and (near.duals <= 1).all()
    found = solve(rows, loss, weight, rho, 1e-7)  # goes on from there where steps went round in a circle
    assert found.converged.all()
    for own, model_rho, params in zip(weight, rho, found.params, strict=True):
        with pytest.MonkeyPatch.context() as patch:
            for other in (hinge_interior, hinge_rows):
                patch.setattr(other, "suits", lambda *_: False)
            best = solve(rows, loss, own[None], model_rho[None], 1e-8)
        assert best.converged[0]
        value = objective(kind, Z, y, own, model_rho, params)
        assert value - best.value[0] <= 1e-5 * best.value[0] + 1e-12


@pytest.mark.parametrize("kind", ["ovr", "weston_watkins"])
@pytest.mark.parametrize("alpha", [1e-4, 0.03, 10.0])
def test_an_interior_point_is_near_in_few_steps(kind, alpha):
    for X, y in ((IRIS, IRIS_Y), (WINE, WINE_Y)):
        rows, loss, n = Rows(standardised(X)), loss_of(kind, y, 3), len(y)
        weight, rho = np.full((1, n), 1 / n), penalty([alpha], X.shape[1] + 1)
        near = hinge_interior.approach(rows, loss, weight, rho, np.full(1, 5e-7), 100)
        assert len(near.curve[0]) <= 25
        certified = solve(rows, loss, weight, rho, 1e-6, max_iter=0, start=(near.params, near.duals))
        assert certified.converged[0]


def test_the_interior_point_leaves_large_problems_alone():
    Z, y, _ = random_problem(0, n=200, d=40, C=8)
    assert hinge_interior.suits(Rows(Z[:, :5]), WestonWatkins(y, 8), 0.0)
    assert not hinge_interior.suits(Rows(Z), WestonWatkins(y, 8), 0.1)
    assert hinge_interior.suits(Rows(Z), WestonWatkins(y, 8), 0.9)
    assert not hinge_interior.suits(SparseRows(sparse.csr_array(Z), True), Hinges(y[None] == 0), 0.9)


# ---- what may come ---------------------------------------------------------------------------------------------------


@each_kind
def test_rows_far_from_margins_stay_out_and_come_back(kind, monkeypatch):
    monkeypatch.setattr(hinge_interior, "_MAX_ROWS", 0)  # multipliers alone
    monkeypatch.setattr(hinge_interior, "_MORE_ROWS", 0)
    Z, y, w = random_problem(3, n=600, d=4, noise=0.7)
    weight, rho, sizes, returned = np.tile(w, (3, 1)), penalty([1e-1, 1e-3, 1e-5], 5), [], []
    measure = hinge_multipliers.Descent.measure

    def watched(descent):
        changes = measure(descent)
        sizes.append(len(descent.near))
        returned.append(descent.has_returned.sum())
        return changes

    monkeypatch.setattr(hinge_multipliers.Descent, "measure", watched)
    few = solve(Rows(Z), loss_of(kind, y, 3), weight, rho, 1e-10)
    assert few.converged.all() and min(sizes) < 300 and max(returned) > 0
    monkeypatch.setattr(hinge_multipliers, "_MOST", 0.0)
    sizes.clear()
    all_ = solve(Rows(Z), loss_of(kind, y, 3), weight, rho, 1e-10)
    assert set(sizes) == {600}
    np.testing.assert_allclose(few.value, all_.value, rtol=2e-10)
    for k in range(3):
        own = objective(kind, Z, y, w, rho[k], few.params[k])
        np.testing.assert_allclose(few.value[k], own, rtol=1e-12)


@each_kind
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    d=st.integers(1, 50),
    C=st.integers(2, 5),
    alpha=st.floats(-8, 4).map(lambda e: 10**e),
    noise=st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    intercept=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 12.0]),
)
@settings(max_examples=15, deadline=None)
def test_any_problem_has_a_certified_optimum(kind, seed, n, d, C, alpha, noise, intercept, spread):
    Z, y, _ = random_problem(seed, n, d, C, noise, intercept)
    w = 10 ** -np.random.default_rng(seed).uniform(0, spread, n) if spread else np.ones(n)
    w /= w.sum()
    rho = penalty(alpha, Z.shape[1], intercept)[0]
    found = solved(kind, Z, y, w, rho, C, gap=1e-6)
    assert found.value[0] == pytest.approx(objective(kind, Z, y, w, rho, found.params[0]), rel=1e-8, abs=1e-14)
    assert np.isfinite(found.params).all() and np.isfinite(found.duals).all()


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_stayed_out_come_back(seed):
    """Where rows near the margins had none left, parameters shrank to nothing, and no other row was looked at."""
    rng = np.random.default_rng(seed)
    for alpha in 10 ** rng.uniform(-2, 0, 12):
        n, d = rng.integers(30, 41), rng.integers(40, 51)
        Z, y, _ = random_problem(seed, int(n), int(d), 2, 0.1, True)
        w = 10 ** -np.random.default_rng(seed).uniform(0, 1, n)
        solved("crammer_singer", Z, y, w / w.sum(), penalty(alpha, Z.shape[1], True)[0], 2, gap=1e-6)


@each_kind
@pytest.mark.parametrize("intercept", [True, False])
def test_without_a_penalty(kind, intercept):
    """Separable rows come to zero; others to a gap that is as good as their gradient is zero."""
    Z, y, w = random_problem(0, noise=0.05, intercept=intercept)
    separable = solve(Rows(Z), loss_of(kind, y, 3), w[None], np.zeros((1, Z.shape[1])), 1e-6)
    assert separable.converged[0] and separable.value[0] < 1e-12
    Z, y, w = random_problem(0, noise=5.0, intercept=intercept)
    mixed = solve(Rows(Z), loss_of(kind, y, 3), w[None], np.zeros((1, Z.shape[1])), 1e-6)
    nearly = solved(kind, Z, y, w, penalty(1e-9, Z.shape[1], intercept), 3, gap=1e-7)
    assert mixed.converged[0] and mixed.value[0] == pytest.approx(nearly.value[0], rel=1e-5)


def test_a_column_of_one_class_costs_nothing():
    Z = standardised(IRIS)
    target = np.stack([IRIS_Y == 0, IRIS_Y >= 0, IRIS_Y < 0])
    found = solve(Rows(Z), Hinges(target), np.full((1, 150), 1 / 150), penalty(0.1, 5), 1e-8)
    alone = solve(Rows(Z), Hinges(target[:1]), np.full((1, 150), 1 / 150), penalty(0.1, 5), 1e-8)
    assert found.converged[0] and found.value[0] == pytest.approx(alone.value[0], rel=1e-7)
    assert (np.sign((found.params[0] @ Z.T)[1:]) == [[1], [-1]]).all()


@each_kind
def test_one_row_may_have_nearly_all_of_the_weight(kind):
    Z, y, _ = random_problem(4)
    w = np.full(len(y), 0.004 / (len(y) - 1))
    w[5] = 0.996
    found = solved(kind, Z, y, w, penalty(1e-3, Z.shape[1]), 3, gap=1e-8)
    assert found.value[0] == pytest.approx(objective(kind, Z, y, w, penalty(1e-3, Z.shape[1])[0], found.params[0]))


@each_kind
def test_a_path_may_end_without_a_penalty(kind):
    Z, y, w = random_problem(0, noise=5.0)
    rho = penalty([1.0, 0.0, 1e-3, 0.0], Z.shape[1])
    path = solved(kind, Z, y, np.tile(w, (4, 1)), rho, 3, gap=1e-6)
    for k in range(4):
        alone = solved(kind, Z, y, w, rho[k], 3, gap=1e-6)
        assert path.value[k] == pytest.approx(alone.value[0], rel=2e-6)
