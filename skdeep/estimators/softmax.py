"""Softmax regression."""

from __future__ import annotations

from numbers import Real

from skdeep.compat.sklearn import Interval
from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import (
    CALIBRATION_ATTRIBUTES,
    CALIBRATION_PARAMETERS,
    LABEL_SMOOTHING,
    LINEAR_ATTRIBUTES,
    LINEAR_PARAMETERS,
    LINEAR_SOLVERS,
    LINEAR_TRAINING_PARAMETERS,
    TRAINING_ATTRIBUTES,
    document,
)
from skdeep.estimators.linear import LinearClassifier


class CrossEntropyClassifier(LinearClassifier):
    """Common part of the linear classifiers that are trained on a cross-entropy."""

    _parameter_constraints: dict = {
        **LinearClassifier._parameter_constraints,
        "label_smoothing": [Interval(Real, 0, 1, closed="both")],
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
        label_smoothing=0.0,
        calibration=None,
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
            calibration=calibration,
            warm_start=warm_start,
            random_state=random_state,
            device=device,
            precision=precision,
            callbacks=callbacks,
            verbose=verbose,
        )
        self.label_smoothing = label_smoothing


@document(
    linear=LINEAR_PARAMETERS,
    solvers=LINEAR_SOLVERS,
    label_smoothing=LABEL_SMOOTHING,
    calibration=CALIBRATION_PARAMETERS,
    training=LINEAR_TRAINING_PARAMETERS,
    learned=LINEAR_ATTRIBUTES + CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class SoftmaxClassifier(CrossEntropyClassifier):
    r"""Softmax regression (multinomial logistic regression), trained by mini-batch gradient descent.

    Minimises, over weights W (n_classes, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \Big[\log\sum_j e^{s_{ij}} - s_{i y_i}\Big] + \alpha R(W),
        \qquad s_i = W x_i + b

    with w the sample weight times the class weight. Two classes have one column of scores, with the logistic loss.

    Parameters
    ----------
    {linear}
    {solvers}
    {label_smoothing}
    {calibration}
    {training}

    Attributes
    ----------
    {learned}

    See Also
    --------
    SigmoidClassifier : One logistic unit per class, or per label.
    HingeClassifier : Linear support vector machines.
    MLPClassifierTorch : Multilayer perceptron.
    sklearn.linear_model.LogisticRegression : The same model by full-batch solvers; ``alpha = 1 / (C * n_samples)``.

    Notes
    -----
    The defaults of the solver were chosen on raw, badly scaled columns; see ``docs/decisions`` for the figures.

    References
    ----------
    .. [1] C. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 4.3.4.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SoftmaxClassifier(random_state=0).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    >>> clf.predict_proba(X[:2]).shape, clf.coef_.shape
    ((2, 3), (3, 4))
    """

    def _loss(self, n_outputs) -> Loss:
        return LOSSES["binary_log_loss" if n_outputs == 1 else "log_loss"]()
