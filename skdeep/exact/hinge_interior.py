"""Interior point of small hinge problems: where `skdeep.exact.hinge` begins when few unknowns make each step cheap."""

from __future__ import annotations

from typing import Any

import numpy as np

from skdeep.exact.descent import summed
from skdeep.exact.hinge_terms import CrammerSinger, Hinges, WestonWatkins
from skdeep.exact.interior import Batch, Found
from skdeep.exact.kinked_rows import KinkedRows
from skdeep.exact.rivals import MAX_CLASSES, ByClass
from skdeep.exact.rows import Rows, SparseRows

#: Unknowns of a system, and rows, up to which it is cheaper than the method of multipliers; and up to which it may be,
#: where more than such a share of the rows is within the margins: those are what the other one's steps cost.
_MAX_SYSTEM, _MAX_ROWS = 256, 4096
_LARGER_SYSTEM, _MORE_ROWS, _CROWD = 1024, 16384, 0.5
#: Values up to which all terms' derivatives in the parameters are kept: products with them take one call.
_FEW_VALUES = 2**15
#: Gaps from which on ends may be clear, in units of what they are to be.
_NEAR = 100
#: Most terms of a batch of models.
_BATCH = 2**15


class _Columns:
    """Terms of columns of scores, which are systems of their own: one for each row."""

    n_scores, lean, give, creeps = 1, None, None, False

    def __init__(self, rows: Rows, against: np.ndarray):
        self.rows, self.n_terms, self._against = rows, rows.shape[0], against
        self.at_zero = self.share = np.ones((1, 1))

    def rows_of(self, system: int) -> np.ndarray | None:
        return self.rows.Z * self._against[system][:, None]

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
        return self.rows.gram(second)

    def duals(self, values: np.ndarray) -> np.ndarray:
        return values[:, None]

    def params(self, values: np.ndarray) -> np.ndarray:
        return values[:, None]


class Rivals:
    """Terms of Weston and Watkins' loss: of each row, one for each class that is not its own; rows sorted by class.

    Parameters are of scores that add up to zero if these are `centred`, else of any. Derivatives of the margins in
    them, `of_terms` (T, S D), are kept where they are few.
    """

    lean, give, creeps = None, None, False

    def __init__(self, rows: Rows, loss: WestonWatkins, centred: bool = True):
        C, n = loss.n_scores, rows.shape[0]
        self.n_terms, self._slots, self._sorted = (C - 1) * n, C - 1, ByClass(rows, loss.codes, C, centred)
        self.n_scores = self._sorted.basis.shape[1]
        self._parts = list(zip(self._sorted.classes, [part.Z for part in self._sorted.parts], strict=True))
        self.at_zero = self.share = np.ones((1, 1))
        self.of_terms = self.derivatives(np.arange(self.n_terms)) if has_few_terms(rows, loss) else None

    @property
    def magnitude(self) -> float:
        """The largest magnitude of a value of the rows."""
        return self._sorted.rows.magnitude

    def derivatives(self, index: np.ndarray) -> np.ndarray:
        """Compute the derivatives (m, S D) of some margins in the parameters."""
        row, each = index % len(self._sorted.order), np.arange(len(index))
        of_term = np.zeros((len(index), self._slots + 1))
        of_term[each, self._sorted.codes[row]] = -1
        of_term[each, self._sorted.rival.ravel()[index]] = 1
        found = (of_term @ self._sorted.basis)[:, :, None] * self._sorted.rows.take(row)[:, None]
        return found.reshape(len(index), self.n_scores * found.shape[2])

    def rows_of(self, system: int) -> np.ndarray | None:
        return self.of_terms

    def keep(self, systems: np.ndarray) -> Rivals:
        return self

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        return np.tile(values[:, self._sorted.order], self._slots)

    def changes(self, params: np.ndarray) -> np.ndarray:
        if self.of_terms is not None:
            return params @ self.of_terms.T
        K, C, S = len(params), self._slots + 1, self.n_scores
        of_rivals = (self._sorted.to_scores.T @ params.reshape(K, S, -1)).reshape(K, C, C - 1, -1)
        found = np.empty((K, C - 1, len(self._sorted.order)))
        for c, (part, Z) in enumerate(self._parts):
            np.matmul(of_rivals[:, c], Z.T, out=found[:, :, part])
        return found.reshape(K, -1)

    def back(self, slope: np.ndarray) -> np.ndarray:
        if self.of_terms is not None:
            return slope @ self.of_terms
        K, C = len(slope), self._slots + 1
        by_slot, found = slope.reshape(K, C - 1, -1), np.empty((K, C, C - 1, self._sorted.rows.shape[1]))
        for c, (part, Z) in enumerate(self._parts):
            np.matmul(by_slot[:, :, part], Z, out=found[:, c])
        return (self._sorted.to_scores @ found.reshape(K, C * (C - 1), -1)).reshape(K, -1)

    def hessians(self, second: np.ndarray) -> np.ndarray:
        return self._sorted.hessians(second.reshape(len(second), self._slots, -1))

    def duals(self, values: np.ndarray) -> np.ndarray:
        found = np.zeros((len(values), (self._slots + 1) * len(self._sorted.order)))
        found[:, self._sorted.place.ravel()] = values
        return found.reshape(len(values), self._slots + 1, -1)

    def params(self, values: np.ndarray) -> np.ndarray:
        return self._sorted.basis @ values.reshape(len(values), self.n_scores, -1)


