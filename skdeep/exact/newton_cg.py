r"""Newton directions of least squares and of losses in pieces, of sparse rows: by conjugate gradients.

A squared hinge is a parabola where it is not zero: near the optimum, Newton's direction is the way to it, and pairs of
steps and gradients, which L-BFGS goes by, are of other pieces. A system is solved roughly, the better the nearer the
optimum is, by products with the rows, of which those without a second derivative stay out. That of least squares, whose
solution is the optimum, is solved at once.

Columns count by their curvature. In least squares of many more columns than rows, or with a weak penalty, they count
alike where the penalty holds them alike: what no row tells of is one eigenvalue, and stays zero. Where one way takes
too many products, the other is tried.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, section 7.1. Keerthi & DeCoste, *A modified finite Newton
method for fast solution of large scale linear SVMs*, JMLR 6, 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from skdeep.exact.descent import Directions, Solution, Stack, descend, dot, small_enough
from skdeep.exact.free_terms import Bent, BentRows, ClassSystems, FreeTerms
from skdeep.exact.losses import SquaredLoss, SquaredWestonWatkins
from skdeep.exact.path import in_batches
from skdeep.exact.rows import Rows, SparseRows

#: Share of a gradient that a direction may leave, at most and at least, and of least squares, for a tolerance of one;
#: most products with the rows for a direction, and most directions of least squares.
_LEFT, _LEAST_LEFT, _LEFT_OF_SQUARES, _MAX_PRODUCTS, _MAX_STEPS = 0.1, 0.05, 1e-4, 1000, 2
#: How many times as many columns as rows are many more; and a weak penalty's curvature, as a part of the rows'.
_WIDE, WEAK = 2, 1e-7
#: Curvature that is added to each column's own, as a part of the largest: columns may have none.
_LEAST = 1e-12
#: Values and curvatures, and one by these, for whose products single precision has the range; and condition numbers for
#: which its digits are too few.
_MODERATE, _ILL, _HOPELESS = 1e16, 1e5, 1e10
#: How many times as many terms as those within their margins make it worth to leave the others out.
_FEW_FREE = 2
#: What holds intercepts that no penalty holds where scores are apart, as a part of their curvature; and most rows whose
#: products are kept.
_HELD, _MOST_ROWS = 0.1, 4096
#: Most scores of models that take steps at a time.
_MOST_SCORES = 2**20

#: From a change of parameters (m, C, D), and what models have of their own, each (m, ...), to that of the gradients.
Product = Callable[..., np.ndarray]
#: Makes the product of models by rows, in their precision; what it is to be asked with of each model; and their terms,
#: where these are few.
Of = Callable[[SparseRows], tuple[Product, np.ndarray, list[Bent]]]


def suits(rows: Rows) -> bool:
    """Tell whether products of rows or columns would take more memory than these."""
    return isinstance(rows, SparseRows)


def ridge(rows: Rows, loss: SquaredLoss, weight: np.ndarray, rho: np.ndarray, tol: np.ndarray) -> Solution | None:
    """Minimise squares of errors with squared norms; see `skdeep.exact.moments.ridge`.

    None where a model has no penalty, and where gradients are not within `tol` (K,).
    """
    (n, D), K, C = rows.shape, len(rho), loss.n_scores
    rho = np.broadcast_to(rho if rho.ndim == 3 else rho[:, None], (K, C, D))
    if not rho.any(2).all():
        return None
    weight, found, open_ = np.broadcast_to(weight, (K, n)), Solution.begun(np.zeros((K * C, 1, D))), np.arange(K * C)
    for other in (False, True):
        for models in in_batches(np.arange(len(open_)), rows, loss.one(0), NewtonCG()):
            k, c = np.divmod(some := open_[models], C)  # a column of scores each
            target = loss.of(loss.target[c, None])
            stack = Stack(rows, target, weight[k], rho[k, c], found.params[some])
            part = descend(stack, NewtonCG(_LEFT_OF_SQUARES * tol[k], other), tol[k], _MAX_STEPS)
            if part.interrupted:
                raise KeyboardInterrupt
            found.put(some, part)
        value = np.array([curve[-1] for curve in found.curve])
        open_ = np.flatnonzero(~(found.bound <= small_enough(np.repeat(tol, C), value, found.params)))
        if not len(open_):
            return found.together(C)
    return None


class NewtonCG(Directions):
    """Newton directions by products with the rows, each of which leaves a share of its gradient, (K,) or (1,).

    Columns count by their curvature each; or, where `other` says so much, the way that suits least squares, or not.
    Directions that leave as much as they may are computed in single precision, in half the memory, if it has the range.
    """

    most_scores = _MOST_SCORES
    slope_left, nearer = 0.1, 0.1

    def __init__(self, left: np.ndarray | None = None, other: bool | None = None):
        self._left, self._other = np.array([_LEFT]) if left is None else left, other
        self._is_rough = left is None
        self._products: dict[np.dtype, tuple[np.ndarray, np.ndarray]] = {}

    def keep(self, models: np.ndarray) -> None:
        if len(self._left) > 1:
            self._left = self._left[models]

    def __call__(self, stack: Stack) -> np.ndarray:
        rows = stack.rows
        assert isinstance(rows, SparseRows)
        second, of = (_of_rivals if stack.params.shape[1] > 1 else _of_one)(stack)
        curvature, rho = rows.diagonal(second.reshape(-1, second.shape[2])), stack.rho[:, None]
        curvature = curvature.reshape(stack.params.shape)
        if self._other is not None:
            n, D = rows.shape
            is_weak = rho.max((1, 2)) < WEAK * curvature.max((1, 2))
            alike = (is_weak | (D > _WIDE * n)) != self._other
            curvature[alike] *= rho[alike] == 0
        curvature += rho
        curvature += _LEAST * curvature.max((1, 2), keepdims=True) + np.finfo(float).tiny
        condition = curvature.max((1, 2)) / np.where(rho > 0, rho, np.inf).min((1, 2))
        largest_value = max(curvature.max(), np.abs(rows.X.data).max(initial=0))
        in_range = 1 / _MODERATE < curvature.min() and largest_value < _MODERATE
        if self._is_rough and in_range and condition.max() < _ILL:
            rows = rows.in_single()
        of_rows, bend, terms = of(rows)
        systems = self._apart(rows, terms, rho, curvature, condition)

        def product(
            v: np.ndarray, inverse: np.ndarray, part: np.ndarray, rho: np.ndarray, bend: np.ndarray, _: np.ndarray
        ) -> np.ndarray:
            found = of_rows(v, bend)
            found += rho * v
            return found

        def conditioned(v: np.ndarray, inverse: np.ndarray, part: np.ndarray, *own: np.ndarray) -> np.ndarray:
            found = by_columns(v, inverse, part)
            for k, model in enumerate(own[-1].tolist() if systems else ()):
                if model in systems:
                    found[k] = systems[model].solve(v[k])
            return found

        inverse = 1 / curvature
        of_columns = (inverse, inverse / inverse.sum(1, keepdims=True), rho)
        own = (*(part.astype(rows.X.dtype, copy=False) for part in of_columns), bend, np.arange(len(rho)))
        largest = np.maximum(np.abs(stack.gradient).max((1, 2)), np.finfo(float).tiny)
        most = self._left**2
        left = np.clip(largest, np.minimum(_LEAST_LEFT**2, most), most)
        size = largest[:, None, None]
        gradient = (without_shift(stack.gradient) / size).astype(rows.X.dtype, copy=False)
        found = without_shift(size * conjugate_gradients(product, conditioned, own, gradient, left))
        found += shift(stack.gradient, rho, not stack.rho[:, -1].all())
        return found

    def _apart(
        self, rows: SparseRows, terms: list[Bent], rho: np.ndarray, curvature: np.ndarray, condition: np.ndarray
    ) -> dict[int, ClassSystems]:
        """Make systems of each score for the models for which they save time, by condition numbers (K,).

        All penalties (K, 1, D) are taken to be in the proportions of the first one's.
        """
        models = [k for k, own in enumerate(terms) if condition[k] < _HOPELESS and own.is_cheaper_apart(condition[k])]
        n, d = rows.X.shape
        if not models or n > _MOST_ROWS or not rho[..., :d].all():
            return {}
        kind = rows.X.dtype
        if kind not in self._products:
            inverse = np.zeros(rows.shape[1])
            inverse[:d] = 1 / rho[models[0], 0, :d]
            self._products[kind] = inverse, rows.products_of_rows(inverse).astype(kind, copy=False)
        inverse, products = self._products[kind]
        held = np.where(rho > 0, rho, _HELD * curvature)
        found = {}
        for k in models:
            size = float(np.mean(rho[k, 0, :d] * inverse[:d]))
            held[k, :, :d] = size / inverse[:d]
            found[k] = ClassSystems(terms[k], products, size, (1 / held[k]).astype(kind, copy=False), rows.intercept)
        return found


def by_columns(v: np.ndarray, inverse: np.ndarray, part: np.ndarray, *_: Any) -> np.ndarray:
    """Divide v (K, C, D) by each column's own curvature, for steps that shift no scores.

    The `part` of each is its share of the sum of the `inverse` ones of all scores, which tell nothing of a shift.
    """
    v = inverse * v
    if v.shape[1] > 1:
        v -= part * v.sum(1, keepdims=True)
    return v


def without_shift(gradient: np.ndarray) -> np.ndarray:
    """Leave out what the gradients (K, C, D) of all scores share."""
    return gradient - gradient.mean(1, keepdims=True) if gradient.shape[1] > 1 else gradient


def shift(gradient: np.ndarray, rho: np.ndarray, intercept: bool) -> np.ndarray:
    """Compute Newton's step (K, 1, D) of the common part of all scores, of which a penalty alone knows."""
    found = np.zeros_like(rho)
    if gradient.shape[1] > 1:
        part = np.s_[:, :, : rho.shape[2] - intercept]
        np.divide(-gradient[part].mean(1, keepdims=True), rho[part], out=found[part], where=rho[part] > 0)
    return found


