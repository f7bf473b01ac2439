"""Parquet and Arrow files as a record log: the records of the CSV that says the same."""

import csv
import datetime
import decimal
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stream_calib as sc
from stream_calib.adapters.files import FileSource, arrow
from stream_calib.errors import InputError
from stream_calib.values import Source
from tests.contract.test_files_lean import batches_of, values_of

pa = pytest.importorskip("pyarrow", reason="the extra arrow is not installed")
from pyarrow import feather, parquet  # noqa: E402  after it is known to be there

NS = 1_625_291_738_000_000_000


def of_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[object]]) -> list[bytes]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        cells = ["" if value is None or value != value else value for value in row]
        writer.writerow([repr(cell) if isinstance(cell, float) else cell for cell in cells])
    path.write_text(text.getvalue())
    return values_of(path)


def of_parquet(path: Path, table: Any, **options: Any) -> list[bytes]:
    parquet.write_table(table, path, **options)
    return values_of(path)


PRICES = st.floats(1e-9, 1e12) | st.none() | st.just(math.nan) | st.integers(1, 9).map(float)
TIMES = st.integers(NS, NS + 10**15)


@given(
    rows=st.lists(
        st.tuples(
            TIMES,
            st.sampled_from(["SIM:A", "ü,\n", '"', "007", "12"]),
            PRICES,
            PRICES,
            st.none() | st.integers(0, 2**62),
        ),
        min_size=1,
        max_size=40,
    ),
    row_group=st.integers(1, 50),
    dictionary=st.booleans(),
)
def test_a_table_of_ticks_gives_the_records_of_its_csv(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[Any, ...]],
    row_group: int,
    dictionary: bool,
) -> None:
    folder = tmp_path_factory.mktemp("ticks")
    names = ("timestamp", "symbol", "Bid", "price", "id")
    columns: list[Any] = [pa.array(column) for column in zip(*rows, strict=True)]
    columns[2], columns[3] = (pa.array(columns[i].to_pylist(), pa.float64()) for i in (2, 3))
    columns[4] = pa.array(columns[4].to_pylist(), pa.int64())
    if dictionary:
        columns[1] = columns[1].dictionary_encode()
    table = pa.table(dict(zip(names, columns, strict=True)))
    wanted = of_csv(folder / "t.csv", names, rows)
    assert of_parquet(folder / "t.parquet", table, row_group_size=row_group) == wanted
    feather.write_feather(table, str(folder / "t.feather"), chunksize=row_group)
    assert values_of(folder / "t.feather") == wanted
    with (
        pa.OSFile(str(folder / "t.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table, row_group)
    assert values_of(folder / "t.arrow") == wanted


@given(
    rows=st.lists(st.tuples(TIMES, PRICES, PRICES, PRICES), min_size=1, max_size=30),
    row_group=st.integers(1, 40),
)
def test_a_table_of_a_column_a_symbol_gives_the_records_of_its_csv(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], row_group: int
) -> None:
    folder = tmp_path_factory.mktemp("wide")
    names = ("ts_ns", "BTC", "ETH", 'odd "name"')
    own = list(zip(*rows, strict=True))
    columns = [pa.array(own[0]), *(pa.array(column, pa.float64()) for column in own[1:])]
    table = pa.table(dict(zip(names, columns, strict=True)))
    wanted = of_csv(folder / "t.csv", names, rows)
    assert of_parquet(folder / "t.parquet", table, row_group_size=row_group) == wanted


def test_the_matrices_are_those_of_the_csv(tmp_path: Path) -> None:
    ticks = sc.simulate(3, 400.0, seed=5, rate_hz=4.0, start_ns=NS)
    table = pd.DataFrame(list(ticks.records()))
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    symbols = sorted(table["symbol"].unique())
    config = sc.Config(universe=[{"name": "u", "symbols": symbols, "bar": "1s", "ready_n_eff": 5}])  # type: ignore[arg-type]
    one, other = (list(sc.replay(tmp_path / name, config)) for name in ("t.csv", "t.parquet"))
    assert len(one) == len(other) > 20
    for ours, theirs in zip(one, other, strict=True):
        assert (ours.sequence, ours.as_of_ns) == (theirs.sequence, theirs.as_of_ns)
        np.testing.assert_array_equal(ours.corr, theirs.corr)
        np.testing.assert_array_equal(ours.vol, theirs.vol)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "+09:00"])
@pytest.mark.parametrize("wide", [False, True])
def test_timestamps_of_any_unit_and_zone_are_nanoseconds(
    tmp_path: Path, unit: str, zone: str | None, wide: bool
) -> None:
    # Arrow keeps moments in UTC whatever the zone that they are shown in
    count = NS // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    times = pa.array([count], pa.timestamp(unit, zone))
    table = {"time": times, "A": [1.5]} if wide else {"at": times, "time": times, "price": [1.5]}
    if unit == "s":  # which Parquet does not have
        feather.write_feather(pa.table(table), str(tmp_path / "t.feather"))
        (value,) = values_of(tmp_path / "t.feather")
    else:
        (value,) = of_parquet(tmp_path / "t.parquet", pa.table(table))
    assert orjson.loads(value)["time"] == NS


