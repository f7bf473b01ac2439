"""Lean's files of real days, held against what pandas reads from the same zips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from tests.contract.test_files_lean import NEW_YORK, at, decoded, ticks_of, values_of


def read_with_pandas(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    rows = pd.read_csv(path, header=None, names=list(columns), compression="zip")
    midnight = pd.Timestamp(path.name[:8])
    clock = midnight + pd.to_timedelta(rows["ms"], unit="ms")
    rows["ns"] = clock.dt.tz_localize("America/New_York").dt.as_unit("ns").astype("int64")
    return rows


TRADE = ("ms", "price", "size", "exchange", "condition", "suspicious")
QUOTE = ("ms", "bid", "bid_size", "ask", "ask_size", "exchange", "condition", "suspicious")
# Rows, then milliseconds since midnight and price in 1/10000 of the first and the last.
REAL_TRADES = {
    ("spy", "20131007"): (250_601, 14_400_464, 1_674_100, 71_999_536, 1_673_000),
    ("spy", "20131008"): (451_545, 14_417_034, 1_674_200, 71_998_962, 1_659_500),
    ("bac", "20131007"): (88_172, 14_400_614, 139_400, 71_993_464, 138_100),
    ("bac", "20131008"): (125_872, 21_548_450, 138_000, 71_993_231, 137_800),
    ("ibm", "20131007"): (24_293, 14_430_270, 1_815_200, 69_967_550, 1_819_900),
    ("ibm", "20131008"): (33_381, 31_669_457, 1_821_000, 69_836_822, 1_795_500),
    ("aig", "20131007"): (25_351, 14_400_688, 491_800, 71_997_520, 487_900),
    ("aig", "20131008"): (43_342, 27_596_477, 488_000, 71_915_958, 478_600),
}


@pytest.mark.parametrize(("symbol", "day"), REAL_TRADES)
def test_real_trades_are_what_pandas_reads(market_data: Path, symbol: str, day: str) -> None:
    path = market_data / "ticks" / "lean" / "equity" / "usa" / "tick" / symbol / f"{day}_trade.zip"
    values = values_of(path)
    ticks = decoded(values)
    rows = read_with_pandas(path, TRADE)
    assert ticks.malformed == ()
    assert set(ticks.asset) == {["SPY", "BAC", "IBM", "AIG"].index(symbol.upper())}
    np.testing.assert_array_equal(ticks.time_ns, rows["ns"])
    np.testing.assert_array_equal(ticks.price, rows["price"] / 1e4)
    n, *ends = REAL_TRADES[symbol, day]
    assert len(values) == n
    midnight = at(NEW_YORK, int(day[:4]), int(day[4:6]), int(day[6:]))
    for i, (milliseconds, price) in zip((0, -1), (ends[:2], ends[2:]), strict=True):
        tick = orjson.loads(values[i])
        assert tick["time"] == midnight + milliseconds * 1_000_000
        assert tick["price"] == price / 10_000


def test_real_quotes_are_pairs_of_rows(market_data: Path) -> None:
    path = market_data / "ticks" / "lean" / "equity" / "usa" / "tick" / "ibm" / "20131007_quote.zip"
    rows = read_with_pandas(path, QUOTE)
    assert len(rows) == 109_067
    assert ((rows["bid"] > 0) != (rows["ask"] > 0)).all()  # one side each
    # the first is an ask on its own; after it a bid and an ask of one time take turns
    alone, bids, asks = rows.iloc[0], rows.iloc[1::2], rows.iloc[2::2]
    assert (bids["bid"] > 0).all()
    assert (bids["ns"].to_numpy() == asks["ns"].to_numpy()).all()
    ticks = decoded(values_of(path))
    assert ticks.malformed == ()
    assert len(ticks.time_ns) == 54_534
    assert (ticks.time_ns[0], ticks.bid[0], ticks.ask[0]) == (alone["ns"], 0.0, alone["ask"] / 1e4)
    np.testing.assert_array_equal(ticks.time_ns[1:], bids["ns"])
    np.testing.assert_array_equal(ticks.bid[1:], bids["bid"] / 1e4)
    np.testing.assert_array_equal(ticks.ask[1:], asks["ask"] / 1e4)


@pytest.mark.parametrize(
    ("symbol", "n"), [("spy", 27_409), ("bac", 18_817), ("ibm", 11_676), ("aig", 19_775)]
)
def test_real_bars_of_quotes_are_what_pandas_reads(market_data: Path, symbol: str, n: int) -> None:
    folder = market_data / "ticks" / "lean" / "equity" / "usa" / "second" / symbol
    path = folder / "20131007_quote.zip"
    rows = read_with_pandas(path, ("ms", *(f"{i}" for i in range(10))))
    ticks = decoded(values_of(path))
    assert len(ticks.time_ns) == n
    np.testing.assert_array_equal(ticks.time_ns, rows["ns"] + 1_000_000_000)
    np.testing.assert_array_equal(ticks.bid, rows["3"] / 1e4)
    np.testing.assert_array_equal(ticks.ask, rows["8"] / 1e4)


@pytest.mark.parametrize("pair", ["eurusd", "nzdusd"])
def test_real_quotes_of_two_brokers_agree_in_universal_time(market_data: Path, pair: str) -> None:
    step_ns, hour_ns = 30 * 1_000_000_000, 3600 * 1_000_000_000
    quotes = {}
    for broker in ("oanda", "fxcm"):
        folder = market_data / "ticks" / "lean" / "forex" / broker / "tick" / pair
        table = pd.DataFrame(ticks_of(folder / "20140507_quote.zip"))
        assert set(table["symbol"]) == {f"{broker}:{pair}".upper()}
        quotes[broker] = table[table["bid"] <= table["ask"]]  # FXCM has crossed rows

    def correlation(later_ns: int) -> float:
        mids = []
        for broker, shift_ns in (("oanda", 0), ("fxcm", later_ns)):
            table = quotes[broker]
            bars = (table["time"] + shift_ns) // step_ns
            mids.append(((table["bid"] + table["ask"]) / 2).groupby(bars).last())
        both = pd.concat(mids, axis=1).dropna().to_numpy()
        return float(np.corrcoef(np.diff(np.log(both), axis=0).T)[0, 1])

    assert correlation(0) > 0.97  # measured: .980 and .978
    assert abs(correlation(-hour_ns)) < 0.1  # so it would be by New York's clock, in summer time
    assert abs(correlation(-5 * hour_ns)) < 0.1  # and so if FXCM's were UTC
