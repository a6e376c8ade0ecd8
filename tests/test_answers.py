"""Labels and probabilities as functions of scores, and what scorers ask in the place of a classifier."""

import copy
import functools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.metrics import accuracy_score, get_scorer, log_loss
from sklearn.preprocessing import scale
from sklearn.utils.validation import check_is_fitted

from skdeep import HingeClassifier, LeastSquaresClassifier, MLPEnsembleClassifier, SigmoidClassifier, SoftmaxClassifier
from skdeep.data.answers import Answers, AssembledAnswers, own_methods
from skdeep.fitting.links import link_of
from skdeep.model_selection import GridSearchCV

WINE = scale(load_wine().data), load_wine(return_X_y=True)[1]
CANCER = scale(load_breast_cancer().data)[::4], np.array(["no", "yes"])[load_breast_cancer().target[::4]]
LABELS = WINE[0], np.c_[WINE[1] == 0, WINE[1] > 0, WINE[0][:, 0] > 0].astype(int)
ENSEMBLE = MLPEnsembleClassifier(2, (4,), max_iter=3, random_state=0)
METHODS = ("predict", "decision_function", "predict_proba", "predict_log_proba")
CASES = {
    "softmax": (SoftmaxClassifier(random_state=0), WINE),
    "two classes": (SoftmaxClassifier(random_state=0), CANCER),
    "labels": (SigmoidClassifier(random_state=0), LABELS),
    "temperatures of labels": (SigmoidClassifier(calibration="temperature", random_state=0), LABELS),
    "temperature": (HingeClassifier(max_iter=5, random_state=0), WINE),
    "sigmoid": (LeastSquaresClassifier(calibration="sigmoid"), CANCER),
    "uncalibrated": (LeastSquaresClassifier(), WINE),
    "ensemble": (ENSEMBLE, WINE),
}


@functools.cache
def answers_of(case):
    """A fitted classifier, and its answers from its own scores; those that it shows as a vector are a column."""
    estimator, data = CASES[case]
    estimator = clone(estimator).fit(*data)
    scores = torch.from_numpy(estimator.decision_function(data[0]).reshape(len(data[0]), -1))
    return estimator, Answers(estimator, scores, link_of(estimator))


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_the_classifier(case):
    estimator, answers = answers_of(case)
    X, y = CASES[case][1]
    before = answers.scores.clone()
    for method in METHODS:
        assert hasattr(answers, method) == hasattr(estimator, method)
        if hasattr(estimator, method):
            answer = getattr(answers, method)(X)
            np.testing.assert_array_equal(answer, getattr(estimator, method)(X))
            answer[:1] = answer[-1:]  # it is the caller's
    assert torch.equal(answers.scores, before)
    assert answers.score(X, y) == estimator.score(X, y)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss", "roc_auc_ovr", "average_precision"])
def test_scorers_hear_from_answers_what_the_classifier_says(case, scoring):
    estimator, answers = answers_of(case)
    outcome = []
    for asked in (estimator, answers):
        try:
            outcome.append(get_scorer(scoring)(asked, *CASES[case][1]))
        except (ValueError, AttributeError, UserWarning) as error:
            outcome.append(str(error).replace("Answers", type(estimator).__name__))
    assert outcome[0] == outcome[1]


def test_all_else_is_the_classifiers():
    estimator, answers = answers_of("temperature")
    check_is_fitted(answers)
    assert is_classifier(answers)
    assert answers.get_params() == estimator.get_params() and answers.n_features_in_ == 13
    for other in (copy.copy(answers), pickle.loads(pickle.dumps(answers))):
        np.testing.assert_array_equal(other.predict(WINE[0]), estimator.predict(WINE[0]))
    with pytest.raises(AttributeError, match="no_such"):
        answers.no_such  # noqa: B018


def test_only_known_rows_can_be_asked_about():
    _, answers = answers_of("softmax")
    with pytest.raises(ValueError, match="SoftmaxClassifier about 3 rows, where the answers about 178 are known"):
        answers.predict(WINE[0][:3])


class Careful(MLPEnsembleClassifier):
    def predict_proba(self, X):
        return 0.9 * super().predict_proba(X) + 0.1 / len(self.classes_)


def test_methods_of_a_users():
    assert own_methods(HingeClassifier()) == [] == own_methods(ENSEMBLE)
    assert own_methods(Careful()) == ["predict_proba"]


class WithoutScore(HingeClassifier):
    @property
    def score(self):
        raise AttributeError("left to a scorer")


def test_a_method_may_be_hidden_by_a_property():
    assert own_methods(WithoutScore()) == ["score"]
    grid = {"alpha": [0.01, 0.1]}
    with pytest.raises(TypeError, match="should have a 'score' method"):
        GridSearchCV(WithoutScore(), grid).fit(*WINE)
    ours, hidden = (GridSearchCV(cls(), grid, scoring="accuracy").fit(*WINE) for cls in (HingeClassifier, WithoutScore))
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], hidden.cv_results_["mean_test_score"])


