"""Pipelines as ONNX files: labels and probabilities are those of the Pipeline."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdeep import (
    LeastSquaresClassifier,
    LinearRegressor,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressorTorch,
    Quantile,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)

onnx = pytest.importorskip("skdeep.onnx", exc_type=ImportError)
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from skl2onnx import to_onnx  # noqa: E402
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType  # noqa: E402

# an export is about a second, most of it torch's: each case is another class, another kind of labels, another input
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_Y]
LABELS = np.column_stack([IRIS_Y == 0, IRIS[:, 0] > 6]).astype(int)
FLOWERS = pd.DataFrame(
    {"width": IRIS[:, 1], "colour": np.array(["red", "blue"])[np.arange(150) % 2], "length": IRIS[:, 2]}
)
FLOWERS = FLOWERS.astype({"width": np.float32, "length": np.float32})


@pytest.fixture(autouse=True, scope="module")
def registered():
    onnx.register()


def session_of(model, X, **options):
    file = to_onnx(model, X[:1], options={"zipmap": False}, **options)
    return runtime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])


class Image(torch.nn.Sequential):
    def __init__(self, n_outputs):
        super().__init__(torch.nn.Conv2d(1, 2, 2), torch.nn.Flatten(), torch.nn.LazyLinear(n_outputs))


CASES = {
    "softmax": (SoftmaxClassifier(), IRIS, NAMES, np.float32),
    "labels": (SigmoidClassifier(), IRIS, LABELS, np.float64),
    "ensemble": (MLPEnsembleClassifier(2, (5,), max_iter=20), IRIS, NAMES.astype(object), np.float32),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_answers_as_before(case):
    model, X, y, dtype = CASES[case]
    pipe = make_pipeline(StandardScaler(), clone(model).set_params(random_state=0)).fit(X, y)
    X = X.astype(dtype)
    session = session_of(pipe, X)
    labels, probabilities = session.run(None, {"X": X})
    np.testing.assert_array_equal(labels, pipe.predict(X))
    assert labels.dtype == (object if y.dtype.kind in "UO" else np.int64) and probabilities.dtype == dtype
    np.testing.assert_allclose(probabilities, pipe.predict_proba(X), atol=1e-12 if dtype == np.float64 else 2e-6)
    (one,) = session.run(None, {"X": X[:1]})[1]
    np.testing.assert_allclose(one, probabilities[0], atol=1e-6)


def test_scores_of_two_classes_have_two_columns():
    model = LeastSquaresClassifier().fit(CANCER, CANCER_Y == 1)
    labels, scores = session_of(model, CANCER).run(None, {"X": CANCER})
    expected = model.decision_function(CANCER)
    np.testing.assert_allclose(scores, np.column_stack([-expected, expected]), atol=1e-9)
    np.testing.assert_array_equal(labels, model.predict(CANCER))


def test_columns_of_several_kinds():
    encoder = make_column_transformer((StandardScaler(), ["width", "length"]), (OneHotEncoder(), ["colour"]))
    pipe = make_pipeline(encoder, SoftmaxClassifier()).fit(FLOWERS, NAMES)
    kinds = {"width": FloatTensorType, "colour": StringTensorType, "length": FloatTensorType}
    file = to_onnx(pipe, initial_types=[(name, kind([None, 1])) for name, kind in kinds.items()])
    session = runtime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, rows = session.run(None, {name: FLOWERS[[name]].to_numpy() for name in kinds})
    np.testing.assert_array_equal(labels, pipe.predict(FLOWERS))
    expected = pd.DataFrame(pipe.predict_proba(FLOWERS), columns=pipe.classes_)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), expected, check_dtype=False, atol=2e-6)  # a dictionary each


def test_integers_and_labels_without_a_form():
    X = (IRIS * 10).astype(np.int64)
    model = SoftmaxClassifier().fit(X, np.datetime64("2000-01-01") + IRIS_Y)
    options = {"zipmap": False, "nocl": True}
    file = to_onnx(model, initial_types=[("X", Int64TensorType([None, 4]))], options=options)
    session = runtime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(None, {"X": X})
    np.testing.assert_array_equal(model.classes_[labels], model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-6)


def test_modules_and_subclasses_of_a_users():
    class Own(TorchClassifier):
        pass

    onnx.register(Own)
    model = Own(Image, max_iter=2, random_state=0).fit(IRIS.reshape(-1, 1, 2, 2), IRIS_Y - 3.0)
    X = IRIS.astype(np.float32)
    labels, probabilities = session_of(model, X).run(None, {"X": X})
    np.testing.assert_array_equal(labels, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-6)


def test_what_cannot_be_converted():
    model = SoftmaxClassifier().fit(IRIS, IRIS_Y)
    with pytest.raises(ValueError, match="target_opset=18"):
        to_onnx(model, IRIS[:1], target_opset=17)
    with pytest.raises(TypeError, match="StringTensorType"):
        to_onnx(model, initial_types=[("X", StringTensorType([None, 4]))])
    dates = SoftmaxClassifier().fit(IRIS, np.datetime64("2000-01-01") + IRIS_Y)
    with pytest.raises(TypeError, match="nocl=True"):
        to_onnx(dates, IRIS[:1], options={"zipmap": False})


VALUES = IRIS[:, 0] * 3.0 + IRIS_Y
REGRESSORS = {
    "linear": (LinearRegressor("poisson"), VALUES, np.float64),
    "quantiles": (MLPEnsembleRegressor(2, (5,), loss=Quantile([0.1, 0.9]), max_iter=5), VALUES, np.float32),
    "targets": (MLPRegressorTorch(output="softplus", hidden_layer_sizes=(5,)), np.stack([VALUES] * 2, 1), np.float64),
}


@pytest.mark.parametrize("case", REGRESSORS)
def test_pipelines_of_values(case):
    model, y, dtype = REGRESSORS[case]
    X = IRIS[:, 1:].astype(dtype)
    model = make_pipeline(StandardScaler(), model).fit(X, y)
    file = to_onnx(model, X[:1])
    session = runtime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: X})
    expected = model.predict(X)
    np.testing.assert_allclose(found, expected.reshape(len(X), -1), rtol=1e-5 if dtype is np.float32 else 1e-10)
