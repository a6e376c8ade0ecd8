"""Models in files: which types these name, what another version says of them, and what they are when they are back."""

import copy
import functools
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import IRIS, IRIS_Y
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdeep
from skdeep import (
    SGD,
    HingeClassifier,
    LeastSquaresClassifier,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    OtherVersionWarning,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
    without_training_state,
)
from skdeep.model_selection import GridSearchCV

FILES = sorted((Path(__file__).parent / "saved").glob("*.pkl"))
MODELS = {
    "softmax": SoftmaxClassifier(),
    "steps": SoftmaxClassifier(solver=SGD(), max_iter=5),
    "sigmoid": SigmoidClassifier(calibration="sigmoid"),
    "hinge": HingeClassifier(max_iter=5),
    "least squares": LeastSquaresClassifier(),
    "mlp": MLPClassifierTorch((4,), learning_rate="constant", max_iter=20),
    "ensemble": MLPEnsembleClassifier(2, (4,), max_iter=20),
}


@functools.cache
def fitted(name):
    return clone(MODELS[name]).set_params(random_state=0).fit(IRIS, IRIS_Y)


def again(model):
    return pickle.loads(pickle.dumps(model))


def as_good(first, second):
    np.testing.assert_array_equal(first.decision_function(IRIS), second.decision_function(IRIS))


# ---- skops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_skops_has_to_trust_no_type_but_the_estimators(name):
    skops = pytest.importorskip("skops.io")
    model = fitted(name)
    saved = skops.dumps(model)
    own = {f"{type(model).__module__}.{type(model).__name__}"}
    own |= {"skdeep.fitting.settings.SGD"} if name == "steps" else set()
    own |= {"skdeep.estimators.mlp.MLPClassifierTorch"} if name == "ensemble" else set()
    assert set(skops.get_untrusted_types(data=saved)) == own
    back = skops.loads(saved, trusted=sorted(own))
    as_good(back, model)
    assert back._fitted == model._fitted
    if name in ("steps", "mlp"):
        as_good(back.partial_fit(IRIS, IRIS_Y), copy.deepcopy(model).partial_fit(IRIS, IRIS_Y))


def test_skops_refuses_what_it_is_not_told_to_trust():
    skops = pytest.importorskip("skops.io")
    with pytest.raises(skops.exceptions.UntrustedTypesFoundException, match="SoftmaxClassifier"):
        skops.loads(skops.dumps(fitted("softmax")))


# ---- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_files_of_this_version_and_of_earlier_ones_open(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OtherVersionWarning)
        warnings.simplefilter("ignore", InconsistentVersionWarning)  # of scikit-learn's own parts
        version, model, expected = pickle.loads(path.read_bytes())
    assert bool(caught) == (version != skdeep.__version__)
    np.testing.assert_allclose(model.predict_proba(IRIS[::10]), expected, atol=1e-9)
    if hasattr(model, "partial_fit") and not hasattr(model, "steps"):
        names = model.classes_[IRIS_Y]
        assert model.partial_fit(IRIS, names).score(IRIS, names) > 0.6


def test_there_are_files_of_this_version():
    assert {path.stem for path in FILES if path.stem.endswith(f"-{skdeep.__version__}")}


def test_another_version_is_warned_of(monkeypatch):
    saved = pickle.dumps(fitted("mlp"))
    monkeypatch.setattr(skdeep, "__version__", "99.0")
    with pytest.warns(OtherVersionWarning, match=r"MLPClassifierTorch.*0\.1\.0.*99\.0") as caught:
        back = pickle.loads(saved)
    assert caught[0].filename == __file__
    as_good(back, fitted("mlp"))
    as_good(again(back), back)  # saved by the present version, without a word


def test_files_of_versions_that_left_no_mark_open():
    model = fitted("steps")
    state = dict(vars(model))  # as they saved it
    with pytest.warns(OtherVersionWarning, match="no mark"):
        back = SoftmaxClassifier.__new__(SoftmaxClassifier)
        back.__setstate__(state)
    as_good(copy.deepcopy(back).partial_fit(IRIS, IRIS_Y), copy.deepcopy(model).partial_fit(IRIS, IRIS_Y))


def test_states_of_training_with_other_fields_open():
    state = fitted("steps").__getstate__()
    known = state["_optimizer"]
    state["_optimizer"] = {**known, "of_the_future": 1, "columns": {**known["columns"], "of_the_future": 1}}
    del state["_optimizer"]["seen"]
    back = SoftmaxClassifier.__new__(SoftmaxClassifier)
    back.__setstate__(state)
    assert back.partial_fit(IRIS, IRIS_Y).score(IRIS, IRIS_Y) > 0.6


def test_what_is_saved_is_a_copy():
    model = copy.deepcopy(fitted("steps"))
    before = dict(vars(model))
    state = model.__getstate__()
    assert vars(model).keys() == before.keys() and "_skdeep_version" in state
    assert all(vars(model)[name] is value for name, value in before.items())
    assert "_skdeep_version" not in vars(again(model))
    assert clone(model).get_params()["max_iter"] == 5


@pytest.mark.parametrize("warm", ["partial_fit", "warm_start"])
@pytest.mark.parametrize("name", ["steps", "mlp"])
def test_training_goes_on_as_if_it_had_not_been_in_a_file(name, warm):
    models = [copy.copy(fitted(name)), again(fitted(name))]
    for model in models:
        if warm == "warm_start":
            model.set_params(warm_start=True).fit(IRIS, IRIS_Y)
        else:
            model.partial_fit(IRIS, IRIS_Y).partial_fit(IRIS, IRIS_Y)
    as_good(*models)


# ---- without the state of training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_without_training_state(name):
    model = fitted(name)
    small = without_training_state(model)
    as_good(small, model)
    assert not hasattr(small, "_optimizer")
    assert hasattr(model, "_optimizer") == (name != "ensemble")
    if name != "ensemble":
        assert len(pickle.dumps(small)) < len(pickle.dumps(model))
    if name in ("steps", "mlp"):
        small.partial_fit(IRIS, IRIS_Y)
        small.set_params(warm_start=True).fit(IRIS, IRIS_Y)
        assert small.score(IRIS, IRIS_Y) > 0.5


def test_without_training_state_inside_others():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MODELS["steps"]), {"softmaxclassifier__alpha": [0.1, 1]}, cv=2
    )
    search.fit(IRIS, IRIS_Y)
    small = without_training_state(search)
    assert not hasattr(small.best_estimator_[-1], "_optimizer")
    assert hasattr(search.best_estimator_[-1], "_optimizer")
    as_good(small, search)
    assert not hasattr(without_training_state(SoftmaxClassifier()), "coef_")


@pytest.mark.filterwarnings("ignore:Training came to nothing")
def test_a_module_of_a_users_is_saved_by_pickle():
    model = TorchClassifier(torch.nn.Linear, {"in_features": 4, "out_features": 3}, max_iter=2, random_state=0)
    model.fit(IRIS, IRIS_Y)
    as_good(again(model), model)
    as_good(without_training_state(model), model)
