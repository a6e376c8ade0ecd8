"""Hinges of many systems, for losses of values with kinks: one of each row and bound, or of the bound that counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skdeep.exact.rows import Rows

#: The sign of scores that margins grow with.
_PLAIN = 1.0


class Bounded(Rows):
    """Terms (m n, D) of n rows, less the row's bound, which is a parameter more of each; and a term of each bound."""

    def __init__(self, Z: np.ndarray, n: int, squared: bool = False):
        self.n, self.squared = n, squared
        of_terms = np.tile(-np.eye(n), (len(Z) // n, 1))
        super().__init__(np.block([[Z, of_terms], [np.zeros((n, Z.shape[1])), np.eye(n)]]))

    def settle_(self, params: np.ndarray, dual: np.ndarray, at_zero: np.ndarray) -> None:
        """Make bounds the largest of their margins, or zero, and their duals the sums of theirs, in place.

        Bounds that are squared have a ridge, and no duals.
        """
        n, n_terms = self.n, self.shape[0] - self.n
        params[:, -n:] = 0
        margin = (self.scores(params) + at_zero[:, : n_terms + n])[:, :n_terms].reshape(len(params), -1, n)
        params[:, -n:] = np.maximum(margin.max(1), 0)
        if self.squared:
            return
        each = np.clip(dual[:, :n_terms], 0, 1).reshape(len(params), -1, n)
        together = each.sum(1)
        dual[:, :n_terms] = (each / np.maximum(together, 1)[:, None]).reshape(len(params), -1)
        dual[:, n_terms : n_terms + n] = np.minimum(together, 1)


@dataclass
class Terms:
    """The hinges of S systems, T of each: of all rows, on one side or both, and of coefficients with an L1 norm."""

    rows: Rows
    #: Of the scores in the margins: for each side, all rows; or of each row the side that it is on, (S, n).
    signs: tuple[float | np.ndarray, ...]
    at_zero: np.ndarray  # margins where all parameters are zero, (S, T)
    weight: np.ndarray  # (S, T)
    lean: np.ndarray | None  # what falls with the margins, so much per margin, (S, T)
    share: np.ndarray  # of complementarity: the same for all rows in the end, whatever their weights, (S, T)
    give: np.ndarray | None  # width of the kinks, (S, T)
    has_norm: bool  # whether each column of the rows has a last term, whose margin is its coefficient
    creeps: bool = False  # whether steps of an interior point are short: of hinges of one side, beside an L1 norm

    n_scores = 1

    @property
    def n_of_rows(self) -> int:
        """Count the terms of rows."""
        return len(self.signs) * self.rows.shape[0]

    def keep(self, systems: np.ndarray) -> Terms:
        """Take some of the systems."""
        lean, give = (None if part is None else part[systems] for part in (self.lean, self.give))
        at_zero, weight, share = self.at_zero[systems], self.weight[systems], self.share[systems]
        signs = tuple(sign[systems] if isinstance(sign, np.ndarray) else sign for sign in self.signs)
        return Terms(self.rows, signs, at_zero, weight, lean, share, give, self.has_norm, self.creeps)

    def in_unit(self, unit: np.ndarray) -> Terms:
        """Count scores in units (S, 1)."""
        return replace(self, at_zero=self.at_zero / unit, give=None if self.give is None else self.give / unit)

    def beside(self, params: np.ndarray) -> Terms:
        """Leave out, of two sides of each row, the one where it is not, by parameters (S, D)."""
        n = self.rows.shape[0]
        above = self.rows.scores(params) > 0.5 * (self.at_zero[:, n : 2 * n] - self.at_zero[:, :n])
        kept = [np.where(above, of[:, :n], of[:, n : 2 * n]) for of in (self.at_zero, self.weight, self.share)]
        if self.has_norm:
            each = zip(kept, (self.at_zero, self.weight, self.share), strict=True)
            kept = [np.concatenate([part, of[:, 2 * n :]], axis=1) for part, of in each]
        lean = self.lean
        if lean is not None:  # the norm's
            lean = np.concatenate([np.where(above, lean[:, :n], lean[:, n : 2 * n]), lean[:, 2 * n :]], axis=1)
        at_zero, weight, share = kept
        return replace(
            self, signs=(np.where(above, 1.0, -1.0),), at_zero=at_zero, weight=weight, lean=lean, share=share
        )

    def changes(self, params: np.ndarray) -> np.ndarray:
        """Compute how margins (S, T) change with parameters (S, D)."""
        scores = self.rows.scores(params)
        parts = [scores if sign is _PLAIN else sign * scores for sign in self.signs]
        if self.has_norm:
            parts.append(params)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def of_scores(self, slope: np.ndarray) -> np.ndarray:
        """Compute slopes (S, n) in the scores from slopes (S, T) in the margins."""
        n = self.rows.shape[0]
        if len(self.signs) == 2:
            return slope[:, :n] - slope[:, n : 2 * n]
        sign = self.signs[0]
        return slope[:, :n] if sign is _PLAIN else sign * slope[:, :n]

    def back(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the parameters (S, D) from a weighted one in the margins (S, T)."""
        found = self.rows.back(self.of_scores(slope))
        if self.has_norm:
            found += slope[:, self.n_of_rows :]
        return found

    def hessians(self, second: np.ndarray) -> np.ndarray:
        """Compute second derivatives (S, D, D) in the parameters from weighted ones in the margins (S, T)."""
        n, D = self.rows.shape
        found = self.rows.gram(second[:, :n] if len(self.signs) == 1 else second[:, :n] + second[:, n : 2 * n])
        if self.has_norm:
            found.reshape(len(found), -1)[:, :: D + 1] += second[:, self.n_of_rows :]
        return found

    def loss(self, margin: np.ndarray) -> np.ndarray:
        """Compute the objective's part without a ridge, (S,)."""
        if self.give is not None:
            given, margin = self.given(margin)
        found = np.vecdot(np.maximum(margin, 0), self.weight)
        found = found if self.lean is None else found - np.vecdot(margin, self.lean)
        return found if self.give is None else found + 0.5 * np.vecdot(self.weight * self.give, given * given)

    def given(self, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute which part of the width margins give way by, and what is left of them."""
        assert self.give is not None
        given = np.clip(margin, -0.5 * self.give, 0.5 * self.give)
        return np.divide(given, self.give, out=np.zeros_like(given), where=self.give > 0), margin - given


def terms_of(
    rows: Rows,
    lo: np.ndarray,
    hi: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    weight: np.ndarray,
    kappa: np.ndarray,
    width: float,
) -> Terms:
    """State losses of S systems as hinges: of all rows both sides, or where bounds meet, one side and a slope."""
    if np.array_equal(lo, hi):
        signs: tuple[float, ...] = (_PLAIN,)
        parts = [(-hi, weight * (up + down), weight * up)]
    else:
        signs, none = (_PLAIN, -_PLAIN), np.zeros_like(weight)
        parts = [(-hi, weight * down, none), (lo, weight * up, none)]
    if has_norm := bool(kappa.any()):
        parts.append((np.zeros_like(kappa), 2 * kappa, kappa))
    at_zero, of_terms, lean = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    each = np.concatenate([weight] * len(signs) + [kappa / (up + down)] * has_norm, axis=1)
    share = np.divide(weight.mean(1, keepdims=True), each, out=np.ones_like(each), where=each > 0)
    give = np.where(np.arange(each.shape[1]) < weight.shape[1], width, np.zeros_like(each)) if width else None
    creeps = has_norm and len(signs) == 1 and not up.any()
    return Terms(rows, signs, at_zero, of_terms, lean if lean.any() else None, share, give, has_norm, creeps)


def above_by_parameters(
    slope: np.ndarray,
    params: np.ndarray,
    rho: np.ndarray,
    norm: np.ndarray | None = None,
    value: Any = None,
    far: Any = 1.0,
) -> np.ndarray:
    """Compute what parameters (..., D) add to a duality gap, by slopes of the loss in them, and their penalties.

    No optimum's L1 norm is larger than an objective's `value` (..., 1) allows, all coefficients together; where there
    is none, how far they are is as good as known by this one, or by the size of errors; or it is `far` (..., 1).
    """
    farthest = np.maximum(2 * np.abs(params).max(-1, keepdims=True), far)
    ridged = rho > 0
    divisor = np.where(ridged, rho, 1.0)
    if norm is None:
        pulled = slope + rho * params
        return np.where(ridged, 0.5 * pulled * (pulled / divisor), farthest * np.abs(pulled)).sum(-1)
    beyond, held = np.maximum(np.abs(slope) - norm, 0), norm > 0
    of_ridge = 0.5 * (rho * params**2 + beyond**2 / divisor)
    each = slope * params + norm * np.abs(params) + np.where(ridged, of_ridge, 0)
    found = np.where(ridged | held, each, beyond * farthest).sum(-1)
    of_norm = np.divide(beyond, norm, out=np.zeros_like(beyond), where=held & ~ridged)
    return found + value[..., 0] * of_norm.max(-1)
