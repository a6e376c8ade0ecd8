"""Members of a stack as the solvers of `skdeep.exact` see them: rows in one set of columns, and weights of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from skdeep.data.columns import weights_of_rows
from skdeep.data.problem import Problem
from skdeep.engine.networks import Linear
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import numbered, to_numpy64
from skdeep.exact.rows import FEW_COLUMNS, Rows, SparseRows
from skdeep.fitting.recipe import Member, rows_and_weights

#: How many times a column may be larger than a model's own, and still suit its steps.
_ALIKE = 30.0
#: Values of rows from which the layout in memory makes a difference.
_MANY_VALUES = 2**13


@dataclass
class Variables:
    """The columns in which all models of a stack are trained, and those that each model's network has."""

    center: np.ndarray  # (d,)
    scale: np.ndarray  # (d,)
    own_center: np.ndarray  # (K or 1, d)
    own_scale: np.ndarray  # (K or 1, d)
    intercept: bool

    @classmethod
    def of(cls, network: Linear) -> Variables:
        """Take the first model's center and scale for all, as if it were alone, if no weaker penalty leaves more."""
        center, scale = network.center_and_scale()
        shared = scale[0]
        if len(scale) > 1:
            largest = scale.max(0)
            shared = np.where(shared > 0.5 * largest, shared, largest)
        return cls(center[0], shared, center, scale, len(network.params) > 1)

    def strengths(self, penalty: ElasticNet, unit: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Compute how strong squared norms and L1 norms are in each column (K, D), or (K, C, D) of scores of their own.

        `unit` are the units (K or 1, d) of the penalty in the columns that each model's network has.
        """
        own = self.scale if unit is None else self.scale * unit
        ridge, lasso = penalty.curvature(), penalty.alpha * penalty.l1_ratio
        own = own if ridge.ndim == 1 else np.atleast_2d(own)[:, None]
        rho, kappa = (np.zeros((*ridge.shape, len(self.scale) + self.intercept)) for _ in range(2))
        # of no strength at all, there is none on tiny columns, whose squares have no number
        rho[..., : len(self.scale)] = ridge[..., None] * np.square(np.where(ridge[..., None] > 0, own, 0.0))
        kappa[..., : len(self.scale)] = lasso[..., None] * own
        return rho, kappa

    def suit(self, parts: list[list[int]]) -> bool:
        """Tell whether these columns are about as large as in each part of the models, which has its own rows."""
        if len(self.own_scale) == 1:
            return True
        largest = np.stack([self.own_scale[part].max(0) for part in parts])
        return bool((largest.max(0) < _ALIKE * largest.min(0)).all())

    def forth(self, network: Linear) -> np.ndarray:
        """Compute parameters (K, C, D) in these columns."""
        coef, *intercept = (to_numpy64(p) for p in network.params)
        coef = coef * (self.own_scale / self.scale)[:, None]
        if not self.intercept:
            return np.ascontiguousarray(coef)
        level = intercept[0] - (coef @ (self.scale * (self.own_center - self.center))[:, :, None])[:, :, 0]
        return np.concatenate([coef, level[:, :, None]], axis=2)

    def back(self, params: np.ndarray) -> list[np.ndarray]:
        """Compute the parameters of a network from parameters (K, C, D) in these columns."""
        coef = params[:, :, : len(self.scale)]
        if len(self.own_scale) == len(self.own_center) == 1:  # which are these columns
            return [np.ascontiguousarray(part) for part in (coef, params[:, :, -1])][: 1 + self.intercept]
        found = [coef * (self.scale / self.own_scale)[:, None]]
        if self.intercept:
            shift = (coef @ (self.scale * (self.own_center - self.center))[:, :, None])[:, :, 0]
            found.append(params[:, :, -1] + shift)
        return found


@dataclass
class Centring:
    """Columns of sparse rows, moved by their `mean` and divided by their `size` (d,); an intercept comes last."""

    mean: np.ndarray
    size: np.ndarray

    def forth_(self, params: np.ndarray, rho: np.ndarray, kappa: np.ndarray) -> None:
        """Change parameters (K, C, D) and strengths of norms, in place, to those that mean the same here."""
        params[:, :, -1] += params[:, :, :-1] @ self.mean
        params[:, :, :-1] *= self.size
        rho[..., :-1] /= self.size * self.size
        kappa[..., :-1] /= self.size

    def back_(self, params: np.ndarray) -> None:
        """Change parameters back, in place."""
        params[:, :, :-1] /= self.size
        params[:, :, -1] -= params[:, :, :-1] @ self.mean


def weights_of(problem: Problem, members: list[Member]) -> tuple[np.ndarray | None, np.ndarray]:
    """Find the rows that any member is trained on, and their weights (K or 1, m), which add up to one."""
    first, number = numbered(*rows_and_weights(members))
    n, own = len(problem.codes), [members[m] for m in first]
    if len(own) == 1:
        index, weight = own[0].rows, own[0].weight
        m = n if index is None else len(index)
        table = np.ones((1, m)) if weight is None else weight[None] if index is None else weight[index][None]
    else:
        index, table = None, np.stack([weights_of_rows(n, member.rows, member.weight) for member in own])
        table = table[number]
    return index, table / table.sum(1, keepdims=True)


def rows_of(
    problem: Problem, network: Linear, index: np.ndarray | None, variables: Variables, by_columns: bool = False
) -> Rows:
    """Make the rows in the columns of a stack; `by_columns` if few columns are best in one piece each."""
    scale, source = variables.scale, problem.source
    if problem.shard is not None:  # fetched: the solver passes over them more often
        source = problem.X
    elif problem.index is not None:
        index = problem.index if index is None else problem.index[index]
    if sparse.issparse(source):
        X = sparse.csr_array(source if index is None else source[index], dtype=np.float64)
        # one after the other: their product may overflow
        data = X.data if network.frame is None else X.data * network.frame.factor[X.indices]
        data = data if (scale == 1).all() else data * scale[X.indices]
        X = sparse.csr_array((data, X.indices, X.indptr), shape=X.shape)
        return SparseRows(X, variables.intercept)
    if isinstance(source, np.ndarray) and network.frame is None:
        X = source if index is None else source[index]
    else:
        of_columns = problem.rows().exactly(torch.float64, network.frame)
        X = of_columns.take(slice(0, len(of_columns)) if index is None else torch.from_numpy(index)).numpy()
    n, d = X.shape
    # a few long loops, where rows are many short ones
    by_columns = by_columns and d < FEW_COLUMNS and n * d >= _MANY_VALUES
    Z = np.empty((n, d + variables.intercept), order="F" if by_columns else "C")
    within = Z[:, :d]
    np.subtract(X, variables.center, out=within)
    within *= scale
    Z[:, d:] = 1.0
    return Rows(Z)
