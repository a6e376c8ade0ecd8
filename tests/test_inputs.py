"""What users pass in, in every form they have it, and the shape and type of what they get back."""

import functools
import os
import pickle
import tracemalloc

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from helpers import (
    CANCER,
    CANCER_Y,
    IRIS,
    IRIS_Y,
    WINE,
    WINE_Y,
    big_endian,
    configured,
    each_estimator,
    maker,
    parameters,
    read_only,
    reconfigured,
    with_read_only_parts,
    with_wide_indices,
)
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import DataConversionWarning
from torch.utils._python_dispatch import TorchDispatchMode

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.data.inputs import to_numpy

# whole numbers from 0 to 16, which every dtype holds exactly, and many zeros
DIGITS, DIGITS_Y = (part[:90] for part in load_digits(n_class=3, return_X_y=True))
DIGITS = np.ascontiguousarray(DIGITS[:, 10:30])
NAMES = [f"pixel {i}" for i in range(DIGITS.shape[1])]


make = maker(
    {"max_iter": 6, "batch_size": 30, "random_state": 0, "device": "cpu"},
    network={"hidden_layer_sizes": (7,), "activation": "tanh", "learning_rate_init": 0.05},
)


@functools.cache
def on_digits(cls, dtype="float64", weighted=False, **params):
    """A model of plain arrays, as the standard of the other forms. (Not to be changed: it is one for all.)"""
    weight = np.linspace(1, 2, len(DIGITS)) if weighted else None
    return make(cls, **params).fit(DIGITS.astype(dtype), DIGITS_Y, sample_weight=weight)


METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function"]
#: Forms of X and y that the models of a calibration's folds meet. Their rows are taken from what X and y have become;
#: of the other forms, which have become the same, the model alone tells as much in a sixth of the time.
MET_BY_FOLDS = {"list of lists", "read-only", "tensor", "csc_array", "messy", "strings", "nullable integers"}


def folds_for(form):
    return {} if form in MET_BY_FOLDS else {"calibration": None}


def assert_same(model, reference, given, plain, rtol=0.0):
    """Two models are the same, and say the same of the same rows however those are given."""
    assert type(parameters(model)) is np.ndarray
    np.testing.assert_allclose(parameters(model), parameters(reference), rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(model.classes_, reference.classes_)
    for method in METHODS:
        assert hasattr(model, method) == hasattr(reference, method)
        if not hasattr(model, method):
            continue
        found, wanted = getattr(model, method)(given), getattr(reference, method)(plain)
        assert type(found) is np.ndarray
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=max(10 * rtol, 1e-12), atol=10 * rtol)


# ---- dense features --------------------------------------------------------------------------------------------------


def non_contiguous(X):
    wide = np.full((2 * len(X), 3 * X.shape[1]), np.nan)
    wide[::2, 1::3] = X
    return wide[::2, 1::3]


def negative_strides(X):
    return np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1]


def transposed_tensor(X):
    return torch.from_numpy(np.ascontiguousarray(X.T)).T


EXACT = {  # float64 or wider: the same bits
    "list of lists": lambda X: X.tolist(),
    "list of arrays": list,
    "tuple": lambda X: tuple(map(tuple, X)),
    "matrix of objects": lambda X: X.astype(object),
    "Fortran order": np.asfortranarray,
    "non-contiguous": non_contiguous,
    "negative strides": negative_strides,
    "big-endian": lambda X: X.astype(">f8"),
    "read-only": read_only,
    "uint8": lambda X: X.astype(np.uint8),
    "int8": lambda X: X.astype(np.int8),
    "uint16": lambda X: X.astype(np.uint16),
    "int32": lambda X: X.astype(np.int32),
    "big-endian integers": lambda X: X.astype(">i4"),
    "uint64": lambda X: X.astype(np.uint64),
    "long double": lambda X: X.astype(np.longdouble),
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda X: torch.from_numpy(X.copy()).requires_grad_(),
    "non-contiguous tensor": transposed_tensor,
    "strided tensor": lambda X: torch.from_numpy(np.repeat(X, 2, axis=0))[::2],
    "uint8 tensor": lambda X: torch.from_numpy(X).to(torch.uint8),
    "int64 tensor": lambda X: torch.from_numpy(X).long(),
}
SINGLE = {  # trained as these are, and the coefficients in single precision
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "big-endian float32": lambda X: X.astype(">f4"),
    "float32 tensor": lambda X: torch.from_numpy(X).float(),
    "float32 tensor with gradient": lambda X: torch.from_numpy(X).float().requires_grad_(),
    "float16 tensor": lambda X: torch.from_numpy(X).half(),
    "bfloat16 tensor": lambda X: torch.from_numpy(X).bfloat16(),
}


@each_estimator
@pytest.mark.parametrize("form", EXACT)
def test_dense_features(cls, form):
    given = EXACT[form](DIGITS)
    model = make(cls, **folds_for(form)).fit(given, DIGITS_Y)
    assert_same(model, on_digits(cls, **folds_for(form)), given, DIGITS)


