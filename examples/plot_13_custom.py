r"""
A loss and a network of your own
================================

Two doors for what is not in the package: a loss is a small class, and a network is any torch module.
"""

# %%
# A loss
# ------
# When some labels are wrong, the cross-entropy pulls hardest at just those samples. The **generalised cross-entropy**
# of Zhang & Sabuncu (2018), :math:`(1 - p_y^q) / q`, lets go of samples that disagree with all others. A loss needs
# its value for scores ``(..., C)`` and class codes; the gradient comes from autograd.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from skdeep import SGD, SoftmaxClassifier, TorchClassifier
from skdeep.engine.losses import LOSSES, Loss

plt.style.use("petroff10")
warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found


class GeneralisedCrossEntropy(Loss):
    """Between the cross-entropy (q = 0) and the absolute error (q = 1)."""

    q = 0.7

    def value(self, scores, target):
        log_p = torch.log_softmax(scores, -1)
        column = target.expand(scores.shape[:-1]).unsqueeze(-1)
        return (1 - torch.exp(self.q * log_p.gather(-1, column).squeeze(-1))) / self.q


LOSSES["generalised_cross_entropy"] = GeneralisedCrossEntropy


class RobustSoftmax(SoftmaxClassifier):
    """Softmax regression with the loss above."""

    def _loss(self, n_outputs):
        return LOSSES["generalised_cross_entropy"]() if n_outputs > 1 else super()._loss(n_outputs)


X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
rng = np.random.default_rng(0)
shares = [0.0, 0.2, 0.4, 0.6]
accuracies = {SoftmaxClassifier: [], RobustSoftmax: []}
for share in shares:
    wrong = rng.random(len(y_train)) < share
    noisy = np.where(wrong, rng.integers(10, size=len(y_train)), y_train)
    for classifier, values in accuracies.items():
        model = classifier(alpha=1e-4, solver=SGD(learning_rate="cosine"), max_iter=40, random_state=0)
        model.fit(X_train, noisy)
        values.append(model.score(X_test, y_test))

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (classifier, values), marker in zip(accuracies.items(), "os", strict=True):
    print(f"{classifier.__name__:18} {np.round(values, 3)}")
    axes.plot(shares, values, marker=marker, label=classifier.__name__)
axes.set(xlabel="share of labels drawn at random", ylabel="test accuracy (true labels)", title="Digits, noisy labels")
axes.legend()
figure.savefig("13_custom_loss.png")

# %%
# A network
# ---------
# `TorchClassifier` takes the class of a module, and X in the shape that the module expects: here images with one
# channel. Everything else is as for the other estimators: early stopping, callbacks, searches, pickling.


class ConvNet(torch.nn.Module):
    """Two convolutions, each with pooling, and a linear layer."""

    def __init__(self, n_outputs, channels=16):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, channels, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(channels, 2 * channels, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * channels, n_outputs),
        )

    def forward(self, images):
        """Scores, without softmax: that is part of the loss."""
        return self.layers(images)


def images(rows):
    """(n, 1, 8, 8) in float32."""
    return rows.reshape(-1, 1, 8, 8).astype(np.float32)


conv = TorchClassifier(
    ConvNet, module_params={"channels": 8}, learning_rate_init=0.02, learning_rate="cosine", max_iter=15, random_state=0
)
conv.fit(images(X_train), y_train)
probability = conv.predict_proba(images(X_test))
print(f"test accuracy of the convolutional network: {conv.score(images(X_test), y_test):.3f}")

unsure = np.argsort(probability.max(axis=1))[:8]
figure, panels = plt.subplots(1, 8, figsize=(11, 2), layout="constrained")
for panel, i in zip(panels, unsure, strict=True):
    panel.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    panel.set(xticks=[], yticks=[])
    panel.set_title(f"{probability[i].argmax()} ({probability[i].max():.0%}), is {y_test[i]}", fontsize="small")
figure.suptitle("The test images that it is least sure of")
figure.savefig("13_custom.png")
