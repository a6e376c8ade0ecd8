r"""Directions of L-BFGS for stacks of models that are too large for Newton's.

What they start from is the curvature along the parameters of each score: with P the projection that takes the mean over
the scores off, :math:`B_c` (D, D) the Hessian's diagonal blocks, one per score c, and :math:`\rho` the curvature of the
penalty along each column,

.. math:: H_0 = P\, \mathrm{diag}(B_1, \ldots, B_C)^{-1} P + (I - P)\, \mathrm{diag}(\rho)^{-1}

for a loss that a common shift of all scores leaves as it is; for other losses, :math:`P = I`. Blocks are computed when
about as much work has been done without them. At first all are alike: products of the average row, or of wide rows the
diagonal of it only.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, algorithm 7.4.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotri

from skdeep.exact.descent import EPS, Directions, Stack, dot
from skdeep.exact.rows import Rows

#: Least curvature, as a share of the largest of columns that are brought to one size.
_LEAST = EPS**0.4
#: Pairs of steps and gradient changes that are remembered.
_HISTORY = 10
#: Pairs of many models near an optimum: with more, no fewer steps are taken, and models whose way is far are lost more
#: often.
_FEW_PAIRS = 3
#: Rows, for each column, that the curvature is looked at by.
_ROWS_PER_COLUMN = 4
#: How many times the mean weight the largest is, for the average row to be about the same without weights.
_ALIKE = 2.0
#: How many times the square of a column may be another, and about the same all the same.
_NEAR = 4.0
#: Directions after which the curvature of each score is looked at first, and how many times as many later.
_FIRST_LOOK, _NEXT_LOOK = 6, 4
#: Directions' work that the average row's curvature is worth, and how much sooner done the same work is with matrices.
_WORTH, _SOONER = 64.0, 2.0


class LBFGS(Directions):
    """Directions of L-BFGS: models of one number in `group` (K,) have about the same curvature."""

    most_scores = math.inf
    slope_left, nearer = 0.9, 0.3

    def __init__(self, group: np.ndarray):
        self._group = self._all = group
        self._pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._inverse = self._of_shift = np.empty(0)
        self._n_calls, self._next_look = 0, math.inf

    def again(self, group: np.ndarray) -> LBFGS:
        other = LBFGS(group)  # which begin with what is known of the curvature
        kinds, own = np.unique(group, return_inverse=True)
        # of models that have left, it is not known any more where the others have been looked at since
        if len(self._inverse) == len(kinds) and np.array_equal(group, self._all):
            other._inverse, other._of_shift, other._group = self._inverse, self._of_shift, own
        return other

    def keep(self, models: np.ndarray) -> None:
        self._pairs = [(s[models], y[models], r[models]) for s, y, r in self._pairs]
        if self._last is not None:
            self._last = self._last[0][models], self._last[1][models]
        self._group = self._group[models]

    def __call__(self, stack: Stack) -> np.ndarray:
        params, gradient = stack.params, stack.gradient
        if self._last is None:
            work = self._work(stack, average=False)
            if not len(self._inverse):
                self._look(stack, average=work > _WORTH or not params.any())
            self._next_look = max(_FIRST_LOOK, work / _SOONER)
        else:
            step, change = params - self._last[0], gradient - self._last[1]
            along = dot(step, change)
            sound = along > EPS * dot(change, change)
            share = np.where(sound, 1 / np.where(sound, along, 1.0), 0.0)
            self._pairs = [*self._pairs[1 - _HISTORY :], (step, change, share)]
            if self._n_calls >= self._next_look:
                self._look(stack, average=False)
                self._next_look *= _NEXT_LOOK
        self._last = params, gradient
        self._n_calls += 1
        direction, factors = -gradient, []
        for step, change, share in reversed(self._pairs):
            factor = (share * dot(step, direction))[:, None, None]
            direction -= factor * change
            factors.append(factor)
        direction = self._of_last_size(direction, stack.loss.shift_invariant)
        for (step, change, share), factor in zip(self._pairs, reversed(factors), strict=True):
            direction += (factor - (share * dot(change, direction))[:, None, None]) * step
        return direction

    def _work(self, stack: Stack, average: bool) -> float:
        """Count the directions whose products with the rows are as much work as a look at the curvature."""
        (n, D), (K, C, _), groups = stack.rows.shape, stack.params.shape, len(np.unique(self._group))
        seen, matrices = (n, groups) if average else (min(n, _ROWS_PER_COLUMN * D), groups * C)
        return matrices * D * D * (seen + D) / (4 * K * C * stack.rows.n_values)

    def _of_last_size(self, direction: np.ndarray, shift_invariant: bool) -> np.ndarray:
        """Multiply directions by the curvature's inverse, of the size that the last step has shown."""
        if not self._pairs:
            return self._precondition(direction[None], shift_invariant)[0]
        _, change, share = self._pairs[-1]
        direction, of_change = self._precondition(np.stack([direction, change]), shift_invariant)
        size = share * dot(change, of_change)
        direction /= np.where(size > 0, size, 1.0)[:, None, None]
        return direction

    def _look(self, stack: Stack, average: bool) -> None:
        """Compute the curvature where models are: of the average row and score, or of each score's own."""
        only_diagonal = average and self._work(stack, average) > _WORTH
        _, first, self._group = np.unique(self._group, return_index=True, return_inverse=True)
        weight = stack.weight if len(stack.weight) == 1 else stack.weight[first]
        at = type(stack.at)(*(part[first] for part in stack.at))
        second = stack.loss.keep(first).diagonal(stack.scores[first], at) * weight[:, None]
        rho, D, squares = stack.rho[first], stack.params.shape[2], stack.rows.diagonal(weight)
        size = np.where(squares == 0, 1.0, squares)
        self._of_shift = np.where(rho > 0, 1 / np.where(rho > 0, rho, 1.0), 0.0)[:, None]
        if only_diagonal:
            diagonal = stack.rows.diagonal(second.mean(1))[:, None]
            self._inverse = 1 / (diagonal + rho[:, None] + _least(diagonal, rho, size))
            return
        total = weight.sum(1)
        n = weight.shape[1]
        is_near = near(squares, stack.rows.average_squares * total[:, None])
        if average:
            mean = second.sum((1, 2)) / stack.loss.n_scores / total
            if (is_near & (weight.max(1) * n <= _ALIKE * total)).all():
                gram = stack.rows.average * total[:, None, None]
            else:
                gram = stack.rows.gram(weight)
            blocks = (gram * mean[:, None, None])[:, None]
        else:
            parts = zip(second, np.broadcast_to(is_near, len(second)).tolist(), strict=True)
            blocks = np.stack([_grams(stack.rows, own) if known else stack.rows.gram(own) for own, known in parts])
        each = np.arange(D)
        # columns that others determine, and scores that have no curvature left
        blocks[:, :, each, each] += rho[:, None] + _least(blocks[:, :, each, each], rho, size)
        self._inverse = np.stack([[_inverse(block) for block in of_model] for of_model in blocks])

    def _precondition(self, vectors: np.ndarray, shift_invariant: bool) -> np.ndarray:
        """Multiply vectors (m, K, C, D), m of each model, by the curvature's inverse."""
        alike, n_scores = len(self._inverse) == 1, vectors.shape[2]
        inverse = self._inverse[0] if alike else self._inverse[self._group]
        times = np.multiply if self._inverse.ndim == 3 else _products  # a diagonal, or matrices
        if not shift_invariant:
            return times(vectors, inverse)
        shift = vectors.sum(2, keepdims=True) / n_scores
        found = times(vectors - shift, inverse)
        found -= found.sum(2, keepdims=True) / n_scores
        found += shift * (self._of_shift if alike else self._of_shift[self._group])
        return found


