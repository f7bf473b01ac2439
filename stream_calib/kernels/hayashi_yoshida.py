"""Covariance of prices that tick at different times: every product of overlapping returns, once.

With r_i(u) the return of i over (s, u] from one of its ticks to the next, and h the half-life

    cov_ij = sum over (s, u] of i and (s', u'] of j that overlap of
             2^(-(now - max(u, u')) / h) r_i(u) r_j(u')

A pair of intervals is known to overlap when the later one ends. By then the earlier returns of
j inside the interval of i add up to how far j has come since i last ticked, so that a tick is
one row of work, not a search.
"""

import numpy as np

from stream_calib.kernels._jit import kernel
from stream_calib.values import NO_TIME


@kernel("void(f8[::1], f8[::1], f8[::1], f8, f8, f8[::1])")
def _fold_row(
    price_then: np.ndarray,
    price: np.ndarray,
    half_return: np.ndarray,
    r: float,
    decay: float,
    products: np.ndarray,
) -> None:
    # one tick of one asset: its return times how far every other came since its last tick
    for j in range(products.size):
        moved = (price[j] - price_then[j]) + half_return[j]
        products[j] = decay * products[j] + r * moved


@kernel("f8(i8, i8, f8)")
def _decay(last_ns: int, now_ns: int, half_life_ns: float) -> float:
    decay: float = 2.0 ** (-float(now_ns - last_ns) / half_life_ns)
    return decay


@kernel(
    "void(i8[::1], i8, f8, f8[::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], i8[::1], f8[::1],"
    " f8[::1])"
)
def _fold_instant(
    ticking: np.ndarray,
    now_ns: int,
    half_life_ns: float,
    price: np.ndarray,
    price_then: np.ndarray,
    products: np.ndarray,
    lagged: np.ndarray,
    last_return: np.ndarray,
    last_ns: np.ndarray,
    pending: np.ndarray,
    half_return: np.ndarray,
) -> None:
    # All ticks of one instant: of the assets ``ticking``, to the prices ``pending``. Of two that
    # tick together each counts half of r_i r_j; the row of an asset sees no other row, so that
    # their order cannot show. ``half_return`` is zero before and after.
    for i in ticking:
        if last_ns[i] == NO_TIME:
            # where it was before its first tick is unknown: nobody shall see it come from there
            price[i] = pending[i]
            for j in range(price.size):
                if last_ns[j] != NO_TIME:
                    price_then[j, i] = pending[i]
            last_ns[i] = now_ns
        half_return[i] = 0.5 * (pending[i] - price[i])
    for i in ticking:
        r = 2.0 * half_return[i]
        decay = _decay(last_ns[i], now_ns, half_life_ns)
        _fold_row(price_then[i], price, half_return, r, decay, products[i])
        lagged[i] = decay * lagged[i] + r * last_return[i]
        last_return[i] = r
        last_ns[i] = now_ns
    for i in ticking:
        price[i] = pending[i]
        pending[i] = np.nan
        half_return[i] = 0.0
    for i in ticking:
        price_then[i, :] = price


