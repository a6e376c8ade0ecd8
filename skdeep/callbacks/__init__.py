"""Observers of a run of one model."""
