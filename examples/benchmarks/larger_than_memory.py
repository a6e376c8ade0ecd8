"""What a fit adds to the memory of the process on data in files, read by blocks, and what shuffling in windows costs.

The data (float32, a mixture of normal distributions, one for each class) is written to a Zarr array, a Parquet file and
a memory map in a temporary folder. Each fit runs in a process of its own. What counts is the anonymous memory (RssAnon
of Linux) at its peak, over that before the call. Then a part of the data, of at most so many megabytes, is fitted in
memory and from a Zarr array, shuffled and sorted by its labels; the losses are log-losses of all its rows.

Run ``python examples/benchmarks/larger_than_memory.py --help`` for the options.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from common import report, seconds
from memory import peak_growth
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skdeep import SGD, MLPClassifierTorch, SoftmaxClassifier

CLASSES, CHUNK_ROWS = 10, 4096
MODELS = {
    "SoftmaxClassifier": lambda epochs: SoftmaxClassifier(solver=SGD(batch_size=1024), max_iter=epochs, random_state=0),
    "MLPClassifierTorch": lambda epochs: MLPClassifierTorch((32,), batch_size=1024, max_iter=epochs, random_state=0),
}


def rows_of_chunk(number: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows of a chunk, and their classes."""
    means = np.random.default_rng(0).normal(size=(CLASSES, columns)).astype(np.float32)
    rng = np.random.default_rng([1, number])
    y = rng.integers(CLASSES, size=CHUNK_ROWS)
    return 0.2 * means[y] + rng.standard_normal((CHUNK_ROWS, columns), dtype=np.float32), y


def write(folder: Path, kind: str, n_chunks: int, columns: int) -> None:
    """Write the data, a chunk at a time."""
    shape = n_chunks * CHUNK_ROWS, columns
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [f"x{j}" for j in range(columns)]
        schema = pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int64())])
        with pq.ParquetWriter(folder / "X.parquet", schema, compression=None, use_dictionary=False) as writer:
            for number in range(n_chunks):
                X, y = rows_of_chunk(number, columns)
                writer.write_table(pa.table([*X.T, y], schema=schema))
        return
    if kind == "zarr":
        import zarr

        target = zarr.create_array(folder / "X.zarr", shape=shape, chunks=(CHUNK_ROWS, columns), dtype="f4")
    else:
        target = np.memmap(folder / "X.dat", np.float32, "w+", shape=shape)
    for number in range(n_chunks):
        target[number * CHUNK_ROWS : (number + 1) * CHUNK_ROWS] = rows_of_chunk(number, columns)[0]


def opened(folder: Path, kind: str, n_chunks: int, columns: int) -> tuple:
    """Open the data as users do: X and y."""
    if kind == "parquet":
        import pyarrow.dataset as ds

        return ds.dataset(folder / "X.parquet"), "y"
    y = np.concatenate([rows_of_chunk(number, columns)[1] for number in range(n_chunks)])
    if kind == "zarr":
        import zarr

        return zarr.open_array(folder / "X.zarr", mode="r"), y
    return np.memmap(folder / "X.dat", np.float32, "r", shape=(n_chunks * CHUNK_ROWS, columns)), y


def measure(folder: Path, kind: str, name: str, n_chunks: int, options) -> None:
    """Body of a process: print the figures of one fit."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y = opened(folder, kind, n_chunks, options.columns)
    few = rows_of_chunk(0, options.columns)
    MODELS[name](1).fit(*few).predict(few[0])  # what is only paid once in a process
    model = MODELS[name](options.epochs)
    fit, taken = peak_growth(lambda: model.fit(X, y))
    score, of_score = peak_growth(lambda: model.score(X, y))
    print(json.dumps([*map(round, (fit, score)), taken, of_score]))


def losses(folder: Path, n_chunks: int, options) -> list[list]:
    """Compare fits in memory with fits from a Zarr array, of shuffled and of sorted rows."""
    import zarr

    parts = [rows_of_chunk(number, options.columns) for number in range(n_chunks)]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    table = []
    for order in ("shuffled", "sorted by label"):
        if order != "shuffled":
            by_label = np.argsort(y, kind="stable")
            X, y = X[by_label], y[by_label]
        stored = zarr.create_array(folder / f"{order}.zarr", data=X, chunks=(CHUNK_ROWS, options.columns))
        for name, make in MODELS.items():
            (in_memory, first), (from_file, second) = (
                seconds(partial(make(options.epochs).fit, data, y)) for data in (X, stored)
            )
            found = [log_loss(y, model.predict_proba(X)) for model in (first, second)]
            table.append([name, order, *found, found[1] / found[0] - 1, in_memory, from_file])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--compared", type=int, default=200, help="megabytes that are fitted in memory, too, at most")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", default=["zarr", "parquet", "memmap"])
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    parser.add_argument("--output", type=Path, help="folder for a JSON and a Markdown file")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    n_chunks = max(2, options.megabytes * 2**20 // (4 * options.columns * CHUNK_ROWS))
    if options.worker:
        folder, kind, name = options.worker
        return measure(Path(folder), kind, name, n_chunks, options)

    warnings.simplefilter("ignore", ConvergenceWarning)
    table = []
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(f"writing {options.megabytes} MB to {kind}", flush=True)
            write(Path(folder), kind, n_chunks, options.columns)
            for name in MODELS:
                command = [sys.executable, __file__, *sys.argv[1:], "--worker", folder, kind, name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                table.append([kind, name, n_chunks * CHUNK_ROWS, *json.loads(done.stdout)])
    data = f"{options.megabytes} MB, {options.columns} columns of float32, {CLASSES} classes, {options.epochs} epochs"
    columns = ["data", "estimator", "rows", "fit adds MB", "score adds MB", "fit s", "score s"]
    report("larger_than_memory", data, columns, table, options.output)
    if not options.compared:
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compared = losses(Path(folder), min(n_chunks, options.compared * n_chunks // options.megabytes), options)
    columns = ["estimator", "order", "log-loss in memory", "from a file", "difference", "fit s", "from a file s"]
    report("windows", f"at most {options.compared} MB of it", columns, compared, options.output)


if __name__ == "__main__":
    main()
