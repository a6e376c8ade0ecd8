"""ONNX files of Pipelines that end in these estimators: converters for skl2onnx.

skl2onnx turns scikit-learn's scalers, encoders and Pipelines into ONNX operators. `register` tells it how to go on with
an estimator of this package: by its module (``to_torch``), which torch exports, and whose operators become part of the
file. It needs ``pip install skdeep[onnx]``. A single estimator needs no skl2onnx: ``torch.onnx.export`` takes its
module.
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, TensorProto, compose, helper, inliner, numpy_helper
from skl2onnx import update_registered_converter
from skl2onnx.common import data_types as kinds
from torch import Tensor, nn

from skdeep.estimators.base import BaseTorchClassifier, BaseTorchEstimator
from skdeep.estimators.regression import BaseTorchRegressor
from skdeep.fitting.exported import ClassifierModule

#: Types of X, and what a module gets of such.
_DTYPES = {
    kinds.FloatTensorType: torch.float32,
    kinds.DoubleTensorType: torch.float64,
    kinds.Int64TensorType: torch.int64,
    kinds.BooleanTensorType: torch.bool,
}
#: The oldest operators that torch writes.
_LEAST_OPSET = 18
_OPTIONS = {"zipmap": [True, False, "columns"], "output_class_labels": [False, True], "nocl": [True, False]}


def register(*classes: type[BaseTorchEstimator]) -> None:
    """Register converters of estimators with skl2onnx, so that it converts them, in a Pipeline or alone.

    The outputs are as of scikit-learn's classifiers: labels, and probabilities (n_samples, n_classes), with the
    option ``zipmap=False`` as an array. Classifiers without probabilities have their scores there, for two classes as
    two columns, of which the first is the negative. Labels that are strings stay strings, and numbers and booleans
    become int64; of a multilabel target, they are indicators (n_samples, n_labels). Regressors have one output,
    predictions (n_samples, n_targets).

    Rows are computed with as in ``predict_proba`` of X in the same dtype. For X in float32 where the model is kept in
    float64, the file computes in float64, too.

    Parameters
    ----------
    *classes : type
        Subclasses of your own; none stands for all estimators of this package.

    Raises
    ------
    TypeError
        In the conversion: if X is no numbers there, or labels are neither strings nor integers.
    ValueError
        In the conversion: if ``target_opset`` is less than 18.
    """
    package = sys.modules[__name__.partition(".")[0]]
    ours = [cls for cls in vars(package).values() if isinstance(cls, type) and issubclass(cls, BaseTorchEstimator)]
    for cls in classes or ours:
        alias = f"Skdeep{cls.__name__}"
        if issubclass(cls, BaseTorchRegressor):
            update_registered_converter(cls, alias, _set_type_of_values, _convert_regressor)
        else:
            update_registered_converter(cls, alias, _set_output_types, _convert, options=_OPTIONS)


def _check_input(operator: Any) -> None:
    """Raise if X is of a type that no module gets."""
    (X,) = operator.inputs
    if type(X.type) not in _DTYPES:
        known = ", ".join(kind.__name__ for kind in _DTYPES)
        raise TypeError(
            f"{type(operator.raw_operator).__name__} gets {type(X.type).__name__} in this Pipeline, and can be "
            f"converted for {known}."
        )


def _set_type_of_values(operator: Any) -> None:
    """Say which type and shape the predictions of a regressor have."""
    _check_input(operator)
    (X,), (values,) = operator.inputs, operator.outputs
    values.type.shape = [X.get_first_dimension(), operator.raw_operator.n_outputs_]


def _set_output_types(operator: Any) -> None:
    """Say which types and shapes the outputs of a classifier have."""
    _check_input(operator)
    (X,), (labels, probabilities) = operator.inputs, operator.outputs
    estimator, n_rows = operator.raw_operator, X.get_first_dimension()
    n_classes = len(estimator.classes_)
    numbers = estimator._fitted_multilabel or _label_kind(estimator, operator.scope_inst) is not str
    shape = [n_rows, n_classes] if estimator._fitted_multilabel else [n_rows]
    labels.set_type((kinds.Int64TensorType if numbers else kinds.StringTensorType)(shape=shape))
    probabilities.type.shape = [n_rows, n_classes]


def _label_kind(estimator: BaseTorchClassifier, scope: Any) -> type:
    """Choose what the labels are in a file, int or str; raise for labels that are neither there."""
    classes = np.asarray(estimator.classes_)
    if scope.get_options(estimator, {"nocl": False})["nocl"] or classes.dtype.kind in "biuf":  # of floats, whole ones
        return int
    if all(isinstance(label, str) for label in classes.tolist()):
        return str
    raise TypeError(
        f"ONNX classifiers have labels that are strings or integers, and those of this {type(estimator).__name__} are "
        f"of dtype {classes.dtype}. Fit it to labels of these kinds, or use the option nocl=True, for their numbers."
    )


class _Answers(nn.Module):
    """Class numbers (n,) or label indicators, and probabilities or scores (n, n_classes), in a dtype."""

    def __init__(self, module: ClassifierModule, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Answer for rows."""
        found, values = self.module.answers(X)
        if values.ndim == 1:
            values = torch.stack([-values, values], dim=1)
        return found, values.to(self.dtype)


