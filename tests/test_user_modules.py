"""A user's module is the user's: whatever it does in its forward, and whatever torch is set to outside."""

import copy
import pickle
import threading
import warnings
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from helpers import configured, forking, reconfigured
from joblib import Parallel, delayed
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from user_modules import MODULES, N_WORDS, Keeps, OwnTensors, Words, dense

from skdeep import (
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
    TorchRegressor,
)
from skdeep.data.inputs import OutputSpace
from skdeep.engine.random_numbers import OwnNumbers
from skdeep.fitting.settings import settings_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on"),  # after three epochs
    pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated:FutureWarning"),
]

N_ROWS = 45
PLAIN = {"batch_size": 16, "shuffle": False, "alpha": 0.0, "tol": 0.0, "random_state": 0}
STEPS = {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False, "learning_rate_init": 0.02}


def data(shape, n=N_ROWS):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(n, *shape)) if shape else generator.integers(0, N_WORDS, (n, 6))
    values = X.reshape(n, -1)[:, :3].astype(float)
    return X, (values + generator.normal(size=values.shape) * 0.5).argmax(1)


@pytest.mark.parametrize("name", MODULES)
def test_the_steps_are_skorchs(name):
    """From the same parameters, over the same batches, in float64: parameters and buffers of all kinds agree."""
    make, shape = MODULES[name]
    X, y = data(shape)
    own_float32 = name == "own_tensors"  # as it makes its tensors
    X = X.astype(np.float32) if own_float32 else X
    near = {"rtol": 1e-4, "atol": 1e-5} if own_float32 else {"rtol": 1e-10, "atol": 1e-12}

    def module():
        with OwnNumbers(0):
            made = make() if own_float32 else make().double()
            with torch.no_grad():
                made.eval()(torch.from_numpy(X[:2]))
        return made

    net = NeuralNetClassifier(
        module(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.02,
        batch_size=16,
        max_epochs=3,
        train_split=None,
        iterator_train__shuffle=False,
        verbose=0,
    ).fit(X, y)
    clf = TorchClassifier(module, max_iter=3, **PLAIN, **STEPS).fit(X, y)
    expected, found = net.module_.state_dict(), clf.module_.state_dict()
    assert list(found) == list(expected)
    assert any(not torch.equal(found[key], value) for key, value in module().state_dict().items())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **near)
    np.testing.assert_allclose(clf.predict_proba(X), net.predict_proba(X), **near)


@pytest.mark.parametrize("name", MODULES)
def test_the_life_of_a_module(name, recwarn):
    """With a last batch of one row: fit, best epoch, calibration, going on, failing, pickling."""
    make, shape = MODULES[name]
    X, y = data(shape, 33)
    params = {**PLAIN, "learning_rate_init": 0.05, "max_iter": 2}
    options = {"early_stopping": True, "scoring": "loss", "calibration": "temperature", "warm_start": True}
    clf = TorchClassifier(make, **params, **options).fit(X, y, X_val=X[:9], y_val=y[:9])
    best = clf.best_validation_score_
    scores = torch.as_tensor(clf.decision_function(X[:9]), dtype=torch.float64)
    assert -F.cross_entropy(scores, torch.as_tensor(y[:9])).item() == pytest.approx(best, rel=1e-4)
    assert np.isfinite(clf.predict_proba(X)).all()
    np.testing.assert_array_equal(clf.predict(X[:1]), clf.predict(X)[:1])
    before = {key: value.clone() for key, value in clf.module_.state_dict().items()}
    with pytest.raises(ZeroDivisionError):
        reconfigured(clf, scoring=lambda *data: 1 / 0, precision="float32").fit(X, y, X_val=X[:9], y_val=y[:9])
    for key, value in clf.module_.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    clf.set_params(scoring="neg_log_loss").fit(X, y, X_val=X[:9], y_val=y[:9])
    clf.set_params(early_stopping=False, calibration=None).partial_fit(X, y)
    for part in clf.module_.modules():
        kept = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert all(value.is_leaf for value in kept)
    assert all(torch.isfinite(value).all() for value in clf.module_.parameters())


def test_copies_of_an_estimator_whose_module_keeps_activations():
    class_with_a_state = nn.utils.weight_norm(nn.Linear(4, 3))
    assert class_with_a_state.weight.grad_fn is not None
    X, y = data((4,))
    clf = TorchClassifier(lambda: nn.utils.weight_norm(nn.Linear(4, 3)), **PLAIN, max_iter=2).fit(X, y)
    for far in (copy.deepcopy(clf), copy.deepcopy(clf.module_)):
        module = far.module_ if far is not clf and hasattr(far, "module_") else far
        assert module.weight.grad_fn is None
    pickle.dumps(clf.module_)


