"""Contestants that other packages bring: pytabkit's networks and CatBoost, on one thread.

They are not among a benchmark's usual ones, since neither package is needed for anything else here: ask for them by
name, after ``pip install pytabkit catboost``.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

_PYTABKIT = {"n_threads": 1, "device": "cpu", "verbosity": 0}
#: By name: package, class (without what it predicts), its parameter of the seed, and further parameters.
PEERS = {
    "RealMLP-TD": ("pytabkit", "RealMLP_TD_", "random_state", _PYTABKIT),
    "TabM-D": ("pytabkit", "TabM_D_", "random_state", _PYTABKIT),
    "CatBoost": (
        "catboost",
        "CatBoost",
        "random_seed",
        {"thread_count": 1, "verbose": False, "allow_writing_files": False},
    ),
}


def check(names: Iterable[str]) -> None:
    """Raise if some of the contestants need packages that are not there, before hours are spent on others."""
    needed = {PEERS[name][0] for name in names if name in PEERS}
    if missing := sorted(package for package in needed if find_spec(package) is None):
        raise SystemExit(f"These contestants need packages that are missing: pip install {' '.join(missing)}")


def made(name: str, seed: int, estimators: dict, kind: str, names: dict):
    """Make a contestant: one of some `estimators`, one of `PEERS` as it comes, or an expression of `names`.

    A peer is a "Classifier" or a "Regressor"; of an expression, the estimator or the last step of the pipeline gets the
    seed.
    """
    if name in estimators:
        return estimators[name](seed)
    if name in PEERS:
        package, form, seed_name, parameters = PEERS[name]
        return getattr(import_module(package), form + kind)(**{seed_name: seed}, **parameters)
    estimator = eval(name, names)
    getattr(estimator, "steps", [(None, estimator)])[-1][1].set_params(random_state=seed)
    return estimator
