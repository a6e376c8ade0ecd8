"""From what users pass to a training problem: validation, class codes, weights, device and precision."""

from __future__ import annotations

import warnings
from functools import lru_cache
from numbers import Integral

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import unique_labels

from skdeep.columns import Columns
from skdeep.frame import named
from skdeep.inputs import check_features, check_weight, resolve_device, rows_of
from skdeep.labels import check_target, label_names, weights_of_classes, weights_of_labels
from skdeep.losses import Loss
from skdeep.problem import Problem

#: Up to this many multiply-adds per epoch, float64 costs no time worth mentioning.
_FREE_FLOAT64 = 2**27

#: Solvers that look at all rows at once, and are used for the exact optimum.
FULL_BATCH = frozenset({"lbfgs", "exact"})

#: Between which sizes columns can be trained on as they are; judged by about so many rows.
_RAW_SIZES, _SAMPLE_ROWS = (1e-2, 1e4), 500

#: dtype of parameters and losses for each `precision`.
PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}


def draw_seeds(random_state) -> tuple[int, int]:
    """The seeds that follow from a ``random_state``: of initial weights and the order of rows, and of splits."""
    if isinstance(random_state, Integral):
        return _seeds_of(int(random_state))
    first, second = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=2)
    return int(first), int(second)


@lru_cache(maxsize=256)  # such a generator takes as long to make as an epoch of a small fit
def _seeds_of(seed: int) -> tuple[int, int]:
    """`draw_seeds` of a number, which is always the same."""
    return draw_seeds(check_random_state(seed))


