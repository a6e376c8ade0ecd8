"""The classifiers and regressors, and what they share."""
