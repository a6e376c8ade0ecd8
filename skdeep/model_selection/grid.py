"""Whole grids as one stack: all candidates on all splits.

Where linear models are solved exactly, a split is a weight of zero on its test rows, so that the rows are validated,
measured and passed over once for all; in closed form, they are left out. Where models are trained by mini-batches, the
candidates of a split are a group with rows of its own, and a step of all takes few more calls than a step of one. What
is decided here is what each fit would decide for itself; a search that it would not hold for goes the usual way, a
stack for each split.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn import get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch import Tensor

from skdeep.compat.sklearn import _PassthroughScorer
from skdeep.data.answers import own_methods
from skdeep.data.encoding import encode
from skdeep.data.inputs import float_dtype, to_numpy
from skdeep.data.problem import Problem, scores_of
from skdeep.engine.networks import Linear, Network
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.threads import at_most, threads_for
from skdeep.engine.training import Monitor
from skdeep.engine.values import SquaredValues
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.estimators.linear import LinearModel
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.exactly import has_exact_solver
from skdeep.fitting.fit import check_scoring, judge_of, members_of, monitor_of
from skdeep.fitting.losses import suited_delta
from skdeep.fitting.outcome import look_at_end, warn
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import new_progress
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.evaluation import _Same, _Task, final_step, is_promised, share_seed
from skdeep.model_selection.own_units import OwnUnits
from skdeep.model_selection.quick_scores import QuickScorers, name_of, quickly
from skdeep.model_selection.scaled import Scaling
from skdeep.model_selection.stacks import _capacity, stackable_now, why_alone
from skdeep.model_selection.trainees import methods_of, only_asks, scorers_of

#: Parameters in which the candidates of a grid of exact solutions may differ.
_FREE = frozenset({"alpha", "l1_ratio", "tol", "random_state"})
#: Parameters of all models that are trained by mini-batches on a CPU at a time: those of few models stay in its cache.
_MAX_PARAMS = 1 << 18
#: Errors that no data should raise.
_FAULTS = (AssertionError, AttributeError, LookupError, NameError)
#: Values of scores that a grid may take at a time.
_MAX_SCORES = 4 * MAX_VALUES


def evaluate_grid(tasks: list[_Task], seed: int, n_workers: int) -> list[dict] | None:
    """Return the results of ``_fit_and_score`` for all tasks of a search; None if they do not make a grid.

    `seed` is of candidates that have none; where the CPU trains by mini-batches, several workers do so in less time.
    """
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
            whole = clone(first.estimator).set_params(**clone(key.value or {}, safe=False))
            candidates[key] = final_step(whole)
            if not get_config()["skip_parameter_validation"]:
                candidates[key]._validate_params()
        share_seed(list(candidates.values()), seed)
        varied, scaling = set().union(*(task.parameters for task in tasks)), None
        if isinstance(first.estimator, Pipeline):
            prefix = f"{first.estimator.steps[-1][0]}__"
            if not all(name.startswith(prefix) for name in varied):
                return None  # steps differ
            varied = {name.removeprefix(prefix) for name in varied}
            scaling = Scaling.of(first.estimator)
            assert scaling is not None
            scaling.check()
        grid = _Grid(list(candidates.values()), varied, n_workers, scaling)
        with own_settings():
            outcome = grid.train(first.X, first.y, list(splits.values()), first.scorer)
    except Exception as error:  # a fit says better what is wrong with the data
        if isinstance(error, _FAULTS):
            warnings.warn(
                f"A fault of skdeep's ({error!r}) keeps it from training the models of all splits together. Those of "
                "each split are: the results are the same, and take longer. Please report it.",
                RuntimeWarning,
                stacklevel=2,
            )
        return None
    if outcome is None:
        return None
    marks, members, solver, trained = outcome
    for member in members:
        warn(member.estimator, solver, member.progress)
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (list(splits), list(candidates)))
    results = []
    fit_time, score_time = ((b - a) / len(tasks) for a, b in ((start, trained), (trained, time.time())))
    for task in tasks:
        mark = marks[row[_split(task)]][column[_Same(task.options["parameters"])]]
        result = {"fit_error": None, "test_scores": mark}
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
    """Tell whether tasks differ in split and candidate alone, and scorers for nothing but answers."""
    first = tasks[0]
    estimator, options = final_step(first.estimator), first.options
    if estimator is not first.estimator and Scaling.of(first.estimator) is None:
        return False
    if not isinstance(estimator, BaseTorchEstimator) or why_alone(estimator) is not None or own_methods(estimator):
        return False
    if estimator._averages_probabilities:
        return False
    if not is_promised(first) or get_config()["enable_metadata_routing"] or get_config()["array_api_dispatch"]:
        return False
    if estimator.class_weight is not None or estimator.warm_start:
        return False
    if estimator.calibration == "sigmoid" or not only_asks(options["scorer"]):
        return False
    if estimator.calibration is not None and not _asks_for_labels(options["scorer"], estimator):
        return False  # a temperature changes probabilities
    asked = ("fit_params", "score_params", "verbose", "return_train_score", "return_estimator")
    listens = getattr(options["caller"], "_skl_callbacks", None)
    if listens or any(options[name] for name in asked):
        return False
    for task in tasks:
        same = all(task.options[name] is options[name] for name in ("scorer", "caller", "error_score"))
        if not same or task.X is not first.X or task.y is not first.y:
            return False
        if type(final_step(task.estimator)) is not type(estimator):
            return False
    return True


@dataclass
class _Grid:
    """Candidates that are trained on all splits at a time.

    Attributes
    ----------
    candidates : list of estimator
    varied : set of str
        The parameters in which they may differ.
    n_workers : int
    scaling : Scaling or None
        What is in front of them.
    """

    candidates: list
    varied: set[str]
    n_workers: int
    scaling: Scaling | None = None

    def train(
        self, X: Any, y: Any, splits: list[tuple[np.ndarray, np.ndarray]], scorer: Callable
    ) -> tuple[list[list], list[Member], str, float] | None:
        """Train all candidates without each split's test rows: marks (splits, candidates), models, solver, when.

        None where a fit would not be of the kind, or has failed.
        """
        leader = self.candidates[0]
        problem = encode([leader], X, y, None, going_on=False, incremental=False)
        if problem.codes.ndim != 1 or any(getattr(getattr(leader, "_categories", None), "pools", ())):
            return None  # which levels are rare, each split says for itself
        splits = [(np.asarray(train), np.asarray(test)) for train, test in splits]
        if any(part.dtype.kind not in "iu" for split in splits for part in split):
            return None
        stretch = [1.0] * len(splits)
        if isinstance(leader, BaseTorchRegressor):
            if _has_units(leader) and any(one.alpha == "auto" for one in self.candidates):
                return None  # which follows from a split's targets
            if hasattr(leader, "delta_"):  # which does so too
                if not isinstance(leader, LinearModel) or leader.penalty not in ("l2", None):
                    return None
                if problem.target.shape[1] > 1:
                    return None
                values = leader._target_scale.back(problem.target)
                stretch = [suited_delta(values[train], None) / leader.delta_ for train, _ in splits]
        elif any(len(np.unique(problem.codes[train])) < len(leader.classes_) for train, _ in splits):
            return None
        n_models = len(splits) * len(self.candidates)
        parts = [problem.take(train) for train, _ in splits]
        recipe: Recipe = leader._recipe(parts[0], False, False)
        units = None
        if isinstance(leader, BaseTorchRegressor) and recipe.solver not in FULL_BATCH:
            units = OwnUnits.of(problem, leader, y, splits)
            if units is None or leader.early_stopping:
                return None
            problem, splits = units.problem, units.splits
            parts = [problem.take(train) for train, _ in splits]
        if n_models * recipe.n_outputs * len(problem.codes) > _MAX_SCORES or n_models > _capacity(leader, X, y):
            return None
        n_params = n_models * leader._n_params(problem.source.shape[1], recipe.n_outputs)
        if self.scaling is not None and not self.scaling.suits(X, problem, leader, recipe):
            return None
        exact = recipe.solver in FULL_BATCH
        if exact and leader.early_stopping:
            return None  # what is held out, steps of all rows are looked at by
        if recipe.solver != "lbfgs" and hasattr(leader, "delta_"):
            return None
        if exact and float_dtype(parts[0].source) != np.float64 and not _asks_for_labels(scorer, leader):
            return None  # other scores would show that predictions are rounded
        if not (self._is_exact(recipe, leader, parts) if exact else self._steps(recipe, leader, parts, n_params)):
            return None
        problem = problem.placed(recipe.device, recipe.dtype)
        members = []
        for (train, _), own_stretch in zip(splits, stretch, strict=True):
            rows = None if np.array_equal(train, np.arange(len(problem.codes))) else train
            for member in members_of(self.candidates, False):
                member.stretch = own_stretch
                member.rows, member.progress = rows, new_progress(member.estimator, False, False, member.state)
                members.append(member)
        watched = self._hold_out(problem, members, splits) if leader.early_stopping else []
        if any(recipe.batch_rows >= member.n_rows(problem) for member in members) and not exact:
            return None  # equal rows may be merged
        with at_most(1) if exact else threads_for(n_params * recipe.batch_rows):
            network = recipe.network(recipe, problem, members, False)
            if self.scaling is not None:
                assert isinstance(network, Linear)
                seen = self.scaling.seen_through(recipe, problem, network, members, [train for train, _ in splits])
                if seen is None:
                    return None
                network = seen
            if recipe.solver == "lbfgs" and not has_exact_solver(recipe, problem, network):
                return None
            solve(recipe, problem, network, members, recipe.epochs, _monitor(recipe, members, watched))
            if any(member.progress.interrupted for member in members):
                raise KeyboardInterrupt  # it is the search that the user wants to end
            if not exact:
                self._look_at_end(recipe, leader, network, members, [part.placed(*_place(recipe)) for part in parts])
            if any(member.progress.error is not None for member in members):
                return None
            trained = time.time()
            found = zip(*(member.progress.params or [] for member in members), strict=True)
            network = network.with_params([torch.cat(tensors) for tensors in found])
            tests = [test for _, test in splits]
            scores = _of_tests(network, problem, tests)
            if _is_accuracy(scorer, leader):
                marks = _accuracies(scores, problem, tests)
            elif recipe.dtype is torch.float64:  # as predictions are
                marks = _asked(leader, scorer, scores, problem, tests, units)
            else:
                return None
            return marks, members, recipe.solver, trained

    def _is_exact(self, recipe: Recipe, leader: Any, parts: list[Problem]) -> bool:
        """Say whether each fit would be an exact solution in float64 on the CPU."""
        last = leader._recipe(parts[-1], False, False)
        same = (last.solver, last.newton_params) == (recipe.solver, recipe.newton_params)
        is_double = recipe.dtype is torch.float64 and recipe.device.type == "cpu"
        return same and is_double and self.varied <= _FREE and isinstance(leader, LinearModel)

    def _steps(self, recipe: Recipe, leader: Any, parts: list[Problem], n_params: int) -> bool:
        """Say whether each fit would take the same steps of mini-batches, and all of them pay in one stack."""
        free = stackable_now(leader)
        if not self.varied <= free or any(stackable_now(candidate) != free for candidate in self.candidates):
            return False
        if recipe.device.type == "cpu" and (n_params > _MAX_PARAMS or self.n_workers > 1):
            return False
        if sparse.issparse(parts[0].source):
            return False
        if len(parts[0].placed(*_place(recipe)).missing):
            return False  # columns are told apart by where values are missing
        return len({_steps_of(leader._recipe(part, False, False)) for part in parts}) == 1

    def _hold_out(
        self, problem: Problem, members: list[Member], splits: list[tuple[np.ndarray, np.ndarray]]
    ) -> list[Problem]:
        """Keep rows out of each split's training, to watch; return them for each model."""
        leader, watched = self.candidates[0], []
        for train, own in zip((train for train, _ in splits), _by_split(members, splits), strict=True):
            fraction, seed = leader.validation_fraction, own[0].state.split_seed
            rows, weight, held_out = problem.take(train).split(seed, fraction, False, leader.classes_)
            if weight is not None or held_out is None:
                raise ValueError("Rows are divided by their weight.")
            check_scoring(leader, held_out)
            rows = train[rows]
            for member in own:
                member.rows = rows
                if leader._watched_scoring in (None, "accuracy"):
                    member.progress.grain = held_out.grain
            watched += [held_out] * len(own)
        return watched

    def _look_at_end(
        self, recipe: Recipe, leader: Any, network: Network, members: list[Member], parts: list[Problem]
    ) -> None:
        for part, models in zip(parts, np.arange(len(members)).reshape(len(parts), -1), strict=True):
            own = [replace(members[m], rows=None) for m in models]  # all of the part
            look_at_end(recipe, part, network.select(models), own, judge_of([leader]))


