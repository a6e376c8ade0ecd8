"""Prediction: from the fitted attributes to scores, labels and probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from skdeep.compat.sklearn import check_same_namespace
from skdeep.data.inputs import Matrix, OutputSpace, check_features, float_dtype, resolve_device, rows_of, to_numpy
from skdeep.data.problem import CHUNK_ROWS, chunk_rows
from skdeep.engine.batching import DenseRows, SparseRows
from skdeep.engine.losses import Loss
from skdeep.engine.networks import Network
from skdeep.engine.threads import threads_for
from skdeep.fitting.links import able, link
from skdeep.fitting.torch_settings import own_settings


def prediction_dtype(X, device: torch.device | None = None) -> torch.dtype:
    """In which precision to give scores, however the model was trained; on a device, which may have no float64."""
    single = float_dtype(X) == np.float32 or (device is not None and device.type == "mps")
    return torch.float32 if single else torch.float64


def _of_members(members: list, X, result: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What `result` makes of the scores (n, C) of each of some estimators of one form, in one pass over the rows."""
    leader = members[0]
    X = check_features(leader, X, reset=False)
    work, precise = min(X.shape[0], CHUNK_ROWS) * leader._n_weights(), any(m._needs_float64 for m in members)
    dtype = torch.float64 if precise else prediction_dtype(X)
    device = able(resolve_device(leader.device, X, work, dtype, fallback=True), members)
    rows = leader._rows(X, device, precise).in_scratch()
    networks = [member._trained_network(device, rows.dtype) for member in members]
    network = networks[0] if len(networks) == 1 else type(networks[0]).stacked(networks)
    sizes = [part.n_models for part in networks]
    step = chunk_rows(network, rows)
    wanted = prediction_dtype(X, device)
    results: list[Tensor] = []
    with threads_for(min(len(rows), step) * sum(p.numel() for p in network.params)):
        for start in range(0, len(rows), step):
            of_models = network.scores(rows.take(slice(start, start + step))).split(sizes)
            own_scores = [m._combined(own).to(wanted) for m, own in zip(members, of_models, strict=True)]
            if network.module is None:  # whose infinities may be meant
                _check_finite(own_scores, start)
            parts = [result(scores) for scores in own_scores]
            if step >= len(rows):
                return parts
            results = results or [part.new_empty(len(rows), *part.shape[1:]) for part in parts]
            for whole, part in zip(results, parts, strict=True):
                whole[start : start + step] = part
    return results


def _check_finite(of_members: list[Tensor], start: int) -> None:
    """Raise where a score is no number, which no probability could follow from."""
    for scores in of_members:
        # one number is soon looked at; of numbers that are finite, it may overflow
        if not math.isfinite(scores.sum()) and not scores.isfinite().all():
            row = start + int((~scores.isfinite()).any(-1).nonzero()[0])
            kind = str(scores.dtype).removeprefix("torch.")
            raise ValueError(
                f"The scores of row {row} of X (counted from 0) overflow in {kind}: "
                "its values are too large for a model that was fitted on much smaller ones. Check the units of X."
            )


@own_settings()
@torch.no_grad()
def scores_of_members(members: list, X) -> list[Tensor]:
    """Compute the scores (n, C) of X of all members of a stack, in one pass over its rows."""
    return _of_members(members, X, lambda scores: scores)


def _with_winner(values: Tensor, scores: Tensor, higher: Callable[[Tensor], Tensor]) -> Tensor:
    """In place, something `higher` than the rest for the class that is predicted, where rounding has made a tie."""
    winner = (scores > 0).long() if scores.shape[1] == 1 else scores.argmax(1, keepdim=True)
    is_leading = values.argmax(1, keepdim=True) == winner
    if is_leading.all():
        return values
    top = values.amax(1, keepdim=True)
    return values.scatter_(1, winner, torch.where(is_leading, top, higher(top)))


class PredictionMixin:
    """The methods of a fitted classifier."""

    #: Whether scores are the logarithms of averaged probabilities, which have been calibrated before.
    _averages_probabilities = False
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

    def _rows(self, X: Matrix, device: torch.device, precise: bool) -> DenseRows | SparseRows:
        """Validated rows in the precision that scores are computed in: float64 if it is to be `precise`."""
        precise &= device.type != "mps"
        return rows_of(X, device, torch.float64 if precise else prediction_dtype(X, device))

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
        """Logarithm of the class probabilities, computed from the scores: exact where a probability is next to zero.

        Parameters
        ----------
        X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        logarithms, space = self._computed(X, "predict_log_proba", self._log_probabilities)
        return space.array(logarithms)

    def _probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities that are never quite zero."""
        limits = torch.finfo(scores.dtype)
        if len(self.classes_) == 1:
            return torch.ones_like(scores)
        # where rounding makes a tie of two probabilities, the class that is predicted is still the most probable one
        if self._fitted_multilabel:
            p = torch.sigmoid(link(self, scores)[0]).clamp_(limits.tiny, 1 - limits.eps)
            return torch.where((scores > 0) & (p == 0.5), 0.5 + limits.eps, p)
        linked, loss = link(self, scores)
        p = loss.probabilities(linked).clamp_(min=limits.tiny)
        return _with_winner(p, scores, lambda top: top * (1 + limits.eps))

    def _log_probabilities(self, scores: Tensor) -> Tensor:
        """Logarithms of the probabilities, finite for any finite scores: never those of rounded probabilities."""
        if len(self.classes_) == 1:
            return torch.zeros_like(scores)
        linked, loss = link(self, scores)
        limit = torch.finfo(scores.dtype).max
        up = scores.new_tensor(torch.inf)
        if self._fitted_multilabel:
            log_p, half = F.logsigmoid(linked), F.logsigmoid(scores.new_zeros(()))
            return torch.where((scores > 0) & (log_p <= half), half.nextafter(up), log_p)
        log_p = loss.log_probabilities(linked).clamp_(min=-limit)
        # a probability that rounds to one has no digits left to tell more than its own logarithm does
        log_p = torch.where(loss.probabilities(linked) == 1, 0.0, log_p)
        return _with_winner(log_p, scores, lambda top: top.nextafter(up))

    def _combined(self, scores: Tensor, say: Tensor | None = None) -> Tensor:
        """Scores (n, C) of the classifier, from those of the models of its network, (K, n, C), which have a `say`."""
        return scores[0]

    @property
    def _fitted_multilabel(self) -> bool:
        return getattr(self, "_target_is_multilabel", False)

    @own_settings()
    @torch.no_grad()
    def _computed(self, X, method: str, result: Callable[[Tensor], Tensor]) -> tuple[Tensor, OutputSpace]:
        """What `result` makes of the scores (n, C), in bounded batches, and where it goes."""
        check_is_fitted(self, self._coef_attribute)
        check_same_namespace(X, self, attribute="_any_coef", method=method)
        space, (results,) = OutputSpace(X), _of_members([self], X, result)
        return results, space

    @property
    def _needs_float64(self) -> bool:
        """Whether the model has been kept in float64, in which its predictions then are computed."""
        return False

    @property
    def _exceeds_float32(self) -> bool:
        """Whether float32 would lose something in predictions."""
        return False

    @property
    def _any_coef(self):
        coef = getattr(self, self._coef_attribute)
        return coef[0] if isinstance(coef, list) else coef
