"""Newton's directions of smoothed hinges: of many free terms, in single precision where it suffices, or by class."""

import numpy as np
import pytest
from scipy import sparse

from skdeep.exact import hinge_newton
from skdeep.exact.hinge_terms import CrammerSinger, WestonWatkins
from skdeep.exact.rows import Rows, SparseRows


def system(n, rho, seed=0):
    """Free terms of a random problem: rows of the system, penalty factors and a gradient."""
    rng = np.random.default_rng(seed)
    E, Z = rng.normal(size=(n, 4)), np.hstack([rng.normal(size=(n, 90)), np.ones((n, 1))])
    factor = np.full((4, 91), rho)
    factor[:, -1] = 1e-6 * rho
    return E, Rows(Z), factor, rng.normal(size=(4, 91))


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
    E, rows, factor, gradient = system(300, rho)
    # twice the same rows: nothing but the identity tells them apart
    E, rows = np.vstack([E, E]), Rows(np.vstack([rows.Z, rows.Z]))
    step = hinge_newton._dual(E, rows, factor, gradient, True)
    exact = hinge_newton._of_terms(E, rows, factor, gradient, True)
    known = -gradient / (factor + 1) if exact is None else exact
    np.testing.assert_allclose(step, known, rtol=1e-3, atol=1e-2 * np.abs(known).max())


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("n", [40, 300])
def test_sparse_rows_have_the_same_directions(n, intercept):
    E, dense, factor, gradient = system(n, 0.5)
    columns = dense.Z[:, :90]
    columns[np.abs(columns) < 1] = 0.0
    if not intercept:
        factor, gradient, dense = factor[:, :90], gradient[:, :90], Rows(columns)
    rows = SparseRows(sparse.csr_array(columns), intercept)
    exact = hinge_newton._of_terms(E, dense, factor, gradient, intercept)
    found = hinge_newton._of_terms(E, rows, factor, gradient, intercept)
    np.testing.assert_allclose(found, exact, atol=1e-10 * np.abs(exact).max())
    near = hinge_newton._dual(E, rows, factor, gradient, intercept)
    assert np.abs(near - exact).max() < 1e-2 * np.abs(exact).max()


def test_a_step_that_is_none_of_newtons_is_told():
    E, rows, factor, gradient = system(50, 1.0)
    exact = hinge_newton._of_terms(E, rows, factor, gradient, True)
    for wrong in (-exact, 2 * exact, np.full_like(exact, np.nan), np.full_like(exact, np.inf)):
        with np.errstate(invalid="ignore"):
            assert not hinge_newton._is_newton(wrong, E, rows, factor, gradient)


@pytest.mark.parametrize(("n", "d", "C"), [(300, 16, 4), (400, 25, 3)])
def test_terms_added_up_by_pairs_of_classes_give_the_same_direction(n, d, C, monkeypatch):
    rng = np.random.default_rng(0)
    rows, codes = Rows(np.hstack([rng.normal(size=(n, d)), np.ones((n, 1))])), rng.integers(0, C, n)
    terms, gradient = WestonWatkins(codes, C), rng.normal(size=(2, C, d + 1))
    free = terms.free(rng.uniform(-0.5, 1.5, size=(2, C, n)), np.ones(2))[0]
    free[:, codes, np.arange(n)] = False
    bends = hinge_newton.Bends(free, None, rng.uniform(size=(2, n)), rng.uniform(0.1, 1, size=(2, C, d + 1)))
    of_pairs, calls = hinge_newton._of_pairs, []

    def counted(*args):
        calls.append(1)
        return of_pairs(*args)

    monkeypatch.setattr(hinge_newton, "_of_pairs", counted)
    found = hinge_newton.directions(rows, terms, bends, gradient, True)
    assert len(calls) == 2
    monkeypatch.setattr(hinge_newton, "_FEW", C * (d + 1))
    known = hinge_newton.directions(rows, terms, bends, gradient, True)
    assert len(calls) == 2
    np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12 * np.abs(known).max())


@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_conjugate_gradients_take_few_products_of_rows_with_free_terms(ridge, monkeypatch):
    """As if columns were equally common there, they took 90 and 45 products with all rows."""
    rng = np.random.default_rng(0)
    n, d, C = 300, 400, 3
    X = (rng.random((n, d)) < 0.005 + 0.5 / np.arange(1, d + 1)).astype(float)  # a few common words, and many rare ones
    X /= np.maximum(np.sqrt((X * X).mean(0)), 1e-3)
    terms = WestonWatkins(rng.integers(0, C, n), C).terms(1)
    free = np.zeros((1, C, n), dtype=bool)
    free[:, :, :60] = rng.random((1, C, 60)) < 0.5
    free[:, terms.codes, np.arange(n)] = False
    rows, scale = SparseRows(sparse.csr_array(X), False), np.full((1, n), 1 / n)
    gradient = rng.normal(size=(C, d))
    bends = hinge_newton.Bends(free, None, scale, np.full((1, C, d), ridge))
    monkeypatch.setattr(hinge_newton, "_INEXACT", 1e-6)
    sizes, scores = [], SparseRows.scores

    def counted(self, params):
        sizes.append(self.shape[0])
        return scores(self, params)

    monkeypatch.setattr(SparseRows, "scores", counted)
    step = hinge_newton._conjugate_gradients(rows, terms, bends, gradient, False)
    assert set(sizes) == {np.count_nonzero(free.any((0, 1)))}
    assert len(sizes) < (60 if ridge < 1e-2 else 40)

    index = free.nonzero()
    E = terms.directions(free, index, None) * np.sqrt(scale[0, index[2]])[:, None]
    exact = hinge_newton._of_terms(E, rows.select(index[2]), bends.factor[0], gradient, False)
    np.testing.assert_allclose(step, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", [WestonWatkins, CrammerSinger])
def test_conjugate_gradients_of_dense_rows_are_led_by_the_block_of_each_class(kind, intercept, monkeypatch):
    rng = np.random.default_rng(0)
    n, d, C = 200, 12, 4
    X = rng.normal(size=(n, d)) * np.logspace(0, -3, d)  # unequal columns, which a block knows of
    rows = Rows(np.hstack([X, np.ones((n, int(intercept)))]))
    terms, scale = kind(rng.integers(0, C, n), C), np.full((1, n), 1 / n)
    slope = terms.project(terms.margins(rng.normal(size=(1, C, n))), np.ones(1))
    free, coupling = terms.free(slope, np.ones(1))
    gradient, factor = rng.normal(size=(C, d + intercept)), np.full((1, C, d + intercept), 1e-6)
    if intercept:  # a common shift of which changes nothing
        gradient[:, d] -= gradient[:, d].mean()
    bends = hinge_newton.Bends(free, coupling, scale, factor)
    monkeypatch.setattr(hinge_newton, "_INEXACT", 1e-8)
    steps, scores = [], Rows.scores

    def counted(self, params):
        steps.append(1)
        return scores(self, params)

    monkeypatch.setattr(Rows, "scores", counted)
    found = hinge_newton._conjugate_gradients(rows, terms, bends, gradient, intercept)
    assert len(steps) < 120  # of the penalty alone, 150 and more
    index = free.nonzero()
    E = terms.directions(free, index, coupling)
    second = np.zeros((C, n))
    np.add.at(second.T, index[2], E * E)
    np.testing.assert_allclose(terms.second(free, coupling)[0], second, atol=1e-12)
    E *= np.sqrt(scale[0, index[2]])[:, None]
    known = hinge_newton._of_terms(E, rows.select(index[2]), factor[0], gradient, intercept)
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4 * np.abs(known).max())
