"""What happens in training, written for TensorBoard."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring
from skorch.callbacks import Callback

from skdeep.data.inputs import dense
from skdeep.estimators.base import BaseTorchEstimator
from skdeep.fitting.fitted import names_of_rows
from skdeep.images import as_images, signed_colors


class TensorBoardLogger(Callback):
    r"""Write losses, scores, learning rate, weights' norms and templates of each epoch for TensorBoard.

    It speaks both callback protocols: give it to an estimator by ``estimator.set_callbacks(TensorBoardLogger())``
    (scikit-learn's), or as ``callbacks=[TensorBoardLogger()]`` (skorch's), and look at it with
    ``tensorboard --logdir runs``.

    Each fit is a run with a directory of its own below `log_dir`, named by estimator and time. With scikit-learn's
    protocol, the fits inside a Pipeline or a search are directories below the whole's, named by their place in it
    (``GridSearchCV-20261121-120000-1f0c57a2/search-0/candidate-split-evaluation-3/fit-final-estimator-1``); the
    parameters of each are its text "estimator". Steps are the epochs of ``loss_curve_``: with ``warm_start`` they go
    on, and so does, with ``partial_fit`` and skorch's protocol, the run. (``partial_fit`` calls no callbacks of
    scikit-learn.) What comes after the last epoch, HingeClassifier's calibration, is not logged.

    ============================== =====================================================================================
    tag                            what it is
    ============================== =====================================================================================
    ``loss/train``                 the objective, ``loss_curve_``
    ``loss/validation``            ``validation_loss_curve_``, if there is validation data
    ``score/validation``           ``validation_scores_``, if there is validation data
    ``score/train``                if `scoring` is given
    ``learning_rate``              of the last step, all schedules included; not for "lbfgs"
    ``weight_norm/coef``           :math:`\|W\|_2` over all entries of ``coef_`` (Frobenius)
    ``weight_norm/layer_1``, …     the same of each of ``coefs_``
    ``templates/<class>``          the row of ``coef_`` as an image, if `image_shape` is given: red is negative, blue
                                   positive, on one scale for all classes; weights of colours around grey
    ============================== =====================================================================================

    Parameters
    ----------
    log_dir : str or path, default="runs"
        The directory for all runs.
    image_shape : tuple of int, default=None
        ``(h, w)``, ``(h, w, 3)`` or ``(3, h, w)``: how the columns of X make an image, for the templates of linear
        classifiers. None writes no templates.
    scoring : str or callable, default=None
        Scorer of the rows trained on, which costs a prediction of all of them after each epoch (weighted like them in
        scikit-learn's protocol; skorch's has no weights). None writes no such score.

    Raises
    ------
    ImportError
        From ``fit``, if tensorboard is not installed.
    TypeError
        From ``fit``, if it is set on another package's estimator: a Pipeline or a search, for example, instead of the
        classifier in it.
    ValueError
        From ``fit``, if `image_shape` does not go with the columns, or the classifier is not linear.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> from skdeep import SoftmaxClassifier
    >>> from skdeep.logs import TensorBoardLogger
    >>> X, y = load_digits(return_X_y=True)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     logger = TensorBoardLogger(directory, image_shape=(8, 8), scoring="accuracy")
    ...     softmax = SoftmaxClassifier(tol=1e-2, random_state=0).set_callbacks(logger).fit(X, y)
    ...     [run.name.split("-")[0] for run in Path(directory).iterdir()]
    ['SoftmaxClassifier']
    """

    def __init__(
        self,
        log_dir: str | Path = "runs",
        *,
        image_shape: tuple[int, ...] | None = None,
        scoring: str | Callable[..., float] | None = None,
    ):
        self.log_dir = log_dir
        self.image_shape = image_shape
        self.scoring = scoring
        # by estimator in scikit-learn's protocol, where many share the logger; by None in skorch's, where one has it
        self.writers_: dict[Any, Any] = {}
        self.directory_: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "writers_": {}}

    # ---- scikit-learn's protocol -----------------------------------------------------------------------------------

    def setup(self, estimator: Any, context: Any) -> None:
        """Check, before a fit, that it can be logged."""
        self._check(estimator)

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: an epoch is logged at its end."""

    def on_fit_task_end(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,
        y: Any = None,
        metadata: dict[str, Any] | None = None,
        fitted_estimator: Any = None,
    ) -> None:
        """Log an epoch."""
        if context.task_name != "epoch" or fitted_estimator is None:  # None: the epoch was interrupted
            return
        if estimator not in self.writers_:
            self._open(estimator, Path(self.log_dir, *_places(context.parent)), estimator)
        score = None
        if self.scoring is not None:
            score = check_scoring(scoring=self.scoring)(fitted_estimator, X, y, **(metadata or {}))
        self._log(self.writers_[estimator], fitted_estimator, fitted_estimator.learning_rate_, score)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Close the log after a fit, however it ended."""
        self._close(estimator)

    # ---- skorch's protocol -----------------------------------------------------------------------------------------

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check, before a fit, that it can be logged."""
        self._close(None)  # of a fit that failed
        self._check(net.estimator_)

    def on_epoch_end(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Log an epoch."""
        names = {name: value for name, value in vars(net.estimator_).items() if name in ("classes_", "_label_names")}
        fitted = SimpleNamespace(**names, **net.snapshot_())
        if None not in self.writers_:
            goes_on = len(fitted.loss_curve_) > fitted.n_iter_
            if self.directory_ is None or not goes_on:
                name = type(net.estimator_).__name__
                self.directory_ = Path(self.log_dir, _run_name(name, datetime.now(UTC), uuid.uuid4()))
            self._open(None, self.directory_, net.estimator_)
        score = None
        if self.scoring is not None:
            score = check_scoring(scoring=self.scoring)(net, dataset_train.X, dataset_train.y)
        self._log(self.writers_[None], fitted, net.optimizer_.rate, score)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Close the log after a fit."""
        self._close(None)

    # ---- both --------------------------------------------------------------------------------------------------------

    def _check(self, estimator: Any) -> None:
        """Raise if fits of an estimator cannot be logged."""
        _summary_writer()
        if not isinstance(estimator, BaseTorchEstimator):
            raise TypeError(
                f"TensorBoardLogger logs the epochs of skdeep's estimators, got {estimator!r}. Set it on the "
                "estimator itself: inside a pipeline, pipeline[-1].set_callbacks(logger)."
            )
        if self.image_shape is None:
            return
        if estimator._coef_attribute != "coef_":
            raise ValueError(
                f"image_shape={self.image_shape} is for the templates of linear classifiers, and "
                f"{type(estimator).__name__} has none. Use image_shape=None."
            )
        as_images(np.empty((0, estimator.n_features_in_)), self.image_shape)

    def _open(self, key: Any, directory: Path, estimator: Any) -> None:
        self.writers_[key] = _summary_writer()(str(directory))
        self.writers_[key].add_text("estimator", f"`{' '.join(repr(estimator).split())}`")

    def _close(self, key: Any) -> None:
        writer = self.writers_.pop(key, None)
        if writer is not None:
            writer.close()

    def _log(self, writer: Any, fitted: Any, learning_rate: float | None, train_score: float | None) -> None:
        """Write the last epoch of a fitted estimator."""
        step = len(fitted.loss_curve_)
        scalars = {"loss/train": fitted.loss_curve_[-1], "score/train": train_score, "learning_rate": learning_rate}
        if fitted.validation_scores_:
            scalars["loss/validation"] = fitted.validation_loss_curve_[-1]
            scalars["score/validation"] = fitted.validation_scores_[-1]
        if hasattr(fitted, "coef_"):
            scalars["weight_norm/coef"] = np.linalg.norm(dense(fitted.coef_))
        for number, coef in enumerate(getattr(fitted, "coefs_", ()), 1):
            scalars[f"weight_norm/layer_{number}"] = np.linalg.norm(dense(coef))
        for tag, value in scalars.items():
            if value is not None:
                writer.add_scalar(tag, float(value), step)
        if self.image_shape is not None:
            images = signed_colors(as_images(dense(fitted.coef_), self.image_shape))
            # two classes have one template, of the second
            for name, image in zip(names_of_rows(fitted, len(images))[-len(images) :], images, strict=True):
                writer.add_image(f"templates/{name}", image, step, dataformats="HWC")
        writer.flush()  # an epoch is there to see when it has ended


def _summary_writer() -> type:
    """Import the writer, which is tensorboard's."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "TensorBoardLogger requires tensorboard. You can install it with `pip install tensorboard`."
        ) from error
    return SummaryWriter


def _run_name(estimator_name: str, time: datetime, run: uuid.UUID) -> str:
    return f"{estimator_name}-{time:%Y%m%d-%H%M%S}-{run.hex[:8]}"


def _places(context: Any) -> list[str]:
    """Name the tasks from the outermost fit down to this one."""
    task, names = context, []
    while task.parent is not None:
        names.append(f"{task.source_task_name or task.task_name}-{task.task_id}")
        task = task.parent
    return [_run_name(task.estimator_name, task.init_time, task.root_uuid), *reversed(names)]
