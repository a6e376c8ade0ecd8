"""Exact fits in NumPy: rows, losses, the descent of smooth objectives; and the models as by torch's full batches."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning

from skdeep import (
    HingeClassifier,
    Huber,
    LeastSquaresClassifier,
    LinearRegressor,
    SigmoidClassifier,
    SoftmaxClassifier,
)
from skdeep.engine.losses import LOSSES, smoothed
from skdeep.exact import path
from skdeep.exact.descent import Stack, descend
from skdeep.exact.lbfgs import LBFGS
from skdeep.exact.losses import LogisticLoss, SoftmaxLoss, SquaredHinges, SquaredLoss, SquaredWestonWatkins
from skdeep.exact.newton import Newton
from skdeep.exact.path import follow, in_batches, levels
from skdeep.exact.rows import Rows, SparseRows
from skdeep.fitting import solving
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

RNG = np.random.default_rng(0)
N, D, C = 40, 5, 3
CODES = RNG.integers(0, C, N)
INDICATORS = np.eye(C)[CODES].T
COLUMNS = RNG.normal(size=(N, D - 1)) + 0.7 * np.eye(C)[CODES] @ RNG.normal(size=(C, D - 1))
Z = np.hstack([COLUMNS, np.ones((N, 1))])
RHO = np.array([0.1, 0.03, 0.2, 0.1, 0.0])

#: Each loss beside its twin for torch, and that one's target.
PAIRS = {
    "softmax": (SoftmaxLoss(CODES, C), LOSSES["log_loss"](), CODES),
    "smoothed": (SoftmaxLoss(CODES, C, 0.2), smoothed(LOSSES["log_loss"](), 0.2), CODES),
    "logistic": (LogisticLoss(INDICATORS), LOSSES["binary_log_loss"](), INDICATORS.T),
    "smoothed logistic": (
        LogisticLoss(0.8 * INDICATORS + 0.1), smoothed(LOSSES["binary_log_loss"](), 0.2), INDICATORS.T
    ),
    "squared": (SquaredLoss(2.0 * INDICATORS - 1), LOSSES["squared_error"](), INDICATORS.T),
    "ovr": (SquaredHinges(2.0 * INDICATORS - 1), LOSSES["ovr"](squared=True), INDICATORS.T),
    "weston_watkins": (SquaredWestonWatkins(CODES, C), LOSSES["weston_watkins"](squared=True), CODES),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_losses_are_those_of_torch(name):
    """Values, gradients, second derivatives, of several models at a time."""
    ours, theirs, target = PAIRS[name]
    scores = 2 * np.random.default_rng(1).normal(size=(2, C, N))
    of_torch, target = torch.from_numpy(scores).mT, torch.from_numpy(target)
    value, gradient = theirs.value_and_gradient(of_torch.clone(), target)
    at = ours.at(scores)
    # the loss of no scores is what a conjugate is counted from: smoothing adds a constant to neither
    np.testing.assert_allclose(at.value, value.numpy(), atol=1e-12)
    np.testing.assert_allclose(at.gradient, gradient.mT.numpy(), atol=1e-12)
    h = 1e-6 * torch.eye(C, dtype=torch.float64)
    ahead, behind = (
        torch.stack([theirs.value_and_gradient(of_torch + side * h[c], target)[1] for c in range(C)], 2)
        for side in (1, -1)
    )
    hessian = ((ahead - behind) / 2e-6).permute(0, 2, 3, 1).numpy()  # central differences
    diagonal = np.einsum("kccn->kcn", hessian)
    np.testing.assert_allclose(ours.diagonal(scores, at), diagonal, atol=1e-8)
    second = ours.second(scores, at)
    if ours.separable:
        np.testing.assert_allclose(second, diagonal, atol=1e-8)
        assert np.abs(hessian - np.einsum("kcn,cd->kcdn", diagonal, np.eye(C))).max() <= 1e-8
    else:
        i, j = np.tril_indices(C)
        np.testing.assert_allclose(second, hessian[:, i, j], atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_products_with_rows(n, d, m, intercept, seed):
    """Dense and sparse rows compute the same, with products kept or not."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.5)
    whole = np.hstack([X, np.ones((n, 1))]) if intercept else X
    params, gradient, factor = (rng.normal(size=(m, 2, k)) for k in (whole.shape[1], n, n))
    factor = factor[:, 0]
    for rows in (Rows(whole), SparseRows(sparse.csr_array(X), intercept)):
        np.testing.assert_allclose(rows.scores(params), params @ whole.T, atol=1e-12)
        np.testing.assert_allclose(rows.back(gradient), gradient @ whole, atol=1e-12)
        for f in (factor, np.abs(factor), factor * (factor > 0)):
            np.testing.assert_allclose(rows.gram(f), np.einsum("ni,kn,nj->kij", whole, f, whole), atol=1e-11)
        index = rng.integers(0, n, 3)
        np.testing.assert_array_equal(rows.take(index), whole[index])
        np.testing.assert_allclose(rows.select(index).scores(params), rows.scores(params)[..., index], atol=1e-12)


