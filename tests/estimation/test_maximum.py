"""The search for a DCC's parameters, on surfaces made for it."""

import numpy as np
import pytest

from stream_calib.estimation.calibration.maximum import maximise
from stream_calib.values import F64

NEWS, MEMORY = 0.008, 0.92  # where the likelihood is largest
NEWS_MAX = 0.011  # beyond there is no value, unless the memory is long
MEMORY_MIN = 0.95
WILD = 1e6  # how fast it falls next to where it has none


class Holed:
    """A surface like a full likelihood's where z has holes, per density.

    Flat in b at a = 0. From there it rises with a for most b, and falls for the longest memory:
    SLSQP alone, according to the steepness, jumps to (0, .9999), whence it sees no way up, or does
    not leave the one start that has a value.
    """

    def __init__(self, steepness: float) -> None:
        self.steepness = steepness

    def __call__(self, theta: F64) -> F64:
        a, b, _ = theta
        beyond = max(a - NEWS_MAX, 0.0)
        if beyond > 0.0 and b < MEMORY_MIN:
            return np.array([-np.inf, 0.0, 0.0, 0.0])
        away = np.log((1.0 - b) / (1.0 - MEMORY))
        slope = 1.0 - away**2 / 10.0
        value = a * slope - a**2 / (2.0 * NEWS) - WILD * beyond**2 * (1.0 - b)
        by_a = slope - a / NEWS - 2.0 * WILD * beyond * (1.0 - b)
        by_b = a * away / (5.0 * (1.0 - b)) + WILD * beyond**2
        return self.steepness * np.array([value, by_a, by_b, 0.0])


@pytest.mark.parametrize("steepness", [0.3, 1.0, 3.0, 10.0, 100.0])
def test_an_edge_is_not_believed_where_a_start_is_better(steepness: float) -> None:
    found = maximise(Holed(steepness), 1.0)
    assert found.reason == ""
    np.testing.assert_allclose(found.theta, [NEWS, MEMORY, 0.0], rtol=0.0, atol=1e-6)


def test_an_edge_is_believed_where_nothing_is_better() -> None:
    calls = 0

    def falls(theta: F64) -> F64:
        nonlocal calls
        calls += 1
        a, b, _ = theta
        return np.array([-a * (1.0 + b), -1.0 - b, -a, 0.0])

    found = maximise(falls, 1.0)
    assert found.reason.startswith("a is 0")
    np.testing.assert_array_equal(found.theta, np.zeros(3))
    assert calls < 25  # it looks at the other starts, and climbs from none


def test_without_a_value_at_the_first_starts_others_are_tried() -> None:
    holed = Holed(3.0)

    def narrow(theta: F64) -> F64:
        return holed(theta) if theta[0] < NEWS_MAX else np.array([-np.inf, 0.0, 0.0, 0.0])

    found = maximise(narrow, 1.0)
    assert found.reason == ""
    np.testing.assert_allclose(found.theta, [NEWS, MEMORY, 0.0], rtol=0.0, atol=1e-6)
