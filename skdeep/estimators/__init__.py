"""The classifiers, and the methods that they share."""
