"""The work of a search: which candidates train together, and their training and scoring as one stack."""

from __future__ import annotations

import functools
import numbers
import time
import types
import warnings
from collections.abc import Callable
from traceback import format_exc
from typing import Any, NamedTuple

import joblib
import numpy as np
from joblib.logger import short_format_time
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer
from sklearn.model_selection._validation import _fit_and_score, _score
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params, _num_samples

from skdeep._threads import at_most, threads_of_worker
from skdeep.base import BaseTorchClassifier
from skdeep.batching import MAX_VALUES
from skdeep.model_selection.choice import check_refit
from skdeep.prediction import forget_scores, share_pass
from skdeep.stacking import device_of, fit_stack, why_alone


class StackingWarning(UserWarning):
    """Candidates of a search are trained one by one."""


class _Task(NamedTuple):
    """The arguments of scikit-learn's ``_fit_and_score`` for one candidate and split."""

    estimator: Any
    X: Any
    y: Any
    options: dict[str, Any]


def with_names(function: Callable, **names) -> Callable:
    """A copy of a function in which some global names mean something else."""
    plain: Any = function
    namespace = {**plain.__globals__, **names}
    copied = types.FunctionType(plain.__code__, namespace, plain.__name__, plain.__defaults__, plain.__closure__)
    copied.__kwdefaults__ = plain.__kwdefaults__
    return copied


# ---- which candidates share a stack ----------------------------------------------------------------------------------


def final_step(estimator):
    """The classifier at the end of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _token(value):
    """Something hashable that only equal values of a parameter grid share."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


def _stack_key(task: _Task) -> tuple | str:
    """What the candidates of a stack have in common; or why this one cannot be in a stack, as text."""
    candidate, parameters = task.estimator, task.options["parameters"]
    last = candidate.steps[-1][0] if isinstance(candidate, Pipeline) else ""
    if last in parameters or (reason := why_alone(final_step(candidate))) is None:
        try:
            candidate = clone(candidate).set_params(**clone(parameters, safe=False))
        except Exception:  # scikit-learn's own code raises it where the user expects it
            return "its parameters cannot be set"
        reason = why_alone(final_step(candidate))
    if getattr(candidate, "_skl_callbacks", None):
        reason = "callbacks listen to one model at a time"
    if reason is not None:
        return reason
    prefix = f"{last}__" if last else ""
    free = {prefix + name for name in final_step(candidate)._stackable_now()}
    return tuple(sorted((name, _token(value)) for name, value in parameters.items() if name not in free))


