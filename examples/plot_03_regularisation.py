r"""
Why regularise
==============

The objective of all linear classifiers here is a data term plus a penalty,
:math:`L(W) = \frac{1}{\sum_i w_i} \sum_i w_i L_i(W) + \alpha R(W)`. Why is the second part needed, and what does
the choice of R change?
"""

# %%
# Zero loss does not say which W
# ------------------------------
# On data that can be separated the hinge reaches zero. But if W has no loss, then neither has 2W: the data term cannot
# choose between them. Only R(W) can.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, make_blobs
from sklearn.preprocessing import StandardScaler

from skdeep import HingeClassifier, SoftmaxClassifier
from skdeep.display import RegularizationPathDisplay
from skdeep.engine.losses import LOSSES
from skdeep.model_selection import regularization_path

plt.style.use("petroff10")
# sphinx_gallery_thumbnail_number = 3

X, y = make_blobs(200, centers=[[-3, 0], [3, 0], [0, 4]], cluster_std=0.7, random_state=0)
alpha = 0.01
svm = HingeClassifier("hinge", alpha=alpha, calibration=None, random_state=0).fit(X, y)
scores, target = torch.from_numpy(svm.decision_function(X)), torch.from_numpy(y)

lead = scores[range(200), y] - torch.topk(scores, 2).values[:, 1]  # of the true class, over the next
assert (lead > 0).all()
factors = np.linspace(0, 3 / lead.min().item(), 200)
hinge, entropy = (
    np.array([LOSSES[name]().value(f * scores, target).mean() for f in factors])
    for name in ("weston_watkins", "log_loss")
)
zero = factors[hinge == 0].min()
print(f"the hinge is 0 for f W from f = {zero:.1f} on, where all margins are 1: 2 f W is as good as f W")
assert (hinge[factors >= zero] == 0).all()

penalty = 0.5 * alpha * factors**2 * (svm.coef_**2).sum()
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot(factors, hinge, label="hinge")
axes.plot(factors, entropy, "--", label="cross-entropy")
axes.plot(factors, penalty, ":", label=r"penalty $\alpha R(fW)$")
axes.plot(factors, hinge + penalty, "-.", label="hinge + penalty: a minimum")
axes.set(xlabel="f, the factor on W", ylabel="mean over the samples", ylim=(-0.02, 0.4), title="Scaling a solution")
axes.legend()
figure.savefig("03_regularisation_scale.png")

# %%
# Against overfitting
# -------------------
# A weak penalty lets the weights follow the noise of the training data, a strong one keeps them from following the
# signal. `regularization_path` trains all values of alpha as one stack, and cross-validates them; two choices are
# marked: the best score, and the strongest penalty that is within one standard error of it.
#
# L2, :math:`R = \frac12 \sum W^2`, shrinks all weights, and none of them to zero. L1, :math:`R = \sum |W|`, takes one
# column after the other out of the model.

X, y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
alphas = np.logspace(-3.5, 0, 11)
for penalty in ("l2", "l1"):
    path = regularization_path(SoftmaxClassifier(penalty, random_state=0), X, y, alphas, cv=3)
    used = (path.coefs != 0).sum(axis=(1, 2))
    print(f"{penalty}: columns used, from the weakest to the strongest penalty: {used}")
    display = RegularizationPathDisplay.from_path(path, score_name="accuracy")
    display.figure_.suptitle(f"{penalty.upper()} on breast_cancer")
    display.figure_.savefig(f"03_regularisation_{penalty}.png")
