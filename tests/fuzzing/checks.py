"""What must hold of a fitted estimator, and of a fit that was refused."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from helpers import configured
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning

import skdeep
from fuzzing.cases import Case, get, parameters
from fuzzing.data import Data
from fuzzing.modules import MODULES
from fuzzing.refusals import may_refuse_new, usable

#: What a message may be about, beside the names of parameters.
_DATA = (
    "X y X_val y_val sample_weight sample_weight_val class classes classes_ column columns feature features sample "
    "samples row rows label labels target weight weights NaN infinity array module partial_fit warm_start scores"
).split()
#: What others warn of, rightly.
_KNOWN_WARNINGS = (
    "The number of unique classes is greater than 50%",
    "Only one class is present in y_true",
    "A single label was found in 'y_true'",
    "y_pred contains classes not in y_true",
    "invalid value encountered in cast",
    "overflow encountered in cast",
    "Initializing zero-element tensors is a no-op",
    "All coefficients are zero at the optimum",
    "The scores of rows that a model was not trained on do not rise",
    "standardize=False trains on the columns of X as they are",
    "Weights (sample_weight, class_weight) make all",
    "Predictions have X's dtype",
)


#: Steps that a fit takes at most, so that an example takes milliseconds.
_MAX_STEPS = 200


class Broken(AssertionError):
    """Something that must hold does not.

    Parameters
    ----------
    what : str
        The same for all examples of a fault.
    detail : str
        What was seen.
    """

    def __init__(self, what: str, detail: str = ""):
        super().__init__(f"{what}: {detail}" if detail else what)
        self.what = what


def demand(holds: bool, what: str, detail: str = "") -> None:
    if not holds:
        raise Broken(what, detail)


class Refused(Exception):
    """A fit was refused, in the way that it may be."""


def make(case: Case, **others):
    """The estimator of a case."""
    params = parameters(case) | {"device": "cpu"} | others
    if params["batch_size"] not in ("auto", 1000):  # at most so many steps that an example takes milliseconds
        params["max_iter"] = min(params["max_iter"], max(1, _MAX_STEPS * params["batch_size"] // get(case, "rows")))
    if params.get("class_weight") == "by label":
        n_classes = get(case, "classes")
        if get(case, "labels") == "indicators":
            params["class_weight"] = [{0: 1.0, 1: 2.0}] * max(2, n_classes)
        else:
            from fuzzing.data import labelled

            names = labelled(np.arange(n_classes), get(case, "labels"))
            params["class_weight"] = {name: 1.0 + i for i, name in enumerate(names)}
    if "module" in params:
        params["module"] = MODULES[params["module"]]
    params = {k: tuple(v) if k == "hidden_layer_sizes" and isinstance(v, list) else v for k, v in params.items()}
    cls = getattr(skdeep, case["estimator"])
    own = inspect.signature(cls).parameters
    # a solver by its name has its default settings, and "auto" no others
    params = {name: value for name, value in params.items() if name in own or name in case}
    if params["solver"] == "auto":
        params.pop("max_fun", None)
    return configured(cls, **params)


# ---- the world around ------------------------------------------------------------------------------------------------


def frozen(value):
    """Something that compares equal only to what holds the same."""
    if isinstance(value, torch.Tensor):
        return ("tensor", frozen(value.detach().numpy()))
    if isinstance(value, torch.nn.Module):
        return (type(value).__name__, value.training, *((k, frozen(v)) for k, v in value.state_dict().items()))
    if sparse.issparse(value):
        return (
            type(value).__name__,
            value.shape,
            *map(frozen, (value.data, value.indices, getattr(value, "indptr", 0))),
        )
    if isinstance(value, np.ndarray) and value.dtype != object:
        return ("array", value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, np.random.Generator):
        return frozen(value.bit_generator.state)
    if isinstance(value, dict):
        return ("dict", *((str(key), frozen(part)) for key, part in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(frozen, value))
    if hasattr(value, "to_numpy"):
        return ("frame", tuple(value.columns), frozen(value.to_numpy()))
    if hasattr(value, "__dict__") and not callable(value) and not isinstance(value, type):
        return (type(value).__name__, frozen(vars(value)))
    return repr(value)


def _settings():
    """Global state that a fit has to leave alone."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    torch_settings = (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.empty(0).device,  # torch.get_default_device fails in torch 2.6 after a reset
        torch.are_deterministic_algorithms_enabled(),
    )
    return keys.tobytes(), rest, torch.get_rng_state().numpy().tobytes(), torch_settings, np.geterr()


@contextmanager
def untouched(*arguments):
    """Check that the block changes no argument and no global state, and warns of nothing that is not documented."""
    before, settings = frozen(arguments), _settings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    demand(frozen(arguments) == before, "an argument was written to")
    demand(_settings() == settings, "global state was changed")
    for warning in caught:
        known = issubclass(warning.category, ConvergenceWarning | UndefinedMetricWarning)
        known |= str(warning.message).startswith(_KNOWN_WARNINGS)
        demand(known, f"warning {warning.category.__name__}: {str(warning.message)[:60]}", str(warning.message))


def check_message(error: Exception, estimator) -> None:
    """Check that a refusal is one, and says what it is about."""
    demand(isinstance(error, ValueError | TypeError), "another error than ValueError and TypeError", repr(error))
    words = set(re.findall(r"\w+", str(error)))
    about = words & {*_DATA, *(name.split("__")[-1] for name in estimator.get_params())}
    demand(bool(about), "a message without the name of a parameter or of the data", repr(error))
    foreign = re.search(
        r"mat1|dtype.*dtype|size of tensor|out of bounds|buffer source|object has no attr|Expected .* per channel",
        str(error),
    )
    demand(foreign is None, "a message from inside", repr(error))


