"""LeastSquaresClassifier: the closed form against scikit-learn's and NumPy's, and the other solvers against it."""

import numpy as np
import pytest
from helpers import DATA, IRIS, IRIS_Y, WINE, WINE_Y, configured, reconfigured, set_constant
from scipy import sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.linear_model import ElasticNet, LinearRegression, Ridge, RidgeClassifier
from skorch.callbacks import EpochTimer

from skdeep import LeastSquaresClassifier, LinearRegressor
from skdeep.engine.rows import DenseRows
from skdeep.exact.rows import Rows
from skdeep.fitting import solving
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

RNG = np.random.default_rng(0)


def targets(y):
    T = 2.0 * (y[:, None] == np.unique(y)) - 1
    return T if T.shape[1] > 2 else T[:, 1:]


def minimum_norm(X, y, weight=None):
    """NumPy's least squares of the smallest norm, with a free intercept."""
    weight = np.ones(len(y)) if weight is None else weight
    T, root = targets(y), np.sqrt(weight)[:, None]
    mean, level = np.average(X, axis=0, weights=weight), np.average(T, axis=0, weights=weight)
    coef = np.linalg.lstsq(root * (X - mean), root * (T - level), rcond=None)[0].T
    return coef, level - coef @ mean


def assert_solution(model, coef, intercept, tolerance=1e-8):
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=tolerance * np.abs(coef).max())
    np.testing.assert_allclose(model.intercept_, intercept, rtol=0, atol=tolerance * (1 + np.abs(intercept).max()))


# ---- the solution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("alpha", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_of_ridge_classifier(name, alpha, fit_intercept):
    X, y = DATA[name](return_X_y=True)
    ours = LeastSquaresClassifier(alpha=alpha, fit_intercept=fit_intercept).fit(X, y)
    theirs = RidgeClassifier(alpha=alpha * len(y), fit_intercept=fit_intercept, solver="svd").fit(X, y)
    assert_solution(ours, np.atleast_2d(theirs.coef_), np.broadcast_to(theirs.intercept_, ours.intercept_.shape))
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-8)


@pytest.mark.parametrize("penalty", ["l2", None, "elasticnet"])
def test_weights_and_penalties(penalty):
    weight = RNG.uniform(0.1, 3, len(WINE_Y))
    alpha = 0.0 if penalty is None else 0.1
    ours = LeastSquaresClassifier(penalty, alpha=0.1, l1_ratio=0.0, class_weight={0: 1, 1: 2, 2: 3})
    ours.fit(WINE, WINE_Y, sample_weight=weight)
    weight = weight * (WINE_Y + 1)
    theirs = RidgeClassifier(alpha=alpha * weight.sum(), solver="svd").fit(WINE, WINE_Y, sample_weight=weight)
    assert_solution(ours, theirs.coef_, theirs.intercept_)


def test_the_loss_is_the_objective():
    alpha, weight = 0.1, RNG.uniform(0.1, 3, len(IRIS_Y))
    model = LeastSquaresClassifier(alpha=alpha).fit(IRIS, IRIS_Y, weight, X_val=IRIS[::2], y_val=IRIS_Y[::2])
    residual = model.decision_function(IRIS) - targets(IRIS_Y)
    data_term = np.average((residual**2).sum(1), weights=weight) / 2
    assert model.loss_ == pytest.approx(data_term + alpha / 2 * (model.coef_**2).sum(), rel=1e-12)
    assert (model.n_iter_, model.t_, model.loss_curve_) == (1, len(IRIS_Y), [model.loss_])
    assert model.validation_scores_ == [pytest.approx(model.score(IRIS[::2], IRIS_Y[::2]))]
    assert model.validation_loss_curve_ == [pytest.approx((residual[::2] ** 2).sum(1).mean() / 2)]


# ---- where X^T X has no inverse --------------------------------------------------------------------------------------

