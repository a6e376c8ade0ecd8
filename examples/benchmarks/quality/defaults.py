"""Estimators as they come, on raw columns: test accuracy, log-loss and seconds, against peers, over real data sets.

The protocol: at most ``--rows`` training rows, 30 % test rows or ``--test-rows``, classes in proportion, categories
one-hot, one thread, seconds of the process. The sets are the tables of `common.SHARED` (25 of them), else those that
scikit-learn bundles; ``--data`` takes the large ones of ``made_tables.py``, too, for which ``--rows`` is to be larger.
``--of`` takes names of `ESTIMATORS` and of `peers.PEERS`, or expressions: ``--of softmax RealMLP-TD
"SoftmaxClassifier(alpha=1e-3)"``. With ``--log`` each result is a line of JSON, and what is there already is not done
again.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import SHARED, parser, report
from made_tables import TABLES
from made_tables import load as load_made
from peers import check, made

import skdeep
from skdeep import *  # noqa: F403  # for expressions

ESTIMATORS = {
    "softmax": lambda seed: skdeep.SoftmaxClassifier(random_state=seed),
    "mlp": lambda seed: skdeep.MLPClassifierTorch(random_state=seed),
    "ensemble": lambda seed: skdeep.MLPEnsembleClassifier(random_state=seed),
    "LogisticRegression + scaler": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "SGDClassifier + scaler": lambda seed: make_pipeline(
        StandardScaler(), SGDClassifier("log_loss", random_state=seed)
    ),
    "MLPClassifier + scaler": lambda seed: make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)),
    "MLPClassifier": lambda seed: MLPClassifier(random_state=seed),
    "HistGradientBoosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
}


BUNDLED = {f.__name__.removeprefix("load_"): f for f in (load_breast_cancer, load_digits, load_iris, load_wine)}


def names() -> list[str]:
    """The data sets at hand."""
    if not (SHARED / "pmlb").is_dir():
        return sorted(BUNDLED)
    return [
        *sorted(f"pmlb/{p.stem}" for p in (SHARED / "pmlb").glob("*.npz")),
        "adult",
        "bank_marketing",
        "dry_bean",
        "fashion",
    ]


def load(name: str):
    """Columns, the one-hot categories behind them, and class codes."""
    if name in BUNDLED:
        return BUNDLED[name](return_X_y=True)
    if name in TABLES:
        return load_made(name)
    sys.path.insert(0, str(SHARED))
    from loaddata import load

    data = load(name)
    X, y = np.asarray(data["X"], dtype=np.float64), data["y"]
    if "C" in data:
        X = np.hstack([X, OneHotEncoder(sparse_output=False).fit_transform(data["C"])])
    return X, np.unique(y, return_inverse=True)[1]


def _some(X, y, seed: int, most: int):
    """So many rows at most, classes in proportion."""
    if len(y) <= most:
        return X, y
    X, _, y, _ = train_test_split(X, y, train_size=most, random_state=seed, stratify=y)
    return X, y


def split(X, y, seed: int, most: int = 10_000, most_tests: int = 10**9):
    """Training rows, so many at most, and 30 % test rows, or so many."""
    counts = np.bincount(y)
    keep = counts[y] > 2  # a class of two rows cannot be on both sides
    X, y = X[keep], np.unique(y[keep], return_inverse=True)[1]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=y)
    X, y = _some(X, y, seed, most)
    X_test, y_test = _some(X_test, y_test, seed, most_tests)
    known = np.isin(y_test, y)
    return X, y, X_test[known], y_test[known]


def measure(estimator, data) -> list[float]:
    """Accuracy, log-loss and the process's seconds of one fit."""
    X, y, X_test, y_test = data
    start = time.process_time()
    with threadpool_limits(1):
        fitted = estimator.fit(X, y)
    taken = time.process_time() - start
    probabilities = fitted.predict_proba(X_test).astype(np.float64)
    probabilities /= probabilities.sum(1, keepdims=True)  # single precision leaves them beside one
    return [fitted.score(X_test, y_test), log_loss(y_test, probabilities, labels=fitted.classes_), taken]


def done(log: Path | None) -> dict:
    """Read results: lists of numbers by set, split and contestant."""
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    return {tuple(key): values for key, values in map(json.loads, lines)}


def run(options, results: dict) -> None:
    """Add what `results` lacks."""
    for name in options.data:
        for seed in range(options.seeds):
            open_ = [of for of in options.of if (name, seed, of) not in results]
            data = split(*load(name), seed, options.rows, options.test_rows) if open_ else ()
            for of in open_:
                found = measure(made(of, seed, ESTIMATORS, "Classifier", globals()), data)
                results[name, seed, of] = found
                if options.log:
                    with options.log.open("a") as file:
                        file.write(json.dumps([(name, seed, of), found]) + "\n")
                print(name, seed, of, "{:.4f}/{:.3f}/{:.1f}s".format(*found), file=sys.stderr, flush=True)


def main(argv=None):
    arguments = parser(__doc__)
    arguments.add_argument("--of", nargs="+", default=list(ESTIMATORS), help="names of estimators, or expressions")
    arguments.add_argument("--data", nargs="+", default=names(), help="data sets")
    arguments.add_argument("--rows", type=int, default=10_000, help="training rows at most")
    arguments.add_argument("--test-rows", type=int, default=10**9, help="test rows at most")
    arguments.add_argument("--seeds", type=int, default=1, help="number of splits")
    arguments.add_argument("--log", type=Path, help="file of results, a line of JSON each")
    options = arguments.parse_args(argv)
    check(options.of)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = done(options.log)
    run(options, found)
    results = {
        of: np.array([[found[name, seed, of] for seed in range(options.seeds)] for name in options.data])
        for of in options.of
    }
    rows = []
    for name, values in results.items():
        mean, geometric = values.mean(1), np.exp(np.log(values[..., 1]).mean())
        rows.append([name, *(f"{v:.4f}" for v in (*mean[:, :2].mean(0), geometric)), float(mean[:, 2].sum())])
    report(
        "defaults",
        f"{len(options.data)} data sets, {options.seeds} splits each, 1 thread",
        ["estimator on raw columns", "mean accuracy", "mean log-loss", "geometric mean", "total seconds"],
        rows,
        options.output,
        sets=json.loads(json.dumps({n: dict(zip(options.data, v.tolist(), strict=True)) for n, v in results.items()})),
    )


if __name__ == "__main__":
    main()