@each_estimator
@pytest.mark.parametrize("form", SINGLE)
def test_single_precision_features(cls, form):
    given, plain = SINGLE[form](DIGITS), DIGITS.astype(np.float32)
    model, double = make(cls).fit(given, DIGITS_Y), on_digits(cls)
    assert parameters(model).dtype == np.float32
    assert model.predict_proba(given).dtype == np.float32
    assert_same(model, on_digits(cls, "float32"), given, plain)
    np.testing.assert_allclose(parameters(model), parameters(double), rtol=1e-4, atol=1e-5)


@each_estimator
@pytest.mark.parametrize("form", ["array", "tensor", "sparse"])
def test_boolean_features(cls, form):
    X = DIGITS > 8
    given = {"array": X, "tensor": torch.from_numpy(X), "sparse": sparse.csr_array(X)}[form]
    plain = sparse.csr_array(X.astype(float)) if form == "sparse" else X.astype(float)
    assert_same(make(cls).fit(given, DIGITS_Y), make(cls).fit(plain, DIGITS_Y), given, plain)
    assert parameters(make(cls).fit(given, DIGITS_Y)).dtype == np.float64


@each_estimator
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("params", [{}, {"batch_size": 200}, {"early_stopping": True}], ids=["", "full", "stopping"])
def test_read_only_memory_maps(cls, layout, params, tmp_path):
    weight = np.linspace(1, 2, len(DIGITS))
    joblib.dump((np.asarray(DIGITS, order=layout), DIGITS_Y, weight), tmp_path / "data")
    X, y, w = joblib.load(tmp_path / "data", mmap_mode="r")
    assert isinstance(X, np.memmap) and not X.flags.writeable
    model = make(cls, **params).fit(X, y, sample_weight=w)
    assert_same(model, make(cls, **params).fit(DIGITS, DIGITS_Y, sample_weight=weight), X, DIGITS)
    assert not isinstance(model.classes_, np.memmap)


@each_estimator
def test_what_is_given_is_not_changed(cls):
    forms = {"array": DIGITS.copy(), "tensor": torch.tensor(DIGITS), "frame": pd.DataFrame(DIGITS, columns=NAMES)}
    for X in forms.values():
        y, weight = DIGITS_Y.copy(), np.ones(len(DIGITS))
        model = make(cls).fit(X, y, sample_weight=weight, X_val=X, y_val=y)
        model.predict_proba(X)
        np.testing.assert_array_equal(np.asarray(X), DIGITS)
        np.testing.assert_array_equal(y, DIGITS_Y)
        np.testing.assert_array_equal(weight, 1)
    matrix = messy(DIGITS)
    before = [part.copy() for part in (matrix.data, matrix.indices, matrix.indptr)]
    make(cls).fit(matrix, DIGITS_Y).predict(matrix)
    for part, old in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(part, old)


# ---- data frames -----------------------------------------------------------------------------------------------------


def mixed_frame(X):
    frame = pd.DataFrame(X, columns=NAMES)
    kinds = ["float64", "int64", "uint8", "Int64", "Float64"]
    return frame.astype({name: kinds[i % len(kinds)] for i, name in enumerate(NAMES)})


FRAMES = {
    "pandas": lambda X: pd.DataFrame(X, columns=NAMES),
    "pandas, odd index": lambda X: pd.DataFrame(X, columns=NAMES, index=np.arange(len(X))[::-1] * 3),
    "pandas, mixed dtypes": mixed_frame,
    "pandas, sparse": lambda X: pd.DataFrame.sparse.from_spmatrix(sparse.csr_array(X), columns=NAMES).sparse.to_dense(),
    "polars": lambda X: pl.DataFrame(X, schema=NAMES),
    "polars, integers": lambda X: pl.DataFrame(X.astype(np.int32), schema=NAMES),
}


@each_estimator
@pytest.mark.parametrize("form", FRAMES)
def test_data_frames(cls, form):
    given = FRAMES[form](DIGITS)
    model = make(cls).fit(given, DIGITS_Y)
    np.testing.assert_array_equal(model.feature_names_in_, NAMES)
    assert model.n_features_in_ == len(NAMES)
    assert_same(model, on_digits(cls), given, DIGITS)


@each_estimator
@pytest.mark.parametrize("form", ["pandas", "polars"])
def test_validation_frames(cls, form):
    given = FRAMES[form](DIGITS)
    model = make(cls, early_stopping=True, scoring="f1_macro")
    model.fit(given, DIGITS_Y, X_val=given, y_val=pd.Series(DIGITS_Y))
    reference = clone(model).fit(DIGITS, DIGITS_Y, X_val=DIGITS, y_val=DIGITS_Y)
    assert model.validation_scores_ == reference.validation_scores_
    assert_same(model, reference, given, DIGITS)


@each_estimator
def test_names_are_forgotten_with_the_frame(cls):
    model = make(cls).fit(FRAMES["pandas"](DIGITS), DIGITS_Y)
    model.fit(DIGITS, DIGITS_Y)
    assert not hasattr(model, "feature_names_in_")
    model.predict(DIGITS)


# ---- sparse features -------------------------------------------------------------------------------------------------


def explicit_zeros(X):
    matrix = sparse.csr_array(X + 1000.0)
    matrix.data -= 1000.0
    assert (matrix.data == 0).any()
    return matrix


