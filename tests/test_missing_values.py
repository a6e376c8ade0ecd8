"""Missing values in MLPClassifierTorch: means and indicators, as columns prepared by hand."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from helpers import reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skdeep import MLPClassifierTorch, SoftmaxClassifier
from skdeep.data.columns import Columns, sizes_of
from skdeep.engine.rows import DenseRows
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

FULL, Y = load_wine(return_X_y=True)
RNG = np.random.default_rng(0)
WEIGHT = RNG.uniform(0.5, 2, len(Y))
X = np.where(RNG.random(FULL.shape) < 0.2, np.nan, FULL)
X[:, 3:6] = FULL[:, 3:6]
INDICATED = [0, 1, 2, *range(6, 13)]
BASE = MLPClassifierTorch((8, 8), batch_size=50, max_iter=15, learning_rate_init=0.01, alpha=0.05, random_state=0)


def mlp(**options):
    return reconfigured(clone(BASE), **options)


def prepared(data, weight=None):
    """Standardised columns with zeros for what is missing, and indicators, whose size is a half at least."""
    weight = np.ones(len(X)) if weight is None else weight
    known = ~np.isnan(X) * weight[:, None]
    mean = np.nansum(X * weight[:, None], 0) / known.sum(0)
    scale = np.sqrt(np.nansum((X - mean) ** 2 * weight[:, None], 0) / known.sum(0))
    share = (np.isnan(X) * weight[:, None]).sum(0)[INDICATED] / weight.sum()
    indicators = (np.isnan(data)[:, INDICATED] - share) / np.maximum(np.sqrt(share * (1 - share)), 0.5)
    return np.hstack([np.nan_to_num((data - mean) / scale), indicators])


@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "lbfgs"}, {"normalization": "batch"}, {"hidden_layer_sizes": (), "alpha": 1.0}],
    ids=["adam", "lbfgs", "batch", "softmax"],
)
def test_columns_prepared_by_hand(options):
    model = mlp(**options).fit(X, Y, WEIGHT, X_val=X[::3], y_val=Y[::3])
    Z = prepared(X, WEIGHT)
    reference = mlp(standardize=False, **options).fit(Z, Y, WEIGHT, X_val=Z[::3], y_val=Y[::3])
    np.testing.assert_allclose(model.decision_function(X), reference.decision_function(Z), atol=1e-9)
    np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(model.validation_loss_curve_, reference.validation_loss_curve_, rtol=1e-9)
    assert model.coefs_[0].shape[0] == 13 + len(INDICATED)
    np.testing.assert_array_equal(model.missing_features_, INDICATED)
    np.testing.assert_allclose(model.means_[3:6], np.average(FULL[:, 3:6], axis=0, weights=WEIGHT))
    assert model.n_features_in_ == 13


def test_predictions_by_the_fitted_attributes():
    model = mlp(hidden_layer_sizes=()).fit(X, Y)
    data = X.copy()
    data[:5, 4] = np.nan  # a column that had none in training: its mean
    filled = np.where(np.isnan(data), model.means_, data)
    columns = np.hstack([filled, np.isnan(data)[:, model.missing_features_]])
    expected = columns @ model.coefs_[0] + model.intercepts_[0]
    np.testing.assert_allclose(model.decision_function(data), expected, atol=1e-9)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(data), model.predict_proba(data))


def test_what_is_missing_tells_something():
    rng = np.random.default_rng(0)
    data, y = rng.normal(size=(400, 3)), rng.integers(0, 2, 400)
    data[(y == 1) & (rng.random(400) < 0.9), 1] = np.nan
    assert mlp(max_iter=60).fit(data, y).score(data, y) > 0.9


def test_nothing_is_missing_or_everything():
    whole = mlp().fit(FULL, Y)
    assert len(whole.missing_features_) == 0
    assert whole.coefs_[0].shape == (13, 8)
    empty = FULL.copy()
    empty[:, 2] = np.nan
    model = mlp(max_iter=60).fit(empty, Y)
    assert np.isfinite(model.predict_proba(np.full((2, 13), np.nan))).all()
    assert model.score(empty, Y) > 0.9
    np.testing.assert_array_equal(model.missing_features_, [2])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_other_dtypes(dtype):
    model = mlp(max_iter=60).fit(X.astype(dtype), Y)
    assert model.means_.dtype == model.coefs_[0].dtype == np.float32
    assert model.score(X.astype(dtype), Y) > 0.9


def test_weights_are_repetitions():
    """Rows of no weight give no indicator; early stopping splits them alike."""
    data = X.copy()
    repeats = RNG.integers(0, 3, len(Y))
    data[repeats == 0, 4] = np.nan
    index = np.repeat(np.arange(len(Y)), repeats)
    for options in ({"batch_size": 1000}, {"batch_size": 1000, "early_stopping": True, "validation_fraction": 0.3}):
        weighted = mlp(**options).fit(data, Y, sample_weight=repeats)
        repeated = mlp(**options).fit(data[index], Y[index])
        np.testing.assert_array_equal(weighted.missing_features_, INDICATED)
        np.testing.assert_allclose(weighted.decision_function(X), repeated.decision_function(X), atol=1e-9)


def test_every_nan_is_the_same_value():
    """Rows are split by their content, in which NaN has many spellings."""
    odd = np.where(np.isnan(X), -np.float64(np.nan), X)
    options = {"early_stopping": True, "max_iter": 5}
    np.testing.assert_array_equal(mlp(**options).fit(X, Y).coefs_[0], mlp(**options).fit(odd, Y).coefs_[0])


def test_partial_fit_and_warm_start_go_on():
    steps = {"tol": 0, "learning_rate": "constant"}
    whole = mlp(max_iter=8, **steps).fit(X, Y)
    halves = mlp(max_iter=4, warm_start=True, **steps).fit(X, Y).fit(X, Y)
    np.testing.assert_allclose(halves.decision_function(X), whole.decision_function(X), atol=1e-9)
    model = mlp().partial_fit(FULL[:100], Y[:100], classes=np.unique(Y))
    model = pickle.loads(pickle.dumps(model)).partial_fit(X, Y)  # means, and no indicators: the first call had none
    assert model.coefs_[0].shape == (13, 8)
    both = np.vstack([FULL[:100], X])
    np.testing.assert_allclose(model.means_, np.nanmean(both, 0))
    first = mlp().partial_fit(X, Y, classes=np.unique(Y))
    assert first.partial_fit(FULL[:100], Y[:100]).coefs_[0].shape == (23, 8)
    first.partial_fit(sparse.csr_array(FULL), Y)
    dense, sparsely = first.decision_function(FULL), first.decision_function(sparse.csr_array(FULL))
    np.testing.assert_allclose(dense, sparsely, atol=1e-8)


def test_columns_as_they_are():
    """Centred where values are missing, so that these are means; their scale is left alone."""
    means, indicators = np.nanmean(X, 0), np.isnan(X)[:, INDICATED]
    by_hand = np.hstack([np.nan_to_num(X - means), indicators])
    model = mlp(standardize=False).fit(X, Y)
    reference = mlp(standardize=False).fit(by_hand, Y)
    np.testing.assert_allclose(model.decision_function(X), reference.decision_function(by_hand), atol=1e-9)
    np.testing.assert_allclose(model.means_, means)
    np.testing.assert_array_equal(model.missing_features_, INDICATED)
    data = X.copy()
    data[:5, 4] = np.nan  # a column that had none in training: its mean
    filled = np.where(np.isnan(data), means, data)
    filled[:, INDICATED] = data[:, INDICATED]
    np.testing.assert_allclose(model.decision_function(data), model.decision_function(filled), atol=1e-9)
    assert len(pickle.loads(pickle.dumps(model)).partial_fit(FULL, Y).missing_features_) == len(INDICATED)


def test_what_has_no_means_is_an_error():
    model = mlp(standardize=False).fit(FULL, Y)
    for use in (model.predict, lambda data: model.partial_fit(data, Y)):
        with pytest.raises(ValueError, match=r"(?s)contains NaN.*dense X, with standardize=True"):
            use(X)
    with pytest.raises(ValueError, match=r"(?s)X_val contains NaN, and X does not.*standardize=True"):
        mlp(standardize=False).fit(FULL, Y, X_val=X, y_val=Y)
    for given in ({"sample_weight": np.where(np.isnan(X).any(1), 0.0, 1.0)}, {"X_val": X, "y_val": Y}):
        model = mlp(standardize=False).fit(X, Y, **given)  # also where only rows without weight are incomplete
        assert np.isfinite(model.predict_proba(X)).all() and np.isfinite(model.loss_)
    assert mlp(standardize=False, warm_start=True).fit(FULL, Y).fit(FULL, Y).set_params(warm_start=False).fit(X, Y)
    with pytest.raises(ValueError, match=r"(?s)contains NaN.*dense X, with standardize=True"):
        mlp().fit(sparse.csr_array(X), Y)
    with pytest.raises(ValueError, match="infinity"):
        mlp().fit(np.where(np.isnan(X), np.inf, X), Y)
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxClassifier().fit(X, Y)
    model = mlp(warm_start=True).fit(X, Y)
    assert model.set_params(standardize=False).fit(X, Y).coefs_[0].shape[0] == 13 + len(INDICATED)
    switched = mlp(warm_start=True).fit(FULL, Y)
    switched.set_params(standardize=False).fit(FULL, Y)
    assert not hasattr(switched, "means_")


def test_the_tag():
    for standardize in (True, False):
        assert mlp(standardize=standardize).__sklearn_tags__().input_tags.allow_nan
    assert not mlp(standardize=False).fit(FULL, Y).__sklearn_tags__().input_tags.allow_nan
    assert not SoftmaxClassifier().__sklearn_tags__().input_tags.allow_nan


@pytest.mark.slow
def test_members_of_a_stack_and_of_a_search():
    options = [{}, {"alpha": 10.0}, {"class_weight": {0: 5.0}}]
    members = [mlp(calibration="temperature", **own) for own in options]
    assert fit_stack(members, X, Y) == [None] * len(members)
    for member in members:
        alone = clone(member).fit(X, Y)
        np.testing.assert_allclose(member.decision_function(X), alone.decision_function(X), atol=1e-9)
        np.testing.assert_allclose(member.temperature_, alone.temperature_, rtol=1e-7)
    search = GridSearchCV(mlp(), {"alpha": [1e-4, 1.0]}, cv=3, error_score="raise").fit(X, Y)
    theirs = sklearn.model_selection.GridSearchCV(mlp(), {"alpha": [1e-4, 1.0]}, cv=3, error_score="raise").fit(X, Y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])


def test_tensors():
    data = torch.from_numpy(X)
    model, reference = mlp().fit(data, torch.from_numpy(Y)), mlp().fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(data), reference.predict_proba(X))
    with sklearn.config_context(array_api_dispatch=True):
        spread = mlp().fit(data, torch.from_numpy(Y))
        proba = spread.predict_proba(data)
        assert isinstance(proba, torch.Tensor) and isinstance(spread.means_, torch.Tensor)
    np.testing.assert_allclose(proba.numpy(), reference.predict_proba(X))


def test_categories_of_a_data_frame():
    """The recipe of the README: one-hot categories (unknown ones are zeros), numbers as they come, NaN among them."""
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], 300)
    frame = pd.DataFrame(
        {
            "job": np.where(y == "yes", rng.choice(["clerk", "nurse"], 300), rng.choice(["cook", "clerk"], 300)),
            "age": rng.integers(18, 80, 300).astype(float),
            "income": 1e4 * rng.normal(size=300) + 2e4 * (y == "yes"),
        }
    )
    frame.loc[::7, "age"] = np.nan
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((one_hot, ["job"]), remainder="passthrough")
    model = make_pipeline(columns, mlp(max_iter=60)).fit(frame, y)
    assert model.score(frame, y) > 0.85
    new = frame.head(3).assign(job="pilot", income=np.nan)
    assert np.isfinite(model.predict_proba(new)).all()
    numbers = mlp(max_iter=60).fit(frame[["age", "income"]], y)
    assert list(numbers.feature_names_in_) == ["age", "income"]
    assert model.score(frame, y) > numbers.score(frame[["age", "income"]], y)


def test_indicators_of_columns_that_are_whole_in_some_rows():
    """Where a column has no missing values, its indicator is exactly constant, whatever the weights add up to."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((29, 3))
    values[0, 0] = np.nan
    values[20, 1] = np.nan
    columns = Columns.measure(
        DenseRows(torch.from_numpy(values), torch.device("cpu"), torch.float64), np.arange(20), generator.random(29)
    )
    indicators = columns.indicators(np.arange(3))
    assert indicators.deviation[0] > 0 and indicators.mean[0] > 0
    np.testing.assert_array_equal(indicators.mean[1:], 0)
    (sizes,), _ = sizes_of([indicators], centered=True)
    np.testing.assert_array_equal(sizes, [indicators.deviation[0], 1, 1])
