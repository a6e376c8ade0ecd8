"""From the parameters of an estimator and the form of its data to a `Recipe`: solver, batches, precision and device."""

from __future__ import annotations

from typing import Any

import torch

from skdeep.data.inputs import Classifier, resolve_device
from skdeep.data.problem import Problem
from skdeep.engine.losses import Loss, smoothed
from skdeep.fitting.recipe import Recipe
from skdeep.fitting.settings import FULL_BATCH, Solver, settings_of

#: Up to this many multiply-adds per epoch, float64 costs no time worth mentioning.
_FREE_FLOAT64 = 2**24

#: dtype of parameters and losses for each `precision`.
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}

#: Rows per step where nothing is said of them.
BATCH_ROWS = 200


def batch_rows(estimator: Classifier, problem: Problem, solver: str, auto: int = BATCH_ROWS) -> int:
    """Choose the rows per step: as many as were asked for, or `auto`; all of them in full batches."""
    if solver in FULL_BATCH:
        return problem.n_rows
    asked = settings_of(estimator).batch_size
    return min(auto if asked == "auto" else asked, problem.n_rows)


def filled_rows(problem: Problem, rows: int) -> int:
    """Choose the rows per step, `rows` at least: as many as have a value for each column, up to a sixteenth of all.

    A step also passes over all coefficients, which rows with few values each would otherwise wait for.
    """
    filled = int(1 / max(problem.density, 1 / problem.n_rows))
    return max(rows, min(filled, -(-problem.n_rows // 16)))


def epochs_of(steps: int, problem: Problem, rows: int) -> int:
    """Count the epochs that so many steps take, rounded up."""
    return -(-steps // -(-problem.n_rows // rows))


def choose(estimator: Classifier, problem: Problem, solver: str, rows: int, loss: Loss, **decisions: Any) -> Recipe:
    """Make the recipe of an estimator's fit, with so many rows per step, by a loss that may be smoothed.

    The estimator has ``classes_`` and ``n_outputs_``, and the problem is not placed yet. Decisions are fields of the
    `Recipe`, where they are not the plain ones.
    """
    n_outputs, settings = estimator.n_outputs_, settings_of(estimator, solver)
    dtype = decisions.pop("dtype", None) or _dtype(estimator, problem, settings)
    device, dtype = _place(estimator, problem, settings, rows, dtype)
    if solver == "exact" and not decisions["closed_form"]:  # computed in NumPy
        device = torch.device("cpu")
    fields: dict[str, Any] = {
        "loss": smoothed(loss, estimator.label_smoothing),
        "judged_by": loss,
        "n_outputs": n_outputs,
        "solver": solver,
        "batch_rows": rows,
        "device": device,
        "dtype": dtype,
        "products": torch.bfloat16 if settings.precision == "bfloat16" else None,
        "max_iter": estimator.max_iter,
        "schedule": getattr(settings, "learning_rate", "constant"),
        "horizon": estimator.max_iter,
        "proximal": solver == "adamw",
        "penalty": estimator._penalty,
        "rates": estimator._rates,
        "network": estimator._network,
        "settings": settings,
    }
    return Recipe(**fields | decisions)


def _dtype(estimator: Classifier, problem: Problem, settings: Solver) -> torch.dtype:
    """Choose the dtype of parameters and losses: the user's, or float64 where it costs nothing or is the point."""
    if settings.precision == "auto":
        work = problem.n_rows * estimator._n_params(problem.source.shape[1], estimator.n_outputs_)
        exact = work <= _FREE_FLOAT64 or settings.name in estimator._exact_solvers
        return torch.float64 if exact else torch.float32
    if settings.precision == "bfloat16" and settings.name in FULL_BATCH:
        raise ValueError(
            f"solver={settings.name!r} compares losses more finely than products in bfloat16 can tell them apart. "
            "Use precision='float32', or solver='sgd', 'adam' or 'adamw'."
        )
    return DTYPES[settings.precision]


def _place(
    estimator: Classifier, problem: Problem, settings: Solver, rows: int, dtype: torch.dtype
) -> tuple[torch.device, torch.dtype]:
    """Choose where, and in which dtype, to compute.

    What a model is does not depend on the device, up to rounding. MPS has no float64: what needs it (exact solvers)
    is computed on the CPU, all else in float32.
    """
    work = estimator._n_params(problem.source.shape[1], estimator.n_outputs_) * rows * problem.density
    device = resolve_device(estimator.device, problem.source, work, dtype)
    if device.type == "mps" and settings.name in estimator._exact_solvers:
        device = torch.device("cpu")
    if settings.precision == "bfloat16" and not torch.amp.is_autocast_available(device.type):
        raise ValueError(f"precision='bfloat16' is not available on device {device.type!r}. Use 'float32'.")
    if device.type == "mps" and dtype is torch.float64:
        if settings.precision == "float64":
            raise ValueError("precision='float64' is not available on device 'mps'. Use 'float32'.")
        dtype = torch.float32
    return device, dtype
