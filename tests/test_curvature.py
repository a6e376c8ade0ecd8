"""Second derivatives score by score, what they precondition, and the directions of L-BFGS."""

import numpy as np
import pytest
import torch
from helpers import CPU
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_digits

from skdeep import SoftmaxClassifier
from skdeep.engine.batching import Batches
from skdeep.engine.losses import LOSSES
from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.engine.penalties import L2
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.fitting import solving
from skdeep.solvers import curvature
from skdeep.solvers.lbfgs import HISTORY, LBFGS
from skdeep.solvers.preconditioner import Preconditioner

TWICE_SMOOTH = ["log_loss", "binary_log_loss", "squared_error"]
KINKED = [("weston_watkins", {"squared": True}), ("ovr", {"squared": True})]
N, D, C, K = 40, 6, 3, 3
RNG = np.random.default_rng(0)
X = RNG.normal(3, [1, 0.1, 5, 1, 2, 1], (N, D)) * (RNG.random((N, D)) < 0.8)
Y = np.arange(N) % C
ALPHA = np.array([0.3, 1e-2, 0.0])


def objective_of(
    loss="log_loss", options=None, own_rows=False, weights=None, columns="own", intercept=True, layout="dense"
):
    """Three models at a point of no meaning."""
    loss = LOSSES[loss](**(options or {}))
    center = scale = None
    if columns is not None:
        factor = np.arange(1.0, K + 1)[:, None] if columns == "own" else np.ones((K, 1))
        center = X.mean(0) + 0.1 * (factor - 1) * X.std(0) if layout == "dense" else None
        scale = factor / X.std(0)
    start = torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, (K, C, D + 1)))
    network = Linear(start[..., :D].clone(), start[..., D].clone() if intercept else None, center, scale)
    rows = SparseRows(sparse.csr_array(X), CPU, torch.float64)
    if layout == "dense":
        rows = DenseRows(torch.from_numpy(X), CPU, torch.float64)
    target = torch.from_numpy(Y if loss.target == "codes" else np.eye(C)[Y].astype(np.uint8))
    subset = [np.arange(N)[i::4] for i in range(K)] if own_rows else None
    of_rows = np.ones((K, N))
    if weights is not None:
        of_rows = np.random.default_rng(2).uniform(0.1, 3, (K, N) if weights == "own" else (1, N)) * of_rows
    mean_weight = np.array([of_rows[m, slice(None) if subset is None else subset[m]].mean() for m in range(K)])
    weight = {None: None, "shared": torch.from_numpy(of_rows[0]), "own": torch.from_numpy(of_rows)}[weights]
    generators = [np.random.default_rng(0)] * K
    batches = Batches(rows, target, weight, subset, generators, 16, shuffle=False)
    return Objective(network, loss, L2(ALPHA, np.zeros(K)), batches, mean_weight)


def hessians(objective, step=1e-5):
    """Central differences of the gradients, (K, P, P)."""
    point = objective.start()
    columns = []
    for p in range(point.shape[1]):
        shift = torch.zeros_like(point)
        shift[:, p] = step
        columns.append((objective(point + shift)[1] - objective(point - shift)[1]) / (2 * step))
    objective.move(point)
    return torch.stack(columns, dim=2)


def by_blocks(objective, matrix):
    """Matrices (K, P, P) in the order of `curvature.to_blocks`: (K, C, D, C, D)."""
    width = curvature.width(objective)
    half = curvature.to_blocks(objective, matrix.flatten(0, 1)).view(K, -1, C * width)
    whole = curvature.to_blocks(objective, half.mT.flatten(0, 1)).view(K, C * width, C * width)
    return whole.mT.view(K, C, width, C, width)


