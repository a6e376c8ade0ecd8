"""Members that each leave out a fold of the data, as one stack: their training, and what they say of rows left out."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.data.answers import AssembledAnswers, own_methods
from skdeep.data.encoding import draw_seeds
from skdeep.data.inputs import Classifier, OutputSpace, to_numpy
from skdeep.data.monitor import Watch
from skdeep.data.problem import Problem, scores_of
from skdeep.data.scoring import as_score
from skdeep.data.splits import DIVIDED, KEPT, Folds
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.networks import Network
from skdeep.engine.per_model import index_of, numbered, to_device
from skdeep.engine.training import Progress
from skdeep.fitting.calibrators import DOUBT, doubt
from skdeep.fitting.fit import check_scoring
from skdeep.fitting.fitted import able, needs_float64
from skdeep.fitting.links import CALIBRATED, calibrate, fitted_copy
from skdeep.fitting.recipe import Member, Recipe, Stack, penalty_of, trained_on, weights_by_model
from skdeep.fitting.settings import changed, setting_names
from skdeep.fitting.solving import solve
from skdeep.fitting.starts import curves, end

#: Numbers that rows choose by the epoch that is best for them: so many were measured (docs/decisions/regression.rst).
_CHOSEN = 4


@dataclass
class _Runs(Progress):
    """The runs of an ensemble's members, and what they amount to together."""

    members: list[Progress] = field(default_factory=list)
    folds: Folds | None = None  # which rows each member has not seen
    seeds: list[int] = field(default_factory=list)  # the ``random_state`` of each member
    watched_own: bool = True  # whether each was judged by the rows that it has not seen

    @classmethod
    def of(cls, members: list[Progress], **dealt: Any) -> _Runs:
        errors = [f"in member {k}, {p.error}" for k, p in enumerate(members) if p.error is not None]
        return cls(
            watch_score=True,
            scores_are_losses=True,
            stopped="Each member keeps its best epoch.",  # how many there are is a choice
            n_iter=max(p.n_iter for p in members),
            samples=sum(p.samples for p in members),
            loss_curve=_mean_curve([p.loss_curve for p in members]),
            validation_losses=_mean_curve([p.validation_losses for p in members]),
            validation_scores=_mean_curve([p.validation_scores for p in members]),
            interrupted=any(p.interrupted for p in members),
            error=errors[0] if errors else None,
            members=members,
            **dealt,
        )

    @property
    def luck(self) -> float:
        """How many times as large as out of fold squares of errors are on other rows, about.

        A member keeps the epoch that is best for the very rows that it is judged by: as if these had chosen some
        numbers (Akaike, 1974).
        """
        assert self.folds is not None
        rows, weight = self.folds.rows, self.folds.weight
        n_rows = float(len(rows))
        if weight is not None:  # of uneven weights, fewer tell as much (Kish, 1965)
            own = weight[..., rows] / weight[..., rows].max()
            n_rows = float((np.square(own.sum(-1)) / np.square(own).sum(-1)).min())
        return 1 + 2 * _CHOSEN * len(self.folds.numbers) / n_rows if self.watched_own else 1.0


def _mean_curve(curves: list[list[float]]) -> list[float]:
    """Average curves over the members that were still training, epoch by epoch."""
    return [float(np.mean([c[i] for c in curves if i < len(c)])) for i in range(max(map(len, curves)))]


@dataclass
class Dealt:
    """The members of some ensembles, before training."""

    models: list[Member]  # of one ensemble after the other
    folds: Folds
    seeds: list[list[int]]  # the ``random_state`` of each member, for each ensemble
    watched: list[Problem]  # what judges each of `models` after an epoch; or one for all

    def hand_back(self, ensembles: list[Member]) -> None:
        """Tell ensembles of their members' runs."""
        n = len(self.folds.numbers)
        for i, (ensemble, own) in enumerate(zip(ensembles, self.seeds, strict=True)):
            parts = [model.progress for model in self.models[i * n : (i + 1) * n]]
            ensemble.progress = _Runs.of(parts, folds=self.folds, seeds=own, watched_own=len(self.watched) > 1)


