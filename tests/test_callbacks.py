import copy
import importlib
import pickle
import signal
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import DIGITS, DIGITS_Y, maker, parameters
from scipy import sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    MlflowLogger,
    NeptuneLogger,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
)

from skdeep import HingeClassifier, LinearRegressor, MLPClassifierTorch, SoftmaxClassifier
from skdeep.callbacks.observers import make_observer
from skdeep.callbacks.run import Run
from skdeep.callbacks.stand_ins import ModuleStandIn
from skdeep.compat import skorch as relied_on
from skdeep.engine.batching import Batches
from skdeep.engine.losses import LOSSES
from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import vector
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import DenseRows
from skdeep.engine.training import Plan, Progress, train

pytestmark = pytest.mark.filterwarnings(
    "ignore:The scores of rows:UserWarning",  # of models that are flat, or of two epochs
)

X, Y = DIGITS[:500] / 16, DIGITS_Y[:500]
X_VAL, Y_VAL = DIGITS[500:700] / 16, DIGITS_Y[500:700]


ESTIMATORS = [SoftmaxClassifier, MLPClassifierTorch]


make = maker(
    {"max_iter": 4, "random_state": 0, "batch_size": 100, "n_iter_no_change": 1000, "device": "cpu"},
    linear={"alpha": 1e-4},
    network={"hidden_layer_sizes": (8,), "solver": "sgd", "learning_rate_init": 0.1},
)


class Record(Callback):
    """Notes every event, and what the net predicts at the end of each epoch."""

    def __init__(self, X=X_VAL):
        self.X = X

    def initialize(self):
        self.events_, self.probabilities_, self.rates_ = [], [], []
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.events_.append("train_begin")

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.events_.append("epoch_begin")

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        self.events_.append("epoch_end")
        self.probabilities_.append(net.predict_proba(self.X))
        self.rates_.append(net.optimizer_.param_groups[0]["lr"])

    def on_train_end(self, net, X=None, y=None, **kwargs):
        self.events_.append("train_end")


class RecordBatches(Record):
    def initialize(self):
        self.batches_ = []
        return super().initialize()

    def on_batch_begin(self, net, batch=None, training=None, **kwargs):
        self.events_.append("batch_begin" if training else "valid_begin")

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.events_.append("grad")
        self.gradients_ = {name: param.grad.clone() for name, param in named_parameters}

    def on_batch_end(self, net, batch, training, loss, y_pred, **kwargs):
        self.events_.append("batch_end" if training else "valid_end")
        self.batches_.append((training, batch, float(loss.detach()), y_pred))


# ---- the engine alone ------------------------------------------------------------------------------------------------


class StandIn:
    """As much of an estimator as callbacks need."""

    _watched_scoring, _loss_unit = None, 1.0

    def __init__(self, classes):
        self.classes_ = classes

    def _labels_of_targets(self, codes):
        return self.classes_[codes]

    def predict(self, X):
        return self.classes_[(X @ self.coef_.T + self.intercept_).argmax(1)]

    def predict_proba(self, X):
        scores = np.exp(X @ self.coef_.T + self.intercept_)
        return scores / scores.sum(1, keepdims=True)


def run(callbacks, *, epochs=2, batch=200, watch_score=False, monitor=None, solver="sgd"):
    """Train a linear network in the raw columns."""
    labels = np.array([f"digit {i}" for i in range(10)])
    network = Linear(torch.zeros(1, 10, 64, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64))
    rows = DenseRows(torch.from_numpy(X), torch.device("cpu"), torch.float64)
    batches = Batches(rows, torch.from_numpy(Y), None, None, [np.random.default_rng(0)], batch)
    optimizer = OPTIMIZERS[solver](network.params, vector(0.1, 1), vector(0.9, 1))
    progress = Progress(n_iter_no_change=1000, watch_score=watch_score)
    told = Run(
        StandIn(labels),
        snapshot=lambda net, progress=None: dict(
            zip(("coef_", "intercept_"), (p[0].numpy().copy() for p in net.params), strict=True)
        ),
        X=X,
        y=labels[Y],
        sample_weight=None,
        validation=None if monitor is None else (X_VAL, labels[Y_VAL]),
        max_iter=epochs,
        batch_size=batch,
    )
    observer = make_observer(told, callbacks, verbose=False, context=None)
    penalty = ElasticNet(vector(1e-3, 1), vector(0.0, 1))
    loss = LOSSES["log_loss"]()
    plan = Plan(max_iter=epochs)
    objective = Objective(network, loss, penalty, batches, np.ones(1))
    train(objective, optimizer, plan, [progress], monitor, observer)
    return observer, optimizer, progress


def falling(scores):
    """A monitor that returns the scores in turn, and their negatives as losses."""
    scores = iter(scores)

    def monitor(network, models):
        score = next(scores)
        return np.array([score]), np.array([-score])

    return monitor


def test_nobody_listens():
    for callbacks in (None, [], ()):
        assert make_observer(None, callbacks, verbose=0, context=None) is None


