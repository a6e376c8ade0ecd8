"""The stacked searches against scikit-learn's own over the same estimators."""

import contextlib
import functools
import pickle
import warnings
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import sklearn
import torch
from helpers import reconfigured
from scipy.stats import loguniform
from sklearn import model_selection as reference
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import EpochTimer

from skdeep import (
    SGD,
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
)
from skdeep import model_selection as stacked
from skdeep.estimators import prediction
from skdeep.fitting.fit import fit
from skdeep.model_selection import StackingWarning, one_standard_error, regularization_path
from skdeep.model_selection import stacks as stacking
from skdeep.model_selection.evaluation import Task, stacks_of
from skdeep.model_selection.stacks import capacity, fit_stack, stackable_now

#: Of models that are trained for a few epochs.
pytestmark = pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")

DIGITS = tuple(part[:120] for part in load_digits(return_X_y=True))
WINE = load_wine(return_X_y=True)
CANCER = tuple(part[::3] for part in load_breast_cancer(return_X_y=True))
IRIS = load_iris(return_X_y=True)
ALPHAS = np.logspace(-5, 0, 4)

# at its optimum, wherever it begins
SOFTMAX = SoftmaxClassifier(random_state=0, max_iter=200, tol=1e-7)
HINGE = HingeClassifier(random_state=0, max_iter=4, solver="sgd")
MLP = MLPClassifierTorch((8,), random_state=0, max_iter=4)


