"""The pictures: what their artists show, and that nothing is cut off."""

import itertools
import sys
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from scipy.sparse import coo_array
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV as ScikitLearnGridSearchCV
from sklearn.model_selection import RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import EpochScoring

from skdeep import HingeClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.display import LossCurveDisplay, RegularizationPathDisplay, SearchDisplay, TemplatesDisplay
from skdeep.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RegularizationPath,
    one_standard_error,
    regularization_path,
)

X_DIGITS, Y_DIGITS = load_digits(return_X_y=True)
X_DIGITS, Y_DIGITS = X_DIGITS[:400] / 16, Y_DIGITS[:400]
X_IRIS, Y_IRIS = load_iris(return_X_y=True)

softmax = partial(SoftmaxClassifier, max_iter=5, random_state=0, device="cpu")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def assert_nothing_is_cut_off(display):
    """All text and all Axes with their labels lie within the figure."""
    figure = display.figure_
    figure.canvas.draw()
    for ax in figure.axes:
        for artist in [ax, *ax.texts]:
            box = artist.get_tightbbox()
            assert box.x0 > -1 and box.y0 > -1, artist
            assert box.x1 < figure.bbox.width + 1 and box.y1 < figure.bbox.height + 1, artist


def titles(display):
    return [text.get_text() for text in display.titles_]


# ---- templates -------------------------------------------------------------------------------------------------------


def test_templates_of_digits():
    model = softmax().fit(X_DIGITS, Y_DIGITS)
    display = TemplatesDisplay.from_estimator(model, X_DIGITS, Y_DIGITS, image_shape=(8, 8))
    limit = np.abs(model.coef_).max()
    for c in range(10):
        image, mean = display.images_[c], display.mean_images_[c]
        np.testing.assert_array_equal(image.get_array(), model.coef_[c].reshape(8, 8))
        assert (image.norm.vmin, image.norm.vmax) == (-limit, limit)
        assert image.get_cmap().name == "RdBu"
        # both in one column, the mean below
        assert image.get_extent()[:2] == mean.get_extent()[:2] and image.get_extent()[2] < mean.get_extent()[3]
        expected = X_DIGITS[Y_DIGITS == c].mean(axis=0).reshape(8, 8)
        shown = mean.get_array()
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] == pytest.approx(1)
    means = np.array([image.get_array() for image in display.mean_images_])
    assert means.min() == 0 and means.max() == 1
    assert titles(display) == [str(c) for c in range(10)]
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["template", "mean image"]
    assert display.colorbar_.ax.get_ylabel() == "weight"
    blue, red = display.images_[0].get_cmap()([1.0, 0.0])
    assert blue[2] > blue[0] and red[0] > red[2]
    assert_nothing_is_cut_off(display)


def test_template_of_two_classes():
    two = Y_DIGITS < 2
    names = np.array(["the digit nought", "the digit one"])
    model = softmax().fit(X_DIGITS[two], names[Y_DIGITS[two]])
    display = TemplatesDisplay.from_estimator(model, X_DIGITS[two], names[Y_DIGITS[two]], image_shape=(8, 8))
    assert len(display.images_) == 1 and len(display.mean_images_) == 2
    template, *means = (" ".join(title.split()) for title in titles(display))
    assert template == "the digit one (+) the digit nought (\N{MINUS SIGN})" and means == list(names)
    assert_nothing_is_cut_off(display)


