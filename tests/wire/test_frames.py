"""Records in frames of a schema registry: Avro is read as the JSON it stands for."""

import sys
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.values import RecordBatch, Source, TickBatch, ValueSchema
from stream_calib.wire.ticks import decode
from tests.wire.avro import (
    CRYPTOFEED,
    DEBEZIUM,
    DECIMAL_TICK,
    TICK,
    frame,
    framed,
    schema_of,
)

TIME_US = 1_700_000_000_123_456
SYMBOLS = {"A": 0, "B": 1, "COINBASE:BTC-USD": 2}
SCHEMAS = {
    frame(1): schema_of(TICK),
    frame(2): schema_of(DECIMAL_TICK),
    frame(3): schema_of(CRYPTOFEED),
    frame(4): schema_of(DEBEZIUM),
    frame(5): ValueSchema("JSON", ()),
    frame(6): ValueSchema("PROTOBUF", ()),
    frame(7): ValueSchema("MISSING", ()),
    frame(8): ValueSchema("AVRO", ("{",)),
    frame(9): ValueSchema("AVRO", ('{"type": "record", "name": "X", "fields": [{}]}',)),
    frame(10): schema_of("bytes"),
    b"\1" + bytes(range(16)): schema_of(TICK),
}


def read(
    *values: bytes | None, schemas: Mapping[bytes, ValueSchema] = SCHEMAS, format_: str = "auto"
) -> TickBatch:
    n = len(values)
    records = RecordBatch(Source("t", 0), 0, n, range(n), [-1] * n, values, schemas)
    return decode(records, format_, SYMBOLS)


def reasons(*values: bytes | None, **options: Mapping[bytes, ValueSchema]) -> list[str]:
    ticks = read(*values, **options)  # type: ignore[arg-type]
    assert len(ticks.price) == 0
    return [one.reason for one in ticks.malformed]


def tick(symbol: str = "A", price: float = 101.25) -> bytes:
    return framed(1, TICK, {"symbol": symbol, "time": TIME_US, "price": price})


def test_a_native_tick_in_avro_is_what_it_is_in_json() -> None:
    ticks = read(tick(), tick("B", 7.5), tick("UNKNOWN"))
    assert not ticks.malformed
    assert ticks.formats == {"native": 3}
    assert ticks.time_ns.tolist() == [TIME_US * 1000] * 3
    assert ticks.asset.tolist() == [0, 1, -1]
    assert ticks.price.tolist() == [101.25, 7.5, 101.25]


def test_decimals_become_numbers_and_optional_ids_are_ids() -> None:
    values = [
        framed(
            2, DECIMAL_TICK, {"symbol": "A", "time": TIME_US, "price": Decimal(price), "id": id_}
        )
        for price, id_ in (("101.2500", 7), ("0.0001", None))
    ]
    ticks = read(*values)
    assert not ticks.malformed
    assert ticks.price.tolist() == [101.25, 0.0001]
    assert ticks.ident.tolist() == [7, 0]


def test_a_trade_of_cryptofeed_in_avro_is_recognised() -> None:
    trade = {
        "exchange": "COINBASE",
        "symbol": "BTC-USD",
        "side": "buy",
        "amount": 0.5,
        "price": 37_000.5,
        "timestamp": TIME_US / 1e6,
        "receipt_timestamp": TIME_US / 1e6,
        "id": "12",
    }
    ticks = read(framed(3, CRYPTOFEED, trade))
    assert ticks.formats == {"cryptofeed": 1}
    assert (ticks.asset.tolist(), ticks.price.tolist()) == ([2], [37_000.5])


def test_a_change_of_debezium_in_avro_is_opened() -> None:
    row = {"symbol": "B", "time": TIME_US, "price": 3.5}
    change = {"before": None, "after": row, "op": "c", "ts_ms": 1}
    deletion = {"before": row, "after": None, "op": "d", "ts_ms": 1}
    ticks = read(framed(4, DEBEZIUM, change), framed(4, DEBEZIUM, deletion))
    assert (ticks.asset.tolist(), ticks.price.tolist()) == ([1], [3.5])
    assert ticks.silent == {"deleted": 1}
    assert not ticks.malformed


