"""TorchClassifier: a user's module, with everything that the other classifiers have."""

import pickle

import numpy as np
import pytest
import torch
from helpers import reconfigured, set_constant
from scipy import sparse
from sklearn import model_selection as reference
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Checkpoint, EpochScoring, Freezer, GradientNormClipping
from torch import nn

from skdeep import MLPClassifierTorch, TorchClassifier
from skdeep import model_selection as ours
from skdeep.model_selection import StackingWarning

DIGITS, Y = load_digits(return_X_y=True)
IMAGES = DIGITS.reshape(-1, 1, 8, 8) / 16
IRIS = StandardScaler().fit_transform(load_iris().data), load_iris().target


class ConvNet(nn.Sequential):
    def __init__(self, n_outputs, width=16, dropout=0.1):
        block = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        super().__init__(*block, nn.Flatten(), nn.Dropout(dropout), nn.LazyLinear(n_outputs))


class Perceptron(nn.Sequential):
    def __init__(self, n_features, n_outputs, hidden=8):
        super().__init__(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))


CONV = TorchClassifier(ConvNet, learning_rate_init=0.01, max_iter=10, tol=1e-2, random_state=0)
SMALL = clone(CONV).set_params(module__width=4, max_iter=3)
DENSE = TorchClassifier(Perceptron, learning_rate_init=0.05, max_iter=60, random_state=0)


@pytest.mark.slow
def test_a_convolutional_network_reads_digits():
    train, test, y_train, y_test = reference.train_test_split(IMAGES, Y, stratify=Y, random_state=0)
    clf = clone(CONV).fit(train, y_train)
    assert clf.score(test, y_test) > 0.95
    assert clf.input_shape_ == (1, 8, 8)
    assert not clf.module_.training
    with torch.no_grad():
        scores = clf.module_(torch.from_numpy(test).float())
    np.testing.assert_allclose(clf.predict_proba(test), scores.softmax(1), atol=1e-5)
    # rows as vectors, and copies of the model, predict the same
    np.testing.assert_array_equal(clf.predict_proba(test.reshape(len(test), -1)), clf.predict_proba(test))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(test), clf.predict_proba(test))
    assert not hasattr(clone(clf), "module_")


def test_the_same_steps_as_the_mlp():
    """From the same parameters, in float64: the loop, the loss and the penalty are the same."""
    X, y = IRIS
    options = {"alpha": 1.0, "batch_size": 150, "precision": "float64", "warm_start": True, "max_iter": 5}
    steps = {"learning_rate": "constant", "learning_rate_init": 0.05}
    mlp = reconfigured(MLPClassifierTorch((8,), column_learning_rate=0, random_state=0, **steps), **options).fit(X, y)
    clf = reconfigured(clone(DENSE), **options).fit(X, y)
    with torch.no_grad():
        for layer, coef, intercept in zip((clf.module_[0], clf.module_[2]), mlp.coefs_, mlp.intercepts_, strict=True):
            layer.weight.copy_(torch.from_numpy(coef.T))
            layer.bias.copy_(torch.from_numpy(intercept))
    np.testing.assert_allclose(clf.decision_function(X), mlp.decision_function(X), atol=1e-12)
    for model in (mlp, clf):
        model._optimizer = None  # its averages are of another path
        model.fit(X, y)
    np.testing.assert_allclose(clf.loss_curve_[5:], mlp.loss_curve_[5:], atol=1e-12)
    np.testing.assert_allclose(clf.module_[0].weight.detach().numpy(), mlp.coefs_[0].T, atol=1e-12)


