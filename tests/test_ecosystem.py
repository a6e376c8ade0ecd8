"""The estimators inside scikit-learn's machinery, on the data sets it bundles."""

import copy
import dataclasses
import io
import pickle

import helpers
import joblib
import matplotlib.pyplot as pyplot
import numpy as np
import pytest
import sklearn
import torch
from helpers import (
    CANCER,
    CANCER_Y,
    ESTIMATORS,
    INCREMENTAL,
    IRIS,
    IRIS_Y,
    WINE,
    WINE_Y,
    covering,
    each_estimator,
    maker,
    parameters,
)
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_wine
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import DecisionBoundaryDisplay, permutation_importance
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skdeep import SGD, Adam, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier

pyplot.switch_backend("Agg")

pytestmark = pytest.mark.filterwarnings(
    "ignore:The scores of rows:UserWarning",  # of models that are flat, or of two epochs
)

DIGITS, DIGITS_Y = helpers.DIGITS[:600], helpers.DIGITS_Y[:600]
CV = StratifiedKFold(3, shuffle=True, random_state=0)


#: Makes a quick classifier that still learns the bundled data.
make = maker(
    {"max_iter": 12, "batch_size": 50, "random_state": 0, "device": "cpu"},
    network={"hidden_layer_sizes": (12,), "learning_rate_init": 0.04},
)


def incremental(cls, **params):
    """The same, if need be without what rules out partial_fit, or makes it another thing than fit."""
    return make(cls, **INCREMENTAL.get(cls, {}) | params)


def assert_same_model(one, other):
    np.testing.assert_array_equal(parameters(one), parameters(other))


def assert_went_the_same_way(one, other):
    """Equal up to the rounding of one pass through coef_ per call: a step of training is 1e6 times larger."""
    assert np.abs(parameters(one)).max() > 1e-2
    np.testing.assert_allclose(parameters(one), parameters(other), rtol=1e-8, atol=1e-10)


# ---- pipelines, searches, validation ---------------------------------------------------------------------------------


@each_estimator
def test_pipeline(cls):
    X, X_test, y, y_test = train_test_split(WINE, WINE_Y, stratify=WINE_Y, random_state=0)
    scaler = StandardScaler().fit(X)
    alone = make(cls).fit(scaler.transform(X), y)
    pipe = make_pipeline(StandardScaler(), make(cls)).fit(X, y)
    assert_same_model(pipe[-1], alone)
    np.testing.assert_array_equal(pipe.predict_proba(X_test), alone.predict_proba(scaler.transform(X_test)))
    assert pipe.score(X_test, y_test) > 0.93
    assert pipe.set_params(**{f"{cls.__name__.lower()}__max_iter": 3}).fit(X, y)[-1].n_iter_ == 3


