"""Two-scale sums as what they are: windows written out, summed over the past with their weights."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_calib.values import F64, I64

WARM_N_EFF = 30.0
Z2_MAX = 1e4
SQUARES_MIN = 1e-300
SAME_BARS = 1e-5


class Rows(NamedTuple):
    """Arguments of the fold: (m, n) three times, (n,), (m, G, G), (m,), (m, 2, G, G), (1, 2)."""

    returns: F64
    exposure: F64
    age: F64
    group: I64
    empty: I64
    elapsed: F64
    decay: F64
    decay_empty: F64


class Bars(NamedTuple):
    """Every bar, left out or not: windows (b, n), what happened in the bar alone; by group.

    ``moved`` (b, n): the symbol's market was open; ``seen`` and ``unseen`` (b, G, G) are NaN where
    two groups were not open together.
    """

    x: F64
    begin: F64
    end: F64
    x_1: F64
    span_1: F64
    moved: npt.NDArray[np.bool_]
    group: I64
    seen: F64
    unseen: F64


class Sums(NamedTuple):
    """What is left of all bars: three (n, n), ``own`` (4, n), ``fourth`` (2, n)."""

    products: F64
    overlaps: F64
    overlaps2: F64
    own: F64
    fourth: F64


class Known(NamedTuple):
    """What is read off the sums."""

    corr: F64
    n_eff: F64
    band: F64
    vol: F64
    capped: int
    raw: int
    floored: int


def fold_windows(rows: Rows, k: int) -> Sums:
    """Sum over all bars, each weighted by every decay that came after it."""
    bars = write_out(rows, k)
    n = bars.x.shape[1]
    products, overlaps, overlaps2 = np.zeros((3, n, n))
    sums = Sums(products, overlaps, overlaps2, np.zeros((4, n)), np.zeros((2, n)))
    span = bars.end - bars.begin
    for i in range(n):
        for j in range(n):
            seen, unseen = (d[:, rows.group[i], rows.group[j]] for d in (bars.seen, bars.unseen))
            at = ~np.isnan(seen)  # both markets were open
            shared = _shared(bars, i, j)[at]
            weight = _weights(np.where(shared > 0, seen[at], unseen[at]))
            x2, span2 = bars.x[at, i] * bars.x[at, j], span[at, i] * span[at, j]
            sums.products[i, j] = weight @ np.where(shared > 0, x2, 0.0)
            sums.overlaps[i, j] = weight @ shared
            sums.overlaps2[i, j] = weight**2 @ np.where(shared > 0, span2, 0.0)
        alone = _alone(bars, i)
        sums.own[:, i] = _own(alone, len(alone.x))
        sums.fourth[:, i] = _fourth_powers(alone, k)
    return sums


def write_out(rows: Rows, k: int) -> Bars:
    """Write the bars that were left out as bars without a tick, and every window as it is."""
    m, n = rows.returns.shape
    times = np.cumsum(rows.elapsed)
    kept = [
        (t, ahead)
        for t in range(m)
        for ahead in reversed(range(int(np.diagonal(rows.empty[t]).max()) + 1))
    ]
    decays = np.empty((len(kept), *rows.decay.shape[1:]))
    moved = np.zeros((len(kept), n), np.bool_)
    for b, (t, ahead) in enumerate(kept):
        step = rows.decay[t] if ahead == 0 else rows.decay_empty[0][:, None, None]
        decays[b] = np.where(ahead <= rows.empty[t], step, np.nan)
        moved[b] = ahead <= np.diagonal(rows.empty[t])[rows.group]
    x, begin, end, x_1, span_1 = np.zeros((5, len(kept), n))
    for i in range(n):
        bar_end = stamp = restart = 0.0
        stamps: list[float] = []  # after each bar of the symbol's own market
        x_own: list[float] = []
        since = 0  # its bars before this one are not connected
        for b in map(int, np.flatnonzero(moved[:, i])):
            row, ahead = kept[b]
            x_own.append(0.0)
            if ahead == 0 and not np.isnan(rows.age[row, i]):
                now, r = times[row], rows.returns[row, i]
                w = rows.exposure[row, i]
                observed = not np.isnan(r) and w > 0
                if not observed or abs(now - w - bar_end) > SAME_BARS:
                    restart = stamp = now - w if observed else now - rows.age[row, i]
                    since = len(stamps)
                if observed and now - rows.age[row, i] > stamp:
                    x_own[-1] = x_1[b, i] = r
                    span_1[b, i] = now - rows.age[row, i] - stamp
                    stamp = now - rows.age[row, i]
                bar_end = now
            stamps.append(stamp)
            last = len(stamps) - 1
            x[b, i] = sum(x_own[max(since, last - k + 1) :])
            begin[b, i] = restart if last - k < since else stamps[last - k]
            end[b, i] = stamp
    return Bars(x, begin, end, x_1, span_1, moved, rows.group, decays[:, 0], decays[:, 1])


def read_windows(sums: Sums, k: int, kappa: float, cap: float) -> Known:
    """Divide by the time in common and by variances without noise; add the delta method."""
    n = len(sums.products)
    corr, n_eff, band = np.eye(n), np.zeros((n, n)), np.full((n, n), np.nan)
    corr[~np.eye(n, dtype=bool)] = np.nan
    np.fill_diagonal(band, 0.0)
    f = (2 * k**2 + 1) / (3 * k)
    own = [_Own.of(sums, i, k) for i in range(n)]
    vol = np.array(
        [np.sqrt(o.v) if sums.overlaps2[i, i] > 0 else np.nan for i, o in enumerate(own)]
    )
    capped = 0
    for i in range(n):
        for j in range(n):
            scale = np.sqrt(own[i].v) * np.sqrt(own[j].v)
            if not sums.overlaps2[i, j] > 0 or (i != j and not scale > SQUARES_MIN):
                continue
            n_eff[i, j] = sums.overlaps[i, j] ** 2 / sums.overlaps2[i, j] / f
            if i == j or n_eff[i, j] == 0:
                continue
            raw = sums.products[i, j] / sums.overlaps[i, j] / scale
            corr[i, j] = np.clip(raw, -cap, cap)
            capped += int(abs(raw) > cap and i < j)
            in_common = np.sqrt(sums.overlaps[i, i] * sums.overlaps[j, j])
            a = np.clip(sums.overlaps[i, j] / in_common, 0.05, 1.0)
            widened = _widened(corr[i, j], a, own[i], own[j], f)
            band[i, j] = a * np.sqrt((1 + kappa) * widened / n_eff[i, j])
    states = [o.state for o in own]
    return Known(corr, n_eff, band, vol, capped, states.count("raw"), states.count("floored"))


class _Own(NamedTuple):
    # one symbol: variance, noise in a window, chance of a silent bar, share of span left, state
    v: float
    noise: float
    u: float
    s: float
    left: float
    state: str
    near: float
    g: float

    @classmethod
    def of(cls, sums: Sums, i: int, k: int) -> "_Own":
        squares, spans = sums.products[i, i], sums.overlaps[i, i]
        squares_1, spans_1, moved, moved_1 = sums.own[:, i]
        f = (2 * k**2 + 1) / (3 * k)
        if not spans > 0 or not moved > 0:
            return cls(0.0, 0.0, 0.0, 0.0, 1.0, "unknown", 0.0, 1.0)
        ratio = moved / moved_1 if moved_1 > 0 else np.inf
        v, left, noise, state = squares / spans, 1.0, 0.0, "raw"
        if spans - ratio * spans_1 >= 0.3 * spans:
            v, state = (squares - ratio * squares_1) / (spans - ratio * spans_1), ""
            left = 1 - ratio * spans_1 / spans
            if v < 0.1 * squares / spans:
                v, state = 0.1 * squares / spans, "floored"
            noise = max(0.0, (squares - v * spans) / moved)
        u = noise * moved / (v * spans) if v > SQUARES_MIN else 0.0
        s = np.clip(1 - moved_1 / moved, 0.0, 0.99)
        h = _hum(s) / f
        near = (1 - left) * (h - 2 * s / (k * f * (1 - s) ** 2))
        g = 1 + 2 * u * h - 2 * near + (1 - left) ** 2 * h + 1.5 * u**2 * _hum(s**2) / f
        return cls(v, noise, u, s, left, state, near, g)


def _hum(s: float) -> float:
    return (1 + s) / (1 - s)


def _widened(corr: float, a: float, i: _Own, j: _Own, f: float) -> float:
    """Variance of the correlation in units of that of uncorrelated, fully observed windows."""
    r2, lost = min(corr**2, 0.95**2), min(1 - a, 0.35)
    p, q = 1 - 3 * lost**2 + 4.5 * lost**3, 1 - 6 * lost**2 + 11.25 * lost**3
    uh = [o.u * _hum(o.s) / f for o in (i, j)]
    cov_own = 1 + sum(uh) + 1.5 * i.u * j.u * _hum(i.s * j.s) / f
    widened = (
        (cov_own + q * r2) / a**2
        - 2 * r2 * sum((p / a + h - o.near) / o.left for h, o in zip(uh, (i, j), strict=True))
        + r2 / 2 * (i.g / i.left**2 + j.g / j.left**2)
        + r2**2 * (q - a * (i.near + j.near)) / (i.left * j.left)
    )
    return float(max(widened, 0.5 * (1 - r2) ** 2))


def _shared(bars: Bars, i: int, j: int) -> F64:
    last = np.minimum(bars.end[:, i], bars.end[:, j])
    first = np.maximum(bars.begin[:, i], bars.begin[:, j])
    shared: F64 = np.maximum(last - first, 0.0)
    return shared


def _weights(decay: F64) -> F64:
    """Weight of each bar after the last one: the product of the later bars' decays."""
    return np.array([np.prod(decay[b + 1 :]) for b in range(len(decay))])


