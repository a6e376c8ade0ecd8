"""What is private to joblib."""

from __future__ import annotations

from skdeep.compat.checks import private_names

#: The versions that are known to work.
KNOWN = "1.5 and 1.6"

with private_names("joblib", KNOWN):
    # those of this machine, of which others are subclasses
    from joblib._parallel_backends import LokyBackend, MultiprocessingBackend, SequentialBackend, ThreadingBackend

    # a back end that hands each call of Parallel to another one
    from joblib.parallel import FallbackToBackend

__all__ = ["FallbackToBackend", "LokyBackend", "MultiprocessingBackend", "SequentialBackend", "ThreadingBackend"]
