"""Fits whose rows are divided among processes: `shards`, and `fit` for Dask's collections."""

from skdeep.distributed.collections import fit
from skdeep.distributed.processes import LostProcessError, shards

__all__ = ["LostProcessError", "fit", "shards"]