@kernel(
    "void(i8[::1], i8[::1], f8[::1], f8,"
    " f8[::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], i8[::1], f8[::1], i8[::1])"
)
def fold_ticks(
    time_ns: np.ndarray,
    asset: np.ndarray,
    log_price: np.ndarray,
    half_life_ns: float,
    price: np.ndarray,
    price_then: np.ndarray,
    products: np.ndarray,
    lagged: np.ndarray,
    last_return: np.ndarray,
    last_ns: np.ndarray,
    pending: np.ndarray,
    now_ns: np.ndarray,
) -> None:
    """Fold m ticks into the sums of overlapping returns.

        on a tick of i with return r_i:  A_ij <- d A_ij + r_i (P_j - S_ij + r_j / 2)  for every j
                                         G_i  <- d G_i + r_i r_i'
        then                             P_i  <- its new price;  S_ij <- P_j  for every j

    S_ij is the price of j when i last ticked, r_i' the return of i before r_i, and r_j the
    return of j if it ticks at the same instant, else 0. d = 2^(-(time since i last ticked) / h).
    The covariance is A + A'. Ticks of one instant are folded together once a later one follows;
    of several ticks of one asset at one instant the last counts: the time between them is none.

    Parameters
    ----------
    time_ns, asset, log_price : (m,)
        Ticks, times not descending and not before ``now_ns``.
    half_life_ns
        h; infinite for no decay.
    price : (n,), changed in place
        P, the last log price, 0 before the first.
    price_then, products : (n, n), changed in place
        S and A.
    lagged, last_return : (n,), changed in place
        G and the last return.
    last_ns : (n,), changed in place
        Time of the last tick, NO_TIME before the first.
    pending : (n,), changed in place
        Log prices of the instant that is not over; NaN for none.
    now_ns : (1,), changed in place
        That instant.

    Notes
    -----
    O(n) per tick, and O(n) per call. Differences of prices are taken first, so that no digits
    are lost however many ticks are folded.

    References
    ----------
    Hayashi and Yoshida (2005), On covariance estimation of non-synchronously observed diffusion
    processes, Bernoulli 11(2), 359-379, there as the double sum of the heading.
    """
    half_return = np.zeros(price.size)
    ticking = np.empty(price.size, dtype=np.int64)
    m = 0
    for i in range(pending.size):
        if pending[i] == pending[i]:
            ticking[m] = i
            m += 1
    for t in range(time_ns.size):
        if time_ns[t] != now_ns[0]:
            _fold_instant(
                ticking[:m],
                now_ns[0],
                half_life_ns,
                price,
                price_then,
                products,
                lagged,
                last_return,
                last_ns,
                pending,
                half_return,
            )
            now_ns[0] = time_ns[t]
            m = 0
        i = asset[t]
        if pending[i] != pending[i]:
            ticking[m] = i
            m += 1
        pending[i] = log_price[t]


@kernel(
    "void(f8, f8[::1], f8[:,::1], f8[:,::1], f8[::1], f8[::1], i8[::1], f8[::1],"
    " i8[::1], f8[:,::1], f8[::1])"
)
def read_covariance(
    half_life_ns: float,
    price: np.ndarray,
    price_then: np.ndarray,
    products: np.ndarray,
    lagged: np.ndarray,
    last_return: np.ndarray,
    last_ns: np.ndarray,
    pending: np.ndarray,
    now_ns: np.ndarray,
    out_cov: np.ndarray,
    out_lagged: np.ndarray,
) -> None:
    """Read the covariance off the sums, as it is once the present instant is over.

        cov_ij = d_i A_ij + d_j A_ji;   lagged_i = d_i G_i;   d_i = 2^(-(now - last tick of i) / h)

    Parameters
    ----------
    half_life_ns, price, price_then, products, lagged, last_return, last_ns, pending, now_ns
        As ``fold_ticks`` left them.
    out_cov : (n, n), overwritten
        Symmetric; the variances are sums of squared returns.
    out_lagged : (n,), overwritten
        Sums of products of one return and the next.

    Notes
    -----
    O(n^2).
    """
    n = price.size
    half_return = np.zeros(n)
    for i in range(n):
        if pending[i] == pending[i] and last_ns[i] != NO_TIME:
            half_return[i] = 0.5 * (pending[i] - price[i])
    for i in range(n):
        r = 2.0 * half_return[i]
        decay = 1.0 if last_ns[i] == NO_TIME else _decay(last_ns[i], now_ns[0], half_life_ns)
        out_cov[i] = products[i]
        _fold_row(price_then[i], price, half_return, r, decay, out_cov[i])
        out_lagged[i] = decay * lagged[i] + r * last_return[i]
    for i in range(n):
        for j in range(i, n):
            both = out_cov[i, j] + out_cov[j, i]
            out_cov[i, j] = both
            out_cov[j, i] = both
