"""Targets: one class per row or a table of label indicators, none missing; and the weights of classes."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.metrics import accuracy_score
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from skdeep.compat.sklearn import _check_y
from skdeep.data.conversion import column_names, is_missing, place
from skdeep.data.inputs import Classifier, Data, Matrix, dense, to_numpy

#: Labels or keys that a message lists.
_AT_MOST = 20


#: What to do about several labels of a row.
_SEVERAL = (
    "Where rows have several labels each, sklearn.preprocessing.MultiLabelBinarizer().fit_transform makes of them the "
    "table of indicators that SigmoidClassifier, the MLPs and TorchClassifier take."
)


def n_columns(y: Data) -> int:
    """Count the columns of a target: more than one may be label indicators."""
    try:
        shape = y.shape if sparse.issparse(y) else np.asarray(to_numpy(y)).shape
    except ValueError:  # rows of several lengths, of which `check_target` says more
        return 1
    return shape[1] if len(shape) == 2 else 1


def label_names(y: Data) -> list[str] | None:
    """List the names of the label indicators in a data frame; None where there are none."""
    names = column_names(y)
    return names if names and len(names) > 1 and all(isinstance(name, str) for name in names) else None


def check_label_names(estimator: Classifier, y: Data, name: str, *, new: bool = False) -> None:
    """Note the names of label indicators, or raise if they are not the earlier ones, in the same order."""
    names, known = label_names(y), getattr(estimator, "_label_names", None)
    if new and names:
        estimator._label_names = names
    elif names and known and names != known:
        raise ValueError(
            f"The columns of `{name}` are {names}, and those that the classifier was trained on {known}. Pass the "
            "same labels in the same order."
        )


def check_given(estimator: Classifier, y: Data, name: str) -> None:
    """Raise where there is no target."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target {name} is None."
        )


def check_target(estimator: Classifier, y: Data, X: Matrix, *, multilabel: bool, name: str = "y") -> np.ndarray:
    """Validate y: one class label per row, or a matrix of label indicators where `multilabel` allows it.

    Raise where labels are missing, of several types or no classes, or indicators are not 0 and 1.
    """
    check_given(estimator, y, name)
    y = _plain(y, name)
    if y.ndim == 1 and y.dtype.kind in "biu" and len(y) > 0 and int(y.max()) - int(y.min()) < len(y) // 2:
        # one class per row beyond doubt, at which scikit-learn would look for longer than an epoch of a small fit takes
        check_consistent_length(X, y)
        return y
    if y.ndim not in (1, 2):
        shown = f"an array of shape {y.shape}" if y.ndim else f"an object of type {type(y.item()).__name__}"
        raise ValueError(f"{name} should be a 1d array of class labels, got {shown} instead.")
    if y.ndim == 2 and y.shape[1] > 1:
        y = _indicators(estimator, y, name, multilabel)
    else:
        _check_types(y, name)
        y = _check_y(y, y_numeric=False, estimator=estimator)
    check_consistent_length(X, y)
    check_classification_targets(y)
    return y


class Probabilities(NamedTuple):
    """Targets that are probabilities, (n, C), of so many classes."""

    table: Any
    classes: Any

    @classmethod
    def of(cls, y: Data, classes: Any) -> Any:
        """Say that y holds probabilities of classes; of no classes, or no y, it is y."""
        return y if y is None or classes is None else cls(y, classes)


def check_probabilities(
    estimator: Classifier, table: Data, classes: Any, X: Matrix, name: str = "y"
) -> tuple[np.ndarray, np.ndarray]:
    """Validate targets that are probabilities; return them (n, C), by classes in their order, and these (C,).

    Raise where rows are no probabilities of these classes, or the estimator's loss, weights or calibration ask for a
    class.
    """
    who = type(estimator).__name__
    if not estimator._takes_probabilities:
        raise ValueError(
            f"{who} learns classes, not probabilities: its loss is no cross-entropy over all of them. Use "
            "SoftmaxClassifier or a network, or a class for each row, without `classes`."
        )
    for given, what in ((estimator.class_weight, "class_weight"), (estimator.calibration, "calibration")):
        if given is not None:
            raise ValueError(
                f"{what}={given!r} asks for the class of each row, and {name} holds probabilities. Use None."
            )
    labels = np.asarray(to_numpy(classes))
    try:
        found = np.asarray(dense(table), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"With `classes`, {name} is a table of the probabilities of each class; this holds no numbers: {error}. "
            f"Where {name} are labels, (np.asarray({name})[:, None] == classes).astype(float) is such a table."
        ) from error
    if labels.ndim != 1 or len(labels) < 2 or len(np.unique(labels)) < len(labels):
        raise ValueError(
            f"`classes` must be two different labels or more, one for each column of {name}; got {classes!r}."
        )
    if found.shape != (X.shape[0], len(labels)):
        raise ValueError(
            f"{name} has shape {found.shape}, expected {(X.shape[0], len(labels))}: the probabilities of {len(labels)} "
            "classes for each row of X."
        )
    wrong = ~((found >= 0).all(1) & (np.abs(found.sum(1) - 1) <= 1e-4))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Row {row} of {name} is {found[row]}: expected probabilities, at least zero, whose sum is one."
        )
    names = column_names(table)
    if names is not None and names != labels.tolist() and set(names) == set(labels.tolist()):
        raise ValueError(
            f"The columns of {name} are {names}, and `classes` are {labels.tolist()}, one for each column: the same "
            f"labels in another order. Pass classes={name}.columns, or {name}[classes]."
        )
    order = np.argsort(labels, kind="stable")
    return found[:, order] / found.sum(1, keepdims=True), labels[order]


