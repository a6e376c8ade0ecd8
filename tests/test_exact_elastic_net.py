"""Exact fits with L1 and elastic-net penalties, against scikit-learn, SciPy, their own conditions and certificate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression
from sklearn.preprocessing import StandardScaler

from skdeep import SigmoidClassifier
from skdeep.exact.elastic_net import solve
from skdeep.exact.losses import LogisticLoss, SoftmaxLoss, SquaredHinges, SquaredLoss, SquaredWestonWatkins
from skdeep.exact.rows import Rows, SparseRows
from skdeep.exact.value_losses import HuberLoss

LOSSES = ["softmax", "smoothed softmax", "logistic", "smoothed logistic", "squared", "squared hinges", "weston watkins"]


def make_loss(name, codes, C):
    indicators = np.equal.outer(np.arange(C), codes).astype(float)
    return {
        "softmax": lambda: SoftmaxLoss(codes, C),
        "smoothed softmax": lambda: SoftmaxLoss(codes, C, 0.2),
        "logistic": lambda: LogisticLoss(indicators),
        "smoothed logistic": lambda: LogisticLoss(0.8 * indicators + 0.1),
        "squared": lambda: SquaredLoss(2.0 * indicators - 1),
        "squared hinges": lambda: SquaredHinges(2.0 * indicators - 1),
        "weston watkins": lambda: SquaredWestonWatkins(codes, C),
    }[name]()


def make_problem(seed=0, n=40, d=6, C=3, intercept=True, l1=0.02, l2=0.0, K=1):
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d))
    codes = np.argmax(Z @ rng.normal(size=(d, C)) + rng.normal(size=(n, C)), 1)
    if intercept:
        Z = np.column_stack([Z, np.ones(n)])
    weight = rng.random((K, n))
    weight /= weight.sum(1, keepdims=True)
    kappa, rho = np.full((K, Z.shape[1]), l1), np.full((K, Z.shape[1]), l2)
    if intercept:
        kappa[:, -1] = rho[:, -1] = 0
    return Z, codes, weight, kappa, rho


def objective(Z, loss, weight, kappa, rho, V):
    return weight @ loss.at((V @ Z.T)[None]).value[0] + (kappa * np.abs(V) + rho * V**2 / 2).sum()


def check_conditions(Z, loss, weight, kappa, rho, V, tol):
    """Check that zero is in the subdifferential."""
    gradient = (loss.at((V @ Z.T)[None]).gradient[0] * weight) @ Z + rho * V
    kappa = np.broadcast_to(kappa, V.shape)
    assert (np.abs(gradient + kappa * np.sign(V))[V != 0] <= tol).all()
    assert (np.abs(gradient) <= kappa + tol)[V == 0].all()


def by_parts(Z, loss, weight, kappa, rho, shape):
    """Solve by L-BFGS-B in positive and negative parts."""

    def of(parts):
        V = (parts[: parts.size // 2] - parts[parts.size // 2 :]).reshape(shape)
        at = loss.at((V @ Z.T)[None])
        gradient = ((at.gradient[0] * weight) @ Z + rho * V).ravel()
        slopes = np.broadcast_to(kappa, shape).ravel()
        value = weight @ at.value[0] + (rho * V**2).sum() / 2 + slopes @ (parts[: slopes.size] + parts[slopes.size :])
        return value, np.concatenate([slopes + gradient, slopes - gradient])

    size = 2 * shape[0] * shape[1]
    options = {"maxiter": 20000, "maxfun": 10**6, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    return optimize.minimize(
        of, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(0, None)] * size, options=options
    ).fun


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("intercept", [True, False])
def test_value_is_the_minimum(name, l2, intercept):
    l1 = 0.2 if name in ("squared hinges", "weston watkins") else 0.05
    Z, codes, weight, kappa, rho = make_problem(intercept=intercept, l1=l1, l2=l2)
    loss = make_loss(name, codes, 3)
    found = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-9)
    V = found.params[0]
    assert found.converged.all()
    assert found.value[0] == pytest.approx(objective(Z, loss, weight[0], kappa[0], rho[0], V), rel=1e-12)
    assert found.value[0] == pytest.approx(by_parts(Z, loss, weight[0], kappa[0], rho[0], V.shape), rel=1e-8)
    assert 0 < np.count_nonzero(V == 0) < V.size
    check_conditions(Z, loss, weight[0], kappa[0], rho[0], V, 1e-5)
    assert (np.diff(found.curve[0]) <= 1e-14).all()


@pytest.mark.parametrize("C", [0.05, 1.0, 30.0])
def test_two_classes_are_liblinears(C):
    X, y = load_breast_cancer(return_X_y=True)
    Z = StandardScaler().fit_transform(X)
    n, d = Z.shape
    theirs = LogisticRegression(
        l1_ratio=1, C=C, solver="liblinear", tol=1e-10, fit_intercept=False, max_iter=10000
    ).fit(Z, y)
    loss = LogisticLoss(y[None].astype(float))
    found = solve(Rows(Z), loss, np.full((1, n), 1 / n), np.full((1, d), 1 / (C * n)), np.zeros((1, d)))
    assert found.converged.all()
    np.testing.assert_allclose(found.params[0], theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())
    np.testing.assert_array_equal(found.params[0] != 0, theirs.coef_ != 0)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_more_classes_are_sagas(l1_ratio):
    X, y = load_iris(return_X_y=True)
    Z = StandardScaler().fit_transform(X)
    n, C = len(y), 0.5
    theirs = LogisticRegression(l1_ratio=l1_ratio, C=C, solver="saga", tol=1e-10, max_iter=20000, random_state=0)
    theirs.fit(Z, y)
    Z1 = np.column_stack([Z, np.ones(n)])
    slopes = np.array([[1.0] * 4 + [0.0]]) / (C * n)
    found = solve(
        Rows(Z1), SoftmaxLoss(y, 3), np.full((1, n), 1 / n), l1_ratio * slopes, (1 - l1_ratio) * slopes, gap=1e-10
    )
    coef = found.params[0, :, :-1]
    np.testing.assert_array_equal(coef != 0, theirs.coef_ != 0)
    np.testing.assert_allclose(coef, theirs.coef_, atol=2e-4)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
def test_one_column_of_the_squared_loss_is_the_lasso(l1_ratio):
    Z, codes, _, kappa, rho = make_problem(C=2, n=50, d=8)
    alpha, y = 0.05, 2.0 * (codes == 1) - 1
    theirs = (Lasso(alpha, tol=1e-12) if l1_ratio == 1 else ElasticNet(alpha, l1_ratio=l1_ratio, tol=1e-12)).fit(
        Z[:, :-1], y
    )
    slopes = np.where(kappa > 0, alpha, 0.0)
    loss = SquaredLoss(2.0 * (codes == 1)[None] - 1)
    found = solve(Rows(Z), loss, np.full((1, 50), 0.02), l1_ratio * slopes, (1 - l1_ratio) * slopes, gap=1e-12)
    np.testing.assert_allclose(found.params[0, 0], np.append(theirs.coef_, theirs.intercept_), atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_stack_is_its_models_alone_and_a_weight_a_repetition(name):
    Z, codes, weight, kappa, rho = make_problem(K=4, n=30, d=5)
    loss = make_loss(name, codes, 3)
    weight[1] = weight[0]
    counts = np.random.default_rng(1).integers(0, 4, 30)
    weight[3] = counts / counts.sum()
    kappa *= np.array([1, 0.1, 2, 0.5])[:, None]
    stack = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-9)
    assert stack.converged.all()
    for k in range(4):
        alone = solve(Rows(Z), loss, weight[k : k + 1], kappa[k : k + 1], rho[k : k + 1], gap=1e-9)
        assert stack.value[k] == pytest.approx(alone.value[0], rel=2e-9)
        np.testing.assert_allclose(stack.params[k] @ Z.T, alone.params[0] @ Z.T, atol=2e-3)
    repeated = np.repeat(np.arange(30), counts)
    n = len(repeated)
    alone = solve(
        Rows(Z[repeated]), make_loss(name, codes[repeated], 3), np.full((1, n), 1 / n), kappa[3:], rho[3:], gap=1e-9
    )
    assert stack.value[3] == pytest.approx(alone.value[0], rel=2e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_where_the_penalty_is_strong_all_is_zero(name):
    Z, codes, weight, kappa, rho = make_problem()
    found = solve(Rows(Z), make_loss(name, codes, 3), weight, 1e4 * kappa, rho)
    assert found.converged.all()
    assert not found.params[0, :, :-1].any()


@pytest.mark.parametrize("max_iter", [0, 1, 2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gap_is_a_bound_wherever_the_iterations_end(name, max_iter):
    Z, codes, weight, kappa, rho = make_problem(l1=0.003)
    loss = make_loss(name, codes, 3)
    best = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-10)
    found = solve(Rows(Z), loss, weight, kappa, rho, max_iter=max_iter)
    if name != "squared":  # Whose one quadratic function takes no more iterations.
        assert len(found.curve[0]) == max_iter + 1
        assert not found.converged[0]
    assert found.gap[0] * found.value[0] >= found.value[0] - best.value[0] * (1 + 1e-10)


def test_a_start_changes_the_way_and_not_the_end():
    Z, codes, weight, kappa, rho = make_problem()
    loss = SoftmaxLoss(codes, 3)
    cold = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-9)
    warm = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-9, start=cold.params)
    far = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-9, start=np.full_like(cold.params, 3.0) + cold.params)
    assert len(warm.curve[0]) <= 3
    for found in (warm, far):
        assert found.value[0] == pytest.approx(cold.value[0], rel=2e-9)
        np.testing.assert_array_equal(found.params != 0, cold.params != 0)


@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_rows_are_dense_ones(intercept):
    rng = np.random.default_rng(0)
    X = sparse.random(60, 300, 0.05, "csr", rng=rng)
    codes = rng.integers(0, 4, 60)
    Z = np.column_stack([X.toarray(), np.ones(60)]) if intercept else X.toarray()
    kappa = np.full((1, Z.shape[1]), 0.003)
    kappa[:, 300:] = 0
    weight, rho = np.full((1, 60), 1 / 60), np.zeros_like(kappa)
    dense = solve(Rows(Z), SoftmaxLoss(codes, 4), weight, kappa, rho, gap=1e-9)
    found = solve(SparseRows(sparse.csr_array(X), intercept), SoftmaxLoss(codes, 4), weight, kappa, rho, gap=1e-9)
    assert found.converged.all() and dense.converged.all()
    assert found.value[0] == pytest.approx(dense.value[0], rel=2e-9)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(LOSSES),
    seed=st.integers(0, 2**16),
    n=st.integers(2, 25),
    d=st.integers(1, 30),
    C=st.integers(2, 5),
    strength=st.floats(-4, 0),
    mix=st.sampled_from([0.0, 0.5]),
    intercept=st.booleans(),
    columns=st.sampled_from(["as they are", "twice", "of zeros", "of integers"]),
)
def test_any_shape_converges(name, seed, n, d, C, strength, mix, intercept, columns):
    l1 = 10**strength
    Z, codes, weight, kappa, rho = make_problem(seed, n, d, C, intercept, l1 * (1 - mix), l1 * mix)
    if columns == "twice":
        Z[:, : d // 2] = Z[:, d - d // 2 : d]
    elif columns == "of zeros":
        Z[:, : d // 2] = 0
    elif columns == "of integers":
        Z = np.round(Z)
    loss = make_loss(name, codes, C)
    found = solve(Rows(Z), loss, weight, kappa, rho)
    assert found.converged.all(), found.gap
    # a gap bounds the square of the gradient: as far as rounding lets it fall
    found = solve(Rows(Z), loss, weight, kappa, rho, gap=1e-10)
    check_conditions(Z, loss, weight[0], kappa[0], rho[0], found.params[0], 1e-2 * l1 + 1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_conjugates_are_legendres(name):
    rng = np.random.default_rng(0)
    codes = np.array([0, 1, 2, 1, 0])
    loss = make_loss(name, codes, 3)
    dual = 0.7 * loss.at(rng.normal(size=(1, 3, 5))).gradient

    def negative(flat):
        scores = flat.reshape(1, 3, 5)
        at = loss.at(scores)
        return at.value.sum() - (dual * scores).sum(), (at.gradient - dual).ravel()

    best = optimize.minimize(negative, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert loss.conjugate(dual).sum() == pytest.approx(-best.fun, abs=1e-9)
    scores = rng.normal(size=(4, 3, 5))
    at = loss.at(scores)
    # At gradients, Fenchel's inequality is an equality.
    np.testing.assert_allclose(loss.conjugate(at.gradient) + at.value, (at.gradient * scores).sum(1), atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("present", [3, 2])
def test_balanced_points_are_in_the_domain_and_without_a_sum(name, present):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 20)
    weight = rng.random((2, 20)) * (codes < present)
    loss = make_loss(name, codes, 3)
    dual = loss.at(2 * rng.normal(size=(2, 3, 20))).gradient
    found = loss.balanced(dual, weight)
    np.testing.assert_allclose(np.einsum("kcn,kn->kc", found, weight), 0, atol=1e-14)
    # In the domain: no scores anywhere have less than what the conjugate says.
    counted = weight > 0
    for scale in (1, 10, 100):
        scores = scale * rng.normal(size=(2, 3, 20))
        excess = loss.at(scores).value + loss.conjugate(found) - (found * scores).sum(1)
        assert (excess[counted] >= -1e-9 * scale).all()
    # Where nothing is to be balanced, nothing changes.
    np.testing.assert_allclose(
        loss.balanced(found, weight)[:, :, counted.all(0)], found[:, :, counted.all(0)], atol=1e-13
    )


@pytest.mark.parametrize("name", LOSSES)
def test_products_with_second_derivatives_are_differences_of_gradients(name):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 10)
    loss = make_loss(name, codes, 3)
    scores, direction = rng.normal(size=(2, 3, 10)), rng.normal(size=(2, 3, 10))
    gradients = [loss.at(scores + h * direction).gradient for h in (1e-6, -1e-6)]
    product = loss.times_second(scores, loss.at(scores), direction)
    np.testing.assert_allclose(product, (gradients[0] - gradients[1]) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_classes_that_are_rare_or_absent_saturate_no_step(name):
    rng = np.random.default_rng(0)
    Z = np.column_stack([np.round(rng.normal(size=(10, 4))), np.ones(10)])
    codes = np.arange(10) % 3
    weight = 10 ** rng.uniform(-12, 0, (1, 10))
    weight /= weight.sum()
    kappa = np.array([[0.001] * 4 + [0.0]])
    found = solve(Rows(Z), make_loss(name, codes, 30), weight, kappa, 0 * kappa)
    assert found.converged.all()


def test_more_coordinates_than_rows_have_curvature_for():
    """Where they all leave zero together, the first that is back ended their steps, and the fit 2 % above its end."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(120, 1200)) * (rng.random((120, 1200)) < 0.15)
    target = Z[:, :6] @ rng.normal(size=6) + 0.5 * rng.normal(size=120)
    Z -= Z.mean(0)
    weight, kappa = np.full((1, 120), 1 / 120), np.r_[np.full(1200, 1e-3 / target.std()), 0]
    target = (target - np.median(target)) / target.std()
    rows, loss = Rows(np.column_stack([Z, np.ones(120)])), HuberLoss(target[None], 0.5)
    assert solve(rows, loss, weight, kappa[None], 0 * kappa[None]).gap[0] <= 1e-6