def duplicates(X):
    """Every entry in two parts."""
    whole = sparse.csr_array(X)
    parts = np.repeat(whole.data, 2)
    parts[::2], parts[1::2] = whole.data - 3, 3
    return sparse.csr_array((parts, np.repeat(whole.indices, 2), whole.indptr * 2), shape=X.shape)


def unsorted(X):
    matrix = sparse.csr_array(X)
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        matrix.indices[start:end] = matrix.indices[start:end][::-1].copy()
        matrix.data[start:end] = matrix.data[start:end][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


def messy(X):
    """Duplicates, out of order, and zeros that are written out."""
    whole = duplicates(explicit_zeros(X).toarray() + 0.0)
    order = np.random.default_rng(0).permutation(whole.nnz)
    rows = np.repeat(np.arange(len(X)), np.diff(whole.indptr))
    order = order[np.argsort(rows[order], kind="stable")]
    return sparse.csr_array((whole.data[order], whole.indices[order], whole.indptr), shape=X.shape)


SPARSE = {
    **{f.__name__: f for f in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix)},
    **{f.__name__: f for f in (sparse.csr_array, sparse.csc_array, sparse.coo_array)},
    "lil": sparse.lil_array,
    "dok": sparse.dok_array,
    "64-bit indices": with_wide_indices,
    "64-bit CSC": lambda X: sparse.csc_array(with_wide_indices(X)),
    "explicit zeros": explicit_zeros,
    "duplicates": duplicates,
    "COO duplicates": lambda X: sparse.coo_array(duplicates(X)),
    "unsorted": unsorted,
    "messy": messy,
    "read-only": with_read_only_parts,
    "integers": lambda X: sparse.csr_array(X.astype(np.int64)),
    "uint8": lambda X: sparse.csr_array(X.astype(np.uint8)),
    "big-endian": big_endian,
}


def sparse_settings(cls):
    """Dense columns are centred to train in, sparse ones are not: without that the two are one and the same."""
    return {"standardize": False} | ({} if cls is MLPClassifierTorch else {"learning_rate_init": 1e-3})


@each_estimator
@pytest.mark.parametrize(
    "form, stopping",
    [(form, False) for form in SPARSE] + [(form, True) for form in ("csc_array", "explicit zeros", "messy", "uint8")],
)
def test_sparse_features(cls, form, stopping):
    given, weight = SPARSE[form](DIGITS), np.linspace(1, 2, len(DIGITS))
    assert sparse.issparse(given)
    params = {"early_stopping": stopping, "validation_fraction": 0.3, **sparse_settings(cls), **folds_for(form)}
    model = make(cls, **params).fit(given, DIGITS_Y, sample_weight=weight)
    reference = on_digits(cls, weighted=True, **params)
    assert_same(model, reference, given, DIGITS, rtol=1e-9)


@each_estimator
def test_sparse_single_precision(cls):
    given = sparse.csr_array(DIGITS.astype(np.float32))
    model = make(cls, **sparse_settings(cls)).fit(given, DIGITS_Y)
    assert parameters(model).dtype == model.predict_proba(given).dtype == np.float32
    reference = make(cls, **sparse_settings(cls)).fit(DIGITS.astype(np.float32), DIGITS_Y)
    np.testing.assert_allclose(parameters(model), parameters(reference), rtol=1e-5, atol=1e-6)