def _stacks(tasks: list[_Task], n_workers: int) -> tuple[list[list[int]], list[int], set[str]]:
    """Indices of the tasks that train together, of those that train alone, and the reasons of the latter."""
    keys: dict[int, tuple | str] = {}
    stacks: dict[Any, list[int]] = {}
    alone, reasons = [], set()
    for i, task in enumerate(tasks):
        parameters = task.options["parameters"]
        if id(parameters) not in keys:
            keys[id(parameters)] = _stack_key(task)
        key = keys[id(parameters)]
        if isinstance(key, str):
            reasons.add(key)
            alone.append(i)
        else:
            split, _ = task.options["split_progress"]
            stacks.setdefault((split, key), []).append(i)
    # those that the workers have left in their last round are cut, for none to stand idle
    n_left = len(stacks) % n_workers
    pieces = [1] * (len(stacks) - n_left) + [n_workers // max(1, n_left)] * n_left
    parts = [np.array_split(stack, min(n, len(stack))) for stack, n in zip(stacks.values(), pieces, strict=True)]
    return [part.tolist() for stack in parts for part in stack], alone, reasons


class StackingParallel(Parallel):
    """Takes scikit-learn's ``_fit_and_score`` tasks, and runs those that can train together as one."""

    def __call__(self, iterable):
        calls = list(iterable)
        tasks = [_Task(*args, kwargs) for _, args, kwargs in calls]
        if tasks:
            options = tasks[0].options
            candidates = [task.options["parameters"] for task in tasks]
            check_refit(getattr(options["caller"], "refit", None), candidates, options["scorer"])
        n_workers = joblib.effective_n_jobs(self.n_jobs)
        in_turn = n_workers > 1 and _on_one_accelerator(tasks)
        n_workers = 1 if in_turn else n_workers
        stacks, alone, reasons = _stacks(tasks, n_workers)
        if reasons:
            warnings.warn(
                f"Some candidates are trained one by one, as scikit-learn does it: {'; '.join(sorted(reasons))}. "
                "Silence this with warnings.simplefilter('ignore', skdeep.model_selection.StackingWarning).",
                StackingWarning,
                stacklevel=7,
            )
        seed = draw_seed()
        jobs = [delayed(_fit_and_score_stack)([tasks[i] for i in stack], seed, n_workers) for stack in stacks]
        jobs += [delayed(_fit_and_score_alone)(*calls[i][1], **calls[i][2]) for i in alone]
        run = self._one_after_another if in_turn and stacks else super().__call__
        outcomes = run(jobs)
        results: list[Any] = [None] * len(calls)
        for stack, outcome in zip(stacks, outcomes, strict=False):
            for i, result in zip(stack, outcome, strict=True):
                results[i] = result
        for i, result in zip(alone, outcomes[len(stacks) :], strict=True):
            results[i] = result
        return results

    def _one_after_another(self, jobs):
        warnings.warn(
            f"n_jobs={self.n_jobs} is ignored: the workers would queue for one accelerator, each with a copy of the "
            "data. The stacks train one after another in this process.",
            UserWarning,
            stacklevel=8,
        )
        return Parallel(n_jobs=1)(jobs)


def _on_one_accelerator(tasks: list[_Task]) -> bool:
    estimator, X, y, _ = tasks[0]
    final = final_step(estimator)
    if why_alone(final) is not None:
        return False
    try:
        return device_of(final, X, y).type != "cpu"
    except Exception:  # malformed data: a fit says better what is wrong
        return False


# ---- one stack -------------------------------------------------------------------------------------------------------


class _Recorder(BaseEstimator):
    """Last step of a pipeline that keeps what its `fit` is given, in place of `estimator`."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y=None, **params):
        self.data_ = X, y, params
        return self

    def get_metadata_routing(self):
        return self.estimator.get_metadata_routing()


def draw_seed() -> int:
    """A seed for those that have none."""
    return int(check_random_state(None).randint(np.iinfo(np.int32).max))


def share_seed(candidates: list, seed: int) -> None:
    """Give the candidates without a ``random_state`` the same one, so that they see the same batches."""
    for final in map(final_step, candidates):
        if final.random_state is None:
            final.random_state = seed


def fit_candidates(candidates: list, X, y, fit_params: dict) -> list[Exception | None]:
    """Fit candidates of one stack, whose steps before the classifier they share; what the fit of each raised."""
    first = candidates[0]
    if not isinstance(first, Pipeline):
        return fit_stack(candidates, X, y, **fit_params)
    name, final = first.steps[-1]
    finals = [final_step(candidate) for candidate in candidates]
    recorder = _Recorder(final)
    first.steps = [*first.steps[:-1], (name, recorder)]
    try:
        first.fit(X, y, **fit_params)
    finally:
        first.steps = [*first.steps[:-1], (name, final)]
    for candidate, own in zip(candidates, finals, strict=True):
        candidate.steps = [*first.steps[:-1], (name, own)]
    X, y, params = recorder.data_
    return fit_stack(finals, X, y, **params)


def _transformed(pipeline: Pipeline, X):
    """What the steps before the classifier make of X, as the pipeline's own methods do it."""
    for _, _, step in pipeline._iter(with_final=False):
        X = step.transform(X)
    return X


#: Methods of a classifier that a score may come from without its probabilities.
_METHODS = ("predict", "decision_function", "score")


def _scorers_of(scorer) -> list:
    """The scorers of a search, one by one."""
    return list(scorer._scorers.values()) if isinstance(scorer, _MultimetricScorer) else [scorer]


def _only_asks(scorer) -> bool:
    """Whether a scorer does nothing to an estimator but call its methods; a user's own may do anything."""
    return all(isinstance(one, _BaseScorer | _PassthroughScorer) for one in _scorers_of(scorer))


def _has_own_methods(final) -> bool:
    """Whether a classifier has methods of a user's, which may call any other."""
    return any(getattr(type(final), name) is not getattr(BaseTorchClassifier, name) for name in _METHODS)


def _speaks_to_the_classifier(estimator, scorer) -> bool:
    """Whether a scorer only calls methods that the estimator, a pipeline, hands on to its last step."""
    return type(estimator) is Pipeline and _only_asks(scorer) and not get_config()["enable_metadata_routing"]


def _needs_probabilities(final, scorer) -> bool:
    """Whether a score of a classifier (that also has a ``decision_function``) depends on ``predict_proba``."""
    if _has_own_methods(final):
        return True
    return not all(isinstance(one, _PassthroughScorer) or _first_method(one) in _METHODS for one in _scorers_of(scorer))


def _first_method(scorer) -> str | None:
    """The method that a scorer prefers; None if it does not say."""
    methods = getattr(scorer, "_response_method", None)
    return methods[0] if isinstance(methods, list | tuple) else methods


#: Arguments of ``fit`` that do not belong to the rows of X, however many there are.
_VALIDATION = frozenset({"X_val", "y_val", "sample_weight_val"})


def _names_of_validation(estimator) -> frozenset[str]:
    """What the validation data of a classifier may be called by who calls ``fit``."""
    final = final_step(estimator)
    if not get_config()["enable_metadata_routing"] or not hasattr(final, "_get_metadata_request"):
        return _VALIDATION
    requests = final._get_metadata_request().fit.requests
    return _VALIDATION | {alias for name in _VALIDATION if isinstance(alias := requests.get(name), str)}


def _part_of_params(X, params: dict, indices=None, *, whole: frozenset[str]) -> dict:
    """What scikit-learn makes of the arguments of a method for some rows of X, with some arguments left whole.

    It takes a part of every argument that has as many rows as X, and so of validation data that happens to have them.
    """
    rest = {name: value for name, value in params.items() if name.rpartition("__")[2] not in whole}
    return {**params, **_check_method_params(X, params=rest, indices=indices)}


def _fit_and_score_alone(estimator, *args, **options) -> dict:
    """What ``_fit_and_score`` returns, with validation data left whole."""
    part = functools.partial(_part_of_params, whole=_names_of_validation(estimator))
    return with_names(_fit_and_score, _check_method_params=part)(estimator, *args, **options)


def _fit_and_score_stack(tasks: list[_Task], seed: int, n_workers: int) -> list[dict]:
    """What ``_fit_and_score`` returns, for all candidates of one stack."""
    with at_most(threads_of_worker(n_workers)):
        return _evaluate(tasks, seed)


def _evaluate(tasks: list[_Task], seed: int) -> list[dict]:
    _, X, y, options = tasks[0]
    train, test, scorer, error_score = (options[k] for k in ("train", "test", "scorer", "error_score"))
    if not isinstance(error_score, numbers.Number) and error_score != "raise":
        raise ValueError(
            "error_score must be the string 'raise' or a numeric value. (Hint: if using 'raise', please make sure that "
            "it has been spelled correctly.)"
        )
    candidates = [task.estimator.set_params(**clone(task.options["parameters"], safe=False)) for task in tasks]
    share_seed(candidates, seed)
    for final in map(final_step, candidates):
        if not _needs_probabilities(final, scorer):
            final._leave_out_probabilities()
    fit_params = _part_of_params(X, options["fit_params"] or {}, train, whole=_names_of_validation(candidates[0]))
    score_params = [_check_method_params(X, params=options["score_params"] or {}, indices=i) for i in (train, test)]
    metadata = {"sample_weight": fit_params["sample_weight"]} if fit_params.get("sample_weight") is not None else None
    for task in tasks:
        _announce(task)
    start = time.time()
    X_train, y_train = _safe_split(candidates[0], X, y, train)
    X_test, y_test = _safe_split(candidates[0], X, y, test, train)
    told = {"estimator": options["caller"], "X": X_train, "y": y_train, "metadata": metadata}
    contexts = [task.options["callback_ctx"] for task in tasks]
    for context in contexts:
        if context is not None:
            context.call_on_fit_task_begin(**told)
    try:
        failures = fit_candidates(candidates, X_train, y_train, fit_params)
    except Exception as error:  # of a step before the classifier: it is every candidate's
        failures = [error] * len(tasks)
    parts = [(X_test, y_test, score_params[1])]
    parts += [(X_train, y_train, score_params[0])] if options["return_train_score"] else []
    direct = _speaks_to_the_classifier(candidates[0], scorer) and None in failures
    if direct:
        try:
            parts = [(_transformed(candidates[0], Z), t, params) for Z, t, params in parts]
        except Exception:  # of a step that cannot transform the data to score on: scoring raises it as well
            direct = False
    fit_time = (time.time() - start) / len(tasks)
    start = time.time()
    finals = [final_step(candidate) for candidate, failure in zip(candidates, failures, strict=True) if failure is None]
    alone = len(finals) < 2 or (isinstance(candidates[0], Pipeline) and not direct)
    if not alone and _only_asks(scorer) and not _has_own_methods(finals[0]):
        _share_passes(finals, parts)
    shared_time = (time.time() - start) / len(tasks)
    results = []
    for task, candidate, failure, context in zip(tasks, candidates, failures, contexts, strict=True):
        start = time.time()
        try:
            scores = _scores(final_step(candidate) if direct else candidate, failure, parts, scorer, error_score)
        finally:
            forget_scores(final_step(candidate))
            if context is not None:
                context.call_on_fit_task_end(**told)
        result: dict[str, Any] = {"fit_error": None if failure is None else _trace(failure), "test_scores": scores[0]}
        if options["return_train_score"]:
            result["train_scores"] = scores[1]
        score_time = 0.0 if failure is not None else time.time() - start + shared_time
        result |= {"n_test_samples": _num_samples(X_test), "fit_time": fit_time, "score_time": score_time}
        _report(task, result)
        results.append(result)
    return results


def _share_passes(finals: list, parts: list) -> None:
    """Compute the scores of the rows to score on for all classifiers at once, where that takes little memory."""
    n_features, n_outputs = finals[0].n_features_in_, finals[0].n_outputs_
    for Z, *_ in parts:
        if len(finals) * max(_num_samples(Z) * n_outputs, finals[0]._n_params(n_features, n_outputs)) <= MAX_VALUES:
            try:
                share_pass(finals, Z)
            except Exception:  # scoring raises it as well, for each of them
                return


def _trace(failure: Exception) -> str:
    try:
        raise failure
    except Exception:
        return format_exc()


def _scores(estimator, failure, parts, scorer, error_score) -> list:
    """The scores on each of the parts; the error score where training failed."""
    if failure is None:
        return [_score(estimator, Z, t, scorer, params, error_score) for Z, t, params in parts]
    if error_score == "raise":
        raise failure
    if isinstance(scorer, _MultimetricScorer):
        return [dict.fromkeys(scorer._scorers, error_score) for _ in range(2)]
    return [error_score] * 2


def _heading(task: _Task) -> tuple[str, str]:
    """Progress and parameters of a task, as scikit-learn prints them."""
    options, verbose = task.options, task.options["verbose"]
    (split, n_splits), (number, n_candidates) = options["split_progress"], options["candidate_progress"]
    progress = f" {split + 1}/{n_splits}" if verbose > 2 else ""
    progress += f"; {number + 1}/{n_candidates}" if verbose > 9 else ""
    return progress, ", ".join(f"{k}={v}" for k, v in sorted(options["parameters"].items()))


def _announce(task: _Task) -> None:
    """Print what scikit-learn prints before a fit, at the same verbosity."""
    if task.options["verbose"] > 9:
        message = "[CV{}] START {}".format(*_heading(task))
        print(f"{message}{'.' * (80 - len(message))}")


def _report(task: _Task, result: dict) -> None:
    """Print what scikit-learn prints after scoring, at the same verbosity."""
    if (verbose := task.options["verbose"]) <= 1:
        return
    progress, message = _heading(task)
    message += ";" if message else ""
    if verbose > 2:
        test, train = result["test_scores"], result.get("train_scores")
        if isinstance(test, dict):
            for name in sorted(test):
                before = "" if train is None else f"train={train[name]:.3f}, "
                message += f" {name}: ({before}test={test[name]:.3f})"
        else:
            message += f", score={test:.3f}" if train is None else f", score=(train={train:.3f}, test={test:.3f})"
    message += f" total time={short_format_time(result['fit_time'] + result['score_time'])}"
    head = f"[CV{progress}] END "
    print(f"{head}{'.' * (80 - len(head) - len(message))}{message}")
