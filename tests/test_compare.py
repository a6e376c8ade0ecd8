"""Comparisons: the statistics against formulas and simulation, who trains with whom, and what is refused."""

import io
import pickle
import subprocess
import sys
from decimal import Decimal
from functools import cache

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from helpers import set_constant
from scipy import stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC

import skdeep.compare
from skdeep import LinearRegressor, MLPClassifierTorch, Quantile, SoftmaxClassifier, compare
from skdeep.display import ComparisonDisplay
from skdeep.model_selection import Comparison, contest, contestants, evaluation, grid, paired_difference, rounds
from skdeep.model_selection.counter import Counter
from skdeep.model_selection.paired import holm
from skdeep.model_selection.table_files import notes_of_classes, notes_of_columns, read

X, Y = load_iris(return_X_y=True)
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)
ONE, OTHER = np.array([0.91, 0.93, 0.92, 0.95, 0.90]), np.array([0.88, 0.91, 0.92, 0.91, 0.89])


# ---- statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rope", [0.0, 0.01])
@pytest.mark.parametrize("runs", [1, 2])
def test_probabilities_are_those_of_baycomp(rope, runs):
    baycomp = pytest.importorskip("baycomp")
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.9, 0.02, (2, 10))
    found = paired_difference(one, other, 1 / (10 / runs - 1), rope=rope)
    expected = baycomp.CorrelatedTTest.probs(other, one, rope, runs)  # of its two, the second is better on the right
    own = (found.p_worse, found.p_equal, found.p_better) if rope else (found.p_worse, found.p_better)
    np.testing.assert_allclose(np.sort(own), np.sort(expected), rtol=1e-10)
    assert np.argmax(own) in (np.argmax(expected), len(own) - 1 - np.argmax(expected))
    assert (found.p_better > found.p_worse) == (one.mean() > other.mean())


def test_interval_and_p_value_are_the_published_formula():
    d, ratio = ONE - OTHER, 1 / 4
    found = paired_difference(ONE, OTHER, ratio, confidence=0.9)
    error = np.sqrt((1 / 5 + ratio) * d.var(ddof=1))
    expected = stats.t.interval(0.9, 4, d.mean(), error)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)
    np.testing.assert_allclose(found.p_value, 2 * stats.t.sf(abs(d.mean() / error), 4), rtol=1e-12)
    # without any overlap it would be the usual t-test of pairs
    plain = paired_difference(ONE, OTHER, 1e-14)
    np.testing.assert_allclose(plain.p_value, stats.ttest_rel(ONE, OTHER).pvalue, rtol=1e-9)


def simulated(rng, n, n_splits, ratio, mean=0.0):
    """Differences as the formula takes them: normal, any two with the correlation ratio / (1 + ratio)."""
    rho = ratio / (1 + ratio)
    return mean + np.sqrt(rho) * rng.normal(size=(n, 1)) + np.sqrt(1 - rho) * rng.normal(size=(n, n_splits))


@pytest.mark.parametrize(("n_splits", "ratio"), [(10, 1 / 4), (5, 1 / 4), (15, 1 / 2)])
def test_coverage_is_what_is_promised(n_splits, ratio):
    rng = np.random.default_rng(n_splits)
    found = [paired_difference(d, 0 * d, ratio) for d in simulated(rng, 3000, n_splits, ratio, mean=0.7)]
    assert 0.93 < np.mean([one.low <= 0.7 <= one.high for one in found]) < 0.97
    naive = [paired_difference(d, 0 * d, 1e-14) for d in simulated(rng, 1000, n_splits, ratio, mean=0.7)]
    assert np.mean([one.low <= 0.7 <= one.high for one in naive]) < 0.9, "what the correction is for"


def test_false_alarms_are_rare_among_several_contestants():
    """All contestants are as good as the reference, whose scores they share."""
    rng, names, n = np.random.default_rng(1), [f"c{i}" for i in range(5)], 600
    alarms = 0
    for _ in range(n):
        scores = {name: row for name, row in zip(names, simulated(rng, 5, 10, 1 / 4), strict=True)}
        zeros = dict.fromkeys(names, np.zeros(10))
        found = Comparison(names, "c0", {"score": scores}, zeros, zeros, 1 / 4, {"score": 0.0})
        alarms += any(row["verdict"] in ("better", "worse") for row in found.rows())
    assert 0 < alarms / n <= 0.05


def test_equal_seconds_have_no_spread():
    """A stack's time is divided among its models, so that their deviation is rounding."""
    scores, seconds = {"a": np.arange(3.0), "b": np.arange(3.0) ** 2}, {"a": np.full(3, 0.1), "b": np.full(3, 0.1)}
    assert 0 < np.std(seconds["a"], ddof=1) < 1e-16
    assert (
        str(Comparison(["a", "b"], "a", {"score": scores}, seconds, seconds, 0.5, {"score": 0.0})).count("0.1 ± 0 ")
        == 4
    )


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, np.nan, 0.03]), [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert len(holm([])) == 0
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).uniform(size=8) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])


