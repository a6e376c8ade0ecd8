"""Standard errors of coefficients from the curvature of the objective, without resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri
from sklearn.base import BaseEstimator

from skdeep.data.inputs import Data
from skdeep.engine.threads import at_most
from skdeep.exact.losses import LogisticLoss, SoftmaxLoss
from skdeep.exact.reweighted import contrasts
from skdeep.exact.rows import of_both, pairs
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.bootstrap import exact_clone, names_of
from skdeep.model_selection.intervals import check_confidence
from skdeep.model_selection.resampled import Near, Trainer
from skdeep.model_selection.separation import flat, flat_hessian

_KINDS = ("sandwich", "hessian")
#: The gradient at the optimum that errors are taken at, at most.
_TOL = 1e-8
#: Share of the largest eigenvalue of a Hessian in like units below which one may be rounding.
_SINGULAR = 1e-13


@dataclass
class StandardErrors:
    """Coefficients of a linear classifier, and how well they are known.

    Attributes
    ----------
    coef, intercept : ndarray of shape (n_rows, n_features) and (n_rows,)
        At the optimum; one row for two classes, else one for each class or label.
    standard_error, intercept_standard_error : ndarray of shape (n_rows, n_features) and (n_rows,)
    covariance : ndarray of shape (n_rows, n_features + 1, n_rows, n_features + 1)
        Of all coefficients with each other, the intercept after the columns'. The difference of two classes
        has ``c[i, :, i] + c[j, :, j] - c[i, :, j] - c[j, :, i]``.
    classes : ndarray of shape (n_classes,)
    feature_names : list of str

    See Also
    --------
    standard_errors : What makes it.
    """

    coef: np.ndarray
    intercept: np.ndarray
    covariance: np.ndarray
    classes: np.ndarray
    feature_names: list[str]

    @property
    def _errors(self) -> np.ndarray:
        return np.sqrt(np.einsum("cjcj->cj", self.covariance))

    @property
    def standard_error(self) -> np.ndarray:
        """Of each coefficient, (n_rows, n_features)."""
        return self._errors[:, :-1]

    @property
    def intercept_standard_error(self) -> np.ndarray:
        """Of each intercept, (n_rows,)."""
        return self._errors[:, -1]

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Compute the normal interval of each coefficient.

        Parameters
        ----------
        confidence : float, default=0.95

        Returns
        -------
        low, high : ndarray of shape (n_rows, n_features)

        Raises
        ------
        ValueError
            If `confidence` is not between 0 and 1.
        """
        check_confidence(confidence)
        reach = ndtri((1 + confidence) / 2) * self.standard_error
        return self.coef - reach, self.coef + reach


