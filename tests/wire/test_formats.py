"""Documented messages of every format, alone, in bulk, mixed, and in envelopes."""

import base64
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import orjson
import pytest
from hypothesis import strategies as st

from stream_calib.config import Config
from stream_calib.values import RecordBatch, Source, TickBatch
from stream_calib.wire.ticks import BULK_MIN, FORMATS, decode, symbol_tables
from stream_calib.wire.ticks.columnar import to_bytes

FOLDER = Path(__file__).parent.parent / "golden" / "ticks"
SAMPLES: list[tuple[str, dict[str, Any]]] = [
    (file.stem, orjson.loads(line))
    for file in sorted(FOLDER.glob("*.jsonl"))
    for line in file.read_bytes().splitlines()
]
NAMES = sorted({tick["symbol"] for _, sample in SAMPLES for tick in sample.get("ticks", ())})
INDEX = {name: i for i, name in enumerate(NAMES)}
SINGLE = [(name, s) for name, s in SAMPLES if isinstance(s["message"], dict)]
LOG_MS = 1_700_000_000_000
NUMBERS = ("price", "bid", "ask", "bid_size", "ask_size")
REASONS = {
    *("tombstone", "empty", "json", "frame", "format", "field", "number"),
    *("time_range", "no_time", "unsupported"),
}
QUIET = {"control", "open_bar", "unpriced", "deleted", "repeated"}


def batch(values: list[bytes | None], stamps_ms: list[int] | None = None) -> RecordBatch:
    n = len(values)
    return RecordBatch(Source("ticks", 0), 0, n, range(n), stamps_ms or [-1] * n, values)


def ticks_of(read: TickBatch) -> list[dict[str, Any]]:
    """Every tick with what it carries, as golden files write it."""
    out = []
    for i in range(len(read.time_ns)):
        name = NAMES[read.asset[i]] if read.asset[i] >= 0 else None
        tick: dict[str, Any] = {"symbol": name, "time_ns": int(read.time_ns[i])}
        for key in NUMBERS:
            column = getattr(read, key)
            if column is not None and column[i] == column[i]:
                tick[key] = float(column[i])
        if read.ident[i]:
            tick["ident"] = int(read.ident[i])
        out.append(tick)
    return out


def outcome(sample: dict[str, Any]) -> tuple[list[dict[str, Any]], Counter[str], Counter[str]]:
    """What a sample has to become: ticks, reasons to refuse, reasons to pass over."""
    refused, quiet = sample.get("malformed"), sample.get("silent")
    return (
        sample.get("ticks", []),
        Counter([refused] if refused else []),
        Counter([quiet] if quiet else []),
    )


def found(read: TickBatch) -> tuple[list[dict[str, Any]], Counter[str], Counter[str]]:
    return ticks_of(read), Counter(why for _, why in read.malformed), Counter(read.silent)


def decoded(sample: dict[str, Any], value: bytes, n: int = 1, format_name: str = "auto") -> Any:
    return found(decode(batch([value] * n, [sample.get("log_ms", -1)] * n), format_name, INDEX))


def ids(samples: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [f"{name}-{i}" for i, (name, _) in enumerate(samples)]


def test_every_format_has_documented_messages() -> None:
    assert {name for name, _ in SAMPLES} == set(FORMATS)


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=ids(SAMPLES))
def test_a_documented_message_becomes_what_it_says(name: str, sample: dict[str, Any]) -> None:
    value, expected = orjson.dumps(sample["message"]), outcome(sample)
    assert decoded(sample, value) == expected
    assert decoded(sample, value, format_name=name) == expected


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=ids(SAMPLES))
def test_in_bulk_a_message_becomes_what_it_does_alone(name: str, sample: dict[str, Any]) -> None:
    n = 2 * BULK_MIN
    ticks, refused, quiet = outcome(sample)
    read = decoded(sample, orjson.dumps(sample["message"]), n)
    assert read == (ticks * n, Counter(list(refused) * n), Counter(list(quiet) * n))


@pytest.mark.parametrize(("name", "sample"), SAMPLES, ids=ids(SAMPLES))
def test_only_its_own_format_takes_a_message(name: str, sample: dict[str, Any]) -> None:
    value = orjson.dumps(sample["message"])
    for other in FORMATS.keys() - {name}:
        assert decoded(sample, value, format_name=other) == ([], Counter(["format"]), Counter())


@pytest.mark.parametrize(("name", "sample"), SINGLE, ids=ids(SINGLE))
def test_keys_tell_one_format_alone(name: str, sample: dict[str, Any]) -> None:
    message = sample["message"]
    if message.keys() != {"stream", "data"}:
        matching = [f.name for f in FORMATS.values() if f.matches(message.keys())]
        assert matching == [name]


