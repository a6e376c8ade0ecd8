r"""
XOR, a ring, three blobs: what a linear model cannot do
=======================================================

A linear classifier for two classes parts the plane along one straight line. Three small problems that no line solves,
and that one hidden layer solves.
"""

# %%
# The problems
# ------------
# XOR: the sign of the product of both coordinates. A ring, :math:`1 \le \|x\|_2 \le 2`, against the rest. Three blobs
# against the rest.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import DecisionBoundaryDisplay

from skdeep import MLPClassifierTorch, SoftmaxClassifier

plt.style.use("petroff10")

X = np.random.default_rng(0).uniform(-3, 3, size=(1000, 2))
radius = np.linalg.norm(X, axis=1)
centers = np.array([[-1.5, -1.5], [1.7, -1.0], [0.0, 1.7]])
problems = {
    "XOR": (X[:, 0] * X[:, 1] > 0).astype(int),
    "ring": ((radius >= 1) & (radius <= 2)).astype(int),
    "blobs": (np.linalg.norm(X[:, None] - centers, axis=2).min(axis=1) < 0.8).astype(int),
}

# %%
# The models
# ----------
# The second one has two linear layers with nothing between them, and is no richer than the first: the product of two
# matrices is a matrix. What makes a network **deep** is the non-linearity between its layers, here the **ReLU**,
# :math:`\max(0, z)`.

settings = {"learning_rate_init": 0.05, "learning_rate": "cosine", "batch_size": 100, "max_iter": 60}
settings |= {"n_iter_no_change": np.inf, "random_state": 0}
models = {
    "one linear layer": SoftmaxClassifier(random_state=0),
    "two linear layers, no activation": MLPClassifierTorch((32,), "identity", **settings),
    "two linear layers, ReLU between": MLPClassifierTorch((32,), "relu", **settings),
}

warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found
figure, axes = plt.subplots(3, 3, figsize=(9, 9), layout="constrained", sharex=True, sharey=True)
colors = plt.rcParams["axes.prop_cycle"].by_key()["color"][:2]
style = {"cmap": ListedColormap(colors), "vmin": 0, "vmax": 1, "alpha": 0.35, "grid_resolution": 150}
accuracies = {}
for row, (problem, y) in zip(axes, problems.items(), strict=True):
    for panel, (model, classifier) in zip(row, models.items(), strict=True):
        classifier.fit(X, y)
        accuracies[problem, model] = classifier.score(X, y)
        DecisionBoundaryDisplay.from_estimator(
            classifier, X, response_method="predict", plot_method="pcolormesh", **style, ax=panel
        )
        for k, marker in enumerate("o^"):
            panel.scatter(*X[y == k].T, s=4, marker=marker, color=colors[k])
        majority = max(np.mean(y), 1 - np.mean(y))
        panel.set(xlabel="", ylabel="", aspect="equal")
        panel.set_title(f"{accuracies[problem, model]:.0%} right (majority: {majority:.0%})", fontsize="small")
for panel, model in zip(axes[0], models, strict=True):
    panel.annotate(model, (0.5, 1.15), xycoords="axes fraction", ha="center", weight="bold", fontsize="small")
for panel, problem in zip(axes[:, 0], problems, strict=True):
    panel.set_ylabel(problem, weight="bold")
figure.savefig("07_beyond_linear.png")

for problem in problems:
    print(f"{problem:6}", {model: round(accuracies[problem, model], 3) for model in models})
    assert accuracies[problem, "two linear layers, ReLU between"] > 0.93
    assert accuracies[problem, "two linear layers, no activation"] < 0.9
assert accuracies["XOR", "one linear layer"] < 0.6
