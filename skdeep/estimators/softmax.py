"""Softmax regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

from skdeep.compat.sklearn import Interval
from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import document_cross_entropy
from skdeep.estimators.linear import LinearClassifier


@dataclass(eq=False, repr=False, kw_only=True)
class CrossEntropyClassifier(LinearClassifier):
    """Common part of the linear classifiers that are trained on a cross-entropy."""

    penalty: str | None = field(default="l2", kw_only=False)
    label_smoothing: float = 0.0

    _parameter_constraints: ClassVar[dict] = {"label_smoothing": [Interval(Real, 0, 1, closed="both")]}


@document_cross_entropy
@dataclass(eq=False, repr=False, kw_only=True)
class SoftmaxClassifier(CrossEntropyClassifier):
    r"""Softmax regression (multinomial logistic regression), trained by mini-batch gradient descent.

    Minimises, over weights W (n_classes, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \Big[\log\sum_j e^{s_{ij}} - s_{i y_i}\Big] + \alpha R(W),
        \qquad s_i = W x_i + b

    with w the sample weight times the class weight. Two classes have one column of scores, with the logistic loss.

    {parameters}

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

    _takes_probabilities = True

    def _loss(self, n_outputs: int) -> Loss:
        return LOSSES["binary_log_loss" if n_outputs == 1 else "log_loss"]()
