"""What is done with an estimator: in which order it is fitted, fitted on, pickled and asked."""

from __future__ import annotations

import pickle

import numpy as np
from sklearn.base import clone

from fuzzing.cases import Case, get
from fuzzing.checks import (
    Refused,
    answers,
    check_message,
    demand,
    demand_same_bits,
    frozen,
    make,
    untouched,
)
from fuzzing.data import Data


def fit(estimator, case: Case, data: Data, method: str = "fit") -> list:
    """Call fit or partial_fit; a refusal has to say why, and to leave the estimator as it was. Returns the warnings."""
    arguments = {} if data.sample_weight is None else {"sample_weight": data.sample_weight}
    if method == "partial_fit":
        if not hasattr(estimator, "classes_"):
            n_classes = max(2, get(case, "classes"))
            if data.codes.ndim == 1:
                from fuzzing.data import labelled

                there = np.arange(n_classes) if data.codes.max() < n_classes else np.arange(data.codes.max() + 1)
                arguments["classes"] = np.unique(labelled(there, data.label_names))
            else:
                arguments["classes"] = np.arange(data.codes.shape[1])
    elif (kind := get(case, "validation")) is not None:
        from fuzzing.data import labelled

        arguments |= {"X_val": data.X_new, "y_val": labelled(data.new_codes, data.label_names)}
        if kind == "weighted rows":
            arguments["sample_weight_val"] = np.arange(len(data.new), dtype=float)
    before = frozen(vars(estimator))
    try:
        with untouched(data.X, data.y, data.sample_weight) as caught:
            getattr(estimator, method)(data.X, data.y, **arguments)
    except (ValueError, TypeError) as error:
        check_message(error, estimator)
        demand(frozen(vars(estimator)) == before, "a refused fit left something behind", repr(error))
        raise Refused(str(error)) from error
    return caught


def _others(case: Case, data: Data) -> Data:
    """Other labels on the same rows: the classes take turns."""
    if data.codes.ndim == 2:
        return data.with_rows(np.arange(len(data.values)), data.sample_weight)
    import copy

    from fuzzing.data import labelled

    other = copy.copy(data)
    other.codes = (data.codes + 1) % (data.codes.max() + 1)
    other.y = labelled(other.codes, data.label_names)
    return other


def _fails(estimator, case: Case, data: Data, method: str) -> None:
    """A call that has to be refused."""
    bad = data.with_columns(lambda values: np.where(np.arange(values.shape[1]) == 0, np.inf, values)).in_container(
        "array"
    )
    before = answers(estimator, data.X)
    try:
        fit(estimator, case, bad, method)
    except Refused:
        demand_same_bits(answers(estimator, data.X), before, "a refused fit changes the answers")
    else:
        demand(False, "infinite values were accepted")


def play(case: Case, data: Data) -> tuple[object, list, bool]:
    """Do what the case says; the estimator, the warnings of its last fit, and whether that was a plain one.

    Raises
    ------
    Refused
        If a fit was refused.
    """
    story = get(case, "story")
    estimator = make(case, **({"warm_start": True} if story.startswith("warm") and _has(case, "warm_start") else {}))
    if story.startswith("partial_fit") or story == "fit, partial_fit":
        return _in_parts(estimator, case, data, story)
    if story == "fit something else, fit":
        half = data.with_columns(lambda values: np.column_stack([values, values[:, :1]]))
        try:
            fit(estimator, case, half)
        except Refused:
            pass
    caught = fit(estimator, case, data)
    if story == "fit twice":
        first = answers(estimator, data.X)
        caught = fit(estimator, case, data)
        demand_same_bits(answers(estimator, data.X), first, "a second fit differs from the first")
    elif story == "fit something else, fit":
        fresh = clone(estimator)
        fit(fresh, case, data)
        demand_same_bits(answers(estimator, data.X), answers(fresh, data.X), "an earlier fit leaves its traces")
        demand(
            sorted(vars(estimator)) == sorted(vars(fresh)),
            "an earlier fit leaves attributes",
            str(set(vars(estimator)) ^ set(vars(fresh))),
        )
    elif story == "fit, fail, predict":
        _fails(estimator, case, data, "fit")
    if not (story.startswith("warm") and _has(case, "warm_start")):
        return estimator, caught, True
    answers(estimator, data.X)
    if story == "warm with other labels":
        fit(estimator, case, _others(case, data))
    elif story == "warm with other rows":
        fit(estimator, case, data.with_rows(np.arange(len(data.values))[::-1].repeat(2), None))
    elif story == "warm with other parameters":
        fit(estimator.set_params(alpha=0.1, tol=0.01), case, data)
        estimator.set_params(alpha=get(case, "alpha"), tol=get(case, "tol"))
    elif story == "warm after pickle":
        loaded = pickle.loads(pickle.dumps(estimator))
        fit(loaded, case, data)
        caught = fit(estimator, case, data)
        demand_same_bits(answers(loaded, data.X), answers(estimator, data.X), "pickling changes how training goes on")
        return estimator, caught, True
    caught = fit(estimator, case, data)
    return estimator, caught, True


def _has(case: Case, name: str) -> bool:
    return name in make(case).get_params()


def _in_parts(estimator, case: Case, data: Data, story: str):
    if not hasattr(estimator, "partial_fit"):
        raise Refused("partial_fit is absent")
    caught = fit(estimator, case, data, "fit" if story == "fit, partial_fit" else "partial_fit")
    answers(estimator, data.X)
    if story == "partial_fit, fail, partial_fit":
        _fails(estimator, case, data, "partial_fit")
    if story == "partial_fit after pickle":
        loaded = pickle.loads(pickle.dumps(estimator))
        fit(loaded, case, data, "partial_fit")
        fit(estimator, case, data, "partial_fit")
        demand_same_bits(answers(loaded, data.X), answers(estimator, data.X), "pickling changes how training goes on")
        return estimator, caught, False
    half = np.arange(max(1, len(data.values) // 2))
    weight = None if data.sample_weight is None else np.asarray(data.sample_weight, dtype=float)[half]
    if weight is None or weight.any():
        fit(estimator, case, data.with_rows(half, weight), "partial_fit")
    fit(estimator, case, data, "partial_fit")
    return estimator, caught, False
