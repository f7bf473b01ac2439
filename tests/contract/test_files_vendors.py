"""Files of vendors as a record log: Binance's dumps, Tardis, Databento, zips of any of them."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from stream_calib.adapters.files import FileSource
from stream_calib.errors import InputError
from stream_calib.values import Source, TickBatch
from stream_calib.wire.ticks import decode
from tests.contract.test_files_lean import batches_of, ticks_of, values_of, zipped

MS, US = 1_735_776_000_123, 1_735_776_000_123_456  # 2025-01-02


def written(folder: Path, name: str, *rows: str) -> Path:
    path = folder / name
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def decoded(path: Path, symbols: Sequence[str]) -> TickBatch:
    (batch,) = batches_of(path)
    return decode(batch, "auto", {symbol: i for i, symbol in enumerate(symbols)})


def one(column: Any) -> Any:
    (value,) = column.tolist()
    return value


DUMPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # the spot market has no header; from 2025 on its times are in microseconds
    "BTCUSDT-trades-2025-01-02": (
        "",
        f"4359,94591.78,0.00015,14.188767,{US},True,True",
        {"time": US, "price": 94591.78, "size": 0.00015, "id": 4359},
    ),
    "BTCUSDT-trades-2024-12-31": (
        "",
        f"4359,94591.78000000,0.00015000,14.188767,{MS},True,True",
        {"time": MS, "price": 94591.78, "size": 0.00015, "id": 4359},
    ),
    # that of futures has one
    "ETHUSD_PERP-trades-2025-01": (
        "id,price,qty,quote_qty,time,is_buyer_maker",
        f"77,3350.1,2,0.006,{MS},false",
        {"time": MS, "price": 3350.1, "size": 2, "id": 77},
    ),
    "BTCUSDT-aggTrades-2025-01-02": (
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
        f"2516,94600.1,0.5,10,12,{MS},true",
        {"time": MS, "price": 94600.1, "size": 0.5, "id": 2516},
    ),
    "BTCEUR-aggTrades-2025-01-02": (
        "",
        f"2516,94600.1,0.5,10,12,{US},True,True",
        {"time": US, "price": 94600.1, "size": 0.5, "id": 2516},
    ),
    "BTCUSDT-bookTicker-2024-03-01": (
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,"
        "transaction_time,event_time",
        f"41,62000.1,1.5,62000.2,2.5,{MS},{MS + 4}",
        {"time": MS, "bid": 62000.1, "ask": 62000.2, "bid_size": 1.5, "ask_size": 2.5},
    ),
    # the time of a bar is inside it, a nanosecond before the end that it says
    "BTCUSDT-1m-2025-01": (
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
        "taker_buy_volume,taker_buy_quote_volume,ignore",
        "1735776000000,1,4,0.5,2.5,9,1735776059999,22,7,4,10,0",
        {"time": 1_735_776_059_998_999_999, "price": 2.5},
    ),
    "BTCUSDT-1s-2025-01-02": (
        "",
        "1735776000000000,1,4,0.5,2.5,9,1735776000999999,22,7,4,10,0",
        {"time": 1_735_776_000_999_998_999, "price": 2.5},
    ),
}


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize("ending", [".zip", ".csv"])
def test_dumps_of_binance_are_native_ticks(tmp_path: Path, name: str, ending: str) -> None:
    header, row, tick = DUMPS[name]
    rows = [text for text in (header, row, "9,9", row) if text]
    if ending == ".zip":
        path = zipped(tmp_path, f"{name}.zip", rows, member=f"{name}.csv")
    else:
        path = written(tmp_path, f"{name}.csv", *rows)
    first, bad, last = values_of(path)
    symbol = f"BINANCE:{name.partition('-')[0]}"
    assert orjson.loads(first) == {"symbol": symbol} | tick
    assert (bad, last) == (b"9,9", first)
    read = decoded(path, [symbol])
    assert read.asset.tolist() == [0, 0]
    assert [why for _, why in read.malformed] == ["json"]
    unit = {13: 1_000_000, 16: 1000, 19: 1}[len(str(tick["time"]))]
    assert read.time_ns.tolist() == [tick["time"] * unit] * 2


def test_a_bar_has_the_time_that_its_stream_gives_it(tmp_path: Path) -> None:
    bar = {"s": "BTCUSDT", "T": 1_735_776_059_999, "c": "2.5", "x": True}
    (live,) = [{"e": "kline", "E": 1_735_776_060_001, "s": "BTCUSDT", "k": bar}]
    path = written(tmp_path, "live.jsonl", orjson.dumps(live).decode())
    header, row, _ = DUMPS["BTCUSDT-1m-2025-01"]
    dump = written(tmp_path, "BTCUSDT-1m-2025-01.csv", header, row)
    stream, bar_file = (decoded(file, ["BINANCE:BTCUSDT"]) for file in (path, dump))
    assert stream.time_ns == bar_file.time_ns
    assert stream.price == bar_file.price


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("ticks.csv", ["4359,94591.78,0.00015"]),
        ("BTCUSDT-trades-2025-01-02.csv", ["4359,94591.78,0.00015"]),
        ("BTCUSDT-trades-2025-01-02.zip", ["4359,94591.78,0.00015"]),
        ("btcusdt-trades-2025-01-02.csv", [f"4359,94591.78,0.00015,14.18,{MS},True,True"]),
    ],
)
def test_rows_without_a_header_are_refused_by_line(
    tmp_path: Path, name: str, rows: list[str]
) -> None:
    path = tmp_path / name
    if name.endswith(".zip"):
        zipped(tmp_path, name, rows, member=name.replace("zip", "csv"))
    else:
        written(tmp_path, name, *rows)
    with pytest.raises(InputError, match="line 1 is no header") as caught:
        FileSource([path]).open()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


TARDIS: dict[str, tuple[str, dict[str, object]]] = {
    "id,side,price,amount": (
        "8f2,buy,101.5,0.25",
        {"price": 101.5, "size": 0.25, "id": "8f2"},
    ),
    "ask_amount,ask_price,bid_price,bid_amount": (
        "2,101.6,101.5,",
        {"bid": 101.5, "ask": 101.6, "ask_size": 2},
    ),
    "asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,asks[1].amount": (
        "101.6,2,101.5,3,101.7,9",
        {"bid": 101.5, "ask": 101.6, "bid_size": 3, "ask_size": 2},
    ),
    "funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,"
    "index_price,mark_price": (",0.0001,,10,101.5,101.4,101.45", {"price": 101.5}),
}


@pytest.mark.parametrize("header", TARDIS)
def test_files_of_tardis_are_native_ticks_of_their_exchange(tmp_path: Path, header: str) -> None:
    row, fields = TARDIS[header]
    path = written(
        tmp_path,
        "binance-futures_2021-07-03_BTCUSDT.csv",
        f"exchange,symbol,timestamp,local_timestamp,{header}",
        f"binance-futures,BTCUSDT,1625291738612292,1625291738620000,{row}",
        "binance-futures,BTCUSDT,1625291738612292",
    )
    value, bad = values_of(path)
    tick = {"symbol": "BINANCE_FUTURES:BTCUSDT", "time": 1_625_291_738_612_292, **fields}
    assert orjson.loads(value) == tick
    assert bad == b"binance-futures,BTCUSDT,1625291738612292"
    read = decoded(path, ["BINANCE_FUTURES:BTCUSDT"])
    assert read.time_ns == 1_625_291_738_612_292_000
    assert read.asset == 0


DATABENTO_TRADES = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size"
DATABENTO_BOOK = f"{DATABENTO_TRADES},bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,symbol"
RECEIVED, HAPPENED = 1_609_160_400_099_150_057, 1_609_160_400_098_821_953


@pytest.mark.parametrize(
    ("times", "prices"),
    [
        ((str(RECEIVED), str(HAPPENED)), ("3720250000000", "3720250000000", "3720500000000")),
        (
            ("2020-12-28T13:00:00.099150057Z", "2020-12-28T13:00:00.098821953Z"),
            ("3720.250000000", "3720.250000000", "3720.500000000"),
        ),
    ],
    ids=["fixed", "pretty"],
)
def test_csv_of_databento_is_read_whichever_way_it_is_written(
    tmp_path: Path, times: tuple[str, str], prices: tuple[str, str, str]
) -> None:
    row = f"{times[0]},{times[1]},1,1,5482,T,A,0,{prices[0]},5,{prices[1]},{prices[2]},26,7,ESH1"
    path = written(tmp_path, "t.csv", DATABENTO_BOOK, row, row.replace(",1,1,", ",x,1,"))
    read = decoded(path, ["DATABENTO:ESH1"])
    assert (one(read.asset), one(read.time_ns)) == (0, HAPPENED)
    assert (one(read.price), one(read.bid), one(read.ask)) == (3720.25, 3720.25, 3720.5)
    assert [why for _, why in read.malformed] == ["field"]
    trade = row.replace(",1,1,", ",0,1,").rsplit(",", 5)[0]
    read = decoded(written(tmp_path, "u.csv", DATABENTO_TRADES, trade), ["DATABENTO:5482"])
    assert (one(read.asset), one(read.price)) == (0, 3720.25)


def test_bars_and_missing_prices_of_databento(tmp_path: Path) -> None:
    bars = "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol"
    path = written(
        tmp_path, "t.csv", bars, "1609160400000000000,33,1,5482,1.0,1.0,1.0,3721.5,9,ESH1"
    )
    read = decoded(path, ["DATABENTO:ESH1"])
    assert (one(read.price), one(read.time_ns)) == (3721.5, 1_609_160_460_000_000_000 - 1)
    missing = f"{RECEIVED},{HAPPENED},1,1,5482,A,A,0,,5,9223372036854775807,3720500000000,0,7,ESH1"
    read = decoded(written(tmp_path, "u.csv", DATABENTO_BOOK, missing), ["DATABENTO:ESH1"])
    assert read.bid != read.bid
    assert read.ask == 3720.5


SCHEMAS = ("trades", "tbbo", "mbp-1", "ohlcv-1s", "ohlcv-1m", "ohlcv-1d")


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_real_files_of_databento_of_every_version_say_the_same(
    market_data: Path, tmp_path: Path, schema: str, version: int
) -> None:
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    folder = market_data / "raw" / "dbn"
    packed = folder / f"test_data.{schema}.v{version}.dbn.zst"
    values = values_of(packed)
    assert values == values_of(folder / f"test_data.{schema}.v3.dbn.zst")
    assert len(values) == (0 if schema == "ohlcv-1d" else 2)
    if not values:
        return
    read = decoded(packed, ["DATABENTO:ESH1"])
    assert read.asset.tolist() == [0, 0]
    assert read.malformed == ()
    first = {
        "trades": (HAPPENED, 3720.25, None),
        "tbbo": (HAPPENED, 3720.25, (3720.25, 3720.5)),
        "mbp-1": (1_609_160_400_006_001_487, None, (3720.25, 3720.5)),
        "ohlcv-1s": (1_609_160_401_000_000_000 - 1, 372_050.0, None),
        "ohlcv-1m": (1_609_160_460_000_000_000 - 1, 372_100.0, None),
    }[schema]
    quote = None if read.bid[0] != read.bid[0] else (read.bid[0], read.ask[0])
    price = None if read.price[0] != read.price[0] else read.price[0]
    assert (read.time_ns[0], price, quote) == first
    whole = zstandard.ZstdDecompressor().decompressobj().decompress(packed.read_bytes())
    plain = tmp_path / "t.dbn"
    plain.write_bytes(whole)
    assert values_of(plain) == values
    zipped(tmp_path, "t.zip", whole, member="t.dbn")
    assert values_of(tmp_path / "t.zip") == values


def test_dbn_that_is_damaged_is_named_in_one_sentence(market_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("databento_dbn", reason="the extra databento is not installed")
    packed = market_data / "raw" / "dbn" / "test_data.trades.v3.dbn.zst"
    whole = zstandard.ZstdDecompressor().decompressobj().decompress(packed.read_bytes())
    path = tmp_path / "t.dbn"
    for content, words in [
        (whole[:-3], "cut off"),
        (whole[:40], "cut off"),
        (b"", "cut off"),
        (b"DB", "cut off"),
        (b"plain text, longer than a head", "not DBN"),
        (whole[:4] + b"\xff" * 200, "DBN|cut off"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            values_of(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "databento_dbn", None)
    (tmp_path / "t.dbn").write_bytes(b"DBN")
    with pytest.raises(InputError, match=r"\(pip install 'stream-calib\[databento\]'\)"):
        FileSource([tmp_path / "t.dbn"]).open()


def test_a_zip_of_several_files_is_one_topic_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = tmp_path / "week.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for day in (3, 2):  # as they lie in it
            name = f"BTCUSDT-trades-2025-01-0{day}.csv"
            archive.writestr(f"data/{name}", f"{day},1.5,1,1,{US},True,True\n")
        archive.writestr("notes.jsonl", '{"a":1}\n\n{"b":2}\n')
        archive.mkdir("empty")
    (batch,) = batches_of(path)
    assert batch.source == Source("week.zip", 0)
    assert [orjson.loads(value or b"").get("id") for value in batch.values] == [2, 3, None, None]
    assert batch.values[2:] == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("name", ["a.tsv", "a.parquet", "a.zip", "a.csv.gz", "a.bz2"])
def test_what_is_not_read_inside_a_zip_is_named(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path, "t.zip", b"a\tb\n", member=name)
    with pytest.raises(InputError, match="inside a zip") as caught:
        FileSource([path]).open()
    assert str(caught.value).startswith(f"{path}: ")


def test_broken_rows_inside_a_zip_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "time,symbol,price\n1,A,1\n")
        archive.writestr("b.csv", b"time,symbol,price\n1,A,1\n1,\xff,1\n")
    with pytest.raises(InputError, match=r"t\.zip: b\.csv: line 3 is not UTF-8"):
        values_of(path)


def test_ticks_of_a_zip_replay_as_those_of_the_file(tmp_path: Path) -> None:
    rows = [f"{i},{100 + i % 7},1,1,{US + i * 1_000_000},True,True" for i in range(50)]
    name = "BTCUSDT-trades-2025-01-02"
    zip_file = zipped(tmp_path, f"{name}.zip", rows, member=f"{name}.csv")
    assert ticks_of(zip_file) == ticks_of(written(tmp_path, f"{name}.csv", *rows))
