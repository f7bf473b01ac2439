"""Exponentially weighted products of complete bars: one triangle instead of five.

As long as each bar was observed for all symbols over the same span, or for none, all pairs have
gone through the same rows, and of the sums of ``kernels/ewma``

    B_ij = A_ii;  C_ij = A_jj;  E_ij = E;  E2_ij = E2     to the last bit

so that A, E and E2 say it all. Triangles are packed row by row, diagonal included: entry
(i, j >= i) stands at ``i * n - i * (i - 1) // 2 + j - i``.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

SQUARES_MIN = 1e-300  # squares that faded below this have lost their digits
WARM_N_EFF = 30.0  # a variance known worse than this says nothing about tails
Z2_MAX = 1e4  # after a standstill any move is many deviations; one must not outweigh all others


@kernel("f8(f8[::1], f8[::1])")
def _common_span(returns: np.ndarray, exposure: np.ndarray) -> float:
    # the span that all returns have in common, 0 if none is observed, NaN for an incomplete bar
    w = exposure[0]
    whole = absent = 0
    for i in range(returns.size):
        number = returns[i] == returns[i]
        whole += number & (exposure[i] == w)
        absent += not (number & (exposure[i] > 0.0))
    if absent == returns.size:
        return 0.0
    return w if whole == returns.size and w > 0.0 else np.nan


@kernel("void(f8[::1], f8, f8, f8, f8, f8[::1], f8[:,::1], f8[::1])")
def _fold_fourth(
    row: np.ndarray,
    w: float,
    decay: float,
    span: float,
    span2: float,
    products: np.ndarray,
    fourth: np.ndarray,
    variances: np.ndarray,
) -> None:
    n = row.size
    n_eff = span * span / span2 if span2 > 0.0 else 0.0
    if n_eff < WARM_N_EFF:
        for i in range(n):
            fourth[0, i] *= decay
            fourth[1, i] *= decay
        return
    # dividing by a variance of n_eff observations makes z^4 too large by this much
    much, more = 1.0 - 2.0 / n_eff, 1.0 - 4.0 / n_eff
    p = 0
    for i in range(n):
        variances[i] = w * products[p]
        p += n - i
    for i in range(n):
        variance = variances[i] / span
        r2 = row[i] * row[i]
        bounded = r2 < Z2_MAX * variance
        # unlike /, divide does not look for a zero, so that the loop vectorises
        z2 = np.divide(r2, variance if bounded else 1.0)
        z2 = z2 if bounded else Z2_MAX
        known = variance > 0.0
        fourth[0, i] = decay * fourth[0, i] + (z2 * z2 * much * more if known else 0.0)
        fourth[1, i] = decay * fourth[1, i] + (1.0 if known else 0.0)


@kernel("i8(f8[:,::1], f8[:,::1], f8[:,:,::1], f8[:,:,::1], f8[::1], f8[::1], f8[:,::1])")
def fold_complete(
    returns: np.ndarray,
    exposure: np.ndarray,
    decay_seen: np.ndarray,
    decay_unseen: np.ndarray,
    products: np.ndarray,
    exposures: np.ndarray,
    fourth: np.ndarray,
) -> int:
    """Fold rows of returns in, up to the first that is not complete.

        A_ij <- d A_ij + r_i r_j;  E <- d E + w;  E2 <- d^2 E2 + w^2     if w = w_i > 0 for all i
        F_i  <- d F_i + (1 - 2/n)(1 - 4/n) min(r_i^2 / (w A_ii / E), Z2_MAX)^2
        G_i  <- d G_i + 1                        both before the fold, with n = E^2 / E2

    A row in which nobody is observed only ages the sums, by ``decay_unseen``.

    Parameters
    ----------
    returns : (k, n)
        NaN where not observed.
    exposure : (k, n)
        Bars that each return spans; 0 where not observed.
    decay_seen, decay_unseen : (k, 1, 1)
        Weight on the past in rows that are observed and in the others.
    products : (n (n + 1) / 2,), changed in place
        A.
    exposures : (2,), changed in place
        E and E2.
    fourth : (2, n), changed in place
        F and G: standardised fourth powers and their count.

    Returns
    -------
    int
        Rows folded in: k, or the index of the first row that is not complete.

    Notes
    -----
    The operations of ``fold_returns``, in its order, on what is not the same for all pairs: it
    reads and writes a fifth of the memory.

    References
    ----------
    RiskMetrics Technical Document, 4th ed. (1996), ch. 5, for one exposure per bar.
    """
    k, n = len(returns), returns.shape[1]
    variances = np.empty(n)
    for t in range(k):
        row = returns[t]
        w = _common_span(row, exposure[t])
        if w != w:
            return t
        d = decay_seen[t, 0, 0] if w > 0.0 else decay_unseen[t, 0, 0]
        if w > 0.0:
            _fold_fourth(row, w, d, exposures[0], exposures[1], products, fourth, variances)
            base = np.uint64(0)  # unsigned: without the check for negative indices, it vectorises
            for i_signed in range(n):
                i, m = np.uint64(i_signed), np.uint64(n - i_signed)
                r = row[i]
                for j in range(m):
                    products[base + j] = d * products[base + j] + r * row[i + j]
                base += m
        elif d != 1.0:
            products *= d
            fourth *= d
        exposures[0] = d * exposures[0] + w
        exposures[1] = d * d * exposures[1] + w * w
    return k


@kernel("i8(f8[::1], f8[::1], f8, f8[:,::1], f8[:,::1], f8[::1])")
def read_complete(
    products: np.ndarray,
    exposures: np.ndarray,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
    out_vol: np.ndarray,
) -> int:
    """Read correlations, effective observations and volatilities off the sums.

        R_ij = A_ij / sqrt(A_ii A_jj), held in [-cap, cap]
        n_eff = E^2 / E2;   vol_i = sqrt(A_ii / E)

    Parameters
    ----------
    products, exposures
        A, E and E2 of ``fold_complete``.
    cap
        Largest absolute correlation of two different symbols.
    out_corr, out_n_eff : (n, n), overwritten
        Both triangles; NaN and 0 where nothing was observed (or so long ago that the sums have
        faded to zero) or a variance is zero.
    out_vol : (n,), overwritten
        Per bar; NaN where nothing was observed.

    Returns
    -------
    int
        Pairs that the cap held.
    """
    n = out_vol.size
    seen = exposures[1] > 0.0
    n_eff = exposures[0] * exposures[0] / exposures[1] if seen else 0.0
    root = np.empty(n)
    p = 0
    for i in range(n):
        root[i] = np.sqrt(products[p])
        out_vol[i] = np.sqrt(products[p] / exposures[0]) if seen else np.nan
        p += n - i
    capped = 0
    for i in range(n):
        base = i * n - i * (i - 1) // 2 - i
        out_corr[i, i] = 1.0
        out_n_eff[i, i] = n_eff
        for j in range(i + 1, n):
            scale = root[i] * root[j]
            known = seen and scale > SQUARES_MIN
            corr = products[base + j] / scale if known else np.nan
            if abs(corr) > cap:
                corr = cap if corr > 0.0 else -cap
                capped += 1
            out_corr[i, j] = corr
            out_corr[j, i] = corr
            out_n_eff[i, j] = out_n_eff[j, i] = n_eff if known else 0.0
    return capped
