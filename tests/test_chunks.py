"""Data that comes in chunks, pass after pass; and what cannot be read at all."""

import re

import numpy as np
import pytest
import torch
from helpers import set_constant
from stored_data import MAKE, D, InFile, N, chunks_of, data, make_windows_small, quiet
from torch.utils.data import DataLoader, Dataset, TensorDataset

from skdeep import HingeClassifier, MLPEnsembleClassifier, SoftmaxClassifier
from skdeep.model_selection import GridSearchCV


@pytest.fixture
def small_windows(monkeypatch):
    make_windows_small(monkeypatch)


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


class Dictionaries(Items):
    def __getitem__(self, i):
        return {"x": self.X[i], "y": self.y[i]}


class Endless(Dataset):
    def __getitem__(self, i):
        return np.zeros(3), 0


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
@pytest.mark.parametrize("source", SOURCES)
def test_validation_data_in_chunks(source, tmp_path):
    X, y = data()
    given, target = SOURCES[source](X[:500], y[:500], tmp_path)
    ours, other = (MAKE["MLP, validation"]().set_params(early_stopping=True, max_iter=3) for _ in range(2))
    weights = {"sample_weight_val": "weight"} if source in ("pyarrow data set", "ParquetFile") else {}
    ours.fit(X[500:], y[500:], X_val=given, y_val=target, **weights)
    other.fit(X[500:], y[500:], X_val=X[:500], y_val=y[:500])
    np.testing.assert_allclose(ours.validation_loss_curve_, other.validation_loss_curve_, rtol=1e-6)
    with pytest.raises(ValueError, match=r"[Cc]hunks" if target is None else "no column 'nothing'"):
        ours.fit(X[500:], y[500:], X_val=given, y_val=y if target is None else "nothing")


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
        (lambda: model.fit(lambda: iter([{"X": X, "y": y}])), "X gives dictionaries, with the keys ['X', 'y']"),
        (lambda: model.fit(Dictionaries(X, y)), "X gives dictionaries, with the keys ['x', 'y']"),
        (lambda: model.fit(Endless()), "X is a Dataset (Endless) without __len__"),
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