def objective(loss, weight, rho, params):
    at = loss.at(Rows(Z).scores(params[None]))
    gradient = Rows(Z).back(at.gradient * weight)[0] + rho * params
    return float(at.value[0] @ weight + (rho * params**2).sum() / 2), gradient


def optimum(loss, weight, rho):
    """The minimum by SciPy."""

    def function(x):
        value, gradient = objective(loss, weight, rho, x.reshape(C, D))
        return value, gradient.ravel()

    return minimize(
        function, np.zeros(C * D), jac=True, method="L-BFGS-B", options={"maxiter": 9999, "ftol": 1e-15, "gtol": 1e-10}
    )


DIRECTIONS = {
    "newton": lambda K: Newton(D),
    "raw": lambda K: Newton(D, alike=False),
    "lbfgs": lambda K: LBFGS(np.arange(K)),
}


def test_where_a_gradient_is_small_but_steps_lead_far_it_goes_on():
    """Rows that can be told apart ended at .026, if they were sparse: other columns, in which the way is as flat."""
    X, y = load_breast_cancer(return_X_y=True)
    assert SoftmaxClassifier(penalty=None).fit(sparse.csr_array(X), y).loss_ < 1e-5


@pytest.mark.parametrize("seed", [5, 14])
def test_pieces_that_are_flat_are_no_end(seed):
    """Gradients were within `tol` at 1.0006 times the minimum, after steps that had fallen as far."""
    n, n_classes = 100, 60
    rng = np.random.default_rng(seed)
    X = sparse.csr_array(rng.poisson(0.5, (n, 10)).astype(float))
    y = np.r_[np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)]
    hinge = HingeClassifier(alpha=3e-5, calibration=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")
        best = clone(hinge).set_params(tol=1e-9, max_iter=2000).fit(X, y).loss_curve_[-1]
        assert hinge.fit(X, y).loss_curve_[-1] < 1.0001 * best


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_descent_ends_at_the_minimum(name, direction):
    """Of each model of a stack as alone, whatever the others' weights and penalties."""
    loss = PAIRS[name][0]
    rng = np.random.default_rng(2)
    weight = rng.random((3, N)) * (rng.random((3, N)) < 0.8)
    weight /= weight.sum(1, keepdims=True)
    rho = RHO * np.array([[1.0], [0.1], [3.0]])
    tol = np.array([1e-8, 4e-9, 1e-8])
    found = descend(Stack(Rows(Z), loss, weight, rho, np.zeros((3, C, D))), DIRECTIONS[direction](3), tol, 500)
    for k in range(3):
        assert found.bound[k] <= tol[k] and "tol" in found.stopped[k]
        best = optimum(loss, weight[k], rho[k])
        value, gradient = objective(loss, weight[k], rho[k], found.params[k])
        assert value == pytest.approx(found.curve[k][-1], abs=1e-13) and value <= best.fun + 1e-12
        assert np.abs(gradient).max() == pytest.approx(found.bound[k], abs=1e-12)
        assert all(np.diff(found.curve[k]) <= 1e-13)
        alone = Stack(Rows(Z), loss, weight[k : k + 1], rho[k : k + 1], np.zeros((1, C, D)))
        alone = descend(alone, DIRECTIONS[direction](1), tol[k : k + 1], 500)
        np.testing.assert_allclose(found.params[k], alone.params[0], atol=1e-9)


def test_sparse_rows_are_dense_where_that_is_cheaper():
    """Few, or such as have many values; others stay as they are."""
    for shape, density, is_dense in (((300, 100), 0.01, True), ((9000, 20), 0.3, True), ((3000, 200), 0.02, False)):
        X = sparse.random_array(shape, density=density, format="csr", rng=np.random.default_rng(0))
        rows = SparseRows(X, True)
        found = rows.cheapest()
        assert (type(found) is Rows) == is_dense and (is_dense or found is rows)
        np.testing.assert_array_equal(found.take(np.arange(9)), rows.take(np.arange(9)))


@pytest.mark.parametrize("rows", [Rows(Z), SparseRows(sparse.csr_array(COLUMNS), True)])
def test_diagonals_are_of_the_products(rows):
    factor = RNG.random((2, N))
    np.testing.assert_allclose(rows.diagonal(factor), np.diagonal(rows.gram(factor), axis1=1, axis2=2), rtol=1e-13)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_products_of_sparse_columns(density, intercept):
    """All of them, and some, with the intercept or without."""
    X = sparse.csr_array(sparse.random(50, 30, density, random_state=0))
    rows, dense = SparseRows(X, intercept), X.toarray()
    Z = np.hstack([dense, np.ones((50, 1))]) if intercept else dense
    factor = RNG.normal(size=(2, 50))
    np.testing.assert_allclose(rows.gram(factor), [Z.T @ (f[:, None] * Z) for f in factor], atol=1e-13)
    for index in (np.array([0, 3, 4, Z.shape[1] - 1]), np.array([2, 7]), np.arange(30)):
        for kind in (rows, Rows(Z)):
            between = kind.between(index[::-1], np.array([1, Z.shape[1] - 1, 4]), factor[0])
            np.testing.assert_allclose(between, rows.gram(factor)[0][index[::-1]][:, [1, -1, 4]], atol=1e-13)
        for some in (rows.narrow(index), Rows(Z).narrow(index)):
            assert some.shape == (50, len(index))
            np.testing.assert_allclose(some.gram(factor), rows.gram(factor)[:, index][:, :, index], atol=1e-13)
            np.testing.assert_allclose(some.scores(factor[:, : len(index)]), factor[:, : len(index)] @ Z[:, index].T)


def test_of_many_columns_no_products_are_formed(monkeypatch):
    """Text of a thousand words took seconds: its matrices cost more than all iterations."""
    X = sparse.random(60, 1000, 0.02, format="csr", random_state=0)
    monkeypatch.setattr(SparseRows, "gram", lambda *of: pytest.fail("a matrix of all columns"))
    loss, weight, rho = SoftmaxLoss(np.arange(60) % C, C), np.full((1, 60), 1 / 60), np.r_[np.full(1000, 0.01), 0.0]
    stack = Stack(SparseRows(X, True), loss, weight, rho[None], np.zeros((1, C, 1001)))
    found = descend(stack, LBFGS(np.zeros(1, dtype=int)), np.full(1, 1e-9), 500)
    dense = Rows(np.hstack([X.toarray(), np.ones((60, 1))]))
    gradient = dense.back(loss.at(dense.scores(found.params)).gradient / 60)[0] + rho * found.params[0]
    assert np.abs(gradient).max() < 2e-9


@pytest.mark.parametrize("name", ["logistic", "squared", "ovr"])
def test_columns_apart_are_columns_together(name):
    loss = PAIRS[name][0]
    weight, rho = np.full((2, N), 1 / N), np.stack([RHO, 0.1 * RHO])
    together = descend(Stack(Rows(Z), loss, weight, rho, np.zeros((2, C, D))), Newton(D), np.full(2, 1e-9), 99)
    apart = Stack(Rows(Z), loss.apart(2), np.repeat(weight, C, 0), np.repeat(rho, C, 0), np.zeros((2 * C, 1, D)))
    apart = descend(apart, Newton(D), np.full(2 * C, 1e-9), 99).together(C)
    np.testing.assert_allclose(apart.params, together.params, atol=1e-8)
    for k in range(2):
        assert apart.curve[k][0] == pytest.approx(together.curve[k][0], abs=1e-13)
        assert apart.curve[k][-1] == pytest.approx(together.curve[k][-1], abs=1e-13)
        assert "tol" in apart.stopped[k] and apart.bound[k] <= 1e-9


def test_columns_of_one_kind_have_the_curvature_of_the_first():
    """Of several models, whose targets are the columns' own."""
    loss, weight, rho = PAIRS["logistic"][0], np.full((2, N), 1 / N), np.stack([RHO, 0.1 * RHO])
    apart = Stack(Rows(Z), loss.apart(2), np.repeat(weight, C, 0), np.repeat(rho, C, 0), np.zeros((2 * C, 1, D)))
    found = descend(apart, LBFGS(np.tile(np.arange(C), 2)), np.full(2 * C, 1e-9), 99).together(C)
    for k in range(2):
        assert found.curve[k][-1] == pytest.approx(optimum(loss, weight[k], rho[k]).fun, abs=1e-12)


def test_what_is_known_of_models_that_have_left_is_not_used_again():
    loss, rho, way = PAIRS["logistic"][0], np.stack([RHO, 0.1 * RHO, 0.01 * RHO]), LBFGS(np.arange(3))
    for least in (1e3, 1e-9):  # the first leaves before the curvature is looked at
        stack = Stack(Rows(Z), loss, np.full((3, N), 1 / N), rho, np.zeros((3, C, D)))
        found = descend(stack, way, np.array([least, 1e-9, 1e-9]), 500)
        way = way.again(np.arange(3))
    for k in range(3):
        assert found.curve[k][-1] == pytest.approx(optimum(loss, np.full(N, 1 / N), rho[k]).fun, abs=1e-12)


def test_the_slowest_column_speaks_for_all():
    loss, weight = PAIRS["logistic"][0].apart(1), np.full((1, N), 1 / N)
    rho = np.stack([1e3 * RHO, RHO, RHO])
    stack = Stack(Rows(Z), loss, np.repeat(weight, C, 0), rho, np.zeros((C, 1, D)))
    found = descend(stack, Newton(D), np.full(C, 1e-9), 1).together(C)
    assert found.stopped == [None] and found.bound[0] > 1e-9 and len(found.curve[0]) == 1


def test_a_path_is_the_models_alone():
    weight = np.stack([np.full(N, 1 / N), np.r_[np.zeros(10), np.full(N - 10, 1 / (N - 10))]])
    weight = np.repeat(weight, 4, axis=0)
    rho = np.tile(np.array([0.01, 1.0, 0.1, 0.03]), 2)[:, None] * RHO
    loss = PAIRS["softmax"][0]
    start, kind = np.zeros((8, C, D)), np.zeros(8, dtype=int)
    for direction in (lambda kind: LBFGS(kind), lambda kind: Newton(D)):
        found = follow(Rows(Z), loss, weight, rho, start, kind, direction, (np.full(8, 1e-8), 500, np.inf))
        for k in range(8):
            best = optimum(loss, weight[k], rho[k])
            assert abs(found.curve[k][-1] - best.fun) < 1e-10
            np.testing.assert_allclose(found.params[k, :, :-1], best.x.reshape(C, D)[:, :-1], atol=1e-4)


def test_all_models_take_quasi_newton_steps_at_once():
    """One by one, as an infinite number of scores had it that is divided without a rest, takes three times as long."""
    (models,) = in_batches(np.arange(5), Rows(Z), PAIRS["softmax"][0], LBFGS(np.arange(5)))
    assert models.tolist() == [0, 1, 2, 3, 4]


def test_the_order_of_a_path():
    found, before = levels(["a", "b", "a", "c"], np.array([1.0, 2.0, 3.0, 2.0]))
    assert [level.tolist() for level in found] == [[2, 1, 3], [0]]
    assert before.tolist() == [2, -1, -1, -1]
    found, before = levels(["a", "b", "b"], np.array([1.0, 2.0, 3.0]))  # the first model's chain is the first
    assert [level.tolist() for level in found] == [[0, 2], [1]] and before.tolist() == [-1, 2, -1]


def test_the_first_chain_of_a_kind_leads():
    keys, strength = ["a", "b", "a", "b", "c", "c"], np.array([1.0, 1.0, 2.0, 2.0, 1.0, 2.0])
    found, before = levels(keys, strength, np.array([0, 0, 0, 0, 1, 1]))
    assert [level.tolist() for level in found] == [[2, 5], [0, 3, 4], [1]]
    assert before.tolist() == [2, 3, -1, 2, 5, -1]


# ---- estimators ------------------------------------------------------------------------------------------------------

SETS = {f.__name__.removeprefix("load_"): f(return_X_y=True) for f in (load_iris, load_wine, load_breast_cancer)}


@pytest.fixture
def by_torch(monkeypatch):
    """Full batches by torch, whatever the objective."""

    def fit(model, *args, **params):
        with monkeypatch.context() as patch:
            patch.setattr(solving, "has_exact_solver", lambda *of: False)
            return clone(model).fit(*args, **params)

    return fit


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(),
        SoftmaxClassifier(alpha=0.1, label_smoothing=0.1),
        SoftmaxClassifier(standardize=False),
        SoftmaxClassifier(fit_intercept=False),
        SoftmaxClassifier(penalty=None),
        SoftmaxClassifier(class_weight="balanced"),
        SigmoidClassifier(alpha=1e-3),
        LeastSquaresClassifier(),
        HingeClassifier("squared_hinge", calibration=None),
        HingeClassifier("squared_hinge", multi_class="ovr", calibration=None),
    ],
    ids=str,
)
def test_models_are_those_of_torch(model, name, by_torch):
    """To rounding, where both take Newton's steps to the end."""
    X, y = SETS[name]
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, len(y)).astype(float)
    if model.penalty is None:  # where rows could be told apart, there were no optimum
        y = np.where(rng.random(len(y)) < 0.3, rng.permutation(y), y)
    model = clone(model).set_params(solver="lbfgs", tol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours, theirs = clone(model).fit(X, y, weight), by_torch(model, X, y, weight)
    size = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7 * size)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-7 * np.abs(theirs.intercept_).max())
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-9)
    assert ours.certificate_ is not None


