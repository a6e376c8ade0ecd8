"""Optimizers: update rules against torch.optim, and the optimum of a penalised objective as their fixed point."""

import functools

import numpy as np
import pytest
import torch
from helpers import covering

from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import PENALTIES

RATES = np.array([0.1, 0.03, 0.005])
MOMENTA = np.array([0.9, 0.0, 0.5])
SHAPES = [(3, 2, 4), (3, 2)]  # coefficients and intercepts of three models
BETAS, EPSILON = (0.8, 0.99), 1e-7

# name, our options, and the optimizer of torch that does the same (the penalty apart)
VARIANTS = [
    ("sgd", {"nesterov": False}, lambda p, lr, m: torch.optim.SGD(p, lr=lr, momentum=m)),
    ("sgd", {"nesterov": True}, lambda p, lr, m: torch.optim.SGD(p, lr=lr, momentum=m, nesterov=m > 0)),
    ("adam", {}, lambda p, lr, m: torch.optim.Adam(p, lr=lr, betas=BETAS, eps=EPSILON)),
    ("adamw", {}, lambda p, lr, m: torch.optim.AdamW(p, lr=lr, betas=BETAS, eps=EPSILON, weight_decay=0)),
]
VARIANT_IDS = ["sgd", "nesterov", "adam", "adamw"]
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def parameters(seed=0):
    generator = np.random.default_rng(seed)
    return [torch.from_numpy(generator.normal(size=shape)) for shape in SHAPES]


def gradients(n_steps, seed=1):
    generator = np.random.default_rng(seed)
    return [[torch.from_numpy(generator.normal(size=shape)) for shape in SHAPES] for _ in range(n_steps)]


def optimizer_of(name, params, rates=RATES, momenta=MOMENTA, **options):
    n = len(params[0])
    return OPTIMIZERS[name](params, rates[:n].copy(), momenta[:n].copy(), betas=BETAS, epsilon=EPSILON, **options)


def model(tensors, k):
    return [t[k : k + 1].clone() for t in tensors]


# ---- update rules -------------------------------------------------------------------------------------------------


def test_every_optimizer_is_compared_with_torch():
    assert {name for name, *_ in VARIANTS} == set(OPTIMIZERS)


