"""What it costs to divide the rows of a fit among processes: seconds, messages and bytes, beside one process.

Processes of this machine meet over gloo, each with one thread; one process, with one thread, fits the same rows. The
messages and bytes are what a process counts (`skdeep.distributed.Processes`), beside what the formula says: per step,
one sum of the gradient and of each model's loss.

Run ``python examples/benchmarks/distributed.py --rows 20000 --processes 2``.
"""

import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import parser, report

from skdeep import SGD, Adam, MLPClassifierTorch, SoftmaxClassifier
from skdeep.distributed import shards

EPOCHS, BATCH = 3, 512


def data(n_rows):
    """Make rows like images: 784 columns, 10 classes."""
    random = np.random.default_rng(0)
    X = random.normal(size=(n_rows, 784)).astype(np.float32)
    return X, (X @ random.normal(size=(784, 10))).argmax(1)


def models():
    """List the models, and how many parameters each has."""
    one = {"random_state": 0, "device": "cpu", "max_iter": EPOCHS}
    wide = MLPClassifierTorch((512, 512), solver=Adam(batch_size=BATCH), **one)
    return {
        "softmax": (SoftmaxClassifier(solver=SGD(batch_size=BATCH), **one), 785 * 10),
        "MLP (512, 512)": (wide, 784 * 513 + 512 * 513 + 512 * 11),
    }


def work(rank, size, n_rows, rounds, path, results):
    """Fit this process's part of the rows."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    X, y = data(n_rows)
    own = slice(rank * n_rows // size, (rank + 1) * n_rows // size)
    X, y = X[own].copy(), y[own]
    with shards() as group:
        for name, (model, _) in models().items():
            seconds = []
            for _ in range(rounds):
                before, start = (group.n_messages, group.n_bytes), time.perf_counter()
                model.fit(X, y)
                seconds.append(time.perf_counter() - start)
            counted = group.n_messages - before[0], group.n_bytes - before[1]
            results[name, rank] = float(np.median(seconds)), counted, model.loss_
    dist.destroy_process_group()


def main():
    """Compare, and report."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--processes", type=int, default=2)
    args = options.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    X, y = data(args.rows)
    rows = []
    with mp.Manager() as manager, tempfile.TemporaryDirectory() as folder:
        results = manager.dict()
        alone = {}
        for name, (model, _) in models().items():
            seconds = []
            for _ in range(args.rounds):
                start = time.perf_counter()
                model.fit(X, y)
                seconds.append(time.perf_counter() - start)
            alone[name] = float(np.median(seconds)), model.loss_
        given = args.processes, args.rows, args.rounds, Path(folder) / "meeting", results
        mp.spawn(work, given, nprocs=args.processes)
        for name, (_, n_params) in models().items():
            seconds, (n_messages, n_bytes), loss = results[name, 0]
            steps = EPOCHS * -(-args.rows // BATCH)
            row = {
                "model": name,
                "rows": args.rows,
                "processes": args.processes,
                "seconds": round(seconds, 2),
                "seconds of one": round(alone[name][0], 2),
                "ratio": round(seconds / alone[name][0], 2),
                "steps": steps,
                "messages": n_messages,
                "MB": round(n_bytes / 1e6, 2),
                "MB by the formula": round(steps * (n_params + 1) * 4 / 1e6, 2),
                "difference of the loss": abs(loss / alone[name][1] - 1),
            }
            rows.append(row)
    what = f"{args.rows} rows x 784 float32, {EPOCHS} epochs of batches of {BATCH}"
    report("distributed", what, list(rows[0]), [list(row.values()) for row in rows], args.output)


if __name__ == "__main__":
    main()
