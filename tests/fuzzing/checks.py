"""What must hold of a fitted estimator, and of a fit that was refused."""

from __future__ import annotations

import pickle
import re
import warnings
from contextlib import contextmanager

import numpy as np
import torch
from scipy import sparse
from scipy.special import logsumexp, xlogy
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
    "The scores of rows that a model was not trained on do not rise",
)


#: Steps that a fit takes at most, so that an example takes milliseconds.
_MAX_STEPS = 200
_DEEP = {"MLPClassifierTorch", "MLPEnsembleClassifier", "TorchClassifier"}


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
    return getattr(skdeep, case["estimator"])(**params)


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
        torch.get_default_device(),
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
    about = words & {*_DATA, *estimator.get_params()}
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


# ---- the bar ---------------------------------------------------------------------------------------------------------


def total_weight(estimator, data: Data) -> np.ndarray:
    """Sample weight times class weight, in the simple cases that the bar is demanded of."""
    weight = data.weight / data.weight.max()
    if estimator.class_weight is None:
        return weight
    from sklearn.utils import compute_class_weight, compute_sample_weight

    if data.codes.ndim == 2 and estimator.class_weight == "balanced":
        for yes in data.codes.T == 1:
            share = np.where(yes, np.average(yes, weights=data.weight), np.average(~yes, weights=data.weight))
            weight = weight / np.where((share > 0) & (share < 1), 2 * share, 1)
        return weight
    if data.codes.ndim == 2:
        return weight * compute_sample_weight(estimator.class_weight, data.codes)
    labels = np.asarray(data.y)
    if estimator.class_weight != "balanced":
        return weight * np.array([estimator.class_weight[label] for label in labels])
    there = weight > 0
    classes = np.unique(labels[there])
    factors = compute_class_weight("balanced", classes=classes, y=labels[there], sample_weight=weight[there])
    table = dict(zip(classes.tolist(), factors, strict=True))
    return weight * np.array([table.get(label, 0.0) for label in labels.tolist()])


