"""Many recorded files as one stream for Kafka: in event time, with keys, at a pace."""

import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

import orjson
import pytest

from stream_calib.adapters.files import FileSource
from stream_calib.errors import ConfigError, InputError
from stream_calib.service.recorded import HORIZON_NS, places_ns, recorded
from stream_calib.service.speed import Speed, batches, parse_speed
from stream_calib.values import Output, RecordBatch, Source
from stream_calib.wire.ticks.labels import Labels

NS, SECOND = 1_625_270_400_000_000_000, 1_000_000_000
ABSURD = 4_000_000_000_000_000_000


def tick(symbol: str, at_ns: int) -> bytes:
    return b'{"symbol":"%b","time":%d,"price":1.5}' % (symbol.encode(), at_ns)


def written(folder: Path, name: str, values: Sequence[bytes]) -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(values))
    return path


@pytest.mark.parametrize("seed", range(3))
def test_files_of_any_number_are_merged_by_event_time(tmp_path: Path, seed: int) -> None:
    draw = Random(seed)
    paths = []
    everything: list[tuple[int, bytes]] = []
    for i in range(7):
        times = sorted(NS + draw.randrange(10**13) for _ in range(draw.choice([1, 300, 2500])))
        values = [tick(f"S{i}", at) for at in times]
        paths.append(written(tmp_path, f"{i}.jsonl", values))
        everything += zip(times, values, strict=True)
    everything.sort()
    for order in (paths, paths[::-1]):
        found = list(recorded(order, "all"))
        assert [time_ns for time_ns, _ in found] == [time_ns for time_ns, _ in everything]
        assert [output.value for _, output in found] == [value for _, value in everything]
        assert {output.topic for _, output in found} == {"all"}


def test_each_source_keeps_its_order_its_topic_and_what_is_garbage(tmp_path: Path) -> None:
    late = [tick("A", NS + 5 * SECOND), b"garbage", tick("A", NS + 3 * SECOND), b"", b"{}"]
    other = [tick("B", NS + k * SECOND) for k in (4, 6)]
    paths = [written(tmp_path, "a.jsonl", late), written(tmp_path, "b.jsonl", other)]
    found = list(recorded(paths))
    assert [(output.topic, output.value) for _, output in found] == [
        ("b.jsonl", other[0]),
        ("a.jsonl", late[0]),
        ("a.jsonl", b"garbage"),
        ("a.jsonl", late[2]),
        ("a.jsonl", b"{}"),
        ("b.jsonl", other[1]),
    ]
    assert [output.key for _, output in found] == [b"B", b"A", b"", b"A", b"", b"B"]


def test_a_key_is_the_symbol_and_decides_the_partition(tmp_path: Path) -> None:
    values = [tick(symbol, NS + k) for k, symbol in enumerate("ABCDE" * 20)]
    columns = {"symbols": ["A", "B"], "symbol": [0, 1], "time": [NS, NS], "price": [1.0, 2.0]}
    path = written(tmp_path, "a.jsonl", [*values, orjson.dumps(columns), b"?"])
    found = [output for _, output in recorded([path], partitions=3)]
    for output, symbol in zip(found, "ABCDE" * 20, strict=False):
        assert (output.key, output.partition) == (symbol.encode(), zlib.crc32(output.key) % 3)
    assert [(output.key, output.partition) for output in found[-2:]] == [(b"", 0)] * 2
    assert {output.partition for output in found} == {0, 1, 2}


