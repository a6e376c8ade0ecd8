"""Bad input is refused before any training, with a message that helps; what was learnt before stays as it was."""

import copy
import functools
import math
import re
import signal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from helpers import (
    CANCER,
    CANCER_Y,
    ESTIMATORS,
    INCREMENTAL,
    IRIS,
    IRIS_Y,
    each_estimator,
    in_one_test,
    maker,
    parameters,
    reconfigured,
)
from scipy import sparse
from sklearn import config_context
from sklearn.callback import FitCallback
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skdeep import SGD, Adam, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.engine.batching import Batches
from skdeep.exact.rows import Rows

X, Y = IRIS, IRIS_Y
N, D = X.shape
FRAME = pd.DataFrame(X, columns=list("abcd"))


make = maker(
    {"max_iter": 5, "batch_size": 40, "random_state": 0, "device": "cpu"},
    # in standardised columns, a missing value is no error: see test_missing_values.py
    network={"hidden_layer_sizes": (5,), "learning_rate_init": 0.02, "standardize": False},
)


def incremental(cls, **params):
    return make(cls, **INCREMENTAL.get(cls, {}) | params)


def smooth(cls, **params):
    """An objective that L-BFGS can minimise."""
    return make(cls, **({"loss": "squared_hinge"} if cls is HingeClassifier else {}), solver="lbfgs", **params)


