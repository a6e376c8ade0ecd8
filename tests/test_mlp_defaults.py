"""The defaults of MLPClassifierTorch as rules of rows, columns and classes."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from skdeep import MLPClassifierTorch, MLPEnsembleClassifier
from skdeep.fitting.courses import epochs_by_size, of_classes
from skdeep.model_selection import GridSearchCV

#: Rows, columns and classes, and the epochs that they are worth.
SIZES = {
    "a hundred rows": ((100, 4, 3), 10),
    "digits": ((1_797, 64, 10), 10),
    "many letters": ((20_000, 16, 26), 60),
    "two classes": ((20_000, 10, 2), 25),
    "one score for two classes": ((20_000, 10, 1), 25),
    "images": ((20_000, 784, 10), 10),
    "many rows of few columns": ((200_000, 3, 2), 60),
    "many rows of many columns": ((200_000, 300, 2), 15),
    "many images": ((200_000, 784, 10), 20),
    "no column": ((50, 0, 2), 10),
}


def table(n_rows, n_columns, n_classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_columns))
    return X, np.argmax(X[:, :1] + 0.1 * rng.standard_normal((n_rows, n_classes)), axis=1)


@pytest.mark.parametrize(("size", "epochs"), SIZES.values(), ids=SIZES)
def test_epochs_by_size(size, epochs):
    assert epochs_by_size(*size) == epochs


@pytest.mark.parametrize(
    ("size", "n_hidden", "rate"),
    [
        ((100, 4, 3), 1, 0.08 / 10**0.5),
        ((100, 4, 3), 0, 0.08 / 10**0.5),  # softmax regression
        ((100, 4, 3), 2, 0.04 / 10**0.5),
        ((200_000, 3, 2), 1, 0.08 / 60**0.5),
        ((1_000, 400, 2), 1, 0.04 / 10**0.5),
    ],
)
def test_rates_by_size(size, n_hidden, rate):
    n_rows, n_columns, n_classes = size
    course = of_classes(SimpleNamespace(n_rows=n_rows, source=np.empty((0, n_columns))), n_classes, n_hidden)
    assert course.decisions["auto_rate"] == pytest.approx(rate, rel=1e-12)
    assert course.decisions["averages"]
    assert course.steps == 80


def test_a_fit_has_the_epochs_of_its_size():
    X, y = table(6_000, 2, 4)  # 0.4 √12 000
    assert MLPClassifierTorch((2,)).fit(X, y).n_iter_ == 44
    assert MLPClassifierTorch((2,)).fit(X[:1000], y[:1000]).n_iter_ == 18
    assert MLPClassifierTorch((2,), max_iter=7).fit(X, y).n_iter_ == 7
    assert MLPClassifierTorch((2,), learning_rate_init=0.02, max_iter=70).fit(X[:3000], y[:3000]).n_iter_ == 60
    assert MLPEnsembleClassifier().max_iter == 60  # whose schedule is its own


def test_two_classes_are_as_many_with_one_score_or_two():
    X, y = table(4_000, 1, 2)  # 0.4 √8000
    assert MLPClassifierTorch((2,)).fit(X, y).n_iter_ == 36
    assert MLPClassifierTorch((2,)).fit(X, np.eye(2, dtype=int)[y]).n_iter_ == 36


def test_a_search_trains_for_the_epochs_of_its_folds():
    X, y = table(4_000, 2, 4)
    splits = list(StratifiedKFold(2).split(X, y))
    search = GridSearchCV(MLPClassifierTorch((2,), random_state=0), {"alpha": [0.1, 1.0]}, cv=splits).fit(X, y)
    assert search.best_estimator_.n_iter_ == 36  # 0.4 √8000
    for k, (train, test) in enumerate(splits):
        alone = MLPClassifierTorch((2,), alpha=1.0, random_state=0).fit(X[train], y[train])
        assert alone.n_iter_ == 25  # 0.4 √4000
        assert alone.score(X[test], y[test]) == pytest.approx(search.cv_results_[f"split{k}_test_score"][1], abs=1e-12)
