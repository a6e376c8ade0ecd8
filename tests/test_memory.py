"""Memory: what lies in a file is not copied, what is large is computed in parts, and parts change nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CPU, configured, forking, set_constant
from scipy import sparse

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.data.inputs import _check_finite, check_features, rows_of
from skdeep.engine.batching import Batches
from skdeep.engine.gradients import loss_and_gradient
from skdeep.engine.losses import Softmax
from skdeep.engine.networks import Linear
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import DenseRows, LargeRows, SparseRows

RNG = np.random.default_rng(0)

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
# Processes of their own: what one has allocated before would hide what a fit allocates.
SCRIPT = """
import json, os, sys, warnings
import numpy as np
import skdeep

sys.path.insert(0, benchmarks)
import pytest
from helpers import configured, set_constant
from memory import peak_growth
from skdeep.data import inputs, problem
from skdeep.engine import batching

warnings.simplefilter("ignore")
for module, name in (batching, "MAX_VALUES"), (problem, "CHUNK_ROWS"), (inputs, "_SMALL_BYTES"):
    set_constant(pytest.MonkeyPatch(), name, getattr(module, name) // 4)  # a fourth of everything: parts, buffers, data
for case in lines:
    if os.fork():
        assert os.wait()[1] == 0, case
        continue
    path, shape, dtype, order, name, params = json.loads(case)
    model = configured(getattr(skdeep, name), max_iter=1, random_state=0, **params)
    y = np.arange(shape[0]) % 3
    few = np.random.default_rng(0).random((200, shape[1]), dtype=np.float32)
    model.fit(few, y[:200]).predict_proba(few)
    X = np.memmap(path, dtype, "r", shape=tuple(shape), order=order)
    with open(found, "a") as file:
        print(peak_growth(lambda: model.fit(X, y).predict(X))[0], file=file)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_a_memory_map_is_not_copied(tmp_path):
    n_bytes, d = 64 << 20, 500
    cases = [
        ("uint8", "C", "SoftmaxClassifier", {}),
        ("uint8", "F", "SoftmaxClassifier", {"early_stopping": True}),
        ("float16", "C", "MLPClassifierTorch", {"hidden_layer_sizes": [16]}),
        ("float32", "C", "HingeClassifier", {"batch_size": 500}),  # its folds have batches of their own
    ]
    lines = []
    for dtype, order, name, params in cases:
        path, shape = tmp_path / f"{dtype}-{order}", (n_bytes // d // np.dtype(dtype).itemsize, d)
        if not path.exists():
            X = np.memmap(path, dtype, "w+", shape=shape, order=order)
            values = RNG.integers(0, 4, (len(X) // 20 + 1, d), dtype=np.uint8)
            for part in np.array_split(X, 20):
                part[:] = values[: len(part)]
        lines.append(json.dumps([str(path), shape, dtype, order, name, {"batch_size": 500, **params}]))
    found = tmp_path / "found"
    names = {"lines": lines, "found": str(found), "benchmarks": str(BENCHMARKS)}
    process = forking().Process(target=exec, args=(SCRIPT, names))
    process.start()
    process.join()
    assert process.exitcode == 0
    added = [float(line) for line in found.read_text().splitlines()]
    assert len(added) == len(cases)
    # chunks and buffers take up to 35 MB, whatever the size of the data, and up to 16 MiB of freed ones are kept
    assert not {lines[i]: megabytes for i, megabytes in enumerate(added) if megabytes >= 62}


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_a_memory_map_are_where_they_lie(order, tmp_path, monkeypatch):
    set_constant(monkeypatch, "_SMALL_BYTES", 0)
    X = np.memmap(tmp_path / "X", np.uint8, "w+", shape=(50, 7), order=order)
    X[:] = np.random.default_rng(0).integers(0, 256, X.shape)
    X.flush()
    X = np.memmap(tmp_path / "X", np.uint8, "r", shape=(50, 7), order=order)
    checked = check_features(SoftmaxClassifier(), X, reset=True)
    assert np.shares_memory(checked, X)
    rows = rows_of(checked, CPU, torch.float32)
    assert rows.X.data_ptr() == X.__array_interface__["data"][0]
    picked = torch.tensor([3, 1, 3])
    np.testing.assert_array_equal(rows.take(picked), X[picked.numpy()])
    np.testing.assert_array_equal(rows.take(slice(2, 9)), X[2:9])


def test_sparse_rows_are_where_they_lie():
    X = sparse.random_array((50, 7), density=0.3, format="csr", rng=0)
    rows = rows_of(check_features(SoftmaxClassifier(), X, reset=True), CPU, torch.float32)
    assert rows.values.data_ptr() == X.data.__array_interface__["data"][0]
    assert rows.columns.data_ptr() == X.indices.__array_interface__["data"][0]


@pytest.mark.parametrize("cls", [SoftmaxClassifier, MLPClassifierTorch])
def test_column_major_arrays_are_copied_once(cls):
    """In memory, a copy is what makes an epoch several times faster; the result is the same to rounding."""
    X = np.random.default_rng(0).random((60, 5))
    y = np.arange(60) % 3
    models = [configured(cls, max_iter=5, batch_size=10, random_state=0).fit(A, y) for A in (X, np.asfortranarray(X))]
    np.testing.assert_allclose(models[0].decision_function(X), models[1].decision_function(X), rtol=1e-12)


def test_half_precision_is_checked_in_parts(monkeypatch):
    set_constant(monkeypatch, "MAX_VALUES", 50)
    X = np.full((40, 10), 60000, dtype=np.float16)  # the sum overflows
    X[:, 0] = np.arange(40)
    assert SoftmaxClassifier(max_iter=1).fit(X, np.arange(40) % 2).coef_.dtype == np.float32
    X[37, 3] = np.nan
    with pytest.raises(ValueError, match=r"Input X contains NaN\.\nSoftmaxClassifier does not accept missing values"):
        SoftmaxClassifier().fit(X, np.arange(40) % 2)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_tensor_on_a_device_is_refused_in_the_words_of_an_array(kind, monkeypatch):
    set_constant(monkeypatch, "MAX_VALUES", 50)
    X = torch.full((40, 10), 60000.0, dtype=kind)
    _check_finite(SoftmaxClassifier(), X, None)
    for bad, words in ((torch.nan, r"NaN\.\nSoftmaxClassifier does not accept missing"), (torch.inf, "infinity")):
        X[37, 3] = bad
        with pytest.raises(ValueError, match=rf"(?s)Input X contains {words}.*The first is in row 37, column 3\."):
            _check_finite(SoftmaxClassifier(), X, None)
    X[37, 3] = torch.nan  # which networks take for missing
    _check_finite(MLPClassifierTorch(), X, None)


# ---- large batches --------------------------------------------------------------------------------------------------

K, B, D, C = 2, 30, 6, 3
X = RNG.standard_normal((B, D)) * (RNG.random((B, D)) < 0.5)
TARGET, WEIGHT = torch.from_numpy(RNG.integers(0, C, B)), torch.from_numpy(RNG.random(B))
ROWS = {
    "dense": lambda: DenseRows(torch.from_numpy(X), CPU, torch.float64),
    "sparse": lambda: SparseRows(sparse.csr_array(X), CPU, torch.float64),
}


def networks():
    generators = [np.random.default_rng(seed) for seed in range(K)]
    yield MLP.initial(generators, [D, 8, C], "tanh", dtype=torch.float64)
    yield Linear(torch.randn(K, C, D, dtype=torch.float64), torch.randn(K, C, dtype=torch.float64))


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
@pytest.mark.parametrize("subset", ["all", "some", "own"])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_parts_add_up_to_the_batch(rows, subset, weight, monkeypatch):
    subsets = {"all": None, "some": np.arange(20), "own": [np.arange(25), np.arange(3, 30)]}[subset]
    generators = [np.random.default_rng(k if subset == "own" else 0) for k in range(K)]
    generators = generators if subset == "own" else generators[:1] * K
    for network in networks():
        results, kinds = [], []
        for limit in (10**6, 3 * D):
            set_constant(monkeypatch, "MAX_VALUES", limit)
            (batch,) = Batches(rows(), TARGET, weight, subsets, generators, B).epoch()
            kinds.append(isinstance(batch.X, LargeRows))
            results.append(loss_and_gradient(network, Softmax(), batch, np.array([0.5, 0.7])))
        assert kinds == [False, True]
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_a_small_batch_of_a_wide_network_comes_in_parts(monkeypatch):
    network = next(networks())
    (batch,) = Batches(ROWS["dense"](), TARGET, None, None, [np.random.default_rng(0)] * K, B).epoch()
    whole = loss_and_gradient(network, Softmax(), batch, np.ones(K))
    set_constant(monkeypatch, "MAX_VALUES", 5 * network.row_size)
    assert [len(part.X) for part in batch.parts(network.row_size)] == [5] * 6
    torch.testing.assert_close(loss_and_gradient(network, Softmax(), batch, np.ones(K)), whole, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")  # the labels are random
@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"callbacks": []}], ids=str)
@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier, MLPClassifierTorch])
def test_fit_and_predict_in_parts(cls, params, monkeypatch):
    X, y = RNG.random((90, 4)), np.arange(90) % 3
    models = []
    for limit in (10**6, 40):
        set_constant(monkeypatch, "MAX_VALUES", limit)
        models.append(configured(cls, max_iter=5, batch_size=90, random_state=0, **params).fit(X, y))
    for method in ("predict_proba", "decision_function", "predict_log_proba"):
        # the second model, in parts; the first one predicts in parts here as well
        np.testing.assert_allclose(*(getattr(model, method)(X) for model in models), rtol=1e-9)
    np.testing.assert_array_equal(*(model.predict(X) for model in models))


def test_held_out_rows_are_not_copied():
    from skdeep.data.problem import Problem

    X = np.arange(20.0).reshape(10, 2)
    problem = Problem(X, np.arange(10) % 2, np.arange(10) % 2, None, None, CPU, torch.float64)
    part = problem.take(np.array([7, 2])).take(np.array([1]))
    assert part.source is X and part.rows() is problem.rows()
    np.testing.assert_array_equal(part.X, X[[2]])
    assert part.codes.tolist() == [0] and part.n_rows == 1
