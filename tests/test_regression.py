"""Regressors: losses of values, targets in units of their own, and what is said of them with scikit-learn."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import set_constant
from scipy import sparse
from sklearn import model_selection
from sklearn._loss import loss as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.metrics import mean_pinball_loss, mean_tweedie_deviance, r2_score
from sklearn.svm import LinearSVR
from sklearn.utils.estimator_checks import check_array_api_input
from torch import nn

from skdeep import (
    SGD,
    EpsilonInsensitive,
    Huber,
    LinearRegressor,
    MLPEnsembleRegressor,
    MLPRegressorTorch,
    Quantile,
    SoftmaxClassifier,
    TorchRegressor,
    Tweedie,
    compare,
)
from skdeep.data.values import TargetScale
from skdeep.engine.losses import Loss
from skdeep.engine.values import (
    AbsoluteValues,
    HuberValues,
    InsensitiveValues,
    Positive,
    QuantileValues,
    SquaredValues,
    TweedieValues,
)
from skdeep.fitting.exact_losses import is_known, row_loss
from skdeep.fitting.losses import suited_delta
from skdeep.model_selection import GridSearchCV, regularization_path

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # fitted attributes are asked for the names that dtypes have in NumPy
    pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype"),
]

X, Y = load_diabetes(return_X_y=True)
X, Y = 20 * X[:200], Y[:200]  # columns of the order of one


class SmallNet(nn.Sequential):
    """As a user may write it."""

    def __init__(self, n_features, n_outputs, width=8):
        super().__init__(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))


SMALL = {"hidden_layer_sizes": (8,), "random_state": 0}
MODELS = {
    "least squares": LinearRegressor(),
    "lasso": LinearRegressor(penalty="l1", alpha=1.0, tol=1e-6),
    "sgd": LinearRegressor(solver="sgd", max_iter=20, random_state=0),
    "huber": LinearRegressor("huber", tol=1e-8),
    "poisson": LinearRegressor("poisson", tol=1e-8),
    "median": LinearRegressor("absolute_error", tol=1e-6),
    "quantiles": LinearRegressor(Quantile([0.1, 0.9])),
    "softplus": LinearRegressor(output="softplus"),
    "network": MLPRegressorTorch(**SMALL),
    "poisson network": MLPRegressorTorch("poisson", **SMALL),
    "module": TorchRegressor(SmallNet, learning_rate_init=0.03, max_iter=10, random_state=0),
    "ensemble": MLPEnsembleRegressor(2, max_iter=5, **SMALL),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
each_single = pytest.mark.parametrize("model", list(MODELS.values())[:-1], ids=list(MODELS)[:-1])


def fitted(model, *args, **params):
    return clone(model).fit(*(args or (X, Y)), **params)


# ---- losses ----------------------------------------------------------------------------------------------------------

LOSSES = {
    "squared": SquaredValues(),
    "absolute": AbsoluteValues(),
    "huber": HuberValues(0.7),
    "insensitive": InsensitiveValues(0.3),
    "squared insensitive": InsensitiveValues(0.3, squared=True),
    "quantiles": QuantileValues((0.1, 0.5, 0.8)),
    "poisson": TweedieValues(1.0),
    "gamma": TweedieValues(2.0),
    "tweedie": TweedieValues(1.4),
    "tweedie 3": TweedieValues(3.0),
    "relu": Positive(SquaredValues(), "relu", (0.5, 0.1, -0.2)),
    "softplus": Positive(HuberValues(0.7), "softplus"),
    "exp": Positive(SquaredValues(), "exp"),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def example(seed=0, shape=(2, 50, 3)):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(0, 1, shape)), torch.from_numpy(generator.gamma(2, 1, shape[1:]))


@each_loss
def test_gradients_are_those_of_autograd(loss):
    scores, target = example()
    value, gradient = loss.value_and_gradient(scores, target)
    torch.testing.assert_close(loss.value(scores, target), value)
    expected_value, expected = Loss.value_and_gradient(loss, scores, target)
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.twice_smooth])
def test_curvature_is_how_gradients_change(name):
    loss, (scores, target) = LOSSES[name], example()
    step = 1e-6
    change = (loss.of_each(scores + step, target)[1] - loss.of_each(scores - step, target)[1]) / (2 * step)
    found = loss.second(scores, target)
    if isinstance(loss, Positive):  # Gauss and Newton's, without what residuals add
        assert (found >= 0).all()
    else:
        torch.testing.assert_close(found, change, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "other"),
    [
        (TweedieValues(1.0), theirs.HalfPoissonLoss()),
        (TweedieValues(2.0), theirs.HalfGammaLoss()),
        (TweedieValues(1.4), theirs.HalfTweedieLoss(power=1.4)),
        (TweedieValues(3.0), theirs.HalfTweedieLoss(power=3.0)),
        (HuberValues(0.7), None),
        (QuantileValues((0.2,)), theirs.PinballLoss(quantile=0.2)),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_are_scikit_learns(loss, other):
    scores, target = example(shape=(1, 50, 1))
    found = loss.value(scores, target)[0].numpy()
    if other is None:
        r = np.abs((scores[0] - target).numpy().ravel())
        np.testing.assert_allclose(found, np.where(r <= 0.7, r**2 / 2, 0.7 * (r - 0.35)))
        return
    raw, y = scores.numpy().ravel().copy(), target.numpy().ravel().copy()
    # theirs leave out what the scores do not change
    at_zero = loss.value(torch.zeros_like(scores), target)[0].numpy()
    expected = other.loss(y, raw) - other.loss(y, 0 * raw)
    np.testing.assert_allclose(found - at_zero, expected, rtol=1e-10, atol=1e-10)
    if loss.log_link:  # of which ours leave out nothing: half the deviance
        np.testing.assert_allclose(loss.value(target.log(), target), 0, atol=1e-12)


@each_loss
@pytest.mark.parametrize("unit", [3.0, 1e-3])
def test_losses_in_another_unit(loss, unit):
    """What `degree` says: the unit comes out of the loss as a power of it."""
    scores, target = example()
    if isinstance(loss, Positive):
        loss = loss.loss
    other = scores + np.log(unit) if loss.log_link else scores * unit
    value, gradient = loss.value_and_gradient(other, target * unit)
    own_value, own_gradient = loss.in_unit(unit).value_and_gradient(scores, target)
    torch.testing.assert_close(value, own_value * unit**loss.degree)
    torch.testing.assert_close(gradient, own_gradient * unit ** (loss.degree - (not loss.log_link)))


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if is_known(loss)])
def test_exact_solvers_have_the_same_losses(name):
    loss, (scores, target) = LOSSES[name], example()
    rows = row_loss(loss, target.numpy(), 3).at(scores.numpy().transpose(0, 2, 1).copy())
    np.testing.assert_allclose(rows.value, loss.value(scores, target), rtol=1e-10, atol=1e-12)
    gradient = loss.value_and_gradient(scores, target)[1]
    np.testing.assert_allclose(rows.gradient.transpose(0, 2, 1), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("output", ["relu", "softplus", "exp"])
def test_outputs_have_a_way_back(output):
    loss, prediction = Positive(SquaredValues(), output), torch.tensor([1e-8, 0.3, 1.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(loss.prediction(loss.scores_of(prediction)), prediction)


# ---- optima ----------------------------------------------------------------------------------------------------------


def objective(loss, coef, intercept, alpha, l1_ratio, data=(X, Y)):
    rows, values = data
    scores = torch.from_numpy(rows @ np.ravel(coef) + intercept)[:, None]
    data = LinearRegressor(loss)._loss(1).value(scores, torch.from_numpy(values)[:, None]).mean().item()
    return data + alpha * (l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * np.square(coef).sum())


OPTIMA = {
    "ols": (LinearRegressor(penalty=None), LinearRegression(), 0, 0),
    "ridge": (LinearRegressor(alpha=0.3), Ridge(0.3 * len(Y)), 0.3, 0),
    "lasso": (LinearRegressor(penalty="l1", alpha=2, tol=1e-7), Lasso(2, tol=1e-12), 2, 1),
    "elastic net": (
        LinearRegressor(penalty="elasticnet", alpha=2, l1_ratio=0.7, tol=1e-7),
        ElasticNet(alpha=2, l1_ratio=0.7, tol=1e-12),
        2,
        0.7,
    ),
    "median": (
        LinearRegressor("quantile", penalty="l1", alpha=0.1, tol=1e-6),
        QuantileRegressor(alpha=0.1),
        0.1,
        1,
    ),
    "quantile": (
        LinearRegressor(Quantile(0.2), penalty=None, tol=1e-6),
        QuantileRegressor(quantile=0.2, alpha=0),
        0,
        0,
    ),
    "poisson": (LinearRegressor("poisson", alpha=0.1, tol=1e-9), PoissonRegressor(alpha=0.1, tol=1e-10), 0.1, 0),
    "gamma": (LinearRegressor("gamma", alpha=0.1, tol=1e-9), GammaRegressor(alpha=0.1, tol=1e-10), 0.1, 0),
    "tweedie": (
        LinearRegressor(Tweedie(1.5), alpha=0.1, tol=1e-9),
        TweedieRegressor(power=1.5, alpha=0.1, tol=1e-10),
        0.1,
        0,
    ),
    "support vectors": (
        LinearRegressor(EpsilonInsensitive(10), alpha=1 / len(Y), fit_intercept=False, tol=1e-6),
        LinearSVR(epsilon=10, C=1, fit_intercept=False, tol=1e-9, max_iter=10**6),
        1 / len(Y),
        0,
    ),
    "squared support vectors": (
        LinearRegressor(EpsilonInsensitive(10, squared=True), alpha=1 / len(Y), fit_intercept=False, tol=1e-9),
        LinearSVR(
            epsilon=10,
            C=1,
            loss="squared_epsilon_insensitive",
            fit_intercept=False,
            tol=1e-9,
            max_iter=10**6,
        ),
        1 / len(Y),
        0,
    ),
}


@pytest.mark.parametrize(("ours", "other", "alpha", "l1_ratio"), OPTIMA.values(), ids=OPTIMA.keys())
def test_optima_are_scikit_learns(ours, other, alpha, l1_ratio):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, other = ours.fit(X, Y), other.fit(X, Y)
    found, expected = (objective(ours.loss, m.coef_, m.intercept_, alpha, l1_ratio) for m in (ours, other))
    assert found <= expected * (1 + 1e-8)
    if not isinstance(other, LinearSVR):  # which ends above
        assert found >= expected * (1 - 1e-6)
    assert ours.loss_ == pytest.approx(found, rel=1e-10)
    if l1_ratio == 1:
        np.testing.assert_array_equal(ours.coef_[0] == 0, np.abs(other.coef_) < 1e-9)


def test_optimum_of_hubers():
    """HuberRegressor finds a scale besides: at that scale, the rest of its optimum is ours."""
    other = HuberRegressor(epsilon=1.35, alpha=1e-3, tol=1e-10, max_iter=10_000).fit(X, Y)
    delta, alpha = 1.35 * other.scale_, 1e-3 * other.scale_ / len(Y)
    ours = LinearRegressor(Huber(delta), alpha=alpha, tol=1e-9).fit(X, Y)
    np.testing.assert_allclose(ours.coef_[0], other.coef_, rtol=1e-3, atol=1e-2)
    found, expected = (objective(Huber(delta), m.coef_, m.intercept_, alpha, 0) for m in (ours, other))
    assert expected * (1 - 1e-7) <= found <= expected


def test_the_default_of_huber_follows_the_targets():
    weight = np.random.default_rng(0).integers(0, 3, len(Y))
    model = LinearRegressor("huber", tol=1e-8).fit(X, Y, sample_weight=weight)
    repeated = np.repeat(Y, weight)
    below = np.sort(repeated)[(len(repeated) - 1) // 2]
    assert model.delta_ == np.sort(np.abs(repeated - below))[(len(repeated) - 1) // 2]
    far = LinearRegressor("huber", tol=1e-8).fit(X, 1e5 * Y - 3e7, sample_weight=weight)
    np.testing.assert_allclose((far.predict(X) + 3e7) / 1e5, model.predict(X), rtol=1e-8)
    named = LinearRegressor(Huber(model.delta_), tol=1e-8).fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(named.predict(X), model.predict(X), rtol=1e-10)
    assert not hasattr(named, "delta_")
    steep = LinearRegressor(Huber(1e-3)).fit(X, Y)  # next to the absolute error
    assert steep.score(X, Y) > 0.4


@pytest.mark.parametrize("output", ["relu", "softplus", "exp"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "quantile", "epsilon_insensitive", "huber"])
def test_outputs_that_are_never_negative(loss, output):
    for model in (
        LinearRegressor(loss, output=output, random_state=0),
        MLPRegressorTorch(loss, output=output, **SMALL),
    ):
        found = model.fit(X, Y).predict(X)
        assert (found >= 0).all() and model.score(X, Y) > 0.35


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "poisson"])
@pytest.mark.parametrize("penalty", ["l1", "l2", "elasticnet"])
def test_mini_batches_come_near(loss, penalty):
    generator = np.random.default_rng(0)
    rows = generator.normal(0, [1.0, 10.0, 0.1, 1.0], (400, 4))
    values = np.exp(rows @ [0.3, 0.02, 1.0, 0.0] + 0.1 * generator.normal(size=400))
    model = LinearRegressor(loss, penalty=penalty, alpha=0.05, random_state=0, tol=1e-6)
    optimum = fitted(model, rows, values)
    steps = SGD(batch_size=50, learning_rate="cosine", n_iter_no_change=np.inf)
    near = fitted(model.set_params(solver=steps, max_iter=100, tol=0), rows, values)
    l1_ratio = {"l1": 1, "l2": 0}.get(penalty, model.l1_ratio)
    best, reached = (objective(loss, m.coef_, m.intercept_, 0.05, l1_ratio, (rows, values)) for m in (optimum, near))
    assert best * (1 - 1e-6) <= reached <= 1.003 * best


@pytest.mark.parametrize("loss", ["poisson", "gamma", "tweedie"])
@pytest.mark.parametrize("size", [0.3, 1.0, 2.0])
def test_steps_on_the_log_link_do_not_explode(loss, size):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(3000, 10))
    mean = np.exp(size * rows @ generator.normal(size=10) / np.sqrt(10))  # of which some are a thousand times others
    values = generator.poisson(mean) if loss == "poisson" else generator.gamma(2, mean / 2) + 1e-9
    models = LinearRegressor(loss, solver="lbfgs"), LinearRegressor(loss, solver="sgd", random_state=0)
    predicted = [fitted(model, rows, values).predict(rows) for model in models]
    power = {"poisson": 1, "gamma": 2, "tweedie": 1.5}[loss]
    of_optimum, of_steps = (mean_tweedie_deviance(values, of_mean, power=power) for of_mean in predicted)
    assert of_steps <= 1.05 * of_optimum


def test_rows_without_weight_shorten_no_step():
    weight, order = np.r_[np.zeros(9), np.ones(len(Y) - 9)], np.arange(len(Y))
    model = LinearRegressor("poisson", solver=SGD(batch_size=len(Y)), max_iter=5, random_state=0)
    found = fitted(model, X, np.where(order < 9, 1e9, Y), sample_weight=weight)
    np.testing.assert_allclose(found.predict(X), fitted(model, X[9:], Y[9:]).predict(X), rtol=1e-9)


def test_many_rows_have_an_optimum_where_it_is_cheap():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(60_000, 40)).astype(np.float32)
    lasso = fitted(LinearRegressor(penalty="l1", alpha=0.1), rows, rows[:, 0] + generator.normal(size=60_000))
    assert lasso.solver_ == "exact" and lasso.certificate_ <= 1e-6
    other = LinearRegressor("absolute_error", max_iter=1, random_state=0)
    assert fitted(other, rows[:, :2], rows[:, 0]).solver_ == "exact"
    assert fitted(other, np.tile(rows, 3), rows[:, 0]).solver_ == "sgd"


@pytest.mark.parametrize(
    ("loss", "penalty", "solver"),
    [("squared_error", "l1", "exact"), ("gamma", "l1", "exact"), ("huber", "l2", "lbfgs"), ("poisson", "l2", "lbfgs")],
)
def test_sparse_rows_have_an_optimum_where_their_products_are_cheap(loss, penalty, solver):
    """Counted as dense ones, mini-batches were chosen, which took ten times as long and ended far above."""
    generator = np.random.default_rng(0)
    rows = sparse.random(20_000, 900, 0.005, format="csr", random_state=0)
    values = np.exp(0.3 * (rows @ generator.normal(size=900)) + 0.1 * generator.normal(size=20_000))
    by = {"penalty": penalty, "alpha": 1e-4, "random_state": 0}
    model = fitted(LinearRegressor(loss, **by), rows, values)
    assert model.solver_ == solver
    assert model.loss_ < fitted(LinearRegressor(loss, solver="sgd", max_iter=3, **by), rows, values).loss_


@pytest.mark.parametrize("is_sparse", [False, True])
def test_squares_of_many_columns_are_one_system(is_sparse):
    """Mini-batches took longer, and ended some thousandths above; of sparse rows a tenth."""
    generator = np.random.default_rng(0)
    n, d = (3000, 500) if is_sparse else (20_000, 200)
    rows = generator.normal(size=(n, d))
    rows = sparse.csr_array(rows * (generator.random(rows.shape) < 0.03)) if is_sparse else rows
    values = rows @ generator.normal(size=d) + generator.normal(size=n)
    model = fitted(LinearRegressor(alpha=1e-3, standardize=False), rows, values)
    assert model.solver_ == "lbfgs"
    ridge = Ridge(n * 1e-3, solver="sparse_cg" if is_sparse else "cholesky", tol=1e-12).fit(rows, values)
    np.testing.assert_allclose(model.coef_[0], ridge.coef_, atol=1e-6)


@pytest.mark.parametrize("loss", ["huber", "squared_epsilon_insensitive"])
def test_squares_in_pieces_have_an_optimum_where_it_is_cheap(loss):
    """Newton's steps are few, and sooner done than mini-batches."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(5000, 300))
    values = rows[:, 0] + generator.standard_t(3, size=5000)
    model = fitted(LinearRegressor(loss, alpha=0.1, random_state=0), rows, values)
    assert model.solver_ == "lbfgs" and model.n_iter_ <= 5
    steps = fitted(LinearRegressor(loss, alpha=0.1, solver="sgd", max_iter=5, random_state=0), rows, values)
    assert model.loss_ < steps.loss_


