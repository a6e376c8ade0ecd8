"""The change of variables of a linear model: in which columns it is trained, and what the penalty speaks of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from skdeep.data.columns import Columns, sizes_of
from skdeep.data.problem import Problem
from skdeep.engine.frame import named
from skdeep.engine.penalties import ElasticNet
from skdeep.solvers.closed_form import rounding

#: Share of a column's size, by what the penalty makes it, below which rounding leaves nothing of it; and below which a
#: model that has no other columns is flat.
_NOTHING, _FLAT = 1e-16, 1e-4
#: Strength of a penalty beyond which it is meant to flatten columns of the order of one.
_LARGE = 10.0
#: Factor by which values of sparse columns may differ from those of others and still be of one kind with them.
_ONE_KIND = 3.0
#: Share of rows with a value up to which a column's variance is no small difference of squares; and numbers of a model
#: and a column that are computed at once.
_FULL, _FEW_VALUES = 0.5, 2**18


def change_of_variables(
    problem: Problem,
    columns: list[Columns],
    penalty: ElasticNet,
    power: np.ndarray,
    curvature: float,
    *,
    fit_intercept: bool,
    exact: bool,
    products: torch.dtype | None = None,
) -> dict[str, Any]:
    """Choose center, scale, unit and frame of `skdeep.engine.networks.Linear`, by the columns of each model.

    Raise where nothing is left of a column beside the penalty, or in closed form beside the others.

    Of models whose penalty is in units of the columns, these grow by a `power` (K,) of the length of sparse rows; it is
    NaN for models whose penalty is on the columns as they are. The `curvature` is the loss's. With `fit_intercept`,
    dense columns are centred. In an `exact`, closed form, all columns have one factor, and only their penalty has a
    unit.
    """
    is_sparse = sparse.issparse(problem.source)
    centered = fit_intercept and not is_sparse
    sizes, constant = sizes_of(columns, centered)
    frame = problem.see(columns[0], sizes[0], centered, products, same_factor=exact)
    factor, origin = (1.0, 0.0) if frame is None else (frame.factor, frame.origin)
    sizes *= factor
    own_units = ~np.isnan(power)
    of_penalty_units = sizes.copy()
    if is_sparse and own_units.any():
        has_levels = problem.indicators.start < problem.indicators.stop
        of_penalty_units = factor * units_of_sparse(columns, fit_intercept, np.nan_to_num(power), has_levels)
    of_penalty_units[:, problem.indicators] = 1.0  # a rare level is to be worth no more than a frequent one
    units = np.where(own_units[:, None], of_penalty_units, factor)
    ridge, slopes = penalty.curvature(), penalty.alpha * penalty.l1_ratio
    if ridge.ndim == 2:  # of each score: the columns are the same for all
        ridge, slopes = ridge.max(1), slopes.max(1)
    root = np.sqrt(ridge / curvature)
    of_penalty = units * root[:, None]
    varying, strengths = ~constant, np.maximum(root, slopes)
    _check_penalty(sizes / units, strengths[:, None], varying)
    if exact and not own_units.all():
        _check_range(sizes, rounding(problem.n_rows, sizes.shape[1], is_sparse), varying)

    return {
        "center": np.array([c.mean for c in columns]) * factor - origin if centered else None,
        # without the penalty's curvature, it would be the penalty that is badly scaled
        "scale": 1 / np.hypot(sizes, of_penalty),
        "unit": units if own_units.any() or frame is not None else None,
        "frame": frame,
    }


def units_of_sparse(
    columns: list[Columns], centered: bool, power: np.ndarray, as_dense: bool, count: np.ndarray | float = 1.0
) -> np.ndarray:
    """Compute the units of the penalty on sparse columns, (K, d), by the deviations (`centered`) or sizes of values.

    A column that is zero in few rows has the unit that it has as a dense one; so has any, `as_dense`. Of others, which
    are worth no more for being rare, it is what columns of their kind have for the root mean square of values other
    than zero. It grows by a `power` (K,) of the length that rows have in these, of what is not in all of them.
    There are `count` (d,) columns of each kind.
    """
    each = zip(columns, power.tolist(), strict=True)
    return np.array([_units_of_sparse(own, centered, exponent, as_dense, count) for own, exponent in each])


def _units_of_sparse(
    columns: Columns, centered: bool, power: float, as_dense: bool, count: np.ndarray | float
) -> np.ndarray:
    """Compute the units of one model, (d,): there may be so many columns that all models' at once have no room."""
    size, constant = _size_of_sparse(columns, centered)
    filled = columns.weight / (columns.weight + columns.missing)
    if as_dense:
        return size * np.where(constant, 1.0, np.sqrt(filled))
    return _of_their_kind(np.log(size), filled, count, power)


