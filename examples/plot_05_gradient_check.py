r"""
Gradient check
==============

A derivative that was worked out on paper is compared with one that was measured:
:math:`\frac{f(x + h) - f(x - h)}{2h}`, the **central difference**. It is computed in float64: the difference of two
nearly equal numbers keeps few of their digits.
"""

# %%
# Every loss against its measured slope
# -------------------------------------
# Losses are functions of the scores; each has its gradient in closed form.

import matplotlib.pyplot as plt
import numpy as np
import torch

from skdeep.engine.losses import LOSSES
from skdeep.engine.perceptron import MLP

plt.style.use("petroff10")


def central(f, x, h):
    """Central differences of f in each entry of x."""
    slopes = np.zeros(x.size)
    for i in range(x.size):
        step = np.zeros(x.size)
        step[i] = h
        step = step.reshape(x.shape)
        slopes[i] = (f(x + step) - f(x - step)) / (2 * h)
    return slopes.reshape(x.shape)


rng = np.random.default_rng(0)
scores, y = rng.normal(size=(5, 4)), rng.integers(4, size=5)
for name, make in LOSSES.items():
    loss = make()
    target = torch.from_numpy(y if loss.target == "codes" else np.eye(4)[y])
    analytic = loss.value_and_gradient(torch.from_numpy(scores), target)[1].numpy()
    measured = central(lambda s: loss.value(torch.from_numpy(s), target).sum().item(), scores, h=1e-5)  # noqa: B023
    error = np.abs(analytic - measured).max()
    print(f"{name:16} largest difference: {error:.1e}")
    assert error < 1e-8

# %%
# A whole network
# ---------------
# The gradient with respect to all weights is the loss's gradient, taken back through the layers. Checked on a network
# of two hidden layers, in each of its parameters:

X = torch.from_numpy(rng.normal(size=(6, 3)))
target = torch.from_numpy(rng.integers(4, size=6))
network, loss = MLP.initial([rng], [3, 5, 5, 4], "tanh", dtype=torch.float64), LOSSES["log_loss"]()
scores = network.training_scores(X)
gradients = network.gradient(scores, X, loss.value_and_gradient(scores.detach(), target)[1])


def objective(values, parameter):
    """Summed loss of the network with other values of one of its parameters."""
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
        value = loss.value(network.scores(X), target).sum().item()
        parameter.copy_(kept)
    return value


for parameter, gradient in zip(network.params, gradients, strict=True):
    start = parameter.detach().numpy().copy()
    measured = central(lambda values: objective(values, parameter), start, h=1e-5)  # noqa: B023
    error = np.abs(gradient.numpy() - measured).max()
    print(f"{tuple(parameter.shape)!s:12} largest difference: {error:.1e}")
    assert error < 1e-8

# %%
# How small is small?
# -------------------
# The error of the central difference falls with :math:`h^2`, that of the one-sided difference
# :math:`(f(x + h) - f(x)) / h` with h. But the smaller h, the more of the difference is rounding, in proportion to
# 1/h. The best h lies between, and in float32 no h is good.

scores, target = torch.tensor([[3.2, 5.1, -1.7]], dtype=torch.float64), torch.tensor([0])
exact = LOSSES["log_loss"]().value_and_gradient(scores, target)[1][0, 0].item()
steps = np.logspace(0, -14, 57)


def f(shift, dtype):
    moved = scores + torch.tensor([shift, 0.0, 0.0])
    return LOSSES["log_loss"]().value(moved.to(dtype), target).item()


figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for label, dtype, style in (
    ("central, float64", torch.float64, "-"),
    ("one-sided, float64", torch.float64, "--"),
    ("central, float32", torch.float32, ":"),
):
    below = 0 if "one" in label else 1
    slopes = [(f(h, dtype) - f(-h * below, dtype)) / (h * (1 + below)) for h in steps]
    axes.loglog(steps, np.abs(np.array(slopes) - exact) + 1e-17, style, label=label)
axes.set(xlabel="h", ylabel="error of the slope", ylim=(1e-13, 10), title="Too large a step, or too small")
axes.invert_xaxis()
axes.legend()
figure.savefig("05_gradient_check.png")
