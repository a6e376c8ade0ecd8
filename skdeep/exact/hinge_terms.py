r"""Hinges as maxima over dual variables: what an exact solver has to know of them.

A row has terms with margins m, linear in its scores: :math:`1 - t s` of one score, or :math:`1 + s_j - s_y` of each
rival j. Its loss is :math:`\max_a \langle a, m\rangle - c(a)` over a set of duals a, which are the terms' slopes:

- a box, :math:`0 \le a \le 1`: the sum of the positive margins (`OneScore`, `WestonWatkins`);
- a simplex with its inside, :math:`a \ge 0, \sum a \le 1`: the largest of them (`CrammerSinger`);
- :math:`a \ge 0` with :math:`c(a) = (\sum a)^2 / 4`: its square.

Margins, duals and what is made of them are ``(K, J, n)``: of models, terms and rows. The term of a row's own class is
there, but can never be positive.
"""

from __future__ import annotations

from typing import Self

import numpy as np

#: The margin of a row's own class.
_NEVER = -1e100
#: Duals that are so little below their cap are at it.
_ROUNDING = 1e-12
#: One of nonzero's arrays for each axis: models, terms, rows.
Index = tuple[np.ndarray, ...]


class Terms:
    """Base of the hinges of C scores, whose duals are in a box unless a subclass says otherwise."""

    n_scores: int

    def select(self, models: np.ndarray | list[int]) -> Self:
        """Take some of the models."""
        return self

    def of_rows(self, index: np.ndarray) -> Self:
        """Take some rows."""
        raise NotImplementedError

    def changes(self, scores: np.ndarray) -> np.ndarray:
        """Compute how margins change as scores do."""
        raise NotImplementedError

    def margins(self, scores: np.ndarray) -> np.ndarray:
        """Compute margins of scores."""
        found = self.changes(scores)
        found += 1
        return found

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        """Compute the gradient in the scores (K, C, n) from one in the margins."""
        raise NotImplementedError

    def loss(self, margin: np.ndarray) -> np.ndarray:
        """Compute the loss of each row, (K, n)."""
        return np.maximum(margin, 0).sum(1)

    def conjugate(self, slope: np.ndarray) -> np.ndarray | None:
        """Compute c of each row, (K, n); None where it is zero."""
        return None

    def project(self, point: np.ndarray, delta: np.ndarray) -> np.ndarray:
        r"""Compute slopes of smoothed losses, in the place of ``point = a + m / delta``.

        .. math:: \arg\max_n \langle n, m\rangle - c(n) - \tfrac\delta2 \|n - a\|^2
        """
        np.minimum(point, 1, out=point)
        return np.maximum(point, 0, out=point)

    def free(self, slope: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        r"""Find which terms' slopes change with the margins, and how a row's terms are coupled.

        Slopes change by :math:`(I - q 1 1^T) \dot m / \delta`, over a row's free terms: q is (K, n), None for zero.
        """
        found = slope > 0
        found &= slope < 1
        return found, None

    def directions(self, free: np.ndarray, index: Index, coupling: np.ndarray | None) -> np.ndarray:
        """Compute rows E (r, C), of free terms: ``E.T @ E`` is the second derivative in a row's scores."""
        raise NotImplementedError

    def second(self, free: np.ndarray, coupling: np.ndarray | None) -> np.ndarray:
        """Compute the second derivative of each score, (K, C, n)."""
        raise NotImplementedError

    def balanced(self, slope: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Reduce slopes, so that the gradient in the intercepts is zero: a lower bound depends on it."""
        raise NotImplementedError


class OneScore(Terms):
    """Hinges of one score, as a column has in a one-vs-rest scheme, of signs (K, 1, n)."""

    n_scores = 1

    def __init__(self, sign: np.ndarray):
        self.sign, self._against = sign, -sign

    def select(self, models: np.ndarray | list[int]) -> OneScore:
        return OneScore(self.sign[models])

    def of_rows(self, index: np.ndarray) -> OneScore:
        return OneScore(self.sign[:, :, index])

    def changes(self, scores: np.ndarray) -> np.ndarray:
        return self._against * scores

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        return self._against * slope

    def loss(self, margin: np.ndarray) -> np.ndarray:
        return np.maximum(margin[:, 0], 0)

    def directions(self, free: np.ndarray, index: Index, coupling: np.ndarray | None) -> np.ndarray:
        return self._against[index][:, None]

    def second(self, free: np.ndarray, coupling: np.ndarray | None) -> np.ndarray:
        return free.astype(float)

    def balanced(self, slope: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mass = slope[:, 0] * weight
        sides = [np.vecdot(mass, self.sign[:, 0] == side)[:, None, None] for side in (1, -1)]
        least = np.minimum(*sides)
        up, down = (np.divide(least, side, out=np.zeros_like(side), where=side > 0) for side in sides)
        return slope * np.where(self.sign > 0, up, down)


class Hinges:
    """Hinges of indicators (C, n), one per column: columns are models of their own."""

    def __init__(self, target: np.ndarray):
        self.n_scores, self.sign = len(target), 2.0 * target - 1

    def select_rows(self, index: np.ndarray) -> Hinges:
        """Take some rows."""
        return Hinges((self.sign[:, index] + 1) / 2)

    def target(self) -> np.ndarray:
        """Make what scores (C, n) should be like."""
        return self.sign

    def terms(self, n_models: int) -> Terms:
        """Make the terms of so many models, and their columns."""
        return OneScore(np.tile(self.sign, (n_models, 1))[:, None])


class WestonWatkins(Terms):
    """Sum of the margin violations of all rivals, of codes (n,)."""

    def __init__(self, codes: np.ndarray, n_scores: int):
        self.codes, self.n_scores = codes, n_scores
        self._own = codes * len(codes) + np.arange(len(codes))

    def select_rows(self, index: np.ndarray) -> Self:
        """Take some rows."""
        return type(self)(self.codes[index], self.n_scores)

    def target(self) -> np.ndarray:
        """Make what scores (C, n) should be like."""
        return (np.arange(self.n_scores)[:, None] == self.codes) - 1 / self.n_scores

    def terms(self, n_models: int) -> Terms:
        """Make the terms of so many models."""
        return self

    def of_rows(self, index: np.ndarray) -> Self:
        return self.select_rows(index)

    def changes(self, scores: np.ndarray) -> np.ndarray:
        return scores - _flat(scores).take(self._own, axis=1)[:, None]

    def margins(self, scores: np.ndarray) -> np.ndarray:
        found = super().margins(scores)
        _flat(found)[:, self._own] = _NEVER
        return found

    def to_scores(self, slope: np.ndarray) -> np.ndarray:
        found = slope.copy()
        _flat(found)[:, self._own] = -slope.sum(1)
        return found

    def directions(self, free: np.ndarray, index: Index, coupling: np.ndarray | None) -> np.ndarray:
        _, term, row = index
        found, each = np.zeros((len(row), self.n_scores)), np.arange(len(row))
        found[each, term] = 1
        found[each, self.codes[row]] = -1
        return found

    def second(self, free: np.ndarray, coupling: np.ndarray | None) -> np.ndarray:
        found, count = free.astype(float), free.sum(1)
        if coupling is not None:
            found *= (1 - coupling)[:, None]
            count = count * (1 - coupling * count)
        _flat(found)[:, self._own] = count
        return found

    def balanced(self, slope: np.ndarray, weight: np.ndarray) -> np.ndarray:
        member = (np.arange(self.n_scores) == self.codes[:, None]).astype(float)
        flow = (slope * weight[:, None]) @ member  # to rivals, from the classes of the rows
        kept = np.stack([_circulation(one) for one in flow])
        share = np.divide(kept, flow, out=np.zeros_like(flow), where=flow > 0)
        return slope * share[:, :, self.codes]


class CrammerSinger(WestonWatkins):
    """The worst margin violation, of codes (n,), or its square."""

    def __init__(self, codes: np.ndarray, n_scores: int, squared: bool = False):
        super().__init__(codes, n_scores)
        self.squared = squared

    def select_rows(self, index: np.ndarray) -> Self:
        return type(self)(self.codes[index], self.n_scores, self.squared)

    def loss(self, margin: np.ndarray) -> np.ndarray:
        worst = np.maximum(margin.max(1), 0)
        return worst * worst if self.squared else worst

    def conjugate(self, slope: np.ndarray) -> np.ndarray | None:
        return slope.sum(1) ** 2 / 4 if self.squared else None

    def project(self, point: np.ndarray, delta: np.ndarray) -> np.ndarray:
        # what to take from the positive ones: Newton's method on a sum of positive parts, which is convex
        budget, spring = (0.0, 2 * delta[:, None]) if self.squared else (1.0, 0.0)
        above, taken = point > 0, np.zeros((len(point), point.shape[2]))
        while True:
            excess = np.einsum("kjn,kjn->kn", point, above)
            excess -= budget
            excess /= np.maximum(above.sum(1) + spring, 1e-300)
            if not (excess > taken * (1 + 1e-15)).any():
                break
            taken = np.maximum(excess, taken)
            above = point > taken[:, None]
        point -= taken[:, None]
        return np.maximum(point, 0, out=point)

    def free(self, slope: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        found = slope > 0
        count = found.sum(1)
        if self.squared:
            return found, (count > 0) / (count + 2 * delta[:, None])
        capped = slope.sum(1) > 1 - _ROUNDING
        found &= ~(capped & (count == 1))[:, None]  # a sole rival at the cap stays there
        return found, capped / np.maximum(count, 1)

    def directions(self, free: np.ndarray, index: Index, coupling: np.ndarray | None) -> np.ndarray:
        # a root of I - q 1 1' is I - r 1 1', with 2 r - m r² = q, for m free terms
        assert coupling is not None
        model, _, row = index
        group = free[model, :, row].astype(float)
        count, q = group.sum(1), coupling[model, row]
        root = q / (1 + np.sqrt(np.maximum(1 - q * count, 0)))
        group[np.arange(len(row)), self.codes[row]] = -count
        return super().directions(free, index, None) - root[:, None] * group


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


def _circulation(flow: np.ndarray) -> np.ndarray:
    """Reduce a flow (C, C) between classes until as much leads to each as from it.

    A flow is a sum of cycles, and of paths that begin where more leaves than comes: those are taken away, short ones
    first, so that little is lost.
    """
    flow, least = flow.T.copy(), 1e-16 * flow.sum()
    while True:
        excess = flow.sum(1) - flow.sum(0)
        first = int(excess.argmax())
        if not excess[first] > least:
            return flow.T
        before, reached, end = {first: first}, [first], None
        for node in reached:
            ahead = [there for there in flow[node].nonzero()[0].tolist() if there not in before]
            before.update(dict.fromkeys(ahead, node))
            reached += ahead
            if ahead and excess[end := min(ahead, key=excess.__getitem__)] < 0:
                break
        else:  # only rounding is left
            return flow.T
        assert end is not None
        path = [end]
        while path[-1] != first:
            path.append(before[path[-1]])
        edges = path[1:], path[:-1]
        flow[edges] -= min(excess[first], -excess[end], flow[edges].min())