def compare(estimator, grid, data, search="GridSearchCV", fit_params=None, tolerance=1e-9, **options):
    """Both searches; their results must agree in everything but times. Returns ours."""
    options = {"cv": 2, **options}
    ours, theirs = (
        getattr(module, search)(clone(estimator), grid, **options).fit(*data, **(fit_params or {}))
        for module in (stacked, reference)
    )
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for key, expected in theirs.cv_results_.items():
        if key == "params":
            assert ours.cv_results_[key] == expected
        elif not key.endswith("_time"):
            actual = ours.cv_results_[key]
            if np.ma.isMaskedArray(expected):
                assert list(map(str, actual)) == list(map(str, expected))
            else:
                np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=key)
    for name in ("best_params_", "best_index_", "best_score_", "n_splits_", "multimetric_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        if hasattr(ours, name):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=tolerance, nan_ok=True)
    if hasattr(theirs, "best_estimator_"):
        assert (ours.predict(data[0]) == theirs.predict(data[0])).mean() >= 1 - tolerance
    return ours


@pytest.mark.parametrize(  # ten classes, three, and two: each kind of model meets two of them among its cases
    ("estimator", "grid", "data"),
    [
        (SOFTMAX, {"alpha": ALPHAS}, DIGITS),
        (SOFTMAX, {"alpha": ALPHAS}, CANCER),
        (SOFTMAX, {"alpha": ALPHAS[:2], "penalty": ["l1", "l2"]}, WINE),
        (clone(SOFTMAX).set_params(penalty="elasticnet", early_stopping=True), {"l1_ratio": [0.0, 0.5, 1.0]}, CANCER),
        (
            clone(SOFTMAX).set_params(solver=Adam(), max_iter=10, tol=1e-4),
            {"solver__learning_rate_init": [1e-3, 1e-2], "alpha": ALPHAS[:2]},
            DIGITS,
        ),
        (HINGE, {"alpha": ALPHAS[::3], "loss": ["hinge", "squared_hinge"]}, DIGITS),
        (HINGE, {"alpha": ALPHAS[::3]}, CANCER),
        (
            clone(MLP).set_params(early_stopping=True),
            {"alpha": ALPHAS[::3], "learning_rate_init": [1e-3, 1e-2]},
            CANCER,
        ),
        (clone(MLP).set_params(solver="sgd"), {"momentum": [0.0, 0.9], "tol": [1e-4, 1e-2]}, DIGITS),
        (
            clone(MLP).set_params(hidden_layer_sizes=(8, 8), normalization="batch", early_stopping=True),
            [{"dropout": [0.0, 0.2, 0.5], "stochastic_depth": [0.5]}, {"dropout": [0.2], "alpha": ALPHAS[::3]}],
            WINE,
        ),
    ],
    ids=[
        *("softmax-digits", "softmax-breast_cancer", "penalties-wine", "l1_ratio-breast_cancer"),
        *(
            "adam-digits",
            "hinge-digits",
            "hinge-breast_cancer",
            "mlp-breast_cancer",
            "mlp-sgd-digits",
            "mlp-noise-wine",
        ),
    ],
)
def test_scores_equal_those_of_scikit_learn(estimator, grid, data):
    # L-BFGS of many models begins where a stronger penalty ended, and all end near the optimum
    near = {"auto": 5e-3 if data is DIGITS else 1e-6}.get(estimator.solver, 1e-9)
    scoring = ["accuracy", "neg_log_loss"]
    compare(estimator, grid, data, tolerance=near, scoring=scoring, refit="neg_log_loss", return_train_score=True, cv=3)


@pytest.mark.parametrize(
    ("estimator", "data"),
    [
        (HingeClassifier(), DIGITS),
        (HingeClassifier(), CANCER),
        (HingeClassifier(multi_class="ovr"), WINE),
        (HingeClassifier("squared_hinge", multi_class="ovr", tol=1e-7), WINE),
        (HingeClassifier("squared_hinge", multi_class="ovr", tol=1e-7), CANCER),
        (SoftmaxClassifier("l1", max_iter=1000), DIGITS),
        (SoftmaxClassifier("l1", max_iter=1000), CANCER),
    ],
    ids=lambda value: str(value) if isinstance(value, BaseEstimator) else f"{value[0].shape[1]} columns",
)
def test_whole_grids_score_as_one_model_after_another(estimator, data):
    """All folds and candidates in one stack, to what their certificates leave open: a test row in each fold."""
    grid = {"alpha": np.logspace(-3, -1, 4)}
    compare(estimator, grid, data, tolerance=1 / 60)


@pytest.mark.parametrize(
    "estimator",
    [
        SoftmaxClassifier(tol=1e-8),
        SoftmaxClassifier("l1", tol=1e-6),
        HingeClassifier(tol=1e-6),
        HingeClassifier("squared_hinge", multi_class="ovr", tol=1e-8),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1.0, 0.7])
def test_rows_that_a_split_repeats_count_as_often(estimator, size):
    """Bootstrap samples, also of as many rows as there are, which once passed for all of them."""
    X, y = WINE
    random = np.random.default_rng(0)
    train = [random.integers(0, len(y), int(size * len(y))) for _ in range(3)]
    cv = [(rows, np.setdiff1d(np.arange(len(y)), rows)) for rows in train]
    compare(estimator, {"alpha": np.logspace(-4, 0, 4)}, WINE, cv=cv)


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (LeastSquaresClassifier(calibration="temperature", random_state=0), {"alpha": ALPHAS}),
        (
            LeastSquaresClassifier(solver="sgd", calibration="sigmoid", max_iter=20, random_state=0),
            {"alpha": ALPHAS[::3]},
        ),
        (SigmoidClassifier(max_iter=20, random_state=0), {"alpha": ALPHAS, "label_smoothing": [0.0, 0.1]}),
        (clone(SOFTMAX).set_params(calibration="sigmoid", tol=1e-10), {"alpha": ALPHAS}),
        (clone(MLP).set_params(calibration="temperature"), {"alpha": ALPHAS[:2], "label_smoothing": [0.0, 0.1]}),
        (clone(MLP).set_params(max_iter=30), {"learning_rate_init": ["auto", 0.02]}),  # schedules of two lengths
    ],
    ids=["least squares", "least squares, sgd", "sigmoid", "calibrated softmax", "calibrated mlp", "mlp rates"],
)
def test_further_models_score_as_in_scikit_learn(estimator, grid):
    compare(estimator, grid, WINE, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss")


def test_multilabel_targets():
    X, y = WINE
    labels = np.column_stack([y == 0, y != 1, X[:, 0] > 13]).astype(int)
    compare(
        SigmoidClassifier(max_iter=20, random_state=0),
        {"alpha": ALPHAS},
        (X, labels),
        cv=KFold(3, shuffle=True, random_state=0),
    )


@pytest.mark.parametrize(
    "estimator",
    [clone(SOFTMAX).set_params(max_iter=30), HINGE, clone(MLP).set_params(learning_rate_init=0.01)],
    ids=lambda e: type(e).__name__,
)
def test_every_stackable_parameter(estimator):
    values = {
        "alpha": [1e-3, 0.1],
        "l1_ratio": [0.2, 0.8],
        "learning_rate_init": [1e-3, 1e-2],
        "momentum": [0.0, 0.5],
        "class_weight": [None, "balanced", {0: 1, 1: 2, 2: 3}],
        "random_state": [0, 1],
        "tol": [1e-4, 1e-2],
        "n_iter_no_change": [1, 3],
    }
    estimator = clone(estimator)
    if isinstance(estimator, MLPClassifierTorch):
        estimator.set_params(hidden_layer_sizes=(8, 8), dropout=0.1, stochastic_depth=0.1)
        values |= {"dropout": [0.2, 0.6], "stochastic_depth": [0.3, 0.7]}
    else:
        estimator.set_params(penalty="elasticnet", solver=SGD())
        for name in ("learning_rate_init", "momentum", "n_iter_no_change"):
            values[f"solver__{name}"] = values.pop(name)
    assert values.keys() <= estimator.stackable
    assert {name.removeprefix("solver__") for name in estimator.stackable - values.keys()} <= values.keys()
    # a calibration splits the rows by the seed, and dropout goes by their order
    assert stackable_now(estimator) == estimator.stackable - (
        set() if isinstance(estimator, SoftmaxClassifier) else {"random_state"}
    )
    names = values.keys() & estimator.get_params() & stackable_now(estimator)
    members = [clone(estimator).set_params(**{name: value}) for name in sorted(names) for value in values[name]]
    X, y = IRIS
    assert fit_stack(members, X, y) == [None] * len(members)
    for member in members:
        alone = clone(member).fit(X, y)
        np.testing.assert_allclose(member.predict_proba(X), alone.predict_proba(X), atol=1e-10)
        assert member.n_iter_ == alone.n_iter_
        np.testing.assert_allclose(member.loss_curve_, alone.loss_curve_, atol=1e-10)


def test_a_member_goes_on_like_a_model_trained_alone():
    X, y = IRIS
    members = [reconfigured(clone(SOFTMAX), tol=tol, batch_size=16, max_iter=30) for tol in (1e-1, 1e-5)]
    fit_stack(members, X, y)
    for member in members:
        alone = clone(member).fit(X, y)
        assert member.n_iter_ == alone.n_iter_
        for model in (member, alone):
            model.partial_fit(X, y)
        np.testing.assert_allclose(member.coef_, alone.coef_, atol=1e-10)


# ---- pipelines -------------------------------------------------------------------------------------------------------


class Counting(TransformerMixin, BaseEstimator):
    """Counts its fits in a list shared by all clones."""

    log: list = []

    def __init__(self, factor=1.0):
        self.factor = factor

    def fit(self, X, y=None):
        self.log.append(self.factor)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X * self.factor


def test_steps_before_the_classifier_are_fitted_once_per_fold_and_setting():
    Counting.log.clear()
    pipeline = Pipeline([("scale", Counting()), ("clf", clone(SOFTMAX))])
    grid = {"scale__factor": [1.0, 2.0], "clf__alpha": ALPHAS}
    stacked.GridSearchCV(pipeline, grid, cv=3, refit=False).fit(*WINE)
    assert sorted(Counting.log) == [1.0] * 3 + [2.0] * 3


@pytest.mark.parametrize(
    "grid",
    [
        {"clf__alpha": ALPHAS, "scale__with_mean": [True, False]},
        [{"clf__alpha": ALPHAS[:2]}, {"scale": ["passthrough", PCA(2)], "clf__alpha": ALPHAS[2:]}],
        {"clf": [clone(SOFTMAX), clone(MLP)], "clf__alpha": ALPHAS[:2]},
    ],
    ids=["nested", "list", "replaced"],
)
def test_pipelines(grid):
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", clone(SOFTMAX))])
    compare(pipeline, grid, WINE, return_train_score=True)


def test_a_pipeline_with_memory_and_a_scorer_that_looks_inside(tmp_path):
    pipeline = make_pipeline(StandardScaler(), clone(SOFTMAX), memory=str(tmp_path))

    def scorer(model, X, y):
        assert len(model.steps) == 2
        return model.score(X, y) + model[0].mean_[0] + model[-1].coef_[0, 0]

    compare(pipeline, {"softmaxclassifier__alpha": ALPHAS}, WINE, scoring=scorer)


def test_a_step_that_fails_is_every_candidates_failure():
    pipeline = make_pipeline(PCA(), clone(SOFTMAX))
    grid = {"pca__n_components": [2, 1000], "softmaxclassifier__alpha": ALPHAS[:2]}
    with pytest.warns(FitFailedWarning, match="6 fits failed"), pytest.warns(UserWarning, match="non-finite"):
        ours = stacked.GridSearchCV(pipeline, grid, cv=3).fit(*WINE)
    assert np.isnan(ours.cv_results_["mean_test_score"]).tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="n_components"):
        stacked.GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(*WINE)


