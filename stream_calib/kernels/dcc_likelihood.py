"""Gaussian log density of rows, each under a correlation matrix of its own.

A triangle of n symbols is packed row by row, diagonal included: entry (i, j >= i) stands at
``i * n - i * (i - 1) // 2 + j - i``.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

LN_2PI = np.log(2.0 * np.pi)


@kernel("f8(f8[::1], f8[::1], i8)")
def _log_density(factor: np.ndarray, y: np.ndarray, n: int) -> float:
    # factorises in place, R = U' U, and solves U' x = y on the way; both of the first n
    log_det, square = 0.0, 0.0
    base = np.uint64(0)  # unsigned: without the check for negative indices, loops vectorise
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        pivot = factor[base]
        if not pivot > 0.0:
            return -np.inf
        log_det += np.log(pivot)
        root = 1.0 / np.sqrt(pivot)
        for j in range(m):
            factor[base + j] *= root
        x = y[i] * root
        square += x * x
        for j in range(m):
            y[i + j] -= factor[base + j] * x
        below = base + m
        for h in range(np.uint64(1), m):
            u = factor[base + h]
            rest = m - h
            for j in range(rest):
                factor[below + j] -= u * factor[base + h + j]
            below += rest
        base += m
    out: float = -0.5 * (n * LN_2PI + log_det + square)
    return out


@kernel("void(f8[:,::1], f8[:,::1], f8[::1])")
def log_densities(z: np.ndarray, corr: np.ndarray, out_log: np.ndarray) -> None:
    """Write the Gaussian log density of each row of standardised returns.

        l_t = -(n ln 2 pi + ln |R_t| + z_t' R_t^-1 z_t) / 2

    Parameters
    ----------
    z : (k, n)
        Not observed where not finite: the density is the marginal one of what is observed, and
        0 where nothing is.
    corr : (k, n (n + 1) / 2)
        R of each row, packed.
    out_log : (k,), overwritten
        -inf where R is not positive definite.

    Notes
    -----
    O(k n^3 / 6): a Cholesky factor by rank-one steps along rows, which vectorise.
    """
    k, n = z.shape
    factor = np.empty(n * (n + 1) // 2)
    y = np.empty(n)
    for t in range(k):
        observed = 0
        p = 0
        for i in range(n):
            base = i * n - i * (i - 1) // 2 - i
            if not abs(z[t, i]) < np.inf:
                continue
            y[observed] = z[t, i]
            observed += 1
            for j in range(i, n):
                if abs(z[t, j]) < np.inf:
                    factor[p] = corr[t, base + j]
                    p += 1
        out_log[t] = _log_density(factor, y, observed)
