"""Coordinates of rows that are fewer than their columns: the same optima as in the columns."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from skdeep import LBFGS, HingeClassifier, LinearRegressor, SigmoidClassifier, SoftmaxClassifier
from skdeep.exact import descent
from skdeep.exact.row_space import RowSpace, proportions, row_space
from skdeep.exact.rows import Rows, SparseRows
from skdeep.fitting import coordinates
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

RNG = np.random.default_rng(0)
N, D = 60, 200
X = RNG.normal(size=(N, D)) * np.geomspace(0.1, 10, D)
X[:, 3] = 2.0  # a column that is constant
X[50:] = X[:10]  # rows that others determine
Y = np.digitize(X[:, -3:].sum(1) + 10 * RNG.normal(size=N), [-8, 8])
VALUES = X[:, -5:].sum(1) / 10 + RNG.normal(size=N)
WEIGHT = RNG.integers(0, 4, N).astype(float)
CLASSIFIERS = {
    "softmax": SoftmaxClassifier(tol=1e-9),
    "softmax of two classes": SoftmaxClassifier(tol=1e-9),
    "sigmoid": SigmoidClassifier(tol=1e-9),
    "squared hinge, ovr": HingeClassifier("squared_hinge", multi_class="ovr", tol=1e-9, calibration=None),
    "squared hinge": HingeClassifier("squared_hinge", tol=1e-9, calibration=None),
    "hinge": HingeClassifier("hinge", tol=1e-6, calibration=None),
    "hinge, ovr": HingeClassifier("hinge", multi_class="ovr", tol=1e-6, calibration=None),
    "crammer_singer": HingeClassifier("hinge", multi_class="crammer_singer", tol=1e-6, calibration=None),
}
REGRESSORS = {
    loss: LinearRegressor(loss, tol=1e-7)
    for loss in ("huber", "poisson", "gamma", "absolute_error", "epsilon_insensitive", "squared_epsilon_insensitive")
}
#: Those that end at duality gaps, which leave parameters as far away as their root.
EXACT = ("hinge", "hinge, ovr", "crammer_singer", "absolute_error", "epsilon_insensitive")


def rows_of(kind):
    table = np.where(RNG.random((N, D)) < 0.6, X, 0.0) if kind == "sparse" else X
    ones = np.ones((N, 1))
    return (SparseRows(sparse.csr_array(table), True), Rows(np.hstack([table, ones])))[kind == "dense"]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_scores_and_penalties_are_the_same(kind):
    rows = rows_of(kind)
    rho = np.append(RNG.random(D) + 0.1, 0.0) * np.array([[1.0], [30.0]])
    space = row_space(rows, rho)
    u = RNG.normal(size=(2, 3, space.coordinates.shape[1]))
    params = space.back(u)
    np.testing.assert_allclose(rows.scores(params), space.coordinates.scores(u), atol=1e-9)
    norms = np.einsum("kcd,kd->kc", params**2, rho), np.einsum("kcd,kd->kc", u**2, space.rho)
    np.testing.assert_allclose(*norms, rtol=1e-9)
    np.testing.assert_allclose(space.forth(params), u, atol=1e-7)
    if kind == "dense":
        assert space.coordinates.shape[1] == 50 + 1  # without the copies


def test_what_is_not_in_the_rows_is_left_out():
    """Of any parameters, those in the coordinates have the same scores, and the smallest norm."""
    rows, rho = rows_of("dense"), np.append(np.ones(D), 0.0)[None]
    space, params = row_space(rows, rho), RNG.normal(size=(1, 2, D + 1))
    found = space.back(space.forth(params))
    np.testing.assert_allclose(rows.scores(found), rows.scores(params), atol=1e-8)
    assert (np.square(found[..., :D]).sum(-1) < np.square(params[..., :D]).sum(-1)).all()


def test_penalties_that_do_not_suit():
    rows, rho = rows_of("dense"), np.append(np.ones(D), 0.0)[None]
    assert isinstance(row_space(rows, rho), RowSpace)
    assert row_space(rows, np.zeros_like(rho)) is None
    assert row_space(rows, np.vstack([rho, np.append(np.arange(1.0, D + 1), 0.0)])) is None  # in other proportions
    without = rho.copy()
    without[:, 5] = 0
    assert row_space(rows, without) is None
    of_zeros = rows.Z.copy()
    of_zeros[:, 5] = 0
    assert isinstance(row_space(Rows(of_zeros), without), RowSpace)


def fitted(model, monkeypatch, *args, by_rows):
    used = []
    with monkeypatch.context() as patch:
        made = coordinates.row_space
        patch.setattr(coordinates, "row_space", lambda *args: used.append(found := made(*args)) or found)
        if not by_rows:
            patch.setattr(coordinates, "by_rows", lambda *args: False)
        model = clone(model).set_params(random_state=0).fit(*args)
    assert any(used) == by_rows
    return model


@pytest.mark.parametrize("layout", ["dense", "sparse", "float32", "not standardised", "no intercept"])
@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_optima_are_those_in_the_columns(name, layout, monkeypatch):
    if name in ("poisson", "gamma"):
        target = np.exp(VALUES / 5)
    elif name in REGRESSORS:
        target = VALUES
    else:
        target = np.minimum(Y, 1) if "two classes" in name else Y
    table = np.where(RNG.random((N, D)) < 0.6, X, 0.0) if layout == "sparse" else X
    rows = {"sparse": sparse.csr_array(table), "float32": X.astype(np.float32)}.get(layout, table)
    model = clone({**CLASSIFIERS, **REGRESSORS}[name]).set_params(
        alpha=0.05, max_iter=3000, standardize=layout != "not standardised", fit_intercept=layout != "no intercept"
    )
    if model.solver == "auto":
        model.set_params(solver="exact" if name in EXACT else "lbfgs")
    known = fitted(model, monkeypatch, rows, target, WEIGHT, by_rows=False)
    found = fitted(model, monkeypatch, rows, target, WEIGHT, by_rows=True)
    assert found.loss_ <= known.loss_ + 1e-6 * abs(known.loss_)
    scores = "predict" if name in REGRESSORS else "decision_function"
    known, found = (getattr(one, scores)(rows) for one in (known, found))
    np.testing.assert_allclose(found, known, atol=(2e-3 if name in EXACT else 1e-4) * np.abs(known).max())


def test_optima_are_those_of_scikit_learn():
    Z = (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1)
    alpha, two = 0.02, np.minimum(Y, 1)
    known = LogisticRegression(C=1 / (alpha * N), tol=1e-10, max_iter=10_000).fit(Z, Y)
    found = SoftmaxClassifier(alpha=alpha, tol=1e-9).fit(Z, Y)
    np.testing.assert_allclose(found.decision_function(Z), known.decision_function(Z), atol=1e-5)
    svc = LinearSVC(C=1 / (alpha * N) / 2, tol=1e-12, max_iter=100_000, dual=False, fit_intercept=False).fit(Z, two)
    machine = HingeClassifier("squared_hinge", alpha=2 * alpha, tol=1e-9, calibration=None, fit_intercept=False)
    np.testing.assert_allclose(machine.fit(Z, two).coef_, svc.coef_, atol=1e-5)
    values = np.exp(VALUES / 5)
    poisson = PoissonRegressor(alpha=alpha, tol=1e-10, max_iter=10_000).fit(Z, values)
    regressor = LinearRegressor("poisson", alpha=alpha, tol=1e-9).fit(Z, values)
    np.testing.assert_allclose(regressor.predict(Z), poisson.predict(Z), rtol=1e-5)


def test_searches_find_what_loops_find():
    grid = {"alpha": np.geomspace(1e-3, 10, 4)}
    for model in (SoftmaxClassifier(tol=1e-8), HingeClassifier("squared_hinge", tol=1e-8, calibration=None)):
        search = GridSearchCV(model, grid, cv=3).fit(X, Y)
        train, test = next(iter(StratifiedKFold(3).split(X, Y)))
        for alpha, score in zip(grid["alpha"], search.cv_results_["split0_test_score"], strict=True):
            alone = clone(model).set_params(alpha=alpha).fit(X[train], Y[train])
            assert alone.score(X[test], Y[test]) == pytest.approx(score)


def test_a_warm_start_is_at_the_optimum():
    model = SoftmaxClassifier(alpha=0.01, warm_start=True).fit(X, Y)
    before = model.coef_.copy()
    model.fit(X, Y)
    assert model.n_iter_ <= 1
    np.testing.assert_allclose(model.coef_, before, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize("name", ["softmax", "squared hinge", "hinge"])
def test_folds_with_units_of_their_own_have_coordinates_of_their_own(name, monkeypatch):
    """With alpha="auto", columns are standardised in each fold, whose penalties are in proportions of their own."""
    model, made, spaces = clone(CLASSIFIERS[name]), coordinates.row_space, []
    monkeypatch.setattr(coordinates, "row_space", lambda *args: spaces.append(found := made(*args)) or found)
    members = [clone(model).set_params(random_state=0, max_iter=3000, class_weight=w) for w in (None, {0: 5}, {2: 3})]
    assert fit_stack(members, X, Y) == [None] * len(members)
    assert len(spaces) > 1
    for member in members:
        alone = clone(member).fit(X, Y)
        scale = np.abs(alone.decision_function(X)).max()
        np.testing.assert_allclose(member.decision_function(X), alone.decision_function(X), atol=2e-3 * scale)


def test_proportions():
    rho = np.array([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0], [1.0, 3.0, 0.0], [2.0, 4.0, 0.0], [2.0, 6.0, 0.0]])
    assert [group.tolist() for group in proportions(rho)] == [[0, 1, 3], [2, 4]]


def test_large_rows_leave_others_their_coordinates():
    table = np.hstack([RNG.normal(size=(N, D)), np.ones((N, 1))])
    table[7, :D] *= 1e9
    space = row_space(Rows(table), np.append(np.ones(D), 0.0)[None])
    assert space.rank == N and space.suffices(False)
    u = RNG.normal(size=(1, 1, N + 1))
    known, found = space.coordinates.scores(u), Rows(table).scores(space.back(u))
    np.testing.assert_allclose(np.delete(found, 7), np.delete(known, 7), atol=1e-8)


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_a_gap_is_one_in_the_columns(size):
    """Products of rows have half their digits: beside a large column they do not tell the others apart."""
    table, values = RNG.normal(size=(50, D)), RNG.normal(size=50)
    table[:, 7] *= size
    fit = LinearRegressor("absolute_error", alpha=0.1, solver="exact").fit(table, values)
    least = lower_bound(table, values, 0.1)
    reached = np.abs(fit.predict(table) - values).mean() + 0.05 * np.square(fit.coef_).sum()
    assert reached <= least * (1 + 1e-5)
    assert fit.loss_ == pytest.approx(reached, rel=1e-5)


def lower_bound(table, values, alpha):
    """Bound absolute errors with a squared norm from below: by the multipliers of what interpolates the values."""
    n, moved = len(values), table - table.mean(0)
    coef = np.linalg.lstsq(moved, values - values.mean(), rcond=None)[0]
    pull = np.linalg.lstsq(moved.T, coef * alpha * n, rcond=None)[0]
    pull -= pull.mean()
    pull /= max(1, np.abs(pull).max())
    return pull @ values / n - np.square(table.T @ pull / n).sum() / (2 * alpha)


def test_coordinates_of_rows_of_different_lengths():
    """Columns of the factor are as large as the rows: Newton's steps do not take small curvature for none."""
    rng = np.random.default_rng(1)
    table = np.where(rng.random((6, 120)) < 0.3, rng.normal(size=(6, 120)), 0.0)
    table[0] *= 1e-6
    table = sparse.csr_array(table)
    model = HingeClassifier("squared_hinge", alpha=1e-12, calibration=None).fit(table, [0, 1, 0, 1, 1, 0])
    assert model.loss_ < 1e-9


@pytest.mark.parametrize("max_fun", [3, 5, 8])
def test_evaluations_are_counted_once(max_fun, monkeypatch):
    """Those in coordinates of rows, and those in the columns afterwards, are of one limit."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 400)), rng.integers(0, 2, 40)
    counts, evaluate = [0], descent._judged
    monkeypatch.setattr(descent, "_judged", lambda *args: counts.append(0) or evaluate(*args))
    with pytest.warns(ConvergenceWarning, match=f"max_fun={max_fun}"):
        SoftmaxClassifier(solver=LBFGS(max_fun=max_fun), alpha=1e-6, tol=1e-12).fit(X, y)
    assert len(counts) - 1 <= max_fun + 2  # each search begins with one, and ends the step that it is at
