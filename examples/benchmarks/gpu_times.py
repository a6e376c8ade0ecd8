"""Parts of gpu.py that take times: epochs, steps of all sizes, searches, exact solvers, prediction."""

from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import torch
from epoch_time import ENDLESS, STEPS, epoch_of, network, plain_torch, skorch_net
from gpu_bench import Bench, attempt, contest, emit
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold

from skdeep import SGD, Adam, LeastSquaresClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.model_selection import GridSearchCV


def epochs(bench: Bench) -> None:
    name, X, y = bench.images
    emit("data", name)
    extra = 1 if bench.quick else 4
    cuda = bench.device.type == "cuda"

    def softmax(**settings):
        return SoftmaxClassifier(solver=SGD(**settings), device=str(bench.device), **ENDLESS)

    def mlp(**settings):
        return MLPClassifierTorch((256, 256), solver=Adam(**settings), device=str(bench.device), **ENDLESS)

    for batch_size in (64,) if bench.quick else (256, 4096):
        torch.compiler.reset()  # past a number of variants of one network it would silently not compile

        def ours(make, precision="float32", matmul="highest", batch_size=batch_size, graphs=True):
            def estimator(k):
                return make(batch_size=batch_size, precision=precision, **STEPS).set_params(max_iter=k)

            def prepare():
                with_matmul(matmul, lambda: estimator(1).fit(X, y))

                def epoch():
                    with nullcontext() if graphs else patch("torch.cuda.CUDAGraph", side_effect=RuntimeError):
                        return with_matmul(matmul, lambda: epoch_of(estimator, X, y, extra)[1])

                return epoch

            return prepare

        def loop(linear=False, wrap=lambda net: net, matmul="highest", autocast=False, batch_size=batch_size):
            def prepare():
                net = (torch.nn.Linear(X.shape[1], 10) if linear else network(X.shape[1], 10)).to(bench.device)
                if linear:
                    optimizer = torch.optim.SGD(net.parameters(), 1e-2, momentum=0.9, nesterov=True, fused=True)
                else:
                    optimizer = torch.optim.Adam(net.parameters(), fused=True)
                epoch = plain_torch(wrap(net), optimizer, *bench.on_device(X, y), batch_size)

                def one():
                    with torch.autocast(bench.device.type, torch.bfloat16, enabled=autocast):
                        with_matmul(matmul, epoch)

                return bench.repeat(one)()

            return prepare

        contestants = {
            "SoftmaxClassifier": ours(softmax),
            "plain torch loop, softmax": loop(linear=True),
            "MLPClassifierTorch (256, 256)": ours(mlp),
            "plain torch loop (256, 256)": loop(),
            "skorch (256, 256)": bench.repeat(skorch_net(X, y, 10, batch_size, str(bench.device))),
            "MLPClassifierTorch (256, 256), bfloat16": ours(mlp, "bfloat16"),
            "plain torch loop (256, 256), autocast to bfloat16": loop(autocast=True),
        }
        if cuda:
            contestants["MLPClassifierTorch (256, 256), steps launched one by one"] = ours(mlp, graphs=False)
            contestants["MLPClassifierTorch (256, 256), TF32"] = ours(mlp, matmul="high")
            contestants["plain torch loop (256, 256), TF32"] = loop(matmul="high")
        if not bench.quick:
            contestants["torch.compile (256, 256)"] = loop(wrap=lambda net: torch.compile(net, dynamic=False))
            if cuda:
                contestants["torch.compile (256, 256), CUDA graphs"] = loop(
                    wrap=lambda net: torch.compile(net, dynamic=False, mode="reduce-overhead")
                )
        pairs = [("SoftmaxClassifier", "plain torch loop, softmax")]
        own = "MLPClassifierTorch (256, 256)"
        pairs += [(own, other) for other in contestants if other != own and "(256, 256)" in other]
        pairs += [(f"{own}, bfloat16", "plain torch loop (256, 256), autocast to bfloat16")]
        pairs += [(f"{own}, TF32", "plain torch loop (256, 256), TF32")]
        contest(bench, contestants, pairs, at=f", batch {batch_size}")

    iris = load_iris(return_X_y=True)
    one = {"max_iter": 1, "random_state": 0, "device": str(bench.device)}
    tiny = [SoftmaxClassifier(**one), MLPClassifierTorch((256, 256), **one)]
    contest(bench, {f"{type(m).__name__}, iris, max_iter=1": bench.repeat(lambda m=m: m.fit(*iris)) for m in tiny})

    def peak():
        torch.cuda.reset_peak_memory_stats(bench.device)
        before = torch.cuda.memory_allocated(bench.device)
        mlp().set_params(max_iter=1).fit(X, y)
        return (torch.cuda.max_memory_allocated(bench.device) - before) / 1e6

    if cuda:
        attempt("MLPClassifierTorch (256, 256): memory of the device", peak, "MB", f"X: {X.nbytes / 1e6:.0f} MB")