def test_order_of_events_and_what_comes_with_them():
    record = RecordBatches()
    observer, _, progress = run([record], monitor=falling([0.1, 0.2]))
    step = ["batch_begin", "grad", "batch_end"]
    epoch = ["epoch_begin", *step * 3, "valid_begin", "valid_end", "epoch_end"]
    assert record.events_ == ["train_begin", *epoch, *epoch, "train_end"]
    assert record.gradients_["weight_0"].shape == (10, 64)
    assert record.gradients_["bias_0"].shape == (10,)

    rows = observer.history[-1, "batches"]
    assert [row.get("train_batch_size") for row in rows] == [200, 200, 100, None]
    assert [row.get("valid_batch_size") for row in rows] == [None, None, None, 200]
    training, (X_batch, y_batch), loss, scores = record.batches_[-2]
    assert training and X_batch.shape == (100, 64) and y_batch[0].startswith("digit") and scores.shape == (100, 10)
    assert loss == rows[2]["train_loss"]
    training, (X_batch, y_batch), loss, scores = record.batches_[-1]
    assert not training and X_batch is X_VAL and loss == -0.2 and scores.shape == (200, 10)

    last = observer.history[-1]
    assert (last["epoch"], last["train_batch_count"]) == (2, 3)
    assert last["train_loss"] == progress.loss_curve[-1] and last["dur"] > 0
    assert (last["valid_loss"], last["valid_loss_best"], last["valid_acc"], last["valid_acc_best"]) == (
        pytest.approx(-0.2),
        True,
        pytest.approx(0.2),
        True,
    )


def test_batches_are_told_only_to_those_who_listen():
    quiet = [
        EpochTimer,
        Record,
        EpochScoring("accuracy", on_train=True),
        LRScheduler("StepLR", step_size=1),
        PrintLog(sink=str),
    ]
    observer, *_ = run(quiet)
    assert not observer.watches_batches
    (row,) = observer.history[-1, "batches"]
    assert row == {"train_loss": observer.history[-1, "train_loss"], "train_batch_size": 500}
    for callback in (RecordBatches(), ProgressBar(), LRScheduler("StepLR", step_size=1, step_every="batch")):
        observer, *_ = run([callback])
        assert observer.watches_batches and len(observer.history[-1, "batches"]) == 3


@pytest.mark.parametrize("cls", relied_on.IDLE_AT_BATCHES, ids=lambda cls: cls.__name__)
def test_idle_callbacks_do_nothing_at_batches(cls):
    """Those that are believed to, which is not in skorch's documentation; their subclasses are not believed to."""
    params = {
        EpochScoring: {"scoring": "accuracy"},
        LRScheduler: {"policy": "StepLR", "step_size": 1},
        TensorBoard: {"writer": mock.Mock()},
        MlflowLogger: {"run": mock.Mock(), "client": mock.Mock()},
        NeptuneLogger: {"run": mock.Mock()},
        SacredLogger: {"experiment": mock.Mock()},
    }[cls]
    if cls in (MlflowLogger, NeptuneLogger, SacredLogger):
        assert relied_on.acts_at_batches(cls(**params, log_on_batch_end=True))
        params["log_on_batch_end"] = False
    if cls is LRScheduler:
        assert relied_on.acts_at_batches(cls(**params, step_every="batch"))
    own = type("Own", (cls,), {"on_batch_end": lambda self, net, **kwargs: None})
    assert relied_on.acts_at_batches(own(**params))
    callback, net = cls(**params), mock.Mock(use_caching=False)
    assert not relied_on.acts_at_batches(callback)
    before = {name: value for name, value in vars(callback).items() if name != "first_batch_"}
    callback.on_batch_end(net, batch=(X, Y), training=True, loss=torch.zeros(()), y_pred=torch.zeros(len(Y), 10))
    assert {name: value for name, value in vars(callback).items() if name != "first_batch_"} == before
    assert not net.mock_calls
    assert not any(value.mock_calls for value in params.values() if isinstance(value, mock.Mock))


def test_what_is_relied_on_in_skorch_is_checked(monkeypatch):
    relied_on.check()
    for cls, lacking in [
        (LRScheduler, {"__init__": lambda self, policy="WarmRestartLR": None}),
        (EpochScoring, {"initialize": lambda self: self}),
        (TensorBoard, {"on_batch_end": None}),
    ]:
        with monkeypatch.context() as patch:
            for name, value in lacking.items():
                patch.delattr(cls, name) if value is None else patch.setattr(cls, name, value)
            with pytest.raises(ImportError, match=r"skorch: .* does not have it; .* with skorch 1\.2 to 1\.4: install"):
                relied_on.check()


class Replace(Callback):
    """Changes gradients: in place, by another tensor, or to None."""

    def __init__(self, how):
        self.how = how

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, param in named_parameters:
            if self.how == "in place":
                param.grad.zero_()
            else:
                param.grad = None if self.how == "none" else torch.zeros_like(param.grad)


@pytest.mark.parametrize("how", ["in place", "replaced", "none"])
def test_changed_gradients_are_used(how):
    _, _, progress = run([Replace(how)])
    assert all((param == 0).all() for param in progress.params)


