"""Bad ticks: far from what their symbol did, and taken back by its next tick."""

import math

import numpy as np

from stream_calib.kernels._jit import kernel

RELATIVE, ABSOLUTE = 0, 1
KEEP, HELD, CONFIRMED_LATE, OUTLIER = 0, 1, 2, 3
NONE, CONFIRMED, REFUTED = 0, 1, 2
WARM_MOVES = 10  # so many moves make a scale; before, a price need only be roughly right
RECALL = 8  # ticks after a jump in which its old level may come back at once
NORMAL = 0.8693011158689337  # from the upper quartile of |x| to the standard deviation of normal x
CARRIED = -2  # ends the chain of held rows when the first of them came in an earlier call


@kernel("void(f8, u8, f8[:,:,::1], i8[:,::1])")
def _learn(new: float, i: np.uint64, windows: np.ndarray, counts: np.ndarray) -> None:
    # Puts a move into the ring and the sorted window, and takes the oldest out: one pass
    # without a search and without branches, which vectorises and is three times as fast.
    k = windows.shape[2] - 1
    at = counts[2, i]
    old = windows[0, i, at]
    is_move = 0.0 < new < math.inf
    new = new if is_move else old  # the pass then changes nothing: faster than a way around it
    step = 1 if is_move else 0
    counts[1, i] = min(counts[1, i] + step, k)
    counts[2, i] = at + step if at + step < k else 0  # a remainder would cost as much as the pass
    windows[0, i, at] = new
    one = np.uint64(1)
    before = -math.inf
    for j in range(np.uint64(k)):
        x = windows[1, i, j]
        below = before if before < old else x  # these two as if old were gone
        above = x if x < old else windows[1, i, j + one]
        windows[1, i, j] = max(below, min(new, above))
        before = x


@kernel("void(f8, i8, u8, f8[:,:,::1], i8[:,::1], f8[:,::1])")
def _accept(
    x: float,
    deviation: int,
    i: np.uint64,
    windows: np.ndarray,
    counts: np.ndarray,
    level: np.ndarray,
) -> None:
    # The next accepted price of a symbol.
    last = level[0, i]
    level[0, i] = x
    if last != last:
        return
    counts[0, i] = min(counts[0, i] + 1, windows.shape[2] - 1)
    counts[3, i] = max(counts[3, i] - 1, 0)
    level[1, i] += ((1.0 if x != last else 0.0) - level[1, i]) / counts[0, i]
    _learn(abs(x - last) / (last if deviation == RELATIVE else 1.0), i, windows, counts)


