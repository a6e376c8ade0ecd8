r"""
An image as a function of its coordinates
=========================================

A picture is a function from a place to a colour, :math:`(x, y) \mapsto (r, g, b)`, known at its pixels. That makes it a
regression whose quality is seen at a glance: two columns, three targets, a row for each pixel.
"""

# %%
# The image
# ---------
# A photograph that comes with scikit-learn, made smaller. Its colours are numbers between 0 and 1.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import mean_squared_error

from skdeep import LinearRegressor, MLPRegressorTorch

plt.style.use("petroff10")
warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found

photograph = load_sample_image("flower.jpg")[40:400, 60:600]
image = photograph.reshape(60, 6, 90, 6, 3).mean((1, 3)) / 255  # the mean of each square of 6 x 6
height, width, _ = image.shape
row, column = np.mgrid[:height, :width]
X, Y = np.column_stack([column.ravel(), row.ravel()]) / width, image.reshape(-1, 3)
print("columns", X.shape, "targets", Y.shape)

# %%
# Three models
# ------------
# A linear model has a slope for each colour. A network with two hidden layers of ReLUs is made of flat pieces, and
# learns what is coarse long before what is fine. It learns what is fine if it gets columns that vary as much:
# **waves**, :math:`\sin(2 \pi f \cdot x)` and :math:`\cos(2 \pi f \cdot x)`, with random frequencies :math:`f`. The
# network is the same, and so is the training.


def waves(X, frequency):
    """Sines and cosines of 32 waves, whose frequencies are of this size."""
    angles = 2 * np.pi * X @ np.random.default_rng(0).normal(scale=frequency, size=(2, 32))
    return np.hstack([np.sin(angles), np.cos(angles)])


settings = {"learning_rate": "cosine", "learning_rate_init": 0.01, "max_iter": 30, "n_iter_no_change": np.inf}
network = MLPRegressorTorch("squared_error", (64, 64), "relu", alpha=0, batch_size=128, random_state=0, **settings)


def picture(model, columns):
    """Predict the colours of all pixels."""
    return np.clip(model.predict(columns), 0, 1).reshape(image.shape)


pictures = {
    "the image": image,
    "linear model": picture(LinearRegressor(alpha=0).fit(X, Y), X),
    "network": picture(network.fit(X, Y), X),
    "network that sees waves": picture(network.fit(waves(X, 5), Y), waves(X, 5)),
}
figure, panels = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
errors = {}
for panel, (name, found) in zip(panels.flat, pictures.items(), strict=True):
    errors[name] = np.sqrt(mean_squared_error(Y, found.reshape(Y.shape)))
    panel.imshow(found, interpolation="nearest")
    panel.set(title=f"{name}: off by {errors[name]:.3f}" if errors[name] else name, xticks=[], yticks=[])
figure.savefig("22_image_as_function.png")
print({name: round(error, 3) for name, error in errors.items()})
assert errors["network that sees waves"] < 0.5 * errors["network"] < 0.25 * errors["linear model"]

# %%
# What is between the pixels
# --------------------------
# Now the network sees one pixel of four, and is judged by the others. Slow waves cannot say what is fine. Fast ones can
# say anything between the pixels that they know, and say noise.

known = np.random.default_rng(0).uniform(size=len(X)) < 0.25
holes = np.where(known[:, None], Y, 1).reshape(image.shape)
figure, panels = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
panels[0, 0].imshow(holes, interpolation="nearest")
panels[0, 0].set(title="a quarter of the pixels", xticks=[], yticks=[])
new = {}
for panel, frequency in zip(panels.flat[1:], (0.25, 2.0, 12.0), strict=True):
    columns = waves(X, frequency)
    network.set_params(max_iter=60).fit(columns[known], Y[known])
    seen, new[frequency] = (np.sqrt(mean_squared_error(Y[k], network.predict(columns[k]))) for k in (known, ~known))
    panel.imshow(picture(network, columns), interpolation="nearest")
    panel.set(
        title=f"frequencies {frequency:g}: off by {seen:.3f}, new pixels {new[frequency]:.3f}", xticks=[], yticks=[]
    )
    print(f"frequencies {frequency:5g}: known pixels off by {seen:.3f}, new ones by {new[frequency]:.3f}")
figure.savefig("22_image_as_function_holes.png")
assert new[2.0] < min(new[0.25], new[12.0])
