"""Rows of a fit as an operator on parameters: their columns scaled and centred, with one of ones for the intercept."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy import sparse
from scipy.linalg.blas import dsyrk
from torch.nn.functional import embedding_bag

from skdeep.compat.scipy import csc_matvec, csr_matmat, csr_matvec

#: Most products of two columns that are kept for all rows, and columns up to which some factors suffice for it.
_MAX_PRODUCTS, _VERY_FEW = 2**21, 20
#: Rows whose products are formed at a time, and values of them from which those without a factor are left out; values
#: up to which products of all factors are formed in one call.
_PART, _MANY_VALUES, _FEW_VALUES = 1024, 2**12, 2**16
#: Columns from which a symmetric product costs less than a general one, and rows are best kept as they come.
FEW_COLUMNS = 48
#: Rows that are made dense at a time.
_CHUNK_VALUES = 2**20
#: Deviations of columns, as a part of their means, below which digits are lost, or all of them.
_FAR, _CONSTANT = 1e-3, 1e-13
#: Share of values that are stored from which dense rows are cheaper, for products of columns, and for all else of so
#: many values at most; and values of rows up to which their calls alone are.
FILLED, _DENSE_VALUES, SMALL_VALUES = 0.1, 2**24, 2**16


@lru_cache(maxsize=64)
def pairs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """List the pairs of n things, each once: ``np.tril_indices(n)``."""
    return np.tril_indices(n)


@lru_cache(maxsize=64)
def of_both(n: int) -> np.ndarray:
    """List the number of the pair of each two of n things, (n * n,)."""
    table = np.zeros((n, n), dtype=np.intp)
    i, j = pairs(n)
    table[i, j] = table[j, i] = np.arange(len(i))
    return table.ravel()


@lru_cache(maxsize=16)
def of_all(n_scores: int, n_columns: int) -> np.ndarray:
    """List where each entry of a Hessian (C D, C D) is among all pairs of scores and of columns."""
    of_scores, of_columns = of_both(n_scores).reshape(n_scores, 1, n_scores, 1), of_both(n_columns)
    n_pairs = n_columns * (n_columns + 1) // 2
    return (of_scores * n_pairs + of_columns.reshape(n_columns, 1, n_columns)).ravel()


def products_pay(shape: tuple[int, int], n_factors: int) -> bool:
    """Tell whether products of all columns of rows (n, D) should be kept: of few ones, for several factors."""
    n, D = shape
    return n_factors >= (2 if D <= _VERY_FEW else 8) and n * D * (D + 1) <= 2 * _MAX_PRODUCTS


def products_of(columns: np.ndarray) -> np.ndarray:
    """Compute the products (n, D (D + 1) / 2) of all pairs of columns (D, n)."""
    D, n = columns.shape
    products = np.empty((D * (D + 1) // 2, n), dtype=columns.dtype)
    for i in range(D):
        start = i * (i + 1) // 2
        np.multiply(columns[: i + 1], columns[i], out=products[start : start + i + 1])
    return products.T


def dense_product(A: sparse.sparray, B: sparse.sparray) -> np.ndarray:
    """Multiply sparse matrices in one pass, where SciPy takes one more to count what is to be stored."""
    A, B, shape = A.tocsr(), B.tocsr(), (A.shape[0], B.shape[1])
    n, d = shape
    kind = np.result_type(A.indices, B.indices)
    parts = [part.astype(kind, copy=False) for M in (A, B) for part in (M.indptr, M.indices)]
    found, column, first = np.empty(n * d), np.empty(n * d, dtype=kind), np.empty(n + 1, dtype=kind)
    csr_matmat(n, d, parts[0], parts[1], A.data, parts[2], parts[3], B.data, first, column, found)
    return sparse.csr_array((found[: first[-1]], column[: first[-1]], first), shape=shape).toarray()


def add_product_(A: sparse.sparray, v: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Add the product of a CSR or CSC matrix with a vector of its dtype, in place."""
    (csr_matvec if A.format == "csr" else csc_matvec)(*A.shape, A.indptr, A.indices, A.data, v, found)
    return found


