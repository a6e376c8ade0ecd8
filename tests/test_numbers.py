"""Columns far from zero, huge and tiny ones, and probabilities too small for any number: nothing is lost in silence."""

import functools
import re
import warnings

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CPU, configured, covering, reconfigured
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.data.answers import Answers
from skdeep.data.columns import Columns, sizes_of
from skdeep.engine.frame import kept
from skdeep.engine.losses import LOSSES, smoothed
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.fitting.links import link_of

WINE, Y = load_wine(return_X_y=True)
Z = StandardScaler().fit_transform(WINE)
NETWORK = {"max_iter": 30, "learning_rate_init": 0.02, "random_state": 0}
ESTIMATORS = {
    "softmax": SoftmaxClassifier(random_state=0),
    "sgd": SoftmaxClassifier(solver="sgd", random_state=0),
    "lasso": SoftmaxClassifier(penalty="l1", alpha="auto", random_state=0),
    "sigmoid": SigmoidClassifier(random_state=0),
    "hinge": HingeClassifier(max_iter=40, random_state=0),
    "least squares": LeastSquaresClassifier(calibration="temperature", alpha=0.0, random_state=0),
    "mlp": MLPClassifierTorch((16,), **NETWORK),
    "ensemble": MLPEnsembleClassifier(3, (16,), **NETWORK | {"max_iter": 15}),
}
LINEAR = [name for name in ESTIMATORS if name not in ("mlp", "ensemble")]
MIXED = 10.0 ** np.array([-150, 150, 0, -100, 100, 20, -20, 3, -3, 50, -50, -75, 75])
DENSE = {
    "1e300": WINE * 1e300,
    "1e-300": WINE * 1e-300,
    "1e150": WINE * 1e150,
    "1e-150": WINE * 1e-150,
    "1e20": WINE * 1e20,
    "mixed": Z * MIXED,
    "far": Z + 1e9,
    "time stamps": np.round(3600 * Z + 1.7e9).astype(np.int64),
    "float32, far": (4 * Z + 4e6).astype(np.float32),
    "float32, huge": (Z * 1e35).astype(np.float32),
    "float32, tiny": (Z * 1e-35).astype(np.float32),
    "float32, mixed": (Z * MIXED**0.2).astype(np.float32),
}


def assert_sound(model, X):
    """All that is predicted is finite, of one mind, and adds up."""
    p, log_p, scores = model.predict_proba(X), model.predict_log_proba(X), model.decision_function(X)
    assert np.isfinite(p).all() and np.isfinite(log_p).all() and np.isfinite(scores).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-4, atol=1e-30)
    np.testing.assert_array_equal(model.classes_[log_p.argmax(1)], model.predict(X))
    np.testing.assert_array_equal(model.classes_[p.argmax(1)], model.predict(X))
    for name, value in vars(model).items():
        parts = value if isinstance(value, list) else [value]
        if name.endswith("_") and all(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in parts):
            assert all(np.isfinite(part).all() for part in parts), name


# ---- scales and means ---------------------------------------------------------------------------------------------


@functools.cache
def accuracy_of_scaled_columns(name, precision):
    return reconfigured(clone(ESTIMATORS[name]), precision=precision).fit(Z, Y).score(Z, Y)


@pytest.mark.parametrize("data", DENSE)
def test_all_data_are_wine_in_other_units(data):
    """So that what is reached on its scaled columns is what can be reached on them."""
    exact = DENSE[data].astype(np.longdouble)
    exact = exact / np.abs(exact).max(0)
    scaled = (exact - exact.mean(0)) / exact.std(0)
    np.testing.assert_allclose(scaled.astype(np.float64), Z, atol=0.15 if DENSE[data].dtype == np.float32 else 1e-3)


