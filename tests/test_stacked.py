"""scikit-learn's own tools inside `skdeep.stacked`, against the same tools outside."""

import importlib.util
import threading
import warnings
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from helpers import reconfigured
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib.parallel import get_active_backend
from sklearn import config_context, model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import KernelPCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring, log_loss, make_scorer
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.model_selection._validation import _fit_and_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.parallel import Parallel, delayed

import skdeep
from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.fitting import fit as fitting
from skdeep.model_selection import GridSearchCV as OwnGridSearchCV
from skdeep.model_selection import StackingWarning, _sklearn, one_standard_error
from skdeep.model_selection import grid as grids
from skdeep.model_selection import stacks as stacking
from skdeep.model_selection.evaluation import are_alike
from skdeep.model_selection.stacks import fit_stack

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
ALPHAS = [1e-3, 1e-2, 0.1]
SOFTMAX = SoftmaxClassifier(random_state=0, max_iter=20)
REFERENCE = LogisticRegression(max_iter=1000)
OURS = {
    "softmax": SOFTMAX,
    "sigmoid": SigmoidClassifier(random_state=0, max_iter=5),
    "hinge": HingeClassifier(random_state=0, max_iter=3, solver="sgd"),
    "least squares": LeastSquaresClassifier(calibration="temperature", random_state=0),
    "mlp": MLPClassifierTorch((5,), random_state=0, max_iter=3),
    "ensemble": MLPEnsembleClassifier(2, hidden_layer_sizes=(5,), max_iter=3, random_state=0),
}


@pytest.fixture
def sizes(monkeypatch):
    """How many models of a split have been trained together; 0 for a call of ``fit``."""
    seen, original = [], fitting.fit

    def note(members, *args, **options):
        seen.append(len(members) if options.get("in_stack") else 0)
        return original(members, *args, **options)

    def note_grid(self, X, y, splits, *args):
        outcome = train(self, X, y, splits, *args)
        seen.extend([len(self.candidates)] * len(splits) if outcome is not None else [])
        return outcome

    train = grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", note_grid)
    for module in (fitting, stacking):
        monkeypatch.setattr(module, "fit", note)
    return seen


def in_and_outside(tool, sizes=None):
    """What a tool returns outside and inside the context; all that is trained is trained inside."""
    outside = tool()
    if sizes is not None:
        sizes.clear()
    with skdeep.stacked():
        inside = tool()
    return outside, inside


def of_search(search):
    return np.array([search.cv_results_[key] for key in sorted(search.cv_results_) if "test_score" in key], float)


# ---- tools whose candidates share rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_validation_curve(name, sizes):
    def tool():
        return model_selection.validation_curve(
            OURS[name], X, Y, param_name="alpha", param_range=ALPHAS, cv=2, scoring="accuracy"
        )

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == ([] if name == "ensemble" else [3, 3])  # the members of all ensembles are one stack


@pytest.mark.parametrize(
    ("search", "options"),
    [
        ("GridSearchCV", {"return_train_score": True, "scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy"}),
        ("RandomizedSearchCV", {"n_iter": 2, "random_state": 0}),
        ("HalvingGridSearchCV", {"random_state": 0, "factor": 2, "min_resources": 60}),
    ],
)
def test_searches_of_scikit_learn(search, options, sizes):
    def tool():
        return getattr(model_selection, search)(SOFTMAX, {"alpha": ALPHAS}, cv=2, **options).fit(X, Y)

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(of_search(inside), of_search(outside), atol=1e-10)
    np.testing.assert_array_equal(inside.predict(X), outside.predict(X))
    assert inside.cv_results_["params"] == outside.cv_results_["params"]
    assert sizes[-1] == 0 and min(sizes[:-1]) > 1


def test_parameters_that_change_shapes_make_stacks_of_their_own(sizes):
    grid = {"alpha": ALPHAS[:2], "hidden_layer_sizes": [(4,), (5,)]}
    with skdeep.stacked():
        model_selection.GridSearchCV(OURS["mlp"], grid, cv=2, refit=False).fit(X, Y)
    assert sizes == [2, 2, 2, 2]


def test_pipelines_of_things_without_equals(sizes):
    steps = FunctionTransformer(lambda Z: 2 * Z), StandardScaler()
    pipeline = make_pipeline(*steps, SoftmaxClassifier(solver="sgd", max_iter=3, random_state=np.random.RandomState(0)))

    def tool():
        name = "softmaxclassifier__alpha"
        return model_selection.validation_curve(pipeline, X, Y, param_name=name, param_range=ALPHAS, cv=2)

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == [3, 3]


