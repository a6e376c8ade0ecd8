"""Fits on Dask arrays and data frames, whose partitions stay on the workers of a cluster."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import torch.distributed as dist
from scipy import sparse

from skdeep.distributed.processes import LostProcessError, shards
from skdeep.estimators.base import BaseTorchEstimator

#: Seconds between two looks at which workers there are, and for the others to tell what they know of an error.
_LOOK, _GRACE = 2.0, 15.0


def fit(
    model: BaseTorchEstimator, X: Any, y: Any, sample_weight: Any = None, *, client: Any = None, timeout: float = 600.0
) -> BaseTorchEstimator:
    """Fit a classifier on a Dask collection, by the workers of its cluster.

    Each worker gets a run of partitions, in their order, and they fit together as in `shards`: the model is the one
    that a process would learn from all rows, up to rounding, however many workers there are. Partitions that another
    worker has computed are sent to the one that trains with them, once.

    Parameters
    ----------
    model : classifier
        One of skdeep's; it is left as it is. Steps of a pipeline would each see the rows of one worker only.
    X : dask.array.Array of shape (n_samples, n_features), or dask.dataframe.DataFrame
    y : dask.array.Array of shape (n_samples,) or (n_samples, n_labels), or dask.dataframe.Series or DataFrame
        With partitions like those that X has; an array is cut like X.
    sample_weight : like y, default=None
    client : distributed.Client, default=None
        None for the current one.
    timeout : float, default=600
        Seconds that a worker waits for others at most.

    Returns
    -------
    classifier
        A fitted copy, which knows nothing of Dask.

    Raises
    ------
    ValueError
        If the model is none of skdeep's, the collections do not fit together, there are no workers, or they are threads
        of one process. What goes wrong in a worker is raised as it is.
    LostProcessError
        If a worker is lost.

    Notes
    -----
    One fit of a cluster at a time: others wait for it. A worker needs the memory for its rows twice. On machines with
    several networks, ``GLOO_SOCKET_IFNAME`` names the one for the workers, in their environment.

    Examples
    --------
    .. code-block:: text

        model = skdeep.distributed.fit(SoftmaxClassifier(random_state=0), X, y)
        X.map_blocks(model.predict_proba, dtype=float, chunks=(X.chunks[0], (len(model.classes_),)))
        frame.map_partitions(model.predict)
    """
    from distributed import Lock, default_client

    client = default_client() if client is None else client
    if not isinstance(model, BaseTorchEstimator):
        raise ValueError(f"model must be one of skdeep's classifiers, which add up what workers find; got {model!r}.")
    parts = _parts(X, y, sample_weight)
    names = _workers(client)[: len(parts)]
    bounds = np.linspace(0, len(parts), len(names) + 1).round().astype(int)
    runs = [parts[start:stop] for start, stop in pairwise(bounds)]
    # two fits at a time would each keep workers that the other one waits for
    with client.as_current(), Lock("skdeep.distributed.fit"):
        # where it is needed, if possible: what must be there could never be computed again if the worker is lost
        held = [
            [client.compute(list(part), workers=[name], allow_other_workers=True) for part in run]
            for name, run in zip(names, runs, strict=True)
        ]
        futures = [each for run in held for part in run for each in part]
        try:
            _await(client, names, futures)
            return _fit_together(client, model, names, held, timeout)
        finally:  # an error keeps what is in sight of it
            for future in futures:
                future.release()


def _fit_together(
    client: Any, model: BaseTorchEstimator, names: list[str], held: list[list], timeout: float
) -> BaseTorchEstimator:
    """Fit by some workers, each with partitions of its own."""
    here = [{"workers": [name], "allow_other_workers": False, "pure": False} for name in names]
    host = names[0].split("://")[-1].rpartition(":")[0].strip("[]")
    port = client.submit(_free_port, host, **here[0])
    _await(client, names, [port])
    meeting = host, port.result(), len(names)
    fits = [client.submit(_fit_run, model, run, rank, meeting, timeout, **here[rank]) for rank, run in enumerate(held)]
    _await(client, names, fits)
    return fits[0].result()


def _await(client: Any, names: list[str], futures: list) -> None:
    """Wait for the work of workers; raise what has gone wrong, in one of them or with one."""
    from distributed import wait

    errors: list[BaseException] = []
    pending, end = set(futures), np.inf
    while pending and time.monotonic() < end:
        try:
            done, pending = wait(pending, timeout=_LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            done = set()
        errors += [future.exception() for future in done if future.status == "error"]
        lost = sorted(set(names).difference(client.nthreads()))
        if errors or lost:
            end = min(end, time.monotonic() + _GRACE)
        if lost and len(errors) + len(lost) >= len(names):
            break  # all that are left have said what they know
    if pending:
        for future in pending:  # not `cancel`, which would take from the user what they hold as well
            future.release()
        errors.append(LostProcessError(f"Workers are lost: {', '.join(lost) or 'they do not answer'}. Fit again."))
    # who has waited in vain says less than who has failed
    for error in sorted(errors, key=lambda error: isinstance(error, LostProcessError)):
        raise error


def _workers(client: Any) -> list[str]:
    """List the addresses of a cluster's workers, which have to be processes."""
    processes = client.run(_process, on_error="ignore")  # of one that has just been lost
    if not processes:
        raise ValueError("The cluster has no workers yet. Wait for them: client.wait_for_workers(n_workers).")
    if len(set(processes.values())) < len(processes):
        raise ValueError(
            "The workers of this cluster are threads of one process, which can take part in one fit only. Start it "
            "with processes (LocalCluster(processes=True))."
        )
    return sorted(processes)


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]


