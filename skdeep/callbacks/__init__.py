"""Observers of a run of one model: a printed table, and adapters to scikit-learn's and to skorch's callbacks."""
