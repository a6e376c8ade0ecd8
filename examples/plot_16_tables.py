r"""
Tables of few distinct rows
===========================

In a contingency table, or in the answers to a survey, a few distinct rows stand for many people each, and copies of a
row have different labels. Whatever holds out rows inside a fit (calibration, early stopping, an ensemble's folds) must
then hold out some of the copies and keep the others. The frequencies of each cell are there to compare with.
"""

# %%
# Two tables
# ----------
# A contingency table: who came back, by sex and by age (young or old), one row per cell and answer, with its count as
# weight. And a scale: answers from 1 to 5, with one of three outcomes.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.svm import LinearSVC

from skdeep import HingeClassifier, MLPClassifierTorch, MLPEnsembleClassifier

plt.style.use("petroff10")

cells = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
came_back = np.array([[52, 8], [45, 25], [20, 30], [9, 61]])
scale = np.arange(1.0, 6)[:, None]
outcomes = np.array([[38, 10, 2], [30, 22, 8], [16, 30, 14], [8, 24, 28], [2, 12, 36]])

tables = {
    "contingency table": (cells, came_back, ["woman, young", "woman, old", "man, young", "man, old"]),
    "scale of five answers": (scale, outcomes, list("12345")),
}

# %%
# Six models
# ----------
# `HingeClassifier` calibrates its scores on out-of-fold rows, as `CalibratedClassifierCV
# <sklearn.calibration.CalibratedClassifierCV>` does for LinearSVC; the ensemble's members each leave out a fold; and
# early stopping watches a tenth of the rows. LogisticRegression holds out nothing.
#
# The plain hinge loss asks only which answer is the more frequent: women are on one side of its border and men on the
# other, whatever their age, and a calibration cannot tell apart what has the same score. The squared hinge can.

models = {
    "LogisticRegression": LogisticRegression(),
    "CalibratedClassifierCV(LinearSVC)": CalibratedClassifierCV(LinearSVC()),
    "HingeClassifier": HingeClassifier(random_state=0),
    "HingeClassifier, plain hinge": HingeClassifier("hinge", random_state=0),
    "MLPEnsembleClassifier": MLPEnsembleClassifier(max_iter=30, random_state=0),
    "MLPClassifierTorch, early stopping": MLPClassifierTorch(early_stopping=True, scoring="loss", random_state=0),
}

# %%
# Against the frequencies
# -----------------------
# Each person is a row: scikit-learn's calibration would hold out a weighted row as a whole. A linear model cannot
# follow every cell, and need not: the bars are frequencies of some sixty people.


def probabilities(model, X, counts):
    """Train on one row per person; the probabilities of each cell, (n_cells, n_classes), and the log-loss."""
    n_cells, n_classes = counts.shape
    people = np.repeat(np.arange(n_cells * n_classes), counts.ravel())
    y = people % n_classes
    model.fit(X[people // n_classes], y)
    return model.predict_proba(X), log_loss(y, model.predict_proba(X[people // n_classes]))


figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
losses = {}
for axis, (title, (X, counts, names)) in zip(axes, tables.items(), strict=True):
    print(title)
    frequency = (counts / counts.sum(axis=1, keepdims=True))[:, -1]
    place = np.arange(len(X))
    axis.bar(place, frequency, width=0.8, color="0.85", label="frequency in the table")
    for k, (name, model) in enumerate(models.items()):
        p, losses[title, name] = probabilities(model, X, counts)
        print(f"{name:34} log-loss {losses[title, name]:.3f}")
        axis.plot(place + 0.13 * (k - 2.5), p[:, -1], "osv^DP"[k], color=f"C{k}", markersize=8, label=name)
    axis.set(xticks=place, xticklabels=names, ylim=(0, 1), title=title)
    axis.set_ylabel("probability of the last class" if counts.shape[1] > 2 else "probability of coming back")
axes[1].legend(loc="upper left", fontsize="small")
figure.savefig("16_tables.png")

# %%
# What holds out rows is as good as what does not, but for the plain hinge on the first table.

for title in tables:
    reference = losses[title, "CalibratedClassifierCV(LinearSVC)"]
    assert all(losses[title, name] < 1.01 * reference for name in models if "plain" not in name)
