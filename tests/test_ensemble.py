"""MLPEnsembleClassifier: members in one stack are what they are alone, and out of fold means out of fold."""

import pickle
from functools import partial

import numpy as np
import pytest
from helpers import reconfigured
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_multilabel_classification
from sklearn.metrics import accuracy_score, get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV as OneByOne
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import SGD, Adam, AdamW, MLPClassifierTorch, MLPEnsembleClassifier
from skdeep.fitting.calibrators import DOUBT, doubt, fit_temperature, for_average
from skdeep.fitting.recipe import Member
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

#: Of members that are trained for an epoch or two, or with nothing but noise.
pytestmark = pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on")


def noisy(y, n_classes):
    """With wrong labels in it, so that nobody becomes certain."""
    generator = np.random.default_rng(0)
    return np.where(generator.random(len(y)) < 0.2, generator.integers(0, n_classes, len(y)), y)


X, Y = load_wine(return_X_y=True)
Y = noisy(Y, 3)
X2, Y2 = load_breast_cancer(return_X_y=True)
X2, Y2 = X2[:300], noisy(Y2[:300], 2)
X3, Y3 = make_multilabel_classification(150, 8, n_classes=3, random_state=0)
DATA = {"classes": (X, Y), "two classes": (X2, Y2), "labels": (X3, Y3)}
SMALL = MLPEnsembleClassifier(4, (12,), max_iter=8, learning_rate_init=0.02, random_state=0)
OPTIONS = {
    "defaults": {},
    "no early stopping": {"early_stopping": False, "learning_rate_init": 0.2},
    "early stopping": {"n_iter_no_change": 1, "max_iter": 30, "learning_rate": "constant"},
    "dropout": {"dropout": 0.2},
    "batch normalisation": {"normalization": "batch", "activation": "prelu", "label_smoothing": 0.1},
    "raw columns": {"standardize": False, "solver": "sgd", "learning_rate_init": 1e-5},
    "lbfgs": {"solver": "lbfgs", "alpha": 0.1},
    "one batch": {"batch_size": 1000},
    "a solver that is an object": {"solver": AdamW(0.02, beta_2=0.9), "learning_rate_init": 0.003},
}
each_data = pytest.mark.parametrize("data", DATA.values(), ids=DATA)


def ensemble(**params):
    return reconfigured(clone(SMALL), **params)


def log_odds(p):
    """What a network would have to say for these probabilities, up to a temperature."""
    return np.log(p[:, 1:] / p[:, :1]) if p.shape[1] == 2 else np.log(p)


def of_members(scores, codes):
    """The temperature of an ensemble, of whose four members each has a quarter of the further observation."""
    return for_average(fit_temperature(scores, codes, own=doubt(scores, np.ones(len(codes)), DOUBT / 4)))


def left_out_by(clf, X):
    """Which member has not seen each row: the one whose answer is the out-of-fold one."""
    gaps = [np.abs(member.predict_proba(X) - clf.oof_proba_).max(1) for member in clf.estimators_]
    assert np.min(gaps, 0).max() < 1e-12
    assert np.sort(gaps, 0)[1].min() > 1e-12  # and only that one
    return np.argmin(gaps, 0)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_member_is_what_it_would_be_alone(options, monkeypatch):
    clf = ensemble(**options).fit(X, Y)
    fold = left_out_by(clf, X)
    for k, member in enumerate(clf.estimators_):
        assert type(member) is MLPClassifierTorch
        alone = clone(member).set_params(calibration=None)
        monkeypatch.setattr("skdeep.fitting.fit.Member", partial(Member, shift=(k + 0.5) / 4 - 0.5))
        alone.fit(X[fold != k], Y[fold != k], X_val=X[fold == k], y_val=Y[fold == k])
        for mine, its in zip(member.coefs_ + member.intercepts_, alone.coefs_ + alone.intercepts_, strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-10, rtol=1e-10)
        np.testing.assert_allclose(member.validation_loss_curve_, alone.validation_loss_curve_, atol=1e-10)
        assert (member.n_iter_, member.t_, member.random_state) == (alone.n_iter_, alone.t_, alone.random_state)
    if clf.n_iter_no_change == 1:
        assert len({member.n_iter_ for member in clf.estimators_}) > 1
    assert len({member.random_state for member in clf.estimators_}) == 4