@each_estimator
def test_pipeline_of_named_columns(cls):
    frame = load_wine(as_frame=True).data
    pipe = make_pipeline(StandardScaler().set_output(transform="pandas"), make(cls, max_iter=3)).fit(frame, WINE_Y)
    np.testing.assert_array_equal(pipe[-1].feature_names_in_, frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        pipe[-1].predict(frame.rename(columns={"alcohol": "spirit"}))


@pytest.mark.slow
def test_grid_search_in_two_processes():
    """By forks, which are quick; a process that begins anew is in test_model_selection.py."""
    for cls in ESTIMATORS:
        pipe = make_pipeline(MinMaxScaler(), make(cls, max_iter=6))
        grid = {f"{cls.__name__.lower()}__alpha": [1e-5, 10.0]}
        with joblib.parallel_config(backend="multiprocessing"):
            search = GridSearchCV(pipe, grid, cv=CV, n_jobs=2).fit(DIGITS, DIGITS_Y)
        alone = [cross_val_score(pipe.set_params(**at), DIGITS, DIGITS_Y, cv=CV).mean() for at in grid_points(grid)]
        np.testing.assert_allclose(search.cv_results_["mean_test_score"], alone, atol=2e-3)
        assert search.best_params_ == {f"{cls.__name__.lower()}__alpha": 1e-5}
        assert search.best_score_ > 0.85
        assert search.score(DIGITS, DIGITS_Y) > 0.9


def grid_points(grid):
    ((name, values),) = grid.items()
    return [{name: value} for value in values]


@each_estimator
def test_halving_search_over_epochs(cls):
    search = HalvingGridSearchCV(
        incremental(cls),
        {"alpha": [1e-4, 1e-2, 1e3, 1e4]},
        resource="max_iter",
        min_resources=2,
        max_resources=8,
        factor=2,
        cv=CV,
        random_state=0,
    ).fit(IRIS, IRIS_Y)
    assert search.n_resources_ == [2, 4, 8]
    assert search.best_estimator_.n_iter_ == 8
    assert search.best_params_["alpha"] < 1
    assert search.best_score_ > 0.6


@each_estimator
def test_randomized_search(cls):
    steps = ["sgd", "adam"] if cls is MLPClassifierTorch else [SGD(0.01), Adam(0.01)]
    space = {"alpha": loguniform(1e-6, 1e-2), "max_iter": [20, 40], "solver": steps}
    model = incremental(cls, learning_rate_init=0.01)
    search = RandomizedSearchCV(model, space, n_iter=3, cv=CV, random_state=0)
    search.fit(StandardScaler().fit_transform(WINE), WINE_Y)
    assert len(set(search.cv_results_["param_alpha"])) == 3
    best = clone(model).set_params(**search.best_params_)
    assert_same_model(search.best_estimator_, best.fit(StandardScaler().fit_transform(WINE), WINE_Y))
    assert search.best_score_ > 0.9


@each_estimator
def test_cross_validate(cls):
    pipe = make_pipeline(StandardScaler(), make(cls))
    scoring = ["accuracy", "neg_log_loss", "roc_auc", "average_precision"]
    found = cross_validate(
        pipe, CANCER, CANCER_Y, cv=CV, scoring=scoring, return_train_score=True, return_estimator=True
    )
    assert len({parameters(fitted[-1]).tobytes() for fitted in found["estimator"]}) == 3
    assert found["test_accuracy"].min() > 0.93
    assert found["test_roc_auc"].min() > 0.98
    assert found["test_average_precision"].min() > 0.98
    assert found["test_neg_log_loss"].min() > -0.25
    assert found["train_accuracy"].mean() > found["test_accuracy"].mean() - 0.01


@pytest.mark.parametrize(
    ("cls", "n_classes", "method"), covering(ESTIMATORS, [3, 2], ["predict_proba", "decision_function"])
)
def test_cross_val_predict(cls, n_classes, method):
    X, y = (WINE, WINE_Y) if n_classes == 3 else (CANCER, CANCER_Y)
    found = cross_val_predict(make_pipeline(StandardScaler(), make(cls)), X, y, cv=CV, method=method)
    if method == "decision_function":
        assert found.shape == ((len(X), 3) if y is WINE_Y else (len(X),))
    else:
        assert found.shape == (len(X), len(np.unique(y)))
        np.testing.assert_allclose(found.sum(1), 1)
    codes = found.argmax(1) if found.ndim == 2 else found > 0
    assert accuracy_score(y, codes) > 0.93


@each_estimator
def test_learning_curve(cls):
    sizes, train, test = learning_curve(
        make_pipeline(StandardScaler(), make(cls)),
        WINE,
        WINE_Y,
        train_sizes=[0.1, 1.0],
        cv=CV,
        shuffle=True,
        random_state=0,
    )
    assert list(sizes) == [11, 118]
    assert train.shape == test.shape == (2, 3)
    assert test[1].mean() > 0.93
    assert test[1].mean() >= test[0].mean()


@each_estimator
def test_learning_curve_by_partial_fit(cls):
    X = StandardScaler().fit_transform(WINE)
    _, _, test = learning_curve(
        incremental(cls, learning_rate_init=0.05),
        X,
        WINE_Y,
        train_sizes=np.linspace(0.1, 1, 8),
        cv=CV,
        shuffle=True,
        random_state=0,
        exploit_incremental_learning=True,
    )
    assert test[-1].mean() > 0.8


@each_estimator
def test_validation_curve(cls):
    train, test = validation_curve(
        make(cls), IRIS, IRIS_Y, param_name="alpha", param_range=[1e-4, 1e4], cv=CV, scoring="neg_log_loss"
    )
    assert train.shape == test.shape == (2, 3)
    # a penalty that leaves nothing but the intercepts knows nothing
    assert test[0].mean() > -0.8
    np.testing.assert_allclose(test[1], -np.log(3), atol=0.05)


# ---- meta-estimators -------------------------------------------------------------------------------------------------


@each_estimator
@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibrated_classifier(cls, method):
    X, X_test, y, y_test = train_test_split(StandardScaler().fit_transform(CANCER), CANCER_Y, random_state=0)
    model = CalibratedClassifierCV(incremental(cls), method=method, cv=3).fit(X, y)
    proba = model.predict_proba(X_test)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert model.score(X_test, y_test) > 0.92
    # of those it gives about that chance, about that share is right
    confidence, right = proba.max(1), proba.argmax(1) == y_test
    assert abs(confidence.mean() - right.mean()) < 0.05


@each_estimator
def test_frozen(cls):
    X, X_rest, y, y_rest = train_test_split(StandardScaler().fit_transform(WINE), WINE_Y, random_state=0)
    fitted = make(cls).fit(X, y)
    before = parameters(fitted).copy()
    frozen = FrozenEstimator(fitted)
    assert clone(frozen).estimator is fitted
    calibrated = CalibratedClassifierCV(frozen, method="temperature").fit(X_rest, y_rest)
    np.testing.assert_array_equal(parameters(fitted), before)
    np.testing.assert_array_equal(calibrated.predict(X_rest), fitted.predict(X_rest))
    assert not np.allclose(calibrated.predict_proba(X_rest), fitted.predict_proba(X_rest))


@each_estimator
def test_bagging(cls):
    X, X_test, y, y_test = train_test_split(WINE, WINE_Y, stratify=WINE_Y, random_state=0)
    model = BaggingClassifier(
        make_pipeline(StandardScaler(), make(cls)), n_estimators=4, max_features=8, oob_score=False, random_state=0
    ).fit(X, y)
    assert len({parameters(pipe[-1]).tobytes() for pipe in model.estimators_}) == 4
    assert model.score(X_test, y_test) > 0.9


@each_estimator
def test_bagging_by_weights(cls):
    X = StandardScaler().fit_transform(WINE)
    bagged = BaggingClassifier(make(cls), n_estimators=5, random_state=0)
    models = [clone(bagged).fit(X, WINE_Y, sample_weight=weight) for weight in (None, np.where(WINE_Y == 2, 0.0, 1.0))]
    assert models[0].score(X, WINE_Y) > 0.93
    assert (models[1].predict(X) == 2).sum() < 3  # it has not seen that class


def test_voting():
    X, X_test, y, y_test = train_test_split(WINE, WINE_Y, stratify=WINE_Y, random_state=0)
    parts = [(cls.__name__, make_pipeline(StandardScaler(), make(cls))) for cls in ESTIMATORS]
    model = VotingClassifier(parts, voting="soft").fit(X, y)
    mean = np.mean([clone(part).fit(X, y).predict_proba(X_test) for _, part in parts], axis=0)
    np.testing.assert_allclose(model.predict_proba(X_test), mean, rtol=1e-12)
    assert model.score(X_test, y_test) > 0.93


def test_stacking():
    X, X_test, y, y_test = train_test_split(WINE, WINE_Y, stratify=WINE_Y, random_state=0)
    parts = [(cls.__name__, make_pipeline(StandardScaler(), make(cls))) for cls in ESTIMATORS]
    final = make(SoftmaxClassifier, max_iter=60)
    model = StackingClassifier(parts, final, cv=3, stack_method="predict_proba").fit(X, y)
    assert model.final_estimator_.n_features_in_ == 9
    assert model.score(X_test, y_test) > 0.93


@each_estimator
def test_one_vs_rest(cls):
    X = StandardScaler().fit_transform(WINE)
    model = OneVsRestClassifier(make(cls)).fit(X, WINE_Y)
    assert len(model.estimators_) == 3
    for c, part in enumerate(model.estimators_):
        assert_same_model(part, make(cls).fit(X, (WINE_Y == c).astype(int)))
    assert model.score(X, WINE_Y) > 0.95


@each_estimator
def test_self_training(cls):
    X = StandardScaler().fit_transform(WINE)
    known = np.random.default_rng(0).random(len(X)) < 0.2
    model = SelfTrainingClassifier(make(cls), threshold=0.7).fit(X, np.where(known, WINE_Y, -1))
    learnt = (model.labeled_iter_ > 0) & ~known
    assert learnt.sum() > 20  # it is sure of some, and right about them
    assert accuracy_score(WINE_Y[learnt], model.transduction_[learnt]) > 0.88
    assert model.score(X, WINE_Y) > 0.9


@each_estimator
def test_permutation_importance(cls):
    rng = np.random.default_rng(0)
    X = np.column_stack([IRIS, rng.normal(size=(len(IRIS), 2))])
    model = make_pipeline(StandardScaler(), make(cls)).fit(X, IRIS_Y)
    importance = permutation_importance(model, X, IRIS_Y, n_repeats=5, random_state=0).importances_mean
    assert importance[2:4].max() > 0.1  # petals tell the species apart, noise does not
    assert importance[4:].max() < importance[2:4].max() / 3


@each_estimator
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_decision_boundary(cls, method):
    X, y = (IRIS[:100, 2:], IRIS_Y[:100]) if method == "decision_function" else (IRIS[:, 2:], IRIS_Y)
    model = make(cls).fit(X, y)
    display = DecisionBoundaryDisplay.from_estimator(model, X, response_method=method, grid_resolution=7)
    expected = getattr(model, method)(np.column_stack([display.xx0.ravel(), display.xx1.ravel()]))
    np.testing.assert_allclose(display.response.reshape(expected.shape), expected)
    pyplot.close(display.figure_)


# ---- metadata routing ------------------------------------------------------------------------------------------------


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


WEIGHT = np.random.default_rng(0).integers(1, 4, len(WINE)).astype(float)


@each_estimator
def test_weights_are_routed(cls, routing):
    plain, asking = make(cls, max_iter=5), make(cls, max_iter=5).set_fit_request(sample_weight=True)
    scaler = StandardScaler().set_fit_request(sample_weight=False)
    X = StandardScaler().fit_transform(WINE)
    pipe = make_pipeline(scaler, asking).fit(WINE, WINE_Y, sample_weight=WEIGHT)
    assert_same_model(pipe[-1], make(cls, max_iter=5).fit(X, WINE_Y, sample_weight=WEIGHT))
    assert not np.allclose(parameters(pipe[-1]), parameters(make(cls, max_iter=5).fit(X, WINE_Y)))
    with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
        make_pipeline(scaler, plain).fit(WINE, WINE_Y, sample_weight=WEIGHT)


@each_estimator
def test_weights_are_routed_through_a_search(cls, routing):
    weight = np.where(WINE_Y == 0, 1e-6, 1.0)
    model = make(cls, max_iter=20).set_fit_request(sample_weight=True)
    unweighted = make_scorer(accuracy_score).set_score_request(sample_weight=False)
    pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
    name = cls.__name__.lower()
    search = GridSearchCV(pipe, {f"{name}__alpha": [1e-4, 1e-3]}, cv=CV, scoring=unweighted)
    search.fit(WINE, WINE_Y, sample_weight=weight)
    assert (search.predict(WINE) == 0).sum() < 5  # hardly a word was said of class 0
    found = cross_validate(pipe, WINE, WINE_Y, cv=CV, scoring=unweighted, params={"sample_weight": weight})
    assert found["test_score"].max() < 0.75


@each_estimator
@pytest.mark.parametrize("early_stopping", [True, False])
def test_validation_data_goes_through_the_scaler(cls, routing, early_stopping):
    X, X_val, y, y_val, weight, _ = train_test_split(WINE, WINE_Y, WEIGHT, stratify=WINE_Y, random_state=0)
    scaler = StandardScaler().fit(X)
    params = {"early_stopping": early_stopping, "scoring": "neg_log_loss" if cls is SoftmaxClassifier else "loss"}
    if cls is HingeClassifier:
        params["calibration"] = None
    model = make(cls, **params)
    alone = clone(model).fit(scaler.transform(X), y, sample_weight=weight, X_val=scaler.transform(X_val), y_val=y_val)
    asking = clone(model).set_fit_request(sample_weight=True, X_val=True, y_val=True)
    steps = [("scaler", StandardScaler().set_fit_request(sample_weight=False)), ("model", asking)]
    pipe = Pipeline(steps, transform_input=["X_val"]).fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val)
    assert_same_model(pipe[-1], alone)
    assert pipe[-1].validation_scores_ == alone.validation_scores_
    assert len(alone.validation_scores_) == alone.n_iter_
    bare = Pipeline(steps).fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val)
    assert bare[-1].validation_scores_ != alone.validation_scores_


