"""Warm starts: from a model and nothing else, whatever has changed since the fit before."""

import copy
import dataclasses
import functools
import pickle
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import configured, in_one_test, reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from torch import nn

from skdeep import (
    Adam,
    AdamW,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.data.problem import Problem
from skdeep.data.state import TrainingState
from skdeep.fitting import calibration as calibrated
from skdeep.fitting.links import undo_calibration
from skdeep.fitting.starts import carried

pytestmark = pytest.mark.filterwarnings(
    # the middle class of iris has no scores that rise with it, where these are of three linear hinges
    "ignore:The scores of rows that a model was not trained on do not rise",
)

X, Y = load_iris(return_X_y=True)
FLIPPED = 2 - Y  # the first and the last class change places
ODD, EVEN = np.arange(len(Y)) % 2 == 1, np.arange(len(Y)) % 2 == 0
TRAIN, VALID = {"X": X[EVEN], "y": Y[EVEN]}, {"X_val": X[ODD], "y_val": Y[ODD]}


def small_net(n_features, n_outputs, width=8):
    return nn.Sequential(nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_outputs))


def another_net(n_outputs, width):
    return nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, n_outputs))


COMMON = {"random_state": 0, "device": "cpu", "warm_start": True}
STEPS = {"learning_rate_init": 0.03, "max_iter": 25}
MODELS = {
    "softmax": configured(SoftmaxClassifier, **COMMON),
    "softmax by sgd": configured(SoftmaxClassifier, solver="sgd", **COMMON),
    "softmax by adam": configured(SoftmaxClassifier, solver=Adam(learning_rate_init=0.1), **COMMON),
    "sigmoid": configured(SigmoidClassifier, solver="sgd", **COMMON),
    "hinge": configured(HingeClassifier, calibration=None, max_iter=100, **COMMON),
    "squares": configured(LeastSquaresClassifier, **COMMON),
    "squares by adamw": configured(LeastSquaresClassifier, solver=AdamW(learning_rate_init=0.05), **COMMON),
    # without bins, which a warm fit has as the first one had them
    "mlp": MLPClassifierTorch((8,), normalization="batch", numeric_embedding=None, **STEPS, **COMMON),
    "mlp by sgd": MLPClassifierTorch((8,), solver="sgd", activation="prelu", **STEPS, **COMMON),
    "mlp by lbfgs": MLPClassifierTorch((8,), solver="lbfgs", max_iter=25, **COMMON),
    "module": TorchClassifier(small_net, solver="adam", batch_size=50, learning_rate="cosine", **STEPS, **COMMON),
}
LINEAR = ("softmax", "sigmoid", "hinge", "squares")
FRAME, NAMED = pd.DataFrame(X, columns=list("abcd")), np.array(["ne", "pe", "se"])[Y]
FIRST = {"all rows": {"X": X, "y": Y}, "half": TRAIN | VALID, "named": {"X": FRAME, "y": NAMED}}


@functools.cache
def first_fit(estimator, data, **params):
    return reconfigured(clone(estimator), **params).fit(**FIRST[data])


def fitted(estimator, data="all rows", **params):
    """A copy of a model that many tests go on from."""
    return copy.deepcopy(first_fit(estimator, data, **params))


def is_linear(name):
    return name.startswith(LINEAR)