def test_each_member_keeps_its_best_epoch():
    params = {"max_iter": 40, "learning_rate": "constant", "learning_rate_init": 0.1, "early_stopping": False}
    clf = ensemble(**params, calibration=None).fit(X, Y)
    fold, best = left_out_by(clf, X), []
    for k, member in enumerate(clf.estimators_):
        curve = member.validation_loss_curve_
        own = log_loss(Y[fold == k], member.predict_proba(X[fold == k]))
        assert own == pytest.approx(min(curve))
        best.append(np.argmin(curve) + 1)
    assert min(best) < 40
    mean = np.mean([member.validation_loss_curve_ for member in clf.estimators_], 0)
    np.testing.assert_allclose(clf.validation_loss_curve_, mean)


@each_data
def test_calibrated_loss(data):
    """It is the loss at the temperature that scipy finds, up to the distance between those that are tried."""
    X, Y = data
    mlp = MLPClassifierTorch((12,), solver="sgd", learning_rate_init=0.1, max_iter=30, tol=0, random_state=0)
    reconfigured(mlp, early_stopping=True, scoring="calibrated_loss", batch_size=20).fit(
        X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2]
    )
    scores, codes = mlp.decision_function(X[1::2]), Y[1::2]
    if Y.ndim == 2:  # one temperature for all labels
        scores, codes = scores.reshape(-1, 1), codes.reshape(-1)
    scores = scores.reshape(len(scores), -1)
    scores = np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores
    best = minimize_scalar(lambda b: log_loss(codes, softmax(np.exp(b) * scores, axis=1)), bounds=(-5, 5)).fun
    expected = best * (3 if Y.ndim == 2 else 1)
    assert -mlp.best_validation_score_ == pytest.approx(expected, rel=5e-3)
    assert -mlp.best_validation_score_ >= expected
    assert -mlp.best_validation_score_ < mlp.validation_loss_curve_[np.argmax(mlp.validation_scores_)] - 1e-3


@each_data
def test_folds_and_temperature(data):
    X, Y = data
    plainly = {"column_learning_rate": 0, "numeric_embedding": None, "batch_size": 64}
    clf = ensemble(**plainly).fit(X, Y)  # whose best epochs are the last, by either loss
    fold = left_out_by(clf, X)
    sizes = np.bincount(fold, minlength=4)
    assert sizes.max() - sizes.min() <= (len(np.unique(Y)) if Y.ndim == 1 else 1)
    if Y.ndim == 1:
        for c in np.unique(Y):  # classes in proportion
            assert np.ptp(np.bincount(fold[c == Y], minlength=4)) <= 1
    plain = ensemble(**plainly, calibration=None).fit(X, Y)
    if Y.ndim == 1:
        assert clf.temperature_ == pytest.approx(of_members(log_odds(plain.oof_proba_), Y), rel=1e-6)
    else:
        odds = np.log(plain.oof_proba_ / (1 - plain.oof_proba_))
        expected = [of_members(odds[:, [c]], Y[:, c]) for c in range(3)]
        np.testing.assert_allclose(clf.temperature_, expected, rtol=1e-6)
    assert clf.oof_score_ == accuracy_score(
        Y, (clf.oof_proba_ > 0.5).astype(int) if Y.ndim == 2 else clf.oof_proba_.argmax(1)
    )


@each_data
@pytest.mark.parametrize("calibration", ["temperature", "sigmoid", None])
def test_probabilities_are_the_mean_of_the_members(data, calibration):
    X, Y = data
    clf = ensemble(calibration=calibration).fit(X, Y)
    p = clf.predict_proba(X)
    np.testing.assert_allclose(p, np.mean([m.predict_proba(X) for m in clf.estimators_], 0), atol=1e-12)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(X)), p)
    scores = clf.decision_function(X)
    if Y.ndim == 2:
        np.testing.assert_array_equal(clf.predict(X), p > 0.5)
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), p)
    elif p.shape[1] == 2:
        np.testing.assert_array_equal(clf.predict(X), p.argmax(1))
        np.testing.assert_allclose(1 / (1 + np.exp(-scores)), p[:, 1])
    else:
        np.testing.assert_array_equal(clf.predict(X), p.argmax(1))
        np.testing.assert_allclose(np.exp(scores), p)
    left_out_by(clf, X)


