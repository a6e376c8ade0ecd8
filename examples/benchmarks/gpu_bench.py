"""What the parts of gpu.py share: the device and its clock, the data, and the lines that they print."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from common import SHARED, load_images, seconds

#: Begins the lines that are results, in what a part prints.
MARK = "result: "


@dataclass
class Bench:
    """What all parts are told.

    Parameters
    ----------
    device : torch.device
    quick : bool
        Whether to use few rows.
    rounds : int
    end : float
        When the part is ended from outside, by `time.time`.
    """

    device: torch.device
    quick: bool
    rounds: int
    end: float

    @cached_property
    def images(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Fashion-MNIST if it lies beside the checkout, else random rows of that shape."""
        if not self.quick and (SHARED / "fashion").is_dir():
            name, X, y, *_ = load_images()
            return name, X, y
        shape = (400, 64) if self.quick else (60_000, 784)
        return f"random {shape[0]} x {shape[1]}", *random_rows(*shape)

    def on_device(self, X, y) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(X).to(self.device), torch.from_numpy(y).to(self.device)

    def done(self) -> None:
        """Wait until the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def seconds(self, function: Callable) -> float:
        """Wall-clock time of a call, to the end of what it has started on the device."""
        self.done()
        return seconds(lambda: (function(), self.done()))[0]

    def repeat(self, function: Callable, warm: Callable | None = None) -> Callable:
        """A contestant that calls a function, after it (or `warm`) has been called for what is only paid once."""

        def prepare():
            (warm or function)()
            return lambda: self.seconds(function)

        return prepare


def random_rows(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ten classes that planes separate."""
    rng = np.random.default_rng(0)
    X, direction = rng.random((n, d), dtype=np.float32), rng.normal(size=(d, 10)).astype(np.float32)
    return X, (X @ (direction - direction.mean(0))).argmax(1)


def emit(what: str, value, unit: str = "", note: str = "") -> None:
    """Print a result; a later one of the same name takes its place."""
    if isinstance(value, float) and not np.isfinite(value):
        value = str(value)  # JSON has no such numbers
    print(MARK + json.dumps([what, value, unit, note]), flush=True)


def emit_error(what: str, error: Exception) -> None:
    emit(what, "failed", "", f"{type(error).__name__}: {error}"[:300])


def attempt(what: str, function: Callable, unit: str = "", note: str = "") -> None:
    """Print what a function returns, or its error."""
    try:
        emit(what, function(), unit, note)
    except Exception as error:
        emit_error(what, error)


def contest(bench: Bench, contestants: dict[str, Callable], pairs=(), at="", unit="ms", factor=1e3) -> dict[str, float]:
    """Print and return medians over rounds in which the contestants take turns; print the ratios of some.

    Parameters
    ----------
    bench : Bench
    contestants : dict of functions
        Each is called once, pays what is paid once, and returns a function that returns seconds.
    pairs : iterable of (str, str)
    at : str
        Ends all names.
    unit, factor : str, float
        Of the printed times.

    Returns
    -------
    medians : dict of float
        Seconds, of those that have not failed.
    """
    taken: dict[str, list[float]] = {}
    ready: dict[str, Callable] = {}
    failed = set()
    for round_ in range(bench.rounds):
        for name, prepare in contestants.items():
            if name in failed:
                continue
            try:
                if name not in ready:
                    ready[name] = prepare()
                taken.setdefault(name, []).append(ready[name]())
            except Exception as error:
                failed.add(name)
                taken.pop(name, None)
                emit_error(name + at, error)
            else:
                emit(name + at, factor * float(np.median(taken[name])), unit, f"median of {round_ + 1}")
        for a, b in pairs:
            if a in taken and b in taken:
                emit(f"{a} / {b}{at}", float(np.median(taken[a]) / np.median(taken[b])), "ratio")
    return {name: float(np.median(values)) for name, values in taken.items()}
