"""Newton's directions of smoothed hinges: those of many free terms come in single precision, where that suffices."""

import numpy as np
import pytest

from skdeep.exact import hinge_newton


def system(n, rho, seed=0):
    """Free terms of a random problem: rows of the system, penalty factors and a gradient."""
    rng = np.random.default_rng(seed)
    E, Z = rng.normal(size=(n, 4)), np.hstack([rng.normal(size=(n, 90)), np.ones((n, 1))])
    factor = np.full((4, 91), rho)
    factor[:, -1] = 1e-6 * rho
    return E, Z, factor, rng.normal(size=(4, 91))


@pytest.mark.parametrize("rho", [1e-2, 1.0, 1e3])
def test_single_precision_is_near(rho):
    given = system(300, rho)
    step = hinge_newton._dual(*given, True)
    exact = hinge_newton._of_terms(*given, True)
    assert np.abs(step - exact).max() < 1e-2 * np.abs(exact).max()
    assert not np.array_equal(step, exact)
    assert hinge_newton._is_newton(exact, *given)


@pytest.mark.parametrize("rho", [1e-12, 1e-30, 1e-45])
def test_where_it_does_not_suffice_double_precision_does(rho):
    E, Z, factor, gradient = system(300, rho)
    E, Z = np.vstack([E, E]), np.vstack([Z, Z])  # twice the same rows: nothing but the identity tells them apart
    step = hinge_newton._dual(E, Z, factor, gradient, True)
    exact = hinge_newton._of_terms(E, Z, factor, gradient, True)
    known = -gradient / (factor + 1) if exact is None else exact
    np.testing.assert_allclose(step, known, rtol=1e-3, atol=1e-2 * np.abs(known).max())


def test_a_step_that_is_none_of_newtons_is_told():
    E, Z, factor, gradient = system(50, 1.0)
    exact = hinge_newton._of_terms(E, Z, factor, gradient, True)
    for wrong in (-exact, 2 * exact, np.full_like(exact, np.nan), np.full_like(exact, np.inf)):
        with np.errstate(invalid="ignore"):
            assert not hinge_newton._is_newton(wrong, E, Z, factor, gradient)
