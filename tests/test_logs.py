"""What is written for TensorBoard, read back from its files."""

import copy
import io
import pickle
import sys
import warnings

import joblib
import numpy as np
import pytest
from helpers import configured
from matplotlib.image import imread
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.images import as_images, signed_colors
from skdeep.logs import TensorBoardLogger
from skdeep.model_selection import GridSearchCV, StackingWarning

pytestmark = pytest.mark.filterwarnings(
    "ignore::skdeep.model_selection.StackingWarning",
    "ignore:Training interrupted by user",
    "ignore::DeprecationWarning:tensorboard",
    "ignore::DeprecationWarning:google",
    "ignore::DeprecationWarning:torch.utils.tensorboard",
)

X_DIGITS, Y_DIGITS = load_digits(return_X_y=True)
X, Y = X_DIGITS[:250] / 16, Y_DIGITS[:250]
X_VAL, Y_VAL = X_DIGITS[500:600] / 16, Y_DIGITS[500:600]
PROTOCOLS = ["sklearn", "skorch"]


def make(protocol, logger, cls=SoftmaxClassifier, **params):
    defaults = {"max_iter": 4, "random_state": 0, "batch_size": 100, "device": "cpu"}
    if cls is MLPClassifierTorch:
        defaults["hidden_layer_sizes"] = (8, 6)
    if protocol == "skorch":
        return configured(cls, **{**defaults, **params, "callbacks": [logger]})
    return configured(cls, **{**defaults, **params}).set_callbacks(logger)


