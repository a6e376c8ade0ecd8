"""Linear classifiers and multilayer perceptrons for scikit-learn, trained by torch mini-batches."""

from skdeep.ensemble import MLPEnsembleClassifier
from skdeep.hinge import HingeClassifier
from skdeep.least_squares import LeastSquaresClassifier
from skdeep.linear import SoftmaxClassifier
from skdeep.mlp import MLPClassifierTorch
from skdeep.model_selection import stacked
from skdeep.modules import TorchClassifier
from skdeep.sigmoid import SigmoidClassifier

__all__ = [
    "HingeClassifier",
    "LeastSquaresClassifier",
    "MLPClassifierTorch",
    "MLPEnsembleClassifier",
    "SigmoidClassifier",
    "SoftmaxClassifier",
    "TorchClassifier",
    "stacked",
]
__version__ = "0.1.0"
