"""Batch and layer normalisation against torch's own modules, and against the formula with weights."""

import numpy as np
import pytest
import torch
from helpers import random

from skdeep.engine.normalization import EPSILON, batch_norm, layer_norm

K, B, H = 3, 7, 4


def stack():
    """Pre-activations, factors, summands, running means and variances; and a direction to differentiate in."""
    z = random(K, H, B).mT * 2 + 1  # the memory of a stack
    return z, random(K, H, seed=1), random(K, H, seed=2), random(K, H, seed=3), random(K, H, seed=4).abs() + 0.5


def with_gradient(function, *tensors):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(*tensors)
    return [value.detach(), *torch.autograd.grad((value * random(*value.shape, seed=9)).sum(), tensors)]


def torchs(kind, gamma, beta, mean=None, var=None):
    module = kind(H, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(gamma)
        module.bias.copy_(beta)
        if mean is not None:
            module.running_mean.copy_(mean)
            module.running_var.copy_(var)
    return module


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weight", [None, 1.0, 3.0], ids=["unweighted", "ones", "equal weights"])
def test_batch_norm_is_torchs(training, weight):
    """Values, gradients, and running averages, whatever weight all rows have in common."""
    z, gamma, beta, mean, var = stack()
    weight = None if weight is None else torch.full((1, B), weight, dtype=torch.float64)
    means, variances = mean.clone(), var.clone()
    ours = with_gradient(lambda *t: batch_norm(*t, means, variances, weight, training=training), z, gamma, beta)
    direction = random(K, B, H, seed=9)
    for k in range(K):
        module = torchs(torch.nn.BatchNorm1d, gamma[k], beta[k], mean[k], var[k]).train(training)
        rows = z[k].clone().requires_grad_()
        value = module(rows)
        expected = torch.autograd.grad((value * direction[k]).sum(), [rows, module.weight, module.bias])
        for found, wanted in zip(ours, [value.detach(), *expected], strict=True):
            np.testing.assert_allclose(found[k], wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(means[k], module.running_mean, rtol=0, atol=1e-14)
        np.testing.assert_allclose(variances[k], module.running_var, rtol=0, atol=1e-14)


def test_layer_norm_is_torchs():
    z, gamma, beta, *_ = stack()
    ours, direction = with_gradient(layer_norm, z, gamma, beta), random(K, B, H, seed=9)
    for k in range(K):
        module, rows = torchs(torch.nn.LayerNorm, gamma[k], beta[k]), z[k].clone().requires_grad_()
        value = module(rows)
        expected = torch.autograd.grad((value * direction[k]).sum(), [rows, module.weight, module.bias])
        for found, wanted in zip(ours, [value.detach(), *expected], strict=True):
            np.testing.assert_allclose(found[k], wanted, rtol=0, atol=1e-12)


def test_a_weight_of_two_is_the_row_twice():
    """And each model may have weights of its own; the gradient of a row given twice is the sum of both."""
    z, gamma, beta, mean, var = stack()
    repeats = np.array([[1, 2, 3, 1, 1, 2, 4], [2, 1, 1, 1, 3, 1, 1], [1, 1, 1, 1, 1, 1, 2]])
    ours = batch_norm(z, gamma, beta, mean.clone(), var.clone(), torch.from_numpy(repeats).double(), training=True)
    for k in range(K):
        index = torch.from_numpy(np.arange(B).repeat(repeats[k]))
        module = torchs(torch.nn.BatchNorm1d, gamma[k], beta[k])
        expected = module(z[k][index]).detach()
        np.testing.assert_allclose(ours[k][index], expected, rtol=0, atol=1e-12)


def test_weighted_gradient_by_central_differences():
    z, gamma, beta, mean, var = stack()
    weight, h = random(K, B, seed=5).abs() + 0.1, 1e-6
    weight[:, 2] = 0
    direction = random(K, B, H, seed=9)

    def value(rows):
        return (batch_norm(rows, gamma, beta, mean.clone(), var.clone(), weight, training=True) * direction).sum()

    rows = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(rows), rows)
    for j in [(0, 0, 0), (1, 2, 3), (2, 6, 1), (1, 5, 0)]:
        step = torch.zeros_like(z)
        step[j] = h
        assert found[j].item() == pytest.approx(((value(z + step) - value(z - step)) / (2 * h)).item(), abs=1e-7)


@pytest.mark.parametrize("junk", [1e3, -1e6])
def test_rows_of_no_weight_have_no_influence(junk):
    z, gamma, beta, mean, var = stack()
    weight = torch.ones(K, B, dtype=torch.float64)
    weight[:, 4:] = 0
    filled = z.clone()
    filled[:, 4:] = junk
    results = []
    for rows, w in ((filled, weight), (z[:, :4], None)):
        means, variances = mean.clone(), var.clone()
        results.append((batch_norm(rows, gamma, beta, means, variances, w, training=True)[:, :4], means, variances))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_batch_of_one_row_is_normalised_by_the_running_averages():
    """Alone, and as the only row of weight; nothing is learnt of a variance from it."""
    z, gamma, beta, mean, var = stack()
    expected = (z[:, :1] - mean[:, None]) / (var[:, None] + EPSILON).sqrt() * gamma[:, None] + beta[:, None]
    single = torch.zeros(K, B, dtype=torch.float64)
    single[:, 0] = 2.0
    for rows, weight in ((z[:, :1], None), (z[:, :1], single[:, :1]), (z, single)):
        means, variances = mean.clone(), var.clone()
        found, *gradients = with_gradient(
            lambda *t, m=means, v=variances, w=weight: batch_norm(*t, m, v, w, training=True), rows, gamma, beta
        )
        np.testing.assert_allclose(found[:, :1], expected, rtol=0, atol=1e-12)
        assert torch.equal(means, mean)
        assert torch.equal(variances, var)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
