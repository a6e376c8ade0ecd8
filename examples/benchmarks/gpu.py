"""What a first hour with a real card has to show, in one call of less than ten minutes; runs on the CPU too.

The parts, each in a process of its own (a device in an error state, a crash or a hang ends one part, not the run):

- tests: the tests of the package that touch devices;
- agreement: the scores of every estimator on the device beside those on the CPU, in float64 and float32;
- launches: kernels per step, synchronisations and copies per epoch;
- transfers: to and from the device, and an epoch on rows that do not fit on it;
- epochs: softmax regression and an MLP in float32, TF32 and bfloat16, beside skorch and plain and compiled torch loops;
- sizes: a step on the device and on the CPU, from small ones to large ones;
- search: many models against one fit;
- solvers: the exact solvers on the device and on the CPU (and cuML's, if it is there), and prediction.

What fails is a line with its error. Times are medians of several rounds of one run in which the contestants take turns,
with the device's queue empty before and after; ratios are what to read. Every part has its share of ``--minutes``, and
what earlier parts have left over; a part that is cut off keeps the lines that it had.

Run ``python examples/benchmarks/gpu.py --help`` for the options; the results go to ``examples/benchmarks/results/``.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import skorch
import torch
from common import parser, report
from gpu_bench import MARK, Bench
from gpu_checks import agreement, tests
from gpu_times import epochs, search, sizes, solvers
from gpu_transfers import launches, transfers
from sklearn.exceptions import ConvergenceWarning

COLUMNS = ["part", "what", "value", "unit", "note"]
#: The parts in their order, with their shares of the time.
PARTS = {
    "tests": (tests, 110),
    "agreement": (agreement, 40),
    "launches": (launches, 30),
    "transfers": (transfers, 40),
    "epochs": (epochs, 150),
    "sizes": (sizes, 40),
    "search": (search, 60),
    "solvers": (solvers, 70),
}
#: Seconds in which a part cannot even begin: a process imports torch, and opens the device.
LEAST = 5


def best_device() -> str:
    """Name of the fastest kind of device there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe(device: torch.device) -> dict:
    """The device, and what its timings depend on."""
    about = {"device": str(device), "skorch": skorch.__version__, "system": platform.platform()}
    about["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"card": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        about |= {"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda}
        about |= {"multiprocessors": properties.multi_processor_count, "cudnn": torch.backends.cudnn.version()}
    return about


def stop(process: subprocess.Popen) -> None:
    """End a process, and those that it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
    else:
        process.kill()
    process.wait()


def measure(name: str, limit: float) -> list[list]:
    """The lines of a part, from a process of its own that has `limit` seconds."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, "--end", str(time.time() + limit)]
    note = ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True)
        start = time.perf_counter()
        try:
            if process.wait(limit):
                errors.seek(0)
                said = [line.strip() for line in errors if line.strip()]
                note = f"exit code {process.returncode}: {' '.join(said[-1:])}"[:300]
        except subprocess.TimeoutExpired:
            note = f"out of time after {limit:.0f} s"
        finally:
            if process.poll() is None:
                stop(process)
        taken = time.perf_counter() - start
        out.seek(0)
        lines = {}
        for line in out:
            if line.startswith(MARK) and line.endswith("\n"):
                what, *rest = json.loads(line.removeprefix(MARK))
                lines[what] = [name, what, *rest]  # the last word on it: medians come again after each round
    end = [name, "all of it", taken, "s", note] if not note else [name, "all of it", "cut short", "", note]
    return [*lines.values(), end]


def main():
    options = parser(__doc__)
    options.add_argument("--device", default=best_device(), help="a torch device; default: the fastest that is there")
    options.add_argument("--minutes", type=float, default=9.0, help="what the whole run may take")
    options.add_argument("--quick", action="store_true", help="a few seconds on few rows; writes to --output only")
    options.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    options.add_argument("--worker", help=argparse.SUPPRESS)
    options.add_argument("--end", type=float, help=argparse.SUPPRESS)
    options = options.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", 0)
    if options.worker:
        warnings.simplefilter("ignore", ConvergenceWarning)
        function, _ = PARTS[options.worker]
        return function(Bench(device, options.quick, 1 if options.quick else options.rounds, options.end))

    try:
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SystemExit(f"{device} cannot be used here: {error}") from None
    start = time.perf_counter()
    output = options.output or (None if options.quick else Path(__file__).parent / "results")
    about = describe(device)
    data = f"on {about.get('card', device.type)}, {'few' if options.quick else '60000 x 784'} rows"
    rows, shares = [], {name: PARTS[name][1] for name in options.parts}

    def write(where):
        report(f"gpu-{device.type}", data, COLUMNS, rows, where, about=about, arguments=sys.argv[1:])

    while shares:
        name = next(iter(shares))
        left = 60 * options.minutes - (time.perf_counter() - start)
        limit = left * shares[name] / sum(shares.values())
        del shares[name]
        if limit < LEAST:
            rows.append([name, "all of it", "dropped", "", f"{max(0.0, limit):.0f} s would have been left for it"])
            continue
        print(f"{name} (at most {limit:.0f} s)", flush=True)
        rows += [[clean(cell) for cell in row] for row in measure(name, limit)]
        with contextlib.redirect_stdout(io.StringIO()):
            write(output)  # so that nothing is lost if the run is ended
    write(output)


def clean(cell):
    """Text that stays within a cell of a Markdown table."""
    return " ".join(cell.replace("|", "/").split()) if isinstance(cell, str) else cell


if __name__ == "__main__":
    main()
