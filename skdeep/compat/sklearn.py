"""What is private to scikit-learn."""

from __future__ import annotations

from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.utils.parallel import delayed

from skdeep.compat.checks import demand, private_names

#: The versions that are known to work.
KNOWN = "1.9"

with private_names("scikit-learn", KNOWN):
    # validation of parameters, whose messages and errors are then scikit-learn's
    from sklearn.base import _fit_context

    # sparse coefficients
    from sklearn.linear_model._base import SparseCoefMixin

    # how a scorer is to be asked, and which scorers do nothing to an estimator but ask it
    from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer

    # the task that searches, cross_validate, validation_curve and learning_curve are made of, and its scores
    from sklearn.model_selection._validation import _fit_and_score, _score

    # rows of data, and what arguments of a method become where only some rows are fitted
    from sklearn.utils import _safe_indexing

    # tensors in, tensors out
    from sklearn.utils._array_api import check_same_namespace, get_namespace_and_device, move_to

    # the error that names matplotlib
    from sklearn.utils._optional_dependencies import check_matplotlib_support
    from sklearn.utils._param_validation import (
        HasMethods,
        Interval,
        Options,
        StrOptions,
        validate_parameter_constraints,
    )

    # the checks of estimators, whose errors are then scikit-learn's
    from sklearn.utils.multiclass import _check_partial_fit_first_call
    from sklearn.utils.validation import (
        _check_feature_names,
        _check_method_params,
        _check_n_features,
        _check_response_method,
        _check_y,
        _num_samples,
    )

    #: The function that a task of `delayed` wraps.
    _wrapped = delayed(_fit_and_score)()[0].__wrapped__
    demand(_wrapped is _fit_and_score, "delayed shows the function that it wraps", "scikit-learn", KNOWN)
    _scorers = _MultimetricScorer(scorers={"a": len})._scorers
    demand(_scorers == {"a": len}, "_MultimetricScorer has _scorers", "scikit-learn", KNOWN)
    _caches = hasattr(_MultimetricScorer, "_use_cache")
    demand(_caches, "_MultimetricScorer has _use_cache", "scikit-learn", KNOWN)
    _method = make_scorer(accuracy_score)._response_method
    demand(_method == "predict", "scorers have a _response_method", "scikit-learn", KNOWN)
    _routed = hasattr(GridSearchCV, "_get_routed_params_for_fit")
    demand(_routed, "searches have _get_routed_params_for_fit", "scikit-learn", KNOWN)

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "SparseCoefMixin",
    "StrOptions",
    "_BaseScorer",
    "_MultimetricScorer",
    "_PassthroughScorer",
    "_check_feature_names",
    "_check_method_params",
    "_check_n_features",
    "_check_partial_fit_first_call",
    "_check_response_method",
    "_check_y",
    "_fit_and_score",
    "_fit_context",
    "_num_samples",
    "_safe_indexing",
    "_score",
    "check_matplotlib_support",
    "check_same_namespace",
    "get_namespace_and_device",
    "move_to",
    "validate_parameter_constraints",
]
