"""Dropout and stochastic depth: expectation, independence, and what the draws depend on."""

import numpy as np
import pytest
import torch

from skdeep.engine.dropout import Noise
from skdeep.engine.perceptron import MLP

LIKE = torch.zeros(1, 400, 500, dtype=torch.float64)


SOME = torch.zeros(1, dtype=torch.float64)


def noise(*seeds):
    return Noise(torch.tensor([np.random.default_rng(seed).integers(2**63) for seed in seeds]))


def split_mix(seed, n):
    """SplitMix64 as Steele, Lea & Flood print it, in Python's integers."""
    mask = 2**64 - 1
    for i in range(1, n + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def test_the_bits_are_those_of_the_generator():
    assert [f"{z:016x}" for z in split_mix(1234567, 2)] == ["599ed017fb08fc85", "2c73f08458540fa5"]  # known values
    seed = 5**26
    words = np.array(list(split_mix(seed, 25)), dtype=np.uint64).view(np.int16)
    kept = Noise(torch.tensor([seed])).units(0, np.array([0.25]), torch.zeros(1, 10, 10))[0] > 0
    np.testing.assert_array_equal(kept.numpy().ravel(), words >= -(2**14))
    other = (seed + (3 << 40) * 0x9E3779B97F4A7C15) % 2**64  # a layer begins elsewhere in the same stream
    words = np.array(list(split_mix(other, 25)), dtype=np.uint64).view(np.int16)
    kept = Noise(torch.tensor([seed])).units(3, np.array([0.25]), torch.zeros(1, 10, 10))[0] > 0
    np.testing.assert_array_equal(kept.numpy().ravel(), words >= -(2**14))


@pytest.mark.parametrize("rate", [1e-6, 0.1, 0.5, 0.9])
def test_dropped_units_and_expectation(rate):
    factors = noise(0).units(0, np.array([rate]), LIKE)
    kept = factors > 0
    assert factors[kept].unique().numel() == 1
    n = factors.numel()
    assert kept.double().mean().item() == pytest.approx(1 - rate, abs=4 * np.sqrt(rate / n) + 2e-5)
    # what is kept is scaled up: the expectation is one, to the rounding of the probability included
    assert factors.mean().item() == pytest.approx(1, abs=4 * np.sqrt(rate / (1 - rate) / n) + 1e-5)
    if rate >= 0.1:  # neither rows nor units go together
        for axis in (1, 2):
            share = kept.double().mean(axis)
            assert share.std().item() == pytest.approx(np.sqrt(rate * (1 - rate) / kept.shape[axis]), rel=0.15)


def test_layers_and_steps_are_independent():
    rate = np.array([0.5])
    first, second = noise(0), Noise(noise(0).seeds + 1)  # neighbours
    masks = [step.units(layer, rate, LIKE) > 0 for step in (first, second) for layer in (0, 1)]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert (mask == other).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_masks_depend_on_the_models_own_seed_alone():
    """Not on the stack, nor on the rows that fill up a batch; models of one seed share the draw."""
    like, rates = LIKE.expand(3, -1, -1), np.array([0.2, 0.5, 0.8])
    together = noise(5, 7, 5).units(1, rates, like)
    for k, seed in enumerate((5, 7, 5)):
        for n_rows in (400, 33):
            alone = noise(seed).units(1, rates[k : k + 1], LIKE[:, :n_rows])
            assert torch.equal(alone[0], together[k, :n_rows])
    assert (together[0] > 0)[together[2] > 0].all()  # the same numbers against another rate
    assert noise(5).units(0, np.array([0.2, 0.2]), like[:2]).shape[0] == 1  # nothing is drawn or kept twice
    blocks = noise(5, 7).blocks(np.full((2, 3), 0.4), SOME)
    assert torch.equal(blocks[1], noise(7).blocks(np.full((1, 3), 0.4), SOME)[0])


def test_nothing_is_left_out_at_a_rate_of_zero():
    like = torch.zeros(2, 4000, 100)
    assert (noise(0, 1).units(0, np.array([0.0, 0.5]), like)[0] == 1).all()


def test_single_and_double_precision_have_the_same_masks():
    rate = np.array([0.3])
    double, single = (noise(0).units(0, rate, LIKE.to(dtype)) for dtype in (torch.float64, torch.float32))
    assert torch.equal(double.float(), single)
    # a factor rounded to 8 digits would not keep the expectation
    assert noise(0).units(0, rate, LIKE.bfloat16()).dtype is torch.float32


def test_blocks_are_left_out_as_often_as_they_should():
    rates = np.array([[0.1, 0.3, 0.5]])
    seeds = np.random.default_rng(0).integers(2**63, size=4000)
    factors = Noise(torch.from_numpy(seeds)).blocks(np.tile(rates, (4000, 1)), SOME).numpy()
    np.testing.assert_allclose((factors == 0).mean(0), rates[0], atol=0.03)
    np.testing.assert_allclose(factors.mean(0), 1, atol=0.05)
    assert sorted(set(factors[:, 1])) == pytest.approx([0, 1 / 0.7], rel=1e-4)  # a multiple of 2 ** -16


def network(seeds=(0,), hidden=(6, 6, 4, 4, 4), activation="tanh", **options):
    made = {seed: np.random.default_rng(seed) for seed in seeds}
    return MLP.initial([made[s] for s in seeds], [5, *hidden, 3], activation, dtype=torch.float64, **options)


X = torch.from_numpy(np.random.default_rng(3).normal(size=(8, 5)))


def test_residual_blocks_are_where_widths_agree():
    net = network(stochastic_depth=0.3)
    assert net.blocks == [1, 3, 4]
    assert network(activation="maxout", stochastic_depth=0.3).blocks == [1, 3, 4]
    assert network().blocks == []
    assert network(hidden=(4,), stochastic_depth=0.3).blocks == []
    weights, biases = (net.groups[name] for name in ("weight", "bias"))
    h = X
    for i in range(5):
        new = torch.tanh(h @ weights[i][0].T + biases[i][0])
        h = h + new if i in (1, 3, 4) else new
    np.testing.assert_allclose(net.scores(X)[0].detach(), (h @ weights[5][0].T + biases[5][0]).detach(), atol=1e-13)
    # the probability grows linearly: a third, two thirds, all of it
    np.testing.assert_allclose(net._gates(Recorded()), [[0.1, 0.2, 0.3]])


class Recorded:
    """Noise that says which probabilities it is asked for."""

    def blocks(self, rate, like):
        return rate


def test_a_training_step_is_the_formula_with_the_drawn_factors():
    """Values by hand, and the gradient by central differences with the same draw."""
    net = network((1, 2), hidden=(6, 6), dropout=np.array([0.3, 0.6]), stochastic_depth=0.5, normalization="layer")

    start, seeds = [p.detach() for p in net.params], torch.tensor([11, 12])
    step = Noise(seeds)
    gates = step.blocks(np.array([[0.5], [0.5]]), X)
    scores = net.with_params(start).training_scores(X, noise=Noise(seeds)).detach()
    for k in range(2):
        g = {name: [t[k].detach() for t in group] for name, group in net.groups.items()}
        h = X
        for i in range(2):
            z = h @ g["weight"][i].T + g["bias"][i]
            z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            new = torch.tanh(z * g["gamma"][i] + g["beta"][i])
            new = new * step.units(i, net.dropout, torch.zeros(2, 8, 6, dtype=X.dtype))[k]
            h = new if i == 0 else h + gates[k, 0] * new
        np.testing.assert_allclose(scores[k], h @ g["weight"][2].T + g["bias"][2], atol=1e-12)
    direction = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 8, 3)))
    trained = net.with_params(start)
    gradient = trained.gradient(trained.training_scores(X, noise=Noise(seeds)), X, direction)
    for i, found in enumerate(gradient):
        j, sides = (slice(None), *[0] * (found.ndim - 1)), []
        for h in (1e-6, -1e-6):
            moved = [p.clone() for p in start]
            moved[i][j] += h
            found_there = net.with_params(moved).training_scores(X, noise=Noise(seeds)).detach()
            sides.append((found_there * direction).sum((1, 2)))
        np.testing.assert_allclose(found[j], (sides[0] - sides[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_evaluation_draws_nothing():
    net = network(dropout=0.5, stochastic_depth=0.5)
    assert torch.equal(net.scores(X), net.scores(X))
    first, second = (net.training_scores(X, noise=Noise(torch.tensor([seed]))) for seed in (1, 2))
    assert not torch.equal(first, second) and not torch.equal(first, net.scores(X))


def test_part_of_a_batch_has_the_factors_of_its_places():
    """As where rows are divided among processes: each has its own, and two models have two orders."""
    whole = torch.zeros(4, 7, 5, dtype=torch.float64)
    seeds, rate = torch.tensor([1, 2, 3, 4]), np.full(4, 0.5)
    of_all = Noise(seeds).units(1, rate, whole)
    places = torch.tensor([[6, 2, 3], [0, 1, 5]])  # of two models each
    part = Noise(seeds, places).units(1, rate, whole[:, :3])
    for model, own in enumerate((0, 0, 1, 1)):
        np.testing.assert_array_equal(part[model], of_all[model, places[own]])
    assert torch.equal(Noise(seeds[:1], places[:1]).units(1, rate, whole[:, :3])[0], part[0])
