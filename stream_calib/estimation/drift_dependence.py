"""How much scores of consecutive rows depend on each other."""

import math

import numpy as np

from stream_calib.kernels.drift import long_run_variance, normal_quantile
from stream_calib.values import F64

LAGS, NOISE = 100, 2.0  # of what is seen so far: deviations that are not taken for dependence
BEFORE_LAGS, BEFORE_NOISE = 60, 1.0  # the same of the rows that a model was fitted to
BEFORE_ROWS = 500  # that what is known from them counts for
FEW = 60


def inflation_of(x: F64, before: F64) -> F64:
    """Return V of each kind of score: its long-run variance where that is significant.

        V = max(1, (t V_now + 500 V_before) / (t + 500))

    Parameters
    ----------
    x : (s, t)
        Normal scores in the order of time.
    before : (s,)
        V of rows before these, NaN where not known.
    """
    count = x.shape[1]
    out = np.empty(len(x))
    for kind, row in enumerate(x):
        now = _significant(row, LAGS, NOISE)
        if not math.isnan(before[kind]):
            now = (count * now + BEFORE_ROWS * before[kind]) / (count + BEFORE_ROWS)
        out[kind] = max(1.0, now)
    return out


def dependence_of(scores: F64) -> F64:
    """Return V of each kind of score (s, t), ranked among all of them; 1 where there are few."""
    count = scores.shape[1]
    out = np.ones(len(scores))
    for kind, row in enumerate(scores if count >= FEW else ()):
        ranks = np.argsort(np.argsort(row, kind="stable"), kind="stable")
        x = np.array([normal_quantile((rank + 0.5) / count) for rank in ranks.tolist()])
        out[kind] = _significant(x, BEFORE_LAGS, BEFORE_NOISE)
    return out


def _significant(x: F64, most: int, deviations: float) -> float:
    lags = min(most, len(x) // 4)
    noise = math.sqrt(4.0 * lags / (3.0 * len(x)))
    measured = float(long_run_variance(np.ascontiguousarray(x), lags))
    return max(1.0, measured - deviations * noise)