def test_kernel_matrices_lose_columns_with_rows(sizes):
    pipeline = make_pipeline(KernelPCA(2, kernel="precomputed"), SOFTMAX)

    def tool():
        search = model_selection.GridSearchCV(pipeline, {"softmaxclassifier__alpha": ALPHAS}, cv=2, refit=False)
        return of_search(search.fit(X @ X.T, Y))

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == [3, 3]


@pytest.mark.parametrize("dispatch", [False, True])
def test_tensors(dispatch, sizes):
    data = (torch.from_numpy(X), torch.from_numpy(Y)) if dispatch else (X, Y)

    def tool():
        with config_context(array_api_dispatch=dispatch):
            search = model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=2, refit=False)
            return of_search(search.fit(*data))

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-6)
    assert sizes == [3, 3]


@pytest.mark.parametrize("as_mask", [False, True])
def test_splits_of_lists_and_masks(as_mask, sizes):
    mask = np.arange(len(Y)) % 3 == 0
    split = (~mask, mask) if as_mask else (np.flatnonzero(~mask).tolist(), np.flatnonzero(mask).tolist())

    def tool():
        search = model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=[split], refit=False)
        return of_search(search.fit(X.tolist(), Y.tolist()))

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == [3]


def scorer_that_writes(model, X, y):
    score = model.predict_proba(X)[:, 0].mean()
    X += 1.0
    y[:] = 0
    return score


def metric_that_writes(y, predicted):
    score = np.mean(y == predicted)
    y[:] = 0
    return score


SCORINGS = {"reads": "accuracy", "writes": scorer_that_writes, "metric": make_scorer(metric_that_writes)}


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_each_candidate_is_scored_on_rows_as_they_are(scale, routing, scoring, sizes):
    """The scaler writes to what it transforms."""
    model = make_pipeline(StandardScaler(copy=False), SOFTMAX) if scale else SOFTMAX
    grid = {"softmaxclassifier__alpha" if scale else "alpha": ALPHAS}

    def tool():
        options = {"cv": 2, "refit": False, "scoring": scoring}
        with config_context(enable_metadata_routing=routing):
            of_both = model_selection.GridSearchCV(model, grid, return_train_score=True, **options).fit(X, Y)
            of_test = model_selection.GridSearchCV(model, grid, **options).fit(X, Y)
        found = [of_both.cv_results_[key] for key in ("mean_test_score", "mean_train_score")]
        return np.array([*found, of_test.cv_results_["mean_test_score"]])

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == [3, 3] * 2


def test_a_search_says_early_what_its_choice_needs():
    search = model_selection.GridSearchCV(SOFTMAX, {"tol": [1e-3, 1e-2]}, refit=one_standard_error)
    with skdeep.stacked(), pytest.raises(ValueError, match="Name the parameter to go by"):
        search.fit(X, Y)
    assert not hasattr(search, "cv_results_")


# ---- tools whose candidates have rows of their own -------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "neg_log_loss"]], ids=["one", "two"])
@pytest.mark.parametrize("name", OURS)
def test_cross_validate(name, scoring):
    def tool():
        options = {"return_train_score": True, "return_estimator": True, "return_indices": True}
        return model_selection.cross_validate(OURS[name], X, Y, cv=2, scoring=scoring, **options)

    outside, inside = in_and_outside(tool)
    assert outside.keys() == inside.keys()
    for key in outside:
        if key.startswith(("test", "train")):
            np.testing.assert_allclose(inside[key], outside[key], atol=1e-10)
    for ours, theirs in zip(inside["estimator"], outside["estimator"], strict=True):
        assert type(ours) is type(OURS[name]) and str(ours.get_params()) == str(theirs.get_params())
        assert vars(ours).keys() == vars(theirs).keys()
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)


