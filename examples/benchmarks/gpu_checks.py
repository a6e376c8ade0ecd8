"""Parts of gpu.py that say whether all is right on the device: tests, and agreement with the CPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from gpu_bench import Bench, emit, emit_error
from sklearn.base import clone
from sklearn.datasets import load_digits

from skdeep import (
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
    if not (ROOT / "tests").is_dir():
        return emit("tests", "skipped", "", "no tests beside the benchmarks")
    command = [sys.executable, "-m", "pytest", "-v", "--tb=line", "-p", "no:cacheprovider"]
    if bench.quick:
        command += ["tests/test_inputs.py::test_trained_on_any_device"]
    else:
        command += ["tests", "--ignore=tests/test_benchmarks.py"]
        command += ["-k", "device or cuda or mps or accelerator or where_it_lies"]
    setting = {**os.environ, "SCIPY_ARRAY_API": "1"}
    stop = max(1.0, bench.limit - 5)  # before this process is ended from outside
    try:
        done = subprocess.run(command, cwd=ROOT, env=setting, capture_output=True, text=True, timeout=stop)
        said, note = done.stdout, "" if done.returncode < 2 else f"pytest: {(done.stdout + done.stderr).strip()[-200:]}"
    except subprocess.TimeoutExpired as error:
        said, note = (error.stdout or b"").decode(errors="replace"), f"not all: stopped after {stop:.0f} s"
    if "No module named pytest" in note:
        return emit("tests", "skipped", "", "pytest is not installed")
    outcomes = re.findall(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", said, re.MULTILINE)
    for outcome in sorted({"PASSED", "FAILED", "ERROR"} | {word for _, word in outcomes}):
        emit(f"tests {outcome.lower()}", sum(word == outcome for _, word in outcomes), "tests", note)
    for test, outcome in outcomes:
        if outcome in ("FAILED", "ERROR"):
            emit(test, outcome.lower())


def two_layers(n_outputs, n_features):
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 16), torch.nn.ReLU(), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, n_outputs)
    )


SETTINGS = {
    "SoftmaxClassifier()": SoftmaxClassifier(),
    "SoftmaxClassifier sgd, early stopping": SoftmaxClassifier(solver="sgd", early_stopping=True, max_iter=5),
    "SoftmaxClassifier l1 adam": SoftmaxClassifier("l1", solver="adam", alpha=1e-3, max_iter=5),
    "SoftmaxClassifier lbfgs": SoftmaxClassifier(solver="lbfgs", alpha=1e-2, max_iter=100, tol=1e-7),
    "SoftmaxClassifier calibrated": SoftmaxClassifier(solver="sgd", calibration="sigmoid", max_iter=5),
    "SigmoidClassifier": SigmoidClassifier(solver="sgd", max_iter=5),
    "HingeClassifier": HingeClassifier(solver="sgd", max_iter=5),
    "HingeClassifier squared, ovr, lbfgs": HingeClassifier(
        "squared_hinge", multi_class="ovr", solver="lbfgs", alpha=1e-2, max_iter=100, tol=1e-7
    ),
    "LeastSquaresClassifier": LeastSquaresClassifier(alpha=1e-2),
    "LeastSquaresClassifier sgd": LeastSquaresClassifier(solver="sgd", alpha=1e-2, max_iter=5),
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
    X, y = X[:300] / 16, y[:300]
    cpu, worst = torch.device("cpu"), {}
    if bench.device == cpu:
        emit("reference", "the device itself", "", "all differences are zero unless a fit is not deterministic")
    for dtype, tolerance in TOLERANCE.items():
        if dtype == "float64" and bench.device.type == "mps":
            emit("float64", "skipped", "", "MPS has no float64")
            continue
        columns = X.astype(dtype)
        for name, estimator in SETTINGS.items():

            def scores(device, estimator=estimator, columns=columns, dtype=dtype):
                own = clone(estimator).set_params(device=str(device), precision=dtype, random_state=0)
                return own.fit(columns, y).decision_function(columns)

            try:
                there, here = scores(bench.device), scores(cpu)
            except Exception as error:
                emit_error(f"{name}, {dtype}", error)
                worst[dtype] = np.inf
                continue
            gap = float(np.abs(there - here).max() / np.abs(here).max())
            gap = gap if np.isfinite(gap) else np.inf
            emit(f"{name}, {dtype}", gap, "relative", "" if gap <= tolerance else f"more than {tolerance:g}")
            worst[dtype] = max(gap, worst.get(dtype, 0.0))
        within = "within" if worst[dtype] <= tolerance else "NOT within"
        emit(f"largest difference, {dtype}", worst[dtype], "relative", f"{within} {tolerance:g} of the CPU's scores")