def log_loss(p: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> float:
    """The mean log-loss of class probabilities, or the summed one of labels."""
    tiny = np.finfo(np.float64).tiny
    p = p.astype(np.float64)
    losses = (
        -np.log(np.maximum(p[np.arange(len(p)), codes], tiny))
        if codes.ndim == 1
        else -np.where(codes == 1, np.log(np.maximum(p, tiny)), np.log(np.maximum(1 - p, tiny))).sum(1)
    )
    return float(np.average(losses, weights=weight))


def frequency_loss(codes: np.ndarray, weight: np.ndarray) -> float:
    """The log-loss of the (weighted) frequencies of the classes or labels."""
    if codes.ndim == 1:
        f = np.bincount(codes, weights=weight) / weight.sum()
        return float(-xlogy(f, f).sum())
    f = np.average(codes, axis=0, weights=weight)
    return float(-(xlogy(f, f) + xlogy(1 - f, 1 - f)).sum())


def own_loss(estimator, scores: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> float:
    """The mean of the loss that was minimised, written out in NumPy."""
    s = scores.reshape(len(scores), -1).astype(np.float64)
    target = codes if codes.ndim == 2 else codes[:, None] == (np.arange(s.shape[1]) if s.shape[1] > 1 else 1)
    target = 2.0 * target - 1
    name = type(estimator).__name__
    if name == "LeastSquaresClassifier":
        losses = ((s - target) ** 2).sum(1) / 2
    elif name == "HingeClassifier":
        if s.shape[1] == 1 or estimator.multi_class == "ovr":
            margins = np.maximum(1 - target * s, 0)
        else:
            margins = np.maximum(s - (s * (target > 0)).sum(1, keepdims=True) + 1, 0) * (target < 0)
        margins = margins**2 if estimator.loss == "squared_hinge" else margins
        worst = s.shape[1] > 1 and estimator.multi_class == "crammer_singer"
        losses = margins.max(1) if worst else margins.sum(1)
    elif name == "SigmoidClassifier" or codes.ndim == 2 or s.shape[1] == 1:
        losses = np.logaddexp(0, -target * s).sum(1)
    else:
        losses = logsumexp(s, axis=1) - (s * (target > 0)).sum(1)
    return float(np.average(losses, weights=weight))


def constant_loss(estimator, codes: np.ndarray, weight: np.ndarray, n_outputs: int) -> float:
    """The own loss of the best scores that are seen at once: zero, or, with an intercept, those of the frequencies."""
    n = len(codes)
    candidates = [np.zeros(n_outputs)]
    if getattr(estimator, "fit_intercept", True):
        one_hot = codes if codes.ndim == 2 else (codes[:, None] == (np.arange(n_outputs) if n_outputs > 1 else 1))
        f = np.average(one_hot, axis=0, weights=weight)
        name = type(estimator).__name__
        with np.errstate(divide="ignore"):
            if name == "LeastSquaresClassifier":
                candidates.append(2 * f - 1)
            elif name == "HingeClassifier":
                candidates.append(np.where(f == f.max(), 1.0, -1.0) if n_outputs > 1 else np.where(f > 0.5, 1.0, -1.0))
            elif name == "SigmoidClassifier" or n_outputs == 1 or codes.ndim == 2:
                candidates.append(np.clip(np.log(f) - np.log1p(-f), -40, 40))
            else:
                candidates.append(np.clip(np.log(f), -40, 0))
    return min(own_loss(estimator, np.tile(s, (n, 1)), codes, weight) for s in candidates)


def check_bar(estimator, case: Case, data: Data, found: dict, caught: list) -> str | None:
    """Check that training was not in vain, where it had a chance, and else is said to have been; which bar was met."""
    weight, scores = total_weight(estimator, data), found["decision_function"]
    n_outputs = scores.reshape(len(scores), -1).shape[1]
    minimised = not (estimator.early_stopping or getattr(estimator, "label_smoothing", 0))
    minimised = minimised and len(estimator.classes_) > 1 and bool((weight > 0).any())
    silent = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    silent &= case["estimator"] != "MLPEnsembleClassifier" and not _is_noisy(estimator, case)
    if silent and minimised and estimator.calibration != "sigmoid":  # which is in the scores
        reached, bar = (own_loss(estimator, s, data.codes, weight) for s in (scores, np.zeros_like(scores)))
        demand(
            reached <= 1.06 * bar + 1e-6,
            "a training loss above that of scores of zero, without a word",
            f"{reached:.4g}, scores of zero have {bar:.4g}",
        )
    if not minimised or not _had_a_chance(estimator, case, data, caught):
        return "scores of zero" if silent and minimised else None
    # a loss that is all but zero: it is ended by tol, or comes down as slowly as an intercept rises
    almost = 0.05 if case["estimator"] in _DEEP else 1e-6 + 10 * get(case, "tol")
    if estimator.calibration is not None:
        reached, bar, what = log_loss(found["predict_proba"], data.codes, weight), 0.0, "calibrated, frequencies"
        if estimator.calibration == "sigmoid":
            bar = 1.05 * frequency_loss(data.codes, weight)
        else:
            # a temperature makes scores more or less certain, and has no part for the frequencies of the classes: rows
            # of a rare one that a model had not seen may cost it the other's certainty
            what, bar = (
                "calibrated",
                1.1 * (np.log(2) * n_outputs if data.codes.ndim == 2 else np.log(max(2, n_outputs))),
            )
        demand(
            reached <= bar + almost,
            "calibrated probabilities are worse than none",
            f"log-loss {reached:.4g}, not below {bar:.4g}",
        )
        return what
    reached, bar = (
        own_loss(estimator, scores, data.codes, weight),
        constant_loss(estimator, data.codes, weight, n_outputs),
    )
    share = 0.08 if case["estimator"] == "HingeClassifier" else 0.05
    demand(
        reached <= (1 + share) * bar + almost,
        "the training loss is above that of constant scores",
        f"{reached:.4g}, constant scores have {bar:.4g}",
    )
    if "predict_proba" not in found or not getattr(estimator, "fit_intercept", True):
        return "own loss"
    one_vs_rest = case["estimator"] == "SigmoidClassifier" and n_outputs > 1 and data.codes.ndim == 1
    reached, bar = log_loss(found["predict_proba"], data.codes, weight), frequency_loss(data.codes, weight)
    demand(
        reached <= (1.1 if one_vs_rest else 1.05) * bar + almost,  # the sum of answers to several questions is not one
        "the log-loss is above that of the class frequencies",
        f"{reached:.4g} > {bar:.4g}",
    )
    return "frequencies"


def _had_a_chance(estimator, case: Case, data: Data, caught: list) -> bool:
    """Whether training was long enough, by settings that lead to an optimum, on weights that mean what they say."""
    name, solver = case["estimator"], get(case, "solver")
    if any(str(warning.message).startswith(("Maximum iterations", "The scores of rows")) for warning in caught):
        return False  # the user knows
    weight = total_weight(estimator, data)
    if weight[weight > 0].min() < 1e-6:
        return False
    if estimator.precision == "bfloat16":
        return False
    if estimator.calibration is not None and len(data.values) < 20:
        return False
    if solver == "exact":
        return True
    raw = name == "TorchClassifier" or not estimator.standardize
    raw = raw and (get(case, "scale") != 1.0 or get(case, "mean") > 3 or get(case, "values") == "outlier")
    if getattr(estimator, "solver_", solver) == "lbfgs":
        enough = estimator.max_iter >= (60 if name in _DEEP else 200)
        return enough and get(case, "max_fun") == 15000 and get(case, "tol") <= 1e-3 and not (raw and name in _DEEP)
    if solver == "adamw" and (get(case, "alpha") == "auto" or get(case, "alpha") > 0.01):
        return False  # its decay is no part of the objective, by which it is stopped
    if raw or _is_untuned(estimator, case):
        return False
    if name not in _DEEP:
        return estimator.max_iter >= 200 and "learning_rate_init" not in case
    long = estimator.max_iter >= 200 and estimator.learning_rate_init == 0.05  # the default rate is for more steps
    return long and not _is_noisy(estimator, case) and solver != "sgd" and estimator.alpha <= 1


def _is_untuned(estimator, case: Case) -> bool:
    """Whether first-order training has parameters beside their defaults that need not lead anywhere."""
    params = {"warmup_epochs", "max_grad_norm"}
    params |= {"momentum"} if estimator.solver_ == "sgd" else {"beta_1", "beta_2", "epsilon"}
    short = get(case, "tol") > 1e-3 or get(case, "n_iter_no_change") == 1
    return short or not params.isdisjoint(case) or get(case, "learning_rate") in ("constant", "invscaling")


def _is_noisy(estimator, case: Case) -> bool:
    """Whether the network of an epoch is not that of predictions."""
    if case["estimator"] == "TorchClassifier":
        return get(case, "module") in ("dropout", "batch norm")
    if case["estimator"] not in _DEEP:
        return False
    return bool(estimator.dropout or estimator.stochastic_depth or estimator.normalization == "batch")