def test_random_numbers_follow_from_the_seed():
    """Initial parameters and dropout; torch's own generator is left as it was."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again = clone(SMALL).fit(IMAGES, Y), clone(SMALL).fit(IMAGES, Y)
    other = clone(SMALL).set_params(random_state=1).fit(IMAGES, Y)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first.predict_proba(IMAGES), again.predict_proba(IMAGES))
    assert np.abs(first.predict_proba(IMAGES) - other.predict_proba(IMAGES)).max() > 1e-3


def test_early_stopping_restores_buffers_too():
    clf = reconfigured(clone(SMALL), early_stopping=True, scoring="loss", learning_rate_init=0.3, max_iter=8)
    wrong = np.roll(Y[900:], 1)  # the surer the network, the worse
    clf.fit(IMAGES[:900], Y[:900], X_val=IMAGES[900:], y_val=wrong)
    assert np.argmax(clf.validation_scores_) < clf.n_iter_ - 1
    proba = clf.predict_proba(IMAGES[900:])
    assert -np.log(proba[np.arange(897), wrong]).mean() == pytest.approx(-clf.best_validation_score_, rel=1e-4)
    by_scorer = clone(SMALL).set_params(early_stopping=True, scoring="f1_macro").fit(IMAGES, Y)
    assert len(by_scorer.validation_scores_) == by_scorer.n_iter_


def test_going_on_is_not_having_stopped():
    whole, parts = (clone(SMALL).partial_fit(IMAGES, Y, classes=range(10)) for _ in range(2))
    whole.partial_fit(IMAGES, Y)
    pickle.loads(pickle.dumps(parts)).partial_fit(IMAGES, Y)  # a copy of its own
    parts.partial_fit(IMAGES, Y)
    np.testing.assert_array_equal(whole.predict_proba(IMAGES), parts.predict_proba(IMAGES))
    warm = clone(SMALL).set_params(warm_start=True, max_iter=2).fit(IMAGES, Y)
    loss = warm.loss_
    assert warm.fit(IMAGES, Y).loss_ < loss
    assert len(warm.loss_curve_) == 4


@pytest.mark.slow
def test_searches_and_cross_validation():
    """Ours trains the candidates one by one, and says so; both spellings of a module's parameter."""
    X, y = IMAGES[:300], Y[:300]
    for grid in ({"module__width": [2, 8]}, {"module_params": [{"width": 2}, {"width": 8}]}):
        theirs = reference.GridSearchCV(SMALL, grid, cv=2).fit(X, y)
        with pytest.warns(StackingWarning, match="module of its own"):
            search = ours.GridSearchCV(SMALL, grid, cv=2).fit(X, y)
        for key in ("mean_test_score", "std_test_score", "rank_test_score"):
            np.testing.assert_allclose(search.cv_results_[key], theirs.cv_results_[key])
        assert search.best_estimator_.module_[0].out_channels == 8
    assert reference.cross_val_score(clone(SMALL).set_params(max_iter=8), X, y, cv=2).mean() > 0.5
    assert "module__width" in SMALL.get_params()
    assert SMALL.get_params(deep=False)["module_params"] == {"width": 4}
    pipe = make_pipeline(StandardScaler(), DENSE).set_params(torchclassifier__module__hidden=5).fit(*IRIS)
    assert pipe[-1].module_[0].out_features == 5
    assert pipe.score(*IRIS) > 0.9


def test_two_classes_many_labels_weights_and_sparse_rows():
    X, y = IRIS
    two = clone(DENSE).fit(X[:100], y[:100])
    assert two.module_[2].out_features == two.n_outputs_ == 1
    assert two.decision_function(X[:100]).shape == (100,)
    assert two.score(X[:100], y[:100]) == 1
    labels_X, labels = make_multilabel_classification(200, n_classes=4, random_state=0)
    proba = clone(DENSE).set_params(max_iter=60, module__hidden=32).fit(labels_X, labels).predict_proba(labels_X)
    assert ((proba > 0.5) == labels).mean() > 0.8
    sparsely = clone(DENSE).fit(sparse.csr_array(X), y)
    np.testing.assert_allclose(sparsely.predict_proba(sparse.csr_array(X)), clone(DENSE).fit(X, y).predict_proba(X))
    weight = np.random.default_rng(0).integers(0, 3, 150)
    weighted = clone(DENSE).fit(X, y, sample_weight=weight)
    repeated = reconfigured(clone(DENSE), batch_size=1000).fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)
    balanced = clone(DENSE).set_params(class_weight="balanced").fit(X[:110], y[:110])
    assert (
        balanced.predict_proba(X[100:110])[:, 2].mean()
        > clone(DENSE).fit(X[:110], y[:110]).predict_proba(X[100:110])[:, 2].mean()
    )


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_precisions(precision):
    clf = reconfigured(clone(SMALL), precision=precision).fit(IMAGES, Y)
    assert clf.score(IMAGES, Y) > 0.7
    assert clf.predict_proba(IMAGES.astype(np.float32)).dtype == np.float32
    assert clf.predict_proba(IMAGES).dtype == np.float64


def test_alpha_penalises_weights_alone():
    strong = reconfigured(clone(DENSE), alpha=1e4, solver="adamw", learning_rate_init=1e-3, max_iter=200).fit(*IRIS)
    weights = [p for p in strong.module_.parameters() if p.ndim == 2]
    assert max(p.abs().max() for p in weights) < 0.05
    assert max(p.abs().max() for p in strong.module_.parameters() if p.ndim == 1) > 0.1


class Frozen(Perceptron):
    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)
        self[0].requires_grad_(False)
        self.unused = nn.Linear(3, 3)


@pytest.mark.parametrize("callbacks", [None, [GradientNormClipping(1.0)]], ids=["alone", "with callbacks"])
def test_frozen_parameters_stay(callbacks):
    one, many = (
        TorchClassifier(Frozen, alpha=10.0, max_iter=n, callbacks=callbacks, random_state=0).fit(*IRIS) for n in (1, 5)
    )
    assert torch.equal(one.module_[0].weight, many.module_[0].weight)
    assert torch.equal(one.module_[0].bias, many.module_[0].bias)
    assert not torch.equal(one.module_[2].weight, many.module_[2].weight)