@pytest.mark.parametrize(
    ("name", "data", "precision"), covering(ESTIMATORS.keys(), DENSE.keys(), ["float64", "float32"])
)
def test_as_good_as_behind_a_standard_scaler(name, data, precision):
    X, model = DENSE[data], reconfigured(clone(ESTIMATORS[name]), precision=precision)
    reference = accuracy_of_scaled_columns(name, precision)
    if name == "least squares" and "mixed" in data:
        with pytest.raises(ValueError, match=r"column.* would be lost in the rounding of others.*StandardScaler"):
            model.fit(X, Y)
        return
    model.fit(X, Y)
    assert model.score(X, Y) >= reference - 0.012  # two rows
    assert reference > 0.9
    assert_sound(model, X)


@pytest.mark.parametrize("data", ["far", "time stamps", "mixed", "1e300", "float32, far"])
def test_the_optimum_is_that_of_scaled_columns(data):
    """To many digits, with all that is left of X in its dtype."""
    X = DENSE[data]
    scaled = StandardScaler().fit_transform(X.astype(np.float64) / np.abs(X).max(0).astype(np.float64))
    for precision, atol in (("float64", 1e-6), ("float32", 2e-2)):
        options = {"solver": "lbfgs", "tol": 1e-10 if precision == "float64" else 1e-4, "precision": precision}
        ours = configured(SoftmaxClassifier, **options).fit(X, Y).predict_proba(X)
        theirs = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(scaled, Y).predict_proba(scaled)
        np.testing.assert_allclose(ours, theirs, atol=max(atol, 1e-6 if X.dtype == np.float64 else 1e-5))


@pytest.mark.parametrize("n_columns", [1, 2, 4])
def test_products_are_rounded_where_their_sum_is_small(n_columns):
    """Shifts that cancel by chance leave an intercept without rounding, but not the scores."""
    weight = np.tile([[1.0, -1.0]], n_columns)
    size, center = np.ones(2 * n_columns), np.full(2 * n_columns, 2.0**17)
    raw, constant = kept(weight, np.zeros(1), size, center, None, np.dtype(np.float32))
    assert raw.dtype == constant.dtype == np.float64
    near, _ = kept(weight, np.zeros(1), size, center / 2**10, None, np.dtype(np.float32))
    assert near.dtype == np.float32


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("mean", [1e6, 3.5e6])
def test_float32_columns_far_from_zero(name, mean):
    """Coefficients and intercepts on raw columns need more digits than float32 has; those of X are enough."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(2000, 4)) + np.array([mean, 0, 0, 0])).astype(np.float32)
    exact = X.astype(np.float64)
    y = (exact[:, 0] > exact[:, 0].mean()).astype(int)
    model = clone(ESTIMATORS[name]).fit(X, y)
    reference = model if name == "least squares" else LogisticRegression()  # squares are not the best of losses here
    reference = make_pipeline(StandardScaler(), clone(reference)).fit(exact, y)
    assert model.score(X, y) >= reference.score(exact, y) - 0.005
    by_hand = exact @ model.coef_.T.astype(np.float64) + model.intercept_
    np.testing.assert_allclose(model.decision_function(X), by_hand[:, 0], rtol=1e-4, atol=1e-5)
    assert model.decision_function(X).dtype == np.float32
    model.coef_, model.intercept_ = -model.coef_, -model.intercept_  # predictions follow the attributes
    np.testing.assert_allclose(model.decision_function(X), -by_hand[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sparse", "collinear"])
def test_float32_columns_whose_parts_take_each_other_back(kind):
    """A sparse column far from zero does so with the intercept, and a column with another that is almost the same."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(int)
    if kind == "sparse":
        X += [3e5, 0, 0]
    else:
        X[:, 2] = X[:, 1] + 1e-5 * X[:, 0]
        X = X[:, 1:] + [1000.0, 1000.0]
    X = sparse.csr_array(X.astype(np.float32)) if kind == "sparse" else X.astype(np.float32)
    exact = X.toarray().astype(np.float64) if kind == "sparse" else X.astype(np.float64)
    model = SoftmaxClassifier(penalty=None, tol=1e-6).fit(X, y)
    reference = SoftmaxClassifier(penalty=None, tol=1e-6).fit(exact, y)
    scores = reference.decision_function(exact)
    np.testing.assert_allclose(model.decision_function(X), scores, atol=1e-3 * np.abs(scores).max())
    by_hand = exact @ model.coef_[0].astype(np.float64) + model.intercept_
    np.testing.assert_allclose(model.decision_function(X), by_hand, rtol=1e-5, atol=1e-3)
    assert model.decision_function(X).dtype == np.float32


