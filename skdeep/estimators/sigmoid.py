"""One logistic unit per class or label."""

from __future__ import annotations

from dataclasses import dataclass

from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import document_cross_entropy
from skdeep.estimators.softmax import CrossEntropyClassifier


@document_cross_entropy
@dataclass(eq=False, repr=False, kw_only=True)
class SigmoidClassifier(CrossEntropyClassifier):
    r"""Logistic regression with one sigmoid unit per class or label, trained by mini-batch gradient descent.

    Minimises, over weights W (n_outputs, n_features) and intercepts b,

    .. math::
        \frac{1}{\sum_i w_i} \sum_i w_i \sum_c \Big[\log(1 + e^{s_{ic}}) - t_{ic} s_{ic}\Big] + \alpha R(W),
        \qquad s_i = W x_i + b

    with w the sample weight times the class weight. The units are independent yes-or-no questions:

    - for **multilabel** targets, an indicator matrix (n_samples, n_labels), t is the matrix, and the probability of
      each label is :math:`\sigma(s_{ic})`;
    - for more than two **classes**, t is 1 for the true one and 0 for the rest (one-vs-rest), and probabilities are
      the sigmoids divided by their sum;
    - two classes have one column of scores: the model is `SoftmaxClassifier`'s.

    {parameters}

    See Also
    --------
    SoftmaxClassifier : One distribution over the classes, in place of a question for each.
    MLPClassifierTorch : Multilayer perceptron, for multilabel targets too.
    sklearn.multiclass.OneVsRestClassifier : The same model, with LogisticRegression in it.
    sklearn.multioutput.MultiOutputClassifier : Its multilabel form; here probabilities are one array.

    References
    ----------
    .. [1] C. Bishop, *Pattern Recognition and Machine Learning*, 2006, section 4.3.2.
    .. [2] R. Rifkin & A. Klautau, *In defense of one-vs-all classification*, JMLR 5, 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skdeep import SigmoidClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> labels = np.column_stack([y == 0, X[:, 0] > 6])  # an iris may be a setosa, or long, or neither
    >>> clf = SigmoidClassifier(random_state=0).fit(X, labels)
    >>> clf.predict(X[[0, 118]]), clf.predict_proba(X).shape
    (array([[1, 0],
           [0, 1]]), (150, 2))
    """

    _multilabel = True

    def _loss(self, n_outputs: int) -> Loss:
        return LOSSES["binary_log_loss"]()
