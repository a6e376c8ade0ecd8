"""What cannot be used of labels, weights, columns and scorings is named before any training, by every estimator."""

import datetime
import decimal
import functools
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from helpers import configured, in_one_test, linear_module
from scipy import sparse
from sklearn import model_selection as reference
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight

from skdeep import (
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep import model_selection as stacked
from skdeep.data.conversion import floats
from skdeep.data.labels import accuracy, weights_of_classes, weights_of_labels
from skdeep.engine.batching import Batches
from skdeep.exact.rows import Rows
from skdeep.fitting.fit import train_each
from skdeep.model_selection import StackingWarning, one_standard_error
from skdeep.solvers.closed_form import Ridge

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning",
    "ignore:The scores of rows:UserWarning",  # labels that have nothing to do with the columns
)

RNG = np.random.default_rng(0)
N = 40
X = RNG.normal(size=(N, 3))
BINARY = (X[:, 0] + 0.3 * RNG.normal(size=N) > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.4, 0.4])
WORDS = np.array(["no", "yes"])[BINARY]
LABELS = np.column_stack([BINARY, X[:, 1] > 0]).astype(int)


MAKE = {
    "softmax": lambda **p: configured(SoftmaxClassifier, max_iter=2, **p),
    "sigmoid": lambda **p: configured(SigmoidClassifier, max_iter=2, solver="sgd", **p),
    "hinge": lambda **p: configured(HingeClassifier, max_iter=2, **{"calibration": None, **p}),
    "least squares": lambda **p: configured(LeastSquaresClassifier, max_iter=2, **{"calibration": None, **p}),
    "mlp": lambda **p: MLPClassifierTorch((3,), max_iter=2, learning_rate="constant", **p),
    "ensemble": lambda **p: MLPEnsembleClassifier(2, (3,), max_iter=2, **p),
    "module": lambda **p: TorchClassifier(linear_module, max_iter=2, **p),
}
each_estimator = pytest.mark.parametrize("name", MAKE)
MULTILABEL = ("sigmoid", "mlp", "ensemble", "module")


def ways_of(name, y, good, weight=None):
    """Every method that a bad target `y`, or weights, can come in by; `good` is a target of the same kind."""
    make = MAKE[name]
    arguments = {} if weight is None else {"sample_weight": weight}
    yield lambda: make().fit(X, y, **arguments)
    of_validation = {} if weight is None else {"sample_weight_val": weight}
    yield lambda: make().fit(X, good, X_val=X, y_val=y, **of_validation)
    if hasattr(make(), "partial_fit"):
        classes = np.arange(good.shape[1]) if good.ndim == 2 else np.unique(good)
        yield lambda: make().partial_fit(X, y, classes=classes, **arguments)


