"""The benchmark scripts run, and write what they measured."""

import io
import json
import runpy
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from helpers import few_images
from sklearn import datasets

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Got `batch_size` less than 1 or larger:UserWarning")  # scikit-learn's, of few rows
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("epoch_time.py", "--rows 300 --columns 8 --classes 3 --epochs 1 --rounds 1"),
        ("search_time.py", "--alphas 2 --folds 2 --n-jobs 1 --peer-n-jobs 1 --rounds 1"),
        ("search_time.py", "--mlp --rounds 1"),
        ("time_to_quality.py", "--rounds 1"),
        ("time_to_quality.py", "--rounds 1 --models networks"),
        ("growth.py", "--rounds 1 --epochs 1"),
        ("quality/regression.py", "--data diabetes steps --of mlp HistGradientBoosting --rows 100 --splits 1"),
        ("quality/regression_linear.py", "--models LinearRegression Lasso LinearSVR --rows 60 --rounds 1"),
        # the interpreter need not have skore
        ("compare.py", f"--rounds 1 --of softmax bayes lasso --with skore={sys.executable}"),
    ],
)
def test_benchmarks_run(script, arguments, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sys.modules.pop("common", None)
    import common

    monkeypatch.setattr(common, "load_images", lambda: few_images(200, 100))
    few = datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    monkeypatch.setattr(datasets, "load_breast_cancer", lambda **_: [part[:60] for part in few])
    monkeypatch.setattr(sys, "argv", [script, *arguments.split(), "--output", str(tmp_path)])
    if script == "growth.py":
        names = runpy.run_path(str(BENCHMARKS / script), run_name="growth")
        steps = names["STEPS"]
        for what, size in {"rows": 50, "columns": 3, "classes": 2, "models": 2}.items():
            names["MIDDLE"][what], steps[what] = size, [size]
        names["main"]()
    else:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    (result,) = tmp_path.glob("*.json")
    assert json.loads(result.read_text())["versions"]["skdeep"]
    assert "| --- |" in result.with_suffix(".md").read_text()
    sys.modules.pop("common", None)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_the_benchmark_of_memory_runs(tmp_path, monkeypatch):
    """With one contestant, which is measured in this process: in one of its own, the imports would take longest."""

    def run(command, **_):
        with redirect_stdout(io.StringIO()) as out, monkeypatch.context() as worker:
            worker.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.syspath_prepend(BENCHMARKS)
    arguments = "--rows 2000 --columns 5 --classes 2".split()
    monkeypatch.setattr(sys, "argv", ["memory.py", *arguments, "--output", str(tmp_path)])
    names = runpy.run_path(str(BENCHMARKS / "memory.py"), run_name="memory")
    ours, peers = names["OURS"], names["PEERS"]
    for name in set(ours) - {"SoftmaxClassifier"}:
        del ours[name]
    peers.clear()
    names["main"]()
    (result,) = tmp_path.glob("*.json")
    (row,) = json.loads(result.read_text())["table"]
    assert row["rows"] == 2000 and row["fit adds MB"] < 100
    sys.modules.pop("common", None)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
def test_the_benchmark_of_data_larger_than_memory_runs(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.syspath_prepend(BENCHMARKS)
    arguments = "--megabytes 1 --compared 1 --columns 4 --epochs 1 --kinds zarr".split()
    path = BENCHMARKS / "larger_than_memory.py"
    monkeypatch.setattr(sys, "argv", [str(path), *arguments, "--output", str(tmp_path)])
    names = runpy.run_path(str(path), run_name="larger_than_memory")
    del names["MODELS"]["MLPClassifierTorch"]
    names["main"]()
    tables = {file.name.partition("-")[0]: json.loads(file.read_text())["table"] for file in tmp_path.glob("*.json")}
    assert tables["larger_than_memory"][0]["fit adds MB"] < 200
    assert [row["difference"] for row in tables["windows"]] == [0, 0]  # of one window
    for name in ("common", "memory"):
        sys.modules.pop(name, None)


# ---- gpu.py ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """The names of gpu.py, as it is called."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", "--device", "cpu"])
    before = set(sys.modules)
    yield runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="gpu")
    for name in set(sys.modules) - before:
        if name in ("common", "epoch_time") or name.startswith("gpu_"):
            del sys.modules[name]


@pytest.mark.slow
def test_all_parts_of_the_benchmark_of_a_device_run_on_the_cpu(gpu, monkeypatch, tmp_path):
    """As workers in this process, where the imports are done; the tests begin another, with one that is quick."""
    run = subprocess.run

    def run_quick(command, **options):
        if "pytest" in command:
            *command, test = command
            file, name = test.split("::")
            assert f"def {name}(" in (options["cwd"] / file).read_text()
            (tmp_path / Path(file).name).write_text(f"def {name}():\n    pass\n")
            command, options = [*command, f"{Path(file).name}::{name}"], options | {"cwd": tmp_path}
        return run(command, **options)

    def measure(name, limit):
        with redirect_stdout(io.StringIO()) as out, monkeypatch.context() as worker:
            worker.setattr(sys, "argv", [*sys.argv, "--worker", name, "--end", str(time.time() + limit)])
            gpu["main"]()
        said = [line.removeprefix(gpu["MARK"]) for line in out.getvalue().splitlines()]
        lines = {what: [name, what, *rest] for what, *rest in map(json.loads, said)}
        return [*lines.values(), [name, "all of it", 1.0, "s", ""]]

    monkeypatch.setattr(subprocess, "run", run_quick)
    monkeypatch.setitem(gpu["main"].__globals__, "measure", measure)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--output", str(tmp_path)])
    gpu["main"]()
    (result,) = tmp_path.glob("gpu-cpu-*.json")
    result, markdown = json.loads(result.read_text()), result.with_suffix(".md").read_text()
    rows = {(row["part"], row["what"]): row for row in result["table"]}
    assert {part for part, what in rows if what == "all of it" and rows[part, what]["unit"] == "s"} == {
        *("tests", "agreement", "launches", "transfers", "epochs", "sizes", "search", "solvers")
    }
    assert not [row for row in rows.values() if row["value"] == "failed"]
    assert rows["tests", "tests passed"]["value"] > 0 and rows["tests", "tests failed"]["value"] == 0
    assert rows["agreement", "largest difference, float64"]["note"].endswith("0 NOT, 0 failed")
    # of some milliseconds, less what a fit takes beside its epochs: any number, where a machine is busy
    assert np.isfinite(rows["epochs", "MLPClassifierTorch (256, 256) / skorch (256, 256), batch 64"]["value"])
    assert result["about"]["device"] == "cpu" and markdown.count("\n| ") == len(rows) + 2


def test_a_part_is_a_process_whose_last_words_count(gpu, monkeypatch, tmp_path):
    said = [
        "noise",
        *(gpu["MARK"] + json.dumps(line) for line in (["a", 1, "s", ""], ["b", 2, "s", ""], ["a", 3, "s", ""])),
    ]
    (tmp_path / "part.py").write_text(f"import sys; print({chr(10).join(said)!r}); assert 'epochs' in sys.argv")
    monkeypatch.setitem(gpu["measure"].__globals__, "__file__", str(tmp_path / "part.py"))
    *lines, end = gpu["measure"]("epochs", 60)
    assert lines == [["epochs", "a", 3, "s", ""], ["epochs", "b", 2, "s", ""]]
    assert end[:2] == ["epochs", "all of it"] and end[2] > 0 and end[3:] == ["s", ""]


def test_a_part_that_is_not_done_in_time_is_a_line(gpu):
    ((part, what, value, _, note),) = gpu["measure"]("epochs", 0.2)
    assert (part, what, value) == ("epochs", "all of it", "cut short") and "out of time" in note


def test_a_part_that_dies_is_a_line(gpu, monkeypatch, tmp_path):
    (tmp_path / "part.py").write_text("raise RuntimeError('the device is gone')")
    monkeypatch.setitem(gpu["measure"].__globals__, "__file__", str(tmp_path / "part.py"))
    ((part, _, value, _, note),) = gpu["measure"]("epochs", 60)
    assert (part, value, note) == ("epochs", "cut short", "exit code 1: RuntimeError: the device is gone")


def test_a_worker_without_its_device_dies(gpu, monkeypatch):
    worker = ["gpu.py", "--quick", "--device", "nonsense", "--worker", "epochs", "--end", str(time.time() + 60)]
    monkeypatch.setattr(sys, "argv", worker)
    with pytest.raises(RuntimeError, match="nonsense"):
        gpu["main"]()


def test_parts_without_time_are_dropped(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "0.01", "--output", str(tmp_path)])
    gpu["main"]()
    (result,) = tmp_path.glob("*.json")
    assert {row["value"] for row in json.loads(result.read_text())["table"]} == {"dropped"}


