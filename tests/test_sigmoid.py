"""SigmoidClassifier: one-vs-rest and multilabel, against scikit-learn's meta-estimators at the optimum."""

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, WINE, WINE_Y, configured
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from skdeep import MLPClassifierTorch, SigmoidClassifier, SoftmaxClassifier
from skdeep.model_selection.stacks import fit_stack

LABELS = np.column_stack([WINE_Y == 0, WINE_Y != 1, WINE[:, 0] > 13, WINE[:, 4] > 100]).astype(int)
WEIGHT = np.random.default_rng(0).uniform(0.2, 3, len(WINE_Y))
ALPHA = 0.01


def logistic(weight):
    return LogisticRegression(C=1 / (ALPHA * weight.sum()), solver="newton-cholesky", tol=1e-12, max_iter=1000)


EXACT = SigmoidClassifier(alpha=ALPHA, solver="lbfgs", tol=1e-10, max_iter=500)


# ---- the optimum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_one_versus_rest(weighted):
    X = StandardScaler().fit_transform(WINE)
    weight = WEIGHT if weighted else np.ones(len(X))
    ours = clone(EXACT).fit(X, WINE_Y, weight)
    machines = [logistic(weight).fit(X, WINE_Y == c, weight) for c in range(3)]
    np.testing.assert_allclose(ours.coef_, np.vstack([m.coef_ for m in machines]), atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, np.concatenate([m.intercept_ for m in machines]), atol=1e-6)
    if not weighted:
        theirs = OneVsRestClassifier(logistic(weight)).fit(X, WINE_Y)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_multilabel(weighted):
    X = StandardScaler().fit_transform(WINE)
    weight = WEIGHT if weighted else np.ones(len(X))
    ours = clone(EXACT).fit(X, LABELS, weight)
    theirs = MultiOutputClassifier(logistic(weight)).fit(X, LABELS, sample_weight=weight)
    expected = np.column_stack([p[:, 1] for p in theirs.predict_proba(X)])
    np.testing.assert_allclose(ours.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.coef_, np.vstack([m.coef_ for m in theirs.estimators_]), atol=1e-6)
    assert ours.n_outputs_ == 4 and ours.decision_function(X).shape == LABELS.shape
    network = MLPClassifierTorch((), alpha=ALPHA * len(X), solver="lbfgs", tol=1e-10, max_iter=2000, random_state=0)
    if not weighted:  # a network without hidden layers is the same model
        np.testing.assert_allclose(network.fit(X, LABELS).coefs_[0].T, ours.coef_, atol=1e-4)


def test_two_classes_are_softmax():
    for params in ({}, {"solver": "lbfgs"}, {"label_smoothing": 0.1}, {"calibration": "temperature"}):
        params = {"random_state": 0, "max_iter": 15, **params}
        sigmoid = configured(SigmoidClassifier, **params).fit(CANCER, CANCER_Y)
        softmax = configured(SoftmaxClassifier, **params).fit(CANCER, CANCER_Y)
        np.testing.assert_array_equal(sigmoid.coef_, softmax.coef_)
        np.testing.assert_array_equal(sigmoid.predict_proba(CANCER), softmax.predict_proba(CANCER))
        assert sigmoid.decision_function(CANCER).shape == (len(CANCER),)


def test_the_default_solver_comes_near():
    exact = clone(EXACT).fit(WINE, WINE_Y)
    batches = SigmoidClassifier(alpha=ALPHA, random_state=0).fit(WINE, WINE_Y)
    assert exact.loss_ <= batches.loss_ <= exact.loss_ + 0.01


# ---- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("calibration", [None, "temperature", "sigmoid"])
def test_probabilities_stay_inside(dtype, calibration):
    X = WINE.astype(dtype)
    model = SigmoidClassifier(max_iter=20, random_state=0, calibration=calibration).fit(X, LABELS)
    far = X * dtype(1e6)
    assert np.abs(model.decision_function(far)).max() > 1e4
    proba = model.predict_proba(far)
    assert (proba > 0).all() and (proba < 1).all()
    assert np.isfinite(model.predict_log_proba(far)).all()
    np.testing.assert_array_equal(model.predict(far), proba > 0.5)


def test_probabilities_of_classes_sum_to_one():
    model = SigmoidClassifier(max_iter=20, random_state=0).fit(WINE, WINE_Y)
    for Z in (WINE, WINE * 1e6, WINE - 1e6):
        proba = model.predict_proba(Z)
        np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-9)
        np.testing.assert_array_equal(proba.argmax(1), model.predict(Z))
    odd = 1 / (1 + np.exp(-model.decision_function(WINE)))
    np.testing.assert_allclose(model.predict_proba(WINE), odd / odd.sum(1, keepdims=True), rtol=1e-9)


