"""What the benchmarks share: data, the clock, the machine, and the report."""

import argparse
import json
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import fetch_openml, load_digits

import skdeep

#: Data sets that lie beside a checkout, if any.
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def load_images():
    """Fashion-MNIST in [0, 1] as float32, from `SHARED`, else OpenML, else the bundled digits.

    Returns
    -------
    name : str
    X, y, X_test, y_test : ndarray
    """
    if (SHARED / "fashion").is_dir():
        sys.path.insert(0, str(SHARED))
        from loaddata import load

        data = load("fashion")
        parts = [data[key] for key in ("X", "y", "X_test", "y_test")]
        return "Fashion-MNIST", *(p.astype(np.float32) / 255 if p.ndim == 2 else p for p in parts)
    try:
        X, y = fetch_openml("Fashion-MNIST", version=1, return_X_y=True, as_frame=False, n_retries=1, delay=0.1)
        X, y = X.astype(np.float32) / 255, y.astype(int)
        return "Fashion-MNIST", X[:60_000], y[:60_000], X[60_000:], y[60_000:]
    except OSError:
        warnings.warn("Neither the shared data nor OpenML can be reached: the bundled digits instead.", stacklevel=2)
        X, y = load_digits(return_X_y=True)
        X = X.astype(np.float32) / 16
        return "digits", X[:1400], y[:1400], X[1400:], y[1400:]


def seconds(function):
    """Wall-clock time of a call, and what it returned."""
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser with the options that all benchmarks have."""
    new = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    new.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians are reported")
    new.add_argument("--output", type=Path, help="folder for a JSON and a Markdown file")
    return new


def report(name: str, data: str, columns: list[str], rows: list[list], output: Path | None, **more) -> None:
    """Print a table, and write it with the versions and the machine.

    Parameters
    ----------
    name : str
        Of the benchmark, and of the files.
    data : str
        What was measured on.
    columns : list of str
    rows : list of list
        Text, or numbers (shown with three significant digits).
    output : Path or None
    **more
        Anything else for the JSON file.
    """
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {m.__name__: m.__version__ for m in (skdeep, sklearn, torch, np)}
        | {"python": platform.python_version()},
        "data": data,
    }
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    cell = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)  # noqa: E731
    lines = [f"{data}; {about['machine']}; {about['date']}", "", f"| {' | '.join(columns)} |"]
    lines += [f"| {' | '.join('---' if i == 0 else '---:' for i in range(len(columns)))} |"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    print("\n".join(["", *lines]))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        stem = output / f"{name}-{about['date']}"
        stem.with_suffix(".md").write_text("\n".join([*lines, ""]))
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        stem.with_suffix(".json").write_text(
            json.dumps({**about, "table": table, **more}, indent=2, default=str) + "\n"
        )
