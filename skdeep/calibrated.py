"""Classifiers whose scores become calibrated probabilities: the fold models behind it, and the link."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skdeep._methods import available_unless
from skdeep.calibration import fit_sigmoid, fit_temperature
from skdeep.fitting import FittingMixin
from skdeep.inputs import to_numpy
from skdeep.losses import LOSSES
from skdeep.problem import Problem, TrainingState, scores_of
from skdeep.splits import fold_of_rows
from skdeep.training import Progress

#: The loss whose probabilities a calibration's are; scores of independent labels are sigmoids in any case.
_LINKS = {"temperature": LOSSES["log_loss"], "sigmoid": LOSSES["binary_log_loss"]}


class CalibrationMixin(FittingMixin):
    """Fits ``calibration`` on the scores of fold models, each on rows that it has not seen."""

    calibration: str | None = None
    temperature_: float | np.ndarray
    #: Folds whose out-of-fold scores the calibration is fitted on.
    _n_folds = 5

    def _rescale_scores(self, slopes: np.ndarray, offsets: np.ndarray) -> None:
        """Change the fitted attributes so that column c of the scores s becomes ``slopes[c] * s + offsets[c]``."""
        raise NotImplementedError

    def _splits_rows(self):
        return super()._splits_rows() or self.calibration is not None

    def _leave_out_probabilities(self):
        if self.calibration == "temperature":
            self.calibration = None

    def _of_training(self, network, model, dtype, space):
        learned = super()._of_training(network, model, dtype, space)
        # until the calibration is fitted, callbacks and scorers see probabilities at temperature 1
        return {**learned, "temperature_": 1.0} if self.calibration == "temperature" else learned

    def _fitted_copy(self, network, model):
        estimator = super()._fitted_copy(network, model)
        if self.calibration is not None:
            estimator.calibration, estimator.temperature_ = "temperature", 1.0
        return estimator

    def _link(self, scores: Tensor) -> Tensor:
        if self.calibration == "temperature":
            scores = scores / torch.as_tensor(self.temperature_, dtype=torch.float64, device="cpu").to(scores)
        if self.calibration is None or self._fitted_multilabel:
            return super()._link(scores)
        return _LINKS[self.calibration]().probabilities(scores)

    def _after_fit(self, members, problem: Problem, seed: int, progress: list[Progress]) -> None:
        """Fit each member's calibration on scores of models that have not seen the row."""
        if self.calibration is None or len(self.classes_) == 1:
            return
        distinct, rows = problem.distinct(seed)
        fold = fold_of_rows(distinct, self._n_folds)[distinct.first]
        if len(np.unique(fold)) < 2:
            raise ValueError(
                f"calibration={self.calibration!r} needs at least 2 distinct rows of a class, to hold some out; pass "
                "calibration=None."
            )
        rows, weight = problem.merged(distinct, rows)
        del distinct  # as large as the rest of what is kept of each row
        trained = [m for m, p in enumerate(progress) if p.error is None]
        scores, fold_progress = self._out_of_fold_scores(members, trained, problem, rows, weight, fold, seed, progress)
        codes, weights = problem.codes[rows], np.broadcast_to(weight, (len(members), problem.X.shape[0]))
        for m in trained:
            errors = [p.error for p in fold_progress[m] if p.error is not None]
            if errors:
                progress[m].error = f"in a fold model of the calibration, {errors[0]}"
            else:
                members[m]._calibrate(scores[m], codes, weights[m, rows])

    def _calibrate(self, scores: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> None:
        if self.calibration == "sigmoid":
            self._rescale_scores(*fit_sigmoid(scores, codes, weight))
        elif codes.ndim == 1:
            self.temperature_ = fit_temperature(scores, codes, weight)
        else:
            labels = zip(scores.T[..., None], codes.T, strict=True)
            self.temperature_ = np.array([fit_temperature(own, answers, weight) for own, answers in labels])

    def _out_of_fold_scores(self, members, trained, problem, rows, weight, fold, seed, progress):
        """Scores (m, C) of distinct rows by each trained member's models of the other folds, and their progress.

        The folds of a single member train as one stack, and so do several members on the rows they share; models that
        cannot be stacked train one by one.
        """
        folds = np.unique(fold)
        stacks = [[(m, f) for f in folds] for m in trained]
        if len(trained) > 1:
            stacks = [[(m, f) for m in trained] for f in folds]
        if not self.stackable:
            stacks = [[(m, f)] for m in trained for f in folds]
        subsets = {f: rows[fold != f] for f in folds}
        dtype = torch.empty(0, dtype=problem.dtype).numpy().dtype
        scores = {m: np.empty((len(rows), self.n_outputs_), dtype=dtype) for m in trained}
        done: dict[int, list[Progress]] = {m: [] for m in trained}
        for stack in stacks:
            models = [members[m] for m, _ in stack]
            own = [subsets[f] for _, f in stack]
            weights = weight if weight.ndim == 1 else weight[[m for m, _ in stack]]
            of_fold = {f: np.random.default_rng(seed) for f in folds}
            generators = [of_fold[f] for _, f in stack]
            states = [TrainingState(generator) for generator in generators]
            network = self._new_network(models, problem, generators, own, weights, states, False)
            runs = [members[m]._fold_progress(progress[m]) for m, _ in stack]
            self._run(models, problem, network, states, own, weights, runs, self.max_iter)
            if any(p.interrupted for p in runs):
                raise KeyboardInterrupt
            data = problem.rows()
            for k, ((m, f), p) in enumerate(zip(stack, runs, strict=True)):
                done[m].append(p)
                model, mine = network.select(np.array([k])).with_params(p.params), fold == f
                scores[m][mine] = to_numpy(scores_of(model, data, rows[mine])[0])
        return scores, done

    def _fold_progress(self, progress: Progress) -> Progress:
        """The stopping rule of a fold's model."""
        if self.early_stopping:  # the folds have no validation data: they train as long as was best for all rows
            best = int(np.argmax(self.validation_scores_[-self.n_iter_ :])) + 1
            return Progress(0.0, np.inf, max_iter=best)
        limit = progress.n_iter if progress.interrupted else np.inf
        return Progress(self.tol, self.n_iter_no_change, max_iter=limit)


def _uncalibrated(estimator) -> str | None:
    if estimator.calibration is None:
        name = type(estimator).__name__
        return f"calibration=None: the scores of {name} are no probabilities. Use calibration='temperature'."
    return None


class ScoresMixin:
    """A classifier whose scores are no logarithms of odds: it has probabilities only with ``calibration``."""

    @available_unless(_uncalibrated)
    def predict_proba(self, X):
        return super().predict_proba(X)  # type: ignore[misc]

    @available_unless(_uncalibrated)
    def predict_log_proba(self, X):
        return super().predict_log_proba(X)  # type: ignore[misc]
