"""The candidates of a search: which of them train together, and their training as one stack."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Self

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from skdeep.data.inputs import Data
from skdeep.data.labels import Probabilities
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.model_selection.stacks import device_of, fit_stack, stackable_now, why_alone


class StackingWarning(UserWarning):
    """Candidates of a search are trained one by one."""


class Task(NamedTuple):
    """The arguments of scikit-learn's ``_fit_and_score`` for one candidate and split."""

    estimator: Any
    X: Any
    y: Any
    options: dict[str, Any]

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Task:
        options = dict(arguments)
        return cls(options.pop("estimator"), options.pop("X"), options.pop("y"), options)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the candidate differs in from the estimator."""
        return self.options["parameters"] or {}

    @property
    def scorer(self) -> Callable:
        return self.options["scorer"]


#: In which of their arguments the tasks of a stack may differ.
_OF_ONE_TASK = ("parameters", "candidate_progress", "callback_ctx")


#: Arguments that are dictionaries of large things.
_OF_PARTS = ("fit_params", "score_params")


def apart(tasks: list[Task]) -> tuple[tuple, dict[str, Any]]:
    """Take the tasks of a stack apart: large things are arguments of their own, which workers are sent once."""
    first, own = tasks[0], [{name: task.options.get(name) for name in _OF_ONE_TASK} for task in tasks]
    shared = {name: value for name, value in first.options.items() if name not in (*_OF_ONE_TASK, *_OF_PARTS)}
    for kind in _OF_PARTS:
        shared |= {f"{kind}:{name}": value for name, value in (first.options[kind] or {}).items()}
    own = [{name: value for name, value in options.items() if name in first.options} for options in own]
    return (first.X, first.y, [task.estimator for task in tasks], own), shared


def together(X: Data, y: Data, estimators: list, own: list[dict[str, Any]], shared: dict[str, Any]) -> list[Task]:
    """Make the tasks of a stack again."""
    options: dict[str, Any] = {kind: {} for kind in _OF_PARTS}
    for key, value in shared.items():
        kind, _, name = key.partition(":")
        (options[kind] if name else options)[name or kind] = value
    return [Task(estimator, X, y, options | its_own) for estimator, its_own in zip(estimators, own, strict=True)]


# ---- which candidates share a stack ----------------------------------------------------------------------------------


def final_step(estimator: BaseEstimator) -> Any:
    """Find the classifier at the end of a pipeline; it is the estimator itself, if that is none."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def steps_before(estimator: BaseEstimator) -> list[Any]:
    """List the steps of a pipeline before its last one that do something; none of what is no pipeline."""
    steps = [step for _, step in estimator.steps[:-1]] if isinstance(estimator, Pipeline) else []
    return [step for step in steps if step not in (None, "passthrough")]


def prefix_of(estimator: BaseEstimator) -> str:
    """Name what parameters of a pipeline's last step begin with; nothing, if it is none."""
    return f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""


class Same:
    """An object as a key of dictionaries: equal to itself alone, whatever it holds.

    The tasks of a call share their data, splits and candidates, which are long to compare, or cannot be compared. A key
    keeps its object, so that no other takes its place.
    """

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return object.__hash__(self.value)


def _token(value: Any) -> Hashable:
    """Make a key that only equal values of a parameter grid share."""
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return type(value), value


def candidate_key(task: Task) -> tuple:
    """Make the key of a task's candidate, whose parameters may be written down once more for each split."""
    return tuple(sorted((name, _token(value)) for name, value in task.parameters.items()))


