"""Squared hinges of sparse rows: the terms within their margins, and what preconditions systems of them."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

from skdeep.exact.rows import SparseRows

#: Products of conjugate gradients without `ClassSystems`, for the condition number's root, and at most; and how many
#: these stand for.
_PER_ROOT, _MOST, _APART = 1.0, 500.0, 12.0
#: Microseconds: of a product, of each value; and of all that is done with a system, its square and its cube.
_PER_VALUE, _OF_SYSTEMS = 2e-3, np.array([40.0, 8e-3, 8e-6])


class Bent:
    """Base of what bends of one model: scores of rows, each with a second derivative."""

    call: float  # microseconds that a product takes, whatever there is
    of_class: np.ndarray  # the score of each, (m,)
    there: np.ndarray  # its row
    second: np.ndarray
    n_values: int

    def scores(self, step: np.ndarray) -> np.ndarray:
        """Compute how scores change with a step (C, D)."""
        raise NotImplementedError

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient (C, D) from one in the scores."""
        raise NotImplementedError

    def is_cheaper_apart(self, condition: float) -> bool:
        """Tell whether `ClassSystems` take less time than the products that they save, by a condition number."""
        n_saved = min(_PER_ROOT * math.sqrt(condition), _MOST) - _APART
        sizes = np.bincount(self.of_class)
        work = _OF_SYSTEMS @ np.array([len(sizes), sizes @ sizes, (sizes * sizes) @ sizes], dtype=float)
        return bool(work <= n_saved * (self.call + _PER_VALUE * self.n_values))


class BentRows(Bent):
    """The rows of one score that have a `second` derivative (n,)."""

    call = 5.0

    def __init__(self, rows: SparseRows, second: np.ndarray):
        self.there = second.nonzero()[0]
        self.second, self.of_class = second[self.there], np.zeros(len(self.there), dtype=int)
        self._rows, self.n_values = rows, rows.X.nnz * len(self.there) // max(rows.shape[0], 1)

    @cached_property
    def _some(self) -> SparseRows:
        return self._rows.select(self.there)

    def scores(self, step: np.ndarray) -> np.ndarray:
        return self._some.scores(step)[0]

    def back(self, slope: np.ndarray) -> np.ndarray:
        return self._some.back(slope[None])


class FreeTerms(Bent):
    """The rivals (C, n) within their margins, of one model, as rows of a sparse matrix: the few scores that count.

    Terms come first, each the score of its rival; then, of each row that has any, the score of its own class.
    """

    call = 35.0

    def __init__(self, rows: SparseRows, codes: np.ndarray, free: np.ndarray, scale: np.ndarray):
        rival, row = free.nonzero()
        there, self.row = np.unique(row, return_inverse=True)
        self.scale, self._n_terms = scale[row].astype(rows.X.dtype, copy=False), len(row)
        self.of_class, self.there = np.concatenate([rival, codes[there]]), np.concatenate([row, there])
        X = rows.X[self.there]
        C, D = len(free), rows.shape[1]
        of_class = X.indices + np.repeat(self.of_class * D, np.diff(X.indptr))
        self._values = sparse.csr_array((X.data, of_class, X.indptr), (len(self.of_class), C * D))
        self._turned, self._intercept, self._shape = self._values.T, rows.intercept, (C, D)
        self.second, self.n_values = np.concatenate([self.scale, np.bincount(self.row, self.scale)]), self._values.nnz

    def scores(self, step: np.ndarray) -> np.ndarray:
        found = self._values @ step.reshape(-1)
        if self._intercept:
            found += step[:, -1].take(self.of_class)
        return found

    def back(self, slope: np.ndarray) -> np.ndarray:
        found = (self._turned @ slope).reshape(self._shape)
        if self._intercept:
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


class ClassSystems:
    r"""Solves as if no term were of two scores: what is left is a system of each score's rows.

    With the rows Z that have terms in a score, their second derivatives S and the penalty's R, by Woodbury's formula,

    .. math:: (Z^T S Z + R)^{-1} = R^{-1} - R^{-1} Z^T (S^{-1} + Z R^{-1} Z^T)^{-1} Z R^{-1}

    The `inverse` of R is (C, D), and `products` (n, n) are of rows by it, so many `times`, without the intercept.
    """

    def __init__(
        self,
        terms: Bent,
        products: np.ndarray,
        times: float,
        inverse: np.ndarray,
        intercept: bool,
    ):
        self._terms, self._inverse = terms, inverse
        self._root = np.sqrt(terms.second).astype(inverse.dtype)
        self._order = terms.of_class.argsort(kind="stable")
        ends = terms.of_class[self._order].searchsorted(np.arange(len(inverse) + 1))
        factorise = dpotrf if inverse.dtype == np.float64 else spotrf
        self._systems = []
        for part, free in zip(map(slice, ends[:-1], ends[1:]), inverse[:, -1], strict=True):
            index = self._order[part]
            root, row = self._root[index], terms.there[index]
            system = products[row[:, None], row]
            system /= times
            if intercept:
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
