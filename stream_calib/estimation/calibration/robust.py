"""Winsorised innovations and Student-t weights for a fit."""

from typing import Literal, NamedTuple

import numpy as np

from stream_calib.estimation.calibration.objective import target_of
from stream_calib.estimation.cleaning import one_blas_thread, repair_correlation
from stream_calib.values import F64

Robust = Literal["winsor", "t"]

LIMIT = 3.0
DEGREES = 8.0
FLOOR = 1e-8


class Innovations(NamedTuple):
    """Returns whose density is taken and news of the recursion, (t, n); what it took."""

    z: F64
    news: F64
    details: dict[str, float]


def robust_innovations(z: F64, robust: Robust | None) -> Innovations:
    """Cap standardised returns, and weight the news of wild bars down.

        z_w = k max(-3, min(z, 3)),   x = k' sqrt(w) z_w
        w = (nu + m) / (nu - 2 + z_w' S^-1 z_w),   nu = 8

    Parameters
    ----------
    z : (t, n)
        NaN where not observed.
    robust
        None changes nothing; ``winsor`` caps, ``t`` caps and weights.

    Returns
    -------
    Innovations
        k and k' make the mean square over the panel 1 and are in ``details``.

    Notes
    -----
    The weights are held in the fit: taken under R_t they would need its inverse for every bar
    and every (a, b). S is the constant correlation of the capped returns, and m the number of
    symbols observed in the bar. O(n^3) for each different set of observed symbols.

    References
    ----------
    Creal, Koopman, Lucas (2011), J. Business & Economic Statistics 29(4), eq. (12), for w.
    """
    if robust is None:
        return Innovations(z, z, {})
    if robust not in ("winsor", "t"):
        message = f"robust must be None, 'winsor' or 't', not {robust!r}"
        raise ValueError(message)
    capped, scale = _rescaled(np.clip(z, -LIMIT, LIMIT))
    details = {
        "winsor_share": float(np.mean(np.abs(z[~np.isnan(z)]) > LIMIT)),
        "winsor_scale": scale,
    }
    if robust == "winsor":
        return Innovations(capped, capped, details)
    weights = _weights(capped)
    news, details["weight_scale"] = _rescaled(capped * np.sqrt(weights)[:, None])
    details["weight_min"] = float(weights.min())
    return Innovations(capped, news, details)


def _rescaled(x: F64) -> tuple[F64, float]:
    square = float(np.mean(np.square(x[~np.isnan(x)])))
    scale = 1.0 / np.sqrt(square) if square > 0.0 else 1.0
    return x * scale, float(scale)


def _weights(z: F64) -> F64:
    corr = repair_correlation(target_of(z, "dcc", 0.0, 0.0), FLOOR).corr
    seen = ~np.isnan(z)
    patterns, which = np.unique(seen, axis=0, return_inverse=True)
    weights = np.ones(len(z))
    with one_blas_thread():
        for k, pattern in enumerate(patterns):
            m = int(pattern.sum())
            if m == 0:
                continue
            rows = np.flatnonzero(which.ravel() == k)
            block = z[np.ix_(rows, pattern)]
            root = np.linalg.cholesky(corr[np.ix_(pattern, pattern)])
            e = np.linalg.solve(root, block.T)
            weights[rows] = (DEGREES + m) / (DEGREES - 2.0 + np.square(e).sum(axis=0))
    return weights
