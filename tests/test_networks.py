"""Networks: scores and gradients of a stack, for all layouts of a batch, against each model alone."""

import numpy as np
import pytest
import torch
from helpers import random
from scipy import sparse, special

from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.networks import Linear
from skdeep.engine.perceptron import MLP

K, B, D, C = 3, 5, 4, 3
LAYOUTS = ["dense shared", "dense own", "sparse shared", "sparse own"]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # these tests build such tensors themselves
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)

# The formulas once more, in NumPy; maxout gets (..., 2 h) pre-activations, unit by unit.
FORMULAS = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.maximum(z, 0.01 * z),
    "prelu": lambda z: np.maximum(z, 0) + 0.25 * np.minimum(z, 0),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * (np.exp(z) - 1)),
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "logistic": special.expit,
    "maxout": lambda z: np.maximum(z[..., 0::2], z[..., 1::2]),
}


def rows_for(layout, seed=1):
    """A batch in a layout, and the same rows written out for each model, (K, B, D)."""
    own = random(K, B, D, seed=seed)
    if layout.startswith("sparse"):
        own[own < 0] = 0
    if layout.endswith("shared"):
        own[:] = own[0].clone()
    if layout == "dense own":
        return own, own
    if layout == "dense shared":
        return own[0], own
    rows = sparse.csr_array(own[0].numpy()) if layout == "sparse shared" else sparse.block_diag(own.numpy(), "csr")
    start, columns = (torch.from_numpy(part.astype(np.int64)) for part in (rows.indptr, rows.indices))
    return torch.sparse_csr_tensor(start, columns, torch.from_numpy(rows.data), rows.shape, check_invariants=True), own


def linear(intercept=True, columns=None):
    """A linear stack: columns as they are, or centred and scaled, by numbers shared or per model."""
    n = {None: 0, "shared": 1, "own": K}[columns]
    center = random(n, D, seed=5).numpy() if n and intercept else None
    scale = random(n, D, seed=6).abs().numpy() + 0.5 if n else None
    return Linear(random(K, C, D, seed=2), random(K, C, seed=3) if intercept else None, center, scale)


def mlp(activation, hidden=(3, 2), **options):
    generators = [np.random.default_rng(seed) for seed in range(K)]
    return MLP.initial(generators, [D, *hidden, C], activation, dtype=torch.float64, **options)


NETWORKS = {
    f"linear-{'intercept' if intercept else 'no intercept'}-{columns}": lambda i=intercept, c=columns: linear(i, c)
    for intercept in (True, False)
    for columns in (None, "shared", "own")
} | {activation: lambda a=activation: mlp(a) for activation in ACTIVATIONS}
NETWORKS |= {
    "batch": lambda: mlp("elu", normalization="batch"),  # smooth: a row of zeros can lie in the kink of others
    "layer": lambda: mlp("maxout", normalization="layer"),
    "residual": lambda: mlp("tanh", (3, 3, 3), stochastic_depth=0.0),
}
each_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def scores_and_gradient(network, X, direction):
    scores = network.training_scores(X)
    return scores.detach().clone(), [g.detach() for g in network.gradient(scores, X, direction)]


# ---- scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("columns", [None, "shared", "own"])
def test_linear_scores_are_those_of_the_changed_columns(intercept, columns):
    """s = V (x - mu) / sigma + c, and the same from W, b on the raw columns."""
    network, X = linear(intercept, columns), random(B, D)
    W, b = network.unscaled()
    scores = network.scores(X)
    for k in range(K):
        center = 0 if network.center is None else network.center[k % len(network.center), 0].numpy()
        scale = 1 if network.scale is None else network.scale[k % len(network.scale), 0].numpy()
        bias = network.params[1][k].numpy() if intercept else 0
        expected = ((X.numpy() - center) * scale) @ network.params[0][k].numpy().T + bias
        np.testing.assert_allclose(scores[k], expected, atol=1e-13)
        np.testing.assert_allclose(X.numpy() @ W[k].numpy().T + b[k].numpy(), expected, atol=1e-13)
    np.testing.assert_array_equal(network.penalised()[0], W)


