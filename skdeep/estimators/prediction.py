"""Prediction: from the fitted attributes to scores, labels and probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skdeep.compat.sklearn import check_same_namespace
from skdeep.data.answers import codes, decisions, labels, log_probabilities, probabilities
from skdeep.data.inputs import (
    Classifier,
    Data,
    Matrix,
    OutputSpace,
    check_features,
    float_dtype,
    resolve_device,
    rows_of,
)
from skdeep.data.problem import CHUNK_ROWS, chunk_rows
from skdeep.data.stored import opened
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.rows import DenseRows, SparseRows
from skdeep.engine.stored import StoredArray
from skdeep.engine.threads import torch_threads_for
from skdeep.fitting.exported import as_module
from skdeep.fitting.fitted import COEFS, able, arrays_of, is_single, models_of, n_weights, needs_float64
from skdeep.fitting.links import link_of
from skdeep.fitting.methods import available_unless
from skdeep.fitting.torch_settings import own_settings

#: Rows from which single precision pays, where a model was trained in it: of few, no digit depends on which they are.
_MANY_ROWS = 256


def prediction_dtype(X: Data, device: torch.device | None = None) -> torch.dtype:
    """Choose the precision of scores, however the model was trained; on a device, which may have no float64."""
    single = float_dtype(X) == np.float32 or (device is not None and device.type == "mps")
    return torch.float32 if single else torch.float64


def _of_members(members: list[Classifier], X: Matrix, result: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Apply `result` to the scores (n, C) of each of some estimators of one form, in one pass over validated rows."""
    leader = members[0]
    work, precise = min(X.shape[0], CHUNK_ROWS) * n_weights(leader), any(map(needs_float64, members))
    dtype = torch.float64 if precise else prediction_dtype(X)
    device = able(resolve_device(leader.device, X, work, dtype, fallback=True), members)
    rows = leader._rows(X, device, precise)
    in_single = {"dtype": torch.float32, "of_rows": rows.dtype}
    single = X.shape[0] >= _MANY_ROWS and not issparse(X) and all(map(is_single, members))
    form = in_single if single else {"dtype": rows.dtype}
    networks = [member._trained_network(device, **form) for member in members]
    network = networks[0] if len(networks) == 1 else type(networks[0]).stacked(networks)
    sizes = [part.n_models for part in networks]
    step, evaluated = chunk_rows(network, rows), network.evaluator()
    rows = rows if step >= len(rows) else rows.in_scratch()
    wanted = prediction_dtype(X, device)
    results: list[Tensor] = []
    with torch_threads_for(min(len(rows), step) * sum(p.numel() for p in network.params)):
        for start in range(0, len(rows), step):
            of_models = evaluated(rows.take(slice(start, start + step))).split(sizes)
            own_scores = [m._combined(own).to(wanted) for m, own in zip(members, of_models, strict=True)]
            if network.module is None:  # whose infinities may be meant
                _check_finite(own_scores, start, form["dtype"])
            parts = [result(scores) for scores in own_scores]
            if step >= len(rows):
                return parts
            results = results or [part.new_empty(len(rows), *part.shape[1:]) for part in parts]
            for whole, part in zip(results, parts, strict=True):
                whole[start : start + step] = part
    return results


def _check_finite(of_members: list[Tensor], start: int, dtype: torch.dtype) -> None:
    """Raise where a score, computed in a dtype, is no number, which no probability could follow from."""
    for scores in of_members:
        # one number is soon looked at; of numbers that are finite, it may overflow
        if not math.isfinite(scores.sum()) and not scores.isfinite().all():
            row = start + int((~scores.isfinite()).any(-1).nonzero()[0])
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"The scores of row {row} of X (counted from 0) overflow in {kind}: "
                "its values are too large for a model that was fitted on much smaller ones. Check the units of X."
            )


@own_settings()
@torch.no_grad()
def scores_of_members(members: list[Classifier], X: Matrix) -> list[Tensor]:
    """Compute the scores (n, C) of validated rows of all members of a stack, in one pass over them."""
    return _of_members(members, X, lambda scores: scores)


