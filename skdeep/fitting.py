"""From a validated problem to trained estimators: a stack of them, of which a plain ``fit`` has one."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator

from skdeep._threads import threads_for
from skdeep.batching import Batches
from skdeep.callbacks import make_observer
from skdeep.columns import Columns
from skdeep.encoding import FULL_BATCH, EncodingMixin, draw_seeds
from skdeep.inputs import OutputSpace, float_dtype
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.optimizers import OPTIMIZERS
from skdeep.outcome import OutcomeMixin
from skdeep.penalties import ElasticNet
from skdeep.prediction import PredictionMixin
from skdeep.problem import Problem, TrainingState, chunk_rows, make_monitor
from skdeep.quasi_newton import minimise
from skdeep.schedules import SCHEDULES
from skdeep.scoring import try_scoring
from skdeep.starts import StartsMixin, identify
from skdeep.training import Plan, Progress, judge_start, train

#: Where results go that only we look at.
_NUMPY = OutputSpace(np.empty(0))


def values(members: list, name: str) -> np.ndarray:
    """A hyper-parameter of the members of a stack: one float64 per model, NaN where it is "auto"."""
    given = (getattr(member, name) for member in members)
    return np.array([np.nan if value == "auto" else value for value in given], dtype=np.float64)


def model_weights(weight: np.ndarray | None, n_models: int) -> list[np.ndarray | None]:
    """The weights (n,) of each model's rows; one object where all share them."""
    return [weight] * n_models if weight is None or weight.ndim == 1 else list(weight)


def mean_weights(weight: np.ndarray | None, subsets: list[np.ndarray | None]) -> np.ndarray:
    """Mean weight of each model's rows."""
    of_models = model_weights(weight, len(subsets))
    pairs = zip(of_models, subsets, strict=True)
    return np.array([1.0 if w is None else (w if s is None else w[s]).mean() for w, s in pairs])


def column_statistics(problem: Problem, subsets, weight, states: list[TrainingState]) -> list[Columns]:
    """Statistics of the columns of each model's rows; kept in the `states`, where they are added to those there."""
    columns = Columns.of_models(problem.rows(), subsets, model_weights(weight, len(subsets)), states[0].columns)
    for state, own in zip(states, columns, strict=True):
        state.columns = own
    return columns


