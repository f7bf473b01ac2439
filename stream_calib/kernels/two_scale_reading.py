"""Correlations, effective observations and bands from the sums of ``kernels/two_scale``."""

import numpy as np

from stream_calib.kernels._jit import kernel

SQUARES_MIN = 1e-300  # variances that faded below this have lost their digits
SHARE_MIN = 0.05  # of the windows' time in common; below, a band means little
LOST_MAX = 0.35  # up to here the expansion of the band's terms holds
CORR2_MAX = 0.9025  # bands are worked out up to a correlation of .95


@kernel("f8(f8, f8, f8[:,::1], i8, i8, f8)")
def _widen(corr2: float, share: float, facts: np.ndarray, i: int, j: int, f: float) -> float:
    # D of Notes in read_windows; sums and products of i and j first, or their order would show
    lost = min(LOST_MAX, 1.0 - share)
    once = 1.0 - 3.0 * lost**2 + 4.5 * lost**3
    twice = 1.0 - 6.0 * lost**2 + 11.25 * lost**3
    left_i, left_j = facts[3, i], facts[3, j]
    silent = facts[2, i] * facts[2, j]
    both = 1.5 * (facts[1, i] * facts[1, j]) * (1.0 + silent) / (1.0 - silent) / f
    cross_i = (once / share + facts[4, i] - facts[5, i]) / left_i
    cross_j = (once / share + facts[4, j] - facts[5, j]) / left_j
    widened = (
        (1.0 + (facts[4, i] + facts[4, j]) + both + twice * corr2) / share**2
        - 2.0 * corr2 * (cross_i + cross_j)
        + 0.5 * corr2 * (facts[6, i] / left_i**2 + facts[6, j] / left_j**2)
        + corr2 * corr2 * (twice - share * (facts[5, i] + facts[5, j])) / (left_i * left_j)
    )
    least = 0.5 * (1.0 - corr2) ** 2
    return widened if widened > least else least


@kernel("i8(f8[:,::1], f8[:,::1], i8, f8, f8, f8[:,::1], f8[:,::1], f8[:,::1], f8[::1])")
def read_windows(
    sums: np.ndarray,
    facts: np.ndarray,
    bars_per_window: int,
    kappa: float,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
    out_band: np.ndarray,
    out_vol: np.ndarray,
) -> int:
    """Read correlations, effective observations, bands and volatilities off the sums.

        R_ij = (A_ij / E_ij) / sqrt(v_i v_j), held in [-cap, cap];   vol_i = sqrt(v_i)
        n_eff_ij = (E_ij^2 / E2_ij) / F with F = (2 K^2 + 1) / (3 K): windows of K bars overlap
        band_ij = a_ij sqrt((1 + kappa) D_ij / n_eff_ij) with a_ij = E_ij / sqrt(E_ii E_jj)

    Parameters
    ----------
    sums
        A, E and E2 of ``fold_windows``.
    facts : (7, n)
        Variances v and what ``read_own`` found beside them.
    bars_per_window
        K.
    kappa
        Excess kurtosis / 3 of the windows' returns.
    cap
        Largest absolute correlation of two different symbols.
    out_corr, out_n_eff, out_band : (n, n), overwritten
        Both triangles; NaN, 0 and NaN where windows never overlapped or a variance is zero.
    out_vol : (n,), overwritten
        Per bar; NaN where never observed.

    Returns
    -------
    int
        Pairs that the cap held.

    Notes
    -----
    n_eff knows only exposures. The band adds what the returns tell: with u the noise in a window
    as a share of its signal, s the chance of a silent bar, l = 1 - c T / E the share of the span
    that is left, w = (1 + s) / (1 - s), h = w / F, <f, g> = h - 2 s / (K F (1 - s)^2),
    p = 1 - 3 (1 - a)^2 + 4.5 (1 - a)^3 and q = 1 - 6 (1 - a)^2 + 11.25 (1 - a)^3,

        D = (1 + u_i h_i + u_j h_j + 1.5 u_i u_j w_ij / F + q R^2) / a^2
            - 2 R^2 sum over i, j of (p / a + u h - (1 - l) <f, g>) / l
            + R^2 / 2 sum over i, j of g / l^2
            + R^4 (q - a sum of (1 - l) <f, g>) / (l_i l_j)
        g = 1 + 2 u h - 2 (1 - l) <f, g> + (1 - l)^2 h + 1.5 u^2 w(s^2) / F

    which is (1 - R^2)^2 when all is observed at once and without noise: the delta method on
    Gaussian returns, ticks arriving as Poisson processes. What 95 % bands cover in simulations is
    tested in tests/estimation/test_two_scale.py.
    """
    n = out_vol.size
    products, overlaps, overlaps2 = sums[0], sums[1], sums[2]
    k = float(bars_per_window)
    f = (2.0 * k * k + 1.0) / (3.0 * k)
    capped = 0
    for i in range(n):
        base = i * n - i * (i - 1) // 2 - i
        out_vol[i] = np.sqrt(facts[0, i]) if overlaps2[base + i] > 0.0 else np.nan
        for j in range(i, n):
            p = base + j
            scale = np.sqrt(facts[0, i]) * np.sqrt(facts[0, j])
            corr = 1.0 if i == j else np.nan
            n_eff, band = 0.0, (0.0 if i == j else np.nan)
            if overlaps2[p] > 0.0 and (i == j or scale > SQUARES_MIN):
                n_eff = overlaps[p] * overlaps[p] / (overlaps2[p] * f)
                if i != j and n_eff > 0.0:
                    corr = products[p] / overlaps[p] / scale
                    if abs(corr) > cap:
                        corr = cap if corr > 0.0 else -cap
                        capped += 1
                    own_j = j * n - j * (j - 1) // 2
                    spans = np.sqrt(overlaps[base + i]) * np.sqrt(overlaps[own_j])
                    share = max(SHARE_MIN, min(1.0, overlaps[p] / spans))
                    widened = _widen(min(corr * corr, CORR2_MAX), share, facts, i, j, f)
                    band = share * np.sqrt((1.0 + kappa) * widened / n_eff)
            for a, b in ((i, j), (j, i)):
                out_corr[a, b] = corr
                out_n_eff[a, b] = n_eff
                out_band[a, b] = band
    return capped
