"""What is run on the emulated accelerator: every estimator and setting, on every kind of data, in all ways of use.

A case is a function of a place, which says where to compute and puts data there; it gives arrays that must not depend
on the place. Run as a script (see `emulator`), this prints a line of JSON for each case of the groups that it is given,
and what a step takes (`steps`) if that is one of them.
"""

from __future__ import annotations

import emulator  # isort: skip  (before torch)

import functools
import json
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import pandas as pd
import polars as pl
import sklearn
import steps
import torch
from helpers import configured, reconfigured
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdeep.data.problem
import skdeep.engine.batching
import skdeep.engine.rows
from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressorTorch,
    Quantile,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
    TorchRegressor,
)
from skdeep.model_selection import GridSearchCV, regularization_path
from skdeep.model_selection.stacks import fit_stack

X, Y = (data[:120] for data in load_digits(return_X_y=True))
X = X[:, np.flatnonzero(X.std(0) > 1)]
FEW = X[:, 10:14]
SINGLE = X.astype(np.float32)
VALUES = np.exp(X[:, 3] / 10 + Y / 5)
TABLE = np.column_stack([Y % 2 == 0, Y >= 5])
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(Y))
SOME = np.r_[np.zeros(20), np.ones(100)]
HOLES = np.where((np.arange(len(X))[:, None] % 7 == 0) & (np.arange(X.shape[1]) == 5), np.nan, X)
ROWS = sparse.csr_array(X)
#: Columns that float32 cannot hold as they are: far from zero, and tiny.
FAR = X * np.where(np.arange(X.shape[1]) % 4 == 1, 1e-30, 1) + np.where(np.arange(X.shape[1]) % 4 == 0, 1e7, 0)
FRAME = pd.DataFrame(X).add_prefix("pixel ")


def net(n_outputs, n_features):
    """A module with all that has a state of its own."""
    layers = torch.nn.Linear(n_features, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs)
    return torch.nn.Sequential(*layers)


def conv(n_outputs):
    """A module of images."""
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.LazyLinear(n_outputs))


Softmax, Sigmoid, Hinge, Squares, MLP, Ensemble, Torch, Line, MLPOfValues, EnsembleOfValues, TorchOfValues = (
    functools.partial(configured, cls, **{"random_state": 0, "max_iter": 2, **params})
    for cls, params in (
        (SoftmaxClassifier, {"solver": "sgd"}),
        (SigmoidClassifier, {"solver": "sgd"}),
        (HingeClassifier, {"solver": "sgd"}),
        (LeastSquaresClassifier, {}),
        (MLPClassifierTorch, {"hidden_layer_sizes": (8,)}),
        (MLPEnsembleClassifier, {"n_estimators": 2, "hidden_layer_sizes": (8, 8)}),
        (TorchClassifier, {"module": net}),
        (LinearRegressor, {}),
        (MLPRegressorTorch, {"hidden_layer_sizes": (8,)}),
        (MLPEnsembleRegressor, {"n_estimators": 2, "hidden_layer_sizes": (8, 8)}),
        (TorchRegressor, {"module": net}),
    )
)


