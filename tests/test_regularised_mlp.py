"""MLPClassifierTorch with dropout, normalisation and stochastic depth: what a user meets."""

import copy
import pickle

import numpy as np
import pytest
from helpers import reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification

from skdeep import MLPClassifierTorch
from skdeep.model_selection.stacks import fit_stack, stackable_now

X, Y = load_digits(return_X_y=True)
X, Y = X[:420] / 16, Y[:420]  # two batches of 200 rows, and one of 20
FEW = X[:220], Y[:220]
BASE = MLPClassifierTorch((12, 12, 12), max_iter=4, learning_rate_init=0.01, random_state=0)
OPTIONS = {
    "dropout": {"dropout": 0.3},
    "batch": {"normalization": "batch"},
    "layer": {"normalization": "layer"},
    "stochastic depth": {"stochastic_depth": 0.4},
    "all": {"dropout": 0.1, "normalization": "batch", "stochastic_depth": 0.2, "activation": "prelu"},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def mlp(options, **more):
    return reconfigured(clone(BASE), **options | more)


def scores_by_hand(clf, X):
    """From the fitted attributes alone."""
    n, h = len(clf.coefs_), X
    for i in range(n - 1):
        z = h @ clf.coefs_[i] + clf.intercepts_[i]
        if clf.normalization == "batch":
            z = (z - clf.running_means_[i]) / np.sqrt(clf.running_vars_[i] + 1e-5)
        elif clf.normalization == "layer":
            z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        if clf.normalization:
            z = z * clf.gammas_[i] + clf.betas_[i]
        new = np.maximum(z, 0)
        if clf.activation == "prelu":
            new += clf.slopes_[i] * np.minimum(z, 0)
        h = h + new if clf.stochastic_depth is not None and new.shape == h.shape else new
    return h @ clf.coefs_[-1] + clf.intercepts_[-1]


@each_option
def test_fitted_attributes_are_the_model(options):
    """Predictions are those of evaluation: the formula, the same each time, whichever rows come together."""
    clf = mlp(options, learning_rate_init=0.03, max_iter=20).fit(X, Y)
    np.testing.assert_allclose(clf.decision_function(X), scores_by_hand(clf, X), atol=1e-10)
    np.testing.assert_allclose(clf.predict_proba(X[:7]), clf.predict_proba(X)[:7], atol=1e-12)
    assert clf.score(X, Y) > 0.5
    n_norms = {None: 0, "layer": 2, "batch": 4}[clf.normalization]
    names = ["gammas_", "betas_", "running_means_", "running_vars_"]
    for i, name in enumerate(names):
        assert hasattr(clf, name) == (i < n_norms)
    if n_norms:
        assert [array.shape for array in clf.gammas_] == [(12,)] * 3
        assert not np.allclose(clf.gammas_[0], 1)
    if n_norms == 4:
        assert not any(b.any() for b in clf.intercepts_[1:-1])
        np.testing.assert_allclose(clf.intercepts_[0], -X.mean(0) @ clf.coefs_[0], atol=1e-12)


@each_option
def test_a_last_batch_of_one_row(options):
    """No error, and no harm: at a small rate, where the step of a single row weighs little."""
    clf = mlp(options, max_iter=10, learning_rate_init=2e-3).fit(X[:401], Y[:401])
    assert np.isfinite(clf.loss_curve_).all()
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]
    assert clf.partial_fit(X[:1], Y[:1]).predict_proba(X).shape == (420, 10)


@each_option
def test_the_same_seed_is_the_same_fit_and_another_is_not(options):
    first, again = mlp(options).fit(X, Y), mlp(options).fit(X, Y)
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert np.abs(first.predict_proba(X) - mlp(options, random_state=1).fit(X, Y).predict_proba(X)).max() > 1e-3
    assert np.abs(first.predict_proba(X) - clone(BASE).fit(X, Y).predict_proba(X)).max() > 1e-3


