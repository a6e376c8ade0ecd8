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

import numpy as np
from scipy.linalg.lapack import spotrf, spotrs

from skdeep.exact import wide
from skdeep.exact.losses import At, OfColumns, RowLoss, SquaredLoss
from skdeep.exact.rows import Rows, SparseRows, of_all, of_both, pairs, products_pay

#: Standard errors that may be left of the way.
_ERROR = 5e-8
#: Share of the way left by a step beyond which its Hessian is too old, and beyond which it is too long.
_OLD, _FAR = 0.1, 0.9
#: The same, of a method that converges; and standard errors that are lost in rounding.
_SLOW, _ROUNDING = 0.5, 1e-11
_MAX_STEPS = 20
#: Steps by which a model converges, if it does.
_LONG = 8
#: Unknowns up to which models have Hessians of their own.
FEW_UNKNOWNS = 128
#: Share of the largest curvature below which rows are left out of Hessians, which single precision is enough for.
_FLAT = 1e-6
#: Pivots below so large a share of the curvature along a parameter alone may be all that rounding leaves.
_SINGULAR = 1e-5
#: Scores of the rows that are computed at a time: they are to stay in the cache.
_MAX_VALUES = 2**16


def refit(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    rho: np.ndarray,
    start: np.ndarray,
    only_a_step: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the objectives of `skdeep.exact.descent` for K weights of the same rows.

    The loss is no `piecewise` one; each model's weights (K, n) add up to one; the `start` (C, D) is the optimum for
    weights much like these. With `only_a_step`, Newton's first step is taken, and no other. Returned are parameters (K,
    C, D), and which models (K,) are at their optimum, or have taken their step; the others are anywhere.
    """
    (n_scores, n_columns), n_models = start.shape, len(weight)
    is_many = n_columns > FEW_UNKNOWNS and isinstance(rows, SparseRows) and rho.any()
    if is_many and isinstance(loss, SquaredLoss) and wide.suits(rows):
        found = wide.ridge(rows, loss, weight, rho, np.full(n_models, np.inf))
        if found is not None:
            return found.params, np.isfinite(found.params).all((1, 2))
    if isinstance(loss, OfColumns) and n_scores > 1:  # as many problems of one score
        each = [refit(rows, loss.one(c), weight, rho, start[c : c + 1], only_a_step) for c in range(n_scores)]
        return np.concatenate([params for params, _ in each], axis=1), np.all([arrived for _, arrived in each], axis=0)
    if n_free(rows, loss) > FEW_UNKNOWNS:
        return np.repeat(start[None], n_models, axis=0), np.zeros(n_models, dtype=bool)
    hessians = Hessians(rows, loss, contrasts(n_scores) if loss.shift_invariant else np.eye(n_scores))
    parts = np.array_split(np.arange(n_models), -(-n_models * n_scores * rows.shape[0] // _MAX_VALUES))
    n_steps = 1 if only_a_step else _MAX_STEPS
    each = [_by_newton(hessians, weight[part], rho[part], start, n_steps) for part in parts]
    params, arrived = (np.concatenate(values) for values in zip(*each, strict=True))
    return params, np.isfinite(params).all((1, 2)) if only_a_step else arrived


def _by_newton(
    hessians: Hessians, weight: np.ndarray, rho: np.ndarray, start: np.ndarray, n_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take Newton's steps, with Hessians that are kept as long as they serve."""
    n_models, n_rows = weight.shape
    rows, loss, basis = hessians.rows, hessians.loss, hessians.basis
    params = np.repeat((basis.T @ start)[None], n_models, axis=0)
    factors = np.empty((n_models, params[0].size, params[0].size), dtype=np.float32)
    left, arrived, alive = np.full(n_models, np.inf), np.zeros(n_models, dtype=bool), np.arange(n_models)
    for count in range(n_steps):
        here = some(params, alive)
        scores = rows.scores(basis @ (here if count else here[:1]))  # all begin at one place
        gradient, own = loss.gradient(scores), some(weight, alive)
        right = basis.T @ rows.back(own[:, None] * gradient) + rho[alive, None] * here
        right, before = right.reshape(len(alive), -1), left[alive]
        step = right.astype(np.float32)
        if count:
            solve(factors, alive, step)
        # the length of the way, in standard errors
        distance = np.sqrt(n_rows * np.vecdot(step, right)) if count else np.full(len(alive), np.nan)
        old = np.flatnonzero(~(distance <= _OLD * before))
        if len(old):
            at = (some(scores, old), some(gradient, old)) if count else (scores, gradient)
            factors[alive[old]] = factored(hessians(*at, some(own, old), rho[alive[old]]))
            again = right[old].astype(np.float32)
            solve(factors, alive[old], again)
            step[old], distance[old] = again, np.sqrt(n_rows * np.vecdot(again, right[old]))
        left[alive] = distance
        rate = distance / before if count else np.ones(n_models)
        if count > 1:  # to and fro: halfway
            step[rate > _FAR] /= 2
        params[alive] -= step.reshape(here.shape)
        arrived[alive] = (distance * rate / np.maximum(1 - rate, _OLD) <= _ERROR) & (rate < _SLOW)
        arrived[alive] |= (distance <= _ROUNDING) & (count < 3)  # where it has begun at its optimum
        # where classes can be told apart, a step leaves .6 of the way, without end
        is_lost = ~np.isfinite(distance) | ((rate >= _SLOW) & (count >= _LONG))
        alive = alive[~(arrived[alive] | is_lost)]
        if not len(alive):
            break
    return basis @ params, arrived


