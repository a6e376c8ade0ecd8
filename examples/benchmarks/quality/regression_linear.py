"""Milliseconds of exact linear fits and searches, beside scikit-learn's behind a StandardScaler, of few rows and many.

CPU time of one thread, in rounds that take turns: the least of each. Both end at the same optimum: "above" is the
objective less scikit-learn's, as a part of it (HuberRegressor finds a scale besides, and has another). Up to 442 rows
are the diabetes data, more are drawn: columns in common directions, heavy tails. Targets are in their unit; those of
deviances are exponentials of them, with noise.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn.model_selection
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.metrics import mean_tweedie_deviance
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVR

import skdeep.model_selection
from skdeep import EpsilonInsensitive, Huber, LinearRegressor, Quantile, Tweedie

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import parser, report

EPSILON, LEVEL, STRENGTHS = 0.2, 0.8, np.logspace(-3, 0.5, 9)
EXACT, CLOSE = {"tol": 1e-8, "max_iter": 100_000}, {"tol": 1e-6, "max_iter": 10_000}
#: By name: ours at a strength of the penalty, theirs on n rows at that strength, and the loss of errors, or of which
#: power the variance is of the mean.
MODELS = {
    "LinearRegression": (
        lambda alpha: LinearRegressor(penalty=None),
        lambda alpha, n: LinearRegression(),
        lambda r: r**2 / 2,
    ),
    "Ridge": (lambda alpha: LinearRegressor(alpha=alpha), lambda alpha, n: Ridge(n * alpha), lambda r: r**2 / 2),
    "Lasso": (
        lambda alpha: LinearRegressor(penalty="l1", alpha=alpha),
        lambda alpha, n: Lasso(alpha, **EXACT),
        lambda r: r**2 / 2,
    ),
    "ElasticNet": (
        lambda alpha: LinearRegressor(penalty="elasticnet", l1_ratio=0.5, alpha=alpha),
        lambda alpha, n: ElasticNet(alpha, l1_ratio=0.5, **EXACT),
        lambda r: r**2 / 2,
    ),
    "LinearSVR": (
        lambda alpha: LinearRegressor(EpsilonInsensitive(EPSILON), alpha=alpha, fit_intercept=False),
        lambda alpha, n: LinearSVR(
            epsilon=EPSILON, C=1 / (n * alpha), fit_intercept=False, max_iter=100_000, random_state=0
        ),
        lambda r: np.maximum(np.abs(r) - EPSILON, 0),
    ),
    "HuberRegressor": (
        lambda alpha: LinearRegressor(Huber(), alpha=alpha),
        lambda alpha, n: HuberRegressor(alpha=n * alpha, max_iter=10_000),
        None,
    ),
    "QuantileRegressor": (
        lambda alpha: LinearRegressor(Quantile(LEVEL), penalty="l1", alpha=alpha),
        lambda alpha, n: QuantileRegressor(quantile=LEVEL, alpha=alpha),
        lambda r: np.maximum((1 - LEVEL) * r, -LEVEL * r),
    ),
    "PoissonRegressor": (
        lambda alpha: LinearRegressor("poisson", alpha=alpha),
        lambda alpha, n: PoissonRegressor(alpha=alpha, **CLOSE),
        1,
    ),
    "GammaRegressor": (
        lambda alpha: LinearRegressor("gamma", alpha=alpha),
        lambda alpha, n: GammaRegressor(alpha=alpha, **CLOSE),
        2,
    ),
    "TweedieRegressor": (
        lambda alpha: LinearRegressor(Tweedie(1.5), alpha=alpha),
        lambda alpha, n: TweedieRegressor(power=1.5, link="log", alpha=alpha, **CLOSE),
        1.5,
    ),
}
L1_RATIO = {"Lasso": 1.0, "ElasticNet": 0.5, "QuantileRegressor": 1.0}


def rows_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Take the diabetes data's first rows, or draw some."""
    if n <= 442:
        X, y = (part[:n] for part in load_diabetes(return_X_y=True))
    else:
        generator = np.random.default_rng(0)
        d = 15 if n < 10_000 else 8
        X = generator.normal(size=(n, d)) @ generator.normal(size=(d, d)) * np.exp(generator.normal(size=d)) + 3
        y = (X - X.mean(0)) / X.std(0) @ generator.normal(size=d) + generator.standard_t(4, size=n)
    return StandardScaler().fit_transform(X), (y - y.mean()) / y.std()