def test_out_of_fold_probabilities_tell_of_new_rows():
    """Labels that are noise: nobody can know them, and the estimate says so, unlike the rows that were trained on."""
    generator = np.random.default_rng(0)
    noise, labels = generator.standard_normal((150, 60)), generator.integers(0, 2, 150)
    clf = ensemble(hidden_layer_sizes=(64,)).fit(noise, labels)
    assert clf.score(noise, labels) > 0.75
    assert clf.oof_score_ < 0.6
    train, test = train_test_split(np.arange(len(X)), test_size=0.5, random_state=0, stratify=Y)
    by_each = [ensemble().fit(X[train], Y[train]), ensemble().fit(X[test], Y[test])]
    found = np.mean([by_each[0].score(X[test], Y[test]), by_each[1].score(X[train], Y[train])])
    assert np.mean([clf.oof_score_ for clf in by_each]) == pytest.approx(found, abs=0.08)  # two standard errors


@pytest.mark.parametrize("scoring", ["loss", "neg_log_loss", "roc_auc", "balanced_accuracy", "f1"])
def test_oof_score(scoring):
    weight = np.random.default_rng(0).uniform(0.5, 2, len(Y2))
    clf = ensemble(scoring=scoring).fit(X2, Y2, sample_weight=weight)
    p = clf.oof_proba_
    if scoring in ("loss", "neg_log_loss"):
        expected = -log_loss(Y2, p, sample_weight=weight)
    elif scoring == "roc_auc":
        expected = roc_auc_score(Y2, p[:, 1], sample_weight=weight)
    else:
        expected = get_scorer(scoring)._score_func(Y2, p.argmax(1), sample_weight=weight)
    assert clf.oof_score_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch_size", ["auto", 1000])
def test_rows_of_no_weight_are_not_there(batch_size):
    weight = np.ones(len(Y))
    weight[::3] = 0
    there = weight > 0
    changed, labels = X.copy(), Y.copy()
    changed[~there] *= 1.5
    labels[~there] = (labels[~there] + 1) % 3
    params = {"batch_size": batch_size}
    clf = ensemble(**params).fit(changed, labels, sample_weight=weight)
    without = ensemble(**params).fit(X[there], Y[there])
    np.testing.assert_allclose(clf.predict_proba(X), without.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(clf.oof_proba_[there], without.oof_proba_, atol=1e-9)
    assert clf.oof_score_ == pytest.approx(without.oof_score_)
    # no member has seen them: all of them may speak
    np.testing.assert_allclose(clf.oof_proba_[~there], clf.predict_proba(changed[~there]), atol=1e-9)


def test_equal_rows_share_their_fold():
    clf = ensemble().fit(np.vstack([X, X]), np.r_[Y, Y])
    np.testing.assert_allclose(clf.oof_proba_[: len(X)], clf.oof_proba_[len(X) :], atol=1e-12)
    left_out_by(clf, np.vstack([X, X]))


def test_weights_where_one_batch_holds_all_rows():
    repeats = np.random.default_rng(0).integers(1, 4, len(Y))
    weighted = ensemble(batch_size=1000).fit(X, Y, sample_weight=repeats)
    repeated = ensemble(batch_size=1000).fit(X.repeat(repeats, 0), Y.repeat(repeats))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-9)
    assert weighted.temperature_ == pytest.approx(repeated.temperature_)
    assert weighted.oof_score_ == pytest.approx(repeated.oof_score_)


def test_classes_of_few_rows():
    """The only row of a class is in every training set; of two, one is."""
    few = np.r_[np.flatnonzero(Y == 0)[:20], np.flatnonzero(Y == 1)[:2], np.flatnonzero(Y == 2)[:1]]
    clf = ensemble(batch_size=5).fit(X[few], Y[few])
    assert np.isnan(clf.oof_proba_[22]).all()
    assert np.isfinite(clf.oof_proba_[:22]).all()
    assert clf.predict_proba(X[few]).shape == (23, 3)
    assert len(clf.estimators_) == 4
    # three distinct rows are three folds at most, unless they stand for several rows each
    tiny = ensemble().fit(X[:3].repeat(2, 0), [0] * 6)
    assert len(tiny.estimators_) == 3
    np.testing.assert_array_equal(tiny.oof_proba_, np.ones((6, 1)))
    assert tiny.oof_score_ == 1
    with pytest.raises(ValueError, match="at least 2 distinct rows of a class"):
        ensemble().fit(X[[0, 100]], Y[[0, 100]])


