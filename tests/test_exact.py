"""The exact solver: optimum, stacks, chunks, and everything that can end a run."""

import warnings

import numpy as np
import pytest
import torch
from helpers import CPU, DATA, configured, covering, set_constant
from scipy import sparse
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from skdeep import LBFGS, HingeClassifier, MLPClassifierTorch, SigmoidClassifier, SoftmaxClassifier
from skdeep.engine.batching import Batches
from skdeep.engine.losses import LOSSES, Loss
from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.engine.penalties import L2
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.engine.training import Progress
from skdeep.exact import newton as exact_newton
from skdeep.exact import rivals
from skdeep.fitting import solving
from skdeep.model_selection.stacks import fit_stack
from skdeep.solvers.full_batch import minimise
from skdeep.solvers.line_search import LineSearch

SMOOTH = [("log_loss", {}), ("binary_log_loss", {}), ("weston_watkins", {"squared": True}), ("ovr", {"squared": True})]
IDS = [name for name, _ in SMOOTH]


# ---- the optimum ----------------------------------------------------------------------------------------------------


def objective(model, X, y, alpha, weight=None):
    scores = X @ model.coef_.T + model.intercept_
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    loss = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
    return np.average(loss, weights=weight) + alpha / 2 * (model.coef_**2).sum()


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("alpha", "gap"), [(1.0, 1e-8), (1e-2, 1e-8), (1e-4, 1e-8), (1e-6, 1e-6)])
def test_the_optimum_of_newton_cholesky_on_raw_columns(name, alpha, gap):
    """In a few iterations, however the columns are scaled."""
    X, y = (part[:600] for part in DATA[name](return_X_y=True))
    ours = SoftmaxClassifier(solver="lbfgs", alpha=alpha, tol=1e-7).fit(X, y)
    theirs = LogisticRegression(C=1 / (alpha * len(y)), solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(X, y)
    assert abs(objective(ours, X, y, alpha) - objective(theirs, X, y, alpha)) <= gap
    assert ours.n_iter_ < 25


@pytest.mark.parametrize("in_torch", [False, True])
@pytest.mark.parametrize("model", [SoftmaxClassifier, SigmoidClassifier])
def test_columns_of_any_size_are_not_in_the_way_of_quasi_newton_steps(model, in_torch, monkeypatch):
    """Columns that others outsize had all their curvature made up: 388 iterations."""
    set_constant(monkeypatch, "MAX_SYSTEM", 0)
    if in_torch:
        monkeypatch.setattr(solving, "has_exact_solver", lambda *of: False)
    X, y = load_breast_cancer(return_X_y=True)
    settings = {"solver": "lbfgs", "alpha": 1e-6, "tol": 1e-6}
    raw, scaled = (model(standardize=standardize, **settings).fit(X, y) for standardize in (False, True))
    assert raw.n_iter_ < 50
    assert raw.loss_ == pytest.approx(scaled.loss_, rel=1e-6)


def test_a_limit_of_evaluations_is_that_of_each_model_of_a_path(monkeypatch):
    """Models that begin where others ended took as many as they wanted, and none said that it was stopped."""
    set_constant(monkeypatch, "MAX_SYSTEM", 0)
    X, y = load_breast_cancer(return_X_y=True)
    models = [SoftmaxClassifier(solver=LBFGS(max_fun=4), alpha=alpha) for alpha in (1e-2, 1e-6)]
    with pytest.warns(ConvergenceWarning, match="max_fun"):
        fit_stack(models, X, y)
        alone = [clone(model).fit(X, y) for model in models]
    for model, own in zip(models, alone, strict=True):
        assert model.n_iter_ == own.n_iter_ < 5
        np.testing.assert_allclose(model.coef_, own.coef_, rtol=1e-8)


@pytest.mark.parametrize("in_torch", [False, True])
def test_columns_that_are_small_beside_their_penalty_do_not_hold_the_intercept(in_torch, monkeypatch):
    """It had its curvature made up by theirs: six iterations and eight, with twenty classes a hundred."""
    set_constant(monkeypatch, "MAX_SYSTEM", 0)
    if in_torch:
        monkeypatch.setattr(solving, "has_exact_solver", lambda *of: False)
    X, y = load_breast_cancer(return_X_y=True)
    model = SoftmaxClassifier(solver="lbfgs", standardize=False, alpha=1e6, tol=1e-6)
    ours = model.fit(0.02 * (X - X.mean(0)) / X.std(0), y)
    assert ours.n_iter_ < 5
    assert ours.intercept_[0] == pytest.approx(np.log(y.mean() / (1 - y.mean())), rel=1e-3)


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_the_optimum_with_weights_and_without_intercept(name, weighted, fit_intercept):
    X, y = DATA[name](return_X_y=True)
    alpha, class_weight = 1e-2, "balanced" if weighted else None
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y)) if weighted else np.ones(len(y))
    ours = SoftmaxClassifier(
        solver="lbfgs", alpha=alpha, tol=1e-8, max_iter=2000, fit_intercept=fit_intercept, class_weight=class_weight
    ).fit(X, y, sample_weight=weight)
    if weighted:  # scikit-learn balances by counts, not by weights
        factor = [1 / weight[y == label].sum() for label in range(y.max() + 1)]
        weight = weight * np.array(factor)[y]
    theirs = LogisticRegression(
        C=1 / (alpha * weight.sum()), solver="newton-cholesky", tol=1e-10, fit_intercept=fit_intercept, max_iter=1000
    ).fit(X, y, sample_weight=weight)
    assert objective(ours, X, y, alpha, weight) <= objective(theirs, X, y, alpha, weight) + 1e-8


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_the_optimum_of_linear_svc(name):
    X, y = DATA[name](return_X_y=True)
    X, alpha = (X - X.mean(0)) / X.std(0), 0.01
    ours = HingeClassifier(
        "squared_hinge",
        multi_class="ovr",
        calibration=None,
        fit_intercept=False,
        solver="lbfgs",
        alpha=alpha,
        tol=1e-9,
        max_iter=1000,
    ).fit(X, y)
    theirs = LinearSVC(C=1 / (alpha * len(y)), fit_intercept=False, tol=1e-10, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)


