"""What is drawn: estimator, parameters, data and order of calls, as a dictionary of what is not the simplest choice.

Hypothesis, the long run and its shrinking all read the same tables. The first option of each is the simplest one, and
what a case without the key has: the empty case is the simplest of all, and a smaller example is one with fewer keys.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

Case = dict[str, Any]


class Options(NamedTuple):
    """The values of a key, and the share of cases that have another than the first."""

    values: list
    others: float


def _of(others: float, *values) -> Options:
    return Options(list(values), others)


DATA = {
    "data_seed": _of(1, *range(200)),
    "rows": _of(1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 20, 20, 30, 30, 40, 40, 40, 60, 60, 300),
    "columns": _of(1, 1, 2, 3, 4, 5, 8, 15, 40),
    "values": _of(0.5, "normal", "ties", "binary", "one-hot", "constant", "zeros", "copies", "collinear", "outlier"),
    "signal": _of(0.6, "linear", "none", "separable", "xor", "rare"),
    "repeated_rows": _of(0.2, False, True),
    "scale": _of(
        0.25,
        1.0,
        0.01,
        100.0,
        1e-4,
        1e4,
        1e-8,
        1e8,
        1e-20,
        1e20,
        1e-60,
        1e60,
        1e-140,
        1e140,
        1e-200,
        1e200,
        1e300,
        1e-300,
        1e-310,
        "mixed",
        "very mixed",
    ),
    "mean": _of(0.2, 0.0, 3.0, 100.0, 1e4, 1e6, 1e8, 1e12),
    "missing": _of(0.08, None, "some", "a column", "a row"),
    "classes": _of(0.6, 2, 3, 3, 4, 4, 7, 7, 1),
    "labels": _of(0.4, "integers", "strings", "objects", "booleans", "floats", "negative", "list", "indicators"),
    "container": _of(
        0.4,
        "array",
        "float32",
        "csr",
        "frame",
        "csc",
        "column-major",
        "integers",
        "list",
        "read-only",
        "strided",
        "tensor",
        "float32 csr",
        "float16",
        "bytes",
        "big-endian",
    ),
    "weights": _of(
        0.35,
        None,
        "ones",
        "uniform",
        "zeros",
        "counts",
        "a class of zeros",
        "one row",
        "sum to one",
        "tiny",
        "huge",
        "spread",
        "wild",
        "float32",
        "list",
    ),
    "validation": _of(0.08, None, "rows", "weighted rows"),
    "story": _of(
        0.35,
        "fit",
        "fit twice",
        "fit something else, fit",
        "fit, fail, predict",
        "warm",
        "warm with other labels",
        "warm with other rows",
        "warm with other parameters",
        "warm after pickle",
        "partial_fit",
        "fit, partial_fit",
        "partial_fit after pickle",
        "partial_fit, fail, partial_fit",
    ),
    "relation": _of(
        0.6,
        None,
        "refit",
        "zero weights",
        "repetition",
        "stacked",
        "other names",
        "other order of columns",
        "other order of rows",
        "other container",
        "row by row",
        "units",
        "weights times four",
    ),
}

_SHARED = {
    "alpha": _of(0.4, "auto", 0.01, 0.0, 1.0, 1e-6, 100.0),
    "learning_rate_init": _of(0.1, "auto", 0.01, 0.5, 1e-4, 50.0),
    "power_t": _of(0.03, 0.5, 0.0, 2.0),
    "warmup_epochs": _of(0.05, 0, 2, 0.5),
    "max_grad_norm": _of(0.08, None, 1.0, 1e-3),
    "momentum": _of(0.1, 0.9, 0.0, 0.99),
    "nesterovs_momentum": _of(0.1, True, False),
    "beta_1": _of(0.04, 0.9, 0.0),
    "beta_2": _of(0.04, 0.999, 0.0, 0.9),
    "epsilon": _of(0.04, 1e-8, 0.1, 1e-300),
    "batch_size": _of(0.3, "auto", 1, 2, 7, 1000),
    "tol": _of(0.15, 1e-4, 0.0, 0.01, 1e-9),
    "n_iter_no_change": _of(0.15, 5, 1, math.inf),
    "max_fun": _of(0.03, 15000, 1, 10),
    "shuffle": _of(0.1, True, False),
    "early_stopping": _of(0.15, False, True),
    "validation_fraction": _of(0.08, 0.1, 0.5, 0.9, 0.0),
    "scoring": _of(0.12, None, "loss", "calibrated_loss", "f1_macro", "neg_log_loss", "roc_auc", "balanced_accuracy"),
    "class_weight": _of(0.15, None, "balanced", "by label"),
    "random_state": _of(0.2, 0, 1),
    "precision": _of(0.15, "auto", "float64", "float32", "bfloat16"),
}
_LINEAR = {
    "penalty": _of(0.3, "l2", None, "l1", "elasticnet"),
    **_SHARED,
    "l1_ratio": _of(0.1, 0.15, 0.0, 1.0),
    "fit_intercept": _of(0.15, True, False),
    "standardize": _of(0.2, True, False),
    "solver": _of(0.45, "auto", "lbfgs", "sgd", "adam", "adamw"),
    "learning_rate": _of(0.12, "auto", "constant", "invscaling", "adaptive", "cosine"),
    "max_iter": _of(0.35, 200, 5, 1, 2, 20),
    "calibration": _of(0.2, None, "temperature", "sigmoid"),
}
_CROSS_ENTROPY = _LINEAR | {"label_smoothing": _of(0.08, 0.0, 0.1, 1.0)}
_DEEP = _SHARED | {
    "alpha": _of(0.25, 0.01, 0.0, 1.0, 1e-6, 100.0),
    "learning_rate_init": _of(0.4, 0.003, 0.05, 0.05, 0.05, 1.0, 1e-5, 50.0),
    "learning_rate": _of(0.15, "cosine", "constant", "invscaling", "adaptive"),
    "solver": _of(0.35, "adam", "lbfgs", "sgd", "adamw"),
    "max_iter": _of(0.9, 3, 1, 2, 5, 8, 12, 20, 60, 200),
}
_PERCEPTRON = _DEEP | {
    "hidden_layer_sizes": _of(0.5, [4], [], [3, 3], [1], [5, 2, 5], 6),
    "activation": _of(
        0.4, "relu", "identity", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "tanh", "logistic", "maxout"
    ),
    "normalization": _of(0.2, None, "layer", "batch"),
    "dropout": _of(0.15, 0.0, 0.2, 0.9),
    "stochastic_depth": _of(0.12, None, 0.0, 0.3, 0.9),
    "standardize": _of(0.2, True, False),
    "column_learning_rate": _of(0.2, 3.0, 0.0, 15.0, 100.0),
    "numeric_embedding": _of(0.2, None, "auto", "piecewise"),
    "n_bins": _of(0.1, "auto", 2, 5),
    "label_smoothing": _of(0.08, 0.0, 0.1, 1.0),
    "learning_rate": _of(0.15, "auto", "constant", "invscaling", "adaptive", "cosine"),
}
#: Not among an ensemble's parameters.
_NOT_OF_ENSEMBLES = {"validation_fraction"}

PARAMETERS: dict[str, dict[str, Options]] = {
    "SoftmaxClassifier": _CROSS_ENTROPY,
    "SigmoidClassifier": _CROSS_ENTROPY,
    "HingeClassifier": {
        **_LINEAR,
        "loss": _of(0.5, "hinge", "squared_hinge"),
        "multi_class": _of(0.6, "weston_watkins", "crammer_singer", "ovr"),
        "calibration": _of(0.5, None, "temperature", "sigmoid"),
        "max_iter": _of(0.8, 200, 5, 1, 2, 20),
    },
    "LeastSquaresClassifier": {
        **_LINEAR,
        "alpha": _of(0.5, 1e-4, 0.0, 0.1, 1e-9, 100.0),
        "penalty": _of(0.15, "l2", None, "l1", "elasticnet"),
        "solver": _of(0.4, "exact", "lbfgs", "sgd", "adam", "adamw"),
        "calibration": _of(0.5, None, "temperature", "sigmoid"),
    },
    "MLPClassifierTorch": _PERCEPTRON | {"calibration": _of(0.12, None, "temperature", "sigmoid")},
    "MLPEnsembleClassifier": {
        **{key: options for key, options in _PERCEPTRON.items() if key not in _NOT_OF_ENSEMBLES},
        "n_estimators": _of(0.5, 2, 3, 5),
        "calibration": _of(0.5, "temperature", None, "sigmoid"),
        "early_stopping": _of(0.3, True, False),
        "learning_rate": _of(0.15, "cosine", "constant", "invscaling", "adaptive"),
    },
    "TorchClassifier": {
        **_DEEP,
        "module": _of(
            0.7,
            "linear",
            "perceptron",
            "lazy",
            "batch norm",
            "dropout",
            "layer norm",
            "own state",
            "frozen part",
            "scalar",
            "no parameters",
            "embedding",
            "recurrent",
            "tied",
            "keeps its activations",
            "float buffer",
        ),
        "learning_rate": _of(0.15, "constant", "invscaling", "adaptive", "cosine"),
        "calibration": _of(0.12, None, "temperature"),
    },
}
_COMPARED = {
    "zero weights",
    "repetition",
    "stacked",
    "other order of columns",
    "other order of rows",
    "units",
    "weights times four",
}
_WHOLE = {"zero weights", "repetition", "other order of rows"}
_OF_COLUMNS = {"other order of columns", "units"}
_ROUGH = {"momentum", "learning_rate_init", "epsilon", "scale", "mean", "validation", "precision"}
#: How often each is drawn, in parts: those that take another path through the code with each of many options more.
SHARES = {
    "SoftmaxClassifier": 5,
    "SigmoidClassifier": 3,
    "HingeClassifier": 4,
    "LeastSquaresClassifier": 3,
    "MLPClassifierTorch": 5,
    "MLPEnsembleClassifier": 2,
    "TorchClassifier": 3,
}
#: A class that says what the table of parameters does not: whether y may be a matrix of label indicators.
MULTILABEL = {"SigmoidClassifier", "MLPClassifierTorch", "MLPEnsembleClassifier", "TorchClassifier"}


def options_of(estimator: str) -> dict[str, Options]:
    """All keys that a case of this estimator may have."""
    return DATA | PARAMETERS[estimator]


def get(case: Case, key: str):
    """The value of a key, which is the simplest one where the case says nothing."""
    return case[key] if key in case else options_of(case["estimator"])[key].values[0]


def parameters(case: Case) -> dict[str, Any]:
    """All parameters of the estimator, by name."""
    return {key: get(case, key) for key in PARAMETERS[case["estimator"]]}


def suited(case: Case) -> Case:
    """The case without what makes its relation hold only roughly, or not at all, and without keys that say nothing.

    Rounding is led far apart by Adam, which divides by it, by long steps and by columns that hardly vary.
    """
    case, relation = dict(case), case.get("relation")
    if relation in _COMPARED:
        case = {key: value for key, value in case.items() if key not in _ROUGH}
        if case.get("values") not in (None, "ties"):
            del case["values"]
        if case.get("weights") == "wild":  # rows of no weight are beyond the digits of the others
            del case["weights"]
        if get(case, "solver") != "lbfgs" or "penalty" not in PARAMETERS[case["estimator"]]:
            case["max_iter"] = min(20, get(case, "max_iter"))
        if case.get("multi_class") == "crammer_singer":  # rounding decides which of two equal margins is the worst
            del case["multi_class"]
        if get(case, "solver") in ("adam", "adamw"):
            case["solver"] = "sgd"
        if case.get("loss") == "squared_hinge" and case.get("alpha") == 0.0:  # whose optimum is flat
            del case["alpha"]
        if isinstance(case.get("batch_size"), int) and relation in _WHOLE:
            case["batch_size"] = 1000
    if relation in _OF_COLUMNS:
        case = {
            key: value for key, value in case.items() if key not in {"early_stopping", "calibration", "standardize"}
        }
    if relation == "units":
        unfit = {"dropout", "stochastic_depth"}  # the order of rows that are all one batch follows from their values
        if "penalty" in options_of(case["estimator"]):
            unfit |= {"alpha", "fit_intercept", "penalty"}
        case = {key: value for key, value in case.items() if key not in unfit | {"container"}}
    if relation == "weights times four":
        # a weight counts rows, down to the smallest where that is less than one: for priors, and for what is divided
        case["calibration"], case["early_stopping"] = None, False
        if get(case, "alpha") == "auto":
            case["alpha"] = 0.01
    options = options_of(case["estimator"])
    return {key: value for key, value in case.items() if key == "estimator" or value != options[key].values[0]}


def draw(generator: np.random.Generator, estimator: str | None = None) -> Case:
    """A case from a NumPy generator, for the long run."""
    names = [name for name, share in SHARES.items() for _ in range(share)] if estimator is None else [estimator]
    case: Case = {"estimator": names[generator.integers(len(names))]}
    for key, (values, others) in options_of(case["estimator"]).items():
        if generator.random() < others:
            case[key] = values[generator.integers(len(values))]
    return suited(case)


def cases(estimator: str):
    """A strategy for the cases of one estimator."""

    def option(values, others):
        # hypothesis takes its first alternatives more often than their share, and shrinks towards them
        n_first = round((1 / max(others, 0.02) - 1) * 2)
        return st.sampled_from([values[0]] * n_first + values * 2) if n_first else st.sampled_from(values)

    keys = {key: option(*options) for key, options in options_of(estimator).items()}
    return st.fixed_dictionaries(keys).map(lambda case: suited({"estimator": estimator, **case}))


def smaller(case: Case):
    """Cases that are a step simpler: without a key, or with a simpler value of it."""
    own = [key for key in case if key != "estimator"]
    for key in own:
        yield {k: v for k, v in case.items() if k != key}
    for key in own:
        values = options_of(case["estimator"])[key].values
        place = values.index(case[key])
        for value in values[1:place] if place < 20 else values[1 : place : place // 8]:
            yield case | {key: value}
