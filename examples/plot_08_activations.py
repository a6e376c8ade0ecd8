r"""
Activations and dead ReLUs
==========================

The non-linearity between two layers is called their **activation**. The ReLU is the usual one, cheap and with a slope
that does not fade. But where its input is negative its slope is zero, and a unit whose input is negative for *all*
samples never learns again: a **dead ReLU**.
"""

# %%
# The functions and their slopes
# ------------------------------

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skdeep import MLPClassifierTorch
from skdeep.engine.activations import ACTIVATIONS

plt.style.use("petroff10")

z = torch.linspace(-3, 3, 301, requires_grad=True)
figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained", sharex=True, sharey=True)
names = ["relu", "leaky_relu", "prelu", "elu", "silu", "tanh", "logistic", "maxout"]
for panel, name in zip(axes.flat, names, strict=True):
    form = ACTIVATIONS[name]
    if name == "maxout":  # the larger of two learnt lines, here z / 2 and -z
        values = form.function(torch.stack([z / 2, -z], dim=-1)).squeeze(-1)
    elif form.slope is not None:  # prelu learns its slope below zero, from this start
        values = form.function(z, torch.tensor([form.slope]))
    else:
        values = form.function(z)
    values = values.reshape(z.shape)
    (slope,) = torch.autograd.grad(values.sum(), z)
    panel.plot(z.detach(), values.detach(), label="value")
    panel.plot(z.detach(), slope, "--", label="slope")
    panel.set_title(name)
    panel.grid(alpha=0.3)
axes[0, 0].legend()
figure.supxlabel("z")
figure.savefig("08_activations.png")

# %%
# How ReLUs die
# -------------
# One step that is too large can push a unit's weights to where it is off for every sample. So the number of dead units
# grows with the learning rate. Functions with a slope below zero (leaky ReLU, ELU) can come back, but a network whose
# steps are too large does not learn with them either: a small enough step comes first.

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
rates = np.geomspace(0.02, 0.3, 5)


def dead(network):
    """Share of the first layer's units that are off for all training images."""
    return ((X_train @ network.coefs_[0] + network.intercepts_[0]) <= 0).all(axis=0).mean()


warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
settings = {"standardize": False, "solver": "sgd", "learning_rate": "constant", "batch_size": 50, "max_iter": 5}
settings |= {"column_learning_rate": 0, "n_iter_no_change": np.inf, "random_state": 0}
for name, style in (("relu", "o-"), ("leaky_relu", "s--"), ("elu", "^:")):
    networks = [MLPClassifierTorch((64, 64), name, learning_rate_init=rate, **settings) for rate in rates]
    accuracies = [network.fit(X_train, y_train).score(X_test, y_test) for network in networks]
    right.semilogx(rates, accuracies, style, label=name)
    print(f"{name:10} test accuracies: {np.round(accuracies, 2)}")
    if name == "relu":
        shares = [dead(network) for network in networks]
        left.semilogx(rates, shares, style)
        print("dead ReLUs:", np.round(shares, 2))
left.set(xlabel="learning rate", title="Dead units of the first ReLU layer", ylabel="share", ylim=(-0.02, 1.02))
right.set(xlabel="learning rate", title="Test accuracy", ylim=(0.5, 1.01))
for panel in (left, right):
    panel.set_xticks(rates, [f"{rate:.2g}" for rate in rates])
    panel.minorticks_off()
right.legend()
figure.savefig("08_activations_dead.png")
