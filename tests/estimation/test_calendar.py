"""Sessions in universal time: half days, changes of clocks, sessions over midnight, no memory."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar, joint_open_ns
from stream_calib.values import I64

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
WEEK_DAYS = frozenset(range(5))

# An example, and no more: the exchange publishes its holidays for a few years ahead.
US_EQUITIES_2024 = Calendar(
    "America/New_York",
    WEEK_DAYS,
    ((time(9, 30), time(16)),),
    holidays=frozenset(
        {
            date(2024, 1, 1),
            date(2024, 1, 15),
            date(2024, 2, 19),
            date(2024, 3, 29),
            date(2024, 5, 27),
            date(2024, 6, 19),
            date(2024, 7, 4),
            date(2024, 9, 2),
            date(2024, 11, 28),
            date(2024, 12, 25),
        }
    ),
    half_days={
        date(2024, 7, 3): time(13),
        date(2024, 11, 29): time(13),
        date(2024, 12, 24): time(13),
    },
)
FUTURES = Calendar("America/Chicago", WEEK_DAYS, ((time(17), time(16)),))
FX = Calendar("America/New_York", WEEK_DAYS, ((time(17), time(17)),))
TOKYO = Calendar("Asia/Tokyo", WEEK_DAYS, ((time(9), time(11, 30)), (time(12, 30), time(15, 30))))
COINS = Calendar(holidays=frozenset({date(2024, 5, 5)}), half_days={date(2024, 5, 6): time(12)})
CALENDARS = {
    "US": US_EQUITIES_2024,
    "futures": FUTURES,
    "FX": FX,
    "Tokyo": TOKYO,
    "coins": COINS,
    "always": ALWAYS_OPEN,
}
every_calendar = pytest.mark.parametrize("name", CALENDARS)


def ns(text: str, zone: str = "UTC") -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return round((local - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND


def at(*texts: str, zone: str = "UTC") -> I64:
    return np.array([ns(text, zone) for text in texts], np.int64)


def fresh(name: str) -> Calendar:
    known = CALENDARS[name]
    return Calendar(known.zone, known.weekdays, known.sessions, known.holidays, known.half_days)


def open_hours(calendar: Calendar, start: str, end: str) -> float:
    return float(calendar.open_ns(at(start), at(end))[0] / HOUR)


def test_a_week_with_a_half_day_and_a_change_of_clocks_has_its_open_time() -> None:
    # clocks went back on Sunday 3 November 2024; let that Wednesday be a half day
    us = Calendar(
        "America/New_York",
        WEEK_DAYS,
        ((time(9, 30), time(16)),),
        half_days={date(2024, 11, 6): time(13)},
    )
    assert open_hours(us, "2024-10-31", "2024-11-07") == 4 * 6.5 + 3.5
    friday, monday = (
        at("2024-11-01T13:30", "2024-11-01T20:00"),
        at("2024-11-04T14:30", "2024-11-04T21:00"),
    )
    for opening, close in (friday, monday):
        edges = np.array([opening - 1, opening, close - 1, close])
        assert us.is_open(edges).tolist() == [False, True, True, False]
    wednesday = at(
        "2024-11-06T14:30", "2024-11-06T17:59:59", "2024-11-06T18:00", "2024-11-06T20:00"
    )
    assert us.is_open(wednesday).tolist() == [True, True, False, False]


def test_a_year_of_an_exchange_has_its_published_hours() -> None:
    # 252 trade dates in 2024, three of them half
    assert open_hours(US_EQUITIES_2024, "2024-01-01", "2025-01-01") == 249 * 6.5 + 3 * 3.5
    days = US_EQUITIES_2024.session(at("2024-01-01", "2024-12-31T23:00"))
    assert US_EQUITIES_2024.is_open(at("2024-11-28T16:00")).tolist() == [False]
    assert days[1] - days[0] == 368  # from the last session of 2023, on the Friday before


def test_sessions_over_midnight_belong_to_the_day_that_they_end_on() -> None:
    sunday, monday = "2024-06-02T17:00", "2024-06-03T16:00"
    opening, close = at(sunday, monday, zone="America/Chicago")
    edges = np.array([opening - 1, opening, close - 1, close, close + HOUR])
    assert FUTURES.is_open(edges).tolist() == [False, True, True, False, True]
    day, place = FUTURES.place(edges)
    assert day[1] == day[2] == (date(2024, 6, 3) - date(1970, 1, 1)).days
    assert place.tolist() == [-1, 0, 23 * HOUR - 1, -1, 0]
    # the Friday session begins on Thursday; the week is 5 times 23 hours
    assert open_hours(FUTURES, "2024-06-02", "2024-06-09") == 115.0


def test_sessions_that_touch_are_one() -> None:
    week = at("2024-06-02T21:00", "2024-06-05T12:00", "2024-06-07T20:59", "2024-06-09T21:00")
    sessions = FX.session(week)
    assert sessions[0] == sessions[1] == sessions[2] < sessions[3]
    noon = at("2024-06-05T10:00", "2024-06-05T10:05", "2024-06-06T10:00")
    assert len(set(TOKYO.session(noon - 10 * HOUR + MINUTE).tolist())) == 2
    halves = Calendar("UTC", WEEK_DAYS, ((time(8), time(12)), (time(12), time(16))))
    assert len(set(halves.session(at("2024-06-05T09:00", "2024-06-05T15:00")).tolist())) == 1


def test_a_break_takes_no_place_in_the_trading_day() -> None:
    times = at(
        "2024-06-05T09:00",
        "2024-06-05T11:29",
        "2024-06-05T12:00",
        "2024-06-05T12:30",
        zone="Asia/Tokyo",
    )
    day, place = TOKYO.place(times)
    assert place.tolist() == [0, 149 * MINUTE, -1, 150 * MINUTE]
    assert day[2] == -1
    assert len(set(TOKYO.session(times).tolist())) == 2
    assert TOKYO.day_length_ns() == 5.5 * HOUR


def test_a_market_that_never_closes_but_on_a_holiday() -> None:
    assert open_hours(COINS, "2024-05-01", "2024-05-10") == 9 * 24 - 24 - 12
    times = at(
        "1990-01-01",
        "2024-05-04T23:59",
        "2024-05-05T12:00",
        "2024-05-06T00:00",
        "2024-05-06T12:00",
        "2024-05-07T00:00",
        "2030-01-01",
    )
    assert COINS.session(times).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert COINS.is_open(times).tolist() == [True, True, False, True, False, True, True]
    assert (ALWAYS_OPEN.session(times) == 0).all()
    assert ALWAYS_OPEN.never_closes()
    assert not COINS.never_closes()


@every_calendar
@settings(max_examples=30)
@given(start=st.integers(0, 730), hours=st.lists(st.integers(0, 24 * 40), min_size=1, max_size=30))
def test_it_is_what_python_says_minute_by_minute(name: str, start: int, hours: list[int]) -> None:
    calendar = fresh(name)
    begin = ns("2023-06-01") + start * 24 * HOUR
    times = begin + np.array(sorted(hours), np.int64) * HOUR + 17 * MINUTE
    assert calendar.is_open(times).tolist() == [_is_open(calendar, int(t)) for t in times]


def _is_open(calendar: Calendar, time_ns: int) -> bool:
    """Look at the local clock, as one would by hand."""
    local = datetime.fromtimestamp(time_ns / SECOND, ZoneInfo(calendar.zone)).replace(tzinfo=None)
    for later in (0, 1):
        day = local.date() + timedelta(days=later)
        if day.weekday() not in calendar.weekdays or day in calendar.holidays:
            continue
        stop = datetime.combine(day, calendar.half_days.get(day, time.max))
        for begin, end in calendar.spans():
            midnight = datetime.combine(day, time.min)
            if midnight + begin <= local < min(midnight + end, stop):
                return True
    return False


some_times = st.integers(ns("2019-01-01"), ns("2027-01-01"))


@every_calendar
@settings(max_examples=15)  # each builds tables of many years, several times
@given(
    asked=st.lists(some_times, max_size=3),
    times=st.lists(some_times, min_size=2, max_size=20).map(sorted),
)
def test_no_answer_depends_on_what_was_asked_before(
    name: str, asked: list[int], times: list[int]
) -> None:
    one, other = fresh(name), fresh(name)
    for question in asked:
        other.session(np.array([question]))
    given_ns = np.array(times)
    assert one.session(given_ns).tolist() == other.session(given_ns).tolist()
    assert (np.diff(one.session(given_ns)) >= 0).all()
    assert one.is_open(given_ns).tolist() == other.is_open(given_ns).tolist()
    spans = one.open_ns(given_ns[:-1], given_ns[1:])
    assert spans.tolist() == other.open_ns(given_ns[:-1], given_ns[1:]).tolist()
    assert fresh(name).open_ns(given_ns[-2:-1], given_ns[-1:]) == spans[-1]  # a table of its own


def test_a_session_is_constant_inside_and_changes_where_the_market_closes() -> None:
    minutes = np.arange(ns("2024-03-01"), ns("2024-04-01"), 30 * MINUTE)
    for calendar in (US_EQUITIES_2024, FUTURES, TOKYO, FX):
        is_open, session = calendar.is_open(minutes), calendar.session(minutes)
        opened = is_open[1:] & ~is_open[:-1]
        assert ((np.diff(session) > 0) == opened).all()


def test_two_markets_are_open_together_for_two_hours() -> None:
    london = Calendar("Europe/London", WEEK_DAYS, ((time(8), time(16, 30)),))
    week = at("2024-06-03", "2024-06-10")
    assert joint_open_ns(US_EQUITIES_2024, london, week[:1], week[1:]).tolist() == [10 * HOUR]
    # in the two weeks in which New York has changed its clocks and London has not, three
    week = at("2024-03-11", "2024-03-18")
    assert joint_open_ns(US_EQUITIES_2024, london, week[:1], week[1:]).tolist() == [15 * HOUR]
    alone = joint_open_ns(london, ALWAYS_OPEN, week[:1], week[1:])
    assert alone.tolist() == london.open_ns(week[:1], week[1:]).tolist()


def test_calendars_are_values() -> None:
    assert fresh("US") == US_EQUITIES_2024
    assert hash(fresh("US")) == hash(US_EQUITIES_2024)
    assert fresh("Tokyo") != fresh("FX")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "../etc/passwd"}, "zone"),
        ({"weekdays": frozenset()}, "weekdays"),
        ({"weekdays": frozenset({7})}, "weekdays"),
        ({"sessions": ()}, "sessions"),
        ({"sessions": ((time(9), time(12)), (time(11), time(15)))}, "sessions"),
        ({"sessions": ((time(12), time(15)), (time(9), time(11)))}, "sessions"),
        ({"sessions": ((time(18), time(17)), (time(17), time(19)))}, "sessions"),
        ({"half_days": {date(2024, 6, 1): time(12)}, "weekdays": WEEK_DAYS}, "half day"),
        (
            {"half_days": {date(2024, 6, 3): time(12)}, "holidays": frozenset({date(2024, 6, 3)})},
            "half day",
        ),
    ],
)
def test_what_is_no_calendar_is_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Calendar(**wrong)  # type: ignore[arg-type]
