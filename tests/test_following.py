"""A penalty that follows the loss: how strong it is after each epoch, whose is, and that a stack changes nothing."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from skdeep import MLPClassifierTorch, MLPEnsembleClassifier, MLPRegressorTorch
from skdeep.engine.following import FollowingL2
from skdeep.fitting import courses
from skdeep.model_selection.stacks import fit_stack

X, Y = make_classification(300, 6, n_informative=4, n_classes=3, flip_y=0.1, random_state=0)
#: Half the square root of columns per row, by the weight of a batch.
BASE = 0.5 * np.sqrt(6 / 300) / 64


@pytest.fixture
def strengths(monkeypatch):
    """Alpha of each epoch of each stack that is trained, and the data terms after it."""
    seen, after = [], FollowingL2.after

    def watched(self, losses):
        seen.append((self.alpha.copy(), losses.copy()))
        return after(self, losses)

    monkeypatch.setattr(FollowingL2, "after", watched)
    return seen


def entropy(shares):
    return -np.sum(shares * np.log(shares))


def test_the_strength_is_in_proportion_to_the_loss_and_never_below_what_it_is_without():
    base, slope = np.array([0.1, 0.1, 0.2, 0.1, 0.1]), np.array([4.0, 4.0, 4.0, 0.0, 4.0])
    penalty = FollowingL2(base, slope, np.array([1.0, 1.0, 0.5, 1.0, 0.0]))
    np.testing.assert_allclose(penalty.alpha, [0.4, 0.4, 0.8, 0.1, 0.4])
    later = penalty.after(np.array([0.5, 0.2, 0.3, 0.5, 0.5]))
    np.testing.assert_allclose(later.alpha, [0.2, 0.1, 0.48, 0.1, 0.4])
    np.testing.assert_allclose(later.select(np.array([2, 0])).alpha, [0.48, 0.2])
    np.testing.assert_allclose(later.select(np.array([2, 0])).after(np.array([0.25, 9.0])).alpha, [0.4, 0.4])
    assert np.isfinite(later.after(np.full(5, np.nan)).alpha).all()


@pytest.mark.parametrize("kind", ["codes", "weights", "two classes", "labels"])
def test_each_epoch_has_the_strength_that_the_loss_before_asks_for(kind, strengths):
    y = {"two classes": Y > 0, "labels": np.eye(3, dtype=int)[Y]}.get(kind, Y)
    weight = np.where(np.arange(300) < 150, 1.0, 2.0) if kind == "weights" else None
    MLPClassifierTorch((8,), max_iter=5, batch_size=64, random_state=0).fit(X, y, weight)
    shares = np.array([np.average(c == Y, weights=weight) for c in range(3)])
    unexplained = entropy(shares)
    if kind == "two classes":
        unexplained = entropy(np.array([shares[0], 1 - shares[0]]))
    elif kind == "labels":
        unexplained = sum(entropy(np.array([share, 1 - share])) for share in shares)
    base = BASE if kind != "weights" else 0.5 * np.sqrt(6 / 450) / 64  # a row of weight 2 is two
    known = [alpha[0] for alpha, _ in strengths]
    expected = [base * max(1, 4 * min(loss[0] / unexplained, 1)) for _, loss in strengths]
    np.testing.assert_allclose(known, [4 * base, *expected[:-1]], rtol=1e-12)
    assert len(known) == 5 and base < known[-1] < known[1]


@pytest.mark.parametrize(("n_bins", "times"), [(8, 1), (12, 1.5), (4, 1), ("auto", 1)])
def test_many_bins_make_it_stronger(n_bins, times, strengths):
    MLPClassifierTorch((4,), max_iter=1, numeric_embedding="piecewise", n_bins=n_bins, random_state=0).fit(X, Y)
    np.testing.assert_allclose(strengths[0][0], 4 * times * BASE, rtol=1e-12)
    MLPClassifierTorch((4,), max_iter=1, n_bins=12, random_state=0).fit(X, Y)  # so few rows have none
    np.testing.assert_allclose(strengths[1][0], 4 * BASE, rtol=1e-12)


def test_the_loss_that_is_reported_has_the_penalty_of_its_epoch(strengths):
    model = MLPClassifierTorch((8,), max_iter=3, random_state=0).fit(X, Y)
    for value, (alpha, loss) in zip(model.loss_curve_, strengths, strict=True):
        assert loss[0] < value < loss[0] + 1e4 * alpha[0]


def test_more_training_begins_with_what_a_model_that_explains_its_data_has(strengths):
    model = MLPClassifierTorch((8,), max_iter=2, warm_start=True, random_state=0)
    model.fit(X, Y).fit(X, Y)
    np.testing.assert_allclose([strengths[0][0][0], strengths[2][0][0]], [4 * BASE, BASE], rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.05},
        {"learning_rate_init": 0.01},
        {"learning_rate": "cosine"},
        {"solver": "sgd"},
        {"solver": "adamw"},
        {"solver": "lbfgs"},
    ],
    ids=str,
)
def test_what_a_user_has_chosen_stays_as_it_is(options, strengths):
    MLPClassifierTorch((4,), max_iter=2, random_state=0, **options).fit(X, Y)
    assert not strengths


def test_parts_probabilities_ensembles_and_values_have_one_strength(strengths):
    MLPClassifierTorch((4,), random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
    P = np.random.default_rng(0).dirichlet(np.ones(3), len(X))
    MLPClassifierTorch((4,), max_iter=2, random_state=0).fit(X, P, classes=[0, 1, 2])
    MLPEnsembleClassifier(2, (4,), max_iter=1, random_state=0).fit(X, Y)
    MLPRegressorTorch(hidden_layer_sizes=(4,), max_iter=2, random_state=0).fit(X, X[:, 0])
    assert not strengths
    MLPClassifierTorch((4,), max_iter=2, random_state=0).fit(X, np.eye(3)[Y], classes=[0, 1, 2])
    assert strengths  # probabilities of one and zero are labels


def test_models_of_a_stack_follow_their_own_loss_or_none():
    alphas = ["auto", 1e-3, "auto", 0.3]
    stack = [MLPClassifierTorch((8,), alpha=alpha, random_state=seed) for seed, alpha in enumerate(alphas)]
    fit_stack(stack, X, Y)
    for seed, (model, alpha) in enumerate(zip(stack, alphas, strict=True)):
        alone = MLPClassifierTorch((8,), alpha=alpha, random_state=seed).fit(X, Y)
        np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), rtol=0, atol=1e-10)


def test_noise_is_learnt_by_heart_the_less(monkeypatch):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 10)), rng.integers(2, size=400)
    sure = {}
    for follows in (0.0, 4.0):
        monkeypatch.setattr(courses, "_FOLLOWS", follows)
        model = MLPClassifierTorch(random_state=0).fit(*noise)
        sure[follows] = model.predict_proba(rng.normal(size=(400, 10))).max(1).mean()
    assert sure[4.0] < sure[0.0] - 0.02