@each_estimator
def test_sparse_with_an_empty_row_and_column(cls):
    X = DIGITS.copy()
    X[3], X[:, 5] = 0, 0
    model = make(cls, **sparse_settings(cls)).fit(sparse.csr_array(X), DIGITS_Y)
    reference = make(cls, **sparse_settings(cls)).fit(X, DIGITS_Y)
    assert_same(model, reference, sparse.csr_array(X), X, rtol=1e-9)
    empty = sparse.csr_array((2, X.shape[1]))
    np.testing.assert_allclose(model.predict_proba(empty), reference.predict_proba(np.zeros(empty.shape)), rtol=1e-9)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_sparse_and_dense_have_one_optimum(cls):
    """Scaled columns or centred and scaled ones: only the way there differs."""
    params = {"max_iter": 500, "tol": 1e-7, "alpha": 0.1, "solver": "lbfgs"}
    if cls is HingeClassifier:
        params |= {"loss": "squared_hinge", "calibration": None}
    dense, thin = make(cls, **params).fit(DIGITS, DIGITS_Y), make(cls, **params).fit(sparse.csr_array(DIGITS), DIGITS_Y)
    np.testing.assert_allclose(thin.coef_, dense.coef_, atol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest dense tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided:
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.slow
@each_estimator
@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True}, {"batch_size": 5000}], ids=["plain", "early stopping", "full batch"]
)
def test_a_large_sparse_matrix_stays_sparse(cls, params):
    n, d = 1000, 100_000
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    columns = np.column_stack([y * 50 + rng.integers(0, 50, n), rng.integers(100, d, (n, 4))])
    X = sparse.csr_array((np.ones(columns.size), columns.ravel(), np.arange(n + 1) * 5), shape=(n, d))
    model = make(cls, max_iter=2, batch_size=200, **({"hidden_layer_sizes": (2,)} if cls is MLPClassifierTorch else {}))
    reconfigured(model, **params)
    with LargestTensor() as largest:
        torch.empty(0)  # with the first operation that a mode sees, torch imports its compiler
        tracemalloc.start()
        model.fit(X, y)
        predicted = model.predict(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    n_models = 5 if cls is HingeClassifier else 2  # the calibration's folds, or the units of the hidden layer
    assert 8 * d <= largest.size <= 1.1 * n_models * 8 * d  # the weights; a batch of 200 rows would be 40 times that
    assert peak < n * d * 8 / 10
    assert (predicted == y).mean() > 0.9


# ---- labels ----------------------------------------------------------------------------------------------------------

WORDS = np.array(["nought", "one", "two"])
LABELS = {  # how the codes 0, 1, 2 are given, and what classes_ then is
    "list": (list, [0, 1, 2]),
    "list of strings": (lambda y: WORDS[y].tolist(), WORDS),
    "strings": (lambda y: WORDS[y], WORDS),
    "object strings": (lambda y: WORDS[y].astype(object), WORDS),
    "uint8": (lambda y: y.astype(np.uint8), [0, 1, 2]),
    "big-endian": (lambda y: y.astype(">i8") * 5, [0, 5, 10]),
    "whole floats": (lambda y: y.astype(float) - 1, [-1.0, 0.0, 1.0]),
    "negative": (lambda y: y * 7 - 100, [-100, -93, -86]),
    "series": (pd.Series, [0, 1, 2]),
    "series, odd index": (lambda y: pd.Series(y, index=np.arange(len(y))[::-1]), [0, 1, 2]),
    "series of strings": (lambda y: pd.Series(WORDS[y]), WORDS),
    "series of objects": (lambda y: pd.Series(WORDS[y], dtype=object), WORDS),
    "categories": (lambda y: pd.Series(pd.Categorical(WORDS[y])), WORDS),
    "nullable integers": (lambda y: pd.Series(y, dtype="Int64"), [0, 1, 2]),
    "polars": (pl.Series, [0, 1, 2]),
    "polars strings": (lambda y: pl.Series(WORDS[y].tolist()), WORDS),
    "tensor": (torch.from_numpy, [0, 1, 2]),
    "float tensor": (lambda y: torch.from_numpy(y).double(), [0, 1, 2]),
    "negative strides": (lambda y: y[::-1].copy()[::-1], [0, 1, 2]),
    "read-only": (read_only, [0, 1, 2]),
}


@each_estimator
@pytest.mark.parametrize("form", LABELS)
def test_labels(cls, form):
    convert, classes = LABELS[form]
    reference = on_digits(cls, **folds_for(form))
    model = make(cls, **folds_for(form)).fit(DIGITS, convert(DIGITS_Y))
    np.testing.assert_array_equal(model.classes_, classes)
    np.testing.assert_array_equal(parameters(model), parameters(reference))
    predicted = model.predict(DIGITS)
    assert type(predicted) is np.ndarray
    assert predicted.dtype == model.classes_.dtype
    np.testing.assert_array_equal(predicted, np.asarray(classes)[reference.predict(DIGITS)])
    assert model.score(DIGITS, convert(DIGITS_Y)) == reference.score(DIGITS, DIGITS_Y) > 0.8


@each_estimator
@pytest.mark.parametrize(
    "convert",
    [lambda y: y == 1, lambda y: (y == 1).tolist(), lambda y: torch.from_numpy(y == 1), lambda y: pd.Series(y == 1)],
    ids=["array", "list", "tensor", "series"],
)
def test_boolean_labels(cls, convert):
    y = convert(DIGITS_Y)
    model = make(cls).fit(DIGITS, y)
    assert model.classes_.tolist() == [False, True]
    assert model.classes_.dtype == model.predict(DIGITS).dtype == bool
    np.testing.assert_array_equal(parameters(model), parameters(make(cls).fit(DIGITS, 1 * (DIGITS_Y == 1))))


def in_two_parts(cls, convert):
    model = make(cls, **({"calibration": None} if cls is HingeClassifier else {}))
    for rows in (slice(0, 50), slice(50, 90)):
        model.partial_fit(DIGITS[rows], convert(DIGITS_Y[rows]), classes=convert(np.array([0, 1, 2])))
    return model


reference_in_two_parts = functools.cache(lambda cls: in_two_parts(cls, np.asarray))


@each_estimator
@pytest.mark.parametrize("form", LABELS)
def test_labels_of_partial_fit(cls, form):
    convert, classes = LABELS[form]
    model = in_two_parts(cls, convert)
    np.testing.assert_array_equal(model.classes_, classes)
    np.testing.assert_array_equal(parameters(model), parameters(reference_in_two_parts(cls)))


@each_estimator
def test_a_column_of_labels_is_flattened_with_a_warning(cls):
    with pytest.warns(DataConversionWarning, match="column-vector"):
        model = make(cls).fit(DIGITS, DIGITS_Y[:, None])
    np.testing.assert_array_equal(parameters(model), parameters(on_digits(cls)))
    assert model.predict(DIGITS).shape == (len(DIGITS),)


@each_estimator
def test_class_weight_speaks_of_labels(cls):
    by_word = make(cls, class_weight={"nought": 3, "one": 1, "two": 0.5}).fit(DIGITS, WORDS[DIGITS_Y])
    by_code = make(cls, class_weight={0: 3, 1: 1, 2: 0.5}).fit(DIGITS, DIGITS_Y)
    by_row = make(cls).fit(DIGITS, DIGITS_Y, sample_weight=np.array([3, 1, 0.5])[DIGITS_Y])
    np.testing.assert_array_equal(parameters(by_word), parameters(by_code))
    if cls is not HingeClassifier:  # whose calibration is of the samples as they come
        np.testing.assert_allclose(parameters(by_code), parameters(by_row), rtol=1e-9)
    assert not np.allclose(parameters(by_code), parameters(make(cls).fit(DIGITS, DIGITS_Y)))


# ---- sample weights --------------------------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(0).integers(1, 5, len(DIGITS)).astype(float)
WEIGHTS = {
    "list": list,
    "tuple": tuple,
    "integers": lambda w: w.astype(int),
    "float32": lambda w: w.astype(np.float32),
    "big-endian": lambda w: w.astype(">f8"),
    "series": pd.Series,
    "series, odd index": lambda w: pd.Series(w, index=np.arange(len(w))[::-1] + 5),
    "polars": pl.Series,
    "tensor": torch.from_numpy,
    "tensor with gradient": lambda w: torch.tensor(w, requires_grad=True),
    "negative strides": lambda w: w[::-1].copy()[::-1],
    "read-only": read_only,
}


def by_weights(cls, weight):
    validation = {"X_val": DIGITS, "y_val": DIGITS_Y, "sample_weight_val": weight}
    return make(cls).fit(DIGITS, DIGITS_Y, sample_weight=weight, **validation)


reference_by_weights = functools.cache(lambda cls: by_weights(cls, WEIGHT))


@each_estimator
@pytest.mark.parametrize("form", WEIGHTS)
def test_sample_weight(cls, form):
    model, reference = by_weights(cls, WEIGHTS[form](WEIGHT)), reference_by_weights(cls)
    np.testing.assert_array_equal(parameters(model), parameters(reference))
    assert model.validation_scores_ == reference.validation_scores_
    assert not np.allclose(parameters(model), parameters(on_digits(cls)))


# ---- shapes and types of what was learnt -----------------------------------------------------------------------------


@each_estimator
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("X, y", [(WINE, WINE_Y), (CANCER, CANCER_Y)], ids=["three classes", "two classes"])
def test_fitted_attributes(cls, dtype, X, y):
    X = X.astype(dtype)
    model = make(cls, max_iter=5).fit(X, y)
    n_classes, d = len(np.unique(y)), X.shape[1]
    rows = 1 if n_classes == 2 else n_classes
    kind = np.float32 if dtype is np.float32 else np.float64
    if cls is MLPClassifierTorch:
        n_bins = 4 if len(y) >= 512 else 5 if dtype is np.int64 else 0  # of few rows, between few values
        n_inputs = d * (1 + n_bins)
        assert [coef.shape for coef in model.coefs_] == [(n_inputs, 7), (7, rows)]
        assert [intercept.shape for intercept in model.intercepts_] == [(7,), (rows,)]
        assert {array.dtype for array in model.coefs_ + model.intercepts_} == {np.dtype(kind)}
        assert (model.n_layers_, model.out_activation_) == (3, "logistic" if rows == 1 else "softmax")
    else:
        assert model.coef_.shape == (rows, d)
        assert model.intercept_.shape == (rows,)
        assert model.coef_.dtype == model.intercept_.dtype == kind
    np.testing.assert_array_equal(model.classes_, range(n_classes))
    assert type(model.n_iter_) is int and model.n_iter_ == 5
    assert len(model.loss_curve_) == 5 and all(type(loss) is float for loss in model.loss_curve_)
    assert model.loss_ == model.loss_curve_[-1]
    assert model.best_loss_ == min(model.loss_curve_)
    assert (model.n_features_in_, model.n_outputs_, model.t_) == (d, rows, 5 * len(X))
    assert model.validation_scores_ is None
    proba = model.predict_proba(X)
    assert proba.shape == (len(X), n_classes)
    assert model.decision_function(X).shape == ((len(X),) if rows == 1 else (len(X), n_classes))
    assert proba.dtype == model.decision_function(X).dtype == kind
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba, rtol=1e-5)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_no_intercept(cls):
    model = make(cls, fit_intercept=False).fit(WINE, WINE_Y)
    np.testing.assert_array_equal(model.intercept_, np.zeros(3))
    np.testing.assert_allclose(model.decision_function(WINE), WINE @ model.coef_.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_decision_function_is_linear(cls):
    model = make(cls).fit(WINE, WINE_Y)
    scores = WINE @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(model.decision_function(WINE), scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier])