@pytest.mark.parametrize("own_rows", [False, True], ids=["shared rows", "own rows"])
@pytest.mark.parametrize("weights", [None, "shared", "own"])
@pytest.mark.parametrize(
    ("columns", "intercept", "layout"),
    [("own", True, "dense"), ("shared", True, "dense"), (None, False, "dense"), ("own", True, "sparse")],
)
def test_blocks_are_the_derivatives_of_the_gradients(own_rows, weights, columns, intercept, layout):
    """One product for models that share rows, and a product each for those that do not."""
    objective = objective_of(own_rows=own_rows, weights=weights, columns=columns, intercept=intercept, layout=layout)
    expected = by_blocks(objective, hessians(objective))
    expected.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2)[:] -= curvature.ridge(objective)
    each = torch.arange(C)
    for models in (np.arange(K), np.array([2])):
        parts = curvature.curvature(objective, models, objective.start()[models])
        found = torch.cat([blocks for *_, blocks in parts])
        wanted = expected[models][:, each, :, each].transpose(0, 1)
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("own_rows", [False, True], ids=["shared rows", "own rows"])
@pytest.mark.parametrize("weights", [None, "shared", "own"])
@pytest.mark.parametrize(
    ("columns", "intercept", "layout"),
    [("own", True, "dense"), ("shared", True, "dense"), (None, False, "dense"), ("own", True, "sparse")],
)
def test_an_average_row_has_the_curvature_of_the_start(own_rows, weights, columns, intercept, layout):
    objective = objective_of(own_rows=own_rows, weights=weights, columns=columns, intercept=intercept, layout=layout)
    elsewhere = objective.start()
    start = torch.zeros_like(elsewhere)
    objective.move(start)
    exact = by_blocks(objective, hessians(objective))
    exact.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2)[:] -= curvature.ridge(objective)
    expected = torch.stack([exact[:, c, :, c] for c in range(C)], dim=1)
    for models in (np.arange(K), np.array([2])):
        parts = curvature.curvature(objective, models, start[models], average=True)
        found = torch.cat([blocks for *_, blocks in parts]).expand(-1, C, -1, -1)
        torch.testing.assert_close(found, expected[models], atol=1e-7, rtol=1e-6)
    found = torch.cat([b for *_, b in curvature.curvature(objective, np.arange(K), elsewhere, average=True)])
    if intercept:  # whose entry is the mean second derivative itself
        true = torch.cat([b for *_, b in curvature.curvature(objective, np.arange(K), elsewhere)])
        torch.testing.assert_close(found[:, 0, -1, -1], true[..., -1, -1].mean(1))


@pytest.mark.parametrize("name", TWICE_SMOOTH)
def test_the_preconditioner_is_the_inverse_of_the_formula(name):
    objective = objective_of(name)
    preconditioner = Preconditioner.of(objective)
    vectors = torch.from_numpy(np.random.default_rng(3).normal(size=(K, 2, C * (D + 1))))
    torch.testing.assert_close(preconditioner(np.arange(K), vectors), vectors)  # before it is computed
    preconditioner.compute(np.arange(K), objective.start())
    exact = by_blocks(objective, hessians(objective))
    blocks = curvature.to_blocks(objective, vectors.flatten(0, 1)).view(K, 2, C, D + 1)
    mean = blocks.mean(2, keepdim=True) if objective.loss.shift_invariant else torch.zeros(())
    diagonal = torch.stack([exact[:, c, :, c] for c in range(C)], dim=1)
    expected = torch.linalg.solve(diagonal.unsqueeze(1), (blocks - mean).unsqueeze(-1)).squeeze(-1)
    if objective.loss.shift_invariant:
        ridge = curvature.ridge(objective).unsqueeze(1)
        expected = expected - expected.mean(2, keepdim=True) + mean * torch.where(ridge > 0, 1 / ridge, 0.0)
    expected = curvature.to_flat(objective, expected.flatten(0, 1)).view(K, 2, -1)
    torch.testing.assert_close(preconditioner(np.arange(K), vectors), expected, atol=1e-4, rtol=1e-4)
    some = np.array([2, 0])
    torch.testing.assert_close(preconditioner(some, vectors[some]), preconditioner(np.arange(K), vectors)[some])
    part = preconditioner.select(some, objective.select(some))
    torch.testing.assert_close(part(np.arange(2), vectors[some]), preconditioner(some, vectors[some]))


@pytest.mark.parametrize("name", ["binary_log_loss", "squared_error"])
def test_scores_that_do_not_meet_make_it_the_inverse_hessian(name):
    objective = objective_of(name)
    preconditioner = Preconditioner.of(objective)
    preconditioner.compute(np.arange(K), objective.start())
    vectors = torch.from_numpy(np.random.default_rng(3).normal(size=(K, 1, C * (D + 1))))
    back = preconditioner(np.arange(K), vectors) @ hessians(objective)
    torch.testing.assert_close(back, vectors, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in TWICE_SMOOTH), *KINKED, ("crammer_singer", {})], ids=str
)
def test_losses_know_whether_a_common_shift_changes_them(name, options):
    loss = LOSSES[name](**options)
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(9, C)))
    target = torch.arange(9) % C
    target = target if loss.target == "codes" else torch.nn.functional.one_hot(target, C).double()
    same = torch.allclose(loss.value(scores, target), loss.value(scores + 5, target))
    assert same == loss.shift_invariant


