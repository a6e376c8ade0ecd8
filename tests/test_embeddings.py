"""Columns embedded as bins of themselves: the formula, the edges, and that nothing else of a model changes."""

import pickle
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_wine

from skdeep import MLPClassifierTorch, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressorTorch
from skdeep.data import bins
from skdeep.data.bins import bin_edges, bins_between_values
from skdeep.engine.embeddings import BinnedAffine
from skdeep.engine.input_layer import Standardization
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import DenseRows
from skdeep.fitting.recipe import Member
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

X, Y = load_wine(return_X_y=True)
HOLES = X.copy()
HOLES[::7, 3] = HOLES[1::9, 5] = np.nan
WEIGHT = np.random.default_rng(0).integers(0, 3, len(Y)).astype(float)
BASE = MLPClassifierTorch(
    (8,), batch_size=50, max_iter=5, learning_rate_init=0.01, numeric_embedding="piecewise", n_bins=4, random_state=0
)
#: Columns of few values, of which the first has only two, the last but one a rare one.
CODES = np.column_stack([np.arange(120) // 30 % 2, np.arange(120) % 3, np.arange(120) // 60, np.arange(120) % 5])
CODES[7, 2] = 2
NONE = torch.empty(0, dtype=torch.int64)


def mlp(**options):
    return reconfigured(clone(BASE), **options)


def encoded(values, edges):
    """The bins of rows (n, e), of edges (e, T + 1)."""
    found = []
    for column, own in zip(values.T, edges, strict=True):
        for low, high in pairwise(own):
            found.append(np.clip((2 * column - low - high) / (high - low), -1, 1) if high > low else 0 * column)
    return np.stack(found, axis=1)


def bins_of(values, weight=None, n_bins=4, shift=0.0):
    """Edges of columns, and whether they are all values."""
    weights = [None if weight is None else np.asarray(weight, dtype=float)]
    rows = DenseRows(torch.from_numpy(values), torch.device("cpu"), torch.float32)
    return tuple(part[0] for part in bin_edges(rows, [None], weights, [shift], values.shape[1], n_bins))


def edges_of(*values, **options):
    return bins_of(*values, **options)[0]


def by_hand(model, data):
    """The scores, from the fitted attributes alone."""
    filled = np.where(np.isnan(data), getattr(model, "means_", 0.0), data)
    missing = np.isnan(data)[:, getattr(model, "missing_features_", [])]
    low, high = model.bin_edges_[:, 0], model.bin_edges_[:, -1]
    margin = np.where(high > low, (high - low) / 4, np.inf)
    filled[:, : len(low)] = np.clip(filled[:, : len(low)], low - margin, high + margin)
    columns = np.hstack([filled, missing, encoded(filled[:, : len(low)], model.bin_edges_)])
    return np.maximum(columns @ model.coefs_[0] + model.intercepts_[0], 0) @ model.coefs_[1] + model.intercepts_[1]


@pytest.mark.parametrize("data", [X, HOLES, X + 1e7, X * 1e-20], ids=["plain", "missing", "far", "tiny"])
@pytest.mark.parametrize("options", [{}, {"standardize": False}, {"solver": "lbfgs"}], ids=["adam", "raw", "lbfgs"])
def test_fitted_attributes_are_the_model(options, data):
    if options.get("standardize") is False and data is not HOLES:
        data = X / X.max(0)  # columns that a step as they are can bear
    elif options.get("standardize") is False:
        data = HOLES / X.max(0)
    model = mlp(**options).fit(data, Y)
    np.testing.assert_allclose(model.decision_function(data), by_hand(model, data), atol=1e-7)
    n_missing = 2 * np.isnan(data).any()
    assert hasattr(model, "means_") == (model.standardize or n_missing > 0) and model.bin_edges_.shape == (13, 5)
    assert model.coefs_[0].shape == (13 + n_missing + 13 * 4, 8)
    assert model.column_factors_.shape == (13 + n_missing + 13,)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(data), model.predict_proba(data))


@pytest.mark.parametrize("options", [{}, {"solver": "sgd"}, {"normalization": "layer"}, {"early_stopping": True}])
def test_columns_prepared_by_hand(options, monkeypatch):
    """The same initial weights on the same columns: the same model."""
    options = {"alpha": 0.1, "column_learning_rate": 0.0} | options  # "auto" goes by the number of columns
    model = mlp(**options).fit(X, Y, X_val=X[::3], y_val=Y[::3])
    mean, scale = X.mean(0), X.std(0)
    Z = np.hstack([(X - mean) / scale, 4 / 13 * encoded(X, model.bin_edges_)])

    def initial(*arguments, drawn=MLP.initial, **others):
        network = drawn(*arguments, **others)
        for group in ("weight", "bias"):  # in whose bounds bins do not count
            network.groups[group][0].detach().mul_(np.sqrt((65 + 8) / (13 + 8)))
        return network

    monkeypatch.setattr(MLP, "initial", initial)
    plain = mlp(**options, numeric_embedding=None, standardize=False).fit(Z, Y, X_val=Z[::3], y_val=Y[::3])
    np.testing.assert_allclose(model.loss_curve_, plain.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(Z), atol=1e-9)
    np.testing.assert_allclose(model.coefs_[0][13:], 4 / 13 * plain.coefs_[0][13:], atol=1e-9)


@pytest.mark.parametrize("data", [X.astype(np.float32), np.float32(X * 1000).astype(int)], ids=["single", "integers"])
def test_other_dtypes(data):
    model = mlp(max_iter=30).fit(data, Y)
    assert model.bin_edges_.dtype == np.float64 and model.score(data, Y) > 0.95
    np.testing.assert_allclose(model.decision_function(data), by_hand(model, data.astype(float)), atol=1e-3)


@pytest.mark.parametrize(
    "data", [X, HOLES, X + 1e7, X * 1e-20, X * (X > np.median(X, 0))], ids=["", "missing", "far", "tiny", "ties"]
)
def test_predictions_are_as_exact_as_training_was(data):
    """Of many rows in single precision what bins add is looked up, and columns are centred before they are rounded."""
    many, labels = np.repeat(data, 2, axis=0), np.repeat(Y, 2)
    for model in (mlp(precision="float32"), mlp(precision="float64")):
        exact = by_hand(model.fit(many, labels), many)
        found = model.decision_function(many)
        assert found.dtype == np.float64 and len(many) >= BinnedAffine.fewest
        assert np.abs(found - exact).max() < (1e-5 if model.precision == "float32" else 1e-7) * np.abs(exact).max()
        single = model.decision_function(many) == np.float32(model.decision_function(many))
        assert single.all() == (model.precision == "float32")


def test_values_far_from_zero_are_not_rounded_in_single_precision():
    y = np.sin(X[:, 0]) + 1e7
    options = {"precision": "float32", "numeric_embedding": "piecewise", "max_iter": 5, "random_state": 0}
    model = MLPRegressorTorch(hidden_layer_sizes=(8,), **options).fit(X, y)
    assert np.abs(model.predict(X) - by_hand(model, X)[:, 0]).max() < 1e-5


@pytest.mark.parametrize("n_own", [1, 2, 4])
@pytest.mark.parametrize("n_groups", [0, 1, 2, 4])
def test_what_bins_add_is_looked_up(n_own, n_groups, monkeypatch):
    """By models with bins of their own or in common, on rows in common or of groups: as the product with all bins."""
    generator = np.random.default_rng(0)
    edges = np.sort(generator.normal(size=(n_own, 3, 6)))
    edges[:, 1, 2] = edges[:, 1, 3]  # a bin that is none, between others
    edges[:, 2, 0] = edges[:, 2, 1]  # and before them
    own = {"edges": edges.repeat(4 // n_own, 0), "start": np.full((4, 3), 1.2)}
    center, scale = (torch.from_numpy(generator.uniform(0.5, 2, (4, 1, 5))).float() for _ in range(2))
    columns = Standardization(center, scale, NONE, **own)
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    network = MLP.initial([*map(np.random.default_rng, range(4))], [20, 7, 2], "relu", standardization=columns, **place)
    rows = torch.from_numpy(generator.standard_t(2, (300, 5))).float()
    rows[::7, 1] = torch.nan
    rows = rows if n_groups == 0 else rows * torch.arange(1, n_groups + 1).view(-1, 1, 1)
    found = network.scores(rows)
    monkeypatch.setattr(BinnedAffine, "fewest", 1000)
    torch.testing.assert_close(found, network.scores(rows), rtol=1e-5, atol=1e-5)


def test_borders_that_units_find_late():
    """Stripes along one column of three."""
    rng = np.random.default_rng(0)
    data = rng.uniform(size=(1200, 3))
    stripes = (data[:, 1] * 8).astype(int) % 2
    scores = [
        mlp(max_iter=30, n_bins=16, numeric_embedding=kind).fit(data[:600], stripes[:600])
        for kind in ("piecewise", None)
    ]
    with_bins, without = (model.score(data[600:], stripes[600:]) for model in scores)
    assert with_bins > 0.9 > without + 0.1


# ---- edges -----------------------------------------------------------------------------------------------------------


def test_edges_are_quantiles():
    values = np.random.default_rng(0).normal(size=(1001, 2))
    expected = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=0, method="inverted_cdf").T
    np.testing.assert_array_equal(edges_of(values), expected)
    np.testing.assert_array_equal(edges_of(values, np.full(1001, 0.1)), expected)
    expected = np.quantile(values, [0, 0.15, 0.4, 0.65, 1], axis=0, method="inverted_cdf").T
    np.testing.assert_array_equal(edges_of(values, shift=-0.4), expected)


def test_weights_are_repetitions_in_the_edges():
    repeated = np.repeat(X, WEIGHT.astype(int), axis=0)
    np.testing.assert_array_equal(edges_of(X, WEIGHT), edges_of(repeated))


def test_few_values_have_few_bins():
    values = np.column_stack([np.arange(60) % 3, np.full(60, 5.0), np.r_[np.zeros(50), np.ones(10)]]).astype(float)
    np.testing.assert_array_equal(edges_of(values), [[0, 1, 2, 2, 2], [5] * 5, [0, 1, 1, 1, 1]])
    missing = np.where(np.arange(60)[:, None] % 2 == 0, np.nan, values)
    np.testing.assert_array_equal(edges_of(missing)[:2], [[0, 1, 2, 2, 2], [5] * 5])
    np.testing.assert_array_equal(edges_of(np.full((4, 1), np.nan)), np.zeros((1, 5)))


def test_which_edges_are_all_values():
    """Five values in four bins, however rare; six; six of which one has no weight; and five with missing ones."""
    five, six = np.r_[np.zeros(50), np.arange(5)], np.r_[np.zeros(49), np.arange(6)]
    holes = np.where(np.arange(55) < 9, np.nan, five)
    values, weight = np.column_stack([five, six, holes]), np.ones(55)
    edges, are_values = bins_of(values)
    np.testing.assert_array_equal(edges[[0, 2]], [np.arange(5)] * 2)
    assert are_values.tolist() == [True, False, True]
    weight[-1] = 0
    edges, are_values = bins_of(values, weight)
    np.testing.assert_array_equal(edges, [[0, 1, 2, 3, 3], np.arange(5), [0, 1, 2, 3, 3]])
    assert are_values.all()


def test_columns_of_few_values_are_half_of_all():
    values = np.column_stack([np.arange(90) % k for k in (2, 7, 40, 90)]).astype(float)
    values[4::7, 1] = np.nan
    rows = DenseRows(torch.from_numpy(values), torch.device("cpu"), torch.float64)
    assert bins_between_values(rows, None, 4, 8) == 5
    assert bins_between_values(rows, None, 4, 4) == 0  # the second column has more
    assert bins_between_values(rows, None, 3, 39) == 39
    assert bins_between_values(rows, None, 1, 8) == 0  # a single bin is a line
    assert bins_between_values(rows, np.arange(5, 9), 4, 8) == 3
    assert bins_between_values(rows, None, 0, 8) == 0


@pytest.mark.parametrize(("n_rows", "n_values", "expected"), [(300, 5, 4), (300, 9, 8), (300, 10, 0), (30, 5, 0)])
def test_few_rows_of_few_values_have_bins_between_all(n_rows, n_values, expected):
    """Rows of weight zero are not there, and a row of weight 2 is two."""
    rng = np.random.default_rng(0)
    data = np.column_stack([rng.permutation(n_rows) % n_values, rng.normal(size=n_rows)])
    target = (data[:, 0] > 1).astype(int)
    model = MLPClassifierTorch((4,), max_iter=1, random_state=0).fit(data, target)
    assert model.coefs_[0].shape[0] == 2 * (1 + expected)
    member = (
        MLPEnsembleClassifier(2, (4,), max_iter=1, calibration=None, random_state=0).fit(data, target).estimators_[0]
    )
    assert member.n_bins == max(2, expected)
    twice = clone(model).fit(np.tile(data, (2, 1)), np.tile(target, 2))
    others, weight = rng.normal(size=(9, 2)), np.append(np.full(n_rows, 2.0), np.zeros(9))
    weighted = clone(model).fit(np.vstack([data, others]), np.append(target, [0] * 9), sample_weight=weight)
    assert weighted.coefs_[0].shape == twice.coefs_[0].shape


def test_bins_start_as_they_did_where_training_goes_on():
    """Later parts have other values, or none: that changes no size."""
    rng = np.random.default_rng(0)
    data = np.column_stack([rng.integers(4, size=600), rng.normal(size=600), rng.normal(size=600)]).astype(float)
    target = (data[:, 0] == 1) ^ (data[:, 1] > 0)
    model = mlp(max_iter=3).fit(data, target)
    assert model.bin_starts_.tolist() == [np.inf, 4.0, 4.0] and model.bin_edges_.shape == (3, 5)
    fifth = np.array([[4.5, model.bin_edges_[1, 0], np.nan], [0.0, 0.0, 0.0]])
    coef = model.coefs_[0].copy()
    model.partial_fit(fifth, [0, 1])
    assert model.bin_starts_.tolist() == [np.inf, 4.0, 4.0] and np.abs(model.coefs_[0] - coef).max() < 0.1
    del model.bin_starts_  # as one that was saved by an earlier version
    assert model.partial_fit(fifth, [0, 1]).bin_starts_.tolist() == [4.0] * 3


def test_codes_of_categories_are_told_apart():
    """Which code a column has matters, and the order of codes does not."""
    rng = np.random.default_rng(0)
    data = rng.integers(6, size=(3000, 30))
    effects = rng.permuted(np.tile(np.arange(6.0), (30, 1)), axis=1)
    target = effects[np.arange(30), data].sum(1) > 75
    model = MLPClassifierTorch(random_state=0).fit(data[:1000], target[:1000])
    assert model.score(data[1000:], target[1000:]) > 0.75  # .66 where bins began small
    model.fit(data[:400], target[:400])
    assert model.score(data[1000:], target[1000:]) > 0.64  # .58 without bins


def test_bins_too_narrow_for_single_precision_are_none():
    edges = np.array([[[0.0, 1e-9, 1.0, 1.0 + 1e-6, 2.0]]])
    columns = Standardization(None, torch.ones(1, 1, 1), NONE, edges=edges)
    np.testing.assert_array_equal(columns.bins.slope[0, 0] > 0, [True, True, False, True])
    rows = columns._rows(torch.tensor([[1.0 + 2e-7], [-3.0], [0.5], [5.0]]))
    np.testing.assert_allclose(
        rows[:, 1:], np.array([[1, 1, 0, -1], [-1, -1, 0, -1], [1, 0, 0, -1], [1, 1, 0, 1]]), atol=1e-6
    )


def test_columns_with_a_single_bin_have_none_and_do_not_count():
    """Each model by its own edges: the first has bins in one column, the second in both."""
    edges = np.array([[[0.0, 1.0, 2.0], [0.0, 0.0, 1.0]], [[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]]])
    columns = Standardization(None, torch.ones(1, 1, 2), NONE, edges=edges, start=np.full((2, 2), 0.8))
    rows = torch.tensor([[0.5, 0.25], [3.0, 1.0]])
    bins = columns._rows(rows.expand(2, -1, -1))[..., 2:]
    expected = [[[0.0, -0.5, 0, 0], [0.5, 0.5, 0, 0]], [[0.0, -0.4, 0.0, -0.4], [0.4, 0.4, 0.4, 0.4]]]
    np.testing.assert_allclose(bins, expected, atol=1e-7)
    for model in range(2):
        alone = columns.select(np.array([model]))
        np.testing.assert_array_equal(alone._rows(rows)[..., 2:].reshape(2, 4), bins[model])
        coef = np.ones((3, 6))
        weight, _ = alone.folded(0, coef, np.zeros(3), np.float64)
        np.testing.assert_allclose(weight[0], [1, 1, *[0.5 if model == 0 else 0.4] * 4])  # of bins from -1 to 1


def test_bins_of_all_values_are_of_full_size():
    """In the second model those of the first column, with the same edges."""
    edges, start = np.array([[[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]]] * 2), np.array([[0.2, 0.2], [np.inf, 0.2]])
    columns = Standardization(None, torch.ones(1, 1, 2), NONE, edges=edges, start=start)
    bins = columns._rows(torch.tensor([[3.0, -1.0]]).expand(2, -1, -1))[:, 0, 2:]
    np.testing.assert_allclose(bins, [[0.1, 0.1, -0.1, -0.1], [0.5, 0.5, -0.1, -0.1]])
    for model in range(2):
        alone = columns.select(np.array([model]))
        np.testing.assert_array_equal(alone._rows(torch.tensor([[3.0, -1.0]]))[..., 2:].flatten(), bins[model])
        weight, _ = alone.folded(0, np.ones((1, 6)), np.zeros(1), np.float64)
        np.testing.assert_allclose(weight[0], [1, 1, *bins[model].abs().tolist()])


def table(n_rows, n_columns):
    data = np.random.default_rng(0).normal(size=(n_rows, n_columns))
    return data, (data[:, 0] > 0.3).astype(int)


@pytest.mark.parametrize("make", [MLPEnsembleClassifier, MLPEnsembleRegressor])
def test_ensembles_have_bins_by_default(make):
    member = make(2, (4,), max_iter=1, random_state=0).fit(X, Y).estimators_[0]
    assert member.bin_edges_.shape == (13, 3) and member.column_factors_.shape == (26,)
    assert (member.numeric_embedding, member.n_bins) == ("piecewise", 2)  # alone, it would have as many


def test_a_classifier_has_bins_by_default_where_they_pay():
    data, target = table(512, 3)
    plain = MLPClassifierTorch((4,), max_iter=1, random_state=0)
    assert plain.fit(data, target).bin_edges_.shape == (3, 5)
    edges = plain.bin_edges_
    going_on = plain.set_params(warm_start=True).fit(data[:100], target[:100])  # the model decides, not the rows
    np.testing.assert_array_equal(going_on.bin_edges_, edges)
    np.testing.assert_array_equal(going_on.partial_fit(data[:9], target[:9]).bin_edges_, edges)
    with pytest.raises(ValueError, match="n_bins"):
        going_on.set_params(n_bins=7).fit(data, target)
    for without in ({"standardize": False}, {"hidden_layer_sizes": ()}):
        assert not hasattr(clone(plain).set_params(**without).fit(data, target), "bin_edges_")
    in_parts = clone(plain).set_params(n_bins=4).partial_fit(data, target, classes=[0, 1])
    assert not hasattr(in_parts.partial_fit(data, target), "bin_edges_")


def test_of_many_rows_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(bins, "_SAMPLE_ROWS", 500)
    values = np.random.default_rng(0).uniform(size=(20_000, 1))
    assert np.abs(edges_of(values)[0] - [0, 0.25, 0.5, 0.75, 1]).max() < 0.06
    assert len(np.intersect1d(edges_of(values), edges_of(values[:500]))) < 5


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_models_of_a_stack_are_what_they_are_alone():
    members = [mlp(alpha=alpha, random_state=seed) for alpha, seed in ((0.01, 0), (1.0, 1), (0.1, 0))]
    assert fit_stack(members, HOLES, Y, WEIGHT) == [None] * 3
    for member in members:
        alone = clone(member).fit(HOLES, Y, WEIGHT)
        np.testing.assert_allclose(member.coefs_[0], alone.coefs_[0], atol=1e-10)
        np.testing.assert_array_equal(member.bin_edges_, alone.bin_edges_)


@pytest.mark.parametrize("data", [X, X.astype(np.float32)], ids=["double", "single"])
def test_members_of_an_ensemble_have_edges_of_their_own(data, monkeypatch):
    """Those of the rows that a member is trained on, which are shifted by its place among the members."""
    ensemble = MLPEnsembleClassifier(
        4, (8,), max_iter=4, batch_size=40, numeric_embedding="piecewise", n_bins=5, calibration=None, random_state=0
    )
    ensemble.fit(data, Y)
    assert len({member.bin_edges_.tobytes() for member in ensemble.estimators_}) > 1
    gaps = [np.abs(member.predict_proba(data) - ensemble.oof_proba_).max(1) for member in ensemble.estimators_]
    fold, tolerance = np.argmin(gaps, 0), 1e-10 if data.dtype == np.float64 else 1e-4
    for k, member in enumerate(ensemble.estimators_):
        rest, own, shift = fold != k, fold == k, (k + 0.5) / 4 - 0.5
        np.testing.assert_array_equal(member.bin_edges_, edges_of(data[rest], n_bins=5, shift=shift).astype(data.dtype))
        monkeypatch.setattr("skdeep.fitting.fit.Member", partial(Member, shift=shift))
        alone = clone(member).fit(data[rest], Y[rest], X_val=data[own], y_val=Y[own])
        np.testing.assert_array_equal(member.bin_edges_, alone.bin_edges_)
        np.testing.assert_allclose(member.coefs_[0], alone.coefs_[0], atol=tolerance)
    mean = np.mean([member.predict_proba(data) for member in ensemble.estimators_], axis=0)
    np.testing.assert_allclose(ensemble.predict_proba(data), mean, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"max_grad_norm": 0.01}], ids=["-", "lbfgs", "clipped"])