# ---- dtypes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", ">f4", "bool"])
def test_one_dtype_in_training_and_prediction(dtype):
    X, y = data((4,))
    X = (X * 3).astype(dtype)
    clf = TorchClassifier(OwnTensors, **PLAIN, max_iter=2, early_stopping=True).fit(X, y, X_val=X[:9], y_val=y[:9])
    assert {p.dtype for p in clf.module_.parameters()} == {torch.float32}
    assert clf.predict_proba(X).dtype == (np.float32 if dtype in ("float32", ">f4") else np.float64)
    with torch.no_grad():
        scores = clf.module_(torch.as_tensor(X.astype(np.float32)))
    np.testing.assert_array_equal(clf.decision_function(X), scores)
    with pytest.raises(ValueError, match=r"cannot compute scores of rows .* as torch\.float64.*precision"):
        TorchClassifier(OwnTensors, **PLAIN, precision="float64").fit(X, y)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_indices_reach_a_module_that_wants_them(dtype):
    X, y = data(None)
    clf = TorchClassifier(Words, **PLAIN, max_iter=2).fit(X.astype(dtype), y)
    expected = clf.predict_proba(X.astype(dtype))
    np.testing.assert_array_equal(clf.predict_proba(X.astype(float)), expected)
    with pytest.raises(ValueError, match="whole numbers"):
        clf.predict(X + 0.5)


def test_whole_numbers_of_any_dtype_are_indices():
    """As OrdinalEncoder makes them: floating-point numbers."""
    X, y = data(None)
    clf = TorchClassifier(Words, **PLAIN, max_iter=2).fit(X, y)
    for given in (X.astype(float), X.astype(np.float32), X.astype(object)):
        other = TorchClassifier(Words, **PLAIN, max_iter=2).fit(given, y)
        np.testing.assert_allclose(other.predict_proba(X), clf.predict_proba(X), rtol=1e-6)
    with pytest.raises(ValueError, match="must have whole numbers"):
        TorchClassifier(Words, **PLAIN).fit(np.vstack([X[:-1], X[-1:] + 0.5]), y)
    with pytest.raises(ValueError, match=r"as torch.float32, .*\. Reshape X .* int64 where it takes no other"):
        TorchClassifier(Words, **PLAIN).fit(X + 0.5, y)


class WordsInPart(Words):
    """Makes indices of columns itself, beside which there may be numbers."""

    def forward(self, x):
        return super().forward(x.long())


@pytest.mark.parametrize("module", [Words, WordsInPart])
def test_indices_that_are_not_there(module):
    X, y = data(None)
    clf = TorchClassifier(module, **PLAIN, max_iter=2).fit(X, y)
    for call in (lambda X: clf.predict(X), lambda X: clone(clf).fit(X, y)):
        far = X.copy()
        far[-1, 0] = N_WORDS + 5
        with pytest.raises(ValueError, match=rf"from 0 to {N_WORDS + 5} here; an nn.Embedding"):
            call(far)
    with pytest.raises(ValueError, match=r"as torch.int64, index out of range"):
        TorchClassifier(Words, **PLAIN).fit(X - 1, y)