@kernel("b1(f8, u8, i8, f8, f8, f8, f8[:,:,::1], i8[:,::1], f8[:,::1])")
def _is_far(
    x: float,
    i: np.uint64,
    deviation: int,
    sigmas: float,
    grains: float,
    rough: float,
    windows: np.ndarray,
    counts: np.ndarray,
    level: np.ndarray,
) -> bool:
    p = level[0, i]
    if p != p:
        return rough < math.inf
    known = counts[1, i]
    m = windows[1, i, 3 * known // 4] if known > 0 else 0.0
    c = (sigmas * NORMAL * level[1, i] + grains) * m
    if known < WARM_MOVES:
        c = max(c, rough)
    if abs(x - p) <= (c * p if deviation == RELATIVE else c):
        return False
    b = level[2, i]
    recalled = counts[3, i] > 0 and abs(x - b) <= (c * b if deviation == RELATIVE else c)
    return not recalled


@kernel(
    "void(i8[::1], i8[::1], f8[::1], i8, i8, f8, f8, f8, f8, f8[:,:,::1], i8[:,::1],"
    " f8[:,::1], f8[::1], i8[:,::1], i1[::1], i1[::1])"
)
def judge_ticks(
    time_ns: np.ndarray,
    asset: np.ndarray,
    price: np.ndarray,
    bar_ns: int,
    deviation: int,
    sigmas: float,
    grains: float,
    reversal: float,
    rough: float,
    windows: np.ndarray,
    counts: np.ndarray,
    level: np.ndarray,
    held: np.ndarray,
    held_mark: np.ndarray,
    out_code: np.ndarray,
    out_resolved: np.ndarray,
) -> None:
    """Hold each tick that is far from its symbol's price until the symbol's next tick.

        d(x, y) = |x - y| / y   or |x - y|, by ``deviation``
        m = upper quartile of the last k moves d > 0;   f = share of the last ticks that moved
        c = (sigmas NORMAL f + grains) m;   at least ``rough`` before WARM_MOVES moves
        x is far   if d(x, p) > c from the last accepted price p and, up to RECALL ticks after a
                   confirmed jump, d(x, b) > c from the price b before it
        a held h is an outlier   if (h - x) / (h - p) > reversal at the next tick x, else accepted

    Before the first accepted price any x is far, unless ``rough`` is infinite, and a held h is
    an outlier if d > rough between it and x, relative to the lower of the two. What has the
    time and the price of a held tick joins it. The move to an outlier counts among the moves.
    The quartile is entry floor(3 size / 4) of the sorted moves.

    Parameters
    ----------
    time_ns, asset, price : (m,)
        Ticks in total order. What is not finite, or not positive with RELATIVE, is an
        outlier and touches nothing.
    deviation
        RELATIVE or ABSOLUTE.
    bar_ns
        A held tick is kept only when the tick that confirms it is of the same bar.
    windows : (2, n, k + 1), changed in place
        Ring of the last k moves, and the same sorted; infinite where empty and at the end.
    counts : (4, n), changed in place
        Accepted steps and moves known, both up to k; place of the next move in the ring; ticks
        that b is still good for.
    level : (3, n), changed in place
        p, NaN before the first; f; b.
    held : (n,), changed in place
        h, NaN for none.
    held_mark : (2, n), changed in place
        Time of h, and how many ticks it is with those that joined it.
    out_code : (m,), overwritten
        KEEP, HELD, CONFIRMED_LATE or OUTLIER.
    out_resolved : (n,), overwritten
        Of ticks held before this call: NONE, CONFIRMED or REFUTED.

    Notes
    -----
    O(k) per tick, in one pass over a contiguous window; O(n) per call.
    """
    relative = deviation == RELATIVE
    chain = np.empty(time_ns.size, np.int64)  # of a held row: the one that it joined
    newest = np.empty(held.size, np.int64)  # the row that joined last
    out_resolved[:] = NONE
    newest[:] = CARRIED
    for t in range(time_ns.size):
        i = np.uint64(asset[t])
        x = price[t] + 0.0  # no -0.0: equal prices have equal bits
        if not abs(x) < math.inf or (relative and x <= 0.0):
            out_code[t] = OUTLIER
            continue
        p = level[0, i]
        h = held[i]
        if h == h:
            if x == h and time_ns[t] == held_mark[0, i]:
                out_code[t] = HELD
                held_mark[1, i] += 1
                chain[t] = newest[i]
                newest[i] = t
                continue
            if p == p:
                wrong = h != p and (h - x) / (h - p) > reversal  # an offset may have made them one
            else:
                wrong = abs(x - h) > rough * (min(x, h) if relative else 1.0)
            late = time_ns[t] // bar_ns != held_mark[0, i] // bar_ns
            code = OUTLIER if wrong else (CONFIRMED_LATE if late else KEEP)
            if not wrong:
                for _ in range(held_mark[1, i]):
                    _accept(h, deviation, i, windows, counts, level)
                counts[3, i] = RECALL if p == p else 0
                level[2, i] = p
                p = h
            elif p == p:
                _learn(abs(h - p) / (p if relative else 1.0), i, windows, counts)
            row = newest[i]
            while row >= 0:
                out_code[row] = code
                row = chain[row]
            if row == CARRIED:
                out_resolved[i] = REFUTED if wrong else CONFIRMED
            held[i] = np.nan
            held_mark[:, i] = 0
        if _is_far(x, i, deviation, sigmas, grains, rough, windows, counts, level):
            out_code[t] = HELD
            held[i] = x
            held_mark[0, i] = time_ns[t]
            held_mark[1, i] = 1
            chain[t] = -1
            newest[i] = t
        else:
            out_code[t] = KEEP
            _accept(x, deviation, i, windows, counts, level)