def with_matmul(precision: str, function: Callable):
    """Call a function under a setting of `torch.set_float32_matmul_precision`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        return function()
    finally:
        torch.set_float32_matmul_precision(before)


def sizes(bench: Bench) -> None:
    if bench.device.type == "cpu" and not bench.quick:
        return emit("sizes", "skipped", "", "the device is the CPU")
    rng = np.random.default_rng(0)
    steps, batch_size = (4, 16) if bench.quick else (40, 256)
    for width in (8,) if bench.quick else (16, 64, 256, 1024):
        X = rng.random((steps * batch_size, width), dtype=np.float32)
        y = rng.integers(0, 10, len(X))
        for name, make, per_row in [
            ("SoftmaxClassifier", SoftmaxClassifier, 2 * 10 * width),
            ("MLPClassifierTorch", lambda w=width, **p: MLPClassifierTorch((w, w), **p), 3 * (2 * width + 10) * width),
        ]:
            at = f", {width} columns, {batch_size * per_row:.1g} multiply-adds a step"

            def step(device, make=make, X=X, y=y):
                def estimator(k):
                    adam = Adam(batch_size=batch_size, precision="float32", **STEPS)
                    return make(max_iter=k, solver=adam, device=device, **ENDLESS)

                def prepare():
                    estimator(1).fit(X, y)
                    return lambda: epoch_of(estimator, X, y, 2)[1] / steps

                return prepare

            there, here = f"{name} on the device", f"{name} on the CPU"
            contest(bench, {there: step(str(bench.device)), here: step("cpu")}, [(there, here)], at=at)


def search(bench: Bench) -> None:
    name, X, y = bench.images
    emit("data", name)
    n_alphas, folds = (2, 2) if bench.quick else (9, 5)
    shared = {"random_state": 0, "device": str(bench.device)}
    softmax = SoftmaxClassifier(solver=Adam(learning_rate="cosine", batch_size=512), max_iter=4, **shared)
    mlp = MLPClassifierTorch((256, 256), batch_size=256, max_iter=2, tol=0, n_iter_no_change=np.inf, **shared)
    split = list(StratifiedKFold(folds).split(X, y))

    def warm():
        MLPClassifierTorch((256, 256), max_iter=1, **shared).fit(X[:300], y[:300])

    def fit(estimator, rows=slice(None)):
        return bench.repeat(lambda: clone(estimator).fit(X[rows], y[rows]), warm)

    def many(estimator, n, cv):
        grid, how = {"alpha": np.logspace(-6, -2, n)}, {"cv": cv, "refit": False, "error_score": "raise"}
        return bench.repeat(lambda: GridSearchCV(clone(estimator), grid, **how).fit(X, y), warm)

    of_all, of_one = f"search of {n_alphas * folds} SoftmaxClassifier", "one fit of SoftmaxClassifier"
    of_mlps, of_mlp = f"search of {n_alphas * folds} MLPClassifierTorch", "one fit of MLPClassifierTorch"
    contestants = {
        of_one: fit(softmax),
        of_all: many(softmax, n_alphas, split),
        of_mlp: fit(mlp, split[0][0]),
        of_mlps: many(mlp, n_alphas, split),
    }
    contest(bench, contestants, [(of_all, of_one), (of_mlps, of_mlp)], unit="s", factor=1.0)


def solvers(bench: Bench) -> None:
    name, X, y = bench.images
    emit("data", name)
    prediction(bench, X, y)
    estimators = {
        "LeastSquaresClassifier exact": LeastSquaresClassifier(alpha=1e-3),
        "SoftmaxClassifier lbfgs": SoftmaxClassifier(solver="lbfgs", alpha=1e-4, max_iter=100, tol=1e-4),
    }
    models, contestants, pairs = {}, {}, []

    def fitting(estimator, label):
        def fit():
            models[label] = clone(estimator).fit(X, y)

        return bench.repeat(fit, lambda: clone(estimator).fit(X[:300], y[:300]))

    for label, estimator in estimators.items():
        places = {f"{label} on the device": str(bench.device), f"{label} on the CPU": "cpu"}
        if bench.device.type == "cpu":
            places = {label: "cpu"}
        else:
            pairs.append(tuple(places))
        for place, device in places.items():
            contestants[place] = fitting(clone(estimator).set_params(device=device, random_state=0), place)
    try:
        from cuml import LogisticRegression
    except ImportError:
        emit("cuML's LogisticRegression", "skipped", "", "cuML is not installed")
    else:
        peer = LogisticRegression(C=1 / (1e-4 * len(X)), max_iter=100, tol=1e-4)
        contestants["cuML's LogisticRegression"] = bench.repeat(lambda: peer.fit(X, y))
        pairs.append(("SoftmaxClassifier lbfgs on the device", "cuML's LogisticRegression"))
    contest(bench, contestants, pairs, unit="s", factor=1.0)
    for label, model in models.items():
        attempt(f"{label}: accuracy on the training rows", lambda m=model: float(m.score(X, y)))


def prediction(bench: Bench, X, y) -> None:
    """Probabilities of all rows, from an array and from where the device has them."""
    contestants, pairs = {}, []
    shared = {"max_iter": 1, "random_state": 0, "device": str(bench.device)}
    for estimator in (SoftmaxClassifier(solver="sgd", **shared), MLPClassifierTorch((256, 256), **shared)):
        label = f"predict_proba of {type(estimator).__name__}"

        def predicting(rows, device, estimator=estimator):
            def prepare():
                model = clone(estimator).fit(X, y).set_params(device=device)
                return bench.repeat(lambda: model.predict_proba(rows))()

            return prepare

        contestants[f"{label}, array"] = predicting(X, str(bench.device))
        if bench.device.type != "cpu":
            contestants[f"{label}, tensor on the device"] = predicting(bench.on_device(X, y)[0], str(bench.device))
            contestants[f"{label}, array, on the CPU"] = predicting(X, "cpu")
            pairs += [(there, f"{label}, array, on the CPU") for there in list(contestants)[-3:-1]]
    contest(bench, contestants, pairs)
