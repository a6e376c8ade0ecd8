"""Squared hinges of few rows: where the descent of all smooth objectives ends, by the same steps; or left to that."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_wine

from skdeep import HingeClassifier
from skdeep.exact import finite_newton
from skdeep.exact.descent import AT_REST, Stack, descend
from skdeep.exact.losses import SquaredHinges
from skdeep.exact.newton import Newton
from skdeep.exact.rows import Rows, SparseRows


def problem(n, d, n_models, strength, seed):
    """Random rows with an intercept, signs, weights of which some are zero, and a ridge."""
    rng = np.random.default_rng(seed)
    Z = np.hstack([rng.normal(size=(n, d)), np.ones((n, 1))])
    sign = np.where(Z @ rng.normal(size=(d + 1, n_models)) + 0.3 * rng.normal(size=(n, n_models)) > 0, 1.0, -1.0).T
    weight = rng.random(n) * (rng.random(n) < 0.9) + 1e-3
    rho = strength * rng.uniform(0.5, 2, (n_models, d + 1))
    rho[:, -1] = 0
    return Rows(Z), np.ascontiguousarray(sign), weight / weight.sum(), rho


@settings(max_examples=40, deadline=None)
@given(
    st.integers(5, 200), st.integers(1, 40), st.integers(1, 4), st.sampled_from([1e-5, 1e-2, 1.0]), st.integers(0, 99)
)
def test_it_ends_where_descent_does(n, d, n_models, strength, seed):
    """Not by the same steps, of many, as rounding may tell how one is cut short."""
    rows, sign, weight, rho = problem(n, d, n_models, strength, seed)
    start, tol = np.zeros((n_models, d + 1)), np.full(n_models, 1e-8)
    stack = Stack(rows, SquaredHinges(sign[:, None]), weight[None], rho, start[:, None])
    whole = descend(stack, Newton(d + 1), tol, 500)
    found = finite_newton.solve(rows, sign, weight, rho, start, tol, 2000)
    if found is None:  # a curvature that rounding hides, as of signs that are all alike
        return
    assert (found.bound <= tol).all() and found.stopped == [AT_REST.format(1e-8)] * n_models
    assert all(whole.stopped)
    for k in range(n_models):
        assert found.curve[k][0] == pytest.approx(whole.curve[k][0], abs=1e-9)
        assert found.curve[k][-1] == pytest.approx(whole.curve[k][-1], abs=1e-9)
        assert all(np.diff(found.curve[k]) < 1e-15)


def test_what_it_finds_is_found_of_most_problems():
    problems = [problem(100, 6, 3, 1e-2, seed) for seed in range(20)]
    found = [finite_newton.solve(*p, np.zeros((3, 7)), np.full(3, 1e-8), 200) for p in problems]
    assert sum(one is not None for one in found) >= 18


def test_a_start_at_the_optimum_stays_there():
    rows, sign, weight, rho = problem(80, 4, 2, 1e-2, 1)
    found = finite_newton.solve(rows, sign, weight, rho, np.zeros((2, 5)), np.full(2, 1e-9), 100)
    again = finite_newton.solve(rows, sign, weight, rho, found.params[:, 0], np.full(2, 1e-8), 1)
    np.testing.assert_array_equal(again.params, found.params)
    assert [len(curve) for curve in again.curve] == [1, 1]


def test_what_is_not_plain_is_left_to_descent():
    rows, sign, weight, rho = problem(80, 4, 2, 1e-2, 1)
    start, tol = np.zeros((2, 5)), np.full(2, 1e-9)
    assert finite_newton.solve(rows, sign, weight, rho, start, tol, 2) is None  # too few evaluations
    assert finite_newton.solve(rows, sign, weight, 0 * rho, start, 0 * tol, 500) is None  # no gradient is that small
    twice = Rows(np.hstack([rows.Z, rows.Z[:, :1]]))
    assert finite_newton.solve(twice, sign, weight, np.zeros((2, 6)), np.zeros((2, 6)), tol, 500) is None  # singular
    assert not finite_newton.suits(SparseRows(sparse.csr_array(rows.Z), False))
    assert not finite_newton.suits(Rows(np.zeros((10, 300))))


@pytest.mark.parametrize("max_iter", [3, 200])
def test_fits_do_not_depend_on_it(max_iter, monkeypatch):
    X, y = load_wine(return_X_y=True)
    model = HingeClassifier("squared_hinge", multi_class="ovr", calibration=None, max_iter=max_iter)
    with pytest.warns() if max_iter == 3 else np.errstate():
        ours = model.fit(X, y).decision_function(X), model.n_iter_, model.loss_curve_
        monkeypatch.setattr(finite_newton, "suits", lambda rows: False)
        theirs = model.fit(X, y).decision_function(X), model.n_iter_, model.loss_curve_
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-11)
    assert ours[1] == theirs[1] and ours[2] == pytest.approx(theirs[2], abs=1e-13)
