"""Large tables that are made, of kinds that real ones mix: borders of trees, waves, mixtures, codes, heavy tails.

Each is (X, y), drawn from a seed of its own name; 30 % of the rows are for tests. Nothing of the package was chosen on
them but where a page of ``docs/decisions`` says so.
"""

import zlib

import numpy as np
from sklearn.datasets import make_classification


def _tree(rng, X, depth: int, n_values: int):
    """The value of the leaf of a random tree that each row falls into, one of so many."""
    if depth == 0:
        return np.full(len(X), rng.integers(n_values))
    column, share = rng.integers(X.shape[1]), rng.uniform(0.2, 0.8)
    left = X[:, column] < np.quantile(X[:, column], share) if len(X) else np.zeros(0, dtype=bool)
    values = np.empty(len(X), dtype=np.int64)
    for side in (left, ~left):
        values[side] = _tree(rng, X[side], depth - 1, n_values)
    return values


def _drawn(rng, scores):
    """Classes of softmax probabilities."""
    return np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)


def _network(rng, X, n_hidden: int, n_outputs: int):
    """Scores of a random network, of deviation one."""
    hidden = np.tanh(X @ rng.normal(size=(X.shape[1], n_hidden)) / X.shape[1] ** 0.5 * 2 + rng.normal(size=n_hidden))
    scores = hidden @ rng.normal(size=(n_hidden, n_outputs))
    return scores / scores.std()


def _one_tree(rng):
    """One deep tree without noise, 8 classes."""
    X = rng.normal(size=(60_000, 6))
    return X, _tree(rng, X, 8, 8)


def _forest(rng):
    """The sign of a sum of trees, with noise."""
    X = rng.normal(size=(50_000, 10)) @ rng.normal(size=(10, 10))
    votes = sum(2.0 * _tree(rng, X, 5, 2) - 1 for _ in range(15))
    return X, (votes + rng.normal(size=len(X)) > 0).astype(int)


def _mixture(rng):
    """20 classes of three normal distributions each, in 16 columns."""
    which = rng.integers(60, size=50_000)
    X = 1.3 * rng.normal(size=(60, 16))[which] + rng.normal(size=(50_000, 16)) * rng.uniform(0.5, 1.2, (60, 16))[which]
    return X, which % 20


def _rounded(rng):
    """A smooth function of 12 columns that are then rounded, coarsely in part, 3 classes."""
    X = rng.normal(size=(50_000, 12))
    y = _drawn(rng, 4 * _network(rng, X, 20, 3))
    return np.round(X / (step := rng.choice([0.1, 0.5, 1.0], 12))) * step, y


def _heavy_tails(rng):
    """Columns of Student's t with 1.5 degrees of freedom, of which ranks matter, 4 classes."""
    X = rng.standard_t(1.5, size=(70_000, 20))
    return X * 10.0 ** rng.integers(-3, 4, 20), _drawn(rng, 5 * _network(rng, np.arctan(2 * X), 20, 4))


def _codes(rng):
    """Categories as whole numbers that mean nothing, each with an effect of its own and with another's."""
    sizes = rng.integers(3, 40, 8)
    X = (rng.random((60_000, 8)) ** 1.5 * sizes).astype(int)
    score = sum(rng.normal(size=size)[codes] for size, codes in zip(sizes, X.T, strict=True))
    score = score + 2 * rng.normal(size=(sizes[0], sizes[1]))[X[:, 0], X[:, 1]]
    return X.astype(float), (score + rng.logistic(size=len(X)) > 0).astype(int)


def _board(rng):
    """Fields of a board in two of four columns, without noise."""
    X = rng.uniform(-1, 1, size=(50_000, 4))
    return X, (np.floor(3 * X[:, 0]) + np.floor(3 * X[:, 1])).astype(int) % 2


def _products(rng):
    """Products of pairs among 30 columns."""
    X = rng.normal(size=(50_000, 30))
    score = (rng.normal(size=8) * X[:, :8] * X[:, 8:16]).sum(1)
    return X, (2 * score + rng.logistic(size=len(X)) > 0).astype(int)


def _rare(rng):
    """A class of about two in a hundred rows, skewed columns."""
    X = np.exp(rng.normal(size=(150_000, 15)) @ rng.normal(size=(15, 15)) / 4)
    return X, (8 * _network(rng, np.log(X), 20, 1)[:, 0] - 18 + rng.logistic(size=len(X)) > 0).astype(int)


def _teacher(rng):
    """Ten classes by a network, with noise."""
    X = rng.normal(size=(200_000, 30))
    return X, _drawn(rng, 5 * _network(rng, X, 50, 10))


def _borders(rng):
    """Five classes with smooth borders, by a network without noise."""
    X = rng.normal(size=(50_000, 10))
    return X, np.argmax(_network(rng, X, 20, 5), axis=1)


def _spirals(rng):
    """Three spirals in the plane, little noise."""
    y, turn = rng.integers(3, size=45_000), rng.uniform(0.5, 3, 45_000)
    angle = 2 * np.pi * (turn + y / 3)
    return np.c_[np.cos(angle), np.sin(angle)] * turn[:, None] + 0.05 * rng.normal(size=(45_000, 2)), y


def _clusters(rng):
    """Ten classes of two clusters each, two in a hundred labels wrong, 20 columns."""
    seed = int(rng.integers(2**31))
    return make_classification(
        50_000, 20, n_informative=12, n_classes=10, n_clusters_per_class=2, flip_y=0.02, random_state=seed
    )


def _noisy(rng):
    """Clusters, a fifth of the labels wrong, 5 classes, 50 columns."""
    seed = int(rng.integers(2**31))
    return make_classification(
        100_000, 50, n_informative=15, n_classes=5, n_clusters_per_class=3, flip_y=0.2, random_state=seed
    )


def _wide(rng):
    """Clusters in 20 of 100 columns, two classes."""
    seed = int(rng.integers(2**31))
    return make_classification(
        45_000, 100, n_informative=20, n_clusters_per_class=8, class_sep=0.7, flip_y=0.02, random_state=seed
    )


_MAKERS = (
    _one_tree,
    _forest,
    _mixture,
    _rounded,
    _heavy_tails,
    _codes,
    _board,
    _products,
    _rare,
    _teacher,
    _borders,
    _spirals,
    _clusters,
    _noisy,
    _wide,
)
TABLES = {"made/" + f.__name__.strip("_"): f for f in _MAKERS}


def load(name: str):
    """Columns and class codes."""
    X, y = TABLES[name](np.random.default_rng(zlib.crc32(name.encode())))
    return X, np.unique(y, return_inverse=True)[1]
