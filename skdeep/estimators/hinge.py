"""Linear support vector machines, with calibrated probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from skdeep.compat.sklearn import StrOptions
from skdeep.data.problem import Problem
from skdeep.engine.losses import LOSSES, Loss
from skdeep.estimators.docs import HINGE_CALIBRATION_PARAMETERS, document_linear
from skdeep.estimators.linear import LinearClassifier
from skdeep.estimators.prediction import ScoresMixin
from skdeep.fitting.exact_losses import n_unknowns

#: Most classes of which hinges of rivals are solved to their optimum: it takes ten times as long as steps with 100.
_MANY_CLASSES = 48
#: Most unknowns of hinges beside an L1 norm, which take twice as long as steps with so many.
_MANY_UNKNOWNS = 700


@document_linear(calibration=HINGE_CALIBRATION_PARAMETERS)
@dataclass(eq=False, repr=False, kw_only=True)
class HingeClassifier(ScoresMixin, LinearClassifier):
    r"""Linear support vector machine, trained by mini-batch gradient descent.

    Minimises :math:`\frac{1}{\sum_i w_i} \sum_i w_i L_i + \alpha R(W)` over scores :math:`s_i = W x_i + b`, where
    :math:`L_i`, with :math:`(m)_+ = \max(0, m)`, is

    - "weston_watkins": :math:`\sum_{j \ne y_i} (s_{ij} - s_{i y_i} + 1)_+`, the sum of all margin violations;
    - "crammer_singer": :math:`(\max_{j \ne y_i} s_{ij} - s_{i y_i} + 1)_+`, the worst of them;
    - "ovr": :math:`\sum_j (1 - t_{ij} s_{ij})_+` with :math:`t_{ij} = 1` for the true class and -1 elsewhere: one
      binary machine per class, as LinearSVC's;

    each term squared for ``loss="squared_hinge"``, as in LinearSVC. Two classes have one column of scores, one loss.

    Parameters
    ----------
    loss : {"squared_hinge", "hinge"}, default="squared_hinge"
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

    loss: str = field(default="squared_hinge", kw_only=False)
    multi_class: str = "weston_watkins"
    calibration: str | None = "temperature"

    # hinges bend more than cross-entropies do, or all at once: they predict best under a stronger penalty
    _auto_alpha: ClassVar[float] = 5.0
    _parameter_constraints: ClassVar[dict] = {
        "loss": [StrOptions({"squared_hinge", "hinge"})],
        "multi_class": [StrOptions({"weston_watkins", "crammer_singer", "ovr"})],
    }

    def _is_certificate_cheap(self, problem: Problem, loss: Loss) -> bool:
        is_small = self.n_outputs_ <= _MANY_CLASSES or self.multi_class == "ovr"
        if not (self._has_smooth_penalty or loss.smooth):  # beside an L1 norm, they are one system
            size = n_unknowns(loss, self.n_outputs_, problem.n_rows, problem.source.shape[1] + 1)
            is_small = is_small and size <= _MANY_UNKNOWNS
        return is_small and super()._is_certificate_cheap(problem, loss)

    def _loss(self, n_outputs: int) -> Loss:
        return LOSSES["ovr" if n_outputs == 1 else self.multi_class](squared=self.loss == "squared_hinge")
