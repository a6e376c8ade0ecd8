r"""
Linear regression as a classifier, and why not
==============================================

Classes have numbers, and linear regression predicts numbers: fit :math:`s = W x + b` to them by least squares, and take
the class whose number is nearest. That works often enough to be tempting. Here are two pictures of where it fails.
"""

# %%
# Points that are right, and far away
# -----------------------------------
# Let the classes be -1 and 1, and the border be where the score is zero. The loss :math:`\frac12 (s - t)^2` asks for a
# score of 1 and no more: a point far on the right side of the border has a higher one, and costs as much as an error
# would. So the line tilts towards such points, until it cuts through a class. The cross-entropy of softmax regression
# has nothing against high scores.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import make_blobs

from skdeep import LinearRegressor, SoftmaxClassifier

plt.style.use("petroff10")
colors = plt.rcParams["axes.prop_cycle"].by_key()["color"][:4]


def height(model, x):
    """Where the score of a linear model of two columns is zero, as a function of the first."""
    return -(model.coef_[0, 0] * x + model.intercept_[0]) / model.coef_[0, 1]


blobs, t = make_blobs(200, centers=[[-1, 1], [1, -1]], cluster_std=0.55, random_state=0)
far, _ = make_blobs(40, centers=[[4, -9]], cluster_std=0.5, random_state=1)
t = 2 * t - 1
data = {
    "two classes": (blobs, t),
    "the same, and 40 points that are far": (np.vstack([blobs, far]), np.append(t, [1] * 40)),
}

figure, panels = plt.subplots(1, 2, figsize=(10, 5.5), layout="constrained", sharex=True, sharey=True)
for panel, (title, (X, target)) in zip(panels, data.items(), strict=True):
    regression = LinearRegressor(penalty=None).fit(X, target)
    softmax = SoftmaxClassifier(alpha=1e-3).fit(X, target)
    right = np.mean((regression.predict(blobs) > 0) == (t > 0)), softmax.score(blobs, t)
    for value, marker, color in zip((-1, 1), "o^", colors, strict=False):
        panel.scatter(*X[target == value].T, s=14, marker=marker, color=color, label=f"class {value}")
    x = np.array([-3.0, 6.0])
    panel.plot(x, height(regression, x), "k--", label=f"linear regression: {right[0]:.1%} of the blobs right")
    panel.plot(x, height(softmax, x), "k-", label=f"softmax regression: {right[1]:.1%}")
    panel.set(title=title, xlim=(-3, 6), ylim=(-11, 3.5), xlabel="x₁")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize="small")
panels[0].set_ylabel("x₂")
figure.savefig("18_regression_as_classifier.png")
print(f"of the blobs, right with the far points: {right[0]:.3f} by linear regression, {right[1]:.3f} by softmax")
assert right[0] < 0.9 < 0.98 < right[1]

# %%
# The far points are the easiest there are. What moves the border is what they cost where it was before, right as they
# are:

before = LinearRegressor(penalty=None).fit(blobs, t)
losses = np.square(before.predict(X) - target) / 2
surprises = -np.log(SoftmaxClassifier(alpha=1e-3).fit(blobs, t).predict_proba(X)[np.arange(len(X)), (target > 0) * 1])
print(f"scores of the far points: {before.predict(far).mean():.1f} on average, where 1 is asked for")
for name, each in {"squares": losses, "cross-entropy": surprises}.items():
    print(f"their share of the loss: {each[len(blobs) :].sum() / each.sum():.1%} ({name})")
assert losses[len(blobs) :].sum() > 0.9 * losses.sum()
assert surprises[len(blobs) :].sum() < 0.01 * surprises.sum()

# %%
# Numbers have an order
# ---------------------
# With four classes, their numbers say that class 1 lies between the classes 0 and 2. Nothing in the data says so. A
# plane over the four corners of a square rises in one direction only: here the classes 0 and 1 are at one height, 2 and
# 3 at another, and strips of the plane belong to each number. Softmax regression has a score for each class, and no
# order.

X, y = make_blobs(400, centers=[[-3, -3], [3, -3], [3, 3], [-3, 3]], random_state=0)
regression, softmax = LinearRegressor(penalty=None).fit(X, y), SoftmaxClassifier().fit(X, y)
answers = {
    "the nearest number": lambda points: np.clip(np.rint(regression.predict(points)), 0, 3).astype(int),
    "softmax": softmax.predict,
}
grid = np.stack(np.meshgrid(*2 * [np.linspace(-6, 6, 200)]), axis=-1)
figure, panels = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
right = {}
for panel, (title, answer) in zip(panels, answers.items(), strict=True):
    right[title] = np.mean(answer(X) == y)
    regions = answer(grid.reshape(-1, 2)).reshape(200, 200)
    style = {"cmap": ListedColormap(colors), "vmin": -0.5, "vmax": 3.5}
    panel.pcolormesh(grid[..., 0], grid[..., 1], regions, alpha=0.3, rasterized=True, **style)
    for k, marker in enumerate("o^sD"):
        panel.scatter(*X[y == k].T, s=10, marker=marker, color=colors[k], label=f"class {k}")
    panel.set(title=f"{title}: {right[title]:.0%} right", xlabel="x₁", aspect="equal")
panels[0].set_ylabel("x₂")
panels[1].legend(loc="center", fontsize="small")
figure.savefig("18_regression_as_classifier_order.png")
print(right)
assert right["the nearest number"] < 0.6 < 0.98 < right["softmax"]

# %%
# A column of targets for each class takes the order away: :doc:`/auto_examples/plot_15_least_squares_and_sigmoids` fits
# indicators, and shows what is left to be wrong, a class that its neighbours hide.