class Place:
    """A device, and what lies on it."""

    def __init__(self, device):
        self.device = torch.device(device)

    def __call__(self, array):
        """An array as a tensor there."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


CPU = Place("cpu")


def host(array) -> np.ndarray:
    """An array, or a tensor of any device, as NumPy."""
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def answers(model, X) -> list[np.ndarray]:
    """All numbers that a fitted model says; labels, which rounding may decide, are only asked for."""
    assert len(host(model.predict(X))) == X.shape[0]
    names = [name for name in ("decision_function", "predict_proba") if hasattr(model, name)] or ["predict"]
    return [host(getattr(model, name)(X)) for name in names]


Case = Callable[[Place], list]
GROUPS: dict[str, dict[str, Case]] = {"estimators": {}, "data": {}, "use": {}, "streamed": {}, "planted": {}}


def fits(group: str, name: str, model, X=X, y=Y, **fit) -> None:
    """Add a case: a fit, and what the model says of its training data."""

    def case(place):
        def put(values):
            return values(place) if callable(values) else values

        own = sklearn.clone(model).set_params(device=str(place.device))
        own.fit(put(X), put(y), **{key: put(value) for key, value in fit.items()})
        return answers(own, put(X))

    GROUPS[group][name] = case


def there(array) -> Callable[[Place], torch.Tensor]:
    """An array that the case gets as a tensor of its place."""
    return lambda place: place(array)


def case(group: str, *decorators) -> Callable[[Case], Case]:
    """Add a case of its own kind, by the name of the function."""

    def add(function):
        wrapped = function
        for decorator in decorators:
            wrapped = decorator(wrapped)
        GROUPS[group][function.__name__] = wrapped
        return function

    return add


# ---- estimators and their settings -----------------------------------------------------------------------------------

for name, model, options in [
    ("softmax sgd", Softmax(), {}),
    ("softmax default", SoftmaxClassifier(random_state=0), {}),
    ("softmax l1 adam", Softmax("l1", solver="adam", precision="float32"), {}),
    ("softmax elasticnet adamw", Softmax("elasticnet", solver="adamw", precision="float32"), {}),
    ("softmax lbfgs", Softmax(solver="lbfgs", max_iter=100, tol=1e-6), {}),
    ("softmax newton", Softmax(solver="lbfgs", max_iter=20, tol=1e-6), {"X": FEW}),
    ("softmax no intercept", Softmax(fit_intercept=False, standardize=False, momentum=0), {}),
    ("softmax weights", Softmax(class_weight="balanced", max_grad_norm=1.0), {"sample_weight": WEIGHT}),
    ("softmax lbfgs zero weights", Softmax(solver="lbfgs"), {"sample_weight": SOME}),
    ("softmax early", Softmax(early_stopping=True, learning_rate="adaptive"), {}),
    ("softmax early, one batch", Softmax(early_stopping=True, batch_size=1000), {}),
    ("softmax early, scorer", Softmax(early_stopping=True, scoring="f1_macro"), {}),
    ("softmax sigmoid", Softmax(calibration="sigmoid"), {}),
    ("softmax float32", Softmax(precision="float32"), {}),
    ("softmax bfloat16", Softmax(precision="bfloat16"), {}),
    ("sigmoid labels", Sigmoid(), {"y": TABLE}),
    ("sigmoid default", SigmoidClassifier(random_state=0), {}),
    ("hinge", Hinge(), {}),
    ("hinge default", HingeClassifier(random_state=0, max_iter=3), {}),
    ("hinge crammer_singer", Hinge("squared_hinge", multi_class="crammer_singer", calibration=None), {}),
    ("hinge ovr lbfgs", Hinge("squared_hinge", multi_class="ovr", solver="lbfgs", calibration=None), {}),
    ("least squares", Squares(), {}),
    ("least squares, n < d", Squares(), {"X": X[:30], "y": Y[:30]}),
    ("least squares sgd", Squares(solver="sgd"), {}),
    ("least squares temperature", Squares(calibration="temperature"), {"sample_weight": SOME}),
    ("mlp", MLP(), {}),
    ("mlp default", MLP(max_iter=20), {}),
    ("mlp two classes", MLP(), {"y": Y % 2}),
    ("mlp sgd", MLP(solver="sgd", column_learning_rate=0), {}),
    ("mlp lbfgs", MLP(solver="lbfgs"), {}),
    ("mlp bins", MLP(numeric_embedding="piecewise"), {}),
    (
        "mlp all",
        MLP(
            hidden_layer_sizes=(16, 16),
            activation="prelu",
            normalization="batch",
            dropout=0.2,
            stochastic_depth=0.2,
            label_smoothing=0.1,
            max_grad_norm=1.0,
            early_stopping=True,
            scoring="calibrated_loss",
        ),
        {},
    ),
    (
        "mlp layer weights",
        MLP(
            hidden_layer_sizes=(8, 8),
            activation="gelu",
            normalization="layer",
            learning_rate="adaptive",
            calibration="temperature",
        ),
        {"sample_weight": WEIGHT},
    ),
    ("mlp bfloat16", MLP(precision="bfloat16"), {}),
    ("mlp labels", MLP(calibration="sigmoid"), {"y": TABLE}),
    ("ensemble", Ensemble(), {}),
    ("ensemble sigmoid, zero weights", Ensemble(calibration="sigmoid"), {"sample_weight": SOME}),
    ("ensemble lbfgs", Ensemble(solver="lbfgs", scoring="loss"), {}),
    ("regressor sgd", Line(solver="sgd"), {"y": VALUES}),
    ("regressor exact", Line(), {"y": VALUES}),
    ("regressor quantiles", Line(loss=Quantile([0.1, 0.9]), solver="adam", precision="float32"), {"y": VALUES}),
    ("regressor softplus early", Line(output="softplus", solver="sgd", early_stopping=True), {"y": VALUES}),
    ("regressor lbfgs early", Line(loss="poisson", solver="lbfgs", early_stopping=True), {"y": VALUES}),
    ("regressor targets", Line(solver="sgd", penalty="l1"), {"y": np.stack([VALUES, 1e3 * VALUES], 1)}),
    ("mlp of values", MLPOfValues(), {"y": VALUES}),
    ("mlp of values, early", MLPOfValues(loss="huber", early_stopping=True), {"y": VALUES, "sample_weight": WEIGHT}),
    ("ensemble of values", EnsembleOfValues(), {"y": VALUES}),
    ("torch of values", TorchOfValues(), {"y": VALUES}),
    ("torch weights", Torch(), {"sample_weight": WEIGHT}),
    ("torch", Torch(), {}),
    ("torch sgd early", Torch(solver="sgd", early_stopping=True, calibration="temperature"), {}),
]:
    fits("estimators", name, model, **options)

# ---- kinds of data ---------------------------------------------------------------------------------------------------

for name, model in [("softmax", Softmax()), ("mlp", MLP()), ("torch", Torch(max_iter=1)), ("squares", Squares())]:
    fits("data", f"{name} sparse", model, ROWS)
    fits("data", f"{name} of the device", model, there(SINGLE), there(Y))
    fits("data", f"{name} bytes of the device", model, there(X.astype(np.uint8)), there(Y))
    fits("data", f"{name} integers", model, X.astype(np.int64))
for name, model in [
    ("softmax lbfgs", Softmax(solver="lbfgs")),
    ("softmax l1 adam early", Softmax("l1", solver="adam", precision="float32", early_stopping=True)),
    ("hinge", Hinge(calibration=None)),
    ("mlp bfloat16", MLP(precision="bfloat16")),
    ("mlp lbfgs", MLP(solver="lbfgs")),
    ("ensemble", Ensemble()),
]:
    fits("data", f"{name} sparse", model, ROWS)
    fits("data", f"{name} of the device", model, there(SINGLE), there(Y))
for name, model in [
    ("softmax", Softmax(alpha="auto")),
    ("softmax adam early", Softmax(alpha="auto", solver="adam", early_stopping=True)),
    ("hinge sigmoid", Hinge(calibration="sigmoid")),
    ("mlp", MLP(early_stopping=True)),
    ("ensemble", Ensemble()),
]:
    fits("data", f"{name} far, float32", reconfigured(model, precision="float32"), FAR)
    fits("data", f"{name} far, of the device", model, there(FAR.astype(np.float32)), there(Y))
    fits("data", f"{name} frame", model, FRAME)
fits("data", "torch frame", Torch(), FRAME)
fits("data", "squares frame", Squares(), FRAME, X_val=FRAME, y_val=pd.Series(Y))
fits("data", "mlp Polars frame", MLP(), pl.from_pandas(FRAME), pl.Series(Y), sample_weight=pd.Series(WEIGHT))
fits("data", "squares sparse, n < d", Squares(), ROWS[:30], Y[:30])
fits("data", "mlp sparse, one unit", MLP(hidden_layer_sizes=()), ROWS, Y > 4)
fits("data", "mlp wide indices", MLP(), sparse.csr_array((ROWS.data, ROWS.indices.astype(np.int64), ROWS.indptr)))
fits("data", "mlp holes", MLP(), HOLES)
fits("data", "mlp holes of the device", MLP(), there(HOLES.astype(np.float32)))
fits("data", "mlp half of the device", MLP(), there(X.astype(np.float16)))
fits("data", "mlp column-major of the device", MLP(), lambda place: place(SINGLE).t().contiguous().t())
fits("data", "torch images", Torch(module=conv), lambda place: place(np.resize(SINGLE, (120, 1, 6, 6))))
fits(
    *("data", "softmax, all of the device", Softmax(), there(SINGLE), there(Y)),
    **{"sample_weight": there(WEIGHT.astype(np.float32)), "sample_weight_val": there(SOME.astype(np.float32))},
    **{"X_val": there(SINGLE), "y_val": there(Y)},
)


# ---- ways of use -----------------------------------------------------------------------------------------------------


def dispatched(function: Case) -> Case:
    """The case under scikit-learn's array API dispatch."""

    def wrapped(place):
        with sklearn.config_context(array_api_dispatch=True):
            return function(place)

    return wrapped


