"""Random fits, a few of them; `fuzz.py` makes any number."""

import json

import fuzz
import numpy as np
import pytest
import torch
from fuzzing import cases
from fuzzing.judge import examine, find, shrink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdeep import LeastSquaresClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.calibrated import CalibrationMixin
from skdeep.columns import Columns
from skdeep.fitting import FittingMixin


@pytest.mark.parametrize("estimator", cases.PARAMETERS)
def test_a_fit_is_refused_or_right(estimator):
    @settings(
        max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(cases.cases(estimator))
    def check(case):
        examine(case)

    check()


# ---- the fuzz itself -------------------------------------------------------------------------------------------------


def first_fault(estimator, n=150, seed=0):
    """The first fault among some examples of an estimator."""
    for i in range(n):
        _, finding = find(cases.draw(np.random.default_rng([seed, i]), estimator))
        if finding is not None:
            return finding
    return None


def unfair(self, scores, original=FittingMixin._link):
    return 0.999 * original(self, scores)


def upside_down(self, network, model, dtype, space, original=SoftmaxClassifier._learned):
    return {name: -value for name, value in original(self, network, model, dtype, space).items()}


def moves_torch(self, network, progress, *rest, original=FittingMixin._conclude):
    torch.rand(1)
    original(self, network, progress, *rest)


def remembers(self, members, problem, *rest, original=LeastSquaresClassifier._run):
    self.earlier_ = getattr(self, "earlier_", 0) + 1
    original(self, members, problem, *rest)


def writes(self, *arguments, original=FittingMixin._problem):
    problem = original(self, *arguments)
    if isinstance(problem.X, np.ndarray) and problem.X.flags.writeable:
        problem.X[0] = 0
    return problem


def raw(self, *arguments, original=FittingMixin._problem):
    problem = original(self, *arguments)
    if problem.n_rows == 6:
        raise IndexError("index 6 is out of bounds")
    return problem


def mumbles(self, *arguments, original=FittingMixin._problem):
    problem = original(self, *arguments)
    if problem.n_rows == 6:
        raise ValueError("something went wrong")
    return problem


def counts_all(cls, rows, subsets, weights, known=None, original=Columns.of_models.__func__):
    return original(cls, rows, [None] * len(subsets), [None] * len(weights), known)


PLANTED = {
    "probabilities do not sum to one": ("SoftmaxClassifier", CalibrationMixin, "_link", unfair),
    "constant scores": ("SoftmaxClassifier", SoftmaxClassifier, "_learned", upside_down),
    "global state": ("MLPClassifierTorch", MLPClassifierTorch, "_conclude", moves_torch),
    "leaves attributes": ("LeastSquaresClassifier", LeastSquaresClassifier, "_run", remembers),
    "written to": ("SoftmaxClassifier", SoftmaxClassifier, "_problem", writes),
    "IndexError": ("HingeClassifier", FittingMixin, "_problem", raw),
    "without the name": ("HingeClassifier", FittingMixin, "_problem", mumbles),
    "weight": ("MLPClassifierTorch", Columns, "of_models", classmethod(counts_all)),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_found(what, monkeypatch):
    estimator, owner, name, fault = PLANTED[what]
    monkeypatch.setattr(owner, name, fault)
    finding = first_fault(estimator)
    assert finding is not None
    assert what in finding.what
