"""What is private to torch."""

from __future__ import annotations

import sys
from typing import ClassVar, Self

import torch

from skdeep.compat.checks import demand, private_names

#: The versions that are known to work.
KNOWN = "2.6 to 2.14"

with private_names("torch", KNOWN):
    # a whole update in one pass over memory; torch.optim's front takes half a second at its first use
    # (docs/decisions/step.rst); one kernel for a list of tensors
    from torch import _foreach_add_, _foreach_copy_, _fused_adam_, _fused_sgd_

    # how to tell the parts of a user's module that look at the whole batch, or draw
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.dropout import _DropoutNd

    # the way of each operation of a module to its kernel: there, its random numbers can be given a generator
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    # autograd's kernels of the activations: a layer's way back without a graph (docs/decisions/step.rst)
    elu_backward = torch.ops.aten.elu_backward
    gelu_backward = torch.ops.aten.gelu_backward
    leaky_relu_backward = torch.ops.aten.leaky_relu_backward
    sigmoid_backward = torch.ops.aten.sigmoid_backward
    silu_backward = torch.ops.aten.silu_backward
    tanh_backward = torch.ops.aten.tanh_backward
    threshold_backward = torch.ops.aten.threshold_backward

    # the dropout of accelerators, which takes no generator
    native_dropout = torch.ops.aten.native_dropout.default

    # arguments of operations, and whether a module writes to its input (`_version`)
    demand(hasattr(native_dropout._schema, "arguments"), "operations have a _schema", "torch", KNOWN)
    demand(isinstance(torch.empty(0)._version, int), "tensors have a _version", "torch", KNOWN)
    demand({"_parameters", "_buffers", "_modules"} <= set(vars(torch.nn.Module())), "parts of modules", "torch", KNOWN)

    # whether torch wraps the way of each operation, for which it imports what torch.compile needs (2.6 does not)
    can_skip = hasattr(TorchDispatchMode, "_should_skip_dynamo") or "__init_subclass__" not in vars(TorchDispatchMode)
    demand(can_skip, "_should_skip_dynamo of modes", "torch", KNOWN)


class DispatchMode(TorchDispatchMode):
    """A mode that leaves it to others to import what torch.compile needs, which takes longer than many a fit."""

    is_skipped: ClassVar[bool] = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports it

    def __enter__(self) -> Self:
        cls = type(self)
        if "torch._dynamo" in sys.modules and not cls.is_skipped:  # where there is, it is not to compile what is here
            cls.is_skipped = True
            cls.__torch_dispatch__ = torch.compiler.disable(cls.__torch_dispatch__)  # type: ignore[method-assign]
        return super().__enter__()


__all__ = [
    "TorchDispatchMode",
    "_BatchNorm",
    "_DropoutNd",
    "_foreach_add_",
    "_foreach_copy_",
    "_fused_adam_",
    "_fused_sgd_",
    "elu_backward",
    "gelu_backward",
    "leaky_relu_backward",
    "native_dropout",
    "sigmoid_backward",
    "silu_backward",
    "tanh_backward",
    "threshold_backward",
    "tree_map_only",
]
