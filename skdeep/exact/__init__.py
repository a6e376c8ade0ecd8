"""Exact solvers of linear models: NumPy and float64, stacks of K models of the same rows, with a certificate.

Where a fit is small, what it costs is its calls, and one of NumPy's costs a third of one of torch's. Rows are last, so
that what runs over classes runs over whole vectors of rows: scores are ``(K, C, n)``, parameters ``(K, C, D)`` with the
intercept, if there is one, as the last of D columns; a model that is not trained on a row gives it the weight zero.
"""