def _has_units(leader: Any) -> bool:
    """Say whether "auto" is a strength of penalties in the unit of a regressor's targets: squares have it in both."""
    if not isinstance(leader, LinearModel):
        return False
    return type(leader._loss(1)) is not SquaredValues or leader.penalty not in ("l2", None)


def _by_split(members: list[Member], splits: list) -> list[list[Member]]:
    """Group members, of one split after the other."""
    n = len(members) // len(splits)
    return [members[start : start + n] for start in range(0, len(members), n)]


def _monitor(recipe: Recipe, members: list[Member], watched: list[Problem]) -> Monitor | None:
    """Make what watches each model on rows of its own, if there are any."""
    if not watched:
        return None
    estimators = [member.estimator for member in members]
    return monitor_of(estimators, watched, recipe.judged_by, estimators[0]._scoring_for(watched[0]))


def _is_accuracy(scorer: Callable, estimator: Any) -> bool:
    """Say whether a scorer asks for nothing but the accuracy."""
    if isinstance(scorer, QuickScorers):
        return scorer.is_accuracy
    is_plain = type(scorer) is _PassthroughScorer or name_of(scorer) == "accuracy"
    return is_plain and not isinstance(estimator, BaseTorchRegressor)


def _asks_for_labels(scorer: Callable, estimator: Any) -> bool:
    """Say whether a scorer asks for nothing but the classes that are predicted."""
    if isinstance(estimator, BaseTorchRegressor):
        return False
    return all(type(one) is _PassthroughScorer or methods_of(one) == ["predict"] for one in scorers_of(scorer))


