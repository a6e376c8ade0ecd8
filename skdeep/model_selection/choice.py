"""The choice of the simplest good candidate of a search."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import count, takewhile
from numbers import Real
from typing import Any

import numpy as np

from skdeep.compat.sklearn import _BaseScorer, _MultimetricScorer, _PassthroughScorer


def one_standard_error(cv_results: dict[str, Any], *, metric: str = "score", complexity: str | None = None) -> int:
    r"""Choose the simplest model within one standard error of the best: a ``refit`` for the searches.

    The standard error of the best mean score is :math:`\hat\sigma / \sqrt{k}`, with the sample standard deviation
    :math:`\hat\sigma` of its k split scores. Of all candidates whose mean score is at least the best one minus this,
    the most regularised is taken: the one with the largest ``alpha`` (or smallest ``C``); among equals, the best.

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
        If the results have no such score, or no (single) parameter of numbers to judge simplicity by: what
        ``alpha="auto"`` is in each fold, the results do not tell. The searches of skdeep raise it before they train.

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
    if metric not in (known := metrics_of(cv_results)):
        raise ValueError(_no_such_score(metric, known))
    mean = np.asarray(cv_results[f"mean_test_{metric}"], dtype=float)
    if np.isnan(mean).all():
        return 0
    best = int(np.nanargmax(mean))
    error = standard_error(split_scores(cv_results, metric)[:, [best]])[0]
    error = error if np.isfinite(error) else 0.0
    strength = _strengths(cv_results["params"], complexity)
    good = np.flatnonzero(mean >= mean[best] - error)
    return int(good[np.lexsort((mean[good], strength[good]))[-1]])


def metrics_of(cv_results: dict[str, Any]) -> list[str]:
    """Name the scores of a search's ``cv_results_``."""
    return [key.removeprefix("mean_test_") for key in cv_results if key.startswith("mean_test_")]


def split_scores(cv_results: dict[str, Any], metric: str) -> np.ndarray:
    """Take the scores (n_splits, n_candidates) of a search's ``cv_results_``."""
    keys = takewhile(cv_results.__contains__, (f"split{i}_test_{metric}" for i in count()))
    return np.array([cv_results[key] for key in keys], dtype=float).reshape(-1, len(cv_results[f"mean_test_{metric}"]))


def standard_error(scores: np.ndarray) -> np.ndarray:
    """Compute the standard error of mean scores (n_splits, ...) over the splits; zero where there is one."""
    with np.errstate(invalid="ignore"):  # of what is infinite
        return scores.std(axis=0, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.zeros(scores.shape[1:])


def check_refit(refit: Any, params: list[dict], scorer: Callable) -> None:
    """Raise, before any fit, what `one_standard_error` will say of these candidates."""
    keywords: dict[str, Any] = {}
    if isinstance(refit, functools.partial):
        refit, keywords = refit.func, refit.keywords
    if refit is not one_standard_error:
        return
    _strengths(params, keywords.get("complexity"))
    metric = keywords.get("metric", "score")
    known = list(scorer._scorers) if isinstance(scorer, _MultimetricScorer) else ["score"]
    if isinstance(scorer, _MultimetricScorer | _BaseScorer | _PassthroughScorer) and metric not in known:
        raise ValueError(_no_such_score(metric, known))


def _no_such_score(metric: str, known: list[str]) -> str:
    return (
        f"The search has no score {metric!r}, only {known}. Choose one: "
        f"refit=functools.partial(one_standard_error, metric={known[0]!r})."
    )


def _strengths(params: list[dict], complexity: str | None) -> np.ndarray:
    """Order the candidates by how strongly they are regularised, as numbers of which only the order counts."""
    name = complexity or _complexity(params)
    if not all(name in candidate for candidate in params):
        raise ValueError(f"one_standard_error needs {name!r} among the parameters of all candidates.")
    given = [candidate[name] for candidate in params]
    if all(isinstance(value, str | None) and value == given[0] for value in given):
        return np.zeros(len(given))  # the same "auto" for all
    if odd := [value for value in given if not isinstance(value, Real) or value != value]:
        raise ValueError(
            f"one_standard_error takes the candidate with the most regularisation, by {name!r}, which must be a number "
            f"in all of them; got {odd[0]!r}. Give numbers (alpha='auto' follows from the rows of each fold), or "
            "name another parameter to go by: refit=functools.partial(one_standard_error, complexity='...')."
        )
    strength = np.array(given, dtype=float)
    return -strength if name.rpartition("__")[2] == "C" else strength


def _complexity(params: list[dict]) -> str:
    """Name the one parameter of all candidates that says how strong the regularisation is."""
    names = set.intersection(*(set(p) for p in params))
    found = sorted(name for name in names if name.rpartition("__")[2] in ("alpha", "C"))
    if len(found) != 1:
        raise ValueError(
            f"one_standard_error takes the model with the largest alpha (or smallest C), and the candidates have "
            f"{found or 'neither'} among their parameters {sorted(names)}. Name the parameter to go by: "
            "refit=functools.partial(one_standard_error, complexity='...')."
        )
    return found[0]