def check_classes(classes: Any) -> np.ndarray | None:
    """Validate the classes that ``partial_fit`` is told of, of which none may be missing; None for None."""
    if classes is None or np.ndim(to_numpy(classes)) != 1:
        return classes
    labels = _plain(classes, "classes")
    _check_types(labels, "classes")
    return labels


def readable(y: Data) -> Any:
    """Detach a tensor from its gradient, and from a dtype that NumPy does not have; leave all else as it is."""
    if not isinstance(y, Tensor):
        return y
    return y.detach().float() if y.dtype is torch.bfloat16 else y.detach()


def unboxed(y: Data) -> Any:
    """Convert a target to what scikit-learn's metrics and splits take: objects become what they are, all else stays.

    Raise where some of the objects are missing, or they are no labels of one kind.
    """
    if isinstance(y, Tensor):
        return readable(y)
    if hasattr(y, "__array_namespace__") and not isinstance(y, np.ndarray):
        return y
    kind = getattr(getattr(y, "dtype", None), "kind", "O")
    if kind not in "OST" and not isinstance(y, np.ma.MaskedArray):
        return y
    y = _plain(y, "y")
    _check_types(y, "y")
    return y


def accuracy(y: Data, predicted: Data, sample_weight: ArrayLike | None) -> float:
    """Compute the weighted share of rows whose labels, or tables of labels, are right."""
    # scikit-learn looks at both for longer than it takes to predict the rows of a fold
    plain = all(type(part) is np.ndarray and part.ndim == 1 and part.dtype.kind in "biu" for part in (y, predicted))
    if plain and sample_weight is None and len(y) == len(predicted) > 0:
        return float((y == predicted).mean())
    return accuracy_score(y, predicted, sample_weight=sample_weight)


