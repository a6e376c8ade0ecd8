"""What fitting and predicting add to the memory of the process, on data that lies in a file.

The data is a memory map, made in a temporary folder. What counts is the anonymous memory (RssAnon of Linux, sampled in
a thread) at its peak, over that before the call: pages of the file, which the system can drop at any time, do not.
Each contestant runs in a process of its own; scikit-learn's get fewer rows, because they convert all of them.

Run ``python examples/benchmarks/memory.py --help`` for the options.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
from common import report, seconds
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier

from skdeep import SGD, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier

OURS = {
    "SoftmaxClassifier": lambda: SoftmaxClassifier(max_iter=1, random_state=0),
    "SoftmaxClassifier, early_stopping": lambda: SoftmaxClassifier(max_iter=1, early_stopping=True, random_state=0),
    "SoftmaxClassifier, one batch of all rows": lambda: SoftmaxClassifier(
        max_iter=1, solver=SGD(batch_size=10**9), random_state=0
    ),
    "HingeClassifier": lambda: HingeClassifier(max_iter=1, random_state=0),
    "MLPClassifierTorch": lambda: MLPClassifierTorch(max_iter=1, random_state=0),
}
PEERS = {
    "SGDClassifier": lambda: SGDClassifier(max_iter=1, random_state=0),
    "LogisticRegression": lambda: LogisticRegression(max_iter=1, random_state=0),
    "MLPClassifier": lambda: MLPClassifier(max_iter=1, random_state=0),
}


def anonymous_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def peak_growth(function) -> tuple[float, float]:
    """Megabytes that a call adds at its peak, and its seconds."""
    before = peak = anonymous_megabytes()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_megabytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        taken, _ = seconds(function)
    finally:
        done.set()
        thread.join()
    return peak - before, taken


def measure(name: str, path: str, rows: int, options) -> None:
    """Body of a process: print the figures of one contestant."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    make = (OURS | PEERS)[name]
    X = np.memmap(path, options.dtype, "r", shape=(options.rows, options.columns), order=options.order)[:rows]
    y = np.random.default_rng(0).integers(0, options.classes, rows)
    few = np.random.default_rng(0).random((200, options.columns), dtype=np.float32)
    make().fit(few, np.arange(200) % options.classes).predict(few)  # what is only paid once in a process
    model = make()
    fit, taken = peak_growth(lambda: model.fit(X, y))
    predict, _ = peak_growth(lambda: model.predict(X))
    print(json.dumps([rows, *map(round, (X.nbytes / 2**20, fit, predict, taken))]))


def write_data(path: Path, options) -> None:
    rng = np.random.default_rng(0)
    X = np.memmap(path, options.dtype, "w+", shape=(options.rows, options.columns), order=options.order)
    for start in range(0, options.rows, 1 << 16):
        part = X[start : start + (1 << 16)]
        part[:] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    X.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_600_000)
    parser.add_argument("--columns", type=int, default=784)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dtype", default="uint8")
    parser.add_argument("--order", choices=["C", "F"], default="C")
    parser.add_argument("--peer-rows", type=int, help="rows that scikit-learn gets; default: a twentieth")
    parser.add_argument("--folder", type=Path, help="where the temporary file goes")
    parser.add_argument("--output", type=Path, help="folder for a JSON and a Markdown file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, path, rows = options.worker
        return measure(name, path, int(rows), options)

    peer_rows = options.peer_rows or options.rows // 20
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "X.dat"
        print(f"writing {options.rows} x {options.columns} {options.dtype}", flush=True)
        write_data(path, options)
        for name in [*OURS, *PEERS]:
            print(name, flush=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", name, str(path)]
            command.append(str(options.rows if name in OURS else peer_rows))
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append([name, *json.loads(done.stdout)])

    data = f"{options.columns} columns of {options.dtype}, order {options.order}, in a memory map"
    columns = ["peak of anonymous memory", "rows", "data MB", "fit adds MB", "predict adds MB", "fit s"]
    report("memory", f"{data}; {options.classes} classes, one epoch", columns, rows, options.output)


if __name__ == "__main__":
    main()