@pytest.mark.parametrize("small", [0, 2**16], ids=["sparse", "dense"])
@pytest.mark.parametrize("penalty", ["l2", "l1"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", Quantile([0.2, 0.7]), "poisson"], ids=str)
def test_rows_that_are_sparse_have_the_same_optimum(loss, penalty, small, monkeypatch):
    """Whether they are made dense to be solved for, or not."""
    set_constant(monkeypatch, "SMALL_VALUES", small)
    set_constant(monkeypatch, "FILLED", np.inf)
    generator = np.random.default_rng(0)
    rows = np.where(generator.random((200, 12)) < 0.2, generator.normal(size=(200, 12)) + 1, 0.0)
    values = np.abs(rows[:, 0] + generator.standard_t(3, size=200))
    model = LinearRegressor(loss, penalty=penalty, alpha=0.02, standardize=False, tol=1e-7)
    found = [fitted(clone(model), given, values) for given in (rows, sparse.csr_array(rows))]
    np.testing.assert_allclose(found[0].coef_, found[1].coef_, atol=2e-4)
    assert found[0].loss_ == pytest.approx(found[1].loss_, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "output", "way"),
    [
        ("poisson", "auto", "fit"),
        ("poisson", "auto", "partial_fit"),
        ("tweedie", "auto", "partial_fit"),
        ("absolute_error", "exp", "fit"),
    ],
)
def test_steps_suit_exponentials(loss, output, way):
    """Where most of the counts are in few rows, their scores are as many times steeper than at the start."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(300, 3))
    counts = generator.poisson(np.exp(rows @ [1.4, -1.4, 0.0])) + 0.0
    model = LinearRegressor(loss, output=output, penalty=None, solver="sgd", random_state=0)
    for _ in range(1 if way == "fit" else 30):
        getattr(model, way)(rows, counts)
    found, nothing = (float(np.abs(p - counts).mean()) for p in (model.predict(rows), np.median(counts)))
    assert found < 0.6 * nothing


@pytest.mark.parametrize("penalty", ["l2", None])
def test_huber_of_a_small_delta_is_the_absolute_error(penalty):
    """Its gradients are as many times smaller, and so is what is none."""
    delta = 1e-7
    model = LinearRegressor(Huber(delta * Y.std()), penalty=penalty, alpha=1e-3 * delta).fit(X, Y)
    median = LinearRegressor("absolute_error", penalty=penalty, alpha=1e-3 / Y.std()).fit(X, Y)
    found, best = (float(np.abs(m.predict(X) - Y).mean()) for m in (model, median))
    assert found < 1.02 * best


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson"])
def test_several_targets_are_fitted_each_by_itself(loss, penalty):
    targets = np.stack([Y, 1e4 * Y[::-1] + 7, 1e-4 * Y**1.5], axis=1)
    for alpha in ("auto", 0.05):
        model = LinearRegressor(loss, penalty=penalty, alpha=alpha, tol=1e-7)
        together = fitted(model, X, targets).predict(X)
        apart = np.stack([fitted(model, X, target).predict(X) for target in targets.T], axis=1)
        np.testing.assert_allclose(together / targets.std(0), apart / targets.std(0), atol=1e-5)


def test_several_targets_that_are_held_differently_are_watched():
    """Their steps are torch's, whose first curvature was of all scores alike: a RuntimeError."""
    targets = np.stack([Y, 1e4 * Y[::-1] + 7], axis=1)
    options = {"early_stopping": True, "validation_fraction": 0.3, "random_state": 0}
    model = fitted(LinearRegressor("poisson", solver="lbfgs", **options), X, targets)
    assert model.score(X, targets) > 0.2


@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson"])
def test_an_optimum_without_penalty_or_intercept_is_proven(loss):
    """The certificate had slopes pull no intercept, where there was none to pull."""
    found = LinearRegressor(loss, penalty="l1", alpha=0, fit_intercept=False).fit(X + 1, Y)
    assert found.certificate_ < 1e-6
    expected = LinearRegressor(loss, penalty=None, fit_intercept=False, tol=1e-9).fit(X + 1, Y)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-3)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_targets_that_say_delta_are_fitted_each_in_its_unit(penalty):
    """In a common unit, nothing was learnt of small ones with an L1 norm, and outliers among them counted in full."""
    model = LinearRegressor("huber", penalty=penalty, tol=1e-7)
    targets = np.c_[Y, np.where(np.arange(len(Y)) % 20 == 0, 1e6, Y)]
    expected = fitted(model, X, targets).predict(X)
    assert np.abs(expected[:, 1] - expected[:, 0]).max() < Y.std()
    found = fitted(model, X, targets * [1e4, 1e-4])
    np.testing.assert_allclose(found.predict(X) / [1e4, 1e-4], expected, rtol=1e-5)
    assert found.delta_.shape == (2,)


