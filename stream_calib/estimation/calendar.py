"""When a market is open: sessions of a calendar in event time, and trading time of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from stream_calib.values import I64

Mask = npt.NDArray[np.bool_]

DAY_NS = 86_400 * 10**9
FIRST_YEAR, LAST_YEAR = 1900, 2099  # sessions outside are not known
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1).toordinal()
# before and after every time that is asked for, and their difference is still a number
BEGINNING_NS, END_NS = -(2**62) + 1, 2**62 - 1
MARGIN_DAYS = 15  # longer than any row of sessions that touch, where some weekday is closed


class Table(NamedTuple):
    """Sessions of trade dates in consecutive years, ascending; what touches is one.

    ``opens_ns``, ``closes_ns``, ``ident`` and ``before_ns`` (open time before, from the first
    row on) by session; ``part_*`` by session as written in the calendar: its opening, its
    close, its trade date as days since 1970, and where in the trading day it begins. The first
    row of both stands before all time and is empty.
    """

    first_year: int
    last_year: int
    opens_ns: I64
    closes_ns: I64
    ident: I64
    before_ns: I64
    part_opens_ns: I64
    part_closes_ns: I64
    part_day: I64
    part_begins_ns: I64


@dataclass
class _Cache:
    table: Table | None = None


@dataclass(frozen=True)
class Calendar:
    """Sessions of one market, by its local clock.

    A session belongs to its trade date. One that closes no later than it opens has opened on
    the day before, as futures do: 18:00 to 17:00 on a Monday is open from Sunday evening on. A
    close at 00:00 is the end of the day, so that 00:00 to 00:00 is a whole one. Sessions that
    touch, within a day or from one day to the next, are one session.

    Parameters
    ----------
    zone
        Name in the IANA time zone database. Local times that a change of clocks skips or
        repeats are those of the clock before the change.
    weekdays
        Trade dates, Monday 0 to Sunday 6.
    sessions
        Local times of opening and close, in order and apart, together at most 24 hours from
        the first opening to the last close.
    holidays
        Trade dates without a session.
    half_days
        Trade dates on which all sessions end early, and when.

    Raises
    ------
    ValueError
        If the zone is unknown, a weekday is none, sessions overlap or are out of order, or a
        half day is no trade date or is a holiday.

    Notes
    -----
    Answers are for the years 1900 to 2099. The table of sessions behind them grows with the
    years asked for; no answer depends on what was asked before.

    Examples
    --------
    >>> from datetime import date, time
    >>> new_york = Calendar(
    ...     "America/New_York",
    ...     weekdays=frozenset(range(5)),
    ...     sessions=((time(9, 30), time(16)),),
    ...     holidays=frozenset({date(2024, 11, 28)}),
    ...     half_days={date(2024, 11, 29): time(13)},
    ... )
    >>> week = np.array(["2024-11-25", "2024-12-02"], "datetime64[ns]").astype(np.int64)
    >>> int(new_york.open_ns(week[:1], week[1:])[0]) / 3.6e12
    23.0
    """

    zone: str = "UTC"
    weekdays: frozenset[int] = frozenset(range(7))
    sessions: tuple[tuple[time, time], ...] = ((time(0), time(0)),)
    holidays: frozenset[date] = frozenset()
    half_days: Mapping[date, time] = field(default_factory=dict, hash=False)
    _cache: _Cache = field(default_factory=_Cache, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what is no calendar."""
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            message = f"zone {self.zone!r} is not in the time zone database"
            raise ValueError(message) from error
        if not self.weekdays <= set(range(7)) or not self.weekdays:
            message = f"weekdays must be some of 0 to 6, not {sorted(self.weekdays)}"
            raise ValueError(message)
        spans = self.spans()
        ends = [end for _, end in spans]
        in_order = all(end <= begin for end, (begin, _) in zip(ends, spans[1:], strict=False))
        if not spans or not in_order or ends[-1] - spans[0][0] > timedelta(days=1):
            message = f"sessions must be in order, apart, and within 24 hours, not {self.sessions}"
            raise ValueError(message)
        for day in self.half_days:
            if day.weekday() not in self.weekdays or day in self.holidays:
                message = f"half day {day} is no trade date"
                raise ValueError(message)

    def spans(self) -> list[tuple[timedelta, timedelta]]:
        """Return opening and close of each session, from local midnight of the trade date."""
        return [_span(opening, close) for opening, close in self.sessions]

    def day_length_ns(self) -> int:
        """Return how long a whole trading day is open."""
        return sum(_in_ns(end - begin) for begin, end in self.spans())

    def is_round(self) -> bool:
        """Tell whether each day, were it a trade date, would touch the next."""
        spans = self.spans()
        whole = spans[-1][1] - spans[0][0] == timedelta(days=1)
        return whole and self.day_length_ns() == DAY_NS

    def never_closes(self) -> bool:
        """Tell whether it is open at all times."""
        exceptions = self.holidays or self.half_days
        return len(self.weekdays) == 7 and self.is_round() and not exceptions

    def is_open(self, time_ns: I64) -> Mask:
        """Tell which times (m,) are in a session; an opening is, a close is not."""
        table = self.table(time_ns)
        at = np.searchsorted(table.opens_ns, time_ns, "right") - 1
        return np.asarray(time_ns < table.closes_ns[at])

    def open_ns(self, start_ns: I64, end_ns: I64) -> I64:
        """Return the open time (m,) in each interval [start, end)."""
        table = self.table(np.concatenate([start_ns, end_ns]))
        return open_before(table, end_ns) - open_before(table, start_ns)

    def session(self, time_ns: I64) -> I64:
        """Return a number (m,) of each time's session: constant within it, ascending.

        A time between sessions has the number of the one before, -1 before the first.
        """
        table = self.table(time_ns)
        return table.ident[np.searchsorted(table.opens_ns, time_ns, "right") - 1]

    def place(self, time_ns: I64) -> tuple[I64, I64]:
        """Return trade dates (m,) as days since 1970, and the place (m,) in the trading day.

        The place is the open time since the day's first opening, in ns, as on a whole day; a
        break between sessions takes none. Both are -1 for times that are in no session.
        """
        table = self.table(time_ns)
        at = np.searchsorted(table.part_opens_ns, time_ns, "right") - 1
        inside = time_ns < table.part_closes_ns[at]
        since = table.part_begins_ns[at] + time_ns - table.part_opens_ns[at]
        return np.where(inside, table.part_day[at], -1), np.where(inside, since, -1)

    def table(self, time_ns: I64) -> Table:
        """Return sessions enough for these times."""
        known = self._cache.table
        if len(time_ns):
            first, last = (_year(int(time_ns.min())), _year(int(time_ns.max())))
        else:
            first = last = known.first_year if known is not None else 1970
        if known is None or first < known.first_year or last > known.last_year:
            if known is not None:
                first, last = min(first, known.first_year), max(last, known.last_year)
            known = self._tabulate(first, last)
            self._cache.table = known
        return known

    def _tabulate(self, first_year: int, last_year: int) -> Table:
        # days beyond both ends, so that the sessions of the ends are whole; a longer closure is
        # passed over, for what is between sessions has the number of the one before
        first = date(first_year, 1, 1).toordinal()
        last = date(last_year + 1, 1, 1).toordinal() + MARGIN_DAYS
        earlier: list[tuple[int, ...]] = []
        begin = first
        while not earlier and begin > date(FIRST_YEAR - 1, 12, 1).toordinal():
            begin -= MARGIN_DAYS
            earlier = self._days(begin, first)
        parts = [(BEGINNING_NS, BEGINNING_NS, -1, 0, 0), *earlier, *self._days(first, last)]
        columns = np.ascontiguousarray(np.array(parts, np.int64).T)
        opens, closes, day, begins, index = columns
        if len(self.weekdays) == 7 and self.is_round():
            opens, closes, ident = self._all_but_exceptions()
        else:
            ident = np.where(day < 0, -1, day * len(self.sessions) + index)
            starts = np.flatnonzero(np.append(np.ones(1, np.bool_), opens[1:] > closes[:-1]))
            opens, closes, ident = opens[starts], np.maximum.reduceat(closes, starts), ident[starts]
        before = np.append(np.zeros(1, np.int64), np.cumsum(closes - opens)[:-1])
        parts_ns = columns[0], columns[1], day, begins
        return Table(first_year, last_year, opens, closes, ident, before, *parts_ns)

    def _days(self, first: int, last: int) -> list[tuple[int, ...]]:
        return [part for day in range(first, last) for part in self._parts(date.fromordinal(day))]

    # each session of a trade date in universal time; none if the day has none
    def _parts(self, day: date) -> list[tuple[int, ...]]:
        if day.weekday() not in self.weekdays or day in self.holidays:
            return []
        stop = self._early_close(day)
        parts: list[tuple[int, ...]] = []
        begins = 0
        for index, (begin, end) in enumerate(self.spans()):
            opens = self._universal(day, begin)
            closes = self._universal(day, min(end, stop))
            if begin < stop and closes > opens:
                if parts:  # where a change of clocks let one run into the other
                    opens = max(opens, parts[-1][1])
                parts.append((opens, closes, day.toordinal() - EPOCH_DAY, begins, index))
            begins += _in_ns(end - begin)
        return parts

    def _early_close(self, day: date) -> timedelta:
        early = self.half_days.get(day)
        return timedelta(days=2) if early is None else _since_midnight(early)

    # a market that never closes but on its exceptional days: sessions over all time
    def _all_but_exceptions(self) -> tuple[I64, I64, I64]:
        begin, end = self.spans()[0][0], self.spans()[-1][1]
        opens, closes = [BEGINNING_NS, BEGINNING_NS], [BEGINNING_NS]
        for day in sorted({*self.holidays, *self.half_days}):
            stop = begin if day in self.holidays else min(end, self._early_close(day))
            close, again = self._universal(day, max(begin, stop)), self._universal(day, end)
            if close <= opens[-1]:  # follows on another such day
                opens[-1] = again
            elif close < again:
                closes.append(close)
                opens.append(again)
        closes.append(END_NS)
        return np.array(opens), np.array(closes), np.arange(-1, len(opens) - 1)

    def _universal(self, day: date, since: timedelta) -> int:
        local = datetime.combine(day, time.min) + since
        return _in_ns(local.replace(tzinfo=ZoneInfo(self.zone)) - EPOCH)