@pytest.mark.parametrize(("name", "options", "reference"), VARIANTS, ids=VARIANT_IDS)
@pytest.mark.parametrize("rates", [RATES, np.full(3, 0.02)], ids=["own rates", "equal rates"])
@pytest.mark.parametrize("momenta", [MOMENTA, np.full(3, 0.9), np.zeros(3)], ids=["own momenta", "equal", "none"])
def test_each_model_moves_as_by_torch(name, options, reference, rates, momenta):
    params = parameters()
    optimizer = optimizer_of(name, params, rates, momenta, **options)
    theirs = [[p.requires_grad_() for p in model(params, k)] for k in range(3)]
    solvers = [reference(theirs[k], rates[k], momenta[k]) for k in range(3)]
    for step in gradients(6):
        optimizer.step([g.clone() for g in step])
        for k, solver in enumerate(solvers):
            for p, g in zip(theirs[k], model(step, k), strict=True):
                p.grad = g
            solver.step()
            for ours, p in zip(params, theirs[k], strict=True):
                np.testing.assert_allclose(ours[k], p[0].detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_models_place_in_a_stack_does_not_show(name):
    """Kernels round what is left over at the end of memory in another way."""
    params = [torch.randn(3, n, generator=torch.Generator().manual_seed(n)) for n in (1, 7, 16, 37, 101)]
    rates, momenta = np.full(3, 0.02), np.full(3, 0.9)
    apart = [optimizer_of(name, model(params, k), rates, momenta) for k in range(3)]
    together = optimizer_of(name, params, rates, momenta)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        step = [torch.randn(p.shape, generator=generator) for p in params]
        for k, one in enumerate(apart):
            one.step(model(step, k))
        together.step(step)
    for k, one in enumerate(apart):
        for ours, own in zip(params, one.params, strict=True):
            assert torch.equal(ours[k], own[0])


@each_optimizer
def test_equal_rates_take_a_fast_path_to_the_same_place(name):
    """A model moves by the same numbers whether the others in its stack have its rate (fused kernel) or not."""
    equal, different = parameters(), parameters()
    first = optimizer_of(name, equal, np.full(3, 0.02), np.full(3, 0.9))
    second = optimizer_of(name, different, np.array([0.02, 0.3, 0.1]), np.array([0.9, 0.2, 0.0]))
    for step in gradients(8):
        first.step([g.clone() for g in step])
        second.step([g.clone() for g in step])
    for p, q in zip(equal, different, strict=True):
        np.testing.assert_allclose(p[0], q[0], rtol=1e-12, atol=1e-14)
        assert not np.allclose(p[1], q[1], atol=1e-3)


@each_optimizer
@pytest.mark.parametrize("factor", [0.3, np.array([0.3, 1.0, 0.01])], ids=["shared", "own"])
def test_factor_scales_the_learning_rate(name, factor):
    scheduled, scaled = parameters(), parameters()
    first, second = optimizer_of(name, scheduled), optimizer_of(name, scaled, RATES * factor)
    for step in gradients(4):
        first.step([g.clone() for g in step], factor)
        second.step([g.clone() for g in step])
    assert first.rate.tolist() == second.rate.tolist() == (RATES * factor).tolist()
    for i, (p, q) in enumerate(zip(scheduled, scaled, strict=True)):
        np.testing.assert_allclose(p, q, rtol=1e-13)
        np.testing.assert_allclose(first.prox_step(i), second.prox_step(i), rtol=1e-13)


@each_optimizer
def test_gradients_that_are_not_contiguous(name):
    plain, strided = parameters(), parameters()
    first, second = optimizer_of(name, plain, np.full(3, 0.02)), optimizer_of(name, strided, np.full(3, 0.02))
    for step in gradients(3):
        first.step([g.clone() for g in step])
        second.step([g.mT.contiguous().mT for g in step])
    assert all(torch.equal(p, q) for p, q in zip(plain, strided, strict=True))


# ---- state --------------------------------------------------------------------------------------------------------


@each_optimizer
def test_a_loaded_state_goes_on_exactly(name):
    """Six steps of one model are three, a save, and three more by another optimizer."""
    steps = [model(g, 1) for g in gradients(6)]
    rates, momenta = RATES[:1], MOMENTA[:1]
    straight, params = model(parameters(), 1), model(parameters(), 1)
    whole = optimizer_of(name, straight, rates, momenta)
    first = optimizer_of(name, params, rates, momenta)
    for step in steps:
        whole.step([g.clone() for g in step])
    for step in steps[:3]:
        first.step([g.clone() for g in step])
    saved = first.states(np.arange(1))[0]
    resumed = [p.clone() for p in params]
    first.step(steps[0])  # what was saved is a copy
    second = optimizer_of(name, resumed, rates, momenta)
    second.load(saved)
    for step in steps[3:]:
        second.step([g.clone() for g in step])
    assert all(torch.equal(p, q) for p, q in zip(resumed, straight, strict=True))


@each_optimizer
def test_state_of_one_model_of_a_stack(name):
    """It goes on alone as it would have gone on in the stack."""
    params, steps = parameters(), gradients(6)
    stack = optimizer_of(name, params)
    for step in steps[:3]:
        stack.step([g.clone() for g in step])
    alone = [model(params, k) for k in range(3)]
    parts = [optimizer_of(name, alone[k], RATES[k : k + 1], MOMENTA[k : k + 1]) for k in range(3)]
    for k, part in enumerate(parts):
        part.load(stack.states(np.arange(3))[k])
        assert stack.states(np.arange(3))[k]["learning_rate"] == RATES[k]
    for step in steps[3:]:
        stack.step([g.clone() for g in step])
        for k, part in enumerate(parts):
            part.step(model(step, k))
    for k in range(3):
        for p, q in zip(params, alone[k], strict=True):
            np.testing.assert_allclose(p[k], q[0], rtol=1e-12, atol=1e-14)


@each_optimizer
def test_select_and_put(name):
    """A step of some models, taken out and put back, is a step of theirs in the stack, and none of the others'."""
    params, expected = parameters(), parameters()
    stack, other = optimizer_of(name, params), optimizer_of(name, expected)
    models = np.array([2, 0])
    first, second, third = gradients(3)
    for optimizer in (stack, other):
        optimizer.step([g.clone() for g in first])
    still = [p[1].clone() for p in params]
    chosen = [p[[2, 0]] for p in params]
    part = stack.select(models, chosen)
    assert part.rate.tolist() == RATES[[2, 0]].tolist()
    part.step([g[[2, 0]] for g in second], 0.5)
    stack.put(models, part)
    assert stack.rate.tolist() == (RATES * [0.5, 1, 0.5]).tolist()
    for p, q in zip(params, chosen, strict=True):
        p[[2, 0]] = q
    assert stack.n_steps.tolist() == [2, 1, 2]
    assert all(torch.equal(p[1], q) for p, q in zip(params, still, strict=True))
    stack.step([g.clone() for g in third])
    other.step([g.clone() for g in second], 0.5)
    other.step([g.clone() for g in third])
    for p, q in zip(params, expected, strict=True):
        np.testing.assert_allclose(p[[0, 2]], q[[0, 2]], rtol=1e-12, atol=1e-14)


# ---- with a penalty -----------------------------------------------------------------------------------------------

# Optimizers whose alpha is, as documented, not the weight of a penalty in an objective
DECOUPLED = {"adamw"}
DESCENTS = [
    ("sgd", 0.0, False, 0.2),
    ("sgd", 0.9, False, 0.04),
    ("sgd", 0.9, True, 0.04),
    *[(name, 0.0, True, 0.04) for name in OPTIMIZERS if name not in {"sgd", *DECOUPLED}],
]


def least_squares_problem():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(30, 5))
    y = X @ np.array([1.5, -2, 0, 0, 0.5]) + 0.3 * generator.normal(size=30)
    return X, y


