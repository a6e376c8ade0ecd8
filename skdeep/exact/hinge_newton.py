r"""Newton's directions of smoothed hinges, which bend where terms are free.

A free term of a row z is a direction e in its scores, and a row of ``F``, :math:`e \otimes z`, in the parameters. With
the penalty's factors R, the system is :math:`(F^T F + R)\, d = -g`. It is solved as it stands, or through
:math:`I + F R^{-1} F^T`, which is as large as there are free terms; or by conjugate gradients, if both are large.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs, spotrf, spotrs

from skdeep.exact.hinge_terms import Terms, WestonWatkins
from skdeep.exact.newton_cg import by_columns, conjugate_gradients, shift, without_shift
from skdeep.exact.rows import Rows, SparseRows

#: Largest systems, of free terms or parameters, that are solved without iterations; those from which single precision
#: is twice as fast; and those of parameters that take one call.
_DIRECT, _MANY, _FEW = 1024, 200, 64
#: Most values of rows that are made dense, and columns of the systems that precondition.
_MAX_VALUES, _MAX_COLUMNS = 2**23, 300
#: Share of the residual that conjugate gradients may leave, and most of their steps.
_INEXACT, _MAX_STEPS = 0.1, 200


class Bends(NamedTuple):
    """What the second derivative is made of."""

    free: np.ndarray  # (K, J, n); see `skdeep.exact.hinge_terms`, as for the coupling
    coupling: np.ndarray | None  # (K, n)
    scale: np.ndarray  # weights of the rows, over the width of smoothing, (K, n)
    factor: np.ndarray  # the penalty's second derivative, with some more where there is none, (K, C, D)


def directions(rows: Rows, terms: Terms, bends: Bends, gradient: np.ndarray, intercept: bool) -> np.ndarray:
    """Compute Newton's directions (K, C, D), each downhill."""
    K, C, D = gradient.shape
    step = np.empty_like(gradient)
    index = bends.free.nonzero()
    ends = index[0].searchsorted(np.arange(K + 1)).tolist()
    counts = [after - before for before, after in pairwise(ends)]
    has_pairs = type(terms) is WestonWatkins and not isinstance(rows, SparseRows) and C * D <= _DIRECT
    many = [count * rows.n_values > _MAX_VALUES * rows.shape[0] for count in counts]
    paired = [has_pairs and count > C * D and (C * D > _FEW or much) for count, much in zip(counts, many, strict=True)]
    large = [min(count, C * D) > _DIRECT or much for count, much in zip(counts, many, strict=True)]
    apart = [any(pair) for pair in zip(large, paired, strict=True)]
    if not all(apart):
        if any(apart):
            kept = ~np.array(apart)[index[0]]
            index = tuple(axis[kept] for axis in index)
            ends = index[0].searchsorted(np.arange(K + 1)).tolist()
        model, _, row = index
        E = terms.directions(bends.free, index, bends.coupling)
        E *= np.sqrt(bends.scale[model, row])[:, None]
    for k in range(K):
        if paired[k]:
            assert isinstance(terms, WestonWatkins)
            H = _of_pairs(rows, terms.codes, bends.free[k], bends.scale[k])
            step[k] = _of_hessian(H, bends.factor[k], gradient[k], intercept)
            continue
        if large[k]:
            coupling = None if bends.coupling is None else bends.coupling[k : k + 1]
            own = Bends(bends.free[k : k + 1], coupling, bends.scale[k : k + 1], bends.factor[k : k + 1])
            step[k] = _conjugate_gradients(rows, terms.select([k]), own, gradient[k], intercept)
            continue
        part = slice(ends[k], ends[k + 1])
        if counts[k] > C * D or C * D <= _FEW:
            step[k] = _primal(E[part], rows.take(row[part]), bends.factor[k], gradient[k], intercept)
        else:
            step[k] = _dual(E[part], rows.select(row[part]), bends.factor[k], gradient[k], intercept)
    return step