def test_sparse_is_dense():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300, 10:22], y[:300]
    for fit_intercept in (False, True):
        model = SoftmaxClassifier(solver="lbfgs", alpha=0.1, tol=1e-9, fit_intercept=fit_intercept)
        dense = model.fit(X, y).coef_
        np.testing.assert_allclose(model.fit(sparse.csr_array(X), y).coef_, dense, atol=1e-6)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_weights_are_repetition(cls):
    X, y = load_wine(return_X_y=True)
    repeats = np.random.default_rng(0).integers(0, 4, len(y))
    params = {} if cls is SoftmaxClassifier else {"loss": "squared_hinge", "calibration": None}
    model = configured(cls, solver="lbfgs", alpha=1e-2, tol=1e-10, **params)
    weighted = model.fit(X, y, sample_weight=repeats).coef_
    np.testing.assert_allclose(model.fit(X.repeat(repeats, axis=0), y.repeat(repeats)).coef_, weighted, atol=1e-8)


def test_large_work_is_done_in_float64_too(monkeypatch):
    set_constant(monkeypatch, "_FREE_FLOAT64", 0)
    X, y = load_breast_cancer(return_X_y=True)
    ours = SoftmaxClassifier(alpha=1e-4, solver="lbfgs", tol=1e-10).fit(X, y)
    theirs = LogisticRegression(C=1 / (1e-4 * len(y)), solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert abs(objective(ours, X, y, 1e-4) - objective(theirs, X, y, 1e-4)) <= 1e-12


@pytest.mark.parametrize("name", ["log_loss", "binary_log_loss", "squared_error"])
def test_second_derivatives_are_those_of_gradients(name):
    loss = LOSSES[name]()
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 7, 4)))
    codes = torch.arange(7) % 4
    target = codes if loss.target == "codes" else torch.nn.functional.one_hot(codes, 4).double()
    numerical = torch.empty(2, 7, 4, dtype=torch.float64)
    for c, shift in enumerate(1e-6 * torch.eye(4, dtype=torch.float64)):
        up, down = (loss.value_and_gradient(scores + sign * shift, target)[1] for sign in (1, -1))
        numerical[..., c] = (up - down)[..., c] / 2e-6
    torch.testing.assert_close(loss.second(scores, target), numerical, atol=1e-8, rtol=0)
    torch.testing.assert_close(Loss.second(loss, scores, target), numerical, atol=1e-8, rtol=0)


