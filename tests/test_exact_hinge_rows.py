"""Hinges of one model at a time: the same optimum as other solvers find, proven, whatever rows are looked at first."""

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, WINE, WINE_Y
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC
from test_exact_hinges import loss_of, objective, penalty, random_problem, standardised

from skdeep.exact import hinge, hinge_interior, hinge_rows, interior_one
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.rows import Rows


def one_score(y):
    return Hinges((y == y.max())[None])


def by_others(rows, loss, weight, rho, gap=1e-9):
    """The same by the interior point of stacks, or the method of multipliers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hinge_rows, "suits", lambda *_: False)
        return hinge.solve(rows, loss, weight, rho, gap)


def binary(seed, n, d, noise=1.0, heavy=False):
    random = np.random.default_rng(seed)
    X = random.standard_t(2, (n, d)) if heavy else random.normal(size=(n, d))
    y = (X @ random.normal(size=d) / np.sqrt(d) + noise * random.normal(size=n) > 0.3).astype(int)
    return standardised(X), y


@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 1.0])
def test_it_is_liblinears_optimum(alpha):
    Z, y = standardised(CANCER, intercept=False), CANCER_Y
    n = len(y)
    found, left = hinge_rows.solve(
        Rows(Z), one_score(y), np.full((1, n), 1 / n), penalty(alpha, Z.shape[1], False)[:1], np.full(1, 1e-6), 1000
    )
    theirs = LinearSVC(loss="hinge", C=1 / (n * alpha), fit_intercept=False, tol=1e-10, max_iter=1_000_000).fit(Z, y)
    assert not len(left)
    np.testing.assert_allclose(found.params[0, 0], theirs.coef_[0], atol=2e-4 * np.abs(theirs.coef_).max())
    assert found.gap[0] <= 1e-9  # the end is exact


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["one score", "weston_watkins"]),
    seed=st.integers(0, 10_000),
    n=st.integers(6, 60),
    alpha=st.sampled_from([1e-8, 1e-3, 0.1, 1.0, 100.0]),
    intercept=st.booleans(),
    rounded=st.booleans(),
)
def test_it_is_the_optimum_of_others(kind, seed, n, alpha, intercept, rounded):
    """Where it says that it is: rows that are alike, of any weight, and separable ones among them."""
    C = 2 if kind == "one score" else 3
    Z, y, w = random_problem(seed, n, C=C, intercept=intercept)
    Z = Z.round(1) if rounded else Z
    rows, loss = Rows(Z), one_score(y) if C == 2 else loss_of(kind, y, C)
    weight, rho = w[None], penalty(alpha, Z.shape[1], intercept)
    found, left = hinge_rows.solve(rows, loss, weight, rho, np.full(1, 1e-6), 1000)
    assert hinge.solve(rows, loss, weight, rho, 1e-6).converged[0]
    if len(left):
        return
    best = by_others(rows, loss, weight, rho)
    assert found.value[0] == pytest.approx(best.value[0], rel=1e-6, abs=1e-12)
    if C == 3:
        assert found.value[0] == pytest.approx(objective(kind, Z, y, w, rho, found.params[0]), rel=1e-9)
    assert (found.duals >= 0).all() and (found.duals <= 1).all()


@pytest.mark.parametrize(("X", "y"), [(IRIS, IRIS_Y), (WINE, WINE_Y)])
def test_all_terms_of_few_rows(X, y):
    """The end is exact, and comes no later than by the interior point of stacks."""
    rows, loss, n = Rows(standardised(X)), WestonWatkins(y, 3), len(y)
    weight, rho = np.full((1, n), 1 / n), penalty(1 / n, X.shape[1] + 1)
    found, left = hinge_rows.solve(rows, loss, weight, rho, np.full(1, 1e-6), 1000)
    best = by_others(rows, loss, weight, rho)
    assert not len(left) and found.gap[0] < 1e-12
    np.testing.assert_allclose(found.params, best.params, atol=1e-5)
    near = hinge_interior.approach(rows, loss, weight, rho, np.full(1, 5e-7), 1000)
    assert len(found.curve[0]) <= len(near.curve[0])
    # duals are the slopes that the penalty balances
    terms = loss.terms(1)
    pull = terms.to_scores(found.duals * weight[:, None])
    np.testing.assert_allclose(rows.back(pull)[0][:, :-1], -(rho[:, None] * found.params)[0][:, :-1], atol=1e-12)


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("noise", [0.05, 2.0])
def test_few_rows_are_looked_at(heavy, noise, monkeypatch):
    Z, y = binary(0, 3000, 10, noise, heavy)
    n, sizes, start = len(y), [], interior_one._One.find
    weight, alphas = np.full((4, n), 1 / n), [1e-4, 1e-3, 1e-2, 1e-1]
    weight[:2, ::5] = 0
    weight /= weight.sum(1, keepdims=True)
    rho = penalty(alphas, Z.shape[1])

    def find(system, max_iter):
        sizes.append(system.terms.n)
        return start(system, max_iter)

    monkeypatch.setattr(interior_one._One, "find", find)
    found, left = hinge_rows.solve(Rows(Z), one_score(y), weight, rho, np.full(4, 1e-6), 1000)
    assert not len(left) and max(sizes) < n / 2
    best = by_others(Rows(Z), one_score(y), weight, rho, 1e-8)
    np.testing.assert_allclose(found.value, best.value, rtol=1e-6)
    np.testing.assert_allclose(found.params, best.params, atol=1e-3 * np.abs(best.params).max())


def test_what_it_does_not_find_others_do(monkeypatch):
    """Of a stack, models after one that is given up are not tried in vain, but for stronger penalties."""
    Z, y = binary(1, 2000, 4)
    n, asked, start = len(y), [], interior_one.Violations.find
    weight, rho = np.full((3, n), 1 / n), penalty([1e-3, 1e-1, 1e-2], 5)

    def find(violations, rho, *rest):
        asked.append(rho.max())
        return start(violations, rho, *rest) if rho.max() > 0.05 else None

    monkeypatch.setattr(interior_one.Violations, "find", find)
    _, left = hinge_rows.solve(Rows(Z), one_score(y), weight, rho, np.full(3, 1e-6), 1000)
    assert left.tolist() == [0, 2] and asked == [0.1, 0.01]
    found = hinge.solve(Rows(Z), one_score(y), weight, rho)
    assert found.converged.all()
    np.testing.assert_allclose(found.value, by_others(Rows(Z), one_score(y), weight, rho).value, rtol=2e-6)


def test_steps_that_lead_nowhere_have_a_budget(monkeypatch):
    """Also where rows are of one column: all rows are not looked at any more."""
    random = np.random.default_rng(0)
    X = random.standard_cauchy((24000, 1))
    y, n, sizes, start = (X[:, 0] > 0).astype(int), 24000, [], interior_one._One.find
    y[::50] = 1 - y[::50]

    def find(system, max_iter):
        curve = start(system, max_iter)
        sizes.append(system.terms.n)
        system.end = None
        return curve

    monkeypatch.setattr(interior_one._One, "find", find)
    rows, weight, rho = Rows(X / X.std()), np.full((1, n), 1 / n), np.full((1, 1), 1e-4)
    _, left = hinge_rows.solve(rows, one_score(y), weight, rho, np.full(1, 1e-6), 1000)
    assert len(left) and 0 < max(sizes) < n


def test_columns_are_solved_one_after_the_other():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 1600)
    Z = standardised(random.normal(size=(1600, 5)) + 1.5 * np.eye(5)[y])
    rows, loss, rho = Rows(Z), loss_of("ovr", y, 3), penalty([1e-3, 1e-1], 6)
    weight = np.full((2, 1600), 1 / 1600)
    assert hinge_rows.are_apart(rows, loss)
    found = hinge.solve(rows, loss, weight, rho)
    for c in range(3):
        one = hinge.solve(rows, Hinges(loss.sign[c : c + 1] > 0), weight, rho)
        np.testing.assert_array_equal(one.params[:, 0], found.params[:, c])
    values = [objective("ovr", Z, y, own, rho[k], found.params[k]) for k, own in enumerate(weight)]
    np.testing.assert_allclose(found.value, values, rtol=1e-9)
    assert found.converged.all() and (found.gap <= 1e-6).all()


def test_what_is_solved_so():
    rows, few = Rows(np.ones((200, 4))), Rows(np.ones((100, 2)))
    y = np.arange(200) % 2
    assert hinge_rows.suits(rows, one_score(y), 1)
    assert not hinge_rows.suits(rows, one_score(y), 2)  # a stack of few rows takes fewer calls
    assert hinge_rows.suits(Rows(np.ones((2000, 4))), one_score(np.arange(2000) % 2), 2)
    assert not hinge_rows.suits(Rows(np.ones((2000, 100))), one_score(np.arange(2000) % 2), 1)
    assert hinge_rows.suits(few, WestonWatkins(y[:100], 2), 1)
    assert not hinge_rows.suits(few, CrammerSinger(y[:100], 2), 1)
    assert not hinge_rows.suits(Rows(np.ones((5000, 20))), WestonWatkins(np.arange(5000) % 3, 3), 1)


@pytest.mark.parametrize("kind", ["ovr", "weston_watkins"])
def test_in_a_stack_ends_are_exact_too(kind):
    """So that a model is the same alone, where it is solved otherwise."""
    Z, y, w = random_problem(3, 60)
    rows, loss, weight = Rows(Z), loss_of(kind, y, 3), np.tile(w, (4, 1))
    weight[2:, ::4] = 0
    weight /= weight.sum(1, keepdims=True)
    rho = penalty([1e-3, 1e-2, 1e-3, 1e-2], Z.shape[1])
    found = hinge.solve(rows, loss, weight, rho, 1e-6)
    clear = np.flatnonzero(found.gap <= 1e-12)
    assert len(clear) >= 3 and found.converged.all()
    for k in clear:
        alone = hinge.solve(rows, loss, weight[k : k + 1], rho[k : k + 1], 1e-6)
        np.testing.assert_allclose(found.params[k], alone.params[0], atol=1e-9)


def test_where_an_interval_of_intercepts_is_optimal_it_is_as_others_choose():
    """Its middle, by all rows: all are within the margins of a strong penalty, and classes are of the same weight."""
    n = 3000
    random, y = np.random.default_rng(0), np.arange(n) % 2
    Z = standardised(random.normal(size=(n, 6)) + y[:, None])
    rows, loss, weight, rho = Rows(Z), one_score(y), np.full((3, n), 1 / n), penalty([0.1, 100.0, 30.0], 7)
    _, left = hinge_rows.solve(rows, loss, weight, rho, np.full(3, 1e-6), 1000)
    assert left.tolist() == [1, 2]  # weaker penalties are tried after these
    for models in ([0, 1, 2], [1]):
        found = hinge.solve(rows, loss, weight[models], rho[models])
        best = by_others(rows, loss, weight[models], rho[models], 1e-6)
        assert found.converged.all()
        np.testing.assert_allclose(found.params[-1], best.params[-1], atol=1e-9)
        assert abs((rows.scores(found.params[-1:]) > 0).mean() - 0.5) < 0.02


def test_kinks_that_hold_one_intercept_do_not_hold_all():
    """Of three classes of which two are alike; in a stack, all rows are looked at."""
    y = np.repeat([0, 1, 2], [235, 235, 220])
    Z = standardised(np.random.default_rng(1).normal(size=(690, 6)) + np.eye(6)[y])
    rows, loss, weight, rho = Rows(Z), WestonWatkins(y, 3), np.full((2, 690), 1 / 690), penalty([30.0, 0.1], 7)
    assert hinge_rows.suits(rows, loss, 1) and not hinge_rows.suits(rows, loss, 2)
    alone, stack = hinge.solve(rows, loss, weight[:1], rho[:1]), hinge.solve(rows, loss, weight, rho)
    np.testing.assert_allclose(alone.params[0], stack.params[0], atol=1e-9)


def test_gaps_of_objectives_near_zero_are_as_small():
    """A class that weighs next to nothing makes hinges that are smaller than rounding of others."""
    random, y = np.random.default_rng(0), np.arange(40) % 2
    Z, w = standardised(random.normal(size=(40, 5))), np.where(y == 0, 1.0, 1e-12)
    weight, rho = w[None] / w.sum(), penalty(10.0, 6)
    found = hinge.solve(Rows(Z), one_score(y), weight, rho, 1e-6)
    assert found.gap[0] <= 1e-6 or not found.converged[0]
