"""Where training ends: the optimum that scikit-learn and SciPy find, and what a linear model cannot learn."""

import functools
import warnings

import numpy as np
import pytest
from helpers import DATA, configured, covering
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_wine, make_classification, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skdeep import SGD, HingeClassifier, MLPClassifierTorch, SigmoidClassifier, SoftmaxClassifier
from skdeep.engine.activations import ACTIVATIONS
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.evaluation import fit_candidates


def load(name, scaled=False):
    X, y = DATA[name](return_X_y=True)
    if name == "digits":
        X, y = X[:400], y[:400]
    return (StandardScaler().fit_transform(X) if scaled else X), y


def softmax_objective(coef, intercept, X, y, alpha, l1_ratio=0.0):
    S = X @ coef.T + intercept
    if len(intercept) == 1:
        S = np.hstack([np.zeros_like(S), S])
    data = (logsumexp(S, axis=1) - S[np.arange(len(y)), y]).mean()
    return data + alpha * ((1 - l1_ratio) / 2 * (coef**2).sum() + l1_ratio * np.abs(coef).sum())


def of(estimator, *args, **kwargs):
    return softmax_objective(estimator.coef_, estimator.intercept_, *args, **kwargs)


SOLVERS = {
    "sgd": {"solver": "sgd", "momentum": 0.0},
    "momentum": {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd", "momentum": 0.95},
    "adam": {"solver": "adam", "learning_rate_init": 0.05},
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 1.0])
def test_lbfgs_reaches_the_optimum_on_raw_columns(name, alpha):
    X, y = load(name)
    ours = SoftmaxClassifier(solver="lbfgs", alpha=alpha, tol=1e-9, max_iter=5000).fit(X, y)
    theirs = LogisticRegression(C=1 / (alpha * len(y)), solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(X, y)
    assert of(ours, X, y, alpha) <= of(theirs, X, y, alpha) + 1e-8


# (plain steps take thousands of epochs on digits; ten classes are what the other solvers meet there)
@pytest.mark.parametrize("name, solver", [(n, s) for n in DATA for s in SOLVERS if (n, s) != ("digits", "sgd")])
def test_softmax_l2(name, solver):
    X, y = load(name, scaled=True)
    alpha = 0.05
    ours = configured(
        SoftmaxClassifier,
        alpha=alpha,
        batch_size=len(y),
        max_iter=3000,
        tol=1e-13,
        n_iter_no_change=100,
        learning_rate="constant",
        **SOLVERS[solver],
    ).fit(X, y)
    theirs = LogisticRegression(C=1 / (alpha * len(y)), solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert of(ours, X, y, alpha) <= of(theirs, X, y, alpha) + 1e-7
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-3)


@functools.cache
def sparse_reference(name, l1_ratio, alpha):
    X, y = load(name, scaled=True)
    model = LogisticRegression(l1_ratio=l1_ratio, C=1 / (alpha * len(y)), solver="saga", tol=1e-7, max_iter=20000)
    return model.fit(X, y)


@pytest.mark.parametrize(
    ("name", "solver", "l1_ratio"), covering(["iris", "wine", "breast_cancer"], SOLVERS.keys(), [1.0, 0.4])
)
def test_softmax_l1_and_elastic_net(name, solver, l1_ratio):
    X, y = load(name, scaled=True)
    alpha = 0.1
    ours = configured(
        SoftmaxClassifier,
        "elasticnet",
        l1_ratio=l1_ratio,
        alpha=alpha,
        batch_size=len(y),
        max_iter=5000,
        tol=1e-13,
        n_iter_no_change=100,
        learning_rate="constant",
        **SOLVERS[solver],
    ).fit(X, y)
    theirs = sparse_reference(name, l1_ratio, alpha)
    assert of(ours, X, y, alpha, l1_ratio) <= of(theirs, X, y, alpha, l1_ratio) + 1e-5
    assert ((ours.coef_ == 0) == (np.abs(theirs.coef_) < 1e-5)).mean() > 0.9


@pytest.mark.parametrize("cls", [SigmoidClassifier, SoftmaxClassifier])
def test_optima_of_sparse_rows_with_an_l1_norm_are_the_default(cls):
    """Mini-batches, which took several times as long, ended up to 65 % above, without a word."""
    rng = np.random.default_rng(0)
    X = sparse.random_array((6000, 1000), density=0.01, format="csr", rng=rng)
    y = (X @ rng.normal(size=(1000, 3)) + rng.normal(size=(6000, 3))).argmax(1)
    model = cls(penalty="l1", alpha=1e-3).fit(X, y)
    assert model.solver_ == "exact" and model.certificate_ <= 1e-6


def test_l1_has_exact_zeros_on_raw_columns():
    X, y = load("breast_cancer")
    coef = SoftmaxClassifier("l1", alpha=0.1, random_state=0).fit(X, y).coef_
    assert 0 < (coef == 0).sum() < coef.size


@pytest.mark.parametrize("solver", [{"solver": "lbfgs"}, SOLVERS["nesterov"]], ids=["lbfgs", "nesterov"])
@pytest.mark.parametrize("name", ["iris", "wine", "digits"])
def test_squared_hinge_ovr(name, solver):
    X, y = load(name, scaled=True)
    alpha = 0.05
    ours = configured(
        HingeClassifier,
        "squared_hinge",
        multi_class="ovr",
        fit_intercept=False,
        calibration=None,
        alpha=alpha,
        batch_size=len(y),
        max_iter=3000,
        tol=1e-10,
        n_iter_no_change=100,
        learning_rate="constant",
        **solver,
    ).fit(X, y)
    theirs = LinearSVC(C=1 / (alpha * len(y)), fit_intercept=False, tol=1e-9, max_iter=100_000).fit(X, y)
    # LinearSVC's objective is ours divided by alpha: (1 / 2) |w|^2 + C sum loss
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)