def test_own_validation_data():
    train, val = train_test_split(np.arange(len(X)), random_state=0, stratify=Y)
    params = {"max_iter": 30, "learning_rate": "constant", "calibration": None}
    clf = ensemble(**params).fit(X[train], Y[train], X_val=X[val], y_val=Y[val])
    for member in clf.estimators_:
        assert log_loss(Y[val], member.predict_proba(X[val])) == pytest.approx(min(member.validation_loss_curve_))
    left_out_by(clf, X[train])


def test_candidates_and_members_are_one_stack():
    """Ensembles that differ in alpha, learning rate and class weights: each as it would be alone."""
    params = [
        {},
        {"alpha": 1.0, "learning_rate_init": 0.005},
        {"class_weight": {0: 3.0, 1: 1.0, 2: 0.5}},
        {"class_weight": "balanced", "alpha": 0.1},
    ]
    stack = [ensemble(n_iter_no_change=1, **p) for p in params]
    assert fit_stack(stack, X, Y) == [None] * 4
    for member in stack:
        alone = clone(member).fit(X, Y)
        np.testing.assert_allclose(member.predict_proba(X), alone.predict_proba(X), atol=1e-9)
        np.testing.assert_allclose(member.oof_proba_, alone.oof_proba_, atol=1e-9)
        assert member.oof_score_ == alone.oof_score_
        assert member.temperature_ == pytest.approx(alone.temperature_)
        assert member.loss_curve_ == pytest.approx(alone.loss_curve_)


@pytest.mark.parametrize("pipeline", [False, True])
def test_grid_search(pipeline, recwarn):
    final = ensemble(max_iter=4)
    model = make_pipeline(StandardScaler(), final) if pipeline else final
    prefix = "mlpensembleclassifier__" if pipeline else ""
    grid = {prefix + "alpha": [1e-3, 10.0], prefix + "n_estimators": [2, 3]}
    options = {"cv": 2, "scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}
    stacked, one_by_one = (cls(model, grid, **options).fit(X, Y) for cls in (GridSearchCV, OneByOne))
    for name in ("mean_test_accuracy", "mean_test_neg_log_loss"):
        np.testing.assert_allclose(stacked.cv_results_[name], one_by_one.cv_results_[name], atol=1e-9)
    assert not [w for w in recwarn if "StackingWarning" in str(w.category)]
    assert np.ptp(stacked.cv_results_["mean_test_neg_log_loss"]) > 1e-3


def test_a_candidate_that_diverges_fails_alone():
    stack = [
        ensemble(learning_rate_init=1e200, solver="sgd", activation="identity"),
        ensemble(solver="sgd", activation="identity"),
    ]
    failures = fit_stack(stack, X, Y)
    assert isinstance(failures[0], ValueError) and "in member" in str(failures[0]) and failures[1] is None
    assert not hasattr(stack[0], "estimators_")
    alone = clone(stack[1]).fit(X, Y)
    np.testing.assert_allclose(stack[1].predict_proba(X), alone.predict_proba(X), atol=1e-9)
    before = alone.predict_proba(X)
    with pytest.raises(ValueError, match="Training diverged: in member"):
        reconfigured(alone, learning_rate_init=1e200).fit(X, Y)
    np.testing.assert_array_equal(reconfigured(alone, learning_rate_init=0.02).predict_proba(X), before)


def test_sparse_rows_memory_maps_and_pickles(tmp_path):
    clf = ensemble(standardize=False, numeric_embedding=None, learning_rate_init=1e-3).fit(X, Y)
    rows = sparse.csr_array(X)
    sparsely = clone(clf).fit(rows, Y)
    np.testing.assert_allclose(sparsely.predict_proba(rows), clf.predict_proba(X), atol=1e-8)
    np.testing.assert_allclose(sparsely.oof_proba_, clf.oof_proba_, atol=1e-8)
    np.save(tmp_path / "X.npy", X)
    mapped = clone(clf).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), Y)
    np.testing.assert_array_equal(mapped.oof_proba_, clf.oof_proba_)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(clone(clf).fit(X.astype(np.float32), Y).predict(X), clf.predict(X))


