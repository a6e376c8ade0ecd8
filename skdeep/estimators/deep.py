"""What the deep classifiers share."""

from __future__ import annotations

from numbers import Real

import numpy as np

from skdeep.compat.sklearn import Interval
from skdeep.engine.losses import LOSSES, Loss
from skdeep.engine.penalties import L2
from skdeep.estimators.base import BaseTorchClassifier
from skdeep.fitting.recipe import values

#: Penalties beyond this have no room in single precision, with the squares of coefficients.
_LARGEST = 1e30


class NeuralNetClassifier(BaseTorchClassifier):
    """Common part of the deep classifiers: cross-entropy, and an L2 penalty as MLPClassifier has it."""

    _multilabel = True
    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="both")],
    }

    def _loss(self, n_outputs) -> Loss:
        # one class at all is a column that is never the other one
        multiclass = n_outputs > 1 and not self._fitted_multilabel
        return LOSSES["log_loss" if multiclass else "binary_log_loss"]()

    def _penalty(self, members, total_weight, batch_weight):
        # MLPClassifier's alpha is per batch
        with np.errstate(over="ignore"):
            strength = values(members, "alpha") / batch_weight
        if strength.max() > _LARGEST:
            raise ValueError(
                f"alpha is divided by the weight of a batch, and sample_weight makes that {batch_weight.min():.3g}, "
                "too little to divide by. Multiply sample_weight by a number, or use alpha=0."
            )
        return L2(strength, np.zeros(len(members)))

    def _check_same_objective(self, what: str) -> None:
        """Raise if the solver compares losses, which `what` makes another function at each step."""
        if self.solver == "lbfgs":
            raise ValueError(
                f"solver='lbfgs' needs the same objective at every step, and with {what} it depends on random numbers "
                "or on the batch. Use solver='sgd', 'adam' or 'adamw'."
            )
