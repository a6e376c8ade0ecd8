"""Searches whose stacks are trained by the workers of a cluster."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import forking
from joblib.parallel import ThreadingBackend
from sklearn import model_selection as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

import skdeep.distributed
from skdeep import SoftmaxClassifier
from skdeep.model_selection import GridSearchCV

X, y = (array[:400] for array in load_digits(return_X_y=True))
SEARCHED = make_pipeline(StandardScaler(), SoftmaxClassifier(solver="sgd", max_iter=4, tol=1, random_state=0))
GRID = {"softmaxclassifier__alpha": [1e-4, 1e-2, 1.0]}


@pytest.fixture(scope="module")
def client():
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")
    way = dask.config.set({"distributed.worker.multiprocessing-method": forking().get_start_method()})
    with warnings.catch_warnings(), patch.dict(os.environ), way:  # where Dask says how its workers are to use memory
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},  # with this file's folder
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


def sent(client, search, **fit_params):
    """Fit a search on a cluster; return it, and the bytes of each job that the workers are sent."""
    cloudpickle, sizes, submit = pytest.importorskip("cloudpickle"), [], client.submit

    def counting(function, *args, **options):
        sizes.append(len(cloudpickle.dumps((function, args, options.get("tasks")))))
        return submit(function, *args, **options)

    client.submit = counting
    try:
        with warnings.catch_warnings(), joblib.parallel_config("dask"):  # of which the default is all workers
            warnings.simplefilter("ignore")
            return search.fit(X, y, **fit_params), sizes
    finally:
        client.submit = submit


@pytest.mark.parametrize("cv, n_jobs", [(4, 4), (3, 4)])  # a stack of each fold, the last of three in two pieces
def test_dask_trains_the_stacks_of_a_search(client, cv, n_jobs):
    search, sizes = sent(client, GridSearchCV(SEARCHED, GRID, cv=cv))
    assert len(sizes) == n_jobs
    plain = theirs.GridSearchCV(SEARCHED, GRID, cv=cv).fit(X, y)
    for name, values in plain.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_allclose(search.cv_results_[name], values, atol=1e-12)
    np.testing.assert_array_equal(search.predict(X), plain.predict(X))


def test_rows_are_sent_to_dask_once(client):
    """A job is as small as a job of scikit-learn's own search, which sends the arguments of ``fit`` in each."""
    alphas, kept = {"alpha": [0.1, 1.0]}, {"X_val": X, "y_val": y, "sample_weight": np.linspace(1, 2, len(y))}
    _, plain = sent(client, theirs.GridSearchCV(LogisticRegression(max_iter=9), {"C": [0.1, 1.0]}, cv=4))
    for model, fit_params in ((SEARCHED[-1], {}), (SoftmaxClassifier(), {}), (SEARCHED[-1], kept)):
        _, ours = sent(client, GridSearchCV(model, alphas, cv=4), **fit_params)
        assert len(ours) == 4  # none trains here
        assert max(ours) < 2 * max(plain) < X.nbytes / 10


def test_back_ends_that_start_with_the_first_call():
    """Ray's knows no workers before."""

    class Late(ThreadingBackend):
        started = False

        def configure(self, *args, **options):
            Late.started = True
            return super().configure(*args, **options)

        def effective_n_jobs(self, n_jobs):
            if not self.started:
                raise RuntimeError("not started yet")
            return super().effective_n_jobs(n_jobs)

    with joblib.parallel_config(Late(), n_jobs=2):
        search = GridSearchCV(SEARCHED, GRID, cv=2).fit(X, y)
    assert Late.started
    plain = GridSearchCV(SEARCHED, GRID, cv=2).fit(X, y)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])


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


def unreadable(block, block_info=None):
    """Fail in the third block."""
    return 1 // 0 if block_info[0]["chunk-location"][0] == 2 else block


def test_dask_collections_that_do_not_fit(client):
    da = pytest.importorskip("dask.array")
    rows = da.from_array(X, chunks=(100, 64))
    softmax = SoftmaxClassifier(random_state=0)
    with pytest.raises(ValueError, match="X has 400 rows, and y or sample_weight 399"):
        skdeep.distributed.fit(softmax, rows, da.from_array(y[:-1], chunks=100), client=client)
    with pytest.raises(ValueError, match="Dask array or data frame, got ndarray"):
        skdeep.distributed.fit(softmax, X, y, client=client)
    labels = da.from_array(y, chunks=100)
    with pytest.raises(ValueError, match="y must be a Dask array or data frame, got ndarray"):
        skdeep.distributed.fit(softmax, rows, y, client=client)
    with pytest.raises(ValueError, match="one of skdeep's classifiers"):  # it would learn from one worker's rows
        skdeep.distributed.fit(LogisticRegression(), rows, labels, client=client)
    with pytest.raises(ZeroDivisionError):  # and the workers that have theirs do not wait for it
        skdeep.distributed.fit(softmax, rows.map_blocks(unreadable, dtype=float, meta=X[:0]), labels, client=client)
    bad = X.copy()
    bad[350] = np.inf
    with pytest.raises(ValueError, match="infinity"):  # from the worker that has it
        skdeep.distributed.fit(
            softmax, da.from_array(bad, chunks=(100, 64)), da.from_array(y, chunks=100), client=client
        )
    # and the cluster goes on
    model = skdeep.distributed.fit(softmax, rows, da.from_array(y, chunks=100), client=client)
    assert model.score(X, y) > 0.9


def test_dask_collections_fit_one_at_a_time(client):
    """Two fits at a time would each keep a worker that the other one waits for."""
    da = pytest.importorskip("dask.array")
    given = da.from_array(X, chunks=(100, 64)), da.from_array(y, chunks=100)
    softmax = SoftmaxClassifier(solver="sgd", max_iter=4, tol=1, random_state=0, device="cpu")
    with ThreadPoolExecutor(3) as threads:
        tries = [threads.submit(skdeep.distributed.fit, softmax, *given, client=client, timeout=20) for _ in range(3)]
    first, *others = [one.result().coef_ for one in tries]
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.slow
def test_dask_names_a_worker_that_is_lost(client):
    da = pytest.importorskip("dask.array")
    given = da.from_array(X, chunks=(100, 64)), da.from_array(y, chunks=100)
    softmax = SoftmaxClassifier(solver="sgd", max_iter=4, tol=1, random_state=0, device="cpu")
    for rank in (1, 0):
        client.wait_for_workers(2, timeout=30)
        kills = clone(softmax).set_params(callbacks=[Killing(sorted(client.run(os.getpid).items())[rank][1])])
        with pytest.raises(skdeep.distributed.LostProcessError, match="lost"):
            skdeep.distributed.fit(kills, *given, client=client, timeout=30)
    client.wait_for_workers(2, timeout=30)  # and the cluster goes on
    assert skdeep.distributed.fit(softmax, *given, client=client, timeout=30).score(X, y) > 0.9


class Killing(Callback):
    """Kills the process of this number."""

    def __init__(self, process):
        self.process = process

    def on_epoch_end(self, net, **options):
        if os.getpid() == self.process:
            os.kill(self.process, signal.SIGKILL)


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
