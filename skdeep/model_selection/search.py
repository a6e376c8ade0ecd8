"""scikit-learn's searches, with another way of doing their work."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Self

from sklearn import model_selection
from sklearn.base import BaseEstimator
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

from skdeep.data.inputs import Data
from skdeep.data.labels import unboxed
from skdeep.data.stored import is_stored
from skdeep.estimators.base import BaseTorchClassifier
from skdeep.model_selection.backend import stacked
from skdeep.model_selection.evaluation import final_step


class _StackedSearch(BaseEstimator):
    """What our searches add to scikit-learn's: their candidates train as stacks."""

    #: Candidates that train one by one are worth a warning, whatever they are.
    _promises_stacks = True

    @functools.wraps(model_selection.GridSearchCV.fit)
    def fit(self, X: Data, y: Data = None, **params: Any) -> Self:
        if is_stored(X):
            raise ValueError(
                f"{type(self).__name__} takes subsets of rows, and X is not in memory. Search on a part of it that is "
                "(such as np.asarray(X[:100_000])), then fit the best estimator on all rows."
            )
        with stacked():
            return super().fit(X, self._unboxed(y), **params)

    @functools.wraps(model_selection.GridSearchCV.score)
    def score(self, X: Data, y: Data = None, **params: Any) -> float:
        return super().score(X, self._unboxed(y), **params)

    def _unboxed(self, y: Data) -> Any:
        """Make labels of objects in y for our classifiers, since splits and metrics take no objects."""
        ours = isinstance(final_step(self.estimator), BaseTorchClassifier)
        return y if y is None or not ours else unboxed(y)


_NOTE = """
    The candidates of a fold train as one stack wherever they differ only in ``alpha``, ``l1_ratio``, ``class_weight``,
    ``random_state``, ``tol``, ``solver__learning_rate_init``, ``solver__momentum`` or ``solver__n_iter_no_change`` (of
    networks, in these parameters without ``solver__``, too); a ``solver__`` parameter needs a solver that is an object,
    such as ``solver=SGD()``. The steps of a :class:`~sklearn.pipeline.Pipeline` before the classifier are fitted once
    per fold and distinct setting. Scores
    are as in scikit-learn's search. ``mean_fit_time`` is a candidate's share of its stack's time, which the first
    has to itself where ``verbose`` prints it. Other estimators, and estimators with callbacks or ``verbose``, are
    trained one by one, with a :class:`StackingWarning`. Inside `stacked`, scikit-learn's own searches do the same. With
    ``random_state=None`` one seed is drawn for all candidates. A failure of one candidate is its own.
"""


_SETUP = """
Examples
--------
>>> from sklearn.datasets import load_iris
>>> from skdeep import SoftmaxClassifier
>>> from skdeep.model_selection import {name}
>>> X, y = load_iris(return_X_y=True)
"""


def _documented(cls: type) -> type:
    """Decorate a class: our summary, scikit-learn's parameters and attributes, our note, and the example set up."""
    inherited = inspect.getdoc(cls.__bases__[-1])
    if inherited is None or cls.__doc__ is None:  # python -OO
        return cls
    start, end = inherited.index("Parameters\n---"), inherited.index("\nSee Also\n---")
    own, example = inspect.cleandoc(cls.__doc__).split("Examples\n--------\n")
    note = "\nNotes\n-----\n" + inspect.cleandoc(_NOTE)
    cls.__doc__ = "\n".join([own, inherited[start:end], note, _SETUP.format(name=cls.__name__) + example])
    return cls


@_documented
class GridSearchCV(_StackedSearch, model_selection.GridSearchCV):
    """Exhaustive search over a grid of parameter values: :class:`sklearn.model_selection.GridSearchCV`, stacked.

    Examples
    --------
    >>> search = GridSearchCV(SoftmaxClassifier(random_state=0), {"alpha": [1e-4, 1e-2, 1.0]}).fit(X, y)
    >>> bool(search.best_params_["alpha"] < 1), bool(search.best_score_ > 0.95)
    (True, True)
    """


@_documented
class RandomizedSearchCV(_StackedSearch, model_selection.RandomizedSearchCV):
    """Randomized search: :class:`sklearn.model_selection.RandomizedSearchCV`, stacked.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> space = {"alpha": loguniform(1e-5, 1)}
    >>> search = RandomizedSearchCV(SoftmaxClassifier(random_state=0), space, n_iter=5, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    5
    """


@_documented
class HalvingGridSearchCV(_StackedSearch, model_selection.HalvingGridSearchCV):
    """Successive halving over a grid: :class:`sklearn.model_selection.HalvingGridSearchCV`, stacked.

    Examples
    --------
    >>> grid = {"alpha": [1e-4, 1e-3, 1e-2, 1.0]}
    >>> HalvingGridSearchCV(SoftmaxClassifier(random_state=0), grid, random_state=0).fit(X, y).n_iterations_
    2
    """


@_documented
class HalvingRandomSearchCV(_StackedSearch, model_selection.HalvingRandomSearchCV):
    """Successive halving over random candidates: :class:`sklearn.model_selection.HalvingRandomSearchCV`, stacked.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> space = {"alpha": loguniform(1e-5, 1)}
    >>> search = HalvingRandomSearchCV(SoftmaxClassifier(random_state=0), space, random_state=0).fit(X, y)
    >>> bool(search.best_params_["alpha"] < 1)
    True
    """