class Doubtful(MLPEnsembleClassifier):
    """Says the first class, unless another one is far more probable; it asks another method of its own."""

    def predict(self, X):
        odds = self.odds(X)
        return self.classes_[np.where(odds.max(1) > 1.2, 1 + odds.argmax(1), 0)]

    def odds(self, X):
        p = self.predict_proba(X)
        return p[:, 1:] / p[:, :1]


class Counting(MLPEnsembleClassifier):
    def score(self, X, y):
        return len(X)


def as_frame(X):
    return pd.DataFrame(X).add_prefix("column ")


@pytest.mark.parametrize(
    "make, weighted",
    [(np.asarray, False), (np.asarray, True), (as_frame, True), (sparse.csr_array, True), (torch.from_numpy, False)],
)
def test_an_ensemble_with_methods_of_its_own_is_judged_by_them(make, weighted):
    """What the members that are new to a row say of it, as one without such methods has it, is passed through them."""
    X, y = WINE[0].copy(), np.array(["no", "perhaps", "certain"])[WINE[1]]
    X[[0, 3]] = X[[1, 4]]  # equal rows are left out together
    weight = np.random.default_rng(0).integers(0, 3, len(y)) if weighted else None
    params = ENSEMBLE.get_params() | {"n_estimators": 3, "max_iter": 15}
    plain = MLPEnsembleClassifier(**params).fit(make(X), y, sample_weight=weight)
    p = np.asarray(plain.oof_proba_)
    careful = Careful(**params | {"scoring": "neg_log_loss"})
    said = -log_loss(y, 0.9 * p + 0.1 / 3, sample_weight=weight)
    assert careful.fit(make(X), y, sample_weight=weight).oof_score_ == pytest.approx(said, rel=1e-9)
    odds = p[:, 1:] / p[:, :1]
    said = plain.classes_[np.where(odds.max(1) > 1.2, 1 + odds.argmax(1), 0)]
    assert (said != plain.classes_[p.argmax(1)]).any()
    doubtful = Doubtful(**params).fit(make(X), y, sample_weight=weight)
    assert doubtful.oof_score_ == pytest.approx(accuracy_score(y, said, sample_weight=weight), rel=1e-12)
    np.testing.assert_array_equal(doubtful.oof_proba_, plain.oof_proba_)


def test_a_score_of_a_users_is_the_mean_over_the_rows_that_each_member_is_new_to():
    scoring = lambda ensemble, X, y: ensemble.score(X, y)  # noqa: E731
    ensemble = Counting(**ENSEMBLE.get_params() | {"scoring": scoring}).fit(*WINE)
    assert ensemble.oof_score_ == pytest.approx((88**2 + 90**2) / 178)  # of two folds
    ours = clone(ENSEMBLE).set_params(scoring=scoring).fit(*WINE)
    assert Careful(**ours.get_params()).fit(*WINE).oof_score_ == pytest.approx(ours.oof_score_)


def test_members_that_have_each_left_out_a_part_are_asked_together():
    """Rows that stand for many: each answer is of all members, about the same."""
    X, y = np.repeat([[0.0], [1.0]], 100, 0), np.arange(200) // 100 ^ (np.arange(200) % 10 == 0)
    params = ENSEMBLE.get_params() | {"scoring": "neg_log_loss", "max_iter": 30}
    plain, careful = (cls(**params).fit(X, y) for cls in (MLPEnsembleClassifier, Careful))
    said = -log_loss(y, 0.9 * plain.oof_proba_ + 0.05)
    assert careful.oof_score_ == pytest.approx(said, rel=1e-3)


def test_assembled_answers():
    X, _ = WINE
    estimator, _ = answers_of("softmax")
    parts = [(np.arange(100, 178), estimator), (np.arange(100), estimator)]
    answers = AssembledAnswers(estimator, parts)
    assert is_classifier(answers) and answers.get_params() == estimator.get_params()
    for method in METHODS:
        np.testing.assert_allclose(getattr(answers, method)(X), getattr(estimator, method)(X), rtol=1e-12)
    assert answers.score(*WINE) == pytest.approx(estimator.score(*WINE))
    np.testing.assert_array_equal(copy.copy(answers).predict(X), estimator.predict(X))
    with pytest.raises(ValueError, match="SoftmaxClassifier about 3 rows, where the answers about 178 are known"):
        answers.predict(X[:3])
    uncalibrated, _ = answers_of("uncalibrated")
    assert not hasattr(AssembledAnswers(uncalibrated, parts), "predict_proba")


def test_a_scorer_of_a_users_asks_about_rows_left_out():
    seen = []

    def scorer(ensemble, X, y):
        seen.append((ensemble.get_params(), X.shape, ensemble.predict_proba(X)))
        return ensemble.score(X, y)

    ensemble = clone(ENSEMBLE).set_params(scoring=scorer).fit(*WINE)
    ((params, shape, probabilities),) = seen
    assert params == ensemble.get_params() and shape == WINE[0].shape
    np.testing.assert_array_equal(np.sort(probabilities, 0), np.sort(ensemble.oof_proba_, 0))
    assert ensemble.oof_score_ == np.mean(ensemble.oof_proba_.argmax(1) == WINE[1])
