"""What training takes on the emulated accelerator: kernels launched, and times that the host waits.

`main` prints a line of JSON for each setting. A step is what an epoch of one batch more has more; an epoch what a fit
of one epoch more has more, so that neither the start nor the end of a fit counts. A step that is recorded is launched
once; its own kernels are counted where it was recorded. What is learnt has to be the same with and without recording.
"""

from __future__ import annotations

import emulator  # isort: skip  (before torch)

import json
from collections.abc import Iterator

import numpy as np
import torch
from helpers import configured, reconfigured
from scipy import sparse
from sklearn.base import clone

from skdeep import SGD, HingeClassifier, MLPClassifierTorch, MLPEnsembleClassifier, SoftmaxClassifier, TorchClassifier
from skdeep.model_selection.stacks import fit_stack

ROWS, COLUMNS = 32, 20
COMMON = {"batch_size": ROWS, "random_state": 0, "precision": "float32", "device": str(emulator.DEVICE)}
ENDLESS = {"tol": 0.0, "n_iter_no_change": np.inf, "learning_rate": "constant"}


def net(n_outputs, n_features):
    """Two layers."""
    return torch.nn.Sequential(torch.nn.Linear(n_features, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs))


def mlp(**params):
    return MLPClassifierTorch((16, 16), **COMMON, **ENDLESS, **params)


def softmax(**params):
    return configured(SoftmaxClassifier, **COMMON, **{"solver": "sgd", "learning_rate_init": 0.01, **ENDLESS, **params})


#: The members of a stack for each setting.
SETTINGS = {
    "mlp adam": [mlp()],
    "mlp bare": [mlp(column_learning_rate=0, standardize=False)],
    "mlp sgd": [mlp(solver="sgd")],
    "mlp adamw": [mlp(solver="adamw")],
    "mlp batch normalisation": [mlp(normalization="batch")],
    "mlp layer normalisation": [mlp(normalization="layer", activation="silu")],
    "mlp bfloat16": [reconfigured(clone(mlp()), precision="bfloat16")],
    "mlp dropout": [mlp(dropout=0.1)],
    "mlp early stopping": [mlp(early_stopping=True)],
    "mlp 9 alphas": [mlp(alpha=10.0**-k) for k in range(9)],
    "mlp 9 rates": [mlp(learning_rate_init=0.001 * k) for k in range(1, 10)],
    "mlp following": [MLPClassifierTorch((16, 16), **COMMON)],
    "mlp 3 seeds": [clone(mlp()).set_params(random_state=k) for k in range(3)],
    "ensemble": [MLPEnsembleClassifier(3, (16, 16), calibration=None, early_stopping=False, **COMMON)],
    "softmax sgd": [softmax()],
    "softmax adam": [softmax(solver="adam")],
    "softmax l1": [softmax(penalty="l1")],
    "softmax 9 alphas": [softmax(alpha=10.0**-k) for k in range(9)],
    "softmax 9 rates": [softmax(learning_rate_init=0.001 * k, momentum=0.1 * (k % 2)) for k in range(1, 10)],
    "softmax sparse": [softmax()],
    "softmax streamed": [softmax()],
    "hinge": [configured(HingeClassifier, calibration=None, solver=SGD(learning_rate_init=0.01), **COMMON, **ENDLESS)],
    "torch": [TorchClassifier(net, **COMMON, **ENDLESS)],
}


def fit(name: str, n_batches: int, epochs: int, more_rows: int = 0, graphs: bool = True) -> tuple[list, emulator.Log]:
    """Fit the models of a setting, which are returned."""
    generator = np.random.default_rng(0)
    # the ensemble's members leave out a third
    n_rows = n_batches * ROWS * 3 // 2 if name == "ensemble" else n_batches * ROWS
    n_rows += more_rows
    X = generator.normal(size=(n_rows, COLUMNS)).astype(np.float32)
    y = generator.permutation(np.arange(n_rows) % 4)
    validation = (X[:ROWS], y[:ROWS]) if name == "mlp early stopping" else (None, None)
    members = [clone(member).set_params(max_iter=epochs) for member in SETTINGS[name]]
    with emulator.accelerator(1000 if name == "softmax streamed" else 80 << 30, graphs) as log:
        data = sparse.csr_array(X * (X > 1)) if name == "softmax sparse" else X
        failures = fit_stack(members, data, y, None, *validation)
    assert failures == [None] * len(members), failures
    assert not log.hazards, log.hazards
    return members, log


def counts(name: str, n_batches: int, epochs: int) -> tuple[np.ndarray, list[int]]:
    """Launches, waits and replays of a fit; and the kernels of each step that was recorded."""
    _, log = fit(name, n_batches, epochs)
    return np.array([log.launches.total(), log.waits.total(), log.replays]), log.recorded


def learnt(name: str, graphs: bool) -> bytes:
    """All that the models of a setting have learnt, with a last batch that is short."""
    members, _ = fit(name, 3, 2, more_rows=11, graphs=graphs)
    return b"".join(_bytes([model.__getstate__() for model in members]))


def _bytes(value) -> Iterator[bytes]:
    """The arrays and numbers in a state."""
    if isinstance(value, torch.nn.Module):
        value = [tensor.numpy() for tensor in value.state_dict().values()]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _bytes(part)
    elif isinstance(value, np.ndarray | np.number | int | float):
        yield np.asarray(value).tobytes()


def main() -> None:
    for name in SETTINGS:
        for n in (2, 3):
            counts(name, n, 1)  # what is made once in a process
        differs = learnt(name, graphs=True) != learnt(name, graphs=False)
        found = {(n, epochs): counts(name, n, epochs) for n in (2, 3) for epochs in (2, 3)}
        per_epoch = {n: found[n, 3][0] - found[n, 2][0] for n in (2, 3)}
        launches, waits, replays = (per_epoch[3] - per_epoch[2]).tolist()
        _, recorded = found[3, 3]
        taken = {
            "launches": recorded[-1] if recorded else launches,
            "waits": waits,
            "waits of an epoch": int(per_epoch[2][1]) - 2 * waits,
            "other waits": int(found[2, 3][0][1] - 3 * per_epoch[2][1]),
            "replays": replays,
            "others": launches - replays,
            "differs": differs,
        }
        print(json.dumps({"name": name, **taken}), flush=True)
