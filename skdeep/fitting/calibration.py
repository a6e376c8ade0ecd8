"""The fold models behind a calibration: each is trained without a part of the rows, and scores it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from skdeep.data.inputs import Classifier, to_numpy
from skdeep.data.problem import Problem, scores_of
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.networks import Network
from skdeep.engine.shards import AnyRows
from skdeep.engine.training import Progress
from skdeep.fitting.calibrators import doubt
from skdeep.fitting.exactly import solves
from skdeep.fitting.fitted import able, needs_float64
from skdeep.fitting.links import calibrate
from skdeep.fitting.recipe import FoldModels, Member, Recipe, Stack, penalty_of, trained_on
from skdeep.fitting.settings import FULL_BATCH
from skdeep.fitting.solving import solve

#: Folds whose out-of-fold scores a calibration is fitted on: most, and one less from each of such numbers of rows on,
#: if they are so many per class.
_MOST_FOLDS, _ENOUGH, _ENOUGH_PER_CLASS = 5, (300, 1500), 40
#: Rows held out by two folds or more that are enough for one temperature: further folds hold out nothing.
_ENOUGH_HELD_OUT = 400
#: Scores of all rows up to which folds train in the stack of the model on all rows; and if they begin at its optimum.
_FEW_TERMS, _MANY_TERMS = 2**14, 2**22


def calibrate_each(recipe: Recipe, problem: Problem, members: list[Member], seed: int) -> None:
    """Fit each trained estimator's calibration on scores of models that have not seen the row."""
    if not _is_calibrated(members[0].estimator):
        return
    dealt = members[0].beside or _deal(recipe, problem, members, seed)
    trained = [m for m, member in enumerate(members) if member.progress.error is None]
    scores, runs = _out_of_fold_scores(recipe, problem, members, trained, dealt, seed)
    folds = dealt.folds
    rows, factor = folds.all_held_out()
    assert folds.weight is not None  # merged rows have weights
    codes, weights = problem.codes[rows], np.broadcast_to(folds.weight, (len(members), len(problem.codes)))
    for m in trained:
        estimator, errors = members[m].estimator, [p.error for p in runs[m] if p.error is not None]
        if errors:
            members[m].progress.error = f"in a fold model of the calibration, {errors[0]}"
            continue
        # the model as it predicts: of the columns as they are
        device = able(problem.device, [estimator])
        precise = needs_float64(estimator) and device.type != "mps"
        data = problem.rows().exactly(torch.float64 if precise else problem.dtype)
        data.device = device
        network = estimator._trained_network(data.device, data.dtype)
        own = doubt(to_numpy(scores_of(network, data, folds.rows)[0]), weights[m, folds.rows])
        kept = problem.codes[folds.kept], weights[m, folds.kept] / folds.unit
        scored = slice(len(scores[m]))  # by the first folds
        weight = weights[m, rows[scored]] * factor[scored] / folds.unit
        calibrate(estimator, scores[m], codes[scored], weight, own, kept)


def _is_calibrated(estimator: Classifier) -> bool:
    return estimator.calibration is not None and len(estimator.classes_) > 1


def _deal(recipe: Recipe, problem: Problem, members: list[Member], seed: int) -> FoldModels:
    # what is held out is scored once for all rows that are equal; training is that of the model on all rows
    merges = recipe.batch_rows == problem.n_rows
    distinct, n_classes = problem.distinct(seed), len(members[0].estimator.classes_)
    n_fewer = sum(len(distinct.first) >= max(enough, _ENOUGH_PER_CLASS * n_classes) for enough in _ENOUGH)
    dealt = problem.dealt(distinct, _MOST_FOLDS - n_fewer, seed, {True, merges})
    folds = dealt[True]
    if len(folds.numbers) < 2:
        raise ValueError(
            f"calibration={members[0].estimator.calibration!r} needs at least 2 distinct rows of a class, to hold some "
            "out; pass calibration=None."
        )
    n_folds = np.full(len(members), len(folds.numbers))
    if members[0].estimator.calibration == "temperature" and problem.codes.ndim == 1:
        n_folds[:] = folds.enough(_ENOUGH_HELD_OUT)
        for each in dealt.values():
            each.numbers = folds.numbers[: n_folds.max()]
    return FoldModels(folds, n_folds, trained_on(dealt[merges], len(members)))


def deal_beside(recipe: Recipe, problem: Problem, members: list[Member], seed: int) -> FoldModels | None:
    """Make the folds' models of a single small one that is solved exactly, to train in its stack.

    None where they train after it: nobody may watch, and nothing be known before.
    """
    leader = members[0].estimator
    watched = leader.early_stopping or leader.verbose or leader.callbacks
    exact = recipe.solver == "exact" or (recipe.solver in FULL_BATCH and solves(recipe, problem))
    hinges = exact and not recipe.loss.twice_smooth
    small = problem.n_rows * recipe.n_outputs <= (_MANY_TERMS if recipe.loss.smooth else _FEW_TERMS)
    if len(members) > 1 or watched or not (hinges and small and _is_calibrated(leader)):
        return None
    dealt = _deal(recipe, problem, members, seed)
    dealt.models = [_fold_model(members[0], *dealt.rest[f], 0, RandomSource(seed)) for f in dealt.folds.numbers]
    return dealt


