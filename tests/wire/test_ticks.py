"""Records to ticks: what each format accepts, why it refuses, and that batches do not show."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_calib.errors import ConfigError
from stream_calib.values import (
    FACTOR,
    OFFSET,
    RESET,
    TICK,
    RecordBatch,
    Source,
    TickBatch,
)
from stream_calib.wire.ticks import BULK_MIN, FORMATS, check_format, decode

SYMBOLS = {"A": 0, "B": 1, "X:A": 2, "X:B": 3}
TIME_NS = 1_625_291_738_612_292_000  # 2021-07-03T05:55:38.612292Z
COLUMNS = ("row", "time_ns", "asset", "price", "bid", "ask", "ident")
ALL_COLUMNS = (*COLUMNS, "kind", "bid_size", "ask_size")
BULK = BULK_MIN  # enough records for the bulk readers


def records(values: Sequence[bytes | None]) -> RecordBatch:
    n = len(values)
    return RecordBatch(Source("ticks", 0), 0, n, range(n), [-1] * n, values)


def decoded(values: Sequence[bytes | None], format_name: str = "auto") -> TickBatch:
    return decode(records(values), format_name, SYMBOLS)


def native(**fields: object) -> dict[str, object]:
    return {"symbol": "A", "time": TIME_NS, "price": 101.25} | fields


def adjusted(**how: object) -> dict[str, object]:
    return {"symbol": "A", "time": TIME_NS, "adjust": how}


def crypto(**fields: object) -> dict[str, object]:
    return {
        "exchange": "X",
        "symbol": "A",
        "side": "sell",
        "amount": 0.004,
        "price": 65114.2,
        "id": "a9188a0a",
        "type": None,
        "timestamp": 1786310819.68,
        "receipt_timestamp": 1786310819.965676,
    } | fields


def without(document: Mapping[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in document.items() if key not in keys}


def outcome(value: bytes | None, format_name: str = "auto") -> str | dict[str, Any]:
    """The reason why a record is refused, or its one tick.

    Asked of the record alone and of a batch of its like, which have to agree.
    """
    alone, many = decoded([value], format_name), decoded([value] * BULK, format_name)
    assert_same(many, joined([alone] * BULK))
    if alone.malformed:
        assert len(alone.time_ns) == 0
        return alone.malformed[0].reason
    assert len(alone.time_ns) == 1
    return {name: column_of(alone, name)[0].item() for name in ALL_COLUMNS}


def outcome_of(document: object) -> str | dict[str, Any]:
    return outcome(orjson.dumps(document))


def time_of(time: object) -> object:
    """The nanoseconds that a native tick of this time gets, or the reason why none."""
    found = outcome_of(native(time=time))
    return found if isinstance(found, str) else found["time_ns"]


def price_of(literal: bytes) -> object:
    """The price that a native tick gets from this JSON, or the reason why none."""
    found = outcome(b'{"symbol": "A", "time": %d, "price": %b}' % (TIME_NS, literal))
    return found if isinstance(found, str) else found["price"]


def column_of(batch: TickBatch, name: str) -> npt.NDArray[Any]:
    """A column, written out where nothing of it is carried."""
    n, column = len(batch.time_ns), getattr(batch, name)
    if column is not None:
        return column  # type: ignore[no-any-return]
    return np.full(n, TICK, np.int8) if name == "kind" else np.full(n, np.nan)


def joined(parts: Sequence[TickBatch]) -> TickBatch:
    """Put what came of consecutive batches together."""
    firsts = np.cumsum([0, *(len(part.records.values) for part in parts)])
    columns = {
        name: np.concatenate([column_of(part, name) for part in parts]) for name in ALL_COLUMNS[1:]
    }
    rows = [part.row + first for part, first in zip(parts, firsts, strict=False)]
    everything: Any = columns
    return TickBatch(
        records=records([value for part in parts for value in part.records.values]),
        formats=sum((Counter(part.formats) for part in parts), Counter()),
        silent=sum((Counter(part.silent) for part in parts), Counter()),
        row=np.concatenate(rows),
        **everything,
        malformed=tuple(
            bad._replace(row=bad.row + int(first))
            for part, first in zip(parts, firsts, strict=False)
            for bad in part.malformed
        ),
    )


def assert_same(one: TickBatch, other: TickBatch) -> None:
    for name in ALL_COLUMNS:
        a, b = column_of(one, name), column_of(other, name)
        assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), name
    assert one.malformed == other.malformed
    assert dict(one.formats) == dict(other.formats)
    assert dict(one.silent) == dict(other.silent)


# what is accepted


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_a_quote_may_carry_one_side(side: str) -> None:
    found = outcome_of({"symbol": "A", "time": TIME_NS, side: 101.5, f"{side}_size": 300})
    other = {"bid": "ask", "ask": "bid"}[side]
    assert isinstance(found, dict)
    assert (found[side], found[f"{side}_size"]) == (101.5, 300.0)
    assert math.isnan(found[other])
    assert math.isnan(found[f"{other}_size"])
    assert math.isnan(found["price"])


@pytest.mark.parametrize(
    ("how", "kind", "value"),
    [({"factor": "0.5"}, FACTOR, 0.5), ({"offset": -2}, OFFSET, -2.0), ({"reset": True}, RESET, 0)],
)
def test_control_records_adjust_earlier_prices(how: object, kind: int, value: float) -> None:
    found = outcome_of({"symbol": "A", "time": TIME_NS, "adjust": how, "price": 7})
    assert isinstance(found, dict)
    assert (found["kind"], found["price"]) == (kind, value)


def test_sizes_of_quotes_are_read_in_bulk_and_alone() -> None:
    quote = {"symbol": "A", "time": TIME_NS, "bid": 1.0, "ask": 2.0, "bid_size": 3, "ask_size": 4.5}
    found = outcome_of(quote)
    assert isinstance(found, dict)
    assert (found["bid_size"], found["ask_size"], found["kind"]) == (3.0, 4.5, TICK)


def test_the_documented_native_trade_is_read() -> None:
    value = b'{"symbol": "A", "time": 1625291738612292000, "price": 101.25}'
    assert outcome(value) == pytest.approx(
        {
            "row": 0,
            "time_ns": 1_625_291_738_612_292_000,
            "asset": 0,
            "price": 101.25,
            "bid": np.nan,
            "ask": np.nan,
            "ident": 0,
            "kind": TICK,
            "bid_size": np.nan,
            "ask_size": np.nan,
        },
        rel=0.0,
        abs=0.0,
        nan_ok=True,
    )


def test_the_documented_native_quote_is_read() -> None:
    value = b'{"symbol": "B", "time": "2021-07-03T05:55:38.612Z", "bid": 101.2, "ask": 101.3}'
    found = outcome(value)
    assert isinstance(found, dict)
    assert (found["bid"], found["ask"], found["asset"]) == (101.2, 101.3, 1)
    assert found["time_ns"] == 1_625_291_738_612_000_000
    assert np.isnan(found["price"])


def test_a_native_tick_may_carry_a_trade_and_a_quote() -> None:
    found = outcome_of(native(bid=101, ask="101.5"))
    assert isinstance(found, dict)
    assert (found["price"], found["bid"], found["ask"]) == (101.25, 101.0, 101.5)


def test_the_documented_cryptofeed_trade_is_read() -> None:
    value = (
        b'{"exchange": "X", "symbol": "A", "side": "sell", "amount": 0.004,'
        b' "price": 65114.2, "id": "a9188a0a", "type": null, "timestamp": 1786310819.68,'
        b' "receipt_timestamp": 1786310819.965676}'
    )
    found = outcome(value)
    assert isinstance(found, dict)
    assert (found["asset"], found["price"]) == (2, 65114.2)
    assert found["time_ns"] == 1_786_310_819_680_000_000
    assert found["ident"] >= 2**62


def test_cryptofeed_milliseconds_are_recognised() -> None:
    found = outcome_of(crypto(timestamp=1786310817583))
    assert isinstance(found, dict)
    assert found["time_ns"] == 1_786_310_817_583_000_000


def test_a_null_time_of_cryptofeed_falls_back_to_the_receipt() -> None:
    found = outcome_of(crypto(timestamp=None))
    assert isinstance(found, dict)
    assert found["time_ns"] == 1_786_310_819_965_676_000


@pytest.mark.parametrize(
    ("time", "time_ns"),
    [
        (1_625_291_738_612_292_123, 1_625_291_738_612_292_123),
        (1_625_291_738_612_292, 1_625_291_738_612_292_000),
        (1_625_291_738_612, 1_625_291_738_612_000_000),
        (1_625_291_738, 1_625_291_738_000_000_000),
        (1_625_291_738.612292, 1_625_291_738_612_292_000),
        (1_625_291_738.612_292_7, 1_625_291_738_612_293_000),
        (1_625_291_738_612.5, 1_625_291_738_612_500_000),
        (1_625_291_738_612_292.25, 1_625_291_738_612_292_000),
        (1.625291738612292e18, 1_625_291_738_612_292_096),  # the nearest float64
        ("1625291738612292123", 1_625_291_738_612_292_123),
        ("1625291738", 1_625_291_738_000_000_000),
        (631_152_000, 631_152_000_000_000_000),
        (631_151_999, "time_range"),
        (4_102_444_799_999_999_999, 4_102_444_799_999_999_999),
        (4_102_444_799, 4_102_444_799_000_000_000),
        (4_102_444_800, "time_range"),
        (4_102_444_799.9999999, "time_range"),  # rounds up to the end
        (0, "time_range"),
        (-1_625_291_738, "time_range"),
        (-1.5, "time_range"),
        (2**63, "time_range"),
        (2**64 - 1, "time_range"),
        ("9" * 19, "time_range"),
        ("9" * 20, "field"),
        # what wraps around to a believable time where 64 bits are all there is
        (19_446_744_073, "time_range"),
        (19_446_744_073.5, "time_range"),
        (19_446_744_073_000, "time_range"),
        (19_446_744_073_000.5, "time_range"),
        (19_446_744_073_000_000, "time_range"),
        # the edges between two units
        (10**11 - 1, "time_range"),
        (10**11, "time_range"),
        (10**14 - 1, "time_range"),
        (10**14, "time_range"),
        (10**17 - 1, "time_range"),
        (10**17, "time_range"),
        (True, "field"),
        (None, "field"),
        ([], "field"),
        ({}, "field"),
        ("", "field"),
        ("-1625291738", "field"),
        ("1625291738.5", "field"),
        ("\u0661" * 10, "field"),
    ],
)
def test_the_unit_of_a_time_is_told_by_its_magnitude(time: object, time_ns: object) -> None:
    assert time_of(time) == time_ns


@pytest.mark.parametrize(
    ("time", "time_ns"),
    [
        ("2021-07-03T05:55:38Z", 1_625_291_738_000_000_000),
        ("2021-07-03t05:55:38z", 1_625_291_738_000_000_000),
        ("2021-07-03 05:55:38Z", 1_625_291_738_000_000_000),
        ("2021-07-03T05:55:38.6Z", 1_625_291_738_600_000_000),
        ("2021-07-03T05:55:38.612292123Z", 1_625_291_738_612_292_123),
        ("2021-07-03T05:55:38.6122921239999Z", 1_625_291_738_612_292_123),  # cut, not rounded
        ("2021-07-03T07:55:38+02:00", 1_625_291_738_000_000_000),
        ("2021-07-03T01:25:38-04:30", 1_625_291_738_000_000_000),
        ("2021-07-03T05:55:38-00:00", 1_625_291_738_000_000_000),
        ("2021-07-04T05:54:38+23:59", 1_625_291_738_000_000_000),
        ("2020-02-29T00:00:00Z", 1_582_934_400_000_000_000),
        ("1990-01-01T00:00:00Z", 631_152_000_000_000_000),
        ("2099-12-31T23:59:59.999999999Z", 4_102_444_799_999_999_999),
        ("1989-12-31T23:59:59.999999999Z", "time_range"),
        ("2100-01-01T00:00:00Z", "time_range"),
        ("0001-01-01T00:00:00+23:59", "time_range"),
        ("9999-12-31T23:59:59-23:59", "time_range"),
        ("2021-02-29T00:00:00Z", "field"),
        ("2021-13-01T00:00:00Z", "field"),
        ("0000-01-01T00:00:00Z", "field"),
        ("2021-07-03T24:00:00Z", "field"),
        ("2021-07-03T05:55:60Z", "field"),
        ("2021-07-03T05:55:38", "field"),  # no zone
        ("2021-07-03", "field"),
        ("2021-07-03T05:55Z", "field"),
        ("2021-07-03T05:55:38.Z", "field"),
        ("2021-07-03T05:55:38,5Z", "field"),
        ("2021-07-03T05:55:38+0200", "field"),
        ("2021-07-03T05:55:38+24:00", "field"),
        ("2021-07-03T05:55:38+00:60", "field"),
        ("2021-07-03T05:55:38ZZ", "field"),
        (" 2021-07-03T05:55:38Z", "field"),
        ("2021-07-03T05:55:38Z\n", "field"),
        ("20210703T055538Z", "field"),
        ("2021-07-03T05:55:38.\uff11Z", "field"),
    ],
)
def test_times_in_rfc_3339_are_read_to_the_nanosecond(time: str, time_ns: object) -> None:
    assert time_of(time) == time_ns


@pytest.mark.parametrize(
    ("literal", "price"),
    [
        (b"101.25", 101.25),
        (b"101", 101.0),
        (b"-37.63", -37.63),  # whether a price may be negative is for the universe to say
        (b"0", 0.0),
        (b"1e-400", 0.0),
        (b"18446744073709551615", 2.0**64),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b'"101.25"', 101.25),
        (b'"1e3"', 1000.0),
        (b'"+.5"', 0.5),
        (b'"5."', 5.0),
        (b'"-0.5E-2"', -0.005),
        (b'"1e400"', "number"),
        (b'"' + b"9" * 64 + b'"', 1e64),
        (b'"' + b"9" * 65 + b'"', "field"),
        (b'""', "field"),
        (b'" 1"', "field"),
        (b'"1_000"', "field"),
        (b'"1,5"', "field"),
        (b'"0x10"', "field"),
        (b'"nan"', "field"),
        (b'"inf"', "field"),
        (b'"-Infinity"', "field"),
        ('"\u0661\u0660"'.encode(), "field"),
        (b"true", "field"),
        (b"null", "field"),
        (b"[101.25]", "field"),
        (b"{}", "field"),
        (b"1e400", "json"),
        (b"NaN", "json"),
        (b"-Infinity", "json"),
        (b"0x10", "json"),
        (b"9" * 400, "json"),
    ],
)
def test_a_price_is_a_finite_number_or_decimal_text(literal: bytes, price: object) -> None:
    assert price_of(literal) == price


@pytest.mark.parametrize(
    ("ident", "expected"),
    [
        (None, 0),
        ("", 0),
        (1, 1),
        ("1", 1),
        ("900719925474099267", 900_719_925_474_099_267),
        (2**62 - 1, 2**62 - 1),
        ([1], "field"),
        ({}, "field"),
    ],
)
def test_small_ids_are_kept_and_none_is_zero(ident: object, expected: object) -> None:
    for document in (native(id=ident), crypto(id=ident)):
        found = outcome_of(document)
        assert (found if isinstance(found, str) else found["ident"]) == expected


def test_other_ids_become_distinct_numbers_beyond_the_small_ones() -> None:
    others = ["01", "a", "b", "ab", "ä", "0", 0, -1, 2**62, 2**64 - 1, 1.5, "x" * 1000]
    found = [outcome_of(native(id=ident)) for ident in others]
    idents = [f["ident"] for f in found if isinstance(f, dict)]
    # "0" and 0, written alike, are the same id
    assert len(set(idents)) == len(others) - 1
    assert all(2**62 <= ident < 2**63 for ident in idents)


def test_an_id_has_the_same_number_in_every_process() -> None:
    found = outcome_of(native(id="a9188a0a"))
    assert isinstance(found, dict)
    assert found["ident"] == 7220297513874015642  # blake2b of the text, 62 bits of it


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [("B", 1), ("Z", -1), ("a", -1), ("ü", -1), ("", "field"), (None, "field"), (5, "field")],
)
def test_a_symbol_outside_the_universe_is_a_tick_of_nobody(
    symbol: object, expected: object
) -> None:
    found = outcome_of(native(symbol=symbol))
    assert (found if isinstance(found, str) else found["asset"]) == expected


def test_further_fields_are_ignored() -> None:
    more = {"volume": 3, "venue": {"name": "X"}, "time_ns": 1, "price_ns": None}
    assert outcome_of(native(**more)) == pytest.approx(
        outcome_of(native()), rel=0.0, abs=0.0, nan_ok=True
    )


# what is refused


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b" ", "json"),
        (b"{", "json"),
        (b"A,1625291738,101.25", "json"),
        (b"\xff\xfe{}", "json"),
        (b'{"symbol": "\xff", "time": 1625291738, "price": 1}', "json"),
        (b'{"symbol": "\\ud800", "time": 1625291738, "price": 1}', "json"),
        (b"\xef\xbb\xbf{}", "json"),
        (b"[" * 100_000, "json"),
        (b"[" * 900 + b"]" * 900, "format"),
        (b'{"time": ' + b"[" * 900 + b"]" * 900 + b"}", "field"),
        (b"\x00" * 2_000_000, "frame"),
        (b"\x00\x00\x00\x00", "json"),
        (b"\x00\x00\x00\x00\x07\x02A", "frame"),
        (b'"' + b"x" * 2_000_000 + b'"', "format"),
        (b'{"time": "' + b"9" * 2_000_000 + b'"}', "field"),
        (b"null", "format"),
        (b"5", "format"),
        (b'"time"', "format"),
        (b'["time"]', "format"),
        (b'[[{"symbol": "A", "time": 1625291738, "price": 1}]]', "format"),
        (b"[]", "format"),
        (b"{}", "format"),
        (b'{"symbol": "A", "price": 1}', "format"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_tick_is_refused_with_a_reason(value: bytes | None, reason: str) -> None:
    assert outcome(value) == reason


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (without(native(), "symbol"), "field"),
        (without(native(), "price"), "field"),
        (native(bid="x", ask=1), "field"),
        (native(bid=True, ask=1), "field"),
        (native(bid_size=-1), "number"),
        (native(bid_size="many"), "field"),
        (adjusted(), "field"),
        (adjusted(factor=0.5, offset=1), "field"),
        (adjusted(factor=0), "number"),
        (adjusted(factor=-1), "number"),
        (adjusted(factor="x"), "field"),
        (adjusted(reset=False), "field"),
        (adjusted(reset=1), "field"),
        (adjusted(split=2), "field"),
        (native(adjust=None), "field"),
        (without(crypto(), "exchange"), "field"),
        (crypto(exchange=""), "field"),
        (crypto(exchange=7), "field"),
        (crypto(symbol=None), "field"),
        (crypto(price=None), "field"),
        (crypto(price=False), "field"),
        (crypto(timestamp="soon"), "field"),
        (crypto(timestamp=None, receipt_timestamp=None), "field"),
        (crypto(timestamp=-1.0), "time_range"),
        (without(crypto(), "price"), "unsupported"),
        (without(crypto(open=1, close=2), "price", "amount"), "unsupported"),
    ],
)
def test_missing_or_unusable_fields_are_refused_with_a_reason(
    document: Mapping[str, object], reason: str
) -> None:
    assert outcome_of(document) == reason


def test_fields_that_may_be_null_or_missing_are() -> None:
    for document in (
        native(bid=None, ask=None, id=None),
        crypto(id=None, type=None, side=None, amount=None),
        without(crypto(), "id", "side", "type", "timestamp"),
    ):
        assert isinstance(outcome_of(document), dict)


def test_a_named_format_takes_no_other() -> None:
    trade, feed = orjson.dumps(native()), orjson.dumps(crypto())
    assert isinstance(outcome(trade, "native"), dict)
    assert isinstance(outcome(feed, "cryptofeed"), dict)
    assert outcome(trade, "cryptofeed") == "format"
    assert outcome(feed, "native") == "format"


def test_no_document_belongs_to_two_formats() -> None:
    for document in (native(), crypto(), crypto(time=TIME_NS), {}):
        assert sum(format_.matches(document.keys()) for format_ in FORMATS.values()) <= 1


def test_formats_are_counted_by_record() -> None:
    values = [orjson.dumps(d) for d in (native(), crypto(), native(), {"time": 1}, crypto())]
    assert decoded(values).formats == {"native": 2, "cryptofeed": 2}


def test_an_unknown_format_is_refused_by_the_name_of_its_key() -> None:
    for name in ("auto", *FORMATS):
        check_format(name)
    with pytest.raises(ConfigError, match=r"^input\.format: 'xml' is not one of auto, native"):
        check_format("xml")


# batches


def test_a_batch_of_no_records_has_columns_of_no_ticks() -> None:
    empty, one = decoded([]), decoded([orjson.dumps(native())])
    for name in COLUMNS:
        assert len(getattr(empty, name)) == 0
        assert getattr(empty, name).dtype == getattr(one, name).dtype
    assert empty.malformed == ()
    assert empty.formats == {}


@pytest.mark.parametrize("n", [1, BULK_MIN - 1, BULK_MIN, 5 * BULK_MIN + 3])
@pytest.mark.parametrize("bad", [None, b"", b"junk", b"7", orjson.dumps({"time": True})])
def test_one_bad_record_among_good_ones_takes_no_other_with_it(n: int, bad: bytes | None) -> None:
    good = [orjson.dumps(native(time=TIME_NS + i, price=i, id=i + 1)) for i in range(n)]
    for at in {0, n // 2, n}:
        batch = decoded([*good[:at], bad, *good[at:]])
        assert [row for row, _ in batch.malformed] == [at]
        assert batch.price.tolist() == list(range(n))
        assert batch.ident.tolist() == list(range(1, n + 1))
        assert batch.row.tolist() == [*range(at), *range(at + 1, n + 1)]


@pytest.mark.parametrize(
    ("alike", "odd"),
    [
        (native(), crypto()),
        (native(), without(native(), "time")),
        (native(), native(bid=1, ask=2)),
        (native(), native(bid=1)),
        (native(), native(id="a")),
        (native(), native(time=TIME_NS / 1e9)),
        (native(), native(time=TIME_NS // 1000)),
        (native(), native(price="7")),
        (native(), native(symbol="")),
        (crypto(), native()),
        (crypto(), crypto(time=TIME_NS)),
        (crypto(), without(crypto(), "receipt_timestamp")),
        (crypto(), without(crypto(), "id")),
        (crypto(), crypto(id=None)),
        (crypto(), crypto(timestamp=None)),
        (crypto(), crypto(timestamp=1786310819680)),
        (crypto(), crypto(exchange="")),
        (crypto(), [crypto()]),
    ],
)
def test_an_odd_record_among_alike_ones_is_read_as_if_alone(
    alike: Mapping[str, object], odd: object
) -> None:
    for at in (0, BULK // 2, BULK):
        row = [alike] * BULK
        values = [orjson.dumps(document) for document in [*row[:at], odd, *row[at:]]]
        assert_same(decoded(values), joined([decoded([value]) for value in values]))


times = st.sampled_from(
    [
        TIME_NS,
        TIME_NS // 1000,
        TIME_NS // 1_000_000,
        TIME_NS // 1_000_000_000,
        TIME_NS / 1e9,
        TIME_NS / 1e6,
        "2021-07-03T05:55:38.612292Z",
        19_446_744_073,
        -5,
        None,
        True,
        2**63,
        1e300,
    ]
) | st.integers(-(2**63), 2**64 - 1)
prices = st.sampled_from([101.25, 7, -1.5, "101.25", "x", None, True, 2**64 - 1]) | st.floats()
symbols = st.sampled_from(["A", "B", "Z", "", None, 5])
ids: st.SearchStrategy[object] = st.sampled_from([None, "", "a", 5, -5, 2**63, 1.5, True, []])
plain = st.builds(native, price=st.floats(1.0, 9.0), time=st.integers(TIME_NS, TIME_NS + 99))
documents = st.one_of(
    plain,
    plain,
    plain,
    st.builds(native, symbol=symbols, time=times, price=prices, id=ids),
    st.builds(native, price=st.none(), bid=prices, ask=prices),
    st.builds(crypto, amount=st.integers(1, 9), timestamp=times),
    st.builds(crypto, symbol=symbols, price=prices, timestamp=times, id=ids),
    st.builds(without, st.builds(crypto), st.sampled_from([*crypto()])),
    st.builds(without, st.builds(native), st.sampled_from([*native()])),
    st.sampled_from([5, "time", None, [], {}]),
)
values_ = st.one_of(
    documents.map(orjson.dumps), documents.map(orjson.dumps), st.none(), st.binary(max_size=20)
)
# runs of one value repeated, so that whole halves go through the bulk readers
lists_ = st.lists(
    st.tuples(values_, st.sampled_from([1, 1, 1, 40])).map(lambda run: [run[0]] * run[1]),
    max_size=12,
).map(lambda runs: [value for run in runs for value in run])
formats_ = st.sampled_from(["auto", *FORMATS])


@given(st.lists(st.none() | st.binary(max_size=200), max_size=70), formats_)
def test_no_bytes_make_it_raise(values: list[bytes | None], format_name: str) -> None:
    batch = decoded(values, format_name)
    assert len({*batch.row.tolist()}) + len(batch.malformed) == len(values)
    assert not batch.silent


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
any_fields = st.dictionaries(
    st.sampled_from([*native(bid=1, ask=1, id=1), *crypto()]), times | prices | ids | json_values
)


@given(st.lists(any_fields.map(orjson.dumps), max_size=70), formats_)
def test_no_json_makes_it_raise(values: list[bytes | None], format_name: str) -> None:
    batch = decoded(values, format_name)
    assert len(batch.row) + len(batch.malformed) == len(values)
    reasons = {reason for _, reason in batch.malformed}
    assert reasons <= {"format", "field", "number", "time_range", "unsupported"}


@given(lists_, formats_, st.data())
def test_batches_do_not_show_in_the_ticks(
    values: list[bytes | None], format_name: str, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    edges = [0, *cuts, len(values)]
    whole = decoded(values, format_name)
    pieces = [decoded(values[a:b], format_name) for a, b in pairwise(edges)]
    singles = [decoded([value], format_name) for value in values]
    assert_same(joined(pieces), whole)
    assert_same(joined([decoded([]), *singles]), whole)


@given(st.lists(plain, min_size=BULK_MIN, max_size=3 * BULK_MIN), st.integers(0, 2**32 - 1))
def test_the_order_of_the_records_is_kept(rows: list[dict[str, Any]], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(rows))
    batch = decoded([orjson.dumps(rows[i]) for i in order])
    assert batch.time_ns.tolist() == [rows[i]["time"] for i in order]
    assert batch.price.tolist() == [rows[i]["price"] for i in order]