def test_values_of_every_type_are_what_csv_would_say(tmp_path: Path) -> None:
    day = datetime.date(2021, 7, 3)
    table = pa.table(
        {
            "time": pa.array([day], pa.date32()),
            "symbol": pa.array(["A"]).dictionary_encode(),
            "price": pa.array([decimal.Decimal("101.50")], pa.decimal128(10, 2)),
            "bid": pa.array(["101.25"]),
            "ask": pa.array([101.75], pa.float32()),
            "bid_size": pa.array([7], pa.uint8()),
            "ask_size": pa.array([None], pa.int64()),
            "id": pa.array(["007"], pa.large_string()),
            "flag": pa.array([True]),
            "many": pa.array([[1, 2]]),
        }
    )
    (value,) = of_parquet(tmp_path / "t.parquet", table)
    assert value == (
        b'{"time":1625270400000000000,"symbol":"A","price":101.5,"bid":101.25,"ask":101.75,'
        b'"bid_size":7,"id":"007","flag":true,"many":[1,2]}'
    )


def test_what_is_no_number_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    table = pa.table(
        {
            "time": pa.array([NS, NS, None, NS]),
            "A": [math.inf, math.nan, 1.0, -math.inf],
        }
    )
    assert of_parquet(tmp_path / "t.parquet", table) == [
        b'{"symbol":"A","time":%d,"price":"inf"}' % NS,
        b",1.0",  # without a time it is no record
        b'{"symbol":"A","time":%d,"price":"inf"}' % NS,
    ]
    late = pa.table({"time": pa.array([2**40], pa.timestamp("s")), "symbol": ["A"], "price": [1.0]})
    feather.write_feather(late, str(tmp_path / "t.arrow"))
    assert values_of(tmp_path / "t.arrow") == [b'{"time":"out of range","symbol":"A","price":1.0}']


def test_an_index_of_pandas_is_the_first_column(tmp_path: Path) -> None:
    at = pd.DatetimeIndex(["2021-07-03T05:55:38Z"]).as_unit("ns")
    for name in (None, "Date"):
        frame = pd.DataFrame({"BTC": [1.5], "ETH": [2.5]}, index=at.rename(name))
        frame.to_parquet(tmp_path / "t.parquet")
        assert values_of(tmp_path / "t.parquet") == [
            b'{"symbol":"BTC","time":%d,"price":1.5}' % NS,
            b'{"symbol":"ETH","time":%d,"price":2.5}' % NS,
        ]


def test_tables_of_vendors_are_known_by_their_columns(tmp_path: Path) -> None:
    tardis = pa.table(
        {
            "exchange": ["binance-futures"],
            "symbol": ["BTCUSDT"],
            "timestamp": [NS // 1000],
            "local_timestamp": [NS // 1000 + 5],
            "price": [101.0],
        }
    )
    assert of_parquet(tmp_path / "a.parquet", tardis) == [
        b'{"symbol":"BINANCE_FUTURES:BTCUSDT","time":1625291738000000,"price":101.0}'
    ]
    databento = pa.table(
        {
            "ts_event": pa.array([NS], pa.timestamp("ns", "UTC")),
            "rtype": pa.array([0], pa.uint8()),
            "instrument_id": [5482],
            "price": [3720.25],
            "symbol": ["ESH1"],
        }
    )
    assert of_parquet(tmp_path / "b.parquet", databento) == [
        b'{"hd":{"ts_event":1625291738000000000,"rtype":0,"instrument_id":5482},'
        b'"symbol":"ESH1","price":3720.25}'
    ]


def test_a_long_file_is_read_a_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 10_000
    table = pa.table({"time": np.arange(n) + NS, "symbol": ["A"] * n, "price": np.ones(n)})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=n)
    monkeypatch.setattr(arrow, "CELLS", 300)
    converted: list[int] = []
    original: Callable[[Any], list[bytes]] = arrow._records

    def counted(batch: Any) -> list[bytes]:
        converted.append(batch.num_rows)
        return original(batch)

    monkeypatch.setattr(arrow, "_records", counted)
    source = FileSource([tmp_path / "t.parquet"])
    (here,) = source.open()
    source.take(150)
    assert converted == [100, 100]
    source.release()
    assert len(values_of(tmp_path / "t.parquet")) == n
    assert [batch.source for batch in batches_of(tmp_path / "t.parquet")] == [here]
    assert here == Source("t.parquet", 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t.parquet", "no whole Parquet file"),
        ("t.pq", "no whole Parquet file"),
        ("t.arrow", "no whole Arrow file"),
        ("t.feather", "no whole Arrow file"),
        ("t.parquet.gz", "Parquet is not read compressed"),
    ],
)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_what_is_cut_off_is_named_in_one_sentence(
    tmp_path: Path, name: str, words: str, part: float
) -> None:
    table, out = pa.table({"time": range(10_000), "A": np.arange(1e4)}), tmp_path / "whole"
    if words.startswith("no whole A"):
        with pa.OSFile(str(out), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        parquet.write_table(table, out)
    whole = out.read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(part * len(whole))] + b"x" * (part == 0.9))
    with pytest.raises(InputError) as caught:
        values_of(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"extra arrow \(pip install 'stream-calib\[arrow\]'\)"):
        FileSource([tmp_path / "t.parquet"]).open()