def test_partial_fit_request(routing):
    model = make(SoftmaxClassifier, learning_rate_init=0.05).set_partial_fit_request(sample_weight=True)
    model.set_fit_request(sample_weight=False).set_score_request(sample_weight=False)
    X = StandardScaler().fit_transform(WINE)
    settings = {"train_sizes": [0.5, 1.0], "cv": CV, "shuffle": True, "random_state": 0}
    _, _, test = learning_curve(
        model, X, WINE_Y, exploit_incremental_learning=True, params={"sample_weight": 1.0 * (WINE_Y != 0)}, **settings
    )
    assert test.max() < 0.75


# ---- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def every_warning():
    """What torch would say only once in a process, it says every time."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(always)


def restore_by_pickle(model, path):
    return pickle.loads(pickle.dumps(model))


def restore_by_joblib(model, path):
    joblib.dump(model, path / "model.joblib")
    return joblib.load(path / "model.joblib")


def restore_memory_mapped(model, path):
    joblib.dump(model, path / "model.joblib")
    return joblib.load(path / "model.joblib", mmap_mode="r")


each_restore = pytest.mark.parametrize(
    "restore", [restore_by_pickle, restore_by_joblib, restore_memory_mapped], ids=["pickle", "joblib", "mmap"]
)


@each_estimator
def test_clone(cls):
    model = make(cls, alpha=0.01, callbacks=None).fit(IRIS, IRIS_Y)
    copied = clone(model)
    assert str(copied.get_params()) == str(model.get_params())
    assert set(vars(copied)) == set(model.get_params(deep=False))
    assert_same_model(copied.fit(IRIS, IRIS_Y), model)


@each_restore
@each_estimator
@pytest.mark.parametrize("X, y", [(WINE, WINE_Y), (CANCER, CANCER_Y)], ids=["three classes", "two classes"])
def test_restored_predicts_the_same(cls, restore, X, y, tmp_path, every_warning):
    model = make(cls, max_iter=4).fit(X, y)
    twin = restore(model, tmp_path)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(twin, method)(X), getattr(model, method)(X))
    assert str(twin.get_params()) == str(model.get_params())
    assert twin.loss_curve_ == model.loss_curve_


def contents(value, seen=None):
    """Everything that can be reached from an object."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value
    yield value
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        parts = [] if isinstance(value, type) or callable(value) else list(vars(value).values())
    else:
        parts = []
    for part in parts:
        yield from contents(part, seen)