def test_what_has_no_variance_has_no_interval():
    one_split = paired_difference([0.9], [0.8], 1 / 4)
    same = paired_difference(ONE, ONE + 1e-17, 1 / 4)
    shifted = paired_difference(ONE + 0.1, ONE, 1 / 4)
    assert one_split.mean == pytest.approx(0.1)
    assert shifted.mean == pytest.approx(0.1)
    for found in (one_split, shifted):
        assert np.isnan([found.low, found.high, found.p_better, found.p_equal, found.p_worse, found.p_value]).all()
    assert (same.low, same.high, same.p_equal, same.p_value) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("scores", "reference", "ratio", "options", "message"),
    [
        ([0.9, 0.8], [0.9], 0.25, {}, "same length"),
        ([], [], 0.25, {}, "same length"),
        ([[0.9]], [[0.9]], 0.25, {}, "same length"),
        ([0.9, np.nan], [0.9, 0.9], 0.25, {}, "must be finite"),
        ([0.9, 0.8], [0.9, 0.9], 0, {}, "test_ratio is the number"),
        ([0.9, 0.8], [0.9, 0.9], 0.25, {"rope": -1}, "rope is the largest"),
        ([0.9, 0.8], [0.9, 0.9], 0.25, {"confidence": 95}, "between 0 and 1"),
    ],
)
def test_statistics_refuse(scores, reference, ratio, options, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(scores, reference, ratio, **options)


# ---- training --------------------------------------------------------------------------------------------------------


class Counting(TransformerMixin, BaseEstimator):
    """Scales columns, and counts how often it is fitted."""

    fits = 0

    def fit(self, X, y=None):
        type(self).fits += 1
        return self

    def transform(self, X):
        return X / 10

    def __sklearn_is_fitted__(self):
        return True


class Failing(LogisticRegression):
    """Fails on every fit."""

    def fit(self, X, y):
        raise RuntimeError("no such luck")


def softmax(**params):
    return SoftmaxClassifier(random_state=0, **params)


@cache
def compared():
    """Contestants behind the same steps, one of which fails, and one without."""
    Counting.fits = 0
    models = {
        "logreg": make_pipeline(Counting(), LogisticRegression()),
        "weak": make_pipeline(Counting(), softmax(alpha=1e-3)),
        "strong": make_pipeline(Counting(), softmax(alpha=10.0)),
        "failing": make_pipeline(Counting(), Failing()),
        "dummy": DummyClassifier(),
    }
    found = compare(models, X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
    return found, Counting.fits, models


def test_what_contestants_have_in_common_is_done_once(monkeypatch):
    found, n_fits, models = compared()
    assert n_fits == 3, "the step in front is fitted once per fold"
    assert found.names == ["logreg", "weak", "strong", "failing", "dummy"]
    assert all((found.fit_seconds[name] > 0).all() for name in found.names)
    sizes, fit_stack = [], evaluation.fit_stack
    monkeypatch.setattr(
        evaluation,
        "fit_stack",
        lambda members, *args, **own: sizes.append(len(members)) or fit_stack(members, *args, **own),
    )
    compare({name: models[name] for name in ("weak", "strong")}, X, Y, cv=FOLDS)
    assert sizes == [2, 2, 2], "the two strengths of each fold are a stack"


def test_longer_fronts_go_on_where_shorter_ones_end():
    Counting.fits = 0
    models = {
        "long": make_pipeline(Counting(), StandardScaler(copy=False), LogisticRegression()),
        "longer": make_pipeline(Counting(), StandardScaler(copy=False), Counting(), LogisticRegression()),
        "other": make_pipeline(Counting(), MinMaxScaler(), LogisticRegression()),
        "weak": make_pipeline(Counting(), softmax(alpha=1e-3)),
        "strong": make_pipeline(Counting(), softmax(alpha=10.0)),
    }
    found = compare(models, X, Y, cv=FOLDS, scoring=["neg_log_loss"])
    assert Counting.fits == 6, "one in front of all, and one more of the longer front"
    for name, model in models.items():
        expected = cross_validate(model, X, Y, cv=FOLDS, scoring="neg_log_loss")["test_score"]
        np.testing.assert_allclose(found.scores["neg_log_loss"][name], expected, rtol=1e-9)


def test_scores_are_those_of_cross_validate():
    found, _, models = compared()
    for name in ("logreg", "weak", "strong", "dummy"):
        expected = cross_validate(models[name], X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
        for metric in found.metrics:
            np.testing.assert_allclose(found.scores[metric][name], expected[f"test_{metric}"], rtol=1e-12)
    assert found.test_ratio == pytest.approx(0.5)


def test_a_failure_is_a_row_of_its_own():
    found, *_ = compared()
    rows = {(row["metric"], row["contestant"]): row for row in found.rows()}
    assert len(rows) == 10
    failed = rows["accuracy", "failing"]
    assert failed["verdict"] == "failed"
    assert failed["error"] == "the fit failed on 3 of 3 splits: RuntimeError: no such luck"
    assert np.isnan([failed["mean"], failed["difference"], failed["p_holm"], failed["predict_seconds"]]).all()
    assert [rows["neg_log_loss", name]["verdict"] for name in ("logreg", "dummy")] == ["reference", "worse"]
    assert found.difference("accuracy", "failing") is None
    assert found.rope == {"accuracy": 0.01, "neg_log_loss": 0.01}
    for text in (repr(found), found._repr_html_(), found.to_html()):
        assert "failing: the fit failed on 3 of 3 splits" in text
        assert "5 contestants on 3 splits, compared with logreg" in text


def test_frame_is_the_rows(monkeypatch):
    found, *_ = compared()
    frame = found.frame()
    assert len(frame) == 10
    assert list(frame.columns) == list(found.rows()[0])
    assert frame["difference"].dtype == float
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        found.frame()


def test_an_interval_without_zero_that_decides_nothing_is_explained():
    scores = {"a": [0.8, 0.82, 0.79, 0.81, 0.8], "b": [0.86, 0.83, 0.83, 0.86, 0.83], "c": [0.8, 0.83, 0.77, 0.81, 0.8]}
    past = {name: {"test_score": np.array(values)} for name, values in scores.items()}
    for names, n_remarks in ((["a", "b"], 0), (["a", "b", "c"], 1)):
        found = compare({name: past[name] for name in names}, cv=KFold(5), rope=0.0)
        row = found.rows()[1]
        assert row["low"] > 0
        assert row["verdict"] == ("undecided" if n_remarks else "better")
        assert repr(found).count("b: an interval leaves out zero, and the verdict is undecided") == n_remarks


def test_whoever_the_reference_is_the_differences_turn_around():
    found, *_ = compared()
    turned = Comparison(**{**vars(found), "reference": "dummy"})
    one, other = found.difference("accuracy", "dummy"), turned.difference("accuracy", "logreg")
    np.testing.assert_allclose((one.mean, one.low, one.p_better), (-other.mean, -other.high, other.p_worse))


def test_a_failing_reference_leaves_means():
    found = compare({"failing": Failing(), "dummy": DummyClassifier()}, X, Y, cv=2)
    assert [row["verdict"] for row in found.rows()] == ["failed", "undecided"]
    assert found.rows()[1]["mean"] == pytest.approx(1 / 3)


def test_workers_find_the_same():
    found, _, models = compared()
    with joblib.parallel_config("threading"):
        again = compare(models, X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"], n_jobs=2)
    for name in ("logreg", "weak", "strong"):
        np.testing.assert_allclose(again.scores["neg_log_loss"][name], found.scores["neg_log_loss"][name], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}])
def test_networks_of_all_splits_are_one_stack_behind_steps_as_well(options, monkeypatch):
    sizes, train = [], grid._Grid.train
    monkeypatch.setattr(
        grid._Grid, "train", lambda *args: [found := train(*args), sizes.append(found and len(found[1]))][0]
    )
    network = MLPClassifierTorch((5,), max_iter=3, batch_size=20, random_state=0, **options)
    behind = {"logreg": make_pipeline(StandardScaler(), LogisticRegression())}
    for name, alpha in {"weak": 1e-4, "strong": 10.0}.items():
        behind[name] = make_pipeline(StandardScaler(), clone(network).set_params(alpha=alpha))
    for models, expected in (({"mlp": network}, 3), ({"weak": behind["weak"]}, 3), (behind, 6)):
        sizes.clear()
        found = compare(models, X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
        assert sizes == [expected]
        for name, model in models.items():
            alone = cross_validate(model, X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
            for metric in found.metrics:
                np.testing.assert_allclose(found.scores[metric][name], alone[f"test_{metric}"], rtol=1e-9)
    set_constant(monkeypatch, "MAX_IN_ONE_ARRAY", 100)  # too many rows for one array: each split has its own
    sizes.clear()
    again = compare(behind, X, Y, cv=FOLDS, scoring=["accuracy", "neg_log_loss"])
    assert not sizes
    np.testing.assert_allclose(again.scores["neg_log_loss"]["weak"], found.scores["neg_log_loss"]["weak"], rtol=1e-9)


def test_rounds_of_few_splits_are_the_same(monkeypatch):
    models = {name: softmax(alpha=alpha) for name, alpha in {"a": 1, "b": 2}.items()}
    models = {name: make_pipeline(Counting(), model) for name, model in models.items()}  # by no change of variables
    whole = compare(models, X, Y, cv=FOLDS)
    sizes, one_round = [], rounds._round
    monkeypatch.setattr(rounds, "_round", lambda *args: [sizes.append(len(args[4])), one_round(*args)][1])
    for name, value, expected in (("_SPLITS_OF_ROUND", 2, [2, 1]), ("_MAX_KEPT", X.size, [1, 1, 1])):
        sizes.clear()
        set_constant(monkeypatch, name, value)
        found = compare(models, X, Y, cv=FOLDS)
        assert sizes == expected
        np.testing.assert_array_equal(found.scores["accuracy"]["b"], whole.scores["accuracy"]["b"])


class Fragile(Counting):
    """Cannot be fitted to rows of two classes."""

    def fit(self, X, y=None):
        if len(np.unique(y)) < 3:
            raise RuntimeError("two classes")
        return self


def test_a_step_that_fails_in_one_split_is_said_to():
    rows = np.arange(len(Y))
    splits = [(rows[::2], rows[1::2]), (rows[Y < 2], rows[Y < 2])]
    models = {name: make_pipeline(Fragile(), LogisticRegression(C=c)) for name, c in {"a": 1, "b": 2}.items()}
    found = compare({**models, "c": LogisticRegression(max_iter=500)}, X, Y, cv=splits, reference="c")
    assert found.rows()[0]["error"] == "the fit failed on 1 of 2 splits: RuntimeError: two classes"
    assert np.isfinite(found.scores["accuracy"]["a"]).tolist() == [True, False]
    assert np.isfinite(found.scores["accuracy"]["c"]).all()


def test_a_metric_that_a_contestant_cannot_have_is_its_own():
    models = {"dummy": DummyClassifier(), "svc": LinearSVC()}
    for n_jobs in (1, 2):
        with joblib.parallel_config("threading"):
            found = compare(models, X, Y, cv=2, scoring=["accuracy", "neg_log_loss"], n_jobs=n_jobs)
        assert [row["verdict"] for row in found.rows()] == ["reference", "better", "reference", "failed"]
        assert "svc: neg_log_loss has no finite value on 2 of 2 splits: AttributeError: " in repr(found)
        assert "has none of the following attributes: predict_proba" in repr(found)
    why = pickle.loads(pickle.dumps(contest.Failure("no such luck")))  # as workers send it
    assert np.isnan(why)
    assert why.trace == "no such luck"


def test_one_split_has_no_interval():
    cv = ShuffleSplit(1, test_size=0.5, random_state=0)
    found = compare({"dummy": DummyClassifier(), "softmax": softmax()}, X, Y, cv=cv)
    row = found.rows()[1]
    assert row["difference"] > 0.5
    assert np.isnan([row["low"], row["p_value"], row["fit_seconds_std"]]).all()
    assert row["verdict"] == "undecided"
    assert "One split has no interval" in repr(found)


def test_regressors_and_other_scorings():
    X, y = load_diabetes(return_X_y=True)
    models = {"mean": DummyRegressor(), "ridge": Ridge()}
    found = compare(models, X, y, cv=KFold(3))
    assert (found.metrics, found.rope) == (["r2"], {"r2": 0.01})
    assert found.rows()[1]["verdict"] == "better"
    found = compare(models, X, y, cv=KFold(3), scoring="neg_root_mean_squared_error", rope=100)
    assert found.rows()[1]["verdict"] == "equal"

    def largest_error(model, X, y):
        return -np.abs(model.predict(X) - y).max()

    found = compare(models, X, y, cv=KFold(3), scoring=largest_error, rope={"largest_error": 1})
    assert (found.metrics, found.rope) == (["largest_error"], {"largest_error": 1})


def test_scores_of_several_quantiles_are_named_and_compare_with_each_other():
    data, values = load_diabetes(return_X_y=True)
    wide, narrow = (LinearRegressor(Quantile([level, 1 - level])) for level in (0.1, 0.3))
    assert list(compare({"wide": wide, "narrow": narrow}, data[:60], values[:60], cv=3).scores) == ["d2"]
    with pytest.raises(ValueError, match="D² of these"):
        compare({"wide": wide, "mean": Ridge()}, data[:60], values[:60], cv=3)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (({"a": DummyClassifier()},), {}, ValueError, "needs X and y"),
        ((DummyClassifier(), X, Y), {}, TypeError, "must be a dictionary of names"),
        (("softmax", X, Y), {}, TypeError, "must be a dictionary of names"),
        (({"a": DummyClassifier}, X, Y), {}, TypeError, "Pass an instance, not the class"),
        (({"a": 3}, X, Y), {}, TypeError, "must be an estimator"),
        (({}, X, Y), {}, ValueError, "no contestants"),
        ((["softmax", "svm"], X, Y), {}, ValueError, "no default contestant 'svm'"),
        ((["softmax"], X, Y + 0.5), {}, ValueError, "no default contestant 'softmax' for values"),
        (({"a": DummyClassifier()}, X, Y), {"reference": "b"}, ValueError, "'b' is no contestant; there are a"),
        (({"a": DummyClassifier()}, X, Y), {"rope": -1}, ValueError, "rope is the largest"),
        (({"a": DummyClassifier()}, X, Y), {"rope": {"f1": 1}}, ValueError, "rope names the metric 'f1'"),
        (({"a": DummyClassifier()}, X, Y), {"confidence": 2}, ValueError, "between 0 and 1"),
        (({"a": DummyClassifier()}, X, np.where(Y, Y, np.nan)), {}, ValueError, "no value in 50 of 150 rows"),
    ],
)
def test_comparisons_refuse(args, options, error, message):
    with pytest.raises(error, match=message):
        compare(*args, **options)


# ---- scores that are there -------------------------------------------------------------------------------------------


@cache
def past(indices=True, cv=FOLDS):
    results = [cross_validate(m, X, Y, cv=cv, return_indices=indices) for m in (DummyClassifier(), softmax())]
    return dict(zip(("dummy", "softmax"), results, strict=True))


def test_scores_that_are_there_are_compared_alike():
    fresh = compare({"dummy": DummyClassifier(), "softmax": softmax()}, X, Y, cv=FOLDS, scoring="accuracy")
    found = compare(past(), rope=0.01)
    assert found.metrics == ["score"]
    assert found.difference("score", "softmax") == fresh.difference("accuracy", "softmax")
    assert not found.notes


@pytest.mark.parametrize(
    ("cv", "data", "ratio"),
    [
        (3, (), 1 / 2),
        (FOLDS, (), 1 / 2),
        (TimeSeriesSplit(3), (X, Y), 111 / 228),
        (list(FOLDS.split(X, Y)), (), 1 / 2),
        (RepeatedStratifiedKFold(n_splits=3, n_repeats=1), (), 1 / 2),
        (ShuffleSplit(3, test_size=0.2), (), 1 / 4),
    ],
)
def test_the_splitter_tells_how_wide_intervals_are(cv, data, ratio):
    found = compare(past(indices=False), *data, cv=cv)
    assert found.test_ratio == pytest.approx(ratio)
    assert "could not be checked" in repr(found)


def test_a_search_is_its_best_candidate():
    search = GridSearchCV(softmax(), {"alpha": [1e-2, 100.0]}, cv=FOLDS).fit(X, Y)
    found = compare({"search": search, **past()}, reference="dummy")
    expected = [search.cv_results_[f"split{i}_test_score"][search.best_index_] for i in range(3)]
    np.testing.assert_array_equal(found.scores["score"]["search"], expected)
    assert "the best of 2 candidates" in repr(found)
    assert compare({"search": search, **past(indices=False)}).test_ratio == pytest.approx(1 / 2), "the search knows"


@pytest.mark.parametrize(
    ("contestants", "options", "error", "message"),
    [
        (lambda: past(indices=False), {}, ValueError, "Pass cv, the splitter"),
        (lambda: past(indices=False), {"cv": TimeSeriesSplit(3)}, ValueError, "Pass cv, the splitter"),
        (
            lambda: past(indices=False),
            {"cv": ShuffleSplit(3, test_size=0.2, train_size=50)},
            ValueError,
            "Pass cv, the splitter",
        ),
        (lambda: past(indices=False), {"cv": 5}, ValueError, "cv has 5 splits, and the scores are of 3"),
        (lambda: {**past(), "c": past(cv=StratifiedKFold(3))["dummy"]}, {}, ValueError, "different splits"),
        (lambda: {**past(), "c": {"test_score": [1.0]}}, {}, ValueError, "different numbers of splits"),
        (lambda: {**past(), "c": {"test_f1": [1.0]}}, {}, ValueError, "no score in common"),
        (lambda: {**past(), "c": {"accuracy": [1.0]}}, {}, ValueError, "a dictionary without scores"),
        (lambda: {**past(), "c": DummyClassifier()}, {}, TypeError, "'c' is to be trained"),
        (past, {"scoring": "f1"}, ValueError, "Not all contestants have scores 'f1'"),
    ],
)
def test_scores_that_are_no_pairs_are_refused(contestants, options, error, message):
    with pytest.raises(error, match=message):
        compare(contestants(), **options)


# ---- default contestants, and the command line -----------------------------------------------------------------------


def table(n=90):
    """Numbers with gaps, text with gaps, booleans, categories, and a target of strings that follows from the text."""
    rng = np.random.default_rng(0)
    text = rng.choice(["x", "y", "z"], n)
    frame = pd.DataFrame({"number": rng.normal(size=n), "text": text, "flag": rng.choice([True, False], n)})
    frame["kind"] = pd.Categorical(rng.choice(["u", "v"], n))
    frame.loc[::7, "number"] = np.nan
    frame.loc[::11, "text"] = None
    frame["answer"] = np.where(text == "x", "yes", "no")
    return frame


def test_default_contestants_take_a_table_as_it_comes():
    frame = table()
    names = [name for name in contestants.DEFAULTS if name != "ensemble"]  # it takes what "mlp" takes
    found = compare(names, frame.drop(columns="answer"), frame["answer"], cv=2, scoring=["accuracy", "neg_log_loss"])
    assert not found.errors
    means = {row["contestant"]: row["mean"] for row in found.rows() if row["metric"] == "accuracy"}
    assert all(mean > 0.85 for name, mean in means.items() if name not in ("dummy", "hgb")), means
    assert means["dummy"] < 0.75


@pytest.mark.parametrize(
    ("kind", "names", "metric", "n_notes"),
    [(np.int64, ["ridge", "dummy"], "r2", 1), (np.float64, None, "r2", 1), (str, ["logreg", "dummy"], "accuracy", 0)],
)
def test_many_whole_numbers_are_values_and_a_note_says_so(kind, names, metric, n_notes, monkeypatch):
    monkeypatch.setattr(contestants, "DEFAULTS_OF_VALUES", ("ridge", "dummy"))
    y = (X[:, 0] * 10).round().astype(int).astype(kind)  # 35 different ones in 150 rows
    found = compare(names, X, y, cv=KFold(2))
    assert found.metrics == [metric]
    assert len(found.notes) == n_notes
    assert all(note.startswith("y has 35 different whole numbers, taken as values") for note in found.notes)
    assert not contestants.are_values(Y * 1.0)


@pytest.mark.parametrize(
    ("y", "metric"),
    [
        ((Y > 0).astype(object), "accuracy"),
        (Y.astype(object), "accuracy"),
        (X[:, 0].astype(object), "r2"),
        (np.array([Decimal(str(value)) for value in X[:, 0]]), "r2"),
    ],
    ids=["booleans", "integers", "floats", "decimals"],
)
def test_numbers_may_be_objects_in_targets(y, metric):
    names = {"accuracy": ["logreg", "dummy"], "r2": ["ridge", "dummy"]}[metric]
    plain = np.array([float(value) for value in y]) if metric == "r2" else y.astype(int)
    cv = KFold(2, shuffle=True, random_state=0)
    expected = compare(names, X, plain, cv=cv).scores
    for given in (y, pd.Series(y, index=range(5, 5 + len(y)))):
        found = compare(names, X, given, cv=cv)
        assert found.metrics == [metric]
        np.testing.assert_allclose(found.scores[metric][names[0]], expected[metric][names[0]])


def test_each_default_contestant_has_the_steps_that_it_needs():
    def lengths(X):
        return {name: len(getattr(m, "steps", [m])) for name, m in contestants.default_contestants(X, Y).items()}

    plain = {"logreg": 2, "hgb": 1, "softmax": 1, "hinge": 1, "mlp": 1, "ensemble": 1, "dummy": 1}
    assert lengths(X) == lengths(pd.DataFrame(X)) == lengths(pl.DataFrame(X)) == plain
    with_gaps = np.where(X > 7, np.nan, X)
    gaps = {**plain, "logreg": 3, "softmax": 2, "hinge": 2}
    assert lengths(with_gaps) == lengths(pd.DataFrame(with_gaps)) == lengths(pl.DataFrame(with_gaps)) == gaps
    text = pd.DataFrame(X).assign(text="a")
    assert lengths(text) == {**plain, "logreg": 3, "hgb": 2}  # ours take categories as they are
    both = pd.DataFrame(with_gaps).assign(text="a")
    assert lengths(both) == {**plain, "logreg": 4, "hgb": 2, "softmax": 3, "hinge": 3}


@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_columns_of_odd_types():
    """Nullable integers and booleans, objects that are numbers, a column without values, a category for each row."""
    rng, n = np.random.default_rng(0), 60
    y = rng.random(n) < 0.5
    flag = pd.array(y, dtype="boolean")
    flag[::9] = pd.NA
    frame = pd.DataFrame({"whole": pd.array(rng.integers(0, 9, n), dtype="Int64"), "flag": flag})
    frame["object"] = [None if i % 7 == 0 else bool(i % 2) for i in range(n)]
    frame["empty"], frame["id"] = np.nan, [f"id{i}" for i in range(n)]
    names = ["logreg", "hgb", "softmax", "mlp"]
    for X in (frame, frame[["whole", "flag"]], pl.from_pandas(frame)):
        found = compare(names, X, y, cv=2)
        assert not found.errors
        means = {name: found.scores["accuracy"][name].mean() for name in names}
        del means["hgb"]  # which makes no leaves of so few rows
        assert min(means.values()) > 0.7, means


@pytest.mark.parametrize("kind", ["string", "string[pyarrow]", "arrow", "category"])
def test_names_that_pandas_marks_as_missing_have_a_level_of_their_own(kind):
    rng, n = np.random.default_rng(0), 90
    names, gap = rng.choice(["a", "b", "c"], n), rng.random(n) < 0.2
    if "arrow" in kind:
        pyarrow = pytest.importorskip("pyarrow")
        kind = pd.ArrowDtype(pyarrow.string()) if kind == "arrow" else kind
    column = pd.Series(names, dtype="string").mask(gap).astype(kind)
    found = compare(["logreg", "hgb", "softmax"], pd.DataFrame({"x": rng.normal(size=n), "name": column}), gap, cv=3)
    assert not found.errors
    assert min(found.scores["accuracy"][name].mean() for name in ("logreg", "softmax")) > 0.95


def test_columns_that_nobody_takes_are_named():
    dates = pd.DataFrame({"day": pd.date_range("2020", periods=150)})
    with pytest.raises(ValueError, match="'day' holds dates"):
        compare(None, dates, Y)
    with pytest.raises(ValueError, match="which columns hold categories"):
        compare(None, X.astype(str), Y)
    with pytest.raises(ValueError, match="several columns named 'a'"):
        compare(None, pd.DataFrame(X, columns=list("abca")), Y)


def test_the_command_line_writes_a_report(tmp_path):
    path, out = tmp_path / "data.csv", tmp_path / "report.html"
    table().to_csv(path, index=False)
    options = ["--target", "answer", "--cv", "2x2", "--contestants", "logreg,dummy", "--out", str(out)]
    # what -m does: it warns where the package has imported the module
    program = "import runpy, types\nfrom skdeep import compare\nassert isinstance(compare, types.FunctionType)\n"
    program += "runpy.run_module('skdeep.compare', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-W", "error", "-c", program, str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 contestants on 4 splits, compared with logreg" in done.stdout
    assert "90 rows, 4 columns, 2 classes, 4 splits" in done.stderr
    page = out.read_text(encoding="utf-8")
    assert "<td" in page
    assert page.count("<svg") == page.count("</svg>") == 2, "a picture of each metric"
    assert page.rstrip().endswith("</html>")


@pytest.mark.parametrize("library", ["zarr", "dask.array"])
def test_arrays_in_files_are_compared_as_arrays_in_memory_are(library, tmp_path):
    X, y = load_iris(return_X_y=True)
    module = pytest.importorskip(library)
    stored = module.create_array(tmp_path / "X", data=X) if library == "zarr" else module.from_array(X, chunks=50)
    models = {"softmax": SoftmaxClassifier(), "scaled": make_pipeline(StandardScaler(), LogisticRegression())}
    expected, found = (compare(models, data, y, cv=3) for data in (X, stored))
    for name, scores in expected.scores["accuracy"].items():
        np.testing.assert_array_equal(found.scores["accuracy"][name], scores)


@pytest.mark.parametrize(
    ("data", "message"),
    [(pl.DataFrame({"a": [1.0, 2.0]}).lazy(), "lazy frame"), (lambda: iter([]), "comes in chunks"), (iter([]), "once")],
)
def test_what_has_no_rows_to_hold_out_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        compare({"softmax": SoftmaxClassifier()}, data, [0, 1])


def test_tensors_are_compared_as_arrays_are():
    X, y = load_iris(return_X_y=True)
    models = {"softmax": SoftmaxClassifier(), "scaled": make_pipeline(StandardScaler(), LogisticRegression())}
    expected, found = (compare(models, *data, cv=3) for data in ((X, y), (torch.from_numpy(X), torch.from_numpy(y))))
    for name, scores in expected.scores["accuracy"].items():
        np.testing.assert_array_equal(found.scores["accuracy"][name], scores)


def test_the_command_line_reads_parquet_and_skips_rows_without_target(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    frame = table()
    frame.loc[3, "answer"] = None
    frame.to_parquet(tmp_path / "data.parquet")
    options = ["--target", "answer", "--cv", "2", "--contestants", "dummy", "--scoring", "accuracy", "--quiet"]
    assert skdeep.compare.main([str(tmp_path / "data.parquet"), *options]) == 0
    printed = capsys.readouterr()
    assert "1 contestant on 2 splits" in printed.out
    assert printed.err == "1 rows without answer are left out.\n"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none.csv", [], "There is no file"),
        ("data.json", [], "named neither .csv"),
        ("data.csv", ["--values", "--target", "word"], "--values, and 'word' is not numbers"),
        ("data.csv", ["--target", "same"], "one value, 1, in all 2 rows"),
        ("latin.csv", [], "--encoding latin-1"),
        ("longer.csv", [], "Expected 2 fields, saw 3"),
        ("many.csv", [], "has 30 different numbers, taken as classes. If they are values: --values"),
        ("data.csv", ["--target", "z"], "no column 'z'; there are 'a', 'word', 'same', 'y'"),
        ("data.csv", ["--cv", "5*2"], "--cv must be folds"),
        ("data.csv", ["--contestants", "svm"], "no default contestant 'svm'"),
        ("data.csv", ["--out", "no such folder/report.html"], "no folder no such folder for the report"),
    ],
)
def test_the_command_line_says_what_is_wrong(name, options, message, tmp_path, capsys):
    for given in ("data.csv", "data.json"):
        (tmp_path / given).write_text("a,word,same,y\n1,b,1,0\n2,c,1,1\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_text("a,y\nä,0\nö,1\n", encoding="latin-1")
    (tmp_path / "longer.csv").write_text("a,y\n1,0,5\n2,1,6\n", encoding="utf-8")
    pd.DataFrame({"a": range(30), "y": range(30)}).to_csv(tmp_path / "many.csv", index=False)
    assert skdeep.compare.main([str(tmp_path / name), "--target", "y", "--quiet", *options]) == 1
    assert message in capsys.readouterr().err


def test_columns_of_dates_are_to_be_left_out(tmp_path, capsys):
    pd.DataFrame({"a": range(6), "day": pd.date_range("2024-01-01", periods=6), "y": [0, 1] * 3}).to_parquet(
        tmp_path / "data.parquet"
    )
    options = ["--target", "y", "--contestants", "dummy", "--cv", "2", "--quiet"]
    assert skdeep.compare.main([str(tmp_path / "data.parquet"), *options]) == 1
    assert "dates or durations in 'day'" in (said := capsys.readouterr().err) and said.strip().endswith("--drop day")
    assert skdeep.compare.main([str(tmp_path / "data.parquet"), *options, "--drop", "day"]) == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("semicolons.csv", {"sep": ";"}),
        ("commas.csv", {"sep": ";", "decimal": ","}),
        ("tabs.txt", {"sep": "\t"}),
        ("letters.csv", {"encoding": "utf-16"}),
    ],
)
def test_files_are_read_as_they_are_written(name, options, tmp_path):
    expected = pd.DataFrame({"one": [0.5, -1.25, 3.0], "two": ["x", "y, or z", "ä"], "y": [1, 2, 3]})
    expected.to_csv(tmp_path / name, index=False, **options)
    pd.testing.assert_frame_equal(read(tmp_path / name, options.get("encoding", "utf-8"))[0], expected)


