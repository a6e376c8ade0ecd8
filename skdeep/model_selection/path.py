"""How much to regularise: the path of solutions over alpha, and the choice of the simplest good one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_method_params

from skdeep.inputs import dense
from skdeep.model_selection.evaluation import draw_seed, final_step, fit_candidates, share_seed
from skdeep.model_selection.search import GridSearchCV


def one_standard_error(cv_results: dict[str, Any], *, metric: str = "score", complexity: str | None = None) -> int:
    r"""Choose the simplest model within one standard error of the best: a ``refit`` for the searches.

    The standard error of the best mean score is :math:`\hat\sigma / \sqrt{k}`, with the sample standard deviation
    :math:`\hat\sigma` of its k split scores. Of all candidates whose mean score is at least the best one minus this,
    the most regularised is taken: that of the largest ``alpha`` (or smallest ``C``); among equals, the best.

    Parameters
    ----------
    cv_results : dict
        ``cv_results_`` of a search.
    metric : str, default="score"
        Name of the score, for a search with several: ``refit=functools.partial(one_standard_error,
        metric="accuracy")``.
    complexity : str, default=None
        The parameter to judge simplicity by, as named in ``cv_results``'s ``params``. None looks for the one that ends
        in ``alpha`` or ``C``.

    Returns
    -------
    int
        Index of the chosen candidate.

    Raises
    ------
    ValueError
        If the results have no such score, or no (single) parameter to judge simplicity by.

    References
    ----------
    Breiman, Friedman, Olshen & Stone, *Classification and Regression Trees*, 1984, section 3.4.3; ``lambda.1se`` of
    Friedman, Hastie & Tibshirani, *Regularization paths for generalized linear models*, JSS 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.model_selection import GridSearchCV, one_standard_error
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"alpha": [1e-4, 1e-3, 1e-2, 1e-1]}
    >>> search = GridSearchCV(SoftmaxClassifier(random_state=0), grid, refit=one_standard_error).fit(X, y)
    >>> bool(search.best_params_["alpha"] >= 1e-3)
    True
    """
    if f"mean_test_{metric}" not in cv_results:
        known = [key.removeprefix("mean_test_") for key in cv_results if key.startswith("mean_test_")]
        raise ValueError(
            f"The search has no score {metric!r}, only {known}. Choose one: "
            f"refit=functools.partial(one_standard_error, metric={known[0]!r})."
        )
    mean = np.asarray(cv_results[f"mean_test_{metric}"], dtype=float)
    if np.isnan(mean).all():
        return 0
    best = int(np.nanargmax(mean))
    name = complexity or _complexity(cv_results["params"])
    splits = [
        cv_results[key][best] for key in cv_results if key.startswith("split") and key.endswith(f"_test_{metric}")
    ]
    error = np.std(splits, ddof=1) / np.sqrt(len(splits)) if len(splits) > 1 else 0.0
    if not all(name in params for params in cv_results["params"]):
        raise ValueError(f"one_standard_error needs {name!r} among the parameters of all candidates.")
    strength = np.array([float(params[name]) for params in cv_results["params"]])
    if name.rpartition("__")[2] == "C":
        strength = -strength
    good = np.flatnonzero(mean >= mean[best] - error)
    return int(good[np.lexsort((mean[good], strength[good]))[-1]])


def _complexity(params: list[dict]) -> str:
    """The one parameter of all candidates that says how strong the regularisation is."""
    names = set.intersection(*(set(p) for p in params))
    found = sorted(name for name in names if name.rpartition("__")[2] in ("alpha", "C"))
    if len(found) != 1:
        raise ValueError(
            f"one_standard_error takes the model with the largest alpha (or smallest C), and the candidates have "
            f"{found or 'neither'} among their parameters {sorted(names)}. Name the parameter to go by: "
            "refit=functools.partial(one_standard_error, complexity='...')."
        )
    return found[0]


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
        return self.scores.std(axis=1, ddof=1) / np.sqrt(self.scores.shape[1])


def regularization_path(
    estimator, X, y, alphas, *, cv=None, scoring=None, groups=None, n_jobs=None, **fit_params
) -> RegularizationPath:
    """Solutions for many values of alpha, trained as one stack, with cross-validated scores.

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
        If `alphas` is empty or negative, or a fit fails.

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
    alphas = np.asarray(alphas, dtype=float)
    if alphas.ndim != 1 or not len(alphas):
        raise ValueError(f"alphas must be a list of at least one number, got an array of shape {alphas.shape}.")
    name = f"{estimator.steps[-1][0]}__alpha" if isinstance(estimator, Pipeline) else "alpha"
    search = GridSearchCV(
        estimator, {name: alphas}, cv=cv, scoring=scoring, n_jobs=n_jobs, refit=False, error_score="raise"
    )
    search.fit(X, y, **({} if groups is None else {"groups": groups}), **fit_params)
    results, n_splits = search.cv_results_, search.n_splits_
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
        np.column_stack([results[f"split{i}_test_score"] for i in range(n_splits)]),
        int(np.argmax(results["mean_test_score"])),
        one_standard_error(results, complexity=name),
    )