def two_loops(pairs, size, start, gradient):
    """Nocedal & Wright, algorithm 7.4."""
    direction, shares = gradient.clone(), []
    for step, change in reversed(pairs):
        shares.append(step @ direction / (step @ change))
        direction -= shares[-1] * change
    direction = size * (start @ direction)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - change @ direction / (step @ change)) * step
    return -direction


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), n_steps=st.integers(1, 2 * HISTORY + 3), linear=st.booleans())
def test_directions_are_those_of_the_two_loop_recursion(seed, n_steps, linear):
    """For models that take their steps at different times."""
    rng = np.random.default_rng(seed)
    objective = objective_of()
    start = [torch.eye(C * (D + 1), dtype=torch.float64)] * K
    directions = LBFGS.begin(objective, objective.start())
    if not linear:
        directions.preconditioner = None
    hessian = hessians(objective) + 0.1 * torch.eye(C * (D + 1))
    point = objective.start()
    gradient = (hessian @ point.unsqueeze(2)).squeeze(2)
    pairs, known = [[] for _ in range(K)], [None] * K
    fresh = Preconditioner.of(objective)
    for i in range(n_steps):
        models = np.arange(K) if i % 3 else np.flatnonzero(rng.random(K) < 0.7)
        if not len(models):
            continue
        if linear:
            for m in models[np.isin(directions.n_calls[models], (0, 8))]:
                fresh.compute(np.array([m]), point[[m]], average=directions.n_calls[m] == 0)
                unit = torch.eye(C * (D + 1), dtype=torch.float64).unsqueeze(0)
                start[m] = fresh(np.array([m]), unit)[0].mT
                objective.move(point)
        found = directions(models, point[models], gradient[models])
        for m, direction in zip(models, found, strict=True):
            if known[m] is not None:
                pairs[m] = [*pairs[m], (point[m] - known[m][0], gradient[m] - known[m][1])][-HISTORY:]
            known[m] = point[m].clone(), gradient[m].clone()
            size = 0.5 if linear else 1 / gradient[m].abs().sum().clamp(min=1.0)
            if pairs[m]:
                step, change = pairs[m][-1]
                size = step @ change / (change @ start[m] @ change)
            torch.testing.assert_close(
                direction, two_loops(pairs[m], size, start[m], gradient[m]), atol=1e-7, rtol=1e-6
            )
            point[m] += torch.from_numpy(rng.normal(size=point.shape[1]))
        gradient = (hessian @ point.unsqueeze(2)).squeeze(2)


def test_no_curvature_at_the_start_is_none_to_go_by():
    """Rows far on the wrong side of a saturated start have gradients, and second derivatives that are all rounding."""
    objective = objective_of("binary_log_loss", intercept=True)
    far = torch.full_like(objective.start(), 1e4)
    preconditioner = Preconditioner.of(objective)
    vectors = torch.ones(K, 1, far.shape[1], dtype=torch.float64)
    preconditioner.compute(np.array([0, 2]), far[[0, 2]], average=True)
    preconditioner.compute(np.array([1]), objective.start()[[1]], average=True)
    ones = preconditioner(np.arange(K), vectors)
    torch.testing.assert_close(ones[2], vectors[2])  # alpha is zero: nothing is left of the curvature
    assert ones.isfinite().all() and not torch.allclose(ones[1], vectors[1])


@pytest.mark.parametrize(("name", "options"), KINKED, ids=str)
def test_a_curvature_that_rows_gain_and_lose_is_none_to_go_by(name, options):
    """Looked at once, it would be a hundredfold too small later: digits took 1000 iterations instead of 27."""
    assert Preconditioner.of(objective_of(name, options)) is None


def test_a_preconditioner_too_large_is_left_out(monkeypatch):
    assert Preconditioner.of(objective_of()) is not None
    monkeypatch.setattr(Preconditioner, "max_entries", C * (D + 1) ** 2 - 1)
    assert Preconditioner.of(objective_of()) is None
    assert LBFGS.begin(objective_of(), objective_of().start()).preconditioner is None


@pytest.mark.slow
def test_curvature_saves_iterations(monkeypatch):
    """The digits take less than half of the iterations."""
    monkeypatch.setattr(solving, "has_exact_solver", lambda *of: False)  # in NumPy
    X, y = load_digits(return_X_y=True)

    def iterations():
        return sum(SoftmaxClassifier(alpha=alpha).fit(X, y).n_iter_ for alpha in (1e-4, 1e-3))

    few = iterations()
    monkeypatch.setattr(Preconditioner, "max_entries", 0)
    assert 2 * few < iterations()