def test_bins_that_are_none_are_not_trained(options):
    """Members that lack a rare value have fewer bins, and are what they are alone."""
    of_stack = {"max_iter": 5, "batch_size": 40, "numeric_embedding": "piecewise", "n_bins": 4, "calibration": None}
    ensemble = MLPEnsembleClassifier(3, (8,), random_state=0, **(of_stack | options)).fit(CODES, CODES[:, 3] > 1)
    gaps = [np.abs(member.predict_proba(CODES) - ensemble.oof_proba_).max(1) for member in ensemble.estimators_]
    for k, member in enumerate(ensemble.estimators_):
        own = np.argmin(gaps, 0) == k
        n_bins = [0, 2, 0 if own[7] else 2, 4]
        np.testing.assert_array_equal((member.coefs_[0][4:] != 0).any(1), [b < n for n in n_bins for b in range(4)])
        alone = clone(member).fit(CODES[~own], CODES[~own, 3] > 1, X_val=CODES[own], y_val=CODES[own, 3] > 1)
        np.testing.assert_allclose(member.coefs_[0], alone.coefs_[0], atol=1e-10)
        np.testing.assert_allclose(member.column_factors_, alone.column_factors_, atol=1e-10)


def test_a_search_has_the_edges_of_each_split():
    grid = {"alpha": [0.01, 1.0]}
    search = GridSearchCV(mlp(), grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    for alpha, mean in zip(grid["alpha"], search.cv_results_["mean_test_score"], strict=True):
        own = GridSearchCV(mlp(), {"alpha": [alpha]}, cv=3, scoring="neg_log_loss").fit(X, Y)
        assert own.best_score_ == pytest.approx(mean, abs=1e-10)


def test_weights_are_repetitions():
    index = np.repeat(np.arange(len(Y)), WEIGHT.astype(int))
    options = {"batch_size": 1000, "max_iter": 20}
    weighted = mlp(**options).fit(X, Y, sample_weight=WEIGHT)
    repeated = mlp(**options).fit(X[index], Y[index])
    np.testing.assert_allclose(weighted.decision_function(X), repeated.decision_function(X), atol=1e-9)


# ---- more training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "target"), [(HOLES, Y), (CODES, CODES[:, 3] > 1)], ids=["holes", "codes"])
def test_training_goes_on_where_it_was(data, target):
    params = {"learning_rate": "constant", "tol": 0.0, "n_iter_no_change": np.inf}
    once = mlp(**params, max_iter=10).fit(data, target)
    twice = mlp(**params, warm_start=True).fit(data, target).fit(data, target)
    np.testing.assert_allclose(twice.coefs_[0], once.coefs_[0], rtol=1e-8)


def test_another_embedding_does_not_go_on():
    twice = mlp(warm_start=True).fit(HOLES, Y)
    for changed in ({"n_bins": 5}, {"numeric_embedding": None}):
        with pytest.raises(ValueError, match="numeric_embedding, n_bins"):
            clone(twice).set_params().fit(HOLES, Y).set_params(**changed).fit(HOLES, Y)
    again = twice.set_params(warm_start=False, numeric_embedding=None).fit(HOLES, Y)
    assert not hasattr(again, "bin_edges_") and again.coefs_[0].shape[0] == 15


@pytest.mark.parametrize("data", [X, HOLES], ids=["plain", "missing"])
def test_columns_stand_still_far_beyond_their_edges(data):
    model = mlp().fit(data, Y)
    far = np.where(np.isnan(data), data, data + 1e3 * np.ptp(X, axis=0) * (-1) ** np.arange(X.shape[1]))
    farther = np.where(np.isnan(data), data, data + 1e6 * np.ptp(X, axis=0) * (-1) ** np.arange(X.shape[1]))
    scores = model.decision_function(far)
    np.testing.assert_allclose(scores, by_hand(model, far), atol=1e-7)
    np.testing.assert_allclose(model.decision_function(farther), scores, rtol=1e-6)
    from_torch = model.to_torch().scores(torch.from_numpy(farther)).detach().numpy()
    np.testing.assert_allclose(from_torch, scores, rtol=1e-6)


def test_a_column_whose_values_are_all_the_same_has_no_ends():
    data = np.column_stack([X, np.zeros(len(X))])
    model = mlp(standardize=False, batch_size=200).partial_fit(data / 100, Y, classes=[0, 1, 2])
    data[:, -1] = 100 * Y
    model.partial_fit(data / 100, Y)
    np.testing.assert_allclose(model.decision_function(data / 100), by_hand(model, data / 100), atol=1e-7)


def test_rows_far_beyond_all_others_are_predicted_within_reason():
    """One value in a hundred is fifty times too large: along a line, the mean of members had an R² of -.54."""
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(1600, 6))
    y = columns[:, 0] * columns[:, 1] + np.sin(2 * columns[:, 2]) + columns[:, 3] + 0.3 * rng.normal(size=1600)
    columns = np.where(rng.random(columns.shape) < 0.01, 50 * columns, columns)
    assert MLPEnsembleRegressor(random_state=0).fit(columns[:100], y[:100]).score(columns[100:], y[100:]) > 0.1