def test_a_mix_of_all_formats_is_read_in_the_order_of_records() -> None:
    rng = np.random.default_rng(5)
    order = rng.permutation(np.repeat(np.arange(len(SAMPLES)), BULK_MIN)).tolist()
    samples = [SAMPLES[i][1] for i in order]
    values: list[bytes | None] = [orjson.dumps(sample["message"]) for sample in samples]
    read = decode(batch(values, [sample.get("log_ms", -1) for sample in samples]), "auto", INDEX)
    expected = [outcome(sample) for sample in samples]
    assert ticks_of(read) == [tick for ticks, _, _ in expected for tick in ticks]
    assert read.row.tolist() == [i for i, (t, _, _) in enumerate(expected) for _ in t]
    assert [*read.malformed] == [(i, why) for i, (_, r, _) in enumerate(expected) for why in r]
    assert read.silent == sum((quiet for _, _, quiet in expected), Counter())


ENVELOPES = {
    "array": lambda message: orjson.dumps([message]),
    "stream": lambda message: orjson.dumps({"stream": "x@y", "data": message}),
    "connect": lambda message: orjson.dumps({"schema": None, "payload": message}),
    "debezium": lambda message: orjson.dumps(
        {"before": None, "after": message, "source": {}, "op": "c", "ts_ms": LOG_MS}
    ),
    "connect, debezium": lambda message: orjson.dumps(
        {
            "schema": {"type": "struct", "fields": []},
            "payload": {"before": None, "after": message, "source": {}, "op": "u", "ts_ms": LOG_MS},
        }
    ),
    "frame": lambda message: b"\x00\x00\x00\x00\x07" + orjson.dumps(message),
    "frame of a guid": lambda message: b"\x01" + bytes(16) + orjson.dumps(message),
}


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_what_is_in_an_envelope_is_read_as_if_it_were_bare(envelope: str) -> None:
    for name, sample in SINGLE:
        value = ENVELOPES[envelope](sample["message"])
        for format_name in ("auto", name):
            assert decoded(sample, value, 1, format_name) == outcome(sample), sample


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"op": "d", "before": {"symbol": "A"}, "after": None, "ts_ms": 1}, "deleted"),
        ({"op": "t", "before": None, "after": None, "ts_ms": 1}, "control"),
    ],
)
def test_a_deletion_says_nothing(document: dict[str, Any], reason: str) -> None:
    assert decoded({}, orjson.dumps(document)) == ([], Counter(), Counter([reason]))


@pytest.mark.parametrize(
    ("unscaled", "scale", "price"),
    [
        (10_125, "2", 101.25),
        (-37_63, "2", -37.63),
        (5, "-3", 5000.0),
        (65_114_200_000, "9", 65.1142),
    ],
)
def test_decimals_of_connect_are_bytes_under_a_schema(
    unscaled: int, scale: str, price: float
) -> None:
    field = {
        "field": "price",
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "version": 1,
        "parameters": {"scale": scale},
    }
    row = {"type": "struct", "field": "after", "fields": [field]}
    coded = base64.b64encode(unscaled.to_bytes(8, "big", signed=True)).decode()
    tick = {"symbol": NAMES[0], "time": 1_625_291_738, "price": coded}
    for schema, payload in (
        (row, tick),
        ({"type": "struct", "fields": [row]}, {"op": "c", "before": None, "after": tick}),
    ):
        ticks, refused, _ = decoded({}, orjson.dumps({"schema": schema, "payload": payload}))
        assert not refused
        assert ticks[0]["price"] == price
    for broken in ("", "!", "AA", 5 * "A" * 80):
        value = orjson.dumps({"schema": row, "payload": tick | {"price": broken}})
        assert decoded({}, value)[1].keys() <= {"field", "number"}


def test_a_body_in_avro_is_refused_as_a_frame() -> None:
    assert decoded({}, b"\x00\x00\x00\x00\x07\x08SIM\xc3")[1] == Counter(["frame"])


# columns in bytes