def test_a_contestant_that_fails_is_a_line_and_the_others_go_on(gpu, capsys):
    bench = sys.modules["gpu_bench"]

    def fail():
        raise RuntimeError("no such kernel | at all\n")

    calls = iter([1.0, 5.0, 2.0])
    contestants = {"good": lambda: lambda: next(calls), "bad": fail, "half": lambda: lambda: 4.0}
    of = bench.Bench(device=None, quick=True, rounds=3, end=0.0)
    assert bench.contest(of, contestants, [("good", "half"), ("good", "bad")], unit="s", factor=1.0) == {
        "good": 2.0,
        "half": 4.0,
    }
    lines = [json.loads(line.removeprefix(bench.MARK)) for line in capsys.readouterr().out.splitlines()]
    last = {what: (value, note) for what, value, _, note in lines}
    assert last["good"] == (2.0, "median of 3") and last["good / half"][0] == 0.5 and "good / bad" not in last
    assert last["bad"] == ("failed", "RuntimeError: no such kernel | at all\n")
    assert gpu["clean"](last["bad"][1]) == "RuntimeError: no such kernel / at all"


# ---- the picture -----------------------------------------------------------------------------------------------------


def test_the_picture_is_drawn_from_the_newest_results(tmp_path, monkeypatch):
    rows = [{"search": "skdeep's", "seconds": 1.0}, {"search": "scikit-learn's", "seconds": 30.0}]
    for date, data in [("2026-01-01", "old"), ("2026-02-01", "new")]:
        result = {"data": data, "table": rows}
        (tmp_path / f"search_time-images-{date}.json").write_text(json.dumps(result))
    names = runpy.run_path(str(BENCHMARKS / "picture.py"))
    assert names["newest"](tmp_path, "search_time-images")["data"] == "new"
    output = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", ["picture.py", "--results", str(tmp_path), "--output", str(output)])
    names["main"]()
    assert output.stat().st_size > 5000
    monkeypatch.setattr(sys, "argv", ["picture.py", "--results", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"run search_time\.py"):
        names["main"]()
