"""How soon a change would be found, given how much the detector has seen."""

from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stream_calib.estimation.cleaning import Root
from stream_calib.estimation.drift_scores import Draws, draw_normals, place_columns, tilt_towards
from stream_calib.kernels.drift_power import expected_delay
from stream_calib.values import F64, I64

TILT = 0.35  # the change that is asked about, towards v v'
WIDTH = 256  # rows that are drawn before and after it
BEGINS = (0, 10, 30, 100)  # rows since the change at which the reference's R is taken anew
MIDDLES = (4, 18, 55, 400)  # rows that it is then taken at
REPEATS = 48
ROWS_MAX = 600  # a delay is at most so many
STEPS = 4096  # of a table of quantiles


class Expected(NamedTuple):
    """Scores before the change (s, m), ascending, and after it by stage (g, s, m)."""

    ordered: F64
    pools: F64


def expected_scores(
    draws: Draws, fused: F64 | None, news: tuple[float, float], seed: int
) -> Expected:
    """Draw rows before and after a jump of R to (1 - g) S + g v v', and score them.

        R_k = S + c_k (R' - S),   c_k = a (1 - b^k) / (1 - b)

    is what the reference has learned of the jump after k rows, on average.

    Parameters
    ----------
    draws
        Of the detector.
    fused : (n, n), optional
        Tilted target, of unit diagonal, that fusing is scored against.
    news
        a and b of the reference.
    seed
        Of these draws.
    """
    target, (a, b) = draws.target, news
    n = len(target)
    new = tilt_towards(target, draws.direction, TILT)

    def places(learned: float, rows: F64) -> F64:
        own = Root(target + learned * (new - target))
        other = None if fused is None else Root(fused + learned * (new - fused))
        return place_columns(rows, own, other, draws)

    after = Root(new.copy()).times(draw_normals(n, WIDTH, seed, stream=1))
    before = Root(target.copy()).times(draw_normals(n, WIDTH, seed, stream=2))
    pools = [places(a * (1.0 - b**k) / (1.0 - b), after) for k in MIDDLES]
    ordered = np.sort(places(0.0, before), axis=1)
    return Expected(np.ascontiguousarray(ordered), np.array(pools))


def delay_of(expected: Expected, seen: int, arl0: float, inflation: F64, slopes: F64) -> float:
    """Return the expected delay in rows, at most 600, after ``seen`` scores.

    Parameters
    ----------
    expected
        Scores before and after the change.
    seen
        Scores that a new one is ranked among at the change.
    arl0, inflation, slopes
        Of the detector.
    """
    return expected_delay(
        expected.ordered,
        expected.pools,
        _begins(),
        normal_table(),
        seen,
        arl0,
        inflation,
        slopes,
        REPEATS,
        ROWS_MAX,
    )


def _begins() -> I64:
    return np.array(BEGINS, np.int64)


@cache
def normal_table() -> F64:
    """Return -Phi^-1 in the middle of each of 4096 equal steps; not to be written to."""
    law = NormalDist()
    return np.array([-law.inv_cdf((i + 0.5) / STEPS) for i in range(STEPS)])
