"""Bootstrap of coefficients: as refits one after the other, as the textbook's intervals, and as the theory."""

import functools

import numpy as np
import pytest
import torch
from helpers import CANCER, CANCER_Y, IRIS, IRIS_Y, set_constant
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
)
from skdeep.data.encoding import encode
from skdeep.display import CoefficientsDisplay
from skdeep.exact import reweighted_large
from skdeep.exact.losses import LogisticLoss, SoftmaxLoss
from skdeep.exact.reweighted import Hessians
from skdeep.exact.rows import Rows, SingleRows, SparseRows
from skdeep.model_selection import BootstrapCoefficients, bootstrap_coefficients
from skdeep.model_selection.bootstrap import draw_resamples
from skdeep.model_selection.intervals import accelerations
from skdeep.model_selection.resampled import Near, Trainer

RNG = np.random.default_rng(0)
LOGIT = RNG.normal(size=(1500, 3)) * [1, 2, 1e-3] + [0, 30, 0]
ODDS = (LOGIT - [0, 30, 0]) @ [1, -0.5, 300.0] - 0.3
LOGIT_Y = (RNG.random(len(ODDS)) < 1 / (1 + np.exp(-ODDS))).astype(int)
LABELS = np.column_stack([IRIS_Y == 0, IRIS[:, 0] > 6]).astype(int)
WEIGHT = RNG.integers(0, 4, len(IRIS_Y)) / 2.0
FEW = np.r_[0:150:3]
MANY = np.column_stack([np.random.default_rng(1).normal(size=(150, 70)), np.arange(150) == 7, np.arange(150) % 75 == 3])
RARE = np.column_stack([IRIS, np.eye(150)[:, ::50], np.full(150, 7.0)])
WORDS = sparse.random_array((150, 200), density=0.1, rng=np.random.default_rng(0), format="csr")


def resamples_of(X, y, n_resamples, seed, sample_weight=None, **options):
    """The weights that `bootstrap_coefficients` draws."""
    problem = encode([SigmoidClassifier()], X, y, sample_weight, going_on=False, incremental=False)
    generator = np.random.default_rng(np.random.RandomState(seed).randint(np.iinfo(np.int32).max))
    return draw_resamples(problem, n_resamples, generator, **options)


