"""Lean's zip files as a record log: times in any zone, prices, pairs of rows, broken files."""

import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pytest

import stream_calib as sc
from stream_calib.adapters.files import CHUNK_BYTES, FileSource
from stream_calib.errors import InputError
from stream_calib.values import RecordBatch, Source, TickBatch
from stream_calib.wire.ticks import decode
from tests.contract.test_record_logs import assert_contiguous

SPY = "equity/usa/tick/spy/20131007_trade.zip"
SPY_QUOTES = "equity/usa/tick/spy/20131007_quote.zip"
NEW_YORK = ZoneInfo("America/New_York")


def zipped(folder: Path, name: str, rows: Sequence[str] | bytes, member: str = "day.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, rows if isinstance(rows, bytes) else "\n".join(rows))
    return path


def batches_of(*paths: Path, at_once: int = 100_000) -> list[RecordBatch]:
    source = FileSource(paths)
    source.open()
    batches: list[RecordBatch] = []
    while not source.exhausted():
        batches += source.take(at_once)
    source.release()
    assert_contiguous(batches)
    return batches


def values_of(path: Path, at_once: int = 100_000) -> list[bytes]:
    return [value or b"" for batch in batches_of(path, at_once=at_once) for value in batch.values]


def ticks_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(value) for value in values_of(path)]


def at(zone: ZoneInfo, *moment: int) -> int:
    """Nanoseconds of a wall clock, by way of the standard library alone."""
    return round(datetime(*moment, tzinfo=zone).timestamp()) * 1_000_000_000  # type: ignore[misc, arg-type]


def test_trades_are_native_ticks_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [
        "14400464,1674100,100,P,20002000,0",
        "34200000,1673300,1400,P,20002000,0",
        "34200000.367,1673349,1,Q,2000,1",
        "34200000,1673300,1400,P,20002000,0",
    ]
    start = at(NEW_YORK, 2013, 10, 7, 9, 30)
    first = at(NEW_YORK, 2013, 10, 7, 4, 0) + 464_000_000
    assert ticks_of(zipped(tmp_path, SPY, rows)) == [
        {"symbol": "SPY", "time": first, "price": 167.41, "size": 100.0},
        {"symbol": "SPY", "time": start, "price": 167.33, "size": 1400.0},
        {
            "symbol": "SPY",
            "time": start + 367_000,
            "price": 167.3349,
            "size": 1.0,
            "suspicious": True,
        },
        {"symbol": "SPY", "time": start, "price": 167.33, "size": 1400.0},
    ]


def test_each_file_is_a_topic_named_by_its_folders(tmp_path: Path) -> None:
    row = ["34200000,1673300,1400,P,20002000,0"]
    paths = [zipped(tmp_path, SPY.replace("spy", name), row) for name in ("spy", "bac")]
    bar = ["34200000,1,1,1,1,1"]
    paths.append(zipped(tmp_path, SPY.replace("tick", "minute"), bar))
    assert [batch.source for batch in batches_of(*paths)] == [
        Source("usa-minute-spy-20131007_trade", 0),
        Source("usa-tick-bac-20131007_trade", 0),
        Source("usa-tick-spy-20131007_trade", 0),
    ]


@pytest.mark.parametrize(
    ("day", "opening_utc"),
    [
        ("20130308", (13 + 1, 30)),  # Friday before the clocks go forward
        ("20130311", (13, 30)),  # Monday after
        ("20131101", (13, 30)),
        ("20131104", (14, 30)),  # after they went back
    ],
)
def test_the_wall_clock_opens_at_half_past_nine_in_summer_and_winter(
    tmp_path: Path, day: str, opening_utc: tuple[int, int]
) -> None:
    path = zipped(tmp_path, SPY.replace("20131007", day), ["34200000,1,1,P,0,0"])
    date = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
    hour, minute = opening_utc
    opening = date.replace(hour=hour, minute=minute)
    assert ticks_of(path)[0]["time"] == round(opening.timestamp()) * 1_000_000_000


def test_a_half_day_ends_at_one_in_new_york(tmp_path: Path) -> None:
    day = SPY.replace("20131007", "20131129")  # the Friday after Thanksgiving
    path = zipped(tmp_path, day, ["34200000,1806000,1,P,0,0", "46800000,1810000,1,P,0,0"])
    first, last = (tick["time"] for tick in ticks_of(path))
    assert first == at(ZoneInfo("UTC"), 2013, 11, 29, 14, 30)
    assert last == at(ZoneInfo("UTC"), 2013, 11, 29, 18, 0)


