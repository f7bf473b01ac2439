"""Events and rejects on the wire, and the envelope that all records share."""

import hashlib
import zlib

import orjson
import pytest

from stream_calib.values import REJECT_BYTES_MAX, Event
from stream_calib.wire.cloudevents import rfc3339
from stream_calib.wire.events import encode_event, encode_reject
from tests.golden.values import EVENT, REJECT, TOMBSTONE, reject


def test_an_event_is_json_keyed_by_its_universe() -> None:
    record = encode_event(EVENT, "calib.events", 4)
    assert (record.topic, record.partition, record.key) == ("calib.events", 4, b"fx")
    assert orjson.loads(record.value) == {
        "schema_version": 1,
        "universe": "fx",
        "sequence": 3,
        "type": "gap",
        "time_ns": "1700000000123456789",
        "details": {"from_ns": "1699999940123456789", "bars": 60},
    }


def test_an_event_travels_as_a_cloud_event() -> None:
    record = encode_event(EVENT, "calib.events", 4)
    assert dict(record.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"fx|events|3",
        "ce_source": b"/stream-calib/fx",
        "ce_type": b"stream_calib.event.v1",
        "ce_time": b"2023-11-14T22:13:20.123456789Z",
        "content-type": b"application/json",
        "crc32": f"{zlib.crc32(record.value):08x}".encode(),
        "sequence": b"3",
    }


def test_details_of_an_event_may_be_lists() -> None:
    event = Event("fx", 1, "symbol_ready", 0, {"symbols": ["A", "Ü"]})
    assert orjson.loads(encode_event(event, "t", 0).value)["details"]["symbols"] == ["A", "Ü"]


def test_a_reject_is_its_original_bytes_with_the_reason_in_the_headers() -> None:
    record = encode_reject(REJECT, "calib.rejects", 4)
    assert (record.topic, record.partition) == ("calib.rejects", 4)
    assert record.key == b"ticks-2-41"
    assert record.value == b'{"symbol": \xff'
    assert dict(record.headers) == {
        "universe": b"fx",
        "reason": b"json",
        "topic": b"ticks",
        "partition": b"2",
        "offset": b"41",
        "length": b"12",
        "sha256": hashlib.sha256(record.value).hexdigest().encode(),
        "tombstone": b"false",
        "content-type": b"application/octet-stream",
    }


@pytest.mark.parametrize("length", [REJECT_BYTES_MAX, REJECT_BYTES_MAX + 1, 2_000_000])
def test_a_long_reject_is_cut_but_measured_whole(length: int) -> None:
    original = bytes(range(250)) * (length // 250 + 1)
    original = original[:length]
    record = encode_reject(reject(1, "json", original), "t", 0)
    headers = dict(record.headers)
    assert record.value == original[:65_536]
    assert headers["length"] == str(length).encode()
    assert headers["sha256"] == hashlib.sha256(original).hexdigest().encode()


def test_a_tombstone_and_an_empty_value_can_be_told_apart() -> None:
    tombstone = encode_reject(TOMBSTONE, "t", 0)
    empty = encode_reject(reject(42, "empty", b""), "t", 0)
    assert tombstone.value == empty.value == b""
    assert dict(tombstone.headers)["tombstone"] == b"true"
    assert dict(empty.headers)["tombstone"] == b"false"


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_582_934_400_000_000_000, "2020-02-29T00:00:00.000000000Z"),
        (4_102_444_799_999_999_999, "2099-12-31T23:59:59.999999999Z"),
    ],
)
def test_times_are_written_with_nine_digits(time_ns: int, text: str) -> None:
    assert rfc3339(time_ns) == text
