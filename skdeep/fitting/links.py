"""How the scores of a classifier become probabilities (its `Link`), and what a calibration leaves in it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.nn import functional as F

from skdeep.data.answers import Link, tempered
from skdeep.data.inputs import Classifier, OutputSpace, to_numpy
from skdeep.engine.losses import LOSSES
from skdeep.engine.networks import Network
from skdeep.fitting.calibrators import fit_sigmoid, fit_temperature, for_average

#: The loss whose probabilities a calibration's are; scores of independent labels are sigmoids in any case.
_LINKS = {"temperature": LOSSES["log_loss"], "sigmoid": LOSSES["binary_log_loss"]}
#: The fitted attributes of a calibration.
CALIBRATED = frozenset({"temperature_", "calibration_slopes_", "calibration_offsets_"})
#: Where results go that only we look at.
_NUMPY = OutputSpace(np.empty(0))


def check_calibration(estimator: Classifier) -> None:
    """Raise if the model was fitted with another `calibration` than it has now, and probabilities would be wrong.

    A temperature can be left out of it; what else has been fitted, or not, is in its scores.
    """
    if len(estimator.classes_) == 1:  # there is nothing to calibrate
        return
    asked, fitted = estimator.calibration, "sigmoid" if hasattr(estimator, "calibration_slopes_") else None
    known = hasattr(estimator, "temperature_") if asked == "temperature" else asked == fitted
    if not known:
        raise NotFittedError(
            f"This {type(estimator).__name__} has calibration={asked!r}, which it was not fitted with. Call fit again, "
            "or put calibration back."
        )


def uncalibrated_link(estimator: Classifier) -> Link:
    """Make the link of a classifier, as it is before its calibration, if any: at temperature 1."""
    # averaged probabilities are of calibrated scores
    calibration = None if estimator._averages_probabilities else estimator.calibration
    loss = estimator._loss(estimator.n_outputs_) if calibration is None else _LINKS[calibration]()
    return Link(loss, estimator._fitted_multilabel)


def link_of(estimator: Classifier) -> Link:
    """Make the link of a fitted classifier."""
    link = uncalibrated_link(estimator)
    return link if estimator._averages_probabilities else replace(link, temperature=temperature_of(estimator))


def temperature_of(estimator: Classifier) -> float | np.ndarray | None:
    """Look up the temperature of a fitted classifier; None if it has none."""
    check_calibration(estimator)
    return estimator.temperature_ if estimator.calibration == "temperature" and len(estimator.classes_) > 1 else None


@dataclass(frozen=True)
class Average:
    """How the scores of the models of an ensemble become its own.

    They are the logarithm of its averaged probabilities, or of their odds where an answer is yes or no.
    """

    temperature: float | np.ndarray | None  # of the models
    odds: bool  # whether an answer is yes or no
    sigmoids: bool  # whether probabilities of classes are sigmoids that are divided by their sum

    def of(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        """Average scores (K, n, C) to (n, C); `say` (K, n) is the weight of each model, None for the same."""
        scores = tempered(scores, self.temperature)
        log_say = -math.log(len(scores)) if say is None else say.log().unsqueeze(-1)
        if self.odds:
            return (F.logsigmoid(scores) + log_say).logsumexp(0) - (F.logsigmoid(-scores) + log_say).logsumexp(0)
        log_p = F.logsigmoid(scores) if self.sigmoids else scores
        # by blocks of rows, as scores lie in memory: in a sixth of the time
        return (log_p.mT.log_softmax(-2).mT + log_say).logsumexp(0)


def average_of(estimator: Classifier) -> Average | None:
    """Make the average of an ensemble; None for a single model."""
    if not estimator._averages_probabilities:
        return None
    odds, sigmoids = estimator.out_activation_ == "logistic", estimator.calibration == "sigmoid"
    return Average(temperature_of(estimator), odds, sigmoids)


def calibrate(
    estimator: Classifier,
    scores: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    own: tuple[np.ndarray, np.ndarray],
    kept: tuple[np.ndarray, np.ndarray],
) -> None:
    """Fit the calibration of a classifier on out-of-fold scores; `own`, `kept`: see `fit_sigmoid`."""
    if estimator.calibration == "sigmoid":
        if getattr(estimator, "out_activation_", "") == "softmax":
            # where a softmax leaves a common shift of the scores free, every fold's model has its own
            scores, centred = (s - s.mean(1, keepdims=True) for s in (scores, own[0]))
            own = centred, own[1]
            estimator._map_scores(np.eye(estimator.n_outputs_) - 1 / estimator.n_outputs_, 0.0)
        slopes, offsets = fit_sigmoid(scores, codes, weight, own, kept)
        estimator._map_scores(np.diag(slopes), offsets)
        space = OutputSpace(estimator._any_coef)
        estimator.calibration_slopes_, estimator.calibration_offsets_ = space.array(slopes), space.array(offsets)
        return
    if codes.ndim == 1:
        estimator.temperature_ = fit_temperature(scores, codes, weight, own)
    else:
        labels = zip(scores.T[..., None], codes.T, own[0].T[..., None], strict=True)
        temperatures = [fit_temperature(s, answers, weight, (o, own[1])) for s, answers, o in labels]
        estimator.temperature_ = np.array(temperatures)
    if estimator._averages_probabilities:
        estimator.temperature_ = for_average(estimator.temperature_)


def undo_calibration(estimator: Classifier) -> None:
    """Take out of a model what Platt's slopes and offsets have put in, so that training can go on without them."""
    if not hasattr(estimator, "calibration_slopes_"):
        return
    slopes, offsets = to_numpy(estimator.calibration_slopes_), to_numpy(estimator.calibration_offsets_)
    # what a slope of zero has made of a column of scores tells nothing of it: it begins at zero
    inverse = np.divide(1.0, slopes, out=np.zeros_like(slopes), where=slopes != 0)
    estimator._map_scores(np.diag(inverse), -offsets * inverse)
    del estimator.calibration_slopes_, estimator.calibration_offsets_


def learned(estimator: Classifier, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict[str, Any]:
    """Make all fitted attributes that predictions need, as training leaves them.

    Until the calibration is fitted, callbacks and scorers see probabilities at temperature 1, or slope 1.
    """
    attributes = estimator._learned(network, model, dtype, space)
    if estimator.calibration == "sigmoid":
        ones = np.ones(estimator.n_outputs_)
        attributes |= {"calibration_slopes_": ones, "calibration_offsets_": 0 * ones}
    elif estimator.calibration == "temperature":
        attributes["temperature_"] = 1.0
    return attributes


def fitted_copy(estimators: list[Classifier], network: Network, at: int, model: int, dtype: Any = np.float64) -> Any:
    """Make an estimator to score: number `model` of some, with the parameters of number `at` of a network.

    They are kept in a dtype. Its probabilities are at temperature 1, whatever the calibration that is still to come.
    """
    estimator = copy.copy(estimators[0])
    attributes = estimators[model].get_params(deep=False) | learned(estimator, network, at, np.dtype(dtype), _NUMPY)
    if estimator.calibration is not None:
        attributes |= {"calibration": "temperature", "temperature_": 1.0}
    estimator.__dict__.update(attributes)
    vars(estimator).pop("feature_names_in_", None)  # validated arrays have none
    return estimator
