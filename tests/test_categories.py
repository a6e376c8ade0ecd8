"""Categorical columns: as indicators in front of the classifier would be, whatever the table is made of."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from sklearn import model_selection as theirs
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from skdeep import (
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    MLPRegressorTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.data import categories
from skdeep.data.encoding import encode
from skdeep.data.state import RandomSource, TrainingState
from skdeep.fitting.input_columns import columns_for, standardization_for
from skdeep.fitting.recipe import Member
from skdeep.model_selection import GridSearchCV

N = 120
RANDOM = np.random.default_rng(0)
CITY = RANDOM.choice(["Rome", "Oslo", "Bern"], N)
SIZE = np.round(RANDOM.normal(size=N), 3)
GRADE = RANDOM.integers(1, 4, N)
Y = np.where((CITY == "Rome") ^ (SIZE > 0.3 * GRADE), "yes", "no")
FRAME = pd.DataFrame({"city": pd.Categorical(CITY), "size": SIZE, "grade": pd.Categorical(GRADE), "flag": SIZE > 1})
NAMES = ["size", "flag", "city_Bern", "city_Oslo", "city_Rome", "grade_1", "grade_2", "grade_3"]

SHORT = {"max_iter": 5, "random_state": 0}


def module(n_features, n_outputs):
    return torch.nn.Linear(n_features, n_outputs)


MODELS = {
    "softmax": SoftmaxClassifier(random_state=0),
    "softmax, steps": SoftmaxClassifier(solver="sgd", **SHORT),
    "hinge": HingeClassifier(random_state=0),
    "least squares": LeastSquaresClassifier(),
    "sigmoid": SigmoidClassifier(random_state=0),
    "mlp": MLPClassifierTorch((8,), **SHORT),
    "ensemble": MLPEnsembleClassifier(hidden_layer_sizes=(8,), n_estimators=3, **SHORT),
    "module": TorchClassifier(module, **SHORT),
}
quiet = pytest.mark.filterwarnings("ignore:The scores of rows")


def answer(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.decision_function(X)


@quiet
@pytest.mark.parametrize("name", MODELS)
def test_as_an_encoder_in_front(name, monkeypatch):
    monkeypatch.setattr(categories.Categories, "indicators", slice(0, 0))  # of one scale with all other columns
    model = clone(MODELS[name]).fit(FRAME, Y)
    assert list(model.encoded_features_) == NAMES
    assert model.n_features_in_ == 4 and list(model.feature_names_in_) == list(FRAME.columns)
    encoder = make_column_transformer(("passthrough", ["size", "flag"]), (OneHotEncoder(), ["city", "grade"]))
    as_numbers = FunctionTransformer(np.asarray, kw_args={"dtype": float})
    in_front = make_pipeline(encoder, as_numbers, clone(MODELS[name])).fit(FRAME, Y)
    np.testing.assert_allclose(answer(model, FRAME), answer(in_front, FRAME), rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(FRAME), model.predict(FRAME))


def test_a_rare_level_is_worth_no_more_than_a_frequent_one():
    """Behind a scaler, its indicator would be huge where it is one; so would be what a model makes of a few rows."""
    frame = FRAME[["city", "grade"]]
    table = OneHotEncoder(sparse_output=False).fit_transform(frame)
    model = SoftmaxClassifier(tol=1e-10).fit(frame, Y)
    plain = SoftmaxClassifier(alpha=1 / N, tol=1e-10).fit(table, Y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-6)
    # a network's first layer has levels as they are, numbers by their deviation, and a flag as if it were balanced
    mlp = MLPClassifierTorch((8,), column_learning_rate=0, **SHORT)
    problem = encode([mlp], FRAME, Y, None, going_on=False, incremental=False)
    problem = problem.placed(torch.device("cpu"), torch.float64)
    members = [Member(mlp, TrainingState(RandomSource(0)))]
    columns = standardization_for(mlp, problem, columns_for(mlp, problem, 0), members, False)
    np.testing.assert_allclose(columns.scale.ravel(), [1 / SIZE.std(), 2.0, *[1] * 6])


TABLES = {
    "pandas text": FRAME.assign(city=pd.Series(CITY, dtype=object)),
    "pandas string": FRAME.assign(city=pd.Series(CITY, dtype="string")),
    "arrow string": FRAME.assign(city=pd.Series(CITY, dtype=pd.ArrowDtype(pa.string()))),
    "pandas nullable": FRAME.assign(grade=pd.Series(GRADE, dtype="Int64"), flag=pd.Series(SIZE > 1, dtype="boolean")),
    "Polars": pl.DataFrame({"city": CITY, "size": SIZE, "grade": GRADE, "flag": SIZE > 1}),
    "Polars Categorical": pl.DataFrame({"city": CITY, "size": SIZE, "grade": GRADE, "flag": SIZE > 1}).with_columns(
        pl.col("city").cast(pl.Categorical)
    ),
}
TABLES["arrow dictionary"] = TABLES["arrow string"].assign(
    city=TABLES["arrow string"]["city"].astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())))
)


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("wanted", [["city", "grade"], [0, 2], np.array([True, False, True, False])])
def test_columns_that_a_list_names(kind, wanted):
    expected = SoftmaxClassifier(random_state=0).fit(FRAME, Y)
    model = SoftmaxClassifier(random_state=0, categorical_features=wanted).fit(TABLES[kind], Y)
    assert list(model.encoded_features_) == NAMES
    np.testing.assert_allclose(model.predict_proba(TABLES[kind]), expected.predict_proba(FRAME), rtol=1e-12)


def test_dtypes_of_categories():
    enum = TABLES["Polars"].with_columns(pl.col("city").cast(pl.Enum(["Oslo", "Rome", "Bern", "Paris"])))
    for table in (TABLES["Polars Categorical"], TABLES["arrow dictionary"], enum):
        if hasattr(table, "iloc"):
            table = table.assign(grade=GRADE)
        model = SoftmaxClassifier(random_state=0).fit(table, Y)
        assert list(model.encoded_features_) == ["size", "grade", "flag", "city_Bern", "city_Oslo", "city_Rome"]


def test_array_of_codes():
    X = np.column_stack([SIZE, GRADE])
    model = SoftmaxClassifier(random_state=0, categorical_features=[1]).fit(X, Y)
    assert list(model.encoded_features_) == ["x0", "x1_1.0", "x1_2.0", "x1_3.0"] and model.n_features_in_ == 2
    # a number is a number without it
    assert not hasattr(SoftmaxClassifier(random_state=0).fit(X, Y), "encoded_features_")


def test_columns_whose_names_would_be_the_same_say_more():
    two = np.where(SIZE > 0, "b_c", "d")
    columns = {"a": two, "a_b": np.where(GRADE > 1, "c", "d"), "a_d": SIZE}
    columns["n"] = np.array([1, "1", None, "missing"], dtype=object)[np.arange(N) % 4]
    model = SoftmaxClassifier(random_state=0, categorical_features=["a", "a_b", "n"]).fit(pd.DataFrame(columns), Y)
    assert list(model.encoded_features_) == [
        "a_d",
        "a_'b_c' (column 0)",
        "a_'d' (column 0)",
        "a_b_'c' (column 1)",
        "a_b_d",
        "n_1 (column 3)",
        "n_'1' (column 3)",
        "n_'missing' (column 3)",
        "n_missing (column 3)",
    ]


def test_lists_and_sparse_matrices():
    rows = [[city, float(size)] for city, size in zip(CITY, SIZE, strict=True)]
    model = SoftmaxClassifier(random_state=0, categorical_features=[0]).fit(rows, Y)
    assert list(model.encoded_features_) == ["x1", "x0_Bern", "x0_Oslo", "x0_Rome"]
    expected = SoftmaxClassifier(random_state=0).fit(FRAME[["city", "size"]], Y).predict_proba(FRAME[["city", "size"]])
    np.testing.assert_allclose(model.predict_proba(rows), expected, rtol=1e-12)
    X = np.column_stack([SIZE, GRADE])
    dense = SoftmaxClassifier(random_state=0, categorical_features=[1]).fit(X, Y)
    of_sparse = clone(dense).fit(sparse.csr_array(X), Y)
    np.testing.assert_array_equal(of_sparse.coef_, dense.coef_)
    np.testing.assert_array_equal(dense.predict_proba(sparse.csr_array(X)), dense.predict_proba(X))


def test_levels_that_are_new_or_missing():
    model = MLPClassifierTorch((8,), **SHORT).fit(FRAME, Y)
    other = FRAME.assign(city=pd.Categorical(["Paris"] * N))
    missing = FRAME.assign(city=pd.Categorical([None] * N, categories=["Rome"]))
    np.testing.assert_array_equal(model.predict_proba(other), model.predict_proba(missing))
    gaps = FRAME.copy()
    gaps.loc[::3, "city"] = None
    gaps.loc[::4, "size"] = np.nan
    model.fit(gaps, Y)
    assert "city_missing" in model.encoded_features_ and np.isfinite(model.predict_proba(missing)).all()
    assert not np.allclose(model.predict_proba(other), model.predict_proba(missing))
    with pytest.raises(ValueError, match="column 'size'"):
        SoftmaxClassifier().fit(gaps, Y)


@pytest.mark.parametrize("convert", [lambda x: x.astype(str), lambda x: x.astype(str).astype("category")])
def test_levels_of_another_type_give_a_warning(convert, recwarn):
    """A table that was read anew may have words where numbers were: all its rows are unknown."""
    model = SoftmaxClassifier().fit(FRAME, Y)
    model.predict(FRAME.assign(grade=9, city="Wien"))  # unknown, and of the same type
    model.predict(FRAME.assign(grade=FRAME["grade"].astype(float), city=None))
    assert not recwarn
    with pytest.warns(UserWarning, match=r"Column 'grade' .* another type \('.'\) than .* \(1\)"):
        model.predict(FRAME.assign(grade=convert(FRAME["grade"])))


def test_unused_categories_are_no_columns():
    wider = FRAME.assign(city=pd.Categorical(CITY, categories=["Paris", "Rome", "Oslo", "Bern"]))
    assert list(SoftmaxClassifier().fit(wider, Y).encoded_features_) == NAMES


def test_rare_levels_share_a_column(monkeypatch):
    monkeypatch.setattr(categories, "MOST_LEVELS", 3)
    street = np.array(["a"] * 50 + ["b"] * 40 + ["c"] * 20 + ["d"] * 10)
    frame = pd.DataFrame({"street": pd.Categorical(street), "size": SIZE})
    model = SoftmaxClassifier(random_state=0).fit(frame, Y)
    assert list(model.encoded_features_) == ["size", "street_a", "street_b", "street_infrequent"]
    new = frame.assign(street=pd.Categorical(["z"] * N))
    np.testing.assert_array_equal(model.predict_proba(new), model.predict_proba(frame.assign(street=["c"] * N)))


def test_large_tables_are_sparse(monkeypatch):
    dense = SoftmaxClassifier(random_state=0, standardize=False, tol=1e-8).fit(FRAME, Y)
    monkeypatch.setattr(categories, "_DENSE_VALUES", 1)
    model = SoftmaxClassifier(random_state=0, standardize=False, tol=1e-8).fit(FRAME, Y)
    table = model._categories.joined(FRAME[["size", "flag"]].to_numpy(float), FRAME)
    assert table.format == "csr"
    np.testing.assert_array_equal(model.predict(FRAME), dense.predict(FRAME))


def test_partial_fit_knows_the_levels_of_its_first_call():
    model = SoftmaxClassifier(solver="sgd", **SHORT)
    model.partial_fit(FRAME[:60], Y[:60], classes=["no", "yes"])
    first = model.coef_.copy()
    model.partial_fit(FRAME.assign(city=pd.Categorical(["Paris"] * N)), Y)
    assert model.coef_.shape == first.shape == (1, 8)
    warm = MLPClassifierTorch((8,), warm_start=True, **SHORT).fit(FRAME, Y)
    assert warm.fit(FRAME[:80], Y[:80]).coefs_[0].shape == (8, 8)
    # a cold fit learns them anew, and forgets them
    warm.set_params(warm_start=False)
    assert len(warm.fit(FRAME[["size", "city"]], Y).encoded_features_) == 4
    assert not hasattr(warm.fit(FRAME[["size"]], Y), "encoded_features_")


def test_weights_are_repetition():
    weight = RANDOM.integers(0, 3, N)
    repeated = np.repeat(np.arange(N), weight)
    model = SoftmaxClassifier(random_state=0, tol=1e-10).fit(FRAME, Y, sample_weight=weight)
    other = SoftmaxClassifier(random_state=0, tol=1e-10).fit(FRAME.iloc[repeated], Y[repeated])
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["softmax", "softmax, steps", "mlp"])
def test_searches_stack(name):
    grid = {"alpha": [1e-3, 1e-1]}
    ours = GridSearchCV(MODELS[name], grid, cv=3).fit(FRAME, Y)
    plain = theirs.GridSearchCV(MODELS[name], grid, cv=3).fit(FRAME, Y)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-12)
    np.testing.assert_allclose(answer(ours, FRAME), answer(plain, FRAME), rtol=1e-6)


@pytest.mark.parametrize("most", [255, 3])
def test_searches_where_a_split_lacks_a_level(most, monkeypatch):
    """A level that only the test rows have is new to a fit, and no more than a column that never varied to a grid."""
    monkeypatch.setattr(categories, "MOST_LEVELS", most)
    street = np.repeat(list("abcdef"), 20)  # in order, as the splits are
    frame, grid = FRAME.assign(street=pd.Categorical(street)), {"alpha": [1e-3, 1e-1]}
    splits = [(np.flatnonzero(street != level), np.flatnonzero(street == level)) for level in "af"]
    ours = GridSearchCV(SoftmaxClassifier(random_state=0), grid, cv=splits, refit=False).fit(frame, Y)
    plain = theirs.GridSearchCV(SoftmaxClassifier(random_state=0), grid, cv=splits, refit=False).fit(frame, Y)
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-12)


@pytest.mark.parametrize(
    "wanted, said",
    [
        (["town"], "'town', which is no column of X. Its columns are"),
        ([7], "7, which is no column"),
        ([True], "mask of 1 columns, and X has 4"),
    ],
)
def test_columns_that_are_not_there(wanted, said):
    with pytest.raises(ValueError, match=said):
        SoftmaxClassifier(categorical_features=wanted).fit(FRAME, Y)


def test_no_categories():
    with pytest.raises(ValueError, match=r"'city' \(category\).*categorical_features"):
        SoftmaxClassifier(categorical_features=None).fit(FRAME, Y)
    model = SoftmaxClassifier().fit(FRAME, Y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(FRAME.rename(columns={"city": "town"}))
    with pytest.raises(ValueError, match="several columns of the same name"):
        SoftmaxClassifier().fit(pd.concat([FRAME, FRAME[["city"]]], axis=1), Y)
    with pytest.raises(ValueError, match="no level"):
        SoftmaxClassifier(categorical_features=[0]).fit(pd.DataFrame({"a": [[1], [2]] * 20, "b": SIZE[:40]}), Y[:40])


def test_as_a_module_it_takes_the_encoded_columns():
    model = SoftmaxClassifier(random_state=0).fit(FRAME, Y)
    encoder = make_column_transformer(("passthrough", ["size", "flag"]), (OneHotEncoder(), ["city", "grade"]))
    encoded = torch.from_numpy(np.asarray(encoder.fit_transform(FRAME), dtype=float))
    np.testing.assert_allclose(model.to_torch()(encoded).detach(), model.predict_proba(FRAME), atol=1e-12)


@pytest.mark.parametrize("make", [MLPClassifierTorch, MLPRegressorTorch])
def test_levels_of_a_split_are_those_of_its_training_rows(make):
    """Weights are drawn for levels that there are: of all rows, networks of a search would be others."""
    rng = np.random.default_rng(0)
    town = pd.Categorical([f"town {i}" for i in rng.integers(60, size=300)])
    X, y = pd.DataFrame({"size": rng.normal(size=300), "town": town}), rng.integers(2, size=300)
    network, grid = make(hidden_layer_sizes=(4,), **SHORT), {"alpha": [1e-3, 1.0]}
    ours, expected = (search(network, grid, cv=3).fit(X, y) for search in (GridSearchCV, theirs.GridSearchCV))
    for name in ("split0_test_score", "split1_test_score", "split2_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], expected.cv_results_[name], atol=1e-6)


def test_dictionaries_of_an_arrow_table_are_categories():
    table = pa.table({"city": pa.array(CITY.tolist()).dictionary_encode(), "size": SIZE})
    frame = pd.DataFrame({"city": pd.Categorical(CITY), "size": SIZE})
    ours, expected = SoftmaxClassifier().fit(table, Y), SoftmaxClassifier().fit(frame, Y)
    np.testing.assert_array_equal(ours.predict_proba(table), expected.predict_proba(frame))
    assert list(ours.encoded_features_) == list(expected.encoded_features_)
    words = pa.table({"city": CITY.tolist(), "size": SIZE})
    with pytest.raises(ValueError, match="no numbers: 'city'"):
        SoftmaxClassifier().fit(words, Y)
    declared = SoftmaxClassifier(categorical_features=["city"]).fit(words, Y)
    np.testing.assert_array_equal(declared.predict_proba(words), expected.predict_proba(frame))
