"""Milliseconds of fits and searches on small data, beside scikit-learn's behind a StandardScaler, and how they grow.

CPU time of one thread, in rounds that take turns: medians. What is compared ends at the same optimum or, where the
objectives differ, at the certificate in the table. ``--growth`` shows seconds and the solver chosen from 100 to 100 000
rows instead.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
import warnings

import numpy as np
import sklearn.model_selection
from common import parser, report
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import skdeep.model_selection
from skdeep import HingeClassifier, SoftmaxClassifier
from skdeep.model_selection.evaluation import fit_candidates

SETS = {f.__name__.removeprefix("load_"): f for f in (load_iris, load_wine, load_breast_cancer, load_digits)}
C = np.logspace(-3, 3, 9)


#: Strengths of a path of L1 penalties, on scaled columns.
PATH = np.logspace(-1, -3, 20)


class Path:
    """Twenty L1-penalised models of all rows, from the strongest penalty to the weakest: ours as one stack."""

    def fit(self, X, y):
        self.models = [SoftmaxClassifier("l1", alpha=alpha, random_state=0) for alpha in PATH]
        fit_candidates(self.models, StandardScaler().fit_transform(X), y, {}, with_probabilities=False)
        self.best_estimator_ = max(self.models, key=lambda model: model.certificate_)
        return self


class TheirPath:
    """The same with liblinear for two classes, and saga, each from where the last one ended, for more."""

    def __init__(self, lasso):
        self.lasso = lasso

    def fit(self, X, y):
        Z = StandardScaler().fit_transform(X)
        for alpha in PATH:
            self.lasso.set_params(C=1 / (len(y) * alpha)).fit(Z, y)
        return self


def scaled(classifier):
    """A classifier behind a StandardScaler."""
    return make_pipeline(StandardScaler(), classifier)


def fits(name: str, n: int, n_classes: int) -> dict:
    """Pairs of estimators to fit, ours and scikit-learn's, by what is compared."""
    ours = {"random_state": 0, "calibration": None}
    if n_classes == 2:
        lasso = LogisticRegression(l1_ratio=1, solver="liblinear", tol=1e-8, max_iter=10_000)
    else:
        lasso = LogisticRegression(l1_ratio=1, solver="saga", tol=1e-8, max_iter=100_000)
    pairs = {
        "softmax": (SoftmaxClassifier(random_state=0), scaled(LogisticRegression())),
        "hinge": (HingeClassifier("hinge", **ours), scaled(LinearSVC())),
        "squared hinge, ovr": (HingeClassifier("squared_hinge", multi_class="ovr", **ours), scaled(LinearSVC())),
        "hinge, probabilities": (HingeClassifier(random_state=0), scaled(CalibratedClassifierCV(LinearSVC()))),
        "softmax, L1": (SoftmaxClassifier("l1", random_state=0), scaled(lasso)),
        "softmax, 20 L1": (Path(), TheirPath(clone(lasso).set_params(warm_start=n_classes > 2))),
    }
    if name == "digits":  # saga takes a minute
        del pairs["softmax, L1"], pairs["softmax, 20 L1"]
    return pairs


def searches(n: int) -> dict:
    """Pairs of searches over nine strengths of the penalty in five folds."""
    linear = {"random_state": 0, "calibration": None}
    grid = {"alpha": 1 / (0.8 * n * C)}

    def ours(estimator):
        return skdeep.model_selection.GridSearchCV(estimator, grid, cv=5)

    def theirs(classifier):
        name = type(classifier).__name__.lower()
        return sklearn.model_selection.GridSearchCV(scaled(classifier), {f"{name}__C": C}, cv=5)

    return {
        "search, softmax": (ours(SoftmaxClassifier(random_state=0)), theirs(LogisticRegression())),
        "search, hinge": (ours(HingeClassifier("hinge", **linear)), theirs(LinearSVC())),
        "search, squared hinge, ovr": (
            ours(HingeClassifier("squared_hinge", multi_class="ovr", **linear)),
            theirs(LinearSVC()),
        ),
    }


def milliseconds(estimator, X, y) -> float:
    """CPU time of one fit."""
    start = time.process_time()
    estimator.fit(X, y)
    return 1000 * (time.process_time() - start)


def compare(name: str, rounds: int) -> list[list]:
    """Rows of the table about one data set."""
    X, y = SETS[name](return_X_y=True)
    rows = []
    for what, pair in {**fits(name, len(y), len(np.unique(y))), **searches(len(y))}.items():
        times: list[list[float]] = [[], []]
        for each in range(1 + rounds):  # the first is not counted
            for side, estimator in zip(times, pair, strict=True):
                side += [milliseconds(estimator, X, y)] * bool(each)
        ours, theirs = (float(np.median(side)) for side in times)
        fitted = getattr(pair[0], "best_estimator_", pair[0])
        certificate = "-" if fitted.certificate_ is None else f"{fitted.certificate_:.0e}"
        rows.append([what, name, ours, theirs, ours / theirs, fitted.solver_, certificate])
        print(*(f"{v:.3g}" if isinstance(v, float) else v for v in rows[-1]), flush=True)
    return rows


def growth(rounds: int) -> list[list]:
    """Rows of the table about more and more rows of 20 columns and three classes."""
    rows = []
    for n in (100, 1000, 10_000, 100_000):
        X, y = make_classification(n, 20, n_informative=8, n_classes=3, random_state=0)
        for what, (ours, theirs) in fits("growth", n, 3).items():
            if what == "softmax, 20 L1" or (what == "softmax, L1" and n > 1000):  # saga takes minutes
                continue
            pair = [
                float(np.median([milliseconds(one, X, y) for _ in range(1 + rounds)][1:])) for one in (ours, theirs)
            ]
            rows.append([what, n, *pair, pair[0] / pair[1], ours.solver_])
            print(*(f"{v:.3g}" if isinstance(v, float) else v for v in rows[-1]), flush=True)
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--growth", action="store_true", help="seconds over the number of rows")
    options.add_argument("--sets", nargs="*", default=list(SETS), help="data sets (default: all)")
    given = options.parse_args()
    warnings.simplefilter("ignore")  # liblinear stops at its limit
    if given.growth:
        columns = ["estimator", "rows", "skdeep, ms", "scikit-learn, ms", "ratio", "solver"]
        report("small-growth", "20 columns, 3 classes", columns, growth(given.rounds), given.output)
        return
    rows = [row for name in given.sets for row in compare(name, given.rounds)]
    columns = ["estimator", "data", "skdeep, ms", "scikit-learn, ms", "ratio", "solver", "certificate"]
    report("small", "bundled sets, CPU time of one thread", columns, rows, given.output)


if __name__ == "__main__":
    main()