@each_activation
def test_mlp_scores_are_the_formula(activation):
    """Alternating affine maps and non-linearities; none after the last layer."""
    network, X = mlp(activation), random(B, D, seed=7) * 2
    scores = network.scores(X).detach()
    n = network.n_coefs
    for k in range(K):
        hidden = X.numpy()
        for i in range(n):
            W, b = (network.params[j][k].detach().numpy() for j in (i, n + i))
            hidden = hidden @ W.T + b
            hidden = FORMULAS[activation](hidden) if i < n - 1 else hidden
        np.testing.assert_allclose(scores[k], hidden, atol=1e-13)


@each_network
@each_layout
def test_every_layout_gives_each_model_what_it_has_alone(make, layout):
    network, direction = make(), random(K, B, C, seed=9)
    X, own = rows_for(layout)
    scores, gradient = scores_and_gradient(network, X, direction)
    assert scores.shape == (K, B, C)
    assert [g.shape for g in gradient] == [p.shape for p in network.params]
    for k in range(K):
        alone = network.select(np.array([k]))
        for rows in (own[k], own[k : k + 1]):
            expected, expected_gradient = scores_and_gradient(alone, rows, direction[k : k + 1])
            np.testing.assert_allclose(scores[k], expected[0], atol=1e-13)
            for g, e in zip(gradient, expected_gradient, strict=True):
                np.testing.assert_allclose(g[k], e[0], atol=1e-12)


@each_network
def test_a_stack_of_one_takes_sparse_rows(make):
    network, direction = make().select(np.array([1])), random(1, B, C, seed=9)
    X, own = rows_for("sparse shared")
    scores, gradient = scores_and_gradient(network, X, direction)
    expected, expected_gradient = scores_and_gradient(network, own[0], direction)
    np.testing.assert_allclose(scores, expected, atol=1e-13)
    for g, e in zip(gradient, expected_gradient, strict=True):
        np.testing.assert_allclose(g, e, atol=1e-12)


# ---- gradients ----------------------------------------------------------------------------------------------------


def check_by_central_differences(network, X, h=1e-6):
    direction = random(K, B, C, seed=9)
    _, gradient = scores_and_gradient(network, X, direction)
    with torch.no_grad():
        for param, found in zip(network.params, gradient, strict=True):
            for j in np.ndindex(*param.shape[1:]):  # all models at once: none feels another
                at = (slice(None), *j)
                value = param[at].clone()
                sides = []
                for step in (h, -h):
                    param[at] = value + step
                    sides.append((network.training_scores(X) * direction).sum((1, 2)))
                param[at] = value
                np.testing.assert_allclose(found[at], (sides[0] - sides[1]) / (2 * h), rtol=1e-6, atol=1e-7)


@each_network
@pytest.mark.parametrize("layout", ["dense shared", "sparse own"])
def test_gradient_by_central_differences(make, layout):
    # rows and weights are continuous random numbers: no pre-activation is within h of a kink
    check_by_central_differences(make(), rows_for(layout)[0])


@pytest.mark.parametrize("intercept", [False, True])
def test_parameters_of_another_precision_have_columns_of_theirs(intercept):
    """As has a copy of a callback's module, which `double()` changes: what the network had made stayed as it was."""
    X, coef = torch.randn(4, 3), torch.randn(2, 5, 3)
    columns = np.arange(3.0)[None], np.array([[1.0, 2.0, 0.5]]), np.ones((1, 3))
    network = Linear(coef, torch.randn(2, 5) if intercept else None, *columns)
    expected = network.scores(X)
    found = network.with_params([param.double() for param in network.params]).scores(X.double())
    assert found.dtype is torch.float64
    torch.testing.assert_close(found.float(), expected)


def test_without_an_intercept_columns_are_not_centred():
    network = Linear(
        random(K, C, D), None, center=random(1, D, seed=5).numpy(), scale=random(1, D, seed=6).abs().numpy()
    )
    X = random(B, D, seed=1)
    np.testing.assert_allclose(network.scores(X), X @ (network.params[0] * network.scale).mT, atol=1e-13)
    check_by_central_differences(network, X)


@each_network
def test_the_batch_is_left_as_it_was(make):
    X = random(B, D, seed=1)
    before = X.clone()
    scores_and_gradient(make(), X, random(K, B, C))
    assert torch.equal(X, before)