class Buckets(nn.Module):
    """The lowest bits of an id."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 3)

    def forward(self, x):
        return self.table(x.long() % 4).sum(1)


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.float64])
def test_large_ids_never_merge(kind):
    X = (2**26 + np.arange(40)[:, None] % 4).astype(kind)
    y = np.arange(40) % 4 // 2
    with pytest.raises(ValueError, match=r"column 0 .* beyond 16777216.*number them from 0.*precision='float64'"):
        TorchClassifier(lambda: nn.Sequential(Buckets(), nn.Linear(3, 1)), **PLAIN).fit(X, y)
    clf = TorchClassifier(
        lambda: nn.Sequential(Buckets(), nn.Linear(3, 1)), precision="float64", learning_rate_init=0.1, max_iter=60
    ).fit(X, y)
    assert clf.score(X, y) == 1
    clf = TorchClassifier(lambda: nn.Sequential(Buckets(), nn.Linear(3, 1)), max_iter=1).fit(X - 2**26, y)
    with pytest.raises(ValueError, match="beyond 16777216"):
        clf.predict(X)


def test_measurements_are_rounded_as_always():
    X, y = data((4,))
    model = TorchClassifier(dense, **PLAIN, max_iter=1, learning_rate_init=1e-12).fit(X * 1e9, y)
    assert np.isfinite(model.decision_function(X * 1e9)).all()


# ---- random numbers -------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Draws in many ways."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.LSTM(2, 4, 2, dropout=0.5), nn.Linear(4, 3)

    def forward(self, x):
        h = self.first(x.reshape(-1, 2, 2).transpose(0, 1))[0][-1]
        if self.training:
            h = F.dropout(h + torch.randn_like(h) * torch.rand(len(h), 1), 0.2) + torch.normal(0.0, 0.1, (4,))
            h = F.rrelu(F.alpha_dropout(h, 0.1, True), training=True) + torch.empty_like(h).exponential_() * 0.1
            h = h[torch.randperm(len(h)).argsort()] * torch.native_dropout(torch.ones(4), 0.1, True)[0]
        return self.out(h)


@pytest.mark.parametrize(
    "make", [Noisy, lambda: dense(nn.Dropout(0.5)), lambda: nn.Linear(4, 3)], ids=["all", "p", "no"]
)
def test_random_numbers_are_the_estimators_own(make):
    """The same under joblib's threads as alone; what other threads draw is neither moved nor repeated."""
    X, y = data((4,))
    clf = TorchClassifier(make, **{**PLAIN, "shuffle": True}, max_iter=8)
    torch.manual_seed(1)
    before, expected = torch.get_rng_state(), copy.copy(clf).fit(X, y).predict_proba(X)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    alone = [torch.rand(()) for _ in range(400)]
    torch.manual_seed(1)
    drawn, done = [], threading.Event()

    def draw():
        while not done.is_set() and len(drawn) < 400:
            drawn.append(torch.rand(()))

    other = threading.Thread(target=draw)
    other.start()
    fits = [delayed(copy.copy(clf).fit)(X, y) for _ in range(2)]
    for fitted in Parallel(2, backend="threading")(fits):
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    done.set()
    other.join()
    assert drawn and drawn == alone[: len(drawn)]
    other_seed = copy.copy(clf).set_params(random_state=1).fit(X, y)
    assert np.abs(other_seed.predict_proba(X) - expected).max() > 1e-4