CASES = {
    "softmax": (SoftmaxClassifier(), IRIS, IRIS_Y, {}),
    "weights": (SoftmaxClassifier(alpha=1e-2), IRIS, IRIS_Y, {"sample_weight": WEIGHT}),
    "two classes": (SoftmaxClassifier(alpha=1e-3), CANCER, CANCER_Y, {}),
    "no penalty": (SoftmaxClassifier(penalty=None), LOGIT[:200], LOGIT_Y[:200], {}),
    "no intercept": (SoftmaxClassifier(fit_intercept=False), IRIS, IRIS_Y, {}),
    "balanced": (SoftmaxClassifier(class_weight="balanced"), IRIS[:120], IRIS_Y[:120], {"sample_weight": WEIGHT[:120]}),
    "labels": (SigmoidClassifier(), IRIS, LABELS, {}),
    "sparse": (SoftmaxClassifier(), sparse.csr_array(IRIS), IRIS_Y, {}),
    "short rows as they are": (SoftmaxClassifier(standardize=False), sparse.csr_array(IRIS) / 10, IRIS_Y, {}),
    "lasso": (SoftmaxClassifier("l1", alpha=0.01), IRIS, IRIS_Y, {}),
    "lasso of two classes": (SoftmaxClassifier("l1"), CANCER, CANCER_Y, {}),
    "lasso of labels": (SigmoidClassifier("l1", alpha=0.01), IRIS, LABELS, {"sample_weight": WEIGHT}),
    "lasso of nothing": (SoftmaxClassifier("l1", alpha=10.0, fit_intercept=False), IRIS, IRIS_Y, {}),
    "elastic net": (LeastSquaresClassifier("elasticnet", alpha=0.01, l1_ratio=0.5), IRIS, IRIS_Y, {}),
    "elastic net of classes": (SoftmaxClassifier("elasticnet", alpha=0.02, l1_ratio=0.7), IRIS, IRIS_Y, {}),
    "hinge": (HingeClassifier(), IRIS[FEW], IRIS_Y[FEW], {}),
    "squared hinge": (HingeClassifier("squared_hinge"), IRIS, IRIS_Y, {}),
    "least squares": (LeastSquaresClassifier(), IRIS, IRIS_Y, {}),
    "smoothed": (SoftmaxClassifier(label_smoothing=0.1), IRIS, IRIS_Y, {}),
    "many columns": (SoftmaxClassifier(alpha=0.02), MANY, IRIS_Y, {"sample_weight": WEIGHT + 1}),
    "many columns of a label": (SigmoidClassifier(), MANY.repeat(2, 1), LABELS[:, 0], {}),
    "wide": (SoftmaxClassifier(), WORDS, IRIS_Y, {}),
    "wide labels": (SigmoidClassifier(alpha=0.1), WORDS, LABELS, {"sample_weight": WEIGHT}),
    "wide least squares": (LeastSquaresClassifier(), WORDS, IRIS_Y, {"sample_weight": WEIGHT}),
    "wide without intercept": (LeastSquaresClassifier(fit_intercept=False, alpha=0.01), WORDS, IRIS_Y > 0, {}),
    "wide balanced": (LeastSquaresClassifier(class_weight="balanced"), WORDS, IRIS_Y, {"sample_weight": WEIGHT + 1}),
    "rare columns": (SoftmaxClassifier(), RARE, IRIS_Y, {}),
    "far columns": (SoftmaxClassifier(), IRIS * [1e-20, 1, 1e20, 1] + [0, 1e9, 0, 0], IRIS_Y, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_resample_is_as_if_fitted_alone(case):
    model, X, y, options = CASES[case]
    model = clone(model).set_params(tol=1e-10, max_iter=1000)
    found = bootstrap_coefficients(model, X, y, **options, n_resamples=4, n_left_out=0, random_state=3)
    weights = [np.ones(len(y)), *resamples_of(X, y, 4, 3, **options)]
    coefs, intercepts = [found.coef, *found.coefs], [found.intercept, *found.intercepts]
    for weight, coef, intercept in zip(weights, coefs, intercepts, strict=True):
        alone = clone(model).set_params(calibration=None).fit(X, y, weight * options.get("sample_weight", 1))
        size = np.abs(found.coefs).max((0, 1))
        size[size == 0] = 1
        np.testing.assert_allclose(coef / size, alone.coef_ / size, atol=1e-6)
        np.testing.assert_allclose(intercept, alone.intercept_, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.coef_acceleration, 0)


SMOOTH = ["softmax", "two classes", "no penalty", "labels", "least squares", "wide", "wide least squares"]


WITH_ZEROS = ["lasso", "lasso of two classes", "lasso of labels", "elastic net", "elastic net of classes"]


@pytest.mark.parametrize("case", SMOOTH + WITH_ZEROS)
def test_resamples_are_solved_to_a_millionth_of_a_standard_error(case, monkeypatch):
    model, X, y, options = CASES[case]
    if case in ("two classes", "wide"):  # of more unknowns than a few, to what the estimator's tolerance allows
        model = clone(model).set_params(tol=1e-9)
    trained = []
    way = Trainer._trained
    monkeypatch.setattr(Trainer, "_trained", lambda self, weights: trained.append(len(weights)) or way(self, weights))
    found = bootstrap_coefficients(model, X, y, **options, n_resamples=40, n_left_out=0, random_state=0)
    assert trained == [1]  # all others are near it
    weights, error = resamples_of(X, y, 40, 0, **options), found.standard_error
    for k in (0, 1):
        alone = clone(model).set_params(tol=1e-13, max_iter=10_000)
        alone.fit(X, y, weights[k] * options.get("sample_weight", 1))
        left = np.abs(found.coefs[k] - alone.coef_)
        assert (left < 1e-6 * np.maximum(error, 1e-3 * error.max())).all()
        np.testing.assert_array_equal(found.coefs[k] == 0, alone.coef_ == 0)


@pytest.mark.parametrize("case", ["many columns", "many columns of a label"])
def test_resamples_of_many_unknowns_are_as_near_to_their_optimum_as_fits(case, monkeypatch):
    model, X, y, _ = CASES[case]
    trained, dtypes = [], []
    way, followed = Trainer._trained, reweighted_large._Way.followed
    monkeypatch.setattr(Trainer, "_trained", lambda self, weights: trained.append(len(weights)) or way(self, weights))
    monkeypatch.setattr(
        reweighted_large._Way, "followed", lambda way, *args: dtypes.append(way.start.dtype) or followed(way, *args)
    )
    found = bootstrap_coefficients(model, X, y, n_resamples=20, n_left_out=10, random_state=0)
    assert trained == [1] and np.float32 in dtypes
    weights = resamples_of(X, y, 20, 0)
    assert (weights[:, X[:, -1] != 0].sum(1) == 0).any()  # a column that some have no rows of
    optima = np.stack([clone(model).set_params(tol=1e-9, max_iter=10_000).fit(X, y, own).coef_ for own in weights])
    fits = np.stack([clone(model).fit(X, y, own).coef_ for own in weights])
    unit = optima.std(0)
    assert (np.abs(found.coefs - optima) / unit).max() < max(0.02, 2 * (np.abs(fits - optima) / unit).max())
    model = clone(model).set_params(tol=1e-6)
    exact = bootstrap_coefficients(model, X, y, n_resamples=20, n_left_out=10, random_state=0)
    np.testing.assert_allclose(found.coef_acceleration, exact.coef_acceleration, atol=0.01)


def test_models_that_wait_for_others_end_where_they_would_alone(monkeypatch):
    model, X, y, _ = CASES["many columns"]
    whole = bootstrap_coefficients(model, X, y, n_resamples=40, random_state=0)
    monkeypatch.setattr(reweighted_large, "_MAX_VALUES", 3 * 3 * len(IRIS))  # three at a time
    solved, gradient, again, followed = [], SoftmaxLoss.gradient, [], reweighted_large._Way.followed

    def watched(loss, scores):
        solved.append(len(scores))
        return gradient(loss, scores) * np.where(len(solved) == 40, np.nan, 1)  # which loses three

    def counted(way, *args):
        again.extend([len(way.weight)] * (way.start.dtype == np.float64))
        return followed(way, *args)

    monkeypatch.setattr(SoftmaxLoss, "gradient", watched)
    monkeypatch.setattr(reweighted_large._Way, "followed", counted)
    parts = bootstrap_coefficients(model, X, y, n_resamples=40, random_state=0)
    assert max(solved) == 3 and again == [3]
    np.testing.assert_allclose(parts.coefs, whole.coefs, atol=0.02 * whole.coefs.std())


def test_columns_of_few_rows_are_measured_once(monkeypatch):
    monkeypatch.setattr(Near, "_measured", None)
    bootstrap_coefficients(SoftmaxClassifier(), RARE, IRIS_Y, random_state=0)


@pytest.mark.parametrize("case, within", [("two classes", 0.01), ("wide", 0.1)])  # of sparse rows, the median is
def test_resamples_of_dozens_of_unknowns_are_nearer_than_counts(case, within):
    model, X, y, _ = CASES[case]
    found = bootstrap_coefficients(model, X, y, n_resamples=20, n_left_out=0, random_state=0)
    exact = bootstrap_coefficients(
        clone(model).set_params(tol=1e-9), X, y, n_resamples=20, n_left_out=0, random_state=0
    )
    off = np.abs(found.coefs - exact.coefs) / exact.standard_error
    assert off.max() < within and np.median(off) < 0.005


@pytest.mark.parametrize("case, most", [("wide", 40), ("wide labels", 10)])  # by a diagonal, it is 49 and 13
def test_sparse_resamples_take_few_passes_over_the_rows(case, most, monkeypatch):
    model, X, y, options = CASES[case]
    passed, trained, gradient, way = [], [], reweighted_large._Way._gradient, Trainer._trained
    monkeypatch.setattr(
        reweighted_large._Way,
        "_gradient",
        lambda w, models, *at: passed.append(len(models)) or gradient(w, models, *at),
    )
    monkeypatch.setattr(Trainer, "_trained", lambda self, weights: trained.append(len(weights)) or way(self, weights))
    found = bootstrap_coefficients(model, X, y, n_resamples=20, n_left_out=10, random_state=0, **options)
    assert trained == [1] and sum(passed) < most * (20 + 10)
    exact = clone(model).set_params(tol=1e-8)
    exact = bootstrap_coefficients(exact, X, y, n_resamples=20, n_left_out=10, random_state=0, **options)
    np.testing.assert_allclose(found.coef_acceleration, exact.coef_acceleration, atol=0.005)


@pytest.mark.parametrize("intercept", [True, False])
def test_products_in_single_precision_are_those_of_the_rows(intercept):
    rng = np.random.default_rng(0)
    rows = SparseRows(sparse.random_array((30, 12), density=0.1, format="csr", rng=rng), intercept)  # some are void
    single, params = SingleRows(rows.X, intercept), rng.normal(size=(3, 2, rows.shape[1])).astype(np.float32)
    scores = rows.scores(params)
    np.testing.assert_allclose(single.scores(params), scores, atol=1e-5)
    np.testing.assert_allclose(single.back(scores.astype(np.float32)), rows.back(scores), rtol=1e-4, atol=1e-4)
    back = single.back_from(params, lambda by_row: by_row.mul_(2))
    np.testing.assert_allclose(back, 2 * rows.back(scores), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmaxes_in_the_order_of_the_rows_are_the_same(smoothing):
    rng, (K, C, n) = np.random.default_rng(0), (2, 9, 20)
    loss, weight = SoftmaxLoss(rng.integers(C, size=n), C, smoothing), rng.random((K, n)).astype(np.float32)
    scores = (40 * rng.normal(size=(K, C, n))).astype(np.float32)
    by_row = torch.from_numpy(np.ascontiguousarray(scores.transpose(2, 0, 1).reshape(n, K * C)))
    loss.pull(by_row, weight, scores[0].max(0)[:, None])
    expected = (loss.gradient(scores.astype(float)) * weight[:, None]).transpose(2, 0, 1).reshape(n, K * C)
    np.testing.assert_allclose(by_row, expected, atol=1e-5)


def test_models_of_rows_too_many_for_the_cache_end_where_others_do(monkeypatch):
    model, X, y, _ = CASES["wide"]
    whole = bootstrap_coefficients(clone(model).set_params(tol=1e-6), X, y, n_resamples=20, random_state=0)
    monkeypatch.setattr(reweighted_large, "_MAX_VALUES", 1)  # gradients one by one, twelve models on their way
    parts = bootstrap_coefficients(clone(model).set_params(tol=1e-6), X, y, n_resamples=20, random_state=0)
    np.testing.assert_allclose(parts.coefs, whole.coefs, atol=1e-3 * whole.coefs.std())


def test_objectives_are_computed_where_it_matters_alone(monkeypatch):
    model, X, y, _ = CASES["many columns"]
    computed, at = [], SoftmaxLoss.at
    monkeypatch.setattr(SoftmaxLoss, "at", lambda loss, scores: computed.append(len(scores)) or at(loss, scores))
    bootstrap_coefficients(clone(model).set_params(alpha=1e-2), X, y, n_resamples=50, random_state=0)
    assert sum(computed) < 100  # none of a resample, but where all begin
    bootstrap_coefficients(clone(model).set_params(alpha=1e-7), X, y, n_resamples=50, random_state=0)
    assert sum(computed) > 1000  # losses of next to nothing, which bounds of gradients go by


def test_equal_sparse_columns_have_one_unknown(monkeypatch):
    model, X, y, _ = CASES["wide"]
    twice = np.arange(2 * X.shape[1]) % X.shape[1]  # of each column two, and of some three
    X, unknowns, init = sparse.csr_array(X)[:, np.append(twice, [3, 5])], [], reweighted_large.Neighbourhood.__init__
    monkeypatch.setattr(
        reweighted_large.Neighbourhood,
        "__init__",
        lambda self, *args: unknowns.append(args[4].shape[1]) or init(self, *args),
    )
    found = bootstrap_coefficients(clone(model).set_params(tol=1e-8), X, y, n_resamples=20, random_state=0)
    assert unknowns == [len(twice) // 2 + 1]  # and the intercept
    monkeypatch.setattr(SparseRows, "distinct", lambda rows: (np.arange(X.shape[1]),) * 2)
    apart = bootstrap_coefficients(clone(model).set_params(tol=1e-8), X, y, n_resamples=20, random_state=0)
    np.testing.assert_allclose(found.coefs, apart.coefs, atol=1e-4 * apart.coefs.std())


def test_sparse_columns_without_a_row_in_a_resample_have_a_coefficient_of_zero():
    rng, y = np.random.default_rng(0), np.arange(200) % 2
    X = 1000.0 * (rng.random((200, 160)) < 0.05)  # whose units are far from that of a column without a row
    X[:, 150:] = 0
    X[np.arange(10), np.arange(150, 160)] = 1000  # of one row each
    found = bootstrap_coefficients(SoftmaxClassifier(), sparse.csr_array(X), y, n_resamples=40, random_state=0)
    gone = found.coefs[:, 0, 150:] == 0
    assert 0.25 < gone.mean() < 0.5 and (found.coef[0, 150:] != 0).all()  # 0.37 are expected


def test_sparse_rows_of_many_classes_take_few_passes(monkeypatch):
    rng, gradient, passed = np.random.default_rng(0), reweighted_large._Way._gradient, []
    rate = rng.gamma(0.3, 1, size=(8, 120)) * np.geomspace(8, 0.3, 120) / 4  # of words, the first ones in most rows
    y = rng.integers(8, size=600)
    X = sparse.csr_array(np.sqrt(rng.poisson(0.3 * rate[y])))
    monkeypatch.setattr(
        reweighted_large._Way,
        "_gradient",
        lambda w, models, *at: passed.append(len(models)) or gradient(w, models, *at),
    )
    bootstrap_coefficients(SoftmaxClassifier(), X, y, n_resamples=20, n_left_out=10, random_state=0)
    assert sum(passed) < 11 * 30  # by a diagonal and some directions, it is 15


def test_a_hessian_that_has_no_inverse_leaves_resamples_to_others(monkeypatch):
    model, X, y, _ = CASES["many columns"]
    model = clone(model).set_params(tol=1e-6)
    near = bootstrap_coefficients(model, X, y, n_resamples=4, n_left_out=0, random_state=0)
    monkeypatch.setattr(reweighted_large, "spotrf", lambda matrix, **options: (matrix, 1))
    alone = bootstrap_coefficients(model, X, y, n_resamples=4, n_left_out=0, random_state=0)
    np.testing.assert_allclose(near.coefs, alone.coefs, atol=1e-4)
    assert (near.coefs != alone.coefs).any()


def test_resamples_that_newton_does_not_solve_are_trained_as_any_other(monkeypatch):
    X, y, options = CANCER[:, :10], CANCER_Y, {"n_resamples": 5, "n_left_out": 0, "random_state": 0}
    model = SoftmaxClassifier(tol=1e-10)
    solved = bootstrap_coefficients(model, X, y, **options)
    set_constant(monkeypatch, "_MAX_STEPS", 4)
    trained = bootstrap_coefficients(model, X, y, **options)
    assert (np.abs(trained.coefs - solved.coefs) < 1e-5 * solved.standard_error).all()
    assert (trained.coefs != solved.coefs).any()


def test_stacks_that_do_not_fit_into_memory_are_cut(monkeypatch):
    whole = bootstrap_coefficients(SoftmaxClassifier(tol=1e-10), IRIS, IRIS_Y, n_resamples=5, random_state=0)
    set_constant(monkeypatch, "_MAX_VALUES", 3 * 6 * len(IRIS))
    parts = bootstrap_coefficients(SoftmaxClassifier(tol=1e-10), IRIS, IRIS_Y, n_resamples=5, random_state=0)
    np.testing.assert_allclose(parts.coefs, whole.coefs, rtol=1e-7)


def test_a_column_that_a_resample_has_nothing_of_has_no_coefficient_there():
    X = np.column_stack([LOGIT[:100], np.arange(100) == 7])
    model = SoftmaxClassifier(penalty=None, tol=1e-8)
    found = bootstrap_coefficients(model, X, LOGIT_Y[:100], n_resamples=20, n_left_out=0, random_state=0)
    weights = resamples_of(X, LOGIT_Y[:100], 20, 0)
    lacking = weights[:, 7] == 0
    assert 0 < lacking.sum() < 20
    np.testing.assert_array_equal(np.abs(found.coefs[:, 0, 3]) < 1e-9, lacking)
    for own, coef in zip(weights, found.coefs, strict=True):
        np.testing.assert_allclose(coef, clone(model).fit(X, LOGIT_Y[:100], own).coef_, rtol=1e-4, atol=1e-9)


SURE = np.column_stack([LOGIT[:200, 0], np.arange(200) < 40])
NEARLY = np.column_stack([LOGIT[:60, 0], np.arange(60) < 9])
APART = {
    "two classes": (SoftmaxClassifier(penalty=None), CANCER, CANCER_Y),
    "one class of three": (SoftmaxClassifier(penalty=None), IRIS, IRIS_Y),
    "columns of scores": (SigmoidClassifier(penalty=None), IRIS, IRIS_Y),
    "some rows": (SoftmaxClassifier(penalty=None), SURE, LOGIT_Y[:200] | (SURE[:, 1] > 0)),
    "many columns": (SoftmaxClassifier(penalty=None), MANY, IRIS_Y),
    "wide": (SoftmaxClassifier(penalty=None), WORDS, IRIS_Y),
    "hinge": (HingeClassifier(penalty=None), IRIS[FEW], IRIS_Y[FEW] > 0),
}


@pytest.mark.parametrize("case", APART)
def test_classes_that_are_told_apart_leave_no_optimum(case):
    model, X, y = APART[case]
    with pytest.warns(ConvergenceWarning, match="In all rows, columns tell some classes apart"):
        bootstrap_coefficients(model, X, y, n_resamples=3, n_left_out=0, random_state=0)


def test_resamples_in_which_classes_are_told_apart_are_counted():
    y = LOGIT_Y[:60] | (NEARLY[:, 1] > 0)
    y[0] = 0  # without this row, a column tells a class
    model = SoftmaxClassifier(penalty=None)
    lacking = (resamples_of(NEARLY, y, 30, 0)[:, 0] == 0).sum()
    assert 5 < lacking < 20
    with pytest.warns(ConvergenceWarning, match=f"In the rows of {lacking} of 31 models"):
        bootstrap_coefficients(model, NEARLY, y, n_resamples=30, n_left_out=0, random_state=0)


def test_columns_that_follow_from_others_leave_an_optimum():
    X, y = LOGIT[:200] * [1, 1, 1000], LOGIT_Y[:200]
    model, options = SoftmaxClassifier(penalty=None, tol=1e-9), {"n_resamples": 5, "n_left_out": 0, "random_state": 0}
    without = bootstrap_coefficients(model, X, y, **options)
    found = bootstrap_coefficients(model, np.column_stack([X, X[:, 0] + X[:, 2]]), y, **options)
    np.testing.assert_allclose(found.coefs @ [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], without.coefs, atol=1e-5)


def test_resamples():
    counts = resamples_of(IRIS, IRIS_Y, 30, 0)
    np.testing.assert_array_equal(counts.sum(1), 150)
    assert len({tuple(own) for own in counts}) == 30
    assert (counts > 0).mean() == pytest.approx(1 - np.exp(-1), abs=0.01)
    by_class = resamples_of(IRIS, IRIS_Y, 30, 0, stratify=True)
    np.testing.assert_array_equal(by_class @ np.eye(3)[IRIS_Y], np.full((30, 3), 50))
    assert (by_class != by_class[0]).any()
    weight = np.r_[np.zeros(50), np.ones(100)]
    dropped = resamples_of(IRIS, np.r_[IRIS_Y[:50] + 1, IRIS_Y[50:]], 5, 0, weight)
    assert not dropped[:, :50].any() and (dropped.sum(1) == 100).all()


def test_no_resample_lacks_a_class():
    y = np.r_[np.zeros(28), 1, 1].astype(int)
    counts = resamples_of(IRIS[:30], y, 50, 0)
    assert (counts[:, 28:].sum(1) > 0).all() and (counts[:, 28:].sum(1) < 30).all()
    labels = np.column_stack([y, 1 - y])
    assert (resamples_of(IRIS[:30], labels, 50, 0)[:, 28:].sum(1) > 0).all()
    bootstrap_coefficients(SoftmaxClassifier(), IRIS[:29], y[:29], n_resamples=5, random_state=0)  # the only row of it


def test_a_class_that_has_no_weight_is_none_that_a_resample_could_lack():
    weight = (IRIS_Y > 0).astype(float)
    found = bootstrap_coefficients(SoftmaxClassifier(), IRIS, IRIS_Y, weight, n_resamples=3, random_state=0)
    alone = SoftmaxClassifier().fit(IRIS, IRIS_Y, weight)
    np.testing.assert_allclose(found.coef, alone.coef_, atol=1e-3)
    assert not resamples_of(IRIS, IRIS_Y, 3, 0, weight)[:, :50].any()


@functools.cache
def of_logit(n_resamples=400):
    return bootstrap_coefficients(
        SoftmaxClassifier(penalty=None), LOGIT, LOGIT_Y, n_resamples=n_resamples, random_state=0
    )


def test_standard_errors_are_those_of_the_theory():
    models = pytest.importorskip("statsmodels.api")
    theory = models.Logit(LOGIT_Y, models.add_constant(LOGIT)).fit(disp=0, cov_type="HC0")
    found = of_logit()
    np.testing.assert_allclose(np.r_[found.intercept, found.coef[0]], theory.params, rtol=1e-3)
    # a standard deviation of 400 is known to 1 / sqrt(800), 3.5 %
    errors = np.r_[found.intercept_standard_error, found.standard_error[0]]
    np.testing.assert_allclose(errors, theory.bse, rtol=0.14)
    for method in ("percentile", "bca"):
        ends = np.stack(
            [
                np.r_[i, c[0]]
                for i, c in zip(found.intercept_interval(0.9, method), found.interval(0.9, method), strict=True)
            ],
            1,
        )
        np.testing.assert_allclose(ends, theory.conf_int(0.1), atol=0.5 * theory.bse.max(), rtol=0.1)


def test_intervals_are_scipys():
    x = np.random.default_rng(1).exponential(size=30)
    ours = stats.bootstrap((x,), np.mean, n_resamples=500, method="BCa", random_state=np.random.default_rng(0))
    replicates = ours.bootstrap_distribution
    left_out = np.array([np.delete(x, i).mean() for i in range(len(x))])
    zero = np.zeros(1)
    found = BootstrapCoefficients(
        np.array([[x.mean()]]),
        zero,
        replicates[:, None, None],
        zero,
        accelerations(left_out[:, None, None]),
        zero,
        zero,
        [],
    )
    interval = np.ravel(found.interval(0.95))
    np.testing.assert_allclose(interval, ours.confidence_interval, rtol=1e-3)
    assert not np.allclose(interval, np.ravel(found.interval(0.95, "percentile")), rtol=1e-3)
    low, high = np.ravel(found.interval(0.9, "percentile"))
    assert ((replicates >= low) & (replicates <= high)).mean() == pytest.approx(0.9)


def test_intervals_of_replicates_on_one_side_end_at_the_outermost():
    replicates = np.linspace(1, 2, 50)[:, None, None]
    found = BootstrapCoefficients(
        np.zeros((1, 1)), np.zeros(1), replicates, replicates[..., 0], 9.0, 9.0, [0, 1], ["a"]
    )
    for low, high in (found.interval(), found.intercept_interval()):
        assert 1 <= low <= high <= 2
    same = BootstrapCoefficients(
        np.ones((1, 1)), np.ones(1), np.ones((9, 1, 1)), np.ones((9, 1)), 0.0, 0.0, [0, 1], ["a"]
    )
    np.testing.assert_array_equal(same.interval(), np.ones((2, 1, 1)))


def skewness(coefs):
    influence = coefs.mean(0) - coefs
    return (influence**3).sum(0) / 6 / (influence**2).sum(0) ** 1.5


def test_accelerations_are_of_rows_left_out():
    X, y = IRIS[50::4], IRIS_Y[50::4]
    model = SoftmaxClassifier(alpha=0.1, tol=1e-10)
    found = bootstrap_coefficients(model, X, y, n_resamples=2, random_state=0)
    whole = model.fit(X, y)
    params, ones = np.r_[whole.coef_[0], whole.intercept_], np.column_stack([X, np.ones(len(y))])
    p, alpha, steps = whole.predict_proba(X)[:, 1], np.r_[np.full(4, 0.1), 0], []
    for i in range(len(y)):  # a step of Newton's, for the objective of the other rows
        rest = np.arange(len(y)) != i
        gradient = ones[rest].T @ (p - (y == 2))[rest] / rest.sum() + alpha * params
        hessian = (ones[rest].T * (p * (1 - p))[rest]) @ ones[rest] / rest.sum() + np.diag(alpha)
        steps.append(params - np.linalg.solve(hessian, gradient))
    np.testing.assert_allclose(found.coef_acceleration[0], skewness(np.stack(steps))[:4], atol=1e-5)
    coefs = np.stack([clone(model).fit(np.delete(X, i, 0), np.delete(y, i)).coef_ for i in range(len(X))])
    # it is nearly the whole way
    np.testing.assert_allclose(found.coef_acceleration, skewness(coefs), atol=0.005)
    assert np.abs(skewness(coefs)).max() > 0.05


def test_accelerations_of_objectives_with_kinks_are_of_models():
    X, y = IRIS[50::4], IRIS_Y[50::4]
    model = SoftmaxClassifier("l1", alpha=0.02, tol=1e-10)
    found = bootstrap_coefficients(model, X, y, n_resamples=2, random_state=0)
    coefs = np.stack([clone(model).fit(np.delete(X, i, 0), np.delete(y, i)).coef_ for i in range(len(X))])
    moved = np.ptp(coefs, axis=0) > 1e-6
    np.testing.assert_allclose(found.coef_acceleration[moved], skewness(coefs)[moved], atol=1e-4)
    assert moved.any()


def test_names_and_repeatability():
    import pandas as pd

    X = pd.DataFrame(IRIS, columns=list("abcd"))
    first, second = (
        bootstrap_coefficients(SoftmaxClassifier(), X, IRIS_Y, n_resamples=3, n_left_out=2, random_state=s)
        for s in (1, 1)
    )
    np.testing.assert_array_equal(first.coefs, second.coefs)
    assert first.feature_names == list("abcd")
    other = bootstrap_coefficients(SoftmaxClassifier(), IRIS, IRIS_Y, n_resamples=3, n_left_out=2, random_state=2)
    assert other.feature_names == ["x0", "x1", "x2", "x3"] and (other.coefs != first.coefs).any()
    np.testing.assert_array_equal(other.classes, [0, 1, 2])


BAD = {
    "two": (SoftmaxClassifier(), {"n_resamples": 1}, ValueError, "at least 2"),
    "parts": (SoftmaxClassifier(), {"n_left_out": -1}, ValueError, "at least 0"),
    "network": (MLPClassifierTorch(), {}, TypeError, "got MLPClassifierTorch"),
    "pipeline": (make_pipeline(SoftmaxClassifier()), {}, TypeError, "Pass its last step"),
    "early": (SoftmaxClassifier(early_stopping=True), {}, ValueError, "early_stopping=False"),
    "sigmoid": (HingeClassifier(calibration="sigmoid"), {}, ValueError, "'temperature'"),
    "batches": (SoftmaxClassifier(solver=SGD()), {}, ValueError, "mini-batches"),
    "parameter": (SoftmaxClassifier(alpha=-1), {}, ValueError, "alpha"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    model, options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        bootstrap_coefficients(model, IRIS, IRIS_Y, **options)


def test_what_is_refused_of_data_and_intervals():
    with pytest.raises(ValueError, match="stratify"):
        bootstrap_coefficients(SigmoidClassifier(), IRIS, LABELS, stratify=True)
    for bad in ({"confidence": 1.0}, {"confidence": 0.0}, {"method": "studentized"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            of_logit().interval(**bad)


def test_a_class_of_too_few_rows(monkeypatch):
    set_constant(monkeypatch, "_MAX_DRAWS", 1)
    y = np.r_[np.zeros(149), 1].astype(int)
    with pytest.raises(ValueError, match="too few rows"):
        bootstrap_coefficients(SoftmaxClassifier(), IRIS, y, random_state=0)
    found = bootstrap_coefficients(SoftmaxClassifier(), IRIS, y, n_resamples=2, stratify=True, random_state=0)
    assert np.isfinite(found.coefs).all()


def test_models_that_are_not_at_their_optimum_are_warned_of():
    with pytest.warns(ConvergenceWarning, match="4 of 4"):
        bootstrap_coefficients(SoftmaxClassifier(max_iter=1), CANCER, CANCER_Y, n_resamples=3, n_left_out=0)


def test_large_data_is_solved_exactly_as_well(monkeypatch):
    for name in ("STEPS", "_STEP_OVERHEAD"):  # of mini-batches, which then are always cheaper
        set_constant(monkeypatch, name, 1)
    assert SoftmaxClassifier(random_state=0).fit(IRIS, IRIS_Y).solver_ == "sgd"
    found = bootstrap_coefficients(SoftmaxClassifier(tol=1e-8), IRIS, IRIS_Y, n_resamples=2, random_state=0)
    exact = SoftmaxClassifier(solver="lbfgs", tol=1e-8).fit(IRIS, IRIS_Y)
    np.testing.assert_allclose(found.coef, exact.coef_, rtol=1e-5)


def test_the_picture():
    pytest.importorskip("matplotlib")
    found = bootstrap_coefficients(SoftmaxClassifier(), CANCER, CANCER_Y, n_resamples=30, random_state=0)
    low, high = found.interval()
    display = CoefficientsDisplay.from_bootstrap(found, max_columns=5)
    order = np.argsort(-np.abs(found.coef[0]))[:5]
    np.testing.assert_array_equal(display.columns_, order)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [f"x{c}" for c in order]
    drawn = np.concatenate([points.get_xdata() for points in display.points_])
    np.testing.assert_array_equal(np.sort(drawn), np.sort(found.coef[0, order]))
    known = display.points_[0].get_xdata()
    assert set(known) == {found.coef[0, c] for c in order if low[0, c] > 0 or high[0, c] < 0}
    ends = np.concatenate(
        [
            np.concatenate(bars[2][0].get_segments())[:, 0]
            for bars in display.intervals_
            if len(bars[2][0].get_segments())
        ]
    )
    np.testing.assert_allclose(np.sort(ends), np.sort(np.r_[low[0, order], high[0, order]]))
    of_three = CoefficientsDisplay.from_estimator(SoftmaxClassifier(), IRIS, IRIS_Y, n_resamples=5, random_state=0)
    assert [text.get_text() for text in of_three.ax_.get_legend().get_texts()] == ["0", "1", "2"]


def test_scores_that_are_all_huge_leave_the_curvature_of_the_penalty():
    target, scores = (IRIS_Y[None] > 0).astype(float), np.full((2, 1, 150), 1e4)
    loss, rho = LogisticLoss(target), np.full((2, 4), 0.5)
    found = Hessians(Rows(IRIS), loss, np.eye(1))(scores, loss.gradient(scores), np.full((2, 150), 1 / 150), rho)
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(4) / 2, (2, 4, 4)))


@pytest.mark.parametrize("clf", [SoftmaxClassifier(penalty=None), HingeClassifier("squared_hinge", penalty=None)])
def test_resamples_without_an_optimum_are_told_of(clf, monkeypatch):
    """Where few rows are on the wrong side, many resamples have none of them: their coefficients have no limit."""
    X = np.linspace(-1, 1, 30)
    y = (X > 0).astype(int)
    y[12] = 1
    drawn, train = [], Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda trainer, counts: drawn.append(counts) or train(trainer, counts))
    with pytest.warns(ConvergenceWarning, match="tell some classes apart without an error") as caught:
        bootstrap_coefficients(clf, X[:, None], y, n_resamples=40, n_left_out=0, random_state=0)
    apart = sum(X[(own > 0) & (y == 0)].max() < X[(own > 0) & (y == 1)].min() for own in np.concatenate(drawn))
    assert 0 < apart < 40
    assert str(caught[0].message).startswith(f"In the rows of {apart} of 41 models")
