"""Ensembles of all splits as one stack: their scores are those of one fit after the other."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV as Theirs
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import MLPEnsembleClassifier, MLPEnsembleRegressor, compare
from skdeep.model_selection import GridSearchCV, ensembles, stacked

#: Models are trained too little to be good, which is warned of.
pytestmark = pytest.mark.filterwarnings("ignore")
X, Y = load_iris(return_X_y=True)
VALUES = tuple(part[:90] for part in load_diabetes(return_X_y=True))
OWN = {"n_estimators": 3, "hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 0}
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
TABLE = pd.DataFrame(X, columns=list("abcd")).assign(size=pd.Categorical(np.where(X[:, 0] > 5.8, "large", "small")))

ALPHAS = {"weak": 1e-4, "strong": 1.0}


@pytest.fixture
def stacks(monkeypatch):
    """How many members each stack has had."""
    found, train = [], ensembles.train_dealt
    monkeypatch.setattr(ensembles, "train_dealt", lambda *args: found.append(len(args[2])) or train(*args))
    return found


CASES = {
    "numbers": (MLPEnsembleClassifier(**OWN), X, Y, FOLDS, ["accuracy", "neg_log_loss"]),
    "text": (MLPEnsembleClassifier(calibration="sigmoid", **OWN), X, NAMES, FOLDS, ["accuracy", "neg_log_loss"]),
    "table": (MLPEnsembleClassifier(**OWN), TABLE, pd.Series(NAMES), FOLDS, ["f1_macro"]),
    "gaps": (MLPEnsembleClassifier(**OWN), np.where(X > 6, np.nan, X), Y, FOLDS, ["neg_log_loss"]),
    "repeated rows": (MLPEnsembleClassifier(**OWN), X.round(0), Y, FOLDS, ["neg_log_loss"]),
    "to the end": (MLPEnsembleClassifier(early_stopping=False, **OWN), X, Y, FOLDS, ["neg_log_loss"]),
    "single precision": (MLPEnsembleClassifier(**OWN), X.astype(np.float32), Y, FOLDS, ["accuracy"]),
    "values": (MLPEnsembleRegressor(batch_size=16, **OWN), *VALUES, KFold(3), ["r2", "neg_mean_absolute_error"]),
    "quantiles": (
        MLPEnsembleRegressor(loss="quantile", batch_size=16, **OWN),
        *VALUES,
        KFold(3),
        ["neg_mean_absolute_error"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_one_fit_after_the_other(case, stacks):
    model, data, target, cv, scoring = CASES[case]
    found = compare({"ensemble": model}, data, target, cv=cv, scoring=scoring)
    assert stacks == [9]
    alone = cross_validate(model, data, target, cv=cv, scoring=scoring)
    for metric in scoring:
        tolerance = 1e-5 if case == "single precision" else 1e-10
        np.testing.assert_allclose(found.scores[metric]["ensemble"], alone[f"test_{metric}"], atol=tolerance, rtol=1e-9)


@pytest.mark.parametrize(
    "data, target",
    [
        (np.tile(X, (2, 1))[:203] + np.random.default_rng(0).normal(0, 0.1, (203, 4)), np.tile(Y, 2)[:203]),  # batches
        (np.where(np.arange(150)[:, None] == 3, np.nan, X), Y),  # a gap in one split's test rows
    ],
)
def test_a_split_whose_steps_are_others_is_a_stack_of_its_own(data, target, stacks):
    cv = KFold(3, shuffle=True, random_state=0)
    found = compare({"ensemble": MLPEnsembleClassifier(**OWN)}, data, target, cv=cv, scoring="neg_log_loss")
    assert sorted(stacks) == [3, 6]
    alone = cross_val_score(MLPEnsembleClassifier(**OWN), data, target, cv=cv, scoring="neg_log_loss")
    np.testing.assert_allclose(found.scores["neg_log_loss"]["ensemble"], alone, atol=1e-10)


def test_labels_that_are_several(stacks):
    labels = np.column_stack([Y == 0, X[:, 0] > 6]).astype(int)
    cv = KFold(3, shuffle=True, random_state=0)
    alone = cross_val_score(model := MLPEnsembleClassifier(**OWN), X, labels, cv=cv)
    with stacked():
        np.testing.assert_allclose(cross_val_score(model, X, labels, cv=cv), alone, atol=1e-10)
    assert stacks == [9]


def test_candidates_of_a_search_are_in_the_stack(stacks):
    grid = {"alpha": [1e-4, 1.0], "learning_rate_init": [0.01]}
    options = {"cv": FOLDS, "scoring": "neg_log_loss", "return_train_score": True}
    theirs = Theirs(MLPEnsembleClassifier(**OWN), grid, **options).fit(X, Y)
    ours = GridSearchCV(MLPEnsembleClassifier(**OWN), grid, **options).fit(X, Y)
    assert stacks == [18]
    for name in (f"split{i}_{part}_score" for i in range(3) for part in ("test", "train")):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], atol=1e-10)


def test_candidates_of_several_forms_are_not(stacks):
    grid, options = {"hidden_layer_sizes": [(8,), (4, 4)]}, {"cv": FOLDS, "scoring": "neg_log_loss"}
    theirs = Theirs(MLPEnsembleClassifier(**OWN), grid, **options).fit(X, Y)
    ours = GridSearchCV(MLPEnsembleClassifier(**OWN), grid, **options).fit(X, Y)
    assert stacks == []
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-10)


@pytest.mark.parametrize(
    ("model", "data", "target", "cv"),
    [(MLPEnsembleClassifier(**OWN), X, Y, FOLDS), (MLPEnsembleRegressor(batch_size=16, **OWN), *VALUES, KFold(3))],
)
def test_one_ensemble_behind_a_scaler_is_a_stack(model, data, target, cv, stacks):
    model = make_pipeline(StandardScaler(), model)
    found = compare({"ensemble": model}, data, target, cv=cv)
    assert stacks == [9]
    (scores,) = found.scores.values()
    np.testing.assert_allclose(scores["ensemble"], cross_val_score(model, data, target, cv=cv), atol=1e-10)


def test_rows_behind_steps_are_each_splits_own(stacks):
    models = {name: make_pipeline(PCA(2), MLPEnsembleClassifier(alpha=alpha, **OWN)) for name, alpha in ALPHAS.items()}
    found = compare(models, X, Y, cv=FOLDS, scoring=["neg_log_loss"])
    assert stacks == [18]
    for name, model in models.items():
        alone = cross_validate(model, X, Y, cv=FOLDS, scoring="neg_log_loss")["test_score"]
        np.testing.assert_allclose(found.scores["neg_log_loss"][name], alone, atol=1e-10)


def test_stacks_are_no_larger_than_pays(stacks, monkeypatch):
    model = MLPEnsembleClassifier(**OWN)
    whole = compare({"ensemble": model}, X, Y, cv=FOLDS)
    n_params = ensembles._FitOfSplit.of([clone(model)], X, Y, np.arange(0, 150, 2)).n_params
    monkeypatch.setattr(ensembles, "_MAX_PARAMS", 2 * n_params)
    parts = compare({"ensemble": model}, X, Y, cv=FOLDS)
    monkeypatch.setattr(ensembles, "_MAX_PARAMS", n_params)
    alone = compare({"ensemble": model}, X, Y, cv=FOLDS)
    assert stacks == [9, 6, 3]
    for found in (parts, alone):
        np.testing.assert_allclose(found.scores["accuracy"]["ensemble"], whole.scores["accuracy"]["ensemble"])


@pytest.mark.parametrize(
    ("model", "data", "target"),
    [
        (MLPEnsembleClassifier(batch_size=200, **OWN), X, Y),  # equal rows may be merged
        (MLPEnsembleClassifier(class_weight="balanced", **OWN), X, Y),
        (MLPEnsembleRegressor(loss="huber", batch_size=16, **OWN), *VALUES),
        (MLPEnsembleClassifier(solver="lbfgs", **OWN), X, Y),
    ],
)
def test_what_each_split_decides_for_itself_is_trained_so(model, data, target, stacks):
    cv = FOLDS if target is Y else KFold(3)
    found = compare({"ensemble": model}, data, target, cv=cv)
    (scores,) = found.scores.values()
    alone = cross_validate(model, data, target, cv=cv)
    np.testing.assert_allclose(scores["ensemble"], alone["test_score"], atol=1e-9)
    assert not stacks


def test_an_error_is_a_fits():
    found = compare({"ensemble": MLPEnsembleClassifier(**{**OWN, "max_iter": -1})}, X, Y, cv=FOLDS)
    assert "max_iter" in found.errors["ensemble"]
    data = np.where(np.arange(150)[:, None] == 3, np.inf, X)
    found = compare({"ensemble": MLPEnsembleClassifier(**OWN)}, data, Y, cv=FOLDS)
    assert "fit failed on 2 of 3 splits" in found.errors["ensemble"] and "infinity" in found.errors["ensemble"]


def test_a_fault_is_no_secret(monkeypatch):
    monkeypatch.delattr(ensembles, "train_dealt")
    with pytest.warns(RuntimeWarning, match="A fault of skdeep's"):
        found = compare({"ensemble": MLPEnsembleClassifier(**OWN)}, X, Y, cv=FOLDS)
    assert np.isfinite(found.scores["accuracy"]["ensemble"]).all()