@pytest.fixture
def no_training(monkeypatch):
    """Fails the test if an epoch, or a solution in closed form, begins."""

    def begin(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(Batches, "epoch", begin)
    monkeypatch.setattr(Ridge, "solve", begin)
    monkeypatch.setattr(Rows, "scores", begin)


@each_estimator
def test_training_is_noticed(name, no_training):
    with pytest.raises(AssertionError, match="training began"):
        MAKE[name]().fit(X, BINARY)


# ---- label indicators ------------------------------------------------------------------------------------------------

NOT_INDICATORS = {
    "-1, 1": (2 * LABELS - 1, "[-1, 1]"),
    "1, 2": (LABELS + 1, "[1, 2]"),
    "0, 2": (2 * LABELS, "[0, 2]"),
    "halves": (LABELS / 2, "[0.0, 0.5]"),
    "all 2": (np.full((N, 2), 2), "[2]"),
    "a column of 2": (np.column_stack([BINARY, np.full(N, 2)]), "[0, 1, 2]"),
    "words": (np.where(LABELS, "yes", "no"), "['no', 'yes']"),
    "sparse": (sparse.csr_array(2 * LABELS), "[0, 2]"),
    "sparse -1": (sparse.coo_array(-LABELS), "[-1, 0]"),
    "sparse -1 and 1": (sparse.csc_array(2 * LABELS - 1), "[-1, 1]"),
    "tensor": (torch.tensor(2 * LABELS - 1), "[-1, 1]"),
    "frame": (pd.DataFrame(LABELS + 1), "[1, 2]"),
    "nullable": (pd.DataFrame(LABELS + 1).astype("Int64"), "[1, 2]"),
    "Polars": (pl.DataFrame(LABELS * 5, schema=["a", "b"]), "[0, 5]"),
    "objects": ((LABELS + 1).astype(object), "[1, 2]"),
    "list": ((LABELS * 3).tolist(), "[0, 3]"),
}


@pytest.mark.parametrize("name", MULTILABEL)
@in_one_test("case", NOT_INDICATORS)
def test_indicators_are_zeros_and_ones(name, case, no_training):
    y, values = NOT_INDICATORS[case]
    for fit in ways_of(name, y, LABELS):
        with pytest.raises(ValueError, match=rf"label indicators 0 and 1.*values {re.escape(values)}"):
            fit()


@pytest.mark.parametrize(
    "y",
    [
        LABELS.astype(bool),
        LABELS.astype(float),
        LABELS.astype(object),
        sparse.csr_array(LABELS),
        sparse.csr_array((np.r_[0.0, np.ones(N)], np.r_[0, np.ones(N)].astype(int), np.r_[0, np.arange(2, N + 2)])),
        torch.tensor(LABELS).bool(),
        pd.DataFrame(LABELS.astype(bool)).astype("boolean"),
        pd.DataFrame({"a": LABELS[:, 0], "b": LABELS[:, 1] == 1}),
        pl.DataFrame(LABELS, schema=["a", "b"]),
    ],
    ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', '')}",
)
def test_indicators_of_any_kind(y):
    model = SigmoidClassifier(max_iter=300, random_state=0).fit(X, y)
    table = y.toarray() if sparse.issparse(y) else np.asarray(y)
    expected = SigmoidClassifier(max_iter=300, random_state=0).fit(X, table.astype(int))
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.score(X, table.astype(int)) > 0.8 or table[:, 1].all()


@pytest.mark.parametrize("name", ["softmax", "hinge", "least squares"])
def test_one_class_per_row(name, no_training):
    with pytest.raises(ValueError, match=r"1d array.*SigmoidClassifier and MLPClassifierTorch.*argmax"):
        MAKE[name]().fit(X, LABELS)


# ---- missing and odd labels ------------------------------------------------------------------------------------------


def with_missing(value, at=(3, 7)):
    y = WORDS.astype(object)
    y[list(at)] = value
    return y


def masked(y, at=(3, 7)):
    return np.ma.masked_array(y, mask=np.isin(np.arange(N), at))


DATES = np.array(["2020-01-01", "2021-01-01"], dtype="M8[ns]")[BINARY]
NO_DATE = np.where(np.isin(np.arange(N), [3, 7]), np.datetime64("NaT"), DATES)
HOLES = pd.Series(BINARY, dtype="Int64").mask(np.isin(np.arange(N), [3, 7]))
MISSING = {
    "None": with_missing(None),
    "pandas.NA": with_missing(pd.NA),
    "nan": with_missing(np.nan),
    "NaT": with_missing(pd.NaT),
    "NumPy's NaT": with_missing(np.datetime64("NaT")),
    "list of words and None": list(with_missing(None)),
    "list of words and nan": list(with_missing(np.nan)),
    "tuple": tuple(with_missing(pd.NA)),
    "string": pd.Series(with_missing(pd.NA), dtype="string"),
    "str": pd.Series(with_missing(None)),
    "category": pd.Series(with_missing(None), dtype="category"),
    "Int64": HOLES,
    "boolean": (HOLES == 1).astype("boolean").mask(HOLES.isna()),
    "Float64": HOLES.astype("Float64"),
    "datetime": NO_DATE,
    "series of dates": pd.Series(NO_DATE),
    "dates with a time zone": pd.Series(NO_DATE).dt.tz_localize("UTC"),
    "timedelta": NO_DATE - DATES[0],
    "float": HOLES.to_numpy(float, na_value=np.nan),
    "tensor": torch.tensor(HOLES.to_numpy(float, na_value=np.nan)),
    "bfloat16": torch.tensor(HOLES.to_numpy(float, na_value=np.nan)).bfloat16(),
    "Polars words": pl.Series(list(with_missing(None))),
    "Polars integers": pl.Series(HOLES.astype(object).where(HOLES.notna(), None).tolist()),
    "Polars booleans": pl.Series([None if i in (3, 7) else bool(b) for i, b in enumerate(BINARY)]),
    "Polars categories": pl.Series(list(with_missing(None))).cast(pl.Categorical),
    "masked": masked(BINARY),
    "masked words": masked(WORDS),
}


@each_estimator
@in_one_test("case", MISSING)
def test_missing_labels_are_counted(name, case, no_training):
    for fit in ways_of(name, MISSING[case], BINARY):
        with pytest.raises(ValueError, match=r"Input y(_val)? contains NaN: 2 of 40 labels are missing.*in row 3"):
            fit()


@pytest.mark.parametrize("name", MULTILABEL)
def test_missing_indicators_are_counted(name, no_training):
    y = pd.DataFrame(LABELS).astype("Int64").mask(np.arange(2 * N).reshape(N, 2) == 7)
    with pytest.raises(ValueError, match=r"Input y contains NaN: 1 of 80 .*in row 3, column 1"):
        MAKE[name]().fit(X, y)


ODD = {
    "words and numbers": (with_missing(1), "objects of the type(s) int, str"),
    "list of words and numbers": (list(with_missing(1)), "objects of the type(s) int, str"),
    "list of words and truth": (list(with_missing(True)), "objects of the type(s) bool, str"),
    "decimals": ([decimal.Decimal(int(b)) for b in BINARY], "type(s) Decimal"),
    "time stamps": (pd.Series(DATES).astype(object), "type(s) Timestamp"),
    "periods": (pd.Series(pd.PeriodIndex(DATES, freq="M")), "type(s) Period"),
    "intervals": (pd.cut(X[:, 0], 2), "type(s) Interval"),
    "dates": ([datetime.date(2020 + b, 1, 1) for b in BINARY], "type(s) date"),
    "beyond 64 bits": (BINARY.astype(object) * 2**70, "up to 64 bits"),
    "not whole": (BINARY + 0.5, "Unknown label type: continuous"),
    "infinite": (np.where(BINARY, np.inf, 0), "infinity"),
    "longer than X": (np.r_[BINARY, 0], "inconsistent numbers of samples: [40, 41]"),
    "tuples": ([("a", int(b)) for b in BINARY], "1d array of class labels"),
    "complex": (BINARY + 1j, "objects of the type(s) complex128"),
    "records": (np.zeros(N, dtype=[("a", int)]), "objects of the type(s) void"),
    "a box": (BINARY.reshape(N, 1, 1), "1d array of class labels, got an array of shape (40, 1, 1)"),
    "one object": (set(BINARY.tolist()), "1d array of class labels, got an object of type set"),
    "dictionaries": ([{"a": b} for b in BINARY], "type(s) dict"),
}


def objects(values):
    y = np.empty(len(values), dtype=object)
    y[:] = values
    return y


RAGGED = [["no", "yes"] if b else ["no"] for b in BINARY]
#: Several labels for each row.
SEVERAL = {
    "lists": RAGGED,
    "lists of as many": [["no", "yes"] if b else ["yes", "maybe"] for b in BINARY],
    "objects that are lists": objects(RAGGED),
    "objects that are lists of as many": objects([[b, 1 - b] for b in BINARY]),
    "tuples": list(map(tuple, RAGGED)),
    "sets": list(map(set, RAGGED)),
    "frozensets": objects(list(map(frozenset, RAGGED))),
    "a series": pd.Series(RAGGED),
    "Polars lists": pl.Series(RAGGED),
}


@each_estimator
@in_one_test("case", SEVERAL)
def test_several_labels_of_a_row(name, case, no_training):
    warnings.simplefilter("ignore", StackingWarning)  # undone with the test
    for fit in ways_of(name, SEVERAL[case], BINARY):
        with pytest.raises(ValueError, match=r"MultiLabelBinarizer\(\).fit_transform makes of them the table"):
            fit()
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        stacked.GridSearchCV(MAKE[name](), {"alpha": [0.1, 1.0]}, cv=2).fit(X, SEVERAL[case])


@each_estimator
@in_one_test("case", ODD)
def test_odd_labels(name, case, no_training):
    y, message = ODD[case]
    for fit in ways_of(name, y, BINARY):
        with pytest.raises(ValueError, match=re.escape(message)):
            fit()


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hinge", "mlp", "module"])
def test_classes_of_partial_fit(name, no_training):
    for classes in (["no", None, "yes"], pd.Series(["no", pd.NA, "yes"], dtype="string"), np.array([0, np.nan, 1])):
        with pytest.raises(ValueError, match=r"Input classes contains NaN: 1 of 3 .*in row 1"):
            MAKE[name]().partial_fit(X, WORDS, classes=classes)
    with pytest.raises(ValueError, match=r"`classes` holds objects of the type.*int, str"):
        MAKE[name]().partial_fit(X, WORDS, classes=["no", 1])


@each_estimator
def test_bytes(name, no_training):
    y = np.where(BINARY, b"a", b"b")
    for kind in (np.asarray, objects, list):
        for fit in ways_of(name, kind(y), WORDS):
            with pytest.raises(TypeError, match=r"`y(_val)?` holds bytes, which are no labels. Decode them"):
                fit()


@pytest.mark.parametrize(
    "y, classes",
    [
        (BINARY.astype(object), np.array([0, 1])),
        ((BINARY == 1).astype(object), np.array([False, True])),
        (pd.Series(BINARY, dtype="Int64"), np.array([0, 1])),
        (pd.Series(BINARY + 2**53, dtype="Int64"), np.array([2**53, 2**53 + 1])),
        (pd.Series(BINARY == 1, dtype="boolean"), np.array([False, True])),
        (torch.tensor(BINARY).bfloat16(), np.array([0.0, 1.0])),
        (BINARY.astype(np.uint64) + np.uint64(2**63), np.array([2**63, 2**63 + 1], dtype=np.uint64)),
        (list(WORDS), np.array(["no", "yes"])),
        (DATES, np.unique(DATES)),
    ],
    ids=["objects", "objects of truth", "Int64", "Int64 of 54 bits", "boolean", "bfloat16", "uint64", "list", "dates"],
)
def test_labels_keep_their_kind(y, classes):
    model = SoftmaxClassifier().fit(X, y)
    np.testing.assert_array_equal(model.classes_, classes)
    assert model.classes_.dtype.kind == classes.dtype.kind
    np.testing.assert_array_equal(model.predict(X), classes[SoftmaxClassifier().fit(X, BINARY).predict(X)])


#: Labels of kinds that NumPy or scikit-learn's metrics do not tell apart by themselves, and how they come back.
KINDS = {
    "booleans": ((BINARY == 1).astype(object), bool),
    "NumPy's booleans": (objects([np.bool_(b) for b in BINARY]), bool),
    "integers": (THREE.astype(object), int),
    "integers and whole floats": (objects([int(t) if i % 2 else float(t) for i, t in enumerate(THREE)]), float),
    "integers and truth": (objects([int(b) if i % 2 else bool(b) for i, b in enumerate(BINARY)]), int),
    "a list of floats": (THREE.astype(float).tolist(), float),
    "a column of objects": (THREE.astype(object)[:, None], int),
    "pandas' booleans": (pd.Series(BINARY == 1, dtype="boolean"), bool),
    "pandas' integers": (pd.Series(THREE, dtype="Int64"), int),
    "pandas' floats": (pd.Series(THREE, dtype="Float64"), float),
    "pandas' objects": (pd.Series(THREE, dtype=object), int),
    "categories, some unused": (pd.Series(pd.Categorical(WORDS, ["yes", "maybe", "no"])), str),
    "categories of numbers": (pd.Categorical(THREE, [2, 1, 0, 7]), int),
    "strings": (pd.Series(WORDS, dtype="string"), str),
    "NumPy's strings": (WORDS.astype(np.dtypes.StringDType()), str),
    "Polars integers": (pl.Series(THREE), int),
    "Polars booleans": (pl.Series(BINARY == 1), bool),
    "Polars words": (pl.Series(WORDS), str),
    "Polars categories": (pl.Series(WORDS).cast(pl.Enum(["yes", "maybe", "no"])), str),
    "a Polars frame": (pl.DataFrame({"y": THREE}), int),
    "bfloat16": (torch.tensor(THREE).bfloat16(), float),
    "a gradient": (torch.tensor(THREE, dtype=torch.float64, requires_grad=True), float),
    "masked, nothing missing": (masked(THREE, at=()), int),
}


def fitted_by(name, labels):
    params = {"random_state": 0} | ({} if name == "least squares" else {"early_stopping": True})
    return MAKE[name](**params).fit(X, labels)


def searched_by(name, labels, scoring):
    options = {"cv": 2, "error_score": "raise", "scoring": scoring}
    model = MAKE[name](random_state=0, early_stopping=True)
    return stacked.GridSearchCV(model, {"alpha": [0.1, 1.0]}, **options).fit(X, labels)


@functools.cache
def by_plain_labels(function, name, labels, *options):
    """What a function makes of labels that NumPy knows, which many kinds have in common: the name of a type, and they.

    (True is 1 and 1 is 1.0 to a cache, which the name tells apart.)
    """
    return function(name, np.array(labels[1:]), *options)


#: Each kind of labels with two estimators, of codes and of what networks take, and with one of the others in turn.
_OTHERS = [name for name in MAKE if name not in ("softmax", "mlp")]
MET = [(name, case) for i, case in enumerate(KINDS) for name in ("softmax", "mlp", _OTHERS[i % len(_OTHERS)])]


@pytest.mark.parametrize("name, case", MET)
def test_every_kind_of_labels_from_fit_to_search(name, case):
    warnings.filterwarnings("ignore", message="A column-vector y was passed")
    y, kind = KINDS[case]
    plain = np.array(y.tolist() if hasattr(y, "tolist") else y).ravel().astype(kind)
    key = kind.__name__, *plain.tolist()
    model, expected = fitted_by(name, y), by_plain_labels(fitted_by, name, key)
    np.testing.assert_array_equal(model.classes_, np.unique(plain))
    assert model.classes_.dtype.kind == np.unique(plain).dtype.kind
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.score(X, y) == expected.score(X, plain)
    if name in ("softmax", "mlp"):
        for scoring in (None, "accuracy") if name == "softmax" else (None,):  # scorers ask all classifiers alike
            ours, alike = searched_by(name, y, scoring), by_plain_labels(searched_by, name, key, scoring)
            np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], alike.cv_results_["mean_test_score"])
            assert ours.score(X, y) == alike.score(X, plain)


