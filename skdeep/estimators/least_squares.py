"""Least squares on class indicators."""

from __future__ import annotations

from numbers import Real

from skdeep.compat.sklearn import Interval, StrOptions
from skdeep.engine.losses import LOSSES, Loss
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.estimators.docs import (
    ALPHA,
    CALIBRATION_ATTRIBUTES,
    LEARNING_RATES,
    LINEAR_ATTRIBUTES,
    LINEAR_PARAMETERS,
    LINEAR_TRAINING_PARAMETERS,
    RIDGE_ALPHA,
    SCORES_CALIBRATION_PARAMETERS,
    TRAINING_ATTRIBUTES,
    document,
)
from skdeep.estimators.linear import LinearClassifier
from skdeep.estimators.scores import ScoresMixin


@document(
    linear=LINEAR_PARAMETERS.replace(ALPHA, RIDGE_ALPHA),
    learning_rates=LEARNING_RATES,
    calibration=SCORES_CALIBRATION_PARAMETERS,
    training=LINEAR_TRAINING_PARAMETERS,
    learned=LINEAR_ATTRIBUTES + CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES,
)
class LeastSquaresClassifier(ScoresMixin, LinearClassifier):
    r"""Linear least squares on class indicators of ±1, in closed form or by mini-batch gradient descent.

    Minimises, over weights W (n_classes, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \tfrac12 \|s_i - t_i\|^2 + \alpha R(W), \qquad s_i = W x_i + b

    with w the sample weight times the class weight, and :math:`t_{ij} = 1` for the true class and -1 elsewhere. Two
    classes have one column of scores. The predicted class is that of the highest score.

    ``solver="exact"`` takes the singular values of the data, which serve all values of ``alpha`` of a search. It needs
    no inverse of :math:`X^T X`: with ``alpha=0``, of all solutions (there are many if columns are collinear or more
    than the rows) it is the one with the smallest weights. It takes time in proportion to n d min(n, d) and memory in
    proportion to min(n, d)² (dense rows with n <= d: n d); more rows are streamed.

    Parameters
    ----------
    {linear}
    solver : {"exact", "sgd", "adam", "adamw", "lbfgs"}, default="exact"
        The closed form, which has no iterations and for which ``max_iter``, ``tol``, ``batch_size`` and what speaks of
        steps mean nothing; mini-batch gradient descent with momentum, Adam, Adam with decoupled weight decay; or
        full-batch Newton steps up to 1024 weights, L-BFGS beyond.
    {learning_rates}
    {calibration}
    {training}

    Attributes
    ----------
    {learned}

    See Also
    --------
    SoftmaxClassifier : Linear classifier with probabilities of its own.
    sklearn.linear_model.RidgeClassifier : The same model; its alpha is ``n_samples * alpha``.

    References
    ----------
    .. [1] C. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 4.1.3.
    .. [2] T. Hastie, R. Tibshirani & J. Friedman, *The Elements of Statistical Learning*, 2nd edition, 2009, sections
       3.4.1 and 4.2.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from skdeep import LeastSquaresClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LeastSquaresClassifier(alpha=0.01).fit(X, y)
    >>> clf.score(X, y) > 0.8
    True
    >>> ridge = RidgeClassifier(alpha=0.01 * len(y)).fit(X, y)
    >>> bool(abs(clf.coef_ - ridge.coef_).max() < 1e-10)
    True
    """

    _parameter_constraints: dict = {
        **LinearClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({*OPTIMIZERS, "lbfgs", "exact"})],
    }

    def __init__(
        self,
        penalty="l2",
        *,
        alpha=1e-4,
        l1_ratio=0.15,
        fit_intercept=True,
        standardize=True,
        solver="exact",
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

    def _loss(self, n_outputs) -> Loss:
        return LOSSES["squared_error"]()

    def _recipe(self, problem, going_on, incremental):
        if self.solver == "exact" and self.early_stopping:
            raise ValueError(
                "early_stopping=True has nothing to stop: solver='exact' has no epochs. Use early_stopping=False, or "
                "solver='sgd', 'adam' or 'adamw'."
            )
        return super()._recipe(problem, going_on, incremental)