def open_before(table: Table, time_ns: I64) -> I64:
    """Return the open time (m,) from the table's first session to each time."""
    at = np.searchsorted(table.opens_ns, time_ns, "right") - 1
    return table.before_ns[at] + np.minimum(time_ns, table.closes_ns[at]) - table.opens_ns[at]


def joint_table(calendars: Sequence[Calendar], time_ns: I64) -> tuple[I64, Mask]:
    """Return instants (b,) between which no calendar opens or closes, and what is open.

    Parameters
    ----------
    calendars
        G of them.
    time_ns
        Times that are to lie between the first and the last instant.

    Returns
    -------
    (b,), (b, G)
        Instants, and whether each calendar is open from this one to the next.
    """
    tables = [calendar.table(time_ns) for calendar in calendars]
    changes = [change for table in tables for change in (table.opens_ns, table.closes_ns)]
    instants = np.unique(np.concatenate([np.array([BEGINNING_NS, END_NS]), *changes]))
    is_open = [
        instants < table.closes_ns[np.searchsorted(table.opens_ns, instants, "right") - 1]
        for table in tables
    ]
    return instants, np.stack(is_open, axis=1)


def joint_open_ns(one: Calendar, other: Calendar, start_ns: I64, end_ns: I64) -> I64:
    """Return the time (m,) in each interval [start, end) in which both calendars are open."""
    instants, is_open = joint_table((one, other), np.concatenate([start_ns, end_ns]))
    both: Mask = np.logical_and(is_open[:, 0], is_open[:, 1])
    before = np.append(np.zeros(1, np.int64), np.cumsum(np.diff(instants) * both[:-1]))

    def until(time_ns: I64) -> I64:
        at = np.searchsorted(instants, time_ns, "right") - 1
        return np.asarray(before[at] + both[at] * (time_ns - instants[at]), np.int64)

    return until(end_ns) - until(start_ns)


def _span(opening: time, close: time) -> tuple[timedelta, timedelta]:
    begin, end = _since_midnight(opening), _since_midnight(close)
    if close == time.min:
        end = timedelta(days=1)
    return (begin, end) if begin < end else (begin - timedelta(days=1), end)


def _since_midnight(local: time) -> timedelta:
    return datetime.combine(date.min, local) - datetime.combine(date.min, time.min)


def _in_ns(span: timedelta) -> int:
    return (span.days * 86_400 + span.seconds) * 10**9 + span.microseconds * 1000


def _year(time_ns: int) -> int:
    days = min(max(time_ns // DAY_NS, -(10**5)), 10**5)
    return min(max(date.fromordinal(EPOCH_DAY + days).year, FIRST_YEAR), LAST_YEAR)


def whole_years(first_ns: int, last_ns: int) -> tuple[int, int]:
    """Return the beginning of the year of one time and the last instant of that of another."""
    begin = date(_year(first_ns), 1, 1).toordinal() - EPOCH_DAY
    end = date(_year(last_ns) + 1, 1, 1).toordinal() - EPOCH_DAY
    return min(first_ns, begin * DAY_NS), max(last_ns, end * DAY_NS - 1)


ALWAYS_OPEN = Calendar()
