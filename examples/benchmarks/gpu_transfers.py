"""Parts of gpu.py about the way to the device: launches, transfers, rows that do not fit."""

import re
from collections.abc import Callable

import numpy as np
import torch
from epoch_time import ENDLESS, STEPS, epoch_of, network, plain_torch
from gpu_bench import Bench, attempt, contest, emit, emit_error, random_rows
from sklearn.base import clone

from skdeep import SGD, Adam, MLPClassifierTorch, SoftmaxClassifier
from skdeep.model_selection.stacks import fit_stack

#: What profilers call the start of a kernel, and of a recorded graph of them.
LAUNCH = re.compile(r"(cuda|cu|hip)(Ext)?(Module)?(Launch(Cooperative)?Kernel(Ex|ExC)?|GraphLaunch)$")


def operations(bench: Bench, function: Callable) -> np.ndarray:
    """Launches, synchronisations and copies of a call; away from CUDA, torch's operations, as it dispatches them."""
    from torch.profiler import ProfilerActivity, profile

    cuda = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as profiled:
        function()
        bench.done()
    events = profiled.events()
    if not cuda:
        return np.array([sum(_is_outermost(event) for event in events), 0, 0])
    kinds = LAUNCH, re.compile("(cuda|hip).*Synchronize"), re.compile("(cuda|hip)Memcpy")
    counts = np.array([sum(bool(kind.match(event.name)) for event in events) for kind in kinds])
    if not counts[0]:
        raise RuntimeError("torch's profiler has seen no launches (does CUPTI work here?)")
    return counts


def _is_outermost(event) -> bool:
    """Whether an event is an operation that no other operation has called."""
    if not event.name.startswith("aten::"):
        return False
    while (event := event.cpu_parent) is not None:
        if event.name.startswith("aten::"):
            return False
    return True


def launches(bench: Bench) -> None:
    _, X, y = bench.images
    steps, batch_size = (4, 20) if bench.quick else (20, 256)
    X, y = X[: steps * batch_size], y[: steps * batch_size]
    steps_of = {**STEPS, "batch_size": batch_size, "precision": "float32"}
    sgd, adam = ({**ENDLESS, "device": str(bench.device), "solver": cls(**steps_of)} for cls in (SGD, Adam))
    contestants = {
        "SoftmaxClassifier sgd": [SoftmaxClassifier(**sgd)],
        "SoftmaxClassifier sgd, 9 alphas": [SoftmaxClassifier(alpha=10.0**-k, **sgd) for k in range(9)],
        "SoftmaxClassifier l1 adam": [SoftmaxClassifier("l1", **adam)],
        "MLPClassifierTorch (256, 256)": [MLPClassifierTorch((256, 256), **adam)],
        "MLPClassifierTorch (256, 256), 9 alphas": [
            MLPClassifierTorch((256, 256), alpha=10.0**-k, **adam) for k in range(9)
        ],
    }
    if bench.quick:  # the profiler takes half a second for each
        contestants = dict(list(contestants.items())[:2])
    kind = "launches" if bench.device.type == "cuda" else "operations"
    for name, members in contestants.items():

        def fit(epochs, members=members):
            models = [clone(m).set_params(max_iter=epochs) for m in members]
            return models[0].fit(X, y) if len(models) == 1 else fit_stack(models, X, y)

        try:
            fit(1)
            one, three = (operations(bench, lambda k=k, f=fit: f(k)) for k in (1, 3))
        except Exception as error:
            emit_error(name, error)
            continue
        kernels, waits, copies = (three - one) / 2
        note = f"{waits:.3g} synchronisations and {copies:.3g} copies per epoch of {steps} steps"
        emit(f"{name}: {kind}", kernels / steps, "per step", note if bench.device.type == "cuda" else "")

    def loop():
        net = network(X.shape[1], 10).to(bench.device)
        fused = torch.optim.Adam(net.parameters(), fused=True)
        epoch = plain_torch(net, fused, *bench.on_device(X, y), batch_size)
        epoch()
        return float(operations(bench, epoch)[0] / steps)

    attempt(f"plain torch loop (256, 256), fused Adam: {kind}", loop, "per step")


def transfers(bench: Bench) -> None:
    name, X, _ = bench.images
    emit("size of the rows", X.nbytes / 1e6, "MB", name)
    rows = torch.from_numpy(X)
    there = rows.to(bench.device)
    contestants = {
        "pageable memory to the device": bench.repeat(lambda: rows.to(bench.device, copy=True)),
        "the device to memory": bench.repeat(lambda: there.to("cpu", copy=True)),
    }
    if bench.device.type != "cuda":
        emit("pinned memory, streaming", "skipped", "", f"{bench.device.type} holds all rows where it computes")
    else:
        pinned = rows.pin_memory()
        contestants["pinned memory to the device"] = bench.repeat(lambda: pinned.to(bench.device, non_blocking=True))
        contestants["pageable to pinned memory"] = bench.repeat(rows.pin_memory)
    for name, taken in contest(bench, contestants).items():
        emit(f"{name}, rate", X.nbytes / 1e9 / taken, "GB/s")
    if bench.device.type == "cuda":
        streaming(bench)


def streaming(bench: Bench) -> None:
    """A fit whose rows fit on the device, and the same one beside a block that leaves no room for them."""
    X, y = random_rows(60_000, 784)  # also in a quick run: what is left must be enough for a step
    solver = SGD(batch_size=1024, precision="float32", **STEPS)

    def make(k):
        return SoftmaxClassifier(solver=solver, max_iter=k, early_stopping=True, device=str(bench.device), **ENDLESS)

    def measured():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
        before = torch.cuda.memory_allocated(bench.device)
        model = make(2).fit(X, y)
        added = torch.cuda.max_memory_allocated(bench.device) - before
        return model, added, [epoch_of(make, X, y, 2)[1] for _ in range(bench.rounds)]

    try:
        resident, added, taken = measured()
        emit(
            "epoch, rows on the device",
            1e3 * float(np.median(taken)),
            "ms",
            f"the fit takes {added / 1e6:.0f} MB there",
        )
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(bench.device)
        block = torch.empty(max(0, free - X.nbytes), dtype=torch.uint8, device=bench.device)
        streamed, added, slower = measured()
        del block
        torch.cuda.empty_cache()
    except Exception as error:
        return emit_error("streaming", error)
    note = f"the fit takes {added / 1e6:.0f} MB there" + ("; NOT streamed" if added >= X.nbytes else "")
    emit("epoch, rows that do not fit", 1e3 * float(np.median(slower)), "ms", note)
    emit("rows that do not fit / rows on the device", float(np.median(slower) / np.median(taken)), "ratio")
    gap = float(np.abs(streamed.coef_ - resident.coef_).max() / np.abs(resident.coef_).max())
    gap = max(gap, abs(streamed.best_validation_score_ - resident.best_validation_score_))
    emit("difference between the two models", gap, "relative", "" if gap <= 1e-4 else "NOT the same model")
