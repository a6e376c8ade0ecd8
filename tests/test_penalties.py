"""Penalties: values against NumPy, proximal maps against brute-force minimisation."""

import numpy as np
import pytest
import torch
from helpers import configured, in_one_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_iris
from sklearn.metrics import r2_score

from skdeep import LinearRegressor, SoftmaxClassifier
from skdeep.engine.penalties import L2, PENALTIES
from skdeep.engine.training import Observer
from skdeep.fitting import fit as fitting
from skdeep.fitting.settings import SOLVERS

ALPHA = np.array([0.3, 0.0, 2.0])
L1_RATIO = np.array([0.15, 0.5, 0.9])
EQUAL = np.full(3, 0.4)
each_penalty = pytest.mark.parametrize("name", PENALTIES, ids=str)
# equal numbers take a path without tensors
each_setting = pytest.mark.parametrize(
    ("alpha", "l1_ratio"), [(ALPHA, L1_RATIO), (EQUAL, EQUAL), (ALPHA, EQUAL)], ids=["own", "equal", "own alpha"]
)

# R of one model's coefficients (flat) with an l1_ratio r, written a second time
FORMULAS = {
    "l2": lambda w, r: 0.5 * np.sum(w**2),
    "l1": lambda w, r: np.sum(np.abs(w)),
    "elasticnet": lambda w, r: 0.5 * (1 - r) * np.sum(w**2) + r * np.sum(np.abs(w)),
    None: lambda w, r: 0.0,
}


def coefs(seed=0, shape=(3, 2, 4)):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1.5, shape))


@each_penalty
@each_setting
def test_value(name, alpha, l1_ratio):
    parts = [coefs(0), coefs(1, (3, 5))]
    flat = np.concatenate([p.reshape(3, -1).numpy() for p in parts], axis=1)
    expected = [a * FORMULAS[name](w, r) for a, w, r in zip(alpha, flat, l1_ratio, strict=True)]
    value = PENALTIES[name](alpha, l1_ratio).value(parts)
    assert value.shape == (3,)
    np.testing.assert_allclose(value, expected, rtol=1e-13)


@each_penalty
def test_selected_models_keep_their_penalty(name):
    penalty, coef = PENALTIES[name](ALPHA, L1_RATIO), coefs()
    models = np.array([2, 0])
    part = penalty.select(models)
    assert type(part) is type(penalty)
    np.testing.assert_allclose(part.value([coef[[2, 0]]]), penalty.value([coef])[models], rtol=1e-14)
    moved, selected = coef.clone(), coef[[2, 0]]
    penalty.prox_(moved, 0.7)
    part.prox_(selected, 0.7)
    np.testing.assert_allclose(selected, moved[[2, 0]], rtol=1e-14)


def brute_force_prox(penalty, model, v, step, scale):
    """argmin of (w - v)^2 / 2 + step * alpha R(scale * w) for one number."""
    own = penalty.select(np.array([model]))

    def objective(w):
        return 0.5 * (w - v) ** 2 + step * own.value([torch.full((1, 1), scale * w, dtype=torch.float64)])[0]

    bounds = (-abs(v) - 1e-3, abs(v) + 1e-3)
    return minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x


STEPS = {
    "number": 0.7,
    "per model": torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64).view(3, 1, 1),
    "per coordinate": torch.from_numpy(np.random.default_rng(3).uniform(0.05, 2, (3, 2, 4))),
}
SCALES = {
    "no scale": None,
    "shared scale": torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64).view(1, 1, 4),
    "scale per model": torch.from_numpy(np.random.default_rng(4).uniform(0.3, 3, (3, 1, 4))),
}


@each_penalty
@each_setting
@in_one_test("step", STEPS.values())
@in_one_test("scale", SCALES.values())
def test_prox_against_brute_force(name, alpha, l1_ratio, step, scale):
    penalty, v = PENALTIES[name](alpha, l1_ratio), coefs()[:, :1]  # one row is enough, and faster
    step = step[:, :1] if isinstance(step, torch.Tensor) else step
    found = v.clone()
    penalty.scaled(scale).prox_(found, step)
    steps = torch.as_tensor(step, dtype=v.dtype).expand(v.shape).numpy()
    scales = (torch.ones(1, 1, 1, dtype=v.dtype) if scale is None else scale).expand(v.shape).numpy()
    expected = [brute_force_prox(penalty, i[0], v[i].item(), steps[i], scales[i]) for i in np.ndindex(*v.shape)]
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-6)