def on(place, make, **params):
    """An estimator that computes in a place."""
    return make(device=str(place.device), **params)


@case("use")
def torch_module_made_there(place):
    def made(n_outputs, n_features):
        return net(n_outputs, n_features).to(place.device)

    return [*answers(on(place, Torch, module=made).fit(X, Y), X), *answers(on(CPU, Torch, module=made).fit(X, Y), X)]


@case("use")
def scores(place):
    """Where all lies on the device, and predictions are NumPy's."""
    values, lines = VALUES.astype(np.float32), (Line(), Line(loss=Quantile([0.1, 0.9])))
    fits = [(Softmax(), Y), (MLP(), TABLE.astype(np.uint8)), *((line, values) for line in lines)]
    data = place(SINGLE), place(WEIGHT.astype(np.float32))
    return [[m.fit(data[0], place(y)).score(data[0], place(y), sample_weight=data[1])] for m, y in fits]


@case("use", dispatched)
def dispatch(place):
    data = place(SINGLE), place(Y)
    models = [Softmax(), Hinge(calibration="sigmoid"), MLP(early_stopping=True, scoring="accuracy"), Ensemble()]
    models += [Softmax(early_stopping=True, scoring="neg_log_loss"), Line(solver="sgd", early_stopping=True)]
    models = [model.fit(*data) for model in models]
    assert models[0].coef_.device.type == place.device.type
    assert models[3].oof_proba_.device.type == place.device.type
    return [answer for model in models for answer in answers(model, data[0])] + [[models[0].score(*data)]]