# ---- units of targets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if name != "ensemble"])
def test_targets_in_another_unit(name):
    """Everything is for targets in units of their own; of an ensemble, folds follow from the digits of targets."""
    model = MODELS[name]
    params = {} if getattr(model, "alpha", None) in ("auto", 1e-4) else {"alpha": "auto"}
    model = clone(model).set_params(**params)
    expected = fitted(model).predict(X)
    tol = 1e-3 if name == "module" else 1e-6 * np.abs(expected).max()  # which is float32
    np.testing.assert_allclose(fitted(model, X, 1e4 * Y).predict(X) / 1e4, expected, atol=tol)
    if "poisson" not in name and name != "softplus":
        far = fitted(model, X, Y + 1e9).predict(X)
        np.testing.assert_allclose(far - 1e9, expected, atol=max(tol, 1e-4))


@each_model
def test_fits_in_single_precision(model):
    found = fitted(model, X.astype("f4"), Y.astype("f4")).predict(X.astype("f4"))
    assert found.dtype == np.float32
    expected = fitted(model, X.astype("f4").astype("f8"), Y).predict(X)
    if not isinstance(model, MLPEnsembleRegressor):
        np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize(("free", "per_column"), [(True, True), (True, False), (False, True)])
@each_loss
def test_scales_of_targets(loss, free, per_column):
    values = np.random.default_rng(0).gamma(2, [1.0, 1e3, 1e-3], (40, 3))
    weight = np.random.default_rng(1).integers(0, 3, 40).astype(float)
    scale = TargetScale.of(np.where(weight[:, None] == 0, 1e20, values), weight, loss, free, per_column, True)
    repeated = TargetScale.of(np.repeat(values, weight.astype(int), axis=0), None, loss, free, per_column, True)
    for name in ("level", "unit", "factor", "offset", "predicted", "shift"):
        np.testing.assert_allclose(getattr(scale, name), getattr(repeated, name), rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(scale.back(scale.forth(values)), values, rtol=1e-12)
    if not per_column and not loss.log_link:
        assert (scale.unit == scale.unit[0]).all()


@pytest.mark.parametrize("loss", ["huber", "absolute_error", "epsilon_insensitive", Quantile(0.4)], ids=str)
def test_outliers_do_not_say_the_unit(loss):
    """In the standard deviation of targets of which some are huge, all others are the same."""
    model = LinearRegressor(loss, penalty=None, tol=1e-6)
    clean = fitted(model).predict(X)
    for far in (1e6, 1e10):
        targets = np.where(np.arange(len(Y)) % 20 == 0, far, Y)
        found = fitted(model, X, targets).predict(X)
        assert np.abs(found - clean).max() < 0.5 * Y.std()
        network = MLPRegressorTorch(loss, **SMALL).fit(X, targets)
        assert np.corrcoef(network.predict(X), Y)[0, 1] > 0.5


def test_outliers_where_most_targets_are_the_same():
    rows = np.arange(len(Y))
    models = [
        LinearRegressor("huber", tol=1e-6).fit(X, np.where(rows % 20 == 0, far, np.where(rows % 5 < 2, Y, 0.0)))
        for far in (1e6, 1e10)
    ]
    assert models[0].delta_ == models[1].delta_ < Y.max()
    np.testing.assert_allclose(models[0].predict(X), models[1].predict(X), atol=0.01 * Y.std())
    last_digits = np.spacing(300.0) * np.random.default_rng(0).integers(-1, 2, len(Y))
    same, nearly = (np.where(rows % 5 < 2, Y, 300 + digits) for digits in (0.0, last_digits))
    for loss in ("huber", Quantile(0.3)):
        found, expected = (LinearRegressor(loss, tol=1e-6).fit(X, targets).predict(X) for targets in (nearly, same))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert suited_delta(np.full((5, 1), 3.0), None) == 1
    assert suited_delta(np.c_[Y, np.full_like(Y, 1e6)], None) == suited_delta(Y[:, None], None)


@pytest.mark.parametrize("value", [7.0, 0.0, -1e9])
def test_targets_without_variance(value):
    """Networks find them, too, but for logarithms of them, where there is no unit that is small beside them."""
    for name, model in MODELS.items():
        if value <= 0 and ("poisson" in name or name == "softplus"):
            continue
        found = fitted(model, X, np.full(len(Y), value)).predict(X)
        within = 0.1 if name == "poisson network" else 1e-3 if name == "softplus" else 1e-6
        np.testing.assert_allclose(found, value, rtol=within, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "quantile"])
