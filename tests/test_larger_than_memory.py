"""Data that is not in memory: read by blocks, shuffled in windows."""

import numpy as np
import pytest
import torch
from helpers import set_constant
from sklearn.metrics import log_loss
from stored_data import MAKE, C, D, InFile, N, chunks_of, data, make_windows_small, quiet

from skdeep import SGD, MLPClassifierTorch, SoftmaxClassifier, TorchClassifier
from skdeep.data.stored import opened
from skdeep.engine.stored import StoredArray


@pytest.fixture
def small_windows(monkeypatch):
    make_windows_small(monkeypatch)


each_model = pytest.mark.parametrize("name", MAKE)


@quiet
@each_model
def test_data_of_one_window_gives_the_model_of_memory(name):
    X, y = data()
    ours, other = MAKE[name]().fit(InFile(X), y), MAKE[name]().fit(X, y)
    # solved another way: by other steps, by triangular factors in place of products
    rounding = {"L-BFGS": 1e-3, "least squares": 1e-12}.get(name, 1e-6 if "calibrated" in name else 0)
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
    assert of_ours == pytest.approx(of_other, rel=0.05)  # other batches of few rows: a network differs by .043
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
    plain = {"numeric_embedding": None}  # bins of some of the rows are others
    ours, other = (MAKE["MLP"]().set_params(**plain).fit(x, y) for x in (InFile(holes, most=16), holes))
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


@quiet
def test_targets_in_files_and_unknown_lengths(tmp_path):
    X, y = data()
    zarr = pytest.importorskip("zarr")
    labels = zarr.create_array(tmp_path / "y.zarr", data=y)
    array = zarr_array(X, tmp_path)
    ours = MAKE["softmax"]().fit(array, labels, zarr.create_array(tmp_path / "w.zarr", data=np.ones(N)))
    assert ours.score(array, labels) == ours.score(X, y) > 0.6
    dask = dask_array(X, tmp_path)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        MAKE["softmax"]().fit(dask[dask[:, 0] > 0], y)


@quiet
def test_rows_that_are_images(small_windows):
    X, y = data()

    def conv(n_outputs):
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, (1, 2)), torch.nn.Flatten(), torch.nn.LazyLinear(n_outputs))

    images = X.astype(np.float32).reshape(N, 1, 2, 3)
    ours = TorchClassifier(conv, max_iter=3, random_state=0).fit(InFile(images, most=64), y)
    assert ours.input_shape_ == (1, 2, 3)
    np.testing.assert_allclose(
        ours.decision_function(InFile(images, most=64)), ours.decision_function(images), atol=1e-5
    )
    ours.fit(chunks_of(images, y))
    assert ours.score(chunks_of(images, y)) == ours.score(images, y)
