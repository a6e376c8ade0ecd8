"""The precision of training: what it is of, what it costs, and where there is none."""

import pickle

import numpy as np
import pytest
import torch
from helpers import configured, reconfigured, set_constant
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skdeep import SGD, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.engine.batching import Batch
from skdeep.engine.gradients import loss_and_gradient
from skdeep.engine.losses import Softmax
from skdeep.engine.networks import Linear
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import SparseRows
from skdeep.fitting.choices import DTYPES
from skdeep.fitting.settings import settings_of

ESTIMATORS = [SoftmaxClassifier, HingeClassifier, MLPClassifierTorch]
X, X_TEST, Y, Y_TEST = train_test_split(*load_digits(return_X_y=True), random_state=0)
K, B, D, C = 3, 40, 20, 5


def watched(monkeypatch):
    """Dtypes of the parameters that are trained, of the scores, and of the gradients."""
    seen = set()
    step = loss_and_gradient

    def spy(network, *args):
        value, gradients = step(network, *args)
        seen.update(t.dtype for t in (*network.params, *gradients, value))
        return value, gradients

    monkeypatch.setattr("skdeep.engine.training.loss_and_gradient", spy)
    return seen


@pytest.mark.parametrize(("precision", "dtype"), DTYPES.items())
@pytest.mark.parametrize("input_dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_parameters_and_losses_have_the_precision_asked_for(cls, input_dtype, precision, dtype, monkeypatch):
    seen = watched(monkeypatch)
    model = configured(cls, precision=precision, batch_size=200, max_iter=2, random_state=0).fit(
        X.astype(input_dtype), Y
    )
    assert seen == {dtype}
    coef = model.coefs_[0] if hasattr(model, "coefs_") else model.coef_
    assert coef.dtype == (np.float32 if input_dtype == "float32" else np.float64)
    assert model.decision_function(X).dtype == np.float64


@pytest.mark.parametrize(("work", "dtype"), [(10**9, torch.float64), (1, torch.float32)])
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_auto_is_by_the_work(cls, work, dtype, monkeypatch):
    set_constant(monkeypatch, "_FREE_FLOAT64", work)
    seen = watched(monkeypatch)
    configured(cls, batch_size=200, max_iter=1).fit(X, Y)
    assert seen == {dtype}


def batches():
    generator = torch.Generator().manual_seed(0)
    shared, own = torch.randn(B, D, generator=generator), torch.randn(K, B, D, generator=generator)
    target = torch.randint(0, C, (1, B), generator=generator)
    yield "shared", Batch(shared, target, None, B, None)
    yield "own", Batch(own, target.expand(K, B), None, B, None)
    rows = SparseRows(sparse.csr_array(shared.numpy()), torch.device("cpu"), torch.float32)
    yield "sparse", Batch(rows.take(slice(None)), target, None, B, None)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_products_of_stacks_in_bfloat16(kind):
    """Rounded by 2⁻⁹ or so, and in fact rounded: each kind of dense batch takes the same road as the plain one."""
    if kind == "mlp":
        network = MLP.initial([np.random.default_rng(k) for k in range(K)], [D, 16, C], "tanh", dtype=torch.float32)
    else:
        center, scale = np.full((1, D), 0.5), np.full((1, D), 2.0)
        network = Linear(torch.randn(K, C, D) / 10, torch.randn(K, C), center, scale)
    for name, batch in batches():
        exact = loss_and_gradient(network, Softmax(), batch, np.ones(K))
        rounded = loss_and_gradient(network, Softmax(), batch, np.ones(K), torch.bfloat16)
        torch.testing.assert_close(rounded[0].sum(1), exact[0].sum(1), rtol=0.02, atol=0)
        differs = []
        for a, b in zip(rounded[1], exact[1], strict=True):
            assert a.dtype is torch.float32
            assert (a - b).norm() < 0.03 * b.norm()
            differs.append(bool((a - b).norm() > 1e-5 * b.norm()))
        # products with sparse rows stay in float32
        assert any(differs) != (name == "sparse" and kind == "linear")


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_models_are_as_good_in_bfloat16(cls):
    params = {"max_iter": 30, "random_state": 0}
    exact, rounded = (configured(cls, precision=p, **params).fit(X, Y) for p in ("float32", "bfloat16"))
    assert abs(exact.score(X_TEST, Y_TEST) - rounded.score(X_TEST, Y_TEST)) < 0.012
    losses = [log_loss(Y_TEST, model.predict_proba(X_TEST)) for model in (exact, rounded)]
    assert abs(losses[0] - losses[1]) < 0.02


def test_the_center_is_not_rounded():
    """Columns far from zero: what bfloat16 loses of X is lost, but not of the intercept that makes up for them."""
    far = np.round(X) + 64  # exact in bfloat16
    model = SoftmaxClassifier(alpha=1e-4, solver=SGD(precision="bfloat16"), max_iter=30, random_state=0).fit(
        far.astype("f4"), Y
    )
    assert model.score(X_TEST + 64, Y_TEST) > 0.9


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_lbfgs_has_no_bfloat16(cls):
    model = configured(cls, solver="lbfgs", precision="bfloat16")
    reconfigured(model, **({"loss": "squared_hinge", "multi_class": "ovr"} if cls is HingeClassifier else {}))
    with pytest.raises(ValueError, match="precision='float32', or solver='sgd'"):
        model.fit(X, Y)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_unknown_precision(cls):
    with pytest.raises(ValueError, match="'precision' parameter"):
        configured(cls, precision="float16").fit(X, Y)


@pytest.mark.parametrize("after", DTYPES)
@pytest.mark.parametrize("before", DTYPES)
@pytest.mark.parametrize("cls", ESTIMATORS)
def test_going_on_in_another_precision(cls, before, after, monkeypatch):
    """Clones, copies through pickle, warm starts and increments take the precision that is set now."""
    calibration = {"calibration": None} if cls is HingeClassifier else {}
    model = configured(cls, precision=before, max_iter=3, random_state=0, warm_start=True, **calibration).fit(X, Y)
    assert settings_of(clone(model)).precision == before
    model = reconfigured(pickle.loads(pickle.dumps(model)), precision=after)
    first = model.loss_
    seen = watched(monkeypatch)
    model.fit(X, Y)
    model.partial_fit(X, Y)
    assert seen == {DTYPES[after]}
    assert model.loss_ < first


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_predictions_do_not_depend_on_the_parameter(cls):
    model = configured(cls, precision="float64", max_iter=2, random_state=0).fit(X, Y)
    scores = model.decision_function(X)
    for precision in DTYPES:
        np.testing.assert_array_equal(reconfigured(model, precision=precision).decision_function(X), scores)


@pytest.mark.parametrize("factor", [2.0**130, 2.0**-200])
@pytest.mark.parametrize("cls", [SoftmaxClassifier, MLPClassifierTorch])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_weights_that_float32_has_no_room_for(cls, factor, early_stopping):
    """The same model as of weights with a common factor."""
    X, y = load_digits(n_class=3, return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    params = {"solver": "sgd", "precision": "float32", "alpha": 0, "max_iter": 3, "tol": 1}
    params |= {"early_stopping": early_stopping, "random_state": 0}
    plain, other = (configured(cls, **params).fit(X, y, weight * own) for own in (1.0, factor))
    np.testing.assert_array_equal(other.predict_proba(X), plain.predict_proba(X))
    if early_stopping:
        assert other.validation_scores_ == plain.validation_scores_