def hinge_objective(multi_class, squared, X, y, alpha):
    n, d = X.shape
    C = y.max() + 1
    rows = np.arange(n)

    def value(theta):
        W, b = theta[: C * d].reshape(C, d), theta[C * d :]
        S = X @ W.T + b
        margins = S - S[rows, y][:, None] + 1
        margins[rows, y] = 0
        v = np.maximum(margins, 0)
        v = v**2 if squared else v
        loss = v.sum(1) if multi_class == "weston_watkins" else v.max(1)
        return loss.mean() + alpha / 2 * (W**2).sum()

    return value


@pytest.mark.parametrize("multi_class", ["weston_watkins", "crammer_singer"])
@pytest.mark.parametrize("squared", [True, False], ids=["squared", "hinge"])
def test_multiclass_hinge_against_scipy(multi_class, squared):
    X, y = load("iris", scaled=True)
    X, y, alpha = X[::3, :2], y[::3], 0.1
    value = hinge_objective(multi_class, squared, X, y, alpha)
    # a general-purpose minimiser that needs no gradient, restarted where it stops
    theta = np.zeros(9)
    for _ in range(6):
        theta = minimize(value, theta, method="Powell", options={"maxiter": 20_000, "xtol": 1e-9, "ftol": 1e-13}).x
    ours = configured(
        HingeClassifier,
        "squared_hinge" if squared else "hinge",
        multi_class=multi_class,
        calibration=None,
        alpha=alpha,
        max_iter=4000,
        tol=1e-9,
        n_iter_no_change=50,
    ).fit(X, y)
    reached = value(np.concatenate([ours.coef_.ravel(), ours.intercept_]))
    assert reached <= value(theta) + (1e-6 if squared else 2e-3)


def ring(n, rng):
    X = rng.uniform(-3, 3, (n, 2))
    radius = np.linalg.norm(X, axis=1)
    return X, ((radius >= 1) & (radius <= 2)).astype(int)


XOR = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float), np.array([0, 1, 1, 0])


def test_xor_is_not_linear_but_one_hidden_layer_learns_it():
    X, y = XOR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert SoftmaxClassifier(random_state=0).fit(X, y).score(X, y) <= 0.75
        assert HingeClassifier(calibration=None, random_state=0).fit(X, y).score(X, y) <= 0.75
        flat = MLPClassifierTorch((8,), "identity", learning_rate_init=0.05, max_iter=500, random_state=0)
        assert flat.fit(X, y).score(X, y) <= 0.75  # two linear layers are one
    deep = MLPClassifierTorch((8,), "relu", learning_rate_init=0.05, max_iter=500, random_state=0)
    assert deep.fit(X, y).score(X, y) == 1.0