SINGULAR = {
    "collinear": np.hstack([IRIS, IRIS[:, :2] @ [[1.0, 2.0], [-1.0, 0.5]] + 3]),
    "repeated": np.hstack([IRIS, IRIS]),
    "constant": np.hstack([IRIS, np.full((150, 1), 1e6), np.full((150, 1), 0.1)]),
    "more columns than rows": RNG.normal(size=(150, 400)) + IRIS_Y[:, None],
    "as many columns as rows": RNG.normal(size=(150, 150)),
    "zeros": np.zeros((150, 3)),
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_solution_of_the_smallest_norm(name, weighted):
    X = SINGULAR[name]
    weight = RNG.uniform(0.5, 2, 150) if weighted else None
    model = LeastSquaresClassifier(alpha=0).fit(X, IRIS_Y, weight)
    centred = X - X.mean(0) if name != "constant" else np.hstack([X[:, :4] - X[:, :4].mean(0), np.zeros((150, 2))])
    if name == "constant":
        coef, intercept = minimum_norm(centred, IRIS_Y, weight)
        np.testing.assert_array_equal(model.coef_[:, 4:], 0)
    else:
        coef, intercept = minimum_norm(X, IRIS_Y, weight)
    tolerance = 1e-8 * (np.abs(coef).max() + 1e-300)
    np.testing.assert_allclose(model.coef_, coef, rtol=0, atol=tolerance)
    rows = sparse.csr_array(X)
    np.testing.assert_allclose(clone(model).fit(rows, IRIS_Y, weight).coef_, coef, rtol=0, atol=10 * tolerance)


def test_badly_scaled_columns():
    """A column 1e9 times smaller than another still counts: X^T X would have lost it."""
    X = IRIS * [1e9, 1.0, 1.0, 1.0]
    assert_solution(LeastSquaresClassifier(alpha=0).fit(X, IRIS_Y), *minimum_norm(X, IRIS_Y), tolerance=1e-6)
    scores = LeastSquaresClassifier(alpha=0).fit(IRIS, IRIS_Y).decision_function(IRIS)
    np.testing.assert_allclose(LeastSquaresClassifier(alpha=0).fit(X, IRIS_Y).decision_function(X), scores, atol=1e-6)


@pytest.mark.parametrize("n_columns", [40, 300])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_is_dense(n_columns, fit_intercept):
    X = RNG.normal(size=(150, n_columns)) * (RNG.random((150, n_columns)) < 0.2) + 0.0
    for alpha in (0.0, 0.01):
        model = LeastSquaresClassifier(alpha=alpha, fit_intercept=fit_intercept).fit(X, IRIS_Y)
        rows = clone(model).fit(sparse.csr_array(X), IRIS_Y)
        assert_solution(rows, model.coef_, model.intercept_)
        assert rows.loss_ == pytest.approx(model.loss_, abs=1e-12)


@pytest.mark.parametrize("n_columns", [150, 300])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_columns_of_different_sizes_meet_all_rows(n_columns, fit_intercept):
    """Products of rows are those of columns in their units, in which solutions are small."""
    X = RNG.normal(size=(150, n_columns)) * np.geomspace(1, 100, n_columns)
    regressor = LinearRegressor(penalty=None, fit_intercept=fit_intercept).fit(sparse.csr_array(X), IRIS_Y)
    np.testing.assert_allclose(regressor.predict(X), IRIS_Y, atol=1e-7)
    assert regressor.loss_ == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_sparse_columns_whose_squares_vanish_meet_all_rows(fit_intercept):
    """Squares of their units, by which products of rows were divided, overflow."""
    X = RNG.normal(size=(30, 60)) * np.where(np.arange(60) < 40, 1e-170, 1)
    regressor = LinearRegressor(penalty=None, fit_intercept=fit_intercept).fit(sparse.csr_array(X), IRIS_Y[::5])
    np.testing.assert_allclose(regressor.predict(X), IRIS_Y[::5], atol=1e-7)


@pytest.mark.parametrize("layout", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("model", [{"penalty": None}, {"solver": "exact"}, {"solver": "lbfgs"}])
def test_columns_count_as_they_are_where_asked_for(model, layout):
    """Without a penalty, the smallest weights are those of LinearRegression."""
    X = RNG.normal(size=(20, 30)) * np.geomspace(1, 30, 30)
    theirs = (LinearRegression() if "penalty" in model else Ridge(1.0, solver="svd")).fit(X, X.sum(1) + 3)
    ours = LinearRegressor(standardize=False, **model).fit(layout(X), X.sum(1) + 3)
    np.testing.assert_allclose(ours.coef_[0], theirs.coef_, rtol=0, atol=1e-7)


# ---- rows in parts, models in stacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["dense", "tall sparse", "wide sparse"])
def test_rows_are_streamed(layout, monkeypatch):
    X = load_digits().data[:150, : 10 if layout == "tall sparse" else 64]
    X = np.hstack([X, RNG.normal(size=(150, 120))]) if layout == "wide sparse" else X
    rows = X if layout == "dense" else sparse.csr_array(X)
    whole = LeastSquaresClassifier().fit(rows, IRIS_Y)
    set_constant(monkeypatch, "MAX_VALUES", 100)
    set_constant(monkeypatch, "_MAX_VALUES", 100)
    set_constant(monkeypatch, "_CHUNK_ROWS", 100)
    set_constant(monkeypatch, "_CACHED_VALUES", 100)
    set_constant(monkeypatch, "_FEW_VALUES", 100)
    taken = []
    take = DenseRows.take
    monkeypatch.setattr(DenseRows, "take", lambda self, part: taken.append(len(take(self, part))) or take(self, part))
    parts = LeastSquaresClassifier().fit(rows, IRIS_Y)
    assert layout != "dense" or max(taken) == 2 * (64 + 3) < len(X)  # the height of two triangular factors
    assert_solution(parts, whole.coef_, whole.intercept_, tolerance=1e-11)


def test_weights_are_repetition():
    repeats = RNG.integers(0, 4, len(WINE_Y))
    model = LeastSquaresClassifier(calibration="temperature", random_state=0).fit(WINE, WINE_Y, repeats)
    repeated = clone(model).fit(WINE.repeat(repeats, axis=0), WINE_Y.repeat(repeats))
    np.testing.assert_allclose(model.predict_proba(WINE), repeated.predict_proba(WINE), atol=1e-9)


@pytest.mark.parametrize("solver", ["exact", "sgd", "lbfgs"])
@pytest.mark.parametrize("calibration", [None, "sigmoid"])
def test_a_stack_ends_where_each_model_ends(solver, calibration):
    base = LeastSquaresClassifier(solver=solver, calibration=calibration, max_iter=30, random_state=0)
    changes = [{"alpha": 1e-3}, {"alpha": 1.0}, {"class_weight": "balanced"}, {"class_weight": {0: 3, 1: 1, 2: 1}}]
    members = [reconfigured(clone(base), **change) for change in changes]
    part = slice(None, 120)  # unbalanced
    assert fit_stack(members, IRIS[part], IRIS_Y[part]) == [None] * 4
    for member in members:
        alone = clone(member).fit(IRIS[part], IRIS_Y[part])
        np.testing.assert_allclose(member.coef_, alone.coef_, rtol=0, atol=1e-10)
        np.testing.assert_allclose(member.intercept_, alone.intercept_, rtol=0, atol=1e-10)
        assert member.loss_ == pytest.approx(alone.loss_, abs=1e-12)


def test_one_factorisation_per_fold(monkeypatch):
    built = []
    ridge = solving.Ridge
    monkeypatch.setattr(solving, "Ridge", lambda *args: built.append(1) or ridge(*args))
    monkeypatch.setattr(solving, "solve_by_products", lambda *args: None)
    GridSearchCV(LeastSquaresClassifier(), {"alpha": np.logspace(-5, 1, 7)}, cv=3).fit(IRIS, IRIS_Y)
    assert len(built) == 3 + 1  # and the refit


def test_products_are_formed_once_per_fold(monkeypatch):
    formed = []
    gram = Rows.gram
    monkeypatch.setattr(Rows, "gram", lambda self, factor: formed.append(len(factor)) or gram(self, factor))
    GridSearchCV(LeastSquaresClassifier(), {"alpha": np.logspace(-5, 1, 7)}, cv=3).fit(IRIS, IRIS_Y)
    assert sum(formed) == 3 + 1


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("n_columns", [20, 149, 150, 151, 400])
def test_products_find_what_singular_values_find(n_columns, layout, monkeypatch):
    """Two ways to the same solutions, with weights, alone and in a stack."""
    X = RNG.normal(size=(150, n_columns)) * (RNG.random((150, n_columns)) < 0.3) * np.geomspace(1, 100, n_columns)
    X, weight = X if layout == "dense" else sparse.csr_array(X), RNG.integers(0, 4, 150).astype(float)
    base = LeastSquaresClassifier()
    models = {by: [clone(base).set_params(alpha=alpha) for alpha in (1e-3, 1.0, 1e3)] for by in ("products", "values")}
    assert fit_stack(models["products"], X, IRIS_Y, weight) == [None] * 3
    alone = clone(base).set_params(alpha=1.0).fit(X, IRIS_Y, weight)
    monkeypatch.setattr(solving, "solve_by_products", lambda *args: None)
    assert fit_stack(models["values"], X, IRIS_Y, weight) == [None] * 3
    for found, known in zip([*models["products"], alone], [*models["values"], models["values"][1]], strict=True):
        np.testing.assert_allclose(found.coef_, known.coef_, rtol=1e-9, atol=1e-9 * abs(known.coef_).max())
        np.testing.assert_allclose(found.intercept_, known.intercept_, rtol=1e-9, atol=1e-9)
        assert found.loss_ == pytest.approx(known.loss_, rel=1e-10)


# ---- the other solvers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_solvers_meet(name):
    X, y = DATA[name](return_X_y=True)
    exact = LeastSquaresClassifier(alpha=1e-2).fit(X, y)
    newton = clone(exact).set_params(solver="lbfgs", tol=1e-10).fit(X, y)
    assert_solution(newton, exact.coef_, exact.intercept_, tolerance=1e-6)
    batches = clone(exact).set_params(solver="sgd", random_state=0).fit(X, y)
    assert newton.loss_ == pytest.approx(exact.loss_, abs=1e-10)
    scores = batches.decision_function(X).reshape(len(y), -1)
    loss = ((scores - targets(y)) ** 2).sum(1).mean() / 2 + 1e-2 / 2 * (batches.coef_**2).sum()
    assert exact.loss_ <= loss <= exact.loss_ + 0.01


def test_float32():
    model = LeastSquaresClassifier().fit(WINE.astype(np.float32), WINE_Y)
    assert model.coef_.dtype == np.float32
    reference = LeastSquaresClassifier().fit(WINE.astype(np.float32).astype(float), WINE_Y)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=1e-5, atol=1e-7)


def test_callbacks_hear_of_one_epoch(capsys):
    model = LeastSquaresClassifier(callbacks=[EpochTimer()], verbose=True).fit(IRIS, IRIS_Y, X_val=IRIS, y_val=IRIS_Y)
    assert len(model.history_) == 1
    assert model.history_[-1, "valid_acc"] == model.score(IRIS, IRIS_Y) == model.validation_scores_[0]
    assert "validation score" in capsys.readouterr().out
    monitor = ScoringMonitor(scoring="accuracy")
    listened = LeastSquaresClassifier().set_callbacks(monitor).fit(IRIS, IRIS_Y)
    assert monitor.get_logs().data[-1]["accuracy"] == listened.score(IRIS, IRIS_Y)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.4])