@each_estimator
@pytest.mark.parametrize(
    "params, given",
    [
        ({}, "array"),
        ({"solver": "adam"}, "tensor"),
        ({"solver": "lbfgs"}, "sparse"),
        ({"early_stopping": True}, "sparse"),
        ({"early_stopping": True}, "validation data"),
        ({"batch_size": 1000, "scoring": "f1_macro"}, "validation data"),
    ],
)
def test_a_fitted_object_holds_neither_data_nor_tensors(cls, params, given):
    if cls is HingeClassifier and params.get("solver") == "lbfgs":
        params = {**params, "loss": "squared_hinge", "multi_class": "ovr"}
    n, n_val = 151, 83  # numbers that are nothing else's
    wrapped = {"tensor": torch.as_tensor, "sparse": sparse.csr_array}.get(given, np.asarray)(DIGITS[:n])
    extra = {}
    if given == "validation data":
        extra = {"X_val": DIGITS[n : n + n_val], "y_val": DIGITS_Y[n : n + n_val], "sample_weight_val": np.ones(n_val)}
    model = make(cls, max_iter=3, **params).fit(wrapped, DIGITS_Y[:n], sample_weight=np.linspace(1, 2, n), **extra)
    model.predict_proba(wrapped)
    found = list(contents(vars(model)))
    assert any(value is model.loss_curve_ for value in found)
    assert not [value for value in found if isinstance(value, torch.Tensor | torch.nn.Module | torch.Generator)]
    assert not [value for value in found if sparse.issparse(value)]
    shapes = {value.shape for value in found if isinstance(value, np.ndarray)}
    assert max(max(shape, default=0) for shape in shapes) == DIGITS.shape[1]  # the weights are the largest there is
    assert max(len(value) for value in found if isinstance(value, list)) < n_val


