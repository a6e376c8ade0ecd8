r"""
Probabilities from a support vector machine
===========================================

The scores of a support vector machine are no probabilities: only their order and the margin of one mean anything.
**Platt scaling** fits a sigmoid to them, and temperature scaling one factor. Both must see scores of samples that the
machine was *not* trained on.
"""

# %%
# Training scores are too good
# ----------------------------
# Many features and few samples: the machine separates its training data, and so its training scores look surer than
# those of any new sample.

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit
from sklearn.calibration import CalibrationDisplay
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skdeep import HingeClassifier
from skdeep.fitting.calibrators import fit_sigmoid

plt.style.use("petroff10")

X, y = make_classification(10_000, n_features=100, n_informative=20, flip_y=0.1, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, train_size=400, stratify=y, random_state=0)

raw = HingeClassifier("hinge", calibration=None, random_state=0).fit(X_train, y_train)
print(f"accuracy: {raw.score(X_train, y_train):.3f} in training, {raw.score(X_test, y_test):.3f} on new data")
assert not hasattr(raw, "predict_proba")
score = raw.decision_function(X_test)
slope, offset = fit_sigmoid(raw.decision_function(X_train)[:, None], y_train)

# %%
# Out-of-fold scores
# ------------------
# `HingeClassifier` trains five more machines, each without one fifth of the samples, and fits the calibration to the
# scores that these get for the part they have not seen. (The five train as one stack.)

probabilities = {
    "sigmoid of the score, as it is": expit(score),
    "Platt, on training scores (wrong)": expit(slope[0] * score + offset[0]),
    "Platt, on out-of-fold scores": None,
    "temperature, on out-of-fold scores": None,
}
for label, calibration in (("Platt", "sigmoid"), ("temperature", "temperature")):
    svm = HingeClassifier("hinge", calibration=calibration, random_state=0).fit(X_train, y_train)
    probabilities[f"{label}, on out-of-fold scores"] = svm.predict_proba(X_test)[:, 1]


def calibration_error(p, n_bins=10):
    """Expected calibration error: how far the frequency is from the probability, on average."""
    index = np.minimum((p * n_bins).astype(int), n_bins - 1)
    bins = [index == k for k in range(n_bins) if (index == k).any()]
    return sum(abs(y_test[inside].mean() - p[inside].mean()) * inside.mean() for inside in bins)


# %%
# Reliability curves
# ------------------
# Of the samples that get probability 0.8, 80 % should be positive: the diagonal.

figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
for (label, p), marker in zip(probabilities.items(), "osv^", strict=True):
    error, loss = calibration_error(p), log_loss(y_test, p)
    print(f"{label:35} calibration error {error:.3f}, log-loss {loss:.3f}")
    CalibrationDisplay.from_predictions(y_test, p, n_bins=10, strategy="quantile", name=label, ax=axes, marker=marker)
axes.set(xlabel="probability", ylabel="frequency of the positive class", title="Reliability on 9600 new samples")
figure.savefig("11_calibration.png")

errors = [calibration_error(p) for p in probabilities.values()]
assert max(errors[2:]) < min(errors[:2])
