"""Newton directions by conjugate gradients: the optima of dense rows, and what takes them."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skdeep import HingeClassifier, LinearRegressor
from skdeep.exact import free_terms, newton_cg, newton_rivals
from skdeep.exact.descent import Stack
from skdeep.exact.losses import SquaredHinges, SquaredWestonWatkins
from skdeep.exact.rows import Rows, SparseRows


def words(seed, n=300, d=400, C=3):
    rng = np.random.default_rng(seed)
    X = sparse.random_array((n, d), density=0.03, rng=rng, format="csr", data_sampler=lambda size: 1 + rng.random(size))
    y = (X @ rng.normal(size=(d, C)) + 0.5 * rng.normal(size=(n, C))).argmax(1)
    return sparse.csr_array(X), y, rng.integers(0, 3, n).astype(float)


@pytest.mark.parametrize("multi_class", ["ovr", "weston_watkins"])
@pytest.mark.parametrize("C", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_rows_end_where_dense_ones_do(multi_class, C, fit_intercept):
    X, y, weight = words(0, C=C)
    model = HingeClassifier(
        "squared_hinge", multi_class=multi_class, alpha=0.01, tol=1e-8, fit_intercept=fit_intercept, calibration=None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        ours, theirs = clone(model).fit(X, y, weight), clone(model).fit(X.toarray(), y, weight)
    assert ours.solver_ == "lbfgs" and ours.n_iter_ <= 25
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-9)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5 * np.abs(theirs.coef_).max())


def test_texts_are_solved_to_the_optimum_by_default():
    """L-BFGS took all its iterations, and mini-batches of many classes ended far above."""
    X, y, _ = words(1, n=600, d=900, C=30)
    for multi_class in ("ovr", "weston_watkins"):
        model = HingeClassifier("squared_hinge", multi_class=multi_class, calibration=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model.fit(X, y)
        assert model.solver_ == "lbfgs" and model.n_iter_ <= 30


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_few_free_terms_are_multiplied_as_all_are(fit_intercept):
    X, codes, weight = words(4, C=7)
    rng = np.random.default_rng(5)
    loss, n_columns = SquaredWestonWatkins(codes, 7), X.shape[1] + fit_intercept
    free, step = rng.random((7, len(codes))) < 0.2, rng.normal(size=(7, n_columns))
    free[codes, np.arange(len(codes))] = False
    rows = SparseRows(X, fit_intercept)
    found = free_terms.FreeTerms(rows, codes, free, 2 * weight).times(step)
    all_of_them = rows.back(loss.times_active(2.0 * free[None], rows.scores(step[None])) * weight)[0]
    np.testing.assert_allclose(found, all_of_them, atol=1e-12 * np.abs(all_of_them).max())


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_systems_of_each_score_are_what_dense_ones_give(fit_intercept, kind):
    X, codes, weight = words(11, n=60, d=90, C=4)
    rng, n_columns = np.random.default_rng(12), X.shape[1] + fit_intercept
    free, right = rng.random((4, len(codes))) < 0.3, rng.normal(size=(4, n_columns)).astype(kind)
    free[codes, np.arange(len(codes))] = False
    rho = rng.uniform(0.1, 1, (4, n_columns))
    rho[:, : X.shape[1]] = rho[0, : X.shape[1]]
    inverse = np.r_[1 / rho[0, : X.shape[1]], [0] * fit_intercept]
    rows = SparseRows(sparse.csr_array(X, dtype=kind), fit_intercept)
    terms = free_terms.FreeTerms(rows, codes, free, 2 * weight)
    products = 3 * rows.products_of_rows(inverse).astype(kind)
    systems = free_terms.ClassSystems(terms, products, 3.0, (1 / rho).astype(kind), fit_intercept)
    found, Z = systems.solve(right), np.c_[X.toarray(), np.ones((len(codes), int(fit_intercept)))]
    assert found.dtype == kind
    second = 2 * weight * (free + (codes == np.arange(4)[:, None]) * free.sum(0))
    for c in range(4):
        exact = np.linalg.solve((second[c] * Z.T) @ Z + np.diag(rho[c]), right[c])
        np.testing.assert_allclose(found[c], exact, atol=(1e-12 if kind is np.float64 else 1e-4) * np.abs(exact).max())


def test_weak_penalties_of_rivals_go_by_systems_of_each_score(monkeypatch):
    """Of texts, columns' own curvatures left hundreds of products for each direction."""
    X, y, _ = words(13, n=200, d=400, C=6)
    model, numbers = HingeClassifier(alpha=1e-5, calibration=None, tol=1e-6), []
    product = free_terms.FreeTerms.times
    monkeypatch.setattr(free_terms.FreeTerms, "times", lambda *own: numbers.append(1) or product(*own))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        ours, theirs = clone(model).fit(X, y), clone(model).fit(X.toarray(), y)
    assert len(numbers) <= 15 * ours.n_iter_
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-4)