@functools.cache
def optimum(alpha, l1_ratio):
    """Minimum of |Xw - y|^2 / 2n + alpha R(w) by cyclic coordinate descent."""
    X, y = least_squares_problem()
    n, w = len(X), np.zeros(X.shape[1])
    for _ in range(500):
        for j in range(len(w)):
            correlation = X[:, j] @ (y - X @ w + X[:, j] * w[j]) / n
            size = max(abs(correlation) - alpha * l1_ratio, 0)
            w[j] = np.sign(correlation) * size / (X[:, j] @ X[:, j] / n + alpha * (1 - l1_ratio))
    return w


@pytest.mark.parametrize(
    ("descent", "l1_ratio", "scaled"), covering(DESCENTS, [0.0, 0.5, 1.0], {"": False, "scaled columns": True})
)
def test_optimum_is_where_gradient_step_and_prox_end(descent, l1_ratio, scaled):
    """Whatever the momentum or the denominators; stacked models have their own alpha and learning rate."""
    name, momentum, nesterov, rate = descent
    X, y = least_squares_problem()
    A, b = torch.from_numpy(X), torch.from_numpy(y)
    alphas, rates = np.array([0.3, 0.05]), np.array([rate, rate / 2])
    scale = torch.tensor([[[1.0, 0.5, 2.0, 1.0, 0.8]]], dtype=A.dtype) if scaled else None
    w = [torch.zeros(2, 1, 5, dtype=A.dtype)]
    penalty = PENALTIES["elasticnet"](alphas, np.full(2, l1_ratio)).scaled(scale)
    optimizer = OPTIMIZERS[name](w, rates, np.full(2, momentum), nesterov, (0.9, 0.99))
    for _ in range(2000):
        coef = w[0] if scale is None else w[0] * scale
        gradient = (coef @ A.T - b) @ A / len(y)
        optimizer.step([gradient if scale is None else gradient * scale])
        penalty.prox_(w[0], optimizer.prox_step(0))
    coef = w[0] if scale is None else w[0] * scale
    for k, alpha in enumerate(alphas):
        expected = optimum(alpha, l1_ratio)
        np.testing.assert_allclose(coef[k, 0], expected, atol=1e-8)
        np.testing.assert_array_equal(coef[k, 0] == 0, expected == 0)
    if l1_ratio == 1:
        assert (coef[0] == 0).any()


def test_ridge_optimum_is_the_closed_form():
    """The reference of the test above, checked once itself."""
    X, y = least_squares_problem()
    n, alpha = len(X), 0.3
    expected = np.linalg.solve(X.T @ X / n + alpha * np.eye(5), X.T @ y / n)
    np.testing.assert_allclose(optimum(alpha, 0), expected, atol=1e-12)


def adamw_step(rate, alpha):
    """One step with decay of our AdamW and of torch's, and of our Adam without decay, from the same place."""
    (start,), ((gradient, _),) = parameters()[:1], gradients(1)
    params = [start.clone()]
    ours = OPTIMIZERS["adamw"](params, np.full(3, rate), np.zeros(3))
    ours.step([gradient.clone()])
    undecayed = params[0].clone()
    PENALTIES["l2"](np.full(3, alpha), np.zeros(3)).prox_(params[0], ours.prox_step(0))
    theirs = start.clone().requires_grad_()
    theirs.grad = gradient.clone()
    torch.optim.AdamW([theirs], lr=rate, weight_decay=alpha).step()
    return params[0], theirs.detach(), undecayed


def test_adamw_decays_with_the_bare_learning_rate():
    for alpha in (0.0, 0.5, 10.0):
        ours, _, undecayed = adamw_step(0.1, alpha)
        np.testing.assert_allclose(ours, undecayed / (1 + 0.1 * alpha), rtol=1e-14)


def test_adamw_is_torchs_to_first_order():
    """theta - lr alpha theta before the step there, a division by 1 + lr alpha after it here: O(lr^2) apart."""
    gap = [(ours - theirs).abs().max().item() for ours, theirs, _ in (adamw_step(r, 0.5) for r in (1e-3, 5e-4))]
    assert 0 < gap[0] < 5e-6
    assert gap[0] / gap[1] == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("momenta", [[0.9, 0.9], [0.9, 0.8]], ids=["fused", "each its own"])
def test_momentum_forgets_a_gradient_before_it_is_less_than_normal(momenta):
    """Less than normal, it would stay: nine tenths of the least number are rounded to that."""
    params = [torch.ones(2, 3)]
    optimizer = OPTIMIZERS["sgd"](params, np.full(2, 0.1), np.array(momenta))
    optimizer.step([torch.ones(2, 3)])
    for _ in range(900):
        optimizer.step([torch.zeros(2, 3)])
        (velocity,) = optimizer.velocity
        assert ((velocity == 0) | (velocity >= torch.finfo(torch.float32).tiny)).all()
    assert (velocity == 0).all()
    # all that a gradient of one adds up to
    expected = [1 - 0.1 / (1 - rho) for rho in momenta]
    np.testing.assert_allclose(params[0], np.repeat(expected, 3).reshape(2, 3), atol=1e-5)