def test_callbacks_meet_the_module(tmp_path):
    checkpoint = Checkpoint(dirname=tmp_path, monitor="valid_loss_best")
    callbacks = [checkpoint, EpochScoring("f1_macro", lower_is_better=False), Freezer("0.weight")]
    clf = clone(SMALL).set_params(callbacks=callbacks)
    clf.fit(IMAGES[:900], Y[:900], X_val=IMAGES[900:], y_val=Y[900:])
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    assert set(saved) == set(clf.module_.state_dict())
    assert 0 < clf.history_[-1, "f1_macro"] <= 1
    torch.testing.assert_close(saved["6.weight"], clf.module_.state_dict()["6.weight"])
    fresh = reconfigured(clone(SMALL), max_iter=1, learning_rate_init=1e-12).fit(IMAGES[:900], Y[:900])
    torch.testing.assert_close(saved["0.weight"], fresh.module_[0].weight.detach())  # where it started


def test_lbfgs():
    X, y = IRIS
    clf = reconfigured(clone(DENSE), solver="lbfgs", precision="float64", max_iter=200).fit(X, y)
    assert clf.score(X, y) > 0.97
    assert (np.diff(clf.loss_curve_) <= 1e-12).all()
    with pytest.raises(ValueError, match=r"lbfgs.*BatchNorm2d"):
        clone(SMALL).set_params(solver="lbfgs").fit(IMAGES, Y)


# ---- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (lambda: nn.Linear(4, 2), ValueError, r"raw scores of shape \(n, 3\).*returned \(2, 2\)"),
        (lambda: nn.Flatten(0), ValueError, r"raw scores of shape \(n, 3\).*returned \(8,\)"),
        (lambda: nn.LSTM(4, 3), ValueError, r"raw scores of shape \(n, 3\).*returned tuple"),
        (lambda: nn.Linear(5, 3), ValueError, r"cannot compute scores of rows of shape \(4,\)"),
        (lambda: 3, TypeError, "must make a torch.nn.Module, got int"),
        (nn.Linear(4, 3), TypeError, "Pass its class"),
        (3, ValueError, "'module' parameter"),
    ],
    ids=["columns", "axes", "tuple", "input", "no module", "instance", "no callable"],
)
def test_modules_that_do_not_fit(module, error, message):
    with pytest.raises(error, match=message):
        TorchClassifier(module).fit(*IRIS)


def test_rows_of_another_shape():
    clf = clone(SMALL).fit(IMAGES, Y)
    for rows in (IMAGES[:, :, :4], IMAGES[:, 0], IMAGES[0], IMAGES[0].tolist(), DIGITS[:, :32].reshape(-1, 1, 32)):
        with pytest.raises(ValueError, match=r"expecting rows of shape \(1, 8, 8\)"):
            clf.predict(rows)
    with pytest.raises(ValueError, match="contains NaN"):
        clf.predict(np.full((2, 1, 8, 8), np.nan))
    with pytest.raises(ValueError, match="dim <= 2 is required"):
        MLPClassifierTorch().fit(IMAGES, Y)


def test_prediction_in_bounded_batches(monkeypatch):
    """What a row takes inside the module is known, and bounds the rows at a time."""
    clf = clone(SMALL).fit(IMAGES, Y)
    assert clf._n_values >= 2 * 4 * 64 + 4 * 16
    expected, sizes = clf.predict_proba(IMAGES), []
    set_constant(monkeypatch, "MAX_VALUES", 100 * clf._n_values)
    forward = nn.Sequential.forward

    def counted(self, X):
        sizes.append(len(X))
        return forward(self, X)

    monkeypatch.setattr(nn.Sequential, "forward", counted)
    np.testing.assert_allclose(clf.predict_proba(IMAGES), expected, atol=1e-12)
    assert max(sizes) <= 100
    assert sum(sizes) == len(IMAGES)


def test_tensors():
    X = torch.from_numpy(IMAGES).float()
    clf = clone(SMALL).fit(X, Y)
    np.testing.assert_array_equal(clf.predict(X), clf.predict(IMAGES.astype(np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("labels", [Y, Y % 2, np.column_stack([Y % 2, Y > 4])], ids=["classes", "two", "labels"])
def test_temperature(labels):
    """It is fitted on rows that the fold's module has not seen, and changes probabilities alone."""
    params, X, y = {"max_iter": 12, "learning_rate_init": 0.02}, IMAGES[::4], labels[::4]
    plain = reconfigured(clone(SMALL), **params).fit(X, y)
    calibrated = clone(plain).set_params(calibration="temperature").fit(X, y)
    np.testing.assert_array_equal(calibrated.decision_function(X), plain.decision_function(X))
    scores = torch.as_tensor(np.asarray(plain.decision_function(X)), dtype=torch.float64)
    assert np.all(np.asarray(calibrated.temperature_) > 0)
    scaled = scores / torch.as_tensor(calibrated.temperature_)
    expected = scaled.softmax(-1) if labels.ndim == 1 and scores.ndim == 2 else scaled.sigmoid()
    found = calibrated.predict_proba(X)
    np.testing.assert_allclose(found if scores.ndim == 2 else found[:, 1], expected, atol=1e-5)


def test_other_calibrations_are_refused():
    with pytest.raises(ValueError, match="'calibration' parameter of TorchClassifier must be"):
        clone(SMALL).set_params(calibration="sigmoid").fit(IMAGES, Y)
