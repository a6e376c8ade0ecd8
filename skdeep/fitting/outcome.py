"""What came of training, and what users should know of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skdeep.data.inputs import Classifier, float_dtype
from skdeep.data.problem import Problem
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Linear, Network
from skdeep.engine.per_model import to_numpy64
from skdeep.engine.training import Monitor, Progress
from skdeep.fitting.exactly import GAP
from skdeep.fitting.recipe import Member, Recipe
from skdeep.fitting.settings import FULL_BATCH, settings_of

#: Makes the monitor of some data, of all models or of each, by a loss and a score.
Judge = Callable[[list[Problem], Loss, str | Callable | None], Monitor]

#: Share of the loss of scores of zero that a training loss may be above it: a plateau at it is no accident.
_SLACK = 0.05
#: A loss of values, in units of their own, that is as good as none.
_NOTHING = 1e-3
#: Coefficients that are zero, within a duality gap.
_NO_WEIGHT = 1e-5
#: Epochs whose losses say whether the last step may have been one too many.
_RECENT = 3


def look_at_end(recipe: Recipe, problem: Problem, network: Network, members: list[Member], judge: Judge) -> None:
    """Note which models their steps have led away from the optimum.

    That is said of a model that knows less about its training data than scores of zero do, or whose objective has
    risen above that and above the first epoch's. The loss of an epoch is the models' before its last step,
    which may have been one too many, so that models in doubt are asked again. A model whose validation score is
    watched has been judged by that.

    `judge` makes the monitor of some data, by a loss and a score.
    """
    loss = recipe.loss
    # full batches begin at zero, and descend
    descends = isinstance(network, Linear) and recipe.solver in FULL_BATCH and not members[0].progress.warm
    largest = float(np.finfo(float_dtype(problem.source)).max)  # of the numbers that predictions are made of
    for m, member in enumerate(members):
        p = member.progress
        if p.error is not None or p.params is None or p.watch_score:
            continue
        is_huge = p.size > largest**0.4 if p.size else _are_huge(p.params, largest)
        if descends and not is_huge:
            continue
        of_zero = _loss_of_zero(recipe, problem, member)
        limit = (1 + _SLACK) * of_zero
        if max(p.loss_curve[-_RECENT:]) <= limit and not is_huge:
            continue
        first, last = p.loss_curve[0], p.loss_curve[-1]
        on_its_way = p.stopped is None and last < 100 * limit and not is_huge
        if on_its_way and _distance_from_convergence(member.estimator, recipe.solver, p):
            continue  # the user is told that
        own = np.array([m])
        (reached,) = judge([problem.counted()], loss, "loss")(network.select(own).with_params(p.params), own)[
            1
        ].tolist()
        if not reached <= largest:  # predictions would overflow
            p.error = f"the training loss became {reached:.3g} after epoch {p.n_iter}"
        elif reached > limit:
            p.astray = f"the training loss is {reached:.3g}, where scores of zero have {of_zero:.3g}"
        elif last > max(first, limit):
            p.astray = f"the objective has risen from {first:.3g} to {last:.3g}"


def _loss_of_zero(recipe: Recipe, problem: Problem, member: Member) -> float:
    """Compute the loss of scores of zero, which is the same for all classes."""
    loss = recipe.loss
    if loss.target == "values":
        values = torch.from_numpy(member.own(problem.target))
        found = loss.value(torch.zeros_like(values), values).numpy()
        return max(float(np.average(found, weights=member.own_weight)), _NOTHING)
    zero = torch.zeros(1, recipe.n_outputs, dtype=torch.float64, device="cpu")
    target = zero if loss.target == "indicators" else torch.zeros(1, dtype=torch.int64, device="cpu")
    return loss.value(zero, target).item()


def _are_huge(params: list[torch.Tensor], largest: float) -> bool:
    """Tell whether a step has made parameters so large that products with the rows may exceed the `largest` number."""
    if all(param.is_cpu and param.dtype is torch.float64 for param in params):
        found = [float(np.abs(to_numpy64(param)).max(initial=0.0)) for param in params]  # a third of torch's time
    else:
        # a module may count batches, or have nothing of a kind
        params = [param.detach() for param in params if param.is_floating_point() and param.numel()]
        largest_ones = [param.abs().max().to(torch.float32) for param in params]
        found = list(to_numpy64(torch.stack(largest_ones))) if params else []
    return any(value > largest**0.4 for value in found)


def warn(estimator: Classifier, solver: str, progress: Progress) -> None:
    """Say what the user should know of the run; attributed to the line that called ``fit``."""
    if progress.interrupted:
        message = f"after {progress.n_iter} epochs; the model keeps the best weights so far."
        warnings.warn(f"Training interrupted by user {message}", stacklevel=7)
    elif progress.stopped is None and solver == "exact":
        message = f"The optimum was not reached within {progress.n_iter} iterations (max_iter={estimator.max_iter})"
        if progress.n_iter < estimator.max_iter:
            message = f"Rounding ended the search for the optimum after {progress.n_iter} iterations"
        gap = f"the relative duality gap is {progress.certificate:.2g}, more than tol / 100 = {GAP * estimator.tol:.2g}"
        warnings.warn(f"{message}: {gap}. Increase max_iter, or tol.", ConvergenceWarning, stacklevel=7)
    elif progress.stopped is None and (finding := _distance_from_convergence(estimator, solver, progress)):
        limit, advice = f"iterations ({estimator.max_iter})", "Increase max_iter"
        if progress.n_iter < estimator.max_iter:  # full batches alone have another limit
            limit = f"evaluations of the objective (max_fun={settings_of(estimator, solver).max_fun})"
            advice = "Increase max_fun (of the solver)"
        if solver == "lbfgs":
            advice = f"{advice}, or scale the columns of X."
        else:
            advice = f"{advice}, raise learning_rate_init (of the solver), or accept it with a larger tol."
        message = f"Maximum {limit} reached and the optimization hasn't converged yet"
        warnings.warn(f"{message}: {finding} (tol={estimator.tol:g}). {advice}", ConvergenceWarning, stacklevel=7)
    elif progress.astray is not None:
        advice = "Scale the columns of X (StandardScaler)"
        if solver != "lbfgs":
            risen = progress.loss_curve[-1] > progress.loss_curve[0]
            steps = "lower learning_rate_init" if risen else "increase max_iter, change learning_rate_init"
            advice = f"{advice}, or {steps} (of the solver)"
        warnings.warn(f"Training came to nothing: {progress.astray}. {advice}.", ConvergenceWarning, stacklevel=7)
    elif solver == "exact" and getattr(estimator, "loss", "") == "hinge" and _tells_nothing_apart(estimator, progress):
        warnings.warn(
            "All coefficients are zero at the optimum, so that all rows have the same answer: of a rare class that "
            "overlaps with others, hinges do best to take no notice. Use loss='squared_hinge', class_weight='balanced' "
            "or a SoftmaxClassifier.",
            stacklevel=7,
        )


def _tells_nothing_apart(estimator: Classifier, progress: Progress) -> bool:
    """Tell whether columns of the order of one have no weight, and nobody has asked for it by penalties or weights."""
    assert progress.params is not None
    is_asked = estimator.alpha != "auto" or estimator.class_weight is not None
    return estimator.standardize and not is_asked and float(np.abs(to_numpy64(progress.params[0])).max()) < _NO_WEIGHT


def divergence(error: str) -> ValueError:
    """Make the error of a model that cannot be used."""
    return ValueError(
        f"Training diverged: {error}. Lower learning_rate_init or set max_grad_norm (of the solver), or scale the "
        "columns of X (StandardScaler). The estimator is as it was before."
    )


def _distance_from_convergence(estimator: Classifier, solver: str, progress: Progress) -> str | None:
    """Say what was still moving at the end; None if nothing was."""
    gain, span = progress.recent_gain()
    if progress.watch_score:
        span = int(min(settings_of(estimator).patience, progress.n_iter - 1))
        scores = [progress.start_score, *progress.validation_scores]
        before = scores[: progress.n_iter + 1 - span] if span else scores[:1]
        if max(progress.validation_scores[-span:]) <= max(before) + estimator.tol:
            return None  # only the validation loss was still falling
        return f"the validation score still rose within the last {max(span, 1)} epochs"
    if span == 0:
        return "there is only one epoch to judge by"
    if gain <= estimator.tol and np.isfinite(settings_of(estimator).patience) and solver != "lbfgs":
        return None  # max_iter came before the stopping rule, but nothing was moving any more
    share = gain / max(abs(progress.loss_curve[-1]), 1e-9 * abs(gain), np.finfo(float).tiny)
    return f"the training loss still fell by {gain:.3g} ({share:.2%}) over the last {span} epochs"