def test_l1_norms_are_those_of_scikit_learn(l1_ratio):
    """Each column of scores is a regression of its own."""
    model = LeastSquaresClassifier("elasticnet", alpha=0.02, l1_ratio=l1_ratio, tol=1e-8).fit(IRIS, IRIS_Y)
    assert model.solver_ == "exact" and model.certificate_ <= 1e-10
    for c, coef in enumerate(model.coef_):
        target = np.where(IRIS_Y == model.classes_[c], 1.0, -1.0)
        theirs = ElasticNet(alpha=0.02, l1_ratio=l1_ratio, tol=1e-14, max_iter=100_000).fit(IRIS, target)
        np.testing.assert_allclose(coef, theirs.coef_, atol=1e-5)
        np.testing.assert_array_equal(coef == 0, theirs.coef_ == 0)


# ---- what does not go together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"early_stopping": True}, "early_stopping=True.*solver='exact'.*sgd"),
        ({"penalty": "l1", "solver": "lbfgs"}, "solver='lbfgs' needs a smooth objective.*penalty='l1'.*sgd"),
        ({"penalty": "elasticnet", "solver": "lbfgs"}, "penalty='elasticnet'"),
    ],
)
def test_clear_errors(params, message):
    with pytest.raises(ValueError, match=message):
        configured(LeastSquaresClassifier, **params).fit(IRIS, IRIS_Y)