def test_targets_are_the_same_up_to_their_last_digits(loss):
    """Beside 100, rounding is no spread that says how large errors are; nor are rows that do not count."""
    last_digits = 100 + np.spacing(100.0) * np.random.default_rng(0).integers(-2, 3, len(Y))
    counts = np.arange(len(Y)) % 9 > 0
    model = MLPRegressorTorch(loss, max_iter=20, tol=0, random_state=0)
    for targets, weight in ((last_digits, None), (np.where(counts, 100.0, 0.0), counts.astype(float))):
        np.testing.assert_allclose(model.fit(X, targets, weight).predict(X), 100, rtol=1e-8)


@pytest.mark.parametrize("model", [LinearRegressor(penalty="l1"), MLPRegressorTorch(random_state=0)], ids=str)
def test_targets_that_differ_in_their_last_digits_alone_are_learnt(model):
    near = 4 * (Y - Y.mean()) / Y.std()
    expected = r2_score(near, clone(model).fit(X, near).predict(X))
    assert r2_score(near, clone(model).fit(X, 1e14 + near).predict(X) - 1e14) > expected - 0.01


def test_digits_that_single_precision_has_not_are_missed():
    model = LinearRegressor()
    for far, says in ((1e5, False), (1e10, True)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model.fit(X.astype("f4"), np.c_[Y, Y + far])
            model.fit(X, np.c_[Y, Y + far])  # which has them
        assert ["column 1 " in str(one.message) for one in said] == [True] * says


def test_no_digits_are_missed_of_targets_that_rounding_tells_apart_nor_of_rows_that_are_close_by_chance():
    single, constant = X.astype("f4"), np.where(Y > 0, 0.3, 0.1 + 0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        LinearRegressor().fit(single, np.c_[Y, constant])
        two = single[:2], [1e5, 1e5 + 1e-3]
        model = MLPRegressorTorch(max_iter=2, random_state=0)
        model.partial_fit(single[:20], Y[:20]).partial_fit(*two)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(single, 1e5 * Y, X_val=two[0], y_val=two[1])


@pytest.mark.parametrize("model", [LinearRegressor(penalty="l1"), MLPRegressorTorch(max_iter=5)], ids=str)
def test_weights_that_are_shares_make_a_penalty_strong(model):
    share = np.full(len(Y), 1 / len(Y))
    with pytest.warns(UserWarning, match="all 200 rows together weigh as much as 1, and alpha='auto'"):
        model.fit(X, Y, share)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted(model, X, Y, 0.3 * len(Y) * share)
        fitted(model.set_params(alpha=0.1), X, Y, share)


def test_weights_are_light_with_those_of_classes_and_of_earlier_rows_and_for_a_penalty():
    share, y = np.full(len(Y), 1 / len(Y)), Y > np.median(Y)
    heavy, light = (dict.fromkeys((False, True), weight) for weight in (float(len(Y)), 1 / len(Y)))
    with pytest.warns(UserWarning, match="all 200 rows together weigh as much as 1, and alpha='auto'"):
        SoftmaxClassifier(class_weight=light).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        SoftmaxClassifier(class_weight=heavy).fit(X, y, share)
        SoftmaxClassifier(penalty=None, solver="lbfgs").fit(X, y, share)
        SoftmaxClassifier().partial_fit(X, y, [False, True]).partial_fit(X[:2], y[:2], sample_weight=[0.01, 0.01])


@pytest.mark.parametrize("solver", ["lbfgs", "exact", "sgd"])
@pytest.mark.parametrize("loss", ["poisson", "tweedie"])
def test_counts_that_are_all_zero_are_predicted(loss, solver):
    """Scores fall without end, and are not brought closer to zero, which would predict one."""
    reg = LinearRegressor(loss, solver=solver, random_state=0).fit(X, np.zeros(len(Y)))
    assert reg.predict(X).max() < 0.02
    assert LinearRegressor(output="exp", random_state=0).fit(X, np.zeros(len(Y))).predict(X).max() < 0.02


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_the_default_of_huber_has_room_for_any_targets(size):
    plain, other = (LinearRegressor("huber").fit(X, Y * own) for own in (1.0, size))
    np.testing.assert_allclose(other.delta_ / size, plain.delta_, rtol=1e-12)
    np.testing.assert_allclose(other.predict(X) / size, plain.predict(X), rtol=1e-6)


@pytest.mark.parametrize("model", [LinearRegressor(output="softplus"), LinearRegressor(penalty="l1")], ids=str)
def test_the_default_penalty_has_room_for_tiny_targets(model):
    """A given strength would be infinite in their unit."""
    np.testing.assert_allclose(fitted(model, X, 1e-310 * Y).predict(X) / 1e-310, fitted(model).predict(X), rtol=1e-6)


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_training_goes_on_where_targets_were_all_the_same(first):
    model = MLPRegressorTorch(hidden_layer_sizes=8, learning_rate_init=0.02, random_state=0)
    getattr(model, first)(X[:5], np.full(5, Y.mean()))
    for _ in range(30):
        model.partial_fit(X, Y)
    assert model.score(X, Y) > 0.3


@pytest.mark.parametrize("loss", ["huber", "epsilon_insensitive"])
@pytest.mark.parametrize("form", [LinearRegressor, MLPRegressorTorch])
def test_targets_that_do_not_vary_say_no_unit_of_others(form, loss):
    """A loss that knows of a unit has the same one for all columns."""
    model = form(loss, solver="adam", max_iter=100, random_state=0)
    alone = model.fit(X, np.c_[Y, np.zeros_like(Y)]).predict(X)
    beside = model.fit(X, np.c_[Y, np.full_like(Y, 1e6)]).predict(X)
    assert r2_score(Y, alone[:, 0]) > 0.4
    np.testing.assert_allclose(beside[:, 0], alone[:, 0], atol=1e-6)
    np.testing.assert_allclose(beside[:, 1], 1e6, rtol=1e-3)


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_targets_that_do_not_vary_are_known_beside_others(loss):
    """Scores of a constant were as far off, in its own unit, as those of what varies: 2 % of it."""
    table = np.c_[Y, np.full_like(Y, 1e6)]
    model = MLPRegressorTorch(loss, max_iter=20, warm_start=True, random_state=0).fit(X, table)
    np.testing.assert_allclose(model.predict(X)[:, 1], 1e6, rtol=1e-6)
    model.set_params(max_iter=100).fit(X, table[:, ::-1])  # what was the same is so no longer
    assert r2_score(Y, model.predict(X)[:, 1]) > 0.4


@pytest.mark.parametrize("form", [MLPRegressorTorch, TorchRegressor])
def test_targets_that_are_nothing_beside_others_are_named(form):
    params = {"module": nn.Linear, "module_params": {"in_features": X.shape[1], "out_features": 3}}
    model = form() if form is MLPRegressorTorch else form(**params)
    model.set_params(loss="epsilon_insensitive", max_iter=1, tol=0)
    table = np.c_[Y, 1e4 * Y[::-1], np.full_like(Y, 3.0)]
    with pytest.warns(
        UserWarning, match=r"loss='epsilon_insensitive' has the same unit .* less than 0.01: column 0 \(.* of y\."
    ):
        model.fit(X, table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, table / table.max(axis=0))
        for loss in ("squared_error", "huber"):  # of which each column has a unit of its own
            model.set_params(loss=loss).fit(X, table)


def test_targets_of_which_an_l1_norm_leaves_nothing_are_named():
    table, loss = np.c_[Y, 1e3 * Y], "squared_epsilon_insensitive"
    with pytest.warns(UserWarning, match=r"has the same unit for all targets, .* less than 0.01: column 0 \("):
        assert not LinearRegressor(loss, penalty="l1").fit(X, table).coef_[0].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (LinearRegressor(loss), LinearRegressor(loss, penalty="l1", alpha=1e-3)):
            assert model.fit(X, table).coef_[0].any()
        LinearRegressor(Huber(10.0), penalty="l1").fit(X, table)


# ---- the estimator's contract ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegressor(),
        LinearRegressor(output="softplus", solver="lbfgs"),
        LinearRegressor(Quantile([0.2, 0.8])),
        MLPRegressorTorch(**SMALL),
    ],
    ids=str,
)
@pytest.mark.parametrize("namespace", ["torch", "array_api_strict"])
def test_array_api(estimator, namespace):
    check_array_api_input(
        type(estimator).__name__, estimator, array_namespace=namespace, dtype_name="float64", check_values=True
    )


