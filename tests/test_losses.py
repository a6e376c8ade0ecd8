"""Losses: the worked numbers of the lectures, formulas written a second time, and gradients."""

import inspect

import numpy as np
import pytest
import torch
from helpers import LOSS_CASES, LOSS_IDS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skdeep.engine.losses import LOSSES, Loss, smoothed
from skdeep.engine.networks import Linear

SMOOTH = [case for case in LOSS_CASES if LOSSES[case[0]](**case[1]).smooth]
SMOOTH_IDS = [i for i, case in zip(LOSS_IDS, LOSS_CASES, strict=True) if case in SMOOTH]
each_loss = pytest.mark.parametrize(("name", "options"), LOSS_CASES, ids=LOSS_IDS)
each_smooth_loss = pytest.mark.parametrize(("name", "options"), SMOOTH, ids=SMOOTH_IDS)


def sum_of(terms):
    return torch.stack(terms).sum()


# The formulas once more, one sample at a time: scores s (C,), class code y or indicators t (C,), exponent p of hinges.
FORMULAS = {
    "log_loss": lambda s, y, p: torch.logsumexp(s, 0) - s[y],
    "binary_log_loss": lambda s, t, p: (torch.logaddexp(s, torch.zeros_like(s)) - t * s).sum(),
    "squared_error": lambda s, t, p: sum_of([(s[c] - (1 if t[c] else -1)) ** 2 / 2 for c in range(len(s))]),
    "weston_watkins": lambda s, y, p: sum_of([(s[j] - s[y] + 1).clamp(min=0) ** p for j in range(len(s)) if j != y]),
    "crammer_singer": lambda s, y, p: (
        torch.stack([s[j] - s[y] + 1 for j in range(len(s)) if j != y]).max().clamp(min=0) ** p
    ),
    "ovr": lambda s, t, p: sum_of([(1 - (1 if t[c] else -1) * s[c]).clamp(min=0) ** p for c in range(len(s))]),
}


def formula(name, options, scores, target):
    """The values (...) by `FORMULAS`, whatever the leading axes of the scores."""
    rows = scores.reshape(-1, scores.shape[-1])
    codes = LOSSES[name].target == "codes"
    target = target.expand(scores.shape[:-1] if codes else scores.shape).reshape(len(rows), -1)
    power = 2 if options.get("squared") else 1
    values = [FORMULAS[name](s, int(t) if codes else t, power) for s, t in zip(rows, target, strict=True)]
    return torch.stack(values).view(scores.shape[:-1])


def make_target(kind, shape, generator):
    """Random codes (...) or indicators (..., C) for scores of a shape."""
    if kind == "codes":
        return torch.from_numpy(generator.integers(0, shape[-1], shape[:-1]))
    return torch.from_numpy(generator.integers(0, 2, shape).astype(float))


def example(name, shape=(4, 6, 3), seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.normal(0, 2, shape)), make_target(LOSSES[name].target, shape, generator)


def shapes_of(name):
    """Two classes as well as several; one column where columns are independent questions."""
    return [(4, 6, 3), (7, 2)] + ([(5, 1)] if LOSSES[name].target == "indicators" else [])


# ---- worked numbers -----------------------------------------------------------------------------------------------

SCORES = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype=torch.float64)
SATISFIED = torch.tensor([[10, -2, 3], [10, 9, 9], [10, -100, -100]], dtype=torch.float64)


def codes(*values):
    return torch.tensor(values)


def test_softmax_of_the_cat_example():
    loss = LOSSES["log_loss"]()
    assert loss.value(SCORES[:1], codes(0)).item() == pytest.approx(2.04, abs=0.005)
    np.testing.assert_allclose(loss.probabilities(SCORES[0]), [0.13, 0.87, 0.00], atol=0.005)
    np.testing.assert_allclose(SCORES[0].exp(), [24.5, 164.0, 0.18], atol=0.05)


def test_cross_entropy_of_a_prediction():
    # scores log p have the softmax p
    value = LOSSES["log_loss"]().value(torch.tensor([0.6, 0.4], dtype=torch.float64).log(), codes(0)[0]).item()
    assert value == pytest.approx(0.5108, abs=5e-5)
    assert value / np.log(10) == pytest.approx(0.22, abs=0.005)


