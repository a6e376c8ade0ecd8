"""What several test files use: data, estimators of a class, forms of the same values, and constants of the package."""

import functools
import inspect
import multiprocessing
import multiprocessing.forkserver
import os
import reprlib
import sys
from itertools import combinations, product
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.engine.losses import LOSSES
from skdeep.fitting.settings import SOLVERS, solver_name

CPU = torch.device("cpu")


# ---- cases -----------------------------------------------------------------------------------------------------------


def covering(*factors):
    """Choose among the combinations of three factors or more: every two values of two factors meet in one of them.

    A factor is a dict of values by name, or an iterable of values that are their own names.
    """
    named = [
        factor if isinstance(factor, dict) else {getattr(value, "__name__", str(value)): value for value in factor}
        for factor in factors
    ]
    most = len(list(combinations(named, 2)))
    met, chosen = set(), []
    for at_least in range(most, 0, -1):
        for names in product(*named):
            pairs = set(combinations(enumerate(names), 2))
            if len(pairs - met) >= at_least:
                met |= pairs
                values = [factor[name] for factor, name in zip(named, names, strict=True)]
                chosen.append(pytest.param(*values, id="-".join(names)))
    return chosen


def check_each(check, cases):
    """Call a check with the arguments of each case, by its name: all are checked, and those that fail are named."""
    failures = []
    for name, arguments in cases.items():
        try:
            check(*arguments)
        except (Exception, BaseExceptionGroup, pytest.fail.Exception) as failure:
            failure.add_note(f"in the case {name}")
            failures.append(failure)
    if failures:
        raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} cases", failures)


def in_one_test(names, cases):
    """Parametrize a test as pytest does, and run its cases in one, where pytest does more around each than it does."""
    names = [name.strip() for name in names.split(",")]
    cases = [case if len(names) > 1 else [case] for case in cases]

    def decorate(test):
        signature = inspect.signature(test)

        @functools.wraps(test)
        def run(**fixtures):
            numbered = {f"{i}: {', '.join(map(reprlib.repr, case))}": case for i, case in enumerate(cases)}
            check_each(lambda *case: test(**fixtures, **dict(zip(names, case, strict=True))), numbered)

        left = [parameter for name, parameter in signature.parameters.items() if name not in names]
        run.__signature__ = signature.replace(parameters=left)
        return run

    return decorate


# ---- processes -------------------------------------------------------------------------------------------------------


@functools.cache
def forking():
    """Start the process that others begin as copies of: what takes longest, the imports, is done there, and once.

    Who asks `multiprocessing` for the method "forkserver" from then on begins there, too.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks", "distributed"])
    # what is not found is passed over, and sys.path is not asked (Python 3.11)
    with patch.dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path)):
        multiprocessing.forkserver.ensure_running()
    return context


# ---- data ------------------------------------------------------------------------------------------------------------

DATA = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits}
IRIS, IRIS_Y = load_iris(return_X_y=True)
WINE, WINE_Y = load_wine(return_X_y=True)
CANCER, CANCER_Y = load_breast_cancer(return_X_y=True)
DIGITS, DIGITS_Y = load_digits(return_X_y=True)


def few_images(n, n_test):
    """Digits in the place of the benchmarks' images: a name, training data, test data."""
    X = DIGITS.astype(np.float32) / 16
    return "few digits", X[:n], DIGITS_Y[:n], X[n : n + n_test], DIGITS_Y[n : n + n_test]


def random(*shape, seed=0):
    """Draw a float64 tensor."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# ---- estimators ------------------------------------------------------------------------------------------------------

#: Those whose parameters are told apart most: the linear ones, one of them with a calibration, and the network.
ESTIMATORS = [SoftmaxClassifier, HingeClassifier, MLPClassifierTorch]
each_estimator = pytest.mark.parametrize("cls", ESTIMATORS)

#: What makes `partial_fit` possible, and the same thing as `fit`.
INCREMENTAL = {HingeClassifier: {"calibration": None}, MLPClassifierTorch: {"learning_rate": "constant"}}


#: Settings of the solvers.
SETTINGS = {name for kind in SOLVERS.values() for name in kind._get_param_names()}


def configured(cls, *args, **params):
    """Make an estimator of any class from flat parameters: a linear one's settings of the solver become an object.

    What the solver has no use for is left out, as deep classifiers leave it. "auto" with settings is a solver that has
    them.
    """
    known = inspect.signature(cls).parameters
    settings = {name: params.pop(name) for name in list(params) if name in SETTINGS - known.keys()}
    return reconfigured(cls(*args, **params), **settings)


def reconfigured(model, **params):
    """Set parameters of a model; a linear one's settings of the solver, where deep ones have parameters."""
    known = model.get_params(deep=False)
    settings = {name: params.pop(name) for name in list(params) if name in SETTINGS - known.keys()}
    model.set_params(**params)
    if settings and solver_name(model) != "exact":
        if isinstance(model.solver, str):
            auto = (
                "lbfgs"
                if "max_fun" in settings
                else "adam"
                if settings.keys() & {"beta_1", "beta_2", "epsilon"}
                else "sgd"
            )
            model.solver = SOLVERS[auto if model.solver == "auto" else model.solver]()
        own = model.solver.get_params()
        model.solver.set_params(**{name: value for name, value in settings.items() if name in own})
    return model


def maker(common, linear=None, network=None):
    """Make a function that makes estimators of a class, with these parameters unless told otherwise."""

    def make(cls=SoftmaxClassifier, **params):
        own = (network if cls is MLPClassifierTorch else linear) or {}
        return configured(cls, **{**common, **own, **params})

    return make


def parameters(model):
    """All coefficients and intercepts of a fitted model, in a row."""
    arrays = [model.coef_, model.intercept_] if hasattr(model, "coef_") else [*model.coefs_, *model.intercepts_]
    return np.concatenate([array.ravel() for array in arrays])


def linear_module(n_features, n_outputs):
    return torch.nn.Linear(n_features, n_outputs)


#: Every entry of the table of losses, the hinges both plain and squared.
LOSS_CASES = [(name, {}) for name in LOSSES] + [
    (name, {"squared": True}) for name, kind in LOSSES.items() if "squared" in inspect.signature(kind).parameters
]
LOSS_IDS = [name + ("-squared" if options else "") for name, options in LOSS_CASES]

# ---- the same values in other forms ----------------------------------------------------------------------------------


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def with_wide_indices(X):
    made = sparse.csr_array(X)
    made.indices, made.indptr = made.indices.astype(np.int64), made.indptr.astype(np.int64)
    return made


def with_read_only_parts(X):
    made = sparse.csr_array(X)
    for part in (made.data, made.indices, made.indptr):
        part.flags.writeable = False
    return made


def with_explicit_zeros(X, zero=0.0):
    made = sparse.csr_array(X + (X == 0.0))
    made.data = np.where(X.ravel() == 0, zero, X.ravel())
    assert (made.data == 0).any()
    return made


def big_endian(X):
    made = sparse.csr_array(X)
    return sparse.csr_array((made.data.astype(">f8"), made.indices, made.indptr), shape=made.shape)


# ---- constants of the package ----------------------------------------------------------------------------------------


def set_constant(monkeypatch, name, value):
    """Give a constant another value in every module of the package that knows it."""
    modules = [module for key, module in sys.modules.items() if key.startswith("skdeep.") and hasattr(module, name)]
    assert modules, f"no module of the package has a constant {name}"
    for module in modules:
        monkeypatch.setattr(module, name, value)