# ---- a fitted estimator ----------------------------------------------------------------------------------------------


def answers(estimator, X) -> dict[str, np.ndarray]:
    """All that an estimator says of some rows."""
    with untouched(X):
        found = {"predict": estimator.predict(X), "decision_function": estimator.decision_function(X)}
        if hasattr(estimator, "predict_proba"):
            found |= {name: getattr(estimator, name)(X) for name in ("predict_proba", "predict_log_proba")}
    return found


def check_answers(estimator, found: dict[str, np.ndarray], n_rows: int) -> None:
    """Check that labels, scores and probabilities are finite and agree."""
    classes, multilabel = estimator.classes_, getattr(estimator, "_target_is_multilabel", False)
    scores, labels, n_classes = found["decision_function"], found["predict"], len(classes)
    demand(np.isfinite(scores).all(), "scores that are not finite", repr(scores))
    two = n_classes == 2 and not multilabel
    expected = (n_rows,) if n_classes <= 2 and not multilabel else (n_rows, n_classes)
    demand(scores.shape == expected, "the shape of decision_function", f"{scores.shape}, expected {expected}")
    if multilabel:
        demand(np.array_equal(labels, scores > 0), "predict is not the sign of decision_function", f"{labels} {scores}")
    elif n_classes > 1:
        codes = (scores > 0).astype(int) if two else scores.argmax(1)
        demand(np.array_equal(labels, classes[codes]), "predict is not the best score", f"{labels} {scores}")
    if "predict_proba" not in found:
        return
    p, log_p = found["predict_proba"], found["predict_log_proba"]
    demand(p.shape == (n_rows, n_classes) == log_p.shape, "the shape of predict_proba", f"{p.shape}")
    demand(bool(np.isfinite(p).all() and (p >= 0).all() and (p <= 1 + 1e-6).all()), "no probabilities", repr(p))
    eps = np.finfo(p.dtype).eps
    if multilabel:
        demand(np.array_equal(labels, p > 0.5), "predict is not the more probable answer", f"{labels} {p}")
    else:
        demand(
            np.abs(p.sum(1) - 1).max() <= 20 * eps * n_classes, "probabilities do not sum to one", repr(p.sum(1) - 1)
        )
        demand(np.array_equal(labels, classes[p.argmax(1)]), "predict is not the most probable class", f"{labels} {p}")
    demand(bool(np.isfinite(log_p).all()), "log-probabilities that are not finite", repr(log_p))
    certain = p > np.finfo(p.dtype).tiny ** 0.5
    error = np.abs(np.exp(log_p[certain]) - p[certain])
    demand(
        bool((error <= 1e-12 * (1 if p.dtype == np.float64 else 1e7) + 30 * eps).all()),
        "log-probabilities of others",
        repr(error),
    )


def check_fitted(estimator, case: Case, data: Data) -> dict[str, np.ndarray]:
    """Check everything that holds of any fitted estimator; what it says of the training rows."""
    found = answers(estimator, data.X)
    check_answers(estimator, found, len(data.values))
    try:
        of_new = answers(estimator, data.X_new)
    except ValueError as error:
        check_message(error, estimator)
        demand(may_refuse_new(case, data), "plain new rows were refused", str(error))
    else:
        demand(usable(data.new, case, data), "new rows that are missing or infinite were accepted")
        check_answers(estimator, of_new, len(data.new))
    with untouched():
        loaded = pickle.loads(pickle.dumps(estimator))
    demand_same_bits(answers(loaded, data.X), found, "pickling changes the answers")
    for name in ("coef_", "intercept_", "coefs_", "intercepts_", "loss_curve_", "loss_", "best_loss_"):
        value = getattr(estimator, name, None)
        for part in value if isinstance(value, list) else [] if value is None else [value]:
            part = part.data if sparse.issparse(part) else part
            demand(bool(np.isfinite(part).all()), f"{name} is not finite", repr(part))
    demand(isinstance(estimator.n_iter_, int) and 1 <= estimator.n_iter_, "n_iter_ is no number of epochs")
    if "oof_proba_" in vars(estimator):
        known = ~np.isnan(estimator.oof_proba_).all(1)
        p = estimator.oof_proba_[known]
        demand(bool(np.isfinite(p).all()), "oof_proba_ is not finite", repr(p))
        sums = p.sum(1) if not getattr(estimator, "_target_is_multilabel", False) else np.ones(len(p))
        demand(bool(np.allclose(sums, 1, atol=1e-5)), "oof_proba_ does not sum to one", repr(sums))
        demand(bool(np.isfinite(estimator.oof_score_)), "oof_score_ is not finite")
    return found


def demand_same_bits(found: dict, expected: dict, what: str) -> None:
    for name, value in expected.items():
        demand(np.array_equal(found[name], value), what, f"{name}: {found[name]} instead of {value}")


def demand_close(found: dict, expected: dict, what: str, tolerance: float) -> None:
    """Compare probabilities, or scores relative to the largest, where there are none."""
    name = "predict_proba" if "predict_proba" in expected else "decision_function"
    a, b = found[name], expected[name]
    size = 1.0 if name == "predict_proba" else max(1.0, np.abs(b).max())
    difference = np.abs(a - b).max() / size
    demand(bool(difference <= tolerance), what, f"{name} differs by {difference:.3g}: {a} instead of {b}")
