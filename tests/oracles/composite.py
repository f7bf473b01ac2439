"""DCC of one pair written with 2 x 2 matrices, bar by bar."""

import math

import numpy as np

from stream_calib.values import F64


def pair_loglik(z: F64, news: F64, target: F64, asymmetry: F64, theta: F64, *, aielli: bool) -> F64:
    """Return the log density of every bar of one pair, (t,), 0 where not both are observed."""
    a, b, g = theta
    q = target.copy()
    out = np.zeros(len(z))
    for t in range(len(z)):
        if np.isnan(z[t]).any():
            continue
        scale = np.diag(1.0 / np.sqrt(np.diag(q)))
        corr = scale @ q @ scale
        square = z[t] @ np.linalg.inv(corr) @ z[t]
        out[t] = -math.log(2 * math.pi) - 0.5 * (math.log(np.linalg.det(corr)) + square)
        x = news[t] * np.sqrt(np.diag(q)) if aielli else news[t]
        down = np.minimum(x, 0.0)
        constant = (1 - a - b) * target - g * asymmetry
        q = constant + a * np.outer(x, x) + g * np.outer(down, down) + b * q
    return out


def star_target(news: F64, a: float, b: float) -> F64:
    """Return the correlation of x* = sqrt(q) x over the bars of a pair, (2, 2)."""
    q = np.ones(2)
    total = np.zeros((2, 2))
    for x in news:
        if np.isnan(x).any():
            continue
        star = x * np.sqrt(q)
        total += np.outer(star, star)
        q = (1 - a - b) + a * star**2 + b * q
    scale = np.sqrt(np.diag(total))
    corr: F64 = total / np.outer(scale, scale)
    return corr


def pair_moments(news: F64) -> tuple[F64, F64, int]:
    """Return mean x x', mean n n' with n = min(x, 0), and their number, over common bars."""
    rows = news[~np.isnan(news).any(axis=1)]
    down = np.minimum(rows, 0.0)
    return rows.T @ rows / len(rows), down.T @ down / len(rows), len(rows)