@each_model
def test_models_are_kept(model):
    model = fitted(model)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    module = model.to_torch()
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(X)), model.predict(X), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["least squares", "lasso", "huber", "poisson", "median", "softplus"])
def test_weights_are_repetition(name):
    weight = np.random.default_rng(0).integers(0, 3, len(Y))
    params = {"tol": 1e-9} if name == "softplus" else {}
    model = clone(MODELS[name]).set_params(**params)
    weighted = fitted(model, X, Y, sample_weight=weight).predict(X)
    repeated = fitted(model, np.repeat(X, weight, axis=0), np.repeat(Y, weight)).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6)
    assert np.abs(weighted - fitted(model).predict(X)).max() > 1


@pytest.mark.parametrize("far", [0.0, 1e5, -3e9])
@pytest.mark.parametrize("name", ["huber", "poisson", "network", "ensemble"])
def test_which_rows_are_held_out_follows_from_them_alone(name, far):
    """Not from the order in which their targets are added up to a mean, nor from rows without weight."""
    model = clone(MODELS[name]).set_params(random_state=0, solver="lbfgs", max_iter=3, early_stopping=True)
    generator = np.random.default_rng(0)
    order, weight = generator.permutation(len(Y)), generator.integers(0, 3, len(Y))
    targets = np.abs(Y + far)
    expected = fitted(model, X, targets).predict(X)
    tol = 1e-6 * Y.std()
    np.testing.assert_allclose(fitted(model, X[order], targets[order]).predict(X), expected, rtol=0, atol=tol)
    weighted = fitted(model, X, targets, sample_weight=weight).predict(X)
    repeated = fitted(model, np.repeat(X, weight, axis=0), np.repeat(targets, weight)).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=0, atol=tol)


@each_single
def test_training_goes_on(model):
    if model is not MODELS["median"]:
        again = fitted(clone(model).set_params(warm_start=True))
        first, n = again.loss_, again.n_iter_
        again.fit(X, Y)
        assert again.solver_ == "exact" or again.loss_curve_[n] <= first * (1 + 0.1)
        assert len(again.loss_curve_) == n + again.n_iter_
    parts = clone(model)
    for _ in range(2):
        parts.partial_fit(X, Y)
    other = pickle.loads(pickle.dumps(parts))
    np.testing.assert_array_equal(parts.partial_fit(X, Y).predict(X), other.partial_fit(X, Y).predict(X))
    assert parts.loss_curve_[-1] < parts.loss_curve_[0]


