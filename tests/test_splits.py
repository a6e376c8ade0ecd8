"""Splits: what decides on which side a row falls, and that weights and repetitions are the same thing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from skdeep.splits import distinct_rows, fold_of_rows, hash_rows, validation_mask


def seeded(seed=0):
    return np.random.default_rng(seed)


def integers(n=50, d=6, seed=1):
    """Small integers, of which every dtype holds the same; many zeros, several equal rows."""
    return seeded(seed).integers(-2, 3, (n, d)) * (seeded(seed + 1).random((n, d)) < 0.5)


TARGET = seeded(2).integers(0, 3, 50)


def hashes(X, target=TARGET, seed=0):
    return hash_rows(X, target, seeded(seed))


def with_negative_zeros(X):
    X = X.astype(np.float64)
    X[X == 0] = -0.0
    return X


def with_explicit_zeros(X, zero=0.0):
    made = sparse.csr_array(X + (X == 0.0))
    made.data = np.where(X.ravel() == 0, zero, X.ravel())
    return made


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


def test_hash_in_chunks(monkeypatch):
    X = integers()
    whole = hashes(X)
    monkeypatch.setattr("skdeep.splits._CHUNK_VALUES", 20)
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


def test_equal_rows_hash_equally_and_others_do_not():
    X = integers(400, 3)
    target = seeded(5).integers(0, 2, 400)
    n_distinct = len(np.unique(np.c_[X, target], axis=0))
    assert n_distinct < 400
    assert len(np.unique(hashes(X, target))) == n_distinct


# ---- splits -------------------------------------------------------------------------------------------------------


def groups_of(X, target):
    return np.unique(np.c_[X, target], axis=0, return_inverse=True)[1].ravel()


def one_side_each(sides, group):
    """Whether every group of equal rows lies on one side."""
    return all(len(np.unique(sides[group == g])) == 1 for g in np.unique(group))


# few values in few columns: many equal rows
SIZES = st.integers(2, 60), st.integers(1, 3), st.integers(1, 4)  # rows, columns, classes
problems = st.tuples(*SIZES, st.integers(0, 99), st.floats(0.05, 0.7), st.integers(2, 5))  # seed, fraction, folds


def draw(n, d, n_classes, seed):
    generator = seeded(seed)
    return generator.integers(0, 3, (n, d)).astype(float), generator.integers(0, n_classes, n)


@settings(max_examples=60, deadline=None)
@given(problems)
def test_duplicates_never_straddle_and_every_class_keeps_a_training_row(problem):
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    rows, group = distinct_rows(X, y, None, seeded(seed)), groups_of(X, y)
    held_out, fold = validation_mask(rows, fraction), fold_of_rows(rows, n_folds)
    assert one_side_each(held_out, group)
    assert one_side_each(fold, group)
    assert set(y[~held_out]) == set(y)
    assert held_out.any() == (len(np.unique(group)) > len(np.unique(y)))
    assert fold.min() >= 0
    assert fold.max() < n_folds


@settings(max_examples=60, deadline=None)
@given(problems)
def test_a_weight_is_a_repetition(problem):
    """Rows of weight 1, 2 or 3 split like rows given that often, in any order."""
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    weight = seeded(seed + 1).integers(1, 4, n)
    repeated = seeded(seed + 2).permutation(np.repeat(np.arange(n), weight))
    weighted = distinct_rows(X, y, weight.astype(float), seeded(seed))
    written_out = distinct_rows(X[repeated], y[repeated], None, seeded(seed))
    np.testing.assert_array_equal(validation_mask(weighted, fraction)[repeated], validation_mask(written_out, fraction))
    np.testing.assert_array_equal(fold_of_rows(weighted, n_folds)[repeated], fold_of_rows(written_out, n_folds))


@settings(max_examples=30, deadline=None)
@given(problems)
def test_split_does_not_depend_on_order_dtype_or_sparsity(problem):
    n, d, n_classes, seed, fraction, n_folds = problem
    X, y = draw(n, d, n_classes, seed)
    before = distinct_rows(X, y, None, seeded(seed))
    order = seeded(seed + 1).permutation(n)
    for same in (X[order].astype(np.float32), sparse.csr_array(X[order])):
        after = distinct_rows(same, y[order], None, seeded(seed))
        np.testing.assert_array_equal(validation_mask(after, fraction), validation_mask(before, fraction)[order])
        np.testing.assert_array_equal(fold_of_rows(after, n_folds), fold_of_rows(before, n_folds)[order])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_fraction_and_strata_of_1000_rows(fraction, weighted):
    X = seeded().normal(size=(1000, 5))
    y = seeded(1).choice(4, 1000, p=[0.6, 0.25, 0.1, 0.05])
    weight = seeded(2).uniform(0.5, 2, 1000) if weighted else None
    rows = distinct_rows(X, y, weight, seeded(3))
    held_out, fold = validation_mask(rows, fraction), fold_of_rows(rows, 5)
    mass = np.ones(1000) if weight is None else weight
    assert mass[held_out].sum() / mass.sum() == pytest.approx(fraction, abs=0.005)
    for k in range(4):
        of_class = y == k
        share = mass[of_class & held_out].sum() / mass[of_class].sum()
        assert share == pytest.approx(fraction, abs=2 * mass.max() / mass[of_class].sum())
        for f in range(5):
            share = mass[of_class & (fold == f)].sum() / mass[of_class].sum()
            assert share == pytest.approx(1 / 5, abs=2 * mass.max() / mass[of_class].sum())


def test_seeds_give_different_splits():
    X, y = seeded().normal(size=(200, 3)), seeded(1).integers(0, 2, 200)
    masks = [validation_mask(distinct_rows(X, y, None, seeded(s)), 0.3) for s in (0, 0, 1)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).sum() > 20


def test_all_rows_equal_leaves_nothing_to_hold_out():
    rows = distinct_rows(np.ones((10, 2)), np.zeros(10, int), None, seeded())
    assert not validation_mask(rows, 0.5).any()
    assert len(set(fold_of_rows(rows, 3))) == 1


def test_without_strata_classes_play_no_role():
    """Multilabel targets: only the fraction counts, one row is kept, duplicates stay together."""
    X, labels = integers(200, 2), seeded(3).integers(0, 2, (200, 2))
    rows = distinct_rows(X, labels, None, seeded(), stratify=False)
    held_out = validation_mask(rows, 0.3)
    assert one_side_each(held_out, groups_of(X, labels))
    assert held_out.mean() == pytest.approx(0.3, abs=np.bincount(rows.group).max() / 200)
    assert not rows.stratum.any()
