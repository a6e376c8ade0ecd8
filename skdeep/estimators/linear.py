"""What the linear models share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import issparse

from skdeep.compat.sklearn import Interval, SparseCoefMixin, StrOptions
from skdeep.data.extents import gram_extents
from skdeep.data.inputs import OutputSpace, dense
from skdeep.data.problem import Problem
from skdeep.data.scaling import change_of_variables
from skdeep.data.state import RandomSource, TrainingState
from skdeep.engine.losses import Loss, SquaredError, smoothed
from skdeep.engine.networks import Linear, Network, sparse_weight
from skdeep.engine.penalties import L2, PENALTIES, ElasticNet, NoPenalty
from skdeep.engine.per_model import groups, to_device
from skdeep.engine.rows import as_tensor
from skdeep.engine.values import SquaredValues
from skdeep.estimators.base import BaseTorchClassifier, BaseTorchEstimator
from skdeep.exact.rows import FILLED, products_pay
from skdeep.fitting.choices import batch_rows, choose, epochs_of, filled_rows
from skdeep.fitting.coordinates import by_rows
from skdeep.fitting.exact_losses import is_certified
from skdeep.fitting.exactly import MAX_SYSTEM, fits_memory
from skdeep.fitting.recipe import (
    Member,
    Recipe,
    as_numbers,
    column_statistics,
    in_standardised_units,
    starting_scores,
    values,
)
from skdeep.fitting.settings import FULL_BATCH, SOLVER_OBJECT, SOLVERS, Solver, settings_of, solver_name
from skdeep.solvers.preconditioner import Preconditioner

#: Mini-batch steps that lead to the optimum's neighbourhood under one cosine, where they are at most so many epochs;
#: and the floating-point operations that could be done in what a step takes beside its products.
STEPS, _EPOCHS, _STEP_OVERHEAD = 1500, 100, 4e6
#: Rows times weights up to which optima of objectives with kinks are found sooner than mini-batches come near: in
#: general; and of so few columns, and weights, that second derivatives of many rows cost little.
_CERTIFIED_VALUES, _MANY_CERTIFIED_VALUES, _FEW_COLUMNS, _FEW_WEIGHTS = 2**21, 2**22, 256, 700
#: Values that a sparse row costs there at least, of so many columns.
_SYSTEM = 128
#: Values of rows that may be copied, floating-point operations that the optimum of an objective may take, being exact
#: (some two seconds), and steps that they are about; and operations for each value of sparse rows under an L1 norm, if
#: all of these are passed over again and again.
COPIED_VALUES, EXACT, FEW_STEPS, PASSES = 2**24, 1e10, 5, 8000
#: Of a model that is not trained.
_NO_STATE = TrainingState(RandomSource(0))
#: Iterations that the exact solver takes about: Newton's, those of L-BFGS, and those without a preconditioner; and
#: (C + 1) d up to which Newton's are the faster ones, at the default tolerance, with and without one.
_NEWTON_STEPS, _LBFGS_STEPS, _PLAIN_STEPS, _NEWTON_SIZE, _PLAIN_NEWTON_SIZE = 10, 25, 100, 160, 320
#: Share of rivals that are within their margins on the way to an optimum of squared hinges; and how often all rows are
#: passed over, where systems are too large for all parameters.
_WITHIN, _PRODUCTS = 0.3, 300
#: The rate of "adam", and the dense columns up to which it is that, where scores are of rivals.
_ADAM_RATE, _FEW_COLUMNS = 0.01, 100
#: Rows up to which a step's time is that of its calls.
_FEW_ROWS = 1000
#: How many times larger than what is predicted the products of coefficients with columns' means, or deviations, may be
#: in single precision.
_FAR = 16.0


@dataclass(eq=False, repr=False, kw_only=True)
class LinearModel(SparseCoefMixin, BaseTorchEstimator):
    """Common part of the linear models; a subclass defines ``_loss``."""

    penalty: str | None = "l2"
    alpha: float | str = "auto"
    l1_ratio: float = 0.15
    fit_intercept: bool = True
    standardize: bool = True
    solver: str | Solver = "auto"
    max_iter: int = 200
    tol: float = 1e-4
    early_stopping: bool = False
    validation_fraction: float = 0.1
    scoring: str | Callable | None = None
    warm_start: bool = False
    random_state: int | np.random.RandomState | None = None
    device: str | torch.device = "auto"
    callbacks: Any = None
    verbose: bool | int = False
    categorical_features: Any = "from_dtype"

    #: What alpha="auto" is, times the weight of the rows.
    _auto_alpha: ClassVar[float] = 1.0
    #: Power of the length of sparse rows by which the units of their columns grow in the penalty of alpha="auto".
    _length_power: ClassVar[float] = 1.0
    _coef_attribute = "coef_"
    _parameters = frozenset({"coef_", "intercept_"})
    _exact_solvers = FULL_BATCH
    _parameter_constraints: ClassVar[dict] = {
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "penalty": [StrOptions({name for name in PENALTIES if name}), None],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "standardize": ["boolean"],
        "solver": [StrOptions({*SOLVERS, "auto", "exact"}), SOLVER_OBJECT],
    }

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        return n_features * n_outputs

    def _n_units(self, n_outputs: int) -> int:
        return n_outputs

    def _penalty(self, members: list[Member], total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        given = values(members, "alpha")
        alpha = np.where(np.isnan(given), self._auto_alpha / total_weight, given)
        return PENALTIES[self.penalty](alpha, values(members, "l1_ratio"))

    def _recipe(self, problem: Problem, going_on: bool, incremental: bool) -> Recipe:
        solver, judged_by = solver_name(self), self._loss(self.n_outputs_)
        loss = smoothed(judged_by, self.label_smoothing)
        newton_params = self._max_newton_params(problem, loss)
        alone = [Member(self, _NO_STATE)], np.ones(1), np.ones(1)
        penalty = _of_any_strength(PENALTIES[self.penalty]) if self._has_own_penalty else self._penalty(*alone)
        if solver == "auto":
            solver = "sgd" if incremental else self._cheapest_solver(problem, loss, penalty, newton_params)
        is_closed = solver == "exact" and type(loss) in (SquaredError, SquaredValues) and self._has_smooth_penalty
        if solver == "exact":
            _check_exact(problem, is_closed, self.early_stopping)
        if solver in FULL_BATCH:
            if not (penalty.smooth or (solver == "exact" and is_certified(loss, penalty))):
                penalty = self._penalty(*alone)  # where a norm has no strength, nothing is left of its kinks
            _check_objective(solver, self.penalty, loss, penalty)
        rows, settings = batch_rows(self, problem, solver), settings_of(self, solver)
        if getattr(settings, "batch_size", None) == "auto":
            rows = filled_rows(problem, rows)
        # Adam's steps differ between coordinates: the map takes twice the passes over the coefficients. By type, since
        # a penalty of one's own may be nothing but its map
        proximal = not (solver == "adam" and type(penalty) in (L2, NoPenalty))
        decisions: dict[str, Any] = {"proximal": proximal, "newton_params": newton_params, "closed_form": is_closed}
        decisions["begins_at_shares"] = self.fit_intercept and not incremental and solver not in FULL_BATCH
        if solver in FULL_BATCH and not is_closed and fits_memory(problem):
            decisions["device"] = torch.device("cpu")  # in NumPy, whatever the device: the model is to be the same
        if getattr(settings, "learning_rate", None) == "auto":
            epochs = epochs_of(STEPS, problem, rows)
            one_run = not incremental and epochs <= _EPOCHS
            decisions["schedule"] = "cosine" if one_run else "adaptive"
            decisions |= {"horizon": min(epochs, self.max_iter), "to_end": True} if one_run else {}
        return choose(self, problem, solver, rows, judged_by, **decisions)

    @property
    def _has_own_penalty(self) -> bool:
        """Whether its penalty is one of ours, not a user's."""
        return type(self)._penalty.__module__.partition(".")[0] == __name__.partition(".")[0]

    @property
    def _has_smooth_penalty(self) -> bool:
        # by name: whether a model is in a stack with others must make no difference
        return self.penalty in ("l2", None)

    def _cheapest_solver(self, problem: Problem, loss: Loss, penalty: ElasticNet, newton_params: int | None) -> str:
        """Choose the solver that leads to the optimum soonest; mini-batches where others take longer."""
        if self.callbacks:
            return "sgd"
        if self._has_smooth_penalty and penalty.smooth and loss.smooth:
            return "lbfgs" if self._is_exact_cheap(problem, loss, newton_params) else "sgd"
        # of any strength: whether a model is in a stack with others must make no difference
        is_known = self._has_own_penalty and is_certified(loss, penalty)
        can_be = is_known and not problem.is_stored
        unbounded = self.penalty is None and loss.target != "values"  # hinges that fall for ever
        if self.early_stopping or unbounded or not can_be:
            return "sgd"
        return "exact" if self._is_certificate_cheap(problem, loss) else "sgd"

    def _is_certificate_cheap(self, problem: Problem, loss: Loss) -> bool:
        """Tell whether the optimum of an objective with kinks costs no more than mini-batch training."""
        n_columns, n_outputs = self._n_coordinates(problem, loss) + 1, self.n_outputs_
        is_small = n_columns <= _FEW_COLUMNS and n_columns * n_outputs <= _FEW_WEIGHTS
        # of sparse rows with few values each, it is the systems of rows that take time
        values = problem.n_rows * max((n_columns - 1) * problem.density + 1, min(n_columns, _SYSTEM)) * n_outputs
        if values <= (_MANY_CERTIFIED_VALUES if is_small else _CERTIFIED_VALUES):
            return True
        # of second derivatives that are sparse, too, few are formed
        n_systems = n_outputs * (n_outputs + 1) // 2 if loss.target == "codes" else n_outputs
        values = problem.n_rows * n_columns * problem.density
        work = min(2 * FEW_STEPS * products_of_columns(problem, n_columns), PASSES * values)
        is_sparse = loss.twice_smooth and problem.density < FILLED and values <= COPIED_VALUES
        return is_sparse and work * n_systems <= EXACT

    def _n_coordinates(self, problem: Problem, loss: Loss) -> int:
        """Count the columns that an optimum is looked for in, or the rows, where they stand in for these."""
        n, d = problem.n_rows, problem.source.shape[1]
        n_values = n * (d * problem.density + 1)
        return n if self.penalty == "l2" and by_rows(loss, (n, d), n_values, self.n_outputs_) else d

    def _is_exact_cheap(self, problem: Problem, loss: Loss, newton_params: int | None) -> bool:
        """Tell whether the optimum of a smooth objective costs no more than mini-batch training."""
        n, d, c = problem.n_rows, self._n_coordinates(problem, loss), self.n_outputs_
        products = products_of_columns(problem, d)
        # scores that no second derivative couples are systems of their own
        n_pairs, system = (c * (c + 1) // 2, c * (d + 1)) if loss.target == "codes" else (c, d + 1)
        of_pieces = not loss.twice_smooth
        of_rivals = of_pieces and loss.target == "codes"
        if of_pieces and problem.density < FILLED:  # by products with the rows
            exact = _PLAIN_STEPS * n * 4 * c * d * problem.density
        elif (newton_params is None or of_pieces) and system <= MAX_SYSTEM:
            per_row = _WITHIN * (c - 1 if of_rivals else c) if of_pieces else n_pairs
            n_systems = c if loss.target != "codes" else 1
            exact = _NEWTON_STEPS * (2 * per_row * products + n_systems * system**3 / 3)
        elif self._has_preconditioner(loss):
            exact = _LBFGS_STEPS * n * 4 * c * d * problem.density + c * products
        else:
            exact = (_PRODUCTS if of_rivals else _PLAIN_STEPS) * n * 4 * c * d * problem.density
        exact += n * n * problem.source.shape[1] if d < problem.source.shape[1] else 0
        if exact <= STEPS * _STEP_OVERHEAD:
            return True
        # with steps of as few rows as dense ones: what they cost at least
        rows = batch_rows(self, problem, "sgd")
        return exact <= STEPS * (rows * 4 * c * d * problem.density + _STEP_OVERHEAD)

    def _has_preconditioner(self, loss: Loss) -> bool:
        return Preconditioner.fits(loss, self.n_outputs_, self._n_inputs + 1)

    def _max_newton_params(self, problem: Problem, loss: Loss) -> int | None:
        """Choose the most parameters with which the exact solver takes Newton steps; None for a tight tolerance's."""
        # a Hessian is the work of (C + 1) d / 4 gradients, but for calls, which are what few rows cost
        n_rows, n_scores, d = problem.n_rows, self.n_outputs_, self._n_coordinates(problem, loss)
        limit = _NEWTON_SIZE if self._has_preconditioner(loss) else _PLAIN_NEWTON_SIZE
        many = n_rows > _FEW_ROWS and n_scores > 1
        many = many and not products_pay((n_rows, d + 1), n_scores * (n_scores + 1) // 2)
        return 0 if self.solver == "auto" and (many or (n_scores + 1) * d > limit) else None

    def _network(
        self, recipe: Recipe, problem: Problem, members: list[Member], penalty: ElasticNet, warm: bool
    ) -> Linear:
        n_models, n_outputs = len(members), recipe.n_outputs
        tensor: dict[str, Any] = {"device": problem.device, "dtype": problem.dtype}
        variables: dict[str, Any] = {}
        exact = recipe.closed_form
        if self.standardize or exact:
            columns = column_statistics(problem, members)
            power = np.where(in_standardised_units(members), self._length_power, np.nan)
            variables = change_of_variables(
                problem,
                columns,
                penalty,
                power,
                recipe.judged_by.curvature(n_outputs),
                fit_intercept=self.fit_intercept,
                exact=exact,
                products=recipe.products,
            )
        shape = n_models, n_outputs, problem.source.shape[1]
        if issparse(problem.source):
            shared = len(groups([m.rows for m in members], [m.state.generator for m in members])) == 1
            coef = sparse_weight(*shape, shared, **tensor)
        else:
            coef = torch.zeros(*shape, **tensor)
        intercept = torch.zeros(n_models, n_outputs, **tensor) if self.fit_intercept else None
        if recipe.begins_at_shares and not warm:
            scores = starting_scores(problem, members, recipe.judged_by, n_outputs)
            intercept = to_device(torch.from_numpy(scores), **tensor)
        network = Linear(coef, intercept, **variables)
        if warm:
            known = (np.asarray(dense(part), dtype=np.float64) for part in (self.coef_, self.intercept_))
            network.restore(*self._unmapped(*known))
        return network

    def _trained_network(self, device: torch.device, dtype: torch.dtype) -> Linear:
        known = [as_tensor(dense(part)[None]) for part in (self.coef_, self.intercept_)]
        coef, intercept = (to_device(part, device, dtype) for part in known)
        return Linear(coef, intercept)

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict[str, Any]:
        assert isinstance(network, Linear)
        # copies: "contiguous" leaves the stride of an axis of one as it is, and products round by strides
        coef, intercept = (part.copy() for part in network.learned(model, dtype, self._output_map))
        is_far = self._is_rounded(network, model, coef, intercept)
        return {"coef_": space.array(coef), "intercept_": space.array(intercept), "_is_far": is_far}

    def _is_rounded(self, network: Linear, model: int, coef: np.ndarray, intercept: np.ndarray) -> bool:
        """Tell whether products in single precision would round what is predicted by more than 1e-6."""
        if coef.dtype == np.float64:  # in which predictions are computed then
            return False
        center, scale = (part[model if len(part) > 1 else 0] for part in network.center_and_scale())
        if (frame := network.frame) is not None:
            center, scale = (center + frame.origin) / frame.factor, scale * frame.factor
        # probabilities change by a quarter of what scores do; values are of the size of targets
        size = 4.0 if self._output_map is None else np.abs(self._output_map).sum(0)
        with np.errstate(over="ignore", invalid="ignore"):
            # of columns' means and the intercept, and of what rows differ by
            products = np.maximum(np.abs(coef * center).sum(1), np.abs(intercept))
            return bool((np.maximum(products, np.linalg.norm(coef / scale, axis=1)) > _FAR * size).any())

    def _map_scores(self, matrix: np.ndarray, offsets: np.ndarray | float) -> None:
        space, coef, intercept = OutputSpace(self.coef_), dense(self.coef_), dense(self.intercept_)
        with np.errstate(all="ignore"):
            mapped = (matrix.T @ coef).astype(coef.dtype)
        if not np.isfinite(mapped).all():
            raise ValueError(
                f"calibration={self.calibration!r} makes coefficients of columns this small overflow. Scale the "
                "columns of X (StandardScaler), or use calibration='temperature'."
            )
        self.coef_: Any = space.array(mapped)
        self.intercept_: Any = space.array((intercept @ matrix + offsets).astype(intercept.dtype))

    def _rates(self, recipe: Recipe, problem: Problem, network: Network, members: list[Member]) -> np.ndarray:
        assert isinstance(network, Linear)
        rates = as_numbers(member.settings.learning_rate_init for member in members)
        derived = np.isnan(rates)
        if recipe.solver != "sgd":
            d = problem.source.shape[1]  # a step moves scores by so many changes
            many = recipe.loss.shift_invariant and d > _FEW_COLUMNS and not issparse(problem.source)
            rates[derived] = _ADAM_RATE * (np.sqrt(_FEW_COLUMNS / d) if many else 1)
        elif derived.any():
            rates[derived] = _derived_rates(recipe, problem, network, members)[derived]
        return rates


@dataclass(eq=False, repr=False, kw_only=True)
class LinearClassifier(LinearModel, BaseTorchClassifier):
    """Common part of the linear classifiers."""

    class_weight: dict | str | None = None
    calibration: str | None = None

    _needs_two_classes = True
    _length_power = 0.0


@cache
def _of_any_strength(kind: type[ElasticNet]) -> ElasticNet:
    """Make a penalty of a kind, which says whether it is smooth."""
    return kind(np.ones(1), np.full(1, 0.5))


def products_of_columns(problem: Problem, n_columns: int) -> float:
    """Count what products of all pairs of so many columns cost, in multiplications of dense ones."""
    return problem.n_rows * n_columns**2 * min(1.0, problem.density / FILLED) ** 2


def _check_exact(problem: Problem, is_closed: bool, early_stopping: bool) -> None:
    """Raise if ``solver="exact"`` is given what it cannot do with; in closed form it can with most."""
    if early_stopping:
        raise ValueError(
            "early_stopping=True has nothing to stop: solver='exact' has no epochs. Use early_stopping=False, or "
            "solver='sgd', 'adam' or 'adamw'."
        )
    if problem.is_stored and not is_closed:
        raise ValueError(
            "solver='exact' needs all rows in memory, where X is not. Use solver='auto', 'sgd', 'adam' or 'adamw', "
            "'lbfgs' for smooth objectives, or a LeastSquaresClassifier, whose rows are passed over once."
        )


def _check_objective(solver: str, penalty_name: str | None, loss: Loss, penalty: ElasticNet) -> None:
    """Raise if a solver of full batches is given an objective that it cannot minimise."""
    if solver == "exact" and not is_certified(loss, penalty):
        raise ValueError(
            "solver='exact' minimises all losses with any penalty, but for losses of values with an output that is not "
            f"their own; not this loss with penalty={penalty_name!r}. Use solver='sgd', 'adam' or 'adamw', or another "
            "penalty."
        )
    if solver == "exact" or (loss.smooth and penalty.smooth):
        return
    culprit = "this loss" if not loss.smooth else f"penalty={penalty_name!r}"
    raise ValueError(
        f"solver={solver!r} needs a smooth objective, and {culprit} has kinks. Use solver='sgd', 'adam' or "
        "'adamw', or a smooth choice (a squared loss, penalty='l2'), or solver='exact'."
    )


def _derived_rates(recipe: Recipe, problem: Problem, network: Linear, members: list[Member]) -> np.ndarray:
    """Derive step sizes from the data.

    1 / L, the step that suits the full gradient with any momentum; and the noise of a batch, which momentum adds up
    over 1 / (1 - momentum) steps, must stay below the signal.
    """
    curvature = recipe.judged_by.curvature(recipe.n_outputs)
    largest, trace = gram_extents(problem.rows(), [m.rows for m in members], network.center, network.scale)
    n = np.array([member.n_rows(problem) for member in members])
    spread = [1.0 if m.weight is None else m.weight.max() / m.weight[m.weight > 0].mean() for m in members]
    size = int(np.minimum(recipe.batch_rows, n).max())
    noise = np.array(spread) * trace * (1 / size - 1 / n) / (1 - np.array([m.settings.momentum for m in members]))
    target = problem.target if problem.subset is None else problem.target[problem.subset]  # of rows with a weight
    return 1 / (curvature * recipe.judged_by.caution(target) * (largest + np.maximum(noise, 0.0)))