def test_sparse_coefficients(cls):
    model = make(cls, penalty="l1", alpha=0.05, max_iter=20).fit(DIGITS, DIGITS_Y)
    assert (model.coef_ == 0).mean() > 0.2
    expected = model.decision_function(DIGITS)
    model.sparsify()
    assert sparse.issparse(model.coef_)
    np.testing.assert_allclose(model.decision_function(DIGITS), expected)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model.densify())).decision_function(DIGITS), expected)


@each_estimator
@pytest.mark.parametrize("y", [WINE_Y, 1 * (WINE_Y == 0)], ids=["three classes", "two classes"])
def test_one_feature(cls, y):
    X = WINE[:, [6]]
    model = make(cls, max_iter=30).fit(X, y)
    assert model.n_features_in_ == 1
    assert model.predict_proba(X).shape == (len(X), y.max() + 1)
    assert model.score(X, y) > np.bincount(y).max() / len(y)
    assert make(cls).fit(sparse.csr_array(X), y).n_features_in_ == 1


@pytest.mark.parametrize("label", ["only", 3, True])
def test_one_class(label):
    model = make(MLPClassifierTorch).fit(DIGITS, [label] * len(DIGITS))
    assert model.classes_.tolist() == [label]
    assert set(model.predict(DIGITS)) == {label}
    np.testing.assert_array_equal(model.predict_proba(DIGITS), np.ones((len(DIGITS), 1)))
    assert model.decision_function(DIGITS).shape == (len(DIGITS),)
    assert model.score(DIGITS, [label] * len(DIGITS)) == 1.0


