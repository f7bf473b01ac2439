"""When a market is open, as far as its ticks tell."""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from stream_calib.values import I64, SECOND_NS

QUARTER_NS = 900 * SECOND_NS
DAY_QUARTERS = 96
SPAN_H_MIN = 4.0  # less of a day says nothing
INSIDE = 0.9  # the share of ticks that a session holds
DENSER = 8.0  # and how many times as dense ticks are in it as outside


class Sessions(NamedTuple):
    """A guess: ``name`` of a calendar, with its zone and hours; "" where it is open always."""

    name: str
    zone: str
    hours: str
    remark: str


KNOWN = (
    ("us_equity", "America/New_York", 9.5, 16.0),
    ("us_equity_as_utc", "UTC", 9.5, 16.0),
    ("xetra", "Europe/Berlin", 9.0, 17.5),
    ("london", "Europe/London", 8.0, 16.5),
    ("tokyo", "Asia/Tokyo", 9.0, 15.5),
)
ALWAYS = Sessions("", "", "", "")


def guess_sessions(time_ns: I64) -> Sessions:
    """Guess from the times of ticks which sessions a market has.

    A known market is named where nine in ten ticks are in its hours, eight times as dense as
    outside of them, from the first quarter of an hour to the last, and on no weekend.
    """
    if len(time_ns) < DAY_QUARTERS:
        return ALWAYS._replace(remark="too few ticks to tell sessions")
    first, last = (int(t) for t in np.quantile(time_ns, [0.0005, 0.9995]).round())
    span_h = (last - first) / (3600 * SECOND_NS)
    if span_h < SPAN_H_MIN:
        return ALWAYS._replace(remark=f"{span_h:.2g} h are too short to tell sessions")
    # the middle of a bar stands for it: bars that end with the session are inside
    weekdays = (time_ns // (86_400 * SECOND_NS) + 3) % 7
    if (weekdays >= 5).mean() > 0.02:
        return ALWAYS._replace(remark="ticks on weekends too: open always")
    for name, zone, opens, closes in KNOWN:
        if _fits(time_ns, zone, opens, closes):
            hours = "-".join(f"{int(h):02d}:{round(h % 1 * 60):02d}" for h in (opens, closes))
            remark = f"ticks keep the hours {hours} of {zone}"
            if name.endswith("_as_utc"):
                remark += "; local time written as UTC, it seems"
            return Sessions(name, zone, hours, remark)
    if span_h > 72.0:
        return ALWAYS._replace(remark="no ticks on weekends, no hours that are known")
    return ALWAYS._replace(remark="ticks at all hours that were seen")


def _fits(time_ns: I64, zone: str, opens: float, closes: float) -> bool:
    try:
        clock = ZoneInfo(zone)
    except ZoneInfoNotFoundError:
        return False
    quarters, counts = np.unique(time_ns // QUARTER_NS, return_counts=True)
    moments = [datetime.fromtimestamp(q * 900, UTC).astimezone(clock) for q in quarters.tolist()]
    hour = np.array([moment.hour + moment.minute / 60.0 for moment in moments])
    days = {moment.date() for moment in moments if moment.weekday() < 5}
    inside = (hour >= opens) & (hour < closes)
    within, total = int(counts[inside].sum()), int(counts.sum())
    if within < INSIDE * total:
        return False
    # all of a session's quarters have ticks, its first and last among them
    n_inside = round((closes - opens) * 4)
    seen = inside.sum() / (len(days) * n_inside)
    edges = {opens, closes - 0.25} <= set(hour[inside].tolist())
    outside_quarters = DAY_QUARTERS * len(days) - inside.sum()
    denser = within / inside.sum() > DENSER * (total - within) / max(1, outside_quarters)
    return bool(seen > 0.7 and edges and denser)
