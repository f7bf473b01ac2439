"""Ticks to bars: the last price of each bar, and the return since the bar before it."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

LOG, SIMPLE, DIFF = 0, 1, 2
RETURN_MAX = 1e100  # what is larger is no return, and its square would end every sum it enters


@kernel(
    "i8(i8[::1], i8[::1], f8[::1], i8[::1], i8[::1], i8, i8, i8,"
    " f8[::1], i8[::1], i8[::1], i8[::1], f8[:,::1], f8[:,::1])"
)
def sample_bars(
    time_ns: np.ndarray,
    asset: np.ndarray,
    price: np.ndarray,
    ident: np.ndarray,
    bars: np.ndarray,
    bar_ns: int,
    stale_bars: int,
    return_type: int,
    last_price: np.ndarray,
    last_bar: np.ndarray,
    last_time_ns: np.ndarray,
    last_ident: np.ndarray,
    out_returns: np.ndarray,
    out_exposure: np.ndarray,
) -> int:
    """Sample the last price of each bar and take returns between observed bars.

        r_i(b) = ln(P_i(b) / P_i(b'))   with b' the last bar before b in which i ticked
        w_i(b) = b - b'                 bars spanned; not observed when over ``stale_bars``,
                                        nor when the return is beyond RETURN_MAX

    Parameters
    ----------
    time_ns, asset, price, ident : (m,)
        Ticks in total order; bar b holds the times in [b bar_ns, (b + 1) bar_ns).
    bars : (k,)
        Ascending bar numbers to sample; every tick lies in one of them.
    return_type
        LOG, SIMPLE or DIFF.
    last_price, last_bar, last_time_ns, last_ident : (n,), changed in place
        Price and bar of the last observation (NaN, -1 for none) and the last tick's marks.
    out_returns, out_exposure : (k, n), overwritten
        NaN and 0 where not observed.

    Returns
    -------
    int
        Ticks that repeat their predecessor of the same symbol exactly.
    """
    n = last_price.size
    current = np.empty(n)
    duplicates = 0
    t = 0
    for k in range(bars.size):
        bar = bars[k]
        for i in range(n):
            current[i] = np.nan
            out_returns[k, i] = np.nan
            out_exposure[k, i] = 0.0
        end_ns = (bar + 1) * bar_ns
        while t < time_ns.size and time_ns[t] < end_ns:
            i = asset[t]
            before = current[i] if current[i] == current[i] else last_price[i]
            if time_ns[t] == last_time_ns[i] and price[t] == before and ident[t] == last_ident[i]:
                duplicates += 1
            last_time_ns[i] = time_ns[t]
            last_ident[i] = ident[t]
            current[i] = price[t]
            t += 1
        for i in range(n):
            new = current[i]
            if new != new:
                continue
            old = last_price[i]
            span = bar - last_bar[i]
            if last_bar[i] >= 0 and span <= stale_bars:
                if return_type == LOG:
                    r = math.log(new / old)
                elif return_type == SIMPLE:
                    r = new / old - 1.0
                else:
                    r = new - old
                if abs(r) <= RETURN_MAX:
                    out_returns[k, i] = r
                    out_exposure[k, i] = span
            last_price[i] = new
            last_bar[i] = bar
    return duplicates