@pytest.mark.parametrize("model", [SoftmaxClassifier(penalty=None, tol=1e-8), LinearRegressor(penalty=None)])
def test_columns_that_differ_by_a_hundredth_are_multiplied_in_double_precision(model):
    """Float32 holds such coefficients, and rounds their products by more than any other runtime may."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    difference = rng.normal(size=600)
    X[:, 1] = X[:, 0] + 0.01 * difference
    values = difference + 0.5 * rng.normal(size=600)
    X = (X - X.mean(0)).astype(np.float32)
    is_classifier = hasattr(model, "predict_proba")
    model.fit(X, (values > 0).astype(int) if is_classifier else values)
    answers = model.predict_proba if is_classifier else model.predict
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(answers(X), answers(X.astype(np.float64)), rtol=0, atol=5e-7)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error"])
def test_float32_columns_of_targets_far_from_zero(loss):
    """What targets differ by counts, and not how far they are from zero, up to the digits of float32."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(80, 2)) + np.array([1e5, 0])).astype(np.float32)
    y = (1000 + 0.1 * (X[:, 0] - 1e5) + 0.03 * rng.normal(size=80)).astype(np.float32)
    model = LinearRegressor(loss, alpha=0.0).fit(X, y)
    by_hand = X.astype(np.float64) @ np.ravel(model.coef_) + model.intercept_
    np.testing.assert_allclose(model.predict(X), by_hand, rtol=0, atol=1e-4)


def test_columns_of_float32_that_are_near_zero_keep_their_dtype():
    model = SoftmaxClassifier().fit(Z.astype(np.float32) + 3, Y)
    assert model.coef_.dtype == model.intercept_.dtype == np.float32


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_time_stamps_that_decide(kind):
    """As many rows as are computed in float32, in which these columns would be one number."""
    rng = np.random.default_rng(0)
    times = rng.integers(0, 3600, 150_000)
    X = np.c_[1_700_000_000 + times, 1000 * rng.normal(size=(len(times), 9))].astype(kind)
    y = (times > 1800).astype(int)
    model = MLPClassifierTorch(max_iter=1, random_state=0).fit(X, y, X_val=X[:1000], y_val=y[:1000])
    assert model.score(X[:20_000], y[:20_000]) > 0.99
    assert model.validation_scores_[-1] > 0.99
    assert model.means_[0] == pytest.approx(X[:, 0].mean(), rel=1e-14)


@pytest.mark.parametrize("options", [{}, {"solver": "sgd"}, {"precision": "float32"}])
@pytest.mark.parametrize("name", LINEAR)
def test_a_column_that_is_constant_up_to_its_last_bit(name, options):
    rng = np.random.default_rng(0)
    tenth = np.float32(0.1)
    noise = np.where(rng.random(400) < 0.5, tenth, np.nextafter(tenth, np.float32(1)))
    X = np.c_[rng.normal(size=(400, 2)), noise].astype(np.float32)
    options = {} if name == "least squares" and "solver" in options else options
    model = reconfigured(clone(ESTIMATORS[name]), **options)
    if name == "least squares":
        model.set_params(alpha=1e-4)
    model.fit(X, (X[:, 0] > 0).astype(int))
    assert np.abs(model.coef_).max() < 100
    assert model.score(X, (X[:, 0] > 0).astype(int)) > 0.95


