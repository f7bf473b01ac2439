"""What a survey says of records, beside what the decoders make of them."""

from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from stream_calib.values import RecordBatch, Source
from stream_calib.wire.ticks import FORMATS, decode
from stream_calib.wire.ticks.columnar import to_bytes
from stream_calib.wire.ticks.survey import OF_LOG, RFC3339, Survey
from tests.wire.test_formats import SAMPLES

LOG_MS = 1_700_000_000_000


def batch(values: Sequence[bytes | None]) -> RecordBatch:
    n = len(values)
    return RecordBatch(Source("ticks", 0), 0, n, range(n), [LOG_MS] * n, values)


@pytest.mark.parametrize("times", [1, 40])  # one by one, and in bulk
def test_the_ticks_of_a_survey_are_those_of_the_decoders(times: int) -> None:
    messages = [orjson.dumps(sample["message"]) for _, sample in SAMPLES]
    values = [*messages * times, None, b"", b"junk", b"\x00\x00\x00\x00\x01{}", b"[[]]"]
    survey = Survey()
    surveyed = survey.take(batch(values))
    index = {symbol: i for i, symbol in enumerate(survey.symbols)}
    ticks = decode(batch(values), "auto", index)
    assert (surveyed.ticks.malformed, surveyed.ticks.silent) == (ticks.malformed, ticks.silent)
    assert surveyed.ticks.formats == ticks.formats
    for name in ("row", "time_ns", "asset", "price", "bid", "ask", "ident"):
        np.testing.assert_array_equal(getattr(surveyed.ticks, name), getattr(ticks, name))
    assert len(surveyed.label) == len(surveyed.received_ns) == len(ticks.time_ns)


@pytest.mark.parametrize("name", FORMATS)
def test_every_tick_of_a_documented_message_is_told_its_format_and_a_unit(name: str) -> None:
    survey = Survey()
    for own, sample in SAMPLES:
        if own == name:
            surveyed = survey.take(batch([orjson.dumps(sample["message"])]))
            assert {survey.labels[i].format for i in surveyed.label} <= {name}
    assert survey.labels
    units = {"s", "ms", "us", "ns", RFC3339, OF_LOG}
    assert {label.unit for label in survey.labels} <= units
    kinds = {"trade", "quote", "ticker", "candle", "control", "columns"}
    assert {label.kind for label in survey.labels} <= kinds


def test_columns_in_bytes_and_in_json_are_told_with_their_unit() -> None:
    time_ms = 1_700_000_000_000
    packed = to_bytes(["A"], [0, 0], [time_ms * 10**6] * 2, {"price": [1.0, 2.0]})
    twin = {"symbols": ["A"], "symbol": [0], "time": [time_ms], "price": [1.0]}
    survey = Survey()
    surveyed = survey.take(batch([packed, orjson.dumps(twin)]))
    found = [tuple(survey.labels[i]) for i in surveyed.label]
    assert found == [("columnar", "columns", "ns")] * 2 + [("columnar", "columns", "ms")]


def test_times_of_receipt_are_those_in_the_message() -> None:
    row = {"exchange": "X", "symbol": "A", "price": 1.0, "amount": 1.0, "timestamp": None,
           "receipt_timestamp": 1_700_000_000.25, "id": None}  # fmt: skip
    surveyed = Survey().take(batch([orjson.dumps(row)]))
    assert surveyed.received_ns.tolist() == [1_700_000_000_250_000_000]