@pytest.mark.parametrize("name", MULTILABEL)
@pytest.mark.parametrize(
    "kind",
    [
        lambda y: y.astype(object),
        lambda y: (y == 1).astype(object),
        lambda y: pd.DataFrame(y == 1).astype("boolean"),
        lambda y: pl.DataFrame(y == 1),
    ],
    ids=["objects", "objects of truth", "boolean", "Polars"],
)
def test_every_kind_of_indicators_from_fit_to_search(name, kind):
    warnings.simplefilter("ignore", StackingWarning)
    model, expected = (MAKE[name](random_state=0).fit(X, y) for y in (kind(LABELS), LABELS))
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.score(X, kind(LABELS)) == expected.score(X, LABELS)
    own = MAKE[name](random_state=0)
    options = {"scoring": make_scorer(hamming_loss, greater_is_better=False), "cv": 2, "error_score": "raise"}
    ours, alike = (
        stacked.GridSearchCV(own, {"alpha": [0.1, 1.0]}, **options).fit(X, y) for y in (kind(LABELS), LABELS)
    )
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], alike.cv_results_["mean_test_score"])
    assert ours.score(X, kind(LABELS)) == alike.score(X, LABELS) < 0


def test_a_column_of_labels():
    warnings.filterwarnings("ignore", message="A column-vector y was passed")  # undone with the test
    for y in (BINARY[:, None], pd.DataFrame(WORDS), torch.tensor(BINARY)[:, None], sparse.csr_array(BINARY[:, None])):
        assert len(SigmoidClassifier(max_iter=2).fit(X, y).classes_) == 2


