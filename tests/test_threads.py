"""Small work runs on one thread, of PyTorch and of linear algebra, and on memory that is there."""

import platform
import threading

import pytest
import torch
from helpers import IRIS, IRIS_Y, forking
from threadpoolctl import threadpool_info, threadpool_limits

from skdeep import HingeClassifier
from skdeep.engine.threads import at_most, threads_for
from skdeep.exact import hinge


def of_algebra():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def _three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3, user_api="blas"):
        assert of_algebra() and set(of_algebra()) == {3}
        yield
        assert set(of_algebra()) == {3} and torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_both_are_limited_and_put_back():
    with at_most(2):
        assert set(of_algebra()) == {2} and torch.get_num_threads() == 2
        with at_most(1):
            assert set(of_algebra()) == {1} and torch.get_num_threads() == 1
        with at_most(8):  # no more than what holds
            assert set(of_algebra()) == {2} and torch.get_num_threads() == 2
        assert set(of_algebra()) == {2} and torch.get_num_threads() == 2


def test_they_are_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), at_most(1):
        raise ZeroDivisionError
    # the fixture looks at what is left


def test_limits_of_two_threads_may_overlap():
    inside, leave = threading.Event(), threading.Event()

    def work():
        with at_most(1):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with at_most(2):
        thread.start()
        inside.wait(10)
        assert set(of_algebra()) == {2}  # of the whole process: the first one's holds
        leave.set()
        thread.join()
        assert set(of_algebra()) == {2}
    # the fixture looks at what is left


def test_only_large_steps_get_threads():
    with threads_for(1000):
        assert set(of_algebra()) == {1} and torch.get_num_threads() == 1
    with threads_for(10**9):
        assert set(of_algebra()) == {3} and torch.get_num_threads() == 3


def test_a_small_fit_takes_one(monkeypatch):
    during, solve = [], hinge.solve

    def watched(*args, **options):
        during.append(of_algebra())
        return solve(*args, **options)

    monkeypatch.setattr(hinge, "solve", watched)
    HingeClassifier("hinge", random_state=0).fit(IRIS, IRIS_Y)
    assert during and all(set(each) == {1} for each in during)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's malloc")
def test_memory_that_is_freed_is_there_for_the_next_step():
    """Sixteen arrays of a quarter of a megabyte, which come and go."""
    program = """
import resource, skdeep, numpy as np
def step():
    parts = [np.ones(2**15) for _ in range(16)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100  # each step's pages are 1024
"""
    process = forking().Process(target=exec, args=(program, {}))
    process.start()
    process.join()
    assert process.exitcode == 0