@pytest.mark.parametrize(
    ("name", "factor", "precision"), covering(ESTIMATORS.keys(), [1e300, 1e20, 1e-20, 1e-150], ["float64", "float32"])
)
def test_sparse_columns(name, factor, precision):
    """Raw columns are what a given penalty speaks of where X is sparse: it may leave nothing of tiny ones."""
    X = np.where(Z > 0, Z, 0)
    model = reconfigured(clone(ESTIMATORS[name]), precision=precision)
    if name in LINEAR and name != "least squares" and factor < 1:
        with pytest.raises(ValueError, match=r"alpha, leaves nothing of columns 0, 1.*MaxAbsScaler"):
            clone(model).set_params(alpha=1e-3).fit(sparse.csr_array(X * factor), Y)
    model.fit(sparse.csr_array(X * factor), Y)
    assert model.score(sparse.csr_array(X * factor), Y) >= 0.9
    assert_sound(model, sparse.csr_array(X * factor))


def test_a_penalty_that_leaves_nothing_is_an_error():
    for estimator in (LeastSquaresClassifier(), SoftmaxClassifier(alpha=1e-4), HingeClassifier(alpha=1e-4)):
        with pytest.raises(
            ValueError, match=r"alpha, leaves nothing of columns 0, 1, 2, 3, 4, \.\.\. .*StandardScaler"
        ):
            estimator.fit(Z * 1e-150, Y)
        one = Z.copy()
        one[:, 3] *= 1e-30
        with pytest.raises(ValueError, match="leaves nothing of column 3 "):
            estimator.fit(one, Y)


RAW = {
    "softmax": SoftmaxClassifier(solver="sgd"),
    "softmax, exact": SoftmaxClassifier(solver="lbfgs"),
    "sigmoid": SigmoidClassifier(),
    "hinge": HingeClassifier(),
    "least squares": LeastSquaresClassifier(solver="adam"),
    "mlp": MLPClassifierTorch((4,)),
    "ensemble": MLPEnsembleClassifier(2, (4,)),
}


@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_array, torch.from_numpy, pd.DataFrame], ids=lambda k: k.__name__
)
@pytest.mark.parametrize("name", RAW)
def test_raw_columns_that_suit_no_step_give_a_warning(name, kind, recwarn):
    X = StandardScaler().fit_transform(WINE[:, :4])
    model = clone(RAW[name]).set_params(standardize=False, max_iter=1)
    warnings.simplefilter("always")  # not once for each line

    def warned():
        found = [w for w in recwarn if "standardize=False trains on the columns of X as they are" in str(w.message)]
        recwarn.clear()
        assert {w.filename for w in found} <= {__file__}
        return [re.search(r"of which some (.*?) \(counted", str(w.message))[1] for w in found]

    some = X * [1.0, 1.0, 1e5, 1.0]
    model.fit(kind(some), Y)
    assert warned() == ["have values beyond 10000: column 2"]
    for factor in (1e-150, 1e-20, 1e-4):
        model.fit(kind(X * factor), Y)
        assert warned() == ["vary by less than 0.01: columns 0, 1, 2, 3"]
    model.fit(kind(X * [1e-4, 1.0, 0.0, 300.0]), Y)  # others can be learnt from
    model.fit(kind(X[:, :3] / 2), Y)
    clone(model).set_params(standardize=True, alpha=0.0, max_iter=1).fit(kind(some), Y)
    assert not warned()
    model.fit(kind(np.vstack([X, 1e9 + X])), np.r_[Y, Y], np.r_[np.ones(len(Y)), np.zeros(len(Y))])
    assert not warned()  # rows without weight do not count


def test_a_solution_in_closed_form_takes_no_steps(recwarn):
    LeastSquaresClassifier(standardize=False).fit(WINE * [1e5] * 13, Y)
    assert not [w for w in recwarn if "standardize" in str(w.message)]


