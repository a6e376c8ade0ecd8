"""Calibrated probabilities: scikit-learn's on the same scores, better than those without, never another class."""

import warnings

import numpy as np
import pytest
from helpers import IRIS, IRIS_Y
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit, softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV, _SigmoidCalibration, _TemperatureScaling
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skdeep import HingeClassifier, LeastSquaresClassifier, MLPClassifierTorch, SigmoidClassifier, SoftmaxClassifier
from skdeep.data.problem import Problem
from skdeep.fitting import calibration as calibrated
from skdeep.fitting.calibrators import doubt, fit_sigmoid, fit_temperature
from skdeep.model_selection.stacks import fit_stack, stackable_now

CANCER, CANCER_Y = load_breast_cancer(return_X_y=True)
CANCER = StandardScaler().fit_transform(CANCER)
DATA = {"three classes": (IRIS, IRIS_Y), "two classes": (CANCER, CANCER_Y)}
LABELS = np.column_stack([IRIS_Y == 0, IRIS[:, 1] > 3, IRIS_Y != 1]).astype(int)

ESTIMATORS = [
    SoftmaxClassifier(max_iter=20, random_state=0),
    SigmoidClassifier(max_iter=20, random_state=0),
    LeastSquaresClassifier(random_state=0),
    HingeClassifier(random_state=0),
    MLPClassifierTorch((8,), max_iter=40, learning_rate_init=0.03, random_state=0),
]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
each_method = pytest.mark.parametrize("method", ["temperature", "sigmoid"])


def scores_and_classes(n_columns, n=400, seed=0):
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 3, (n, n_columns))
    if n_columns == 1:
        return scores, (generator.random(n) < 1 / (1 + np.exp(1 - scores[:, 0] / 2))).astype(int)
    return scores, (scores + generator.gumbel(0, 2, scores.shape)).argmax(1)


# ---- the two methods, on the same scores as scikit-learn's -----------------------------------------------------------


@pytest.mark.parametrize("n_columns", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("of_others", [False, True])
def test_temperature_is_that_of_scikit_learn(n_columns, weighted, of_others):
    """Given half an observation more, which has all scores and all labels in equal parts."""
    scores, codes = scores_and_classes(n_columns)
    weight = np.random.default_rng(1).uniform(0.1, 3, len(codes)) if weighted else np.ones(len(codes))
    own = doubt(*(3 * scores[:50], weight[:50]) if of_others else (scores, weight))
    n_classes = max(2, n_columns)
    more = own[0].repeat(n_classes, 0), np.tile(np.arange(n_classes), len(own[0]))
    all_scores, all_codes = np.vstack([scores, more[0]]), np.r_[codes, more[1]]
    all_weights = np.r_[weight, own[1].repeat(n_classes) / n_classes]
    theirs = _TemperatureScaling().fit(all_scores if n_columns > 1 else all_scores[:, 0], all_codes, all_weights).beta_
    theirs *= 2 if n_columns == 1 else 1  # there, two classes have the scores -s and s
    ours = fit_temperature(scores, codes, weight if weighted else None, own if of_others else None)
    assert 1 / ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("n_columns", [1, 3])
def test_the_sigmoid_with_one_more_observation_is_the_lowest_objective(n_columns):
    scores, codes = scores_and_classes(n_columns)
    weight = np.random.default_rng(1).uniform(0.1, 3, len(codes))
    own = doubt(20 * scores[:70], weight[:70])
    slopes, offsets = fit_sigmoid(scores, codes, weight, own)
    for c in range(n_columns):
        positive = codes == (1 if n_columns == 1 else c)
        n_plus, n_minus = weight[positive].sum(), weight[~positive].sum()
        target = np.where(positive, (n_plus + 1) / (n_plus + 2), 1 / (n_minus + 2))

        def objective(x, c=c, target=target, n_plus=n_plus, n_minus=n_minus):
            frequency = (n_plus + 1) / (n_plus + n_minus + 2)
            parts = (scores[:, c], target, weight), (own[0][:, c], frequency, own[1])
            return sum(
                -(w * (t * log_expit(x[0] * s + x[1]) + (1 - t) * log_expit(-x[0] * s - x[1]))).sum()
                for s, t, w in parts
            )

        best = minimize(
            objective, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000}
        )
        np.testing.assert_allclose([slopes[c], offsets[c]], best.x, rtol=1e-5)
    assert (slopes < fit_sigmoid(scores, codes, weight)[0]).all()


