"""Searches that stack: a joblib back end which defers the tasks until it has all of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import joblib
from joblib import parallel_config
from joblib.parallel import ParallelBackendBase, get_active_backend
from sklearn.utils.parallel import Parallel, delayed

from skdeep.compat.checks import demand
from skdeep.compat.joblib import (
    KNOWN,
    FallbackToBackend,
    LokyBackend,
    MultiprocessingBackend,
    SequentialBackend,
    ThreadingBackend,
)
from skdeep.engine.group import current
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.model_selection._sklearn import task_arguments
from skdeep.model_selection.choice import check_refit
from skdeep.model_selection.ensembles import evaluate_ensembles
from skdeep.model_selection.evaluation import (
    StackingWarning,
    Task,
    apart,
    draw_seed,
    final_step,
    n_accelerators,
    on_card,
    stacks_of,
)
from skdeep.model_selection.grid import evaluate_grids
from skdeep.model_selection.trainees import evaluate_stack, with_whole_validation

#: Back ends whose workers are of this machine.
_LOCAL = (LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend)

#: What stands between a user's code and ours.
_PACKAGES = ("skdeep", "sklearn", "joblib", "contextlib")

_SILENCE = "Silence this with warnings.simplefilter('ignore', skdeep.model_selection.StackingWarning)."


@contextmanager
def stacked() -> Iterator[None]:
    """Train candidates as stacks in scikit-learn's own tools: a context for searches and ``validation_curve``.

    Inside the block, models that scikit-learn's ``GridSearchCV`` and its siblings, ``validation_curve`` or
    ``cross_validate`` train on the same rows train as one stack, wherever they differ only in parameters that models
    of a stack may differ in. Searches inside other tools, such as ``cross_val_score`` of a search, stack as well.
    What is no such task runs as it would outside, with a :class:`~skdeep.model_selection.StackingWarning` where it is
    about an estimator of skdeep's.

    The searches of `skdeep.model_selection` open this context themselves.

    Notes
    -----
    It is joblib's context of a thread (:func:`joblib.parallel_config`): other threads are not concerned. The back end
    that was chosen outside it runs the stacks, ``n_jobs`` at a time; one that is chosen inside takes its place.

    Examples
    --------
    >>> import skdeep
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import validation_curve
    >>> X, y = load_iris(return_X_y=True)
    >>> softmax = skdeep.SoftmaxClassifier(random_state=0)
    >>> with skdeep.stacked():
    ...     _, scores = validation_curve(softmax, X, y, param_name="alpha", param_range=[1e-3, 1e-1, 10], cv=3)
    >>> scores.shape
    (3, 3)
    """
    if current().size > 1:
        raise RuntimeError(
            "A search inside shards() would split the rows of each process on its own. Search in one process (n_jobs, "
            "or joblib's back ends of Dask and Ray for several machines), and fit its best estimator inside shards()."
        )
    outside, _ = get_active_backend()
    if isinstance(outside, StackingBackend):
        yield
        return
    backend = StackingBackend(outside)
    backend.context = parallel_config(backend=backend)
    with backend.context:
        yield


@dataclass
class _DeferredBatch:
    """Some calls that wait, and then their results."""

    batch: Any
    callback: Callable[[Any], Any]
    results: list | None = None


class _DeferringBackend(ParallelBackendBase):
    """The back end of one Parallel: `submit` keeps the tasks, and the first look at a result runs all, as stacks."""

    supports_retrieve_callback = False
    uses_threads = supports_sharedmem = True

    def __init__(self, stacking: StackingBackend, parallel: Any, settings: dict[str, Any]) -> None:
        super().__init__(nesting_level=stacking.nesting_level)
        self.stacking = stacking
        self.waiting: list[_DeferredBatch] = []
        names = ("n_jobs", "pre_dispatch", "batch_size", "verbose")
        self.settings = {**settings, **{name: getattr(parallel, name) for name in names}}
        # all tasks are to come before any result; who works on them says how far they are
        parallel.pre_dispatch, parallel.verbose = "all", 0

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return 2  # or more: of one worker, joblib would run the tasks itself

    def submit(self, func: Any, callback: Any = None) -> _DeferredBatch:
        self.waiting.append(_DeferredBatch(func, callback))
        return self.waiting[-1]

    def retrieve_result(self, out: _DeferredBatch, timeout: float | None = None) -> list:
        if out.results is None:
            waiting, self.waiting = self.waiting, []
            results = iter(self._run([call for kept in waiting for call in kept.batch.items]))
            for kept in waiting:
                kept.results = [next(results) for _ in kept.batch.items]
                kept.callback(kept.results)  # joblib counts
        assert out.results is not None
        return out.results

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self.waiting = []

    # ---- the work -----------------------------------------------------------------------------------------------

    def _run(self, calls: list[tuple]) -> list[Any]:
        """Return the results of some calls, in their order; calls of `_fit_and_score` that can train together do."""
        tasks = {i: Task.of(given) for i, call in enumerate(calls) if (given := task_arguments(*call)) is not None}
        if not tasks:
            _warn_of_other_functions(calls)
            return self._parallel(calls, joblib.Parallel, joblib.delayed, self.settings)
        first = next(iter(tasks.values()))
        candidates = [task.parameters for task in tasks.values()]
        check_refit(getattr(first.options["caller"], "refit", None), candidates, first.scorer)
        n_workers, seed = self.stacking.effective_n_jobs(self.settings["n_jobs"]), draw_seed()
        is_here = self.stacking.is_local()  # workers elsewhere have their own cards and cores, and are to be used
        results: dict[int, Any] = {}
        alone = {i: call for i, call in enumerate(calls) if i not in tasks}
        for evaluate in (evaluate_grids, evaluate_ensembles) if is_here else ():
            results |= evaluate(tasks, seed, n_workers)
            tasks = {i: task for i, task in tasks.items() if i not in results}
        n_cards = n_accelerators(list(tasks.values())) if is_here and tasks else 0
        groups, settings = self._stacked(tasks, n_workers, n_cards), self.settings
        if 0 < n_cards < n_workers:
            n_workers, settings = n_cards, {**settings, "n_jobs": n_cards} if groups else settings
        jobs: list[tuple] = []
        for number, group in enumerate(groups):
            large, shared = apart([tasks[i] for i in group])
            job, args = evaluate_stack, (seed, n_workers if is_here else 1, *large)
            on_cards = n_cards > 1 and n_workers > 1
            jobs.append((on_card, (number % n_cards, job, *args), shared) if on_cards else (job, args, shared))
        for i in sorted(tasks.keys() - {i for group in groups for i in group}):
            alone[i] = with_whole_validation(calls[i], tasks[i])
        rest = sorted(alone)
        jobs += [alone[i] for i in rest]
        outcomes = self._parallel(jobs, Parallel, delayed, settings) if jobs else []
        of_stacks, of_rest = outcomes[: len(groups)], outcomes[len(groups) :]
        for group, outcome in zip([*groups, rest], [*of_stacks, of_rest], strict=True):
            results |= zip(group, outcome, strict=True)
        return [results[i] for i in range(len(calls))]

    def _stacked(self, tasks: dict[int, Task], n_workers: int, n_cards: int) -> list[list[int]]:
        """Group tasks that train together, on so many accelerators, if any; warn of those that do not."""
        too_many = 0 < n_cards < n_workers
        stacks, reasons = stacks_of(tasks, n_cards if too_many else n_workers)
        if reasons:
            _warn(
                f"Some candidates are trained one by one, as scikit-learn does it: {'; '.join(sorted(reasons))}. "
                f"{_SILENCE}",
                StackingWarning,
            )
        if too_many and stacks:
            _warn(
                f"n_jobs={self.settings['n_jobs']} is more than there are accelerators, {n_cards}: the workers would "
                "queue for them, each with a copy of the data. As many stacks train at a time as there are "
                "accelerators."
            )
        return stacks

    def _parallel(self, jobs: list[tuple], parallel: Any, delay: Callable, settings: dict[str, Any]) -> list[Any]:
        """Run the jobs on the workers that there are outside."""
        with self.stacking.outside():
            return parallel(**settings)(delay(_inside)(job, *args, **options) for job, args, options in jobs)


class StackingBackend(ParallelBackendBase):
    """What joblib finds inside `stacked`: it knows the workers outside, and defers each call of Parallel."""

    deferring = _DeferringBackend
    supports_retrieve_callback = True
    uses_threads = supports_sharedmem = True

    def __init__(self, outside: ParallelBackendBase) -> None:
        super().__init__()
        self.default_n_jobs = outside.default_n_jobs
        self.context: parallel_config

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Run the block as if `stacked` had not been opened."""
        here = parallel_config()  # of nothing new: it knows what to go back to
        self.context.unregister()
        try:
            yield
        finally:
            here.unregister()

    def is_local(self) -> bool:
        """Tell whether the workers outside are of this machine."""
        with self.outside():
            return type(get_active_backend()[0]) in _LOCAL  # others, of clusters, are subclasses

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        with self.outside():
            try:
                return joblib.effective_n_jobs(n_jobs)
            except Exception:  # Ray starts with the first call of Parallel, and knows no workers before
                with joblib.Parallel(n_jobs):
                    return joblib.effective_n_jobs(n_jobs)

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **settings: Any) -> NoReturn:
        if parallel.return_as == "list" and parallel.timeout is None:
            raise FallbackToBackend(self.deferring(self, parallel, settings))
        # who wants results one by one, or gives up waiting, cannot have them all at once
        with self.outside():
            plain, _ = get_active_backend(prefer=settings.get("prefer"), require=settings.get("require"))
        raise FallbackToBackend(plain)

    def submit(self, func: Any, callback: Any = None) -> _DeferredBatch:
        raise RuntimeError("Each call of joblib.Parallel has a back end of its own inside skdeep.stacked().")


