"""Whole grids as one stack: all candidates on all splits.

Where linear models are solved exactly, a split is a weight of zero on its test rows, so that the rows are validated,
measured and passed over once for all; in closed form, they are left out. Where models are trained by mini-batches, the
candidates of a split are a group with rows of its own, and a step of all takes few more calls than a step of one. What
is decided here is what each fit would decide for itself; a search that it would not hold for goes the usual way, a
stack for each split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skdeep.compat.sklearn import _PassthroughScorer
from skdeep.data.answers import own_methods
from skdeep.data.inputs import float_dtype
from skdeep.data.problem import Problem
from skdeep.data.scoring import only_asks, scorers_of
from skdeep.engine.networks import Linear, Network
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.threads import at_most, threads_for
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.estimators.linear import LinearModel
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.exactly import has_exact_solver
from skdeep.fitting.fit import check_scoring, members_of, monitor_of
from skdeep.fitting.outcome import look_at_end, warn
from skdeep.fitting.recipe import Member, Recipe, Stack, penalty_of
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import new_progress
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.evaluation import (
    Same,
    Task,
    candidate_key,
    final_step,
    is_promised,
    of_one_kind,
    prefix_of,
    share_seed,
)
from skdeep.model_selection.grid_rows import GridRows, Split
from skdeep.model_selection.quick_scores import QuickScorers, name_of
from skdeep.model_selection.scaled import Scaling
from skdeep.model_selection.stacks import CannotStack, capacity, stackable_now, warn_of_fault, why_alone
from skdeep.model_selection.trainees import methods_of

#: Parameters in which the candidates of a grid of exact solutions may differ.
_FREE = frozenset({"alpha", "l1_ratio", "tol", "class_weight", "random_state"})
#: Parameters of all models that are trained by mini-batches on a CPU at a time: with more, nothing is gained.
_MAX_PARAMS = 1 << 20
#: Values of scores that a grid may take at a time.
_MAX_SCORES = 4 * MAX_VALUES


def evaluate_grids(tasks: dict[int, Task], seed: int, n_workers: int) -> dict[int, dict]:
    """Evaluate the tasks, by their numbers, of which all splits are one stack; leave out the others.

    `seed` is of candidates that have none; where the CPU trains by mini-batches, several workers do so in less time.
    """
    results: dict[int, dict] = {}
    for own in of_one_kind(tasks):
        found = _evaluate_grid([tasks[i] for i in own], seed, n_workers)
        results |= {own[place]: result for place, result in found.items()}
    return results


def _evaluate_grid(tasks: list[Task], seed: int, n_workers: int) -> dict[int, dict]:
    """Return the results of ``_fit_and_score`` for the tasks of a search, by their places; none where that fails."""
    if len(tasks) < 2 or not _is_plain(tasks):
        return {}
    first, start = tasks[0], time.time()
    candidates = {candidate_key(task): task.parameters for task in tasks}
    splits: dict[tuple[Same, Same], Split] = {}
    for task in tasks:
        splits.setdefault(_split(task), (task.options["train"], task.options["test"]))
    try:
        varied = set().union(*(task.parameters for task in tasks))
        grid = _Grid.of(first.estimator, list(candidates.values()), varied, seed, n_workers)
        with own_settings():
            target, weighs = (first.y, _weight(first)), bool(first.options["score_params"])
            asked = first.scorer, weighs, parts_of(first)
            found = grid.train(first.X, target, list(splits.values()), *asked)
    except _StepsDiffer as differ:
        kinds = dict(zip(splits, differ.kinds, strict=True))
        results: dict[int, dict] = {}
        for kind in dict.fromkeys(differ.kinds):  # in their order
            own = [place for place, task in enumerate(tasks) if kinds[_split(task)] == kind]
            part = _evaluate_grid([tasks[place] for place in own], seed, n_workers)
            results |= {own[place]: result for place, result in part.items()}
        return results
    except Exception as error:  # a fit says better what is wrong with the data
        warn_of_fault(error)
        return {}
    if found is None:
        return {}
    marks, members, solver, (trained, scored) = found
    for member in members:
        warn(member.estimator, solver, member.progress)
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (splits, candidates))
    fit_time, score_time = ((b - a) / len(tasks) for a, b in ((start, trained), (trained, scored)))
    times = {"fit_time": fit_time, "score_time": score_time}
    places = [(row[_split(task)], column[candidate_key(task)]) for task in tasks]
    marked = zip(tasks, ([of_part[i][j] for of_part in marks] for i, j in places), strict=True)
    return {place: result_of(task, own_marks, times) for place, (task, own_marks) in enumerate(marked)}


def parts_of(task: Task) -> list[str]:
    """Name the rows of a split that a task asks for scores of."""
    return ["test", "train"] if task.options["return_train_score"] else ["test"]


def result_of(task: Task, marks: list, times: dict[str, float]) -> dict[str, Any]:
    """Make what ``_fit_and_score`` returns for a task, given a score for each part and how long it has taken."""
    result = {"fit_error": None, **{f"{part}_scores": mark for part, mark in zip(parts_of(task), marks, strict=True)}}
    if task.options["return_n_test_samples"]:
        result["n_test_samples"] = len(task.options["test"])
    if task.options["return_times"]:
        result |= times
    return result


def _split(task: Task) -> tuple[Same, Same]:
    """Make the key of a task's split: several may have the same rows to train on."""
    return Same(task.options["train"]), Same(task.options["test"])