def test_own_numbers_cover_all_that_torch_draws():
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    draws = {
        "rand": lambda: torch.rand(3),
        "randn": lambda: torch.randn(3),
        "randint": lambda: torch.randint(9, (3,)),
        "randint low": lambda: torch.randint(2, 9, (3,)),
        "randperm": lambda: torch.randperm(9),
        "rand_like": lambda: torch.rand_like(x),
        "randn_like": lambda: torch.randn_like(x),
        "randint_like": lambda: torch.randint_like(x, 2, 9),
        "normal": lambda: torch.normal(x, x),
        "multinomial": lambda: torch.multinomial(x, 2),
        "bernoulli": lambda: torch.bernoulli(x),
        "poisson": lambda: torch.poisson(9 * x),
        "random_": lambda: x.clone().random_(),
        "cauchy_": lambda: x.clone().cauchy_(),
        "native_dropout": lambda: torch.native_dropout(x, 0.5, True)[0],
        "attention": lambda: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5),
        "gumbel": lambda: F.gumbel_softmax(x),
        "gamma": lambda: torch.distributions.Gamma(x + 1, x + 1).sample(),
        "linear": lambda: nn.Linear(3, 3).weight.detach(),
        "trunc": lambda: nn.init.trunc_normal_(torch.empty(3, 3)),
        "pooling": lambda: nn.FractionalMaxPool2d(2, 2)(x.new_ones(1, 1, 5, 5).cumsum(3)),
    }
    before = torch.get_rng_state()
    for name, draw in draws.items():
        found = []
        for seed in (0, 0, 1):
            with OwnNumbers(seed) as numbers:
                assert not numbers.drawn
                found.append([draw(), draw()])
                assert numbers.drawn, name
        assert torch.equal(torch.get_rng_state(), before), name
        for first, again in zip(found[0], found[1], strict=True):
            assert torch.equal(first, again), name
        if name != "pooling":
            assert not torch.equal(found[0][0], found[0][1]), name
            assert not torch.equal(found[0][0], found[2][0]), name
    generator = torch.Generator().manual_seed(5)
    with OwnNumbers(0) as numbers:
        theirs = torch.rand(3, generator=generator)
        assert not numbers.drawn
    assert torch.equal(theirs, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_a_module_that_begins_to_draw_later():
    """It does so once from torch's own generator, and is found out."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.calls, self.states = nn.Linear(4, 3), 0, set()

        def forward(self, x):
            self.calls += self.training
            self.states.add(torch.get_rng_state().numpy().tobytes())
            return self.out(F.dropout(x, 0.5, self.training and self.calls > 4))

    clf = TorchClassifier(Late, **PLAIN, max_iter=6).fit(*data((4,)))
    assert clf.module_.calls == 18
    assert len(clf.module_.states) == 2


def test_dropout_learns_what_skorch_does():
    X, y = data((4,), 200)

    def module():
        return dense(nn.ReLU(), nn.Dropout(0.3), width=32)

    clf = TorchClassifier(module, max_iter=60, random_state=0, tol=0).fit(X, y)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        module(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=1e-3, batch_size=200, max_epochs=60,
        train_split=None, verbose=0,
    ).fit(X.astype(np.float32), y)  # fmt: skip
    assert clf.loss_curve_[-1] == pytest.approx(net.history[-1, "train_loss"], rel=0.1)


def test_checkpoints_around_dropout_are_refused():
    class Checkpointed(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.first, self.out, self.p = nn.Linear(4, 8), nn.Linear(8, 3), p

        def forward(self, x):
            x = x.clone().requires_grad_()
            return self.out(
                checkpoint(lambda x: F.dropout(self.first(x), self.p, self.training), x, use_reentrant=False)
            )

    X, y = data((4,))
    with pytest.raises(ValueError, match="on the way back"):
        TorchClassifier(Checkpointed, {"p": 0.5}, **PLAIN).fit(X, y)
    assert TorchClassifier(Checkpointed, {"p": 0.0}, **PLAIN, max_iter=2).fit(X, y).n_iter_ == 2


def test_lbfgs_refuses_modules_that_draw():
    with pytest.raises(ValueError, match=r"lbfgs.*draws random numbers"):
        TorchClassifier(Noisy, solver="lbfgs").fit(*data((4,)))


# ---- normalisation by batches ---------------------------------------------------------------------------------------


def test_a_last_batch_of_one_row_is_normalised_by_running_averages():
    """As MLPClassifierTorch does; against a loop in plain torch."""
    X, y = data((4,), 33)

    def module():
        with OwnNumbers(0):
            return dense(nn.BatchNorm1d(6), nn.ReLU()).double()

    clf = TorchClassifier(module, max_iter=2, **PLAIN, **STEPS).fit(X, y)
    plain, X, y = module(), torch.from_numpy(X), torch.from_numpy(y)
    steps = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9)
    for _ in range(2):
        for rows in torch.arange(33).split(16):
            plain.train()
            plain[1].train(len(rows) > 1)
            steps.zero_grad()
            F.cross_entropy(plain(X[rows]), y[rows]).backward()
            steps.step()
    for found, expected in zip(clf.module_.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Around(nn.Module):
    """Normalises hidden values by a function, of which some rows may be other things."""

    def __init__(self, normalise, part):
        super().__init__()
        self.first, self.part, self.last = nn.Linear(4, 6), part, nn.Linear(6, 3)
        self.normalise = normalise

    def forward(self, x):
        return self.last(self.normalise(self.part, self.first(x)))


class Frozen(nn.BatchNorm1d):
    """Keeps the averages that it has been given, as parts of a trained network do."""

    def reset_running_stats(self):
        super().reset_running_stats()
        self.running_mean += 0.3
        self.running_var *= 2

    def train(self, mode=True):
        return super().train(False)


class OfItsOwn(nn.BatchNorm1d):
    def forward(self, input):
        return super().forward(input.contiguous())


def doubled():
    part = nn.BatchNorm1d(6)
    part.register_forward_hook(lambda part, inputs, output: 2 * output)
    return part


def of_no_averages():
    part = nn.BatchNorm1d(6)
    part.track_running_stats = False
    return part


NORMALISED = {
    "frozen": ((4,), lambda: dense(Frozen(6))),
    "another class": ((4,), lambda: dense(OfItsOwn(6))),
    "a hook": ((4,), lambda: dense(doubled())),
    "no averages any more": ((4,), lambda: dense(of_no_averages())),
    "by keyword": ((4,), lambda: Around(lambda part, h: part(input=h), nn.BatchNorm1d(6))),
    "twice": ((4,), lambda: Around(lambda part, h: part(part(h).tanh()), nn.BatchNorm1d(6))),
    "function": ((4,), lambda: Around(lambda part, h: F.batch_norm(h, None, None, training=True), nn.ReLU())),
    "compiled": ((4,), lambda: torch.compile(dense(nn.BatchNorm1d(6)), backend="eager")),
    "columns": ((4,), lambda: dense(nn.BatchNorm1d(6))),
    "not affine": ((4,), lambda: dense(nn.BatchNorm1d(6, affine=False))),
    "sequences": ((4, 5), lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(20, 3))),
    "images, all batches": (
        (1, 4, 4),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2, momentum=None), nn.Flatten(), nn.Linear(18, 3)),
    ),
    "no averages": ((4,), lambda: dense(nn.BatchNorm1d(6, track_running_stats=False))),
}


# torch.compile of 2.14 hides this warning of its own, which an error cannot be
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("batch_rows", [60, 25])
@pytest.mark.parametrize("name", NORMALISED)
def test_batch_normalisation_counts_rows_as_often_as_they_are_there(name, batch_rows):
    """As a loop of torch's does it, where equal rows are one with their weight, or the user has weighted it."""
    shape, new = NORMALISED[name]
    few, labels = data(shape, 30)
    count = np.repeat([7, 1], [5, 25])
    X, y = np.repeat(few, count, axis=0), np.repeat(labels, count)

    def make():
        with OwnNumbers(0):
            return new().double()

    module, inputs, target = make().train(), torch.from_numpy(X), torch.from_numpy(y)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    for _ in range(3):
        for start in range(0, len(y), batch_rows):
            part = slice(start, start + batch_rows)
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[part]), target[part]).backward()
            optimizer.step()
    clf = TorchClassifier(make, **{**PLAIN, **STEPS, "batch_size": batch_rows}, max_iter=3)
    fits = [clone(clf).fit(X, y)]
    if batch_rows == len(y):
        fits.append(clone(clf).set_params(batch_size=len(few)).fit(few, labels, sample_weight=count))
    for fitted in fits:
        for key, value in module.state_dict().items():
            torch.testing.assert_close(fitted.module_.state_dict()[key], value, rtol=1e-10, atol=1e-12)


