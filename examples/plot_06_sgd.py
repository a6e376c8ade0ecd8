r"""
SGD, momentum and the size of a batch
=====================================

Gradient descent goes :math:`\theta \leftarrow \theta - \epsilon g`. Its two companions: **momentum**, which adds up
the gradients of the past, and **mini-batches**, which estimate g from a few samples.
"""

# %%
# Momentum
# --------
# :math:`v \leftarrow \rho v + g`, :math:`\theta \leftarrow \theta - \epsilon v`. In a narrow valley, the step
# that the steep direction allows is far too short for the flat one, and gradient descent crawls. Momentum adds up what
# points the same way, to :math:`1 / (1 - \rho)` = 10 steps; it overshoots, swings back, and arrives first. Both points
# below are the models of one stack, which differ in their momentum.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skdeep import SGD, SoftmaxClassifier
from skdeep.engine import optimizers

plt.style.use("petroff10")

valley = torch.tensor([0.05, 1.0])  # the objective: half the sum of valley * point²
momentum = np.array([0.0, 0.9])
points = torch.tensor([[-10.0, 1.5], [-10.0, 1.5]])
optimizer = optimizers.SGD([points], learning_rate=np.full(2, 0.3), momentum=momentum, nesterov=False)
paths = [points.numpy().copy()]
for _ in range(60):
    optimizer.step([valley * points])
    paths.append(points.numpy().copy())
paths = np.array(paths)

# the second model by hand
theta, v = np.array([-10.0, 1.5]), 0.0
for _ in range(60):
    v = 0.9 * v + valley.numpy() * theta
    theta = theta - 0.3 * v
assert np.allclose(theta, paths[-1, 1], atol=1e-4)

figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
a, b = np.meshgrid(np.linspace(-11, 5, 100), np.linspace(-2, 2, 100))
axes.contour(a, b, 0.05 * a**2 + b**2, levels=np.geomspace(0.02, 8, 10), colors="lightgray")
for k, marker in enumerate("os"):
    axes.plot(*paths[:, k].T, marker=marker, markersize=3, label=f"momentum {momentum[k]:g}")
axes.plot(0, 0, "k*", markersize=12)
axes.set(xlabel="flat direction", ylabel="steep direction", title="60 steps in a narrow valley")
axes.legend()
figure.savefig("06_sgd_momentum.png")

# %%
# The variance of a mini-batch's gradient
# ---------------------------------------
# The gradient of a batch of B samples is right on average, and its variance is that of a single sample's divided by B.
# Here at W = 0, on the digits:

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
W = np.zeros((10, 64))
rng = np.random.default_rng(0)


def gradient(rows):
    """Mean gradient of the cross-entropy: (p - onehot(y)) times the pixels."""
    excess = softmax(X_train[rows] @ W.T, axis=1) - np.eye(10)[y_train[rows]]
    return excess.T @ X_train[rows] / len(rows)


full = gradient(np.arange(len(X_train)))
sizes = np.array([1, 4, 16, 64, 256])
draws = [[gradient(rng.integers(len(X_train), size=B)) for _ in range(200)] for B in sizes]
variances = np.array([((np.array(gradients) - full) ** 2).sum(axis=(1, 2)).mean() for gradients in draws])
print("B * variance:", (sizes * variances).round(2), "(the same for all B)")

# %%
# Loss curves
# -----------
# Small batches make many steps in an epoch, and are noisy near the end; the full batch makes one step per epoch, of
# the exact gradient. All four use the same learning rate.

warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", width_ratios=[2, 3])
left.loglog(sizes, variances, "o", label="measured")
left.loglog(sizes, variances[0] / sizes, "--", label="proportional to 1 / B")
left.set(xlabel="batch size B", ylabel="variance of the gradient", title="Gradient variance")
left.legend()

plain = SGD(0.5, learning_rate="constant", nesterovs_momentum=False, n_iter_no_change=np.inf)
model = SoftmaxClassifier(alpha=1e-4, standardize=False, solver=plain, max_iter=20, tol=0, random_state=0)
for B, rho, style in ((10, 0, ":"), (40, 0, "-"), (200, 0, "-"), (len(X_train), 0, "--"), (200, 0.9, "-.")):
    model.set_params(solver__batch_size=B, solver__momentum=rho)
    model.fit(X_train, y_train, X_val=X_test, y_val=y_test)
    label = ("full batch" if len(X_train) == B else f"B = {B}") + (f", momentum {rho}" if rho else "")
    right.semilogy(np.arange(1, 21), model.loss_curve_, style, label=label)
    print(f"{label:22} training loss {model.loss_curve_[-1]:.3f}, test accuracy {model.score(X_test, y_test):.3f}")
right.set(xlabel="epoch", ylabel="training loss", title="Loss curves, learning rate 0.5", xticks=range(0, 21, 5))
right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig("06_sgd.png")
