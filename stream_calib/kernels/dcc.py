"""Dynamic conditional correlation over one packed triangle.

A triangle of n symbols is packed row by row, diagonal included: entry (i, j >= i) stands at
``i * n - i * (i - 1) // 2 + j - i``. Kept are R and the diagonal of Q, which are Q, and of which
R need not be computed to be read.
"""

import numpy as np

from stream_calib.kernels._jit import kernel

Z2_MAX = 1e4  # one absurd return must not outweigh all others in the fourth powers
DIAGONAL_MIN = 1e-300  # a variance that faded below this has lost its digits
TILE = 128  # symbols: a tile is read by columns, and 128 kB of it stay near


@kernel("b1(f8[::1], f8[::1], f8, f8, f8[::1], f8[:,::1])")
def _count_row(
    z: np.ndarray,
    row: np.ndarray,
    memory: float,
    fade: float,
    news: np.ndarray,
    fourth: np.ndarray,
) -> bool:
    # row: 1 where observed; tells whether all symbols are: the usual row, and the fastest
    every = True
    for i in range(z.size):
        observed = abs(z[i]) < np.inf  # NaN is not
        row[i] = 1.0 if observed else 0.0
        every = every and observed
        if observed:
            z2 = min(z[i] * z[i], Z2_MAX)
            fourth[0, i] = fade * fourth[0, i] + z2 * z2
            fourth[1, i] = fade * fourth[1, i] + 1.0
            news[i] = memory * news[i] + 1.0
    return every


@kernel("void(f8[::1], b1, f8, f8, f8, f8, f8[::1], f8[::1], f8[::1], f8[:,::1])")
def _take_row(
    z: np.ndarray,
    scaled: bool,  # noqa: FBT001  # compiled code has no keywords
    a: float,
    b: float,
    g: float,
    unseen: float,
    target: np.ndarray,
    asymmetry: np.ndarray,
    diagonal: np.ndarray,
    row: np.ndarray,
) -> None:
    # fills row with what the terms of a pair are products of, each a root of its weight over the
    # new root of the diagonal: 1 target, 2 past, 3 shock, 4 fall, 5 asymmetry; 6 and 7 target and
    # past of what is not observed, 8 target alone; moves the diagonal on
    n = z.size
    c = 1.0 - a - b
    for i in range(n):
        p = i * n - i * (i - 1) // 2
        old, t = diagonal[i], target[p]
        root = np.sqrt(old)
        shock = z[i] if row[0, i] > 0.0 else 0.0
        shock = shock * root if scaled else shock
        fall = min(shock, 0.0)
        new = c * t + b * old + a * (shock * shock)
        if g != 0.0:
            new += g * (fall * fall - asymmetry[p])
        new = max(new, DIAGONAL_MIN)
        scale = 1.0 / np.sqrt(new)
        row[1, i] = np.sqrt(c) * scale
        row[2, i] = np.sqrt(b) * root * scale
        row[3, i] = np.sqrt(a) * shock * scale
        row[4, i] = np.sqrt(g) * fall * scale
        row[5, i] = np.sqrt(g) * scale
        if unseen != 1.0:
            still = (1.0 - unseen) * t + unseen * old
            row[6, i] = np.sqrt((1.0 - unseen) / still)
            row[7, i] = np.sqrt(unseen * old / still)
            row[8, i] = 1.0 / np.sqrt(t)
            old = still
        diagonal[i] = new if row[0, i] > 0.0 else old


