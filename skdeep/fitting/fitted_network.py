"""The networks of fitted perceptrons, as a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from skdeep.data.inputs import Classifier, to_numpy
from skdeep.engine.input_layer import Standardization, unshared
from skdeep.engine.per_model import to_device
from skdeep.engine.perceptron import MLP

#: Sizes of the weights on a column, or of a score, that single precision has room for, with all that becomes of them.
_SMALLEST, _LARGEST = 2.0**-80, 2.0**80


def fits_float32(first: np.ndarray, last: np.ndarray) -> bool:
    """Tell whether weights (out, in) of the first and of the last layer fit single precision, in the user's units."""
    sizes = np.append(np.abs(first).max(0), np.abs(last).max(1))
    return bool(((sizes == 0) | (sizes > _SMALLEST) & (sizes < _LARGEST)).all())


def network_of(
    models: list[Classifier],
    device: torch.device,
    dtype: torch.dtype,
    standardization: Standardization | None = None,
    of_rows: torch.dtype | None = None,
    **noise: Any,
) -> MLP:
    """Make the network of some fitted perceptrons of one form, or one that goes on in a change of variables.

    Rows that are more precise than the network are centred before they are rounded. Values are given in their dtype,
    for they may be far from zero.
    """
    leader, of_rows = models[0], of_rows or dtype
    known = [{kind: _arrays(model, name) for kind, name in leader._attributes.items()} for model in models]
    if standardization is not None:
        for of_model in known:
            first = (of_model[kind][0].astype(np.float64) for kind in ("weight", "bias"))
            of_model["weight"][0], of_model["bias"][0] = standardization.unfolded(*first)
    else:
        standardization = _standardization(models, device, dtype, of_rows)
        if standardization is not None and standardization.center is not None:
            for of_model, model in zip(known, models, strict=True):
                means = to_numpy(model.means_).astype(np.float64)
                of_model["bias"][0] = of_model["bias"][0] + of_model["weight"][0][:, : len(means)] @ means
    weights, biases, slopes, gammas, betas, factors, *averages = (
        [_stacked(layer, device, dtype) for layer in zip(*(of_model[kind] for of_model in known), strict=True)]
        for kind in leader._attributes
    )
    if not hasattr(leader, "classes_"):
        biases[-1] = _stacked([of_model["bias"][-1] for of_model in known], device, of_rows)
    if noise.get("scaling"):
        # what is trained: the factors are in the weights of the columns as they are
        scale, spread = unshared(factors[0], standardization)
        weights[0] = weights[0] / spread.unsqueeze(1)
        noise["scales"] = [scale / noise["scaling"]]
    noise = {"stochastic_depth": leader.stochastic_depth} | noise
    form = getattr(leader, "_trained_activation", leader.activation)  # another one takes effect in the next fit
    return MLP(weights, biases, slopes, form, gammas, betas, *averages, standardization=standardization, **noise)


def _standardization(
    models: list[Classifier], device: torch.device, dtype: torch.dtype, of_rows: torch.dtype
) -> Standardization | None:
    """Make the change of variables of prediction, which fills in the means; None where training had none."""
    leader = models[0]
    has_means = hasattr(leader, "means_")
    edges = np.stack([to_numpy(model.bin_edges_) for model in models]) if hasattr(leader, "bin_edges_") else None
    if not has_means and edges is None:
        return None
    index = np.array(to_numpy(leader.missing_features_)) if has_means else np.empty(0, dtype=np.int64)
    # of indicators, of categories as well, there are no bins
    n_bins = 0 if edges is None else edges.shape[1] * (edges.shape[2] - 1)
    n_columns = to_numpy(leader.coefs_[0]).shape[0] - n_bins
    center = None
    if has_means:
        means = np.zeros((len(models), 1, n_columns))
        means[:, 0, : n_columns - len(index)] = [to_numpy(model.means_) for model in models]
        center = to_device(torch.from_numpy(means), device, of_rows)
    indicated = to_device(torch.from_numpy(index), device)
    return Standardization(center, torch.ones(1, 1, n_columns, device=device, dtype=dtype), indicated, edges=edges)


def _arrays(model: Classifier, name: str) -> list[np.ndarray]:
    """List what is kept of the layers of a model, by output."""
    kept = getattr(model, name, [])
    return [np.atleast_1d(to_numpy(own)).T for own in (kept if isinstance(kept, list) else [kept])]


def _stacked(arrays: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Copy one array of each model to a tensor (K, ...)."""
    stack = torch.empty(len(arrays), *arrays[0].shape, dtype=dtype)
    np.stack(arrays, out=stack.numpy(), casting="same_kind")
    return to_device(stack, device, dtype)
