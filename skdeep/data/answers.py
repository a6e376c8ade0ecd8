"""From scores back to what users get: labels, probabilities and their logarithms, as functions of what is passed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from torch import Tensor
from torch.nn import functional as F

from skdeep.data.inputs import OutputSpace, to_numpy
from skdeep.data.labels import accuracy, check_label_names, unboxed
from skdeep.engine.classes import winners
from skdeep.engine.losses import Loss
from skdeep.engine.per_model import to_device


@dataclass(frozen=True)
class Link:
    """How the scores of a classifier become probabilities."""

    #: Whose probabilities they are, if each row has one class.
    loss: Loss
    #: Whether each column of scores answers a question of its own; its probabilities are sigmoids then.
    multilabel: bool
    #: What scores are divided by first, (C,) or one number; None for one.
    temperature: float | np.ndarray | None = None

    def linked(self, scores: Tensor) -> Tensor:
        """Divide scores by the temperature, and keep them finite."""
        limit = torch.finfo(scores.dtype).max
        return tempered(scores, self.temperature).clamp(-limit, limit)


def tempered(scores: Tensor, temperature: float | np.ndarray | None) -> Tensor:
    """Divide scores by a temperature; None leaves them as they are."""
    if temperature is None:
        return scores
    # of a scalar, an exporter to ONNX takes what is 1 to five digits for 1
    values = torch.as_tensor(temperature, dtype=torch.float64, device="cpu").reshape(-1)
    return scores / to_device(values, scores.device, scores.dtype)


# ---- answers, from scores (n, C) -------------------------------------------------------------------------------------


def decisions(scores: Tensor, multilabel: bool) -> Tensor:
    """Return the scores as ``decision_function`` does: a vector where one column decides between two classes."""
    return scores[:, 0] if scores.shape[1] == 1 and not multilabel else scores


def codes(scores: Tensor, multilabel: bool) -> Tensor:
    """Find the number of the class of each row (n,), or which labels it has (n, C)."""
    if multilabel:
        return (scores > 0).long()
    return (scores[:, 0] > 0).long() if scores.shape[1] == 1 else winners(scores)


def labels(codes: Tensor, classes: np.ndarray, space: OutputSpace) -> Any:
    """Look up the user's labels of class numbers (n,); label indicators (n, C) are returned as they are."""
    if codes.ndim == 2:
        return space.array(codes)
    classes = to_numpy(classes)
    found = classes[to_numpy(codes).clip(max=len(classes) - 1)]  # with one class, either sign means that one
    # labels that only NumPy can hold (strings) stay there
    return space.array(found) if space.is_numpy or found.dtype.kind in "biuf" else found


def probabilities(scores: Tensor, classes: np.ndarray, link: Link) -> Tensor:
    """Compute probabilities (n, n_classes) that are never quite zero."""
    limits = torch.finfo(scores.dtype)
    if len(classes) == 1:
        return torch.ones_like(scores)
    # where rounding makes a tie of two probabilities, the class that is predicted is still the most probable one
    if link.multilabel:
        p = torch.sigmoid(link.linked(scores)).clamp(limits.tiny, 1 - limits.eps)
        return torch.where((scores > 0) & (p == 0.5), 0.5 + limits.eps, p)
    p = link.loss.probabilities(link.linked(scores)).clamp(min=limits.tiny)
    return _with_winner(p, scores, lambda top: top * (1 + limits.eps))


def log_probabilities(scores: Tensor, classes: np.ndarray, link: Link) -> Tensor:
    """Compute logarithms of the probabilities, finite for finite scores: never of probabilities that are rounded."""
    if len(classes) == 1:
        return torch.zeros_like(scores)
    linked = link.linked(scores)
    limit = torch.finfo(scores.dtype).max
    up = scores.new_tensor(torch.inf)
    if link.multilabel:
        log_p, half = F.logsigmoid(linked), F.logsigmoid(scores.new_zeros(()))
        return torch.where((scores > 0) & (log_p <= half), half.nextafter(up), log_p)
    log_p = link.loss.log_probabilities(linked).clamp_(min=-limit)
    # a probability that rounds to one has no digits left to tell more than its own logarithm does
    log_p = torch.where(link.loss.probabilities(linked) == 1, 0.0, log_p)
    return _with_winner(log_p, scores, lambda top: top.nextafter(up))


def _with_winner(values: Tensor, scores: Tensor, higher: Callable[[Tensor], Tensor]) -> Tensor:
    """Put something `higher` than the rest for the class that is predicted, where rounding made a tie."""
    winner = (scores > 0).long() if scores.shape[1] == 1 else winners(scores)[:, None]
    is_leading = winners(values)[:, None] == winner
    if not torch.compiler.is_compiling() and is_leading.all():  # a program has no way that depends on values
        return values
    top = values.amax(1, keepdim=True)
    return values.scatter(1, winner, torch.where(is_leading, top, higher(top)))


