"""The evaluation of a stack: scikit-learn's ``_fit_and_score`` for each candidate, the first of which trains all."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import reduce
from itertools import compress
from typing import Any, Self

from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object

from skdeep.compat.sklearn import _fit_and_score, _MultimetricScorer, _num_samples, _PassthroughScorer
from skdeep.data.answers import own_methods
from skdeep.data.inputs import Data, OutputSpace, check_features
from skdeep.data.scoring import only_asks, scorers_of
from skdeep.engine.rows import MAX_VALUES
from skdeep.engine.threads import at_most
from skdeep.estimators.prediction import scores_of_members
from skdeep.model_selection._sklearn import Taken, Whole, copied
from skdeep.model_selection.evaluation import (
    Task,
    final_step,
    fit_candidates,
    is_promised,
    share_seed,
    steps_before,
    together,
)

# ---- validation data -------------------------------------------------------------------------------------------------


#: Arguments of ``fit`` that do not belong to the rows of X, however many there are.
_VALIDATION = frozenset({"X_val", "y_val", "sample_weight_val"})


def _names_of_validation(final: BaseEstimator) -> frozenset[str]:
    """List the names that the validation data of a classifier may have for callers of ``fit``."""
    if not get_config()["enable_metadata_routing"]:
        return _VALIDATION
    requests = getattr(getattr(get_routing_for_object(final), "fit", None), "requests", {})
    return _VALIDATION | {alias for name in _VALIDATION if isinstance(alias := requests.get(name), str)}


def _with_whole(task: Task) -> dict[str, Any]:
    """Wrap the arguments of ``fit`` so that scikit-learn takes parts of all but the validation data.

    Else it would do so wherever they happen to have as many rows as X.
    """
    names, params = _names_of_validation(final_step(task.estimator)), task.options["fit_params"] or {}
    return {
        name: Whole(value, _num_samples(task.X)) if name.rpartition("__")[2] in names and value is not None else value
        for name, value in params.items()
    }


def with_whole_validation(call: tuple, task: Task) -> tuple:
    """Change a call of ``_fit_and_score`` so that an estimator of ours gets its validation data whole."""
    if not is_promised(task):
        return call
    function, *_ = call
    return function, (task.estimator, task.X, task.y), {**task.options, "fit_params": _with_whole(task)}


# ---- what a scorer asks for ------------------------------------------------------------------------------------------


#: Methods of a classifier that a score may come from without its probabilities.
_METHODS = {"predict", "decision_function", "score"}


def _shares_rows(estimator: BaseEstimator, scorer: Callable) -> bool:
    """Say whether candidates can be asked about the same rows: scikit-learn's scorers call methods of ours only.

    A pipeline hands these on to its last step, where no metadata is routed. Whoever else gets rows may write to them.
    """
    if not only_asks(scorer) or own_methods(final_step(estimator)):
        return False
    return not isinstance(estimator, Pipeline) or (
        type(estimator) is Pipeline and not get_config()["enable_metadata_routing"]
    )


def _needs_probabilities(final: BaseEstimator, scorer: Callable) -> bool:
    """Say whether a score of a classifier (that also has a ``decision_function``) depends on ``predict_proba``."""
    if not _METHODS.isdisjoint(own_methods(final)):  # which may call any other
        return True
    first = (next(iter(methods_of(one)), None) for one in scorers_of(scorer) if not isinstance(one, _PassthroughScorer))
    return not all(method in _METHODS for method in first)


def methods_of(scorer: Any) -> list[str]:
    """Name the methods that a scorer asks for, in its order; none if it does not say."""
    methods = getattr(scorer, "_response_method", [])
    return [methods] if isinstance(methods, str) else list(methods)


# ---- the candidates of a stack ---------------------------------------------------------------------------------------


class _Stack:
    """Candidates that see the same rows: trained as soon as the first of them is to be, scored together."""

    def __init__(self, candidates: list, scorer: Callable) -> None:
        self.candidates = candidates
        self.scorer = scorer
        self._failures: list[tuple[Exception | None, Any]] = []
        self._parts: list[tuple[list, Any]] = []

    def train(self, number: int, X: Data, y: Data, params: dict) -> None:
        """Train all candidates, if they are not trained yet; raise what the fit of one of them raised."""
        if not self._failures:
            try:
                raised = fit_candidates(self.candidates, X, y, params, self._needs_probabilities)
            except Exception as error:  # of a step before the classifier: it is every candidate's
                raised = [error] * len(self.candidates)
            self._failures = [(failure, getattr(failure, "__traceback__", None)) for failure in raised]
        failure, trace = self._failures[number]
        if failure is not None:
            raise failure.with_traceback(trace)

    @property
    def _needs_probabilities(self) -> bool:
        """Whether more is asked for than what a temperature leaves as it is: order and sign of the scores."""
        final = final_step(self.candidates[0])
        plain = final.calibration == "temperature" and not final._averages_probabilities
        return not plain or _needs_probabilities(final, self.scorer)

    def score(self, number: int, part: int, X: Data, *y: Data, **params: Any) -> Any:
        """Score one candidate on the test rows (part 0) or the training rows (1)."""
        if not _shares_rows(self.candidates[0], self.scorer):
            if part == 1:  # training may have written to these rows, and does so once
                X = copied(X)
            return self.scorer(self.candidates[number], X, *y, **params)
        if part == len(self._parts):
            self._parts.append(self._asked(X))
        models, X = self._parts[part]
        return self.scorer(models[number], X, *y, **params)

    def _asked(self, X: Data) -> tuple[list, Any]:
        """Choose whom to ask for scores, and about which rows, where scorers only ask.

        Classifiers stand in for their pipelines, whose steps have been applied once, and know the answers of one pass.
        """
        if isinstance(self.candidates[0], Pipeline):  # whose steps they share
            try:
                X = reduce(lambda rows, step: step.transform(rows), steps_before(self.candidates[0]), X)
            except Exception:  # of a step that cannot transform these rows: scoring raises it as well
                return self.candidates, X
        finals = [final_step(candidate) for candidate in self.candidates]
        return _answering(finals, [failure is None for failure, _ in self._failures], self.scorer, X), X


def _answering(finals: list, is_fitted: list[bool], scorer: Any, X: Any) -> list:
    """Put in the place of classifiers their answers about X, from one pass over its rows, where it takes little memory.

    Not where they lack a method that is asked for: it is of them that scikit-learn says so.
    """
    fitted, asked = list(compress(finals, is_fitted)), [methods_of(one) for one in scorers_of(scorer)]
    if len(fitted) * len(asked) < 2:
        return finals
    if not all(any(hasattr(fitted[0], method) for method in methods) for methods in asked if methods):
        return finals
    n_features, n_outputs = fitted[0]._n_inputs, fitted[0].n_outputs_
    if len(fitted) * max(_num_samples(X) * n_outputs, fitted[0]._n_params(n_features, n_outputs)) > MAX_VALUES:
        return finals
    try:
        scores, space = scores_of_members(fitted, check_features(fitted[0], X, reset=False)), OutputSpace(X)
        answers = iter([model._answers_of_fitted(own, space) for model, own in zip(fitted, scores, strict=True)])
    except Exception:  # scoring raises it as well, for each of them
        return finals
    return [next(answers) if fits else final for final, fits in zip(finals, is_fitted, strict=True)]


class _Trainee:
    """One candidate of a stack, as ``_fit_and_score`` meets it: the first that is fitted trains all."""

    def __init__(self, stack: _Stack, number: int) -> None:
        self.stack = stack
        self.number = number
        self._n_scored = 0

    def __sklearn_tags__(self) -> Any:
        return self.stack.candidates[self.number].__sklearn_tags__()

    def set_params(self, **params: Any) -> Self:
        """Change nothing: the parameters have been set."""
        return self

    def set_callbacks(self, *callbacks: Any) -> None:
        """Take callbacks of the search, which hear of candidates, not of their epochs."""
        self._skl_callbacks = list(callbacks)

    def fit(self, X: Data, y: Data = None, **params: Any) -> Self:
        self.stack.train(self.number, X, y, params)
        return self

    def score(self, X: Data, *y: Data, **params: Any) -> Any:
        """Ask the scorer: ``_fit_and_score`` does so about the test rows, then about the training rows."""
        part, self._n_scored = self._n_scored, self._n_scored + 1
        return self.stack.score(self.number, part, X, *y, **params)


class _Scorer:
    """The scorer of a search, asked about trainees."""

    def __init__(self, scorer: Callable) -> None:
        self.scorer = scorer

    def __call__(self, trainee: _Trainee, X: Data, *y: Data, **params: Any) -> Any:
        return trainee.score(X, *y, **params)

    def __repr__(self) -> str:
        return repr(self.scorer)


class _Scorers(_Scorer, _MultimetricScorer):
    """Several scorers of a search, asked about trainees."""

    def __init__(self, scorer: Any) -> None:
        super().__init__(scorer)
        self._scorers = scorer._scorers


def evaluate_stack(seed: int, n_workers: int, *parts: Any, **shared: Any) -> list[dict]:
    """Return the results of ``_fit_and_score`` for all candidates of one stack; see `evaluation.apart`.

    So many workers share the cores of this machine.
    """
    X, y, estimators, own = parts
    tasks = together(X, y, estimators, own, shared)
    first = tasks[0]
    candidates = [task.estimator.set_params(**clone(task.parameters, safe=False)) for task in tasks]
    share_seed(candidates, seed)
    stack = _Stack(candidates, first.scorer)
    scorer = (_Scorers if isinstance(first.scorer, _MultimetricScorer) else _Scorer)(first.scorer)
    changed = {"scorer": scorer, "fit_params": _with_whole(first)}
    X, y = _taken_once(first)
    results = []
    with at_most(max(1, (os.cpu_count() or 1) // n_workers)):
        for number, task in enumerate(tasks):
            results.append(_fit_and_score(_Trainee(stack, number), X, y, **{**task.options, **changed}))
    if first.options["return_times"]:
        _share_times(results)
    return results


def _taken_once(task: Task) -> tuple:
    """Wrap X and y, for candidates to share their rows; of labels, which any metric may write to, each gets a copy."""
    X, y = task.X, task.y
    if get_config()["array_api_dispatch"] or get_tags(task.estimator).input_tags.pairwise:
        return X, y
    train, test = task.options["train"], task.options["test"]
    own = [] if _shares_rows(task.estimator, task.scorer) else [test]
    return Taken(X, own), None if y is None else Taken(y, [train, test])


def _share_times(results: list[dict]) -> None:
    """Divide the time that the stack has taken, which the first has to itself, evenly among the candidates."""
    scored = [result for result in results if result["fit_error"] is None]
    for name, among in (("fit_time", results), ("score_time", scored)):
        total = sum(result[name] for result in among)
        for result in among:
            result[name] = total / len(among)
