"""Seconds of a fit, and what it reaches on held-out data, beside scikit-learn's estimators.

Linear classifiers and networks on images, each at its defaults and, for ours, at the settings for large data of the
guide (``docs/guide/cost.rst``): one of few parameters, and the fastest.

Run ``python examples/benchmarks/time_to_quality.py --help`` for the options.
"""

import warnings

import numpy as np
from common import load_images, parser, report, seconds
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from skdeep import Adam, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier

LARGE = {"solver": Adam(learning_rate="cosine", batch_size=512), "max_iter": 6}
FASTEST = {"solver": Adam(0.013, learning_rate="cosine", batch_size=1280, beta_2=0.95), "max_iter": 8, "alpha": 1e-4}
NETWORK = {"hidden_layer_sizes": (256, 256), "max_iter": 5, "batch_size": 256, "random_state": 0}
NETWORK |= {"alpha": 1e-4, "learning_rate_init": 1e-3, "learning_rate": "constant"}  # MLPClassifier's defaults
CONTESTANTS = {
    "linear": {
        "SoftmaxClassifier, fastest": SoftmaxClassifier(random_state=0, **FASTEST),
        "SoftmaxClassifier, large data": SoftmaxClassifier(random_state=0, **LARGE),
        "SoftmaxClassifier": SoftmaxClassifier(random_state=0),
        "LogisticRegression(max_iter=100)": LogisticRegression(max_iter=100),
        "SGDClassifier(log_loss)": SGDClassifier("log_loss", random_state=0),
        "HingeClassifier, plain hinge, large data": HingeClassifier("hinge", random_state=0, **LARGE),
        "HingeClassifier, plain hinge, large data, uncalibrated": HingeClassifier(
            "hinge", calibration=None, random_state=0, **LARGE
        ),
        "LinearSVC": LinearSVC(random_state=0),
    },
    "networks": {
        "MLPClassifierTorch": MLPClassifierTorch(**NETWORK),
        "MLPClassifierTorch, bfloat16": MLPClassifierTorch(precision="bfloat16", **NETWORK),
        "MLPClassifier": MLPClassifier(**NETWORK),
    },
}


def main():
    options = parser(__doc__)
    options.add_argument("--models", choices=list(CONTESTANTS), default="linear")
    options.add_argument("--rows", type=int, help="use only so many rows")
    options.add_argument("--peer-rounds", type=int, default=1, help="rounds of scikit-learn's estimators")
    options.add_argument("--leave-out", nargs="*", default=[], help="contestants whose name contains one of these")
    options.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of the columns")
    options = options.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    name, X, y, X_test, y_test = load_images()
    X, y = X[: options.rows].astype(options.dtype), y[: options.rows]
    SoftmaxClassifier(max_iter=1).fit(X[:300], y[:300])  # what is only paid once in a process
    chosen = CONTESTANTS[options.models].items()
    chosen = {label: e for label, e in chosen if not any(part in label for part in options.leave_out)}
    times, quality = {}, {}
    for round_ in range(options.rounds):
        for label, estimator in chosen.items():
            if not type(estimator).__module__.startswith("skdeep") and round_ >= options.peer_rounds:
                continue
            taken, model = seconds(lambda e=estimator: clone(e).fit(X, y))
            times.setdefault(label, []).append(taken)
            loss = log_loss(y_test, model.predict_proba(X_test)) if hasattr(model, "predict_proba") else np.nan
            quality[label] = f"{model.score(X_test, y_test):.4f}", f"{loss:.4f}", int(np.max(model.n_iter_))
            print(f"round {round_ + 1}: {label}: {taken:.2f} s, {quality[label]}", flush=True)
    medians = {label: float(np.median(taken)) for label, taken in times.items()}
    first = next(iter(medians))
    rows = [[label, s, s / medians[first], *quality[label]] for label, s in medians.items()]
    columns = ["", "seconds", f"/ {first}", "test accuracy", "test log-loss", "epochs or iterations"]
    data = f"{name}, {X.shape[0]} x {X.shape[1]} {X.dtype}"
    report(f"time_to_quality-{options.models}", data, columns, rows, options.output)


if __name__ == "__main__":
    main()