# ---- weights of classes ----------------------------------------------------------------------------------------------


@each_estimator
@in_one_test(
    "weight, y, message",
    [
        ({"0": 1, "1": 5}, BINARY, r"keys that are no class: \['0', '1'\]; the classes are \[0, 1\]"),
        ({0: 1, 1: 5}, BINARY.astype(str), r"keys that are no class: \[0, 1\]; the classes are \['0', '1'\]"),
        ({"no": 1, "Yes": 5}, WORDS, r"no class: \['Yes'\]; the classes are \['no', 'yes'\]"),
        ({7: 2.0}, BINARY, r"no class: \[7\]"),
        ({0: 1, 1: -1}, BINARY, "gives class 1 the weight -1"),
        ({0: 1, 1: np.nan}, BINARY, "gives class 1 the weight nan"),
        ({0: 1, 1: np.inf}, BINARY, "gives class 1 the weight inf"),
        ({0: 1, 1: None}, BINARY, "gives class 1 the weight None"),
        ({0: 1, 1: "5"}, BINARY, "gives class 1 the weight '5'"),
        ({0: 0, 1: 0}, BINARY, "weight zero"),
        ([{0: 1, 1: 5}], BINARY, "list.*label indicators"),
    ],
)
def test_class_weight(name, weight, y, message, no_training):
    with pytest.raises(ValueError, match=message):
        MAKE[name](class_weight=weight).fit(X, y)
    if hasattr(model := MAKE[name](class_weight=weight), "partial_fit"):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(X, y, classes=np.unique(y))


def test_keys_beyond_the_labels_do_no_harm():
    """In a fold, a rare class may be absent: what has a weight for every label is as good as before."""
    np.testing.assert_array_equal(weights_of_classes({0: 1, 1: 5, 2: 7}, np.array([0, 1])), [1, 5])
    np.testing.assert_array_equal(weights_of_classes({True: 3}, np.array([False, True])), [1, 3])
    np.testing.assert_array_equal(weights_of_classes({}, np.array(["a"])), [1])
    np.testing.assert_array_equal(
        weights_of_classes({DATES[0]: 2}, np.unique(DATES)), [2, 1] if not BINARY[0] else [1, 2]
    )


@pytest.mark.parametrize("name", MULTILABEL)
@in_one_test(
    "weight, message",
    [
        ([{0: 1, 1: 2}, {"0": 1, "1": 2}], r"class_weight\[1\] has keys that are no class"),
        ([{0: 1, 1: 2}, {0: 1, 1: -2}], r"class_weight\[1\] must be finite and not negative"),
        ([{0: 1, 1: 2}], "number of elements in class_weight should match"),
        ([{0: 1}, "balanced"], "list of dictionaries.*'balanced' at 1"),
        ({0: 1, 1: 2}, "list of dicts"),
    ],
)
def test_class_weight_of_labels(name, weight, message, no_training):
    with pytest.raises(ValueError, match=message):
        MAKE[name](class_weight=weight).fit(X, LABELS)


def test_a_label_may_be_absent():
    y = np.column_stack([LABELS[:, 0], np.zeros(N, dtype=int)])
    model = SigmoidClassifier(max_iter=50, class_weight=[{1: 3}, {1: 3}]).fit(X, y)
    expected = SigmoidClassifier(max_iter=50).fit(X, y, sample_weight=1.0 + 2 * y[:, 0])
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in MULTILABEL if name != "ensemble"])  # whose folds follow from weights
def test_balanced_labels_are_counted_by_weight(name):
    counts = np.random.default_rng(1).integers(0, 4, N)
    often = np.repeat(np.arange(N), counts)
    factors = compute_sample_weight("balanced", LABELS[often])
    np.testing.assert_allclose(weights_of_labels("balanced", LABELS, counts)[often], factors)
    np.testing.assert_allclose(weights_of_labels("balanced", LABELS), compute_sample_weight("balanced", LABELS))
    params = {"batch_size": 1000, "random_state": 0, "precision": "float64"}
    weighted = MAKE[name](class_weight="balanced", **params)
    repeated = MAKE[name](class_weight="balanced", **params).fit(X[often], LABELS[often])
    scores = weighted.fit(X, LABELS, sample_weight=counts).decision_function(X)
    np.testing.assert_allclose(scores, repeated.decision_function(X), atol=1e-5)


def test_balanced_labels_without_one_answer():
    never = np.column_stack([LABELS[:, 0], np.zeros(N, dtype=int)])
    np.testing.assert_allclose(weights_of_labels("balanced", never), compute_sample_weight("balanced", never))
    np.testing.assert_array_equal(weights_of_labels("balanced", LABELS[:4], np.zeros(4)), np.ones(4))


@each_estimator
def test_balanced_weights_that_overflow(name, no_training):
    weight = np.where(BINARY, 1e-200, 1e200)
    with pytest.raises(ValueError, match="class_weight times sample_weight overflows: some classes"):
        MAKE[name](class_weight="balanced").fit(X, BINARY, sample_weight=weight)


@pytest.mark.parametrize("name", ["mlp", "module"])
def test_nothing_of_a_class_without_weight_is_held_out(name):
    model = MAKE[name](early_stopping=True).fit(X, BINARY, sample_weight=1.0 - BINARY)
    assert len(model.classes_) == 2 and np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "hinge", "least squares"])
def test_no_weight_but_for_one_class(name, no_training):
    for arguments in ({"class_weight": {0: 1, 1: 0}}, {"class_weight": {0: 0, 1: 2}}):
        with pytest.raises(ValueError, match="without its rows of weight zero contains only one class"):
            MAKE[name](**arguments).fit(X, BINARY)
    with pytest.raises(ValueError, match="without its rows of weight zero contains only one class"):
        MAKE[name]().fit(X, BINARY, sample_weight=BINARY)
    with pytest.raises(ValueError, match="the data contains only one class"):
        MAKE[name]().fit(X, np.ones_like(BINARY), sample_weight=BINARY + 1.0)


