"""One example: everything that is done with a case, and what is found."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import skdeep
from fuzzing.bars import check_bar
from fuzzing.cases import Case, smaller, suited
from fuzzing.checks import Broken, Refused, check_fitted, demand
from fuzzing.data import make as make_data
from fuzzing.refusals import may_refuse
from fuzzing.relations import relate
from fuzzing.stories import play

_PACKAGE = str(Path(skdeep.__file__).parent)


def examine(case: Case) -> Counter:
    """Do what a case says, and check what must hold; what was done, to be counted.

    Raises
    ------
    Broken
        If something does not hold.
    Exception
        Whatever else the package raises.
    """
    case, done = suited(case), Counter([case["estimator"]])
    data = make_data(case)
    try:
        estimator, caught, plain = play(case, data)
        found = check_fitted(estimator, case, data)
        done["fitted"] += 1
        if plain and (bar := check_bar(estimator, case, data, found, caught)):
            done[f"bar: {bar}"] += 1
        if relation := relate(case, data):
            done[f"relation: {relation}"] += 1
    except Refused as refusal:
        demand(
            may_refuse(case, data) or str(refusal) == "partial_fit is absent", "a plain case was refused", str(refusal)
        )
        done["refused"] += 1
    return done


@dataclass
class Finding:
    """A fault: the same for all its examples, and one of them.

    Attributes
    ----------
    what : str
        What tells it from other faults.
    case : dict
    trace : str
    """

    what: str
    case: Case
    trace: str = field(repr=False)


def find(case: Case) -> tuple[Counter, Finding | None]:
    """Examine a case; what was done, and the fault it shows."""
    try:
        return examine(case), None
    except Broken as broken:
        where = f" [{case['estimator']}]"
        return Counter([case["estimator"], "broken"]), Finding(broken.what + where, case, str(broken))
    except Exception as error:
        inside = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_PACKAGE)]
        last = inside[-1] if inside else traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno} {last.name}"
        what = f"{type(error).__name__} at {where}"
        return Counter([case["estimator"], "broken"]), Finding(
            what, case, "".join([*traceback.format_list(inside), repr(error)])
        )


def shrink(finding: Finding, seconds: float = 10.0) -> Finding:
    """The smallest case with the same fault that is found in some time."""
    going_on, end = True, time.monotonic() + seconds
    while going_on:
        going_on = False
        for case in smaller(finding.case):
            if time.monotonic() > end:
                return finding
            _, other = find(case)
            if other is not None and other.what == finding.what:
                finding, going_on = other, True
                break
    return finding
