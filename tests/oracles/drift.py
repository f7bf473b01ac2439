"""Ranks, bets and long-run variances as they are defined: whole histories, no buffers."""

import math
from statistics import NormalDist

import numpy as np

from stream_calib.values import F64


def rank_path(scores: F64, uniforms: F64, most: int) -> F64:
    """Return x (t, s) of scores (t, s), each ranked among the ``most`` before it."""
    out = np.empty(scores.shape)
    for t, kind in np.ndindex(scores.shape):
        past = scores[max(0, t - most) : t, kind]
        above, equal = np.sum(past > scores[t, kind]), np.sum(past == scores[t, kind])
        p = (above + uniforms[t, kind] * (equal + 1)) / (len(past) + 1)
        out[t, kind] = -NormalDist().inv_cdf(min(1.0 - 1e-12, max(1e-12, float(p))))
    return out


def chain_path(normal: F64, inflation: F64, slopes: F64) -> F64:
    """Return M (t, s, k): sums over all starts of the product of bets since."""
    rows, kinds = normal.shape
    out = np.empty((rows, kinds, len(slopes)))
    for t, kind, k in np.ndindex(out.shape):
        steps = slopes[k] * normal[: t + 1, kind] - slopes[k] ** 2 * inflation[kind] / 2.0
        since = np.cumsum(steps[::-1])
        out[t, kind, k] = math.fsum(np.exp(since))
    return out


def long_run_variance(x: F64, lags: int) -> float:
    """1 + 2 sum (1 - h / H) r_h."""
    centred = x - x.mean()
    own = float(centred @ centred)
    if own == 0.0:
        return 1.0
    total = 1.0
    for h in range(1, min(lags, len(x))):
        total += 2.0 * (1.0 - h / lags) * float(centred[h:] @ centred[:-h]) / own
    return total


def scores_of(z: F64, corr: F64, fused: F64 | None, target: F64, direction: F64) -> F64:
    """Return the three angular scores (3, k) of rows (k, n) under one R, by inverses."""
    inverse = np.linalg.inv(corr)
    out = []
    for row in z:
        y, n = inverse @ row, len(row)
        q = row @ y
        along = ((direction @ y) ** 2 - y @ target @ y) / q
        if fused is not None:
            along = 0.5 * n * np.log(q / (row @ np.linalg.inv(fused) @ row))
        out.append([along, 0.5 * n * np.log(q / (row @ row)), (y @ y - y @ target @ y) / q])
    return np.array(out).T
