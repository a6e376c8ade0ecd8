"""An ensemble of multilayer perceptrons for values, with prediction intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdeep.data.bins import quantiles
from skdeep.data.inputs import Data, OutputSpace, to_numpy
from skdeep.data.problem import Problem
from skdeep.estimators.docs import ENSEMBLE, document_deep_regressor
from skdeep.estimators.ensemble import OfMembers, PerceptronEnsemble
from skdeep.estimators.mlp_regressor import MLPRegressorTorch, PerceptronRegressor
from skdeep.fitting.losses import levels_of

#: Rows that say by how much members differ; into how many parts errors, and differences, are divided, of which the
#: largest begins where they are compared; and the largest part of squared errors that differences are taken for.
_SPREAD_ROWS, _PARTS, _MOST_AVERAGED = 1000, 10, 0.5


@document_deep_regressor(**ENSEMBLE)
@dataclass(eq=False, repr=False, kw_only=True)
class MLPEnsembleRegressor(PerceptronEnsemble, PerceptronRegressor):
    r"""Ensemble of multilayer perceptrons for values, each trained on all folds of the data but one.

    .. math:: \hat y(x) = \frac1K \sum_{k=1}^K \hat y_k(x)

    The K members train as one stack, with initial weights and an order of rows of their own. Member k leaves out fold k
    of the data and keeps the weights of the epoch that was best there. So every row trains K - 1 members and is new to
    one: the errors of those out-of-fold predictions say how wide prediction intervals have to be
    (`predict_interval`), and ``oof_score_`` is an estimate of the score on new data.

    Parameters
    ----------
    {members}
    {loss}
    {output}
    {layers}
    standardize : bool, default=True
        Whether to train in columns that are centred and scaled, each member by the statistics of its rows, and for
        targets that are; see :class:`MLPRegressorTorch`.
    column_learning_rate : float, default=15.0
        How fast a factor on each of these columns is learnt.
    {bins}
    {schedule}
    learning_rate_init : float, default=0.01
        Learning rate at the start.
    early_stopping : bool, default=True
        Whether a member stops when the loss of the rows it watches has not fallen for ``n_iter_no_change`` epochs.
        The weights of its best epoch are kept in any case. The rows are its fold's, or ``X_val`` if ``fit`` is
        given that.
    scoring : str, callable or None, default=None
        What ``oof_score_`` is: a scorer, "loss" (the negative loss), or None for R² (of several quantiles: the loss).
    {training}

    Attributes
    ----------
    estimators_ : list of MLPRegressorTorch
        The members, as regressors; the ensemble's predictions are the mean of theirs.
    oof_prediction_ : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Predictions of the training rows by the member that has not seen the row (nor rows equal to it); by all members
        for rows of which each has left out a part, and for rows of weight zero, which none has seen.
    oof_score_ : float
        Score of the out-of-fold predictions, with the sample weights.
    n_layers_ : int
        Layers of a member, with the input.
    out_activation_ : {"identity", "relu", "softplus", "exp"}
        What turns a member's scores into predictions.
    {learned}

    See Also
    --------
    MLPRegressorTorch : One network.
    MLPEnsembleClassifier : The same for classes.

    References
    ----------
    {bagging}
    .. [3] V. Vovk, *Cross-conformal predictors*, Annals of Mathematics and Artificial Intelligence 74, 2015.
    .. [4] Y. Romano, E. Patterson & E. Candès, *Conformalized quantile regression*, NeurIPS 2019.
    .. [5] H. Akaike, *A new look at the statistical model identification*, IEEE Transactions on Automatic Control 19,
       1974.
    .. [6] A. Krogh & J. Vedelsby, *Neural network ensembles, cross validation, and active learning*, NIPS 7, 1995.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skdeep import MLPEnsembleRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> reg = MLPEnsembleRegressor(max_iter=20, random_state=0).fit(X[:300], y[:300])
    >>> reg.score(X[300:], y[300:]) > 0.4
    True
    >>> low, high = reg.predict_interval(X[300:], coverage=0.9).T
    >>> bool(0.8 < ((low <= y[300:]) & (y[300:] <= high)).mean() < 1)
    True
    """

    learning_rate_init: float | str = 0.01

    _member_class = MLPRegressorTorch
    _out_of_fold = "oof_prediction_", "oof_score_", "_nonconformity"

    @property
    def _default_scoring(self) -> str:  # type: ignore[override]
        return "loss" if levels_of(self.loss) else "r2"  # of the whole; epochs are judged by the loss

    def _losses(self, scores: Tensor, part: Problem) -> Tensor:
        loss, values = self._loss_of_targets, self._target_scale.back(part.target)
        return loss.value(scores, part.tensor(values).to(scores))

    def _keep_out_of_fold(
        self, scores: Tensor, problem: Problem, weight: np.ndarray | None, luck: float, of_members: OfMembers
    ) -> None:
        self.oof_prediction_ = OutputSpace(self._any_coef).array(self._predicted(scores))
        predicted = to_numpy(self._predicted(scores)).astype(np.float64)
        predicted = predicted.reshape(len(predicted), -1)
        values = self._target_scale.back(problem.target)
        if levels_of(self.loss):  # how far beyond the outermost quantiles
            low, high, values = predicted.min(1), predicted.max(1), values[:, 0]
            found = np.maximum(low - values, values - high)[:, None]
        else:
            found = np.abs(values - predicted)
        counted = np.isfinite(found).all(1)
        weight = np.ones(len(found)) if weight is None else weight / weight.max()
        counted &= weight > 0
        found, weight = found[counted], weight[counted]
        if len(found) and not levels_of(self.loss):
            found *= np.sqrt(luck * (1 - self._averaged_out(found, weight, of_members, np.flatnonzero(counted))))
        self._nonconformity = found, weight

    def _averaged_out(
        self, errors: np.ndarray, weight: np.ndarray, of_members: OfMembers, rows: np.ndarray
    ) -> np.ndarray:
        """Compute which share of a member's squared errors (n, C) the mean of all is without: by what members differ.

        By quantiles, for a few errors may be as large as all others together.
        """
        every = slice(None, None, max(1, len(rows) // _SPREAD_ROWS))
        some = rows[every]
        each = np.stack([to_numpy(self._predicted(scores)).reshape(len(some), -1) for scores in of_members(some)])
        each = each.astype(np.float64)
        differ, of_some = np.abs(each - each.mean(0)).reshape(-1, errors.shape[1]), np.tile(weight[every], len(each))
        differ, errors = quantiles(differ, of_some, _PARTS)[:, -2], quantiles(errors, weight, _PARTS)[:, -2]
        share = np.square(np.divide(differ, errors, out=np.zeros_like(errors), where=errors > 0))
        return np.minimum(share, _MOST_AVERAGED)

    def predict_interval(self, X: Data, coverage: float = 0.9) -> Any:
        r"""Predict intervals that have the target in them with a probability.

        Around the prediction, they are as wide as the share `coverage` of the out-of-fold errors is at most
        (cross-conformal prediction; Vovk, 2015), times :math:`\sqrt{1 + 8 / m}` of folds of m rows each (of uneven
        weights, as many as tell as much), since a member keeps the epoch that is best for its own fold (Akaike, 1974),
        and :math:`\sqrt{1 - a}`, as the mean prediction is without the share a of squared errors by which members
        differ (Krogh & Vedelsby, 1995). With the loss `Quantile` of a list of levels, they go from the lowest quantile
        to the highest, and so far beyond on both sides as out-of-fold targets were beyond theirs (Romano, Patterson &
        Candès, 2019), so that the width depends on x. Of n rows that are exchangeable with new ones, the quantile is
        the :math:`\lceil (n + 1)\, coverage \rceil`-th smallest.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
        coverage : float, default=0.9
            The probability, between 0 and 1.

        Returns
        -------
        ndarray of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper end; infinite where there are too few rows for that coverage.

        Raises
        ------
        ValueError
            If `coverage` is not between 0 and 1.
        """
        check_is_fitted(self, "estimators_")
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be between 0 and 1, got {coverage!r}.")
        predicted = np.asarray(to_numpy(self.predict(X)))
        errors, weight = self._nonconformity
        width = np.array([_quantile(column, weight, coverage) for column in errors.T])
        if levels_of(self._fitted_loss):
            low, high = predicted.min(1), predicted.max(1)
            middle = (low + high) / 2
            ends = np.stack([np.minimum(low - width, middle), np.maximum(high + width, middle)], axis=-1)
        else:
            width = width[0] if predicted.ndim == 1 else width
            ends = np.stack([predicted - width, predicted + width], axis=-1)
            if self.out_activation_ != "identity":
                ends = np.maximum(ends, 0)
        return ends


def _quantile(errors: np.ndarray, weight: np.ndarray, coverage: float) -> float:
    """Find the smallest error that the share of the weight, with one row more that is infinite, does not exceed.

    Of uneven weights, the weight of a row that is drawn by them is above their mean.
    """
    order = np.argsort(errors)
    reached = np.cumsum(weight[order])
    wanted = coverage * (reached[-1] + np.square(weight).sum() / reached[-1])
    at = int(np.searchsorted(reached, wanted * (1 - 1e-12)))
    return float(errors[order[at]]) if at < len(errors) else np.inf
