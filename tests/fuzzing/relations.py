"""What must hold between two fits."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone

from fuzzing.cases import Case, get, parameters
from fuzzing.checks import answers, demand, demand_close, demand_same_bits, make, untouched
from fuzzing.data import FAITHFUL, SPARSE, Data
from fuzzing.stories import fit
from skdeep.model_selection.stacks import fit_stack, why_alone


def relate(case: Case, data: Data) -> str | None:
    """Fit twice what must be related as the case says; None where that is not defined.

    Raises
    ------
    Refused
        If a fit was refused.
    """
    relation = get(case, "relation")
    if relation is None:
        return None
    return relation if _RELATIONS[relation](case, data) is not False else None


def _fitted(case: Case, data: Data):
    estimator = make(case)
    fit(estimator, case, data)
    return estimator


def _tolerance(case: Case) -> float:
    """How far rounding may lead two fits apart: further where steps are many or coarse, or kinks decide."""
    if get(case, "precision") == "bfloat16":
        return np.inf
    if get(case, "precision") == "float32" or case["estimator"] == "TorchClassifier":
        return 2e-2
    params = parameters(case)
    free = "penalty" in params and (params["penalty"] is None or params["alpha"] == 0)
    return 1e-3 if free else 1e-4  # where nothing holds the scores, two solvers end as far apart as ``tol`` lets them


def _is_tame(case: Case, data: Data) -> bool:
    """Whether rounding is not blown up on the way: Adam divides by it where a gradient is zero."""
    params = parameters(case)
    adaptive = params["solver"] in ("adam", "adamw")
    few = params["max_iter"] <= 20 or params["solver"] in ("exact",)
    steady = "momentum" not in case and "learning_rate_init" not in case and "epsilon" not in case
    plain = (
        get(case, "values") in ("normal", "ties")
        and get(case, "mean") <= 100
        and get(case, "scale") in (1.0, 0.01, 100.0)
    )
    return plain and steady and not adaptive and (few or params["solver"] in ("lbfgs", "auto"))


def _all_in_one_batch(case: Case, n_rows: int) -> bool:
    params = parameters(case)
    full = params["solver"] in ("lbfgs", "exact") or params["batch_size"] == 1000
    limit = 64 if case["estimator"].startswith("MLP") else 200
    return full or (params["batch_size"] == "auto" and n_rows <= limit)


def _refit(case: Case, data: Data):
    first, second = _fitted(case, data), clone(_fitted(case, data))
    fit(second, case, data)
    demand_same_bits(answers(second, data.X), answers(first, data.X), "the same seed gives another model")


def _zero_weights(case: Case, data: Data):
    """Rows of weight zero are as if left out (their classes stay known)."""
    weight = data.weight.copy()
    rng = np.random.default_rng(0)
    keep = rng.random(len(weight)) < 0.7
    if data.codes.ndim == 1:  # the same classes, also in number
        keep[np.unique(data.codes, return_index=True)[1]] = True
    keep &= weight > 0
    if (data.codes.ndim == 1 and len(np.unique(data.codes[keep])) < len(np.unique(data.codes))) or keep.sum() < 2:
        return False
    if not _all_in_one_batch(case, len(weight)) or not _is_tame(case, data):
        return False
    zeroed = data.with_rows(np.arange(len(weight)), np.where(keep, weight, 0.0))
    left = data.with_rows(np.flatnonzero(keep), weight[keep])
    a, b = (answers(_fitted(case, part), data.X) for part in (zeroed, left))
    demand_close(a, b, "rows of weight zero count", _tolerance(case))


def _repetition(case: Case, data: Data):
    counts = 1 + np.random.default_rng(1).integers(3, size=len(data.values))
    if not _all_in_one_batch(case, counts.sum()) or not _is_tame(case, data):
        return False
    rows = np.arange(len(counts))
    weighted, repeated = data.with_rows(rows, counts.astype(float)), data.with_rows(np.repeat(rows, counts), None)
    a, b = (answers(_fitted(case, part), data.X) for part in (weighted, repeated))
    demand_close(a, b, "a weight is not a repetition", _tolerance(case))


def _stacked(case: Case, data: Data):
    alone = make(case)
    if why_alone(alone) is not None or get(case, "validation") is not None or not _is_tame(case, data):
        return False
    others = [clone(alone).set_params(alpha=alpha) for alpha in (0.3, 1e-3)]
    members = [others[0], clone(alone), others[1]]
    fit(alone, case, data)
    with untouched(data.X, data.y, data.sample_weight):
        failures = fit_stack(members, data.X, data.y, data.sample_weight)
    demand(failures[1] is None, "a member of a stack fails where it would not alone", repr(failures[1]))
    a, b = (answers(estimator, data.X) for estimator in (members[1], alone))
    tolerance = _tolerance(case)
    if tolerance < 1e-2:
        tolerance = 1e-8 if b["decision_function"].dtype == np.float64 else 1e-5
        if alone.solver_ == "exact" and case["estimator"] != "LeastSquaresClassifier":
            tolerance = 1e-3  # within a gap of 1e-6
    demand_close(a, b, "a member of a stack ends elsewhere", tolerance)


def _other_names(case: Case, data: Data):
    """Names of classes in the same order mean nothing."""
    if data.codes.ndim == 2 or get(case, "class_weight") == "by label" or get(case, "validation") is not None:
        return False
    if get(case, "scoring") is not None and get(case, "early_stopping"):
        return False  # some scorers know the label 1
    a = answers(_fitted(case, data), data.X)
    b = answers(_fitted(case, data.with_labels("strings" if data.label_names != "strings" else "floats")), data.X)
    del a["predict"], b["predict"]
    demand_same_bits(b, a, "names of classes make a difference")


def _other_columns(case: Case, data: Data):
    params = parameters(case)
    linear = "penalty" in params and params["solver"] in ("auto", "exact", "lbfgs")
    if not linear or get(case, "early_stopping") or get(case, "calibration") or not _is_tame(case, data):
        return False
    a = answers(_fitted(case, data), data.X)
    turned = data.with_columns(lambda values: values[:, ::-1])
    demand_close(
        answers(_fitted(case, turned), turned.X), a, "the order of columns makes a difference", _tolerance(case)
    )


def _other_rows(case: Case, data: Data):
    params = parameters(case)
    if not _all_in_one_batch(case, len(data.values)) or not _is_tame(case, data) or params.get("dropout"):
        return False
    order = np.random.default_rng(2).permutation(len(data.values))
    weight = None if data.sample_weight is None else data.weight[order]
    a = answers(_fitted(case, data), data.X)
    b = answers(_fitted(case, data.with_rows(order, weight)), data.X)
    demand_close(b, a, "the order of rows makes a difference", _tolerance(case))


def _other_container(case: Case, data: Data):
    """The same values in another container: the same model; sparse and dense are other solvers of the same problem.

    Products round by where in memory rows begin, which shows in predictions, and in float32 in training as well.
    """
    if data.container in SPARSE or data.container not in ("array", *FAITHFUL):
        return False
    other = FAITHFUL[get(case, "data_seed") % len(FAITHFUL)]
    changed = data.in_container(other)
    a, b = answers(_fitted(case, data), data.X), answers(_fitted(case, changed), changed.X)
    single = case["estimator"] == "TorchClassifier" or get(case, "precision") in ("float32", "bfloat16")
    what = "another container of the same values makes a difference"
    demand_close(b, a, what, _tolerance(case) if single else _of_products(case))


def _of_products(case: Case) -> float:
    """How far two products of the same rows may differ, of columns so many deviations from zero."""
    return 1e-9 + 30 * np.finfo(np.float64).eps * get(case, "mean")


def _row_by_row(case: Case, data: Data):
    estimator = _fitted(case, data)
    whole = answers(estimator, data.X)
    for i in range(0, len(data.values), max(1, len(data.values) // 4)):
        part = data.with_rows(np.array([i]), None)
        single = answers(estimator, part.X)
        name = "predict_proba" if "predict_proba" in whole else "decision_function"
        a, b = single[name], whole[name][i : i + 1]
        tolerance = 1e-4
        if whole[name].dtype == np.float64 and case["estimator"] != "TorchClassifier":
            tolerance = _of_products(case)
        size = max(1.0, np.abs(whole[name]).max())
        demand(bool(np.abs(a - b).max() <= tolerance * size), "a row alone has other answers", f"{a} instead of {b}")


def _units(case: Case, data: Data):
    """Columns in other units are the same problem where they are standardised (powers of two: the same digits)."""
    params = parameters(case)
    linear = "penalty" in params
    if not params.get("standardize") or data.container not in ("array", "frame", "column-major", "strided"):
        return False
    if linear and (params["alpha"] != "auto" or not params["fit_intercept"] or params["penalty"] not in ("l2", None)):
        return False
    if get(case, "scale") not in (1.0, 0.01, 100.0) or not _is_tame(case, data) or get(case, "calibration"):
        return False
    if get(case, "early_stopping") or case["estimator"] == "MLPEnsembleClassifier":
        return False  # which rows are held out follows from their values
    a = answers(_fitted(case, data), data.X)
    powers = np.random.default_rng(get(case, "data_seed")).choice(
        [-400.0, -100, -20, 0, 3, 20, 100, 400], data.values.shape[1]
    )
    other = data.with_columns(lambda values: values * 2.0**powers)
    b = answers(_fitted(case, other), other.X)
    # of a column that does not vary where rows count, the training cannot know the unit
    a, b = ({name: value[data.weight > 0] for name, value in found.items()} for found in (a, b))
    demand_close(b, a, "the units of the columns make a difference", _tolerance(case))


def _four_times(case: Case, data: Data):
    """All weights times four are the same weights, but for what is defined by their sum."""
    params = parameters(case)
    if "penalty" not in params or params["alpha"] == "auto" or params["calibration"] is not None:
        return False
    rows = np.arange(len(data.values))
    a = answers(_fitted(case, data.with_rows(rows, data.weight)), data.X)
    b = answers(_fitted(case, data.with_rows(rows, 4.0 * data.weight)), data.X)
    if not _is_tame(case, data):
        return False
    demand_close(b, a, "a common factor of the weights makes a difference", _tolerance(case))


_RELATIONS = {
    "refit": _refit,
    "zero weights": _zero_weights,
    "repetition": _repetition,
    "stacked": _stacked,
    "other names": _other_names,
    "other order of columns": _other_columns,
    "other order of rows": _other_rows,
    "other container": _other_container,
    "row by row": _row_by_row,
    "units": _units,
    "weights times four": _four_times,
}
