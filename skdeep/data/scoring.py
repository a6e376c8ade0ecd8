"""Scorers: tried on the labels before training, and what they return."""

from __future__ import annotations

import inspect
import math
import numbers
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from sklearn.metrics import get_scorer
from torch import Tensor

from skdeep.compat.sklearn import _BaseScorer, _check_response_method, _MultimetricScorer, _PassthroughScorer
from skdeep.data.answers import own_methods
from skdeep.data.inputs import Classifier

#: Values of ``scoring`` that are computed without a scorer.
BUILT_IN = (None, "loss", "calibrated_loss")

#: Score of a class that is certain, and of one that is not.
_SURE = 10.0


def as_score(value: Any, scoring: str | Callable | None, codes: np.ndarray) -> float:
    """Take what a scorer has returned, for rows of these codes, as a finite number; raise where it is none."""
    if hasattr(value, "item"):
        with suppress(ValueError, RuntimeError):  # of several values
            value = value.item()
    if not isinstance(value, numbers.Real):
        hint = " Several metrics cannot be compared: choose one." if isinstance(value, dict) else ""
        raise ValueError(
            f"scoring={scoring!r} must return a number, got {value!r} of type {type(value).__name__}.{hint}"
        )
    if not math.isfinite(value):
        are_classes = codes.ndim == 1 and codes.dtype.kind != "b"
        of = f" of the classes {np.unique(codes).tolist()} (by number)" if are_classes else ""
        raise ValueError(
            f"scoring={scoring!r} is {value} on the {len(codes)} rows{of} to judge by, and only finite numbers can be "
            "compared. Give validation data (X_val, y_val) on which it is defined, with rows of all classes, or choose "
            "another scoring: None, or 'loss'."
        )
    return float(value)


def takes_weight(scorer: Callable) -> bool:
    """Say whether a scorer, or the metric of one of scikit-learn's, has an argument ``sample_weight``."""
    parameters = inspect.signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)


def scorers_of(scorer: Callable) -> list:
    """List the scorers that one consists of."""
    return list(scorer._scorers.values()) if isinstance(scorer, _MultimetricScorer) else [scorer]


def only_asks(scorer: Callable) -> bool:
    """Say whether a scorer does nothing to an estimator but call its methods; a user's own may do anything."""
    return all(isinstance(one, _BaseScorer | _PassthroughScorer) for one in scorers_of(scorer))


def scores_suffice(scoring: str | Callable | None, estimator: Classifier) -> bool:
    """Say whether all that is asked for follows from scores: by a scorer that only asks, of no methods of a user's."""
    return scoring not in BUILT_IN and only_asks(get_scorer(scoring)) and not own_methods(estimator)


def try_scoring(
    scoring: str | Callable | None,
    estimator: Classifier,
    faultless: Any,
    codes: np.ndarray,
    labels: np.ndarray,
    sample_weight: np.ndarray | None,
) -> None:
    """Raise what a metric of scikit-learn's will say of these labels, before any training.

    It is asked about answers without fault, so that the labels alone can be the reason. Other scorers, and classifiers
    with methods of their own, are first asked after an epoch. The estimator is not trained yet, but has ``classes_``
    and what else follows from the labels; these are given as codes, (n,) or (n, C), and as the user knows them.
    """
    if not scores_suffice(scoring, estimator):
        return
    scorer = get_scorer(scoring)
    if not (inspect.unwrap(scorer._score_func).__module__ or "").startswith("sklearn.metrics"):
        return
    try:
        _check_response_method(estimator, scorer._response_method)
    except AttributeError as error:
        raise ValueError(f"scoring={scoring!r} cannot judge this classifier: {error}") from error
    weight = {} if sample_weight is None else {"sample_weight": sample_weight}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # of answers to several questions, which the metric takes for the classes of one
        warnings.filterwarnings("error", "The y_prob values do not sum to one")
        try:
            if codes.ndim == 2 and codes.shape[1] == 2 and scorer._response_method == "predict_proba":
                raise ValueError("scikit-learn takes the probabilities of two labels for those of two classes")
            value = scorer(faultless, np.empty((len(codes), 0)), labels, **weight)
        except (ValueError, TypeError, UserWarning) as error:
            of_values = codes.dtype.kind == "b"
            instead = "None or 'loss', for example" if of_values else "'accuracy' or 'f1_macro' for example"
            raise ValueError(
                f"scoring={scoring!r} cannot judge these {'targets' if of_values else 'labels'}: "
                f"{str(error).rstrip('.')}. Choose another scoring, {instead}, or set what the metric needs with "
                "sklearn.metrics.make_scorer."
            ) from error
    as_score(value, scoring, codes)


def faultless_scores(codes: np.ndarray, n_outputs: int) -> Tensor:
    """Make scores (n, C) that are right about every row; of indicators, also where a row has one label by chance."""
    if codes.ndim == 2:
        return torch.from_numpy(np.where(codes, _SURE, -1.0))
    is_right = codes[:, None] == ([1] if n_outputs == 1 else np.arange(n_outputs))
    return torch.from_numpy(np.where(is_right, _SURE, -_SURE))
