"""Tune three torch-trained classifiers on images of digits, beside scikit-learn's own.

Each of six classifiers goes through the same pipeline (StandardScaler first), the same split of scikit-learn's 8 x 8
digits, and the same grid search over the strength of its L2 penalty. Each library searches with its own GridSearchCV. A
table is printed, and a picture is drawn: test accuracies, seconds of the searches, cross-validated accuracies along the
grids, and what the softmax classifier looks for in each digit.

Run ``python examples/quickstart.py --help`` for the options.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sklearn.model_selection
from benchmarks.common import report
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

import skdeep.model_selection
from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier

SEED = 0
SEARCHES = {
    "skdeep": skdeep.model_selection.GridSearchCV,
    "scikit-learn": sklearn.model_selection.GridSearchCV,
}
COLORS = {"skdeep": "#0072B2", "scikit-learn": "#E69F00"}  # Okabe & Ito: distinct for colour-blind readers as well
MARKERS = {"skdeep": "o", "scikit-learn": "s"}


def contestants(n_samples: int, n_alphas: int) -> list[dict]:
    """Each classifier of skdeep before its counterpart, with equivalent grids: ``C = 1 / (alpha * n_samples)``.

    Strong penalties come first, as of equal scores a search takes the first.
    """
    linear = np.logspace(-1, -4, 2 * n_alphas - 1)  # a stack of them costs little more than one
    deep = np.logspace(1, -2, n_alphas)  # both MLPs divide it by the batch size

    def entry(library, classifier, alphas, **grid):
        return {"library": library, "classifier": classifier, "alphas": alphas, "grid": grid or {"alpha": alphas}}

    C = 1 / (linear * n_samples)
    return [
        entry("skdeep", SoftmaxClassifier(random_state=SEED), linear),
        entry("scikit-learn", LogisticRegression(max_iter=1000), linear, C=C),
        entry("skdeep", HingeClassifier(random_state=SEED), linear),
        entry("scikit-learn", LinearSVC(max_iter=20_000, random_state=SEED), linear, C=C),
        entry("skdeep", MLPClassifierTorch(random_state=SEED), deep),
        entry("scikit-learn", MLPClassifier(max_iter=1000, random_state=SEED), deep),
    ]


def tune(entry: dict, data, n_folds: int, n_jobs: int) -> dict:
    """Search the grid, refit on all training images, and measure on the test images."""
    X_train, X_test, y_train, y_test = data
    name = type(entry["classifier"]).__name__
    grid = {f"{name.lower()}__{parameter}": values for parameter, values in entry["grid"].items()}
    pipeline = make_pipeline(StandardScaler(), entry["classifier"])
    search = SEARCHES[entry["library"]](pipeline, grid, cv=n_folds, n_jobs=n_jobs)
    start = time.perf_counter()
    search.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    probable = hasattr(search, "predict_proba")
    return {
        **entry,
        "name": name,
        "accuracy": search.score(X_test, y_test),
        "log_loss": log_loss(y_test, search.predict_proba(X_test)) if probable else None,
        "alpha": entry["alphas"][search.best_index_],
        "cv_accuracy": search.best_score_,
        "fit_seconds": search.refit_time_,
        "seconds": seconds,
        "curve": search.cv_results_["mean_test_score"],
        "model": search.best_estimator_[-1],
    }


def row(result: dict) -> dict:
    """Return the line of the table that is about this classifier."""
    loss = result["log_loss"]
    return {
        "classifier": result["name"],
        "library": result["library"],
        "test accuracy": f"{result['accuracy']:.4f}",
        "test log-loss": "-" if loss is None else f"{loss:.3f}",
        "alpha": float(result["alpha"]),
        "CV accuracy": f"{result['cv_accuracy']:.4f}",
        "one fit, s": f"{result['fit_seconds']:.2f}",
        "search, s": f"{result['seconds']:.2f}",
    }


def draw(results: list[dict], path: Path) -> None:
    """Draw accuracies, seconds, curves over the grids, and the softmax classifier's templates."""
    figure = Figure(figsize=(12, 7.6), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.1, 1.1, 0.65])

    names, colors = [r["name"] for r in results], [COLORS[r["library"]] for r in results]
    percent, seconds = [100 * r["accuracy"] for r in results], [r["seconds"] for r in results]
    left, right = top.subplots(1, 2, sharey=True)
    left.bar_label(left.barh(names, percent, color=colors), fmt="%.1f %%", padding=3)
    left.set(xlim=(np.floor(min(percent)) - 2, 100), xlabel="accuracy on the test images, % (axis cut)")
    left.invert_yaxis()
    right.bar_label(right.barh(names, seconds, color=colors), fmt="%.2g s", padding=3)
    right.set(xlim=(0, 1.15 * max(seconds)), xlabel="seconds of the search")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=color, label=library) for library, color in COLORS.items()]
    right.legend(handles=handles, loc="best", frameon=False)

    panels = middle.subplots(1, len(results) // 2, sharey=True)
    for axes, pair in zip(panels, zip(results[::2], results[1::2], strict=True), strict=True):
        for r in pair:
            style = {"color": COLORS[r["library"]], "marker": MARKERS[r["library"]]}
            axes.semilogx(r["alphas"], 100 * r["curve"], **style)
        axes.set(xlabel="alpha", title=f"{pair[0]['name']} and {pair[1]['name']}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("cross-validated accuracy, %")

    templates = results[0]["model"].coef_
    limit = np.abs(templates).max()
    panels = bottom.subplots(1, len(templates))
    for digit, (axes, template) in enumerate(zip(panels, templates, strict=True)):
        image = axes.imshow(template.reshape(8, 8), cmap="PuOr", vmin=-limit, vmax=limit)
        axes.set(title=digit, xticks=[], yticks=[])
    bottom.colorbar(image, ax=panels, label="weight")
    bottom.suptitle("SoftmaxClassifier: the weight of each (standardised) pixel for each digit")
    rows = [row(result) for result in results]
    figure.savefig(path, dpi=110, metadata={"Description": json.dumps(rows)})  # the table that the picture goes with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("quickstart.png"), help="the picture (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="worker processes of the searches (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer candidates and folds, for a first look")
    parser.add_argument("--results", type=Path, help="folder for the table, as a JSON and a Markdown file")
    options = parser.parse_args()

    X, y = load_digits(return_X_y=True)
    data = train_test_split(X, y, test_size=0.25, stratify=y, random_state=SEED)
    n_alphas, n_folds = (2, 2) if options.quick else (4, 3)
    candidates = f"{2 * n_alphas - 1} candidates ({n_alphas} of the networks) x {n_folds} folds"
    sizes = f"{len(data[0])} images to train on, {len(data[1])} to test; {candidates}"
    print(f"{sizes}\n")
    entries, results = contestants(len(data[0]), n_alphas), []
    with threadpool_limits(1):  # one thread for all, here as in the workers: the matrices are small
        for entry in entries[:2]:  # each library's search starts the workers and loads itself before the clock runs
            tune(entry, [part[:300] for part in data], n_folds, options.jobs)
        start = time.perf_counter()
        for entry in entries:
            print(f"{type(entry['classifier']).__name__} ...", end=" ", flush=True)
            results.append(tune(entry, data, n_folds, options.jobs))
            print(f"{results[-1]['seconds']:.2f} s", flush=True)
        rows = [row(result) for result in results]
        what = f"digits, {sizes} in {options.jobs} process{'es' * (options.jobs > 1)}"
        report("quickstart", what, list(rows[0]), [list(r.values()) for r in rows], options.results)
    draw(results, options.output)
    print(f"\nPicture: {options.output}. {time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
