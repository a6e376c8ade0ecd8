r"""Exact fits of linear models with an L1 norm, alone or beside a squared one: Newton's method on the support.

Model k minimises ``sum_i w_ki loss_i(s_i) + sum_cj kappa_kj |V_cj| + rho_kj V_cj^2 / 2`` over V, with scores ``s = V Z'``. Each
iteration replaces the loss by its quadratic model in the coordinates that are not zero or might not stay so, and goes to the
minimum of that with the norm as it is (`skdeep.exact.quadratic`): zeros are exact, and near the end one iteration squares the
distance. Models of a stack follow one another along the penalty, each from where its neighbour ended: few coordinates ever
enter, while a stack would compute all of them.

What ends a fit is proof: no value is less than that of a point of the dual problem, the loss's gradient after it is brought into the
dual's domain (Fenchel's inequality).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .losses import At, RowLoss
from .quadratic import Curvature, Matrix, Quadratic, minimise
from .rows import Rows

#: Coordinates at zero whose gradient is this part of what would move them are followed too.
_NEAR = 0.8
#: Curvature that is added to all coordinates, as a part of the largest: where columns repeat, no other is left.
_DAMPING = 1e-10
#: Values below this part of what no parameters have count as zero, as rounding hides how far from it they are.
_SMALLEST = 1e-9
#: Iterations, at most, for the support to come to rest when the gap is closed.
_MAX_SETTLING = 3


class Solution(NamedTuple):
    """What models were found.

    Attributes
    ----------
    params : ndarray of shape (K, C, D)
    value : ndarray of shape (K,)
        Loss and penalty.
    gap : ndarray of shape (K,)
        Most that the value can be above its minimum, as a part of it.
    curve : list of K lists of float
        Values at the start and after each iteration.
    converged : ndarray of shape (K,), of bool
        Whether the gap is as small as it was to be.
    """

    params: np.ndarray
    value: np.ndarray
    gap: np.ndarray
    curve: list[list[float]]
    converged: np.ndarray


def solve(
    rows: Rows,
    loss: RowLoss,
    weight: np.ndarray,
    kappa: np.ndarray,
    rho: np.ndarray,
    gap: float = 1e-6,
    max_iter: int = 100,
    start: np.ndarray | None = None,
) -> Solution:
    """Fit K models with L1 or elastic-net penalties.

    Parameters
    ----------
    rows : Rows of shape (n, D)
    loss : RowLoss
    weight : ndarray of shape (K, n)
        Of sum one per model.
    kappa, rho : ndarrays of shape (K, D)
        Slopes and curvatures of the penalties, which are both zero for the intercept, and nowhere else.
    gap : float
        Relative duality gap.
    max_iter : int
    start : ndarray of shape (K, C, D), optional
    """
    K, C, D = len(weight), loss.n_scores, rows.shape[1]
    params = np.zeros((K, C, D))
    value, reached, curve = np.zeros(K), np.zeros(K), [[] for _ in range(K)]
    for k, neighbour in _along(weight, kappa + rho):
        problem = _Problem(rows, loss, weight[k], kappa[k], rho[k], gap)
        begin = params[neighbour] if start is None else start[k]
        params[k], reached[k], curve[k] = problem.solve(begin.ravel(), max_iter)
        value[k] = curve[k][-1]
    return Solution(params, value, reached, curve, reached <= gap)


def _along(weight: np.ndarray, penalty: np.ndarray) -> Iterator[tuple[int, int]]:
    """Order models: of the same rows, by falling penalty; with each, the one to start from, itself if none is before."""
    groups: dict[bytes, list[int]] = {}
    for k in np.argsort(-penalty.sum(1), kind="stable"):
        groups.setdefault(weight[k].tobytes(), []).append(int(k))
    first: int | None = None
    for models in groups.values():
        before = models[0] if first is None else first
        for k in models:
            yield k, before
            before = k
        first = models[0]


class _State(NamedTuple):
    """Where a fit is."""

    x: np.ndarray
    scores: np.ndarray
    at: At
    value: float


class _Problem:
    """One model's problem, of coordinates x = V.ravel()."""

    def __init__(self, rows: Rows, loss: RowLoss, weight: np.ndarray, kappa: np.ndarray, rho: np.ndarray, gap: float):
        self.rows, self.loss, self.weight, self.gap = rows, loss, weight, gap
        self.shape = loss.n_scores, len(kappa)
        self.kappa, self.rho = np.tile(kappa, loss.n_scores), np.tile(rho, loss.n_scores)
        self.is_free = (self.kappa == 0) & (self.rho == 0)
        self._is_free_column = self.is_free[: len(kappa)]
        self.is_ridged = self.rho > 0
        C, D = self.shape
        # A common shift of a column's coefficients changes only the norm, which is least where their median is zero.
        is_shifted = (
            np.tile((kappa > 0) & (rho == 0), C) if loss.shift_invariant and C > 1 else np.zeros(C * D, dtype=bool)
        )
        self._family = np.where(is_shifted, np.tile(np.arange(D), C), -1) if is_shifted.any() else None
        if not loss.separable:
            self._of_pair = np.zeros((C, C), dtype=int)
            i, j = np.tril_indices(C)
            self._of_pair[i, j] = self._of_pair[j, i] = np.arange(len(i))

    def solve(self, x: np.ndarray, max_iter: int) -> tuple[np.ndarray, float, list[float]]:
        """Find coordinates, the gap they have and the values on the way."""
        state = self._at(np.zeros_like(x))
        self.smallest = _SMALLEST * state.value
        if x.any():
            begin = self._at(self._shifted(x))
            state = begin if begin.value < state.value else state
        curve, bound, settling = [state.value], -np.inf, 0
        gradient, damping = self._gradient(state), _DAMPING
        rest = not ((np.abs(gradient) > self.kappa)[state.x == 0]).any() and not state.x.any()
        if rest or not max_iter:
            bound = self._bound(state, gradient)
        for _ in range(max_iter):
            if self._relative(state.value, bound) <= self.gap and (rest or settling > _MAX_SETTLING):
                break
            settling += self._relative(state.value, bound) <= self.gap
            step, slope = self._step(state, gradient, damping)
            if slope < 0:
                found, length = self._search(state, step, slope)
            if not slope < 0 or found is None:
                if damping > 1e-3:
                    break
                damping *= 1e3
                continue
            rest = length == 1 and np.array_equal(np.sign(found.x), np.sign(state.x))
            damping = max(_DAMPING, damping / 1e3)
            state, gradient = found, self._gradient(found)
            curve.append(state.value)
            if -slope <= 100 * self.gap * (state.value + self.smallest) or len(curve) > max_iter:
                bound = max(bound, self._bound(state, gradient))
        bound = max(bound, self._bound(state, gradient))
        params = state.x.reshape(self.shape)
        if self.loss.shift_invariant:
            # Of all intercepts with the same loss, those of least norm.
            params[:, self._is_free_column] -= params[:, self._is_free_column].mean(0)
        return params, self._relative(state.value, bound), curve

    def _shifted(self, x: np.ndarray) -> np.ndarray:
        """Shift coefficients so that no column's are all other than zero without need."""
        if self._family is None:
            return x
        params = x.reshape(self.shape)
        median = np.sort(params, axis=0)[(self.shape[0] - 1) // 2]
        median[(params == 0).any(0) | (self._family[: self.shape[1]] < 0)] = 0
        return (params - median).ravel()

    def _relative(self, value: float, bound: float) -> float:
        return max(value - bound, 0.0) / max(value, self.smallest)

    def _penalty(self, x: np.ndarray) -> float:
        return self.kappa @ np.abs(x) + self.rho @ (x * x) / 2

    def _at(self, x: np.ndarray) -> _State:
        return self._with(x, self.rows.scores(x.reshape(1, *self.shape)))

    def _with(self, x: np.ndarray, scores: np.ndarray) -> _State:
        at = self.loss.at(scores)
        return _State(x, scores, at, float(at.value[0] @ self.weight + self._penalty(x)))

    def _gradient(self, state: _State) -> np.ndarray:
        """Compute the gradient of all but the L1 norm."""
        return self.rows.back(state.at.gradient * self.weight).ravel() + self.rho * state.x

    def _bound(self, state: _State, gradient: np.ndarray) -> float:
        """Compute a value that no parameters have less than."""
        dual, slope = state.at.gradient, gradient - self.rho * state.x
        if self.is_free.any():
            dual = self.loss.balanced(dual, self.weight[None])
            slope = self.rows.back(dual * self.weight).ravel()
        slope = np.abs(slope)
        # Only the column of ones is free; what is left there is rounding, or else only zero is known to be feasible.
        rounding = 1e-12 * float((np.abs(dual) @ self.weight).sum())
        strict = ~self.is_ridged & ~self.is_free
        longest = 1.0
        if (slope[self.is_free] > rounding).any():
            longest = 0.0
        over = slope > self.kappa
        over_strict = over & strict
        if over_strict.any():
            longest = min(longest, float((self.kappa[over_strict] / slope[over_strict]).min()))
        found = -np.inf
        ridged = over & self.is_ridged
        ratio = float((self.kappa[ridged] / slope[ridged]).min()) if ridged.any() else 1.0
        for length in {longest, min(longest, ratio)}:
            excess = np.maximum(length * slope[ridged] - self.kappa[ridged], 0)
            conjugate = self.loss.conjugate(length * dual)[0] @ self.weight
            found = max(found, float(-conjugate - (excess * excess / self.rho[ridged]).sum() / 2))
        return found

    def _step(self, state: _State, gradient: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
        """Find the step to the minimum of the quadratic model, and the slope towards it."""
        size = np.abs(gradient)
        followed = np.flatnonzero((state.x != 0) | (size > _NEAR * self.kappa))
        x, kappa = state.x[followed], self.kappa[followed]
        slope = gradient[followed]
        violation = np.where(x != 0, np.abs(slope + kappa * np.sign(x)), np.maximum(np.abs(slope) - kappa, 0))
        tol = 1e-3 * violation.max(initial=0)
        curvature = self._curvature(state, followed, damping)
        family = self._family[followed] if self._family is not None else None
        end = minimise(Quadratic(curvature, slope, x, kappa, tol, family, self.shape[0]))
        step = np.zeros_like(state.x)
        step[followed] = end - x
        return step, float(slope @ (end - x) + kappa @ (np.abs(end) - np.abs(x)))

    def _curvature(self, state: _State, index: np.ndarray, damping: float) -> Curvature:
        """Compute the second derivatives of some coordinates."""
        of_class, column = np.divmod(index, self.shape[1])
        second = self.loss.second(state.scores, state.at)[0] * self.weight
        Z = self.rows.columns(column)
        if self.shape[0] == 1:
            found = (Z * second) @ Z.T
        else:
            found = np.zeros((len(index), len(index)))
            bounds = np.searchsorted(of_class, np.arange(self.shape[0] + 1))
            for c, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
                if self.loss.separable:
                    found[begin:end, begin:end] = (Z[begin:end] * second[c]) @ Z[begin:end].T
                elif begin < end:
                    block = Z[begin:end] @ (second[self._of_pair[c, of_class[:end]]] * Z[:end]).T
                    found[begin:end, :end] = block
                    found[:end, begin:end] = block.T
        diagonal = found.reshape(-1)[:: len(index) + 1]
        diagonal += self.rho[index]
        diagonal += damping * diagonal.max(initial=0) + 1e-300
        return Matrix(found)

    def _search(self, state: _State, step: np.ndarray, slope: float) -> tuple[_State | None, float]:
        """Take the step, or as much of it as lowers the value enough."""
        towards = self.rows.scores(step.reshape(1, *self.shape))
        length = 1.0
        for _ in range(30):
            found = self._with(state.x + length * step, state.scores + length * towards)
            if found.value <= state.value + 1e-4 * length * slope + 4e-16 * state.value:
                return found, length
            length /= 2
        return None, length