def test_what_on_train_end_writes_is_kept():
    class Write(Callback):
        def on_train_end(self, net, **kwargs):
            self.met_ = net.module_.bias_0.detach().clone()
            net.module_.load_state_dict({name: value + 1 for name, value in net.module_.state_dict().items()})

    for watch_score in (False, True):
        write, record = Write(), Record()
        _, _, progress = run(
            [write, record],
            epochs=3,
            watch_score=watch_score,
            monitor=falling([0.5, 0.9, 0.1]) if watch_score else None,
        )
        assert torch.equal(progress.params[1][0], write.met_ + 1)
        kept = StandIn(np.arange(10))
        kept.coef_, kept.intercept_ = (p[0].numpy() - 1 for p in progress.params)
        # with a watched score that is the best epoch, the second
        np.testing.assert_allclose(
            kept.predict_proba(X_VAL), record.probabilities_[1 if watch_score else 2], atol=1e-12
        )


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_optimizer_state_is_the_loops(solver):
    class Look(Callback):
        def on_train_end(self, net, **kwargs):
            state = net.optimizer_.state_dict()
            self.saved_ = copy.deepcopy(state)
            twice = copy.deepcopy(state)
            for slots in twice["state"].values():
                for value in slots.values():
                    value.mul_(2)
            net.optimizer_.load_state_dict(twice)

    look = Look()
    _, optimizer, _ = run([look], solver=solver)
    slot = optimizer.slots[0]
    assert optimizer.n_steps == [12] and look.saved_["state"][0]["step"] == 6
    torch.testing.assert_close(getattr(optimizer, slot)[0][0], 2 * look.saved_["state"][0][slot])


def test_module_of_every_network():
    batch = torch.randn(7, 5, dtype=torch.float64)
    mlp = MLP.initial([np.random.default_rng(0)], [5, 4, 4, 3], "prelu", dtype=torch.float64)
    bare = Linear(torch.randn(1, 3, 5, dtype=torch.float64), None)
    names = {
        mlp: ["weight_0", "weight_1", "weight_2", "bias_0", "bias_1", "bias_2", "slope_0", "slope_1"],
        bare: ["weight_0"],
    }
    for network, expected in names.items():
        module = ModuleStandIn(network)
        assert [name for name, _ in module.named_parameters()] == expected
        torch.testing.assert_close(module(batch), network.scores(batch)[0])
        far = copy.deepcopy(module)
        with torch.no_grad():
            far.weight_0.mul_(2)
        assert not torch.allclose(far(batch), module(batch))
        far.weight_0.grad = None
        far(batch).sum().backward()
        assert far.weight_0.grad is not None


# ---- estimators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_listening_changes_nothing(cls, early_stopping):
    # long enough for the adaptive schedule to lower the rate
    params = {"early_stopping": early_stopping, "max_iter": 12, "n_iter_no_change": 2, "learning_rate": "adaptive"}
    plain = make(cls, **params, tol=0.3).fit(X, Y)
    for callbacks in ([Record()], [RecordBatches(), LRScheduler(torch.optim.lr_scheduler.ConstantLR, factor=1.0)]):
        heard = make(cls, **params, tol=0.3, callbacks=callbacks).fit(X, Y)
        np.testing.assert_array_equal(parameters(heard), parameters(plain))
        assert heard.loss_curve_ == plain.loss_curve_ == heard.history_[:, "train_loss"]
    assert callbacks[0].rates_[-1] < callbacks[0].rates_[0]
    told = make(cls, **params, tol=0.3).set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, Y)
    np.testing.assert_array_equal(parameters(told), parameters(plain))


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("load_best", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_early_stopping(cls, load_best, early_stopping):
    record = Record()
    stop = EarlyStopping(monitor="valid_acc", lower_is_better=False, patience=3, load_best=load_best)
    model = make(cls, max_iter=60, learning_rate_init=0.5, early_stopping=early_stopping, callbacks=[record, stop])
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert model.n_iter_ == len(model.history_) < 60
    assert record.events_[-1] == "train_end"
    scores = model.history_[:, "valid_acc"]
    assert scores == model.validation_scores_
    best = stop.best_epoch_ - 1 if load_best or early_stopping else -1
    np.testing.assert_allclose(model.predict_proba(X_VAL), record.probabilities_[best], atol=1e-10)
    if load_best:
        assert model.score(X_VAL, Y_VAL) == max(scores)


def test_callbacks_that_wait_for_validation_data_say_so():
    waiting = [
        EarlyStopping(),
        EarlyStopping(monitor="valid_acc"),
        Checkpoint(f_params=None),
        EarlyStopping(monitor="auc"),
    ]
    for callback in waiting:
        model = make(callbacks=[("auc", EpochScoring("roc_auc_ovr", name="auc")), callback])
        with pytest.raises(ValueError, match=r"no validation data. Pass X_val .* or set early_stopping=True"):
            model.fit(X, Y)
        assert not hasattr(model, "coef_") and not hasattr(model, "history_")
    model = make(callbacks=[EarlyStopping(monitor="train_loss", patience=2, threshold=0.9)]).fit(X, Y)
    assert model.n_iter_ == 3


def test_learning_rate_by_epoch():
    model = make(max_iter=5, learning_rate_init=0.5, callbacks=[LRScheduler("StepLR", step_size=2, gamma=0.1)])
    model.fit(X, Y)
    np.testing.assert_allclose(model.history_[:, "event_lr"], [0.5, 0.5, 0.05, 0.05, 0.005])
    # a rate of zero after the second epoch: nothing moves any more
    schedule = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: float(epoch < 2))
    params = {"momentum": 0, "penalty": None}
    stopped = make(max_iter=6, callbacks=[schedule], **params).fit(X, Y)
    np.testing.assert_array_equal(parameters(stopped), parameters(make(max_iter=2, **params).fit(X, Y)))


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
def test_learning_rate_by_batch(solver):
    schedule = LRScheduler("CosineAnnealingLR", T_max=20, step_every="batch")
    model = make(max_iter=4, solver=solver, learning_rate_init=0.1, callbacks=[schedule]).fit(X, Y)
    rates = np.ravel(model.history_[:, "batches", :, "event_lr"])
    np.testing.assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.arange(20) / 20)), atol=1e-12)
    constant = make(max_iter=4, solver=solver, learning_rate_init=0.1).fit(X, Y)
    assert not np.allclose(parameters(model), parameters(constant))


