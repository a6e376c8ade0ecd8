"""Data that is not in memory: read by blocks, shuffled in windows, or in chunks, pass after pass."""

import functools
import re

import numpy as np
import pytest
import torch
from helpers import set_constant
from sklearn.metrics import log_loss
from torch.utils.data import DataLoader, Dataset, TensorDataset

from skdeep import (
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.data.stored import opened
from skdeep.engine.stored import StoredArray
from skdeep.model_selection import GridSearchCV

N, D, C = 1500, 6, 3


class InFile:
    """An array that is read by slices of a few rows at a time, and counts what is read."""

    def __init__(self, X, most=N, unit=None):
        self.X, self.shape, self.dtype, self.most, self.n_read = X, X.shape, X.dtype, most, 0
        if unit is not None:
            self.chunks = (unit, X.shape[1])

    def __getitem__(self, rows):
        assert isinstance(rows, slice) and rows.step is None
        assert rows.stop - rows.start <= self.most, "too much at once"
        self.n_read += rows.stop - rows.start
        return self.X[rows]

    def __array__(self, *_, **__):
        raise AssertionError("read as a whole")


@functools.cache
def data(by_label=False):
    rng = np.random.default_rng(0)
    y = rng.integers(C, size=N)
    X = rng.normal(size=(C, D))[y] + 1.5 * rng.normal(size=(N, D))
    order = np.argsort(y, kind="stable") if by_label else slice(None)
    return X[order], y[order]


@pytest.fixture
def small_windows(monkeypatch):
    """Blocks of 16 rows, and 12 of them in a window."""
    set_constant(monkeypatch, "BLOCK_BYTES", 16 * D * 8)
    set_constant(monkeypatch, "WINDOW_BYTES", 12 * 16 * D * 8)


MAKE = {
    "softmax": lambda: SoftmaxClassifier(solver=SGD(batch_size=32), max_iter=4, random_state=0),
    "softmax, early stopping": lambda: SoftmaxClassifier(
        solver=Adam(batch_size=32), max_iter=4, early_stopping=True, random_state=0
    ),
    "L-BFGS": lambda: SoftmaxClassifier(solver="lbfgs", random_state=0, tol=1e-8),
    "hinge, calibrated": lambda: HingeClassifier(
        solver=SGD(batch_size=32), max_iter=3, calibration="temperature", random_state=0
    ),
    "sigmoid": lambda: SigmoidClassifier(solver=SGD(batch_size=32), max_iter=3, random_state=0),
    "least squares": lambda: LeastSquaresClassifier(),
    "MLP": lambda: MLPClassifierTorch((4,), max_iter=3, random_state=0),
    "MLP, validation": lambda: MLPClassifierTorch((4,), max_iter=3, early_stopping=True, random_state=0),
    "module": lambda: TorchClassifier(torch.nn.LazyLinear, {"out_features": C}, max_iter=2, random_state=0),
}
each_model = pytest.mark.parametrize("name", MAKE)
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@quiet
@each_model
def test_data_of_one_window_gives_the_model_of_memory(name):
    X, y = data()
    ours, other = MAKE[name]().fit(InFile(X), y), MAKE[name]().fit(X, y)
    rounding = 1e-3 if name == "L-BFGS" else 1e-6 if "calibrated" in name else 0
    np.testing.assert_allclose(ours.decision_function(X), other.decision_function(X), rtol=0, atol=rounding)


@quiet
@each_model
@pytest.mark.parametrize("by_label", [False, True])
def test_blocks_are_read_and_the_loss_is_the_same(name, by_label, small_windows):
    X, y = data(by_label)
    file = InFile(X, most=16)
    ours, other = MAKE[name]().fit(file, y), MAKE[name]().fit(X, y)
    assert file.n_read <= 60 * N  # five folds of a calibration, and passes to judge by
    of_ours, of_other = (log_loss(y, softmax(m.decision_function(X))) for m in (ours, other))
    assert of_ours == pytest.approx(of_other, rel=0.03)
    file.n_read = 0
    np.testing.assert_array_equal(ours.predict(file), ours.predict(X))
    assert file.n_read <= 3 * N  # one pass to look for what is not finite; the module looks for numbers beyond its own
    np.testing.assert_allclose(ours.decision_function(file), ours.decision_function(X), rtol=1e-12)
    assert ours.score(file, y) == ours.score(X, y)


def softmax(scores):
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


@quiet
def test_passes_are_few(small_windows):
    """One that looks for what is not finite, one for the columns, and the epochs."""
    X, y = data()
    file = InFile(X, most=16)
    SoftmaxClassifier(solver=SGD(batch_size=32), max_iter=3, random_state=0).fit(file, y)
    assert file.n_read <= 5.2 * N


@quiet
def test_the_order_depends_on_the_seed_alone(small_windows):
    X, y = data()
    first, again, other = (MAKE["softmax"]().set_params(random_state=s).fit(InFile(X), y).coef_ for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n", [1, 15, 16, 191, 192, 193, 1500])
@pytest.mark.parametrize("part", [None, 3])
def test_an_order_has_each_row_once_window_by_window(n, part, small_windows):
    array = StoredArray(InFile(np.arange(n * D, dtype=float).reshape(n, D)), np.float64)
    subset = None if part is None else np.flatnonzero(np.arange(n) % part == 0)
    order = array.shuffled(subset, np.random.default_rng(0))
    rows = np.arange(n) if subset is None else subset
    np.testing.assert_array_equal(np.sort(order), rows)
    for start in range(0, len(order), 10):
        np.testing.assert_array_equal(array[order[start : start + 10]][:, 0], D * order[start : start + 10])
    assert array.source.n_read <= n  # each block once, though batches go over the edges of windows


def test_a_window_is_like_the_whole_where_rows_are_sorted(small_windows):
    array = StoredArray(InFile(np.zeros((1536, D))), np.float64)
    order = array.shuffled(None, np.random.default_rng(0))
    for window in order.reshape(8, -1):
        in_parts = np.bincount(window * 12 // 1536, minlength=12)
        assert (in_parts == 16).all()  # one block of each twelfth


def test_reading(small_windows):
    X, _ = data()
    array = opened(InFile(X, most=32, unit=8))
    assert array.block_rows == 16 and array.shape == X.shape and len(array) == N
    rng = np.random.default_rng(0)
    for rows in (slice(3, 5), slice(None, None, 7), slice(5, 5), rng.integers(N, size=700), np.array([N - 1])):
        np.testing.assert_array_equal(array[rows], X[rows])
        np.testing.assert_array_equal(array.at(np.arange(N)[::2])[rows if isinstance(rows, slice) else rows // 2],
                                      X[::2][rows if isinstance(rows, slice) else rows // 2])  # fmt: skip
    spaced, sample = array.sample()
    np.testing.assert_array_equal(sample, X[spaced])
    images = opened(InFile(X)).reshape(N, 2, 3)
    np.testing.assert_array_equal(images[10:20], X[10:20].reshape(-1, 2, 3))


@pytest.mark.parametrize("dtype", ["u1", "i4", "f2", ">f4", "u4", "?"])
@quiet
def test_dtypes(dtype, small_windows):
    X, y = data()
    X = np.clip(10 * X + 100, 0, 255).astype(dtype)
    ours, other = MAKE["L-BFGS"]().fit(InFile(X), y), MAKE["L-BFGS"]().fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), other.decision_function(X), rtol=1e-2, atol=2e-2)


@quiet
def test_weights_missing_values_and_partial_fit(small_windows):
    X, y = data()
    weight = np.random.default_rng(0).integers(0, 3, N)
    ours, other = (MAKE["L-BFGS"]().fit(x, y, weight) for x in (InFile(X), X))
    np.testing.assert_allclose(ours.coef_, other.coef_, atol=1e-4)
    holes = X.copy()
    holes[::7, 2] = np.nan
    ours, other = (MAKE["MLP"]().fit(x, y) for x in (InFile(holes, most=16), holes))
    np.testing.assert_array_equal(ours.missing_features_, [2])
    np.testing.assert_allclose(ours.predict_proba(holes), other.predict_proba(holes), atol=0.1)
    for name in ("softmax", "MLP"):
        parts = MAKE[name]()
        for rows in (slice(0, 700), slice(700, N)):
            parts.partial_fit(InFile(X[rows], most=16), y[rows], classes=np.arange(C))
        assert parts.score(X, y) > 0.5
    with pytest.raises(ValueError, match=r"(?s)contains NaN.*row 0, column 2"):
        MAKE["softmax"]().fit(InFile(holes), y)


@quiet
def test_callbacks_scorers_and_validation_data(small_windows, capsys):
    X, y = data()
    skorch = pytest.importorskip("skorch.callbacks")
    seen = []

    class Listener(skorch.Callback):
        def on_train_begin(self, net, X=None, y=None, **_):
            seen.append((X, len(y)))

    model = MLPClassifierTorch(
        (4,), max_iter=2, early_stopping=True, scoring="f1_macro", callbacks=[Listener()], verbose=True
    )
    model.fit(InFile(X, most=16), y)
    assert len(seen) == 1 and seen[0][1] < N and len(seen[0][0]) == seen[0][1]
    assert len(model.validation_scores_) == 2 and "valid" in capsys.readouterr().out
    watched = MAKE["MLP"]().fit(InFile(X, most=16), y, X_val=InFile(X, most=16), y_val=y)
    assert watched.validation_scores_[-1] == pytest.approx(watched.score(X, y))


@quiet
def test_large_memory_maps_are_read_by_blocks(small_windows, tmp_path, monkeypatch):
    X, y = data()
    mapped = np.memmap(tmp_path / "X", X.dtype, "w+", shape=X.shape)
    mapped[:] = X
    one_by_one = MAKE["softmax"]().fit(mapped, y).coef_
    set_constant(monkeypatch, "MAPPED_BYTES", 1000)
    np.testing.assert_array_equal(MAKE["softmax"]().fit(mapped, y).coef_, MAKE["softmax"]().fit(InFile(X), y).coef_)
    assert not np.array_equal(MAKE["softmax"]().fit(mapped, y).coef_, one_by_one)


# ---- arrays of other libraries -----------------------------------------------------------------------------------


def zarr_array(X, folder):
    return pytest.importorskip("zarr").create_array(folder / "X.zarr", data=X, chunks=(100, 4))


def h5py_array(X, folder):
    return pytest.importorskip("h5py").File(folder / "X.h5", "w").create_dataset("X", data=X, chunks=(50, D))


def dask_array(X, folder):
    return pytest.importorskip("dask.array").from_array(X, chunks=(400, 3))


@quiet
@pytest.mark.parametrize("make", [zarr_array, h5py_array, dask_array])
@pytest.mark.parametrize("name", ["softmax", "MLP"])
def test_arrays_of_other_libraries(make, name, tmp_path, small_windows):
    X, y = data()
    array = make(X, tmp_path)
    assert isinstance(opened(array), StoredArray)
    ours, other = MAKE[name]().fit(array, y), MAKE[name]().fit(X, y)
    assert ours.score(array, y) == pytest.approx(other.score(X, y), abs=0.03)
    np.testing.assert_array_equal(ours.predict(array), ours.predict(X))


# ---- chunks ------------------------------------------------------------------------------------------------------


def chunks_of(X, y, weight=None, size=130):
    parts = (X, y) if weight is None else (X, y, weight)
    return lambda: (tuple(part[s : s + size] for part in parts) for s in range(0, len(X), size))


class Passes:
    """An object whose `__iter__` begins a new pass."""

    def __init__(self, begin):
        self.begin = begin

    def __iter__(self):
        return self.begin()


class Items(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), self.y[i]


def parquet(X, y, folder):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({**{f"x{j}": X[:, j] for j in range(D)}, "label": y, "weight": np.ones(len(X))})
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "X.parquet", row_group_size=200)
    return folder / "X.parquet"


SOURCES = {
    "function": lambda X, y, folder: (chunks_of(X, y), None),
    "object": lambda X, y, folder: (Passes(chunks_of(X, y)), None),
    "DataLoader": lambda X, y, folder: (DataLoader(TensorDataset(*map(torch.tensor, (X, y))), 70), None),
    "Dataset": lambda X, y, folder: (Items(X, y), None),
    "pyarrow data set": lambda X, y, folder: (arrow(X, y, folder), "label"),
    "pyarrow scanner": lambda X, y, folder: (
        arrow(X, y, folder).scanner(columns=["label", *(f"x{j}" for j in range(D))]), "label"
    ),
    "ParquetFile": lambda X, y, folder: (
        pytest.importorskip("pyarrow.parquet").ParquetFile(parquet(X, y, folder)), "label"
    ),
}  # fmt: skip


def arrow(X, y, folder):
    dataset = pytest.importorskip("pyarrow.dataset").dataset(parquet(X, y, folder))
    return dataset


@quiet
@pytest.mark.parametrize("source", SOURCES)
def test_chunks(source, tmp_path, monkeypatch):
    X, y = data()
    given, target = SOURCES[source](X, y, tmp_path)
    weights = {"sample_weight": "weight"} if source in ("pyarrow data set", "ParquetFile") else {}
    for name in ("softmax", "MLP, validation", "hinge, calibrated"):
        ours, other = MAKE[name]().fit(given, target, **weights), MAKE[name]().fit(X, y)
        ours.__dict__.pop("feature_names_in_", None)  # X has none
        np.testing.assert_allclose(ours.decision_function(X), other.decision_function(X), atol=1e-6)
    with monkeypatch.context() as patch:
        set_constant(patch, "BLOCK_BYTES", 16 * D * 8)
        set_constant(patch, "WINDOW_BYTES", 12 * 16 * D * 8)
        windowed = MAKE["softmax"]().fit(given, target, **weights)
        assert hasattr(windowed, "feature_names_in_") == (target is not None)
        predicted, score = windowed.predict(given), windowed.score(given, target)
    if target:
        np.testing.assert_array_equal(np.sort(windowed.feature_names_in_), [f"x{j}" for j in range(D)])
        del windowed.feature_names_in_
    np.testing.assert_array_equal(predicted, windowed.predict(X))
    assert score == windowed.score(X, y) > 0.6


@quiet
def test_weights_in_chunks_and_words_for_labels():
    X, y = data()
    weight = np.random.default_rng(0).integers(0, 3, N)
    words = np.array(["no", "maybe", "yes"])[y]
    ours = MAKE["softmax"]().fit(chunks_of(X, words, weight))
    np.testing.assert_array_equal(ours.coef_, MAKE["softmax"]().fit(X, words, weight).coef_)
    np.testing.assert_array_equal(ours.classes_, ["maybe", "no", "yes"])
    assert ours.score(chunks_of(X, words, weight)) == ours.score(X, words, weight)


@quiet
def test_frames_in_chunks_are_taken_by_the_names_of_their_columns():
    pd = pytest.importorskip("pandas")
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(target=y)
    ours = MAKE["softmax"]().fit(lambda: (frame[s : s + 100] for s in range(0, N, 100)), "target")
    np.testing.assert_array_equal(ours.coef_, MAKE["softmax"]().fit(X, y).coef_)
    mixed = frame[["target", *"fedcba"]]
    np.testing.assert_array_equal(
        ours.predict(lambda: iter([mixed[:700], mixed[700:]])), ours.predict(frame[[*"abcdef"]])
    )
    with pytest.raises(ValueError, match="no column 'f'"):
        ours.predict(lambda: iter([mixed[[*"abcde"]]]))


@quiet
def test_sorted_chunks_are_warned_of(small_windows):
    X, y = data(by_label=True)
    with pytest.warns(UserWarning, match="classes come one after another"):
        MAKE["softmax"]().fit(chunks_of(X, y))
    MAKE["L-BFGS"]().fit(chunks_of(X, y))
    MAKE["softmax"]().fit(Items(X, y))  # whose rows can be read anywhere


def shifting(X, y):
    """Passes in another order each."""
    rng = np.random.default_rng(0)

    def begin():
        order = rng.permutation(len(X))
        return iter([(X[order[:400]], y[order[:400]]), (X[order[400:]], y[order[400:]])])

    return begin


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_what_cannot_be_read_is_refused_and_named(small_windows):
    X, y = data()
    once, model = chunks_of(X, y)(), SoftmaxClassifier(solver="sgd", max_iter=2)
    loader = DataLoader(TensorDataset(*map(torch.tensor, (X, y))), 70, shuffle=True)
    longer = iter([chunks_of(X, y)(), chunks_of(X[:500], y[:500])()])
    cases = [
        (lambda: model.fit(once), "a function that returns a new iterator"),
        (lambda: model.fit(lambda: once), "ended after 0 rows"),
        (lambda: model.fit(lambda: next(longer)), "ended after 500 rows, where the first had 1500"),
        (lambda: model.fit(loader), "DataLoader that shuffles"),
        (lambda: model.fit(shifting(X, y)), "other targets or weights than the first"),
        (lambda: model.fit(lambda: iter([])), "gives no rows"),
        (lambda: model.fit(lambda: iter([X])), "chunks without targets"),
        (lambda: model.fit(lambda: iter([(X, y), (X[:, 1:], y)])), "rows of several shapes"),
        (lambda: model.fit(lambda: iter([(X, y[1:])])), "has 1500 rows, and targets or weights of shape"),
        (lambda: model.fit(lambda: iter([(X, y), (X, y, y)])), "not as many parts"),
        (lambda: model.fit(lambda: iter([(y, y)])), "rows of numbers were expected"),
        (lambda: model.fit(chunks_of(X, y), y), "`y` was passed beside an X that gives chunks"),
        (lambda: model.fit(InFile(X)), "requires y to be passed"),
        (lambda: model.fit(InFile(X.astype(complex)), y), "dtype complex128"),
        (lambda: model.fit(InFile(X.astype("S3")), y), "expected real numbers"),
        (lambda: model.fit(InFile(X), y[1:]), "inconsistent numbers of samples"),
        (lambda: HingeClassifier(solver="exact").fit(InFile(X), y), "needs all rows in memory"),
        (lambda: MLPEnsembleClassifier().fit(InFile(X), y), "MLPEnsembleClassifier needs all rows in memory"),
        (lambda: GridSearchCV(model, {"alpha": [1, 2]}).fit(InFile(X), y), "Search on a part of it"),
        (lambda: model.fit(X, y).predict(InFile(X[:, 1:])), "expecting 6 features"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_arrays_that_give_something_else_are_refused():
    X, y = data()

    class Short(InFile):
        def __getitem__(self, rows):
            return self.X[rows][1:]

    with pytest.raises(ValueError, match="have the shape"):
        SoftmaxClassifier().fit(Short(X), y)

    class Masked(InFile):
        def __getitem__(self, rows):
            return np.ma.masked_greater(self.X[rows], 2)

    with pytest.raises(ValueError, match="contains NaN"):
        SoftmaxClassifier().fit(Masked(X), y)
    with pytest.raises(ValueError, match="masked values of dtype int64"):
        SoftmaxClassifier().fit(Masked(X.astype(int)), y)


def test_lazy_frames_name_the_ways_that_can():
    pl = pytest.importorskip("polars")
    X, y = data()
    with pytest.raises(ValueError, match=re.escape("X.collect()") + ".*chunks"):
        SoftmaxClassifier().fit(pl.DataFrame(X).lazy(), y)