@pytest.mark.parametrize("image_shape", [(4, 5, 3), (3, 4, 5)])
def test_templates_in_colour(image_shape):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(26), 4)
    X = rng.random((26, 60))[y]
    model = softmax().fit(X, y)
    names = [f"class number {i}" for i in range(26)]
    display = TemplatesDisplay.from_estimator(model, X, y, image_shape=image_shape, class_names=names, n_cols=9)

    def image(row):
        return row.reshape(4, 5, 3) if image_shape[2] == 3 else row.reshape(3, 4, 5).transpose(1, 2, 0)

    limit = np.abs(model.coef_).max()
    for c in (0, 25):
        np.testing.assert_allclose(display.images_[c].get_array(), 0.5 + image(model.coef_[c]) / (2 * limit))
        expected = (image(X[y == c][0]) - X.min()) / np.ptp(X)
        np.testing.assert_allclose(display.mean_images_[c].get_array(), expected, atol=1e-12)
    assert display.colorbar_ is None
    lefts = {round(image.get_extent()[0], 6) for image in display.images_}
    tops = {round(image.get_extent()[3], 6) for image in display.images_}
    assert (len(lefts), len(tops)) == (9, 3)
    assert " ".join(titles(display)[25].split()) == "class number 25"
    assert_nothing_is_cut_off(display)


def test_templates_without_means_and_of_one_column():
    model = softmax().fit(X_IRIS[:, 3:], Y_IRIS)
    display = TemplatesDisplay.from_estimator(
        model, image_shape=(1, 1), class_names=["setosa", "versicolor", "virginica"]
    )
    assert display.mean_images_ == [] and len(display.images_) == 3
    assert not any(label.get_text() for label in display.ax_.get_yticklabels())
    assert_nothing_is_cut_off(display)


def test_templates_of_a_pipeline():
    scaled = make_pipeline(StandardScaler(), softmax()).fit(X_DIGITS, Y_DIGITS)
    display = TemplatesDisplay.from_estimator(scaled, X_DIGITS, Y_DIGITS, image_shape=(8, 8))
    np.testing.assert_array_equal(display.images_[3].get_array(), scaled[-1].coef_[3].reshape(8, 8))
    assert display.colorbar_.ax.get_ylabel() == "weight after\nStandardScaler"
    assert_nothing_is_cut_off(display)
    # the mean images are of the images as passed
    plain_model = softmax().fit(X_DIGITS, Y_DIGITS)
    plain = TemplatesDisplay.from_estimator(plain_model, X_DIGITS, Y_DIGITS, image_shape=(8, 8))
    np.testing.assert_array_equal(display.means, plain.means)
    thin = TemplatesDisplay.from_estimator(plain_model, coo_array(X_DIGITS), Y_DIGITS, image_shape=(8, 8))
    np.testing.assert_allclose(thin.means, plain.means)

    steps = make_pipeline("passthrough", FunctionTransformer(np.sqrt), softmax()).fit(X_DIGITS, Y_DIGITS)
    display = TemplatesDisplay.from_estimator(steps, image_shape=(8, 8))
    assert display.scaled == "FunctionTransformer"

    for step in (PCA(), VarianceThreshold()):
        changed = make_pipeline(step, softmax()).fit(X_DIGITS, Y_DIGITS)
        with pytest.raises(ValueError, match=rf"columns that the classifier sees are not.*{type(step).__name__}"):
            TemplatesDisplay.from_estimator(changed, image_shape=(8, 8))


def test_templates_of_labels_and_of_absent_classes():
    labels = np.stack([Y_DIGITS % 2, Y_DIGITS > 4], axis=1)
    ridge = RidgeClassifier().fit(X_DIGITS, labels)  # any linear classifier will do
    display = TemplatesDisplay.from_estimator(ridge, X_DIGITS, labels, image_shape=(8, 8))
    np.testing.assert_allclose(display.means[1], X_DIGITS[Y_DIGITS > 4].mean(axis=0).reshape(8, 8))

    some = Y_DIGITS != 3
    model = softmax().fit(X_DIGITS, Y_DIGITS)
    display = TemplatesDisplay.from_estimator(model, X_DIGITS[some], Y_DIGITS[some], image_shape=(8, 8))
    assert np.ma.masked_invalid(display.mean_images_[3].get_array()).mask.all()
    assert_nothing_is_cut_off(display)


def test_templates_in_a_given_place():
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    model = softmax().fit(X_DIGITS, Y_DIGITS)
    display = TemplatesDisplay.from_estimator(
        model, X_DIGITS, Y_DIGITS, image_shape=(8, 8), ax=axes[0], class_names=[f"the digit {i}" for i in range(10)]
    )
    assert display.ax_ is axes[0] and display.figure_ is figure
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in display.titles_]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))  # smaller titles
    assert_nothing_is_cut_off(display)


