r"""
Moving from LogisticRegression, MLPClassifier and skorch
========================================================

What a line of code becomes, and that it means the same.
"""

# %%
# LogisticRegression
# ------------------
# ``C`` becomes ``alpha = 1 / (C * n_samples)``. With the exact solver the coefficients agree. Mini-batch SGD ends near
# the same point, and is for data of which full passes are expensive. The default, ``"auto"``, goes by the size.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn import model_selection
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier

from skdeep import SGD, MLPClassifierTorch, SoftmaxClassifier
from skdeep.model_selection import GridSearchCV

plt.style.use("petroff10")
warnings.simplefilter("ignore", ConvergenceWarning)  # numbers of epochs are chosen, not found

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = model_selection.train_test_split(X / 16, y, stratify=y, random_state=0)
n = len(X_train)

theirs = LogisticRegression(C=1.0, max_iter=1000, tol=1e-6).fit(X_train, y_train)
ours = SoftmaxClassifier(alpha=1 / (1.0 * n), solver="lbfgs", max_iter=1000, tol=1e-6).fit(X_train, y_train)
near = SoftmaxClassifier(alpha=1 / (1.0 * n), solver="sgd", random_state=0).fit(X_train, y_train)
print("largest difference of the coefficients:", np.abs(theirs.coef_ - ours.coef_).max().round(5))
print("test accuracies:", *(round(model.score(X_test, y_test), 4) for model in (theirs, ours, near)))
assert np.allclose(theirs.coef_, ours.coef_, atol=1e-2)

# %%
# GridSearchCV
# ------------
# Change the import. The candidates of a fold then train together; the scores are those of scikit-learn's search.

alphas = np.logspace(-5, -1, 5)
softmax = SoftmaxClassifier(solver=SGD(learning_rate="cosine"), max_iter=12, random_state=0)
searches = {}
for kind in (model_selection.GridSearchCV, GridSearchCV):
    start = time.perf_counter()
    searches[kind] = kind(softmax, {"alpha": alphas}, cv=3).fit(X_train, y_train)
    seconds, best = time.perf_counter() - start, searches[kind].best_params_["alpha"]
    print(f"{kind.__module__:32} {seconds:.2f} s, best alpha {best:.1e}")
one_by_one, stacked = (search.cv_results_["mean_test_score"] for search in searches.values())
assert np.allclose(one_by_one, stacked)

logistic = model_selection.GridSearchCV(LogisticRegression(max_iter=500), {"C": 1 / (alphas * n * 2 / 3)}, cv=3)
logistic.fit(X_train, y_train)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(theirs.coef_.ravel(), near.coef_.ravel(), "o", markersize=3, label='solver="sgd"')
left.plot(theirs.coef_.ravel(), ours.coef_.ravel(), "s", markersize=3, label='solver="lbfgs"')
left.axline((0, 0), slope=1, color="gray", linestyle=":")
left.set(xlabel="coefficients of LogisticRegression", ylabel="of SoftmaxClassifier", title="The same model")
left.legend()
right.semilogx(alphas, logistic.cv_results_["mean_test_score"], "s--", label="LogisticRegression")
right.semilogx(alphas, stacked, "o-", label="SoftmaxClassifier, 12 epochs")
right.set(xlabel="alpha = 1 / (C n)", ylabel="cross-validated accuracy", title="The same search")
right.legend()
figure.savefig("14_migrating.png")

# %%
# MLPClassifier
# -------------
# Change the name. All parameters keep theirs, and their meaning. Some defaults are better: columns are standardised,
# and the learning rate falls to zero along half a cosine.

ours, theirs = MLPClassifierTorch().get_params(), MLPClassifier().get_params()
assert theirs.keys() <= ours.keys()
print({name: (value, ours[name]) for name, value in theirs.items() if ours[name] != value})
for network in (MLPClassifier, MLPClassifierTorch):
    mlp = network(hidden_layer_sizes=(64,), learning_rate_init=0.01, max_iter=30, random_state=0)
    print(f"{network.__name__:20} test accuracy {mlp.fit(X_train, y_train).score(X_test, y_test):.4f}")

# %%
# skorch
# ------
# A module of linear layers and ReLUs is ``hidden_layer_sizes``; the learning rate, the number of epochs and the
# optimizer are plain parameters; X may have any numeric type, and y any labels. (For modules of another kind there is
# ``TorchClassifier``, see the example on custom networks.)

torch.manual_seed(0)  # skorch draws from the global generator, skdeep from random_state
module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
net = NeuralNetClassifier(
    module,
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    optimizer__weight_decay=1e-4,
    lr=0.1,
    max_epochs=10,
    batch_size=64,
    iterator_train__shuffle=True,
    train_split=None,
    verbose=0,
)
mlp = MLPClassifierTorch(
    (64,),
    solver="sgd",
    momentum=0.9,
    nesterovs_momentum=False,
    alpha=1e-4 * 64,
    learning_rate="constant",
    learning_rate_init=0.1,
    max_iter=10,
    batch_size=64,
    n_iter_no_change=np.inf,
    random_state=0,
)
for estimator, images in ((net, X_train.astype(np.float32)), (mlp, X_train)):
    start = time.perf_counter()
    estimator.fit(images, y_train)
    seconds = time.perf_counter() - start
    score = estimator.score(X_test.astype(images.dtype), y_test)
    print(f"{type(estimator).__name__:20} test accuracy {score:.4f}, {seconds:.2f} s")