def runs(directory):
    """What each run has written, by the directory's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = sorted({path.parent for path in directory.rglob("events.out.*")})
    everything = {"images": 0, "scalars": 0, "tensors": 0}
    return {
        str(path.relative_to(directory)): EventAccumulator(str(path), size_guidance=everything).Reload()
        for path in found
    }


def the_run(directory):
    (events,) = runs(directory).values()
    return events


def scalars(events, tag):
    """Steps and values."""
    written = events.Scalars(tag)
    return [event.step for event in written], np.array([event.value for event in written])


def assert_written(events, tag, values, first_step=1):
    steps, written = scalars(events, tag)
    assert steps == list(range(first_step, first_step + len(values)))
    np.testing.assert_allclose(written, values, rtol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cls", [SoftmaxClassifier, HingeClassifier, MLPClassifierTorch])
def test_scalars(protocol, cls, tmp_path):
    model = make(protocol, TensorBoardLogger(tmp_path, scoring="accuracy"), cls)
    model.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    events = the_run(tmp_path)
    assert_written(events, "loss/train", model.loss_curve_)
    assert_written(events, "loss/validation", model.validation_loss_curve_)
    assert_written(events, "score/validation", model.validation_scores_)
    _, score = scalars(events, "score/train")
    assert len(score) == 4 and score[-1] == pytest.approx(accuracy_score(Y, model.predict(X)))
    if cls is MLPClassifierTorch:
        norms = {f"weight_norm/layer_{i}": np.sqrt((coef**2).sum()) for i, coef in enumerate(model.coefs_, 1)}
    else:
        norms = {"weight_norm/coef": np.sqrt((model.coef_**2).sum())}
    for tag, norm in norms.items():
        steps, written = scalars(events, tag)
        assert steps == [1, 2, 3, 4] and written[-1] == pytest.approx(norm, rel=1e-6) and np.ptp(written) > 0
    others = {"loss/train", "loss/validation", "score/train", "score/validation", "learning_rate"}
    assert set(events.Tags()["scalars"]) == {*norms, *others}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_validation_data_or_steps(protocol, tmp_path):
    model = make(protocol, TensorBoardLogger(tmp_path), solver="lbfgs").fit(X, Y)
    events = the_run(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss/train", "weight_norm/coef"}
    assert_written(events, "loss/train", model.loss_curve_)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "invscaling", "cosine"])
def test_learning_rate_is_the_last_step_s(protocol, solver, schedule, tmp_path):
    """250 rows in batches of 100 are 3 steps an epoch; the ramp takes two epochs."""
    logger = TensorBoardLogger(tmp_path)
    params = {"solver": solver, "learning_rate": schedule, "learning_rate_init": 0.02, "warmup_epochs": 2}
    make(protocol, logger, **params).fit(X, Y)
    epoch = np.arange(4)
    done = (3 * epoch + 2) / 12  # share of the steps before the epoch's last
    factor = {"constant": 1, "invscaling": (250 * epoch + 1) ** -0.5, "cosine": (1 + np.cos(np.pi * done)) / 2}
    assert_written(the_run(tmp_path), "learning_rate", 0.02 * factor[schedule] * np.minimum((epoch + 1) / 2, 1))


def test_learning_rate_falls_with_the_adaptive_schedule(tmp_path):
    model = make("sklearn", TensorBoardLogger(tmp_path), learning_rate_init=0.5, tol=10.0, n_iter_no_change=1)
    model.set_params(max_iter=6).fit(X, Y)
    # the first epoch improves on infinity; the second and third do not
    assert_written(the_run(tmp_path), "learning_rate", [0.5, 0.5, 0.5, 0.1, 0.1, 0.02])


def pixels(events, tag, number=-1):
    """An image that was written, as numbers from 0 to 1."""
    return imread(io.BytesIO(events.Images(tag)[number].encoded_image_string))[..., :3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_templates(protocol, tmp_path):
    names = np.array([f"digit {i}" for i in range(10)])
    model = make(protocol, TensorBoardLogger(tmp_path, image_shape=(8, 8)), alpha=1e-4).fit(X, names[Y])
    events = the_run(tmp_path)
    assert sorted(events.Tags()["images"]) == [f"templates/digit {i}" for i in range(10)]
    limit = np.abs(model.coef_).max()
    for name, coef in zip(model.classes_, model.coef_, strict=True):
        assert [event.step for event in events.Images(f"templates/{name}")] == [1, 2, 3, 4]
        image = pixels(events, f"templates/{name}")
        assert image.shape == (8, 8, 3)
        red, _, blue = image.reshape(64, 3).T
        clear = np.abs(coef) > 0.02 * limit
        assert clear.sum() > 20 and ((blue > red) == (coef > 0))[clear].all()
        assert (image.reshape(64, 3)[coef == 0] == 1).all()  # white
        # the stronger, the darker
        positive = coef > 0
        order = np.argsort(coef[positive], kind="stable")
        assert (np.diff(red[positive][order]) <= 0).all()
    assert pixels(events, "templates/digit 0", 0).shape == (8, 8, 3)


def test_template_of_two_classes_and_in_colour(tmp_path):
    Z, z = X[:100, :12], (Y[:100] > 4).astype(int)
    model = make("sklearn", TensorBoardLogger(tmp_path, image_shape=(3, 2, 2))).fit(Z, z)
    events = the_run(tmp_path)
    assert events.Tags()["images"] == ["templates/1"]
    expected = 0.5 + model.coef_.reshape(3, 2, 2).transpose(1, 2, 0) / (2 * np.abs(model.coef_).max())
    np.testing.assert_allclose(pixels(events, "templates/1"), expected, atol=1 / 255)


def test_signed_colours_of_known_weights():
    red, white, blue = signed_colors(np.array([[[-2.0, 0.0, 2.0]]]))[0, 0]
    assert (np.round(red * 255) == [178, 24, 43]).all() and (white == 1).all()
    assert (np.round(blue * 255) == [33, 102, 172]).all()
    np.testing.assert_allclose(signed_colors(np.array([[[1.0, -2.0]]]))[0, 0, 0], (1 + blue) / 2)
    assert (signed_colors(np.zeros((1, 2, 2))) == 1).all()


def test_shapes_of_images():
    row = np.arange(12.0)[None]
    assert (as_images(row, (3, 4))[0] == row.reshape(3, 4)).all()
    assert (as_images(row, (2, 2, 3))[0, 0, 1] == [3, 4, 5]).all()
    assert (as_images(row, (3, 2, 2))[0, 0, 1] == [1, 5, 9]).all()
    for shape in [(12,), (1, 3, 4), (2, 2, 3, 1)]:
        with pytest.raises(ValueError, match=r"image_shape must be \(h, w\)"):
            as_images(row, shape)
    with pytest.raises(ValueError, match=r"image_shape=\(3, 5\) has 15 values, and the data has 12 columns"):
        as_images(row, (3, 5))


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_fit_of_a_search_is_a_run(protocol, tmp_path):
    pipeline = make_pipeline(StandardScaler(), make(protocol, TensorBoardLogger(tmp_path)))
    grid = {"softmaxclassifier__alpha": [1e-4, 1e-1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, Y)
    written = runs(tmp_path)
    assert len(written) == 5
    for events in written.values():
        assert scalars(events, "loss/train")[0] == [1, 2, 3, 4]
    texts = [events.Tensors("estimator/text_summary")[0].tensor_proto.string_val[0] for events in written.values()]
    assert sum(b"alpha=0.1" in text for text in texts) in (2, 3)  # two folds, and the refit if it is the better
    curve = search.best_estimator_[-1].loss_curve_
    refits = [name for name, events in written.items() if np.allclose(scalars(events, "loss/train")[1], curve)]
    assert len(refits) == 1
    if protocol == "sklearn":
        assert len({name.split("/")[0] for name in written}) == 1
        candidates = [name for name in written if "candidate" in name]
        assert refits[0].startswith("GridSearchCV-") and "/refit-" in refits[0]
        assert [name.split("/")[2] for name in candidates] == [f"candidate-split-evaluation-{i}" for i in range(4)]


def test_the_workers_of_a_search_write(tmp_path):
    model = make("sklearn", TensorBoardLogger(tmp_path), max_iter=2)
    warned = pytest.warns(StackingWarning, match="callbacks listen to one model at a time")
    with warned, joblib.parallel_config(backend="multiprocessing"):  # forks, which is quick
        GridSearchCV(model, {"alpha": [1e-4, 1e-1]}, cv=2, n_jobs=2, refit=False).fit(X, Y)
    written = runs(tmp_path)
    assert len(written) == 4
    assert all(scalars(events, "loss/train")[0] == [1, 2] for events in written.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_copies_of_the_estimator(protocol, tmp_path):
    logger = TensorBoardLogger(tmp_path, scoring="accuracy")
    model = make(protocol, logger).fit(X, Y)
    assert logger.writers_ == {}
    assert vars(pickle.loads(pickle.dumps(logger))) == vars(logger)
    for number, copied in enumerate((clone(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)), 2):
        copied.fit(X, Y)
        written = runs(tmp_path)
        assert len(written) == number
        assert all(name.startswith("SoftmaxClassifier-") for name in written)
        for events in written.values():
            assert_written(events, "loss/train", model.loss_curve_)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_steps_go_on_with_a_warm_start(protocol, tmp_path):
    model = make(protocol, TensorBoardLogger(tmp_path), warm_start=True)
    first = list(model.fit(X, Y).loss_curve_)
    both = model.fit(X, Y).loss_curve_
    assert len(both) == 8
    written = list(runs(tmp_path).values())
    if protocol == "skorch":
        (events,) = written
        assert_written(events, "loss/train", both)
    else:
        second, first_run = sorted(written, key=lambda events: -scalars(events, "loss/train")[0][0])
        assert_written(first_run, "loss/train", first)
        assert_written(second, "loss/train", both[4:], first_step=5)


def test_partial_fit_goes_on_with_its_run(tmp_path):
    model = make("skorch", TensorBoardLogger(tmp_path))
    for _ in range(3):
        model.partial_fit(X, Y, classes=range(10))
    assert_written(the_run(tmp_path), "loss/train", model.loss_curve_)
    model.fit(X, Y)
    assert len(runs(tmp_path)) == 2


class Interrupt:
    """A callback of scikit-learn's protocol that raises in the third epoch."""

    def __init__(self, error):
        self.error = error

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == 2:
            raise self.error