def test_what_has_no_templates():
    model = softmax().fit(X_DIGITS, Y_DIGITS)
    show = partial(TemplatesDisplay.from_estimator, model, image_shape=(8, 8))
    with pytest.raises(TypeError, match="MLPClassifierTorch has none"):
        mlp = MLPClassifierTorch((4,), max_iter=1).fit(X_DIGITS, Y_DIGITS)
        TemplatesDisplay.from_estimator(mlp, image_shape=(8, 8))
    with pytest.raises(ValueError, match="X and y belong together"):
        show(X_DIGITS)
    with pytest.raises(ValueError, match="class_names has 2 names for 10 classes"):
        show(class_names=["a", "b"])
    with pytest.raises(ValueError, match="no sample of the classes"):
        show(X_DIGITS, np.full(len(X_DIGITS), 10))
    with pytest.raises(ValueError, match=r"image_shape=\(8, 9\) has 72 values"):
        TemplatesDisplay.from_estimator(model, image_shape=(8, 9))
    with pytest.raises(ValueError, match="ax has 2 Axes, and there is only 1"):
        show(ax=plt.subplots(1, 2)[1])


# ---- loss curves -----------------------------------------------------------------------------------------------------


def data(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_loss_curves():
    validation = {"X_val": X_DIGITS[300:], "y_val": Y_DIGITS[300:]}
    recorded = EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)
    models = [
        softmax(callbacks=[recorded]).fit(X_DIGITS[:300], Y_DIGITS[:300], **validation),
        make_pipeline(StandardScaler(), softmax(max_iter=3)).fit(X_DIGITS, Y_DIGITS),
        MLPClassifierTorch((8,), max_iter=4, early_stopping=True).fit(X_DIGITS, Y_DIGITS),
    ]
    display = LossCurveDisplay.from_estimators(models, names=["one", "two", "three"])
    epochs = [1, 2, 3, 4, 5]
    finals = [models[0], models[1][-1], models[2]]
    for number, (final, name, color) in enumerate(
        zip(finals, ["one", "two", "three"], ["#0072b2", "#e69f00", "#009e73"], strict=True)
    ):
        line = display.loss_lines_[number]
        assert data(line) == (epochs[: final.n_iter_], final.loss_curve_)
        assert line.get_label() == f"{name}, training" and line.get_linestyle() == "-"
        assert to_hex(line.get_color()) == color
        held_out = display.validation_loss_lines_[number], display.validation_score_lines_[number]
        if final.validation_scores_ is None:
            assert held_out == (None, None)
            continue
        for line, values in zip(held_out, (final.validation_loss_curve_, final.validation_scores_), strict=True):
            assert data(line) == (epochs[: final.n_iter_], values)
            assert line.get_label() == f"{name}, validation" and line.get_linestyle() == "--"
            assert to_hex(line.get_color()) == color
    assert data(display.train_score_lines_[0]) == (epochs, models[0].history_[:, "train_acc"])
    assert display.train_score_lines_[1:] == [None, None]
    assert [ax.get_ylabel() for ax in display.axes_] == ["loss", "accuracy"]
    assert [ax.get_xlabel() for ax in display.axes_] == ["epoch", "epoch"]
    labels = [text.get_text() for text in display.axes_[1].get_legend().get_texts()]
    assert labels == ["one, training", "one, validation", "three, validation"]
    assert_nothing_is_cut_off(display)


def test_loss_curve_of_one():
    model = softmax(max_iter=1).fit(X_DIGITS, Y_DIGITS)
    display = LossCurveDisplay.from_estimator(model)
    assert len(display.axes_) == 1 and display.axes_[0] is display.ax_
    (line,) = display.loss_lines_
    assert data(line) == ([1], model.loss_curve_) and line.get_marker() == "o"  # a line of one point shows nothing
    assert line.get_label() == "SoftmaxClassifier, training"
    assert all(float(tick).is_integer() for tick in display.ax_.get_xticks())

    other = LossCurveDisplay.from_estimator(model, name="other", ax=display.ax_)
    assert other.ax_ is display.ax_ and len(display.ax_.lines) == 2
    assert other.loss_lines_[0].get_color() != line.get_color()