def test_parts_have_the_bins_of_the_first():
    model, shuffled = mlp(learning_rate_init=0.03, alpha=0.01), np.random.default_rng(0).permutation(len(Y))
    for k in range(24):
        part = shuffled[k % 3 :: 3]
        model.partial_fit(X[part], Y[part], classes=[0, 1, 2])
        if k == 0:
            first = model.bin_edges_
    np.testing.assert_array_equal(model.bin_edges_, first)
    np.testing.assert_allclose(model.decision_function(X), by_hand(model, X), atol=1e-9)
    assert model.score(X, Y) > 0.9


# ---- which columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
def test_categories_have_no_bins(standardize):
    pandas = pytest.importorskip("pandas")
    kinds = np.array(["p", "q", "r"])[np.arange(len(Y)) % 3]
    frame = pandas.DataFrame({"a": X[:, 0], "kind": kinds, "b": X[:, 6]})
    model = mlp(categorical_features=["kind"], standardize=standardize).fit(frame, Y)
    np.testing.assert_array_equal(model.encoded_features_[: len(model.bin_edges_)], ["a", "b"])
    assert model.coefs_[0].shape[0] == 2 + 3 + 2 * 4
    columns = np.column_stack([X[:, 0], X[:, 6], *(kinds == kind for kind in "pqr")])
    np.testing.assert_allclose(model.decision_function(frame), by_hand(model, columns), atol=1e-6)


