"""Searches whose stacks are trained by the workers of a cluster."""

from __future__ import annotations

import os
import pickle
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdeep.distributed
from skdeep import SoftmaxClassifier
from skdeep.model_selection import GridSearchCV

X, y = (array[:400] for array in load_digits(return_X_y=True))
SEARCHED = make_pipeline(StandardScaler(), SoftmaxClassifier(solver="sgd", max_iter=4, tol=1, random_state=0))
GRID = {"softmaxclassifier__alpha": [1e-4, 1e-2, 1.0]}


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


def sent(client, search):
    """Fit a search on a cluster; return it, and the bytes of each job that the workers are sent."""
    cloudpickle, sizes, submit = pytest.importorskip("cloudpickle"), [], client.submit

    def counting(function, *args, **options):
        sizes.append(len(cloudpickle.dumps((function, args, options.get("tasks")))))
        return submit(function, *args, **options)

    client.submit = counting
    try:
        with warnings.catch_warnings(), joblib.parallel_config("dask", n_jobs=-1):
            warnings.simplefilter("ignore")
            return search.fit(X, y), sizes
    finally:
        client.submit = submit


def test_dask_trains_the_stacks_of_a_search(client):
    search, sizes = sent(client, GridSearchCV(SEARCHED, GRID, cv=4))
    assert len(sizes) == 4  # a stack of each fold
    plain = theirs.GridSearchCV(SEARCHED, GRID, cv=4).fit(X, y)
    for name, values in plain.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_allclose(search.cv_results_[name], values, atol=1e-12)
    np.testing.assert_array_equal(search.predict(X), plain.predict(X))


def test_rows_are_sent_to_dask_once(client):
    """A job is as small as those of scikit-learn's own search."""
    _, ours = sent(client, GridSearchCV(SEARCHED, GRID, cv=4))
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    _, plain = sent(client, theirs.GridSearchCV(pipe, {"logisticregression__C": [0.1, 1.0]}, cv=4))
    assert max(ours) < 2 * max(plain) < X.nbytes / 10


def test_search_inside_dasks_workers(client):
    """A search in a task of joblib's stacks there as well."""
    with warnings.catch_warnings(), joblib.parallel_config("dask", n_jobs=-1):
        warnings.simplefilter("ignore")
        scores = theirs.cross_val_score(GridSearchCV(SEARCHED, GRID, cv=2), X, y, cv=2)
    assert scores.min() > 0.8


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_dask_collections_fit_as_one_table(client, kind):
    da, dd = pytest.importorskip("dask.array"), pytest.importorskip("dask.dataframe")
    weight = np.linspace(1, 2, len(y))
    softmax = SoftmaxClassifier(solver="sgd", max_iter=4, tol=1, early_stopping=True, random_state=0, device="cpu")
    if kind == "array":
        given = da.from_array(X, chunks=(150, 40)), da.from_array(y, chunks=99), da.from_array(weight, chunks=400)
        table = X
    else:
        table = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)])
        given = tuple(dd.from_pandas(part, npartitions=3) for part in (table, pd.Series(y), pd.Series(weight)))
    model = skdeep.distributed.fit(softmax, *given, client=client)
    alone = clone(softmax).fit(table, y, sample_weight=weight)
    assert not hasattr(softmax, "coef_") and "dask" not in repr(pickle.dumps(model))
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=1e-6, atol=1e-9)
    assert list(getattr(model, "feature_names_in_", [])) == list(getattr(alone, "feature_names_in_", []))
    if kind == "array":
        found = given[0].rechunk({1: -1}).map_blocks(model.predict, dtype=y.dtype, drop_axis=1)
    else:
        found = given[0].map_partitions(model.predict, meta=np.zeros(0, y.dtype))
    np.testing.assert_array_equal(np.asarray(found.compute()).ravel(), alone.predict(table))


def test_dask_collections_that_do_not_fit(client):
    da = pytest.importorskip("dask.array")
    rows = da.from_array(X, chunks=(100, 64))
    softmax = SoftmaxClassifier(random_state=0)
    with pytest.raises(ValueError, match="X has 400 rows, and y or sample_weight 399"):
        skdeep.distributed.fit(softmax, rows, da.from_array(y[:-1], chunks=100), client=client)
    with pytest.raises(ValueError, match="Dask array or data frame, got ndarray"):
        skdeep.distributed.fit(softmax, X, y, client=client)
    bad = X.copy()
    bad[350] = np.inf
    with pytest.raises(ValueError, match="infinity"):  # from the worker that has it
        skdeep.distributed.fit(
            softmax, da.from_array(bad, chunks=(100, 64)), da.from_array(y, chunks=100), client=client
        )
    # and the cluster goes on
    model = skdeep.distributed.fit(softmax, rows, da.from_array(y, chunks=100), client=client)
    assert model.score(X, y) > 0.9


@pytest.mark.slow
def test_ray_trains_the_stacks_of_a_search():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", runtime_env=paths)
        try:
            register_ray()
            with joblib.parallel_config("ray", n_jobs=2):
                search = GridSearchCV(SEARCHED, GRID, cv=2).fit(X, y)
        finally:
            ray.shutdown()
    plain = theirs.GridSearchCV(SEARCHED, GRID, cv=2).fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-12)