def n_free(rows: Rows, loss: RowLoss) -> int:
    """Count the unknowns of a model, but the shift of all scores that changes nothing."""
    return (loss.n_scores - loss.shift_invariant) * rows.shape[1]


def some(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Take some of the models' values; of all, no copy is made."""
    return values if len(index) == len(values) else values[index]


def factored(hessians: np.ndarray) -> np.ndarray:
    """Factor Hessians (m, S, S) in place; NaN where they are singular."""
    pivots = np.einsum("kii->ki", hessians)
    least = _SINGULAR * pivots
    failed = [spotrf(hessian.T, lower=1, clean=0, overwrite_a=1)[1] for hessian in hessians]
    sound = (np.array(failed) == 0) & (pivots**2 >= least).all(1)
    hessians[~sound] = np.nan
    return hessians


def solve(factors: np.ndarray, models: np.ndarray, right: np.ndarray) -> None:
    """Solve in place for right sides (m, S), by the factors of some models."""
    for k, own in zip(models.tolist(), right, strict=True):
        spotrs(factors[k].T, own, lower=1, overwrite_b=1)


def contrasts(n_scores: int) -> np.ndarray:
    """Make an orthonormal basis (C, C - 1) of the scores whose sum is zero."""
    centred = np.eye(n_scores)[:, 1:] - 1 / n_scores
    return np.linalg.qr(centred)[0]


class Hessians:
    """Computes Hessians in single precision, each of a model's own weights, in a basis (C, R) of the scores."""

    def __init__(self, rows: Rows, loss: RowLoss, basis: np.ndarray):
        self.rows, self.loss, self.basis = rows, loss, basis
        self.n_unknown = basis.shape[1], rows.shape[1]
        (i, j), (r, s) = pairs(len(basis)), pairs(basis.shape[1])
        # of the pairs of scores, each of which is there once, to those of the basis
        both = basis[i][:, r] * basis[j][:, s]
        self.onto = np.where((i == j)[:, None], both, both + basis[j][:, r] * basis[i][:, s])

    def __call__(self, scores: np.ndarray, gradient: np.ndarray, weight: np.ndarray, rho: np.ndarray) -> np.ndarray:
        """Compute Hessians (K, R D, R D) at scores (K or 1, C, n), of which the gradient is known."""
        (n_scores, n_columns), n_models = self.n_unknown, len(weight)
        second = self.loss.second(scores, At(gradient[:, 0], gradient))  # which no smooth loss asks for its value
        if n_scores > 1:
            second = np.matmul(self.onto.T, second)
        steepest = np.abs(second).max((0, 1))
        curved = np.flatnonzero(steepest > _FLAT * steepest.max())
        # to take most of the rows takes longer than to go on with all; of scores that are all huge, there may be none
        index = slice(None) if not len(curved) or 2 * len(curved) > second.shape[-1] else curved
        factor = np.multiply(second[:, :, index], weight[:, None, index], dtype=np.float32)
        flat = factor.reshape(-1, factor.shape[-1])
        size = n_scores * n_columns
        if products_pay(self.rows.shape, len(flat)):
            half = flat @ self.rows.single_products[index]
            found = half.reshape(n_models, -1).take(of_all(n_scores, n_columns), axis=1).reshape(n_models, size, size)
        else:
            blocks = self.rows.select(index).gram(flat).reshape(n_models, -1, n_columns, n_columns)
            shape = n_models, n_scores, n_scores, n_columns, n_columns
            found = blocks.take(of_both(n_scores), axis=1).reshape(shape).transpose(0, 1, 3, 2, 4)
            found = found.reshape(n_models, size, size).astype(np.float32)
        found.reshape(n_models, -1)[:, :: size + 1] += np.tile(rho, n_scores)
        return found
