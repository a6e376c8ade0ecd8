"""What the deep estimators share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch

from skdeep.compat.sklearn import Interval, Options, StrOptions
from skdeep.engine.losses import LOSSES, Loss
from skdeep.engine.penalties import L2, ElasticNet
from skdeep.engine.schedules import SCHEDULES
from skdeep.estimators.base import BaseTorchClassifier, BaseTorchEstimator
from skdeep.fitting.recipe import Member, values
from skdeep.fitting.settings import SOLVERS, Solver, solver_name

#: Rows of a batch of a perceptron, by default: a hundredth of all, within these bounds.
BATCH_ROWS = 64, 256
#: Rows below which noise is learnt by heart, whatever the number of columns.
_FEW_ROWS = 300
#: Penalties beyond this have no room in single precision, with the squares of coefficients.
_LARGEST = 1e30


@dataclass(eq=False, repr=False, kw_only=True)
class NeuralNet(BaseTorchEstimator):
    """Common part of the deep estimators: an L2 penalty as MLPClassifier has it."""

    solver: str | Solver = "adam"
    alpha: float | str = 1e-4
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float | str = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: int | np.random.RandomState | None = None
    tol: float = 1e-4
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    warmup_epochs: float = 0
    max_grad_norm: float | None = None
    scoring: str | Callable | None = None
    device: str | torch.device = "auto"
    precision: str = "auto"
    categorical_features: Any = "from_dtype"

    stackable = BaseTorchEstimator.stackable | {"learning_rate_init", "momentum", "n_iter_no_change"}
    _parameter_constraints: ClassVar[dict] = {
        **{name: checks for cls in SOLVERS.values() for name, checks in cls._parameter_constraints.items()},
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="both")],
    }

    def _penalty(
        self,
        members: list[Member],
        total_weight: np.ndarray,
        batch_weight: np.ndarray,
        n_columns: float = 0.0,
        share: float = 1.0,
    ) -> ElasticNet:
        # MLPClassifier's alpha is per batch
        with np.errstate(over="ignore"):
            strength = strengths(members, total_weight, batch_weight, n_columns, share)
        if strength.max() > _LARGEST:
            raise ValueError(
                f"alpha is divided by the weight of a batch, and sample_weight makes that {batch_weight.min():.3g}, "
                "too little to divide by. Multiply sample_weight by a number, or use alpha=0."
            )
        return L2(strength, np.zeros(len(members)))

    def _auto_alpha(self, n_rows: np.ndarray, n_columns: float) -> np.ndarray:
        """Choose the strengths of ``alpha="auto"`` in batches of the automatic size, given rows and columns."""
        scarcity = np.maximum(_FEW_ROWS / np.maximum(n_rows, BATCH_ROWS[0]), 1.0)
        return 0.5 * np.sqrt(np.minimum(n_columns / n_rows, 1.0)) * scarcity

    def _check_same_objective(self, what: str) -> None:
        """Raise if the solver compares losses, which `what` makes another function at each step."""
        if solver_name(self) == "lbfgs":
            raise ValueError(
                f"solver='lbfgs' needs the same objective at every step, and with {what} it depends on random numbers "
                "or on the batch. Use solver='sgd', 'adam' or 'adamw'."
            )


@dataclass(eq=False, repr=False, kw_only=True)
class SingleNet(NeuralNet):
    """Common part of the deep estimators that are one network: what an ensemble of networks has no use for."""

    validation_fraction: float = 0.1
    warm_start: bool = False
    callbacks: Any = None
    verbose: bool | int = False


@dataclass(eq=False, repr=False, kw_only=True)
class NeuralNetClassifier(NeuralNet, BaseTorchClassifier):
    """Common part of the deep classifiers: cross-entropy."""

    class_weight: dict | list | str | None = None
    calibration: str | None = None

    _multilabel = _takes_probabilities = True

    def _loss(self, n_outputs: int) -> Loss:
        # one class at all is a column that is never the other one
        multiclass = n_outputs > 1 and not self._fitted_multilabel
        return LOSSES["log_loss" if multiclass else "binary_log_loss"]()


def rows_of_batches(n_rows: np.ndarray | int) -> np.ndarray:
    """Choose the rows of a batch of a perceptron."""
    return np.clip(n_rows // 100, *BATCH_ROWS)


def strengths(
    members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray, n_columns: float, share: float
) -> np.ndarray:
    """List the strength of each network's penalty, given the weights of its training rows and of a batch of them.

    Of what ``alpha="auto"`` is for relu, it is a share.
    """
    alpha = values(members, "alpha")
    if not (unknown := np.isnan(alpha)).any():
        return alpha / batch_weight
    unit = np.array([member.unit for member in members])
    n_rows = total_weight / unit
    # what there is to learn by heart, beside what there is to learn it from, in which batches play no part
    auto = share * members[0].estimator._auto_alpha(n_rows, n_columns)
    return np.where(unknown, auto / (unit * rows_of_batches(n_rows)), alpha / batch_weight)
