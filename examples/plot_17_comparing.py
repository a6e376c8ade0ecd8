r"""
Comparing models honestly
=========================

Two models are trained on the same splits. One has the higher mean accuracy: is it better? The training sets of the
splits overlap, and the usual t-test, which takes their scores as independent, is sure too soon. Here is how often, and
what the corrected interval says of six classifiers.
"""

# %%
# A difference that is none
# -------------------------
# Of :math:`J` differences with variance :math:`s^2`, the t-test takes the variance of their mean as :math:`s^2 / J`.
# Ten splits of the same rows are not ten data sets: any two have most of their training rows in common. We draw
# differences as the corrected formula takes them, correlated by :math:`n_\text{test} / n = 1/5`, with a true mean of
# zero, and count how often each interval leaves out this zero.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier, compare
from skdeep.display import ComparisonDisplay
from skdeep.model_selection import paired_difference

plt.style.use("petroff10")
rng = np.random.default_rng(0)
n_experiments, n_splits = 1000, 10

shared, own = rng.normal(size=(n_experiments, 1)), rng.normal(size=(n_experiments, n_splits))
differences = 0.01 * (np.sqrt(1 / 5) * shared + np.sqrt(4 / 5) * own)


def false_alarms(test_ratio):
    """How often an interval of 95 % leaves out the true difference, zero."""
    found = [paired_difference(row, np.zeros(n_splits), test_ratio) for row in differences]
    return np.mean([one.low > 0 or one.high < 0 for one in found])


alarms = {"usual t-test": false_alarms(1e-12), "corrected": false_alarms(1 / 4)}
print(alarms)
assert 0.03 < alarms["corrected"] < 0.07
assert alarms["usual t-test"] > 0.2

# %%
# Six classifiers on one table
# ----------------------------
# Twice five folds. The differences from logistic regression have dots for the splits and an interval around the mean;
# what is within one percentage point, the shaded region, makes no difference in practice. Vermilion is worse, blue is
# equal, and grey is undecided: with 569 rows, that is all that there is to say.

X, y = load_breast_cancer(return_X_y=True)
models = {
    "LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression()),
    "SoftmaxClassifier": SoftmaxClassifier(random_state=0),
    "HingeClassifier": HingeClassifier(random_state=0),
    "MLPClassifierTorch": MLPClassifierTorch(random_state=0),
    "RandomForestClassifier": RandomForestClassifier(n_estimators=30, random_state=0),
    "SoftmaxClassifier, alpha=10": SoftmaxClassifier(alpha=10, random_state=0),
}
cv = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
found = compare(models, X, y, cv=cv, scoring=["accuracy", "neg_log_loss"])
print(found)

figure, axes = plt.subplots(1, 2, figsize=(13, 3.6), layout="constrained", sharey=True)
for metric, axis in zip(found.metrics, axes, strict=True):
    ComparisonDisplay.from_comparison(found, metric, ax=axis)
figure.savefig("17_comparing.png")

# %%
# Here the log-loss tells apart what the accuracy does not: of probabilities, a fold of 114 rows has more to say than of
# right and wrong. Of a classifier that makes no use of X, the accuracies say enough.

verdicts = {(row["metric"], row["contestant"]): row["verdict"] for row in found.rows()}
assert verdicts["accuracy", "SoftmaxClassifier"] == verdicts["neg_log_loss", "SoftmaxClassifier"] == "equal"
assert verdicts["neg_log_loss", "SoftmaxClassifier, alpha=10"] == "worse"
with_dummy = compare({"softmax": models["SoftmaxClassifier"], "dummy": DummyClassifier()}, X, y, cv=cv)
assert with_dummy.rows()[1]["verdict"] == "worse"