def test_learning_curve():
    def tool():
        sizes, *scores = model_selection.learning_curve(
            SOFTMAX, X, Y, cv=3, shuffle=True, random_state=0, train_sizes=[0.5, 1.0]
        )
        return np.array(scores)

    outside, inside = in_and_outside(tool)
    np.testing.assert_allclose(inside, outside, atol=1e-10)


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (lambda: model_selection.cross_val_predict(SOFTMAX, X, Y, cv=2, method="predict_proba"), "_fit_and_predict"),
        (
            lambda: model_selection.permutation_test_score(SOFTMAX, X, Y, cv=2, n_permutations=2, random_state=0)[1],
            "_permutation_test_score",
        ),
        (
            lambda: model_selection.learning_curve(
                SoftmaxClassifier(alpha=0.1, solver=SGD(learning_rate="constant"), random_state=0),
                *(X, Y),
                cv=3,
                shuffle=True,
                random_state=0,
                exploit_incremental_learning=True,
            )[1],
            "_incremental_fit_estimator",
        ),
    ],
    ids=["cross_val_predict", "permutation_test_score", "incremental"],
)
def test_other_functions_run_as_they_are_and_say_so(tool, name):
    expected = tool()
    with skdeep.stacked(), pytest.warns(StackingWarning, match=f"Tasks of {name} run as they are") as caught:
        np.testing.assert_array_equal(tool(), expected)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    "tool",
    [
        lambda: RandomForestClassifier(3, random_state=0, n_jobs=2).fit(X, Y).predict_proba(X),
        lambda: of_search(
            model_selection.GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1.0]}, cv=2).fit(X, Y)
        ),
        lambda: model_selection.cross_val_score(REFERENCE, X, Y, cv=2),
        lambda: joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(abs)(-i) for i in range(5)),
        lambda: list(joblib.Parallel(2, return_as="generator", prefer="threads")(map(joblib.delayed(abs), range(5)))),
        lambda: joblib.Parallel(2, timeout=30, prefer="threads")(map(joblib.delayed(abs), range(5))),
        lambda: joblib.Parallel(2, require="sharedmem")(map(joblib.delayed(abs), range(5))),
        lambda: joblib.Parallel(2)(map(joblib.delayed(abs), range(0))),
        lambda: [joblib.effective_n_jobs(n) for n in (None, 1, 2, -1)],
    ],
    ids="forest search cross_val_score threads generator timeout sharedmem empty n_jobs".split(),
)
def test_others_do_what_they_do_outside(tool):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outside, inside = in_and_outside(tool)
    np.testing.assert_array_equal(inside, outside)


def test_our_search_says_what_it_cannot_stack_wherever_it_is():
    with skdeep.stacked(), pytest.warns(StackingWarning, match="LogisticRegression is none of") as caught:
        OwnGridSearchCV(REFERENCE, {"C": [0.1, 1.0]}, cv=2).fit(X, Y)
    assert {warning.filename for warning in caught} == {__file__}


def test_where_there_is_one_candidate_nothing_is_lost():
    with warnings.catch_warnings(), skdeep.stacked():
        warnings.simplefilter("error", StackingWarning)
        model = TorchClassifier(torch.nn.Linear, {"in_features": 4, "out_features": 3}, max_iter=2, random_state=0)
        assert len(model_selection.cross_val_score(model, X, Y, cv=2)) == 2
    with skdeep.stacked(), pytest.warns(StackingWarning, match="module of its own"):
        model_selection.validation_curve(model, X, Y, param_name="alpha", param_range=ALPHAS[:2], cv=2)


def test_only_copies_of_one_estimator_share_a_stack(sizes):
    estimators = [SOFTMAX, clone(SOFTMAX).set_params(penalty="l1"), OURS["hinge"], clone(SOFTMAX)]
    scorer, train, test = check_scoring(SOFTMAX), np.arange(0, 150, 2), np.arange(1, 150, 2)
    shared = {"scorer": scorer, "train": train, "test": test, "verbose": 0, "parameters": None, "fit_params": None}

    def tool():
        results = Parallel()(
            delayed(_fit_and_score)(clone(estimator), X, Y, score_params=None, **shared) for estimator in estimators
        )
        return [result["test_scores"] for result in results]

    outside, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert Counter(sizes) == {1: 3}  # equal models are trained once
    shared["return_estimator"] = True
    with pytest.warns(StackingWarning, match="fitted estimators are to be kept"):
        _, inside = in_and_outside(tool, sizes)
    np.testing.assert_allclose(inside, outside, atol=1e-10)
    assert sizes == [0] * 4


@pytest.mark.parametrize("name", OURS)
def test_copies_are_alike_and_others_are_not(name):
    model = OURS[name]
    pipeline = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), clone(model))
    for estimator in (model, pipeline):
        assert are_alike(estimator, clone(estimator))
        for key, value in estimator.get_params().items():
            other = object() if value is None or isinstance(value, BaseEstimator) else None
            assert not are_alike(estimator, reconfigured(clone(estimator), **{key: other})), key
    assert not are_alike(model, pipeline)