def are_alike(one: Any, other: Any) -> bool:
    """Say whether two values of parameters, or two estimators, are copies of each other."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if hasattr(one, "get_params"):
        return are_alike(vars(one), vars(other))
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return False
        return all(value is other[name] or are_alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_alike, one, other))
    try:
        return joblib.hash(one) == joblib.hash(other)
    except Exception:  # what cannot be pickled is like nothing else
        return False


def _stack_key(task: Task) -> tuple[tuple | None, str | None]:
    """Make the key that the candidates of a stack have in common; or None, and why this one cannot be in a stack."""
    candidate, parameters = task.estimator, task.parameters
    prefix = prefix_of(candidate)
    if prefix.removesuffix("__") in parameters or (reason := why_alone(final_step(candidate))) is None:
        try:
            candidate = clone(candidate).set_params(**clone(parameters, safe=False))
        except Exception:  # scikit-learn's own code raises it where the user expects it
            return None, "its parameters cannot be set"
        reason = why_alone(final_step(candidate))
    if task.options.get("return_estimator"):
        reason = "the fitted estimators are to be kept"  # those of a stack are trained for their scores alone
    elif getattr(candidate, "_skl_callbacks", None):
        reason = "callbacks listen to one model at a time"
    if reason is not None:
        return None, reason
    free = {prefix + name for name in stackable_now(final_step(candidate))}
    common = [part for part in candidate_key(task) if part[0] not in free]
    # a parameter that another candidate of a list of grids leaves at its default is free for one, and not for the other
    return (*sorted(free), *common), None


def _rows_key(task: Task) -> tuple:
    """Make the key of tasks that are about the same rows of the same data, judged in the same way."""
    shared = [value for name, value in task.options.items() if name not in _OF_ONE_TASK]
    return tuple(
        value if isinstance(value, str | int | float | tuple) else Same(value) for value in (task.X, task.y, *shared)
    )


def groups_of_alike(values: list) -> list[list[int]]:
    """Group the indices of values, or of estimators, that are copies of each other."""
    groups: list[list[int]] = []
    for i, value in enumerate(values):
        group = next((group for group in groups if are_alike(value, values[group[0]])), None)
        if group is None:
            groups.append(group := [])
        group.append(i)
    return groups


def of_one_kind(tasks: dict[int, Task]) -> list[list[int]]:
    """Group the numbers of tasks whose estimators are copies of one: of a search, all are."""
    numbers = list(tasks)
    return [[numbers[i] for i in group] for group in groups_of_alike([task.estimator for task in tasks.values()])]


def stacks_of(tasks: dict[int, Task], n_workers: int) -> tuple[list[list[int]], set[str]]:
    """Group tasks that train together: the numbers of each stack, and the reasons why stacks are lost."""
    known: dict[tuple, tuple[tuple | None, str | None]] = {}  # by candidate
    stacks: dict[tuple, list[int]] = {}
    lost: dict[tuple, list[str | None]] = {}  # why each of some rows' candidates is in no stack, if it should be
    for kind, group in enumerate(of_one_kind(tasks)):
        for i in group:
            candidate, rows = (kind, candidate_key(tasks[i])), _rows_key(tasks[i])
            if candidate not in known:
                known[candidate] = _stack_key(tasks[i])
            key, reason = known[candidate]
            lost.setdefault(rows, []).append(reason if is_promised(tasks[i]) else None)
            if key is not None:
                stacks.setdefault((rows, kind, key), []).append(i)
    # of one candidate, nothing is lost
    reasons = {reason for found in lost.values() if len(found) > 1 for reason in found if reason is not None}
    # those that the workers have left in their last round are cut, for none to stand idle
    n_left = len(stacks) % n_workers
    pieces = [1] * (len(stacks) - n_left) + [n_workers // max(1, n_left)] * n_left
    parts = [np.array_split(stack, min(n, len(stack))) for stack, n in zip(stacks.values(), pieces, strict=True)]
    return [part.tolist() for stack in parts for part in stack], reasons


def is_promised(task: Task) -> bool:
    """Say whether a task is ours to care for: of our estimators, or of our searches; else it runs as it is."""
    ours = isinstance(final_step(task.estimator), BaseTorchEstimator)
    return ours or getattr(task.options.get("caller"), "_promises_stacks", False)


def n_accelerators(tasks: list[Task]) -> int:
    """Count the accelerators that the models may train on; none if they train on the CPU."""
    estimator, X, y, _ = tasks[0]
    final = final_step(estimator)
    if why_alone(final) is not None:
        return 0
    try:
        device = device_of(final, X, y)
    except Exception:  # malformed data: a fit says better what is wrong
        return 0
    any_card = str(final.device) in ("auto", "cuda") and not isinstance(X, torch.Tensor)
    return torch.cuda.device_count() if device.type == "cuda" and any_card else int(device.type != "cpu")


def on_card(card: int, function: Callable, *args: Any, **options: Any) -> Any:
    """Call a function to which "cuda" is one of several cards."""
    with torch.cuda.device(card):
        return function(*args, **options)


# ---- the training of a stack -----------------------------------------------------------------------------------------


class _Recorder(BaseEstimator):
    """Last step of a pipeline that keeps what its `fit` is given, in place of `estimator`."""

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator

    def fit(self, X: Data, y: Data = None, **params: Any) -> Self:
        self.data_ = X, y, params
        return self

    def get_metadata_routing(self) -> Any:
        return self.estimator.get_metadata_routing()


def draw_seed() -> int:
    """Draw a seed for candidates that have none."""
    return int(check_random_state(None).randint(np.iinfo(np.int32).max))


def share_seed(candidates: list, seed: int) -> None:
    """Set one ``random_state`` for the candidates that have none, so that they see the same batches."""
    for final in map(final_step, candidates):
        if final.random_state is None:
            final.random_state = seed


def fit_candidates(
    candidates: list, X: Data, y: Data, fit_params: dict, with_probabilities: bool = True
) -> list[Exception | None]:
    """Fit candidates of one stack, which share the steps before the classifier; return what the fit of each raised."""
    first = candidates[0]
    if not isinstance(first, Pipeline):
        return _fit_stack(candidates, X, y, fit_params, with_probabilities)
    name, final = first.steps[-1]
    finals = [final_step(candidate) for candidate in candidates]
    recorder = _Recorder(final)
    first.steps = [*first.steps[:-1], (name, recorder)]
    try:
        first.fit(X, y, **fit_params)
    finally:
        first.steps = [*first.steps[:-1], (name, final)]
    for candidate, own in zip(candidates, finals, strict=True):
        candidate.steps = [*first.steps[:-1], (name, own)]
    X, y, params = recorder.data_
    return _fit_stack(finals, X, y, params, with_probabilities)


def _fit_stack(
    members: list, X: Data, y: Data, params: dict[str, Any], with_probabilities: bool
) -> list[Exception | None]:
    params = dict(params)
    classes = params.pop("classes", None)
    for name in {"y_val"} & params.keys():
        params[name] = Probabilities.of(params[name], classes)
    return fit_stack(members, X, Probabilities.of(y, classes), **params, with_probabilities=with_probabilities)