@case("use", dispatched)
def dispatch_warm(place):
    model = MLP(warm_start=True).fit(place(SINGLE), place(Y)).fit(place(SINGLE), place(Y))
    return answers(model.partial_fit(place(SINGLE), place(Y)), place(SINGLE))


@case("use")
def in_parts(place):
    models = [on(place, make) for make in (Softmax, MLP, Torch)]
    for model in models:
        model.partial_fit(X[:100], Y[:100], classes=range(10)).partial_fit(X, Y)
    return [answer for model in models for answer in answers(model, X)]


@case("use")
def warm_and_pickled(place):
    models = [on(place, make, warm_start=True).fit(X, Y) for make in (Softmax, MLP, Torch)]
    models = [pickle.loads(pickle.dumps(model)).fit(X, Y) for model in models]
    assert not any(isinstance(value, torch.Tensor) for model in models for value in vars(model).values())
    return [answer for model in models for answer in answers(model.set_params(device="cpu"), X)]


@case("use")
def models_that_leave(place):
    """A stack gets smaller: its step is recorded anew."""
    settings = {"batch_size": 16, "n_iter_no_change": 1, "learning_rate": "constant", "momentum": 0.5}
    models = [on(place, Softmax, max_iter=9, tol=tol, **settings) for tol in (1.0, 0.02, 0.0)]
    models += [on(place, Softmax, max_iter=9, tol=0.0, alpha=alpha, **settings) for alpha in (0.1, 1.0)]
    assert fit_stack(models, X, Y) == [None] * 5
    epochs = [model.n_iter_ for model in models]
    assert len(set(epochs)) >= 3, epochs
    if place is not CPU and emulator.KIND == "cuda":
        assert len(emulator.LOG.recorded) == len(set(epochs)), (epochs, emulator.LOG.recorded)
    return [np.array(epochs), *(answer for model in models for answer in answers(model, X))]


