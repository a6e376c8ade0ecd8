"""What the fitted attributes of an estimator say of the precision and the work of its predictions."""

from __future__ import annotations

import math

import torch

from skdeep.data.inputs import Classifier, dense, dtype_name
from skdeep.engine.frame import exceeds_float32
from skdeep.engine.module_network import UNKNOWN_WORK

#: Of a linear model, and of the layers of a network.
COEFS, _INTERCEPTS = ("coef_", "coefs_"), ("intercept_", "intercepts_")


def models_of(estimator: Classifier) -> list[Classifier]:
    """List the members of an ensemble; the estimator itself, if it is none."""
    return getattr(estimator, "estimators_", [estimator])


def arrays_of(model: Classifier, names: tuple[str, ...]) -> list:
    """List the arrays of one of these attributes, layer by layer of a network; none of a module of a user's."""
    for name in names:
        if hasattr(model, name):
            found = getattr(model, name)
            return found if isinstance(found, list) else [found]
    return []


def _first_layers(estimator: Classifier) -> list[list]:
    """List coefficients and intercepts on the columns of X, of each model."""
    return [arrays_of(model, COEFS)[:1] + arrays_of(model, _INTERCEPTS)[:1] for model in models_of(estimator)]


def needs_float64(estimator: Classifier) -> bool:
    """Tell whether predictions are computed in float64: of models that are kept in it, or whose products are large."""
    if any(getattr(model, "_is_far", False) for model in models_of(estimator)):
        return True
    return any("float64" in [dtype_name(array.dtype) for array in layer] for layer in _first_layers(estimator))


def is_single(estimator: Classifier) -> bool:
    """Tell whether a model has been trained in single precision, which its predictions then are as exact as."""
    return all(getattr(model, "_is_single", False) for model in models_of(estimator))


def able(device: torch.device, estimators: list[Classifier]) -> torch.device:
    """Choose the device, or the CPU in its place where scores need float64, which MPS does not have."""
    if device.type != "mps":
        return device
    layers = [layer for estimator in estimators for layer in _first_layers(estimator) if layer]
    return torch.device("cpu") if any(exceeds_float32(*map(dense, layer)) for layer in layers) else device


def n_weights(estimator: Classifier) -> int:
    """Count the weights learnt, to judge how much work the scores of a row are."""
    coefs = [coef for model in models_of(estimator) for coef in arrays_of(model, COEFS)]
    return sum(math.prod(coef.shape) for coef in coefs) if coefs else UNKNOWN_WORK


def names_of_rows(model: Classifier, n_rows: int) -> list[str]:
    """Name the rows of the coefficients of a linear model: classes, or targets."""
    if hasattr(model, "classes_"):
        return [str(label) for label in model.classes_]
    return [str(name) for name in getattr(model, "_label_names", [f"target {i}" for i in range(n_rows)])]