@each_estimator
def test_no_weight_at_all(name, no_training):
    with pytest.raises(ValueError, match="All training rows have weight zero"):
        MAKE[name](class_weight={0: 1, 1: 0}).fit(X, BINARY, sample_weight=BINARY)
    rows = BINARY == 1
    with pytest.raises(ValueError, match=r"All validation rows have weight zero|only one class"):
        MAKE[name](class_weight={0: 1, 1: 0}).fit(X, BINARY, X_val=X[rows], y_val=BINARY[rows])


def test_rows_left_out_without_weight(no_training):
    """The only two rows of the class that counts cannot be in three folds."""
    y = np.r_[0, 0, np.ones(N - 2, dtype=int)]
    model = MLPEnsembleClassifier(3, (3,), max_iter=2, class_weight={0: 1, 1: 0})
    with pytest.raises(ValueError, match="rows of a validation set have weight zero by class_weight"):
        model.fit(X, y)


# ---- weights of samples ----------------------------------------------------------------------------------------------

ONES = np.ones(N)


def with_weight(value, kind=np.asarray):
    weight = ONES.astype(object)
    weight[5] = value
    return kind(weight)


@each_estimator
@in_one_test(
    "weight, message",
    [
        (with_weight(np.nan), "contains NaN, first in row 5"),
        (with_weight(None), "contains NaN, first in row 5"),
        (with_weight(pd.NA), "contains NaN, first in row 5"),
        (with_weight(None, list), "contains NaN, first in row 5"),
        (with_weight(None, pd.Series), "contains NaN, first in row 5"),
        (with_weight(pd.NA, lambda w: pd.Series(w, dtype="Float64")), "contains NaN, first in row 5"),
        (np.ma.masked_array(ONES, mask=np.arange(N) == 5), "contains NaN, first in row 5"),
        (torch.tensor(with_weight(np.inf).astype(float)), "contains infinity, first in row 5"),
        (with_weight(-2), "first -2 in row 5"),
        (pl.Series(with_weight(-2).astype(float)), "first -2 in row 5"),
        (with_weight("much"), "must hold numbers: could not convert string to float: 'much', in row 5"),
        ("balanced", "must hold numbers"),
        (with_weight(1j), "must hold numbers"),
        (ONES + 0j, "must hold numbers"),
        (np.ones(N, dtype="m8[D]"), "must hold numbers"),
        (pd.DataFrame(ONES), r"shape == \(40, 1\)"),
        (np.zeros(N), "at least one non-zero"),
        (np.full(N, 1e308), "overflows"),
        (-1, "Negative"),
    ],
)
def test_sample_weight(name, weight, message, no_training):
    for fit in ways_of(name, BINARY, BINARY, weight):
        with pytest.raises(ValueError, match=rf"sample_weight(?s:.*){message}|{message}(?s:.*)sample_weight"):
            fit()


# ---- columns ---------------------------------------------------------------------------------------------------------

FRAME = pd.DataFrame(X, columns=list("abc"))
POLARS = pl.DataFrame(dict(zip("abc", X.T, strict=True)))
COLUMNS = {
    "objects": (FRAME.assign(b=pd.Series(WORDS, dtype=object)), "'b' (object: could not convert string to float: "),
    "string": (FRAME.assign(b=pd.Series(WORDS, dtype="string")), "'b' (string: could not convert string to float: "),
    "a word among numbers": (FRAME.assign(b=[*X[:-1, 1], "n/a"]), "float: 'n/a', in row 39)"),
    "datetime": (FRAME.assign(b=DATES), "'b' (datetime64[ns])"),
    "only datetime": (pd.DataFrame({"a": DATES, "b": DATES}), "'a' (datetime64[ns]), 'b' (datetime64[ns])"),
    "time zone": (FRAME.assign(c=pd.Series(DATES).dt.tz_localize("UTC")), "'c' (datetime64[ns, UTC])"),
    "timedelta": (FRAME.assign(a=DATES - DATES[0]), "'a' (timedelta64[ns])"),
    "period": (FRAME.assign(b=pd.PeriodIndex(DATES, freq="M")), "'b' (period[M]"),
    "dates": (FRAME.assign(b=[datetime.date(2020, 1, 1)] * N), "'b' (object"),
    "lists": (FRAME.assign(b=[[1, 2]] * N), "'b' (object"),
    "several": (FRAME.assign(a=DATES, c=WORDS), "'a' (datetime64[ns]), 'c' (str"),
    "names are numbers": (pd.DataFrame(X).assign(**{}).astype({1: object}).replace({1: {X[0, 1]: "x"}}), "1 (object"),
    "duplicate names": (pd.DataFrame(X, columns=list("aba")), "several columns of the same name: ['a']"),
    "Polars String": (POLARS.with_columns(b=pl.Series(WORDS)), "'b' (String: could not convert string to float"),
    "Polars Date": (POLARS.with_columns(b=pl.lit(datetime.date(2020, 1, 1))), "'b' (Date)"),
    "Polars Datetime": (POLARS.with_columns(b=pl.Series(DATES)), "'b' (Datetime"),
    "Polars Duration": (POLARS.with_columns(b=pl.Series(DATES - DATES[0])), "'b' (Duration"),
    "Polars List": (POLARS.with_columns(b=pl.Series([[1, 2]] * N)), "'b' (List"),
    "Polars Struct": (POLARS.with_columns(b=pl.Series([{"u": 1}] * N)), "'b' (Struct"),
    "lazy": (POLARS.lazy(), "X.collect()"),
    "array of dates": (np.column_stack([DATES, DATES]), "datetime64[ns]"),
    "array of durations": (np.column_stack([DATES - DATES[0]] * 2), "timedelta64[ns]"),
    "array of words": (np.column_stack([WORDS, WORDS]), "in row 0, column 0"),
    "array of objects": (np.column_stack([X.astype(object), WORDS.astype(object)]), "in row 0, column 3"),
    "list": ([[1.0, "red"]] * N, "'red', in row 0, column 1"),
    "large": (np.where(np.eye(N, 3) > 0, 10**400, X.astype(object)), "in row 0, column 0"),
}


