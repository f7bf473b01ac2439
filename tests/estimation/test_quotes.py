"""The quote table: sides, sizes, crossed and gaping quotes, and what adjusting and saving do."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.estimation.quotes import QuoteTable
from stream_calib.kernels.quotes import CROSSED, PRICED, SPREAD, UNUSED
from stream_calib.values import F64, I64
from tests.kernels.test_quotes import rows_of

NAN = math.nan
Quote = tuple[float, float] | tuple[float, float, float, float]


def columns(quotes: Sequence[Quote], asset: int = 0) -> tuple[I64, F64, F64, F64, F64, F64]:
    """Rows of (bid, ask) or (bid, ask, bid size, ask size); no trades."""
    rows = np.array([(*q, NAN, NAN)[:4] for q in quotes]).reshape(-1, 4)
    nothing = np.full(len(rows), np.nan)
    bid, ask, bid_size, ask_size = (np.ascontiguousarray(c) for c in rows.T)
    return np.full(len(rows), asset), nothing, bid, ask, bid_size, ask_size


def quoted(table: QuoteTable, *quotes: Quote) -> list[tuple[int, float]]:
    price, code = table.price(*columns(quotes))
    return list(zip(code.tolist(), price.tolist(), strict=True))


def same(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> None:
    np.testing.assert_array_equal(np.array(found), np.array(wanted))


def settled(policy: str = "mid", *, positive: bool = True) -> QuoteTable:
    """A table whose symbol has had enough spreads of .01 to have a median."""
    table = QuoteTable(1, policy, positive=positive)
    quoted(table, *[(99.99, 100.0)] * 10)
    return table


def test_a_row_of_one_side_leaves_the_other_as_it_was() -> None:
    found = quoted(QuoteTable(1, "mid"), (99.0, NAN), (NAN, 101.0), (100.0, NAN), (NAN, 104.0))
    same(found, [(UNUSED, NAN), (PRICED, 100.0), (PRICED, 100.5), (PRICED, 102.0)])


def test_a_side_at_zero_is_not_there_until_it_is_quoted_again() -> None:
    table = QuoteTable(1, "mid")
    rows: list[Quote] = [(99.0, 101.0), (0.0, 101.0, 0.0, 5.0), (NAN, 102.0), (100.0, NAN)]
    same(quoted(table, *rows), [(PRICED, 100.0), (UNUSED, NAN), (UNUSED, NAN), (PRICED, 101.0)])


def test_where_prices_may_be_zero_a_side_is_gone_only_with_its_size() -> None:
    table = QuoteTable(1, "mid", positive=False)
    rows: list[Quote] = [(-1.0, 1.0), (0.0, 1.0), (0.0, 1.0, 3.0, 3.0), (0.0, 1.0, 0.0, 3.0)]
    same(quoted(table, *rows), [(PRICED, 0.0), (PRICED, 0.5), (PRICED, 0.5), (UNUSED, NAN)])


def test_a_microprice_leans_to_the_side_with_the_smaller_size() -> None:
    table = QuoteTable(1, "microprice")
    rows: list[Quote] = [
        (100.0, 104.0),  # no sizes: the middle
        (NAN, NAN, 300.0, 100.0),  # sizes alone
        (NAN, NAN, NAN, 300.0),
        (101.0, NAN),  # the size stays
        (NAN, NAN, 0.0, NAN),
    ]
    prices = [102.0, 103.0, 102.0, 102.5, 102.5]
    same(quoted(table, *rows), [(PRICED, p) for p in prices])


@given(st.floats(1e-9, 1e9), st.floats(0.0, 1.0), st.floats(1e-9, 1e300), st.floats(1e-9, 1e300))
def test_a_microprice_is_never_outside_the_quote(
    bid: float, width: float, bid_size: float, ask_size: float
) -> None:
    ask = bid * (1.0 + width)
    ((code, price),) = quoted(QuoteTable(1, "microprice"), (bid, ask, bid_size, ask_size))
    assert code == PRICED
    assert bid <= price <= ask * (1.0 + 4e-16)  # bid + (ask - bid) rounds twice


def test_the_last_trade_is_a_price_under_last_alone() -> None:
    trade = np.array([NAN, 5.0]), *[np.array([4.0, NAN])] * 2, *[np.full(2, NAN)] * 2
    for policy, wanted in (("last", [UNUSED, PRICED]), ("mid", [PRICED, UNUSED])):
        price, code = QuoteTable(1, policy).price(np.zeros(2, np.int64), *trade)
        assert code.tolist() == wanted
        np.testing.assert_array_equal(np.isnan(price), code == UNUSED)


def test_a_bid_that_moves_before_its_ask_makes_no_price_until_the_ask_follows() -> None:
    rows: list[Quote] = [(100.5, NAN), (NAN, 100.51), (NAN, 100.0), (99.99, NAN)]
    found = quoted(settled(), *rows)
    same(found, [(CROSSED, NAN), (PRICED, 100.505), (CROSSED, NAN), (PRICED, 99.995)])


def test_an_ask_that_moves_before_its_bid_is_believed_once_the_bid_follows() -> None:
    found = quoted(settled(), (NAN, 103.0), (102.99, NAN), (NAN, 103.01))
    assert found[0][0] == SPREAD
    same(found[1:], [(PRICED, 102.995), (PRICED, 103.0)])


def test_a_refused_side_is_not_believed_because_the_other_crosses_it() -> None:
    codes = [code for code, _ in quoted(settled(), (NAN, 103.0), (104.0, NAN), (102.0, NAN))]
    assert codes == [SPREAD, CROSSED, CROSSED]  # with 103 believed the last would be too wide


def test_a_gaping_quote_is_refused_and_the_one_before_stays() -> None:
    found = quoted(settled(), (0.01, 199_999.99), (NAN, 100.01), (NAN, NAN, 5.0, 5.0))
    assert [code for code, _ in found] == [SPREAD, PRICED, PRICED]
    assert [price for _, price in found[1:]] == [100.0, 100.0]


def test_fifty_medians_are_not_too_wide_and_a_little_more_is() -> None:
    (code, _), (other, _) = quoted(settled(), (99.5, 99.99), (99.49, 100.0))
    assert (code, other) == (PRICED, SPREAD)


def test_a_lasting_change_of_the_spread_is_believed_when_it_is_half_of_the_last_sixty() -> None:
    table = QuoteTable(1, "mid")
    quoted(table, *[(99.99, 100.0)] * 60)
    codes = [code for code, _ in quoted(table, *[(99.0, 101.0)] * 60)]
    assert codes == [SPREAD] * 30 + [PRICED] * 30
    sides = [(98.0, NAN), (NAN, 102.0)] * 3  # and one side at a time
    assert {code for code, _ in quoted(table, *sides)} == {PRICED}


def test_locked_quotes_are_prices_and_say_nothing_about_the_spread() -> None:
    table = settled()
    assert {code for code, _ in quoted(table, *[(100.0, 100.0)] * 100)} == {PRICED}
    assert quoted(table, (99.8, 100.2))[0][0] == PRICED


def test_a_split_and_a_roll_move_quote_and_spread() -> None:
    table = settled()
    table.adjust(0, factor=0.5)
    same(quoted(table, (NAN, NAN, 1.0, 1.0)), [(PRICED, 49.9975)])
    assert quoted(table, (49.5, 50.0))[0][0] == SPREAD  # half the limit
    table = settled(positive=False)
    table.adjust(0, offset=-100.0)
    ((code, price),) = quoted(table, (NAN, NAN, 1.0, 1.0))
    assert (code, round(price, 6)) == (PRICED, -0.005)


@pytest.mark.parametrize(
    ("factor", "offset"), [(0.0, 0.0), (-1.0, 0.0), (NAN, 0.0), (1.0, -100.0), (1.0, math.inf)]
)
def test_an_adjustment_that_leaves_no_price_is_refused(factor: float, offset: float) -> None:
    table = settled()
    before = {name: array.tobytes() for name, array in table.state().items()}
    with pytest.raises(ValueError, match="factor"):
        table.adjust(0, factor, offset)
    assert {name: array.tobytes() for name, array in table.state().items()} == before


def test_a_reset_symbol_is_as_new() -> None:
    table, new = QuoteTable(2, "mid"), QuoteTable(2, "mid")
    rows = columns([(99.99, 100.0)] * 20)
    other = columns([(9.0, 10.0)] * 3, asset=1)
    table.price(*rows)
    for each in (table, new):
        each.price(*other)
    table.reset(0)
    assert bits(table) == bits(new)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["mid", "microprice", "last"]), st.booleans())
def test_saving_changes_nothing_and_permuted_symbols_give_permuted_bits(
    seed: int, policy: str, positive: bool
) -> None:
    rows = rows_of(3, 120, seed)
    asset, *rest = (np.array(c) for c in zip(*rows, strict=True))
    price, bid, ask, bid_size, ask_size = (c.astype(np.float64) for c in rest)
    order = np.random.default_rng(seed).permutation(3)
    tables = [QuoteTable(3, policy, 20.0, 10, positive=positive) for _ in range(3)]
    plain, saved, turned = tables
    for part in (slice(0, 50), slice(50, 120)):
        own = [np.ascontiguousarray(c[part]) for c in (price, bid, ask, bid_size, ask_size)]
        wanted = plain.price(asset[part], *own)
        saved = QuoteTable.from_state(saved.state())
        for found in (
            saved.price(asset[part], *own),
            turned.price(np.argsort(order)[asset[part]], *own),
        ):
            assert found.code.tobytes() == wanted.code.tobytes()
            assert found.price.tobytes() == wanted.price.tobytes()
    assert bits(saved) == bits(plain)
    state = plain.state()
    by_symbol = {name: state[name][..., order] for name in ("tables", "spreads", "counts")}
    assert bits(turned) == {name: a.tobytes() for name, a in (state | by_symbol).items()}


def test_a_policy_or_a_number_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"policy": "vwap"}, {"spread_max": 0.0}, {"k": 9}, {"n": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            QuoteTable(**({"n": 2, "policy": "mid"} | wrong))  # type: ignore[arg-type]


def bits(table: QuoteTable) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in table.state().items()}