def train_folds(
    recipe: Recipe, problem: Problem, held_out: Problem | None, members: list[Member], *_: Any
) -> tuple[Network, None]:
    """Train the members of all ensembles as one stack; see `skdeep.fitting.fit.train_each`."""
    dealt = deal(recipe, problem, held_out, members)
    network = train_dealt(recipe, problem, dealt.models, dealt.watched)
    dealt.hand_back(members)
    return network, None


def train_dealt(recipe: Recipe, problem: Problem, models: list[Member], watched: list[Problem]) -> Network:
    """Train members, each of which is watched on rows that it is not trained on."""
    leader = models[0].estimator
    penalty = penalty_of(recipe, problem, models)
    network = recipe.network(recipe, problem, models, penalty, False)
    fitted = partial(fitted_copy, [model.estimator for model in models])
    monitor = Watch(watched, recipe.judged_by, _watched_score(leader), leader._labels_of, fitted)
    solve(Stack(recipe, problem, network, models, penalty, recipe.epochs, monitor))
    return network


def deal(recipe: Recipe, problem: Problem, held_out: Problem | None, members: list[Member]) -> Dealt:
    """Make the members of ensembles, each of which leaves out a fold."""
    leader = members[0].estimator
    if problem.is_stored:  # each member would need other rows of those that are read
        raise ValueError(
            f"{type(leader).__name__} needs all rows in memory, where X is not: its members are trained side by side, "
            f"on rows in orders of their own. Use {leader._member_class.__name__}, or several with bagging of your own."
        )
    check_scoring(leader, problem)
    split_seed = members[0].state.split_seed
    merges = recipe.batch_rows == problem.n_rows  # see Problem.merged
    dealt = problem.dealt(problem.distinct(split_seed), leader.n_estimators, split_seed, {False, merges})
    folds = dealt[False]
    numbers = folds.numbers  # on tiny data, some are empty
    if len(numbers) == 0:
        raise ValueError(
            f"{type(leader).__name__} needs at least 2 distinct rows of a class, to leave some out; use "
            f"{leader._member_class.__name__}."
        )
    rest = trained_on(dealt[merges], len(members))
    generators = [member.state.generator for member in members]
    first, number = numbered(generators)  # ensembles of one seed share their draws
    drawn = [generators[m].integers(2**31 - 1, size=len(numbers)).tolist() for m in first]
    seeds = [drawn[n] for n in number]
    of_seed = {seed: RandomSource(draw_seeds(seed)[0]) for own in seeds for seed in own}
    # a border between the edges of one member is near an edge of another (averaged shifted histograms; Scott, 1985)
    shifts = (leader._shifts_bins * ((np.arange(len(numbers)) + 0.5) / len(numbers) - 0.5)).tolist()
    models = []
    for m, (member, own) in enumerate(zip(members, seeds, strict=True)):
        patience = member.settings.patience if leader.early_stopping else math.inf
        for f, seed, shift in zip(numbers, own, shifts, strict=True):
            progress = Progress(member.estimator.tol, patience, watch_score=True, scores_are_losses=True)
            rows, weights = rest[f]
            models.append(
                Member(member.estimator, TrainingState(of_seed[seed]), progress, rows, weights[m], shift=shift)
            )
    return Dealt(models, folds, seeds, _watched(len(members), problem, held_out, folds))


def _watched_score(ensemble: Classifier) -> str:
    """Name the score of an epoch: what is left to the calibration is not the epoch's fault."""
    return "loss" if ensemble.calibration is None else "calibrated_loss"


