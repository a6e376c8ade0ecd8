r"""Smooth objectives of many unknowns, near the optimum of one: by L-BFGS from its Hessian.

A Hessian of each would cost more than all else. The inverse at one optimum serves for all, and in single precision a
step is a few products of matrices for thirty models at a time. Of sparse rows, the Hessian is known among the columns
that have most of it, by its diagonal in all others, and by the directions whose curvature differs most from these (as
in Morales & Nocedal, *Automatic preconditioning by limited memory quasi-Newton updating*, 2000, where pairs of steps
take their place).

Columns that a resample has no rows of, J, have another curvature there, mostly the penalty's. They are taken out of the
inverse,

.. math:: (H_{FF})^{-1} = (H^{-1})_{FF} - (H^{-1})_{FJ}\, ((H^{-1})_{JJ})^{-1}\, (H^{-1})_{JF}
"""

from __future__ import annotations

import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.lapack import spotrf, spotri

from skdeep.exact import wide
from skdeep.exact.descent import PER_LOSS, dot, small_enough
from skdeep.exact.lbfgs import Steps
from skdeep.exact.losses import OfColumns, RowLoss, SoftmaxLoss, SquaredLoss
from skdeep.exact.reweighted import FEW_UNKNOWNS, n_free
from skdeep.exact.rows import Rows, SingleRows, SparseRows, of_both

#: Unknowns up to which the inverse is no more work than what follows, and those of which Hessians cost next to nothing.
_MAX_UNKNOWNS, _VERY_FEW = 2048, 16
#: Scores of rows that are computed at a time; and models that are on their way at least, since each product with the
#: inverse passes over all of it.
_MAX_VALUES, _LEAST_MODELS = 2**18, 12
#: Scores of a row from which it pays to compute with them row by row.
_MANY_SCORES = 8
#: Iterations after which models are left to others.
_MAX_ITER = 100
#: Share of the tolerance for models of few unknowns, where digits are cheap; of sparse rows, its square is near enough.
_FINER = 0.1
#: Share of that tolerance which the rounding of a gradient may take.
_ROUNDING = 0.1
#: Columns of sparse rows among which a Hessian is known, directions that are looked for, and the share of a curvature
#: that may be left of one.
_N_COLUMNS, _N_DIRECTIONS, _FOUND = 128, 40, 0.1
#: Share of its way to the optimum that a model of sparse rows may have left before a last step, whose gradient would
#: cost as much again; and one that lacks few rows.
_LEFT, _LEFT_FINER = 0.02, 0.03
#: Share of its curvature below which a column has no rows in a resample.
_GONE = 0.05
#: Share of the largest curvature that makes an inverse possible where columns determine others.
_LITTLE = 1e-6
#: Models by which it is known what the curvature is on average, where they are. With weak penalties it is far more than
#: at the optimum of all rows.
_TYPICAL = 16


