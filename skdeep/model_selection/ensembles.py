"""Ensembles on all splits: their members as one stack, where a step of all takes few more calls than a step of one.

Each split's data is encoded as its fit would encode it, and put into one array with the others'; all before and after
training is what a fit does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from sklearn.base import clone

from skdeep.compat.sklearn import _safe_indexing, _score
from skdeep.data.encoding import encode
from skdeep.data.inputs import Data, OutputSpace, float_dtype
from skdeep.data.problem import Problem
from skdeep.engine.networks import Network
from skdeep.engine.threads import threads_for
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.bagging import Dealt, deal, train_dealt
from skdeep.fitting.fit import keep, members_of
from skdeep.fitting.outcome import warn
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.starts import begin, end
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.evaluation import Task, of_one_kind, share_seed
from skdeep.model_selection.grid import is_plain_call, parts_of, result_of, steps_of
from skdeep.model_selection.grid_rows import WITHOUT_UNIT
from skdeep.model_selection.stacks import MAX_IN_ONE_ARRAY, CannotStack, stackable_now, warn_of_fault, why_alone

#: Weights of all members of a stack: with more, nothing is gained.
_MAX_PARAMS = 1 << 21


def evaluate_ensembles(tasks: dict[int, Task], seed: int, n_workers: int) -> dict[int, dict]:
    """Evaluate the tasks, by their numbers, that are ensembles of one kind on several splits; leave out the others."""
    results: dict[int, dict] = {}
    if n_workers > 1:  # which train those of several splits in less time
        return results
    for own in of_one_kind({i: task for i, task in tasks.items() if _is_ensemble(task)}):
        found = _evaluate([tasks[i] for i in own], seed)
        results |= zip(own, found, strict=True) if found is not None else ()
    return results


def _is_ensemble(task: Task) -> bool:
    """Tell whether a task is an ensemble that may be trained with others."""
    estimator, options = task.estimator, task.options
    if not isinstance(estimator, BaseTorchEstimator) or not estimator._averages_probabilities:
        return False
    if why_alone(estimator) is not None or estimator.warm_start:
        return False
    return not (options["fit_params"] or options["score_params"]) and is_plain_call(task)


def _evaluate(tasks: list[Task], seed: int) -> list[dict] | None:
    """Return the results of ``_fit_and_score`` for all tasks; None if their fits are not of one kind."""
    found: dict[int, dict] = {}
    by_split = [list(group) for _, group in groupby(sorted(enumerate(tasks), key=_rows_of), key=_rows_of)]
    if len(by_split) < 2:
        return None
    try:
        with own_settings():
            candidates = [
                [clone(task.estimator).set_params(**clone(task.parameters, safe=False)) for _, task in own]
                for own in by_split
            ]
            for own in candidates:
                share_seed(own, seed)
            start, firsts = time.time(), [own[0][1] for own in by_split]
            _check_alike(tasks, candidates)
            _fit(
                [
                    _FitOfSplit.of(own, task.X, task.y, task.options["train"])
                    for own, task in zip(candidates, firsts, strict=True)
                ]
            )
            fit_time = (time.time() - start) / len(tasks)
        for own, estimators in zip(by_split, candidates, strict=True):
            for (number, task), estimator in zip(own, estimators, strict=True):
                marks, seconds = [], list[float]()
                for rows in (task.options[part] for part in parts_of(task)):
                    start = time.time()
                    data = _safe_indexing(task.X, rows), _safe_indexing(task.y, rows)
                    marks.append(_score(estimator, *data, task.scorer, {}, task.options["error_score"]))
                    seconds.append(time.time() - start)
                found[number] = result_of(task, marks, {"fit_time": fit_time, "score_time": seconds[0]})
    except Exception as error:  # a fit says better what is wrong with the data
        warn_of_fault(error)
        return None
    return [found[number] for number in range(len(tasks))]


def _rows_of(numbered: tuple[int, Task]) -> tuple[int, ...]:
    """Make the key of a task's rows."""
    _, task = numbered
    return tuple(map(id, (task.X, task.y, task.options["train"], task.options["test"])))


def _check_alike(tasks: list[Task], candidates: list[list]) -> None:
    """Raise where candidates differ in more than models of a stack may, or their parameters are none."""
    free = stackable_now(candidates[0][0])
    if any(not task.parameters.keys() <= free for task in tasks):
        raise CannotStack("Candidates differ in more than models of a stack may.")
    for candidate in (one for own in candidates for one in own):
        candidate._validate_params()
        if stackable_now(candidate) != free:
            raise CannotStack("Candidates differ in what models of a stack may differ in.")


