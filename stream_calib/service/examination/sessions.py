"""When a market is open, as far as its ticks tell."""

from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from stream_calib.config.tick_layer import DAYS
from stream_calib.values import F64, I64, SECOND_NS

QUARTER_NS = 900 * SECOND_NS
DAY_QUARTERS = 96
SPAN_H_MIN = 4.0  # less of a day says nothing
DAY_NS = 86_400 * SECOND_NS
WEEKEND = 0.02  # the share of ticks on weekends that are no strays
SEEN = 0.7  # the share of a session's quarters that have ticks
SHARP = 3.0  # its first and last quarter have so many times the ticks of those outside
DAYS_MIN = 3  # where some of them are on weekends, as coins may have hours by chance
INSIDE = 0.9  # the share of ticks that a session holds
DENSER = 8.0  # and how many times as dense ticks are in it as outside


class Sessions(NamedTuple):
    """A guess: ``name`` of a calendar, its zone and hours, "" where it is open always.

    ``days`` are named where they are not Monday to Friday.
    """

    name: str
    zone: str
    hours: str
    remark: str
    days: tuple[str, ...] = ()

    def inside(self, time_ns: I64) -> "np.typing.NDArray[np.bool_]":
        """Tell which times are in these hours, to a quarter of an hour; all of them without."""
        known = next((one for one in KNOWN if one[0] == self.name), None)
        if known is None:
            return np.ones(len(time_ns), dtype=np.bool_)
        _, zone, opens, closes = known
        quarters, at = np.unique(time_ns // QUARTER_NS, return_inverse=True)
        hour, _ = _clock(quarters, zone)
        inside: np.typing.NDArray[np.bool_] = ((hour >= opens) & (hour < closes))[at]
        return inside


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
    weekend = bool(((time_ns // DAY_NS + 3) % 7 >= 5).mean() > WEEKEND)
    for name, zone, opens, closes in KNOWN:
        if _fits(time_ns, zone, opens, closes):
            hours = "-".join(f"{int(h):02d}:{round(h % 1 * 60):02d}" for h in (opens, closes))
            remark = f"ticks keep the hours {hours} of {zone}"
            if name.endswith("_as_utc"):
                remark += "; local time written as UTC, it seems"
            return Sessions(name, zone, hours, remark, _days(time_ns, zone) if weekend else ())
    if weekend:
        return ALWAYS._replace(remark="ticks on weekends too: open always")
    if span_h > 72.0:
        return ALWAYS._replace(remark="no ticks on weekends, no hours that are known")
    return ALWAYS._replace(remark="ticks at all hours that were seen")


def _clock(quarters: I64, zone: str) -> tuple[F64, I64]:
    """Return hour of the day, and number of the day, of quarters of an hour on a wall clock."""
    clock = ZoneInfo(zone)
    moments = [datetime.fromtimestamp(q * 900, UTC).astimezone(clock) for q in quarters.tolist()]
    hour = [moment.hour + moment.minute / 60.0 for moment in moments]
    return np.array(hour), np.array([moment.toordinal() for moment in moments], dtype=np.int64)


def _days(time_ns: I64, zone: str) -> tuple[str, ...]:
    _, day = _clock(np.unique(time_ns // QUARTER_NS), zone)
    return tuple(DAYS[i] for i in np.unique((day + 6) % 7).tolist())


def _fits(time_ns: I64, zone: str, opens: float, closes: float) -> bool:
    quarters, counts = np.unique(time_ns // QUARTER_NS, return_counts=True)
    try:
        hour, day = _clock(quarters, zone)
    except ZoneInfoNotFoundError:
        return False
    inside = (hour >= opens) & (hour < closes)
    within, total = int(counts[inside].sum()), int(counts.sum())
    if within < INSIDE * total:
        return False
    # all of a session's quarters have ticks, its first and last among them
    n_days = len(np.unique(day[inside]))
    seen = inside.sum() / (n_days * round((closes - opens) * 4))
    first, last, before, after = (
        int(counts[hour == at % 24.0].sum()) for at in (opens, closes - 0.25, opens - 0.25, closes)
    )
    sharp = min(first, last) > 0 and first > SHARP * before and last > SHARP * after
    outside_quarters = DAY_QUARTERS * n_days - inside.sum()
    denser = within / inside.sum() > DENSER * (total - within) / max(1, outside_quarters)
    weekends = (day[inside] + 6) % 7 >= 5
    enough = not weekends.any() or n_days >= DAYS_MIN
    return bool(seen > SEEN and sharp and denser and enough)