# ---- for scorers -----------------------------------------------------------------------------------------------------


#: Methods of a classifier that follow from its scores.
_METHODS = ("predict", "decision_function", "predict_proba", "predict_log_proba", "score")


def own_methods(classifier: Any) -> list[str]:
    """Name the methods of a classifier that are a user's: what they answer may follow from more than the scores."""
    package = __name__.partition(".")[0]
    found = {name: getattr(type(classifier), name, None) for name in _METHODS}
    # a property or a callable object, which say nothing of a module, are a user's
    written_in = {name: getattr(method, "__module__", None) or "" for name, method in found.items() if method}
    return [name for name, module in written_in.items() if module.partition(".")[0] != package]


class StandIn:
    """Whoever answers about some rows in the place of a model, and asks that for all else (parameters, for example)."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copies and pickles ask before there is a model
            raise AttributeError(name)
        return getattr(self.model, name)

    def __sklearn_tags__(self) -> Any:
        return self.model.__sklearn_tags__()

    def _check_asked(self, X: Any, n_known: int) -> None:
        """Raise if these can be no rows about which the answers are known."""
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        if n_rows != n_known:
            raise ValueError(
                f"A scorer has asked {type(self.model).__name__} about {n_rows} rows, where the answers about "
                f"{n_known} are known. It must ask about the rows that it is given, all of them."
            )


class KnownScores(StandIn):
    """A model of which the scores (n, C) of all rows that it will be asked about, in their order, are known.

    Answers go to a `space`, None for NumPy.
    """

    def __init__(self, model: Any, scores: Tensor, space: OutputSpace | None = None) -> None:
        super().__init__(model)
        self.scores = scores
        self.space = space or OutputSpace(np.empty(0))

    def _scores_of(self, X: Any) -> Tensor:
        self._check_asked(X, len(self.scores))
        return self.scores


def _if_classifier_has(method: str) -> Callable[[Answers], bool]:
    """Make a condition of the classifier's own ``method``, which raises where there is none."""
    return lambda answers: bool(getattr(answers.model, method))


class Answers(KnownScores, ClassifierMixin):
    """The answers of a classifier about rows whose scores are known: whom a scorer asks in its place.

    It has the methods that the classifier has.
    """

    def __init__(self, classifier: Any, scores: Tensor, link: Link, space: OutputSpace | None = None) -> None:
        super().__init__(classifier, scores, space)
        self.link = link
        self.classes_: np.ndarray = classifier.classes_

    def decision_function(self, X: ArrayLike) -> Any:
        """See the classifier's."""
        return self.space.array(decisions(self._scores_of(X).clone(), self.link.multilabel))

    def predict(self, X: ArrayLike) -> Any:
        """See the classifier's."""
        return labels(codes(self._scores_of(X), self.link.multilabel), self.classes_, self.space)

    @available_if(_if_classifier_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> Any:
        """See the classifier's."""
        return self.space.array(probabilities(self._scores_of(X), self.classes_, self.link))

    @available_if(_if_classifier_has("predict_log_proba"))
    def predict_log_proba(self, X: ArrayLike) -> Any:
        """See the classifier's."""
        return self.space.array(log_probabilities(self._scores_of(X), self.classes_, self.link))

    def score(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """See the classifier's."""
        check_label_names(self.model, y, "y")
        return accuracy(unboxed(y) if self.space.is_numpy else y, self.predict(X), sample_weight)


class AssembledAnswers(StandIn):
    """The answers of several classifiers, each about some of the rows: whom a scorer asks in the place of one.

    It has the methods that the one has; ``score`` is the mean of their scores. Parts are numbers of rows, and who is
    asked about these; all rows that it will be asked about are in one of them.
    """

    def __init__(self, classifier: Any, parts: list[tuple[np.ndarray, Any]]) -> None:
        super().__init__(classifier)
        self.parts = parts

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name not in _METHODS:
            return found

        @functools.wraps(found)
        def assembled(X: Any) -> np.ndarray:
            each = self._of_parts(X, lambda part, rows: to_numpy(getattr(part, name)(X[rows])))
            order = np.concatenate([rows for rows, _ in self.parts])
            return np.concatenate(each)[np.argsort(order)]

        return assembled

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """See the classifier's."""
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)

        def of_part(part: Any, rows: np.ndarray) -> float:
            given = {} if sample_weight is None else {"sample_weight": weight[rows]}
            return part.score(X[rows], y[rows], **given)

        return float(np.average(self._of_parts(X, of_part), weights=[weight[rows].sum() for rows, _ in self.parts]))

    def _of_parts(self, X: Any, answer: Callable[[Any, np.ndarray], Any]) -> list:
        self._check_asked(X, sum(len(rows) for rows, _ in self.parts))
        return [answer(part, rows) for rows, part in self.parts]