# ---- stacks ---------------------------------------------------------------------------------------------------------

N, D, C = 90, 6, 3
RNG = np.random.default_rng(0)
Y = RNG.integers(0, C, N)
X = (RNG.normal(size=(N, D)) + 1.5 * np.eye(C, D)[Y]) * (RNG.random((N, D)) < 0.7)
ALPHAS = np.array([1e-3, 1.0, 0.05])
WEIGHTS = np.stack([np.ones(N), np.where(Y == 0, 3.0, 0.5), RNG.uniform(0.5, 2, N)])
SUBSETS = [np.arange(N), np.arange(40), np.arange(20, 85)]


def run(
    models=(0, 1, 2),
    loss=("log_loss", {}),
    kind="linear",
    rows="shared",
    layout="dense",
    weighted=False,
    chunk=1000,
    data=X,
    progress=None,
    **options,
):
    """Minimise the objectives of some of three models; returns their progress."""
    models = list(models)
    k, loss = len(models), LOSSES[loss[0]](**loss[1])
    center = scale = None
    if kind == "linear":
        scale = 1 / data.std(0)[None]
        center = data.mean(0)[None] if layout == "dense" else None
        network = Linear(
            torch.zeros(k, C, D, dtype=torch.float64), torch.zeros(k, C, dtype=torch.float64), center, scale
        )
    else:
        network = MLP.initial([np.random.default_rng(m) for m in models], [D, 5, C], kind, dtype=torch.float64)
    source = (
        DenseRows(torch.from_numpy(data), CPU, torch.float64)
        if layout == "dense"
        else SparseRows(sparse.csr_array(data), CPU, torch.float64)
    )
    target = torch.from_numpy(Y if loss.target == "codes" else np.eye(C, dtype=np.uint8)[Y])
    weight = torch.from_numpy(WEIGHTS[models]) if weighted else None
    subset = [SUBSETS[m] for m in models] if rows == "own" else None
    taken = [SUBSETS[m] if rows == "own" else slice(None) for m in models]
    mean = np.array([WEIGHTS[m][t].mean() if weighted else 1.0 for m, t in zip(models, taken, strict=True)])
    shared = np.random.default_rng(0)
    generators = [np.random.default_rng(m) if rows == "own" else shared for m in models]
    batches = Batches(source, target, weight, subset, generators, chunk, shuffle=False)
    if progress is None:
        progress = [Progress(1e-7) for _ in models]
    objective = Objective(network, loss, L2(ALPHAS[models], np.zeros(k)), batches, mean)
    return minimise(objective, progress=progress, **{"max_iter": 300, "max_fun": 1000} | options)


def assert_same(stacked, alone, atol=1e-10):
    for a, b in zip(stacked, alone, strict=True):
        assert (a.n_iter, a.stopped, a.error) == (b.n_iter, b.stopped, b.error)
        np.testing.assert_allclose(a.loss_curve, b.loss_curve, rtol=0, atol=atol)
        np.testing.assert_allclose(a.validation_scores, b.validation_scores, rtol=0, atol=atol)
        for p, q in zip(a.params, b.params, strict=True):
            np.testing.assert_allclose(p, q, rtol=0, atol=atol)


def check_exactness(**options):
    stack = run(**options)
    assert_same(stack, [run([m], **options)[0] for m in range(3)])
    return stack


@pytest.mark.parametrize(
    ("loss", "rows", "form"),
    covering(
        dict(zip(IDS, SMOOTH, strict=True)),
        ["shared", "own"],
        [(False, "dense", 99), (True, "dense", 25), (True, "sparse", 25)],
    ),
)
def test_a_stack_ends_where_each_model_ends(loss, rows, form):
    weighted, layout, chunk = form
    stack = check_exactness(loss=loss, rows=rows, weighted=weighted, layout=layout, chunk=chunk)
    assert all(p.stopped is not None for p in stack)


