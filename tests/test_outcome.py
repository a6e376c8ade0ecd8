"""What users are told of training that came to nothing."""

import pickle
import warnings

import numpy as np
import pytest
from helpers import linear_module, reconfigured
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score

from skdeep import (
    Adam,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
)
from skdeep.engine.frame import kept

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
FAR = X + 1e6


ASTRAY = {
    "softmax": SoftmaxClassifier(standardize=False, solver=Adam(learning_rate="constant")),
    "sigmoid": SigmoidClassifier(standardize=False, solver=Adam(learning_rate="constant")),
    "hinge": HingeClassifier(standardize=False, calibration=None, solver=Adam(learning_rate="constant")),
    "least squares": LeastSquaresClassifier(standardize=False, solver=Adam(learning_rate="constant")),
    "mlp": MLPClassifierTorch((4,), standardize=False, learning_rate="constant", learning_rate_init=10, max_iter=30),
    "module": TorchClassifier(linear_module, learning_rate_init=10, max_iter=30),
}


def warnings_of(model, X, y, **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y, **arguments)
    return [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]


@pytest.mark.parametrize("name", ASTRAY)
def test_a_model_that_knows_less_than_nothing(name):
    """Columns far from zero, as they are, and steps that are far too long: the loss is above that of scores of zero."""
    model = reconfigured(ASTRAY[name], random_state=0, n_iter_no_change=3)
    told = warnings_of(model, FAR, Y)
    assert any("came to nothing: the training loss is" in text and "lower learning_rate_init" in text for text in told)
    assert len(told) == 1  # and not, beside it, that more epochs would help
    model.partial_fit(FAR, Y)  # says nothing: the next call may be better


@pytest.mark.parametrize("name", ASTRAY)
def test_no_false_alarm(name):
    """Noise, a class without weight, few epochs, strong penalties: the loss may be no lower, but not above."""
    params = {"standardize": True} if name != "module" else {"learning_rate_init": 0.003}
    noise = np.random.default_rng(1).integers(0, 2, 60)
    for more in ({}, {"alpha": 100.0}, {"max_iter": 2}, {"class_weight": "balanced"}):
        model = reconfigured(clone(ASTRAY[name]), **params | {"learning_rate_init": 0.003} | more)
        assert not any("came to nothing" in text for text in warnings_of(model, X, noise))
        assert not any(
            "came to nothing" in text for text in warnings_of(model, X, Y, sample_weight=RNG.uniform(size=60))
        )


def test_lbfgs_that_stands_still_far_from_the_optimum():
    """In float32, a column far from zero is a constant, beside which the bias has no weight."""
    rng = np.random.default_rng(2)
    model = TorchClassifier(linear_module, solver="lbfgs", random_state=0, max_iter=300)
    told = warnings_of(model, rng.normal(size=(60, 1)) + 1e12, rng.integers(7, size=60))
    assert len(told) == 1 and "came to nothing" in told[0] and "Scale the columns of X" in told[0]
    assert model.n_iter_ < 300


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_iter", [1, 2, 3, 4, 5])
def test_steps_that_grow_are_an_error_or_a_warning(dtype, max_iter):
    """The last step may be one too many, whose loss no epoch has seen."""
    model = MLPClassifierTorch(
        (4,), solver="sgd", learning_rate="constant", alpha=0.01, max_iter=max_iter, random_state=0
    )
    rows, weight = X[:2].astype(dtype), np.array([5e-13, 1.9e-12])  # which the penalty is divided by
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(rows, [0, 1], sample_weight=weight)
        except ValueError as error:
            assert "Training diverged" in str(error) and not hasattr(model, "coefs_")
        else:
            assert np.isfinite(model.decision_function(rows)).all()
            assert all(np.isfinite(array).all() for array in model.coefs_ + model.intercepts_)
    assert all(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def test_weights_that_are_not_finite_are_not_kept():
    center, size = np.zeros(2), np.ones(2)
    for weight in ([[np.inf, 1.0]], [[1e308, np.nan]], [[1e200, 1e250]]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if np.isfinite(weight).all():
                raw, _ = kept(np.array(weight), np.zeros(1), size, center, None, np.dtype(np.float32))
                assert raw.dtype == np.float64 and np.isfinite(raw).all()
            else:
                with pytest.raises(ValueError, match="no room in float64"):
                    kept(np.array(weight), np.zeros(1), size, center, None, np.dtype(np.float32))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_columns_of_subnormal_numbers_are_named(form):
    """Of sparse ones, "training diverged"."""
    rows = np.ldexp(RNG.normal(size=(30, 2)), -1060)
    for model in (SoftmaxClassifier(), LinearRegressor()):
        with pytest.raises(ValueError, match="no room in float64: see columns 0, 1"):
            model.fit(form(rows), np.arange(30) % 2)


@pytest.mark.parametrize("hidden", [(1,), (1, 3), (4,)])
def test_a_pickled_model_goes_on_to_the_same_bits(hidden):
    """Products round by the strides of an axis of one entry, which a pickle does not keep."""
    rows, y = RNG.normal(size=(60, 2)), np.arange(60) % 4
    params = {"max_iter": 8, "batch_size": 1, "warm_start": True, "random_state": 1, "activation": "leaky_relu"}
    model = MLPClassifierTorch(hidden, **params).fit(rows, y)
    loaded = pickle.loads(pickle.dumps(model))
    for mine, other in zip(model.coefs_, loaded.coefs_, strict=True):
        assert mine.strides == other.strides
    np.testing.assert_array_equal(loaded.decision_function(rows), model.decision_function(rows))
    loaded.fit(rows, y), model.fit(rows, y)
    for mine, other in zip(model.coefs_, loaded.coefs_, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("sparse", [False, True])
def test_coefficients_of_one_row_have_the_strides_of_their_pickle(sparse):
    from scipy.sparse import csr_array

    model = SoftmaxClassifier(max_iter=2).fit(csr_array(X) if sparse else X, Y)
    assert pickle.loads(pickle.dumps(model)).coef_.strides == model.coef_.strides


@pytest.mark.parametrize("calibration", [None, "temperature"])
def test_hinges_that_take_no_notice_of_a_rare_class(calibration):
    """A constant is their optimum, however well squares of them tell the classes apart."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [950, 50])
    X = rng.normal(size=(1000, 2)) + 2 * y[:, None] * [1, 0]
    with pytest.warns(UserWarning, match="All coefficients are zero at the optimum.*class_weight='balanced'"):
        HingeClassifier("hinge", calibration=calibration).fit(X, y)
    for other in ({"loss": "squared_hinge"}, {"loss": "hinge", "class_weight": "balanced"}):
        clf = HingeClassifier(calibration=calibration, **other).fit(X, y)  # without a warning
        assert roc_auc_score(y, clf.decision_function(X)) > 0.85
