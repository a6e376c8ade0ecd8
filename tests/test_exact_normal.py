"""Least squares of one model by normal equations: as exact as a triangular factor of the rows, or left to others."""

import numpy as np
import pytest
from scipy import linalg, sparse
from sklearn.linear_model import LinearRegression

from skdeep import LinearRegressor
from skdeep.exact import normal
from skdeep.exact.rows import Rows, SparseRows

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 4)) @ GENERATOR.normal(size=(4, 4))
Z = np.column_stack([X, np.ones(60)])
TARGETS = np.stack([X @ [1.0, -2, 0.5, 3] + GENERATOR.normal(size=60), X[:, 0] + 7])
WEIGHT = GENERATOR.integers(0, 3, 60) / 60


def stacked(rho):
    """The rows that state the same problem without a penalty."""
    root = np.sqrt(WEIGHT)[:, None]
    return np.vstack([root * Z, np.diag(np.sqrt(rho))]), np.vstack([root * TARGETS.T, np.zeros((5, 2))])


@pytest.mark.parametrize("strength", [0.0, 1e-9, 0.1])
@pytest.mark.parametrize("by_columns", [False, True])
def test_solutions_are_those_of_a_triangular_factor(strength, by_columns):
    rho = strength * np.array([1.0, 1, 1, 2, 0])
    rows = Rows(np.asfortranarray(Z) if by_columns else Z)
    params, value, bound = normal.solve(rows, TARGETS, WEIGHT, rho)
    A, B = stacked(rho)
    expected, *_ = linalg.lstsq(A, B, lapack_driver="gelsy")
    np.testing.assert_allclose(params, expected.T, rtol=1e-11, atol=1e-13)
    assert value == pytest.approx(0.5 * np.square(A @ params.T - B).sum(), rel=1e-12)
    assert bound < 1e-13
    sparse_rows = SparseRows(sparse.csr_array(X), intercept=True)
    np.testing.assert_allclose(normal.solve(sparse_rows, TARGETS, WEIGHT, rho)[0], params, rtol=0, atol=1e-12)


def test_the_second_solution_finds_the_digits_that_the_first_has_lost():
    near = Z.copy()
    near[:, 0] = near[:, 1] + 1e-3 * near[:, 0]
    params, _, _ = normal.solve(Rows(near), TARGETS, WEIGHT, np.zeros(5))
    root = np.sqrt(WEIGHT)[:, None]
    exact, *_ = linalg.lstsq(root * near, root * TARGETS.T, lapack_driver="gelsy")
    once = np.linalg.solve(near.T @ (WEIGHT[:, None] * near), near.T @ (WEIGHT * TARGETS).T).T
    off = [np.abs(found - exact.T).max() for found in (params, once)]
    assert off[0] < 1e-12 * np.abs(params).max() and off[0] < 0.1 * off[1]


@pytest.mark.parametrize("fault", ["twice", "constant", "nearly twice", "few rows", "no number"])
def test_what_is_left_to_others(fault):
    rows, targets, weight = Z.copy(), TARGETS, WEIGHT
    if fault == "twice":
        rows[:, 0] = rows[:, 1]
    elif fault == "constant":
        rows[:, 2] = 3.0
    elif fault == "nearly twice":
        rows[:, 0] = rows[:, 1] + 1e-5 * rows[:, 0]
    elif fault == "few rows":
        rows, targets, weight = rows[:4], targets[:, :4], np.full(4, 0.25)
    else:
        targets = np.where(targets == targets.max(), np.nan, targets)
    assert normal.solve(Rows(rows), targets, weight, np.zeros(5)) is None


@pytest.mark.parametrize("columns", ["plain", "twice", "constant", "far", "float32"])
@pytest.mark.parametrize("intercept", [True, False])
def test_least_squares_are_scikit_learns_whatever_the_columns(columns, intercept):
    """Of least norm, where there are several solutions; two targets at a time; weights of zero."""
    rows, weight = X.copy(), 60 * WEIGHT
    if columns == "twice":
        rows = np.column_stack([rows, rows[:, 0]])
    elif columns == "constant":
        rows = np.column_stack([rows, np.full(60, 5.0 * intercept)])
    elif columns == "far":
        rows = rows + np.array([1e6 if intercept else 1e3, 0, 0, -1e4 * intercept])
    elif columns == "float32":
        rows = rows.astype(np.float32)
    ours = LinearRegressor(penalty=None, fit_intercept=intercept).fit(rows, TARGETS.T, sample_weight=weight)
    used = weight > 0
    theirs = LinearRegression(fit_intercept=intercept)
    theirs.fit(rows[used].astype(float), TARGETS.T[used], sample_weight=weight[used])
    assert ours.solver_ == "exact"
    scale = 1e-6 if columns == "float32" else 1e-9 if columns == "far" else 1e-11
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=scale * np.abs(theirs.coef_).max())
    predicted = theirs.predict(rows.astype(float))
    np.testing.assert_allclose(ours.predict(rows), predicted, rtol=0, atol=50 * scale * np.abs(TARGETS).max())


def test_fewer_rows_than_columns_are_met():
    rows, targets = X[:4], TARGETS[:, :4].T
    found = LinearRegressor(penalty=None).fit(rows, targets)
    np.testing.assert_allclose(found.predict(rows), targets, rtol=0, atol=1e-10)
