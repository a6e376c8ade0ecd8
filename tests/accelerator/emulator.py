"""An emulated accelerator: tensors that say they are on cuda:0 or mps:0, and hold values of the CPU.

Every operation on them is checked as the backend checks it, and counted; memory that a GPU may still be reading while
the host goes on is watched. So whole fits run on it, on any machine. It does not know which operations a backend lacks
(but for the types and layouts that MPS does not have), nor what they cost.

The environment says what is emulated, ``EMULATED=cuda`` or ``mps``, and where `guard.cpp` was compiled to,
``EMULATED_LIBRARY``. Import this before torch, which asks once which accelerators there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

KIND = os.environ["EMULATED"]
assert "torch" not in sys.modules, "torch has looked already"
ctypes.CDLL(os.environ["EMULATED_LIBRARY"], ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

DEVICE = torch.device(KIND, 0)
_PACKAGE = os.path.join(os.path.dirname(importlib.util.find_spec("skdeep").origin), "")
_aten = torch.ops.aten
_INDEXING = {
    *(_aten.index.Tensor, _aten._unsafe_index.Tensor),
    *(_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default),
}
#: Operations that take memory, and start no kernel.
_MEMORY = {_aten.empty.memory_format, _aten.empty_like.default, _aten.new_empty.default, _aten.empty_strided.default}
#: Operations whose result the host needs, or whose size.
_WAITING = {
    *(_aten._local_scalar_dense.default, _aten.is_nonzero.default, _aten.equal.default),
    *(_aten.nonzero.default, _aten.masked_select.default, _aten._unique2.default, _aten._linalg_check_errors.default),
}


@functools.cache
def _name_in_package(path: str) -> str | None:
    """The name of a file of the package; None of any other."""
    return os.path.basename(path) if path.startswith(_PACKAGE) else None


def line() -> str:
    """The innermost line of the package that is being run."""
    frame = sys._getframe(1)  # the own one would hold itself, and the tensors of all frames around it
    while frame is not None:
        name = _name_in_package(frame.f_code.co_filename)
        if name is not None:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


@functools.cache
def _facts(function) -> tuple[str, bool, bool, bool]:
    """The name of an operation, and whether it is a fused update, makes a view, or has the host wait."""
    aliases = [r.alias_info for r in function._schema.returns if r.alias_info is not None]
    is_view = any(not alias.is_write for alias in aliases) or function is _aten._unsafe_view.default
    return str(function), "_fused_" in str(function), is_view, function in _WAITING


def _bytes(values):
    flat = values.detach().reshape(-1)
    return flat.new_empty(len(flat)).copy_(flat).view(torch.uint8)  # memory without strides of one or no value


@dataclass
class Log:
    """What has happened on the device, each with its line.

    Attributes
    ----------
    launches, views : Counter
        Operations that start a kernel, and those that do not.
    waits : Counter
        What the host has waited for.
    hazards : Counter
        Copies to the device from memory that changed before the host could know that they were done.
    recorded, replays : list of int, int
        Kernels of each graph that was recorded, and how often one was replayed.
    """

    launches: Counter = field(default_factory=Counter)
    views: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)
    hazards: Counter = field(default_factory=Counter)
    under_way: list = field(default_factory=list)
    recorded: list = field(default_factory=list)
    replays: int = 0

    def wait(self, why) -> None:
        """Note that the host waits: what was under way has arrived."""
        if _recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why} @ {line()}")
        self.waits[f"{why} @ {line()}"] += 1
        self.arrive()

    def send(self, source) -> None:
        """Note a copy that the host does not wait for."""
        if _recording is not None:
            raise RuntimeError(f"a replay would read what the host has here by then @ {line()}")
        self.under_way.append((source, _bytes(source).clone(), line()))

    def arrive(self) -> None:
        """See whether what was under way is what was sent."""
        for source, sent, where in self.under_way:
            self.hazards[where] += not _bytes(source).equal(sent)
        self.under_way.clear()
        self.hazards += Counter()  # without the zeros


_recording: Graph | None = None
LOG = Log()
_pinned: list = []


def _is_remote(device) -> bool:
    return device is not None and torch.device(device).type == KIND


def _refuse(dtype, layout=torch.strided) -> None:
    """Raise where MPS does not have tensors of this kind."""
    if KIND == "mps" and dtype in (torch.float64, torch.complex128):
        raise TypeError(f"Cannot convert a MPS Tensor to {dtype}: the MPS framework doesn't support it. @ {line()}")
    if KIND == "mps" and layout is not torch.strided:
        raise NotImplementedError(f"MPS has no tensors of layout {layout}. @ {line()}")


class Remote(torch.Tensor):
    """A tensor on the device; `held` has its values."""

    @staticmethod
    def __new__(cls, held):
        _refuse(held.dtype, held.layout)
        form = {"dtype": held.dtype, "layout": held.layout, "device": DEVICE}
        if held.layout is torch.strided:
            form |= {"strides": held.stride(), "storage_offset": held.storage_offset()}
        else:
            form |= {"dispatch_layout": True}
        tensor = torch.Tensor._make_wrapper_subclass(cls, held.shape, **form)
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def __repr__(self):
        return f"Remote({self.held!r})"


class _Mode(TorchDispatchMode):
    """Sees what makes a tensor of the device from none."""

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here; to say so at each operation would take as long as the operation

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _tensors(values) -> list:
    """The tensors among arguments, which may be in lists."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _replaced(value, function):
    """A value with a function of each tensor in its place. (torch's trees would take half the time of a test.)"""
    if isinstance(value, torch.Tensor):
        return function(value)
    kind = type(value)
    return kind([_replaced(part, function) for part in value]) if kind is list or kind is tuple else value


