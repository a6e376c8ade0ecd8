r"""Losses of all rows, as functions of their scores ``(K, C, n)``: values, gradients and second derivatives.

The mathematics are said in `skdeep.engine.losses`, where the same losses are for torch and mini-batches.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.special import xlogy

from skdeep.exact.rows import of_both, pairs

#: Steps lead to margins that are zero up to rounding, which must not decide on which side of a kink the next one is.
KINK = 1.5e-8
#: Probability below which single precision need not tell them apart.
_LEAST = np.float32(1e-30)


class At(NamedTuple):
    """A loss at some scores."""

    value: np.ndarray  # (K, n)
    gradient: np.ndarray  # (K, C, n)


def summed(of_each: np.ndarray) -> np.ndarray:
    """Add up the losses (K, C, n) of each row, (K, n)."""
    return of_each[:, 0] if of_each.shape[1] == 1 else of_each.sum(1)


class RowLoss:
    """Base of the losses of a problem's rows."""

    n_scores: int  # C
    separable = True  # whether no second derivative couples two scores
    shift_invariant = False  # whether a common shift of all scores of a row changes nothing
    #: Whether the second derivative jumps, and is zero or constant between: a Newton step may be cut short by a kink.
    piecewise = False

    def at(self, scores: np.ndarray) -> At:
        """Compute values and gradients."""
        raise NotImplementedError

    def gradient(self, scores: np.ndarray) -> np.ndarray:
        """Compute gradients (K, C, n) alone."""
        return self.at(scores).gradient

    @property
    def unit(self) -> float:
        """Size of the scores that the second derivatives say something of."""
        return 1.0

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        """Compute second derivatives, at scores where the value is known.

        (K, C, n), each score's own, if the loss is `separable`, else (K, P, n) of the P `pairs` of scores.
        """
        raise NotImplementedError

    def diagonal(self, scores: np.ndarray, at: At) -> np.ndarray:
        """Compute the second derivative of each score, (K, C, n)."""
        return self.second(scores, at)

    def times_second(self, scores: np.ndarray, at: At, direction: np.ndarray) -> np.ndarray:
        """Multiply the second derivatives by a direction of the scores (K, C, n)."""
        return self.second(scores, at) * direction

    def one(self, c: int) -> RowLoss:
        """Take the part of one score, of losses that are sums of such (`separable`)."""
        raise NotImplementedError

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        """Compute the convex conjugate, (K, n), of points (K, C, n) in its domain, as gradients are.

        The domain is convex and has zero in it.
        """
        raise NotImplementedError

    def balanced(self, dual: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Find a point near one of the conjugate's domain, in it, whose sums weighted by (K, n) are zero.

        At gradients, these are the gradient in the intercepts, so that nothing changes at their optimum. Of each
        score, what pulls it to the heavier side is made smaller.
        """
        up, down = np.maximum(dual, 0), np.minimum(dual, 0)
        of_up, of_down = np.einsum("kcn,kn->kc", up, weight), -np.einsum("kcn,kn->kc", down, weight)
        less = np.minimum(of_up, of_down)
        up *= (less / np.where(of_up > 0, of_up, 1))[:, :, None]
        down *= (less / np.where(of_down > 0, of_down, 1))[:, :, None]
        return up + down

    def keep(self, models: np.ndarray) -> RowLoss:
        """Make the loss of some of the models."""
        return self


class OfColumns(RowLoss):
    """Base of the losses that are a sum over columns of scores: as many problems, which know nothing of each other.

    Targets (C, n), or each model's own (K, 1, n), are what scores, or their probabilities, are to be.
    """

    def __init__(self, target: np.ndarray, *settings: float):
        self.target, self.n_scores, self._settings = target, target.shape[-2], settings

    def of(self, target: np.ndarray) -> Self:
        """Make the same loss of other targets."""
        return type(self)(target, *self._settings)

    def apart(self, n_models: int) -> Self:
        """Make the loss of models of one column each: for each of some models, one after the other, all columns."""
        return self.of(np.tile(self.target, (n_models, 1))[:, None])

    def one(self, c: int) -> Self:
        """Make the loss of one column."""
        return self.of(self.target[c : c + 1])

    def keep(self, models: np.ndarray) -> RowLoss:
        return self if self.target.ndim == 2 else self.of(self.target[models])


class OfResiduals(OfColumns):
    """Base of the losses of differences between scores and targets."""

    @property
    def unit(self) -> float:
        return max(1.0, float(np.abs(self.target).max(initial=0.0)))


class SoftmaxLoss(RowLoss):
    """Cross-entropy of a softmax, of codes (n,), with label smoothing."""

    separable = False
    shift_invariant = True

    def __init__(self, codes: np.ndarray, n_scores: int, smoothing: float = 0.0):
        self.codes, self.n_scores = codes, n_scores
        self._each = np.arange(len(codes))
        self.target = np.full((n_scores, len(codes)), smoothing / n_scores)
        self.target[codes, self._each] += 1 - smoothing
        self._smoothing = smoothing
        self._own = codes * len(codes) + self._each
        self._same = np.equal(*pairs(n_scores)).astype(float)[:, None]

    def at(self, scores: np.ndarray) -> At:
        shifted = scores - scores.max(1, keepdims=True)
        if self._smoothing:
            of_target = np.einsum("kcn,cn->kn", shifted, self.target)
        else:
            of_target = shifted.reshape(len(shifted), -1).take(self._own, axis=1)
        p = np.exp(shifted, out=shifted)
        total = p.sum(1, keepdims=True)
        p /= total
        p -= self.target
        return At(np.log(total[:, 0]) - of_target, p)

    def gradient(self, scores: np.ndarray) -> np.ndarray:
        p = torch.softmax(torch.from_numpy(scores), 1).numpy()
        if p.dtype == np.float32:  # subnormal numbers would make products with them five times as slow
            np.maximum(p, _LEAST, out=p)
        p -= self.target
        return p

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        p = at.gradient + self.target
        i, j = pairs(self.n_scores)
        found = self._same - p.take(j, axis=1)
        found *= p.take(i, axis=1)
        return found

    def diagonal(self, scores: np.ndarray, at: At) -> np.ndarray:
        p = at.gradient + self.target
        return p * (1 - p)

    def times_second(self, scores: np.ndarray, at: At, direction: np.ndarray) -> np.ndarray:
        p = at.gradient + self.target
        return p * (direction - (p * direction).sum(1, keepdims=True))

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        p = np.maximum(dual + self.target, 0)
        return xlogy(p, p).sum(1)

    def balanced(self, dual: np.ndarray, weight: np.ndarray) -> np.ndarray:
        # Probability moves, in each row by the same rule, from classes with too much to those with too little.
        p = np.maximum(dual + self.target, 0)
        excess = np.einsum("kcn,kn->kc", dual, weight)
        total = np.einsum("kcn,kn->kc", p, weight)
        p *= (np.maximum(excess, 0) / np.where(total > 0, total, 1))[:, :, None]
        missing = np.maximum(-excess, 0)
        missing /= np.maximum(missing.sum(1, keepdims=True), np.finfo(float).tiny)
        return dual - p + missing[:, :, None] * p.sum(1, keepdims=True)


class LogisticLoss(OfColumns):
    """Cross-entropies of sigmoids, of probabilities (C, n): indicators, or smoothed ones."""

    def at(self, scores: np.ndarray) -> At:
        small = np.exp(-np.abs(scores))
        value = np.log1p(small)
        value += np.maximum(scores, 0)
        value -= scores * self.target
        p = np.where(scores >= 0, 1.0, small)
        small += 1
        p /= small
        p -= self.target
        return At(summed(value), p)

    def gradient(self, scores: np.ndarray) -> np.ndarray:
        p = np.negative(scores)
        with np.errstate(over="ignore"):  # probabilities of zero
            np.exp(p, out=p)
        p += 1
        np.divide(1, p, out=p)
        p -= self.target
        return p

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        p = at.gradient + self.target
        return p * (1 - p)

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        p = np.clip(dual + self.target, 0, 1)
        return (xlogy(p, p) + xlogy(1 - p, 1 - p)).sum(1)


class SquaredLoss(OfResiduals):
    """Half the squared distance from targets (C, n)."""

    def at(self, scores: np.ndarray) -> At:
        residual = scores - self.target
        return At(0.5 * summed(np.square(residual)), residual)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        return np.ones_like(scores)

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        return (dual * (dual / 2 + self.target)).sum(1)


class SquaredHinges(OfColumns):
    """Squared hinges, one per column, of signs (C, n)."""

    piecewise = True

    def __init__(self, target: np.ndarray):
        super().__init__(target)
        self._steepest = -2 * target

    def at(self, scores: np.ndarray) -> At:
        violation = self.target * scores
        np.subtract(1.0, violation, out=violation)
        np.maximum(violation, 0.0, out=violation)
        gradient = violation * self._steepest
        violation *= violation
        return At(summed(violation), gradient)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        return 2.0 * (self.target * scores < 1 + KINK)

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        return (dual * (dual / 4 + self.target)).sum(1)


class SquaredWestonWatkins(RowLoss):
    """Sum of the squared margin violations of all rivals, of codes (n,)."""

    separable = False
    shift_invariant = True
    piecewise = True

    def __init__(self, codes: np.ndarray, n_scores: int):
        self.codes, self.n_scores = codes, n_scores
        self._each = np.arange(len(codes))

    def at(self, scores: np.ndarray) -> At:
        violation = scores - (scores[:, self.codes, self._each] - 1)[:, None]
        violation[:, self.codes, self._each] = 0
        np.maximum(violation, 0, out=violation)
        value = np.einsum("kcn,kcn->kn", violation, violation)
        violation *= 2
        violation[:, self.codes, self._each] = -violation.sum(1)
        return At(value, violation)

    def second(self, scores: np.ndarray, at: At) -> np.ndarray:
        active = 2.0 * self.is_within(scores)
        i, j = pairs(self.n_scores)
        found = np.zeros((len(active), len(i), len(self.codes)))
        found[:, i == j] = self.in_each(active)
        of_pair = of_both(self.n_scores).reshape(self.n_scores, -1)
        for c in range(self.n_scores):
            rival = np.flatnonzero(self.codes != c)
            found[:, of_pair[c, self.codes[rival]], rival] -= active[:, c, rival]
        return found

    def diagonal(self, scores: np.ndarray, at: At) -> np.ndarray:
        return self.in_each(2.0 * self.is_within(scores))

    def times_second(self, scores: np.ndarray, at: At, direction: np.ndarray) -> np.ndarray:
        return self.times_active(2.0 * self.is_within(scores), direction)

    def times_active(self, active: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Multiply directions (K, C, n) with second derivatives, which are `active` (K, C, n) for each rival."""
        found = active * (direction - direction[:, self.codes, self._each][:, None])
        found[:, self.codes, self._each] = -found.sum(1)
        return found

    def conjugate(self, dual: np.ndarray) -> np.ndarray:
        rivals = dual.copy()
        rivals[:, self.codes, self._each] = 0
        return (rivals * (rivals / 4 - 1)).sum(1)

    def balanced(self, dual: np.ndarray, weight: np.ndarray) -> np.ndarray:
        # The domain is a cone: what pulls a class up too much is answered by more that pulls its own rows down. A class
        # that has no row with weight can have nothing to pull it up.
        found, own = dual.copy(), np.equal.outer(np.arange(self.n_scores), self.codes)
        of_class = weight @ own.T
        found[(of_class == 0)[:, :, None] & ~own & (weight > 0)[:, None]] = 0
        found[:, self.codes, self._each] = 0
        found[:, self.codes, self._each] = -found.sum(1)
        excess = np.einsum("kcn,kn->kc", found, weight)
        more = np.maximum(excess, 0) / np.where(of_class > 0, of_class, 1)
        missing = np.maximum(-excess, 0)
        missing /= np.maximum(missing.sum(1, keepdims=True), np.finfo(float).tiny)
        more = more[:, self.codes][:, None]
        return found + more * (missing[:, :, None] - own)

    def is_within(self, scores: np.ndarray) -> np.ndarray:
        """Tell which rivals are within their margins, (K, C, n)."""
        found = scores > (scores[:, self.codes, self._each] - 1 - KINK)[:, None]
        found[:, self.codes, self._each] = False
        return found

    def in_each(self, active: np.ndarray) -> np.ndarray:
        """Compute second derivatives in each score, which are `active` (K, C, n) for each rival."""
        own = active.copy()
        own[:, self.codes, self._each] = active.sum(1)
        return own
