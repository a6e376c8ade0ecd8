"""The defaults of MLPClassifierTorch as rules of rows, columns and classes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from skdeep import MLPClassifierTorch, MLPEnsembleClassifier, MLPRegressorTorch
from skdeep.data import categories
from skdeep.data.encoding import encode
from skdeep.engine.losses import LOSSES
from skdeep.estimators import deep
from skdeep.fitting import courses
from skdeep.fitting.courses import clean_loss, epochs_by_size, of_classes
from skdeep.fitting.recipe import Member
from skdeep.model_selection import GridSearchCV
from skdeep.model_selection.stacks import fit_stack

#: Rows, columns and classes, and the epochs that they are worth.
SIZES = {
    "a hundred rows": ((100, 4, 3), 10),
    "digits": ((1_797, 64, 10), 10),
    "many letters": ((20_000, 16, 26), 45),
    "two classes": ((20_000, 10, 2), 25),
    "one score for two classes": ((20_000, 10, 1), 25),
    "images": ((20_000, 784, 10), 10),
    "many rows of few columns": ((200_000, 3, 2), 45),
    "many rows of many columns": ((200_000, 300, 2), 15),
    "many images": ((200_000, 784, 10), 20),
    "no column": ((50, 0, 2), 10),
    "few rows of many classes": ((1000, 10, 50), 10),
    "some rows of many classes": ((3000, 10, 50), 27),
    "many rows of many classes": ((10_000, 10, 50), 45),
}


def table(n_rows, n_columns, n_classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_columns))
    return X, np.argmax(X[:, :1] + 0.1 * rng.standard_normal((n_rows, n_classes)), axis=1)


@pytest.mark.parametrize(("size", "epochs"), SIZES.values(), ids=SIZES)
def test_epochs_by_size(size, epochs):
    assert epochs_by_size(*size) == epochs


@pytest.mark.parametrize(
    ("size", "units", "rows", "rate"),
    [
        ((100, 4, 3), [100], 64, 0.4 / 80**0.5),  # 80 steps are few
        ((100, 4, 3), [], 64, 0.4 / 80**0.5),  # softmax regression
        ((100, 4, 3), [8, 8], 64, 0.2 / 80**0.5),
        ((100, 4, 3), [100], 4, 0.08 / 10**0.5),  # 250 are not
        ((200_000, 3, 2), [100], 256, 0.08 / 45**0.5),
        ((200_000, 3, 2), [100], 200_000, 0.4 / 80**0.5),
        ((1_000, 400, 2), [100], 64, 0.2 / 160**0.5),
        ((20, 4, 3), [100], 64, 0.08 / 80**0.5),  # more units than rows
        ((20, 4, 3), [40, 10], 64, 0.1 / 80**0.5),
    ],
)
def test_rates_by_size(size, units, rows, rate):
    n_rows, n_columns, n_classes = size
    problem = SimpleNamespace(n_rows=n_rows, n_observations=n_rows, source=np.empty((0, n_columns)))
    course = of_classes(problem, n_classes, units, rows)
    assert course.decisions["auto_rate"] == pytest.approx(rate, rel=1e-12)
    assert course.decisions["averages"]
    assert course.steps == 80


@pytest.mark.parametrize(("rows", "rate"), [("auto", 0.4 / 160**0.5), (10, 0.08 / 10**0.5), (1000, 0.4 / 80**0.5)])
def test_rates_are_of_the_steps_that_are_taken(rows, rate, monkeypatch):
    found = []
    monkeypatch.setattr(courses, "of_classes", lambda *args: found.append(of_classes(*args)) or found[-1])
    MLPClassifierTorch(batch_size=rows, random_state=0, max_iter=1).fit(*table(1000, 10, 2))
    assert [course.decisions["auto_rate"] for course in found] == pytest.approx([rate])


def few_steps(**params):
    """A network whose epochs are short, and of which it has all."""
    return MLPClassifierTorch((2,), batch_size=400, **{"n_iter_no_change": np.inf} | params)


def test_a_fit_has_the_epochs_of_its_size():
    X, y = table(6_000, 2, 4)  # 0.4 √12 000
    assert few_steps().fit(X, y).n_iter_ == 44
    assert MLPClassifierTorch((2,), n_iter_no_change=np.inf).fit(X[:1000], y[:1000]).n_iter_ == 18
    assert few_steps(max_iter=7).fit(X, y).n_iter_ == 7
    assert MLPClassifierTorch((2,), learning_rate_init=0.02, max_iter=70).fit(X[:1000], y[:1000]).n_iter_ == 60
    assert MLPEnsembleClassifier().max_iter == 60  # whose schedule is its own


def test_noise_is_not_trained_in_for_longer_than_it_takes():
    """Large noisy tables of few columns took up to five times MLPClassifier's seconds."""
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((6000, 2)), rng.integers(0, 2, 6000)
    options = {"n_iter_no_change": 10, "random_state": 0}
    stack = [few_steps(**options, alpha=alpha) for alpha in (1e-2, 1e-1)]
    fit_stack(stack, X, noise)
    for net in stack:
        alone = few_steps(**options, alpha=net.alpha).fit(X, noise)
        assert alone.n_iter_ == net.n_iter_ < 31  # 0.4 √6000
        assert np.allclose(alone.predict_proba(X), net.predict_proba(X), rtol=0, atol=1e-6)
    assert few_steps(random_state=0).fit(X, noise).n_iter_ == 31
    # the loss of clean rows may stand still by that measure, and has much to gain
    clean = few_steps(**options, tol=0.1).fit(X, X[:, 0] > 0)
    watched = few_steps(**options, tol=0.1, early_stopping=True).fit(X, X[:, 0] > 0)
    assert clean.n_iter_ == 44 > watched.n_iter_


