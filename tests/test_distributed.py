"""Rows that are divided among processes: the model is the one of a single process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import torch.distributed as dist
from helpers import forking
from sklearn.datasets import load_iris

from skdeep import SoftmaxClassifier
from skdeep.distributed import shards
from skdeep.engine.group import Group, joined
from skdeep.engine.shards import Shard
from skdeep.model_selection import GridSearchCV

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")


def started(target: Any, folder: Path, *args: Any) -> list[int | None]:
    """Run a function in three processes; return how they ended."""
    processes = [forking().Process(target=target, args=(rank, folder, *args)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def results(folder: Path) -> list[dict[str, Any] | None]:
    paths = [folder / f"found{rank}" for rank in range(3)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in paths]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    assert started(ranks.fit_all, folder) == [0, 0, 0]
    return results(folder)


def assert_same(found: list[dict[str, Any]], name: str, expected: dict[str, np.ndarray], tol: float) -> None:
    first = found[0][name]
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        for other in found[1:]:  # to the last bit
            np.testing.assert_array_equal(other[name][key], first[key], err_msg=key)
        if value.dtype.kind == "f":
            largest = np.abs(value[np.isfinite(value)]).max(initial=1.0)
            np.testing.assert_allclose(first[key], value, rtol=0, atol=tol * largest, err_msg=key)
        else:
            np.testing.assert_array_equal(first[key], value, err_msg=key)


@pytest.mark.parametrize("name", ranks.cases())
@pytest.mark.filterwarnings("ignore:The scores of rows:UserWarning")  # of four epochs
def test_processes_learn_what_one_does(found, name, capsys):
    model, kind, is_weighted = ranks.cases()[name]
    X, y, weight = ranks.data(kind)
    model.fit(X, y, sample_weight=weight if is_weighted else None)
    assert_same(found, name, ranks.learned(model, X), 1e-4 if "single" in name else 1e-10)


@pytest.mark.parametrize("name", ["partial_fit", "warm", "X_val", "bootstrap"])
def test_processes_go_on_as_one_does(found, name):
    assert_same(found, name, ranks.continued(lambda X: slice(None))[name], 1e-10)


@pytest.mark.parametrize(
    "name, said",
    {
        "infinite": "infinity",
        "columns": "numbers of columns: 64 in rank 0, 60 in rank 2",
        "dtypes": "dtypes: float64 in rank 0, float32 in rank 2",
        "weights": "sample weights are given",
        "parameters": r"'max_iter', 1\) in rank 0",
        "one class": "only one class",
        "batch normalisation": "normalization='layer'",
        "normalised module": "SyncBatchNorm",
        "nested": "inside another",
    }.items(),
)
def test_all_processes_raise(found, name, said):
    for rank, own in enumerate(found):
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(own[name])
        assert name != "infinite" or rank == 2 or "rank 2" in own[name]


def test_volume_of_an_epoch(found):
    """One sum for each step, of the gradient and the loss: what the guide counts by."""
    for own in found:
        (few, few_bytes), (more, more_bytes) = own["volume"]
        steps = 3 * 5  # three epochs more, of 300 rows in batches of 64
        assert more - few == steps
        assert more_bytes - few_bytes == steps * (65 * 10 + 1) * 8


@pytest.mark.slow
@pytest.mark.parametrize("way", ["raised", "killed"])
def test_nobody_waits_for_ever(tmp_path, way):
    codes = started(ranks.fail, tmp_path, way)
    assert codes == [0, 0, -9 if way == "killed" else 0]
    for rank, own in enumerate(results(tmp_path)[: 2 if way == "killed" else 3]):
        assert own["seconds"] < 60  # and not the minutes that they would wait for an answer
        if rank < 2:
            said = "rank 2 is lost" if way == "killed" else "rank 2, ZeroDivisionError: a fault of the callback's"
            assert said in own["message"]
        for key, value in own["before"].items():  # nothing is lost
            np.testing.assert_array_equal(own["after"][key], value)


@pytest.mark.slow
def test_torchrun(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, torch.distributed as dist\n"
        "from sklearn.datasets import load_iris\n"
        "from skdeep import SoftmaxClassifier\n"
        "from skdeep.distributed import shards\n"
        "dist.init_process_group('gloo')\n"
        "X, y = load_iris(return_X_y=True)\n"
        "own = slice(dist.get_rank() * 40, None if dist.get_rank() else 40)\n"
        "with shards():\n"
        "    model = SoftmaxClassifier(random_state=0).fit(X[own], y[own])\n"
        f"np.save(f'{tmp_path}/coef{{dist.get_rank()}}', model.coef_)\n"
        "dist.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    X, y = load_iris(return_X_y=True)
    expected = SoftmaxClassifier(random_state=0).fit(X, y).coef_
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"coef{rank}.npy"), expected, rtol=1e-10)


def test_shards_needs_torch_distributed():
    with pytest.raises(RuntimeError, match="torchrun"), shards():
        pass


def test_search_inside_shards_is_refused():
    group = Group()
    group.size = 2
    X, y = load_iris(return_X_y=True)
    with joined(group), pytest.raises(RuntimeError, match="best estimator"):
        GridSearchCV(SoftmaxClassifier(), {"alpha": [0.1, 1]}).fit(X, y)


def test_seeds_are_the_first_processs():
    """They are told in each fit, whatever a process remembers, and leave no traces in fits of its own."""
    from skdeep.data.encoding import draw_seeds

    class Second(Group):
        def first(self, value):
            asked.append(value)
            return told[len(asked) - 1]

    told, asked = [(1, 2), (3, 4)], []
    with joined(Second()):
        assert [draw_seeds(98765) for _ in told] == told
    alone = draw_seeds(98765)
    assert asked == [alone, alone]


def test_shard_of_one_process():
    shard = Shard.of(Group(), 5)
    index = np.array([4, 0, 2])
    assert shard.n_rows == 5 and shard.part == slice(0, 5)
    np.testing.assert_array_equal(shard.own(index), [0, 1, 2])
    np.testing.assert_array_equal(shard.matrix(np.arange(10).reshape(5, 2), index), [[8, 9], [0, 1], [4, 5]])