def test_a_schema_may_refer_to_others() -> None:
    outer = {
        "type": "record",
        "name": "Named",
        "fields": [
            {"name": "symbol", "type": "market.Symbol"},
            {"name": "time", "type": "long"},
            {"name": "price", "type": "double"},
        ],
    }
    symbol = {"type": "enum", "name": "Symbol", "namespace": "market", "symbols": ["A", "B"]}
    whole = {**outer, "fields": [{"name": "symbol", "type": symbol}, *outer["fields"][1:]]}
    value = framed(1, whole, {"symbol": "B", "time": TIME_US, "price": 2.0})
    ticks = read(value, schemas={frame(1): schema_of(symbol, outer)})
    assert (ticks.asset.tolist(), ticks.price.tolist()) == ([1], [2.0])
    assert reasons(value, schemas={frame(1): schema_of(outer)}) == ["schema"]


def test_frames_with_a_guid_are_read() -> None:
    guid = b"\1" + bytes(range(16))
    ticks = read(framed(guid, TICK, {"symbol": "A", "time": TIME_US, "price": 2.0}))
    assert ticks.price.tolist() == [2.0]


def test_json_in_a_frame_is_read_with_its_schema_and_without() -> None:
    value = frame(5) + orjson.dumps({"symbol": "A", "time": TIME_US, "price": 2.0})
    for schemas in (SCHEMAS, {}):
        assert read(value, schemas=schemas).price.tolist() == [2.0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (tick()[:-1], "avro"),
        (tick() + b"\0", "avro"),
        (frame(1) + b"\xff" * 9, "avro"),
        (framed(1, TICK, {"symbol": "A", "time": TIME_US, "price": float("nan")}), "number"),
        (framed(1, TICK, {"symbol": "A", "time": 7, "price": 1.0}), "time_range"),
        (framed(10, "bytes", b"\xff"), "format"),
        (frame(5) + b"{", "frame"),
        (frame(6) + b"\0", "unsupported"),
        (frame(7) + b"\0", "schema"),
        (frame(8) + b"\0", "schema"),
        (frame(9) + b"\0", "schema"),
        (frame(99) + b"\0", "frame"),
        (frame(1), "json"),
    ],
)
def test_what_cannot_be_read_has_a_reason(value: bytes, reason: str) -> None:
    assert reasons(value) == [reason]


def test_avro_among_json_keeps_its_place() -> None:
    plain = orjson.dumps({"symbol": "B", "time": TIME_US, "price": 5.0})
    values = [plain, tick(), b"{", plain, tick(price=102.0)] * 20
    ticks = read(*values)
    assert ticks.price.tolist() == [5.0, 101.25, 5.0, 102.0] * 20
    assert ticks.row.tolist() == [row for row in range(100) if row % 5 != 2]


def test_many_records_are_what_each_is_alone() -> None:
    rng = np.random.default_rng(5)
    values = [tick("AB"[k % 2], float(p)) for k, p in enumerate(rng.uniform(1, 2, 100))]
    together = read(*values)
    alone = [read(value) for value in values]
    assert together.price.tolist() == [one.price[0] for one in alone]
    assert together.asset.tolist() == [one.asset[0] for one in alone]


@given(st.sampled_from(sorted(SCHEMAS)), st.binary(max_size=80), st.integers(0, 40))
def test_whatever_is_in_a_frame_nothing_is_raised(head: bytes, garbage: bytes, cut: int) -> None:
    good = tick()
    for value in (head + garbage, head + good[5 : 5 + cut] + garbage):
        ticks = read(value, good)
        assert ticks.price[-1] == 101.25
        assert len(ticks.malformed) + sum(ticks.silent.values()) + len(set(ticks.row)) == 2


def test_the_library_is_loaded_only_when_it_is_needed() -> None:
    import subprocess

    code = "import sys, stream_calib.wire.ticks; sys.exit('fastavro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
