r"""Smooth objectives that differ in the weights of the rows, from the optimum of one of them on.

The optima of resamples are some standard errors away, where Newton's method needs no search along its ways, and a
Hessian of some steps before is as good as a new one. What counts is how far from the optimum a model still is,

.. math:: \lambda = \sqrt{n\, g^T H^{-1} g},

in standard errors of the combination of parameters that has most of them (where the model is the right one).

Of scores that a common shift leaves as they are, one fewer are computed with, in an orthonormal basis, so that no
Hessian is singular for that.

References
----------
Nocedal & Wright, *Numerical Optimization*, 2nd edition, sections 3.3 and 11.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg.lapack import spotrf, spotrs

from skdeep.exact.descent import dot
from skdeep.exact.losses import At, OfColumns, RowLoss
from skdeep.exact.rows import Rows, SparseRows, of_all, of_both, pairs, products_pay

#: Standard errors that may be left of the way.
_ERROR = 5e-8
#: Share of the way left by a step beyond which its Hessian is too old, and beyond which it is too long.
_OLD, _FAR = 0.1, 0.9
#: The same, of a method that converges; and standard errors that are lost in rounding.
_SLOW, _ROUNDING = 0.5, 1e-11
_MAX_STEPS, _MAX_PASSES = 20, 100
#: Steps by which a model converges, if it does.
_LONG = 8
#: Share of a gradient that is left where a system is solved about.
_FORCING = 0.03
#: Unknowns up to which models have Hessians of their own.
_FEW_UNKNOWNS = 128
#: Share of the largest curvature below which rows are left out of Hessians, which single precision is enough for.
_FLAT = 1e-6
#: Pivots below so large a share of the curvature along a parameter alone may be all that rounding leaves.
_SINGULAR = 1e-5
#: Scores of the rows that are computed at a time: they are to stay in the cache.
_MAX_VALUES = 2**16


def refit(
    rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the objectives of `skdeep.exact.descent` for K weights of the same rows.

    Parameters
    ----------
    rows : Rows
    loss : RowLoss
        Not a `piecewise` one.
    weight : ndarray of shape (K, n)
        Each model's add up to one.
    rho : ndarray of shape (K, D)
    start : ndarray of shape (C, D)
        The optimum for weights much like these.

    Returns
    -------
    params : ndarray of shape (K, C, D)
    arrived : ndarray of bool, of shape (K,)
        Which models are at their optimum. The others are anywhere.
    """
    (n_scores, n_columns), n_models = start.shape, len(weight)
    if isinstance(loss, OfColumns) and n_scores > 1:  # as many problems of one score
        each = [refit(rows, loss.one(c), weight, rho, start[c : c + 1]) for c in range(n_scores)]
        return np.concatenate([params for params, _ in each], axis=1), np.all([arrived for _, arrived in each], axis=0)
    few = (n_scores - loss.shift_invariant) * n_columns <= _FEW_UNKNOWNS
    if few:
        way: Callable[..., tuple[np.ndarray, np.ndarray]] = partial(_by_newton, _Hessians(rows, loss))
    elif isinstance(rows, SparseRows):
        way = partial(_by_conjugate_gradients, rows, loss)
    else:
        return np.repeat(start[None], n_models, axis=0), np.zeros(n_models, dtype=bool)
    parts = np.array_split(np.arange(n_models), -(-n_models * n_scores * rows.shape[0] // _MAX_VALUES))
    each = [way(weight[part], rho[part], start) for part in parts]
    return np.concatenate([params for params, _ in each]), np.concatenate([arrived for _, arrived in each])


def _by_newton(
    hessians: _Hessians, weight: np.ndarray, rho: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton's steps, with Hessians that are kept as long as they serve."""
    n_models, n_rows = weight.shape
    rows, loss, basis = hessians.rows, hessians.loss, hessians.basis
    params = np.repeat((basis.T @ start)[None], n_models, axis=0)
    factors: list[np.ndarray] = [np.empty(0)] * n_models
    left, arrived, alive = np.full(n_models, np.inf), np.zeros(n_models, dtype=bool), np.arange(n_models)
    for count in range(_MAX_STEPS):
        here = params[alive] if count else params[:1]  # all are at one place in the beginning
        scores = rows.scores(basis @ here)
        at = loss.at(scores)
        gradient = basis.T @ rows.back(weight[alive, None] * at.gradient) + rho[alive, None] * params[alive]
        before, right = left[alive], gradient.reshape(len(alive), -1)
        step, distance = (
            _solve([factors[k] for k in alive], right) if count else (right.copy(), np.full(len(alive), np.nan))
        )
        old = np.flatnonzero(~(distance * np.sqrt(n_rows) <= _OLD * before))
        if len(old):
            own = old if count else [0]
            new = hessians(scores[own], At(at.value[own], at.gradient[own]), weight[alive[old]], rho[alive[old]])
            for k, hessian in zip(alive[old], new, strict=True):
                factors[k] = _factor(hessian)
            step[old], distance[old] = _solve([factors[k] for k in alive[old]], right[old])
        left[alive] = distance = distance * np.sqrt(n_rows)
        rate = distance / before if count else np.ones(n_models)
        if count > 1:  # to and fro: halfway
            step[rate > _FAR] /= 2
        params[alive] -= step.reshape(gradient.shape)
        arrived[alive] = (distance * rate / np.maximum(1 - rate, _OLD) <= _ERROR) & (rate < _SLOW)
        arrived[alive] |= (distance <= _ROUNDING) & (count < 3)  # where it has begun at its optimum
        # where classes can be told apart, a step leaves .6 of the way, without end
        is_lost = ~np.isfinite(distance) | ((rate >= _SLOW) & (count >= _LONG))
        alive = alive[~(arrived[alive] | is_lost)]
        if not len(alive):
            break
    return basis @ params, arrived


def _by_conjugate_gradients(
    rows: SparseRows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton's steps, for which systems are solved about, by passes over the rows."""
    n_models, n_rows = weight.shape
    params = np.repeat(start[None], n_models, axis=0)
    curvature = loss.diagonal(rows.scores(params[:1]), loss.at(rows.scores(params[:1]))).mean(1)[0] / n_rows
    squares = SparseRows(rows.X.power(2), rows.intercept).back(curvature)  # one for all scores, whose shift stays out
    left, arrived, alive = np.full(n_models, np.inf), np.zeros(n_models, dtype=bool), np.arange(n_models)
    for count in range(_MAX_STEPS):
        own, scores = weight[alive, None], rows.scores(params[alive])
        at, penalty = loss.at(scores), rho[alive, None]
        gradient = rows.back(own * at.gradient) + penalty * params[alive]
        step, rest, scale = np.zeros_like(gradient), gradient.copy(), 1 / (penalty + squares)
        way = scaled = scale * rest
        size = first = dot(rest, scaled)
        for _ in range(_MAX_PASSES):
            curved = rows.back(own * loss.times_second(scores, at, rows.scores(way))) + penalty * way
            length = _quotient(size, dot(way, curved))
            step += length * way
            rest -= length * curved
            scaled = scale * rest
            size, before = dot(rest, scaled), size
            if (size <= _FORCING**2 * first).all():
                break
            way = scaled + _quotient(size, before) * way
        params[alive] -= step
        before, distance = left[alive], np.sqrt(np.maximum(dot(step, gradient), 0) * n_rows)
        rate = distance / before if count else np.ones(n_models)
        left[alive] = distance
        arrived[alive] = distance * np.maximum(rate, _FORCING) <= _ERROR
        alive = alive[~arrived[alive] & (rate <= 1)]
        if not len(alive):
            break
    return params, arrived


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)[:, None, None]


def _factor(hessian: np.ndarray) -> np.ndarray:
    """Factor a Hessian; NaN where it is singular."""
    factor, info = spotrf(hessian.T, lower=1)
    sound = info == 0 and (factor.diagonal() ** 2 >= _SINGULAR * hessian.diagonal()).all()
    return factor if sound else np.full_like(factor, np.nan)


def _solve(factors: list[np.ndarray], right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve by triangular factors; return steps (m, .) and the lengths of the ways that they go."""
    step = np.stack([spotrs(f, r, lower=1)[0] for f, r in zip(factors, right.astype(np.float32), strict=True)])
    return step.astype(np.float64), np.sqrt(np.vecdot(step, right))


def contrasts(n_scores: int) -> np.ndarray:
    """Make an orthonormal basis (C, C - 1) of the scores whose sum is zero."""
    centred = np.eye(n_scores)[:, 1:] - 1 / n_scores
    return np.linalg.qr(centred)[0]


class _Hessians:
    """Computes Hessians in single precision, each of a model's own weights.

    Parameters
    ----------
    rows : Rows
    loss : RowLoss

    Attributes
    ----------
    basis : ndarray of shape (C, R)
        Of the scores.
    """

    def __init__(self, rows: Rows, loss: RowLoss):
        self.rows, self.loss = rows, loss
        self.basis = basis = contrasts(loss.n_scores) if loss.shift_invariant else np.eye(loss.n_scores)
        self.n_unknown = basis.shape[1], rows.shape[1]
        (i, j), (r, s) = pairs(len(basis)), pairs(basis.shape[1])
        # of the pairs of scores, each of which is there once, to those of the basis
        both = basis[i][:, r] * basis[j][:, s]
        self.onto = np.where((i == j)[:, None], both, both + basis[j][:, r] * basis[i][:, s])
        self._kept: np.ndarray | None = None

    def __call__(self, scores: np.ndarray, at: At, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
        """Compute Hessians (K, R D, R D) at scores (K or 1, C, n)."""
        (n_scores, n_columns), n_models = self.n_unknown, len(weight)
        second = self.loss.second(scores, at)
        if n_scores > 1:
            second = np.matmul(self.onto.T, second)
        curved = np.flatnonzero(np.abs(second).max((0, 1)) > _FLAT * np.abs(second).max())
        # to take most of the rows takes longer than to go on with all
        index = slice(None) if 2 * len(curved) > second.shape[-1] else curved
        factor = second[:, :, index].astype(np.float32) * weight[:, None, index].astype(np.float32)
        flat = factor.reshape(-1, factor.shape[-1])
        size = n_scores * n_columns
        if products_pay(self.rows.shape, len(flat)):
            half = flat @ self._products[index]
            found = half.reshape(n_models, -1).take(of_all(n_scores, n_columns), axis=1).reshape(n_models, size, size)
        else:
            blocks = (
                (self.rows if index is None else self.rows.select(index))
                .gram(flat)
                .reshape(n_models, -1, n_columns, n_columns)
            )
            shape = n_models, n_scores, n_scores, n_columns, n_columns
            found = blocks.take(of_both(n_scores), axis=1).reshape(shape).transpose(0, 1, 3, 2, 4)
            found = found.reshape(n_models, size, size).astype(np.float32)
        found.reshape(n_models, -1)[:, :: size + 1] += np.tile(rho, n_scores)
        return found

    @property
    def _products(self) -> np.ndarray:
        if self._kept is None:
            Z = self.rows.take(np.arange(self.rows.shape[0])).astype(np.float32)
            (i, j), columns = pairs(self.rows.shape[1]), np.ascontiguousarray(Z.T)
            self._kept = (columns[i] * columns[j]).T
        return self._kept