def test_checkpoints_know_of_no_weights():
    def normalise(part, hidden):
        return checkpoint(part, hidden, use_reentrant=False)

    (X, y), clf = data((4,), 20), TorchClassifier(lambda: Around(normalise, nn.BatchNorm1d(6)), max_iter=1)
    clf.fit(X, y)
    with pytest.raises(ValueError, match=r"a torch.utils.checkpoint, .* or without weights and equal rows"):
        clf.fit(X, y, sample_weight=np.arange(20) + 1)


def test_batches_of_one_row():
    X, y = data((4,), 20)
    with pytest.raises(ValueError, match=r"batch_size=1 is not enough for a module with BatchNorm1d.*LayerNorm"):
        TorchClassifier(lambda: dense(nn.BatchNorm1d(6)), batch_size=1).fit(X, y)
    TorchClassifier(lambda: dense(nn.LayerNorm(6)), batch_size=1, max_iter=1).fit(X, y)
    images = X.reshape(-1, 1, 2, 2)  # a channel has four values in a row
    conv = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    TorchClassifier(lambda: copy.deepcopy(conv), batch_size=1, max_iter=1).fit(images, y)
    for new in (lambda: dense(nn.BatchNorm1d(6)), NORMALISED["by keyword"][1]):
        clf = TorchClassifier(new, random_state=0)
        for row in range(3):
            clf.partial_fit(X[row : row + 1], y[row : row + 1], classes=range(3))
    with pytest.raises(ValueError, match="cannot train on a batch of one row"):
        no_averages = TorchClassifier(lambda: dense(nn.BatchNorm1d(6, track_running_stats=False)), batch_size=19)
        no_averages.fit(X, y)


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 11, 20])
def test_few_rows_are_a_batch_of_their_own_in_prediction(n_rows):
    """They were filled up with some of them, which counted twice in averages over the batch."""
    X, y = data((4,), 20)
    clf = TorchClassifier(lambda: dense(nn.BatchNorm1d(6, track_running_stats=False)), max_iter=1, random_state=0)
    module = clf.fit(X, y).module_.eval()
    with torch.no_grad():
        rows = torch.from_numpy(X[:n_rows].repeat(1 + (n_rows == 1), axis=0)).to(next(module.parameters()))
        own = module(rows)[:n_rows].numpy()  # by itself, it refuses a single one
    np.testing.assert_allclose(clf.decision_function(X[:n_rows]), own, rtol=1e-4, atol=1e-5)


# ---- torch's settings -----------------------------------------------------------------------------------------------


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


#: Two at a time, which have nothing to do with each other.
SETTINGS = {
    "float64, threads": (lambda: default_dtype(torch.float64), lambda: threads(2)),
    "bfloat16, deterministic": (lambda: default_dtype(torch.bfloat16), deterministic),
    "meta, no_grad": (lambda: default_device("meta"), torch.no_grad),
    "meta context, inference": (lambda: torch.device("meta"), torch.inference_mode),
    "cpu, autocast": (lambda: default_device("cpu"), lambda: torch.autocast("cpu", torch.bfloat16)),
}


def seen():
    return (
        torch.get_default_dtype(),
        torch.empty(0).device,  # torch.get_default_device fails in torch 2.6 after a reset
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist()[:24],
    )