@pytest.mark.parametrize("size", [1e6, 1e12, 1e40])
@pytest.mark.parametrize(
    "model", [SoftmaxClassifier(), HingeClassifier(loss="squared_hinge", calibration=None)], ids=repr
)
def test_newton_counts_a_small_column_beside_a_huge_one(model, size):
    """The same objective, in raw columns and in scaled ones: without a unit of its own, the intercept never moved."""
    X = WINE * np.r_[size, np.ones(12)]
    model = clone(model).set_params(solver="lbfgs", alpha=0.01, tol=1e-9, max_iter=1000)
    scaled = clone(model).fit(X, Y)
    with pytest.warns(UserWarning, match="standardize=False trains on the columns of X as they are"):
        raw = clone(model).set_params(standardize=False).fit(X, Y)
    raw, scaled = (m.decision_function(X) for m in (raw, scaled))  # but for a common shift of a row's scores
    np.testing.assert_allclose(raw - raw.mean(1, keepdims=True), scaled - scaled.mean(1, keepdims=True), atol=1e-4)


def test_a_module_whose_columns_vanish_in_its_dtype():
    def make(n_features, n_outputs):
        return torch.nn.Linear(n_features, n_outputs)

    for X in (Z * 1e-150, sparse.csr_array(Z * 1e-150), torch.from_numpy(Z * 1e-150)):
        with pytest.raises(
            ValueError, match=r"X has no value that torch.float32 can tell from zero.*precision='float64'"
        ):
            TorchClassifier(make, max_iter=1).fit(X, Y)
        TorchClassifier(make, max_iter=1, precision="float64").fit(X, Y)
    model = TorchClassifier(make, max_iter=1).fit(Z, Y)
    assert len(model.predict(Z[:3] * 1e-150)) == 3  # there, they are next to zero


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_raw_columns_that_overflow_are_an_error(precision):
    for estimator in (SoftmaxClassifier(solver=SGD(learning_rate_init=0.1)), MLPClassifierTorch()):
        reconfigured(estimator, standardize=False, precision=precision)
        diverges = pytest.raises(ValueError, match="Training diverged")
        with diverges, pytest.warns(UserWarning, match="standardize=False trains on the columns of X as they are"):
            estimator.fit(WINE * 1e300, Y)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_rows_far_from_all_that_was_learnt(name, kind):
    """Finite probabilities that add up, or an error that names the row."""
    model = clone(ESTIMATORS[name]).fit(WINE.astype(kind), Y)
    row = WINE[:1].astype(kind)
    for value in (1e30, np.finfo(kind).max / 2):
        X = np.vstack([row, np.where(np.arange(13) < 3, kind(value), row)])
        try:
            p = model.predict_proba(X)
        except ValueError as error:
            assert "scores of row 1" in str(error)
        else:
            assert np.isfinite(p).all()
            np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
            assert np.isfinite(model.predict_log_proba(X)).all()


def test_warm_starts_go_on_in_the_same_columns():
    X = DENSE["time stamps"]
    for estimator in (SoftmaxClassifier(solver="sgd"), MLPClassifierTorch((8,), tol=0, learning_rate="constant")):
        reconfigured(estimator, precision="float32", warm_start=True, random_state=0, max_iter=3)
        before = estimator.fit(X, Y).decision_function(X)
        reconfigured(estimator, learning_rate_init=1e-12, max_iter=1).fit(X, Y)
        np.testing.assert_allclose(estimator.decision_function(X), before, atol=1e-3)
        reconfigured(estimator, learning_rate_init=0.01).partial_fit(X, Y)
        assert np.isfinite(estimator.decision_function(X)).all()


def test_early_stopping_and_calibration_see_the_same_columns():
    X = DENSE["time stamps"]
    for name in ("softmax", "mlp"):
        model = reconfigured(clone(ESTIMATORS[name]), early_stopping=True, calibration="sigmoid", precision="float32")
        model.fit(X, Y)
        assert max(model.validation_scores_) > 0.9
        assert model.score(X, Y) > 0.9
        assert_sound(model, X)


