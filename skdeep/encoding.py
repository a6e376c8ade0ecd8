"""From what users pass to a training problem: validation, class codes, weights, device and precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils.multiclass import unique_labels

from skdeep.inputs import check_features, check_target, check_weight, resolve_device
from skdeep.losses import Loss
from skdeep.problem import Problem

#: Up to this many multiply-adds per epoch, float64 costs no time worth mentioning.
_FREE_FLOAT64 = 2**27


class EncodingMixin:
    """Makes a `Problem` of the arguments of ``fit``; sets ``classes_`` and ``n_outputs_``."""

    #: Whether indicator matrices are accepted as targets.
    _multilabel = False
    warm_start: bool
    class_weight: Any
    device: str | torch.device

    def _loss(self, n_outputs: int) -> Loss:
        """The loss for so many score columns."""
        raise NotImplementedError

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        """Number of weights, to judge how much work an epoch is."""
        raise NotImplementedError

    def _check_classes(self, codes: np.ndarray) -> None:
        """Raise if these classes cannot be trained on."""

    def _is_multilabel(self, y) -> bool:
        return self._multilabel and np.ndim(y) == 2 and np.shape(y)[1] > 1

    def _encode(self, y: np.ndarray, going_on: bool, incremental: bool) -> np.ndarray:
        """Class codes (n,), or indicators (n, C), of a validated target; sets ``classes_``."""
        labels = np.arange(y.shape[1]) if y.ndim == 2 else unique_labels(y)
        if not going_on and not incremental:
            self.classes_ = labels
        elif self.warm_start and not incremental and set(labels) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. Previously "
                f"got {self.classes_}, `y` has {labels}"
            )
        elif len(unknown := np.setdiff1d(labels, self.classes_)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}, `y` also has {unknown}. "
                "Name all classes in the first call of partial_fit."
            )
        return (y != 0).astype(np.uint8) if y.ndim == 2 else np.searchsorted(self.classes_, y)

    def _class_weight_of_rows(self, y, codes, sample_weight) -> np.ndarray | None:
        """Factor of each row by its class (by all its labels, for a multilabel target)."""
        if self.class_weight is None:
            return None
        if codes.ndim == 2:
            return compute_sample_weight(self.class_weight, codes)
        if not isinstance(self.class_weight, str):
            return compute_class_weight(self.class_weight, classes=self.classes_, y=y)[codes]
        counted = slice(None) if sample_weight is None else sample_weight > 0
        weights = np.ones(len(self.classes_))
        present = np.unique(codes[counted])
        weights[present] = compute_class_weight(
            self.class_weight,
            classes=self.classes_[present],
            y=y[counted],
            sample_weight=None if sample_weight is None else sample_weight[counted],
        )
        return weights[codes]

    def _problem(self, X, y, sample_weight, going_on, incremental) -> Problem:
        """Validate everything that concerns the training data."""
        X = check_features(self, X, reset=not going_on, min_samples=1 if incremental else 2)
        y = check_target(self, y, X, multilabel=self._multilabel)
        device = resolve_device(self.device, X)
        sample_weight = check_weight(sample_weight, X)
        codes = self._encode(y, going_on, incremental)
        if not incremental:
            self._check_classes(codes if sample_weight is None else codes[sample_weight > 0])
        many = codes.shape[1] if codes.ndim == 2 else len(self.classes_)
        self.n_outputs_ = many if codes.ndim == 2 or many > 2 else 1
        self._target_is_multilabel = codes.ndim == 2
        class_weight = self._class_weight_of_rows(y, codes, sample_weight)
        problem = Problem(X, self._target(codes), codes, sample_weight, class_weight, device, torch.float32)
        work = problem.n_rows * self._n_params(X.shape[1], self.n_outputs_)
        if work <= _FREE_FLOAT64 and device.type != "mps":
            problem.dtype = torch.float64
        return problem

    def _validation_problem(self, X_val, y_val, weight_val, problem: Problem) -> Problem:
        """Validate the caller's own validation data."""
        X = check_features(self, X_val, reset=False)
        y = check_target(self, y_val, X, multilabel=self._multilabel)
        codes = self._encode(y, going_on=True, incremental=True)
        weight = check_weight(weight_val, X, "sample_weight_val")
        class_weight = self._class_weight_of_rows(y, codes, weight)
        return Problem(X, self._target(codes), codes, weight, class_weight, problem.device, problem.dtype)

    def _target(self, codes: np.ndarray) -> np.ndarray:
        """What the loss takes for these codes."""
        if self._loss(self.n_outputs_).target == "codes":
            return codes
        if codes.ndim == 2:
            return codes
        # two classes: one column that asks for the second
        columns = [1] if self.n_outputs_ == 1 else np.arange(self.n_outputs_)
        return (codes[:, None] == columns).astype(np.uint8)

    def _labels(self, codes: np.ndarray) -> np.ndarray:
        """The user's labels of some codes."""
        return codes if codes.ndim == 2 else self.classes_[codes]