def _size_of_sparse(columns: Columns, centered: bool) -> tuple[np.ndarray, np.ndarray]:
    """Measure the values other than zero of each column (d,), and tell where these say nothing."""
    unit = np.where(columns.largest > 0, columns.largest, 1.0)  # squares of anything else may overflow
    mean, variance = np.square(columns.mean / unit), np.square(columns.deviation / unit)
    rare = columns.missing / (columns.weight + columns.missing)
    magnitude = np.sqrt(variance + mean)
    size = np.sqrt(variance + rare * mean) if centered else magnitude
    constant = size <= columns.rounding * magnitude
    size = unit * np.where(constant, magnitude, size)
    size[size == 0] = 1
    return size, constant


def _of_their_kind(size: np.ndarray, filled: np.ndarray, count: np.ndarray | float, power: float) -> np.ndarray:
    """Compute the units that columns of one kind have, by logarithms of sizes and by how many rows have a value."""
    rare = 1 - filled
    partly = count * filled * rare
    total = partly.sum()
    typical = (partly @ size) / (total if total > 0 else 1.0)
    free = np.log(_ONE_KIND) * rare
    of_kind = np.full_like(size, np.exp(typical))
    apart = np.flatnonzero(np.abs(size - typical) > free)
    of_kind[apart] = np.exp(np.clip(typical, (size - free)[apart], (size + free)[apart]))
    of_kind *= np.sqrt(1 + total) ** power
    return of_kind


class UnitsOfWeights:
    """Computes what `units_of_sparse` does, but `as_dense`, for many weights of the same rows (n, d)."""

    def __init__(self, X: sparse.csr_array, centered: bool, power: float, count: np.ndarray):
        self.X, self.centered, self.power, self.count = X, centered, power, count
        turned = X.T.tocsr().astype(np.float64)
        turned.eliminate_zeros()
        largest = abs(turned).max(axis=1).toarray()
        self.unit = np.where(largest > 0, largest, 1.0)
        values = turned.data / np.repeat(self.unit, np.diff(turned.indptr))
        powers = [
            sparse.csr_array((own, turned.indices, turned.indptr), turned.shape)
            for own in (np.ones_like(values), values, np.square(values))
        ]
        self._sums = sparse.vstack(powers, format="csr")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Compute the units (K, d) for weights (K, n)."""
        step = max(1, _FEW_VALUES // max(self.X.shape))
        return np.concatenate([self._of_some(weights[k : k + step]) for k in range(0, len(weights), step)])

    def _of_some(self, weights: np.ndarray) -> np.ndarray:
        sums = np.ascontiguousarray((self._sums @ weights.T).T).reshape(len(weights), 3, -1)
        (filled, moved, square), total = sums.swapaxes(0, 1), weights.sum(1, keepdims=True)
        is_there, known = filled > 0, np.where(filled > 0, filled, 1.0)
        filled /= total
        if self.centered:
            moved *= moved
            moved /= total
            square -= moved
        square /= known
        # what rounding leaves of a column that is full is not what counts
        square = np.where(is_there, np.maximum(square, np.finfo(float).tiny), 1.0)
        size = 0.5 * np.log(square) + is_there * np.log(self.unit)
        if self.centered and (full := np.flatnonzero((filled > _FULL).any(0))).size:
            columns = Columns.of_models(self.X[:, full], [None] * len(weights), list(weights))
            size[:, full] = np.log([_size_of_sparse(own, True)[0] for own in columns])
        each = zip(size, filled, strict=True)
        return np.array([_of_their_kind(*own, self.count, self.power) for own in each])


def _check_penalty(sizes: np.ndarray, strengths: np.ndarray, varying: np.ndarray) -> None:
    """Raise where the penalty leaves nothing of a column, however well it tells the classes apart.

    Because the column is small, that is, and not because the penalty is as large as that, as it may be in a search.
    """
    strengths = np.minimum(strengths, _LARGE)
    flat = varying & (sizes < _FLAT * strengths)
    if not flat.any():  # nor less than that
        return
    lost = flat & (sizes < _NOTHING * strengths)
    lost |= flat & (flat | ~varying).all(1, keepdims=True)
    if lost.any():
        raise ValueError(
            "The penalty is one on the coefficients of the columns as they are, and its strength, alpha, leaves "
            f"nothing of {named(np.any(lost, axis=0))}, whose values are too small. Scale the columns of X "
            "(StandardScaler, or MaxAbsScaler for sparse X), or lower alpha."
        )


def _check_range(sizes: np.ndarray, limit: float, varying: np.ndarray) -> None:
    """Raise where a solution in closed form would take a column for nothing beside the others."""
    lost = varying & (sizes < limit * np.where(varying, sizes, 0.0).max(1, keepdims=True))
    if lost.any():
        raise ValueError(
            f"solver='exact' solves for the columns as they are, and {named(np.any(lost, axis=0))} would be lost in "
            "the rounding of others, whose values are too many times larger. Scale the columns of X (StandardScaler, "
            "or MaxAbsScaler for sparse X), or use another solver."
        )
