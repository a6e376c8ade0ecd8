"""Every scikit-learn estimator check of every class; those of data on each configuration that takes its own path."""

import numpy as np
import pytest
import torch
from helpers import check_each, reconfigured
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import (
    check_array_api_input,
    check_dataframe_column_names_consistency,
    check_param_validation,
    estimator_checks_generator,
    parametrize_with_checks,
)
from torch import nn

from skdeep import (
    SGD,
    AdamW,
    HingeClassifier,
    LeastSquaresClassifier,
    LinearRegressor,
    MLPClassifierTorch,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressorTorch,
    SigmoidClassifier,
    SoftmaxClassifier,
    TorchClassifier,
    TorchRegressor,
)
from skdeep.fitting.settings import settings_of

pytestmark = [
    # the data of some checks have nothing to do with their labels
    pytest.mark.filterwarnings("ignore:The scores of rows that a model was not trained on"),
    # whose fitted attributes are asked for the names that dtypes have in NumPy
    pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype"),
]


class Perceptron(nn.Sequential):
    """As a user may write it: batch statistics, random numbers, and a size that follows from the data."""

    def __init__(self, n_outputs, hidden=16):
        layers = nn.LazyLinear(hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, n_outputs)
        super().__init__(*layers)


SMALL = {"max_iter": 10, "hidden_layer_sizes": (16,), "learning_rate_init": 0.05}
TINY = {"max_iter": 6, "hidden_layer_sizes": (16,), "learning_rate_init": 0.05}

CONFIGURATIONS = [
    SoftmaxClassifier(),
    SoftmaxClassifier(solver="sgd"),
    SoftmaxClassifier(penalty="l1", alpha=1e-3),
    SoftmaxClassifier(penalty="elasticnet", standardize=False),
    # "float64" is what "auto" does with the checks' small data
    SoftmaxClassifier(penalty=None, solver=SGD(learning_rate="cosine", warmup_epochs=3, precision="float32")),
    SoftmaxClassifier(solver=AdamW(max_grad_norm=1.0), class_weight="balanced", max_iter=20),
    SoftmaxClassifier(solver="lbfgs"),
    SoftmaxClassifier(early_stopping=True, scoring="loss"),
    SoftmaxClassifier(warm_start=True, solver=SGD(learning_rate="invscaling", nesterovs_momentum=False)),
    HingeClassifier(),
    HingeClassifier(loss="squared_hinge", calibration="sigmoid"),
    HingeClassifier(loss="squared_hinge", multi_class="ovr", solver="lbfgs"),
    HingeClassifier(multi_class="crammer_singer", early_stopping=True, calibration=None),
    HingeClassifier(multi_class="ovr", calibration=None, class_weight="balanced"),
    HingeClassifier(penalty="l1", solver="adam", calibration=None, max_iter=20),
    SoftmaxClassifier(calibration="temperature", label_smoothing=0.1),
    SigmoidClassifier(),
    SigmoidClassifier(solver="lbfgs", calibration="sigmoid"),
    LeastSquaresClassifier(),
    LeastSquaresClassifier(alpha=0, calibration="sigmoid"),
    LeastSquaresClassifier(solver="sgd", calibration="temperature", max_iter=20),
    MLPClassifierTorch(),
    MLPClassifierTorch(calibration="temperature", label_smoothing=0.1, **TINY),
    MLPClassifierTorch((16,), solver="sgd", learning_rate="adaptive", learning_rate_init=0.1, max_iter=20),
    MLPClassifierTorch((16,), solver="lbfgs", max_iter=20),
    MLPClassifierTorch(
        **SMALL | {"hidden_layer_sizes": (20, 10)}, activation="tanh", solver="adamw", class_weight="balanced"
    ),
    # a slope to learn, several pieces to a unit, another initial range; the others take relu's path
    MLPClassifierTorch(activation="prelu", dropout=0.3, **SMALL),
    MLPClassifierTorch(activation="maxout", normalization="layer", **SMALL),
    MLPClassifierTorch(activation="logistic", early_stopping=True, **SMALL),
    MLPClassifierTorch(
        **TINY | {"hidden_layer_sizes": (16, 16)}, normalization="batch", dropout=0.1, stochastic_depth=0.2
    ),
    TorchClassifier(Perceptron, learning_rate_init=0.05, max_iter=10),
    SoftmaxClassifier(solver=SGD(precision="bfloat16")),
    MLPClassifierTorch(precision="bfloat16", **SMALL),
    SoftmaxClassifier(solver=SGD(batch_size=8), max_iter=20),
    MLPClassifierTorch(batch_size=8, **TINY),
    MLPEnsembleClassifier(3, **TINY),
    MLPEnsembleClassifier(2, **TINY, batch_size=200, calibration="sigmoid", early_stopping=True, scoring="loss"),
    LinearRegressor(),
    LinearRegressor(penalty="elasticnet", alpha=0.01),
    LinearRegressor("absolute_error"),
    LinearRegressor("huber", solver="sgd", max_iter=30),
    LinearRegressor("poisson"),
    LinearRegressor("epsilon_insensitive", early_stopping=True, max_iter=20),
    LinearRegressor(output="softplus"),
    MLPRegressorTorch(),
    MLPRegressorTorch("huber", (16,), solver="lbfgs", max_iter=20),
    MLPRegressorTorch("poisson", (16,), early_stopping=True),
    MLPRegressorTorch(standardize=False, hidden_layer_sizes=(16,), learning_rate_init=0.02),
    MLPEnsembleRegressor(2, **TINY | {"max_iter": 15}),
    TorchRegressor(Perceptron, learning_rate_init=0.05, max_iter=10),
]


def forbidden_by_mathematics(estimator):
    """Mini-batches smaller than the data are drawn by row: a row of weight 2 is not two rows there."""
    if getattr(estimator, "loss", None) == "poisson":
        return {"check_regressor_multioutput": "some of its targets are negative, whatever tags say"}
    if getattr(settings_of(estimator), "batch_size", "auto") in ("auto", 200):
        return {}
    return {
        f"check_sample_weight_equivalence_on_{kind}_data": "batches of 8 rows: equality holds for converged fits only"
        for kind in ("dense", "sparse")
    }


#: The quickest of each class: what a check sees of it, no parameter changes.
ONE_OF_EACH = [
    SoftmaxClassifier(),
    HingeClassifier("squared_hinge", solver="lbfgs"),
    SigmoidClassifier(),
    LeastSquaresClassifier(),
    MLPClassifierTorch(**TINY),
    MLPEnsembleClassifier(2, **TINY),
    TorchClassifier(Perceptron, learning_rate_init=0.05, max_iter=8),
    LinearRegressor(),
    MLPRegressorTorch(**TINY | {"max_iter": 15}),
    MLPEnsembleRegressor(2, **TINY | {"max_iter": 15}),
    TorchRegressor(Perceptron, learning_rate_init=0.05, max_iter=8),
]

#: Checks of what a class is, before it is fitted.
OF_INTERFACES = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_fit_score_takes_y",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_positive_only_tag_during_fit",
    "check_set_params",
    "check_valid_tag_types",
}
#: Checks of what all its fits refuse, by the code that comes before any parameter is asked for.
OF_REFUSALS = {
    "check_all_zero_sample_weights_error",
    "check_classifiers_regression_target",
    "check_complex_data",
    "check_dtype_object",
    "check_estimators_empty_data_messages",
    "check_estimators_partial_fit_n_features",
    "check_fit1d",
    "check_fit2d_predict1d",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_requires_y_none",
    "check_sample_weights_shape",
    "check_supervised_y_2d",
    "check_supervised_y_no_nan",
}
#: Checks of the forms in which the same values may come; they are one form before any parameter is asked for.
OF_FORMS = {
    "check_array_api_input",
    "check_array_api_mixed_inputs",
    "check_array_api_same_namespace",
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_multilabel_representation_invariance",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_f_contiguous_array_estimator",
    "check_pipeline_consistency",
    "check_readonly_memmap_input",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_pandas_series",
}
#: Of networks, checks that take up to a thousand epochs to see less than others do: weights of classes are weights of
#: rows, of which check_sample_weight_equivalence_on_dense_data asks each configuration. (Those of linear models, whose
#: solvers and losses stand the extreme weights in their own ways, are quick.)
OF_LINEAR_MODELS = {"check_class_weight_classifiers"}
#: Checks that ask how good a model is, or whether weights and repetition end at the same one. To the others, a model of
#: two epochs is as good as any.
OF_RESULTS = {
    "check_class_weight_classifiers",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_regressors_train",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}


def for_check(estimator, check):
    """The estimator, trained no longer than the check needs."""
    return estimator if check.func.__name__ in OF_RESULTS else clone(estimator).set_params(max_iter=2)


def of_data(check, estimator):
    """Whether what a check sees depends on parameters; variants of a check are the same data in other forms."""
    left_out = OF_INTERFACES | OF_REFUSALS | OF_FORMS
    if isinstance(estimator, MLPClassifierTorch | MLPEnsembleClassifier):
        left_out |= OF_LINEAR_MODELS
    return not check.keywords and check.func.__name__ not in left_out


@parametrize_with_checks(ONE_OF_EACH)
def test_checks_of_classes(estimator, check):
    if "cuda" in str(check.keywords) and not torch.cuda.is_available():  # scikit-learn asks how torch was built
        pytest.skip("there is no CUDA device")
    check(for_check(estimator, check))


# check_estimator leaves these out: they are part of scikit-learn's own test suite
@pytest.mark.parametrize("estimator", ONE_OF_EACH, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize("check", [check_param_validation, check_dataframe_column_names_consistency])
def test_further_checks_of_classes(estimator, check):
    check(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize("estimator", CONFIGURATIONS, ids=str)
def test_checks_of_configurations(estimator):
    """All of a configuration in one test: pytest would do more around most of them than they do."""
    forbidden = forbidden_by_mathematics(estimator)
    checks = [check for _, check in estimator_checks_generator(estimator) if of_data(check, estimator)]
    assert len(checks) > 20
    allowed = {check.func.__name__: [check] for check in checks if check.func.__name__ not in forbidden}
    assert len(allowed) + len(forbidden) == len(checks)
    check_each(lambda check: check(for_check(estimator, check)), allowed)
    for check in checks:
        if check.func.__name__ in forbidden:
            negative = check.func.__name__ == "check_regressor_multioutput"
            says = {"match": "out of the valid range of the loss 'poisson'"} if negative else {}
            with pytest.raises(
                ValueError if negative else AssertionError, **says
            ):  # else it would be forbidden no more
                check(for_check(estimator, check))


def test_every_check_that_is_left_to_classes_is_one():
    """A check of another name would be left to nobody."""
    known = {check.func.__name__ for estimator in ONE_OF_EACH for _, check in estimator_checks_generator(estimator)}
    assert known >= OF_INTERFACES | OF_REFUSALS | OF_FORMS | OF_LINEAR_MODELS | OF_RESULTS
    assert {type(estimator) for estimator in ONE_OF_EACH} == {type(estimator) for estimator in CONFIGURATIONS}


@pytest.mark.parametrize("dtype_name", ["float32", "float64"])
@pytest.mark.parametrize("namespace", ["torch", "array_api_strict"])
@pytest.mark.parametrize(  # all of which have an accuracy of one, which scikit-learn computes in float32 for torch
    "estimator", [SoftmaxClassifier(), HingeClassifier(alpha=0.03), MLPClassifierTorch(**SMALL)], ids=str
)
def test_array_api_values(estimator, namespace, dtype_name):
    check_array_api_input(
        type(estimator).__name__,
        estimator,
        array_namespace=namespace,
        dtype_name=dtype_name,
        check_values=True,
        check_sample_weight=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        SoftmaxClassifier(alpha=0.1),
        HingeClassifier("squared_hinge", alpha=0.1, calibration=None),
    ],
    ids=str,
)
def test_mini_batches_converge_to_the_weighted_optimum(estimator):
    """Where the exact checks cannot hold: mini-batch fits with weights and with repetition meet at the optimum."""
    X, y = load_iris(return_X_y=True)
    X, y = X[::3], y[::3]
    repeats = np.random.default_rng(0).integers(0, 4, len(y))
    optimum = clone(estimator).set_params(solver="lbfgs", tol=1e-9)
    scores = clone(optimum).fit(X, y, sample_weight=repeats).decision_function(X)
    unweighted = clone(optimum).fit(X, y).decision_function(X)
    tolerance = np.abs(scores - unweighted).max() / 4
    estimator = reconfigured(
        clone(estimator),
        batch_size=16,
        learning_rate="cosine",
        max_iter=300,
        tol=0,
        n_iter_no_change=np.inf,
        random_state=0,
    )
    weighted = clone(estimator).fit(X, y, sample_weight=repeats)
    repeated = clone(estimator).fit(X.repeat(repeats, axis=0), y.repeat(repeats))
    np.testing.assert_allclose(weighted.decision_function(X), scores, atol=tolerance)
    np.testing.assert_allclose(repeated.decision_function(X), scores, atol=tolerance)