def test_ring_is_not_linear_but_the_network_learns_it():
    rng = np.random.default_rng(0)
    X, y = ring(1000, rng)
    X_test, y_test = ring(1000, rng)
    most_frequent = max(y_test.mean(), 1 - y_test.mean())
    assert SoftmaxClassifier(random_state=0).fit(X, y).score(X_test, y_test) < most_frequent + 0.05
    network = MLPClassifierTorch((32, 32), learning_rate_init=0.01, max_iter=100, random_state=0, tol=1e-3)
    assert network.fit(X, y).score(X_test, y_test) > 0.95


@pytest.mark.slow
def test_every_activation_learns_moons():
    X, y = make_moons(300, noise=0.1, random_state=0)
    for name in ACTIVATIONS:
        rate = {"learning_rate": "constant", "learning_rate_init": 0.05}
        network = MLPClassifierTorch((20,), name, alpha=1e-4, **rate, random_state=0)
        accuracy = network.fit(X, y).score(X, y)
        assert accuracy < 0.95 if name == "identity" else accuracy > 0.95, name


@pytest.mark.parametrize(
    ("solver", "atol"),
    # the two implementations of Adam put epsilon on different sides of the bias correction
    [({"solver": "sgd"}, 1e-11), ({"solver": "sgd", "nesterovs_momentum": False}, 1e-11), ({"solver": "adam"}, 1e-4)],
    ids=["nesterov", "momentum", "adam"],
)
def test_the_same_fit_as_mlpclassifier_from_the_same_start(solver, atol):
    """A swap is one word: from the same weights, full batches go the same way."""
    X, y = load("iris", scaled=True)
    common = {"hidden_layer_sizes": (7,), "alpha": 0.1, "warm_start": True, "max_iter": 1, "batch_size": len(y)}
    common |= {"learning_rate": "constant", "learning_rate_init": 0.001}
    as_given = {"standardize": False, "column_learning_rate": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MLPClassifier(**common, **solver, random_state=0).fit(X, y)
        ours = MLPClassifierTorch(**common, **solver, **as_given, random_state=0).fit(X, y)
        ours.coefs_ = [w.copy() for w in theirs.coefs_]
        ours.intercepts_ = [b.copy() for b in theirs.intercepts_]
        del ours._optimizer
        theirs.set_params(max_iter=20).fit(X, y)
        ours.set_params(max_iter=20).fit(X, y)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)
    np.testing.assert_allclose(ours.loss_, theirs.loss_, atol=atol)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, SigmoidClassifier])
