"""A fitted estimator on its way to a file and back: what is saved of it, and by which version.

Whatever writes files (pickle, joblib, skops) asks an estimator for its state. What is ours alone in that becomes plain
values, so that a file refers to no class but the estimator's, and opens when what is behind it has changed.
"""

from __future__ import annotations

import copy
import sys
import warnings
from dataclasses import fields
from typing import Any, TypeVar

from sklearn.base import BaseEstimator

from skdeep.data.columns import Columns
from skdeep.data.state import RandomSource, TrainingState
from skdeep.data.values import TargetScale

Model = TypeVar("Model", bound=BaseEstimator)

#: In what is saved: the version that has saved it.
_VERSION = "_skdeep_version"
#: Attributes that more training alone asks for.
_TRAINING = "_optimizer"
#: Units of the targets of a regressor.
_SCALE = "_target_scale"


class OtherVersionWarning(UserWarning):
    """A model was saved by another version of the package than the one that reads it."""


def _version() -> str:
    return sys.modules[__name__.partition(".")[0]].__version__


def packed(state: dict[str, Any]) -> dict[str, Any]:
    """Make what is saved of the attributes of an estimator."""
    state = {**state, _VERSION: _version()}
    if "_fitted" in state:
        state["_fitted"] = sorted(state["_fitted"])
    if (training := state.get(_TRAINING)) is not None:
        source, columns = training.source, training.columns
        plain = _values(training)
        plain["source"] = source.generator if "generator" in vars(source) else source.seed
        plain["columns"] = None if columns is None else _values(columns)
        state[_TRAINING] = plain
    if (scale := state.get(_SCALE)) is not None:
        state[_SCALE] = _values(scale)
    return state


def unpacked(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Make the attributes of an estimator of what was saved of it; warn if another version has."""
    state = dict(state)
    known, own = state.pop(_VERSION, None), _version()
    if known != own:
        by = "a version of skdeep that left no mark" if known is None else f"version {known} of skdeep"
        warnings.warn(
            f"This {name} was saved by {by}, and is read by version {own}. Its predictions may differ, and "
            "it may fail: compare some with those it gave, or fit it again.",
            OtherVersionWarning,
            stacklevel=3,
        )
    if "_fitted" in state:
        state["_fitted"] = frozenset(state["_fitted"])
    if isinstance(plain := state.get(_TRAINING), dict):
        training = _made(TrainingState, {**plain, "source": RandomSource(plain["source"])})
        if training.columns is not None:
            training.columns = _made(Columns, training.columns)
        state[_TRAINING] = training
    if isinstance(plain := state.get(_SCALE), dict):
        state[_SCALE] = _made(TargetScale, plain)
    return state


def _values(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _made(kind: Any, plain: dict[str, Any]) -> Any:
    """Make a dataclass of its fields, without those that it has no more."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in plain.items() if name in known})


def without_training_state(model: Model) -> Model:
    """Copy a model without what only more training would need: a file of it is smaller.

    Left out are the averages of the optimizer (twice the size of the parameters, with Adam), the statistics of the
    columns and the state of the random numbers. Predictions are the same. ``partial_fit`` and ``warm_start`` begin with
    an optimizer, and with statistics of the columns, of their own.

    Parameters
    ----------
    model : estimator
        Of this package, or one of scikit-learn's that holds some: a Pipeline, a search, a VotingClassifier.

    Returns
    -------
    estimator
        The model that was given is left as it is.

    Examples
    --------
    >>> import pickle
    >>> from sklearn.datasets import load_digits
    >>> from skdeep import MLPClassifierTorch, without_training_state
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = MLPClassifierTorch(random_state=0).fit(X, y)
    >>> small = without_training_state(clf)
    >>> len(pickle.dumps(small)) < len(pickle.dumps(clf)) / 2
    True
    >>> bool((small.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    model = copy.deepcopy(model)
    _strip(model, set())
    return model


def _strip(part: Any, seen: set[int]) -> None:
    """Take the training state out of all estimators that are to be found in an object."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, BaseEstimator):
        if isinstance(vars(part).get(_TRAINING), TrainingState):
            delattr(part, _TRAINING)
        part = vars(part)
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        _strip(inner, seen)
