"""Parts of gpu.py that say whether all is right on the device: tests, and agreement with the CPU."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from gpu_bench import Bench, emit, emit_error
from sklearn.base import clone
from sklearn.datasets import load_digits

from skdeep import (
    LBFGS,
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)

ROOT = Path(__file__).resolve().parents[2]
#: Largest relative difference between the scores of two devices.
TOLERANCE = {"float64": 1e-6, "float32": 1e-3}


def tests(bench: Bench) -> None:
    if not (ROOT / "tests").is_dir() or not find_spec("pytest"):
        return emit("tests", "skipped", "", "pytest is not installed" if (ROOT / "tests").is_dir() else "not there")
    command = [sys.executable, "-m", "pytest", "-v", "-rfE", "--tb=line", "-p", "no:cacheprovider"]
    if bench.quick:
        command += ["tests/test_inputs.py::test_trained_on_any_device"]
    else:
        command += ["tests", "--ignore=tests/test_benchmarks.py", "--continue-on-collection-errors"]
        command += ["-k", "device or cuda or mps or accelerator or where_it_lies"]
    setting = {**os.environ, "SCIPY_ARRAY_API": "1"}
    stop = max(1.0, bench.end - time.time() - 3)  # before this process is ended from outside
    note = ""
    try:
        done = subprocess.run(command, cwd=ROOT, env=setting, capture_output=True, text=True, timeout=stop)
        said = done.stdout
        if done.returncode > 1:  # not the tests have failed, but pytest
            note = f"pytest: {(done.stdout + done.stderr).strip()[-200:]}"
    except subprocess.TimeoutExpired as error:
        said, note = (error.stdout or b"").decode(errors="replace"), f"not all: stopped after {stop:.0f} s"
    counts = Counter({"PASSED": 0, "FAILED": 0, "ERROR": 0})
    bad = {}
    for test, outcome in re.findall(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", said, re.MULTILINE):
        counts[outcome] += 1
        if outcome in ("FAILED", "ERROR"):
            bad[test] = outcome.lower(), ""
    for outcome, test, reason in re.findall(
        r"^(FAILED|ERROR) (tests[^\s\[]*(?:\[.*?\])?)(?: - (.*))?$", said, re.MULTILINE
    ):
        bad[test] = outcome.lower(), reason[:200]
    for outcome, count in counts.items():
        emit(f"tests {outcome.lower()}", count, "tests", note)
    for test, (outcome, reason) in bad.items():
        emit(test, outcome, "", reason)


def two_layers(n_outputs, n_features):
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 16), torch.nn.ReLU(), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, n_outputs)
    )


SETTINGS = {
    "SoftmaxClassifier()": SoftmaxClassifier(),
    "SoftmaxClassifier sgd, early stopping": SoftmaxClassifier(solver=SGD(), early_stopping=True, max_iter=5),
    "SoftmaxClassifier l1 adam": SoftmaxClassifier("l1", solver=Adam(), alpha=1e-3, max_iter=5),
    "SoftmaxClassifier lbfgs": SoftmaxClassifier(solver=LBFGS(), alpha=1e-2, max_iter=100, tol=1e-7),
    "SoftmaxClassifier calibrated": SoftmaxClassifier(solver=SGD(), calibration="sigmoid", max_iter=5),
    "SigmoidClassifier": SigmoidClassifier(solver=SGD(), max_iter=5),
    "HingeClassifier": HingeClassifier(solver=SGD(), max_iter=5),
    "HingeClassifier squared, ovr, lbfgs": HingeClassifier(
        "squared_hinge", multi_class="ovr", solver=LBFGS(), alpha=1e-2, max_iter=100, tol=1e-7
    ),
    "LeastSquaresClassifier": LeastSquaresClassifier(alpha=1e-2),
    "LeastSquaresClassifier sgd": LeastSquaresClassifier(solver=SGD(), alpha=1e-2, max_iter=5),
    "MLPClassifierTorch": MLPClassifierTorch((32, 16), max_iter=5),
    "MLPClassifierTorch sgd, early stopping": MLPClassifierTorch((32,), solver="sgd", early_stopping=True, max_iter=5),
    "MLPClassifierTorch, normalised, dropout": MLPClassifierTorch(
        (16, 16), activation="gelu", normalization="batch", dropout=0.1, stochastic_depth=0.1, max_iter=5
    ),
    "MLPClassifierTorch lbfgs": MLPClassifierTorch((16,), activation="tanh", solver="lbfgs", max_iter=5),
    "MLPEnsembleClassifier": MLPEnsembleClassifier(3, (16, 16), max_iter=5),
    "TorchClassifier": TorchClassifier(two_layers, max_iter=5),
}


def agreement(bench: Bench) -> None:
    X, y = load_digits(return_X_y=True)
    n_rows = 120 if bench.quick else 300
    X, y = X[:n_rows] / 16, y[:n_rows]
    cpu = torch.device("cpu")
    if bench.device == cpu:
        emit("reference", "the device itself", "", "all differences are zero unless a fit is not deterministic")
    for dtype, tolerance in TOLERANCE.items():
        if dtype == "float64" and bench.device.type == "mps":
            emit("float64", "skipped", "", "MPS has no float64")
            continue
        columns, gaps, failed = X.astype(dtype), [], 0
        for name, estimator in SETTINGS.items():

            def scores(device, estimator=estimator, columns=columns, dtype=dtype):
                own = clone(estimator).set_params(device=str(device), random_state=0)
                # of the solver, or of a network; what chooses its solver, or has a closed form, has none
                own.set_params(**{name: dtype for name in own.get_params() if name.endswith("precision")})
                return own.fit(columns, y).decision_function(columns)

            try:
                there, here = scores(bench.device), scores(cpu)
            except Exception as error:
                emit_error(f"{name}, {dtype}", error)
                failed += 1
                continue
            gap = float(np.abs(there - here).max() / np.abs(here).max())
            gap = gap if np.isfinite(gap) else np.inf
            emit(f"{name}, {dtype}", gap, "relative", "" if gap <= tolerance else f"more than {tolerance:g}")
            gaps.append(gap)
        note = f"{sum(gap <= tolerance for gap in gaps)} settings within {tolerance:g} of the CPU's scores, "
        note += f"{sum(gap > tolerance for gap in gaps)} NOT, {failed} failed"
        emit(f"largest difference, {dtype}", max(gaps, default=np.nan), "relative", note)