def test_callbacks_meet_the_users_columns():
    from skorch.callbacks import Callback

    seen = {}

    class Look(Callback):
        def on_batch_end(self, net, batch=None, training=None, **kwargs):
            seen["batch"] = np.asarray(batch[0])

        def on_train_end(self, net, X=None, y=None, **kwargs):
            seen["scores"] = net.module_(torch.from_numpy(X)).detach().numpy()

    X = DENSE["time stamps"].astype(np.float64)
    model = MLPClassifierTorch((8,), callbacks=[Look()], precision="float32", batch_size=178, max_iter=2).fit(X, Y)
    np.testing.assert_allclose(seen["scores"], model.decision_function(X), atol=1e-4)
    np.testing.assert_allclose(np.sort(seen["batch"], 0), np.sort(X, 0), atol=0.01)


# ---- statistics ---------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([np.float64, np.float32]),
    st.integers(-300, 300),
    st.floats(0, 1e6),
    st.integers(0, 2**32 - 1),
)
def test_statistics_are_those_of_longdouble(kind, exponent, mean, seed):
    rng = np.random.default_rng(seed)
    exponent = exponent if kind is np.float64 else exponent // 10
    values = ((rng.normal(size=(2100, 2)) + np.array([mean, -mean])) * 10.0**exponent).astype(kind)
    weight = rng.uniform(0, 2, 2100)
    rows = DenseRows(torch.from_numpy(values), CPU, torch.float32)
    columns = Columns.measure(rows, None, weight)
    exact, share = values.astype(np.longdouble), (weight / weight.sum())[:, None].astype(np.longdouble)
    center = (share * exact).sum(0)
    spread = np.sqrt((share * (exact - center) ** 2).sum(0))
    eps = np.finfo(kind).eps
    assert (np.abs(columns.mean - center) <= 100 * eps * spread + 4e-16 * np.abs(center)).all()
    np.testing.assert_allclose(columns.deviation, spread.astype(float), rtol=1e4 * eps + 1e-15 * mean)


def test_statistics_where_values_are_missing_and_sums_overflow():
    values = np.array([[1.7e308, np.nan, np.nan], [1.7e308, 1e-300, np.nan], [-1.7e308, 3e-300, np.nan]])
    columns = Columns.measure(DenseRows(torch.from_numpy(values), CPU, torch.float32), None, None)
    np.testing.assert_allclose(columns.mean, [1.7e308 / 3, 2e-300, 0])
    np.testing.assert_allclose(columns.deviation, [1.7e308 * np.sqrt(8 / 9), 1e-300, 0])
    np.testing.assert_array_equal(columns.weight, [3, 2, 0])
    sparse_rows = SparseRows(sparse.csr_array(np.nan_to_num(values)), CPU, torch.float32)
    np.testing.assert_array_equal(Columns.measure(sparse_rows, None, None).largest, [1.7e308, 3e-300, 0])


def test_columns_that_nothing_is_lost_of_have_no_frame():
    def frames(values):
        columns = Columns.measure(DenseRows(torch.from_numpy(values), CPU, torch.float32), None, None)
        (sizes,), _ = sizes_of([columns], centered=True)
        return [columns.frame(dtype, sizes, True) for dtype in (torch.float32, torch.float64)]

    assert frames(np.c_[WINE, np.zeros(len(WINE)), np.full(len(WINE), 255.0)]) == [None, None]
    of_single, of_double = frames(Z + 1e5)
    assert of_single is not None and of_double is None


