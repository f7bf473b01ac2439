"""Exponentially weighted products over one packed triangle.

A triangle of n symbols is packed row by row, diagonal included: entry (i, j >= i) stands at
``i * n - i * (i - 1) // 2 + j - i``.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

WARM_N_EFF = 30.0  # a variance known worse than this says nothing about tails
Z2_MAX = 1e4  # after a standstill any move is many deviations; one must not outweigh all others


@kernel("void(f8[:,::1], f8[:,::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:,::1])")
def fold_returns(
    returns: np.ndarray,
    exposure: np.ndarray,
    decay_seen: np.ndarray,
    decay_unseen: np.ndarray,
    products: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
    fourth: np.ndarray,
) -> None:
    """Fold k rows of returns into the exponentially weighted sums.

        o_ij = min(w_i, w_j)                      overlap of the two returns, 0 if one is missing
        A_ij <- d A_ij + r_i r_j [o_ij > 0]
        E_ij <- d E_ij + o_ij;    E2_ij <- d^2 E2_ij + o_ij^2
        F_i  <- d F_i + min(r_i^2 / (w_i A_ii / E_ii), Z2_MAX)^2 before the fold;  G_i <- d G_i + 1

    Parameters
    ----------
    returns : (k, n)
        NaN where not observed.
    exposure : (k, n)
        Bars that each return spans; 0 where not observed.
    decay_seen, decay_unseen : (k,)
        Weight on the past for pairs observed in the row and for the others.
    products, exposures, exposures2 : (n (n + 1) / 2,), changed in place
        A, E and E2.
    fourth : (2, n), changed in place
        F and G: standardised fourth powers and their count.

    Notes
    -----
    O(k n^2), no allocation beyond one row.

    References
    ----------
    RiskMetrics Technical Document, 4th ed. (1996), ch. 5, for one exposure per bar.
    """
    k, n = returns.shape
    row = np.empty(n)
    span = np.empty(n)
    for t in range(k):
        seen, unseen = decay_seen[t], decay_unseen[t]
        seen2, unseen2 = seen * seen, unseen * unseen
        alike = True  # all observed, over the same span: the usual row, and the fastest
        for i in range(n):
            r = returns[t, i]
            w = exposure[t, i]
            decay = unseen if r != r or w <= 0.0 else seen
            fourth[0, i] *= decay
            fourth[1, i] *= decay
            if r != r or w <= 0.0:
                row[i] = 0.0
                span[i] = 0.0
                alike = False
                continue
            row[i] = r
            span[i] = w
            alike = alike and w == span[0]
            p = i * n - i * (i - 1) // 2
            if exposures2[p] > 0.0 and exposures[p] * exposures[p] >= WARM_N_EFF * exposures2[p]:
                variance = w * products[p] / exposures[p]
                if variance <= 0.0:
                    continue
                z2 = r * r / variance if r * r < Z2_MAX * variance else Z2_MAX
                fourth[0, i] += z2 * z2
                fourth[1, i] += 1.0
        base = np.uint64(0)  # unsigned: without the check for negative indices, loops vectorise
        for i_signed in range(n):
            i = np.uint64(i_signed)
            m = np.uint64(n) - i
            r = row[i]
            w = span[i]
            if alike:
                for j in range(m):
                    products[base + j] = seen * products[base + j] + r * row[i + j]
                for j in range(m):
                    exposures[base + j] = seen * exposures[base + j] + w
                for j in range(m):
                    exposures2[base + j] = seen2 * exposures2[base + j] + w * w
            elif w > 0.0:
                for j in range(m):
                    d = seen if span[i + j] > 0.0 else unseen
                    products[base + j] = d * products[base + j] + r * row[i + j]
                for j in range(m):
                    wj = span[i + j]
                    d = seen if wj > 0.0 else unseen
                    exposures[base + j] = d * exposures[base + j] + (wj if wj < w else w)
                for j in range(m):
                    wj = span[i + j]
                    d = seen2 if wj > 0.0 else unseen2
                    o = wj if wj < w else w
                    exposures2[base + j] = d * exposures2[base + j] + o * o
            elif unseen != 1.0:
                for j in range(m):
                    products[base + j] *= unseen
                for j in range(m):
                    exposures[base + j] *= unseen
                for j in range(m):
                    exposures2[base + j] *= unseen2
            base += m


@kernel("i8(f8[::1], f8[::1], f8[::1], f8, f8[:,::1], f8[:,::1], f8[::1])")
def read_correlation(
    products: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
    out_vol: np.ndarray,
) -> int:
    """Read correlations, effective observations and volatilities off the sums.

        c_ij = A_ij / E_ij;   R_ij = c_ij / sqrt(c_ii c_jj), held in [-cap, cap]
        n_eff_ij = E_ij^2 / E2_ij;   vol_i = sqrt(c_ii)

    Parameters
    ----------
    products, exposures, exposures2 : (n (n + 1) / 2,)
        A, E and E2 of ``fold_returns``.
    cap
        Largest absolute correlation of two different symbols.
    out_corr, out_n_eff : (n, n), overwritten
        Both triangles; NaN and 0 where a pair was never observed (or so long ago that the
        sums have faded to zero) or a variance is zero.
    out_vol : (n,), overwritten
        Per bar; NaN where never observed.

    Returns
    -------
    int
        Pairs that the cap held.
    """
    n = out_vol.size
    for i in range(n):
        p = i * n - i * (i - 1) // 2
        seen = exposures2[p] > 0.0
        out_vol[i] = np.sqrt(products[p] / exposures[p]) if seen else np.nan
        out_n_eff[i, i] = exposures[p] * exposures[p] / exposures2[p] if seen else 0.0
        out_corr[i, i] = 1.0
    capped = 0
    for i in range(n):
        base = i * n - i * (i - 1) // 2 - i
        for j in range(i + 1, n):
            e = exposures[base + j]
            e2 = exposures2[base + j]
            scale = out_vol[i] * out_vol[j]
            corr = np.nan
            n_eff = 0.0
            if e2 > 0.0 and scale > 0.0:
                corr = products[base + j] / e / scale
                n_eff = e * e / e2
                if abs(corr) > cap:
                    corr = cap if corr > 0.0 else -cap
                    capped += 1
            out_corr[i, j] = corr
            out_corr[j, i] = corr
            out_n_eff[i, j] = n_eff
            out_n_eff[j, i] = n_eff
    return capped