def positive(y: np.ndarray, power: float) -> np.ndarray:
    """Draw counts, positive targets, or such of which some are zero, with the exponentials of others for means."""
    generator, mean = np.random.default_rng(1), np.exp(y / 2)
    if power == 1:
        return generator.poisson(mean).astype(float)
    return mean * generator.gamma(2.0, 0.5, len(y)) * (generator.random(len(y)) < (0.7 if power < 2 else 1.0))


def objective(model, name: str, alpha: float, X: np.ndarray, y: np.ndarray) -> float:
    """Compute what both minimise."""
    coef, l1_ratio = np.ravel(model.coef_), L1_RATIO.get(name, 0.0)
    penalty = alpha * (l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * coef @ coef)
    loss, predicted = MODELS[name][2], model.predict(X)
    value = loss(predicted - y).mean() if callable(loss) else mean_tweedie_deviance(y, predicted, power=loss) / 2
    return value + (penalty if name != "LinearRegression" else 0.0)


def least(pair, X: np.ndarray, y: np.ndarray, rounds: int) -> list[float]:
    """Measure the least CPU milliseconds of each of two estimators, which take turns."""
    found = [[], []]
    for _ in range(1 + rounds):
        for side, estimator in zip(found, pair, strict=True):
            start = time.process_time()
            estimator.fit(X, y)
            side.append(1000 * (time.process_time() - start))
    return [min(side) for side in found]


def searches(name: str, n: int) -> tuple:
    """Make searches over nine strengths in five folds."""
    ours, theirs, _ = MODELS[name]
    behind = make_pipeline(StandardScaler(), theirs(1.0, n))
    key = {"LinearSVR": "C"}.get(name, "alpha")
    scale = 1 / n if name == "LinearSVR" else n if name in ("Ridge", "HuberRegressor") else 1.0
    grid = {f"{behind.steps[-1][0]}__{key}": scale * (STRENGTHS ** (-1 if key == "C" else 1))}
    return (
        skdeep.model_selection.GridSearchCV(ours(1.0), {"alpha": STRENGTHS}, cv=5),
        sklearn.model_selection.GridSearchCV(behind, grid, cv=5),
    )


def compare(name: str, n: int, rounds: int, alpha: float) -> list:
    """Measure a row of the table."""
    X, y = rows_of(n)
    ours, theirs, loss = MODELS[name]
    y = y if loss is None or callable(loss) else positive(y, loss)
    pair = ours(alpha), make_pipeline(StandardScaler(), theirs(alpha, n))
    times, above = least(pair, X, y, 10 * rounds), "-"
    if loss is not None:
        values = [objective(model, name, alpha, X, y) for model in (pair[0], pair[1][-1])]
        above = f"{values[0] / values[1] - 1:.0e}"
    of_search = least(searches(name, n), X, y, rounds) if name != "LinearRegression" else [np.nan, np.nan]
    row = [name, n, *times, times[0] / times[1], above, *of_search, of_search[0] / of_search[1]]
    print(*(f"{v:.3g}" if isinstance(v, float) else v for v in row), flush=True)
    return row


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), help="which")
    options.add_argument("--rows", nargs="+", type=int, default=[150, 442, 2000, 20_000], help="numbers of rows")
    options.add_argument("--alpha", type=float, default=0.01, help="strength of the penalty of a single fit")
    given = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # liblinear stops at its limit
    table = [compare(name, n, given.rounds, given.alpha) for name in given.models for n in given.rows]
    columns = ["replaces", "rows", "fit, ms", "theirs", "ratio", "above", "search, ms", "theirs, ms", "ratio of these"]
    report("regression_linear", "CPU time of one thread, least of rounds", columns, table, given.output)


if __name__ == "__main__":
    main()
