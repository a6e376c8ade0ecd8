"""Least squares on class indicators."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

from skdeep.compat.sklearn import Interval, StrOptions
from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import RIDGE_ALPHA, SCORES_CALIBRATION_PARAMETERS, document_linear
from skdeep.estimators.linear import LinearClassifier
from skdeep.estimators.prediction import ScoresMixin
from skdeep.fitting.settings import SOLVER_OBJECT, SOLVERS, Solver


@document_linear(alpha=RIDGE_ALPHA, calibration=SCORES_CALIBRATION_PARAMETERS)
@dataclass(eq=False, repr=False, kw_only=True)
class LeastSquaresClassifier(ScoresMixin, LinearClassifier):
    r"""Linear least squares on class indicators of ±1, in closed form or by mini-batch gradient descent.

    Minimises, over weights W (n_classes, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \tfrac12 \|s_i - t_i\|^2 + \alpha R(W), \qquad s_i = W x_i + b

    with w the sample weight times the class weight, and :math:`t_{ij} = 1` for the true class and -1 elsewhere. Two
    classes have one column of scores. The predicted class has the highest score.

    ``solver="exact"`` solves systems of the columns, or of the rows where these are fewer, and of the errors that are
    left; on sparse rows with many columns, by conjugate gradients. Where these are near singular, it takes the singular
    values of the data instead: with ``alpha=0``, of all solutions (there are many if columns are collinear or more than
    the rows) it is the one with the smallest weights. But for conjugate gradients, time is in proportion to
    n d min(n, d) and memory to min(n, d)² and n d; of rows that do not fit memory, parts are read one after the other.

    Parameters
    ----------
    {linear}
    solver : {"exact", "sgd", "adam", "adamw", "lbfgs"}, `SGD`, `Adam`, `AdamW` or `LBFGS`, default="exact"
        The closed form, which has no iterations and for which ``max_iter`` and ``tol`` mean nothing (with L1 or elastic
        net: the optimum, to a relative duality gap of ``tol / 100``); mini-batch
        gradient descent with momentum, Adam, Adam with decoupled weight decay; or full-batch Newton steps up to 1024
        weights, L-BFGS beyond. A name stands for the solver with its default settings. An object has settings of its
        own, as in ``SGD(0.01, momentum=0.8, batch_size=64)``; a search sets them as ``solver__momentum``.
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

    penalty: str | None = field(default="l2", kw_only=False)
    alpha: float = 1e-4
    solver: str | Solver = "exact"

    _parameter_constraints: ClassVar[dict] = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({*SOLVERS, "exact"}), SOLVER_OBJECT],
    }

    def _loss(self, n_outputs: int) -> Loss:
        return LOSSES["squared_error"]()