SMALL = {"max_iter": 3, "random_state": 0, "tol": 0.0}
ESTIMATORS = [
    SoftmaxClassifier(random_state=0),
    configured(SoftmaxClassifier, solver=Adam(precision="float32", batch_size=16), **SMALL),
    configured(SigmoidClassifier, solver=SGD(learning_rate="auto"), calibration="sigmoid", **SMALL),
    configured(HingeClassifier, **SMALL),
    configured(HingeClassifier, solver="sgd", penalty="l1", **SMALL),
    LeastSquaresClassifier(calibration="temperature", random_state=0),
    configured(LeastSquaresClassifier, solver="adamw", early_stopping=True, **SMALL),
    MLPClassifierTorch((5,), dropout=0.1, normalization="batch", early_stopping=True, **SMALL),
    MLPClassifierTorch((5,), "prelu", solver="sgd", precision="float32", calibration="temperature", **SMALL),
    MLPClassifierTorch((5,), solver="lbfgs", **SMALL),
    MLPEnsembleClassifier(2, (5,), **SMALL),
    TorchClassifier(lambda: dense(nn.BatchNorm1d(6), nn.Dropout(0.2)), **SMALL),
    TorchClassifier(lambda: dense(nn.Tanh()).float(), solver="lbfgs", early_stopping=True, **SMALL),
]


@cache
def scores_under_torchs_own_settings(index):
    X, y = data((4,), 60)
    return copy.copy(ESTIMATORS[index]).fit(X, y).decision_function(X)


@pytest.mark.filterwarnings("ignore:.*temperature")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{type(e).__name__}-{ESTIMATORS.index(e)}")
def test_torchs_settings_make_no_difference_and_are_kept(estimator, setting):
    X, y = data((4,), 60)
    expected = scores_under_torchs_own_settings(ESTIMATORS.index(estimator))
    one, other = SETTINGS[setting]
    with one(), other():
        before = seen()
        clf = copy.copy(estimator).fit(X, y)
        assert seen() == before
        found = clf.decision_function(X)
        if hasattr(clf, "predict_proba"):
            np.testing.assert_allclose(clf.predict_proba(X).sum(1), 1, rtol=1e-6)
        reconfigured(copy.copy(clf), **{"warm_start": True} if "warm_start" in clf.get_params() else {}).fit(X, y)
        clf.predict(X)
        assert seen() == before
    if isinstance(estimator, TorchClassifier) and setting.startswith(("float64", "bfloat16")):  # it begins elsewhere
        own = torch.float64 if setting.startswith("float64") and estimator.solver == "adam" else torch.float32
        assert {p.dtype for p in clf.module_.parameters()} == {own}
        assert np.isfinite(found).all()
    else:
        single = settings_of(estimator).precision == "float32"
        rounding = 1e-3 if isinstance(estimator, TorchClassifier) else 1e-5 if single else 1e-9
        np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding)


# ---- what cannot be trained -----------------------------------------------------------------------------------------


class Bare(nn.Module):
    """Scores from a single parameter of any shape."""

    def __init__(self, shape, numbers=lambda scores: scores):
        super().__init__()
        self.weight, self.numbers = nn.Parameter(torch.full(shape, 0.1)), numbers

    def forward(self, x):
        return self.numbers(torch.stack([self.weight.sum() * x.sum(1), x[:, 0], self.weight.sum() * x[:, 1]], 1))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2), (1, 2, 1, 2)], ids=str)
@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "lbfgs"])
def test_parameters_of_any_shape(shape, solver):
    X, y = data((4,))
    clf = TorchClassifier(Bare, {"shape": shape}, solver=solver, alpha=0.1, max_iter=3, max_grad_norm=1.0).fit(X, y)
    assert clf.module_.weight.shape == shape
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (lambda scores: scores.to(torch.complex64), "real floating-point"),
        (lambda scores: scores.argmax(1, keepdim=True).expand(-1, 3), "real floating-point"),
        (lambda scores: scores * torch.nan, "not finite before any training"),
        (lambda scores: scores.detach(), "do not depend on any of its trainable"),
        (lambda scores: scores[:, 0], r"shape \(n, 3\)"),
        (lambda scores: (scores, scores), r"shape \(n, 3\).*tuple"),
    ],
    ids=["complex", "integers", "nan", "detached", "one axis", "pair"],
)
def test_scores_that_are_none(numbers, message):
    with pytest.raises(ValueError, match=message):
        TorchClassifier(lambda: Bare((), numbers)).fit(*data((4,)))