def standard_errors(
    estimator: BaseEstimator,
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None = None,
    kind: str = "sandwich",
) -> StandardErrors:
    r"""Compute the standard errors of a linear classifier's coefficients from the curvature of its objective.

    With the rows' gradients :math:`g_i` at the optimum, their mean :math:`\bar g` and the Hessian H of the objective,
    penalty included, all as sums over the rows, the covariance is

    .. math:: H^{-1} \Big(\sum_i (g_i - \bar g) (g_i - \bar g)^T\Big) H^{-1} \quad\text{("sandwich")}, \qquad
        H^{-1} \quad\text{("hessian")}.

    The sandwich holds whether or not the model is the right one, and is what `bootstrap_coefficients` tends to; without
    a penalty it is HC0. The inverse Hessian is for probabilities that are the right ones. Both take few rows for many.
    Classes of a softmax add up to zero: a common shift of their scores, which no row tells of, has no part in either.
    With a penalty they are of what the classifier estimates, which is drawn towards zero.

    Parameters
    ----------
    estimator : SoftmaxClassifier, SigmoidClassifier or LeastSquaresClassifier
        A clone is fitted, to its optimum. Its penalty is "l2" or None.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of rows, each of which is one observation whatever its weight.
    kind : {"sandwich", "hessian"}, default="sandwich"

    Returns
    -------
    StandardErrors

    Raises
    ------
    TypeError
        If `estimator` is not one of these.
    ValueError
        If `kind` is unknown, or "hessian" for a loss that is no likelihood; if the objective has kinks (L1 norms,
        hinges) or is not solved exactly; if it has no curvature along some coefficients, so that rows say nothing of
        them.

    References
    ----------
    P. Huber, *The behavior of maximum likelihood estimates under nonstandard conditions*, 1967. H. White, *A
    heteroskedasticity-consistent covariance matrix estimator*, Econometrica 48, 1980.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.model_selection import standard_errors
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> found = standard_errors(SoftmaxClassifier(penalty=None), X[["mean radius", "mean texture"]], y)
    >>> low, high = found.interval(0.95)
    >>> bool((high < 0).all()), found.standard_error.round(3).tolist()
    (True, [[0.099, 0.036]])
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {_KINDS}, got {kind!r}.")
    model = exact_clone(estimator, "standard_errors")
    model.tol = min(model.tol, _TOL)
    with own_settings(), torch.no_grad(), at_most(1):
        trainer = Trainer.of(model, X, y, sample_weight)
        ones = np.ones((1, len(trainer.problem.codes)))
        trainer.train(ones)
        if not trainer.has_optimum:
            raise ValueError(_NO_CURVATURE)
        if not trainer.n_unfinished and (trainer.near is None or not trainer.near.smooth):
            raise ValueError(
                "Standard errors follow from the curvature of a smooth objective that is solved exactly on the CPU, "
                "and this one has kinks (an L1 norm, a hinge) or is solved otherwise. Use bootstrap_coefficients."
            )
        if trainer.near is None:
            raise ValueError(
                f"The model has not reached its optimum within max_iter={model.max_iter} iterations; without a "
                "penalty, there is none where the classes can be told apart without an error. Increase max_iter, or "
                "use a penalty."
            )
        if kind == "hessian" and not isinstance(trainer.near.loss, SoftmaxLoss | LogisticLoss):
            raise ValueError("kind='hessian' is for losses that are likelihoods: use kind='sandwich'.")
        coef, intercept, covariance = _covariance(trainer.near, trainer.weights_of(ones)[0], kind)
    return StandardErrors(coef, intercept, covariance, model.classes_, names_of(model, coef.shape[1]))


def _covariance(near: Near, weight: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute coefficients, intercepts and their covariance, for rows of these weights (n,)."""
    rows, loss = near.rows, near.loss
    params, arrived = near.solved(weight[None])
    _, rho, _ = near.objectives(weight[None])
    if not arrived[0]:
        if not rho.any():
            raise ValueError(_NO_CURVATURE)
        params = near.start[None]  # of too many unknowns for Newton's steps
    C, D = params[0].shape
    scores = rows.scores(params)
    at = loss.at(scores)
    hessian = flat_hessian(rows, loss, loss.second(scores, at)[0] * weight)
    hessian += np.diag(np.tile(weight.sum() * rho[0], C))
    basis = np.kron(contrasts(C) if loss.shift_invariant else np.eye(C), np.eye(D))
    inverse = basis @ _inverse(basis.T @ hessian @ basis) @ basis.T
    if kind == "sandwich":
        (i, j), pull, n = pairs(C), at.gradient[0] * weight, np.count_nonzero(weight)
        spread = rows.gram(pull[i] * pull[j])[of_both(C)].reshape(C, C, D, D)
        mean = rows.back(pull) / n
        spread = spread - n * mean[:, None, :, None] * mean[None, :, None, :]
        inverse = inverse @ flat(spread) @ inverse
    coef, intercept = near.coefficients(params)
    onto = _onto_columns(near, C, D)
    return coef[0], intercept[0], np.einsum("ij,cjdk,lk->cidl", onto, inverse.reshape(C, D, C, D), onto)


_NO_CURVATURE = (
    "The objective has no curvature along some coefficients: columns that follow from others, or classes that can "
    "be told apart without an error. Leave out such columns, or use a penalty."
)


def _inverse(hessian: np.ndarray) -> np.ndarray:
    """Invert a Hessian; raise where it is singular."""
    unit = np.sqrt(hessian.diagonal())
    if not (unit > 0).all():
        raise ValueError(_NO_CURVATURE)
    alike = hessian / unit / unit[:, None]
    values = np.linalg.eigvalsh(alike)
    if not values[0] > _SINGULAR * len(alike) * values[-1]:
        raise ValueError(_NO_CURVATURE)
    return cho_solve(cho_factor(alike), np.eye(len(alike))) / unit / unit[:, None]


def _onto_columns(near: Near, C: int, D: int) -> np.ndarray:
    """Compute the map (d + 1, D) from parameters of a score to coefficients and the intercept on the columns of X."""
    unit = np.zeros((D, C, D))
    unit[:, 0] = np.eye(D)
    coef, intercept = near.coefficients(unit)
    return np.column_stack([coef[:, 0], intercept[:, 0]]).T
