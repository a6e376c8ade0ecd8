"""Quality out of the box: the estimators as they come, on raw columns, beside scikit-learn's behind a scaler.

The large comparison is ``examples/benchmarks/quality/defaults.py``, whose protocol this is; here it guards against a
fall, on bundled sets with margins that no seed reaches.
"""

import json
import runpy
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
SETS = ["breast_cancer", "iris", "wine", "digits"]


@cache
def protocol():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return runpy.run_path(str(BENCHMARKS / "quality" / "defaults.py"), run_name="defaults")
    finally:
        sys.path.remove(str(BENCHMARKS))


@cache
def measured(name: str) -> np.ndarray:
    """Accuracy and log-loss of each set, (sets, 2)."""
    names = protocol()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = [names["load"](s) for s in SETS]
        data = [(X[:: 1 + len(X) // 1000], y[:: 1 + len(X) // 1000]) for X, y in data]  # half of the digits are enough
        models = [names["made"](name, 0, names["ESTIMATORS"], "Classifier", names) for _ in data]
        rows = [names["measure"](own, names["split"](X, y, 0)) for own, (X, y) in zip(models, data, strict=True)]
    return np.array(rows)[:, :2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "peer", "share"),
    [
        ("softmax", "LogisticRegression + scaler", 1.05),
        ("mlp", "MLPClassifier + scaler", 1.05),
        ("ensemble", "MLPClassifier + scaler", 0.9),
    ],
)
def test_defaults_keep_up_with_the_peer(ours, peer, share):
    """Accuracy: nowhere more than a row of the smallest set below, on average not a point.

    Log-loss: on average at most this share of the peer's.
    """
    (accuracy, loss), (peers_accuracy, peers_loss) = measured(ours).T, measured(peer).T
    assert (accuracy > peers_accuracy - 0.023).all()  # iris has 45 rows to test
    assert accuracy.mean() > peers_accuracy.mean() - 0.01
    assert loss.mean() < share * peers_loss.mean()


def test_a_set_has_rows_on_both_sides_of_every_class():
    X, y, X_test, y_test = protocol()["split"](*protocol()["load"]("wine"), 0)
    assert len(X) + len(X_test) == 178
    assert set(y) == set(y_test) == {0, 1, 2}
    X, y, X_test, y_test = protocol()["split"](*protocol()["load"]("wine"), 0, 60, 20)
    assert len(X) == 60 and len(X_test) == len(y_test) == 20 and set(y_test) == {0, 1, 2}


def test_a_log_is_gone_on_with_and_missing_packages_are_told_before_anything_is_fitted(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    key = ["iris", 0, "LogisticRegression + scaler"]
    log.write_text(json.dumps([key, [0.5, 0.25, 1.0]]) + "\n")
    arguments = ["--data", "iris", "--log", str(log), "--of"]
    protocol()["main"]([*arguments, key[2], "softmax"])
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert [of for (_, _, of), _ in found] == [key[2], "softmax"]
    assert "| LogisticRegression + scaler | 0.5000 | 0.2500 | 0.2500 | 1 |" in capsys.readouterr().out

    monkeypatch.setitem(protocol()["check"].__globals__["PEERS"], "Nobody", ("no_such_package", "", "", {}))
    with pytest.raises(SystemExit, match="pip install no_such_package"):
        protocol()["main"]([*arguments, "softmax", "Nobody"])
    assert len(log.read_text().splitlines()) == 2