def test_scores_that_speak_for_the_wrong_classes():
    """No calibration turns a model around: it says so, and lets the probabilities be nearly equal."""
    scores, codes = scores_and_classes(1)
    with pytest.warns(UserWarning, match="do not rise with the right answers"):
        slopes, offsets = fit_sigmoid(-scores, codes)
    assert 0 < slopes[0] < 1e-5
    assert expit(offsets[0]) == pytest.approx(codes.mean(), abs=0.01)
    with pytest.warns(UserWarning, match="do not rise with the right answers"):
        temperature = fit_temperature(-scores, codes)
    assert temperature > 1e3 * np.abs(scores).max()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_separable_scores_leave_a_doubt(n_classes):
    """All n answers were right: of n + 1/2, the half may be wrong."""
    codes = np.arange(60) % n_classes
    scores = 5.0 * np.eye(n_classes)[codes]
    scores = scores[:, 1:] - scores[:, :1] if n_classes == 2 else scores
    temperature = fit_temperature(scores, codes)
    p = expit(5 / temperature) if n_classes == 2 else 1 / (1 + (n_classes - 1) * np.exp(-5 / temperature))
    assert p == pytest.approx((60 + 0.5 / n_classes) / 60.5, rel=1e-6)
    assert fit_temperature(scores, codes, np.full(60, 1e-3)) > 2 * temperature  # fewer observations, more doubt