def _of_pairs(rows: Rows, codes: np.ndarray, free: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Add up second derivatives (C D, C D) of terms (C, n), by the pair of each: its row's class and its rival.

    Of all terms of a pair, the products of columns Q are in the blocks of both, and -Q is between them.
    """
    (C, _), D = free.shape, rows.shape[1]
    rival, row = free.nonzero()
    own = codes[row]
    pair = np.minimum(own, rival) * C + np.maximum(own, rival)
    order = pair.argsort(kind="stable")
    row, (pairs, starts) = row[order], np.unique(pair[order], return_index=True)
    root, Q = np.sqrt(scale), np.empty((len(pairs), D, D))
    for products, part in zip(Q, np.split(row, starts[1:]), strict=True):
        Z = rows.take(part) * root.take(part)[:, None]
        np.matmul(Z.T, Z, out=products)
    flat = Q.reshape(len(pairs), D * D)
    a, b = np.divmod(pairs, C)
    blocks, ends = np.zeros((C, C, D * D)), np.zeros((C, len(pairs)))
    ends[a, np.arange(len(pairs))] = ends[b, np.arange(len(pairs))] = 1
    classes = np.arange(C)
    blocks[classes, classes] = ends @ flat
    blocks[a, b] = blocks[b, a] = -flat
    return blocks.reshape(C, C, D, D).swapaxes(1, 2).reshape(C * D, C * D)


def _primal(E: np.ndarray, Z: np.ndarray, factor: np.ndarray, gradient: np.ndarray, intercept: bool) -> np.ndarray:
    """Solve a system as large as there are parameters."""
    C, D = gradient.shape
    H = np.zeros((C * D, C * D))
    size = max(1, _MAX_VALUES // (C * D))
    for start in range(0, len(E), size):
        F = (E[start : start + size, :, None] * Z[start : start + size, None]).reshape(-1, C * D)
        H += F.T @ F
    return _of_hessian(H, factor, gradient, intercept)


def _of_hessian(H: np.ndarray, factor: np.ndarray, gradient: np.ndarray, intercept: bool) -> np.ndarray:
    """Solve with the second derivatives of the hinges, which are changed."""
    C, D = gradient.shape
    if intercept and C > 1:
        shift = np.s_[D - 1 :: D]
        H[shift, shift] += _pin(H[shift, shift])
    H.reshape(-1)[:: C * D + 1] += factor.reshape(-1)
    right = gradient.reshape(-1)
    if len(H) > _MANY:
        with np.errstate(all="ignore"):
            found = _solved(H.astype(np.float32), right.astype(np.float32))
            if found is not None and _is_newtons(float(found @ right), float(found @ (H @ found))):
                return -found.reshape(C, D)
    found = _solved(H, right)
    return -gradient / (factor + 1) if found is None else -found.reshape(C, D)


def _dual(E: np.ndarray, rows: Rows, factor: np.ndarray, gradient: np.ndarray, intercept: bool) -> np.ndarray:
    """Solve a system as large as there are free terms, in single precision if these are many and it suffices."""
    if len(E) > _MANY:
        with np.errstate(all="ignore"):  # what overflows is found out
            step = _of_terms(E.astype(np.float32), rows.in_single(), factor, gradient, intercept)
            if step is not None and _is_newton(step, E, rows, factor, gradient):
                return step
    step = _of_terms(E, rows, factor, gradient, intercept)
    return -gradient / (factor + 1) if step is None else step


def _is_newton(step: np.ndarray, E: np.ndarray, rows: Rows, factor: np.ndarray, gradient: np.ndarray) -> bool:
    """Tell whether a step is about Newton's, by the free terms."""
    ahead = np.vecdot(rows.scores(step).T, E)
    return _is_newtons(-float(np.vdot(step, gradient)), float(ahead @ ahead) + float((factor * step * step).sum()))


def _is_newtons(fall: float, curvature: float) -> bool:
    """Tell whether the slope down a step is about the curvature along it, as it is along Newton's."""
    return abs(fall - curvature) <= _INEXACT * curvature < np.inf


def _of_terms(
    E: np.ndarray, rows: Rows, factor: np.ndarray, gradient: np.ndarray, intercept: bool
) -> np.ndarray | None:
    """Solve for the free terms, of which `rows` are the rows, in the precision of E; intercepts apart.

    The factors of these are tiny.
    """
    (C, D), kind = gradient.shape, E.dtype
    inverse = (1 / factor[0]).astype(kind)
    inverse[D - intercept :] = 0
    right = np.vecdot(rows.scores(gradient.astype(kind) * inverse).T, E)
    T = rows.products_of_rows(inverse)
    T *= E @ E.T
    T.reshape(-1)[:: len(T) + 1] += 1
    solution = _solved(T, np.column_stack([E, right]))
    if solution is None:
        return None
    of_shift, y = solution[:, :C], -solution[:, C]
    if intercept:
        S = (E.T @ of_shift).astype(float)
        S += _pin(S)
        S.reshape(-1)[:: C + 1] += factor[:, -1]
        shift = np.linalg.solve(S, -(E.T @ y) - gradient[:, -1])
        y = y + of_shift @ shift.astype(kind)
    step = -(gradient + rows.back((E * y[:, None]).T)) * inverse
    if intercept:
        step[:, -1] = shift
    return step


def _pin(H: np.ndarray) -> float:
    """Choose what holds the common shift of the intercepts, which may change nothing."""
    return (H.diagonal().max(initial=0) + 1e-12) / len(H)


def _solved(H: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """Solve a system, in its place; None if it is not positive definite."""
    if not len(H):
        return right
    factorise, substitute = (dpotrf, dpotrs) if H.dtype == np.float64 else (spotrf, spotrs)
    L, info = factorise(H.T, lower=1, overwrite_a=1)  # its transpose, which is the same, needs no copy
    return None if info else substitute(L, right, lower=1)[0]


def _conjugate_gradients(rows: Rows, terms: Terms, bends: Bends, gradient: np.ndarray, intercept: bool) -> np.ndarray:
    """Solve a system roughly, by products with the rows that have free terms only."""
    free, coupling, scale, factor = bends
    there = free[0].any(0).nonzero()[0]
    rows, terms, free, scale = rows.select(there), terms.of_rows(there), free[:, :, there], scale[:, there]
    coupling = None if coupling is None else coupling[:, there]
    F = free * scale[:, None]
    q = None if coupling is None else coupling[:, None]

    def product(step: np.ndarray) -> np.ndarray:
        change = terms.changes(rows.scores(step))
        if q is not None:
            change -= q * (free * change).sum(1, keepdims=True)
        change *= F
        return rows.back(terms.to_scores(change)) + factor * step

    conditioned = _preconditioner(rows, terms.second(free, coupling)[0] * scale, factor[0], intercept)
    known = shift(gradient[None], factor.mean(1, keepdims=True), intercept)
    left = np.array([_INEXACT**2])
    (step,) = known + conjugate_gradients(product, conditioned, (), without_shift(gradient[None]), left, _MAX_STEPS)
    return step if np.isfinite(step).all() else -gradient / (factor[0] + scale.sum())


def _preconditioner(
    rows: Rows, second: np.ndarray, factor: np.ndarray, intercept: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function that solves with each class's block, or with the penalty, for steps that shift no scores."""
    C, D = factor.shape
    if D > _MAX_COLUMNS:
        # free terms of texts add as many other eigenvalues as they are, fewer than there are columns
        of_rows = rows.diagonal(second)
        if isinstance(rows, SparseRows):
            of_rows[:, : D - intercept] = 0
        inverse = 1 / (factor + of_rows)[None]
        part = inverse / inverse.sum(1, keepdims=True)
        return lambda residual: by_columns(residual, inverse, part)
    blocks = np.empty((C, D, D))
    for block, bend, own in zip(blocks, second, factor, strict=True):
        there = bend.nonzero()[0]
        F = rows.take(there) * np.sqrt(bend[there])[:, None]
        H = F.T @ F
        H.reshape(-1)[:: D + 1] += own + 1e-10 * H.diagonal().max(initial=0)
        L, info = dpotrf(H, lower=1, overwrite_a=1)
        block[...] = np.diag(1 / (own + 1)) if info else dpotrs(L, np.eye(D), lower=1)[0]
    together = np.linalg.pinv(blocks.sum(0), hermitian=True)

    def of_blocks(residual: np.ndarray) -> np.ndarray:
        step = np.matmul(blocks, residual[0, :, :, None])
        return (step - blocks @ (together @ step.sum(0)) if C > 1 else step)[None, :, :, 0]

    return of_blocks
