"""How good a fitted estimator must be on its training data."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, xlogy
from sklearn.exceptions import ConvergenceWarning

from fuzzing.cases import Case, get, options_of
from fuzzing.checks import demand
from fuzzing.data import Data
from skdeep.fitting.settings import settings_of

_DEEP = {"MLPClassifierTorch", "MLPEnsembleClassifier", "TorchClassifier"}


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
    # (by Adam's, of a bounded length, at some 3 % of what is left in an epoch)
    left = 30 if get(case, "solver") == "adam" else 10
    kinked = case["estimator"] == "HingeClassifier" and get(case, "loss") == "hinge"
    if kinked and weight.max() > 0.9 * weight.sum():
        left = 100  # past the kink of one row, a loss falls evenly: where a gain per epoch is below tol, all of it is
    almost = 0.05 if case["estimator"] in _DEEP else 1e-6 + left * get(case, "tol")
    if estimator.calibration is not None:
        # a calibration makes scores more or less certain, and has no part for the frequencies of classes, or half an
        # observation against them: rows of a rare class that a model had not seen may cost it the other's certainty
        reached = log_loss(found["predict_proba"], data.codes, weight)
        bar = 1.1 * (np.log(2) * n_outputs if data.codes.ndim == 2 else np.log(max(2, n_outputs)))
        demand(
            reached <= bar + almost,
            "calibrated probabilities are worse than none",
            f"log-loss {reached:.4g}, not below {bar:.4g}",
        )
        return "calibrated"
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
    if any(str(warning.message).startswith(("Maximum ", "The scores of rows")) for warning in caught):
        return False  # the user knows
    weight = total_weight(estimator, data)
    if weight[weight > 0].min() < 1e-6:
        return False
    if settings_of(estimator).precision == "bfloat16":
        return False
    if estimator.calibration is not None and len(data.values) < 20:
        return False
    if solver == "exact":
        return True
    raw = name == "TorchClassifier" or not estimator.standardize
    raw = raw and (get(case, "scale") != 1.0 or get(case, "mean") > 3 or get(case, "values") == "outlier")
    if raw and get(case, "scale") == "very mixed":
        return False
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
    # a cosine that a plateau may end has not come down: "auto" has none of that, and neither has inf
    ends = get(case, "n_iter_no_change") == np.inf and estimator.solver_ == "sgd"
    schedules = {"constant", "invscaling"} if ends else {"cosine", "constant", "invscaling"}
    schedules -= {options_of(case["estimator"])["learning_rate"].values[0]}
    return short or not params.isdisjoint(case) or get(case, "learning_rate") in schedules


def _is_noisy(estimator, case: Case) -> bool:
    """Whether the network of an epoch is not that of predictions."""
    if case["estimator"] == "TorchClassifier":
        return get(case, "module") in ("dropout", "batch norm")
    if case["estimator"] not in _DEEP:
        return False
    return bool(estimator.dropout or estimator.stochastic_depth or estimator.normalization == "batch")