def near(squares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell of which models, or groups, columns are about as large as others by their squares, (K, D) and (K or 1, D).

    A column that a split's rows have a single value of is nothing of the sort in the rows of all.
    """
    return np.all((squares <= _NEAR * others) & (others <= _NEAR * squares), axis=1)


def _least(curvature: np.ndarray, rho: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Compute the least curvature of columns (G, 1, D), given what rows have (G, C or 1, D), and their sizes (G, D).

    Of the penalty's, `rho` (G, D), it is the part of the column that it holds least, and no more than losses have: an
    intercept is not to stay where it is because columns are small beside their penalty.
    """
    held = np.where(rho > 0, np.minimum(rho / size, 1.0), np.inf).min(1)[:, None, None]
    largest = np.fmax((curvature / size[:, None]).max((1, 2), keepdims=True), np.where(held < np.inf, held, 0.0))
    return _LEAST * size[:, None] * largest


def _grams(rows: Rows, factor: np.ndarray) -> np.ndarray:
    """Compute `Rows.gram` about: of the rows with the largest factors, and as if the others were average ones."""
    n, D = rows.shape
    count = _ROWS_PER_COLUMN * D
    if n <= count:
        return rows.gram(factor)
    found = np.empty((len(factor), D, D))
    for own, f in zip(found, factor, strict=True):
        order = f.argpartition(n - count)
        index = order[n - count :]
        own[...] = rows.select(index).gram(f[index][None])[0]
        own += f[order[: n - count]].sum() * rows.average
    return found


def _products(vectors: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Compute products of vectors (m, K, C, D) with symmetric matrices ([K,] C or 1, D, D)."""
    return np.matmul(vectors.transpose(1, 2, 0, 3), inverse).transpose(2, 0, 1, 3)


def _inverse(block: np.ndarray) -> np.ndarray:
    """Invert a positive definite matrix; one that is not for rounding, or overflows, gives the identity."""
    factor, info = dpotrf(block, lower=1)
    if info or not np.isfinite(block).all():
        return np.eye(len(block)) / max(float(np.abs(np.diag(block)).max()), EPS)
    half, _ = dpotri(factor, lower=1)  # above its diagonal, the factor has zeros
    inverse = half + half.T
    inverse.reshape(-1)[:: len(block) + 1] /= 2
    return inverse


class Steps:
    """The last steps s of K models, and what changes y of the gradient are by the inverse curvature P: its P y.

    Directions are sums of these, with factors that follow from their products alone (Chen, Wang & Zhou 2014), which
    are differences of products with gradients: all are read twice for a direction.
    """

    def __init__(self, n_models: int, start: np.ndarray):
        K, m, dtype = n_models, _FEW_PAIRS, start.dtype
        self._vectors = np.zeros((K, 2, m, start.size), dtype)  # s, and P y
        self._crossed, self._curved = np.zeros((2, K, m, m), dtype)  # s_i y_j of j no older than i, y_i P y_j
        self._products = np.zeros((K, 2, m), dtype)  # with the last gradient
        self._share, self._order = np.zeros((K, m), dtype), list[int]()  # 1 / s y, or zero; the newest one first

    def forget(self, models: np.ndarray) -> None:
        """Forget the steps of some models."""
        for values in (self._vectors, self._crossed, self._curved, self._products, self._share):
            values[models] = 0

    def keep(self, models: np.ndarray) -> None:
        """Leave out all but some models."""
        for name in ("_vectors", "_crossed", "_curved", "_products", "_share"):
            setattr(self, name, getattr(self, name)[models])

    def remember(self, scaled: np.ndarray, step: np.ndarray, gradient: np.ndarray, of_gradient: np.ndarray) -> None:
        """Remember a step in place of the oldest one: from a gradient, and P times it, to where that is `scaled`."""
        at = len(self._order) if len(self._order) < _FEW_PAIRS else self._order.pop()
        self._order.insert(0, at)
        newest, flat = self._vectors[:, :, at], gradient.reshape(len(step), -1)
        newest[:, 0] = step.reshape(flat.shape)
        np.subtract(scaled.reshape(flat.shape), of_gradient.reshape(flat.shape), out=newest[:, 1])
        self._products[:, :, at] = np.vecdot(newest, flat[:, None])

    def direction(self, gradient: np.ndarray, scaled: np.ndarray) -> np.ndarray:
        """Compute the direction of L-BFGS, from the inverse curvature in the size that the last step has shown."""
        if not self._order:
            return -scaled
        flat = self._vectors.reshape(len(gradient), -1, self._vectors.shape[-1])
        products = np.matmul(flat, gradient.reshape(len(gradient), -1, 1)).reshape(self._products.shape)
        share, (newest, *_), crossed, curved = self._share, self._order, self._crossed, self._curved
        crossed[:, :, newest], curved[:, :, newest] = (products - self._products).swapaxes(0, 1)
        curved[:, newest], self._products = curved[:, :, newest], products
        along, of_change = crossed[:, newest, newest], curved[:, newest, newest]
        sound = along > np.finfo(along.dtype).eps * of_change
        share[:, newest] = np.divide(1, along, out=np.zeros_like(along), where=sound)
        of_step, of_curved = products.swapaxes(0, 1)
        factors, own = np.zeros((2, *share.shape), share.dtype)
        for i in self._order:  # factors of newer ones are known, and others zero
            factors[:, i] = share[:, i] * (-of_step[:, i] - np.vecdot(crossed[:, i], factors))
        size = share[:, newest] * of_change
        unit = (1 / np.where(size > 0, size, 1)).astype(share.dtype)[:, None]
        along = unit * (-of_curved - np.einsum("kij,kj->ki", curved, factors))
        for i in reversed(self._order):
            own[:, i] = factors[:, i] - share[:, i] * (along[:, i] + np.vecdot(crossed[:, :, i], own))
        found = np.matmul(np.concatenate([own, -unit * factors], axis=1)[:, None], flat).reshape(gradient.shape)
        found -= unit[:, :, None] * scaled
        return found