def _weight(task: Task) -> Any:
    """Find the weights of all rows; None if there are none."""
    return (task.options["fit_params"] or {}).get(f"{prefix_of(task.estimator)}sample_weight")


def _is_plain(tasks: list[Task]) -> bool:
    """Tell whether tasks differ in split and candidate alone, and scorers for nothing but answers."""
    first = tasks[0]
    estimator, options = final_step(first.estimator), first.options
    if estimator is not first.estimator and Scaling.of(first.estimator) is None:
        return False
    if not isinstance(estimator, BaseTorchEstimator) or why_alone(estimator) is not None or own_methods(estimator):
        return False
    if estimator._averages_probabilities or estimator.warm_start or not is_plain_call(first):
        return False
    if estimator.calibration == "sigmoid" or not only_asks(options["scorer"]):
        return False
    if estimator.calibration is not None and not asks_for_labels(options["scorer"], estimator):
        return False  # a temperature changes probabilities
    if set(options["fit_params"] or {}) - {f"{prefix_of(first.estimator)}sample_weight"}:
        return False
    of_scores = options["score_params"] or {}
    if set(of_scores) - {"sample_weight"} or any(value is not _weight(first) for value in of_scores.values()):
        return False
    shared = ("scorer", "caller", "error_score", "fit_params", "score_params", "return_train_score")
    return all(
        task.X is first.X
        and task.y is first.y
        and type(final_step(task.estimator)) is type(estimator)
        and all(task.options[name] is options[name] for name in shared)
        for task in tasks
    )


def is_plain_call(task: Task) -> bool:
    """Tell whether a call of ``_fit_and_score`` is for scores and nothing else, with rows as they are."""
    options = task.options
    if not is_promised(task) or get_config()["enable_metadata_routing"] or get_config()["array_api_dispatch"]:
        return False
    listens = getattr(options["caller"], "_skl_callbacks", None)
    return not (listens or any(options[name] for name in ("verbose", "return_estimator", "return_parameters")))


class _StepsDiffer(Exception):
    """Raised where steps follow from a split's rows: splits of one of the `kinds` may be a stack of their own."""

    def __init__(self, kinds: list[tuple]):
        super().__init__("Steps follow from a split's rows.")
        self.kinds = kinds