def frozen(value):
    """Something that compares equal only to what holds the same."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, np.random.Generator):
        return frozen(value.bit_generator.state)
    if isinstance(value, dict):
        return ("dict", *((key, frozen(part)) for key, part in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(frozen, value))
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, type):
        return (type(value).__name__, frozen(vars(value)))
    return repr(value)


@pytest.fixture
def no_training(monkeypatch):
    """Fails the test if an epoch begins."""

    def epoch(self, *args):
        raise AssertionError("training began")

    monkeypatch.setattr(Batches, "epoch", epoch)
    monkeypatch.setattr(Rows, "scores", lambda rows, params: epoch(rows))


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@each_estimator
def test_training_is_noticed(cls, solver, no_training):
    params = {"loss": "squared_hinge"} if cls is HingeClassifier else {}
    with pytest.raises(AssertionError, match="training began"):
        make(cls, solver=solver, **params).fit(X, Y)


def refuses(model, call, error, match, but=()):
    """Check that `call(model)` raises, and that the model, fitted or not, is then what it was before.

    ``but`` names attributes with a life of their own: a scorer or a callback that counts its calls.
    """

    def state():
        return frozen({name: value for name, value in vars(model).items() if name not in but})

    def predictions():
        return copy.copy(model).set_params(device="cpu").predict(X) if hasattr(model, "classes_") else None

    before, predicted = state(), predictions()
    with pytest.raises(error, match=match):
        call(model)
    assert state() == before
    np.testing.assert_array_equal(predictions(), predicted)


EPOCH, SCORES_OF_ROWS = Batches.epoch, Rows.scores


@functools.cache
def already_fitted(cls):
    epoch, Batches.epoch = Batches.epoch, EPOCH
    scores, Rows.scores = Rows.scores, SCORES_OF_ROWS
    model = make(cls).fit(X, Y)
    Batches.epoch, Rows.scores = epoch, scores
    return model


def fitted(cls, **params):
    """A model that was fitted before its parameters were set to these."""
    return reconfigured(copy.deepcopy(already_fitted(cls)), **params)


@pytest.fixture(params=["new", "fitted"])
def model_of(request):
    """Makes a model of a class: new, or fitted already."""
    return make if request.param == "new" else fitted


def with_value(value, at=(3, 1), X=X):
    X = X.copy()
    X[at] = value
    return X


# ---- features --------------------------------------------------------------------------------------------------------

OBJECTS = np.array([["red", 1.0, 2.0, 3.0]] * N, dtype=object)
BAD_X = {
    "nan": (with_value(np.nan), "NaN"),
    "inf": (with_value(np.inf), "infinity"),
    "-inf": (with_value(-np.inf), "infinity"),
    "nan in float32": (with_value(np.nan).astype(np.float32), "NaN"),
    "inf in float16": (with_value(np.inf).astype(np.float16), "infinity"),
    "nan in a frame": (pd.DataFrame(with_value(np.nan)), "NaN"),
    "missing in a nullable column": (FRAME.astype("Float64").mask(FRAME > 7.5), "NaN"),
    "null in polars": (pl.DataFrame([[None, *X[1:, 0]], *X[:, 1:].T], schema=list("abcd")), "NaN"),
    "nan in sparse": (sparse.csr_array(with_value(np.nan)), "NaN"),
    "inf in CSC": (sparse.csc_array(with_value(np.inf)), "infinity"),
    "nan in a tensor": (torch.tensor(with_value(np.nan)), "NaN"),
    "inf in bfloat16": (torch.tensor(with_value(np.inf)).bfloat16(), "infinity"),
    "nan in an object": (with_value(None, X=X.astype(object)), "NaN"),
    "complex": (X + 1j, "Complex data not supported"),
    "complex tensor": (torch.tensor(X + 1j), "Complex data not supported"),
    "complex sparse": (sparse.csr_array(X + 1j), "Complex data not supported"),
    "words among objects": (OBJECTS, "could not convert string to float: 'red'"),
    "words in a frame": (FRAME.assign(a="red"), "could not convert string to float: 'red'"),
    "words in polars": (pl.DataFrame(FRAME.assign(a="red").to_dict("list")), "could not convert string to float"),
    "strings": (np.full((N, D), "red"), "could not convert string|not compatible with arrays of bytes/strings"),
    "1d": (X[:, 0], "Expected 2D array, got 1D array instead"),
    "3d": (X.reshape(N, 2, 2), "Found array with dim 3"),
    "3d tensor": (torch.tensor(X.reshape(N, 2, 2)), "Found array with dim 3"),
    "ragged": ([[1.0, 2.0], [1.0]] * (N // 2), "rows of one length"),
    "no columns": (X[:, :0], r"0 feature\(s\)"),
    "no rows": (X[:0], r"0 sample\(s\)"),
    "structured": (np.array([*map(tuple, X)], dtype=[(name, float) for name in "abcd"]), "fields .* pandas.DataFrame"),
    "dictionary": ({"a": X[:, :2], "b": X[:, 2:]}, r"dictionary, with the keys \['a', 'b'\].* side by side"),
    "name of a file": ("rows.csv", "a name, 'rows.csv'"),
    "one number": (3.0, "Expected 2D array, got scalar array instead"),
}


@each_estimator
@in_one_test("name", BAD_X)
def test_features(cls, name, model_of, no_training):
    bad, match = BAD_X[name]
    if match == "NaN" and cls is MLPClassifierTorch:
        return  # missing values are no error there
    refuses(model_of(cls), lambda model: model.fit(bad, Y[: len(bad)] if name == "no rows" else Y), ValueError, match)


@each_estimator
@in_one_test("name", BAD_X)
def test_features_of_partial_fit_and_predict(cls, name, no_training):
    bad, match = BAD_X[name]
    new = incremental(cls)
    if match != "NaN" or cls is not MLPClassifierTorch:  # which takes those that are missing from the start
        refuses(new, lambda model: model.partial_fit(bad, Y, classes=[0, 1, 2]), ValueError, match)
    model = fitted(cls, **no_calibration(cls))
    warnings.filterwarnings("ignore", message="X has feature names")  # undone with the test
    refuses(model, lambda model: model.partial_fit(bad, Y), ValueError, match)
    for method in ("predict", "decision_function"):
        refuses(model, lambda model, method=method: getattr(model, method)(bad), ValueError, match)


@each_estimator
@pytest.mark.parametrize("given", [X[:1], X[:1].tolist(), sparse.csr_array(X[:1]), torch.tensor(X[:1])], ids=type)
def test_one_sample(cls, given, model_of, no_training):
    refuses(model_of(cls), lambda model: model.fit(given, Y[:1]), ValueError, r"1 sample|minimum of 2")


@each_estimator
@pytest.mark.parametrize("method", ["predict", "decision_function", "partial_fit", "fit"])
def test_other_columns(cls, method):
    model = incremental(cls, warm_start=True).fit(FRAME, Y)
    extra = [Y] if "fit" in method else []
    fewer = "3 features, but.*expecting 4 features"
    refuses_frame(model, lambda model: getattr(model, method)(X[:, :3], *extra), fewer)
    refuses_frame(
        model, lambda model: getattr(model, method)(FRAME.rename(columns={"a": "z"}), *extra), "feature names"
    )
    refuses_frame(model, lambda model: getattr(model, method)(FRAME[list("badc")], *extra), "same order")


def refuses_frame(model, call, match):
    before = frozen(vars(model))
    with pytest.raises(ValueError, match=match), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        call(model)
    assert frozen(vars(model)) == before


@each_estimator
def test_not_fitted(cls):
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(NotFittedError, match=f"{cls.__name__} instance is not fitted yet"):
            getattr(make(cls), method)(X)
    with pytest.raises(NotFittedError):
        make(cls).score(X, Y)


# ---- targets ---------------------------------------------------------------------------------------------------------

BAD_Y = {
    "continuous": (Y + 0.5, "Unknown label type: continuous"),
    "nan": (np.where(Y == 1, np.nan, Y), "Input y contains NaN"),
    "nan among objects": (np.where(Y == 1, None, Y.astype(object)), "NaN|None|Unknown label type|unknown"),
    "inf": (np.where(Y == 1, np.inf, Y), "infinity"),
    "continuous tensor": (torch.tensor(Y + 0.5), "Unknown label type: continuous"),
    "missing": (None, "requires y to be passed, but the target y is None"),
    "too short": (Y[:-1], r"inconsistent numbers of samples: \[150, 149\]"),
    "too long": (np.r_[Y, 0], r"inconsistent numbers of samples: \[150, 151\]"),
    "several continuous": (np.column_stack([Y + 0.5, Y]), "Unknown label type|bad input shape|1d array"),
    "several classes each": (np.column_stack([Y, Y]), "multiclass-multioutput|1d array"),
    "one number": (1, "array|scalar"),
}


@each_estimator
@in_one_test("name", BAD_Y)
def test_targets(cls, name, model_of, no_training):
    bad, match = BAD_Y[name]
    refuses(model_of(cls), lambda model: model.fit(X, bad), ValueError, match)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_one_class(cls, model_of, no_training):
    refuses(model_of(cls), lambda model: model.fit(X[:50], Y[:50]), ValueError, "class")
    weight = np.where(Y == 1, 1.0, 0.0)
    refuses(model_of(cls), lambda model: model.fit(X, Y, sample_weight=weight), ValueError, "one class")


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_label_indicators_are_the_mlps(cls, model_of, no_training):
    refuses(model_of(cls), lambda model: model.fit(X, np.eye(3)[Y]), ValueError, "multilabel|1d array")


@each_estimator
def test_unknown_class_in_partial_fit(cls):
    model = incremental(cls).partial_fit(X[:100], Y[:100], classes=[0, 1])
    refuses(model, lambda model: model.partial_fit(X, Y), ValueError, r"`y` also has \[2\].*first call of partial_fit")
    words = np.array(["a", "b", "c"])[Y]
    model = incremental(cls).partial_fit(X[:100], words[:100], classes=["a", "b"])
    refuses(model, lambda model: model.partial_fit(X, words), ValueError, r"`y` also has \['c'\]")
    new = incremental(cls)
    refuses(new, lambda model: model.partial_fit(X, Y, classes=[0, 1]), ValueError, r"`y` also has \[2\]")


@each_estimator
def test_classes_of_partial_fit(cls):
    refuses(incremental(cls), lambda model: model.partial_fit(X, Y), ValueError, "classes must be passed on the first")
    model = incremental(cls).partial_fit(X, Y, classes=[0, 1, 2])
    refuses(model, lambda model: model.partial_fit(X, Y, classes=[0, 1, 2, 3]), ValueError, "is not the same as")
    refuses(model, lambda model: model.partial_fit(X, np.array(["a", "b", "c"])[Y]), ValueError, "classes|label")
    model.partial_fit(X, Y, classes=[0, 1, 2])


@each_estimator
@pytest.mark.parametrize("y", [Y[:100], Y + 1, np.r_[Y[:-1], 7]], ids=["fewer", "others", "more"])
def test_warm_start_with_other_classes(cls, y):
    model = fitted(cls, warm_start=True)
    message = "warm_start can only be used where `y` has the same classes as in the previous call to fit"
    refuses(model, lambda model: model.fit(X[: len(y)], y), ValueError, message)
    model.set_params(warm_start=False).fit(X[: len(y)], y)
    np.testing.assert_array_equal(model.classes_, np.unique(y))


LABELS = np.column_stack([Y == 0, Y != 1, X[:, 0] > 6]).astype(int)


def test_labels_of_another_kind():
    """What was learnt of indicators does not go on with classes, nor the other way round."""
    several = make(MLPClassifierTorch, warm_start=True).fit(X, LABELS)
    one = make(MLPClassifierTorch, warm_start=True).fit(X, Y)
    for method in ("fit", "partial_fit"):
        refuses(several, lambda model, method=method: getattr(model, method)(X, Y), ValueError, "label|class")
        refuses(several, lambda m, method=method: getattr(m, method)(X, LABELS[:, :2]), ValueError, "label|class")
        refuses(one, lambda model, method=method: getattr(model, method)(X, LABELS), ValueError, "label|class")


def test_validation_labels_of_another_kind(no_training):
    model = make(MLPClassifierTorch)
    for y, y_val in [(LABELS, Y), (LABELS, LABELS[:, :2]), (Y, LABELS)]:
        refuses(model, lambda m, y=y, y_val=y_val: m.fit(X, y, X_val=X, y_val=y_val), ValueError, "y_val|label|class")


# ---- sample weights --------------------------------------------------------------------------------------------------

ONES = np.ones(N)
BAD_WEIGHT = {
    "nan": (with_value(np.nan, 5, ONES), "sample_weight.*NaN"),
    "inf": (with_value(np.inf, 5, ONES), "sample_weight.*infinity"),
    "negative": (with_value(-1e-9, 5, ONES), "Negative values in data passed to `sample_weight"),
    "all zero": (0 * ONES, "at least one non-zero"),
    "zero": (0.0, "at least one non-zero"),
    "too short": (ONES[:-1], r"sample_weight.*\(149,\), expected \(150,\)"),
    "too long": (np.ones(N + 1), r"sample_weight.*\(151,\), expected \(150,\)"),
    "matrix": (np.ones((N, 2)), r"sample_weight.*\(150, 2\)"),
    "next to nothing": (1e-320 * ONES, "sum of `sample_weight.*too small"),
    "words": (["much"] * N, "could not convert string to float"),
    "nan in a tensor": (torch.tensor(with_value(np.nan, 5, ONES)), "sample_weight.*NaN"),
    "negative series": (pd.Series(-ONES), "Negative values in data passed to `sample_weight"),
}


@each_estimator
@in_one_test("name", BAD_WEIGHT)
def test_sample_weight(cls, name, model_of, no_training):
    bad, match = BAD_WEIGHT[name]
    refuses(model_of(cls), lambda model: model.fit(X, Y, sample_weight=bad), ValueError, match)
    new = incremental(cls)
    refuses(new, lambda m: m.partial_fit(X, Y, classes=[0, 1, 2], sample_weight=bad), ValueError, match)
    match = match.replace("sample_weight", "sample_weight_val")
    arguments = {"X_val": X, "y_val": Y, "sample_weight_val": bad}
    refuses(model_of(cls), lambda model: model.fit(X, Y, **arguments), ValueError, match)


@each_estimator
@pytest.mark.parametrize(
    "weight",
    [{0: -1.0, 1: 1.0, 2: 1.0}, {0: np.nan, 1: 1.0, 2: 1.0}, {0: 0.0, 1: 0.0, 2: 0.0}, {0: 1.0, 9: 1.0}, [1, 2, 3]],
    ids=repr,
)
def test_class_weight(cls, weight, no_training):
    match = "one dictionary .* by class, such as {0: 2.0}" if isinstance(weight, list) else "class"
    refuses(make(cls, class_weight=weight), lambda model: model.fit(X, Y), ValueError, match)


# ---- validation data -------------------------------------------------------------------------------------------------

BAD_VALIDATION = {
    "X alone": ({"X_val": X}, "X_val and y_val belong together"),
    "y alone": ({"y_val": Y}, "X_val and y_val belong together"),
    "weights alone": ({"sample_weight_val": ONES}, "sample_weight_val.*X_val|X_val.*sample_weight_val"),
    "fewer columns": ({"X_val": X[:, :3], "y_val": Y}, "3 features, but.*expecting 4 features"),
    "nan": ({"X_val": with_value(np.nan), "y_val": Y}, "NaN"),
    "words": ({"X_val": OBJECTS, "y_val": Y}, "could not convert string"),
    "no rows": ({"X_val": X[:0], "y_val": Y[:0]}, r"0 sample\(s\)"),
    "unknown label": ({"X_val": X, "y_val": np.r_[Y[:-1], 8]}, r"`y_val?` also has \[8\]|`y` also has \[8\]"),
    "words for numbers": ({"X_val": X, "y_val": np.array(["a", "b", "c"])[Y]}, "class|label"),
    "other lengths": ({"X_val": X, "y_val": Y[:-1]}, r"inconsistent numbers of samples: \[150, 149\]"),
    "other weights": ({"X_val": X, "y_val": Y, "sample_weight_val": ONES[:-1]}, "sample_weight_val"),
    "continuous": ({"X_val": X, "y_val": Y + 0.5}, "Unknown label type: continuous"),
}


@each_estimator
@pytest.mark.parametrize("early_stopping", [False, True])
@in_one_test("name", BAD_VALIDATION)
def test_validation_data(cls, name, early_stopping, model_of, no_training):
    arguments, match = BAD_VALIDATION[name]
    model = model_of(cls, early_stopping=early_stopping)
    refuses(model, lambda model: model.fit(X, Y, **arguments), ValueError, match)


@each_estimator
def test_validation_data_of_other_names(cls, no_training):
    model = make(cls)
    other = FRAME.rename(columns={"a": "z"})
    refuses(model, lambda model: model.fit(FRAME, Y, X_val=other, y_val=Y), ValueError, "feature names")


@each_estimator
def test_unknown_validation_label_is_named(cls, no_training):
    """The advice must fit the case: it is not partial_fit that was called."""
    with pytest.raises(ValueError, match="8") as info:
        make(cls).fit(X, Y, X_val=X, y_val=np.r_[Y[:-1], 8])
    assert "y_val" in str(info.value)
    assert "partial_fit" not in str(info.value)


@each_estimator
def test_nothing_to_validate_on(cls, no_training):
    model = make(cls, early_stopping=True)
    y = np.r_[0, np.ones(99)].astype(int)
    match = r"least populated class.* 1 member \(class 0\).*X_val and y_val"
    refuses(model, lambda model: model.fit(X[:100], y), ValueError, match)
    match = "validation set is too small. Increase 'validation_fraction'"
    refuses(make(cls, early_stopping=True, validation_fraction=0), lambda model: model.fit(X, Y), ValueError, match)
    # the same flower twice is no more than one
    X_twice, y_twice = np.r_[X[:1], X[:100]], np.r_[0, y]
    refuses(model, lambda model: model.fit(X_twice, y_twice), ValueError, "least populated class.* 1 member")


@each_estimator
def test_one_row_of_a_third_class_is_trained_on(cls):
    y = np.r_[2, Y[1:100]]
    model = make(cls, early_stopping=True).fit(X[:100], y)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])


# ---- devices ---------------------------------------------------------------------------------------------------------


def absent_devices():
    names = ["nonsense", "", "cuda:99", "meta", torch.device("meta"), "xpu", torch.device("xpu"), "hpu"]
    if not torch.cuda.is_available():
        names += ["cuda", "cuda:0", torch.device("cuda"), torch.device("cuda", 0)]
    if not torch.backends.mps.is_available():
        names += ["mps", torch.device("mps")]
    return names


@each_estimator
@in_one_test("device", absent_devices())
def test_device_that_is_not_there(cls, device, model_of, no_training):
    match = "not (a torch device|available).*available here: .*cpu"
    refuses(model_of(cls, device=device), lambda model: model.fit(X, Y), ValueError, match)


@each_estimator
@pytest.mark.parametrize("device", ["cuda:99", "xpu", "meta"])
def test_a_model_predicts_without_the_device_it_was_made_for(cls, device):
    model = fitted(cls)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(model.set_params(device=device).predict_proba(X), expected)


# ---- parameters ------------------------------------------------------------------------------------------------------

BAD_PARAMS = [
    {"alpha": -1e-3},
    {"alpha": "1"},
    {"solver": "newton"},
    {"learning_rate": "linear"},
    {"learning_rate_init": 0.0},
    {"learning_rate_init": -1.0},
    {"power_t": -1.0},
    {"warmup_epochs": -1},
    {"max_grad_norm": 0},
    {"momentum": 1.5},
    {"momentum": -0.1},
    {"beta_1": 1.0},
    {"beta_2": -0.1},
    {"epsilon": 0.0},
    {"batch_size": 0},
    {"batch_size": 2.5},
    {"batch_size": "all"},
    {"max_iter": 0},
    {"max_iter": 10.0},
    {"tol": -1e-4},
    {"n_iter_no_change": 0},
    {"n_iter_no_change": 2.5},
    {"max_fun": 0},
    {"shuffle": "yes"},
    {"nesterovs_momentum": 2},
    {"early_stopping": "no"},
    {"validation_fraction": 1.0},
    {"validation_fraction": -0.1},
    {"scoring": "beauty"},
    {"scoring": 1},
    {"class_weight": "heavy"},
    {"warm_start": None},
    {"random_state": "seed"},
    {"device": 0},
    {"device": None},
    {"verbose": -1},
    {"callbacks": 3},
]
BAD_LINEAR = [
    {"penalty": "l3"},
    {"penalty": "none"},
    {"l1_ratio": 1.1},
    {"l1_ratio": -0.1},
    {"fit_intercept": "yes"},
    {"standardize": None},
    {"momentum": 1.0},
    {"learning_rate_init": "fast"},
]
BAD_HINGE = [{"loss": "log"}, {"multi_class": "ovo"}, {"calibration": "isotonic"}, {"calibration": True}]
BAD_MLP = [
    {"hidden_layer_sizes": 0},
    {"hidden_layer_sizes": 2.5},
    {"hidden_layer_sizes": "wide"},
    {"activation": "sine"},
    {"learning_rate_init": "fast"},
]


def show(value):
    return "-".join(f"{k}={v!r}" for k, v in value.items()) if isinstance(value, dict) else None


@in_one_test(
    "cls, params",
    [(ESTIMATORS[i % 3], params) for i, params in enumerate(BAD_PARAMS)]
    + [(ESTIMATORS[i % 2], params) for i, params in enumerate(BAD_LINEAR)]
    + [(HingeClassifier, params) for params in BAD_HINGE]
    + [(MLPClassifierTorch, params) for params in BAD_MLP],
)
def test_invalid_parameters(cls, params, no_training):
    ((name, value),) = params.items()
    model = make(cls, **params)
    message = f"The '{name}' parameter of ({cls.__name__}|SGD|Adam|LBFGS) must be .* Got {re.escape(repr(value))}"
    refuses(model, lambda model: model.fit(X, Y), InvalidParameterError, message)
    if hasattr(model, "partial_fit") and name != "calibration":
        refuses(model, lambda model: model.partial_fit(X, Y, [0, 1, 2]), InvalidParameterError, message)


BAD_LATER = [
    ({"solver": "sdg"}, "The 'solver' parameter"),
    ({"solver": None}, "or an object such as skdeep.SGD"),
    ({"solver": SGD}, "or an object such as skdeep.SGD"),
    ({"solver": SGD(momentum=5)}, "The 'momentum' parameter of SGD"),
    ({"solver": SGD(learning_rate="linear")}, "The 'learning_rate' parameter of SGD"),
    ({"solver": Adam(beta_1=1.0)}, "The 'beta_1' parameter of Adam"),
    ({"alpha": -1.0}, "The 'alpha' parameter"),
    ({"max_iter": 0}, "The 'max_iter' parameter"),
    ({"tol": "low"}, "The 'tol' parameter"),
    ({"class_weight": "heavy"}, "The 'class_weight' parameter"),
]


@each_estimator
@in_one_test("params, match", BAD_LATER)
def test_parameters_are_looked_at_in_every_call_of_partial_fit(cls, params, match):
    model = incremental(cls).partial_fit(X, Y, classes=[0, 1, 2]).set_params(**params)
    refuses(model, lambda model: model.partial_fit(X, Y), InvalidParameterError, match)


@each_estimator
def test_who_wants_no_parameters_looked_at_gets_his_way(cls):
    model = incremental(cls).partial_fit(X, Y, classes=[0, 1, 2]).set_params(tol=-1.0)
    with config_context(skip_parameter_validation=True):
        model.partial_fit(X, Y)
    refuses(model, lambda model: model.partial_fit(X, Y), InvalidParameterError, "The 'tol' parameter")


@pytest.mark.parametrize("sizes", [(0,), (5, 0), [5, -1], (5, 2.5), ("a",), np.array([3, 0])], ids=repr)
def test_hidden_layer_sizes(sizes, model_of, no_training):
    model = model_of(MLPClassifierTorch, hidden_layer_sizes=sizes)
    refuses(model, lambda model: model.fit(X, Y), ValueError, r"hidden_layer_sizes must be > 0")


@pytest.mark.parametrize("changed", [{"hidden_layer_sizes": (5, 4)}, {"activation": "maxout"}, {"activation": "prelu"}])
def test_a_warm_start_cannot_change_the_network(changed):
    model = reconfigured(fitted(MLPClassifierTorch, warm_start=True), **changed)
    before = frozen(vars(model))
    with pytest.raises(ValueError, match=f"warm_start|{next(iter(changed))}"):
        model.fit(X, Y)
    assert frozen(vars(model)) == before


@pytest.mark.parametrize(
    "cls, params, culprit",
    [
        (HingeClassifier, {"loss": "hinge"}, "loss"),
        (HingeClassifier, {"loss": "hinge", "multi_class": "ovr"}, "loss"),
        (HingeClassifier, {"loss": "squared_hinge", "penalty": "l1"}, "penalty='l1'"),
        (SoftmaxClassifier, {"penalty": "l1"}, "penalty='l1'"),
        (SoftmaxClassifier, {"penalty": "elasticnet"}, "penalty='elasticnet'"),
    ],
)
def test_kinks_for_lbfgs(cls, params, culprit, model_of, no_training):
    model = model_of(cls, solver="lbfgs", **params)
    refuses(model, lambda model: model.fit(X, Y), ValueError, f"lbfgs.*{culprit}.*sgd.*adam")


@each_estimator
def test_smooth_objectives_for_lbfgs(cls):
    assert smooth(cls).fit(X, Y).n_iter_ > 1
    if cls is not MLPClassifierTorch:
        smooth(cls, penalty="elasticnet", l1_ratio=0.0).fit(X, Y)
        smooth(cls, penalty=None).fit(X, Y)


# ---- training that goes wrong ----------------------------------------------------------------------------------------

DIVERGING = [
    (HingeClassifier, {"loss": "squared_hinge", "learning_rate_init": 1e10}),
    (HingeClassifier, {"loss": "squared_hinge", "learning_rate_init": 1e10, "calibration": None}),
    (MLPClassifierTorch, {"learning_rate_init": 1e300}),
    (MLPClassifierTorch, {"learning_rate_init": 1e50, "solver": "sgd", "activation": "identity"}),
]


def diverging(cls, **params):
    return make(cls, **{"max_iter": 300, "n_iter_no_change": 300, "learning_rate": "constant", **params})


@pytest.mark.parametrize("cls, params", DIVERGING)
@pytest.mark.parametrize("before", ["new", "fitted", "warm start"])
def test_divergence(cls, params, before):
    model = make(cls) if before == "new" else fitted(cls)
    reconfigured(model, **diverging(cls, **params).get_params()).set_params(warm_start=before == "warm start")
    message = r"[Dd]iverged.* in epoch \d+.*[Ll]ower learning_rate_init.*StandardScaler"
    refuses(model, lambda model: model.fit(X, Y), ValueError, message)


@pytest.mark.parametrize("cls, params", DIVERGING)
def test_the_epoch_of_divergence_is_right(cls, params):
    with pytest.raises(ValueError, match="epoch") as info:
        diverging(cls, **params).fit(X, Y)
    epoch = int(re.search(r"epoch (\d+)", str(info.value))[1])
    if epoch > 1:  # up to the epoch before, there was a model
        short = reconfigured(diverging(cls, **params), max_iter=epoch - 1, **no_calibration(cls)).fit(X, Y)
        assert np.isfinite(short.loss_curve_).all()
    with pytest.raises(ValueError, match=f"epoch {epoch}"):
        reconfigured(diverging(cls, **params), max_iter=epoch, **no_calibration(cls)).fit(X, Y)


def no_calibration(cls):
    return {"calibration": None} if cls is HingeClassifier else {}


def test_divergence_in_partial_fit():
    model = reconfigured(make(MLPClassifierTorch).fit(X, Y), learning_rate_init=1e300)
    for _ in range(5):
        before = frozen(vars(model))
        try:
            model.partial_fit(X, Y)
        except ValueError as error:
            assert "Lower learning_rate_init" in str(error)
            break
    else:
        pytest.fail("nothing diverged")
    assert frozen(vars(model)) == before
    assert np.isfinite(model.predict_proba(X)).all()


class Scores:
    """A scorer of the given values, in order; raises those that are exceptions."""

    def __init__(self, *values):
        self.values, self.calls = values, 0

    def __call__(self, model, X, y, sample_weight=None):
        value = self.values[min(self.calls, len(self.values) - 1)]
        self.calls += 1
        if isinstance(value, BaseException):
            raise value
        return value


@each_estimator
@pytest.mark.parametrize("values", [(OSError("no metric today"),), (0.5, 0.6, OSError("no metric today"))])
def test_scorer_that_raises(cls, values, model_of):
    scorer = Scores(*values)
    model = model_of(cls, early_stopping=True, scoring=scorer)
    refuses(model, lambda model: model.fit(X, Y), OSError, "no metric today", but=["scoring"])
    assert scorer.calls == len(values)
    model.set_params(scoring=None, warm_start=False).fit(X, Y)


@each_estimator
def test_scorer_that_needs_what_is_not_there(cls):
    model = incremental(cls, early_stopping=True, scoring="roc_auc")  # not defined for three classes without ovr
    before = frozen(vars(model))
    with pytest.raises(ValueError, match=r"multi_class|multiclass"):
        model.fit(X, Y)
    assert frozen(vars(model)) == before


class Trip(FitCallback):
    """Raises at the beginning or the end of an epoch."""

    def __init__(self, error, epoch, when):
        self.error, self.epoch, self.when = error, epoch, when

    def setup(self, estimator, context):
        self.epochs = 0

    def teardown(self, estimator, context):
        self.torn_down = True

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch":
            self.epochs += 1
            self._trip("begin")

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self._trip("end")

    def _trip(self, when):
        if (self.epochs, when) == (self.epoch, self.when):
            raise self.error


@each_estimator
@pytest.mark.parametrize("when", ["begin", "end"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_callback_that_raises(cls, epoch, when, model_of):
    callback = Trip(OSError("disk full"), epoch, when)
    model = model_of(cls).set_callbacks(callback)
    refuses(model, lambda model: model.fit(X, Y), OSError, "disk full", but=["_skl_callbacks"])
    assert callback.torn_down
    model.set_callbacks().set_params(warm_start=False).fit(X, Y)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupt_in(monkeypatch):
    """Press Ctrl-C in the middle of the n-th pass over the data."""
    passes = []

    def interrupt_in(n):
        def epoch(self, *args):
            passes.append(self)
            if len(passes) == n:
                yield next(EPOCH(self, *args))
                signal.raise_signal(signal.SIGINT)
            yield from EPOCH(self, *args)

        def scores(self, params):
            passes.append(self)
            if len(passes) == n:
                signal.raise_signal(signal.SIGINT)
            return SCORES_OF_ROWS(self, params)

        passes.clear()
        monkeypatch.setattr(Batches, "epoch", epoch)
        monkeypatch.setattr(Rows, "scores", scores)
        return passes

    return interrupt_in


@each_estimator
def test_ctrl_c_in_the_first_epoch(cls, model_of, interrupt_in):
    model = model_of(cls)
    interrupt_in(1)
    refuses(model, lambda model: model.fit(X, Y), KeyboardInterrupt, None)


@each_estimator
@pytest.mark.parametrize("source", ["callback", "scorer"])
def test_ctrl_c_before_the_first_epoch_is_over(cls, source, model_of):
    if source == "callback":
        model = model_of(cls).set_callbacks(Trip(KeyboardInterrupt(), 1, "begin"))
        refuses(model, lambda model: model.fit(X, Y), KeyboardInterrupt, None, but=["_skl_callbacks"])
    else:
        model = model_of(cls, scoring=Scores(KeyboardInterrupt()), early_stopping=True)
        refuses(model, lambda model: model.fit(X, Y), KeyboardInterrupt, None, but=["scoring"])


@each_estimator
def test_ctrl_c_in_partial_fit(cls, interrupt_in):
    model = incremental(cls).fit(X, Y)
    interrupt_in(1)
    refuses(model, lambda model: model.partial_fit(X, Y), KeyboardInterrupt, None)
    new = incremental(cls)
    interrupt_in(1)
    refuses(new, lambda model: model.partial_fit(X, Y, classes=[0, 1, 2]), KeyboardInterrupt, None)


@each_estimator
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_ctrl_c_later(cls, solver, interrupt_in):
    params = {"loss": "squared_hinge", "calibration": None} if cls is HingeClassifier else {}
    # full batches take several passes for an iteration; squared hinges end after a dozen or less
    n = 3 if solver != "lbfgs" else 6 if cls is HingeClassifier else 9
    interrupt_in(n)
    model = make(cls, solver=solver, max_iter=50, tol=0.0, n_iter_no_change=np.inf, **params)
    with pytest.warns(UserWarning, match=r"interrupted by user after \d+ epoch") as caught:
        assert model.fit(X, Y) is model
    assert not [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert 1 <= model.n_iter_ < n
    if solver != "lbfgs":
        assert model.n_iter_ == 2
        assert model.t_ == 2 * N
    assert len(model.loss_curve_) == model.n_iter_
    assert f"after {model.n_iter_} epoch" in str(caught[0].message)
    assert np.isfinite(parameters(model)).all() and np.abs(parameters(model)).max() > 0
    assert model.predict(X).shape == (N,)


@each_estimator
@pytest.mark.parametrize("when, n_iter", [("begin", 2), ("end", 3)])
def test_ctrl_c_in_a_callback(cls, when, n_iter):
    callback = Trip(KeyboardInterrupt(), 3, when)
    model = incremental(cls, max_iter=50).set_callbacks(callback)
    with pytest.warns(UserWarning, match=f"interrupted by user after {n_iter} epochs"):
        model.fit(X, Y)
    assert callback.torn_down and callback.epochs == 3
    alone = incremental(cls, max_iter=n_iter).fit(X, Y)
    np.testing.assert_array_equal(parameters(model), parameters(alone))
    assert model.loss_curve_ == alone.loss_curve_


@each_estimator
def test_ctrl_c_keeps_the_best_weights(cls):
    model = incremental(cls, max_iter=50, early_stopping=True, scoring=Scores(0.5, 0.9, 0.4, KeyboardInterrupt()))
    with pytest.warns(UserWarning, match="interrupted by user after 3 epochs"):
        model.fit(X, Y)
    best = incremental(cls, max_iter=2, early_stopping=True, scoring=Scores(0.5, 0.9)).fit(X, Y)
    np.testing.assert_array_equal(parameters(model), parameters(best))
    assert model.validation_scores_ == [0.5, 0.9, 0.4]
    assert model.best_validation_score_ == 0.9


@each_estimator
def test_after_ctrl_c_training_goes_on(cls):
    callback = Trip(KeyboardInterrupt(), 3, "begin")
    params = {"tol": 0.0, "n_iter_no_change": np.inf}
    model = incremental(cls, max_iter=50, warm_start=True, **params).set_callbacks(callback)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, Y)
    model.set_callbacks().set_params(max_iter=3).fit(X, Y)
    alone = incremental(cls, max_iter=5, **params).fit(X, Y)
    np.testing.assert_allclose(parameters(model), parameters(alone), rtol=1e-8)
    np.testing.assert_allclose(model.loss_curve_, alone.loss_curve_, rtol=1e-8)


@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
def test_ctrl_c_does_not_start_a_long_calibration(calibration, interrupt_in):
    """Who presses Ctrl-C in the third of 400 epochs does not want 400 epochs of fold models."""
    passes = interrupt_in(3)
    model = make(HingeClassifier, calibration=calibration, max_iter=400, tol=0.0, n_iter_no_change=np.inf)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, Y)
    assert len(passes) <= 3 + 3
    np.testing.assert_array_equal(model.predict_proba(X).argmax(1), model.predict(X))


@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
@pytest.mark.parametrize("n", [6, 8])
def test_ctrl_c_in_the_calibration_is_heard(calibration, n, interrupt_in):
    """Raised, and nothing changed; or a fitted model and a warning: but never passed over in silence."""
    model = make(HingeClassifier, calibration=calibration).fit(X, Y)
    before = frozen(vars(model))
    passes = interrupt_in(n)  # the model itself takes 5
    try:
        with pytest.warns(UserWarning, match="interrupted"):
            model.fit(X, Y)
    except KeyboardInterrupt:
        assert frozen(vars(model)) == before
    else:
        assert len(passes) == n
    assert model.predict_proba(X).shape == (N, 3)


# ---- warnings --------------------------------------------------------------------------------------------------------


@each_estimator
@pytest.mark.parametrize("n_iter_no_change, span", [(3, 3), (100, 7)])
def test_how_far_from_converged(cls, n_iter_no_change, span):
    model = incremental(cls, max_iter=8, n_iter_no_change=n_iter_no_change, tol=1e-5)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(8\) reached") as caught:
        model.fit(X, Y)
    (warning,) = caught
    text = str(warning.message)
    gain, share, epochs, tol = re.search(
        r"training loss still fell by (\S+) \((\S+)%\) over the last (\d+) epochs \(tol=(\S+)\)", text
    ).groups()
    expected = model.loss_curve_[-1 - span] - model.loss_curve_[-1]
    assert int(epochs) == span
    assert float(tol) == 1e-5
    assert math.isclose(float(gain), expected, rel_tol=0.01)
    assert math.isclose(float(share), 100 * expected / model.loss_curve_[-1], abs_tol=0.01)
    assert "max_iter" in text and "tol" in text


@each_estimator
def test_lbfgs_says_it_too(cls):
    told = r"Maximum iterations \(4\).*fell by.*over the last 3 epochs.*Increase max_iter, or scale"
    with pytest.warns(ConvergenceWarning, match=told):
        smooth(cls, max_iter=4, tol=1e-12).fit(CANCER, CANCER_Y)


@each_estimator
def test_lbfgs_says_which_limit_it_has_come_to(cls):
    model = reconfigured(smooth(cls, tol=1e-12, max_iter=200), max_fun=3)
    with pytest.warns(ConvergenceWarning, match=r"Maximum evaluations .*\(max_fun=3\) reached.*Increase max_fun"):
        model.fit(CANCER, CANCER_Y)
    assert model.n_iter_ < 3


@each_estimator
def test_early_stopping_says_it_too(cls):
    model = incremental(cls, max_iter=4, early_stopping=True, scoring=Scores(0.1, 0.2, 0.3, 0.4), n_iter_no_change=2)
    with pytest.warns(ConvergenceWarning, match=r"validation score still rose within the last 2 epochs"):
        model.fit(X, Y)


@each_estimator
def test_one_epoch_says_it_too(cls):
    with pytest.warns(ConvergenceWarning, match="only one epoch to judge by"):
        incremental(cls, max_iter=1).fit(X, Y)


@each_estimator
def test_no_warning_where_it_has_converged(cls):
    warnings.simplefilter("error")  # undone with the test
    model = incremental(cls, max_iter=500, tol=1e-2, n_iter_no_change=3).fit(X, Y)
    assert 4 < model.n_iter_ < 500
    incremental(cls).partial_fit(X, Y, classes=[0, 1, 2])  # nobody expects one pass to converge


@each_estimator
def test_warnings_point_to_the_caller(cls, interrupt_in):
    with pytest.warns(ConvergenceWarning) as caught:
        incremental(cls).fit(X, Y)
    assert [w.filename for w in caught] == [__file__]
    interrupt_in(3)
    with pytest.warns(UserWarning, match="interrupted") as caught:
        incremental(cls).fit(X, Y)
    assert [w.filename for w in caught] == [__file__]
