"""The benchmark scripts run, and write what they measured."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"


def few_images():
    X, y = load_digits(return_X_y=True)
    X = X.astype("float32") / 16
    return "few digits", X[:200], y[:200], X[200:300], y[200:300]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("epoch_time.py", "--rows 300 --columns 8 --classes 3 --epochs 1 --rounds 1"),
        ("search_time.py", "--alphas 2 --folds 2 --n-jobs 1 --rounds 1"),
        ("search_time.py", "--mlp --rounds 1"),
        ("time_to_quality.py", "--rounds 1"),
        ("time_to_quality.py", "--rounds 1 --models networks"),
        ("growth.py", "--rounds 1 --epochs 1"),
    ],
)
def test_benchmarks_run(script, arguments, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    sys.modules.pop("common", None)
    import common

    monkeypatch.setattr(common, "load_images", few_images)
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
    """With one contestant: each is a process of its own."""
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
