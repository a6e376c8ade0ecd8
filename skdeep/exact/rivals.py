"""Rows by their class: second derivatives of a loss of rivals, with the terms of one class and one rival at a time."""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from scipy.linalg import helmert

from skdeep.exact.rows import Rows, of_all, of_both, pairs

#: Most classes: there are half as many pairs of directions of terms as their fourth power.
MAX_CLASSES = 48


class ByClass:
    """Rows sorted by class, with a term for each class that is not a row's own.

    A term is a direction e in the scores, 1 of the rival and -1 of its own class. With P the products of rows of one
    class, weighted by one rival's second derivatives, it adds ``e_a e_b P`` to the Hessian's block of scores a and b.

    Scores are multiples of a `basis` (C, S): where they are `centred`, adding up to zero as an optimum's do, of S = C -
    1 numbers; otherwise S is C. The directions of terms, by class and rival, are `to_scores` (S, C (C - 1)).
    """

    def __init__(self, rows: Rows, codes: np.ndarray, n_scores: int, centred: bool = False):
        self.order, self.n_scores = codes.argsort(kind="stable"), n_scores
        self.rows, self.codes = rows.select(self.order), codes[self.order]
        self.classes = [slice(*pair) for pair in pairwise(self.codes.searchsorted(np.arange(n_scores + 1)))]
        self.parts = [self.rows.select(part) for part in self.classes]
        self.basis, self.to_scores, self._to_pairs = _directions(n_scores, centred)

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
        """Compute second derivatives (K, S D, S D) in the parameters from those in the margins (K, C - 1, n)."""
        K, C, S, D = len(second), self.n_scores, len(self.to_scores), self.rows.shape[1]
        each = list(enumerate(zip(self.classes, self.parts, strict=True)))
        if all(rows.keeps_products(K * (C - 1)) for rows in self.parts):
            half = np.empty((K, C, C - 1, D * (D + 1) // 2))
            for c, (part, rows) in each:
                of_models = second[:, :, part].reshape(K * (C - 1), -1)  # products are read once for all
                half[:, c] = (of_models @ rows.products).reshape(K, C - 1, -1)
            of_pairs = self._to_pairs @ half.reshape(K, C * (C - 1), -1)
            return of_pairs.reshape(K, -1).take(of_all(S, D), axis=1).reshape(K, S * D, S * D)
        found = np.empty((K, C, C - 1, D * D))
        for c, (part, rows) in each:
            found[:, c] = rows.gram(second[:, :, part].reshape(K * (C - 1), -1)).reshape(K, C - 1, -1)
        of_pairs = (self._to_pairs @ found.reshape(K, C * (C - 1), -1)).take(of_both(S), axis=1)
        return of_pairs.reshape(K, S, S, D, D).swapaxes(2, 3).reshape(K, S * D, S * D)


@lru_cache(maxsize=64)
def _directions(C: int, centred: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute a basis of scores, the directions of rivals (C (C - 1), by class and rival) in it, and pairs of these."""
    own, rival = (part.ravel() for part in np.broadcast_arrays(np.arange(C)[:, None], np.arange(C - 1)))
    rival = rival + (rival >= own)
    first, there = np.zeros((C, len(own))), np.arange(len(own))
    first[rival, there], first[own, there] = 1, -1
    basis = helmert(C).T if centred else np.eye(C)
    first = basis.T @ first
    a, b = pairs(len(first))
    return basis, first, first[a] * first[b]
