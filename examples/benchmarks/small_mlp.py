"""MLPClassifierTorch as it comes beside MLPClassifier behind a StandardScaler, on small and medium data.

Seconds are those of the process on one thread, the least of ``--rounds`` fits that alternate; log-loss is of held-out
rows. Both are means over splits, those of ``quality/defaults.py``. ``--data`` takes the names that it has, ``--rows``
allows more rows to train on than its 10 000.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "quality"))

from common import parser, report
from defaults import BUNDLED, load, names, split

from skdeep import MLPClassifierTorch

MAKERS = {
    "MLPClassifierTorch": lambda seed: MLPClassifierTorch(random_state=seed),
    "MLPClassifier": lambda seed: make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)),
}


def measure(data, seed: int, rounds: int) -> np.ndarray:
    """Seconds of a fit, log-loss and accuracy of each contestant, (contestants, 3)."""
    X, y, X_test, y_test = data
    results = np.full((len(MAKERS), 3), np.inf)
    for _ in range(rounds):
        for i, make in enumerate(MAKERS.values()):
            start = time.process_time()
            fitted = make(seed).fit(X, y)
            taken = time.process_time() - start
            loss = log_loss(y_test, fitted.predict_proba(X_test), labels=fitted.classes_)
            results[i] = min(results[i, 0], taken), loss, fitted.score(X_test, y_test)
    return results


def table(data_names: list[str], seeds: int, rounds: int, most: int) -> list[list]:
    """A row for each data set: its training rows, seconds of both, their ratio, log-losses and accuracies."""
    rows = []
    for name in data_names:
        parts = [split(*load(name), seed, most) for seed in range(seeds)]
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (ours, loss, accuracy), (peers, peers_loss, peers_accuracy) = np.mean(
                [measure(part, seed, rounds) for seed, part in enumerate(parts)], axis=0
            ).tolist()
        scores = (f"{value:.4f}" for value in (loss, peers_loss, accuracy, peers_accuracy))
        rows.append([name.removeprefix("pmlb/"), len(parts[0][1]), ours, peers, ours / peers, *scores])
        print(*rows[-1], file=sys.stderr, flush=True)
    return rows


COLUMNS = ["data", "rows", "s", "s, MLPClassifier", "ratio", "log-loss", "its log-loss", "accuracy", "its accuracy"]


def main(argv=None):
    arguments = parser(__doc__)
    arguments.add_argument("--data", nargs="+", default=[*BUNDLED, *(set(names()) - set(BUNDLED))], help="data sets")
    arguments.add_argument("--seeds", type=int, default=3, help="number of splits")
    arguments.add_argument("--rows", type=int, default=10_000, help="training rows, at most")
    options = arguments.parse_args(argv)
    torch.set_num_threads(1)
    rows = table(options.data, options.seeds, options.rounds, options.rows)
    report("small_mlp", f"{options.seeds} splits each, 1 thread, CPU time", COLUMNS, rows, options.output)


if __name__ == "__main__":
    main()