class Stateless(TransformerMixin, BaseEstimator):
    """Has nothing to learn, and no fitted attribute to show for it."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return 2.0 * X


def test_a_step_without_fitted_attributes():
    compare(make_pipeline(Stateless(), clone(SOFTMAX)), {"softmaxclassifier__alpha": ALPHAS[2:]}, IRIS, cv=2)


@pytest.mark.parametrize("scoring", [None, ["accuracy", "neg_log_loss"]], ids=["one", "several"])
def test_a_step_that_cannot_transform_the_test_data_fails_in_scoring(scoring):
    """The models are trained all the same: only the test scores of that fold are missing."""
    X, y = IRIS
    X = np.c_[X[:, :2], np.arange(len(y)) == 0]
    pipeline = make_pipeline(
        ColumnTransformer([("rare", OneHotEncoder(), [2])], remainder="passthrough"), clone(SOFTMAX)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", FitFailedWarning)
        grid = {"softmaxclassifier__alpha": ALPHAS[:2]}
        ours = compare(pipeline, grid, (X, y), scoring=scoring, refit=False, return_train_score=True)
    name = "accuracy" if scoring else "score"
    assert np.isnan(ours.cv_results_[f"split0_test_{name}"]).all()
    assert not np.isnan(ours.cv_results_[f"split0_train_{name}"]).any()


class EverySecond(Pipeline):
    """Trains on every second row, and predicts from other columns: what it does, it does in a search as well."""

    def fit(self, X, y=None, **params):
        return super().fit(X[::2], y[::2], **params)

    def predict(self, X, **params):
        return super().predict(X[:, ::-1], **params)


def test_a_pipeline_with_methods_of_its_own():
    pipeline = EverySecond([("scale", StandardScaler()), ("clf", clone(SOFTMAX))])
    compare(pipeline, {"clf__alpha": ALPHAS[2:]}, IRIS, cv=2, scoring="accuracy")


# ---- what a search can be asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("refit", [True, False, one_standard_error], ids=["True", "False", "callable"])
def test_refit(refit):
    compare(SOFTMAX, {"alpha": ALPHAS}, WINE, refit=refit)


def test_sample_weight_and_groups():
    X, y = DIGITS
    rng = np.random.default_rng(0)
    compare(
        SOFTMAX,
        {"alpha": ALPHAS},
        (X, y),
        cv=reference.GroupKFold(3),
        fit_params={"groups": np.arange(len(y)) % 7, "sample_weight": rng.integers(0, 3, len(y)).astype(float)},
    )


def test_splits_may_share_their_training_rows():
    X, y = IRIS
    train, test = np.arange(0, 150, 2), np.arange(1, 150, 2)
    ours = compare(SOFTMAX, {"alpha": ALPHAS}, (X, y), cv=[(train, test), (train, test[:40])])
    assert (ours.cv_results_["split0_test_score"] != ours.cv_results_["split1_test_score"]).any()


@pytest.mark.slow
def test_metadata_routing():
    X, y = DIGITS
    weight = np.random.default_rng(0).random(len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = clone(SOFTMAX).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = Pipeline([("scale", StandardScaler().set_fit_request(sample_weight=True)), ("clf", estimator)])
        routed = compare(pipeline, {"clf__alpha": ALPHAS}, (X, y), fit_params={"sample_weight": weight})
    plain = stacked.GridSearchCV(pipeline, {"clf__alpha": ALPHAS}, cv=3).fit(X, y)
    assert (routed.cv_results_["mean_test_score"] != plain.cv_results_["mean_test_score"]).any()


def scored_at_once(monkeypatch, estimator, scorer, grid, data):
    """Number of networks in each pass over rows to score, in a search whose results are scikit-learn's."""
    sizes = []
    original = "skdeep.estimators.prediction._of_members", prediction._of_members
    monkeypatch.setattr(original[0], lambda members, *rest: sizes.append(len(members)) or original[1](members, *rest))
    compare(estimator, grid, data, scoring=scorer, refit=False, return_train_score=True)
    return sizes


