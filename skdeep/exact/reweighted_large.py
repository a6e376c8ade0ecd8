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
from scipy.linalg.lapack import dpotrf, dpotri

from skdeep.exact.descent import Stack, descend, small_enough
from skdeep.exact.lbfgs import LBFGS
from skdeep.exact.losses import OfColumns, RowLoss
from skdeep.exact.reweighted import Hessians, contrasts, is_small
from skdeep.exact.rows import Rows, SparseRows

#: Unknowns up to which the inverse is no more work than what follows.
_MAX_UNKNOWNS = 2048
#: Scores of rows that are computed at a time.
_MAX_VALUES = 2**19
#: Iterations after which models are left to others.
_MAX_ITER = 100
#: Share of the tolerance for models that lack few rows: what they tell is a small difference.
_FINER = 0.1
#: Share of that tolerance which the rounding of a gradient may take.
_ROUNDING = 0.1
#: Share of its curvature below which a column has no rows in a resample.
_GONE = 0.02


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
        basis = contrasts(len(start)) if loss.shift_invariant else np.eye(len(start))
        hessian = Hessians(rows, loss, basis)(scores, at.gradient, weight[None], rho[None])[0]
        pull, allowed = at.gradient[0] * weight, small_enough(np.array([tol]), at.value @ weight, start[None])[0]
        single = Rows(np.asfortranarray(rows.Z, dtype=np.float32))
        rounding = np.abs(single.back(pull.astype(np.float32)) - rows.back(pull)).max()
        self.dtype = np.dtype(np.float32 if rounding <= _ROUNDING * _FINER * allowed else np.float64)
        self.rows, self.loss = (single, _in(loss, self.dtype)) if self.dtype == np.float32 else (rows, loss)
        self.inverse = _inverse(hessian, basis).astype(self.dtype)
        self.start, self.rho, self.tol = start.astype(self.dtype), rho, tol
        # of columns, on the average of scores
        self._curvatures = np.square(single.Z) * loss.diagonal(scores, at)[0].mean(0).astype(np.float32)[:, None]
        self._curvature = weight.astype(np.float32) @ self._curvatures
        self._taken_out: dict[bytes, np.ndarray] = {}

    def refit(self, weight: np.ndarray, rho: np.ndarray, finer: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Minimise the objectives for weights (K, n) and rho (K, D), within the tolerance, or a tenth of it.

        Returns
        -------
        params : ndarray of shape (K, C, D)
        arrived : ndarray of bool, of shape (K,)
            Which models are at their optimum. The others are anywhere.
        """
        if not np.isfinite(self.inverse).all():
            return np.repeat(self.start[None], len(weight), axis=0), np.zeros(len(weight), dtype=bool)
        n_values = len(weight) * len(self.start) * self.rows.shape[0]
        parts = np.array_split(np.arange(len(weight)), -(-n_values // _MAX_VALUES))
        bound = self.tol * (_FINER if finer else 1.0)
        found = [self._refit_some(weight[part].astype(self.dtype), rho[part], bound) for part in parts]
        params, arrived = (np.concatenate(values) for values in zip(*found, strict=True))
        return params.astype(np.float64), arrived

    def _refit_some(self, weight: np.ndarray, rho: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
        start = np.repeat(self.start[None], len(weight), axis=0)
        directions = _Directions(self.inverse, self._columns_gone(weight, rho))
        stack = Stack(self.rows, self.loss, weight, rho.astype(self.dtype), start)
        found = descend(stack, directions, np.full(len(weight), bound), _MAX_ITER)
        return found.params, np.array([reason is not None for reason in found.stopped]) & (found.bound <= bound)

    def _columns_gone(self, weight: np.ndarray, rho: np.ndarray) -> list[_Gone | None]:
        """Find the columns that models have no rows of."""
        curvature = weight.astype(np.float32) @ self._curvatures
        gone = (curvature < _GONE * self._curvature) | (_GONE * rho > self.rho)
        total = np.where(curvature + rho > 0, curvature + rho, np.inf).astype(self.dtype)
        each: list[_Gone | None] = [None] * len(weight)
        for k in np.flatnonzero(gone.any(1)):
            index = np.arange(gone.shape[1] * len(self.start)).reshape(-1, gone.shape[1])[:, gone[k]].ravel()
            across = self._taken_out.get(index.tobytes())
            if across is None:
                block = self.inverse[index[:, None], index].astype(np.float64)
                across = (np.linalg.pinv(block, hermitian=True) @ self.inverse[index]).astype(self.dtype)
                self._taken_out[index.tobytes()] = across
            each[k] = _Gone(index, np.tile(total[k, gone[k]], len(self.start)), across)
        return each


class _Gone(NamedTuple):
    """Unknowns of columns that a model has no rows of.

    Attributes
    ----------
    index : ndarray of shape (m,)
    curvature : ndarray of shape (m,)
        Their own; infinite where there is none.
    across : ndarray of shape (m, S)
        ``inv(inverse[J, J]) @ inverse[J]``, which takes them out of the inverse.
    """

    index: np.ndarray
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
        flat = direction.reshape(len(direction), -1)
        own = [flat[k, gone.index] / gone.curvature for k, gone in self._gone]
        for k, gone in self._gone:
            flat[k, gone.index] = 0
        found = flat @ self._inverse
        for (k, gone), values in zip(self._gone, own, strict=True):
            found[k] -= found[k, gone.index] @ gone.across
            found[k, gone.index] = values
        return found.reshape(direction.shape)


def _inverse(hessian: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Invert a Hessian (R D, R D) of scores in a basis (C, R), as one of all scores; NaN if it is singular."""
    factor, info = dpotrf(hessian.T.astype(np.float64), lower=1)
    if info:
        return np.full((1, 1), np.nan)
    half, _ = dpotri(factor, lower=1)
    whole = np.tril(half) + np.tril(half, -1).T
    n_scores, n_basis = basis.shape
    n_columns = len(whole) // n_basis
    half = (basis @ whole.reshape(n_basis, -1)).reshape(-1, n_basis, n_columns)
    return (basis @ half).reshape(n_scores * n_columns, -1)


def _in(loss: RowLoss, dtype: np.dtype) -> RowLoss:
    """Make the same loss of targets in another precision."""
    other = copy.copy(loss)
    other.target = loss.target.astype(dtype)  # type: ignore[attr-defined]
    return other
