"""The steps of small networks: rows standardised once, no books of autograd's, and the default schedule."""

import numpy as np
import pytest
import torch
from helpers import set_constant
from scipy import sparse
from sklearn.datasets import load_iris

from skdeep import Adam, MLPClassifierTorch, MLPEnsembleClassifier, compare
from skdeep.engine import training
from skdeep.engine.batching import Batch
from skdeep.engine.gradients import loss_and_gradient
from skdeep.engine.input_layer import Standardization
from skdeep.engine.losses import Logistic
from skdeep.engine.networks import Linear
from skdeep.engine.per_model import number, per_model

X, Y = load_iris(return_X_y=True)
FORMS = {
    "plain": {},
    "no factors on columns": {"column_learning_rate": 0},
    "autograd's activation": {"activation": "selu"},
    "normalisation": {"normalization": "layer"},
    "dropout": {"dropout": 0.2},
    "blocks": {"hidden_layer_sizes": (8, 8), "stochastic_depth": 0.2},
    "sgd": {"solver": "sgd"},
    "a proximal step": {"solver": "adamw"},
}


def small(**params):
    return MLPClassifierTorch(**{"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0} | params)


@pytest.mark.parametrize("form", FORMS)
def test_rows_standardised_once_or_in_each_batch(form, monkeypatch):
    rows, labels, found = np.tile(X, (8, 1)), np.tile(Y, 8), []
    known = Standardization.all_at_once

    def watched(self, rows):
        found.append(known(self, rows))
        return found[-1]

    monkeypatch.setattr(Standardization, "all_at_once", watched)
    at_once = small(**FORMS[form]).fit(rows, labels)
    set_constant(monkeypatch, "MAX_VALUES", 4000)  # a batch, but not all rows
    one_by_one = small(**FORMS[form]).fit(rows, labels)
    assert [values is None for values in found] == [False, True]
    np.testing.assert_allclose(at_once.decision_function(X), one_by_one.decision_function(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_each_split_standardised_once_or_in_each_batch(form, monkeypatch):
    """Models of a stack with columns of their own: as many looks at rows as models, or as steps."""
    rows, labels, found, looks = np.tile(X, (8, 1)), np.tile(Y, 8), [], []
    known, look = Standardization.of_each, Standardization._rows

    def watched(self, rows, index, n_alike):
        assert [len(own) for own in index] == [960, 960, 960, 960, 960]
        found.append(known(self, rows, index, n_alike))
        return found[-1]

    monkeypatch.setattr(Standardization, "of_each", watched)
    monkeypatch.setattr(Standardization, "_rows", lambda self, X: looks.append(len(looks)) or look(self, X))
    models = {"one": small(**FORMS[form])}
    at_once = compare(models, rows, labels, scoring=["neg_log_loss"])
    n_looks = len(looks)
    set_constant(monkeypatch, "MAX_VALUES", 4000)  # a batch, but not all rows
    one_by_one = compare(models, rows, labels, scoring=["neg_log_loss"])
    assert [values is None for values in found] == [False, True]
    assert n_looks < (len(looks) - n_looks) / 3
    expected, scores = (of.scores["neg_log_loss"]["one"] for of in (one_by_one, at_once))
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_steps_without_the_books_of_autograd_are_the_same(form, monkeypatch):
    without = small(**FORMS[form]).fit(X, Y)
    monkeypatch.setattr("skdeep.engine.perceptron.MLP.asks_autograd", lambda self, rows: True)
    kept = small(**FORMS[form]).fit(X, Y)
    np.testing.assert_array_equal(without.decision_function(X), kept.decision_function(X))


def test_what_steps_leave_behind_suits_autograd():
    """Kept numbers and memory are no inference tensors, which autograd refuses."""
    with torch.inference_mode():
        like = torch.zeros(2, 3, dtype=torch.float64)
        kept = number(0.123, like), per_model(np.array([0.25, 0.5]), like)
    leaf = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    (kept[0] * kept[1] * leaf).sum().backward()
    assert leaf.grad is not None
    model = small(early_stopping=True, validation_fraction=0.3).fit(X, Y)  # whose epochs are watched in between
    assert len(model.validation_scores_) == 3
    assert np.isfinite(small().fit(sparse.csr_array(X), Y).loss_)


@pytest.mark.parametrize(
    ("params", "rate"),
    [
        ({}, 0.4 / 80**0.5),
        ({"hidden_layer_sizes": ()}, 0.4 / 80**0.5),
        ({"hidden_layer_sizes": (4, 4)}, 0.2 / 80**0.5),
        ({"hidden_layer_sizes": (4,) * 5, "solver": Adam()}, 0.08 / 80**0.5),
        ({"learning_rate": "constant"}, 0.003),
        ({"learning_rate": "cosine", "hidden_layer_sizes": (4, 4)}, 0.003),
        ({"learning_rate_init": 0.05}, 0.05),
    ],
)
def test_the_rate_at_the_start(params, rate):
    rates = []
    step = training._Stack.step

    def watched(self, *args, **options):
        rates.append(self.optimizer.learning_rate[0])
        return step(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Stack, "step", watched)
        small(**params).fit(X, Y)
        assert np.allclose(rates, rate, rtol=1e-12)
        rates.clear()
        small(**params).partial_fit(X, Y, [0, 1, 2])
        assert np.allclose(rates, params.get("learning_rate_init", 0.003), rtol=1e-12)


def test_the_default_schedule_is_epochs_or_steps():
    assert MLPClassifierTorch((2,)).fit(X[:64], Y[:64]).n_iter_ == 80  # one batch
    slower = MLPClassifierTorch((2,), learning_rate_init=0.003, max_iter=600)
    assert slower.fit(X[:64], Y[:64]).n_iter_ == 500
    many = np.tile(X, (6, 1)), np.tile(Y, 6)
    assert MLPClassifierTorch((2,), random_state=0).fit(*many).n_iter_ == 17  # clean: 10 √3
    noisy = many[0], np.random.default_rng(0).permutation(many[1])
    assert MLPClassifierTorch((2,), random_state=0).fit(*noisy).n_iter_ == 10
    assert MLPClassifierTorch((2,), random_state=0, max_iter=7).fit(*many).n_iter_ == 7
    assert MLPEnsembleClassifier().learning_rate_init == 0.003


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_a_model_is_sure_of_have_no_gradient(dtype, monkeypatch):
    """Numbers below the least normal one, which come of them, take a hundred times as long."""
    passed = []
    known = Linear.gradient
    monkeypatch.setattr(Linear, "gradient", lambda self, s, X, g: passed.append(g) or known(self, s, X, g))
    network = Linear(torch.ones(1, 1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype))
    far = np.log(torch.finfo(dtype).tiny)  # where the sigmoid is next to nothing
    X = torch.tensor([[far], [0.9 * far], [0.7 * far], [1.0], [np.nan]], dtype=dtype)
    loss_and_gradient(network, Logistic(), Batch(X, torch.zeros(1, 5, 1, dtype=dtype), None, 5, None), np.ones(1))
    sure, _, less, unsure, none = passed[0].ravel().tolist()
    assert sure == 0 and 0 < less < 1e-20 and unsure == pytest.approx(torch.sigmoid(X[3]).item() / 5) and none != none