@pytest.mark.parametrize("rows", ["shared", "own"])
@pytest.mark.parametrize("chunk", [1000, 25])
def test_a_stack_of_networks(rows, chunk):
    check_exactness(kind="tanh", rows=rows, chunk=chunk, max_iter=15)


@pytest.mark.parametrize("limits", [{"max_iter": 2}, {"max_fun": 1}, {"max_fun": 3}])
def test_a_stack_keeps_its_limits(limits):
    assert all(p.stopped is None for p in check_exactness(**limits))


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_chunks_add_up(layout):
    assert_same(run(chunk=7, layout=layout), run(layout=layout))


def test_many_models_share_the_products_of_their_rows(monkeypatch):
    """Nine models go one way of adding up a Hessian, one model the other: the result is the same."""
    alphas = np.logspace(-3, 1, 9)
    monkeypatch.setitem(globals(), "ALPHAS", alphas)
    stack = run(range(9))
    assert_same(stack, [run([m])[0] for m in range(9)])


def test_no_more_hessians_in_memory_than_fit(monkeypatch):
    whole = run()
    set_constant(monkeypatch, "_HESSIAN_ENTRIES", 1)
    set_constant(monkeypatch, "_STEP_ENTRIES", 1)
    assert_same(run(), whole)


def test_a_pass_over_the_rows_serves_all_models(monkeypatch):
    """And takes a chunk of them at a time."""
    taken = []
    take = DenseRows.take

    def noting(self, rows):
        batch = take(self, rows)
        taken.append(len(batch))
        return batch

    monkeypatch.setattr(DenseRows, "take", noting)
    set_constant(monkeypatch, "_AT_ONCE", 1)
    run([0], chunk=30)
    longest = len(taken)
    taken.clear()
    run(chunk=30)
    assert len(taken) == longest  # the models of the stack that need less have left
    assert set(taken) == {30}


# ---- what ends a run ------------------------------------------------------------------------------------------------


def accuracy(network, models):
    assert network.n_models == len(models)
    scores = network.scores(torch.from_numpy(X)).detach()
    values = LOSSES["log_loss"]().value(scores, torch.from_numpy(Y)).mean(1)
    return (scores.argmax(-1).numpy() == Y).mean(1), values.numpy()


def test_early_stopping_in_a_stack():
    def watched(k):
        return [Progress(1e-9, 2, watch_score=True) for _ in range(k)]

    stack = run(monitor=accuracy, progress=watched(3))
    assert_same(stack, [run([m], monitor=accuracy, progress=watched(1))[0] for m in range(3)])
    for p in stack:
        network = Linear(*p.params, X.mean(0)[None], 1 / X.std(0)[None])
        assert accuracy(network, [0])[0][0] == p.best_score == max(p.validation_scores)
        assert len(p.validation_scores) == len(p.validation_losses) == p.n_iter
    assert any("Validation score" in p.stopped for p in stack)


def test_a_start_at_the_optimum_is_one_iteration():
    stack = run(progress=[Progress(tol) for tol in (1e-9, 10.0, 10.0)])
    assert [p.n_iter for p in stack][1:] == [1, 1] and stack[0].n_iter > 1
    assert all("gradient" in p.stopped for p in stack)
    assert not stack[1].params[0].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(bad, monkeypatch):
    """Of the model it belongs to."""
    alone = [run([m], rows="own")[0] for m in (0, 2)]
    weights = np.ones_like(WEIGHTS)
    weights[1, 0] = bad
    monkeypatch.setitem(globals(), "WEIGHTS", weights)
    stack = run(rows="own", weighted=True)
    assert "the training loss became" in stack[1].error and "iteration 1" in stack[1].error
    assert_same([stack[0], stack[2]], alone)


def test_interrupted_in_a_stack():
    calls = []

    def monitor(network, models):
        calls.append(models)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return accuracy(network, models)

    limit = 1
    with pytest.raises(KeyboardInterrupt):
        run(monitor=monitor)
    limit = 4
    stack = run(monitor=monitor)
    assert any(p.interrupted for p in stack)
    assert all(p.interrupted or p.stopped for p in stack)
    assert all(torch.isfinite(param).all() for p in stack for param in p.params)