def test_two_classes_are_as_many_with_one_score_or_two():
    X, y = table(4_000, 1, 2)  # 0.4 √8000
    assert few_steps().fit(X, y).n_iter_ == 36
    assert few_steps().fit(X, np.eye(2, dtype=int)[y]).n_iter_ == 36


def test_a_search_trains_for_the_epochs_of_its_folds():
    X, y = table(4_000, 2, 4)
    splits = list(StratifiedKFold(2).split(X, y))
    search = GridSearchCV(few_steps(random_state=0), {"alpha": [0.1, 1.0]}, cv=splits).fit(X, y)
    assert search.best_estimator_.n_iter_ == 36  # 0.4 √8000
    for k, (train, test) in enumerate(splits):
        alone = few_steps(alpha=1.0, random_state=0).fit(X[train], y[train])
        assert alone.n_iter_ == 25  # 0.4 √4000
        assert alone.score(X[test], y[test]) == pytest.approx(search.cv_results_[f"split{k}_test_score"][1], abs=1e-12)


def test_few_noisy_rows_are_not_learnt_by_heart():
    """Of 10 to 40 rows, log-losses were twice MLPClassifier's, and of rows that are fewer than units, many times."""
    rng, losses = np.random.default_rng(0), []
    for seed in range(8):
        X = rng.standard_normal((1020, 3))
        y = (X[:, 0] + X[:, 1] + 1.5 * rng.logistic(size=1020) > 0).astype(int)
        net = MLPClassifierTorch((400,), random_state=seed).fit(X[:20], y[:20])
        losses.append(log_loss(y[20:], net.predict_proba(X[20:])))
    assert np.mean(losses) < 1.2  # MLPClassifier has 1.62, and it was 2.86
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    assert all(MLPClassifierTorch(random_state=seed).fit(X, y).score(X, y) == 1 for seed in range(8))