def test_models_of_many_classes_and_columns_need_no_matrix(monkeypatch):
    monkeypatch.setattr("skdeep.exact.elastic_net._MAX_MATRIX", 3)
    for name in LOSSES:
        Z, codes, weight, kappa, rho = make_problem(l1=0.05, l2=0.05)
        loss = make_loss(name, codes, 3)
        found = solve(Rows(Z), loss, weight, kappa, rho)
        monkeypatch.undo()
        theirs = solve(Rows(Z), loss, weight, kappa, rho)
        monkeypatch.setattr("skdeep.exact.elastic_net._MAX_MATRIX", 3)
        assert found.converged.all()
        assert found.value[0] == pytest.approx(theirs.value[0], rel=3e-6)


def test_where_the_iterations_end_nothing_is_raised_or_nan():
    # All rows of zero but the intercept, and one class alone: the minimum is at infinity.
    Z = np.column_stack([np.zeros((5, 2)), np.ones(5)])
    kappa = np.array([[1.0, 1.0, 0.0]])
    for name in LOSSES:
        found = solve(Rows(Z), make_loss(name, np.zeros(5, dtype=int), 2), np.full((1, 5), 0.2), kappa, 0 * kappa)
        assert np.isfinite(found.params).all() and np.isfinite(found.gap).all()
        assert not found.params[:, :, :-1].any()


def test_steps_whose_gain_is_rounding_are_taken():
    """Near the optimum, values rise and fall by rounding, and searches would cut every step to nothing."""
    rng = np.random.default_rng(0)
    X, _, y = rng.normal(size=(30, 60)), rng.normal(size=30), rng.integers(0, 3, 30)
    for alpha in (1e-4, 1e-3):
        clf = SigmoidClassifier(penalty="l1", alpha=alpha, tol=1e-7).fit(X, y)  # without a warning
        assert clf.n_iter_ < 50