# ---- columns without values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "lbfgs"}, {"normalization": "batch"}, {"precision": "float32"}, {"calibration": "temperature"}],
    ids=["adam", "lbfgs", "batch", "float32", "calibrated"],
)
@pytest.mark.parametrize("name", ["mlp", "ensemble"])
def test_a_column_that_is_never_known_has_no_influence(name, options):
    X = WINE.copy()
    X[:, 2], X[::7, 4] = np.nan, np.nan
    model = reconfigured(clone(ESTIMATORS[name]), **options).fit(X, Y)
    filled = X.copy()
    filled[:, 2] = np.random.default_rng(0).normal(scale=1e3, size=len(X))
    np.testing.assert_array_equal(model.predict_proba(filled), model.predict_proba(X))
    assert model.score(X, Y) > 0.9
    if name == "mlp":
        np.testing.assert_array_equal(model.coefs_[0][[2, 13]], 0)
        assert (model.coefs_[0][14] != 0).any()


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", ["mlp", "ensemble"])
def test_a_column_that_never_varied_has_no_influence(name, kind):
    """As in a linear model: no row has trained its weights, and nothing is known of its unit."""
    X = np.where(Z > 0, Z, 0)
    X[:, 2] = 0
    model = clone(ESTIMATORS[name]).fit(kind(X), Y)
    other = X.copy()
    other[:, 2] = np.random.default_rng(0).normal(scale=1e60, size=len(X))
    np.testing.assert_allclose(model.predict_proba(kind(other)), model.predict_proba(kind(X)), atol=1e-12)
    assert model.score(kind(X), Y) > 0.9


def test_a_column_that_no_longer_varies_keeps_what_was_learnt_of_it():
    model = clone(ESTIMATORS["mlp"]).set_params(warm_start=True).fit(Z, Y)
    known, X = model.coefs_[0][0], Z.copy()
    X[:, 0] = 1.5
    reconfigured(model, max_iter=1, learning_rate_init=1e-6).fit(X, Y)
    np.testing.assert_allclose(model.coefs_[0][0], known, rtol=1e-3)


@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
def test_scores_of_a_fold_that_overflow_are_an_error(calibration):
    """A row so far from all others that only the model that has seen it has a number for it."""
    X = Z * 1e-30
    X[0] = 1e30
    params = {"max_iter": 2, "learning_rate_init": 0.003, "precision": "float32"}
    model = MLPClassifierTorch((8,), calibration=calibration, random_state=0, **params)
    with pytest.raises(ValueError, match=r"in a fold model of the calibration, scores of rows .* overflow"):
        model.fit(X, Y)


def test_a_column_whose_values_come_later_is_learnt_then():
    X = Z.copy()
    X[:, 0] = np.nan
    model = MLPClassifierTorch((8,), random_state=0).partial_fit(X, Y, classes=np.unique(Y))
    model.partial_fit(Z, Y)
    assert (model.coefs_[0][0] != 0).any() and np.isfinite(model.predict_proba(X)).all()


# ---- log-probabilities --------------------------------------------------------------------------------------------

SCORES = st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3)


def exact_logs(scores, link):
    """With fifty digits, or as many as it takes."""
    with mpmath.workdps(50):
        s = [mpmath.mpf(value) for value in scores]
        if link == "softmax":
            top = max(s)
            total = top + mpmath.log(sum(mpmath.exp(v - top) for v in s))
            return [float(v - total) for v in s]
        logs = [-mpmath.log1p(mpmath.exp(-v)) if v > 0 else v - mpmath.log1p(mpmath.exp(v)) for v in s]
        return exact_logs(logs, "softmax")


@given(SCORES)
def test_logarithms_are_those_of_many_digits(scores):
    tensor = torch.tensor([scores], dtype=torch.float64)
    for name, link in (("log_loss", "softmax"), ("binary_log_loss", "sigmoid")):
        found = LOSSES[name]().log_probabilities(tensor)[0]
        np.testing.assert_allclose(found, exact_logs(scores, link), rtol=1e-9, atol=1e-11)
        smooth = smoothed(LOSSES[name](), 0.1).log_probabilities(tensor)[0]
        np.testing.assert_array_equal(smooth, found)
        np.testing.assert_allclose(found.exp(), LOSSES[name]().probabilities(tensor)[0], rtol=1e-10, atol=1e-300)