@dataclass
class _FitOfSplit:
    """The fit of the ensembles of one split: all but the training, which is of all splits."""

    estimators: list
    others: list[set[str]]  # names of their attributes that are no fit's
    X: Data  # the split's training rows, and what they are encoded to
    problem: Problem
    recipe: Recipe
    members: list[Member]  # the ensembles
    dealt: Dealt  # the models that they consist of, and what these watch

    @classmethod
    def of(cls, estimators: list, X: Data, y: Data, train: np.ndarray) -> _FitOfSplit:
        """Encode a split's training rows, and deal them among the members; see `skdeep.fitting.fit.fit`."""
        leader, (X, y) = estimators[0], (_safe_indexing(X, train), _safe_indexing(y, train))
        others = [begin(estimator, False) for estimator in estimators]
        problem = encode(estimators, X, y, None, going_on=False, incremental=False)
        recipe: Recipe = leader._recipe(problem, False, False)
        problem = problem.placed(recipe.device, recipe.dtype)
        leader.solver_ = recipe.solver
        recipe.check(problem.source)
        if type(problem.source) is not np.ndarray or problem.weight is not None:
            raise CannotStack("Rows are no array, or have weights.")
        if isinstance(leader, BaseTorchRegressor) and type(recipe.loss) not in WITHOUT_UNIT:
            raise CannotStack("A loss that knows of a unit is another one for each split.")
        if recipe.solver in FULL_BATCH or recipe.device.type != "cpu" or recipe.batch_rows >= problem.n_rows:
            raise CannotStack("Steps are of all rows, or on an accelerator.")
        members = members_of(estimators, False)
        return cls(estimators, others, X, problem, recipe, members, deal(recipe, problem, None, members))

    @property
    def kind(self) -> tuple:
        """What splits of one stack have in common."""
        problem, leader = self.problem, self.estimators[0]
        shape = problem.source.shape[1], problem.source.dtype, problem.indicators.start, problem.indicators.stop
        classes = leader.classes_.tolist() if hasattr(leader, "classes_") else ()
        missing = problem.missing.tolist()  # by which columns are told apart
        return steps_of(self.recipe), *shape, tuple(classes), tuple(missing), self.recipe.n_outputs

    @property
    def n_params(self) -> int:
        """Weights of all members."""
        own = self.estimators[0]._n_params(self.problem.source.shape[1], self.recipe.n_outputs)
        return own * len(self.estimators)  # an ensemble's are those of its members

    def placed_in(self, together: Problem, start: int) -> tuple[list[Member], list[Problem]]:
        """Make the models of rows that begin at a place in the rows of all splits, and what they watch."""
        n, known = len(self.problem.codes), dict[int, np.ndarray]()  # one object where models share it

        def among(rows: np.ndarray | None) -> np.ndarray:
            return known.setdefault(id(rows), start + (np.arange(n) if rows is None else rows))

        def spread(weight: np.ndarray | None) -> np.ndarray | None:
            room = start, len(together.codes) - start - n
            return None if weight is None else known.setdefault(id(weight), np.pad(weight, room))

        models = [replace(model, rows=among(model.rows), weight=spread(model.weight)) for model in self.dealt.models]
        watched = [together.take(among(part.index), part.sample_weight) for part in self.dealt.watched]
        return models, watched

    def conclude(self, network: Network) -> None:
        """Make attributes of what the members have learnt, and calibrate the ensembles."""
        self.dealt.hand_back(self.members)
        if any(member.progress.interrupted for member in self.members):
            raise KeyboardInterrupt  # it is the search that the user wants to end
        if any(member.progress.error is not None for member in self.members):
            raise CannotStack("A model has failed.")
        keep(self.recipe, network, self.members, float_dtype(self.problem.source), OutputSpace(self.X))
        leader = self.estimators[0]
        leader._procedure.finish(self.recipe, self.problem, self.members, self.members[0].state.split_seed)
        for estimator, names in zip(self.estimators, self.others, strict=True):
            end(estimator, names)
        for member in self.members:
            warn(member.estimator, self.recipe.solver, member.progress)


def _fit(splits: list[_FitOfSplit]) -> None:
    """Train the ensembles of all splits, as few stacks; raise `CannotStack` if there would be one for each."""
    of_kinds: dict[tuple, list[_FitOfSplit]] = {}
    for split in splits:  # one row more may make another batch
        of_kinds.setdefault(split.kind, []).append(split)
    if len(of_kinds) == len(splits):
        raise CannotStack("Steps follow from a split's rows.")
    if sum(split.problem.source.size for split in splits) > MAX_IN_ONE_ARRAY:
        raise CannotStack("The rows of all splits are too many.")
    each = max(1, min(_MAX_PARAMS // splits[0].n_params, len(splits)))
    if each < 2:
        raise CannotStack("One ensemble is a large stack itself.")
    for own in of_kinds.values():
        for part in np.array_split(np.arange(len(own)), -(-len(own) // each)):
            _fit_together([own[i] for i in part])


def _fit_together(splits: list[_FitOfSplit]) -> None:
    """Train the ensembles of some splits as one stack."""
    recipe, first = splits[0].recipe, splits[0].problem
    source, target, codes = (
        np.concatenate([getattr(split.problem, name) for split in splits]) for name in ("source", "target", "codes")
    )
    together = Problem(source, target, codes, None, None, first.device, first.dtype, indicators=first.indicators)
    starts = np.cumsum([0] + [len(split.problem.codes) for split in splits[:-1]])
    placed = [split.placed_in(together, start) for split, start in zip(splits, starts.tolist(), strict=True)]
    models, watched = ([one for part in parts for one in part] for parts in zip(*placed, strict=True))
    n_params = sum(split.n_params for split in splits)
    with threads_for(int(n_params * max(1.0, recipe.batch_rows * together.density))):
        network = train_dealt(recipe, together, models, watched)
        leader, *others = (split.estimators[0] for split in splits)
        for other in others:  # what the network's form is called
            other.__dict__.update({k: v for k, v in vars(leader).items() if k not in vars(other)})
        ends = np.cumsum([len(own) for own, _ in placed])
        for split, own in zip(splits, np.split(np.arange(len(models)), ends[:-1]), strict=True):
            split.conclude(network.select(own))
