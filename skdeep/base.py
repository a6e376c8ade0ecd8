"""What all estimators share: from validated input to a trained stack and back to scikit-learn's attributes."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.multiclass import _check_partial_fit_first_call

from skdeep._methods import available_unless, rollback
from skdeep._stack import vector
from skdeep._threads import threads_for
from skdeep.batching import Batches
from skdeep.callbacks import make_observer
from skdeep.encoding import EncodingMixin
from skdeep.inputs import (
    OutputSpace,
    float_dtype,
    n_columns,
    to_numpy,
)
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.optimizers import OPTIMIZERS
from skdeep.penalties import PENALTIES, ElasticNet
from skdeep.prediction import PredictionMixin
from skdeep.problem import CHUNK_ROWS, Problem, TrainingState, make_monitor
from skdeep.quasi_newton import minimise
from skdeep.schedules import SCHEDULES
from skdeep.training import Plan, Progress, train

#: Where results go that only we look at.
_NUMPY = OutputSpace(np.empty(0))


def _no_partial_fit(estimator) -> str | None:
    """Why partial_fit is absent, or None."""
    if estimator.early_stopping:
        return "early_stopping=True: a single pass has no validation history. Use fit, or early_stopping=False."
    if estimator.solver == "lbfgs":
        return "solver='lbfgs', which needs all data at once. Use solver='sgd' or 'adam'."
    if isinstance(estimator.class_weight, str):
        return (
            "class_weight='balanced', since the class frequencies of the whole data are not known. Compute them with "
            "sklearn.utils.compute_class_weight and pass the dictionary."
        )
    if getattr(estimator, "calibration", None) is not None:
        return "calibration, which needs all data at once. Use calibration=None."
    return None


class BaseTorchClassifier(CallbackSupportMixin, EncodingMixin, PredictionMixin, ClassifierMixin, BaseEstimator):
    """Base of the estimators. A subclass says what its loss, its network and its fitted attributes are."""

    _parameter_constraints: dict = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({*OPTIMIZERS, "lbfgs"})],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
        "max_grad_norm": [None, Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "scoring": [None, StrOptions({"loss", *get_scorer_names()}), callable],
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "callbacks": [None, "array-like", HasMethods("on_epoch_end")],
        "verbose": ["verbose"],
    }

    validation_scores_: Any
    validation_loss_curve_: Any
    best_validation_score_: Any
    #: Whether the penalty acts through its proximal map (else through its gradient).
    _proximal = True

    # ---- what a subclass defines ----------------------------------------------------------------------------------

    def _penalty(self, mean_weight: np.ndarray, batch_rows: int) -> ElasticNet:
        """The penalty of each model of a stack."""
        raise NotImplementedError

    def _new_network(self, problem: Problem, generators, subsets, weight, state: TrainingState, warm: bool) -> Network:
        """The network before training: initial, or (`warm`, one model) that of the fitted attributes."""
        raise NotImplementedError

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict:
        """The fitted attributes that hold one model's parameters."""
        raise NotImplementedError

    def _initial_rates(self, problem: Problem, network: Network, subsets, weight, batch_rows: int) -> np.ndarray:
        """The learning rate each model of a stack starts with."""
        return vector(self.learning_rate_init, len(subsets))

    def _after_fit(self, problem: Problem, seed: int, max_iter: int) -> None:
        """What remains to be learnt once the model is trained, in so many epochs at most."""

    # ---- scikit-learn's methods -----------------------------------------------------------------------------------

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the classifier.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Training data. Sparse data is never made dense as a whole.
        y : array-like of shape (n_samples,)
            Class labels of any type. The MLP also takes (n_samples, n_labels) label indicators.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample; None counts each once. A weight of 2 is the same sample given twice, 0 none at all.
        X_val, y_val : array-like, default=None
            Validation data to watch after each epoch, instead of a part of the training data. Without
            ``early_stopping`` it is only recorded.
        sample_weight_val : array-like, default=None
            Weights of the validation samples.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If the data is malformed, the device is not there, or the loss becomes non-finite. What was learned before
            is kept.
        """
        with rollback(self):
            return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val))

    @available_unless(_no_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on this data, going on from where the last call stopped.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,)
            Class labels.
        classes : array-like of shape (n_classes,), default=None
            All classes that may ever come; required on the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample.

        Returns
        -------
        self : object
            The classifier.
        """
        with rollback(self):
            table = self._multilabel and n_columns(y) > 1
            if _check_partial_fit_first_call(self, classes) and table:
                self.classes_ = np.arange(n_columns(y))
            self._target_is_multilabel = getattr(self, "_target_is_multilabel", table)
            return self._fit(X, y, sample_weight, (None, None, None), incremental=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        tags.classifier_tags.multi_label = self._multilabel
        return tags

    # ---- from problem to a trained model --------------------------------------------------------------------------

    def _fit(self, X, y, sample_weight, validation, incremental=False):
        going_on = hasattr(self, self._coef_attribute) and (incremental or self.warm_start)
        if (validation[0] is None) != (validation[1] is None):
            raise ValueError("X_val and y_val belong together; pass both or neither.")
        if validation[0] is None and validation[2] is not None:
            raise ValueError("sample_weight_val was given without X_val and y_val.")
        problem = self._problem(X, y, sample_weight, going_on, incremental)
        held_out = None if validation[0] is None else self._validation_problem(*validation, problem)
        seed, split_seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=2)
        state = copy.deepcopy(getattr(self, "_optimizer", None)) if going_on else None
        state = state or TrainingState(np.random.default_rng(seed))
        if not incremental:
            state.epochs, state.reduction = 0, 1.0  # a new run of the schedule
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        task = None if incremental else self._begin_task(X, y, metadata)
        n_params = self._n_params(problem.X.shape[1], self.n_outputs_)
        with threads_for(int(n_params * max(1.0, self._batch_rows(problem) * problem.density))):
            progress = self._train(problem, held_out, state, split_seed, going_on, incremental, task, OutputSpace(X))
            self._after_fit(problem, split_seed, progress.n_iter if progress.interrupted else self.max_iter)
        if not incremental:
            self._warn(progress)
        if task is not None:
            task.call_on_fit_task_end(estimator=self, X=X, y=y, metadata=metadata, reconstruction_attributes={})
        return self

    def _train(self, problem, held_out, state, split_seed, going_on, incremental, task, space) -> Progress:
        """Train one model on a problem and set the fitted attributes."""
        splits = self.early_stopping and held_out is None
        fraction = self.validation_fraction if splits else None
        merge = self._batch_rows(problem) == problem.n_rows
        subset, weight, split_off = problem.split(split_seed, fraction, merge, self.classes_)
        held_out = held_out or split_off
        network = self._new_network(problem, [state.generator], [subset], weight, state, going_on)
        progress, max_iter = self._progress(going_on), 1 if incremental else self.max_iter
        observer = None
        if self.verbose or self.callbacks or task is not None:
            part = problem.take(subset) if splits else problem
            observer = self._observer(part, held_out, max_iter, task)
        monitor = None
        if held_out is not None:
            labels = self._labels(held_out.codes)
            monitor = make_monitor(held_out, self._loss(self.n_outputs_), self.scoring, labels, self._fitted_copy)
        self._run(problem, network, [state], [subset], weight, [progress], max_iter, monitor, observer)
        self._conclude(network, progress, state, incremental, float_dtype(problem.X), space)
        self.__dict__.pop("history_", None)
        history = getattr(observer, "history", None)
        if history is not None:
            self.history_ = history
        return progress

    def _observer(self, problem: Problem, held_out: Problem | None, max_iter: int, task):
        """What speaks to callbacks; None if nobody listens."""
        weight, dtype, space = problem.sample_weight, float_dtype(problem.X), OutputSpace(problem.X)
        return make_observer(
            self,
            callbacks=self.callbacks,
            verbose=self.verbose,
            context=task,
            X=problem.X,
            y=self._labels(problem.codes),
            metadata=None if weight is None else {"sample_weight": weight},
            snapshot=lambda network: self._learned(network, 0, dtype, space),
            validation=None if held_out is None else (held_out.X, self._labels(held_out.codes)),
            max_iter=max_iter,
            batch_size=self._batch_rows(problem),
        )

    def _fitted_copy(self, network: Network, model: int) -> BaseTorchClassifier:
        """An estimator with the parameters of one model, to score."""
        estimator = copy.copy(self)
        estimator.__dict__.update(self._learned(network, model, np.dtype(np.float64), _NUMPY))
        estimator.__dict__.pop("feature_names_in_", None)  # validated arrays have no names
        return estimator

    def _begin_task(self, X, y, metadata):
        """Scikit-learn's context of the whole fit; None when no callback listens."""
        context = self._init_callback_context(max_subtasks=self.max_iter)
        if not getattr(self, "_skl_callbacks", None) and not hasattr(self, "_parent_callback_ctx"):
            return None
        return context.call_on_fit_task_begin(estimator=self, X=X, y=y, metadata=metadata)

    def _batch_rows(self, problem: Problem) -> int:
        """Rows per step."""
        if self.solver == "lbfgs":
            return problem.n_rows
        return min(200 if self.batch_size == "auto" else self.batch_size, problem.n_rows)

    def _progress(self, going_on: bool) -> Progress:
        """A fresh record, or the one to go on with."""
        progress = Progress(self.tol, self.n_iter_no_change, self.early_stopping)
        if not going_on:
            return progress
        progress.samples = getattr(self, "t_", 0)
        progress.no_improvement = getattr(self, "_no_improvement_count", 0)
        best_loss = getattr(self, "best_loss_", None)
        progress.best_loss = np.inf if best_loss is None else best_loss
        if getattr(self, "best_validation_score_", None) is not None:
            progress.best_score = self.best_validation_score_
            at_best = self.validation_scores_.index(progress.best_score)
            progress.best_validation_loss = self.validation_loss_curve_[at_best]
        return progress

    def _run(self, problem, network, states, subsets, weight, progress, max_iter, monitor=None, observer=None) -> None:
        """Train a stack of models, each on its own rows; the estimator itself is not touched.

        Parameters
        ----------
        problem : Problem
        network : Network
            Of K models.
        states : list of TrainingState
        subsets : list of (ndarray or None)
            Rows of each model.
        weight : ndarray of shape (n,) or None
        progress : list of Progress
            Receives the result.
        max_iter : int
        monitor, observer
            See `skdeep.training.train`.
        """
        n_models = network.n_models
        n_rows = np.array([problem.X.shape[0] if s is None else len(s) for s in subsets])
        mean_weight = np.ones(n_models)
        if weight is not None:
            mean_weight = np.array([(weight if s is None else weight[s]).mean() for s in subsets])
        batch_rows = min(self._batch_rows(problem), int(n_rows.max()))
        penalty = self._penalty(mean_weight, batch_rows)
        loss = self._loss(self.n_outputs_)
        data = (problem.rows(), problem.tensor(problem.target), None if weight is None else problem.tensor(weight))
        if self.solver == "lbfgs":
            self._check_smooth(loss, penalty)
            for m in range(n_models):
                one, chunk = np.array([m]), min(CHUNK_ROWS, int(n_rows[m]))
                batches = Batches(*data, subsets[m], [states[m].generator], chunk, shuffle=False)
                minimise(
                    network.select(one),
                    loss,
                    penalty.select(one),
                    batches,
                    mean_weight[one],
                    max_iter,
                    self.max_fun,
                    progress[m],
                    monitor,
                    observer,
                )
            return
        rates = self._initial_rates(problem, network, subsets, weight, batch_rows)
        optimizer = OPTIMIZERS[self.solver](
            network.params,
            rates * [state.reduction for state in states],
            vector(self.momentum, n_models),
            self.nesterovs_momentum,
            (self.beta_1, self.beta_2),
            self.epsilon,
        )
        if states[0].optimizer is not None and states[0].solver == self.solver:
            optimizer.load(states[0].optimizer)
        generators = [state.generator for state in states]
        batches = Batches(*data, subsets if n_models > 1 else subsets[0], generators, batch_rows, self.shuffle)
        plan = Plan(
            max_iter,
            self.max_iter,
            states[0].epochs,
            self.learning_rate,
            self.power_t,
            self.warmup_epochs,
            self.max_grad_norm,
            self._proximal or self.solver == "adamw",
        )
        train(network, loss, penalty, optimizer, batches, mean_weight, plan, progress, monitor, observer)
        for state, p, rate in zip(states, progress, rates, strict=True):
            state.reduction = p.optimizer_state["learning_rate"] / rate
            state.epochs += p.n_iter

    def _check_smooth(self, loss: Loss, penalty: ElasticNet) -> None:
        if loss.smooth and penalty.smooth:
            return
        culprit = "this loss" if not loss.smooth else f"penalty={getattr(self, 'penalty', 'l2')!r}"
        raise ValueError(
            f"solver='lbfgs' needs a smooth objective, and {culprit} has kinks. Use solver='sgd', 'adam' or 'adamw', "
            "or a smooth choice (loss='squared_hinge', penalty='l2')."
        )

    # ---- fitted attributes ----------------------------------------------------------------------------------------

    def _conclude(self, network, progress: Progress, state, incremental, dtype, space) -> None:
        """Set the fitted attributes; warn of what the user should know."""
        if progress.error is not None:
            raise ValueError(
                f"Training diverged: {progress.error}. Lower learning_rate_init, set max_grad_norm, or scale the "
                "columns of X (StandardScaler). The estimator is as it was before."
            )
        final = network.with_params(progress.params)
        self.__dict__.update(self._learned(final, 0, dtype, space))
        previous = getattr(self, "loss_curve_", []) if incremental or self.warm_start else []
        self.n_iter_ = progress.n_iter
        self.t_ = progress.samples
        self.loss_curve_ = [*previous, *progress.loss_curve]
        self.loss_ = progress.loss_curve[-1]
        self.best_loss_ = None if progress.watch_score else min(progress.best_loss, *progress.loss_curve)
        goes_on = incremental or self.warm_start
        scores = (getattr(self, "validation_scores_", None) if goes_on else None) or []
        losses = (getattr(self, "validation_loss_curve_", None) if goes_on else None) or []
        self.validation_scores_ = [*scores, *progress.validation_scores] or None
        self.validation_loss_curve_ = [*losses, *progress.validation_losses] or None
        self.best_validation_score_ = max(self.validation_scores_) if self.validation_scores_ else None
        state.optimizer = progress.optimizer_state or None
        state.solver = self.solver
        if state.optimizer is not None:
            factor = SCHEDULES[self.learning_rate](np.zeros(1), np.array([self.t_]), self.power_t)
            state.learning_rate = float(np.squeeze(state.optimizer["learning_rate"] * factor))
        self._optimizer = state
        self._no_improvement_count = progress.no_improvement

    def _warn(self, progress: Progress) -> None:
        """Say what the user should know of the run; attributed to the line that called ``fit``."""
        if progress.interrupted:
            message = f"after {progress.n_iter} epochs; the model keeps the best weights so far."
            warnings.warn(f"Training interrupted by user {message}", stacklevel=6)
        elif progress.stopped is None and (finding := self._distance_from_convergence(progress)):
            if self.solver == "lbfgs":
                advice = "Increase max_iter or max_fun, or scale the columns of X."
            else:
                advice = "Increase max_iter, raise learning_rate_init, or accept it with a larger tol."
            message = f"Maximum iterations ({self.max_iter}) reached and the optimization hasn't converged yet"
            warnings.warn(f"{message}: {finding} (tol={self.tol:g}). {advice}", ConvergenceWarning, stacklevel=6)

    def _distance_from_convergence(self, progress: Progress) -> str | None:
        """What was still moving at the end; None if nothing was."""
        gain, span = progress.recent_gain()
        if progress.watch_score:
            span = int(min(self.n_iter_no_change, progress.n_iter - 1))
            before, lately = progress.validation_scores[:-span], progress.validation_scores[-span:]
            if span and before and max(lately) <= max(before) + self.tol:
                return None  # only the validation loss was still falling
            return f"the validation score still rose within the last {max(span, 1)} epochs"
        if span == 0:
            return "there is only one epoch to judge by"
        if gain <= self.tol and np.isfinite(self.n_iter_no_change) and self.solver != "lbfgs":
            return None  # max_iter came before the stopping rule, but nothing was moving any more
        share = gain / max(abs(progress.loss_curve[-1]), np.finfo(float).tiny)
        return f"the training loss still fell by {gain:.3g} ({share:.2%}) over the last {span} epochs"


def make_penalty(name: str | None, alpha: np.ndarray, l1_ratio: float) -> ElasticNet:
    """The penalty of that name, for each model of a stack."""
    return PENALTIES[name](alpha, vector(l1_ratio, len(alpha)))


def dense(coef) -> np.ndarray:
    """Coefficients as a NumPy array, whatever they are kept as."""
    return coef.toarray() if sparse.issparse(coef) else to_numpy(coef)