@pytest.mark.parametrize(
    ("estimator", "scorer"),
    [
        (SOFTMAX, None),
        (HINGE, ["accuracy", "neg_log_loss", "roc_auc_ovr"]),
        (SigmoidClassifier(max_iter=5, random_state=0), "roc_auc_ovr"),
        (LeastSquaresClassifier(), "accuracy"),
        (MLP, "neg_log_loss"),
        (MLPEnsembleClassifier(2, hidden_layer_sizes=(5,), max_iter=3, random_state=0), "accuracy"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)
def test_candidates_are_scored_in_one_pass(estimator, scorer, monkeypatch):
    """As those of splits that are a stack each."""
    for name in ("evaluate_grids", "evaluate_ensembles"):
        monkeypatch.setattr(f"skdeep.model_selection.backend.{name}", lambda *args: {})
    grid = {"alpha": ALPHAS[1:]}
    sizes = scored_at_once(monkeypatch, estimator, scorer, grid, WINE)
    of_theirs = 3 * 2 * 2 * (3 if isinstance(scorer, list) else 1)  # one by one, by each scorer
    assert sizes[:4] == [3] * 4
    assert set(sizes[4:]) == {1} and len(sizes) - 4 <= of_theirs


def test_a_scorer_of_a_users_own_is_asked_one_by_one(monkeypatch):
    def scorer(model, X, y):
        before = model.score(X, y)
        model.coef_ = -model.coef_
        return before - model.score(X, y)

    sizes = scored_at_once(monkeypatch, SOFTMAX, scorer, {"alpha": ALPHAS[1:]}, WINE)
    assert set(sizes) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (clone(SOFTMAX).set_params(solver="sgd"), {"alpha": ALPHAS[2:], "tol": [1e-4, 0.1]}),
        (
            clone(HINGE).set_params(calibration="sigmoid", solver=SGD()),
            {"alpha": ALPHAS[2:], "solver__learning_rate_init": ["auto", 0.01]},
        ),
        (MLP, {"alpha": ALPHAS[2:], "class_weight": [None, "balanced"]}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)
def test_a_scorer_sees_the_parameters_of_each_model(estimator, grid):
    def seen_by(module):
        seen = []

        def penalised(model, X, y):
            coef = getattr(model, "coefs_", [getattr(model, "coef_", None)])[0]
            shown = [str(model.get_params()[name]) for name in grid]
            seen.append([*shown, round(np.square(coef).sum(), 6)])
            return model.score(X, y) - model.alpha * np.square(coef).sum()  # so that it decides when a model stops

        own = reconfigured(clone(estimator), early_stopping=True, scoring=penalised, n_iter_no_change=2, max_iter=15)
        module.GridSearchCV(own, grid, cv=2, refit=False).fit(*IRIS)
        return sorted(seen, key=str)

    assert seen_by(stacked) == seen_by(reference)


def test_a_metric_may_write_to_the_scores_it_gets():
    def rude(y, scores):
        scores *= -1
        return scores[:, 0].mean()

    scoring = {"a": make_scorer(rude, response_method="decision_function"), "b": "accuracy"}
    compare(SOFTMAX, {"alpha": ALPHAS[2:]}, IRIS, scoring=scoring, refit=False)


def test_only_stacks_of_the_last_round_are_cut():
    def tasks(n_splits, n_candidates):
        parameters = [{"alpha": alpha} for alpha in range(1, 1 + n_candidates)]
        return [
            Task(clone(SOFTMAX), None, None, {"parameters": p, "split_progress": (split, n_splits)})
            for p in parameters
            for split in range(n_splits)
        ]

    def sizes(n_splits, n_candidates, n_workers):
        return [len(stack) for stack in stacks_of(dict(enumerate(tasks(n_splits, n_candidates))), n_workers)[0]]

    assert sizes(5, 9, 1) == [9] * 5
    assert sizes(5, 9, 2) == [9] * 4 + [5, 4]
    assert sizes(4, 9, 2) == [9] * 4
    assert sizes(2, 9, 8) == [3, 2, 2, 2] * 2
    assert sizes(1, 2, 8) == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers(backend):
    from joblib import parallel_config

    with parallel_config(backend=backend):
        softmax = clone(SOFTMAX).set_params(solver=SGD(), max_iter=20)
        compare(softmax, {"alpha": ALPHAS, "solver__batch_size": [50, 100]}, WINE, n_jobs=2)


@pytest.mark.parametrize(("n_cards", "n_jobs", "expected"), [(2, 2, [0, 1, 0, 1]), (2, 8, [0, 1, 0, 1]), (1, 2, [])])
def test_stacks_are_dealt_to_the_accelerators(n_cards, n_jobs, expected, monkeypatch):
    """To no more workers than there are accelerators; the cards are the CPU here, and say that they are asked."""
    from joblib import parallel_config

    from skdeep.model_selection import evaluation

    cards = []

    @contextlib.contextmanager
    def card(number):
        cards.append(number)
        yield

    monkeypatch.setattr(torch.cuda, "device", card)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cards)
    monkeypatch.setattr(evaluation, "device_of", lambda *args: torch.device("cuda"))
    softmax = clone(SOFTMAX).set_params(solver=SGD(), max_iter=2)
    search = stacked.GridSearchCV(softmax, {"alpha": ALPHAS[:2]}, cv=4, n_jobs=n_jobs, refit=False)
    told = pytest.warns(UserWarning, match="more than there are accelerators") if n_jobs > n_cards else nullcontext()
    with parallel_config(backend="threading"), told:
        search.fit(*WINE)
    assert sorted(cards) == sorted(expected)
    monkeypatch.undo()
    alone = stacked.GridSearchCV(softmax, {"alpha": ALPHAS[:2]}, cv=4, refit=False).fit(*WINE)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


def test_verbose_says_what_scikit_learn_says(capsys):
    import re

    said = []
    for module in (stacked, reference):
        for grid in ({"alpha": ALPHAS[:2]}, {"alpha": [ALPHAS[0]]}):
            search = module.GridSearchCV(SOFTMAX, grid, cv=2, verbose=3, return_train_score=True, refit=False)
            search.fit(*IRIS)
        text = re.sub(r"\.+|\d+\.\d+s", "", capsys.readouterr().out)
        said.append(sorted(text.splitlines()))
    assert said[0] == said[1]


class Listener:
    """A callback of scikit-learn's protocol that notes the tasks of the search."""

    def __init__(self):
        self.heard = []

    def setup(self, estimator, context):
        self.heard.append(("setup", type(estimator).__name__))

    def teardown(self, estimator, context):
        self.heard.append(("teardown", type(estimator).__name__))

    def on_fit_task_begin(self, estimator, context):
        self.heard.append(("begin", type(estimator).__name__, context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.heard.append(("end", type(estimator).__name__, context.task_name, context.task_id))


def test_callbacks_of_the_search_hear_of_every_candidate():
    heard = []
    for module in (stacked, reference):
        search = module.GridSearchCV(clone(SOFTMAX), {"alpha": ALPHAS}, cv=2)
        listener = Listener()
        search.set_callbacks(listener)
        search.fit(*IRIS)
        heard.append(sorted(map(repr, listener.heard)))
    assert heard[0] == heard[1]
    assert any("candidate-split-evaluation" in one for one in heard[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "options"),
    [
        ("RandomizedSearchCV", {"n_iter": 5, "random_state": 0}),
        ("HalvingGridSearchCV", {"random_state": 0, "factor": 2}),
        ("HalvingRandomSearchCV", {"random_state": 0, "n_candidates": 4, "factor": 2}),
    ],
)
def test_the_other_searches(search, options):
    space = {"alpha": list(ALPHAS) if "Grid" in search else loguniform(1e-5, 1)}
    compare(SOFTMAX, space, DIGITS, search=search, **options)


def test_verbose_tells_of_each_start(capsys):
    said = []
    for module in (stacked, reference):
        module.GridSearchCV(SOFTMAX, {"alpha": ALPHAS[:2]}, cv=2, verbose=10, refit=False).fit(*IRIS)
        said.append(sorted(line for line in capsys.readouterr().out.splitlines() if "START" in line))
    assert len(said[0]) == 4
    assert said[0] == said[1]


class SureOrFirst(HingeClassifier):
    """Predicts the first class unless it is sure of another one."""

    def predict(self, X):
        probabilities = self.predict_proba(X)
        return self.classes_[np.where(probabilities.max(1) > 0.6, probabilities.argmax(1), 0)]


class MeanMaximum(HingeClassifier):
    def score(self, X, y, sample_weight=None):
        return self.predict_proba(X).max(1).mean()


@pytest.mark.parametrize(("cls", "scoring"), [(SureOrFirst, "accuracy"), (MeanMaximum, None)])
def test_a_calibration_that_a_subclass_needs_stays(cls, scoring):
    compare(cls(random_state=0, max_iter=3, solver="sgd"), {"alpha": ALPHAS[2:]}, WINE, cv=2, scoring=scoring)


class Careful(SoftmaxClassifier):
    """Is never quite sure; the scores alone do not tell."""

    def predict_proba(self, X):
        return 0.8 * super().predict_proba(X) + 0.2 / len(self.classes_)


def test_probabilities_of_a_users_own():
    compare(Careful(random_state=0), {"alpha": ALPHAS[:3]}, WINE, cv=2, scoring="neg_log_loss")


@pytest.mark.parametrize("scoring", ["neg_log_loss", ["accuracy", "neg_log_loss"]])
def test_a_scorer_that_the_classifier_cannot_answer(scoring):
    hinge, said = HingeClassifier(calibration=None, max_iter=3, random_state=0), []
    for module in (stacked, reference):
        search = module.GridSearchCV(hinge, {"alpha": ALPHAS[2:]}, cv=2, scoring=scoring, refit=False)
        with warnings.catch_warnings(record=True) as caught, suppress(AttributeError):
            warnings.simplefilter("always")
            search.fit(*IRIS)
        said.append([line for w in caught for line in str(w.message).splitlines() if "attributes" in line])
        with pytest.raises(AttributeError, match="HingeClassifier has none of the following attributes: predict_proba"):
            search.set_params(error_score="raise").fit(*IRIS)
    assert said[0] == said[1]


@pytest.mark.parametrize("scoring", ["accuracy", "roc_auc", None])
def test_a_calibration_that_no_score_needs_is_left_out(scoring, monkeypatch):
    def refuse(*args):
        raise AssertionError("a calibration is fitted")

    expected = reference.GridSearchCV(HINGE, {"alpha": ALPHAS}, cv=3, refit=False, scoring=scoring).fit(*CANCER)
    monkeypatch.setattr(HingeClassifier, "_procedure", HingeClassifier._procedure._replace(finish=refuse))
    ours = stacked.GridSearchCV(HINGE, {"alpha": ALPHAS}, cv=3, refit=False, scoring=scoring).fit(*CANCER)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


def test_a_search_is_an_estimator():
    search = stacked.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=3)
    assert repr(clone(search)) == repr(search)
    fitted = pickle.loads(pickle.dumps(search.fit(*IRIS)))
    np.testing.assert_array_equal(fitted.predict_proba(IRIS[0]), search.predict_proba(IRIS[0]))
    nested = reference.cross_val_score(stacked.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=2), *IRIS, cv=2)
    assert (nested > 0.8).all()


def test_one_seed_is_drawn_for_candidates_without_one():
    search = stacked.GridSearchCV(clone(MLP).set_params(random_state=None), {"tol": [1e-4, 1e-5, 1e-6]}, cv=2)
    scores = search.fit(*IRIS).cv_results_["mean_test_score"]
    assert (scores == scores[0]).all()


# ---- failures, limits, what is not stacked ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failure_of_one_candidate_is_its_own():
    estimator = clone(MLP).set_params(solver="sgd", max_iter=20)
    grid = [{"learning_rate_init": [1e-2, 1e30]}, {"alpha": [-1.0, 1e-4]}, {"class_weight": [{0: -1.0}, "balanced"]}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = compare(estimator, grid, DIGITS, error_score=-1.0)
    assert (ours.cv_results_["mean_test_score"] == -1).tolist() == [False, True, True, False, True, False]
    with pytest.warns(FitFailedWarning, match="Training diverged"), pytest.warns(UserWarning, match="non-finite"):
        stacked.GridSearchCV(estimator, grid, cv=3).fit(*DIGITS)
    with pytest.raises(ValueError, match="Training diverged"):
        stacked.GridSearchCV(estimator, grid, cv=3, error_score="raise").fit(*DIGITS)


def test_a_stack_that_does_not_fit_is_halved(monkeypatch):
    sizes = []

    def short_of_memory(members, *args, **options):
        sizes.append(len(members))
        if len(members) > 1:
            raise MemoryError
        return fit(members, *args, **options)

    monkeypatch.setattr(stacking, "fit", short_of_memory)
    members = [clone(SOFTMAX).set_params(alpha=alpha) for alpha in ALPHAS]
    assert fit_stack(members, *IRIS) == [None] * 4
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    for member in members:
        np.testing.assert_allclose(member.coef_, clone(member).fit(*IRIS).coef_, atol=1e-10)


def test_stacks_are_cut_to_the_memory(monkeypatch):
    monkeypatch.setattr("skdeep.model_selection.stacks._memory", lambda device: 4 * 8 * 2.5 * (6 * 12 + 3 * 150 * 3))
    sizes = []

    def note(members, *args, **options):
        sizes.append(len(members))
        return fit(members, *args, **options)

    monkeypatch.setattr(stacking, "fit", note)
    assert fit_stack([clone(SOFTMAX).set_params(alpha=alpha, solver="sgd") for alpha in ALPHAS], *IRIS) == [None] * 4
    assert sizes == [2, 2]


def test_the_history_of_lbfgs_takes_memory(monkeypatch):
    monkeypatch.setattr("skdeep.model_selection.stacks._memory", lambda device: 2**30)
    X, y = np.zeros((2, 1000)), np.arange(2)
    sizes = [capacity(MLPClassifierTorch((8,), solver=solver), X, y) for solver in ("adam", "lbfgs")]
    assert sizes[0] > 7 * sizes[1]


def test_what_cannot_be_stacked_is_trained_one_by_one():
    with pytest.warns(StackingWarning, match="LogisticRegression is none of") as caught:
        compare(LogisticRegression(), {"C": [0.1, 1.0]}, IRIS)
    assert len([w for w in caught if w.category is StackingWarning]) == 1
    with pytest.warns(StackingWarning, match="callbacks"):
        compare(clone(SOFTMAX).set_params(max_iter=20), {"alpha": ALPHAS[::3], "callbacks": [None, [EpochTimer]]}, IRIS)


class Logarithm(SoftmaxClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(np.log1p(X), y, sample_weight)

    def predict(self, X):
        return super().predict(np.log1p(X))


def test_a_fit_of_its_own_is_called():
    with pytest.warns(StackingWarning, match="Logarithm has a fit of its own"):
        compare(Logarithm(random_state=0, max_iter=30), {"alpha": ALPHAS[2:]}, WINE, cv=2)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [(IRIS[0][:, 0], IRIS[1], "Expected 2D array"), (IRIS[0], np.array(["a", 1, 2] * 50, object), "str")],
    ids=["1d", "mixed"],
)
def test_malformed_data_gets_the_message_of_a_fit(X, y, message):
    members = [clone(SOFTMAX).set_params(alpha=alpha) for alpha in ALPHAS[:2]]
    for failure in fit_stack(members, X, y):
        assert message in str(failure)
        with pytest.raises(type(failure)) as alone:
            clone(SOFTMAX).fit(X, y)
        assert str(alone.value) == str(failure)


def test_nothing_is_said_where_all_is_stacked():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        stacked.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=3).fit(*IRIS)


@pytest.mark.parametrize("n_candidates", [1, 4])
def test_ctrl_c_ends_the_search(n_candidates, monkeypatch):
    from skdeep.engine import training

    calls = []
    original = training._end_of_epoch

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(training, "_end_of_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stacked.GridSearchCV(clone(SOFTMAX).set_params(solver="sgd"), {"alpha": ALPHAS[:n_candidates]}, cv=3).fit(*IRIS)


# ---- the choice of alpha ---------------------------------------------------------------------------------------------


def results(scores, **parameters):
    """``cv_results_`` of candidates with these split scores."""
    scores = np.array(scores, dtype=float)
    names = list(parameters)
    return {
        "params": [dict(zip(names, row, strict=True)) for row in zip(*parameters.values(), strict=True)],
        "mean_test_score": scores.mean(1),
        **{f"split{i}_test_score": scores[:, i] for i in range(scores.shape[1])},
    }


def test_one_standard_error_by_hand():
    # best mean .90 with deviation .02 over 4 splits: standard error .01, so that .89 is good enough and .885 is not
    scores = [[0.92, 0.92, 0.88, 0.88], [0.895, 0.895, 0.895, 0.895], [0.885] * 4]
    deviation = np.std(scores[0], ddof=1) / 2
    assert 0.005 < deviation < 0.015
    assert one_standard_error(results(scores, alpha=[0.01, 0.1, 1.0])) == 1
    assert one_standard_error(results(scores, clf__C=[100, 10, 1])) == 1
    assert one_standard_error(results(scores, l1=[1, 2, 3]), complexity="l1") == 1
    assert one_standard_error(results([*scores, [0.899] * 4], alpha=[0.01, 0.1, 1.0, 0.1])) == 3  # the better of equals
    assert one_standard_error(results([[np.nan] * 4, *scores], alpha=[5, 0.01, 0.1, 1.0])) == 2
    with pytest.raises(ValueError, match="Name the parameter"):
        one_standard_error(results(scores, momentum=[0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="metric='score'"):
        one_standard_error(results(scores, alpha=[1, 2, 3]), metric="accuracy")


def test_one_standard_error_with_several_metrics():
    refit = functools.partial(one_standard_error, metric="accuracy")
    search = stacked.GridSearchCV(
        SOFTMAX, {"alpha": ALPHAS}, cv=3, scoring=["accuracy", "neg_log_loss"], refit=refit
    ).fit(*IRIS)
    means = search.cv_results_["mean_test_accuracy"]
    assert search.best_params_["alpha"] >= ALPHAS[means.argmax()]


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: make_pipeline(StandardScaler(), e)], ids=["plain", "pipeline"])
def test_regularization_path(wrap):
    X, y = IRIS
    estimator = wrap(clone(SOFTMAX).set_params(penalty="l1", max_iter=200))
    name = "alpha" if wrap(1) == 1 else "softmaxclassifier__alpha"
    path = regularization_path(estimator, X, y, ALPHAS, cv=3, scoring="neg_log_loss")
    search = reference.GridSearchCV(estimator, {name: ALPHAS}, cv=3, scoring="neg_log_loss").fit(X, y)
    np.testing.assert_allclose(path.mean_score, search.cv_results_["mean_test_score"])
    assert path.best_index == search.best_index_
    assert path.scores.shape == (4, 3)
    assert path.one_standard_error_index >= path.best_index
    for alpha, coef, intercept, fitted in zip(path.alphas, path.coefs, path.intercepts, path.estimators, strict=True):
        alone = reconfigured(clone(estimator), **{name: alpha}).fit(X, y)
        final = alone if name == "alpha" else alone[-1]
        np.testing.assert_allclose(coef, final.coef_, atol=1e-5)
        np.testing.assert_allclose(intercept, final.intercept_, atol=1e-5)
        np.testing.assert_allclose(fitted.predict_proba(X), alone.predict_proba(X), atol=1e-6)
    assert (path.coefs[-1] == 0).all()
    assert (path.coefs[0] != 0).any()


def test_the_path_of_routed_weights():
    X, y = IRIS
    weight = np.random.default_rng(0).random(len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = clone(SOFTMAX).set_fit_request(sample_weight="w").set_score_request(sample_weight=False)
        path = regularization_path(estimator, X, y, ALPHAS[2:], cv=2, w=weight)
    for alpha, coef in zip(path.alphas, path.coefs, strict=True):
        alone = clone(SOFTMAX).set_params(alpha=alpha).fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(coef, alone.coef_, atol=1e-9)


def test_the_path_of_a_network_has_no_coefs():
    path = regularization_path(clone(MLP).set_params(random_state=None), *IRIS, [1e-4, 1.0], cv=2)
    assert path.coefs is None
    assert len(path.estimators) == 2


def test_the_path_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="at least one number"):
        regularization_path(SOFTMAX, *IRIS, [])
    with pytest.raises(ValueError, match="alpha"):
        regularization_path(SOFTMAX, *IRIS, [1e-3, -1.0])