def test_hinge_of_three_samples():
    value = LOSSES["weston_watkins"]().value(SCORES, codes(0, 1, 2))
    np.testing.assert_allclose(value, [2.9, 0, 12.9], atol=1e-12)
    assert value.mean().item() == pytest.approx(5.27, abs=0.005)


@pytest.mark.parametrize(
    ("name", "at_equal_scores"),
    [
        ("log_loss", np.log),
        ("binary_log_loss", lambda n: n * np.log(2)),
        ("squared_error", lambda n: n / 2),
        ("weston_watkins", lambda n: n - 1),
        ("crammer_singer", lambda n: 1),
        ("ovr", lambda n: n),
    ],
)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_at_initialisation(name, at_equal_scores, n_classes):
    scores = torch.zeros(1, n_classes, dtype=torch.float64)
    target = make_target(LOSSES[name].target, scores.shape, np.random.default_rng(0))
    assert LOSSES[name]().value(scores, target).item() == pytest.approx(at_equal_scores(n_classes), abs=1e-12)


def test_log_loss_at_initialisation_as_printed():
    loss = LOSSES["log_loss"]()
    assert loss.value(torch.zeros(10), codes(3)[0]).item() == pytest.approx(2.303, abs=5e-4)
    assert loss.value(torch.zeros(3), codes(1)[0]).item() == pytest.approx(1.099, abs=5e-4)


def exact_cross_entropy(scores):
    """-log p_0 from the probabilities of the others, which the gradient holds to full relative precision.

    (1 + 3e-48 is 1 in float64, so that the value itself must round to 0.)
    """
    _, gradient = LOSSES["log_loss"]().value_and_gradient(scores, codes(*[0] * len(scores)))
    return -torch.log1p(-gradient[:, 1:].sum(1))


def test_satisfied_margins_still_have_cross_entropy():
    target = codes(0, 0, 0)
    assert (LOSSES["weston_watkins"]().value(SATISFIED, target) == 0).all()
    exact = exact_cross_entropy(SATISFIED)
    assert (exact > 0).all()
    assert float(f"{exact[2].item():.0e}") == 3e-48
    np.testing.assert_allclose(LOSSES["log_loss"]().value(SATISFIED, target), exact, rtol=1e-12, atol=1e-15)


def test_doubling_the_true_score():
    doubled = SATISFIED.clone()
    doubled[:, 0] *= 2
    target = codes(0, 0, 0)
    assert (exact_cross_entropy(doubled) < exact_cross_entropy(SATISFIED)).all()
    loss = LOSSES["log_loss"]()
    assert (loss.value(doubled, target)[:2] < loss.value(SATISFIED, target)[:2]).all()
    hinge = LOSSES["weston_watkins"]()
    for scores in (SATISFIED, doubled):
        value, gradient = hinge.value_and_gradient(scores, target)
        assert (value == 0).all()
        assert (gradient == 0).all()


HINGES = [(name, options) for name, options in LOSS_CASES if "squared" in inspect.signature(LOSSES[name]).parameters]


@pytest.mark.parametrize(("name", "options"), HINGES)
def test_twice_a_separating_w_has_zero_hinge_too(name, options):
    """Only the penalty chooses between W and 2 W."""
    X = torch.eye(3, dtype=torch.float64)
    W = (3 * torch.eye(3, dtype=torch.float64) - 1).unsqueeze(0)
    target = torch.arange(3) if LOSSES[name].target == "codes" else torch.eye(3, dtype=torch.float64)
    for coef in (W, 2 * W):
        assert (LOSSES[name](**options).value(Linear(coef, None).scores(X), target) == 0).all()


def test_scores_of_the_2x2_image():
    x = torch.tensor([[56.0, 231, 24, 2]], dtype=torch.float64)
    W = torch.tensor([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0, 0.25, 0.2, -0.3]], dtype=torch.float64)
    b = torch.tensor([1.1, 3.2, -1.2], dtype=torch.float64)
    scores = Linear(W.unsqueeze(0), b.unsqueeze(0)).scores(x)
    np.testing.assert_allclose(scores[0, 0], [-96.8, 437.9, 60.75], atol=1e-10)


