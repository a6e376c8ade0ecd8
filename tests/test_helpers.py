"""What other tests rely on: a design covers, no case of several in one test is lost, processes begin as copies."""

import sys
from itertools import combinations

import pytest
from helpers import check_each, covering, forking, in_one_test


@pytest.mark.parametrize("sizes", [(3, 2), (5, 5, 2), (7, 4, 3), (2, 2, 2, 2)])
def test_every_two_values_of_two_factors_meet(sizes):
    factors = [[f"{i}.{j}" for j in range(size)] for i, size in enumerate(sizes)]
    chosen = [case.values for case in covering(*factors)]
    for (i, one), (j, other) in combinations(enumerate(factors), 2):
        assert {(case[i], case[j]) for case in chosen} == {(a, b) for a in one for b in other}
    assert len(set(chosen)) == len(chosen) and all(case.id for case in covering(*factors))
    if len(sizes) > 2:
        assert len(chosen) < 1.7 * max(a * b for a, b in combinations(sizes, 2))


def test_all_cases_are_checked_and_those_that_fail_are_named():
    seen = []

    @in_one_test("a, b", [(1, 2), (0, 2), (3, 4), (0, 0)])
    @in_one_test("c", ["x", "y"])
    def check(tmp_path, a, b, c):
        seen.append((tmp_path, a, b, c))
        if not a:
            pytest.fail("no a") if c == "x" else 1 / a

    with pytest.raises(BaseExceptionGroup, match="2 of 4 cases") as raised:
        check(tmp_path="here")
    assert len(seen) == 8 and {place for place, *_ in seen} == {"here"}
    assert [group.__notes__ for group in raised.value.exceptions] == [["in the case 1: 0, 2"], ["in the case 3: 0, 0"]]
    inner = [type(failure).__name__ for failure in raised.value.exceptions[0].exceptions]
    assert inner == ["Failed", "ZeroDivisionError"]
    check_each(lambda a: None, {"fine": [1]})


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copies on Linux only")
def test_processes_begin_with_what_takes_long_to_import():
    """A server that does not find it says nothing, and all its copies import it anew."""
    program = "import sys; sys.exit('skdeep' not in sys.modules or 'ranks' not in sys.modules)"
    process = forking().Process(target=exec, args=(program,))
    process.start()
    process.join()
    assert process.exitcode == 0
