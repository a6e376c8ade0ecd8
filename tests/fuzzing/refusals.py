"""When an estimator may refuse to fit: what a case holds that no training can do anything with."""

from __future__ import annotations

import numpy as np

from fuzzing.cases import MULTILABEL, Case, get, parameters
from fuzzing.data import SPARSE, Data


def may_refuse(case: Case, data: Data) -> bool:
    """Whether a refusal is in order; where it is not, fit must succeed."""
    return any(reason(case, data) for reason in _REASONS)


def usable(values: np.ndarray, case: Case, data: Data) -> bool:
    """Whether no value of some rows is infinite, or missing where the estimator needs it."""
    means_known = parameters(case).get("standardize") or np.isnan(data.values[data.weight > 0]).any()
    takes_nan = means_known and case["estimator"].startswith("MLP") and data.container not in SPARSE
    return not (np.isinf(values).any() or (np.isnan(values).any() and not takes_nan))


def may_refuse_new(case: Case, data: Data) -> bool:
    """Whether predictions for the new rows may be refused."""
    return not usable(data.new, case, data) or _extreme_numbers(case, data) or _ill_conditioned(case, data)


def _is_deep(case: Case) -> bool:
    return case["estimator"] in MULTILABEL - {"SigmoidClassifier"}


def _one_class(case, data):
    there = data.weight > 0
    return not _is_deep(case) and data.codes.ndim == 1 and len(np.unique(data.codes[there])) < 2


def _labels(case, data):
    return data.codes.ndim == 2 and case["estimator"] not in MULTILABEL


def _no_positive_weight(case, data):
    return not (data.weight > 0).any()


def _missing_or_infinite(case, data):
    watched = get(case, "validation") is not None and not usable(data.new, case, data)
    return watched or not usable(data.values, case, data)


def _extreme_numbers(case, data):
    """Beyond what float64 (1e-150 to 1e150) or what float32 can compute with."""
    sizes = np.abs(data.values[np.isfinite(data.values) & (data.values != 0)])
    if not sizes.size:
        return False
    single = data.container in ("float32", "float32 csr", "float16") or get(case, "precision") in (
        "float32",
        "bfloat16",
    )
    single |= case["estimator"] == "TorchClassifier"
    low, high = (1e-15, 1e15) if single else (1e-149, 1e149)
    return sizes.min() < low or sizes.max() > high


def _bins_of_zeros(case, data):
    return parameters(case).get("numeric_embedding") == "piecewise" and data.container in SPARSE


def _ill_conditioned(case, data):
    products = get(case, "solver") == "exact" and data.container in SPARSE  # of rows, which have half the digits
    mixed = get(case, "scale") == "very mixed" or (get(case, "scale") == "mixed" and products)
    return mixed or get(case, "mean") > 1e4 or get(case, "weights") == "wild"


def _penalty_on_tiny_columns(case, data):
    """An alpha of columns as they are, as is one given and "auto" of sparse ones: it may leave nothing of tiny ones."""
    params = parameters(case)
    other = get(case, "story") == "warm with other parameters"
    if params.get("penalty") is None or (params["alpha"] == "auto" and not other and data.container not in SPARSE):
        return False
    sizes = np.std(data.values[data.weight > 0], axis=0)
    automatic = 1 / data.weight.sum() if data.container in SPARSE else 0.0
    alpha = max(automatic if params["alpha"] == "auto" else params["alpha"], 0.1 if other else 0.0)
    sizes, strength = sizes[sizes > 0], 10 * max(alpha, alpha**0.5)
    return bool(sizes.size) and (sizes.max() < 1e-4 * strength or sizes.min() < 1e-14 * strength)


def _may_diverge(case, data):
    raw = not parameters(case).get("standardize", False) or data.container in SPARSE
    raw |= case["estimator"] == "TorchClassifier"
    scaled = get(case, "scale") != 1.0 or get(case, "mean") != 0 or get(case, "values") == "outlier"
    rate = get(case, "learning_rate_init")
    given = rate != "auto" and rate >= 0.5
    noisy = get(case, "momentum") == 0.99 or "epsilon" in case or "beta_2" in case or "beta_1" in case
    spread = get(case, "weights") in (
        "spread",
        "wild",
        "huge",
        "tiny",
        "zeros",
        "counts",
        "one row",
        "a class of zeros",
    )
    steps = get(case, "solver") not in ("lbfgs", "exact")
    return steps and ((raw and scaled) or given or noisy or spread or get(case, "alpha") == 100.0)


def _kinks(case, data):
    solver = get(case, "solver")
    if solver not in ("lbfgs", "exact"):
        return False
    params = parameters(case)
    kinks = params.get("loss") == "hinge" or params.get("multi_class") == "crammer_singer"
    return kinks or params.get("penalty") in ("l1", "elasticnet")


def _solver_and_others(case, data):
    params = parameters(case)
    full = params["solver"] in ("lbfgs", "exact")
    random = params.get("dropout") or params.get("stochastic_depth") or params.get("normalization") == "batch"
    random = random or params.get("module") in ("dropout", "batch norm")
    return full and (
        params["precision"] == "bfloat16" or bool(random) or (params["solver"] == "exact" and params["early_stopping"])
    )


def _nothing_to_hold_out(case, data):
    params = parameters(case)
    holds = (
        params["early_stopping"] or params["calibration"] is not None or case["estimator"] == "MLPEnsembleClassifier"
    )
    if not holds:
        return False
    there = data.weight > 0
    rows = np.unique(np.nan_to_num(np.column_stack([data.values, data.codes]))[there], axis=0)
    codes = data.codes[there]
    counts = np.bincount(codes) if codes.ndim == 1 else np.array([len(codes)])
    few = len(rows) < 12 or (counts[counts > 0] < 4).any()
    return bool(few or params.get("validation_fraction", 0.1) in (0.0, 0.9, 0.5))


def _scoring(case, data):
    params = parameters(case)
    watched = params["early_stopping"] or get(case, "validation") is not None
    watched |= case["estimator"] == "MLPEnsembleClassifier"  # by rows out of fold, whatever ends the training
    return watched and params["scoring"] in (
        "roc_auc",
        "neg_log_loss",
        "calibrated_loss",
        "f1_macro",
        "balanced_accuracy",
    )


def _without_bfloat16(case, data):
    return get(case, "precision") == "bfloat16" and case["estimator"] == "TorchClassifier"


def _validation_of_other_classes(case, data):
    if get(case, "validation") is None or data.codes.ndim == 2:
        return False
    return not set(data.new_codes) <= set(data.codes)


def _class_weight_by_label(case, data):
    if get(case, "class_weight") != "by label":
        return False
    return data.codes.ndim == 2 or set(np.unique(data.codes)) != set(range(get(case, "classes")))


def _class_weight_of_absent(case, data):
    return get(case, "class_weight") is not None and get(case, "weights") in (
        "zeros",
        "counts",
        "one row",
        "a class of zeros",
        "wild",
    )


def _module_without(case, data):
    if case["estimator"] != "TorchClassifier":
        return False
    one_row = get(case, "module") == "batch norm" and get(case, "batch_size") == 1
    return one_row or get(case, "module") in ("no parameters", "embedding")


_REASONS = [
    value for name, value in list(globals().items()) if name.startswith("_") and callable(value) and name != "_is_deep"
]