#: What changes between two fits: parameters, and arguments of ``fit``.
CHANGES = {
    "nothing": ({}, {}),
    "alpha up": ({"alpha": 1.0}, {}),
    "alpha down": ({"alpha": 1e-6}, {}),
    "class_weight": ({"class_weight": {0: 20.0, 1: 1.0, 2: 0.1}}, {}),
    "sample_weight": ({}, {"sample_weight": np.where(Y == 1, 30.0, 0.3)}),
    "labels": ({}, {"y": FLIPPED}),
    "shuffled labels": ({}, {"y": np.random.default_rng(1).permutation(Y)}),
    "more rows": ({}, {"X": np.vstack([X, X + 0.1]), "y": np.r_[Y, Y]}),
    "other rows": ({}, {"X": X[ODD] * [1, -1, 2, 0.5] + 3, "y": Y[ODD]}),
    "larger columns": ({}, {"X": 1000 * X}),
    "smaller columns": ({}, {"X": X / 1000}),
    "sparse": ({}, {"X": sparse.csr_array(X)}),
    "batch_size": ({"batch_size": 30}, {}),
    "precision": ({"precision": "float32"}, {}),
    "sgd": ({"solver": "sgd"}, {}),
    "adam": ({"solver": "adam", "learning_rate_init": 0.05}, {}),
    "temperature": ({"calibration": "temperature"}, {}),
    "early stopping": ({"early_stopping": True, "validation_fraction": 0.3}, {}),
    "watched": ({}, {"X_val": X[ODD], "y_val": Y[ODD]}),
}
LINEAR_CHANGES = {
    "penalty l1": ({"penalty": "l1", "solver": "sgd"}, {}),
    "no penalty": ({"penalty": None}, {}),
    "no intercept": ({"fit_intercept": False}, {}),
    "raw columns": ({"standardize": False}, {"X": X - X.mean(0)}),
    "sigmoid": ({"calibration": "sigmoid"}, {}),
}


def change(params, data):
    return params, {"X": X, "y": Y} | data


PAIRS = [(name, what, change(*CHANGES[what])) for name in MODELS for what in CHANGES]
PAIRS += [(name, what, change(*LINEAR_CHANGES[what])) for name in MODELS if is_linear(name) for what in LINEAR_CHANGES]
PAIRS += [("mlp", "sigmoid", change({"calibration": "sigmoid"}, {}))]
PAIRS = [pair for pair in PAIRS if pair[:2] != ("squares", "early stopping")]  # the closed form has no epochs
#: Models whose ways from fit to fit are of one kind: one of the four meets a change, another one the next.
KINDS = [
    ["softmax by sgd", "softmax by adam", "sigmoid", "squares by adamw"],
    ["mlp", "mlp by sgd", "mlp by lbfgs", "module"],
]
PLACES = {what: i for i, what in enumerate([*CHANGES, *LINEAR_CHANGES])}
LEFT_OUT = {(name, what) for kind in KINDS for i, name in enumerate(kind) for what in PLACES if (i + PLACES[what]) % 4}
PAIRS = [pair for pair in PAIRS if pair[:2] not in LEFT_OUT]


def log_loss_of(model, data):
    """What the fit was to make small, of the model as it is without a calibration."""
    plain = copy.deepcopy(model)
    undo_calibration(plain)
    plain.calibration = None
    weight = data.get("sample_weight", np.ones(len(data["y"])))
    if model.class_weight:
        weight = weight * np.vectorize(model.class_weight.get)(data["y"])
    return log_loss(data["y"], plain.predict_proba(data["X"]), sample_weight=weight)


@pytest.mark.parametrize("name, what, changed", PAIRS, ids=[f"{name}-{what}" for name, what, _ in PAIRS])
def test_it_ends_as_good_as_a_cold_one(name, what, changed):
    params, data = changed
    warm = fitted(MODELS[name])
    before = len(warm.loss_curve_), warm.t_
    reconfigured(warm, **params).fit(**data)
    cold = clone(warm).set_params(warm_start=False).fit(**data)
    assert vars(warm).keys() == vars(cold).keys()
    if is_linear(name):  # convex: the objectives themselves, with the penalty
        assert warm.loss_ <= cold.loss_ + 0.02 * abs(cold.loss_) + 1e-3
        assert warm.score(data["X"], data["y"]) >= cold.score(data["X"], data["y"]) - 0.04
    else:
        assert log_loss_of(warm, data) <= 1.2 * log_loss_of(cold, data) + 0.05
    # the record: of this fit what speaks of its problem, of all fits what accumulates
    mine = warm.loss_curve_[before[0] :]
    assert len(mine) == warm.n_iter_
    assert warm.best_loss_ == (None if warm.early_stopping else min(mine))
    assert warm.t_ - before[1] == cold.t_ / cold.n_iter_ * warm.n_iter_
    if warm.validation_scores_:
        scores = warm.validation_scores_[-warm.n_iter_ :]
        assert warm.best_validation_score_ >= max(scores)
        assert len(scores) == warm.n_iter_