def test_softmax_jacobian_and_gradient():
    loss = LOSSES["log_loss"]()
    p = loss.probabilities(SCORES[0])
    jacobian = torch.autograd.functional.jacobian(loss.probabilities, SCORES[0])
    np.testing.assert_allclose(jacobian.diagonal(), p * (1 - p), atol=1e-14)
    _, gradient = loss.value_and_gradient(SCORES, codes(0, 1, 2))
    np.testing.assert_allclose(gradient, loss.probabilities(SCORES) - torch.eye(3), atol=1e-14)


@pytest.mark.parametrize("name, n_columns", [("log_loss", 3), ("binary_log_loss", 1), ("binary_log_loss", 4)])
def test_the_gradient_vanishes_at_the_level_of_the_mean_target(name, n_columns):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(7, n_columns, generator=generator, dtype=torch.float64)
    target = target / target.sum(-1, keepdim=True) if name == "log_loss" else target
    weight = torch.rand(7, generator=generator, dtype=torch.float64)
    loss, mean = LOSSES[name](), torch.einsum("n,nc->c", weight, target) / weight.sum()
    level = torch.from_numpy(loss.starting_scores(mean.numpy(), 1e-9)).requires_grad_()
    (gradient,) = torch.autograd.grad((weight * loss.value(level.expand(7, -1), target)).sum(), level)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_no_class_begins_below_one_row():
    np.testing.assert_allclose(np.diff(LOSSES["log_loss"]().starting_scores(np.array([1.0, 0.0]), 0.01)), np.log(0.01))
    np.testing.assert_allclose(
        LOSSES["binary_log_loss"]().starting_scores(np.array([0.0, 1.0]), 0.01), np.log([0.01, 100])
    )


def test_probabilities_of_one_column_are_the_sigmoid():
    scores = torch.tensor([[-800.0], [-1.0], [0.0], [2.0], [800.0]], dtype=torch.float64)
    p = LOSSES["binary_log_loss"]().probabilities(scores)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-scores[:, 0].numpy())), atol=1e-15)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-15)


# ---- every loss ---------------------------------------------------------------------------------------------------


@each_loss
def test_value_is_the_formula(name, options):
    for shape in shapes_of(name):
        scores, target = example(name, shape)
        value = LOSSES[name](**options).value(scores, target)
        np.testing.assert_allclose(value, formula(name, options, scores, target), rtol=1e-12, atol=1e-14)
        assert (value >= 0).all()