@each_estimator
@pytest.mark.parametrize("params", [{}, {"early_stopping": True}], ids=["plain", "early stopping"])
def test_size_on_disk_does_not_grow_with_the_data(cls, params):
    sizes = []
    for n in (300, 600):
        weight = np.linspace(1, 2, n)
        model = make(cls, max_iter=3, **params).fit(DIGITS[:n], DIGITS_Y[:n], sample_weight=weight)
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        sizes.append((len(pickle.dumps(model)), len(buffer.getvalue())))
    assert np.abs(np.diff(sizes, axis=0)).max() < 300  # less than half a row


# ---- training goes on exactly where it stopped -----------------------------------------------------------------------

each_solver = pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
each_way_of_going_on = pytest.mark.parametrize(
    ("cls", "solver", "restore"),
    covering(
        ESTIMATORS,
        ["sgd", "adam", "adamw"],
        {"pickle": restore_by_pickle, "joblib": restore_by_joblib, "mmap": restore_memory_mapped},
    ),
)
#: No rule stops these, so that the number of epochs is ours to choose.
ENDLESS = {"tol": 0.0, "n_iter_no_change": np.inf}


@each_way_of_going_on
def test_restored_goes_on_with_partial_fit(cls, solver, restore, tmp_path, every_warning):
    model = incremental(cls, solver=solver, learning_rate="invscaling", power_t=0.1, learning_rate_init=0.02)
    for _ in range(3):
        model.partial_fit(WINE, WINE_Y, classes=[0, 1, 2])
    twin = restore(model, tmp_path)
    assert twin is not model
    for _ in range(2):
        model.partial_fit(WINE, WINE_Y)
        twin.partial_fit(WINE, WINE_Y)
    assert_same_model(twin, model)
    assert twin.t_ == model.t_ == 5 * len(WINE)