@case("use")
def searches(place):
    grids = [
        (
            on(place, Softmax, solver=SGD()),
            {"alpha": [1e-4, 1e-2], "solver__learning_rate_init": [0.01, 0.1]},
            "accuracy",
        ),
        (on(place, Softmax, solver="lbfgs"), {"alpha": [1e-4, 1e-2]}, "neg_log_loss"),
        (on(place, MLP), {"learning_rate_init": [0.01, 0.003], "dropout": [0.1, 0.2]}, "neg_log_loss"),
        (on(place, MLP), {"random_state": [0, 1, 2]}, "neg_log_loss"),
        (on(place, Squares), {"alpha": [1e-4, 1e-2]}, "accuracy"),
    ]
    found = [GridSearchCV(m, grid, cv=2, scoring=scoring).fit(X, Y) for m, grid, scoring in grids]
    deep, n_jobs = make_pipeline(StandardScaler(), on(place, MLP)), 1 if place is CPU else 2
    found.append(GridSearchCV(deep, {"mlpclassifiertorch__alpha": [1e-4, 1e-2]}, cv=2, n_jobs=n_jobs).fit(X, Y))
    return [search.cv_results_["mean_test_score"] for search in found]


@case("use")
def path(place):
    found = regularization_path(on(place, Softmax, penalty="l1"), X, Y, [1e-3, 1e-1], cv=2)
    return [found.coefs]


@case("use")
def callbacks(place):
    from skorch.callbacks import EarlyStopping, EpochScoring, GradientNormClipping, LRScheduler

    listeners = [
        *(EarlyStopping(), GradientNormClipping(1.0), EpochScoring("accuracy", name="own")),
        LRScheduler("CosineAnnealingLR", T_max=4, step_every="batch"),
    ]
    models = [on(place, make, callbacks=listeners, early_stopping=True).fit(X, Y) for make in (Softmax, MLP, Torch)]
    return [answer for model in models for answer in [*answers(model, X), model.history_[:, "own"]]]


@case("use")
def auto(place):
    """By default, a step that is small is the CPU's, as is what needs float64 or sparse products on MPS."""
    device = {"device": "cpu" if place is CPU else "auto"}
    wide = {"hidden_layer_sizes": (512, 512), "max_iter": 1, **device}
    models = [(make(**device), X, 0) for make in (Softmax, Hinge, Squares, MLP, Ensemble)]
    models += [(MLP(**wide), data, 1) for data in (X, FRAME, pl.from_pandas(FRAME))]
    models += [(MLP(**wide), ROWS, 1 if emulator.KIND == "cuda" else 0)]
    models += [(MLP(**wide, precision="float64"), X, 1 if emulator.KIND == "cuda" else 0)]
    found = []
    for model, data, uses_it in models:
        before = emulator.LOG.launches.total()
        model.fit(data, Y)
        found += answers(model, data)
        assert place is CPU or (emulator.LOG.launches.total() > before) == uses_it, model
    return found


@case("use")
def default_dtype(place):
    torch.set_default_dtype(torch.float64)
    try:
        models = [on(place, make).fit(X, Y) for make in (Softmax, MLP)]
        return [answer for model in models for answer in answers(model, X)]
    finally:
        torch.set_default_dtype(torch.float32)