@pytest.mark.parametrize("event", ["on_batch_begin", "on_grad_computed"])
def test_a_rate_counts_from_the_step_before_which_it_is_set(event):
    """As in skorch: with a rate of zero for each step, a model stays where it begins, at the shares of the classes."""

    class Zero(Callback):
        pass

    def zero(self, net, **kwargs):
        net.optimizer_.param_groups[0]["lr"] = 0.0

    setattr(Zero, event, zero)
    params = {"momentum": 0.0, "penalty": None, "max_iter": 2, "learning_rate": "constant"}
    model = make(callbacks=[Zero()], **params).fit(X, Y)
    assert not model.coef_.any()
    np.testing.assert_allclose(model.predict_proba(X), np.tile(np.bincount(Y) / len(Y), (len(Y), 1)), rtol=1e-12)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_momentum_is_cycled(solver):
    class Momenta(Callback):
        def on_batch_end(self, net, **kwargs):
            loop = net.optimizer_.loop
            self.seen_ = [*getattr(self, "seen_", []), float(loop.momentum[0] if solver == "sgd" else loop.betas[0])]

    momenta = Momenta()
    cycle = LRScheduler(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20, step_every="batch")
    make(solver=solver, max_iter=4, callbacks=[cycle, momenta]).fit(X, Y)
    assert momenta.seen_[5] == pytest.approx(0.85) and momenta.seen_[-1] == pytest.approx(0.95)


def test_plateau():
    strict = {"threshold": 10.0, "threshold_mode": "abs"}
    plateau = LRScheduler("ReduceLROnPlateau", monitor="valid_loss", factor=0.1, patience=0, **strict)
    model = make(max_iter=3, learning_rate_init=0.1, callbacks=[plateau]).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    np.testing.assert_allclose(model.history_[:, "event_lr"], [0.1, 0.1, 0.01])
    alone = make(max_iter=3, callbacks=[LRScheduler("ReduceLROnPlateau", monitor="valid_loss")])
    with pytest.raises(ValueError, match="no validation data"):
        alone.fit(X, Y)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_checkpoint(cls, tmp_path):
    record = Record()
    checkpoint = Checkpoint(dirname=str(tmp_path), f_pickle="model.pkl", load_best=True)
    rate = 3.0 if cls is SoftmaxClassifier else 1.0  # beyond the best it gets worse
    steps = {"learning_rate": "constant", "learning_rate_init": rate, "momentum": 0.0}
    model = make(cls, max_iter=12, callbacks=[record, checkpoint], **steps)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert {p.name for p in tmp_path.iterdir()} == {
        "params.pt",
        "optimizer.pt",
        "criterion.pt",
        "history.json",
        "model.pkl",
    }
    state = torch.load(tmp_path / "params.pt", weights_only=True)
    assert state["weight_0"].shape == ((10, 64) if cls is SoftmaxClassifier else (8, 64))
    # the history, too, is that of the best epoch
    losses = [log_loss(Y_VAL, p) for p in record.probabilities_]
    best = int(np.argmin(losses))
    assert best < 11 and len(model.history_) == best + 1
    np.testing.assert_allclose(model.predict_proba(X_VAL), record.probabilities_[best], atol=1e-10)
    with open(tmp_path / "model.pkl", "rb") as file:
        pickled = pickle.load(file)
    assert type(pickled) is cls
    np.testing.assert_allclose(pickled.predict_proba(X_VAL), record.probabilities_[best], atol=1e-10)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_training_goes_on_from_a_checkpoint(cls, solver, tmp_path):
    params = {"solver": solver, "shuffle": False, "learning_rate": "constant", "learning_rate_init": 0.01}
    whole = make(cls, max_iter=5, **params).fit(X, Y)
    end = TrainEndCheckpoint(dirname=str(tmp_path))
    half = make(cls, max_iter=3, callbacks=[LoadInitState(end), end], **params).fit(X, Y)
    assert len(half.history_) == 3
    rest = make(cls, max_iter=2, callbacks=[LoadInitState(end), end], random_state=1, **{**params}).fit(X, Y)
    assert rest.history_[:, "epoch"] == [1, 2, 3, 4, 5]
    # momentum included
    np.testing.assert_allclose(parameters(rest), parameters(whole), rtol=1e-9, atol=1e-12)


