"""Linear support vector machines, with calibrated probabilities."""

from __future__ import annotations

from skdeep.compat.sklearn import StrOptions
from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import (
    CALIBRATION_ATTRIBUTES,
    HINGE_CALIBRATION_PARAMETERS,
    LINEAR_ATTRIBUTES,
    LINEAR_PARAMETERS,
    LINEAR_SOLVERS,
    LINEAR_TRAINING_PARAMETERS,
    TRAINING_ATTRIBUTES,
    document,
)
from skdeep.estimators.linear import LinearClassifier
from skdeep.estimators.scores import ScoresMixin


@document(
    linear=LINEAR_PARAMETERS,
    solvers=LINEAR_SOLVERS,
    training=LINEAR_TRAINING_PARAMETERS,
    calibration=HINGE_CALIBRATION_PARAMETERS,
    learned=LINEAR_ATTRIBUTES + CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class HingeClassifier(ScoresMixin, LinearClassifier):
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
    {calibration}
    {linear}
    {solvers}
    {training}

    Attributes
    ----------
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
    }

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
            calibration=calibration,
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

    def _loss(self, n_outputs) -> Loss:
        return LOSSES["ovr" if n_outputs == 1 else self.multi_class](squared=self.loss == "squared_hinge")