# ---- validation data -------------------------------------------------------------------------------------------------


class CountsRows:
    """A scorer for early stopping that notes how many rows it is asked about."""

    def __init__(self):
        self.seen = set()

    def __call__(self, model, X, y):
        self.seen.add(len(X))
        return float(model.score(X, y))

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("kind", ["stacked", "alone", "module", "pipeline", "routed"])
def test_validation_data_stays_whole(kind, capsys):
    count = CountsRows()
    model = SoftmaxClassifier(solver="sgd", max_iter=2, early_stopping=True, scoring=count, random_state=0)
    params = {"X_val": X, "y_val": Y}
    if kind == "alone":
        model.set_params(verbose=1)
    if kind == "module":
        model = TorchClassifier(torch.nn.Linear, {"in_features": 4, "out_features": 3}, max_iter=2, random_state=0)
        model.set_params(early_stopping=True, scoring=count)
    if kind == "pipeline":
        model = make_pipeline(StandardScaler(), model)
        params = {f"softmaxclassifier__{name}": value for name, value in params.items()}
    with config_context(enable_metadata_routing=kind == "routed"), skdeep.stacked():
        if kind == "routed":
            model.set_fit_request(X_val="seen_later", y_val=True)
            params = {"seen_later": X, "y_val": Y}
        model_selection.cross_val_score(model, X, Y, cv=2, params=params, scoring="accuracy")
    assert count.seen == {len(X)}


class CountsArguments(TransformerMixin, BaseEstimator):
    """Not ours; notes the length of an argument of ``fit``, and is as good as it is long."""

    def fit(self, X, y, X_val=None):
        self.n_ = len(X_val)
        return self

    def predict(self, X):
        return np.full(len(X), self.n_)


def test_of_others_it_is_what_scikit_learn_makes_of_it():
    def tool():
        found = model_selection.cross_validate(
            *(CountsArguments(), X, Y), cv=2, params={"X_val": X}, scoring="accuracy", return_estimator=True
        )
        return [model.n_ for model in found["estimator"]]

    outside, inside = in_and_outside(tool)
    assert inside == outside == [75, 75]


# ---- joblib ----------------------------------------------------------------------------------------------------------


@given(
    tasks=st.lists(st.integers(-9, 9), max_size=12),
    n_jobs=st.sampled_from([1, 2]),
    pre_dispatch=st.sampled_from(["all", "n_jobs", "2*n_jobs", 1, 3]),
    batch_size=st.sampled_from(["auto", 1, 3]),
)
@settings(max_examples=30, deadline=None)
def test_results_come_in_order(tasks, n_jobs, pre_dispatch, batch_size):
    with skdeep.stacked():
        parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", pre_dispatch=pre_dispatch, batch_size=batch_size)
        for _ in range(2):
            assert parallel(joblib.delayed(abs)(task) for task in tasks) == list(map(abs, tasks))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("opened", ["here", "by the search"])
def test_searches_inside_other_tools(n_jobs, opened, sizes):
    search = {"here": model_selection.GridSearchCV, "by the search": OwnGridSearchCV}[opened]
    tool = search(SOFTMAX, {"alpha": ALPHAS}, cv=2)
    with joblib.parallel_config("threading"):
        expected = model_selection.cross_val_score(tool, X, Y, cv=2)
        sizes.clear()
        with skdeep.stacked():
            scores = model_selection.cross_val_score(tool, X, Y, cv=2, n_jobs=n_jobs)
    np.testing.assert_allclose(scores, expected, atol=1e-10)
    assert Counter(sizes) == {3: 4, 0: 2}


@pytest.mark.parametrize("tool", ["search", "validation_curve"])
def test_n_jobs_are_workers(tool, monkeypatch):
    meeting, original = threading.Barrier(2, timeout=60), fitting.fit

    def meet(*args, **options):
        meeting.wait()  # each of two stacks waits for the other
        return original(*args, **options)

    monkeypatch.setattr(stacking, "fit", meet)
    with joblib.parallel_config("threading", n_jobs=2), skdeep.stacked():
        if tool == "search":
            search = model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=2, refit=False).fit(X, Y)
            assert np.isfinite(of_search(search)).all()
        else:
            options = {"param_name": "alpha", "param_range": ALPHAS, "error_score": "raise"}
            model_selection.validation_curve(SOFTMAX, X, Y, cv=2, **options)


