"""Ranks among past scores, and the chains of bets that are made on them."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

LOG_MAX = 300.0  # a chain is held below e^300: sums of chains stay finite
TAIL = 0.02425  # beyond this the quantile is computed from the logarithm
NEAREST = 1e-12  # probabilities are held this far from 0 and 1


@kernel("f8(f8)")
def normal_quantile(p: float) -> float:
    """Return x with Phi(x) = p, to 1.2e-9 of itself; p is held within [1e-12, 1 - 1e-12].

    References
    ----------
    Acklam (2003), "An algorithm for computing the inverse normal cumulative distribution".
    """
    p = min(1.0 - NEAREST, max(NEAREST, p))
    tail = min(p, 1.0 - p)
    if tail < TAIL:
        q = math.sqrt(-2.0 * math.log(tail))
        top = -7.784894002430293e-03 * q - 3.223964580411365e-01
        top = (top * q - 2.400758277161838e00) * q - 2.549732539343734e00
        top = (top * q + 4.374664141464968e00) * q + 2.938163982698783e00
        bottom = 7.784695709041462e-03 * q + 3.224671290700398e-01
        bottom = (bottom * q + 2.445134137142996e00) * q + 3.754408661907416e00
        x = top / (bottom * q + 1.0)
        return x if p < 0.5 else -x
    q = p - 0.5
    r = q * q
    top = -3.969683028665376e01 * r + 2.209460984245205e02
    top = (top * r - 2.759285104469687e02) * r + 1.383577518672690e02
    top = (top * r - 3.066479806614716e01) * r + 2.506628277459239e00
    bottom = -5.447609879822406e01 * r + 1.615858368580409e02
    bottom = (bottom * r - 1.556989798598866e02) * r + 6.680131188771972e01
    bottom = (bottom * r - 1.328068155288572e01) * r + 1.0
    return top * q / bottom


@kernel("i8(f8[::1], i8, f8, i8)")
def _bound(ordered: np.ndarray, size: int, value: float, after: int) -> int:
    # where a value belongs among the first entries: before (0) or after (1) its equals
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value or (after == 1 and ordered[middle] == value):
            low = middle + 1
        else:
            high = middle
    return low


@kernel("void(f8[::1], f8[::1], i8, f8[:,::1], f8[:,::1], f8[::1])")
def rank_scores(
    scores: np.ndarray,
    uniforms: np.ndarray,
    seen: int,
    ordered: np.ndarray,
    in_time: np.ndarray,
    out_normal: np.ndarray,
) -> None:
    """Rank s scores, each among the past ones of its kind, and remember them.

        p = (#{past > s} + U (#{past = s} + 1)) / (#past + 1);   x = -Phi^-1(p)

    Where scores are exchangeable p is exactly uniform, and independent of the p before it.

    Parameters
    ----------
    scores : (s,)
        Large ones speak for the alternative.
    uniforms : (s,)
        U, in (0, 1).
    seen
        Scores of each kind so far.
    ordered : (s, m), changed in place
        The last m past scores, ascending; of the first min(seen, m) alone.
    in_time : (s, m), changed in place
        The same, the one with number k at place k mod m.
    out_normal : (s,), overwritten
        x: large where the score is.

    Notes
    -----
    O(log m) to rank and O(m) to insert, which moves m / 2 numbers.

    References
    ----------
    Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World, eq. 2.20.
    """
    kinds, most = ordered.shape
    size = min(seen, most)
    place = seen % most
    for s in range(kinds):
        row, score = ordered[s], scores[s]
        first, last = _bound(row, size, score, 0), _bound(row, size, score, 1)
        p = (size - last + uniforms[s] * (last - first + 1)) / (size + 1)
        out_normal[s] = -normal_quantile(p)
        left = size
        if size == most:  # the oldest goes
            gone = _bound(row, size, in_time[s, place], 0)
            left = size - 1
            for k in range(gone, left):
                row[k] = row[k + 1]
            last = last - 1 if gone < last else last
        for k in range(left, last, -1):
            row[k] = row[k - 1]
        row[last] = score
        in_time[s, place] = score


@kernel("f8(f8[::1], f8[::1], f8[::1], f8[:,::1])")
def fold_bets(
    normal: np.ndarray, inflation: np.ndarray, slopes: np.ndarray, chains: np.ndarray
) -> float:
    """Move one Shiryaev-Roberts chain for each kind of score and slope, and return their mean.

        e = exp(l x - l^2 V / 2);   M <- (M + 1) e

    Parameters
    ----------
    normal : (s,)
        x, standard normal where nothing has changed; NaN: the chains of that kind stand still.
    inflation : (s,)
        V: long-run variance of x; 1 where rows are independent.
    slopes : (k,)
        l.
    chains : (s, k), changed in place
        M, held below e^300.

    Notes
    -----
    With V = 1 and independent x each e has mean one, M_t - t is a martingale, and so is the mean
    of the chains: the time until it reaches A is at least A on average.

    References
    ----------
    Shiryaev (1963), Roberts (1966); Shin, Ramdas and Rinaldo (2024), e-detectors, New England
    Journal of Statistics in Data Science 2, section 3.
    """
    kinds, k = chains.shape
    most = math.exp(LOG_MAX)
    total = 0.0
    for s in range(kinds):
        for j in range(k):
            if not np.isnan(normal[s]):
                step = slopes[j] * (normal[s] - 0.5 * slopes[j] * inflation[s])
                chains[s, j] = min(most, (chains[s, j] + 1.0) * math.exp(step))
            total += chains[s, j]
    mean: float = total / (kinds * k)
    return mean


@kernel("f8(f8[::1], f8[::1], f8[:,::1])")
def fold_wagers(log_ratios: np.ndarray, stakes: np.ndarray, chains: np.ndarray) -> float:
    """Move one Shiryaev-Roberts chain for each alternative and stake, and return their mean.

        M <- (M + 1) (1 - w + w L)

    Parameters
    ----------
    log_ratios : (s,)
        ln L; a bet is held below e^300.
    stakes : (k,)
        w, in (0, 1).
    chains : (s, k), changed in place
        M, held below e^300.

    Notes
    -----
    Where L has mean one so has the bet: as ``fold_bets`` with V = 1.

    References
    ----------
    Waudby-Smith and Ramdas (2024), Journal of the Royal Statistical Society B 86.
    """
    kinds, k = chains.shape
    most = math.exp(LOG_MAX)
    total = 0.0
    for s in range(kinds):
        ratio = math.exp(min(LOG_MAX, log_ratios[s]))
        for j in range(k):
            bet = 1.0 - stakes[j] + stakes[j] * ratio
            chains[s, j] = min(most, (chains[s, j] + 1.0) * min(most, bet))
            total += chains[s, j]
    mean: float = total / (kinds * k)
    return mean


@kernel("f8(f8[::1], i8)")
def long_run_variance(x: np.ndarray, lags: int) -> float:
    """Return how much more a sum of x varies than if its rows were independent.

        V = 1 + 2 sum_{h < H} (1 - h / H) c_h / c_0,   c_h = sum_t (x_t - m)(x_{t-h} - m)

    Parameters
    ----------
    x : (t,)
        In time order.
    lags
        H, at least 1.

    Returns
    -------
    float
        1 where x is constant.

    References
    ----------
    Newey and West (1987), Econometrica 55, eq. 5: weights of Bartlett.
    """
    t = x.size
    mean = 0.0
    for k in range(t):
        mean += x[k]
    mean /= t
    own = 0.0
    for k in range(t):
        own += (x[k] - mean) * (x[k] - mean)
    if own == 0.0:
        return 1.0
    ratio = 1.0
    for h in range(1, min(lags, t)):
        cross = 0.0
        for k in range(h, t):
            cross += (x[k] - mean) * (x[k - h] - mean)
        ratio += 2.0 * (1.0 - h / lags) * cross / own
    return ratio


@kernel("void(f8[::1], f8[:,::1])")
def unpack_rows(packed: np.ndarray, out_square: np.ndarray) -> None:
    """Write a packed triangle to the upper one of a matrix; the lower one is left alone.

    Parameters
    ----------
    packed : (n (n + 1) / 2,)
        Row by row, diagonal included.
    out_square : (n, n), overwritten above the diagonal and on it
        Of which a factorisation needs no more.
    """
    n = out_square.shape[0]
    base = np.uint64(0)
    for i_signed in range(n):
        i = np.uint64(i_signed)
        m = np.uint64(n) - i
        row = out_square[i]
        for j in range(m):
            row[i + j] = packed[base + j]
        base += m