def _watched(n_ensembles: int, problem: Problem, held_out: Problem | None, folds: Folds) -> list[Problem]:
    """List the data that judges each model after an epoch: the rows left out, or the caller's validation data."""
    if held_out is not None:
        if held_out.class_weight is not None and held_out.class_weight.ndim == 2:
            held_out.class_weight = np.repeat(held_out.class_weight, len(folds.numbers), axis=0)
        return [held_out]
    left_out = [(folds.held_out(f), folds.held_out_factor(f)) for f in folds.numbers]
    watched = [problem.take(*rows) for _ in range(n_ensembles) for rows in left_out]
    for i, part in enumerate(watched):
        if part.class_weight is not None and part.class_weight.ndim == 2:
            part.class_weight = part.class_weight[i // len(left_out)]
    return watched


# ---- fitted attributes -----------------------------------------------------------------------------------------------


def conclude(recipe: Recipe, network: Network, member: Member, dtype: np.dtype, space: OutputSpace) -> None:
    """Make the members of an ensemble estimators; see `skdeep.fitting.fit.conclude`."""
    ensemble, runs = member.estimator, member.progress
    assert isinstance(runs, _Runs)
    form = ensemble._member_class
    params = {name: getattr(ensemble, name) for name in form._get_param_names() if hasattr(ensemble, name)}
    params |= {"early_stopping": True, "scoring": _watched_score(ensemble)}
    if recipe.n_bins:  # however few rows a member alone would choose by
        params |= {"numeric_embedding": "piecewise", "n_bins": recipe.n_bins}
    own = {} if ensemble.early_stopping else {"n_iter_no_change": math.inf}
    own |= {"batch_size": recipe.batch_rows} if hasattr(recipe.settings, "batch_size") else {}
    if isinstance(ensemble.solver, str):
        params |= own
    else:
        params = {name: params[name] for name in params.keys() - setting_names()}  # the object has them all
    ensemble.__dict__.update(told := curves(ensemble, runs))
    not_theirs = {*form._get_param_names(), "n_estimators", *ensemble._out_of_fold, *told, "_fitted"}
    not_theirs.add(ensemble._coef_attribute)
    shared = {
        k: v for k, v in vars(ensemble).items() if k not in not_theirs and not k.startswith(("_skl_", "_callback_"))
    }
    ensemble.estimators_ = []
    for k, (progress, seed) in enumerate(zip(runs.members, runs.seeds, strict=True)):
        if not isinstance(ensemble.solver, str):  # one for each: they are the user's to change
            params["solver"] = changed(member.settings, own)
        estimator = form(**params | {"random_state": seed})
        others = set(vars(estimator))
        assert progress.params is not None
        final = network.select(np.array([k])).with_params(progress.params)
        estimator.__dict__.update(shared)  # which says what its scores and losses are of
        estimator.__dict__.update(estimator._learned(final, 0, dtype, space) | curves(estimator, progress))
        end(estimator, others)
        ensemble.estimators_.append(estimator)


# ---- out of fold -----------------------------------------------------------------------------------------------------


def judge_each(recipe: Recipe, problem: Problem, members: list[Member], seed: int) -> None:
    """Calibrate the ensembles on out-of-fold scores, and judge them by these."""
    weights = weights_by_model(problem.weight, len(members))
    for member, weight in zip(members, weights, strict=True):
        runs = member.progress
        if isinstance(runs, _Runs) and runs.error is None:
            _judge(member.estimator, problem, weight, runs)


@torch.no_grad()
def _judge(ensemble: Classifier, problem: Problem, weight: np.ndarray | None, runs: _Runs) -> None:
    """Calibrate on the out-of-fold scores, and keep what the ensemble says of rows that are new to it."""
    folds = runs.folds
    assert folds is not None
    data = problem.shared(ensemble._rows(problem.some_rows, able(problem.device, [ensemble]), needs_float64(ensemble)))
    tensor = data.device, data.dtype
    n_outputs = ensemble.n_outputs_

    networks = [estimator._trained_network(*tensor) for estimator in ensemble.estimators_]
    pairs = list(zip(networks, folds.numbers, strict=True))
    if ensemble.calibration == "temperature":
        ensemble.temperature_ = 1.0
    if ensemble.calibration is not None and len(ensemble.classes_) > 1:
        rows, factor = folds.all_held_out()
        counts = (1.0 if weight is None else weight[rows]) * factor / folds.unit
        scores = to_numpy(torch.cat([scores_of(n, data, folds.held_out(f)) for n, f in pairs], dim=1)[0])
        # each member says its part of what the ensemble says of the further observation
        own = doubt(scores, counts, DOUBT / len(folds.numbers))
        unseen = (
            problem.codes[folds.kept],
            (np.ones(len(folds.kept)) if weight is None else weight[folds.kept]) / folds.unit,
        )
        calibrate(ensemble, scores, problem.codes[rows], counts, own, unseen)
    calibration = {name: value for name, value in vars(ensemble).items() if name in CALIBRATED}
    for estimator in ensemble.estimators_:
        estimator.__dict__.update(calibration)
    if ensemble.calibration == "sigmoid":  # which is in their weights now
        networks = [estimator._trained_network(*tensor) for estimator in ensemble.estimators_]
    everywhere = networks[0].params[0].new_full((len(problem.codes), n_outputs), math.nan)

    def of_members(rows: np.ndarray) -> Tensor:
        return torch.cat([scores_of(network, data, rows) for network in networks])

    def put(rows: np.ndarray, scores: Tensor, say: np.ndarray | None = None) -> None:
        own = None if say is None else to_device(torch.from_numpy(say), scores.device, scores.dtype)
        everywhere[index_of(rows, scores)] = ensemble._combined(scores, own)

    for network, f in zip(networks, folds.numbers, strict=True):
        if len(rows := folds.rows[folds.fold == f]):
            put(rows, scores_of(network, data, rows))
    if folds.divides:  # each observation is judged by the member that has not seen it
        rows = folds.rows[folds.fold == DIVIDED]
        put(rows, of_members(rows), folds.parts_of_divided)
    new = folds.rows[folds.fold != KEPT]
    scores = everywhere[torch.from_numpy(new).to(everywhere.device)]
    ensemble.oof_score_ = _score_of(
        ensemble, scores, problem.take(new), weight if weight is None else weight[new], folds
    )
    if problem.subset is not None:
        rest = np.flatnonzero(problem.sample_weight == 0)
        put(rest, scores_of(ensemble._trained_network(*tensor), data, rest))
    ensemble._keep_out_of_fold(everywhere, problem, weight, runs.luck, of_members)


def _score_of(ensemble: Classifier, scores: Tensor, part: Problem, weight: np.ndarray | None, folds: Folds) -> float:
    """Judge the scores of the rows left out by ``scoring``."""
    if ensemble._watched_scoring in ("loss", "calibrated_loss"):
        return -float(np.average(to_numpy(ensemble._losses(scores, part)), weights=weight))
    sample_weight = {} if part.sample_weight is None else {"sample_weight": part.sample_weight}
    scorer, labels = get_scorer(ensemble._watched_scoring or "accuracy"), ensemble._labels_of(part)
    answers: Any = ensemble._answers_of_fitted(scores)
    if own_methods(ensemble):
        answers = AssembledAnswers(ensemble, _new_to_rows(ensemble, folds))
    if ensemble.scoring is None and ensemble._watched_scoring == "r2":  # whose squares may be no numbers
        return ensemble._score_of(labels, answers.predict(part.X), part.sample_weight)
    return as_score(scorer(answers, part.X, labels, **sample_weight), ensemble.scoring, part.codes)


def _new_to_rows(ensemble: Classifier, folds: Folds) -> list[tuple[np.ndarray, Classifier]]:
    """Make an ensemble for the rows of each fold, of the member that has left it out; and of all, for divided rows.

    Rows are counted among those that some member has left out.
    """
    fold = folds.fold[folds.fold != KEPT]
    members = [(f, [member]) for f, member in zip(folds.numbers, ensemble.estimators_, strict=True)]
    parts = []
    for f, own in [*members, (DIVIDED, ensemble.estimators_)]:
        part = copy.copy(ensemble)
        part.estimators_ = own
        vars(part).pop("feature_names_in_", None)  # validated arrays have none
        parts.append((np.flatnonzero(fold == f), part))
    return [(rows, part) for rows, part in parts if len(rows)]
