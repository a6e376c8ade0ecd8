r"""
Images: softmax, hinge and a network
====================================

Three classifiers on small images: Fashion-MNIST (ten kinds of clothes at 28 x 28) if it can be had, else
scikit-learn's digits (8 x 8). To a classifier each image is a row of pixels.
"""

# %%
# The images
# ----------

import warnings

import matplotlib.pyplot as plt
import numpy as np
from benchmarks.common import load_images
from sklearn.exceptions import ConvergenceWarning

from skdeep import Adam, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.display import LossCurveDisplay, TemplatesDisplay

plt.style.use("petroff10")

name, X, y, X_test, y_test = load_images()
X, y, X_test, y_test = X[:10_000], y[:10_000], X_test[:2000], y_test[:2000]
shape = (28, 28) if name == "Fashion-MNIST" else (8, 8)
print(f"{name}: {len(X)} images to train on, {len(X_test)} to test, pixels from {X.min():g} to {X.max():g}")

figure, axes = plt.subplots(2, 10, figsize=(10, 2.4), layout="constrained")
for k in range(10):
    for panel, row in zip(axes[:, k], X[y == k], strict=False):
        panel.imshow(row.reshape(shape), cmap="gray_r")
        panel.set(xticks=[], yticks=[])
    axes[0, k].set_title(k)
figure.suptitle(f"{name}: two images of each class")
figure.savefig("10_images_data.png")

# %%
# Three classifiers
# -----------------
# The same solver for all: Adam with a learning rate that falls along half a cosine, for a fixed number of epochs; the
# network starts with a smaller one. The test images are given to ``fit`` as validation data, so that their curve is
# recorded; they have no influence.

adam = Adam(0.01, learning_rate="cosine", batch_size=200)
slower = Adam(0.003, learning_rate="cosine", batch_size=200)
models = {
    "softmax": SoftmaxClassifier(alpha=3e-3, solver=adam, max_iter=15, random_state=0),
    "hinge": HingeClassifier(alpha=1e-4, solver=adam, max_iter=15, random_state=0),
    "MLP (128, 128)": MLPClassifierTorch((128, 128), solver=slower, max_iter=15, random_state=0),
}
warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found
for label, model in models.items():
    model.fit(X, y, X_val=X_test, y_val=y_test)
    print(f"{label:15} accuracy {model.score(X, y):.3f} in training, {model.score(X_test, y_test):.3f} on test images")

# %%
# The learning curves. Losses of different kinds have different units; the scores can be compared.

display = LossCurveDisplay.from_estimators(list(models.values()), names=list(models))
display.figure_.savefig("10_images_curves.png")

# %%
# What the linear classifiers look for
# ------------------------------------
# A linear classifier has one template per class, and so one idea of what a shirt looks like. The network has 128
# learnt features, which is why it does better.

display = TemplatesDisplay.from_estimator(models["softmax"], image_shape=shape, X=X, y=y)
display.figure_.savefig("10_images.png")

# %%
# The recipe for cats and dogs
# ----------------------------
# A well-known assignment trains a network of three hidden layers (100, 50, 50) with ReLUs on 32 x 32 colour images of
# cats and dogs: SGD with learning rate 0.01, momentum 0.9, weight decay 1e-4, batches of 128, 100 epochs. Torch's
# weight decay is ``alpha`` divided by the batch. Here it learns the two classes 3 and 8 of the images above.

cats_and_dogs = MLPClassifierTorch(
    (100, 50, 50),
    "relu",
    solver="sgd",
    learning_rate_init=0.01,
    momentum=0.9,
    nesterovs_momentum=False,
    alpha=1e-4 * 128,
    batch_size=128,
    max_iter=100,
    n_iter_no_change=np.inf,
    random_state=0,
)
two, two_test = np.isin(y, (3, 8)), np.isin(y_test, (3, 8))
cats_and_dogs.fit(X[two], y[two])
print(f"3 against 8: test accuracy {cats_and_dogs.score(X_test[two_test], y_test[two_test]):.3f}")

# %%
# With a folder for each class (``cats/*.jpg``, ``dogs/*.jpg``, or twenty kinds of scenes), the data come from the files
# as bytes, and stay bytes: batches are converted as they are used.
#
# .. code-block:: python
#
#     import numpy as np
#     from pathlib import Path
#     from PIL import Image
#     from sklearn.pipeline import make_pipeline
#     from sklearn.preprocessing import StandardScaler
#
#     files = sorted(Path("train").glob("*/*.jpg"))
#     y = [file.parent.name for file in files]
#     X = np.stack([np.asarray(Image.open(file).convert("RGB").resize((32, 32))).ravel() for file in files])
#     make_pipeline(StandardScaler(), cats_and_dogs).fit(X, y)