@each_way_of_going_on
def test_restored_goes_on_with_warm_start(cls, solver, restore, tmp_path, every_warning):
    model = make(cls, solver=solver, warm_start=True, max_iter=4).fit(WINE, WINE_Y)
    twin = restore(model, tmp_path)
    assert_same_model(twin.fit(WINE, WINE_Y), model.fit(WINE, WINE_Y))
    assert twin.loss_curve_ == model.loss_curve_
    assert len(model.loss_curve_) == 8


@each_estimator
def test_a_restored_copy_shares_nothing(cls):
    model = incremental(cls).fit(IRIS, IRIS_Y)
    before, twin = parameters(model).copy(), copy.deepcopy(model)
    twin.partial_fit(IRIS, IRIS_Y)
    np.testing.assert_array_equal(parameters(model), before)
    assert not np.array_equal(parameters(twin), before)


@each_estimator
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_twenty_passes_are_twenty_epochs(cls, solver):
    params = {"alpha": 1e-4, "solver": solver, "learning_rate_init": 0.01, "max_iter": 20, **ENDLESS}
    whole = incremental(cls, **params).fit(IRIS, IRIS_Y)
    passes = incremental(cls, **params)
    for _ in range(20):
        passes.partial_fit(IRIS, IRIS_Y, classes=[0, 1, 2])
    assert_went_the_same_way(passes, whole)
    np.testing.assert_allclose(passes.loss_curve_, whole.loss_curve_, rtol=1e-8)
    assert passes.t_ == whole.t_ == 20 * len(IRIS)


