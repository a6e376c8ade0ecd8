"""Classifiers whose scores become calibrated probabilities: the fold models behind it, and the link."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from skdeep._methods import available_unless
from skdeep.calibration import doubt, fit_sigmoid, fit_temperature
from skdeep.fitting import FittingMixin
from skdeep.inputs import OutputSpace, to_numpy
from skdeep.losses import LOSSES, Loss
from skdeep.prediction import able
from skdeep.problem import Problem, TrainingState, scores_of
from skdeep.splits import Folds, dealt_shares, fold_of_rows
from skdeep.training import Progress

#: The loss whose probabilities a calibration's are; scores of independent labels are sigmoids in any case.
_LINKS = {"temperature": LOSSES["log_loss"], "sigmoid": LOSSES["binary_log_loss"]}


class CalibrationMixin(FittingMixin):
    """Fits ``calibration`` on the scores of fold models, each on rows that it has not seen."""

    calibration: str | None = None
    temperature_: float | np.ndarray
    calibration_slopes_: np.ndarray
    calibration_offsets_: np.ndarray
    loss_curve_: list[float]
    _optimizer: TrainingState
    #: Folds whose out-of-fold scores the calibration is fitted on.
    _n_folds = 5

    def _rescale_scores(self, slopes: np.ndarray, offsets: np.ndarray) -> None:
        """Change the fitted attributes so that column c of the scores s becomes ``slopes[c] * s + offsets[c]``."""
        raise NotImplementedError

    def _fold_in(self, slopes: np.ndarray, offsets: np.ndarray) -> None:
        """Make Platt's slopes and offsets part of the model, and keep them, so that training can go on without."""
        self._rescale_scores(slopes, offsets)
        space = OutputSpace(self._any_coef)
        self.calibration_slopes_, self.calibration_offsets_ = space.array(slopes), space.array(offsets)

    def _undo_calibration(self):
        if not hasattr(self, "calibration_slopes_"):
            return
        slopes, offsets = to_numpy(self.calibration_slopes_), to_numpy(self.calibration_offsets_)
        # what a slope of zero has made of a column of scores tells nothing of it: it begins at zero
        inverse = np.divide(1.0, slopes, out=np.zeros_like(slopes), where=slopes != 0)
        self._rescale_scores(inverse, -offsets * inverse)
        del self.calibration_slopes_, self.calibration_offsets_

    def _splits_rows(self):
        return super()._splits_rows() or self.calibration is not None

    def _leave_out_probabilities(self):
        if self.calibration == "temperature":
            self.calibration = None

    def _of_training(self, network, model, dtype, space):
        learned = super()._of_training(network, model, dtype, space)
        # until the calibration is fitted, callbacks and scorers see probabilities at temperature 1, or slope 1
        if self.calibration == "sigmoid":
            ones = np.ones(self.n_outputs_)
            return {**learned, "calibration_slopes_": ones, "calibration_offsets_": 0 * ones}
        return {**learned, "temperature_": 1.0} if self.calibration == "temperature" else learned

    def _fitted_copy(self, members, network, at, model):
        estimator = super()._fitted_copy(members, network, at, model)
        if self.calibration is not None:
            estimator.calibration, estimator.temperature_ = "temperature", 1.0
        return estimator

    def _check_calibration(self) -> None:
        """Raise if the model was fitted with another `calibration` than it has now, and probabilities would be wrong.

        A temperature can be left out of it; what else has been fitted, or not, is in its scores.
        """
        if len(self.classes_) == 1:  # there is nothing to calibrate
            return
        asked, fitted = self.calibration, "sigmoid" if hasattr(self, "calibration_slopes_") else None
        known = hasattr(self, "temperature_") if asked == "temperature" else asked == fitted
        if not known:
            raise NotFittedError(
                f"This {type(self).__name__} has calibration={asked!r}, which it was not fitted with. Call fit again, "
                "or put calibration back."
            )

    def _link(self, scores: Tensor) -> tuple[Tensor, Loss]:
        self._check_calibration()
        if self.calibration == "temperature":
            scores = scores / torch.as_tensor(self.temperature_, dtype=torch.float64, device="cpu").to(scores)
        scores, loss = super()._link(scores)
        return scores, loss if self.calibration is None else _LINKS[self.calibration]()

    def _after_fit(self, members, problem: Problem, seed: int, progress: list[Progress]) -> None:
        """Fit each member's calibration on scores of models that have not seen the row."""
        if self.calibration is None or len(self.classes_) == 1:
            return
        distinct = problem.distinct(seed)
        fold = fold_of_rows(distinct, self._n_folds)
        share = dealt_shares(distinct, fold, self._n_folds, seed)
        # what is held out is scored once for all rows that are equal; training is that of the model on all rows
        folds = trained_on = problem.folds(distinct, fold, share, merge=True)
        if self._batch_rows(problem) < problem.n_rows:
            trained_on = problem.folds(distinct, fold, share, merge=False)
        del distinct  # as large as the rest of what is kept of each row
        if len(folds.numbers) < 2:
            raise ValueError(
                f"calibration={self.calibration!r} needs at least 2 distinct rows of a class, to hold some out; pass "
                "calibration=None."
            )
        trained = [m for m, p in enumerate(progress) if p.error is None]
        scores, fold_progress = self._out_of_fold_scores(members, trained, problem, folds, trained_on, seed, progress)
        rows, factor = folds.all_held_out()
        assert folds.weight is not None  # merged rows have weights
        codes, weights = problem.codes[rows], np.broadcast_to(folds.weight, (len(members), problem.X.shape[0]))
        for m in trained:
            errors = [p.error for p in fold_progress[m] if p.error is not None]
            if errors:
                progress[m].error = f"in a fold model of the calibration, {errors[0]}"
            else:
                # the model as it predicts: of the columns as they are
                device = able(problem.device, [members[m]])
                precise = members[m]._needs_float64 and device.type != "mps"
                data = problem.rows().exactly(torch.float64 if precise else problem.dtype)
                data.device = device
                network = members[m]._trained_network(data.device, data.dtype)
                own = doubt(to_numpy(scores_of(network, data, folds.rows)[0]), weights[m, folds.rows])
                members[m]._calibrate(scores[m], codes, weights[m, rows] * factor / folds.unit, own)

    def _calibrate(
        self, scores: np.ndarray, codes: np.ndarray, weight: np.ndarray, own: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Fit the calibration on out-of-fold scores; `own` is the further observation."""
        if self.calibration == "sigmoid":
            self._fold_in(*fit_sigmoid(scores, codes, weight, own))
        elif codes.ndim == 1:
            self.temperature_ = fit_temperature(scores, codes, weight, own)
        else:
            labels = zip(scores.T[..., None], codes.T, own[0].T[..., None], strict=True)
            self.temperature_ = np.array([fit_temperature(s, answers, weight, (o, own[1])) for s, answers, o in labels])

    def _out_of_fold_scores(self, members, trained, problem, folds: Folds, trained_on: Folds, seed, progress):
        """Scores of the rows that each fold holds out, in this order, by each trained member's models; their progress.

        The folds of a single member train as one stack, and so do several members on the rows they share; models that
        cannot be stacked train one by one.
        """
        numbers = folds.numbers
        stacks = [[(m, f) for f in numbers] for m in trained]
        if len(trained) > 1:
            stacks = [[(m, f) for m in trained] for f in numbers]
        if not self.stackable:
            stacks = [[(m, f)] for m in trained for f in numbers]
        subsets = {f: trained_on.training(f) for f in numbers}
        # those of earlier fits too, which a warm start has behind it
        epochs = max(self._epochs, len(self.loss_curve_)) if progress[0].warm else self._epochs
        scores: dict[int, dict[int, np.ndarray]] = {m: {} for m in trained}
        done: dict[int, list[Progress]] = {m: [] for m in trained}
        for stack in stacks:
            models = [members[m] for m, _ in stack]
            own = [subsets[f] for _, f in stack]
            weights = trained_on.training_weights(stack)
            of_fold = {f: np.random.default_rng(seed) for f in numbers}
            generators = [of_fold[f] for _, f in stack]
            states = [TrainingState(generator) for generator in generators]
            network = self._new_network(models, problem, generators, own, weights, states, False)
            runs = [members[m]._fold_progress(progress[m]) for m, _ in stack]
            self._run(models, problem, network, states, own, weights, runs, epochs)
            if any(p.interrupted for p in runs):
                raise KeyboardInterrupt
            data = problem.rows()
            for k, ((m, f), p) in enumerate(zip(stack, runs, strict=True)):
                done[m].append(p)
                model = network.select(np.array([k])).with_params(p.params)
                scores[m][f] = to_numpy(scores_of(model, data, folds.held_out(f))[0])
        return {m: np.concatenate([of_fold[f] for f in numbers]) for m, of_fold in scores.items()}, done

    def _fold_progress(self, progress: Progress) -> Progress:
        """The stopping rule of a fold's model."""
        if self._optimizer.trained and (self.early_stopping or progress.warm):
            # the folds have neither validation data nor a model to begin with: they train as long as was best, or was
            # done, for all rows
            return Progress(0.0, np.inf, max_iter=self._optimizer.trained)
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
