"""Linear models that are watched: who hears of each iteration hears of NumPy's."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine

from skdeep import LBFGS, HingeClassifier, LinearRegressor, SigmoidClassifier, SoftmaxClassifier
from skdeep.fitting import solving

CLASSES, VALUES = load_wine(return_X_y=True), load_diabetes(return_X_y=True)
HINGES = {"loss": "squared_hinge", "calibration": None}
MODELS = [
    SoftmaxClassifier(),
    SoftmaxClassifier(fit_intercept=False, label_smoothing=0.1),
    SigmoidClassifier(),
    HingeClassifier(**HINGES),
    HingeClassifier(**HINGES, multi_class="ovr"),
    LinearRegressor(),
    LinearRegressor("huber"),
    LinearRegressor("poisson"),
    LinearRegressor("squared_epsilon_insensitive"),
]


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setattr(solving, "minimise", lambda *args: pytest.fail("steps of torch"))


@pytest.mark.parametrize("layout", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("with_weights", [False, True])
def test_who_watches_sees_the_way_to_the_same_optimum(model, layout, with_weights, no_torch):
    """They watched steps of torch, which took two to three times as long."""
    X, y = VALUES if isinstance(model, LinearRegressor) else CLASSES
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y)) if with_weights else None
    model = clone(model).set_params(solver="lbfgs", tol=1e-9, max_iter=1000)
    model.scoring = "r2" if isinstance(model, LinearRegressor) else None
    X = layout(X)
    alone = clone(model).fit(X, y, sample_weight=weight)
    watched = clone(model).fit(X, y, sample_weight=weight, X_val=X, y_val=y)
    np.testing.assert_allclose(watched.coef_, alone.coef_, rtol=1e-4, atol=1e-5 * np.abs(alone.coef_).max())
    assert watched.loss_ == pytest.approx(alone.loss_, rel=1e-9)
    lengths = {len(curve) for curve in (watched.loss_curve_, watched.validation_scores_)}
    assert lengths == {watched.n_iter_} == {len(watched.validation_loss_curve_)}
    assert watched.validation_scores_[-1] == pytest.approx(watched.score(X, y))
    assert (np.diff(watched.loss_curve_) <= 1e-12 * watched.loss_curve_[0]).all()
    assert watched.certificate_ <= 1e-8


@pytest.mark.parametrize("patience", [1, 3])
def test_the_best_iteration_is_kept(patience, no_torch):
    X, y = CLASSES
    rng = np.random.default_rng(0)
    X = np.hstack([X, rng.normal(size=(len(X), 150))])  # which are learnt by heart
    part = rng.random(len(X)) < 0.4
    solver = LBFGS(n_iter_no_change=patience)
    model = SoftmaxClassifier(solver=solver, alpha=1e-6, tol=1e-9, early_stopping=True, scoring="loss")
    model.fit(X[part], y[part], X_val=X[~part], y_val=y[~part])
    best = int(np.argmax(model.validation_scores_))
    assert len(model.validation_scores_) == model.n_iter_ == best + 2 + patience
    proba = model.predict_proba(X[~part])
    assert -np.log(proba[np.arange(len(proba)), y[~part]]).mean() == pytest.approx(-model.best_validation_score_)
    assert model.best_validation_score_ == model.validation_scores_[best]
    assert model.certificate_ is None  # the last one's would be another


def test_training_goes_on_from_the_last_model(no_torch):
    X, y = CLASSES
    model = SoftmaxClassifier(solver="lbfgs", warm_start=True, tol=1e-6).fit(X, y, X_val=X, y_val=y)
    before, coef = model.n_iter_, model.coef_
    model.fit(X, y, X_val=X, y_val=y)
    assert model.n_iter_ == 1 < before
    assert len(model.loss_curve_) == len(model.validation_scores_) == before + 1
    np.testing.assert_allclose(model.coef_, coef, atol=1e-5)