def test_loss_curves_over_warm_starts_and_in_given_axes():
    recorded = EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)
    model = softmax(max_iter=2, warm_start=True, scoring="loss", callbacks=[recorded]).fit(X_DIGITS, Y_DIGITS)
    model.fit(X_DIGITS, Y_DIGITS)
    figure, axes = plt.subplots(1, 2)
    display = LossCurveDisplay.from_estimator(model, ax=axes)
    assert display.loss_lines_[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert display.train_score_lines_[0].get_xdata().tolist() == [3, 4]  # the history is that of the last fit
    assert display.figure_ is figure and axes[1].get_ylabel() == "negative loss"
    alone = LossCurveDisplay.from_estimator(model, ax=plt.figure().subplots())
    assert alone.train_score_lines_ == [None] and len(alone.ax_.lines) == 1


def test_no_loss_curve():
    with pytest.raises(TypeError, match="needs loss_curve_, and RidgeClassifier has none"):
        LossCurveDisplay.from_estimator(RidgeClassifier().fit(X_IRIS, Y_IRIS))
    with pytest.raises(ValueError, match="names has 1 names for 2 estimators"):
        LossCurveDisplay.from_estimators([softmax().fit(X_IRIS, Y_IRIS)] * 2, names=["one"])


# ---- regularisation paths --------------------------------------------------------------------------------------------

ALPHAS = np.array([1e-1, 1e-4, 1e-2, 1e-3])


@pytest.fixture(scope="module")
def path():
    return regularization_path(softmax(penalty="l1"), X_IRIS, Y_IRIS, ALPHAS, cv=3)


def errorbar(container):
    """x, y and the lengths of the bars."""
    line, _, (bars,) = container.lines
    heights = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    return line.get_xdata(), line.get_ydata(), np.array(heights) / 2


def test_regularization_path(path):
    display = RegularizationPathDisplay.from_path(path, score_name="accuracy")
    order = np.argsort(ALPHAS)
    assert len(display.coef_lines_) == 12
    for number, line in enumerate(display.coef_lines_):
        row, column = divmod(number, 4)
        np.testing.assert_array_equal(line.get_xdata(), ALPHAS[order])
        np.testing.assert_array_equal(line.get_ydata(), path.coefs[order, row, column])
        assert line.get_color() == display.coef_lines_[4 * row].get_color()
    assert len({line.get_color() for line in display.coef_lines_}) == 3
    x, y, bars = errorbar(display.errorbar_)
    np.testing.assert_array_equal(x, ALPHAS[order])
    np.testing.assert_allclose(y, path.scores.mean(axis=1)[order])
    np.testing.assert_allclose(bars, path.scores.std(axis=1, ddof=1)[order] / np.sqrt(3))
    for ax, best, simplest in zip(display.axes_, display.best_lines_, display.one_standard_error_lines_, strict=True):
        assert ax.get_xscale() == "log" and ax.get_xlabel() == "alpha"
        assert best.get_xdata()[0] == ALPHAS[path.best_index]
        assert simplest.get_xdata()[0] == ALPHAS[path.one_standard_error_index]
        assert best.get_linestyle() != simplest.get_linestyle() and best.axes is ax
    assert [ax.get_ylabel() for ax in display.axes_] == ["coefficient", "accuracy"]
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in display.axes_]
    assert legends[0] == ["0", "1", "2"]
    assert f"best, {ALPHAS[path.best_index]:.3g}" in legends[1]
    assert_nothing_is_cut_off(display)


