"""Simulations of what comparisons promise: how often intervals hold the truth, and how often equals are told apart.

Once as the formula takes differences (normal, any two with the correlation ratio / (1 + ratio)), once with models:
linear discriminant analysis of 200 rows that are drawn anew each time, of two classes. Contestants see three columns
that tell the classes apart, and eight of noise of their own, so that all are equals; one sees two columns of the three,
and is worse, by the mean difference over all draws.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from common import parser, report
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skdeep import compare
from skdeep.model_selection import Comparison, paired_difference

COLUMNS = ["differences", "splits", "draws", "coverage of 95 % intervals", "without the correction", "false alarms"]
N_CONTESTANTS, N_NOISE = 4, 8


def normal(rng: np.random.Generator, n_splits: int, ratio: float) -> np.ndarray:
    """Draw scores of contestants (N_CONTESTANTS + 1, n_splits) that are equals."""
    rho, size = ratio / (1 + ratio), (N_CONTESTANTS + 1, n_splits)
    return np.sqrt(rho) * rng.normal(size=(size[0], 1)) + np.sqrt(1 - rho) * rng.normal(size=size)


def by_formula(n_draws: int, n_splits: int, ratio: float) -> list:
    """Make a row of the table of differences as the formula takes them."""
    rng, held, plain, alarms = np.random.default_rng(n_splits), 0, 0, 0
    zeros = np.zeros(n_splits)
    for _ in range(n_draws):
        scores = {f"c{i}": own for i, own in enumerate(normal(rng, n_splits, ratio))}
        found, naive = (paired_difference(scores["c1"], scores["c0"], r) for r in (ratio, 1e-14))
        held += found.low <= 0 <= found.high
        plain += naive.low <= 0 <= naive.high
        seconds = dict.fromkeys(scores, zeros)
        alarms += _alarm(Comparison(list(scores), "c0", {"score": scores}, seconds, seconds, ratio, {"score": 0.0}))
    name = f"normal, {ratio:.3g} test rows per training row"
    return [name, n_splits, n_draws, held / n_draws, plain / n_draws, alarms / n_draws]


def _alarm(found: Comparison) -> bool:
    return any(row["verdict"] in ("better", "worse") for row in found.rows())


def of_models(n_draws: int, n_splits: int, n_repeats: int) -> list[list]:
    """Make rows of the table of models that are trained, equals and one that is worse."""
    names = [f"c{i}" for i in range(N_CONTESTANTS + 1)]
    seen = {name: [0, 1, 2, *range(3 + N_NOISE * i, 3 + N_NOISE * (i + 1))] for i, name in enumerate(names)}
    seen["worse"] = seen["c1"][1:]
    models = {
        name: make_pipeline(
            FunctionTransformer(np.take, kw_args={"indices": columns, "axis": 1}), LinearDiscriminantAnalysis()
        )
        for name, columns in seen.items()
    }
    rng, alarms = np.random.default_rng(0), 0
    pairs: dict[str, list] = {"c1": [], "worse": []}
    for draw in range(n_draws):
        y = np.arange(200) % 2
        X = rng.normal(size=(200, 3 + N_NOISE * len(names)))
        X[:, :3] += 0.5 * y[:, None]
        found = compare(
            models, X, y, cv=RepeatedStratifiedKFold(n_splits=n_splits, n_repeats=n_repeats, random_state=draw)
        )
        for name, own in pairs.items():
            one, other = found.scores["accuracy"][name], found.scores["accuracy"]["c0"]
            own.append([paired_difference(one, other, ratio) for ratio in (found.test_ratio, 1e-14)])
        equals = {"accuracy": {name: found.scores["accuracy"][name] for name in names}}
        found.scores, found.names, found.reference, found.rope = equals, names, "c0", {"accuracy": 0.0}
        alarms += _alarm(found)
    rows = []
    for name, own in pairs.items():
        truth = 0.0 if name == "c1" else np.mean([one.mean for one, _ in own])
        shares = np.mean([[each.low <= truth <= each.high for each in pair] for pair in own], axis=0)
        share = alarms / n_draws if name == "c1" else ""
        rows.append([f"models, {name}: {truth:+.4f}", n_splits * n_repeats, n_draws, *shares, share])
    return rows


def main() -> None:
    """Run the simulations."""
    options = parser(__doc__)
    options.add_argument("--draws", type=int, default=20000, help="of normal differences; a fiftieth of it, of models")
    given = options.parse_args()
    rows = [by_formula(given.draws, *case) for case in ((5, 1 / 4), (10, 1 / 4), (10, 1 / 9), (15, 1 / 2))]
    for folds, repeats in ((5, 1), (5, 2)):
        rows += of_models(max(1, given.draws // 50), folds, repeats)
    report("coverage", "what comparisons promise", COLUMNS, rows, given.output)


if __name__ == "__main__":
    main()