class _Values(nn.Module):
    """Predictions (n, n_targets), in a dtype."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, X: Tensor) -> Tensor:
        """Predict rows."""
        found = self.module(X)
        return (found.unsqueeze(1) if found.ndim == 1 else found).to(self.dtype)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    (values,) = operator.outputs
    (found,) = _add_operators(scope, operator, container, _Values, _DTYPES[type(values.type)])
    container.add_node("Identity", [found], [values.full_name], op_version=1)


def _add_operators(scope: Any, operator: Any, container: Any, form: Any, dtype: torch.dtype) -> list[str]:
    """Add the operators of an estimator's module, in a `form` of answers, to a file; return the names of these."""
    estimator, (X,) = operator.raw_operator, operator.inputs
    opset = container.target_opset
    if opset < _LEAST_OPSET:
        raise ValueError(
            f"{type(estimator).__name__} becomes operators of ONNX by torch, which writes none older than opset "
            f"{_LEAST_OPSET}, and target_opset is {opset}. Use target_opset={_LEAST_OPSET} or more."
        )
    if hasattr(estimator, "encoded_features_"):
        raise ValueError(
            f"{type(estimator).__name__} was fitted to categories, and its converter takes numbers. Put scikit-learn's "
            "OneHotEncoder in front of it (in a ColumnTransformer), which has a converter."
        )
    n_columns = math.prod(getattr(estimator, "input_shape_", (estimator.n_features_in_,)))  # images come as vectors
    example = torch.zeros(2, n_columns, dtype=_DTYPES[type(X.type)])
    graph = _exported(form(estimator.to_torch(), dtype), example, opset, scope.get_unique_operator_name("skdeep"))
    (row,), answers = ([part.name for part in parts] for parts in (graph.input, graph.output))
    container.add_node("Identity", [X.full_name], [row], op_version=1)
    for tensor in graph.initializer:
        raw = numpy_helper.from_array(numpy_helper.to_array(tensor))
        container.add_initializer(tensor.name, raw.data_type, list(raw.dims), raw)
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        outputs = list(node.output)
        container.add_node(node.op_type, list(node.input), outputs, node.domain, None, node.name, **attributes)
    return answers


def _convert(scope: Any, operator: Any, container: Any) -> None:
    estimator, (labels, probabilities) = operator.raw_operator, operator.outputs
    found, values = _add_operators(scope, operator, container, _Answers, _DTYPES[type(probabilities.type)])
    container.add_node("Identity", [values], [probabilities.full_name], op_version=1)
    if estimator._fitted_multilabel:
        container.add_node("Identity", [found], [labels.full_name], op_version=1)
        return
    names = scope.get_unique_variable_name("classes")
    classes = np.asarray(estimator.classes_)
    if _label_kind(estimator, scope) is str:
        encoded = [label.encode() for label in classes.tolist()]
        container.add_initializer(names, TensorProto.STRING, [len(classes)], encoded)
    else:
        nocl = scope.get_options(estimator, {"nocl": False})["nocl"]
        numbers = np.arange(len(classes)) if nocl else classes.astype(np.int64)
        container.add_initializer(names, TensorProto.INT64, [len(classes)], numbers.tolist())
    container.add_node("Gather", [names, found], [labels.full_name], op_version=13, axis=0)


def _exported(module: nn.Module, example: Tensor, opset: int, prefix: str) -> GraphProto:
    """Export a module for any number of rows; all names in its graph begin with a prefix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            verbose=False,
        )
    assert program is not None  # as it is for files
    model = program.model_proto
    if len(model.functions):
        model = inliner.inline_local_functions(model)
    return compose.add_prefix(model, f"{prefix}_").graph
