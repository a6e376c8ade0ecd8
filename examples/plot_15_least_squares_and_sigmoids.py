r"""
Least squares, and one sigmoid per class
========================================

The two linear classifiers that come before softmax regression in a lecture: one that can be solved on a sheet of
paper, and one that answers a question for each class.
"""

# %%
# Least squares in closed form
# ----------------------------
# Each class has an indicator, 1 for its samples and -1 for the rest, and the scores are fitted to it with
# :math:`\frac12 (s - t)^2`. The solution is :math:`W^* = (X^T X)^{-1} X^T t`.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris, make_blobs
from sklearn.inspection import DecisionBoundaryDisplay

from skdeep import LeastSquaresClassifier, SigmoidClassifier, SoftmaxClassifier

plt.style.use("petroff10")

X, y = load_iris(return_X_y=True)
targets = 2.0 * np.eye(3)[y] - 1
ones = np.column_stack([X, np.ones(len(X))])  # the bias trick
on_paper = np.linalg.inv(ones.T @ ones) @ ones.T @ targets

exact = LeastSquaresClassifier(alpha=0).fit(X, y)
assert np.allclose(exact.coef_, on_paper[:-1].T)
assert np.allclose(exact.intercept_, on_paper[-1])
descent = LeastSquaresClassifier(alpha=0, solver="sgd", tol=1e-7, max_iter=2000, random_state=0).fit(X, y)
print("closed form and SGD differ by", np.abs(exact.coef_ - descent.coef_).max().round(4), "at most")

# %%
# Where the inverse does not exist
# --------------------------------
# With a column that is the sum of two others, or more columns than samples, :math:`X^T X` is singular. The classifier
# works with the singular values of X instead, and takes the solution of the smallest weights.

collinear = np.column_stack([X, X[:, 0] + X[:, 1]])
print("rank of X^T X:", np.linalg.matrix_rank(collinear.T @ collinear), "of", collinear.shape[1])
singular = LeastSquaresClassifier(alpha=0).fit(collinear, y)
assert np.allclose(singular.decision_function(collinear), exact.decision_function(X))

wide = np.random.default_rng(0).normal(size=(20, 100))
labels = np.arange(20) % 3
assert LeastSquaresClassifier(alpha=0).fit(wide, labels).score(wide, labels) == 1

# %%
# What squares are bad at
# -----------------------
# The square punishes scores that are too high as well. A class in the middle is **masked** by its neighbours: least
# squares hardly ever predicts it. The losses of a sigmoid and of softmax let scores be as high as they like.

X, y = make_blobs(300, centers=[[-5, -5], [0, 0], [5, 5]], random_state=0)
models = {
    "least squares": LeastSquaresClassifier(),
    "one sigmoid per class": SigmoidClassifier(random_state=0),
    "softmax": SoftmaxClassifier(random_state=0),
}
figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained", sharey=True)
colors = plt.rcParams["axes.prop_cycle"].by_key()["color"][:3]
for panel, (name, model) in zip(panels, models.items(), strict=True):
    accuracy = model.fit(X, y).score(X, y)
    print(f"{name:22} accuracy {accuracy:.3f}")
    DecisionBoundaryDisplay.from_estimator(
        model, X, response_method="predict", multiclass_colors=colors, alpha=0.25, ax=panel
    )
    for k, marker in enumerate("o^s"):
        panel.scatter(*X[y == k].T, s=8, marker=marker, color=colors[k])
    panel.set(title=f"{name}: {accuracy:.0%} right", xlabel="", ylabel="")
figure.savefig("15_least_squares_and_sigmoids.png")

# %%
# Questions that are independent
# ------------------------------
# The sigmoid :math:`\sigma(z) = 1 / (1 + e^{-z})` answers yes or no. One for each label, and they need not sum to one:
# an iris may be long, or of the first kind, or both, or neither. That is a **multilabel** problem, and y an indicator
# matrix.

X, y = load_iris(return_X_y=True)
questions = np.column_stack([y == 0, X[:, 0] > 6, X[:, 2] > 4])
sigmoids = SigmoidClassifier(random_state=0).fit(X, questions)
p = sigmoids.predict_proba(X[[0, 60, 118]])
print(p.round(2), "sums:", p.sum(axis=1).round(2))
z = sigmoids.decision_function(X[[0, 60, 118]])
assert np.allclose(p, 1 / (1 + np.exp(-z)))