def test_weak_penalties_of_one_score_go_by_its_system(monkeypatch):
    X, y, weight = words(14, n=200, d=400, C=3)
    rho, target = np.r_[np.full(400, 1e-4), 0][None], np.where(y == 0, -1.0, 1.0)[None]
    stack = Stack(SparseRows(X, True), SquaredHinges(target), weight[None] / weight.sum(), rho, np.zeros((1, 1, 401)))
    numbers, scores = [], SparseRows.scores
    monkeypatch.setattr(SparseRows, "scores", lambda *own: numbers.append(1) or scores(*own))
    found = newton_cg.NewtonCG(np.array([1e-6]))(stack)
    assert len(numbers) <= 30
    Z, w = np.c_[X.toarray(), np.ones(len(y))], 2 * weight / weight.sum()
    exact = np.linalg.solve((w * Z.T) @ Z + np.diag(rho[0]), -stack.gradient[0, 0])  # of all rows, at scores of zero
    np.testing.assert_allclose(found[0, 0], exact, atol=1e-4 * np.abs(exact).max())


def test_steps_undo_what_all_scores_share():
    """No margin of rivals tells of it, but the penalty alone: conjugate gradients were slow to know."""
    X, codes, weight = words(8, n=900, C=9)
    rng = np.random.default_rng(9)
    rho = np.r_[rng.uniform(0.001, 1, X.shape[1]), 0][None].repeat(2, 0)
    loss, params = SquaredWestonWatkins(codes, 9), rng.normal(size=(2, 9, X.shape[1] + 1))
    for rows in (SparseRows(X, True), Rows(np.c_[X.toarray(), np.ones(len(codes))])):
        sparse_rows = isinstance(rows, SparseRows)
        way = newton_cg.NewtonCG() if sparse_rows else newton_rivals.NewtonOfRivals(rows.shape[1], loss)
        step = way(Stack(rows, loss, weight[None], rho, params.copy()))
        np.testing.assert_allclose(step.mean(1)[:, :-1], -params.mean(1)[:, :-1], atol=1e-9)


@pytest.mark.parametrize("C", [1, 6])
def test_directions_in_single_precision_lead_where_double_ones_do(C):
    """Where columns are too far apart for it, double precision takes over."""
    X, codes, weight = words(10, n=700, C=max(C, 2))
    for sizes in (np.ones(X.shape[1]), 10.0 ** np.linspace(-60, 60, X.shape[1])):
        rows = SparseRows(sparse.csr_array(X.multiply(sizes)), True)
        loss = SquaredWestonWatkins(codes, C) if C > 1 else SquaredHinges(np.where(codes == 0, -1.0, 1.0)[None])
        rho = np.r_[0.01 * np.square(sizes), 0][None]
        stack = Stack(rows, loss, weight[None], rho, np.zeros((1, C, X.shape[1] + 1)))
        rough, exact = (
            way(stack)[:, :, :-1] * sizes for way in (newton_cg.NewtonCG(), newton_cg.NewtonCG(np.array([0.1])))
        )
        np.testing.assert_allclose(rough, exact, atol=1e-4 * np.abs(exact).max())


def test_a_warm_start_loses_what_all_scores_share():
    X, y, _ = words(7, C=5)
    model = HingeClassifier(alpha=0.01, calibration=None, warm_start=True, tol=1e-8).fit(X, y)
    known = model.coef_.copy()
    model.coef_ = model.coef_ + np.linspace(-1, 1, X.shape[1])
    model.fit(X, y)
    np.testing.assert_allclose(model.coef_, known, atol=1e-4 * np.abs(known).max())


@pytest.mark.parametrize("loss", ["huber", "squared_epsilon_insensitive"])
def test_values_in_pieces(loss):
    X, _, weight = words(2)
    target = X @ np.random.default_rng(0).normal(size=X.shape[1])
    model = LinearRegressor(loss, alpha=1e-3, tol=1e-8)
    ours, theirs = clone(model).fit(X, target, weight), clone(model).fit(X.toarray(), target, weight)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X.toarray()), atol=1e-5 * np.abs(target).max())


def test_weak_penalties_go_by_systems():
    """Conjugate gradients were at rest far above the optimum, where Newton's takes a step or two."""
    X, _, _ = words(3, n=370, d=650)
    X = sparse.csr_array(X.multiply(10.0 ** (np.arange(650) % 9 - 4.0)[None]))
    target = X @ np.random.default_rng(0).normal(size=650) + np.random.default_rng(1).standard_t(2, size=370)
    model = LinearRegressor("squared_epsilon_insensitive", alpha=1e-8)
    ours, theirs = clone(model).fit(X, target), clone(model).fit(X.toarray(), target)
    assert ours.n_iter_ <= 10 and ours.loss_ == pytest.approx(theirs.loss_, rel=0.01)
