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
        factor = (loss.second(scores, at)[0] * weight).astype(np.float32)
        self.inverse = _inverse(single.Z, factor, rho, loss.shift_invariant)
        self._known: dict[bytes, np.ndarray] = {}

    def refit(self, weight: np.ndarray, rho: np.ndarray, finer: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Minimise the objectives for weights (K, n) and rho (K, D), within the tolerance, or a tenth of it.

        Returns
        -------
        params : ndarray of shape (K, C, D)
        arrived : ndarray of bool, of shape (K,)
            Which models are at their optimum. The others are anywhere.
        """
        params, arrived = np.repeat(self.start[None], len(weight), axis=0), np.zeros(len(weight), dtype=bool)
        if not np.isfinite(self.inverse).all():
            return params, arrived
        gone, bound = self._columns_gone(weight, rho), self.tol * (_FINER if finer else 1.0)
        size = max(1, _MAX_VALUES // (len(self.start) * weight.shape[1]))
        for rows, loss in self.precisions:
            left, dtype = np.flatnonzero(~arrived), rows.Z.dtype
            for part in np.split(left, range(size, len(left), size)) if len(left) else []:
                own, own_rho, own_params = (values[part].astype(dtype) for values in (weight, rho, params))
                directions = _Directions(self.inverse, [gone[k] for k in part])
                stack = Stack(rows, loss, own, own_rho, own_params)
                found = descend(stack, directions, np.full(len(part), bound), _MAX_ITER)
                params[part] = found.params
                arrived[part] = np.array(found.stopped) == AT_REST.format(bound)
        return params, arrived

    def _columns_gone(self, weight: np.ndarray, rho: np.ndarray) -> list[_Gone | None]:
        """Find the columns that models have no rows of."""
        curvature = weight.astype(np.float32) @ self._curvatures
        gone = (curvature < _GONE * self._curvature) | (_GONE * rho > self.rho)
        own = np.where(curvature + rho > 0, curvature + rho, np.inf).astype(np.float32)
        numbers = np.arange(self.start.size).reshape(self.start.shape)
        found: list[_Gone | None] = [None] * len(weight)
        for k in np.flatnonzero(gone.any(1)):
            index = numbers[:, gone[k]].ravel()
            if index.tobytes() not in self._known:
                block = np.linalg.pinv(self.inverse[index[:, None], index].astype(np.float64), hermitian=True)
                self._known[index.tobytes()] = block.astype(np.float32) @ self.inverse[index]
            found[k] = _Gone(index, np.tile(own[k, gone[k]], len(self.start)), self._known[index.tobytes()])
        return found


class _Gone(NamedTuple):
    """Unknowns of columns that a model has no rows of.

    Attributes
    ----------
    unknowns : ndarray of shape (m,)
    curvature : ndarray of shape (m,)
        Their own; infinite where there is none.
    across : ndarray of shape (m, S)
        ``inv(inverse[J, J]) @ inverse[J]``, which takes them out of the inverse.
    """

    unknowns: np.ndarray
    curvature: np.ndarray
    across: np.ndarray


class _Directions(LBFGS):
    """Directions of L-BFGS from the inverse Hessian (S, S) of all models."""

    def __init__(self, inverse: np.ndarray, gone: list[_Gone | None]):
        super().__init__(np.zeros(len(gone), dtype=np.intp))
        self._inverse, self._each = inverse, gone

    @property
    def _gone(self) -> list[tuple[int, _Gone]]:
        return [(k, gone) for k, gone in enumerate(self._each) if gone is not None]

    def _look(self, stack: Stack, average: bool) -> None:
        """Keep the inverse."""

    def keep(self, models: np.ndarray) -> None:
        super().keep(models)
        self._each = [self._each[k] for k in models]

    def _of_last_size(self, direction: np.ndarray, shift_invariant: bool) -> np.ndarray:
        flat = direction.reshape(len(direction), -1).astype(np.float32)
        own = [flat[k, gone.unknowns] / gone.curvature for k, gone in self._gone]
        for k, gone in self._gone:
            flat[k, gone.unknowns] = 0
        found = flat @ self._inverse
        for (k, gone), values in zip(self._gone, own, strict=True):
            found[k] -= found[k, gone.unknowns] @ gone.across
            found[k, gone.unknowns] = values
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
