"""The quote table equals two dictionaries of sides, in any cut, and its windows stay in order."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.kernels.quotes import (
    CROSSED,
    LAST,
    MICROPRICE,
    MID,
    PRICED,
    SPREAD,
    UNUSED,
    price_ticks,
)
from stream_calib.values import F64, I64
from tests.oracles import quotes as oracle
from tests.oracles.quotes import Row

COMPILED = hasattr(price_ticks, "signatures")
POLICIES = {"last": LAST, "mid": MID, "microprice": MICROPRICE}
CODES = {"priced": PRICED, "unused": UNUSED, "crossed": CROSSED, "spread": SPREAD}


class State(NamedTuple):
    """What the kernel carries from call to call."""

    tables: F64
    windows: F64
    counts: I64

    @classmethod
    def nothing(cls, n: int, k: int) -> "State":
        windows = np.full((2, n, k + 1), np.inf)
        return cls(np.full((2, 4, n), np.nan), windows, np.zeros((2, n), dtype=np.int64))


class Rules(NamedTuple):
    """How rows are priced."""

    policy: str
    spread_max: float
    k: int
    positive: bool


def priced(rows: list[Row], rules: Rules, state: State) -> tuple[list[int], list[float]]:
    code, price = np.full(len(rows), 99, dtype=np.int8), np.full(len(rows), 7.0)
    trade, bid, ask, bid_size, ask_size = (
        np.array([row[c] for row in rows], dtype=np.float64) for c in range(1, 6)
    )
    price_ticks(
        np.array([row.asset for row in rows], dtype=np.int64),
        trade,
        bid,
        ask,
        bid_size,
        ask_size,
        POLICIES[rules.policy],
        not rules.positive,
        rules.spread_max,
        state.tables,
        state.windows,
        state.counts,
        price,
        code,
    )
    return code.tolist(), price.tolist()


def rows_of(n: int, m: int, seed: int) -> list[Row]:
    """Trades, single sides, both, sizes alone, sides that go away; quotes that cross and gape."""
    rng = np.random.default_rng(seed)
    middle = rng.choice([0.0, 5.0, 100.0]) * np.ones(n)
    rows = []
    for _ in range(m):
        i = int(rng.integers(n))
        middle[i] += rng.choice([-0.02, 0.0, 0.02])
        half = float(rng.choice([0.0, 0.01, 0.01, 0.02, -0.01, 0.3, 4.0]))
        bid, ask = float(middle[i]) - half, float(middle[i]) + half
        bid_size, ask_size = rng.choice([math.nan, 0.0, 1.0, 300.0], 2)
        trade = float(middle[i]) if rng.random() < 0.3 else math.nan
        kind = rng.random()
        if kind < 0.2:
            bid = math.nan
        elif kind < 0.4:
            ask = math.nan
        elif kind < 0.5:
            bid = ask = math.nan
        elif kind < 0.6:
            bid, bid_size = 0.0, float(rng.choice([0.0, math.nan]))
        elif kind < 0.65:
            bid = ask = bid_size = ask_size = math.nan
        rows.append(Row(i, trade, bid, ask, float(bid_size), float(ask_size)))
    return rows


every_rules = st.builds(
    Rules,
    policy=st.sampled_from(sorted(POLICIES)),
    spread_max=st.sampled_from([2.0, 20.0]),
    k=st.sampled_from([10, 11, 20]),
    positive=st.booleans(),
)
sizes = st.integers(1, 3)
lengths = st.integers(0, 150 if COMPILED else 60)
seeds = st.integers(0, 2**32 - 1)


@given(sizes, lengths, seeds, every_rules)
def test_every_row_is_priced_as_the_dictionaries_price_it(
    n: int, m: int, seed: int, rules: Rules
) -> None:
    rows = rows_of(n, m, seed)
    codes, prices = priced(rows, rules, State.nothing(n, rules.k))
    wanted = list(
        oracle.price(rows, rules.policy, rules.spread_max, rules.k, positive=rules.positive)
    )
    assert codes == [CODES[code] for code, _ in wanted]
    np.testing.assert_array_equal(prices, [math.nan if p is None else p for _, p in wanted])


@given(sizes, lengths, seeds, every_rules, st.data())
def test_any_cut_gives_the_same_prices_and_the_same_state(
    n: int, m: int, seed: int, rules: Rules, data: st.DataObject
) -> None:
    rows = rows_of(n, m, seed)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, m), max_size=4))), m]
    whole, parts = State.nothing(n, rules.k), State.nothing(n, rules.k)
    codes, prices = priced(rows, rules, whole)
    for start, stop in pairwise(cuts):
        some = priced(rows[start:stop], rules, parts)
        assert some[0] == codes[start:stop]
        np.testing.assert_array_equal(some[1], prices[start:stop])
    assert [a.tobytes() for a in whole] == [a.tobytes() for a in parts]


@given(sizes, lengths, seeds, every_rules)
def test_the_sorted_window_is_the_ring_in_order(n: int, m: int, seed: int, rules: Rules) -> None:
    state = State.nothing(n, rules.k)
    priced(rows_of(n, m, seed), rules, state)
    np.testing.assert_array_equal(state.windows[1], np.sort(state.windows[0], axis=1))


@pytest.mark.parametrize("policy", ["mid", "microprice"])
def test_the_rows_of_this_suite_bring_about_every_code(policy: str) -> None:
    rules = Rules(policy, 20.0, 20, positive=True)
    codes, _ = priced(rows_of(1, 400, seed=3), rules, State.nothing(1, 20))
    assert set(codes) == {PRICED, UNUSED, CROSSED, SPREAD}