class Predictor:
    """What all estimators compute predictions by: the scores of their fitted attributes."""

    #: Name of a fitted attribute that holds coefficients.
    _coef_attribute: str
    #: Whether the scores of several models are averaged, after their links.
    _averages_probabilities = False
    n_outputs_: int
    device: str | torch.device
    n_features_in_: int

    def _loss(self, n_outputs: int) -> Loss:
        """Make the loss for so many score columns."""
        raise NotImplementedError

    def _trained_network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """Make the network of the fitted attributes."""
        raise NotImplementedError

    def _rows(self, X: Matrix, device: torch.device, precise: bool) -> DenseRows | SparseRows:
        """Place validated rows, in the precision that scores are computed in: float64 if it is to be `precise`."""
        precise &= device.type != "mps"
        return rows_of(X, device, torch.float64 if precise else prediction_dtype(X, device))

    def to_torch(self) -> nn.Module:
        """Make a torch module of the fitted estimator, from raw columns to probabilities or values.

        Standardisation, missing values, the members of an ensemble, the link and its calibration are all in it, so that
        it gives what ``predict_proba`` gives; a classifier without probabilities, what ``decision_function`` gives; a
        regressor, what ``predict`` gives. It can be exported by ``torch.export`` and ``torch.onnx``, with any number
        of rows.

        Returns
        -------
        ClassifierModule or RegressorModule
            A :class:`torch.nn.Module` on the CPU, in ``eval()`` mode, with a copy of the parameters in the dtype in
            which the model keeps them. ``module(X)`` is for a dense tensor (n, n_features), and computes in the more
            precise of its own and X's dtype, also where ``predict_proba`` of many rows has the digits of single
            precision, in which a network was trained; ``module.scores(X)`` are the scores (n, C) before the link, and
            ``module.classes_`` are a classifier's labels. Where some columns are categories, X has
            ``encoded_features_``.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted, or not with its present ``calibration``.
        ValueError
            If a module of your own cannot be copied.

        Examples
        --------
        >>> import torch
        >>> from sklearn.datasets import load_iris
        >>> from skdeep import SoftmaxClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = SoftmaxClassifier(random_state=0).fit(X, y)
        >>> module = clf.to_torch()
        >>> with torch.no_grad():
        ...     p = module(torch.from_numpy(X))
        >>> bool(abs(p.numpy() - clf.predict_proba(X)).max() < 1e-12)
        True
        """
        check_is_fitted(self, self._coef_attribute)
        return as_module(self)

    @property
    def _n_inputs(self) -> int:
        """Count the columns that the model is trained in."""
        return len(self.encoded_features_) if hasattr(self, "encoded_features_") else self.n_features_in_

    @own_settings()
    @torch.no_grad()
    def _computed(self, X: Data, method: str, result: Callable[[Tensor], Tensor]) -> tuple[Tensor, OutputSpace]:
        """Apply `result` to the scores (n, C), in bounded batches; return it with the space where it goes."""
        check_is_fitted(self, self._coef_attribute)
        X = opened(X, getattr(self, "feature_names_in_", None))
        if not isinstance(X, StoredArray):
            check_same_namespace(X, self, attribute="_any_coef", method=method)
        (results,) = _of_members([self], check_features(self, X, reset=False), result)
        return results, OutputSpace(X)

    @property
    def _any_coef(self) -> Any:
        """An array from where all fitted arrays are."""
        return arrays_of(models_of(self)[0], COEFS)[0]


class PredictionMixin:
    """The methods of a fitted classifier."""

    classes_: np.ndarray
    _computed: Callable[..., tuple[Tensor, OutputSpace]]
    _coef_attribute: str

    def decision_function(self, X: Data) -> Any:
        """Compute scores of the samples, before they are turned into probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            One column for two classes: positive means ``classes_[1]``.
        """
        multilabel = self._fitted_multilabel
        found, space = self._computed(X, "decision_function", lambda scores: decisions(scores, multilabel))
        return space.array(found)

    def predict(self, X: Data) -> Any:
        """Predict class labels (label indicators after a multilabel fit).

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        multilabel = self._fitted_multilabel
        found, space = self._computed(X, "predict", lambda scores: codes(scores, multilabel))
        return labels(found, self.classes_, space)

    def predict_proba(self, X: Data) -> Any:
        """Compute class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to one, but after a multilabel fit each column is a
            probability of its own.
        """
        found, space = self._computed(
            X, "predict_proba", lambda scores: probabilities(scores, self.classes_, link_of(self))
        )
        return space.array(found)

    def predict_log_proba(self, X: Data) -> Any:
        """Compute logarithms of the class probabilities from the scores: exact where a probability is next to zero.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        found, space = self._computed(
            X, "predict_log_proba", lambda scores: log_probabilities(scores, self.classes_, link_of(self))
        )
        return space.array(found)

    @property
    def _fitted_multilabel(self) -> bool:
        return getattr(self, "_target_is_multilabel", False)


def _uncalibrated(estimator: Classifier) -> str | None:
    if estimator.calibration is None:
        name = type(estimator).__name__
        return f"calibration=None: the scores of {name} are no probabilities. Use calibration='temperature'."
    return None


class ScoresMixin:
    """A classifier whose scores are no logarithms of odds: it has probabilities only with ``calibration``."""

    @available_unless(_uncalibrated)
    def predict_proba(self, X: Data) -> Any:
        return super().predict_proba(X)  # type: ignore[misc]

    @available_unless(_uncalibrated)
    def predict_log_proba(self, X: Data) -> Any:
        return super().predict_log_proba(X)  # type: ignore[misc]