@pytest.mark.slow
def test_workers_in_other_processes():
    def tool():
        nested = model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=2)
        curve = model_selection.validation_curve(SOFTMAX, X, Y, param_name="alpha", param_range=ALPHAS, cv=2, n_jobs=2)
        return np.r_[np.ravel(curve), model_selection.cross_val_score(nested, X, Y, cv=2, n_jobs=2)]

    with joblib.parallel_config(backend="multiprocessing"):  # forks, which is quick
        outside, inside = in_and_outside(tool)
    np.testing.assert_allclose(inside, outside, atol=1e-10)


def test_no_workers_are_an_error():
    with skdeep.stacked(), pytest.raises(ValueError, match="n_jobs == 0"):
        model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, n_jobs=0).fit(X, Y)


def raise_it(error):
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_context_ends_with_its_block(error, n_jobs):
    before = type(get_active_backend()[0])
    with pytest.raises(error):
        with skdeep.stacked():
            with skdeep.stacked():
                assert "Stacking" in type(get_active_backend()[0]).__name__
            assert "Stacking" in type(get_active_backend()[0]).__name__
            parallel = joblib.Parallel(n_jobs, prefer="threads")
            with pytest.raises(error):
                parallel([joblib.delayed(raise_it)(error())])
            assert parallel([joblib.delayed(abs)(-1)]) == [1]
            raise error
    assert type(get_active_backend()[0]) is before
    assert parallel([joblib.delayed(abs)(-1)]) == [1]


def test_a_failing_candidate_of_a_tool_raises():
    with skdeep.stacked(), pytest.raises(ValueError, match="'alpha' parameter"):
        options = {"param_name": "alpha", "param_range": [0.1, -1.0], "error_score": "raise"}
        model_selection.validation_curve(SOFTMAX, X, Y, cv=2, **options)


def failing_splits():
    yield np.arange(75), np.arange(75, 150)
    raise RuntimeError("no further split")


def test_tasks_that_cannot_be_made_raise():
    with skdeep.stacked(), pytest.raises(RuntimeError, match="no further split"):
        joblib.Parallel(1)(joblib.delayed(np.take)(Y, train) for train, _ in failing_splits())


def test_other_threads_are_not_concerned():
    seen = []
    with skdeep.stacked():
        thread = threading.Thread(target=lambda: seen.append(type(get_active_backend()[0]).__name__))
        thread.start()
        thread.join()
    assert seen == [type(get_active_backend()[0]).__name__]


def test_joblib_says_how_far_the_work_is(capsys):
    with skdeep.stacked():
        model_selection.cross_val_score(SOFTMAX, X, Y, cv=3, verbose=1)
    printed = capsys.readouterr()
    assert printed.err.count("Done   3 out of   3") == 1
    assert "Keeper" not in printed.err + printed.out


def test_one_failure_of_a_step_is_told_once():
    def fail(Z):
        raise ValueError("this step fails")

    pipeline = make_pipeline(FunctionTransformer(fail), SOFTMAX)
    search = OwnGridSearchCV(pipeline, {"softmaxclassifier__alpha": ALPHAS}, cv=2)
    with pytest.raises(ValueError, match="All the 6 fits failed") as caught:
        search.fit(X, Y)
    assert str(caught.value).count("6 fits failed with the following error") == 1


def test_times_are_shares():
    with skdeep.stacked():
        results = model_selection.GridSearchCV(SOFTMAX, {"alpha": ALPHAS}, cv=2, refit=False).fit(X, Y).cv_results_
    for name in ("mean_fit_time", "mean_score_time"):
        assert (results[name] > 0).all()
        np.testing.assert_allclose(results[name], results[name][0])


# ---- what is private elsewhere ---------------------------------------------------------------------------------------


def test_a_change_of_what_is_private_is_told_at_import(monkeypatch):
    def load():
        spec = importlib.util.spec_from_file_location("checked", Path(_sklearn.__file__))
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    load()

    def renamed(model, X, y, *, scorer):
        """Not what it was."""

    monkeypatch.setattr("skdeep.compat.sklearn._fit_and_score", renamed)
    with pytest.raises(ImportError, match=r"_fit_and_score has \['X', .*known to work with scikit-learn 1\.9: install"):
        load()


# ---- mini-batches: all splits in one stack ---------------------------------------------------------------------------

SHORT = {"random_state": 0, "max_iter": 4}
DRAWS = {"dropout": 0.2, "stochastic_depth": 0.1, "normalization": "batch"}
WATCHED = {"early_stopping": True, "n_iter_no_change": 1, "max_iter": 8, "learning_rate_init": 0.1, "random_state": 0}


