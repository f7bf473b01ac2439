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


@kernel(
    "void(f8[::1], f8[::1], f8[::1], f8, i8, i8[::1], i8[:,::1], f8[::1],"
    " f8[:,:,::1], f8[:,::1], f8[:,::1])"
)
def _slide(
    returns: np.ndarray,
    exposure: np.ndarray,
    age: np.ndarray,
    now: float,
    ahead: int,
    group: np.ndarray,
    empty: np.ndarray,
    heads: np.ndarray,
    windows: np.ndarray,
    marks: np.ndarray,
    window: np.ndarray,
) -> None:
    # moves every window of an open market on by one bar, the row's own if none is ahead of it;
    # fills window with return, begin, end and span of the last K bars, then return and span of
    # this bar: zeros for a closed market
    k, n = windows.shape[1:]
    window[:] = 0.0
    for i in range(n):
        g = group[i]
        if ahead > empty[g, g]:
            continue
        if ahead == 0 and age[i] == age[i]:
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
        head = int(heads[g])
        window[1, i] = windows[1, head, i]
        window[2, i] = marks[1, i]
        window[3, i] = marks[1, i] - window[1, i]
        windows[0, head, i], windows[1, head, i] = window[4, i], marks[1, i]
    for g in range(heads.size - 1):
        if ahead <= empty[g, g]:
            heads[g] = (heads[g] + 1) % k
    # from the oldest on: the same sum wherever the ring begins
    if heads.size == 2:
        for q in range(k):
            at = (int(heads[0]) + q) % k
            for i in range(n):
                window[0, i] += windows[0, at, i]
        return
    for q in range(k):
        for i in range(n):
            g = group[i]
            if ahead <= empty[g, g]:
                window[0, i] += windows[0, (int(heads[g]) + q) % k, i]


@kernel("void(f8[:,::1], i8[::1], f8[:,:,::1], f8, f8[:,::1], f8[:,::1], f8[:,::1])")
def _fold_own(
    window: np.ndarray,
    group: np.ndarray,
    weights: np.ndarray,
    bars_per_obs: float,
    sums: np.ndarray,
    own: np.ndarray,
    fourth: np.ndarray,
) -> None:
    n = window.shape[1]
    products, overlaps, overlaps2 = sums[0], sums[1], sums[2]
    for i in range(n):
        g = group[i]
        if weights[2, g, g] == 0.0:
            continue
        span = window[3, i]
        decay = weights[0, g, g] if span > 0.0 else weights[1, g, g]
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
        i, m = np.uint64(i_signed), np.uint64(n - i_signed)
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


@kernel("void(f8[:,::1], i8[::1], f8[:,::1], f8[::1], f8[:,::1])")
def _fold_pairs_by_group(
    window: np.ndarray,
    group: np.ndarray,
    spread: np.ndarray,
    shared: np.ndarray,
    sums: np.ndarray,
) -> None:
    # each pair with the decays of its two groups; none where these are not open together
    n = shared.size
    decay = np.empty(n)
    products, overlaps, overlaps2 = sums[0], sums[1], sums[2]
    x, begin, end, span = window[0], window[1], window[2], window[3]
    base = np.uint64(0)
    for i_signed in range(n):
        i, m = np.uint64(i_signed), np.uint64(n - i_signed)
        r, first, last, length = x[i], begin[i], end[i], span[i]
        at = 3 * group[i_signed]
        seen, unseen, both = spread[at], spread[at + 1], spread[at + 2]
        if length > 0.0:
            for j in range(m):
                stop = last if last < end[i + j] else end[i + j]
                start = first if first > begin[i + j] else begin[i + j]
                shared[j] = (stop - start if stop > start else 0.0) * both[i + j]
            for j in range(m):
                d, u = seen[i + j], unseen[i + j]
                decay[j] = d if shared[j] > 0.0 else u
            for j in range(m):
                g = r if shared[j] > 0.0 else 0.0
                products[base + j] = decay[j] * products[base + j] + g * x[i + j]
            for j in range(m):
                overlaps[base + j] = decay[j] * overlaps[base + j] + shared[j]
            for j in range(m):
                d, g = decay[j] * decay[j], length if shared[j] > 0.0 else 0.0
                overlaps2[base + j] = d * overlaps2[base + j] + g * span[i + j]
        else:
            for j in range(m):
                d = unseen[i + j]
                products[base + j] *= d
                overlaps[base + j] *= d
                overlaps2[base + j] *= d * d
        base += m


