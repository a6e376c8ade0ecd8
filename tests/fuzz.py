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
    raise TooLong("more than 20 s")


def _begin_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: tuple[int, int, int]) -> tuple[int, int, Counter, list[Finding], float]:
    """Examples start to stop of a seed: what was done, the faults, and the seconds."""
    seed, start, stop = task
    began, done, findings = time.perf_counter(), Counter(), []
    for i in range(start, stop):
        signal.alarm(20)
        own, finding = find(cases.draw(np.random.default_rng([seed, i])))
        signal.alarm(0)
        done += own
        if finding is not None:
            findings.append(finding)
    return start, stop, done, findings, time.perf_counter() - began


def _print(finding: Finding) -> None:
    print(f"\n==== {finding.what}\n{finding.trace.rstrip()}")
    print(f"python tests/fuzz.py --case '{json.dumps(finding.case)}'", flush=True)


def run(examples: int, seed: int, start: int, workers: int, out=None) -> Counter:
    """Examine cases `start` to `examples` of a seed; how often each fault was seen."""
    tasks = [(seed, i, min(i + _CHUNK, examples)) for i in range(start, examples, _CHUNK)]
    done, faults, began, n_done = Counter(), Counter(), time.perf_counter(), 0
    torch.set_num_threads(1)  # it shrinks
    with multiprocessing.get_context("spawn").Pool(workers, _begin_worker) as pool:
        try:
            for first, stop, own, findings, _ in pool.imap(_work, tasks):
                done += own
                n_done += stop - first
                for finding in findings:
                    if not faults[finding.what]:
                        _print(shrink(finding))
                    faults[finding.what] += 1
                if (stop // _CHUNK) % 20 == 0:
                    seconds = time.perf_counter() - began
                    rate = 1000 * seconds / n_done
                    print(f"-- {n_done} examples, {len(faults)} faults, {rate:.0f} ms each; --start {stop}", flush=True)
        except KeyboardInterrupt:
            print(f"interrupted; go on with --seed {seed} --start {start + n_done}")
    for what, count in sorted(done.items()):
        print(f"{count:8d}  {what}")
    for what, count in faults.most_common():
        print(f"{count:8d}  FAULT {what}")
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
