"""Every estimator on an emulated accelerator, and where things are computed; see `accelerator/` for what is run."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_iris

from skdeep import LBFGS, MLPClassifierTorch, SoftmaxClassifier
from skdeep.data.inputs import resolve_device
from skdeep.engine.captured import _Kept
from skdeep.engine.rows import DenseRows, SparseRows, free_memory

HERE = Path(__file__).parent
X, Y = load_iris(return_X_y=True)
COMPILER = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))), None)
#: A build of torch with the real backend has guards and hooks of its own.
REAL = {"cuda": torch.version.cuda or torch.version.hip, "mps": torch.backends.mps.is_built()}
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The compiled part of the emulator."""
    if COMPILER is None or not sys.platform.startswith("linux"):
        pytest.skip("the emulated accelerator needs Linux and a C++ compiler")
    root, path = Path(torch.__file__).parent, tmp_path_factory.mktemp("accelerator") / "guard.so"
    command = [COMPILER, "-O0", "-shared", "-fPIC", "-std=c++20", f"-I{root / 'include'}", f"-L{root / 'lib'}"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}", f"-Wl,-rpath,{root / 'lib'}"]
    command += [str(HERE / "accelerator" / "guard.cpp"), "-o", str(path), "-lc10", "-ltorch_cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def emulated(library):
    """Run groups of cases of `accelerator/` on a kind of device; the lines of JSON that are printed."""

    def run(kind, *groups):
        if REAL[kind]:
            pytest.skip(f"torch was built with {kind}, which this would stand in for")
        command = [sys.executable, str(HERE / "accelerator" / "cases.py"), *groups]
        own = {"EMULATED": kind, "EMULATED_LIBRARY": str(library), "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
        own |= {"OMP_NUM_THREADS": "1", "SCIPY_ARRAY_API": "1"}
        done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def fault(kind: str, outcome: dict) -> str | None:
    """What is wrong with a case, if anything."""
    if "error" in outcome:
        return outcome["error"]
    if outcome["hazards"]:
        return f"memory was overwritten while a copy of it may have been under way: {outcome['hazards']}"
    # of torch: in single precision, with batches normalised by formulas that round differently
    modules = {"in_parts", "warm_and_pickled", "callbacks"}
    rounded = kind == "mps" or "float32" in outcome["name"]
    single = outcome["name"].startswith("torch") or outcome["name"] in modules
    limit = 5e-2 if "bfloat16" in outcome["name"] else 1e-3 if rounded else 5e-4 if single else 1e-6
    if (
        outcome["name"].startswith("hinge") or " far" in outcome["name"]
    ):  # what a duality gap, or lost digits, leave open
        limit = max(limit, 1e-5)
    return None if outcome["difference"] < limit else f"differs from the CPU by {outcome['difference']:.1e}"


#: Kernels of a step on CUDA at most, its batch and its losses included. Fewer are better: lower the number then.
LAUNCHES = {
    "mlp adam": 34,
    "mlp bare": 30,
    "mlp sgd": 34,
    "mlp adamw": 39,
    "mlp batch normalisation": 50,
    "mlp layer normalisation": 74,
    "mlp bfloat16": 41,
    "mlp dropout": 68,
    "mlp early stopping": 34,
    "mlp 9 alphas": 36,
    "mlp 9 rates": 103,
    "mlp following": 47,
    "mlp 3 seeds": 34,
    "ensemble": 61,
    "softmax sgd": 16,
    "softmax adam": 18,
    "softmax l1": 19,
    "softmax 9 alphas": 21,
    "softmax 9 rates": 28,
    "softmax sparse": 23,
    "softmax streamed": 15,
    "hinge": 23,
    "torch": 24,
}
#: Those whose steps are not recorded: rows of varying size, rows that come from the host, a user's code.
LAUNCHED = {"softmax sparse", "softmax streamed", "torch"}
#: Times that the host waits outside of the epochs, where these are more than 17.
OTHER_WAITS = {"ensemble": 46, "mlp 3 seeds": 21, "mlp 9 alphas": 45, "mlp 9 rates": 45}
OTHER_WAITS |= {"softmax 9 alphas": 54, "softmax 9 rates": 54}
#: Those of whom validation data is a second thing to wait for at the end of an epoch.
MONITORED = {"mlp early stopping", "ensemble"}


def check_cases(kind, groups, outcomes):
    """Everything is as on the CPU."""
    faults = {outcome["name"]: found for outcome in outcomes if (found := fault(kind, outcome))}
    n_cases = Counter(outcome["group"] for outcome in outcomes)
    assert list(n_cases) == groups and min(n_cases.values()) >= 8
    assert not faults, "\n".join(f"{name}: {what}" for name, what in faults.items())
    assert all(outcome["waits"] > 0 for outcome in outcomes if outcome["group"] != "use")  # each has been there


def check_steps(outcomes):
    """Steps stay short, and nobody waits within an epoch."""
    found = {outcome.pop("name"): outcome for outcome in outcomes}
    assert found.keys() == LAUNCHES.keys()
    long = {name: taken["launches"] for name, taken in found.items() if taken["launches"] > LAUNCHES[name]}
    assert not long
    assert not {name: taken for name, taken in found.items() if taken["waits"]}
    for name, taken in found.items():
        assert taken["waits of an epoch"] == 1 + (name in MONITORED), name
        assert taken["other waits"] <= OTHER_WAITS.get(name, 17), (name, taken["other waits"])
        if name in LAUNCHED:
            assert taken["replays"] == 0, name
        else:  # beside it, an ensemble launches its short last batches
            assert taken["replays"] == 1 and (taken["others"] == 0 or name == "ensemble"), name
        assert not taken["differs"], name


@pytest.mark.slow
def test_an_emulated_cuda(emulated):
    """In one process, whose imports would take longer than the steps."""
    groups = ["estimators", "data", "use", "streamed"]
    outcomes = emulated("cuda", "steps", *groups, "planted")
    planted = [outcome for outcome in outcomes if outcome.get("group") == "planted"]
    assert len(planted) == 3
    for outcome in planted:  # races, which must be noticed
        assert "error" not in outcome and sum(outcome["hazards"].values()) >= 5, outcome
    check_steps([outcome for outcome in outcomes if "group" not in outcome])
    check_cases("cuda", groups, [outcome for outcome in outcomes if outcome.get("group") in groups])


@pytest.mark.slow
@pytest.mark.skipif(torch.version.cuda is not None, reason="what is built for CUDA has no room for MPS")
def test_an_emulated_mps(emulated):
    groups = ["estimators", "data", "use"]
    check_cases("mps", groups, emulated("mps", *groups))


# ---- which device ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "there, X, work, dtype, expected",
    [
        (["cpu"], X, 1e12, torch.float32, "cpu"),
        (["cpu", "cuda:0", "cuda:1"], X, 1e8, torch.float64, "cuda"),
        (["cpu", "cuda:0"], X, 1e6, torch.float32, "cpu"),
        (["cpu", "cuda:0"], sparse.csr_array(X), 1e8, torch.float32, "cuda"),
        (["cpu", "mps"], X, 1e8, torch.float32, "mps"),
        (["cpu", "mps"], X, 1e6, torch.float32, "cpu"),
        (["cpu", "mps"], X, 1e8, torch.float64, "cpu"),
        (["cpu", "mps"], sparse.csr_array(X), 1e8, torch.float32, "cpu"),
        (["cpu", "cuda:0"], torch.empty(1, device="meta"), 1, torch.float64, "meta"),
    ],
)
def test_auto_takes_what_gains_and_can_do_the_work(there, X, work, dtype, expected, monkeypatch):
    monkeypatch.setattr("skdeep.data.inputs.available_devices", lambda: there)
    assert resolve_device("auto", X, work, dtype) == torch.device(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_device_that_is_there_and_fails_is_no_reason_to_use_another(monkeypatch):
    model = MLPClassifierTorch((4,), max_iter=2, random_state=0, device="cpu").fit(X, Y)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(model.set_params(device="cuda").predict_proba(X), expected)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|nvidia"):
        model.predict_proba(X)


@pytest.mark.parametrize("precision", ["auto", "float64", "float32"])
def test_the_optimum_does_not_depend_on_the_precision(precision):
    model = SoftmaxClassifier(random_state=0, solver=LBFGS(precision=precision)).fit(X, Y)
    expected = SoftmaxClassifier(random_state=0).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-3)


def test_no_float64_on_mps(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    with pytest.raises(ValueError, match=r"float64.*mps.*float32"):
        MLPClassifierTorch((4,), device="mps", precision="float64").fit(X, Y)


def test_a_graph_keeps_what_it_reads_and_no_more():
    read, written, factor = torch.ones(3), torch.zeros(3), torch.tensor(2.0)
    with _Kept() as kept:
        made = read * factor
        torch.add(made, 1, out=written)
        written.add_(torch.stack([made, written]).sum(0))
        del made
    assert {id(tensor) for tensor in kept.tensors} == {id(read), id(factor), id(written)}


def test_memory_that_torch_keeps_is_free(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 600)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 50)
    assert free_memory(GPU) == 650


@pytest.mark.parametrize(
    "rows", [DenseRows(torch.from_numpy(X), CPU, torch.float64), SparseRows(sparse.csr_array(X), CPU, torch.float64)]
)
def test_where_indices_belong(rows):
    assert rows.index_device == CPU
    taken = rows.take(torch.tensor([3, 0, 3]))
    np.testing.assert_array_equal(taken.to_dense(), X[[3, 0, 3]])


@pytest.mark.parametrize("solver", ["adam", "adamw"])
def test_adam_whatever_the_default_dtype(solver):
    expected = MLPClassifierTorch((4,), solver=solver, max_iter=3, random_state=0).fit(X, Y).predict_proba(X)
    torch.set_default_dtype(torch.float64)
    try:
        found = MLPClassifierTorch((4,), solver=solver, max_iter=3, random_state=0).fit(X, Y).predict_proba(X)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)