@each_estimator
@in_one_test("case", COLUMNS)
def test_columns_that_are_no_numbers(name, case, no_training):
    given, message = COLUMNS[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        MAKE[name]().fit(given, BINARY)
    with pytest.raises(ValueError, match=re.escape(message)):
        MAKE[name]().fit(X[:, :2] if np.shape(given)[1:] == (2,) else X, BINARY, X_val=given, y_val=BINARY)


def test_what_to_do_about_them():
    of_words = "categorical_features.*OneHotEncoder.*ColumnTransformer.*TableVectorizer"
    for column, advice in ((WORDS, of_words), (DATES, "days since a date")):
        with pytest.raises(ValueError, match=advice):
            SoftmaxClassifier().fit(FRAME.assign(b=column), BINARY)


@pytest.mark.parametrize(
    "b",
    [
        pd.Series(BINARY == 1),
        pd.Series(BINARY == 1, dtype="boolean"),
        pd.Series(BINARY, dtype="Int64"),
        pd.Series(BINARY, dtype="Float32"),
        pd.Series(BINARY, dtype=object),
        pd.Series([decimal.Decimal(int(i)) for i in BINARY]),
        pl.Series(BINARY == 1),
        pl.Series(BINARY).cast(pl.UInt8),
        pl.Series([decimal.Decimal(int(i)) for i in BINARY]),
    ],
    ids=lambda b: f"{type(b).__module__.split('.')[0]}-{b.dtype}",
)
def test_columns_that_are_numbers(b):
    frame = FRAME.assign(b=b) if isinstance(b, pd.Series) else POLARS.with_columns(b=b)
    expected = SoftmaxClassifier().fit(FRAME.assign(b=BINARY), THREE)
    model = SoftmaxClassifier().fit(frame, THREE)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(
        model.decision_function(frame), expected.decision_function(FRAME.assign(b=BINARY)), atol=1e-5
    )
    assert list(model.feature_names_in_) == list("abc")


HOLE = X.copy()
HOLE[3, 1] = np.nan
WITH_HOLES = {
    "frame": pd.DataFrame(HOLE, columns=list("abc")),
    "Float64": pd.DataFrame(HOLE, columns=list("abc")).astype("Float64").mask(np.isnan(HOLE)),
    "objects": pd.DataFrame(HOLE, columns=list("abc"))
    .astype({"b": object})
    .fillna({"b": 0})
    .where(~np.isnan(HOLE), pd.NA),
    "Polars": POLARS.with_columns(b=pl.Series(HOLE[:, 1]).fill_nan(None)),
    "array of objects": np.where(np.isnan(HOLE), pd.NA, HOLE.astype(object)),
    "list": np.where(np.isnan(HOLE), None, HOLE.astype(object)).tolist(),
    "masked": np.ma.masked_array(X, mask=np.isnan(HOLE)),
    "array": HOLE,
    "tensor": torch.tensor(HOLE),
}


@pytest.mark.parametrize("case", WITH_HOLES)
def test_missing_values(case):
    given = WITH_HOLES[case]
    where = "'b'" if hasattr(given, "columns") else "1"
    with pytest.raises(ValueError, match=rf"Input X contains NaN(?s:.*)The first is in row 3, column {where}\."):
        SoftmaxClassifier().fit(given, BINARY)
    model, expected = (MLPClassifierTorch((3,), max_iter=3, random_state=0).fit(Z, BINARY) for Z in (given, HOLE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the names
        np.testing.assert_allclose(model.predict_proba(HOLE), expected.predict_proba(HOLE), rtol=1e-6)


@each_estimator
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values(name, value, no_training):
    Z = X.copy()
    Z[4, 2] = value
    kinds = [Z, Z.astype(np.float16), torch.tensor(Z), pd.DataFrame(Z, columns=list("abc")), sparse.coo_array(Z)]
    for given in [*kinds, sparse.csc_array(Z), Z.tolist(), X.astype(np.longdouble) * np.longdouble("1e308") * 1e5]:
        row, column = (
            (4, 2) if np.shape(given) == Z.shape and getattr(given, "dtype", None) != np.longdouble else (0, 0)
        )
        column = "'c'" if isinstance(given, pd.DataFrame) else column
        with (
            np.errstate(all="ignore"),
            pytest.raises(ValueError, match=rf"contains infinity(?s:.*)in row {row}, column {column}"),
        ):
            MAKE[name]().fit(given, BINARY)


def test_floats_of_any_shape():
    np.testing.assert_array_equal(floats(np.array([1, "2.5", None, True], dtype=object)), [1, 2.5, np.nan, 1])
    with pytest.raises(TypeError, match=r"in row 1, column \(0, 1\)"):
        floats(np.array([[[1, 2]], [[3, {}]]], dtype=object))


# ---- scorings --------------------------------------------------------------------------------------------------------

ONE_CLASS = {"X_val": X[BINARY == 1], "y_val": BINARY[BINARY == 1]}


@each_estimator
@in_one_test(
    "scoring, y, message",
    [
        ("f1", WORDS, "scoring='f1' cannot judge these labels: pos_label=1 is not a valid label"),
        ("f1", THREE, "Target is multiclass but average='binary'"),
        ("roc_auc", THREE, "multi_class must be in"),
        ("average_precision", WORDS, "pos_label=1"),
        ("neg_mean_squared_error", WORDS, "could not convert string to float"),
        (make_scorer(f1_score), WORDS, "cannot judge these labels: pos_label=1"),
    ],
)
def test_a_scoring_that_cannot_judge_the_labels(name, scoring, y, message, no_training):
    if name == "least squares":
        model = MAKE[name](solver="sgd", early_stopping=True, scoring=scoring)
    else:
        model = MAKE[name](early_stopping=True, scoring=scoring)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(X, y)


@pytest.mark.parametrize("name", MULTILABEL)
@pytest.mark.parametrize("scoring", ["neg_log_loss", "d2_log_loss_score"])
def test_answers_to_several_questions_are_no_classes(name, scoring, no_training):
    """Their probabilities need not sum to one; scikit-learn at most warns, and of two labels sees one."""
    one_each = np.eye(3, dtype=int)[THREE]  # as it may be by chance
    for y, message in ((LABELS, "takes the probabilities of two labels for those of two"), (one_each, "sum to one")):
        with pytest.raises(ValueError, match=f"scoring='{scoring}' cannot judge these labels: .*{message}"):
            MAKE[name](early_stopping=True, scoring=scoring).fit(X, y)
        for other in ("roc_auc", "average_precision", "f1_macro"):
            with pytest.raises(AssertionError, match="training began"):
                MAKE[name](early_stopping=True, scoring=other).fit(X, y, X_val=X, y_val=y)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "ensemble"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_a_scoring_that_is_not_defined(name, early_stopping, no_training):
    more = {"solver": "sgd"} if name == "least squares" else {}
    with pytest.raises(ValueError, match=r"scoring='roc_auc' is nan on .* rows.*X_val, y_val"):
        MAKE[name](scoring="roc_auc", early_stopping=early_stopping, **more).fit(X, BINARY, **ONE_CLASS)


def test_an_ensemble_is_scored_on_its_own_rows(no_training):
    """Not on ``X_val``: those of non-zero weight must have both classes."""
    with pytest.raises(ValueError, match=r"scoring='roc_auc' is nan on the .* rows of the classes \[1\]"):
        MAKE["ensemble"](scoring="roc_auc").fit(X, BINARY, sample_weight=BINARY)


class Returns:
    """A scorer of one value after another, the last one again and again."""

    def __init__(self, *values):
        self.values, self.calls = values, 0

    def __call__(self, model, X, y):
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]


@each_estimator
@in_one_test(
    "value, message",
    [
        (np.nan, "is nan on the .* finite"),
        (np.inf, "is inf on the .* finite"),
        (-np.inf, "is -inf on the .* finite"),
        (None, "must return a number, got None"),
        ("good", "must return a number, got 'good'"),
        (np.ones(2), "must return a number, got array"),
        ({"f1": 1.0}, "Several metrics"),
        (1j, "must return a number, got 1j"),
    ],
)
def test_scores_are_finite_numbers(name, value, message):
    more = {"solver": "sgd"} if name == "least squares" else {}
    scorer = Returns(value)
    with pytest.raises(ValueError, match=message):
        MAKE[name](scoring=scorer, early_stopping=True, **more).fit(X, BINARY)
    assert scorer.calls == 1
    if name != "ensemble":
        with pytest.raises(ValueError, match=message):
            MAKE[name](scoring=Returns(0.5, value), early_stopping=True, **more).fit(X, BINARY)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), np.array([0.5]), torch.tensor(0.5)], ids=repr)