def _held(value):
    return value.held if isinstance(value, Remote) else value


class Graph:
    """What `torch.cuda.CUDAGraph` is: operations with the memory that they had, which are done again in a replay."""

    def __init__(self):
        if not _has_graphs:
            raise RuntimeError("Tried to instantiate dummy base class CUDAGraph")
        self._tape, self._before, self._own = [], {}, set()

    @contextlib.contextmanager
    def record(self):
        """Record the operations of a block, which are undone at its end: a GPU does nothing while it records."""
        global _recording
        assert _recording is None
        _recording, launches = self, LOG.launches.total()
        try:
            yield
        finally:
            _recording = None
            for storage, before in self._before.values():
                storage.copy_(before)
        LOG.recorded.append(LOG.launches.total() - launches)

    def keep(self, function, args, kwargs) -> None:
        """Keep what an operation will overwrite."""
        for argument, value in zip(function._schema.arguments, args, strict=False):
            self._keep(argument, value)
        for argument in function._schema.arguments:
            self._keep(argument, kwargs.get(argument.name))

    def _keep(self, argument, value) -> None:
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if not is_written and argument.name not in ("running_mean", "running_var"):  # of which the schema is silent
            return
        for tensor in _tensors([value]):
            storage = _held(tensor).untyped_storage()
            if storage.data_ptr() not in self._own and storage.data_ptr() not in self._before:
                self._before[storage.data_ptr()] = storage, storage.clone()

    def add(self, function, args, kwargs, tensors, result) -> None:
        """Add an operation on some tensors that has been done."""
        known = set(map(id, tensors))
        new = [value for value in _tensors([result]) if isinstance(value, Remote) and id(value) not in known]
        if not _facts(function)[2]:  # a view has the memory of another
            self._own |= {value.held.untyped_storage().data_ptr() for value in new}
            of_host = {name: _replaced(value, _held) for name, value in kwargs.items()}
            if of_host.get("device") is not None:
                of_host["device"] = torch.device("cpu")
            self._tape.append((function, _replaced(args, _held), of_host, [value.held for value in new]))

    def replay(self) -> None:
        """Do all operations again."""
        LOG.replays += 1
        LOG.launches["a graph"] += 1
        for function, args, kwargs, new in self._tape:
            found = _tensors([function(*args, **kwargs)])
            for memory, value in zip(new, found if new else [], strict=True):
                memory.copy_(value)