class FittingMixin(StartsMixin, OutcomeMixin, EncodingMixin, PredictionMixin, BaseEstimator):
    """Trains the *members* of a stack: estimators that differ in `stackable` parameters only.

    The first member, self, speaks for all of them in everything else.
    """

    #: Parameters in which the members of a stack may differ.
    stackable = frozenset(
        "alpha l1_ratio learning_rate_init momentum class_weight random_state tol n_iter_no_change".split()
    )

    def _stackable_now(self) -> frozenset[str]:
        """Parameters in which members may differ, given the others: splits of the rows follow from one seed."""
        return self.stackable - {"random_state"} if self._splits_rows() else self.stackable

    def _is_proximal(self, penalty: ElasticNet) -> bool:
        """Whether the penalty acts through its proximal map (else through its gradient)."""
        return self.solver_ == "adamw"

    def _splits_rows(self) -> bool:
        return self.early_stopping

    def _leave_out_probabilities(self) -> None:
        """Drop the part of training that neither `predict` nor `decision_function` depends on."""

    # ---- what a subclass defines ----------------------------------------------------------------------------------

    def _training_loss(self, n_outputs: int) -> Loss:
        """What is minimised, where that is not the loss that validation data is judged by."""
        return self._loss(n_outputs)

    def _penalty(self, members: list, total_weight: np.ndarray, batch_weight: np.ndarray) -> ElasticNet:
        """The penalty of each model of a stack, given the weight of its training rows and of a batch on average."""
        raise NotImplementedError

    def _new_network(
        self, members: list, problem: Problem, generators, subsets, weight, states: list[TrainingState], warm: bool
    ) -> Network:
        """The network before training: initial, or (`warm`, one model) that of the fitted attributes."""
        raise NotImplementedError

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict:
        """The fitted attributes that hold one model's parameters."""
        raise NotImplementedError

    def _of_training(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict:
        """All fitted attributes that predictions need, as training leaves them."""
        return self._learned(network, model, dtype, space)

    def _initial_rates(
        self, members: list, problem: Problem, network: Network, subsets, weight, batch_rows: int
    ) -> np.ndarray:
        """The learning rate each model of a stack starts with."""
        return values(members, "learning_rate_init")

    def _after_fit(self, members: list, problem: Problem, seed: int, progress: list[Progress]) -> None:
        """What remains to be learnt once the models are trained; a model that fails gets ``progress.error``."""

    # ---- from problem to trained models ---------------------------------------------------------------------------

    def _fit_alone(self, X, y, sample_weight, validation, incremental=False):
        (failure,) = self._fit(X, y, sample_weight, validation, incremental)
        if failure is not None:
            raise failure
        return self

    def _fit(self, X, y, sample_weight, validation, incremental=False, members=None) -> list[Exception | None]:
        """Train the members (None: this estimator alone) and set their fitted attributes; what went wrong, for each."""
        in_stack, members = members is not None, members or [self]
        going_on = self._goes_on(incremental)
        X_val, y_val, weight_val = validation
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together; pass both or neither.")
        if X_val is None and weight_val is not None:
            raise ValueError("sample_weight_val was given without X_val and y_val.")
        others = [member._begin(incremental) for member in members]
        problem = self._problem(members, X, y, sample_weight, going_on, incremental)
        if not incremental:
            self._warn_of_raw_columns(problem)
        held_out = None
        if X_val is not None:
            held_out = self._validation_problem(members, X_val, y_val, weight_val, problem)
        seeds = [draw_seeds(member.random_state) for member in members]
        # members of one seed share their generator, and with it their batches
        generators = {seed: np.random.default_rng(seed[0]) for seed in seeds}
        known = self._state(incremental)
        states = [known] if known else [TrainingState(generators[seed], seed[1]) for seed in seeds]
        split_seed = states[0].split_seed
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        task = None if incremental or len(members) > 1 else self._begin_task(X, y, metadata)
        n_params = len(members) * self._n_params(problem.X.shape[1], self.n_outputs_)
        with threads_for(int(n_params * max(1.0, self._batch_rows(problem) * problem.density))):
            progress, network, observer = self._train(
                members, problem, held_out, states, split_seed, going_on, incremental, task
            )
            if in_stack and any(p.interrupted for p in progress):
                raise KeyboardInterrupt  # it is the search that the user wants to end
            params = self.get_params(deep=False) if in_stack else vars(self)
            shared = {k: v for k, v in vars(self).items() if k not in params}
            each = np.arange(network.n_models).reshape(len(members), -1)  # an ensemble has several models
            for m, (member, p) in enumerate(zip(members, progress, strict=True)):
                if m:
                    member.__dict__.update(shared)
                if p.error is None:
                    own = network if len(members) == 1 else network.select(each[m])
                    member._conclude(own, p, states[m], incremental, float_dtype(problem.X), OutputSpace(X))
            self.__dict__.pop("history_", None)
            if (history := getattr(observer, "history", None)) is not None:
                self.history_ = history
            self._after_fit(members, problem, split_seed, progress)
        for member, names in zip(members, others, strict=True):
            member._end(names)
        for member, p in zip(members, progress, strict=True):
            if p.error is None and not incremental:
                member._warn(p)
        if task is not None:
            task.call_on_fit_task_end(estimator=self, X=X, y=y, metadata=metadata, reconstruction_attributes={})
        return [None if p.error is None else _divergence(p.error) for p in progress]

    def _train(self, members, problem, held_out, states, split_seed, going_on, incremental, task):
        """Train the models of a stack on a problem; their progress, their network, and the observer of a single one."""
        splits = self.early_stopping and held_out is None
        fraction = self.validation_fraction if splits else None
        merge = self._batch_rows(problem) == problem.n_rows
        subset, weight, split_off = problem.split(split_seed, fraction, merge, self.classes_)
        held_out = held_out or split_off
        if held_out is not None:
            self._try_scoring(held_out)
        subsets = [subset] * len(members)
        generators, is_new = [state.generator for state in states], identify(problem, members, states)
        network = self._new_network(members, problem, generators, subsets, weight, states, going_on)
        max_iter, epochs = (1, 1) if incremental else (self.max_iter, self._epochs)
        if going_on and not incremental and is_new:
            states[0].seen_before = getattr(self, "t_", 0)
        pairs = zip(members, states, strict=True)
        progress = [member._progress(going_on, incremental, state) for member, state in pairs]
        observer = None
        if len(members) == 1 and (self.verbose or self.callbacks or task is not None):
            part = problem.take(subset) if splits else problem
            observer = self._observer(part, held_out, max_iter, task)
        monitor = None
        if held_out is not None:
            loss = self._loss(self.n_outputs_)
            monitor = make_monitor([held_out], loss, self.scoring, self._labels, partial(self._fitted_copy, members))
        if going_on and (is_new or states[0].solver != self.solver_):
            states[0].trained = 0
        if going_on and not incremental:
            judge_start(network, progress, monitor)
            if is_new:
                network = self._better_start(network, problem, states, subsets, weight, progress[0])
        self._run(members, problem, network, states, subsets, weight, progress, epochs, monitor, observer)
        self._look_at_end(problem, network, progress)
        return progress, network, observer

    def _better_start(self, known, problem, states, subsets, weight, progress) -> Network:
        """The network to train on a problem that is not that of the last fit: the one known, or a new one.

        Where the objective of a new one is lower, there is more to unlearn than to learn.
        """
        state = states[0]
        state.optimizer = state.columns = None
        new = self._new_network([self], problem, [state.generator], subsets, weight, states, False)
        of_known, of_new = (self._objective(n, problem, states, subsets, weight) for n in (known, new))
        progress.warm = of_known <= of_new
        return known if progress.warm else new

    def _objective(self, network, problem, states, subsets, weight) -> float:
        """The objective of a network of one model, over all rows."""
        whole = problem if problem.subset is None else problem.take(problem.subset)
        loss = self._training_loss(self.n_outputs_)
        monitor = make_monitor([whole], loss, "loss", self._labels, partial(self._fitted_copy, [self]))
        penalty, *_ = self._terms([self], problem, states, subsets, weight)
        return float((monitor(network, np.arange(1))[1] + penalty.value(network.penalised()))[0])

    def _terms(self, members, problem, states, subsets, weight) -> tuple[ElasticNet, np.ndarray, np.ndarray, int]:
        """The penalty of each model of a stack, its number of rows and their mean weight; rows per batch at most."""
        n_rows = np.array([problem.X.shape[0] if s is None else len(s) for s in subsets])
        mean_weight = mean_weights(weight, subsets)
        batch_sizes = np.minimum(self._batch_rows(problem), n_rows)
        total_weight = mean_weight * n_rows + np.array([state.seen for state in states])
        penalty = self._penalty(members, total_weight, mean_weight * batch_sizes)
        return penalty, n_rows, mean_weight, int(batch_sizes.max())

    def _try_scoring(self, judged: Problem) -> None:
        """Raise, before any training, if ``scoring`` is not defined for the labels of the rows to judge by."""
        judged = judged if judged.subset is None else judged.take(judged.subset)
        try_scoring(self.scoring, self, judged.codes, self._labels(judged.codes), judged.sample_weight)

    def _observer(self, problem: Problem, held_out: Problem | None, max_iter: int, task):
        """What speaks to callbacks; None if nobody listens."""
        weight, dtype, space = problem.sample_weight, float_dtype(problem.X), OutputSpace(problem.X)

        def snapshot(network, progress=None):
            curves = {} if progress is None else self._curves(progress)
            return {**self._snapshot(network, dtype, space), **curves}

        return make_observer(
            self,
            callbacks=self.callbacks,
            verbose=self.verbose,
            context=task,
            X=problem.X,
            y=self._labels(problem.codes),
            metadata=None if weight is None else {"sample_weight": weight},
            snapshot=snapshot,
            validation=None if held_out is None else (held_out.X, self._labels(held_out.codes)),
            max_iter=max_iter,
            batch_size=self._batch_rows(problem),
        )

    def _snapshot(self, network: Network, dtype: np.dtype, space: OutputSpace) -> dict:
        """The fitted attributes for the present parameters, for callbacks, which may keep them."""
        return self._of_training(network, 0, dtype, space)

    def _fitted_copy(self, members: list, network: Network, at: int, model: int):
        """An estimator to score: `model` of the members' stack, with the parameters of number `at` of a network."""
        estimator, learned = copy.copy(self), self._of_training(network, at, np.dtype(np.float64), _NUMPY)
        estimator.__dict__.update(members[model].get_params(deep=False) | learned)
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
        if self.solver_ in FULL_BATCH:
            return problem.n_rows
        return min(200 if self.batch_size == "auto" else self.batch_size, problem.n_rows)

    @property
    def _epochs(self) -> int:
        """Epochs of a fit at most: some learning rates come to their end before ``max_iter``."""
        return self.max_iter if self.solver_ in FULL_BATCH else min(self.max_iter, self._schedule[1])

    def _epochs_of(self, steps: int, problem: Problem) -> int:
        """Epochs that so many steps take, rounded up."""
        return -(-steps // -(-problem.n_rows // self._batch_rows(problem)))

    def _run(
        self, members, problem, network, states, subsets, weight, progress, max_iter, monitor=None, observer=None
    ) -> None:
        """Train a stack of models; the estimators themselves are not touched.

        Parameters
        ----------
        members : list of estimators
            Whose hyper-parameters each model has.
        problem : Problem
        network : Network
            Of K models.
        states : list of TrainingState
        subsets : list of (ndarray or None)
            Rows of each model; the same object where models share them.
        weight : ndarray of shape (n,) or (K, n), or None
        progress : list of Progress
            Receives the result.
        max_iter : int
            Epochs at most; beyond the end of a schedule, it begins anew.
        monitor, observer
            See `skdeep.training.train`.
        """
        n_models = network.n_models
        penalty, n_rows, mean_weight, batch_rows = self._terms(members, problem, states, subsets, weight)
        loss = self._training_loss(self.n_outputs_)
        data = (problem.rows(), problem.tensor(problem.target), None if weight is None else problem.tensor(weight))
        own = subsets[0] if all(s is subsets[0] for s in subsets) else subsets
        if self.solver_ == "lbfgs":
            self._check_smooth(loss, penalty)
            # nothing is drawn: one generator for all, so that models of the same rows share their passes
            generators = [states[0].generator] * n_models
            chunk = max(1, chunk_rows(network, data[0]) // (n_models if isinstance(own, list) else 1))
            batches = Batches(*data, own, generators, chunk, shuffle=False)
            run = network, loss, penalty, batches, mean_weight, max_iter, self.max_fun, progress, monitor, observer
            minimise(*run, self._max_newton_params())
            return
        rates = self._initial_rates(members, problem, network, subsets, weight, batch_rows)
        optimizer = OPTIMIZERS[self.solver_](
            network.params,
            rates * [state.reduction for state in states],
            values(members, "momentum"),
            self.nesterovs_momentum,
            (self.beta_1, self.beta_2),
            self.epsilon,
        )
        if (known := states[0].optimizer) is not None and states[0].solver == self.solver_ and optimizer.fits(known):
            optimizer.load(known)
        generators = [state.generator for state in states]
        batches = Batches(*data, own, generators, batch_rows, self.shuffle)
        schedule, horizon = self._schedule
        if self.learning_rate == "auto" and schedule == "cosine":
            for p in progress:  # it ends by itself, and gains most at its end: to stand still before means nothing
                p.n_iter_no_change = p.n_iter_no_change if p.watch_score else np.inf
        plan = Plan(
            max_iter=max_iter,
            horizon=horizon,
            first_epoch=states[0].epochs,
            schedule=schedule,
            power_t=self.power_t,
            warmup_epochs=self.warmup_epochs,
            max_grad_norm=self.max_grad_norm,
            proximal=self._is_proximal(penalty),
            products=self._products(),
        )
        train(network, loss, penalty, optimizer, batches, mean_weight, plan, progress, monitor, observer)
        for state, p, rate, total in zip(states, progress, rates, mean_weight * n_rows, strict=True):
            if max_iter == horizon < min(self.max_iter, p.max_iter):
                p.stopped = p.stopped or f"The learning rate came to its end after {horizon} epochs."
            state.reduction, state.loss_to_beat = p.optimizer_state["learning_rate"] / rate, p.loss_to_beat
            state.epochs += p.n_iter
            state.seen += total
            state.generator = p.generator

    def _max_newton_params(self) -> int | None:
        """Up to how many parameters the exact solver takes Newton steps; None for what suits a tight tolerance."""
        return None

    def _check_smooth(self, loss: Loss, penalty: ElasticNet) -> None:
        if loss.smooth and penalty.smooth:
            return
        culprit = "this loss" if not loss.smooth else f"penalty={getattr(self, 'penalty', 'l2')!r}"
        raise ValueError(
            f"solver={self.solver!r} needs a smooth objective, and {culprit} has kinks. Use solver='sgd', 'adam' or "
            "'adamw', or a smooth choice (loss='squared_hinge', penalty='l2')."
        )

    # ---- fitted attributes ----------------------------------------------------------------------------------------

    def _conclude(self, network, progress: Progress, state, incremental, dtype, space) -> None:
        """Set the fitted attributes."""
        final = network.with_params(progress.params)
        self.__dict__.update(self._of_training(final, 0, dtype, space) | self._curves(progress))
        state.optimizer = progress.optimizer_state or None
        state.solver = self.solver_
        epochs = progress.kept_iter if progress.watch_score else progress.n_iter
        state.trained = epochs if not progress.warm else state.trained and state.trained + epochs
        if state.optimizer is not None:
            factor = SCHEDULES[self._schedule[0]](np.zeros(1), np.array([progress.samples]), self.power_t)
            state.learning_rate = float(np.squeeze(state.optimizer["learning_rate"] * factor))
        self._optimizer = state
        self._no_improvement_count = progress.no_improvement


def _divergence(error: str) -> ValueError:
    return ValueError(
        f"Training diverged: {error}. Lower learning_rate_init, set max_grad_norm, or scale the columns of X "
        "(StandardScaler). The estimator is as it was before."
    )