def test_equal_scores_need_no_warning():
    codes = np.r_[np.zeros(30, int), np.ones(10, int)]
    assert expit(-1 / fit_temperature(-np.ones((40, 1)), codes)) == pytest.approx(0.25, abs=0.01)
    slopes, offsets = fit_sigmoid(-np.ones((40, 1)), codes)
    assert expit(-slopes[0] + offsets[0]) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("n_columns", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_is_that_of_scikit_learn(n_columns, weighted):
    scores, codes = scores_and_classes(n_columns)
    weight = np.random.default_rng(1).uniform(0.1, 3, len(codes)) if weighted else None
    slopes, offsets = fit_sigmoid(scores, codes, weight)
    for c in range(n_columns):
        theirs = _SigmoidCalibration().fit(scores[:, c], (codes == (1 if n_columns == 1 else c)).astype(float), weight)
        np.testing.assert_allclose([-slopes[c], -offsets[c]], [theirs.a_, theirs.b_], rtol=1e-4)


def test_sigmoid_of_labels():
    scores, _ = scores_and_classes(3)
    indicators = (scores[:, ::-1] > 1).astype(np.uint8)
    slopes, offsets = fit_sigmoid(scores, indicators)
    for c in range(3):
        alone = fit_sigmoid(scores[:, [c]], indicators[:, c])
        np.testing.assert_allclose([slopes[c], offsets[c]], [alone[0][0], alone[1][0]], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator does not appear to accept sample_weight")  # it is fitted
@pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")
@each_estimator
@each_method
@pytest.mark.parametrize("name", DATA)
def test_probabilities_are_those_of_calibrated_classifier(estimator, method, name, monkeypatch):
    """CalibratedClassifierCV's, if it is given the out-of-fold scores that ours are fitted on.

    And the further observation that ours have: for the sigmoid, which has it beside the smoothed targets, the fit that
    is tested above takes its place.
    """
    X, y = DATA[name]
    seen = {}
    calibrate = calibrated.calibrate

    def noting(self, scores, codes, weight, own, kept):
        seen.update(scores=scores, codes=codes, weight=weight, own=own)
        calibrate(self, scores, codes, weight, own, kept)

    monkeypatch.setattr(calibrated, "calibrate", noting)
    monkeypatch.setattr(calibrated, "_ENOUGH_HELD_OUT", len(X))
    model = clone(estimator).set_params(calibration=method).fit(X, y)
    # of distinct rows: iris has one twice
    scores, codes, weight, (own, own_weight) = (seen[name] for name in ("scores", "codes", "weight", "own"))
    plain = clone(estimator).set_params(calibration=None).fit(X, y).decision_function(X)
    if method == "sigmoid" and isinstance(estimator, MLPClassifierTorch) and plain.ndim == 2:
        scores, own, plain = (s - s.mean(1, keepdims=True) for s in (scores, own, plain))
    plain = plain.reshape(len(X), -1)
    assert len(own) == len(np.unique(X, axis=0)) == len(scores)
    if method == "sigmoid":
        slopes, offsets = fit_sigmoid(scores, codes, weight, (own, own_weight))
        p = expit(slopes * plain + offsets)
        expected = np.hstack([1 - p, p]) if p.shape[1] == 1 else p / p.sum(1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-9)
        return
    n_classes = len(np.unique(y))
    scores = np.vstack([scores, own.repeat(n_classes, 0)])
    codes = np.r_[codes, np.tile(np.arange(n_classes), len(own))]
    weight = np.r_[weight, own_weight.repeat(n_classes) / n_classes]

    class Scores:
        """A fitted classifier whose samples are their scores."""

        _estimator_type, classes_ = "classifier", np.unique(y)

        def fit(self, X, y, sample_weight=None):
            return self

        def predict(self, X):
            raise NotImplementedError

        def decision_function(self, X):
            return X if X.shape[1] > 1 else X[:, 0]

        def __sklearn_tags__(self):
            return model.__sklearn_tags__()

        def __sklearn_is_fitted__(self):
            return True

    theirs = CalibratedClassifierCV(FrozenEstimator(Scores()), method=method, ensemble=False)
    theirs.fit(scores, codes, sample_weight=weight)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(plain), atol=2e-4)


# ---- what the scores are of ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "n_classes", "n_folds", "n_models"),
    [
        (299, 2, 5, 5),
        (300, 2, 4, 4),
        (600, 2, 4, 3),
        (1000, 2, 4, 2),
        (1500, 2, 3, 2),
        (1600, 41, 5, 2),
        (1640, 41, 3, 2),
    ],
)
@each_method
def test_many_rows_need_fewer_folds(n, n_classes, n_folds, n_models, method, monkeypatch):
    """Of distinct rows: weights count as repetitions do. One temperature needs few rows; slopes of classes, all."""
    dealt, y = [], np.arange(n) % n_classes
    X = np.column_stack([np.arange(n) / n, y[:, None] == np.arange(n_classes)])
    deal = Problem.dealt
    monkeypatch.setattr(Problem, "dealt", lambda *args: dealt.append(deal(*args)) or dealt[-1])
    model = LeastSquaresClassifier(calibration=method)
    for times in (1, 2):
        model.fit(np.tile(X, (times, 1)), np.tile(y, times))
    n_models = n_models if method == "temperature" else n_folds
    assert [(each[True].fold.max() + 1, len(each[True].numbers)) for each in dealt] == [(n_folds, n_models)] * 2


def test_rows_of_little_weight_hold_out_little(monkeypatch):
    """A temperature of rows whose weights are far apart is known as well as one of a few, so that no fold is spared."""
    n_scored, fit = [], calibrated.calibrate
    monkeypatch.setattr(calibrated, "calibrate", lambda *args: n_scored.append(len(args[1])) or fit(*args))
    generator = np.random.default_rng(0)
    X, y, weight = generator.normal(size=(1000, 2)), np.arange(1000) % 2, np.ones(1000)
    X[:, 0] += y
    model = SoftmaxClassifier(calibration="temperature", solver="lbfgs")
    model.fit(X, y, sample_weight=weight)
    weight[:100] = 1000
    model.fit(X, y, sample_weight=weight)
    assert n_scored == [500, 1000]


