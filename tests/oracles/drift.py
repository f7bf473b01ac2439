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


def scores_of(z: F64, corr: F64, target: F64) -> F64:
    """Return the angular scores of rows (k, n) under one R, as their definitions say; (3, k)."""
    inverse = np.linalg.inv(corr)
    y = z @ inverse
    q = np.sum(y * z, axis=1)
    n = len(corr)
    spread = 0.5 * n * np.log(q / np.sum(z * z, axis=1))
    off_target = (np.sum(y * y, axis=1) - np.sum((y @ target) * y, axis=1)) / q
    return np.array([spread, off_target, np.sum(y * y, axis=1) / q])
