"""Comparisons of models beside a loop of ``cross_validate``, and beside what other packages have for it.

The same contestants on the same splits (5 folds, twice, of breast_cancer; of values, of diabetes), CPU seconds of one
thread, the fastest of some rounds; a first call is made before. Other packages want other versions of scikit-learn:
each is measured in an interpreter of its own, on contestants of scikit-learn's, beside a loop of ``cross_validate``
there ::

    python -m venv lazy && lazy/bin/pip install lazypredict
    python examples/benchmarks/compare.py --with lazypredict=lazy/bin/python --with skore=other/bin/python

What is not named, or cannot be imported there, is left out, with a word.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CV = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
#: Contestants that all packages take.
THEIRS = {
    "logreg": make_pipeline(StandardScaler(), LogisticRegression()),
    "lda": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
}
METRICS = ["accuracy", "balanced_accuracy", "roc_auc", "neg_log_loss"]
COLUMNS = ["tool", "seconds", "loop of cross_validate, s", "ratio", "splits", "what it shows"]


def fastest(call: Callable, rounds: int) -> float:
    """CPU seconds of a call, after a first one."""
    call()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def loop(models: dict, X: Any = X, Y: Any = Y, cv: Any = CV, scoring: list | None = None) -> list:
    """What the packages stand in for."""
    return [cross_validate(model, X, Y, cv=cv, scoring=scoring) for model in models.values()]


# ---- other packages: a call, and the columns of the table that comes of it -------------------------------------------


def lazypredict() -> tuple[Callable, str]:
    """LazyPredict, once for each split: it knows one, and takes classes, which it puts behind steps of its own."""
    from lazypredict.Supervised import LazyClassifier

    def call() -> list[str]:
        for train, test in CV.split(X, Y):
            lazy = LazyClassifier(
                verbose=0, classifiers=[LogisticRegression, LinearDiscriminantAnalysis], n_jobs=1, random_state=0
            )
            table, _ = lazy.fit(X.iloc[train], X.iloc[test], Y.iloc[train], Y.iloc[test])
        return list(table.columns)

    return call, "one; no spread, no tests"


def skore() -> tuple[Callable, str]:
    """Reports of skore on the same splits."""
    from skore import ComparisonReport, CrossValidationReport

    def call() -> list[str]:
        reports = {name: CrossValidationReport(model, X, Y, splitter=CV) for name, model in THEIRS.items()}
        table = ComparisonReport(reports).metrics.summarize().frame()
        return [*map(str, table.columns), "of", *map(str, table.index)]

    return call, "the same; means and deviations, not paired"


def pycaret() -> tuple[Callable, str]:
    """PyCaret, on the folds it makes of the splitter on almost all rows: it holds some out in any case."""
    from pycaret.classification import ClassificationExperiment

    def call() -> list[str]:
        experiment = ClassificationExperiment()
        experiment.setup(
            X.assign(target=Y),
            target="target",
            fold_strategy=CV,
            train_size=0.99,
            session_id=0,
            n_jobs=1,
            verbose=False,
        )
        experiment.compare_models(include=["lr", "lda"], verbose=False)
        return list(experiment.pull().columns)

    return call, "its own; means, not paired"


OTHERS = {"lazypredict": lazypredict, "skore": skore, "pycaret": pycaret}


def measure(name: str, rounds: int) -> dict:
    """Measure one of the other packages, in this interpreter."""
    call, splits = OTHERS[name]()
    seconds, reference, shown = fastest(call, rounds), fastest(lambda: loop(THEIRS), rounds), call()
    return {"seconds": seconds, "loop": reference, "splits": splits, "shows": ", ".join(shown)}


# ---- ours ------------------------------------------------------------------------------------------------------------


def ours(rounds: int, words: list[str]) -> list[list]:
    """Rows of `skdeep.compare`, for several lists of contestants, in whose names is one of some words."""
    from skdeep import (
        HingeClassifier,
        LeastSquaresClassifier,
        LinearRegressor,
        MLPClassifierTorch,
        MLPRegressorTorch,
        SigmoidClassifier,
        SoftmaxClassifier,
        compare,
    )
    from skdeep.model_selection.contestants import DEFAULTS, default_contestants

    seed = {"random_state": 0}
    defaults = default_contestants(X, Y, [name for name in DEFAULTS if name != "ensemble"])
    lists = {
        "softmax": {"softmax": SoftmaxClassifier(**seed)},
        "softmax, 3 penalties": {str(a): SoftmaxClassifier(alpha=a, **seed) for a in (1e-4, 1e-3, 1e-2)},
        "linear models": {
            "softmax": SoftmaxClassifier(**seed),
            "sigmoid": SigmoidClassifier(**seed),
            "hinge": HingeClassifier(**seed),
            "least squares": LeastSquaresClassifier(**seed),
        },
        "softmax behind a scaler": {"softmax": make_pipeline(StandardScaler(), SoftmaxClassifier(**seed))},
        "linear models behind a scaler": {},
        "MLP": {"mlp": MLPClassifierTorch(**seed)},
        "MLP, early stopping": {"mlp": MLPClassifierTorch(early_stopping=True, **seed)},
        "MLP behind a scaler": {"mlp": make_pipeline(StandardScaler(), MLPClassifierTorch(**seed))},
        "scikit-learn's logreg, lda": THEIRS,
        "scikit-learn's naive Bayes, neighbours, lda": {
            "bayes": GaussianNB(),
            "neighbours": KNeighborsClassifier(),
            "lda": LinearDiscriminantAnalysis(),
        },
        "scikit-learn's ridge, lasso of values": {"ridge": Ridge(), "lasso": Lasso(0.1)},
        "default contestants, but the ensemble": defaults,
        "linear model of values": {"linear": LinearRegressor(**seed)},
        "linear model of values behind a scaler": {"linear": make_pipeline(StandardScaler(), LinearRegressor(**seed))},
        "MLP of values": {"mlp": MLPRegressorTorch(**seed)},
    }
    behind = lists["linear models behind a scaler"]
    behind |= {name: make_pipeline(StandardScaler(), model) for name, model in lists["linear models"].items()}
    of_several = ("softmax", "MLP", "scikit-learn's logreg, lda")
    of_arrays = [name for name in lists if "values" not in name and "default" not in name]
    of_values = (*load_diabetes(return_X_y=True), RepeatedKFold(n_splits=5, n_repeats=2, random_state=0))
    rows = []
    cases: list[tuple] = [(name, None, False) for name in lists] + [(name, METRICS, False) for name in of_several]
    for name, scoring, as_array in [*cases, *((name, None, True) for name in of_arrays)]:
        if not any(word in name for word in words):
            continue
        models = lists[name]
        x, y, cv = of_values if "values" in name else (X.to_numpy(), Y.to_numpy(), CV) if as_array else (X, Y, CV)
        seconds = fastest(partial(compare, models, x, y, cv=cv, scoring=scoring), rounds)
        reference = fastest(partial(loop, models, x, y, cv, scoring), rounds)
        columns = map(str, compare(models, x, y, cv=cv).frame().columns)
        shown = "the same" if rows else ", ".join(columns)
        tool = f"skdeep.compare: {name}" + (", four metrics" * bool(scoring)) + ", of an array" * as_array
        rows.append([tool, seconds, reference, seconds / reference, "the same, paired", shown])
        print(*rows[-1][:4], flush=True)
    return rows


def main() -> None:
    """Measure what there is."""
    from common import parser, report

    options = parser(__doc__)
    wanted = {"action": "append", "default": [], "metavar": "NAME=PYTHON", "dest": "others"}
    options.add_argument("--with", **wanted, help=f"an interpreter that has one of {', '.join(OTHERS)}")
    options.add_argument("--of", nargs="+", default=[""], metavar="WORD", help="lists of contestants with such a name")
    given = options.parse_args()
    rows = ours(given.rounds, given.of)
    interpreters = dict(pair.split("=", 1) for pair in given.others)
    for name in OTHERS:
        if name not in interpreters:
            print(f"{name} is left out: name an interpreter that has it, --with {name}=PYTHON.")
            continue
        command = [interpreters[name], str(Path(__file__).resolve()), "--measure", name, str(given.rounds)]
        with TemporaryDirectory() as folder:  # for what some write
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        ratio = found["seconds"] / found["loop"]
        rows.append([name, found["seconds"], found["loop"], ratio, found["splits"], found["shows"]])
    report("compare", "breast_cancer, 5 folds twice, CPU time of one thread", COLUMNS, rows, given.output)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