def brier_of(model, X, y):
    return -np.square(model.predict_proba(X) - np.eye(10)[y]).sum(1).mean()


MINI_BATCHES = {
    "mlp": (MLPClassifierTorch((6, 6), **SHORT), {"alpha": ALPHAS, "learning_rate_init": [0.01, 0.03]}),
    "dropout": (MLPClassifierTorch((6, 6), **SHORT, **DRAWS), {"alpha": ALPHAS}),
    "softmax": (
        SoftmaxClassifier(solver=SGD(batch_size=20), **SHORT),
        {"alpha": ALPHAS, "solver__learning_rate_init": ["auto", 0.1]},
    ),
    "no seed": (MLPClassifierTorch((6,), max_iter=4), {"alpha": ALPHAS}),
    "default penalty": (MLPClassifierTorch((6,), **SHORT), {"learning_rate_init": [0.01, 0.03]}),
    "watched": (MLPClassifierTorch((6,), **WATCHED), {"alpha": [1e-4, 30.0]}),
    "watched by a scorer": (MLPClassifierTorch((6,), scoring="f1_macro", **WATCHED), {"alpha": ALPHAS}),
    "watched by a function": (MLPClassifierTorch((6,), scoring=brier_of, **WATCHED), {"alpha": ALPHAS}),
}


@pytest.mark.parametrize(
    "model",
    [
        SoftmaxClassifier(),
        SoftmaxClassifier(penalty="l1"),
        HingeClassifier(calibration=None),
        HingeClassifier("squared_hinge", multi_class="ovr"),
        SigmoidClassifier(solver="lbfgs"),
        LinearRegressor(),
        LinearRegressor(penalty="l1"),
        LinearRegressor("absolute_error"),
        LinearRegressor("poisson"),
    ],
    ids=["softmax", "l1", "hinge", "squared hinge", "sigmoid", "values", "values, l1", "absolute", "poisson"],
)
def test_exact_models_of_all_splits_are_one_stack(model, monkeypatch):
    outcomes, train = [], grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: outcomes.append(train(*args)) or outcomes[-1])
    OwnGridSearchCV(clone(model), {"alpha": ALPHAS}, cv=3, refit=False, return_train_score=True).fit(X, Y)
    ((marks, members, *_),) = outcomes
    assert np.shape(marks) == (2, 3, 3) and len(members) == 9


@pytest.mark.parametrize("setting", ["balanced", {0: 3.0, 1: 0.5, 2: 1.0}, "varied", {0: 0.0, 1: 1.0, 2: 1.0}], ids=str)
@pytest.mark.parametrize("model", [SoftmaxClassifier(tol=1e-9), HingeClassifier(tol=1e-6), LeastSquaresClassifier()])
def test_exact_models_with_weights_of_classes_are_one_stack(model, setting, monkeypatch):
    """Balanced ones are each split's own; a class of weight zero, each fit sees for itself."""
    outcomes, train = [], grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: outcomes.append(train(*args)) or outcomes[-1])
    X, y = load_iris(return_X_y=True)
    X, y = X[20:], y[20:]
    grid = {"alpha": [1e-3, 0.1]} | ({"class_weight": [None, "balanced"]} if setting == "varied" else {})
    model = model if setting == "varied" else clone(model).set_params(class_weight=setting)
    scoring = ["accuracy", "neg_log_loss"] if isinstance(model, SoftmaxClassifier) else ["accuracy", "f1_macro"]
    options = {"cv": KFold(3, shuffle=True, random_state=0), "scoring": scoring, "refit": False}
    ours, theirs = (
        kind(model, grid, **options).fit(X, y).cv_results_ for kind in (OwnGridSearchCV, model_selection.GridSearchCV)
    )
    assert (outcomes[0] is not None) == (setting != {0: 0.0, 1: 1.0, 2: 1.0})
    for name in scoring:
        np.testing.assert_allclose(ours[f"mean_test_{name}"], theirs[f"mean_test_{name}"], rtol=1e-6)


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize(("model", "scoring"), [
    (SoftmaxClassifier(tol=1e-9), ["accuracy", "neg_log_loss"]),
    (SoftmaxClassifier(tol=1e-9, class_weight="balanced"), "neg_log_loss"),
    (HingeClassifier(tol=1e-6), None),
    (LinearRegressor(), None),
    (LinearRegressor(penalty="l1"), "neg_mean_absolute_error"),
], ids=["several", "balanced", "hinge", "values", "l1"])  # fmt: skip
def test_exact_models_with_weights_of_rows_are_one_stack(model, scoring, is_behind, monkeypatch):
    """scikit-learn weighs scores as well, unless a Pipeline is in between."""
    outcomes, train = [], grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: outcomes.append(train(*args)) or outcomes[-1])
    weight = np.random.default_rng(1).uniform(0.1, 3, len(Y))  # no row is level between two classes
    whole = make_pipeline(StandardScaler(), model) if is_behind else model
    prefix = f"{whole.steps[-1][0]}__" if is_behind else ""
    grid, options = {f"{prefix}alpha": [1e-3, 0.1]}, {"cv": 3, "scoring": scoring, "refit": False}
    ours, theirs = (
        kind(whole, grid, **options).fit(X, Y, **{f"{prefix}sample_weight": weight}).cv_results_
        for kind in (OwnGridSearchCV, model_selection.GridSearchCV)
    )
    assert [outcome is not None for outcome in outcomes] == [True]
    for name in (column for column in theirs if column.startswith("mean_test")):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)


