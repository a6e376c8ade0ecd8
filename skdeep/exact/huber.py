"""Huber's loss whose delta is far below errors: nearly the absolute error, at which Newton's method creeps.

Which few rows are within delta is a puzzle then, as in linear programs. The interior point of `skdeep.exact.piecewise`
takes a dozen steps, whatever delta is.
"""

from __future__ import annotations

import numpy as np

from skdeep.exact import elastic_net, piecewise
from skdeep.exact.rows import Rows
from skdeep.exact.value_losses import HuberLoss

#: Deltas below this, of targets of about one, are solved here, and others that no more than a share of the targets are
#: within: where all errors are beyond delta, Newton's method knows no curvature to begin with.
_SMALL, _WITHIN = 0.02, 0.1
#: Most unknowns of a system.
_MAX_SYSTEM = 1024
#: Relative gap at which the rows within delta are known.
_NEAR = 1e-10


def suits(rows: Rows, loss: HuberLoss) -> bool:
    """Tell whether the interior point takes less time than Newton's method."""
    if rows.shape[1] > _MAX_SYSTEM:
        return False
    return loss.delta < _SMALL or bool(np.mean(np.abs(loss.target) <= loss.delta) < _WITHIN)


def starts(rows: Rows, loss: HuberLoss, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Find parameters (K, 1, D) from which Newton's method takes a step or two, of models of one column each."""
    weight = np.broadcast_to(weight, (len(rho), weight.shape[1]))
    try:
        if loss.target.ndim == 2:
            found = solve(rows, loss, weight, 0 * rho, rho, _NEAR).params
        else:
            each = zip(loss.target, weight[:, None], rho[:, None], strict=True)
            parts = [solve(rows, loss.of(target), own, 0 * of, of, _NEAR).params for target, own, of in each]
            found = np.concatenate(parts)
    except (ValueError, np.linalg.LinAlgError):  # numbers beyond floats, of which Newton's method says more
        return np.zeros((len(rho), 1, rows.shape[1]))
    return np.where(np.isfinite(found), found, 0)


def solve(
    rows: Rows, loss: HuberLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float | np.ndarray
) -> elastic_net.Solution:
    """Minimise the loss of one column with penalties (K, D) to relative duality gaps."""
    target, slope = loss.target, np.array([loss.delta])
    return piecewise.solve(rows, target, target, slope, slope, weight, rho, kappa, gap, width=2 * loss.delta)
