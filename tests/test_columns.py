"""Statistics of the columns, against NumPy's."""

import numpy as np
import pytest
import torch
from helpers import CPU
from scipy import sparse

from skdeep.data import columns
from skdeep.data.extents import gram_extents
from skdeep.engine.rows import DenseRows, SparseRows


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_extents_are_those_of_the_columns_as_each_model_sees_them(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(3, 1, (60, 7)) * (rng.random((60, 7)) < 0.6) + 2 * rng.normal(size=(60, 1)) * (kind == "dense")
    scale = rng.uniform(0.5, 2, (3, 1, 7))
    center = rng.normal(3, 1, (3, 1, 7)) if kind == "dense" else np.zeros((3, 1, 7))
    subset = np.arange(10, 60)
    subsets = [None, subset, subset]
    rows = SparseRows(sparse.csr_array(X), CPU, torch.float64)
    if kind == "dense":
        rows = DenseRows(torch.from_numpy(X), CPU, torch.float64)
    given = torch.from_numpy(center) if kind == "dense" else None
    largest, trace = gram_extents(rows, subsets, given, torch.from_numpy(scale))
    for m, own in enumerate(subsets):
        Z = X if own is None else X[own]
        Z = np.c_[(Z - center[m]) * scale[m], np.ones(len(Z))]
        gram = Z.T @ Z / len(Z)
        assert largest[m] == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-3)
        assert trace[m] == pytest.approx(np.trace(gram))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("level", [0.1, -1e9 / 7, 1e-30 / 3])
def test_a_constant_column_has_its_mean_without_rounding(level, dtype):
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=(2500, 2)), np.full(2500, level)].astype(dtype)  # several chunks
    rows = DenseRows(torch.from_numpy(X), CPU, torch.float64)
    for subset, weight in ((None, None), (rng.permutation(2500)[:2000], rng.uniform(0.1, 3, 2500))):
        found = columns.Columns.measure(rows, subset, weight)
        assert (found.mean[2], found.deviation[2]) == (X[0, 2], 0.0)
        own = slice(None) if subset is None else subset
        expected = np.average(X[own, :2].astype(float), axis=0, weights=None if weight is None else weight[own])
        np.testing.assert_allclose(found.mean[:2], expected, rtol=0, atol=1e-14 if dtype is np.float64 else 1e-8)


def test_sparse_columns_of_many_models_are_measured_as_one_at_a_time():
    rng = np.random.default_rng(0)
    X = rng.normal(2, 1, (80, 6)) * (rng.random((80, 6)) < 0.3)
    X[:, 0], X[:, 1], X[:, 2] = 5.0, np.where(np.arange(80) < 20, 1e8, 1), 0.0  # of which one is zero everywhere
    X[:, 3] = np.where(np.arange(80) < 20, 1 + 1e-7 * rng.normal(size=80), -1e4)
    weights = rng.integers(0, 3, (40, 80)).astype(float)
    weights[1, :20], weights[2, 20:] = 0, 0  # which leave columns constant, or of a few digits that differ
    rows = SparseRows(sparse.csr_array(X), CPU, torch.float64)
    each = columns.Columns.of_models(rows, [None] * 40, list(weights))
    for own, weight in zip(each, weights, strict=True):
        alone = columns.Columns.measure(rows, None, weight)
        filled = (X != 0) * weight[:, None]
        mean = np.divide((filled * X).sum(0), filled.sum(0), out=np.zeros(6), where=filled.any(0))
        np.testing.assert_allclose(own.mean, mean, rtol=1e-12)
        for name in ("weight", "missing", "mean", "deviation", "largest"):
            np.testing.assert_allclose(getattr(own, name), getattr(alone, name), rtol=1e-7, atol=1e-12, err_msg=name)
        assert own.deviation[0] == 0
    assert each[1].deviation[1] < 1e-15 and 1e-8 < each[2].deviation[3] < 1e-6


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
@pytest.mark.parametrize("kind", ["dense", "columns", "missing", "sparse"])
def test_arrays_are_measured_as_rows_of_tensors_are(kind, dtype):
    """Those who solve for all rows at once ask for no tensors, which were half of what measuring few rows took."""
    rng = np.random.default_rng(0)
    X = (100 * rng.normal(3, 1, (2500, 4))).astype(dtype)
    X[:, 3] = 7
    if kind == "missing" and dtype is not np.int32:
        X[::5, 1] = np.nan
    X = np.asfortranarray(X) if kind == "columns" else X
    if kind == "sparse":
        X = sparse.csr_array(X * (rng.random(X.shape) < 0.3).astype(dtype))
        rows = SparseRows(X, CPU, torch.float64)
    else:
        rows = DenseRows(torch.from_numpy(X).contiguous(), CPU, torch.float64)
    weights = [None, rng.integers(0, 3, 2500).astype(float), rng.random(2500)]
    for subset in (None, rng.permutation(2500)[:2000]):
        of_arrays, of_rows = (columns.Columns.of_models(own, [subset] * 3, weights) for own in (X, rows))
        for one, other in zip(of_arrays, of_rows, strict=True):
            for name in ("weight", "missing", "mean", "deviation", "largest", "rounding"):
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-13, err_msg=name)
