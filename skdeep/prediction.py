"""Prediction: from the fitted attributes to scores, labels and probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skdeep._threads import threads_for
from skdeep.inputs import OutputSpace, check_features, float_dtype, resolve_device, rows_of, to_numpy
from skdeep.losses import Loss
from skdeep.networks import Network
from skdeep.problem import CHUNK_ROWS, chunk_rows


def prediction_dtype(X, device: torch.device | None = None) -> torch.dtype:
    """In which precision to compute scores, however they were learnt; on a device, which may have no float64."""
    single = float_dtype(X) == np.float32 or (device is not None and device.type == "mps")
    return torch.float32 if single else torch.float64


def _of_members(members: list, X, result: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What `result` makes of the scores (n, C) of each of some estimators of one form, in one pass over the rows."""
    leader = members[0]
    X = check_features(leader, X, reset=False)
    work = min(X.shape[0], CHUNK_ROWS) * leader._n_weights()
    device = resolve_device(leader.device, X, work, prediction_dtype(X), fallback=True)
    kind = prediction_dtype(X, device)
    rows = rows_of(X, device, kind)
    networks = [member._trained_network(device, kind) for member in members]
    network = networks[0] if len(networks) == 1 else type(networks[0]).stacked(networks)
    sizes = [part.n_models for part in networks]
    step = chunk_rows(network, rows)
    wanted = torch.float32 if float_dtype(X) == np.float32 else kind
    results: list[Tensor] = []
    with threads_for(min(len(rows), step) * sum(p.numel() for p in network.params)):
        for start in range(0, len(rows), step):
            of_models = network.scores(rows.take(slice(start, start + step))).split(sizes)
            parts = [result(m._of_models(own).to(wanted)) for m, own in zip(members, of_models, strict=True)]
            if step >= len(rows):
                return parts
            results = results or [part.new_empty(len(rows), *part.shape[1:]) for part in parts]
            for whole, part in zip(results, parts, strict=True):
                whole[start : start + step] = part
    return results


@torch.no_grad()
def share_pass(members: list, X) -> None:
    """Compute the scores of X for all members of a stack in one pass; each knows its own, until `forget_scores`."""
    for member, scores in zip(members, _of_members(members, X, lambda scores: scores), strict=True):
        member._known_scores = [*getattr(member, "_known_scores", ()), (X, scores)]


def forget_scores(member) -> None:
    """Let go of what `share_pass` has left."""
    member.__dict__.pop("_known_scores", None)


class PredictionMixin:
    """The methods of a fitted classifier."""

    #: Name of a fitted attribute that holds coefficients.
    _coef_attribute: str
    classes_: np.ndarray
    n_outputs_: int
    device: str | torch.device

    def _loss(self, n_outputs: int) -> Loss:
        """The loss for so many score columns."""
        raise NotImplementedError

    def _n_weights(self) -> int:
        """Number of weights learnt, to judge how much work the scores of a row are."""
        coefs = getattr(self, self._coef_attribute)
        return sum(math.prod(coef.shape) for coef in (coefs if isinstance(coefs, list) else [coefs]))

    def _trained_network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """The network of the fitted attributes."""
        raise NotImplementedError

    def decision_function(self, X):
        """Scores of the samples, before they are turned into probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            One column for two classes: positive means ``classes_[1]``.
        """

        def result(scores):
            return scores[:, 0] if scores.shape[1] == 1 and not self._fitted_multilabel else scores

        scores, space = self._computed(X, "decision_function", result)
        return space.array(scores)

    def predict(self, X):
        """Predict class labels (label indicators after a multilabel fit).

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """

        def result(scores):
            if self._fitted_multilabel:
                return (scores > 0).long()
            return (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)

        codes, space = self._computed(X, "predict", result)
        if self._fitted_multilabel:
            return space.array(codes)
        classes = to_numpy(self.classes_)
        labels = classes[to_numpy(codes).clip(max=len(classes) - 1)]  # with one class, either sign means that one
        # labels that only NumPy can hold (strings) stay there
        return space.array(labels) if space.is_numpy or labels.dtype.kind in "biuf" else labels

    def predict_proba(self, X):
        """Class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows sum to one, but after a multilabel fit each column is a
            probability of its own.
        """
        probabilities, space = self._computed(X, "predict_proba", self._probabilities)
        return space.array(probabilities)

    def predict_log_proba(self, X):
        """Logarithm of the class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        logarithms, space = self._computed(X, "predict_log_proba", lambda scores: self._probabilities(scores).log())
        return space.array(logarithms)

    def _probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities that are never quite zero, so that their logarithm is finite."""
        limits = torch.finfo(scores.dtype)
        if len(self.classes_) == 1:
            return torch.ones_like(scores)
        # where rounding makes a tie of two probabilities, the class that is predicted is still the most probable one
        if self._fitted_multilabel:
            p = self._link(scores).clamp_(limits.tiny, 1 - limits.eps)
            return torch.where((scores > 0) & (p == 0.5), 0.5 + limits.eps, p)
        p = self._link(scores).clamp_(min=limits.tiny)
        winner = (scores > 0).long() if scores.shape[1] == 1 else scores.argmax(1, keepdim=True)
        top = p.amax(1, keepdim=True)
        lifted = torch.where(p.argmax(1, keepdim=True) == winner, p.gather(1, winner), top * (1 + limits.eps))
        return p.scatter_(1, winner, lifted)

    def _link(self, scores: Tensor) -> Tensor:
        """Class probabilities of the scores; of independent labels, the probability of each."""
        if self._fitted_multilabel:
            return torch.sigmoid(scores)
        return self._loss(self.n_outputs_).probabilities(scores)

    def _of_models(self, scores: Tensor) -> Tensor:
        """Scores (n, C) of the classifier, from those of the models of its network, (K, n, C)."""
        return scores[0]

    @property
    def _fitted_multilabel(self) -> bool:
        return getattr(self, "_target_is_multilabel", False)

    @torch.no_grad()
    def _computed(self, X, method: str, result: Callable[[Tensor], Tensor]) -> tuple[Tensor, OutputSpace]:
        """What `result` makes of the scores (n, C), in bounded batches, and where it goes."""
        check_is_fitted(self, self._coef_attribute)
        check_same_namespace(X, self, attribute="_any_coef", method=method)
        for known, scores in getattr(self, "_known_scores", ()):
            if known is X:  # who gets a result may write to it
                return result(scores.clone()), OutputSpace(X)
        space, (results,) = OutputSpace(X), _of_members([self], X, result)
        return results, space

    @property
    def _any_coef(self):
        coef = getattr(self, self._coef_attribute)
        return coef[0] if isinstance(coef, list) else coef
