"""The long fuzz: random fits by the hundred thousand, each fault reported once, with its smallest example.

    python tests/fuzz.py --examples 100000 --workers 2 --seed 0
    python tests/fuzz.py --case '{"estimator": "HingeClassifier", "rows": 3}'

Example i of a seed is the same in every run, whatever the number of workers: a run that was stopped goes on with the
``--start`` that it printed last. The exit code is 1 if a fault was found.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter

os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from fuzzing import cases
from fuzzing.judge import Finding, find, shrink

#: Examples that a worker does between two reports.
_CHUNK = 50


class TooLong(Exception):
    """An example does not come to an end."""


def _alarm(*_):
    raise TooLong("more than a minute")


def _begin_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _alarm)
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent that is told


def _work(task: tuple[int, int, int]) -> tuple[int, Counter, list[Finding]]:
    """Examples start to stop of a seed: where it stopped, what was done, and the faults."""
    seed, start, stop = task
    done, findings = Counter(), []
    for i in range(start, stop):
        signal.setitimer(signal.ITIMER_PROF, 60)  # of its own time: a busy machine is no fault
        own, finding = find(cases.draw(np.random.default_rng([seed, i])))
        signal.setitimer(signal.ITIMER_PROF, 0)
        done += own
        if finding is not None:
            findings.append(finding)
    return stop, done, findings


def _print(finding: Finding) -> None:
    print(f"\n==== {finding.what}\n{finding.trace.rstrip()}")
    print(f"python tests/fuzz.py --case '{json.dumps(finding.case)}'", flush=True)


def _results(tasks: list, workers: int):
    """What `_work` gives for each task, in their order."""
    if workers == 1:
        _begin_worker()
        yield from map(_work, tasks)
        return
    torch.set_num_threads(1)  # this process shrinks
    with multiprocessing.get_context("spawn").Pool(workers, _begin_worker) as pool:
        yield from pool.imap(_work, tasks)


def run(examples: int, seed: int, start: int, workers: int) -> Counter:
    """Examine cases `start` to `examples` of a seed; how often each fault was seen."""
    tasks = [(seed, i, min(i + _CHUNK, examples)) for i in range(start, examples, _CHUNK)]
    done, faults, began, stop = Counter(), Counter(), time.perf_counter(), start
    try:
        for n_chunks, (stop, own, findings) in enumerate(_results(tasks, workers), start=1):
            done += own
            for finding in findings:
                faults[finding.what] += 1
                if faults[finding.what] == 1:
                    _print(shrink(finding))
            if n_chunks % 20 == 0:
                each = 1000 * (time.perf_counter() - began) / (stop - start)
                print(f"-- {stop} examples, {len(faults)} faults, {each:.0f} ms each", flush=True)
    except KeyboardInterrupt:
        print(f"Interrupted: go on with --seed {seed} --start {stop}")
    for what, count in [*sorted(done.items()), *((f"FAULT {what}", n) for what, n in faults.most_common())]:
        print(f"{count:8d}  {what}")
    return faults


def main(arguments=None) -> int:
    """Run from the command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--case", type=json.loads, help="examine this one instead")
    options = parser.parse_args(arguments)
    if options.case is not None:
        torch.set_num_threads(1)
        done, finding = find(options.case)
        if finding is not None:
            _print(finding)
        print(*(f"{count:8d}  {what}" for what, count in done.items()), sep="\n")
        return int(finding is not None)
    return int(bool(run(options.examples, options.seed, options.start, options.workers)))


if __name__ == "__main__":
    sys.exit(main())
