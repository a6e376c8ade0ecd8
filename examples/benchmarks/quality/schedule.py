"""How many epochs, at which learning rate: schedules of MLPClassifierTorch on training sets of all sizes.

A recipe is ``epochs,steps,rate``: one cosine over so many epochs, or over as many as take so many steps if these are
more. Sets, splits and columns are those of ``defaults.py``; ``--rows`` allows more training rows, ``--parameters`` are
others of the classifier's. Seconds are those of the process on one thread.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import parser, report
from defaults import load, names, split

from skdeep import MLPClassifierTorch

RECIPES = ["60,500,.003", "20,170,.012", "15,125,.012", "15,125,.018"]


def classifier(recipe: str, n_rows: int, seed: int, parameters: dict) -> MLPClassifierTorch:
    """The classifier whose training is one cosine by the recipe."""
    epochs, steps, rate = map(float, recipe.split(","))
    rows = parameters.get("batch_size") or int(np.clip(n_rows // 100, 64, 256))
    epochs = int(max(epochs, -(-steps // -(-n_rows // rows))))
    plan = {"learning_rate": "cosine", "max_iter": epochs, "learning_rate_init": rate, "n_iter_no_change": np.inf}
    return MLPClassifierTorch(random_state=seed, **plan | parameters)


def measure(recipe: str, data, seed: int, parameters: dict) -> tuple[float, float, float]:
    """Accuracy, log-loss and seconds of one fit."""
    X, y, X_test, y_test = data
    start = time.process_time()
    fitted = classifier(recipe, len(y), seed, parameters).fit(X, y)
    taken = time.process_time() - start
    probabilities = fitted.predict_proba(X_test)
    return fitted.score(X_test, y_test), log_loss(y_test, probabilities, labels=fitted.classes_), taken


def main(argv=None):
    arguments = parser(__doc__)
    arguments.add_argument("--recipes", nargs="+", default=RECIPES, help="of which the first is the bar")
    arguments.add_argument("--data", nargs="+", default=names(), help="data sets")
    arguments.add_argument("--seeds", type=int, default=3, help="number of splits")
    arguments.add_argument("--rows", type=int, default=10_000, help="training rows, at most")
    arguments.add_argument("--parameters", default="{}", help="a dict, of parameters of the classifier")
    options = arguments.parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parameters = eval(options.parameters)
    results = np.full((len(options.recipes), len(options.data), options.seeds, 3), np.nan)
    for i, name in enumerate(options.data):
        X, y = load(name)
        for seed in range(options.seeds):
            data = split(X, y, seed, options.rows)
            for j, recipe in enumerate(options.recipes):
                with threadpool_limits(1):
                    results[j, i, seed] = measure(recipe, data, seed, parameters)
        line = "  ".join("{:.4f}/{:.4f}/{:.2f}s".format(*result[i].mean(0)) for result in results)
        print(f"{i + 1}/{len(options.data)} {name:28} {line}", file=sys.stderr, flush=True)
    losses = results[..., 1]
    rows = []
    for recipe, values in zip(options.recipes, results, strict=True):
        accuracy, loss, _ = values.mean((0, 1))
        better = f"{int((values[..., 1] < losses[0]).sum())} of {losses[0].size}"
        rows.append([recipe, f"{accuracy:.4f}", f"{loss:.4f}", float(values[..., 2].sum()), better])
    given = f", {parameters}" if parameters else ""
    report(
        "schedule",
        f"{len(options.data)} data sets, {options.seeds} splits each, {options.rows} rows at most{given}, 1 thread",
        ["epochs,steps,rate", "mean accuracy", "mean log-loss", "total seconds", "lower log-loss"],
        rows,
        options.output,
        sets=json.loads(json.dumps(dict(zip(options.recipes, results.tolist(), strict=True)))),
    )


if __name__ == "__main__":
    main()
