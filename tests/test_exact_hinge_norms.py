"""Hinges beside an L1 norm: HiGHS, SLSQP, their own certificate, and what must not matter."""

import warnings

import numpy as np
import pytest
from helpers import IRIS, IRIS_Y
from scipy import sparse
from scipy.optimize import linprog, minimize
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from skdeep import HingeClassifier
from skdeep.exact import hinge, hinge_norms
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.piecewise import _Found
from skdeep.exact.rows import Rows, SparseRows
from skdeep.model_selection import GridSearchCV as OwnGridSearchCV

KINDS = ["ovr", "weston_watkins", "crammer_singer"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_form = pytest.mark.parametrize("kind", [*KINDS, "crammer_singer squared"])


def classifier(kind, **params):
    name, _, squared = kind.partition(" ")
    return HingeClassifier("squared_hinge" if squared else "hinge", multi_class=name, **params)


def loss_of(kind, codes, C):
    if kind == "ovr":
        return Hinges(1.0 * (np.arange(C)[:, None] == codes))
    return WestonWatkins(codes, C) if kind == "weston_watkins" else CrammerSinger(codes, C, kind.endswith("squared"))


def losses(kind, scores, codes):
    """Losses of rows by their definition, of scores (n, C)."""
    C = scores.shape[1]
    if kind == "ovr":
        return np.maximum(1 - np.where(np.arange(C) == codes[:, None], 1, -1) * scores, 0).sum(1)
    margins = 1 + scores - scores[np.arange(len(codes)), codes][:, None]
    margins[np.arange(len(codes)), codes] = 0
    margins = np.maximum(margins, 0)
    return margins.sum(1) if kind == "weston_watkins" else margins.max(1) ** (2 if kind.endswith("squared") else 1)


def least(kind, Z, codes, C, weight, kappa):
    """The minimum by HiGHS: coefficients are differences of what is not negative, and losses have bounds."""
    (n, D), found = Z.shape, 0.0
    if kind == "ovr":
        for c in range(C):
            A = np.where(codes == c, 1, -1)[:, None] * Z
            cost, rows = np.r_[kappa, kappa, weight], np.hstack([A, -A, np.eye(n)])
            found += linprog(cost, A_ub=-rows, b_ub=-np.ones(n)).fun
        return found
    parts, bounds = [], []
    for c in range(C):
        there = np.flatnonzero(codes != c)
        E = np.zeros((len(there), C, D))
        E[np.arange(len(there)), codes[there]] += Z[there]
        E[:, c] -= Z[there]
        parts.append(E.reshape(len(there), -1))
        of_row = np.zeros((len(there), n * C if kind == "weston_watkins" else n))
        of_row[np.arange(len(there)), there + (c * n if kind == "weston_watkins" else 0)] = 1
        bounds.append(of_row)
    A, bound = np.concatenate(parts), np.concatenate(bounds)
    cost = np.r_[np.tile(kappa, 2 * C), np.tile(weight, C if kind == "weston_watkins" else 1)]
    return linprog(cost, A_ub=-np.hstack([A, -A, bound]), b_ub=-np.ones(len(A))).fun


def problem(seed, n=60, d=8, C=4, strength=0.01, filled=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < filled)
    codes = (X @ rng.normal(size=(d, C)) + rng.normal(size=(n, C))).argmax(1)
    weight = rng.random((2, n)) + 0.5
    weight[1, rng.permutation(n)[: n // 3]] = 0
    kappa = np.stack([np.r_[np.full(d, strength), 0], np.r_[np.full(d, 2 * strength), 0]])
    return np.c_[X, np.ones(n)], codes, weight / weight.sum(1, keepdims=True), kappa


@each_kind
@pytest.mark.parametrize("strength", [0.1, 0.01, 1e-4])
@pytest.mark.parametrize("filled", [1.0, 0.3])
def test_highs_ends_no_lower(kind, strength, filled):
    Z, codes, weight, kappa = problem(round(1 / strength), strength=strength, filled=filled)
    rows = Rows(Z) if filled == 1 else SparseRows(sparse.csr_array(Z[:, :-1]), intercept=True)
    found = hinge_norms.solve(rows, loss_of(kind, codes, 4), weight, kappa, 0 * kappa, np.full(2, 1e-6), 200)
    assert found.converged.all() and (found.gap <= 1e-6).all()
    for k in range(2):
        reference = least(kind, Z, codes, 4, weight[k], kappa[k])
        value = losses(kind, Z @ found.params[k].T, codes) @ weight[k] + (kappa[k] * np.abs(found.params[k])).sum()
        np.testing.assert_allclose([value, found.value[k]], reference, rtol=1e-8)
        alone = [part[k : k + 1] for part in (weight, kappa, 0 * kappa)]
        one = hinge_norms.solve(rows, loss_of(kind, codes, 4), *alone, np.full(1, 1e-6), 200)
        assert one.value[0] == pytest.approx(found.value[k], rel=1e-8)


@each_form
def test_elastic_nets_are_those_of_slsqp(kind):
    Z, codes, weight, kappa = problem(0, n=30, d=3, C=3)
    rho = np.where(kappa > 0, 0.02, 0.0)
    found = hinge_norms.solve(Rows(Z), loss_of(kind, codes, 3), weight, kappa, rho, np.full(2, 1e-8), 200)

    def value(both):  # of what is above zero and below, apart: smooth but for the loss
        V = (both[:12] - both[12:]).reshape(3, 4)
        rise = (kappa[0] * (both[:12] + both[12:]).reshape(3, 4)).sum() + 0.5 * (rho[0] * V**2).sum()
        return losses(kind, Z @ V.T, codes) @ weight[0] + rise

    begin = found.params[0].ravel()
    start = np.r_[np.maximum(begin, 0), np.maximum(-begin, 0)]
    rng = np.random.default_rng(0)
    ends = [
        minimize(value, np.maximum(start + size * rng.normal(size=24), 0), method="SLSQP", bounds=[(0, None)] * 24).fun
        for size in (0, 1e-3, 0.1)
    ]
    assert found.gap[0] <= 1e-8 and value(start) == pytest.approx(found.value[0], rel=1e-9)
    assert min(ends) >= found.value[0] * (1 - 1e-7)


@pytest.mark.parametrize("strength", [0.1, 1e-3, 1e-5])
def test_squares_of_the_worst_violation_are_those_of_their_dual(strength):
    """Steps ended up to eighty times above. A ridge next to none holds what multipliers, which know no norm, find."""
    Z, codes, weight, _ = problem(1, filled=0.3)
    loss = CrammerSinger(codes, 4, squared=True)
    held = np.tile(np.r_[np.full(8, strength), 0], (2, 1))
    norm = np.where(held > 0, 1e-9, 0.0)
    found = hinge_norms.solve(Rows(Z), loss, weight, norm, held, np.full(2, 1e-6), 200)
    reference = hinge.solve(Rows(Z), loss, weight, held, 1e-9)
    assert found.converged.all() and reference.converged.all()
    np.testing.assert_allclose(found.value, reference.value, rtol=1e-6)
    value = losses("crammer_singer squared", Z @ found.params[0].T, codes) @ weight[0]
    value += (norm[0] * np.abs(found.params[0]) + 0.5 * held[0] * found.params[0] ** 2).sum()
    assert value == pytest.approx(found.value[0], rel=1e-9)


def test_zeros_are_exact():
    """Of a shift of all scores, the norm is least where their median is zero: a coefficient of each column is."""
    Z, codes, weight, kappa = problem(3, n=300, d=10, C=5, strength=0.003)
    found = hinge_norms.solve(Rows(Z), WestonWatkins(codes, 5), weight, kappa, 0 * kappa, np.full(2, 1e-6), 200)
    for k in range(2):
        assert found.value[k] == pytest.approx(least("weston_watkins", Z, codes, 5, weight[k], kappa[k]), rel=1e-10)
        assert ((found.params[k][:, :-1] == 0).sum(0) >= 1).all()


def test_columns_that_depend_on_others():
    """Far rows, sizes that differ, and a column that is the mean of others but for rounding: steps are short there."""
    rng = np.random.default_rng(0)
    X = np.exp(2 * rng.normal(size=(300, 5))) * [1, 10, 100, 1, 1]
    X = np.c_[X, X[:, :3].mean(1).astype(np.float32), X[:, 0]]
    y = (np.log(X[:, :3]) + rng.normal(size=(300, 3))).argmax(1)
    for alpha in (1e-1, 1e-3):
        model = HingeClassifier("hinge", penalty="l1", alpha=alpha, calibration=None).fit(X, y)
        sgd = clone(model).set_params(solver="sgd", random_state=0).fit(X, y)
        scores = model.decision_function(X)
        value = losses("weston_watkins", scores, y).mean() + alpha * np.abs(model.coef_).sum()
        assert model.solver_ == "exact" and model.certificate_ <= 1e-6
        assert value == pytest.approx(model.loss_, rel=1e-8) and model.loss_ <= sgd.loss_ * (1 + 1e-9)


@each_form
@pytest.mark.parametrize("penalty", ["l1", "elasticnet"])
def test_classifiers_are_at_their_optimum(kind, penalty):
    model = classifier(kind, penalty=penalty, alpha=0.01, calibration=None).fit(IRIS, IRIS_Y)
    assert model.solver_ == "exact" and 0 <= model.certificate_ <= 1e-6
    again = clone(model).fit(sparse.csr_array(IRIS), IRIS_Y)
    assert again.loss_ == pytest.approx(model.loss_, rel=1e-6)
    weight = np.random.default_rng(0).integers(0, 3, len(IRIS))
    weighted = clone(model).fit(IRIS, IRIS_Y, weight)
    repeated = clone(model).fit(IRIS.repeat(weight, 0), IRIS_Y.repeat(weight))
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-6)


def test_searches_are_as_one_by_one():
    model, grid = HingeClassifier("hinge", penalty="l1", calibration=None), {"alpha": [1e-3, 1e-2, 1e-1]}
    folds = StratifiedKFold(3)
    ours = OwnGridSearchCV(model, grid, cv=folds).fit(IRIS, IRIS_Y)
    theirs = GridSearchCV(model, grid, cv=folds).fit(IRIS, IRIS_Y)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=0.007)
    assert ours.best_estimator_.loss_ == pytest.approx(clone(ours.best_estimator_).fit(IRIS, IRIS_Y).loss_, rel=1e-6)


def test_larger_ones_are_left_to_steps_or_refused():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 1500)), np.arange(40) % 3
    model = HingeClassifier("hinge", penalty="l1", alpha=0.01, calibration=None, max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert clone(model).fit(X, y).solver_ == "sgd"
    with pytest.raises(ValueError, match="and 4503 are too many"):
        clone(model).set_params(solver="exact").fit(X, y)


def ends(kind, Z, codes, weight, kappa, C):
    found = hinge_norms.solve(
        Rows(Z), loss_of(kind, codes, C), weight, kappa, 0 * kappa, np.full(len(weight), 1e-6), 200
    )
    each = list(zip(found.params, weight, kappa, strict=True))
    value = [losses(kind, Z @ V.T, codes) @ w + (k * np.abs(V)).sum() for V, w, k in each]
    return found, np.array(value), np.array([least(kind, Z, codes, C, w, k) for _, w, k in each])


def test_rounding_far_away_is_no_bound():
    """From zero, a linear program of few rows ran off to 1e28; what was left of a bound there ended above the start."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        Z, codes = np.round(rng.normal(size=(4, 6))), rng.integers(0, 4, 4)
        found, value, reference = ends("ovr", Z, codes, np.full((1, 4), 0.25), np.full((1, 6), 2.6e-6), 4)
        np.testing.assert_allclose(value, reference, rtol=1e-6)
        assert found.converged.all()


def test_intercepts_far_away_are_found():
    """Of columns far from zero, a bound that took the optimum's intercept for near was above the optimum."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = 1000 + rng.normal(size=(23, 6))
        found, value, reference = ends(
            "weston_watkins",
            np.c_[X, np.ones(23)],
            rng.integers(0, 2, 23),
            np.full((1, 23), 1 / 23),
            np.r_[np.full(6, 0.002), 0][None],
            2,
        )
        assert (value <= reference * (1 + 1e-6) + (found.gap * value)).all(), seed


def test_bounds_of_rows_are_the_best():
    """Parameters were at the optimum with bounds of rows that were not, so that no gap was small enough."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        Z = np.c_[np.exp(rng.normal(size=(40, 6))), np.ones(40)]
        weight = rng.random((2, 40)) * (rng.random((2, 40)) < 0.7)
        kappa = np.outer([0.02, 0.001], np.r_[np.ones(6), 0])
        codes = (Z[:, :4] + rng.normal(size=(40, 4))).argmax(1)
        found, value, reference = ends("crammer_singer", Z, codes, weight / weight.sum(1, keepdims=True), kappa, 4)
        np.testing.assert_allclose([value, found.value], [reference] * 2, rtol=1e-6)
        assert found.converged.all(), seed


@each_form
def test_models_without_a_norm_are_as_alone(kind):
    Z, codes, weight, kappa = problem(5, strength=0.01)
    kappa[1] = 0
    both = [Rows(Z), loss_of(kind, codes, 4)]
    found = hinge_norms.solve(*both, weight, kappa, 0 * kappa, np.full(2, 1e-6), 200)
    for k in range(2):
        alone = [part[k : k + 1] for part in (weight, kappa, 0 * kappa)]
        one = hinge_norms.solve(*both, *alone, np.full(1, 1e-6), 200)
        np.testing.assert_allclose(found.params[k], one.params[0], atol=1e-9)
        assert found.curve[k] == pytest.approx(one.curve[0]) and found.converged[k] == one.converged[0]


@pytest.mark.parametrize("kind", ["ovr", "weston_watkins"])
def test_many_models_are_solved_in_parts(kind, monkeypatch):
    monkeypatch.setattr(hinge_norms, "_MAX_SECOND", 1)
    Z, codes, weight, kappa = problem(6)
    found = hinge_norms.solve(Rows(Z), loss_of(kind, codes, 4), weight, kappa, 0 * kappa, np.full(2, 1e-6), 200)
    assert found.converged.all() and len(found.curve) == 2


@pytest.mark.parametrize("penalty", ["l1", "elasticnet"])
@each_form
def test_classes_without_rows_stay_near(kind, penalty):
    """Their intercepts were anything down to -1e13 and beyond, and temperatures knew no other scores."""
    weight = 1.0 * (IRIS_Y != 2)
    model = classifier(kind, penalty=penalty, alpha=0.01).fit(IRIS, IRIS_Y, weight)
    assert np.abs(model.intercept_).max() < 30 and set(model.predict(IRIS[IRIS_Y != 2])) == {0, 1}
    assert (model.predict_proba(IRIS[IRIS_Y != 2]).max(1) > 0.85).all()


def test_iterations_are_no_more_than_they_may_be():
    with pytest.warns(ConvergenceWarning, match="within 3 iterations"):
        model = HingeClassifier("hinge", penalty="l1", alpha=0.01, calibration=None, max_iter=3).fit(IRIS, IRIS_Y)
    assert model.n_iter_ == 3


def test_curves_end_at_the_value():
    """A start anew that ends higher left its own value as the loss."""
    curve = _Found(np.zeros((1, 2)), np.array([2.0]), np.array([0.5]), [[3.0, 2.0]])
    curve.improve(np.array([0]), _Found(np.ones((1, 2)), np.array([4.0]), np.array([1.0]), [[5.0, 4.0]]), np.ones(1))
    assert curve.curve[0][-1] == curve.value[0] == 2 and curve.gap[0] == 0.5
