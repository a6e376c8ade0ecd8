"""How the seconds of an epoch grow with the rows, the columns, the classes, and the models of a stack.

One of them is varied at a time, from the same middle; an epoch is the difference between a fit of several epochs and
one of a single epoch. Run ``python examples/benchmarks/growth.py --help`` for the options.
"""

import warnings

import numpy as np
from common import parser, report, seconds
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skdeep import SGD, MLPClassifierTorch, SoftmaxClassifier
from skdeep.model_selection.stacks import fit_stack

MIDDLE = {"rows": 10_000, "columns": 100, "classes": 10, "models": 1}
STEPS = {
    "rows": [2_500, 10_000, 40_000],
    "columns": [10, 100, 1000],
    "classes": [2, 10, 100],
    "models": [1, 4, 16, 64],
}


def epoch(estimator, size, epochs):
    """Seconds of an epoch of a stack."""
    rng = np.random.default_rng(0)
    X = rng.random((size["rows"], size["columns"]), dtype=np.float32)
    y = np.arange(size["rows"]) % size["classes"]
    alphas = np.logspace(-6, -2, size["models"])

    def fit(n):
        members = [clone(estimator).set_params(alpha=alpha, max_iter=n) for alpha in alphas]
        return seconds(lambda: fit_stack(members, X, y))[0]

    one = fit(1)
    return (fit(1 + epochs) - one) / epochs


def main():
    options = parser(__doc__)
    options.add_argument("--epochs", type=int, default=5, help="epochs that an epoch is measured over")
    options = options.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    endless, steps = {"tol": 0.0, "random_state": 0}, {"n_iter_no_change": np.inf, "precision": "float32"}
    estimators = {
        "SoftmaxClassifier": SoftmaxClassifier(solver=SGD(**steps), **endless),
        "MLP (64, 64)": MLPClassifierTorch((64, 64), **steps, **endless),
    }
    rows = []
    for what, steps in STEPS.items():
        for step in steps:
            size = {**MIDDLE, what: step}
            line = [what, step]
            for estimator in estimators.values():
                taken = [epoch(estimator, size, options.epochs) for _ in range(options.rounds)]
                line.append(1e3 * float(np.median(taken)))
            rows.append(line)
            print(line, flush=True)
    data = ", ".join(f"{value} {name}" for name, value in MIDDLE.items())
    columns = ["varied", "to", *(f"{name}, ms an epoch" for name in estimators)]
    report("growth", f"float32, batch 200; {data}, but for one", columns, rows, options.output)


if __name__ == "__main__":
    main()