@pytest.mark.parametrize(("scoring", "is_one"), [(None, True), ("accuracy", True), ("neg_log_loss", False)])
@pytest.mark.parametrize("model", [SoftmaxClassifier(tol=1e-8), HingeClassifier(calibration=None)])
def test_exact_models_of_single_precision_are_one_stack_for_accuracies(model, scoring, is_one, monkeypatch):
    outcomes, train = [], grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: outcomes.append(train(*args)) or outcomes[-1])
    single, options = X.astype(np.float32), {"cv": 3, "scoring": scoring, "refit": False}
    if isinstance(model, HingeClassifier) and not is_one:
        pytest.skip("has no probabilities")
    found = OwnGridSearchCV(model, {"alpha": ALPHAS}, **options).fit(single, Y).cv_results_
    assert [outcome is not None for outcome in outcomes] == [is_one]
    expected = model_selection.GridSearchCV(model, {"alpha": ALPHAS}, **options).fit(single, Y).cv_results_
    np.testing.assert_allclose(found["mean_test_score"], expected["mean_test_score"], rtol=1e-6)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "f1_macro", "accuracy", ["accuracy", "roc_auc_ovr"]])
@pytest.mark.parametrize("name", ["exact", "softmax", "mlp"])
def test_scorers_that_only_ask_are_answered_for_all_splits(name, scoring, monkeypatch):
    outcomes, train = [], grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: outcomes.append(train(*args)) or outcomes[-1])
    model, grid = MINI_BATCHES.get(name, (SoftmaxClassifier(tol=1e-9), {"alpha": ALPHAS}))
    X, y = (array[:300] for array in load_digits(return_X_y=True))
    options = {"cv": 3, "scoring": scoring, "refit": False}
    found = OwnGridSearchCV(model, grid, **options).fit(X, y).cv_results_
    assert len(outcomes) == 1 and outcomes[0] is not None
    expected = model_selection.GridSearchCV(model, grid, **options).fit(X, y).cv_results_
    for column in (name for name in expected if name.startswith("mean_test")):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", MINI_BATCHES)