def test_missing_values():
    """Each member fills in the means of its own rows."""
    generator = np.random.default_rng(0)
    holes = np.where(generator.random(X.shape) < 0.1, np.nan, X)
    holes[:, 0] = X[:, 0]
    clf = ensemble().fit(holes, Y)
    left_out_by(clf, holes)
    members = [member.predict_proba(holes) for member in clf.estimators_]
    np.testing.assert_allclose(clf.predict_proba(holes), np.mean(members, 0), atol=1e-12)
    assert len({member.means_[1] for member in clf.estimators_}) == 4
    assert clf.oof_score_ > 0.6
    raw = ensemble(standardize=False).fit(holes, Y)
    assert raw.predict_proba(holes).shape == (len(Y), len(raw.classes_))
    with pytest.raises(ValueError, match="NaN"):
        ensemble(standardize=False).fit(X, Y).predict(holes)


def test_data_frames_and_strings():
    frame, labels = load_iris(return_X_y=True, as_frame=True)
    labels = labels.map({0: "a", 1: "b", 2: "c"})
    clf = ensemble().fit(frame, labels)
    assert set(clf.predict(frame)) == {"a", "b", "c"}
    assert all(list(member.feature_names_in_) == list(frame.columns) for member in clf.estimators_)
    member = clf.estimators_[0]
    assert list(member.classes_) == ["a", "b", "c"] and member.score(frame, labels) > 0.5
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame.rename(columns=str.upper))


def test_nothing_of_an_earlier_fit_remains():
    clf = ensemble(calibration="sigmoid").fit(X2, Y2)
    clf.set_params(calibration="temperature", n_estimators=2).fit(X, Y)
    fresh = ensemble(n_estimators=2).fit(X, Y)
    assert vars(clf).keys() == vars(fresh).keys()
    np.testing.assert_array_equal(clf.predict_proba(X), fresh.predict_proba(X))
    assert len(clf.estimators_) == 2


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"'n_estimators'.*in the range"):
        ensemble(n_estimators=1).fit(X, Y)
    for name in ("warm_start", "validation_fraction", "callbacks", "verbose"):
        with pytest.raises(ValueError, match="Invalid parameter"):
            reconfigured(ensemble(), **{name: 1})
    assert not hasattr(SMALL, "partial_fit")
    with pytest.raises(AttributeError, match="folds need all data at once"):
        ensemble().partial_fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", Adam(0.1, learning_rate="constant")], ids=["name", "object"])
def test_each_candidate_has_its_own_patience_and_its_own_solver(solver):
    model = MLPEnsembleClassifier(2, (4,), solver=solver, max_iter=8, numeric_embedding=None, random_state=0)
    name = "n_iter_no_change" if isinstance(solver, str) else "solver__n_iter_no_change"
    grid = {name: [1, 2, 5]}
    iris, labels = load_iris(return_X_y=True)
    noisy = iris + 0.6 * np.random.RandomState(0).randn(*iris.shape)
    found, expected = (
        search(model, grid, cv=2, scoring="neg_log_loss", refit=False).fit(noisy, labels).cv_results_["mean_test_score"]
        for search in (GridSearchCV, OneByOne)
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert isinstance(solver, str) or len(set(found)) > 1


def test_members_share_no_solver():
    solvers = [SGD(0.1, momentum=momentum) for momentum in (0.1, 0.9)]
    stack = [MLPEnsembleClassifier(2, (4,), max_iter=2, solver=solver, random_state=0) for solver in solvers]
    assert fit_stack(stack, X, Y) == [None, None]
    for model, momentum in zip(stack, (0.1, 0.9), strict=True):
        assert [member.solver.momentum for member in model.estimators_] == [momentum] * len(model.estimators_)
    first, second, *_ = stack[0].estimators_
    assert first.set_params(solver__momentum=0.5) and second.solver.momentum == 0.1
    assert len({SGD(), SGD()}) == 2  # they have a hash, as estimators do
