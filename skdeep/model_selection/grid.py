"""Whole grids as one stack: all candidates on all splits of linear models that are solved exactly.

A split is a weight of zero on its test rows, so that the rows are validated, measured and passed over once for all.
What is decided here is what each fit would decide for itself; a search that it would not hold for goes the usual way,
a stack for each split.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import clone

from skdeep.compat.sklearn import _PassthroughScorer
from skdeep.data.answers import own_methods
from skdeep.data.encoding import encode
from skdeep.data.inputs import float_dtype, to_numpy
from skdeep.data.problem import Problem, scores_of
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.networks import Network
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.threads import at_most
from skdeep.estimators.linear import LinearClassifier
from skdeep.fitting.exactly import has_exact_solver
from skdeep.fitting.outcome import warn
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import new_progress
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.evaluation import _Same, _Task, is_promised
from skdeep.model_selection.stacks import why_alone

#: Parameters in which the candidates of a grid may differ.
_FREE = frozenset({"alpha", "l1_ratio", "tol", "random_state"})
#: Values of scores that a grid may take at a time.
_MAX_SCORES = 4 * MAX_VALUES


def evaluate_grid(tasks: list[_Task]) -> list[dict] | None:
    """Return the results of ``_fit_and_score`` for all tasks of a search; None if they do not make a grid."""
    if len(tasks) < 2 or not _is_plain(tasks):
        return None
    first, start = tasks[0], time.time()
    candidates: dict[_Same, Any] = {}
    splits: dict[tuple[_Same, _Same], tuple[np.ndarray, np.ndarray]] = {}
    for task in tasks:
        candidates.setdefault(_Same(task.options["parameters"]), None)
        splits.setdefault(_split(task), (task.options["train"], task.options["test"]))
    try:
        for key in candidates:
            candidates[key] = clone(first.estimator).set_params(**clone(key.value or {}, safe=False))
            if not get_config()["skip_parameter_validation"]:
                candidates[key]._validate_params()
        with own_settings(), at_most(1):
            outcome = _train(list(candidates.values()), first.X, first.y, list(splits.values()))
    except Exception:  # a fit says better what is wrong
        return None
    if outcome is None:
        return None
    accuracy, members, solver, trained = outcome
    for member in members:
        warn(member.estimator, solver, member.progress)
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (list(splits), list(candidates)))
    results = []
    fit_time, score_time = ((b - a) / len(tasks) for a, b in ((start, trained), (trained, time.time())))
    for task in tasks:
        score = accuracy[row[_split(task)], column[_Same(task.options["parameters"])]]
        result = {"fit_error": None, "test_scores": float(score)}
        if task.options["return_n_test_samples"]:
            result["n_test_samples"] = len(task.options["test"])
        if task.options["return_times"]:
            result |= {"fit_time": fit_time, "score_time": score_time}
        if task.options["return_parameters"]:
            result["parameters"] = task.options["parameters"]
        results.append(result)
    return results


def _split(task: _Task) -> tuple[_Same, _Same]:
    """Make the key of a task's split: several may have the same rows to train on."""
    return _Same(task.options["train"]), _Same(task.options["test"])


def _is_plain(tasks: list[_Task]) -> bool:
    """Tell whether tasks differ in split and candidate alone, and ask for nothing but accuracies of linear models."""
    first = tasks[0]
    estimator, options = first.estimator, first.options
    if not isinstance(estimator, LinearClassifier) or why_alone(estimator) is not None or own_methods(estimator):
        return False
    if not is_promised(first) or get_config()["enable_metadata_routing"] or get_config()["array_api_dispatch"]:
        return False
    if estimator.early_stopping or estimator.class_weight is not None or estimator.warm_start:
        return False
    if estimator.calibration == "sigmoid" or type(options["scorer"]) is not _PassthroughScorer:
        return False
    asked = ("fit_params", "score_params", "verbose", "return_train_score", "return_estimator")
    listens = getattr(options["caller"], "_skl_callbacks", None)
    if listens or any(options[name] for name in asked):
        return False
    for task in tasks:
        same = all(task.options[name] is options[name] for name in ("scorer", "caller", "error_score"))
        if not same or task.X is not first.X or task.y is not first.y or type(task.estimator) is not type(estimator):
            return False
        if not task.parameters.keys() <= _FREE:
            return False
    return True


def _train(
    candidates: list, X: Any, y: Any, splits: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, list[Member], str, float] | None:
    """Train all candidates without each split's test rows: accuracies (splits, candidates), models, solver, and when.

    None where a fit would not be of the kind, or has failed.
    """
    leader = clone(candidates[0])
    problem = encode([leader], X, y, None, going_on=False, incremental=False)
    if problem.codes.ndim != 1 or float_dtype(problem.X) != np.float64:
        return None
    splits = [(np.asarray(train), np.asarray(test)) for train, test in splits]
    if any(part.dtype.kind not in "iu" for split in splits for part in split):
        return None
    n_classes = len(leader.classes_)
    if any(np.bincount(problem.codes[train], minlength=n_classes).min() == 0 for train, _ in splits):
        return None
    recipes = [leader._recipe(problem.take(train), False, False) for train, _ in splits[:: len(splits) - 1 or 1]]
    recipe: Recipe = recipes[0]
    if any((r.solver, r.newton_params) != (recipe.solver, recipe.newton_params) for r in recipes):
        return None
    if recipe.solver not in FULL_BATCH or recipe.device.type != "cpu":
        return None
    if len(splits) * len(candidates) * recipe.n_outputs * len(problem.codes) > _MAX_SCORES:
        return None
    problem = problem.placed(recipe.device, recipe.dtype)
    source = RandomSource(0)
    members = []
    for train, _ in splits:
        rows = None if np.array_equal(train, np.arange(len(problem.codes))) else train
        for candidate in candidates:
            own = TrainingState(source)
            members.append(Member(candidate, own, new_progress(candidate, False, False, own), rows))
    network = recipe.network(recipe, problem, members, False)
    if recipe.closed_form or (recipe.solver == "lbfgs" and not has_exact_solver(recipe, problem, network)):
        return None
    solve(recipe, problem, network, members, recipe.epochs)
    if any(member.progress.error is not None for member in members):
        return None
    trained = time.time()
    found = zip(*(member.progress.params or [] for member in members), strict=True)
    network = network.with_params([torch.cat(parts) for parts in found])
    return _accuracies(network, problem, [test for _, test in splits]), members, recipe.solver, trained


def _accuracies(network: Network, problem: Problem, tests: list[np.ndarray]) -> np.ndarray:
    """Compute the accuracies of models (splits, candidates), each on the test rows of its split."""
    scores = to_numpy(scores_of(network, problem.rows(), np.arange(len(problem.codes))))
    predicted = scores[:, :, 0] > 0 if scores.shape[2] == 1 else scores.argmax(2)
    right = (predicted == problem.codes).reshape(len(tests), -1, len(problem.codes))
    return np.stack([of_split[:, test].mean(1) for of_split, test in zip(right, tests, strict=True)])
