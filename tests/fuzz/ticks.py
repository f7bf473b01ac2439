"""Ticks of every format, in envelopes and frames, between neighbours that must not suffer."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import orjson

from stream_calib.values import RecordBatch, Source, TickBatch, ValueSchema
from stream_calib.wire.ticks import FORMATS, columnar, decode
from stream_calib.wire.ticks.fields import EARLIEST_NS, LATEST_NS
from stream_calib.wire.ticks.labels import Labels
from stream_calib.wire.ticks.survey import Survey
from tests.fuzz.mutation import Spoiler
from tests.fuzz.target import Target
from tests.wire import avro

GOLDEN = Path(__file__).parents[1] / "golden" / "ticks"
MALFORMED = {
    *("tombstone", "empty", "json", "frame", "avro", "schema", "format", "field", "number"),
    *("time_range", "no_time", "unsupported"),
}
SILENT = {"repeated", "control", "open_bar", "unpriced", "deleted"}
SPOILT = 24  # of a batch; its other records are valid
STAMP_MS = 1_700_000_000_000
END = b"\n--\n"  # between the records of one input, which no message has in it
SCHEMAS: Mapping[bytes, ValueSchema] = {
    avro.frame(i): avro.schema_of(definition)
    for i, definition in enumerate((avro.TICK, avro.DECIMAL_TICK, avro.CRYPTOFEED, avro.DEBEZIUM))
} | {avro.frame(9): ValueSchema("JSON", ("{}",)), avro.frame(8): ValueSchema("MISSING", ())}
NATIVE = [
    b'{"symbol":"A","time":%d,"price":%d.25}' % (1_700_000_000_000 + i, i + 1) for i in range(40)
]


@cache
def corpus() -> tuple[bytes, ...]:
    """Return messages of every kind that there are."""
    found = [
        orjson.dumps(orjson.loads(line)["message"])
        for path in sorted(GOLDEN.glob("*.jsonl"))
        for line in path.read_bytes().splitlines()
        if "message" in orjson.loads(line)
    ]
    found += [
        b'{"op":"c","before":null,"after":%b}' % NATIVE[0],
        b'{"schema":{"type":"struct","fields":[{"field":"price","type":"bytes","name":'
        b'"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}]},"payload":'
        b'{"symbol":"A","time":1700000000000,"price":"AQI="}}',
        b"[" + b",".join(NATIVE[:5]) + b"]",
        columnar.to_bytes(
            ["A", "B"], [0, 1, 0], [1_700_000_000_000_000_000] * 3,
            {"price": [1.0, 2.0, 3.0], "bid_size": [1.0, np.nan, 2.0], "id": [1, 2, 3]},
        ),
        avro.framed(0, avro.TICK, {"symbol": "A", "time": 1_700_000_000_000_000, "price": 1.5}),
        avro.framed(2, avro.CRYPTOFEED, {
            "exchange": "COINBASE", "symbol": "BTC-USD", "side": "buy", "id": "7", "amount": 0.1,
            "price": 65_000.5, "timestamp": 1.7e9, "receipt_timestamp": 1.7e9,
        }),
        avro.framed(3, avro.DEBEZIUM, {
            "before": None, "after": {"symbol": "A", "time": 1_700_000_000_000, "price": 1.5},
            "op": "c", "ts_ms": None,
        }),
        avro.frame(9) + NATIVE[0],
        avro.frame(8) + NATIVE[0],
    ]  # fmt: skip
    return (*found, *NATIVE[:3])


def batch_of(values: list[bytes | None]) -> RecordBatch:
    """Return records of one source."""
    n = len(values)
    return RecordBatch(Source("t", 0), 0, n, range(n), [STAMP_MS] * n, values, SCHEMAS)


def check(read: TickBatch, n: int) -> None:
    """Hold what was decoded against what is promised."""
    assert {reason for _, reason in read.malformed} <= MALFORMED
    assert set(read.silent) <= SILENT, read.silent
    rows = {*read.row.tolist()}
    bad = {row for row, _ in read.malformed}
    assert not rows & bad
    assert len(rows) + len(bad) + sum(read.silent.values()) == n
    assert ((read.time_ns >= EARLIEST_NS) & (read.time_ns < LATEST_NS)).all()
    assert not any(np.isinf(column).any() for column in (read.price, read.bid, read.ask))
    assert (read.ident >= 0).all()


def of_rows(read: TickBatch, rows: range) -> list[object]:
    """Return what became of some records, to the last bit, their places left out."""
    own = (read.row >= rows.start) & (read.row < rows.stop)
    columns = (read.time_ns, read.asset, read.price, read.bid, read.ask, read.ident)
    return [
        (read.row[own] - rows.start).tolist(),
        *(column[own].tobytes() for column in columns),
    ] + [(row - rows.start, why) for row, why in read.malformed if row in rows]


SYMBOLS = {"A": 0, "COINBASE:BTC-USD": 1, "KRAKEN:MATIC/USD": 2}


def make(spoiler: Spoiler, number: int) -> bytes:
    """Return the spoilt records of one batch, as one input."""
    values = [spoiler.spoil(number * SPOILT + i) for i in range(SPOILT)]
    if number % 4 == 0:  # many of a kind, so that columns are read and halved
        values = [values[0]] * (SPOILT - 4) + values[:4]
    return END.join(value.replace(END, b"") for value in values)


def read_batch(value: bytes, format_name: str = "auto") -> None:
    """Decode spoilt records and 40 valid ones that stand before and after them."""
    spoilt: list[bytes | None] = [*value.split(END)]
    n, before = len(spoilt), 30
    batch = batch_of([*NATIVE[:before], *spoilt, *NATIVE[before:]])
    read = decode(batch, format_name, SYMBOLS)
    check(read, n + len(NATIVE))
    parts = (range(before), range(before + n, n + len(NATIVE)))
    alone = (batch_of([*NATIVE[:before]]), batch_of([*NATIVE[before:]]))
    for rows, own in zip(parts, alone, strict=True):
        wanted = of_rows(decode(own, format_name, SYMBOLS), range(len(own.values)))
        assert of_rows(read, rows) == wanted, "a valid neighbour has changed"
    if len(value) % 8 == 0:
        for i, one in enumerate(spoilt):
            single = decode(batch_of([one]), format_name, SYMBOLS)
            row = range(before + i, before + i + 1)
            assert of_rows(read, row) == of_rows(single, range(1)), "the batch shows"


def read_aside(value: bytes) -> None:
    """Let the readers of ``doctor`` and of recordings have the same records."""
    spoilt: list[bytes | None] = [*value.split(END)]
    surveyed = Survey().take(batch_of(spoilt))
    assert len(surveyed.label) == len(surveyed.ticks.row)
    Labels().read(batch_of(spoilt))


def tick_target() -> Target:
    """All formats at once, as ``auto`` tells them apart."""
    return Target(corpus(), read_batch, make, SPOILT)


def survey_target() -> Target:
    """The same, for what only looks at records."""
    return Target(corpus(), read_aside, make, SPOILT)


def named_target() -> Target:
    """A format that is named, and gets what is not of it."""
    names = [*FORMATS]

    def read(value: bytes) -> None:
        read_batch(value, names[len(value) % len(names)])

    return Target(corpus(), read, make, SPOILT)


TARGETS = {"ticks": tick_target, "ticks_named": named_target, "survey": survey_target}
