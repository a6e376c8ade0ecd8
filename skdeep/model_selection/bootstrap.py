"""The bootstrap of coefficients: a linear classifier on many resamples of its rows.

A resample is a weight of each row, the number of times that it was drawn, so that all models see the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from skdeep.data.inputs import Data
from skdeep.data.problem import Problem
from skdeep.engine.group import current
from skdeep.engine.threads import at_most
from skdeep.estimators.linear import LinearClassifier
from skdeep.fitting.torch_settings import own_settings
from skdeep.model_selection.intervals import BootstrapCoefficients, accelerations
from skdeep.model_selection.resampled import Found, Trainer

#: Times that resamples which lack a class are drawn again.
_MAX_DRAWS = 1000


def bootstrap_coefficients(
    estimator: BaseEstimator,
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None = None,
    *,
    n_resamples: int = 200,
    n_left_out: int = 50,
    stratify: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> BootstrapCoefficients:
    r"""Fit a linear classifier to resamples of the rows, all together, for intervals of its coefficients.

    Of n rows, a resample is n draws with replacement: row i was drawn :math:`m_i` times, and the classifier is trained
    with the weights :math:`m_i w_i`. Each ends where ``fit`` with these weights and a small ``tol`` would end: the
    classifier is solved to its optimum, so that nothing but the rows makes coefficients vary. With a smooth penalty on
    dense rows, more than 16 free coefficients are solved for to a tenth of the estimator's own ``tol`` (some thousandth
    of a standard error), more than 128 to this ``tol``; more than 128 of sparse rows to this ``tol`` and some hundredth
    of a standard error. Optima with weak penalties are less certain: lower `tol` where its digits matter.

    The intervals are about what the classifier estimates, penalty included: with a strong one, coefficients are near
    zero and vary little. Those of an L1 norm are often exactly zero, about which a bootstrap says little. For the
    coefficients of a plain logistic regression, use ``penalty=None``.

    Parameters
    ----------
    estimator : SoftmaxClassifier, SigmoidClassifier, HingeClassifier or LeastSquaresClassifier
        A clone is fitted. With ``solver="auto"`` the solver is an exact one, whatever the number of rows. A temperature
        (``calibration``) is not fitted: no coefficient depends on it.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, which rows take with them; rows of weight zero are none.
    n_resamples : int, default=200
        Enough for standard errors; for 95 % intervals, 1000 or more are usual.
    n_left_out : int, default=50
        Parts of the rows that are left out in turn (each is a row, if there are no more rows than that), for the
        acceleration of the BCa interval. Where the objective is smooth, and coefficients are few, what leaving them out
        does is known from a step of Newton's method; else, that many more models are trained (of many coefficients to a
        tenth of ``tol``, since they differ by little; of sparse rows to some hundredth of that). 0 leaves the
        acceleration at zero, and the interval corrected for bias alone.
    stratify : bool, default=False
        Whether each class keeps its number of rows. Otherwise, resamples without a row of some class (or, of a label,
        with no row that has it or none that lacks it) are drawn again. Not for label indicators.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    BootstrapCoefficients

    Raises
    ------
    TypeError
        If `estimator` is not one of these, such as a network or a Pipeline.
    ValueError
        If the estimator stops early, is calibrated by "sigmoid" (which changes its coefficients) or has a solver of
        mini-batches; if `n_resamples` is less than 2, or `n_left_out` than 0; if a class has too few rows; or if a
        model diverges.

    Warns
    -----
    ConvergenceWarning
        If some of the models have not reached their optimum; or have none, without a penalty, since columns tell some
        classes apart without an error.

    References
    ----------
    B. Efron & R. Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 6, 9 and 14. A. C. Davison & D. V.
    Hinkley, *Bootstrap Methods and their Application*, 1997, chapter 7.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.model_selection import bootstrap_coefficients
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> found = bootstrap_coefficients(SoftmaxClassifier(), X[["mean radius", "mean texture"]], y, random_state=0)
    >>> low, high = found.interval(0.95)
    >>> bool((high < 0).all()), found.coefs.shape  # the larger, the less often benign
    (True, (200, 1, 2))
    """
    if not isinstance(n_resamples, Integral) or n_resamples < 2:
        raise ValueError(f"n_resamples must be an integer of at least 2, got {n_resamples!r}.")
    if not isinstance(n_left_out, Integral) or n_left_out < 0:
        raise ValueError(f"n_left_out must be an integer of at least 0, got {n_left_out!r}.")
    model = exact_clone(estimator, "bootstrap_coefficients")
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    generator = np.random.default_rng(current().first(seed))  # one for all processes that share the rows
    with own_settings(), torch.no_grad(), at_most(1):
        trainer = Trainer.of(model, X, y, sample_weight)
        problem = trainer.problem
        first = trainer.train(np.ones((1, len(problem.codes))))
        size = trainer.capacity
        draws = (draw_resamples(problem, n, generator, stratify) for n in _portions(n_resamples, size))
        coefs, intercepts = _joined([trainer.train(counts) for counts in draws])
        rests = _without_parts(problem, n_left_out, size, generator)
        left_out = _joined([first, *(trainer.train(counts, only_a_step=True) for counts in rests)])
    coef, intercept = (values[0] for values in left_out)
    accelerated = (accelerations(values[1:]) for values in left_out)
    trainer.warn()
    names = names_of(model, coef.shape[1])
    return BootstrapCoefficients(coef, intercept, coefs, intercepts, *accelerated, model.classes_, names)


def exact_clone(estimator: BaseEstimator, name: str) -> LinearClassifier:
    """Clone an estimator whose coefficients follow from the rows alone; raise for any other."""
    if not isinstance(estimator, LinearClassifier):
        advice = " Pass its last step, with X as that sees it." if hasattr(estimator, "steps") else ""
        raise TypeError(
            f"{name} takes SoftmaxClassifier, SigmoidClassifier, HingeClassifier or "
            f"LeastSquaresClassifier, got {type(estimator).__name__}.{advice}"
        )
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping=True ends before the optimum, by rows that are held out: coefficients would vary with "
            "these. Use early_stopping=False."
        )
    if estimator.calibration == "sigmoid":
        raise ValueError(
            "calibration='sigmoid' is a part of coef_, and is not resampled. Use calibration=None, or 'temperature'."
        )
    model = clone(estimator).set_params(calibration=None, warm_start=False, callbacks=None, verbose=False)
    model._validate_params()
    return model


def names_of(model: LinearClassifier, n_columns: int) -> list[str]:
    """List the names of the columns of X, after categories have become indicators."""
    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(n_columns)])
    return [str(name) for name in getattr(model, "encoded_features_", names)]


def _portions(n: int, size: int) -> list[int]:
    """Divide n models among stacks of at most so many, about evenly."""
    return [len(part) for part in np.array_split(np.arange(n), -(-n // size))] if n else []


def _rows_of(problem: Problem) -> np.ndarray:
    """Number the rows of non-zero weight."""
    return np.arange(len(problem.codes)) if problem.subset is None else problem.subset


def _may_be_fitted(problem: Problem, counts: np.ndarray) -> np.ndarray:
    """Tell which resamples (B, n) have rows of each class, or, of each label, some with and some without it."""
    rows = _rows_of(problem)
    answers = problem.codes[rows].reshape(len(rows), -1).T
    kinds = [answer == kind for answer in answers for kind in np.unique(answer)]
    drawn = counts if problem.subset is None else counts[:, rows]
    return np.all(drawn @ np.stack(kinds, axis=1).astype(np.float64) > 0, axis=1)


def draw_resamples(
    problem: Problem, n_resamples: int, generator: np.random.Generator, stratify: bool = False
) -> np.ndarray:
    """Draw how often each row occurs in each resample, (n_resamples, n); rows of weight zero never do."""
    codes, rows = problem.codes, _rows_of(problem)
    if stratify and codes.ndim == 2:
        raise ValueError("stratify=True keeps the rows of each class, and label indicators have none. Use False.")
    groups = [rows[codes[rows] == c] for c in np.unique(codes[rows])] if stratify else [rows]
    counts = np.zeros((n_resamples, len(codes)))
    todo = np.arange(n_resamples)
    for _ in range(_MAX_DRAWS):
        parts = [group[generator.integers(len(group), size=(len(todo), len(group)))] for group in groups]
        for number, drawn in zip(todo.tolist(), np.concatenate(parts, axis=1), strict=True):
            counts[number] = np.bincount(drawn, minlength=len(codes))
        todo = todo[~_may_be_fitted(problem, counts[todo])]
        if not len(todo):
            return counts
    raise ValueError(
        f"In {_MAX_DRAWS} draws, {len(todo)} of {n_resamples} resamples had no row of some class (or label): there "
        "are too few rows of it. Use stratify=True, or leave out the class."
    )


def _without_parts(problem: Problem, n_parts: int, size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Make weights (at most `size`, n) that leave out a part of the rows each, unless a class would be gone with it."""
    rows = generator.permutation(_rows_of(problem))
    n_parts = min(n_parts, len(rows))
    parts = np.array_split(rows, max(1, n_parts))
    for n in _portions(n_parts, size):
        own, parts = parts[:n], parts[n:]
        counts = np.ones((n, len(problem.codes)))
        for weight, part in zip(counts, own, strict=True):
            weight[part] = 0
        counts = counts[_may_be_fitted(problem, counts)]
        if len(counts):
            yield counts


def _joined(parts: list[Found]) -> Found:
    """Join coefficients, and intercepts, of several stacks."""
    coefs, intercepts = zip(*parts, strict=True)
    return np.concatenate(coefs), np.concatenate(intercepts)
