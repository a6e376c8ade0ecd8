"""Splits: what decides on which side a row falls, and that weights and repetitions are the same thing."""

import numpy as np
import pytest
import torch
from helpers import set_constant, with_explicit_zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from skdeep.data.hashing import _mix, hash_rows
from skdeep.data.splits import (
    DIVIDED,
    dealt_shares,
    distinct_rows,
    fold_of_rows,
    surely_differ,
    validation_rows,
)
from skdeep.engine.hashing import mix_


def seeded(seed=0):
    return np.random.default_rng(seed)


def integers(n=50, d=6, seed=1):
    """Small integers, of which every dtype holds the same; many zeros, several equal rows."""
    return seeded(seed).integers(-2, 3, (n, d)) * (seeded(seed + 1).random((n, d)) < 0.5)


TARGET = seeded(2).integers(0, 3, 50)


def hashes(X, target=TARGET, seed=0):
    return hash_rows(X, target, seeded(seed), None, None)[1]


def with_negative_zeros(X):
    X = X.astype(np.float64)
    X[X == 0] = -0.0
    return X


SAME = {
    **{name: lambda X, t=name: X.astype(t) for name in ("i1", "i4", "i8", "f2", "f4", "f8", ">f4", ">f8", ">i2")},
    "negative zeros": with_negative_zeros,
    "Fortran order": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "CSR": lambda X: sparse.csr_array(X.astype(float)),
    "CSR float32": lambda X: sparse.csr_array(X.astype("f4")),
    "CSR integers": sparse.csr_array,
    "CSR matrix": sparse.csr_matrix,
    "explicit zeros": with_explicit_zeros,
    "sparse negative zeros": lambda X: with_explicit_zeros(X, -0.0),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_hash_is_that_of_the_values(make):
    X = integers()
    np.testing.assert_array_equal(hashes(make(X)), hashes(X.astype(np.float64)))


def test_hash_of_unsigned_pixels_and_booleans():
    X = seeded().integers(0, 256, (20, 5))
    np.testing.assert_array_equal(hashes(X.astype(np.uint8), TARGET[:20]), hashes(X, TARGET[:20]))
    np.testing.assert_array_equal(hashes(X > 100, TARGET[:20]), hashes((X > 100) * 1.0, TARGET[:20]))


def test_words_are_mixed_as_on_a_device():
    words = seeded().integers(0, 1 << 64, 100, dtype=np.uint64)
    expected = mix_(torch.from_numpy(words.view(np.int64).copy()))
    np.testing.assert_array_equal(_mix(words).view(np.int64), expected)


def test_hash_in_chunks(monkeypatch):
    X = integers()
    whole = hashes(X)
    set_constant(monkeypatch, "CHUNK_VALUES", 20)
    np.testing.assert_array_equal(hashes(X), whole)


def test_hash_depends_on_seed_values_columns_and_target():
    X = integers().astype(float)
    before = hashes(X)
    assert (before == hashes(X)).all()
    assert (before != hashes(X, seed=1)).all()
    assert (before != hashes(X, TARGET + 1)).all()
    assert (before != hashes(X, -TARGET - 1)).all()
    for j in range(X.shape[1]):
        changed = X.copy()
        changed[:, j] = np.nextafter(changed[:, j], np.inf)
        assert (before != hashes(changed)).all()
    # the same values in other columns are another row
    moved = (np.roll(X, 1, axis=1) != X).any(1)
    assert moved.any()
    assert (before != hashes(np.roll(X, 1, axis=1)))[moved].all()


def test_hash_takes_indicators_as_targets():
    X, labels = integers(), seeded().integers(0, 2, (50, 4))
    before = hashes(X, labels)
    for j in range(4):
        flipped = labels.copy()
        flipped[:, j] ^= 1
        assert (before != hashes(X, flipped)).all()
    np.testing.assert_array_equal(before, hashes(X, labels.astype(np.uint8)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 400),
    st.integers(1, 70),
    st.sampled_from([1e-200, 1e-3, 1.0, 1e6, 1e307]),
    st.sampled_from([np.float64, np.float32, np.uint8]),
    st.integers(0, 10**6),
)
def test_equal_rows_are_never_said_to_differ(n, d, size, dtype, seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 255, (n, d)).astype(dtype) if dtype == np.uint8 else rng.standard_normal((n, d)).astype(dtype)
    X = X if dtype == np.uint8 else (X * dtype(min(size, 1e37)) if dtype == np.float32 else X * size)
    X[rng.integers(1, n)] = X[0]
    assert not surely_differ(X)
    assert not surely_differ(sparse.csr_array(X))
    assert not surely_differ(np.asfortranarray(X))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_rows_that_differ_are_soon_said_to(make):
    X = np.random.default_rng(0).standard_normal((3000, 30))
    assert surely_differ(make(X))
    assert surely_differ(make(1000 + X))
    assert surely_differ(make(np.round(X * 40).astype(np.int8)))


def test_equal_rows_hash_equally_and_others_do_not():
    X = integers(400, 3)
    target = seeded(5).integers(0, 2, 400)
    n_distinct = len(np.unique(np.c_[X, target], axis=0))
    assert n_distinct < 400
    assert len(np.unique(hashes(X, target))) == n_distinct


# ---- splits -------------------------------------------------------------------------------------------------------


def split(X, y, fraction, weight=None, seed=0, stratify=True):
    """Part of each row's weight that is held out for validation."""
    rows = distinct_rows(X, y, weight, seeded(seed), y if stratify else None)
    return np.select([(fold := validation_rows(rows, fraction)) == 0, fold == DIVIDED], [1.0, fraction], 0.0)[
        rows.group
    ]


def folds(X, y, n_folds, weight=None, seed=0, stratify=True):
    """Part of each row's weight that each fold holds out, (n_folds, n)."""
    rows = distinct_rows(X, y, weight, seeded(seed), y if stratify else None)
    fold = fold_of_rows(rows, n_folds)
    return np.where(fold == DIVIDED, 1 / n_folds, np.arange(n_folds)[:, None] == fold)[:, rows.group]


def cells_of(X):
    return np.unique(X, axis=0, return_inverse=True)[1].ravel()


def alike(shares, cell):
    """Whether all copies of a row, whatever their labels, are treated alike."""
    return all((shares[..., cell == c].T == shares[..., cell == c].T[0]).all() for c in np.unique(cell))


# few values in few columns: many equal rows
SIZES = st.integers(2, 60), st.integers(1, 3), st.integers(1, 4)  # rows, columns, classes
problems = st.tuples(*SIZES, st.integers(0, 99), st.floats(0.05, 0.7), st.integers(2, 5))  # seed, fraction, folds


def draw(n, d, n_classes, seed):
    generator = seeded(seed)
    return generator.integers(0, 3, (n, d)).astype(float), generator.integers(0, n_classes, n)


@settings(max_examples=200, deadline=None)
@given(problems)
def test_copies_stay_together_and_every_class_keeps_a_training_row(problem):
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    cell = cells_of(X)
    held_out, of_fold = split(X, y, fraction, seed=seed), folds(X, y, n_folds, seed=seed)
    assert alike(held_out, cell)
    assert alike(of_fold, cell)
    several = len(cell) > len(np.unique(cell))
    for shares in (held_out[None], of_fold):
        for share in shares:  # no class is ever held out as a whole
            assert set(y[share < 1]) == set(y)
        for c in np.unique(y):  # and each of two is held out where it can be
            assert n_classes > 2 or (shares[:, y == c] > 0).any() or len(np.unique(cell[y == c])) == 1
    assert held_out.any() or not several or all(len(np.unique(cell[y == c])) == 1 for c in np.unique(y))
    total = of_fold.sum(0)
    assert ((np.abs(total - 1) < 1e-12) | (total == 0)).all()


@settings(max_examples=200, deadline=None)
@given(problems)
def test_the_share_is_the_one_asked_for_within_a_cell(problem):
    n, d, n_classes, seed, fraction, _ = problem
    X, y = draw(n, d, n_classes, seed)
    cell = cells_of(X)
    weight = seeded(seed + 1).uniform(0.2, 5, n)
    for w in (None, weight):
        held_out = split(X, y, fraction, w, seed)
        if not held_out.any():
            continue
        w = np.ones(n) if w is None else w
        whole = np.bincount(cell, w)[np.bincount(cell, held_out * (held_out != fraction) + (held_out == 0)) > 0]
        least = len(np.unique(y)) * whole.max(initial=0)  # a cell of each class, where the share is smaller than these
        assert abs(held_out @ w - fraction * w.sum()) <= max(least, whole.max(initial=0)) + 1e-9


@settings(max_examples=60, deadline=None)
@given(problems)
def test_a_weight_is_a_repetition(problem):
    """Rows of weight 1, 2 or 3 split like rows given that often, in any order."""
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    weight = seeded(seed + 1).integers(1, 4, n)
    repeated = seeded(seed + 2).permutation(np.repeat(np.arange(n), weight))
    weighted, written_out = (X, y, weight.astype(float)), (X[repeated], y[repeated], None)
    for how, number in ((split, fraction), (folds, n_folds)):
        shares = [how(X, y, number, w, seed) for X, y, w in (weighted, written_out)]
        np.testing.assert_array_equal(shares[0][..., repeated], shares[1])


@settings(max_examples=30, deadline=None)
@given(problems)
def test_split_does_not_depend_on_order_dtype_or_sparsity(problem):
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    order = seeded(seed + 1).permutation(n)
    for same in (X[order].astype(np.float32), sparse.csr_array(X[order])):
        for how, number in ((split, fraction), (folds, n_folds)):
            np.testing.assert_array_equal(how(same, y[order], number), how(X, y, number)[..., order])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_fraction_and_strata_of_1000_rows(fraction, weighted):
    X = seeded().normal(size=(1000, 5))
    y = seeded(1).choice(4, 1000, p=[0.6, 0.25, 0.1, 0.05])
    weight = seeded(2).uniform(0.5, 2, 1000) if weighted else None
    held_out, of_fold = split(X, y, fraction, weight, 3), folds(X, y, 5, weight, 3)
    assert set(np.unique(held_out)) == {0, 1} == set(np.unique(of_fold))
    mass = np.ones(1000) if weight is None else weight
    assert held_out @ mass / mass.sum() == pytest.approx(fraction, abs=0.005)
    for k in range(4):
        of_class = (y == k) * mass
        assert held_out @ of_class / of_class.sum() == pytest.approx(fraction, abs=2 * mass.max() / of_class.sum())
        assert of_fold @ of_class / of_class.sum() == pytest.approx(1 / 5, abs=2 * mass.max() / of_class.sum())


def test_seeds_give_different_splits():
    X, y = seeded().normal(size=(200, 3)), seeded(1).integers(0, 2, 200)
    shares = [split(X, y, 0.3, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(shares[0], shares[1])
    assert (shares[0] != shares[2]).sum() > 20


# ---- heavy cells --------------------------------------------------------------------------------------------------

TABLE = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 1, 0, 1]), np.array([45.0, 5, 5, 45])


@pytest.mark.parametrize("factor", [1, 1e-6, 1 / 100, 1000], ids=lambda f: f"weights times {f:g}")
def test_a_table_of_two_cells_is_divided(factor):
    """As weighted rows, weights that sum to one included, and as rows written out."""
    X, y, weight = TABLE
    written_out = X.repeat(weight.astype(int), 0), y.repeat(weight.astype(int))
    assert (split(X, y, 0.1, factor * weight) == 0.1).all()
    assert (folds(X, y, 5, factor * weight) == 0.2).all()
    assert (split(*written_out, 0.1) == 0.1).all()
    assert (folds(*written_out, 5) == 0.2).all()


def dealt(X, y, n_folds, weight=None, seed=0):
    """The divided rows, and the shares that they are dealt in."""
    rows = distinct_rows(X, y, weight, seeded(seed), y)
    fold = fold_of_rows(rows, n_folds)
    return rows, dealt_shares(rows, fold, n_folds, seed), np.flatnonzero(fold == DIVIDED)


@pytest.mark.parametrize("n_folds", [2, 5, 7])
def test_divided_rows_are_dealt_as_by_a_random_split_of_their_observations(n_folds):
    """Within each class: all folds hold out as many, and the parts vary as a hypergeometric draw does."""
    X, y, weight = TABLE
    seen = []
    for seed in range(400):
        rows, shares, divided = dealt(X, y, n_folds, weight, seed)
        np.testing.assert_allclose(shares.sum(1), 1)
        counts = shares * rows.weight[divided, None]
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
        for label in (0, 1):
            of_class = counts[rows.stratum[divided] == label].sum(0)
            assert of_class.max() - of_class.min() < 1 + 1e-9
        seen.append(counts[rows.weight[divided] == 5].ravel())
    size, n = 50 / n_folds, 50  # of a class, a fold takes so many; 5 of them are in the smaller cell
    variance = size * (5 / n) * (1 - 5 / n) * (n - size) / (n - 1)
    assert np.mean(seen) == pytest.approx(5 / n_folds)
    assert np.var(seen) == pytest.approx(variance, rel=0.1)


def test_dealing_takes_a_weight_for_a_repetition():
    X, y, weight = TABLE
    written_out = X.repeat(weight.astype(int), 0), y.repeat(weight.astype(int))
    order = seeded(1).permutation(100)
    expected = dealt(X, y, 5, weight)[1]
    np.testing.assert_array_equal(dealt(*written_out, 5)[1], expected)
    np.testing.assert_array_equal(dealt(written_out[0][order], written_out[1][order], 5)[1], expected)
    assert (dealt(X, y, 5, weight, seed=1)[1] != expected).any()


def test_what_is_dealt_in_equal_parts():
    """A class of a single observation, which no fold can do without; and of so many, any split is nearly equal."""
    X, y, weight = TABLE
    rows, shares, divided = dealt(X[:3], np.array([0, 0, 1]), 5, np.array([45.0, 5, 1]))
    assert len(divided)
    assert (shares[rows.stratum[divided] == 1] == 0.2).all()
    assert (dealt(X, y, 5, 1e5 * weight)[1] == 0.2).all()


@pytest.mark.parametrize("weight", [None, 1e-3, np.linspace(0.9, 1.1, 10)], ids=["none", "small", "uneven"])
def test_single_rows_are_not_divided(weight):
    """That would judge a model by what it was trained on."""
    X, y = np.arange(10.0)[:, None], np.arange(10) % 2
    weight = None if weight is None else weight * np.ones(10)
    assert set(np.unique(split(X, y, 0.2, weight))) == {0, 1}
    assert set(np.unique(folds(X, y, 5, weight))) == {0, 1}


def test_one_heavy_row_among_many():
    X, y = np.arange(51.0)[:, None], np.arange(51) % 2
    weight = np.r_[50.0, np.ones(50)]
    held_out = split(X, y, 0.1, weight)
    assert held_out[0] == 0.1
    assert held_out @ weight == pytest.approx(10, abs=1)


@pytest.mark.parametrize("n_values", [2, 3, 5, 8])
def test_survey_scales(n_values):
    """Two questions with few answers: never much more or less than asked for."""
    for seed in range(20):
        X = seeded(seed).integers(0, n_values, (300, 2)).astype(float)
        y = (X.sum(1) + seeded(seed + 1).normal(0, 2, 300) > n_values - 1).astype(int)
        assert split(X, y, 0.1, seed=seed).sum() == pytest.approx(30, abs=6)
        np.testing.assert_allclose(folds(X, y, 5, seed=seed).sum(1), 60, atol=20)


@pytest.mark.parametrize("fraction", [0.7, 0.9])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_large_fractions_of_tables(fraction, n_classes):
    """A cell is heavy beside the smaller side: here, what is left to train on."""
    for seed in range(10):
        X, y = seeded(seed).integers(0, 6, (500, 1)).astype(float), seeded(seed + 1).integers(0, n_classes, 500)
        assert split(X, y, fraction, seed=seed).sum() == pytest.approx(500 * fraction, abs=1)


def test_cells_of_few_rows_are_divided_where_there_is_no_other_way():
    X, y = np.array([[0.0], [0], [1], [1]]), np.array([0, 0, 1, 1])
    assert (split(X, y, 0.1) == 0.1).all()
    assert (folds(X, y, 5) == 0.2).all()
    assert not split(X[[0, 2]], y[[0, 2]], 0.1).any()
    assert not folds(X[[0, 2]], y[[0, 2]], 5).any()


def test_one_cell():
    assert (split(np.ones((10, 2)), np.zeros(10, int), 0.5) == 0.5).all()
    assert (folds(np.ones((10, 2)), np.arange(10) % 2, 3) == 1 / 3).all()


def test_the_only_cell_of_a_class_is_always_trained_on():
    X, y = np.arange(12.0)[:, None], np.r_[np.zeros(11, int), 1]
    assert (folds(X, y, 5).sum(0) == (y == 0)).all()
    assert not split(X, y, 0.3)[11]
    # also where other classes share it
    X[-1] = X[-2]
    assert (folds(X, y, 5).sum(0) == (X[:, 0] < 10)).all()
    assert not split(X, y, 0.3)[10:].any()


@pytest.mark.parametrize("count", [3, 1000])
def test_the_only_cell_of_a_class_is_divided_if_it_is_of_several_rows(count):
    """As any random split would: where it was all trained on, the rows held out said that the class did not exist."""
    X, y = seeded().normal(size=(60, 2)), (np.arange(60) == 7).astype(int)
    weight = np.full(60, float(count))
    np.testing.assert_allclose(folds(X, y, 5, weight)[:, 7], 0.2)
    assert split(X, y, 0.1, weight)[7] == 0.1
    often = np.repeat(np.arange(60), count)
    assert (split(X[often], y[often], 0.1)[often == 7] == 0.1).all()
    assert set(np.unique(folds(X, y, 5, weight)[:, y == 0])) == {0, 1}
    for few in (None, np.full(60, 1 / 60)):
        assert not folds(X, y, 5, few)[:, 7].any()


def test_without_strata_classes_play_no_role():
    """Multilabel targets: only the fraction counts, one row is kept, copies stay together."""
    X, labels = integers(200, 2), seeded(3).integers(0, 2, (200, 2))
    rows = distinct_rows(X, labels, None, seeded(), None)
    held_out = split(X, labels, 0.3, stratify=False)
    assert alike(held_out, cells_of(X))
    assert held_out.mean() == pytest.approx(0.3, abs=np.bincount(rows.cell, rows.weight).max() / 200)
    assert not rows.stratum.any()