class Rows:
    """Dense rows Z (n, D) in float64, contiguous along rows, or along columns, where there are few.

    The last one is of ones if there is an intercept.
    """

    def __init__(self, Z: np.ndarray):
        self.Z = Z
        self.shape = Z.shape

    def scores(self, params: np.ndarray) -> np.ndarray:
        """Compute scores (..., n) of parameters (..., D)."""
        flat = params.reshape(-1, params.shape[-1]) @ self.Z.T
        return flat.reshape(*params.shape[:-1], -1)

    def back(self, gradient: np.ndarray) -> np.ndarray:
        """Compute the gradient in the parameters (..., D) from one in scores (..., n)."""
        flat = gradient.reshape(math.prod(gradient.shape[:-1]), gradient.shape[-1]) @ self.Z
        return flat.reshape(*gradient.shape[:-1], -1)

    def take(self, index: np.ndarray) -> np.ndarray:
        """Take some rows (m, D), dense."""
        return self.Z[index]

    def select(self, index: np.ndarray | slice) -> Rows:
        """Take some rows, as an operator, in the order in memory that all have."""
        if isinstance(index, np.ndarray) and self.Z.flags.f_contiguous:
            return Rows(self.Z.T.take(index, 1).T)
        return Rows(self.Z[index])

    def columns(self, index: np.ndarray, part: slice) -> np.ndarray:
        """Take some columns, (m, part of n), dense."""
        return self.Z[part].take(index, 1).T

    def narrow(self, index: np.ndarray) -> Rows:
        """Take some columns, in rising order, as an operator."""
        return Rows(self.Z.take(index, 1))

    @cached_property
    def magnitude(self) -> float:
        """The largest magnitude of a value."""
        return float(np.abs(self.Z).max(initial=0.0))

    @cached_property
    def _columns(self) -> np.ndarray:
        return np.ascontiguousarray(self.Z.T)

    def gram(self, factor: np.ndarray) -> np.ndarray:
        """Compute ``Z.T @ diag(f) @ Z``, (m, D, D), for each of some factors f of the rows, (m, n)."""
        D = self.shape[1]
        if self.keeps_products(len(factor)):
            return (factor @ self.products).take(of_both(D), axis=1).reshape(-1, D, D)
        if len(factor) * self.Z.size <= _FEW_VALUES:
            return (self._columns * factor[:, None]) @ self.Z
        found = np.zeros((len(factor), D, D))
        if D < FEW_COLUMNS:
            turned = self._columns if len(factor) > 1 or "_columns" in self.__dict__ else self.Z.T
            for start in range(0, len(self.Z), _PART):  # what is multiplied is to stay in the cache
                part = slice(start, start + _PART)
                columns, Z = turned[:, part], self.Z[part]
                for own, f in zip(found, factor[:, part], strict=True):
                    if Z.size > _MANY_VALUES and 2 * np.count_nonzero(f) < len(f):
                        index = f.nonzero()[0]
                        some = Z.take(index, 0)
                        own += (some.T * f.take(index)) @ some
                    else:
                        own += (columns * f) @ Z
            return found
        for own, f in zip(found, factor, strict=True):
            index = np.flatnonzero(f)
            Z, f = (self.Z, f) if len(index) == len(f) else (self.Z[index], f[index])
            if len(f) and f.min() > 0:
                half = dsyrk(1.0, (Z * np.sqrt(f)[:, None]).T, lower=1)
                np.add(half, half.T, out=own)
                own.reshape(-1)[:: D + 1] /= 2
            else:
                np.matmul(Z.T * f, Z, out=own)
        return found

    def between(self, some: np.ndarray, columns: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Compute the products of some columns with others, under factors of rows (n,)."""
        return (self.Z.take(some, 1).T * factor) @ self.Z.take(columns, 1)

    def diagonal(self, factor: np.ndarray) -> np.ndarray:
        """Compute the diagonals (m, D) of `gram`."""
        return np.stack([np.einsum("i,ij,ij->j", f, self.Z, self.Z) for f in factor])

    def in_single(self) -> Rows:
        """Round the rows to single precision."""
        return Rows(self.Z.astype(np.float32))

    def products_of_rows(self, factor: np.ndarray) -> np.ndarray:
        """Compute ``Z @ diag(f) @ Z.T``, (n, n), for factors f of the columns (D,)."""
        half = self.Z * np.sqrt(factor)
        return half @ half.T

    @property
    def n_values(self) -> int:
        """Values that a product with the rows passes over."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def average(self) -> np.ndarray:
        """`gram` of the average row, (D, D)."""
        return self.gram(np.full((1, self.shape[0]), 1 / self.shape[0]))[0]

    @cached_property
    def average_squares(self) -> np.ndarray:
        """`diagonal` of the average row, (D,)."""
        return self.diagonal(np.full((1, self.shape[0]), 1 / self.shape[0]))[0]

    def keeps_products(self, n_factors: int) -> bool:
        """Tell whether to keep the products of all columns."""
        return products_pay(self.shape, n_factors)

    @cached_property
    def products(self) -> np.ndarray:
        """Products (n, D (D + 1) / 2) of all pairs of columns."""
        return products_of(self._columns)

    @cached_property
    def single_products(self) -> np.ndarray:
        """`products` in single precision, in the order of the rows."""
        Z = self.take(np.arange(self.shape[0]))
        return np.ascontiguousarray(products_of(np.ascontiguousarray(Z.T, dtype=np.float32)))


class SparseRows(Rows):
    """Sparse rows X (n, d), whose columns are scaled but not centred."""

    def __init__(self, X: sparse.csr_array, intercept: bool):
        self.X, self.intercept = X, intercept
        self.shape = X.shape[0], X.shape[1] + intercept

    @cached_property
    def magnitude(self) -> float:
        return float(np.abs(self.X.data).max(initial=float(self.intercept)))

    @cached_property
    def _transposed(self) -> sparse.csr_array:
        return self.X.T.tocsr()

    @cached_property
    def _long(self) -> tuple[sparse.sparray, sparse.sparray]:
        """X and its transpose, either stored as few long sums, or as what goes to few long ones, which is faster."""
        X = self.X if self.X.shape[0] <= self.X.shape[1] else self._transposed.T
        return X, X.T

    def cheapest(self) -> Rows:
        """Make dense rows where passing over these takes longer."""
        n, D = self.shape
        filled = n * D <= _DENSE_VALUES and self.n_values >= FILLED * n * D
        return Rows(self.take(slice(n))) if filled or n * D <= SMALL_VALUES else self

    def centred(self) -> tuple[Rows, np.ndarray, np.ndarray] | None:
        """Make dense rows of columns less their means (d,), divided by their deviations (d,).

        None unless columns are so far from zero that digits would be lost.
        """
        n, d = self.X.shape
        if not self.intercept or n * d > _MAX_PRODUCTS or self.X.nnz < n:
            return None
        if np.bincount(self.X.indices, minlength=d).max() < n:  # zeros are far from any mean
            return None
        mean = self.X.mean(0)
        from_mean = self.X.data - mean[self.X.indices]  # of zeros, the mean itself
        squares = np.bincount(self.X.indices, from_mean * from_mean, d) / n
        squares += (1 - np.bincount(self.X.indices, minlength=d) / n) * mean * mean
        part = np.sqrt(squares) / np.where(mean == 0, 1, np.abs(mean))
        if not ((mean != 0) & (part < _FAR) & (part > _CONSTANT)).any():
            return None
        Z = self.take(slice(n))
        within = Z[:, :d]
        within -= mean
        within[:, np.abs(within).max(0) <= _CONSTANT * np.abs(mean)] = 0
        size = within.std(0)
        size[size == 0] = 1
        within /= size
        return Rows(Z), mean, size

    def scores(self, params: np.ndarray) -> np.ndarray:
        flat = params.reshape(-1, params.shape[-1])
        coef = flat[:, :-1] if self.intercept else flat
        X = self._long[0]
        if len(coef) == 1 and X.dtype == flat.dtype:
            start = np.full(X.shape[0], flat[0, -1]) if self.intercept else np.zeros(X.shape[0], X.dtype)
            return add_product_(X, coef[0], start).reshape(*params.shape[:-1], -1)
        found = np.ascontiguousarray((X @ coef.T).T)
        if self.intercept:
            found += flat[:, -1:]
        return found.reshape(*params.shape[:-1], -1)

    def back(self, gradient: np.ndarray) -> np.ndarray:
        flat = gradient.reshape(math.prod(gradient.shape[:-1]), gradient.shape[-1])
        found = np.zeros((len(flat), self.shape[1]), dtype=np.result_type(self.X.dtype, flat.dtype))
        d, turned = self.X.shape[1], self._long[1]
        if len(flat) == 1 and turned.dtype == flat.dtype:
            add_product_(turned, flat[0], found[0, :d])
        else:
            found[:, :d] = (turned @ flat.T).T
        if self.intercept:
            found[:, -1] = flat.sum(1)
        return found.reshape(*gradient.shape[:-1], -1)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        taken = self.X[index]
        found = np.ones((taken.shape[0], self.shape[1]))
        found[:, : self.X.shape[1]] = taken.toarray()
        return found

    def select(self, index: np.ndarray | slice) -> SparseRows:
        return SparseRows(self.X[index], self.intercept)

    def diagonal(self, factor: np.ndarray) -> np.ndarray:
        found, X = np.empty((len(factor), self.shape[1])), self.X
        squares = type(X)((X.data * X.data, X.indices, X.indptr), shape=X.shape).T
        found[:, : X.shape[1]] = (squares @ factor.T).T
        if self.intercept:
            found[:, -1] = factor.sum(1)
        return found

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Find one of each kind of equal columns of X (m,), and of which kind each column is (d,)."""
        columns = self._transposed
        columns.sort_indices()
        marks = columns @ np.random.default_rng(0).standard_normal(self.shape[0])
        _, first, kind = np.unique(marks, return_index=True, return_inverse=True)
        if (columns[first[kind]] != columns).nnz:  # two kinds with one mark, by chance
            first = kind = np.arange(len(marks))
        order = first.argsort()
        return first[order], order.argsort()[kind]

    def in_single(self) -> SparseRows:
        return SparseRows(self.X.astype(np.float32), self.intercept)

    def products_of_rows(self, factor: np.ndarray) -> np.ndarray:
        found = (self.X * factor[: self.X.shape[1]] @ self._transposed).toarray()
        return found + factor[-1] if self.intercept else found

    @property
    def n_values(self) -> int:
        return self.X.nnz + self.shape[0]

    def keeps_products(self, n_factors: int) -> bool:
        return False

    def columns(self, index: np.ndarray, part: slice) -> np.ndarray:
        of_X = index < self.X.shape[1]
        found = np.ones((len(index), len(range(*part.indices(self.shape[0])))))
        if of_X.any():
            found[of_X] = self._transposed[index[of_X], part].toarray()
        return found

    def narrow(self, index: np.ndarray) -> SparseRows:
        of_X = index[index < self.X.shape[1]]
        transposed = self._transposed[of_X]
        found = SparseRows(transposed.T, len(of_X) < len(index))
        found._transposed = transposed
        return found

    @staticmethod
    def _scaled(turned: sparse.csr_array, factor: np.ndarray) -> sparse.csr_array:
        """Multiply columns by factors of rows."""
        return sparse.csr_array((turned.data * factor[turned.indices], turned.indices, turned.indptr), turned.shape)

    def between(self, some: np.ndarray, columns: np.ndarray, factor: np.ndarray) -> np.ndarray:
        d, found = self.X.shape[1], np.empty((len(some), len(columns)))
        is_some, is_column = some < d, columns < d
        turned = self._transposed
        inner = dense_product(self._scaled(turned[some[is_some]], factor), turned[columns[is_column]].T)
        if is_some.all() and is_column.all():
            return inner
        found[np.ix_(is_some, is_column)] = inner
        sums = self.back(factor)
        found[~is_some], found[:, ~is_column] = sums[columns], sums[some][:, None]
        return found

    def gram(self, factor: np.ndarray) -> np.ndarray:
        D, found = self.shape[1], np.zeros((len(factor), self.shape[1], self.shape[1]))
        if self.n_values <= FILLED * self.shape[0] * D:
            d = self.X.shape[1]
            for own, f in zip(found, factor, strict=True):
                own[:d, :d] = dense_product(self._scaled(self._transposed, f), self.X)
                if self.intercept:
                    own[d, :d] = own[:d, d] = self._transposed @ f
                    own[d, d] = f.sum()
            return found
        step = max(1, _CHUNK_VALUES // D)
        for start in range(0, self.shape[0], step):
            part = slice(start, start + step)
            found += Rows(self.take(part)).gram(factor[:, part])
        return found


class SingleRows(SparseRows):
    """Sparse rows in single precision, whose products with many vectors at a time are a few times as fast.

    A row's are a sum of the vectors of its columns, which PyTorch adds up in registers, as it does embeddings.
    """

    def __init__(self, X: sparse.csr_array, intercept: bool):
        super().__init__(X.astype(np.float32), intercept)

    def scores(self, params: np.ndarray) -> np.ndarray:
        return _turned_back(_bagged(self._bags[0], _turned(params)), params)

    def back(self, gradient: np.ndarray) -> np.ndarray:
        return _turned_back(_bagged(self._bags[1], _turned(gradient)), gradient)

    def back_from(self, params: np.ndarray, pull: Callable[[torch.Tensor], None]) -> np.ndarray:
        """Compute the gradient at parameters by a function that turns scores (n, M) into their gradient, in place."""
        scores = _bagged(self._bags[0], _turned(params))
        pull(scores)
        return _turned_back(_bagged(self._bags[1], scores), params)

    @cached_property
    def _bags(self) -> list[tuple[torch.Tensor, ...]]:
        """Number the columns of each row, and the rows of each column, and where they begin; with the values."""
        ones = [np.ones((self.shape[0], 1), np.float32)] * self.intercept
        X = sparse.hstack([self.X, *ones], format="csr")
        both = [(A.indices, A.indptr.astype(A.indices.dtype, copy=False), A.data) for A in (X, X.T.tocsr())]
        return [tuple(map(torch.from_numpy, own)) for own in both]


def _bagged(bags: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> torch.Tensor:
    """Multiply a matrix (n, D) by vectors (D, M)."""
    numbers, starts, values = bags
    return embedding_bag(numbers, vectors, starts, mode="sum", per_sample_weights=values, include_last_offset=True)


def _turned(values: np.ndarray) -> torch.Tensor:
    """Lay values (..., D) out as (D, M)."""
    return torch.from_numpy(np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T, dtype=np.float32))


def _turned_back(values: torch.Tensor, like: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.numpy().T).reshape(*like.shape[:-1], -1)