def test_columns_and_classes_that_are_not_meant_so_are_named():
    frame = pd.DataFrame(
        {
            "day": ["2024-01-02", "2024-01-03"] * 5,
            "price": ["1.5", "2", "n/a", "4", "5"] * 2,
            "digits": ["01", "02"] * 5,
            "share": ["12.5%", "1,000%"] * 5,
            "word": list("ab") * 5,
            "number": np.arange(10) // 2,
            "a key": [f"k{i}" for i in range(10)],
        }
    )
    (each_day,) = notes_of_columns(
        pd.DataFrame({"day": [f"2024-01-0{i}" for i in range(1, 8)], "a": [1, 1, 2] * 2 + [1]})
    )
    assert each_day.startswith("day: dates, taken as names"), "other dates in all rows are dates still"
    key, day, price, digits, share = notes_of_columns(frame)
    assert key.startswith("a key: another value in each row") and key.endswith("--drop 'a key'")
    assert day.startswith("day: dates, taken as names")
    assert price.startswith("price: text of numbers, but for 'n/a' and the like")
    assert digits.startswith("digits: text of numbers, taken as names")
    assert share.startswith("share: text of numbers, taken as names")
    assert not notes_of_classes(pd.Series(list("ab") * 5), 5)
    (rare,) = notes_of_classes(pd.Series(["a"] * 5 + ["b"] * 5 + ["c"] * 2), 5)
    assert rare.startswith("Fewer rows than folds (5) are of 1 of 3 classes, such as 'c'")
    (many,) = notes_of_classes(pd.Series(np.arange(250) % 25), 5)
    assert many.endswith("25 different numbers, taken as classes. If they are values: --values")


