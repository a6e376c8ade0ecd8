"""What a comparison does once for all splits, and that scores are those of one fit after the other."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn import get_config
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV as Theirs
from sklearn.model_selection import KFold, RepeatedStratifiedKFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skdeep import (
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    MLPRegressorTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    compare,
)
from skdeep.exact.lbfgs import LBFGS
from skdeep.model_selection import GridSearchCV, grid, rounds

X, Y = load_iris(return_X_y=True)
X_VALUES, Y_VALUES = (part[:150] for part in load_diabetes(return_X_y=True))
X_VALUES = X_VALUES * np.arange(1, 11)  # of several sizes
FOLDS, FOLDS_OF_VALUES = StratifiedKFold(3, shuffle=True, random_state=0), KFold(3)
SCALERS = {
    "standard": StandardScaler(),
    "range": MinMaxScaler((-1, 2)),
    "largest": MaxAbsScaler(),
    "quartiles": RobustScaler(),
    "means": StandardScaler(with_std=False),
}


@pytest.fixture
def sizes(monkeypatch):
    """How many models each stack of all splits had, or None where there was none."""
    found, train = [], grid._Grid.train

    def listening(*args):
        outcome = train(*args)
        found.append(outcome and len(outcome[1]))
        return outcome

    monkeypatch.setattr(grid._Grid, "train", listening)
    return found


def alone(model, X, y, cv, scoring=None):
    return cross_validate(model, X, y, cv=cv, scoring=scoring, error_score="raise")


# ---- linear models behind scalers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", SCALERS.values(), ids=SCALERS)
@pytest.mark.parametrize("alpha", ["auto", 0.03])
def test_values_behind_a_scaler_are_one_stack(scaler, alpha, sizes):
    models = {"l2": LinearRegressor(alpha=alpha, tol=1e-10)}
    if alpha != "auto":  # in whose unit a norm would be another one
        models["l1"] = LinearRegressor(penalty="l1", alpha=alpha, tol=1e-10)
        models["elasticnet"] = LinearRegressor(penalty="elasticnet", alpha=alpha, tol=1e-10)
    models = {name: make_pipeline(scaler, model) for name, model in models.items()}
    found = compare(models, X_VALUES, Y_VALUES, cv=FOLDS_OF_VALUES)
    assert sizes == [3] * len(models)
    for name, model in models.items():
        expected = alone(model, X_VALUES, Y_VALUES, FOLDS_OF_VALUES)["test_score"]
        np.testing.assert_allclose(found.scores["r2"][name], expected, rtol=1e-8)


@pytest.mark.parametrize("scaler", SCALERS.values(), ids=SCALERS)
def test_classes_behind_a_scaler_are_one_stack(scaler, sizes):
    models = {
        "softmax": SoftmaxClassifier(),
        "strong": SoftmaxClassifier(alpha=0.5),
        "sigmoid": SigmoidClassifier(alpha=0.1),
        "hinge": HingeClassifier(alpha=0.2),
        "squares": LeastSquaresClassifier(alpha=0.7),
    }
    models = {name: make_pipeline(SimpleImputer(), scaler, model) for name, model in models.items()}
    frame = pd.DataFrame(X, columns=list("abcd"))
    found = compare(models, frame, Y, cv=FOLDS)
    assert sorted(sizes) == [3, 3, 3, 6]
    for name, model in models.items():
        np.testing.assert_array_equal(found.scores["accuracy"][name], alone(model, frame, Y, FOLDS)["test_score"])
        assert (found.fit_seconds[name] > 0).all()


def test_a_search_behind_a_scaler_is_one_stack(sizes):
    model = make_pipeline(MinMaxScaler(), LinearRegressor(tol=1e-10))
    table = {"linearregressor__alpha": ["auto", 1e-3, 1e-1]}
    found, expected = (
        search(model, table, cv=FOLDS_OF_VALUES, refit=False).fit(X_VALUES, Y_VALUES).cv_results_["mean_test_score"]
        for search in (GridSearchCV, Theirs)
    )
    assert sizes == [9]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    GridSearchCV(model, {"minmaxscaler__feature_range": [(0, 1), (0, 2)]}, cv=FOLDS_OF_VALUES).fit(X_VALUES, Y_VALUES)
    assert len(sizes) == 1, "scalers that differ are no one front"


def with_gaps():
    table = X.copy()
    table[::7, 1] = np.nan
    return table


ODD = {
    "a column that is constant where it is trained": (np.c_[X, np.arange(150) == 3].astype(float), StandardScaler()),
    "constant columns": (np.c_[X, np.full(150, 7.0)], MinMaxScaler()),
    "missing values": (with_gaps(), SimpleImputer(), StandardScaler()),
    "another sign of a gap": (np.round(X), SimpleImputer(missing_values=5.0, strategy="constant", fill_value=90.0)),
    "whole numbers": ((10 * X).astype(int), StandardScaler()),
    "no intercept": (X, StandardScaler(), SoftmaxClassifier(alpha=0.1, fit_intercept=False)),
    "columns as they are": (X, MinMaxScaler(), SoftmaxClassifier(alpha=0.1, standardize=False)),
    "clipped": (X, MinMaxScaler(clip=True)),
    "another step": (X, PCA(2), StandardScaler()),
    "huge": (X * 1e9 + 1e15, StandardScaler()),
    "single precision": (X.astype(np.float32), StandardScaler()),
}


@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
@pytest.mark.filterwarnings("ignore:columns of X differ", "ignore:Columns")
def test_odd_rows_and_steps_make_no_difference(case):
    rows, *steps = case
    model = steps.pop() if isinstance(steps[-1], SoftmaxClassifier) else SoftmaxClassifier(alpha=0.05)
    pipe = make_pipeline(*steps, model)
    found = compare({"softmax": pipe}, rows, Y, cv=FOLDS).scores["accuracy"]["softmax"]
    np.testing.assert_array_equal(found, alone(pipe, rows, Y, FOLDS)["test_score"])


def test_categories_behind_a_scaler_fail_as_they_do_alone():
    frame = pd.DataFrame(X).assign(kind=pd.Categorical(np.where(X[:, 0] > 5.8, "long", "short")))
    frame.columns = frame.columns.astype(str)
    found = compare({"softmax": make_pipeline(StandardScaler(), SoftmaxClassifier())}, frame, Y, cv=FOLDS)
    assert "could not convert string to float" in found.errors["softmax"]


# ---- networks of values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"loss": "absolute_error"}, {"normalization": "layer"}])
def test_networks_of_values_are_one_stack(options, sizes):
    network = MLPRegressorTorch(hidden_layer_sizes=(5,), max_iter=4, random_state=0, **options)
    y = 50 * Y_VALUES + 1000 * np.arange(150) % 7
    for model in (network, make_pipeline(StandardScaler(), network)):
        scoring = ["r2", "neg_mean_absolute_error"]
        found = compare({"mlp": model}, X_VALUES, y, cv=FOLDS_OF_VALUES, scoring=scoring)
        expected = alone(model, X_VALUES, y, FOLDS_OF_VALUES, scoring)
        for metric in scoring:
            np.testing.assert_allclose(found.scores[metric]["mlp"], expected[f"test_{metric}"], rtol=1e-8)
    assert sizes == [3, 3]


@pytest.mark.parametrize("options", [{"loss": "huber"}, {"loss": "poisson"}, {"early_stopping": True}])
def test_networks_whose_units_are_more_are_trained_one_by_one(options, sizes):
    network = MLPRegressorTorch(hidden_layer_sizes=(5,), max_iter=3, random_state=0, **options)
    found = compare({"mlp": network}, X_VALUES, Y_VALUES, cv=FOLDS_OF_VALUES)
    expected = alone(network, X_VALUES, Y_VALUES, FOLDS_OF_VALUES)["test_score"]
    np.testing.assert_allclose(found.scores["r2"]["mlp"], expected, rtol=1e-8)
    assert sizes == [None]


def test_targets_that_are_the_same_in_a_split_are_predicted_as_alone(sizes):
    """A network is trained in a unit small beside them, so that it says them to the last digits."""
    network = MLPRegressorTorch(hidden_layer_sizes=(5,), max_iter=3, random_state=0)
    y = np.where(np.arange(150) < 50, 9.0, 7.0)  # the same in the training rows of the first split
    for target in (y, np.c_[y, Y_VALUES]):
        found = compare({"mlp": network}, X_VALUES, target, cv=FOLDS_OF_VALUES, scoring="neg_mean_absolute_error")
        expected = alone(network, X_VALUES, target, FOLDS_OF_VALUES, "neg_mean_absolute_error")["test_score"]
        np.testing.assert_allclose(next(iter(found.scores.values()))["mlp"], expected, rtol=1e-8)
    assert sizes == [3, 3]


@pytest.mark.parametrize("far", [0, 1e5])
def test_predictions_of_a_stack_are_rounded_as_alone(far, sizes):
    network = MLPRegressorTorch(hidden_layer_sizes=(5,), max_iter=3, random_state=0)
    rows = X_VALUES.astype(np.float32), Y_VALUES / 100 + far
    found = compare({"mlp": network}, *rows, cv=FOLDS_OF_VALUES)
    assert sizes == [3]
    expected = alone(network, *rows, FOLDS_OF_VALUES)["test_score"]
    np.testing.assert_allclose(found.scores["r2"]["mlp"], expected, rtol=1e-10)


def test_a_search_of_networks_with_several_targets_is_one_stack(sizes):
    model, y = (
        MLPRegressorTorch(hidden_layer_sizes=(4,), max_iter=3, random_state=0),
        np.c_[Y_VALUES, -100 * X_VALUES[:, 2]],
    )
    found, expected = (
        search(clone(model), {"alpha": [1e-3, 1.0]}, cv=FOLDS_OF_VALUES, refit=False).fit(X_VALUES, y)
        for search in (GridSearchCV, Theirs)
    )
    assert sizes == [6]
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-8)


def test_networks_on_bins_are_one_stack_with_default_parameters(sizes):
    """Ten of breast_cancer have more weights than any others of such data."""
    rows = load_breast_cancer(return_X_y=True)
    cv = RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0)
    compare({"mlp": MLPClassifierTorch(max_iter=1, random_state=0)}, *rows, cv=cv)
    assert sizes == [10]


GAPS = np.random.default_rng(0).random(X.shape) < 0.1
TABLE = pd.DataFrame(np.where(GAPS, np.nan, X), columns=list("abcd")).assign(
    size=np.where(X[:, 0] > 5.8, "large", None)
)


@pytest.mark.parametrize("labels", [Y, np.where(Y > 0, "yes", "no")], ids=["three", "two"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_networks_of_tables_with_gaps_are_one_stack_and_the_same(labels, precision, sizes):
    """In single precision, products of stacks are rounded in another way by some processors."""
    options = {"precision": precision, "batch_size": 32, "numeric_embedding": "piecewise", "max_iter": 40}
    network = MLPClassifierTorch((9,), random_state=0, categorical_features=["size"], **options)
    scoring = ["accuracy", "neg_log_loss"]
    found = compare({"mlp": network}, TABLE, labels, cv=FOLDS, scoring=scoring)
    assert sizes == [3]
    expected = alone(network, TABLE, labels, FOLDS, scoring)
    for metric in scoring:
        rtol = 1e-12 if precision == "float64" else 1e-5
        np.testing.assert_allclose(found.scores[metric]["mlp"], expected[f"test_{metric}"], rtol=rtol)


def test_networks_whose_digits_would_be_others_are_not_trained_twice(sizes, monkeypatch):
    monkeypatch.setattr(grid, "solve", None)  # a call of which would fail
    network = MLPClassifierTorch((5,), max_iter=3, random_state=0, solver="sgd", precision="float32")
    found = compare({"mlp": network}, X, Y, cv=FOLDS, scoring=["neg_log_loss"])
    assert sizes == [None]
    expected = alone(network, X, Y, FOLDS, "neg_log_loss")["test_score"]
    np.testing.assert_allclose(found.scores["neg_log_loss"]["mlp"], expected, rtol=1e-12)


def test_networks_of_splits_with_gaps_in_other_columns_are_trained_apart(sizes):
    table = np.where(np.arange(150)[:, None] == 3, np.nan, X)  # a gap in two of three
    network = MLPClassifierTorch((5,), max_iter=3, random_state=0)
    found = compare({"mlp": network}, table, Y, cv=FOLDS, scoring=["neg_log_loss"])
    assert sizes == [None]
    expected = alone(network, table, Y, FOLDS, "neg_log_loss")["test_score"]
    np.testing.assert_allclose(found.scores["neg_log_loss"]["mlp"], expected, rtol=1e-12)


@pytest.mark.parametrize("several", [False, True], ids=["one", "several candidates"])
def test_splits_whose_steps_are_others_are_a_stack_of_their_own(several, sizes):
    """A value that one row has is an edge of bins more."""
    rows = np.round(X)
    rows[3] = 1 + rows.max()
    network = MLPClassifierTorch((5,), max_iter=3, random_state=0, batch_size=16)
    if several:
        grid, how = {"alpha": [1e-3, 1.0]}, {"cv": FOLDS, "refit": False}
        found, expected = (search(network, grid, **how).fit(rows, Y) for search in (GridSearchCV, Theirs))
        assert sorted(sizes) == [2, 4]
        for split in range(3):
            mark = f"split{split}_test_score"
            np.testing.assert_array_equal(found.cv_results_[mark], expected.cv_results_[mark])
        return
    found = compare({"mlp": network}, rows, Y, cv=FOLDS, scoring=["neg_log_loss"])
    assert sizes == [2]
    expected = alone(network, rows, Y, FOLDS, "neg_log_loss")["test_score"]
    np.testing.assert_allclose(found.scores["neg_log_loss"]["mlp"], expected, rtol=1e-12)


# ---- models of scikit-learn's ----------------------------------------------------------------------------------------


def test_models_of_scikit_learn_see_the_numbers_of_a_frame():
    frame = pd.DataFrame(X, columns=list("abcd"))
    models = {"logreg": LogisticRegression(C=3), "lda": LinearDiscriminantAnalysis()}
    models = {name: make_pipeline(StandardScaler(), model) for name, model in models.items()}
    for some, rows in product((models, {"logreg": models["logreg"]}), (frame, X)):
        found = compare(some, rows, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
        for name, model in some.items():
            expected = alone(model, rows, Y, FOLDS, ["accuracy", "neg_log_loss"])
            for metric in found.metrics:
                np.testing.assert_allclose(found.scores[metric][name], expected[f"test_{metric}"], rtol=1e-12)


def test_what_is_looked_at_once_is_not_again(monkeypatch):
    seen, transform = [], StandardScaler.transform
    monkeypatch.setattr(
        StandardScaler,
        "transform",
        lambda self, *args, **options: [
            seen.append(get_config()["assume_finite"]),
            transform(self, *args, **options),
        ][1],
    )
    scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    for rows, expected in ((X, {True}), (pd.DataFrame(X, columns=list("abcd")), {True}), (X.tolist(), {False})):
        seen.clear()
        assert not compare({"scaled": scaled, "tree": DecisionTreeClassifier()}, rows, Y, cv=FOLDS).errors
        assert set(seen) == expected
    wrong = make_pipeline(StandardScaler(with_mean="no"), LogisticRegression())
    found = compare({"scaled": scaled, "wrong": wrong, "tree": DecisionTreeClassifier(max_depth="two")}, X, Y, cv=FOLDS)
    assert "'with_mean' parameter of StandardScaler" in found.errors["wrong"]
    assert "'max_depth' parameter of DecisionTreeClassifier" in found.errors["tree"]
    assert "scaled" not in found.errors
    nearest = KNeighborsClassifier(metric="precomputed")  # columns are rows
    distances = np.linalg.norm(X[:, None] - X, axis=-1)
    np.testing.assert_array_equal(
        compare({"nearest": nearest}, distances, Y, cv=FOLDS).scores["accuracy"]["nearest"],
        alone(nearest, distances, Y, FOLDS)["test_score"],
    )


def test_penalties_are_each_alone_where_a_score_would_show_it(sizes):
    models = {str(alpha): SoftmaxClassifier(alpha=alpha) for alpha in (0.5, 1e-3)}
    data = load_breast_cancer(return_X_y=True)
    found = compare(models, *data, cv=FOLDS, scoring=["neg_log_loss", "roc_auc"])
    assert sizes == [3, 3]
    for name, model in models.items():
        for metric in found.metrics:
            expected = alone(model, *data, FOLDS, metric)["test_score"]
            np.testing.assert_allclose(found.scores[metric][name], expected, rtol=1e-12)
    compare(models, *data, cv=FOLDS)
    assert sizes == [3, 3, 6]


def test_why_a_stack_has_no_score_is_said_as_it_is_alone(sizes):
    names, rows = np.where(Y > 0, "yes", "no"), X[:, :2]
    models = {"stack": SoftmaxClassifier(), "alone": LogisticRegression()}
    found = compare(models, rows, names, cv=FOLDS, scoring=["f1", "accuracy"])
    assert sizes == [3] and np.isfinite(found.scores["accuracy"]["stack"]).all()
    assert found.score_errors["f1", "stack"] == found.score_errors["f1", "alone"]


@pytest.mark.filterwarnings("ignore")  # models are trained too little to be good
@pytest.mark.parametrize("rows", [pd.DataFrame(X), pd.DataFrame(dict(enumerate(X.T))), np.asfortranarray(X)])
def test_rows_behind_a_scaler_are_a_frames_to_the_last_bit(rows):
    if hasattr(rows, "columns"):
        rows.columns = list("abcd")
    own = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    models = {
        # whose splits go by hashes of the rows
        "stopped": MLPClassifierTorch(early_stopping=True, validation_fraction=0.3, **own),
        "ensemble": MLPEnsembleClassifier(n_estimators=3, **own),
    }
    models = {name: make_pipeline(StandardScaler(), model) for name, model in models.items()}
    found = compare(models, rows, Y, cv=FOLDS, scoring=["neg_log_loss"])
    for name, model in models.items():
        expected = alone(model, rows, Y, FOLDS, "neg_log_loss")["test_score"]
        np.testing.assert_allclose(found.scores["neg_log_loss"][name], expected, rtol=1e-9)


def test_frames_of_numbers_come_as_arrays_to_who_knows_no_names(monkeypatch):
    seen = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, X, y: [seen.append(type(X)), fit(self, X, y)][1])
    frame, labels = pd.DataFrame(X, columns=list("abcd")), pd.Series(Y)
    models = {
        "logreg": LogisticRegression(max_iter=500),
        "named": HistGradientBoostingClassifier(max_iter=2, categorical_features=["d"]),
        "nested": make_pipeline(make_column_transformer((StandardScaler(), ["a", "b"])), LogisticRegression()),
    }
    found = compare(models, frame, labels, cv=FOLDS)
    assert seen[-6:] == [np.ndarray] * 6 and not found.errors
    for name, model in models.items():
        expected = alone(model, frame, labels, FOLDS)["test_score"]
        np.testing.assert_allclose(found.scores["accuracy"][name], expected, rtol=1e-12)
    seen.clear()
    compare(models, frame, labels, cv=FOLDS, scoring=lambda model, X, y: float("a" in X.columns))
    assert pd.DataFrame in seen, "a scorer of one's own gets the rows as they are"


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_none_are_refused_as_they_are_alone(wrong):
    table = X_VALUES.copy()
    table[[3, 80], 2] = wrong
    models = {"ridge": Ridge(), "scaled": make_pipeline(StandardScaler(), Ridge())}
    found = compare(models, table, Y_VALUES, cv=FOLDS_OF_VALUES)
    assert all("infinity" in found.errors[name] or "NaN" in found.errors[name] for name in models)


def test_a_split_without_a_columns_values_takes_no_longer(monkeypatch):
    """What the other splits' columns are like, is nothing to begin with where one of them has a single value."""
    rng, n_steps = np.random.default_rng(0), []
    X = np.column_stack([rng.normal(size=(1000, 60)), np.arange(1000) == 999])
    y = np.argmax(X[:, :10] + 0.5 * rng.normal(size=(1000, 10)), axis=1)
    step = LBFGS.__call__
    monkeypatch.setattr(LBFGS, "__call__", lambda self, stack: n_steps.append(len(stack.params)) or step(self, stack))
    alone = cross_val_score(model := SoftmaxClassifier(), X, y, cv=KFold(5), scoring="neg_log_loss")
    n_alone = len(n_steps)
    n_steps.clear()
    found = compare({"softmax": model}, X, y, cv=KFold(5), scoring="neg_log_loss")
    assert max(n_steps) == 5
    assert len(n_steps) < 0.4 * n_alone
    np.testing.assert_allclose(found.scores["neg_log_loss"]["softmax"], alone, rtol=1e-3)


@pytest.mark.parametrize("categories, kind", [("from_dtype", np.ndarray), (["a"], pd.DataFrame)])
def test_frames_of_numbers_are_an_array_for_models_that_know_no_names(categories, kind, monkeypatch):
    frame, seen, call = pd.DataFrame(X, columns=list("abcd")).round(), [], rounds._call

    def watched(estimator, parameters, data, *others):
        seen.append(type(data[0]))
        return call(estimator, parameters, data, *others)

    monkeypatch.setattr(rounds, "_call", watched)
    model, metrics = HingeClassifier(random_state=0, categorical_features=categories), ["accuracy", "neg_log_loss"]
    found = compare({"hinge": model}, frame, Y, cv=FOLDS, scoring=metrics)
    assert seen == [kind] * 3
    alone = cross_validate(model, frame, Y, cv=FOLDS, scoring=metrics)
    for metric in metrics:
        np.testing.assert_allclose(found.scores[metric]["hinge"], alone[f"test_{metric}"], rtol=1e-9)
