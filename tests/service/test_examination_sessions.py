"""When a market is open, told from its ticks."""

import numpy as np
import pytest

from stream_calib.service.examination.sessions import guess_sessions
from tests.service.looking import SECOND_NS, START_NS, arrivals, new_york

HOUR_NS = 3600 * SECOND_NS


def day(
    rng: np.random.Generator, july: int, opens: float, closes: float, rate_hz: float
) -> list[int]:
    start_ns = new_york(july, opens)
    seconds = arrivals(rng, rate_hz, (closes - opens) * 3600.0)
    return [start_ns + round(s * SECOND_NS) for s in seconds.tolist()]


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("days", [(8,), (8, 9, 10, 11, 12)])
def test_shares_of_new_york_are_told_by_their_hours_though_some_trade_outside(
    days: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    times = [t for d in days for t in day(rng, d, 9.5, 16.0, 0.5) + day(rng, d, 4.0, 19.9, 0.01)]
    found = guess_sessions(np.array(sorted(times)))
    assert (found.name, found.zone, found.hours) == ("us_equity", "America/New_York", "09:30-16:00")


@pytest.mark.parametrize("seed", [2])
def test_local_time_written_as_utc_is_taken_as_it_is_and_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.array(day(rng, 8, 9.5, 16.0, 0.5)) - 4 * HOUR_NS
    found = guess_sessions(times)
    assert (found.zone, found.hours) == ("UTC", "09:30-16:00")
    assert "local time written as UTC" in found.remark


@pytest.mark.parametrize("seed", [3])
def test_coins_are_open_always_and_a_week_of_currencies_has_no_hours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    week = START_NS + (arrivals(rng, 0.05, 7 * 86_400.0) * SECOND_NS).astype(np.int64)
    coins = guess_sessions(week)
    assert (coins.name, coins.remark) == ("", "ticks on weekends too: open always")
    weekdays = week[(week // (86_400 * SECOND_NS) + 3) % 7 < 5]
    assert guess_sessions(weekdays).name == ""


@pytest.mark.parametrize("seed", [4])
def test_an_hour_is_too_short_to_tell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = guess_sessions(np.array(day(rng, 8, 9.5, 10.5, 1.0)))
    assert found.name == ""
    assert "too short" in found.remark


@pytest.mark.parametrize("seed", [5])
def test_sessions_on_weekends_too_have_their_days(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = [t for july in range(8, 15) for t in day(rng, july, 9.5, 16.0, 0.2)]
    found = guess_sessions(np.array(times))
    assert (found.name, found.days) == (
        "us_equity",
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    )
