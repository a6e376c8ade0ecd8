"""Squared hinges of rivals, of sparse rows: the terms within their margins, and what preconditions systems of them."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

from skdeep.exact.rows import SparseRows

#: Products of conjugate gradients without `ClassSystems`, for the condition number's root, and that these stand for.
_PER_ROOT, _APART = 1.0, 12.0
#: Microseconds: of a product, and each of its values; and of all that is done with a system, its square and its cube.
_CALL, _PER_VALUE, _OF_SYSTEMS = 35.0, 2e-3, np.array([40.0, 8e-3, 8e-6])


class FreeTerms:
    """The rivals (C, n) within their margins, of one model, as rows of a sparse matrix: the few scores that count.

    Terms come first, each the score of its rival; then, of each row that has any, the score of its own class.
    """

    def __init__(self, rows: SparseRows, codes: np.ndarray, free: np.ndarray, scale: np.ndarray):
        rival, row = free.nonzero()
        there, self.row = np.unique(row, return_inverse=True)
        self.scale, self._n_terms = scale[row].astype(rows.X.dtype, copy=False), len(row)
        self.of_class, self.there = np.concatenate([rival, codes[there]]), np.concatenate([row, there])
        X = rows.X[self.there]
        C, D = len(free), rows.shape[1]
        of_class = X.indices + np.repeat(self.of_class * D, np.diff(X.indptr))
        self._values = sparse.csr_array((X.data, of_class, X.indptr), (len(self.of_class), C * D))
        self._turned, self.intercept, self._shape = self._values.T, rows.intercept, (C, D)

    def scores(self, step: np.ndarray) -> np.ndarray:
        """Compute how scores change with a step (C, D)."""
        found = self._values @ step.reshape(-1)
        if self.intercept:
            found += step[:, -1].take(self.of_class)
        return found

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient (C, D) from one in the scores."""
        found = (self._turned @ slope).reshape(self._shape)
        if self.intercept:
            found[:, -1] = np.bincount(self.of_class, slope, len(found))
        return found

    def times(self, step: np.ndarray) -> np.ndarray:
        """Multiply a step (C, D) with the second derivatives."""
        scores = self.scores(step)
        m = self._n_terms
        change, own = scores[:m], scores[m:]
        change -= own.take(self.row)
        change *= self.scale
        own[:] = -np.bincount(self.row, change, len(own))
        return self.back(scores)

    def is_cheaper_apart(self, condition: float) -> bool:
        """Tell whether `ClassSystems` take less time than the products that they save, by a condition number."""
        n_saved = _PER_ROOT * math.sqrt(condition) - _APART
        sizes = np.bincount(self.of_class)
        work = _OF_SYSTEMS @ np.array([len(sizes), sizes @ sizes, (sizes * sizes) @ sizes], dtype=float)
        return bool(work <= n_saved * (_CALL + _PER_VALUE * self._values.nnz))


class ClassSystems:
    r"""Solves as if no term were of two scores: what is left is a system of each score's rows.

    With the rows Z that have terms in a score, their second derivatives S and the penalty's R, by Woodbury's formula,

    .. math:: (Z^T S Z + R)^{-1} = R^{-1} - R^{-1} Z^T (S^{-1} + Z R^{-1} Z^T)^{-1} Z R^{-1}

    The `inverse` of R is (C, D), and `products` (n, n) are of rows by it, so many `times`, without the intercept.
    """

    def __init__(self, terms: FreeTerms, products: np.ndarray, times: float, inverse: np.ndarray):
        self._terms, self._inverse = terms, inverse
        second = np.concatenate([terms.scale, np.bincount(terms.row, terms.scale)])
        self._root = np.sqrt(second).astype(products.dtype)
        self._order = terms.of_class.argsort(kind="stable")
        ends = terms.of_class[self._order].searchsorted(np.arange(len(inverse) + 1))
        factorise = dpotrf if products.dtype == np.float64 else spotrf
        self._systems = []
        for part, free in zip(map(slice, ends[:-1], ends[1:]), inverse[:, -1], strict=True):
            index = self._order[part]
            root, row = self._root[index], terms.there[index]
            system = products[row[:, None], row]
            system /= times
            if terms.intercept:
                system += free
            system *= root
            system *= root[:, None]
            system.reshape(-1)[:: len(row) + 1] += 1
            factor, info = factorise(system.T, lower=1, overwrite_a=1)
            if not info and len(row):
                self._systems.append((index, factor))

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve for right sides (C, D)."""
        step = self._inverse * right
        scores = self._terms.scores(step)
        scores *= self._root
        substitute = dpotrs if scores.dtype == np.float64 else spotrs
        found = np.zeros_like(scores)
        for index, factor in self._systems:
            found[index] = substitute(factor, scores[index], lower=1)[0]
        found *= self._root
        step -= self._inverse * self._terms.back(found)
        return step
