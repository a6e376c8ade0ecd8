"""MLPs trained in centred and scaled columns: what it is to be the same as, and what it must survive."""

import pickle

import numpy as np
import pytest
import torch
from helpers import reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from skdeep import MLPClassifierTorch, MLPRegressorTorch, SoftmaxClassifier
from skdeep.data.columns import Columns
from skdeep.data.inputs import rows_of
from skdeep.engine.input_layer import Standardization
from skdeep.fitting import input_columns
from skdeep.model_selection.stacks import fit_stack

X, Y = load_wine(return_X_y=True)  # columns of very different scales
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(Y))
SPARSE = sparse.csr_array(np.where(np.median(X, 0) < X, X, 0))
BASE = MLPClassifierTorch((8, 8), batch_size=50, max_iter=15, learning_rate_init=0.01, random_state=0)

OPTIONS = {
    "adam": {},
    "sgd": {"solver": "sgd", "alpha": 1.0},
    "adamw": {"solver": "adamw", "alpha": 1.0},
    "lbfgs": {"solver": "lbfgs", "alpha": 1.0},
    "softmax": {"hidden_layer_sizes": ()},
    "batch": {"normalization": "batch"},
    "layer": {"normalization": "layer", "dropout": 0.2},
    "blocks": {"stochastic_depth": 0.3, "activation": "prelu"},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
}


