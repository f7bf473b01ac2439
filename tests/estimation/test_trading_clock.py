"""Trading time: what ages pairs of two markets, what ends a return, as the engine counts today."""

from datetime import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.calendar import ALWAYS_OPEN, Calendar
from stream_calib.estimation.ewma import Ewma
from stream_calib.estimation.protocol import Estimator
from stream_calib.estimation.trading_clock import TradingClock
from stream_calib.estimation.two_scale import StampedBlock, TwoScale
from stream_calib.values import F64, I64, NO_TIME, ReturnBlock

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
WEEK_DAYS = frozenset(range(5))
NEW_YORK = Calendar("America/New_York", WEEK_DAYS, ((time(9, 30), time(16)),))
LONDON = Calendar("Europe/London", WEEK_DAYS, ((time(8), time(16, 30)),))
MONDAY = int(
    np.datetime64("2024-06-03", "ns").astype(np.int64)
)  # London 7:00-15:30, NY 13:30-20:00

US, EU = 0, 1
GROUP = np.array([US, EU, US, EU])


def clock(bar_ns: int = MINUTE, gap_max_bars: int = 60) -> TradingClock:
    return TradingClock([NEW_YORK, LONDON], GROUP, bar_ns, gap_max_bars)


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    st.integers(0, 10**9),
    st.sampled_from([1, 7, 10**6, 10**9, 5 * 10**9, MINUTE, 24 * HOUR]),
    st.sampled_from([10, 600, 10**7]),
    st.booleans(),
)
def test_a_market_that_never_closes_counts_as_the_engine_does(
    steps: list[int], first: int, bar_ns: int, gap_bars: int, begins: bool
) -> None:
    bars = first % (10**17 // bar_ns) + np.cumsum(steps)
    bars = np.minimum(bars, 2**63 // bar_ns - 30 + np.arange(len(bars)))  # the last there are
    last_bar = -1 if begins else max(0, int(bars[0]) - 1 - first % 1000)
    # as in engine/engine.py
    elapsed = np.diff(bars, prepend=bars[:1] - 1 if last_bar < 0 else last_bar)
    wanted = np.minimum(elapsed, gap_bars).astype(np.float64)
    one = TradingClock([ALWAYS_OPEN], np.zeros(3, np.int64), bar_ns, gap_bars)
    previous_ns = NO_TIME if begins else (last_bar + 1) * bar_ns
    got = one.elapsed(previous_ns, (bars + 1) * bar_ns)
    assert got.shape == (len(bars), 1, 1)
    assert got.tobytes() == wanted.tobytes()


def test_pairs_of_two_markets_age_while_both_are_open() -> None:
    ends = MONDAY + HOUR * np.array([7, 8, 13, 14, 15, 16, 20, 24, 32])
    # from 13:30 to 15:30 both are open
    own = [
        [0, 0, 0, 0.5, 1, 1, 4, 0, 0],  # New York
        [0, 1, 5, 1, 1, 0.5, 0, 0, 1],  # London
        [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0],
    ]
    got = clock(gap_max_bars=10**6).elapsed(MONDAY, ends) / 60.0
    for wanted, (g, h) in zip(own, [(0, 0), (1, 1), (0, 1)], strict=True):
        assert got[:, g, h].tolist() == wanted
        assert got[:, h, g].tolist() == wanted
    assert clock(gap_max_bars=90).elapsed(MONDAY, ends)[:, 1, 1].max() == 90.0


def test_no_answer_depends_on_what_was_asked_before() -> None:
    fresh, used = clock(), clock()
    used.elapsed(0, np.array([HOUR]))
    used.open_mask(np.array([2 * 10**18]), np.array([0]))
    ends = MONDAY + MINUTE * np.arange(3000, dtype=np.int64)
    assert (
        used.elapsed(MONDAY - HOUR, ends).tobytes() == fresh.elapsed(MONDAY - HOUR, ends).tobytes()
    )


def test_ticks_outside_of_their_own_market_are_told() -> None:
    hours = np.array([6.99, 7.0, 13.0, 13.5, 15.5, 19.99, 20.0])
    at = MONDAY + (hours * HOUR).astype(np.int64)
    us, eu = (clock().open_mask(at, np.full(7, g)) for g in (US, EU))
    assert us.tolist() == [False, False, False, True, True, True, False]
    assert eu.tolist() == [False, True, True, True, False, False, False]
    assert clock().open_mask(at[:0], np.zeros(0, np.int64)).shape == (0,)


def test_returns_from_one_session_to_the_next_break() -> None:
    open_ns = MONDAY + 13 * HOUR + 30 * MINUTE
    ends = np.array([open_ns + MINUTE, open_ns + 2 * MINUTE, open_ns + 30 * MINUTE])
    overnight = (13 * 60 + 30) + 4 * 60 + 2 * 24 * 60 + 1  # bars since Friday's last
    exposure = np.array(
        [[overnight, 1.0, 0.0, 0.0], [1.0, 0.0, overnight + 1, 5.0], [28.0, 800.0, 28.0, 29.0]]
    )
    broken = [[True, False, False, False], [False, False, True, False], [False, True, False, False]]
    assert clock().breaks(ends, exposure).tolist() == broken
    returns = np.where(exposure > 0.0, 0.01, np.nan)
    block = StampedBlock(ends, returns, exposure, np.ones(3), np.where(exposure > 0, 0.5, np.nan))
    cut = clock().cut(block)
    assert np.isnan(cut.returns[broken]).all()
    assert (cut.exposure[broken] == 0.0).all()
    assert cut.age.tobytes() == block.age.tobytes()  # the ticks are still there
    days = TradingClock([NEW_YORK, LONDON], GROUP, 24 * HOUR, 60)
    assert not days.breaks(MONDAY + 24 * HOUR * np.arange(1, 4), np.ones((3, 4))).any()


def test_symbols_on_no_calendar_are_refused() -> None:
    for group in ([0, 2], [-1, 0], []):
        with pytest.raises(ValueError, match="group must"):
            TradingClock([NEW_YORK, LONDON], np.array(group, np.int64), MINUTE, 60)
    with pytest.raises(ValueError, match="bar_ns"):
        TradingClock([NEW_YORK], np.zeros(2, np.int64), 0, 60)


def week_of_bars(seed: int, missing: float = 0.1) -> tuple[StampedBlock, I64]:
    """Bars of five minutes over five days, in which some symbol ticked."""
    rng = np.random.default_rng(seed)
    time5 = clock(5 * MINUTE)
    ends = MONDAY + 5 * MINUTE * np.arange(1, 5 * 288 + 1)
    is_open = np.stack([time5.open_mask(ends - 1, np.full(len(ends), a)) for a in range(4)], axis=1)
    ticks = is_open & (rng.random(is_open.shape) >= missing)
    kept = ticks.any(axis=1)
    ends, ticks = ends[kept], ticks[kept]
    returns, exposure = np.full(ticks.shape, np.nan), np.zeros(ticks.shape)
    common = rng.standard_normal(len(ends))
    for i in range(4):
        at = np.flatnonzero(ticks[:, i])
        returns[at[1:], i] = common[at[1:]] + rng.standard_normal(len(at) - 1)
        exposure[at[1:], i] = np.diff(ends[at]) / (5 * MINUTE)
    age = np.where(ticks, rng.integers(0, 8, ticks.shape) / 8, np.nan)
    block = StampedBlock(ends, returns, exposure, time5.elapsed(NO_TIME, ends), age)
    return time5.cut(block), ends


def test_pairs_of_two_markets_are_sums_weighted_by_their_joint_open_time() -> None:
    block, ends = week_of_bars(seed=1)
    half_life = 40.0
    ewma = Ewma(4, half_life, "time", GROUP)
    ewma.update(block)
    known = ewma.correlation()
    calendars = [NEW_YORK, LONDON]
    minute = np.arange(MONDAY, int(ends[-1]), MINUTE)
    openings = [calendar.is_open(minute) for calendar in calendars]
    for i in range(4):
        for j in range(4):
            if i == j:
                continue
            both = openings[GROUP[i]] & openings[GROUP[j]]
            # bars of joint open time from the end of each bar to the end of the last
            age = np.array([both[minute >= end].sum() / 5.0 for end in ends])
            used = (block.exposure[:, i] > 0) & (block.exposure[:, i] == block.exposure[:, j])
            weight = np.exp2(-age / half_life) * used
            ri, rj = np.nan_to_num(block.returns[:, i]), np.nan_to_num(block.returns[:, j])
            corr = weight @ (ri * rj) / np.sqrt((weight @ ri**2) * (weight @ rj**2))
            spans = weight * block.exposure[:, i]
            # each of some thousand decays rounds once
            assert abs(known.corr[i, j] - corr) < 1e-12
            n_eff = spans.sum() ** 2 / (spans**2).sum()
            np.testing.assert_allclose(known.n_eff[i, j], n_eff, rtol=1e-11)


@pytest.mark.parametrize("kind", ["ewma", "two scales"])
def test_another_market_changes_nothing_within_one(kind: str) -> None:
    both, ends = week_of_bars(seed=2)
    own = clock(5 * MINUTE)
    for g, calendar in enumerate([NEW_YORK, LONDON]):
        members = np.flatnonzero(g == GROUP)
        rows = ~np.isnan(both.age[:, members]).all(axis=1)
        alone_clock = TradingClock([calendar], np.zeros(2, np.int64), own.bar_ns, own.gap_max_bars)
        pick = np.ix_(rows, members)
        alone = StampedBlock(
            ends[rows],
            both.returns[pick],
            both.exposure[pick],
            alone_clock.elapsed(NO_TIME, ends[rows]),
            both.age[pick],
        )
        whole: Estimator = TwoScale(4, 40.0, 6, "time", GROUP)
        part: Estimator = TwoScale(2, 40.0, 6, "time")
        if kind == "ewma":
            whole, part = Ewma(4, 40.0, "time", GROUP), Ewma(2, 40.0, "time")
        whole.update(both)
        part.update(alone)
        cut = np.ix_(members, members)
        got, wanted = whole.correlation(), part.correlation()
        # the rows in which only the other market ticked split one decay into two factors
        np.testing.assert_allclose(got.corr[cut], wanted.corr, rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.n_eff[cut], wanted.n_eff, rtol=1e-11)
        np.testing.assert_allclose(got.vol[members], wanted.vol, rtol=1e-11)


def test_two_scales_of_two_markets_find_the_correlation_of_their_common_hours() -> None:
    block, _ = week_of_bars(seed=3)
    two_scale = TwoScale(4, 10_000.0, 4, "time", GROUP)
    two_scale.update(block)
    known = two_scale.correlation()
    for i, j in ((0, 1), (0, 3), (2, 1), (2, 3)):
        # five days of two hours are 120 bars
        assert 20.0 < known.n_eff[i, j] < 120.0
        assert abs(known.corr[i, j] - 0.5) < 4.0 * known.band[i, j]
    assert known.n_eff[0, 2] > 2.0 * known.n_eff[0, 1]


def test_the_night_is_no_time_for_two_scales() -> None:
    """Windows begin anew at the open; a night between two days leaves no trace."""
    rng = np.random.default_rng(4)
    ny = TradingClock([NEW_YORK], np.zeros(2, np.int64), 5 * MINUTE, 10**6)
    day = MONDAY + 13 * HOUR + 30 * MINUTE + 5 * MINUTE * np.arange(1, 79)
    ends = np.concatenate([day, day + 24 * HOUR])
    returns = rng.standard_normal((156, 1)) + rng.standard_normal((156, 2))
    returns[0] = np.nan
    exposure = np.ones((156, 2))
    exposure[0], exposure[78] = 0.0, 211.0
    returns[78] = 50.0  # overnight
    block = ReturnBlock(ends, returns, exposure, ny.elapsed(NO_TIME, ends))
    assert (block.elapsed_bars == 1.0).all()
    cut = ny.cut(block)
    two_scale = TwoScale(2, 1e9, 6, "time")
    age = np.zeros((156, 2))
    stamped = StampedBlock(cut.time_ns, cut.returns, cut.exposure, cut.elapsed_bars, age)
    two_scale.update(stamped)
    products = 0.0
    for start in (1, 79):
        x = np.array(
            [returns[max(start, t - 5) : t + 1].sum(axis=0) for t in range(start, start + 77)]
        )
        products += float((x[:, 0] * x[:, 1]).sum())
    # one half-life of 1e9 bars loses 1e-7 over two days
    np.testing.assert_allclose(two_scale.state()["sums"][0, 1], products, rtol=1e-6)


def test_elapsed_of_other_groups_is_refused() -> None:
    returns: F64 = np.zeros((3, 4))
    exposure = np.ones((3, 4))
    for make in (Ewma(4, 5.0, group=GROUP), TwoScale(4, 5.0, 3, group=GROUP), Ewma(4, 5.0)):
        wrong = [np.ones((3, 3, 2)), np.ones((3, 2))]
        wrong.append(np.ones((3, 1, 1)) if make.group is not None else np.ones((3, 2, 2)))
        for elapsed in wrong:
            with pytest.raises(ValueError, match="elapsed_bars"):
                make.update(ReturnBlock(np.arange(3), returns, exposure, elapsed))
    for group in (np.array([0, 1]), np.array([0.5, 0, 0, 0]), np.array([-1, 0, 0, 0])):
        with pytest.raises(ValueError, match="group must"):
            Ewma(4, 5.0, group=group)
