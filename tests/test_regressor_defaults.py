"""What the regressors choose themselves is what their docstrings say."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.metrics import r2_score

from skdeep import LinearRegressor, MLPEnsembleRegressor, MLPRegressorTorch


def _data(n, d):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    return X, X[:, 0] - X[:, -1] * X[:, 0] + rng.normal(size=n)


@pytest.mark.parametrize(("n", "d"), [(300, 3), (2500, 4), (40, 3), (100, 50)], ids=str)
def test_the_penalty_grows_with_columns_per_row(n, d):
    X, y = _data(n, d)
    alpha = 2 * min(max(40 / n**0.5, 1) * d**1.5 / n, 1) * min(n / 64, 1)
    auto, given, other = (
        MLPRegressorTorch(hidden_layer_sizes=4, alpha=a, max_iter=3, random_state=0).fit(X, y)
        for a in ("auto", alpha, alpha + 0.1)
    )
    np.testing.assert_allclose(auto.predict(X), given.predict(X), rtol=1e-10)
    assert np.abs(auto.predict(X) - other.predict(X)).max() > 1e-6


@pytest.mark.parametrize(("n", "epochs"), [(3200, 30), (200, 75)], ids=str)
def test_one_cosine(n, epochs):
    """Of 30 epochs, or of 300 steps where these are more."""
    X, y = _data(n, 3)
    auto = MLPRegressorTorch(hidden_layer_sizes=4, random_state=0).fit(X, y)
    assert auto.n_iter_ == epochs
    params = {"learning_rate": "cosine", "learning_rate_init": 0.02, "max_iter": epochs}
    given = MLPRegressorTorch(hidden_layer_sizes=4, random_state=0, n_iter_no_change=np.inf, **params).fit(X, y)
    np.testing.assert_allclose(auto.loss_curve_, given.loss_curve_, rtol=1e-6)


def test_a_default_penalty_keeps_a_noisy_table_from_being_learnt_by_heart():
    X, y = _data(400, 60)
    X_test, y_test = X[300:], y[300:]
    auto, little = (MLPRegressorTorch(alpha=a, random_state=0).fit(X[:300], y[:300]) for a in ("auto", 1e-4))
    assert auto.score(X_test, y_test) > little.score(X_test, y_test) + 0.05


def test_intervals_cover_new_rows():
    X, y = _data(4000, 5)
    low, high = MLPEnsembleRegressor(random_state=0).fit(X[:600], y[:600]).predict_interval(X[600:]).T
    assert 0.87 < ((low <= y[600:]) & (y[600:] <= high)).mean() < 0.93


@pytest.mark.parametrize("form", [MLPRegressorTorch, MLPEnsembleRegressor])
def test_each_target_has_a_delta_in_its_own_unit(form):
    """Of targets that differ a thousandfold each is learnt, without a warning."""
    X = np.random.default_rng(0).normal(size=(400, 3))
    y = np.c_[np.sin(X[:, 0]) + X[:, 1], 1000 * X[:, 1] * X[:, 2]]
    model = form(loss="huber", max_iter=20, random_state=0)
    both = clone(model).fit(X[:300], y[:300])
    of_units = both.delta_ / y[:300].std(0)
    np.testing.assert_allclose(of_units, of_units[0], rtol=0.01)  # units have few digits
    assert r2_score(y[300:], both.predict(X[300:]), multioutput="raw_values").min() > 0.7
    assert np.ndim(model.fit(X[:300], y[:300, 0]).delta_) == 0


@pytest.mark.parametrize(("n", "rows"), [(60, 64), (100, 16), (240, 30), (700, 64)])
def test_steps_of_few_rows_are_small_in_ensembles(n, rows):
    X, y = _data(n, 3)
    auto, given = (
        MLPEnsembleRegressor(2, 4, max_iter=2, batch_size=size, random_state=0).fit(X, y).predict(X)
        for size in ("auto", rows)
    )
    np.testing.assert_array_equal(auto, given)


def test_optima_of_sparse_rows_with_an_l1_norm_are_the_default():
    """Mini-batches, which took several times as long, ended 5 % above, without a word."""
    rng = np.random.default_rng(0)
    X = sparse.random_array((20_000, 500), density=0.02, format="csr", rng=rng, data_sampler=rng.standard_normal)
    y = rng.poisson(np.exp(np.clip(X[:, :20].sum(1), -2, 2)))
    assert LinearRegressor("poisson", penalty="l1", alpha=3e-3).fit(X, y).solver_ == "exact"