# ---- the change of variables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("columns", [None, "shared", "own"])
def test_unscaled_round_trip(intercept, columns):
    network = linear(intercept, columns)
    coef = random(K, C, D, seed=11)
    bias = random(K, C, seed=12) if intercept else torch.zeros(K, C, dtype=coef.dtype)
    network.set_unscaled(coef, bias)
    np.testing.assert_allclose(network.unscaled()[0], coef, atol=1e-14)
    np.testing.assert_allclose(network.unscaled()[1], bias, atol=1e-13)
    X = random(B, D)
    expected = X.unsqueeze(0) @ coef.mT + bias.unsqueeze(1)
    np.testing.assert_allclose(network.scores(X), expected, atol=1e-13)


@pytest.mark.parametrize("columns", [None, "shared", "own"])
def test_coef_scale_is_the_derivative_of_the_coefficients(columns):
    """W = s V is linear in V, so one unit of V moves W by s."""
    network = linear(columns=columns)
    before = network.unscaled()[0].clone()
    network.params[0].add_(1)
    moved = network.unscaled()[0] - before
    scale = network.coef_scale()
    expected = torch.ones_like(moved) if scale is None else scale.expand(moved.shape)
    np.testing.assert_allclose(moved, expected, atol=1e-13)


# ---- stacks -------------------------------------------------------------------------------------------------------


@each_network
def test_select_and_put(make):
    network, X = make(), random(B, D)
    before, params = network.scores(X).detach(), [p.detach().clone() for p in network.tensors]
    models = np.array([2, 0])
    part = network.select(models)
    assert (network.n_models, part.n_models) == (K, 2)
    np.testing.assert_allclose(part.scores(X).detach(), before[[2, 0]], atol=1e-13)
    with torch.no_grad():
        for p in part.tensors:
            p.mul_(2)
    # a copy: nothing happens to the whole until the part is put back
    assert all(torch.equal(p, q) for p, q in zip(network.tensors, params, strict=True))
    network.put(models, part)
    for p, q in zip(network.tensors, params, strict=True):
        np.testing.assert_array_equal(p.detach(), q * torch.tensor([2, 1, 2]).view(-1, *[1] * (q.ndim - 1)))
    after = network.scores(X).detach()
    np.testing.assert_allclose(after[1], before[1], atol=1e-13)
    np.testing.assert_allclose(after[[2, 0]], part.scores(X).detach(), atol=1e-13)


@each_activation
def test_initial_weights(activation):
    units, n_pieces = [40, 30, 20, 3], ACTIVATIONS[activation].n_pieces
    network = MLP.initial([np.random.default_rng(0)], units, activation, dtype=torch.float64)
    assert network.n_coefs == 3
    factor = 2 if activation == "logistic" else 6
    for i, (fan_in, fan_out) in enumerate([(40, 30), (30, 20), (20, 3)]):
        weight, bias = (network.params[j].detach() for j in (i, 3 + i))
        width = fan_out * (n_pieces if i < 2 else 1)
        assert weight.shape == (1, width, fan_in)
        assert bias.shape == (1, width)
        bound = np.sqrt(factor / (fan_in + fan_out))
        for drawn in (weight, bias):
            assert drawn.abs().max() <= bound
        # uniform up to the bound, on both sides, with the variance that Glorot & Bengio ask for
        assert weight.max() > 0.8 * bound
        assert weight.min() < -0.8 * bound
        assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.35)
    slopes = network.params[6:]
    assert len(slopes) == (2 if ACTIVATIONS[activation].slope is not None else 0)
    assert all((s == ACTIVATIONS[activation].slope).all() for s in slopes)


@each_activation
def test_initial_weights_depend_on_the_models_own_seed_alone(activation):
    def drawn(*seeds, dtype=torch.float64):
        generators = [np.random.default_rng(seed) for seed in seeds]
        return [p.detach() for p in MLP.initial(generators, [D, 6, C], activation, dtype=dtype).params]

    stack = drawn(5, 7, 5)
    for k, seed in enumerate((5, 7, 5)):
        assert all(torch.equal(p[k], q[0]) for p, q in zip(stack, drawn(seed), strict=True))
    assert not torch.equal(stack[0][0], stack[0][1])
    assert all(torch.equal(p, q.float()) for p, q in zip(drawn(5, dtype=torch.float32), drawn(5), strict=True))