def test_the_first_part_says_the_unit():
    model = LinearRegressor(random_state=0)
    model.partial_fit(X[:50], Y[:50])
    unit = model._target_scale.unit.copy()
    model.partial_fit(X[50:], 1e3 * Y[50:])
    assert model._target_scale.unit == unit


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("least squares", {"output": "exp"}),
        ("poisson", {"loss": "squared_error"}),
        ("quantiles", {"loss": "absolute_error"}),
        ("quantiles", {"loss__quantile": [0.9, 0.1, 0.5]}),
        ("network", {"activation": "tanh"}),
        ("poisson network", {"output": "auto", "loss": Quantile([0.5])}),
        ("module", {"output": "softplus"}),
        ("ensemble", {"loss": "poisson", "activation": "tanh"}),
    ],
)
def test_parameters_that_are_set_after_a_fit_are_of_the_next_one(name, params):
    short = clone(MODELS[name]).set_params(max_iter=10)
    model = fitted(short)
    before, score = model.predict(X), model.score(X, Y)
    model.set_params(**params)
    np.testing.assert_array_equal(model.predict(X), before)
    assert model.score(X, Y) == score
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(again.to_torch()(torch.from_numpy(X)).detach(), before, rtol=1e-9)
    expected = fitted(short.set_params(**params)).predict(X)
    np.testing.assert_array_equal(model.fit(X, Y).predict(X), expected)


@pytest.mark.parametrize("loss", ["squared_error", Quantile([0.2, 0.7])], ids=str)
def test_tensors_that_numpy_cannot_read_are_scored(loss):
    values = torch.from_numpy(np.round(Y))
    model = LinearRegressor(loss).fit(X, values)
    expected = model.score(X, values.numpy())
    for given in (values.bfloat16(), values.clone().requires_grad_()):
        assert model.score(X, given) == pytest.approx(expected, abs=1e-3)
        found = GridSearchCV(model, {"alpha": [0.1]}, cv=2, error_score="raise").fit(X, given).best_score_
        assert np.isfinite(found)


@pytest.mark.parametrize(("values", "dtype"), [(Y, np.float16), (Y + 1e6, np.float32)], ids=["half", "far from zero"])
def test_scores_of_targets_of_few_digits(values, dtype):
    model, few = fitted(MODELS["least squares"], X, values), values.astype(dtype)
    assert model.score(X, few) == pytest.approx(r2_score(few.astype(float), model.predict(X)), abs=1e-12)


HALF_SQUARE = lambda y, p: ((y - p) ** 2).mean() / 2  # noqa: E731


@pytest.mark.parametrize(
    ("params", "value"),
    [
        ({}, HALF_SQUARE),
        ({"output": "softplus"}, HALF_SQUARE),
        ({"loss": "absolute_error"}, lambda y, p: abs(y - p).mean()),
        ({"loss": Quantile(0.8)}, lambda y, p: mean_pinball_loss(y, p, alpha=0.8)),
        ({"loss": "poisson"}, lambda y, p: mean_tweedie_deviance(y, p, power=1) / 2),
        ({"loss": "gamma"}, lambda y, p: mean_tweedie_deviance(y, p, power=2) / 2),
        ({"loss": Tweedie(1.4)}, lambda y, p: mean_tweedie_deviance(y, p, power=1.4) / 2),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "network", "module"])
def test_losses_are_of_targets_as_they_are(name, params, value):
    model = clone(MODELS[name]).set_params(max_iter=3, **params)
    model.fit(X, Y, X_val=X, y_val=Y)
    assert model.validation_loss_curve_[-1] == pytest.approx(value(Y, model.predict(X)), rel=1e-4)


def test_losses_of_members_are_of_targets_as_they_are():
    model = MLPEnsembleRegressor(2, (4,), max_iter=3, random_state=0).fit(X, Y, X_val=X, y_val=Y)
    for member in model.estimators_:
        assert min(member.validation_loss_curve_) == pytest.approx(HALF_SQUARE(Y, member.predict(X)), rel=1e-4)


def test_training_goes_on_with_as_many_quantiles():
    model = LinearRegressor(Quantile([0.1, 0.9]), solver="sgd", random_state=0).partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"y has 1 column\(s\), and the regressor was trained for 2"):
        model.set_params(loss="huber").partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"Quantile\(quantile=\[0.5, 0.6, 0.7\]\) predicts 3 column"):
        model.set_params(loss=Quantile([0.5, 0.6, 0.7])).partial_fit(X, Y)


def test_deviances_judge_predictions_of_targets_that_are_zero():
    counts = np.random.default_rng(0).poisson(0.5, len(Y))
    reg = LinearRegressor("poisson", solver="adam", early_stopping=True, scoring="neg_mean_poisson_deviance")
    assert np.isfinite(reg.set_params(max_iter=2, tol=1.0).fit(X, counts).best_validation_score_)


def test_advice_on_scorings_is_of_values():
    model = MLPRegressorTorch(Quantile([0.1, 0.9]), early_stopping=True, scoring="r2")
    with pytest.raises(ValueError, match=r"cannot judge these targets: .* Choose another scoring, None or 'loss'"):
        model.fit(X, Y)


@pytest.mark.parametrize("before", ["squared_error", "huber"])
@pytest.mark.parametrize("after", ["huber", Huber(5.0), "absolute_error"])
def test_parts_go_on_with_another_loss(before, after):
    """Where y decides on delta, it is y of the first part with such a loss; a delta that is given is taken."""
    model = LinearRegressor(before, solver="sgd", random_state=0).partial_fit(X, Y)
    part = model._loss_of_targets
    model.set_params(loss=after).partial_fit(X, Y)
    delta = getattr(model._loss_of_targets, "delta", None)
    if after == "huber":
        assert delta == suited_delta(Y[:, None], None)
        assert getattr(part, "delta", delta) == delta
    else:
        assert delta == getattr(after, "delta", None)


@pytest.mark.parametrize("name", ["least squares", "median", "poisson network"])
def test_numpy_may_raise_where_numbers_vanish(name):
    """A caller who asks for floating-point errors does not mean numbers that are lost on purpose."""
    short = clone(MODELS[name]).set_params(max_iter=10)
    with np.errstate(all="raise"):
        found = fitted(short).predict(X)
    np.testing.assert_array_equal(found, fitted(short).predict(X))


@pytest.mark.parametrize("name", ["sgd", "network", "module"])
def test_parts_have_one_output(name):
    """Of another one, the level and unit of targets would be others."""
    model = clone(MODELS[name]).partial_fit(X, Y).set_params(output="softplus")
    with pytest.raises(ValueError, match=r"'identity' of the scores, and .* make them 'softplus'"):
        model.partial_fit(X, Y)
    assert (model.fit(X, Y).partial_fit(X, Y).predict(X) >= 0).all()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("ensemble", "quantiles")])
def test_early_stopping_watches_the_score(name):
    model = clone(MODELS[name]).set_params(early_stopping=True, max_iter=30)
    model.fit(X[:150], Y[:150], X_val=X[150:], y_val=Y[150:])
    tol = 1e-6 if name == "module" else 1e-9
    if model.loss == "squared_error":
        assert model.best_validation_score_ == pytest.approx(model.score(X[150:], Y[150:]), abs=tol)
    else:
        assert model.best_validation_score_ == pytest.approx(-min(model.validation_loss_curve_), abs=tol)
    assert model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_no_strength_is_none_on_columns_of_any_size(size):
    free = LinearRegressor(alpha=0.0).fit(X * size, Y)
    np.testing.assert_allclose(free.predict(X * size), LinearRegressor(penalty=None).fit(X, Y).predict(X), rtol=1e-6)


def test_scores_that_are_losses_are_in_their_unit():
    """Those of the epochs of ensembles, and of rows whose targets have one value, of which there is no R²."""
    ensemble = MLPEnsembleRegressor(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0).fit(X, Y)
    rare = LinearRegressor(solver="adam", early_stopping=True, max_iter=2, random_state=0, validation_fraction=0.02)
    rare.fit(X, np.where(np.arange(len(X)) < 20, Y, 0.0))
    for model in (ensemble, *ensemble.estimators_, rare):
        np.testing.assert_allclose(model.validation_scores_, np.negative(model.validation_loss_curve_), rtol=1e-5)
    own = clone(model).set_params(scoring="neg_mean_absolute_error").fit(X, Y)
    assert own.best_validation_score_ < 0


