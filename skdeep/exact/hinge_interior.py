"""Interior point of small hinge problems: where `skdeep.exact.hinge` begins when few unknowns make each step cheap."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from skdeep.exact.descent import summed
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.interior import Batch, Found
from skdeep.exact.rows import Rows, SparseRows, of_all, of_both, pairs

#: Unknowns of a system, and rows, up to which it is cheaper than the method of multipliers; and up to which it may be,
#: where more than such a share of the rows is within the margins: those are what the other one's steps cost.
_MAX_SYSTEM, _MAX_ROWS = 256, 4096
_LARGER_SYSTEM, _MORE_ROWS, _CROWD = 1024, 16384, 0.5
#: Values up to which all terms' derivatives in the parameters are kept: products with them take one call.
_FEW_VALUES = 2**15
#: Systems of the same rows for which products of all columns pay that are used again in each step, as do many at once.
_SEVERAL, _MANY = 3, 8
#: Most terms of a batch of models.
_BATCH = 2**15


class _Columns:
    """Terms of columns of scores, which are systems of their own: one for each row."""

    n_scores, lean, give = 1, None, None

    def __init__(self, rows: Rows, against: np.ndarray):
        self.rows, self.n_terms, self._against = rows, rows.shape[0], against
        self.at_zero = self.share = np.ones((1, 1))

    def keep(self, systems: np.ndarray) -> _Columns:
        return _Columns(self.rows, self._against[systems])

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        return values

    def changes(self, params: np.ndarray) -> np.ndarray:
        found = self.rows.scores(params)
        found *= self._against
        return found

    def back(self, slope: np.ndarray) -> np.ndarray:
        return self.rows.back(slope * self._against)

    def hessians(self, second: np.ndarray) -> np.ndarray:
        D = self.rows.shape[1]
        if len(second) >= _SEVERAL and self.rows.keeps_products(_MANY):
            return (second @ self.rows.products).take(of_both(D), axis=1).reshape(-1, D, D)
        return self.rows.gram(second)

    def duals(self, values: np.ndarray) -> np.ndarray:
        return values[:, None]


class _Rivals:
    """Terms of Weston and Watkins' loss: of each row, one for each class that is not its own.

    Rows are sorted by class. With D the products of rows of one class, weighted by one rival's second derivatives, the
    Hessian has D + D' of both in the two diagonal blocks, and what is off it is the same with the sign changed.
    """

    lean = give = None

    def __init__(self, rows: Rows, loss: WestonWatkins):
        C, n = loss.n_scores, rows.shape[0]
        self.n_scores, self.n_terms, self._order = C, (C - 1) * n, loss.codes.argsort(kind="stable")
        self.rows, codes, each = rows.select(self._order), loss.codes[self._order], np.arange(n)
        slots = np.arange(C - 1)[:, None]
        self._rival = ((slots + (slots >= codes)) * n + each).ravel()
        ends = codes.searchsorted(np.arange(C + 1))
        self._classes = [slice(*pair) for pair in pairwise(ends)]
        self._parts = [self.rows.select(part) for part in self._classes]
        self._Z = [rows.Z for rows in self._parts]
        self._to_scores, self._to_pairs = _sums(C)
        self._all, self.at_zero = None, np.ones((1, 1))
        self.share = self.at_zero
        if C * self.n_terms * rows.shape[1] <= _FEW_VALUES:
            of_term = np.zeros((C - 1, n, C, 1))
            of_term.reshape(-1)[(slots * n + each) * C + codes] = -1
            of_term.reshape(-1)[(slots * n + each) * C + slots + (slots >= codes)] = 1
            self._all = (of_term * self.rows.Z[:, None]).reshape(self.n_terms, -1)

    def keep(self, systems: np.ndarray) -> _Rivals:
        return self

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        return np.tile(values[:, self._order], self.n_scores - 1)

    def changes(self, params: np.ndarray) -> np.ndarray:
        if self._all is not None:
            return params @ self._all.T
        K, C = len(params), self.n_scores
        of_rivals = (self._to_scores.T @ params.reshape(K, C, -1)).reshape(K, C, C - 1, -1)
        found = np.empty((K, C - 1, len(self._order)))
        for c, (part, Z) in enumerate(zip(self._classes, self._Z, strict=True)):
            np.matmul(of_rivals[:, c], Z.T, out=found[:, :, part])
        return found.reshape(K, -1)

    def back(self, slope: np.ndarray) -> np.ndarray:
        if self._all is not None:
            return slope @ self._all
        K, C = len(slope), self.n_scores
        by_slot, found = slope.reshape(K, C - 1, -1), np.empty((K, C, C - 1, self.rows.shape[1]))
        for c, (part, Z) in enumerate(zip(self._classes, self._Z, strict=True)):
            np.matmul(by_slot[:, :, part], Z, out=found[:, c])
        return (self._to_scores @ found.reshape(K, C * (C - 1), -1)).reshape(K, -1)

    def hessians(self, second: np.ndarray) -> np.ndarray:
        K, C, D = len(second), self.n_scores, self.rows.shape[1]
        by_slot, found = second.reshape(K, C - 1, -1), np.empty((K, C, C - 1, D * (D + 1) // 2))
        for c, (part, rows) in enumerate(zip(self._classes, self._parts, strict=True)):
            if rows.keeps_products(C - 1):
                np.matmul(by_slot[:, :, part], rows.products, out=found[:, c])
            else:
                found[:, c] = rows.half_gram(by_slot[:, :, part].reshape(K * (C - 1), -1)).reshape(K, C - 1, -1)
        of_pairs = self._to_pairs @ found.reshape(K, C * (C - 1), -1)
        return of_pairs.reshape(K, -1).take(of_all(C, D), axis=1).reshape(K, C * D, C * D)

    def duals(self, values: np.ndarray) -> np.ndarray:
        found = np.zeros((len(values), self.n_scores * len(self._order)))
        found[:, self._rival] = values
        sorted_ = found.reshape(len(values), self.n_scores, -1)
        found = np.empty_like(sorted_)
        found[:, :, self._order] = sorted_
        return found


@lru_cache(maxsize=64)
def _sums(C: int) -> tuple[np.ndarray, np.ndarray]:
    """Tell which derivatives of rivals (C (C - 1), by class and rival) add up to a score's, and to a pair's."""
    of_pair = of_both(C).reshape(C, C)
    own, rival = (part.ravel() for part in np.broadcast_arrays(np.arange(C)[:, None], np.arange(C - 1)))
    rival = rival + (rival >= own)
    first, second, there = np.zeros((C, len(own))), np.zeros((len(pairs(C)[0]), len(own))), np.arange(len(own))
    first[rival, there], first[own, there] = 1, -1
    for a, b, sign in ((own, own, 1), (rival, rival, 1), (own, rival, -1)):
        second[of_pair[a, b], there] = sign
    return first, second


def suits(rows: Rows, loss: Hinges | WestonWatkins, crowd: float) -> bool:
    """Tell whether steps are cheap for a problem; `crowd` is the share of its rows within the margins."""
    return _is_within(rows, loss, _MAX_ROWS, _MAX_SYSTEM) or (may_suit(rows, loss) and crowd > _CROWD)


def may_suit(rows: Rows, loss: Hinges | WestonWatkins) -> bool:
    """Tell whether that depends on the share of rows within the margins."""
    small = _is_within(rows, loss, _MAX_ROWS, _MAX_SYSTEM)
    return not (small or isinstance(loss, Hinges)) and _is_within(rows, loss, _MORE_ROWS, _LARGER_SYSTEM)


def _is_within(rows: Rows, loss: Hinges | WestonWatkins, most_rows: int, most_unknowns: int) -> bool:
    """Tell whether a problem that can be solved here has no more rows, and unknowns of a system, than that."""
    if isinstance(rows, SparseRows) or isinstance(loss, CrammerSinger):
        return False
    (n, D), apart = rows.shape, isinstance(loss, Hinges)
    return n <= most_rows and (D if apart else D * loss.n_scores) <= most_unknowns


def approach(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
    intercept: bool,
    goal: np.ndarray,
    max_iter: int,
) -> Found:
    """Bring K models near their optima, so that gaps are about `goal` (K,) or what rounding leaves of them.

    See `skdeep.exact.hinge.solve`.
    """
    K, n = weight.shape
    size = max(1, _BATCH // (loss.n_scores * n))
    terms: Any
    if isinstance(loss, WestonWatkins):
        columns, terms = 1, _Rivals(rows, loss)
    else:  # as many systems as columns
        columns, terms = loss.n_scores, _Columns(rows, np.tile(-loss.sign, (K, 1)))
    found = []
    for models in np.split(np.arange(K), range(size, K, size)):
        own = (models[:, None] * columns + np.arange(columns)).ravel()
        model = own // columns
        part = terms.keep(own)
        batch = Batch(part, part.of_rows(weight[model]), rho[model], intercept, goal[model])
        end = batch.run(max_iter)
        found.append(end._replace(duals=part.duals(end.duals)))
    params, duals = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:2])
    curve = [one for part in found for one in part.curve]
    curve = [summed(curve[k : k + columns]) for k in range(0, len(curve), columns)]
    return Found(params.reshape(K, -1, rows.shape[1]), duals.reshape(K, -1, n), curve)