@pytest.mark.parametrize("day", ["20130310", "20131103"])
def test_on_a_day_when_clocks_change_every_time_is_that_of_the_wall_clock(
    tmp_path: Path, day: str
) -> None:
    quarters = [f"{900_000 * i},1,1,P,0,0" for i in range(97)]
    path = zipped(tmp_path, SPY.replace("20131007", day), quarters)
    year, month, date = int(day[:4]), int(day[4:6]), int(day[6:])
    wanted = [at(NEW_YORK, year, month, date, i // 4, i % 4 * 15) for i in range(96)]
    wanted.append(at(NEW_YORK, year, month, date + 1, 0, 0))
    assert [tick["time"] for tick in ticks_of(path)] == wanted


def test_brokers_of_currencies_are_told_apart_and_keep_their_clocks(tmp_path: Path) -> None:
    row = ["7135,1.39286,1.39298"]
    oanda = zipped(tmp_path, "forex/oanda/tick/eurusd/20140507_quote.zip", row)
    fxcm = zipped(tmp_path, "forex/fxcm/tick/eurusd/20140507_quote.zip", row)
    midnight = at(ZoneInfo("UTC"), 2014, 5, 7)
    quote = {"bid": 1.39286, "ask": 1.39298}
    assert ticks_of(oanda) == [
        {"symbol": "OANDA:EURUSD", "time": midnight + 7_135_000_000, **quote}
    ]
    five_hours = 5 * 3600 * 1_000_000_000  # not four, though New York has summer time in May
    assert ticks_of(fxcm) == [
        {"symbol": "FXCM:EURUSD", "time": midnight + five_hours + 7_135_000_000, **quote}
    ]


def test_the_two_rows_of_a_quote_are_one_tick(tmp_path: Path) -> None:
    rows = [
        "34200000,0,0,1673500,300,Q,1,0",  # alone: the row after it is of the same side
        "34200000,0,0,1673400,500,Q,1,0",
        "34200000,1673300,200,0,0,P,1,0",  # in either order
        "34200001,1673200,700,0,0,P,1,0",
        "34200001,0,0,1673400,900,P,1,1",
        "34200002,1673200,700,0,0,P,1,0",  # alone: the next is later
        "34200003,0,0,1673400,900,P,1,0",  # alone: the next is none
        "34200003,1673200",
        "34200004,1673200,700,1673300,800,P,1,0",  # both at once
        "34200005,0,0,0,0,P,1,0",
        "34200006,1673100,700,0,0,P,1,0",  # the last
    ]
    path = zipped(tmp_path, SPY_QUOTES, rows)
    start = at(NEW_YORK, 2013, 10, 7, 9, 30)
    found: list[object] = []
    for value in values_of(path):
        if value.startswith(b"{"):
            tick = orjson.loads(value)
            keys = ("time", "bid", "bid_size", "ask", "ask_size")
            found.append((*(tick[key] for key in keys), tick.get("suspicious", False)))
            assert tick["symbol"] == "SPY"
        else:
            found.append(value)
    ms = 1_000_000
    assert found == [
        (start, 0.0, 0.0, 167.35, 300.0, False),
        (start, 167.33, 200.0, 167.34, 500.0, False),
        (start + ms, 167.32, 700.0, 167.34, 900.0, True),
        (start + 2 * ms, 167.32, 700.0, 0.0, 0.0, False),
        (start + 3 * ms, 0.0, 0.0, 167.34, 900.0, False),
        b"34200003,1673200",
        (start + 4 * ms, 167.32, 700.0, 167.33, 800.0, False),
        (start + 5 * ms, 0.0, 0.0, 0.0, 0.0, False),
        (start + 6 * ms, 167.31, 700.0, 0.0, 0.0, False),
    ]


def test_bars_are_ticks_of_their_close_when_they_end(tmp_path: Path) -> None:
    quotes = [
        "34200000,10000,30000,5000,20000,7,40000,60000,30000,50000,9",
        "34201000,,,,,,1,1,1,1,9",
    ]
    start = at(NEW_YORK, 2013, 10, 7, 9, 30)
    one, other = ticks_of(zipped(tmp_path, SPY_QUOTES.replace("tick", "second"), quotes))
    assert one == {
        "symbol": "SPY",
        "time": start + 1_000_000_000,
        "bid": 2.0,
        "ask": 5.0,
        "bid_size": 7.0,
        "ask_size": 9.0,
    }
    assert (other["bid"], other["ask"], other["bid_size"]) == (0.0, 1e-4, 0.0)
    trades = ["34200000,10000,30000,5000,20000,700"]
    (tick,) = ticks_of(zipped(tmp_path, SPY.replace("tick", "minute"), trades))
    assert tick == {"symbol": "SPY", "time": start + 60_000_000_000, "price": 2.0, "size": 700.0}
    bars = ["0,1.1,1.3,1.0,1.2,5,1.2,1.4,1.1,1.3,6"]
    (tick,) = ticks_of(zipped(tmp_path, "forex/oanda/second/eurusd/20140507_quote.zip", bars))
    assert (tick["bid"], tick["ask"], tick["bid_size"], tick["ask_size"]) == (1.2, 1.3, 5.0, 6.0)


@pytest.mark.parametrize(
    "row",
    [
        "34200000,1673300,1400,P,0",
        "34200000,1673300,1400,P,0,0,0",
        "later,1673300,1400,P,0,0",
        "-1,1673300,1400,P,0,0",
        "86400001,1673300,1400,P,0,0",
        "34200000,nan,1400,P,0,0",
        "34200000,1e999,1400,P,0,0",
        "34_200_000,1673300,1400,P,0,0",
        "time,price,size,exchange,condition,suspicious",
        "\xff",
    ],
)
def test_what_is_no_row_is_left_for_the_decoder_to_reject(tmp_path: Path, row: str) -> None:
    rows = ["34200000,1673300,1400,P,0,0", row, "34200001,1673300,1400,P,0,0"]
    content = "\r\n".join(rows).encode("latin-1")
    before, value, after = values_of(zipped(tmp_path, SPY, content))
    assert value == row.encode("latin-1")
    assert decoded([before, value, after]).malformed[0].row == 1


def decoded(values: Sequence[bytes]) -> TickBatch:
    m = len(values)
    batch = RecordBatch(Source("t", 0), 0, m, range(m), [-1] * m, values)
    return decode(batch, "native", {"SPY": 0, "BAC": 1, "IBM": 2, "AIG": 3})


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_any_part_of_a_file_is_read_alike(tmp_path: Path, at_once: int) -> None:
    n = 2000 if at_once == 1 else CHUNK_BYTES // 10
    sides = ("{},1673300,1,0,0,P,1,0", "{},0,0,1673400,1,P,1,0")
    path = zipped(tmp_path, SPY_QUOTES, [sides[i % 2].format(i // 2) for i in range(n)])
    values = values_of(path, at_once)
    assert len(values) == n // 2
    assert values == values_of(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("spy/20131007_trade.zip", "a zip file of this name is read only from Lean's folders"),
        ("equity/usa/daily/spy/20131007_trade.zip", "a zip file of this name is read only from"),
        (
            "equity/usa/tick/spy/20131007_openinterest.zip",
            "a zip file of this name is read only from",
        ),
        ("equity/moon/tick/spy/20131007_trade.zip", "the time zone of equity/moon is not known"),
        ("equity/usa/tick/spy/20131307_trade.zip", "20131307 is no day"),
        ("forex/oanda/tick/eurusd/20140507_trade.zip", "Lean has no trades of forex"),
    ],
)
def test_a_path_that_is_not_leans_is_named_in_one_sentence(
    tmp_path: Path, name: str, words: str
) -> None:
    path = zipped(tmp_path, name, ["0,1,1,P,0,0"])
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        batches_of(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_broken_zip_is_named_in_one_sentence(tmp_path: Path) -> None:
    rows = [f"{i},{i * 7919 % 10_007},1,P,0,0" for i in range(20_000)]
    path = zipped(tmp_path, SPY, rows)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content, words in [
        (whole[:middle], "no whole zip file"),
        (b"plain text", "no whole zip file"),
        (b"", "no whole zip file"),
        (whole[:middle] + bytes(200) + whole[middle + 200 :], "damaged|no whole zip file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            batches_of(path)
        assert str(caught.value).startswith(f"{path}: ")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.csv", "")
        archive.writestr("two.csv", "")
    with pytest.raises(InputError, match="one file is expected in it, not 2"):
        batches_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("one.csv", "")
    with pytest.raises(InputError, match="not compressed in the usual way"):
        batches_of(path)
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        batches_of(tmp_path / "gone" / SPY)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, SPY, ["0,1,1,P,0,0"])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag, where the directory has it
    path.write_bytes(content)
    with pytest.raises(InputError, match="it is encrypted"):
        batches_of(path)


def test_a_replay_takes_the_zips_of_several_symbols_and_days(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    paths = []
    for day in ("20131007", "20131008"):
        common = np.cumsum(rng.normal(size=300))
        for symbol in ("spy", "bac"):
            prices = 1_000_000 + np.rint(100 * (common + 0.1 * rng.normal(size=300)))
            rows = [f"{34_200_000 + 60_000 * i},{p:.0f},1,P,0,0" for i, p in enumerate(prices)]
            name = SPY.replace("spy", symbol).replace("20131007", day)
            paths.append(zipped(tmp_path, name, rows))
    config = tmp_path / "c.toml"
    config.write_text('[[universe]]\nname = "u"\nsymbols = ["SPY", "BAC"]\nbar = "60s"\n')
    matrices = list(sc.replay(paths, config))
    assert matrices[-1].symbols == ("SPY", "BAC")
    # 300 minutes from half past nine; the last bar ends a minute after its beginning
    assert matrices[-1].as_of_ns == at(NEW_YORK, 2013, 10, 8, 14, 30)
    assert matrices[-1].corr[0, 1] > 0.9
    assert len(matrices) > 300  # of both days