class Stream:
    """What `torch.cuda.Stream` is: operations in turn, which know of other streams what they have waited for."""

    def __init__(self, device=None):
        self.n_done, self.seen = 0, {}

    def __deepcopy__(self, memo):
        return self

    def wait_event(self, event) -> None:
        stream, n_done = event
        self.seen[stream] = max(n_done, self.seen.get(stream, 0))

    def record_event(self) -> tuple:
        return self, self.n_done

    def wait_stream(self, other) -> None:
        self.wait_event(other.record_event())

    def read(self, values) -> None:
        """Note a race if some of these values are another stream's, and not known to be there, or to stay there."""
        for value in values:
            made = getattr(value, "made", None)
            if made is None or made[0] is self:
                continue
            if self.seen.get(made[0], 0) < made[1]:
                LOG.hazards[f"a value of another stream @ {line()}"] += 1
            elif made[0] is not _main and not is_shared(value):
                LOG.hazards[f"memory that another stream may use again @ {line()}"] += 1

    def note(self, values) -> None:
        """Note who has made some values, or changed them."""
        self.n_done += 1
        for value in values:
            value.made = self, self.n_done


def is_shared(value) -> bool:
    """Whether the memory of a value stays until another stream has read it."""
    return all(part.untyped_storage().data_ptr() in _shared for part in _parts(value.held))


def _parts(held) -> list:
    """The tensors that have the memory of a value: of sparse rows, three."""
    if held.layout is torch.sparse_csr:
        return [held.crow_indices(), held.col_indices(), held.values()]
    return [held]


_main = _stream = Stream()
_shared: set = set()


@contextlib.contextmanager
def _on(stream):
    """`torch.cuda.stream`."""
    global _stream
    before, _stream = _stream, stream
    try:
        yield
    finally:
        _stream = before


def _record_stream(tensor, stream) -> None:
    """`torch.Tensor.record_stream`: for as long as the tensor lives, which it does here to the end."""
    if tensor.layout is torch.sparse_csr:
        raise NotImplementedError("Could not run 'aten::record_stream' with arguments from the 'SparseCsrCUDA' backend")
    _shared.add(tensor.held.untyped_storage().data_ptr())
    _pinned.append(tensor.held)


def _run(function, args, kwargs):
    tensors = _tensors([*args, *kwargs.values()])
    remote = [value for value in tensors if isinstance(value, Remote)]
    _stream.read(remote)
    if _recording is not None:
        _recording.keep(function, args, kwargs)
    result = _done(function, args, kwargs, tensors, remote)
    if _recording is not None:
        _recording.add(function, args, kwargs, tensors, result)
    _stream.note(value for value in _tensors([result]) if isinstance(value, Remote))
    return result


def _done(function, args, kwargs, tensors, remote):
    if function is torch.ops.prim.layout.default:
        return args[0].held.layout
    wanted = kwargs.get("device")
    if not remote and not _is_remote(wanted):
        return function(*args, **kwargs)
    if function is _aten.copy_.default:
        return _copy(*args, **kwargs)
    if function is _aten._to_copy.default:
        return _to_copy(*args, **kwargs)
    if remote:
        _check_places(function, args, tensors)
    name, is_fused, is_view, has_to_wait = _facts(function)
    if is_fused:
        _check_fused(function, args)
    by_mask = function in _INDEXING and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    no_size = function is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
    if has_to_wait or by_mask or no_size:
        LOG.wait(function)
    of_host = kwargs if wanted is None else {**kwargs, "device": torch.device("cpu")}
    of_host = {name: _replaced(value, _held) for name, value in of_host.items()}
    result = function(*_replaced(args, _held), **of_host)
    if function is not _aten._local_scalar_dense.default and function not in _MEMORY:
        (LOG.views if is_view else LOG.launches)[f"{name} @ {line()}"] += 1
    known = {id(value.held): value for value in remote}
    stays = wanted is not None and not _is_remote(wanted)

    def wrapped(value):
        return known[id(value)] if id(value) in known else Remote(value)

    return result if stays else _replaced(result, wrapped)


def _check_places(function, args, tensors) -> None:
    """Tensors of the host take part as numbers without axes, and as indices in brackets, for which the host waits."""
    of_host = [value for value in tensors if not isinstance(value, Remote)]
    if function in _INDEXING and isinstance(args[0], Remote):
        indices = {id(index) for index in args[1] if index is not None and not isinstance(index, Remote)}
        of_host = [value for value in of_host if id(value) not in indices]
        if indices:
            LOG.wait("an index of the host")
    if any(value.ndim for value in of_host):
        raise RuntimeError(f"Expected all tensors on one device, found {KIND} and cpu: {function} @ {line()}")