def test_l1_gives_exact_zeros():
    penalty = PENALTIES["l1"](np.array([1.0, 2.0]), np.zeros(2))
    v = torch.tensor([[0.5, -0.5, 0.2, -3.0], [0.5, 0.0, -0.9, 3.0]], dtype=torch.float64)
    penalty.prox_(v, 0.5)
    assert torch.equal(v, torch.tensor([[0.0, 0.0, 0.0, -2.5], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["l1", "elasticnet"])
def test_sparsity_grows_with_the_step(name):
    v = coefs(shape=(1, 400))
    zeros = []
    for step in (0.0, 0.5, 1.0, 100.0):
        w = v.clone()
        PENALTIES[name](np.ones(1), np.full(1, 0.5)).prox_(w, step)
        zeros.append(int((w == 0).sum()))
        assert (w * v >= 0).all()  # no coefficient changes sign
    assert zeros[0] == 0
    assert zeros[-1] == 400
    assert zeros[0] < zeros[1] < zeros[2] < zeros[3]


def test_no_penalty_ignores_alpha():
    penalty, v = PENALTIES[None](np.full(3, 1e9), L1_RATIO), coefs()
    gradient, moved = torch.zeros_like(v), v.clone()
    penalty.prox_(moved, 1.0)
    penalty.add_gradients_([v], [gradient])
    assert torch.equal(moved, v)
    assert not gradient.any()
    assert not penalty.value([v]).any()
    assert penalty.smooth


@each_penalty
@each_setting
def test_gradient_of_the_smooth_part_by_autograd(name, alpha, l1_ratio):
    penalty, w = PENALTIES[name](alpha, l1_ratio), coefs().requires_grad_()
    strength = torch.from_numpy(penalty.alpha * (1 - penalty.l1_ratio)).view(3, 1, 1)
    (expected,) = torch.autograd.grad((strength * w.square()).sum() / 2, w)
    before = torch.ones_like(w)
    gradient = before.clone()
    penalty.add_gradients_([w.detach()], [gradient])
    np.testing.assert_allclose(gradient - before, expected, atol=1e-14)


@each_penalty
@each_setting
def test_gradient_of_a_smooth_penalty_is_that_of_its_value(name, alpha, l1_ratio):
    """Central differences of `value`; where there is an L1 part, `smooth` has to say so."""
    penalty, w, h = PENALTIES[name](alpha, l1_ratio), coefs(), 1e-5
    gradient = torch.zeros_like(w)
    penalty.add_gradients_([w], [gradient])
    slopes = torch.zeros_like(w)
    for j in np.ndindex(*w.shape[1:]):
        at = (slice(None), *j)
        up, down = w.clone(), w.clone()
        up[at] += h
        down[at] -= h
        slopes[at] = torch.from_numpy(penalty.value([up]) - penalty.value([down])) / (2 * h)
    assert np.allclose(slopes, gradient, atol=1e-8) == penalty.smooth


@each_penalty
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_prox_is_non_expansive(name, data):
    """|prox u - prox v| <= |u - v|, as for every convex function; and prox 0 = 0."""
    numbers = st.floats(-100, 100, allow_nan=False)
    positive = st.floats(0, 10, allow_nan=False)
    u, v = (torch.from_numpy(data.draw(arrays(np.float64, (2, 3), elements=numbers))) for _ in range(2))
    alpha = data.draw(arrays(np.float64, 2, elements=positive))
    l1_ratio = data.draw(arrays(np.float64, 2, elements=st.floats(0, 1)))
    step = data.draw(positive)
    penalty = PENALTIES[name](alpha, l1_ratio)
    before = (u - v).norm(dim=1)
    moved = [w.clone() for w in (u, v, torch.zeros_like(u))]
    for w in moved:
        penalty.prox_(w, step)
    assert ((moved[0] - moved[1]).norm(dim=1) <= before * (1 + 1e-12) + 1e-12).all()
    assert not moved[2].any()
    assert (moved[0].abs() <= u.abs()).all()


class NonNegative(L2):
    """A constraint: all it does is its map."""

    def prox_(self, coef, step):
        coef.clamp_(min=0)


class NonNegativeSoftmax(SoftmaxClassifier):
    def _penalty(self, members, total_weight, batch_weight):
        return NonNegative(0 * total_weight, 0 * total_weight)


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
def test_a_penalty_that_is_nothing_but_its_map_is_applied_by_every_solver(solver):
    X, y = load_iris(return_X_y=True)
    clf = NonNegativeSoftmax(solver=SOLVERS[solver](batch_size=32), max_iter=20, tol=1, random_state=0).fit(X, y)
    assert clf.coef_.min() == 0 < clf.coef_.max()


class Gradients(Observer):
    watches_batches = True

    def __init__(self):
        self.first = None

    def gradients(self, batch, gradients):
        self.first = self.first or [g.clone() for g in gradients]


@pytest.mark.parametrize(
    ("solver", "penalty", "share"), [("adam", "l2", 1), ("adam", "elasticnet", 0), ("sgd", "l2", 0)]
)
def test_adam_has_the_gradient_of_a_ridge_and_the_map_of_all_else(solver, penalty, share, monkeypatch):
    """What callbacks and clipping see of the penalty at a start that is not zero."""
    X, y = load_iris(return_X_y=True)
    seen = []
    for alpha in (0.0, 0.5):
        observer = Gradients()
        monkeypatch.setattr(fitting, "make_observer", lambda *args, observer=observer, **options: observer)
        common = {"solver": solver, "penalty": penalty, "standardize": False, "learning_rate_init": 0.01, "max_iter": 1}
        clf = configured(SoftmaxClassifier, alpha=alpha, batch_size=150, warm_start=True, random_state=0, **common)
        clf.fit(X, y)
        clf.coef_ = np.arange(12.0).reshape(3, 4)
        clf.intercept_ = np.zeros(3)
        observer.first = None
        clf.set_params(verbose=True).fit(X, y)
        seen.append(observer.first[0][0].numpy())
    np.testing.assert_allclose(seen[1] - seen[0], share * 0.5 * np.arange(12.0).reshape(3, 4), atol=1e-6)


@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name])
@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_no_strength_of_any_of_several_targets(penalty, solver):
    """A strength of each target, all of which are zero, has no norms to look at."""
    X = np.random.default_rng(0).normal(size=(30, 3))
    y = np.stack([X[:, 0], 7 * X[:, 1] + X[:, 2]], axis=1)
    reg = LinearRegressor(penalty=penalty, alpha=0.0, solver=solver, warm_start=True, random_state=0)
    for target in (y, -y):  # the second objective judges the first one's model
        reg.fit(X, target)
    assert r2_score(-y, reg.predict(X)) > 0.999