def test_all_splits_in_one_stack(name, monkeypatch):
    """The models are the same as of a stack for each split (`test_training.py` compares them to rounding)."""
    model, grid = MINI_BATCHES[name]
    X, y = load_digits(return_X_y=True)
    X, y = X[:400], y[:400]
    found, stacks = [], []
    accuracies = grids.GridRows.accuracies

    def note(rows, network, *args):
        stacks.append(network.n_models)
        return accuracies(rows, network, *args)

    monkeypatch.setattr(grids.GridRows, "accuracies", note)
    monkeypatch.setattr("skdeep.model_selection.backend.draw_seed", lambda: 3)  # of candidates that have none
    for together in (True, False):
        if not together:
            monkeypatch.setattr("skdeep.model_selection.backend.evaluate_grids", lambda *args: {})
        search = OwnGridSearchCV(model, grid, cv=4, refit=False).fit(X, y)
        found.append([search.cv_results_[f"split{i}_test_score"] for i in range(4)])
    assert stacks == [4 * len(search.cv_results_["params"])]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"early_stopping": True, "class_weight": "balanced"}, {}),
        ({}, {"scoring": lambda model, X, y: model.score(X, y)}),
        ({}, {"n_jobs": 2}),
        ({"hidden_layer_sizes": (8000,)}, {}),
        ({"max_iter": 2, "batch_size": 1000}, {}),
    ],
    ids=["class weights", "scorer", "workers", "large", "one batch"],
)
def test_what_is_not_one_stack(change, options, sizes, monkeypatch):
    trained = []
    train = grids._Grid.train
    monkeypatch.setattr(grids._Grid, "train", lambda *args: trained.append(train(*args)) or trained[-1])
    model = MLPClassifierTorch((4,), random_state=0, max_iter=2).set_params(**change)
    with joblib.parallel_config(backend="threading"):
        search = OwnGridSearchCV(model, {"alpha": ALPHAS}, cv=2, refit=False, **options).fit(X, Y)
    assert all(outcome is None for outcome in trained)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_models_of_a_stack_stop_where_each_would_alone():
    model, grid = MINI_BATCHES["watched"]
    X, y = (array[:200] for array in load_digits(return_X_y=True))
    progress = grids.new_progress
    with pytest.MonkeyPatch.context() as patch:
        made = []
        patch.setattr(grids, "new_progress", lambda *args: made.append(progress(*args)) or made[-1])
        search = OwnGridSearchCV(model, grid, cv=3, scoring="neg_log_loss", refit=False).fit(X, y)
        lengths = [one.n_iter for one in made]
    for i, (train, test) in enumerate(StratifiedKFold(3).split(X, y)):
        for j, params in enumerate(search.cv_results_["params"]):
            alone = clone(model).set_params(**params).fit(X[train], y[train])
            assert alone.n_iter_ == lengths[2 * i + j]
            expected = -log_loss(y[test], alone.predict_proba(X[test]))
            assert search.cv_results_[f"split{i}_test_score"][j] == pytest.approx(expected, rel=1e-9)
    assert len(set(lengths)) > 1


def test_rows_that_are_held_out_in_part_are_not_one_stack(monkeypatch):
    """Copies of a few rows are divided by weight between both sides of a split."""
    X, y = (np.repeat(array[45:55], 40, axis=0) for array in load_iris(return_X_y=True))
    model = MLPClassifierTorch((4,), early_stopping=True, max_iter=3, random_state=0, batch_size=20)
    options = {"cv": KFold(2, shuffle=True, random_state=0), "scoring": "neg_log_loss", "refit": False}
    ours, theirs = (
        kind(model, {"alpha": ALPHAS}, **options).fit(X, y) for kind in (OwnGridSearchCV, model_selection.GridSearchCV)
    )
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-9)


def test_a_model_that_diverges_is_only_its_own_fault():
    grid = {"learning_rate_init": [0.01, 1e38]}
    model = MLPClassifierTorch((4,), random_state=0, max_iter=3, solver="sgd")
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        search = OwnGridSearchCV(model, grid, cv=2, refit=False).fit(X, Y)
    score, failed = search.cv_results_["mean_test_score"]
    assert score > 0.3 and np.isnan(failed)


def test_a_fault_of_ours_is_no_secret(monkeypatch):
    def train(*args):
        raise AttributeError("_forgotten")

    expected = OwnGridSearchCV(SoftmaxClassifier(), {"alpha": ALPHAS}, cv=3).fit(X, Y)
    monkeypatch.setattr(grids._Grid, "train", train)
    with pytest.warns(RuntimeWarning, match="_forgotten"):
        found = OwnGridSearchCV(SoftmaxClassifier(), {"alpha": ALPHAS}, cv=3).fit(X, Y)
    np.testing.assert_allclose(of_search(found), of_search(expected))


def test_a_fault_of_a_stack_is_told(monkeypatch):
    """Models apart have the same results; that the stack failed is not to go unnoticed."""
    solve, (X, y) = fitting.solve, load_iris(return_X_y=True)

    def broken(stack):
        if len(stack.members) > 1:
            raise IndexError("too far")
        return solve(stack)

    monkeypatch.setattr(fitting, "solve", broken)
    models = [SoftmaxClassifier(alpha=alpha) for alpha in (0.01, 0.1)]
    with pytest.warns(RuntimeWarning, match="A fault of skdeep's .*too far"):
        assert fit_stack(models, X, y) == [None, None]
    alone = SoftmaxClassifier(alpha=0.1).fit(X, y)
    np.testing.assert_allclose(models[1].coef_, alone.coef_, atol=1e-10)