def test_the_command_line_is_told_what_a_target_is(tmp_path, capsys):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "whole": rng.integers(30, size=60), "half": np.arange(60) % 2 / 2})
    frame["known"] = (frame["half"] > 0).astype(object).where(np.arange(60) % 7 > 0)
    frame.to_csv(tmp_path / "data.csv", index=False)
    for target, options, names, metric in (
        ("whole", ["--values"], "ridge,dummy", "r2"),
        ("half", ["--classes"], "logreg,dummy", "accuracy"),
        ("known", ["--drop", "half"], "logreg,dummy", "accuracy"),
    ):
        arguments = [str(tmp_path / "data.csv"), "--target", target, "--contestants", names, "--cv", "3"]
        assert skdeep.compare.main([*arguments, "--quiet", *options]) == 0
        assert f"\n{metric} (equal within 0.01, 95 % intervals)" in capsys.readouterr().out


def test_errors_of_several_lines_are_told_whole():
    class Wordy(LogisticRegression):
        def fit(self, X, y):
            raise RuntimeError("no such luck.\nTry again.")

    found = compare({"wordy": Wordy(), "dummy": DummyClassifier()}, X, Y, cv=2)
    assert found.errors == {"wordy": "the fit failed on 2 of 2 splits: RuntimeError: no such luck. Try again."}