def test_one_quantile_is_watched_by_its_loss():
    """The highest R² is had by the mean."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(600, 2))
    values = rows[:, 0] + 3 * generator.exponential(size=600)
    for model in (LinearRegressor(Quantile(0.05)), MLPRegressorTorch(Quantile(0.05), (8,))):
        model.set_params(early_stopping=True, random_state=0).fit(rows, values)
        assert 0.02 < (values < model.predict(rows)).mean() < 0.1


def test_quantiles_are_watched_by_their_loss():
    model = LinearRegressor(Quantile([0.1, 0.9]), early_stopping=True, random_state=0, max_iter=30)
    model.fit(X[:150], Y[:150], X_val=X[150:], y_val=Y[150:])
    low, high = model.predict(X[150:]).T
    expected = sum(mean_pinball_loss(Y[150:], p, alpha=q) for p, q in ((low, 0.1), (high, 0.9)))
    assert -model.best_validation_score_ == pytest.approx(expected, rel=1e-9)


@each_model
def test_tables(model):
    frame = pd.DataFrame(X, columns=list("abcdefghij"))
    frame["size"] = pd.Categorical(np.where(Y > 150, "large", "small"))
    model = fitted(model, frame, pd.Series(Y))
    assert list(model.encoded_features_[-2:]) == ["size_large", "size_small"]
    shuffled = model.predict(frame.iloc[::-1])[::-1]
    np.testing.assert_allclose(shuffled, model.predict(frame), rtol=1e-9)


@each_model
def test_sparse_rows(model):
    few = np.where(np.abs(X) > 0.8, X, 0)
    kept = fitted(model, sparse.csr_array(few), Y)
    np.testing.assert_allclose(kept.predict(few), kept.predict(sparse.csc_matrix(few)), rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", Quantile(0.8)], ids=str)
def test_sparse_columns_that_are_far_from_zero(loss):
    """However far: deviations of 1e-8 of the mean have digits left, and a constant column has none."""
    far = X[:, :4] + [1e8, 0, 3e8, 0]
    far[:, 3] = 1e9
    dense, kept = (LinearRegressor(loss, alpha=1e-6, tol=1e-6).fit(rows, Y) for rows in (far, sparse.csr_array(far)))
    np.testing.assert_allclose(kept.predict(far), dense.predict(far), atol=1e-3 * Y.std())


@pytest.mark.parametrize("name", ["network", "ensemble"])
def test_missing_values(name):
    holes = X.copy()
    holes[::5, 3] = np.nan
    model = fitted(MODELS[name], holes, Y)
    assert np.isfinite(model.predict(holes)).all()


@pytest.mark.parametrize("name", ["least squares", "sgd", "poisson", "network"])
def test_rows_in_passes(name):
    def passes():
        return ((X[i : i + 60], Y[i : i + 60]) for i in range(0, len(Y), 60))

    model = fitted(MODELS[name], passes, None)
    assert model.score(X, Y) > 0.2


def test_callbacks_hear_of_values():
    from skorch.callbacks import Callback

    class Listener(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_end(self, net, batch=None, training=None, **more):
            self.seen.append((batch, net.predict(batch[0])))

    listener = Listener()
    model = LinearRegressor(random_state=0, callbacks=[listener], max_iter=2).fit(X, 1e3 * Y + 5)
    (rows, targets), predicted = listener.seen[-1]
    index = [int(np.flatnonzero((X == row).all(1))[0]) for row in rows[:5]]
    np.testing.assert_allclose(targets[:5], 1e3 * Y[index] + 5)
    assert predicted.shape == targets.shape
    assert model.history_[-1, "train_loss"] > 0


# ---- searches and comparisons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, "neg_mean_absolute_error"])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("module", "quantiles", "poisson network")])
def test_searches_are_scikit_learns(name, scoring):
    grid = {"alpha": [1e-3, 0.1, 10.0]}
    options = {"cv": 3, "scoring": scoring, "refit": False}
    ours = GridSearchCV(MODELS[name], grid, **options).fit(X, Y).cv_results_["mean_test_score"]
    expected = model_selection.GridSearchCV(MODELS[name], grid, **options).fit(X, Y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-4 if name == "median" else 1e-9)


def test_paths_and_comparisons():
    alphas = np.logspace(-2, 2, 4)
    path = regularization_path(LinearRegressor(penalty="l1", tol=1e-6), X, Y, alphas)
    for alpha, coef in zip(alphas, path.coefs, strict=True):
        np.testing.assert_allclose(coef[0], Lasso(alpha, tol=1e-10).fit(X, Y).coef_, atol=1e-3)
    found = compare({"ridge": Ridge(), "ours": LinearRegressor(alpha=1 / len(Y))}, X, Y, reference="ridge").frame()
    assert found.difference.abs().max() < 1e-3
    losses = GridSearchCV(LinearRegressor(Huber(1.0)), {"loss__delta": [1.0, 50.0]}).fit(X, Y)
    assert losses.best_params_["loss__delta"] in (1.0, 50.0)


def test_baselines_of_values():
    frame = pd.DataFrame(X[:, :4], columns=list("abcd"))
    frame["size"] = pd.Categorical(np.where(Y > 150, "large", "small"))
    names = ["ridge", "linear", "mlp", "dummy"]
    found = compare(names, frame, Y + 0.5, scoring=["r2", "neg_mean_absolute_error"], cv=2).frame()
    assert not found.error.any()
    r2 = found[found.metric == "r2"].set_index("contestant")["mean"]
    assert r2["ridge"] == pytest.approx(r2["linear"], abs=0.01)  # which do not scale indicators alike
    assert r2["mlp"] > 0.5 > 0.1 > r2["dummy"]
    with pytest.raises(ValueError, match="no default contestant 'logreg' for values"):
        compare(["logreg"], frame, Y + 0.5)


def test_pictures():
    pytest.importorskip("matplotlib").use("Agg")
    from sklearn.metrics import PredictionErrorDisplay

    from skdeep.display import RegularizationPathDisplay, TemplatesDisplay

    frame = pd.DataFrame({"first": Y, "second": Y**2})
    alphas = [0.1, 1.0]
    several = RegularizationPathDisplay.from_path(regularization_path(LinearRegressor(), X, frame, alphas))
    assert [text.get_text() for text in several.axes_[0].get_legend().get_texts()] == ["first", "second"]
    model = LinearRegressor().fit(X[:, :4], frame)
    assert TemplatesDisplay.from_estimator(model, image_shape=(2, 2)).names == ["first", "second"]
    PredictionErrorDisplay.from_estimator(LinearRegressor().fit(X, Y), X, Y)


# ---- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["squared_error", Quantile([0.05, 0.5, 0.95], non_crossing=True)], ids=str)
def test_intervals_cover(loss):
    rows, values = make_friedman1(1500, noise=2.0, random_state=0)
    model = MLPEnsembleRegressor(4, (32,), loss=loss, max_iter=25, random_state=0).fit(rows[:600], values[:600])
    low, high = model.predict_interval(rows[600:], coverage=0.9).T
    assert 0.86 < ((low <= values[600:]) & (values[600:] <= high)).mean() < 0.95
    wide = model.predict_interval(rows[600:], coverage=0.99)
    assert (wide[:, 1] - wide[:, 0] >= high - low).all()
    assert np.isinf(model.predict_interval(rows[:2], coverage=1 - 1e-6)).all()
    with pytest.raises(ValueError, match="coverage must be between 0 and 1"):
        model.predict_interval(rows, coverage=90)


def test_intervals_of_few_rows_do_not_rest_on_luck():
    """A member keeps the epoch that is best for the very rows that say how much it errs."""
    covered = []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        rows = generator.normal(size=(1060, 4))
        values = 2 * rows[:, 0] - rows[:, 1] + 0.7 * generator.normal(size=1060)
        model = MLPEnsembleRegressor(random_state=0).fit(rows[:60], values[:60])
        low, high = model.predict_interval(rows[60:]).T
        covered.append(((low <= values[60:]) & (values[60:] <= high)).mean())
    assert 0.865 < np.mean(covered) < 0.94
    errors = np.abs(values[:60] - model.oof_prediction_)
    each = np.stack([member.predict(rows[:60]) for member in model.estimators_])
    differ, large = (np.quantile(part, 0.9, method="inverted_cdf") for part in (np.abs(each - each.mean(0)), errors))
    averaged_out = (differ / large) ** 2
    assert 0.01 < averaged_out < 0.5
    expected = errors * np.sqrt((1 + 8 * 8 / 60) * (1 - averaged_out))
    np.testing.assert_allclose(model._nonconformity[0][:, 0], expected, rtol=1e-6)
    model.fit(rows[:60], values[:60], X_val=rows[60:], y_val=values[60:])  # which these rows do not choose
    assert model._nonconformity[0][:, 0].max() < np.abs(values[:60] - model.oof_prediction_).max()


def test_intervals_are_of_the_mean_of_members():
    """Where there is no noise, members err by what they differ in, of which the mean has next to nothing."""
    covered = []
    for seed in (1, 3):
        rows = np.random.default_rng(seed).uniform(-2, 2, (3000, 3))
        values = np.sin(2 * rows[:, 0]) * rows[:, 1] + rows[:, 2] ** 2
        model = MLPEnsembleRegressor(random_state=seed).fit(rows[:1000], values[:1000])
        low, high = model.predict_interval(rows[1000:]).T
        covered.append(((low <= values[1000:]) & (values[1000:] <= high)).mean())
    assert 0.87 < np.mean(covered) < 0.92


def test_rows_left_out_are_new():
    rows, values = make_friedman1(300, noise=1.0, random_state=0)
    model = MLPEnsembleRegressor(3, (32,), max_iter=20, random_state=0).fit(rows, values)
    assert model.oof_score_ == pytest.approx(r2_score(values, model.oof_prediction_), abs=1e-9)
    assert model.oof_score_ < model.score(rows, values)
    mean = np.mean([member.predict(rows) for member in model.estimators_], axis=0)
    np.testing.assert_allclose(model.predict(rows), mean, rtol=1e-10)


def test_predictions_of_quantiles_do_not_cross():
    generator = np.random.default_rng(0)
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    noisy = generator.standard_t(2, 60)
    model = LinearRegressor(Quantile(levels, non_crossing=True), penalty=None).fit(X[:60], noisy)
    crossing = LinearRegressor(Quantile(levels), penalty=None).fit(X[:60], noisy)
    assert (np.diff(model.predict(X)) >= 0).all()
    assert (np.diff(crossing.predict(X)) < 0).any()
    np.testing.assert_array_equal(model.predict(X), np.sort(crossing.predict(X), axis=1))


# ---- what is wrong is said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "target", "said"),
    [
        (LinearRegressor("poisson"), -Y, "targets are at least zero, and 200 of 200 are not, the first"),
        (MLPRegressorTorch("gamma"), Y * 0, "targets are positive"),
        (LinearRegressor(), np.where(Y > 100, np.nan, Y), "NaN"),
        (LinearRegressor(), np.ma.masked_greater(Y, 100), "NaN"),
        (LinearRegressor(), [*Y[:-1], None], "1 of 200 targets are missing, the first in row 199"),
        (LinearRegressor(), np.array([*Y[:-1], "x"], dtype=object), "'x', in row 199 of y"),
        (LinearRegressor(), np.where(Y > 100, np.inf, Y), "infinity"),
        (LinearRegressor(), Y.astype(str), "predicts numbers"),
        (LinearRegressor(), Y + 1j, "Complex"),
        (LinearRegressor(), Y[:-1], "inconsistent numbers of samples"),
        (LinearRegressor(), Y.reshape(2, 10, 10), "a number for each row"),
        (LinearRegressor(Quantile([0.1, 0.9])), np.stack([Y, Y], 1), "Fit a regressor to each"),
        (LinearRegressor(Quantile([0.1, 1.2])), Y, "between 0 and 1"),
        (LinearRegressor(Quantile([0.9, 0.1], non_crossing=True)), Y, "in rising order"),
        (LinearRegressor(Huber(delta=-1)), Y, "delta"),
        (LinearRegressor("poisson", output="identity"), Y, r"predictions exp\(s\)"),
        (LinearRegressor("hinge"), Y, "loss"),
        (LinearRegressor(solver="exact", output="softplus"), Y, "solver='exact'"),
        (LinearRegressor(early_stopping=True, scoring="accuracy"), Y, "scoring='accuracy' cannot judge"),
    ],
    ids=lambda part: str(part)[:40] if isinstance(part, str) else None,
)
def test_errors(model, target, said):
    with pytest.raises((ValueError, TypeError), match=said):
        model.fit(X, target)


@each_single
def test_nothing_learnt_is_lost(model):
    model = fitted(model)
    before = model.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, np.full(len(Y), np.nan))
    np.testing.assert_array_equal(model.predict(X), before)
    with pytest.raises(ValueError, match="columns"):
        model.set_params(warm_start=True).fit(X, np.stack([Y, Y, Y], 1))
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("size", [1e160, 1e300, 1e-170])
@pytest.mark.parametrize(
    "model",
    [
        LinearRegressor(),
        MLPRegressorTorch(max_iter=20, early_stopping=True, random_state=0),
        MLPEnsembleRegressor(max_iter=5, random_state=0),
    ],
    ids=["linear", "network", "ensemble"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_targets_whose_squares_are_no_numbers(model, size):
    """R² of them was none, and ensembles refused them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = X[:, 0] + 0.1 * rng.normal(size=120)
    huge, plain = clone(model).fit(X, size * y), clone(model).fit(X, y)
    assert huge.score(X, size * y) == pytest.approx(plain.score(X, y), abs=5e-3) and plain.score(X, y) > 0.8
    two = np.column_stack([y, -y])
    assert huge._score_of(size * two, 0.9 * size * two, None) == pytest.approx(huge._score_of(two, 0.9 * two, None))
    if isinstance(model, MLPEnsembleRegressor):
        assert huge.oof_score_ == pytest.approx(plain.oof_score_, abs=5e-3)
        low, high = huge.predict_interval(X).T
        assert (low < high).all() and np.isfinite(high).all()


def test_intervals_of_uneven_weights_are_of_as_many_rows_as_tell_as_much():
    """Half of the rows, of which each counts next to nothing, tell nothing of how much members err."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(120, 3))
    values = rows[:, 0] + np.where(np.arange(120) < 61, 0.2, 5.0) * generator.normal(size=120)
    weight = np.where(np.arange(120) < 61, 1.0, 1e-9)
    model = MLPEnsembleRegressor(4, (16,), max_iter=5, random_state=0)
    model.fit(rows, values, weight)
    errors = np.abs(values - model.oof_prediction_)[:61]
    each = np.stack([member.predict(rows[:61]) for member in model.estimators_])
    differ, large = (np.quantile(part, 0.9, method="inverted_cdf") for part in (np.abs(each - each.mean(0)), errors))
    expected = errors * np.sqrt((1 + 8 * 4 / 61) * (1 - (differ / large) ** 2))
    np.testing.assert_allclose(model._nonconformity[0][:61, 0], expected, rtol=1e-6)
    width = np.ptp(model.predict_interval(rows[:1])) / 2
    assert width == pytest.approx(np.sort(expected)[int(np.ceil(0.9 * 62)) - 1])  # of 61 rows, and one
