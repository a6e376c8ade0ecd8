"""An ensemble of multilayer perceptrons on folds of the data, trained as one stack."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch
from sklearn.metrics import get_scorer
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from skdeep._docs import LABEL_SMOOTHING, TRAINING_ATTRIBUTES, TRAINING_PARAMETERS, document, without
from skdeep._methods import available_unless
from skdeep.fitting import draw_seeds
from skdeep.inputs import OutputSpace, rows_of, to_numpy
from skdeep.mlp import MLPClassifierTorch
from skdeep.perceptron import MLP
from skdeep.prediction import PredictionMixin, prediction_dtype
from skdeep.problem import Problem, TrainingState, make_monitor, scores_of
from skdeep.splits import DistinctRows, fold_of_rows
from skdeep.training import Progress

#: Rows per step of ``batch_size="auto"``.
_BATCH_ROWS = 64

#: Options of a single network that an ensemble has no use for.
_WITHOUT = ("validation_fraction", "warm_start", "callbacks", "verbose")


@dataclass
class _Runs(Progress):
    """The runs of an ensemble's members, and what they amount to together.

    Attributes
    ----------
    members : list of Progress
    left_out : list of ndarray
        Rows that each member has not seen.
    seeds : list of int
        The ``random_state`` of each member.
    """

    members: list[Progress] = field(default_factory=list)
    left_out: list[np.ndarray] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, members: list[Progress], left_out: list[np.ndarray], seeds: list[int]) -> _Runs:
        errors = [f"in member {k}, {p.error}" for k, p in enumerate(members) if p.error is not None]
        return cls(
            watch_score=True,
            n_iter=max(p.n_iter for p in members),
            samples=sum(p.samples for p in members),
            loss_curve=_mean_curve([p.loss_curve for p in members]),
            validation_losses=_mean_curve([p.validation_losses for p in members]),
            validation_scores=_mean_curve([p.validation_scores for p in members]),
            interrupted=any(p.interrupted for p in members),
            error=errors[0] if errors else None,
            members=members,
            left_out=left_out,
            seeds=seeds,
        )


def _mean_curve(curves: list[list[float]]) -> list[float]:
    """Mean over the members that were still training, epoch by epoch."""
    return [float(np.mean([c[i] for c in curves if i < len(c)])) for i in range(max(map(len, curves)))]


def _no_partial_fit(estimator) -> str:
    return "ensembles, whose folds need all data at once. Use fit, or MLPClassifierTorch."


@document(
    training=without(TRAINING_PARAMETERS, "early_stopping", "scoring", *_WITHOUT)
    .format(max_iter=60, n_iter_no_change=16)
    .replace('"auto" is min(200, n_samples)', f'"auto" is min({_BATCH_ROWS}, n_samples)')
    .replace("training loss falls (or, with ``early_stopping``, the validation score\n    rises)", "log-loss falls"),
    label_smoothing=LABEL_SMOOTHING,
    learned=without(TRAINING_ATTRIBUTES, "history_"),
)
class MLPEnsembleClassifier(MLPClassifierTorch):
    r"""Ensemble of multilayer perceptrons, each trained on all folds of the data but one.

    .. math:: p(x) = \frac1K \sum_{k=1}^K \mathrm{softmax}\big(s_k(x) / T\big)

    The K members train as one stack, with initial weights and an order of rows of their own. Member k leaves out fold k
    of the data (distinct rows, classes in proportion) and keeps the weights of the epoch that was best there, by the
    log-loss that a temperature would leave [3]_. So every row trains K - 1 members and is new to one: the temperature T
    is fitted to those out-of-fold scores, and ``oof_score_`` is an estimate of the score on new data.

    Parameters
    ----------
    n_estimators : int, default=8
        Members, and folds.
    hidden_layer_sizes : array-like of int, default=(128, 128)
        Units of each hidden layer of a member.
    activation : str, default="silu"
        See :class:`MLPClassifierTorch`, and there also for ``normalization``, ``dropout`` and ``stochastic_depth``.
    normalization : {"batch", "layer"} or None, default=None
        What is normalised before each activation.
    dropout : float, default=0.0
        Probability that a hidden unit is left out of a training step.
    stochastic_depth : float or None, default=None
        Probability that the last residual block is left out of a training step; None has no residual blocks.
    standardize : bool, default=True
        Whether to train in centred and scaled columns, each member in those of its rows.
    solver : {"adamw", "adam", "sgd", "lbfgs"}, default="adamw"
        Adam with decoupled weight decay, Adam, mini-batch gradient descent with momentum, or full-batch L-BFGS.
    alpha : float, default=1e-4
        Strength of the L2 penalty; it is divided by the total weight of a batch.
    learning_rate : {"cosine", "constant", "invscaling", "adaptive"}, default="cosine"
        Schedule: half a cosine down to zero at ``max_iter``; or see :class:`MLPClassifierTorch`.
    learning_rate_init : float, default=0.003
        Learning rate at the start.
    early_stopping : bool, default=True
        Whether a member stops when the score of the rows it watches has not risen for ``n_iter_no_change`` epochs.
        The weights of its best epoch are kept in any case. The rows are those of its fold, or ``X_val`` if ``fit`` is
        given that.
    scoring : str, callable or None, default=None
        What ``oof_score_`` is: a scorer, "loss" (the negative loss), or None for accuracy. Epochs are judged by
        "calibrated_loss" in any case (see :class:`MLPClassifierTorch`; by "loss" with ``calibration=None``).
    {training}
    {label_smoothing}
    calibration : {"temperature", "sigmoid"} or None, default="temperature"
        How the scores of the members become probabilities, before these are averaged: see
        :class:`MLPClassifierTorch`. Fitted on the out-of-fold scores; no further models are trained.

    Attributes
    ----------
    estimators_ : list of MLPClassifierTorch
        The members, as classifiers; the ensemble's probabilities are the mean of theirs. ``random_state`` is the
        member's own, ``validation_loss_curve_`` its loss on the rows left out. There are fewer than
        ``n_estimators`` if the data has not rows enough for as many folds.
    oof_proba_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the training rows by the member that has not seen the row (and rows equal to it); by all
        members for rows of weight zero, which none has seen; NaN for the only row of a class, which all have seen.
    oof_score_ : float
        Score of the out-of-fold probabilities, with the sample weights.
    temperature_ : float or ndarray of shape (n_labels,)
        T of ``calibration="temperature"``.
    n_layers_ : int
        Layers of a member, with the input.
    out_activation_ : {"softmax", "logistic"}
        What turns a member's scores into probabilities.
    {learned}

    Raises
    ------
    ValueError
        Where ``fit`` finds no class with two distinct rows; see there for the rest.

    See Also
    --------
    MLPClassifierTorch : One network.
    sklearn.ensemble.BaggingClassifier : Any classifier on random subsets.

    Notes
    -----
    ``decision_function`` is the logarithm of the averaged probabilities; for two classes and for labels, of the odds.
    Curves and losses are means over the members, ``n_iter_`` is the largest of theirs and ``t_`` their sum. A member
    alone would have been the same: ``clone(member).fit(rest, ..., X_val=fold, ...)`` gives it. There is no
    ``partial_fit`` and no ``warm_start``, and no callback is told of the epochs.

    References
    ----------
    .. [1] L. Breiman, *Bagging predictors*, Machine Learning 24, 1996; *Out-of-bag estimation*, 1996.
    .. [2] B. Lakshminarayanan, A. Pritzel & C. Blundell, *Simple and scalable predictive uncertainty estimation using
       deep ensembles*, NeurIPS 2017.
    .. [3] E. Berta, D. Holzmüller, M. I. Jordan & F. Bach, *Rethinking early stopping: refine, then calibrate*, 2025.
    .. [4] C. Guo et al., *On calibration of modern neural networks*, ICML 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skdeep import MLPEnsembleClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = MLPEnsembleClassifier(max_iter=20, random_state=0).fit(X, y)
    >>> clf.oof_score_ > 0.95
    True
    >>> len(clf.estimators_), clf.oof_proba_.shape
    (8, (178, 3))
    """

    _coef_attribute = "estimators_"
    _parameter_constraints: dict = {
        **{k: v for k, v in MLPClassifierTorch._parameter_constraints.items() if k not in _WITHOUT},
        "n_estimators": [Interval(Integral, 2, None, closed="left")],
    }
    estimators_: list[MLPClassifierTorch]

    def __init__(
        self,
        n_estimators=8,
        hidden_layer_sizes=(128, 128),
        activation="silu",
        *,
        normalization=None,
        dropout=0.0,
        stochastic_depth=None,
        standardize=True,
        solver="adamw",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="cosine",
        learning_rate_init=0.003,
        power_t=0.5,
        max_iter=60,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=True,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=16,
        max_fun=15000,
        warmup_epochs=0,
        max_grad_norm=None,
        scoring=None,
        class_weight=None,
        label_smoothing=0.0,
        calibration="temperature",
        device="auto",
        precision="auto",
    ):
        super().__init__(
            hidden_layer_sizes,
            activation,
            normalization=normalization,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
            standardize=standardize,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            warmup_epochs=warmup_epochs,
            max_grad_norm=max_grad_norm,
            scoring=scoring,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            calibration=calibration,
            device=device,
            precision=precision,
        )
        self.n_estimators = n_estimators

    @available_unless(_no_partial_fit)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Absent: the folds need all data at once."""

    # ---- training -------------------------------------------------------------------------------------------------

    def _splits_rows(self):
        return True

    def _leave_out_probabilities(self):
        """The predicted class follows from the averaged probabilities."""

    def _n_params(self, n_features, n_outputs):
        return self.n_estimators * super()._n_params(n_features, n_outputs)

    def _n_units(self, n_outputs):
        return self.n_estimators * super()._n_units(n_outputs)

    def _batch_rows(self, problem):
        rows = super()._batch_rows(problem)
        return min(rows, _BATCH_ROWS) if self.batch_size == "auto" and self.solver_ != "lbfgs" else rows

    @property
    def _watched_score(self) -> str:
        """What an epoch is judged by: what is left to the calibration is not the epoch's fault."""
        return "loss" if self.calibration is None else "calibrated_loss"

    def _folds(self, distinct: DistinctRows) -> np.ndarray:
        """The fold of each row; -1 for the only row of a class, which all members need."""
        fold = fold_of_rows(distinct, self.n_estimators).astype(np.int64)
        alone = np.bincount(distinct.stratum)[distinct.stratum] == 1
        fold[alone[distinct.group]] = -1
        return fold

    def _train(self, members, problem, held_out, states, split_seed, going_on, incremental, task):
        """Train the members of all ensembles as one stack; see `FittingMixin._train`."""
        distinct, rows = problem.distinct(split_seed)
        fold = self._folds(distinct)
        folds = np.unique(fold[fold >= 0])  # on tiny data, some are empty
        if len(folds) == 0:
            raise ValueError(
                "MLPEnsembleClassifier needs at least 2 distinct rows of a class, to leave some out; use "
                "MLPClassifierTorch."
            )
        left_out = [rows[fold == f] for f in folds]
        weight = problem.weight
        if self._batch_rows(problem) == problem.n_rows:  # see Problem.split
            fold = fold[distinct.first]
            rows, weight = problem.merged(distinct, rows)
        del distinct
        rest = [rows[fold != f] for f in folds]
        if weight is not None and weight.ndim == 2:
            weight = np.repeat(weight, len(folds), axis=0)
        models = [member for member in members for _ in folds]
        drawn: dict[int, list[int]] = {}  # ensembles of one seed share their draws
        for state in states:
            if id(state.generator) not in drawn:
                drawn[id(state.generator)] = state.generator.integers(2**31 - 1, size=len(folds)).tolist()
        seeds = [drawn[id(state.generator)] for state in states]
        of_seed = {seed: np.random.default_rng(draw_seeds(seed)[0]) for own in seeds for seed in own}
        generators = [of_seed[seed] for own in seeds for seed in own]
        own_states = [TrainingState(generator) for generator in generators]
        subsets = rest * len(members)
        network = self._new_network(models, problem, generators, subsets, weight, own_states, False)
        patience = self.n_iter_no_change if self.early_stopping else math.inf
        progress = [Progress(member.tol, patience, watch_score=True) for member in models]
        watched = self._watched(members, problem, held_out, left_out)
        monitor = make_monitor(
            watched, self._loss(self.n_outputs_), self._watched_score, self._labels, self._fitted_copy
        )
        self._run(models, problem, network, own_states, subsets, weight, progress, self.max_iter, monitor)
        of_members = [progress[i : i + len(folds)] for i in range(0, len(progress), len(folds))]
        runs = [_Runs.of(parts, left_out, own) for parts, own in zip(of_members, seeds, strict=True)]
        return runs, network, None

    def _watched(self, members, problem: Problem, held_out: Problem | None, left_out) -> list[Problem]:
        """What the models are judged by after each epoch: the rows left out, or the caller's validation data."""
        if held_out is not None:
            if held_out.class_weight is not None and held_out.class_weight.ndim == 2:
                held_out.class_weight = np.repeat(held_out.class_weight, len(left_out), axis=0)
            return [held_out]
        watched = [problem.take(rows) for _ in members for rows in left_out]
        for i, part in enumerate(watched):
            if part.class_weight is not None and part.class_weight.ndim == 2:
                part.class_weight = part.class_weight[i // len(left_out)]
        return watched

    def _conclude(self, network, progress, state, incremental, dtype, space):
        params = {name: getattr(self, name) for name in MLPClassifierTorch._get_param_names()}
        params |= {"early_stopping": True, "scoring": self._watched_score}
        if not self.early_stopping:
            params["n_iter_no_change"] = math.inf
        if self.batch_size == "auto":
            params["batch_size"] = _BATCH_ROWS
        self.__dict__.update(self._curves(progress, incremental))
        not_theirs = {*params, "n_estimators", self._coef_attribute, "oof_proba_", "oof_score_", "temperature_"}
        shared = {
            k: v for k, v in vars(self).items() if k not in not_theirs and not k.startswith(("_skl_", "_callback_"))
        }
        self.estimators_ = []
        for k, (p, seed) in enumerate(zip(progress.members, progress.seeds, strict=True)):
            estimator = MLPClassifierTorch(**params | {"random_state": seed})
            final = network.select(np.array([k])).with_params(p.params)
            estimator.__dict__.update(shared | estimator._learned(final, 0, dtype, space) | estimator._curves(p, False))
            self.estimators_.append(estimator)

    def _distance_from_convergence(self, progress):
        """None: how many epochs there are is a choice, and the best one is kept."""

    # ---- out of fold ----------------------------------------------------------------------------------------------

    def _after_fit(self, members, problem, seed, progress):
        for m, (member, runs) in enumerate(zip(members, progress, strict=True)):
            if runs.error is None:
                weight = problem.weight
                member._judge(problem, weight if weight is None or weight.ndim == 1 else weight[m], runs.left_out)

    @torch.no_grad()
    def _judge(self, problem: Problem, weight: np.ndarray | None, left_out: list[np.ndarray]) -> None:
        """Calibrate on the out-of-fold scores, and keep what the ensemble says of rows that are new to it."""
        new, tensor = np.concatenate(left_out), (problem.device, prediction_dtype(problem.source, problem.device))
        data = rows_of(problem.source, *tensor)

        def out_of_fold() -> Tensor:
            networks = [estimator._trained_network(*tensor) for estimator in self.estimators_]
            return torch.cat([scores_of(n, data, rows) for n, rows in zip(networks, left_out, strict=True)], dim=1)

        if self.calibration == "temperature":
            self.temperature_ = 1.0
        if self.calibration is not None and len(self.classes_) > 1:
            scores = to_numpy(out_of_fold()[0])
            self._calibrate(scores, problem.codes[new], None if weight is None else weight[new])
        for estimator in self.estimators_:
            estimator.__dict__.update({k: v for k, v in vars(self).items() if k == "temperature_"})
        scores = self._of_models(out_of_fold())
        known = self._knowing(scores, OutputSpace(np.empty(0)))
        self.oof_score_ = self._score_of(known, scores, problem, new, weight)
        everywhere = scores.new_full((len(problem.codes), self.n_outputs_), math.nan)
        everywhere[torch.from_numpy(new)] = scores
        if problem.subset is not None:
            rest = np.flatnonzero(problem.sample_weight == 0)
            everywhere[torch.from_numpy(rest)] = self._of_models(scores_of(self._trained_network(*tensor), data, rest))
        self.oof_proba_ = self._knowing(everywhere, OutputSpace(self._any_coef)).predict_proba(None)

    def _knowing(self, scores: Tensor, space: OutputSpace) -> MLPEnsembleClassifier:
        """The classifier, with these scores as its answer to whatever is asked."""
        knowing = copy.copy(self)
        knowing.__dict__["_computed"] = lambda X, method, result: (result(scores), space)
        return knowing

    def _score_of(self, known, scores: Tensor, problem: Problem, rows: np.ndarray, weight: np.ndarray | None) -> float:
        """The score by ``scoring`` of what is known of some rows."""
        part = problem.take(rows)
        if self.scoring in ("loss", "calibrated_loss"):
            target = part.tensor(part.target)
            target = target if target.dtype is torch.int64 else target.to(scores.dtype)
            losses = to_numpy(self._loss(self.n_outputs_).value(scores.unsqueeze(0), target.unsqueeze(0))[0])
            return -float(np.average(losses, weights=None if weight is None else weight[rows]))
        sample_weight = {} if part.sample_weight is None else {"sample_weight": part.sample_weight}
        return float(get_scorer(self.scoring or "accuracy")(known, part.X, self._labels(part.codes), **sample_weight))

    def _map_scores(self, matrix, offsets=0.0):
        for estimator in self.estimators_:
            estimator._map_scores(matrix, offsets)

    # ---- prediction -----------------------------------------------------------------------------------------------

    def _trained_network(self, device, dtype, **options) -> MLP:
        return MLP.stacked([estimator._trained_network(device, dtype, **options) for estimator in self.estimators_])

    def _of_models(self, scores):
        """The logarithm of the averaged probabilities, or of their odds where an answer is yes or no."""
        if self.calibration == "temperature":
            scores = scores / torch.as_tensor(self.temperature_).to(scores)
        if self.out_activation_ == "logistic":
            return F.logsigmoid(scores).logsumexp(0) - F.logsigmoid(-scores).logsumexp(0)
        log_p = F.logsigmoid(scores) if self.calibration == "sigmoid" else scores
        return log_p.log_softmax(-1).logsumexp(0) - math.log(len(scores))

    def _link(self, scores):
        return PredictionMixin._link(self, scores)  # these scores are calibrated

    @property
    def _any_coef(self):
        return self.estimators_[0]._any_coef
