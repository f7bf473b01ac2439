"""Squared returns by time of the trading day, folded day by day."""

import numpy as np

from stream_calib.kernels._jit import kernel

RATIO_MAX = 10.0  # of what was expected of a bin; one jump must not shape its hour for weeks
FACTOR_MIN = 0.05  # a smooth curve through noise may dip below zero


@kernel(
    "void(i8, f8[:,::1], f8, f8, f8, f8[:,::1], i8[::1], f8[::1], f8[:,:,::1], f8[:,::1], f8[::1])"
)
def _close_day(
    i: int,
    days: np.ndarray,
    decay: float,
    days_min: float,
    days_full: float,
    smoother: np.ndarray,
    first: np.ndarray,
    share: np.ndarray,
    sums: np.ndarray,
    factor: np.ndarray,
    raw: np.ndarray,
) -> None:
    # folds the finished day of one symbol, clears it, and draws the curve anew
    n_bins = share.size
    squares, spans, today, spans_today = sums[0, i], sums[1, i], sums[2, i], sums[3, i]
    expected = total = 0.0
    for b in range(n_bins):
        expected += factor[i, b] * spans_today[b]
        total += today[b]
    seen = min(1.0, days[1, i] / n_bins)
    days[1, i] = 0.0
    if expected > 0.0 and total > 0.0:
        bound = RATIO_MAX * total / expected
        total = 0.0
        for b in range(n_bins):
            total += min(today[b], bound * factor[i, b] * spans_today[b])
        level = total / expected
        for b in range(n_bins):
            held = min(today[b], RATIO_MAX * level * factor[i, b] * spans_today[b])
            squares[b] = decay * squares[b] + held / level
            spans[b] = decay * spans[b] + spans_today[b]
        days[0, i] += seen
    today[:] = 0.0
    spans_today[:] = 0.0
    trust = min(1.0, max(0.0, (days[0, i] - days_min) / (days_full - days_min)))
    if trust == 0.0:
        return
    mean = 0.0
    for b in range(n_bins):
        raw[b] = squares[b] / spans[b] if spans[b] > 0.0 else 1.0
        mean += share[b] * raw[b]
    norm = 0.0
    for b in range(n_bins):
        smooth = 0.0
        for q in range(smoother.shape[1]):
            smooth += smoother[b, q] * raw[(first[b] + q) % n_bins]
        factor[i, b] = 1.0 + trust * (max(smooth / mean, FACTOR_MIN) - 1.0)
        norm += share[b] * factor[i, b]
    for b in range(n_bins):
        factor[i, b] /= norm


@kernel(
    "void(f8[:,::1], f8[:,::1], i8[::1], i8[::1], f8, i8, f8, f8, f8, f8[:,::1], i8[::1],"
    " f8[::1], i8[::1], f8[:,::1], f8[:,:,::1], f8[:,::1], f8[:,::1])"
)
def fold_days(
    returns: np.ndarray,
    exposure: np.ndarray,
    day: np.ndarray,
    place_ns: np.ndarray,
    bar_ns: float,
    bin_ns: int,
    decay: float,
    days_min: float,
    days_full: float,
    smoother: np.ndarray,
    first: np.ndarray,
    share: np.ndarray,
    last_day: np.ndarray,
    days: np.ndarray,
    sums: np.ndarray,
    factor: np.ndarray,
    out_factor: np.ndarray,
) -> None:
    """Fold k rows of n symbols of one calendar; a day counts once the next one has begun.

        X_b, W_b = sums of r^2 and of exposure over the day's returns whose middle is in bin b
        h  = sum_b min(X_b, c f_b W_b X / W) / W,   X = sum_b X_b, W = sum_b f_b W_b
        S_b <- d S_b + min(X_b, c h f_b W_b) / h;   T_b <- d T_b + W_b
        D  <- D + min(1, returns of the day / bins)
        f  = 1 + g (max(K (S / T) / mean, FACTOR_MIN) - 1), then divided by its mean,
             g = min(1, max(0, (D - days_min) / (days_full - days_min)))

    with c = RATIO_MAX, K the smoother, and means weighted by ``share``.

    Parameters
    ----------
    returns, exposure : (k, n)
        Returns, NaN where not observed, and the bars that each spans.
    day, place_ns : (k,)
        Trade date of each bar, -1 outside of sessions, and where in the trading day it ends.
    bar_ns, bin_ns
        Length of a bar and of a bin.
    decay
        Weight d on the past from one day to the next.
    smoother, first : (n_bins, q) and (n_bins,)
        Row b of K holds the weights of bins first[b], first[b] + 1, ..., around the end.
    share : (n_bins,)
        Length of each bin as a share of the trading day.
    last_day : (1,), changed in place
        Trade date of the last bar, -1 before the first.
    days : (2, n), changed in place
        D, and returns of the unfinished day.
    sums : (4, n, n_bins), changed in place
        S, T, X and W.
    factor : (n, n_bins), changed in place
        f, of what finished days say.
    out_factor : (k, n), overwritten
        f of the bin in which each return has its middle, or the bar where there is none; 1
        outside of sessions.

    References
    ----------
    Engle and Sokalska (2012), "Forecasting intraday volatility in the US equity market".
    """
    n, n_bins = factor.shape
    raw = np.empty(n_bins)
    for t in range(returns.shape[0]):
        if day[t] < 0:
            out_factor[t] = 1.0
            continue
        if day[t] > last_day[0]:
            if last_day[0] >= 0:
                for i in range(n):
                    _close_day(
                        i,
                        days,
                        decay,
                        days_min,
                        days_full,
                        smoother,
                        first,
                        share,
                        sums,
                        factor,
                        raw,
                    )
            last_day[0] = day[t]
        for i in range(n):
            r, w = returns[t, i], exposure[t, i]
            observed = r == r and w > 0.0
            middle_ns = place_ns[t] - 0.5 * bar_ns * (w if observed else 1.0)
            b = min(max(int(middle_ns // bin_ns), 0), n_bins - 1)
            out_factor[t, i] = factor[i, b]
            if observed and middle_ns >= 0.0:  # else from another session
                sums[2, i, b] += r * r
                sums[3, i, b] += w
                days[1, i] += 1.0