# ---- multilabel targets elsewhere ------------------------------------------------------------------------------------


def test_forms_of_indicators():
    reference = SigmoidClassifier(max_iter=10, random_state=0).fit(WINE, LABELS)
    for form in (LABELS.astype(bool), sparse.csr_matrix(LABELS), LABELS.tolist()):
        np.testing.assert_array_equal(clone(reference).fit(WINE, form).coef_, reference.coef_)
    assert reference.sparsify().predict(sparse.csr_array(WINE)).shape == LABELS.shape


def test_a_label_that_is_always_there():
    labels = np.column_stack([LABELS, np.ones(len(LABELS)), np.zeros(len(LABELS))]).astype(int)
    model = SigmoidClassifier(random_state=0).fit(WINE, labels)
    np.testing.assert_array_equal(model.predict(WINE)[:, 4:], labels[:, 4:])
    for method in ("temperature", "sigmoid"):
        calibrated = SigmoidClassifier(random_state=0, calibration=method).fit(WINE, labels)
        np.testing.assert_array_equal(calibrated.predict(WINE)[:, 4:], labels[:, 4:])


def test_early_stopping_and_parts():
    model = SigmoidClassifier(early_stopping=True, random_state=0, max_iter=30).fit(WINE, LABELS)
    assert len(model.validation_scores_) == model.n_iter_
    parts = SigmoidClassifier(random_state=0)
    for _ in range(5):
        parts.partial_fit(WINE, LABELS, classes=range(4))
    assert (parts.predict(WINE) == LABELS).mean() > 0.8


@pytest.mark.parametrize("y", [IRIS_Y, np.column_stack([IRIS_Y == 0, IRIS[:, 1] > 3])], ids=["classes", "labels"])
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_a_stack_ends_where_each_model_ends(y, solver):
    base = SigmoidClassifier(solver=solver, max_iter=25, random_state=0, label_smoothing=0.1)
    members = [clone(base).set_params(alpha=alpha) for alpha in (1e-4, 1e-2, 1.0)]
    assert fit_stack(members, IRIS, y) == [None] * 3
    for member in members:
        alone = clone(member).fit(IRIS, y)
        np.testing.assert_allclose(member.coef_, alone.coef_, rtol=0, atol=1e-10)


# ---- label smoothing, of all who have it -----------------------------------------------------------------------------

SMOOTHING = [
    SoftmaxClassifier(solver="lbfgs", max_iter=100),
    SigmoidClassifier(solver="lbfgs", max_iter=100),
    MLPClassifierTorch((), solver="lbfgs", max_iter=300, random_state=0),
]


@pytest.mark.parametrize("estimator", SMOOTHING, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("y", [WINE_Y, 1 * (WINE_Y == 0)], ids=["three classes", "two classes"])
def test_smoothed_probabilities_at_the_optimum(estimator, y):
    """The gradient against the softened targets is zero there, also where separable classes have no other optimum."""
    X = StandardScaler().fit_transform(WINE)
    n, epsilon = y.max() + 1, 0.3
    model = clone(estimator).set_params(alpha=0, label_smoothing=epsilon, tol=1e-9).fit(X, y)
    proba = model.predict_proba(X)
    targets = (1 - epsilon) * np.eye(n)[y] + epsilon / n
    if isinstance(estimator, SigmoidClassifier) and n > 2:
        proba = 1 / (1 + np.exp(-model.decision_function(X)))
        targets = (1 - epsilon) * np.eye(n)[y] + epsilon / 2
    gradient = np.column_stack([X, np.ones(len(X))]).T @ (proba - targets) / len(X)
    assert np.abs(gradient).max() < 1e-6
    assert clone(estimator).set_params(alpha=0).fit(X, y).predict_proba(X).max(1).mean() > 0.99 > proba.max(1).mean()


def test_validation_data_is_judged_without_smoothing():
    params = {"max_iter": 5, "random_state": 0, "label_smoothing": 0.2}
    model = configured(SoftmaxClassifier, **params).fit(WINE, WINE_Y, X_val=WINE, y_val=WINE_Y)
    proba = model.predict_proba(WINE)[np.arange(len(WINE_Y)), WINE_Y]
    assert model.validation_loss_curve_[-1] == pytest.approx(-np.log(proba).mean(), rel=1e-9)


@pytest.mark.parametrize("amount", [-0.1, 1.1, "much"])
def test_impossible_smoothing(amount):
    for cls in (SoftmaxClassifier, SigmoidClassifier, MLPClassifierTorch):
        with pytest.raises(ValueError, match="The 'label_smoothing' parameter of"):
            cls(label_smoothing=amount).fit(IRIS, IRIS_Y)