def test_the_command_line_counts_and_names_columns_that_number_rows(tmp_path, capsys):
    frame = table().assign(id=range(90), name=[f"row {i}" for i in range(90)])
    frame.to_csv(tmp_path / "data.csv", index=False)
    options = ["--target", "answer", "--cv", "5", "--contestants", "logreg,dummy"]
    assert skdeep.compare.main([str(tmp_path / "data.csv"), *options]) == 0
    printed = capsys.readouterr().err
    assert "--drop id,name" in printed
    counted = [line.partition(" models")[0] for line in printed.splitlines() if " models, " in line]
    assert counted == [f"{i} of 10" for i in range(1, 11)]
    assert skdeep.compare.main([str(tmp_path / "data.csv"), *options, "--drop", "id,name", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_counter_rewrites_its_line_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    counter = Counter(30)
    for _ in range(30):
        counter.update()
    counter.close()
    lines = stream.getvalue().split("\r")
    assert len(lines) == 31 and lines[-1].startswith("30 of 30 models") and lines[-1].endswith("\n")


def test_the_module_stands_in_for_the_function():
    found = skdeep.compare({"dummy": DummyClassifier()}, X, Y, cv=2)
    assert isinstance(found, Comparison)


# ---- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_shows_differences_intervals_and_what_makes_no_difference():
    found, *_ = compared()
    display = ComparisonDisplay.from_comparison(found, "accuracy")
    assert display.names == ["weak", "strong", "failing", "dummy"]
    for i, name in enumerate(display.names):
        if name == "failing":
            assert display.dots_[i] is display.means_[i] is display.interval_lines_[i] is None
            continue
        expected = found.difference("accuracy", name)
        differences = found.scores["accuracy"][name] - found.scores["accuracy"]["logreg"]
        np.testing.assert_allclose(display.dots_[i].get_offsets()[:, 0], differences)
        np.testing.assert_allclose(display.means_[i].get_xdata(), expected.mean)
        if not np.isnan(expected.low):
            np.testing.assert_allclose(display.interval_lines_[i].get_xdata(), (expected.low, expected.high))
    assert (display.rope_.get_x(), display.rope_.get_width()) == (-0.01, 0.02)
    assert display.ax_.yaxis_inverted(), "the first is on top"
    display.figure_.canvas.draw()
    box = display.ax_.get_tightbbox()
    assert box.x0 > -1
    assert box.y0 > -1
    plt.close("all")


def test_long_names_leave_the_picture_its_room():
    name = "logistic regression of all columns, whose name is as long as a sentence"
    models = {name: softmax(), f"another {name}": softmax(alpha=1.0), "failing": Failing()}
    display = ComparisonDisplay.from_comparison(compare(models, X, Y, cv=FOLDS, reference=name))
    display.figure_.canvas.draw()
    width, _ = display.figure_.canvas.get_width_height()
    axes, (said,) = display.ax_.get_window_extent(), display.ax_.texts
    assert axes.width > width / 2 and axes.x0 < said.get_window_extent().x0 < said.get_window_extent().x1 < axes.x1
    label = display.ax_.xaxis.label.get_window_extent()
    assert label.x0 > 0 and label.x1 < width
    plt.close("all")


def test_the_picture_refuses():
    found, *_ = compared()
    with pytest.raises(ValueError, match="no metric 'f1'; there are accuracy, neg_log_loss"):
        ComparisonDisplay.from_comparison(found, "f1")
    alone = compare({"dummy": DummyClassifier()}, X, Y, cv=2)
    with pytest.raises(ValueError, match="dummy is the only contestant"):
        ComparisonDisplay.from_comparison(alone)
