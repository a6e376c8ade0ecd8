"""Settings that must be in place before SciPy and Matplotlib are imported."""

import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # so that the array API checks run
os.environ.setdefault("MPLBACKEND", "Agg")
