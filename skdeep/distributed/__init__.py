"""Fits whose rows are divided among processes: see `shards`."""

from skdeep.distributed.processes import LostProcessError, shards

__all__ = ["LostProcessError", "shards"]