def test_scores_of_many_kinds(value):
    model = SoftmaxClassifier(early_stopping=True, scoring=Returns(value), max_iter=2).fit(X, BINARY)
    assert model.best_validation_score_ == 0.5 and type(model.best_validation_score_) is float


class Centred(SoftmaxClassifier):
    """Has a method that needs a trained model."""

    def decision_function(self, X):
        return super().decision_function(X) - float(self.intercept_[0] * 0)


@pytest.mark.parametrize(
    "scoring", ["roc_auc", "f1", "neg_log_loss", "accuracy", "average_precision", "matthews_corrcoef"]
)
def test_no_false_alarms(scoring):
    for model in (SoftmaxClassifier(), Centred(), HingeClassifier(), MLPEnsembleClassifier(2, (3,))):
        model.set_params(early_stopping=True, scoring=scoring, max_iter=2).fit(X, BINARY)
        assert np.isfinite(getattr(model, "oof_score_", model.__dict__.get("best_validation_score_", 0.0)))


def test_a_validation_loss_that_overflows():
    far = X.copy()
    far[0] = 1e308
    for solver in ("sgd", "lbfgs"):
        with pytest.raises(ValueError, match="diverged: the validation loss became"):
            SoftmaxClassifier(solver=solver, max_iter=20).fit(X, THREE, X_val=far, y_val=THREE)


# ---- searches --------------------------------------------------------------------------------------------------------


class Watched(SoftmaxClassifier):
    """Notes how many validation rows each fit is given."""

    seen: list = []

    @staticmethod
    def note(recipe, problem, held_out, *rest):
        parts = [None] * 3 if held_out is None else [held_out.codes, held_out.target, held_out.sample_weight]
        Watched.seen.append(tuple(None if part is None else len(part) for part in parts))
        return train_each(recipe, problem, held_out, *rest)

    _procedure = SoftmaxClassifier._procedure._replace(train=note)


class WithItsOwnFit(Watched):
    def fit(self, X, y, sample_weight=None, X_val=None, y_val=None, sample_weight_val=None):
        return super().fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=sample_weight_val)


VALIDATION = {"X_val": X[::-1], "y_val": BINARY[::-1], "sample_weight_val": ONES}
GRID = {"alpha": [0.1, 1.0]}


@pytest.fixture
def seen():
    Watched.seen.clear()
    return Watched.seen


@pytest.mark.parametrize("cls", [Watched, WithItsOwnFit])
@pytest.mark.parametrize(
    "search",
    [
        functools.partial(stacked.GridSearchCV, cv=3),
        functools.partial(stacked.RandomizedSearchCV, cv=3, n_iter=2),
        functools.partial(stacked.HalvingGridSearchCV, cv=3, random_state=0),
    ],
    ids=lambda search: search.func.__name__,
)
def test_validation_data_of_as_many_rows_stays_whole(search, cls, seen):
    warnings.simplefilter("ignore", stacked.StackingWarning)  # undone with the test
    search(cls(max_iter=2), GRID).fit(X, BINARY, **VALIDATION)
    assert seen and set(seen) == {(N, N, N)}
    seen.clear()
    pipeline = make_pipeline(StandardScaler(), cls(max_iter=2))
    step = cls.__name__.lower()
    of_step = {f"{step}__{key}": value for key, value in VALIDATION.items()}
    search(pipeline, {f"{step}__alpha": [0.1, 1.0]}).fit(X, BINARY, **of_step)
    assert seen and set(seen) == {(N, N, N)}


def test_routed_validation_data_stays_whole(seen):
    with sklearn.config_context(enable_metadata_routing=True):
        model = Watched(max_iter=2).set_fit_request(X_val="others", y_val=True, sample_weight_val="theirs")
        given = {"others": X[::-1], "y_val": BINARY[::-1], "theirs": ONES}
        stacked.GridSearchCV(model, GRID, cv=3).fit(X, BINARY, **given)
        pipeline = make_pipeline(StandardScaler(), model)
        stacked.GridSearchCV(pipeline, {"watched__alpha": [0.1, 1.0]}, cv=3).fit(X, BINARY, **given)
    assert set(seen) == {(N, N, N)}


def test_sample_weight_is_still_of_the_rows():
    weight = RNG.random(N)
    found, expected = (
        module.GridSearchCV(SoftmaxClassifier(random_state=0), GRID, cv=3).fit(X, BINARY, sample_weight=weight)
        for module in (stacked, reference)
    )
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


@pytest.mark.parametrize(
    "grid, refit, scoring, message",
    [
        ({"alpha": ["auto", 0.1]}, {}, None, "by 'alpha', which must be a number.*got 'auto'"),
        ([{"alpha": [0.1]}, {"alpha": ["auto"]}], {}, None, "got 'auto'"),
        ({"alpha": [None, 0.1]}, {}, None, "got None"),
        ({"alpha": [np.nan, 0.1]}, {}, None, "got nan"),
        ({"penalty": [None, "l2"]}, {"complexity": "penalty"}, None, "by 'penalty'"),
        ({"tol": [0.1, 0.2]}, {}, None, "Name the parameter"),
        ({"alpha": [0.1, 0.2]}, {"complexity": "beta"}, None, "needs 'beta'"),
        (GRID, {}, ["accuracy", "f1"], "no score 'score'.*metric='accuracy'"),
        (GRID, {"metric": "f1"}, ["accuracy"], "no score 'f1'"),
        (GRID, {"metric": "f1"}, None, "no score 'f1'"),
    ],
)
def test_one_standard_error_is_asked_before_the_search(grid, refit, scoring, message, seen):
    refit = functools.partial(one_standard_error, **refit) if refit else one_standard_error
    with pytest.raises(ValueError, match=message):
        stacked.GridSearchCV(Watched(max_iter=2), grid, cv=3, refit=refit, scoring=scoring).fit(X, BINARY)
    assert not seen


