"""Factors on the columns of a network, learnt with its weights."""

import numpy as np
import pytest
import torch
from helpers import reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_wine

from skdeep import MLPClassifierTorch, MLPEnsembleClassifier
from skdeep.engine.input_layer import Standardization
from skdeep.engine.penalties import L2
from skdeep.engine.per_model import csr_tensor
from skdeep.engine.perceptron import MLP

K, B, D, C = 2, 9, 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(2, 1, (K, B, D)) * (RNG.random((K, B, D)) < 0.7)
TENSOR = {"dtype": torch.float64, "device": torch.device("cpu")}
WINE, Y = load_wine(return_X_y=True)
BASE = MLPClassifierTorch((8,), batch_size=50, max_iter=10, precision="float64", random_state=0)


def network_of(centers, edges=None, **options):
    center = torch.from_numpy(RNG.normal(size=(K, 1, D))) if centers else None
    scale = torch.from_numpy(RNG.uniform(0.5, 2, (K, 1, D)))
    standardization = Standardization(center, scale, torch.empty(0, dtype=torch.int64), edges=edges)
    generators = [np.random.default_rng(k) for k in range(K)]
    units = [D + standardization.n_bins, 5, 5, C]
    network = MLP.initial(generators, units, "tanh", scaling=3.0, standardization=standardization, **options, **TENSOR)
    with torch.no_grad():
        network.groups["scale"][0].normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return network


def batch_of(layout):
    if layout == "shared":
        return torch.from_numpy(X[0])
    if layout == "own":
        return torch.from_numpy(X)
    array = sparse.csr_array(X[0] if layout == "shared sparse" else sparse.block_diag(list(X)))
    parts = (torch.from_numpy(part.astype(kind)) for part, kind in ((array.indptr, int), (array.indices, int)))
    return csr_tensor(*parts, torch.from_numpy(array.data), array.shape)


def central_differences(network, function, step=1e-6):
    """Gradient of a function of the network, parameter by parameter."""
    found = []
    for param in network.params:
        flat = param.detach().view(-1)
        slope = torch.empty_like(flat)
        for i in range(len(flat)):
            there = flat[i].item()
            values = []
            for sign in (1, -1):
                flat[i] = there + sign * step
                values.append(float(function()))
            flat[i] = there
            slope[i] = (values[0] - values[1]) / (2 * step)
        found.append(slope.view(param.shape))
    return found


@pytest.mark.parametrize("layout", ["shared", "own", "shared sparse", "own sparse", "shared bins", "own bins"])
@pytest.mark.parametrize("options", [{}, {"normalization": "layer", "stochastic_depth": 0.0}], ids=["plain", "layers"])
def test_gradients_are_derivatives(layout, options):
    if "bins" in layout:  # of three of the columns, which share a factor
        layout, options = layout.split()[0], options | {"edges": np.sort(RNG.normal(2, 1, (K, 3, 5)))}
    network, batch = network_of("sparse" not in layout, **options), batch_of(layout)
    assert network.groups["scale"][0].shape == (K, D + 3 * ("edges" in options))
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=(K, B, C)))
    gradients = network.gradient(network.training_scores(batch), batch, direction)
    network.complete_(gradients, None)
    with torch.no_grad():
        expected = central_differences(network, lambda: (network.scores(batch) * direction).sum())
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-6)
    assert gradients[-1].abs().min() > 1e-3  # of the factors


def test_the_penalty_is_that_of_the_weights_on_the_columns():
    network, penalty = network_of(True), L2(np.array([0.3, 2.0]), np.zeros(K))
    gradients = [torch.zeros_like(p) for p in network.params]
    network.training_scores(batch_of("shared"))  # a step begins so
    network.complete_(gradients, penalty)
    with torch.no_grad():
        expected = central_differences(network, lambda: penalty.value(network.penalised()).sum())
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-7, rtol=1e-6)
    learned = network.learned(1, np.float64)
    weights, factors = learned["weight"], learned["scale"][0]
    columns = weights[0] / network.standardization.scale[1].numpy()
    squares = sum(float((w**2).sum()) for w in (columns, *weights[1:]))
    assert penalty.value(network.penalised())[1] == pytest.approx(squares)  # 2 / 2 of them
    assert np.abs(factors - 1).max() > 0.1


@pytest.mark.parametrize("data", [WINE, sparse.csr_array(WINE)], ids=["dense", "sparse"])
def test_factors_are_in_the_weights(data):
    model = clone(BASE).set_params(column_learning_rate=5.0).fit(data, Y)
    assert model.column_factors_.shape == (13,) and np.abs(model.column_factors_ - 1).min() > 1e-3
    hidden = np.maximum(WINE @ model.coefs_[0] + model.intercepts_[0], 0)
    np.testing.assert_allclose(model.decision_function(data), hidden @ model.coefs_[1] + model.intercepts_[1])
    without = clone(model).set_params(column_learning_rate=0).fit(data, Y)
    assert not hasattr(without, "column_factors_")
    assert not hasattr(model.set_params(column_learning_rate=0).fit(data, Y), "column_factors_")


def test_missing_values_have_factors_too():
    holes = np.where(np.random.default_rng(0).random(WINE.shape) < 0.1, np.nan, WINE)
    holes[:, 3:] = WINE[:, 3:]
    model = clone(BASE).set_params(max_iter=60).fit(holes, Y)
    assert model.column_factors_.shape == (13 + 3,) and model.score(holes, Y) > 0.9


def test_training_goes_on_where_it_was():
    params = {"learning_rate": "constant", "tol": 0.0, "n_iter_no_change": np.inf, "column_learning_rate": 5.0}
    once = reconfigured(clone(BASE), **params, max_iter=20).fit(WINE, Y)
    twice = reconfigured(clone(BASE), **params, warm_start=True).fit(WINE, Y).fit(WINE, Y)
    np.testing.assert_allclose(twice.coefs_[0], once.coefs_[0], rtol=1e-8)
    np.testing.assert_allclose(twice.column_factors_, once.column_factors_, rtol=1e-8)
    with pytest.raises(ValueError, match="column_learning_rate or normalization has changed"):
        twice.set_params(column_learning_rate=0).fit(WINE, Y)
    np.testing.assert_allclose(twice.column_factors_, once.column_factors_, rtol=1e-8)  # nothing is lost


@pytest.mark.parametrize("make", [BASE, MLPEnsembleClassifier(hidden_layer_sizes=(8,), n_estimators=3, max_iter=10)])
@pytest.mark.parametrize("wrong", [-1.0, None, "auto"])
def test_what_is_no_rate_is_an_error(make, wrong):
    with pytest.raises(ValueError, match="column_learning_rate"):
        clone(make).set_params(column_learning_rate=wrong).fit(WINE, Y)


@pytest.mark.slow
def test_columns_that_say_nothing_fade():
    """Two columns of twenty decide (by their signs, together): the others get smaller factors, and do less harm."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2000, 20))
    labels = (data[:, 0] > 0) ^ (data[:, 1] > 0)
    network = MLPClassifierTorch((32,), column_learning_rate=6.0, random_state=0)
    network.fit(data[:1000], labels[:1000])
    factors = np.abs(network.column_factors_)
    assert factors[:2].min() > 2 * factors[2:].max()
    plain = clone(network).set_params(column_learning_rate=0).fit(data[:1000], labels[:1000])
    assert network.score(data[1000:], labels[1000:]) > plain.score(data[1000:], labels[1000:]) + 0.02
