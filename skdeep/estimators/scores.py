"""Classifiers that have probabilities only when they are calibrated."""

from __future__ import annotations

from typing import Any

from skdeep.data.inputs import Data
from skdeep.estimators.base import BaseTorchClassifier
from skdeep.fitting.methods import available_unless


def _uncalibrated(estimator: BaseTorchClassifier) -> str | None:
    if estimator.calibration is None:
        name = type(estimator).__name__
        return f"calibration=None: the scores of {name} are no probabilities. Use calibration='temperature'."
    return None


class ScoresMixin:
    """A classifier whose scores are no logarithms of odds: it has probabilities only with ``calibration``."""

    @available_unless(_uncalibrated)
    def predict_proba(self, X: Data) -> Any:
        return super().predict_proba(X)  # type: ignore[misc]

    @available_unless(_uncalibrated)
    def predict_log_proba(self, X: Data) -> Any:
        return super().predict_log_proba(X)  # type: ignore[misc]