@each_loss
def test_gradient_is_that_of_the_formula(name, options):
    for shape in shapes_of(name):
        scores, target = example(name, shape)
        value, gradient = LOSSES[name](**options).value_and_gradient(scores.clone(), target)
        leaf = scores.clone().requires_grad_()
        expected = formula(name, options, leaf, target)
        (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
        np.testing.assert_allclose(value, expected.detach(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-12, atol=1e-14)


@each_loss
def test_gradient_by_central_differences(name, options):
    # continuous random scores: no margin is within h of its kink
    loss, h = LOSSES[name](**options), 1e-6
    for shape in shapes_of(name):
        scores, target = example(name, shape, seed=1)
        _, gradient = loss.value_and_gradient(scores.clone(), target)
        for c in range(shape[-1]):
            step = torch.zeros(shape[-1], dtype=torch.float64)
            step[c] = h
            slope = (loss.value(scores + step, target) - loss.value(scores - step, target)) / (2 * h)
            np.testing.assert_allclose(gradient[..., c], slope, rtol=1e-7, atol=1e-7)


@each_loss
def test_inputs_are_left_as_they_were(name, options):
    scores, target = example(name)
    before = scores.clone(), target.clone()
    LOSSES[name](**options).value(scores, target)
    LOSSES[name](**options).value_and_gradient(scores, target)
    assert torch.equal(scores, before[0])
    assert torch.equal(target, before[1])


@each_loss
@pytest.mark.parametrize("extreme", [(1e4, -1e4, 0.0), (-1e4, -1e4, 1e4), (1e4, 1e4, -1e4)])
def test_extreme_scores(name, options, extreme):
    """Finite, and at the limit: the linear (squared: quadratic) growth of the formula, without overflow."""
    scores = torch.tensor([extreme] * 3, dtype=torch.float64)
    target = torch.arange(3) if LOSSES[name].target == "codes" else torch.eye(3, dtype=torch.float64)
    value, gradient = LOSSES[name](**options).value_and_gradient(scores.clone(), target)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    np.testing.assert_allclose(value, formula(name, options, scores, target), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "target", "limit", "gradient"),
    [
        ("log_loss", codes(0), 0.0, [0, 0]),
        ("log_loss", codes(1), 2e4, [1, -1]),
        ("binary_log_loss", torch.tensor([[1.0, 0.0]]), 0.0, [0, 0]),
        ("binary_log_loss", torch.tensor([[0.0, 1.0]]), 2e4, [1, -1]),
        ("weston_watkins", codes(1), 2e4 + 1, [1, -1]),
        ("crammer_singer", codes(0), 0.0, [0, 0]),
        ("ovr", torch.tensor([[0.0, 1.0]]), 2e4 + 2, [1, -1]),
    ],
)
def test_limits_at_extreme_scores(name, target, limit, gradient):
    scores = torch.tensor([[1e4, -1e4]], dtype=torch.float64)
    target = target if target.dtype is torch.int64 else target.double()
    value, found = LOSSES[name]().value_and_gradient(scores, target)
    assert value.item() == limit
    np.testing.assert_array_equal(found[0], gradient)


@each_loss
def test_models_share_targets_or_have_their_own(name, options):
    loss = LOSSES[name](**options)
    scores, own = example(name, (4, 6, 3))
    for target in (own[:1], own):
        value, gradient = loss.value_and_gradient(scores.clone(), target)
        assert value.shape == (4, 6)
        assert gradient.shape == (4, 6, 3)
        for k in range(4):
            alone = loss.value_and_gradient(scores[k].clone(), target[k % len(target)])
            np.testing.assert_allclose(value[k], alone[0], rtol=1e-14)
            np.testing.assert_allclose(gradient[k], alone[1], rtol=1e-14, atol=1e-16)


@each_loss
def test_scores_need_not_be_contiguous(name, options):
    """A network's scores come as a transposed view (B, K, C) -> (K, B, C)."""
    loss = LOSSES[name](**options)
    scores, target = example(name)
    strided = scores.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    for found, expected in zip(
        loss.value_and_gradient(strided, target), loss.value_and_gradient(scores.clone(), target), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-16)


@each_smooth_loss
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_curvature_bounds_the_loss(name, options, data):
    """l(s + h) <= l(s) + g.h + c/2 |h|^2: what makes the automatic learning rate safe."""
    loss = LOSSES[name](**options)
    n = data.draw(st.integers(2, 5))
    numbers = st.floats(-20, 20, allow_nan=False, width=32)
    s, h = (torch.from_numpy(data.draw(arrays(np.float64, (1, n), elements=numbers))) for _ in range(2))
    target = make_target(loss.target, (1, n), np.random.default_rng(data.draw(st.integers(0, 9))))
    value, gradient = loss.value_and_gradient(s.clone(), target)
    bound = value + (gradient * h).sum(1) + loss.curvature(n) / 2 * h.square().sum(1)
    assert (loss.value(s + h, target) <= bound + 1e-9 * (1 + bound.abs())).all()


@each_loss
def test_smooth_says_whether_the_gradient_is_continuous(name, options):
    """Along lines that cross each margin's kink and a tie of two rivals, a kink is a jump of the gradient."""
    loss = LOSSES[name](**options)
    at = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    scores = torch.zeros(len(at), 3, dtype=torch.float64)
    scores[:, 0] = at
    jumps = []
    for code in (0, 2):  # first the own score moves, then a rival's
        target = torch.full((len(at),), code)
        if loss.target == "indicators":
            target = torch.nn.functional.one_hot(target, 3).double()
        _, gradient = loss.value_and_gradient(scores, target)
        jumps.append(gradient.diff(dim=0).abs().max().item())
    assert (max(jumps) < 0.1) == loss.smooth


class UsersSoftmax(Loss):
    """What a user would write: no closed-form gradient."""

    def value(self, scores, target):
        own = scores.gather(-1, target.expand(scores.shape[:-1]).unsqueeze(-1)).squeeze(-1)
        return torch.logsumexp(scores, -1) - own


def test_a_loss_of_the_users_own_gets_its_gradient_by_autograd():
    scores, target = example("log_loss", (4, 6, 3))
    with torch.no_grad():  # as in the training loop
        value, gradient = UsersSoftmax().value_and_gradient(scores, target[:1])
    expected = LOSSES["log_loss"]().value_and_gradient(scores.clone(), target[:1])
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-14)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert not scores.requires_grad


