"""Softmax, hinge and multilayer-perceptron classifiers for scikit-learn, trained by torch mini-batches."""

from skdeep.hinge import HingeClassifier
from skdeep.linear import SoftmaxClassifier
from skdeep.mlp import MLPClassifierTorch
from skdeep.modules import TorchClassifier

__all__ = ["HingeClassifier", "MLPClassifierTorch", "SoftmaxClassifier", "TorchClassifier"]
__version__ = "0.1.0"