def _check_fused(function, args) -> None:
    """A fused kernel pairs values by their place in memory, and reads a count of steps as float32."""
    groups = [group for group in args[:4] if isinstance(group, list | tuple) and group]
    for first, *others in zip(*groups, strict=True):
        form = first.dtype, first.shape, first.stride()
        if any((other.dtype, other.shape, other.stride()) != form for other in others if other.numel() > 1):
            raise RuntimeError(f"{function} needs tensors of one form. @ {line()}")
    if "adam" in str(function) and any(step.dtype is not torch.float32 for step in args[5]):
        raise RuntimeError(f"{function} reads float32 steps. @ {line()}")


def _transfer(source, dtype, non_blocking: bool) -> None:
    """Note a copy to the device or from it."""
    leaves = isinstance(source, Remote)
    if leaves and dtype is not source.dtype:
        _refuse(dtype)  # it is cast before it leaves
    if non_blocking and not leaves and _is_read_later(source, dtype):
        LOG.send(source)
    else:
        LOG.wait(f"a copy {'from' if leaves else 'to'} the device")


def _is_read_later(source, dtype) -> bool:
    """Whether a copy to the device that need not be waited for is not: MPS does not even ask for pinned memory."""
    address = source.untyped_storage().data_ptr()
    pinned = any(address == block.untyped_storage().data_ptr() for block in _pinned)
    return KIND == "mps" or (pinned and source.dtype is dtype)


def _copy(target, source, non_blocking=False):
    if isinstance(target, Remote) != isinstance(source, Remote):
        _transfer(source, target.dtype, non_blocking)
    else:
        LOG.launches[f"copy_ @ {line()}"] += 1
    _held(target).copy_(_held(source))
    return target


def _to_copy(source, *, device=None, non_blocking=False, pin_memory=None, **form):
    arrives = isinstance(source, Remote) if device is None else _is_remote(device)
    result = _aten._to_copy.default(_held(source), **form)
    result = Remote(result) if arrives else result
    if arrives != isinstance(source, Remote):
        _transfer(source, result.dtype, non_blocking)
    else:
        LOG.launches[f"_to_copy @ {line()}"] += 1
    return result


def _pin(tensor, device=None):
    """A copy in pinned memory, which the host gets back when it has waited; here, at the end."""
    _pinned.append(tensor.clone())
    return _pinned[-1]


_has_graphs = True


@contextlib.contextmanager
def accelerator(free: int = 80 << 30, graphs: bool = True) -> Iterator[Log]:
    """Have the accelerator in a block, with so many bytes free, and with `torch.cuda.CUDAGraph` or without."""
    global _has_graphs
    _has_graphs = graphs
    replaced = {
        "torch.Tensor.pin_memory": _pin,
        "torch.cuda._lazy_init": lambda: None,  # a function for each: torch._dynamo, if imported, tells them apart
        "torch.cuda.get_rng_state": lambda *args: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda *args: None,
        "torch.cuda.manual_seed_all": lambda *args: None,
        "torch.mps.manual_seed": lambda *args: None,
    }
    if KIND == "cuda":
        replaced |= {
            "torch.cuda.device_count": lambda: 1,
            "torch.cuda.is_available": lambda: True,
            "torch.cuda.current_device": lambda: 0,
            "torch.cuda.synchronize": lambda *args: LOG.wait("synchronize"),
            "torch.backends.cuda.is_built": lambda: True,
            "torch.cuda.Stream": Stream,
            "torch.cuda.stream": _on,
            "torch.cuda.current_stream": lambda *args: _stream,
            "torch.Tensor.record_stream": _record_stream,
            "torch.cuda.CUDAGraph": Graph,
            "torch.cuda.graph": Graph.record,
            "torch.cuda.mem_get_info": lambda *args: (free, free),
            "torch.cuda.memory_reserved": lambda *args: 0,
            "torch.cuda.memory_allocated": lambda *args: 0,
            "torch.cuda.is_bf16_supported": lambda *args, **kwargs: True,
        }
    else:
        replaced["torch.backends.mps.is_available"] = lambda: True
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch(name, function))
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes its tensors on the host, and moves them
        torch.__future__.set_swap_module_params_on_conversion(True)  # the memory of a Remote is not a tensor's own
        LOG.__init__()
        _pinned.clear()
        _shared.clear()
        stack.enter_context(_Mode())
        yield LOG
        LOG.arrive()
