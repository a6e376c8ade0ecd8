r"""Smooth objectives of dense rows with hundreds of unknowns, near the optimum of one: by L-BFGS from its Hessian.

A Hessian of each would cost more than all else. The inverse at one optimum serves for all, and in single precision a
step is a few products of matrices for twenty models at a time.

Columns that a resample has no rows of, J, have another curvature there, mostly the penalty's. They are taken out of the
inverse,

.. math:: (H_{FF})^{-1} = (H^{-1})_{FF} - (H^{-1})_{FJ}\, ((H^{-1})_{JJ})^{-1}\, (H^{-1})_{JF}
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import spotrf, spotri

from skdeep.exact.descent import AT_REST, Stack, descend, small_enough
from skdeep.exact.lbfgs import LBFGS
from skdeep.exact.losses import OfColumns, RowLoss
from skdeep.exact.reweighted import is_small
from skdeep.exact.rows import Rows, SparseRows, of_both

#: Unknowns up to which the inverse is no more work than what follows.
_MAX_UNKNOWNS = 2048
#: Scores of rows that are computed at a time.
_MAX_VALUES = 2**18
#: Iterations after which models are left to others.
_MAX_ITER = 100
#: Share of the tolerance for models that lack few rows: what they tell is a small difference.
_FINER = 0.1
#: Share of that tolerance which the rounding of a gradient may take.
_ROUNDING = 0.1
#: Share of its curvature below which a column has no rows in a resample.
_GONE = 0.02
#: Share of the largest curvature that makes an inverse possible where columns determine others.
_LITTLE = 1e-6
#: Models by which it is known what the curvature is on average, where they are. With weak penalties it is far more than
#: at the optimum of all rows.
_TYPICAL = 8


def is_large(rows: Rows, loss: RowLoss) -> bool:
    """Tell whether weights of these rows are best solved for by what is here."""
    if isinstance(rows, SparseRows) or loss.piecewise or (isinstance(loss, OfColumns) and loss.n_scores > 1):
        return False
    return not is_small(rows, loss) and loss.n_scores * rows.shape[1] <= _MAX_UNKNOWNS


class Neighbourhood:
    """The surroundings of an optimum.

    Parameters
    ----------
    rows : Rows
    loss : RowLoss
    weight : ndarray of shape (n,)
    rho : ndarray of shape (D,)
    start : ndarray of shape (C, D)
        The optimum for these.
    tol : float
        Bound of gradients; see `skdeep.exact.descent.small_enough`.
    """

    def __init__(self, rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, start: np.ndarray, tol: float):
        scores = rows.scores(start[None])
        at = loss.at(scores)
        pull, allowed = at.gradient[0] * weight, small_enough(np.array([tol]), at.value @ weight, start[None])[0]
        single = Rows(np.asfortranarray(rows.Z, dtype=np.float32))
        rounding = np.abs(single.back(pull.astype(np.float32)) - rows.back(pull)).max()
        is_enough = rounding <= _ROUNDING * _FINER * allowed
        #: Single precision, if it is enough; and double, for models that it is not enough for.
        self.precisions = [(single, _in(loss, np.float32))] * bool(is_enough) + [(rows, loss)]
        self.start, self.rho, self.tol = start, rho, tol
        # of each row along each column, on the average of scores
        self._curvatures = np.square(single.Z) * loss.diagonal(scores, at)[0].mean(0).astype(np.float32)[:, None]
        self._curvature = weight.astype(np.float32) @ self._curvatures
        self._here = _Curvature(self._inverse(scores, weight[None]))
        self._around: _Curvature | None = None

    def _inverse(self, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Invert the average Hessian of models with these scores (K, C, n) and weights (K, n)."""
        (rows, loss), *_ = self.precisions
        second = loss.second(scores, loss.at(scores))
        second *= weight[:, None]
        Z = rows.Z.astype(np.float32, copy=False)
        return _inverse(Z, second.mean(0, dtype=np.float32), self.rho, loss.shift_invariant)

    def refit(self, weight: np.ndarray, rho: np.ndarray, finer: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Minimise the objectives for weights (K, n) and rho (K, D), within the tolerance, or a tenth of it.

        Returns
        -------
        params : ndarray of shape (K, C, D)
        arrived : ndarray of bool, of shape (K,)
            Which models are at their optimum. The others are anywhere.
        """
        params, arrived = np.repeat(self.start[None], len(weight), axis=0), np.zeros(len(weight), dtype=bool)
        if not self._here.is_known:
            return params, arrived
        gone, bound = self._columns_gone(weight, rho), self.tol * (_FINER if finer else 1.0)
        size = max(1, _MAX_VALUES // (len(self.start) * weight.shape[1]))
        for rows, loss in self.precisions:
            left, dtype = np.flatnonzero(~arrived), rows.Z.dtype
            for part in np.split(left, range(size, len(left), size)) if len(left) else []:
                own, own_rho, own_params = (values[part].astype(dtype) for values in (weight, rho, params))
                curvature = self._here if finer or self._around is None else self._around
                directions = _Directions(curvature, [gone[k] for k in part])
                stack, bounds = Stack(rows, loss, own, own_rho, own_params), np.full(len(part), bound)
                found = descend(stack, directions, bounds, _MAX_ITER)
                params[part] = found.params
                arrived[part] = np.array(found.stopped) == AT_REST.format(bound)
                if curvature is self._here and not finer and len(part) >= _TYPICAL:
                    some = slice(0, _TYPICAL)
                    around = _Curvature(self._inverse(rows.scores(found.params[some]), own[some]))
                    self._around = around if around.is_known else self._here
        return params, arrived

    def _columns_gone(self, weight: np.ndarray, rho: np.ndarray) -> list[_Gone | None]:
        """Find the columns that models have no rows of."""
        curvature = weight.astype(np.float32) @ self._curvatures
        gone = (curvature < _GONE * self._curvature) | (_GONE * rho > self.rho)
        own = np.where(curvature + rho > 0, curvature + rho, np.inf).astype(np.float32)
        numbers, n_scores = np.arange(self.start.size).reshape(self.start.shape), len(self.start)
        return [
            _Gone(numbers[:, which].ravel(), np.tile(total[which], n_scores)) if which.any() else None
            for which, total in zip(gone, own, strict=True)
        ]


class _Gone(NamedTuple):
    """Unknowns (m,) of columns that a model has no rows of, and their own curvature, infinite where there is none."""

    unknowns: np.ndarray
    curvature: np.ndarray


class _Curvature:
    """The inverse (S, S) of a Hessian; NaN if there is none."""

    def __init__(self, inverse: np.ndarray):
        self.inverse, self.is_known = inverse, bool(np.isfinite(inverse[0, 0]))
        self._across: dict[bytes, np.ndarray] = {}

    def across(self, unknowns: np.ndarray) -> np.ndarray:
        """Compute what takes unknowns J out of the inverse, ``inv(inverse[J, J]) @ inverse[J]``, once."""
        key = unknowns.tobytes()
        if key not in self._across:
            block = self.inverse[unknowns[:, None], unknowns].astype(np.float64)
            self._across[key] = np.linalg.pinv(block, hermitian=True).astype(np.float32) @ self.inverse[unknowns]
        return self._across[key]

    def solve(self, right: np.ndarray, gone: list[_Gone | None]) -> np.ndarray:
        """Multiply right sides (K, S), which are overwritten, by the inverse, without what each model lacks."""
        apart = [(k, own, right[k, own.unknowns] / own.curvature) for k, own in enumerate(gone) if own is not None]
        for k, own, _ in apart:
            right[k, own.unknowns] = 0
        found = right @ self.inverse
        for k, own, values in apart:
            found[k] -= found[k, own.unknowns] @ self.across(own.unknowns)
            found[k, own.unknowns] = values
        return found


class _Directions(LBFGS):
    """Directions of L-BFGS from a curvature of all models."""

    def __init__(self, curvature: _Curvature, gone: list[_Gone | None]):
        super().__init__(np.zeros(len(gone), dtype=np.intp))
        self.curvature, self.gone = curvature, gone

    def _look(self, stack: Stack, average: bool) -> None:
        """Keep the curvature."""

    def keep(self, models: np.ndarray) -> None:
        super().keep(models)
        self.gone = [self.gone[k] for k in models]

    def _of_last_size(self, direction: np.ndarray, shift_invariant: bool) -> np.ndarray:
        found = self.curvature.solve(direction.reshape(len(direction), -1).astype(np.float32), self.gone)
        return found.reshape(direction.shape).astype(direction.dtype, copy=False)


def _inverse(Z: np.ndarray, factor: np.ndarray, rho: np.ndarray, shift_invariant: bool) -> np.ndarray:
    """Invert a Hessian: of rows (n, D), and second derivatives by pairs of scores (P, n); NaN if it is singular."""
    D, C = Z.shape[1], int(np.sqrt(2 * len(factor)))
    blocks = np.empty((len(factor), D, D), dtype=np.float32)
    for own, block in zip(factor, blocks, strict=True):
        np.matmul(Z.T * own, Z, out=block)
    hessian = blocks[of_both(C)].reshape(C, C, D, D)
    of_score, of_column = np.arange(C), np.arange(D)
    hessian[of_score[:, None], of_score[:, None], of_column, of_column] += rho.astype(np.float32)
    if shift_invariant:  # along the shift, where no model moves, any curvature will do
        hessian += hessian[of_score, of_score].mean(0) / C
    whole = hessian.swapaxes(1, 2).reshape(C * D, C * D)
    diagonal = whole.reshape(-1)[:: len(whole) + 1]
    diagonal += _LITTLE * diagonal.max()
    factored, info = spotrf(whole.T, lower=1)  # above its diagonal, it has zeros
    if info:
        return np.full_like(whole, np.nan)
    half, _ = spotri(factored, lower=1)
    inverse = half + half.T
    inverse.reshape(-1)[:: len(whole) + 1] /= 2
    return inverse


def _in(loss: RowLoss, dtype: type[np.floating]) -> RowLoss:
    """Make the same loss in another precision."""
    other = copy.copy(loss)
    for name, value in vars(loss).items():
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            setattr(other, name, value.astype(dtype))
    return other
