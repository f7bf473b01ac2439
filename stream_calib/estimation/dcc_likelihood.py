"""DCC over a whole sample: path, likelihood, and the covariance of what comes next."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from stream_calib.estimation.dcc import packed_start
from stream_calib.kernels.dcc import fold_shocks, unfold_triangles
from stream_calib.kernels.dcc_likelihood import log_densities
from stream_calib.values import F64, DccParams, GarchParams

CHUNK = 1 << 20  # numbers of correlation paths held at once: 8 MB


def dcc_filter(
    z: F64,
    a: float,
    b: float,
    target: F64,
    g: float = 0.0,
    model: Literal["dcc", "cdcc", "adcc"] = "dcc",
    asymmetry: F64 | None = None,
) -> F64:
    """Return the correlations that DCC(1,1) predicts, one row after the other.

    Parameters
    ----------
    z : (t, n)
        Standardised returns, NaN where not observed: such a pair stands still.
    a, b, g
        Weight of the news, of the past, and, in ``adcc`` alone, of common falls.
    target : (n, n)
        Q of the first row, and what Q returns to. Its diagonal may be other than one.
    model
        ``dcc`` (Engle), ``cdcc`` (Aielli) or ``adcc`` (Cappiello, Engle and Sheppard).
    asymmetry : (n, n), optional
        In ``adcc`` the mean of n n', n = min(z, 0): by default that of ``z``, over the rows
        where both are observed.

    Returns
    -------
    (t + 1, n, n)
        R of every row, made of the rows before it; the last one is the forecast.

    Raises
    ------
    ValueError
        If ``z`` is no table, or as ``Dcc``.

    References
    ----------
    Equations at ``fold_shocks`` in ``kernels/dcc``; the same recursion as ``Dcc``.

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> path = dcc_filter(np.array([[2.0, -2.0]]), 0.05, 0.9, target)
    >>> path.shape, round(float(path[-1, 0, 1]), 4)
    ((2, 2, 2), 0.2391)
    """
    z = _table(z)
    params = DccParams(a, b, np.asarray(target), model, g, _asymmetry(z, model, asymmetry))
    t, n = z.shape
    out = np.empty((t + 1, n, n))
    start = 0
    for path in _paths(z, params):
        unfold_triangles(path, out[start : start + len(path)])
        start += len(path) - 1
    return out


def dcc_loglik(
    z: F64,
    a: float,
    b: float,
    target: F64,
    g: float = 0.0,
    model: Literal["dcc", "cdcc", "adcc"] = "dcc",
    asymmetry: F64 | None = None,
) -> float:
    """Return the full Gaussian log-likelihood of standardised returns under DCC(1,1).

        L = -1/2 sum_t (n ln 2 pi + ln |R_t| + z_t' R_t^-1 z_t)

    Parameters
    ----------
    z, a, b, target, g, model, asymmetry
        As in ``dcc_filter``. Of a row with holes the marginal density of what is observed
        counts.

    Returns
    -------
    float
        -inf if some R is not positive definite.

    Raises
    ------
    ValueError
        As ``dcc_filter``.

    Notes
    -----
    O(t n^3). Of returns r = sqrt(h) z it is the likelihood without -1/2 sum ln h.

    Examples
    --------
    >>> import numpy as np
    >>> round(dcc_loglik(np.zeros((1, 2)), 0.05, 0.9, np.eye(2)), 6)
    -1.837877
    """
    z = _table(z)
    params = DccParams(a, b, np.asarray(target), model, g, _asymmetry(z, model, asymmetry))
    logs = np.empty(len(z))
    start = 0
    for path in _paths(z, params):
        stop = start + len(path) - 1
        log_densities(z[start:stop], path[:-1], logs[start:stop])
        start = stop
    return math.fsum(logs) if np.isfinite(logs).all() else -math.inf


def integrated_covariance(garch: GarchParams, variance: F64, correlations: F64) -> F64:
    """Return the covariance of the sum of the next returns.

        C = sum_k D_k R_k D_k,   D_k^2 = diag(h_k),   h_k+1 = omega + (alpha + gamma / 2 + beta) h_k

    Parameters
    ----------
    garch
        Of n assets.
    variance : (n,)
        h_1: predicted for the next row, in squared units of the returns.
    correlations : (steps, n, n)
        R_1 to R_steps, as ``Dcc.forecast`` has them.

    Returns
    -------
    (n, n)
        In squared units of the returns, without means.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    Engle and Sheppard (2001), NBER working paper 8554, section 5.
    """
    h = np.asarray(variance, dtype=np.float64)
    shape = (len(correlations), len(garch.omega), len(garch.omega))
    if np.shape(correlations) != shape or h.shape != shape[1:2]:
        message = f"variance {h.shape} and correlations {np.shape(correlations)} do not fit garch"
        raise ValueError(message)
    persistence = garch.alpha + garch.gamma / 2.0 + garch.beta
    total = np.zeros(shape[1:])
    for corr in correlations:
        vol = np.sqrt(h)
        total += corr * (vol[:, None] * vol)
        h = garch.omega + persistence * h
    return total


def _table(z: F64) -> F64:
    z = np.require(z, np.float64, ["C", "W"])
    if z.ndim != 2:
        message = f"z is (t, n), not {z.shape}"
        raise ValueError(message)
    return z


def _asymmetry(z: F64, model: str, asymmetry: F64 | None) -> F64 | None:
    if model != "adcc" or asymmetry is not None:
        return asymmetry
    seen = np.isfinite(z).astype(np.float64)
    falls = np.where(seen > 0.0, np.minimum(z, 0.0), 0.0)
    # einsum without BLAS, whose last bits vary with the number of threads
    count = np.einsum("ti,tj->ij", seen, seen)
    mean: F64 = np.einsum("ti,tj->ij", falls, falls) / np.where(count > 0.0, count, np.nan)
    return mean


def _paths(z: F64, params: DccParams) -> Iterator[F64]:
    # R of rows and of the row after them, packed: each path begins where the last one ended
    t, n = z.shape
    target, asymmetry, corr, diagonal = packed_start(params, n)
    k = max(1, min(t, CHUNK // corr.size))
    news, fourth, path = np.zeros(n), np.zeros((2, n)), np.empty((k + 1, corr.size))
    for start in range(0, max(t, 1), k):
        rows = z[start : start + k]
        path[0] = corr
        fold_shocks(
            rows,
            np.empty(0),
            params.model == "cdcc",
            params.a,
            params.b,
            params.g,
            1.0,
            1.0,
            target,
            asymmetry,
            corr,
            diagonal,
            news,
            fourth,
            path[1 : len(rows) + 1],
        )
        yield path[: len(rows) + 1]
