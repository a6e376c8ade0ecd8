"""Standard errors from curvature: statsmodels' without a penalty, the bootstrap's with one."""

import numpy as np
import pytest
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, set_constant
from scipy import sparse

from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
)
from skdeep.model_selection import bootstrap_coefficients, standard_errors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3)) * [1, 10, 0.01] + [0, 100, 0]
Z = (X - [0, 100, 0]) / [1, 10, 0.01]
THREE = (Z @ RNG.normal(size=(3, 3)) + RNG.gumbel(size=(400, 3))).argmax(1)
TWO = (RNG.random(400) < 1 / (1 + np.exp(-Z @ [1, -0.5, 0.2]))).astype(int)
KINDS = {"sandwich": "HC0", "hessian": "nonrobust"}


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_have_the_errors_of_a_logit(kind):
    models = pytest.importorskip("statsmodels.api")
    theory = models.Logit(TWO, models.add_constant(X)).fit(disp=0, cov_type=KINDS[kind], maxiter=100)
    for classifier in (SoftmaxClassifier(penalty=None), SigmoidClassifier(penalty=None)):
        found = standard_errors(classifier, X, TWO, kind=kind)
        np.testing.assert_allclose(np.r_[found.intercept, found.coef[0]], theory.params, rtol=1e-6)
        errors = np.r_[found.intercept_standard_error, found.standard_error[0]]
        np.testing.assert_allclose(errors, theory.bse, rtol=1e-6)
        np.testing.assert_allclose(np.transpose(found.interval(0.9))[:, 0], theory.conf_int(0.1)[1:], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_differences_of_classes_have_the_errors_of_a_multinomial_logit(kind):
    models = pytest.importorskip("statsmodels.api")
    theory = models.MNLogit(THREE, models.add_constant(X)).fit(disp=0, cov_type=KINDS[kind], maxiter=100)
    found = standard_errors(SoftmaxClassifier(penalty=None), X, THREE, kind=kind)
    c = found.covariance
    for k in (1, 2):
        errors = np.sqrt(np.diag(c[k, :, k] + c[0, :, 0] - c[k, :, 0] - c[0, :, k]))
        np.testing.assert_allclose(np.roll(errors, 1), np.asarray(theory.bse)[:, k - 1], rtol=1e-6)


def test_least_squares_have_those_of_a_regression():
    models = pytest.importorskip("statsmodels.api")
    theory = models.OLS(2 * TWO - 1, models.add_constant(X)).fit(cov_type="HC0")
    found = standard_errors(LeastSquaresClassifier(alpha=0), X, TWO)
    errors = np.r_[found.intercept_standard_error, found.standard_error[0]]
    np.testing.assert_allclose(errors, theory.bse, rtol=1e-10)


LABELS = np.column_stack([IRIS_Y == 1, IRIS[:, 1] > 3])
CASES = {
    "penalty": (SoftmaxClassifier(alpha=0.01), IRIS, IRIS_Y, None),
    "no intercept": (SoftmaxClassifier(fit_intercept=False, alpha=0.1), X, TWO, None),
    "labels": (SigmoidClassifier(alpha=0.01), IRIS, LABELS, None),
    "sparse": (SoftmaxClassifier(alpha=0.01), sparse.csr_array(IRIS), IRIS_Y, None),
    "weights": (LeastSquaresClassifier(), X, THREE, RNG.integers(1, 4, 400).astype(float)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bootstrap_tends_to_the_sandwich(case):
    model, X, y, weight = CASES[case]
    found = standard_errors(model, X, y, weight)
    replicated = bootstrap_coefficients(model, X, y, weight, n_resamples=800, n_left_out=0, random_state=0)
    np.testing.assert_allclose(replicated.coef, found.coef, rtol=1e-3, atol=1e-4 * np.abs(found.coef).max())
    # known to 1 / sqrt(1600), 2.5 %; and few rows for an expansion of the first order
    ratio = replicated.standard_error / found.standard_error
    assert np.median(ratio) == pytest.approx(1, abs=0.06)
    assert ((ratio > 0.8) & (ratio < 1.3)).all()


def test_models_of_many_unknowns_are_solved_otherwise(monkeypatch):
    few = standard_errors(SoftmaxClassifier(), X, THREE)
    set_constant(monkeypatch, "_FEW_UNKNOWNS", 1)
    np.testing.assert_allclose(standard_errors(SoftmaxClassifier(), X, THREE).covariance, few.covariance, rtol=1e-5)


def test_coefficients_are_in_units_of_their_columns():
    scaled = X * [1e3, 1, 1e-3]
    one, other = (standard_errors(SoftmaxClassifier(penalty=None), data, TWO) for data in (X, scaled))
    np.testing.assert_allclose(other.standard_error * [1e3, 1, 1e-3], one.standard_error, rtol=1e-6)
    assert one.feature_names == ["x0", "x1", "x2"]


TOLD_APART = np.column_stack([CANCER_Y + RNG.normal(size=len(CANCER_Y)) * 0.01, CANCER[:, 0]])
BAD = {
    "kind": (SoftmaxClassifier(), X, {"kind": "jackknife"}, ValueError, "sandwich"),
    "no likelihood": (LeastSquaresClassifier(), X, {"kind": "hessian"}, ValueError, "likelihoods"),
    "hinge": (HingeClassifier(), X, {}, ValueError, "bootstrap_coefficients"),
    "lasso": (SoftmaxClassifier("l1"), X, {}, ValueError, "bootstrap_coefficients"),
    "network": (MLPClassifierTorch(), X, {}, TypeError, "standard_errors takes"),
    "batches": (SoftmaxClassifier(solver=SGD()), X, {}, ValueError, "mini-batches"),
    "unfinished": (SoftmaxClassifier(max_iter=1), X, {}, ValueError, "max_iter"),
    "a column twice": (SoftmaxClassifier(penalty=None), X[:, [0, 1, 1]], {}, ValueError, "no curvature"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    model, data, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        standard_errors(model, data, TWO, **options)


def test_classes_that_are_told_apart_have_no_errors():
    with pytest.raises(ValueError, match="be told apart without an error"):
        standard_errors(SoftmaxClassifier(penalty=None), TOLD_APART, CANCER_Y)
    with pytest.raises(ValueError, match="between 0 and 1"):
        standard_errors(SoftmaxClassifier(), TOLD_APART, CANCER_Y).interval(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_coverage_of_intervals(kind):
    """Of 95 % intervals, 93 to 97 % hold the coefficients of the model that the labels come from."""
    rng, true = np.random.default_rng(0), np.array([1.0, -0.5, 0.0])
    held = []
    for _ in range(250):
        data = rng.normal(size=(300, 3))
        labels = (rng.random(300) < 1 / (1 + np.exp(-data @ true))).astype(int)
        low, high = standard_errors(SoftmaxClassifier(penalty=None), data, labels, kind=kind).interval(0.95)
        held.append((low[0] <= true) & (true <= high[0]))
    assert 0.93 < np.mean(held) < 0.97
