r"""
Losses side by side
===================

A loss says how bad the scores :math:`s` of a sample are, given its class :math:`y`. Two are taught first: the
cross-entropy of softmax regression and the hinge of the multiclass support vector machine. All numbers of this page
can be checked by hand.
"""

# %%
# Softmax and cross-entropy
# -------------------------
# **Softmax** turns scores into probabilities, :math:`p_j = e^{s_j} / \sum_k e^{s_k}`, and the **cross-entropy** loss is
# the surprise at the true class, :math:`-\log p_y`.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import softmax

from skdeep.engine.losses import LOSSES

plt.style.use("petroff10")


def losses(name, scores, y):
    """Loss of each row of scores."""
    return LOSSES[name]().value(torch.tensor(scores, dtype=torch.float64), torch.tensor(y)).numpy()


scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
y = np.array([0, 1, 2])
print("exp(s):", np.exp(scores[0]).round(2))
print("softmax:", softmax(scores[0]).round(2))
print("cross-entropy:", losses("log_loss", scores, y).round(2))
assert np.allclose(softmax(scores[0]), [0.13, 0.87, 0.0], atol=0.005)
assert round(losses("log_loss", scores, y)[0], 2) == 2.04

# %%
# At the start all scores are equal, and the loss is :math:`\log C`: the first number to check in any training run.

for n_classes in (3, 10):
    start = losses("log_loss", np.zeros((1, n_classes)), [0])[0]
    print(f"{n_classes} classes: {start:.3f}")
    assert np.isclose(start, np.log(n_classes))

# %%
# Probabilities (0.6, 0.4) where the first class is true cost 0.5108 nats (0.22 if the logarithm has base 10).

assert np.isclose(losses("log_loss", np.log([[0.6, 0.4]]), [0])[0], 0.5108, atol=1e-4)
assert np.isclose(-np.log10(0.6), 0.22, atol=2e-3)

# %%
# The loss is computed from the scores in one step. In two steps, softmax first and its logarithm next, a very wrong
# score ends in the logarithm of zero:

with np.errstate(divide="ignore"):
    print("log(softmax(s)):", -np.log(softmax([0.0, 1000.0]))[0])
print("from the scores:", losses("log_loss", [[0.0, 1000.0]], [0])[0])

# %%
# The multiclass hinge
# --------------------
# The support vector machine wants the true class to lead by a margin of one,
# :math:`\sum_{j \ne y} \max(0, s_j - s_y + 1)`; how far it leads beyond that is all the same to it.

hinge = losses("weston_watkins", scores, y)
print("hinge:", hinge.round(2), " mean:", hinge.mean().round(2))
assert np.allclose(hinge, [2.9, 0, 12.9])
assert round(hinge.mean(), 2) == 5.27

# %%
# With equal scores each of the other classes violates the margin by one: C - 1.

assert losses("weston_watkins", np.zeros((1, 10)), [0])[0] == 9

# %%
# Content or never content
# ------------------------
# Three samples whose margins are all satisfied (true class: the first). The hinge is zero for each of them, whatever
# their scores; the cross-entropy always wants more, even where float64 can no longer tell it from zero
# (by hand, :math:`\log(1 + 2 e^{-110}) = 3 \cdot 10^{-48}`).

content = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
first = np.zeros(3, dtype=int)
doubled = content * [2, 1, 1]
for name in ("weston_watkins", "log_loss"):
    print(f"{name:15}", losses(name, content, first), " true score doubled:", losses(name, doubled, first))
assert not losses("weston_watkins", content, first).any()
assert (losses("log_loss", doubled, first) <= losses("log_loss", content, first)).all()
print("the last one by hand:", np.log1p(2 * np.exp(-110)))

# %%
# Two classes: the losses as functions of the margin
# --------------------------------------------------
# With two classes there is one score, and :math:`m = t s` with :math:`t = \pm 1` is positive for a right decision. The
# slope is the force with which a sample pulls at the weights: the hinge pulls fully or not at all, the squared hinge
# the harder the further off, the logistic loss always a little.

margin = np.linspace(-3, 3, 300)
curves = {
    "hinge": LOSSES["ovr"](),
    "squared hinge": LOSSES["ovr"](squared=True),
    "logistic (cross-entropy)": LOSSES["binary_log_loss"](),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (name, loss), style in zip(curves.items(), ("-", "--", "-."), strict=True):
    value, gradient = loss.value_and_gradient(torch.from_numpy(margin)[:, None], torch.ones(300, 1))
    left.plot(margin, value, style, label=name)
    right.plot(margin, gradient, style, label=name)
left.plot(margin, margin < 0, ":", color="gray", label="mistakes (0 or 1)")
left.set(xlabel="margin t s", title="loss", ylim=(-0.2, 6))
right.set(xlabel="margin t s", title="slope", ylim=(-6, 0.5))
left.legend()
figure.savefig("02_losses.png")

# %%
# The gradient of the cross-entropy
# ---------------------------------
# With respect to the scores it is :math:`p - \mathrm{onehot}(y)`: the probability that each class has too much. (The
# softmax itself has the derivatives :math:`\partial p_i / \partial s_i = p_i (1 - p_i)` on the diagonal of its
# Jacobian.)

_, gradient = LOSSES["log_loss"]().value_and_gradient(torch.from_numpy(scores), torch.from_numpy(y))
print(gradient.numpy().round(2))
assert np.allclose(gradient, softmax(scores, axis=1) - np.eye(3))

p = softmax(scores[0])
jacobian = torch.autograd.functional.jacobian(lambda s: torch.softmax(s, 0), torch.from_numpy(scores[0]))
assert np.allclose(np.diag(jacobian), p * (1 - p))