@pytest.mark.filterwarnings("ignore:Maximum iterations")
@pytest.mark.parametrize("size", [8, 50, 500, "lbfgs"])
def test_the_penalty_does_not_depend_on_batches(size):
    """Of a batch of 8 rows it was eight times as strong, of all rows of a large table next to none."""
    X, y = table(200, 3, 2)
    options = {"hidden_layer_sizes": 4, "max_iter": 3, "learning_rate_init": 0.01, "random_state": 0}
    options |= {"solver": "lbfgs"} if size == "lbfgs" else {"batch_size": size}
    rows = min(size, 200) if size != "lbfgs" else 200
    alpha = 0.5 * (3 / 200) ** 0.5 * 300 / 200 * rows / 64
    auto, given = (MLPClassifierTorch(alpha=alpha, **options).fit(X, y).predict_proba(X) for alpha in ("auto", alpha))
    np.testing.assert_allclose(auto, given, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:Maximum iterations")
def test_one_light_row_does_not_make_the_others_count_as_many():
    """Where it was the unit, the others counted as a thousand rows each, enough for bins and for no penalty."""
    X, y = table(200, 3, 2)
    weight = np.where(np.arange(200) > 0, 1, 1e-3)
    auto, given = (
        MLPClassifierTorch(4, alpha=alpha, max_iter=3, learning_rate_init=0.01, random_state=0).fit(X, y, weight)
        for alpha in ("auto", 0.5 * (3 / 200) ** 0.5 * 300 / 200)
    )
    np.testing.assert_allclose(auto.predict_proba(X), given.predict_proba(X), rtol=1e-10)
    assert not hasattr(auto, "bin_edges_")


@pytest.mark.parametrize("kind", ["codes", "weights", "rows", "two classes", "labels", "probabilities"])
def test_data_is_clean_by_what_class_shares_would_lose(kind):
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 60, p=[0.2, 0.3, 0.5])
    weight = rng.uniform(0.5, 2, 60) if kind == "weights" else None
    rows = np.arange(40) if kind == "rows" else None
    target, of_classes = codes, LOSSES["log_loss"]()
    if kind in ("two classes", "labels"):
        target, of_classes = np.eye(3)[codes][:, : 1 if kind == "two classes" else 3], LOSSES["binary_log_loss"]()
    elif kind == "probabilities":
        target = rng.dirichlet(np.ones(3), 60)
    used = target if rows is None else target[rows]
    table = np.eye(3)[used] if used.ndim == 1 else used
    shares = np.average(table, axis=0, weights=weight)
    # the best scores that are the same for all rows
    scores = np.log(shares / (1 - shares)) if of_classes.target == "indicators" else np.log(shares)
    value = of_classes.value(torch.from_numpy(np.tile(scores, (len(used), 1))), torch.from_numpy(used)).numpy()
    found = clean_loss(of_classes, SimpleNamespace(target=target), Member(None, None, rows=rows, weight=weight))
    assert found == pytest.approx(0.15 * np.average(value, weights=weight), rel=1e-12)


def test_models_of_a_stack_find_out_for_themselves_whether_data_is_clean():
    X, _ = table(800, 2, 3)
    X[:, 0] += 3 * np.round(X[:, 0])
    y = np.digitize(X[:, 0], [-2, 2])
    alphas = [1e-3, 30.0, 1e-2, 100.0]  # strong penalties leave a loss
    stack = [MLPClassifierTorch((16,), alpha=alpha, random_state=0) for alpha in alphas]
    fit_stack(stack, X, y)
    assert [model.n_iter_ for model in stack] == [24, 14, 24, 14]  # 0.4 √1200, and √3 times as many
    for model in stack:
        alone = MLPClassifierTorch((16,), alpha=model.alpha, random_state=0).fit(X, y)
        assert alone.n_iter_ == model.n_iter_
        assert np.allclose(alone.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-9)


def _text(n_rows, n_columns=900, n_classes=80, n_words=8, seed=0):
    """Rows with few of many columns, a third of which speak of the class."""
    rng = np.random.default_rng(seed)
    topics, y = np.random.default_rng(1).integers(0, n_columns, (n_classes, 12)), rng.integers(0, n_classes, n_rows)
    of_topic = topics[y[:, None], rng.integers(0, 12, (n_rows, n_words))]
    words = np.where(rng.random(of_topic.shape) < 0.35, of_topic, rng.integers(0, n_columns, of_topic.shape))
    starts, values = np.arange(0, words.size + 1, n_words), np.full(words.size, n_words**-0.5)
    X = sparse.csr_array((values, words.ravel(), starts), shape=(n_rows, n_columns))
    X.sum_duplicates()
    return X, y


def test_few_words_of_many_are_learnt():
    """A penalty for as many columns as there are words kept all weights at zero: an accuracy of .015."""
    (X, y), (X_test, y_test) = _text(2000), _text(1000, seed=5)
    of_lines = LogisticRegression(max_iter=300).fit(X, y).score(X_test, y_test)
    assert MLPClassifierTorch(random_state=0).fit(X, y).score(X_test, y_test) > 0.8 * of_lines


def test_values_of_few_words_are_learnt():
    (X, _), (X_test, _) = _text(1000), _text(1000, seed=5)
    coef = np.random.default_rng(2).standard_normal(X.shape[1])
    of_lines = Ridge().fit(X, X @ coef).score(X_test, X_test @ coef)
    assert MLPRegressorTorch(random_state=0).fit(X, X @ coef).score(X_test, X_test @ coef) > of_lines