class Fixed:
    """The estimator of these scores, whatever it is asked."""

    def __init__(self, estimator, scores):
        self.answers = Answers(estimator, torch.as_tensor(scores), link_of(estimator))
        self.X = np.empty((len(scores), 0))

    def __getattr__(self, name):
        return lambda: getattr(self.answers, name)(self.X)


LINKS = {
    "softmax": SoftmaxClassifier(),
    "one vs rest": SigmoidClassifier(),
    "temperature": HingeClassifier(calibration="temperature"),
    "sigmoid": HingeClassifier(calibration="sigmoid"),
    "mlp": MLPClassifierTorch((), max_iter=1),
}


def fixed(link, classes, scores, temperature=1.0):
    estimator = clone(LINKS[link])
    estimator.classes_, estimator.n_outputs_ = np.arange(classes), 1 if classes == 2 else classes
    estimator.temperature_ = temperature
    if estimator.calibration == "sigmoid":  # whose slopes are in the scores already
        estimator.calibration_slopes_ = np.ones(estimator.n_outputs_)
    return Fixed(estimator, scores)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("link", LINKS)
def test_certainty_has_a_logarithm(link, dtype):
    three = fixed(link, 3, np.array([[0, -8823, -1]], dtype)).predict_log_proba()
    expected = exact_logs([0, -8823, -1], "softmax" if link in ("softmax", "temperature", "mlp") else "sigmoid")
    np.testing.assert_allclose(three[0], expected, rtol=1e-6)
    two = fixed(link, 2, np.array([[-8823.0], [8823.0]], dtype)).predict_log_proba()
    np.testing.assert_allclose(two, [[0, -8823], [-8823, 0]], atol=1e-30)


@given(
    st.sampled_from(list(LINKS)),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    st.sampled_from([np.float64, np.float32]),
    st.sampled_from([1.0, 1e-6, 37.0]),
)
def test_logarithms_of_any_finite_scores(link, scores, dtype, temperature):
    for classes, table in ((3, [scores]), (2, [[s] for s in scores])):
        given_scores = np.array(table, dtype)
        model = fixed(link, classes, given_scores, temperature)
        log_p, p = model.predict_log_proba(), model.predict_proba()
        assert np.isfinite(log_p).all() and (log_p <= np.finfo(dtype).eps).all()
        np.testing.assert_array_equal(log_p.argmax(1), model.predict())
        np.testing.assert_array_equal(p.argmax(1), model.predict())
        np.testing.assert_allclose(np.exp(log_p), p, rtol=1e-4, atol=1e-30)


@given(st.lists(st.floats(-1e5, 1e5), min_size=3, max_size=3))
def test_logarithms_of_labels(scores):
    estimator = SigmoidClassifier()
    estimator.classes_, estimator.n_outputs_, estimator._target_is_multilabel = np.arange(3), 3, True
    model = Fixed(estimator, np.array([scores]))
    log_p = model.predict_log_proba()[0]
    with mpmath.workdps(50):
        expected = [float(-mpmath.log1p(mpmath.exp(-mpmath.mpf(s)))) for s in scores]
    np.testing.assert_allclose(log_p, expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_array_equal(log_p > np.log(0.5), model.predict()[0] == 1)


def test_logarithms_of_a_mixture():
    """An ensemble's, from the scores of its members: the mean of probabilities that are no numbers."""
    scores = torch.tensor([[[0.0, -2000.0, -1000.0]], [[0.0, -3000.0, -1001.0]]], dtype=torch.float64)
    model = MLPEnsembleClassifier(2)
    model.out_activation_, model.temperature_ = "softmax", 1.0
    model.classes_, model.n_outputs_ = np.arange(3), 3
    found = Fixed(model, model._combined(scores)).predict_log_proba()[0]
    with mpmath.workdps(2000):
        mean = [(mpmath.exp(a) + mpmath.exp(b)) / 2 for a, b in zip(*scores[:, 0].tolist(), strict=True)]
        expected = [float(mpmath.log(value / sum(mean))) for value in mean]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