def test_epoch_scoring():
    X_iris, labels = load_iris(return_X_y=True)
    labels = np.array(["setosa", "versicolor", "virginica"])[labels]
    X_train, y_train, X_val, y_val = X_iris[::2], labels[::2], X_iris[1::2], labels[1::2]

    def half(net, X, y):
        return 0.5 if type(net.predict(X)[0]) is np.str_ else 0.0

    callbacks = [
        EpochScoring(None, name="default"),
        EpochScoring("f1_macro", lower_is_better=False),
        EpochScoring("roc_auc_ovr", name="auc", lower_is_better=False, on_train=True),
        ("loss", EpochScoring("neg_log_loss")),
        EpochScoring(make_scorer(f1_score, average="micro"), name="micro"),
        EpochScoring(accuracy_score),
        EpochScoring(half, on_train=True),
    ]
    model = make(callbacks=callbacks, max_iter=5).fit(X_train, y_train, X_val=X_val, y_val=y_val)
    last, predicted = model.history_[-1], model.predict(X_val)
    assert last["default"] == last["accuracy_score"] == model.score(X_val, y_val)
    assert last["f1_macro"] == f1_score(y_val, predicted, average="macro")
    assert last["micro"] == f1_score(y_val, predicted, average="micro")
    assert last["auc"] == pytest.approx(roc_auc_score(y_train, model.predict_proba(X_train), multi_class="ovr"))
    assert last["neg_log_loss"] == pytest.approx(-log_loss(y_val, model.predict_proba(X_val)))
    assert last["half"] == 0.5 and isinstance(last["auc_best"], bool)
    assert not model.history_[-1, "batches"][0].keys() - {"train_loss", "train_batch_size"}


def test_epoch_scoring_on_frames_and_sparse_matrices():
    pd = pytest.importorskip("pandas")
    scoring = EpochScoring("accuracy", name="train_acc", on_train=True)
    frame = make(callbacks=[scoring], early_stopping=True).fit(pd.DataFrame(X).add_prefix("x"), pd.Series(Y))
    assert frame.history_[-1, "train_acc"] > 0.5
    rows = sparse.csr_array(X)
    for early_stopping in (False, True):
        batch = BatchScoring("accuracy", name="batch_acc", on_train=True, lower_is_better=False)
        model = make(callbacks=[scoring, batch, RecordBatches], early_stopping=early_stopping).fit(rows, Y)
        assert model.history_[-1, "train_acc"] > 0.5 and model.history_[-1, "batch_acc"] > 0.5


def test_batch_scoring_of_two_classes():
    y = np.where(Y == 3, "three", "other")
    callbacks = [
        BatchScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False),
        BatchScoring("roc_auc", name="auc", lower_is_better=False),
    ]
    model = make(callbacks=callbacks).fit(X, y, X_val=X_VAL, y_val=np.where(Y_VAL == 3, "three", "other"))
    assert model.history_[-1, "train_acc"] > 0.9
    expected = roc_auc_score(Y_VAL == 3, model.decision_function(X_VAL))
    assert model.history_[-1, "auc"] == pytest.approx(expected, rel=1e-12)