@pytest.mark.parametrize(
    ("n_rows", "times"), [(4, 4 * 300 / 64**2), (64, 300 / 64), (100, 3), (200, 1.5), (300, 1), (3000, 1)]
)
def test_few_rows_have_a_stronger_penalty(n_rows, times):
    """Without a jump at the rows of a batch, from where on it is the weaker the fewer there are."""
    member = SimpleNamespace(estimator=MLPClassifierTorch(), unit=2.0)
    batch = 2.0 * min(n_rows, 64)
    (strength,) = deep.strengths([member], np.array([2.0 * n_rows]), np.array([batch]), 10, 1)
    assert strength * batch == pytest.approx(0.5 * min(10 / n_rows, 1) ** 0.5 * times)


def test_noise_of_few_rows_is_not_learnt_by_heart():
    """As 60 rows with a fifth of the labels wrong; the log-loss was 1.6."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3060, 8))
    y = ((X[:, 0] > 0) ^ (rng.random(3060) < 0.2)).astype(int)
    found = [MLPClassifierTorch(random_state=0).fit(X[i : i + 60], y[i : i + 60]) for i in range(0, 300, 60)]
    assert np.mean([log_loss(y[300:], model.predict_proba(X[300:])) for model in found]) < 1


@pytest.mark.filterwarnings("ignore:Maximum iterations")
def test_sparse_rows_that_are_filled_have_the_penalty_of_dense_ones(monkeypatch):
    rng, n_columns = np.random.default_rng(0), set()

    def seen(members, total_weight, batch_weight, columns, share):
        n_columns.add(columns)
        return strengths(members, total_weight, batch_weight, columns, share)

    strengths = deep.strengths
    monkeypatch.setattr(deep, "strengths", seen)
    X, y = rng.random((200, 6)) * (rng.random((200, 6)) < 0.5), rng.integers(0, 2, 200)
    for rows in (X, sparse.csr_array(X)):
        MLPClassifierTorch(max_iter=2, random_state=0).fit(rows, y)
    assert n_columns == {6}


def test_levels_of_categories_are_not_as_many_columns_to_learn_by_heart(monkeypatch):
    """Of 300 levels a row has one: the penalty of as many columns left nothing of them (R² .46 for .78)."""
    rng = np.random.default_rng(1)
    effects, level, x = rng.normal(size=300), rng.integers(0, 300, 2000), rng.normal(size=2000)
    table = pd.DataFrame({"x": x, "level": pd.Categorical([f"l{i}" for i in level])})
    y = effects[level] + x + 0.3 * rng.normal(size=2000)
    model = MLPRegressorTorch(random_state=0)
    dense, *sparse_ = (counted_columns(model, table, y, monkeypatch, limit) for limit in (10**9, 0))
    assert dense == 8 and sparse_[0] == pytest.approx(8)
    assert model.fit(table[:1500], y[:1500]).score(table[1500:], y[1500:]) > 0.7


def counted_columns(model, table, y, monkeypatch, limit):
    monkeypatch.setattr(categories, "_DENSE_VALUES", limit)
    problem = encode([model], table, y, None, going_on=False, incremental=False)
    assert sparse.issparse(problem.source) == (limit == 0)
    return model._n_columns(problem)


def test_units_that_saturate_are_not_kept_from_it():
    """Of one penalty for all activations, logistic units had a log-loss of 1.045, which needs the largest weights."""
    X, y = make_classification(2000, 8, n_informative=6, n_classes=5, random_state=0)
    losses = []
    for activation in ("tanh", "logistic"):
        model = MLPClassifierTorch(activation=activation, random_state=0).fit(X[:500], y[:500])
        losses.append(log_loss(y[500:], model.predict_proba(X[500:])))
    assert losses[1] < min(losses[0], 0.95)


@pytest.mark.parametrize(("solver", "rate"), [("adam", 2), ("sgd", 1), ("lbfgs", 2)])
def test_logistic_units_are_half_of_a_tanh(solver, rate):
    """(1 + tanh(z / 2)) / 2: for the same function, weights are twice as large, and so are Adam's steps."""
    X, y = make_classification(200, 8, random_state=0)
    of_tanh, of_logistic = (
        recipe_of(MLPClassifierTorch(activation=activation, solver=solver), X, y) for activation in ("tanh", "logistic")
    )
    assert of_logistic.auto_rate == rate * of_tanh.auto_rate
    shares = [recipe.penalty.keywords["share"] for recipe in (of_tanh, of_logistic)]
    assert shares == ([1, 1] if solver == "lbfgs" else [1 / 2, 1 / 8])


def recipe_of(model, X, y):
    model._validate_params()
    return model._recipe(encode([model], X, y, None, going_on=False, incremental=False), False, False)