class InFile:
    """An array that is not in memory."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, X.dtype

    def __getitem__(self, rows):
        return self.X[rows]


for group in ("data", "streamed"):
    fits(group, "softmax in a file", Softmax(early_stopping=True), X=InFile(SINGLE))
    fits(group, "mlp in a file", MLP(), X=InFile(HOLES))


# ---- data that does not fit, in chunks -------------------------------------------------------------------------------

for name, model, options in [
    ("softmax", Softmax(), {}),
    ("softmax float32", Softmax(precision="float32"), {}),
    ("softmax in order", Softmax(shuffle=False), {"X": SINGLE}),
    ("softmax early", Softmax(early_stopping=True), {"X": SINGLE}),
    ("softmax early, one batch", Softmax(early_stopping=True, batch_size=120), {"X": SINGLE}),
    ("softmax lbfgs", Softmax(solver="lbfgs"), {}),
    ("softmax large batch", Softmax(batch_size=60), {}),
    ("softmax bytes", Softmax(), {"X": X.astype(np.uint8)}),
    ("softmax sparse", Softmax(early_stopping=True), {"X": ROWS}),
    ("softmax sparse, small batches", Softmax(batch_size=7), {"X": ROWS}),
    ("hinge", Hinge(calibration=None), {"X": SINGLE}),
    ("hinge sparse", Hinge(), {"X": ROWS}),
    ("squares", Squares(), {}),
    ("mlp holes", MLP(), {"X": HOLES}),
    ("ensemble", Ensemble(), {"X": SINGLE}),
    ("ensemble sparse", Ensemble(), {"X": ROWS}),
    ("torch", Torch(), {}),
    ("softmax far", Softmax(alpha="auto", precision="float32"), {"X": FAR}),
    ("softmax far early, one batch", Softmax(alpha="auto", early_stopping=True, batch_size=120), {"X": FAR}),
    ("mlp far", MLP(precision="float32", early_stopping=True), {"X": FAR}),
    ("ensemble far", Ensemble(), {"X": FAR}),
    ("softmax frame", Softmax(early_stopping=True), {"X": FRAME, "sample_weight": pd.Series(WEIGHT)}),
    ("hinge frame", Hinge(calibration=None), {"X": FRAME}),
    ("mlp frame", MLP(early_stopping=True), {"X": FRAME}),
    ("ensemble frame", Ensemble(), {"X": FRAME}),
    ("torch frame", Torch(), {"X": FRAME}),
    ("mlp Polars frame", MLP(), {"X": pl.from_pandas(FRAME)}),
]:
    fits("streamed", name, model, **options)


# ---- faults that must be noticed -------------------------------------------------------------------------------------


@case("planted")
def one_buffer(place):
    """Batches that go through one pinned buffer, filled again while the last copy may be under way."""
    buffers: dict[torch.dtype, torch.Tensor] = {}

    def to_device(values, device, dtype=None):
        values = values if dtype is None else values.to(dtype)
        if values.device.type != "cpu" or device.type != "cuda":
            return values.to(device)
        if values.dtype not in buffers:
            buffers[values.dtype] = torch.empty(1 << 16, dtype=values.dtype).pin_memory()
        part = buffers[values.dtype][: values.numel()].view(values.shape)
        return part.copy_(values).to(device, non_blocking=True)

    with patch("skdeep.engine.rows.to_device", to_device):
        return GROUPS["streamed"]["softmax early"](place)


@case("planted")
def no_wait(place):
    """Batches from another stream, for which the one that computes does not wait."""
    with patch.object(emulator.Stream, "wait_event", lambda *args: None):
        return GROUPS["streamed"]["softmax early"](place)


@case("planted")
def not_kept(place):
    """Batches whose memory the stream that sends them may use again before they are read."""
    with patch.object(emulator, "is_shared", lambda value: False):
        return GROUPS["streamed"]["softmax early"](place)


# ---- running them ----------------------------------------------------------------------------------------------------


def difference(found: list, expected: list) -> float:
    """The largest, relative to the values of an array."""
    pairs = [(np.asarray(a, dtype=float), np.asarray(b, dtype=float)) for a, b in zip(found, expected, strict=True)]
    assert all(np.isfinite(b).all() for _, b in pairs), "not finite on the CPU"
    return max(float(np.nan_to_num(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30), nan=np.inf)) for a, b in pairs)


def run(function: Case, small: bool) -> dict:
    """The outcome of a case, on a device that has little memory if it is to be `small`."""
    chunks = patch.multiple(skdeep.data.problem, CHUNK_ROWS=20) if small else nullcontext()
    rows = patch.multiple(skdeep.engine.rows, MAX_VALUES=20 * X.shape[1]) if small else nullcontext()
    parts = patch.multiple(skdeep.engine.batching, MAX_VALUES=20 * X.shape[1]) if small else nullcontext()
    emulator.LOG.__init__()
    with chunks, rows, parts:
        expected = [host(values) for values in function(CPU)]
        with emulator.accelerator(free=1000 if small else 80 << 30) as log:
            found = function(Place(emulator.DEVICE))
    return {
        "difference": difference([host(values) for values in found], expected),
        "launches": log.launches.total(),
        "waits": log.waits.total(),
        "hazards": dict(log.hazards),
    }


def main(groups: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for group in groups:
        if group == "steps":
            steps.main()
            continue
        for name, function in GROUPS[group].items():
            try:
                outcome = run(function, small=group in ("streamed", "planted"))
            except Exception:
                outcome = {"error": traceback.format_exc()}
            print(json.dumps({"group": group, "name": name, **outcome}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