def test_sparse_columns_stay_as_they_are():
    data = sparse.csr_array(np.where(np.median(X, 0) < X, X, 0))
    with pytest.raises(ValueError, match="needs a dense X"):
        mlp().fit(data, Y)
    model = mlp(numeric_embedding="auto").fit(data, Y)
    plain = mlp(numeric_embedding=None).fit(data, Y)
    np.testing.assert_array_equal(model.coefs_[0], plain.coefs_[0])
    assert not hasattr(model, "bin_edges_")


@pytest.mark.parametrize("data", [X, HOLES], ids=["plain", "missing"])
@pytest.mark.parametrize(
    "model", [BASE, MLPEnsembleClassifier(2, (4,), max_iter=2, random_state=0)], ids=["network", "ensemble"]
)
def test_sparse_rows_of_dense_columns(model, data):
    """Whoever has trained on dense rows is asked about, and judged by, sparse ones."""
    rows = sparse.csr_array(X)
    by_dense, by_sparse = (clone(model).fit(data, Y, X_val=known, y_val=Y) for known in (X, rows))
    np.testing.assert_allclose(by_sparse.validation_loss_curve_, by_dense.validation_loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(by_sparse.predict_proba(rows), by_dense.predict_proba(X), rtol=1e-12)


def test_training_does_not_go_on_with_sparse_rows():
    data, target = table(520, 3)
    model = mlp(numeric_embedding="auto", n_bins="auto").fit(data, target)
    with pytest.raises(ValueError, match="goes on with bins of dense columns, and X is sparse"):
        model.partial_fit(sparse.csr_array(data), target)


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "expected"),
    [
        (510, 2, 0),
        (512, 2, 4),
        (1023, 2, 7),
        (9000, 1, 16),
        (4000, 16, 16),
        (4000, 17, 15),
        (4000, 63, 4),
        (4000, 64, 0),
    ],
)
def test_as_many_bins_as_there_is_room_for(n_rows, n_columns, expected):
    data, _ = table(n_rows, n_columns)
    automatic = mlp(numeric_embedding="auto", n_bins="auto", max_iter=1, batch_size="auto")
    model = automatic.fit(data, np.arange(n_rows) % 2)
    assert model.coefs_[0].shape[0] == n_columns * (1 + expected)
    half = slice(n_rows // 2)
    weighted = clone(automatic).fit(data[half], np.arange(n_rows // 2) % 2, sample_weight=np.full(n_rows // 2, 2.0))
    assert weighted.coefs_[0].shape == model.coefs_[0].shape


@pytest.mark.parametrize("wrong", [{"numeric_embedding": "periodic"}, {"n_bins": 1}, {"n_bins": 2.5}])
def test_what_is_no_embedding_is_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mlp(**wrong).fit(X, Y)