def mlp(**options):
    return reconfigured(clone(BASE), **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_standard_scaler_in_front(options):
    """The same random numbers, the same penalty: the same model, with weights that refer to the raw columns."""
    scaler = StandardScaler().fit(X, sample_weight=WEIGHT)
    Z = scaler.transform(X)
    model = mlp(**options).fit(X, Y, WEIGHT, X_val=X[::3], y_val=Y[::3])
    scaled = mlp(standardize=False, **options).fit(Z, Y, WEIGHT, X_val=Z[::3], y_val=Y[::3])
    atol = 1e-10 if "precision" not in options else 1e-4
    np.testing.assert_allclose(model.decision_function(X), scaled.decision_function(Z), atol=atol)
    np.testing.assert_allclose(model.coefs_[0] * scaler.scale_[:, None], scaled.coefs_[0], atol=atol)
    for curve in ("loss_curve_", "validation_loss_curve_"):
        np.testing.assert_allclose(getattr(model, curve), getattr(scaled, curve), rtol=atol)
    assert np.abs(model.coefs_[0]).max() > 1e-3
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize("options", [OPTIONS["adam"], OPTIONS["lbfgs"]], ids=["adam", "lbfgs"])
def test_a_max_abs_scaler_in_front_of_sparse_columns(options):
    scaler = MaxAbsScaler().fit(SPARSE)
    Z = scaler.transform(SPARSE)
    model, scaled = mlp(**options).fit(SPARSE, Y), mlp(standardize=False, **options).fit(Z, Y)
    np.testing.assert_allclose(model.decision_function(SPARSE), scaled.decision_function(Z), atol=1e-10)
    np.testing.assert_allclose(model.coefs_[0] * scaler.scale_[:, None], scaled.coefs_[0], atol=1e-10)


@pytest.mark.slow
def test_raw_columns_are_as_good_as_scaled_ones():
    for load in (load_wine, load_breast_cancer):
        X_train, X_test, y_train, y_test = train_test_split(*load(return_X_y=True), random_state=0)
        ours = MLPClassifierTorch(random_state=0).fit(X_train, y_train).score(X_test, y_test)
        theirs = make_pipeline(StandardScaler(), MLPClassifier(random_state=0)).fit(X_train, y_train)
        assert ours >= theirs.score(X_test, y_test) - 0.03  # a row of 45 is .022
        assert ours > 0.95


@pytest.mark.parametrize("data", [X, SPARSE], ids=["dense", "sparse"])
def test_members_of_a_stack_end_where_they_end_alone(data):
    """Each in columns of its own where their weights differ; and they go on alone."""
    members = [
        mlp(tol=1e-2, n_iter_no_change=2),
        mlp(alpha=10.0, class_weight={0: 5.0}),
        mlp(class_weight={2: 9.0}, random_state=1),
    ]
    assert fit_stack(members, data, Y) == [None] * len(members)
    for member in members:
        alone = clone(member).fit(data, Y)
        assert member.n_iter_ == alone.n_iter_
        np.testing.assert_allclose(member.decision_function(data), alone.decision_function(data), atol=1e-10)
        member.partial_fit(data[:50], Y[:50])
        alone.partial_fit(data[:50], Y[:50])
        np.testing.assert_allclose(member.decision_function(data), alone.decision_function(data), atol=1e-10)


@pytest.mark.parametrize("data", [X, SPARSE], ids=["dense", "sparse"])
def test_fold_models_have_columns_of_their_own(data):
    """The folds of a calibration train as one stack, or fold by fold: temperature and loss are the same."""
    members = [mlp(calibration="temperature", alpha=alpha) for alpha in (1e-3, 1.0)]
    assert fit_stack(members, data, Y) == [None, None]
    for member in members:
        assert member.temperature_ == pytest.approx(clone(member).fit(data, Y).temperature_, rel=1e-8)


@pytest.mark.parametrize("data", [X, SPARSE], ids=["dense", "sparse"])
def test_weights_are_repetitions(data):
    repeats = np.random.default_rng(0).integers(0, 3, len(Y))
    model = mlp(batch_size=1000, max_iter=30)
    weighted = clone(model).fit(data, Y, sample_weight=repeats)
    index = np.repeat(np.arange(len(Y)), repeats)
    repeated = clone(model).fit(data[index], Y[index])
    np.testing.assert_allclose(weighted.decision_function(data), repeated.decision_function(data), atol=1e-10)


def test_partial_fit_merges_the_statistics_and_keeps_the_function():
    model = mlp(solver="sgd", learning_rate_init=1e-12)
    for start in range(0, len(Y), 60):
        part = slice(start, start + 60)  # sorted by class: the columns move from call to call
        before = model.decision_function(X) if start else None
        model = pickle.loads(pickle.dumps(model)).partial_fit(X[part], Y[part], classes=np.unique(Y))
        if start:
            np.testing.assert_allclose(model.decision_function(X), before, atol=1e-8)
    columns = model._optimizer.columns
    np.testing.assert_allclose(columns.mean, X.mean(0), rtol=1e-10)
    np.testing.assert_allclose(columns.deviation, X.std(0), rtol=1e-10)


def test_statistics_where_a_class_has_no_weight():
    many, y = np.tile(X, (8, 1))[np.argsort(np.tile(Y, 8))], np.sort(np.tile(Y, 8))  # whole chunks of that class
    columns = Columns.of_models(_rows(np.repeat(many, 4, 0)), [None], [np.repeat(y != 1, 4).astype(float)])[0]
    np.testing.assert_allclose(columns.mean, X[Y != 1].mean(0), rtol=1e-10)


def _rows(data):
    from skdeep.engine.rows import DenseRows

    return DenseRows(torch.from_numpy(data), torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_columns_that_hardly_vary_and_outliers(dtype, precision):
    """Constant columns, some with rounding errors, a column with one huge value, and means far above deviations."""
    rng = np.random.default_rng(0)
    iris, y = load_iris(return_X_y=True)
    odd = np.tile(np.array([0.0, 1e6, 0.1, 0.1, 1e-30, 0.0], dtype), (150, 1))
    odd[:, 3] = np.nextafter(odd[:, 3], dtype(1)) * rng.integers(0, 2, 150) + odd[:, 2] * 0
    odd[:, 3] = np.where(odd[:, 3] > 0, odd[:, 3], odd[:, 2])  # 0.1, and the next number
    odd[0, 5] = 1e15
    data = np.hstack([iris.astype(dtype) + dtype(1000), odd])
    model = mlp(max_iter=60, precision=precision).fit(data, y)
    assert all(np.isfinite(W).all() for W in (*model.coefs_, *model.intercepts_))
    assert model.score(data, y) > 0.9
    assert np.abs(model.coefs_[0]).max() < 1e4  # no factor of a rounding error
    reference = mlp(max_iter=60).fit(iris, y)
    assert reference.score(iris, y) > 0.9


def test_products_in_bfloat16_come_after_the_centre():
    """Columns that eight binary digits could not tell apart."""
    iris, y = load_iris(return_X_y=True)
    model = mlp(precision="bfloat16", max_iter=60).fit(iris + 1e4, y)
    assert model.score(iris + 1e4, y) > 0.9


def test_callbacks_meet_the_weights_that_are_trained():
    from skorch.callbacks import Callback

    seen = {}

    class Look(Callback):
        def on_train_end(self, net, X=None, y=None, **kwargs):
            seen["weight"] = net.module_.weight_0.detach().clone().numpy()
            seen["scores"] = net.module_(torch.from_numpy(X)).detach().numpy()
            seen["predicted"] = net.predict_proba(X)

    model = mlp(callbacks=[Look()]).fit(X, Y)
    trained = model.coefs_[0] * X.std(0)[:, None] / model.column_factors_[:, None]
    np.testing.assert_allclose(seen["weight"].T, trained, atol=1e-10)
    np.testing.assert_allclose(seen["scores"], model.decision_function(X), atol=1e-8)
    np.testing.assert_allclose(seen["predicted"], model.predict_proba(X), atol=1e-12)


def test_the_penalty_is_that_of_the_standardised_columns():
    """Without hidden layers and with one batch it is softmax regression, which has a penalty of the raw columns."""
    alpha = 1e-2
    network = mlp(hidden_layer_sizes=(), alpha=alpha * len(Y), solver="lbfgs", tol=1e-9, max_iter=1000).fit(X, Y)
    Z = StandardScaler().fit_transform(X)
    softmax = SoftmaxClassifier(alpha=alpha, solver="lbfgs", tol=1e-9).fit(Z, Y)
    np.testing.assert_allclose(network.predict_proba(X), softmax.predict_proba(Z), atol=1e-6)


def test_columns_far_from_zero_are_centred_before_they_are_rounded():
    """Whole numbers around ten millions are exact in single precision, and what a product makes of them is not."""
    values = torch.tensor([[1e7 - 3], [1e7], [1e7 + 3]], dtype=torch.float32)
    center, scale = torch.full((1, 1, 1), 1e7), torch.full((1, 1, 1), 1 / 3)
    numbers = Standardization(center, scale, torch.empty(0, dtype=torch.int64))
    rows, *_ = numbers.factors(values, torch.zeros(1, 1, 1), torch.zeros(1, 1))
    np.testing.assert_allclose(rows[:, 0], [-1, 0, 1], rtol=1e-6)


def test_centres_of_their_own_in_a_scale_they_share():
    center, scale = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.full((1, 1, 2), 2.0)
    rows = torch.arange(6.0).view(3, 2)
    numbers = Standardization(center, scale, torch.empty(0, dtype=torch.int64))
    found, *_ = numbers.factors(rows, torch.zeros(2, 1, 2), torch.zeros(2, 1))
    np.testing.assert_array_equal(found, (rows - center) * 2)


def _with_indicators(rare_of: float = 20.0) -> np.ndarray:
    """Wine beside a rare indicator, a balanced one, and a rare value that is no indicator."""
    rng = np.random.default_rng(0)
    rare, balanced = rng.random(len(Y)) < 1 / rare_of, rng.permutation(len(Y)) % 2
    return np.column_stack([X, rare, balanced, np.where(rare[::-1], 2.0, 1.0)])


def test_rare_ones_count_as_frequent_ones_do():
    """What is nearly always zero is no large number in a few rows; all else is as behind a scaler."""
    data = _with_indicators()
    scaler = StandardScaler().fit(data)
    assert scaler.scale_[-3] < 0.3 and scaler.scale_[-2] == 0.5 and scaler.scale_[-1] < 0.3
    scaler.scale_[-3] = 0.5
    Z = scaler.transform(data)
    model, scaled = mlp().fit(data, Y), mlp(standardize=False).fit(Z, Y)
    np.testing.assert_allclose(model.decision_function(data), scaled.decision_function(Z), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_which_columns_are_indicators(dtype):
    """Those of zeros and ones, by the moments of all parts that were seen, some of which have no one at all."""
    rng = np.random.default_rng(0)
    n = 300_000  # more than are measured in double precision
    rare = np.arange(n) > n - 9
    reals, counts, codes = rng.beta(0.01, 0.1, n), np.minimum(rng.poisson(0.01, n), 2), np.where(rare, 2.0, 1.0)
    huge = rng.normal(size=n) * np.finfo(np.float32).max / 10
    data = np.column_stack([rare, ~rare, reals, counts, codes, codes - 1, 0.1 * rare, np.ones(n), huge]).astype(dtype)
    parts = [rows_of(part, torch.device("cpu"), torch.float64) for part in (data, data[:9], data[9:])]
    whole, first, rest = (Columns.measure(part, None, None) for part in parts)
    expected = data.astype(np.float64).std(0)
    expected[[0, 1, 5]], expected[7] = 0.5, 1.0
    for columns in (whole, first.merged(rest)):
        sizes, constant = input_columns._sizes_of(MLPClassifierTorch(), [columns], True)
        np.testing.assert_allclose(sizes[0], expected, rtol=1e-5)
        np.testing.assert_array_equal(constant[0], np.arange(9) == 7)
        of_regressor, _ = input_columns._sizes_of(MLPRegressorTorch(), [columns], True)
        np.testing.assert_allclose(of_regressor[0, 0], data[:, 0].astype(np.float64).std(), rtol=1e-5)
