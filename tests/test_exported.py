"""Fitted classifiers as torch modules, exported programs and ONNX files: the same answers everywhere."""

import copy
import functools
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, linear_module
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdeep import (
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.engine.activations import ACTIVATIONS

LABELS = np.column_stack([IRIS_Y == 0, IRIS[:, 0] > 6, IRIS_Y == 2]).astype(int)
GAPS = np.where(np.arange(IRIS.size).reshape(IRIS.shape) % 11 == 1, np.nan, IRIS)
FAR = IRIS * [1e-30, 1, 1e30, 1] + [0, 1e7, 0, -1e5]
THREE, TWO, MANY, MISSING = (IRIS, IRIS_Y), (CANCER[::5], CANCER_Y[::5]), (IRIS, LABELS), (GAPS, IRIS_Y)


class ConvNet(torch.nn.Sequential):
    def __init__(self, n_outputs):
        parts = (
            torch.nn.Conv2d(1, 3, 2),
            torch.nn.BatchNorm2d(3),
            torch.nn.ReLU(),
            torch.nn.Dropout(),
            torch.nn.Flatten(),
        )
        super().__init__(*parts, torch.nn.LazyLinear(n_outputs))


def mlp(activation="relu", **params):
    return MLPClassifierTorch((6, 6), activation, max_iter=3, stochastic_depth=0.1, random_state=0, **params)


def ensemble(**params):
    return MLPEnsembleClassifier(2, (4,), max_iter=2, random_state=0, **params)


CASES = {
    "softmax": (SoftmaxClassifier(), *THREE),
    "two classes": (SoftmaxClassifier(calibration="temperature"), *TWO),
    "far columns": (SoftmaxClassifier(), FAR, IRIS_Y),
    "labels": (SigmoidClassifier(calibration="temperature"), *MANY),
    "one against the rest": (SigmoidClassifier(calibration="sigmoid"), *THREE),
    "hinge": (HingeClassifier(max_iter=5), *THREE),
    "hinge, sigmoid": (HingeClassifier(calibration="sigmoid", max_iter=5), *TWO),
    "scores": (HingeClassifier(calibration=None, max_iter=5), *THREE),
    "scores of two classes": (LeastSquaresClassifier(), *TWO),
    **{f"mlp, {name}": (mlp(name), *THREE) for name in ACTIVATIONS},
    "mlp, raw columns": (mlp(standardize=False), *THREE),
    "mlp, far columns": (mlp(), FAR, IRIS_Y),
    "mlp, batch": (mlp(normalization="batch", calibration="sigmoid"), *MISSING),
    "mlp, layer": (mlp(normalization="layer", calibration="temperature"), *MISSING),
    "mlp, bins": (mlp(numeric_embedding="piecewise"), *MISSING),
    "mlp, bins of raw columns": (mlp(numeric_embedding="piecewise", standardize=False), *THREE),
    "mlp, labels": (mlp(calibration="temperature"), *MANY),
    "softmax as an mlp": (MLPClassifierTorch((), max_iter=3), *MISSING),
    "ensemble": (ensemble(), *MISSING),
    "ensemble, bins": (ensemble(numeric_embedding="auto"), *THREE),
    "ensemble, sigmoid": (ensemble(calibration="sigmoid"), *THREE),
    "ensemble, two classes": (ensemble(), *TWO),
    "ensemble, labels": (ensemble(calibration=None), *MANY),
    "module": (TorchClassifier(linear_module, max_iter=2, calibration="temperature"), *TWO),
    "images": (TorchClassifier(ConvNet, max_iter=2), IRIS.reshape(-1, 1, 2, 2), IRIS_Y),
}


def trained(model, X, y):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The scores of rows that a model was not trained on")  # for so short a time
        return clone(model).set_params(random_state=0).fit(X, y)


@functools.cache
def fitted(case, dtype="float64"):
    model, X, y = CASES[case]
    return trained(model, X.astype(dtype), y)


def answer(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.decision_function(X)


def given(module, X):
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_module_answers_as_the_classifier(case):
    X = CASES[case][1]
    model = fitted(case)
    module = model.to_torch()
    expected, found = answer(model, X), given(module, X)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    is_single = next(module.parameters()).dtype is torch.float32  # a module of a user's
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 if is_single else 1e-12 * max(1, abs(expected).max()))
    labels = module.answers(torch.from_numpy(X))[0].numpy()
    np.testing.assert_array_equal(labels if labels.ndim == 2 else module.classes_[labels], model.predict(X))


@pytest.mark.parametrize("case", CASES)
def test_single_precision(case):
    X = CASES[case][1]
    with np.errstate(over="ignore"):
        single = X.astype(np.float32)
    model = fitted(case, "float32")
    module = model.to_torch()
    for data, most in ((single, 1e-6), (X, 1e-12)):
        expected, found = answer(model, data), given(module, data)
        assert found.dtype == expected.dtype
        is_single = data is single or isinstance(model, TorchClassifier)  # a user's module has its own precision
        np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-6 if is_single else most) * max(1, expected.max()))
    assert next(module.parameters()).dtype is torch.float32 or "far columns" in case