@pytest.mark.filterwarnings("ignore")  # of what such weights mean for the penalty
@pytest.mark.parametrize("unit", [1e-200, 1e-3, 1e200])
def test_folds_that_are_enough_do_not_depend_on_the_unit_of_weights(unit, monkeypatch):
    """Squares of weights may overflow, or vanish."""
    n_scored, fit = [], calibrated.calibrate
    monkeypatch.setattr(calibrated, "calibrate", lambda *args: n_scored.append(len(args[1])) or fit(*args))
    X, y = np.random.default_rng(0).normal(size=(600, 2)), np.arange(600) % 2
    HingeClassifier(calibration="temperature").fit(X, y, sample_weight=np.full(600, unit))
    assert n_scored == [450]


def test_folds_that_are_enough_do_not_depend_on_other_candidates():
    """Balanced weights of few positives count as few rows: for the candidate that has them alone."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(1400, 4))
    y = X[:, 0] + X[:, 1] + generator.normal(size=1400) > 2
    model = HingeClassifier(calibration="temperature", random_state=0)
    alone = [clone(model).set_params(class_weight=weight) for weight in (None, "balanced")]
    together = [clone(one) for one in alone]
    assert fit_stack(together, X, y) == [None] * 2
    for model, other in zip(alone, together, strict=True):
        assert other.temperature_ == pytest.approx(model.fit(X, y).temperature_, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")
def test_scores_are_out_of_fold(monkeypatch):
    """Labels without any relation to X: a model that has seen them would be sure of some."""
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(60, 200)), generator.integers(0, 2, 60)
    sure = SoftmaxClassifier(penalty=None, random_state=0).fit(X, y).predict_proba(X)
    model = SoftmaxClassifier(penalty=None, calibration="temperature", random_state=0).fit(X, y)
    assert sure.max(1).min() > 0.9
    assert model.temperature_ > 20
    assert np.abs(model.predict_proba(X) - 0.5).max() < 0.2


@each_estimator
def test_temperature_changes_nothing_but_probabilities(estimator):
    plain = clone(estimator).set_params(calibration=None).fit(CANCER, CANCER_Y)
    model = clone(estimator).set_params(calibration="temperature").fit(CANCER, CANCER_Y)
    assert isinstance(model.temperature_, float) and model.temperature_ > 0
    # in one stack with the folds, products round otherwise
    np.testing.assert_allclose(model.decision_function(CANCER), plain.decision_function(CANCER), rtol=1e-10)
    odds = np.log(model.predict_proba(CANCER)[:, 1]) - np.log(model.predict_proba(CANCER)[:, 0])
    moderate = np.abs(odds) < 20
    np.testing.assert_allclose(
        odds[moderate], (plain.decision_function(CANCER) / model.temperature_)[moderate], rtol=1e-6
    )


@pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")
@each_estimator
@each_method
@pytest.mark.parametrize("name", DATA)
def test_the_predicted_class_is_the_most_probable(estimator, method, name):
    X, y = DATA[name]
    model = clone(estimator).set_params(calibration=method).fit(X, y)
    far = 100 * np.random.default_rng(0).normal(size=X.shape)
    for Z in (X, far):
        proba, scores = model.predict_proba(Z), model.decision_function(Z)
        np.testing.assert_array_equal(proba.argmax(1), model.predict(Z))
        np.testing.assert_array_equal(scores.argmax(1) if scores.ndim == 2 else scores > 0, model.predict(Z))
        np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-9)
    assert model.score(X, y) > 0.6


@pytest.mark.parametrize("estimator", [ESTIMATORS[1], ESTIMATORS[4]], ids=lambda e: type(e).__name__)
@each_method
def test_each_label_has_its_own(estimator, method):
    plain = clone(estimator).fit(IRIS, LABELS)
    model = clone(estimator).set_params(calibration=method).fit(IRIS, LABELS)
    proba = model.predict_proba(IRIS)
    np.testing.assert_array_equal(model.predict(IRIS), proba > 0.5)
    assert (proba > 0).all() and (proba < 1).all()
    if method == "temperature":
        assert model.temperature_.shape == (3,)
        np.testing.assert_array_equal(model.predict(IRIS), plain.predict(IRIS))
        odds = plain.decision_function(IRIS) / model.temperature_
        np.testing.assert_allclose(proba, expit(odds), atol=1e-9)


def test_one_class_needs_no_calibration():
    model = MLPClassifierTorch((3,), max_iter=2, calibration="temperature").fit(IRIS, np.zeros(150))
    np.testing.assert_array_equal(model.predict_proba(IRIS), np.ones((150, 1)))


def test_rows_to_hold_out_are_needed():
    with pytest.raises(ValueError, match="calibration='sigmoid' needs at least 2 distinct rows of a class"):
        SoftmaxClassifier(calibration="sigmoid").fit([[0.0], [1.0]], [0, 1])


@pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")  # of the middle class of iris
@each_estimator
@each_method
def test_a_stack_calibrates_as_each_model_alone(estimator, method):
    base = clone(estimator).set_params(calibration=method)
    assert "random_state" not in stackable_now(base)
    assert not hasattr(base, "partial_fit")
    members = [clone(base).set_params(alpha=alpha) for alpha in (1e-4, 0.1)]
    assert fit_stack(members, IRIS, IRIS_Y) == [None, None]
    for member in members:
        alone = clone(member).fit(IRIS, IRIS_Y)
        # fold models of hinges are solved one after another, to a duality gap
        near = 2e-3 if isinstance(estimator, HingeClassifier) else 1e-9
        np.testing.assert_allclose(member.predict_proba(IRIS), alone.predict_proba(IRIS), atol=near)


def test_early_stopping_watches_probabilities_before_they_are_calibrated():
    """The folds then train as long as was best, in each solver."""
    for solver in ("sgd", "lbfgs"):
        params = {"solver": solver, "calibration": "sigmoid", "random_state": 0}
        model = SoftmaxClassifier(early_stopping=True, scoring="neg_log_loss", **params).fit(CANCER, CANCER_Y)
        np.testing.assert_allclose(-np.array(model.validation_scores_), model.validation_loss_curve_, rtol=1e-6)
        assert model.score(CANCER, CANCER_Y) > 0.9


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_columns", [1, 4])
def test_temperatures_are_where_brents_method_finds_them(seed, n_columns):
    """Of scores that tell nothing, little and all."""
    rng = np.random.default_rng(seed)
    n, C = 50, max(2, n_columns)
    codes, weight = rng.integers(0, C, n), rng.random(n)
    truth = np.eye(C)[codes][:, -n_columns:]
    scores = 10.0 ** (seed - 4) * (truth * seed / 2 + rng.normal(size=(n, n_columns)))
    logits = np.column_stack([np.zeros(n), scores]) if n_columns == 1 else scores

    def slope(log_b):
        p = softmax(np.exp(log_b) * logits, axis=1)
        share = weight / weight.sum() / 2
        rise = weight @ ((p * logits).sum(1) - logits[np.arange(n), codes])
        return rise + share @ ((p * logits).sum(1) - logits.mean(1))

    unit = np.log(np.abs(scores).sum() / (n * C))
    low, high = np.log([1e-4, 1e4]) - unit
    known = low if slope(low) >= 0 else brentq(slope, low, high, xtol=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert fit_temperature(scores, codes, weight) == pytest.approx(np.exp(-known), rel=1e-8)


# ---- and what it is good for -----------------------------------------------------------------------------------------


def expected_calibration_error(proba, y, n_bins=10):
    confidence, right = proba.max(1), proba.argmax(1) == y
    of_bin = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [abs((right[of_bin == b] - confidence[of_bin == b]).sum()) for b in range(n_bins)]
    return sum(gaps) / len(y)


def halves(load):
    X, y = load(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(X_test), y, y_test


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits, load_wine], ids=lambda load: load.__name__[5:])
@each_method
def test_scores_that_are_no_odds(load, method):
    """Least squares has scores from -1 to 1, whose softmax is far from sure enough."""
    X, X_test, y, y_test = halves(load)
    model = LeastSquaresClassifier(calibration="temperature", random_state=0).fit(X, y)
    model.temperature_ = 1.0
    before = model.predict_proba(X_test)
    after = LeastSquaresClassifier(calibration=method, random_state=0).fit(X, y).predict_proba(X_test)
    assert log_loss(y_test, after) < 0.6 * log_loss(y_test, before)
    assert expected_calibration_error(after, y_test) < 0.6 * expected_calibration_error(before, y_test)


@pytest.mark.parametrize("load", [load_breast_cancer, load_digits], ids=lambda load: load.__name__[5:])
def test_a_network_that_is_too_sure(load):
    """Trained to certainty on the training rows."""
    X, X_test, y, y_test = halves(load)
    model = MLPClassifierTorch((32,), column_learning_rate=0, alpha=0, solver="lbfgs", max_iter=100, random_state=0)
    before = model.fit(X, y).predict_proba(X_test)
    after = model.set_params(calibration="temperature").fit(X, y).predict_proba(X_test)
    assert model.temperature_ > 2
    assert log_loss(y_test, after) < 0.6 * log_loss(y_test, before)
    assert expected_calibration_error(after, y_test) < 0.8 * expected_calibration_error(before, y_test)


@pytest.mark.parametrize("calibration", ["temperature", "sigmoid"])
def test_weights_of_any_size(calibration):
    """Numbers of observations whose squares overflow, beside some that are nothing in comparison."""
    fit = fit_temperature if calibration == "temperature" else fit_sigmoid
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scores, codes = rng.normal(size=(60, 3)), rng.integers(3, size=60)
        weight = 10.0 ** rng.uniform(-200, 200, 60)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            warnings.simplefilter("ignore", UserWarning)
            found = fit(scores, codes, weight, (scores, weight))
        assert np.isfinite(found).all()


@pytest.mark.parametrize("penalty", ["l2", None])
def test_folds_of_models_that_stop_early_are_those_of_each_alone(penalty):
    """They end before the optimum, so that it matters where they begin: with an exact solver, too."""
    model = HingeClassifier("squared_hinge", penalty=penalty, early_stopping=True, random_state=0)
    alone = [clone(model).set_params(alpha=alpha) for alpha in (1.0, 10.0, 1e-3)]
    together = [clone(one) for one in alone]
    assert fit_stack(together, CANCER[:150], CANCER_Y[:150]) == [None] * 3
    for one, other in zip(alone, together, strict=True):
        one.fit(CANCER[:150], CANCER_Y[:150])
        assert other.temperature_ == pytest.approx(one.temperature_, rel=1e-6)


def test_folds_have_the_same_shift_of_intercepts_in_any_stack():
    """An L1 norm leaves a common part in the scores of all classes, which depends on where columns are centred."""
    X, y = load_wine(return_X_y=True)
    X, y = X[::3], y[::3]
    settings = {"solver": "exact", "tol": 1e-9, "random_state": 0}
    model = SoftmaxClassifier("elasticnet", l1_ratio=0.9, calibration="sigmoid", **settings)
    alone = [clone(model).set_params(alpha=alpha) for alpha in (1e-2, 1e-3)]
    together = [clone(one) for one in alone]
    assert fit_stack(together, X, y) == [None] * 2
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.predict_proba(X), one.fit(X, y).predict_proba(X), atol=1e-5)


def test_folds_of_many_columns_and_labels_are_those_of_a_column_each():
    """Their directions are by L-BFGS, each column's with the curvature of its own."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = rng.normal(size=(90, 60)) + 0.5 * rng.normal(size=(3, 60))[y]
    together = SigmoidClassifier(calibration="temperature", tol=1e-8, random_state=0).fit(X, np.eye(3, dtype=int)[y])
    for c in range(3):
        alone = SigmoidClassifier(calibration="temperature", tol=1e-8, random_state=0).fit(X, y == c)
        np.testing.assert_allclose(together.coef_[c], alone.coef_[0], atol=1e-6)


@pytest.mark.parametrize("clf", [HingeClassifier(), SoftmaxClassifier(calibration="temperature")])
def test_folds_of_a_warm_fit_come_to_their_optimum(clf):
    """However few iterations the model of all rows has needed, from where it was."""
    X, y = load_wine(return_X_y=True)
    warm = clone(clf).set_params(random_state=0, warm_start=True)
    first = warm.fit(X, y).temperature_
    for _ in range(2):
        np.testing.assert_allclose(warm.fit(X, y).temperature_, first, rtol=1e-4)