def _inside(function: Callable, /, *args: Any, **options: Any) -> Any:
    """Call a function in `stacked`, wherever that is: what it calls in turn stacks as well."""
    with stacked():
        return function(*args, **options)


def _warn_of_other_functions(calls: list[tuple]) -> None:
    """Say which functions are called with estimators of ours that no stack can be made of."""
    names = {
        getattr(function, "__name__", repr(function))
        for function, args, options in calls
        if any(isinstance(final_step(value), BaseTorchEstimator) for value in (*args, *options.values()))
    }
    if names:
        _warn(
            f"Tasks of {', '.join(sorted(names))} run as they are: skdeep knows stacks of the candidates of searches "
            f"and of validation_curve. {_SILENCE}",
            StackingWarning,
        )


def _warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, where the user's own code has called scikit-learn."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _all_tasks_arrive() -> bool:
    """Say whether joblib hands over all tasks of a call, whatever its ``pre_dispatch``, and takes their results."""
    arrived = []

    class Noting(_DeferringBackend):
        def _run(self, calls: list[tuple]) -> list:
            arrived.append(len(calls))
            return [function(*args, **options) for function, args, options in calls]

    class NotingStacks(StackingBackend):
        deferring = Noting

    try:
        backend = NotingStacks(get_active_backend()[0])
        backend.context = parallel_config(backend=backend)
        with backend.context:
            values = joblib.Parallel(n_jobs=1, pre_dispatch=1)(joblib.delayed(abs)(-i) for i in range(3))
    except Exception:  # where a back end is something else
        return False
    return values == [0, 1, 2] and arrived == [3]


demand(_all_tasks_arrive(), "a back end gets all tasks before it is asked for results", "joblib", KNOWN)