@dataclass
class _Grid:
    """Candidates that are trained on all splits at a time."""

    candidates: list
    varied: set[str]  # the parameters in which they may differ
    n_workers: int
    scaling: Scaling | None = None  # what is in front of them

    @classmethod
    def of(cls, estimator: Any, each: list[dict[str, Any]], varied: set[str], seed: int, n_workers: int) -> _Grid:
        """Make the candidates of an estimator, with the parameters of each; raise what is wrong with any of these."""
        scaling = None
        if isinstance(estimator, Pipeline):
            prefix = prefix_of(estimator)
            if not all(name.startswith(prefix) for name in varied):
                raise CannotStack("Steps before the model differ.")
            varied = {name.removeprefix(prefix) for name in varied}
            scaling = Scaling.of(estimator)
            assert scaling is not None
            for step in scaling.steps:
                step._validate_params()
        candidates = [final_step(clone(estimator).set_params(**clone(own, safe=False))) for own in each]
        if not get_config()["skip_parameter_validation"]:
            for candidate in candidates:
                candidate._validate_params()
        share_seed(candidates, seed)
        return cls(candidates, varied, n_workers, scaling)

    def train(
        self,
        X: Any,
        target: tuple[Any, Any],
        splits: list[Split],
        scorer: Callable,
        weighs: bool = False,
        parts_asked: Sequence[str] = ("test",),
    ) -> tuple[list[list[list]], list[Member], str, tuple[float, float]] | None:
        """Train all candidates without each split's test rows: marks (parts, splits, candidates), models, solver, when.

        When they were trained, and the first part scored. A target is y and the weights of all rows, if there are any,
        which a scorer may weigh by as well. None where a fit would not be of the kind, or has failed.
        """
        leader, (y, _) = self.candidates[0], target
        try:
            rows = GridRows.of(self.candidates, X, target, splits)
            parts = rows.parts
            recipe: Recipe = leader._recipe(parts[0], False, False)
            if isinstance(leader, BaseTorchRegressor) and recipe.solver not in FULL_BATCH:
                rows = rows.in_own_units(leader, y)
                parts = rows.parts
            self._check_size(X, y, rows, recipe)
            self._check_solver(X, rows, recipe, scorer)
            exact, n_params = _is_exact(recipe), self._n_params(rows, recipe)
            if exact:
                self._check_exact(recipe, parts)
            else:
                self._check_steps(recipe, rows, n_params)
            rows = replace(rows, problem=rows.problem.placed(*_place(recipe)))
            members = self._members(rows)
            watched = self._hold_out(rows, members) if leader.early_stopping else []
            if not exact and any(recipe.batch_rows >= member.n_rows(rows.problem) for member in members):
                raise CannotStack("Equal rows may be merged.")
            with at_most(1) if exact else threads_for(n_params * recipe.batch_rows):
                penalty = penalty_of(recipe, rows.problem, members)
                network = self._network(rows, recipe, members, penalty)
                monitor = None
                if watched:
                    estimators = [member.estimator for member in members]
                    monitor = monitor_of(estimators, watched, recipe.judged_by, leader._scoring_for(watched[0]))
                solve(Stack(recipe, rows.problem, network, members, penalty, recipe.epochs, monitor))
                if any(member.progress.interrupted for member in members):
                    raise KeyboardInterrupt  # it is the search that the user wants to end
                if not exact:
                    self._look_at_end(recipe, network, members, parts)
                if any(member.progress.error is not None for member in members):
                    raise CannotStack("A model has failed.")
                trained = time.time()
                found = zip(*(member.progress.params or [] for member in members), strict=True)
                network = network.with_params([torch.cat(tensors) for tensors in found])
                marks, scored = [], trained
                for number, part in enumerate(parts_asked):
                    if _is_accuracy(scorer, leader):
                        marks.append(rows.accuracies(network, weighs, part))
                    else:
                        marks.append(rows.asked(self.candidates, scorer, network, weighs, part))
                    scored = time.time() if number == 0 else scored
                return marks, members, recipe.solver, (trained, scored)
        except CannotStack:
            return None

    # ---- whether the fits of all splits are of one kind -----------------------------------------------------------

    def _n_params(self, rows: GridRows, recipe: Recipe) -> int:
        """Count the weights of all models."""
        n_models = len(rows.splits) * len(self.candidates)
        return n_models * self.candidates[0]._n_params(rows.problem.source.shape[1], recipe.n_outputs)

    def _check_size(self, X: Any, y: Any, rows: GridRows, recipe: Recipe) -> None:
        """Raise `CannotStack` where the models are too many."""
        n_models = len(rows.splits) * len(self.candidates)
        n_scores = n_models * recipe.n_outputs * len(rows.problem.codes)
        if n_scores > _MAX_SCORES or n_models > capacity(self.candidates[0], X, y):
            raise CannotStack("The memory does not hold all models.")

    def _check_solver(self, X: Any, rows: GridRows, recipe: Recipe, scorer: Callable) -> None:
        """Raise `CannotStack` where the solver would be told something else by each split, or by what scorers ask."""
        leader = self.candidates[0]
        if self.scaling is not None and not self.scaling.suits(X, rows.problem, leader, recipe):
            raise CannotStack("Steps before the model change more than its variables.")
        if _is_exact(recipe) and leader.early_stopping:
            raise CannotStack("What is held out, steps of all rows are looked at by.")
        if recipe.solver != "lbfgs" and hasattr(leader, "delta_"):
            raise CannotStack("The loss follows from a split's targets.")
        if asks_for_labels(scorer, leader):
            return
        if _is_exact(recipe) and float_dtype(rows.problem.source) != np.float64:
            raise CannotStack("Predictions are rounded, which scores of more than labels show.")
        is_even = recipe.device.type == "cpu" and recipe.solver != "sgd" and not isinstance(leader, LinearModel)
        if not (_is_exact(recipe) or is_even or recipe.dtype is torch.float64):
            raise CannotStack("Steps are rounded in another way, which scores of more than labels show.")

    def _check_exact(self, recipe: Recipe, parts: list[Problem]) -> None:
        """Raise `CannotStack` where not each fit would be an exact solution in float64 on the CPU."""
        leader = self.candidates[0]
        last = leader._recipe(parts[-1], False, False)
        same = (last.solver, last.newton_params) == (recipe.solver, recipe.newton_params)
        is_double = recipe.dtype is torch.float64 and recipe.device.type == "cpu"
        if not (same and is_double and self.varied <= _FREE and isinstance(leader, LinearModel)):
            raise CannotStack("Not each fit is an exact solution of a linear model.")

    def _check_steps(self, recipe: Recipe, rows: GridRows, n_params: int) -> None:
        """Raise `CannotStack` where fits would take other steps of mini-batches, or these do not pay in one stack."""
        leader, parts = self.candidates[0], rows.parts
        free = stackable_now(leader)
        if not self.varied <= free or any(stackable_now(candidate) != free for candidate in self.candidates):
            raise CannotStack("Candidates differ in more than models of a stack may.")
        if rows.weight is not None or any(candidate.class_weight is not None for candidate in self.candidates):
            raise CannotStack("Rows have weights, by which they are divided and drawn.")
        if recipe.device.type == "cpu" and (n_params > _MAX_PARAMS or self.n_workers > 1):
            raise CannotStack("Stacks of each split take less time.")
        if sparse.issparse(rows.problem.source) or not rows.have_all_gaps:
            raise CannotStack(
                "Rows are sparse, or columns have gaps in some splits only, by which they are told apart."
            )
        kinds = [steps_of(leader._recipe(part, False, False)) for part in parts]
        if len(set(kinds)) > 1:
            raise _StepsDiffer(kinds)

    # ---- the training ---------------------------------------------------------------------------------------------

    def _members(self, rows: GridRows) -> list[Member]:
        """Make the models of each split, one split after the other."""
        members, every = [], np.arange(len(rows.problem.codes))
        for (train, _), stretch in zip(rows.splits, rows.stretch, strict=True):
            own_rows = None if np.array_equal(train, every) else train
            weights = rows.weights(self.candidates, train)
            for member, weight in zip(members_of(self.candidates, False), weights, strict=True):
                member.rows, member.weight, member.stretch = own_rows, weight, stretch
                member.progress = new_progress(member, False, False)
                members.append(member)
        return members

    def _network(self, rows: GridRows, recipe: Recipe, members: list[Member], penalty: ElasticNet) -> Network:
        """Make the network of all models, behind what each split's scaler does."""
        network = recipe.network(recipe, rows.problem, members, penalty, False)
        if self.scaling is not None:
            assert isinstance(network, Linear)
            training = [train for train, _ in rows.splits]
            ridge = penalty.curvature()
            network = self.scaling.seen_through(recipe, rows.problem, network, members, ridge, training)
        if recipe.solver == "lbfgs" and not has_exact_solver(recipe, rows.problem, network):
            raise CannotStack("These rows, or this objective, have no exact solver.")
        return network

    def _hold_out(self, rows: GridRows, members: list[Member]) -> list[Problem]:
        """Keep rows out of each split's training, to watch; return them for each model."""
        leader, watched, n = self.candidates[0], [], len(self.candidates)
        for (train, _), start in zip(rows.splits, range(0, len(members), n), strict=True):
            own = members[start : start + n]
            fraction, seed = leader.validation_fraction, own[0].state.split_seed
            index, weight, held_out = rows.problem.take(train).split(seed, fraction, False, leader.classes_)
            if weight is not None or held_out is None:
                raise CannotStack("Rows are divided by their weight.")
            check_scoring(leader, held_out)
            index = train[index]
            for member in own:
                member.rows = index
                if leader._watched_scoring in (None, "accuracy"):
                    member.progress.grain = held_out.grain
            watched += [held_out] * len(own)
        return watched

    def _look_at_end(self, recipe: Recipe, network: Network, members: list[Member], parts: list[Problem]) -> None:
        """Note which models their steps have led away from the optimum."""
        judge = partial(monitor_of, self.candidates[:1])
        for part, models in zip(parts, np.arange(len(members)).reshape(len(parts), -1), strict=True):
            own = [replace(members[m], rows=None) for m in models]  # all of the part
            look_at_end(recipe, part.placed(*_place(recipe)), network.select(models), own, judge)