def test_a_fit_that_ends_early(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    with pytest.raises(RuntimeError, match="no more"):
        make("sklearn", logger).set_callbacks(logger, Interrupt(RuntimeError("no more"))).fit(X, Y)
    assert logger.writers_ == {}
    assert scalars(the_run(tmp_path), "loss/train")[0] == [1, 2]
    interrupted = make("sklearn", logger).set_callbacks(logger, Interrupt(KeyboardInterrupt())).fit(X, Y)
    assert logger.writers_ == {} and interrupted.n_iter_ == 2
    assert all(scalars(events, "loss/train")[0] == [1, 2] for events in runs(tmp_path).values())


# ---- what cannot be logged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_tensorboard(protocol, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    model = make(protocol, TensorBoardLogger(tmp_path))
    with pytest.raises(ImportError, match=r"TensorBoardLogger requires tensorboard. .*pip install tensorboard"):
        model.fit(X, Y)
    assert not hasattr(model, "coef_")


def test_another_package_s_estimator(tmp_path):
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier()).set_callbacks(TensorBoardLogger(tmp_path))
    with pytest.raises(TypeError, match=r"(?s)got Pipeline.*pipeline\[-1\]\.set_callbacks"):
        pipeline.fit(X, Y)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_that_there_are_not(protocol, tmp_path):
    with pytest.raises(ValueError, match=r"image_shape=.* is for the templates of linear classifiers"):
        make(protocol, TensorBoardLogger(tmp_path, image_shape=(8, 8)), MLPClassifierTorch).fit(X, Y)
    with pytest.raises(ValueError, match=r"image_shape=\(8, 9\) has 72 values, and the data has 64 columns"):
        make(protocol, TensorBoardLogger(tmp_path, image_shape=(8, 9))).fit(X, Y)
    assert not list(tmp_path.iterdir())
