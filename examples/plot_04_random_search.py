r"""
Random search against gradient descent
======================================

How does one find a good W? The simplest idea is to draw many at random, and to keep the best. In the lecture, a
thousand of them reach 15.5 % on the pixels of CIFAR-10, where guessing gives 10 %. Following the slope does better.
"""

# %%
# A thousand random classifiers
# -----------------------------
# The images are Fashion-MNIST if it can be had, else scikit-learn's digits.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from benchmarks.common import load_images
from sklearn.exceptions import ConvergenceWarning

from skdeep import SGD, SoftmaxClassifier

plt.style.use("petroff10")

name, X, y, X_test, y_test = load_images()
X, y, X_test, y_test = X[:5000], y[:5000], X_test[:2000], y_test[:2000]
rng = np.random.default_rng(0)

best, history = 0.0, []
for _ in range(1000):
    W = rng.normal(size=(10, X.shape[1])).astype(X.dtype)
    accuracy = ((X @ W.T).argmax(1) == y).mean()
    if accuracy > best:
        best, best_W = accuracy, W
    history.append(best)
random_accuracy = ((X_test @ best_W.T).argmax(1) == y_test).mean()
print(f"{name}: the best of 1000 random W has test accuracy {random_accuracy:.3f} (chance: 0.1)")

# %%
# Gradient descent
# ----------------
# The same model, from W = 0, in steps against the gradient of the cross-entropy over the whole training set (a batch
# that holds all rows). Each step costs about what three random trials cost: the scores, the gradient, the update.

warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is chosen, not found
whole = SGD(learning_rate="constant", batch_size=len(X), n_iter_no_change=np.inf)
descent = SoftmaxClassifier(alpha=1e-4, solver=whole, max_iter=300, tol=0, random_state=0)
descent.fit(X, y, X_val=X_test, y_val=y_test)
curve = descent.validation_scores_
print(f"gradient descent: {curve[0]:.3f} after 1 step, {curve[9]:.3f} after 10, {curve[-1]:.3f} after {len(curve)}")
assert curve[9] > random_accuracy

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(
    np.arange(1, 1001), history, "--", drawstyle="steps-post", label="random search: best so far, training accuracy"
)
axes.plot(3 * np.arange(1, len(curve) + 1), curve, label="gradient descent: test accuracy")
axes.axhline(0.1, color="gray", linestyle=":", label="chance")
axes.set(xlabel="work (one random trial = 1)", ylabel="accuracy", xscale="log", ylim=(0, 1), title=name)
axes.legend(loc="center", bbox_to_anchor=(0.5, 0.5))
figure.savefig("04_random_search.png")