def test_path_of_two_classes_with_zero_among_the_alphas():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(X_IRIS[:100], columns=["a", "b", "c", "d"])
    display = RegularizationPathDisplay.from_estimator(softmax(), X, Y_IRIS[:100], [0, 1e-3, 1e-1], cv=3)
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["a", "b", "c", "d"]
    assert len({line.get_color() for line in display.coef_lines_}) == 4
    assert display.ax_.get_xscale() == "symlog" and -1e-3 < display.ax_.get_xlim()[0] < 0
    assert display.ax_.get_ylabel() == "accuracy"


def test_path_without_coefficients_and_in_given_axes(path):
    scores = np.array([[0.5, 0.7], [0.6, 0.9]])
    networks = RegularizationPath(np.array([0.1, 1.0]), [], None, None, scores, 1, 1)
    display = RegularizationPathDisplay.from_path(networks)
    assert len(display.axes_) == 1 and display.coef_lines_ == [] and display.ax_.get_ylabel() == "score"
    np.testing.assert_allclose(errorbar(display.errorbar_)[2], [0.1, 0.15])

    figure, axes = plt.subplots(2)
    assert RegularizationPathDisplay.from_path(path, ax=axes).ax_ is axes[1]
    alone = RegularizationPathDisplay.from_path(path, ax=plt.figure().subplots())
    assert alone.coef_lines_ == [] and len(alone.best_lines_) == 1


# ---- searches --------------------------------------------------------------------------------------------------------


def results(scores, **params):
    """``cv_results_`` of a search with these values and (n_candidates, n_splits) scores."""
    scores = np.asarray(scores, dtype=float)
    names = list(params)
    return {
        **{f"param_{name}": np.ma.array(values, dtype=object) for name, values in params.items()},
        "params": [dict(zip(names, values, strict=True)) for values in zip(*params.values(), strict=True)],
        **{f"split{i}_test_score": column for i, column in enumerate(scores.T)},
        "mean_test_score": scores.mean(axis=1),
    }


@pytest.mark.parametrize("search_class", [GridSearchCV, ScikitLearnGridSearchCV])
def test_search_over_one_parameter(search_class):
    alphas = [1e-1, 1e-4, 1e-2]
    pipeline = make_pipeline(StandardScaler(), softmax())
    search = search_class(pipeline, {"softmaxclassifier__alpha": alphas}, cv=3, refit=one_standard_error)
    search.fit(X_IRIS, Y_IRIS)
    display = SearchDisplay.from_estimator(search)
    x, y, bars = errorbar(display.errorbar_)
    order = np.argsort(alphas)
    splits = np.array([search.cv_results_[f"split{i}_test_score"] for i in range(3)])
    np.testing.assert_array_equal(x, np.sort(alphas))
    np.testing.assert_allclose(y, search.cv_results_["mean_test_score"][order])
    np.testing.assert_allclose(bars, splits.std(axis=0, ddof=1)[order] / np.sqrt(3))
    chosen = search.best_params_["softmaxclassifier__alpha"]
    assert data(display.best_) == ([chosen], [search.cv_results_["mean_test_score"][search.best_index_]])
    assert display.ax_.get_xscale() == "log"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("alpha", "accuracy")
    assert_nothing_is_cut_off(display)


def test_search_over_text():
    scores = [[0.5, 0.7], [0.6, 0.6], [0.9, 0.7], [0.1, 0.2]]
    display = SearchDisplay.from_cv_results(results(scores, penalty=["l2", "l1", None, "a penalty of a long name"]))
    names = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert names == ["l2", "l1", "None", "a penalty of a long name"]
    assert data(display.best_) == ([2], [0.8]) and display.ax_.get_xscale() == "linear"
    np.testing.assert_allclose(errorbar(display.errorbar_)[2], [0.1, 0, 0.1, 0.05])
    assert_nothing_is_cut_off(display)