def test_multilabel():
    indicators = np.stack([Y % 2, Y // 5, Y % 3 == 0], axis=1).astype(int)
    record = RecordBatches()
    model = make(MLPClassifierTorch, callbacks=[record, EpochScoring("accuracy", on_train=True)])
    model.fit(X, indicators)
    np.testing.assert_array_equal(record.batches_[0][1][1].sum(1) >= 0, True)
    assert record.batches_[0][1][1].shape == (100, 3)
    assert model.history_[-1, "accuracy"] == model.score(X, indicators)


def test_progress_bar(capsys):
    make(callbacks=[ProgressBar()], max_iter=2).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert "0/6" in capsys.readouterr().err  # five batches and the validation data
    make(callbacks=[ProgressBar(batches_per_epoch="count")], max_iter=2, solver="lbfgs").fit(X, Y)


def test_print_log(capsys):
    make(callbacks=[PrintLog], max_iter=2, verbose=True).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["epoch", "train_loss", "valid_acc", "valid_loss", "dur"]
    assert [line.split()[0] for line in lines] == ["1", "2"]


def test_tensorboard(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter
    model = make(callbacks=[TensorBoard(SummaryWriter(tmp_path))]).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = EventAccumulator(str(tmp_path)).Reload()
    for tag, values in {"train_loss": model.loss_curve_, "valid_acc": model.validation_scores_}.items():
        written = events.Scalars(f"Loss/{tag}")
        assert [event.step for event in written] == [1, 2, 3, 4]
        np.testing.assert_allclose([event.value for event in written], values, rtol=1e-6)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_gradient_clipping(cls):
    clipped = make(cls, callbacks=[GradientNormClipping(0.05)]).fit(X, Y)
    np.testing.assert_allclose(
        parameters(clipped), parameters(make(cls, max_grad_norm=0.05).fit(X, Y)), rtol=1e-3, atol=1e-5
    )
    assert not np.allclose(parameters(clipped), parameters(make(cls).fit(X, Y)), rtol=1e-2)


def test_parameters_can_be_frozen_and_set():
    params = {
        "solver": "adam",
        "alpha": 10.0,
        "standardize": False,
        "column_learning_rate": 0,
    }  # the callbacks' weights are those that are trained
    start = Initializer("weight_0", fn=lambda p: torch.nn.init.constant_(p, 0.25))
    model = make(MLPClassifierTorch, **params, callbacks=[start, Freezer("weight_0")]).fit(X, Y)
    assert (model.coefs_[0] == 0.25).all() and np.ptp(model.coefs_[1]) > 0.1
    free = make(MLPClassifierTorch, **params, callbacks=[start]).fit(X, Y)
    assert (free.coefs_[0] != 0.25).any()


def test_a_callback_that_raises_leaves_the_estimator_as_it_was():
    class Fail(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise RuntimeError("no more")

    fresh = make(callbacks=[Fail()])
    with pytest.raises(RuntimeError, match="no more"):
        fresh.fit(X, Y)
    assert vars(fresh).keys() == vars(clone(fresh)).keys()
    model = make().fit(X, Y)
    before = dict(vars(model))
    model.set_params(callbacks=[Fail])
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X[:, :5], Y % 2)
    assert {**vars(model), "callbacks": None} == before


def test_scores_come_to_who_takes_all_that_comes():
    shapes = []

    class Looks(Callback):
        def on_batch_end(self, net, **kwargs):
            shapes.append((kwargs["y_pred"].shape, kwargs["training"]))

    make(callbacks=[Looks()], max_iter=1).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert shapes[-1] == ((len(X_VAL), 10), False) and len(shapes) > 2
    assert sum(shape[0] for shape, training in shapes if training) == len(X)


def test_the_module_is_not_made_anew_for_a_callback():
    with pytest.raises(ValueError, match=r"sets module__input_dim, and .* told n_features and n_outputs"):
        make(callbacks=[InputShapeSetter()]).fit(X, Y)


def test_how_callbacks_are_given():
    model = make(callbacks=[Record, ("mine", EpochTimer()), ("yours", EpochTimer)]).fit(X, Y)
    assert len(model.history_) == 4
    assert len(make(callbacks=EpochTimer()).fit(X, Y).history_) == 4
    assert not hasattr(make(callbacks=[]).fit(X, Y), "history_")
    with pytest.raises(ValueError, match="duplicate"):
        make(callbacks=[("a", Record()), ("a", Record())]).fit(X, Y)
    with pytest.raises(TypeError, match="set_callbacks"):
        make(callbacks=[ScoringMonitor(scoring="accuracy")]).fit(X, Y)


def by_statement():
    raise KeyboardInterrupt


def by_ctrl_c():
    signal.raise_signal(signal.SIGINT)


def interrupted_at(event, epoch, how, base=RecordBatches):
    """A callback that notes events, and in which an interrupt comes at the first such event of an epoch."""

    class Interrupted(base):
        pass

    def interrupt(self, net, **kwargs):
        getattr(base, event)(self, net, **kwargs)
        if len(net.history) == epoch:
            how()

    setattr(Interrupted, event, interrupt)
    return Interrupted(np.float32(X_VAL))


TOLD_IN_TRAINING = ["on_epoch_begin", "on_batch_begin", "on_grad_computed", "on_batch_end", "on_epoch_end"]


@pytest.mark.parametrize("event", TOLD_IN_TRAINING)
@pytest.mark.parametrize("how", [by_statement, by_ctrl_c])
def test_an_interrupt_while_callbacks_run_ends_training_as_in_skorch(event, how):
    ours, theirs, last = interrupted_at(event, 2, how), interrupted_at(event, 2, how), Record()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make(callbacks=[ours, last], max_iter=50).fit(X, Y)
    net = NeuralNetClassifier(
        torch.nn.Linear, module__in_features=64, module__out_features=10, criterion=torch.nn.CrossEntropyLoss,
        callbacks=[theirs], callbacks__print_log=None, max_epochs=50, batch_size=100, train_split=None,
    )  # fmt: skip
    net.fit(np.float32(X), Y)
    assert ours.events_ == theirs.events_ and last.events_[-1] == "train_end"
    assert len(model.history_) == len(net.history_) == 2
    assert model.n_iter_ == len(model.loss_curve_) == (2 if event == "on_epoch_end" else 1)
    assert model.predict(X).shape == Y.shape


@pytest.mark.parametrize("event", TOLD_IN_TRAINING)
@pytest.mark.parametrize("how", [by_statement, by_ctrl_c])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_an_interrupt_in_the_first_epoch_leaves_the_estimator_as_it_was(cls, event, how):
    model = make(cls, callbacks=[interrupted_at(event, 1, how)])
    if event == "on_epoch_end":
        assert model.fit(X, Y).n_iter_ == 1
        return
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert vars(model).keys() == vars(clone(model)).keys()


@pytest.mark.parametrize("event", ["on_train_begin", "on_train_end"])
def test_an_interrupt_before_or_after_training_is_raised_as_in_skorch(event):
    epoch = 0 if event == "on_train_begin" else 4
    model = make(callbacks=[interrupted_at(event, epoch, by_ctrl_c)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_an_interrupt_of_lbfgs_and_of_steps(solver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make(solver=solver, callbacks=[interrupted_at("on_epoch_begin", 3, by_ctrl_c, Record)]).fit(X, Y)
    assert model.n_iter_ == 2
    alone = make(solver=solver, max_iter=2, callbacks=[Record]).fit(X, Y)  # without, it would be computed in NumPy
    np.testing.assert_array_equal(parameters(model), parameters(alone))


@pytest.fixture
def ctrl_c_between_steps(monkeypatch):
    """Press Ctrl-C in the third pass over the data, while no callback runs."""
    passes, whole = [], Batches.epoch

    def epoch(self, *args):
        passes.append(self)
        for batch in whole(self, *args):
            yield batch
            if len(passes) == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Batches, "epoch", epoch)


@pytest.mark.parametrize("callback", [Record, RecordBatches])
def test_ctrl_c_between_steps_is_the_users(callback, ctrl_c_between_steps):
    record = callback()
    with pytest.warns(UserWarning, match="interrupted by user after 2 epochs"):
        make(callbacks=[record]).fit(X, Y)
    assert record.events_.count("epoch_begin") == 3 and record.events_.count("epoch_end") == 2
    assert record.events_[-1] == "train_end"


def test_an_interrupt_while_callbacks_run_does_not_end_a_search():
    """As in skorch, whose net has ended training quietly; the candidates after it are fitted."""
    callback = interrupted_at("on_epoch_begin", 3, by_ctrl_c)
    search = GridSearchCV(make(max_iter=9, callbacks=[callback]), {"alpha": [1e-4, 1e-2]}, cv=2).fit(X, Y)
    assert search.best_estimator_.n_iter_ == 2


def test_lbfgs():
    stop, record = EarlyStopping(monitor="train_loss", threshold=0.2, patience=2, load_best=True), Record()
    model = make(solver="lbfgs", max_iter=50, callbacks=[record, stop]).fit(X, Y)
    assert model.n_iter_ == len(model.history_) < 50
    np.testing.assert_allclose(model.predict_proba(X_VAL), record.probabilities_[stop.best_epoch_ - 1], atol=1e-9)
    for callback in (LRScheduler, GradientNormClipping(1.0), Freezer("weight_0")):
        with pytest.raises(ValueError, match="sgd, adam"):
            make(solver="lbfgs", callbacks=[callback]).fit(X, Y)


def test_a_fitted_estimator_holds_no_net():
    callbacks = [EarlyStopping(load_best=True), LRScheduler("StepLR", step_size=1), ProgressBar(), Record()]
    model = make(callbacks=callbacks).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert len(pickle.dumps(model)) < X.nbytes
    again = pickle.loads(pickle.dumps(model))
    assert again.history_ == model.history_
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert len(clone(model).fit(X, Y, X_val=X_VAL, y_val=Y_VAL).history_) == 4


@pytest.mark.parametrize("warm_start", [False, True])
def test_fitted_copies_have_the_curves_so_far(warm_start):
    class Look(Callback):
        def initialize(self):
            self.seen_ = []
            return self

        def on_train_begin(self, net, X=None, y=None, **kwargs):
            assert "loss_curve_" not in net.snapshot_()

        def on_epoch_end(self, net, **kwargs):
            self.seen_.append(copy.copy(net))  # a fitted copy of the estimator

    class LookAsWell(StopAt):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "epoch":
                seen.append(fitted_estimator)

    seen, look = [], Look()
    model = make(max_iter=3, warm_start=warm_start, learning_rate="cosine", learning_rate_init=0.1, callbacks=[look])
    model.set_callbacks(LookAsWell(99))
    for _ in range(2):
        seen.clear()
        model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
        before = len(model.loss_curve_) - 3
        for copies in (seen, look.seen_):
            for epoch, fitted in enumerate(copies, 1):
                assert fitted.n_iter_ == epoch and fitted.t_ == model.t_ - (3 - epoch) * len(Y)
                for name in ("loss_curve_", "validation_loss_curve_", "validation_scores_"):
                    assert getattr(fitted, name) == getattr(model, name)[: before + epoch]
                assert fitted.loss_ == fitted.loss_curve_[-1]
                assert fitted.best_validation_score_ == max(fitted.validation_scores_)
        assert len(look.seen_) == len(seen) == 3
        rates = [0.05 * (1 + np.cos(np.pi * (5 * epoch - 1) / 15)) for epoch in (1, 2, 3)]
        np.testing.assert_allclose([fitted.learning_rate_ for fitted in seen], rates)


def test_search_over_estimators_with_callbacks():
    model = make(callbacks=[EarlyStopping(monitor="train_loss", patience=1, threshold=0.99)], max_iter=10)
    search = GridSearchCV(model, {"alpha": [1e-4, 1e-2]}, cv=2, n_jobs=1).fit(X, Y)
    assert search.best_estimator_.n_iter_ == 2 == len(search.best_estimator_.history_)


# ---- scikit-learn's callbacks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"solver": "lbfgs"}, {"callbacks": [EpochTimer()]}])
def test_scoring_monitor(params):
    pd = pytest.importorskip("pandas")
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    frame = pd.DataFrame(X).add_prefix("x")
    model = make(**params).set_callbacks(monitor).fit(frame, Y, sample_weight=np.full(len(Y), 2.0))
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 4 and [row["task_id"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    if not params.get("early_stopping"):
        assert rows[-1]["accuracy"] == model.score(frame, Y)


class StopAt:
    """A callback of scikit-learn's protocol."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.begun = self.ended = 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.torn_down = True

    def on_fit_task_begin(self, estimator, context):
        self.begun += 1

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.ended += 1
        return context.task_name == "epoch" and context.task_id == self.epoch


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_a_task_can_end_training(solver):
    stop = StopAt(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = make(solver=solver).set_callbacks(stop).fit(X, Y)
    assert model.n_iter_ == 2 and stop.torn_down
    assert stop.begun == stop.ended == 3  # two epochs and the fit


def test_every_task_ends(ctrl_c_between_steps):
    stop = StopAt(None)
    with pytest.warns(UserWarning, match="interrupted"):
        make(callbacks=[EpochTimer()]).set_callbacks(stop).fit(X, Y)
    assert stop.begun == stop.ended == 4  # three epochs and the fit


@pytest.mark.parametrize("event", TOLD_IN_TRAINING)
def test_every_task_ends_where_a_callback_of_skorch_ends_training(event):
    stop = StopAt(None)
    make(callbacks=[interrupted_at(event, 2, by_statement)]).set_callbacks(stop).fit(X, Y)
    assert stop.begun == stop.ended == (2 if event == "on_epoch_begin" else 3)


def test_in_pipelines_and_searches():
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar as TaskBar

    monitor = ScoringMonitor(scoring="accuracy")
    model = make_pipeline(StandardScaler(), make(max_iter=2).set_callbacks(monitor))
    model.set_callbacks(TaskBar(max_propagation_depth=None)).fit(X, Y)
    assert sum(row["task_name"] == "epoch" for row in monitor.get_logs().data) == 2

    search = GridSearchCV(make(max_iter=2), {"alpha": [1e-4, 1e-2]}, cv=2)
    search.set_callbacks(TaskBar(max_propagation_depth=None)).fit(X, Y)
    assert search.best_score_ > 0.5


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"solver": "lbfgs"}, {"callbacks": [EpochTimer]}])
def test_verbose_table(params, capsys):
    model = make(verbose=True, **params).fit(X, Y)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("Iteration") and ("validation score" in header) == ("early_stopping" in params)
    assert len(lines) == 4 and {len(line) for line in lines} == {len(header)}
    assert [float(line.split()[1]) for line in lines] == pytest.approx(model.loss_curve_, abs=1e-6)
    assert lines[0].split()[-2] == "+"


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(penalty="l1", alpha=0.01),
        HingeClassifier("hinge", alpha=0.01),
        HingeClassifier(multi_class="crammer_singer", alpha=0.01),
        LinearRegressor("absolute_error", alpha=0.01),
    ],
    ids=repr,
)
def test_verbose_changes_no_model(model, capsys):
    """Who looked on had mini-batches, where the model was at its optimum otherwise."""
    target = X[:, 0] - X[:, 1] if isinstance(model, LinearRegressor) else Y
    silent, loud = clone(model).fit(X, target), clone(model).set_params(verbose=True).fit(X, target)
    assert silent.solver_ == loud.solver_ == "exact"
    header, line = capsys.readouterr().out.splitlines()
    assert header.startswith("Iteration") and float(line.split()[1]) == pytest.approx(loud.loss_, abs=1e-6)
    np.testing.assert_allclose(loud.predict(X), silent.predict(X), atol=1e-6)
    np.testing.assert_allclose(loud.coef_, silent.coef_, atol=1e-5)


@pytest.mark.parametrize("params", [{}, {"scoring": "loss"}, {"callbacks": [EpochTimer]}])
def test_verbose_table_of_values_is_in_their_unit(params, capsys):
    """Targets of thousands are trained on in units of their own."""
    y = 1e5 * X[:, 0] + 1e4 * X[:, 1]
    model = LinearRegressor(solver="adam", max_iter=3, early_stopping=True, verbose=True, random_state=0, **params)
    _, *lines = capsys.readouterr().out.splitlines() if model.fit(X, y) else []
    table = np.array([[float(number) for number in line.replace("+", "").split()] for line in lines])
    np.testing.assert_allclose(table[:, 1], model.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(table[:, 2], model.validation_scores_, rtol=1e-5, atol=1e-6)
    assert model.loss_curve_[0] > 1e5
    if "callbacks" in params:
        assert model.history_[:, "train_loss"] == model.loss_curve_
        assert model.history_[:, "valid_loss"] == model.validation_loss_curve_
        assert model.history_[:, "valid_score"] == model.validation_scores_


@pytest.fixture
def imported_anew():
    """The package as if neither it nor skorch had been imported; torch and the others need not be a second time."""

    def ours():
        return {name: sys.modules[name] for name in list(sys.modules) if name.split(".")[0] in ("skdeep", "skorch")}

    before = ours()
    for name in before:
        del sys.modules[name]
    yield importlib.import_module("skdeep")
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def test_skorch_is_imported_only_for_its_callbacks(imported_anew):
    model = imported_anew.SoftmaxClassifier(max_iter=1, verbose=1)
    assert type(model) is not SoftmaxClassifier
    model.set_callbacks(ScoringMonitor(scoring="accuracy")).fit([[0.0], [1.0]], [0, 1])
    assert "skorch" not in sys.modules


@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier, MLPClassifierTorch])
def test_probabilities_before_they_are_calibrated(cls, calibration):
    """Scorers of callbacks meet them at temperature 1."""
    scoring = EpochScoring("neg_log_loss", name="score")
    model = make(cls, max_iter=2, calibration=calibration, callbacks=[scoring]).fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert np.isfinite(model.history_[:, "score"]).all()