@pytest.mark.parametrize("n_rare, n", [(1, 20), (1, 40), (2, 100), (3, 500)])
def test_momentum_past_a_rare_class_is_taken_back(cls, n_rare, n):
    """One coefficient is free, the intercept: it is where the class frequencies are, however far it overshot before."""
    y = (np.arange(n) < n_rare).astype(int)
    X = np.random.default_rng(0).integers(0, 3, (n, 4)).astype(float)
    model = cls(penalty="l1", alpha=1.0, max_iter=1000, random_state=0).fit(X, y)
    assert not model.coef_.any()
    frequency = y.mean()
    entropy = -frequency * np.log(frequency) - (1 - frequency) * np.log(1 - frequency)
    assert log_loss(y, model.predict_proba(X)) < 1.05 * entropy


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("cls", [SoftmaxClassifier, SigmoidClassifier])
def test_a_rare_class_has_its_share_of_the_probability(cls, solver):
    """The intercepts that tell of it are a thousand of Adam's steps away from zero."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20_000, 3)), np.repeat([0, 1, 2], [19_980, 10, 10])
    share = cls(solver=solver, random_state=0).fit(X, y).predict_proba(X).mean(0)[1:] / 5e-4
    np.testing.assert_allclose(share, 1, atol=0.25)


def test_a_search_begins_at_the_shares_of_each_fold_and_weight():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(600, 3)), np.repeat([0, 1, 2], [560, 20, 20])
    weight = rng.integers(1, 4, 600)
    model = SoftmaxClassifier(solver="adam", max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(model, {"alpha": [1e-3, 1e-1]}, cv=3, scoring="neg_log_loss", refit=False)
        search.fit(X, y, sample_weight=weight)
        for m, alpha in enumerate((1e-3, 1e-1)):
            for f, (train, test) in enumerate(StratifiedKFold(3).split(X, y)):
                alone = clone(model).set_params(alpha=alpha).fit(X[train], y[train], weight[train])
                score = -log_loss(y[test], alone.predict_proba(X[test]), sample_weight=weight[test])
                assert search.cv_results_[f"split{f}_test_score"][m] == pytest.approx(score, rel=1e-10)


@pytest.mark.parametrize("split", range(3))
def test_momentum_past_a_low_loss_is_taken_back(split):
    """Early epochs pass by losses that training sees again only a hundred epochs later."""
    X, _, y, _ = train_test_split(*load_wine(return_X_y=True), random_state=split)
    model = HingeClassifier("hinge", calibration=None, solver="sgd", max_iter=1000, random_state=0).fit(X, y)
    assert model.loss_ < 0.85 * min(model.loss_curve_[:20])


@pytest.mark.parametrize("batch_size", ["auto", 50])
@pytest.mark.parametrize("cls, n", [(SoftmaxClassifier, 300), (SigmoidClassifier, 1000), (HingeClassifier, 300)])
def test_momentum_past_a_rare_row_is_taken_back(cls, n, batch_size):
    """So far past it that the way back is along a plateau, where an epoch gains less than the tolerance."""
    y = (np.arange(n) > 0).astype(int)
    options = {"calibration": None, "solver": "sgd", "learning_rate": "adaptive", "batch_size": batch_size}
    model = configured(cls, random_state=0, **options).fit(np.ones((n, 1)), y)
    best = 4 * (n - 1) / n**2 if cls is HingeClassifier else -(np.log(1 / n) / n + (n - 1) / n * np.log1p(-1 / n))
    assert model.loss_ < 1.05 * best + 3e-4


def test_a_cosine_does_not_end_on_the_way_back():
    """Momentum leads past a lower loss, which is no standstill."""
    X, y = np.array([[0.1], [-0.1], [0.6], [0.1], [-0.5], [0.4]]), np.array([0, 1, 1, 1, 1, 1])
    model = HingeClassifier(calibration=None, solver=SGD(learning_rate="cosine"), random_state=0).fit(X, y)
    assert model.loss_ < 1.05 * model.best_loss_ + 1e-4


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_penalty_is_made_once(monkeypatch, early_stopping):
    """Beside the one whose kind the recipe looks at."""
    made, penalty = [], SoftmaxClassifier._penalty
    monkeypatch.setattr(SoftmaxClassifier, "_penalty", lambda *given: made.append(given) or penalty(*given))
    options = {"early_stopping": True, "max_iter": 2} if early_stopping else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        SoftmaxClassifier(calibration=None, random_state=0, **options).fit(*load("wine"))
    assert len(made) == 2


@pytest.mark.parametrize("n_classes", [4, 6])
def test_of_all_shifts_with_the_least_l1_norm_a_fit_has_one(n_classes):
    """Of an even number of classes there are many: a stack ended at another one than a model alone (.58 apart)."""
    X, y = make_classification(
        200, 10, n_informative=8, n_redundant=0, n_classes=n_classes, n_clusters_per_class=1, random_state=0
    )
    models = [SoftmaxClassifier("l1", alpha=alpha, tol=1e-8, random_state=0) for alpha in (0.05, 0.02, 0.005)]
    fit_candidates(models, X, y, {}, with_probabilities=False)
    for model in models:
        alone = clone(model).fit(X, y)
        np.testing.assert_allclose(model.coef_, alone.coef_, atol=1e-7)
        np.testing.assert_allclose(model.decision_function(X), alone.decision_function(X), atol=1e-6)
        ordered = np.sort(alone.coef_, axis=0)
        low, high = ordered[n_classes // 2 - 1], ordered[n_classes // 2]
        assert (low * high == 0).all() and (low <= 0).all() and (high >= 0).all()