def _of_one(stack: Stack) -> tuple[np.ndarray, Of]:
    """Compute the second derivatives (K, 1, n) of models of one score, and what makes their product."""
    second = stack.loss.second(stack.scores, stack.at)[:, :1] * stack.weight[:, None]
    bent = np.flatnonzero(second.any((0, 1)))

    def of(rows: SparseRows) -> tuple[Product, np.ndarray, list[Bent]]:
        few = 2 * len(bent) < second.shape[2]
        some, bend = (rows.select(bent), second[:, :, bent]) if few else (rows, second)
        terms: list[Bent] = [BentRows(rows, own[0]) for own in second]
        return lambda v, bend: some.back(bend * some.scores(v)), bend.astype(rows.X.dtype, copy=False), terms

    return second, of


def _of_rivals(stack: Stack) -> tuple[np.ndarray, Of]:
    """Compute the second derivatives (K, C, n) in each of several scores, and what makes the product of models."""
    loss = stack.loss  # which is the same for all models
    assert isinstance(loss, SquaredWestonWatkins)
    weight = np.broadcast_to(stack.weight, (len(stack.params), stack.weight.shape[1]))
    free = loss.is_within(stack.scores) & (weight > 0)[:, None]
    active = free * (2 * weight[:, None])

    def of(rows: SparseRows) -> tuple[Product, np.ndarray, list[Bent]]:
        def of_all(v: np.ndarray, active: np.ndarray) -> np.ndarray:
            return rows.back(loss.times_active(active, rows.scores(v)))

        def of_terms(v: np.ndarray, models: np.ndarray) -> np.ndarray:
            return np.stack([terms[model].times(step) for model, step in zip(models, v, strict=True)])

        if _FEW_FREE * np.count_nonzero(free) > free.size:
            return of_all, active.astype(rows.X.dtype, copy=False), []
        terms = [FreeTerms(rows, loss.codes, mine, 2 * own) for mine, own in zip(free, weight, strict=True)]
        return of_terms, np.arange(len(terms)), [*terms]

    return loss.in_each(active), of


