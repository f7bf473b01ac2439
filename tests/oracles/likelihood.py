"""Full Gaussian likelihood of DCC with matrices, bar by bar."""

from typing import NamedTuple

import numpy as np

from stream_calib.values import F64


class Bars(NamedTuple):
    """Log density (t,), decorrelated returns (t, n), R of each bar and the next (t + 1, n, n)."""

    loglik: F64
    residuals: F64
    corr: F64


def full_loglik(
    z: F64, news: F64, target: F64, asymmetry: F64, theta: F64, *, aielli: bool
) -> Bars:
    """Run DCC over all bars; what a bar did not observe stands still, pair by pair."""
    a, b, g = theta
    q = target.copy()
    t_bars, n = z.shape
    out = Bars(np.zeros(t_bars), np.full((t_bars, n), np.nan), np.empty((t_bars + 1, n, n)))
    for t in range(t_bars):
        scale = np.diag(1.0 / np.sqrt(np.diag(q)))
        out.corr[t] = scale @ q @ scale
        seen = ~np.isnan(z[t])
        corr = out.corr[t][np.ix_(seen, seen)]
        e = np.linalg.solve(np.linalg.cholesky(corr), z[t, seen])
        out.residuals[t, seen] = e
        log_det = np.linalg.slogdet(corr)[1]
        out.loglik[t] = -0.5 * (seen.sum() * np.log(2 * np.pi) + log_det + e @ e)
        x = news[t] * np.sqrt(np.diag(q)) if aielli else news[t]
        down = np.minimum(x, 0.0)
        constant = (1 - a - b) * target - g * asymmetry
        new = constant + a * np.outer(x, x) + g * np.outer(down, down) + b * q
        both = np.outer(seen, seen)
        q = np.where(both, new, q)
    scale = np.diag(1.0 / np.sqrt(np.diag(q)))
    out.corr[t_bars] = scale @ q @ scale
    return out
