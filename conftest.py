"""Settings that must be in place before SciPy and Matplotlib are imported."""

import os

import pytest

#: Run in processes of their own, by tests/test_devices.py.
collect_ignore_glob = ["tests/accelerator/*"]

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # so that the array API checks run
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The matrices are small; on a shared machine more threads only wait for each other."""
    import sklearn.linear_model  # noqa: F401  (loads the libraries that are to be limited)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        yield
