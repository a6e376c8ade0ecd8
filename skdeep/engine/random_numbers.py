"""Random numbers of a user's module from a generator of our own, and not from torch's, which all threads share.

`OwnNumbers` sees each operation of its thread on the way to its kernel, those inside dropout and recurrent layers
included, and hands those that draw a generator. Random numbers of Python and NumPy are left alone.

It costs about as much per operation as a small kernel, so that it is for those steps in which numbers are drawn.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skdeep.compat.torch import DispatchMode, native_dropout, tree_map_only

#: Held while torch's own generator stands in for ours.
_LOCK = threading.RLock()


@functools.cache
def _draws(operation: Any) -> bool:
    """Tell whether an operation may draw random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(operation, "tags", ())


@functools.cache
def _has_generator(device_type: str) -> bool:
    """Tell whether random numbers can be seeded on such a device."""
    try:
        torch.Generator(device_type)
    except RuntimeError:
        return False
    return True


@functools.cache
def _with_generator(operation: Any) -> Any:
    """Find the form of an operation that takes a generator; None if there is none."""
    names = [argument.name for argument in operation._schema.arguments]
    if "generator" in names:
        return operation
    packet = operation.overloadpacket
    for form in (getattr(packet, name) for name in packet.overloads()):
        arguments = [argument.name for argument in form._schema.arguments]
        if "generator" in arguments and [name for name in arguments if name != "generator"] == names:
            return form
    return None


class OwnNumbers(DispatchMode):
    """Let torch's random numbers in this thread follow from a seed; where a generator is given, it stays."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed
        self._generators: dict[torch.device, tuple[torch.Generator, Tensor]] = {}

    def reseed(self, seed: int) -> None:
        """Start anew."""
        self.seed, self._generators = seed, {}

    def states(self) -> dict[torch.device, bytes]:
        """Tell where the numbers of each device stand."""
        return {device: generator.get_state().numpy().tobytes() for device, (generator, _) in self._generators.items()}

    @property
    def drawn(self) -> bool:
        """Whether any number has been drawn since the seed was set."""
        return any(not torch.equal(generator.get_state(), start) for generator, start in self._generators.values())

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            generator = torch.Generator(device).manual_seed(self.seed)
            self._generators[device] = generator, generator.get_state()
        return self._generators[device][0]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        values = (*args, *kwargs.values())
        if not _draws(func) or any(isinstance(value, torch.Generator) for value in values):
            return func(*args, **kwargs)
        tensor = next((value for value in values if isinstance(value, Tensor)), None)
        device = torch.device(kwargs.get("device") or ("cpu" if tensor is None else tensor.device))
        if device.type == "meta":
            return func(*args, **kwargs)
        if not _has_generator(device.type):
            return self._on_the_host(func, args, kwargs, device)
        if device.index is None and device.type != "cpu":
            device = torch.empty(0, device=device).device
        if func is native_dropout:
            return self._dropout(*args, **kwargs)
        form = _with_generator(func)
        if form is not None:
            return form(*args, **kwargs, generator=self._generator(device))
        return self._by_torchs_own(functools.partial(func, *args, **kwargs), device)

    def _on_the_host(self, func: Any, args: tuple, kwargs: dict[str, Any], device: torch.device) -> Any:
        """Run an operation on the CPU, for a device without generators."""
        own_args, own_kwargs = tree_map_only(Tensor, Tensor.cpu, (args, kwargs))
        if own_kwargs.get("device") is not None:
            own_kwargs["device"] = torch.device("cpu")
        result = self.__torch_dispatch__(func, (), own_args, own_kwargs)
        if func._schema.is_mutable:
            return args[0].copy_(own_args[0])
        return tree_map_only(Tensor, lambda part: part.to(device), result)

    def _dropout(self, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        """Compute the dropout of accelerators, which takes no generator."""
        kept = torch.ones_like(input, dtype=torch.bool)
        if train is False or p == 0:
            return input.clone(), kept
        kept.bernoulli_(1 - p, generator=self._generator(input.device))
        return input * kept * (1 / (1 - p) if p < 1 else 0.0), kept

    def _by_torchs_own(self, operation: Callable[[], Any], device: torch.device) -> Any:
        """Run an operation that draws from torch's generator only, which stands in for ours meanwhile."""
        ours = self._generator(device)
        place: Any = torch.random if device.type == "cpu" else torch.get_device_module(device)
        where = () if device.type in ("cpu", "mps") else (device,)
        with _LOCK:
            before = place.get_rng_state(*where)
            place.set_rng_state(ours.get_state(), *where)
            try:
                return operation()
            finally:
                ours.set_state(place.get_rng_state(*where))
                place.set_rng_state(before, *where)