class Experts(nn.Module):
    """Each row goes to the expert that its last value names: few batches have rows for all three."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([dense() for _ in range(3)])
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        scores = x.new_zeros(len(x), 3)
        for number, expert in enumerate(self.experts):
            rows = (x[:, 3] == number).nonzero().squeeze(1)
            if len(rows):
                scores = scores.index_add(0, rows, expert(x[rows]))
        return scores


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_parts_that_a_batch_does_not_use_go_on_by_momentum_and_penalty(solver):
    """As in torch where gradients are zeroed, not dropped."""
    X, y = data((4,))
    X[:, 3] = np.arange(len(X)) // 20  # with batches of 16, in order: experts 0, 0 and 1, 1 and 2
    alpha, batch_size, n_epochs = 0.5, 16, 4

    def make():
        with OwnNumbers(0):
            return Experts().double()

    params = {**PLAIN, **(STEPS if solver == "sgd" else {"learning_rate_init": 0.02})}
    clf = TorchClassifier(make, max_iter=n_epochs, **params | {"alpha": alpha, "solver": solver}).fit(X, y)
    module = make().train()
    own = {"sgd": lambda p: torch.optim.SGD(p, 0.02, 0.9), "adam": lambda p: torch.optim.Adam(p, 0.02)}
    optimizer = own[solver](module.parameters())
    for _ in range(n_epochs):
        for rows in np.split(np.arange(len(X)), range(batch_size, len(X), batch_size)):
            for p in module.parameters():
                p.grad = torch.zeros_like(p)
            penalty = sum((p**2).sum() for p in module.parameters() if p.ndim > 1) * alpha / 2 / batch_size
            (F.cross_entropy(module(torch.from_numpy(X[rows])), torch.from_numpy(y[rows])) + penalty).backward()
            optimizer.step()
    for found, expected in zip(clf.module_.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not torch.equal(clf.module_.unused.weight, make().unused.weight)


class By(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize(
    ("end", "name"),
    [
        (nn.Softmax(1), "a softmax"),
        (nn.ReLU(inplace=True), "ReLU"),
        (By(lambda x: x.softmax(1)), "a softmax"),
        (By(lambda x: F.sigmoid(x).reshape(-1, 3)), "a sigmoid"),
        (By(torch.tanh), "tanh"),
        (By(lambda x: F.hardtanh(x).add_(x)), None),
        (By(lambda x: 0 * x + 1 / 3), None),
        (nn.LogSoftmax(1), None),
        (nn.LeakyReLU(), None),
    ],
)
def test_scores_with_bounds_are_warned_of(end, name):
    """Softmax and sigmoid are in the loss: where a module has them, too, no probability comes near one."""
    X, y = data((4,))

    def ends(values):
        return nn.Sequential(nn.Linear(4, values), copy.deepcopy(end))

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        TorchClassifier(ends, {"values": 3}, **PLAIN, max_iter=1).fit(X, y)
        TorchRegressor(ends, {"values": 3}, **PLAIN, max_iter=1, standardize_targets=False).fit(X, X[:, :3])
        TorchRegressor(ends, {"values": 3}, **PLAIN, max_iter=1).fit(X, X[:, :3])
    told = [str(w.message) for w in heard if "module ends in" in str(w.message)]
    assert all(w.filename == __file__ for w in heard if "module ends in" in str(w.message))
    if name is None:
        assert told == []
    else:
        assert len(told) == 2 and all(f"module ends in {name}, so" in text for text in told)
        assert "raw scores" in told[0] and "standardize_targets=False" in told[1]


def test_how_a_module_is_called_is_told():
    X, y = data((4,))
    shape = {"in_features": 4, "out_features": 3}
    for params, fault in ((None, "missing a required argument: 'in_features'"), ({**shape, "width": 3}, "'width'")):
        with pytest.raises(TypeError, match=rf"{fault}.* module__name\), .*\(in_features: int"):
            TorchClassifier(nn.Linear, params).fit(X, y)
    with pytest.raises(ValueError, match=r"negative dimension.* arguments, \{'in_features': 4, 'out_features': -3\}"):
        TorchClassifier(nn.Linear, {"in_features": 4, "out_features": -3}).fit(X, y)
    with pytest.raises(ValueError, match=r"returned \(2,\)\. scores.unsqueeze\(1\) has that shape"):
        TorchClassifier(lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))).fit(X, y > 0)


def test_modules_without_anything_to_train():
    X, y = data((4,))
    for make in (nn.Identity, lambda: dense().requires_grad_(False)):
        with pytest.raises(ValueError, match=r"shape|no trainable parameters"):
            TorchClassifier(make).fit(X, y)
    clf = TorchClassifier(dense, **PLAIN, max_iter=2).fit(X, y)
    expected = clf.predict_proba(X)
    clf.module_.requires_grad_(False)  # a model that is frozen still predicts
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    clf.module_[1].requires_grad_(True)
    clf.partial_fit(X, y)
    complex_one = nn.Linear(4, 3)
    complex_one.extra = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="complex parameters"):
        TorchClassifier(lambda: complex_one).fit(X, y)
    shared = dense()
    with pytest.raises(ValueError, match="has trained already"):
        TorchClassifier(lambda: shared, calibration="temperature", max_iter=1).fit(X, y)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # of whichever category: it depends on the version
@pytest.mark.parametrize(
    "program",
    [
        torch.jit.script,
        lambda module: torch.jit.trace(module, torch.zeros(2, 4)),
        lambda module: torch.jit.freeze(torch.jit.script(module.eval())),
        lambda module: nn.Sequential(torch.jit.script(module), nn.Identity()),
        lambda module: torch.export.export(module, (torch.zeros(2, 4),)).module(),
    ],
    ids=["script", "trace", "freeze", "part", "export"],
)
def test_programs_are_refused_with_the_way_out(program):
    X, y = data((4,))
    with pytest.raises(ValueError, match=r"(?s)module (has|cannot) .* It must be an ordinary module, returned before"):
        TorchClassifier(lambda: program(dense()), max_iter=1).fit(X, y)
    with pytest.raises(TypeError, match="or a function that makes and returns it: each fit starts with a new one"):
        TorchClassifier(torch.jit.script(dense()), max_iter=1).fit(X, y)


@pytest.mark.parametrize("between", [(), (nn.Dropout(0.3),), (nn.BatchNorm1d(6),)], ids=["plain", "dropout", "norm"])
def test_a_compiled_module_is_what_it_was_made_of(between):
    def compiled():
        return torch.compile(dense(*copy.deepcopy(between)), backend="eager")

    X, y = data((4,), 33)  # a last batch of one row
    plain, other = (
        TorchClassifier(make, **PLAIN, max_iter=4, early_stopping=True, warm_start=True).fit(X, y).fit(X, y)
        for make in (lambda: dense(*copy.deepcopy(between)), compiled)
    )
    np.testing.assert_allclose(other.predict_proba(X), plain.predict_proba(X), rtol=1e-5)
    assert other.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-5)
    np.testing.assert_array_equal(copy.deepcopy(other).predict_proba(X), other.predict_proba(X))


def test_what_the_user_passes_stays_as_it_is():
    X, y = data((4,))
    X = X.astype(np.float32)
    kept, params = X.copy(), {"shape": [3], "numbers": torch.clone}
    TorchClassifier(Bare, params, shuffle=False, max_iter=2).fit(X, y)
    assert params == {"shape": [3], "numbers": torch.clone}
    inplace = TorchClassifier(MODULES["in_place"][0], shuffle=False, max_iter=3, early_stopping=True, alpha=0.0)
    inplace.fit(X, y).predict(X)
    inplace.predict(torch.from_numpy(X))
    np.testing.assert_array_equal(X, kept)


def test_callbacks_may_keep_what_they_are_given():
    """The estimators of past epochs stay as they were, while the module goes on training where it is."""
    clf = TorchClassifier(dense, **PLAIN, max_iter=2)
    network = clf.fit(*data((4,)))._trained_network(torch.device("cpu"), torch.float32)
    kept = clf._learned(network.snapshot(), 0, np.dtype(float), OutputSpace(np.empty(0)))["module_"]
    before = kept[0].weight.detach().clone()
    clf.partial_fit(*data((4,)))
    assert torch.equal(kept[0].weight, before)
    assert not torch.equal(clf.module_[0].weight, before)


def test_activations_do_not_stay_with_their_graph():
    X, y = data((4,))
    clf = TorchClassifier(Keeps, **PLAIN, max_iter=2).fit(X, y)
    assert clf.module_.h.grad_fn is None
    assert clf.module_.kept["raw"][0].grad_fn is None
    assert clf.module_.count == 6


def test_what_compiles_modules_is_not_imported_for_those_that_are_not():
    """It takes a hundred times as long as a fit; and it does not compile what is between operations."""
    program = """
import sys, warnings
import numpy as np, torch
from skdeep import TorchClassifier

warnings.simplefilter("ignore")

def made(n_features, n_outputs):
    return torch.nn.Sequential(torch.nn.Linear(n_features, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, n_outputs))

def fitted(make):
    return TorchClassifier(make, max_iter=2, random_state=0).fit(X, y).predict_proba(X)

X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
plain = fitted(made)
assert "torch._dynamo" not in sys.modules
compiled = fitted(lambda: torch.compile(made(3, 3), backend="eager"))
assert "torch._dynamo" in sys.modules
frames = torch._dynamo.utils.counters["frames"]["total"]
np.testing.assert_array_equal(fitted(made), plain)
np.testing.assert_array_equal(compiled, plain)
assert torch._dynamo.utils.counters["frames"]["total"] == frames
"""
    process = forking().Process(target=exec, args=(program, {}))
    process.start()
    process.join()
    assert process.exitcode == 0