# ---- several labels per row ------------------------------------------------------------------------------------------

INDICATORS = np.column_stack([DIGITS_Y == 0, DIGITS_Y != 1, DIGITS[:, 4] > 8, DIGITS[:, 9] > 8]).astype(int)


@functools.cache
def of_indicators(convert):
    return make(MLPClassifierTorch, max_iter=60).fit(DIGITS, convert(INDICATORS))


@pytest.mark.parametrize(
    "convert",
    [
        lambda Y: Y.copy(),
        sparse.csr_matrix,
        lambda Y: Y.astype(bool),
        lambda Y: Y.tolist(),
        lambda Y: pd.DataFrame(Y, columns=list("abcd")),
        torch.from_numpy,
    ],
    ids=["array", "sparse", "bool", "list", "frame", "tensor"],
)
def test_multilabel(convert):
    reference, model = of_indicators(np.asarray), of_indicators(convert)
    np.testing.assert_array_equal(parameters(model), parameters(reference))
    predicted, proba = model.predict(DIGITS), model.predict_proba(DIGITS)
    assert predicted.shape == proba.shape == model.decision_function(DIGITS).shape == INDICATORS.shape
    assert set(np.unique(predicted)) == {0, 1}
    assert (proba > 0).all() and (proba < 1).all()
    np.testing.assert_array_equal(predicted, proba > 0.5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(DIGITS)), proba)
    assert (predicted == INDICATORS).mean() > 0.9
    assert (model.n_outputs_, model.out_activation_) == (4, "logistic")
    np.testing.assert_array_equal(model.classes_, range(4))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_multilabel_probabilities_stay_inside(dtype):
    X = DIGITS.astype(dtype)
    model = make(MLPClassifierTorch, activation="relu", learning_rate_init=0.01).fit(X, INDICATORS)
    proba = model.predict_proba(X * 10_000)
    assert np.abs(model.decision_function(X * 10_000)).max() > 1000
    assert (proba > 0).all() and (proba < 1).all()
    assert np.isfinite(model.predict_log_proba(X * 10_000)).all()


def test_multilabel_in_parts():
    options = {"shuffle": False, "learning_rate": "constant", "alpha": 0.05}  # "auto" counts the rows of all calls
    parts = make(MLPClassifierTorch, **options)
    for _ in range(6):
        parts.partial_fit(DIGITS, INDICATORS, classes=range(4))
    whole = make(MLPClassifierTorch, **options, tol=0.0).fit(DIGITS, INDICATORS)
    np.testing.assert_allclose(parameters(parts), parameters(whole), rtol=1e-10)
    stopping = make(MLPClassifierTorch, early_stopping=True).fit(DIGITS, INDICATORS, X_val=DIGITS, y_val=INDICATORS)
    assert len(stopping.validation_scores_) == 6


# ---- what is predicted is consistent ---------------------------------------------------------------------------------

MODELS = {
    "softmax": SoftmaxClassifier,
    "temperature": lambda **p: configured(HingeClassifier, **p, calibration="temperature"),
    "sigmoid": lambda **p: configured(HingeClassifier, **p, calibration="sigmoid"),
    "sigmoid, ovr": lambda **p: configured(
        HingeClassifier, **p, calibration="sigmoid", loss="squared_hinge", multi_class="ovr"
    ),
    "uncalibrated": lambda **p: configured(HingeClassifier, **p, calibration=None),
    "mlp": lambda **p: MLPClassifierTorch(**p, hidden_layer_sizes=(7,), learning_rate_init=0.03),
}


SCALED = {n: ((X - X.mean(0)) / X.std(0), y) for n, X, y in [(3, WINE, WINE_Y), (2, CANCER, CANCER_Y)]}


@functools.cache
def of_scaled(name, dtype, n_classes):
    X, y = SCALED[n_classes]
    return MODELS[name](max_iter=20, random_state=0, device="cpu").fit(X.astype(dtype), y)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