def test_the_same_auto_for_all_is_no_obstacle():
    grid = {"alpha": ["auto"], "tol": [1e-3, 1e-4]}
    search = stacked.GridSearchCV(SoftmaxClassifier(max_iter=2), grid, cv=3, refit=one_standard_error).fit(X, BINARY)
    assert search.best_params_["alpha"] == "auto"


def test_one_standard_error_with_infinite_scores():
    results = {"params": [{"alpha": 1}, {"alpha": 2}], "mean_test_score": [-np.inf, 0.5]}
    results |= {"split0_test_score": np.array([-np.inf, 0.4]), "split1_test_score": np.array([1.0, 0.6])}
    assert one_standard_error(results) == 1
    results |= {"mean_test_score": [np.inf, 0.5], "split0_test_score": np.array([np.inf, 0.4])}
    assert one_standard_error(results) == 0


def test_one_standard_error_is_of_the_score_alone_whose_name_ends_anothers():
    results = {"params": [{"alpha": 1}, {"alpha": 2}], "mean_test_a": [0.5, 0.4], "mean_test_b_test_a": [5.0, 0.0]}
    results |= {f"split{i}_test_a": np.array([0.5, 0.4]) for i in range(2)}
    results |= {f"split{i}_test_b_test_a": np.array([10.0 * i, 0.0]) for i in range(2)}
    assert one_standard_error(results, metric="a") == 0


def test_the_path_goes_by_numbers(seen):
    with pytest.raises(ValueError, match="alphas must be numbers"):
        stacked.regularization_path(Watched(max_iter=2), X, BINARY, ["auto", 0.1])
    with pytest.raises(ValueError, match="judged by one score"):
        stacked.regularization_path(Watched(max_iter=2), X, BINARY, [1, 0.1], scoring=["accuracy", "f1"])
    assert not seen


def test_a_bad_candidate_is_its_own_failure():
    grid = {"class_weight": [None, {0: 1, 1: 2}, {"0": 1, "1": 2}, {0: 0, 1: 1}, {0: -1, 1: 1}]}
    with pytest.warns(Warning) as caught:
        search = stacked.GridSearchCV(SoftmaxClassifier(random_state=0), grid, cv=3).fit(X, BINARY)
    text = " ".join(str(w.message) for w in caught)
    assert "keys that are no class" in text and "only one class" in text and "gives class 0 the weight -1" in text
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[:2]).all() and np.isnan(scores[2:]).all()


def test_scores_that_are_not_defined_in_a_search():
    def score(estimator, X, y):
        return np.nan if estimator.alpha == 1.0 else 0.5

    with pytest.warns(UserWarning, match="non-finite"):
        search = stacked.GridSearchCV(SoftmaxClassifier(max_iter=2), GRID, cv=3, scoring=score).fit(X, BINARY)
    assert search.best_params_ == {"alpha": 0.1}
    model = SoftmaxClassifier(max_iter=2, early_stopping=True, scoring="roc_auc")
    with pytest.raises(ValueError, match=r"fits failed(?s:.*)roc_auc' is nan"):
        stacked.GridSearchCV(model, GRID, cv=3).fit(X, BINARY, **ONE_CLASS)


def test_a_scorer_that_needs_what_is_not_there():
    model = HingeClassifier(calibration=None, early_stopping=True, scoring="neg_log_loss")
    with pytest.raises(ValueError, match=r"scoring='neg_log_loss' cannot judge this classifier.*predict_proba"):
        model.fit(X, BINARY)


@pytest.mark.filterwarnings("ignore:Weights .* make all")
def test_weights_that_are_too_small_to_divide_by():
    for cls in (MLPClassifierTorch, MLPEnsembleClassifier):
        with pytest.raises(ValueError, match=r"sample_weight makes that \S+e-199, too little"):
            configured(cls, batch_size=50).fit(X, BINARY, sample_weight=np.full(N, 5e-199 / N))


@pytest.mark.parametrize(
    "y", [np.arange(60), np.repeat(np.arange(0, 3 * 40, 3), 2)[:60], np.r_[np.arange(40), [0] * 20]]
)
def test_many_classes_for_so_few_rows_are_doubted_as_scikit_learn_doubts_them(y):
    n_classes = len(np.unique(y))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SoftmaxClassifier(solver="sgd", max_iter=1).fit(np.random.default_rng(0).normal(size=(60, 2)), y)
    doubted = any("unique classes is greater than 50%" in str(warning.message) for warning in caught)
    assert doubted == (n_classes > 30)


@pytest.mark.parametrize(
    "y",
    [[0, 1, 2, 1], [True, False, True, True], np.array([1, 5, 1, 1], dtype=np.uint8), list("abca"), [[0, 1], [1, 1]]],
)
def test_accuracy_is_that_of_scikit_learn(y):
    y = np.asarray(y)
    for predicted in (y, y[::-1], np.roll(y, 1, axis=0)):
        for weight in (None, np.arange(1.0, len(y) + 1)):
            assert accuracy(y, predicted, weight) == accuracy_score(y, predicted, sample_weight=weight)
    for given, predicted in ((y, y[:-1]), (y[:0], y[:0])):
        with pytest.raises(ValueError):
            accuracy(given, predicted, None)


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MLPClassifierTorch])
def test_large_labels_of_another_integer_dtype_are_the_same_labels(cls):
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3 + 2**60
    known, same = cls(random_state=0), cls(random_state=0)
    known.partial_fit(X, y, classes=np.unique(y))
    same.partial_fit(X, y.astype(np.uint64), classes=np.unique(y))
    np.testing.assert_array_equal(known.predict_proba(X), same.predict_proba(X))
    with pytest.raises(ValueError, match="classes not in"):
        known.partial_fit(X, y.astype(np.uint64) + 1)


@pytest.mark.parametrize("words", [["a\0", "b", "c"], ["a", "a\0", "b"]])
def test_labels_of_which_numpy_leaves_a_part_are_refused(words):
    X, y = np.zeros((30, 1)), 10 * words
    for given in (y, np.array(y, dtype=object), pd.Series(y)):
        with pytest.raises(ValueError, match=r"label that ends in a NUL character, 'a\\x00'"):
            SoftmaxClassifier().fit(X, given)