def test_base_class_asks_for_a_value():
    with pytest.raises(NotImplementedError):
        Loss().value_and_gradient(SCORES, codes(0, 1, 2))


# ---- label smoothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.1, 1.0])
def test_smoothed_softmax_is_that_of_torch(amount):
    scores, target = example("log_loss", (6, 5))
    expected = torch.nn.functional.cross_entropy(scores, target, label_smoothing=amount, reduction="none")
    np.testing.assert_allclose(smoothed(LOSSES["log_loss"](), amount).value(scores, target), expected, rtol=1e-13)


def test_smoothed_indicators_are_soft_targets():
    scores, target = example("binary_log_loss", (6, 5))
    loss = smoothed(LOSSES["binary_log_loss"](), 0.1)
    expected = LOSSES["binary_log_loss"]().value(scores, 0.9 * target + 0.05)
    np.testing.assert_allclose(loss.value(scores, target), expected, rtol=1e-13)
    # one column is two classes
    pair = torch.nn.functional.cross_entropy(
        torch.cat([torch.zeros(6, 1), scores[:, :1]], 1), target[:, 0].long(), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(loss.value(scores[:, :1], target[:, :1]), pair, rtol=1e-13)


@pytest.mark.parametrize("name", ["log_loss", "binary_log_loss"])
@pytest.mark.parametrize("shared", [False, True])
def test_smoothed_derivatives_are_those_of_autograd(name, shared):
    loss = smoothed(LOSSES[name](), 0.2)
    scores, target = example(name, (2, 6, 3))
    target = target[:1] if shared else target
    value, gradient = loss.value_and_gradient(scores.clone(), target)
    expected = Loss.value_and_gradient(loss, scores, target)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-14)
    np.testing.assert_allclose(loss.second(scores, target), Loss.second(loss, scores, target), atol=1e-14)
    np.testing.assert_array_equal(loss.probabilities(scores), LOSSES[name]().probabilities(scores))
    assert loss.curvature(3) == LOSSES[name]().curvature(3)


def test_no_smoothing_is_the_plain_loss():
    plain = LOSSES["log_loss"]()
    assert smoothed(plain, 0.0) is plain
    assert smoothed(plain, 0.1).smoothing == 0.1 and plain.smoothing == 0
    with pytest.raises(ValueError, match="label_smoothing is of cross-entropies, and SquaredError is none"):
        smoothed(LOSSES["squared_error"](), 0.1)


def test_one_unit_per_class_has_normalised_sigmoids():
    scores = torch.tensor([[1.0, -2.0, 0.5], [-800.0, -801.0, -900.0], [50.0, 60.0, 900.0]], dtype=torch.float64)
    p = LOSSES["binary_log_loss"]().probabilities(scores)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(p[0], torch.sigmoid(scores[0]) / torch.sigmoid(scores[0]).sum(), rtol=1e-14)
    np.testing.assert_allclose(p[1, 1] / p[1, 0], np.exp(-1), rtol=1e-12)  # where every sigmoid is as good as zero
    np.testing.assert_allclose(p[2], 1 / 3)
