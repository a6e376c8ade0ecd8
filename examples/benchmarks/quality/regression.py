"""Regressors as they come, on raw columns: R², mean error, seconds and coverage, against peers, over many sets.

The protocol: at most ``--rows`` training rows and 4000 test rows, categories one-hot, one thread, seconds of the
process. The sets are in `regression_data`. Errors are divided by the mean error of the training rows' median.
``--of`` takes names of `ESTIMATORS` and of `peers.PEERS`, or expressions: ``--of mlp RealMLP-TD
"MLPRegressorTorch(alpha=1e-3)"``. With ``--log`` each result is a line of a CSV file, and what is there already is not
done again.
"""

import csv
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import SHARED, parser, report
from peers import check, made
from regression_data import load, names

from skdeep import *  # noqa: F403  # for expressions
from skdeep import MLPEnsembleRegressor, MLPRegressorTorch, Quantile


def _scaled(seed):
    return make_pipeline(StandardScaler(), MLPRegressor(random_state=seed))


ESTIMATORS = {
    "mlp": lambda seed: MLPRegressorTorch(random_state=seed),
    "ensemble": lambda seed: MLPEnsembleRegressor(random_state=seed),
    "quantiles": lambda seed: MLPEnsembleRegressor(loss=Quantile([0.05, 0.5, 0.95]), random_state=seed),
    "MLPRegressor + scaler": _scaled,
    "MLPRegressor + both scaled": lambda seed: TransformedTargetRegressor(_scaled(seed), transformer=StandardScaler()),
    "HistGradientBoosting": lambda seed: HistGradientBoostingRegressor(random_state=seed),
}
FIELDS = ["set", "split", "of", "r2", "mae", "seconds", "coverage", "width"]


def measure(estimator, X, y, X_test, y_test) -> list[float]:
    """Fit, and compute what `FIELDS` has after the names; widths are in standard deviations of the targets."""
    start = time.process_time()
    with threadpool_limits(1):
        estimator.fit(X, y)
    taken = time.process_time() - start
    predicted, coverage, width = estimator.predict(X_test), np.nan, np.nan
    if hasattr(estimator, "predict_interval"):
        low, high = estimator.predict_interval(X_test).T
        coverage, width = ((low <= y_test) & (y_test <= high)).mean(), (high - low).mean() / y.std()
    if predicted.ndim == 2:  # quantiles, of which the middle one
        predicted = predicted[:, predicted.shape[1] // 2]
    error = mean_absolute_error(y_test, predicted) / np.abs(y_test - np.median(y)).mean()
    return [r2_score(y_test, predicted), error, taken, coverage, width]


def done(log: Path | None) -> dict:
    """Read results: lists of numbers by set, split and contestant."""
    if log is None or not log.exists():
        return {}
    with log.open(newline="") as file:
        return {(r["set"], int(r["split"]), r["of"]): [float(r[f]) for f in FIELDS[3:]] for r in csv.DictReader(file)}


def run(options, results: dict) -> None:
    """Add what `results` lacks."""
    for name in options.data:
        for seed in range(options.splits):
            open_ = [of for of in options.of if (name, seed, of) not in results]
            if not open_:
                continue
            X, y = load(name, options.folder)
            n_test = min(4000, max(len(y) // 3, len(y) - options.rows))
            X, X_test, y, y_test = train_test_split(X, y, test_size=n_test, random_state=seed)
            for of in open_:
                estimator = made(of, seed, ESTIMATORS, "Regressor", globals())
                found = measure(estimator, X[: options.rows], y[: options.rows], X_test, y_test)
                results[name, seed, of] = found
                if options.log:
                    new = not options.log.exists()
                    with options.log.open("a", newline="") as file:
                        csv.writer(file).writerows([FIELDS] * new + [[name, seed, of, *(f"{v:.5g}" for v in found)]])
                print(name, seed, of, *(f"{v:.4f}" for v in found), file=sys.stderr, flush=True)


def main(argv=None):
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=SHARED, help="folder of data sets")
    arguments.add_argument("--of", nargs="+", default=list(ESTIMATORS), help="names of estimators, or expressions")
    arguments.add_argument("--data", nargs="+", help="data sets")
    arguments.add_argument("--rows", type=int, default=1500, help="training rows at most")
    arguments.add_argument("--splits", type=int, default=2, help="number of splits")
    arguments.add_argument("--log", type=Path, help="CSV file of results")
    arguments.add_argument("--detail", action="store_true", help="show each set")
    options = arguments.parse_args(argv)
    options.data = options.data or names(options.folder)
    check(options.of)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = done(options.log)
    run(options, results)
    table = np.array([[[results[d, s, of] for s in range(options.splits)] for of in options.of] for d in options.data])
    mean = table.mean(2)  # sets, contestants, fields
    ranks = rankdata(mean[..., :2] * [-1, 1], axis=1).mean(0)
    shown = [
        [
            of,
            *(f"{v:.2f}" for v in ranks[i]),
            f"{np.maximum(mean[:, i, 0], -1).mean():.4f}",
            f"{mean[:, i, 1].mean():.4f}",
            float(mean[:, i, 2].sum()),
            *(f"{v:.3f}" for v in mean[:, i, 3:].mean(0)),
        ]
        for i, of in enumerate(options.of)
    ]
    columns = ["estimator on raw columns", "rank by R²", "by error", "mean R²", "error", "seconds", "coverage", "width"]
    about = f"{len(options.data)} sets of {options.rows} rows at most, {options.splits} splits, 1 thread"
    report("regression", about, columns, shown, options.output)
    if options.detail:
        for d, values in zip(options.data, mean, strict=True):
            print(f"{d:24}", *("{:.4f}/{:.4f}/{:.1f}s/{:.3f}/{:.2f}".format(*v) for v in values))


if __name__ == "__main__":
    main()
