"""Linear support vector machines, with calibrated probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import StrOptions

from skdeep._docs import (
    LINEAR_ATTRIBUTES,
    LINEAR_PARAMETERS,
    LINEAR_SOLVERS,
    TRAINING_ATTRIBUTES,
    TRAINING_PARAMETERS,
    document,
)
from skdeep._methods import available_unless
from skdeep.calibration import fit_sigmoid, fit_temperature
from skdeep.inputs import OutputSpace, dense, to_numpy
from skdeep.linear import LinearClassifier
from skdeep.losses import LOSSES, Loss
from skdeep.problem import Problem, TrainingState, chunk_rows
from skdeep.splits import fold_of_rows
from skdeep.training import Progress


def _uncalibrated(estimator) -> str | None:
    if estimator.calibration is None:
        return "calibration=None: the scores of a support vector machine are no probabilities. Use 'temperature'."
    return None


@document(
    linear=LINEAR_PARAMETERS,
    solvers=LINEAR_SOLVERS,
    training=TRAINING_PARAMETERS.format(max_iter=200, n_iter_no_change=5),
    learned=LINEAR_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class HingeClassifier(LinearClassifier):
    r"""Linear support vector machine, trained by mini-batch gradient descent.

    Minimises :math:`\frac{1}{\sum_i w_i} \sum_i w_i L_i + \alpha R(W)` over scores :math:`s_i = W x_i + b`, where
    :math:`L_i`, with :math:`(m)_+ = \max(0, m)`, is

    - "weston_watkins": :math:`\sum_{j \ne y_i} (s_{ij} - s_{i y_i} + 1)_+`, the sum of all margin violations;
    - "crammer_singer": :math:`(\max_{j \ne y_i} s_{ij} - s_{i y_i} + 1)_+`, the worst of them;
    - "ovr": :math:`\sum_j (1 - t_{ij} s_{ij})_+` with :math:`t_{ij} = 1` for the true class and -1 elsewhere: one
      binary machine per class, as LinearSVC's;

    each term squared for ``loss="squared_hinge"``. Two classes have one column of scores, and one loss.

    Parameters
    ----------
    loss : {"hinge", "squared_hinge"}, default="hinge"
        Whether margin violations count linearly or squared.
    multi_class : {"weston_watkins", "crammer_singer", "ovr"}, default="weston_watkins"
        The loss for more than two classes.
    calibration : {"temperature", "sigmoid"} or None, default="temperature"
        How scores become probabilities: ``softmax(s / T)``, or Platt's sigmoid for each class, normalised (its slopes
        and offsets are then part of ``coef_`` and ``intercept_``). Fitted on the scores of 5 fold models, each on rows
        it has not seen. The class with the highest score is always the most probable one. With None there is no
        ``predict_proba``.
    {linear}
    {solvers}
    {training}

    Attributes
    ----------
    temperature_ : float
        T of ``calibration="temperature"``.
    {learned}

    See Also
    --------
    SoftmaxClassifier : Linear classifier with probabilities of its own.
    sklearn.svm.LinearSVC : "ovr" and "crammer_singer" by coordinate descent; ``alpha = 1 / (C * n_samples)``.

    References
    ----------
    .. [1] J. Weston & C. Watkins, *Support vector machines for multi-class pattern recognition*, ESANN 1999.
    .. [2] K. Crammer & Y. Singer, *On the algorithmic implementation of multiclass kernel-based vector machines*,
       JMLR 2, 2001.
    .. [3] J. Platt, *Probabilistic outputs for support vector machines*, 1999.
    .. [4] C. Guo et al., *On calibration of modern neural networks*, ICML 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import HingeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = HingeClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    >>> clf.predict_proba(X[:2]).shape
    (2, 3)
    """

    _parameter_constraints: dict = {
        **LinearClassifier._parameter_constraints,
        "loss": [StrOptions({"hinge", "squared_hinge"})],
        "multi_class": [StrOptions({"weston_watkins", "crammer_singer", "ovr"})],
        "calibration": [StrOptions({"temperature", "sigmoid"}), None],
    }
    coef_: Any
    intercept_: Any
    #: Folds whose out-of-fold scores the calibration is fitted on.
    _n_folds = 5

    def __init__(
        self,
        loss="hinge",
        *,
        multi_class="weston_watkins",
        calibration="temperature",
        penalty="l2",
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
        warm_start=False,
        random_state=None,
        device="auto",
        precision="auto",
        callbacks=None,
        verbose=False,
    ):
        super().__init__(
            penalty=penalty,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            standardize=standardize,
            solver=solver,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            warmup_epochs=warmup_epochs,
            max_grad_norm=max_grad_norm,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            batch_size=batch_size,
            max_iter=max_iter,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            shuffle=shuffle,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            scoring=scoring,
            class_weight=class_weight,
            warm_start=warm_start,
            random_state=random_state,
            device=device,
            precision=precision,
            callbacks=callbacks,
            verbose=verbose,
        )
        self.loss = loss
        self.multi_class = multi_class
        self.calibration = calibration

    def _splits_rows(self):
        return self.early_stopping or self.calibration is not None

    def _leave_out_probabilities(self):
        if self.calibration == "temperature":
            self.calibration = None

    def _loss(self, n_outputs) -> Loss:
        return LOSSES["ovr" if n_outputs == 1 else self.multi_class](squared=self.loss == "squared_hinge")

    @available_unless(_uncalibrated)
    def predict_proba(self, X):
        return super().predict_proba(X)

    @available_unless(_uncalibrated)
    def predict_log_proba(self, X):
        return super().predict_log_proba(X)

    def _learned(self, network, model, dtype, space):
        learned = super()._learned(network, model, dtype, space)
        # until the calibration is fitted, callbacks and scorers see probabilities at temperature 1
        return {**learned, "temperature_": 1.0} if self.calibration == "temperature" else learned

    def _link(self, scores):
        if self.calibration == "temperature":
            return super()._link(scores / self.temperature_)
        p = super()._link(scores) if scores.shape[1] == 1 else torch.sigmoid(scores)
        return p / p.sum(dim=1, keepdim=True).clamp_(min=torch.finfo(p.dtype).tiny)

    def _after_fit(self, members, problem: Problem, seed: int, progress: list[Progress]) -> None:
        """Fit each member's calibration on scores of models that have not seen the row."""
        if self.calibration is None:
            return
        distinct, rows = problem.distinct(seed)
        fold = fold_of_rows(distinct, self._n_folds)[distinct.first]
        if len(np.unique(fold)) < 2:
            raise ValueError(
                f"calibration={self.calibration!r} needs at least 2 distinct rows of a class, to hold some out; pass "
                "calibration=None."
            )
        rows, weight = problem.merged(distinct, rows)
        del distinct  # as large as the rest of what is kept of each row
        trained = [m for m, p in enumerate(progress) if p.error is None]
        scores, fold_progress = self._out_of_fold_scores(members, trained, problem, rows, weight, fold, seed, progress)
        codes, weights = problem.codes[rows], np.broadcast_to(weight, (len(members), problem.X.shape[0]))
        for m in trained:
            errors = [p.error for p in fold_progress[m] if p.error is not None]
            if errors:
                progress[m].error = f"in a fold model of the calibration, {errors[0]}"
            else:
                members[m]._calibrate(scores[m], codes, weights[m, rows])

    def _calibrate(self, scores: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> None:
        if self.calibration == "temperature":
            self.temperature_ = fit_temperature(scores, codes, weight)
            return
        slopes, offsets = fit_sigmoid(scores, codes, weight)
        space, coef, intercept = OutputSpace(self.coef_), dense(self.coef_), dense(self.intercept_)
        self.coef_ = space.array((slopes[:, None] * coef).astype(coef.dtype))
        self.intercept_ = space.array((slopes * intercept + offsets).astype(coef.dtype))

    def _out_of_fold_scores(self, members, trained, problem, rows, weight, fold, seed, progress):
        """Scores (m, C) of distinct rows by each trained member's models of the other folds, and their progress.

        The folds of a single member train as one stack, and so do several members on the rows they share.
        """
        folds = np.unique(fold)
        stacks = [[(m, f) for f in folds] for m in trained]
        if len(trained) > 1:
            stacks = [[(m, f) for m in trained] for f in folds]
        subsets = {f: rows[fold != f] for f in folds}
        dtype = torch.empty(0, dtype=problem.dtype).numpy().dtype
        scores = {m: np.empty((len(rows), self.n_outputs_), dtype=dtype) for m in trained}
        done: dict[int, list[Progress]] = {m: [] for m in trained}
        for stack in stacks:
            models = [members[m] for m, _ in stack]
            own = [subsets[f] for _, f in stack]
            weights = weight if weight.ndim == 1 else weight[[m for m, _ in stack]]
            generators = {f: np.random.default_rng(seed) for f in folds}
            states = [TrainingState(generators[f]) for _, f in stack]
            network = self._new_network(models, problem, None, own, weights, states[0], False)
            runs = [members[m]._fold_progress(progress[m]) for m, _ in stack]
            self._run(models, problem, network, states, own, weights, runs, self.max_iter)
            if any(p.interrupted for p in runs):
                raise KeyboardInterrupt
            data = problem.rows()
            for k, ((m, f), p) in enumerate(zip(stack, runs, strict=True)):
                done[m].append(p)
                model, mine = network.select(np.array([k])).with_params(p.params), np.flatnonzero(fold == f)
                for part in np.array_split(mine, -(-len(mine) // chunk_rows(model, data))):
                    scores[m][part] = to_numpy(model.scores(data.take(torch.from_numpy(rows[part])))[0])
        return scores, done

    def _fold_progress(self, progress: Progress) -> Progress:
        """The stopping rule of a fold's model."""
        if self.early_stopping:  # the folds have no validation data: they train as long as was best for all rows
            best = int(np.argmax(self.validation_scores_[-self.n_iter_ :])) + 1
            return Progress(0.0, np.inf, max_iter=best)
        limit = progress.n_iter if progress.interrupted else np.inf
        return Progress(self.tol, self.n_iter_no_change, max_iter=limit)