@kernel("b1(i8, i8[:,::1], f8[:,:,::1], f8[:,::1], f8[:,:,::1])")
def _weigh(
    ahead: int,
    empty: np.ndarray,
    decay: np.ndarray,
    decay_empty: np.ndarray,
    weights: np.ndarray,
) -> bool:
    # by group: decay of pairs whose windows overlap, of others, whether folded; tells if all alike
    even = True
    for g in range(empty.shape[0]):
        for h in range(empty.shape[0]):
            folded = ahead <= empty[g, h]
            for q in range(2):
                weight = decay_empty[0, q] if ahead > 0 else decay[q, g, h]
                weights[q, g, h] = weight if folded else 1.0
                even = even and weights[q, g, h] == weights[q, 0, 0]
            weights[2, g, h] = 1.0 if folded else 0.0
            even = even and folded
    return even


@kernel(
    "void(f8[:,::1], f8[:,::1], f8[:,::1], i8[::1], i8[:,:,::1], f8[::1], f8[:,:,:,::1],"
    " f8[:,::1], f8[::1], f8[:,:,::1], f8[:,::1], f8[:,::1], f8[:,::1], f8[:,::1])"
)
def fold_windows(
    returns: np.ndarray,
    exposure: np.ndarray,
    age: np.ndarray,
    group: np.ndarray,
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

    A row before which bars were left out stands for those bars, without a tick, and itself. For a
    group whose market was closed there are none: its windows stay as they are; for two groups
    that were not open together their pairs do. A return that does not begin where the symbol's
    last tick was, and a tick without a return, restart the symbol's window: what happened between
    the ticks is not known.

    Parameters
    ----------
    returns : (m, n)
        NaN where not observed.
    exposure : (m, n)
        Bars from the one with the symbol's last tick to this one; 0 where not observed.
    age : (m, n)
        Time from the last tick in the bar to its end, in bars, in [0, 1); NaN without a tick.
    group : (n,)
        Group of each symbol, 0 to G - 1.
    empty : (m, G, G)
        Bars left out before each row, at most K, that two groups were open together, -1 where
        they were not at all; on the diagonal each group's own; symmetric.
    elapsed : (m,)
        Trading time since the row before, in bars: that of whichever group was open.
    decay, decay_empty : (m, 2, G, G) and (1, 2)
        Weights on the past for pairs whose windows overlap and for the others: of each row
        without its empty bars, and of one empty bar.
    position : (G + 1,), changed in place
        Index of the oldest bar in each group's ring, and trading time in bars.
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
    n_groups = empty.shape[1]
    bars_per_obs = (2.0 * k * k + 1.0) / (3.0 * k)
    window, shared = np.empty((6, n)), np.empty(n)
    weights, spread = np.empty((3, n_groups, n_groups)), np.empty((3 * n_groups, n))
    for t in range(returns.shape[0]):
        position[n_groups] += elapsed[t]
        now = float(position[n_groups])
        bars = 0
        for g in range(n_groups):
            bars = max(bars, empty[t, g, g] + 1)
        for ahead in range(bars - 1, -1, -1):
            even = _weigh(ahead, empty[t], decay[t], decay_empty, weights)
            r, w, a, left_out = returns[t], exposure[t], age[t], empty[t]
            _slide(r, w, a, now, ahead, group, left_out, position, windows, marks, window)
            _fold_own(window, group, weights, bars_per_obs, sums, own, fourth)
            if even:
                _fold_pairs(window, weights[0, 0, 0], weights[1, 0, 0], shared, sums)
                continue
            for g in range(n_groups):
                for q in range(3):
                    for j in range(n):
                        spread[3 * g + q, j] = weights[q, g, group[j]]
            _fold_pairs_by_group(window, group, spread, shared, sums)


@kernel("UniTuple(i8, 2)(f8[:,::1], f8[:,::1], f8, f8[:,::1])")
def read_own(sums: np.ndarray, own: np.ndarray, k: float, facts: np.ndarray) -> tuple[int, int]:
    """Read variances off the sums, and what else of one symbol bands depend on.

        v_i = (A_ii - c_i S_i) / (E_ii - c_i T_i) with c_i = N_i / M_i, which takes the noise out;
              A_ii / E_ii where less than SPAN_MIN of E_ii is left; at least VARIANCE_MIN of it

    Parameters
    ----------
    sums, own
        A, E, E2 and S, T, N, M of ``fold_windows``.
    k
        Bars per window.
    facts : (7, n), overwritten
        v per bar; then, as in Notes of ``read_windows``, noise u, chance s of a silent bar, share
        l left, u h, (1 - l) <f, g>, and g.

    Returns
    -------
    tuple of int
        Variances left with their noise, variances on their floor.
    """
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
