"""Tables with one column per symbol, and tables of other tools, as a record log."""

import gzip
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.adapters.files.tables import is_wide
from stream_calib.values import RecordBatch, Source
from stream_calib.wire.ticks import decode


def values_of(path: Path, at_once: int = 1000) -> list[bytes]:
    source = FileSource([path])
    assert source.open() == (Source(path.name, 0),)
    values: list[bytes] = []
    while not source.exhausted():
        for batch in source.take(at_once):
            values += [value or b"" for value in batch.values]
    source.release()
    return values


def written(folder: Path, content: str) -> Path:
    path = folder / "bars.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize("at_once", [1, 1000])
def test_each_cell_that_is_not_empty_is_a_tick(tmp_path: Path, at_once: int) -> None:
    path = written(
        tmp_path,
        "ts_ms,BTC_USDT, ETH_USDT ,XRP\n1618085520000,58000.5,,1\n1618085580000,,,\n"
        "\n1618085640000,58001,2100.25,2.33e-05\n",
    )
    assert values_of(path, at_once) == [
        b'{"symbol":"BTC_USDT","time":1618085520000000000,"price":58000.5}',
        b'{"symbol":"XRP","time":1618085520000000000,"price":1}',
        b'{"symbol":"BTC_USDT","time":1618085640000000000,"price":58001}',
        b'{"symbol":"ETH_USDT","time":1618085640000000000,"price":2100.25}',
        b'{"symbol":"XRP","time":1618085640000000000,"price":0.0000233}',
    ]


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1618085520000", 1618085520_000000000),
        ("1618085520", 1618085520_000000000),
        ("1618085520.25", 1618085520_250000000),
        ("1618085520000000123", 1618085520_000000123),
        ("2021-04-10", 1618012800_000000000),
        ("2021-04-10 20:12", 1618085520_000000000),
        ("2021-04-10T20:12:00", 1618085520_000000000),
        ("2021-04-10 20:12:00.123456789", 1618085520_123456789),
        ("2021-04-10T20:12:00Z", 1618085520_000000000),
        ("2021-04-10T16:12:00-04:00", 1618085520_000000000),
    ],
)
@pytest.mark.parametrize("name", ["ts_ms", "ts_utc", "time", "timestamp", "Date", "datetime", ""])
def test_times_of_a_wide_table_are_utc_where_they_have_no_zone(
    tmp_path: Path, name: str, text: str, time_ns: int
) -> None:
    (value,) = values_of(written(tmp_path, f"{name},A\n{text},1\n"))
    assert orjson.loads(value) == {"symbol": "A", "time": time_ns, "price": 1}


@pytest.mark.parametrize(
    ("header", "wide"),
    [
        ("ts_ms,A,B", True),
        ("Date,AAPL", True),
        (",A,B", True),
        ("time,symbol,price", False),
        ("time,symbol", False),
        ("ts_ms,symbol", False),
        ("time,bid,ask", False),
        ("time,timestamp,note", False),
        ("date,last", False),
        ("DATE,OPEN,HIGH,LOW,CLOSE", False),
        ("ts_utc,SYMBOL,PRICE,SIZE", False),
        ("ret_pct,monday", False),
        ("time", False),
        ("A,B", False),
        ("", False),
    ],
)
def test_a_table_is_wide_by_its_header(header: str, wide: bool) -> None:
    assert is_wide(header.split(",")) is wide


def test_rows_of_a_wide_table_that_cannot_be_read_are_left_to_be_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, "time,A,B\n1618085520,1\nsoon,1,2\n1618085520,x,2\n")
    values = values_of(path)
    assert values == [
        b"1618085520,1",
        b"soon,1,2",
        b'{"symbol":"A","time":1618085520000000000,"price":"x"}',
        b'{"symbol":"B","time":1618085520000000000,"price":2}',
    ]
    batch = RecordBatch(Source("t", 0), 0, 4, range(4), [-1] * 4, values)
    ticks = decode(batch, "native", {"A": 0, "B": 1})
    assert [bad.row for bad in ticks.malformed] == [0, 1, 2]
    assert ticks.price.tolist() == [2.0]


def test_names_of_other_tools_become_those_of_native_ticks(tmp_path: Path) -> None:
    path = written(
        tmp_path, "ts_utc,SYMBOL,PRICE,SIZE\n2014-09-17T09:30:00.531656,ETF,23.82,3\n,ETF,1,1\n"
    )
    assert values_of(path) == [
        b'{"time":"2014-09-17T09:30:00.531656Z","symbol":"ETF","price":23.82,"SIZE":3}',
        b'{"symbol":"ETF","price":1,"SIZE":1}',
    ]


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("binance_1m_close_40pairs_20210410_20210520.csv.gz", 40),
        ("binance_5m_close_16pairs_20201201_20210717.csv.gz", 16),
        ("R_sampleOneMinuteData_2sym.csv.gz", 2),
    ],
)
def test_real_bars_are_what_pandas_reads(market_data: Path, name: str, symbols: int) -> None:
    path, most = market_data / "bars" / name, 60_000
    source = FileSource([path])
    source.open()
    (batch,) = source.take(most)
    source.release()
    table = pd.read_csv(path, nrows=most)
    assert table.shape[1] == symbols + 1
    in_ms = table.columns[0] == "ts_ms"
    times = pd.to_datetime(table.iloc[:, 0], unit="ms" if in_ms else None)
    prices = table.iloc[:, 1:].to_numpy()
    row, column = (places[:most] for places in np.nonzero(~np.isnan(prices)))
    ticks = decode(batch, "native", {symbol: i for i, symbol in enumerate(table.columns[1:])})
    assert ticks.malformed == ()
    np.testing.assert_array_equal(ticks.asset, column)
    np.testing.assert_array_equal(ticks.time_ns, times.dt.as_unit("ns").astype("int64")[row])
    np.testing.assert_array_equal(ticks.price, prices[row, column])


def test_the_real_day_of_three_symbols_is_read(market_data: Path) -> None:
    path = market_data / "ticks" / "R_sampleMultiTradeData_3sym.csv.gz"
    values = values_of(path, at_once=100_000)
    m = len(values)
    batch = RecordBatch(Source("t", 0), 0, m, range(m), [-1] * m, values)
    ticks = decode(batch, "native", {"AAA": 0, "BBB": 1, "ETF": 2})
    assert ticks.malformed == ()
    assert np.bincount(ticks.asset).tolist() == [7_848, 19_540, 16_193]
    with gzip.open(path, "rt") as file:
        first = file.readlines()[1].split(",")
    assert ticks.time_ns[0] == pd.Timestamp(first[0]).value
    assert ticks.price[0] == float(first[2])


@pytest.mark.parametrize("at", [0, 1, 500, 4999])
@pytest.mark.parametrize("cell", ['"q,1"', '"two\nlines"', "plain"])
def test_a_quoted_cell_anywhere_changes_no_other_row(tmp_path: Path, at: int, cell: str) -> None:
    rows = [f"{1618085520 + i},A,{i}.5,x" for i in range(5000)]
    rows[at] = rows[at].replace("x", cell)
    values = values_of(written(tmp_path, "\n".join(["time,symbol,price,note", *rows])))
    assert len(values) == 5000
    for i, value in enumerate(values):
        note = cell.strip('"') if i == at else "x"
        tick = {"time": 1618085520 + i, "symbol": "A", "price": i + 0.5, "note": note}
        assert orjson.loads(value) == tick
