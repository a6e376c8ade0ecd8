"""The net that skorch's callbacks get: a host, which trains nothing.

The loop writes what callbacks read into the host's ``history`` and lets it ``notify`` them. On ``net`` they find

- ``module_``: the parameters ``weight_0``, ``bias_0``, ... in the memory of those in training, so that a state dict
  loaded into it takes effect; called, it gives the scores. (With ``standardize``, training is in centred and scaled
  columns: these are the weights there, while the module takes columns as they are. A module of the user's is there
  itself.) ``optimizer_`` likewise stands for the loop's optimizer; its ``rate`` is the learning rate of the last step,
  the estimator's schedule included.
- ``predict``, ``score``, ...: asked of a fitted copy of the estimator, in the original labels. Pickled, it is the copy.
- ``history``: each epoch's ``train_loss`` (with the penalty), ``valid_loss``, ``valid_acc`` (``valid_score`` if another
  ``scoring`` is watched), their ``_best`` flags, ``dur``, ``train_batch_count``. Batches are told one by one (and their
  ``train_loss``, without the penalty) only if a callback listens to them, since each costs a device synchronisation;
  else the training data is one batch, as the validation data always is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from sklearn.utils.metaestimators import available_if
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset


def _asked_of_copy(name: str) -> Any:
    """Make a method, where the estimator has it, that asks a fitted copy about rows or a data set of skorch's."""

    def ask(host: Host, X: Any, *others: Any, **options: Any) -> Any:
        rows = X.X if isinstance(X, Dataset) else X
        return getattr(host.fitted(rows), name)(rows, *others, **options)

    ask.__name__ = name
    return available_if(lambda host: hasattr(host.estimator_, name))(ask)


class Host:
    """Mixin of a skorch net that does not train; what it predicts is what its estimator would."""

    estimator_: Any  # the one being fitted
    snapshot_: Callable[[], dict[str, Any]]  # makes its fitted attributes for the present parameters

    def get_default_callbacks(self) -> list[Any]:
        """Return none of skorch's own, which would measure what is not done here."""
        return []

    def set_params(self, **kwargs: Any) -> Any:
        """Set what a callback changes; raise where that is the module, which is there before callbacks are."""
        if of_module := [name for name in kwargs if name.startswith(("module", "criterion"))]:
            raise ValueError(
                f"A callback sets {of_module[0]}, and module and loss are there before callbacks run. A module is told "
                "n_features and n_outputs where its signature names them, and all else by module_params."
            )
        return super().set_params(**kwargs)  # type: ignore[misc]

    def fitted(self, X: Any = None) -> Any:
        """Make a fitted copy of the estimator, for rows X with or without names."""
        fitted = copy.copy(self.estimator_)
        vars(fitted).update(self.snapshot_())
        foreign = {name for name in vars(fitted) if "_callback" in name}  # scikit-learn's, of the running fit
        for name in foreign if hasattr(X, "columns") else foreign | {"feature_names_in_"}:
            vars(fitted).pop(name, None)
        return fitted

    predict, predict_proba, decision_function, score = map(
        _asked_of_copy, ("predict", "predict_proba", "decision_function", "score")
    )

    def __reduce__(self) -> Any:
        return copy.copy, (self.fitted(),)


class ClassifierHost(Host, NeuralNetClassifier):
    """The net of a classifier."""


class RegressorHost(Host, NeuralNetRegressor):
    """The net of a regressor."""
