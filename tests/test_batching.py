"""Mini-batches: every row once per epoch, the same rows whatever the stack, data taken as it comes."""

import warnings
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import (
    CPU,
    big_endian,
    in_one_test,
    read_only,
    reconfigured,
    with_explicit_zeros,
    with_read_only_parts,
    with_wide_indices,
)
from scipy import sparse

from skdeep import MLPClassifierTorch, MLPRegressorTorch, SoftmaxClassifier
from skdeep.data.encoding import encode
from skdeep.engine.batching import Batches
from skdeep.engine.rows import DenseRows, SparseRows, as_tensor

N, D = 23, 4


def data(seed=0, n=N):
    """Rows that can be told apart by their first column, with holes in the others."""
    X = np.random.default_rng(seed).integers(0, 5, (n, D)) / 4.0
    X[:, 0] = np.arange(n) + 1
    return X


def rows_of(X, layout="dense", dtype=torch.float64):
    if layout == "dense":
        return DenseRows(as_tensor(np.asarray(X)), CPU, dtype)
    return SparseRows(sparse.csr_array(X), CPU, dtype)


each_layout = pytest.mark.parametrize("layout", ["dense", "sparse"])


def generators(*seeds):
    """One per model, the same object for the same seed."""
    made = {seed: np.random.default_rng(seed) for seed in seeds}
    return [made[seed] for seed in seeds]


def batches_of(subset, seeds, layout="dense", batch_size=5, weight=None, shuffle=True, n=N):
    rows = rows_of(data(n=n), layout)
    return Batches(rows, torch.arange(n), weight, subset, generators(*seeds), batch_size, shuffle)


def seen(batches, n_models):
    """For each model, the batches of one epoch: a list of (rows, X, weight), as this model sees them.

    Checks on the way that features and targets belong together, and that filled-up rows have no weight.
    """
    result = [[] for _ in range(n_models)]
    full = data(n=len(batches.rows))
    for batch in batches.epoch():
        models = np.arange(n_models) if batch.models is None else batch.models
        n_rows = batch.target.shape[1]
        X = batch.X.to_dense().numpy() if batch.X.layout is torch.sparse_csr else batch.X.numpy()
        own = X.ndim == 3 or len(X) != n_rows or X.shape[1] != D
        for i, m in enumerate(models):
            size = int(np.broadcast_to(batch.size, len(models))[i])
            if not own:
                mine = X
            elif X.ndim == 3:
                mine = X[i]
            else:  # block-diagonal
                mine = X[i * n_rows : (i + 1) * n_rows, i * D : (i + 1) * D]
            rows = batch.target[i % len(batch.target)].numpy()
            weight = None if batch.weight is None else batch.weight[i % len(batch.weight)].numpy()
            if size < n_rows:
                assert (weight[size:] == 0).all()
            np.testing.assert_array_equal(mine, full[rows])
            result[m].append((rows[:size].copy(), mine[:size].copy(), None if weight is None else weight[:size].copy()))
    return result


def order_of(batches, n_models):
    return [[rows.tolist() for rows, _, _ in mine] for mine in seen(batches, n_models)]


# ---- which rows ---------------------------------------------------------------------------------------------------

OWN = [np.arange(0, 17), np.arange(5, 23), np.array([3, 1, 22]), np.arange(10)]
SUBSETS = {
    "shared": (None, (0, 0, 0), [np.arange(N)] * 3),
    "own order": (None, (0, 1, 2), [np.arange(N)] * 3),
    "shared subset": (np.arange(3, 20), (0, 0, 0), [np.arange(3, 20)] * 3),
    "own order of a subset": (np.arange(3, 20), (0, 1, 1), [np.arange(3, 20)] * 3),
    "own subsets": (OWN, (0, 1, 2, 3), OWN),
    "one model": (None, (4,), [np.arange(N)]),
    "one model with a list": (OWN[:1], (4,), OWN[:1]),
}
each_subset = pytest.mark.parametrize(("subset", "seeds", "expected"), SUBSETS.values(), ids=SUBSETS)
each_order = pytest.mark.parametrize("shuffle", [True, False])


