"""Products of overlapping windows, with the time that two symbols' windows share.

Triangles are packed row by row, diagonal included: entry (i, j >= i) stands at
``i * n - i * (i - 1) // 2 + j - i``.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

SQUARES_MIN = 1e-300  # variances that faded below this have lost their digits
WARM_N_EFF = 30.0  # a variance known worse than this says nothing about tails
Z2_MAX = 1e4  # after a standstill any move is many deviations; one must not outweigh all others
ABUT_BARS = 1e-5  # intervals this close follow one another; what is lost is rounding of stamps
SPAN_MIN = 0.3  # below this share of the span left, removing the noise removes the signal too
VARIANCE_MIN = 0.1  # of the variance with its noise
SHARE_MIN = 0.05  # of the windows' time in common; below, a band means little
LOST_MAX = 0.35  # up to here the expansion of the band's terms holds
CORR2_MAX = 0.9025  # bands are worked out up to a correlation of .95


@kernel("Tuple((f8, f8, i8))(f8, f8, f8, f8, f8, f8)")
def _split_variance(
    squares: float, spans: float, squares_1: float, spans_1: float, moved: float, moved_1: float
) -> tuple[float, float, int]:
    # variance per bar, noise of one window, and whether it is as it came (1) or on its floor (2)
    raw = squares / spans
    if moved_1 <= 0.0:
        return raw, 0.0, 1
    ratio = moved / moved_1
    left = spans - ratio * spans_1
    if left < SPAN_MIN * spans:
        return raw, 0.0, 1
    variance = (squares - ratio * squares_1) / left
    floored = 0
    if variance < VARIANCE_MIN * raw:
        variance, floored = VARIANCE_MIN * raw, 2
    noise = (squares - variance * spans) / moved
    return variance, max(noise, 0.0), floored


@kernel("i8(f8[::1], f8[::1], f8[::1], f8, b1, f8[:,:,::1], i8, f8[:,::1], f8[:,::1])")
def _slide(
    returns: np.ndarray,
    exposure: np.ndarray,
    age: np.ndarray,
    now: float,
    gap: bool,  # noqa: FBT001  # compiled code has no keywords
    windows: np.ndarray,
    head: int,
    marks: np.ndarray,
    window: np.ndarray,
) -> int:
    # moves every window on by one bar; fills window with return, begin, end and span of the last
    # K bars, then return and span of this bar; returns the new head
    k, n = windows.shape[1:]
    for i in range(n):
        window[4, i] = 0.0
        window[5, i] = 0.0
        if gap or age[i] != age[i]:
            continue
        r, w = returns[i], exposure[i]
        end = now - age[i]
        observed = r == r and w > 0.0
        if not observed or abs(now - w - marks[0, i]) > ABUT_BARS:
            marks[1, i] = now - w if observed else end
            for q in range(k):
                windows[0, q, i] = 0.0
                windows[1, q, i] = marks[1, i]
        if observed and end > marks[1, i]:
            window[4, i] = r
            window[5, i] = end - marks[1, i]
            marks[1, i] = end
        marks[0, i] = now
    for i in range(n):
        window[0, i] = 0.0
        window[1, i] = windows[1, head, i]
        window[2, i] = marks[1, i]
        window[3, i] = marks[1, i] - window[1, i]
        windows[0, head, i] = window[4, i]
        windows[1, head, i] = marks[1, i]
    head = (head + 1) % k
    for q in range(k):  # from the oldest on: the same sum wherever the ring begins
        for i in range(n):
            window[0, i] += windows[0, (head + q) % k, i]
    return head


@kernel("void(f8[:,::1], f8, f8, f8, f8[:,::1], f8[:,::1], f8[:,::1])")
def _fold_own(
    window: np.ndarray,
    seen: float,
    unseen: float,
    bars_per_obs: float,
    sums: np.ndarray,
    own: np.ndarray,
    fourth: np.ndarray,
) -> None:
    n = window.shape[1]
    products, overlaps, overlaps2 = sums[0], sums[1], sums[2]
    for i in range(n):
        span = window[3, i]
        decay = seen if span > 0.0 else unseen
        p = i * n - i * (i - 1) // 2
        fourth[0, i] *= decay
        fourth[1, i] *= decay
        if span > 0.0 and window[5, i] > 0.0 and overlaps2[p] > 0.0 and overlaps[p] > 0.0:
            n_eff = overlaps[p] * overlaps[p] / (overlaps2[p] * bars_per_obs)
            if n_eff >= WARM_N_EFF and products[p] > 0.0:
                rate, noise, _ = _split_variance(
                    products[p], overlaps[p], own[0, i], own[1, i], own[2, i], own[3, i]
                )
                x2 = window[0, i] * window[0, i]
                variance = rate * span + noise
                z2 = x2 / variance if x2 < Z2_MAX * variance else Z2_MAX
                # the variance has errors of its own, and shares part of this window
                fourth[0, i] += z2 * z2 * (1.0 - 2.0 / n_eff)
                fourth[1, i] += 1.0
        own[0, i] = decay * own[0, i] + window[4, i] * window[4, i]
        own[1, i] = decay * own[1, i] + window[5, i]
        own[2, i] = decay * own[2, i] + (1.0 if span > 0.0 else 0.0)
        own[3, i] = decay * own[3, i] + (1.0 if window[5, i] > 0.0 else 0.0)


@kernel("void(f8[:,::1], f8, f8, f8[::1], f8[:,::1])")
def _fold_pairs(
    window: np.ndarray, seen: float, unseen: float, shared: np.ndarray, sums: np.ndarray
) -> None:
    n = shared.size
    products, overlaps, overlaps2 = sums[0], sums[1], sums[2]
    x, begin, end, span = window[0], window[1], window[2], window[3]
    seen2, unseen2 = seen * seen, unseen * unseen
    alike = end.min() > begin.max()  # all windows overlap: the usual row, and the fastest
    base = np.uint64(0)  # unsigned: without the check for negative indices, loops vectorise
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        r, first, last, length = x[i], begin[i], end[i], span[i]
        if alike:
            for j in range(m):
                products[base + j] = seen * products[base + j] + r * x[i + j]
            for j in range(m):
                stop = last if last < end[i + j] else end[i + j]
                start = first if first > begin[i + j] else begin[i + j]
                overlaps[base + j] = seen * overlaps[base + j] + (stop - start)
            for j in range(m):
                overlaps2[base + j] = seen2 * overlaps2[base + j] + length * span[i + j]
        elif length > 0.0:
            for j in range(m):
                stop = last if last < end[i + j] else end[i + j]
                start = first if first > begin[i + j] else begin[i + j]
                shared[j] = stop - start if stop > start else 0.0
            for j in range(m):
                d, g = (seen, r * x[i + j]) if shared[j] > 0.0 else (unseen, 0.0)
                products[base + j] = d * products[base + j] + g
            for j in range(m):
                d = seen if shared[j] > 0.0 else unseen
                overlaps[base + j] = d * overlaps[base + j] + shared[j]
            for j in range(m):
                d, g = (seen2, length) if shared[j] > 0.0 else (unseen2, 0.0)
                overlaps2[base + j] = d * overlaps2[base + j] + g * span[i + j]
        elif unseen != 1.0:
            for j in range(m):
                products[base + j] *= unseen
                overlaps[base + j] *= unseen
                overlaps2[base + j] *= unseen2
        base += m


@kernel(
    "void(f8[:,::1], f8[:,::1], f8[:,::1], i8[::1], f8[::1], f8[:,::1], f8[:,::1],"
    " f8[::1], f8[:,:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[:,::1])"
)
def fold_windows(
    returns: np.ndarray,
    exposure: np.ndarray,
    age: np.ndarray,
    empty: np.ndarray,
    elapsed: np.ndarray,
    decay: np.ndarray,
    decay_empty: np.ndarray,
    position: np.ndarray,
    windows: np.ndarray,
    marks: np.ndarray,
    sums: np.ndarray,
    own: np.ndarray,
    fourth: np.ndarray,
) -> None:
    """Fold m rows of returns into exponentially weighted sums over windows of K bars.

        x_i(t) = sum of the returns of bars t - K + 1 .. t;   g_i(t) = stamp of i's last tick
        o_ij   = max(0, min(g_i(t), g_j(t)) - max(g_i(t - K), g_j(t - K)))
        A_ij <- d A_ij + x_i x_j;  E_ij <- d E_ij + o_ij;  E2_ij <- d^2 E2_ij + o_ii o_jj
                                                             where o_ij > 0, else d = unseen
        S_i, T_i, N_i, M_i <- d S_i + r_i^2, d T_i + o_ii(1), d N_i + [o_ii > 0], d M_i + [r_i seen]

    A row before which bars were left out stands for those bars, without a tick, and itself. A
    return that does not begin where the symbol's last tick was, and a tick without a return,
    restart the symbol's window: what happened between the ticks is not known.

    Parameters
    ----------
    returns : (m, n)
        NaN where not observed.
    exposure : (m, n)
        Bars from the one with the symbol's last tick to this one; 0 where not observed.
    age : (m, n)
        Time from the last tick in the bar to its end, in bars, in [0, 1); NaN without a tick.
    empty, elapsed : (m,)
        Bars left out before each row, at most K; trading time since the row before, in bars.
    decay, decay_empty : (m, 2) and (1, 2)
        Weights on the past for pairs whose windows overlap and for the others: of each row
        without its empty bars, and of one empty bar.
    position : (2,), changed in place
        Index of the oldest bar of the ring, and trading time in bars.
    windows : (2, K, n), changed in place
        Ring of returns and stamps, bar by bar.
    marks : (2, n), changed in place
        End of the bar with the last tick, and g, in bars of trading time.
    sums : (3, n (n + 1) / 2), changed in place
        A, E and E2.
    own : (4, n), changed in place
        S, T, N and M: squares and spans of single bars; windows and bars that moved on.
    fourth : (2, n), changed in place
        Standardised fourth powers of windows and their count, decayed alike.

    Notes
    -----
    O(m (n^2 + K n)), no allocation beyond a few rows.

    References
    ----------
    Zhang, Mykland, Ait-Sahalia (2005), "A Tale of Two Time Scales"; Hayashi and Yoshida (2005).
    """
    k, n = windows.shape[1:]
    bars_per_obs = (2.0 * k * k + 1.0) / (3.0 * k)
    window, shared = np.empty((6, n)), np.empty(n)
    head = int(position[0])
    for t in range(returns.shape[0]):
        position[1] += elapsed[t]
        now = position[1]
        for q in range(empty[t] + 1):
            gap = q < empty[t]
            seen = decay_empty[0, 0] if gap else decay[t, 0]
            unseen = decay_empty[0, 1] if gap else decay[t, 1]
            head = _slide(returns[t], exposure[t], age[t], now, gap, windows, head, marks, window)
            _fold_own(window, seen, unseen, bars_per_obs, sums, own, fourth)
            _fold_pairs(window, seen, unseen, shared, sums)
    position[0] = head


@kernel("UniTuple(i8, 2)(f8[:,::1], f8[:,::1], f8, f8[:,::1])")
def _read_own(sums: np.ndarray, own: np.ndarray, k: float, facts: np.ndarray) -> tuple[int, int]:
    # per symbol: 0 variance per bar, 1 noise u, 2 chance of a silent bar, 3 share l left, then
    # 4 u h, 5 (1 - l) <f, g>, 6 g of Notes in read_windows; counts raw and floored variances
    n = facts.shape[1]
    products, overlaps = sums[0], sums[1]
    f = (2.0 * k * k + 1.0) / (3.0 * k)
    raw = floored = 0
    for i in range(n):
        p = i * n - i * (i - 1) // 2
        facts[:, i] = 0.0
        facts[3, i] = 1.0
        if overlaps[p] <= 0.0 or own[2, i] <= 0.0:
            continue
        rate, noise, flag = _split_variance(
            products[p], overlaps[p], own[0, i], own[1, i], own[2, i], own[3, i]
        )
        raw += flag == 1
        floored += flag == 2
        facts[0, i] = rate
        share = noise * own[2, i] / (rate * overlaps[p]) if rate > SQUARES_MIN else 0.0
        silent = min(0.99, max(0.0, 1.0 - own[3, i] / own[2, i]))
        out = own[2, i] / own[3, i] * own[1, i] / overlaps[p] if flag != 1 else 0.0
        width = (1.0 + silent) / (1.0 - silent)
        near = width - 2.0 / k * silent / (1.0 - silent) ** 2
        facts[1, i] = share
        facts[2, i] = silent
        facts[3, i] = 1.0 - out
        facts[4, i] = share * width / f
        facts[5, i] = out * near / f
        facts[6, i] = (
            1.0 + 2.0 * (facts[4, i] - facts[5, i]) + out * out * width / f
        ) + 1.5 * share * share * (1.0 + silent * silent) / (1.0 - silent * silent) / f
    return raw, floored


@kernel("f8(f8, f8, f8[:,::1], i8, i8, f8)")
def _widen(corr2: float, share: float, facts: np.ndarray, i: int, j: int, f: float) -> float:
    # D of Notes in read_windows
    lost = min(LOST_MAX, 1.0 - share)
    once = 1.0 - 3.0 * lost**2 + 4.5 * lost**3
    twice = 1.0 - 6.0 * lost**2 + 11.25 * lost**3
    left_i, left_j = facts[3, i], facts[3, j]
    silent = facts[2, i] * facts[2, j]
    both = 1.5 * facts[1, i] * facts[1, j] * (1.0 + silent) / (1.0 - silent) / f
    cross_i = (once / share + facts[4, i] - facts[5, i]) / left_i
    cross_j = (once / share + facts[4, j] - facts[5, j]) / left_j
    widened = (
        (1.0 + facts[4, i] + facts[4, j] + both + twice * corr2) / share**2
        - 2.0 * corr2 * (cross_i + cross_j)
        + 0.5 * corr2 * (facts[6, i] / left_i**2 + facts[6, j] / left_j**2)
        + corr2 * corr2 * (twice - share * (facts[5, i] + facts[5, j])) / (left_i * left_j)
    )
    least = 0.5 * (1.0 - corr2) ** 2
    return widened if widened > least else least


@kernel(
    "UniTuple(i8, 3)(f8[:,::1], f8[:,::1], i8, f8, f8, f8[:,::1], f8[:,::1], f8[:,::1], f8[::1])"
)
def read_windows(
    sums: np.ndarray,
    own: np.ndarray,
    bars_per_window: int,
    kappa: float,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
    out_band: np.ndarray,
    out_vol: np.ndarray,
) -> tuple[int, int, int]:
    """Read correlations, effective observations, bands and volatilities off the sums.

        v_i = (A_ii - c_i S_i) / (E_ii - c_i T_i) with c_i = N_i / M_i, which takes the noise out;
              A_ii / E_ii where less than SPAN_MIN of E_ii is left; at least VARIANCE_MIN of it
        R_ij = (A_ij / E_ij) / sqrt(v_i v_j), held in [-cap, cap];   vol_i = sqrt(v_i)
        n_eff_ij = (E_ij^2 / E2_ij) / F with F = (2 K^2 + 1) / (3 K): windows of K bars overlap
        band_ij = a_ij sqrt((1 + kappa) D_ij / n_eff_ij) with a_ij = E_ij / sqrt(E_ii E_jj)

    Parameters
    ----------
    sums, own
        A, E, E2 and S, T, N, M of ``fold_windows``.
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
    tuple of int
        Pairs that the cap held, variances left with their noise, variances on their floor.

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
    facts = np.empty((7, n))
    raw, floored = _read_own(sums, own, k, facts)
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
    return capped, raw, floored
