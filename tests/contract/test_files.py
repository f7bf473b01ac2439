"""Recorded ticks as a record log: every kind of file, whole and broken."""

import asyncio
import base64
import gzip
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from stream_calib.adapters.files import CHUNK_BYTES, LINE_BYTES, FileSink, FileSource
from stream_calib.errors import InputError, LostInputError, StreamCalibError, TransportError
from stream_calib.values import Output, RecordBatch, Source
from tests.contract.test_record_logs import assert_contiguous

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
CSV = b"timestamp,symbol,side,amount,price\n1625291738.612292,ENJ-USD-PERP,buy,9,1.1061\n"


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(PACK[path.suffix if path.suffix in PACK else ""](content))
    return path


def read_all(*paths: Path, at_once: int = 1000) -> dict[Source, list[bytes | None]]:
    """What a driver without an event loop reads."""
    source = FileSource(paths)
    values: dict[Source, list[bytes | None]] = {name: [] for name in source.open()}
    batches: list[RecordBatch] = []
    while not source.exhausted():
        polled = source.take(at_once)
        assert 0 < sum(len(batch.values) for batch in polled) <= at_once
        batches += polled
    source.release()
    assert_contiguous(batches)
    for batch in batches:
        assert set(batch.timestamps_ms) == {-1}
        values[batch.source] += batch.values
    assert source.ends() == {name: len(found) for name, found in values.items()}
    return values


def values_in(path: Path) -> list[bytes | None]:
    (values,) = read_all(path).values()
    return values


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_each_line_is_a_record(tmp_path: Path, packing: str, at_once: int) -> None:
    lines = [b'{"i": %d }' % i for i in range(500)]
    path = written(tmp_path, "ticks.jsonl" + packing, b"\n".join(lines) + b"\n")
    assert read_all(path, at_once=at_once) == {Source(path.name, 0): lines}


@pytest.mark.parametrize("packing", PACK)
def test_files_larger_than_what_is_read_at_once(tmp_path: Path, packing: str) -> None:
    lines = [b"%d" % (i * 7919 % 1_000_003) for i in range(CHUNK_BYTES // 2)]
    path = written(tmp_path, "ticks.jsonl" + packing, b"\n".join(lines))
    assert values_in(path) == lines


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a", [b"a"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\r\n\nb", [b"a", b"b"]),
        (b"\xef\xbb\xbfa\nb\n", [b"a", b"b"]),
        (b"\xef\xbb\xbf", []),
        (b"\xff\x00\n", [b"\xff\x00"]),
    ],
    ids=["empty", "blank", "no last newline", "crlf", "blank lines", "bom", "only bom", "binary"],
)
@pytest.mark.parametrize("packing", PACK)
def test_line_ends_and_marks(
    tmp_path: Path, packing: str, content: bytes, values: list[bytes]
) -> None:
    assert values_in(written(tmp_path, "ticks.jsonl" + packing, content)) == values


def test_zst_of_several_frames_is_one_file(tmp_path: Path) -> None:
    pack = zstandard.ZstdCompressor().compress
    path = tmp_path / "ticks.jsonl.zst"
    path.write_bytes(pack(b"a\nb") + pack(b"c\nd\n"))
    assert values_in(path) == [b"a", b"bc", b"d"]


def test_csv_rows_become_native_ticks(tmp_path: Path) -> None:
    for name in ("ticks.csv", "ticks.csv.gz", "ticks.csv.zst"):
        (value,) = values_in(written(tmp_path, name, CSV))
        assert value == (
            b'{"time":1625291738.612292,"symbol":"ENJ-USD-PERP","side":"buy","amount":9,'
            b'"price":1.1061}'
        )


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("0.10", 0.1),
        ("1.0", 1.0),
        ("1e-05", 1e-5),
        ("1741098600109523000", 1741098600109523000),
        ("2014-09-17T09:30:00.531656", "2014-09-17T09:30:00.531656"),
        ("007", "007"),
        ("+1", "+1"),
        (".5", ".5"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ("9" * 30, "9" * 30),
        ("9" * 5000, "9" * 5000),
        ('"quoted, with ""quotes"""', 'quoted, with "quotes"'),
        ("spaced ", "spaced "),
    ],
)
def test_csv_cells_that_are_plain_numbers_become_numbers(
    tmp_path: Path, cell: str, value: object
) -> None:
    (line,) = values_in(written(tmp_path, "t.csv", f"symbol,x\nA,{cell}\n".encode()))
    assert line is not None
    found = orjson.loads(line)["x"]
    assert found == value
    assert type(found) is type(value)