def _parts(X: Any, y: Any, sample_weight: Any) -> list[tuple]:
    """List the partitions of X, y and weights, if there are any, side by side, as delayed objects."""
    collections = {"X": X, "y": y} | ({} if sample_weight is None else {"sample_weight": sample_weight})
    for name, given in collections.items():
        if not (hasattr(given, "to_delayed") and hasattr(given, "ndim")):
            raise ValueError(
                f"{name} must be a Dask array or data frame, got {type(given).__name__}. If it is in memory, so may "
                f"the rest be: model.fit; else dask.array.from_array({name}, chunks=...) makes one of it."
            )
    if hasattr(X, "chunks"):
        collections["X"] = X = X.rechunk({1: -1})
        collections |= {name: _cut_like(X, given) for name, given in collections.items() if name != "X"}
    lists = {name: np.ravel(np.array(given.to_delayed(), dtype=object)) for name, given in collections.items()}
    n_parts = len(lists["X"])
    for name, own in lists.items():
        if len(own) != n_parts:
            raise ValueError(
                f"X has {n_parts} partitions, and {name} {len(own)}. Repartition them alike: {name}.repartition("
                "divisions=X.divisions), or make both of one frame."
            )
    return list(zip(*lists.values(), strict=True))


def _cut_like(X: Any, other: Any) -> Any:
    """Cut an array along its rows as X is."""
    if not hasattr(other, "rechunk"):
        return other
    known = all(np.isfinite(size) for size in (*X.chunks[0], *other.chunks[0]))
    if known and X.shape[0] != other.shape[0]:
        raise ValueError(f"X has {X.shape[0]} rows, and y or sample_weight {other.shape[0]}.")
    return other.rechunk({0: X.chunks[0], **dict.fromkeys(range(1, other.ndim), -1)}) if known else other


def _fit_run(
    model: BaseTorchEstimator, parts: list[list], rank: int, meeting: tuple[str, int, int], timeout: float
) -> BaseTorchEstimator | None:
    """Fit, in a worker, with its partitions; the first worker returns the model."""
    host, port, size = meeting
    data = [_joined(column) for column in zip(*parts, strict=True)]
    if size == 1:
        return model.fit(*data)
    if dist.is_initialized():  # by a fit that was cut off
        dist.destroy_process_group()
    dist.init_process_group("gloo", f"tcp://{host}:{port}", timedelta(seconds=timeout), size, rank)
    before, os.environ["MASTER_ADDR"] = os.environ.get("MASTER_ADDR"), host
    try:
        with shards(timeout=timeout):
            model.fit(*data)
    finally:
        os.environ.pop("MASTER_ADDR")
        os.environ |= {} if before is None else {"MASTER_ADDR": before}
        dist.destroy_process_group()
    return model if rank == 0 else None


def _joined(parts: tuple) -> Any:
    if len(parts) == 1:
        return parts[0]
    if sparse.issparse(parts[0]):
        return sparse.vstack(parts, format="csr")
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import pandas as pd

    return pd.concat(parts)