class _Alone(NamedTuple):
    # one symbol in the bars of its own market: windows, bars, and decays
    x: F64
    span: F64
    x_1: F64
    span_1: F64
    decay: F64


def _alone(bars: Bars, i: int) -> _Alone:
    at, g = bars.moved[:, i], bars.group[i]
    span = (bars.end - bars.begin)[at, i]
    decay = np.where(span > 0, bars.seen[at, g, g], bars.unseen[at, g, g])
    return _Alone(bars.x[at, i], span, bars.x_1[at, i], bars.span_1[at, i], decay)


def _own(one: _Alone, stop: int) -> F64:
    """Squares and spans of single bars, and counts, after the first ``stop`` bars."""
    weight = _weights(one.decay[:stop])
    alone = one.span_1[:stop]
    columns = (one.x_1[:stop] ** 2, alone, one.span[:stop] > 0, alone > 0)
    return np.array([weight @ column for column in columns])


def _fourth_powers(one: _Alone, k: int) -> tuple[float, float]:
    """Weighted sum and count of z^4, each z by the variance known before its bar."""
    span, weight = one.span, _weights(one.decay)
    total = count = 0.0
    for b in np.flatnonzero(one.span_1 > 0):
        before = _weights(one.decay[:b])
        squares = np.array([[before @ one.x[:b] ** 2]]), np.array([[before @ span[:b]]])
        overlap2 = before**2 @ span[:b] ** 2
        if not overlap2 > 0 or not squares[0] > 0:
            continue
        n_eff = squares[1][0, 0] ** 2 / overlap2 / ((2 * k**2 + 1) / (3 * k))
        if n_eff < WARM_N_EFF:
            continue
        past = Sums(*squares, np.array([[overlap2]]), _own(one, int(b))[:, None], np.zeros((2, 1)))
        known = _Own.of(past, 0, k)
        z2 = min(one.x[b] ** 2 / (known.v * span[b] + known.noise), Z2_MAX)
        total += weight[b] * z2**2 * (1 - 2 / n_eff)
        count += weight[b]
    return total, count
