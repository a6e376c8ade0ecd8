"""A network and the loop's optimizer, in the form in which skorch's callbacks look for a module and an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skdeep.engine.networks import Network
from skdeep.engine.optimizers import Adam, Optimizer


class ModuleStandIn(torch.nn.Module):
    """A network of one model as a torch module: the same memory, without the axis of models."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        n = len(network.params)
        for name, param in zip(network.names, network.params, strict=False):
            self.register_parameter(name, torch.nn.Parameter(param.detach()[0]))
        for name, buffer in zip(network.names[n:], network.buffers, strict=True):
            self.register_buffer(name, buffer[0])

    def forward(self, X: Tensor) -> Tensor:
        # its own parameters, not the network's: a deep copy of the module has left that memory
        params = [tensor.unsqueeze(0) for tensor in (*self.parameters(), *self.buffers())]
        X = X if self.network.frame is None else self.network.frame.rows(X)
        return self.network.with_params(params).scores(X.to(params[0].dtype))[0]


class OptimizerStandIn(torch.optim.Optimizer):
    """The optimizer of the loop as torch's schedulers and checkpoints see it; updates and memory are the loop's.

    The loop is None if the solver makes no steps; `leaves` are what it trains, in its order: a module may have other
    parameters, which are not trained. `params` are what skorch takes for them.
    """

    def __init__(self, loop: Optimizer | None, leaves: list[torch.nn.Parameter], params: Any, lr: float):
        defaults: dict[str, Any] = {"lr": lr}
        if loop is not None:  # the name tells a scheduler that cycles momentum what there is
            defaults |= {"betas": loop.betas} if isinstance(loop, Adam) else {"momentum": float(loop.momentum[0])}
        super().__init__(leaves, defaults)
        self.loop = loop
        if loop is not None:
            for i, param in enumerate(self.param_groups[0]["params"]):
                self.state[param] = {slot: getattr(loop, slot)[i][0] for slot in loop.slots}
                self.state[param]["step"] = torch.from_numpy(loop.n_steps)[0]

    @property
    def rate(self) -> float | None:
        """Learning rate of the last step; None if the solver makes none."""
        return None if self.loop is None else float(self.loop.rate[0])

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take note that the loop has made a step; schedulers ask for it."""

    def push(self) -> None:
        """Show callbacks the loop's learning rate, which its schedule may have changed."""
        if self.loop is not None:
            self.param_groups[0]["lr"] = float(self.loop.learning_rate[0])

    def pull(self) -> None:
        """Hand over to the loop what callbacks have changed."""
        if self.loop is not None:
            group = self.param_groups[0]
            self.loop.learning_rate[:] = float(group["lr"])
            self.loop.momentum[:] = group.get("momentum", self.loop.momentum)
            self.loop.betas = tuple(group.get("betas", self.loop.betas))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state into the loop's memory."""
        shared = dict(self.state)
        super().load_state_dict(state_dict)
        for param, state in shared.items():
            for name in state.keys() & self.state[param].keys():
                state[name].copy_(self.state[param][name])
            self.state[param] = state

    def __getstate__(self) -> dict[str, Any]:
        # a scheduler in a pickled estimator does not need the tensors, least of all on a GPU
        return {**super().__getstate__(), "state": {}, "param_groups": []}