@pytest.mark.parametrize("n_classes", SCALED)
def test_every_row_is_told_the_same(name, dtype, far, n_classes):
    X, model = SCALED[n_classes][0].astype(dtype), of_scaled(name, dtype, n_classes)
    if far:  # rows in any direction, where probabilities are as good as 0 and 1
        X = (300 * np.random.default_rng(0).normal(size=(400, X.shape[1]))).astype(dtype)
    predicted, scores = model.predict(X), model.decision_function(X)
    np.testing.assert_array_equal(predicted, scores.argmax(1) if scores.ndim == 2 else scores > 0)
    if name == "uncalibrated":
        assert not hasattr(model, "predict_proba")
        return
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(proba.argmax(1), predicted)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
    assert proba.min() > 0
    assert np.isfinite(model.predict_log_proba(X)).all()
    if not far:
        assert (predicted == SCALED[n_classes][1]).mean() > 0.8


def test_calibrations_rank_alike():
    scores = [MODELS[name](max_iter=20, random_state=0).fit(CANCER, CANCER_Y) for name in ("temperature", "sigmoid")]
    own, other = (model.decision_function(CANCER) for model in scores)
    rises = np.diff(other[np.argsort(own)])
    assert rises.min() > -1e-9 * np.ptp(other)  # rows at their margins are level, up to rounding
    assert scores[0].temperature_ > 0
    assert not hasattr(scores[1], "temperature_")


# ---- methods that are there, and those that are not ------------------------------------------------------------------


def test_no_probabilities_without_calibration():
    for model in (HingeClassifier(calibration=None), make(HingeClassifier, calibration=None).fit(IRIS, IRIS_Y)):
        for method in ("predict_proba", "predict_log_proba"):
            assert not hasattr(model, method)
            with pytest.raises(AttributeError, match=r"calibration=None.*temperature"):
                getattr(model, method)
    assert hasattr(HingeClassifier(), "predict_proba")
    assert hasattr(HingeClassifier, "predict_proba")


@pytest.mark.parametrize(
    "model, reason",
    [
        (SoftmaxClassifier(early_stopping=True), "early_stopping"),
        (SoftmaxClassifier(solver="lbfgs"), "lbfgs"),
        (SoftmaxClassifier(class_weight="balanced"), "balanced"),
        (HingeClassifier(), "calibration"),
        (HingeClassifier(calibration="sigmoid"), "calibration"),
        (HingeClassifier(calibration=None, early_stopping=True), "early_stopping"),
        (MLPClassifierTorch(early_stopping=True), "early_stopping"),
        (MLPClassifierTorch(solver="lbfgs"), "lbfgs"),
        (MLPClassifierTorch(class_weight="balanced"), "balanced"),
    ],
    ids=repr,
)
def test_no_partial_fit_where_it_makes_no_sense(model, reason):
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match=f"partial_fit.*{reason}"):
        model.partial_fit  # noqa: B018


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(),
        SoftmaxClassifier(class_weight={0: 2.0}),
        HingeClassifier(calibration=None),
        MLPClassifierTorch(solver="sgd"),
    ],
    ids=repr,
)
def test_partial_fit_elsewhere(model):
    assert callable(model.partial_fit)


@each_estimator
def test_partial_fit_after_fit_knows_the_classes(cls):
    model = make(cls, **({"calibration": None} if cls is HingeClassifier else {})).fit(IRIS, IRIS_Y)
    before = parameters(model).copy()
    model.partial_fit(IRIS[:10], IRIS_Y[:10])
    assert model.n_iter_ == 1 and len(model.loss_curve_) == 7
    assert not np.array_equal(parameters(model), before)
    assert model.decision_function(IRIS).shape == (150, 3)


@pytest.mark.slow
@each_estimator
def test_partial_fit_one_row_at_a_time(cls):
    model = make(cls, **({"calibration": None} if cls is HingeClassifier else {}))
    X = (IRIS - IRIS.mean(0)) / IRIS.std(0)
    order = np.random.default_rng(0).permutation(len(X))[:75]
    for i in order:
        reconfigured(model, learning_rate_init=0.05).partial_fit(X[[i]], IRIS_Y[[i]], classes=[0, 1, 2])
    assert model.t_ == len(order)
    assert model.score(X, IRIS_Y) > 0.6


# ---- devices ---------------------------------------------------------------------------------------------------------


def absent(device):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return pytest.mark.skipif(not there[device], reason=f"no {device} device here")


each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=absent("cuda")), pytest.param("mps", marks=absent("mps"))]
)


@each_estimator
@pytest.mark.parametrize("device", ["auto", "cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)], ids=repr)
def test_ways_to_say_cpu(cls, device):
    if device == "auto" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("auto is another device here")
    model = make(cls, device=device).fit(DIGITS, DIGITS_Y)
    assert_same(model, on_digits(cls), DIGITS, DIGITS)
    assert clone(model).get_params()["device"] == device


@each_device
@each_estimator
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, torch.from_numpy], ids=["array", "sparse", "tensor"])
def test_trained_on_any_device(cls, device, form):
    X = form(DIGITS)
    params = {} if cls is MLPClassifierTorch else {"standardize": False, "learning_rate_init": 1e-3}
    model = make(cls, device=device, **params).fit(X, DIGITS_Y)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    elsewhere = restored.set_params(device="cpu")
    np.testing.assert_allclose(elsewhere.predict_proba(X), model.predict_proba(X), rtol=1e-4, atol=1e-5)
    alone = make(cls, device="cpu", **params).fit(X, DIGITS_Y)
    np.testing.assert_allclose(parameters(model), parameters(alone), rtol=1e-3, atol=1e-4)


