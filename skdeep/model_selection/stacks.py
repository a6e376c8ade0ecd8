"""Several estimators trained as one stack: which may share one, how large it may be, and what goes wrong for whom."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator

from skdeep.data.inputs import Data, resolve_device
from skdeep.data.labels import Probabilities
from skdeep.engine.rows import free_memory
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.fitting.fit import fit
from skdeep.fitting.settings import settings_of, solver_name
from skdeep.fitting.torch_settings import own_settings
from skdeep.solvers.lbfgs import HISTORY

#: Share of the memory that a stack's parameters and activations may take.
_MEMORY_SHARE = 0.25
_UNKNOWN_MEMORY = 2**32
#: Tensors of the size of the parameters in training: themselves, gradients, two of the optimizer's, two that a step
#: makes of them (L1 behind Adam makes four more, for which the share leaves room).
_PARAMETER_COPIES = 6
#: Those that L-BFGS remembers, and what it makes of them for a direction.
_HISTORY_COPIES = 4 * HISTORY
#: Tensors of the size of a layer's activations: forward, backward, and one in passing.
_ACTIVATION_COPIES = 3
#: Values of the rows of all splits, at most, that are put into one array.
MAX_IN_ONE_ARRAY = 1 << 24


#: Errors that no data should raise.
_FAULTS = (AssertionError, AttributeError, LookupError, NameError)


class CannotStack(Exception):
    """Raised where models cannot be one stack; its message says why."""


def warn_of_fault(error: Exception) -> None:
    """Warn of an error that no data should raise, which has kept models apart."""
    if isinstance(error, _FAULTS):
        warnings.warn(
            f"A fault of skdeep's ({error!r}) keeps it from training models together. They are trained apart: the "
            "results are the same, and take longer. Please report it.",
            RuntimeWarning,
            stacklevel=3,
        )


def why_alone(estimator: BaseEstimator) -> str | None:
    """Say why an estimator cannot train in a stack with others; None if it can."""
    if not isinstance(estimator, BaseTorchEstimator):
        return f"{type(estimator).__name__} is none of skdeep's estimators"
    if not type(estimator).fit.__module__.startswith("skdeep."):
        return f"{type(estimator).__name__} has a fit of its own"
    if not estimator.stackable:
        return f"{type(estimator).__name__} has a module of its own"
    if estimator.callbacks or getattr(estimator, "_skl_callbacks", None):
        return "callbacks listen to one model at a time"
    if estimator.verbose:
        return "verbose prints the epochs of one model at a time"
    return None


def stackable_now(estimator: BaseTorchEstimator) -> frozenset[str]:
    """Name the parameters in which the members of a stack may differ, given the others.

    Splits of the rows follow from one seed, an ensemble's too, and so does the order of rows that are all one batch, by
    which masks go. With a probability of zero nothing is drawn, and without stochastic depth there are no blocks.
    """
    drawn = {name: getattr(estimator, name, None) for name in ("dropout", "stochastic_depth")}
    one_seed = estimator.early_stopping or estimator.calibration is not None or drawn["dropout"]
    one_seed = one_seed or estimator._averages_probabilities
    fixed = {name for name, probability in drawn.items() if not probability}
    if getattr(estimator, "learning_rate_init", None) == "auto":  # the schedule's length goes by it
        fixed.add("learning_rate_init")
    return estimator.stackable - fixed - ({"random_state"} if one_seed else set())


def fit_stack(
    members: Sequence[BaseTorchEstimator],
    X: Data,
    y: Data,
    sample_weight: ArrayLike | None = None,
    X_val: Data = None,
    y_val: Data = None,
    sample_weight_val: ArrayLike | None = None,
    *,
    with_probabilities: bool = True,
) -> list[Exception | None]:
    """Fit several estimators of one class to the same data, as one stack as far as the memory allows.

    Their parameters are the same but for those in ``stackable``. Without probabilities, for which nobody will ask, no
    temperature is fitted. Returned is what each member's ``fit`` would have raised; those with None are fitted.
    """
    validation, how = (X_val, y_val, sample_weight_val), {"in_stack": True, "with_probabilities": with_probabilities}
    failures = [_invalid_parameters(member) for member in members]
    valid = [m for m, failure in enumerate(failures) if failure is None]
    if not valid:
        return failures
    try:
        size = capacity(members[valid[0]], X, y)
    except Exception:  # malformed data: a fit says better what is wrong
        size = 1
    waiting = [list(part) for part in np.array_split(valid, -(-len(valid) // size))]
    while waiting:
        part = waiting.pop(0)
        stack = [members[m] for m in part]
        try:
            with own_settings():
                outcome = fit(stack, X, y, sample_weight, validation, **how)
        except Exception as error:  # one member's fault, or a lack of memory: halves find out
            if len(part) > 1:
                warn_of_fault(error)
                half = len(part) // 2
                waiting[:0] = [part[:half], part[half:]]
                continue
            outcome = [error]
        for m, failure in zip(part, outcome, strict=True):
            failures[m] = failure
    return failures


def _invalid_parameters(member: BaseTorchEstimator) -> Exception | None:
    try:
        if not get_config()["skip_parameter_validation"]:
            member._validate_params()
    except ValueError as error:
        return error
    return None


def _shape_of(leader: BaseTorchEstimator, X: Data, y: Data) -> tuple[int, int, int, int]:
    """Count rows per step, columns of X, columns of scores, and weights of a model, before anything is validated."""
    n_rows, n_features = np.shape(X) if not hasattr(X, "shape") else X.shape
    y = y.table if isinstance(y, Probabilities) else y
    n_outputs = leader._count_outputs(y)
    asked = getattr(settings_of(leader), "batch_size", n_rows)
    batch_rows = min(n_rows, 200 if asked == "auto" else asked)
    return batch_rows, n_features, n_outputs, leader._n_params(n_features, n_outputs)


def device_of(leader: BaseTorchEstimator, X: Data, y: Data) -> torch.device:
    """Foretell the device that models of this kind will train on, as far as can be told beforehand."""
    batch_rows, *_, n_params = _shape_of(leader, X, y)
    dtype = torch.float64 if settings_of(leader).precision == "float64" else torch.float32
    return resolve_device(leader.device, X, batch_rows * n_params, dtype)


def capacity(leader: BaseTorchEstimator, X: Data, y: Data) -> int:
    """Estimate how many models of this kind fit into the memory at a time."""
    batch_rows, _, n_outputs, n_params = _shape_of(leader, X, y)
    copies = _PARAMETER_COPIES + (_HISTORY_COPIES if solver_name(leader) in ("lbfgs", "auto") else 0)
    per_model = copies * n_params + _ACTIVATION_COPIES * batch_rows * leader._n_units(n_outputs)
    return max(1, int(_MEMORY_SHARE * _memory(device_of(leader, X, y)) / (8 * per_model)))


def _memory(device: torch.device) -> int:
    """Count the bytes that a device has: free ones on a GPU, all of the machine's otherwise."""
    if device.type == "cuda":
        return free_memory(device)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY
