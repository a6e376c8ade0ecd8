"""Linear classifiers and multilayer perceptrons for scikit-learn, trained by torch mini-batches."""

from skdeep.engine.scratch import keep_freed_memory
from skdeep.estimators.ensemble import MLPEnsembleClassifier
from skdeep.estimators.ensemble_regressor import MLPEnsembleRegressor
from skdeep.estimators.hinge import HingeClassifier
from skdeep.estimators.least_squares import LeastSquaresClassifier
from skdeep.estimators.linear_regressor import LinearRegressor
from skdeep.estimators.mlp import MLPClassifierTorch
from skdeep.estimators.mlp_regressor import MLPRegressorTorch
from skdeep.estimators.sigmoid import SigmoidClassifier
from skdeep.estimators.softmax import SoftmaxClassifier
from skdeep.estimators.torch_module import TorchClassifier
from skdeep.estimators.torch_regressor import TorchRegressor
from skdeep.fitting.losses import EpsilonInsensitive, Huber, Quantile, Tweedie
from skdeep.fitting.saved import OtherVersionWarning, without_training_state
from skdeep.fitting.settings import LBFGS, SGD, Adam, AdamW
from skdeep.model_selection import compare, stacked

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "AdamW",
    "EpsilonInsensitive",
    "HingeClassifier",
    "Huber",
    "LeastSquaresClassifier",
    "LinearRegressor",
    "MLPClassifierTorch",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressorTorch",
    "OtherVersionWarning",
    "Quantile",
    "SigmoidClassifier",
    "SoftmaxClassifier",
    "TorchClassifier",
    "TorchRegressor",
    "Tweedie",
    "compare",
    "stacked",
    "without_training_state",
]
__version__ = "0.1.0"

keep_freed_memory()
