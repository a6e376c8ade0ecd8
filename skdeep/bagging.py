"""Members that each leave out a fold of the data, as one stack: their training, and what they say of rows left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.calibrated import CalibrationMixin
from skdeep.calibration import DOUBT, doubt
from skdeep.encoding import draw_seeds
from skdeep.inputs import OutputSpace, to_numpy
from skdeep.prediction import able
from skdeep.problem import Problem, TrainingState, make_monitor, scores_of
from skdeep.scoring import as_score, knowing
from skdeep.splits import DIVIDED, KEPT, Folds, dealt_shares, fold_of_rows
from skdeep.training import Progress


@dataclass
class _Runs(Progress):
    """The runs of an ensemble's members, and what they amount to together.

    Attributes
    ----------
    members : list of Progress
    folds : Folds
        Which rows each member has not seen.
    seeds : list of int
        The ``random_state`` of each member.
    batch_rows : int
        Rows per step, which follow from all the data.
    """

    members: list[Progress] = field(default_factory=list)
    folds: Folds | None = None
    seeds: list[int] = field(default_factory=list)
    batch_rows: int = 0

    @classmethod
    def of(cls, members: list[Progress], folds: Folds, seeds: list[int], batch_rows: int) -> _Runs:
        errors = [f"in member {k}, {p.error}" for k, p in enumerate(members) if p.error is not None]
        return cls(
            watch_score=True,
            n_iter=max(p.n_iter for p in members),
            samples=sum(p.samples for p in members),
            loss_curve=_mean_curve([p.loss_curve for p in members]),
            validation_losses=_mean_curve([p.validation_losses for p in members]),
            validation_scores=_mean_curve([p.validation_scores for p in members]),
            interrupted=any(p.interrupted for p in members),
            error=errors[0] if errors else None,
            members=members,
            folds=folds,
            seeds=seeds,
            batch_rows=batch_rows,
        )


def _mean_curve(curves: list[list[float]]) -> list[float]:
    """Mean over the members that were still training, epoch by epoch."""
    return [float(np.mean([c[i] for c in curves if i < len(c)])) for i in range(max(map(len, curves)))]


class FoldBaggingMixin(CalibrationMixin):
    """Trains ``n_estimators`` models for each estimator, each on all folds but one, and judges them on that one."""

    n_estimators: int
    early_stopping: bool
    n_iter_no_change: float
    scoring: Any
    estimators_: list

    def _splits_rows(self):
        return True

    @property
    def _watched_score(self) -> str:
        """What an epoch is judged by: what is left to the calibration is not the epoch's fault."""
        return "loss" if self.calibration is None else "calibrated_loss"

    def _train(self, members, problem, held_out, states, split_seed, going_on, incremental, task):
        """Train the members of all ensembles as one stack; see `FittingMixin._train`."""
        self._try_scoring(problem)
        distinct = problem.distinct(split_seed)
        fold = fold_of_rows(distinct, self.n_estimators)
        share = dealt_shares(distinct, fold, self.n_estimators, split_seed)
        folds = problem.folds(distinct, fold, share, merge=False)
        numbers = folds.numbers  # on tiny data, some are empty
        if len(numbers) == 0:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 distinct rows of a class, to leave some out; use "
                "MLPClassifierTorch."
            )
        trained_on = folds
        if self._batch_rows(problem) == problem.n_rows:  # see Problem.folds
            trained_on = problem.folds(distinct, fold, share, merge=True)
        del distinct
        rest = [trained_on.training(f) for f in numbers]
        weight = trained_on.training_weights([(m, f) for m in range(len(members)) for f in numbers])
        models = [member for member in members for _ in numbers]
        drawn: dict[int, list[int]] = {}  # ensembles of one seed share their draws
        for state in states:
            if id(state.generator) not in drawn:
                drawn[id(state.generator)] = state.generator.integers(2**31 - 1, size=len(numbers)).tolist()
        seeds = [drawn[id(state.generator)] for state in states]
        of_seed = {seed: np.random.default_rng(draw_seeds(seed)[0]) for own in seeds for seed in own}
        generators = [of_seed[seed] for own in seeds for seed in own]
        own_states = [TrainingState(generator) for generator in generators]
        subsets = rest * len(members)
        network = self._new_network(models, problem, generators, subsets, weight, own_states, False)
        patience = self.n_iter_no_change if self.early_stopping else math.inf
        progress = [Progress(member.tol, patience, watch_score=True) for member in models]
        watched = self._watched(members, problem, held_out, folds)
        fitted = partial(self._fitted_copy, models)
        monitor = make_monitor(watched, self._loss(self.n_outputs_), self._watched_score, self._labels, fitted)
        self._run(models, problem, network, own_states, subsets, weight, progress, self._epochs, monitor)
        of_members = [progress[i : i + len(numbers)] for i in range(0, len(progress), len(numbers))]
        batch_rows = self._batch_rows(problem)
        runs = [_Runs.of(parts, folds, own, batch_rows) for parts, own in zip(of_members, seeds, strict=True)]
        return runs, network, None

    def _watched(self, members, problem: Problem, held_out: Problem | None, folds: Folds) -> list[Problem]:
        """What the models are judged by after each epoch: the rows left out, or the caller's validation data."""
        if held_out is not None:
            if held_out.class_weight is not None and held_out.class_weight.ndim == 2:
                held_out.class_weight = np.repeat(held_out.class_weight, len(folds.numbers), axis=0)
            return [held_out]
        left_out = [(folds.held_out(f), folds.held_out_factor(f)) for f in folds.numbers]
        watched = [problem.take(*rows) for _ in members for rows in left_out]
        for i, part in enumerate(watched):
            if part.class_weight is not None and part.class_weight.ndim == 2:
                part.class_weight = part.class_weight[i // len(left_out)]
        return watched

    # ---- out of fold ----------------------------------------------------------------------------------------------

    def _after_fit(self, members, problem, seed, progress):
        for m, (member, runs) in enumerate(zip(members, progress, strict=True)):
            if runs.error is None:
                weight = problem.weight
                member._judge(problem, weight if weight is None or weight.ndim == 1 else weight[m], runs.folds)

    @torch.no_grad()
    def _judge(self, problem: Problem, weight: np.ndarray | None, folds: Folds) -> None:
        """Calibrate on the out-of-fold scores, and keep what the ensemble says of rows that are new to it."""
        data = self._rows(problem.source, able(problem.device, [self]), self._needs_float64)
        tensor = data.device, data.dtype

        networks = [estimator._trained_network(*tensor) for estimator in self.estimators_]
        pairs = list(zip(networks, folds.numbers, strict=True))
        if self.calibration == "temperature":
            self.temperature_ = 1.0
        if self.calibration is not None and len(self.classes_) > 1:
            rows, factor = folds.all_held_out()
            counts = (1.0 if weight is None else weight[rows]) * factor / folds.unit
            scores = to_numpy(torch.cat([scores_of(n, data, folds.held_out(f)) for n, f in pairs], dim=1)[0])
            # each member says its part of what the ensemble says of the further observation
            own = doubt(scores, counts, DOUBT / len(folds.numbers))
            self._calibrate(scores, problem.codes[rows], counts, own)
        for estimator in self.estimators_:
            estimator.__dict__.update({k: v for k, v in vars(self).items() if k == "temperature_"})
        # other networks, where the calibration is in their weights now
        networks = [estimator._trained_network(*tensor) for estimator in self.estimators_]
        everywhere = networks[0].params[0].new_full((len(problem.codes), self.n_outputs_), math.nan)

        def put(rows: np.ndarray, scores: Tensor, say: np.ndarray | None = None) -> None:
            own = None if say is None else torch.from_numpy(say).to(scores)
            everywhere[torch.from_numpy(rows).to(scores.device)] = self._of_models(scores, own)

        for network, f in zip(networks, folds.numbers, strict=True):
            if len(rows := folds.rows[folds.fold == f]):
                put(rows, scores_of(network, data, rows))
        if folds.divides:  # each observation is judged by the member that has not seen it
            rows = folds.rows[folds.fold == DIVIDED]
            put(rows, torch.cat([scores_of(network, data, rows) for network in networks]), folds.parts_of_divided)
        new = folds.rows[folds.fold != KEPT]
        scores = everywhere[torch.from_numpy(new).to(everywhere.device)]
        self.oof_score_ = self._score_of(knowing(self, scores), scores, problem, new, weight)
        if problem.subset is not None:
            rest = np.flatnonzero(problem.sample_weight == 0)
            put(rest, scores_of(self._trained_network(*tensor), data, rest))
        self.oof_proba_ = knowing(self, everywhere, OutputSpace(self._any_coef)).predict_proba(None)

    def _score_of(self, known, scores: Tensor, problem: Problem, rows: np.ndarray, weight: np.ndarray | None) -> float:
        """The score by ``scoring`` of what is known of some rows."""
        part = problem.take(rows)
        if self.scoring in ("loss", "calibrated_loss"):
            target = part.tensor(part.target).to(scores.device)
            target = target if target.dtype is torch.int64 else target.to(scores.dtype)
            losses = to_numpy(self._loss(self.n_outputs_).value(scores.unsqueeze(0), target.unsqueeze(0))[0])
            return -float(np.average(losses, weights=None if weight is None else weight[rows]))
        sample_weight = {} if part.sample_weight is None else {"sample_weight": part.sample_weight}
        score = get_scorer(self.scoring or "accuracy")(known, part.X, self._labels(part.codes), **sample_weight)
        return as_score(score, self.scoring, part.codes)
