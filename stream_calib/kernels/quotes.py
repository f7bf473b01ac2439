"""Partial quotes put together per symbol, and the price that they make."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

LAST, MID, MICROPRICE = 0, 1, 2
PRICED, UNUSED, CROSSED, SPREAD = 0, 1, 2, 3
WARM_SPREADS = 10  # so many spreads make a median that others are refused by


@kernel("void(f8, u8, f8[:,:,::1], i8[:,::1])")
def _learn(new: float, i: np.uint64, windows: np.ndarray, counts: np.ndarray) -> None:
    # Puts a spread into the ring and the sorted window, and takes the oldest out; as for moves
    # in kernels/filtering, in one pass without branches. What is no spread changes nothing.
    k = windows.shape[2] - 1
    at = counts[1, i]
    old = windows[0, i, at]
    is_spread = 0.0 < new < math.inf
    new = new if is_spread else old
    step = 1 if is_spread else 0
    counts[0, i] = min(counts[0, i] + step, k)
    counts[1, i] = at + step if at + step < k else 0
    windows[0, i, at] = new
    one = np.uint64(1)
    before = -math.inf
    for j in range(np.uint64(k)):
        x = windows[1, i, j]
        below = before if before < old else x
        above = x if x < old else windows[1, i, j + one]
        windows[1, i, j] = max(below, min(new, above))
        before = x


@kernel("void(f8, f8, i8, u8, i8, f8[:,:,::1])")
def _merge(
    price: float, size: float, side: int, i: np.uint64, signed: int, tables: np.ndarray
) -> None:
    # One side of a row into both tables: what is NaN changes nothing.
    for of in range(2):
        if price == price:
            gone = (price == 0.0 and size == 0.0) if signed else price <= 0.0
            tables[of, side, i] = np.nan if gone else price
            if gone:
                tables[of, 2 + side, i] = np.nan
                continue
        if size == size and tables[of, side, i] == tables[of, side, i]:
            tables[of, 2 + side, i] = size


@kernel(
    "void(i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], i8, i8, f8,"
    " f8[:,:,::1], f8[:,:,::1], i8[:,::1], f8[::1], i1[::1])"
)
def price_ticks(
    asset: np.ndarray,
    price: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    bid_size: np.ndarray,
    ask_size: np.ndarray,
    policy: int,
    signed: int,
    spread_max: float,
    tables: np.ndarray,
    windows: np.ndarray,
    counts: np.ndarray,
    out_price: np.ndarray,
    out_code: np.ndarray,
) -> None:
    """Merge each row into its symbol's quote, and price the quote.

        LAST        the trade price
        MID         (b + a) / 2
        MICROPRICE  b + (a - b) v / (v + w)   b, v price and size of the bid, a, w of the ask;
                                              MID unless v > 0 and w > 0
        limit = spread_max median of the last k spreads a - b > 0 that were quoted, infinite
                before WARM_SPREADS of them

    Two tables: what was quoted, and what is believed. Both take the row in; then, in this order:
    what was quoted is believed if 0 <= a - b <= limit; a quote that lacks a side is UNUSED, one
    with b > a is CROSSED, and one with a - b > limit is SPREAD and not believed.

    Parameters
    ----------
    asset, price, bid, ask, bid_size, ask_size : (m,)
        In total order; NaN for what a row does not carry. With LAST only ``price`` is read.
    signed
        0: a side at a price of 0 (or less) is not there. 1: it is not there if its size is 0 too.
    tables : (2, 4, n), changed in place
        Quoted and believed: bid, ask, bid size, ask size; NaN for what is not known.
    windows : (2, n, k + 1), changed in place
        Ring of the last k spreads, and the same sorted; infinite where empty and at the end.
    counts : (2, n), changed in place
        Spreads known, up to k; place of the next one in the ring.
    out_price : (m,), overwritten
        NaN where not PRICED.
    out_code : (m,), overwritten
        PRICED, UNUSED, CROSSED or SPREAD.

    Notes
    -----
    O(k) per quote. The median is the upper one: entry floor(size / 2) of the sorted spreads.

    References
    ----------
    Barndorff-Nielsen, Hansen, Lunde and Shephard (2009), Realized kernels in practice: trades
    and quotes, Econometrics Journal 12, C1-C32, rules P2, Q2 and Q3 (50 median spreads).
    """
    for t in range(asset.size):
        i = np.uint64(asset[t])
        out_code[t] = UNUSED
        out_price[t] = np.nan
        if policy == LAST:
            if abs(price[t]) < math.inf:
                out_code[t] = PRICED
                out_price[t] = price[t]
            continue
        carries = bid[t] == bid[t] or ask[t] == ask[t]
        if not (carries or bid_size[t] == bid_size[t] or ask_size[t] == ask_size[t]):
            continue
        known = counts[0, i]
        limit = spread_max * windows[1, i, known // 2] if known >= WARM_SPREADS else math.inf
        was_bid, was_ask = tables[1, 0, i], tables[1, 1, i]
        was_bid_size, was_ask_size = tables[1, 2, i], tables[1, 3, i]
        _merge(bid[t], bid_size[t], 0, i, signed, tables)
        _merge(ask[t], ask_size[t], 1, i, signed, tables)
        quoted = tables[0, 1, i] - tables[0, 0, i]
        _learn(quoted, i, windows, counts)
        if 0.0 <= quoted <= limit:
            for column in range(4):
                tables[1, column, i] = tables[0, column, i]
        b, a = tables[1, 0, i], tables[1, 1, i]
        v, w = tables[1, 2, i], tables[1, 3, i]
        if a - b > limit:
            out_code[t] = SPREAD
            tables[1, 0, i], tables[1, 1, i] = was_bid, was_ask
            tables[1, 2, i], tables[1, 3, i] = was_bid_size, was_ask_size
        elif b > a:
            out_code[t] = CROSSED
        elif a == a and b == b:
            made = (b + a) * 0.5
            if policy == MICROPRICE and v > 0.0 and w > 0.0:
                made = b + (a - b) * (v / (v + w))
            if abs(made) < math.inf:
                out_code[t] = PRICED
                out_price[t] = made
