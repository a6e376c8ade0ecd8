"""The comparison of models by cross-validation: who competes, on which splits, judged by what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import indexable

from skdeep.compat.sklearn import _MultimetricScorer, _num_samples
from skdeep.data.conversion import as_plain
from skdeep.data.inputs import Data
from skdeep.data.labels import missing_of, unboxed
from skdeep.data.stored import in_memory
from skdeep.estimators.base import BaseTorchClassifier
from skdeep.fitting.losses import levels_of
from skdeep.model_selection.comparison import Comparison
from skdeep.model_selection.counter import Counter
from skdeep.model_selection.evaluation import final_step
from skdeep.model_selection.paired import check_rope_and_confidence
from skdeep.model_selection.past_scores import compare_past, is_past, ratio_of
from skdeep.model_selection.quick_scores import QuickScorers, neg_log_loss_of_known
from skdeep.model_selection.rounds import Split, run

#: What makes no difference, in metrics whose scale is known (Benavoli et al. take a percentage point of accuracy).
_ROPE = 0.01
#: Beginnings of the names of these metrics: shares, and logarithms of shares.
_SHARES = (
    *("accuracy", "balanced_accuracy", "top_k_accuracy", "f1", "precision", "recall", "jaccard"),
    *("roc_auc", "average_precision", "neg_log_loss", "r2", "d2", "explained_variance"),
)


def compare(
    contestants: Mapping[str, Any] | Iterable[str] | None = None,
    X: Data = None,
    y: Data = None,
    *,
    cv: Any = None,
    scoring: Any = None,
    reference: str | None = None,
    rope: float | Mapping[str, float] | None = None,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Comparison:
    """Compare models on the same splits: differences with intervals, probabilities, seconds and verdicts.

    All contestants are cross-validated on the same splits. Estimators of skdeep's that differ only in what models of a
    stack may differ in train together, and steps that pipelines have in common are fitted once per split. A
    contestant that fails is a row with its error. The statistics come from `paired_difference`, with Holm's
    adjustment over the contestants; `Comparison` says how a verdict follows.

    Parameters
    ----------
    contestants : dict of str to estimator, list of str, or None
        Any estimators of scikit-learn's interface, or scores that are there: what ``cross_validate`` returned, and
        fitted searches, of which the split scores of the best candidate are taken. A list names some of the default
        contestants, None takes them all: "logreg", "hgb" (HistGradientBoostingClassifier), "softmax", "hinge", "mlp",
        "ensemble" and "dummy", each with the steps that missing values and categories make necessary. Of values, they
        are "ridge", "hgb", "linear", "mlp", "ensemble" and "dummy"; whole numbers are values if more than 30 differ, of
        which more than a tenth have fewer than five rows.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        An array in a file (Zarr, h5py, Dask, xarray) is read as a whole.
        Not needed for scores that are there.
    y : array-like of shape (n_samples,)
    cv : int, splitter or iterable of splits, default=None
        As in ``cross_validate``: None is 5 folds, in classes' proportions. For scores that are there, the splitter that
        they come from, if their ``indices`` do not tell.
    scoring : str, list of str, callable or dict, default=None
        As in ``cross_validate``: None is each contestant's ``score``. For scores that are there, the names of some.
    reference : str, default=None
        Name of the contestant that the others are compared with; None is the first.
    rope : float or dict of str to float, default=None
        The region of practical equivalence: the largest difference that makes no difference, for all metrics or by
        metric. None is 0.01 for accuracies, areas under curves, R² and the like, and the log-loss, and 0 for metrics of
        an unknown scale.
    confidence : float, default=0.95
        Of intervals and verdicts.
    groups : array-like of shape (n_samples,), default=None
        Passed to the splitter.
    n_jobs : int, default=None
        As in ``cross_validate``.
    verbose : int, default=0
        1 counts on stderr what is trained and judged, if that is by one process; more is as of
        :class:`joblib.Parallel`: with 10, each task that is done.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        If a contestant is neither an estimator nor scores, or both kinds are mixed.
    ValueError
        If X or y is missing, the reference is no contestant, or scores do not come from the same splits.

    Notes
    -----
    Models that train as one stack have equal shares of its seconds, in which a scaler in front of a linear model is
    contained. Steps that contestants share count for each of them. A data frame of numbers is made an array once, and
    known to be finite, for estimators of scikit-learn's that know columns by their place: their seconds are without
    that. Before the clock runs, each kind of estimator (of scikit-learn's and skdeep's) is fitted to a few random rows,
    for imports and what libraries set up on their first call.

    References
    ----------
    Nadeau & Bengio, *Inference for the generalization error*, Machine Learning 2003; Benavoli, Corani, Demšar &
    Zaffalon, *Time for a change: a tutorial for comparing multiple classifiers through Bayesian analysis*, JMLR 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import RepeatedStratifiedKFold
    >>> from skdeep import SoftmaxClassifier, compare
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"logreg": LogisticRegression(max_iter=1000), "softmax": SoftmaxClassifier(random_state=0)}
    >>> found = compare(models, X, y, cv=RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0))
    >>> found.metrics, found.n_splits, found.reference
    (['accuracy'], 10, 'logreg')
    >>> [row["verdict"] for row in found.rows()]
    ['reference', 'undecided']
    """
    check_rope_and_confidence(0 if rope is None or isinstance(rope, Mapping) else rope, confidence)
    if isinstance(contestants, Mapping) and any(map(is_past, contestants.values())):
        reference = _named(list(contestants), reference)
        found = compare_past(contestants, reference, scoring, cv, None if X is None else (X, y, groups))
    else:
        X = in_memory(X)
        if y is not None:
            y = as_plain(y)
        models = _models(contestants, X, y)
        reference = _named(list(models), reference)
        found = _cross_validated(models, X, y, cv, groups, scoring, n_jobs, verbose)
        if not isinstance(contestants, Mapping):
            found.notes += _notes_of_target(y)
    found.reference, found.confidence = reference, confidence
    found.rope = {metric: _rope_of(metric, rope, found.metrics) for metric in found.metrics}
    if found.n_splits == 1:
        found.notes.append("One split has no interval: it does not tell how much scores vary. Take cv=5 or more.")
    return found


# ---- what is asked for -----------------------------------------------------------------------------------------------


def _models(contestants: Any, X: Data, y: Data) -> dict[str, BaseEstimator]:
    """Make a dictionary of the contestants; raise an error if they are no estimators, or there are no data."""
    from skdeep.model_selection.contestants import DEFAULTS, default_contestants  # which take a while to import

    if X is None or y is None:
        raise ValueError("compare needs X and y, to train the contestants: compare({'name': estimator}, X, y).")
    if isinstance(contestants, str) or hasattr(contestants, "fit"):
        raise TypeError(
            f"contestants must be a dictionary of names and estimators, such as {{'softmax': SoftmaxClassifier()}}, or "
            f"a list of default contestants ({', '.join(DEFAULTS)}); got {contestants!r}."
        )
    if contestants is None or not isinstance(contestants, Mapping):
        contestants = default_contestants(X, y, contestants)
    if not contestants:
        raise ValueError("There are no contestants: pass a dictionary of names and estimators.")
    for name, model in contestants.items():
        if isinstance(model, type) or not (hasattr(model, "fit") and hasattr(model, "get_params")):
            hint = " Pass an instance, not the class." if isinstance(model, type) else ""
            raise TypeError(f"Contestant {name!r} must be an estimator with fit and get_params; got {model!r}.{hint}")
    return {str(name): model for name, model in contestants.items()}


def _notes_of_target(y: Data) -> list[str]:
    """Say what default contestants take a target for, if it could be something else."""
    from skdeep.model_selection.contestants import are_like_values

    if not are_like_values(y):
        return []
    n = len(np.unique(np.asarray(y)))
    return [f"y has {n} different whole numbers, taken as values. If they are classes, pass text: y.astype(str)."]


def _named(names: list[str], reference: str | None) -> str:
    """Find the reference among the contestants."""
    if reference is None:
        return str(names[0])
    if reference not in names:
        raise ValueError(f"The reference {reference!r} is no contestant; there are {', '.join(map(str, names))}.")
    return str(reference)


def _rope_of(metric: str, rope: float | Mapping[str, float] | None, metrics: list[str]) -> float:
    """Choose what makes no difference in a metric."""
    if isinstance(rope, Mapping):
        if unknown := sorted(set(rope) - set(metrics)):
            raise ValueError(f"rope names the metric {unknown[0]!r}, and there are {', '.join(metrics)}.")
        rope = rope.get(metric)
    if rope is None:
        return _ROPE if metric.startswith(_SHARES) else 0.0
    check_rope_and_confidence(rope, 0.5)
    return float(rope)


def _scorer(models: dict[str, BaseEstimator], scoring: Any, y: Data) -> tuple[Callable, str]:
    """Make the scorer of all contestants, and the name of its metric if it has only one without a name."""
    first = next(iter(models.values()))
    ways = {getattr(type(final_step(model)), "score", None) for model in models.values()}
    if scoring in (None, "accuracy", ["accuracy"]) and np.ndim(y) == 1 and all(map(_is_accuracy, ways)):
        scoring = ["accuracy"]
    if scoring is None and ways == {RegressorMixin.score}:
        scoring = ["r2"]
    if scoring is None:
        kinds = [is_classifier(model) - is_regressor(model) for model in models.values()]
        name = {1: "accuracy", -1: "r2"}.get(kinds[0], "score") if len(set(kinds)) == 1 else "score"
        of_quantiles = {bool(levels_of(getattr(final_step(model), "loss", None))) for model in models.values()}
        if len(of_quantiles) == 2:
            raise ValueError(
                "Some contestants predict several quantiles, and their score is D² of these; that of the others is "
                "another one, with which it does not compare. Leave some out, or pass a function as scoring."
            )
        return check_scoring(first), "d2" if True in of_quantiles else name
    if callable(scoring):
        scoring = {getattr(scoring, "__name__", "score"): scoring}
    elif not isinstance(scoring, Mapping):
        scoring = [scoring] if isinstance(scoring, str) else list(dict.fromkeys(scoring))
    scoring = dict(scoring) if isinstance(scoring, Mapping) else {name: name for name in scoring}
    names = {name: one for name, one in scoring.items() if isinstance(one, str)}
    return _Scorers(check_scoring(first, scoring=scoring)._scorers, names), "score"


def _is_accuracy(score: Any) -> bool:
    """Say whether a method of a classifier computes the accuracy."""
    if score in (ClassifierMixin.score, BaseTorchClassifier.score):
        return True
    # which take None for rows that are known, and hand on all others
    names = ("DummyClassifier.score", "KNeighborsClassifier.score", "RadiusNeighborsClassifier.score")
    return getattr(score, "__module__", "").startswith("sklearn.") and score.__qualname__ in names


class _Scorers(QuickScorers):
    """Several scorers, which count by `counter` what has been judged, if there is one."""

    counter: Any = None

    def __call__(self, estimator: Any, *args: Any, **options: Any) -> Any:
        found = super().__call__(estimator, *args, **options)
        if self.counter is not None:
            self.counter.update()
        for name, mark in found.items():
            if isinstance(mark, str) and self.names.get(name) == "neg_log_loss" and len(args) == 2:
                with suppress(Exception):  # of which the mark tells
                    found[name] = neg_log_loss_of_known(estimator, *args)
        return {name: Failure(mark) if isinstance(mark, str) else mark for name, mark in found.items()}


class Failure(float):
    """A score that is none, and why."""

    trace: str

    def __new__(cls, trace: str) -> Failure:
        none = super().__new__(cls, "nan")
        none.trace = trace
        return none

    def __reduce__(self) -> tuple:
        return Failure, (self.trace,)


# ---- what is found ---------------------------------------------------------------------------------------------------


def _cross_validated(
    models: dict[str, BaseEstimator],
    X: Data,
    y: Data,
    cv: Any,
    groups: ArrayLike | None,
    scoring: Any,
    n_jobs: int | None,
    verbose: int,
) -> Comparison:
    """Train and judge all contestants on all splits."""
    of_classes = any(map(is_classifier, models.values()))
    X, y, groups = indexable(X, _complete(unboxed(y) if of_classes else y), groups)
    scorer, name = _scorer(models, scoring, y)
    splits: list[Split] = list(check_cv(cv, y, classifier=of_classes).split(X, y, groups))
    if verbose == 1 and isinstance(scorer, _Scorers) and effective_n_jobs(n_jobs) == 1:
        scorer.counter, verbose = Counter(len(models) * len(splits)), 0
    entries = list(run(models, X, y, splits, scorer, n_jobs, verbose))
    if isinstance(scorer, _Scorers) and scorer.counter is not None:
        scorer.counter.close()
    metrics = list(scorer._scorers) if isinstance(scorer, _MultimetricScorer) else [name]
    shape = len(splits)
    scores = {metric: {model: np.full(shape, np.nan) for model in models} for metric in metrics}
    fit_seconds, predict_seconds = ({model: np.full(shape, np.nan) for model in models} for _ in range(2))
    failures: dict[str, list[str]] = {}
    of_metrics: dict[tuple[str, str], str] = {}
    for entry in entries:
        fit_seconds[entry.name][entry.split] = entry.result["fit_time"] + entry.fit_extra
        if (trace := entry.result["fit_error"]) is not None:
            failures.setdefault(entry.name, []).append(_message(trace))
            continue
        predict_seconds[entry.name][entry.split] = entry.result["score_time"] + entry.score_extra
        values = entry.result["test_scores"]
        for metric in metrics:
            scores[metric][entry.name][entry.split] = mark = values[metric] if isinstance(values, dict) else values
            if isinstance(mark, Failure):
                of_metrics.setdefault((metric, entry.name), _message(mark.trace))
    errors = {
        model: f"the fit failed on {len(texts)} of {len(splits)} splits: {texts[0]}"
        for model, texts in failures.items()
    }
    seconds = fit_seconds, predict_seconds
    return Comparison(list(models), "", scores, *seconds, ratio_of(splits), {}, errors=errors, score_errors=of_metrics)


def _message(trace: str) -> str:
    """Take the error out of its traceback, whose other lines are indented: it may have several."""
    lines = trace.strip().splitlines()
    begins = max((i + 1 for i, line in enumerate(lines) if line.startswith("  ")), default=0)
    return " ".join(line.strip() for line in lines[min(begins, len(lines) - 1) :])


def _complete(y: Data) -> Data:
    """Raise an error where targets are missing."""
    gaps = missing_of(np.asarray(y))
    if gaps.any():
        raise ValueError(f"y has no value in {int(gaps.sum())} of {_num_samples(y)} rows; leave these rows out.")
    return y