def columns(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    price = rng.uniform(1.0, 2.0, n)
    price[::3] = np.nan
    bid = np.where(np.isnan(price), 1.5, np.nan)
    return {"price": price, "bid": bid, "bid_size": bid * 2.0, "id": np.arange(n) + 1}


def test_columns_in_bytes_are_what_they_are_in_json() -> None:
    names, n = NAMES[:3], 50
    given = columns(n)
    time_ns = 1_625_291_738_612_292_000 + np.arange(n)[::-1]
    symbol = np.arange(n) % 3
    lists = {
        key: [None if value != value else value for value in column.tolist()]
        for key, column in given.items()
    }
    document = {"symbols": names, "symbol": symbol.tolist(), "time": time_ns.tolist(), **lists}
    packed = to_bytes(names, symbol, time_ns, given)
    assert packed[:4] == b"SCT1"
    assert len(packed) == 16 + n * (8 + 4 * 8 + 2) + len("\n".join(names))
    in_bytes, in_json = (decoded({}, value) for value in (packed, orjson.dumps(document)))
    assert in_bytes == in_json
    assert len(in_bytes[0]) == n
    assert [tick["time_ns"] for tick in in_bytes[0]] == time_ns.tolist()


def test_the_documented_bytes_of_columns_are_read() -> None:
    value = (
        bytes.fromhex(
            "53435431"  # SCT1
            "0100 0200 02000000 00000000"  # price; two symbols; two ticks
            "a0f2b3ff923a8e16 a1f2b3ff923a8e16"  # times
            "0000000000505940 0000000000001e40"  # 101.25, 7.5
            "0100 0000"  # the second symbol, the first
        )
        + b"SIM:A\nSIM:B"
    )
    ticks, refused, _ = decoded({}, value)
    assert not refused
    first_ns = int.from_bytes(bytes.fromhex("a0f2b3ff923a8e16"), "little")
    assert ticks == [
        {"symbol": "SIM:B", "time_ns": first_ns, "price": 101.25},
        {"symbol": "SIM:A", "time_ns": first_ns + 1, "price": 7.5},
    ]


def test_columns_that_do_not_fit_together_are_refused_as_a_whole() -> None:
    good = {"symbols": NAMES[:2], "symbol": [0, 1], "time_ns": [1_625_291_738 * 10**9] * 2}
    price = {"price": [1.0, 2.0]}

    def reason(columns: dict[str, Any], **change: Any) -> list[str]:
        return [*decoded({}, to_bytes(**{**good, **change}, columns=columns))[1]]

    assert reason(price) == []
    assert reason({}) == ["field"]
    assert reason({"price": [1.0, np.nan]}) == ["field"]
    assert reason({"price": [1.0, np.inf]}) == ["number"]
    assert reason(price | {"ask_size": [1.0, -1.0]}) == ["number"]
    assert reason(price | {"id": [1, -1]}) == ["field"]
    assert reason(price, symbol=[0, 2]) == ["field"]
    assert reason(price, symbols=[NAMES[0], ""]) == ["field"]
    assert reason(price, time_ns=[1_625_291_738, 1_625_291_738]) == ["time_range"]
    whole = to_bytes(**good, columns=price)
    for length in range(4, len(whole) - len("\n".join(NAMES[:2]))):
        assert [*decoded({}, whole[:length])[1]] == ["field"], length
    for at in (*range(4, 16), len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        assert decoded({}, bytes(damaged)) != decoded({}, whole)


# names


def named(
    messages: list[dict[str, Any]], symbols: list[str], topic: str = "ticks", **settings: Any
) -> list[int]:
    universe = {"name": "u", "symbols": symbols}
    tree: Any = {"universe": [universe], "input": {"topics": ["ticks", "futures"], **settings}}
    config = Config(**tree)
    tables = symbol_tables(config.input, config.universe[0].symbols)
    values: list[bytes | None] = [orjson.dumps(message) for message in messages]
    n = len(values)
    records = RecordBatch(Source(topic, 0), 0, n, range(n), [-1] * n, values)
    return decode(records, "auto", tables).asset.tolist()  # type: ignore[no-any-return]


def trade(name: str) -> dict[str, Any]:
    own = {"e": "trade", "E": LOG_MS, "T": LOG_MS, "t": 1, "p": "1", "q": "1", "m": True}
    return own | {"s": name}


def unified(name: str) -> dict[str, Any]:
    own = {"timestamp": LOG_MS, "datetime": None, "price": 1.0, "amount": 1.0, "id": None}
    return own | {"symbol": name}


def test_aliases_name_a_symbol_in_any_format() -> None:
    aliases = {"BINANCE:BTCUSDT": "BTC", "BTC/USDT": "BTC", "bitcoin": "BTC"}
    native = [{"symbol": name, "time": LOG_MS, "price": 1.0} for name in ("bitcoin", "BTC", "btc")]
    for times in (1, BULK_MIN):
        assert named(native * times, ["ETH", "BTC"], aliases=aliases) == [1, 1, -1] * times
        mixed = [trade("BTCUSDT"), unified("BTC/USDT"), trade("BTC")]
        assert named(mixed * times, ["ETH", "BTC"], aliases=aliases) == [1, 1, -1] * times


def test_the_exchange_of_a_topic_is_that_of_its_symbols() -> None:
    symbols = ["BINANCE:BTCUSDT", "BINANCE_FUTURES:BTCUSDT", "BINANCE:ETHUSDT", "KRAKEN:BTC/USD"]
    settings: dict[str, Any] = {"exchanges": {"futures": "BINANCE_FUTURES"}}
    trades = [trade("BTCUSDT"), trade("ETHUSDT")]
    assert named(trades, symbols, **settings) == [0, 2]
    assert named(trades, symbols, "futures", **settings) == [1, -1]
    kraken: dict[str, Any] = {"exchanges": {"ticks": "KRAKEN"}}
    assert named([unified("BTC/USD"), unified("KRAKEN:BTC/USD")], symbols, **kraken) == [3, 3]
    assert named([unified("BTC/USD")], symbols) == [-1]


def test_an_alias_may_be_of_a_topic_with_an_exchange() -> None:
    settings: dict[str, Any] = {
        "aliases": {"BINANCE_FUTURES:BTCUSDT": "BTC"},
        "exchanges": {"futures": "BINANCE_FUTURES"},
    }
    assert named([trade("BTCUSDT")], ["BTC", "ETH"], "futures", **settings) == [0]
    assert named([trade("BTCUSDT")], ["BTC", "ETH"], **settings) == [-1]


# whatever the bytes

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=4)
    | st.sampled_from(["1", "-1", "1e400", "nan", "", "2021-07-03T05:55:38Z", LOG_MS, -1, 1e300]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["s", "p", "price", "symbol", "b"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside a document, itself among them."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inner = [*document.items()]
    elif isinstance(document, list):
        inner = [*enumerate(document)]
    deeper = itertools.chain.from_iterable(places(v, (*path, key)) for key, v in inner)
    return [path, *deeper]


def put(document: Any, path: tuple[Any, ...], value: Any, *, drop: bool = False) -> Any:
    """Return a document with another value at a path, or without what is there."""
    if not path:
        return value
    out = document.copy()
    if len(path) == 1 and drop:
        del out[path[0]]
    else:
        out[path[0]] = put(document[path[0]], path[1:], value, drop=drop)
    return out


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A documented message with values changed or left out, perhaps in an envelope."""
    _, sample = draw(st.sampled_from(SAMPLES))
    message = sample["message"]
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(message)))
        message = put(message, path, draw(json_values), drop=draw(st.booleans()))
    return message


wrapped = st.builds(
    lambda message, wrap: wrap(message),
    mutated(),
    st.sampled_from([orjson.dumps, *ENVELOPES.values()]),
)
torn = st.builds(lambda value, at: value[:at], wrapped, st.integers(0, 400))
values_ = st.one_of(wrapped, wrapped, wrapped, torn, st.binary(max_size=40), st.none())


def assert_accounted(read: TickBatch, n: int) -> None:
    """Every record is in ticks, refused, or passed over, and only in one of them."""
    refused = {row for row, _ in read.malformed}
    assert refused.isdisjoint(read.row.tolist())
    assert len(refused) == len(read.malformed)
    assert len({*read.row.tolist()}) + len(refused) + sum(read.silent.values()) == n
    assert {why for _, why in read.malformed} <= REASONS
    assert set(read.silent) <= QUIET
    assert read.row.tolist() == sorted(read.row.tolist())
    assert sum(read.formats.values()) >= len({*read.row.tolist()})


@hypothesis.given(st.lists(values_, max_size=6), st.sampled_from([1, BULK_MIN]))
@hypothesis.settings(max_examples=300)
def test_mutated_messages_raise_nothing_and_batches_do_not_show(
    values: list[bytes | None], times: int
) -> None:
    many = [value for value in values for _ in range(times)]
    whole = decode(batch(many, [LOG_MS] * len(many)), "auto", INDEX)
    assert_accounted(whole, len(many))
    alone = [decode(batch([value], [LOG_MS]), "auto", INDEX) for value in values]
    assert ticks_of(whole) == [t for one in alone for t in ticks_of(one) * times]
    reasons = [why for one in alone for _, why in one.malformed for _ in range(times)]
    assert [why for _, why in whole.malformed] == reasons


@hypothesis.given(
    st.lists(values_, max_size=4), st.sampled_from([*FORMATS]), st.sampled_from([1, BULK_MIN])
)
def test_no_bytes_make_any_format_raise(
    values: list[bytes | None], format_name: str, times: int
) -> None:
    many = values * times
    assert_accounted(decode(batch(many), format_name, INDEX), len(many))


@hypothesis.given(st.binary(max_size=120), st.integers(0, 200), st.data())
def test_damaged_columns_raise_nothing(junk: bytes, at: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))
    whole = to_bytes(NAMES[:2], np.arange(n) % 2, [LOG_MS * 10**6] * n, columns(n))
    value = whole[:at] + junk + whole[at + len(junk) * data.draw(st.integers(0, 1)) :]
    for one in (value, b"SCT1" + junk):
        assert_accounted(decode(batch([one]), "auto", INDEX), 1)
