"""The sampler: bars from ticks, in any cut, and what it remembers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.sampling import Sampler, Ticks
from stream_calib.values import F64, I64, NO_TIME

BAR_NS = 10


def ticks(*rows: tuple[int, int, float]) -> Ticks:
    """Ticks from (time_ns, asset, price)."""
    return Ticks(
        np.array([time_ns for time_ns, _, _ in rows], dtype=np.int64),
        np.array([asset for _, asset, _ in rows], dtype=np.int64),
        np.array([price for _, _, price in rows], dtype=np.float64),
        np.zeros(len(rows), dtype=np.int64),
    )


def numbers(*bars: int) -> tuple[I64, F64]:
    """Bar numbers, one bar apart in trading time."""
    return np.array(bars, dtype=np.int64), np.ones(len(bars))


def sampler(n: int = 2, stale_bars: int = 5, return_type: str = "log") -> Sampler:
    return Sampler(n, BAR_NS, stale_bars, return_type)


def test_the_last_price_of_a_bar_counts() -> None:
    block = sampler().sample(
        ticks((0, 0, 100.0), (9, 0, 200.0), (10, 0, 300.0), (19, 0, 400.0)), *numbers(0, 1)
    )
    assert block.returns[1, 0] == np.log(2.0)


def test_a_bar_holds_its_start_and_not_its_end() -> None:
    block = sampler().sample(ticks((9, 0, 100.0), (10, 0, 110.0)), *numbers(0, 1))
    assert block.exposure[:, 0].tolist() == [0.0, 1.0]
    assert block.time_ns.tolist() == [10, 20]


@pytest.mark.parametrize(
    ("return_type", "expected"), [("log", np.log(0.75)), ("simple", -0.25), ("diff", -25.0)]
)
def test_returns_are_of_the_kind_asked_for(return_type: str, expected: float) -> None:
    both = ticks((0, 0, 100.0), (10, 0, 75.0))
    block = sampler(return_type=return_type).sample(both, *numbers(0, 1))
    assert block.returns[1, 0] == expected


def test_differences_of_negative_prices_are_returns() -> None:
    both = ticks((0, 0, -2.0), (10, 0, 3.0))
    block = sampler(return_type="diff").sample(both, *numbers(0, 1))
    assert block.returns[1, 0] == 5.0


def test_a_return_over_missing_bars_says_how_many_it_spans() -> None:
    block = sampler().sample(ticks((0, 0, 100.0), (30, 0, 200.0)), *numbers(0, 1, 2, 3))
    assert block.exposure[:, 0].tolist() == [0.0, 0.0, 0.0, 3.0]
    assert np.isnan(block.returns[:3, 0]).all()
    assert block.returns[3, 0] == np.log(2.0)


def test_a_price_too_old_is_no_basis_but_the_new_one_is() -> None:
    block = sampler(stale_bars=2).sample(
        ticks((0, 0, 100.0), (30, 0, 200.0), (40, 0, 400.0)), *numbers(0, 3, 4)
    )
    assert np.isnan(block.returns[1, 0])
    assert block.exposure[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert block.returns[2, 0] == np.log(2.0)


def test_symbols_are_strangers_to_each_other() -> None:
    both = sampler().sample(ticks((0, 0, 100.0), (5, 1, 7.0), (12, 0, 200.0)), *numbers(0, 1))
    alone = sampler().sample(ticks((0, 0, 100.0), (12, 0, 200.0)), *numbers(0, 1))
    assert both.returns[:, 0].tobytes() == alone.returns[:, 0].tobytes()
    assert np.isnan(both.returns[:, 1]).all()


def test_trading_time_is_handed_through() -> None:
    elapsed = np.array([1.0, 3600.0])
    block = sampler().sample(ticks((0, 0, 1.0)), np.array([0, 9]), elapsed)
    assert block.elapsed_bars.tobytes() == elapsed.tobytes()


def test_an_exact_repetition_is_counted_and_changes_nothing() -> None:
    once, twice = sampler(), sampler()
    first, second = (3, 0, 100.0), (13, 0, 110.0)
    one = once.sample(ticks(first, second), *numbers(0, 1))
    two = twice.sample(ticks(first, first, second, second), *numbers(0, 1))
    assert one.returns.tobytes() == two.returns.tobytes()
    assert (once.duplicates, twice.duplicates) == (0, 2)


def test_a_trade_of_another_id_is_no_repetition() -> None:
    own, both = sampler(), ticks((3, 0, 100.0), (3, 0, 100.0))
    own.sample(both._replace(ident=np.array([1, 2])), *numbers(0))
    assert own.duplicates == 0


def test_a_repetition_is_recognised_in_the_next_block() -> None:
    own = sampler()
    own.sample(ticks((3, 0, 100.0)), *numbers(0))
    own.sample(ticks((3, 0, 100.0)), *numbers(0))
    assert own.duplicates == 1


@given(
    st.lists(st.tuples(st.integers(0, 199), st.integers(0, 2), st.floats(0.5, 2.0)), max_size=40),
    st.integers(0, 20),
)
def test_any_cut_gives_the_same_bits(rows: list[tuple[int, int, float]], middle: int) -> None:
    rows.sort(key=lambda row: row[0])
    whole, cut = sampler(n=3), sampler(n=3)
    block = whole.sample(ticks(*rows), *numbers(*range(20)))
    parts = [
        cut.sample(ticks(*(r for r in rows if r[0] // BAR_NS in bars)), *numbers(*bars))
        for bars in (range(middle), range(middle, 20))
    ]
    assert np.vstack([part.returns for part in parts]).tobytes() == block.returns.tobytes()
    assert np.vstack([part.exposure for part in parts]).tobytes() == block.exposure.tobytes()
    whole_state, cut_state = whole.state(), cut.state()
    assert {k: v.tobytes() for k, v in whole_state.items()} == {
        k: v.tobytes() for k, v in cut_state.items()
    }
    assert cut.duplicates == whole.duplicates


def test_no_bars_give_an_empty_block() -> None:
    block = sampler(n=3).sample(ticks(), *numbers())
    assert block.returns.shape == block.exposure.shape == (0, 3)


def test_a_new_sampler_knows_nothing() -> None:
    state = sampler().state()
    assert np.isnan(state["last_price"]).all()
    assert (state["last_bar"] == -1).all()
    assert (state["last_time_ns"] == NO_TIME).all()


def test_a_saved_state_is_a_copy() -> None:
    own = sampler()
    for array in own.state().values():
        array[...] = 7
    assert np.isnan(own.last_price).all()
