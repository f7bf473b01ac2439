"""What clocks say: event times against the log's, against each other, and in their own order."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream_calib.service.examination.sample import Sample, instrument, venue
from stream_calib.values import F64, I64, SECOND_NS

HOUR_NS = 3600 * SECOND_NS
IN_TIME = 0.999  # the share of ticks that shall be in time
AHEAD_NS = HOUR_NS  # a time so far ahead of those after it is an error, and not a clock
TICKS_MIN = 20
WHOLE_HOUR_S = 120.0  # how near to whole hours local time is
STEADY_S = 300.0  # a clock is as far off for all of a sample
SHIFT_BAR_S = 30
SHIFT_BARS_MIN = 60
SHIFT_HOURS = 14
OTHERS_MAX = 4  # of one instrument that are compared
SHIFT_LEAST, UNSHIFTED_MOST = 0.5, 0.3
LEAD_SYMBOLS, LEAD_MOST_S, LEAD_BARS_MIN = 8, 30, 300
LEAD_T = 6.0  # deviations of a correlation of nothing
LEAD_WIDTHS, LEAD_LEAST_S = (3, 9), 2
LEAD_GAIN = 1.5  # a lead correlates so many times as much as no lead


class Skew(NamedTuple):
    """Event times of one kind of message less another clock's, in seconds: 5, 50 and 95 %.

    ``against`` is "log", or "receipt". ``remark`` says what that looks like, "" for nothing.
    """

    format: str
    venue: str
    against: str
    n: int
    low_s: float
    median_s: float
    high_s: float
    remark: str


class Shift(NamedTuple):
    """Two symbols of one instrument that agree once one is put some hours later."""

    symbol: str
    reference: str
    hours: int
    correlation: float
    unshifted: float


class Lead(NamedTuple):
    """A symbol whose price another one's follows some seconds later.

    ``correlation`` is of returns of a second, added up over the lags around ``lead_s``.
    """

    leader: str
    follower: str
    lead_s: float
    correlation: float


class Order(NamedTuple):
    """Seconds that IN_TIME of ticks lie at most behind the newest.

    ``lateness_s`` of their own partition; ``slack_s`` of all, as the log took them in, NaN where it
    does not say when. ``late`` ticks are later than the default; ``beyond`` is the share of those
    that are more than a minute late.
    """

    lateness_s: float
    slack_s: float
    late: int
    beyond: float


def find_skews(sample: Sample) -> list[Skew]:
    """Compare event times with when they were received, and taken in by the log."""
    own = sample.own_time
    venues = np.array([venue(symbol) for symbol in sample.symbols] or [""])
    formats = np.array([label.format for label in sample.labels] or [""])
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    of_venue, of_format = venues[sample.asset], formats[sample.label]
    for pair in {*zip(of_format.tolist(), of_venue.tolist(), strict=True)}:
        groups[pair] = [*np.flatnonzero((of_format == pair[0]) & (of_venue == pair[1]) & own)]
    out = []
    for (format_, venue_), rows in sorted(groups.items()):
        for against, clock in (("log", sample.stamp_ns), ("receipt", sample.received_ns)):
            known = np.array(rows, dtype=np.int64)
            known = known[clock[known] > 0]
            if len(known) < TICKS_MIN:
                continue
            time_ns, other = sample.time_ns[known], clock[known]
            skew_s = (time_ns - other) / SECOND_NS
            low, middle, high = (float(q) for q in np.quantile(skew_s, [0.05, 0.5, 0.95]))
            remark = _remark(time_ns, other, low, middle, high)
            out.append(Skew(format_, venue_, against, len(known), low, middle, high, remark))
    return out


def _remark(time_ns: I64, other_ns: I64, low: float, middle: float, high: float) -> str:
    hours = round(middle / 3600.0)
    off = middle - 3600.0 * hours
    if hours and abs(off) < WHOLE_HOUR_S and high - low < STEADY_S and abs(hours) <= SHIFT_HOURS:
        return f"off by {hours:+d} h: looks like local time written as UTC"
    event_s, log_s = (
        float(np.ptp(np.quantile(t, [0.05, 0.95]))) / SECOND_NS for t in (time_ns, other_ns)
    )
    if middle < -60.0 and (event_s > 2.0 * log_s + 10.0 or high - low > STEADY_S):
        return "written to the log long after it happened: says nothing about clocks"
    if middle < -60.0:
        return "written to the log long after it happened, or a clock that is behind"
    if middle > 0.0:
        return f"its clock is ahead by {seconds(middle)}"
    return ""


def seconds(value_s: float) -> str:
    """Write a time so that its first figures are seen."""
    for unit, one in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if abs(value_s) >= one * (0.9995 if unit in {"s", "ms"} else 2.0):
            return f"{value_s / one:.3g} {unit}"
    return "0 s" if not value_s else f"{value_s * 1e6:.3g} us"


def find_order(sample: Sample, lateness_ns: int) -> Order:
    """Tell how far ticks lie behind the newest, and how many more than ``lateness_ns``."""
    behind: list[I64] = []
    kept: list[I64] = []
    for i in range(len(sample.sources)):
        rows = np.flatnonzero(sample.source == i)
        rows = rows[~_ahead(sample.time_ns[rows])]
        time_ns = sample.time_ns[rows]
        if len(rows):
            behind.append(np.maximum.accumulate(time_ns) - time_ns)
            kept.append(rows)
    if not behind:
        return Order(0.0, np.nan, 0, 0.0)
    # the worst partition decides, as each is judged by itself
    lateness_s = max(float(np.quantile(own, IN_TIME)) for own in behind) / SECOND_NS
    everything = np.concatenate(behind)
    late = int((everything > lateness_ns).sum())
    beyond = float((everything > 60 * SECOND_NS).mean())
    rows = np.concatenate(kept)
    rows = rows[sample.stamp_ns[rows] > 0]
    slack_s = np.nan
    if len(rows) >= TICKS_MIN and len(sample.sources) > 1:
        rows = rows[np.argsort(sample.stamp_ns[rows], kind="stable")]
        time_ns = sample.time_ns[rows]
        slack_s = float(np.quantile(np.maximum.accumulate(time_ns) - time_ns, IN_TIME)) / SECOND_NS
    return Order(lateness_s, slack_s, late, beyond)


def _ahead(time_ns: I64) -> "np.typing.NDArray[np.bool_]":
    """Tell which times those after them do not bear out."""
    n = len(time_ns)
    if n < 4:
        return np.zeros(n, dtype=np.bool_)
    padded = np.concatenate([time_ns, time_ns[-4:-1]])
    later = np.max([padded[1 : n + 1], padded[2 : n + 2], padded[3 : n + 3]], axis=0)
    out: np.typing.NDArray[np.bool_] = time_ns > later + AHEAD_NS
    return out


def find_shifts(sample: Sample) -> list[Shift]:
    """Look for whole hours between the clocks of two venues, or topics, of one instrument.

    Returns of half a minute of the two are correlated at every shift; the one that ticks more is
    the reference.
    """
    alike: defaultdict[str, list[tuple[str, I64]]] = defaultdict(list)
    for name, rows in sorted(_streams(sample), key=lambda one: (-len(one[1]), one[0])):
        alike[instrument(sample.symbols[sample.asset[rows[0]]])].append((name, rows))
    out = []
    for (reference, own), *others in alike.values():
        for name, rows in others[:OTHERS_MAX]:
            shift = _shift(sample, (name, rows), (reference, own))
            if shift is not None:
                out.append(shift)
    return out


def _streams(sample: Sample) -> list[tuple[str, I64]]:
    """Return the ticks of each symbol in each topic that has some, with a name."""
    topics = sorted({source.topic for source in sample.sources})
    at = np.array([topics.index(source.topic) for source in sample.sources] or [0])
    key = sample.asset * len(topics) + at[sample.source]
    order = np.argsort(key, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else []
    parts = [rows for rows in parts if len(rows) >= TICKS_MIN]
    times = Counter(int(sample.asset[rows[0]]) for rows in parts)
    out = []
    for rows in parts:
        asset = int(sample.asset[rows[0]])
        topic = topics[at[sample.source[rows[0]]]]
        name = sample.symbols[asset] + (f" in {topic}" if times[asset] > 1 else "")
        out.append((name, rows))
    return out


def _shift(sample: Sample, one_of: tuple[str, I64], reference: tuple[str, I64]) -> Shift | None:
    (start, one), (begin, two) = (
        _grid_returns(sample, rows, SHIFT_BAR_S * SECOND_NS) for rows in (reference[1], one_of[1])
    )
    per_hour = 3600 // SHIFT_BAR_S
    found: dict[int, float] = {}
    for hours in range(-SHIFT_HOURS, SHIFT_HOURS + 1):
        at = begin + hours * per_hour - start
        known = _overlap(one, two, at)
        if known is not None:
            found[hours] = known
    if not found:
        return None
    best = max(found, key=found.__getitem__)
    unshifted = found.get(0, 0.0)
    if best and found[best] > SHIFT_LEAST and unshifted < UNSHIFTED_MOST:
        return Shift(one_of[0], reference[0], best, found[best], unshifted)
    return None


def _overlap(one: F64, two: F64, at: int) -> float | None:
    # the correlation where the second begins ``at`` bars after the first
    a, b = one[max(0, at) :], two[max(0, -at) :]
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    moved = (a != 0.0) | (b != 0.0)
    if moved.sum() < SHIFT_BARS_MIN or not (a.any() and b.any()):
        return None
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _grid_returns(sample: Sample, rows: I64, bar_ns: int) -> tuple[int, F64]:
    """Return the number of the first bar, and the returns from bar to bar of ticks, capped."""
    time_ns = sample.time_ns[rows]
    traded = sample.price[rows] > 0.0
    if traded.sum() * 2 < len(rows):
        price = (sample.bid[rows] + sample.ask[rows]) / 2.0
    else:
        price = sample.price[rows]
    known = price > 0.0
    order = np.argsort(time_ns[known], kind="stable")
    time_ns, price = time_ns[known][order], np.log(price[known][order])
    if len(price) < TICKS_MIN:
        return 0, np.zeros(0)
    bars = time_ns // bar_ns
    start, stop = (int(bar) for bar in np.quantile(bars, [0.001, 0.999]).round())
    if not 0 < stop - start < 2_000_000:
        return 0, np.zeros(0)
    at = np.searchsorted(bars, np.arange(start, stop + 1), side="right") - 1
    returns = np.diff(price[np.maximum(at, 0)])
    scale = float(np.sqrt(np.mean(returns * returns)))
    return start + 1, np.clip(returns, -4.0 * scale, 4.0 * scale)


def find_leads(sample: Sample, symbols: Sequence[str]) -> list[Lead]:
    """Look for symbols that lead others by a second or more, among those that tick most."""
    index = {symbol: i for i, symbol in enumerate(sample.symbols)}
    grids = {
        symbol: _grid_returns(sample, np.flatnonzero(sample.asset == index[symbol]), SECOND_NS)
        for symbol in symbols[:LEAD_SYMBOLS]
    }
    out = []
    names = [*grids]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            lead = _lead(grids[first], grids[second])
            if lead is not None:
                lag, correlation = lead
                pair = (first, second) if lag > 0 else (second, first)
                out.append(Lead(*pair, float(abs(lag)), correlation))
    return out


def _lead(one: tuple[int, F64], two: tuple[int, F64]) -> tuple[int, float] | None:
    start = max(one[0], two[0])
    stop = min(one[0] + len(one[1]), two[0] + len(two[1]))
    if stop - start < LEAD_BARS_MIN:
        return None
    a, b = (own[start - begin : stop - begin] for begin, own in (one, two))
    sizes = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if not sizes > 0.0:
        return None
    lags = range(-LEAD_MOST_S, LEAD_MOST_S + 1)
    n = len(a)
    # b at t + lag against a at t: positive where the first leads
    at = [
        float((a[max(0, -lag) : n - max(0, lag)] * b[max(0, lag) : n - max(0, -lag)]).sum())
        for lag in lags
    ]
    returns = np.count_nonzero((a != 0.0) | (b != 0.0))
    for width in LEAD_WIDTHS:  # one that is broad shows when many lags are added up
        smooth = np.convolve(at, np.ones(width), "same") / sizes
        best = int(np.argmax(np.abs(smooth)))
        lag, found, none = lags[best], float(smooth[best]), float(abs(smooth[LEAD_MOST_S]))
        noise = float(np.sqrt(width / returns))
        if abs(lag) >= LEAD_LEAST_S and abs(found) > max(LEAD_T * noise, LEAD_GAIN * none):
            return lag, found
    return None
