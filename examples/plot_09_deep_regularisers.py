r"""
Dropout, normalisation, stochastic depth
========================================

A network with many more weights than samples fits its training data whatever they are. Three remedies change the
network in each training step, and one changes the scale inside of it.
"""

# %%
# Little data, many weights
# -------------------------
# 150 images of digits, and networks of four hidden layers of 64 units: 17 000 weights.
#
# * **Dropout** leaves out each hidden unit with some probability, drawn anew for each sample and step, so that no unit
#   can rely on a single other one.
# * **Batch normalisation** gives each unit's input mean 0 and variance 1 over the batch; **layer normalisation** does
#   so over the units of a layer, for each sample alone.
# * **Stochastic depth** makes residual blocks, :math:`h_l = h_{l-1} + f_l(h_{l-1})`, and leaves out whole blocks.
#
# In prediction nothing is left out, and batch normalisation uses the averages met in training.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skdeep import MLPClassifierTorch

plt.style.use("petroff10")
warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, train_size=150, stratify=y, random_state=0)

regularisers = {
    "none": {},
    "dropout 0.2": {"dropout": 0.2},
    "batch normalisation": {"normalization": "batch"},
    "layer normalisation": {"normalization": "layer"},
    "residual blocks": {"stochastic_depth": 0.0},
    "stochastic depth 0.3": {"stochastic_depth": 0.3},
}
# %%
# What helps
# ----------
# The same layers and solver for all, and two seeds each: differences below those of the seeds mean nothing.

settings = {"alpha": 1e-4, "batch_size": 50, "max_iter": 30, "learning_rate": "cosine", "learning_rate_init": 0.005}
settings |= {"n_iter_no_change": np.inf}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", width_ratios=[3, 2])
accuracies = {}
for name, regulariser in regularisers.items():
    models = [MLPClassifierTorch((64,) * 4, random_state=seed, **regulariser, **settings) for seed in range(2)]
    for model in models:
        model.fit(X_train, y_train, X_val=X_test, y_val=y_test)
    accuracies[name] = [model.score(X_test, y_test) for model in models]
    curve = np.mean([model.validation_loss_curve_ for model in models], axis=0)
    left.plot(np.arange(1, 31), curve, label=name)
    print(f"{name:21} test accuracies {np.round(accuracies[name], 3)}, test loss {curve[-1]:.3f}")
left.set(xlabel="epoch", ylabel="loss on test images", title="Mean of two seeds", yscale="log")
left.legend(fontsize="small")
for k, values in enumerate(accuracies.values()):
    right.plot(values, [k] * 2, "o", color=f"C{k}")
right.set(xlabel="test accuracy", title="Each seed", yticks=range(len(accuracies)), yticklabels=list(accuracies))
right.invert_yaxis()
right.locator_params(axis="x", nbins=4)
right.grid(alpha=0.3)
figure.savefig("09_deep_regularisers.png")