def test_methods():
    assert not hasattr(LeastSquaresClassifier(), "predict_proba")
    assert hasattr(LeastSquaresClassifier(calibration="sigmoid"), "predict_proba")
    assert not hasattr(LeastSquaresClassifier(), "partial_fit")
    assert hasattr(LeastSquaresClassifier(solver="sgd"), "partial_fit")
    with pytest.raises(AttributeError, match=r"solver='exact'.*all data at once"):
        LeastSquaresClassifier().partial_fit(IRIS, IRIS_Y)


def test_digits_that_x_has_lost_are_no_columns():
    """A sum of two columns far from zero differs from them by the rounding of X, which no weight can lean on."""
    rng = np.random.default_rng(0)
    for far in (1e6, 1e9, 1e11):
        X = rng.normal(size=(40, 3)) + far
        X[:, 2] = X[:, 0] + X[:, 1] - far
        y = (X[:, 0] + rng.normal(size=40) > far).astype(int)
        expected = LeastSquaresClassifier(alpha=0.0).fit(X[:, :2] - far, y)
        model = LeastSquaresClassifier(alpha=0.0).fit(X, y)
        scale = 1e-14 * far + 1e-9
        np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X[:, :2] - far), atol=scale)
    # but a small column is none of the rounding of a large one
    X = np.column_stack([1e12 + 1e6 * rng.normal(size=40), 1e-5 * rng.normal(size=40)])
    y = (X[:, 1] > 0).astype(int)
    assert LeastSquaresClassifier(alpha=0.0).fit(X, y).score(X, y) > 0.8