def test_steps_that_overflow_are_shortened():
    """A step may be too long by any factor."""
    search = LineSearch.begin(np.array([1.0]), np.array([-1.0]))
    with np.errstate(over="ignore"):
        while not search.judge(np.exp(1e8 * search.step) - 3e8 * search.step, 1e8 * np.exp(1e8 * search.step) - 3e8, 0):
            assert not search.hopeless.any()
    assert 0 < search.step[0] < 1e-6


@pytest.mark.parametrize("early_stopping", [False, True])
def test_networks_of_the_estimator(early_stopping):
    X, y = load_iris(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    model = MLPClassifierTorch((5,), solver="lbfgs", random_state=0, early_stopping=early_stopping).fit(X, y)
    assert model.score(X, y) > 0.9
    assert np.all(np.diff(model.loss_curve_) <= 1e-12)


def test_calibration_folds_are_one_stack(monkeypatch):
    sizes = []
    call = exact_newton.Newton.__call__

    def noting(self, stack):
        sizes.append(len(stack.params))
        return call(self, stack)

    monkeypatch.setattr(exact_newton.Newton, "__call__", noting)
    X, y = load_iris(return_X_y=True)
    HingeClassifier("squared_hinge", solver="lbfgs").fit(X, y)
    assert max(sizes) == 5


@pytest.mark.parametrize("shape", [(3, 5, 3), (20, 40, 3), (200, 20, 4)], ids=str)
@pytest.mark.parametrize(
    "model",
    [SoftmaxClassifier(), SigmoidClassifier(), HingeClassifier(loss="squared_hinge", calibration=None)],
    ids=lambda model: type(model).__name__,
)
def test_rounding_leads_nowhere_without_a_penalty(model, shape):
    """Where many weights have the same loss, a model in a stack ends at those where it does alone."""
    n, d, n_classes = shape
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, d)), np.arange(n) % n_classes
    model.set_params(solver="lbfgs", penalty=None)
    members = [clone(model).set_params(alpha=alpha) for alpha in (0.3, 0.1)]
    assert fit_stack(members, X, y) == [None, None]
    model.fit(X, y)
    size = np.abs(model.coef_).max()
    np.testing.assert_allclose(members[1].coef_, model.coef_, atol=1e-10 * size)
    if n > d and not isinstance(model, SigmoidClassifier):  # all that is free is a shift of all scores
        assert np.abs(model.coef_.sum(0)).max() < 1e-10 * size


def test_columns_of_zeros_without_a_penalty():
    """No curvature at all: the model stays where it is."""
    clf = SoftmaxClassifier(alpha=0.0, fit_intercept=False, solver="lbfgs").fit(np.zeros((6, 2)), [0, 1, 0, 1, 2, 2])
    assert not clf.coef_.any()
    np.testing.assert_allclose(clf.predict_proba(np.zeros((1, 2))), 1 / 3)


def test_what_takes_long_is_left_to_steps(monkeypatch):
    """Hinges of many rivals, and of many classes on text; neither forms the pairs of all pairs of classes."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(240, 4)), np.arange(240) % 60
    fast = {"calibration": None, "max_iter": 3, "tol": 1.0}
    assert HingeClassifier("hinge", **fast).fit(X, y).solver_ == "sgd"
    assert HingeClassifier("hinge", multi_class="ovr", **fast).fit(X, y).solver_ == "exact"
    assert HingeClassifier("hinge", **fast).fit(X, y % 40).solver_ == "exact"
    words = sparse.random(1000, 3000, 0.004, format="csr", random_state=0)
    assert HingeClassifier("hinge", **fast).fit(words, np.arange(1000) % 40).solver_ == "sgd"
    assert HingeClassifier("hinge", **fast).fit(words, np.arange(1000) % 4).solver_ == "exact"
    words = sparse.random(20_000, 900, 0.005, format="csr", random_state=0)  # whose products are few
    assert SoftmaxClassifier(max_iter=2, tol=1.0).fit(words, np.arange(20_000) % 2).solver_ == "lbfgs"
    monkeypatch.setattr(rivals, "_directions", lambda *of: pytest.fail("pairs of pairs"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        HingeClassifier("hinge", solver="exact", calibration=None, max_iter=2).fit(X, y)
