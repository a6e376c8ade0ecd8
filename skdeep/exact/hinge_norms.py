r"""Hinges beside an L1 norm: their terms are rows of losses with kinks, for the interior point of `piecewise`.

A margin is linear in all parameters of a model: a term has a row of its own, :math:`-t z` of one score, and of several,
z for a rival and -z for its own class. Its loss is what is above -1. Crammer and Singer's is the least bound of a row's
margins, which is a parameter more of each row, without a penalty,

.. math:: \max_j (1 + s_j - s_y)_+ = \min_\xi\; \xi_+ + \sum_j (1 + s_j - s_y - \xi)_+,

since a bound below a margin saves no more than it costs. Squared, the bound has a ridge instead, and margins above it
cost as much as saves no bound that an optimum may have.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from skdeep.exact import hinge, piecewise
from skdeep.exact.elastic_net import Solution, joined
from skdeep.exact.hinge_interior import Rivals
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.kinked_terms import Bounded
from skdeep.exact.row_space import has_free_column
from skdeep.exact.rows import Rows, SparseRows

#: Second derivatives of all models that are solved together, at most.
_MAX_SECOND = 2**22


def solve(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    kappa: np.ndarray,
    rho: np.ndarray,
    gap: np.ndarray,
    max_iter: int,
) -> Solution:
    """Minimise hinges for K models, to relative duality gaps (K,).

    Weights (K, n) of a model add up to one; `kappa` and `rho` (K, D) are slopes and curvatures of the penalties. Models
    without slopes, of which a grid may have some, end as they would alone.
    """
    normed = kappa.any(1)
    if not normed.all():
        own = weight[~normed], rho[~normed], gap[~normed]
        plain, places = hinge.solve(rows, loss, *own, max_iter), [np.flatnonzero(~normed)]
        parts = [Solution(plain.params, plain.value, plain.gap, plain.curve, plain.converged)]
        if normed.any():
            of_norms = weight[normed], kappa[normed], rho[normed], gap[normed]
            parts.append(solve(rows, loss, *of_norms, max_iter))
            places.append(np.flatnonzero(normed))
        return _together(parts, np.argsort(np.concatenate(places)))
    used = np.flatnonzero(weight.any(0))
    if len(used) < weight.shape[1]:
        rows, loss, weight = rows.select(used), loss.select_rows(used), weight[:, used]
    if isinstance(loss, Hinges):
        columns = [_solve(_signed(rows, -sign), weight, kappa, rho, gap, max_iter) for sign in loss.sign]
        found = columns[0] if len(columns) == 1 else joined(columns)
        _near_(found.params, rows, loss, weight, kappa + rho)
        return found
    if isinstance(rows, SparseRows):  # few columns, or their systems would be too large
        rows = Rows(rows.take(np.arange(len(used))))
    rivals, C, n = Rivals(rows, loss, centred=False), loss.n_scores, len(used)
    of_terms, size = rivals.of_rows(weight), C * rows.shape[1]
    terms = _Terms(rivals, size) if rivals.of_terms is None else Rows(rivals.of_terms)
    held = kappa + rho
    kappa, rho = np.tile(kappa, C), np.tile(rho, C)
    if isinstance(loss, CrammerSinger):
        bend, of_bounds, squared = np.zeros((len(weight), n)), of_terms[:, :n], loss.squared
        if squared:  # at scores of zero all bounds are one: at the optimum, weight * bound² is no more than that
            bend, of_bounds, of_terms = 2 * of_bounds, bend, 2 * np.sqrt(of_terms)
        kappa, rho = np.concatenate([kappa, np.zeros_like(bend)], axis=1), np.concatenate([rho, bend], axis=1)
        of_terms = np.concatenate([of_terms, of_bounds], axis=1)
        bounded = Bounded(terms.take(np.arange(terms.shape[0])), n, squared)
        found = _solve(bounded, of_terms, kappa, rho, gap, max_iter, n)
    else:
        found = _solve(terms, of_terms, kappa, rho, gap, max_iter)
    params = found.params[:, 0, :size].reshape(len(weight), C, -1)
    _near_(params, rows, loss, weight, held)
    return found._replace(params=params)


def _solve(
    terms: Rows,
    weight: np.ndarray,
    kappa: np.ndarray,
    rho: np.ndarray,
    gap: np.ndarray,
    max_iter: int,
    n_bounds: int = 0,
) -> Solution:
    """Minimise what terms, of weights (K, T), are above -1; of the last ones, which are bounds, above zero."""
    at = np.full((1, terms.shape[0]), -1.0)
    at[:, terms.shape[0] - n_bounds :] = 0
    costs, parts = (np.zeros(1), np.ones(1)), []
    size = max(1, _MAX_SECOND // terms.shape[1] ** 2)
    for models in np.split(np.arange(len(weight)), range(size, len(weight), size)):
        own = weight[models], rho[models], kappa[models], gap[models]
        parts.append(piecewise.solve(terms, at, at, *costs, *own, max_iter=max_iter))
    return parts[0] if len(parts) == 1 else _together(parts, np.arange(len(weight)))


def _together(parts: list[Solution], place: np.ndarray) -> Solution:
    """Put models of several solutions into one, in the order of their places in these."""
    params, value, reached = (np.concatenate([part[i] for part in parts])[place] for i in range(3))
    curves = [curve for part in parts for curve in part.curve]
    converged = np.concatenate([part.converged for part in parts])[place]
    return Solution(params, value, reached, [curves[k] for k in place], converged)


def _near_(params: np.ndarray, rows: Rows, loss: Hinges | WestonWatkins, weight: np.ndarray, held: np.ndarray) -> None:
    """Put intercepts of classes that a model has no rows of, in place, where scores are below all others by one.

    They cost nothing anywhere beyond, and come from so far out that digits of scores are lost. Of one score, all rows
    may be of its class. What is `held` (K, D) has a penalty.
    """
    if not has_free_column(rows, held):
        return
    for k, own in enumerate(weight):
        trained = np.flatnonzero(own)
        if isinstance(loss, Hinges):
            there = np.any(loss.sign[:, trained] > 0, axis=1)
            lone = np.flatnonzero(np.all(loss.sign[:, trained] == loss.sign[:, trained[:1]], axis=1))
        else:
            there = np.bincount(loss.codes[trained], minlength=loss.n_scores) > 0
            lone = np.flatnonzero(~there)
        if not len(lone):
            continue
        params[k, lone, -1] = 0
        scores = rows.scores(params[k])[:, trained]
        known = np.setdiff1d(np.arange(loss.n_scores), lone)
        lowest = scores[known].min(0) if len(known) else np.zeros(len(trained))
        if isinstance(loss, Hinges):
            lowest = np.minimum(lowest, 0)
        params[k, lone, -1] = np.where(there[lone], 1 - scores[lone].min(1), (lowest - scores[lone]).min(1) - 1)


def _signed(rows: Rows, sign: np.ndarray) -> Rows:
    """Multiply rows by signs (n,)."""
    if not isinstance(rows, SparseRows):
        return Rows(rows.Z * sign[:, None])
    parts = [rows.X, np.ones((rows.shape[0], 1))] if rows.intercept else [rows.X]
    return SparseRows(sparse.csr_array(sparse.hstack(parts).multiply(sign[:, None])), intercept=False)


class _Terms(Rows):
    """Terms of rivals as rows, without products of their own: these come from the rows that they are of."""

    def __init__(self, rivals: Rivals, size: int):
        self.rivals = rivals
        self.shape = rivals.n_terms, size

    @property
    def magnitude(self) -> float:
        return self.rivals.magnitude

    def scores(self, params: np.ndarray) -> np.ndarray:
        return self.rivals.changes(params)

    def back(self, gradient: np.ndarray) -> np.ndarray:
        return self.rivals.back(gradient)

    def gram(self, factor: np.ndarray) -> np.ndarray:
        return self.rivals.hessians(factor)

    def take(self, index: np.ndarray) -> np.ndarray:
        return self.rivals.derivatives(index)