def test_sparse_rows_are_dense_rows(by_torch):
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], y[:300]
    model = SoftmaxClassifier(alpha=1e-3, solver="lbfgs", tol=1e-9)
    for rows in (sparse.csr_array(X), sparse.csc_array(X)):
        ours, theirs = clone(model).fit(rows, y), by_torch(model, rows, y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)  # L-BFGS, to a gradient
    np.testing.assert_allclose(ours.coef_, clone(model).fit(X, y).coef_, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_columns_far_from_zero(dtype):
    """What counts is how columns vary, in any dtype."""
    X, y = SETS["iris"]
    X = np.round(10 * X).astype(dtype)
    near = SoftmaxClassifier(tol=1e-9).fit(X, y)
    shift = dtype(100) if dtype is np.uint8 else dtype(4096)
    far = SoftmaxClassifier(tol=1e-9).fit(X + shift, y)
    np.testing.assert_allclose(far.coef_, near.coef_, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(far.predict_proba(X + shift), near.predict_proba(X), atol=1e-3)


def test_a_warm_start_begins_where_the_model_is():
    X, y = SETS["wine"]
    model = SoftmaxClassifier(solver="lbfgs", tol=1e-8, warm_start=True).fit(X, y)
    before = model.coef_.copy()
    model.fit(X, y)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(model.coef_, before, atol=1e-10)


# ---- objectives with kinks -------------------------------------------------------------------------------------------

KINKS = [
    HingeClassifier("hinge", calibration=None),
    HingeClassifier("hinge", multi_class="ovr", calibration=None),
    HingeClassifier("hinge", multi_class="crammer_singer", calibration=None),
    HingeClassifier("squared_hinge", multi_class="crammer_singer", calibration=None),
    HingeClassifier("hinge", penalty="l1", calibration=None),
    SoftmaxClassifier("l1"),
    SoftmaxClassifier("elasticnet", label_smoothing=0.1),
    SigmoidClassifier("l1"),
    HingeClassifier("squared_hinge", penalty="l1", calibration=None),
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("model", KINKS, ids=str)
def test_no_solver_ends_lower(model, name):
    """And the certificate says by how much it could at most."""
    X, y = SETS[name]
    ours = clone(model).set_params(alpha=0.01).fit(X, y)
    if ours.solver_ == "lbfgs":  # two classes have one loss, which is smooth if squared
        return
    assert ours.solver_ == "exact" and 0 <= ours.certificate_ <= 1e-6
    theirs = clone(ours).set_params(solver="sgd", random_state=0, max_iter=300).fit(X, y)
    assert ours.loss_ <= theirs.loss_ * (1 + 1e-9)
    near = clone(ours).set_params(tol=1e-2).fit(X, y)
    assert ours.loss_ * (1 - 1e-9) <= near.loss_ <= ours.loss_ / (1 - near.certificate_) * (1 + 1e-9)


def test_squared_hinges_of_each_class_are_solved_where_few_rows_have_curvature():
    """They were counted as if all rows had, and mini-batches ended a fifth above, in more time."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(560, 700))
    y = (X @ rng.normal(size=(700, 3))).argmax(1)
    model = HingeClassifier(multi_class="ovr", calibration=None, alpha=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert model.fit(X, y).solver_ == "lbfgs"
    assert model.loss_ == pytest.approx(clone(model).set_params(solver="lbfgs", tol=1e-8).fit(X, y).loss_, rel=1e-4)


@pytest.mark.parametrize("model", KINKS, ids=str)
def test_weights_are_repetitions_for_objectives_with_kinks(model):
    X, y = SETS["wine"]
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    model = clone(model).set_params(alpha=0.01, solver="exact", tol=1e-6)
    weighted, repeated = clone(model).fit(X, y, weight), clone(model).fit(X.repeat(weight, 0), y.repeat(weight))
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-7)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-3 * np.abs(weighted.coef_).max())


def test_what_has_no_exact_solver_is_refused():
    positive = LinearRegressor("absolute_error", output="relu", random_state=0)
    with pytest.raises(ValueError, match="solver='exact' minimises all losses with any penalty, but for losses of"):
        clone(positive).set_params(solver="exact").fit(*SETS["iris"])
    with pytest.raises(ValueError, match="early_stopping=True has nothing to stop"):
        HingeClassifier("hinge", solver="exact", early_stopping=True).fit(*SETS["iris"])
    assert positive.fit(*SETS["iris"]).solver_ == "sgd"


def test_the_gap_is_named_where_iterations_end():
    model = HingeClassifier("hinge", calibration=None, max_iter=3)
    with pytest.warns(
        ConvergenceWarning, match=r"within 3 iterations .* duality gap is .*, more than tol / 100 = 1e-06"
    ):
        model.fit(*SETS["iris"])
    assert model.certificate_ > 1e-6 and model.solver_ == "exact"


def test_validation_data_is_looked_at_once():
    X, y = SETS["iris"]
    model = HingeClassifier("hinge").fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert model.solver_ == "exact" and model.validation_scores_[-1] > 0.9


def test_the_fold_models_of_a_calibration_are_near_enough():
    """The temperature is the same as with folds at their optimum."""
    X, y = SETS["wine"]
    found = []
    for solver in ("exact", "sgd"):
        model = HingeClassifier("hinge", alpha=0.01, solver=solver, random_state=0).fit(X, y)
        found.append(model.temperature_)
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_batches_of_a_stack_are_its_models(monkeypatch):
    """However many take Newton's steps at a time; where not all do, penalties follow each other."""
    X, y = load_iris(return_X_y=True)
    sizes, found, begin = [], [], Stack.__post_init__
    monkeypatch.setattr(Stack, "__post_init__", lambda self, known: sizes.append(len(self.rho)) or begin(self, known))
    search = GridSearchCV(SoftmaxClassifier(tol=1e-10), {"alpha": [1e-3, 1e-1, 1e-2]}, cv=4, scoring="neg_log_loss")
    for most in (Newton.most_scores, 3 * len(y)):
        monkeypatch.setattr(Newton, "most_scores", most)
        search.set_params(refit=False).fit(X, y)
        found.append([search.cv_results_[f"split{i}_test_score"] for i in range(4)])
    assert sizes == [12] + [1] * 12  # what objectives are where the last ones ended is known
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize("alpha", [1e-8, 1e-4, 1e-2])
@pytest.mark.parametrize("tiny", [1e-3, 1e-6])
def test_a_tiny_column_keeps_no_other_from_its_optimum(tiny, alpha):
    """All errors are beyond delta, where the penalty alone has curvature: of a huge column, next to none."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 2)) * [1e5, tiny], np.sign(rng.normal(size=12)) * 2
    reg = LinearRegressor(Huber(0.3), alpha=alpha, fit_intercept=False)

    def objective(coef):
        residual = np.abs(X @ coef - y)
        losses = np.where(residual < 0.3, residual**2 / 2, 0.3 * residual - 0.045)
        return losses.mean() + alpha * (coef @ coef) / 2

    first = min(objective(np.array([share * 1e-5, 0.0])) for share in np.linspace(-5, 5, 1001))
    assert first < 0.999 * objective(np.zeros(2))
    assert objective(reg.fit(X, y).coef_[0]) <= first + 1e-6


def test_a_limit_of_iterations_is_one_for_models_of_a_stack_too():
    X, y = load_breast_cancer(return_X_y=True)
    alone = [HingeClassifier("squared_hinge", calibration=None, alpha=alpha, max_iter=3) for alpha in (10.0, 0.1, 1e-3)]
    together = [clone(one) for one in alone]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit_stack(together, X, y)
        for one, other in zip(alone, together, strict=True):
            one.fit(X, y)
            np.testing.assert_allclose(other.decision_function(X), one.decision_function(X), rtol=1e-8, atol=1e-10)


def test_splits_whose_columns_are_others_follow_the_path(monkeypatch):
    """Pixels that a split's rows have a single value of: all penalties of the split began at zero, each apart."""
    X, y = load_digits(return_X_y=True)
    solve, sizes = path.descend, []
    monkeypatch.setattr(path, "descend", lambda stack, *more: sizes.append(len(stack.rho)) or solve(stack, *more))
    GridSearchCV(SoftmaxClassifier(), {"alpha": [1e-3, 1e-1, 1e-2]}, cv=5, refit=False).fit(X[:500], y[:500])
    assert sizes == [5, 5, 5]