class EncodingMixin:
    """Makes a `Problem` of the arguments of ``fit``; sets ``classes_`` and ``n_outputs_``."""

    #: Whether indicator matrices are accepted as targets.
    _multilabel = False
    #: Whether a row may have more than one axis, as an image has.
    _allow_nd = False
    #: Whether values of dense rows may be missing (NaN).
    _allow_nan = False
    #: What to do about those that may not.
    _nan_advice = ""
    #: Solvers that are used for the exact optimum, and compute in float64 however large the work.
    _exact_solvers: frozenset[str] = frozenset()
    warm_start: bool
    device: str | torch.device
    precision: str
    solver: str
    learning_rate: str
    max_iter: int

    def _loss(self, n_outputs: int) -> Loss:
        """The loss for so many score columns."""
        raise NotImplementedError

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        """Number of weights, to judge how much work an epoch is."""
        raise NotImplementedError

    def _n_units(self, n_outputs: int) -> int:
        """Number of units beyond the input, to judge how much memory a row takes."""
        raise NotImplementedError

    def _check_classes(self, codes: np.ndarray) -> None:
        """Raise if these classes cannot be trained on."""

    def _check_label_names(self, y, name: str, *, new: bool = False) -> None:
        """Note the names of label indicators, or raise if they are not those of before, in the same order."""
        names, known = label_names(y), getattr(self, "_label_names", None)
        if new and names:
            self._label_names = names
        elif names and known and names != known:
            raise ValueError(
                f"The columns of `{name}` are {names}, and those that the classifier was trained on {known}. Pass the "
                "same labels in the same order."
            )

    def _encode(self, y: np.ndarray, name: str, *, new: bool, same: bool = False) -> np.ndarray:
        """Class codes (n,), or indicators (n, C), of a validated target.

        Parameters
        ----------
        y : ndarray of shape (n,) or (n, C)
        name : str
            What the caller calls it.
        new : bool
            Whether it sets ``classes_``, or must not go beyond them.
        same : bool
            Whether it must have all of them.
        """
        find = unique_labels if y.dtype.kind == "O" else np.unique  # objects become an array of their own dtype
        labels = np.arange(y.shape[1]) if y.ndim == 2 else find(y)
        if new:
            self.classes_, self._target_is_multilabel = labels, y.ndim == 2
        elif self._target_is_multilabel != (y.ndim == 2):
            kinds = ("class labels", "label indicators")
            raise ValueError(
                f"`{name}` holds {kinds[y.ndim == 2]}, but the classifier was trained on "
                f"{kinds[self._target_is_multilabel]}."
            )
        elif same and set(labels) != set(self.classes_):
            raise ValueError(
                f"warm_start can only be used where `{name}` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `{name}` has {labels}"
            )
        elif len(unknown := np.setdiff1d(labels, self.classes_)) or (y.ndim == 2 and len(labels) < len(self.classes_)):
            advice = " Name all classes in the first call of partial_fit." if name == "y" else ""
            raise ValueError(
                f"`{name}` has classes not in `self.classes_`. `self.classes_` has {self.classes_}, `{name}` also has "
                f"{unknown}.{advice}"
                if len(unknown)
                else f"`{name}` has {len(labels)} labels, expected {len(self.classes_)}."
            )
        return (y != 0).astype(np.uint8) if y.ndim == 2 else np.searchsorted(self.classes_, y)

    def _class_weights(self, members: list, y, codes, sample_weight) -> np.ndarray | None:
        """Factor of each row by its class: (n,) where all members have the same weights, else (K, n); None for ones."""
        settings = [member.class_weight for member in members]
        with np.errstate(over="ignore"):
            factors = [self._class_weight_of_rows(w, y, codes, sample_weight) for w in settings]
            totals = [np.sum(f if sample_weight is None else f * sample_weight) for f in factors if f is not None]
        if not np.isfinite(totals).all():
            raise ValueError(
                "class_weight times sample_weight overflows: some classes have next to no weight beside others. Leave "
                "out rows that count for nothing, or use class_weight=None."
            )
        if all(w is settings[0] or w == settings[0] for w in settings):
            return factors[0]
        return np.stack([np.ones(len(y)) if factor is None else factor for factor in factors])

    def _class_weight_of_rows(self, class_weight, y, codes, sample_weight) -> np.ndarray | None:
        """Factor of each row by its class (by all its labels, for a multilabel target)."""
        if class_weight is None:
            return None
        if codes.ndim == 2:
            return weights_of_labels(class_weight, codes, sample_weight)
        if isinstance(class_weight, list):
            raise ValueError("class_weight is a list, one dictionary per label, for label indicators only.")
        if not isinstance(class_weight, str):
            return weights_of_classes(class_weight, self.classes_)[codes]
        counted = slice(None) if sample_weight is None else sample_weight > 0
        weights = np.ones(len(self.classes_))
        present = np.unique(codes[counted])
        weights[present] = compute_class_weight(
            class_weight,
            classes=self.classes_[present],
            y=y[counted],
            sample_weight=None if sample_weight is None else sample_weight[counted],
        )
        return weights[codes]

    def _problem(self, members: list, X, y, sample_weight, going_on, incremental) -> Problem:
        """Validate everything that concerns the training data."""
        X = check_features(self, X, reset=not going_on, min_samples=1 if incremental else 2)
        self._check_label_names(y, "y", new=not going_on)
        y = check_target(self, y, X, multilabel=self._multilabel)
        sample_weight = check_weight(sample_weight, X)
        codes = self._encode(y, "y", new=not going_on and not incremental, same=going_on and not incremental)
        many = codes.shape[1] if codes.ndim == 2 else len(self.classes_)
        self.n_outputs_ = many if codes.ndim == 2 or many > 2 else 1
        class_weight = self._class_weights(members, y, codes, sample_weight)
        anywhere = torch.device("cpu"), torch.float32
        problem = Problem(X, self._target(codes), codes, sample_weight, class_weight, *anywhere)
        for weight in _of_models(problem, "training"):
            if not incremental:
                self._check_classes(codes if weight is None else codes[weight > 0])
        self._choose(members, problem, incremental)
        problem.device, problem.dtype = self._place(problem)
        return problem

    def _warn_of_raw_columns(self, problem: Problem) -> None:
        """Warn of columns that are no columns to train on as they are, going by evenly spaced rows."""
        if getattr(self, "standardize", True) or self.solver_ == "exact":  # a module of the user's may scale them
            return
        rows = np.arange(len(problem.codes)) if problem.subset is None else problem.subset
        part = problem.take(rows[:: max(1, len(rows) // _SAMPLE_ROWS)]).X
        columns = Columns.measure(rows_of(part, problem.device, torch.float64), None, None)
        centered = not sparse.issparse(part)
        varies, sizes = ~columns.constant(centered), columns.sizes(centered)
        fault, at_fault = f"vary by less than {_RAW_SIZES[0]:g}", varies & (sizes < _RAW_SIZES[0])
        if not varies.any() or (varies & ~at_fault).any():  # there are others to learn from
            fault = f"have values beyond {_RAW_SIZES[1]:g}"
            at_fault = np.abs(columns.mean) + np.where(varies, sizes, 0.0) > _RAW_SIZES[1]
        if at_fault.any():
            warnings.warn(
                f"standardize=False trains on the columns of X as they are, of which some {fault}: {named(at_fault)}. "
                "Steps and tolerances are made for columns of the order of one: next to nothing may be learnt of "
                "these, or of others beside them. Use standardize=True, or scale the columns (StandardScaler, or "
                "MaxAbsScaler for sparse X).",
                stacklevel=7,
            )

    def _choose(self, members: list, problem: Problem, incremental: bool) -> None:
        """Set the solver, and the schedule with the epochs it takes, where the parameters leave them to us."""
        self.solver_, self._schedule = self.solver, (self.learning_rate, self.max_iter)

    def _batch_rows(self, problem: Problem) -> int:
        """Rows per step."""
        raise NotImplementedError

    def _place(self, problem: Problem) -> tuple[torch.device, torch.dtype]:
        """Where, and in which dtype, to compute.

        What a model is does not depend on the device, up to rounding. MPS has no float64: what needs it (exact solvers)
        is computed on the CPU, all else in float32.
        """
        dtype = self._dtype(problem)
        work = self._n_params(problem.source.shape[1], self.n_outputs_) * self._batch_rows(problem) * problem.density
        device = resolve_device(self.device, problem.source, work, dtype)
        if device.type == "mps" and self.solver_ in self._exact_solvers:
            device = torch.device("cpu")
        if self.precision == "bfloat16" and not torch.amp.is_autocast_available(device.type):
            raise ValueError(f"precision='bfloat16' is not available on device {device.type!r}. Use 'float32'.")
        if device.type == "mps" and dtype is torch.float64:
            if self.precision == "float64":
                raise ValueError("precision='float64' is not available on device 'mps'. Use 'float32'.")
            dtype = torch.float32
        return device, dtype

    def _dtype(self, problem: Problem) -> torch.dtype:
        """Of the parameters and losses: float64 where it costs nothing or is the point, unless the user has decided."""
        if self.precision == "auto":
            work = problem.n_rows * self._n_params(problem.source.shape[1], self.n_outputs_)
            exact = work <= _FREE_FLOAT64 or self.solver_ in self._exact_solvers
            return torch.float64 if exact else torch.float32
        if self.precision == "bfloat16" and self.solver in FULL_BATCH:
            raise ValueError(
                f"solver={self.solver!r} compares losses more finely than products in bfloat16 can tell them apart. "
                "Use precision='float32', or solver='sgd', 'adam' or 'adamw'."
            )
        return PRECISIONS[self.precision]

    def _products(self) -> torch.dtype | None:
        """Of the matrix products in training; None if it is that of the parameters."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    def _validation_problem(self, members: list, X_val, y_val, weight_val, problem: Problem) -> Problem:
        """Validate the caller's own validation data."""
        X = check_features(self, X_val, reset=False)
        self._check_label_names(y_val, "y_val")
        y = check_target(self, y_val, X, multilabel=self._multilabel, name="y_val")
        codes = self._encode(y, "y_val", new=False)
        weight = check_weight(weight_val, X, "sample_weight_val")
        class_weight = self._class_weights(members, y, codes, weight)
        held_out = Problem(X, self._target(codes), codes, weight, class_weight, problem.device, problem.dtype)
        _of_models(held_out, "validation")
        return held_out

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


def _of_models(problem: Problem, what: str) -> list[np.ndarray | None]:
    """The weights of the rows, for each model that has its own; none may be zero everywhere."""
    weights = [problem.weight] if problem.weight is None else list(np.atleast_2d(problem.weight))
    if any(weight is not None and not weight.any() for weight in weights):
        raise ValueError(
            f"All {what} rows have weight zero: class_weight must not be zero for every class of the rows, nor for "
            "all of those with a sample weight."
        )
    return weights
