"""The filter of bad ticks equals the story of each symbol, in any cut at the ends of bars."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.kernels.filtering import (
    ABSOLUTE,
    CONFIRMED,
    CONFIRMED_LATE,
    HELD,
    KEEP,
    NONE,
    OUTLIER,
    REFUTED,
    RELATIVE,
    judge_ticks,
)
from stream_calib.values import F64, I64
from tests.oracles import filtering as oracle
from tests.oracles.filtering import Fate, Rules, Tick

COMPILED = hasattr(judge_ticks, "signatures")
BAR_NS = 10


class State(NamedTuple):
    """What the kernel carries from call to call."""

    windows: F64
    counts: I64
    level: F64
    held: F64
    held_mark: I64

    @classmethod
    def nothing(cls, n: int, k: int) -> "State":
        level = np.full((3, n), np.nan)
        level[1] = 0.0
        return cls(
            np.full((2, n, k + 1), np.inf),
            np.zeros((4, n), dtype=np.int64),
            level,
            np.full(n, np.nan),
            np.zeros((2, n), dtype=np.int64),
        )


def judged(ticks: list[Tick], rules: Rules, state: State) -> tuple[list[int], list[int]]:
    code = np.full(len(ticks), 99, dtype=np.int8)
    resolved = np.full(len(state.held), 99, dtype=np.int8)
    judge_ticks(
        np.array([t.time_ns for t in ticks], dtype=np.int64),
        np.array([t.asset for t in ticks], dtype=np.int64),
        np.array([t.price for t in ticks], dtype=np.float64),
        BAR_NS,
        RELATIVE if rules.relative else ABSOLUTE,
        rules.sigmas,
        rules.grains,
        rules.reversal,
        rules.rough,
        *state,
        code,
        resolved,
    )
    return code.tolist(), resolved.tolist()


def expected(
    ticks: list[Tick], fates: list[Fate], n: int, start: int, stop: int
) -> tuple[list[int], list[int]]:
    """What one call on the rows from ``start`` to ``stop`` has to say."""
    codes = []
    for row in range(start, stop):
        good, judge = fates[row]
        if judge is None or judge >= stop:
            codes.append(HELD)
        elif not good:
            codes.append(OUTLIER)
        else:
            late = ticks[judge].time_ns // BAR_NS != ticks[row].time_ns // BAR_NS
            codes.append(CONFIRMED_LATE if late else KEEP)
    resolved = [NONE] * n
    for row in range(start):
        good, judge = fates[row]
        if judge is not None and start <= judge < stop:
            resolved[ticks[row].asset] = CONFIRMED if good else REFUTED
    return codes, resolved


@st.composite
def histories(draw: st.DrawFn, n: int) -> list[Tick]:
    """Prices that mostly wander, with jumps, bad ticks, repeats, standstills and non-prices."""
    seed, m = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 150 if COMPILED else 60))
    rng = np.random.default_rng(seed)
    level = np.full(n, 100.0)
    ticks: list[Tick] = []
    time_ns = 1000
    grid = draw(st.booleans())
    for _ in range(m):
        time_ns += int(rng.choice([0, 0, 1, 2, 15]))
        i = int(rng.integers(n))
        kind = rng.random()
        if kind < 0.7:
            level[i] += rng.choice([-0.01, 0.0, 0.01]) if grid else rng.normal() * 0.01
        elif kind < 0.78:
            level[i] += rng.choice([-1.0, 1.0]) * rng.choice([0.1, 0.5, 2.0, 30.0])
        price = float(level[i])
        if 0.78 <= kind < 0.9:
            price += float(rng.choice([-1.0, 1.0]) * rng.choice([0.1, 0.5, 2.0, 200.0]))
        elif kind > 0.98:
            price = float(rng.choice([math.nan, math.inf, 0.0, -0.0, -5.0]))
        ticks.append(Tick(time_ns, i, price))
        if kind > 0.93:
            ticks.append(ticks[-1])
    return ticks


every_rules = st.builds(
    Rules,
    relative=st.booleans(),
    k=st.sampled_from([10, 11, 17]),
    sigmas=st.sampled_from([3.0, 8.0]),
    grains=st.sampled_from([0.5, 2.0]),
    reversal=st.sampled_from([0.5, 0.8]),
    rough=st.sampled_from([1e-3, 0.1, math.inf]),
)
sizes = st.integers(1, 4)


@given(sizes, every_rules, st.data())
def test_every_call_says_what_the_story_says(n: int, rules: Rules, data: st.DataObject) -> None:
    ticks = data.draw(histories(n))
    fates = oracle.judge(ticks, rules)
    bars = [tick.time_ns // BAR_NS for tick in ticks]
    ends = [row for row in range(1, len(ticks)) if bars[row] != bars[row - 1]]
    chosen = data.draw(st.lists(st.sampled_from(ends), max_size=6) if ends else st.just([]))
    cuts = [0, *sorted(chosen), len(ticks)]
    state = State.nothing(n, rules.k)
    for start, stop in pairwise(cuts):
        said = judged(ticks[start:stop], rules, state)
        assert said == expected(ticks, fates, n, start, stop)


@given(sizes, every_rules, st.data())
def test_what_is_sampled_and_the_state_do_not_depend_on_the_cut(
    n: int, rules: Rules, data: st.DataObject
) -> None:
    ticks = data.draw(histories(n))
    whole, bar_by_bar = State.nothing(n, rules.k), State.nothing(n, rules.k)
    codes, _ = judged(ticks, rules, whole)
    pieces: list[int] = []
    for bar in sorted({tick.time_ns // BAR_NS for tick in ticks}):
        rows = [tick for tick in ticks if tick.time_ns // BAR_NS == bar]
        pieces += judged(rows, rules, bar_by_bar)[0]
    assert [code == KEEP for code in codes] == [code == KEEP for code in pieces]
    assert [a.tobytes() for a in whole] == [a.tobytes() for a in bar_by_bar]


@given(sizes, every_rules, st.data())
def test_the_sorted_window_is_the_ring_in_order(n: int, rules: Rules, data: st.DataObject) -> None:
    state = State.nothing(n, rules.k)
    judged(data.draw(histories(n)), rules, state)
    np.testing.assert_array_equal(state.windows[1], np.sort(state.windows[0], axis=1))


def test_the_histories_of_this_suite_bring_about_every_verdict() -> None:
    rules = Rules(relative=True, k=17, sigmas=8.0, grains=2.0, reversal=0.8, rough=0.1)
    rng = np.random.default_rng(11)
    prices = 100.0 + np.cumsum(rng.choice([-0.01, 0.0, 0.01], 400))
    prices[50], prices[100], prices[199], prices[299:] = 150.0, 50.0, 120.0, 300.0
    ticks = [Tick(int(t), 0, float(p)) for t, p in enumerate(prices)]
    state = State.nothing(1, 17)
    codes, _ = judged(ticks, rules, state)
    assert {t: code for t, code in enumerate(codes) if code != KEEP} == {
        50: OUTLIER,
        100: OUTLIER,
        199: OUTLIER,
        299: CONFIRMED_LATE,  # the last of its bar
    }
    state = State.nothing(1, 17)
    assert judged(ticks[:200], rules, state)[0][199] == HELD
    assert judged(ticks[200:300], rules, state) == ([KEEP] * 99 + [HELD], [REFUTED])
    assert judged([], rules, state) == ([], [NONE])
    assert judged(ticks[300:], rules, state) == ([KEEP] * 100, [CONFIRMED])
