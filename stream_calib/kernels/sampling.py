"""Ticks to bars: the last price of each bar, and the return since the bar before it."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel
from stream_calib.values import FACTOR, OFFSET, TICK

LOG, SIMPLE, DIFF = 0, 1, 2
RETURN_MAX = 1e100  # what is larger is no return, and its square would end every sum it enters


@kernel("f8(f8, f8, i8)")
def _return(old: float, new: float, return_type: int) -> float:
    if return_type == DIFF:
        return new - old
    if not (old > 0.0 and new > 0.0):  # an offset can bring a price below zero
        return np.nan
    return math.log(new / old) if return_type == LOG else new / old - 1.0


@kernel("void(i1, f8, i8, f8[::1], i8[::1], f8[::1])")
def _adjust(
    kind: int,
    value: float,
    i: int,
    last_price: np.ndarray,
    last_bar: np.ndarray,
    current: np.ndarray,
) -> None:
    if kind == FACTOR:
        last_price[i] *= value
        current[i] *= value
    elif kind == OFFSET:
        last_price[i] += value
        current[i] += value
    else:
        last_price[i] = np.nan
        last_bar[i] = -1
        current[i] = np.nan


@kernel(
    "i8(i8[::1], i8[::1], f8[::1], i8[::1], i1[::1], i8[::1], i8, i8, i8[::1],"
    " f8[::1], i8[::1], i8[::1], i8[::1], f8[:,::1], f8[:,::1], f8[:,::1])"
)
def sample_bars(
    time_ns: np.ndarray,
    asset: np.ndarray,
    price: np.ndarray,
    ident: np.ndarray,
    kind: np.ndarray,
    bars: np.ndarray,
    bar_ns: int,
    stale_bars: int,
    return_type: np.ndarray,
    last_price: np.ndarray,
    last_bar: np.ndarray,
    last_time_ns: np.ndarray,
    last_ident: np.ndarray,
    out_returns: np.ndarray,
    out_exposure: np.ndarray,
    out_age: np.ndarray,
) -> int:
    """Sample the last price of each bar and take returns between observed bars.

        r_i(b) = ln(P_i(b) / P_i(b'))   with b' the last bar before b in which i ticked
        w_i(b) = b - b'                 bars spanned; not observed when over ``stale_bars``,
                                        nor when the return is beyond RETURN_MAX
        a_i(b) = (end of b - time of the last tick in b) / bar_ns

    A control row adjusts the prices before it: FACTOR multiplies them, OFFSET is added, RESET
    forgets them.

    Parameters
    ----------
    time_ns, asset, price, ident, kind : (m,)
        Ticks in total order; bar b holds the times in [b bar_ns, (b + 1) bar_ns).
    bars : (k,)
        Ascending bar numbers to sample; every tick lies in one of them.
    return_type : (n,)
        LOG, SIMPLE or DIFF.
    last_price, last_bar, last_time_ns, last_ident : (n,), changed in place
        Price and bar of the last observation (NaN, -1 for none) and the last tick's marks.
    out_returns, out_exposure, out_age : (k, n), overwritten
        NaN, 0 and NaN where not observed.

    Returns
    -------
    int
        Ticks that repeat their predecessor of the same symbol exactly.
    """
    n = last_price.size
    current = np.empty(n)
    made_ns = np.empty(n, np.int64)
    duplicates = 0
    t = 0
    for k in range(bars.size):
        bar = bars[k]
        for i in range(n):
            current[i] = np.nan
            out_returns[k, i] = np.nan
            out_exposure[k, i] = 0.0
            out_age[k, i] = np.nan
        end_ns = (bar + 1) * bar_ns
        while t < time_ns.size and time_ns[t] < end_ns:
            i = asset[t]
            if kind[t] != TICK:
                _adjust(kind[t], price[t], i, last_price, last_bar, current)
                t += 1
                continue
            before = current[i] if current[i] == current[i] else last_price[i]
            if time_ns[t] == last_time_ns[i] and price[t] == before and ident[t] == last_ident[i]:
                duplicates += 1
            last_time_ns[i] = time_ns[t]
            last_ident[i] = ident[t]
            current[i] = price[t]
            made_ns[i] = time_ns[t]
            t += 1
        for i in range(n):
            new = current[i]
            if new != new:
                continue
            old = last_price[i]
            span = bar - last_bar[i]
            out_age[k, i] = (end_ns - made_ns[i]) / bar_ns
            if last_bar[i] >= 0 and span <= stale_bars:
                r = _return(old, new, return_type[i])
                if abs(r) <= RETURN_MAX:
                    out_returns[k, i] = r
                    out_exposure[k, i] = span
            last_price[i] = new
            last_bar[i] = bar
    return duplicates
