r"""Hinges as maxima over dual variables: what an exact solver has to know of them.

A row has terms with margins m, linear in its scores: :math:`1 - t s` of one score, or :math:`1 + s_j - s_y` of each
rival j. Its loss is :math:`\max_a \langle a, m\rangle - c(a)` over a set of duals a, which are the terms' slopes:

- a box, :math:`0 \le a \le 1`: the sum of the positive margins (`OneScore`, `WestonWatkins`);
- a simplex with its inside, :math:`a \ge 0, \sum a \le 1`: the largest of them (`CrammerSinger`);
- :math:`a \ge 0` with :math:`c(a) = (\sum a)^2 / 4`: its square.

Margins, duals and all that is made of them are ``(K, J, n)``: of models, terms and rows. The term of a row's own class is
there, but can never be positive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: The margin of a row's own class.
_NEVER = -1e100


class Smoothed(NamedTuple):
    r"""Slopes of smoothed losses, :math:`\arg\max_n \langle n, m\rangle - c(n) - \tfrac\delta2 \|n - a\|^2`.

    Attributes
    ----------
    slope : ndarray of shape (K, J, n)
    free : ndarray of shape (K, J, n) of bool
        Terms whose slope changes with the margins.
    coupling : ndarray of shape (K, n) or None
        A row's slopes change by :math:`(I - q 1 1^T) \dot m / \delta`, over its free terms; None where q is zero.
    """

    slope: np.ndarray
    free: np.ndarray
    coupling: np.ndarray | None


class OneScore:
    """Hinge of one score: a model is one column of a one-vs-rest scheme.

    Parameters
    ----------
    sign : ndarray of shape (K, 1, n)
        1 and -1.
    """

    n_scores = 1

    def __init__(self, sign: np.ndarray):
        self.sign = sign

    def select(self, models: np.ndarray) -> OneScore:
        """Take some of the models."""
        return OneScore(self.sign[models])

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """Compute margins of scores."""
        return 1 + self.changes(scores)

    def changes(self, scores: np.ndarray) -> np.ndarray:
        """Compute how margins change as scores do."""
        return -self.sign * scores

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the scores from one in the margins."""
        return -self.sign * slope

    def loss(self, margin: np.ndarray) -> np.ndarray:
        """Compute the loss of each row."""
        return np.maximum(margin, 0).sum(1)

    def conjugate(self, slope: np.ndarray) -> np.ndarray | None:
        """Compute c of each row; None where it is zero."""
        return None

    def project(self, point: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Compute the slopes of the smoothed losses, in the place of ``a + m / delta``."""
        return np.clip(point, 0, 1, out=point)

    def smoothed(self, point: np.ndarray, delta: np.ndarray) -> Smoothed:
        """Compute the slopes of the smoothed losses, and how they change, in the place of ``a + m / delta``."""
        slope = self.project(point, delta)
        return Smoothed(slope, (slope > 0) & (slope < 1), None)

    def directions(self, free: np.ndarray, index: tuple[np.ndarray, ...], coupling: np.ndarray | None) -> np.ndarray:
        """Compute the rows E (r, C) of which, for free terms, ``E.T @ E`` is the second derivative in a row's scores."""
        model, _, row = index
        return -self.sign[model, 0, row][:, None]

    def balanced(self, slope: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Reduce slopes, so that the gradient in the intercepts is zero."""
        mass = slope[:, 0] * weight
        up = np.vecdot(mass, self.sign[:, 0] > 0)
        down = np.vecdot(mass, self.sign[:, 0] < 0)
        least = np.minimum(up, down)
        of_up, of_down = (np.divide(least, side, out=np.zeros_like(least), where=side > 0) for side in (up, down))
        return slope * np.where(self.sign > 0, of_up[:, None, None], of_down[:, None, None])


class Hinges:
    """Hinges of indicators (C, n), one per column: columns are models of their own."""

    def __init__(self, target: np.ndarray):
        self.n_scores, self.sign = len(target), 2.0 * target - 1

    def select_rows(self, index: np.ndarray) -> Hinges:
        """Take some rows."""
        return Hinges((self.sign[:, index] + 1) / 2)

    def columns(self, n_models: int) -> OneScore:
        """Make a model of each model's each column."""
        return OneScore(np.tile(self.sign, (n_models, 1))[:, None])


class WestonWatkins:
    """Sum of the margin violations of all rivals, of codes (n,)."""

    def __init__(self, codes: np.ndarray, n_scores: int):
        self.codes, self.n_scores = codes, n_scores
        self._own = codes * len(codes) + np.arange(len(codes))

    def select_rows(self, index: np.ndarray) -> WestonWatkins:
        """Take some rows."""
        return type(self)(self.codes[index], self.n_scores)

    def select(self, models: np.ndarray) -> WestonWatkins:
        return self

    def margins(self, scores: np.ndarray) -> np.ndarray:
        found = self.changes(scores)
        found += 1
        self._flat(found)[:, self._own] = _NEVER
        return found

    def changes(self, scores: np.ndarray) -> np.ndarray:
        return scores - self._flat(scores).take(self._own, axis=1)[:, None]

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        found = slope.copy()
        self._flat(found)[:, self._own] = -slope.sum(1)
        return found

    def loss(self, margin: np.ndarray) -> np.ndarray:
        return np.maximum(margin, 0).sum(1)

    def conjugate(self, slope: np.ndarray) -> np.ndarray | None:
        return None

    def project(self, point: np.ndarray, delta: np.ndarray) -> np.ndarray:
        return np.clip(point, 0, 1, out=point)

    def smoothed(self, point: np.ndarray, delta: np.ndarray) -> Smoothed:
        slope = self.project(point, delta)
        return Smoothed(slope, (slope > 0) & (slope < 1), None)

    def directions(self, free: np.ndarray, index: tuple[np.ndarray, ...], coupling: np.ndarray | None) -> np.ndarray:
        model, term, row = index
        found = np.zeros((len(row), self.n_scores))
        each = np.arange(len(row))
        found[each, term] = 1
        found[each, self.codes[row]] = -1
        return found

    def balanced(self, slope: np.ndarray, weight: np.ndarray) -> np.ndarray:
        member = np.zeros((len(self.codes), self.n_scores))
        member[np.arange(len(self.codes)), self.codes] = 1
        flow = (slope * weight[:, None]) @ member  # from a row's class (last) to its rivals
        kept = np.stack([_circulation(one.T).T for one in flow])
        share = np.divide(kept, flow, out=np.zeros_like(flow), where=flow > 0)
        return slope * share[:, :, self.codes]

    @staticmethod
    def _flat(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), -1)


class CrammerSinger(WestonWatkins):
    """The worst margin violation, of codes (n,), or its square."""

    def __init__(self, codes: np.ndarray, n_scores: int, squared: bool = False):
        super().__init__(codes, n_scores)
        self.squared = squared

    def select_rows(self, index: np.ndarray) -> CrammerSinger:
        return type(self)(self.codes[index], self.n_scores, self.squared)

    def loss(self, margin: np.ndarray) -> np.ndarray:
        worst = np.maximum(margin.max(1), 0)
        return worst * worst if self.squared else worst

    def conjugate(self, slope: np.ndarray) -> np.ndarray | None:
        return slope.sum(1) ** 2 / 4 if self.squared else None

    def _threshold(self, point: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find what is taken from the positive ones; their number, and what a change is divided by.

        Newton's method on a sum of positive parts, which is convex: from the left it ends after a few steps.
        """
        budget, spring = (0.0, 2 * delta[:, None]) if self.squared else (1.0, 0.0)
        threshold = np.zeros((len(point), point.shape[2]))
        while True:
            above = point > threshold[:, None]
            count = above.sum(1)
            total = np.einsum("kjn,kjn->kn", point, above)
            total -= budget
            divisor = np.maximum(count + spring, 1e-300)
            new = np.maximum(total / divisor, threshold)  # rounding must not let it fall again
            if (new <= threshold * (1 + 1e-15)).all():
                return threshold, count, divisor
            threshold = new

    def project(self, point: np.ndarray, delta: np.ndarray) -> np.ndarray:
        threshold = self._threshold(point, delta)[0]
        point -= threshold[:, None]
        return np.maximum(point, 0, out=point)

    def smoothed(self, point: np.ndarray, delta: np.ndarray) -> Smoothed:
        threshold, count, divisor = self._threshold(point, delta)
        point -= threshold[:, None]
        slope = np.maximum(point, 0, out=point)
        coupled = threshold > 0
        free = slope > 0
        if not self.squared:  # a sole rival at the cap does not change
            free &= ~(coupled & (count == 1))[:, None]
        return Smoothed(slope, free, coupled / divisor)

    def directions(self, free: np.ndarray, index: tuple[np.ndarray, ...], coupling: np.ndarray | None) -> np.ndarray:
        # a root of I - q 1 1' is I - r 1 1', with 2 r - m r² = q, for m free terms
        assert coupling is not None
        found = super().directions(free, index, None)
        model, _, row = index
        group = free[model, :, row].astype(float)
        count = group.sum(1)
        q = coupling[model, row]
        root = q / (1 + np.sqrt(np.maximum(1 - q * count, 0)))
        group[np.arange(len(row)), self.codes[row]] = -count
        found -= root[:, None] * group
        return found


def _circulation(flow: np.ndarray) -> np.ndarray:
    """Reduce a flow (C, C) between classes until as much leads to each as from it.

    A flow is a sum of cycles, and of paths that begin where more leaves than comes: those are taken away. The shortest
    are first, so that little is lost.
    """
    flow = flow.copy()
    smallest = 1e-16 * flow.sum()
    while True:
        excess = flow.sum(1) - flow.sum(0)
        start = int(excess.argmax())
        if not excess[start] > smallest:
            return flow
        before = np.full(len(flow), -1)
        before[start] = start
        reached = [start]
        end = -1
        for node in reached:
            following = np.flatnonzero((flow[node] > 0) & (before < 0))
            before[following] = node
            reached.extend(following.tolist())
            if len(following) and excess[following].min() < 0:
                end = int(following[excess[following].argmin()])
                break
        if end < 0:  # only rounding is left
            return flow
        path = [end]
        while path[-1] != start:
            path.append(int(before[path[-1]]))
        path = path[::-1]
        amount = min(excess[start], -excess[end], min(flow[a, b] for a, b in zip(path, path[1:], strict=False)))
        for a, b in zip(path, path[1:], strict=False):
            flow[a, b] = max(flow[a, b] - amount, 0)