@kernel("void(f8[::1], f8, f8[::1], f8[::1], f8[:,::1])")
def _revert(
    corr: np.ndarray, pull: float, target: np.ndarray, diagonal: np.ndarray, row: np.ndarray
) -> None:
    n = diagonal.size
    for h in range(n):
        t = target[h * n - h * (h - 1) // 2]
        old, still = diagonal[h], (1.0 - pull) * t + pull * diagonal[h]
        row[6, h] = np.sqrt((1.0 - pull) / still)
        row[7, h] = np.sqrt(pull * old / still)
        diagonal[h] = still
    base = np.uint64(0)  # unsigned: without the check for negative indices, loops vectorise
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        to, past = row[6], row[7]
        for j in range(m):
            r = target[base + j] * (to[i] * to[i + j]) + corr[base + j] * (past[i] * past[i + j])
            corr[base + j] = r
        corr[base] = 1.0
        base += m


@kernel("void(f8[:,::1], f8[::1], f8[::1])")
def _fold_whole(row: np.ndarray, target: np.ndarray, corr: np.ndarray) -> None:
    # every symbol is observed and falls count like rises
    to, past, shock = row[1], row[2], row[3]
    n = shock.size
    base = np.uint64(0)
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        ti, pi, si = to[i], past[i], shock[i]
        for j in range(m):
            # products of two symbols first: the same for (i, j) and (j, i)
            r = target[base + j] * (ti * to[i + j]) + corr[base + j] * (pi * past[i + j])
            corr[base + j] = r + si * shock[i + j]
        corr[base] = 1.0
        base += m


@kernel("void(f8[:,::1], f8, f8, f8[::1], f8[::1], f8[::1])")
def _fold_pairs(
    row: np.ndarray,
    g: float,
    unseen: float,
    target: np.ndarray,
    asymmetry: np.ndarray,
    corr: np.ndarray,
) -> None:
    # as _fold_whole, term by term, and whatever else there is
    seen, to, past, shock, fall, less = row[0], row[1], row[2], row[3], row[4], row[5]
    n = shock.size
    base = np.uint64(0)
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        ti, pi, si, fi, li = to[i], past[i], shock[i], fall[i], less[i]
        if seen[i] > 0.0 and g == 0.0:
            for j in range(m):
                old = corr[base + j]
                r = target[base + j] * (ti * to[i + j]) + old * (pi * past[i + j])
                r += si * shock[i + j]
                corr[base + j] = r if seen[i + j] > 0.0 else old
        elif seen[i] > 0.0:
            for j in range(m):
                old = corr[base + j]
                r = target[base + j] * (ti * to[i + j]) + old * (pi * past[i + j])
                r += si * shock[i + j]
                r += fi * fall[i + j] - asymmetry[base + j] * (li * less[i + j])
                corr[base + j] = r if seen[i + j] > 0.0 else old
        if unseen != 1.0:
            ti, pi, mi = row[6, i], row[7, i], row[8, i]
            for j in range(m):
                old, t, both = corr[base + j], target[base + j], seen[i] + seen[i + j]
                r = t * (ti * row[6, i + j]) + old * (pi * row[7, i + j])
                r = r if both == 0.0 else unseen * old + (1.0 - unseen) * (t * (mi * row[8, i + j]))
                corr[base + j] = old if both == 2.0 else r
        corr[base] = 1.0
        base += m


@kernel(
    "void(f8[:,::1], f8[::1], b1, f8, f8, f8, f8, f8, f8[::1], f8[::1], f8[::1], f8[::1],"
    " f8[::1], f8[:,::1], f8[:,::1])"
)
def fold_shocks(
    z: np.ndarray,
    pull: np.ndarray,
    scaled: bool,  # noqa: FBT001  # compiled code has no keywords
    a: float,
    b: float,
    g: float,
    unseen: float,
    fade: float,
    target: np.ndarray,
    asymmetry: np.ndarray,
    corr: np.ndarray,
    diagonal: np.ndarray,
    news: np.ndarray,
    fourth: np.ndarray,
    out_corr: np.ndarray,
) -> None:
    """Fold k rows of standardised returns into Q; what is kept of it can be read at any time.

        Q <- S + p (Q - S)                                   bars without any news, p = pull
        Q <- (1 - a - b) S + b Q + a x x' + g (n n' - N),    n = min(x, 0)
        Q <- S + u (Q - S)                                   where not observed, u = unseen
        x = z, or diag(Q)^(1/2) z with ``scaled``
        R_ij = Q_ij / sqrt(Q_ii Q_jj)

    Of a pair of which one is observed R_ij <- Rbar_ij + u (R_ij - Rbar_ij), Rbar being that of S,
    while its Q_ii follows the news. So with u = 1 the R of a pair stands still unless both are
    observed, and with any u it is within one whatever is missing.

    Parameters
    ----------
    z : (k, n)
        Returns divided by their predicted deviation; not observed where not finite.
    pull : (k,) or (0,)
        What is left of Q - S over the bars without news before a row; 1 where there are none.
    scaled
        Aielli's shocks instead of Engle's.
    a, b, g
        Weight of the news, of the past, and of common falls.
    unseen
        What is left of Q - S of a pair that is not observed in the row; 1: it stands still.
    fade
        Weight on the past of the fourth powers.
    target, asymmetry : (n (n + 1) / 2,)
        S and N; ``asymmetry`` is not read where g is 0.
    corr : (n (n + 1) / 2,), changed in place
        R.
    diagonal : (n,), changed in place
        Q_ii.
    news : (n,), changed in place
        Observations of each symbol that Q remembers: times a + b, plus one.
    fourth : (2, n), changed in place
        Faded sums of z^4 and of ones.
    out_corr : (k, n (n + 1) / 2) or (0, n (n + 1) / 2), overwritten
        R after each row, if asked for.

    Notes
    -----
    O(k n^2), one pass over R and S a row. Q stays positive definite where S is and nothing is
    missing (with g: where (1 - a - b) S - g N is not negative either).

    References
    ----------
    Engle (2002), eq. 19; Aielli (2013), eq. 6; Cappiello, Engle and Sheppard (2006), eq. 4.
    """
    k, n = z.shape
    row = np.empty((9, n))
    reading = out_corr.shape[0] == k
    for t in range(k):
        if pull.size > 0 and pull[t] != 1.0:
            _revert(corr, pull[t], target, diagonal, row)
        every = _count_row(z[t], row[0], a + b, fade, news, fourth)
        _take_row(z[t], scaled, a, b, g, unseen, target, asymmetry, diagonal, row)
        if every and g == 0.0:
            _fold_whole(row, target, corr)
        else:
            _fold_pairs(row, g, unseen, target, asymmetry, corr)
        if reading:
            out_corr[t] = corr


@kernel("void(f8[:,::1])")
def _mirror(square: np.ndarray) -> None:
    # the upper triangle to the lower one, by tiles
    n, tile = np.uint64(square.shape[0]), np.uint64(TILE)
    for top in range(np.uint64(0), n, tile):
        bottom = n if top + tile > n else top + tile
        for left in range(np.uint64(0), bottom, tile):
            for i in range(top, bottom):
                right = i if left + tile > i else left + tile
                for j in range(left, right):
                    square[i, j] = square[j, i]


@kernel("i8(f8[::1], f8[::1], f8[::1], f8, f8[:,::1], f8[:,::1])")
def read_correlation(
    corr: np.ndarray,
    rows: np.ndarray,
    news: np.ndarray,
    cap: float,
    out_corr: np.ndarray,
    out_n_eff: np.ndarray,
) -> int:
    """Write R and what it is worth out as matrices.

        R_ij held in [-cap, cap];   n_eff_ij = min(w_i, w_j),  w_i = max(rows_i, news_i)

    Parameters
    ----------
    corr : (n (n + 1) / 2,)
        R.
    rows, news : (n,)
        Observations of each symbol that its target rests on, and that Q remembers.
    cap
        Largest absolute correlation of two symbols.
    out_corr, out_n_eff : (n, n), overwritten
        Both triangles, ones on the diagonal of R.

    Returns
    -------
    int
        Pairs that the cap held.
    """
    n = rows.size
    worth = np.empty(n)
    for h in range(n):
        worth[h] = max(rows[h], news[h])
    held = 0
    base = np.uint64(0)
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        row, eff, least = out_corr[i], out_n_eff[i], worth[i]
        for j in range(m):
            r = corr[base + j]
            held += abs(r) > cap
            r = cap if r > cap else r
            row[i + j] = -cap if r < -cap else r
        for j in range(np.uint64(n)):
            eff[j] = min(least, worth[j])
        held -= abs(corr[base]) > cap
        row[i] = 1.0
        base += m
    _mirror(out_corr)
    return held


@kernel("f8(f8[:,::1])")
def pool_kappa(fourth: np.ndarray) -> float:
    """Return excess kurtosis / 3 over all symbols.

        kappa = sum_i F_i / (3 sum_i G_i) - 1,   0 where nothing was observed

    Parameters
    ----------
    fourth : (2, n)
        F and G: sums of z^4 and of ones, below 1e12.

    Notes
    -----
    O(n). Summed in whole multiples of 2^-10, of which no order of the symbols shows.
    """
    powers, counts = np.int64(0), np.int64(0)
    for i in range(fourth.shape[1]):
        powers += np.int64(fourth[0, i] * 1024.0)
        counts += np.int64(fourth[1, i] * 1024.0)
    return powers / (3.0 * counts) - 1.0 if counts > 0 else 0.0


@kernel("void(f8[:,::1], f8[:,:,::1])")
def unfold_triangles(packed: np.ndarray, out_square: np.ndarray) -> None:
    """Write packed triangles out as symmetric matrices.

        out_ij = out_ji = packed_ij

    Parameters
    ----------
    packed : (k, n (n + 1) / 2)
        Triangles.
    out_square : (k, n, n), overwritten
        Matrices.
    """
    n = out_square.shape[1]
    for t in range(packed.shape[0]):
        p = 0
        for i in range(n):
            for j in range(i, n):
                out_square[t, i, j] = packed[t, p]
                out_square[t, j, i] = packed[t, p]
                p += 1
