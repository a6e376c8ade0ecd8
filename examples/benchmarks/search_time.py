"""What a search over the strength of the regularisation costs, beside scikit-learn's GridSearchCV.

Contestants, on the same folds of the same data:

- skdeep's GridSearchCV over SoftmaxClassifier, at its best ``n_jobs``;
- scikit-learn's GridSearchCV over the same estimator;
- scikit-learn's GridSearchCV over LogisticRegression at the same strengths, C = 1 / (alpha n), at its best ``n_jobs``;
- for networks: skdeep's search over MLPClassifierTorch beside as many separate fits.

Run ``python examples/benchmarks/search_time.py --help`` for the options.
"""

import warnings

import numpy as np
from common import load_images, parser, report, seconds
from sklearn import model_selection as reference
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from skdeep import SGD, Adam, MLPClassifierTorch, SoftmaxClassifier
from skdeep.model_selection import GridSearchCV

LARGE = {"solver": Adam(learning_rate="cosine", batch_size=512), "max_iter": 4}
SMALL = {"solver": SGD(learning_rate="cosine"), "max_iter": 10}


def main():
    options = parser(__doc__)
    options.add_argument("--data", choices=["images", "digits"], default="images")
    options.add_argument("--rows", type=int, help="use only so many rows")
    options.add_argument("--alphas", type=int, default=9, help="number of values of alpha, from 1e-6 to 1e-2")
    options.add_argument("--folds", type=int, default=5)
    options.add_argument("--n-jobs", type=int, nargs="+", default=[1, 2], help="the values to choose the best from")
    options.add_argument("--peer-n-jobs", type=int, nargs="+", default=[1, 2], help="the same, for LogisticRegression")
    options.add_argument("--defaults", action="store_true", help="SoftmaxClassifier at its defaults as well")
    options.add_argument("--peer-rounds", type=int, default=1, help="rounds of the slow contestants")
    options.add_argument("--mlp", action="store_true", help="the networks, instead of the linear models")
    options = options.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    if options.data == "images":
        name, X, y, *_ = load_images()
    else:
        name, (X, y) = "digits", load_digits(return_X_y=True)
    X, y = X[: options.rows], y[: options.rows]
    cv = reference.StratifiedKFold(options.folds)
    alphas = np.logspace(-6, -2, options.alphas)
    data = f"{name}, {X.shape[0]} x {X.shape[1]} {X.dtype}, {len(alphas)} alphas x {options.folds} folds"
    SoftmaxClassifier(max_iter=1).fit(X[:300], y[:300])  # what is only paid once in a process
    if options.mlp:
        networks(X, y, options, data)
    else:
        linear(X, y, cv, alphas, options, data)


def linear(X, y, cv, alphas, options, data):
    settings = {"large-data setting": LARGE} if options.data == "images" else {"10 epochs, cosine": SMALL}
    settings |= {"defaults": {}} if options.defaults else {}
    n_train = len(X) * (options.folds - 1) // options.folds
    contestants = {}
    for label, setting in settings.items():
        estimator = SoftmaxClassifier(random_state=0, **setting)
        for n_jobs in options.n_jobs:
            contestants[f"skdeep's search, {label}", n_jobs] = GridSearchCV(
                estimator, {"alpha": alphas}, cv=cv, n_jobs=n_jobs
            )
            contestants[f"scikit-learn's search over SoftmaxClassifier, {label}", n_jobs] = reference.GridSearchCV(
                estimator, {"alpha": alphas}, cv=cv, n_jobs=n_jobs
            )
    for n_jobs in options.peer_n_jobs:
        contestants["scikit-learn's search over LogisticRegression", n_jobs] = reference.GridSearchCV(
            LogisticRegression(), {"C": 1 / (alphas * n_train)}, cv=cv, n_jobs=n_jobs
        )
    times, scores = {}, {}
    for round_ in range(options.rounds):
        for n_jobs in {*options.n_jobs, *options.peer_n_jobs}:  # workers start, and import, once in a session
            reference.cross_val_score(SoftmaxClassifier(max_iter=1), X[:300], y[:300], cv=2 * n_jobs, n_jobs=n_jobs)
        for (label, n_jobs), search in contestants.items():
            if label.startswith("scikit") and round_ >= options.peer_rounds:
                continue
            taken, fitted = seconds(lambda s=search: clone(s).fit(X, y))
            times.setdefault((label, n_jobs), []).append(taken)
            scores[label] = fitted.best_score_
            print(f"round {round_ + 1}: {label}, n_jobs={n_jobs}: {taken:.2f} s, {fitted.best_score_:.4f}", flush=True)
    best = {}
    for (label, n_jobs), taken in times.items():
        best[label] = min(best.get(label, (np.inf, 0)), (float(np.median(taken)), n_jobs))
    ours = {label: s for label, (s, _) in best.items() if label.startswith("skdeep")}
    rows = []
    for label, (s, n_jobs) in best.items():
        rows.append([label, n_jobs, s, f"{scores[label]:.4f}", *(s / own for own in ours.values())])
    columns = ["search", "best n_jobs", "seconds", "best CV accuracy", *(f"/ {label}" for label in ours)]
    report(f"search_time-{options.data}", data, columns, rows, options.output)


def networks(X, y, options, data):
    alphas = np.logspace(-6, -2, 6)
    network = MLPClassifierTorch((256, 256), batch_size=256, max_iter=3, tol=0, n_iter_no_change=np.inf, random_state=0)
    split = [(np.arange(len(X) // 5, len(X)), np.arange(len(X) // 5))]
    train, _ = split[0]

    def one_by_one():
        for alpha in alphas:
            clone(network).set_params(alpha=alpha).fit(X[train], y[train])

    search = GridSearchCV(network, {"alpha": alphas}, cv=split, refit=False)
    times = {"6 separate fits": [], "skdeep's search, 6 alphas x 1 split": []}
    for round_ in range(options.rounds):
        times["6 separate fits"].append(seconds(one_by_one)[0])
        times["skdeep's search, 6 alphas x 1 split"].append(seconds(lambda: clone(search).fit(X, y))[0])
        print(f"round {round_ + 1}: {[round(taken[-1], 2) for taken in times.values()]}", flush=True)
    medians = {label: float(np.median(taken)) for label, taken in times.items()}
    rows = [[label, s, s / medians["6 separate fits"]] for label, s in medians.items()]
    report(
        f"search_time-mlp-{options.data}",
        f"{data}; (256, 256), 3 epochs",
        ["", "seconds", "ratio"],
        rows,
        options.output,
    )


if __name__ == "__main__":
    main()
