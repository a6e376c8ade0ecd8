"""Learning-rate schedules: their formulas, and what all of them have in common."""

import math

import numpy as np
import pytest
from helpers import in_one_test

from skdeep.engine.schedules import SCHEDULES, warm_up

SAMPLES = np.array([0, 9, 99, 9999])

# name -> factor at progress u, after t samples (K,), with exponent p
FORMULAS = {
    "constant": lambda u, t, p: np.ones(4),
    "adaptive": lambda u, t, p: np.ones(4),
    "invscaling": lambda u, t, p: 1 / (t + 1) ** p,
    "cosine": lambda u, t, p: np.full(4, (1 + math.cos(math.pi * u)) / 2),
}


@pytest.mark.parametrize("name", SCHEDULES)
@in_one_test("progress", [0.0, 0.25, 0.5, 0.9, 1.0])
@in_one_test("power_t", [0.0, 0.5, 1.0])
def test_formula(name, progress, power_t):
    factor = np.broadcast_to(SCHEDULES[name](progress, SAMPLES, power_t), (4,))
    np.testing.assert_allclose(factor, FORMULAS[name](progress, SAMPLES, power_t), atol=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_with_the_given_rate_and_never_raises_it(name):
    path = np.array(
        [np.broadcast_to(SCHEDULES[name](u, np.array([1000 * u]), 0.5), (1,))[0] for u in np.linspace(0, 1, 21)]
    )
    assert path[0] == 1
    assert (path >= 0).all()
    assert (np.diff(path) <= 0).all()


def test_invscaling_is_per_model():
    factor = SCHEDULES["invscaling"](0.5, SAMPLES, 0.5)
    np.testing.assert_allclose(factor, [1, 10**-0.5, 0.1, 0.01], rtol=1e-14)


def test_cosine_at_its_quarters():
    for u, expected in [(0, 1), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1, 0)]:
        assert SCHEDULES["cosine"](u, SAMPLES, 0.5) == pytest.approx(expected, abs=1e-15)


def test_cosine_does_not_rise_again_beyond_the_end():
    assert SCHEDULES["cosine"](1.5, SAMPLES, 0.5) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("epochs_done", "warmup_epochs", "expected"),
    [(0.25, 2, 0.125), (1, 2, 0.5), (1.5, 2, 0.75), (2, 2, 1), (7, 2, 1), (0.1, 0, 1), (0.1, 0.5, 0.2)],
)
def test_warm_up_is_a_ramp(epochs_done, warmup_epochs, expected):
    assert warm_up(epochs_done, warmup_epochs) == pytest.approx(expected, rel=1e-15)