each_model = pytest.mark.parametrize("name", MODELS)


def contents(value):
    """A fitted attribute as something that can be compared."""
    if dataclasses.is_dataclass(value) or isinstance(value, nn.Module):
        value = vars(value) if dataclasses.is_dataclass(value) else dict(value.state_dict())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, dict):
        return {key: contents(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [contents(part) for part in value]
    return np.asarray(value).tolist() if hasattr(value, "__array__") else value


@each_model
@pytest.mark.parametrize("what", ["nothing", "more rows"])
def test_what_is_listed_is_all_that_is_taken_over(name, what):
    _, data = change(*CHANGES[what])
    early = {} if name == "squares" else {"early_stopping": True}
    calibration = {"calibration": "temperature"} if name in ("softmax by sgd", "mlp") else {}
    model = fitted(MODELS[name], **early, **calibration, max_iter=5)
    bare, spoilt = copy.deepcopy(model), copy.deepcopy(model)
    for attribute in model._fitted - carried(model):
        delattr(bare, attribute)
        setattr(spoilt, attribute, "of no use")
    bare._optimizer = TrainingState(
        **{part: getattr(model._optimizer, part) for part in ("source", "split_seed", "solver", "optimizer")},
        **{part: getattr(model._optimizer, part) for part in ("trained", "problem", "seen_before")},
    )
    expected = contents(vars(model.fit(**data)))
    assert contents(vars(bare.fit(**data))) == expected
    assert contents(vars(spoilt.fit(**data))) == expected


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(),
        HingeClassifier(),
        LeastSquaresClassifier(),
        MLPClassifierTorch((8,), max_iter=5),
        TorchClassifier(small_net, max_iter=5),
        MLPEnsembleClassifier(n_estimators=2, hidden_layer_sizes=(4,), max_iter=3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_cold_fit_leaves_nothing_of_an_earlier_one(model):
    model.set_params(random_state=0, calibration="temperature", max_iter=5)
    if not isinstance(model, LeastSquaresClassifier):
        model.set_params(early_stopping=True)
    if isinstance(model, MLPClassifierTorch):
        model.set_params(normalization="batch", activation="prelu")
    model.mine_ = "not of a fit"
    model.fit(X, Y, **VALID)
    assert model.temperature_ > 0
    plain = {"calibration": None, "early_stopping": False}
    if isinstance(model, MLPClassifierTorch):
        plain |= {"normalization": None, "activation": "relu", "column_learning_rate": 0, "standardize": False}
    new = clone(reconfigured(model, **plain)).fit(X, Y)
    assert vars(model.fit(X, Y)).keys() - {"mine_"} == vars(new).keys()
    assert model.mine_ == "not of a fit"


# ---- calibration -----------------------------------------------------------------------------------------------------

CALIBRATED = {
    "softmax": configured(SoftmaxClassifier, **COMMON),
    "sigmoid": configured(SigmoidClassifier, **COMMON),
    "hinge": configured(HingeClassifier, max_iter=50, **COMMON),
    "squares": configured(LeastSquaresClassifier, **COMMON),
    "mlp": MLPClassifierTorch((16,), max_iter=25, **COMMON),
}
each_calibrated = pytest.mark.parametrize("name", CALIBRATED)


@pytest.mark.slow
@each_calibrated
def test_fits_with_platts_sigmoid_can_be_repeated(name):
    model = fitted(CALIBRATED[name], calibration="sigmoid")
    first = model.score(X, Y)
    for _ in range(4):
        assert model.fit(X, Y).score(X, Y) >= first - 1.5 / len(Y)  # one row, near the border of two classes, may turn
        np.testing.assert_array_equal(model.predict(X), model.classes_[model.predict_proba(X).argmax(1)])


@each_calibrated
@pytest.mark.parametrize("y", [Y, Y > 0], ids=["three classes", "two classes"])
def test_the_slopes_are_those_that_were_folded_in(name, y):
    plain = clone(CALIBRATED[name]).set_params(calibration=None).fit(X, y)
    model = clone(CALIBRATED[name]).set_params(calibration="sigmoid").fit(X, y)
    scores = plain.decision_function(X)
    slopes, offsets = model.calibration_slopes_, model.calibration_offsets_
    assert slopes.shape == offsets.shape == (model.n_outputs_,)
    if name == "mlp" and scores.ndim == 2:  # a softmax leaves it free
        scores = scores - scores.mean(1, keepdims=True)
    np.testing.assert_allclose(model.decision_function(X), slopes * scores + offsets, rtol=1e-9, atol=1e-9)
    before = model.decision_function(X)
    copied = copy.copy(model)
    undo_calibration(copied)
    np.testing.assert_allclose(copied.decision_function(X), scores, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(model.decision_function(X), before)


@each_calibrated
@pytest.mark.parametrize("goes_on", ["partial_fit", "fit"])
@pytest.mark.parametrize("kind", ["sigmoid", "temperature"])
def test_training_goes_on_from_the_model_and_not_from_its_calibration(name, kind, goes_on):
    params = {"solver": "sgd", "learning_rate": "constant", "learning_rate_init": 0.01, "max_iter": 4}
    params |= {"alpha": 0.08} if name == "mlp" else {}
    plain = reconfigured(clone(CALIBRATED[name]), **params, calibration=None).fit(X, Y)
    model = reconfigured(clone(CALIBRATED[name]), **params, calibration=kind).fit(X, Y)
    model = pickle.loads(pickle.dumps(model)).set_params(calibration=None)
    for one in (plain, model):
        getattr(one, goes_on)(X, Y)
    assert vars(model).keys() == vars(plain).keys()
    free = name == "mlp" and kind == "sigmoid"  # of a common shift of the scores, which a softmax does not see
    np.testing.assert_allclose(model.loss_curve_, plain.loss_curve_, rtol=2e-3 if free else 1e-8)
    scores, expected = model.decision_function(X), plain.decision_function(X)
    if free:
        scores, expected = (part - part.mean(1, keepdims=True) for part in (scores, expected))
    np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=5e-3 if free else 1e-8)


@pytest.mark.slow
@each_calibrated
def test_calibrations_of_each_kind_in_turn(name):
    model = clone(CALIBRATED[name])
    for kind in ("sigmoid", "temperature", "sigmoid", None, "sigmoid"):
        model.set_params(calibration=kind).fit(X, Y)
        assert hasattr(model, "temperature_") == (kind == "temperature")
        assert hasattr(model, "calibration_slopes_") == (kind == "sigmoid")
        assert model.score(X, Y) > 0.8
    alone = clone(model).fit(X, Y)
    if name in ("softmax", "sigmoid", "squares"):  # at the optimum
        np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), atol=0.02)


@pytest.mark.parametrize("model", [*CALIBRATED.values(), MLPEnsembleClassifier(2, (4,), max_iter=3)], ids=repr)
def test_a_calibration_that_was_not_fitted_is_an_error(model):
    for known in (None, "temperature", "sigmoid"):
        clf = fitted(model, calibration=known, random_state=0)
        for asked in {None, "temperature", "sigmoid"} - {known}:
            clf.set_params(calibration=asked)
            if asked is None and (known == "temperature" or not hasattr(clf, "predict_proba")):
                continue  # as it is without the temperature, or no probabilities at all
            with pytest.raises(NotFittedError, match=f"calibration={asked!r}.*fit again"):
                clf.predict_proba(X)
        clf.set_params(calibration=known)
        assert np.isfinite(clf.decision_function(X)).all()


def test_a_fit_that_fails_leaves_the_calibrated_model():
    for name in CALIBRATED:
        model = fitted(CALIBRATED[name], calibration="sigmoid")
        before = model.predict_proba(X)
        with pytest.raises(ValueError, match="expecting 4 features"):
            model.fit(X, Y, X_val=X[:, :3], y_val=Y)
        with pytest.raises(ValueError, match="expecting 4 features"):
            model.fit(X[:, :3], Y)
        with pytest.raises(ValueError, match="same classes"):
            model.fit(X[:100], Y[:100])
        np.testing.assert_array_equal(model.predict_proba(X), before)


def test_a_slope_of_zero_tells_nothing_of_the_scores():
    model = clone(CALIBRATED["softmax"]).set_params(calibration="sigmoid").fit(X, Y)
    undo_calibration(model)
    coef = model.coef_
    model.calibration_slopes_, model.calibration_offsets_ = np.array([2.0, 0.0, 1.0]), np.array([0.0, -3.0, 0.0])
    model._map_scores(np.diag(model.calibration_slopes_), model.calibration_offsets_)
    undo_calibration(model)
    np.testing.assert_allclose(model.coef_, coef * [[1.0], [0.0], [1.0]])
    assert model.intercept_[1] == 0
    model.set_params(calibration=None, tol=1e-6).fit(X, Y)
    np.testing.assert_allclose(model.coef_, clone(model).fit(X, Y).coef_, atol=1e-3)


# ---- the start is a model as well ------------------------------------------------------------------------------------

WATCHED = {name: model for name, model in MODELS.items() if name != "squares"}
each_watched = pytest.mark.parametrize("name", WATCHED)


#: scikit-learn's scorers ask all models alike: one of each kind, and those without probabilities for their labels.
SCORED = [
    *product(WATCHED, [None, "loss"]),
    *product(["softmax by sgd", "mlp", "module"], ["neg_log_loss"]),
    *product(["hinge", "squares by adamw"], ["balanced_accuracy"]),
]


@pytest.mark.parametrize("name, scoring", SCORED)
def test_the_start_is_kept_if_no_epoch_is_better(name, scoring):
    """On labels that are wrong, but for those to judge by."""
    model = fitted(WATCHED[name], "half", early_stopping=True, scoring=scoring)
    scores, best, length = model.decision_function(X), model.best_validation_score_, len(model.validation_scores_)
    wrong = np.random.default_rng(0).permutation(Y[EVEN])
    model.fit(X[EVEN], wrong, **VALID)
    np.testing.assert_allclose(model.decision_function(X), scores, rtol=1e-9, atol=1e-9)
    assert model.best_validation_score_ == pytest.approx(best, abs=1e-9)
    lately = model.validation_scores_[length:]
    assert len(lately) == model.n_iter_ and max(lately) <= model.best_validation_score_
    assert model.best_validation_score_ not in lately or scoring is None


@each_watched
def test_the_start_is_judged_by_the_rows_of_today(name):
    model = fitted(WATCHED[name], "half", early_stopping=True, scoring=None)
    assert model.best_validation_score_ > 0.8
    model.fit(X[EVEN], FLIPPED[EVEN], X_val=X[ODD], y_val=FLIPPED[ODD])
    assert model.score(X[ODD], FLIPPED[ODD]) > 0.8
    cold = clone(model).fit(X[EVEN], FLIPPED[EVEN], X_val=X[ODD], y_val=FLIPPED[ODD])
    assert model.best_validation_score_ >= cold.best_validation_score_ - 0.04


@each_watched
def test_the_start_is_judged_by_the_score_of_today(name):
    """An accuracy is no yardstick for a negative loss."""
    model = fitted(WATCHED[name], "half", early_stopping=True, scoring=None)
    model.set_params(scoring="loss").fit(**TRAIN, **VALID)
    cold = clone(model).fit(**TRAIN, **VALID)
    assert model.best_validation_score_ < 0
    assert model.best_validation_score_ >= 1.1 * cold.best_validation_score_ - 0.05


def test_epochs_without_validation_have_no_score():
    model = reconfigured(clone(MODELS["softmax by sgd"]), max_iter=3, learning_rate="constant")
    model.fit(**TRAIN, **VALID).fit(**TRAIN)
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == len(model.loss_curve_) == 6
    np.testing.assert_array_equal(np.isnan(model.validation_scores_), [False] * 3 + [True] * 3)
    assert model.best_validation_score_ is None
    model.fit(**TRAIN, **VALID)
    assert model.best_validation_score_ == max(model.validation_scores_[6:])


@pytest.mark.parametrize("name", ["softmax by adam", "mlp", "module"])
def test_rows_that_were_trained_on_are_never_judged_by(name, monkeypatch):
    held_out, split = [], Problem.split

    def watched(problem, *args):
        parts = split(problem, *args)
        held_out.append({row.tobytes() for row in np.asarray(parts[2].X)})
        return parts

    monkeypatch.setattr(Problem, "split", watched)
    model = clone(MODELS[name]).set_params(random_state=None, early_stopping=True, max_iter=2).fit(X, Y)
    pickle.loads(pickle.dumps(model)).fit(X, Y).fit(X[::-1], Y[::-1])
    assert held_out[0] == held_out[1] == held_out[2]
    clone(model).fit(X, Y)
    assert held_out[3] != held_out[0]


# ---- where the way goes on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softmax by sgd", "softmax by adam", "mlp", "module"])
@pytest.mark.parametrize("what, kept", [("nothing", True), ("more rows", False), ("alpha down", False)])
def test_the_optimizers_state_is_of_one_problem(name, what, kept, monkeypatch):
    from skdeep.engine.optimizers import Optimizer

    params, data = change(*CHANGES[what])
    model, loaded, load = fitted(MODELS[name], max_iter=2), [], Optimizer.load
    monkeypatch.setattr(Optimizer, "load", lambda *args: loaded.append(1) or load(*args))
    reconfigured(model, **params).fit(**data)
    assert bool(loaded) == kept


@pytest.mark.parametrize("name", ["softmax by sgd", "mlp", "module"])
def test_on_another_problem_it_begins_at_the_model(name):
    """Where that is of any use there: steps too small to lead anywhere show it."""
    model = fitted(MODELS[name])
    scores = model.decision_function(X)
    reconfigured(model, learning_rate_init=1e-12, max_iter=1).fit(X[EVEN], Y[EVEN])
    if name != "mlp":  # whose running averages are of the rows of today
        np.testing.assert_allclose(model.decision_function(X), scores, atol=1e-6)
    assert model.score(X, Y) > 0.9


def test_columns_are_measured_anew_by_fit_and_go_on_in_partial_fit():
    model = clone(MODELS["softmax by sgd"]).fit(X, Y).fit(10 * X[EVEN], Y[EVEN])
    np.testing.assert_allclose(model._optimizer.columns.mean, 10 * X[EVEN].mean(0))
    model.partial_fit(10 * X[ODD], Y[ODD])
    np.testing.assert_allclose(model._optimizer.columns.mean, 10 * X.mean(0))


@pytest.mark.parametrize("goes_on", ["fit", "partial_fit"])
@pytest.mark.parametrize("changed", [{"module__width": 3}, {"module": another_net}], ids=["width", "module"])
def test_another_module_is_an_error(changed, goes_on):
    model = pickle.loads(pickle.dumps(clone(MODELS["module"]).set_params(module__width=4, max_iter=2).fit(X, Y)))
    expected = model.fit(X, Y).predict_proba(X)
    with pytest.raises(ValueError, match=r"module_params has changed.*warm_start=False"):
        getattr(reconfigured(model, **changed), goes_on)(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    model.set_params(warm_start=False).fit(X, Y)


@pytest.mark.parametrize("name", ["softmax by sgd", "mlp"])
def test_fold_models_are_trained_as_long_as_the_model(name, monkeypatch):
    """Which a warm start makes longer than its own epochs."""
    params = {"early_stopping": True, "scoring": "loss", "calibration": "temperature", "max_iter": 12}
    model = reconfigured(clone(MODELS[name]), **params, learning_rate="constant")
    limits, make = [], calibrated._fold_progress
    monkeypatch.setattr(calibrated, "_fold_progress", lambda *args: limits.append(make(*args)) or limits[-1])
    model.fit(**TRAIN, **VALID)
    assert {p.max_iter for p in limits} == {int(np.argmax(model.validation_scores_)) + 1}
    first = model._optimizer.trained
    limits.clear()
    reconfigured(model, learning_rate_init=1e3).fit(**TRAIN, **VALID)  # too large a step for any epoch to be better
    assert {p.max_iter for p in limits} == {first}
    limits.clear()
    model.fit(X[EVEN][:60], Y[EVEN][:60], **VALID)  # where nobody knows how long that would have taken
    assert {p.max_iter for p in limits} == {np.inf}


@pytest.mark.parametrize("kind", ["temperature", "sigmoid"])
@pytest.mark.parametrize("name", ["softmax by sgd", "hinge", "mlp by sgd", "module"])
def test_a_chain_of_short_fits_is_calibrated_as_one_long_fit(name, kind):
    """The fold models have no earlier fits: those of a chain were of one epoch each, and far too certain."""
    if (name, kind) == ("module", "sigmoid"):
        kind = "temperature"
    params = {"learning_rate": "constant", "learning_rate_init": 0.02, "tol": 0.0, "n_iter_no_change": np.inf}
    model = reconfigured(clone(MODELS[name]), **params, solver="sgd", calibration=kind)
    long = clone(model).set_params(max_iter=12).fit(**TRAIN)
    for epochs in (1, 1, 4, 6):
        model.set_params(max_iter=epochs).fit(**TRAIN)
    np.testing.assert_allclose(model.predict_proba(X), long.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("name", ["softmax by sgd", "module"])
def test_a_schedule_by_rows_seen_is_of_one_problem(name):
    params = {"learning_rate": "invscaling", "max_iter": 3, "learning_rate_init": 0.01, "tol": 0.0}
    model = reconfigured(clone(MODELS[name]), **params).fit(X, Y)
    before = model.t_
    assert model._optimizer.learning_rate == pytest.approx(0.01 / (before + 1) ** 0.5)
    for _ in range(2):
        model.fit(X[EVEN], Y[EVEN])
        assert model._optimizer.learning_rate == pytest.approx(0.01 / (model.t_ - before + 1) ** 0.5)
    assert model.t_ > before + 6 * 70


# ---- names and labels of before --------------------------------------------------------------------------------------

ANSWERS = pd.DataFrame({"low": Y == 0, "high": Y > 1}).astype(int)


def goings_on(model, X, y):
    """The ways to go on with a model that was fitted, and to judge it by."""
    others = {"early_stopping": True} if hasattr(model, "partial_fit") else {}
    yield lambda: copy.deepcopy(model).fit(X, y)
    if hasattr(model, "partial_fit"):
        yield lambda: copy.deepcopy(model).partial_fit(X, y)
    first = (FRAME, NAMED) if np.ndim(y) == 1 else (FRAME, ANSWERS)
    yield lambda: reconfigured(copy.deepcopy(model), warm_start=False, **others).fit(*first, X_val=X, y_val=y)


@pytest.mark.parametrize("name", MODELS)
@in_one_test(
    "other, message",
    [
        (FRAME[list("badc")], "feature names should match.*same order"),
        (FRAME.rename(columns={"a": "z"}), "feature names should match.*unseen at fit time.*z"),
        (FRAME[list("abc")], "feature names should match.*now missing.*d"),
        (pl.from_pandas(FRAME[list("badc")]), "feature names should match.*same order"),
    ],
)
def test_columns_are_those_of_before(name, other, message):
    model = fitted(MODELS[name], "named", max_iter=2)
    for go_on in goings_on(model, other, NAMED):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            go_on()


@pytest.mark.parametrize("name", MODELS)
@in_one_test(
    "labels, message",
    [
        (np.where(Y == 2, "te", NAMED), r"classes.*te"),
        (Y, r"classes.*\[0 1 2\]"),
        (np.array(["M1", "M2", "M3"])[Y], r"classes.*M1"),
        (np.array(["2020", "2021", "2022"], dtype="M8[D]")[Y], r"classes.*2020-01-01"),
    ],
)
def test_classes_are_those_of_before(name, labels, message):
    model = fitted(MODELS[name], "named", max_iter=2)
    for go_on in goings_on(model, FRAME, labels):
        with pytest.raises(ValueError, match=message):
            go_on()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "kind",
    [
        lambda y: y.astype("U9"),
        lambda y: y.astype(object),
        lambda y: pd.Series(pd.Categorical(y, ["unused", "se", "pe", "ne"])),
        lambda y: pl.Series(y).cast(pl.Enum(["se", "pe", "ne"])),
    ],
    ids=["longer", "objects", "categories", "Enum"],
)
def test_the_same_classes_in_another_form_or_order(name, kind):
    model = fitted(MODELS[name], "named", max_iter=2)
    found, expected = (copy.deepcopy(model).fit(FRAME[::-1], y[::-1]) for y in (kind(NAMED), NAMED))
    np.testing.assert_array_equal(found.decision_function(FRAME), expected.decision_function(FRAME))
    np.testing.assert_array_equal(found.classes_, ["ne", "pe", "se"])


@pytest.mark.parametrize("name", ["sigmoid", "mlp", "module"])
@pytest.mark.parametrize("frame", [lambda y: y, pl.from_pandas], ids=["pandas", "Polars"])
def test_label_indicators_are_those_of_before(name, frame):
    model = clone(MODELS[name]).set_params(max_iter=2).fit(FRAME, frame(ANSWERS))
    for other in (ANSWERS[["high", "low"]], ANSWERS.rename(columns={"low": "small"})):
        for go_on in [*goings_on(model, FRAME, frame(other)), lambda y=other: model.score(FRAME, frame(y))]:
            with pytest.raises(
                ValueError, match=r"columns of `y(_val)?` are .* trained on \['low', 'high'\].*same order"
            ):
                go_on()
    for same in (ANSWERS, ANSWERS.to_numpy()):
        for go_on in goings_on(model, FRAME, same):
            go_on()
    cold = clone(model).set_params(warm_start=False).fit(FRAME, ANSWERS).fit(FRAME, ANSWERS[["high", "low"]])
    assert cold.score(FRAME, ANSWERS[["high", "low"]]) > 0


@pytest.mark.parametrize("form", [SoftmaxClassifier, SigmoidClassifier, LinearRegressor])
def test_parts_after_a_fit_have_a_learning_rate(form):
    """A fit ends where "adaptive" has left next to nothing of it, and other rows are to be learnt none the less."""
    table = np.random.default_rng(0).normal(size=(200, 3))
    first, second = (table[:, i] > 0 for i in (0, 1))
    model = form(solver="sgd", random_state=0).fit(table, first)
    before = model.score(table, second)
    for _ in range(30):
        model.partial_fit(table, second)
    assert model.score(table, second) > before + 0.3


def test_a_stream_of_parts_goes_on_learning():
    """The losses of parts differ by their rows, which "adaptive" must not take for the end."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(8000, 20))
    values = table.sum(axis=1) + 10 * rng.normal(size=len(table))
    model = LinearRegressor(random_state=0)
    for start in range(0, len(table), 32):
        model.partial_fit(table[start : start + 32], values[start : start + 32])
    assert model.score(table, table.sum(axis=1)) > 0.9
