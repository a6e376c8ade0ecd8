"""What training goes on with after an earlier fit, and what is forgotten: the one place that says so.

A warm ``fit`` starts from a model and nothing else. It takes over

- the model: its parameters and all else that its scores depend on (averages over batches, factors on columns), and the
  columns and classes that it speaks of; as it was before a calibration changed its scores (`_FORM`, and the
  `_parameters` of the estimator);
- the record: the curves, which grow over fits, and the number of rows seen (`_RECORD`);
- the way on (`TrainingState.renewed`): the generator, and the seed of the split, so that a row that was trained on is
  never one to judge by; on the same problem, also the optimizer's state, while solver and shapes are the same.

Bests, counters, calibrations and the statistics of columns belong to one objective on one data set: they begin anew, as
in a cold ``fit``, which takes over nothing. On another problem than before (`identify`), training begins at the model
only if that is better there than an untrained one (`fitting._better_start`). ``partial_fit`` is a further part of
the same fit: it goes on with everything but a calibration.
"""

from __future__ import annotations

import copy
import math
import zlib
from typing import Any

import numpy as np
from scipy import sparse
from torch import Tensor

from skdeep.data.inputs import Classifier, to_numpy
from skdeep.data.problem import Problem
from skdeep.data.state import TrainingState
from skdeep.engine.training import Progress
from skdeep.fitting.links import CALIBRATED, undo_calibration
from skdeep.fitting.losses import RegressionLoss
from skdeep.fitting.recipe import Member

#: The columns and the classes that a model speaks of.
_FORM = {"n_features_in_", "feature_names_in_", "input_shape_", "_categories", "encoded_features_"}
_FORM |= {"classes_", "n_outputs_", "_target_is_multilabel", "_label_names"}
#: What tells of all fits so far.
_RECORD = {"loss_curve_", "validation_scores_", "validation_loss_curve_", "t_"}

#: Parameters that make another objective of the same rows, weights and classes.
_OBJECTIVE = (
    "activation",
    "alpha",
    "column_learning_rate",
    "fit_intercept",
    "l1_ratio",
    "label_smoothing",
    "loss",
    "multi_class",
    "n_bins",
    "numeric_embedding",
    "output",
    "penalty",
    "standardize",
    "stochastic_depth",
)
#: Values, and rows at least and at most, that stand for all in telling problems apart.
_SAMPLE_VALUES, _SAMPLE_ROWS = 1 << 12, (16, 512)


def identify(problem: Problem, members: list[Member]) -> bool:
    """Note in each member's state what it is trained on; tell whether that is new to the first one."""
    content = problem.target if problem.is_soft else problem.codes
    parts = [*_sample(problem), content, *([] if problem.weight is None else [problem.weight])]
    # checksums: a cryptographic digest of the numbers would take five times as long
    of_rows = [(part.shape, zlib.crc32(np.ascontiguousarray(part).data)) for part in parts]
    before = members[0].state.problem
    for member in members:
        batch_size = getattr(member.settings, "batch_size", None)
        objective = [_told(getattr(member.estimator, name, None)) for name in _OBJECTIVE]
        member.state.problem = repr([of_rows, objective, batch_size]).encode()
    return members[0].state.problem != before


def _told(value: Any) -> Any:
    """Tell what a parameter says: of a loss with settings, in a tenth of the time of its representation."""
    return (type(value).__name__, vars(value)) if isinstance(value, RegressionLoss) else value


