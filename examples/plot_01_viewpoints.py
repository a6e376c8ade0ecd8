r"""
Three viewpoints of a linear classifier
=======================================

A linear classifier computes one score per class, :math:`s = W x + b`, and predicts the class of the highest one. The
same formula can be read as algebra, as images, and as geometry.
"""

# %%
# Algebra: a matrix times a vector
# --------------------------------
# An image of 2 x 2 pixels is a vector of four numbers. Three classes make W a matrix of three rows.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, make_blobs
from sklearn.inspection import DecisionBoundaryDisplay

from skdeep import SoftmaxClassifier
from skdeep.display import TemplatesDisplay

plt.style.use("petroff10")  # colours that colour-blind readers can tell apart

x = np.array([56.0, 231.0, 24.0, 2.0])
W = np.array([[0.2, -0.5, 0.1, 2.0], [1.5, 1.3, 2.1, 0.0], [0.0, 0.25, 0.2, -0.3]])
b = np.array([1.1, 3.2, -1.2])

scores = W @ x + b
print("scores:", scores, " predicted class:", scores.argmax())
assert np.allclose(scores, [-96.8, 437.9, 60.75])

# %%
# **The bias trick**: b is one more column of W, for a pixel that is always one.

W_b = np.column_stack([W, b])
assert np.allclose(W_b @ np.append(x, 1.0), scores)

# %%
# A fitted classifier does the same: ``decision_function`` is :math:`X W^T + b`. (Its intercept is *not* one of the
# penalised weights, which is why it is kept apart from ``coef_``.)

X, y = load_digits(return_X_y=True)
digits = SoftmaxClassifier(alpha=0.1, random_state=0).fit(X, y)
assert np.allclose(digits.decision_function(X), X @ digits.coef_.T + digits.intercept_)
print("coef_:", digits.coef_.shape, " intercept_:", digits.intercept_.shape)

# %%
# Images: one template per class
# ------------------------------
# Each row of W has as many numbers as an image has pixels, so it can be drawn as an image: the **template** of its
# class. A pixel where the template is positive speaks for the class, one where it is negative speaks against it, and
# the score is their inner product. Below each template is the mean image of its class.

display = TemplatesDisplay.from_estimator(digits, image_shape=(8, 8), X=X, y=y)
display.figure_.savefig("01_viewpoints_templates.png")

# sphinx_gallery_thumbnail_number = 2

# %%
# Geometry: half-spaces
# ---------------------
# With two features each row of W is an arrow in the plane of the data. The score of its class grows along the arrow,
# and two classes part where their scores are equal: on a straight line, perpendicular to the difference of the two
# arrows.

X, y = make_blobs(300, centers=[[-4, 0], [4, 1], [0, 5]], cluster_std=1.3, random_state=0)
blobs = SoftmaxClassifier(alpha=0.01, random_state=0).fit(X, y)

figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
colors = plt.rcParams["axes.prop_cycle"].by_key()["color"][:3]
DecisionBoundaryDisplay.from_estimator(
    blobs, X, response_method="predict", multiclass_colors=colors, alpha=0.25, ax=axes
)
for k, color in enumerate(colors):
    axes.scatter(*X[y == k].T, s=12, color=color, label=f"class {k}")
    axes.annotate(
        "", 2.5 * blobs.coef_[k], (0, 0), arrowprops={"color": color, "width": 2, "headwidth": 9, "shrink": 0}
    )
axes.set(xlabel="feature 1", ylabel="feature 2", title="decision regions, and the rows of W as arrows", aspect="equal")
axes.legend()
figure.savefig("01_viewpoints.png")
