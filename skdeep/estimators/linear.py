"""What the linear classifiers share, and softmax regression."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse

from skdeep.compat.sklearn import Interval, SparseCoefMixin, StrOptions
from skdeep.data.columns import gram_extents
from skdeep.data.inputs import OutputSpace, dense, dtype_name
from skdeep.data.problem import Problem, TrainingState
from skdeep.data.scaling import change_of_variables
from skdeep.engine.batching import as_tensor
from skdeep.engine.frame import exceeds_float32
from skdeep.engine.losses import Loss, smoothed
from skdeep.engine.networks import Linear, sparse_weight
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import L2, PENALTIES, NoPenalty
from skdeep.engine.per_model import to_device
from skdeep.engine.schedules import SCHEDULES
from skdeep.estimators.base import BaseTorchClassifier
from skdeep.fitting.choices import batch_rows, choose, epochs_of
from skdeep.fitting.recipe import FULL_BATCH, Member, Recipe, column_statistics, total_weights, values
from skdeep.solvers.newton import Newton
from skdeep.solvers.preconditioner import Preconditioner

#: Mini-batch steps that lead to the optimum's neighbourhood under one cosine, where they are at most so many epochs;
#: and the floating-point operations that could be done in what a step takes beside its products.
_STEPS, _EPOCHS, _STEP_OVERHEAD = 1500, 100, 4e6
#: Of a model that is not trained.
_NO_STATE = TrainingState(np.random.default_rng(0))
#: Iterations that the exact solver takes about: Newton's, those of L-BFGS, and those without a preconditioner; and
#: (C + 1) d up to which Newton's are the faster ones, at the default tolerance, with and without one.
_NEWTON_STEPS, _LBFGS_STEPS, _PLAIN_STEPS, _NEWTON_SIZE, _PLAIN_NEWTON_SIZE = 10, 25, 100, 160, 320


class LinearClassifier(SparseCoefMixin, BaseTorchClassifier):
    """Common part of the linear classifiers; a subclass defines ``_loss``."""

    _coef_attribute = "coef_"
    _parameters = frozenset({"coef_", "intercept_"})
    _exact_solvers = FULL_BATCH
    _needs_two_classes = True
    coef_: Any
    intercept_: Any
    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "penalty": [StrOptions({name for name in PENALTIES if name}), None],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "fit_intercept": ["boolean"],
        "standardize": ["boolean"],
        "solver": [StrOptions({*OPTIMIZERS, "lbfgs", "auto"})],
        "learning_rate": [StrOptions({*SCHEDULES, "auto"})],
    }

    def __init__(
        self,
        penalty="l2",
        *,
        alpha="auto",
        l1_ratio=0.15,
        fit_intercept=True,
        standardize=True,
        solver="auto",
        learning_rate="auto",
        learning_rate_init="auto",
        power_t=0.5,
        warmup_epochs=0,
        max_grad_norm=None,
        momentum=0.9,
        nesterovs_momentum=True,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        batch_size="auto",
        max_iter=200,
        tol=1e-4,
        n_iter_no_change=5,
        max_fun=15000,
        shuffle=True,
        early_stopping=False,
        validation_fraction=0.1,
        scoring=None,
        class_weight=None,
        calibration=None,
        warm_start=False,
        random_state=None,
        device="auto",
        precision="auto",
        callbacks=None,
        verbose=False,
    ):
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.solver = solver
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.warmup_epochs = warmup_epochs
        self.max_grad_norm = max_grad_norm
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.scoring = scoring
        self.class_weight = class_weight
        self.calibration = calibration
        self.warm_start = warm_start
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.verbose = verbose

    def _n_params(self, n_features, n_outputs):
        return n_features * n_outputs

    def _n_units(self, n_outputs):
        return n_outputs

    def _penalty(self, members, total_weight, batch_weight):
        alpha = values(members, "alpha")
        return PENALTIES[self.penalty](np.where(np.isnan(alpha), 1 / total_weight, alpha), values(members, "l1_ratio"))

    def _recipe(self, problem, going_on, incremental):
        newton_params, solver = self._max_newton_params(), self.solver
        penalty = self._penalty([Member(self, _NO_STATE)], np.ones(1), np.ones(1))
        if solver == "auto":
            exact = not incremental and penalty.smooth and self._is_exact_cheap(problem, newton_params)
            solver = "lbfgs" if exact else "sgd"
        rows = batch_rows(self, problem, solver)
        if self.batch_size == "auto" and solver not in FULL_BATCH:
            # a step also passes over all coefficients, which rows with few values each would otherwise wait for
            filled = int(1 / max(problem.density, 1 / problem.n_rows))
            rows = max(rows, min(filled, -(-problem.n_rows // 16)))
        # Adam's steps differ between coordinates: the map takes twice the passes over the coefficients. By type, since
        # a penalty of one's own may be nothing but its map
        proximal = not (solver == "adam" and type(penalty) in (L2, NoPenalty))
        decisions: dict[str, Any] = {"proximal": proximal, "newton_params": newton_params}
        if self.learning_rate == "auto":
            epochs = epochs_of(_STEPS, problem, rows)
            one_run = not incremental and epochs <= _EPOCHS
            decisions["schedule"] = "cosine" if one_run else "adaptive"
            decisions |= {"horizon": min(epochs, self.max_iter), "to_end": True} if one_run else {}
        return choose(self, problem, solver, rows, loss=self._training_loss(self.n_outputs_), **decisions)

    def _training_loss(self, n_outputs: int) -> Loss:
        """What is minimised, where that is not the loss that validation data is judged by."""
        return smoothed(self._loss(n_outputs), getattr(self, "label_smoothing", 0.0))

    def _is_exact_cheap(self, problem: Problem, newton_params: int | None) -> bool:
        """Whether the optimum costs no more than mini-batch training, of which nothing was said."""
        steps = (self.batch_size, self.learning_rate, self.learning_rate_init)
        # by name: whether a model is in a stack with others must make no difference
        smooth = self.penalty in ("l2", None) and self._loss(self.n_outputs_).smooth
        rounded = self.precision == "bfloat16"
        if steps != ("auto", "auto", "auto") or self.callbacks or not smooth or rounded:
            return False
        n, d, c = problem.n_rows, problem.source.shape[1], self.n_outputs_
        if newton_params is None and c * (d + 1) <= Newton.max_params:
            exact = _NEWTON_STEPS * n * c * (c + 1) * d**2
        elif self._has_preconditioner():
            exact = _LBFGS_STEPS * n * 4 * c * d * problem.density + n * c * d**2
        else:
            exact = _PLAIN_STEPS * n * 4 * c * d * problem.density
        # with steps of as few rows as dense ones: what they cost at least
        rows = batch_rows(self, problem, "sgd")
        return exact <= _STEPS * (rows * 4 * c * d * problem.density + _STEP_OVERHEAD)

    def _has_preconditioner(self) -> bool:
        return Preconditioner.fits(self._training_loss(self.n_outputs_), self.n_outputs_, self.n_features_in_ + 1)

    def _max_newton_params(self) -> int | None:
        """Up to how many parameters the exact solver takes Newton steps; None for what suits a tight tolerance."""
        # a Hessian is the work of (C + 1) d / 4 gradients
        limit = _NEWTON_SIZE if self._has_preconditioner() else _PLAIN_NEWTON_SIZE
        dear = (self.n_outputs_ + 1) * self.n_features_in_ > limit
        return 0 if self.solver == "auto" and dear else None

    def _network(self, recipe, problem, members, warm) -> Linear:
        n_models, n_outputs = len(members), recipe.n_outputs
        tensor: dict[str, Any] = {"device": problem.device, "dtype": problem.dtype}
        variables: dict[str, Any] = {}
        exact = recipe.solver == "exact"
        if self.standardize or exact:
            columns, total_weight = column_statistics(problem, members), total_weights(problem, members)
            penalty, curvature = recipe.penalty(members, total_weight, total_weight), recipe.judged_by.curvature
            auto = np.isnan(values(members, "alpha"))
            variables = change_of_variables(
                problem,
                columns,
                penalty,
                auto,
                curvature(n_outputs),
                fit_intercept=self.fit_intercept,
                exact=exact,
                products=recipe.products,
            )
        zeros = sparse_weight if issparse(problem.X) else torch.zeros
        coef = zeros(n_models, n_outputs, problem.X.shape[1], **tensor)
        intercept = torch.zeros(n_models, n_outputs, **tensor) if self.fit_intercept else None
        network = Linear(coef, intercept, **variables)
        if warm:
            known = (np.asarray(dense(part), dtype=np.float64) for part in (self.coef_, self.intercept_))
            network.restore(*known)
        return network

    @property
    def _needs_float64(self):
        return "float64" in (dtype_name(self.coef_.dtype), dtype_name(self.intercept_.dtype))

    @property
    def _exceeds_float32(self):
        return exceeds_float32(dense(self.coef_), dense(self.intercept_))

    def _trained_network(self, device, dtype) -> Linear:
        known = [as_tensor(dense(part)[None]) for part in (self.coef_, self.intercept_)]
        coef, intercept = (to_device(part, device, dtype) for part in known)
        return Linear(coef, intercept)

    def _learned(self, network, model, dtype, space):
        # copies: "contiguous" leaves the stride of an axis of one as it is, and products round by strides
        coef, intercept = (part.copy() for part in network.learned(model, dtype))
        return {"coef_": space.array(coef), "intercept_": space.array(intercept)}

    def _map_scores(self, matrix, offsets):
        space, coef, intercept = OutputSpace(self.coef_), dense(self.coef_), dense(self.intercept_)
        with np.errstate(all="ignore"):
            mapped = (matrix.T @ coef).astype(coef.dtype)
        if not np.isfinite(mapped).all():
            raise ValueError(
                f"calibration={self.calibration!r} makes coefficients of columns this small overflow. Scale the "
                "columns of X (StandardScaler), or use calibration='temperature'."
            )
        self.coef_ = space.array(mapped)
        self.intercept_ = space.array((intercept @ matrix + offsets).astype(intercept.dtype))

    def _rates(self, recipe, problem, network, members):
        rates = values(members, "learning_rate_init")
        derived = np.isnan(rates)
        if recipe.solver != "sgd":
            rates[derived] = 0.01
        elif derived.any():
            rates[derived] = _derived_rates(recipe, problem, network, members)[derived]
        return rates


def _derived_rates(recipe: Recipe, problem: Problem, network: Linear, members: list[Member]) -> np.ndarray:
    """Step sizes from the data.

    1 / L, the step that suits the full gradient with any momentum; and the noise of a batch, which momentum adds up
    over 1 / (1 - momentum) steps, must stay below the signal.
    """
    curvature = recipe.judged_by.curvature(recipe.n_outputs)
    largest, trace = gram_extents(problem.rows(), [m.rows for m in members], network.center, network.scale)
    n = np.array([member.n_rows(problem) for member in members])
    spread = [1.0 if m.weight is None else m.weight.max() / m.weight[m.weight > 0].mean() for m in members]
    size = int(np.minimum(recipe.batch_rows, n).max())
    noise = np.array(spread) * trace * (1 / size - 1 / n) / (1 - values(members, "momentum"))
    return 1 / (curvature * (largest + np.maximum(noise, 0.0)))