class _Stack(Batch):
    """Systems whose ends are exact where it is clear, near them, which terms are at their kinks.

    `terms.rows_of` gives the derivatives of a system's margins in the parameters, (T, C D), where these are kept.
    """

    def run(self, max_iter: int) -> Found:
        """Step until all systems are done, or so many times."""
        self._tried: set[int] = set()  # systems that came near, which are tried once more when they are done
        return super().run(max_iter)

    def judge(self, gap: list[float], goal: list[float], is_last: bool) -> list[int]:
        """Find the systems that are done."""
        done = super().judge(gap, goal, is_last)
        near = [k for k, (own, enough) in enumerate(zip(gap, goal, strict=True)) if own <= _NEAR * enough]
        clear = [k for k in near if (k in done or self.system[k] not in self._tried) and self._settle(k)]
        self._tried.update(self.system[near].tolist())
        return sorted({*done, *clear})

    def _settle(self, k: int) -> bool:
        """Put a system where equations say that it ends, and tell whether they do."""
        of_terms = self.terms.rows_of(k)
        if of_terms is None:
            return False
        used, weight, dual = slice(None), self.weight[k], self.dual[:, k]
        margin = self.slack[1, k] - self.slack[0, k]
        if self.trained is not None:
            used = weight.nonzero()[0]
            weight, dual, margin = weight[used], dual[:, used], margin[used]
        at = np.full(len(weight), -1.0)
        problem = KinkedRows(Rows(of_terms[used]), (at, at), (0.0, 1.0), weight, self.rho[k])
        # duals at kinks are farther from their bounds than margins from zero
        kink, slope = np.minimum(dual[0], dual[1]) > np.abs(margin), (margin > 0).astype(float)
        end = problem.settle(kink, np.ones_like(kink), slope)
        if end is None:
            return False
        self.params[k], self.dual[0, k, used] = end
        return True


def has_few_terms(rows: Rows, loss: WestonWatkins) -> bool:
    """Tell whether the derivatives of all margins in the parameters are kept."""
    return loss.n_scores * (loss.n_scores - 1) * rows.n_values <= _FEW_VALUES


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
    if isinstance(loss, WestonWatkins) and loss.n_scores > MAX_CLASSES:
        return False
    (n, D), apart = rows.shape, isinstance(loss, Hinges)
    return n <= most_rows and (D if apart else D * loss.n_scores) <= most_unknowns


def approach(
    rows: Rows,
    loss: Hinges | WestonWatkins,
    weight: np.ndarray,
    rho: np.ndarray,
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
        columns, terms = 1, Rivals(rows, loss)
    else:  # as many systems as columns
        columns, terms = loss.n_scores, _Columns(rows, np.tile(-loss.sign, (K, 1)))
    found = []
    for models in np.split(np.arange(K), range(size, K, size)):
        own = (models[:, None] * columns + np.arange(columns)).ravel()
        model = own // columns
        part = terms.keep(own)
        batch = _Stack(part, part.of_rows(weight[model]), rho[model], goal[model])
        end = batch.run(max_iter)
        found.append(end._replace(params=part.params(end.params), duals=part.duals(end.duals)))
    params, duals = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:2])
    curve = [one for part in found for one in part.curve]
    curve = [summed(curve[k : k + columns]) for k in range(0, len(curve), columns)]
    return Found(params.reshape(K, -1, rows.shape[1]), duals.reshape(K, -1, n), curve)
