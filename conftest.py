"""Settings that must be in place before SciPy and Matplotlib are imported."""

import gc
import importlib.util
import os

import pytest

#: Run in processes of their own, by tests/test_devices.py.
collect_ignore_glob = ["tests/accelerator/*"]
#: What cannot be imported without packages that are optional.
collect_ignore = [] if importlib.util.find_spec("skl2onnx") else ["skdeep/onnx.py"]

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # so that the array API checks run
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items):
    """Mark the first case of every test that is not slow as quick: together they are the inner loop."""
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test not in seen and isinstance(item, pytest.Function) and not item.get_closest_marker("slow"):
            seen.add(test)
            item.add_marker("quick")


def pytest_collection_finish():
    """Spare the garbage collector what stays to the end, the libraries and the tests, and most of its rounds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The matrices are small; on a shared machine more threads only wait for each other."""
    import sklearn.linear_model  # noqa: F401  (loads the libraries that are to be limited)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        yield