def test_search_over_two_parameters():
    momentum, alpha = np.repeat([0.9, 0.5], 3).tolist(), [0.1, 0.001, 0.01] * 2
    mean = np.array([0.1, 0.2, 0.3, 0.4, 0.95, 0.6])
    table = results(np.stack([mean - 0.1, mean + 0.1], axis=1), a__alpha=alpha, a__momentum=momentum)
    display = SearchDisplay.from_cv_results(table, score_name="accuracy")
    np.testing.assert_allclose(display.image_.get_array(), [[0.95, 0.6, 0.4], [0.2, 0.3, 0.1]])
    assert display.image_.origin == "lower" and display.image_.get_cmap().name == "viridis"
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["0.5", "0.9"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("alpha", "momentum")
    assert display.colorbar_.ax.get_ylabel() == "accuracy"
    assert [text.get_text() for text in display.text_] == ["0.95", "0.6", "0.4", "0.2", "0.3", "0.1"]
    for text, score in zip(display.text_, display.image_.get_array().ravel(), strict=True):
        background = display.image_.get_cmap()(display.image_.norm(score))
        luminance = [np.dot(to_rgba(color)[:3], [0.2126, 0.7152, 0.0722]) for color in (background, text.get_color())]
        assert abs(luminance[0] - luminance[1]) > 0.35
    frame_x, frame_y = display.best_.get_data()
    assert (frame_x.min(), frame_x.max(), frame_y.min(), frame_y.max()) == (-0.5, 0.5, -0.5, 0.5)
    assert_nothing_is_cut_off(display)

    swapped = SearchDisplay.from_cv_results(table, params=["momentum", "a__alpha"])
    assert swapped.ax_.get_xlabel() == "momentum" and swapped.image_.get_array().shape == (3, 2)


def test_search_over_a_long_grid():
    x, y = (axis.ravel().tolist() for axis in np.meshgrid(np.logspace(-5, 0, 30), np.linspace(0, 1, 20)))
    scores = np.random.default_rng(0).random((600, 2))
    display = SearchDisplay.from_cv_results(results(scores, alpha=x, momentum=y))
    assert display.image_.get_array().shape == (20, 30) and display.text_ == []
    assert len(display.ax_.get_xticks()) <= 12 and len(display.ax_.get_yticks()) <= 12
    assert_nothing_is_cut_off(display)
    display.figure_.canvas.draw()
    boxes = [label.get_window_extent(display.figure_.canvas.get_renderer()) for label in display.ax_.get_yticklabels()]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_randomized_search_over_two_parameters():
    rng = np.random.default_rng(0)
    grid = {"alpha": (10 ** rng.uniform(-5, 0, 8)).tolist(), "tol": rng.uniform(0.1, 0.9, 8).tolist()}
    search = RandomizedSearchCV(softmax(), grid, n_iter=6, cv=2, random_state=0).fit(X_IRIS, Y_IRIS)
    display = SearchDisplay.from_estimator(search)
    tried = [[p["alpha"], p["tol"]] for p in search.cv_results_["params"]]
    np.testing.assert_array_equal(display.image_.get_offsets(), tried)
    np.testing.assert_array_equal(display.image_.get_array(), search.cv_results_["mean_test_score"])
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("log", "linear")
    assert data(display.best_) == tuple([search.best_params_[name]] for name in ("alpha", "tol"))
    assert_nothing_is_cut_off(display)


def test_places_show_their_best_candidate():
    alpha, penalty = [0.1, 1.0, 0.1, 1.0], ["l1", "l1", "l2", "l2"]
    table = results([[0.1], [0.8], [0.5], [0.6]], alpha=alpha, penalty=penalty)
    display = SearchDisplay.from_cv_results(table, params="alpha")
    x, y, bars = errorbar(display.errorbar_)
    assert (x.tolist(), y.tolist(), bars.tolist()) == ([0.1, 1.0], [0.5, 0.8], [0, 0])  # one split has no error
    # the chosen one is shown, even where another is better
    display = SearchDisplay.from_cv_results(table, params="alpha", best_index=0)
    assert errorbar(display.errorbar_)[1].tolist() == [0.1, 0.8] and data(display.best_) == ([0.1], [0.1])


def test_halving_search_shows_last_iterations():
    search = HalvingGridSearchCV(softmax(), {"alpha": [1e-3, 1e-1, 1e1]}, cv=2, factor=3, min_resources=30)
    search.set_params(random_state=0).fit(X_IRIS, Y_IRIS)
    assert len(search.cv_results_["params"]) > 3
    display = SearchDisplay.from_estimator(search)
    x, y, _ = errorbar(display.errorbar_)
    assert x.tolist() == [1e-3, 1e-1, 1e1]
    assert (
        y[x.tolist().index(search.best_params_["alpha"])] == search.cv_results_["mean_test_score"][search.best_index_]
    )


def test_search_with_several_scores_and_failed_fits():
    grid = {"alpha": [1e-3, 1e-2], "tol": [1e-3, 1e-1]}
    several = GridSearchCV(softmax(), grid, cv=2, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss")
    several.fit(X_IRIS, Y_IRIS)
    display = SearchDisplay.from_estimator(several)
    assert display.colorbar_.ax.get_ylabel() == "neg_log_loss"
    assert display.image_.get_array().max() == several.best_score_
    accuracy = SearchDisplay.from_estimator(several, metric="accuracy")
    assert accuracy.image_.get_array().max() == several.cv_results_["mean_test_accuracy"].max()
    with pytest.raises(ValueError, match=r"no score 'f1', only \['accuracy', 'neg_log_loss'\]"):
        SearchDisplay.from_estimator(several, metric="f1")

    table = results([[np.nan], [0.5], [0.6], [0.7]], alpha=[1, 2, 1, 2], momentum=[0.1, 0.1, 0.2, 0.2])
    display = SearchDisplay.from_cv_results(table)
    assert np.ma.getmaskarray(display.image_.get_array()).tolist() == [[True, False], [False, False]]
    assert display.best_.get_xdata().max() == 1.5
    assert "nan" in [text.get_text() for text in display.text_]


def test_parameters_of_a_search():
    table = results(np.zeros((4, 2)), alpha=[1, 2, 1, 2], beta=[1, 1, 2, 2], gamma=[1, 2, 3, 4], delta=[1] * 4)
    with pytest.raises(ValueError, match=r"differ in 3 parameters, \['alpha', 'beta', 'gamma'\]"):
        SearchDisplay.from_cv_results(table)
    with pytest.raises(ValueError, match="params has 'epsilon', and the search has"):
        SearchDisplay.from_cv_results(table, params="epsilon")
    with pytest.raises(ValueError, match="must name one or two different parameters"):
        SearchDisplay.from_cv_results(table, params=["alpha", "beta", "gamma"])
    with pytest.raises(ValueError, match="must name one or two different parameters"):
        SearchDisplay.from_cv_results(table, params=["alpha", "alpha"])
    single = SearchDisplay.from_cv_results(results([[0.5, 0.6]], alpha=[1.0]))
    assert errorbar(single.errorbar_)[0].tolist() == [1.0]


# ---- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", [softmax(), HingeClassifier(max_iter=5, random_state=0), MLPClassifierTorch((8,), max_iter=5)]
)
@pytest.mark.parametrize("response_method", ["predict", "predict_proba"])
def test_decision_regions_are_scikit_learn_s(model, response_method):
    X = X_IRIS[:, 2:]
    model.fit(X, Y_IRIS)
    display = DecisionBoundaryDisplay.from_estimator(model, X, response_method=response_method, grid_resolution=20)
    grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    expected = getattr(model, response_method)(grid)
    np.testing.assert_allclose(display.response.reshape(expected.shape), expected, atol=1e-6)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    display = SearchDisplay(params={"a": [1]}, mean_score=np.ones(1), standard_error=np.ones(1), best_index=0)
    with pytest.raises(ImportError, match=r"SearchDisplay.plot requires matplotlib. .*`pip install matplotlib`"):
        display.plot()
    with pytest.raises(ImportError, match=r"RegularizationPathDisplay.from_estimator requires matplotlib"):
        RegularizationPathDisplay.from_estimator(softmax(), X_IRIS, Y_IRIS, [1e-3])