def _plain(y: Data, name: str) -> np.ndarray:
    """Make an array without missing values of a target of any kind, of numbers where its objects are numbers."""
    if type(y) is np.ndarray and y.dtype.kind in "biu":
        return y
    y = to_numpy(y)
    y = y.toarray() if sparse.issparse(y) else y
    try:
        array = np.asarray(y)
    except ValueError as error:  # of lists
        raise ValueError(
            f"`{name}` has rows of several lengths, where one label each was expected. {_SEVERAL}"
        ) from error
    array = array.astype(object) if array.dtype.kind == "T" else array  # strings of any length
    # of a list in which something stands among words, NumPy makes words of everything
    y_objects = np.array(y, dtype=object) if isinstance(y, list | tuple) and array.dtype.kind in "US" else array
    objects = y_objects.ravel().tolist() if y_objects.dtype.kind == "O" else []
    words = bool(objects) and all(isinstance(value, str) for value in objects)
    if isinstance(y, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(y)
    else:
        missing = np.zeros(y_objects.shape, dtype=bool) if words else missing_of(y_objects)
    if missing.any():
        first = tuple(np.argwhere(missing)[0])
        raise ValueError(
            f"Input {name} contains NaN: {int(missing.sum())} of {missing.size} labels are missing, the first "
            f"{place(first)}. Drop those rows, or give what is missing a label of its own."
        )
    if words and any(value.endswith("\0") for value in objects):
        first = next(value for value in objects if value.endswith("\0"))
        raise ValueError(
            f"`{name}` has a label that ends in a NUL character, {first!r}. NumPy takes it off, so that two labels may "
            'become one. Take it off first: [label.rstrip("\\0") for label in y].'
        )
    if words or not objects:
        return array
    if all(isinstance(value, numbers.Real | np.bool_) for value in objects):
        whole = all(isinstance(value, numbers.Integral | np.bool_) for value in objects)
        unboxed = np.array(objects)
        if unboxed.dtype.kind in ("biu" if whole else "f"):  # else they are rounded, or do not fit
            return unboxed.reshape(array.shape)
    return y_objects


def missing_of(y: np.ndarray) -> np.ndarray:
    """Find the entries that stand for no label."""
    if y.dtype.kind == "f":
        return np.isnan(y)
    if y.dtype.kind in "Mm":
        return np.isnat(y)
    if y.dtype.kind == "O":
        return np.array([is_missing(value) for value in y.ravel().tolist()], dtype=bool).reshape(y.shape)
    return np.zeros(y.shape, dtype=bool)


def _check_types(y: np.ndarray, name: str) -> None:
    """Raise if labels are objects that do not compare with each other, or that are no labels."""
    if y.dtype.kind in "biufmMU" or all(isinstance(value, str) for value in y.flat):
        return
    types = sorted({type(value).__name__ for value in y.flat})
    if all(isinstance(value, bytes) for value in y.flat):
        raise TypeError(
            f"`{name}` holds bytes, which are no labels. Decode them: [label.decode() for label in {name}]."
        )
    if any(isinstance(value, list | tuple | set | frozenset | np.ndarray) for value in y.flat):
        raise ValueError(
            f"`{name}` holds objects of the type(s) {', '.join(types[:_AT_MOST])}, where one label each was expected. "
            f"{_SEVERAL}"
        )
    raise ValueError(
        f"Unknown label type: unknown. `{name}` holds objects of the type(s) {', '.join(types[:_AT_MOST])}; expected "
        "labels of one kind: strings, booleans, or integers of up to 64 bits. Convert them, with astype(str) for "
        "example."
    )


def _indicators(estimator: Classifier, y: np.ndarray, name: str, allowed: bool) -> np.ndarray:
    """Return a table of zeros and ones as it is; refuse anything else."""
    values = _values(y)
    are_indicators = y.dtype.kind in "biuf" and np.isin(values, (0, 1)).all()
    if allowed and are_indicators:
        return _check_y(y, multi_output=True, y_numeric=False, estimator=estimator)
    shown = f"{values[:_AT_MOST].tolist()}{' and more' if len(values) > _AT_MOST else ''}"
    message = f"{name} should be a 1d array of class labels"
    if allowed:
        message += ", or a table of label indicators 0 and 1 with a column per label"
    message += f", got an array of shape {y.shape} instead, with the values {shown}."
    if not allowed and are_indicators:
        advice = "Label indicators are for SigmoidClassifier and MLPClassifierTorch; of one-hot classes, pass "
        raise ValueError(f"{message} {advice}y.argmax(axis=1).")
    if estimator._takes_probabilities and y.dtype.kind == "f" and (np.abs(y.sum(axis=1) - 1) <= 1e-4).all():
        raise ValueError(
            f"{message} If these are probabilities of classes, pass the labels of the columns as `classes`."
        )
    if len(values) <= 2:
        raise ValueError(f"{message} Code the value v that means yes: (y == v).astype(int). {_SEVERAL}")
    raise ValueError(
        f"{message} Columns that are a question each are multiclass-multioutput: fit a classifier to each. {_SEVERAL}"
    )


def _values(y: np.ndarray) -> np.ndarray:
    """List the distinct values of a table, in order where they have one."""
    try:
        return np.unique(y)
    except TypeError:
        return np.array(sorted({repr(value) for value in y.ravel().tolist()}), dtype=object)


# ---- weights of classes ----------------------------------------------------------------------------------------------


def weights_of_classes(class_weight: dict, classes: np.ndarray, of: str = "class_weight") -> np.ndarray:
    """Look up the weight of each class in a dictionary; one for classes that it leaves out.

    Raise where a weight is no finite number of at least zero, or a key is no label while some label has no weight.
    """
    for key, weight in class_weight.items():
        if not isinstance(weight, numbers.Real) or not np.isfinite(float(weight)) or weight < 0:
            raise ValueError(f"{of} must be finite and not negative; it gives class {key!r} the weight {weight!r}.")
    labels = list(classes)
    known = set(labels)
    unknown = [key for key in class_weight if key not in known]
    without = [label for label in labels if label not in class_weight]
    if unknown and without:
        shown = [label.item() if isinstance(label, np.generic) else label for label in labels[:_AT_MOST]]
        raise ValueError(
            f"{of} has keys that are no class: {unknown[:_AT_MOST]}; the classes are {shown}. A key must equal its "
            "label, in type as well: 1 is not '1'."
        )
    return np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)


def weights_of_labels(
    class_weight: dict | list | str | None, indicators: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Multiply the weights of the answers in each row, "balanced" or by one dictionary for each label."""
    factor = np.ones(len(indicators))
    if class_weight == "balanced":
        for answers in indicators.T:
            counts = np.bincount(answers, sample_weight, minlength=2)
            there = counts > 0
            factor *= np.divide(counts.sum(), there.sum() * counts, out=np.ones(2), where=there)[answers]
        return factor
    if not isinstance(class_weight, list) or len(class_weight) != indicators.shape[1]:
        return compute_sample_weight(class_weight, indicators)
    for k, weights in enumerate(class_weight):
        if not isinstance(weights, dict):
            raise ValueError(f"class_weight must be a list of dictionaries, one per label; got {weights!r} at {k}.")
        factor *= weights_of_classes(weights, np.arange(2), f"class_weight[{k}]")[indicators[:, k]]
    return factor