def conjugate_gradients(
    product: Product,
    conditioned: Product,
    own: tuple[np.ndarray, ...],
    gradient: np.ndarray,
    left: np.ndarray,
    most: int = _MAX_PRODUCTS,
) -> np.ndarray:
    """Solve the systems of models (K, C, D) for their gradients, by so many products at `most`.

    What is solved instead, to precondition, is `conditioned`; in its units, a model ends where no more than a part of
    the residual's square is `left` (K,). Both are asked with what models have of their `own`.
    """
    found, models = np.empty_like(gradient), np.arange(len(gradient))
    step, residual = np.zeros_like(gradient), -gradient
    direction = conditioned(residual, *own)
    length = dot(residual, direction)
    enough = left * length
    for _ in range(most):
        ahead = product(direction, *own)
        bend = dot(direction, ahead)
        share = np.divide(length, bend, out=np.zeros_like(length), where=bend > 0)[:, None, None]
        step += share * direction
        residual -= share * ahead
        scaled = conditioned(residual, *own)
        before, length = length, dot(residual, scaled)
        on = (length > enough) & (bend > 0)
        if not on.all():
            found[models] = step
            if not on.any():
                return found
            own = tuple(part[on] for part in own)
            models, step, residual, scaled = models[on], step[on], residual[on], scaled[on]
            direction, length, before, enough = direction[on], length[on], before[on], enough[on]
        direction *= (length / before)[:, None, None]
        direction += scaled
    found[models] = step
    return found