@each_layout
@each_subset
@each_order
@in_one_test("batch_size", [1, 5, 23, 100])
def test_every_row_exactly_once_per_epoch(layout, subset, seeds, expected, shuffle, batch_size):
    batches = batches_of(subset, seeds, layout, batch_size, shuffle=shuffle)
    assert batches.n_rows.tolist() == [len(rows) for rows in expected]
    np.testing.assert_array_equal(batches.n_batches, [-(-len(rows) // batch_size) for rows in expected])
    for _ in range(2):
        for mine, rows in zip(order_of(batches, len(seeds)), expected, strict=True):
            assert sorted(chain(*mine)) == sorted(rows)
            # all batches are full but the last, which has the rest
            sizes = [len(batch) for batch in mine]
            assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
            assert 0 < sizes[-1] <= batch_size


@each_subset
def test_without_shuffling_rows_come_in_their_order(subset, seeds, expected):
    batches = batches_of(subset, seeds, shuffle=False)
    for _ in range(2):
        assert [list(chain(*mine)) for mine in order_of(batches, len(seeds))] == [rows.tolist() for rows in expected]


@each_subset
def test_shuffling_draws_a_new_order_each_epoch(subset, seeds, expected):
    batches = batches_of(subset, seeds)
    epochs = [order_of(batches, len(seeds)) for _ in range(2)]
    for m, rows in enumerate(expected):
        if len(rows) > 5:  # a single batch of all rows has no order to draw
            assert epochs[0][m] != epochs[1][m]
            assert list(chain(*epochs[0][m])) != rows.tolist()


@each_layout
@each_subset
@each_order
def test_every_model_sees_the_batches_it_sees_alone(layout, subset, seeds, expected, shuffle):
    stack = batches_of(subset, seeds, layout, shuffle=shuffle)
    parts = [
        batches_of([subset[m]] if isinstance(subset, list) else subset, [seed], layout, shuffle=shuffle)
        for m, seed in enumerate(seeds)
    ]
    for _ in range(3):
        together = order_of(stack, len(seeds))
        assert together == [order_of(part, 1)[0] for part in parts]


def test_batches_are_shared_exactly_if_rows_and_order_are():
    for subset, seeds, shared in [(None, (0, 0), True), (None, (0, 1), False), (OWN[:2], (0, 1), False)]:
        batches = batches_of(subset, seeds)
        assert batches.shared is shared
        X = next(iter(batches.epoch())).X
        assert X.shape == ((5, D) if shared else (2, 5, D))


@each_subset
def test_selected_models_go_on_as_in_the_stack(subset, seeds, expected):
    models = np.array([len(seeds) - 1, 0]) if len(seeds) > 1 else np.array([0])
    weight = torch.arange(len(seeds) * N, dtype=torch.float64).view(len(seeds), N) + 1
    whole, other = (batches_of(subset, seeds, weight=weight) for _ in range(2))
    seen(whole, len(seeds))
    seen(other, len(seeds))  # one epoch each, and then some of the models leave
    part = other.select(models)
    after, mine = seen(whole, len(seeds)), seen(part, len(models))
    for i, m in enumerate(models):
        for first, second in zip(after[m], mine[i], strict=True):
            np.testing.assert_array_equal(first[0], second[0])
            np.testing.assert_array_equal(first[2], second[2])


@each_layout
@each_subset
@pytest.mark.parametrize("per_model", [False, True])
def test_weights_follow_their_rows_and_models(layout, subset, seeds, expected, per_model):
    weight = torch.arange(N, dtype=torch.float64) + 1
    if per_model:
        weight = weight * 10.0 ** torch.arange(len(seeds)).view(-1, 1)
    for m, mine in enumerate(seen(batches_of(subset, seeds, layout, weight=weight), len(seeds))):
        for rows, _, found in mine:
            np.testing.assert_array_equal(found, (rows + 1) * (10.0**m if per_model else 1))


def test_indicators_are_cast_to_the_compute_dtype_and_codes_are_not():
    rows = rows_of(data())
    for target, dtype in [(torch.ones(N, 2, dtype=torch.uint8), torch.float64), (torch.arange(N), torch.int64)]:
        for seeds in [(0, 0), (0, 1)]:
            batch = next(iter(Batches(rows, target, None, None, generators(*seeds), 5).epoch()))
            assert batch.target.dtype is dtype
            assert batch.target.shape == (len(set(seeds)), 5, *target.shape[1:])


def test_a_batch_of_all_rows_survives_other_use_of_the_rows():
    """It is kept between epochs, while `take` writes into one buffer again and again."""
    batches = batches_of(np.arange(1, N), (0,), batch_size=100)
    first = next(iter(batches.epoch())).X.clone()
    batches.rows.take(torch.zeros(N - 1, dtype=torch.int64))
    assert torch.equal(next(iter(batches.epoch())).X, first)


# ---- rows as they come --------------------------------------------------------------------------------------------


def structured(X):
    """The values in every second place of a larger array."""
    wide = np.zeros((len(X), 2 * X.shape[1]), X.dtype)
    wide[:, ::2] = X
    return wide[:, ::2]


ODD = {
    "C order": lambda X: X,
    "Fortran order": np.asfortranarray,
    "big endian": lambda X: X.astype(">f8"),
    "little endian": lambda X: X.astype("<f8"),
    "reversed rows": lambda X: X[::-1].copy()[::-1],
    "reversed columns": lambda X: X[:, ::-1].copy()[:, ::-1],
    "both reversed, big endian": lambda X: X.astype(">f4")[::-1, ::-1].copy()[::-1, ::-1],
    "every second column": structured,
    "read-only": read_only,
    "read-only big endian": lambda X: read_only(X.astype(">f4")),
    "read-only, reversed": lambda X: read_only(X[::-1])[::-1],
    "memory map": lambda X: X.view(np.memmap),
    "float32": lambda X: X.astype(np.float32),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_dense_arrays_of_all_sorts(odd):
    X, index = data(), torch.tensor([[3, 1], [0, 22]])
    given = odd(X)
    before = given.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = DenseRows(as_tensor(given), CPU, torch.float64)
        own, shared, part = (rows.take(i).clone() for i in (index, index[0], slice(2, 9)))
    assert (len(rows), rows.n_features) == X.shape
    np.testing.assert_array_equal(own, X[index])
    np.testing.assert_array_equal(shared, X[[3, 1]])
    np.testing.assert_array_equal(part, X[2:9])
    assert own.dtype is torch.float64
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?", ">i2", ">u2", "u2"])
def test_data_stays_in_the_dtype_it_came_in(dtype):
    """A uint8 image takes an eighth of the memory; batches are cast."""
    X = (data() > 1).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = DenseRows(as_tensor(X), CPU, torch.float32)
        taken = rows.take(torch.tensor([4, 2]))
    assert rows.X.numpy().dtype == X.dtype.newbyteorder("=")
    assert taken.dtype is torch.float32
    np.testing.assert_array_equal(taken, X[[4, 2]].astype(np.float32))


def test_native_arrays_are_not_copied():
    for X in (data(), read_only(data()), data()[:, 1:]):
        assert as_tensor(X).data_ptr() == X.ctypes.data


def with_duplicates(X):
    """Each value as two halves, the columns out of order."""
    X = sparse.csr_array(X)
    indices = np.concatenate([np.r_[c[::-1], c] for c in np.split(X.indices, X.indptr[1:-1])])
    values = np.concatenate([np.r_[v[::-1], v] / 2 for v in np.split(X.data, X.indptr[1:-1])])
    return sparse.csr_array((values, indices, 2 * X.indptr), shape=X.shape)


SPARSE = {
    "array": sparse.csr_array,
    "matrix": sparse.csr_matrix,
    "64-bit indices": with_wide_indices,
    "read-only": with_read_only_parts,
    "duplicates": with_duplicates,
    "explicit zeros": with_explicit_zeros,
    "big endian": big_endian,
    "float32": lambda X: sparse.csr_array(X.astype(np.float32)),
    "uint8": lambda X: sparse.csr_array((X * 4).astype(np.uint8)),
}


@pytest.mark.parametrize("make", SPARSE.values(), ids=SPARSE)
def test_sparse_rows_are_the_dense_rows(make):
    X = data()
    X[7] = 0  # a row with nothing in it
    given = make(X)
    expected = given.toarray()
    parts = [part.copy() for part in (given.data, given.indices, given.indptr)]
    index = torch.tensor([[3, 7, 1], [0, 22, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = SparseRows(given, CPU, torch.float64)
        shared, part, own = rows.take(index[0]), rows.take(slice(2, 9)), rows.take(index)
        alone = rows.take(index[:1])
    assert (len(rows), rows.n_features) == X.shape
    assert shared.dtype is torch.float64
    np.testing.assert_array_equal(shared.to_dense(), expected[[3, 7, 1]])
    np.testing.assert_array_equal(alone.to_dense(), expected[[3, 7, 1]])
    np.testing.assert_array_equal(part.to_dense(), expected[2:9])
    np.testing.assert_array_equal(own.to_dense(), sparse.block_diag([expected[i] for i in index.numpy()]).toarray())
    for before, after in zip(parts, (given.data, given.indices, given.indptr), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_all_zero_sparse_matrix():
    rows = SparseRows(sparse.csr_array((N, D)), CPU, torch.float64)
    assert rows.take(torch.tensor([[0, 1], [2, 3]])).to_dense().shape == (4, 2 * D)
    assert not rows.take(slice(0, N)).to_dense().any()


@pytest.mark.parametrize(
    ("n_rows", "density", "expected"),
    [
        (150, 1.0, 150),
        (60_000, 1.0, 200),
        (20_000, 1e-3, 1000),  # a value for each column
        (10_003, 1e-3, 626),  # sixteen steps, of which none is a rest of a few rows
        (2_000, 1e-3, 200),
        (60_000, 0.0, 3750),
    ],
)
def test_batches_of_sparse_rows_hold_a_value_for_each_column(n_rows, density, expected):
    clf, network = SoftmaxClassifier(), MLPClassifierTorch()
    for model in (clf, network):
        model.set_params(solver="sgd")
        model.n_outputs_, model.n_features_in_, model._target_is_multilabel = 3, 10, False
    source = sparse.csr_array((n_rows, 10))
    problem = SimpleNamespace(n_rows=n_rows, n_observations=n_rows, density=density, source=source)
    problem.indicators = slice(0, 0)
    assert clf._recipe(problem, False, False).batch_rows == expected
    assert reconfigured(clf, batch_size=64)._recipe(problem, False, False).batch_rows == 64
    # whose steps are more than passes over the first weights
    assert network._recipe(problem, False, False).batch_rows <= 256


def test_rows_of_no_weight_have_no_part_in_the_density():
    X = sparse.vstack([sparse.random_array((30, 50), density=0.1, rng=0), sparse.csr_array(np.ones((10, 50)))]).tocsr()
    y, weight = np.arange(40) % 2, np.r_[np.ones(30), np.zeros(10)]
    clf = SoftmaxClassifier()
    problem = encode([clf], X, y, weight, going_on=False, incremental=False)
    assert problem.density == pytest.approx(X[:30].nnz / 1500)


def test_axes_of_length_one_may_run_backwards():
    """NumPy counts such an array as contiguous, and torch takes no negative strides."""
    for array in (np.arange(3.0).reshape(3, 1)[:, ::-1], np.arange(3.0).reshape(1, 3)[::-1]):
        assert min(array.strides) < 0
        np.testing.assert_array_equal(as_tensor(array).numpy(), array)


# ---- what is drawn for an epoch --------------------------------------------------------------------------------------


def test_seeds_are_of_each_generator_alone():
    """In the order in which a model alone would draw: the order of an epoch, then a seed for each of its steps."""
    rows = DenseRows(torch.zeros(20, 2), torch.device("cpu"), torch.float32)
    target, subsets = torch.zeros(20, dtype=torch.int64), [np.arange(20), np.arange(20), np.arange(9)]
    generators = [np.random.default_rng(seed) for seed in (1, 2, 1)]
    batches = Batches(rows, target, None, subsets, generators, 4, draws=True)
    drawn = [batches.draw() for _ in range(2)]
    for m, (seed, subset) in enumerate(zip((1, 2, 1), subsets, strict=True)):
        alone = np.random.default_rng(seed)
        for epoch in drawn:
            n = -(-len(subset) // 4)
            np.testing.assert_array_equal(epoch.orders[m], subset[alone.permutation(len(subset))])
            np.testing.assert_array_equal(epoch.seeds[m, :n], [alone.integers(2**63) for _ in range(n)])
    one = np.random.default_rng(3)
    shared = Batches(rows, target, None, None, [one] * 3, 4, draws=True)
    assert shared.draw().seeds.shape == (1, 5)
    met = [int(batch.seeds) for batch in shared.epoch()]
    again = np.random.default_rng(3)
    for _ in range(2):
        again.permutation(20)
        expected = again.integers(2**63, size=5).tolist()
    assert met == expected


def test_an_epoch_that_goes_on_from_a_step():
    rows = DenseRows(torch.arange(22.0).view(11, 2), torch.device("cpu"), torch.float32)
    target = torch.arange(11)
    for subset in (None, [np.arange(11), np.arange(7)]):
        batches = Batches(rows, target, None, subset, [np.random.default_rng(0)] * 2, 3)
        drawn = batches.draw()
        whole = [batch.target.clone() for batch in batches.epoch(drawn)]
        for n_done in range(5):
            rest = [batch.target.clone() for batch in batches.epoch(drawn, n_done)]
            assert len(rest) == 4 - n_done and all(map(torch.equal, rest, whole[n_done:]))


def test_networks_of_values_take_more_sparse_rows_per_step():
    """Steps pass over all first weights: 4000 texts took five times as long."""
    y = np.arange(2400) % 2
    for density, expected in ((0.002, 150), (0.01, 100), (0.5, 64)):
        X = sparse.random_array((2400, 500), density=density, format="csr", rng=np.random.default_rng(0))
        for model, rows in ((MLPRegressorTorch(), expected), (MLPClassifierTorch(), 64)):
            problem = encode([model], X, y, None, going_on=False, incremental=False)
            assert model._recipe(problem, False, False).batch_rows == rows
