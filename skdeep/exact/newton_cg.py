r"""Newton directions of losses in pieces, of sparse rows: by conjugate gradients.

A squared hinge is a parabola where it is not zero: near the optimum, Newton's direction is the way to it, and pairs of
steps and gradients, which L-BFGS goes by, are of other pieces. A system is solved roughly, the better the nearer the
optimum is, by products with the rows, of which those without a second derivative stay out.

Nocedal & Wright, *Numerical Optimization*, 2nd edition, section 7.1. Keerthi & DeCoste, *A modified finite Newton
method for fast solution of large scale linear SVMs*, JMLR 6, 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skdeep.exact.descent import Directions, Stack, dot
from skdeep.exact.losses import At

#: Share of a gradient that a direction may leave, at most; and most products with the rows for a direction.
_LEFT, _MAX_PRODUCTS = 0.1, 1000
#: Curvature that is added to each column's own, as a part of the largest: columns may have none.
_LEAST = 1e-12
#: Most scores of models that take steps at a time.
_MOST_SCORES = 2**20

#: From models (m,) and directions (m, C, D) to a change of these: along it, of the gradients, for example.
Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


class NewtonCG(Directions):
    """Newton directions by products with the rows."""

    most_scores = _MOST_SCORES
    slope_left, nearer = 0.1, 0.1

    def __call__(self, stack: Stack) -> np.ndarray:
        product, second = _coupled(stack) if stack.params.shape[1] > 1 else _apart(stack)
        curvature = stack.rows.diagonal(second.reshape(-1, second.shape[2])).reshape(stack.params.shape)
        curvature += stack.rho[:, None]
        curvature += _LEAST * curvature.max((1, 2), keepdims=True) + np.finfo(float).tiny
        left = np.minimum(_LEFT**2, np.abs(stack.gradient).max((1, 2)))
        return conjugate_gradients(product, lambda models, v: v / curvature[models], stack.gradient, left)


def _apart(stack: Stack) -> tuple[Product, np.ndarray]:
    """Make the product of models of one score, and the second derivatives (K, 1, n) in it."""
    second = stack.loss.second(stack.scores, stack.at)[:, :1] * stack.weight[:, None]
    bent = np.flatnonzero(second.any((0, 1)))
    few = 2 * len(bent) < second.shape[2]
    rows, bend = (stack.rows.select(bent), second[:, :, bent]) if few else (stack.rows, second)
    return lambda models, v: rows.back(bend[models] * rows.scores(v)) + stack.rho[models, None] * v, second


def _coupled(stack: Stack) -> tuple[Product, np.ndarray]:
    """Make the product of models of several scores, and the second derivatives (K, C, n) in each of these."""
    rows, weight = stack.rows, np.broadcast_to(stack.weight, (len(stack.params), stack.weight.shape[1]))

    def product(models: np.ndarray, v: np.ndarray) -> np.ndarray:
        at = At(stack.at.value[models], stack.at.gradient[models])
        change = stack.loss.keep(models).times_second(stack.scores[models], at, rows.scores(v))
        change *= weight[models, None]
        return rows.back(change) + stack.rho[models, None] * v

    return product, stack.loss.diagonal(stack.scores, stack.at) * weight[:, None]


def conjugate_gradients(
    product: Product, conditioned: Product, gradient: np.ndarray, left: np.ndarray, most: int = _MAX_PRODUCTS
) -> np.ndarray:
    """Solve the systems of models (K, C, D) for their gradients, by so many products at `most`.

    What is solved instead, to precondition, is `conditioned`; in its units, a model ends where no more than a part of
    the residual's square is `left` (K,).
    """
    found, residual, models = np.zeros_like(gradient), -gradient, np.arange(len(gradient))
    direction = conditioned(models, residual)
    length = dot(residual, direction)
    enough = left * length
    for _ in range(most):
        ahead = product(models, direction)
        bend = dot(direction, ahead)
        share = np.divide(length, bend, out=np.zeros_like(length), where=bend > 0)[:, None, None]
        found[models] += share * direction
        residual = residual - share * ahead
        scaled = conditioned(models, residual)
        before, length = length, dot(residual, scaled)
        on = (length > enough[models]) & (bend > 0)
        if not on.any():
            break
        direction = scaled + (length / before)[:, None, None] * direction
        if not on.all():
            models, residual, direction, length = models[on], residual[on], direction[on], length[on]
    return found