def _fold_model(
    member: Member, rows: np.ndarray, weights: list[np.ndarray | None], m: int, source: RandomSource
) -> Member:
    """Make a model like a member's, number m, to be trained on other rows."""
    return Member(member.estimator, TrainingState(source), _fold_progress(member), rows, weights[m])


def _out_of_fold_scores(
    recipe: Recipe, problem: Problem, members: list[Member], trained: list[int], dealt: FoldModels, seed: int
) -> tuple[dict[int, np.ndarray], dict[int, list[Progress]]]:
    """Compute scores of the rows held out, fold by fold, by each trained member's models; and their progress.

    The folds of a single member train as one stack, and so do several members on the rows they share; models that
    cannot be stacked train one by one.
    """
    leader, numbers = members[0].estimator, dealt.folds.numbers
    stacks = [[(m, f) for f in numbers[: dealt.n_folds[m]]] for m in trained]
    # exact solvers go from one penalty to the next, so that models that end before the optimum depend on others
    limited = recipe.solver in FULL_BATCH and (leader.early_stopping or members[0].progress.warm)
    if not leader.stackable or problem.is_stored:  # each would need other rows of those that are read
        stacks = [[model] for stack in stacks for model in stack]
    elif len(trained) > 1 and not limited:
        of_folds = ([model for stack in stacks for model in stack if model[1] == f] for f in numbers)
        stacks = [stack for stack in of_folds if stack]
    # those of earlier fits too, which a warm start has behind it
    epochs = max(recipe.epochs, len(leader.loss_curve_)) if members[0].progress.warm else recipe.epochs
    scores: dict[int, list[np.ndarray]] = {m: [] for m in trained}
    done: dict[int, list[Progress]] = {m: [] for m in trained}
    data = problem.rows().in_scratch()  # of one memory for all: blocks that come and go leave holes
    for stack in stacks:
        models = dealt.models
        if dealt.network is None:
            of_fold = {f: RandomSource(seed) for f in numbers}
            models = [_fold_model(members[m], *dealt.rest[f], m, of_fold[f]) for m, f in stack]
            penalty = penalty_of(recipe, problem, models)
            network = recipe.network(recipe, problem, models, penalty, False)
            solve(Stack(recipe, problem, network, models, penalty, epochs))
        if any(model.progress.interrupted for model in models):
            raise KeyboardInterrupt
        held_out = [dealt.folds.held_out(f) for _, f in stack]
        if dealt.network is None:
            found = _scores_each(network, data, models, held_out)
        else:
            found = _scores_at_once(dealt.network, data, [members[0], *models], held_out)
        for (m, _), model, own in zip(stack, models, found, strict=True):
            done[m].append(model.progress)
            scores[m].append(own)
            with np.errstate(over="ignore"):
                if model.progress.error is None and not np.isfinite(np.abs(own).sum()):
                    model.progress.error = "scores of rows that it was not trained on overflow"
    return {m: np.concatenate(parts) for m, parts in scores.items()}, done


def _scores_each(
    network: Network, data: AnyRows, models: list[Member], held_out: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Compute the scores that each of some models has of the rows held out of its training."""
    for k, (model, rows) in enumerate(zip(models, held_out, strict=True)):
        own = network.select(np.array([k])).with_params(_params_of(model))
        yield to_numpy(scores_of(own, data, rows)[0])


def _scores_at_once(
    network: Network, data: AnyRows, models: list[Member], held_out: list[np.ndarray]
) -> Iterator[np.ndarray]:
    """Compute them of few rows, of which one call for all models costs less than one for each; the first has none."""
    params = [torch.cat(parts) for parts in zip(*map(_params_of, models), strict=True)]
    of_all = to_numpy(scores_of(network.with_params(params), data, np.arange(len(data))))
    yield from (own[rows] for own, rows in zip(of_all[1:], held_out, strict=True))


def _params_of(member: Member) -> list[torch.Tensor]:
    assert member.progress.params is not None
    return member.progress.params


def _fold_progress(member: Member) -> Progress:
    """Make the stopping rule of a fold's model."""
    estimator, progress = member.estimator, member.progress
    goes_on = progress.warm and estimator.solver_ not in FULL_BATCH  # which come to the optimum from anywhere
    if member.state.trained and (estimator.early_stopping or goes_on):
        # the folds have neither validation data nor a model to begin with: they train as long as was best, or was
        # done, for all rows
        return Progress(0.0, np.inf, max_iter=member.state.trained)
    limit = progress.n_iter if progress.interrupted else np.inf
    return Progress(estimator.tol, member.settings.patience, max_iter=limit)