@each_option
def test_pickled_models_go_on_where_they_stopped(options):
    """partial_fit: two and two passes are four, with a pickle between; running averages included."""
    whole, parts = mlp(options), mlp(options)
    for _ in range(4):
        whole.partial_fit(X, Y, classes=np.unique(Y))
    for i in range(4):
        parts = pickle.loads(pickle.dumps(parts)) if i == 2 else parts
        parts.partial_fit(X, Y, classes=np.unique(Y))
    np.testing.assert_array_equal(whole.predict_proba(X), parts.predict_proba(X))


@each_option
def test_sparse_rows(options):
    options = {**options, "standardize": False}  # in which dense columns are centred, and sparse ones are not
    dense, sparsely = mlp(options).fit(X, Y), mlp(options).fit(sparse.csr_array(X), Y)
    np.testing.assert_allclose(sparsely.predict_proba(sparse.csr_array(X)), dense.predict_proba(X), atol=1e-8)


@each_option
def test_weights_of_a_batch_of_all_rows(options):
    """Weights, repetition, and rows of no weight: the same model, masks and batch statistics included."""
    weight = np.random.default_rng(0).integers(0, 3, len(Y))
    full = {"batch_size": 2000, "max_iter": 10}
    weighted = mlp(options, **full).fit(X, Y, sample_weight=weight)
    repeated = mlp(options, **full).fit(X.repeat(weight, axis=0), Y.repeat(weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-8)


@pytest.mark.slow
@each_option
def test_members_of_a_stack_end_where_they_end_alone(options):
    """With probabilities, seeds, rates and patience of their own, and early stopping."""
    X, Y = FEW
    changes = [{}, {"alpha": 1.0, "tol": 0.1, "n_iter_no_change": 1}, {"learning_rate_init": 1e-3}]
    changes += [{name: 0.7} for name in options if name in ("dropout", "stochastic_depth")]
    for shared in ({"early_stopping": True, "scoring": "loss"}, {"class_weight": "balanced"}):
        own = [{}] if shared.get("early_stopping") or "dropout" in options else [{}, {"random_state": 5}]
        members = [mlp(options, max_iter=4, **shared, **change, **more) for change in changes for more in own]
        assert set().union(*changes, *own) <= stackable_now(members[0])
        assert fit_stack(members, X, Y) == [None] * len(members)
        for member in members:
            alone = clone(member).fit(X, Y)
            np.testing.assert_allclose(member.predict_proba(X), alone.predict_proba(X), atol=1e-8)
            assert member.n_iter_ == alone.n_iter_
            member.set_params(early_stopping=False, class_weight=None).partial_fit(X, Y)
            alone.set_params(early_stopping=False, class_weight=None).partial_fit(X, Y)
            np.testing.assert_allclose(member.predict_proba(X), alone.predict_proba(X), atol=1e-8)


@each_option
def test_calibration_leaves_the_model_as_it_is(options):
    """Its fold models are further networks, with the attributes of none."""
    plain, calibrated = mlp(options).fit(X, Y), mlp(options, calibration="temperature").fit(X, Y)
    np.testing.assert_array_equal(calibrated.decision_function(X), plain.decision_function(X))
    assert vars(calibrated).keys() - vars(plain).keys() == {"temperature_"}


def test_probabilities_of_zero_share_no_stack_with_others():
    assert {"dropout", "stochastic_depth"} <= stackable_now(mlp(OPTIONS["all"]))
    assert not {"dropout", "stochastic_depth"} & stackable_now(clone(BASE))
    assert "stochastic_depth" not in stackable_now(mlp({"stochastic_depth": 0.0}))


def test_running_averages_are_those_of_the_best_epoch():
    """Early stopping keeps all that belongs to the best weights."""
    clf = mlp(OPTIONS["all"], early_stopping=True, max_iter=20, scoring="loss")
    wrong = np.roll(Y[300:], 1)  # the surer the network, the worse
    clf.fit(X[:300], Y[:300], X_val=X[300:], y_val=wrong)
    assert np.argmax(clf.validation_scores_) < clf.n_iter_ - 1
    proba = clf.predict_proba(X[300:])
    loss = -np.log(proba[np.arange(120), wrong]).mean()
    assert loss == pytest.approx(-clf.best_validation_score_, abs=1e-10)


def test_warm_start_goes_on_and_refuses_other_layers():
    clf = mlp(OPTIONS["all"], warm_start=True).fit(X, Y)
    means = copy.deepcopy(clf.running_means_)
    clf.fit(X, Y)
    assert not np.allclose(means[0], clf.running_means_[0])
    for change in ({"normalization": "layer"}, {"normalization": None}, {"activation": "relu"}):
        with pytest.raises(ValueError, match=r"normalization has changed.*warm_start=False"):
            reconfigured(copy.deepcopy(clf), **change).fit(X, Y)
    clf.set_params(warm_start=False, normalization=None, activation="relu").fit(X, Y)  # nothing of the old is left
    np.testing.assert_allclose(clf.decision_function(X), scores_by_hand(clf, X), atol=1e-10)
    assert not hasattr(clf, "gammas_")
    assert not hasattr(clf, "slopes_")


@pytest.mark.parametrize("name", ["dropout", "batch", "stochastic depth"])
def test_lbfgs_needs_one_objective(name):
    with pytest.raises(ValueError, match=r"lbfgs.*same objective.*Use solver='sgd'"):
        mlp(OPTIONS[name], solver="lbfgs").fit(X, Y)


def test_lbfgs_with_layer_normalisation_and_blocks():
    clf = mlp({"normalization": "layer", "stochastic_depth": 0.0}, solver="lbfgs", max_iter=30).fit(X, Y)
    assert clf.score(X, Y) > 0.9


@each_option
def test_multilabel(options):
    X, y = make_multilabel_classification(200, n_classes=4, n_labels=2, random_state=0)
    proba = mlp(options, hidden_layer_sizes=(32, 32), max_iter=50).fit(X, y).predict_proba(X)
    assert proba.shape == y.shape
    assert ((proba > 0.5) == y).mean() > 0.75


@pytest.mark.slow
@each_option
def test_bfloat16(options):
    clf = mlp(options, precision="bfloat16", max_iter=20, learning_rate_init=0.03).fit(X, Y)
    assert clf.score(X, Y) > 0.5
    assert clf.loss_curve_[-1] < clf.loss_curve_[0] / 1.5


@pytest.mark.parametrize(
    ("name", "value"), [("dropout", 1.0), ("dropout", -0.1), ("normalization", "group"), ("stochastic_depth", 1.0)]
)
def test_bad_values(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        mlp({name: value}).fit(X, Y)


@pytest.mark.filterwarnings("ignore:Weights .* make all")
@pytest.mark.parametrize("scale", [1.0, 1 / 90])
def test_the_automatic_penalty_counts_columns_and_rows(scale):
    """From a learning rate of a user's, for with ours it follows the loss."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((90, 5)), np.arange(90) % 3
    common = {"hidden_layer_sizes": (4,), "max_iter": 3, "learning_rate_init": 0.01, "random_state": 0}
    auto = MLPClassifierTorch(**common).fit(X, y, np.full(90, scale))
    alpha = 0.5 * np.sqrt(5 / 90) * 300 / 90
    asked = MLPClassifierTorch(alpha=alpha, **common).fit(X, y, np.full(90, scale))
    np.testing.assert_allclose(auto.coefs_[0], asked.coefs_[0], rtol=1e-10)
    few = MLPClassifierTorch(**common).fit(X[:16], y[:16])
    alpha = 0.5 * np.sqrt(5 / 16) * 16 / 64 * 300 / 64
    asked = MLPClassifierTorch(alpha=alpha, **common).fit(X[:16], y[:16])
    np.testing.assert_allclose(few.coefs_[0], asked.coefs_[0], rtol=1e-10)