@pytest.mark.parametrize(
    ("times", "places"),
    [
        ([], []),
        ([0, 0], [0, 0]),
        ([0, NS, 0, NS + 1], [0, NS, NS, NS + 1]),
        # out of order within the horizon: the place is that of the newest
        ([NS + HORIZON_NS, NS, NS + 1], [NS + HORIZON_NS] * 3),
        # one absurd time, wherever it stands, changes no other's place
        ([ABSURD, NS, NS + 1], [0, NS, NS + 1]),
        ([NS, ABSURD, NS + 1], [NS, NS, NS + 1]),
        ([NS, 0, ABSURD, 0, NS + 1], [NS, NS, NS, NS, NS + 1]),
        ([NS, NS + 1, NS // 2, NS + 2], [NS, NS + 1, NS + 1, NS + 2]),
        ([NS, NS + 1, ABSURD], [NS, NS + 1, ABSURD]),
        # days apart, and a file that begins anew
        ([NS, 2 * NS, 2 * NS + 1, 2 * NS + 10**14], [NS, 2 * NS, 2 * NS + 1, 2 * NS + 10**14]),
        ([2 * NS, 2 * NS + 1, NS, NS + 1], [2 * NS, 2 * NS + 1, NS, NS + 1]),
    ],
)
def test_one_absurd_time_delays_nothing(times: list[int], places: list[int]) -> None:
    assert places_ns(times) == places
    for cut in range(1, len(times)):  # however the source is cut into blocks
        first = places_ns(times[:cut], 0, next(filter(None, times[cut:]), 0))
        assert first + places_ns(times[cut:], first[-1]) == places


def test_labels_do_not_depend_on_what_was_read_before() -> None:
    draw = Random(1)
    values: list[bytes | None] = [
        draw.choice(
            [
                tick(f"S{draw.randrange(30)}", NS + k),
                b'{"symbol":"X","time":%d,"bid":1,"ask":2,"id":7}' % (NS // 1000 + k),
                b'{"e":"trade","E":1633998512000,"T":1633998512000,"s":"A","t":5,"p":"1"}',
                b'{"u":1,"s":"A","b":"1","B":"1","a":"2","A":"1"}',
                b"?",
            ]
        )
        for k in range(600)
    ]
    values[5] = None

    def batch(start: int, stop: int) -> RecordBatch:
        stamps_ms = [1_633_998_512_000 + k for k in range(start, stop)]
        source = Source("t", 0)
        return RecordBatch(source, start, stop, range(start, stop), stamps_ms, values[start:stop])

    one_by_one = Labels()
    alone = [one_by_one.read(batch(k, k + 1)) for k in range(600)]
    known = Labels()
    for _ in range(2):  # the second time all symbols are known
        time_ns, symbols = known.read(batch(0, 600))
        assert time_ns.tolist() == [int(times[0]) for times, _ in alone]
        assert symbols == [names[0] for _, names in alone]
    assert {"BINANCE:A", "X", "S7", ""} < set(symbols)
    with pytest.raises(ConfigError, match="not one of auto"):
        Labels("nothing")


def test_speed_is_that_of_event_time() -> None:
    speed = Speed(2.0)
    assert speed.wait_s(0, 5.0) == 0.0  # a record without a time
    assert speed.wait_s(NS, 10.0) == 0.0
    assert speed.wait_s(NS + 4 * SECOND, 10.5) == 1.5
    assert speed.wait_s(NS + 4 * SECOND, 20.0) == 0.0
    assert speed.wait_s(NS - SECOND, 20.0) == 0.0
    assert parse_speed("max") is None
    half = parse_speed("0.5")
    assert half is not None
    assert half.factor == 0.5
    for text in ("0", "-1", "fast", "inf", "nan", ""):
        with pytest.raises(InputError, match=f"--speed {text}: give max"):
            parse_speed(text)


def test_batches_are_of_what_is_due_together() -> None:
    outputs = [Output("t", 0, b"", b"%d" % i, ()) for i in range(6)]
    timed = list(zip([0, 1, 2, 30, 31, 32], outputs, strict=True))
    assert [(t, len(b)) for t, b in batches(timed, 10, 5)] == [(0, 3), (30, 3)]
    assert [(t, len(b)) for t, b in batches(timed, 2, 5)] == [(0, 2), (2, 1), (30, 2), (32, 1)]
    assert [(t, len(b)) for t, b in batches(timed, 10, float("inf"))] == [(0, 6)]
    assert list(batches([], 10, 5)) == []
    joined = itertools.chain.from_iterable(batch for _, batch in batches(timed, 2, 1))
    assert list(joined) == outputs


def test_a_recording_is_fed_as_it_is_read(market_data: Path) -> None:
    path = market_data / "raw" / "cryptofeed_kafka" / "PHEMEX.tsv.gz"
    reading = FileSource([path])
    wanted = {source.topic: list[bytes | None]() for source in reading.open()}
    while not reading.exhausted():
        for batch in reading.take(1000):
            wanted[batch.source.topic] += batch.values
    found: dict[str, list[bytes | None]] = {topic: [] for topic in wanted}
    before = (0, "")
    for time_ns, output in recorded([path]):
        found[output.topic].append(output.value)
        assert output.key == b"" or orjson.loads(output.value)["symbol"] in output.key.decode()
        # some topics begin with their history, newest first: no other one goes back
        assert time_ns >= before[0] or output.topic == before[1]
        before = (time_ns, output.topic)
    assert found == wanted
