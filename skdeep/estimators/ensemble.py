"""Ensembles of multilayer perceptrons on folds of the data, trained as one stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skdeep.compat.sklearn import Interval
from skdeep.data.answers import probabilities
from skdeep.data.inputs import Data, OutputSpace
from skdeep.data.problem import Problem
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.estimators.docs import ALONE, ENSEMBLE, document_deep
from skdeep.estimators.mlp import MLPClassifierTorch, Perceptron, PerceptronClassifier
from skdeep.fitting.bagging import conclude, judge_each, train_folds
from skdeep.fitting.fit import Procedure
from skdeep.fitting.links import link_of
from skdeep.fitting.methods import available_unless
from skdeep.fitting.settings import Solver

#: Of so many rows, a step takes an eighth, or so many; fewer are one batch, by which weights are repetitions.
_FEW_ROWS, _FEW_BATCH_ROWS = (65, 511), 16
#: Computes the scores (K, m, C) of all members for some rows (m,).
OfMembers = Callable[[np.ndarray], Tensor]


def _no_partial_fit(estimator: BaseTorchEstimator) -> str:
    return f"ensembles, whose folds need all data at once. Use fit, or {estimator._member_class.__name__}."


@dataclass(eq=False, repr=False, kw_only=True)
class PerceptronEnsemble(Perceptron):
    """Common part of the ensembles: members that each leave out a fold."""

    _coef_attribute = "estimators_"
    _averages_probabilities = True
    #: Whether members have the edges of their bins at different places.
    _shifts_bins = False
    _fewest_rows = 2
    _dropped = ALONE
    #: Options of a single network that an ensemble has no use for.
    validation_fraction, warm_start, callbacks, verbose = 0.1, False, None, False
    if TYPE_CHECKING:
        estimators_: list[Perceptron]
    n_estimators: int = field(default=8, kw_only=False)
    hidden_layer_sizes: Any = field(default=(128, 128), kw_only=False)
    activation: str = field(default="silu", kw_only=False)
    column_learning_rate: float = 15.0
    numeric_embedding: str | None = "auto"
    solver: str | Solver = "adamw"
    alpha: float = 0.0001
    learning_rate: str = "cosine"
    learning_rate_init: float | str = 0.003
    max_iter: int = 60
    early_stopping: bool = True
    beta_2: float = 0.95
    n_iter_no_change: float = 16

    _parameter_constraints: ClassVar[dict] = {
        "n_estimators": [Interval(Integral, 2, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    @available_unless(_no_partial_fit)
    def partial_fit(self, X: Data, y: Data, **more: Any) -> None:
        """Refuse to train in parts: the folds need all data at once."""

    # ---- training -------------------------------------------------------------------------------------------------

    _member_class: ClassVar[type[Perceptron]]
    #: Fitted attributes that tell of rows left out.
    _out_of_fold: ClassVar[tuple[str, ...]]
    _procedure = Procedure(train_folds, conclude, judge_each)

    def _rows_per_step(self, n_rows: int) -> int:
        # what is free of noise is learnt more closely in more steps, and the best epoch is kept in any case
        are_few = _FEW_ROWS[0] <= n_rows <= _FEW_ROWS[1]
        return max(_FEW_BATCH_ROWS, n_rows // 8) if are_few else super()._rows_per_step(n_rows)

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        return self.n_estimators * super()._n_params(n_features, n_outputs)

    def _n_units(self, n_outputs: int) -> int:
        return self.n_estimators * super()._n_units(n_outputs)

    def _keep_out_of_fold(
        self, scores: Tensor, problem: Problem, weight: np.ndarray | None, luck: float, of_members: OfMembers
    ) -> None:
        """Set the fitted attributes that tell of all rows what the members that have not seen them say.

        On other rows, squares of their errors are `luck` times as large.
        """
        raise NotImplementedError

    def _losses(self, scores: Tensor, part: Problem) -> Tensor:
        """Compute the losses (n,) of scores (n, C) of rows."""
        raise NotImplementedError


@document_deep(**ENSEMBLE)
@dataclass(eq=False, repr=False, kw_only=True)
class MLPEnsembleClassifier(PerceptronEnsemble, PerceptronClassifier):
    r"""Ensemble of multilayer perceptrons, each trained on all folds of the data but one.

    .. math:: p(x) = \frac1K \sum_{k=1}^K \mathrm{softmax}\big(s_k(x) / T\big)

    The K members train as one stack, with initial weights and an order of rows of their own. Member k leaves out fold k
    of the data (distinct rows, classes in proportion) and keeps the weights of the epoch that was best there, by the
    log-loss that a temperature would leave [3]_. So every row trains K - 1 members and is new to one: the temperature T
    is fitted to those out-of-fold scores, and ``oof_score_`` is an estimate of the score on new data.

    Parameters
    ----------
    {members}
    {layers}
    standardize : bool, default=True
        Whether to train in centred and scaled columns, each member by the statistics of its rows.
    column_learning_rate : float, default=15.0
        How fast a factor on each of these columns is learnt; see :class:`MLPClassifierTorch`.
    {bins}
    {schedule}
    learning_rate_init : float, default=0.003
        Learning rate at the start.
    early_stopping : bool, default=True
        Whether a member stops when the score of the rows it watches has not risen for ``n_iter_no_change`` epochs.
        The weights of its best epoch are kept in any case. The rows are its fold's, or ``X_val`` if ``fit`` is
        given that.
    scoring : str, callable or None, default=None
        What ``oof_score_`` is: a scorer, "loss" (the negative loss), or None for accuracy. Epochs are judged by
        "calibrated_loss" in any case (see :class:`MLPClassifierTorch`; by "loss" with ``calibration=None``).
    {training}
    {label_smoothing}
    calibration : {"temperature", "sigmoid"} or None, default="temperature"
        How the scores of the members become probabilities, before these are averaged: see
        :class:`MLPClassifierTorch`. Fitted on the out-of-fold scores; no further models are trained. A temperature
        above one counts with the power 0.7, since the mean of the members is surer than each may be.

    Attributes
    ----------
    estimators_ : list of MLPClassifierTorch
        The members, as classifiers; the ensemble's probabilities are the mean of theirs. ``random_state`` is the
        member's own, ``validation_loss_curve_`` its loss on the rows left out. There are fewer than
        ``n_estimators`` if the data has not rows enough for as many folds.
    oof_proba_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the training rows by the member that has not seen the row (nor rows equal to it); by all
        members for rows of which each has left out a part (rows that stand for many) and for rows of weight zero, which
        none has seen; NaN for the only row of a class, which all have seen.
    oof_score_ : float
        Score of the out-of-fold probabilities, with the sample weights. Of a subclass with methods of prediction of its
        own, it is the score of what these say, in an ensemble of the one member that has not seen a row (of all
        members for rows of which each has left out a part). ``oof_proba_`` does not ask them.
    temperature_ : float or ndarray of shape (n_labels,)
        T of ``calibration="temperature"``, which the probabilities are of.
    calibration_slopes_, calibration_offsets_ : ndarray of shape (n_outputs,)
        Platt's slopes and offsets, which are part of the members' weights already; only with
        ``calibration="sigmoid"``.
    n_layers_ : int
        Layers of a member, with the input.
    out_activation_ : {"softmax", "logistic"}
        What turns a member's scores into probabilities.
    {learned}

    Raises
    ------
    ValueError
        Where ``fit`` finds no class with two distinct rows; see there for the rest.

    See Also
    --------
    MLPClassifierTorch : One network.
    sklearn.ensemble.BaggingClassifier : Any classifier on random subsets.

    Notes
    -----
    ``decision_function`` is the logarithm of the averaged probabilities; for two classes and for labels, of the odds.
    Curves and losses are means over the members, ``n_iter_`` is the largest of theirs and ``t_`` their sum. A member
    alone would have been the same but for its bins, whose edges lie elsewhere in each member (evenly, as in an averaged
    shifted histogram [5]_), and what dropout leaves out of batches of all rows: ``clone(member).fit(rest, ...,
    X_val=fold, ...)`` gives it. There is no
    ``partial_fit`` and no ``warm_start``, and no callback is told of the epochs.

    References
    ----------
    {bagging}
    .. [3] E. Berta, D. Holzmüller, M. I. Jordan & F. Bach, *Rethinking early stopping: refine, then calibrate*, 2025.
    .. [4] C. Guo et al., *On calibration of modern neural networks*, ICML 2017.
    .. [5] D. W. Scott, *Averaged shifted histograms*, Annals of Statistics 13, 1985.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skdeep import MLPEnsembleClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = MLPEnsembleClassifier(max_iter=20, random_state=0).fit(X, y)
    >>> clf.oof_score_ > 0.95
    True
    >>> len(clf.estimators_), clf.oof_proba_.shape
    (8, (178, 3))
    """

    calibration: str | None = "temperature"

    _shifts_bins = True
    _member_class = MLPClassifierTorch
    _out_of_fold = "oof_proba_", "oof_score_"

    def _map_scores(self, matrix: np.ndarray, offsets: np.ndarray | float) -> None:
        for estimator in self.estimators_:
            estimator._map_scores(matrix, offsets)

    def _keep_out_of_fold(
        self, scores: Tensor, problem: Problem, weight: np.ndarray | None, luck: float, of_members: OfMembers
    ) -> None:
        self.oof_proba_ = OutputSpace(self._any_coef).array(probabilities(scores, self.classes_, link_of(self)))

    def _losses(self, scores: Tensor, part: Problem) -> Tensor:
        target = part.tensor(part.target).to(scores.device)
        target = target if target.dtype is torch.int64 else target.to(scores.dtype)
        return self._loss(self.n_outputs_).value(scores.unsqueeze(0), target.unsqueeze(0))[0]