def _sample(problem: Problem) -> list[np.ndarray]:
    """Take evenly spaced rows, as numbers that do not depend on the dtype."""
    n, X = len(problem.codes), problem.source
    width = 1 + int(X.shape[1] * problem.density)
    every = slice(0, n, max(1, n // min(max(_SAMPLE_VALUES // width, _SAMPLE_ROWS[0]), _SAMPLE_ROWS[1])))
    if problem.is_stored and problem.shard is None:
        return [X.sample()[1].astype(np.float64, copy=False)]
    X = X[every] if problem.index is None and problem.shard is None else problem.take(np.arange(n)[every]).X
    if sparse.issparse(X):
        return [X.data.astype(np.float64), X.indices.astype(np.int64), X.indptr.astype(np.int64)]
    return [to_numpy(X.cpu().double()) if isinstance(X, Tensor) else X.astype(np.float64, copy=False)]


def carried(estimator: Classifier) -> set[str]:
    """Name the attributes that a warm fit finds."""
    return _FORM | _RECORD | {"_optimizer"} | estimator._parameters


def goes_on(estimator: Classifier, incremental: bool) -> bool:
    """Tell whether there is a model, and training is to go on with it."""
    return hasattr(estimator, estimator._coef_attribute) and (incremental or estimator.warm_start)


def begin(estimator: Classifier, incremental: bool) -> set[str]:
    """Forget what training does not go on with; return the names of the attributes that are no fit's."""
    fitted = getattr(estimator, "_fitted", frozenset()) | CALIBRATED
    kept: set[str] | frozenset[str] = frozenset()
    if goes_on(estimator, incremental):
        undo_calibration(estimator)
        kept = fitted - CALIBRATED if incremental else carried(estimator)
    own = estimator.__dict__
    others = own.keys() - fitted
    for name in fitted - kept:
        own.pop(name, None)
    return others


def end(estimator: Classifier, others: set[str]) -> None:
    """Note which attributes this fit has set, for the next one."""
    foreign = ("_skl_", "_callback_", "_parent_")  # of scikit-learn's callbacks
    names = vars(estimator).keys() - others - {"_fitted"}
    estimator._fitted = frozenset(name for name in names if name[0] != "_" or not name.startswith(foreign))


def known_state(estimator: Classifier, incremental: bool) -> TrainingState | None:
    """Copy the state in which training stopped; None if it begins."""
    state = getattr(estimator, "_optimizer", None)
    if state is None or not goes_on(estimator, incremental):
        return None
    return copy.deepcopy(state if incremental else state.renewed())


def new_progress(member: Member, going_on: bool, incremental: bool) -> Progress:
    """Make the record of a run that is to begin; a schedule by rows seen is one of the present problem."""
    estimator, state = member.estimator, member.state
    progress = Progress(estimator.tol, member.settings.patience, estimator.early_stopping, warm=going_on)
    if going_on:
        progress.earlier = state.seen_before
        progress.samples = getattr(estimator, "t_", 0) - state.seen_before
    if going_on and incremental:
        progress.no_improvement = getattr(estimator, "_no_improvement_count", 0)
        progress.loss_to_beat = state.loss_to_beat
        best_loss = getattr(estimator, "best_loss_", None)
        progress.best_loss = math.inf if best_loss is None else best_loss / estimator._loss_unit
    return progress


def curves(estimator: Classifier, progress: Progress) -> dict[str, Any]:
    """Make the fitted attributes that tell how training went."""
    unit = estimator._loss_unit
    of_score = unit if progress.scores_are_losses else 1.0

    def grown(name: str, values: list[float], unit: float) -> list[float] | None:
        known, values = getattr(estimator, name, None) or [], [unit * value for value in values]
        unknown = [math.nan] * progress.n_iter if known else []  # epochs without validation: curves end together
        return [*known, *(values or unknown)] or None

    scores, best = progress.validation_scores, getattr(estimator, "best_validation_score_", None)
    return {
        "n_iter_": progress.n_iter,
        "t_": progress.earlier + progress.samples,
        "loss_": unit * progress.loss_curve[-1],
        "best_loss_": None if progress.watch_score else unit * min(progress.best_loss, *progress.loss_curve),
        "loss_curve_": grown("loss_curve_", progress.loss_curve, unit),
        "validation_scores_": grown("validation_scores_", scores, of_score),
        "validation_loss_curve_": grown("validation_loss_curve_", progress.validation_losses, unit),
        "certificate_": None if math.isnan(progress.certificate) else progress.certificate,
        "best_validation_score_": of_score * max([*scores, progress.start_score]) if scores else best,
    }
