"""What is private to SciPy."""

from __future__ import annotations

from skdeep.compat.checks import private_names

#: The versions that are known to work.
KNOWN = "1.15 to 1.17"

with private_names("scipy", KNOWN):
    # the bare loops of X[rows] and X.T @ G, a fifth and two thirds of the time with all that SciPy has around them
    # (docs/decisions/sparse_rows.rst)
    # and that of X.T @ X, without a pass that counts how much it stores; products with a vector that add to another
    from scipy.sparse._sparsetools import csc_matvec, csc_matvecs, csr_matmat, csr_matvec, csr_row_index

__all__ = ["csc_matvec", "csc_matvecs", "csr_matmat", "csr_matvec", "csr_row_index"]
