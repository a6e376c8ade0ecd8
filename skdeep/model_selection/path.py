"""How much to regularise: the path of solutions over alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone

from skdeep.compat.sklearn import _check_method_params
from skdeep.data.inputs import Data, dense
from skdeep.model_selection.choice import one_standard_error, split_scores, standard_error
from skdeep.model_selection.evaluation import draw_seed, final_step, fit_candidates, prefix_of, share_seed
from skdeep.model_selection.search import GridSearchCV


@dataclass
class RegularizationPath:
    """Solutions and validation scores over alpha.

    Attributes
    ----------
    alphas : ndarray of shape (n_alphas,)
    estimators : list
        Fitted on all data, one per alpha.
    coefs : ndarray of shape (n_alphas, 1 or n_classes, n_features), or None
        Their ``coef_``; None for networks.
    intercepts : ndarray of shape (n_alphas, 1 or n_classes), or None
        Their ``intercept_``.
    scores : ndarray of shape (n_alphas, n_splits)
        Validation score of each split.
    best_index : int
        The alpha of the highest mean score.
    one_standard_error_index : int
        The largest alpha within one standard error of it; see `one_standard_error`.
    """

    alphas: np.ndarray
    estimators: list
    coefs: np.ndarray | None
    intercepts: np.ndarray | None
    scores: np.ndarray
    best_index: int
    one_standard_error_index: int

    @property
    def mean_score(self) -> np.ndarray:
        """Mean over the splits, (n_alphas,)."""
        return self.scores.mean(axis=1)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of the mean over the splits, (n_alphas,)."""
        return standard_error(self.scores.T)


def regularization_path(
    estimator: BaseEstimator,
    X: Data,
    y: Data,
    alphas: ArrayLike,
    *,
    cv: Any = None,
    scoring: str | Callable | None = None,
    groups: ArrayLike | None = None,
    n_jobs: int | None = None,
    **fit_params: Any,
) -> RegularizationPath:
    """Train solutions for many values of alpha as one stack, and cross-validate their scores.

    Parameters
    ----------
    estimator : SoftmaxClassifier, HingeClassifier, MLPClassifierTorch, or a Pipeline that ends in one
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,)
    alphas : array-like of shape (n_alphas,)
        Values of ``alpha``.
    cv, scoring, groups, n_jobs
        As in `GridSearchCV`.
    **fit_params : dict
        Passed to ``fit``: ``sample_weight``, for example.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    ValueError
        If `alphas` is empty or no numbers, if there are several scores, or a fit fails.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.model_selection import regularization_path
    >>> X, y = load_iris(return_X_y=True)
    >>> path = regularization_path(SoftmaxClassifier("l1", random_state=0), X, y, np.logspace(-4, 0, 5))
    >>> path.coefs.shape, path.scores.shape
    ((5, 3, 4), (5, 5))
    >>> int((path.coefs[-1] == 0).sum()), bool(path.alphas[path.best_index] < 0.1)
    (12, True)
    """
    try:
        alphas = np.asarray(alphas, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"alphas must be numbers, got {alphas!r}: a path is ordered by them.") from error
    if isinstance(scoring, list | tuple | set | dict):
        raise ValueError(f"A path is judged by one score; choose one of scoring={scoring!r}.")
    if alphas.ndim != 1 or not len(alphas):
        raise ValueError(f"alphas must be a list of at least one number, got an array of shape {alphas.shape}.")
    name = f"{prefix_of(estimator)}alpha"
    search = GridSearchCV(
        estimator, {name: alphas}, cv=cv, scoring=scoring, n_jobs=n_jobs, refit=False, error_score="raise"
    )
    search.fit(X, y, **({} if groups is None else {"groups": groups}), **fit_params)
    results = search.cv_results_
    candidates = [clone(estimator).set_params(**{name: alpha}) for alpha in alphas]
    share_seed(candidates, draw_seed())
    routed = search._get_routed_params_for_fit(_check_method_params(X, params=fit_params))
    for failure in fit_candidates(candidates, X, y, routed.estimator.fit):
        if failure is not None:
            raise failure
    finals = [final_step(candidate) for candidate in candidates]
    linear = hasattr(finals[0], "coef_")
    return RegularizationPath(
        alphas,
        candidates,
        np.stack([dense(final.coef_) for final in finals]) if linear else None,
        np.stack([dense(final.intercept_) for final in finals]) if linear else None,
        split_scores(results, "score").T,
        int(results["rank_test_score"].argmin()),
        one_standard_error(results, complexity=name),
    )