def test_csv_of_other_tools(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbftime, timestamp ,note\r\n1,2,\r\n\r\n3,4,two words\r\n5,6\r\n"
    assert values_in(written(tmp_path, "t.csv", content)) == [
        b'{"time":1,"timestamp":2}',  # a cell that is empty was not observed
        b'{"time":3,"timestamp":4,"note":"two words"}',
        b"5,6",  # too short to be a record; the decoder rejects it
    ]


def test_csv_with_a_line_end_inside_quotes(tmp_path: Path) -> None:
    assert values_in(written(tmp_path, "t.csv", b'a,b\n"1\n2",3\n')) == [b'{"a":"1\\n2","b":3}']


def test_csv_with_nothing_in_it(tmp_path: Path) -> None:
    assert values_in(written(tmp_path, "t.csv", b"")) == []
    assert values_in(written(tmp_path, "t.csv", b"time,price\n")) == []


@pytest.mark.parametrize("packing", PACK)
def test_tsv_names_the_topic_of_each_record(tmp_path: Path, packing: str) -> None:
    content = b"b\t1\na\t2\nb\t\nb\t3\tx\r\n\na\t4"
    path = written(tmp_path, "day.tsv" + packing, content)
    for at_once in (1, 2, 100):
        assert read_all(path, at_once=at_once) == {
            Source("a", 0): [b"2", b"4"],
            Source("b", 0): [b"1", b"", b"3\tx"],
        }


def test_files_with_the_same_topic_are_its_partitions(tmp_path: Path) -> None:
    first, second = written(tmp_path, "1.tsv", b"a\t1\nb\t2"), written(tmp_path, "2.tsv", b"a\t3")
    (tmp_path / "other").mkdir()
    third = written(tmp_path / "other", "1.tsv", b"a\t4")
    assert read_all(first, second, third) == {
        Source("a", 0): [b"1"],
        Source("a", 1): [b"3"],
        Source("a", 2): [b"4"],
        Source("b", 0): [b"2"],
    }


def test_sources_are_read_evenly(tmp_path: Path) -> None:
    paths = [written(tmp_path, f"{i}.jsonl", b"x\n" * (10 * i + 5)) for i in range(3)]
    source = FileSource(paths)
    source.open()
    assert [len(batch.values) for batch in source.take(30)] == [5, 13, 12]
    assert source.ends() == {Source("0.jsonl", 0): 5}
    source.release()


def test_paused_sources_wait(tmp_path: Path) -> None:
    path = written(tmp_path, "day.tsv", b"a\t1\nb\t2\na\t3\nb\t4\n")
    source = FileSource([path])
    a, b = source.open()
    source.pause(frozenset({a}))
    assert [(batch.source, batch.values) for batch in source.take(10)] == [(b, [b"2", b"4"])]
    assert source.take(10) == []
    assert source.ends() == {b: 2}
    assert not source.exhausted()
    source.pause(frozenset())
    assert [(batch.source, batch.values) for batch in source.take(10)] == [(a, [b"1", b"3"])]
    assert source.exhausted()
    source.release()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.jsonl.gz", b"plain text", "damaged"),
        ("t.jsonl.zst", b"plain text", "damaged"),
        ("t.jsonl.gz", gzip.compress(b"x\n" * 9000)[:-9], "cut off"),
        ("t.csv.gz", gzip.compress(CSV * 9000)[:50], "cut off"),
        ("t.jsonl.zst", PACK[".zst"](b"x\n" * 9000)[:-3], "cut off"),
        ("t.tsv.zst", PACK[".zst"](b"a\tx\n" * 9000)[:5], "cut off"),
        ("t.jsonl.gz", gzip.compress(b"x\n" * 9000)[:-8] + b"12345678", "damaged"),
        ("t.csv", b"a,b\n\xff,1\n", "not UTF-8"),
        ("t.csv", b"a,b\n" + b"1" * 200_000, "not CSV"),
        ("t.tsv", b"a\tx\nb\n", "line 2 has no tab"),
        ("t.jsonl", b"x" * (LINE_BYTES + CHUNK_BYTES), "no line ends"),
        ("t.jsonl.bz2", b"", "bzip2 is not read"),
        ("t.parquet.gz", b"", "Parquet is not read compressed"),
    ],
)
def test_broken_file_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl: cannot be read \(No such file"):
        FileSource([tmp_path / "nowhere.jsonl"]).open()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        FileSource([tmp_path]).open()


def test_real_recordings_are_read(market_data: Path) -> None:
    trades = values_in(market_data / "ticks" / "phemex_10sym_trades_20210703.csv.gz")
    assert len(trades) == 10_019
    assert trades[0] is not None
    assert {"time", "symbol", "price"} <= orjson.loads(trades[0]).keys()
    recorded = read_all(market_data / "raw" / "cryptofeed_kafka" / "BYBIT.tsv.gz")
    assert len(recorded) > 3
    assert all(orjson.loads(value or b"")["symbol"] for v in recorded.values() for value in v)


async def test_as_a_port(tmp_path: Path) -> None:
    paths = [written(tmp_path, f"{i}.jsonl", b"x\n" * 10) for i in range(2)]
    source = FileSource(paths)
    await source.start()
    sources = (Source("0.jsonl", 0), Source("1.jsonl", 0))
    assert await source.discover() == sources
    assert await source.discover() == ()
    assert source.ends() == {}
    source.pause(frozenset(sources))
    async with asyncio.timeout(10):
        assert await source.poll(10, 0.05) == []
    source.pause(frozenset())
    batches = await source.poll(10, 5.0) + await source.poll(10, 5.0)
    assert_contiguous(batches)
    assert source.exhausted()
    assert source.ends() == dict.fromkeys(sources, 10)
    assert await source.poll(10, 5.0) == []
    await source.close()
    await source.close()


TWO_TOPICS = b"".join(b"ab"[i % 2 : i % 2 + 1] + b"\t%d\n" % i for i in range(20))


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_ranges_are_read_again_in_any_order(tmp_path: Path, name: str) -> None:
    source = FileSource([written(tmp_path, name, TWO_TOPICS)])
    a, b = source.open()
    assert source.count([a, b, Source("c", 0)]) == {a: 10, b: 10}
    for here, start, stop in [(a, 0, 3), (b, 2, 5), (a, 3, 9), (a, 9, 10), (a, 1, 2), (b, 0, 10)]:
        batch = source.take_range(here, start, stop, 100)
        assert (batch.source, batch.position_before, batch.position_after) == (here, start, stop)
        numbers = range(2 * start + (here == b), 2 * stop, 2)
        assert batch.values == [b"%d" % i for i in numbers]
    assert source.take_range(a, 2, 9, 3).position_after == 5
    source.resume({a: 5})
    assert {batch.source: batch.values for batch in source.take(1000)} == {
        a: [b"%d" % i for i in range(10, 20, 2)],
        b: [b"%d" % i for i in range(1, 20, 2)],
    }
    assert source.exhausted()
    source.release()


def test_ranges_that_are_not_there_are_named(tmp_path: Path) -> None:
    source = FileSource([written(tmp_path, "t.jsonl", b"1\n2\n3\n")])
    (here,) = source.open()
    with pytest.raises(LostInputError, match=r"Records 3 to 5 of 't\.jsonl' .* 3 can be read"):
        source.take_range(here, 3, 5, 10)
    assert source.take_range(here, 2, 5, 10).values == [b"3"]
    with pytest.raises(LostInputError, match=r"Records 7 to 9 of 't\.jsonl' .* 3 can be read"):
        source.take_range(here, 7, 9, 10)
    with pytest.raises(LostInputError, match=r"Records 0 to 1 of 'u' .* 0 can be read"):
        source.take_range(Source("u", 0), 0, 1, 10)
    source.release()


async def test_ranges_and_resumption_as_a_port(tmp_path: Path) -> None:
    source = FileSource([written(tmp_path, "t.tsv", TWO_TOPICS)])
    await source.start()
    a, b = Source("a", 0), Source("b", 0)
    assert await source.bounds([a, b, Source("a", 1)]) == {a: (0, 10), b: (0, 10)}
    repeated = asyncio.create_task(source.read(a, 0, 5, 10))
    await asyncio.sleep(0)
    repeated.cancel()
    with pytest.raises(asyncio.CancelledError):
        await repeated
    assert (await source.read(a, 0, 5, 10)).position_after == 5
    source.resume({a: 5})
    assert await source.discover() == (b,)
    batches = await source.poll(100, 1.0)
    assert [(batch.source, batch.position_before) for batch in batches] == [(a, 5), (b, 0)]
    await source.close()


async def test_a_cancelled_poll_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FileSource([written(tmp_path, "t.jsonl", b"1\n2\n3\n")])
    await source.start()
    go = threading.Event()
    take = source.take

    def take_slowly(max_records: int) -> list[RecordBatch]:
        go.wait(10)
        return take(max_records)

    monkeypatch.setattr(source, "take", take_slowly)
    poll = asyncio.create_task(source.poll(2, 1.0))
    await asyncio.sleep(0.05)
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll
    go.set()
    batches = await source.poll(1, 1.0) + await source.poll(1, 1.0)
    assert [batch.values for batch in batches] == [[b"1", b"2"], [b"3"]]
    last = asyncio.create_task(source.poll(2, 1.0))
    await asyncio.sleep(0)
    last.cancel()
    await source.close()  # while a thread may still be reading


def outputs() -> Sequence[Output]:
    json = (("content-type", b"application/json"), ("sequence", b"1"))
    raw = (("content-type", b"application/octet-stream"), ("odd", b"\xff"))
    return [
        Output("c.correlations", 0, b"u|ewma", b'{"corr":[1.0,0.5]}', json),
        Output("c.rejects", 0, b"t-0-1", b"\x00poison", raw),
    ]


LINES = [
    {
        "topic": "c.correlations",
        "key": "u|ewma",
        "headers": {"content-type": "application/json", "sequence": "1"},
        "value": {"corr": [1.0, 0.5]},
    },
    {
        "topic": "c.rejects",
        "key": "t-0-1",
        "headers": {"content-type": "application/octet-stream", "odd": "\\xff"},
        "value": base64.b64encode(b"\x00poison").decode(),
    },
]


async def test_sink_writes_one_json_line_per_record(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"of an earlier run")
    sink = FileSink(path)
    await sink.start()
    await sink.publish(outputs()[:1])
    assert len(path.read_bytes().splitlines()) == 1  # there before the end of the run
    await sink.publish(outputs()[1:])
    await sink.publish([])
    await sink.close()
    await sink.close()
    content = path.read_bytes()
    assert [orjson.loads(line) for line in content.splitlines()] == LINES
    assert content.startswith(b'{"topic":"c.correlations","key":"u|ewma","headers":{"content-type"')
    assert b'"value":{"corr":[1.0,0.5]}}\n' in content  # the record's own bytes


async def test_sink_leaves_a_file_open_that_is_not_its_own() -> None:
    file = io.BytesIO()
    sink = FileSink(file)
    await sink.start()
    await sink.publish(outputs())
    await sink.close()
    assert len(file.getvalue().splitlines()) == 2


async def test_sink_that_cannot_write_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/out: cannot be written \(No such file"):
        await FileSink(tmp_path / "none" / "out").start()

    class Full(io.BytesIO):
        def write(self, _data: Any) -> int:
            raise OSError(28, "No space left on device")

    sink = FileSink(Full())
    await sink.start()
    with pytest.raises(TransportError, match="No space left"):
        await sink.publish(outputs())
    await sink.close()


async def test_missing_file_is_one_error_for_the_user(tmp_path: Path) -> None:
    source = FileSource([tmp_path / "nowhere.jsonl"])
    with pytest.raises(StreamCalibError):
        await source.start()
    await source.close()