def _place(recipe: Recipe) -> tuple[torch.device, torch.dtype]:
    return recipe.device, recipe.dtype


def _steps_of(recipe: Recipe) -> tuple:
    """Name what the steps of a fit follow from, beside its data and what candidates differ in."""
    how = recipe.solver, recipe.batch_rows, recipe.proximal, *_place(recipe), recipe.products, recipe.n_bins
    return (
        *how,
        recipe.schedule,
        recipe.horizon,
        recipe.due,
        recipe.epochs,
        recipe.to_end,
        recipe.averages,
        recipe.auto_rate,
    )


def _of_tests(network: Network, problem: Problem, tests: list[np.ndarray]) -> list[Tensor]:
    """Compute the scores of each split's models on its test rows, (candidates, n_test, C)."""
    rows, each = problem.rows(), np.arange(network.n_models).reshape(len(tests), -1)
    if isinstance(network, Linear):  # one product of all costs less than several calls
        scores = scores_of(network, rows, np.arange(len(problem.codes))).cpu()
        of_splits = scores.view(*each.shape, *scores.shape[1:])
        return [own[:, torch.from_numpy(test)] for own, test in zip(of_splits, tests, strict=True)]
    return [scores_of(network.select(own), rows, test).cpu() for own, test in zip(each, tests, strict=True)]


