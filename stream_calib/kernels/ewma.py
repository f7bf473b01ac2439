"""Exponentially weighted products over one packed triangle.

A triangle of n symbols is packed row by row, diagonal included: entry (i, j >= i) stands at
``i * n - i * (i - 1) // 2 + j - i``.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

SQUARES_MIN = 1e-300  # squares that faded below this have lost their digits
WARM_N_EFF = 30.0  # a variance known worse than this says nothing about tails
Z2_MAX = 1e4  # after a standstill any move is many deviations; one must not outweigh all others


@kernel(
    "b1(f8[::1], f8[::1], i8[::1], f8[:,:,::1], f8[:,:,::1], i8,"
    " f8[::1], f8[::1], f8[::1], f8[:,::1], f8[::1], f8[::1])"
)
def _take_row(
    returns: np.ndarray,
    exposure: np.ndarray,
    group: np.ndarray,
    seen: np.ndarray,
    unseen: np.ndarray,
    t: int,
    products: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
    fourth: np.ndarray,
    row: np.ndarray,
    span: np.ndarray,
) -> bool:
    # fills row and span, zero where not observed, and folds the fourth powers; tells whether
    # all symbols are observed over the same span: the usual row, and the fastest
    alike = True
    n = row.size
    for i in range(n):
        r = returns[i]
        w = exposure[i]
        observed = r == r and w > 0.0
        g = group[i]
        decay = seen[t, g, g] if observed else unseen[t, g, g]
        fourth[0, i] *= decay
        fourth[1, i] *= decay
        row[i] = r if observed else 0.0
        span[i] = w if observed else 0.0
        alike = alike and observed and w == span[0]
        p = i * n - i * (i - 1) // 2
        if not observed or exposures2[p] <= 0.0:
            continue
        n_eff = exposures[p] * exposures[p] / exposures2[p]
        variance = w * products[p] / exposures[p]
        if n_eff >= WARM_N_EFF and variance > 0.0:
            z2 = r * r / variance if r * r < Z2_MAX * variance else Z2_MAX
            # dividing by a variance of n_eff observations makes z^4 too large by this much
            fourth[0, i] += z2 * z2 * (1.0 - 2.0 / n_eff) * (1.0 - 4.0 / n_eff)
            fourth[1, i] += 1.0
    return alike


@kernel("void(f8[::1], u8, u8, f8)")
def _fade(sums: np.ndarray, base: np.uint64, m: np.uint64, decay: float) -> None:
    for j in range(m):
        sums[base + j] *= decay


@kernel("void(f8[::1], u8, u8, f8[::1], u8)")
def _fade_apart(
    sums: np.ndarray, base: np.uint64, m: np.uint64, decay: np.ndarray, i: np.uint64
) -> None:
    for j in range(m):
        sums[base + j] *= decay[i + j]


@kernel("void(f8[::1], f8[::1], b1, f8, f8, f8[::1], f8[::1], f8[::1], f8[::1], f8[::1])")
def _fold_evenly(
    row: np.ndarray,
    span: np.ndarray,
    alike: bool,  # noqa: FBT001  # compiled code has no keywords
    seen: float,
    unseen: float,
    products: np.ndarray,
    squares_i: np.ndarray,
    squares_j: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
) -> None:
    # one row, all pairs with the same decay
    seen2, unseen2 = seen * seen, unseen * unseen
    base = np.uint64(0)  # unsigned: without the check for negative indices, loops vectorise
    for i_signed in range(row.size):
        i = np.uint64(i_signed)
        m = np.uint64(row.size) - i
        r = row[i]
        w = span[i]
        if alike:
            for j in range(m):
                products[base + j] = seen * products[base + j] + r * row[i + j]
            for j in range(m):
                squares_i[base + j] = seen * squares_i[base + j] + r * r
            for j in range(m):
                squares_j[base + j] = seen * squares_j[base + j] + row[i + j] * row[i + j]
            for j in range(m):
                exposures[base + j] = seen * exposures[base + j] + w
            for j in range(m):
                exposures2[base + j] = seen2 * exposures2[base + j] + w * w
        elif w > 0.0:
            for j in range(m):
                d, g = (seen, r) if span[i + j] == w else (unseen, 0.0)
                products[base + j] = d * products[base + j] + g * row[i + j]
            for j in range(m):
                d, g = (seen, r) if span[i + j] == w else (unseen, 0.0)
                squares_i[base + j] = d * squares_i[base + j] + g * r
            for j in range(m):
                d, g = (seen, row[i + j]) if span[i + j] == w else (unseen, 0.0)
                squares_j[base + j] = d * squares_j[base + j] + g * row[i + j]
            for j in range(m):
                d, g = (seen, w) if span[i + j] == w else (unseen, 0.0)
                exposures[base + j] = d * exposures[base + j] + g
            for j in range(m):
                d, g = (seen2, w) if span[i + j] == w else (unseen2, 0.0)
                exposures2[base + j] = d * exposures2[base + j] + g * w
        elif unseen != 1.0:
            _fade(products, base, m, unseen)
            _fade(squares_i, base, m, unseen)
            _fade(squares_j, base, m, unseen)
            _fade(exposures, base, m, unseen)
            _fade(exposures2, base, m, unseen2)
        base += m


@kernel(
    "void(f8[::1], f8[::1], i8[::1], f8[:,:,::1], b1[::1],"
    " f8[::1], f8[::1], f8[::1], f8[::1], f8[::1])"
)
def _fold_by_group(
    row: np.ndarray,
    span: np.ndarray,
    group: np.ndarray,
    spread: np.ndarray,
    still: np.ndarray,
    products: np.ndarray,
    squares_i: np.ndarray,
    squares_j: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
) -> None:
    # one row, each pair with the decay of its two groups
    rows = np.empty((3, row.size))
    decay, unit, other = rows[0], rows[1], rows[2]
    base = np.uint64(0)
    for i_signed in range(row.size):
        i = np.uint64(i_signed)
        m = np.uint64(row.size) - i
        r = row[i]
        w = span[i]
        seen, unseen = spread[0, group[i]], spread[1, group[i]]
        if w > 0.0:
            for j in range(m):  # chosen once, so that the loops over pairs have nothing to choose
                folded = span[i + j] == w
                d, u = seen[i + j], unseen[i + j]
                decay[j] = d if folded else u
                unit[j] = 1.0 if folded else 0.0
                other[j] = row[i + j] if folded else 0.0
            for j in range(m):
                products[base + j] = decay[j] * products[base + j] + r * other[j]
            for j in range(m):
                squares_i[base + j] = decay[j] * squares_i[base + j] + r * r * unit[j]
            for j in range(m):
                squares_j[base + j] = decay[j] * squares_j[base + j] + other[j] * other[j]
            for j in range(m):
                exposures[base + j] = decay[j] * exposures[base + j] + w * unit[j]
            for j in range(m):
                d2 = decay[j] * decay[j]
                exposures2[base + j] = d2 * exposures2[base + j] + w * w * unit[j]
        elif not still[group[i]]:
            _fade_apart(products, base, m, unseen, i)
            _fade_apart(squares_i, base, m, unseen, i)
            _fade_apart(squares_j, base, m, unseen, i)
            _fade_apart(exposures, base, m, unseen, i)
            for j in range(m):
                exposures2[base + j] *= unseen[i + j] * unseen[i + j]
        base += m


@kernel("b1(i8[::1], f8[:,::1], f8[:,::1], f8[:,:,::1], b1[::1])")
def _spread(
    group: np.ndarray,
    decay_seen: np.ndarray,
    decay_unseen: np.ndarray,
    spread: np.ndarray,
    still: np.ndarray,
) -> bool:
    # writes the decays of each group's pairs out over all symbols; tells whether all are the
    # same, and of each group whether pairs that are not folded stand still
    n_groups = still.size
    even = True
    for g in range(n_groups):
        still[g] = True
        for h in range(n_groups):
            even = even and decay_seen[g, h] == decay_seen[0, 0]
            even = even and decay_unseen[g, h] == decay_unseen[0, 0]
            still[g] = still[g] and decay_unseen[g, h] == 1.0
    if not even:
        for g in range(n_groups):
            for j in range(group.size):
                spread[0, g, j] = decay_seen[g, group[j]]
                spread[1, g, j] = decay_unseen[g, group[j]]
    return even


@kernel(
    "void(f8[:,::1], f8[:,::1], i8[::1], f8[:,:,::1], f8[:,:,::1],"
    " f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[:,::1])"
)
def fold_returns(
    returns: np.ndarray,
    exposure: np.ndarray,
    group: np.ndarray,
    decay_seen: np.ndarray,
    decay_unseen: np.ndarray,
    products: np.ndarray,
    squares_i: np.ndarray,
    squares_j: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
    fourth: np.ndarray,
) -> None:
    """Fold k rows of returns into the exponentially weighted sums.

        o_ij = w_i if both returns are observed and w_i = w_j, else 0
        A_ij <- d A_ij + r_i r_j;  B_ij <- d B_ij + r_i^2;  C_ij <- d C_ij + r_j^2   where o_ij > 0
        E_ij <- d E_ij + o_ij;     E2_ij <- d^2 E2_ij + o_ij^2
        F_i  <- d F_i + (1 - 2/n)(1 - 4/n) min(r_i^2 / (w_i A_ii / E_ii), Z2_MAX)^2
        G_i  <- d G_i + 1                      both before the fold, with n = E_ii^2 / E2_ii

    A pair is folded in rows where both returns span the same time: products and squares then
    come from the same rows, so that A^2 <= B C, and E^2 / E2 counts them.

    Parameters
    ----------
    returns : (k, n)
        NaN where not observed.
    exposure : (k, n)
        Bars that each return spans; 0 where not observed.
    group : (n,)
        Group of each symbol, 0 to G - 1.
    decay_seen, decay_unseen : (k, G, G)
        Weight on the past for pairs folded in the row and for the others, by their groups;
        symmetric.
    products, squares_i, squares_j, exposures, exposures2 : (n (n + 1) / 2,), changed in place
        A, B, C, E and E2.
    fourth : (2, n), changed in place
        F and G: standardised fourth powers and their count.

    Notes
    -----
    O(k n^2), no allocation beyond G rows. With several groups a row's decays are spread over the
    symbols first, so that the loops over pairs still run over what lies side by side.

    References
    ----------
    RiskMetrics Technical Document, 4th ed. (1996), ch. 5, for one exposure per bar.
    """
    n = returns.shape[1]
    n_groups = decay_seen.shape[1]
    row = np.empty(n)
    span = np.empty(n)
    spread = np.empty((2, n_groups, n if n_groups > 1 else 0))
    still = np.empty(n_groups, np.bool_)
    sums = (products, squares_i, squares_j, exposures, exposures2)
    for t in range(returns.shape[0]):
        even = n_groups == 1 or _spread(group, decay_seen[t], decay_unseen[t], spread, still)
        alike = _take_row(
            returns[t],
            exposure[t],
            group,
            decay_seen,
            decay_unseen,
            t,
            products,
            exposures,
            exposures2,
            fourth,
            row,
            span,
        )
        if even:
            d, u = decay_seen[t, 0, 0], decay_unseen[t, 0, 0]
            _fold_evenly(row, span, alike, d, u, *sums)
        else:
            _fold_by_group(row, span, group, spread, still, *sums)


@kernel("i8(f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8, f8[:,::1], f8[:,::1], f8[::1])")
def read_correlation(
    products: np.ndarray,
    squares_i: np.ndarray,
    squares_j: np.ndarray,
    exposures: np.ndarray,
    exposures2: np.ndarray,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
    out_vol: np.ndarray,
) -> int:
    """Read correlations, effective observations and volatilities off the sums.

        R_ij = A_ij / sqrt(B_ij C_ij), held in [-cap, cap]
        n_eff_ij = E_ij^2 / E2_ij;   vol_i = sqrt(A_ii / E_ii)

    Parameters
    ----------
    products, squares_i, squares_j, exposures, exposures2 : (n (n + 1) / 2,)
        A, B, C, E and E2 of ``fold_returns``.
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
    capped = 0
    for i in range(n):
        base = i * n - i * (i - 1) // 2 - i
        seen = exposures2[base + i] > 0.0
        out_vol[i] = np.sqrt(products[base + i] / exposures[base + i]) if seen else np.nan
        for j in range(i, n):
            p = base + j
            scale = np.sqrt(squares_i[p]) * np.sqrt(squares_j[p])
            corr = 1.0 if i == j else np.nan
            n_eff = 0.0
            if exposures2[p] > 0.0 and (scale > SQUARES_MIN or i == j):
                n_eff = exposures[p] * exposures[p] / exposures2[p]
                if i != j:
                    corr = products[p] / scale
                    if abs(corr) > cap:
                        corr = cap if corr > 0.0 else -cap
                        capped += 1
            out_corr[i, j] = corr
            out_corr[j, i] = corr
            out_n_eff[i, j] = n_eff
            out_n_eff[j, i] = n_eff
    return capped
