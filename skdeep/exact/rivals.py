"""Rows by their class: second derivatives of a loss of rivals, with the terms of one class and one rival at a time."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from skdeep.exact.rows import Rows, of_all, of_both, pairs


class ByClass:
    """Rows sorted by class, with a term for each class that is not a row's own.

    With D the products of rows of one class, weighted by one rival's second derivatives, the Hessian has D + D' of both
    in the two diagonal blocks, and what is off it is the same with the sign changed.

    Parameters
    ----------
    rows : Rows
    codes : ndarray of shape (n,), of int
    n_scores : int
    """

    def __init__(self, rows: Rows, codes: np.ndarray, n_scores: int):
        self.order, self.n_scores = codes.argsort(kind="stable"), n_scores
        self.rows, self.codes = rows.select(self.order), codes[self.order]
        self.classes = [slice(*pair) for pair in pairwise(self.codes.searchsorted(np.arange(n_scores + 1)))]
        self.parts = [self.rows.select(part) for part in self.classes]
        self.to_scores, self._to_pairs = _sums(n_scores)

    @cached_property
    def rival(self) -> np.ndarray:
        """Rival of each term, (C - 1, n)."""
        slots = np.arange(self.n_scores - 1)[:, None]
        return slots + (slots >= self.codes)

    @cached_property
    def place(self) -> np.ndarray:
        """Where each term (C - 1, n) is in values (C, n) of unsorted rows."""
        return self.rival * len(self.order) + self.order

    def hessians(self, second: np.ndarray) -> np.ndarray:
        """Compute second derivatives (K, C D, C D) in the parameters from those in the margins (K, C - 1, n)."""
        K, C, D = len(second), self.n_scores, self.rows.shape[1]
        each = list(enumerate(zip(self.classes, self.parts, strict=True)))
        if all(rows.keeps_products(K * (C - 1)) for rows in self.parts):
            half = np.empty((K, C, C - 1, D * (D + 1) // 2))
            for c, (part, rows) in each:
                np.matmul(second[:, :, part], rows.products, out=half[:, c])
            of_pairs = self._to_pairs @ half.reshape(K, C * (C - 1), -1)
            return of_pairs.reshape(K, -1).take(of_all(C, D), axis=1).reshape(K, C * D, C * D)
        found = np.empty((K, C, C - 1, D * D))
        for c, (part, rows) in each:
            found[:, c] = rows.gram(second[:, :, part].reshape(K * (C - 1), -1)).reshape(K, C - 1, -1)
        of_pairs = (self._to_pairs @ found.reshape(K, C * (C - 1), -1)).take(of_both(C), axis=1)
        return of_pairs.reshape(K, C, C, D, D).swapaxes(2, 3).reshape(K, C * D, C * D)


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
