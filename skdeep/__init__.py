"""Softmax, hinge and multilayer-perceptron classifiers for scikit-learn, trained by torch mini-batches."""