def _accuracies(scores: list[Tensor], problem: Problem, tests: list[np.ndarray]) -> list[list[float]]:
    """Compute the accuracies of models (splits, candidates), each on the test rows of its split."""
    marks = []
    for own, test in zip(scores, tests, strict=True):
        predicted = to_numpy(own[:, :, 0] > 0 if own.shape[2] == 1 else own.argmax(2))
        marks.append((predicted == problem.codes[test]).mean(1).tolist())
    return marks


def _asked(
    leader: Any,
    scorer: Callable,
    scores: list[Tensor],
    problem: Problem,
    tests: list[np.ndarray],
    units: OwnUnits | None,
) -> list:
    """Ask a scorer about the answers of models (splits, candidates) about the test rows of their splits."""
    marks, scorer = [], quickly(scorer)
    for number, (of_split, test) in enumerate(zip(scores, tests, strict=True)):
        if units is not None:
            units.take_on(leader, number)
        labels, rows = leader._labels_of(problem)[test], np.empty((len(test), 0))
        found = [scorer(leader._answers(own), rows, labels) for own in of_split]
        # plain numbers; of a scorer that has failed there is none
        marks.append(
            [{name: float(v) for name, v in mark.items()} if isinstance(mark, dict) else float(mark) for mark in found]
        )
    return marks