def is_large(rows: Rows, loss: RowLoss, is_penalised: bool) -> bool:
    """Tell whether weights of these rows are best solved for by what is here.

    Without a penalty, Newton's steps tell as well whether there is an optimum.
    """
    n_unknown = n_free(rows, loss)
    if isinstance(rows, SparseRows):
        in_closed_form = isinstance(loss, SquaredLoss) and wide.suits(rows)
        return not (loss.piecewise or in_closed_form) and n_unknown > FEW_UNKNOWNS
    if loss.piecewise or (isinstance(loss, OfColumns) and loss.n_scores > 1):
        return False
    return n_unknown > (_VERY_FEW if is_penalised else FEW_UNKNOWNS) and n_unknown <= _MAX_UNKNOWNS


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
        is_sparse, single = isinstance(rows, SparseRows), _single(rows)
        rounding = np.abs(single.back(pull.astype(np.float32)) - rows.back(pull)).max()
        #: Share of the tolerance for models that lack few rows: what they tell is a small difference.
        self.finest = _FINER**2 if is_sparse else _FINER
        is_enough = rounding <= _ROUNDING * self.finest * allowed
        #: Single precision, if it is enough; and double, for models that it is not enough for.
        self.precisions = [(single, _in(loss, np.float32))] * bool(is_enough) + [(rows, loss)]
        self.start, self.rho, self.tol = start, rho, tol
        self._here: _Curvature | _Directions
        self._around: _Curvature | _Directions | None = None
        self._curvatures: np.ndarray | None = None
        if is_sparse:
            self._here = _Directions(rows, loss, weight, rho, start)
            return
        # of each row along each column, on the average of scores
        self._curvatures = np.square(single.Z) * loss.diagonal(scores, at)[0].mean(0).astype(np.float32)[:, None]
        self._curvature = weight.astype(np.float32) @ self._curvatures
        self._here = _Curvature(self._inverse(scores, weight[None]))

    def _inverse(self, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Invert the average Hessian of models with these scores (K, C, n) and weights (K, n)."""
        (rows, loss), *_ = self.precisions
        second = loss.second(scores, loss.at(scores))
        second *= weight[:, None]
        Z = rows.Z.astype(np.float32, copy=False)
        return _inverse(Z, second.mean(0, dtype=np.float32), self.rho, loss.shift_invariant)

    def refit(self, weight: np.ndarray, rho: np.ndarray, finer: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Minimise the objectives for weights (K, n) and rho (K, D), within the tolerance, or `finer`.

        Returns
        -------
        params : ndarray of shape (K, C, D)
        arrived : ndarray of bool, of shape (K,)
            Which models are at their optimum. The others are anywhere.
        """
        params, arrived = np.repeat(self.start[None], len(weight), axis=0), np.zeros(len(weight), dtype=bool)
        if not self._here.is_known:
            return params, arrived
        is_sparse, is_cheap = self._curvatures is None, n_free(*self.precisions[-1]) <= FEW_UNKNOWNS
        gone = self._columns_gone(weight, rho)
        bound = self.tol * (1 if is_sparse else self.finest if finer else _FINER if is_cheap else 1)
        left = (_LEFT_FINER if finer else _LEFT) if is_sparse else np.inf
        size = max(_LEAST_MODELS, _n_at_once(self.precisions[0][0], self.start))
        goes_on = is_sparse and bool(rho.any())  # where there is an optimum, steps become shorter
        for rows, loss in self.precisions:
            todo = np.flatnonzero(~arrived)
            looks = not (is_sparse or finer) and self._around is None and len(todo) >= _TYPICAL
            for part in filter(len, (todo[:size], todo[size:]) if looks else (todo,)):
                curvature = self._here if finer else self._around or self._here
                way = _Way(rows, loss, self.start, weight[part], rho[part], [gone[k] for k in part], curvature)
                params[part], arrived[part] = way.followed((bound, self.finest, left), size, goes_on)
                if looks:
                    some, looks = part[:_TYPICAL], False
                    scores = rows.scores(params[some].astype(rows.Z.dtype))
                    around = _Curvature(self._inverse(scores, weight[some]))
                    self._around = around if around.is_known else self._here
        return params, arrived

    def _columns_gone(self, weight: np.ndarray, rho: np.ndarray) -> list[_Gone | None]:
        """Find the columns that models have no rows of; of sparse ones, it is left to the steps."""
        if self._curvatures is None:
            return [None] * len(weight)
        curvature = weight.astype(np.float32) @ self._curvatures
        gone = (curvature < _GONE * self._curvature) | (_GONE * rho > self.rho)
        own = np.where(curvature + rho > 0, curvature + rho, np.inf).astype(np.float32)
        numbers, n_scores = np.arange(self.start.size).reshape(self.start.shape), len(self.start)
        return [
            _Gone(numbers[:, which].ravel(), np.tile(total[which], n_scores)) if which.any() else None
            for which, total in zip(gone, own, strict=True)
        ]


def _single(rows: Rows) -> Rows:
    """Round rows to single precision, for products with many models at a time."""
    if isinstance(rows, SparseRows):
        return SingleRows(rows.X, rows.intercept)
    return Rows(np.asfortranarray(rows.Z, dtype=np.float32))


def _n_at_once(rows: Rows, start: np.ndarray) -> int:
    """Count the models whose scores stay in the cache."""
    return max(1, _MAX_VALUES // (len(start) * max(rows.shape)))


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

    def solve(self, gradient: np.ndarray, gone: list[_Gone | None]) -> np.ndarray:
        """Multiply gradients (K, C, D) by the inverse, without what each model lacks."""
        right = gradient.reshape(len(gradient), -1).astype(np.float32)
        apart = [(k, own, right[k, own.unknowns] / own.curvature) for k, own in enumerate(gone) if own is not None]
        for k, own, _ in apart:
            right[k, own.unknowns] = 0
        found = right @ self.inverse
        for k, own, values in apart:
            found[k] -= found[k, own.unknowns] @ self.across(own.unknowns)
            found[k, own.unknowns] = values
        return found.reshape(gradient.shape).astype(gradient.dtype, copy=False)


class _Directions:
    """The Hessian of sparse rows: of each score, all of it in a few columns, and its diagonal in all others.

    What differs most from these units is added: some directions of Lanczos's method.
    """

    is_known = True

    def __init__(self, rows: Rows, loss: RowLoss, weight: np.ndarray, rho: np.ndarray, start: np.ndarray):
        scores = rows.scores(start[None])
        at, self._shifts = loss.at(scores), loss.shift_invariant
        curvature = weight * loss.diagonal(scores, at)[0]
        diagonal = rows.diagonal(curvature)
        # the columns whose curvature is least the penalty's
        self._some = np.sort(np.argsort(rho / np.maximum(diagonal.mean(0), np.finfo(float).tiny))[:_N_COLUMNS])
        diagonal += rho
        self._root = 1 / np.sqrt(np.where(diagonal > 0, diagonal, np.inf))
        blocks = rows.narrow(self._some).gram(curvature)
        on_diagonal = np.einsum("cii->ci", blocks)
        on_diagonal += rho[self._some] + _LITTLE * np.maximum(on_diagonal.max(1, keepdims=True), _LITTLE)
        self._half = np.linalg.inv(np.linalg.cholesky(blocks))
        n = min(_N_DIRECTIONS, start.size // 2)
        vectors, products = np.empty((n + 1, start.size)), np.empty((n, start.size))
        rest = self._in_units(np.random.default_rng(0).standard_normal(start.shape))
        for k in range(n + 1):
            vectors[k] = rest / (np.linalg.norm(rest) or 1)
            if k == n:
                break
            way = self._from_units(vectors[k])
            curved = rows.back(weight * loss.times_second(scores, at, rows.scores(way[None])))[0] + rho * way
            rest = products[k] = self._in_units(curved)
            for _ in range(2):  # once leaves rounding
                rest = rest - (vectors[: k + 1] @ rest) @ vectors[: k + 1]
        values, own = np.linalg.eigh(vectors[:n] @ products.T)
        along = own.T @ vectors[:n]
        left = np.linalg.norm(own.T @ products - values[:, None] * along, axis=1)
        sound = (left <= _FOUND * values) & (values > _LITTLE * values[-1])
        along = np.array([self._from_units(vector).ravel() for vector in along[sound]]).reshape(-1, start.size)
        # products of a few models are a few times as fast in PyTorch
        self._along = torch.from_numpy(along.astype(np.float32))
        self._factors = torch.from_numpy((1 / values[sound] - 1).astype(np.float32))
        self._inverse = (self._half.swapaxes(1, 2) @ self._half).astype(np.float32)
        self._of_each = np.square(self._root).astype(np.float32)

    def _centred(self, values: np.ndarray) -> np.ndarray:
        """Leave out the shift of all scores (..., C, D), along which no model moves."""
        return values - values.mean(-2, keepdims=True) if self._shifts else values

    def _in_units(self, gradient: np.ndarray) -> np.ndarray:
        gradient = self._centred(gradient)
        found = gradient * self._root
        found[:, self._some] = (self._half @ gradient[:, self._some, None])[:, :, 0]
        return found.ravel()

    def _from_units(self, vector: np.ndarray) -> np.ndarray:
        values = vector.reshape(self._root.shape)
        found = values * self._root
        found[:, self._some] = (values[:, None, self._some] @ self._half)[:, 0]
        return self._centred(found)

    def solve(self, gradient: np.ndarray, gone: list[_Gone | None]) -> np.ndarray:
        """Multiply gradients (K, C, D) by the inverse."""
        found, flat = gradient * self._of_each, torch.from_numpy(gradient.reshape(len(gradient), -1)).float()
        within = np.ascontiguousarray(gradient.take(self._some, 2).swapaxes(0, 1))  # one product for each score
        found[:, :, self._some] = (within @ self._inverse).swapaxes(0, 1)
        found += (((flat @ self._along.T) * self._factors) @ self._along).numpy().reshape(found.shape)
        if self._shifts:
            found -= found.mean(1, keepdims=True)
        return found


class _Way:
    """The way of many models from one start to their optima: unit steps of L-BFGS, some models at a time.

    Nothing is looked for along a step, since a pass over the rows costs as much as the next step does, which knows
    more. Where a model has arrived, the next one takes its place, so that passes are always of many.
    """

    def __init__(
        self,
        rows: Rows,
        loss: RowLoss,
        start: np.ndarray,
        weight: np.ndarray,
        rho: np.ndarray,
        gone: list[_Gone | None],
        curvature: _Curvature | _Directions,
    ):
        dtype = (rows.X if isinstance(rows, SparseRows) else rows.Z).dtype
        self.rows, self.loss, self.curvature, self.gone = rows, loss, curvature, gone
        self.start, self.weight, self.rho = start.astype(dtype), weight.astype(dtype), rho.astype(dtype)
        scores = rows.scores(self.start[None])
        self._size = _n_at_once(rows, start)
        self._pull, self._largest = loss.gradient(scores), scores[0].max(0)[:, None]
        self._first_loss = loss.at(scores).value[0]

    @np.errstate(over="ignore", invalid="ignore")  # models that are lost leave
    def followed(self, bounds: tuple[float, float, float], size: int, goes_on: bool) -> tuple[np.ndarray, np.ndarray]:
        """Find the parameters (M, C, D) of all models, and which have arrived, or are a last step away (`goes_on`).

        Gradients are within the first of the `bounds`, and within a share of it, the second; or else a share of the way
        from the start is left, the third, by the inverse curvature.
        """
        tol, finest, left = bounds
        params, arrived = np.repeat(self.start[None], len(self.weight), axis=0), np.zeros(len(self.weight), dtype=bool)
        everyone = np.arange(len(params))
        models, waiting = np.split(everyone, [size])
        first_gradient = self._gradient(everyone)
        first_scaled = self._scaled(everyone, first_gradient)
        here, age, bound = params[models], np.zeros(len(models), dtype=np.intp), np.full(len(models), np.inf)
        gradient, scaled = first_gradient[models], first_scaled[models]
        step, whole = -scaled, dot(gradient, scaled)
        self._steps = Steps(len(models), self.start)
        rest = whole.copy()
        while True:
            flat = gradient.reshape(len(gradient), -1)
            largest = np.maximum(flat.max(1), -flat.min(1))
            done = ~np.isfinite(largest) | (age == _MAX_ITER)
            near = np.flatnonzero((largest <= tol) & np.isinf(bound))
            if len(near):  # once is enough, since so near the end the objective hardly changes
                value = self._value(models[near], here[near], first_gradient[models[near]])
                bound[near] = small_enough(np.full(len(near), tol), value, here[near])
            there = (largest <= np.minimum(bound, tol)) & ((rest <= left * left * whole) | (largest <= finest * bound))
            done |= there
            arrived[models[there]] = True
            if done.any():
                ended = done.nonzero()[0]
                params[models[ended]] = here[ended] + step[ended] if goes_on else here[ended]
                filled, (new, waiting) = ended[: len(waiting)], np.split(waiting, [len(ended)])
                if len(new):
                    models[filled], here[filled], bound[filled], age[filled] = new, self.start, np.inf, 0
                    gradient[filled], scaled[filled] = first_gradient[new], first_scaled[new]
                    step[filled], whole[filled] = -scaled[filled], dot(gradient[filled], scaled[filled])
                    self._steps.forget(filled)
                kept = np.delete(np.arange(len(models)), ended[len(filled) :])
                if not len(kept):
                    return params, arrived
                if len(kept) < len(models):
                    models, here, gradient, age, bound = (v[kept] for v in (models, here, gradient, age, bound))
                    scaled, step, whole = scaled[kept], step[kept], whole[kept]
                    self._steps.keep(kept)
            here += step
            last = step, gradient, scaled
            gradient, age = self._gradient(models, here), age + 1
            scaled = self._scaled(models, gradient)
            rest = dot(gradient, scaled)
            self._steps.remember(scaled, *last)
            step = self._steps.direction(gradient, scaled)

    def _scaled(self, models: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return self.curvature.solve(gradient, [self.gone[k] for k in models.tolist()])

    def _gradient(self, models: np.ndarray, params: np.ndarray | None = None) -> np.ndarray:
        """Compute gradients of some of the models, at parameters or at the start."""
        if len(models) > self._size:
            parts = [slice(k, k + self._size) for k in range(0, len(models), self._size)]
            each = [self._gradient(models[part], None if params is None else params[part]) for part in parts]
            return np.concatenate(each)
        weight, rho = self.weight[models], self.rho[models, None]
        if params is None:
            return self.rows.back(self._pull * weight[:, None]) + rho * self.start
        loss, are_many = self.loss, self.loss.n_scores >= _MANY_SCORES
        if are_many and isinstance(self.rows, SingleRows) and isinstance(loss, SoftmaxLoss):  # nothing is turned round
            found = self.rows.back_from(params, partial(loss.pull, weight=weight, largest=self._largest))
        else:
            gradient = loss.gradient(self.rows.scores(params))
            gradient *= weight[:, None]
            found = self.rows.back(gradient)
        found += rho * params
        return found

    def _value(self, models: np.ndarray, params: np.ndarray, first_gradient: np.ndarray) -> np.ndarray:
        """Compute objectives of some of the models; where it does not matter what they are exactly, less than that."""
        rho = self.rho[models, None]
        first = self.weight[models] @ self._first_loss + 0.5 * (rho * np.square(self.start)).sum((1, 2))
        found = first + dot(first_gradient, params - self.start)  # a convex function is not below its tangent
        low = np.flatnonzero(PER_LOSS * found < 1)
        if len(low):
            losses = self.loss.at(self.rows.scores(params[low])).value
            found[low] = np.vecdot(losses, self.weight[models[low]])
            found[low] += 0.5 * dot(params[low], rho[low] * params[low])
        return found


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