@each_estimator
@pytest.mark.parametrize(
    "schedule",
    [
        {"learning_rate": "constant"},
        {"learning_rate": "invscaling", "power_t": 0.3},
        # the loss cannot improve by as much as this, so the rate falls time and again
        {"learning_rate": "adaptive", "tol": 1e6, "n_iter_no_change": 2},
        {"learning_rate": "constant", "warmup_epochs": 6},
        {"learning_rate": "cosine"},
    ],
    ids=["constant", "invscaling", "adaptive", "warm-up", "cosine"],
)
def test_passes_follow_the_schedule(cls, schedule):
    params = {"alpha": 1e-4, "solver": "sgd", "learning_rate_init": 0.05, "max_iter": 8, **ENDLESS, **schedule}
    whole = incremental(cls, **params).fit(IRIS, IRIS_Y)
    assert whole.n_iter_ == 8
    passes = incremental(cls, **params)
    for _ in range(8):
        passes.partial_fit(IRIS, IRIS_Y, classes=[0, 1, 2])
    assert_went_the_same_way(passes, whole)


@each_estimator
@pytest.mark.parametrize("learning_rate", ["constant", "invscaling"])
@each_solver
def test_two_halves_are_a_whole(cls, learning_rate, solver):
    """Where the schedule does not depend on how long the run is to be, nor on what it has met so far."""
    params = {"solver": solver, "learning_rate": learning_rate, "power_t": 0.2, "learning_rate_init": 0.05, **ENDLESS}
    whole = incremental(cls, max_iter=8, **params).fit(WINE, WINE_Y)
    assert whole.n_iter_ == 8
    halves = incremental(cls, max_iter=4, warm_start=True, **params).fit(WINE, WINE_Y)
    first = parameters(halves).copy()
    halves.fit(WINE, WINE_Y)
    assert not np.allclose(parameters(halves), first)
    assert_went_the_same_way(halves, whole)
    np.testing.assert_allclose(halves.loss_curve_, whole.loss_curve_, rtol=1e-8)
    assert (halves.t_, halves.n_iter_) == (whole.t_, 4)


@each_estimator
def test_two_halves_are_a_whole_with_the_defaults_rate(cls):
    params = {} if cls is MLPClassifierTorch else {"learning_rate_init": "auto"}
    whole = incremental(cls, max_iter=10, **params).fit(CANCER, CANCER_Y)
    halves = incremental(cls, max_iter=5, warm_start=True, **params).fit(CANCER, CANCER_Y).fit(CANCER, CANCER_Y)
    assert_went_the_same_way(halves, whole)


@each_estimator
def test_two_halves_in_single_precision(cls):
    X = StandardScaler().fit_transform(WINE).astype(np.float32)
    whole = incremental(cls, max_iter=10, **ENDLESS).fit(X, WINE_Y)
    halves = incremental(cls, max_iter=5, warm_start=True, **ENDLESS).fit(X, WINE_Y).fit(X, WINE_Y)
    assert parameters(halves).dtype == np.float32
    np.testing.assert_allclose(parameters(halves), parameters(whole), rtol=1e-4, atol=1e-5)


def test_a_warm_start_is_not_a_cold_one():
    model = make(SoftmaxClassifier, max_iter=5).fit(WINE, WINE_Y)
    cold = parameters(model).copy()
    np.testing.assert_array_equal(parameters(model.fit(WINE, WINE_Y)), cold)
    warm = model.set_params(warm_start=True).fit(WINE, WINE_Y)
    assert warm.loss_curve_[-1] < warm.loss_curve_[4]