@pytest.mark.parametrize("n_threads", [1, 2])
def test_scores_of_50_keep_their_digits_on_any_number_of_threads(n_threads):
    X, y = (CANCER / CANCER.std(0)).astype(np.float32), CANCER_Y
    model = SoftmaxClassifier(alpha=1e-3).fit(X, y)
    model.coef_ *= np.float32(60 / np.abs(model.decision_function(X)).max())
    rng = np.random.default_rng(0)
    one, other = X[y == 0][rng.integers(200, size=5000)], X[y == 1][rng.integers(200, size=5000)]
    share = rng.random((5000, 1)).astype(np.float32)
    between = share * one + (1 - share) * other
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        found = given(model.to_torch(), between)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, model.predict_proba(between), rtol=0, atol=1e-7)
    assert ((found > 0.1) & (found < 0.9)).any()


@pytest.mark.parametrize("case", ["softmax", "mlp, relu", "ensemble"])
def test_columns_far_from_zero_lose_no_digit_in_single_precision(case):
    X = ((IRIS * 8).round() + 2.0**20).astype(np.float32)  # of which each value is exact
    model = trained(CASES[case][0], X, IRIS_Y)
    found = given(model.to_torch(), X)
    np.testing.assert_allclose(found, model.predict_proba(X), atol=1e-6)
    if case != "ensemble":  # which deals rows to its folds by what is in them
        near = X.astype(np.float64) - 2.0**20
        alike = trained(model, near, IRIS_Y)  # the same model, in columns near zero
        np.testing.assert_allclose(found, alike.predict_proba(near), atol=2e-3)


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("cls", [SoftmaxClassifier, LinearRegressor])
def test_means_of_a_hundred_deviations_leave_linear_models_their_digits_in_single_precision(cls, standardize):
    """Products that are far larger than what they add up to would be rounded, by each runtime in its own way."""
    X = (((IRIS - IRIS.mean(0)) / IRIS.std(0) * 64).round() / 64 + 100).astype(np.float32)
    model = cls(alpha=1e-5, standardize=standardize).fit(X, IRIS_Y)
    assert model.coef_.dtype == np.float32
    answers = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    expected = answers(X.astype(np.float64))
    np.testing.assert_allclose(answers(X), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(given(model.to_torch(), X), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", ["labels", "mlp, batch", "mlp, gelu", "ensemble, two classes"])
def test_an_exported_program_takes_any_number_of_rows(case):
    module, X = fitted(case).to_torch(), torch.from_numpy(CASES[case][1])
    rows = torch.export.Dim("rows")
    program = torch.export.export(module, (X[:4],), dynamic_shapes=({0: rows},)).module()
    with torch.no_grad():
        for some in (X[:1], X[:2], X):
            torch.testing.assert_close(program(some), module(some), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter's, about itself
@pytest.mark.parametrize(
    "case, dtype",
    [("mlp, selu", "float64"), ("mlp, gelu", "float64"), ("two classes", "float64"), ("ensemble", "float32")],
)
def test_an_onnx_file_answers_as_the_classifier(case, dtype, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, X = copy.deepcopy(fitted(case)), CASES[case][1].astype(dtype)
    if hasattr(model, "temperature_"):
        model.temperature_ = 1 + 8e-6  # which is not 1
    path = tmp_path / "model.onnx"
    sizes = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(
        model.to_torch(), (torch.from_numpy(X[:4]),), path, dynamo=True, dynamic_shapes=sizes, verbose=False
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    for rows in (X, X[:1]):
        (found,) = session.run(None, {name: rows})
        assert found.dtype == dtype
        np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-12 if dtype == "float64" else 1e-6)


def test_a_module_shares_no_memory_with_the_estimator():
    for case in ("softmax", "mlp, relu", "module"):
        model, X = copy.deepcopy(fitted(case)), CASES[case][1]
        module = model.to_torch()
        before = answer(model, X)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        np.testing.assert_array_equal(answer(model, X), before)


def test_a_module_can_be_trained_further():
    module, X = fitted("mlp, batch").to_torch(), torch.from_numpy(CASES["mlp, batch"][1])
    before = torch.nn.functional.cross_entropy(module.scores(X), torch.from_numpy(IRIS_Y))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    before.backward()
    optimizer.step()
    assert torch.nn.functional.cross_entropy(module.scores(X), torch.from_numpy(IRIS_Y)) < before
    module(X).sum().backward()


def test_a_module_pickles():
    module, X = fitted("ensemble").to_torch(), CASES["ensemble"][1]
    np.testing.assert_array_equal(given(pickle.loads(pickle.dumps(module)), X), given(module, X))


def test_what_no_module_is_made_of():
    with pytest.raises(NotFittedError):
        SoftmaxClassifier().to_torch()
    with pytest.raises(NotFittedError, match="calibration='temperature'"):
        copy.deepcopy(fitted("softmax")).set_params(calibration="temperature").to_torch()
    model = copy.deepcopy(fitted("module"))
    model.module_.lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be copied"):
        model.to_torch()


@pytest.mark.parametrize("case", ["softmax", "mlp, batch", "images"])
def test_rows_of_another_shape_are_refused(case):
    module, X = fitted(case).to_torch(), torch.from_numpy(CASES[case][1])
    for n_columns in (1, X[0].numel() - 1):
        with pytest.raises(ValueError, match="X must have"):
            module(X.flatten(1)[:, :n_columns])


def test_missing_values_that_the_classifier_refuses_have_no_probability():
    assert np.isnan(given(fitted("softmax").to_torch(), GAPS)[np.isnan(GAPS).any(1)]).all()
