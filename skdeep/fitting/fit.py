"""What happens in a fit: from what users pass to trained estimators.

1. `encoding.encode` validates, and makes a `Problem`; the estimator's `_recipe` decides how it is trained: a `Recipe`.
2. The rows are split, and each model of the stack becomes a `Member`. A plain fit has one; a search has one for each of
   its candidates, an ensemble one for each fold (`bagging.py`), and so has a calibration (`calibration.py`).
3. `solving.solve` trains them. What they have learnt becomes attributes, and a calibration is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skdeep.callbacks.observers import make_observer
from skdeep.callbacks.run import Run
from skdeep.data.chunks import are_chunks
from skdeep.data.encoding import draw_seeds, encode, warn_of_light_rows, warn_of_raw_columns
from skdeep.data.inputs import Classifier, Data, OutputSpace, float_dtype
from skdeep.data.labels import Probabilities
from skdeep.data.monitor import Watch
from skdeep.data.problem import Problem
from skdeep.data.scoring import scores_suffice, try_scoring
from skdeep.data.splits import surely_differ
from skdeep.data.state import RandomSource, TrainingState
from skdeep.data.stored import opened_with_targets, warn_of_sorted_rows
from skdeep.engine.group import current
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.schedules import SCHEDULES
from skdeep.engine.threads import threads_for
from skdeep.engine.training import Monitor, Observer, Progress, judge_start
from skdeep.engine.values import SquaredValues
from skdeep.fitting.calibration import deal_beside
from skdeep.fitting.links import fitted_copy, learned
from skdeep.fitting.outcome import Judge, divergence, look_at_end, warn
from skdeep.fitting.recipe import Member, Recipe, Stack, penalty_of, weights_by_model
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import begin, curves, end, goes_on, identify, known_state, new_progress

#: Rows that are passed over sooner than compared.
_FEW_ROWS = 1000


class Procedure(NamedTuple):
    """What an estimator does with members: train them, make them attributes, and what follows from all together."""

    train: Callable[..., tuple[Network, Observer | None]]
    conclude: Callable[[Recipe, Network, Member, np.dtype, OutputSpace], None]
    finish: Callable[[Recipe, Problem, list[Member], int], None]


def fit_alone(
    estimator: Classifier,
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None,
    validation: tuple,
    incremental: bool = False,
) -> Classifier:
    """Train one estimator; raise what goes wrong."""
    with current().watching():
        (failure,) = fit([estimator], X, y, sample_weight, validation, incremental)
        if failure is not None:
            raise failure
    return estimator


def fit(
    estimators: list[Classifier],
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None,
    validation: tuple,
    incremental: bool = False,
    in_stack: bool = False,
    with_probabilities: bool = True,
) -> list[Exception | None]:
    """Train estimators as one stack and set their fitted attributes; return what went wrong, for each.

    They differ in `stackable` parameters only: the first one speaks for all in everything else. `validation` is
    ``X_val``, ``y_val`` and ``sample_weight_val``, or None for each. A call of ``partial_fit`` is `incremental`, one
    epoch; one of a search is `in_stack`. Without probabilities, for which nobody will ask, no temperature is fitted.
    """
    leader = estimators[0]
    going_on = goes_on(leader, incremental)
    X_val, y_val, weight_val = validation
    if (X_val is None) != (y_val is None) and not are_chunks(X_val):
        raise ValueError("X_val and y_val belong together; pass both or neither.")
    if X_val is None and weight_val is not None:
        raise ValueError("sample_weight_val was given without X_val and y_val.")
    if not in_stack:
        names = getattr(leader, "feature_names_in_", None) if going_on else None
        X, y, sample_weight = opened_with_targets(X, y, sample_weight, names)
    others = [begin(estimator, incremental) for estimator in estimators]
    problem = encode(estimators, X, y, sample_weight, going_on=going_on, incremental=incremental)
    recipe = leader._recipe(problem, going_on, incremental)
    problem = problem.placed(recipe.device, recipe.dtype)
    leader.solver_ = recipe.solver
    if not (incremental or recipe.closed_form or getattr(leader, "standardize", True)):
        warn_of_raw_columns(problem)  # a module of the user's may scale them
    if problem.is_stored and problem.shard is None and recipe.solver not in FULL_BATCH:
        warn_of_sorted_rows(problem.source, problem.codes)
    recipe.check(problem.source)
    held_out = None
    if X_val is not None:
        names = getattr(leader, "feature_names_in_", None)
        X_val, y_val, weight_val = opened_with_targets(X_val, y_val, weight_val, names)
        further: Any = {"going_on": True, "incremental": True, "suffix": "_val"}  # rows, which change nothing
        held_out = encode(estimators, X_val, y_val, weight_val, **further).placed(recipe.device, recipe.dtype)
        recipe.check(held_out.source)
    members = members_of(estimators, incremental)
    warn_of_light_rows(problem, estimators, members[0].state.seen)
    split_seed = members[0].state.split_seed
    data = {"estimator": leader, "X": X, "y": y.table if isinstance(y, Probabilities) else y}
    data["metadata"] = None if sample_weight is None else {"sample_weight": sample_weight}
    task = None if incremental or len(estimators) > 1 else _begin_task(leader, data)
    if with_probabilities and not (going_on or incremental or held_out is not None or task is not None):
        members[0].beside = deal_beside(recipe, problem, members, split_seed)
    # full batches go through models one after the other
    n_params = leader._n_params(problem.source.shape[1], recipe.n_outputs)
    n_params *= 1 if recipe.solver in FULL_BATCH else len(estimators)
    with threads_for(int(n_params * max(1.0, recipe.batch_rows * problem.density))):
        network, observer = leader._procedure.train(recipe, problem, held_out, members, going_on, incremental, task)
        progress = [member.progress for member in members]
        if in_stack and any(p.interrupted for p in progress):
            raise KeyboardInterrupt  # it is the search that the user wants to end
        keep(recipe, network, members, float_dtype(problem.source), OutputSpace(X))
        leader.__dict__.pop("history_", None)
        if observer is not None and observer.history is not None:
            leader.history_ = observer.history
        if with_probabilities:
            leader._procedure.finish(recipe, problem, members, split_seed)
    for estimator, names in zip(estimators, others, strict=True):
        end(estimator, names)
    for member in members:
        if member.progress.error is None and not incremental:
            # for calls of partial_fit: "adaptive" leaves nothing of the learning rate at the end of a fit
            member.state.reduction, member.state.loss_to_beat = 1.0, math.inf
            warn(member.estimator, recipe.solver, member.progress)
    if task is not None:
        task.call_on_fit_task_end(**data, reconstruction_attributes={})
    return [None if p.error is None else divergence(p.error) for p in progress]


def keep(recipe: Recipe, network: Network, members: list[Member], dtype: np.dtype, space: OutputSpace) -> None:
    """Make what each model has learnt attributes of its estimator, beside those that the first one has for all."""
    leader = members[0].estimator
    params = leader.get_params(deep=False) if len(members) > 1 else {}
    shared = {k: v for k, v in vars(leader).items() if k not in params} if params else {}
    several = network.n_models // len(members)  # as an ensemble has
    for m, member in enumerate(members):
        if m:
            member.estimator.__dict__.update(shared)
        if member.progress.error is None:
            own = network if len(members) == 1 else network.select(np.arange(m * several, (m + 1) * several))
            leader._procedure.conclude(recipe, own, member, dtype, space)


def members_of(estimators: list[Classifier], incremental: bool) -> list[Member]:
    """Make a model for each estimator; models of one seed share their generator, and with it their batches."""
    seeds = [draw_seeds(estimator.random_state) for estimator in estimators]
    sources = {seed: RandomSource(seed[0]) for seed in seeds}
    known = known_state(estimators[0], incremental)
    states = [known] if known else [TrainingState(sources[seed], seed[1]) for seed in seeds]
    return [Member(*pair) for pair in zip(estimators, states, strict=True)]


def train_each(
    recipe: Recipe,
    problem: Problem,
    held_out: Problem | None,
    members: list[Member],
    going_on: bool,
    incremental: bool,
    task: Any,
) -> tuple[Network, Observer | None]:
    """Train a model for each estimator; return their network, and the observer of a single one."""
    leader, estimators = members[0].estimator, [member.estimator for member in members]
    first = members[0].state
    splits = leader.early_stopping and held_out is None
    fraction = leader.validation_fraction if splits else None
    merge, classes = _merges_rows(recipe, problem), getattr(leader, "classes_", np.empty(0))
    rows, weight, split_off = problem.split(first.split_seed, fraction, merge, classes)
    held_out = held_out or split_off
    scoring = None
    if held_out is not None:
        check_scoring(leader, held_out)
        scoring = leader._scoring_for(held_out)
    for member, own in zip(members, weights_by_model(weight, len(members)), strict=True):
        member.rows, member.weight = rows, own
    is_new = identify(problem, members)
    beside = members[0].beside
    everyone = members if beside is None else [*members, *beside.models]
    penalty = penalty_of(recipe, problem, everyone)
    network = recipe.network(recipe, problem, everyone, penalty, going_on)
    if going_on and not incremental and is_new:
        first.seen_before = getattr(leader, "t_", 0)
    for member in members:
        member.progress = new_progress(member, going_on, incremental)
        member.progress.scores_are_losses = scoring == "loss"
        if held_out is not None and leader._watched_scoring in (None, "accuracy"):
            member.progress.grain = held_out.grain

    judge, epochs = partial(monitor_of, estimators), 1 if incremental else recipe.epochs
    observer = None
    if len(members) == 1 and (leader.verbose or leader.callbacks or task is not None):
        part = problem if rows is None or not splits else problem.take(rows)
        observer = _observer(recipe, leader, part, held_out, 1 if incremental else recipe.max_iter, task)
    monitor = None if held_out is None else judge([held_out], recipe.judged_by, scoring)
    if going_on and (is_new or first.solver != recipe.solver):
        first.trained = 0
    if going_on and not incremental:
        judge_start(network, [member.progress for member in members], monitor)
        network = _better_start(recipe, problem, network, members, judge) if is_new else network
    solve(Stack(recipe, problem, network, everyone, penalty, epochs, monitor, observer))
    if beside is not None:
        beside.network, network = network, network.select(np.arange(1))
    look_at_end(recipe, problem, network, members, judge)
    return network, observer


def _merges_rows(recipe: Recipe, problem: Problem) -> bool:
    """Tell whether equal rows are passed over once: in single precision, their order would be seen.

    By exact solvers, only where there may be enough of them to matter, or each has unknowns, which ends elsewhere
    within a gap.
    """
    if recipe.batch_rows < problem.n_rows or problem.is_stored:
        return False
    if recipe.solver not in FULL_BATCH:
        return True
    # least squares pass over the rows about once, which is sooner done than finding which are equal
    passes_often = problem.n_rows > _FEW_ROWS and type(recipe.loss) is not SquaredValues
    if recipe.loss.smooth and not passes_often:
        return False
    return problem.shard is not None or not surely_differ(problem.X)


def _better_start(recipe: Recipe, problem: Problem, known: Network, members: list[Member], judge: Judge) -> Network:
    """Choose the network to train on another problem than the last fit's: the one known, or a new one.

    Where the objective of a new one is lower, there is more to unlearn than to learn.
    """
    (member,) = members
    member.state.optimizer = member.state.columns = None
    monitor, penalty = judge([problem.counted()], recipe.loss, "loss"), penalty_of(recipe, problem, members)
    new = recipe.network(recipe, problem, members, penalty, False)
    of_known, of_new = (
        float((monitor(network, np.arange(1))[1] + penalty.value(network.penalised()))[0]) for network in (known, new)
    )
    member.progress.warm = of_known <= of_new
    return known if member.progress.warm else new


def monitor_of(
    estimators: list[Classifier], parts: list[Problem], loss: Loss, scoring: str | Callable | None
) -> Monitor:
    """Make what judges the models of estimators, of which the first one speaks for all, by data of all or of each."""
    leader = estimators[0]
    asked = leader._answers if scores_suffice(scoring, leader) else None
    return Watch(parts, loss, scoring, leader._labels_of, partial(fitted_copy, estimators), asked)


def check_scoring(estimator: Classifier, judged: Problem) -> None:
    """Raise, before any training, if ``scoring`` is not defined for the labels of the rows to judge by."""
    judged = judged.counted()
    of_rows = judged.codes, estimator._labels_of(judged), judged.sample_weight
    try_scoring(estimator._scoring_for(judged), estimator, estimator._faultless(judged), *of_rows)


def _observer(
    recipe: Recipe, estimator: Classifier, problem: Problem, held_out: Problem | None, max_iter: int, task: Any
) -> Observer | None:
    """Make what speaks to callbacks; None if nobody listens."""
    dtype, space = float_dtype(problem.source), OutputSpace(problem.source)
    talks = problem.shard is None or problem.shard.group.rank == 0
    asks = bool(estimator.callbacks) or task is not None  # what is printed takes no rows of other processes

    def snapshot(network: Network, progress: Progress | None = None) -> dict[str, Any]:
        of_run = {} if progress is None else curves(estimator, progress)
        # callbacks may keep them: a copy of the parameters
        return {**learned(estimator, network.snapshot(), 0, dtype, space), **of_run}

    watched = None
    if held_out is not None:
        watched = held_out.X if asks else held_out.source, estimator._labels_of(held_out)
    rows = problem.X if asks else problem.source, estimator._labels_of(problem), problem.sample_weight
    run = Run(estimator, snapshot, *rows, validation=watched, max_iter=max_iter, batch_size=recipe.batch_rows)
    observer = make_observer(run, estimator.callbacks, estimator.verbose if talks else 0, task)
    return observer or Observer()  # in every process: what is decided by it is decided alike


def _begin_task(estimator: Classifier, data: dict[str, Any]) -> Any:
    """Begin scikit-learn's context of the whole fit, on this data; None when no callback listens."""
    listens = getattr(estimator, "_skl_callbacks", None)  # those of a search that listen to fits are there, too
    if not listens and not hasattr(estimator, "_parent_callback_ctx"):
        return None
    context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
    if not listens:
        return None
    return context.call_on_fit_task_begin(**data)


def conclude(recipe: Recipe, network: Network, member: Member, dtype: np.dtype, space: OutputSpace) -> None:
    """Set the fitted attributes of a member's estimator."""
    estimator, state, progress = member.estimator, member.state, member.progress
    assert progress.params is not None
    final = network.with_params(progress.params)
    final.settle()
    estimator.__dict__.update(learned(estimator, final, 0, dtype, space) | curves(estimator, progress))
    state.optimizer = progress.optimizer_state or None
    state.solver = recipe.solver
    epochs = progress.kept_iter if progress.watch_score else progress.n_iter
    state.trained = epochs if not progress.warm else state.trained and state.trained + epochs
    if state.optimizer is not None:
        factor = SCHEDULES[recipe.schedule](
            np.zeros(1), np.array([progress.samples]), getattr(recipe.settings, "power_t", 0.5)
        )
        state.learning_rate = float(np.squeeze(state.optimizer["learning_rate"] * factor))
    estimator._optimizer = state
    estimator._no_improvement_count = progress.no_improvement