def _is_accuracy(scorer: Callable, estimator: Any) -> bool:
    """Say whether a scorer asks for nothing but the accuracy."""
    if isinstance(scorer, QuickScorers):
        return scorer.is_accuracy
    is_plain = type(scorer) is _PassthroughScorer or name_of(scorer) == "accuracy"
    return is_plain and not isinstance(estimator, BaseTorchRegressor)


def asks_for_labels(scorer: Callable, estimator: Any) -> bool:
    """Say whether a scorer asks for nothing but the classes that are predicted."""
    if isinstance(estimator, BaseTorchRegressor):
        return False
    return all(type(one) is _PassthroughScorer or methods_of(one) == ["predict"] for one in scorers_of(scorer))


def _is_exact(recipe: Recipe) -> bool:
    """Say whether steps are of all rows."""
    return recipe.solver in FULL_BATCH


def _place(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    return recipe.device, recipe.dtype


def steps_of(recipe: Recipe) -> tuple:
    """Name what the steps of a fit follow from, beside its data and what candidates differ in."""
    how = recipe.solver, recipe.batch_rows, recipe.proximal, *_place(recipe), recipe.products, recipe.n_bins
    course = recipe.schedule, recipe.horizon, recipe.due, recipe.epochs, recipe.to_end, recipe.averages
    return *how, *course, recipe.auto_rate
