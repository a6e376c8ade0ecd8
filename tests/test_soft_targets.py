"""Targets that are probabilities: each row as often in each class as its probability says."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import (
    HingeClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.engine.losses import Softmax, smoothed
from skdeep.fitting import solving
from skdeep.model_selection import GridSearchCV

X, Y = (array[:300] for array in load_digits(return_X_y=True))
CLASSES = np.arange(10)
P = LogisticRegression(C=1e-3, max_iter=300).fit(X, Y).predict_proba(X)
SHORT = {"max_iter": 4, "random_state": 0}


@pytest.mark.parametrize("loss", [Softmax(), smoothed(Softmax(), 0.2)])
def test_loss(loss):
    """Against autograd, and the mean over the classes by their probabilities."""
    scores = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    q = torch.softmax(torch.arange(15, dtype=torch.float64).view(1, 5, 3).sin(), -1)
    value, gradient = loss.value_and_gradient(scores.detach(), q)
    by_class = torch.stack([loss.value(scores, torch.full((2, 5), c)) for c in range(3)], -1)
    torch.testing.assert_close(value, (q * by_class).sum(-1))
    (expected,) = torch.autograd.grad(loss.value(scores, q).sum(), scores)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(solver="sgd", **SHORT),
        SoftmaxClassifier(solver="adam", penalty="l1", alpha=1e-3, label_smoothing=0.1, **SHORT),
        MLPClassifierTorch((8,), **SHORT),
        TorchClassifier(lambda n_features, n_outputs: torch.nn.Linear(n_features, n_outputs), **SHORT),
    ],
)
def test_certain_probabilities_are_classes(model):
    order = RANDOM.permutation(10)  # of the columns
    expected = model.fit(X, Y).predict_proba(X)
    found = model.fit(X, np.eye(10)[Y][:, order], classes=CLASSES[order]).predict_proba(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("many", [False, True])
def test_a_row_is_in_each_class_as_often_as_its_probability_says(many):
    if many:
        rows, q, labels = X, P, CLASSES
    else:
        rows, y = load_breast_cancer(return_X_y=True)
        labels = np.array(["benign", "malignant"])
        q = LogisticRegression(C=1e-3, max_iter=3000).fit(rows, y).predict_proba(rows)
    n, c = q.shape
    model = SoftmaxClassifier(alpha=0.01, tol=1e-10, max_iter=500)
    weight = RANDOM.uniform(0.5, 2, n)
    soft = model.fit(rows, q, sample_weight=weight, classes=labels).coef_
    repeated = model.fit(np.repeat(rows, c, 0), np.tile(labels, n), (weight[:, None] * q).ravel()).coef_
    np.testing.assert_allclose(soft, repeated, rtol=1e-5, atol=1e-8)


def test_weights_are_repetition():
    weight = RANDOM.integers(0, 3, len(X))
    again = np.repeat(np.arange(len(X)), weight)
    model = MLPClassifierTorch((8,), early_stopping=True, solver="lbfgs", **SHORT)
    weighted = model.fit(X, P, sample_weight=weight, classes=CLASSES).predict_proba(X)
    repeated = model.fit(X[again], P[again], classes=CLASSES).predict_proba(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6, atol=1e-9)


def test_early_stopping_goes_by_the_probabilities():
    model = MLPClassifierTorch((8,), early_stopping=True, scoring="loss", max_iter=6, random_state=0)
    model.fit(X, P, classes=CLASSES, X_val=X, y_val=P)
    found = -(P * model.predict_log_proba(X)).sum(1).mean()
    assert found == pytest.approx(-model.best_validation_score_, rel=1e-5)
    hard = model.fit(X, P, classes=CLASSES, X_val=X, y_val=np.eye(10)[Y])
    of_classes = -np.log(hard.predict_proba(X)[np.arange(300), Y]).mean()
    assert of_classes == pytest.approx(-hard.best_validation_score_, rel=1e-5)


def test_an_ensemble_of_them():
    model = MLPEnsembleClassifier(
        hidden_layer_sizes=(32,), n_estimators=3, calibration=None, max_iter=60, random_state=0
    )
    model.fit(X, P, classes=CLASSES)
    assert model.oof_score_ > 0.8 and model.score(X, Y) > 0.8


def test_warm_start_goes_on():
    model = MLPClassifierTorch((8,), warm_start=True, **SHORT).fit(X, P, classes=CLASSES)
    first = model.loss_
    assert model.fit(X, P, classes=CLASSES).loss_ < first
    with pytest.raises(ValueError, match="same classes"):
        model.fit(X, P, classes=CLASSES + 1)


@pytest.mark.parametrize("front", [False, True])
def test_searches_stack(front):
    def expected_log_proba(model, X, q):
        return (q * model.predict_log_proba(X)).sum(1).mean()

    model, name = SoftmaxClassifier(solver="sgd", **SHORT), ""
    if front:
        model, name = make_pipeline(StandardScaler(), model), "softmaxclassifier__"
    options = {"cv": KFold(3, shuffle=True, random_state=0), "scoring": expected_log_proba}
    fitted = [
        kind(model, {f"{name}alpha": [1e-3, 1e-1]}, **options).fit(X, P, **{f"{name}classes": CLASSES})
        for kind in (GridSearchCV, model_selection.GridSearchCV)
    ]
    ours, plain = (search.cv_results_["mean_test_score"] for search in fitted)
    np.testing.assert_allclose(ours, plain, rtol=1e-9)


@pytest.mark.parametrize(
    "model, table, classes, said",
    [
        (HingeClassifier(), P, CLASSES, "learns classes, not probabilities"),
        (SigmoidClassifier(), P, CLASSES, "learns classes, not probabilities"),
        (SoftmaxClassifier(), 2 * P, CLASSES, "(?s)Row 0 of y is .* whose sum is one"),
        (SoftmaxClassifier(), P - 0.1, CLASSES, "expected probabilities"),
        (SoftmaxClassifier(), P, CLASSES[:9], r"shape \(300, 10\), expected \(300, 9\)"),
        (SoftmaxClassifier(), P, [0] * 10, "must be two different labels"),
        (SoftmaxClassifier(), Y, CLASSES, r"shape \(300,\)"),
        (SoftmaxClassifier(), Y.astype("U1") + "th", CLASSES, "a table of the probabilities of each class; this"),
        (SoftmaxClassifier(), pd.DataFrame(P), CLASSES[::-1], "the same labels in another order"),
        (SoftmaxClassifier(class_weight="balanced"), P, CLASSES, "class_weight='balanced' asks for the class"),
        (MLPEnsembleClassifier(), P, CLASSES, "calibration='temperature' asks for the class"),
    ],
)
def test_what_is_refused(model, table, classes, said):
    with pytest.raises(ValueError, match=said):
        model.fit(X, table, classes=classes)


def test_probabilities_need_classes_and_chunks_cannot_have_them():
    with pytest.raises(ValueError, match="pass the labels of the columns as `classes`"):
        SoftmaxClassifier().fit(X, P)
    with pytest.raises(ValueError, match="it is None: chunks have labels"):
        SoftmaxClassifier().fit(lambda: iter([(X, P)]), classes=CLASSES)


def test_columns_may_have_names():
    of_array = SoftmaxClassifier().fit(X, P, classes=CLASSES).coef_
    frame = pd.DataFrame(P)
    for table, classes in ((frame, CLASSES), (frame.add_prefix("p"), CLASSES), (frame[CLASSES[::-1]], CLASSES[::-1])):
        coef = SoftmaxClassifier().fit(X, table, classes=classes).coef_
        np.testing.assert_allclose(coef, of_array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("penalty", "solver"), [("l2", "lbfgs"), ("l1", "exact"), ("elasticnet", "exact")])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_exact_solvers_take_them(penalty, solver, smoothing, monkeypatch):
    """As each row in each class, with its probability as its weight: solver="exact" refused them."""
    monkeypatch.setattr(solving, "minimise", lambda *args: pytest.fail("steps of torch"))
    model = SoftmaxClassifier(
        penalty, alpha=1e-2, solver=solver, tol=1e-6, max_iter=1000, label_smoothing=smoothing, standardize=False
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Columns of X")
        found = clone(model).fit(X / 16, P, classes=CLASSES)
        repeated = clone(model).fit(np.repeat(X / 16, 10, axis=0), np.tile(CLASSES, len(X)), P.ravel())
    assert found.loss_ == pytest.approx(repeated.loss_, rel=1e-6)
    np.testing.assert_allclose(found.coef_, repeated.coef_, atol=2e-3)