@each_device
@each_estimator
def test_a_tensor_is_used_where_it_lies(cls, device):
    X = torch.from_numpy(DIGITS).float().to(device)
    model = make(cls, device="auto" if device != "cpu" else "cpu").fit(X, torch.from_numpy(DIGITS_Y).to(device))
    reference = make(cls).fit(DIGITS.astype(np.float32), DIGITS_Y)
    assert type(model.predict_proba(X)) is np.ndarray
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X.cpu()), rtol=1e-3, atol=1e-4)


@each_estimator
def test_a_model_from_a_machine_with_cuda_predicts_here(cls):
    if torch.cuda.is_available():
        pytest.skip("CUDA is here")
    model = make(cls).fit(DIGITS, DIGITS_Y)
    expected = model.predict_proba(DIGITS)
    np.testing.assert_array_equal(model.set_params(device="cuda").predict_proba(DIGITS), expected)


# ---- tensors in, tensors out -----------------------------------------------------------------------------------------


@pytest.fixture
def dispatch():
    if os.environ.get("SCIPY_ARRAY_API") != "1":
        pytest.skip("SCIPY_ARRAY_API must be 1 before SciPy is imported")
    with sklearn.config_context(array_api_dispatch=True):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each_estimator
def test_tensors_in_tensors_out(cls, dtype, dispatch):
    X, y = torch.tensor(IRIS, dtype=dtype), torch.tensor(IRIS_Y)
    model = make(cls).fit(X, y)
    results = [getattr(model, m)(X) for m in ("predict_proba", "predict_log_proba", "decision_function")]
    predicted = model.predict(X)
    assert 0 <= model.score(X, y) <= 1
    coef = model.coef_ if hasattr(model, "coef_") else model.coefs_[0]
    assert isinstance(coef, torch.Tensor) and coef.dtype == dtype
    assert all(isinstance(r, torch.Tensor) and r.dtype == dtype for r in results)
    assert isinstance(predicted, torch.Tensor) and not predicted.is_floating_point()
    with sklearn.config_context(array_api_dispatch=False):
        plain = make(cls).fit(X.numpy(), IRIS_Y)
        np.testing.assert_array_equal(results[0].numpy(), plain.predict_proba(X.numpy()))
        np.testing.assert_array_equal(predicted.numpy(), plain.predict(X.numpy()))


@each_estimator
def test_dispatch(cls, dispatch):
    X, y, weight = torch.tensor(DIGITS), torch.tensor(DIGITS_Y), torch.tensor(WEIGHT)
    given = {"sample_weight": weight, "X_val": X, "y_val": y, "sample_weight_val": weight}
    model = make(cls, early_stopping=True).fit(X, y, **given)
    with sklearn.config_context(array_api_dispatch=False):
        plain = make(cls, early_stopping=True).fit(*(DIGITS, DIGITS_Y), **{k: v.numpy() for k, v in given.items()})
    for method in METHODS:
        found = getattr(model, method)(X)
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found.numpy(), getattr(plain, method)(DIGITS))
    restored = pickle.loads(pickle.dumps(model))
    assert torch.equal(restored.predict_proba(X), model.predict_proba(X))


@each_estimator
def test_dispatch_goes_on(cls, dispatch):
    X, y = torch.tensor(DIGITS), torch.tensor(DIGITS_Y)
    params = {"calibration": None} if cls is HingeClassifier else {}
    model = make(cls, warm_start=True, **params).fit(X, y).fit(X, y).partial_fit(X, y)
    with sklearn.config_context(array_api_dispatch=False):
        plain = make(cls, warm_start=True, **params).fit(DIGITS, DIGITS_Y).fit(DIGITS, DIGITS_Y)
        plain.partial_fit(DIGITS, DIGITS_Y)
    np.testing.assert_allclose(parameters(model), parameters(plain), rtol=1e-12)


@each_estimator
def test_dispatch_keeps_strings_in_numpy(cls, dispatch):
    X = torch.tensor(DIGITS)
    model = make(cls).fit(X, WORDS[DIGITS_Y])
    assert set(model.predict(X)) <= set(WORDS)
    assert isinstance(model.predict_proba(X), torch.Tensor)


@each_estimator
def test_dispatch_leaves_numpy_alone(cls, dispatch):
    model = make(cls).fit(DIGITS, DIGITS_Y)
    assert type(parameters(model)) is type(model.predict_proba(DIGITS)) is np.ndarray
    assert type(model.predict(FRAMES["pandas"](DIGITS).to_numpy())) is np.ndarray


@each_estimator
def test_namespaces_do_not_mix(cls, dispatch):
    model = make(cls).fit(DIGITS, DIGITS_Y)
    with pytest.raises(ValueError, match="same"):
        model.predict(torch.tensor(DIGITS))


def test_arrays_of_numpy_stay_what_they_are():
    """Under array API dispatch, the oldest scikit-learn made them read-only, of which torch warned in `fit`."""
    array = np.ones(3)
    with sklearn.config_context(array_api_dispatch=True):
        assert to_numpy(array) is array
